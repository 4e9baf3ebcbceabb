/* main.c - the subcommands of a compiled program. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gpu.h"
#include "options.h"
#include "runtime.h"
#include "tiles.h"

static const struct command {
    const char *name, *help;
    int (*run)(int argc, char **argv);
    bool computes; /* the model, on a device where there is one */
} commands[] = {
    {"info", "what this program is: shapes, memory, kernels, predicted speed", cmd_info, false},
    {"train", "train on text, JSONL or token shards", cmd_train, true},
    {"eval", "loss, perplexity and bits per byte on files", cmd_eval, true},
    {"score", "log-probability of each token of a text", cmd_score, true},
    {"generate", "continue a prompt", cmd_generate, true},
    {"bench", "speed against this machine's measured limits", cmd_bench, false},
    {"verify", "every kernel and the whole model against a plain reference", cmd_verify, true},
    {"export", "weights in Hugging Face layout", cmd_export, false},
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void usage(FILE *out)
{
    fprintf(out, "usage: %s COMMAND [options]\n\n%s, compiled from %s (%s)\n\n", program_name,
            archrt_model.arch.name, archrt_model.source, archrt_model.options);
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].help);
    if (archrt_model.cuda)
        fprintf(
            out,
            "\n--device host|cuda behind a command: where it computes (cuda, where there is "
            "one)\n--products own|library|auto: matrix products of training and of prompts on the "
            "device by\nthis program's kernels or by cuBLASLt (auto: those of training by "
            "cuBLASLt, where it loads)\n");
    fprintf(out, "\n'%s COMMAND --help' lists a command's options.\n", program_name);
    fprintf(out, "Exit status: 0 done, 1 wrong input, 2 wrong command line, 4 the disk, the memory "
                 "or the\nlike failed, 130 interrupted with everything saved.\n");
}

static int unknown_command(const char *word)
{
    const char *names[N_COMMANDS + 1];
    struct failure f;
    for (int i = 0; i < N_COMMANDS; i++)
        names[i] = commands[i].name;
    names[N_COMMANDS] = NULL;
    const char *near = nearest_word(word, names);
    failed(&f, STATUS_USAGE, "no command '%s': %s%s%s", word,
           near ? "did you mean " : "--help lists them", near ? near : "", near ? "?" : "");
    return failure_report(&f);
}

/* The kernels are compiled for the processor of the compiling machine. */
static void on_illegal_instruction(int signal)
{
    static const char text[] = "error: this program was compiled for another processor: compile it "
                               "on this machine\n";
    (void)signal;
    (void)!write(STDERR_FILENO, text, sizeof text - 1);
    _exit(STATUS_WORLD);
}

/* Takes `name` and its value out of the words. False: the value is missing. */
static bool take_option(int *argc, char **argv, const char *name, const char **value)
{
    int kept = 1;
    size_t length = strlen(name);
    for (int i = 1; i < *argc; i++) {
        if (strncmp(argv[i], name, length) == 0 && argv[i][length] == '=') {
            *value = argv[i] + length + 1;
        } else if (strcmp(argv[i], name) == 0) {
            if (++i == *argc)
                return false;
            *value = argv[i];
        } else {
            argv[kept++] = argv[i];
        }
    }
    *argc = kept;
    return true;
}

static bool asks_for_help(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    return false;
}

/* Runs the command on the device that was asked for, or that is there. */
static int run_on_device(const struct command *c, int argc, char **argv)
{
    const char *device = NULL, *products = NULL;
    struct failure f;
    if (!take_option(&argc, argv, "--device", &device)) {
        failed(&f, STATUS_USAGE, "--device wants host or cuda behind it");
        return failure_report(&f);
    }
    if (!take_option(&argc, argv, "--products", &products)) {
        failed(&f, STATUS_USAGE, "--products wants own, library or auto behind it");
        return failure_report(&f);
    }
    bool computes = c->computes && !asks_for_help(argc, argv);
    if (computes && !device_choose(device, products, &f))
        return failure_report(&f);
    bool bench = c->run == cmd_bench && device && strcmp(device, "cuda") == 0;
    if (bench && !device_choose(device, products, &f))
        return failure_report(&f);
    int status = bench ? cmd_device_bench(argc, argv) : c->run(argc, argv);
    if (device_failed(&f) && status != STATUS_USAGE)
        status = failure_report(&f);
    device_leave();
    return status;
}

static int run(const struct command *c, int argc, char **argv)
{
    signal(SIGXFSZ, SIG_IGN); /* a write beyond the limit fails instead, and is reported */
    signal(SIGILL, on_illegal_instruction);
    if (archrt_model.tiles && !tiles_allow()) {
        fprintf(stderr,
                "%s: error: this program multiplies on the tile unit (AMX), which is not to be had "
                "here: compile it on this machine, or with --march x86-64-v4\n",
                program_name);
        return STATUS_WORLD;
    }
    team_start(archrt_model.threads);
    int status = run_on_device(c, argc, argv);
    team_stop();
    if ((fflush(stdout) != 0 || ferror(stdout)) && status == STATUS_OK && errno != EPIPE) {
        struct failure f;
        failed_file(&f, "write", "the output");
        status = failure_report(&f);
    }
    return status;
}

int main(int argc, char **argv)
{
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    if (argc > 0)
        program_name = slash ? slash + 1 : argv[0];
    if (archrt_model.abi != ARCHRT_ABI) {
        fprintf(stderr,
                "%s: error: compiled for run-time version %d, linked with %d: compile it "
                "again\n",
                program_name, archrt_model.abi, ARCHRT_ABI);
        return STATUS_WORLD;
    }
    if (argc < 2) {
        usage(stderr);
        return STATUS_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        usage(stdout);
        return STATUS_OK;
    }
    for (int i = 0; i < N_COMMANDS; i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return run(&commands[i], argc - 1, argv + 1);
    return unknown_command(argv[1]);
}

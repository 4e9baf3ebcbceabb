/* build.c - emitted files become a program: write, compile as many at once as there are processors,
 * link with the run-time library that archc carries.
 *
 * The compiler is a subprocess. All work happens in a directory of its own; the program appears
 * under its name only when it is whole. */
#include "codegen.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

/* ---- what archc carries ---- */

#define RESOURCE(number, name) extern const char resource_##number[], resource_##number##_end[];
#include "resources.inc"
#undef RESOURCE

static const struct resource {
    const char *name, *begin, *end;
} resources[] = {
#define RESOURCE(number, name) {name, resource_##number, resource_##number##_end},
#include "resources.inc"
#undef RESOURCE
};
enum { RESOURCES = sizeof resources / sizeof resources[0] };

/* ---- files ---- */

static bool write_file(const char *dir, const char *name, const char *at, size_t n,
                       struct text *why)
{
    struct text path = {0};
    text_printf(&path, "%s/%s", dir, name);
    FILE *f = fopen(path.at, "wb");
    bool ok = f && fwrite(at, 1, n, f) == n;
    if (f && fclose(f) != 0)
        ok = false;
    if (!ok)
        text_printf(why, "cannot write %s: %s", path.at, strerror(errno));
    text_free(&path);
    return ok;
}

bool write_files(const struct emitted_files *files, const char *dir, struct text *why)
{
    if (mkdir(dir, 0777) != 0 && errno != EEXIST) {
        text_printf(why, "cannot make the directory %s: %s", dir, strerror(errno));
        return false;
    }
    for (int i = 0; i < files->n; i++)
        if (!write_file(dir, files->files[i].name, files->files[i].text.at,
                        files->files[i].text.length, why))
            return false;
    return true;
}

static bool write_resources(const char *dir, struct text *why)
{
    for (int i = 0; i < RESOURCES; i++)
        if (!write_file(dir, resources[i].name, resources[i].begin,
                        (size_t)(resources[i].end - resources[i].begin), why))
            return false;
    return true;
}

static void remove_directory(const char *dir, const struct emitted_files *files)
{
    struct text path = {0};
    for (int i = 0; i < files->n + RESOURCES; i++) {
        const char *name = i < files->n ? files->files[i].name : resources[i - files->n].name;
        for (int k = 0; k < 3; k++) {
            path.length = 0;
            text_printf(&path, "%s/%s%s", dir, name, k == 0 ? "" : k == 1 ? ".o" : ".log");
            unlink(path.at);
        }
    }
    for (int k = 0; k < 2; k++) {
        path.length = 0;
        text_printf(&path, "%s/program%s", dir, k ? ".log" : "");
        unlink(path.at);
    }
    text_free(&path);
    rmdir(dir);
}

/* ---- tools ---- */

enum { MAX_ARGUMENTS = 48 };
struct command {
    const char *words[MAX_ARGUMENTS + 1];
    int n;
};

static void word(struct command *c, const char *w)
{
    if (c->n < MAX_ARGUMENTS)
        c->words[c->n++] = w;
    c->words[c->n] = NULL;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct job {
    pid_t pid;
    char *log; /* what the tool printed */
    char *what;
    double started;
};

/* Starts the tool in `dir`'s stead: its paths are whole. Output goes to LOG. */
static bool start(struct job *job, const struct command *c, bool verbose, struct text *why)
{
    if (verbose) {
        for (int i = 0; i < c->n; i++)
            fprintf(stderr, "%s%s", i ? " " : "+ ", c->words[i]);
        fputc('\n', stderr);
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, job->log, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    job->started = seconds();
    int error =
        posix_spawnp(&job->pid, c->words[0], &actions, NULL, (char **)(void *)c->words, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (error) {
        job->pid = 0;
        text_printf(why, "cannot run %s: %s; install it, or name another compiler with --cc",
                    c->words[0], strerror(error));
        return false;
    }
    return true;
}

static void add_log(struct text *why, const char *path)
{
    char line[512];
    FILE *f = fopen(path, "r");
    for (int i = 0; f && i < 12 && fgets(line, sizeof line, f); i++)
        text_printf(why, "%s%s", i == 0 ? "\n" : "", line);
    if (f)
        fclose(f);
}

/* Waits for a job; its failure goes into `why`, once. */
static bool finish(struct job *job, bool verbose, struct text *why)
{
    int status = 0;
    while (waitpid(job->pid, &status, 0) < 0 && errno == EINTR)
        ;
    bool ok = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (verbose)
        fprintf(stderr, "  %s: %.2f s\n", job->what, seconds() - job->started);
    if (!ok && why->length == 0) {
        text_printf(why, "%s failed", job->what);
        add_log(why, job->log);
    }
    job->pid = 0;
    return ok;
}

static char *joined(const char *dir, const char *name, const char *suffix)
{
    struct text t = {0};
    text_printf(&t, "%s/%s%s", dir, name, suffix);
    return t.at;
}

/* ---- compiling and linking ---- */

/* Kernels say in their vectors what may be reordered; nothing more is allowed to the compiler. */
static void compile_words(struct command *c, const struct tools *tools, const char *march,
                          const char *include)
{
    word(c, tools->cc);
    word(c, "-std=gnu11");
    word(c, "-O3");
    word(c, march);
    word(c, "-ffp-contract=fast");
    word(c, "-fno-math-errno");
    word(c, "-fno-trapping-math");
    word(c, "-fno-strict-aliasing");
#ifdef ARCHC_SANITIZE
    word(c, "-g");
    word(c, "-fsanitize=address,undefined");
    word(c, "-fno-sanitize-recover=undefined");
#endif
    word(c, include);
}

struct build {
    const struct emitted_files *files;
    const struct tools *tools;
    const char *dir;
    char *march, *include, *predicted[3];
    struct job jobs[MAX_EMITTED];
};

static bool start_compile(struct build *b, int i, struct text *why)
{
    const char *name = b->files->files[i].name;
    struct job *job = &b->jobs[i];
    job->log = joined(b->dir, name, ".log");
    job->what = joined(b->tools->cc, name, "");
    char *source = joined(b->dir, name, ""), *object = joined(b->dir, name, ".o");
    struct command c = {.n = 0};
    compile_words(&c, b->tools, b->march, b->include);
    for (int k = 0; k < 3; k++)
        word(&c, b->predicted[k]);
    word(&c, "-c");
    word(&c, source);
    word(&c, "-o");
    word(&c, object);
    bool ok = start(job, &c, b->tools->verbose, why);
    free(source);
    free(object);
    return ok;
}

/* The job that has ended, or will end first. */
static struct job *next_to_end(struct build *b)
{
    struct job *oldest = NULL;
    siginfo_t ended = {0};
    waitid(P_ALL, 0, &ended, WEXITED | WNOWAIT);
    for (int i = 0; i < b->files->n; i++) {
        if (b->jobs[i].pid && b->jobs[i].pid == ended.si_pid)
            return &b->jobs[i];
        if (b->jobs[i].pid && !oldest)
            oldest = &b->jobs[i];
    }
    return oldest; /* it was another child of this process that ended */
}

static bool compile_all(struct build *b, struct text *why)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    int at_once = processors < 1 ? 1 : (int)processors, running = 0;
    bool ok = true;
    for (int i = 0; i < b->files->n && ok; i++) {
        if (!b->files->files[i].compile)
            continue;
        while (running >= at_once) {
            ok = finish(next_to_end(b), b->tools->verbose, why) && ok;
            running--;
        }
        if (ok)
            ok = start_compile(b, i, why);
        running += ok;
    }
    for (int i = 0; i < b->files->n; i++)
        if (b->jobs[i].pid)
            ok = finish(&b->jobs[i], b->tools->verbose, why) && ok;
    return ok;
}

static bool link_all(struct build *b, const char *program, struct text *why)
{
    struct command c = {.n = 0};
    struct job job = {.log = joined(b->dir, "program", ".log"),
                      .what = joined("link", "program", "")};
    char *owned[MAX_EMITTED + 1];
    int n = 0;
    word(&c, b->tools->cc);
#ifdef ARCHC_SANITIZE
    word(&c, "-fsanitize=address,undefined");
#endif
    for (int i = 0; i < b->files->n; i++)
        if (b->files->files[i].compile)
            word(&c, owned[n++] = joined(b->dir, b->files->files[i].name, ".o"));
    word(&c, owned[n++] = joined(b->dir, "libarchrt.a", ""));
    word(&c, "-lm");
    word(&c, "-lpthread");
    word(&c, "-ldl");
    word(&c, "-o");
    word(&c, program);
    bool ok = start(&job, &c, b->tools->verbose, why) && finish(&job, b->tools->verbose, why);
    while (n > 0)
        free(owned[--n]);
    free(job.log);
    free(job.what);
    return ok;
}

/* Copies next to `output` and renames, so that a full disk leaves no half a program. */
static bool install(const char *from, const char *output, struct text *why)
{
    struct text temporary = {0};
    text_printf(&temporary, "%s.part.%ld", output, (long)getpid());
    FILE *in = fopen(from, "rb"), *out = fopen(temporary.at, "wb");
    char block[1 << 16];
    bool ok = in && out;
    for (size_t n; ok && (n = fread(block, 1, sizeof block, in)) > 0;)
        ok = fwrite(block, 1, n, out) == n;
    if (in)
        fclose(in);
    if (out && fclose(out) != 0)
        ok = false;
    ok = ok && chmod(temporary.at, 0755) == 0 && rename(temporary.at, output) == 0;
    if (!ok) {
        text_printf(why, "cannot write %s: %s", output, strerror(errno));
        unlink(temporary.at);
    }
    text_free(&temporary);
    return ok;
}

static char *work_directory(const struct tools *tools, struct text *why)
{
    struct text dir = {0};
    if (tools->keep) {
        text_add(&dir, tools->keep);
        if (mkdir(dir.at, 0777) == 0 || errno == EEXIST)
            return dir.at;
    } else {
        const char *tmp = getenv("TMPDIR");
        text_printf(&dir, "%s/archc-XXXXXX", tmp && *tmp ? tmp : "/tmp");
        if (mkdtemp(dir.at))
            return dir.at;
    }
    text_printf(why, "cannot make the directory %s: %s", dir.at, strerror(errno));
    text_free(&dir);
    return NULL;
}

bool build_program(const struct emitted_files *files, const struct tools *tools,
                   const double predicted[3], const char *output, struct text *why)
{
    static const char *const names[] = {"TRAIN", "PREFILL", "DECODE"};
    char *dir = work_directory(tools, why);
    if (!dir)
        return false;
    struct build b = {.files = files, .tools = tools, .dir = dir};
    struct text march = {0}, include = {0}, p[3] = {{0}};
    text_printf(&march, "-march=%s", tools->march);
    text_printf(&include, "-I%s", dir);
    b.march = march.at;
    b.include = include.at;
    for (int k = 0; k < 3; k++) {
        text_printf(&p[k], "-DPREDICTED_%s=%.6g", names[k], predicted[k]);
        b.predicted[k] = p[k].at;
    }
    char *program = joined(dir, "program", "");
    bool ok = write_files(files, dir, why) && write_resources(dir, why) && compile_all(&b, why) &&
              link_all(&b, program, why) && install(program, output, why);
    for (int i = 0; i < files->n; i++) {
        free(b.jobs[i].log);
        free(b.jobs[i].what);
    }
    if (!tools->keep)
        remove_directory(dir, files);
    for (int k = 0; k < 3; k++)
        text_free(&p[k]);
    text_free(&march);
    text_free(&include);
    free(program);
    free(dir);
    return ok;
}

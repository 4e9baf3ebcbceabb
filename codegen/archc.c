/* archc.c - the driver: what happens to a .arch file, in order.
 *
 *   spec_read     text, tokens, ast, checks            lang/
 *   resolve       knobs become integers                law/search.c
 *   plan_build    operations become kernels            codegen/plan.c
 *   emit          kernels become C and CUDA            codegen/emit_host.c, emit_cuda.c
 *   build_program C and CUDA become a program          codegen/build.c, build_cuda.c
 *
 * Only this file prints diagnostics, and only main ends the process. Exit status: 0 done, 1 the
 * spec is wrong, 2 the command line is wrong, 3 no candidate satisfies the requirements, 4 the
 * world failed. */
#include "driver.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    STAGE_TOKENS,
    STAGE_AST,
    STAGE_SPEC,
    STAGE_ARCH,
    STAGE_OPS,
    STAGE_PLAN,
    STAGE_C,
    STAGE_CUDA,
    STAGE_LLVM,
    STAGE_PTX,
    STAGE_CUBIN,
    STAGES
};
static const char *const stage_names[STAGES] = {
    "tokens", "ast", "spec", "arch", "ops", "plan", "c", "cuda", "llvm", "ptx", "cubin"};

struct command {
    const char *name, *arguments, *does;
    int (*run)(struct driver *);
};

static int run_compile(struct driver *d);
static int run_check(struct driver *d);
static int run_resolve(struct driver *d);
static int run_explain(struct driver *d);
static int run_frontier(struct driver *d);
static int run_fmt(struct driver *d);
static int run_calibrate(struct driver *d);

static const struct command commands[] = {
    {"compile", "FILE.arch [-o PROGRAM]", "resolve, emit, compile, link (the word may be left out)",
     run_compile},
    {"check", "FILE.arch", "diagnostics only", run_check},
    {"resolve", "FILE.arch [--json]", "the chosen shape, every metric, every requirement's margin",
     run_resolve},
    {"explain", "FILE.arch [--csv F] [--svg F]", "why: the law around each knob, what binds, the runners-up",
     run_explain},
    {"frontier", "FILE.arch [--csv F] [--svg F]", "the loss/throughput front of the candidates",
     run_frontier},
    {"report", "FILE.arch [-o F.html]", "all of that as one page, pictures included", run_report},
    {"fmt", "FILE.arch [-o F]", "canonical layout, comments kept", run_fmt},
    {"import", "CONFIG.json [-o F]", "a Hugging Face config becomes a .arch file", run_import},
    {"bench", "FILE.arch [--json] [--svg F]", "specialised kernels against generic ones and BLAS; --target sm_90",
     run_bench},
    {"fit", "RUNS.csv [--form F] [-o F]", "fit a law to training runs; archc fit --help", run_fit},
    {"study", "FILE.arch [-o DIR] [--dry-run]",
     "train shapes of a grid, fit a law, train what it chooses, report", run_study},
    {"calibrate", "[-o F]", "measure this machine into a device declaration", run_calibrate},
};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

/* ---- the command line ---- */

struct option {
    const char *name, *value, *does; /* value NULL: a switch */
    size_t at;                       /* offset in struct driver */
};
#define TEXT_OPTION(name, value, field, does)                                                      \
    {                                                                                              \
        name, value, does, offsetof(struct driver, field)                                          \
    }
#define SWITCH(name, field, does)                                                                  \
    {                                                                                              \
        name, NULL, does, offsetof(struct driver, field)                                           \
    }

static const struct option options[] = {
    TEXT_OPTION("-o", "PATH", output, "where the result goes (default: the model's name)"),
    TEXT_OPTION("-m", "MODEL", model, "which model of the file (default: its last)"),
    TEXT_OPTION("--target", "T", target, "host (default), sm_80, sm_90,..: with CUDA; null: the plan alone"),
    TEXT_OPTION("--emit", "STAGES", emit, "print tokens,ast,spec,arch,ops,plan,c,cuda,llvm,ptx,cubin"),
    TEXT_OPTION("--threads", "N", threads,
                "threads the program is built for (default: processors)"),
    TEXT_OPTION("--weights", "TYPE", weights,
                "fp32, bf16 or int8 in inference (default: the spec's)"),
    TEXT_OPTION("--cc", "COMPILER", cc, "C compiler to run (default: clang, else gcc)"),
    TEXT_OPTION("--march", "CPU", march, "processor to compile for (default: native)"),
    TEXT_OPTION("--device-cc", "COMPILER", device_cc,
                "of device code: a clang (default: the newest known) or nvcc"),
    TEXT_OPTION("--kernels", "DIR", kernels,
                "CUDA kernel files of DIR in place of those of their names that archc carries"),
    TEXT_OPTION("--keep", "DIR", keep, "leave the emitted files in DIR"),
    TEXT_OPTION("--csv", "F", csv, "explain, frontier: the points"),
    TEXT_OPTION("--svg", "F", svg, "explain, frontier, bench: the plot"),
    TEXT_OPTION("--measure", "N", measure,
                "resolve, compile: time the N best candidates here, decide on that"),
    TEXT_OPTION("--phase", "PHASE", phase, "bench: train, prefill or decode only"),
    TEXT_OPTION("--rounds", "N", rounds, "bench, --measure: how often each program runs, in turn (default 3)"),
    TEXT_OPTION("--repeat", "N", repeat, "bench on a GPU: timings a round, of which the median (5)"),
    TEXT_OPTION("--programs", "A,B", programs,
                "bench on a GPU: the specialised and the generic program, compiled before"),
    TEXT_OPTION("--jobs", "N", jobs, "study: runs at once (default: processors)"),
    SWITCH("--dry-run", dry_run, "study: list the runs and the time they should take"),
    TEXT_OPTION("--form", "FORM", form, "fit: multiplicative, additive, joint, chinchilla or morph"),
    TEXT_OPTION("--l-opt", "L", l_opt, "fit: lowest, curve, or a built-in law"),
    TEXT_OPTION("--columns", "C=HEADER,..", columns, "fit: which header stands for a column"),
    TEXT_OPTION("--group", "COLUMN", group, "fit: runs with equal texts there are of one size"),
    TEXT_OPTION("--where", "C=V", where, "fit: only those runs"),
    TEXT_OPTION("--holdout", "C=V", holdout, "fit: predict those runs, do not fit them"),
    TEXT_OPTION("--drop-highest", "N", drop_highest, "fit: leave out the N highest losses"),
    TEXT_OPTION("--bootstrap", "N", bootstrap, "fit: refits for the intervals (default 1000)"),
    TEXT_OPTION("--seed", "N", seed, "fit: of the bootstrap (default 1)"),
    TEXT_OPTION("--date", "TEXT", date, "fit: of the data, for the record"),
    SWITCH("--all-r", all_r, "fit: keep runs with r outside 0.5..5"),
    SWITCH("--progressive", progressive, "fit: on the smaller sizes, predict the next"),
    SWITCH("--compare", compare, "fit: all forms side by side"),
    SWITCH("--generic", generic, "the same kernels with run-time shapes"),
    SWITCH("--json", json, "for programs to read"),
    SWITCH("-v", verbose, "show each tool run and its time"),
};
enum { OPTIONS = sizeof options / sizeof options[0] };

static void usage(FILE *out)
{
    fprintf(out,
            "archc - from a .arch file to a program that trains and serves that one model\n\n");
    for (int i = 0; i < COMMANDS; i++)
        fprintf(out, "  archc %-9s %-30s %s\n", i == 0 ? "" : commands[i].name,
                commands[i].arguments, commands[i].does);
    fprintf(out, "\noptions\n");
    for (int i = 0; i < OPTIONS; i++) {
        char head[48];
        snprintf(head, sizeof head, "%s%s%s", options[i].name,
                 !options[i].value           ? ""
                 : options[i].name[1] == '-' ? "="
                                             : " ",
                 options[i].value ? options[i].value : "");
        fprintf(out, "  %-20s %s\n", head, options[i].does);
    }
    fprintf(
        out,
        "\nexit status: 0 done, 1 the spec is wrong, 2 the command line is wrong, 3 no candidate\n"
        "satisfies the requirements, 4 a tool or the disk failed\n"
        "\nstart here: archc explain FILE.arch, then archc FILE.arch && ./MODEL --help\n");
}

static int wrong_usage(const char *text, const char *word)
{
    fprintf(stderr, "archc: %s%s%s; see archc --help\n", text, word ? " " : "", word ? word : "");
    return STATUS_USAGE;
}

/* Takes argv[*i], and the value behind it where it needs one. False: reported. */
static bool take_option(struct driver *d, int argc, char **argv, int *i)
{
    const char *word = argv[*i], *equals = strchr(word, '=');
    size_t n = equals ? (size_t)(equals - word) : strlen(word);
    for (int k = 0; k < OPTIONS; k++) {
        const struct option *o = &options[k];
        if (strlen(o->name) != n || strncmp(o->name, word, n) != 0)
            continue;
        char *field = (char *)d + o->at;
        if (!o->value) {
            if (equals)
                return wrong_usage("no value is taken by", o->name), false;
            *(bool *)(void *)field = true;
            return true;
        }
        if (!equals && *i + 1 >= argc)
            return wrong_usage("a value is missing behind", o->name), false;
        *(const char **)(void *)field = equals ? equals + 1 : argv[++*i];
        return true;
    }
    wrong_usage("unknown option", word);
    return false;
}

static const struct command *find_command(const char *name)
{
    for (int i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

bool parse_count(const char *text, int low, int high, int *out)
{
    char *end;
    errno = 0;
    long v = strtol(text, &end, 10);
    if (errno || *end || end == text || v < low || v > high)
        return false;
    *out = (int)v;
    return true;
}

/* ---- reading and resolving ---- */

void driver_print_diags(struct driver *d)
{
    diags_print(&d->diags, stderr);
    d->diags.first = d->diags.last = NULL;
}

int driver_read(struct driver *d)
{
    bool ok = spec_read(d->arena, d->path, law_prelude, &d->diags, &d->spec);
    if (!ok) {
        driver_print_diags(d);
        return STATUS_SPEC;
    }
    d->model_index = d->spec.main_model;
    if (d->model) {
        d->model_index = spec_find_model(&d->spec, d->model);
        if (d->model_index < 0)
            return wrong_usage("the file declares no model", d->model);
    }
    return 0;
}

int driver_no_model(struct driver *d)
{
    fprintf(stderr, "%s: error: no model is declared\n  help: add `model NAME { ... }`\n", d->path);
    return STATUS_SPEC;
}

int driver_resolve(struct driver *d)
{
    int status = driver_read(d);
    if (status)
        return status;
    if (d->model_index < 0)
        return driver_no_model(d);
    bool ok = resolve(d->arena, &d->spec, d->model_index, &d->diags, &d->resolution);
    if (!d->quiet || !ok)
        driver_print_diags(d);
    if (!ok)
        return STATUS_SPEC;
    if (!d->resolution.found) {
        resolution_infeasible(&d->spec, &d->resolution, stderr);
        return STATUS_INFEASIBLE;
    }
    return 0;
}

/* ---- planning and emitting ---- */

static int set_options(struct driver *d, const struct model_spec *m, struct build_options *o)
{
    int context = d->resolution.best.arch.context;
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    *o = (struct build_options){.weights = m->serve.weights, .generic = d->generic};
    o->threads = processors < 1 ? 1 : processors > 64 ? 64 : (int)processors;
    if (d->threads && !parse_count(d->threads, 1, 64, &o->threads))
        return wrong_usage("--threads wants a number from 1 to 64, not", d->threads);
    if (d->weights) {
        int t = 0;
        while (t < DTYPE_COUNT && strcmp(dtype_names[t], d->weights) != 0)
            t++;
        if (t == DTYPE_COUNT)
            return wrong_usage("--weights wants fp32, bf16 or int8, not", d->weights);
        o->weights = (enum dtype)t;
    }
    o->recompute = m->train.recompute;
    o->batch = m->train.batch > 0 ? m->train.batch : 8;
    o->sequence = m->train.sequence > 0 ? m->train.sequence : context < 256 ? context : 256;
    o->chunk = context < 512 ? context : 512;
    return 0;
}

/* "surefire.arch:7", the file without its directory: emitted text names no place of this machine.
 */
static const char *source_of(struct driver *d, const struct model_spec *m)
{
    const struct source *s = &d->spec.sources[m->at.source];
    const char *slash = strrchr(s->path, '/');
    int line = 1;
    for (uint32_t i = 0; i < m->at.start && i < s->length; i++)
        line += s->text[i] == '\n';
    return arena_printf(d->arena, "%s:%d", slash ? slash + 1 : s->path, line);
}

int driver_plan(struct driver *d)
{
    const struct model_spec *m = d->resolution.model;
    const char *why = NULL, *host;
    struct build_options o;
    int status = driver_targets(d, &host);
    if (!status)
        status = set_options(d, m, &o);
    if (status)
        return status;
    const struct target *target = target_find(host);
    o.cuda = d->cuda.n > 0;
    if (o.cuda)
        o.logits = driver_logits(d);
    d->plan = arena_alloc(d->arena, sizeof *d->plan);
    if (!plan_build(d->arena, &d->resolution.best.arch, target, &o, d->plan, &why) ||
        !plan_verify(d->plan, &why)) {
        fprintf(stderr, "archc: the plan of %s is wrong: %s\n", m->name, why);
        return STATUS_WORLD;
    }
    const char *source = source_of(d, m);
    d->files.n = 0;
    target->emit(d->plan, m, source, &d->files);
    return o.cuda ? driver_plan_cuda(d, &o, source) : 0;
}

/* Tokens a second that the cost model expects of this machine. */
static void predict(struct driver *d, double tokens_per_second[3])
{
    struct device host;
    const char *why = NULL;
    struct plan *p = d->plan;
    tokens_per_second[0] = tokens_per_second[1] = tokens_per_second[2] = 0;
    if (!device_host(d->arena, &host, &why)) {
        fprintf(stderr, "archc: note: nothing is predicted for this machine: %s\n", why);
        return;
    }
    if (host.threads != p->options.threads)
        return; /* measured with another team */
    double step = cost_list(&host, &p->lists[PHASE_TRAIN_FORWARD], p->loads) +
                  cost_list(&host, &p->lists[PHASE_TRAIN_BACKWARD], p->loads) +
                  cost_list(&host, &p->lists[PHASE_OPTIMISER], p->loads);
    tokens_per_second[0] = (double)p->extents[EXTENT_ROWS] / step;
    tokens_per_second[1] = p->loads[PHASE_PREFILL].tokens /
                           cost_list(&host, &p->lists[PHASE_PREFILL], &p->loads[PHASE_PREFILL]);
    tokens_per_second[2] =
        1 / cost_list(&host, &p->lists[PHASE_DECODE], &p->loads[PHASE_DECODE]);
}

const char *default_compiler(void)
{
    const char *path = getenv("PATH");
    for (; path && *path; path += strcspn(path, ":"), path += *path == ':') {
        char name[4096];
        snprintf(name, sizeof name, "%.*s/clang", (int)strcspn(path, ":"), path);
        if (access(name, X_OK) == 0)
            return "clang";
    }
    return "gcc";
}

int driver_build(struct driver *d, const char *output)
{
    struct tools tools = {.cc = d->cc ? d->cc : default_compiler(),
                          .march = d->march ? d->march : "native",
                          .verbose = d->verbose,
                          .keep = d->keep,
                          .device_cc = d->device_cc,
                          .kernels = d->kernels,
                          .cuda = &d->cuda};
    struct text why = {0};
    double predicted[3];
    predict(d, predicted);
    bool ok = build_program(&d->files, &tools, predicted, output, &why);
    if (!ok)
        fprintf(stderr, "archc: %s\n", why.at);
    text_free(&why);
    return ok ? 0 : STATUS_WORLD;
}

/* ---- --emit ---- */

static int parse_stages(const char *list, bool wanted[STAGES])
{
    for (const char *at = list; *at;) {
        size_t n = strcspn(at, ",");
        int stage = 0;
        while (stage < STAGES &&
               (strlen(stage_names[stage]) != n || strncmp(stage_names[stage], at, n) != 0))
            stage++;
        if (stage == STAGES)
            return wrong_usage("--emit knows tokens, ast, spec, arch, ops, plan, c, cuda, llvm, ptx "
                               "and cubin, not",
                               at);
        wanted[stage] = true;
        at += n;
        at += *at == ',';
    }
    return 0;
}

/* The host's files, or those of the CUDA side. */
static int emit_c(struct driver *d, bool cuda)
{
    if (d->output) {
        struct text why = {0};
        bool ok = write_files(&d->files, d->output, &why);
        if (!ok)
            fprintf(stderr, "archc: %s\n", why.at);
        text_free(&why);
        return ok ? 0 : STATUS_WORLD;
    }
    for (int i = 0; i < d->files.n; i++)
        if (d->files.files[i].cuda == cuda)
            printf("/* ==== %s ==== */\n%s\n", d->files.files[i].name, d->files.files[i].text.at);
    return 0;
}

static int run_emit(struct driver *d)
{
    bool wanted[STAGES] = {false};
    int status = parse_stages(d->emit, wanted);
    if (status)
        return status;
    if (wanted[STAGE_TOKENS])
        emit_tokens(d->arena, d->path, &d->diags, stdout);
    if (wanted[STAGE_AST])
        emit_ast(d->arena, d->path, &d->diags, stdout);
    if (d->diags.errors) {
        driver_print_diags(d);
        return STATUS_SPEC;
    }
    bool device = wanted[STAGE_LLVM] || wanted[STAGE_PTX] || wanted[STAGE_CUBIN];
    bool plan = wanted[STAGE_OPS] || wanted[STAGE_PLAN] || wanted[STAGE_C] || wanted[STAGE_CUDA];
    bool later = wanted[STAGE_ARCH] || plan || device;
    if (!d->target && (wanted[STAGE_CUDA] || device))
        d->target = "sm_90";
    if (wanted[STAGE_SPEC] && !later) {
        status = driver_read(d);
        if (!status) {
            driver_print_diags(d);
            emit_spec(&d->spec, stdout);
        }
        return status;
    }
    if (!later)
        return 0;
    status = driver_resolve(d);
    if (status)
        return status;
    if (wanted[STAGE_SPEC])
        emit_spec(&d->spec, stdout);
    if (wanted[STAGE_ARCH])
        arch_print(&d->resolution.best.arch, stdout);
    if (!plan && !device)
        return 0;
    status = driver_plan(d);
    if (status)
        return status;
    for (int phase = 0; wanted[STAGE_OPS] && phase < PHASE_COUNT; phase++)
        ops_print(&d->plan->lists[phase], stdout);
    if (wanted[STAGE_PLAN])
        plan_print(d->plan, stdout);
    if (wanted[STAGE_PLAN] && d->cuda_plan)
        plan_print(d->cuda_plan, stdout);
    if (wanted[STAGE_C])
        status = emit_c(d, false);
    if (!status && wanted[STAGE_CUDA])
        status = emit_c(d, true);
    for (int stage = STAGE_LLVM; !status && stage <= STAGE_CUBIN; stage++)
        if (wanted[stage])
            status = driver_emit_device(d, (enum device_stage)(stage - STAGE_LLVM));
    return status;
}

/* ---- commands ---- */

static int run_compile(struct driver *d)
{
    if (d->emit)
        return run_emit(d);
    int status = driver_resolve(d);
    if (!status && d->measure)
        status = driver_measure(d);
    if (!status)
        status = driver_plan(d);
    if (status || !d->plan->target->builds)
        return status; /* `null`, and nothing to run CUDA with */
    return driver_build(d, d->output ? d->output : d->resolution.model->name);
}

static int run_check(struct driver *d)
{
    int status = driver_read(d);
    if (status)
        return status;
    int warnings = d->diags.warnings;
    driver_print_diags(d);
    int models = 0;
    for (int i = 0; i < d->spec.n_models; i++)
        models += d->spec.models[i].at.source == 0;
    int studies = d->spec.n_studies;
    printf("%s: %d model%s, ", d->path, models, models == 1 ? "" : "s");
    if (studies > 0)
        printf("%d stud%s, ", studies, studies == 1 ? "y" : "ies");
    printf("%d warning%s\n", warnings, warnings == 1 ? "" : "s");
    return 0;
}

static int run_resolve(struct driver *d)
{
    int status = driver_read(d);
    if (status)
        return status;
    if (d->model_index < 0)
        return driver_no_model(d);
    bool ok = resolve(d->arena, &d->spec, d->model_index, &d->diags, &d->resolution);
    driver_print_diags(d);
    if (!ok)
        return STATUS_SPEC;
    if (d->measure && d->resolution.found) {
        status = driver_measure(d);
        if (status)
            return status;
    }
    if (d->json)
        resolution_json(&d->resolution, stdout);
    else if (d->resolution.found)
        resolution_print(&d->resolution, stdout);
    if (!d->resolution.found)
        resolution_infeasible(&d->spec, &d->resolution, stderr);
    return d->resolution.found ? 0 : STATUS_INFEASIBLE;
}

static int world(const char *what, const char *path)
{
    fprintf(stderr, "archc: cannot %s %s: %s\n", what, path, strerror(errno));
    return STATUS_WORLD;
}

/* explain and frontier: text, and the files that were asked for. */
static int run_drawn(struct driver *d, bool front)
{
    int status = driver_read(d);
    if (status)
        return status;
    if (d->model_index < 0)
        return driver_no_model(d);
    FILE *csv = NULL, *svg = NULL;
    if (d->csv && !(csv = fopen(d->csv, "w")))
        return world("write", d->csv);
    if (d->svg && !(svg = fopen(d->svg, "w")))
        return world("write", d->svg);
    const char *why = NULL;
    bool found = true;
    bool ok = front ? frontier(d->arena, &d->spec, d->model_index, &d->diags, csv, svg, stdout, &why)
                    : explain(d->arena, &d->spec, d->model_index, &d->diags, csv, svg, stdout,
                              &found, &why);
    driver_print_diags(d);
    status = !ok ? STATUS_SPEC : !found ? STATUS_INFEASIBLE : why ? STATUS_WORLD : 0;
    if (why)
        fprintf(stderr, "archc: no plot: %s\n", why);
    if (csv && fclose(csv) != 0)
        status = world("write", d->csv);
    if (svg && fclose(svg) != 0)
        status = world("write", d->svg);
    return status;
}

static int run_explain(struct driver *d)
{
    return run_drawn(d, false);
}

static int run_frontier(struct driver *d)
{
    return run_drawn(d, true);
}

static int run_fmt(struct driver *d)
{
    struct text part = {0};
    FILE *out = stdout;
    if (d->output) {
        text_printf(&part, "%s.part", d->output);
        out = fopen(part.at, "w");
        if (!out)
            return world("write", part.at);
    }
    bool ok = format_file(d->arena, d->path, &d->diags, out);
    driver_print_diags(d);
    int status = ok ? 0 : STATUS_SPEC;
    if (d->output) {
        if (fclose(out) != 0)
            status = world("write", part.at);
        else if (!ok)
            unlink(part.at);
        else if (rename(part.at, d->output) != 0)
            status = world("write", d->output);
    }
    text_free(&part);
    return status;
}

static int run_calibrate(struct driver *d)
{
    struct device host = {.name = "host"};
    const char *why = NULL;
    if (!device_measure(&host, &why)) {
        fprintf(stderr, "archc: cannot measure this machine: %s\n", why);
        return STATUS_WORLD;
    }
    FILE *out = d->output ? fopen(d->output, "w") : stdout;
    if (!out)
        return world("write", d->output);
    device_print(&host, out);
    return out != stdout && fclose(out) != 0 ? world("write", d->output) : 0;
}

/* ---- main ---- */

static int run(struct driver *d, int argc, char **argv)
{
    const struct command *command = argc > 1 ? find_command(argv[1]) : NULL;
    int i = command ? 2 : 1;
    for (; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            if (command && command->run == run_fit)
                fputs(fit_help, stdout);
            else
                usage(stdout);
            return 0;
        }
        if (argv[i][0] == '-' && argv[i][1]) {
            if (!take_option(d, argc, argv, &i))
                return STATUS_USAGE;
        } else if (d->path) {
            return wrong_usage("one file at a time; this is a second one:", argv[i]);
        } else {
            d->path = argv[i];
        }
    }
    if (!command)
        command = &commands[0];
    if (!d->path && command->run != run_calibrate) {
        usage(stderr);
        return STATUS_USAGE;
    }
    return command->run(d);
}

int main(int argc, char **argv)
{
    struct driver d = {.arena = arena_new()};
    d.diags.arena = d.arena;
    int status = run(&d, argc, argv);
    for (int i = 0; i < d.files.n; i++)
        text_free(&d.files.files[i].text);
    arena_free(d.arena);
    if (fflush(stdout) != 0 || ferror(stdout))
        return world("write", "the output");
    return status;
}

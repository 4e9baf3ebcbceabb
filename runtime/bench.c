/* bench.c - speed against this machine's measured limits: kernel by kernel, against the vendor's
 * products, then whole phases. Nothing that is wrong is timed.
 *
 * --json prints one object:
 *   model, options, generic, threads, repeat
 *   machine   {isa, fma_gflops, product_gflops, read_gbs, read_bytes, memory_read_gbs, copy_gbs}:
 * ceilings of the whole team; read_gbs is for a working set of read_bytes, the packed weights
 *   kernels   [{name, kind, phase, m, n, k, weights, times, correct, max_rel, seconds, spread,
 *             gflops, gbs, peak_fraction, read_fraction, blas: [{library, seconds, ratio}]}]
 *   phases    [{phase, what, tokens, past, seconds (the median), fastest_seconds, spread,
 *             tokens_per_second, peak_fraction, read_fraction}]
 *   correct   whether every timed kernel passed
 * seconds are medians of `repeat` samples, spread is (slowest - fastest) / median of them; ratio is
 * the library's time over ours, so above 1 we are faster. Fractions that make no sense for a row
 * are null. Kernels and phases have the same names in a specialised and in a --generic program. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jansson.h>

#include "blas.h"
#include "options.h"
#include "peak.h"
#include "verify.h"

enum { MAX_REPEAT = 99, MAX_COPIES = 16 };

struct bench {
    bool json, whole;
    const char *phase; /* or NULL: all */
    const char *library;
    int64_t repeat;
    struct peak peak;
    struct blas blas[MAX_BLAS];
    int n_blas;
    json_t *kernels, *phases;
    bool correct;
    struct failure *f;
};

struct samples {
    double at[MAX_REPEAT];
    int n;
};

static void pause_for(double seconds)
{
    struct timespec t = {0, (long)(seconds * 1e9)};
    nanosleep(&t, NULL);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void summarise(struct samples *s, double *median, double *spread)
{
    *median = *spread = NAN;
    if (s->n == 0)
        return;
    qsort(s->at, (size_t)s->n, sizeof *s->at, ascending);
    *median = s->n % 2 ? s->at[s->n / 2] : (s->at[s->n / 2 - 1] + s->at[s->n / 2]) / 2;
    *spread = (s->at[s->n - 1] - s->at[0]) / *median;
}

/* ---- kernels -----------------------------------------------------------------------------------
 */

/* One kernel with as many sets of operands as keep its weights from staying in a nearer cache than
 * they would in the program, which has one set per layer. */
struct contest {
    struct bench *b;
    const struct archrt_kernel *kernel;
    struct trial copies[MAX_COPIES];
    int n_copies;
    float *c;  /* the libraries' output */
    int calls; /* a sample */
    struct samples ours, theirs[MAX_BLAS];
};

static bool is_product(const struct archrt_kernel *k)
{
    return k->kind == ARCHRT_MATMUL || k->kind == ARCHRT_MATMUL_DX || k->kind == ARCHRT_MATMUL_DW ||
           k->kind == ARCHRT_PREFILL_MATMUL;
}

static int wanted_copies(const struct contest *c)
{
    const struct archrt_kernel *k = c->kernel;
    if (strcmp(k->phase, "decode") != 0 || k->bytes <= 0)
        return 1;
    double copies = fmin((double)archrt_model.weight_bytes, 256e6) / k->bytes;
    copies = fmin(copies, k->times);
    return copies > MAX_COPIES ? MAX_COPIES : copies < 1 ? 1 : (int)copies;
}

static bool contest_open(struct contest *c)
{
    const struct archrt_kernel *k = c->kernel;
    int past = strcmp(k->phase, "decode") == 0 && kinds[k->kind].cached
                   ? archrt_model.arch.context / 2
                   : 0;
    if (past + k->m > archrt_model.arch.context)
        past = 0;
    int n = wanted_copies(c);
    for (c->n_copies = 0; c->n_copies < n; c->n_copies++)
        if (!trial_open(&c->copies[c->n_copies], &archrt_model, k, k->m, past, 0,
                        (uint64_t)c->n_copies + 1, c->b->f)) {
            trial_close(&c->copies[c->n_copies]);
            return false;
        }
    if (is_product(k)) {
        size_t rows = (size_t)(k->kind == ARCHRT_MATMUL_DW ? k->n : k->m);
        size_t columns =
            (size_t)(k->kind == ARCHRT_MATMUL_DX || k->kind == ARCHRT_MATMUL_DW ? k->k : k->n);
        c->c = need(calloc(rows * columns, sizeof *c->c));
    }
    return true;
}

static void contest_close(struct contest *c)
{
    for (int i = 0; i < c->n_copies; i++)
        trial_close(&c->copies[i]);
    free(c->c);
}

static void run_theirs(struct contest *c, const struct blas *blas)
{
    const struct trial *t = &c->copies[0];
    int m = c->kernel->m, n = c->kernel->n, k = c->kernel->k;
    if (c->kernel->kind == ARCHRT_MATMUL_DX)
        blas_multiply(blas, c->c, t->dy, false, t->w, false, m, k, n, 0);
    else if (c->kernel->kind == ARCHRT_MATMUL_DW)
        blas_multiply(blas, c->c, t->dy, true, t->x, false, n, k, m, 1);
    else
        blas_multiply(blas, c->c, t->x, false, t->w, true, m, n, k, 0);
}

/* A sample of ours runs within one parallel region, as in the program: a barrier a call, no fork.
 */
static void ours_work(void *arg, int tid)
{
    struct contest *c = arg;
    for (int i = 0; i < c->calls; i++) {
        struct trial *t = &c->copies[i % c->n_copies];
        t->kind->call(t, tid);
        team_barrier(tid);
    }
}

/* Seconds a call, of one sample. A call before it wakes threads and warms caches. */
static double sample(struct contest *c, const struct blas *blas)
{
    double t;
    if (blas) {
        run_theirs(c, blas);
        t = clock_seconds();
        for (int i = 0; i < c->calls; i++)
            run_theirs(c, blas);
    } else {
        trial_run(&c->copies[c->n_copies - 1]);
        t = clock_seconds();
        team_run(ours_work, c);
    }
    return (clock_seconds() - t) / c->calls;
}

/* Ours and theirs in turns. The pauses let the threads of the one before fall asleep. */
static void run_contest(struct contest *c)
{
    double once;
    c->calls = 1;
    once = sample(c, NULL);
    double calls = once > 0 ? 4e-3 / once : 64;
    c->calls = calls < 1 ? 1 : calls > 200 ? 200 : (int)calls;
    for (int i = 0; i < c->b->repeat; i++) {
        for (int j = 0; j < c->n_copies; j++)
            trial_reset(&c->copies[j]);
        c->ours.at[c->ours.n++] = sample(c, NULL);
        for (int j = 0; is_product(c->kernel) && j < c->b->n_blas; j++) {
            pause_for(2e-3);
            c->theirs[j].at[c->theirs[j].n++] = sample(c, &c->b->blas[j]);
            pause_for(6e-3);
        }
    }
}

/* JSON has no NaN: null. */
static json_t *number(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

/* The bandwidth that a kernel's bytes can be held against: the packed weights' in decode, memory's
 * for what no cache holds; NaN where operands stay in caches whose bandwidth is not measured. */
static double bandwidth_for(const struct bench *b, const struct archrt_kernel *k)
{
    if (strcmp(k->phase, "decode") == 0)
        return b->peak.read;
    return k->bytes >= 64e6 ? b->peak.read_memory : NAN;
}

/* What the arithmetic of a phase can reach: that of the unit that does its products. Products with
 * bf16 weights take half as many tiles as those of fp32 (kernels/host/prefill_amx.h). */
static double arithmetic_limit(const struct bench *b, const char *phase)
{
    if (strcmp(phase, "decode") == 0)
        return b->peak.flops;
    bool halves =
        archrt_model.tiles && strcmp(phase, "prefill") == 0 && archrt_model.weights == ARCHRT_BF16;
    return halves ? 2 * b->peak.products : b->peak.products;
}

static void kernel_header(const struct bench *b)
{
    printf("%-26s %-8s %-20s %10s %5s %8s %7s %6s %6s", "kernel", "phase", "m x n x k", "time",
           "+-", "GFLOP/s", "GB/s", "peak", "read");
    for (int i = 0; i < b->n_blas; i++)
        printf(" %9.9s", b->blas[i].name);
    putchar('\n');
}

static void show_seconds(char *out, size_t size, double s)
{
    if (s < 1e-3)
        snprintf(out, size, "%.2f us", s * 1e6);
    else if (s < 1)
        snprintf(out, size, "%.3f ms", s * 1e3);
    else
        snprintf(out, size, "%.3f s", s);
}

static void print_kernel(const struct bench *b, const struct archrt_kernel *k, double seconds,
                         double spread, const double *ratio)
{
    char shape[48], time[32];
    snprintf(shape, sizeof shape, k->k > 0 ? "%d x %d x %d" : "%d x %d", k->m, k->n, k->k);
    show_seconds(time, sizeof time, seconds);
    printf("%-26s %-8s %-20s %10s %4.0f%%", k->name, k->phase, shape, time, 100 * spread);
    if (k->flops > 0)
        printf(" %8.1f", k->flops / seconds * 1e-9);
    else
        printf(" %8s", "-");
    printf(" %7.1f", k->bytes / seconds * 1e-9);
    if (k->flops > 0)
        printf(" %5.1f%%", 100 * k->flops / seconds / arithmetic_limit(b, k->phase));
    else
        printf(" %6s", "-");
    double bandwidth = bandwidth_for(b, k);
    if (bandwidth > 0)
        printf(" %5.1f%%", 100 * k->bytes / seconds / bandwidth);
    else
        printf(" %6s", "-");
    for (int i = 0; is_product(k) && i < b->n_blas; i++)
        printf(" %8.2fx", ratio[i]);
    putchar('\n');
    fflush(stdout);
}

static json_t *blas_results(struct contest *c, double seconds, double *ratio)
{
    json_t *list = json_array();
    for (int i = 0; is_product(c->kernel) && i < c->b->n_blas; i++) {
        double theirs, spread;
        summarise(&c->theirs[i], &theirs, &spread);
        ratio[i] = theirs / seconds;
        json_array_append_new(list, json_pack("{s:s, s:o, s:o, s:o, s:b}", "library",
                                              c->b->blas[i].name, "seconds", number(theirs),
                                              "spread", number(spread), "ratio", number(ratio[i]),
                                              "threads_set", (int)c->b->blas[i].threads_set));
    }
    return list;
}

static json_t *describe(const struct archrt_kernel *k, const struct kernel_verdict *v)
{
    static const char *const types[] = {"fp32", "bf16", "int8"};
    return json_pack("{s:s, s:s, s:s, s:i, s:i, s:i, s:s, s:i, s:o, s:o, s:s}", "name", k->name,
                     "kind", kinds[k->kind].name, "phase", k->phase, "m", k->m, "n", k->n, "k",
                     k->k, "weights", types[k->weights < 3 ? k->weights : 0], "times", k->times,
                     "correct", v->skipped ? json_null() : json_boolean(v->passed), "max_rel",
                     number(v->max_rel), "note", v->note);
}

static void report_contest(struct contest *c, json_t *row)
{
    const struct archrt_kernel *k = c->kernel;
    double seconds, spread, ratio[MAX_BLAS] = {0};
    summarise(&c->ours, &seconds, &spread);
    json_object_set_new(row, "seconds", number(seconds));
    json_object_set_new(row, "spread", number(spread));
    json_object_set_new(row, "gflops", number(k->flops / seconds * 1e-9));
    json_object_set_new(row, "gbs", number(k->bytes / seconds * 1e-9));
    json_object_set_new(row, "peak_fraction",
                        number(k->flops / seconds / arithmetic_limit(c->b, k->phase)));
    json_object_set_new(row, "read_fraction", number(k->bytes / seconds / bandwidth_for(c->b, k)));
    json_object_set_new(row, "blas", blas_results(c, seconds, ratio));
    if (!c->b->json)
        print_kernel(c->b, k, seconds, spread, ratio);
}

/* Judged first; what is wrong is shown without a time. */
static bool bench_kernel(struct bench *b, const struct archrt_kernel *k)
{
    struct kernel_verdict v;
    if (!verify_kernel(&archrt_model, k, 1, 1e7, PLANT_NONE, &v, b->f))
        return false;
    json_t *row = describe(k, &v);
    json_array_append_new(b->kernels, row);
    b->correct = b->correct && v.passed;
    if (!v.passed || v.skipped) {
        if (!b->json)
            printf("%-26s %-8s %s: %s\n", k->name, k->phase, v.passed ? "not timed" : "WRONG",
                   v.note[0] ? v.note : "verify shows how far off");
        return true;
    }
    struct contest *c = need(calloc(1, sizeof *c));
    c->b = b;
    c->kernel = k;
    bool opened = contest_open(c);
    if (opened) {
        run_contest(c);
        report_contest(c, row);
    }
    contest_close(c);
    free(c);
    return opened;
}

/* ---- phases ------------------------------------------------------------------------------------
 */

static void report_phase(struct bench *b, const char *phase, const char *what, int tokens, int past,
                         struct samples *s, double flops, double bytes)
{
    double seconds, spread;
    summarise(s, &seconds, &spread);
    double rate = tokens / seconds, peak = flops / seconds / arithmetic_limit(b, phase);
    double read = bytes > 0 ? bytes / seconds / b->peak.read : NAN;
    json_array_append_new(b->phases,
                          json_pack("{s:s, s:s, s:i, s:i, s:o, s:o, s:o, s:o, s:o, s:o}", "phase",
                                    phase, "what", what, "tokens", tokens, "past", past, "seconds",
                                    number(seconds), "fastest_seconds", number(s->at[0]), "spread",
                                    number(spread), "tokens_per_second", number(rate),
                                    "peak_fraction", number(peak), "read_fraction", number(read)));
    if (b->json)
        return;
    char time[32];
    show_seconds(time, sizeof time, seconds);
    printf("%-8s %-36s %10s %4.0f%% %12.1f %6.1f%%", phase, what, time, 100 * spread, rate,
           100 * peak);
    if (bytes > 0)
        printf(" %6.1f%%", 100 * read);
    putchar('\n');
    fflush(stdout);
}

struct step_job {
    struct archrt_train pass;
    struct archrt_adamw update;
};

static void step_work(void *arg, int tid)
{
    struct step_job *j = arg;
    archrt_model.train(&j->pass, tid);
    team_barrier(tid);
    archrt_model.sum_squares(j->update.grads, tid);
    archrt_model.adamw(&j->update, tid);
}

struct slab {
    void *at;
    size_t bytes;
};

static bool bench_training(struct bench *b)
{
    const struct archrt_model *m = &archrt_model;
    size_t slab = m->param_floats * sizeof(float), rows = (size_t)m->batch * (size_t)m->sequence;
    struct slab s[] = {
        {NULL, slab},          {NULL, slab},
        {NULL, slab},          {NULL, slab},
        {NULL, m->work_bytes}, {NULL, (size_t)m->arch.context * (size_t)m->arch.head_dim * 4},
        {NULL, rows * 4},      {NULL, rows * 4},
        {NULL, rows * 4},
    };
    enum { SLABS = sizeof s / sizeof *s };
    bool room = true;
    for (int i = 0; i < SLABS && room; i++)
        room = slab_alloc(&s[i].at, s[i].bytes, "a training step", b->f);
    if (room) {
        struct step_job j = {
            {s[0].at, s[1].at, s[4].at, s[6].at, s[7].at, 1.0f / (float)rows, s[8].at, s[5].at},
            {s[0].at, s[1].at, s[2].at, s[3].at, 1e-5f, 0.9f, 0.95f, 1e-8f, 0.1f, 1, 0.1f, 0.05f}};
        struct samples samples = {.n = 0};
        int32_t *token = s[6].at, *target = s[7].at;
        struct pcg32 random;
        pcg32_seed(&random, 1, 1);
        params_init(m, s[0].at, 1);
        rope_table(&m->arch, s[5].at);
        for (size_t i = 0; i < rows; i++) {
            token[i] = (int32_t)(pcg32_next(&random) % (uint32_t)m->arch.vocab);
            target[i] = (int32_t)(pcg32_next(&random) % (uint32_t)m->arch.vocab);
        }
        team_run(step_work, &j);
        for (int i = 0; i < b->repeat; i++) {
            double t = clock_seconds();
            team_run(step_work, &j);
            samples.at[samples.n++] = clock_seconds() - t;
        }
        report_phase(b, "train", "step: forward, backward, AdamW", (int)rows, 0, &samples,
                     flops_train(m) * (double)rows, 0);
    }
    for (int i = 0; i < SLABS; i++)
        slab_free(s[i].at, s[i].bytes);
    return room;
}

/* Packed random weights and a feed of random tokens. */
static bool open_inference(struct inference *s, struct failure *f)
{
    void *params;
    size_t bytes = archrt_model.param_floats * sizeof(float);
    if (!slab_alloc(&params, bytes, "the parameters", f))
        return false;
    params_init(&archrt_model, params, 1);
    bool opened = inference_open(s, &archrt_model, params, f);
    slab_free(params, bytes);
    return opened;
}

static void bench_prefill(struct bench *b, struct inference *s, int n, float *logits)
{
    struct samples samples = {.n = 0};
    int32_t *token = need(malloc((size_t)n * sizeof *token));
    char what[64];
    for (int i = 0; i < n; i++)
        token[i] = (int32_t)(mix64((uint64_t)i) % (uint64_t)archrt_model.arch.vocab);
    for (int i = -1; i < b->repeat; i++) {
        s->state.past = 0;
        double t = clock_seconds();
        inference_feed(s, token, n, logits, NULL, NULL);
        if (i >= 0)
            samples.at[samples.n++] = clock_seconds() - t;
    }
    snprintf(what, sizeof what, "prompt of %d tokens", n);
    /* The head runs once, for the last token. */
    double head = 2.0 * archrt_model.arch.vocab * archrt_model.arch.d_model;
    report_phase(b, "prefill", what, n, 0, &samples,
                 (flops_forward(&archrt_model, (n + 1) / 2.0) - head) * n + head, 0);
    free(token);
}

/* Bytes that one decoded token reads: every matrix once, and the cached keys and values. */
static double decode_bytes(double past)
{
    static const double width[] = {4, 2, 1.0625};
    const struct archrt_model *m = &archrt_model;
    double weights = (double)m->params + (double)m->arch.vocab * m->arch.d_model;
    return weights * width[m->weights] + (double)m->cache_bytes / m->arch.context * past;
}

static void bench_decode(struct bench *b, struct inference *s, int past, float *logits)
{
    struct samples samples = {.n = 0};
    int room = archrt_model.arch.context - past, n = room < 32 ? room : 32;
    char what[64];
    if (n < 1)
        return;
    for (int i = -1; i < b->repeat; i++) {
        s->state.past = past; /* a cache of zeros costs as much as any */
        double t = clock_seconds();
        for (int j = 0; j < n; j++)
            inference_step(s, (int32_t)(j % archrt_model.arch.vocab), logits);
        if (i >= 0)
            samples.at[samples.n++] = (clock_seconds() - t);
    }
    snprintf(what, sizeof what, "%d tokens from position %d", n, past);
    double mean = past + (n + 1) / 2.0;
    report_phase(b, "decode", what, n, past, &samples, flops_forward(&archrt_model, mean) * n,
                 decode_bytes(mean) * n);
}

static bool wanted(const struct bench *b, const char *phase)
{
    return !b->phase || strcmp(b->phase, phase) == 0;
}

static bool bench_generation(struct bench *b)
{
    const struct archrt_model *m = &archrt_model;
    struct inference s;
    if (!open_inference(&s, b->f))
        return false;
    float *logits = need(malloc((size_t)m->arch.vocab * sizeof *logits));
    int chunk = m->chunk < m->arch.context ? m->chunk : m->arch.context;
    int prompt = m->arch.context < 512 ? m->arch.context : 512;
    if (wanted(b, "prefill")) {
        bench_prefill(b, &s, chunk, logits);
        if (prompt != chunk)
            bench_prefill(b, &s, prompt, logits);
    }
    if (wanted(b, "decode")) {
        bench_decode(b, &s, 0, logits);
        bench_decode(b, &s, m->arch.context / 2, logits);
    }
    free(logits);
    inference_close(&s);
    return true;
}

/* ---- the command -------------------------------------------------------------------------------
 */

static void print_machine(const struct bench *b)
{
    char size[32];
    printf("%s, %s\n", archrt_model.arch.name, archrt_model.options);
    printf("this machine, %d threads, %s: %.1f GFLOP/s fp32", b->peak.threads, b->peak.isa,
           b->peak.flops * 1e-9);
    if (archrt_model.tiles)
        printf(" (products on AMX: %.1f)", b->peak.products * 1e-9);
    printf("; read %.1f GB/s (%s, the weights), %.1f GB/s (memory); copy %.1f GB/s\n\n",
           b->peak.read * 1e-9, show_bytes(size, (double)b->peak.working_set),
           b->peak.read_memory * 1e-9, b->peak.copy * 1e-9);
}

static bool run_bench(struct bench *b)
{
    const struct archrt_model *m = &archrt_model;
    if (!b->json)
        print_machine(b);
    if (!b->json && !b->whole)
        kernel_header(b);
    for (int i = 0; i < m->n_kernels && !b->whole; i++)
        if (wanted(b, m->kernels[i].phase) && !bench_kernel(b, &m->kernels[i]))
            return false;
    if (!b->json)
        printf("\n%-8s %-36s %10s %5s %12s %7s %7s\n", "phase", "", "time", "+-", "tokens/s",
               "peak", "read");
    if (wanted(b, "train") && !bench_training(b))
        return false;
    return (!wanted(b, "prefill") && !wanted(b, "decode")) || bench_generation(b);
}

static void print_json(const struct bench *b)
{
    const struct peak *p = &b->peak;
    json_t *machine = json_pack(
        "{s:s, s:o, s:o, s:o, s:o, s:o, s:o}", "isa", p->isa, "fma_gflops", number(p->flops * 1e-9),
        "product_gflops", number(p->products * 1e-9), "read_gbs", number(p->read * 1e-9),
        "read_bytes", json_integer((json_int_t)p->working_set), "memory_read_gbs",
        number(p->read_memory * 1e-9), "copy_gbs", number(p->copy * 1e-9));
    json_t *all = json_pack(
        "{s:s, s:s, s:s, s:b, s:i, s:i, s:b, s:o, s:O, s:O}", "model", archrt_model.arch.name,
        "source", archrt_model.source, "options", archrt_model.options, "generic",
        (int)archrt_model.generic, "threads", archrt_model.threads, "repeat", (int)b->repeat,
        "correct", (int)b->correct, "machine", machine, "kernels", b->kernels, "phases", b->phases);
    json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(all);
}

int cmd_bench(int argc, char **argv)
{
    struct failure f;
    struct bench b = {.repeat = 5, .correct = true, .f = &f};
    const struct option table[] = {
        {.name = "json", .kind = OPTION_FLAG, .value = &b.json, .help = "one JSON object"},
        {.name = "phase",
         .argument = "train|prefill|decode",
         .kind = OPTION_CHOICE,
         .value = &b.phase,
         .help = "this phase only"},
        {.name = "whole",
         .kind = OPTION_FLAG,
         .value = &b.whole,
         .help = "whole phases only, no single kernels"},
        {.name = "repeat",
         .argument = "N",
         .kind = OPTION_INT,
         .value = &b.repeat,
         .min = 5,
         .max = MAX_REPEAT,
         .help = "samples of each time, whose median is shown (5)"},
        {.name = "blas",
         .argument = "LIB",
         .kind = OPTION_TEXT,
         .value = &b.library,
         .help = "compare products with this library; none: with none "
                 "(OpenBLAS and BLIS where found)"},
        {0},
    };
    switch (options_read(
        table,
        "Times every kernel, after judging it, and whole phases, against what "
        "this machine can do.\nColumns: peak, read: fraction of the measured peak "
        "(of the unit that multiplies) and read bandwidth; libraries: their time over ours.",
        argc, argv, NULL, &f)) {
    case OPTIONS_HELP:
        return STATUS_OK;
    case OPTIONS_WRONG:
        return failure_report(&f);
    default:
        break;
    }
    b.n_blas = blas_open(b.blas, b.library, archrt_model.threads);
    if (b.library && strcmp(b.library, "none") != 0 && b.n_blas == 0) {
        failed(&f, STATUS_INPUT, "%s has no cblas_sgemm or cannot be loaded: name a CBLAS library",
               b.library);
        return failure_report(&f);
    }
    double load;
    if (getloadavg(&load, 1) == 1 && load > 0.5)
        notice("other work is running (load %.1f): all figures are lower than they would be", load);
    peak_measure(archrt_model.threads, archrt_model.tiles, archrt_model.weight_bytes, &b.peak);
    b.kernels = json_array();
    b.phases = json_array();
    bool done = run_bench(&b);
    if (done && b.json)
        print_json(&b);
    json_decref(b.kernels);
    json_decref(b.phases);
    blas_close(b.blas, b.n_blas);
    if (!done)
        return failure_report(&f);
    return b.correct ? STATUS_OK : STATUS_INPUT;
}

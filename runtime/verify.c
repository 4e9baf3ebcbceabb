/* verify.c - every kernel of the program, then the whole model, against the plain reference. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "gpu.h"
#include "options.h"
#include "verify.h"

/* ---- all cases of one kernel -------------------------------------------------------------------
 */

enum { MAX_CASES = 6 };

static int add_distinct(int *list, int n, int value)
{
    for (int i = 0; i < n; i++)
        if (list[i] == value)
            return n;
    list[n] = value;
    return n + 1;
}

/* One row, a few, an odd number in the middle, the most; in training what the program calls it
 * with. */
static int choose_rows(const struct archrt_model *m, const struct archrt_kernel *k, int *list)
{
    int n = 0, rows = m->batch * m->sequence;
    if (strcmp(k->phase, "train") == 0) {
        n = add_distinct(list, n, k->m);
        bool in_parts = k->kind == ARCHRT_MATMUL || k->kind == ARCHRT_MATMUL_DX ||
                        k->kind == ARCHRT_MATMUL_DW || k->kind == ARCHRT_LOSS;
        return in_parts && k->m > 0 && rows % k->m ? add_distinct(list, n, rows % k->m) : n;
    }
    n = add_distinct(list, n, k->m);
    if (!kinds[k->kind].free_rows)
        return n;
    n = add_distinct(list, n, 1);
    n = add_distinct(list, n, k->m < 6 ? k->m : 6);
    return add_distinct(list, n, (k->m / 2) | 1);
}

/* Nothing cached, one token, some, as many as fit. */
static int choose_past(const struct archrt_model *m, const struct archrt_kernel *k, int rows,
                       int *list)
{
    const struct archrt_arch *a = &m->arch;
    int most = a->context - rows, width = (a->heads + 2 * a->kv_heads) * a->head_dim;
    int n = add_distinct(list, 0, 0);
    if (!kinds[k->kind].cached || most <= 0)
        return n;
    int room = (1 << 26) / width; /* the reference's rows in memory */
    if (most > room)
        most = room;
    if (k->kind == ARCHRT_DECODE_ATTENTION)
        n = add_distinct(list, n, 1);
    else if (most > 1024)
        most = 1024;
    n = add_distinct(list, n, most < 37 ? most : 37);
    return add_distinct(list, n, most);
}

static bool has_variant(const struct archrt_kernel *k, int variant)
{
    bool product =
        k->kind == ARCHRT_MATMUL || k->kind == ARCHRT_PREFILL_MATMUL || k->kind == ARCHRT_MATVEC;
    return variant == 0 || !product || (k->flags & ARCHRT_RESIDUAL);
}

void verdict_note(struct kernel_verdict *v, const struct trial *t, bool passed)
{
    /* The case nearest to its limit is shown; one that failed before all that did not. */
    double ratio = t->limit > 0 ? t->max_rel / t->limit : t->max_rel > 0 ? INFINITY : 0;
    double shown = v->limit > 0 ? v->max_rel / v->limit : v->max_rel > 0 ? INFINITY : 0;
    v->cases++;
    v->checked += t->checked;
    if (!v->passed || (passed && v->cases > 1 && ratio <= shown))
        return;
    v->max_abs = t->max_abs;
    v->max_rel = t->max_rel;
    v->limit = t->limit;
    if (passed)
        return;
    v->passed = false;
    snprintf(v->note, sizeof v->note, "%d rows%s%s%s%s", t->m,
             t->past ? ", behind cached tokens" : "", t->variant ? ", second form" : "",
             t->fault[0] ? ": " : "", t->fault);
}

bool verify_kernel(const struct archrt_model *m, const struct archrt_kernel *k, uint64_t seed,
                   double budget, enum plant plant, struct kernel_verdict *out, struct failure *f)
{
    int rows[MAX_CASES], past[MAX_CASES], n_rows = choose_rows(m, k, rows);
    *out = (struct kernel_verdict){.passed = true};
    for (int i = 0; i < n_rows; i++) {
        int n_past = choose_past(m, k, rows[i], past);
        for (int j = 0; j < n_past * kinds[k->kind].variants; j++) {
            int variant = j % kinds[k->kind].variants;
            struct trial t;
            if (!has_variant(k, variant))
                continue;
            bool made =
                trial_open(&t, m, k, rows[i], past[j / kinds[k->kind].variants], variant, seed, f);
            if (made) {
                t.budget = budget;
                t.plant = plant;
                trial_run(&t);
                verdict_note(out, &t, trial_judge(&t));
            }
            trial_close(&t);
            if (!made && f->status != STATUS_OK)
                return false;
            if (!made) {
                out->skipped = true;
                snprintf(out->note, sizeof out->note, "%.190s", f->text);
                return true;
            }
        }
    }
    return true;
}

/* ---- the command -------------------------------------------------------------------------------
 */

struct settings {
    bool json, full;
    int64_t seed;
    const char *only; /* kernels whose names hold this text, and not the whole model; NULL: all */
    char plant[64];   /* kind, or name of a check of the whole model */
    enum plant how;
};

struct tally {
    bool json;
    json_t *kernels, *model;
    int passed, failed, skipped;
};

static void count(struct tally *t, bool passed)
{
    if (passed)
        t->passed++;
    else
        t->failed++;
}

/* JSON has no NaN and no infinity: null stands for them. */
static json_t *number(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

static void show_shape(const struct archrt_kernel *k, char *out, size_t size)
{
    if (k->k > 0)
        snprintf(out, size, "%d x %d x %d", k->m, k->n, k->k);
    else
        snprintf(out, size, "%d x %d", k->m, k->n);
}

static void kernel_header(void)
{
    printf("%-26s %-8s %-20s %5s %9s %9s %9s %9s\n", "kernel", "phase", "m x n x k", "cases",
           "checked", "max abs", "max rel", "limit");
}

/* The beginning of a row stands before the kernel runs: one that never ends is known by it. */
static void begin_kernel(void *to, const struct archrt_kernel *k)
{
    const struct tally *tally = to;
    char shape[64];
    show_shape(k, shape, sizeof shape);
    if (!tally->json)
        printf("%-26s %-8s %-20s", k->name, k->phase, shape);
    fflush(stdout);
}

static void report_kernel(void *to, const struct archrt_kernel *k, const struct kernel_verdict *v)
{
    struct tally *tally = to;
    if (v->skipped)
        tally->skipped++;
    else
        count(tally, v->passed);
    if (tally->json) {
        json_array_append_new(
            tally->kernels,
            json_pack("{s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:I, s:o, s:o, s:o, s:o, s:s}", "name",
                      k->name, "kind", kinds[k->kind].name, "phase", k->phase, "m", k->m, "n", k->n,
                      "k", k->k, "cases", v->cases, "checked", (json_int_t)v->checked, "max_abs",
                      number(v->max_abs), "max_rel", number(v->max_rel), "limit", number(v->limit),
                      "passed", v->skipped ? json_null() : json_boolean(v->passed), "note",
                      v->note));
        return;
    }
    if (v->skipped)
        printf(" skipped: %s\n", v->note);
    else
        printf(" %5d %9lld %9.2e %9.2e %9.2e  %s%s%s\n", v->cases, (long long)v->checked,
               v->max_abs, v->max_rel, v->limit, v->passed ? "pass" : "FAIL",
               v->note[0] ? ": " : "", v->note);
    fflush(stdout);
}

static void begin_model(void *to, const char *what)
{
    const struct tally *tally = to;
    if (!tally->json)
        printf("%-42s", what);
    fflush(stdout);
}

static void report_model(void *to, const struct model_row *row)
{
    struct tally *tally = to;
    count(tally, row->passed);
    if (tally->json) {
        json_array_append_new(tally->model,
                              json_pack("{s:s, s:I, s:o, s:o, s:b, s:s}", "check", row->what,
                                        "checked", (json_int_t)row->checked, "error",
                                        number(row->error), "limit", number(row->limit), "passed",
                                        (int)row->passed, "note", row->note));
        return;
    }
    printf(" %9lld %9.2e %9.2e  %s%s%s\n", (long long)row->checked, row->error, row->limit,
           row->passed ? "pass" : "FAIL", row->note[0] ? ": " : "", row->note);
    fflush(stdout);
}

/* --plant KIND or KIND:HOW is for the tests of this command and not in its help: it spoils a result
 * so that the judgement itself is judged. Takes it out of the arguments. */
static bool take_plant(struct settings *s, int *argc, char **argv, struct failure *f)
{
    static const struct {
        const char *name;
        enum plant how;
    } hows[] = {{"value", PLANT_VALUE},
                {"guard", PLANT_GUARD},
                {"input", PLANT_INPUT},
                {"nan", PLANT_POISON}};
    for (int i = 1; i + 1 < *argc; i++) {
        if (strcmp(argv[i], "--plant") != 0)
            continue;
        char *colon = strchr(argv[i + 1], ':');
        snprintf(s->plant, sizeof s->plant, "%.*s",
                 colon ? (int)(colon - argv[i + 1]) : (int)strlen(argv[i + 1]), argv[i + 1]);
        s->how = colon ? PLANT_NONE : PLANT_VALUE;
        for (size_t j = 0; colon && j < sizeof hows / sizeof *hows; j++)
            if (strcmp(hows[j].name, colon + 1) == 0)
                s->how = hows[j].how;
        if (s->how == PLANT_NONE)
            return failed(f, STATUS_USAGE, "--plant KIND:value, :guard, :input or :nan");
        memmove(argv + i, argv + i + 2, (size_t)(*argc - i - 1) * sizeof *argv);
        *argc -= 2;
        return true;
    }
    return true;
}

static bool verify_host(const struct settings *s, struct tally *tally, struct failure *f)
{
    const struct archrt_model *m = &archrt_model;
    int asked = 0;
    for (int i = 0; i < m->n_kernels; i++) {
        const struct archrt_kernel *k = &m->kernels[i];
        if (s->only && !strstr(k->name, s->only))
            continue;
        asked++;
        begin_kernel(tally, k);
        bool planted = strcmp(s->plant, kinds[k->kind].name) == 0;
        struct kernel_verdict v;
        if (!verify_kernel(m, k, (uint64_t)s->seed + (uint64_t)i, s->full ? 1e30 : 3e7,
                           planted ? s->how : PLANT_NONE, &v, f))
            return false;
        report_kernel(tally, k, &v);
    }
    return asked > 0 ||
           failed(f, STATUS_USAGE, "no kernel's name holds \"%s\"; `info` lists them", s->only);
}

/* Single kernels, then the whole model: all of them where the model runs. */
static bool verify(const struct settings *s, struct tally *tally, struct failure *f)
{
    const char *plant = s->plant[0] ? s->plant : NULL;
    const struct device_checks d = {.seed = (uint64_t)s->seed,
                                    .budget = s->full ? 1e30 : 3e7,
                                    .plant = plant,
                                    .only = s->only,
                                    .begin = begin_kernel,
                                    .report = report_kernel,
                                    .to = tally};
    if (!s->json)
        kernel_header();
    if (device_in_use() ? !verify_device(the_device(), &d, f) : !verify_host(s, tally, f))
        return false;
    if (s->only)
        return true;
    if (!s->json)
        printf("\n%-42s %9s %9s %9s\n", "whole model", "checked", "error", "limit");
    struct model_checks c = {.plant = plant,
                             .seed = (uint64_t)s->seed,
                             .budget = s->full ? 1e30 : 6e9,
                             .begin = begin_model,
                             .report = report_model,
                             .to = tally};
    return verify_model(the_model, &c, f);
}

static int finish(struct tally *tally)
{
    bool passed = tally->failed == 0;
    if (tally->json) {
        json_t *all =
            json_pack("{s:s, s:s, s:b, s:i, s:i, s:i, s:O, s:O}", "model", archrt_model.arch.name,
                      "options", archrt_model.options, "passed", (int)passed, "checks_passed",
                      tally->passed, "checks_failed", tally->failed, "checks_skipped",
                      tally->skipped, "kernels", tally->kernels, "whole_model", tally->model);
        json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
        putchar('\n');
        json_decref(all);
    } else {
        printf("\n%d passed, %d failed", tally->passed, tally->failed);
        if (tally->skipped)
            printf(", %d skipped", tally->skipped);
        putchar('\n');
    }
    return passed ? STATUS_OK : STATUS_INPUT;
}

int cmd_verify(int argc, char **argv)
{
    struct settings s = {.seed = 1};
    struct failure f;
    const struct option table[] = {
        {.name = "json", .kind = OPTION_FLAG, .value = &s.json, .help = "one JSON object"},
        {.name = "seed",
         .argument = "N",
         .kind = OPTION_INT,
         .value = &s.seed,
         .help = "of the random inputs (1)"},
        {.name = "only",
         .argument = "TEXT",
         .kind = OPTION_TEXT,
         .value = &s.only,
         .help = "kernels whose names hold TEXT, and not the whole model"},
        {.name = "full",
         .kind = OPTION_FLAG,
         .value = &s.full,
         .help = "compare everything rather than a sample: hours for a large model"},
        {0},
    };
    if (!take_plant(&s, &argc, argv, &f))
        return failure_report(&f);
    switch (options_read(table,
                         "Judges every kernel and the whole model by a plain implementation in "
                         "double precision.\nExit status 0: all passed; 1: something did not.",
                         argc, argv, NULL, &f)) {
    case OPTIONS_HELP:
        return STATUS_OK;
    case OPTIONS_WRONG:
        return failure_report(&f);
    default:
        break;
    }
    struct tally tally = {.json = s.json, .kernels = json_array(), .model = json_array()};
    bool done = verify(&s, &tally, &f);
    int status = done ? finish(&tally) : failure_report(&f);
    json_decref(tally.kernels);
    json_decref(tally.model);
    return status;
}

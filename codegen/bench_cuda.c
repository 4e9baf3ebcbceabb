/* bench_cuda.c - `archc bench --target sm_90`: the specialised and the generic program on this
 * machine's GPU, verified first, then timed in turns; without a GPU, what is known all the same:
 * predicted times, floors, registers, spills and shared memory. */
#include "bench.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_CUDA_ROWS = 192, BOTH = 2 };

/* What the assembler says of a kernel, all its passes together. NaN: it was not asked. */
struct figures {
    double registers, spills, shared; /* most registers, all bytes spilled, most bytes a block */
};

struct cuda_row {
    char name[64], phase[16];
    bool is_phase;
    double calls, floor, predicted, past;
    struct figures figures[BOTH];
    struct series seconds[BOTH], factor, library, of_copy, flops, tokens;
    char rival[32]; /* the library's name */
};

struct cuda_bench {
    struct cuda_row rows[MAX_CUDA_ROWS];
    int n;
    json_t *device, *predicted_for; /* of `info`: names, or null */
    char says[256];                 /* why there is no GPU */
    bool judged, correct;
    double error, limit; /* of the check that came nearest to its limit */
    char worst[64];
    double copy; /* bytes/s, read and written */
    double peak; /* FLOP/s of the fastest product in the table, by whichever was run */
};

static struct cuda_row *find_row(struct cuda_bench *b, const char *name, const char *phase,
                                 bool is_phase, double past)
{
    for (int i = 0; i < b->n; i++) {
        struct cuda_row *r = &b->rows[i];
        if (r->is_phase == is_phase && strcmp(r->name, name) == 0 && (!is_phase || r->past == past))
            return r;
    }
    if (b->n == MAX_CUDA_ROWS)
        return NULL;
    struct cuda_row *r = &b->rows[b->n++];
    *r = (struct cuda_row){.is_phase = is_phase, .past = past, .calls = 1};
    snprintf(r->name, sizeof r->name, "%s", name);
    snprintf(r->phase, sizeof r->phase, "%s", phase);
    r->floor = r->predicted = NAN;
    for (int i = 0; i < BOTH; i++)
        r->figures[i] = (struct figures){NAN, NAN, NAN};
    return r;
}

/* ---- what both programs say of themselves ---- */

/* Bytes of shared memory of a block, of the pass that takes most. */
static double most_shared(json_t *kernel)
{
    double most = NAN;
    size_t i;
    json_t *launch;
    json_array_foreach(json_object_get(kernel, "launches"), i, launch) most =
        fmax(most, json_real_of(launch, "shared_bytes"));
    return most;
}

static void add_kernels(struct cuda_bench *b, json_t *cuda, int generic)
{
    size_t i;
    json_t *o;
    json_array_foreach(json_object_get(cuda, "kernels"), i, o)
    {
        struct cuda_row *r =
            find_row(b, json_text_of(o, "name"), json_text_of(o, "phase"), false, 0);
        if (!r)
            return;
        r->figures[generic].shared = most_shared(o);
        if (generic)
            continue;
        r->calls = json_real_of(o, "times");
        r->floor = json_real_of(o, "floor_seconds");
        r->predicted = json_real_of(o, "predicted_seconds");
    }
}

static void add_predicted_phases(struct cuda_bench *b, json_t *cuda)
{
    const char *name;
    json_t *o;
    json_object_foreach(json_object_get(cuda, "predicted"), name, o)
    {
        bool decodes = strcmp(name, "decode") == 0 || strcmp(name, "batch") == 0;
        double past = decodes ? json_real_of(cuda, "predicted_past") : 0;
        struct cuda_row *r = strcmp(name, "eval") ? find_row(b, name, name, true, past) : NULL;
        if (!r)
            continue;
        r->floor = json_real_of(o, "floor_seconds");
        r->predicted = json_real_of(o, "seconds");
    }
}

static int read_info(struct cuda_bench *b, const char *program, int generic)
{
    const char *const words[] = {"info", "--json", NULL};
    int status;
    json_t *info = program_json(program, words, false, &status);
    json_t *cuda = json_object_get(info, "cuda");
    if (!cuda) {
        fprintf(stderr, "archc: %s has no CUDA side to measure\n", program);
        json_decref(info);
        return STATUS_WORLD;
    }
    add_kernels(b, cuda, generic);
    if (!generic) {
        add_predicted_phases(b, cuda);
        b->device = json_incref(json_object_get(cuda, "device"));
        b->predicted_for = json_incref(json_object_get(cuda, "predicted_for"));
        snprintf(b->says, sizeof b->says, "%s", json_text_of(cuda, "no_device"));
    }
    json_decref(info);
    return 0;
}

/* ---- what the assembler said ---- */

/* The row of an entry point: its kernel's name, and _2, _3 for further passes. */
static struct cuda_row *row_of_entry(struct cuda_bench *b, const char *entry)
{
    char name[64];
    snprintf(name, sizeof name, "%s", entry);
    for (int cut = 0; cut < 2; cut++) {
        for (int i = 0; i < b->n; i++)
            if (!b->rows[i].is_phase && strcmp(b->rows[i].name, name) == 0)
                return &b->rows[i];
        char *end = strrchr(name, '_');
        if (!end || !strchr("23", end[1]) || end[2])
            return NULL;
        *end = 0;
    }
    return NULL;
}

/* ptxas -v: a line that names the entry, one of its spills, one of its registers. */
static void read_log(struct cuda_bench *b, FILE *f, int generic)
{
    char line[1024], entry[64];
    struct cuda_row *row = NULL;
    int a, s, l;
    while (fgets(line, sizeof line, f)) {
        const char *used = strstr(line, "Used "), *at = strstr(line, "entry function '");
        if (at && sscanf(at, "entry function '%63[^']", entry) == 1) {
            row = row_of_entry(b, entry);
        } else if (row && sscanf(line, " %d bytes stack frame, %d bytes spill stores, %d", &a, &s,
                                 &l) == 3) {
            struct figures *x = &row->figures[generic];
            x->spills = (isnan(x->spills) ? 0 : x->spills) + s + l;
        } else if (row && used && sscanf(used, "Used %d registers", &a) == 1) {
            row->figures[generic].registers = fmax(row->figures[generic].registers, a);
        }
    }
}

static void read_logs(struct cuda_bench *b, const char *directory, const char *target, int generic)
{
    DIR *dir = opendir(directory);
    struct dirent *e;
    while (dir && (e = readdir(dir))) {
        char path[4096];
        size_t n = strlen(e->d_name);
        if (n < 4 || strcmp(e->d_name + n - 4, ".log") != 0 || !strstr(e->d_name, target))
            continue;
        snprintf(path, sizeof path, "%s/%s", directory, e->d_name);
        FILE *f = fopen(path, "r");
        if (f) {
            read_log(b, f, generic);
            fclose(f);
        }
    }
    if (dir)
        closedir(dir);
}

/* ---- right before fast ---- */

static void judge(struct cuda_bench *b, json_t *verdict)
{
    size_t i;
    json_t *o;
    json_array_foreach(json_object_get(verdict, "whole_model"), i, o)
    {
        double error = json_real_of(o, "error"), limit = json_real_of(o, "limit");
        if (!(limit > 0) || !(error / limit > b->error / b->limit))
            continue;
        b->error = error;
        b->limit = limit;
        snprintf(b->worst, sizeof b->worst, "%s", json_text_of(o, "check"));
    }
    b->correct = b->correct && json_is_true(json_object_get(verdict, "passed"));
    b->judged = true;
}

static int verify_both(struct cuda_bench *b, char program[BOTH][64])
{
    const char *const words[] = {"verify", "--device", "cuda", "--json", NULL};
    b->correct = true;
    b->error = 0;
    b->limit = 1;
    int programs = strcmp(program[0], program[1]) ? BOTH : 1;
    for (int generic = 0; generic < programs && b->correct; generic++) {
        int status;
        json_t *verdict = program_json(program[generic], words, false, &status);
        judge(b, verdict);
        json_decref(verdict);
        if (!b->correct)
            fprintf(stderr, "archc: the %s program is wrong on this GPU: no speed is measured\n",
                    generic ? "generic" : "specialised");
    }
    return b->correct ? 0 : STATUS_WORLD;
}

/* ---- measuring ---- */

static void add_measurement(struct cuda_row *r, json_t *o, int generic, const char *library)
{
    /* Where a library did the product, the kernel that this compares was timed beside it. */
    double own = json_real_of(o, "own_seconds");
    double seconds = isnan(own) ? json_real_of(o, "seconds") : own;
    series_add(&r->seconds[generic], seconds);
    if (generic) {
        if (r->seconds[0].n == r->seconds[1].n && r->seconds[0].n > 0)
            series_add(&r->factor, seconds / r->seconds[0].at[r->seconds[0].n - 1]);
        return;
    }
    /* Behind the tokens that it was measured behind, where `info` has another place. */
    double floor = json_real_of(o, "floor_seconds"),
           predicted = json_real_of(o, "predicted_seconds");
    if (!isnan(floor))
        r->floor = floor;
    if (!isnan(predicted))
        r->predicted = predicted;
    double rate = json_real_of(o, "seconds") / seconds; /* theirs are of what was run */
    series_add(&r->of_copy, rate * json_real_of(o, "of_copy_bandwidth"));
    series_add(&r->flops, rate * json_real_of(o, "flops_per_second"));
    series_add(&r->tokens, rate * json_real_of(o, "tokens_per_second"));
    series_add(&r->library, json_real_of(o, "library_seconds"));
    if (r->library.n)
        snprintf(r->rival, sizeof r->rival, "%.31s", library);
}

static void add_round(struct cuda_bench *b, json_t *round, int generic)
{
    size_t i;
    json_t *o;
    json_array_foreach(json_object_get(round, "kernels"), i, o)
    {
        struct cuda_row *r =
            find_row(b, json_text_of(o, "name"), json_text_of(o, "phase"), false, 0);
        if (r)
            add_measurement(r, o, generic, json_text_of(round, "products"));
        b->peak = fmax(b->peak, json_real_of(o, "flops_per_second"));
    }
    json_array_foreach(json_object_get(round, "phases"), i, o)
    {
        const char *phase = json_text_of(o, "phase");
        char name[64];
        double n = json_real_of(o, "micro_batches"); /* of a whole training step */
        if (isnan(n))
            snprintf(name, sizeof name, "%s", phase);
        else
            snprintf(name, sizeof name, "%s of %.0f", phase, n);
        struct cuda_row *r = find_row(b, name, phase, true, json_real_of(o, "past"));
        if (r)
            add_measurement(r, o, generic, json_text_of(round, "products"));
    }
    b->copy = fmax(b->copy, json_real_of(round, "copy_bytes_per_second"));
}

static int measure(struct cuda_bench *b, char program[BOTH][64], int rounds, const char *repeat)
{
    const char *const words[] = {"bench", "--device", "cuda", "--json", "--repeat", repeat, NULL};
    for (int round = 0; round < rounds; round++)
        for (int generic = 0; generic < BOTH; generic++) {
            int status;
            json_t *result = program_json(program[generic], words, false, &status);
            if (!result) {
                fprintf(stderr, "archc: the compiled program could not be measured\n");
                return STATUS_WORLD;
            }
            add_round(b, result, generic);
            json_decref(result);
        }
    return 0;
}

/* ---- printing ---- */

/* A phase by its name, and behind how many tokens it decodes. */
static const char *row_text(const struct cuda_row *r, char out[80])
{
    if (r->is_phase && r->past > 0)
        snprintf(out, 80, "%s behind %.0f", r->name, r->past);
    else
        snprintf(out, 80, "%s", r->name);
    return out;
}

static double micro(double seconds)
{
    return 1e6 * seconds;
}

/* Of the fastest product where the arithmetic is the limit, of what a copy reaches elsewhere; the
 * larger of the two says which. */
static double of_limit(const struct cuda_bench *b, const struct cuda_row *r)
{
    return fmax(series_median(&r->of_copy), series_median(&r->flops) / b->peak);
}

static void print_row(const struct cuda_bench *b, const struct cuda_row *r)
{
    char c[10][CELL], text[80];
    double ours = series_median(&r->seconds[0]);
    printf("%-34s %9s %9s %9s %9s %7s %8s %7s", row_text(r, text),
           real_cell(c[0], "%.1f", micro(r->floor)), real_cell(c[1], "%.1f", micro(r->predicted)),
           real_cell(c[2], "%.1f", micro(ours)),
           real_cell(c[3], "%.1f", micro(series_median(&r->seconds[1]))),
           times_cell(c[4], series_median(&r->factor)),
           times_cell(c[5], series_median(&r->library) / ours), percent_cell(c[6], of_limit(b, r)));
    for (int i = 0; i < BOTH && !r->is_phase; i++)
        printf(" %4s %6s %7s", real_cell(c[7], "%.0f", r->figures[i].registers),
               real_cell(c[8], "%.0f", r->figures[i].spills),
               real_cell(c[9], "%.0f", r->figures[i].shared));
    if (r->is_phase && r->tokens.n)
        printf("  %.0f tok/s", series_median(&r->tokens));
    putchar('\n');
}

static void print_table(const struct cuda_bench *b, const char *model)
{
    printf("%s, specialised against generic, us of one call", model);
    if (json_is_string(b->device))
        printf(" on %s (copies %.2f TB/s, fastest product %.3g TFLOP/s)",
               json_string_value(b->device), b->copy * 1e-12, b->peak * 1e-12);
    if (json_is_string(b->predicted_for))
        printf("; predicted for %s", json_string_value(b->predicted_for));
    printf("\n");
    if (b->judged)
        printf("verified: nearest to its limit is \"%s\", error %.2e of %.2e\n", b->worst, b->error,
               b->limit);
    printf("library: its time over ours; limit: of the copy bandwidth or the fastest product; "
           "registers, spilled bytes and\nshared bytes of both programs\n");
    for (int phases = 0; phases < 2; phases++) {
        printf("\n%-34s %9s %9s %9s %9s %7s %8s %7s", phases ? "phase" : "kernel", "at least",
               "predicted", "special", "generic", "factor", "library", "limit");
        for (int i = 0; i < BOTH && !phases; i++)
            printf(" %4s %6s %7s", "regs", "spills", "shared");
        putchar('\n');
        for (int i = 0; i < b->n; i++)
            if (b->rows[i].is_phase == phases)
                print_row(b, &b->rows[i]);
    }
}

static json_t *figures_json(const struct figures *x)
{
    return json_pack("{s:o, s:o, s:o}", "registers", json_number(x->registers), "spill_bytes",
                     json_number(x->spills), "shared_bytes", json_number(x->shared));
}

static json_t *row_json(const struct cuda_bench *b, const struct cuda_row *r)
{
    json_t *o = json_object();
    json_object_set_new(o, r->is_phase ? "what" : "name", json_string(r->name));
    json_object_set_new(o, "phase", json_string(r->phase));
    if (r->is_phase)
        json_object_set_new(o, "past", json_number(r->past));
    else
        json_object_set_new(o, "calls", json_number(r->calls));
    const struct {
        const char *key;
        double value;
    } values[] = {{"floor_seconds", r->floor},
                  {"predicted_seconds", r->predicted},
                  {"specialised_seconds", series_median(&r->seconds[0])},
                  {"generic_seconds", series_median(&r->seconds[1])},
                  {"factor", series_median(&r->factor)},
                  {"library_seconds", series_median(&r->library)},
                  {"of_copy_bandwidth", series_median(&r->of_copy)},
                  {"of_fastest_product", series_median(&r->flops) / b->peak},
                  {"tokens_per_second", series_median(&r->tokens)}};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        json_object_set_new(o, values[i].key, json_number(values[i].value));
    json_object_set_new(o, "library", r->rival[0] ? json_string(r->rival) : json_null());
    if (r->is_phase)
        return o;
    json_object_set_new(o, "specialised", figures_json(&r->figures[0]));
    json_object_set_new(o, "generic", figures_json(&r->figures[1]));
    return o;
}

static void print_json(const struct cuda_bench *b, const char *model, int rounds)
{
    json_t *kernels = json_array(), *phases = json_array();
    for (int i = 0; i < b->n; i++)
        json_array_append_new(b->rows[i].is_phase ? phases : kernels, row_json(b, &b->rows[i]));
    json_t *verified = json_null();
    if (b->judged)
        verified = json_pack("{s:b, s:s, s:f, s:f}", "passed", b->correct, "nearest", b->worst,
                             "error", b->error, "limit", b->limit);
    json_t *all = json_pack("{s:s, s:O, s:O, s:i, s:o, s:o, s:o, s:o, s:o}", "model", model,
                            "device", b->device, "predicted_for", b->predicted_for, "rounds",
                            b->judged ? rounds : 0, "verified", verified, "copy_bytes_per_second",
                            json_number(b->copy), "fastest_product_flops_per_second",
                            json_number(b->peak), "kernels", kernels, "phases", phases);
    json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(all);
}

static int plot(const struct driver *d, const struct cuda_bench *b, const char *model)
{
    struct bar bars[MAX_CUDA_ROWS];
    int n = 0;
    for (int i = 0; i < b->n; i++)
        if (b->rows[i].factor.n)
            bars[n++] = (struct bar){b->rows[i].name, series_median(&b->rows[i].factor),
                                     b->rows[i].is_phase};
    if (n)
        return bench_plot(d, model, bars, n);
    fprintf(stderr, "archc: nothing was measured, so there is nothing to plot\n");
    return 0;
}

/* ---- the command ---- */

/* --programs A,B: the specialised and the generic one, compiled before. */
static int take_programs(const struct driver *d, char program[BOTH][64])
{
    const char *comma = strchr(d->programs, ',');
    if (comma && comma > d->programs && comma - d->programs < 64 && strlen(comma + 1) < 64 &&
        comma[1]) {
        snprintf(program[0], 64, "%.*s", (int)(comma - d->programs), d->programs);
        snprintf(program[1], 64, "%s", comma + 1);
        return 0;
    }
    fprintf(stderr, "archc: --programs wants SPECIALISED,GENERIC, paths of less than 64 bytes\n");
    return STATUS_USAGE;
}

static int bench(struct driver *d, struct cuda_bench *b, char program[BOTH][64], int rounds)
{
    const char *model = d->resolution.model->name;
    int status = 0;
    for (int generic = 0; generic < BOTH && !status; generic++)
        status = read_info(b, program[generic], generic);
    for (int generic = 0; generic < BOTH && !status && !d->programs; generic++)
        read_logs(b, arena_printf(d->arena, "%s.d", program[generic]), d->cuda.list[0].name,
                  generic);
    bool gpu = json_is_string(b->device);
    if (!status && !gpu)
        fprintf(stderr, "archc: nothing is measured: %s\n", b->says);
    if (!status && gpu)
        status = verify_both(b, program);
    if (!status && gpu)
        status = measure(b, program, rounds, d->repeat ? d->repeat : "5");
    if (!status && d->json)
        print_json(b, model, rounds);
    else if (!status)
        print_table(b, model);
    return !status && d->svg ? plot(d, b, model) : status;
}

int run_bench_cuda(struct driver *d, int rounds)
{
    char directory[32] = "/tmp/archc-bench-XXXXXX", program[BOTH][64];
    int repeat, status;
    if (d->repeat && !parse_count(d->repeat, 1, 63, &repeat)) {
        fprintf(stderr, "archc: --repeat wants a number from 1 to 63\n");
        return STATUS_USAGE;
    }
    struct cuda_bench *b = calloc(1, sizeof *b);
    if (!b || !mkdtemp(directory)) {
        fprintf(stderr, "archc: cannot make a directory in /tmp: %s\n", strerror(errno));
        free(b);
        return STATUS_WORLD;
    }
    b->copy = b->peak = NAN;
    snprintf(program[0], sizeof program[0], "%s/specialised", directory);
    snprintf(program[1], sizeof program[1], "%s/generic", directory);
    status = d->programs ? take_programs(d, program) : bench_build(d, program, true);
    if (!status)
        status = bench(d, b, program, rounds);
    json_decref(b->device);
    json_decref(b->predicted_for);
    free(b);
    remove_directory(directory);
    return status;
}

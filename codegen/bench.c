/* bench.c - `archc bench`: the same model compiled twice, with its shapes fixed and with shapes
 * read at run time, and both programs' own `bench --json` in turn, so that what drifts on the
 * machine drifts for both. Each round gives medians; the table has the median over rounds. */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { MAX_ROWS = 128, MAX_RIVALS = 4 };

/* ---- what bench.h declares ---- */

void series_add(struct series *s, double x)
{
    if (isfinite(x) && s->n < MAX_ROUNDS)
        s->at[s->n++] = x;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

double series_median(const struct series *s)
{
    struct series t = *s;
    if (t.n == 0)
        return NAN;
    qsort(t.at, (size_t)t.n, sizeof t.at[0], ascending);
    return t.n % 2 ? t.at[t.n / 2] : (t.at[t.n / 2 - 1] + t.at[t.n / 2]) / 2;
}

/* One kernel, or one phase, over all rounds. */
struct row {
    char name[64], phase[16];
    bool is_phase, correct, judged;
    int times;
    struct series specialised, generic, factor; /* seconds, seconds, generic / specialised */
    struct series peak, read;                   /* fractions of the machine's limits */
    struct series tokens;                       /* a second, specialised */
    char rival[MAX_RIVALS][32];
    struct series ratio[MAX_RIVALS]; /* rival's time / ours */
    int n_rivals;
};

struct comparison {
    struct row rows[MAX_ROWS];
    int n;
    bool correct; /* every kernel that was timed, in both programs */
    json_t *machine;
};

/* ---- running the programs ---- */

static char *read_all(int fd)
{
    struct text t = {0};
    char block[4096];
    ssize_t n;
    while ((n = read(fd, block, sizeof block)) > 0 || (n < 0 && errno == EINTR))
        if (n > 0)
            text_addn(&t, block, (size_t)n);
    return t.at;
}

json_t *program_json(const char *program, const char *const *words, bool quiet, int *status)
{
    int ends[2];
    char *argv[12] = {(char *)(uintptr_t)program};
    for (int i = 0; words[i]; i++)
        argv[1 + i] = (char *)(uintptr_t)words[i];
    *status = -1;
    if (pipe(ends) != 0)
        return NULL;
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, ends[1], 1);
    posix_spawn_file_actions_addclose(&files, ends[0]);
    if (quiet)
        posix_spawn_file_actions_addopen(&files, 2, "/dev/null", O_WRONLY, 0);
    pid_t pid = 0;
    int error = posix_spawn(&pid, program, &files, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&files);
    close(ends[1]);
    char *text = error ? NULL : read_all(ends[0]);
    close(ends[0]);
    while (!error && waitpid(pid, status, 0) < 0 && errno == EINTR)
        ;
    json_t *result = text ? json_loads(text, 0, NULL) : NULL;
    free(text);
    return result;
}

struct json_t *bench_program(const char *program, const char *phase)
{
    const char *const words[] = {"bench", "--json", phase ? "--phase" : NULL, phase, NULL};
    int status;
    return program_json(program, words, false, &status);
}

struct json_t *bench_phases(const char *program, const char *phase)
{
    const char *const words[] = {"bench", "--json",  "--whole", "--blas",
                                 "none",  "--phase", phase,     NULL};
    int status;
    return program_json(program, words, true, &status);
}

double json_real_of(json_t *o, const char *key)
{
    json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

const char *json_text_of(json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

json_t *json_number(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

const char *real_cell(char out[CELL], const char *format, double x)
{
    if (isfinite(x))
        snprintf(out, CELL, format, x);
    else
        snprintf(out, CELL, "-");
    return out;
}

const char *percent_cell(char out[CELL], double fraction)
{
    return real_cell(out, "%.0f %%", 100 * fraction);
}

const char *times_cell(char out[CELL], double ratio)
{
    return real_cell(out, "%.2fx", ratio);
}

/* ---- combining ---- */

static struct row *find_row(struct comparison *c, const char *name, const char *phase,
                            bool is_phase)
{
    for (int i = 0; i < c->n; i++)
        if (c->rows[i].is_phase == is_phase && strcmp(c->rows[i].name, name) == 0)
            return &c->rows[i];
    if (c->n == MAX_ROWS)
        return NULL;
    struct row *r = &c->rows[c->n++];
    snprintf(r->name, sizeof r->name, "%s", name);
    snprintf(r->phase, sizeof r->phase, "%s", phase);
    r->is_phase = is_phase;
    r->correct = true;
    return r;
}

static void add_rivals(struct row *r, json_t *list)
{
    size_t i;
    json_t *rival;
    json_array_foreach(list, i, rival)
    {
        const char *name = json_text_of(rival, "library");
        int k = 0;
        while (k < r->n_rivals && strcmp(r->rival[k], name) != 0)
            k++;
        if (k == MAX_RIVALS)
            continue;
        if (k == r->n_rivals)
            snprintf(r->rival[r->n_rivals++], sizeof r->rival[0], "%s", name);
        series_add(&r->ratio[k], json_real_of(rival, "ratio"));
    }
}

static void add_measurement(struct row *r, json_t *o, bool generic)
{
    double seconds = json_real_of(o, "seconds");
    json_t *correct = json_object_get(o, "correct");
    if (json_is_boolean(correct)) {
        r->judged = true;
        r->correct = r->correct && json_is_true(correct);
    }
    if (generic) {
        series_add(&r->generic, seconds);
        if (r->specialised.n == r->generic.n)
            series_add(&r->factor, seconds / r->specialised.at[r->specialised.n - 1]);
        return;
    }
    r->times = (int)json_real_of(o, "times");
    series_add(&r->specialised, seconds);
    series_add(&r->peak, json_real_of(o, "peak_fraction"));
    series_add(&r->read, json_real_of(o, "read_fraction"));
    series_add(&r->tokens, json_real_of(o, "tokens_per_second"));
    add_rivals(r, json_object_get(o, "blas"));
}

static void add_round(struct comparison *c, json_t *round, bool generic)
{
    size_t i;
    json_t *o;
    json_array_foreach(json_object_get(round, "kernels"), i, o)
    {
        struct row *r = find_row(c, json_text_of(o, "name"), json_text_of(o, "phase"), false);
        if (r)
            add_measurement(r, o, generic);
    }
    json_array_foreach(json_object_get(round, "phases"), i, o)
    {
        struct row *r = find_row(c, json_text_of(o, "what"), json_text_of(o, "phase"), true);
        if (r)
            add_measurement(r, o, generic);
    }
    c->correct = c->correct && json_is_true(json_object_get(round, "correct"));
    if (!c->machine)
        c->machine = json_incref(json_object_get(round, "machine"));
}

/* ---- printing ---- */

static void print_row(const struct row *r)
{
    char a[16], b[16], c[16], d[16];
    const char *verdict = !r->judged ? "-" : r->correct ? "pass" : "FAIL";
    printf("%-28s %-5s %11.1f %11.1f %8s %8s %8s", r->name, r->is_phase ? "" : verdict,
           1e6 * series_median(&r->specialised), 1e6 * series_median(&r->generic),
           times_cell(a, series_median(&r->factor)), percent_cell(b, series_median(&r->peak)),
           percent_cell(c, series_median(&r->read)));
    for (int k = 0; k < r->n_rivals; k++)
        printf("  %s %s", r->rival[k], times_cell(d, series_median(&r->ratio[k])));
    if (r->is_phase)
        printf("  %.0f tok/s", series_median(&r->tokens));
    putchar('\n');
}

static void print_table(const struct comparison *c, const char *model)
{
    printf("%s: specialised against generic, medians; a factor above 1 means specialised is "
           "faster.\nPeak: of this machine's FMA rate; read: of its bandwidth for the weights; "
           "library: its time over ours.\n",
           model);
    printf("\n%-28s %-5s %11s %11s %8s %8s %8s  %s\n", "kernel", "right", "specialised", "generic",
           "factor", "peak", "read", "libraries");
    printf("%-28s %-5s %11s %11s\n", "", "", "us", "us");
    for (int i = 0; i < c->n; i++)
        if (!c->rows[i].is_phase)
            print_row(&c->rows[i]);
    printf("\n%-28s %-5s %11s %11s %8s %8s %8s\n", "phase", "", "specialised", "generic", "factor",
           "peak", "read");
    for (int i = 0; i < c->n; i++)
        if (c->rows[i].is_phase)
            print_row(&c->rows[i]);
}

static json_t *row_json(const struct row *r)
{
    json_t *o = json_object(), *rivals = json_object();
    json_object_set_new(o, r->is_phase ? "what" : "name", json_string(r->name));
    json_object_set_new(o, "phase", json_string(r->phase));
    if (!r->is_phase) {
        json_object_set_new(o, "correct", r->judged ? json_boolean(r->correct) : json_null());
        json_object_set_new(o, "times", json_integer(r->times));
    } else {
        json_object_set_new(o, "tokens_per_second", json_number(series_median(&r->tokens)));
    }
    json_object_set_new(o, "specialised_seconds", json_number(series_median(&r->specialised)));
    json_object_set_new(o, "generic_seconds", json_number(series_median(&r->generic)));
    json_object_set_new(o, "factor", json_number(series_median(&r->factor)));
    json_object_set_new(o, "peak_fraction", json_number(series_median(&r->peak)));
    json_object_set_new(o, "read_fraction", json_number(series_median(&r->read)));
    for (int k = 0; k < r->n_rivals; k++)
        json_object_set_new(rivals, r->rival[k], json_number(series_median(&r->ratio[k])));
    json_object_set_new(o, "rivals", rivals);
    return o;
}

static void print_json(const struct comparison *c, const char *model, int rounds)
{
    json_t *kernels = json_array(), *phases = json_array();
    for (int i = 0; i < c->n; i++)
        json_array_append_new(c->rows[i].is_phase ? phases : kernels, row_json(&c->rows[i]));
    json_t *all =
        json_pack("{s:s, s:i, s:b, s:O?, s:o, s:o}", "model", model, "rounds", rounds, "correct",
                  c->correct, "machine", c->machine, "kernels", kernels, "phases", phases);
    json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(all);
}

static void write_script(const struct bar *bars, int n, const char *model, FILE *f)
{
    fprintf(f, "$factor << EOD\n");
    for (int i = 0; i < n; i++)
        fprintf(f, "\"%s\" %.6g %d\n", bars[i].name, bars[i].factor, bars[i].is_phase);
    fprintf(f,
            "EOD\nset terminal svg size 900,%d dynamic enhanced background '#ffffff'\n"
            "set title '%s: generic time / specialised time' noenhanced\n"
            "set style fill solid 0.8\nset xrange [0:*]\nset yrange [-1:%d] reverse\n"
            "set grid x\nunset key\nset ytics noenhanced\nset arrow from 1, graph 0 to 1, graph 1 "
            "nohead lc rgb '#808080'\n"
            "plot $factor using ($2/2):0:($2/2):(0.4):($3 ? 0xc05020 : 0x1f5fa8):"
            "ytic(1) with boxxyerror lc rgb variable\n",
            120 + 18 * n, model, n);
}

int bench_plot(const struct driver *d, const char *model, const struct bar *bars, int n)
{
    FILE *script = tmpfile(), *svg = fopen(d->svg, "w");
    const char *why = "no file could be made";
    bool ok = script && svg;
    if (ok) {
        write_script(bars, n, model, script);
        ok = plot_svg(script, svg, &why);
    } else if (!svg) {
        why = strerror(errno);
    }
    if (script)
        fclose(script);
    if (svg && fclose(svg) != 0)
        ok = false;
    if (!ok)
        fprintf(stderr, "archc: cannot write %s: %s\n", d->svg, why);
    return ok ? 0 : STATUS_WORLD;
}

static int plot(const struct driver *d, const struct comparison *c, const char *model)
{
    struct bar bars[MAX_ROWS];
    for (int i = 0; i < c->n; i++)
        bars[i] =
            (struct bar){c->rows[i].name, series_median(&c->rows[i].factor), c->rows[i].is_phase};
    return bench_plot(d, model, bars, c->n);
}

/* ---- the command ---- */

int bench_build(struct driver *d, char program[2][64], bool keep)
{
    int status = 0;
    for (int generic = 0; generic < 2 && !status; generic++) {
        d->generic = generic;
        d->keep = keep ? arena_printf(d->arena, "%s.d", program[generic]) : NULL;
        for (int i = 0; i < d->files.n; i++)
            text_free(&d->files.files[i].text);
        status = driver_plan(d);
        if (!status)
            status = driver_build(d, program[generic]);
    }
    return status;
}

static int measure(struct driver *d, char program[2][64], int rounds, struct comparison *c)
{
    for (int round = 0; round < rounds; round++)
        for (int generic = 0; generic < 2; generic++) {
            if (isatty(2))
                fprintf(stderr, "\rround %d of %d: %s ", round + 1, rounds,
                        generic ? "generic    " : "specialised");
            json_t *result = bench_program(program[generic], d->phase);
            if (!result) {
                fprintf(stderr, "archc: the compiled program could not be measured\n");
                return STATUS_WORLD;
            }
            add_round(c, result, generic);
            json_decref(result);
        }
    if (isatty(2))
        fprintf(stderr, "\r%40s\r", "");
    return 0;
}

int run_bench(struct driver *d)
{
    int rounds = 3;
    if (d->rounds && !parse_count(d->rounds, 1, MAX_ROUNDS, &rounds)) {
        fprintf(stderr, "archc: --rounds wants a number from 1 to %d\n", MAX_ROUNDS);
        return STATUS_USAGE;
    }
    const char *host;
    int status = driver_targets(d, &host);
    if (!status)
        status = driver_resolve(d);
    if (!status && d->cuda.n > 0)
        return run_bench_cuda(d, rounds);
    if (status)
        return status;
    char directory[32] = "/tmp/archc-bench-XXXXXX", program[2][64];
    if (!mkdtemp(directory)) {
        fprintf(stderr, "archc: cannot make a directory in /tmp: %s\n", strerror(errno));
        return STATUS_WORLD;
    }
    snprintf(program[0], sizeof program[0], "%s/specialised", directory);
    snprintf(program[1], sizeof program[1], "%s/generic", directory);
    struct comparison *c = calloc(1, sizeof *c);
    const char *model = d->resolution.model->name;
    status = c ? bench_build(d, program, false) : STATUS_WORLD;
    if (!status) {
        c->correct = true;
        status = measure(d, program, rounds, c);
    }
    if (!status && d->json)
        print_json(c, model, rounds);
    else if (!status)
        print_table(c, model);
    if (!status && d->svg)
        status = plot(d, c, model);
    if (!status && !c->correct) {
        fprintf(stderr, "archc: a kernel failed its check: its time means nothing\n");
        status = STATUS_WORLD;
    }
    if (c)
        json_decref(c->machine);
    free(c);
    unlink(program[0]);
    unlink(program[1]);
    rmdir(directory);
    return status;
}

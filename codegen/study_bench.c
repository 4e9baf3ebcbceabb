/* study_bench.c - the models of a study as programs, and how fast they serve here. */
#include "study.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

enum { MAX_ROUNDS = 25 };

/* What one model's rounds gave, in tokens a second. */
struct rounds {
    double prefill[MAX_ROUNDS], decode[MAX_ROUNDS], whole[MAX_ROUNDS];
    int n;
};

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *at, int n)
{
    if (n == 0)
        return NAN;
    qsort(at, (size_t)n, sizeof *at, ascending);
    return n % 2 ? at[n / 2] : (at[n / 2 - 1] + at[n / 2]) / 2;
}

/* Tokens a second in the row of this phase whose sequences are nearest to `past` long. */
static double rate_of(json_t *o, const char *phase, double past)
{
    size_t i;
    json_t *row;
    double best = NAN, least = INFINITY;
    json_array_foreach(json_object_get(o, "phases"), i, row)
    {
        const char *name = json_string_value(json_object_get(row, "phase"));
        double far = fabs(json_number_value(json_object_get(row, "past")) - past);
        if (!name || strcmp(name, phase) != 0 || far >= least)
            continue;
        least = far;
        best = json_number_value(json_object_get(row, "tokens_per_second"));
    }
    return best;
}

static bool measure_once(const struct study *s, const char *program, struct rounds *r)
{
    const struct serve_spec *v = &s->spec->serve;
    json_t *prefill = bench_phases(program, "prefill");
    json_t *decode = prefill ? bench_phases(program, "decode") : NULL;
    double a = rate_of(prefill, "prefill", 0);
    double b = rate_of(decode, "decode", v->prompt + v->generate / 2.0);
    json_decref(prefill);
    json_decref(decode);
    if (!(a > 0 && b > 0)) {
        fprintf(stderr, "archc: %s could not be measured\n", program);
        return false;
    }
    r->prefill[r->n] = a;
    r->decode[r->n] = b;
    r->whole[r->n++] = v->generate / (v->prompt / a + v->generate / b);
    return true;
}

/* The same way as `archc models.arch -m NAME -o DIR/NAME`. */
static int build(const struct study *s, const char *name)
{
    struct driver d = {.path = arena_printf(s->arena, "%s/models.arch", s->dir),
                       .model = name,
                       .cc = s->driver->cc,
                       .march = s->driver->march,
                       .threads = s->driver->threads,
                       .target = s->driver->target,
                       .device_cc = s->driver->device_cc,
                       .verbose = s->driver->verbose,
                       .arena = s->arena};
    d.diags.arena = s->arena;
    d.quiet = true;
    int status = driver_resolve(&d);
    if (!status)
        status = driver_plan(&d);
    if (!status)
        status = driver_build(&d, arena_printf(s->arena, "%s/%s", s->dir, name));
    for (int i = 0; i < d.files.n; i++)
        text_free(&d.files.files[i].text);
    return status;
}

/* Only what `bench` measures: this machine, one sequence at a time. */
static bool measurable(const struct study *s)
{
    const struct serve_spec *v = &s->spec->serve;
    return v->batch <= 1 && (v->device < 0 || s->driver->spec.devices[v->device].is_host);
}

int study_bench(struct study *s, struct study_law *l)
{
    struct rounds r[CHOICES] = {{.n = 0}};
    int rounds = 3;
    if (s->driver->rounds && !parse_count(s->driver->rounds, 0, MAX_ROUNDS, &rounds)) {
        fprintf(stderr, "archc: --rounds wants a number from 0 to %d, not %s; see archc --help\n",
                MAX_ROUNDS, s->driver->rounds);
        return STATUS_USAGE;
    }
    for (int k = 0; k < CHOICES && rounds > 0; k++) {
        int status = l->choices[k].found ? build(s, l->choices[k].name) : 0;
        if (status)
            return status;
    }
    if (!measurable(s) || rounds == 0)
        return 0;
    if (getloadavg(&l->load, 1) != 1)
        l->load = 0;
    for (int round = 0; round < rounds; round++)
        for (int k = 0; k < CHOICES; k++) {
            const struct study_choice *c = &l->choices[k];
            const char *program =
                arena_printf(s->arena, "%s%s/%s", s->dir[0] == '/' ? "" : "./", s->dir, c->name);
            if (s->terminal)
                fprintf(stderr, "\rmeasuring %s, round %d of %d\033[K", c->name, round + 1, rounds);
            if (c->found && !measure_once(s, program, &r[k]))
                return STATUS_WORLD;
        }
    if (s->terminal)
        fputs("\r\033[K", stderr);
    for (int k = 0; k < CHOICES; k++) {
        struct study_choice *c = &l->choices[k];
        c->prefill = median(r[k].prefill, r[k].n);
        c->decode = median(r[k].decode, r[k].n);
        c->measured = median(r[k].whole, r[k].n);
        c->spread = r[k].n ? (r[k].whole[r[k].n - 1] - r[k].whole[0]) / c->measured : NAN;
    }
    return 0;
}

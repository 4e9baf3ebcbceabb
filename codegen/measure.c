/* measure.c - `--measure N`: the search decides on measurement rather than on prediction.
 *
 * The N best candidates, among them the best of each feasible group, are compiled for this machine
 * and timed with their real kernels, in turn, round after round. This is Algorithm 1 of
 * arXiv:2510.18245: a local search over the groups whose efficiency is measured, and which stops
 * early once candidates only get slower. */
#include "driver.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

enum {
    MOST = MAX_RUNNERS + 1,
    MOST_ROUNDS = 25,
    PATIENCE = 3 /* candidates in a row that are clearly behind end the search */
};
static const double clearly = 0.1; /* parts behind the best, or its spread where that is more */
static const double noisy = 0.1;   /* spread of one candidate's rounds worth a warning */

struct tried {
    struct candidate candidate;
    const char *program;
    bool built;
    double predicted;
    double rounds[MOST_ROUNDS];
    int n_rounds;
    double metrics[MOST_ROUNDS][3]; /* throughput, latency, ttft */
    double median, spread;
    bool meets; /* the requirements, with what was measured */
};

struct trial {
    struct driver *d;
    enum metric metric;
    bool more_is_better;
    char *directory;
    struct tried at[MOST];
    int n;      /* chosen to be tried */
    int n_seen; /* looked at before the search stopped */
    int rounds, chosen;
    bool single; /* one sequence at a time, as predicted: the spec asks for a batch of one */
};

static int usage(const char *text, const char *help)
{
    fprintf(stderr, "archc: %s\n  help: %s\n", text, help);
    return STATUS_USAGE;
}

/* ---- what can be measured -------------------------------------------------------------------- */

static bool find_metric(const struct resolution *r, enum metric *m, bool *more)
{
    for (int i = 0; i < r->model->n_goals; i++) {
        const struct goal *g = &r->model->goals[i];
        if (g->kind == GOAL_REQUIRE)
            continue;
        *m = g->lhs->metric;
        *more = g->kind == GOAL_MAXIMIZE;
        return *m == METRIC_THROUGHPUT || *m == METRIC_LATENCY || *m == METRIC_TTFT ||
               *m == METRIC_TRAIN_TIME;
    }
    return false;
}

static int check(struct trial *t)
{
    struct driver *d = t->d;
    const struct resolution *r = &d->resolution;
    if (!parse_count(d->measure, 2, MOST, &t->n))
        return usage(arena_printf(d->arena, "--measure wants a number from 2 to %d, not %s", MOST,
                                  d->measure),
                     "`--measure 6` compiles and times the six best candidates");
    t->rounds = 3;
    if (d->rounds && !parse_count(d->rounds, 1, MOST_ROUNDS, &t->rounds))
        return usage("--rounds wants a number from 1 to 25", "leave it away: 3");
    if (!find_metric(r, &t->metric, &t->more_is_better))
        return usage("--measure decides between speeds, and the model's objective is none",
                     "write `maximize throughput`, or minimize latency, ttft or train_time");
    const struct device *on =
        t->metric == METRIC_TRAIN_TIME ? r->pricing.training : r->pricing.serving;
    if (!on || on->threads == 0 || (d->target && strcmp(d->target, "host") != 0))
        return usage("--measure times programs on this machine, and the model is meant for another",
                     "write `device = host` in serve { } (or train { }), and --target host");
    t->single = r->model->serve.batch <= 1 || t->metric == METRIC_TRAIN_TIME;
    return 0;
}

/* ---- which candidates ------------------------------------------------------------------------ */

/* What the cost model says of the measured work: one sequence at a time. */
static double predict(const struct trial *t, const struct arch *a)
{
    struct pricing p = t->d->resolution.pricing;
    struct model_spec one = *p.model;
    double metrics[METRIC_COUNT];
    one.serve.batch = 1;
    p.model = &one;
    pricing_metrics(&p, a, 1u << t->metric, metrics);
    return metrics[t->metric];
}

static void propose(struct trial *t, const struct candidate *c)
{
    for (int i = 0; i < t->n_seen; i++)
        if (same_shape(&t->at[i].candidate.arch, &c->arch))
            return;
    if (t->n_seen < t->n)
        t->at[t->n_seen++] = (struct tried){.candidate = *c};
}

static bool in_domain(const struct domain *k, int v)
{
    bool listed = false;
    for (int i = 0; k->kind == DOMAIN_LIST && i < k->n; i++)
        listed = listed || k->list[i] == v;
    return listed || k->kind == DOMAIN_FREE ||
           (k->kind == DOMAIN_RANGE && v >= k->lo && v <= k->hi);
}

/* The choice, then the best of each group and the runners-up in turn: near twins of the choice
 * would otherwise fill the list. */
static void choose(struct trial *t)
{
    struct driver *d = t->d;
    const struct resolution *r = &d->resolution;
    struct candidate group[17];
    int groups = 0;
    for (int g = 16; g >= 1; g--)
        groups += in_domain(&r->model->knobs[KNOB_GQA], g) &&
                  insight_best_at(d->arena, &d->spec, d->model_index, KNOB_GQA, g, &group[groups]);
    for (int i = 0; i < groups; i++) /* the fastest first; few enough for the plain way */
        for (int k = i + 1; k < groups; k++) {
            double x = group[i].metrics[t->metric], y = group[k].metrics[t->metric];
            if (t->more_is_better ? y > x : y < x) {
                struct candidate held = group[i];
                group[i] = group[k];
                group[k] = held;
            }
        }
    propose(t, &r->best);
    for (int i = 0; i < groups || i < r->n_runners; i++) {
        if (i < groups)
            propose(t, &group[i]);
        if (i < r->n_runners)
            propose(t, &r->runners[i]);
    }
    t->n = t->n_seen;
    t->n_seen = 0;
    for (int i = 0; i < t->n; i++)
        t->at[i].predicted = predict(t, &t->at[i].candidate.arch);
}

static bool ahead(const struct trial *t, double a, double b)
{
    return t->more_is_better ? a > b : a < b;
}

static int by_prediction(const struct trial *t, const struct tried *a, const struct tried *b)
{
    return ahead(t, a->predicted, b->predicted) ? -1 : ahead(t, b->predicted, a->predicted);
}

/* The choice stays first: the others are measured against it. */
static void sort(struct trial *t)
{
    for (int i = 2; i < t->n; i++) {
        struct tried held = t->at[i];
        int at = i;
        for (; at > 1 && by_prediction(t, &held, &t->at[at - 1]) < 0; at--)
            t->at[at] = t->at[at - 1];
        t->at[at] = held;
    }
}

/* ---- building and timing --------------------------------------------------------------------- */

static void show(const char *what, int i, int n)
{
    if (isatty(2))
        fprintf(stderr, "\r%-40s\r%s %d of %d ", "", what, i + 1, n);
}

static void build(struct trial *t, int i)
{
    struct driver *d = t->d;
    struct tried *v = &t->at[i];
    show("building candidate", i, t->n);
    v->program = arena_printf(d->arena, "%s/%d", t->directory, i);
    for (int k = 0; k < d->files.n; k++)
        text_free(&d->files.files[k].text);
    d->files.n = 0;
    d->resolution.best = v->candidate;
    v->built = driver_plan(d) == 0 && driver_build(d, v->program) == 0;
}

static double real_of(json_t *o, const char *key)
{
    json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

/* The time of one phase for `n` tokens behind `past`. */
static double phase_seconds(const struct trial *t, const struct arch *a, enum phase phase, int n,
                            double past)
{
    const struct pricing *p = &t->d->resolution.pricing;
    struct workload w = cost_serving(p->serving, &p->model->serve);
    struct op_list list;
    w.batch = 1;
    w.tokens = n;
    w.past = past;
    ops_build(a, phase, &w, &list);
    return cost_list(p->serving, &list, &w);
}

/* A prompt of the spec's length from one of another: scaled by what the cost model says of both. */
static double prompt_seconds(const struct trial *t, const struct arch *a, json_t *phases)
{
    int prompt = t->d->resolution.model->serve.prompt;
    double best = NAN, nearest = INFINITY;
    size_t i;
    json_t *o;
    json_array_foreach(phases, i, o)
    {
        int n = (int)real_of(o, "tokens");
        if (n < 1 || fabs(n - (double)prompt) >= nearest)
            continue;
        nearest = fabs(n - (double)prompt);
        best = real_of(o, "seconds") * phase_seconds(t, a, PHASE_PREFILL, prompt, 0) /
               phase_seconds(t, a, PHASE_PREFILL, n, 0);
    }
    return best;
}

/* One decode step at a position: its time is linear in it, and known at two. */
static double step_seconds(json_t *phases, double position)
{
    double at[2] = {NAN, NAN}, seconds[2] = {NAN, NAN};
    size_t i;
    json_t *o;
    json_array_foreach(phases, i, o)
    {
        double n = real_of(o, "tokens");
        if (i > 1 || !(n >= 1))
            continue;
        at[i] = real_of(o, "past") + n / 2;
        seconds[i] = real_of(o, "seconds") / n;
    }
    if (isnan(seconds[1]) || !(at[1] > at[0]))
        return seconds[0];
    double slope = fmax(0, (seconds[1] - seconds[0]) / (at[1] - at[0]));
    return seconds[0] + slope * (position - at[0]);
}

/* A program that fails is run once more, to say why. */
static json_t *phases_of(const char *program, const char *phase)
{
    json_t *all = bench_phases(program, phase);
    all = all ? all : bench_program(program, phase);
    json_t *phases = all ? json_incref(json_object_get(all, "phases")) : NULL;
    json_decref(all);
    return phases;
}

static double measure_training(const struct trial *t, const char *program)
{
    json_t *phases = phases_of(program, "train");
    double rate = real_of(json_array_get(phases, 0), "tokens_per_second");
    json_decref(phases);
    return t->d->resolution.model->train.tokens / rate;
}

/* One round of one candidate. False: the program failed. */
static bool measure(struct trial *t, struct tried *v)
{
    const struct serve_spec *s = &t->d->resolution.model->serve;
    double *m = v->metrics[v->n_rounds], value;
    if (t->metric == METRIC_TRAIN_TIME) {
        value = measure_training(t, v->program);
    } else {
        json_t *prefill = phases_of(v->program, "prefill");
        json_t *decode = phases_of(v->program, "decode");
        double steps = s->generate - 1;
        m[2] = prompt_seconds(t, &v->candidate.arch, prefill);
        m[1] = step_seconds(decode, s->prompt + s->generate / 2.0);
        m[0] = s->generate / (m[2] + steps * step_seconds(decode, s->prompt + steps / 2));
        value = t->metric == METRIC_THROUGHPUT ? m[0] : t->metric == METRIC_LATENCY ? m[1] : m[2];
        json_decref(prefill);
        json_decref(decode);
    }
    if (!isfinite(value) || value <= 0)
        return false;
    v->rounds[v->n_rounds++] = value;
    return true;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void summarise(struct tried *v)
{
    double r[MOST_ROUNDS];
    int n = v->n_rounds;
    memcpy(r, v->rounds, sizeof r);
    qsort(r, (size_t)n, sizeof *r, ascending);
    v->median = n == 0 ? NAN : n % 2 ? r[n / 2] : (r[n / 2 - 1] + r[n / 2]) / 2;
    v->spread = n == 0 ? NAN : (r[n - 1] - r[0]) / v->median;
}

/* Parts by which `v` is behind `best`; negative where it is ahead. */
static double behind(const struct trial *t, double v, double best)
{
    return t->more_is_better ? best / v - 1 : v / best - 1;
}

/* Each candidate once, in the order of prediction, until three in a row are clearly slower. */
static void scout(struct trial *t)
{
    double best = NAN;
    int slower = 0;
    for (t->n_seen = 0; t->n_seen < t->n && slower < PATIENCE; t->n_seen++) {
        struct tried *v = &t->at[t->n_seen];
        build(t, t->n_seen);
        show("timing candidate", t->n_seen, t->n);
        if (!v->built || !measure(t, v))
            continue;
        double value = v->rounds[0];
        slower = behind(t, value, best) > clearly ? slower + 1 : 0;
        best = isnan(best) || ahead(t, value, best) ? value : best;
    }
}

/* The other rounds, in turn, so that what drifts on the machine drifts for all. */
static void time_all(struct trial *t)
{
    for (int round = 1; round < t->rounds; round++) {
        show("round", round, t->rounds);
        for (int i = 0; i < t->n_seen; i++)
            if (t->at[i].n_rounds > 0)
                measure(t, &t->at[i]);
    }
    for (int i = 0; i < t->n_seen; i++)
        summarise(&t->at[i]);
}

/* ---- the decision ---------------------------------------------------------------------------- */

/* Medians of what was measured, of all that one round measures. */
static void take_measured(const struct trial *t, const struct tried *v, double *metrics)
{
    static const enum metric serving[] = {METRIC_THROUGHPUT, METRIC_LATENCY, METRIC_TTFT};
    for (int k = 0; k < 3 && t->metric != METRIC_TRAIN_TIME; k++) {
        struct tried one = {.n_rounds = v->n_rounds};
        for (int i = 0; i < v->n_rounds; i++)
            one.rounds[i] = v->metrics[i][k];
        summarise(&one);
        metrics[serving[k]] = one.median;
    }
    if (t->metric == METRIC_TRAIN_TIME)
        metrics[METRIC_TRAIN_TIME] = v->median;
}

/* The requirements with measured speeds in the place of predicted ones, where both are of the same
 * work. */
static bool meets_all(const struct trial *t, const struct tried *v)
{
    const struct resolution *r = &t->d->resolution;
    struct candidate c = v->candidate;
    struct requirement q;
    if (!t->single)
        return true;
    pricing_metrics(&r->pricing, &c.arch, ALL_METRICS, c.metrics);
    take_measured(t, v, c.metrics);
    for (int i = 0; i < r->n_requirements; i++) {
        resolution_judge(r, &c, i, &q);
        if (!q.satisfied)
            return false;
    }
    return true;
}

static double noise(const struct tried *a, const struct tried *b)
{
    return fmax(a->spread, b->spread);
}

/* The best measured one of those that meet the requirements. One that leads the predicted choice by
 * less than the rounds differ does not take its place. */
static void decide(struct trial *t)
{
    t->chosen = -1;
    for (int pass = 0; pass < 2 && t->chosen < 0; pass++)
        for (int i = 0; i < t->n_seen; i++) {
            struct tried *v = &t->at[i];
            v->meets = v->n_rounds > 0 && meets_all(t, v);
            if (v->n_rounds == 0 || (pass == 0 && !v->meets))
                continue;
            if (t->chosen < 0 || ahead(t, v->median, t->at[t->chosen].median))
                t->chosen = i;
        }
    const struct tried *first = &t->at[0];
    if (t->chosen > 0 && first->n_rounds > 0 && first->meets &&
        behind(t, first->median, t->at[t->chosen].median) <= noise(first, &t->at[t->chosen]))
        t->chosen = 0;
}

/* ---- what is said of it ---------------------------------------------------------------------- */

static void print_table(const struct trial *t)
{
    char predicted[METRIC_TEXT], measured[METRIC_TEXT], shape[SHAPE_TEXT];
    printf("%s measured on this machine: %d candidate%s, %d round%s in turn%s\n",
           metric_names[t->metric], t->n_seen, t->n_seen == 1 ? "" : "s", t->rounds,
           t->rounds == 1 ? "" : "s",
           t->metric == METRIC_TRAIN_TIME ? "" : ", one sequence at a time");
    printf("  %-16s %-16s %7s %8s  shape\n", "predicted", "measured", "spread", "error");
    for (int i = 0; i < t->n_seen; i++) {
        const struct tried *v = &t->at[i];
        printf("  %-16s ", metric_text(predicted, t->metric, v->predicted));
        if (v->n_rounds > 0)
            printf("%-16s %5.1f %% %+6.1f %%  ", metric_text(measured, t->metric, v->median),
                   100 * v->spread, 100 * (v->predicted / v->median - 1));
        else
            printf("%-34s ", v->built ? "could not be timed" : "could not be built");
        printf("%s%s%s\n", shape_text(shape, &v->candidate.arch),
               v->n_rounds > 0 && !v->meets ? "  misses a requirement" : "",
               i == t->chosen ? "  < chosen" : "");
    }
    if (t->n_seen < t->n)
        printf("  %d more were not built: %d in a row were more than %.0f %% behind\n",
               t->n - t->n_seen, PATIENCE, 100 * clearly);
}

static const char *verdict(const struct trial *t)
{
    const struct tried *c = &t->at[t->chosen], *first = &t->at[0];
    struct arena *a = t->d->arena;
    int rival = -1;
    if (t->chosen > 0)
        return first->n_rounds > 0
                   ? arena_printf(a,
                                  "measurement changes the choice: it is %.1f %% ahead of the "
                                  "predicted one",
                                  100 * behind(t, first->median, c->median))
                   : "measurement changes the choice: the predicted one could not be measured";
    for (int i = 1; i < t->n_seen; i++)
        if (t->at[i].n_rounds > 0 && (rival < 0 || ahead(t, t->at[i].median, t->at[rival].median)))
            rival = i;
    if (rival >= 0 && behind(t, t->at[rival].median, c->median) <= noise(c, &t->at[rival]))
        return "measurement keeps the choice: the next is within the spread of the rounds";
    return "measurement keeps the choice";
}

static void warn(const struct trial *t)
{
    double worst = 0;
    for (int i = 0; i < t->n_seen; i++)
        if (t->at[i].n_rounds > 0)
            worst = fmax(worst, t->at[i].spread);
    if (worst > noisy)
        fprintf(stderr,
                "warning: this machine is noisy: rounds of one candidate differ by %.0f %%; run "
                "again when it is idle, or with more --rounds\n",
                100 * worst);
    if (!t->single)
        fprintf(stderr,
                "warning: programs of this machine are timed with one sequence at a time, not with "
                "a batch of %d: requirements are judged by what is predicted\n",
                t->d->resolution.model->serve.batch);
    if (!t->at[t->chosen].meets)
        fprintf(stderr, "warning: as measured, no candidate meets the requirements\n");
}

static json_t *number(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

static json_t *tried_json(const struct tried *v, bool chosen)
{
    const struct arch *a = &v->candidate.arch;
    json_t *shape = json_pack("{s:i, s:i, s:i, s:i, s:i, s:i}", "layers", a->layers, "d_model",
                              a->d_model, "heads", a->heads, "kv_heads", a->kv_heads, "head_dim",
                              a->head_dim, "d_ff", a->d_ff);
    json_t *rounds = json_array();
    for (int i = 0; i < v->n_rounds; i++)
        json_array_append_new(rounds, json_real(v->rounds[i]));
    return json_pack("{s:o, s:b, s:o, s:o, s:o, s:o, s:b, s:b}", "architecture", shape, "built",
                     (int)v->built, "predicted", number(v->predicted), "measured",
                     number(v->median), "spread", number(v->spread), "rounds", rounds,
                     "meets_requirements", (int)v->meets, "chosen", (int)chosen);
}

static const char *to_json(const struct trial *t)
{
    json_t *list = json_array();
    for (int i = 0; i < t->n_seen; i++)
        json_array_append_new(list, tried_json(&t->at[i], i == t->chosen));
    json_t *all = json_pack("{s:s, s:i, s:i, s:b, s:s, s:o}", "metric", metric_names[t->metric],
                            "rounds", t->rounds, "not_built", t->n - t->n_seen, "changed",
                            (int)(t->chosen > 0), "verdict", verdict(t), "candidates", list);
    char *text = json_dumps(all, JSON_REAL_PRECISION(8));
    const char *kept = text ? arena_copy(t->d->arena, text, strlen(text)) : NULL;
    free(text);
    json_decref(all);
    return kept;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static void clean_up(const struct trial *t)
{
    for (int i = 0; i < t->n; i++)
        if (t->at[i].program)
            unlink(t->at[i].program);
    rmdir(t->directory);
    if (isatty(2))
        fprintf(stderr, "\r%40s\r", "");
}

/* The measured choice takes the place of the predicted one, its requirements judged anew. */
static void adopt(struct trial *t)
{
    struct resolution *r = &t->d->resolution;
    r->best = t->at[t->chosen].candidate;
    pricing_metrics(&r->pricing, &r->best.arch, ALL_METRICS, r->best.metrics);
    for (int i = 0; i < r->n_requirements; i++)
        resolution_judge(r, &r->best, i, &r->requirements[i]);
    r->measured = to_json(t);
}

int driver_measure(struct driver *d)
{
    struct candidate predicted = d->resolution.best;
    struct trial *t = arena_alloc(d->arena, sizeof *t);
    const char *tmp = getenv("TMPDIR");
    *t = (struct trial){.d = d};
    t->directory = arena_printf(d->arena, "%s/archc-measure-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    int status = check(t);
    if (status)
        return status;
    if (!mkdtemp(t->directory)) {
        fprintf(stderr, "archc: cannot make the directory %s: %s\n", t->directory, strerror(errno));
        return STATUS_WORLD;
    }
    choose(t);
    sort(t);
    scout(t);
    time_all(t);
    decide(t);
    clean_up(t);
    d->resolution.best = predicted;
    if (t->chosen < 0) {
        fprintf(stderr, "archc: none of %d candidates could be built and timed\n", t->n_seen);
        return STATUS_WORLD;
    }
    adopt(t);
    if (!d->json) {
        print_table(t);
        printf("  %s\n\n", verdict(t));
    }
    warn(t);
    return 0;
}

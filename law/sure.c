/* sure.c - how far the choice can be trusted: what each sample of the law would have chosen.
 *
 * Every candidate is priced once and its loss evaluated under all samples at once; each sample
 * keeps its own best. Samples are refits of the same runs, so the spread of their choices is what
 * those runs leave open. It says nothing of what the form of the law or the cost model misses. */
#include "search.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A sample's best so far; layers 0: none. */
struct pick {
    double key;
    struct arch arch;
};

struct chooser {
    struct search *search;
    int n;
    bool by_loss; /* the objective is a loss that has samples */
    struct pick *picks;
    double worst; /* largest key of the picks, infinite while one has none */
    double *loss, *margin;
    bool *met;
    int visits; /* since `worst` was found */
    int64_t seen;
};

/* Requirements whose metrics no sample changes. Those with a confidence are asked of the choice as
 * a whole; a single sample takes them as they stand. */
static bool meets_sure_ones(const struct search *x, const struct candidate *c)
{
    for (int i = 0; i < x->out->n_requirements; i++) {
        struct requirement q;
        if (x->unsure[i])
            continue;
        judge(x, c, i, &q);
        if (!q.satisfied)
            return false;
    }
    return true;
}

/* met[i]: the requirements hold under sample i. */
static void mark_met(const struct chooser *k, const struct candidate *c, bool *met)
{
    const struct search *x = k->search;
    memset(met, 1, sizeof *met * (size_t)k->n);
    for (int q = 0; q < x->out->n_requirements; q++) {
        if (!x->unsure[q])
            continue;
        sampled_margins(x, c, x->out->requirements[q].goal, k->loss, k->margin);
        for (int i = 0; i < k->n; i++)
            met[i] = met[i] && k->margin[i] >= 0;
    }
}

static void find_worst(struct chooser *k)
{
    k->worst = -INFINITY;
    for (int i = 0; i < k->n; i++)
        k->worst = fmax(k->worst, k->picks[i].arch.layers ? k->picks[i].key : INFINITY);
    k->visits = 0;
}

static bool visit(void *user, const struct arch *a)
{
    struct chooser *k = user;
    struct search *x = k->search;
    struct candidate c = {.arch = *a};
    k->seen++;
    pricing_metrics(&x->out->pricing, a, x->cheap | x->dear, c.metrics);
    if (!meets_sure_ones(x, &c))
        return true;
    pricing_metrics(&x->out->pricing, a, x->objective, c.metrics);
    double key = search_key(x, &c);
    if (!k->by_loss && key > k->worst)
        return true;
    search_losses(x, a, k->loss);
    mark_met(k, &c, k->met);
    for (int i = 0; i < k->n; i++) {
        struct pick *p = &k->picks[i];
        if (k->by_loss)
            key = x->sign * k->loss[i];
        if (!k->met[i] || !isfinite(key))
            continue;
        if (!p->arch.layers || key < p->key || (key == p->key && shape_before(a, &p->arch))) {
            p->key = key;
            p->arch = *a;
        }
    }
    if (++k->visits >= 16)
        find_worst(k);
    return true;
}

/* ---- what the picks have in common ----------------------------------------------------------- */

static int by_shape(const void *a, const void *b)
{
    const struct pick *p = a, *q = b;
    return shape_before(&p->arch, &q->arch) ? -1 : shape_before(&q->arch, &p->arch);
}

double knob_value(const struct arch *a, enum knob k)
{
    switch (k) {
    case KNOB_D_MODEL:
        return a->d_model;
    case KNOB_R:
        return arch_r(a);
    case KNOB_GQA:
        return (double)a->heads / a->kv_heads;
    case KNOB_HEADS:
        return a->heads;
    case KNOB_KV_HEADS:
        return a->kv_heads;
    case KNOB_D_FF:
        return a->d_ff;
    case KNOB_LAYERS:
        return a->layers;
    case KNOB_HEAD_DIM:
        return a->head_dim;
    case KNOB_COUNT:
        break;
    }
    return NAN;
}

static struct interval knob_interval(const struct chooser *k, enum knob knob)
{
    int n = 0;
    for (int i = 0; i < k->n; i++)
        if (k->picks[i].arch.layers)
            k->margin[n++] = knob_value(&k->picks[i].arch, knob);
    return interval_of(k->margin, n);
}

static int by_share(const void *a, const void *b)
{
    const struct rival *p = a, *q = b;
    if (p->chosen != q->chosen)
        return p->chosen > q->chosen ? -1 : 1;
    return shape_before(&p->candidate.arch, &q->candidate.arch) ? -1 : 1;
}

/* The distinct shapes among the picks, most often chosen first. */
static void tally(struct chooser *k, struct sureness *s)
{
    struct rival *all = arena_alloc(k->search->resolver->arena, sizeof *all * (size_t)(k->n + 1));
    int n = 0;
    qsort(k->picks, (size_t)k->n, sizeof *k->picks, by_shape);
    for (int i = 0; i < k->n; i++) {
        if (!k->picks[i].arch.layers) {
            s->none++;
            continue;
        }
        if (n == 0 || !same_shape(&k->picks[i].arch, &all[n - 1].candidate.arch))
            all[n++].candidate.arch = k->picks[i].arch;
        all[n - 1].chosen++;
    }
    s->none /= k->n;
    for (int i = 0; i < n; i++)
        all[i].chosen /= k->n;
    qsort(all, (size_t)n, sizeof *all, by_share);
    for (int i = 0; i < n; i++)
        if (same_shape(&all[i].candidate.arch, &k->search->out->best.arch))
            s->same = all[i].chosen;
    s->distinct = n;
    s->often = all;
    s->n_often = n < MAX_RUNNERS ? n : MAX_RUNNERS;
}

/* ---- one candidate against the chosen one -----------------------------------------------------
 */

/* Where a confidence is asked for, a rival must reach it as well, or it wins nothing. */
static bool is_admissible(const struct search *x, const struct candidate *c)
{
    for (int i = 0; i < x->out->n_requirements; i++) {
        struct requirement q;
        if (x->unsure[i] && x->out->requirements[i].goal->confidence <= 0)
            continue;
        judge(x, c, i, &q);
        if (!q.satisfied)
            return false;
    }
    return true;
}

/* met[i]: as mark_met, but for requirements with a confidence, which is_admissible asks about. */
static void mark_without_confidence(const struct chooser *k, const struct candidate *c,
                                    const double *loss, bool *met)
{
    const struct search *x = k->search;
    for (int i = 0; i < k->n; i++)
        met[i] = true;
    for (int q = 0; q < x->out->n_requirements; q++) {
        const struct goal *g = x->out->requirements[q].goal;
        if (!x->unsure[q] || g->confidence > 0)
            continue;
        sampled_margins(x, c, g, loss, k->margin);
        for (int i = 0; i < k->n; i++)
            met[i] = met[i] && k->margin[i] >= 0;
    }
}

struct chosen_losses {
    double *loss;
    bool *met;
};

static void compare(const struct chooser *k, const struct chosen_losses *c, struct rival *v)
{
    struct search *x = k->search;
    const struct candidate *best = &x->out->best;
    int wins = 0;
    pricing_metrics(&x->out->pricing, &v->candidate.arch, ALL_METRICS, v->candidate.metrics);
    search_losses(x, &v->candidate.arch, k->loss);
    if (is_admissible(x, &v->candidate)) {
        double key = search_key(x, &v->candidate), held = search_key(x, best);
        mark_without_confidence(k, &v->candidate, k->loss, k->met);
        for (int i = 0; i < k->n; i++) {
            if (k->by_loss) {
                key = x->sign * k->loss[i];
                held = x->sign * c->loss[i];
            }
            wins += k->met[i] && (!c->met[i] || key < held);
        }
    }
    v->wins = (double)wins / k->n;
    for (int i = 0; i < k->n; i++)
        k->margin[i] = k->loss[i] - c->loss[i];
    v->difference = interval_of(k->margin, k->n);
}

static void compare_all(struct chooser *k, struct sureness *s)
{
    struct search *x = k->search;
    struct arena *a = x->resolver->arena;
    struct chosen_losses chosen = {arena_alloc(a, sizeof(double) * (size_t)k->n),
                                   arena_alloc(a, sizeof(bool) * (size_t)k->n)};
    search_losses(x, &x->out->best.arch, chosen.loss);
    mark_without_confidence(k, &x->out->best, chosen.loss, chosen.met);
    for (int i = 0; i < s->n_often; i++)
        compare(k, &chosen, &s->often[i]);
    for (int i = 0; i < x->out->n_runners; i++) {
        struct rival *v = &s->runners[s->n_runners++];
        v->candidate = x->out->runners[i];
        for (int j = 0; j < s->distinct; j++)
            if (same_shape(&s->often[j].candidate.arch, &v->candidate.arch))
                v->chosen = s->often[j].chosen;
        compare(k, &chosen, v);
    }
    memcpy(k->margin, chosen.loss, sizeof *k->margin * (size_t)k->n);
    s->loss = interval_of(k->margin, k->n);
}

/* ---- warnings -------------------------------------------------------------------------------- */

/* The rival that wins most; the first of equals. */
static const struct rival *strongest(const struct sureness *s, const struct arch *chosen)
{
    const struct rival *held = NULL;
    for (int i = 0; i < s->n_runners + s->n_often; i++) {
        const struct rival *v = i < s->n_runners ? &s->runners[i] : &s->often[i - s->n_runners];
        if (!same_shape(&v->candidate.arch, chosen) && (!held || v->wins > held->wins))
            held = v;
    }
    return held;
}

static void warn_rival(struct search *x, const struct sureness *s, bool by_loss)
{
    struct resolver *r = x->resolver;
    char shape[SHAPE_TEXT];
    const struct rival *v = strongest(s, &x->out->best.arch);
    if (v && v->wins > 0.05) {
        search_warn(
            r, x->out,
            arena_printf(r->arena,
                         "the choice is not distinguishable from a runner-up: under %.0f %% "
                         "of the law's %d samples %s is the better one (its loss less the "
                         "choice's: %+.4f..%+.4f)",
                         100 * v->wins, s->n, shape_text(shape, &v->candidate.arch),
                         v->difference.lo, v->difference.hi));
        return;
    }
    for (int i = 0; by_loss && i < s->n_runners; i++) {
        v = &s->runners[i];
        if (!(v->difference.lo <= 0 && v->difference.hi >= 0))
            continue;
        search_warn(
            r, x->out,
            arena_printf(r->arena,
                         "the law does not tell the choice from a runner-up: the loss of %s "
                         "less the choice's is %+.4f..%+.4f over its %d samples",
                         shape_text(shape, &v->candidate.arch), v->difference.lo, v->difference.hi,
                         s->n));
        return;
    }
}

static void warn_requirements(struct search *x, const struct sureness *s)
{
    struct resolver *r = x->resolver;
    for (int i = 0; i < x->out->n_requirements; i++) {
        const struct requirement *q = &x->out->requirements[i];
        if (isnan(q->share) || q->goal->confidence > 0 || q->share >= 0.95)
            continue;
        search_warn(r, x->out,
                    arena_printf(r->arena,
                                 "`%s` holds under %.0f %% of the law's %d samples; `require %s "
                                 "with 90%%` asks for more",
                                 q->goal->text, 100 * q->share, s->n, q->goal->text));
    }
}

/* ---- the whole ------------------------------------------------------------------------------- */

static bool matters(const struct search *x)
{
    bool any = model_is_sampled(x->resolver, x->model);
    for (int i = 0; i < x->out->n_requirements; i++)
        any = any || x->unsure[i];
    return any;
}

void search_sure(struct search *x)
{
    struct resolver *r = x->resolver;
    struct sureness *s;
    size_t n = (size_t)r->n_samples;
    if (!x->out->found || !matters(x))
        return;
    struct chooser k = {.search = x, .n = r->n_samples, .worst = INFINITY};
    k.by_loss =
        x->order == ORDER_METRIC && x->metric == METRIC_LOSS && model_is_sampled(r, x->model);
    k.picks = arena_alloc(r->arena, sizeof *k.picks * n);
    k.loss = arena_alloc(r->arena, sizeof *k.loss * n);
    k.margin = arena_alloc(r->arena, sizeof *k.margin * n);
    k.met = arena_alloc(r->arena, sizeof *k.met * n);
    shapes_each(&x->shapes, visit, &k);
    s = arena_alloc(r->arena, sizeof *s);
    s->n = k.n;
    for (int i = 0; i < KNOB_COUNT; i++)
        s->knobs[i] = knob_interval(&k, (enum knob)i);
    tally(&k, s);
    compare_all(&k, s);
    x->out->sure = s;
    warn_rival(x, s, k.by_loss);
    warn_requirements(x, s);
}

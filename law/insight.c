/* insight.c - what there is to say about a choice. Almost everything is found by asking the search
 * again with one thing changed. */
#include "law.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const double trade_steps[TRADE_STEPS] = {-0.01, -0.001, 0.001, 0.01};

/* The same search over a changed copy of the model. Its own diagnostics are nobody's business. */
static bool search_changed(const struct spec *s, int model, const struct model_spec *changed,
                           struct candidate *best)
{
    struct arena *a = arena_new();
    struct spec copy = *s;
    struct resolution r;
    struct model_spec *models = arena_alloc(a, sizeof *models * (size_t)s->n_models);
    struct diags quiet = {.arena = a, .sources = s->sources, .n_sources = s->n_sources};
    memcpy(models, s->models, sizeof *models * (size_t)s->n_models);
    models[model] = *changed;
    copy.models = models;
    bool found = resolve_point(a, &copy, model, &quiet, &r) && r.found;
    *best = found ? r.best : (struct candidate){0};
    arena_free(a);
    return found;
}

struct asker {
    struct arena *arena;
    struct insight *to;
};

static bool ask(const struct asker *q, const struct model_spec *changed, struct candidate *best)
{
    return search_changed(q->to->spec, q->to->model, changed, best);
}

static bool ask_at(const struct spec *s, int model, enum knob k, double value,
                   struct candidate *best)
{
    struct model_spec m = s->models[model];
    m.knobs[k] = (struct domain){.kind = DOMAIN_FIXED, .value = value, .at = m.knobs[k].at};
    return search_changed(s, model, &m, best);
}

bool insight_best_at(struct arena *a, const struct spec *s, int model, enum knob k, double value,
                     struct candidate *best)
{
    struct spec ready;
    const char *why;
    spec_ready(a, s, &ready, &why);
    return ask_at(&ready, model, k, value, best);
}

/* ---- what a requirement costs ---------------------------------------------------------------- */

/* The model with requirement `g` dropped (scale 0), or with its right side scaled. */
static struct model_spec without_goal(const struct asker *q, const struct goal *g, double scale)
{
    struct model_spec m = q->to->spec->models[q->to->model];
    struct goal *goals = arena_alloc(q->arena, sizeof *goals * (size_t)m.n_goals);
    int n = 0;
    for (int i = 0; i < m.n_goals; i++) {
        if (&m.goals[i] != g) {
            goals[n++] = m.goals[i];
        } else if (scale > 0) {
            struct expr *times = arena_alloc(q->arena, sizeof *times);
            struct expr *by = arena_alloc(q->arena, sizeof *by);
            *by = (struct expr){.kind = EXPR_NUMBER, .number = scale, .at = g->rhs->at};
            *times = (struct expr){.kind = EXPR_MUL, .lhs = g->rhs, .rhs = by, .at = g->rhs->at};
            goals[n] = m.goals[i];
            goals[n++].rhs = times;
        }
    }
    m.goals = goals;
    m.n_goals = n;
    return m;
}

static double gain(const struct insight *i, const struct candidate *c)
{
    double now = i->resolution.best.metrics[i->objective], then = c->metrics[i->objective];
    return 100 * (then / now - 1);
}

static void find_trade(const struct asker *q, const struct requirement *r, struct trade *t)
{
    const struct goal *g = r->goal;
    /* Relaxing raises an upper bound and lowers a lower one; a negative bound moves by its size. */
    double direction = (g->relation == RELATION_GE) != (r->rhs < 0) ? -1 : 1;
    struct model_spec changed = without_goal(q, g, 0);
    t->requirement = r;
    t->rate = NAN;
    if (!ask(q, &changed, &t->dropped) ||
        same_shape(&t->dropped.arch, &q->to->resolution.best.arch)) {
        t->dropped = (struct candidate){0};
        return;
    }
    t->binds = true;
    if (g->relation == RELATION_EQ)
        return;
    for (int k = 0; k < TRADE_STEPS; k++) {
        changed = without_goal(q, g, 1 + direction * trade_steps[k]);
        ask(q, &changed, &t->at[k]);
    }
    const struct candidate *far = &t->at[TRADE_STEPS - 1];
    if (far->arch.layers)
        t->rate = gain(q->to, far) / (100 * trade_steps[TRADE_STEPS - 1]);
}

static void find_trades(const struct asker *q)
{
    struct insight *to = q->to;
    const struct resolution *r = &to->resolution;
    to->trades = arena_alloc(q->arena, sizeof *to->trades * (size_t)(r->n_requirements + 1));
    if (!r->objective[0])
        return;
    to->n_trades = r->n_requirements;
    for (int i = 0; i < to->n_trades; i++)
        find_trade(q, &r->requirements[i], &to->trades[i]);
}

/* ---- the law's curve over a knob ------------------------------------------------------------- */

/* Between the knob's own bounds where it has any, widened to show what was chosen. */
static void curve_bounds(struct curve *c, const struct domain *k, double lo, double hi)
{
    bool range = k->kind == DOMAIN_RANGE, list = k->kind == DOMAIN_LIST;
    c->lo = range ? k->lo : list ? k->list[0] : lo;
    c->hi = range ? k->hi : list ? k->list[k->n - 1] : hi;
    c->lo = fmax(fmin(c->lo, c->chosen / 1.05), 1e-6);
    c->hi = fmax(c->hi, c->chosen * 1.05);
}

static struct law_point point_on(const struct insight *i, const struct curve *c, double at)
{
    const struct arch *a = &i->resolution.best.arch;
    struct law_point p = {(double)arch_params(a), (double)arch_total_params(a), arch_width(a),
                          arch_r(a), (double)a->d_model / a->layers};
    if (c->knob == KNOB_R) {
        p.r = at;
    } else {
        p.x = at / sqrt(p.params);
        p.d_model_per_layer = at / a->layers;
    }
    return p;
}

static void curve_losses(struct curve *c, const struct insight *i)
{
    const struct pricing *p = &i->resolution.pricing;
    for (int k = 0; k < CURVE_POINTS; k++) {
        c->at[k] = c->lo * pow(c->hi / c->lo, (double)k / (CURVE_POINTS - 1));
        c->low[k] = c->high[k] = NAN;
        struct law_point at = point_on(i, c, c->at[k]);
        double l_opt = pricing_l_opt(p, at.params, at.total_params);
        c->loss[k] = law_loss(p->law, l_opt, at.x, at.r, at.d_model_per_layer);
    }
}

static void curve_band(struct curve *c, const struct asker *q)
{
    const struct resolution *r = &q->to->resolution;
    c->picks.lo = c->picks.hi = NAN;
    if (!r->sure || !pricing_is_sampled(&r->pricing))
        return;
    int n = r->sure->n;
    c->picks = r->sure->knobs[c->knob];
    double *here = arena_alloc(q->arena, sizeof *here * (size_t)n);
    double *chosen = arena_alloc(q->arena, sizeof *chosen * (size_t)n);
    struct sampled_law *l =
        sampled_law_new(q->arena, &r->pricing, n, (double)arch_params(&r->best.arch));
    sampled_losses(l, &r->best.arch, chosen);
    for (int k = 0; k < CURVE_POINTS; k++) {
        struct law_point at = point_on(q->to, c, c->at[k]);
        sampled_losses_at(l, &at, here);
        for (int i = 0; i < n; i++)
            here[i] += c->loss_chosen - chosen[i];
        struct interval band = interval_of(here, n);
        c->low[k] = band.lo;
        c->high[k] = band.hi;
    }
}

static void add_curve(const struct asker *q, struct curve c, double lo, double hi)
{
    struct insight *to = q->to;
    c.loss_chosen = to->resolution.best.metrics[METRIC_LOSS];
    curve_bounds(&c, &to->resolution.model->knobs[c.knob], lo, hi);
    curve_losses(&c, to);
    for (int k = 0; k < CURVE_POINTS; k++)
        if (!isfinite(c.loss[k]))
            return;
    curve_band(&c, q);
    to->curves[to->n_curves++] = c;
}

static void find_curves(const struct asker *q)
{
    const struct resolution *r = &q->to->resolution;
    const struct law *law = r->pricing.law;
    const struct arch *a = &r->best.arch;
    if (!law || law->form == LAW_CHINCHILLA || isnan(r->best.metrics[METRIC_LOSS]))
        return;
    double width = sqrt((double)arch_params(a));
    struct curve c = {.knob = KNOB_D_MODEL,
                      .held = arena_printf(q->arena, "r = %.4g", arch_r(a)),
                      .chosen = a->d_model,
                      .best = law_best_x(law) * width,
                      .fit_lo = law->x_lo * width,
                      .fit_hi = law->x_hi * width};
    add_curve(q, c, 0.02 * width, 0.16 * width);
    if (law->form == LAW_MORPH)
        return;
    c = (struct curve){.knob = KNOB_R,
                       .held = arena_printf(q->arena, "d_model = %d", a->d_model),
                       .chosen = arch_r(a),
                       .best = law_best_r(law),
                       .fit_lo = law->r_lo,
                       .fit_hi = law->r_hi};
    add_curve(q, c, 0.5, 5);
}

/* ---- the best choice at each value of a knob ------------------------------------------------- */

enum { MAX_VALUES = 200 };

struct seen {
    double value[KNOB_COUNT][MAX_VALUES];
    int n[KNOB_COUNT];
};

static void note_values(void *user, const struct candidate *c)
{
    struct seen *s = user;
    for (int k = 0; k < KNOB_COUNT; k++) {
        double v = k == KNOB_R ? 0 : knob_value(&c->arch, (enum knob)k);
        int i = s->n[k];
        while (i > 0 && s->value[k][i - 1] > v)
            i--;
        if (s->n[k] == MAX_VALUES || (i > 0 && s->value[k][i - 1] == v))
            continue;
        memmove(&s->value[k][i + 1], &s->value[k][i],
                sizeof s->value[k][0] * (size_t)(s->n[k] - i));
        s->value[k][i] = v;
        s->n[k]++;
    }
}

static void find_profile(const struct asker *q, enum knob k, const double *value, int n)
{
    struct insight *to = q->to;
    struct profile p = {.knob = k, .n = n};
    p.at = arena_alloc(q->arena, sizeof *p.at * (size_t)n);
    p.value = arena_alloc(q->arena, sizeof *p.value * (size_t)n);
    for (int i = 0; i < n; i++) {
        p.value[i] = value[i];
        ask_at(to->spec, to->model, k, value[i], &p.at[i]);
    }
    to->profiles[to->n_profiles++] = p;
}

static void find_profiles(const struct asker *q)
{
    static const enum knob knobs[] = {KNOB_D_MODEL, KNOB_GQA, KNOB_LAYERS, KNOB_HEAD_DIM};
    const struct resolution *r = &q->to->resolution;
    struct diags quiet = {.arena = q->arena};
    struct seen *s = calloc(1, sizeof *s);
    if (s && r->objective[0] && search_each(q->arena, r, 0, &quiet, note_values, s))
        for (size_t i = 0; i < sizeof knobs / sizeof *knobs; i++) {
            enum domain_kind kind = r->model->knobs[knobs[i]].kind;
            if (kind != DOMAIN_FIXED && kind != DOMAIN_UNSET && s->n[knobs[i]] > 1)
                find_profile(q, knobs[i], s->value[knobs[i]], s->n[knobs[i]]);
        }
    free(s);
}

/* ---- loss against throughput ----------------------------------------------------------------- */

static const double loss_steps[RATES] = {-0.01, -0.005, 0, 0.005, 0.01};

static void exchange_each(void *user, const struct candidate *c)
{
    struct exchange *e = user;
    for (int i = 0; i < RATES; i++)
        if (c->metrics[METRIC_LOSS] <= e->budget[i] &&
            (!e->best[i].arch.layers ||
             c->metrics[METRIC_THROUGHPUT] > e->best[i].metrics[METRIC_THROUGHPUT]))
            e->best[i] = *c;
}

static void find_exchange(const struct asker *q)
{
    struct insight *to = q->to;
    const double *m = to->resolution.best.metrics;
    struct diags quiet = {.arena = q->arena};
    if (isnan(m[METRIC_LOSS]) || isnan(m[METRIC_THROUGHPUT]) || to->resolution.n_candidates < 2)
        return;
    for (int i = 0; i < RATES; i++) {
        to->exchange.step[i] = loss_steps[i];
        to->exchange.budget[i] = m[METRIC_LOSS] * (1 + loss_steps[i]);
    }
    to->has_exchange =
        search_each(q->arena, &to->resolution, 1u << METRIC_LOSS | 1u << METRIC_THROUGHPUT, &quiet,
                    exchange_each, &to->exchange);
}

/* ---- other models of the file ---------------------------------------------------------------- */

static bool reads_model(const struct expr *e, int model)
{
    if (!e || e->kind == EXPR_NUMBER)
        return false;
    if (e->kind == EXPR_METRIC)
        return e->model == model;
    return reads_model(e->lhs, model) || reads_model(e->rhs, model);
}

static bool is_baseline(const struct model_spec *m, int other)
{
    for (int i = 0; i < m->n_goals; i++)
        if (reads_model(m->goals[i].lhs, other) || reads_model(m->goals[i].rhs, other))
            return true;
    return false;
}

static void find_named(const struct asker *q)
{
    struct insight *to = q->to;
    const struct spec *s = to->spec;
    to->named = arena_alloc(q->arena, sizeof *to->named * (size_t)(s->n_models + 1));
    for (int i = 0; i < s->n_models; i++) {
        struct diags quiet = {.arena = q->arena};
        struct resolution *r = arena_alloc(q->arena, sizeof *r);
        if (i == to->model || !resolve_point(q->arena, s, i, &quiet, r) || !r->found)
            continue;
        to->named[to->n_named++] =
            (struct named){r->model->name, r->best, is_baseline(&s->models[to->model], i)};
    }
}

/* ---- the whole ------------------------------------------------------------------------------- */

bool insight_others(struct arena *a, const struct spec *s, int model, struct diags *d,
                    struct insight *out)
{
    struct spec *ready = arena_alloc(a, sizeof *ready);
    const char *why;
    struct asker q = {a, out};
    memset(out, 0, sizeof *out);
    spec_ready(a, s, ready, &why);
    out->spec = ready;
    out->model = model;
    out->objective = METRIC_LOSS;
    if (!resolve(a, ready, model, d, &out->resolution))
        return false;
    find_named(&q);
    return true;
}

bool insight_build(struct arena *a, const struct spec *s, int model, struct diags *d,
                   struct insight *out)
{
    struct asker q = {a, out};
    if (!insight_others(a, s, model, d, out))
        return false;
    if (!out->resolution.found)
        return true;
    const struct model_spec *m = out->resolution.model;
    for (int i = 0; i < m->n_goals; i++)
        if (m->goals[i].kind != GOAL_REQUIRE)
            out->objective = m->goals[i].lhs->metric;
    find_trades(&q);
    find_curves(&q);
    find_profiles(&q);
    find_exchange(&q);
    return true;
}

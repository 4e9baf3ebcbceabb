/* explain.c - why this shape: what the law and the requirements say around the one that was chosen.
 *
 * Everything is found by asking the search again with one thing changed. */
#include "law.h"

#include <math.h>
#include <string.h>

struct asker {
    struct arena *arena;
    const struct spec *spec; /* ready: `host` has its rates */
    int model;
    const struct resolution *chosen;
    FILE *out;
};

/* The same search over a changed copy of the model. Its own diagnostics are nobody's business. */
static bool ask(const struct asker *q, const struct model_spec *changed, struct resolution *out)
{
    struct arena *a = q->arena;
    struct spec *s = arena_alloc(a, sizeof *s);
    struct model_spec *models = arena_alloc(a, sizeof *models * (size_t)q->spec->n_models);
    struct diags quiet = {.arena = a, .sources = q->spec->sources, .n_sources = q->spec->n_sources};
    memcpy(models, q->spec->models, sizeof *models * (size_t)q->spec->n_models);
    models[q->model] = *changed;
    *s = *q->spec;
    s->models = models;
    return resolve(a, s, q->model, &quiet, out);
}

/* The model with requirement `g` dropped, or with its right side scaled. */
static struct model_spec without_goal(const struct asker *q, const struct goal *g, double scale)
{
    struct model_spec m = q->spec->models[q->model];
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

/* ---- the objective --------------------------------------------------------------------------- */

static const struct goal *objective_of(const struct model_spec *m)
{
    for (int i = 0; i < m->n_goals; i++)
        if (m->goals[i].kind != GOAL_REQUIRE)
            return &m->goals[i];
    return NULL;
}

static enum metric objective_metric(const struct asker *q)
{
    const struct goal *g = objective_of(q->chosen->model);
    return g ? g->lhs->metric : METRIC_LOSS;
}

static bool has_objective(const struct asker *q)
{
    return q->chosen->objective[0] != 0;
}

static void print_change(const struct asker *q, const struct candidate *c, const char *indent)
{
    char shape[SHAPE_TEXT], text[METRIC_TEXT];
    enum metric m = objective_metric(q);
    double now = q->chosen->best.metrics[m], then = c->metrics[m];
    fprintf(q->out, "%s%s %s (%+.2f %%): %s\n", indent, metric_names[m], metric_text(text, m, then),
            100 * (then / now - 1), shape_text(shape, &c->arch));
}

/* ---- requirements ---------------------------------------------------------------------------- */

static bool same_shape(const struct arch *a, const struct arch *b)
{
    return a->layers == b->layers && a->d_model == b->d_model && a->heads == b->heads &&
           a->kv_heads == b->kv_heads && a->head_dim == b->head_dim && a->d_ff == b->d_ff;
}

static void explain_requirement(const struct asker *q, const struct requirement *r)
{
    const struct goal *g = r->goal;
    bool lower = g->relation == RELATION_GE;
    double relaxed_by = r->rhs < 0 ? -0.01 : 0.01;
    struct model_spec dropped = without_goal(q, g, 0);
    struct model_spec relaxed = without_goal(q, g, 1 + (lower ? -relaxed_by : relaxed_by));
    struct resolution none, some;
    fprintf(q->out, "  %s\n    %.6g against %.6g, margin %.4g (%.3g %%)\n", g->text, r->lhs, r->rhs,
            r->margin, 100 * r->margin / fmax(fabs(r->rhs), 1e-300));
    if (!has_objective(q) || !ask(q, &dropped, &none) || !none.found)
        return;
    if (same_shape(&none.best.arch, &q->chosen->best.arch)) {
        fprintf(q->out, "    does not bind: the choice is the same without it\n");
        return;
    }
    fprintf(q->out, "    binds\n");
    if (g->relation != RELATION_EQ && ask(q, &relaxed, &some) && some.found)
        print_change(q, &some.best, "    relaxed by 1 %: ");
    print_change(q, &none.best, "    dropped:        ");
}

static void explain_requirements(const struct asker *q)
{
    const struct resolution *r = q->chosen;
    if (r->n_requirements == 0)
        return;
    fprintf(q->out, "\nrequirements\n");
    for (int i = 0; i < r->n_requirements; i++)
        explain_requirement(q, &r->requirements[i]);
}

/* ---- the law's curve over a knob ------------------------------------------------------------- */

enum { COLUMNS = 61, ROWS = 11 };

struct curve {
    const char *title;
    double lo, hi;         /* of the knob; columns are spaced by its logarithm */
    double chosen, best;   /* best: where the law's minimum lies, NaN if nowhere */
    double fit_lo, fit_hi; /* fitted range, NaN if not stated */
    double loss[COLUMNS];
};

static double column_value(const struct curve *c, int i)
{
    return c->lo * pow(c->hi / c->lo, (double)i / (COLUMNS - 1));
}

static int column_of(const struct curve *c, double v)
{
    double at = log(v / c->lo) / log(c->hi / c->lo) * (COLUMNS - 1);
    return at < 0 ? 0 : at > COLUMNS - 1 ? COLUMNS - 1 : (int)(at + 0.5);
}

static void draw_axis(const struct curve *c, FILE *out)
{
    char line[COLUMNS + 1];
    memset(line, '-', COLUMNS);
    line[COLUMNS] = 0;
    if (!isnan(c->best) && c->best >= c->lo && c->best <= c->hi)
        line[column_of(c, c->best)] = '^';
    fprintf(out, "         +%s\n          %-*.5g%.5g\n", line, COLUMNS - 4, c->lo, c->hi);
    if (isnan(c->fit_lo) || isnan(c->fit_hi))
        return;
    memset(line, ' ', COLUMNS);
    for (int i = column_of(c, c->fit_lo); i <= column_of(c, c->fit_hi); i++)
        line[i] = '=';
    fprintf(out, "   fitted %s %.5g..%.5g\n", line, c->fit_lo, c->fit_hi);
}

static void draw(const struct curve *c, FILE *out)
{
    double low = INFINITY, high = -INFINITY;
    for (int i = 0; i < COLUMNS; i++) {
        low = fmin(low, c->loss[i]);
        high = fmax(high, c->loss[i]);
    }
    if (!isfinite(low) || !isfinite(high))
        return;
    double step = high > low ? (high - low) / (ROWS - 1) : 1;
    int chosen = column_of(c, c->chosen);
    fprintf(out, "\n%s\n", c->title);
    for (int row = 0; row < ROWS; row++) {
        char line[COLUMNS + 1];
        memset(line, ' ', COLUMNS);
        for (int i = 0; i < COLUMNS; i++)
            if ((int)((high - c->loss[i]) / step + 0.5) == row)
                line[i] = i == chosen ? 'O' : '*';
        line[COLUMNS] = 0;
        if (row == 0 || row == ROWS - 1)
            fprintf(out, "  %6.4f |%s\n", row ? low : high, line);
        else
            fprintf(out, "         |%s\n", line);
    }
    draw_axis(c, out);
    fprintf(out, "          O chosen: %.5g", c->chosen);
    if (!isnan(c->best))
        fprintf(out, "   ^ minimum of the law: %.5g", c->best);
    fprintf(out, "\n");
}

/* Between the knob's own bounds where it has any, widened to show what was chosen. */
static void curve_bounds(struct curve *c, const struct domain *k, double lo, double hi)
{
    bool range = k->kind == DOMAIN_RANGE, list = k->kind == DOMAIN_LIST;
    c->lo = range ? k->lo : list ? k->list[0] : lo;
    c->hi = range ? k->hi : list ? k->list[k->n - 1] : hi;
    c->lo = fmax(fmin(c->lo, c->chosen / 1.05), 1e-6);
    c->hi = fmax(c->hi, c->chosen * 1.05);
}

static double loss_at(const struct asker *q, double x, double r)
{
    const struct pricing *p = &q->chosen->pricing;
    const struct arch *a = &q->chosen->best.arch;
    double params = (double)arch_params(a);
    double l_opt = pricing_l_opt(p, params, (double)arch_total_params(a));
    return law_loss(p->law, l_opt, x, r, x * sqrt(params) / a->layers);
}

static void explain_curves(const struct asker *q)
{
    const struct law *law = q->chosen->pricing.law;
    const struct arch *a = &q->chosen->best.arch;
    const struct model_spec *m = q->chosen->model;
    if (!law || law->form == LAW_CHINCHILLA || isnan(q->chosen->best.metrics[METRIC_LOSS]))
        return;
    double width = sqrt((double)arch_params(a)), r = arch_r(a), x = arch_width(a);
    struct curve c = {.title =
                          arena_printf(q->arena, "loss over d_model, at this N and r = %.4g", r),
                      .chosen = a->d_model,
                      .best = law_best_x(law) * width,
                      .fit_lo = law->x_lo * width,
                      .fit_hi = law->x_hi * width};
    curve_bounds(&c, &m->knobs[KNOB_D_MODEL], 0.02 * width, 0.16 * width);
    for (int i = 0; i < COLUMNS; i++)
        c.loss[i] = loss_at(q, column_value(&c, i) / width, r);
    draw(&c, q->out);
    if (law->form == LAW_MORPH)
        return;
    c = (struct curve){
        .title = arena_printf(q->arena, "loss over r, at this N and d_model = %d", a->d_model),
        .chosen = r,
        .best = law_best_r(law),
        .fit_lo = law->r_lo,
        .fit_hi = law->r_hi};
    curve_bounds(&c, &m->knobs[KNOB_R], 0.5, 5);
    for (int i = 0; i < COLUMNS; i++)
        c.loss[i] = loss_at(q, x, column_value(&c, i));
    draw(&c, q->out);
}

/* ---- the group ------------------------------------------------------------------------------- */

/* The law does not know the group, so what it costs shows only in the best choice at each. */
static void explain_groups(const struct asker *q)
{
    const struct domain *k = &q->chosen->model->knobs[KNOB_GQA];
    if (!has_objective(q) || k->kind == DOMAIN_FIXED || k->kind == DOMAIN_UNSET)
        return;
    fprintf(q->out, "\nbest choice at each gqa (the law does not price gqa)\n");
    for (int g = 1; g <= 16; g++) {
        if (k->kind == DOMAIN_RANGE && (g < k->lo || g > k->hi))
            continue;
        struct model_spec m = q->spec->models[q->model];
        m.knobs[KNOB_GQA] = (struct domain){.kind = DOMAIN_FIXED, .value = g, .at = k->at};
        struct resolution r;
        bool listed = k->kind != DOMAIN_LIST;
        for (int i = 0; k->kind == DOMAIN_LIST && i < k->n; i++)
            listed = listed || k->list[i] == g;
        if (!listed || !ask(q, &m, &r) || !r.found)
            continue;
        char loss[METRIC_TEXT], rate[METRIC_TEXT], shape[SHAPE_TEXT];
        fprintf(q->out, "  %2d  loss %s  throughput %-14s %s%s\n", g,
                metric_text(loss, METRIC_LOSS, r.best.metrics[METRIC_LOSS]),
                metric_text(rate, METRIC_THROUGHPUT, r.best.metrics[METRIC_THROUGHPUT]),
                shape_text(shape, &r.best.arch),
                same_shape(&r.best.arch, &q->chosen->best.arch) ? "  <" : "");
    }
}

/* ---- loss against throughput ----------------------------------------------------------------- */

enum { RATES = 5 };
static const double loss_steps[RATES] = {-0.01, -0.005, 0, 0.005, 0.01};

struct exchange {
    double budget[RATES];
    struct candidate best[RATES];
};

static void exchange_each(void *user, const struct candidate *c)
{
    struct exchange *e = user;
    for (int i = 0; i < RATES; i++)
        if (c->metrics[METRIC_LOSS] <= e->budget[i] &&
            (!e->best[i].arch.layers ||
             c->metrics[METRIC_THROUGHPUT] > e->best[i].metrics[METRIC_THROUGHPUT]))
            e->best[i] = *c;
}

static void explain_exchange(const struct asker *q)
{
    const double *m = q->chosen->best.metrics;
    if (isnan(m[METRIC_LOSS]) || isnan(m[METRIC_THROUGHPUT]) || q->chosen->n_candidates < 2)
        return;
    struct exchange e = {0};
    struct diags quiet = {.arena = q->arena};
    for (int i = 0; i < RATES; i++)
        e.budget[i] = m[METRIC_LOSS] * (1 + loss_steps[i]);
    if (!search_each(q->arena, q->chosen, 1u << METRIC_LOSS | 1u << METRIC_THROUGHPUT, &quiet,
                     exchange_each, &e))
        return;
    fprintf(q->out,
            "\nwhat loss buys: the fastest candidate within a loss, other requirements aside\n");
    for (int i = 0; i < RATES; i++) {
        char rate[METRIC_TEXT], shape[SHAPE_TEXT];
        fprintf(q->out, "  loss %+5.1f %% (%.4f): ", 100 * loss_steps[i], e.budget[i]);
        if (!e.best[i].arch.layers) {
            fprintf(q->out, "out of reach\n");
            continue;
        }
        double t = e.best[i].metrics[METRIC_THROUGHPUT];
        fprintf(q->out, "%-14s (%+.1f %%)  %s\n", metric_text(rate, METRIC_THROUGHPUT, t),
                100 * (t / m[METRIC_THROUGHPUT] - 1), shape_text(shape, &e.best[i].arch));
    }
}

/* ---- others ---------------------------------------------------------------------------------- */

static void print_row(const char *name, const struct candidate *c, FILE *out)
{
    char loss[METRIC_TEXT], rate[METRIC_TEXT], shape[SHAPE_TEXT];
    fprintf(out, "  %-18s loss %s  throughput %-14s %s\n", name,
            metric_text(loss, METRIC_LOSS, c->metrics[METRIC_LOSS]),
            metric_text(rate, METRIC_THROUGHPUT, c->metrics[METRIC_THROUGHPUT]),
            shape_text(shape, &c->arch));
}

static void explain_runners(const struct asker *q)
{
    const struct resolution *r = q->chosen;
    if (r->n_runners == 0)
        return;
    fprintf(q->out, "\nrunners-up\n");
    print_row("chosen", &r->best, q->out);
    for (int i = 0; i < r->n_runners; i++)
        print_row("", &r->runners[i], q->out);
}

static void explain_baselines(const struct asker *q)
{
    bool any = false;
    for (int i = 0; i < q->spec->n_models; i++) {
        struct diags quiet = {.arena = q->arena};
        struct resolution r;
        if (i == q->model || !resolve(q->arena, q->spec, i, &quiet, &r) || !r.found)
            continue;
        if (!any)
            fprintf(q->out, "\nother models of this file\n");
        any = true;
        print_row(r.model->name, &r.best, q->out);
    }
}

bool explain(struct arena *a, const struct spec *s, int model, struct diags *d, FILE *out,
             bool *found)
{
    struct spec *ready = arena_alloc(a, sizeof *ready);
    struct resolution *r = arena_alloc(a, sizeof *r);
    const char *why;
    spec_ready(a, s, ready, &why);
    *found = false;
    if (!resolve(a, ready, model, d, r))
        return false;
    if (!r->found) {
        resolution_infeasible(ready, r, out);
        return true;
    }
    *found = true;
    struct asker q = {a, ready, model, r, out};
    resolution_print(r, out);
    explain_requirements(&q);
    explain_curves(&q);
    explain_groups(&q);
    explain_exchange(&q);
    explain_runners(&q);
    explain_baselines(&q);
    return true;
}

/* judge.c - what the goals say of one candidate: at the point estimate of the law, and under each
 * of its samples. */
#include "search.h"

#include <math.h>
#include <string.h>

/* ---- expressions at the point estimate ------------------------------------------------------- */

unsigned own_metrics(const struct expr *e, int model)
{
    if (!e || e->kind == EXPR_NUMBER)
        return 0;
    if (e->kind == EXPR_METRIC)
        return e->model == model ? 1u << e->metric : 0;
    return own_metrics(e->lhs, model) | own_metrics(e->rhs, model);
}

struct scope {
    const struct resolver *resolver;
    int model;
    const double *own;
    const double *loss; /* of the candidate under each sample; NULL at the point estimate */
};

static double value_of(const struct scope *c, const struct expr *e)
{
    return e->model == c->model ? c->own[e->metric]
                                : c->resolver->done[e->model].best.metrics[e->metric];
}

static double evaluate(const struct scope *c, const struct expr *e)
{
    switch (e->kind) {
    case EXPR_NUMBER:
        return e->number;
    case EXPR_METRIC:
        return value_of(c, e);
    case EXPR_ADD:
        return evaluate(c, e->lhs) + evaluate(c, e->rhs);
    case EXPR_SUB:
        return evaluate(c, e->lhs) - evaluate(c, e->rhs);
    case EXPR_MUL:
        return evaluate(c, e->lhs) * evaluate(c, e->rhs);
    case EXPR_DIV:
        return evaluate(c, e->lhs) / evaluate(c, e->rhs);
    case EXPR_NEG:
        return -evaluate(c, e->lhs);
    }
    return NAN;
}

/* Equality is up to rounding of the arithmetic. */
static double margin_of(enum relation relation, double lhs, double rhs)
{
    if (relation == RELATION_LE)
        return rhs - lhs;
    if (relation == RELATION_GE)
        return lhs - rhs;
    double apart = fabs(lhs - rhs);
    return apart <= 1e-9 * fmax(fabs(lhs), fabs(rhs)) ? 0 : -apart;
}

/* ---- expressions under the samples ----------------------------------------------------------- */

/* Samples that one walk over an expression evaluates. */
enum { BLOCK = 64 };

bool model_is_sampled(const struct resolver *s, int model)
{
    return s->n_samples > 0 && pricing_is_sampled(&s->done[model].pricing);
}

bool reads_unsure_loss(const struct search *x, const struct expr *e)
{
    if (!e || e->kind == EXPR_NUMBER)
        return false;
    if (e->kind == EXPR_METRIC)
        return e->metric == METRIC_LOSS && model_is_sampled(x->resolver, e->model);
    return reads_unsure_loss(x, e->lhs) || reads_unsure_loss(x, e->rhs);
}

static const struct sampled_law *sampled_law_of(struct resolver *s, int model)
{
    if (!s->sampled[model])
        s->sampled[model] =
            sampled_law_new(s->arena, &s->done[model].pricing, s->n_samples, s->params);
    return s->sampled[model];
}

void search_losses(const struct search *x, const struct arch *a, double *loss)
{
    sampled_losses(sampled_law_of(x->resolver, x->model), a, loss);
}

/* The losses of another model, whose shape does not change from sample to sample. */
static const double *losses_of(struct resolver *s, int model)
{
    if (!s->losses[model]) {
        s->losses[model] = arena_alloc(s->arena, sizeof(double) * (size_t)s->n_samples);
        sampled_losses(sampled_law_of(s, model), &s->done[model].best.arch, s->losses[model]);
    }
    return s->losses[model];
}

static void evaluate_block(const struct scope *c, const struct expr *e, int from, int n,
                           double *out)
{
    double rhs[BLOCK];
    if (e->kind == EXPR_METRIC && e->metric == METRIC_LOSS &&
        model_is_sampled(c->resolver, e->model)) {
        const double *loss = e->model == c->model
                                 ? c->loss
                                 : losses_of((struct resolver *)(uintptr_t)c->resolver, e->model);
        memcpy(out, loss + from, sizeof *out * (size_t)n);
        return;
    }
    if (e->kind == EXPR_NUMBER || e->kind == EXPR_METRIC) {
        double v = evaluate(c, e);
        for (int i = 0; i < n; i++)
            out[i] = v;
        return;
    }
    evaluate_block(c, e->lhs, from, n, out);
    if (e->kind != EXPR_NEG)
        evaluate_block(c, e->rhs, from, n, rhs);
    for (int i = 0; i < n; i++)
        out[i] = e->kind == EXPR_ADD   ? out[i] + rhs[i]
                 : e->kind == EXPR_SUB ? out[i] - rhs[i]
                 : e->kind == EXPR_MUL ? out[i] * rhs[i]
                 : e->kind == EXPR_DIV ? out[i] / rhs[i]
                                       : -out[i];
}

void sampled_margins(const struct search *x, const struct candidate *c, const struct goal *g,
                     const double *loss, double *margin)
{
    struct scope scope = {x->resolver, x->model, c->metrics, loss};
    double lhs[BLOCK], rhs[BLOCK];
    for (int from = 0; from < x->resolver->n_samples; from += BLOCK) {
        int left = x->resolver->n_samples - from, n = left < BLOCK ? left : BLOCK;
        evaluate_block(&scope, g->lhs, from, n, lhs);
        evaluate_block(&scope, g->rhs, from, n, rhs);
        for (int i = 0; i < n; i++) {
            double m = margin_of(g->relation, lhs[i], rhs[i]);
            margin[from + i] = isfinite(m) ? m : -INFINITY; /* no number: does not hold */
        }
    }
}

/* ---- judging --------------------------------------------------------------------------------- */

/* The k-th smallest, from 0; reorders. Quickselect with the middle as pivot. */
static double kth_smallest(double *v, int n, int k)
{
    int lo = 0, hi = n - 1;
    while (lo < hi) {
        double pivot = v[lo + (hi - lo) / 2];
        int i = lo, j = hi;
        while (i <= j) {
            while (v[i] < pivot)
                i++;
            while (v[j] > pivot)
                j--;
            if (i <= j) {
                double swap = v[i];
                v[i++] = v[j];
                v[j--] = swap;
            }
        }
        if (k <= j)
            hi = j;
        else if (k >= i)
            lo = i;
        else
            break;
    }
    return v[k];
}

static int count_met(const double *margin, int n)
{
    int met = 0;
    for (int i = 0; i < n; i++)
        met += margin[i] >= 0;
    return met;
}

/* Samples that must hold for a requirement with a confidence to be met. */
static int needed_of(const struct goal *g, int n)
{
    int needed = (int)ceil(g->confidence * n - 1e-9);
    return needed < 1 ? 1 : needed > n ? n : needed;
}

static void judge_point(const struct search *x, const struct candidate *c, struct requirement *q)
{
    struct scope scope = {x->resolver, x->model, c->metrics, NULL};
    q->lhs = evaluate(&scope, q->goal->lhs);
    q->rhs = evaluate(&scope, q->goal->rhs);
    q->margin = margin_of(q->goal->relation, q->lhs, q->rhs);
    q->satisfied = q->margin >= 0;
    q->share = q->margins.lo = q->margins.hi = NAN;
}

/* Once a candidate is found, nobody asks by how much another one misses. */
void judge(const struct search *x, const struct candidate *c, int i, struct requirement *out)
{
    int n = x->resolver->n_samples;
    out->goal = x->out->requirements[i].goal;
    judge_point(x, c, out);
    if (out->goal->confidence <= 0 || !x->unsure[i])
        return;
    search_losses(x, &c->arch, x->loss);
    sampled_margins(x, c, out->goal, x->loss, x->difference);
    int needed = needed_of(out->goal, n);
    out->satisfied = count_met(x->difference, n) >= needed;
    out->margin = out->satisfied  ? 0
                  : x->out->found ? -INFINITY
                                  : kth_smallest(x->difference, n, n - needed);
}

void judge_fully(const struct search *x, const struct candidate *c, int i, struct requirement *out)
{
    int n = x->resolver->n_samples;
    out->goal = x->out->requirements[i].goal;
    judge_point(x, c, out);
    if (!x->unsure[i])
        return;
    search_losses(x, &c->arch, x->loss);
    sampled_margins(x, c, out->goal, x->loss, x->difference);
    out->share = (double)count_met(x->difference, n) / n;
    if (out->goal->confidence > 0) {
        out->margin = kth_smallest(x->difference, n, n - needed_of(out->goal, n));
        out->satisfied = out->margin >= 0;
    }
    out->margins = interval_of(x->difference, n);
}

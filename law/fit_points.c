/* fit_points.c - rows of a run table become points of a form, sorted into groups of one (N, D). */
#include "fit.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* Realised N and D of one size differ a little; sizes of one family differ much more. */
#define WINDOW 1.25
enum { MAX_SIZES = 1000 };

bool is_conditional(enum law_form form)
{
    return form == LAW_MULTIPLICATIVE || form == LAW_ADDITIVE || form == LAW_JOINT;
}

/* ---- what a form needs ----------------------------------------------------------------------- */

/* What a form reads of a run, and which columns give it. */
static const struct need {
    const char *name, *from;
    unsigned forms;
    size_t at;
} needs[] = {
#define FORM(f) (1u << LAW_##f)
    {"loss", "the column loss", ~0u, offsetof(struct run, loss)},
    {"tokens", "the column tokens, or flops and params", ~0u, offsetof(struct run, tokens)},
    {"params",
     "the column params (non-embedding), or layers, d_model, heads, kv_heads, head_dim, d_ff",
     ~FORM(MORPH), offsetof(struct run, params)},
    {"total_params", "the column total_params", FORM(MORPH), offsetof(struct run, total_params)},
    {"d_model", "the column d_model", FORM(MORPH) | FORM(JOINT), offsetof(struct run, d_model)},
    {"layers", "the column layers", FORM(MORPH), offsetof(struct run, layers)},
    {"r", "the column r, or d_ff, heads, kv_heads, head_dim", FORM(JOINT), offsetof(struct run, r)},
#undef FORM
};
enum { NEEDS = sizeof needs / sizeof *needs };

static double get(const struct run *r, const struct need *n)
{
    return *(const double *)(const void *)((const char *)r + n->at);
}

static int count_missing(const struct runs *t, const struct need *need)
{
    int n = 0;
    for (int i = 0; i < t->n; i++)
        n += isnan(get(t->rows + i, need));
    return n;
}

static void report_missing(const struct runs *t, const struct need *need, int missing,
                           struct text *why)
{
    enum { MOST = 5 };
    int shown = 0;
    if (missing == t->n) {
        text_printf(why, "%s: error: no run has %s\n  help: it comes from %s\n", t->path,
                    need->name, need->from);
        text_printf(why, "  help: another header: --columns %s=HEADER\n", need->name);
        return;
    }
    for (int i = 0; i < t->n && shown < MOST; i++)
        if (isnan(get(t->rows + i, need))) {
            text_printf(why, "%s:%d: error: this run has no %s\n", t->path, t->rows[i].line,
                        need->name);
            shown++;
        }
    text_printf(why, "  help: it comes from %s; %d of %d runs lack it\n", need->from, missing,
                t->n);
}

/* One factor may be missing from the whole table, not from some runs and not both. */
static bool check_factors(const struct runs *t, struct text *why)
{
    static const struct need d_model = {"d_model", "the column d_model", 0,
                                        offsetof(struct run, d_model)};
    const struct need *r = needs + NEEDS - 1;
    int no_r = count_missing(t, r), no_d = count_missing(t, &d_model);
    bool good = true;
    if (no_r == t->n && no_d == t->n) {
        report_missing(t, &d_model, no_d, why);
        report_missing(t, r, no_r, why);
        return false;
    }
    if (no_r > 0 && no_r < t->n) {
        report_missing(t, r, no_r, why);
        good = false;
    }
    if (no_d > 0 && no_d < t->n) {
        report_missing(t, &d_model, no_d, why);
        good = false;
    }
    return good;
}

bool points_new(struct arena *a, const struct runs *t, enum law_form form, struct point **out,
                struct text *why)
{
    bool good = true;
    if (t->n == 0) {
        text_printf(why, "%s: error: no runs are left to fit\n", t->path);
        return false;
    }
    for (int k = 0; k < NEEDS; k++) {
        int missing = needs[k].forms & 1u << form ? count_missing(t, needs + k) : 0;
        if (missing) {
            report_missing(t, needs + k, missing, why);
            good = false;
        }
    }
    if (!good || (is_conditional(form) && form != LAW_JOINT && !check_factors(t, why)))
        return false;
    struct point *p = arena_alloc(a, (size_t)t->n * sizeof *p);
    for (int i = 0; i < t->n; i++) {
        const struct run *r = t->rows + i;
        p[i] = (struct point){.x = r->d_model / sqrt(r->params),
                              .r = r->r,
                              .depth = r->d_model / r->layers,
                              .n = form == LAW_MORPH ? r->total_params : r->params,
                              .d = r->tokens,
                              .loss = r->loss,
                              .l_opt = NAN,
                              .params = r->params,
                              .run = r};
    }
    *out = p;
    return true;
}

/* ---- groups ---------------------------------------------------------------------------------- */

static int order(double a, double b)
{
    return a < b ? -1 : a > b;
}

static int by_size(const void *a, const void *b)
{
    const struct point *p = a, *q = b;
    int c = order(p->n, q->n);
    return c ? c : order(p->run->line, q->run->line);
}

static int by_tokens(const void *a, const void *b)
{
    const struct point *p = a, *q = b;
    int c = p->size - q->size;
    c = c ? c : order(p->d, q->d);
    return c ? c : order(p->run->line, q->run->line);
}

/* NaN (a factor that the table does not have) is equal to itself here. */
static int order_nan(double a, double b)
{
    return isnan(a) || isnan(b) ? 0 : order(a, b);
}

static int order_shape(const struct point *p, const struct point *q)
{
    int c = p->group - q->group;
    c = c ? c : order_nan(p->x, q->x);
    c = c ? c : order_nan(p->r, q->r);
    c = c ? c : order(p->n, q->n);
    c = c ? c : order_nan(p->depth, q->depth);
    return c ? c : order(p->d, q->d);
}

static int by_shape(const void *a, const void *b)
{
    const struct point *p = a, *q = b;
    int c = order_shape(p, q);
    return c ? c : order(p->run->line, q->run->line);
}

/* By the texts of a column, in order of their least N. False: too many different ones. */
static bool sizes_by_label(int column, struct point *points, int n)
{
    const char *labels[MAX_SIZES];
    int sizes = 0;
    for (int i = 0; i < n; i++) {
        const char *own = points[i].run->extra[column];
        int k = 0;
        while (k < sizes && strcmp(labels[k], own))
            k++;
        if (k == MAX_SIZES)
            return false;
        if (k == sizes)
            labels[sizes++] = own;
        points[i].size = k;
    }
    return true;
}

static void sizes_by_params(struct point *points, int n)
{
    double first = 0;
    for (int i = 0, sizes = 0; i < n; i++) {
        if (i == 0 || points[i].n > WINDOW * first) {
            first = points[i].n;
            sizes++;
        }
        points[i].size = sizes - 1;
    }
}

int points_group(const struct runs *t, const char *by, struct point *points, int n)
{
    int column = -1, groups = 0;
    double first = 0;
    for (int i = 0; by && i < t->n_extra && column < 0; i++)
        if (!strcmp(t->extra_names[i], by))
            column = i;
    qsort(points, (size_t)n, sizeof *points, by_size);
    if (by && (column < 0 || !sizes_by_label(column, points, n)))
        return -1;
    if (!by)
        sizes_by_params(points, n);
    qsort(points, (size_t)n, sizeof *points, by_tokens);
    for (int i = 0; i < n; i++) {
        if (i == 0 || points[i].size != points[i - 1].size || points[i].d > WINDOW * first) {
            first = points[i].d;
            groups++;
        }
        points[i].group = groups - 1;
    }
    qsort(points, (size_t)n, sizeof *points, by_shape);
    return groups;
}

/* End of the repeats that begin at i, and their mean loss. */
static int repeats(const struct point *points, int n, int i, double *mean)
{
    int j = i;
    double sum = 0;
    for (; j < n && order_shape(points + i, points + j) == 0; j++)
        sum += points[j].loss;
    *mean = sum / (j - i);
    return j;
}

int points_lowest(struct point *points, int n, struct point *lowest)
{
    int groups = 0;
    for (int i = 0, end; i < n; i = end) {
        struct point best = points[i];
        best.loss = INFINITY;
        for (end = i; end < n && points[end].group == points[i].group;) {
            double mean;
            int next = repeats(points, n, end, &mean);
            if (mean < best.loss) {
                best = points[end];
                best.loss = mean;
            }
            end = next;
        }
        for (int j = i; j < end; j++)
            points[j].l_opt = best.loss;
        best.l_opt = best.loss;
        if (lowest)
            lowest[groups] = best;
        groups++;
    }
    return groups;
}

int points_lonely(struct point *points, int n)
{
    enum { LEAST_SHAPES = 3 };
    int kept = 0;
    for (int i = 0, end; i < n; i = end) {
        int shapes = 0;
        for (end = i; end < n && points[end].group == points[i].group; shapes++) {
            double mean;
            end = repeats(points, n, end, &mean);
        }
        for (int j = i; j < end; j++)
            points[j].lonely = shapes < LEAST_SHAPES;
        kept += shapes < LEAST_SHAPES ? 0 : end - i;
    }
    return kept;
}

double points_noise(const struct point *points, int n, int *shapes)
{
    double squares = 0;
    int free_runs = 0;
    *shapes = 0;
    for (int i = 0, next; i < n; i = next) {
        double mean;
        next = repeats(points, n, i, &mean);
        for (int j = i; j < next; j++)
            squares += (points[j].loss - mean) * (points[j].loss - mean);
        *shapes += next - i > 1;
        free_runs += next - i - 1;
    }
    return free_runs ? sqrt(squares / free_runs) : NAN;
}

bool points_vary(const struct point *points, int n, bool width, double ratio)
{
    double lo = INFINITY, hi = 0;
    bool between = false;
    for (int i = 0; i < n; i++) {
        double v = width ? points[i].x : points[i].r;
        if (isnan(v))
            return false;
        lo = fmin(lo, v);
        hi = fmax(hi, v);
    }
    for (int i = 0; i < n; i++) {
        double v = width ? points[i].x : points[i].r;
        between |= v > lo * 1.02 && v < hi / 1.02;
    }
    return between && hi >= ratio * lo;
}

/* ---- rank correlation ------------------------------------------------------------------------ */

struct ranked {
    double value, rank;
    int index;
};

static int by_value(const void *a, const void *b)
{
    return order(((const struct ranked *)a)->value, ((const struct ranked *)b)->value);
}

static void ranks(struct ranked *r, const double *x, double *out, int n)
{
    for (int i = 0; i < n; i++)
        r[i] = (struct ranked){x[i], 0, i};
    qsort(r, (size_t)n, sizeof *r, by_value);
    for (int i = 0, end; i < n; i = end) {
        for (end = i; end < n && r[end].value == r[i].value; end++)
            ;
        for (int j = i; j < end; j++)
            out[r[j].index] = (i + end - 1) / 2.0;
    }
}

double fit_spearman(struct arena *a, const double *x, const double *y, int n)
{
    struct ranked *r = arena_alloc(a, (size_t)(n + 1) * sizeof *r);
    double *u = arena_alloc(a, (size_t)(n + 1) * sizeof *u),
           *v = arena_alloc(a, (size_t)(n + 1) * sizeof *v);
    double mean = (n - 1) / 2.0, uv = 0, uu = 0, vv = 0;
    ranks(r, x, u, n);
    ranks(r, y, v, n);
    for (int i = 0; i < n; i++) {
        uv += (u[i] - mean) * (v[i] - mean);
        uu += (u[i] - mean) * (u[i] - mean);
        vv += (v[i] - mean) * (v[i] - mean);
    }
    return n >= 3 && uu > 0 && vv > 0 ? uv / sqrt(uu * vv) : NAN;
}

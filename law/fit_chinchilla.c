/* fit_chinchilla.c - L_opt(N, D) = E + A/N^alpha + B/D^beta from losses.
 *
 * The recipe of Hoffmann et al. (arXiv:2203.15556, approach 3) as Besiroglu et al.
 * (arXiv:2404.10102) repaired it: minimise the SUM over runs of Huber(log L - logsumexp(a - alpha
 * ln N, b - beta ln D, e)), delta 1e-3, A = exp a, B = exp b, E = exp e, by L-BFGS from a grid of
 * 4500 starts. The mean in place of the sum is smaller by the number of runs and stops optimisers
 * early. */
#include "fit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define HUBER_DELTA 1e-3

/* ---- the objective --------------------------------------------------------------------------- */

struct logs {
    const double *n, *d, *loss; /* natural logarithms */
    int count;
    double best; /* least value seen since it was set, and where: L-BFGS may end elsewhere */
    double best_at[5];
};

/* theta: a, b, e, alpha, beta. */
static double huber_sum(const struct logs *l, const double *theta, double *gradient)
{
    double sum = 0, g[5] = {0};
    for (int i = 0; i < l->count; i++) {
        double t0 = theta[0] - theta[3] * l->n[i], t1 = theta[1] - theta[4] * l->d[i];
        double top = fmax(theta[2], fmax(t0, t1));
        double p0 = exp(t0 - top), p1 = exp(t1 - top), p2 = exp(theta[2] - top);
        double whole = p0 + p1 + p2, residual = top + log(whole) - l->loss[i];
        double size = fabs(residual), slope = fmin(size, HUBER_DELTA);
        sum += slope * (size - slope / 2);
        slope = copysign(slope, residual) / whole;
        g[0] += slope * p0;
        g[1] += slope * p1;
        g[2] += slope * p2;
        g[3] -= slope * p0 * l->n[i];
        g[4] -= slope * p1 * l->d[i];
    }
    if (gradient)
        memcpy(gradient, g, sizeof g);
    return sum;
}

static double objective(unsigned n, const double *theta, double *gradient, void *user)
{
    struct logs *l = user;
    (void)n;
    double v = huber_sum(l, theta, gradient);
    if (v < l->best) {
        l->best = v;
        memcpy(l->best_at, theta, sizeof l->best_at);
    }
    return v;
}

static struct logs logs_new(const struct point *points, int n)
{
    double *all = malloc((size_t)n * 3 * sizeof *all);
    struct logs l = {all, all + n, all + 2 * n, n, INFINITY, {0}};
    for (int i = 0; all && i < n; i++) {
        all[i] = log(points[i].n);
        all[n + i] = log(points[i].d);
        all[2 * n + i] = log(points[i].loss);
    }
    return l;
}

double chinchilla_objective(const struct point *points, int n, const struct law *law)
{
    double theta[5] = {log(law->A), log(law->B), log(law->E), law->alpha, law->beta};
    struct logs l = logs_new(points, n);
    double v = l.n ? huber_sum(&l, theta, NULL) : NAN;
    free((void *)l.n);
    return v;
}

/* ---- the descent ----------------------------------------------------------------------------- */

/* What a law can hold: A, B up to 1e12, exponents up to 10. */
static const double lower[5] = {-23, -23, -14, 0, 0}, upper[5] = {27.6, 27.6, 13.8, 10, 10};

static nlopt_opt lbfgs_new(const struct solvers *s, struct logs *l, double tolerance)
{
    nlopt_opt o = s->create(NLOPT_LD_LBFGS, 5);
    if (!o)
        return NULL;
    s->set_min_objective(o, objective, l);
    s->set_lower_bounds(o, lower);
    s->set_upper_bounds(o, upper);
    s->set_ftol_rel(o, tolerance);
    s->set_maxeval(o, 2000);
    return o;
}

/* From theta to the nearest optimum; returns its value. A line search that gives up reports failure
 * with a good point in hand, so the best point seen counts, not the status. */
static double descend(const struct solvers *s, nlopt_opt o, struct logs *l, double theta[5])
{
    double least;
    l->best = INFINITY;
    s->optimize(o, theta, &least);
    memcpy(theta, l->best_at, sizeof l->best_at);
    return l->best;
}

/* L-BFGS stops where its memory of the curvature is bad: start it afresh until nothing is gained.
 */
static double polish(const struct solvers *s, nlopt_opt o, struct logs *l, double theta[5])
{
    double value = descend(s, o, l, theta);
    for (int i = 0; i < 20; i++) {
        double next = descend(s, o, l, theta);
        if (!(next < value * (1 - 1e-12)))
            break;
        value = next;
    }
    return value;
}

struct start {
    double theta[5], value;
};

static int by_value(const void *a, const void *b)
{
    double x = ((const struct start *)a)->value, y = ((const struct start *)b)->value;
    return x < y ? -1 : x > y;
}

/* alpha, beta in {0, .5, 1, 1.5, 2}, e in {-1, -.5, 0, .5, 1}, a, b in {0, 5, .., 25}. */
static void grid_start(int i, double theta[5])
{
    theta[3] = 0.5 * (i % 5);
    theta[4] = 0.5 * (i / 5 % 5);
    theta[2] = 0.5 * (i / 25 % 5) - 1;
    theta[0] = 5.0 * (i / 125 % 6);
    theta[1] = 5.0 * (i / 750);
}

/* Every start is followed until its steps gain less than a millionth; the best ones to the end. */
static bool from_grid(const struct solvers *s, struct logs *l, int stride, struct start *best,
                      int *at_best)
{
    enum { POLISHED = 40 };
    int n = 0;
    struct start *all = malloc(CHINCHILLA_STARTS * sizeof *all);
    nlopt_opt coarse = lbfgs_new(s, l, 1e-6), fine = lbfgs_new(s, l, 1e-14);
    bool good = all && coarse && fine;
    for (int i = 0; good && i < CHINCHILLA_STARTS; i += stride, n++) {
        grid_start(i, all[n].theta);
        all[n].value = descend(s, coarse, l, all[n].theta);
    }
    if (good) {
        qsort(all, (size_t)n, sizeof *all, by_value);
        for (int i = 0; i < POLISHED; i++)
            all[i].value = polish(s, fine, l, all[i].theta);
        qsort(all, POLISHED, sizeof *all, by_value);
        *best = all[0];
        for (int i = *at_best = 0; i < n; i++)
            *at_best += all[i].value <= all[0].value * 1.001;
    }
    if (coarse)
        s->destroy(coarse);
    if (fine)
        s->destroy(fine);
    free(all);
    return good && isfinite(best->value);
}

static bool from_near(const struct solvers *s, struct logs *l, const struct law *near,
                      struct start *best)
{
    double theta[5] = {log(near->A), log(near->B), log(near->E), near->alpha, near->beta};
    nlopt_opt o = lbfgs_new(s, l, 1e-9);
    for (int i = 0; i < 5; i++)
        theta[i] = fmax(lower[i], fmin(upper[i], theta[i]));
    memcpy(best->theta, theta, sizeof theta);
    best->value = o ? polish(s, o, l, best->theta) : INFINITY;
    if (o)
        s->destroy(o);
    return isfinite(best->value);
}

static bool fit_from(const struct solvers *s, const struct point *points, int n, int stride,
                     const struct law *near, struct law *out, double *value, int *at_best)
{
    struct logs l = logs_new(points, n);
    struct start best = {.value = INFINITY};
    bool good = l.n && n >= 5 &&
                (near ? from_near(s, &l, near, &best) : from_grid(s, &l, stride, &best, at_best));
    free((void *)l.n);
    if (!good)
        return false;
    *out = fit_blank(LAW_CHINCHILLA);
    out->A = exp(best.theta[0]);
    out->B = exp(best.theta[1]);
    out->E = exp(best.theta[2]);
    out->alpha = best.theta[3];
    out->beta = best.theta[4];
    *value = best.value;
    return true;
}

bool fit_chinchilla(const struct solvers *s, const struct point *points, int n,
                    const struct law *near, struct law *out, double *value, int *at_best)
{
    return fit_from(s, points, n, 1, near, out, value, at_best);
}

/* ---- shorter curves, for few sizes ----------------------------------------------------------- */

/* ln L = ln A - alpha ln N, by least squares. */
static bool power_law(const struct point *p, int n, struct law *out)
{
    double x = 0, y = 0, xx = 0, xy = 0;
    for (int i = 0; i < n; i++) {
        x += log(p[i].n) / n;
        y += log(p[i].loss) / n;
    }
    for (int i = 0; i < n; i++) {
        xx += (log(p[i].n) - x) * (log(p[i].n) - x);
        xy += (log(p[i].n) - x) * (log(p[i].loss) - y);
    }
    *out = fit_blank(LAW_CHINCHILLA);
    out->E = out->B = out->beta = 0;
    out->alpha = -xy / xx;
    out->A = exp(y + out->alpha * x);
    return isfinite(out->A) && out->alpha >= 0 && out->alpha <= 10 && out->A <= 1e12;
}

static bool constant(const struct point *p, int n, struct law *out)
{
    *out = fit_blank(LAW_CHINCHILLA);
    out->E = out->A = out->B = out->alpha = out->beta = 0;
    for (int i = 0; i < n; i++)
        out->E += p[i].loss / n;
    return true;
}

/* c: E, ln A, alpha. */
static void offset_row(const struct point *p, const void *user, const double *c, double *residual,
                       double *slopes)
{
    double t = exp(c[1] - c[2] * log(p->n));
    (void)user;
    *residual = c[0] + t - p->loss;
    if (!slopes)
        return;
    slopes[0] = 1;
    slopes[1] = t;
    slopes[2] = -t * log(p->n);
}

/* E + A/N^alpha, started from power laws of what is left above several E. */
static bool offset_power_law(const struct solvers *s, const struct point *p, int n, struct law *out)
{
    static const double shares[] = {0.2, 0.5, 0.7, 0.8, 0.9, 0.95};
    double least = INFINITY, best = INFINITY;
    struct point *q = malloc((size_t)n * sizeof *q);
    for (int i = 0; i < n; i++)
        least = fmin(least, p[i].loss);
    for (size_t k = 0; q && k < sizeof shares / sizeof *shares; k++) {
        struct law from;
        double sum;
        for (int i = 0; i < n; i++) {
            q[i] = p[i];
            q[i].loss -= shares[k] * least;
        }
        if (!power_law(q, n, &from))
            continue;
        double c[3] = {shares[k] * least, log(from.A), from.alpha};
        if (!least_squares(s, p, n, offset_row, NULL, c, 3, &sum) || sum >= best || c[0] < 0 ||
            c[1] > upper[0] || c[2] <= 0 || c[2] > 10)
            continue;
        best = sum;
        *out = from;
        out->E = c[0];
        out->A = exp(c[1]);
        out->alpha = c[2];
    }
    free(q);
    return isfinite(best);
}

static int distinct(const struct point *p, int n, bool tokens)
{
    int count = 0;
    for (int i = 0; i < n; i++) {
        bool known = false;
        for (int j = 0; j < i && !known; j++)
            known = fabs(log(tokens ? p[i].d / p[j].d : p[i].n / p[j].n)) < log(1.25);
        count += !known;
    }
    return count;
}

/* Whether D can be told from N: what of ln D a line in ln N leaves. */
static bool independent(const struct point *p, int n)
{
    double x = 0, y = 0, xx = 0, xy = 0, yy = 0;
    for (int i = 0; i < n; i++) {
        x += log(p[i].n) / n;
        y += log(p[i].d) / n;
    }
    for (int i = 0; i < n; i++) {
        double u = log(p[i].n) - x, v = log(p[i].d) - y;
        xx += u * u;
        xy += u * v;
        yy += v * v;
    }
    return n > 2 && xx > 0 && (yy - xy * xy / xx) / n > 0.04;
}

int fit_curve(const struct solvers *s, const struct point *points, int n, int terms,
              const struct law *near, struct law *out)
{
    enum { LEAST_PAIRS = 6, STRIDE = 7 }; /* a seventh of the grid, all of its values in it */
    double value;
    int at_best, sizes = distinct(points, n, false);
    if ((terms == 0 || terms == 5) && n >= LEAST_PAIRS && sizes >= 3 &&
        distinct(points, n, true) >= 3 && independent(points, n) &&
        fit_from(s, points, n, STRIDE, near, out, &value, &at_best))
        return 5;
    if ((terms == 0 || terms == 3) && sizes >= 3 && n >= 3 && offset_power_law(s, points, n, out))
        return 3;
    if ((terms == 0 || terms == 2) && sizes >= 2 && power_law(points, n, out))
        return 2;
    return (terms == 0 || terms == 1) && n >= 1 && constant(points, n, out) ? 1 : 0;
}

/* fit_forms.c - the shape terms, by Levenberg-Marquardt (cminpack).
 *
 * Conditional forms minimise the relative residual (predicted - observed) / L_opt, so that every
 * size counts alike; Morph the residual itself, as its authors do. The multiplicative form has an
 * exact gauge (a k, b / k), which would leave the problem one rank short: here the ratio factor is
 * fixed to 1 at r = 1 (b0 + b2 = 1), so a is the factor of a shape with r = 1. */
#include "fit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_COEFFICIENTS = 8 };

/* ---- Levenberg-Marquardt --------------------------------------------------------------------- */

struct problem {
    const struct point *points;
    residual_row *row;
    const void *user;
};

static int evaluate(void *user, int m, int n, const double *c, double *residuals, double *jacobian,
                    int stride, int what)
{
    const struct problem *p = user;
    for (int i = 0; i < m; i++) {
        double residual, slopes[MOST_COEFFICIENTS];
        p->row(p->points + i, p->user, c, &residual, what == 2 ? slopes : NULL);
        if (what == 1)
            residuals[i] = residual;
        for (int k = 0; what == 2 && k < n; k++)
            jacobian[i + k * stride] = slopes[k];
    }
    return 0;
}

bool least_squares(const struct solvers *s, const struct point *points, int n, residual_row *row,
                   const void *user, double *c, int n_c, double *sum)
{
    struct problem p = {points, row, user};
    double *work = malloc(((size_t)n * ((size_t)n_c + 2) + 5 * MOST_COEFFICIENTS) * sizeof *work);
    if (!work || n < n_c || n_c > MOST_COEFFICIENTS) {
        free(work);
        return false;
    }
    double *residuals = work, *wa4 = work + n, *jacobian = wa4 + n,
           *rest = jacobian + (size_t)n * (size_t)n_c;
    int evaluations, gradients, pivots[MOST_COEFFICIENTS];
    int status = s->lmder(evaluate, &p, n, n_c, c, residuals, jacobian, n, 1e-14, 1e-14, 0, 2000,
                          rest, 1, 100, 0, &evaluations, &gradients, pivots,
                          rest + MOST_COEFFICIENTS, rest + 2 * MOST_COEFFICIENTS,
                          rest + 3 * MOST_COEFFICIENTS, rest + 4 * MOST_COEFFICIENTS, wa4);
    bool good = status > 0;
    *sum = 0;
    for (int i = 0; i < n; i++)
        *sum += residuals[i] * residuals[i];
    for (int k = 0; k < n_c; k++)
        good = good && isfinite(c[k]);
    free(work);
    return good && isfinite(*sum);
}

/* ---- conditional forms ----------------------------------------------------------------------- */

int form_coefficients(enum law_form form, struct factors with)
{
    switch (form) {
    case LAW_MULTIPLICATIVE:
    case LAW_ADDITIVE:
        return 1 + 2 * with.width + 2 * with.ratio;
    case LAW_JOINT:
        return 3;
    case LAW_CHINCHILLA:
    case LAW_MORPH:
        return 5;
    }
    return 0;
}

/* c: a0, then (width) a1, a2, then (ratio) b1, b2. */
static void multiplicative_row(const struct point *p, const void *user, const double *c,
                               double *residual, double *slopes)
{
    const struct factors *with = user;
    const double *b = c + (with->width ? 3 : 1);
    double width = c[0], ratio = 1, u = log(p->r), v = 1 / p->r - 1;
    if (with->width)
        width += c[1] * log(p->x) + c[2] / p->x;
    if (with->ratio)
        ratio += b[0] * u + b[1] * v;
    *residual = width * ratio - p->loss / p->l_opt;
    if (!slopes)
        return;
    *slopes++ = ratio;
    if (with->width) {
        *slopes++ = ratio * log(p->x);
        *slopes++ = ratio / p->x;
    }
    if (with->ratio) {
        *slopes++ = width * u;
        *slopes++ = width * v;
    }
}

/* The same coefficients; linear. */
static void additive_row(const struct point *p, const void *user, const double *c, double *residual,
                         double *slopes)
{
    const struct factors *with = user;
    double basis[5] = {1};
    int n = 1;
    if (with->width) {
        basis[n++] = log(p->x);
        basis[n++] = 1 / p->x;
    }
    if (with->ratio) {
        basis[n++] = log(p->r);
        basis[n++] = 1 / p->r;
    }
    double term = 0;
    for (int k = 0; k < n; k++)
        term += c[k] * basis[k];
    *residual = (term + p->l_opt - p->loss) / p->l_opt;
    for (int k = 0; slopes && k < n; k++)
        slopes[k] = basis[k] / p->l_opt;
}

/* a0 + b0 ln(x r) + b1/(x r). */
static void joint_row(const struct point *p, const void *user, const double *c, double *residual,
                      double *slopes)
{
    double u = log(p->x * p->r), v = 1 / (p->x * p->r);
    (void)user;
    *residual = c[0] + c[1] * u + c[2] * v - p->loss / p->l_opt;
    if (!slopes)
        return;
    slopes[0] = 1;
    slopes[1] = u;
    slopes[2] = v;
}

static bool fit_conditional(const struct solvers *s, enum law_form form, struct factors with,
                            const struct point *points, int n, struct law *out, double *sum)
{
    static residual_row *const rows[] = {[LAW_MULTIPLICATIVE] = multiplicative_row,
                                         [LAW_ADDITIVE] = additive_row,
                                         [LAW_JOINT] = joint_row};
    double c[MOST_COEFFICIENTS] = {form == LAW_ADDITIVE ? 0 : 1};
    if (!least_squares(s, points, n, rows[form], &with, c, form_coefficients(form, with), sum))
        return false;
    const double *b = c + (with.width ? 3 : 1);
    *out = fit_blank(form);
    out->a[0] = c[0];
    out->a[1] = form != LAW_JOINT && with.width ? c[1] : 0;
    out->a[2] = form != LAW_JOINT && with.width ? c[2] : 0;
    if (form == LAW_JOINT) {
        out->b[0] = c[1];
        out->b[1] = c[2];
        return true;
    }
    out->b[1] = with.ratio ? b[0] : 0;
    out->b[2] = with.ratio ? b[1] : 0;
    if (form == LAW_MULTIPLICATIVE)
        out->b[0] = 1 - out->b[2];
    return true;
}

/* ---- Morph ----------------------------------------------------------------------------------- */

/* c: E, ln A, ln B, alpha, e. */
static void morph_row(const struct point *p, const void *user, const double *c, double *residual,
                      double *slopes)
{
    double n = log(p->n), d = log(p->d), depth = log(p->depth);
    double u = exp(c[1] - c[3] * n), v = exp(c[2] - c[3] * d), w = exp(c[3] * depth);
    double base = c[0] + u + v, shape = 1 + c[4] * w;
    (void)user;
    *residual = base * shape - p->loss;
    if (!slopes)
        return;
    slopes[0] = shape;
    slopes[1] = shape * u;
    slopes[2] = shape * v;
    slopes[3] = -shape * (u * n + v * d) + base * c[4] * w * depth;
    slopes[4] = base * w;
}

/* The valley is long and bent, so several starts: exponents, each with N and D sharing what is
 * above E in the middle of the table. */
static void morph_start(const struct point *points, int n, double alpha, double e, double c[5])
{
    double least = INFINITY, mean = 0, size = 0, tokens = 0;
    for (int i = 0; i < n; i++) {
        least = fmin(least, points[i].loss);
        mean += points[i].loss / n;
        size += log(points[i].n) / n;
        tokens += log(points[i].d) / n;
    }
    c[0] = 0.8 * least;
    c[1] = log(fmax(1e-3, mean - c[0]) / 2) + alpha * size;
    c[2] = log(fmax(1e-3, mean - c[0]) / 2) + alpha * tokens;
    c[3] = alpha;
    c[4] = e;
}

static bool fits_morph(const double c[5])
{
    return c[0] >= 0 && c[1] < log(1e12) && c[2] < log(1e12) && c[3] >= 0 && c[3] <= 10 &&
           c[4] >= 0 && c[4] <= 1e6;
}

static bool fit_morph(const struct solvers *s, const struct point *points, int n,
                      const struct law *near, struct law *out, double *sum)
{
    static const double alphas[] = {0.2, 0.35, 0.5, 0.65, 0.8}, es[] = {1e-4, 1e-3, 1e-2};
    double best[5] = {0}, c[5], value;
    *sum = INFINITY;
    for (int k = 0; k < (near ? 1 : 15); k++) {
        morph_start(points, n, alphas[k % 5], es[k / 5], c);
        if (near)
            memcpy(c,
                   ((double[5]){near->E, log(near->A), log(near->B), near->alpha, near->morph_e}),
                   sizeof c);
        if (least_squares(s, points, n, morph_row, NULL, c, 5, &value) && value < *sum &&
            fits_morph(c)) {
            *sum = value;
            memcpy(best, c, sizeof best);
        }
    }
    *out = fit_blank(LAW_MORPH);
    out->E = best[0];
    out->A = exp(best[1]);
    out->B = exp(best[2]);
    out->alpha = best[3];
    out->morph_e = best[4];
    return isfinite(*sum);
}

bool fit_form(const struct solvers *s, enum law_form form, struct factors with,
              const struct point *points, int n, const struct law *near, struct law *out,
              double *sum)
{
    if (n <= form_coefficients(form, with))
        return false;
    return form == LAW_MORPH ? fit_morph(s, points, n, near, out, sum)
                             : fit_conditional(s, form, with, points, n, out, sum);
}

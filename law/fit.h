/* fit.h - inside the fit: what a run is to a form, and the solvers.
 *
 *   fit.c            the fit, its bootstrap, progressive evaluation
 *   fit_points.c     rows become points, points become groups of one (N, D) with their L_opt
 *   fit_forms.c      width and ratio factors, Morph: least squares by Levenberg-Marquardt
 *   fit_chinchilla.c E + A/N^alpha + B/D^beta: Huber loss, many starts of L-BFGS; shorter curves
 *   fit_solvers.c    cminpack and NLopt, loaded when they are first needed */
#ifndef ARCHC_FIT_H
#define ARCHC_FIT_H

#include "law.h"
#include "runs.h"

#include <cminpack-1/cminpack.h>
#include <nlopt.h>

/* A run as the forms see it. */
struct point {
    double x, r, depth; /* d_model / sqrt(N), MLP / attention, d_model / layers */
    double n, d, loss;  /* N (Morph: all parameters), D */
    double l_opt;       /* of its group */
    double params;      /* N: matrices only, or NaN */
    int size, group;    /* numbered from 0: of equal N; of equal N and D */
    bool held;          /* out, while L_opt is looked for */
    bool lonely;        /* too few shapes at its (N, D) to say what the lowest loss there is */
    const struct run *run;
};

/* ---- fit_solvers.c --------------------------------------------------------------------------- */

struct solvers {
    __typeof__(lmder) *lmder;
    __typeof__(nlopt_create) *create;
    __typeof__(nlopt_destroy) *destroy;
    __typeof__(nlopt_set_min_objective) *set_min_objective;
    __typeof__(nlopt_set_lower_bounds) *set_lower_bounds;
    __typeof__(nlopt_set_upper_bounds) *set_upper_bounds;
    __typeof__(nlopt_set_ftol_rel) *set_ftol_rel;
    __typeof__(nlopt_set_maxeval) *set_maxeval;
    __typeof__(nlopt_optimize) *optimize;
};
/* NULL: `why` says which library is missing and what installs it. */
const struct solvers *solvers_get(struct text *why);

/* ---- fit_forms.c ----------------------------------------------------------------------------- */

/* Minimises the sum of squared residuals by Levenberg-Marquardt from `c`, n_c coefficients. `row`
 * gives one point's residual and, where slopes is not NULL, its derivatives. False: no finite
 * result. */
typedef void residual_row(const struct point *p, const void *user, const double *c,
                          double *residual, double *slopes);
bool least_squares(const struct solvers *s, const struct point *points, int n, residual_row *row,
                   const void *user, double *c, int n_c, double *sum);

/* Which factors of a conditional form are fitted; the others are constant. */
struct factors {
    bool width, ratio;
};
/* Fits the shape term of `form` (not Chinchilla) to points with l_opt: a, b, or for Morph E, A, B,
 * alpha, morph_e. `near`, or NULL, is where to start: a fit of almost the same points. False: no
 * finite result, or too few points. */
bool fit_form(const struct solvers *s, enum law_form form, struct factors with,
              const struct point *points, int n, const struct law *near, struct law *out,
              double *objective);
/* Coefficients that `form` fits. */
int form_coefficients(enum law_form form, struct factors with);

/* ---- fit_chinchilla.c ------------------------------------------------------------------------ */

enum { CHINCHILLA_STARTS = 4500 };
/* Fits E, A, B, alpha, beta to n, d, loss of the points from all starts of the published grid or,
 * `near` given, from there alone. `*at_best` counts the starts that come within 0.1 % of the best.
 * False: no result that a law can hold. */
bool fit_chinchilla(const struct solvers *s, const struct point *points, int n,
                    const struct law *near, struct law *out, double *objective, int *at_best);
/* The Huber sum at these coefficients. */
double chinchilla_objective(const struct point *points, int n, const struct law *law);
/* The curve with as many terms as the points carry: 5 (all), 3 (E, A, alpha; B is 0: D follows N
 * in them), 2 (A, alpha), 1 (E). `terms` 0 chooses, else it is the number wanted. Returns the
 * number of terms, 0 where none works. */
int fit_curve(const struct solvers *s, const struct point *points, int n, int terms,
              const struct law *near, struct law *out);

/* ---- fit_points.c ---------------------------------------------------------------------------- */

bool is_conditional(enum law_form form); /* multiplicative, additive or joint */
/* The rows of `t` as points of the form, in order. False, and every row at fault in `why`, where
 * columns that the form needs are missing. r and x may be NaN where the table has none at all. */
bool points_new(struct arena *a, const struct runs *t, enum law_form form, struct point **out,
                struct text *why);
/* Sorts by group and numbers sizes and groups: equal texts of column `by`, or (NULL) N within 25 %
 * of the smallest; and in it D within 25 %. Returns the number of groups, -1 where there is no such
 * column or it has more than 1000 values. */
int points_group(const struct runs *t, const char *by, struct point *points, int n);
/* Of each group (sorted points) the shape with the lowest loss, repeats averaged: its loss becomes
 * l_opt of the whole group. `lowest`, or NULL, has room for n points; returns how many. */
int points_lowest(struct point *points, int n, struct point *lowest);
/* Marks as lonely the points of groups with less than 3 different shapes: their own loss would be
 * L_opt, and say that their shape is perfect. Returns how many are not. */
int points_lonely(struct point *points, int n);
/* Standard deviation of repeats about their means, NaN without repeats; `*shapes` counts them. */
double points_noise(const struct point *points, int n, int *shapes);
/* Spread: at least three values and the largest at least `ratio` times the smallest. */
bool points_vary(const struct point *points, int n, bool width, double ratio);
/* Rank correlation, ties given their mean rank. NaN for less than three values or no spread. */
double fit_spearman(struct arena *a, const double *x, const double *y, int n);

/* ---- fit.c ----------------------------------------------------------------------------------- */

struct law fit_blank(enum law_form form);
/* With p->l_opt where the form is conditional. */
double fit_predict(const struct law *law, const struct point *p);

#endif

/* runs.h - tables of training runs, and laws fitted to them. Part of law.h. */
#ifndef ARCHC_RUNS_H
#define ARCHC_RUNS_H

#include "../lang/lang.h"

/* ---- runs.c: a table of training runs -------------------------------------------------------- */

/* One run. NaN: not given and not to be had from the other columns. */
struct run {
    double d_model, layers, heads, kv_heads, head_dim, d_ff;
    double r;                 /* MLP parameters / attention parameters */
    double params;            /* N: matrices only */
    double total_params;      /* with embeddings and norms */
    double tokens, loss;      /* D; nats per token */
    const char *const *extra; /* n_extra texts, "" where empty */
    int line;                 /* of the file; in a table from memory its row, from 1 */
};
enum { MAX_RUNS = 100000, MAX_RUN_COLUMNS = 256 };
struct runs {
    struct arena *arena;
    const char *path; /* for messages */
    struct run *rows;
    int n, room;
    const char **extra_names; /* columns that the law does not know, kept by name */
    int n_extra;
    const char **notes; /* what was assumed where columns are missing, for the user */
    int n_notes;
};

/* An empty table. `extra_names` are copied. */
void runs_init(struct runs *t, struct arena *a, const char *path, const char *const *extra_names,
               int n_extra);
/* Adds a copy of `row` (its extra too) and derives what its columns determine: kv_heads = heads and
 * head_dim = d_model / heads where they are not given, then r and N. */
void runs_add(struct runs *t, const struct run *row);
/* Reads a CSV file with a header: columns by name, any order, several usual spellings; comments,
 * quotes, CRLF and a byte order mark are accepted. `columns`, or NULL, says which header stands for
 * which column: "params=HEADER,loss=HEADER". False: `why` holds whole lines, "file:12: error: ...".
 */
bool runs_read(struct arena *a, const char *path, const char *columns, struct runs *out,
               struct text *why);
/* The known columns that any row has, then the others. Reading it back gives the same table. */
void runs_write(const struct runs *t, FILE *out);
/* Keeps the rows that `condition` selects, or (keep = false) those that it does not:
 * COLUMN=VALUE[,VALUE..] or COLUMN=LO..HI. False: `why`, a sentence. */
bool runs_filter(const struct runs *t, const char *condition, bool keep, struct runs *out,
                 struct text *why);

/* ---- fit.c: a law from runs ------------------------------------------------------------------ */

/* Where the L_opt of a run comes from while a conditional form is fitted. */
enum fit_l_opt {
    FIT_LOWEST, /* the lowest loss observed at its (N, D): what the authors of the law do */
    FIT_CURVE,  /* a Chinchilla curve through the lowest losses */
    FIT_BASE    /* another law: fit_options.base */
};
struct fit_options {
    enum law_form form;
    enum fit_l_opt l_opt;
    const struct law *base; /* FIT_BASE: has E, A, B, alpha, beta; named in the written law */
    const char *group;      /* extra column whose equal texts are one size; NULL: N within 25 % */
    bool all_r;             /* keep runs with r outside 0.5..5 */
    int drop_highest;       /* leave out so many of the highest losses */
    int bootstrap;          /* refits of resampled runs, 0..5000; they become samples of the law */
    uint64_t seed;
    const char *holdout; /* runs_filter's condition: predicted, not fitted; or NULL */
    const char *name;    /* of the law */
    const char *date;    /* of the data; NULL: the latest of the column `date`, or not said */
};
struct fit_error { /* of predicted losses against observed ones */
    int n;
    double mse;      /* nats squared; NaN: nothing to predict */
    double spearman; /* of loss / L_opt; chinchilla: of the loss. NaN: not defined */
};
struct fit_value { /* with the 2.5 % and 97.5 % quantiles of the refits; NaN: none */
    double value, lo, hi;
    double share; /* of the refits that have a value: without a U there is no best x */
};
struct fit {
    struct law law; /* name, form, coefficients, fitted range, samples; base -1 */
    struct fit_options options;
    const struct runs *runs;
    int n_rows, n_high, n_outliers, n_used, n_held; /* rows, left out, fitted, held out */
    int n_lonely; /* of the fitted: only in the curve of L_opt, alone or in a pair at their (N, D)
                   */
    int n_groups; /* of one (N, D) */
    bool has_width, has_ratio; /* conditional forms: the factor was fitted; else it is constant */
    double objective; /* what was minimised: Huber sum (chinchilla), sum of squares (others) */
    struct fit_error fitted, held_out;
    double relative_rms; /* root mean square of (predicted - observed) / observed */
    double noise;        /* standard deviation of repeated shapes; NaN: none is repeated */
    int n_repeated;      /* shapes that are */
    struct fit_value best_x, best_r, best_loss; /* best_loss: the factor (addend) at both */
    struct fit_value E, A, B, alpha, beta, morph_e;
    int curve_terms; /* of L_opt in the law: 5, 3 (E, A, alpha), 2 (A, alpha), 1 (E); 0: base */
    int n_refits, n_refused; /* bootstrap: kept, and without a result that a law can hold */
    int n_starts, n_at_best; /* chinchilla: descents, and those within 0.1 % of the best */
    const char **notes;      /* for the user */
    int n_notes;
};
/* False: the runs are at fault, `why` holds whole lines; "archc: ..." where a solver is missing.
 * `t` and `a` must outlive `out`. The same table, options and seed give the same bits. */
bool fit_law(struct arena *a, const struct runs *t, const struct fit_options *o, struct fit *out,
             struct text *why);

/* Fit on the smaller sizes, predict the next: one step for each size but the first. Under
 * FIT_LOWEST the L_opt of the predicted runs is their own lowest loss, so the step tests the shape
 * term alone; with FIT_CURVE or FIT_BASE it is predicted as well. */
struct fit_step {
    double params_lo, params_hi, target; /* N fitted on; the mean N predicted */
    struct fit_error error;
    double best_x, best_r;
    bool fitted; /* false: `why` */
    const char *why;
};
/* Number of steps, at most `room`; -1 and `why` where there are less than two sizes. */
int fit_progressive(struct arena *a, const struct runs *t, const struct fit_options *o,
                    struct fit_step *steps, int room, struct text *why);

/* ---- fit_report.c: what a fit says ----------------------------------------------------------- */

void fit_print(const struct fit *f, FILE *out);
void fit_steps_print(const struct fit_step *steps, int n_steps, FILE *out);
/* A declaration of the law in the language, provenance in comments; the same bytes for the same
 * fit. */
void fit_write(const struct fit *f, FILE *out);

#endif

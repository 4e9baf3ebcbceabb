/* law.h - the conditional scaling law, the cost of a shape on a device, and the search over shapes.
 *
 * Source of the formulas: arXiv:2510.18245 (conditional law), arXiv:2203.15556 and arXiv:2404.10102
 * (Chinchilla and its refit), arXiv:2501.18107 (Morph). Sectioned by file; depends on lang/ only.
 */
#ifndef ARCHC_LAW_H
#define ARCHC_LAW_H

#include "../lang/lang.h"

/* ---- loss.c: the forms ----------------------------------------------------------------------- */

/* Irreducible and finite-size terms: E + A/N^alpha + B/D^beta, nats per token. */
double law_base_loss(const struct law *law, double params, double tokens);
/* The factor (multiplicative, joint, morph) or the addend (additive) of a shape:
 * x = d_model / sqrt(N), r = MLP / attention parameters, layers for Morph's d_model / layers. */
double law_shape_term(const struct law *law, double x, double r, double d_model_per_layer);
/* Whole prediction; l_opt is law_base_loss or what an observation pins it to. */
double law_loss(const struct law *law, double l_opt, double x, double r, double d_model_per_layer);
/* Its inverse: the L_opt under which that shape has this loss. */
double law_l_opt(const struct law *law, double loss, double x, double r, double d_model_per_layer);
/* Stationary points x* = a2/a1 and r* = b2/b1; NaN where the form has no minimum there. */
double law_best_x(const struct law *law);
double law_best_r(const struct law *law);
/* The law whose E, A, B, alpha, beta stand for `law`'s L_opt: itself or the nearest `base` that has
 * them. NULL: none, so that only an observation can give L_opt. */
const struct law *law_chinchilla(const struct spec *s, const struct law *law);

/* ---- builtin.arch: built-in laws and devices, in the language itself, each with its source --- */
extern const char law_prelude[]; /* NUL terminated text, embedded at build time */

/* ---- device.c: this machine ------------------------------------------------------------------ */

/* Measures this machine's limits (FMA peak, memory and cache bandwidth, barrier cost): about three
 * seconds. The efficiencies are constants, not measured. False: `why` says what failed. */
bool device_measure(struct device *out, const char **why);
/* Fills in `host` from the cache file ($XDG_CACHE_HOME or ~/.cache, archc/host.arch), measuring and
 * writing it first where it is absent or made on another CPU. */
bool device_host(struct arena *a, struct device *out, const char **why);
void device_print(const struct device *d, FILE *out); /* as a `device` declaration */

/* ---- cost.c: what a list of operations takes on a device ------------------------------------- */

/* Seconds. cost_op prices an operation as if its phase did nothing else (its own bytes are the
 * working set); cost_list prices a phase, whose weights and cache decide together what stays in
 * cache. The list must have been built with the same workload. */
double cost_op(const struct device *d, enum phase phase, const struct op *op,
               const struct workload *w);
double cost_list(const struct device *d, const struct op_list *l, const struct workload *w);
/* Operand types of a model served or trained on `d`: activations are fp32 on a CPU and wherever
 * fp32 weights are asked for, bf16 elsewhere. */
struct workload cost_serving(const struct device *d, const struct serve_spec *s);
struct workload cost_training(const struct device *d, const struct train_spec *t, int context);
/* Tokens/s of one training step of `a` (accumulation and optimiser included). */
double cost_train_rate(const struct device *d, const struct train_spec *t, const struct arch *a);

/* What evaluating the shapes of one model has in common. Devices must have their rates: see
 * spec_ready. */
struct pricing {
    const struct model_spec *model;
    const struct law *law;        /* NULL: none */
    const struct law *chinchilla; /* NULL: none */
    /* An observation pins L_opt to this value at these N and D; NaN: not pinned. */
    double pin, pin_params, pin_tokens;
    bool is_observed; /* the model whose observed loss pins the law: its loss is that */
    const struct device *serving, *training; /* NULL: none */
};
/* Fills in all but the pin, which needs the observed model's shape: pricing_pin. */
void pricing_init(struct pricing *p, const struct spec *s, const struct model_spec *m);
void pricing_pin(struct pricing *p, const struct arch *observed, double observed_tokens);
double pricing_l_opt(const struct pricing *p, double params, double total_params);
/* The metrics of `a` whose bits (1 << METRIC_*) are in `wanted`; the others are left alone. NaN
 * where a law or a device is missing. No allocation. */
void pricing_metrics(const struct pricing *p, const struct arch *a, unsigned wanted,
                     double metrics[METRIC_COUNT]);
enum { ALL_METRICS = (1 << METRIC_COUNT) - 1 };
/* All metrics of `a` as `m` trains and serves it. */
void cost_metrics(const struct spec *s, const struct model_spec *m, const struct arch *a,
                  double metrics[METRIC_COUNT]);

/* ---- search.c: the exact candidate set, the requirements, the objective ---------------------- */

struct candidate {
    struct arch arch;
    double metrics[METRIC_COUNT];
};

struct requirement {
    const struct goal *goal;
    double lhs, rhs; /* of the best candidate; where there is none, of nearest[i] */
    bool satisfied;
    double margin; /* >= 0 where satisfied, in units of the left side */
};

enum { MAX_RUNNERS = 5 };

struct resolution {
    const struct model_spec *model;
    struct pricing pricing; /* with which every candidate was evaluated */
    struct candidate best;
    bool found;
    struct requirement *requirements;
    int n_requirements;
    int64_t n_candidates, n_feasible;
    const char *objective;                 /* "maximize throughput", or "" */
    struct candidate runners[MAX_RUNNERS]; /* the next best, best first */
    int n_runners;
    const char **warnings;
    int n_warnings;
    /* Not found: the requirement that binds, -1 where the candidate set itself is empty, and for
     * each requirement the candidate that misses it least while it keeps all the others; layers 0:
     * there is none. */
    int binding;
    struct candidate *nearest; /* n_requirements */
    /* The candidate set is empty: the shape closest to the spec; layers 0: there is none. */
    struct arch outside;
};

/* A copy of the spec in which `host` has this machine's rates, measured where they are not yet
 * known. Costs nothing where no model refers to it. A machine that cannot be measured leaves the
 * rates at 0 and `*why` set, else NULL. resolve() does this itself. */
void spec_ready(struct arena *a, const struct spec *in, struct spec *out, const char **why);

/* Enumerates every integer shape of the model's domains and chooses. Deterministic. Models that the
 * goals refer to are resolved first. False where the spec itself is at fault (diagnosed in `d`);
 * no feasible candidate is `found` = false, not an error of this function. `s` and `a` must outlive
 * `out`. */
bool resolve(struct arena *a, const struct spec *s, int model, struct diags *d,
             struct resolution *out);

/* Calls each(user, c) for every candidate of a resolved model in a fixed order, with the metrics of
 * `wanted` evaluated, whether or not it meets the requirements. False: diagnosed in `d`. */
bool search_each(struct arena *a, const struct resolution *r, unsigned wanted, struct diags *d,
                 void (*each)(void *user, const struct candidate *c), void *user);

/* ---- shapes.c: the integers in the domains of a model's knobs -------------------------------- */

/* Integers of one knob: a list, or lo, lo + step, .. hi. */
struct integers {
    const int *list;
    int n;
    int64_t lo, hi, step;
};

/* What to enumerate: see shapes_init. */
struct shapes {
    struct arch fixed; /* what no knob varies */
    struct integers layers, head_dim, d_model, gqa, heads, kv_heads, d_ff;
    double r_lo, r_hi;       /* realised r within; 0, infinity: anything */
    const double *r_targets; /* or: per d_model and group the realised r nearest to each of these */
    int n_r_targets;
    double params, params_lo, params_hi; /* realised N within */
    bool any_free;                       /* some knob is `free` */
    bool head_dim_assumed;
};

/* Domains of `m`, defaults filled in: bare `free` takes the fitted range of `law` (NULL: r 0.5..5
 * and d_model within 0.02..0.16 sqrt(params)), group at most 16, d_model a multiple of 64, d_ff of
 * 128. False where they do not bound the set (diagnosed in `d`). */
bool shapes_init(struct arena *a, const struct model_spec *m, const struct law *law,
                 struct diags *d, struct shapes *out);
/* Calls each(user, arch) in ascending layers, head_dim, d_model, gqa, kv_heads, d_ff. Stops where
 * it returns false, and then returns false itself. */
bool shapes_each(const struct shapes *s, bool (*each)(void *user, const struct arch *a),
                 void *user);

/* ---- report.c: what resolve, explain and frontier print -------------------------------------- */

/* "2.8031", "12,646 tok/s", "1.23 GB"; "unknown" for NaN. */
enum { METRIC_TEXT = 48 };
const char *metric_text(char buffer[METRIC_TEXT], enum metric m, double value);
/* "16 layers, d_model 2560, 36/4 heads of 64 (gqa 9), d_ff 6144" */
enum { SHAPE_TEXT = 128 };
const char *shape_text(char buffer[SHAPE_TEXT], const struct arch *a);

void resolution_print(const struct resolution *r, FILE *out);
/* The object of the manual; architecture and metrics are null where nothing was found. */
void resolution_json(const struct resolution *r, FILE *out);
/* Why nothing was found, and the nearest candidate for each requirement given up. */
void resolution_infeasible(const struct spec *s, const struct resolution *r, FILE *out);

/* ---- plot.c --------------------------------------------------------------------------------------- */

/* Runs gnuplot on `script`, a file that it may read from the start, and appends the picture to `svg`.
 * False: `*why`. */
bool plot_svg(FILE *script, FILE *svg, const char **why);

/* ---- explain.c, frontier.c ------------------------------------------------------------------- */

/* Both resolve the model first. False: the spec is at fault, diagnosed in `d`. No feasible
 * candidate:
 * `*found` is false and `out` has what resolution_infeasible prints. */
bool explain(struct arena *a, const struct spec *s, int model, struct diags *d, FILE *out,
             bool *found);
/* The loss/throughput Pareto front of the candidate set, requirements aside: a table to `out`, all
 * of it to `csv`, a plot to `svg`; each may be NULL. `*why` is set where the plot could not be made
 * (no gnuplot), NULL else: the world's failure, with the table and the CSV written all the same. */
bool frontier(struct arena *a, const struct spec *s, int model, struct diags *d, FILE *csv,
              FILE *svg, FILE *out, const char **why);

#endif

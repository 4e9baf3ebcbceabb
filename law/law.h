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

/* ---- price.c: what the kernels of an operation reach ----------------------------------------- */

enum price_unit { UNIT_MATRIX, UNIT_ATTENTION, UNIT_VECTOR };
struct price_row {
    enum price_unit unit;
    double rate; /* of the arithmetic that the unit's best kernels reach on the device */
    /* In these phases (bits) a neighbour's kernel does it: its arithmetic hides behind the
     * neighbour's, and only `residue` of its activation traffic remains. */
    unsigned fused;
    double residue;
    double stream;  /* of the bandwidth that streaming reaches on the device */
    int passes;     /* launches */
    double exposed; /* part of a launch that its predecessor does not hide */
};
struct price_row price_row(const struct device *d, enum phase phase, const struct op *op);
bool device_is_cpu(const struct device *d);

/* ---- cost.c: what a list of operations takes on a device ------------------------------------- */

struct price {
    double flops, bytes;
    double floor;   /* s: the longer of FLOPs over the peak and bytes over what streaming reaches */
    double seconds; /* expected */
};
void price_add(struct price *sum, const struct price *more);
struct price price_times(const struct price *x, double factor);
/* A phase, whose weights and cache decide together what stays in cache, and each operation's part
 * of it (where `each` is not NULL). The list must have been built with the same workload. What the
 * search ranks by and what a plan's kernels are priced at are both this. */
struct price cost_each(const struct device *d, const struct op_list *l, const struct workload *w,
                       struct price each[]);
/* FLOP/s of the matrix units with the operands of `w`. */
double cost_matrix_peak(const struct device *d, enum phase phase, const struct workload *w);
/* Seconds. cost_op prices an operation as if its phase did nothing else. */
double cost_op(const struct device *d, enum phase phase, const struct op *op,
               const struct workload *w);
double cost_list(const struct device *d, const struct op_list *l, const struct workload *w);
/* Operand types of a model served or trained on `d`: activations are fp32 on a CPU and wherever
 * fp32 weights are asked for, bf16 elsewhere. */
struct workload cost_serving(const struct device *d, const struct serve_spec *s);
struct workload cost_training(const struct device *d, const struct train_spec *t, int context);
/* The prompts of a workload, as a program takes them. On a GPU one after the other, each in calls
 * of at most GPU_PROMPT_ROWS tokens that see all keys of those before them; logits are made behind
 * the last. On a CPU as one list. */
enum { GPU_PROMPT_ROWS = 4096 };
struct price cost_prompts(const struct device *d, const struct arch *a, const struct workload *w);
/* One training step of `a` (accumulation and optimiser included), and its tokens/s. FLOPs are those
 * of the model's own products. */
struct price cost_train_step(const struct device *d, const struct train_spec *t,
                             const struct arch *a);
/* Bytes of parameters, gradients, moments, activations; at the level that cost_recompute gives: the
 * spec's own, or where it leaves that open (auto) the least with which a GPU's memory is enough, or
 * most saving if none is. A CPU's memory is not asked. */
double cost_train_memory(const struct device *d, const struct train_spec *t, const struct arch *a);
double cost_train_memory_at(const struct device *d, const struct train_spec *t,
                            const struct arch *a, enum recompute level, enum logits form);
enum recompute cost_recompute(const struct device *d, const struct train_spec *t,
                              const struct arch *a);
/* Whether a GPU writes logits, in chunks: the spec's own, or (auto) as long as memory holds a chunk
 * at that level. */
enum logits cost_logits(const struct device *d, const struct train_spec *t, const struct arch *a);
double cost_value_width(const struct arch *a, enum value v); /* elements of a row */
double cost_train_rate(const struct device *d, const struct train_spec *t, const struct arch *a);

/* What evaluating the shapes of one model has in common. Devices must have their rates: see
 * spec_ready. */
struct pricing {
    const struct model_spec *model;
    const struct law *law;        /* NULL: none */
    const struct law *chinchilla; /* NULL: none */
    /* An observation pins L_opt to this value at these N and D; NaN: not pinned. */
    double pin, pin_params, pin_tokens;
    struct arch observed; /* the shape that was pinned to */
    bool is_observed;     /* the model whose observed loss pins the law: its loss is that */
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

/* ---- phases.c: a shape's phases, priced ------------------------------------------------------ */

struct phase_price {
    const char *name; /* "decode", "prefill", "train" */
    const char *device;
    int sequences;
    double behind;            /* cached tokens in front of each */
    double tokens;            /* that it makes or takes, all sequences together */
    double mfu;               /* training: part of the matrix units' peak; NaN elsewhere */
    enum recompute recompute; /* training: what backward makes again */
    enum logits logits;       /* training: whether they are written */
    struct price price;
};
enum { PHASE_PRICES = 4 };
struct phase_prices {
    struct phase_price at[PHASE_PRICES];
    int n;
};
/* Decode of one sequence, of the batch, its prefill, a training step, of which there are as many as
 * there are devices for. */
void pricing_phases(const struct pricing *p, const struct arch *a, struct phase_prices *out);

/* ---- samples.c: a law's samples, and the loss of a shape under each of them ------------------ */

/* More are not looked at. */
enum { SAMPLES_MAX = 2000 };

/* The law with the coefficients of its sample i (modulo their number); without samples, itself. */
struct law law_sampled(const struct law *law, int i);
/* Whether the law or the one that gives its L_opt has samples. */
bool pricing_is_sampled(const struct pricing *p);
/* The loss of `a` under sample i of all laws concerned, a pinned L_opt pinned anew: the definition,
 * for a few shapes. The same in bulk, for n samples (at most SAMPLES_MAX): fastest near `params`,
 * which must be the same where losses of two models are compared to the last bit. */
double pricing_sampled_loss(const struct pricing *p, int i, const struct arch *a);
struct sampled_law *sampled_law_new(struct arena *a, const struct pricing *p, int n, double params);
void sampled_losses(const struct sampled_law *l, const struct arch *a, double *loss);
/* The same where no integer shape stands: what the law reads of one. */
struct law_point {
    double params, total_params, x, r, d_model_per_layer;
};
void sampled_losses_at(const struct sampled_law *l, const struct law_point *at, double *loss);

/* The smallest values that 5 % and 95 % of the samples do not exceed. NaN: not known. */
struct interval {
    double lo, hi;
};
struct interval interval_of(double *values, int n); /* reorders; leaves out what is not finite */

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
    double share;  /* of the law's samples under which it holds; NaN: no sample bears on it */
    struct interval margins;
};

enum { MAX_RUNNERS = 15, SHOWN_RUNNERS = 5 };

/* A shape beside the chosen one. */
struct rival {
    struct candidate candidate;
    double chosen; /* share of the samples whose own choice it is */
    double wins;   /* share of the samples under which it is to be preferred to the chosen one */
    struct interval difference; /* its loss less that of the chosen one */
};

/* What the samples of the laws say of a choice. */
struct sureness {
    int n;                             /* samples */
    struct interval loss;              /* of the chosen shape */
    struct interval knobs[KNOB_COUNT]; /* of the shapes that the samples themselves choose */
    double same;                       /* share of the samples that choose the chosen shape */
    double none;                       /* share of them that find no candidate */
    struct rival runners[MAX_RUNNERS]; /* in the order of resolution.runners */
    int n_runners;
    struct rival *often; /* the shapes that samples choose, most often chosen first */
    int n_often;         /* of which this many were compared with the chosen one */
    int distinct;        /* and this many there are */
};

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
    const struct search *search; /* how it was found: resolution_judge */
    const char *measured;        /* an object that resolution_json adds as "measured", or NULL */
    const struct sureness *sure; /* NULL: no sample bears on the choice, or resolve_point */
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

/* The same without asking the samples about the choice: for searches that only compare. A
 * requirement with a confidence is judged by them all the same; n_feasible is then not the whole
 * number. */
bool resolve_point(struct arena *a, const struct spec *s, int model, struct diags *d,
                   struct resolution *out);

/* What requirement i says of a candidate whose metrics are given, measured ones perhaps. */
void resolution_judge(const struct resolution *r, const struct candidate *c, int i,
                      struct requirement *out);

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

bool same_shape(const struct arch *a, const struct arch *b);
/* "2.7990..2.8104" */
const char *interval_text(char buffer[METRIC_TEXT], struct interval i, int decimals);

void resolution_print(const struct resolution *r, FILE *out);
/* The object of the manual; architecture and metrics are null where nothing was found. */
void resolution_json(const struct resolution *r, FILE *out);
/* Why nothing was found, and the nearest candidate for each requirement given up. */
void resolution_infeasible(const struct spec *s, const struct resolution *r, FILE *out);

/* ---- plot.c ---------------------------------------------------------------------------------- */

/* Runs gnuplot on `script`, a file that it may read from the start, and appends the picture to
 * `svg`. False: `*why`. */
bool plot_svg(FILE *script, FILE *svg, const char **why);

/* A text as a string of gnuplot's, quotes included: 'it''s'. */
void plot_string(FILE *script, const char *text);

/* Terminal and style that all pictures share: `set terminal svg ...` with no background, so that a
 * page's own shows; grid and line styles 1 (blue), 2 (red), 3 (grey), 4 (green), 5 (orange). */
void plot_begin(FILE *script, int width, int height);

/* ---- html.c: one self-contained page, for reports -------------------------------------------- */

/* Light, dark and printed; no script, nothing fetched. Texts are escaped here: pass them raw. */
struct html {
    FILE *out;
    int figures;
    int columns;      /* of the open table */
    unsigned numbers; /* bit i: column i holds numbers, set to the right */
};
void html_open(struct html *h, FILE *out, const char *title, const char *lead /* or NULL */);
void html_section(struct html *h, const char *title);
void html_paragraph(struct html *h, const char *format, ...) __attribute__((format(printf, 2, 3)));
void html_warning(struct html *h, const char *text);
void html_code(struct html *h, const char *text, size_t length); /* a file, a log */
/* A table of n columns (at most 32), then rows of n texts (NULL: empty), then its end. */
void html_table(struct html *h, const char *caption /* or NULL */, const char *const *heads, int n,
                unsigned numbers);
void html_row(struct html *h, bool marked, const char *const *text);
void html_table_end(struct html *h);
/* Runs gnuplot on `script` (see plot_begin) and sets the picture into the page. False: `*why` (no
 * gnuplot), and the page says so in the picture's place. */
bool html_figure(struct html *h, FILE *script, const char *caption, const char **why);
void html_close(struct html *h, const char *footer);
/* Escaped for HTML; what is not UTF-8, and control characters, become U+FFFD. */
void html_escape(FILE *out, const char *text, size_t length);

/* ---- insight.c: what there is to say about a choice ------------------------------------------ */

/* A shape with a name: another model of the file. */
struct named {
    const char *name;
    struct candidate candidate;
    bool baseline; /* a goal of the model reads it */
};

/* The law's loss over one knob, N and the other knob held. */
enum { CURVE_POINTS = 121 };
struct curve {
    enum knob knob;   /* KNOB_D_MODEL, KNOB_R */
    const char *held; /* "r = 4.9" */
    double lo, hi;    /* points are spaced by the knob's logarithm */
    double chosen, loss_chosen;
    double best;           /* where the law's minimum lies; NaN: nowhere */
    double fit_lo, fit_hi; /* fitted range; NaN: not stated */
    double at[CURVE_POINTS], loss[CURVE_POINTS];
    /* 5 % and 95 % of the samples: the difference from the chosen shape, laid onto its loss, so
     * that what all shapes have in common is left out. NaN: no samples. */
    double low[CURVE_POINTS], high[CURVE_POINTS];
    struct interval picks; /* of the shapes that the samples choose */
};

/* The best choice at each value of an integer knob that is free. */
struct profile {
    enum knob knob;
    struct candidate *at; /* n, by ascending knob; layers 0: nothing is feasible there */
    double *value;
    int n;
};

/* What moving the bound of a requirement does to the objective. */
enum { TRADE_STEPS = 4 };
extern const double trade_steps[TRADE_STEPS]; /* parts of the bound: -1, -0.1, 0.1, 1 percent;
                                                 positive relaxes */
struct trade {
    const struct requirement *requirement;
    bool binds;                       /* without it the choice is another */
    struct candidate at[TRADE_STEPS]; /* layers 0: nothing is feasible */
    struct candidate dropped;         /* layers 0: it does not bind, or nothing is feasible */
    double rate; /* percent of the objective for one percent of the bound, over that percent */
};

/* The fastest candidate within a loss, requirements aside. */
enum { RATES = 5 };
struct exchange {
    double step[RATES], budget[RATES]; /* a part of the chosen loss; the loss */
    struct candidate best[RATES];      /* layers 0: out of reach */
};

struct insight {
    const struct spec *spec; /* ready: see spec_ready */
    int model;
    struct resolution resolution; /* nothing below is set where it found nothing */
    enum metric objective;        /* what the choice is the best in */
    struct curve curves[2];
    int n_curves;
    struct profile profiles[KNOB_COUNT];
    int n_profiles;
    struct trade *trades; /* a requirement; n_requirements, 0 where nothing is to be chosen */
    int n_trades;
    struct exchange exchange;
    bool has_exchange;
    struct named *named;
    int n_named;
};
/* False: the spec is at fault, diagnosed in `d`. */
bool insight_build(struct arena *a, const struct spec *s, int model, struct diags *d,
                   struct insight *out);
/* Only the resolution and the other models. */
bool insight_others(struct arena *a, const struct spec *s, int model, struct diags *d,
                    struct insight *out);
/* The best choice of a model with one integer knob at one value. False: nothing is feasible. */
bool insight_best_at(struct arena *a, const struct spec *s, int model, enum knob k, double value,
                     struct candidate *best);
double knob_value(const struct arch *a, enum knob k);

/* ---- frontier.c: the shapes that none beats in both loss and throughput ---------------------- */

/* What is kept of a candidate; the rest of its arch is the same for all. */
struct front_point {
    double loss, throughput;
    int64_t params;
    int layers, d_model, heads, kv_heads, head_dim, d_ff;
    const char *name; /* another model of the file with this very shape, or NULL */
};
struct front {
    const struct resolution *resolution;
    const struct named *named;
    int n_named;
    struct front_point *all, *best; /* candidates by ascending loss; those that none beats */
    size_t n_all, n_best;
};
/* False: diagnosed in `d`, or `*why`: out of memory. Release with front_free in any case. */
bool front_build(struct arena *a, const struct resolution *r, const struct named *named,
                 int n_named, struct diags *d, struct front *out, const char **why);
void front_free(struct front *f);

/* ---- figures.c: gnuplot's view of them; no terminal is set (plot_begin) ---------------------- */

void figure_curve(const struct curve *c, const struct insight *i, FILE *script);
void figure_profile(const struct profile *p, const struct insight *i, FILE *script);
void figure_front(const struct front *f, FILE *script);

/* ---- explain.c, frontier.c, page.c: the commands --------------------------------------------- */

/* Each resolves the model first. False: the spec is at fault, diagnosed in `d`. `*why` is set where
 * a plot could not be made (no gnuplot), NULL else: the world's failure, with all else written.
 * Files may be NULL. */

/* Text to `out`; curves, profiles and prices of requirements as CSV and as a picture. No feasible
 * candidate: `*found` is false and `out` has what resolution_infeasible prints. */
bool explain(struct arena *a, const struct spec *s, int model, struct diags *d, FILE *csv,
             FILE *svg, FILE *out, bool *found, const char **why);
/* The loss/throughput Pareto front of the candidate set, requirements aside: a table to `out`, all
 * of it to `csv`, a plot to `svg`. */
bool frontier(struct arena *a, const struct spec *s, int model, struct diags *d, FILE *csv,
              FILE *svg, FILE *out, const char **why);
/* Everything above as one HTML page. */
bool report(struct arena *a, const struct spec *s, int model, struct diags *d, FILE *html,
            bool *found, const char **why);

#include "runs.h" /* runs.c, fit.c: tables of runs, and laws fitted to them */

#endif

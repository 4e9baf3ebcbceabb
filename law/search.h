/* search.h - what the search over one model is made of: search.c, judge.c, sure.c. */
#ifndef ARCHC_LAW_SEARCH_H
#define ARCHC_LAW_SEARCH_H

#include "law.h"

#include <stdint.h>

enum progress { NOT_YET, IN_PROGRESS, DONE, FAILED };

/* The models resolved so far. */
struct resolver {
    struct arena *arena;
    const struct spec *spec; /* ready */
    const char *host_why;    /* why `host` has no rates */
    struct diags *diags;
    struct resolution *done; /* a model */
    enum progress *progress;
    int wanted; /* the model whose choice the samples are asked about, or -1 */
    /* Samples of the laws in use, 0: none has any. One sample is drawn for all laws together, so
     * that errors which two models share cancel where their losses are compared. */
    int n_samples;
    double params;                /* near which their losses are wanted */
    struct sampled_law **sampled; /* a model: made on demand */
    double **losses;              /* a model: of its choice under each sample, made on demand */
};

enum order { ORDER_METRIC, ORDER_NEAREST_PARAMS, ORDER_NONE };

/* The search over one model. */
struct search {
    struct resolver *resolver;
    int model;
    struct resolution *out;
    struct shapes shapes;
    enum order order;
    enum metric metric;
    double sign; /* the key to be minimised is sign * metric */
    unsigned cheap, dear, objective;
    unsigned *reads;           /* a requirement: metrics of its own that it reads */
    bool *unsure;              /* a requirement: it reads a loss that has samples */
    double *missed;            /* a requirement: by how much nearest[i] misses it */
    double *loss, *difference; /* n_samples each: room for one candidate */
    bool confident;            /* some requirement asks for a share of the samples */
    bool overflow;
};

/* ---- judge.c: what the goals say of one candidate -------------------------------------------- */

/* Metrics of `model` itself that an expression reads. */
unsigned own_metrics(const struct expr *e, int model);
/* Whether it reads a loss that its law gives with samples, of any model; those other than
 * x->model must have been resolved. */
bool reads_unsure_loss(const struct search *x, const struct expr *e);
/* Whether the law that gives model's loss, or the one that gives its L_opt, has samples. */
bool model_is_sampled(const struct resolver *s, int model);
/* The candidate's loss under each sample. */
void search_losses(const struct search *x, const struct arch *a, double *loss);
/* Judges requirement i: at the point estimate, or at the share of samples that its goal asks for.
 * Its margin is then the one that this share of the samples reaches, where it matters to the
 * search: 0 where it is met, -infinity where it is missed and a candidate has been found. */
void judge(const struct search *x, const struct candidate *c, int i, struct requirement *out);
/* As judge, with the margin in any case, and the share of samples and the interval of the margin
 * where they are known. */
void judge_fully(const struct search *x, const struct candidate *c, int i, struct requirement *out);
/* margin[i] of requirement `g` under sample i, the candidate's own losses given. */
void sampled_margins(const struct search *x, const struct candidate *c, const struct goal *g,
                     const double *loss, double *margin);

/* ---- search.c -----------------------------------------------------------------------------------
 */

/* What the best candidate has least of. */
double search_key(const struct search *x, const struct candidate *c);
/* Ties of the key: fewer parameters, smaller d_model, fewer heads; then whatever makes the order
 * total. */
bool shape_before(const struct arch *p, const struct arch *q);
void search_warn(struct resolver *s, struct resolution *r, const char *text);

/* ---- sure.c -------------------------------------------------------------------------------------
 */

/* After the choice: what the samples would have chosen, and warnings where that matters. Nothing
 * where no sample bears on it. */
void search_sure(struct search *x);

#endif

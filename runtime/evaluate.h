/* evaluate.h - the loss of a stretch of data, in windows. */
#ifndef EVALUATE_H
#define EVALUATE_H

#include "data.h"

struct loss_sum {
    double nats;    /* summed over targets */
    int64_t tokens; /* targets */
    int64_t bytes;  /* of text they stand for; -1: not known */
};
double loss_mean(const struct loss_sum *l);
double loss_bits_per_byte(const struct loss_sum *l); /* NaN where bytes are not known */

/* Memory for B x T forward passes; params are borrowed, and may change between calls. */
struct evaluator {
    const struct archrt_model *model;
    const float *params;
    void *work; /* work_bytes; shared with training, which does not run meanwhile */
    const float *rope;
    int32_t *token, *target; /* [B T] */
    float *loss;
};
void evaluator_open(struct evaluator *e, const struct archrt_model *m, const float *params,
                    void *work, const float *rope);
void evaluator_close(struct evaluator *e);

/* A stretch [begin, begin + tokens), cut into windows of `length` inputs that start every `stride`
 * tokens; each token but the first is predicted once, by the first window that reaches it, from at
 * least length - stride tokens before it (fewer only at the beginning). */
struct stretch {
    uint64_t begin, tokens;
    int length, stride;
};
uint64_t stretch_windows(const struct stretch *s);
struct window {
    uint64_t start; /* inputs start .. start + inputs, targets one behind */
    int inputs;
    int counted; /* the first input whose target counts here */
};
struct window stretch_window(const struct stretch *s, uint64_t i);

/* Adds up the loss over `most` windows spread evenly over the stretch, or all of them where there
 * are fewer or most is 0. */
bool evaluate(struct evaluator *e, struct data *d, const struct stretch *s, uint64_t most,
              struct loss_sum *out, struct failure *f);

#endif

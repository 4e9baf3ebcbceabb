/* train.h - what the three files of training share: the plan (train_plan.c), the report
 * (train_report.c) and the loop (train.c). */
#ifndef TRAIN_H
#define TRAIN_H

#include <jansson.h>

#include "checkpoint.h"
#include "evaluate.h"
#include "options.h"

/* ---- train_plan.c -------------------------------------------------------------------------------
 */

enum { PLAN_OPTIONS = 32 };

/* How a run is to go. Each number comes from the command line, else from the checkpoint that is
 * resumed, else from the spec or a default. */
struct plan {
    struct texts data, val;
    const char *tokenizer, *out, *weights;
    bool resume, quiet;
    double val_fraction;
    int64_t steps;  /* 0: no limit by steps */
    int64_t tokens; /* --tokens; becomes steps */
    double seconds; /* 0: no limit by time */
    double lr, warmup, final_lr, decay, clip, beta1, beta2, eps;
    int64_t accumulate, seed, eval_every, eval_batches, save_every, keep;
    bool given[PLAN_OPTIONS]; /* on the command line, by place in the table of options */
};

/* Reads argv. OPTIONS_WRONG: `f` says what. */
enum options_result plan_read(struct plan *p, const struct archrt_model *m, int argc, char **argv,
                              struct failure *f);
/* Takes over from the state of a checkpoint what the command line did not give. */
bool plan_resume(struct plan *p, json_t *state, struct failure *f);
/* Settles steps and warm-up; fails where nothing says how long to train. */
bool plan_settle(struct plan *p, const struct archrt_model *m, struct failure *f);
json_t *plan_state(struct plan *p); /* what plan_resume reads; new reference */
/* The learning rate of the step that follows `done` steps and `elapsed` seconds: linear warm-up,
 * then a cosine down to final_lr of the peak. Under a time limit it follows the clock where that is
 * further than the steps. */
double plan_lr(const struct plan *p, int64_t done, double elapsed);

/* ---- train_report.c
 * ------------------------------------------------------------------------------ */

struct step_facts {
    int64_t step, tokens; /* done, this step included */
    double loss, lr, grad_norm, seconds;
    double val_loss, val_bits; /* NaN: not evaluated */
};

struct report {
    bool quiet, terminal;
    double peak;            /* FMA peak of this machine, FLOP/s; 0: not measured */
    double flops_per_token; /* of training */
    double shown_at, started, smooth_loss, val_bits, val_loss;
    int64_t first_step, first_tokens;
    double paused; /* seconds spent on evaluation and checkpoints since the start */
    bool line_open;
    int metrics; /* file descriptor, -1: none */
    char *metrics_path;
    bool metrics_failed;
};

/* Opens OUT/metrics.jsonl and drops the lines behind `step`, which a resumed run writes again. */
bool report_open(struct report *r, const struct plan *p, const struct archrt_model *m, int64_t step,
                 int64_t tokens, struct failure *f);
/* A line of metrics, and the progress line or now and then a plain one. */
void report_step(struct report *r, const struct plan *p, const struct step_facts *s);
/* An ordinary line in between. */
void report_say(struct report *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
void report_break(struct report *r); /* ends the progress line, if one is open */
void report_sync(struct report *r);  /* metrics reach the disk */
void report_close(struct report *r);

#endif

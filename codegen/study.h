/* study.h - what the parts of `archc study` know of each other. A study is a list of training runs;
 * each is known by what decides its result, so that a run that was made is never made again. */
#ifndef ARCHC_STUDY_H
#define ARCHC_STUDY_H

#include "driver.h"

#include "../law/runs.h"

enum study_stage {
    STAGE_GRID,   /* width and ratio at the sizes the law is fitted on */
    STAGE_GROUPS, /* gqa at the best shape of the largest of them */
    STAGE_FINAL,  /* the models the law chose, and the baseline, at the last size */
};

/* One training run: one shape, one seed. */
struct study_run {
    struct arch arch; /* its name says the shape: "d56_h4_k2_f80" */
    enum study_stage stage;
    const char *role;    /* "grid", "centre", "gqa", "panda", "surefire", "baseline" */
    double size, tokens; /* nominal */
    double lr;
    int seed;
    bool done;
    double loss, bits; /* nats a token, bits a byte of held-out text */
    double seconds;    /* of training, alone on its thread */
};

struct study {
    struct driver *driver;
    const struct study_spec *spec;
    struct arena *arena;
    const char *dir, *data, *validation; /* whole paths; validation may be NULL */
    double data_bytes, held_out_bytes;
    char recipe[17];        /* of the data and of all training settings that a run does not hold */
    struct study_run *runs; /* in the order in which they are started */
    struct study_run *strays; /* rows of an earlier schedule, kept */
    int n_runs, n_strays, jobs;
    int lock; /* open and locked while archc is at work in `dir` */
    bool terminal;
    struct device core; /* what one job computes on; no rates: not known */
};

/* ---- study_shapes.c: from points of a grid to integers -------------------------------------- */

/* The shape whose realised x, r and N come nearest to those wanted. False: none within tolerance.
 */
bool study_shape(const struct study *s, double params, double x, double r, int gqa,
                 struct arch *out);
/* LLaMA 3.2 1B's proportions at this size: r 4.8, d_model as wide as its heads together. */
bool study_baseline(const struct study *s, double params, struct arch *out);
/* Adds a run unless it is there. */
void study_add(struct study *s, const struct study_run *run);
/* The runs of the grid. False: said which point has no shape. */
bool study_schedule_grid(struct study *s);
double study_lr(const struct study *s, double size);
/* Seconds that a run should take alone on one thread; NaN where the machine is not known. */
double study_predict(const struct study *s, const struct study_run *run);
/* The model that a run trains, as the language would declare it. */
struct model_spec study_model(const struct study *s, const struct arch *a);

/* ---- study_table.c: runs.csv ------------------------------------------------------------------
 */

/* Takes results of DIR/runs.csv where it is there. False: said what is wrong with it. */
bool study_table_read(struct study *s);
/* Replaces it; a kill at any instant leaves the one before. False: said why. */
bool study_table_write(const struct study *s);
bool study_same_run(const struct study_run *a, const struct study_run *b);

/* ---- study_train.c: processes ------------------------------------------------------------------
 */

/* Trains what is not done, `jobs` at once, and writes the table after each run. An exit status; 0:
 * all are done. */
int study_train(struct study *s);
/* The directory of one run: DIR/runs/SHAPE-TOKENS-sSEED-SETTINGS. */
const char *study_run_dir(const struct study *s, const struct study_run *run);
/* One line of what went wrong, as all of archc's. An exit status. */
int study_world(const char *what, const char *path);

/* ---- study_law.c: what the runs say, and the models that follow -------------------------------
 */

enum { STUDY_FORMS = LAW_MORPH + 1, STUDY_STEPS = 16 };
struct study_form {
    struct fit *fit; /* NULL: `why` */
    const char *why;
    struct fit_step steps[STUDY_STEPS]; /* each size predicted from the smaller ones */
    int n_steps;
};

/* A model of the last size. */
struct study_choice {
    const char *name; /* as in models.arch: "baseline", "panda", "surefire" */
    bool found;
    struct arch arch;
    double predicted;       /* loss, by the law */
    struct interval within; /* of it, by the law's samples */
    double throughput;      /* tokens/s, by the cost model; NaN: not known */
    int seeds;              /* observed: how many runs, their mean and standard deviation */
    double mean, deviation;
    double prefill, decode, measured; /* tokens/s; NaN: not measured */
    double spread;                    /* largest less smallest of the rounds, over the median */
};
enum { CHOICE_BASELINE, CHOICE_PANDA, CHOICE_SUREFIRE, CHOICES };

struct study_law {
    struct runs table; /* of the grid */
    struct study_form forms[STUDY_FORMS];
    const struct fit *fit; /* the multiplicative one, by which models are chosen */
    double best_x, best_r; /* where it is lowest within what was tried */
    struct spec spec;      /* of models.arch */
    struct study_choice choices[CHOICES];
    double load; /* of the machine before anything was measured: other work */
};

/* Fits every form to the grid and writes DIR/STUDY.law. An exit status. */
int study_fit(struct study *s, struct study_law *l);
/* Writes DIR/models.arch, resolves its models and adds their runs and those of the sweep over gqa.
 */
int study_choose(struct study *s, struct study_law *l);
/* Means over seeds, once the runs are made. */
void study_observe(const struct study *s, struct study_law *l);
/* A shape's loss and throughput as models.arch would have them. */
void study_metrics(const struct study_law *l, const struct arch *a, double metrics[METRIC_COUNT]);
/* Standard deviation of repeated runs at one size, pooled over their shapes; NaN: none is repeated.
 */
double study_noise(const struct study *s, double size, int *repeated);
const char *study_law_name(const struct study *s);
const char *study_size_text(const struct study *s, double size); /* "140K" */

/* ---- study_bench.c
 * ------------------------------------------------------------------------------- */

/* Builds DIR/baseline, DIR/panda and DIR/surefire and measures them in turn, unless --rounds 0. */
int study_bench(struct study *s, struct study_law *l);

/* ---- study_report.c
 * ------------------------------------------------------------------------------ */

/* What came of it, in the terminal and as DIR/report.html. */
int study_report(const struct study *s, const struct study_law *l);

#endif

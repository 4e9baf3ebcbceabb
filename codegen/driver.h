/* driver.h - what the commands of archc share. */
#ifndef ARCHC_DRIVER_H
#define ARCHC_DRIVER_H

#include "codegen.h"

enum status {
    STATUS_SPEC = 1,
    STATUS_USAGE = 2,
    STATUS_INFEASIBLE = 3,
    STATUS_WORLD = 4,
};

/* One run of archc: the command line, then what each stage made of it. */
struct driver {
    const char *path, *output, *model, *target, *emit, *threads, *weights, *cc, *march, *keep, *csv,
        *svg, *phase, *rounds, *jobs, *device_cc, *kernels, *measure, *programs, *repeat;
    /* fit */
    const char *form, *l_opt, *columns, *group, *where, *holdout, *drop_highest, *bootstrap, *seed,
        *date;
    bool all_r, progressive, compare;
    bool generic, json, verbose, dry_run;
    bool quiet; /* warnings are not printed: they were */

    struct arena *arena;
    struct diags diags;
    struct spec spec;
    int model_index;
    struct resolution resolution;
    struct plan *plan;
    struct cuda_targets cuda;
    struct plan *cuda_plan; /* where there are CUDA targets */
    struct emitted_files files;
};

/* Each reports what is wrong and returns an exit status; 0: go on. */
int driver_read(struct driver *d); /* the spec, and which model is meant */
int driver_resolve(struct driver *d);
int driver_plan(struct driver *d); /* plan and emit */
int driver_build(struct driver *d, const char *output);

int driver_no_model(struct driver *d);         /* says that the file declares none: STATUS_SPEC */
void driver_print_diags(struct driver *d);     /* once: they are forgotten then */
const char *default_compiler(void); /* clang where it is in the path */

bool parse_count(const char *text, int low, int high, int *out);

/* driver_cuda.c. Reads --target; `host` is the plan of the host side. */
int driver_targets(struct driver *d, const char **host);
enum logits driver_logits(const struct driver *d); /* of training on a GPU: never auto */
int driver_plan_cuda(struct driver *d, const struct build_options *host, const char *source);
int driver_emit_device(struct driver *d, enum device_stage stage);

int run_bench(struct driver *d); /* bench.c */
/* A program's own `bench --json`, of one phase or all (NULL). NULL: it failed, and has said why. */
struct json_t *bench_program(const char *program, const char *phase);
/* The same without single kernels: one phase as a whole. What the program says is dropped. */
struct json_t *bench_phases(const char *program, const char *phase);
int run_import(struct driver *d); /* import.c */
int run_report(struct driver *d); /* report.c */
/* measure.c, --measure N: times the best candidates of d->resolution and puts the measured choice in
 * the place of the predicted one. Prints its table unless JSON is asked for. */
int driver_measure(struct driver *d);
int run_fit(struct driver *d);    /* fit.c */
extern const char fit_help[];
int run_study(struct driver *d); /* study.c */

#endif

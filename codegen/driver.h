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
        *svg, *phase, *rounds;
    bool generic, json, verbose;

    struct arena *arena;
    struct diags diags;
    struct spec spec;
    int model_index;
    struct resolution resolution;
    struct plan *plan;
    struct emitted_files files;
};

/* Each reports what is wrong and returns an exit status; 0: go on. */
int driver_resolve(struct driver *d);
int driver_plan(struct driver *d); /* plan and emit */
int driver_build(struct driver *d, const char *output);

bool parse_count(const char *text, int low, int high, int *out);

int run_bench(struct driver *d);  /* bench.c */
int run_import(struct driver *d); /* import.c */

#endif

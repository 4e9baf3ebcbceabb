/* bench.h - what `archc bench` of the host (bench.c) and of a GPU (bench_cuda.c) share: series of
 * measurements, running programs for their JSON, cells of tables. */
#ifndef ARCHC_BENCH_H
#define ARCHC_BENCH_H

#include "driver.h"

#include <jansson.h>

enum { MAX_ROUNDS = 25 };
struct series {
    double at[MAX_ROUNDS];
    int n;
};
void series_add(struct series *s, double x);  /* NaN is left out */
double series_median(const struct series *s); /* of none: NaN */

/* Runs `program` with the words (NULL at their end; at most 10) and reads the object that it
 * prints. NULL: it printed none. `quiet`: what it says on stderr is dropped. */
json_t *program_json(const char *program, const char *const *words, bool quiet, int *status);

double json_real_of(json_t *o, const char *key);      /* NaN: no number */
const char *json_text_of(json_t *o, const char *key); /* "": no text */
json_t *json_number(double x);                        /* null where it is not finite */

enum { CELL = 16 };
const char *percent_cell(char out[CELL], double fraction); /* "87 %", "-" */
const char *times_cell(char out[CELL], double ratio);      /* "1.25x" */
const char *real_cell(char out[CELL], const char *format, double x);

/* Bars of generic time / specialised time, in the order given: d->svg is written. An exit status.
 */
struct bar {
    const char *name;
    double factor;
    bool is_phase;
};
int bench_plot(const struct driver *d, const char *model, const struct bar *bars, int n);

/* The specialised and the generic program of d->resolution, whose files stay in program[i] with
 * ".d" behind it where `keep`. An exit status. */
int bench_build(struct driver *d, char program[2][64], bool keep);

int run_bench_cuda(struct driver *d, int rounds); /* bench_cuda.c */

#endif

/* model_check.h - what the parts of model_test share: a program on the emulated GPU and the same on
 * the host. Sectioned by file. */
#ifndef MODEL_CHECK_H
#define MODEL_CHECK_H

#include "model_device.h"

#include "blas/standin.h"

extern int failures;
extern struct standin_state *standin; /* of the library in use, or NULL */
static const struct archrt_model *const host = &archrt_model;

#define CHECK(condition, ...)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            failures++;                                                                            \
            printf("%s:%d: ", __FILE__, __LINE__);                                                 \
            printf(__VA_ARGS__);                                                                   \
            putchar('\n');                                                                         \
        }                                                                                          \
    } while (0)

/* ---- model_test.c ---- */

void must(bool ok, const struct failure *f); /* or the test ends, with the line */
void *zeros(size_t n, size_t size);
/* Sums of unit size in every layer, gains about 1, logits of deviation 2. */
void fill_params(float *params, uint64_t seed);
/* Calls of the library in a phase: it has no epilogue for an fp32 bias on bf16 sums. */
long library_calls(enum archrt_phase_id id);

/* ---- model_training.c ---- */

void check_micro_batch(void);
void check_training(void);

/* ---- model_inference.c ---- */

void check_inference(const float *params);
void check_slots(const float *params, struct device *device);
void check_generation(const float *params);

/* ---- model_bench.c ---- */

void check_bench(struct device *device);
void check_bench_only(struct device *device);

#endif

/* sample.h - choosing the next token from logits. */
#ifndef ARCHRT_SAMPLE_H
#define ARCHRT_SAMPLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* PCG32 (O'Neill 2014, XSH-RR 64/32): the same stream for the same seed on every machine. */
struct pcg32 {
    uint64_t state, increment;
};
void pcg32_seed(struct pcg32 *r, uint64_t seed, uint64_t stream);
uint32_t pcg32_next(struct pcg32 *r);
/* Uniform in [0, 1), 53 bits, of two draws. */
double pcg32_uniform(struct pcg32 *r);
/* Standard normal (Box-Muller), of four draws. */
double pcg32_normal(struct pcg32 *r);

/* The filters apply in the order of the fields, each to what the one before left over:
 *   temperature  logits / temperature; 0 means greedy: the largest logit
 *   top_k        keep the k most probable; 0: all
 *   top_p        of those, renormalised, keep the fewest whose probabilities add up to at least
 *                top_p (always one); 1: all
 *   min_p        of those, keep the ones at least min_p times as probable as the best; 0: all
 * then draw once from what is left, renormalised. Equal logits rank by smaller id, everywhere.
 *
 * The draw is a number in [0, 1) that is a hash of the seed and of the position that the token will
 * have, so that it depends neither on what was drawn before nor on who else is being served. It is
 * looked up in the running sum of probabilities, over runs of SAMPLER_RUN ids one after the other,
 * the larger first within a run. This is what the GPU's kernel does
 * (codegen/kernels/cuda/sample.cu): from the same logits both choose the same token, but where the
 * number lies within the rounding of fp32 sums (some 1e-6) of the border between two. */
enum { SAMPLER_RUN = 1024 };
struct sampler_options {
    double temperature;
    int top_k;
    double top_p, min_p;
    uint64_t seed;
};

struct sampler;

/* What is wrong with the options, as one line to print, or NULL. */
const char *sampler_options_error(const struct sampler_options *o);
/* For logits of `vocab` tokens. The options must have passed the check. NULL: out of memory. */
struct sampler *sampler_new(const struct sampler_options *o, int vocab);
void sampler_free(struct sampler *s);
/* The token at `position` of the sequence. NaN counts as -inf; +inf beats every finite logit. -1 if
 * no logit is above -inf. */
int sampler_next(struct sampler *s, const float *logits, int position);
/* Uniform in [0, 1), 53 bits. */
double sampler_uniform(uint64_t seed, int position);
/* Index of the largest logit, the first of equals; NaN and -inf are passed over; -1: none left. */
int sample_greedy(const float *logits, int n);

#endif

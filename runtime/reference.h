/* reference.h - the plain decoder-only transformer in double: slow, obvious, and what every fast
 * path is judged by. RMSNorm, rotate-half RoPE, grouped-query attention, SwiGLU, cross-entropy. */
#ifndef REFERENCE_H
#define REFERENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime.h"

/* ---- pieces: one row, one head or one query at a time ------------------------------------------
 */

/* Sum of a[i] b[i]. */
double ref_dot(const double *a, const double *b, int n);
/* y[i] += factor x[i]. */
void ref_add(double *y, double factor, const double *x, int n);
/* y = x / sqrt(mean(x^2) + eps) gain; y may be x. Returns the factor 1 / sqrt(...). */
double ref_norm(double *y, const double *x, const double *gain, double eps, int n);
/* dx += and dgain += for dy through the norm of x. */
void ref_norm_backward(double *dx, double *dgain, const double *dy, const double *x,
                       const double *gain, double eps, int n);
/* Rotates x[E] in place: pairs (i, i + E/2) by the angle whose cos, sin stand in turn[i][2];
 * backward: by minus the angle, which is also the gradient. */
void ref_rotate(double *x, const double *turn, int E, bool backward);
/* out[E] of one query over `keys` keys; k, v: rows `stride` apart. p[keys] receives the
 * probabilities. Returns the log-sum-exp of the scaled scores. */
double ref_attend(double *out, double *p, const double *q, const double *k, const double *v,
                  int stride, int keys, int E);
/* dq, dk, dv += for dout of the same query; dk, dv: rows `stride` apart, as k and v. p[keys] is
 * scratch. */
void ref_attend_backward(double *dq, double *dk, double *dv, double *p, const double *dout,
                         const double *q, const double *k, const double *v, int stride, int keys,
                         int E);
double ref_silu(double x);
double ref_silu_slope(double x);
/* -log softmax(logits)[target]. Where d is not NULL, d = (softmax - onehot) scale; d may be logits.
 */
double ref_loss(const double *logits, int V, int target, double *d, double scale);
/* w[n] as weights of `type` hold it: bf16 rounds to nearest even; int8 to a multiple of
 * max |w| / 127 of each block of 64. */
void ref_round(double *out, const float *w, int n, enum archrt_dtype type);
/* Moves weights that lie within a hundredth of a step of int8's ties away from them: how a program
 * breaks ties, or rounds the quotient, is its own affair. Scales stay as they are. */
void ref_avoid_ties(float *w, int n);
struct ref_adamw {
    double lr, beta1, beta2, eps, weight_decay, grad_scale, correction1, correction2;
};
/* One step of decoupled AdamW on one parameter with its decay (or 0). */
void ref_adamw_step(double *p, double *m, double *v, double grad, const struct ref_adamw *step,
                    bool decay);
/* cos, sin of position `p` for heads of arch->head_dim: turn[E/2][2]. */
void ref_turn(double *turn, const struct archrt_arch *a, int p);

/* ---- the whole model ---------------------------------------------------------------------------
 */

struct reference;

/* Parameters are read from the slab `params` (borrowed) through the model's tensor table by Hugging
 * Face names, matrices rounded to `rounding`. Fails where a tensor is missing or of another shape
 * than the architecture's. The matrix products use the team, which must be idle. */
bool reference_open(struct reference **out, const struct archrt_model *m, const float *params,
                    enum archrt_dtype rounding, struct failure *f);
void reference_close(struct reference *r);
/* From now on parameter i of the slab reads params[i] + step reference_direction(r, i); step 0 ends
 * it. */
void reference_move(struct reference *r, uint64_t seed, double step);
/* Component i of the random direction `seed`: uniform, scaled to the tensor it falls in. 0 in the
 * slab's padding. */
double reference_direction(const struct reference *r, uint64_t seed, size_t i);
/* Sum of grads[i] direction[i]: the slope of what grads is the gradient of. size: root of the sum
 * of the squared terms. */
double reference_slope(const struct reference *r, uint64_t seed, const float *grads, double *size);

/* loss[T] = -log p(target[t] | token[0..t]), 0 where target < 0 (everywhere if target is NULL);
 * logits[T][V], or NULL. One sequence from position 0. */
bool reference_forward(struct reference *r, const int32_t *token, const int32_t *target, int T,
                       double *loss, double *logits, struct failure *f);
/* Also grads[param_floats] += gradient of scale sum(loss). */
bool reference_backward(struct reference *r, const int32_t *token, const int32_t *target, int T,
                        double scale, double *loss, double *grads, struct failure *f);

#endif

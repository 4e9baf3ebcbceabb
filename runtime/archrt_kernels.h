/* archrt_kernels.h - the prototype of each kind of host kernel (kernels.def), so that the emitted
 * program, verify and bench call them alike. `tid` is last everywhere; outputs never alias inputs
 * unless said. A kernel is called by all threads of the team; it splits its own work with share()
 * and may call team_barrier() inside, but ends without one: the plan places the barriers between
 * kernels. Rows are split by share(m, granule, tid): granule = one sequence (T) in training where
 * B >= THREADS and B % THREADS == 0, else 1 (ROW_GRANULE in shape.h). */
#ifndef ARCHRT_KERNELS_H
#define ARCHRT_KERNELS_H

#include <stdint.h>

/* x[m][D] = table[token[i]][D] */
typedef void embed_fn(float *x, const float *table, const int32_t *token, int tid);
/* dtable[V][D] += dx[m][D] by token; each thread owns columns, so the sum's order is fixed. */
typedef void embed_backward_fn(float *dtable, const float *dx, const int32_t *token, int tid);
/* y[m][D] = x rstd gain; rstd[m] = 1 / sqrt(mean(x^2) + eps) is kept for backward (may be NULL in
 * inference). m rows, at most NORM_M. */
typedef void norm_fn(float *y, float *rstd, const float *x, const float *gain, int m, int tid);
/* dx[m][D] += gradient through the norm; dgain[D] +=. scratch: [THREADS][D] floats. */
typedef void norm_backward_fn(float *dx, float *dgain, const float *dy, const float *x,
                              const float *rstd, const float *gain, float *scratch, int tid);
/* y[m][N] = x[m][K] w[N][K]^T, + bias[N] where MM_BIAS, + residual[m][N] where MM_RESIDUAL (y may
 * be residual). scratch: the file says how much (MATMUL_SCRATCH_FLOATS in matmul.h). */
typedef void matmul_fn(float *y, const float *x, const float *w, const float *bias,
                       const float *residual, float *scratch, int m, int tid);
/* dx[m][K] = dy[m][N] w[N][K]; += where MM_ACCUMULATE. */
typedef void matmul_dx_fn(float *dx, const float *dy, const float *w, float *scratch, int m,
                          int tid);
/* dw[N][K] += dy[m][N]^T x[m][K]; dbias[N] += column sums of dy where MM_BIAS. */
typedef void matmul_dw_fn(float *dw, float *dbias, const float *dy, const float *x, float *scratch,
                          int m, int tid);
/* out[m][dq + 2 dkv] = q and k of `in`, each head normalised by gain[0][E] (q), gain[1][E] (k)
 * where HEAD_NORM, then rotated at position i % T; v is copied. out may be `in`. rstd[m][H + K] is
 * written where HEAD_NORM. rope: [C][E/2][cos, sin], halves (i, i + E/2) rotate together. */
typedef void rope_fn(float *out, float *rstd, const float *in, const float *gain, const float *rope,
                     int tid);
/* dqkv[m][dq + 2 dkv] in place, from gradients of the rotated to gradients of the projected; `in`
 * is the projected (read where HEAD_NORM only), dgain[2][E] +=. scratch: [THREADS][2][E]. */
typedef void rope_backward_fn(float *dqkv, float *dgain, const float *in, const float *rstd,
                              const float *gain, const float *rope, float *scratch, int tid);
/* att[B T][dq] from rotated qkv[B T][dq + 2 dkv], causal within each sequence; lse[B T][H] is the
 * log-sum-exp of the scaled scores. scratch: ATTENTION_SCRATCH_FLOATS a thread (attention.h). */
typedef void attention_fn(float *att, float *lse, const float *qkv, float *scratch, int tid);
/* dqkv[B T][dq + 2 dkv], overwritten, from datt, att, lse, qkv. */
typedef void attention_backward_fn(float *dqkv, const float *datt, const float *att,
                                   const float *lse, const float *qkv, float *scratch, int tid);
/* h[m][F] = silu(gu[m][0..F)) gu[m][F..2F). m rows, at most SWIGLU_M. */
typedef void swiglu_fn(float *h, const float *gate_up, int m, int tid);
/* dgate_up[m][2F] overwritten, from dh and gate_up (dgate_up may be gate_up); h[m][F] is recomputed
 * into `h` where h is not NULL (it may be dh: read before written). */
typedef void swiglu_backward_fn(float *dgate_up, float *h, const float *dh, const float *gate_up,
                                int tid);
/* loss[m] = -log softmax(logits)[target], 0 where target < 0; where `scale` != 0, logits[m][V]
 * become (softmax - onehot) scale (0 in rows without a target). */
typedef void loss_fn(float *loss, float *logits, const int32_t *target, float scale, int m,
                     int tid);
/* Sum of squares of x[n]: the same double on every thread. scratch: [THREADS] doubles. Barriers
 * inside. Summation order depends on n and THREADS only. */
typedef double sum_squares_fn(const float *x, double *scratch, int tid);
struct archrt_adamw;
/* AdamW with decoupled decay on params[begin, end) where decay; m, v updated; grads set to 0. */
typedef void adamw_fn(const struct archrt_adamw *step, int tid);

/* x[m][D] = row token[i] of the packed table */
typedef void embed_row_fn(float *x, const void *table, const int32_t *token, int m, int tid);
/* As matmul, weights packed by weights_pack (weights.h); 1 <= m <= MM_M. */
typedef void prefill_matmul_fn(float *y, const float *x, const void *w, const float *bias,
                               const float *residual, float *scratch, int m, int tid);
/* qkv[m][dq + 2 dkv]: q heads normalised and rotated in place at positions past..past + m; k, v of
 * those positions written into the layer's cache (layout: kvcache.h). */
typedef void prefill_rope_fn(float *qkv, void *cache, const float *gain, const float *rope,
                             int past, int m, int tid);
/* att[m][dq]: queries at past..past + m over cached keys 0..past + i. */
typedef void prefill_attention_fn(float *att, const float *qkv, const void *cache, float *scratch,
                                  int past, int m, int tid);
/* y[N] = w[N][K] f(x[K]); f is the norm by gain[K] where MV_NORM. Then + bias[N] where MV_BIAS,
 * + residual[N] where MV_RESIDUAL (y may be residual), or where MV_SWIGLU y[N / 2] =
 * silu(row i) row (N / 2 + i). */
typedef void matvec_fn(float *y, const float *x, const void *w, const float *gain,
                       const float *bias, const float *residual, float *scratch, int tid);
/* One token at position `past`: head norm and rotation of qkv[dq + 2 dkv], its k and v into the
 * cache, att[dq] over keys 0..past. */
typedef void decode_attention_fn(float *att, const float *qkv, void *cache, const float *gain,
                                 const float *rope, float *scratch, int past, int tid);

#endif

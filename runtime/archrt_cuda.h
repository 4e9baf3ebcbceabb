/* archrt_cuda.h - what CUDA kernels, the emitted launch tables and the run-time library know of
 * each other: the small structures in device memory, then the prototype of each kind of kernel
 * (codegen/kernels/cuda/kernels.def, same order). Device code includes it too, so it needs nothing
 * but C; the tables that only the host sees stand in archrt_device.h.
 *
 * Types. Matrices of weights are bf16, row-major [N][K], at the same place (in elements) as in the
 * fp32 parameter slab; gains and biases are fp32. The residual stream (x, x1) and its gradient are
 * fp32; every other activation and gradient is bf16; sums are fp32 everywhere. Gradients of
 * parameters, master parameters and moments are fp32 in the slab's order. All buffers and all rows
 * of weights are 16-byte aligned: D, F, dq and dkv are multiples of 8 (the plan refuses others),
 * and so is V, the model's vocabulary rounded up. Ids from TOKENS on are padding: rows of zeros,
 * logits that nobody counts or chooses, gradients of zero.
 *
 * Parameters are pointers, nothing else: what is known is a constant of the instance, what changes
 * between replays of a graph stands in device memory. A pointer that an instance has no use for
 * (bias without BIAS) is NULL. Outputs never alias inputs unless said.
 *
 * Rows. A call has `rows` rows in use, the first of at most m; kernels leave the others' outputs
 * alone (and may read their inputs, which no row in use depends on). Products that a library does
 * write them too, and may leave NaN there. Row i belongs to slot[i], holds its token at
 * position[i] and sees the slot's keys 0..position[i]. slot -1: an idle row of decode, nothing of
 * which is read or written, but y, h, q rows may be.
 *
 * The cache. Pages of KV_PAGE tokens; page `pages[slot * PAGES + position / KV_PAGE]`. One layer's
 * pool is bf16 [page][2: k, v][KV_HEADS][KV_PAGE][HEAD_DIM]: `cache` points to the layer's pool.
 * What no token has written there is finite: some of it is read, for nothing.
 *
 * qkv rows are [dq: H heads of E][dkv: K heads of E][dkv]; gate_up rows [F gate][F up]; rotation
 * pairs elements i and i + E/2 of a head with rope[position][i] = {cos, sin} (fp32).
 *
 * Scratch and counters. `scratch`: KIND_SCRATCH(m, n, k) bytes that nothing survives in, garbage on
 * entry. `counter`: CUDA_COUNTERS ints, in decode DECODE_COUNTERS(slots) (launch_decode.h), zero on
 * entry and left zero: the last block to finish something takes it on ("last block" sums stay in a
 * fixed order: never add floats atomically). */
#ifndef ARCHRT_CUDA_H
#define ARCHRT_CUDA_H

typedef unsigned short bf16; /* the bits */

enum { KV_PAGE = 64, CUDA_COUNTERS = 16384 };

/* Of one call of prefill or decode. */
struct cuda_call {
    int rows;      /* in use */
    int head_rows; /* of the logits in use: logits row i is of row head_row[i] */
    int segments;  /* prompts in this call; the rows of segment s are
                      segment_row[s] .. segment_row[s + 1] - 1, of one slot, positions one by one */
    int unused;
};

/* How a slot's next token is chosen. */
struct cuda_sampling {
    float temperature; /* 0: the most likely token, the lowest id among equals */
    float top_p;       /* 1: off */
    float min_p;       /* 0: off */
    int top_k;         /* 0: off */
    unsigned seed[2];  /* low, high; the draw is a hash of seed and position (runtime/sample.h) */
    int tokens;        /* ids below it may be chosen; 0: all */
    int unused;
};

/* Of one step of training. */
struct cuda_train {
    float grad_scale; /* dloss of one target */
    float lr, beta1, beta2, eps, weight_decay;
    float correction1, correction2; /* 1 - beta^step */
    float clip;                     /* largest norm; 0: none */
    float norm;                     /* out: of all gradients */
    float factor;                   /* out: of gradients, by clipping; 0: the norm is not finite,
                                       nothing is to be updated */
    int unused;
};

/* Tensor maps: what sm_90's copies of boxes of a tensor (TMA) take in place of a pointer. A map
 * stands for one operand of a kernel: where the operand is, and this. bf16, the fastest dimension
 * first; strides of the others in bytes, multiples of 16. A box is 64 elements, 128 bytes that are
 * swizzled as much in shared memory, by at most 256 in each other dimension; elements of it outside
 * of the extents are 0. An extent of 0: the pages of the cache's pool. */
enum { CUDA_MAPS = 2, CUDA_MAP_RANK = 4, CUDA_MAP_BYTES = 128, CUDA_MAP_COLUMNS = 64 };
struct cuda_map {
    int operand, rank;
    unsigned extents[CUDA_MAP_RANK];
    unsigned long long strides[CUDA_MAP_RANK - 1];
    unsigned box[CUDA_MAP_RANK];
};
/* Of a kernel: of which of its operands it wants maps. */
struct cuda_maps {
    int n;
    struct cuda_map list[CUDA_MAPS];
};

/* ---- decode: m rows, at most 8 (skinny_*: more) -------------------------------------------------
 *
 * Macros of an instance: KERNEL, the name of the entry point, DM_M rows, and DM_N, DM_K where a
 * matrix is read (qkv: QKV, D; residual: D, dq or F; gate_up: 2 F, D; head: V, D); flags DM_BIAS,
 * DM_HEAD_NORM; SAMPLE_M, SAMPLE_V, SAMPLE_TOKENS. Shapes by name: D_MODEL, HEADS, KV_HEADS,
 * HEAD_DIM, D_FF, VOCAB, TOKENS, CONTEXT, DQ, DKV, QKV, GATE_UP, PAGES, SLOTS, EPSILON, CUDA_SMS,
 * CUDA_ARCH. Numbers in a specialised program; in a generic one all shapes but HEAD_DIM, DM_M and
 * SAMPLE_M are read at run time (no #if on them, no array of their size). Flags are literal 0 or 1
 * in both. A file undefines its own parameters (KERNEL, DM_M, ...) at its end, as several instances
 * share a unit.
 *
 * Programmatic dependent launch: before griddepcontrol.wait a kernel may touch what no kernel of
 * the step has written: weights, gains and rope; slots, lengths and pages; the cache's older keys.
 * It lets its successor start early. */

/* On sm_90, above 8 rows, a norm is half of the kernel that makes x and half of the product behind
 * it. The former leaves, beside x, `tiles`: x gain as bf16, the gain that of the norm which is next,
 * as the product copies it: for each CUDA_TILE_HIGH(m) rows, for each 64 columns, rows of 128 bytes,
 * of which those 16 that are number i stand at place i ^ row % 8. And squares[m][CUDA_SQUARES(D)],
 * which add up to the sum of a row's squares, from which the product makes the factor that is
 * missing in its sums. Columns from D on and rows from m on are 0: embedding writes them, the others
 * leave them. Elsewhere nobody reads or writes either. */
#define CUDA_TILE_HIGH(m) ((m) > 192 ? 256 : ((m) + 63) / 64 * 64)
#define CUDA_TILE_ROWS(m) (((m) + CUDA_TILE_HIGH(m) - 1) / CUDA_TILE_HIGH(m) * CUDA_TILE_HIGH(m))
#define CUDA_TILE_COLUMNS(d) (((d) + 63) / 64 * 64)
#define CUDA_SQUARES(d) (((d) + 127) / 128 * 4)

/* x[m][D] = table[token][D]. Row i: token[i] = next[slot[i]], position[i] = length[slot[i]];
 * position -1, token 0 and x = 0 where slot[i] < 0. gain, tiles and squares: NULL up to 8 rows. */
typedef void cuda_decode_embed_fn(float *x, int *token, int *position, const bf16 *table,
                                  const int *slot, const int *next, const int *length,
                                  const float *gain, bf16 *tiles, float *squares);
/* y = x rstd gain over D; then w[QKV][D] y + bias[QKV]; q and k heads times head_gain[2][E] over
 * their rms where DM_HEAD_NORM; rotated by position, length[slot[i]]; k and v into the cache,
 * q[m][dq] bf16 out. */
typedef void cuda_decode_qkv_fn(bf16 *q, bf16 *cache, const float *x, const bf16 *w,
                                const float *gain, const float *bias, const float *head_gain,
                                const float *rope, const int *slot, const int *length,
                                const int *pages, void *scratch, int *counter);
/* att[m][dq] = attention of q over keys 0..length[slot[i]] of the cache, the last one being the
 * token's own; scale 1 / sqrt(E). Blocks of a cluster add up what they made of their keys; where
 * several clusters share a kv head, they leave it in scratch and count at counters, one for 32
 * elements of a head or fewer. How many there are is a matter of CUDA_SMS, m, K and the lengths.
 * Macro beside: CONTEXT. */
typedef void cuda_decode_attention_fn(bf16 *att, const bf16 *q, const bf16 *cache, const int *slot,
                                      const int *length, const int *pages, void *scratch,
                                      int *counter);
/* y[m][N] = residual[m][N] + w[N][K] a[m][K]; y may be residual. */
typedef void cuda_decode_residual_fn(float *y, const bf16 *a, const bf16 *w, const float *residual,
                                     const int *slot, void *scratch, int *counter);
/* h[m][F] = silu(row i) row (F + i) of w[2F][D] (x rstd gain); DM_N = 2 F. */
typedef void cuda_decode_gate_up_fn(bf16 *h, const float *x, const bf16 *w, const float *gain,
                                    const int *slot, void *scratch, int *counter);
/* logits[i][V] = w[V][D] (x rstd gain) of row head_row[i], i < head_rows. */
typedef void cuda_decode_head_fn(float *logits, const float *x, const bf16 *w, const float *gain,
                                 const struct cuda_call *call, const int *head_row, void *scratch,
                                 int *counter);
/* For i < head_rows, r = head_row[i], s = slot[r] (none where s < 0): the token t chosen from
 * logits[i] by sampling[s]; next[s] = t, length[s] = position[r] + 1,
 * output[s][position[r] + 1] = t where that is below CONTEXT. Order: temperature, top-k, top-p,
 * min-p, each on what the one before left. Probabilities of the whole row, not of a sample. */
typedef void cuda_sample_fn(int *next, int *length, int *output, const float *logits,
                            const struct cuda_call *call, const int *head_row, const int *slot,
                            const int *position, const struct cuda_sampling *sampling,
                            void *scratch, int *counter);
/* The same of more rows, with what is handed on: tiles and squares read in place of x and gain, or
 * written, with the next norm's gain. No row of x is that of two rows of logits. */
typedef void cuda_skinny_qkv_fn(bf16 *q, bf16 *cache, const float *x, const bf16 *w,
                                const float *gain, const float *bias, const float *head_gain,
                                const float *rope, const int *slot, const int *length,
                                const int *pages, void *scratch, int *counter, const bf16 *tiles,
                                const float *squares);
/* Blocks have equal parts of all rows' keys; they count at pairs of a row and a kv head alike. */
typedef cuda_decode_attention_fn cuda_skinny_attention_fn;
typedef void cuda_skinny_residual_fn(float *y, const bf16 *a, const bf16 *w, const float *residual,
                                     const int *slot, void *scratch, int *counter,
                                     const float *gain, bf16 *tiles, float *squares);
typedef void cuda_skinny_gate_up_fn(bf16 *h, const float *x, const bf16 *w, const float *gain,
                                    const int *slot, void *scratch, int *counter,
                                    const bf16 *tiles, const float *squares);
typedef void cuda_skinny_head_fn(float *logits, const float *x, const bf16 *w, const float *gain,
                                 const struct cuda_call *call, const int *head_row, void *scratch,
                                 int *counter, const bf16 *tiles, const float *squares);

/* ---- prefill: call->rows rows of at most m = CHUNK ----------------------------------------------
 */

/* qkv[m][dq + 2 dkv]: q heads normalised (ROPE_HEAD_NORM) and rotated in place; k, likewise, and v
 * into the cache. */
typedef void cuda_prefill_rope_fn(bf16 *qkv, bf16 *cache, const float *head_gain, const float *rope,
                                  const struct cuda_call *call, const int *slot,
                                  const int *position, const int *pages);
/* att[m][dq] from the q part of qkv rows over the cache: row i sees keys 0..position[i] of its
 * slot. Segments share no key; at most SEGMENTS of them (segment_row[SEGMENTS + 1]). */
typedef void cuda_prefill_attention_fn(bf16 *att, const bf16 *qkv, const bf16 *cache,
                                       const struct cuda_call *call, const int *segment_row,
                                       const int *slot, const int *position, const int *pages);

/* ---- prefill and training. `call` NULL: all m rows ----------------------------------------------
 */

/* x[m][D] = table[token[i]]. Macros EMBED_M, EMBED_D. */
typedef void cuda_embed_fn(float *x, const bf16 *table, const int *token,
                           const struct cuda_call *call);
/* y[m][D] = x rstd gain; rstd[m] kept where not NULL. Macros NORM_M, NORM_D, NORM_EPS. */
typedef void cuda_norm_fn(bf16 *y, float *rstd, const float *x, const float *gain,
                          const struct cuda_call *call);
/* y[m][N] = x[m][K] w[N][K]^T + bias[N] (MM_BIAS). Macros MM_M, MM_N, MM_K; MM_OUT_F32: y is fp32,
 * else bf16; MM_RESIDUAL: + residual[m][N], fp32 (y may be residual; implies MM_OUT_F32);
 * MM_SWIGLU: N = 2 F and y[m][F] = silu(column i) column (F + i). */
typedef void cuda_matmul_fn(void *y, const bf16 *x, const bf16 *w, const float *bias,
                            const float *residual, const struct cuda_call *call);
/* h[m][F] = silu(gate) up. Macros SWIGLU_M, SWIGLU_F. */
typedef void cuda_swiglu_fn(bf16 *h, const bf16 *gate_up, const struct cuda_call *call);
/* loss[m] = -log softmax(logits)[target], 0 where target < 0, of logits x[m][K] w[N][K]^T that are
 * not written; where top is not NULL, top[m] and sum[m]: the largest logit and the sum of
 * e^(logit - top), and dx[m][K] cleared. Macros MM_M, MM_N, MM_K, MM_TOKENS. */
typedef void cuda_head_loss_fn(float *loss, float *top, float *sum, float *dx, const bf16 *x,
                               const bf16 *w, const int *target, const struct cuda_call *call,
                               void *scratch);

/* ---- training: all m = ROWS rows, sequence of row i is i / SEQUENCE
 * ------------------------------ */

/* out[m][dq + 2 dkv] from `in`: q and k heads normalised by head_gain[2][E] where ROPE_HEAD_NORM
 * (rstd[m][H + K] written), rotated at i % T; v copied. out may be in. Macros ROPE_M, ROPE_T,
 * ROPE_HEAD_NORM, NORM_EPS; shapes HEADS, KV_HEADS, HEAD_DIM. */
typedef void cuda_rope_fn(bf16 *out, float *rstd, const bf16 *in, const float *head_gain,
                          const float *rope);
/* att[B T][dq], lse[B T][H] (natural log-sum-exp of scaled scores); kv is qkv. Macros ATT_B,
 * ATT_T. */
typedef void cuda_attention_fn(bf16 *att, float *lse, const bf16 *qkv, const bf16 *kv);
/* loss[m] as head_loss; e[m][N] and factor[m] with factor e = (softmax - onehot) grad_scale, 0 in
 * rows without a target and in padding; scaled[m][K] = x factor. rows and table are x and w, as
 * addresses. Macros as head_loss's. */
typedef void cuda_head_softmax_fn(float *loss, bf16 *e, float *factor, bf16 *scaled, const bf16 *x,
                                  const bf16 *w, const bf16 *rows, const bf16 *table,
                                  const int *target, const struct cuda_train *train, void *scratch);
/* dtable[V][D] += dx by token; rows of one token are added in the order of rows. Macros
 * EMBED_M, EMBED_D, VOCAB. */
typedef void cuda_embed_backward_fn(float *dtable, const float *dx, const int *token,
                                    void *scratch);
/* Macros of the gradients are those of the forward kernel, and NORM_ACCUMULATE; SUM_N; ADAM_N,
 * ADAM_DECAYED, ADAM_TABLE.
 * dx[m][D] += (= where NORM_ACCUMULATE is 0) the gradient through the norm, dx16 the bf16 copy of
 * the result, dgain[D] +=. NORM_IN_PLACE: dy stands in dx, fp32; the operand dy is not read.
 * NORM_FACTOR: dy is times factor[m], else NULL. */
typedef void cuda_norm_backward_fn(float *dx, bf16 *dx16, float *dgain, const bf16 *dy,
                                   const float *x, const float *rstd, const float *gain,
                                   const float *factor, void *scratch);
/* dx[m][K] = dy[m][N] w[N][K], bf16; where MM_ACCUMULATE dx += it, fp32. */
typedef void cuda_matmul_dx_fn(void *dx, const bf16 *dy, const bf16 *w);
/* dw[N][K] = old + dy[m][N]^T x[m][K], where old is dw or NULL: nothing; dbias[N] += column sums of
 * dy where MM_BIAS. */
typedef void cuda_matmul_dw_fn(float *dw, float *dbias, const bf16 *dy, const bf16 *x,
                               const float *old);
/* dlogits[m][N] = (softmax - onehot) grad_scale of the N tokens whose weights begin at `part`, of
 * all those at `table`; w is part. top and sum as head_loss leaves them. Macros as head_loss's. */
typedef void cuda_head_gradient_fn(bf16 *dlogits, const bf16 *x, const bf16 *w, const float *top,
                                   const float *sum, const int *target, const bf16 *table,
                                   const bf16 *part, const struct cuda_train *train);
/* dqkv[m][dq + 2 dkv] in place, from gradients of the rotated to gradients of the projected; in,
 * rstd and dgain[2][E] += only where ROPE_HEAD_NORM. */
typedef void cuda_rope_backward_fn(bf16 *dqkv, float *dgain, const bf16 *in, const float *rstd,
                                   const float *head_gain, const float *rope, void *scratch);
/* dqkv[m][dq + 2 dkv], overwritten. Scratch holds delta[m][H] = sum(datt att) from pass 1 on; on
 * sm_90a up to head size 128 also sums of dq in fp32, from pass 2 on. */
typedef void cuda_attention_backward_fn(bf16 *dqkv, const bf16 *datt, const bf16 *att,
                                        const float *lse, const bf16 *qkv, void *scratch);
/* dgate_up[m][2F] from dh and gate_up, h[m][F] made again; dgate_up may be gate_up, h may be dh. */
typedef void cuda_swiglu_backward_fn(bf16 *dgate_up, bf16 *h, const bf16 *dh, const bf16 *gate_up);
/* train->norm and train->factor from grads[PARAM_FLOATS]: double sums, one order. */
typedef void cuda_sum_squares_fn(struct cuda_train *train, const float *grads, void *scratch);
/* AdamW with decoupled decay on the first PARAM_DECAYED, whose bf16 copies go to weights, with
 * gradients times train->factor; then those that kernels add to are cleared, of vectors and of the
 * first PARAM_TABLE parameters. Nothing changes but the cleared gradients where factor is 0. */
typedef void cuda_adamw_fn(float *params, bf16 *weights, float *grads, float *m, float *v,
                           const struct cuda_train *train);

#endif

/* toy2_inference.h - the inference side of toy2_model.c: packed weights, kernels as plain loops,
 * prompts and decode. */
#ifndef TOY2_INFERENCE_H
#define TOY2_INFERENCE_H

#include "toy2_training.h" /* norms, rotation, attention of one row */

/* ---- packed weights: rows of one type ----------------------------------------------------------
 */

enum { BLOCK = 64 };

/* A row of k weights: fp32; bf16; or int8 with one fp32 scale a block behind them. */
static size_t packed_row(int k)
{
    size_t blocks = (size_t)(k + BLOCK - 1) / BLOCK;
    return TOY_WEIGHTS == 0   ? (size_t)k * 4
           : TOY_WEIGHTS == 1 ? (size_t)(k + 1) / 2 * 4
                              : blocks * BLOCK + blocks * 4;
}

#define PACKED_ROW(k)                                                                              \
    (TOY_WEIGHTS == 0   ? (size_t)(k)*4                                                            \
     : TOY_WEIGHTS == 1 ? (size_t)((k) + 1) / 2 * 4                                                \
                        : (size_t)((k) + BLOCK - 1) / BLOCK * (BLOCK + 4))

static void pack_row(char *at, const float *w, int k)
{
    if (TOY_WEIGHTS == 0) {
        memcpy(at, w, (size_t)k * sizeof *w);
        return;
    }
    if (TOY_WEIGHTS == 1) {
        for (int i = 0; i < k; i++) {
            uint32_t u;
            memcpy(&u, w + i, 4);
            u = (u + 0x7fff + (u >> 16 & 1)) >> 16;
            ((uint16_t *)(void *)at)[i] = (uint16_t)u;
        }
        return;
    }
    int blocks = (k + BLOCK - 1) / BLOCK;
    float *scale = (float *)(void *)(at + blocks * BLOCK);
    for (int b = 0; b < blocks; b++) {
        float top = 0;
        for (int i = b * BLOCK; i < k && i < (b + 1) * BLOCK; i++)
            top = fmaxf(top, fabsf(w[i]));
        scale[b] = top / 127;
        for (int i = b * BLOCK; i < k && i < (b + 1) * BLOCK; i++)
            ((signed char *)at)[i] = (signed char)(top > 0 ? rintf(w[i] / scale[b]) : 0);
    }
}

static void unpack_row(float *w, const char *at, int k)
{
    for (int i = 0; i < k; i++) {
        if (TOY_WEIGHTS == 0) {
            w[i] = ((const float *)(const void *)at)[i];
        } else if (TOY_WEIGHTS == 1) {
            uint32_t u = (uint32_t)((const uint16_t *)(const void *)at)[i] << 16;
            memcpy(w + i, &u, 4);
        } else {
            int blocks = (k + BLOCK - 1) / BLOCK;
            w[i] = (float)((const signed char *)at)[i] *
                   ((const float *)(const void *)(at + blocks * BLOCK))[i / BLOCK];
        }
    }
}

static void pack_matrix(void *dst, const float *w, int n, int k, int tid)
{
    struct range r = share(n, tid);
    for (int i = r.begin; i < r.end; i++)
        pack_row((char *)dst + (size_t)i * packed_row(k), w + i * k, k);
}

#define PACK(name, n, k)                                                                           \
    static void name(void *dst, const float *w, int tid)                                           \
    {                                                                                              \
        pack_matrix(dst, w, n, k, tid);                                                            \
    }
PACK(pack_table, V, D)
PACK(pack_qkv, QKV, D)
PACK(pack_out, D, DQ)
PACK(pack_gate_up, 2 * F, D)
PACK(pack_down, D, F)

/* The slab of packed weights: head, embedding, layers, then gains and biases as they are. */
#define P_HEAD ((size_t)0)
#define P_EMBED (TIED ? P_HEAD : V * PACKED_ROW(D))
#define P_LAYERS (P_EMBED + V * PACKED_ROW(D))
#define P_QKV ((size_t)0)
#define P_OUT (P_QKV + QKV * PACKED_ROW(D))
#define P_GU (P_OUT + D * PACKED_ROW(DQ))
#define P_DOWN (P_GU + 2 * F * PACKED_ROW(D))
#define P_LAYER (P_DOWN + D * PACKED_ROW(F))
#define P_SMALL (P_LAYERS + L * P_LAYER)
#define P_END (P_SMALL + (size_t)(PARAM_FLOATS - SMALL) * 4)

static void pack(void *weights, const float *params, int tid)
{
    char *to = weights;
    pack_table(to + P_HEAD, params + HEAD, tid);
    pack_table(to + P_EMBED, params + EMBED, tid);
    for (int i = 0; i < L; i++) {
        char *layer = to + P_LAYERS + (size_t)i * P_LAYER;
        const float *m = params + LAYERS + i * LAYER;
        pack_qkv(layer + P_QKV, m + WQKV, tid);
        pack_out(layer + P_OUT, m + WO, tid);
        pack_gate_up(layer + P_GU, m + WGU, tid);
        pack_down(layer + P_DOWN, m + WDOWN, tid);
    }
    if (tid == 0)
        memcpy(to + P_SMALL, params + SMALL, (size_t)(PARAM_FLOATS - SMALL) * sizeof *params);
}

/* ---- inference kernels -------------------------------------------------------------------------
 */

static void embed_row(float *x, const void *table, const int32_t *token, int m, int tid)
{
    struct range r = share(m, tid);
    for (int i = r.begin; i < r.end; i++)
        unpack_row(x + i * D, (const char *)table + (size_t)token[i] * packed_row(D), D);
}

static void packed_multiply(float *y, const float *x, const void *w, const float *bias,
                            const float *residual, int m, int n, int k, int tid)
{
    struct range r = share(n, tid);
    float row[V + 2 * F + QKV + D];
    for (int j = r.begin; j < r.end; j++) {
        unpack_row(row, (const char *)w + (size_t)j * packed_row(k), k);
        for (int i = 0; i < m; i++)
            y[i * n + j] = dot(x + i * k, row, k) + (bias ? bias[j] : 0) +
                           (residual ? residual[i * n + j] : 0);
    }
}

#define PACKED_PRODUCT(name, n, k)                                                                 \
    static void name(float *y, const float *x, const void *w, const float *bias,                   \
                     const float *residual, float *scratch, int m, int tid)                        \
    {                                                                                              \
        (void)scratch;                                                                             \
        packed_multiply(y, x, w, bias, residual, m, n, k, tid);                                    \
    }
PACKED_PRODUCT(prefill_qkv, QKV, D)
PACKED_PRODUCT(prefill_out, D, DQ)
PACKED_PRODUCT(prefill_gate_up, 2 * F, D)
PACKED_PRODUCT(prefill_down, D, F)
PACKED_PRODUCT(prefill_head, V, D)

/* The cache of a layer: [token][k and v of all heads]. */
static void prefill_rope(float *rows, void *cache, const float *gain, const float *table, int past,
                         int m, int tid)
{
    struct range r = share(m, tid);
    for (int i = r.begin; i < r.end; i++) {
        turn_row(rows + i * QKV, NULL, gain, table + (past + i) * E);
        memcpy((float *)cache + (past + i) * 2 * DKV, rows + i * QKV + DQ, 2 * DKV * sizeof *rows);
    }
}

static void prefill_attention(float *att, const float *rows, const void *cache, float *scratch,
                              int past, int m, int tid)
{
    struct range r = share(m * H, tid);
    float p[C];
    (void)scratch;
    for (int i = r.begin; i < r.end; i++) {
        const float *k = (const float *)cache + i % H / (H / K) * E;
        attend(att + i / H * DQ + i % H * E, p, rows + i / H * QKV + i % H * E, k, k + DKV, 2 * DKV,
               past + i / H + 1);
    }
}

#define MATVEC(name, n, k, with_norm, with_swiglu)                                                 \
    static void name(float *y, const float *x, const void *w, const float *gain,                   \
                     const float *bias, const float *residual, float *scratch, int tid)            \
    {                                                                                              \
        float normed[k], row[k];                                                                   \
        int outputs = (with_swiglu) ? (n) / 2 : (n);                                               \
        struct range r = share(outputs, tid);                                                      \
        (void)scratch;                                                                             \
        if (with_norm)                                                                             \
            norm_row(normed, x, gain, k);                                                          \
        else                                                                                       \
            memcpy(normed, x, sizeof normed);                                                      \
        team_barrier(tid);                                                                         \
        for (int i = r.begin; i < r.end; i++) {                                                    \
            unpack_row(row, (const char *)w + (size_t)i * packed_row(k), k);                       \
            float sum = dot(row, normed, k) + (bias ? bias[i] : 0);                                \
            if (with_swiglu) {                                                                     \
                unpack_row(row, (const char *)w + (size_t)(outputs + i) * packed_row(k), k);       \
                sum = sum / (1 + expf(-sum)) * dot(row, normed, k);                                \
            }                                                                                      \
            y[i] = sum + (residual ? residual[i] : 0);                                             \
        }                                                                                          \
    }
MATVEC(decode_qkv, QKV, D, 1, 0)
MATVEC(decode_out, D, DQ, 0, 0)
MATVEC(decode_gate_up, 2 * F, D, 1, 1)
MATVEC(decode_down, D, F, 0, 0)
MATVEC(decode_head, V, D, 1, 0)

static void decode_attention(float *att, const float *row, void *cache, const float *gain,
                             const float *table, float *scratch, int past, int tid)
{
    float turned[QKV], p[C];
    struct range r = share(H, tid);
    (void)scratch;
    memcpy(turned, row, sizeof turned);
    turn_row(turned, NULL, gain, table + past * E);
    if (tid == 0)
        memcpy((float *)cache + past * 2 * DKV, turned + DQ, 2 * DKV * sizeof *turned);
    team_barrier(tid);
    for (int h = r.begin; h < r.end; h++) {
        const float *k = (const float *)cache + h / (H / K) * E;
        attend(att + h * E, p, turned + h * E, k, k + DKV, 2 * DKV, past + 1);
    }
}

struct infer_work {
    float x[CHUNK * D], normed[CHUNK * D], qkv[CHUNK * QKV], att[CHUNK * DQ], gu[CHUNK * 2 * F];
    float h[CHUNK * F], logits[CHUNK * V], losses[CHUNK];
};

struct layer_weights {
    const char *matrix;
    const float *small;
    char *cache;
};

static struct layer_weights layer_at(const struct archrt_infer *s, int i)
{
    const char *w = s->weights;
    return (struct layer_weights){
        w + P_LAYERS + (size_t)i * P_LAYER,
        (const float *)(const void *)(w + P_SMALL) + i * SMALL_LAYER,
        (char *)s->cache + (size_t)i * C * 2 * DKV * sizeof(float),
    };
}

static const float *final_gain(const struct archrt_infer *s)
{
    return (const float *)(const void *)((const char *)s->weights + P_SMALL) + (FINAL - SMALL);
}

static void prefill(const struct archrt_infer *s, const int32_t *token, int n, float *logits,
                    const int32_t *target, float *logprobs, int tid)
{
    struct infer_work *w = s->work;
    const char *weights = s->weights;
    embed_row(w->x, weights + P_EMBED, token, n, tid), THEN;
    for (int i = 0; i < L; i++) {
        struct layer_weights l = layer_at(s, i);
        norm(w->normed, NULL, w->x, l.small + NORM1, n, tid), THEN;
        prefill_qkv(w->qkv, w->normed, l.matrix + P_QKV, BIAS ? l.small + QKV_BIAS : NULL, NULL,
                    NULL, n, tid);
        THEN;
        prefill_rope(w->qkv, l.cache, l.small + HEAD_GAIN, s->rope, s->past, n, tid), THEN;
        prefill_attention(w->att, w->qkv, l.cache, NULL, s->past, n, tid), THEN;
        prefill_out(w->x, w->att, l.matrix + P_OUT, NULL, w->x, NULL, n, tid), THEN;
        norm(w->normed, NULL, w->x, l.small + NORM2, n, tid), THEN;
        prefill_gate_up(w->gu, w->normed, l.matrix + P_GU, NULL, NULL, NULL, n, tid), THEN;
        swiglu(w->h, w->gu, n, tid), THEN;
        prefill_down(w->x, w->h, l.matrix + P_DOWN, NULL, w->x, NULL, n, tid), THEN;
    }
    norm(w->normed, NULL, w->x, final_gain(s), n, tid), THEN;
    prefill_head(w->logits, w->normed, weights + P_HEAD, NULL, NULL, NULL, n, tid), THEN;
    if (logits && tid == 0)
        memcpy(logits, w->logits + (n - 1) * V, V * sizeof *logits);
    if (!logprobs)
        return;
    loss(w->losses, w->logits, target, 0, n, tid), THEN;
    for (int i = 0; tid == 0 && i < n; i++)
        logprobs[i] = -w->losses[i];
}

static void decode(const struct archrt_infer *s, int32_t token, float *logits, int tid)
{
    struct infer_work *w = s->work;
    const char *weights = s->weights;
    embed_row(w->x, weights + P_EMBED, &token, 1, tid), THEN;
    for (int i = 0; i < L; i++) {
        struct layer_weights l = layer_at(s, i);
        decode_qkv(w->qkv, w->x, l.matrix + P_QKV, l.small + NORM1,
                   BIAS ? l.small + QKV_BIAS : NULL, NULL, NULL, tid);
        THEN;
        decode_attention(w->att, w->qkv, l.cache, l.small + HEAD_GAIN, s->rope, NULL, s->past, tid);
        THEN;
        decode_out(w->x, w->att, l.matrix + P_OUT, NULL, NULL, w->x, NULL, tid), THEN;
        decode_gate_up(w->h, w->x, l.matrix + P_GU, l.small + NORM2, NULL, NULL, NULL, tid), THEN;
        decode_down(w->x, w->h, l.matrix + P_DOWN, NULL, NULL, w->x, NULL, tid), THEN;
    }
    decode_head(logits, w->x, weights + P_HEAD, final_gain(s), NULL, NULL, NULL, tid);
}

#endif

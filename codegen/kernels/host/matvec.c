/* matvec.c - y[N] = w[N][K] f(x[K]), one token against packed weights (weights.h).
 *
 * KERNEL         the function's name
 * MV_N, MV_K     shape. With MV_SWIGLU N = 2 F, and the weights are two packed matrices of F rows:
 *                gate, then up
 * WTYPE          literal 0 fp32, 1 bf16, 2 int8
 * MV_NORM        literal: f is the RMSNorm by gain[K] with MV_EPS; else f(x) = x
 * MV_BIAS, MV_RESIDUAL, MV_SWIGLU  literals: what follows, see matvec_fn
 *
 * Floor: the bytes of w over the read bandwidth. A thread owns whole panels and reads several at
 * once, far apart, each with its own software prefetch: that keeps more lines in flight than one
 * stream does. x is small, so every thread computes its own f(x); scratch: MATVEC_SCRATCH_FLOATS(K)
 * a thread.
 *
 * fp32 and bf16 weights multiply x in fp32. int8 weights multiply x rounded to 16 bits with one
 * scale per 64 (an error of at most max |x| / 65534 an element), summed exactly in 32 bits, then
 * scaled. */
#include "weights.h"

#ifndef ARCH_MATVEC_ONCE
#define ARCH_MATVEC_ONCE

enum {
    MV_STREAMS = PANEL_VECTORS <= 2 ? 4 : 2,
    MV_AHEAD = 1024 /* bytes; of each stream */
};

/* f(x) as a thread prepared it. */
struct mv_x {
    const float *f32;
    const int16_t *q;    /* padded with zeros to a multiple of 64 */
    const float *scale;  /* of 64 */
    const int32_t *bias; /* -QUANT_BIAS times the sum of 64 q */
};

typedef int16_t vs __attribute__((vector_size(VECTOR_BYTES / 2)));
typedef int16_t vs_any __attribute__((vector_size(VECTOR_BYTES / 2), aligned(2), may_alias));

static ALWAYS_INLINE vi vi_set(int32_t x)
{
    return x - (vi){0};
}

/* Accumulator i of a group of streams belongs to stream i / PANEL_VECTORS, vector i % PANEL_VECTORS
 * of its panel. */
#define MV_VECTOR(w, i, bytes) ((w)[(i) / PANEL_VECTORS] + (i) % PANEL_VECTORS * (bytes))

static ALWAYS_INLINE void mv_f32(vf *acc, const char *const *w, int streams, int k, const float *x)
{
    UNROLL_4
    for (int c = 0; c < k; c++) {
        vf xs = vf_set(x[c]);
        FOREACH(s, streams) PREFETCH(w[s] + (size_t)c * 64 + MV_AHEAD);
        FOREACH(i, streams * PANEL_VECTORS)
        {
            const char *at = MV_VECTOR(w, i, VECTOR_BYTES) + (size_t)c * 64;
            acc[i] += vf_load((const float *)(const void *)at) * xs;
        }
    }
}

static ALWAYS_INLINE void mv_bf16(vf *acc, const char *const *w, int streams, int k, const float *x)
{
    vf second[MV_STREAMS * PANEL_VECTORS] = {0};
    UNROLL_4
    for (int c = 0; c + 1 < k; c += 2) {
        vf even = vf_set(x[c]), odd = vf_set(x[c + 1]);
        FOREACH(s, streams) PREFETCH(w[s] + (size_t)c * 32 + MV_AHEAD);
        FOREACH(i, streams * PANEL_VECTORS)
        {
            const char *at = MV_VECTOR(w, i, VECTOR_BYTES) + (size_t)c * 32;
            acc[i] += bf16_even(at) * even;
            second[i] += bf16_odd(at) * odd;
        }
    }
    if (k % 2) {
        vf last = vf_set(x[k - 1]);
        FOREACH(i, streams * PANEL_VECTORS)
        acc[i] += bf16_even(MV_VECTOR(w, i, VECTOR_BYTES) + (size_t)(k - 1) * 32) * last;
    }
    FOREACH(i, streams * PANEL_VECTORS) acc[i] += second[i];
}

/* n <= 64 of K, a multiple of 4, at byte `block` of each panel; x from there on. Short sums in
 * turns, so that one multiply-add need not wait for the one before. */
static ALWAYS_INLINE void mv_i8_block(vf *acc, const char *const *w, size_t block, int streams,
                                      int n, const int16_t *x, float x_scale, int32_t x_bias)
{
    enum { MOST = MV_STREAMS * PANEL_VECTORS };
    vi sum[2][MOST];
    FOREACH(i, streams * PANEL_VECTORS)
    {
        sum[0][i] = vi_set(x_bias);
        sum[1][i] = vi_set(0);
    }
    FOREACH(s, streams) PREFETCH(w[s] + block + MV_AHEAD);
    for (int c = 0; c < n; c += 4) {
        FOREACH(s, streams) PREFETCH(w[s] + block + PANEL * 4 + c * PANEL + MV_AHEAD);
        FOREACH(j, 4)
        {
            vi xs = vi_set(x[c + j]);
            FOREACH(i, streams * PANEL_VECTORS)
            sum[j % 2][i] +=
                i8_lanes(MV_VECTOR(w, i, VL) + block + PANEL * 4 + (c + j) * PANEL) * xs;
        }
    }
    FOREACH(i, streams * PANEL_VECTORS)
    {
        vf scale = vf_load((const float *)(const void *)(MV_VECTOR(w, i, VECTOR_BYTES) + block));
        acc[i] += __builtin_convertvector(sum[0][i] + sum[1][i], vf) * (scale * vf_set(x_scale));
    }
}

static ALWAYS_INLINE void mv_i8(vf *acc, const char *const *w, int streams, int k,
                                const struct mv_x *x)
{
    int b = 0;
    size_t block = 0;
    for (; (b + 1) * QUANT_BLOCK <= k; b++, block += QUANT_BLOCK_BYTES)
        mv_i8_block(acc, w, block, streams, QUANT_BLOCK, x->q + b * QUANT_BLOCK, x->scale[b],
                    x->bias[b]);
    if (b * QUANT_BLOCK < k)
        mv_i8_block(acc, w, block, streams, (k - b * QUANT_BLOCK + 3) / 4 * 4,
                    x->q + b * QUANT_BLOCK, x->scale[b], x->bias[b]);
}

/* The rows of `streams` panels into sums[streams][16]. */
static ALWAYS_INLINE void mv_streams(int type, float *sums, const char *const *w, int streams,
                                     int k, const struct mv_x *x)
{
    vf acc[MV_STREAMS * PANEL_VECTORS] = {0};
    if (type == WEIGHTS_F32)
        mv_f32(acc, w, streams, k, x->f32);
    else if (type == WEIGHTS_BF16)
        mv_bf16(acc, w, streams, k, x->f32);
    else
        mv_i8(acc, w, streams, k, x);
    FOREACH(i, streams * PANEL_VECTORS) vf_store(sums + i * VL, acc[i]);
}

static ALWAYS_INLINE void mv_sums(int type, float *sums, const char *const *w, int streams, int k,
                                  const struct mv_x *x)
{
    if (streams == 1)
        mv_streams(type, sums, w, 1, k, x);
    else if (streams == 2)
        mv_streams(type, sums, w, 2, k, x);
    else if (streams == 3 && MV_STREAMS >= 3)
        mv_streams(type, sums, w, 3, k, x);
    else if (MV_STREAMS >= 4)
        mv_streams(type, sums, w, 4, k, x);
}

/* out[K] = x / rms(x) gain. */
static ALWAYS_INLINE void mv_norm(float *out, const float *x, const float *gain, int k, float eps)
{
    vf sums[4] = {0};
    int c = 0;
    for (; c + 4 * VL <= k; c += 4 * VL)
        FOREACH(i, 4) sums[i] += vf_load(x + c + i * VL) * vf_load(x + c + i * VL);
    float total = vf_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
    for (; c < k; c++)
        total += x[c] * x[c];
    float rstd = 1 / sqrtf(total / (float)k + eps);
    for (c = 0; c + VL <= k; c += VL)
        vf_store(out + c, vf_load(x + c) * vf_set(rstd) * vf_load(gain + c));
    for (; c < k; c++)
        out[c] = x[c] * rstd * gain[c];
}

/* One block of 64: q = round(x / scale), scale = max |x| / 32767. */
static ALWAYS_INLINE void mv_quantise_block(int16_t *q, float *scale, int32_t *bias, const float *x)
{
    vf most = vf_set(0), odd = vf_set(0);
    FOREACH(v, QUANT_BLOCK / VL)
    {
        vf value = vf_load(x + v * VL);
        most = vf_max(most, vf_max(value, -value));
        odd += value * 0; /* 0, or NaN where a value is not finite */
    }
    float top = vf_top(most), not_finite = vf_sum(odd);
    bool zero = !(top > 1e-30f) || not_finite != 0;
    vf inverse = vf_set(zero ? 0 : 32767 / top);
    vi total = vi_set(0);
    FOREACH(v, QUANT_BLOCK / VL)
    {
        const vf round = vf_set(12582912.0f); /* 1.5 2^23: the integer lands in the low bits */
        vf value = zero ? vf_set(0) : vf_load(x + v * VL);
        vi n = (vi)(value * inverse + round) - (vi)round;
        *(vs_any *)(q + v * VL) = __builtin_convertvector(n, vs);
        total += n;
    }
    int32_t sum = 0;
    for (int i = 0; i < VL; i++)
        sum += total[i];
    *scale = (zero ? 0 : top / 32767) + not_finite;
    *bias = -QUANT_BIAS * sum;
}

static ALWAYS_INLINE void mv_quantise(struct mv_x *to, float *scratch, const float *x, int k)
{
    int blocks = (k + QUANT_BLOCK - 1) / QUANT_BLOCK;
    float *scale = scratch;
    int32_t *bias = (int32_t *)(void *)(scratch + blocks);
    int16_t *q = (int16_t *)(void *)(scratch + 2 * blocks);
    for (int b = 0; b < k / QUANT_BLOCK; b++)
        mv_quantise_block(q + b * QUANT_BLOCK, scale + b, bias + b, x + b * QUANT_BLOCK);
    if (k % QUANT_BLOCK) {
        float last[QUANT_BLOCK] = {0};
        int b = blocks - 1;
        memcpy(last, x + b * QUANT_BLOCK, sizeof(float) * (size_t)(k - b * QUANT_BLOCK));
        mv_quantise_block(q + b * QUANT_BLOCK, scale + b, bias + b, last);
    }
    to->q = q;
    to->scale = scale;
    to->bias = bias;
}

struct mv {
    int n, k, type;
    bool bias, residual, swiglu;
};

/* y of one panel's rows from their sums. */
static ALWAYS_INLINE void mv_store(const struct mv *m, float *y, const float *sums, int row,
                                   const float *bias, const float *residual)
{
    if (row + PANEL <= m->n) {
        for (int i = 0; i < PANEL; i += VL) {
            vf v = vf_load(sums + i);
            if (m->bias)
                v += vf_load(bias + row + i);
            if (m->residual)
                v += vf_load(residual + row + i);
            vf_store(y + row + i, v);
        }
        return;
    }
    for (int i = 0; row + i < m->n; i++)
        y[row + i] =
            sums[i] + (m->bias ? bias[row + i] : 0) + (m->residual ? residual[row + i] : 0);
}

/* How many streams to cut `panels` into: many, but leaving no panel over where that can be. */
static ALWAYS_INLINE int mv_choose(int panels)
{
    if (panels < MV_STREAMS)
        return panels;
    return MV_STREAMS == 4 && panels % 4 != 0 && panels % 3 == 0 ? 3 : MV_STREAMS;
}

static ALWAYS_INLINE void mv_plain(const struct mv *m, float *y, const char *w,
                                   const struct mv_x *x, const float *bias, const float *residual,
                                   int tid)
{
    size_t panel = PANEL_BYTES(m->type, m->k);
    struct range mine = share(PANELS(m->n), 1, tid);
    for (int p = mine.begin; p < mine.end;) {
        int streams = mv_choose(mine.end - p), rounds = (mine.end - p) / streams;
        for (int i = 0; i < rounds; i++) {
            const char *at[MV_STREAMS];
            for (int s = 0; s < MV_STREAMS; s++)
                at[s] = w + (size_t)(p + i + (s < streams ? s : 0) * rounds) * panel;
            float sums[MV_STREAMS * PANEL];
            mv_sums(m->type, sums, at, streams, m->k, x);
            for (int s = 0; s < streams; s++)
                mv_store(m, y, sums + s * PANEL, (p + i + s * rounds) * PANEL, bias, residual);
        }
        p += streams * rounds;
    }
}

/* Gate and up panels side by side, so that the thread that has a row of one has it of the other. */
static ALWAYS_INLINE void mv_swiglu(const struct mv *m, float *y, const char *w,
                                    const struct mv_x *x, int tid)
{
    int f = m->n / 2;
    size_t panel = PANEL_BYTES(m->type, m->k), up = PACKED_BYTES(m->type, f, m->k);
    struct range mine = share(PANELS(f), 1, tid);
    for (int p = mine.begin; p < mine.end;) {
        int pairs = MV_STREAMS >= 4 && mine.end - p >= 2 ? 2 : 1, rounds = (mine.end - p) / pairs;
        for (int i = 0; i < rounds; i++) {
            const char *at[MV_STREAMS];
            for (int s = 0; s < MV_STREAMS; s++)
                at[s] = w + (size_t)(p + i + s / 2 % pairs * rounds) * panel + s % 2 * up;
            float sums[MV_STREAMS * PANEL];
            mv_sums(m->type, sums, at, 2 * pairs, m->k, x);
            for (int s = 0; s < pairs; s++) {
                float *gate = sums + s * 2 * PANEL;
                for (int v = 0; v < PANEL; v += VL)
                    vf_store(gate + v, vf_load(gate + v) * vf_sigmoid(vf_load(gate + v)) *
                                           vf_load(gate + PANEL + v));
                int row = (p + i + s * rounds) * PANEL;
                memcpy(y + row, gate, sizeof(float) * (size_t)(f - row < PANEL ? f - row : PANEL));
            }
        }
        p += pairs * rounds;
    }
}

/* The first lines of the streams, on their way while f(x) is computed. */
static ALWAYS_INLINE void mv_begin(const struct mv *m, const char *w, int tid)
{
    size_t panel = PANEL_BYTES(m->type, m->k);
    int n = m->swiglu ? m->n / 2 : m->n, streams = m->swiglu ? MV_STREAMS / 2 : MV_STREAMS;
    struct range mine = share(PANELS(n), 1, tid);
    if (!m->swiglu)
        streams = mv_choose(mine.end - mine.begin);
    else if (streams > mine.end - mine.begin)
        streams = mine.end - mine.begin;
    for (int s = 0; s < streams; s++) {
        const char *at = w + (size_t)(mine.begin + (mine.end - mine.begin) / streams * s) * panel;
        for (int i = 0; i < MV_AHEAD; i += 64) {
            PREFETCH(at + i);
            if (m->swiglu)
                PREFETCH(at + PACKED_BYTES(m->type, n, m->k) + i);
        }
    }
}

static ALWAYS_INLINE void mv_run(const struct mv *m, bool norm, float eps, float *y, const float *x,
                                 const char *w, const float *gain, const float *bias,
                                 const float *residual, float *scratch, int tid)
{
    float *own = scratch + (size_t)tid * MATVEC_SCRATCH_FLOATS(m->k);
    struct mv_x ready = {.f32 = x};
    mv_begin(m, w, tid);
    if (norm) {
        mv_norm(own, x, gain, m->k, eps);
        ready.f32 = own;
    }
    if (m->type == WEIGHTS_I8)
        mv_quantise(&ready, own + (m->k + 63) / 64 * 64, ready.f32, m->k);
    if (m->swiglu)
        mv_swiglu(m, y, w, &ready, tid);
    else
        mv_plain(m, y, w, &ready, bias, residual, tid);
}
#endif

matvec_fn KERNEL;
void KERNEL(float *y, const float *x, const void *w, const float *gain, const float *bias,
            const float *residual, float *scratch, int tid)
{
    const struct mv m = {MV_N, MV_K, WTYPE, MV_BIAS, MV_RESIDUAL, MV_SWIGLU};
    mv_run(&m, MV_NORM, MV_EPS, y, x, w, gain, bias, residual, scratch, tid);
}

#undef KERNEL
#undef MV_N
#undef MV_K
#undef WTYPE
#undef MV_NORM
#undef MV_EPS
#undef MV_BIAS
#undef MV_RESIDUAL
#undef MV_SWIGLU

/* rope_backward.c - dqkv[M][dq + 2 dkv] in place: gradients of the rotated q and k heads become
 * those of the projected ones; dgain[2][E] += where HEAD_NORM.
 *
 * KERNEL      the function's name
 * ROPE_M      rows; ROPE_T the length of a sequence
 * ROPE_H, ROPE_K, ROPE_E   heads, kv heads, head_dim (even, at most HEAD_MAX)
 * HEAD_NORM   literal 0 or 1; NORM_EPS is ignored
 *
 * Rows are split by share(M, ROW_GRANULE). Where HEAD_NORM, each thread sums dgain over its rows in
 * scratch[tid][2][E] and the threads add up columns behind a barrier; another kernel may use the
 * same scratch only after a barrier. */
#include "kernel.h"

#ifndef ARCH_ROPE_SPLIT
#define ARCH_ROPE_SPLIT
/* The cosines and sines of one position apart. */
static ALWAYS_INLINE void rope_split(float *cosine, float *sine, const float *rope, int half)
{
    for (int i = 0; i < half; i++) {
        cosine[i] = rope[2 * i];
        sine[i] = rope[2 * i + 1];
    }
}
#endif

static ALWAYS_INLINE void CONCAT(KERNEL, _turn)(float *d, const float *cosine, const float *sine)
{
    const int half = ROPE_E / 2;
    int j = 0;
    for (; j + VL <= half; j += VL) {
        vf a = vf_load(d + j), b = vf_load(d + half + j);
        vf c = vf_load(cosine + j), s = vf_load(sine + j);
        vf_store(d + j, a * c + b * s);
        vf_store(d + half + j, b * c - a * s);
    }
    for (; j < half; j++) {
        float a = d[j], b = d[half + j];
        d[j] = a * cosine[j] + b * sine[j];
        d[half + j] = b * cosine[j] - a * sine[j];
    }
}

/* Through n = x r gain: d becomes the gradient of x, sum[E] += that of gain. */
static ALWAYS_INLINE void CONCAT(KERNEL, _head_norm)(float *d, float *sum, const float *x, float r,
                                                     const float *gain)
{
    vf dot = {0};
    float rest = 0;
    int j = 0;
    for (; j + VL <= ROPE_E; j += VL)
        dot += vf_load(d + j) * vf_load(gain + j) * vf_load(x + j);
    for (; j < ROPE_E; j++)
        rest += d[j] * gain[j] * x[j];
    float c = (rest + vf_sum(dot)) / (float)ROPE_E * r * r;
    for (j = 0; j + VL <= ROPE_E; j += VL) {
        vf g = vf_load(d + j), lane = vf_load(x + j);
        vf_store(sum + j, vf_load(sum + j) + g * lane * r);
        vf_store(d + j, (g * vf_load(gain + j) - lane * c) * r);
    }
    for (; j < ROPE_E; j++) {
        sum[j] += d[j] * x[j] * r;
        d[j] = (d[j] * gain[j] - x[j] * c) * r;
    }
}

rope_backward_fn KERNEL;
void KERNEL(float *dqkv, float *dgain, const float *in, const float *rstd, const float *gain,
            const float *rope, float *scratch, int tid)
{
    struct range own = share(ROPE_M, ROW_GRANULE, tid), column = share(2 * ROPE_E, 16, tid);
    const int width = (ROPE_H + 2 * ROPE_K) * ROPE_E, turned = ROPE_H + ROPE_K;
    float cosine[HEAD_MAX / 2], sine[HEAD_MAX / 2];
    float *sum = HEAD_NORM ? scratch + (ptrdiff_t)tid * 2 * ROPE_E : NULL;
    if (HEAD_NORM)
        memset(sum, 0, sizeof(float) * 2 * ROPE_E);
    for (int i = own.begin; i < own.end; i++) {
        float *d = dqkv + (ptrdiff_t)i * width;
        rope_split(cosine, sine, rope + (ptrdiff_t)(i % ROPE_T) * ROPE_E, ROPE_E / 2);
        for (int h = 0; h < turned; h++) {
            int which = h < ROPE_H ? 0 : ROPE_E;
            CONCAT(KERNEL, _turn)(d + h * ROPE_E, cosine, sine);
            if (HEAD_NORM)
                CONCAT(KERNEL, _head_norm)
            (d + h * ROPE_E, sum + which, in + (ptrdiff_t)i * width + h * ROPE_E,
             rstd[(ptrdiff_t)i * turned + h], gain + which);
        }
    }
    if (!HEAD_NORM)
        return;
    team_barrier(tid);
    for (int t = 0; t < THREADS; t++)
        for (int j = column.begin; j < column.end; j++)
            dgain[j] += scratch[(ptrdiff_t)t * 2 * ROPE_E + j];
}

#undef KERNEL
#undef ROPE_M
#undef ROPE_T
#undef ROPE_H
#undef ROPE_K
#undef ROPE_E
#undef HEAD_NORM
#undef NORM_EPS

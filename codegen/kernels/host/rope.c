/* rope.c - out[M][dq + 2 dkv] = in with its q and k heads rotated at position i % T, before that
 * normalised where HEAD_NORM; v is copied.
 *
 * KERNEL      the function's name
 * ROPE_M      rows; ROPE_T the length of a sequence
 * ROPE_H, ROPE_K, ROPE_E   heads, kv heads, head_dim (even, at most HEAD_MAX)
 * HEAD_NORM   literal 0 or 1; NORM_EPS
 *
 * out may be in. Lanes i and i + E/2 of a head turn by rope[position][i]. Rows are split by
 * share(M, ROW_GRANULE). */
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

static ALWAYS_INLINE float CONCAT(KERNEL, _head_rstd)(const float *x)
{
    vf sum = {0};
    float rest = 0;
    int j = 0;
    for (; j + VL <= ROPE_E; j += VL)
        sum += vf_load(x + j) * vf_load(x + j);
    for (; j < ROPE_E; j++)
        rest += x[j] * x[j];
    return 1.0f / sqrtf((rest + vf_sum(sum)) / (float)ROPE_E + (float)NORM_EPS);
}

/* One head: to = rotated x r gain; gain is NULL without head norm. */
static ALWAYS_INLINE void CONCAT(KERNEL, _head)(float *to, const float *x, float r,
                                                const float *gain, const float *cosine,
                                                const float *sine)
{
    const int half = ROPE_E / 2;
    int j = 0;
    for (; j + VL <= half; j += VL) {
        vf a = vf_load(x + j), b = vf_load(x + half + j);
        vf c = vf_load(cosine + j), s = vf_load(sine + j);
        if (HEAD_NORM) {
            a = a * r * vf_load(gain + j);
            b = b * r * vf_load(gain + half + j);
        }
        vf_store(to + j, a * c - b * s);
        vf_store(to + half + j, b * c + a * s);
    }
    for (; j < half; j++) {
        float a = x[j], b = x[half + j];
        if (HEAD_NORM) {
            a = a * r * gain[j];
            b = b * r * gain[half + j];
        }
        to[j] = a * cosine[j] - b * sine[j];
        to[half + j] = b * cosine[j] + a * sine[j];
    }
}

rope_fn KERNEL;
void KERNEL(float *out, float *rstd, const float *in, const float *gain, const float *rope, int tid)
{
    struct range own = share(ROPE_M, ROW_GRANULE, tid);
    const int width = (ROPE_H + 2 * ROPE_K) * ROPE_E, turned = ROPE_H + ROPE_K;
    float cosine[HEAD_MAX / 2], sine[HEAD_MAX / 2];
    for (int i = own.begin; i < own.end; i++) {
        const float *from = in + (ptrdiff_t)i * width;
        float *to = out + (ptrdiff_t)i * width;
        rope_split(cosine, sine, rope + (ptrdiff_t)(i % ROPE_T) * ROPE_E, ROPE_E / 2);
        for (int h = 0; h < turned; h++) {
            float r = HEAD_NORM ? CONCAT(KERNEL, _head_rstd)(from + h * ROPE_E) : 1;
            CONCAT(KERNEL, _head)
            (to + h * ROPE_E, from + h * ROPE_E, r,
             HEAD_NORM ? gain + (h < ROPE_H ? 0 : ROPE_E) : NULL, cosine, sine);
            if (HEAD_NORM)
                rstd[(ptrdiff_t)i * turned + h] = r;
        }
        if (out != in)
            memcpy(to + turned * ROPE_E, from + turned * ROPE_E, sizeof(float) * ROPE_K * ROPE_E);
    }
}

#undef KERNEL
#undef ROPE_M
#undef ROPE_T
#undef ROPE_H
#undef ROPE_K
#undef ROPE_E
#undef HEAD_NORM
#undef NORM_EPS

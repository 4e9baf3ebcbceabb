/* norm.cu - y[m][D] = x rstd gain, rstd[m] = 1 / sqrt(mean(x^2) + eps). fp32 in, bf16 out.
 *
 * KERNEL     the function's name
 * NORM_M     most rows, NORM_D columns (a multiple of 8), NORM_EPS
 *
 * Launch: NORM_LAUNCH(m, n, k), a block a row. A row of up to NORM_THREADS * 32 columns is read
 * once and stays in registers; a longer one is read twice. */
#include "device.h"
#include "launch.h"
#include "archrt_cuda.h"

#ifndef NORM_HELD
#define NORM_HELD 4 /* chunks of 8 columns that a thread keeps */
#endif

DEVICE float CONCAT(KERNEL, _squares)(const float *x)
{
    float sum = 0.0f;
    UNROLL
    for (int i = 0; i < 8; i++)
        sum = f32_fma(x[i], x[i], sum);
    return sum;
}

/* Columns c .. c + 7 of the row. */
DEVICE void CONCAT(KERNEL, _load)(float out[8], const float *row, u32 c)
{
    const f32x4 *from = (const f32x4 *)(const void *)(row + c);
    const f32x4 a = from[0], b = from[1];
    out[0] = a.x;
    out[1] = a.y;
    out[2] = a.z;
    out[3] = a.w;
    out[4] = b.x;
    out[5] = b.y;
    out[6] = b.z;
    out[7] = b.w;
}

DEVICE void CONCAT(KERNEL, _store)(bf16 *y, const float x[8], const float *gain, float r, u32 c)
{
    float g[8];
    CONCAT(KERNEL, _load)(g, gain, c);
    UNROLL
    for (int i = 0; i < 8; i++)
        g[i] = x[i] * r * g[i];
    *(u32x4 *)(void *)(y + c) = bf16_pack8(g);
}

KERNEL_ENTRY(NORM_THREADS, 1)
KERNEL(bf16 *y, float *rstd, const float *x, const float *RESTRICT gain,
       const struct cuda_call *call)
{
    SHARED_ARENA(arena);
    const u32 t = threadIdx.x, row = blockIdx.x, d = (u32)(NORM_D);
    const float *from = x + (u64)row * d;
    bf16 *to = y + (u64)row * d;
    float held[NORM_HELD][8], sum = 0.0f;
    if (call && row >= (u32)call->rows)
        return;
    UNROLL
    for (u32 j = 0; j < NORM_HELD; j++) {
        const u32 c = (t + j * NORM_THREADS) * 8;
        if (c < d) {
            CONCAT(KERNEL, _load)(held[j], from, c);
            sum += CONCAT(KERNEL, _squares)(held[j]);
        }
    }
    for (u32 c = (t + NORM_HELD * NORM_THREADS) * 8; c < d; c += NORM_THREADS * 8) {
        float v[8];
        CONCAT(KERNEL, _load)(v, from, c);
        sum += CONCAT(KERNEL, _squares)(v);
    }
    sum = block_sum(sum, (float *)(void *)arena, NORM_THREADS);
    const float r = fast_rsqrt(sum / (float)d + (float)(NORM_EPS));
    UNROLL
    for (u32 j = 0; j < NORM_HELD; j++) {
        const u32 c = (t + j * NORM_THREADS) * 8;
        if (c < d)
            CONCAT(KERNEL, _store)(to, held[j], gain, r, c);
    }
    for (u32 c = (t + NORM_HELD * NORM_THREADS) * 8; c < d; c += NORM_THREADS * 8) {
        float v[8];
        CONCAT(KERNEL, _load)(v, from, c);
        CONCAT(KERNEL, _store)(to, v, gain, r, c);
    }
    if (rstd && t == 0)
        rstd[row] = r;
}

#undef KERNEL
#undef NORM_M
#undef NORM_D
#undef NORM_EPS
#undef NORM_HELD

/* norm_backward.cu - gradients of y = x r gain, r = rstd[m], over rows of D columns:
 * dx = or += r (g - x r^2 mean(g x)) with g = dy gain; dx16 its bf16 copy; dgain[D] += sum dy x r.
 *
 * KERNEL            the function's name
 * NORM_M            rows, NORM_D columns (a multiple of 8); NORM_EPS is ignored
 * NORM_ACCUMULATE   1 adds to dx, 0 overwrites it
 * NORM_IN_PLACE     1: dy stands in dx, in fp32 (and NORM_ACCUMULATE is 0)
 * NORM_FACTOR       1: dy lacks a factor of each row, factor[m]
 *
 * Floor: 16 M D bytes, of which 10 are read (12 and 6 where dx is
 * overwritten, 14 and 8 in place).
 *
 * Pass 1: blocks take rows in turn. A thread has the same vectors of four columns in every row, so
 * it copies x, dx and dy of the next row into shared memory while it works on this one, and sums
 * dgain there too, without a barrier; the only one is in the row's mean. Rows too long for that
 * (NORM_STAGED) are read where they are, x and dy twice. The block's dgain goes to
 * scratch[block][D], and pass 2 adds those up. */
#include "device.h"
#include "launch.h"
#include "archrt_cuda.h"
#include "columns.h"
#include "four.h"

#ifndef NORM_ROW_ONCE
#define NORM_ROW_ONCE
/* One row, in memory or staged: dx is what it was before. */
struct norm_row {
    const float *x, *dx;
    const bf16 *dy;
};
#endif

/* Starts copying this thread's part of a row. */
DEVICE void CONCAT(KERNEL, _fetch)(struct norm_row to, struct norm_row from)
{
    for (u32 c = threadIdx.x * 4; c < (u32)(NORM_D); c += NORM_THREADS * 4) {
        copy_async_16((void *)(to.x + c), from.x + c);
        if (NORM_ACCUMULATE || NORM_IN_PLACE)
            copy_async_16((void *)(to.dx + c), from.dx + c);
        if (!NORM_IN_PLACE)
            copy_async_8((void *)(to.dy + c), from.dy + c);
    }
}

/* Four columns of dy. */
DEVICE void CONCAT(KERNEL, _dy)(float dy[4], struct norm_row row, u32 c)
{
    if (NORM_IN_PLACE)
        four_load(dy, row.dx + c);
    else
        four_load_bf16(dy, row.dy + c);
}

/* This thread's part of the sum of dy gain x. */
DEVICE float CONCAT(KERNEL, _dot)(struct norm_row row, const float *RESTRICT gain)
{
    float sum = 0.0f;
    for (u32 c = threadIdx.x * 4; c < (u32)(NORM_D); c += NORM_THREADS * 4) {
        float x[4], dy[4], g[4];
        four_load(x, row.x + c);
        CONCAT(KERNEL, _dy)(dy, row, c);
        four_load(g, gain + c);
        UNROLL
        for (u32 i = 0; i < 4; i++)
            sum = f32_fma(x[i], dy[i] * g[i], sum);
    }
    return sum;
}

/* This thread's part of the row's dx; its share of dgain goes to sums. mean: of g x; by: what is
 * linear in dy still lacks, r among it. */
DEVICE void CONCAT(KERNEL, _row)(float *dx, bf16 *dx16, float *sums, struct norm_row row,
                                 const float *RESTRICT gain, float r, float mean, float by)
{
    const float pull = mean * r * r;
    for (u32 c = threadIdx.x * 4; c < (u32)(NORM_D); c += NORM_THREADS * 4) {
        float x[4], dy[4], g[4], sum[4], out[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        if (NORM_ACCUMULATE)
            four_load(out, row.dx + c);
        four_load(x, row.x + c);
        CONCAT(KERNEL, _dy)(dy, row, c);
        four_load(g, gain + c);
        four_load(sum, sums + c);
        UNROLL
        for (u32 i = 0; i < 4; i++) {
            out[i] += by * f32_fma(dy[i], g[i], -x[i] * pull);
            sum[i] = f32_fma(dy[i], x[i] * by, sum[i]);
        }
        four_store(dx + c, out);
        four_store_bf16(dx16 + c, out);
        four_store(sums + c, sum);
    }
}

DEVICE struct norm_row CONCAT(KERNEL, _at)(const float *x, const float *dx, const bf16 *dy, u32 row)
{
    const u64 at = (u64)row * (u32)(NORM_D);
    struct norm_row r;
    r.x = x + at;
    r.dx = dx + at;
    r.dy = dy + at;
    return r;
}

/* Stage 0 or 1 of shared memory: x[D], dx[D], dy[D]. */
DEVICE struct norm_row CONCAT(KERNEL, _stage)(float *stages, u32 number)
{
    const u32 d = (u32)(NORM_D);
    struct norm_row r;
    r.x = stages + number * (2 * d + d / 2);
    r.dx = r.x + d;
    r.dy = (const bf16 *)(const void *)(r.dx + d);
    return r;
}

KERNEL_ENTRY(NORM_THREADS, 4)
KERNEL(float *dx, bf16 *dx16, float *dgain, const bf16 *dy, const float *x,
       const float *RESTRICT rstd, const float *RESTRICT gain, const float *RESTRICT factor,
       void *scratch)
{
    SHARED_ARENA(arena);
    const u32 d = (u32)(NORM_D), m = (u32)(NORM_M), staged = NORM_STAGED(d);
    float *means = (float *)(void *)arena, *sums = means + 2 * NORM_THREADS / WARP;
    const float zero[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    u32 odd = 0;
    (void)dgain;
    (void)factor;
    for (u32 c = threadIdx.x * 4; c < d; c += NORM_THREADS * 4)
        four_store(sums + c, zero);
    struct norm_row now = CONCAT(KERNEL, _stage)(sums + d, 0);
    if (staged && blockIdx.x < m)
        CONCAT(KERNEL, _fetch)(now, CONCAT(KERNEL, _at)(x, dx, dy, blockIdx.x));
    copy_async_commit();
    for (u32 row = blockIdx.x; row < m; row += gridDim.x, odd ^= 1) {
        const float r = rstd[row], by = NORM_FACTOR ? r * factor[row] : r;
        const u64 at = (u64)row * d;
        const struct norm_row next = CONCAT(KERNEL, _stage)(sums + d, odd ^ 1);
        if (!staged)
            now = CONCAT(KERNEL, _at)(x, dx, dy, row);
        else if (row + gridDim.x < m)
            CONCAT(KERNEL, _fetch)(next, CONCAT(KERNEL, _at)(x, dx, dy, row + gridDim.x));
        copy_async_commit();
        copy_async_wait(1);
        float mean = CONCAT(KERNEL, _dot)(now, gain);
        mean = block_sum(mean, means + odd * (NORM_THREADS / WARP), NORM_THREADS) / (float)d;
        CONCAT(KERNEL, _row)(dx + at, dx16 + at, sums, now, gain, r, mean, by);
        now = next;
    }
    float *partial = (float *)scratch + (u64)blockIdx.x * d;
    for (u32 c = threadIdx.x * 4; c < d; c += NORM_THREADS * 4) {
        float sum[4];
        four_load(sum, sums + c);
        four_store(partial + c, sum);
    }
}

KERNEL_ENTRY(COLUMNS_THREADS, 1)
CONCAT(KERNEL, _2)
(float *dx, bf16 *dx16, float *dgain, const bf16 *dy, const float *x, const float *rstd,
 const float *gain, const float *factor, void *scratch)
{
    SHARED_ARENA(arena);
    (void)dx;
    (void)dx16;
    (void)dy;
    (void)x;
    (void)rstd;
    (void)gain;
    (void)factor;
    add_columns(dgain, (const float *)scratch, NORM_BACKWARD_BLOCKS((u32)(NORM_M), (u32)(NORM_D)),
                (u32)(NORM_D), (float *)(void *)arena);
}

#undef KERNEL
#undef NORM_M
#undef NORM_D
#undef NORM_EPS
#undef NORM_ACCUMULATE
#undef NORM_IN_PLACE
#undef NORM_FACTOR

/* sum_squares.cu - train->norm of N gradients and train->factor, by which clipping multiplies them:
 * 1 where there is no clipping or nothing to clip, 0 where the norm is not finite.
 *
 * KERNEL   the function's name
 * SUM_N    floats (a multiple of 4)
 *
 * Floor: 4 N bytes. Squares and sums are double, which no gradient overflows. Pass 1: blocks take
 * pieces of SUM_BLOCK vectors in turn, each leaves its sum in scratch; pass 2, one block, adds
 * them. The order depends on N and CUDA_SMS only. */
#include "device.h"
#include "launch.h"
#include "archrt_cuda.h"

/* Sum over the block, in thread 0. `shared`: SUM_THREADS doubles. */
DEVICE double CONCAT(KERNEL, _block)(double v, double *shared)
{
    const u32 t = threadIdx.x;
    shared[t] = v;
    for (u32 half = SUM_THREADS / 2; half > 0; half /= 2) {
        block_sync();
        if (t < half)
            shared[t] += shared[t + half];
    }
    return shared[t];
}

KERNEL_ENTRY(SUM_THREADS, 4)
KERNEL(struct cuda_train *train, const float *RESTRICT grads, void *scratch)
{
    SHARED_ARENA(arena);
    const u64 vectors = (u64)(SUM_N) / 4;
    const f32x4 *from = (const f32x4 *)(const void *)grads;
    double x = 0, y = 0, z = 0, w = 0;
    (void)train;
    for (u64 v = (u64)blockIdx.x * SUM_BLOCK + threadIdx.x; v < vectors;
         v += (u64)gridDim.x * SUM_BLOCK) {
        f32x4 four[SUM_EACH];
        UNROLL
        for (u32 j = 0; j < SUM_EACH; j++) {
            const f32x4 zero = {0.0f, 0.0f, 0.0f, 0.0f};
            four[j] = zero;
            if (v + j * SUM_THREADS < vectors)
                four[j] = from[v + j * SUM_THREADS];
        }
        UNROLL
        for (u32 j = 0; j < SUM_EACH; j++) {
            x += (double)four[j].x * (double)four[j].x;
            y += (double)four[j].y * (double)four[j].y;
            z += (double)four[j].z * (double)four[j].z;
            w += (double)four[j].w * (double)four[j].w;
        }
    }
    const double sum = CONCAT(KERNEL, _block)((x + y) + (z + w), (double *)(void *)arena);
    if (threadIdx.x == 0)
        ((double *)scratch)[blockIdx.x] = sum;
}

/* sqrt(x) as fp32, also where x is not one; infinity where the root is not. */
DEVICE float CONCAT(KERNEL, _root)(double x)
{
    const double up = 1.2676506002282294e30, down = 1 / up; /* 2^100, whose root is 2^50 */
    if (x > up)
        return f32_sqrt((float)(x * down)) * 1125899906842624.0f;
    if (x < down)
        return f32_sqrt((float)(x * up)) * 8.8817841970012523e-16f;
    return f32_sqrt((float)x);
}

KERNEL_ENTRY(SUM_THREADS, 1)
CONCAT(KERNEL, _2)(struct cuda_train *train, const float *grads, void *scratch)
{
    SHARED_ARENA(arena);
    double sum = 0;
    (void)grads;
    for (u32 i = threadIdx.x; i < SUM_BLOCKS((u64)(SUM_N)); i += SUM_THREADS)
        sum += ((const double *)scratch)[i];
    sum = CONCAT(KERNEL, _block)(sum, (double *)(void *)arena);
    if (threadIdx.x > 0)
        return;
    const float norm = CONCAT(KERNEL, _root)(sum), clip = train->clip;
    const u32 finite = norm <= 3.402823466e38f; /* not so of NaN */
    train->norm = norm;
    train->factor = !finite ? 0.0f : clip > 0.0f && norm > clip ? f32_divide(clip, norm) : 1.0f;
}

#undef KERNEL
#undef SUM_N

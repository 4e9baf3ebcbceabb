/* columns.h - the second pass of kernels whose blocks each leave a partial sum of columns. */
#ifndef COLUMNS_H
#define COLUMNS_H

#include "device.h"
#include "launch.h"

/* out[n] += the sum of partial[rows][n]. A block of COLUMNS_THREADS threads adds up 32 columns:
 * each warp some of the rows, then the first warp the warps' sums; always in the same order. Shared
 * memory: COLUMNS_THREADS floats. */
DEVICE void add_columns(float *out, const float *RESTRICT partial, u32 rows, u32 n, float *shared)
{
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const u32 column = blockIdx.x * WARP + lane;
    float sum = 0.0f;
    if (column < n)
        for (u32 r = warp; r < rows; r += COLUMNS_THREADS / WARP)
            sum += partial[(u64)r * n + column];
    shared[threadIdx.x] = sum;
    block_sync();
    if (warp > 0 || column >= n)
        return;
    for (u32 w = 1; w < COLUMNS_THREADS / WARP; w++)
        sum += shared[w * WARP + lane];
    out[column] += sum;
}

#endif

/* skinny_tiles.h - the two halves of a norm between kernels of decode on sm_90, 9 rows and more:
 * where x times gain stands, and what is left for the product behind it (archrt_cuda.h). */
#ifndef SKINNY_TILES_H
#define SKINNY_TILES_H

#include "device.h"
#include "archrt_cuda.h"

enum { SKINNY_PART = 32 }; /* columns of a sum of squares, or a multiple of them */

/* Where x[row][c] of [m][d] stands in tiles `high` rows high, in elements. Eight columns from a
 * multiple of 8 on are together. */
DEVICE u64 skinny_tile_at(u32 high, u32 d, u32 row, u32 c)
{
    const u64 tile = (u64)(row / high) * (CUDA_TILE_COLUMNS(d) / 64) + c / 64;
    return (tile * high + row % high) * 64 + (c / 8 ^ row) % 8 * 8 + c % 8;
}

/* This lane's part of a row's sums; the four lanes that share the row have all of it. */
DEVICE float skinny_squares(const float *squares, u32 d)
{
    const u32 fours = CUDA_SQUARES(d) / 4;
    float sum = 0.0f;
    UNROLL
    for (u32 n = 0; n < CEIL_DIV(fours, 4); n++) {
        const u32 i = n * 4 + lane_id() % 4;
        if (i < fours) {
            const f32x4 v = ((const f32x4 *)(const void *)squares)[i];
            sum += (v.x + v.y) + (v.z + v.w);
        }
    }
    return sum;
}

#endif

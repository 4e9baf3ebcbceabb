/* mma_tile.h - tiles of bf16 in shared memory, and the product of two of them on mma.sync: what the
 * products and the attention kernels share.
 *
 * A tile's rows are an odd number of 16-byte pieces apart: the eight rows that one phase of
 * ldmatrix reads lie in different banks whatever the tile's width, and every address is the lane's
 * own plus a constant. An XOR swizzle would save the sixteen bytes, but not for widths such as 40
 * or 72. */
#ifndef MMA_TILE_H
#define MMA_TILE_H

#include "device.h"

#define TILE_STRIDE(columns) ((((columns) / 8) | 1) * 8) /* elements; columns: a multiple of 8 */

/* Where this lane points ldmatrix, from the corner of 16 rows x 16 columns of a tile:
 *   by rows     x4 gives A of a tile [m][k]; x4_trans B, columns 0..7 and 8..15, of a tile [k][n]
 *   by columns  x4 gives B, the same, of a tile [n][k]; x4_trans A of a tile [k][m]
 *   single      of 16 rows x 8 columns, for x2: the odd eight at the end of a row */
struct tile_lane {
    u32 rows, columns, single;
};

DEVICE struct tile_lane tile_lane_of(u32 stride)
{
    const u32 l = lane_id();
    struct tile_lane at;
    at.rows = l % 16 * stride + l / 16 * 8;
    at.columns = (l / 16 * 8 + l % 8) * stride + l / 8 % 2 * 8;
    at.single = l % 16 * stride;
    return at;
}

/* Sums of a 16 x 16 block of D, as the A operand of the next product: two tiles of eight columns.
 */
DEVICE void mma_a_from_d(u32 a[4], const float left[4], const float right[4])
{
    a[0] = bf16_pack(left[0], left[1]);
    a[1] = bf16_pack(left[2], left[3]);
    a[2] = bf16_pack(right[0], right[1]);
    a[3] = bf16_pack(right[2], right[3]);
}

/* Four lanes hold a pair of columns each of four tiles of eight columns: d[j] of tile j. Gives lane
 * q the whole eight of tile q, sixteen bytes. */
DEVICE u32x4 mma_gather(const u32 d[4])
{
    const u32 odd = lane_id() % 2, high = lane_id() / 2 % 2;
    /* Between neighbours: of one of two tiles, two pairs of columns; then the other two. */
    const u32 a = shuffle_xor_u32(odd ? d[0] : d[1], 1, 4);
    const u32 b = shuffle_xor_u32(odd ? d[2] : d[3], 1, 4);
    const u32 x0 = odd ? a : d[0], y0 = odd ? d[1] : a;
    const u32 x1 = odd ? b : d[2], y1 = odd ? d[3] : b;
    const u32 x = shuffle_xor_u32(high ? x0 : x1, 2, 4);
    const u32 y = shuffle_xor_u32(high ? y0 : y1, 2, 4);
    u32x4 v;
    v.x = high ? x : x0;
    v.y = high ? y : y0;
    v.z = high ? x1 : x;
    v.w = high ? y1 : y;
    return v;
}

#endif

/* product.h - C[rows][columns] = A[rows][depth] B[depth][columns], bf16 with fp32 sums: what the
 * matrix products of prefill and training are made of. A kernel goes over its tiles of C:
 *
 *     struct product p;
 *     product_start(&p, columns, arena);     the operands filled in; columns of a tile: a constant
 *     if (product_feed(&p))                  the threads that only copy have done all there is
 *         return;
 *     for (u32 tile = blockIdx.x; tile < product_tiles(&p); tile += gridDim.x) {
 *         float sums[PRODUCT_I][PRODUCT_J][4];
 *         product_tile(&p, tile, sums, 0);   then does with the sums what it wants
 *     }
 *
 * sums[i][j], j < product_pieces(&p), is the d of mma (device.h) at rows product_row(&p) + 16 i,
 * columns product_column(&p) + 8 j of C. Two versions, same contract:
 *
 * product_mma.h: a tile a block, 128 x 128 by 4 warps of 64 x 64. That is 32 FLOPs a byte read from
 * shared memory, twice what sm_80 needs; two blocks a multiprocessor hide each other's beginning
 * and end. Depth 32 at a time through three stages.
 *
 * product_wgmma.h, for sm_90a: a block a multiprocessor that goes over tiles of 128 x 256 (or 192,
 * 128: PRODUCT_COLUMNS of launch.h), half of the rows a group of four warps; one thread copies, 64
 * of the depth at a time through four stages and more, and is a tile ahead while the sums are
 * stored. */
#ifndef PRODUCT_H
#define PRODUCT_H

#include "device.h"
#include "launch.h"
#include "mma_tile.h"

#if PRODUCT_WGMMA
#include "device_sm90.h"
typedef tensor_map product_source;
#else
typedef bf16 product_source;
#endif

/* One operand, by a tensor map on sm_90a (launch.h). Stored along: [rows of C][depth] for A,
 * [columns of C][depth] for B, as activations and weights stand to a forward product; across:
 * [depth][rows or columns of C]. `row` elements lie between its rows; side and depth are its
 * extents, multiples of 8 where contiguous. `across` is a constant.
 *
 * paired: 0, or, of columns stored along, half the side: what a thread has in sums[i][j] and
 * sums[i][j + product_pieces(&p) / 2] are then column c and column paired + c (gate and up) for c =
 * product_column(&p) / 2 + 8 j. */
struct product_operand {
    const product_source *at;
    u64 row;
    u32 side, depth, across, paired;
};

/* The corner of a tile of C. Tiles that are worked on at one time form a rectangle, eight tiles
 * down, so that they share what they read by way of L2. */
DEVICE void product_corner(u32 tile, u32 rows, u32 columns, u32 wide, u32 *row, u32 *column)
{
    const u32 band = 8, down = DIV_UP(rows, PRODUCT_ROWS), right = DIV_UP(columns, wide);
    const u32 top = tile / (band * right) * band;
    const u32 height = down - top < band ? down - top : band;
    const u32 in_band = tile - top * right;
    *row = (top + in_band % height) * PRODUCT_ROWS;
    *column = in_band / height * wide;
}

struct product;
DEVICE u32 product_tiles(const struct product *p);
DEVICE u32 product_skips(const struct product *p, u32 tile);
#if PRODUCT_WGMMA
#include "product_wgmma.h"
#else
#include "product_mma.h"
#endif

DEVICE u32 product_tiles(const struct product *p)
{
    return PRODUCT_TILES(p->a.side, p->b.side, p->columns);
}

/* C = x[rows][k] w[n][k]^T: both operands stored along, nothing added. */
DEVICE void product_along(struct product *p, const product_source *x, u32 rows,
                          const product_source *w, u32 n, u32 k)
{
    p->a.at = x;
    p->a.side = rows;
    p->b.at = w;
    p->b.side = n;
    p->a.row = p->b.row = p->a.depth = p->b.depth = k;
    p->a.across = p->b.across = p->a.paired = p->b.paired = 0;
    p->old = 0;
}

/* Whether nobody wants a tile: the kernel leaves it out, as the threads that copy do. */
DEVICE u32 product_skips(const struct product *p, u32 tile)
{
    u32 row, column;
    if (!p->wanted)
        return 0;
    product_corner(tile, p->a.side, p->b.side, p->columns, &row, &column);
    const u32 *quarters = p->wanted + row / PRODUCT_ROWS * 4;
    return (quarters[0] | quarters[1] | quarters[2] | quarters[3]) == 0;
}

/* The sums as bf16 to C, whose rows are `row` elements apart, 64 whole bytes at a time. */
DEVICE void product_store_bf16(const struct product *p, bf16 *c, u64 row,
                               float sums[PRODUCT_I][PRODUCT_J][4])
{
    const u32 r0 = product_row(p) + lane_id() / 4, c0 = product_column(p) + lane_id() % 4 * 8;
    UNROLL
    for (u32 i = 0; i < PRODUCT_I * 2; i++) {
        const u32 r = r0 + i * 8;
        UNROLL
        for (u32 j = 0; j < product_pieces(p); j += 4) {
            u32 d[4];
            UNROLL
            for (u32 n = 0; n < 4; n++)
                d[n] = bf16_pack(sums[i / 2][j + n][i % 2 * 2], sums[i / 2][j + n][i % 2 * 2 + 1]);
            const u32x4 v = mma_gather(d);
            if (r < p->a.side && c0 + j * 8 < p->b.side)
                *(u32x4 *)(void *)(c + r * row + c0 + j * 8) = v;
        }
    }
}

/* Columns of C from c0 on, negative past its end. Asked for in every row and compared with
 * constants: else the compiler keeps all of a row's columns, a register each, from row to row. */
DEVICE i32 product_left(const struct product *p, u32 c0)
{
    return (i32)(u32)here_u64(p->b.side - c0);
}

/* The sums to c, as product_add_f32 leaves them where c has zeros: no -0. */
DEVICE void product_store_f32(const struct product *p, float *RESTRICT c, u64 row,
                              float sums[PRODUCT_I][PRODUCT_J][4])
{
    const u32 r0 = product_row(p) + lane_id() / 4, c0 = product_column(p) + lane_id() % 4 * 2;
    UNROLL
    for (u32 i = 0; i < PRODUCT_I * 2; i++) {
        const i32 left = product_left(p, c0);
        float *to = c + (r0 + i * 8) * row + c0;
        if (r0 + i * 8 >= p->a.side)
            continue;
        UNROLL
        for (u32 j = 0; j < product_pieces(p); j++) {
            f32x2 v;
            v.x = sums[i / 2][j][i % 2 * 2] + 0.0f;
            v.y = sums[i / 2][j][i % 2 * 2 + 1] + 0.0f;
            if (left > (i32)j * 8)
                *(f32x2 *)(void *)(to + j * 8) = v;
        }
    }
}

/* Adds the sums to c, whose rows are `row` elements apart; eight reads, then eight writes. */
DEVICE void product_add_f32(const struct product *p, float *RESTRICT c, u64 row,
                            float sums[PRODUCT_I][PRODUCT_J][4])
{
    const u32 r0 = product_row(p) + lane_id() / 4, c0 = product_column(p) + lane_id() % 4 * 2;
    UNROLL
    for (u32 i = 0; i < PRODUCT_I * 2; i++) {
        const i32 left = product_left(p, c0);
        float *to = c + (r0 + i * 8) * row + c0;
        if (r0 + i * 8 >= p->a.side)
            continue;
        UNROLL
        for (u32 j = 0; j < product_pieces(p); j += 8) {
            f32x2 old[8];
            UNROLL
            for (u32 n = 0; n < 8; n++)
                if (left > (i32)(j + n) * 8)
                    old[n] = *(const f32x2 *)(const void *)(to + (j + n) * 8);
            UNROLL
            for (u32 n = 0; n < 8; n++)
                if (left > (i32)(j + n) * 8) {
                    old[n].x += sums[i / 2][j + n][i % 2 * 2];
                    old[n].y += sums[i / 2][j + n][i % 2 * 2 + 1];
                    *(f32x2 *)(void *)(to + (j + n) * 8) = old[n];
                }
        }
    }
}

#endif

/* skinny_product.h - y[m][N] = x[m][K] w[N][K]^T for 9 rows and more on tensor cores, the weights
 * read once for each 256 rows: what the skinny_*.cu files share. A template: each of them includes
 * it with
 *
 * KERNEL    the entry point's name
 * DM_M      rows, DM_N, DM_K
 *
 * Weights are the 16 rows of the matrix instruction, rows of x its 8 columns, so that 9 rows
 * cost 16. Work comes in items of two rows of weights, as in decode_stream.h. A block has at most
 * 64 items, an even share of them, and an even share of the columns where the items are too few for
 * all processors (SKINNY_SPLITS). Its 8 warps are 4 along the items, 32 rows each, by 2 along x, or
 * by 2 along the columns where x has at most 64 rows: each fragment of weights meets up to 16 of x.
 *
 * Both operands come through a ring of SKINNY_STAGES in shared memory; the weights of the first
 * stages are asked for before dependent_wait(). Splits leave their sums in scratch, and the last to
 * come adds them in order. */

#ifndef SKINNY_PRODUCT_H
#define SKINNY_PRODUCT_H

#include "device.h"
#include "launch.h"
#include "archrt_cuda.h"
#include "even_share.h"

enum {
    SKINNY_WARP_ITEMS = 16,
    SKINNY_PREFETCH = 3, /* stages behind the ring, into L2 */
    SKINNY_AT_ONCE = 4   /* sums of splits that a thread reads before it stores any */
};

/* What a block has to do: items, columns in steps, rows of x. */
struct skinny_place {
    u32 first, end;
    u32 step, steps; /* the first, how many */
    u32 row;         /* of x, the block's first */
};

/* y[row][D] = the norm of x[D], for pass 1 of those that begin with one; a block a row. */
DEVICE void skinny_norm(bf16 *y, const float *x, const float *gain, u32 d, float eps,
                        float *scratch)
{
    float sum = 0.0f;
    for (u32 c = threadIdx.x * 4; c < d; c += SKINNY_THREADS * 4) {
        const f32x4 v = *(const f32x4 *)(const void *)(x + c);
        sum += f32_fma(v.x, v.x, v.y * v.y) + f32_fma(v.z, v.z, v.w * v.w);
    }
    sum = block_sum(sum, scratch, SKINNY_THREADS);
    const float r = fast_rsqrt(sum * (1.0f / (float)d) + eps);
    for (u32 c = threadIdx.x * 4; c < d; c += SKINNY_THREADS * 4) {
        const f32x4 v = *(const f32x4 *)(const void *)(x + c);
        const f32x4 g = *(const f32x4 *)(const void *)(gain + c);
        u32x2 packed;
        packed.x = bf16_pack(v.x * r * g.x, v.y * r * g.y);
        packed.y = bf16_pack(v.z * r * g.z, v.w * r * g.w);
        *(u32x2 *)(void *)(y + c) = packed;
    }
}

/* The sums of split s: {first row, second row of weights}[m][items]. */
DEVICE f32x2 *skinny_partial(f32x2 *partial, u32 split, u32 rows, u32 items)
{
    return partial + (u64)split * rows * items;
}

/* Whether this block is the last of `blocks` to count itself in; all its threads know, and see what
 * the others wrote. */
DEVICE u32 skinny_last(int *counter, u32 blocks, u32 *shared)
{
    block_sync();
    if (threadIdx.x == 0) {
        *shared = atomic_add_acq_rel_u32((u32 *)counter, 1) + 1 == blocks;
        if (*shared)
            *counter = 0;
    }
    block_sync();
    return *shared;
}

#endif

#define PART(name) CONCAT(KERNEL, name)
#define BLOCK_ROWS LESSER(DM_M, SKINNY_ROWS) /* of x */
#define BLOCKS SKINNY_BLOCKS((u32)(DM_N), (u32)(DM_K))
#define SPLITS SKINNY_SPLITS((u32)(DM_N), (u32)(DM_K))
#define DEPTH SKINNY_DEPTH(DM_M) /* columns of a stage */
#define STAGES SKINNY_STAGES(DM_M)
#define STRIDE (DEPTH + 8)                      /* elements between rows of a tile */
#define SPLIT_K (BLOCK_ROWS <= 64)              /* the second half of the warps: by columns, or x */
#define WARP_X SKINNY_WARP_X(DM_M)              /* rows of x a warp, a multiple of 16 */
#define TILE_X SKINNY_TILE_X(DM_M)              /* and a block */
#define STAGE ((SKINNY_TILE + TILE_X) * STRIDE) /* elements */
#define PIECES (DEPTH / 8)                      /* of a row in a stage */
#define SWEEP (SKINNY_THREADS / PIECES)         /* rows that the block copies at once */

DEVICE struct skinny_place PART(_place)(void)
{
    const u32 items = CEIL_DIV((u32)(DM_N), 2), steps = CEIL_DIV((u32)(DM_K), DEPTH);
    struct skinny_place p;
    p.first = even_share(items, BLOCKS, blockIdx.x);
    p.end = even_share(items, BLOCKS, blockIdx.x + 1);
    p.step = even_share(steps, SPLITS, blockIdx.y);
    p.steps = even_share(steps, SPLITS, blockIdx.y + 1) - p.step;
    p.row = blockIdx.z * SKINNY_ROWS;
    return p;
}

/* This thread's rows of weights, one a sweep, at its piece of column 0; NULL where there is none.
 */
DEVICE void PART(_rows)(const bf16 *from[SKINNY_TILE / SWEEP], const struct skinny_place *p,
                        const bf16 *w, u32 half)
{
    UNROLL
    for (u32 i = 0; i < SKINNY_TILE / SWEEP; i++) {
        const u32 y = threadIdx.x / PIECES + i * SWEEP, item = p->first + y / 16 * 8 + y % 8;
        const u32 row = item + item / half * half + (y % 16 < 8 ? 0 : half);
        from[i] = item < p->end && row < (u32)(DM_N)
                      ? w + (u64)row * (u32)(DM_K) + threadIdx.x % PIECES * 8
                      : (const bf16 *)0;
    }
}

DEVICE void PART(_copy_w)(bf16 *tile, const bf16 *const from[SKINNY_TILE / SWEEP], const bf16 *w,
                          u32 column)
{
    const u32 c = threadIdx.x % PIECES * 8;
    const u32 inside = (u32)(DM_K) % DEPTH == 0 || column + c < (u32)(DM_K);
    UNROLL
    for (u32 i = 0; i < SKINNY_TILE / SWEEP; i++)
        copy_async_16_part(tile + (threadIdx.x / PIECES + i * SWEEP) * STRIDE + c,
                           from[i] && inside ? from[i] + column : w, from[i] && inside ? 16 : 0);
}

DEVICE void PART(_copy_x)(bf16 *tile, const bf16 *x, u32 row, u32 rows, u32 column)
{
    const u32 c = threadIdx.x % PIECES * 8;
    const u32 inside = (u32)(DM_K) % DEPTH == 0 || column + c < (u32)(DM_K);
    UNROLL
    for (u32 i = 0; i < DIV_UP(TILE_X, SWEEP); i++) {
        const u32 y = threadIdx.x / PIECES + i * SWEEP, there = inside && row + y < rows;
        if (TILE_X % SWEEP == 0 || y < TILE_X)
            copy_async_16_part(tile + y * STRIDE + c,
                               there ? x + (u64)(row + y) * (u32)(DM_K) + column + c : x,
                               there ? 16 : 0);
    }
}

/* Asks for the weights of the first stages: nothing else may be touched yet. */
DEVICE void PART(_start)(bf16 *ring, const bf16 *const from[SKINNY_TILE / SWEEP], const bf16 *w,
                         const struct skinny_place *p)
{
    UNROLL
    for (u32 s = 0; s < STAGES - 1; s++)
        if (s < p->steps)
            PART(_copy_w)(ring + s * STAGE, from, w, (p->step + s) * DEPTH);
    if (threadIdx.x % PIECES == 0)
        for (u32 s = STAGES - 1; s < STAGES - 1 + SKINNY_PREFETCH && s < p->steps; s++)
            UNROLL
    for (u32 i = 0; i < SKINNY_TILE / SWEEP; i++)
        if (from[i])
            prefetch_l2(from[i] + (p->step + s) * DEPTH);
}

/* sums += 32 rows of weights by 16 columns, times the warp's rows of x. */
DEVICE void PART(_multiply)(float sums[2][WARP_X / 8][4], const bf16 *w, const bf16 *x)
{
    u32 a[2][4];
    ldmatrix_x4(a[0], w);
    ldmatrix_x4(a[1], w + 16 * STRIDE);
    UNROLL
    for (u32 j = 0; j < WARP_X / 8; j += 2) {
        u32 b[4];
        ldmatrix_x4(b, x + j * 8 * STRIDE);
        UNROLL
        for (u32 i = 0; i < 2; i++) {
            mma_m16n8k16_bf16(sums[i][j], a[i], b);
            mma_m16n8k16_bf16(sums[i][j + 1], a[i], b + 2);
        }
    }
}

/* Adds up the two halves of the columns: the first four warps get the sums. */
DEVICE void PART(_join)(float sums[2][WARP_X / 8][4], float *shared)
{
    float *mine = shared + threadIdx.x % (SKINNY_THREADS / 2);
    if (threadIdx.x >= SKINNY_THREADS / 2)
        UNROLL
    for (u32 i = 0; i < WARP_X; i++)
        mine[i * (SKINNY_THREADS / 2)] = sums[i / (WARP_X / 2)][i / 4 % (WARP_X / 8)][i % 4];
    block_sync();
    if (threadIdx.x < SKINNY_THREADS / 2)
        UNROLL
    for (u32 i = 0; i < WARP_X; i++)
        sums[i / (WARP_X / 2)][i / 4 % (WARP_X / 8)][i % 4] += mine[i * (SKINNY_THREADS / 2)];
}

/* The block's product, after PART(_start) and dependent_wait(). sums[i][j] is d of items 8 i.. of
 * the warp and its rows 8 j.. of x. */
DEVICE void PART(_product)(float sums[2][WARP_X / 8][4], bf16 *ring,
                           const bf16 *const from[SKINNY_TILE / SWEEP], const bf16 *w,
                           const bf16 *x, u32 rows, const struct skinny_place *p)
{
    const u32 l = lane_id(), warp = threadIdx.x / WARP, side = warp / 4;
    const u32 w_at =
        (warp % 4 * 32 + l % 16) * STRIDE + l / 16 * 8 + (SPLIT_K ? side * DEPTH / 2 : 0);
    const u32 x_at = (SKINNY_TILE + (SPLIT_K ? 0 : side * WARP_X) + l / 16 * 8 + l % 8) * STRIDE +
                     l / 8 % 2 * 8 + (SPLIT_K ? side * DEPTH / 2 : 0);
    UNROLL
    for (u32 i = 0; i < WARP_X; i++)
        sums[i / (WARP_X / 2)][i / 4 % (WARP_X / 8)][i % 4] = 0.0f;
    UNROLL
    for (u32 s = 0; s < STAGES - 1; s++) {
        if (s < p->steps)
            PART(_copy_x)
            (ring + s * STAGE + SKINNY_TILE * STRIDE, x, p->row, rows, (p->step + s) * DEPTH);
        copy_async_commit();
    }
    u32 read = 0, fill = STAGES - 1;
    for (u32 s = 0; s < p->steps; s++) {
        copy_async_wait(STAGES - 2);
        block_sync();
        if (s + STAGES - 1 < p->steps) {
            const u32 column = (p->step + s + STAGES - 1) * DEPTH;
            PART(_copy_w)(ring + fill * STAGE, from, w, column);
            PART(_copy_x)(ring + fill * STAGE + SKINNY_TILE * STRIDE, x, p->row, rows, column);
        }
        copy_async_commit();
        const bf16 *tile = ring + read * STAGE;
        UNROLL
        for (u32 k = 0; k < DEPTH / (SPLIT_K ? 2 : 1); k += 16)
            PART(_multiply)(sums, tile + w_at + k, tile + x_at + k);
        fill = read;
        read = read + 1 == STAGES ? 0 : read + 1;
    }
    copy_async_wait(0);
    block_sync();
    if (SPLIT_K)
        PART(_join)(sums, (float *)(void *)ring);
}

/* Of sum [i][j][e] (and [e + 2], of the second row): its item and row of x; 0 where there is none.
 */
DEVICE u32 PART(_item)(const struct skinny_place *p, u32 rows, u32 i, u32 j, u32 e, u32 *item,
                       u32 *row)
{
    const u32 l = lane_id(), warp = threadIdx.x / WARP, side = warp / 4;
    const u32 x = (SPLIT_K ? 0 : side * WARP_X) + j * 8 + l % 4 * 2 + e;
    *item = p->first + warp % 4 * SKINNY_WARP_ITEMS + i * 8 + l / 4;
    *row = p->row + x;
    return *item < p->end && x < SKINNY_ROWS && *row < rows && !(SPLIT_K && side);
}

/* Leaves the block's sums in scratch. */
DEVICE void PART(_leave)(f32x2 *partial, float sums[2][WARP_X / 8][4], u32 rows,
                         const struct skinny_place *p)
{
    const u32 items = CEIL_DIV((u32)(DM_N), 2);
    f32x2 *to = skinny_partial(partial, blockIdx.y, rows, items);
    UNROLL
    for (u32 i = 0; i < WARP_X / 2; i++) {
        const u32 a = i / (WARP_X / 4), j = i / 2 % (WARP_X / 8), e = i % 2;
        const f32x2 v = {sums[a][j][e], sums[a][j][2 + e]};
        u32 item, row;
        if (PART(_item)(p, rows, a, j, e, &item, &row))
            to[(u64)row * items + item] = v;
    }
}

/* Adds up what the splits left of an item and row. */
DEVICE f32x2 PART(_gather)(f32x2 *partial, u32 rows, u32 item, u32 row)
{
    const u32 items = CEIL_DIV((u32)(DM_N), 2);
    f32x2 sum = {0, 0};
    for (u32 s = 0; s < SPLITS; s++) {
        const f32x2 v = skinny_partial(partial, s, rows, items)[(u64)row * items + item];
        sum.x += v.x;
        sum.y += v.y;
    }
    return sum;
}

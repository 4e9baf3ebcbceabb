/* skinny_wgmma.h - the products of skinny_product.h on sm_90a: boxes of weights by TMA, products of
 * warp groups. A template too; the file that includes it defines
 *
 * KERNEL       the entry point's name
 * DM_M         rows, DM_N, DM_K
 * ROWS_WIDE    rows of weights of a tile, a constant multiple of 16
 * TILES        how many tiles there are
 * BOXES        each tile's rows come as so many boxes of ROWS_WIDE / BOXES, a multiple of 8
 * X_TILES      1: x is tiles, and sums want the factor of their row (skinny_tiles.h); 0: rows, by
 *              a tensor map
 * HALF_PIECES  columns of the result come in pieces of 8, and a thread has, with each, the one so
 *              many behind: of every 2 HALF_PIECES the first half and the second
 *
 * and behind it PART(_box), where the boxes of a tile begin, PART(_store), what becomes of a
 * thread's share of a tile's sums, and what that wants to have in registers by then: PART(_know),
 * from what no kernel of the step writes, and PART(_fetch), of a tile.
 *
 * Rows of x are the 64 rows of the instruction, a warp group for each 64 of them, at most 256 a
 * block; weights are its columns, so that a tile may be any multiple of 16 of them and a thread has
 * neighbours of one row of the result. One warp copies, 64 columns of weights and x a stage, and
 * goes on to the next tile while the sums are stored. It asks for the weights of the first stages
 * before dependent_wait().
 *
 * Where the tiles are too few for all processors, a cluster of SPLITS blocks shares a tile's
 * columns. They leave their sums where their rings were, as the threads hold them, and each adds
 * up, in order, those of a part of the rows: with all of its warps, a few rows and a few pieces of
 * them each, since what follows is latency. */

#ifndef SKINNY_WGMMA_H
#define SKINNY_WGMMA_H

#include "device.h"
#include "launch.h"
#include "archrt_cuda.h"
#include "device_sm90.h"
#include "even_share.h"
#include "skinny_tiles.h"

struct skinny_work {
    u8 *ring;
    u64 *full, *empty;       /* mbarriers of the stages */
    u32 split, first, steps; /* the block's columns, in steps of 64 */
    u32 step;                /* so far: the next one's stage is step % stages */
};

/* What a thread finishes of each tile: rows `row` and row + 8, the pairs of pieces span, span +
 * SPANS ..: those that thread `from` of each block of the cluster has the sums of. */
struct skinny_share {
    u32 from, row, span;
};

/* The next 16 columns: sums[64][wide] (+)= x w^T. */
DEVICE void skinny_step(float *sums, u64 x, u64 w, u32 wide, u32 add)
{
    if (wide == 128)
        wgmma_n128(sums, x, w, add);
    else if (wide == 112)
        wgmma_n112(sums, x, w, add);
    else if (wide == 96)
        wgmma_n96(sums, x, w, add);
    else if (wide == 80)
        wgmma_n80(sums, x, w, add);
    else if (wide == 64)
        wgmma_n64(sums, x, w, add);
    else
        wgmma_n48(sums, x, w, add);
}

#endif

#define PART(name) CONCAT(KERNEL, name)
enum {
    PART(_wide) = ROWS_WIDE,
    PART(_pairs) = ROWS_WIDE / 16,
    PART(_box_bytes) = ROWS_WIDE / (BOXES)*128,
    PART(_x_bytes) = SKINNY_X(DM_M) * 128,
    PART(_stage_bytes) = SKINNY_STAGE(DM_M, ROWS_WIDE),
    PART(_multipliers) = SKINNY_GROUPS(DM_M) * 128
};
#define WIDE PART(_wide)
#define PIECES (PART(_wide) / 8) /* of a row of sums: 8 columns each */
#define STAGES ((u32)SKINNY_STAGES_90(DM_M, (u32)(TILES), (u32)(DM_K), (u32)(ROWS_WIDE)))
#define PAIRS PART(_pairs)
#define SPLITS SKINNY_SPLITS_90((u32)(TILES), (u32)(DM_K))
/* Threads that share a row's pairs beside the four that share a piece. */
#define SPANS (SPLITS == 1 ? 1u : SPLITS == 4 ? 4u : 2u)
STATIC_ASSERT(SKINNY_X(DM_M) == CUDA_TILE_HIGH(DM_M), "a tile is what a stage has of x");
STATIC_ASSERT((ROWS_WIDE) % 16 == 0 && (ROWS_WIDE) >= 48 && (ROWS_WIDE) <= 128,
              "one of skinny_step()'s; sums of 128 by 256 fit where the ring was");

struct PART(_out);
/* The first row of weights of a tile's box. */
DEVICE u32 PART(_box)(u32 tile, u32 box);
/* Before dependent_wait(), and behind it before a tile's products. */
DEVICE void PART(_know)(struct PART(_out) * out, const struct skinny_share *at);
DEVICE void PART(_fetch)(struct PART(_out) * out, const struct skinny_share *at, u32 tile);
/* sums[8 k + 4 h + 2 i] and the next are row + 8 i, columns PART(_column)(p, h) and the next of the
 * tile, p = PART(_number)(at, k), if that is below PAIRS. By whole warps. */
DEVICE void PART(_store)(struct PART(_out) * out, const struct skinny_share *at, u32 tile,
                         float sums[WIDE / 2]);

/* The thread's pair k of those of a tile; PAIRS and more: it has no more. */
DEVICE u32 PART(_number)(const struct skinny_share *at, u32 k)
{
    return k * SPANS < PAIRS ? k * SPANS + at->span : PAIRS;
}

/* The piece of a pair that is first or second. */
DEVICE u32 PART(_piece)(u32 pair, u32 second)
{
    return pair / (HALF_PIECES) * (2 * (HALF_PIECES)) + pair % (HALF_PIECES) +
           second * (HALF_PIECES);
}

DEVICE u32 PART(_column)(u32 pair, u32 second)
{
    return PART(_piece)(pair, second) * 8 + lane_id() % 4 * 2;
}

/* Over the threads that share a row. */
DEVICE float PART(_row_sum)(float v)
{
    v = warp_sum(v, 4);
    if (SPANS > 1)
        v += shuffle_xor_f32(v, 16, WARP);
    if (SPANS == 4)
        v += shuffle_xor_f32(v, 8, WARP);
    return v;
}

/* This thread's share: a warp's part of the block's part of the rows that there are. 0: it has
 * none.
 */
DEVICE u32 PART(_share)(struct skinny_share *at, const struct skinny_work *p);

DEVICE void PART(_begin)(struct skinny_work *p, u8 *arena)
{
    const u32 steps = CEIL_DIV((u32)(DM_K), 64);
    p->ring = arena;
    p->full = (u64 *)(void *)(arena + STAGES * PART(_stage_bytes));
    p->empty = p->full + STAGES;
    p->split = blockIdx.y;
    p->first = even_share(steps, SPLITS, blockIdx.y);
    p->steps = even_share(steps, SPLITS, blockIdx.y + 1) - p->first;
    p->step = 0;
    if (threadIdx.x == 0) {
        for (u32 s = 0; s < STAGES; s++) {
            mbarrier_init(p->full + s, 1);
            mbarrier_init(p->empty + s, PART(_multipliers) / WARP);
        }
        mbarrier_init_fence();
    }
    block_sync();
}

/* Starts the copy of the weights of a step into its stage, once that is free. */
DEVICE void PART(_feed_w)(const struct skinny_work *p, const tensor_map *w, u32 tile, u32 step,
                          u32 column)
{
    u8 *stage = p->ring + step % STAGES * PART(_stage_bytes);
    u64 *full = p->full + step % STAGES;
    mbarrier_wait(p->empty + step % STAGES, ~(step / STAGES) & 1);
    mbarrier_arrive_expect(full, PART(_stage_bytes));
    UNROLL
    for (u32 b = 0; b < BOXES; b++)
        tensor_load_2d(stage + b * PART(_box_bytes), w, (i32)(column * 64),
                       (i32)PART(_box)(tile, b), full);
}

DEVICE void PART(_feed_x)(const struct skinny_work *p, const void *x, u32 step, u32 column)
{
    u8 *tile = p->ring + step % STAGES * PART(_stage_bytes) + WIDE * 128;
    u64 *full = p->full + step % STAGES;
    if (X_TILES) {
        const u32 number = blockIdx.z * CEIL_DIV((u32)(DM_K), 64) + column;
        bulk_load(tile, (const u8 *)x + (u64)number * PART(_x_bytes), PART(_x_bytes), full);
    } else {
        tensor_load_2d(tile, (const tensor_map *)x, (i32)(column * 64),
                       (i32)(blockIdx.z * SKINNY_ROWS), full);
    }
}

/* The copying warp, one thread of it: all steps of all tiles. 0 in the others. */
DEVICE u32 PART(_feed)(const struct skinny_work *p, const tensor_map *w, const void *x)
{
    if (threadIdx.x < PART(_multipliers))
        return 0;
    if (lane_id() > 0)
        return 1;
    const u32 ahead = p->steps < STAGES ? p->steps : STAGES;
    tensor_map_acquire(w);
    if (!X_TILES)
        tensor_map_acquire((const tensor_map *)x);
    for (u32 s = 0; s < ahead; s++)
        PART(_feed_w)(p, w, blockIdx.x, s, p->first + s);
    dependent_wait();
    for (u32 s = 0; s < ahead; s++)
        PART(_feed_x)(p, x, s, p->first + s);
    u32 step = ahead, s = ahead;
    for (u32 tile = blockIdx.x; tile < (u32)(TILES); tile += gridDim.x) {
        for (; s < p->steps; s++, step++) {
            PART(_feed_w)(p, w, tile, step, p->first + s);
            PART(_feed_x)(p, x, step, p->first + s);
        }
        s = 0;
    }
    return 1;
}

/* The warp has read a step's stage. */
DEVICE void PART(_give_back)(const struct skinny_work *p, u32 step)
{
    warp_sync();
    if (lane_id() == 0)
        mbarrier_arrive(p->empty + step % STAGES);
}

/* The multiplying warps: the block's columns of a tile. */
DEVICE void PART(_product)(struct skinny_work *p, float sums[WIDE / 2])
{
    for (u32 s = 0; s < p->steps; s++, p->step++) {
        const u8 *stage = p->ring + p->step % STAGES * PART(_stage_bytes);
        const u8 *mine = stage + WIDE * 128 + threadIdx.x / 128 * 8192; /* 64 rows of x */
        mbarrier_wait(p->full + p->step % STAGES, p->step / STAGES & 1);
        const u64 w = wgmma_along(stage, 128), x = wgmma_along(mine, 128);
        wgmma_fence();
        UNROLL
        for (u32 k = 0; k < 4; k++)
            skinny_step(sums, x + k * 2, w + k * 2, WIDE, s | k);
        wgmma_commit();
        wgmma_wait(1); /* the step before */
        if (s > 0)
            PART(_give_back)(p, p->step - 1);
    }
    wgmma_wait(0);
    PART(_give_back)(p, p->step - 1);
}

DEVICE u32 PART(_share)(struct skinny_share *at, const struct skinny_work *p)
{
    const u32 lanes = WARP / SPANS; /* whose sums a warp finishes */
    const u32 rows = LESSER((u32)(DM_M)-blockIdx.z * SKINNY_ROWS, SKINNY_ROWS);
    const u32 parts = CEIL_DIV(rows, 16) * SPANS;
    const u32 part = even_share(parts, SPLITS, p->split) + threadIdx.x / WARP;
    at->span = lane_id() / lanes;
    at->from = part * lanes + lane_id() % lanes;
    at->row = blockIdx.z * SKINNY_ROWS + at->from / WARP * 16 + at->from % WARP / 4;
    return part < even_share(parts, SPLITS, p->split + 1);
}

/* A piece's sums, added up over the cluster's blocks in their order. */
DEVICE void PART(_add)(float sums[4], const f32x4 *own)
{
    f32x4 v[SKINNY_MAX_SPLITS];
    UNROLL
    for (u32 s = 0; s < SKINNY_MAX_SPLITS; s++)
        if (s < SPLITS)
            v[s] = cluster_load_f32x4(own, s);
    f32x4 sum = v[0];
    UNROLL
    for (u32 s = 1; s < SKINNY_MAX_SPLITS; s++)
        if (s < SPLITS) {
            sum.x += v[s].x;
            sum.y += v[s].y;
            sum.z += v[s].z;
            sum.w += v[s].w;
        }
    sums[0] = sum.x;
    sums[1] = sum.y;
    sums[2] = sum.z;
    sums[3] = sum.w;
}

/* Leaves the block's sums where its ring was, for the cluster to read: until the next
 * cluster_sync(). */
DEVICE void PART(_leave)(const struct skinny_work *p, const float sums[WIDE / 2])
{
    f32x4 *own = (f32x4 *)(void *)p->ring + threadIdx.x;
    barrier_sync(1, PART(_multipliers)); /* all have multiplied */
    UNROLL
    for (u32 j = 0; j < PIECES; j++) {
        const f32x4 v = {sums[4 * j], sums[4 * j + 1], sums[4 * j + 2], sums[4 * j + 3]};
        own[j * PART(_multipliers)] = v;
    }
    cluster_sync();
}

/* The thread's share of what the blocks left. */
DEVICE void PART(_gather)(const struct skinny_work *p, const struct skinny_share *at,
                          float sums[WIDE / 2])
{
    const f32x4 *own = (const f32x4 *)(const void *)p->ring + at->from;
    UNROLL
    for (u32 n = 0; n < PIECES; n++) {
        const u32 pair = PART(_number)(at, n / 2);
        if (n / 2 * SPANS >= PAIRS)
            break;
        if (pair < PAIRS)
            PART(_add)(sums + 4 * n, own + PART(_piece)(pair, n % 2) * PART(_multipliers));
    }
}

/* The same of a thread's own sums. */
DEVICE void PART(_order)(float to[WIDE / 2], const float sums[WIDE / 2])
{
    UNROLL
    for (u32 i = 0; i < WIDE / 2; i++)
        to[i] = sums[PART(_piece)(i / 8, i / 4 % 2) * 4 + i % 4];
}

#if X_TILES
/* Of the thread's rows: both are read before either is added up. */
DEVICE void PART(_factors)(float factors[2], const float *squares, u32 first)
{
    UNROLL
    for (u32 i = 0; i < 2; i++) {
        const u32 row = LESSER(first + i * 8, (u32)(DM_M)-1);
        factors[i] = skinny_squares(squares + (u64)row * CUDA_SQUARES((u32)(DM_K)), (u32)(DM_K));
    }
    UNROLL
    for (u32 i = 0; i < 2; i++)
        factors[i] = fast_rsqrt(warp_sum(factors[i], 4) * (1.0f / (float)(DM_K)) + EPSILON);
}
#endif

DEVICE void PART(_scale)(float sums[WIDE / 2], const float factors[2])
{
    UNROLL
    for (u32 i = 0; i < WIDE / 2; i++)
        sums[i] *= factors[i / 2 % 2];
}

/* squares: of x where that is tiles, else NULL. */
DEVICE void PART(_run)(struct PART(_out) * out, u8 *arena, const tensor_map *w, const void *x,
                       const float *squares)
{
    struct skinny_work p;
    struct skinny_share at;
    float factors[2] = {1.0f, 1.0f};
    PART(_begin)(&p, arena);
    if (PART(_feed)(&p, w, x))
        return;
    const u32 mine = PART(_share)(&at, &p);
    if (mine)
        PART(_know)(out, &at);
    dependent_wait();
#if X_TILES
    if (mine)
        PART(_factors)(factors, squares, at.row);
#endif
    (void)squares;
    for (u32 tile = blockIdx.x; tile < (u32)(TILES); tile += gridDim.x) {
        float own[WIDE / 2], sums[WIDE / 2];
        if (mine)
            PART(_fetch)(out, &at, tile);
        PART(_product)(&p, own);
        if (SPLITS > 1)
            PART(_leave)(&p, own);
        if (mine) {
            if (SPLITS > 1)
                PART(_gather)(&p, &at, sums);
            else
                PART(_order)(sums, own);
            if (X_TILES)
                PART(_scale)(sums, factors);
            PART(_store)(out, &at, tile, sums);
        }
        if (SPLITS > 1)
            cluster_sync(); /* none reads any more */
    }
}

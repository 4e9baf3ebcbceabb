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
 * columns. Each adds up, in order, the sums of a part of the rows: with all of its warps, a few
 * rows and a few pieces of them each, since what follows is latency. Sums go there as the threads
 * hold them, stored by them into that block's shared memory: into the stages of its ring that it
 * has no more steps for, which are the first ones in every block. An mbarrier counts the bytes.
 *
 * Why that is safe. Nobody stores before all blocks of the cluster have said that they have begun
 * and that those stages are free (`rooms`). A block to which others store waits for all of their
 * bytes, and one at which others arrive for all of their arrivals, so that none ends too early. */

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
    u64 *sums, *rooms;       /* of a cluster's block: its sums are there; all may store others' */
    u32 split, first, steps; /* the block's columns, in steps of 64 */
    u32 turn;                /* the first one's stage */
    u32 step;                /* so far */
};

/* What a thread finishes of each tile: rows `row` and row + 8, the pairs of pieces span, span +
 * SPANS ..; in a cluster from the sums at `slot`, where one thread of each block stores them. */
struct skinny_share {
    u32 slot, row, span;
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
#define PART_LANES (WARP / SPANS) /* of a warp's sums, whose rows are finished together: a part */
#define ROW_PARTS(rows) (CEIL_DIV(rows, 16) * SPANS)
/* Where a block's sums come: [split][piece][slot], a slot a thread that stores there. At most three
 * stages, and a ring has four and more. */
#define ROOM_SLOTS (CEIL_DIV(ROW_PARTS(LESSER((u32)(DM_M), SKINNY_ROWS)), SPLITS) * PART_LANES)
#define ROOM_STAGES CEIL_DIV(SPLITS *PIECES *ROOM_SLOTS * 16, PART(_stage_bytes))
STATIC_ASSERT(SKINNY_X(DM_M) == CUDA_TILE_HIGH(DM_M), "a tile is what a stage has of x");
STATIC_ASSERT((ROWS_WIDE) % 16 == 0 && (ROWS_WIDE) >= 48 && (ROWS_WIDE) <= 128,
              "one of skinny_step()'s");

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

/* Parts of the rows that there are, and a split's first. */
DEVICE u32 PART(_parts)(void)
{
    return ROW_PARTS(LESSER((u32)(DM_M)-blockIdx.z * SKINNY_ROWS, SKINNY_ROWS));
}

DEVICE u32 PART(_first_part)(u32 split)
{
    return even_share(PART(_parts)(), SPLITS, split);
}

/* A cluster's block goes over its only tile: the last of its steps have the ring's stages in their
 * order, so that the first are free first. */
DEVICE void PART(_plan)(struct skinny_work *p, u8 *arena)
{
    const u32 steps = CEIL_DIV((u32)(DM_K), 64);
    p->ring = arena;
    p->full = (u64 *)(void *)(arena + STAGES * PART(_stage_bytes));
    p->empty = p->full + STAGES;
    p->sums = p->empty + STAGES;
    p->rooms = p->sums + 1;
    p->split = blockIdx.y;
    p->first = even_share(steps, SPLITS, blockIdx.y);
    p->steps = even_share(steps, SPLITS, blockIdx.y + 1) - p->first;
    p->turn = SPLITS > 1 ? STAGES - p->steps % STAGES : 0;
    p->step = 0;
}

/* The thread that copies: its maps, asked for now, so that x's first box need not wait for one. */
DEVICE void PART(_acquire)(const tensor_map *w, const void *x)
{
    tensor_map_acquire(w);
    if (!X_TILES)
        tensor_map_acquire((const tensor_map *)x);
    tensor_map_prefetch_2d(w);
    if (!X_TILES)
        tensor_map_prefetch_2d((const tensor_map *)x);
}

/* A thread for each stage: its mbarriers; the first, those of the cluster. */
DEVICE void PART(_init)(const struct skinny_work *p)
{
    const u32 t = threadIdx.x;
    mbarrier_init(p->full + t, 1);
    mbarrier_init(p->empty + t, PART(_multipliers) / WARP);
    if (SPLITS > 1 && t == 0) {
        mbarrier_init(p->sums, 1);
        mbarrier_init(p->rooms, SPLITS);
    }
    mbarrier_init_fence();
    if (SPLITS > 1 && t == 0)
        mbarrier_arrive_expect(p->sums,
                               (PART(_first_part)(p->split + 1) - PART(_first_part)(p->split)) *
                                   PART_LANES * PIECES * SPLITS * 16);
}

DEVICE void PART(_begin)(const struct skinny_work *p, const tensor_map *w, const void *x)
{
    if (threadIdx.x < STAGES)
        PART(_init)(p);
    if (threadIdx.x == PART(_multipliers))
        PART(_acquire)(w, x);
    block_sync();
    if (SPLITS > 1)
        cluster_arrive_begun();
}

DEVICE u32 PART(_stage)(const struct skinny_work *p, u32 step)
{
    return (step + p->turn) % STAGES;
}

/* Starts the copy of the weights of a step into its stage, once that is free. */
DEVICE void PART(_feed_w)(const struct skinny_work *p, const tensor_map *w, u32 tile, u32 step,
                          u32 column)
{
    const u32 s = PART(_stage)(p, step);
    u8 *stage = p->ring + s * PART(_stage_bytes);
    u64 *full = p->full + s;
    mbarrier_wait(p->empty + s, ~(step / STAGES) & 1);
    mbarrier_arrive_expect(full, PART(_stage_bytes));
    UNROLL
    for (u32 b = 0; b < BOXES; b++)
        tensor_load_2d(stage + b * PART(_box_bytes), w, (i32)(column * 64),
                       (i32)PART(_box)(tile, b), full);
}

DEVICE void PART(_feed_x)(const struct skinny_work *p, const void *x, u32 step, u32 column)
{
    const u32 s = PART(_stage)(p, step);
    u8 *tile = p->ring + s * PART(_stage_bytes) + WIDE * 128;
    u64 *full = p->full + s;
    if (X_TILES) {
        const u32 number = blockIdx.z * CEIL_DIV((u32)(DM_K), 64) + column;
        bulk_load(tile, (const u8 *)x + (u64)number * PART(_x_bytes), PART(_x_bytes), full);
    } else {
        tensor_load_2d(tile, (const tensor_map *)x, (i32)(column * 64),
                       (i32)(blockIdx.z * SKINNY_ROWS), full);
    }
}

/* To the block's next tile: 0, there is none. A cluster has but one, and the compiler has to see
 * it: sums of a loop hold their registers all around it. */
DEVICE u32 PART(_go_on)(u32 *tile)
{
    *tile += gridDim.x;
    return SPLITS == 1 && *tile < (u32)(TILES);
}

/* By one thread: all steps of all tiles. */
DEVICE void PART(_feed)(const struct skinny_work *p, const tensor_map *w, const void *x)
{
    const u32 ahead = p->steps < STAGES ? p->steps : STAGES;
    for (u32 s = 0; s < ahead; s++)
        PART(_feed_w)(p, w, blockIdx.x, s, p->first + s);
    dependent_wait();
    for (u32 s = 0; s < ahead; s++)
        PART(_feed_x)(p, x, s, p->first + s);
    u32 step = ahead, s = ahead, tile = blockIdx.x;
    do {
        for (; s < p->steps; s++, step++) {
            PART(_feed_w)(p, w, tile, step, p->first + s);
            PART(_feed_x)(p, x, step, p->first + s);
        }
        s = 0;
    } while (PART(_go_on)(&tile));
}

/* Until the stages where sums come have had their last step. */
DEVICE void PART(_vacate)(const struct skinny_work *p)
{
    for (u32 s = 0; s < ROOM_STAGES; s++)
        if (p->steps + s >= STAGES) /* else it had none */
            mbarrier_wait(p->empty + s, (p->steps + s - STAGES) / STAGES & 1);
}

/* The copying warp: whoever returns 0 is not of it. It also tells the cluster that its block has
 * room for their sums, many steps before they have any: here the fence is in nobody's way. */
DEVICE u32 PART(_copy)(const struct skinny_work *p, const tensor_map *w, const void *x)
{
    if (threadIdx.x < PART(_multipliers))
        return 0;
    if (lane_id() == 0) {
        PART(_feed)(p, w, x);
        if (SPLITS > 1)
            PART(_vacate)(p);
    }
    if (SPLITS > 1) {
        warp_sync();
        cluster_wait();
        if (lane_id() < SPLITS)
            cluster_arrive_at(p->rooms, lane_id());
    }
    return 1;
}

/* The warp has read a stage. */
DEVICE void PART(_give_back)(const struct skinny_work *p, u32 stage)
{
    warp_sync();
    if (lane_id() == 0)
        mbarrier_arrive(p->empty + stage);
}

/* The multiplying warps: the block's columns of a tile. */
DEVICE void PART(_product)(struct skinny_work *p, float sums[WIDE / 2])
{
    u32 stage = 0, before;
    for (u32 s = 0; s < p->steps; s++, p->step++) {
        before = stage;
        stage = PART(_stage)(p, p->step);
        const u8 *tile = p->ring + stage * PART(_stage_bytes);
        const u8 *mine = tile + WIDE * 128 + threadIdx.x / 128 * 8192; /* 64 rows of x */
        mbarrier_wait(p->full + stage, p->step / STAGES & 1);
        const u64 w = wgmma_along(tile, 128), x = wgmma_along(mine, 128);
        wgmma_fence();
        UNROLL
        for (u32 k = 0; k < 4; k++)
            skinny_step(sums, x + k * 2, w + k * 2, WIDE, s | k);
        wgmma_commit();
        wgmma_wait(1); /* the step before */
        if (s > 0)
            PART(_give_back)(p, before);
    }
    if (SPLITS > 1)
        cluster_store_wait(p->rooms, 0); /* long since, while the last products are made */
    wgmma_wait(0);
    PART(_give_back)(p, stage);
}

/* This thread's share: a warp's part of the block's part of the rows that there are. 0: it has
 * none.
 */
DEVICE u32 PART(_share)(struct skinny_share *at, const struct skinny_work *p)
{
    const u32 first = PART(_first_part)(p->split), warp = threadIdx.x / WARP;
    at->span = lane_id() / PART_LANES;
    at->slot = warp * PART_LANES + lane_id() % PART_LANES;
    const u32 from =
        first * PART_LANES + at->slot; /* the thread of each block whose sums these are */
    at->row = blockIdx.z * SKINNY_ROWS + from / WARP * 16 + from % WARP / 4;
    return first + warp < PART(_first_part)(p->split + 1);
}

/* Where the thread stores its sums, worked out before there are any. */
struct PART(_way) {
    u32 to; /* the block that finishes their rows; SPLITS: there are none */
    f32x4 *room;
};

DEVICE void PART(_find)(struct PART(_way) * way, const struct skinny_work *p)
{
    const u32 parts = PART(_parts)(), part = threadIdx.x / PART_LANES;
    const u32 to = part < parts ? even_part(parts, SPLITS, part) : SPLITS;
    const u32 slot = threadIdx.x - PART(_first_part)(to) * PART_LANES;
    const u64 place = (u64)p->split * PIECES * ROOM_SLOTS + slot;
    way->to = (u32)here_u64(to);
    way->room = (f32x4 *)(void *)p->ring + here_u64(place);
}

DEVICE void PART(_send)(const struct skinny_work *p, const struct PART(_way) * way,
                        const float sums[WIDE / 2])
{
    if (way->to == SPLITS)
        return;
    UNROLL
    for (u32 j = 0; j < PIECES; j++) {
        const f32x4 v = {sums[4 * j], sums[4 * j + 1], sums[4 * j + 2], sums[4 * j + 3]};
        cluster_store_f32x4(way->room + j * ROOM_SLOTS, v, way->to, p->sums);
    }
}

/* A piece's sums, added up over the cluster's blocks in their order. */
DEVICE void PART(_add)(float sums[4], const f32x4 *room)
{
    f32x4 v[SKINNY_MAX_SPLITS];
    UNROLL
    for (u32 s = 0; s < SKINNY_MAX_SPLITS; s++)
        if (s < SPLITS)
            v[s] = room[s * PIECES * ROOM_SLOTS];
    f32x4 sum = v[0];
    UNROLL
    for (u32 s = 1; s < SKINNY_MAX_SPLITS; s++)
        if (s < SPLITS) {
            sum.x += v[s].x;
            sum.y += v[s].y;
            sum.z += v[s].z;
            sum.w += v[s].w;
        }
    sums[0] = here_f32(sum.x); /* all are asked for before any is used */
    sums[1] = here_f32(sum.y);
    sums[2] = here_f32(sum.z);
    sums[3] = here_f32(sum.w);
}

/* The thread's share of what the blocks stored here. */
DEVICE void PART(_gather)(const struct skinny_work *p, const struct skinny_share *at,
                          float sums[WIDE / 2])
{
    const f32x4 *room = (const f32x4 *)(const void *)p->ring + at->slot;
    cluster_store_wait(p->sums, 0);
    UNROLL
    for (u32 n = 0; n < PIECES; n++) {
        const u32 pair = PART(_number)(at, n / 2);
        if (n / 2 * SPANS >= PAIRS)
            break;
        if (pair < PAIRS)
            PART(_add)(sums + 4 * n, room + PART(_piece)(pair, n % 2) * ROOM_SLOTS);
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
    PART(_plan)(&p, arena);
    PART(_begin)(&p, w, x);
    if (PART(_copy)(&p, w, x))
        return;
    const u32 mine = PART(_share)(&at, &p);
    if (mine)
        PART(_know)(out, &at);
    if (SPLITS > 1)
        cluster_wait();
    dependent_wait();
#if X_TILES
    if (mine)
        PART(_factors)(factors, squares, at.row);
#endif
    (void)squares;
    struct PART(_way) way = {(u32)SPLITS, (f32x4 *)0};
    if (SPLITS > 1)
        PART(_find)(&way, &p);
    u32 tile = blockIdx.x;
    do {
        float own[WIDE / 2], sums[WIDE / 2];
        if (mine)
            PART(_fetch)(out, &at, tile);
        PART(_product)(&p, own);
        if (SPLITS > 1)
            PART(_send)(&p, &way, own);
        if (mine) {
            if (SPLITS > 1)
                PART(_gather)(&p, &at, sums);
            else
                PART(_order)(sums, own);
            if (X_TILES)
                PART(_scale)(sums, factors);
            PART(_store)(out, &at, tile, sums);
        }
    } while (PART(_go_on)(&tile));
}

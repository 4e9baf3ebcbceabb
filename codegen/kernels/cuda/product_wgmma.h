/* product_wgmma.h - the products of product.h on sm_90a: two groups of four warps multiply, one
 * thread of a ninth warp copies, boxes of 64 x 64 and up by TMA into a ring of stages.
 *
 * The ninth warp makes three of a quarter of the processor, so a thread has 168 registers at most:
 * enough for 64 x 256 sums, and none need change hands (setmaxnreg). */
#include "device_sm90.h"

#define PRODUCT_I 1
#define PRODUCT_J 32 /* at most: of tiles of 256 columns */

enum {
    PRODUCT_A_BYTES = PRODUCT_ROWS * 128,
    PRODUCT_BOX = 64,        /* elements; 128 bytes */
    PRODUCT_MULTIPLIERS = 8, /* warps */
};

struct product {
    struct product_operand a, b;
    const float *old;  /* what the sums are added to, laid out as C; 0: nothing */
    const u32 *wanted; /* 0, or of each 32 rows of C: 0 where they do not want their tile made */
    u32 columns;       /* of a tile: a constant */
    u8 *ring;
    u64 *full, *empty; /* mbarriers of the stages */
    u32 row, column;   /* corner of the tile */
    u32 steps;         /* so far: the next one's stage is steps % stages */
};

DEVICE void product_start(struct product *p, u32 columns, u8 *arena)
{
    const u32 stages = PRODUCT_STAGES(columns);
    p->wanted = 0;
    p->columns = columns;
    p->ring = arena;
    p->full = (u64 *)(void *)(arena + stages * PRODUCT_STAGE_BYTES(columns));
    p->empty = p->full + stages;
    p->steps = 0;
    if (threadIdx.x == 0) {
        for (u32 s = 0; s < stages; s++) {
            mbarrier_init(p->full + s, 1);
            mbarrier_init(p->empty + s, PRODUCT_MULTIPLIERS);
        }
        mbarrier_init_fence();
    }
    block_sync();
}

DEVICE u32 product_row(const struct product *p)
{
    return p->row + threadIdx.x / WARP * 16;
}

DEVICE u32 product_column(const struct product *p)
{
    return p->column;
}

DEVICE u32 product_pieces(const struct product *p)
{
    return p->columns / 8;
}

/* Starts the copy of `side` of the operand's side from `first` on, 64 of its depth from k on.
 * Along: one tile of `side` rows, in halves; across: tiles of 64 rows of the depth, one for each 64
 * of the side. */
DEVICE void product_copy(u8 *tile, const struct product_operand *o, u32 first, u32 side, u32 k,
                         u64 *full)
{
    if (o->across) {
        UNROLL
        for (u32 i = 0; i < side; i += PRODUCT_BOX)
            tensor_load_2d(tile + i * 128, o->at, (i32)(first + i), (i32)k, full);
    } else {
        const u32 top = o->paired ? first / 2 : first;
        const u32 low = o->paired ? top + o->paired : top + side / 2;
        tensor_load_2d(tile, o->at, (i32)k, (i32)top, full);
        tensor_load_2d(tile + side * 64, o->at, (i32)k, (i32)low, full);
    }
}

/* Asks for some of what the tile's sums will be added to, every `steps`th row from `first` on, so
 * that it is in L2 by then. */
DEVICE void product_ask(const struct product *p, u32 first, u32 steps)
{
    const u32 left = p->b.side - p->column, columns = left < p->columns ? left : p->columns;
    for (u32 r = first; r < PRODUCT_ROWS && p->row + r < p->a.side; r += steps)
        bulk_prefetch_l2(p->old + (u64)(p->row + r) * p->b.side + p->column,
                         columns * (u32)sizeof(float));
}

/* The copying warp, one thread of it: all steps of all tiles of the block, without a pause between
 * tiles. */
DEVICE u32 product_feed(struct product *p)
{
    const u32 bytes = PRODUCT_STAGE_BYTES(p->columns), stages = PRODUCT_STAGES(p->columns);
    if (threadIdx.x < PRODUCT_MULTIPLIERS * WARP)
        return 0;
    if (lane_id() > 0)
        return 1;
    tensor_map_acquire(p->a.at);
    tensor_map_acquire(p->b.at);
    u32 step = 0;
    for (u32 tile = blockIdx.x; tile < product_tiles(p); tile += gridDim.x) {
        if (product_skips(p, tile))
            continue;
        product_corner(tile, p->a.side, p->b.side, p->columns, &p->row, &p->column);
        for (u32 k = 0; k < p->a.depth; k += PRODUCT_DEPTH, step++) {
            u8 *stage = p->ring + step % stages * bytes;
            u64 *full = p->full + step % stages;
            mbarrier_wait(p->empty + step % stages, ~(step / stages) & 1);
            mbarrier_arrive_expect(full, bytes);
            product_copy(stage, &p->a, p->row, PRODUCT_ROWS, k, full);
            product_copy(stage + PRODUCT_A_BYTES, &p->b, p->column, p->columns, k, full);
            if (p->old)
                product_ask(p, k / PRODUCT_DEPTH, DIV_UP(p->a.depth, PRODUCT_DEPTH));
        }
    }
    return 1;
}

/* sums[64][n] += A B of 16 of the depth, each operand along or across: constants all. */
#define PRODUCT_STEP(n)                                                                            \
    if (a_across)                                                                                  \
        wgmma_n##n##_both_across(sums, a, b, add);                                                 \
    else if (b_across)                                                                             \
        wgmma_n##n##_across(sums, a, b, add);                                                      \
    else                                                                                           \
        wgmma_n##n(sums, a, b, add)

DEVICE void product_step(float *sums, u64 a, u64 b, u32 columns, u32 a_across, u32 b_across,
                         u32 add)
{
    if (columns == 256) {
        PRODUCT_STEP(256);
    } else if (columns == 192) {
        PRODUCT_STEP(192);
    } else {
        PRODUCT_STEP(128);
    }
}

/* The group's 64 rows of one stage; the first batch of a tile starts the sums. */
DEVICE void product_multiply(const struct product *p, float *sums, const u8 *stage, u32 add)
{
    const u8 *mine = stage + threadIdx.x / 128 * 8192; /* 64 rows of 128 bytes, along and across */
    const u8 *b = stage + PRODUCT_A_BYTES;
    const u32 a_across = p->a.across, b_across = p->b.across;
    const u64 at_a = a_across ? wgmma_across(mine, 128, 8192) : wgmma_along(mine, 128);
    const u64 at_b = b_across ? wgmma_across(b, 128, 8192) : wgmma_along(b, 128);
    wgmma_fence();
    UNROLL
    for (u32 k = 0; k < PRODUCT_DEPTH / 16; k++)
        product_step(sums, at_a + k * (a_across ? 128 : 2), at_b + k * (b_across ? 128 : 2),
                     p->columns, a_across, b_across, add | k);
    wgmma_commit();
}

/* Row r of column c of the tile of A, stored across. */
DEVICE float product_of_a(const u8 *a, u32 r, u32 c)
{
    return f32_from_bf16(*(const bf16 *)(const void *)(a + c / 64 * 8192 + r * 128 +
                                                       ((c / 8 ^ r) % 8) * 16 + c % 8 * 2));
}

/* The warp has read a step's stage. */
DEVICE void product_give_back(const struct product *p, u32 step)
{
    warp_sync();
    if (lane_id() == 0)
        mbarrier_arrive(p->empty + step % PRODUCT_STAGES(p->columns));
}

/* Which row of C, from the tile's corner, this thread has the column sum of; any other: none. */
DEVICE u32 product_column_row(void)
{
    return threadIdx.x;
}

/* The multiplying warps: their part of a tile of C. With `column`, adds to it the sum over the
 * depth of row product_column_row() of the tile of A, which must be stored across. */
DEVICE void product_tile(struct product *p, u32 tile, float sums[PRODUCT_I][PRODUCT_J][4],
                         float *column)
{
    const u32 stages = PRODUCT_STAGES(p->columns);
    const u32 first = p->steps, end = first + DIV_UP(p->a.depth, PRODUCT_DEPTH);
    product_corner(tile, p->a.side, p->b.side, p->columns, &p->row, &p->column);
    for (u32 step = first; step < end; step++) {
        const u8 *stage = p->ring + step % stages * PRODUCT_STAGE_BYTES(p->columns);
        mbarrier_wait(p->full + step % stages, step / stages & 1);
        product_multiply(p, (float *)(void *)sums, stage, step > first);
        if (column && product_column_row() < PRODUCT_ROWS)
            for (u32 k = 0; k < PRODUCT_DEPTH; k++)
                *column += product_of_a(stage, k, product_column_row());
        wgmma_wait(1); /* the step before */
        if (step > first)
            product_give_back(p, step - 1);
    }
    wgmma_wait(0);
    product_give_back(p, end - 1);
    p->steps = end;
}

/* product_wgmma.h - the products of product.h on sm_90a: warps 0..3 copy, two groups of four warps
 * multiply.
 *
 * Tiles in shared memory are as TMA would write them, rows of 128 bytes swizzled by as much. They
 * are filled with cp.async all the same: a tensor map would have to be made by the host for every
 * operand, where a pointer does, and the copying warps take less than a sixth of the instructions
 * that a multiprocessor can issue meanwhile. */
#include "device_sm90.h"

#define PRODUCT_I 1
#define PRODUCT_J 32

enum {
    PRODUCT_A_BYTES = PRODUCT_ROWS * 128,
    PRODUCT_STAGE_BYTES = (PRODUCT_ROWS + PRODUCT_COLUMNS) * 128,
    PRODUCT_COPIERS = 128,
    PRODUCT_MULTIPLIERS = 8, /* warps */
    PRODUCT_BEHIND = 2       /* stages under way when one is handed over */
};

struct product {
    struct product_operand a, b;
    u8 *ring;
    u64 *full, *empty; /* mbarriers of the stages */
    u32 row, column;   /* corner of the tile */
    u32 steps;         /* so far: the next one's stage is steps % PRODUCT_STAGES */
};

DEVICE void product_start(struct product *p, u8 *arena)
{
    p->ring = arena;
    p->full = (u64 *)(void *)(arena + PRODUCT_STAGES * PRODUCT_STAGE_BYTES);
    p->empty = p->full + PRODUCT_STAGES;
    p->steps = 0;
    if (threadIdx.x == 0) {
        for (u32 s = 0; s < PRODUCT_STAGES; s++) {
            mbarrier_init(p->full + s, PRODUCT_COPIERS);
            mbarrier_init(p->empty + s, PRODUCT_MULTIPLIERS);
        }
        mbarrier_init_fence();
    }
    block_sync();
}

DEVICE u32 product_row(const struct product *p)
{
    return p->row + (threadIdx.x - PRODUCT_COPIERS) / WARP * 16;
}

DEVICE u32 product_column(const struct product *p)
{
    return p->column;
}

/* Starts the copy of `side` of the operand's side from `first` on, 64 of its depth from k on.
 * Along: one tile of `side` rows; across: tiles of 64 rows of the depth, one for each 64 of the
 * side. */
DEVICE void product_copy(u8 *tile, const struct product_operand *o, u32 first, u32 k, u32 side)
{
    const u32 across = o->across, r = threadIdx.x / 8, c = threadIdx.x % 8;
    u8 *to = tile + r * 128 + (c ^ r % 8) * 16;
    UNROLL
    for (u32 i = 0; i < side / 16; i++) {
        /* Sixteen rows a turn; across, four turns a tile. */
        const u32 x = across ? first + i / 4 * 64 + c * 8 : PRODUCT_PLACE(o, first + r + i * 16);
        const u32 y = k + (across ? r + i % 4 * 16 : c * 8);
        const u32 inside = x < o->side && y < o->depth;
        copy_async_16_part(to + i * 2048,
                           inside ? o->at + (across ? y * o->row + x : x * o->row + y) : o->at,
                           inside ? 16 : 0);
    }
}

DEVICE void product_hand_over(const struct product *p, u32 step)
{
    fence_proxy_async();
    mbarrier_arrive(p->full + step % PRODUCT_STAGES);
}

/* The copying warps: all steps of all tiles of the block, without a pause between tiles. */
DEVICE u32 product_feed(struct product *p)
{
    if (threadIdx.x >= PRODUCT_COPIERS)
        return 0;
    const u32 tiles = DIV_UP(p->a.side, PRODUCT_ROWS) * DIV_UP(p->b.side, PRODUCT_COLUMNS);
    u32 step = 0;
    for (u32 tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        product_corner(tile, p->a.side, p->b.side, &p->row, &p->column);
        for (u32 k = 0; k < p->a.depth; k += PRODUCT_DEPTH, step++) {
            u8 *stage = p->ring + step % PRODUCT_STAGES * PRODUCT_STAGE_BYTES;
            mbarrier_wait(p->empty + step % PRODUCT_STAGES, ~(step / PRODUCT_STAGES) & 1);
            product_copy(stage, &p->a, p->row, k, PRODUCT_ROWS);
            product_copy(stage + PRODUCT_A_BYTES, &p->b, p->column, k, PRODUCT_COLUMNS);
            copy_async_commit();
            copy_async_wait(PRODUCT_BEHIND);
            if (step >= PRODUCT_BEHIND)
                product_hand_over(p, step - PRODUCT_BEHIND);
        }
    }
    copy_async_wait(0);
    for (u32 s = step < PRODUCT_BEHIND ? 0 : step - PRODUCT_BEHIND; s < step; s++)
        product_hand_over(p, s);
    return 1;
}

/* The group's 64 x 256 of one stage; the first batch of a tile starts the sums. */
DEVICE void product_multiply(float *sums, const u8 *a, const u8 *b, u32 a_across, u32 b_across,
                             u32 add)
{
    const u32 group = threadIdx.x / 128 - 1;
    const u8 *mine = a + group * 8192; /* 64 rows of 128 bytes, along and across */
    const u64 at_a = a_across ? wgmma_across(mine, 128, 8192) : wgmma_along(mine, 128);
    const u64 at_b = b_across ? wgmma_across(b, 128, 8192) : wgmma_along(b, 128);
    wgmma_fence();
    UNROLL
    for (u32 k = 0; k < PRODUCT_DEPTH / 16; k++) {
        const u64 from_a = at_a + k * (a_across ? 128 : 2),
                  from_b = at_b + k * (b_across ? 128 : 2);
        if (a_across)
            wgmma_n256_both_across(sums, from_a, from_b, add | k);
        else if (b_across)
            wgmma_n256_across(sums, from_a, from_b, add | k);
        else
            wgmma_n256(sums, from_a, from_b, add | k);
    }
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
        mbarrier_arrive(p->empty + step % PRODUCT_STAGES);
}

/* The multiplying warps: their part of a tile of C. With `column`, adds to it the sum over the
 * depth of row product_column_row() of the tile of A, which must be stored across. */
DEVICE void product_tile(struct product *p, u32 tile, float sums[PRODUCT_I][PRODUCT_J][4],
                         float *column)
{
    const u32 first = p->steps, end = first + DIV_UP(p->a.depth, PRODUCT_DEPTH);
    product_corner(tile, p->a.side, p->b.side, &p->row, &p->column);
    for (u32 step = first; step < end; step++) {
        const u8 *a = p->ring + step % PRODUCT_STAGES * PRODUCT_STAGE_BYTES;
        mbarrier_wait(p->full + step % PRODUCT_STAGES, step / PRODUCT_STAGES & 1);
        product_multiply((float *)(void *)sums, a, a + PRODUCT_A_BYTES, p->a.across, p->b.across,
                         step > first);
        if (column && threadIdx.x < 2 * PRODUCT_COPIERS)
            for (u32 k = 0; k < PRODUCT_DEPTH; k++)
                *column += product_of_a(a, k, threadIdx.x - PRODUCT_COPIERS);
        wgmma_wait(1); /* the step before */
        if (step > first)
            product_give_back(p, step - 1);
    }
    wgmma_wait(0);
    product_give_back(p, end - 1);
    p->steps = end;
}

/* Which row of C, from the tile's corner, this thread has the column sum of; any other: none. */
DEVICE u32 product_column_row(void)
{
    return threadIdx.x < 2 * PRODUCT_COPIERS ? threadIdx.x - PRODUCT_COPIERS : PRODUCT_ROWS;
}

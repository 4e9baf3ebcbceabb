/* head.h - ends of tiles of logits that are not written: padding and targets among them, and what a
 * row's logits come to, a pair of numbers for each tile (product.h), then one. */
#ifndef HEAD_H
#define HEAD_H

#include "device.h"
#include "launch.h"
#include "product.h"

#define HEAD_LOWEST (-3.4e38f)
#define HEAD_NONE 0xffffffffu /* a column that no tile has */
#define HEAD_LOG2E 1.44269504f
#define HEAD_LN2 0.69314718f

/* What some of a row's logits come to. */
struct head_pair {
    float top, sum; /* of e^(z - top), or of powers that all tiles have of one reference */
};

DEVICE float head_exp(float x, float top)
{
    return fast_exp2((x - top) * HEAD_LOG2E);
}

DEVICE struct head_pair head_nothing(void)
{
    struct head_pair r;
    r.top = HEAD_LOWEST;
    r.sum = 0.0f;
    return r;
}

/* common, a literal: 1 where both sums are of one reference. */
DEVICE struct head_pair head_join(struct head_pair a, struct head_pair b, u32 common)
{
    struct head_pair both;
    both.top = f32_max(a.top, b.top);
    if (common)
        both.sum = a.sum + b.sum;
    else
        both.sum = a.sum * head_exp(a.top, both.top) + b.sum * head_exp(b.top, both.top);
    return both;
}

/* Columns from number `tokens` on are padding, in the last tiles: they become `value`. */
DEVICE void head_pad(const struct product *p, float sums[PRODUCT_I][PRODUCT_J][4], u32 tokens,
                     float value)
{
    const u32 c0 = product_column(p) + lane_id() % 4 * 2;
    if (product_column(p) + product_pieces(p) * 8 <= tokens)
        return;
    UNROLL
    for (u32 j = 0; j < product_pieces(p); j++) {
        UNROLL
        for (u32 i = 0; i < PRODUCT_I * 4; i++)
            if (c0 + j * 8 + i % 2 >= tokens)
                sums[i / 4][j][i % 4] = value;
    }
}

/* The target of row i * 8 of this thread is in column `at` from its first one: if that is this
 * thread's, its logit goes to *to, where given, and loses `less`. Few tiles have a target of their
 * rows. */
DEVICE void head_target(const struct product *p, float sums[PRODUCT_I][PRODUCT_J][4], u32 i, u32 at,
                        float *to, float less)
{
    if (!warp_any(at < product_pieces(p) * 8))
        return;
    UNROLL
    for (u32 j = 0; j < product_pieces(p); j++) {
        UNROLL
        for (u32 k = 0; k < 2; k++) {
            float *z = &sums[i / 2][j][i % 2 * 2 + k];
            if (at != j * 8 + k)
                continue;
            if (to)
                *to = *z;
            *z -= less;
        }
    }
}

/* On mma.sync a row's columns of a tile are two warps': the first one's pairs become both's. The
 * tile's stages, whose shared memory it takes, have been read. */
DEVICE void head_halves(struct head_pair pair[PRODUCT_I * 2], u8 *arena, u32 common)
{
    const u32 warp = threadIdx.x / WARP, row = warp / 2 * 64 + lane_id() / 4;
    struct head_pair *shared = (struct head_pair *)(void *)arena;
    if (PRODUCT_WGMMA)
        return;
    block_sync();
    UNROLL
    for (u32 i = 0; i < PRODUCT_I * 2; i++)
        if (warp % 2 > 0 && lane_id() % 4 == 0)
            shared[row + i * 8] = pair[i];
    block_sync();
    UNROLL
    for (u32 i = 0; i < PRODUCT_I * 2; i++)
        if (warp % 2 == 0)
            pair[i] = head_join(pair[i], shared[row + i * 8], common);
}

/* The tile's pairs to pairs[part][stride], whole rows'. */
DEVICE void head_store(const struct product *p, f32x2 *pairs, u32 stride,
                       const struct head_pair pair[PRODUCT_I * 2])
{
    const u32 r0 = product_row(p) + lane_id() / 4;
    const u32 writes = lane_id() % 4 == 0 && (PRODUCT_WGMMA || threadIdx.x / WARP % 2 == 0);
    UNROLL
    for (u32 i = 0; i < PRODUCT_I * 2; i++) {
        f32x2 out;
        out.x = pair[i].top;
        out.y = pair[i].sum;
        if (writes && r0 + i * 8 < p->a.side)
            pairs[(u64)(product_column(p) / p->columns) * stride + r0 + i * 8] = out;
    }
}

/* One row's pairs, of those that this warp of `warps` takes. */
DEVICE struct head_pair head_share(const f32x2 *pairs, u32 stride, u32 row, u32 parts, u32 warps,
                                   u32 common)
{
    struct head_pair all = head_nothing();
    for (u32 first = threadIdx.x / WARP; first < parts; first += HEAD_EACH * warps) {
        struct head_pair some[HEAD_EACH];
        UNROLL
        for (u32 j = 0; j < HEAD_EACH; j++) {
            const u32 part = first + j * warps;
            some[j] = head_nothing();
            if (part < parts) {
                const f32x2 two = pairs[(u64)part * stride + row];
                some[j].top = two.x;
                some[j].sum = two.y;
            }
        }
        UNROLL
        for (u32 j = 0; j < HEAD_EACH; j++)
            all = head_join(all, some[j], common);
    }
    return all;
}

/* All of a row's pairs, in the first warp, of what each has; `shared`: one for each thread. */
DEVICE struct head_pair head_all(struct head_pair mine, struct head_pair *shared, u32 warps,
                                 u32 common)
{
    shared[threadIdx.x] = mine;
    block_sync();
    if (threadIdx.x < WARP)
        for (u32 other = 1; other < warps; other++)
            mine = head_join(mine, shared[other * WARP + threadIdx.x], common);
    return mine;
}

#endif

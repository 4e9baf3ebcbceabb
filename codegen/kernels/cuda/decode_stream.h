/* decode_stream.h - w x for at most 8 rows of x, the weights read once: what the products of decode
 * share.
 *
 * The floor is the weights' bytes, so everything here is about keeping loads under way. A thread
 * copies the 16-byte pieces of weights that it will itself multiply into its own places of a ring
 * in shared memory (cp.async), some steps ahead: no registers are held, no other thread is
 * waited for, and the ring is filled before dependent_wait(), while the predecessor still runs.
 * Filled at a measured pace: enough is under way to keep memory busy, and no more, because what the
 * predecessor and its successor wait for (x, keys, the last weights) queues behind it. For the same
 * reason nothing is asked for in L2 ahead of the ring.
 *
 * A warp's step is 16 rows of weights by 64 columns, the A operand of four mma.sync, with the rows
 * of x as the eight columns of B: a product of 1 row costs what one of 8 does, which is next to
 * nothing. The order of the summed index is free as long as both operands agree: lane (g, q) = (l /
 * 4, l % 4) takes columns 8 q .. 8 q + 7 of 32 as one piece, its first four for one mma and the
 * last four for the next. So pieces go from memory to operands as they are.
 *
 * Work comes in items of two rows of weights, `half` rows apart: gate and up of one column of h,
 * the two elements that a rotation turns, or simply rows of either half of the matrix. Item i is
 * rows i + i / half * half and that + half; they are rows g and g + 8 of an operand, so both sums
 * of an item meet in one lane. */
#ifndef DECODE_STREAM_H
#define DECODE_STREAM_H

#include "device.h"
#include "launch.h"
#include "archrt_cuda.h"
#include "even_share.h"

enum { STREAM_SLOT = WARP * 16 };

/* Part of the matrix w[rows][k], for one warp: items first.. of 8 a tile, to end, steps of columns
 * start, start + stride .. */
struct stream_work {
    const bf16 *w;
    u32 rows, k, half;
    u32 first, end;
    u32 start, stride;
};

/* Where a lane's next step comes from. */
struct stream_cursor {
    const bf16 *a, *b;    /* column 8 q of its two rows */
    u32 a_bytes, b_bytes; /* 16, or 0 where there is no such row */
    u32 item, step;       /* of the tile's first; of 64 columns */
};

DEVICE u32 stream_row(u32 item, u32 half)
{
    return item + item / half * half;
}

/* The cursor at the tile of 8 items that starts at `item`. */
DEVICE void stream_seek(struct stream_cursor *c, const struct stream_work *work, u32 item)
{
    const u32 lane = lane_id(), mine = item + lane / 4, column = lane % 4 * 8;
    const u32 row = stream_row(mine, work->half), there = mine < work->end;
    c->item = item;
    c->step = work->start;
    c->a_bytes = there && row < work->rows ? 16 : 0;
    c->b_bytes = there && row + work->half < work->rows ? 16 : 0;
    c->a = work->w + (c->a_bytes ? (u64)row * work->k : 0) + column;
    c->b = work->w + (c->b_bytes ? (u64)(row + work->half) * work->k : 0) + column;
}

DEVICE void stream_advance(struct stream_cursor *c, const struct stream_work *work)
{
    c->step += work->stride;
    if (c->step * STREAM_COLUMNS >= work->k)
        stream_seek(c, work, c->item + 8);
}

DEVICE void stream_copy(u8 *to, const bf16 *row, u32 bytes, const struct stream_work *work,
                        u32 column)
{
    const u32 inside = work->k % STREAM_COLUMNS == 0 || column + lane_id() % 4 * 8 < work->k;
    copy_async_16_part(to, inside ? row + column : work->w, inside ? bytes : 0);
}

/* Starts the copies of the cursor's step into this lane's places, `to`, and moves on. One group. */
DEVICE void stream_fetch(u8 *to, struct stream_cursor *c, const struct stream_work *work)
{
    if (c->item < work->end) {
        const u32 column = c->step * STREAM_COLUMNS;
        stream_copy(to, c->a, c->a_bytes, work, column);
        stream_copy(to + STREAM_SLOT, c->b, c->b_bytes, work, column);
        stream_copy(to + 2 * STREAM_SLOT, c->a, c->a_bytes, work, column + 32);
        stream_copy(to + 3 * STREAM_SLOT, c->b, c->b_bytes, work, column + 32);
        stream_advance(c, work);
    }
    copy_async_commit();
}

/* A warp's ring of `steps` (a number): `lane` is this lane's place in its first slot, `slot` the
 * one that is next to be used and filled again. */
struct stream_ring {
    u8 *lane;
    u32 steps, slot;
    struct stream_cursor cursor;
};

/* Until all but the newest `steps` - 1 have arrived. */
DEVICE void stream_wait(u32 steps)
{
    if (steps == STREAM_PACE)
        copy_async_wait(STREAM_PACE - 1);
    else if (steps == STREAM_RING)
        copy_async_wait(STREAM_RING - 1);
    else
        copy_async_wait(STREAM_RING_WIDE - 1);
}

/* Lets the successor in and fills the ring: before dependent_wait(), as it touches nothing but
 * weights. */
DEVICE void stream_start(struct stream_ring *ring, u8 *arena, const struct stream_work *work,
                         u32 steps)
{
    ring->lane = arena + threadIdx.x / WARP * (steps * STREAM_STEP) + lane_id() * 16;
    ring->steps = steps;
    ring->slot = 0;
    dependents_launch();
    stream_seek(&ring->cursor, work, work->first);
    UNROLL
    for (u32 i = 0; i < STREAM_RING_WIDE; i++)
        if (i < steps) {
            if (i >= STREAM_PACE)
                stream_wait(STREAM_PACE);
            stream_fetch(ring->lane + i * STREAM_STEP, &ring->cursor, work);
        }
}

/* d += 16 rows by 32 columns of weights, times x. */
DEVICE void stream_multiply(float d[4], u32x4 a, u32x4 b, u32x4 x)
{
    const u32 rows[8] = {a.x, b.x, a.y, b.y, a.z, b.z, a.w, b.w}, columns[4] = {x.x, x.y, x.z, x.w};
    mma_m16n8k16_bf16(d, rows, columns);
    mma_m16n8k16_bf16(d, rows + 4, columns + 2);
}

/* d += the steps of columns from `*step` to below `end`, of the tile that the ring has reached.
 * `x`: this lane's row and piece of column 0 (of the panel, which may begin after it). */
DEVICE void stream_tile(float d[4], struct stream_ring *ring, const struct stream_work *work,
                        const bf16 *x, u32 *step, u32 end)
{
    for (; *step < end; *step += work->stride) {
        u8 *slot = ring->lane + ring->slot * STREAM_STEP;
        const bf16 *columns = x + *step * STREAM_COLUMNS;
        stream_wait(ring->steps);
        const u32x4 a0 = *(const u32x4 *)(const void *)slot;
        const u32x4 b0 = *(const u32x4 *)(const void *)(slot + STREAM_SLOT);
        const u32x4 a1 = *(const u32x4 *)(const void *)(slot + 2 * STREAM_SLOT);
        const u32x4 b1 = *(const u32x4 *)(const void *)(slot + 3 * STREAM_SLOT);
        stream_multiply(d, a0, b0, *(const u32x4 *)(const void *)columns);
        stream_multiply(d, a1, b1, *(const u32x4 *)(const void *)(columns + 32));
        stream_fetch(slot, &ring->cursor, work);
        ring->slot = ring->slot + 1 == ring->steps ? 0 : ring->slot + 1;
    }
}

/* ---- x in shared memory ------------------------------------------------------------------------
 *
 * Rows of bf16, STREAM_X_STRIDE(panel) apart: 64 bytes more than a multiple of 128, so that eight
 * lanes of two rows read from all banks. Columns past k are 0 up to the end of a step. */

struct stream_input {
    const bf16 *x;     /* [m][k], or NULL */
    const float *x32;  /* [][k], to be normed */
    const int *row_of; /* x32's row for row r, or NULL: r */
    const float *gain; /* [k] */
    u32 m, used;       /* rows there is room for; rows that are there, at least 1 */
    u32 k, panel;
    bf16 *shared; /* [m][STREAM_X_STRIDE(panel)] */
    float *sums;  /* [m][STREAM_WARPS] of squares */
};

/* The input's place in the arena, behind a ring of `steps`; x and the rest are the caller's to set.
 */
DEVICE struct stream_input stream_input(u8 *arena, u32 steps, u32 m, u32 k)
{
    struct stream_input in;
    in.x = (const bf16 *)0;
    in.x32 = in.gain = (const float *)0;
    in.row_of = (const int *)0;
    in.m = in.used = m;
    in.k = k;
    in.panel = STREAM_PANEL(m, k);
    in.shared = (bf16 *)(void *)(arena + steps * STREAM_WARPS * STREAM_STEP);
    in.sums = (float *)(void *)(in.shared + m * STREAM_X_STRIDE(in.panel));
    return in;
}

/* Where the block's sums stand that its warps have to add up, behind the input. */
DEVICE float *stream_partial(const struct stream_input *in)
{
    return in->sums + in->m * STREAM_WARPS;
}

/* Rows of x, columns `first`.. of them, all asked for at once: what a kernel loses by x is one
 * latency, however long a row is. (By way of registers the compiler waits for what it asked for in
 * the first turn of a loop before the second.) */
DEVICE void stream_stage_bf16(const struct stream_input *in, u32 first)
{
    const u32 stride = STREAM_X_STRIDE(in->panel);
    for (u32 c = threadIdx.x * 8; c < ROUND_UP(in->panel, STREAM_COLUMNS); c += STREAM_THREADS * 8)
        for (u32 r = 0; r < in->used; r++) {
            const u32 inside = c < in->panel && first + c < in->k;
            const bf16 *from = inside ? in->x + (u64)r * in->k + first + c : in->x;
            copy_async_16_part(in->shared + r * stride + c, from, inside ? 16 : 0);
        }
    copy_async_commit();
    copy_async_wait(0);
}

/* Four values of fp32 times their gains, as bf16; their squares are added to *squares. */
DEVICE u32x2 stream_gain(f32x4 x, f32x4 gain, float *squares)
{
    const float v[4] = {x.x, x.y, x.z, x.w};
    UNROLL
    for (u32 i = 0; i < 4; i++)
        *squares = f32_fma(v[i], v[i], *squares);
    u32x2 y;
    y.x = bf16_pack(x.x * gain.x, x.y * gain.y);
    y.y = bf16_pack(x.z * gain.z, x.w * gain.w);
    return y;
}

/* Asks L2 for the gain, which the first norm of a step would otherwise fetch from memory. */
DEVICE void stream_warm(const float *gain, u32 k)
{
    for (u32 c = threadIdx.x * 32; c < k; c += STREAM_THREADS * 32)
        prefetch_l2(gain + c);
}

/* Four columns from `first + c` on of a row or of the gain, or zeros. */
DEVICE f32x4 stream_four(const float *row, const struct stream_input *in, u32 first, u32 c)
{
    const f32x4 none = {0, 0, 0, 0};
    if (c >= in->panel || first + c >= in->k)
        return none;
    return *(const f32x4 *)(const void *)(row + first + c);
}

/* x gain. The norm is linear but for its factor, which multiplies the sums in the end: so nothing
 * waits for the mean of the squares. Those of the columns staged so far, a sum a warp and row.
 * A thread asks for STREAM_AT_ONCE pieces of each row before it uses the first. */
DEVICE void stream_stage_norm(const struct stream_input *in, u32 first, u32 add)
{
    const u32 stride = STREAM_X_STRIDE(in->panel), end = ROUND_UP(in->panel, STREAM_COLUMNS);
    const u32 each = STREAM_AT_ONCE(in->m), next = STREAM_THREADS * 4;
    float squares[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    for (u32 c = threadIdx.x * 4; c < end; c += each * next) {
        f32x4 gain[4], x[4][8];
        UNROLL
        for (u32 i = 0; i < each; i++) {
            gain[i] = stream_four(in->gain, in, first, c + i * next);
            UNROLL
            for (u32 r = 0; r < 8; r++)
                if (r < in->used) {
                    const u64 row = in->row_of ? (u64)in->row_of[r] : r;
                    x[i][r] = stream_four(in->x32 + row * in->k, in, first, c + i * next);
                }
        }
        UNROLL
        for (u32 i = 0; i < each; i++)
            UNROLL
        for (u32 r = 0; r < 8; r++)
            if (r < in->used && c + i * next < end)
                *(u32x2 *)(void *)(in->shared + r * stride + c + i * next) =
                    stream_gain(x[i][r], gain[i], &squares[r]);
    }
    UNROLL
    for (u32 r = 0; r < 8; r++)
        if (r < in->used) {
            const float sum = warp_sum(squares[r], WARP);
            float *mine = in->sums + r * STREAM_WARPS + threadIdx.x / WARP;
            if (lane_id() == 0 && add)
                *mine = first == 0 ? sum : *mine + sum;
        }
}

/* The norm's factor, after all of the row was staged. */
DEVICE float stream_rstd(const struct stream_input *in, u32 row, float eps)
{
    float sum = 0.0f;
    UNROLL
    for (u32 i = 0; i < STREAM_WARPS; i++)
        sum += in->sums[row * STREAM_WARPS + i];
    return fast_rsqrt(sum * (1.0f / (float)in->k) + eps);
}

/* d = the products of tile number `tile` of the warp and x, which is staged on the way: once, where
 * it fits as a whole, else again for each tile. The whole block calls, as many times for each warp.
 */
DEVICE void stream_product(float d[4], struct stream_ring *ring, const struct stream_work *work,
                           const struct stream_input *in, u32 tile)
{
    const u32 lane = lane_id(), row = lane / 4 < in->used ? lane / 4 : 0;
    const bf16 *x = in->shared + row * STREAM_X_STRIDE(in->panel) + lane % 4 * 8;
    u32 step = work->start;
    d[0] = d[1] = d[2] = d[3] = 0.0f;
    for (u32 first = 0; first < in->k; first += in->panel) {
        if (tile == 0 || in->panel < in->k) {
            if (tile != 0 || first != 0)
                block_sync();
            if (in->x)
                stream_stage_bf16(in, first);
            else
                stream_stage_norm(in, first, tile == 0);
            block_sync();
        }
        if (work->first + tile * 8 < work->end)
            stream_tile(d, ring, work, x - first, &step,
                        DIV_UP(LESSER(first + in->panel, in->k), STREAM_COLUMNS));
    }
}

/* ---- a block whose warps share its items by columns --------------------------------------------
 */

/* The end of the block's items. */
DEVICE u32 stream_split_end(u32 rows)
{
    return even_share(STREAM_ITEMS(rows), STREAM_SPLIT_BLOCKS(rows), blockIdx.x + 1);
}

DEVICE struct stream_work stream_split(const bf16 *w, u32 rows, u32 k, u32 half)
{
    const u32 items = STREAM_ITEMS(rows), blocks = STREAM_SPLIT_BLOCKS(rows);
    const u32 start = threadIdx.x / WARP, first = even_share(items, blocks, blockIdx.x);
    const u32 end = stream_split_end(rows);
    const struct stream_work work = {
        w, rows, k, half, first, start * STREAM_COLUMNS < k ? end : first, start, STREAM_WARPS};
    return work;
}

/* A warp's sums of a tile; all tiles of a block after each other. */
DEVICE void stream_keep(float *partial, u32 tile, const float d[4])
{
    const f32x4 v = {d[0], d[1], d[2], d[3]};
    *(f32x4 *)(void *)(partial +
                       ((tile * STREAM_WARPS + threadIdx.x / WARP) * WARP + lane_id()) * 4) = v;
}

/* The sum over the warps for item number i of the block and row r of x: of its first row of weights
 * (half 0) or its second. */
DEVICE float stream_sum(const float *partial, u32 i, u32 r, u32 half)
{
    float sum = 0.0f;
    UNROLL
    for (u32 warp = 0; warp < STREAM_WARPS; warp++)
        sum += partial[((i / 8 * STREAM_WARPS + warp) * WARP + i % 8 * 4 + r / 2) * 4 + half * 2 +
                       r % 2];
    return sum;
}

/* ---- warps with items of their own --------------------------------------------------------------
 */

DEVICE struct stream_work stream_own(const bf16 *w, u32 rows, u32 k, u32 half)
{
    const u32 items = STREAM_ITEMS(rows), blocks = STREAM_OWN_BLOCKS(rows);
    const u32 warps = blocks * STREAM_WARPS, warp = threadIdx.x / WARP * blocks + blockIdx.x;
    const struct stream_work work = {
        w, rows, k, half, even_share(items, warps, warp), even_share(items, warps, warp + 1), 0, 1};
    return work;
}

/* Tiles of the warp that has most of them. */
DEVICE u32 stream_own_tiles(u32 rows)
{
    const u32 warps = STREAM_OWN_BLOCKS(rows) * STREAM_WARPS;
    return DIV_UP(DIV_UP(STREAM_ITEMS(rows), warps), 8);
}

#endif

/* skinny_head.cu - logits[i][V] = w[V][D] times the norm of row head_row[i] of x, i < head_rows,
 * for 9 rows and more.
 *
 * KERNEL    the entry points' name: KERNEL, KERNEL_2
 * DM_M, DM_N (V), DM_K (D)
 * EPSILON, CUDA_SMS, CUDA_ARCH
 *
 * Pass 1 norms the rows as in skinny_gate_up.cu; pass 2 is the product. On sm_90a x comes as tiles,
 * in the order of its own rows, and a thread looks for the row of logits that each of its two is:
 * no two of them are of one row of x. Floor: 2 V D bytes of weights, or 2 m V D FLOPs. See
 * skinny_product.h, for sm_90a skinny_wgmma.h. */
#include "device.h"
#include "launch.h"

#if SKINNY_WGMMA

#define ROWS_WIDE SKINNY_WIDE(DM_M, DM_N, DM_K)
#define TILES CEIL_DIV((u32)(DM_N), WIDE)
#define BOXES 1
#define X_TILES 1
#define HALF_PIECES (PART(_wide) / 16)
#include "skinny_wgmma.h"

struct PART(_out) {
    float *logits;
    const struct cuda_call *call;
    const int *head_row;
    i32 to[2]; /* rows of logits of the thread's rows; -1: none */
};

DEVICE u32 PART(_box)(u32 tile, u32 box)
{
    return tile * WIDE + box;
}

/* The four lanes that share a row look through a quarter of the list each. */
DEVICE void PART(_know)(struct PART(_out) * out, const struct skinny_share *at)
{
    const i32 rows = out->call->head_rows, row = (i32)at->row;
    out->to[0] = out->to[1] = -1;
    for (i32 i = (i32)(lane_id() % 4); i < rows; i += 4) {
        const i32 from = out->head_row[i];
        out->to[0] = from == row ? i : out->to[0];
        out->to[1] = from == row + 8 ? i : out->to[1];
    }
    UNROLL
    for (u32 n = 0; n < 4; n++) {
        const i32 other = (i32)shuffle_xor_u32((u32)out->to[n / 2], n % 2 + 1, WARP);
        out->to[n / 2] = GREATER(out->to[n / 2], other);
    }
}

DEVICE void PART(_fetch)(struct PART(_out) * out, const struct skinny_share *at, u32 tile)
{
    (void)out, (void)at, (void)tile;
}

DEVICE void PART(_store)(struct PART(_out) * out, const struct skinny_share *at, u32 tile,
                         float sums[WIDE / 2])
{
    const u32 v = (u32)(DM_N);
    UNROLL
    for (u32 n = 0; n < 4 * PAIRS; n++) {
        const u32 i = n % 2, pair = PART(_number)(at, n / 4);
        const u32 c = tile * WIDE + PART(_column)(pair, n / 2 % 2);
        const f32x2 two = {sums[2 * n], sums[2 * n + 1]};
        if (pair >= PAIRS || out->to[i] < 0 || c >= v)
            continue;
        float *to = out->logits + (u64)(u32)out->to[i] * v + c;
        if (v % 2 == 0) {
            *(f32x2 *)(void *)to = two;
        } else {
            to[0] = two.x;
            if (c + 1 < v)
                to[1] = two.y;
        }
    }
}

KERNEL_ENTRY(SKINNY_THREADS_90(DM_M), 1)
CONCAT(KERNEL, _2)
(float *logits, const float *x, const tensor_map *RESTRICT w, const float *RESTRICT gain,
 const struct cuda_call *call, const int *head_row, void *scratch, int *counter, const bf16 *tiles,
 const float *squares)
{
    SHARED_ARENA(arena);
    struct PART(_out) out;
    out.logits = logits;
    out.call = call;
    out.head_row = head_row;
    (void)x, (void)gain, (void)scratch, (void)counter;
    dependents_launch();
    PART(_run)(&out, arena, w, tiles, squares);
}

#else

#include "skinny_product.h"

struct PART(_out) {
    float *logits;
};

DEVICE void PART(_store)(const struct PART(_out) * out, u32 row, u32 item, float first,
                         float second)
{
    const u32 v = (u32)(DM_N), items = CEIL_DIV(v, 2);
    float *to = out->logits + (u64)row * v + item;
    to[0] = first;
    if (item + items < v)
        to[items] = second;
}

#include "skinny_finish.h"

KERNEL_ENTRY(SKINNY_THREADS, 1)
KERNEL(float *logits, const float *x, const bf16 *RESTRICT w, const float *RESTRICT gain,
       const struct cuda_call *call, const int *head_row, void *scratch, int *counter,
       const bf16 *tiles, const float *squares)
{
    SHARED_ARENA(arena);
    const u32 d = (u32)(DM_K), row = blockIdx.x;
    (void)logits, (void)w, (void)counter, (void)tiles, (void)squares;
    dependents_launch();
    dependent_wait();
    if (row < (u32)call->head_rows)
        skinny_norm((bf16 *)scratch + (u64)row * d, x + (u64)(u32)head_row[row] * d, gain, d,
                    EPSILON, (float *)(void *)arena);
}

KERNEL_ENTRY(SKINNY_THREADS, 1)
CONCAT(KERNEL, _2)
(float *logits, const float *x, const bf16 *RESTRICT w, const float *RESTRICT gain,
 const struct cuda_call *call, const int *head_row, void *scratch, int *counter, const bf16 *tiles,
 const float *squares)
{
    SHARED_ARENA(arena);
    bf16 *ring = (bf16 *)(void *)arena, *y = (bf16 *)scratch;
    const struct skinny_place p = PART(_place)();
    const struct PART(_out) out = {logits};
    const bf16 *from[SKINNY_TILE / SWEEP];
    float sums[2][WARP_X / 8][4];
    (void)x, (void)gain, (void)head_row, (void)tiles, (void)squares;
    dependents_launch();
    PART(_rows)(from, &p, w, CEIL_DIV((u32)(DM_N), 2));
    PART(_start)(ring, from, w, &p);
    dependent_wait();
    const u32 rows = (u32)call->head_rows;
    if (p.row >= rows) {
        copy_async_commit();
        copy_async_wait(0);
        return;
    }
    PART(_product)(sums, ring, from, w, y, rows, &p);
    PART(_finish)
    (&out, sums, rows, &p, (f32x2 *)(void *)(y + (u64)(DM_M) * (u32)(DM_K)), counter,
     (u32 *)(void *)arena);
}

#endif
#include "skinny_end.h"

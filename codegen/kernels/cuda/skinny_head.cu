/* skinny_head.cu - logits[i][V] = w[V][D] times the norm of row head_row[i] of x, i < head_rows,
 * for 9 rows and more.
 *
 * KERNEL    the entry points' name: KERNEL, KERNEL_2
 * DM_M, DM_N (V), DM_K (D)
 * EPSILON, CUDA_SMS, CUDA_ARCH
 *
 * Pass 1 norms the rows as in skinny_gate_up.cu; pass 2 is the product. Floor: 2 V D bytes of
 * weights, or 2 m V D FLOPs. See skinny_product.h, for sm_90a skinny_wgmma.h. */
#include "device.h"
#include "launch.h"

#if SKINNY_WGMMA

#define ROWS_WIDE SKINNY_WIDE(DM_M, DM_N, DM_K)
#define TILES CEIL_DIV((u32)(DM_N), WIDE)
#define BOXES 1
#define X_TILES 1
#include "skinny_wgmma.h"

struct PART(_out) {
    float *logits;
    const struct cuda_call *call;
};

DEVICE u32 PART(_box)(u32 tile, u32 box)
{
    return tile * WIDE + box;
}

DEVICE void PART(_store)(const struct PART(_out) * out, u32 tile, const float sums[WIDE / 2])
{
    const u32 v = (u32)(DM_N), rows = (u32)out->call->head_rows;
    const u32 column = tile * WIDE + lane_id() % 4 * 2;
    UNROLL
    for (u32 n = 0; n < 2 * PIECES; n++) {
        const u32 j = n / 2, i = n % 2, row = PART(_row)() + i * 8, c = column + j * 8;
        const f32x2 two = {sums[4 * j + 2 * i], sums[4 * j + 2 * i + 1]};
        float *to = out->logits + (u64)row * v + c;
        if (row >= rows || c >= v)
            continue;
        if (v % 2 == 0) {
            *(f32x2 *)(void *)to = two;
        } else {
            to[0] = two.x;
            if (c + 1 < v)
                to[1] = two.y;
        }
    }
}

KERNEL_ENTRY(SKINNY_THREADS, 1)
KERNEL(float *logits, const float *x, const tensor_map *RESTRICT w, const float *RESTRICT gain,
       const struct cuda_call *call, const int *head_row, void *scratch, int *counter)
{
    SHARED_ARENA(arena);
    const u32 d = (u32)(DM_K), i = blockIdx.x;
    (void)logits, (void)w, (void)counter;
    dependents_launch();
    dependent_wait();
    skinny_norm_tile((u8 *)scratch, SKINNY_X(DM_M), i,
                     i < (u32)call->head_rows ? x + (u64)(u32)head_row[i] * d : (const float *)0,
                     gain, d, EPSILON, (float *)(void *)arena);
}

KERNEL_ENTRY(SKINNY_THREADS_90(DM_M), 1)
CONCAT(KERNEL, _2)
(float *logits, const float *x, const tensor_map *RESTRICT w, const float *RESTRICT gain,
 const struct cuda_call *call, const int *head_row, void *scratch, int *counter)
{
    SHARED_ARENA(arena);
    const struct PART(_out) out = {logits, call};
    (void)x, (void)gain, (void)head_row, (void)counter;
    dependents_launch();
    PART(_run)(&out, arena, w, scratch);
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
       const struct cuda_call *call, const int *head_row, void *scratch, int *counter)
{
    SHARED_ARENA(arena);
    const u32 d = (u32)(DM_K), row = blockIdx.x;
    (void)logits, (void)w, (void)counter;
    dependents_launch();
    dependent_wait();
    if (row < (u32)call->head_rows)
        skinny_norm((bf16 *)scratch + (u64)row * d, x + (u64)(u32)head_row[row] * d, gain, d,
                    EPSILON, (float *)(void *)arena);
}

KERNEL_ENTRY(SKINNY_THREADS, 1)
CONCAT(KERNEL, _2)
(float *logits, const float *x, const bf16 *RESTRICT w, const float *RESTRICT gain,
 const struct cuda_call *call, const int *head_row, void *scratch, int *counter)
{
    SHARED_ARENA(arena);
    bf16 *ring = (bf16 *)(void *)arena, *y = (bf16 *)scratch;
    const struct skinny_place p = PART(_place)();
    const struct PART(_out) out = {logits};
    const bf16 *from[SKINNY_TILE / SWEEP];
    float sums[2][WARP_X / 8][4];
    (void)x, (void)gain, (void)head_row;
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

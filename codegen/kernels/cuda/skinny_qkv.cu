/* skinny_qkv.cu - decode_qkv.cu for 9 rows and more.
 *
 * KERNEL    the entry points' name: KERNEL, KERNEL_2
 * DM_M, DM_N (QKV), DM_K (D)
 * DM_BIAS, DM_HEAD_NORM    0 or 1
 * HEADS, KV_HEADS, HEAD_DIM, PAGES, EPSILON, CUDA_SMS, CUDA_ARCH
 *
 * Pass 1 norms the rows as in skinny_gate_up.cu. Pass 2: an item is the two elements of a head that
 * are rotated together. All blocks leave their sums in scratch and count themselves in at the heads
 * that their items touch; the last to come at a head adds its splits up, norms, rotates and stores
 * it, a warp a row. Floor: 2 N K bytes of weights, or 2 m N K FLOPs. See skinny_product.h. */
#include "skinny_product.h"
#include "decode_cache.h"

/* One head of one row: lane l has pairs l, l + 32 .. of it. */
DEVICE void PART(_head)(bf16 *q, bf16 *cache, const struct decode_head *h, f32x2 *partial,
                        const float *bias, const float *head_gain)
{
    struct decode_values v;
    (void)bias;
    UNROLL
    for (u32 j = 0; j < DECODE_EACH; j++) {
        const u32 i = lane_id() + j * WARP;
        f32x2 pair = {0, 0};
        if (i < HEAD_DIM / 2) {
            pair = PART(_gather)(partial, DM_M, h->head * (HEAD_DIM / 2) + i, h->row);
#if DM_BIAS
            pair.x += bias[h->head * HEAD_DIM + i];
            pair.y += bias[h->head * HEAD_DIM + HEAD_DIM / 2 + i];
#endif
        }
        v.low[j] = pair.x;
        v.high[j] = pair.y;
    }
#if DM_HEAD_NORM
    if (h->head < (u32)(HEADS) + (u32)(KV_HEADS))
        decode_norm_head(&v, head_gain + (h->head < (u32)(HEADS) ? 0 : HEAD_DIM), EPSILON);
#else
    (void)head_gain;
#endif
    decode_store_head(q, cache, h, &v);
}

KERNEL_ENTRY(SKINNY_THREADS, 1)
KERNEL(bf16 *q, bf16 *cache, const float *x, const bf16 *RESTRICT w, const float *RESTRICT gain,
       const float *RESTRICT bias, const float *RESTRICT head_gain, const float *RESTRICT rope,
       const int *RESTRICT slot, const int *position, const int *RESTRICT pages, void *scratch,
       int *counter)
{
    SHARED_ARENA(arena);
    const u64 at = (u64)blockIdx.x * (u32)(DM_K);
    (void)q, (void)cache, (void)w, (void)bias, (void)head_gain, (void)rope, (void)slot;
    (void)position, (void)pages, (void)counter;
    dependents_launch();
    dependent_wait();
    skinny_norm((bf16 *)scratch + at, x + at, gain, (u32)(DM_K), EPSILON, (float *)(void *)arena);
}

KERNEL_ENTRY(SKINNY_THREADS, 1)
CONCAT(KERNEL, _2)
(bf16 *q, bf16 *cache, const float *x, const bf16 *RESTRICT w, const float *RESTRICT gain,
 const float *RESTRICT bias, const float *RESTRICT head_gain, const float *RESTRICT rope,
 const int *RESTRICT slot, const int *position, const int *RESTRICT pages, void *scratch,
 int *counter)
{
    SHARED_ARENA(arena);
    bf16 *ring = (bf16 *)(void *)arena, *y = (bf16 *)scratch;
    f32x2 *partial = (f32x2 *)(void *)(y + (u64)(DM_M) * (u32)(DM_K));
    const struct skinny_place p = PART(_place)();
    const u32 half = HEAD_DIM / 2, heads = (u32)(DM_N) / HEAD_DIM, items = heads * half;
    const bf16 *from[SKINNY_TILE / SWEEP];
    float sums[2][WARP_X / 8][4];
    (void)x, (void)gain;
    dependents_launch();
    PART(_rows)(from, &p, w, half);
    PART(_start)(ring, from, w, &p);
    dependent_wait();
    PART(_product)(sums, ring, from, w, y, DM_M, &p);
    PART(_leave)(partial, sums, DM_M, &p);
    const u32 height = LESSER(DM_M - p.row, SKINNY_ROWS);
    for (u32 head = p.first / half; head * half < p.end; head++) {
        const u32 blocks = even_part(items, BLOCKS, head * half + half - 1) -
                           even_part(items, BLOCKS, head * half) + 1;
        if (!skinny_last(counter + blockIdx.z * heads + head, blocks * SPLITS,
                         (u32 *)(void *)arena))
            continue;
        for (u32 r = threadIdx.x / WARP; r < height; r += SKINNY_THREADS / WARP) {
            const i32 s = slot[p.row + r];
            if (s < 0)
                continue;
            const struct decode_head h =
                decode_head(rope, pages, head, p.row + r, (u32)s, (u32)position[p.row + r]);
            PART(_head)(q, cache, &h, partial, bias, head_gain);
        }
    }
}

#undef DM_BIAS
#undef DM_HEAD_NORM
#include "skinny_end.h"

/* skinny_qkv.cu - decode_qkv.cu for 9 rows and more.
 *
 * KERNEL    the entry points' name: KERNEL, KERNEL_2
 * DM_M, DM_N (QKV), DM_K (D)
 * DM_BIAS, DM_HEAD_NORM    0 or 1
 * HEADS, KV_HEADS, HEAD_DIM, PAGES, EPSILON, CUDA_SMS, CUDA_ARCH
 *
 * On mma.sync pass 1 norms the rows as in skinny_gate_up.cu. Pass 2: an item is the two elements of
 * a head that are rotated together. All blocks leave their sums in scratch and count themselves in
 * at the heads that their items touch; the last to come at a head adds its splits up, norms,
 * rotates and stores it, a warp a row. Floor: 2 N K bytes of weights, or 2 m N K FLOPs. See
 * skinny_product.h.
 *
 * On sm_90a, up to head size 128 (96 above 192 rows), x comes as tiles and there is no pass 1;
 * tiles of weights are whole heads and four lanes have those of a row, whose place in the cache and
 * rotation they know before the step's other kernels have ended: see skinny_wgmma.h. */
#include "device.h"
#include "launch.h"

#if SKINNY_QKV_WGMMA(DM_M)

#define ROWS_WIDE SKINNY_QKV_WIDE(DM_M)
#define TILES SKINNY_QKV_TILES(DM_M, (u32)(DM_N))
#define BOXES (2 * SKINNY_QKV_HEADS(DM_M)) /* halves of heads */
#define X_TILES 1
#define HALF_PIECES (SKINNY_HALF / 8)
#include "skinny_wgmma.h"
#include "decode_cache.h"

/* Whether a thread has registers for its rows' rotations from the start on: in a cluster, where
 * they are few. */
#define EARLY (SPLITS > 1 || (SKINNY_GROUPS(DM_M) == 1 && SKINNY_HALF <= 32))

struct PART(_out) {
    bf16 *q, *cache;
    const float *bias, *head_gain, *rope;
    const int *slot, *length, *pages;
    /* Of the thread's two rows. Angles: cos and sin of two elements of each of its pairs. */
    i32 slots[2];
    u32 positions[2], on_page[2];
    f32x4 angles[2][PART(_pairs)];
};

/* Rows that a box has beyond a half, or beyond the heads, come to nothing. */
DEVICE u32 PART(_box)(u32 tile, u32 box)
{
    return (tile * SKINNY_QKV_HEADS(DM_M) + box / 2) * HEAD_DIM + box % 2 * (HEAD_DIM / 2);
}

/* The first of the two elements of each half of a head that a pair is; E / 2 and more: none. */
DEVICE u32 PART(_element)(u32 pair)
{
    return pair < PAIRS ? pair % HALF_PIECES * 8 + lane_id() % 4 * 2 : HEAD_DIM / 2;
}

/* Of e and e + 1; of 0 and 1 where there is no such element, so that every load is whole. */
DEVICE f32x4 PART(_angles)(const float *rope, u32 position, u32 e)
{
    const u32 place = e < HEAD_DIM / 2 ? e * 2 : 0;
    return *(const f32x4 *)(const void *)(rope + (u64)position * HEAD_DIM + place);
}

DEVICE void PART(_know)(struct PART(_out) * out, const struct skinny_share *at)
{
    UNROLL
    for (u32 i = 0; i < 2; i++) {
        const u32 row = at->row + i * 8;
        const i32 slot = row < DM_M ? out->slot[row] : -1;
        out->slots[i] = slot;
        out->positions[i] = slot >= 0 ? (u32)out->length[slot] : 0;
        out->on_page[i] = slot >= 0 ? decode_page(out->pages, (u32)slot, out->positions[i]) : 0;
        UNROLL
        for (u32 k = 0; k < PAIRS; k++)
            if (EARLY && k * SPANS < PAIRS)
                out->angles[i][k] = PART(_angles)(out->rope, out->positions[i],
                                                  PART(_element)(PART(_number)(at, k)));
    }
}

DEVICE void PART(_fetch)(struct PART(_out) * out, const struct skinny_share *at, u32 tile)
{
    (void)out, (void)at, (void)tile;
}

DEVICE void PART(_add_bias)(const struct PART(_out) * out, const struct skinny_share *at, u32 tile,
                            float sums[WIDE / 2])
{
    UNROLL
    for (u32 n = 0; n < 4 * PAIRS; n++) {
        const u32 pair = PART(_number)(at, n / 4), e = PART(_element)(pair);
        const u32 head = tile * SKINNY_QKV_HEADS(DM_M) + pair / HALF_PIECES;
        const float *bias = out->bias + head * HEAD_DIM + n / 2 % 2 * (HEAD_DIM / 2) + e;
        if (e < HEAD_DIM / 2 && head < (u32)(DM_N) / HEAD_DIM) {
            sums[2 * n] += bias[0];
            sums[2 * n + 1] += bias[1];
        }
    }
}

/* q and k heads times gain[E] over the rms. */
DEVICE void PART(_norm_heads)(const struct PART(_out) * out, const struct skinny_share *at,
                              u32 tile, float sums[WIDE / 2])
{
    enum { TILE_HEADS = SKINNY_QKV_HEADS(DM_M) };
    float rstd[2 * TILE_HEADS];
    UNROLL
    for (u32 n = 0; n < 2 * TILE_HEADS; n++) { /* rows are n % 2 */
        float squares = 0.0f;
        UNROLL
        for (u32 k = 0; k < PAIRS; k++) {
            const u32 pair = PART(_number)(at, k);
            const float *low = sums + 8 * k + n % 2 * 2, *high = low + 4;
            if (pair / HALF_PIECES == n / 2 && PART(_element)(pair) < HEAD_DIM / 2)
                squares +=
                    low[0] * low[0] + low[1] * low[1] + high[0] * high[0] + high[1] * high[1];
        }
        rstd[n] = fast_rsqrt(PART(_row_sum)(squares) * (1.0f / HEAD_DIM) + EPSILON);
    }
    UNROLL
    for (u32 n = 0; n < 4 * PAIRS; n++) {
        const u32 pair = PART(_number)(at, n / 4), e = PART(_element)(pair);
        const u32 head = tile * TILE_HEADS + pair / HALF_PIECES;
        const float *gain =
            out->head_gain + (head < (u32)(HEADS) ? 0 : HEAD_DIM) + n / 2 % 2 * (HEAD_DIM / 2) + e;
        float r = rstd[n % 2];
        UNROLL
        for (u32 h = 1; h < TILE_HEADS; h++)
            r = pair / HALF_PIECES == h ? rstd[2 * h + n % 2] : r;
        if (e < HEAD_DIM / 2 && head < (u32)(HEADS) + (u32)(KV_HEADS)) {
            sums[2 * n] *= r * gain[0];
            sums[2 * n + 1] *= r * gain[1];
        }
    }
}

/* Rotated, to q or the cache: the thread's pair k of its first or second row. */
DEVICE void PART(_store_pair)(const struct PART(_out) * out, const struct skinny_share *at,
                              u32 tile, u32 k, u32 i, const float *sums)
{
    const f32x4 none = {1.0f, 0.0f, 1.0f, 0.0f};
    const u32 pair = PART(_number)(at, k), e = PART(_element)(pair);
    const u32 head = tile * SKINNY_QKV_HEADS(DM_M) + pair / HALF_PIECES;
    const float *low = sums + 8 * k + 2 * i, *high = low + 4;
    if (e >= HEAD_DIM / 2 || head >= (u32)(DM_N) / HEAD_DIM || out->slots[i] < 0)
        return;
    const struct decode_head h =
        decode_head_on(out->rope, out->on_page[i], head, at->row + i * 8, out->positions[i]);
    const f32x4 turn = EARLY ? out->angles[i][k] : PART(_angles)(out->rope, out->positions[i], e);
    const f32x4 t = h.angles ? turn : none;
    bf16 *to = (head < (u32)(HEADS) ? out->q : out->cache) + h.to + e;
    *(u32 *)(void *)to = bf16_pack(low[0] * t.x - high[0] * t.y, low[1] * t.z - high[1] * t.w);
    *(u32 *)(void *)(to + HEAD_DIM / 2) =
        bf16_pack(high[0] * t.x + low[0] * t.y, high[1] * t.z + low[1] * t.w);
}

DEVICE void PART(_store)(struct PART(_out) * out, const struct skinny_share *at, u32 tile,
                         float sums[WIDE / 2])
{
#if DM_BIAS
    PART(_add_bias)(out, at, tile, sums);
#endif
#if DM_HEAD_NORM
    PART(_norm_heads)(out, at, tile, sums);
#endif
    UNROLL
    for (u32 n = 0; n < 2 * PAIRS; n++)
        PART(_store_pair)(out, at, tile, n / 2, n % 2, sums);
}

KERNEL_ENTRY(SKINNY_THREADS_90(DM_M), 1)
CONCAT(KERNEL, _2)
(bf16 *q, bf16 *cache, const float *x, const tensor_map *RESTRICT w, const float *RESTRICT gain,
 const float *RESTRICT bias, const float *RESTRICT head_gain, const float *RESTRICT rope,
 const int *RESTRICT slot, const int *RESTRICT length, const int *RESTRICT pages, void *scratch,
 int *counter, const bf16 *tiles, const float *squares)
{
    SHARED_ARENA(arena);
    struct PART(_out) out;
    out.q = q;
    out.cache = cache;
    out.bias = bias;
    out.head_gain = head_gain;
    out.rope = rope;
    out.slot = slot;
    out.length = length;
    out.pages = pages;
    (void)x, (void)gain, (void)scratch, (void)counter;
    dependents_launch();
    PART(_run)(&out, arena, w, tiles, squares);
}

#undef EARLY

#else

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
       const int *RESTRICT slot, const int *RESTRICT length, const int *RESTRICT pages,
       void *scratch, int *counter, const bf16 *tiles, const float *squares)
{
    SHARED_ARENA(arena);
    const u64 at = (u64)blockIdx.x * (u32)(DM_K);
    (void)q, (void)cache, (void)w, (void)bias, (void)head_gain, (void)rope, (void)slot;
    (void)length, (void)pages, (void)counter, (void)tiles, (void)squares;
    dependents_launch();
    dependent_wait();
    skinny_norm((bf16 *)scratch + at, x + at, gain, (u32)(DM_K), EPSILON, (float *)(void *)arena);
}

KERNEL_ENTRY(SKINNY_THREADS, 1)
CONCAT(KERNEL, _2)
(bf16 *q, bf16 *cache, const float *x, const bf16 *RESTRICT w, const float *RESTRICT gain,
 const float *RESTRICT bias, const float *RESTRICT head_gain, const float *RESTRICT rope,
 const int *RESTRICT slot, const int *RESTRICT length, const int *RESTRICT pages, void *scratch,
 int *counter, const bf16 *tiles, const float *squares)
{
    SHARED_ARENA(arena);
    bf16 *ring = (bf16 *)(void *)arena, *y = (bf16 *)scratch;
    f32x2 *partial = (f32x2 *)(void *)(y + (u64)(DM_M) * (u32)(DM_K));
    const struct skinny_place p = PART(_place)();
    const u32 half = HEAD_DIM / 2, heads = (u32)(DM_N) / HEAD_DIM, items = heads * half;
    const bf16 *from[SKINNY_TILE / SWEEP];
    float sums[2][WARP_X / 8][4];
    (void)x, (void)gain, (void)tiles, (void)squares;
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
                decode_head(rope, pages, head, p.row + r, (u32)s, (u32)length[s]);
            PART(_head)(q, cache, &h, partial, bias, head_gain);
        }
    }
}

#endif
#undef DM_BIAS
#undef DM_HEAD_NORM
#include "skinny_end.h"

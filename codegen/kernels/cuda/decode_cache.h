/* decode_cache.h - where one token's q, k and v go: rotation, pages, the head's norm. Shared by
 * decode_qkv.cu and skinny_qkv.cu. Macros: HEADS, KV_HEADS, HEAD_DIM, PAGES. */
#ifndef DECODE_CACHE_H
#define DECODE_CACHE_H

/* A head of the projection, [q heads][k heads][v heads], of one row: where it goes, and the angles
 * {cos, sin}[E/2] that turn it (NULL: v). */
struct decode_head {
    u32 head, row;
    u64 to; /* elements, of q for a q head, else of the cache */
    const f32x2 *angles;
};

/* The page of the cache that a token of a slot is in. */
DEVICE u32 decode_page(const int *pages, u32 slot, u32 position)
{
    return (u32)pages[slot * (u32)(PAGES) + position / KV_PAGE];
}

/* With that page, which heads of q have no use for. */
DEVICE struct decode_head decode_head_on(const float *rope, u32 page, u32 head, u32 row,
                                         u32 position)
{
    const u32 heads = (u32)(HEADS), kv_heads = (u32)(KV_HEADS);
    struct decode_head h;
    h.head = head;
    h.row = row;
    h.angles = head < heads + kv_heads
                   ? (const f32x2 *)(const void *)rope + (u64)position * (HEAD_DIM / 2)
                   : (const f32x2 *)0;
    if (head < heads) {
        h.to = ((u64)row * heads + head) * HEAD_DIM;
    } else { /* k head i is number i of the page, v head i number K + i */
        h.to =
            (((u64)page * 2 * kv_heads + head - heads) * KV_PAGE + position % KV_PAGE) * HEAD_DIM;
    }
    return h;
}

DEVICE struct decode_head decode_head(const float *rope, const int *pages, u32 head, u32 row,
                                      u32 slot, u32 position)
{
    const u32 page = head < (u32)(HEADS) ? 0 : decode_page(pages, slot, position);
    return decode_head_on(rope, page, head, row, position);
}

/* Elements i and i + E/2 of a head: what turns them, and where the first goes. */
struct decode_pair {
    f32x2 angle;
    bf16 *to;
};

DEVICE struct decode_pair decode_pair(bf16 *q, bf16 *cache, const struct decode_head *h, u32 i)
{
    const f32x2 none = {1.0f, 0.0f};
    struct decode_pair pair;
    pair.angle = h->angles ? h->angles[i] : none;
    pair.to = (h->head < (u32)(HEADS) ? q : cache) + h->to + i;
    return pair;
}

DEVICE void decode_store_pair(struct decode_pair pair, float low, float high)
{
    pair.to[0] = bf16_from_f32(low * pair.angle.x - high * pair.angle.y);
    pair.to[HEAD_DIM / 2] = bf16_from_f32(high * pair.angle.x + low * pair.angle.y);
}

/* ---- a head a warp: lane l has pairs l, l + 32 .. ---- */

enum { DECODE_EACH = DIV_UP(HEAD_DIM / 2, WARP) };
struct decode_values {
    float low[DECODE_EACH], high[DECODE_EACH]; /* 0 past the head's end */
};

/* Times gain[E] over the rms. */
DEVICE void decode_norm_head(struct decode_values *v, const float *gain, float eps)
{
    float squares = 0.0f;
    UNROLL
    for (u32 j = 0; j < DECODE_EACH; j++)
        squares = f32_fma(v->low[j], v->low[j], f32_fma(v->high[j], v->high[j], squares));
    const float rstd = fast_rsqrt(warp_sum(squares, WARP) * (1.0f / HEAD_DIM) + eps);
    UNROLL
    for (u32 j = 0; j < DECODE_EACH; j++) {
        const u32 i = lane_id() + j * WARP;
        if (i < HEAD_DIM / 2) {
            v->low[j] *= rstd * gain[i];
            v->high[j] *= rstd * gain[HEAD_DIM / 2 + i];
        }
    }
}

DEVICE void decode_store_head(bf16 *q, bf16 *cache, const struct decode_head *h,
                              const struct decode_values *v)
{
    UNROLL
    for (u32 j = 0; j < DECODE_EACH; j++) {
        const u32 i = lane_id() + j * WARP;
        if (i < HEAD_DIM / 2)
            decode_store_pair(decode_pair(q, cache, h, i), v->low[j], v->high[j]);
    }
}

#endif

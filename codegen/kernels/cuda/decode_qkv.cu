/* decode_qkv.cu - q, k and v of one token a row: w[QKV][D] times the norm of x, + bias, q and k
 * heads over their rms, rotated; q to q[m][dq], k and v to the cache. Fewer than 9 rows.
 *
 * KERNEL    the entry point's name
 * DM_M      rows, 1..8
 * DM_N      QKV, DM_K: D
 * DM_BIAS, DM_HEAD_NORM    0 or 1
 * HEADS, KV_HEADS, HEAD_DIM, PAGES, EPSILON, CUDA_SMS, CUDA_ARCH
 *
 * Floor: 2 N K bytes of weights, read once. Cut as decode_residual.cu; an item is the two elements
 * of a head that are rotated together, so that a thread ends with a pair and needs no other. What
 * it needs for that (position, page, angle) it fetches before dependent_wait(): the slot's length
 * is its token's position, and no kernel of the step has written it.
 *
 * A head's norm needs the whole head, which several blocks share: they leave it in scratch, and the
 * last of them to come finishes it, a warp a row. */
#include "decode_stream.h"
#include "decode_cache.h"

#if DM_HEAD_NORM
/* Counts this block in at each q or k head that its items touch, all at once; where it is the last,
 * finishes the head in all rows. `last`: a place for each of those heads. */
DEVICE void CONCAT(KERNEL, _heads)(bf16 *q, bf16 *cache, const float *values,
                                   const float *head_gain, const float *rope, const int *slot,
                                   const int *length, const int *pages, int *counter, u32 first,
                                   u32 end, u32 *last)
{
    const u32 half = HEAD_DIM / 2, items = STREAM_ITEMS((u32)(DM_N)), t = threadIdx.x;
    const u32 parts = STREAM_SPLIT_BLOCKS((u32)(DM_N));
    const u32 normed = ((u32)(HEADS) + (u32)(KV_HEADS)) * half, head0 = first / half;
    const u32 heads = first < normed ? DIV_UP(LESSER(end, normed), half) - head0 : 0;
    block_sync();
    if (t < heads) {
        const u32 head = head0 + t;
        const u32 blocks = even_part(items, parts, head * half + half - 1) -
                           even_part(items, parts, head * half) + 1;
        last[t] = atomic_add_acq_rel_u32((u32 *)counter + head, 1) + 1 == blocks;
        if (last[t])
            counter[head] = 0;
    }
    block_sync();
    for (u32 i = t / WARP; i < heads * DM_M; i += STREAM_WARPS) {
        const u32 head = head0 + i / DM_M, r = i % DM_M;
        if (!last[i / DM_M] || slot[r] < 0)
            continue;
        const float *from = values + (u64)r * (u32)(DM_N) + head * HEAD_DIM;
        const struct decode_head h =
            decode_head(rope, pages, head, r, (u32)slot[r], (u32)length[slot[r]]);
        struct decode_values v;
        UNROLL
        for (u32 j = 0; j < DECODE_EACH; j++) {
            const u32 pair = lane_id() + j * WARP;
            v.low[j] = pair < half ? load_l2_f32(from + pair) : 0.0f;
            v.high[j] = pair < half ? load_l2_f32(from + half + pair) : 0.0f;
        }
        decode_norm_head(&v, head_gain + (head < (u32)(HEADS) ? 0 : HEAD_DIM), EPSILON);
        decode_store_head(q, cache, &h, &v);
    }
}
#endif

KERNEL_ENTRY(STREAM_THREADS, DM_HEAD_NORM ? 2 : STREAM_RESIDENT(DM_M))
KERNEL(bf16 *q, bf16 *cache, const float *x, const bf16 *RESTRICT w, const float *RESTRICT gain,
       const float *RESTRICT bias, const float *RESTRICT head_gain, const float *RESTRICT rope,
       const int *RESTRICT slot, const int *RESTRICT length, const int *RESTRICT pages,
       void *scratch, int *counter)
{
    SHARED_ARENA(arena);
    const u32 n = (u32)(DM_N), half = HEAD_DIM / 2, r = threadIdx.x / 32, i = threadIdx.x % 32;
    const struct stream_work work = stream_split(w, n, (u32)(DM_K), half);
    const u32 end = stream_split_end(n), item = work.first + i;
    struct stream_input in = stream_input(arena, STREAM_RING, DM_M, (u32)(DM_K));
    struct stream_ring ring;
    float *partial = stream_partial(&in);
    (void)bias, (void)head_gain, (void)scratch, (void)counter;
    stream_start(&ring, arena, &work, STREAM_RING);
    stream_warm(gain, (u32)(DM_K));
#if DM_HEAD_NORM
    stream_warm(head_gain, 2 * HEAD_DIM);
#endif
    const u32 row = stream_row(item, half), mine = item < end && r < DM_M;
#if DM_BIAS
    const float low_bias = mine ? bias[row] : 0.0f, high_bias = mine ? bias[row + half] : 0.0f;
#else
    const float low_bias = 0.0f, high_bias = 0.0f;
#endif
    const i32 s = mine ? slot[r] : -1;
    struct decode_pair pair = {{1, 0}, (bf16 *)0};
    if (s >= 0) {
        const struct decode_head h =
            decode_head(rope, pages, row / HEAD_DIM, r, (u32)s, (u32)length[s]);
        pair = decode_pair(q, cache, &h, row % HEAD_DIM);
    }
    dependent_wait();
    in.x32 = x;
    in.gain = gain;
    for (u32 tile = 0; work.first + tile * 8 < end; tile++) {
        float d[4];
        stream_product(d, &ring, &work, &in, tile);
        stream_keep(partial, tile, d);
    }
    block_sync();
    if (mine) {
        const float rstd = stream_rstd(&in, r, EPSILON);
        const float low = stream_sum(partial, i, r, 0) * rstd + low_bias;
        const float high = stream_sum(partial, i, r, 1) * rstd + high_bias;
#if DM_HEAD_NORM
        float *values = (float *)scratch + (u64)r * n + row;
        values[0] = low;
        values[half] = high;
        if (s >= 0 && row >= ((u32)(HEADS) + (u32)(KV_HEADS)) * HEAD_DIM)
            decode_store_pair(pair, low, high);
#else
        if (s >= 0)
            decode_store_pair(pair, low, high);
#endif
    }
#if DM_HEAD_NORM
    CONCAT(KERNEL, _heads)
    (q, cache, (const float *)scratch, head_gain, rope, slot, length, pages, counter, work.first,
     end, (u32 *)(void *)partial);
#endif
}

#undef KERNEL
#undef DM_M
#undef DM_N
#undef DM_K
#undef DM_BIAS
#undef DM_HEAD_NORM

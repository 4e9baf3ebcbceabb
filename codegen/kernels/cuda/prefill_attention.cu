/* prefill_attention.cu - att[m][dq]: each row's queries over the keys and values of its slot's
 * cache, up to its own position. Same arithmetic as attention.cu.
 *
 * KERNEL    the entry point's name
 * ATT_M     most rows of a call
 * SEGMENTS, PAGES, HEADS, KV_HEADS, HEAD_DIM
 *
 * Floor: 4 E FLOPs a query head and key it sees.
 *
 * A block takes FLASH_ROWS rows of one kv head of one segment (attention_tile.h); the grid is as
 * large as any division of m rows into segments needs, and blocks past the last segment end. */
#include "attention_tile.h"

STATIC_ASSERT(KV_PAGE % RUN == 0 && TILE_KEYS % RUN == 0, "a run of keys must not cross pages");

/* Rows of work number `at` of the call, counted from the last tile of the last segment, which has
 * the most keys, and the segment's first row of the call. 0: there is no such work. */
DEVICE u32 PART(find)(struct PART(work) * w, u32 *begin, u32 at, const struct cuda_call *call,
                      const int *segment_row)
{
    for (u32 i = (u32)call->segments; i-- > 0;) {
        *begin = (u32)segment_row[i];
        w->rows = ((u32)segment_row[i + 1] - *begin) * w->group;
        const u32 tiles = DIV_UP(w->rows, TILE_ROWS);
        if (at < tiles) {
            w->first = (tiles - 1 - at) * TILE_ROWS;
            return 1;
        }
        at -= tiles;
    }
    return 0;
}

KERNEL_ENTRY(THREADS, 1)
KERNEL(bf16 *RESTRICT att, const bf16 *RESTRICT qkv, const KEY_SOURCE *RESTRICT cache,
       const struct cuda_call *RESTRICT call, const int *RESTRICT segment_row,
       const int *RESTRICT slot, const int *RESTRICT position, const int *RESTRICT pages)
{
    SHARED_ARENA(arena);
    const u32 kv = blockIdx.y;
    const u64 dq = (u64)(HEADS)*HEAD_DIM, dkv = (u64)(KV_HEADS)*HEAD_DIM;
    u32 begin = 0;
    struct PART(work) w;
    w.group = (u32)(HEADS) / (u32)(KV_HEADS);
    if (!PART(find)(&w, &begin, blockIdx.x, call, segment_row))
        return;
    w.past = (u32)position[begin];
    w.q_row = dq + 2 * dkv;
    w.q = qkv + begin * w.q_row + kv * w.group * HEAD_DIM;
    w.kv = cache;
    w.kv_row = HEAD_DIM;
    w.kv_head = (u64)KV_PAGE * HEAD_DIM;
    w.kv_outer = 2 * dkv * KV_PAGE;
    w.keys = kv;
    w.values = (u32)(KV_HEADS) + kv;
    w.sequence = 0;
    w.page = pages + (u64)(u32)slot[begin] * (u32)(PAGES);
    w.att = att + begin * dq + kv * w.group * HEAD_DIM;
    w.att_row = dq;
    w.lse = 0;
    w.lse_row = 0;
    PART(run)(&w, arena);
}

#include "attention_end.h"
#undef KERNEL
#undef ATT_M

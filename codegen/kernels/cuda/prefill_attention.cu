/* prefill_attention.cu - att[m][dq]: each row's queries over the keys and values of its slot's
 * cache, up to its own position. Same arithmetic as attention.cu.
 *
 * KERNEL    the entry point's name
 * ATT_M     most rows of a call
 * SEGMENTS, PAGES, HEADS, KV_HEADS, HEAD_DIM
 *
 * Floor: 4 E FLOPs a query head and key it sees.
 *
 * A work: FLASH_ROWS rows of one kv head of one segment (attention_tile.h). How many there are is
 * known when the call's segments are. */
#include "attention_tile.h"

STATIC_ASSERT(KV_PAGE % RUN == 0 && TILE_KEYS % RUN == 0, "a run of keys must not cross pages");

struct PART(call) {
    bf16 *att;
    const bf16 *qkv;
    const KEY_SOURCE *cache;
    const struct cuda_call *call;
    const int *segment_row, *slot, *position, *pages;
};

/* Rows of tile number `at` of the call, counted from the last tile of the last segment, which has
 * the most keys, and the segment's first row of the call. 0: there is no such tile. */
DEVICE u32 PART(find)(struct PART(work) * w, u32 *begin, u32 at, const struct PART(call) * c)
{
    for (u32 i = (u32)c->call->segments; i-- > 0;) {
        *begin = (u32)c->segment_row[i];
        w->rows = ((u32)c->segment_row[i + 1] - *begin) * w->group;
        const u32 tiles = DIV_UP(w->rows, TILE_ROWS);
        if (at < tiles) {
            w->first = (tiles - 1 - at) * TILE_ROWS;
            return 1;
        }
        at -= tiles;
    }
    *begin = w->first = 0;
    return 0;
}

DEVICE u32 PART(take)(struct PART(work) * w, const struct PART(call) * c, u32 i)
{
    const u32 kv = i % (u32)(KV_HEADS);
    const u64 dq = (u64)(HEADS)*HEAD_DIM, dkv = (u64)(KV_HEADS)*HEAD_DIM;
    u32 begin = 0;
    w->group = (u32)(HEADS) / (u32)(KV_HEADS);
    w->rows = 0;
    const u32 found = PART(find)(w, &begin, i / (u32)(KV_HEADS), c);
    w->past = (u32)c->position[begin];
    w->q_row = dq + 2 * dkv;
    w->q = c->qkv + begin * w->q_row + kv * w->group * HEAD_DIM;
    w->kv = c->cache;
    w->kv_row = HEAD_DIM;
    w->kv_head = (u64)KV_PAGE * HEAD_DIM;
    w->kv_outer = 2 * dkv * KV_PAGE;
    w->keys = kv;
    w->values = (u32)(KV_HEADS) + kv;
    w->sequence = 0;
    w->page = c->pages + (u64)(u32)c->slot[begin] * (u32)(PAGES);
    w->att = c->att + begin * dq + kv * w->group * HEAD_DIM;
    w->att_row = dq;
    w->lse = 0;
    w->lse_row = 0;
    return found;
}

KERNEL_ENTRY(THREADS, 1)
KERNEL(bf16 *RESTRICT att, const bf16 *RESTRICT qkv, const KEY_SOURCE *RESTRICT cache,
       const struct cuda_call *RESTRICT call, const int *RESTRICT segment_row,
       const int *RESTRICT slot, const int *RESTRICT position, const int *RESTRICT pages)
{
    SHARED_ARENA(arena);
    const struct PART(call) c = {att, qkv, cache, call, segment_row, slot, position, pages};
    PART(run)(&c, arena);
}

#include "attention_end.h"
#undef KERNEL
#undef ATT_M

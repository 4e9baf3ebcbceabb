/* attention.cu - att[B T][dq] = causal attention over qkv rows [q][k][v]; lse[B T][H].
 *
 * KERNEL          the entry point's name
 * ATT_B, ATT_T    sequences and their length
 * HEADS, KV_HEADS, HEAD_DIM    any group, head size a multiple of 8, at most 256
 *
 * Floor: 2 B T^2 H E FLOPs (half of the square) on the tensor cores; of the 4 (dq + dkv) bytes a
 * token only those of keys and values are read more than once, out of L2. One exponential a score
 * is the second limit: at head size 64 it takes as long as the products, beside them.
 *
 * A work: FLASH_ROWS rows of one kv head (attention_tile.h) over the keys that they see. */
#include "attention_tile.h"

struct PART(call) {
    bf16 *att;
    float *lse;
    const bf16 *qkv;
    const KEY_SOURCE *kv;
};

/* Heads' keys and values that L2 should hold are worked on at a time: from the works with the most
 * keys to those with the fewest or back, so that one batch of heads begins as the last one ended.
 * The last batch ends with the fewest. */
DEVICE u32 PART(take)(struct PART(work) * w, const struct PART(call) * c, u32 i)
{
    const u32 all = (u32)(KV_HEADS) * (u32)(ATT_B);
    const u32 near = FLASH_NEAR_HEADS(all, (u32)(ATT_T), HEAD_DIM);
    const u64 dq = (u64)(HEADS)*HEAD_DIM, dkv = (u64)(KV_HEADS)*HEAD_DIM;
    w->group = (u32)(HEADS) / (u32)(KV_HEADS);
    w->rows = (u32)(ATT_T)*w->group;
    const u32 tiles = DIV_UP(w->rows, TILE_ROWS), there = i < tiles * all;
    i = there ? i : 0;
    const u32 batch = i / (tiles * near);
    const u32 of_batch = all - batch * near < near ? all - batch * near : near;
    const u32 at = i - batch * tiles * near, tile = at / of_batch;
    const u32 whole = batch * near + at % of_batch, head = whole % (u32)(KV_HEADS);
    w->first = ((DIV_UP(all, near) - 1 - batch) % 2 ? tile : tiles - 1 - tile) * TILE_ROWS;
    w->past = 0;
    w->sequence = whole / (u32)(KV_HEADS);
    const u64 token0 = (u64)w->sequence * (u32)(ATT_T);
    w->q_row = w->kv_row = dq + 2 * dkv;
    w->q = c->qkv + token0 * w->q_row + head * w->group * HEAD_DIM;
    w->kv = c->kv;
    w->kv_head = HEAD_DIM;
    w->kv_outer = (u32)(ATT_T)*w->kv_row;
    w->keys = (u32)(HEADS) + head;
    w->values = w->keys + (u32)(KV_HEADS);
    w->page = 0;
    w->att = c->att + token0 * dq + head * w->group * HEAD_DIM;
    w->att_row = dq;
    w->lse = c->lse + token0 * (u32)(HEADS) + head * w->group;
    w->lse_row = (u32)(HEADS);
    return there;
}

KERNEL_ENTRY(THREADS, 1)
KERNEL(bf16 *RESTRICT att, float *RESTRICT lse, const bf16 *RESTRICT qkv,
       const KEY_SOURCE *RESTRICT kv)
{
    SHARED_ARENA(arena);
    const struct PART(call) c = {att, lse, qkv, kv};
    PART(run)(&c, arena);
}

#include "attention_end.h"
#undef KERNEL
#undef ATT_B
#undef ATT_T

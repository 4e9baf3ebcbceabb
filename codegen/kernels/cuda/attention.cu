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
 * A block: FLASH_ROWS rows of one kv head (attention_tile.h) over the keys that they see. Blocks
 * with the most keys come first, those of one head together. */
#include "attention_tile.h"

KERNEL_ENTRY(THREADS, 1)
KERNEL(bf16 *RESTRICT att, float *RESTRICT lse, const bf16 *RESTRICT qkv,
       const KEY_SOURCE *RESTRICT kv)
{
    SHARED_ARENA(arena);
    const u32 head = blockIdx.y;
    const u64 dq = (u64)(HEADS)*HEAD_DIM, dkv = (u64)(KV_HEADS)*HEAD_DIM;
    const u64 token0 = (u64)blockIdx.z * (u32)(ATT_T);
    struct PART(work) w;
    w.group = (u32)(HEADS) / (u32)(KV_HEADS);
    w.rows = (u32)(ATT_T)*w.group;
    w.first = (gridDim.x - 1 - blockIdx.x) * TILE_ROWS;
    w.past = 0;
    w.q_row = w.kv_row = dq + 2 * dkv;
    w.q = qkv + token0 * w.q_row + head * w.group * HEAD_DIM;
    w.kv = kv;
    w.kv_head = HEAD_DIM;
    w.kv_outer = (u32)(ATT_T)*w.kv_row;
    w.keys = (u32)(HEADS) + head;
    w.values = w.keys + (u32)(KV_HEADS);
    w.sequence = blockIdx.z;
    w.page = 0;
    w.att = att + token0 * dq + head * w.group * HEAD_DIM;
    w.att_row = dq;
    w.lse = lse + token0 * (u32)(HEADS) + head * w.group;
    w.lse_row = (u32)(HEADS);
    PART(run)(&w, arena);
}

#include "attention_end.h"
#undef KERNEL
#undef ATT_B
#undef ATT_T

/* prefill_rope.cu - rows of qkv[m] = [dq q][dkv k][dkv v], behind a norm of each head where
 * ROPE_HEAD_NORM: q rotated in place; k rotated, and v, into the cache. Row i is of slot[i] at
 * position[i].
 *
 * KERNEL           the function's name
 * ROPE_M           most rows
 * ROPE_HEAD_NORM   0 or 1; NORM_EPS
 * HEADS, KV_HEADS, HEAD_DIM (a number), PAGES
 *
 * Floor: 4 M QKV bytes, half of them read. A block a row, as in rope.cu. */
#include "device.h"
#include "launch.h"
#include "archrt_cuda.h"
#include "rope.h"

/* Where element 0 of kv head 0 of this token's k is; that of v KV_HEADS heads of a page further. */
DEVICE bf16 *CONCAT(KERNEL, _token)(bf16 *cache, const int *pages, u32 slot, u32 position)
{
    const u32 page = (u32)pages[(u64)slot * (u32)(PAGES) + position / KV_PAGE];
    return cache + ((u64)page * 2 * KV_HEADS * KV_PAGE + position % KV_PAGE) * HEAD_DIM;
}

KERNEL_ENTRY(ROPE_THREADS, 12)
KERNEL(bf16 *qkv, bf16 *cache, const float *RESTRICT head_gain, const float *RESTRICT rope,
       const struct cuda_call *RESTRICT call, const int *RESTRICT slots,
       const int *RESTRICT positions, const int *RESTRICT pages)
{
    const u32 row = blockIdx.x, lane = threadIdx.x % ROPE_LANES(HEAD_DIM),
              slot = threadIdx.x / ROPE_LANES(HEAD_DIM);
    const u32 turned = HEADS + KV_HEADS, works = lane < HEAD_DIM / 8;
    if (row >= (u32)call->rows)
        return;
    const u32 position = (u32)positions[row], page_head = KV_PAGE * HEAD_DIM;
    bf16 *from = qkv + (u64)row * (turned + KV_HEADS) * HEAD_DIM;
    bf16 *token = CONCAT(KERNEL, _token)(cache, pages, (u32)slots[row], position);
    struct rope_pairs angle = rope_zero();
    if (works)
        angle = rope_angles(rope, position, lane);
    for (u32 first = 0; first < turned; first += ROPE_SLOTS) {
        const u32 head = first + slot, live = works && head < turned;
        struct rope_pairs x = rope_zero();
        if (live)
            x = rope_load(from + head * HEAD_DIM, lane);
        if (ROPE_HEAD_NORM) {
            struct rope_pairs gain = rope_zero();
            float r;
            if (works)
                gain = rope_load_f32(head_gain + (head < HEADS ? 0 : HEAD_DIM), lane);
            x = rope_norm(x, gain, (float)(NORM_EPS), &r);
        }
        if (live)
            rope_store(head < HEADS ? from + head * HEAD_DIM
                                    : token + (u64)(head - HEADS) * page_head,
                       lane, rope_turn(x, angle));
    }
    const u32x4 *v = (const u32x4 *)(const void *)(from + turned * HEAD_DIM);
    for (u32 i = threadIdx.x; i < KV_HEADS * HEAD_DIM / 8; i += ROPE_THREADS) {
        const u32 head = i / (HEAD_DIM / 8), at = i % (HEAD_DIM / 8) * 8;
        *(u32x4 *)(void *)(token + (u64)(KV_HEADS + head) * page_head + at) = v[i];
    }
}

#undef KERNEL
#undef ROPE_M
#undef ROPE_HEAD_NORM
#undef NORM_EPS

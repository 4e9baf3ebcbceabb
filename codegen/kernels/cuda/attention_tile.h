/* attention_tile.h - the forward kernels' common part: a block of queries of one kv head against
 * one tile of keys after the other, with an online softmax (FlashAttention-2, Dao 2023). A
 * template: attention.cu and prefill_attention.cu include it once an instance, and attention_end.h
 * behind.
 *
 * A row is one query head of one token. The G heads of a group see the same keys, so a block takes
 * rows of (token, head of the group), tokens first: row r is token r / G, head r % G. A group of 3,
 * 7 or 9 fills tiles as well as one of 8, and keys and values are read once for all of it.
 *
 * Here: what a block works on, and what happens to rows of scores in registers. How they get there
 * is attention_wgmma.h's on sm_90a up to head size 128, attention_mma.h's elsewhere.
 *
 * Keys and values are a tensor [..][head][key][E] for both: of training, the rows of qkv, one
 * [head][key][E] a sequence; of prefill, the cache, one a page.
 *
 * Needs KERNEL and HEAD_DIM. */
#include "device.h"
#include "launch.h"
#include "archrt_cuda.h"
#include "mma_tile.h"

#define PART(name) CONCAT(KERNEL, _##name)

#define TILE_KEYS FLASH_KEYS(HEAD_DIM)
#define TILE_ROWS FLASH_ROWS(HEAD_DIM)
#define THREADS FLASH_THREADS(HEAD_DIM)
#define PIECES (HEAD_DIM / 8) /* of 16 bytes, a row; column tiles of the output */
#define RUN (TILE_KEYS < KV_PAGE ? TILE_KEYS : KV_PAGE) /* keys that lie one behind the other */

#if CUDA_ARCH == 90 && HEAD_DIM <= 128
#include "device_sm90.h"
#define KEY_SOURCE tensor_map
#else
#define KEY_SOURCE bf16
#endif

/* What a block works on at a time: rows first.. of `rows`. Pointers to the group's first head of
 * the first token; *_row elements lie between tokens. Row r sees keys 0..past + r / group. */
struct PART(work) {
    const bf16 *q;
    const KEY_SOURCE *kv;                 /* the whole tensor */
    u64 q_row, kv_row, kv_head, kv_outer; /* kv_*: elements between keys, heads and what is above */
    u32 keys, values;                     /* their heads */
    u32 sequence;
    const int *page; /* of every KV_PAGE keys, in place of the sequence; NULL: none */
    bf16 *att;
    u64 att_row;
    float *lse; /* NULL: not wanted */
    u32 lse_row, first, rows, group, past;
};

/* Fills in work number i of the kernel's call, one like the one before and the last ones with the
 * fewest keys; 0: there is no such work, nor any behind, and nothing that w says may be used. */
struct PART(call);
DEVICE u32 PART(take)(struct PART(work) * w, const struct PART(call) * c, u32 i);

/* How many keys the block's rows see, together and each. */
DEVICE u32 PART(keys_of_any)(const struct PART(work) * w)
{
    const u32 end = w->first + TILE_ROWS < w->rows ? w->first + TILE_ROWS : w->rows;
    return w->past + (end - 1) / w->group + 1;
}

DEVICE u32 PART(keys_of_all)(const struct PART(work) * w)
{
    return w->past + w->first / w->group + 1;
}

/* ---- sixteen rows of a warp: this lane's are row lane / 4 and the one eight below ---------------
 */

struct PART(rows) {
    float top[2],
        sum[2];  /* the largest score so far; of this lane's probabilities over its power */
    i32 last[2]; /* key that the row sees */
};

#define SCORE_FACTOR                                                                               \
    (1.44269504f * fast_rsqrt((float)HEAD_DIM)) /* e^(s / sqrt(E)) = 2^(s factor) */

DEVICE void PART(start)(struct PART(rows) * r, const struct PART(work) * w, u32 row)
{
    UNROLL
    for (u32 h = 0; h < 2; h++) {
        r->top[h] = f32_from_bits(0xff800000u);
        r->sum[h] = 0.0f;
        r->last[h] = (i32)(w->past + (row + h * 8 + lane_id() / 4) / w->group);
    }
}

/* Takes out the keys, of those from key0 on, that a row must not see. */
DEVICE void PART(mask)(float scores[TILE_KEYS / 8][4], const struct PART(rows) * r, u32 key0)
{
    const i32 key = (i32)(key0 + lane_id() % 4 * 2);
    const i32 last[2] = {r->last[0] - key, r->last[1] - key};
    UNROLL
    for (u32 n = 0; n < TILE_KEYS / 8; n++)
        UNROLL
    for (u32 j = 0; j < 4; j++)
        if ((i32)(n * 8 + j % 2) > last[j / 2])
            scores[n][j] = f32_from_bits(0xff800000u);
}

/* Scores become probabilities relative to the new top; `shrink` is what brings to it what was
 * summed relative to the old one. Every row sees a key of its first tile, so the top is a number.
 */
DEVICE void PART(softmax)(struct PART(rows) * r, float scores[TILE_KEYS / 8][4], float shrink[2])
{
    const float factor = SCORE_FACTOR;
    float top[4], sum[4], base[2];
    UNROLL
    for (u32 i = 0; i < 4; i++) {
        top[i] = r->top[i / 2];
        sum[i] = 0.0f;
    }
    UNROLL
    for (u32 n = 0; n < TILE_KEYS / 8; n++)
        UNROLL
    for (u32 j = 0; j < 4; j++)
        top[j] = f32_max(top[j], scores[n][j]);
    UNROLL
    for (u32 h = 0; h < 2; h++)
        top[h] = f32_max(top[2 * h], top[2 * h + 1]);
    UNROLL
    for (u32 m = 2; m > 0; m >>= 1)
        UNROLL
    for (u32 h = 0; h < 2; h++)
        top[h] = f32_max(top[h], shuffle_xor_f32(top[h], m, WARP));
    UNROLL
    for (u32 h = 0; h < 2; h++) {
        base[h] = -top[h] * factor;
        shrink[h] = fast_exp2(f32_fma(r->top[h], factor, base[h]));
        r->top[h] = top[h];
    }
    UNROLL
    for (u32 n = 0; n < TILE_KEYS / 8; n++)
        UNROLL
    for (u32 j = 0; j < 4; j++) {
        scores[n][j] = fast_exp2(f32_fma(scores[n][j], factor, base[j / 2]));
        sum[j] += scores[n][j];
    }
    UNROLL
    for (u32 h = 0; h < 2; h++)
        r->sum[h] = f32_fma(r->sum[h], shrink[h], sum[2 * h] + sum[2 * h + 1]);
}

DEVICE void PART(scale)(float out[PIECES][4], const float by[2])
{
    UNROLL
    for (u32 n = 0; n < PIECES; n++)
        UNROLL
    for (u32 j = 0; j < 4; j++)
        out[n][j] *= by[j / 2];
}

/* The rows' output, divided by their sums, from row `row` on; and lse. */
DEVICE void PART(store)(const struct PART(work) * w, struct PART(rows) * r, float out[PIECES][4],
                        u32 row)
{
    const u32 q = lane_id() % 4;
    UNROLL
    for (u32 h = 0; h < 2; h++) {
        const u32 at = row + h * 8 + lane_id() / 4, token = at / w->group, head = at % w->group;
        const float sum = warp_sum(r->sum[h], 4), scale = fast_reciprocal(sum);
        bf16 *to = w->att + token * w->att_row + head * HEAD_DIM;
        UNROLL
        for (u32 n = 0; n < PIECES; n += 4) {
            u32 d[4];
            UNROLL
            for (u32 j = 0; j < 4; j++) {
                const u32 piece = n + j < PIECES ? n + j : n;
                d[j] = bf16_pack(out[piece][2 * h] * scale, out[piece][2 * h + 1] * scale);
            }
            const u32x4 v = mma_gather(d);
            if (at < w->rows && n + q < PIECES)
                store_u32x4(to + (n + q) * 8, v);
        }
        if (w->lse && q == 0 && at < w->rows)
            w->lse[(u64)token * w->lse_row + head] =
                0.69314718f * f32_fma(r->top[h], SCORE_FACTOR, fast_log2(sum));
    }
}

#if CUDA_ARCH == 90 && HEAD_DIM <= 128
#include "attention_wgmma.h"
#else
#include "attention_mma.h"
#endif

/* attention_backward.cu - dqkv[B T][dq + 2 dkv], overwritten, from datt, att, lse and rotated qkv.
 *
 * KERNEL          the entry points' name: KERNEL, KERNEL_2, KERNEL_3
 * ATT_B, ATT_T    sequences and their length
 * HEADS, KV_HEADS, HEAD_DIM    any group, head size a multiple of 8, at most 256
 *
 * With p = e^(q k^T / sqrt(E) - lse): dv = p^T datt, dp = datt v^T, ds = p (dp - delta), delta =
 * datt . att, dq = ds k / sqrt(E), dk = ds^T q / sqrt(E).
 *
 * Pass 1: delta[B T][H] to scratch. Passes 2 and 3 are attention_backward_wgmma.h's on sm_90a up to
 * head size 128, five products; attention_backward_mma.h's elsewhere, seven. Every sum has one
 * order in both.
 *
 * Rows are (token, head of the group) as in attention_tile.h.
 *
 * Floor: five products of B T^2 H E FLOPs; the delta pass reads 4 dq bytes a token.
 */
#include "device.h"
#include "launch.h"
#include "archrt_cuda.h"

#define PART(name) CONCAT(KERNEL, _##name)
#define PIECES (HEAD_DIM / 8) /* of 16 bytes, a row */
#if CUDA_ARCH == 90 && HEAD_DIM <= 128
#define ON_WGMMA
#endif

/* What a block works on: sequence and kv head. Pointers to token 0 and the group's first head. */
struct PART(head) {
    const bf16 *q, *k, *v, *datt;
    const float *lse, *delta;
    u64 row, att_row; /* elements between tokens of qkv, of datt */
    u32 group, rows;
};

/* Scratch: fp32 sums of dq where passes 2 and 3 have them, delta, turns. */
DEVICE float *PART(delta_of)(void *scratch)
{
    return (float *)scratch + FLASH_BACK_SUMS((u64)(ATT_B) * (u32)(ATT_T), (u32)(ATT_T), HEAD_DIM);
}

DEVICE struct PART(head) PART(head_of)(const bf16 *datt, const float *lse, const bf16 *qkv,
                                       void *scratch, u32 sequence, u32 kv)
{
    const u64 dq = (u64)(HEADS)*HEAD_DIM, dkv = (u64)(KV_HEADS)*HEAD_DIM;
    const u64 token0 = (u64)sequence * (u32)(ATT_T);
    struct PART(head) h;
    h.group = (u32)(HEADS) / (u32)(KV_HEADS);
    h.rows = (u32)(ATT_T)*h.group;
    h.row = dq + 2 * dkv;
    h.att_row = dq;
    h.q = qkv + token0 * h.row + kv * h.group * HEAD_DIM;
    h.k = qkv + token0 * h.row + dq + kv * HEAD_DIM;
    h.v = h.k + dkv;
    h.datt = datt + token0 * dq + kv * h.group * HEAD_DIM;
    h.lse = lse + token0 * (u32)(HEADS) + kv * h.group;
    h.delta = PART(delta_of)(scratch) + token0 * (u32)(HEADS) + kv * h.group;
    return h;
}

/* ---- pass 1: delta ---- */

KERNEL_ENTRY(256, 1)
KERNEL(bf16 *RESTRICT dqkv, const bf16 *RESTRICT datt, const bf16 *RESTRICT att,
       const float *RESTRICT lse, const bf16 *RESTRICT qkv, void *RESTRICT scratch)
{
    const u32 lanes = FLASH_LANES(HEAD_DIM), piece = threadIdx.x % lanes;
    const u64 all = (u64)(ATT_B) * (u32)(ATT_T) * (u32)(HEADS);
    const u64 head = (u64)blockIdx.x * (256 / lanes) + threadIdx.x / lanes;
    const u32 inside = head < all;
    float *delta = PART(delta_of)(scratch), sum = 0.0f;
    (void)dqkv;
    (void)lse;
    (void)qkv;
#ifdef ON_WGMMA /* four threads a head at least: enough */
    const u64 turn = (u64)blockIdx.x * 256 + threadIdx.x;
    if (turn < FLASH_BACK_TURNS((u64)(ATT_B) * (u32)(ATT_T), (u32)(ATT_T), HEAD_DIM))
        ((u32 *)(void *)(delta + all))[turn] = 0;
#endif
    if (inside && piece < PIECES) {
        float a[8], b[8];
        bf16_unpack8(a, *(const u32x4 *)(const void *)(att + head * HEAD_DIM + piece * 8));
        bf16_unpack8(b, *(const u32x4 *)(const void *)(datt + head * HEAD_DIM + piece * 8));
        UNROLL
        for (u32 i = 0; i < 8; i++)
            sum = f32_fma(a[i], b[i], sum);
    }
    sum = warp_sum(sum, lanes);
    if (inside && piece == 0)
        delta[head] = sum;
}

#ifdef ON_WGMMA
#include "attention_backward_wgmma.h"
#else
#include "attention_backward_mma.h"
#endif

#undef PART
#undef PIECES
#undef ON_WGMMA
#undef KERNEL
#undef ATT_B
#undef ATT_T

/* decode_embed.cu - x[m][D] = table[token][D], the token and the position of each row's slot; on
 * sm_90, above 8 rows, the first half of the first layer's norm too.
 *
 * KERNEL    the entry point's name
 * DM_M      rows
 * D_MODEL
 *
 * Floor: 2 D + 4 D bytes a row. A block a row, eight columns a thread. */
#include "device.h"
#include "launch.h"
#include "archrt_cuda.h"
#include "skinny_tiles.h"

/* Eight columns of a row from c on, of x and as a product wants them: all that tiles have, zeros
 * where there is no row or column. By whole warps. */
DEVICE void CONCAT(KERNEL, _hand_on)(bf16 *tiles, float *squares, const float v[8],
                                     const float *gain, u32 row, u32 c)
{
    const u32 d = (u32)(D_MODEL), high = CUDA_TILE_HIGH(DM_M);
    float normed[8], sum = 0.0f;
    UNROLL
    for (u32 i = 0; i < 8; i++) {
        normed[i] = row < DM_M && c < d ? v[i] * gain[c + i] : 0.0f;
        sum = f32_fma(v[i], v[i], sum);
    }
    if (c < CUDA_TILE_COLUMNS(d))
        *(u32x4 *)(void *)(tiles + skinny_tile_at(high, d, row, c)) = bf16_pack8(normed);
    sum = warp_sum(sum, SKINNY_PART / 8);
    if (row < DM_M && c % SKINNY_PART == 0 && c < CUDA_SQUARES(d) * SKINNY_PART)
        squares[(u64)row * CUDA_SQUARES(d) + c / SKINNY_PART] = sum;
}

KERNEL_ENTRY(EMBED_ROW_THREADS, 1)
KERNEL(float *x, int *token, int *position, const bf16 *RESTRICT table, const int *RESTRICT slot,
       const int *next, const int *length, const float *RESTRICT gain, bf16 *tiles, float *squares)
{
    const u32 row = blockIdx.x, d = (u32)(D_MODEL), wide = EMBED_ROW_THREADS * 8;
    dependents_launch();
    dependent_wait();
    const i32 s = row < DM_M ? slot[row] : -1;
    const i32 chosen = s >= 0 ? next[s] : 0;
    const u32 known = s >= 0 && chosen >= 0; /* a row of logits without any gives no token */
    if (threadIdx.x == 0 && row < DM_M) {
        token[row] = known ? chosen : 0;
        position[row] = s >= 0 ? length[s] : -1;
    }
    for (u32 first = 0; first < ROUND_UP(d, 4 * SKINNY_PART); first += wide) {
        const u32 c = first + threadIdx.x * 8;
        float v[8] = {0, 0, 0, 0, 0, 0, 0, 0};
        if (known && c < d)
            bf16_unpack8(v, *(const u32x4 *)(const void *)(table + (u64)(u32)chosen * d + c));
        if (row < DM_M && c < d) {
            f32x4 *to = (f32x4 *)(void *)(x + (u64)row * d + c);
            const f32x4 low = {v[0], v[1], v[2], v[3]}, high = {v[4], v[5], v[6], v[7]};
            to[0] = low;
            to[1] = high;
        }
        if (SKINNY_FOLDED(DM_M))
            CONCAT(KERNEL, _hand_on)(tiles, squares, v, gain, row, c);
    }
    (void)gain, (void)tiles, (void)squares;
}

#undef KERNEL
#undef DM_M

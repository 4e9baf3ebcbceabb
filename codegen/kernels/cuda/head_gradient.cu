/* head_gradient.cu - gradients of the logits of MM_N of the tokens, from the first that `part` is
 * the row of: dlogits[m][N] = (softmax - onehot) grad_scale, the logits z = x w^T made once more
 * and not written. top[m] and sum[m] are head_loss.cu's, over all tokens.
 *
 * KERNEL              the entry point's name
 * MM_M, MM_N, MM_K    rows, rows of w: tokens, columns of x; N, K multiples of 8
 * MM_TOKENS           how many tokens there are in all: behind them stands padding, of gradient 0
 *
 * Floor: 2 m N K FLOPs. Tiles of z (product.h), both operands stored along. table and part are
 * the weights of the first token of all and of these, as addresses: their distance says which
 * tokens these are. */
#include "device.h"
#include "launch.h"
#include "archrt_cuda.h"
#include "head.h"

/* Row i * 8 of this thread: its probabilities times grad_scale; factor = grad_scale / sum. */
DEVICE void CONCAT(KERNEL, _softmax)(const struct product *p, float sums[PRODUCT_I][PRODUCT_J][4],
                                     u32 i, float top, float factor)
{
    UNROLL
    for (u32 j = 0; j < product_pieces(p); j++) {
        UNROLL
        for (u32 k = 0; k < 2; k++) {
            float *z = &sums[i / 2][j][i % 2 * 2 + k];
            *z = head_exp(*z, top) * factor;
        }
    }
}

KERNEL_ENTRY(PRODUCT_THREADS, PRODUCT_WGMMA ? 1 : 2)
KERNEL(bf16 *RESTRICT dlogits, const product_source *x, const product_source *RESTRICT w,
       const float *RESTRICT top, const float *RESTRICT sum, const int *RESTRICT target,
       const bf16 *table, const bf16 *part, const struct cuda_train *RESTRICT train)
{
    SHARED_ARENA(arena);
    struct product p;
    product_along(&p, x, (u32)(MM_M), w, (u32)(MM_N), (u32)(MM_K));
    product_start(&p, PRODUCT_COLUMNS((u32)(MM_M), (u32)(MM_N)), arena);
    if (product_feed(&p))
        return;
    const u32 token = (u32)((u64)(part - table) / (u32)(MM_K));
    const u32 tokens = token < (u32)(MM_TOKENS) ? (u32)(MM_TOKENS)-token : 0;
    const float scale = train->grad_scale;
    for (u32 tile = blockIdx.x; tile < product_tiles(&p); tile += gridDim.x) {
        float sums[PRODUCT_I][PRODUCT_J][4];
        product_tile(&p, tile, sums, 0);
        const u32 r0 = product_row(&p) + lane_id() / 4;
        const u32 c0 = product_column(&p) + lane_id() % 4 * 2;
        UNROLL
        for (u32 i = 0; i < PRODUCT_I * 2; i++) {
            const u32 r = r0 + i * 8, live = r < p.a.side;
            CONCAT(KERNEL, _softmax)
            (&p, sums, i, live ? top[r] : 0.0f, live ? f32_divide(scale, sum[r]) : 0.0f);
            head_target(&p, sums, i, live ? (u32)target[r] - token - c0 : HEAD_NONE, (float *)0,
                        scale);
        }
        head_pad(&p, sums, tokens, 0.0f);
        product_store_bf16(&p, dlogits, (u32)(MM_N), sums);
    }
}

#undef KERNEL
#undef MM_M
#undef MM_N
#undef MM_K
#undef MM_TOKENS

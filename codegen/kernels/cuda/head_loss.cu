/* head_loss.cu - cross-entropy behind the head, whose logits z[m][V] = x[m][K] w[V][K]^T are never
 * written: loss[m] = log sum e^z - z[target], 0 where there is no target (target < 0). For their
 * gradient (head_gradient.cu) it keeps, where `top` is given, the largest logit of each row and the
 * sum of e^(z - largest), and clears the fp32 gradient dx[m][K] that pieces of it are added to.
 *
 * KERNEL              the entry point's name
 * MM_M, MM_N, MM_K    most rows, rows of w, columns of x; N, K multiples of 8
 * MM_TOKENS           rows of w that are tokens; those behind are padding, and not counted
 *
 * Floor: 2 m V K FLOPs. Pass 1: tiles of z (product.h), of which only a pair of numbers for each
 * row and HEAD_PART columns goes to scratch, and each target's own logit. Pass 2: a block for 32
 * rows, a lane each; its warps share out the pairs. Scratch: target[m], then pairs[parts][m]. */
#include "device.h"
#include "launch.h"
#include "archrt_cuda.h"
#include "four.h"
#include "head.h"

/* The pair of row i * 8 of this thread, over the four lanes that share it. */
DEVICE struct head_pair CONCAT(KERNEL, _pair)(const struct product *p,
                                              float sums[PRODUCT_I][PRODUCT_J][4], u32 i)
{
    struct head_pair r = head_nothing();
    UNROLL
    for (u32 j = 0; j < product_pieces(p); j++) {
        const float *two = &sums[i / 2][j][i % 2 * 2];
        r.top = f32_max(r.top, f32_max(two[0], two[1]));
    }
    r.top = warp_max(r.top, 4);
    UNROLL
    for (u32 j = 0; j < product_pieces(p); j++) {
        const float *two = &sums[i / 2][j][i % 2 * 2];
        r.sum += head_exp(two[0], r.top) + head_exp(two[1], r.top);
    }
    r.sum = warp_sum(r.sum, 4);
    return r;
}

KERNEL_ENTRY(PRODUCT_THREADS, PRODUCT_WGMMA ? 1 : 2)
KERNEL(float *loss, float *top, float *sum, float *dx, const product_source *x,
       const product_source *RESTRICT w, const int *RESTRICT target, const struct cuda_call *call,
       void *scratch)
{
    SHARED_ARENA(arena);
    struct product p;
    (void)loss;
    (void)top;
    (void)sum;
    (void)dx;
    product_along(&p, x, call ? (u32)call->rows : (u32)(MM_M), w, (u32)(MM_N), (u32)(MM_K));
    float *chosen = (float *)scratch;
    f32x2 *pairs = (f32x2 *)(void *)(chosen + HEAD_ROWS((u32)(MM_M)));
    product_start(&p, PRODUCT_COLUMNS((u32)(MM_M), (u32)(MM_N)), arena);
    if (product_feed(&p))
        return;
    for (u32 tile = blockIdx.x; tile < product_tiles(&p); tile += gridDim.x) {
        float sums[PRODUCT_I][PRODUCT_J][4];
        product_tile(&p, tile, sums, 0);
        head_pad(&p, sums, (u32)(MM_TOKENS), HEAD_LOWEST);
        const u32 r0 = product_row(&p) + lane_id() / 4;
        const u32 c0 = product_column(&p) + lane_id() % 4 * 2;
        struct head_pair pair[PRODUCT_I * 2];
        UNROLL
        for (u32 i = 0; i < PRODUCT_I * 2; i++) {
            const u32 r = r0 + i * 8, own = r < p.a.side ? (u32)target[r] : HEAD_NONE;
            pair[i] = CONCAT(KERNEL, _pair)(&p, sums, i);
            head_target(&p, sums, i, own - c0, chosen + r, 0.0f);
        }
        head_halves(pair, arena, 0);
        head_store(&p, pairs, HEAD_ROWS((u32)(MM_M)), pair);
    }
}

/* The block's rows of dx become zeros. */
DEVICE void CONCAT(KERNEL, _clear)(float *dx, u32 rows)
{
    const u32x4 zero = {0, 0, 0, 0};
    const u64 first = (u64)blockIdx.x * WARP * (u32)(MM_K), end = (u64)rows * (u32)(MM_K);
    for (u32 i = threadIdx.x * 4; i < WARP * (u32)(MM_K); i += HEAD_WARPS * WARP * 4)
        if (first + i < end)
            store_u32x4(dx + first + i, zero);
}

KERNEL_ENTRY(HEAD_WARPS *WARP, 4)
CONCAT(KERNEL, _2)
(float *loss, float *top, float *sum, float *dx, const product_source *x, const product_source *w,
 const int *RESTRICT target, const struct cuda_call *call, void *scratch)
{
    SHARED_ARENA(arena);
    const u32 row = blockIdx.x * WARP + lane_id();
    const u32 rows = call ? (u32)call->rows : (u32)(MM_M);
    const float *chosen = (const float *)scratch;
    const f32x2 *pairs = (const f32x2 *)(const void *)(chosen + HEAD_ROWS((u32)(MM_M)));
    struct head_pair all = head_nothing();
    (void)x;
    (void)w;
    if (dx)
        CONCAT(KERNEL, _clear)(dx, rows);
    if (row < rows)
        all = head_share(pairs, HEAD_ROWS((u32)(MM_M)), row, HEAD_PARTS((u32)(MM_M), (u32)(MM_N)),
                         HEAD_WARPS, 0);
    all = head_all(all, (struct head_pair *)(void *)arena, HEAD_WARPS, 0);
    if (threadIdx.x >= WARP || row >= rows)
        return;
    const u32 live = target[row] >= 0;
    loss[row] = live ? log_f32(all.sum) + (all.top - chosen[row]) : 0.0f;
    if (top) { /* of a row without a target: so that e^(z - top) is 0 */
        top[row] = live ? all.top : -HEAD_LOWEST;
        sum[row] = live ? all.sum : 1.0f;
    }
}

#undef KERNEL
#undef MM_M
#undef MM_N
#undef MM_K
#undef MM_TOKENS

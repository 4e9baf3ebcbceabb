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
#include "product.h"

#ifndef HEAD_LOSS_ONCE
#define HEAD_LOSS_ONCE
#define HEAD_LOWEST (-3.4e38f)

DEVICE float head_exp(float x, float top)
{
    return fast_exp2((x - top) * 1.44269504f);
}

/* What some of a row's logits come to. */
struct head_pair {
    float top, sum; /* of e^(z - top) */
};

DEVICE struct head_pair head_join(struct head_pair a, struct head_pair b)
{
    struct head_pair both;
    both.top = f32_max(a.top, b.top);
    both.sum = a.sum * head_exp(a.top, both.top) + b.sum * head_exp(b.top, both.top);
    return both;
}
#endif

/* Columns of padding, and those behind the last, become as small as nothing else is. */
DEVICE void CONCAT(KERNEL, _mask)(const struct product *p, float sums[PRODUCT_I][PRODUCT_J][4])
{
    const u32 c0 = product_column(p) + lane_id() % 4 * 2;
    if (product_column(p) + product_pieces(p) * 8 <= (u32)(MM_TOKENS))
        return;
    UNROLL
    for (u32 j = 0; j < product_pieces(p); j++) {
        UNROLL
        for (u32 i = 0; i < PRODUCT_I * 4; i++)
            if (c0 + j * 8 + i % 2 >= (u32)(MM_TOKENS))
                sums[i / 4][j][i % 4] = HEAD_LOWEST;
    }
}

/* The pair of row i * 8 of this thread, over the four lanes that share it. */
DEVICE struct head_pair CONCAT(KERNEL, _pair)(const struct product *p,
                                              float sums[PRODUCT_I][PRODUCT_J][4], u32 i)
{
    struct head_pair r;
    r.top = HEAD_LOWEST;
    r.sum = 0.0f;
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

/* The logit of row i * 8 of this thread in column `at` from its first one, if it is this thread's.
 * Few tiles have a target of their rows. */
DEVICE void CONCAT(KERNEL, _target)(const struct product *p, float *to,
                                    float sums[PRODUCT_I][PRODUCT_J][4], u32 i, u32 at)
{
    if (!warp_any(at < product_pieces(p) * 8))
        return;
    UNROLL
    for (u32 j = 0; j < product_pieces(p); j++) {
        UNROLL
        for (u32 k = 0; k < 2; k++)
            if (at == j * 8 + k)
                *to = sums[i / 2][j][i % 2 * 2 + k];
    }
}

/* On mma.sync a row's columns of a tile are two warps': the first one's pairs become both's. The
 * tile's stages, whose shared memory it takes, have been read. */
DEVICE void CONCAT(KERNEL, _halves)(struct head_pair pair[PRODUCT_I * 2], u8 *arena)
{
    const u32 warp = threadIdx.x / WARP, row = warp / 2 * 64 + lane_id() / 4;
    struct head_pair *shared = (struct head_pair *)(void *)arena;
    block_sync();
    UNROLL
    for (u32 i = 0; i < PRODUCT_I * 2; i++)
        if (warp % 2 > 0 && lane_id() % 4 == 0)
            shared[row + i * 8] = pair[i];
    block_sync();
    UNROLL
    for (u32 i = 0; i < PRODUCT_I * 2; i++)
        if (warp % 2 == 0)
            pair[i] = head_join(pair[i], shared[row + i * 8]);
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
    p.a.at = x;
    p.a.side = call ? (u32)call->rows : (u32)(MM_M);
    p.b.at = w;
    p.b.side = (u32)(MM_N);
    p.a.row = p.b.row = p.a.depth = p.b.depth = (u32)(MM_K);
    p.a.across = p.b.across = p.a.paired = p.b.paired = 0;
    p.old = 0;
    float *chosen = (float *)scratch;
    f32x2 *pairs = (f32x2 *)(void *)(chosen + HEAD_ROWS((u32)(MM_M)));
    product_start(&p, PRODUCT_COLUMNS((u32)(MM_M), (u32)(MM_N)), arena);
    if (product_feed(&p))
        return;
    for (u32 tile = blockIdx.x; tile < product_tiles(&p); tile += gridDim.x) {
        float sums[PRODUCT_I][PRODUCT_J][4];
        product_tile(&p, tile, sums, 0);
        CONCAT(KERNEL, _mask)(&p, sums);
        const u32 r0 = product_row(&p) + lane_id() / 4;
        const u32 c0 = product_column(&p) + lane_id() % 4 * 2,
                  part = product_column(&p) / p.columns;
        struct head_pair pair[PRODUCT_I * 2];
        UNROLL
        for (u32 i = 0; i < PRODUCT_I * 2; i++) {
            const u32 r = r0 + i * 8, own = r < p.a.side ? (u32)target[r] : 0xffffffffu;
            pair[i] = CONCAT(KERNEL, _pair)(&p, sums, i);
            CONCAT(KERNEL, _target)(&p, chosen + r, sums, i, own - c0);
        }
        if (!PRODUCT_WGMMA)
            CONCAT(KERNEL, _halves)(pair, arena);
        const u32 writes = lane_id() % 4 == 0 && (PRODUCT_WGMMA || threadIdx.x / WARP % 2 == 0);
        UNROLL
        for (u32 i = 0; i < PRODUCT_I * 2; i++) {
            f32x2 out;
            out.x = pair[i].top;
            out.y = pair[i].sum;
            if (writes && r0 + i * 8 < p.a.side)
                pairs[(u64)part * HEAD_ROWS((u32)(MM_M)) + r0 + i * 8] = out;
        }
    }
}

/* One row's pairs, of those that this warp takes. */
DEVICE struct head_pair CONCAT(KERNEL, _share)(const f32x2 *pairs, u32 row, u32 parts)
{
    struct head_pair all;
    all.top = HEAD_LOWEST;
    all.sum = 0.0f;
    for (u32 first = threadIdx.x / WARP; first < parts; first += HEAD_EACH * HEAD_WARPS) {
        f32x2 some[HEAD_EACH];
        UNROLL
        for (u32 j = 0; j < HEAD_EACH; j++) {
            const u32 part = first + j * HEAD_WARPS;
            some[j].x = HEAD_LOWEST;
            some[j].y = 0.0f;
            if (part < parts)
                some[j] = pairs[(u64)part * HEAD_ROWS((u32)(MM_M)) + row];
        }
        UNROLL
        for (u32 j = 0; j < HEAD_EACH; j++) {
            struct head_pair one;
            one.top = some[j].x;
            one.sum = some[j].y;
            all = head_join(all, one);
        }
    }
    return all;
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
    const u32 lane = lane_id(), warp = threadIdx.x / WARP, row = blockIdx.x * WARP + lane;
    const u32 rows = call ? (u32)call->rows : (u32)(MM_M);
    const float *chosen = (const float *)scratch;
    struct head_pair *shared = (struct head_pair *)(void *)arena, all;
    (void)x;
    (void)w;
    if (dx)
        CONCAT(KERNEL, _clear)(dx, rows);
    all.top = HEAD_LOWEST;
    all.sum = 0.0f;
    if (row < rows)
        all = CONCAT(KERNEL, _share)((const f32x2 *)(const void *)(chosen + HEAD_ROWS((u32)(MM_M))),
                                     row, HEAD_PARTS((u32)(MM_M), (u32)(MM_N)));
    shared[threadIdx.x] = all;
    block_sync();
    if (warp > 0 || row >= rows)
        return;
    for (u32 other = 1; other < HEAD_WARPS; other++)
        all = head_join(all, shared[other * WARP + lane]);
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

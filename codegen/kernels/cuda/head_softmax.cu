/* head_softmax.cu - training's head and its loss, of logits z[m][V] = x[m][K] w[V][K]^T that are
 * never written: loss[m] = log sum e^z - z[target], and what products make gradients of,
 *
 *     e[m][V], scaled[m][K], factor[m]:   dz = factor e,   dw = e^T scaled,   dx = factor (e w)
 *
 * where dz = (softmax - onehot) grad_scale. e is bf16, powers of a reference that each row has
 * before the product: its target's logit. So one product makes them, and no pass over V follows it:
 * with S the sum of a row's powers, factor = grad_scale / S, scaled = x factor, and S is taken from
 * the power of the target. Rows without a target (target < 0) have zeros and loss 0.
 *
 * KERNEL              the entry point's name
 * MM_M, MM_N, MM_K    rows, rows of w, columns of x; N, K multiples of 8
 * MM_TOKENS           rows of w that are tokens; those behind are padding: zeros of e
 *
 * Floor: 2 m V K FLOPs, and 2 m V bytes at the ends of tiles. Pass 1: references, a warp a row.
 * Pass 2: tiles of z (product.h) become powers; of each row and tile its largest logit and the sum
 * of its powers go to scratch, and each target's own logit. Pass 3, a block for 32 rows: losses,
 * factors, scaled rows, targets. Where a target is so unlikely that S comes near to what bf16 or
 * fp32 can hold (HEAD_FAR), the row's reference becomes its largest logit, and pass 4 makes the
 * tiles of its rows again, pass 5 what pass 3 did of them. Elsewhere these two return at once. */
#include "device.h"
#include "launch.h"
#include "archrt_cuda.h"
#include "head.h"

#ifndef HEAD_SOFTMAX_ONCE
#define HEAD_SOFTMAX_ONCE
/* Largest sum of powers that is left as it is, e^40. In fp32 and bf16 there would be room up to
 * e^88, and as much below 1 for factors and what they are multiplied with: gradients' scale, and
 * elements of x. */
#define HEAD_FAR 2.35e17f

/* What passes have for each other. Powers are 2^(z log2 e - reference); far: of each 32 rows, bit i
 * where row i has to be made again. */
struct head_notes {
    float *reference, *chosen;
    u32 *far;
    f32x2 *pairs;
};

DEVICE struct head_notes head_notes_at(void *scratch, u32 m)
{
    struct head_notes s;
    s.reference = (float *)scratch;
    s.chosen = s.reference + HEAD_ROWS(m);
    s.far = (u32 *)(void *)(s.chosen + HEAD_ROWS(m));
    s.pairs = (f32x2 *)(void *)(s.far + HEAD_QUARTERS(m));
    return s;
}
#endif

/* ---- pass 1 ---- */

/* This lane's part of a row of x times one of w. */
DEVICE float CONCAT(KERNEL, _dot)(const bf16 *x, const bf16 *RESTRICT w)
{
    const u32 k = (u32)(MM_K), step = WARP * 8;
    float sum = 0.0f;
    for (u32 first = lane_id() * 8; first < k; first += HEAD_EACH * step) {
        u32x4 a[HEAD_EACH], b[HEAD_EACH];
        UNROLL
        for (u32 j = 0; j < HEAD_EACH; j++) {
            const u32x4 none = {0, 0, 0, 0};
            const u32 c = first + j * step;
            a[j] = b[j] = none;
            if (c < k) {
                a[j] = *(const u32x4 *)(const void *)(x + c);
                b[j] = *(const u32x4 *)(const void *)(w + c);
            }
        }
        UNROLL
        for (u32 j = 0; j < HEAD_EACH; j++) {
            float p[8], q[8];
            bf16_unpack8(p, a[j]);
            bf16_unpack8(q, b[j]);
            UNROLL
            for (u32 i = 0; i < 8; i++)
                sum = f32_fma(p[i], q[i], sum);
        }
    }
    return sum;
}

/* Rows without a target: so that their powers are 0. */
KERNEL_ENTRY(HEAD_WARPS *WARP, 4)
KERNEL(float *loss, bf16 *e, float *factor, bf16 *scaled, const product_source *x,
       const product_source *w, const bf16 *rows, const bf16 *RESTRICT table,
       const int *RESTRICT target, const struct cuda_train *train, void *scratch)
{
    const u32 row = blockIdx.x * HEAD_WARPS + threadIdx.x / WARP, k = (u32)(MM_K);
    (void)loss;
    (void)e;
    (void)factor;
    (void)scaled;
    (void)x;
    (void)w;
    (void)train;
    if (row >= (u32)(MM_M))
        return;
    const int own = target[row];
    float z = -HEAD_LOWEST;
    if (own >= 0)
        z = HEAD_LOG2E *
            warp_sum(CONCAT(KERNEL, _dot)(rows + (u64)row * k, table + (u64)(u32)own * k), WARP);
    if (lane_id() == 0)
        head_notes_at(scratch, (u32)(MM_M)).reference[row] = z;
}

/* ---- passes 2 and 4 ---- */

/* Row i * 8 of this thread becomes powers; the row's pair, over the four lanes that share it. */
DEVICE struct head_pair CONCAT(KERNEL, _powers)(const struct product *p,
                                                float sums[PRODUCT_I][PRODUCT_J][4], u32 i,
                                                float reference)
{
    struct head_pair r = head_nothing();
    UNROLL
    for (u32 j = 0; j < product_pieces(p) * 2; j++) {
        float *z = &sums[i / 2][j / 2][i % 2 * 2 + j % 2];
        r.top = f32_max(r.top, *z);
        *z = fast_exp2(f32_fma(*z, HEAD_LOG2E, -reference));
        r.sum += *z;
    }
    r.top = warp_max(r.top, 4);
    r.sum = warp_sum(r.sum, 4);
    return r;
}

/* Tiles start from zeros, though their first product overwrites them: else the compiler keeps the
 * powers of the tile before, for which there are no registers. */
DEVICE void CONCAT(KERNEL, _tiles)(bf16 *e, const product_source *x,
                                   const product_source *RESTRICT w, const int *RESTRICT target,
                                   struct head_notes s, u32 again, u8 *arena)
{
    struct product p;
    product_along(&p, x, (u32)(MM_M), w, (u32)(MM_N), (u32)(MM_K));
    product_start(&p, PRODUCT_COLUMNS((u32)(MM_M), (u32)(MM_N)), arena);
    p.wanted = again ? s.far : 0;
    if (product_feed(&p))
        return;
    for (u32 tile = blockIdx.x; tile < product_tiles(&p); tile += gridDim.x) {
        float sums[PRODUCT_I][PRODUCT_J][4];
        struct head_pair pair[PRODUCT_I * 2];
        if (product_skips(&p, tile))
            continue;
        UNROLL
        for (u32 i = 0; i < PRODUCT_I * PRODUCT_J * 4; i++)
            sums[i / 4 / PRODUCT_J][i / 4 % PRODUCT_J][i % 4] = 0.0f;
        product_tile(&p, tile, sums, 0);
        const u32 r0 = product_row(&p) + lane_id() / 4;
        const u32 c0 = product_column(&p) + lane_id() % 4 * 2;
        u32 own[PRODUCT_I * 2];
        float reference[PRODUCT_I * 2];
        UNROLL
        for (u32 i = 0; i < PRODUCT_I * 2; i++) {
            const u32 live = r0 + i * 8 < p.a.side;
            own[i] = live ? (u32)target[r0 + i * 8] : HEAD_NONE;
            reference[i] = live ? s.reference[r0 + i * 8] : -HEAD_LOWEST;
        }
        head_pad(&p, sums, (u32)(MM_TOKENS), HEAD_LOWEST);
        UNROLL
        for (u32 i = 0; i < PRODUCT_I * 2; i++) {
            head_target(&p, sums, i, own[i] - c0, s.chosen + r0 + i * 8, 0.0f);
            pair[i] = CONCAT(KERNEL, _powers)(&p, sums, i, reference[i]);
        }
        head_halves(pair, arena, 1);
        head_store(&p, s.pairs, HEAD_ROWS((u32)(MM_M)), pair);
        product_store_bf16(&p, e, (u32)(MM_N), sums);
    }
}

KERNEL_ENTRY(PRODUCT_THREADS, PRODUCT_WGMMA ? 1 : 2)
CONCAT(KERNEL, _2)
(float *loss, bf16 *e, float *factor, bf16 *scaled, const product_source *x,
 const product_source *RESTRICT w, const bf16 *rows, const bf16 *table, const int *RESTRICT target,
 const struct cuda_train *train, void *scratch)
{
    SHARED_ARENA(arena);
    (void)loss;
    (void)factor;
    (void)scaled;
    (void)rows;
    (void)table;
    (void)train;
    CONCAT(KERNEL, _tiles)(e, x, w, target, head_notes_at(scratch, (u32)(MM_M)), 0, arena);
}

KERNEL_ENTRY(PRODUCT_THREADS, PRODUCT_WGMMA ? 1 : 2)
CONCAT(KERNEL, _4)
(float *loss, bf16 *e, float *factor, bf16 *scaled, const product_source *x,
 const product_source *RESTRICT w, const bf16 *rows, const bf16 *table, const int *RESTRICT target,
 const struct cuda_train *train, void *scratch)
{
    SHARED_ARENA(arena);
    const struct head_notes s = head_notes_at(scratch, (u32)(MM_M));
    u32 far = 0;
    (void)loss;
    (void)factor;
    (void)scaled;
    (void)rows;
    (void)table;
    (void)train;
    for (u32 i = lane_id(); i < HEAD_QUARTERS((u32)(MM_M)); i += WARP)
        far |= s.far[i];
    if (warp_any(far))
        CONCAT(KERNEL, _tiles)(e, x, w, target, s, 1, arena);
}

/* ---- passes 3 and 5 ---- */

/* Of one row, all its pairs joined: loss, factor (returned), the target's element. A far row gets
 * another reference. */
DEVICE float CONCAT(KERNEL, _row)(float *loss, bf16 *e, struct head_notes s, u32 row, int own,
                                  struct head_pair all, float scale, u32 *far)
{
    if (own < 0) {
        loss[row] = 0.0f;
        return 0.0f;
    }
    const float d = f32_fma(s.chosen[row], HEAD_LOG2E, -s.reference[row]);
    loss[row] = log_f32(all.sum) - d * HEAD_LN2;
    e[(u64)row * (u32)(MM_N) + (u32)own] = bf16_from_f32(fast_exp2(d) - all.sum);
    *far = all.sum > HEAD_FAR;
    if (*far)
        s.reference[row] = all.top * HEAD_LOG2E;
    return f32_divide(scale, all.sum);
}

/* The block's rows of x times their factors; a warp has whole rows. */
DEVICE void CONCAT(KERNEL, _scale)(bf16 *scaled, const bf16 *rows, const float *factors)
{
    const u32 k = (u32)(MM_K), step = WARP * 8, first = blockIdx.x * WARP;
    for (u32 r = threadIdx.x / WARP; r < WARP && first + r < (u32)(MM_M); r += HEAD_JOINS) {
        const u64 at = (u64)(first + r) * k;
        const float f = factors[r];
        for (u32 c0 = lane_id() * 8; c0 < k; c0 += HEAD_EACH * step) {
            u32x4 v[HEAD_EACH];
            UNROLL
            for (u32 j = 0; j < HEAD_EACH; j++)
                if (c0 + j * step < k)
                    v[j] = *(const u32x4 *)(const void *)(rows + at + c0 + j * step);
            UNROLL
            for (u32 j = 0; j < HEAD_EACH; j++) {
                float x[8];
                if (c0 + j * step >= k)
                    continue;
                bf16_unpack8(x, v[j]);
                UNROLL
                for (u32 i = 0; i < 8; i++)
                    x[i] *= f;
                *(u32x4 *)(void *)(scaled + at + c0 + j * step) = bf16_pack8(x);
            }
        }
    }
}

/* The block's 32 rows; bit i of what is returned, in the first warp: row i is far. */
DEVICE u32 CONCAT(KERNEL, _rows)(float *loss, bf16 *e, float *factor, bf16 *scaled,
                                 const bf16 *rows, const int *RESTRICT target, float scale,
                                 struct head_notes s, u8 *arena)
{
    const u32 row = blockIdx.x * WARP + lane_id(), m = (u32)(MM_M), live = row < m;
    struct head_pair *shared = (struct head_pair *)(void *)arena, all = head_nothing();
    float *factors = (float *)(void *)(shared + HEAD_JOINS * WARP);
    u32 far = 0;
    if (live)
        all = head_share(s.pairs, HEAD_ROWS(m), row, HEAD_PARTS(m, (u32)(MM_N)), HEAD_JOINS, 1);
    all = head_all(all, shared, HEAD_JOINS, 1);
    if (threadIdx.x < WARP && live) {
        const float f = CONCAT(KERNEL, _row)(loss, e, s, row, target[row], all, scale, &far);
        factor[row] = f;
        factors[lane_id()] = f;
    }
    block_sync();
    CONCAT(KERNEL, _scale)(scaled, rows, factors);
    return threadIdx.x < WARP ? warp_ballot(far) : 0;
}

/* Blocks behind the last row too, so that each tile of rows has its four words. */
KERNEL_ENTRY(HEAD_JOINS *WARP, 1)
CONCAT(KERNEL, _3)
(float *loss, bf16 *e, float *factor, bf16 *scaled, const product_source *x,
 const product_source *w, const bf16 *rows, const bf16 *table, const int *RESTRICT target,
 const struct cuda_train *RESTRICT train, void *scratch)
{
    SHARED_ARENA(arena);
    const struct head_notes s = head_notes_at(scratch, (u32)(MM_M));
    (void)x;
    (void)w;
    (void)table;
    const u32 far =
        CONCAT(KERNEL, _rows)(loss, e, factor, scaled, rows, target, train->grad_scale, s, arena);
    if (threadIdx.x == 0)
        s.far[blockIdx.x] = far;
}

/* All rows of a tile that was made again: each has lost its target's element. */
KERNEL_ENTRY(HEAD_JOINS *WARP, 1)
CONCAT(KERNEL, _5)
(float *loss, bf16 *e, float *factor, bf16 *scaled, const product_source *x,
 const product_source *w, const bf16 *rows, const bf16 *table, const int *RESTRICT target,
 const struct cuda_train *RESTRICT train, void *scratch)
{
    SHARED_ARENA(arena);
    const struct head_notes s = head_notes_at(scratch, (u32)(MM_M));
    const u32 *quarters = s.far + blockIdx.x / 4 * 4;
    (void)x;
    (void)w;
    (void)table;
    if (quarters[0] | quarters[1] | quarters[2] | quarters[3])
        CONCAT(KERNEL, _rows)(loss, e, factor, scaled, rows, target, train->grad_scale, s, arena);
}

#undef KERNEL
#undef MM_M
#undef MM_N
#undef MM_K
#undef MM_TOKENS

/* matmul.cu - y[m][N] = x[m][K] w[N][K]^T, bf16 with fp32 sums, and what follows it.
 *
 * KERNEL              the entry point's name
 * MM_M, MM_N, MM_K    most rows, columns of y, columns of x; N, K multiples of 8
 * MM_BIAS             literal: 1 adds bias[N]
 * MM_OUT_F32          literal: y is fp32, not bf16
 * MM_RESIDUAL         literal: 1 adds residual[m][N]; y is fp32 and may be residual
 * MM_SWIGLU           literal: N = 2 F, y[m][F] = silu(column i) column (F + i), bf16
 *
 * Floor: 2 m N K FLOPs. Tiles of y (product.h), both operands stored along. With SwiGLU a thread's
 * columns of gate and of up are the same ones, so the two meet in its registers. */
#include "device.h"
#include "launch.h"
#include "archrt_cuda.h"
#include "product.h"

/* Where sums[..][j] have their column: of y, or with SwiGLU of gate, then up. */
DEVICE u32 CONCAT(KERNEL, _column)(const struct product *p, u32 j)
{
    const u32 half = product_pieces(p) / 2;
    if (!MM_SWIGLU)
        return product_column(p) + j * 8;
    return product_column(p) / 2 + j % half * 8 + (j < half ? 0 : p->b.paired);
}

DEVICE void CONCAT(KERNEL, _bias)(const struct product *p, const float *RESTRICT bias,
                                  float sums[PRODUCT_I][PRODUCT_J][4])
{
    UNROLL
    for (u32 j = 0; j < product_pieces(p); j++) {
        const u32 c = CONCAT(KERNEL, _column)(p, j) + lane_id() % 4 * 2;
        if (c >= p->b.side)
            continue;
        const f32x2 b = *(const f32x2 *)(const void *)(bias + c);
        UNROLL
        for (u32 i = 0; i < PRODUCT_I * 2; i++) {
            sums[i / 2][j][i % 2 * 2] += b.x;
            sums[i / 2][j][i % 2 * 2 + 1] += b.y;
        }
    }
}

/* To fp32 y, with the residual; eight reads, then eight writes: y may be the residual. */
DEVICE void CONCAT(KERNEL, _store_f32)(const struct product *p, float *y, const float *residual,
                                       float sums[PRODUCT_I][PRODUCT_J][4])
{
    const u32 r0 = product_row(p) + lane_id() / 4, c0 = product_column(p) + lane_id() % 4 * 2;
    UNROLL
    for (u32 i = 0; i < PRODUCT_I * 2; i++) {
        const u64 at = (u64)(r0 + i * 8) * p->b.side + c0;
        if (r0 + i * 8 >= p->a.side)
            continue;
        UNROLL
        for (u32 j = 0; j < product_pieces(p); j += 8) {
            f32x2 out[8];
            UNROLL
            for (u32 n = 0; n < 8; n++) {
                out[n].x = sums[i / 2][j + n][i % 2 * 2];
                out[n].y = sums[i / 2][j + n][i % 2 * 2 + 1];
                if (MM_RESIDUAL && c0 + (j + n) * 8 < p->b.side) {
                    const f32x2 old =
                        *(const f32x2 *)(const void *)(residual + at + (j + n) * 8);
                    out[n].x += old.x;
                    out[n].y += old.y;
                }
            }
            UNROLL
            for (u32 n = 0; n < 8; n++)
                if (c0 + (j + n) * 8 < p->b.side)
                    *(f32x2 *)(void *)(y + at + (j + n) * 8) = out[n];
        }
    }
}

/* silu(gate) up as bf16, sixteen bytes a store. */
DEVICE void CONCAT(KERNEL, _store_swiglu)(const struct product *p, bf16 *y,
                                          float sums[PRODUCT_I][PRODUCT_J][4])
{
    const u32 width = p->b.paired, half = product_pieces(p) / 2;
    const u32 r0 = product_row(p) + lane_id() / 4, c0 = product_column(p) / 2 + lane_id() % 4 * 8;
    UNROLL
    for (u32 i = 0; i < PRODUCT_I * 2; i++) {
        UNROLL
        for (u32 j = 0; j < half; j += 4) {
            u32 d[4];
            UNROLL
            for (u32 n = 0; n < 4; n++) {
                const float *gate = &sums[i / 2][j + n][i % 2 * 2];
                const float *up = &sums[i / 2][j + n + half][i % 2 * 2];
                d[n] = bf16_pack(silu_f32(gate[0]) * up[0], silu_f32(gate[1]) * up[1]);
            }
            const u32x4 v = mma_gather(d);
            if (r0 + i * 8 < p->a.side && c0 + j * 8 < width)
                *(u32x4 *)(void *)(y + (u64)(r0 + i * 8) * width + c0 + j * 8) = v;
        }
    }
}

KERNEL_ENTRY(PRODUCT_THREADS, PRODUCT_WGMMA ? 1 : 2)
KERNEL(void *y, const product_source *x, const product_source *RESTRICT w,
       const float *RESTRICT bias, const float *residual, const struct cuda_call *call)
{
    SHARED_ARENA(arena);
    struct product p;
    product_along(&p, x, call ? (u32)call->rows : (u32)(MM_M), w, (u32)(MM_N), (u32)(MM_K));
    p.b.paired = MM_SWIGLU ? (u32)(MM_N) / 2 : 0;
    p.old = MM_RESIDUAL ? residual : 0;
    product_start(&p, PRODUCT_COLUMNS((u32)(MM_M), (u32)(MM_N)), arena);
    if (product_feed(&p))
        return;
    for (u32 tile = blockIdx.x; tile < product_tiles(&p); tile += gridDim.x) {
        float sums[PRODUCT_I][PRODUCT_J][4];
        product_tile(&p, tile, sums, 0);
        if (MM_BIAS)
            CONCAT(KERNEL, _bias)(&p, bias, sums);
        if (MM_SWIGLU)
            CONCAT(KERNEL, _store_swiglu)(&p, (bf16 *)y, sums);
        else if (MM_OUT_F32 || MM_RESIDUAL)
            CONCAT(KERNEL, _store_f32)(&p, (float *)y, residual, sums);
        else
            product_store_bf16(&p, (bf16 *)y, p.b.side, sums);
    }
}

#undef KERNEL
#undef MM_M
#undef MM_N
#undef MM_K
#undef MM_BIAS
#undef MM_OUT_F32
#undef MM_RESIDUAL
#undef MM_SWIGLU

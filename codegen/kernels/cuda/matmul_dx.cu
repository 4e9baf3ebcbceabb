/* matmul_dx.cu - dx[m][K] = dy[m][N] w[N][K], bf16 with fp32 sums; or dx += it, dx fp32.
 *
 * KERNEL              the entry point's name
 * MM_M, MM_N, MM_K    rows of dy and dx, rows of w, columns of w and dx; N, K multiples of 8
 * MM_ACCUMULATE       literal: 1 adds to an fp32 dx, 0 overwrites a bf16 one
 *
 * Floor: 2 m N K FLOPs. Tiles of dx (product.h); w is stored across, since the sum runs over its
 * rows. */
#include "device.h"
#include "launch.h"
#include "archrt_cuda.h"
#include "product.h"

KERNEL_ENTRY(PRODUCT_THREADS, PRODUCT_WGMMA ? 1 : 2)
KERNEL(void *RESTRICT dx, const product_source *RESTRICT dy, const product_source *RESTRICT w)
{
    SHARED_ARENA(arena);
    struct product p;
    p.a.at = dy;
    p.a.row = (u32)(MM_N);
    p.a.side = (u32)(MM_M);
    p.a.across = 0;
    p.b.at = w;
    p.b.row = (u32)(MM_K);
    p.b.side = (u32)(MM_K);
    p.b.across = 1;
    p.a.paired = p.b.paired = 0;
    p.old = MM_ACCUMULATE ? (const float *)dx : 0;
    p.a.depth = p.b.depth = (u32)(MM_N);
    product_start(&p, PRODUCT_COLUMNS((u32)(MM_M), (u32)(MM_K)), arena);
    if (product_feed(&p))
        return;
    for (u32 tile = blockIdx.x; tile < product_tiles(&p); tile += gridDim.x) {
        float sums[PRODUCT_I][PRODUCT_J][4];
        product_tile(&p, tile, sums, 0);
        if (MM_ACCUMULATE)
            product_add_f32(&p, (float *)dx, (u32)(MM_K), sums);
        else
            product_store_bf16(&p, (bf16 *)dx, (u32)(MM_K), sums);
    }
}

#undef KERNEL
#undef MM_M
#undef MM_N
#undef MM_K
#undef MM_ACCUMULATE

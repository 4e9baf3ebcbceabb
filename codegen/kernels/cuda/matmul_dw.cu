/* matmul_dw.cu - dw[N][K] += dy[m][N]^T x[m][K], fp32; dbias[N] += column sums of dy. Where `old`
 * is not dw but NULL, dw is overwritten: of the first product that a step leaves there.
 *
 * KERNEL              the entry point's name
 * MM_M, MM_N, MM_K    rows of dy and x, columns of dy, columns of x; N, K multiples of 8
 * MM_BIAS             whether there is a bias
 *
 * Floor: 2 m N K FLOPs, and 8 bytes of dw an element, overwritten 4. Tiles of dw (product.h), each
 * over all rows m in order: no block adds what another one has, so no scratch, and the result
 * depends on the shape alone. Both operands are stored across. Where there is a bias, the blocks of
 * the first columns add up their dy on the way. */
#include "device.h"
#include "launch.h"
#include "archrt_cuda.h"
#include "product.h"

KERNEL_ENTRY(PRODUCT_THREADS, PRODUCT_WGMMA ? 1 : 2)
KERNEL(float *RESTRICT dw, float *RESTRICT dbias, const product_source *RESTRICT dy,
       const product_source *RESTRICT x, const float *old)
{
    SHARED_ARENA(arena);
    struct product p;
    p.a.at = dy;
    p.a.row = (u32)(MM_N);
    p.a.side = (u32)(MM_N);
    p.b.at = x;
    p.b.row = (u32)(MM_K);
    p.b.side = (u32)(MM_K);
    p.a.across = p.b.across = 1;
    p.a.paired = p.b.paired = 0;
    p.old = old;
    p.a.depth = p.b.depth = (u32)(MM_M);
    product_start(&p, PRODUCT_COLUMNS((u32)(MM_N), (u32)(MM_K)), arena);
    if (product_feed(&p))
        return;
    for (u32 tile = blockIdx.x; tile < product_tiles(&p); tile += gridDim.x) {
        float sums[PRODUCT_I][PRODUCT_J][4], bias = 0.0f;
        u32 row, column;
        product_corner(tile, p.a.side, p.b.side, p.columns, &row, &column);
        product_tile(&p, tile, sums, MM_BIAS && column == 0 ? &bias : 0);
        if (old)
            product_add_f32(&p, dw, (u32)(MM_K), sums);
        else
            product_store_f32(&p, dw, (u32)(MM_K), sums);
        row += product_column_row();
        if (MM_BIAS && column == 0 && product_column_row() < PRODUCT_ROWS && row < p.a.side)
            dbias[row] += bias;
    }
}

#undef KERNEL
#undef MM_M
#undef MM_N
#undef MM_K
#undef MM_BIAS

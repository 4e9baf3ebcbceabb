/* matmul.c - y[m][N] = x[m][K] w[N][K]^T, + bias[N], + residual[m][N].
 *
 * KERNEL   the function's name
 * MM_M     rows; MM_N, MM_K as above; m <= MM_M
 * MM_BIAS, MM_RESIDUAL   literal 0 or 1; MM_ACCUMULATE is ignored
 *
 * scratch: MATMUL_SCRATCH_FLOATS (matmul.h). Rows are split by share(m, ROW_GRANULE). */
#include "matmul.h"

static NOINLINE void CONCAT(KERNEL, _tile)(const struct tile *t)
{
    tile_product(TILE_ROWS, TILE_VECTORS, t, TILE_X_ROW(MM_K), 1, TILE_COLUMNS);
}

matmul_fn KERNEL;
void KERNEL(float *y, const float *x, const float *w, const float *bias, const float *residual,
            float *scratch, int m, int tid)
{
    struct row_product p = {.y = y,
                            .x = x,
                            .w = w,
                            .bias = MM_BIAS ? bias : NULL,
                            .add = MM_RESIDUAL ? residual : NULL,
                            .w_column = MM_K,
                            .w_depth = 1,
                            .scratch = scratch,
                            .m = m,
                            .n = MM_N,
                            .k = MM_K};
    product_rows(&p, pack_transposed, CONCAT(KERNEL, _tile), tid);
}

#undef KERNEL
#undef MM_M
#undef MM_N
#undef MM_K
#undef MM_BIAS
#undef MM_RESIDUAL
#undef MM_ACCUMULATE

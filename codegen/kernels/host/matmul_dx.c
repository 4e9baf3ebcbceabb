/* matmul_dx.c - dx[m][K] = dy[m][N] w[N][K].
 *
 * KERNEL   the function's name
 * MM_M     rows; MM_N, MM_K as above; m <= MM_M
 * MM_ACCUMULATE   literal 0 or 1: 1 adds to dx; MM_BIAS and MM_RESIDUAL are ignored
 *
 * scratch: MATMUL_SCRATCH_FLOATS (matmul.h). Rows are split by share(m, ROW_GRANULE). */
#include "matmul.h"

static NOINLINE void CONCAT(KERNEL, _tile)(const struct tile *t)
{
    tile_product(TILE_ROWS, TILE_VECTORS, t, TILE_X_ROW(MM_N), 1, TILE_COLUMNS);
}

matmul_dx_fn KERNEL;
void KERNEL(float *dx, const float *dy, const float *w, float *scratch, int m, int tid)
{
    struct row_product p = {.y = dx,
                            .x = dy,
                            .w = w,
                            .add = MM_ACCUMULATE ? dx : NULL,
                            .w_column = 1,
                            .w_depth = MM_K,
                            .scratch = scratch,
                            .m = m,
                            .n = MM_K,
                            .k = MM_N};
    product_rows(&p, pack_copied, CONCAT(KERNEL, _tile), tid);
}

#undef KERNEL
#undef MM_M
#undef MM_N
#undef MM_K
#undef MM_BIAS
#undef MM_RESIDUAL
#undef MM_ACCUMULATE

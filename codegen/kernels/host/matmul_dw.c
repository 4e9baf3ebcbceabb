/* matmul_dw.c - dw[N][K] += dy[m][N]^T x[m][K], dbias[N] += column sums of dy.
 *
 * KERNEL   the function's name
 * MM_M     rows; MM_N, MM_K as above; m <= MM_M
 * MM_BIAS  literal 0 or 1: 1 computes dbias too; MM_RESIDUAL and MM_ACCUMULATE are ignored
 *
 * scratch: MATMUL_SCRATCH_FLOATS (matmul.h). Threads split the rows of dw, share(N, 1), and each
 * adds its sums over m in the same order, so the result does not depend on THREADS. The caller's
 * plan must have all of dy and x ready. */
#include "matmul.h"

matmul_dw_fn KERNEL;
void KERNEL(float *dw, float *dbias, const float *dy, const float *x, float *scratch, int m,
            int tid)
{
    struct weight_gradient g = {.dw = dw,
                                .dbias = MM_BIAS ? dbias : NULL,
                                .dy = dy,
                                .x = x,
                                .scratch = scratch + (ptrdiff_t)tid * MATMUL_THREAD,
                                .m = m,
                                .n = MM_N,
                                .k = MM_K};
    gradient_rows(&g, share(MM_N, 1, tid));
}

#undef KERNEL
#undef MM_M
#undef MM_N
#undef MM_K
#undef MM_BIAS
#undef MM_RESIDUAL
#undef MM_ACCUMULATE

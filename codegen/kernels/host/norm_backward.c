/* norm_backward.c - gradients of y = x rstd gain: with g = dy gain,
 * dx[M][D] = or += rstd (g - x rstd^2 mean(g x)), dgain[D] += sum over rows of dy x rstd.
 *
 * KERNEL   the function's name
 * NORM_M   rows, NORM_D columns; NORM_EPS is ignored
 * NORM_ACCUMULATE   literal: 1 adds to dx, 0 overwrites it
 *
 * Rows are split by share(M, ROW_GRANULE); each thread sums dgain over its rows in scratch[tid][D],
 * then, after a barrier, the threads add up columns. Another kernel may use the same scratch only
 * after a barrier. */
#include "kernel.h"

/* One row; `sum` is this thread's dgain. */
static ALWAYS_INLINE void CONCAT(KERNEL, _row)(float *dx, float *sum, const float *dy,
                                               const float *x, float r, const float *gain)
{
    vf dot[2] = {{0}};
    float rest = 0;
    int j = 0;
    for (; j + 2 * VL <= NORM_D; j += 2 * VL) {
        UNROLL
        for (int v = 0; v < 2; v++) {
            int at = j + v * VL;
            dot[v] += vf_load(dy + at) * vf_load(gain + at) * vf_load(x + at);
        }
    }
    for (; j < NORM_D; j++)
        rest += dy[j] * gain[j] * x[j];
    float c = (rest + vf_sum(dot[0] + dot[1])) / (float)NORM_D * r * r;
    for (j = 0; j + VL <= NORM_D; j += VL) {
        vf d = vf_load(dy + j), lane = vf_load(x + j);
        vf before = NORM_ACCUMULATE ? vf_load(dx + j) : vf_set(0);
        vf_store(sum + j, vf_load(sum + j) + d * lane * r);
        vf_store(dx + j, before + (d * vf_load(gain + j) - lane * c) * r);
    }
    for (; j < NORM_D; j++) {
        sum[j] += dy[j] * x[j] * r;
        dx[j] = (NORM_ACCUMULATE ? dx[j] : 0) + (dy[j] * gain[j] - x[j] * c) * r;
    }
}

norm_backward_fn KERNEL;
void KERNEL(float *dx, float *dgain, const float *dy, const float *x, const float *rstd,
            const float *gain, float *scratch, int tid)
{
    struct range own = share(NORM_M, ROW_GRANULE, tid), column = share(NORM_D, 16, tid);
    float *sum = scratch + (ptrdiff_t)tid * NORM_D;
    memset(sum, 0, sizeof(float) * NORM_D);
    for (int i = own.begin; i < own.end; i++) {
        ptrdiff_t at = (ptrdiff_t)i * NORM_D;
        CONCAT(KERNEL, _row)(dx + at, sum, dy + at, x + at, rstd[i], gain);
    }
    team_barrier(tid);
    for (int t = 0; t < THREADS; t++)
        for (int j = column.begin; j < column.end; j++)
            dgain[j] += scratch[(ptrdiff_t)t * NORM_D + j];
}

#undef KERNEL
#undef NORM_M
#undef NORM_D
#undef NORM_EPS
#undef NORM_ACCUMULATE

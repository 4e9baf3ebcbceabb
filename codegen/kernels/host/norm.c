/* norm.c - y[m][D] = x rstd gain, rstd[m] = 1 / sqrt(mean(x^2) + eps).
 *
 * KERNEL     the function's name
 * NORM_M     most rows, NORM_D columns, NORM_EPS
 * NORM_GRANULE   rows that stay together (default ROW_GRANULE, as training needs)
 *
 * rstd may be NULL. Rows are split by share(m, NORM_GRANULE). */
#include "kernel.h"

#ifndef NORM_GRANULE
#define NORM_GRANULE ROW_GRANULE
#endif

static ALWAYS_INLINE float CONCAT(KERNEL, _rstd)(const float *x)
{
    vf sum[4] = {{0}};
    float rest = 0;
    int j = 0;
    for (; j + 4 * VL <= NORM_D; j += 4 * VL) {
        UNROLL
        for (int v = 0; v < 4; v++) {
            vf lane = vf_load(x + j + v * VL);
            sum[v] += lane * lane;
        }
    }
    for (; j + VL <= NORM_D; j += VL)
        sum[0] += vf_load(x + j) * vf_load(x + j);
    for (; j < NORM_D; j++)
        rest += x[j] * x[j];
    rest += vf_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
    return 1.0f / sqrtf(rest / (float)NORM_D + (float)NORM_EPS);
}

norm_fn KERNEL;
void KERNEL(float *y, float *rstd, const float *x, const float *gain, int m, int tid)
{
    struct range own = share(m, NORM_GRANULE, tid);
    for (int i = own.begin; i < own.end; i++) {
        const float *from = x + (ptrdiff_t)i * NORM_D;
        float *to = y + (ptrdiff_t)i * NORM_D;
        float r = CONCAT(KERNEL, _rstd)(from);
        int j = 0;
        for (; j + VL <= NORM_D; j += VL)
            vf_store(to + j, vf_load(from + j) * r * vf_load(gain + j));
        for (; j < NORM_D; j++)
            to[j] = from[j] * r * gain[j];
        if (rstd)
            rstd[i] = r;
    }
}

#undef KERNEL
#undef NORM_M
#undef NORM_D
#undef NORM_EPS
#undef NORM_GRANULE

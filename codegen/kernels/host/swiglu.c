/* swiglu.c - h[m][F] = silu(gate_up[m][0..F)) gate_up[m][F..2F), silu(g) = g / (1 + e^-g).
 *
 * KERNEL       the function's name
 * SWIGLU_M     most rows, SWIGLU_F columns
 * SWIGLU_GRANULE   rows that stay together (default ROW_GRANULE, as training needs)
 *
 * Rows are split by share(m, SWIGLU_GRANULE). */
#include "kernel.h"

#ifndef SWIGLU_GRANULE
#define SWIGLU_GRANULE ROW_GRANULE
#endif

swiglu_fn KERNEL;
void KERNEL(float *h, const float *gate_up, int m, int tid)
{
    struct range own = share(m, SWIGLU_GRANULE, tid);
    for (int i = own.begin; i < own.end; i++) {
        const float *gate = gate_up + (ptrdiff_t)i * 2 * SWIGLU_F, *up = gate + SWIGLU_F;
        float *to = h + (ptrdiff_t)i * SWIGLU_F;
        int j = 0;
        for (; j + VL <= SWIGLU_F; j += VL) {
            vf g = vf_load(gate + j);
            vf_store(to + j, g * vf_sigmoid(g) * vf_load(up + j));
        }
        if (j < SWIGLU_F) {
            vf g = vf_load_part(gate + j, SWIGLU_F - j);
            vf_store_part(to + j, g * vf_sigmoid(g) * vf_load_part(up + j, SWIGLU_F - j),
                          SWIGLU_F - j);
        }
    }
}

#undef KERNEL
#undef SWIGLU_M
#undef SWIGLU_F
#undef SWIGLU_GRANULE

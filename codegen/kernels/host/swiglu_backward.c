/* swiglu_backward.c - gradients of h = silu(g) u, s = 1 / (1 + e^-g): dg = dh u s (1 + g (1 - s)),
 * du = dh g s; h itself is recomputed where it is asked for.
 *
 * KERNEL     the function's name
 * SWIGLU_M   rows, SWIGLU_F columns
 *
 * dgate_up may be gate_up, h may be dh or NULL. Rows are split by share(M, ROW_GRANULE). */
#include "kernel.h"

struct CONCAT(KERNEL, _lanes) {
    vf dgate, dup, h;
};

static ALWAYS_INLINE struct CONCAT(KERNEL, _lanes) CONCAT(KERNEL, _gradient)(vf g, vf u, vf dh)
{
    vf s = vf_sigmoid(g), silu = g * s;
    return (struct CONCAT(KERNEL, _lanes)){dh * u * (s + silu * (1.0f - s)), dh * silu, silu * u};
}

static ALWAYS_INLINE void CONCAT(KERNEL, _row)(float *dgate, float *h, const float *dh,
                                               const float *gate)
{
    int j = 0;
    for (; j + VL <= SWIGLU_F; j += VL) {
        struct CONCAT(KERNEL, _lanes) d = CONCAT(KERNEL, _gradient)(
            vf_load(gate + j), vf_load(gate + SWIGLU_F + j), vf_load(dh + j));
        vf_store(dgate + j, d.dgate);
        vf_store(dgate + SWIGLU_F + j, d.dup);
        if (h)
            vf_store(h + j, d.h);
    }
    if (j < SWIGLU_F) {
        int n = SWIGLU_F - j;
        struct CONCAT(KERNEL, _lanes) d = CONCAT(KERNEL, _gradient)(
            vf_load_part(gate + j, n), vf_load_part(gate + SWIGLU_F + j, n),
            vf_load_part(dh + j, n));
        vf_store_part(dgate + j, d.dgate, n);
        vf_store_part(dgate + SWIGLU_F + j, d.dup, n);
        if (h)
            vf_store_part(h + j, d.h, n);
    }
}

swiglu_backward_fn KERNEL;
void KERNEL(float *dgate_up, float *h, const float *dh, const float *gate_up, int tid)
{
    struct range own = share(SWIGLU_M, ROW_GRANULE, tid);
    for (int i = own.begin; i < own.end; i++) {
        ptrdiff_t at = (ptrdiff_t)i * SWIGLU_F;
        CONCAT(KERNEL, _row)(dgate_up + 2 * at, h ? h + at : NULL, dh + at, gate_up + 2 * at);
    }
}

#undef KERNEL
#undef SWIGLU_M
#undef SWIGLU_F

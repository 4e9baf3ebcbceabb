/* skinny_residual.cu - y[m][N] = residual + w[N][K] a[m][K], 9 rows and more.
 *
 * KERNEL    the entry point's name
 * DM_M, DM_N, DM_K
 * CUDA_SMS, CUDA_ARCH
 *
 * Floor: 2 N K bytes of weights, or 2 m N K FLOPs. See skinny_product.h. */
#include "skinny_product.h"

struct PART(_out) {
    float *y;
    const float *residual;
};

DEVICE void PART(_store)(const struct PART(_out) * out, u32 row, u32 item, float first,
                         float second)
{
    const u32 half = (u32)(DM_N) / 2;
    const u64 at = (u64)row * (u32)(DM_N) + item;
    out->y[at] = out->residual[at] + first;
    out->y[at + half] = out->residual[at + half] + second;
}

#include "skinny_finish.h"

KERNEL_ENTRY(SKINNY_THREADS, 1)
KERNEL(float *y, const bf16 *a, const bf16 *RESTRICT w, const float *residual,
       const int *RESTRICT slot, void *scratch, int *counter)
{
    SHARED_ARENA(arena);
    bf16 *ring = (bf16 *)(void *)arena;
    const struct skinny_place p = PART(_place)();
    const struct PART(_out) out = {y, residual};
    const bf16 *from[SKINNY_TILE / SWEEP];
    float sums[2][WARP_X / 8][4];
    (void)slot;
    dependents_launch();
    PART(_rows)(from, &p, w, (u32)(DM_N) / 2);
    PART(_start)(ring, from, w, &p);
    dependent_wait();
    PART(_product)(sums, ring, from, w, a, DM_M, &p);
    PART(_finish)(&out, sums, DM_M, &p, (f32x2 *)scratch, counter, (u32 *)(void *)arena);
}

#include "skinny_end.h"

/* skinny_gate_up.cu - h[m][F] = silu(gate) up of the norm of x, 9 rows and more.
 *
 * KERNEL    the entry points' name: KERNEL, KERNEL_2
 * DM_M, DM_N (2 F), DM_K (D)
 * EPSILON, CUDA_SMS, CUDA_ARCH
 *
 * Pass 1 norms the rows, as bf16, in scratch: a block would read them as often as there are blocks
 * of weights. Pass 2 is the product. Floor: 2 N K bytes of weights, or 2 m N K FLOPs. See
 * skinny_product.h. */
#include "skinny_product.h"

struct PART(_out) {
    bf16 *h;
};

DEVICE void PART(_store)(const struct PART(_out) * out, u32 row, u32 item, float first,
                         float second)
{
    out->h[(u64)row * ((u32)(DM_N) / 2) + item] = bf16_from_f32(silu_f32(first) * second);
}

#include "skinny_finish.h"

KERNEL_ENTRY(SKINNY_THREADS, 1)
KERNEL(bf16 *h, const float *x, const bf16 *RESTRICT w, const float *RESTRICT gain,
       const int *RESTRICT slot, void *scratch, int *counter)
{
    SHARED_ARENA(arena);
    const u64 at = (u64)blockIdx.x * (u32)(DM_K);
    (void)h, (void)w, (void)slot, (void)counter;
    dependents_launch();
    dependent_wait();
    skinny_norm((bf16 *)scratch + at, x + at, gain, (u32)(DM_K), EPSILON, (float *)(void *)arena);
}

KERNEL_ENTRY(SKINNY_THREADS, 1)
CONCAT(KERNEL, _2)
(bf16 *h, const float *x, const bf16 *RESTRICT w, const float *RESTRICT gain,
 const int *RESTRICT slot, void *scratch, int *counter)
{
    SHARED_ARENA(arena);
    bf16 *ring = (bf16 *)(void *)arena, *y = (bf16 *)scratch;
    const struct skinny_place p = PART(_place)();
    const struct PART(_out) out = {h};
    const bf16 *from[SKINNY_TILE / SWEEP];
    float sums[2][WARP_X / 8][4];
    (void)x, (void)gain, (void)slot;
    dependents_launch();
    PART(_rows)(from, &p, w, (u32)(DM_N) / 2);
    PART(_start)(ring, from, w, &p);
    dependent_wait();
    PART(_product)(sums, ring, from, w, y, DM_M, &p);
    PART(_finish)
    (&out, sums, DM_M, &p, (f32x2 *)(void *)(y + (u64)(DM_M) * (u32)(DM_K)), counter,
     (u32 *)(void *)arena);
}

#include "skinny_end.h"

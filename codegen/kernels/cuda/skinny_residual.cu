/* skinny_residual.cu - y[m][N] = residual + w[N][K] a[m][K], 9 rows and more.
 *
 * KERNEL    the entry point's name
 * DM_M, DM_N, DM_K
 * CUDA_SMS, CUDA_ARCH
 *
 * Floor: 2 N K bytes of weights, or 2 m N K FLOPs. See skinny_product.h, for sm_90a skinny_wgmma.h.
 */
#include "device.h"
#include "launch.h"

#if SKINNY_WGMMA

#define ROWS_WIDE SKINNY_WIDE(DM_M, DM_N, DM_K)
#define TILES CEIL_DIV((u32)(DM_N), WIDE)
#define BOXES 1
#define X_TILES 0
#include "skinny_wgmma.h"

struct PART(_out) {
    float *y;
    const float *residual;
};

DEVICE u32 PART(_box)(u32 tile, u32 box)
{
    return tile * WIDE + box;
}

/* Some pieces of both rows at a time: all reads, then all writes, since y may be the residual. */
DEVICE void PART(_store)(const struct PART(_out) * out, u32 tile, const float sums[WIDE / 2])
{
    enum { AT_ONCE = SKINNY_GROUPS(DM_M) > 2 ? 2 : 8 };
    const u32 row = PART(_row)(), column = tile * WIDE + lane_id() % 4 * 2;
    UNROLL
    for (u32 j = 0; j < PIECES; j += AT_ONCE) {
        f32x2 v[2 * AT_ONCE];
        UNROLL
        for (u32 n = 0; n < 2 * AT_ONCE; n++) {
            const u32 piece = j + n / 2, i = n % 2, c = column + piece * 8;
            const f32x2 none = {0, 0};
            v[n] = none;
            if (piece < PIECES && row + i * 8 < DM_M && c < (u32)(DM_N))
                v[n] = *(const f32x2 *)(const void *)(out->residual +
                                                      (u64)(row + i * 8) * (u32)(DM_N) + c);
        }
        UNROLL
        for (u32 n = 0; n < 2 * AT_ONCE; n++) {
            const u32 piece = j + n / 2, i = n % 2, c = column + piece * 8;
            if (piece >= PIECES || row + i * 8 >= DM_M || c >= (u32)(DM_N))
                continue;
            v[n].x += sums[4 * piece + 2 * i];
            v[n].y += sums[4 * piece + 2 * i + 1];
            *(f32x2 *)(void *)(out->y + (u64)(row + i * 8) * (u32)(DM_N) + c) = v[n];
        }
    }
}

KERNEL_ENTRY(SKINNY_THREADS_90(DM_M), 1)
KERNEL(float *y, const tensor_map *a, const tensor_map *RESTRICT w, const float *residual,
       const int *RESTRICT slot, void *scratch, int *counter)
{
    SHARED_ARENA(arena);
    const struct PART(_out) out = {y, residual};
    (void)slot, (void)scratch, (void)counter;
    dependents_launch();
    PART(_run)(&out, arena, w, a);
}

#else

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

#endif
#include "skinny_end.h"

/* skinny_gate_up.cu - h[m][F] = silu(gate) up of the norm of x, 9 rows and more.
 *
 * KERNEL    the entry points' name: KERNEL, KERNEL_2
 * DM_M, DM_N (2 F), DM_K (D)
 * EPSILON, CUDA_SMS, CUDA_ARCH
 *
 * Pass 1 norms the rows, as bf16, in scratch: a block would read them as often as there are blocks
 * of weights. Pass 2 is the product, on sm_90a the only one: x comes as tiles. Floor: 2 N K bytes
 * of weights, or 2 m N K FLOPs. See skinny_product.h, for sm_90a skinny_wgmma.h. */
#include "device.h"
#include "launch.h"

#if SKINNY_WGMMA

#define ROWS_WIDE SKINNY_WIDE(DM_M, DM_N, DM_K)
#define TILES CEIL_DIV((u32)(DM_N), WIDE)
#define BOXES 2 /* gate, up */
#define X_TILES 1
#define HALF_PIECES (PART(_wide) / 16)
#include "skinny_wgmma.h"

struct PART(_out) {
    bf16 *h;
};

DEVICE u32 PART(_box)(u32 tile, u32 box)
{
    return tile * (WIDE / 2) + box * ((u32)(DM_N) / 2);
}

DEVICE void PART(_know)(struct PART(_out) * out, const struct skinny_share *at)
{
    (void)out, (void)at;
}

DEVICE void PART(_fetch)(struct PART(_out) * out, const struct skinny_share *at, u32 tile)
{
    (void)out, (void)at, (void)tile;
}

DEVICE void PART(_store)(struct PART(_out) * out, const struct skinny_share *at, u32 tile,
                         float sums[WIDE / 2])
{
    const u32 f = (u32)(DM_N) / 2;
    UNROLL
    for (u32 n = 0; n < 2 * PAIRS; n++) {
        const u32 i = n % 2, pair = PART(_number)(at, n / 2), row = at->row + i * 8;
        const u32 c = tile * (WIDE / 2) + PART(_column)(pair, 0);
        const float *gate = sums + n / 2 * 8 + i * 2, *up = gate + 4;
        if (pair < PAIRS && row < DM_M && c < f)
            *(u32 *)(void *)(out->h + (u64)row * f + c) =
                bf16_pack(silu_f32(gate[0]) * up[0], silu_f32(gate[1]) * up[1]);
    }
}

KERNEL_ENTRY(SKINNY_THREADS_90(DM_M), 1)
CONCAT(KERNEL, _2)
(bf16 *h, const float *x, const tensor_map *RESTRICT w, const float *RESTRICT gain,
 const int *RESTRICT slot, void *scratch, int *counter, const bf16 *tiles, const float *squares)
{
    SHARED_ARENA(arena);
    struct PART(_out) out;
    out.h = h;
    (void)x, (void)gain, (void)slot, (void)scratch, (void)counter;
    dependents_launch();
    PART(_run)(&out, arena, w, tiles, squares);
}

#else

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
       const int *RESTRICT slot, void *scratch, int *counter, const bf16 *tiles,
       const float *squares)
{
    SHARED_ARENA(arena);
    const u64 at = (u64)blockIdx.x * (u32)(DM_K);
    (void)h, (void)w, (void)slot, (void)counter, (void)tiles, (void)squares;
    dependents_launch();
    dependent_wait();
    skinny_norm((bf16 *)scratch + at, x + at, gain, (u32)(DM_K), EPSILON, (float *)(void *)arena);
}

KERNEL_ENTRY(SKINNY_THREADS, 1)
CONCAT(KERNEL, _2)
(bf16 *h, const float *x, const bf16 *RESTRICT w, const float *RESTRICT gain,
 const int *RESTRICT slot, void *scratch, int *counter, const bf16 *tiles, const float *squares)
{
    SHARED_ARENA(arena);
    bf16 *ring = (bf16 *)(void *)arena, *y = (bf16 *)scratch;
    const struct skinny_place p = PART(_place)();
    const struct PART(_out) out = {h};
    const bf16 *from[SKINNY_TILE / SWEEP];
    float sums[2][WARP_X / 8][4];
    (void)x, (void)gain, (void)slot, (void)tiles, (void)squares;
    dependents_launch();
    PART(_rows)(from, &p, w, (u32)(DM_N) / 2);
    PART(_start)(ring, from, w, &p);
    dependent_wait();
    PART(_product)(sums, ring, from, w, y, DM_M, &p);
    PART(_finish)
    (&out, sums, DM_M, &p, (f32x2 *)(void *)(y + (u64)(DM_M) * (u32)(DM_K)), counter,
     (u32 *)(void *)arena);
}

#endif
#include "skinny_end.h"

/* skinny_residual.cu - y[m][N] = residual + w[N][K] a[m][K], 9 rows and more; on sm_90a the first
 * half of the norm behind it too (archrt_cuda.h).
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
#define HALF_PIECES (PART(_wide) / 16)
#include "skinny_wgmma.h"

STATIC_ASSERT((ROWS_WIDE) % SKINNY_PART == 0, "sums of squares begin where tiles do");
/* Whether a thread has registers for what it fetches before a tile's products. */
#define EARLY (SPLITS > 1 || SKINNY_GROUPS(DM_M) <= 2)

struct PART(_out) {
    float *y;
    const float *residual, *gain;
    bf16 *tiles;
    float *squares;
    f32x2 before[4 * PART(_pairs)], gains[2 * PART(_pairs)]; /* two columns each, as the sums */
};

DEVICE u32 PART(_box)(u32 tile, u32 box)
{
    return tile * WIDE + box;
}

DEVICE void PART(_know)(struct PART(_out) * out, const struct skinny_share *at)
{
    (void)out, (void)at;
}

/* Where sums 2 n and the next belong; 0: nowhere. */
DEVICE u32 PART(_place)(const struct skinny_share *at, u32 tile, u32 n, u32 *row, u32 *column)
{
    const u32 pair = PART(_number)(at, n / 4);
    *row = at->row + n % 2 * 8;
    *column = tile * WIDE + PART(_column)(pair, n / 2 % 2);
    return pair < PAIRS && *row < DM_M && *column < (u32)(DM_N);
}

/* From n on, what the stream was, and the gain; something of them where there is no place, so that
 * every load is whole. */
DEVICE void PART(_read)(struct PART(_out) * out, const struct skinny_share *at, u32 tile, u32 n,
                        u32 count)
{
    UNROLL
    for (u32 end = n + count; n < end; n++) {
        u32 row, c;
        const u32 there = PART(_place)(at, tile, n, &row, &c);
        const u64 place = there ? (u64)row * (u32)(DM_N) + c : 0;
        if (n / 4 * SPANS >= PAIRS)
            break;
        out->before[n] = *(const f32x2 *)(const void *)(out->residual + place);
        if (n % 2 == 0)
            out->gains[n / 2] = *(const f32x2 *)(const void *)(out->gain + (there ? c : 0));
    }
}

DEVICE void PART(_fetch)(struct PART(_out) * out, const struct skinny_share *at, u32 tile)
{
    if (EARLY)
        PART(_read)(out, at, tile, 0, 4 * PAIRS);
}

/* A row's sum stands where its tile begins; what the tile has of further places is 0. */
DEVICE void PART(_store_squares)(const struct PART(_out) * out, const struct skinny_share *at,
                                 u32 tile, float squares, u32 row)
{
    const u32 lane = lane_id() % 4, place = tile * (WIDE / SKINNY_PART) + lane;
    const float sum = PART(_row_sum)(squares);
    if (at->span == 0 && row < DM_M && lane < WIDE / SKINNY_PART &&
        place < CUDA_SQUARES((u32)(DM_N)))
        out->squares[(u64)row * CUDA_SQUARES((u32)(DM_N)) + place] = lane == 0 ? sum : 0.0f;
}

/* Some pieces of both rows at a time: all reads, then all writes, since y may be the residual. */
DEVICE void PART(_store)(struct PART(_out) * out, const struct skinny_share *at, u32 tile,
                         float sums[WIDE / 2])
{
    enum { AT_ONCE = 4 };
    float squares[2] = {0, 0};
    UNROLL
    for (u32 n = 0; n < 4 * PAIRS; n++) {
        u32 row, c;
        f32x2 v;
        if (!EARLY && n % AT_ONCE == 0)
            PART(_read)(out, at, tile, n, AT_ONCE);
        if (!PART(_place)(at, tile, n, &row, &c))
            continue;
        v.x = out->before[n].x + sums[2 * n];
        v.y = out->before[n].y + sums[2 * n + 1];
        squares[n % 2] += f32_fma(v.x, v.x, v.y * v.y);
        *(f32x2 *)(void *)(out->y + (u64)row * (u32)(DM_N) + c) = v;
        *(u32 *)(void *)(out->tiles + skinny_tile_at(SKINNY_X(DM_M), (u32)(DM_N), row, c)) =
            bf16_pack(v.x * out->gains[n / 2].x, v.y * out->gains[n / 2].y);
    }
    UNROLL
    for (u32 i = 0; i < 2; i++)
        PART(_store_squares)(out, at, tile, squares[i], at->row + i * 8);
}

KERNEL_ENTRY(SKINNY_THREADS_90(DM_M), 1)
KERNEL(float *y, const tensor_map *a, const tensor_map *RESTRICT w, const float *residual,
       const int *RESTRICT slot, void *scratch, int *counter, const float *RESTRICT gain,
       bf16 *tiles, float *squares)
{
    SHARED_ARENA(arena);
    struct PART(_out) out;
    out.y = y;
    out.residual = residual;
    out.gain = gain;
    out.tiles = tiles;
    out.squares = squares;
    (void)slot, (void)scratch, (void)counter;
    dependents_launch();
    PART(_run)(&out, arena, w, a, (const float *)0);
}

#undef EARLY
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
       const int *RESTRICT slot, void *scratch, int *counter, const float *RESTRICT gain,
       bf16 *tiles, float *squares)
{
    SHARED_ARENA(arena);
    bf16 *ring = (bf16 *)(void *)arena;
    const struct skinny_place p = PART(_place)();
    const struct PART(_out) out = {y, residual};
    const bf16 *from[SKINNY_TILE / SWEEP];
    float sums[2][WARP_X / 8][4];
    (void)slot, (void)gain, (void)tiles, (void)squares;
    dependents_launch();
    PART(_rows)(from, &p, w, (u32)(DM_N) / 2);
    PART(_start)(ring, from, w, &p);
    dependent_wait();
    PART(_product)(sums, ring, from, w, a, DM_M, &p);
    PART(_finish)(&out, sums, DM_M, &p, (f32x2 *)scratch, counter, (u32 *)(void *)arena);
}

#endif
#include "skinny_end.h"

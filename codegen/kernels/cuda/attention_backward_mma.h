/* attention_backward_mma.h - passes 2 and 3 of attention_backward.cu on mma.sync.
 *
 * Pass 2: a block is a range of keys of a kv head; dk and dv over all rows that see them, group and
 * all, in registers. Nothing is added across blocks.
 *
 * Pass 3: a block is a range of rows of a kv head; dq over the keys they see.
 *
 * q k^T and dp are made twice, 7 products where FlashAttention-2 has 5, so that every sum has one
 * owner and one order, without atomics or an fp32 dq in memory.
 *
 * Both passes keep the side that they sum for on the rows of mma: a product's result is in the
 * registers where the next one wants its A operand, so p and ds never visit shared memory. Pass 2
 * therefore works on the transposes. */
#include "mma_tile.h"

#define STRIDE FLASH_STRIDE(HEAD_DIM)

/* Keys or values first.. to a tile of `rows` rows; past the sequence's end, 0. */
DEVICE void PART(copy_keys)(bf16 *tile, const bf16 *from, u64 row, u32 first, u32 rows, u32 threads)
{
    UNROLL
    for (u32 i = 0; i < DIV_UP(rows * PIECES, threads); i++) {
        const u32 piece = threadIdx.x + i * threads, r = piece / PIECES, c = piece % PIECES * 8;
        const u32 inside = first + r < (u32)(ATT_T);
        if (rows * PIECES % threads == 0 || piece < rows * PIECES)
            copy_async_16_part(tile + r * STRIDE + c, inside ? from + (first + r) * row + c : from,
                               inside ? 16 : 0);
    }
}

/* Rows first.. of q and datt to two tiles of `rows` rows. */
DEVICE void PART(copy_rows)(bf16 *q, bf16 *datt, const struct PART(head) * h, u32 first, u32 rows,
                            u32 threads)
{
    UNROLL
    for (u32 i = 0; i < DIV_UP(rows * PIECES, threads); i++) {
        const u32 piece = threadIdx.x + i * threads, r = piece / PIECES, c = piece % PIECES * 8;
        const u32 inside = first + r < h->rows, at = inside ? first + r : 0;
        const u32 token = at / h->group, e = at % h->group * HEAD_DIM + c;
        if (rows * PIECES % threads == 0 || piece < rows * PIECES) {
            copy_async_16_part(q + r * STRIDE + c, h->q + token * h->row + e, inside ? 16 : 0);
            copy_async_16_part(datt + r * STRIDE + c, h->datt + token * h->att_row + e,
                               inside ? 16 : 0);
        }
    }
}

/* A warp's part of c += a b^T over the head's elements: 16 rows of a, 8 `columns` rows of b. */
DEVICE void PART(dot)(float c[][4], const bf16 *a, const bf16 *b, u32 columns,
                      const struct tile_lane *lane)
{
    UNROLL
    for (u32 n = 0; n < columns; n++)
        c[n][0] = c[n][1] = c[n][2] = c[n][3] = 0.0f;
    UNROLL
    for (u32 e = 0; e + 16 <= HEAD_DIM; e += 16) {
        u32 rows[4];
        ldmatrix_x4(rows, a + lane->rows + e);
        UNROLL
        for (u32 n = 0; n < columns; n += 2) {
            u32 two[4];
            ldmatrix_x4(two, b + lane->columns + (n * 8 * STRIDE + e));
            mma_m16n8k16_bf16(c[n], rows, two);
            mma_m16n8k16_bf16(c[n + 1], rows, two + 2);
        }
    }
#if HEAD_DIM % 16 /* eight are left */
    u32 rows[2];
    ldmatrix_x2(rows, a + lane->single + (HEAD_DIM - 8));
    UNROLL
    for (u32 n = 0; n < columns; n += 2) {
        u32 two[2];
        ldmatrix_x2(two, b + lane->single + (n * 8 * STRIDE + HEAD_DIM - 8));
        mma_m16n8k8_bf16(c[n], rows, two);
        mma_m16n8k8_bf16(c[n + 1], rows, two + 1);
    }
#endif
}

/* sums[16 rows][`pieces` x 8] += a b, a 16 x 8 `depth` from registers, b rows of the head's
 * elements from the corner on. */
DEVICE void PART(add)(float sums[][4], float a[][4], const bf16 *b, u32 depth, u32 pieces,
                      const struct tile_lane *lane)
{
    UNROLL
    for (u32 k = 0; k < depth; k += 2) {
        u32 rows[4];
        mma_a_from_d(rows, a[k], a[k + 1]);
        UNROLL
        for (u32 n = 0; n + 2 <= pieces; n += 2) {
            u32 two[4];
            ldmatrix_x4_trans(two, b + lane->rows + (k * 8 * STRIDE + n * 8));
            mma_m16n8k16_bf16(sums[n], rows, two);
            mma_m16n8k16_bf16(sums[n + 1], rows, two + 2);
        }
        if (pieces % 2) {
            u32 one[2];
            ldmatrix_x2_trans(one, b + lane->single + (k * 8 * STRIDE + (pieces - 1) * 8));
            mma_m16n8k16_bf16(sums[pieces - 1], rows, one);
        }
    }
}

/* The warp's sums[16][`pieces` x 8] times `scale`, as bf16, to a tile; not the first `skip` pieces.
 */
DEVICE void PART(stage)(bf16 *tile, float sums[][4], u32 skip, u32 pieces, float scale)
{
    bf16 *to = tile + lane_id() / 4 * STRIDE + lane_id() % 4 * 2;
    UNROLL
    for (u32 n = 0; n < pieces; n++) {
        if (n < skip)
            continue;
        *(u32 *)(void *)(to + n * 8) = bf16_pack(sums[n][0] * scale, sums[n][1] * scale);
        *(u32 *)(void *)(to + 8 * STRIDE + n * 8) =
            bf16_pack(sums[n][2] * scale, sums[n][3] * scale);
    }
}

/* ---- pass 2: dk and dv ---- */

#define WARPS FLASH_KEY_WARPS(HEAD_DIM)
#define HALVES FLASH_HALVES(HEAD_DIM)
#define BLOCK_KEYS FLASH_KEY_BLOCK(HEAD_DIM)
#define ROWS_TILE FLASH_KEY_ROWS(HEAD_DIM)
#define SLICE (ROWS_TILE < 32 ? ROWS_TILE : 32) /* rows of scores in registers at once */
#define HALF_PIECES DIV_UP(PIECES, HALVES)

/* lse (in powers of 2) and delta of rows first.. to shared memory; rows past the end have p = 1 and
 * ds = 0, finite, times a datt and q of 0. */
DEVICE void PART(copy_numbers)(float *to, const struct PART(head) * h, u32 first)
{
    const u32 t = threadIdx.x, at = first + t % ROWS_TILE;
    if (t >= 2 * ROWS_TILE)
        return;
    const float *from = t < ROWS_TILE ? h->lse : h->delta;
    if (at < h->rows)
        copy_async_4(to + t, from + (u64)(at / h->group) * (u32)(HEADS) + at % h->group);
    else
        to[t] = 0.0f;
}

/* The warp's 16 keys against a slice of rows: p and ds (both transposed) from the scores and dp. */
DEVICE void PART(terms)(float p[SLICE / 8][4], float ds[SLICE / 8][4], const float *numbers)
{
    const float factor = 1.44269504f * fast_rsqrt((float)HEAD_DIM);
    UNROLL
    for (u32 n = 0; n < SLICE / 8; n++) {
        const f32x2 lse = *(const f32x2 *)(const void *)(numbers + n * 8 + lane_id() % 4 * 2);
        const f32x2 delta =
            *(const f32x2 *)(const void *)(numbers + ROWS_TILE + n * 8 + lane_id() % 4 * 2);
        UNROLL
        for (u32 j = 0; j < 4; j++) {
            const float base = -1.44269504f * (j % 2 ? lse.y : lse.x);
            p[n][j] = fast_exp2(f32_fma(p[n][j], factor, base));
            ds[n][j] = p[n][j] * (ds[n][j] - (j % 2 ? delta.y : delta.x));
        }
    }
}

/* Rows that do not see a key: row r sees key k where k G <= r. */
DEVICE void PART(mask_rows)(float scores[SLICE / 8][4], u32 key, u32 group, u32 first)
{
    const u32 row = first + lane_id() % 4 * 2;
    UNROLL
    for (u32 n = 0; n < SLICE / 8; n++)
        UNROLL
    for (u32 j = 0; j < 4; j++)
        if ((key + j / 2 * 8) * group > row + n * 8 + j % 2)
            scores[n][j] = f32_from_bits(0xff800000u);
}

KERNEL_ENTRY(WARPS *WARP, 1)
CONCAT(KERNEL, _2)
(bf16 *RESTRICT dqkv, const bf16 *RESTRICT datt, const bf16 *RESTRICT att,
 const float *RESTRICT lse, const bf16 *RESTRICT qkv, void *RESTRICT scratch)
{
    SHARED_ARENA(arena);
    const struct PART(head) h = PART(head_of)(datt, lse, qkv, scratch, blockIdx.z, blockIdx.y);
    const struct tile_lane lane = tile_lane_of(STRIDE);
    const u32 first_key = blockIdx.x * BLOCK_KEYS, warp = threadIdx.x / WARP;
    /* The second half of an odd number of pieces begins with the last one of the first half. */
    const u32 my_keys = warp / HALVES * 16, half = warp % HALVES * (PIECES - HALF_PIECES);
    const u32 skip = warp % HALVES * (HALVES * HALF_PIECES - PIECES);
    const u32 last_key =
        first_key + BLOCK_KEYS < (u32)(ATT_T) ? first_key + BLOCK_KEYS - 1 : (u32)(ATT_T)-1;
    bf16 *k = (bf16 *)(void *)arena, *v = k + BLOCK_KEYS * STRIDE, *ring = v + BLOCK_KEYS * STRIDE;
    float *numbers = (float *)(void *)(ring + 4 * ROWS_TILE * STRIDE);
    float dk[HALF_PIECES][4], dv[HALF_PIECES][4];
    (void)att;

    PART(copy_keys)(k, h.k, h.row, first_key, BLOCK_KEYS, WARPS * WARP);
    PART(copy_keys)(v, h.v, h.row, first_key, BLOCK_KEYS, WARPS * WARP);
    u32 first = first_key * h.group, stage = 0;
    PART(copy_rows)(ring, ring + ROWS_TILE * STRIDE, &h, first, ROWS_TILE, WARPS * WARP);
    PART(copy_numbers)(numbers, &h, first);
    copy_async_commit();
    UNROLL
    for (u32 n = 0; n < HALF_PIECES; n++)
        UNROLL
    for (u32 j = 0; j < 4; j++)
        dk[n][j] = dv[n][j] = 0.0f;
    for (; first < h.rows; first += ROWS_TILE) {
        const bf16 *q = ring + stage * 2 * ROWS_TILE * STRIDE, *g = q + ROWS_TILE * STRIDE;
        copy_async_wait(0);
        block_sync();
        if (first + ROWS_TILE < h.rows) {
            bf16 *to = ring + (stage ^ 1) * 2 * ROWS_TILE * STRIDE;
            PART(copy_rows)
            (to, to + ROWS_TILE * STRIDE, &h, first + ROWS_TILE, ROWS_TILE, WARPS * WARP);
            PART(copy_numbers)(numbers + (stage ^ 1) * 2 * ROWS_TILE, &h, first + ROWS_TILE);
            copy_async_commit();
        }
        UNROLL
        for (u32 s = 0; s < ROWS_TILE; s += SLICE) {
            float p[SLICE / 8][4], ds[SLICE / 8][4];
            PART(dot)(p, k + my_keys * STRIDE, q + s * STRIDE, SLICE / 8, &lane);
            if (first < last_key * h.group) {
                const u32 key = first_key + my_keys + lane_id() / 4;
                PART(mask_rows)(p, key, h.group, first + s);
            }
            PART(dot)(ds, v + my_keys * STRIDE, g + s * STRIDE, SLICE / 8, &lane);
            PART(terms)(p, ds, numbers + stage * 2 * ROWS_TILE + s);
            PART(add)(dv, p, g + s * STRIDE + half * 8, SLICE / 8, HALF_PIECES, &lane);
            PART(add)(dk, ds, q + s * STRIDE + half * 8, SLICE / 8, HALF_PIECES, &lane);
        }
        stage ^= 1;
    }
    block_sync();
    PART(stage)
    (k + my_keys * STRIDE + half * 8, dk, skip, HALF_PIECES, fast_rsqrt((float)HEAD_DIM));
    PART(stage)(v + my_keys * STRIDE + half * 8, dv, skip, HALF_PIECES, 1.0f);
    block_sync();
    bf16 *out = dqkv + (h.k - qkv);
    UNROLL
    for (u32 i = 0; i < DIV_UP(BLOCK_KEYS * PIECES, WARPS * WARP); i++) {
        const u32 piece = threadIdx.x + i * WARPS * WARP, r = piece / PIECES;
        const u32 c = piece % PIECES * 8;
        if (piece >= BLOCK_KEYS * PIECES || first_key + r >= (u32)(ATT_T))
            continue;
        bf16 *to = out + (first_key + r) * h.row + c;
        *(u32x4 *)(void *)to = *(const u32x4 *)(const void *)(k + r * STRIDE + c);
        *(u32x4 *)(void *)(to + (h.v - h.k)) = *(const u32x4 *)(const void *)(v + r * STRIDE + c);
    }
}

#undef WARPS
#undef HALVES
#undef BLOCK_KEYS
#undef ROWS_TILE
#undef SLICE
#undef HALF_PIECES

/* ---- pass 3: dq ---- */

#define THREADS 128
#define TILE_ROWS FLASH_QUERY_ROWS(HEAD_DIM)
#define TILE_KEYS FLASH_QUERY_KEYS(HEAD_DIM)
#define BLOCKS (TILE_ROWS / 64) /* of 16 rows, a warp */

/* Of this lane: rows lane / 4 and lane / 4 + 8 of each block. */
struct PART(rows) {
    float lse[BLOCKS][2], delta[BLOCKS][2]; /* lse in powers of 2 */
    i32 last[BLOCKS][2];                    /* key that the row sees */
};

DEVICE void PART(load_rows)(struct PART(rows) * r, const struct PART(head) * h, u32 first)
{
    UNROLL
    for (u32 i = 0; i < BLOCKS * 2; i++) {
        const u32 row = first + i * 8 + lane_id() / 4, at = row < h->rows ? row : h->rows - 1;
        const u64 number = (u64)(at / h->group) * (u32)(HEADS) + at % h->group;
        r->lse[i / 2][i % 2] = 1.44269504f * h->lse[number];
        r->delta[i / 2][i % 2] = h->delta[number];
        r->last[i / 2][i % 2] = (i32)(at / h->group);
    }
}

/* ds of 16 rows from their scores and dp, in place of dp. */
DEVICE void PART(ds)(float scores[TILE_KEYS / 8][4], float dp[TILE_KEYS / 8][4],
                     const struct PART(rows) * r, u32 block, u32 key0, u32 partly)
{
    const float factor = 1.44269504f * fast_rsqrt((float)HEAD_DIM);
    const i32 key = (i32)(key0 + lane_id() % 4 * 2);
    if (partly) {
        UNROLL
        for (u32 n = 0; n < TILE_KEYS / 8; n++)
            UNROLL
        for (u32 j = 0; j < 4; j++)
            if (key + (i32)(n * 8 + j % 2) > r->last[block][j / 2])
                scores[n][j] = f32_from_bits(0xff800000u);
    }
    UNROLL
    for (u32 n = 0; n < TILE_KEYS / 8; n++)
        UNROLL
    for (u32 j = 0; j < 4; j++)
        dp[n][j] = fast_exp2(f32_fma(scores[n][j], factor, -r->lse[block][j / 2])) *
                   (dp[n][j] - r->delta[block][j / 2]);
}

KERNEL_ENTRY(THREADS, 1)
CONCAT(KERNEL, _3)
(bf16 *RESTRICT dqkv, const bf16 *RESTRICT datt, const bf16 *RESTRICT att,
 const float *RESTRICT lse, const bf16 *RESTRICT qkv, void *RESTRICT scratch)
{
    SHARED_ARENA(arena);
    const struct PART(head) h = PART(head_of)(datt, lse, qkv, scratch, blockIdx.z, blockIdx.y);
    const struct tile_lane lane = tile_lane_of(STRIDE);
    const u32 first = (gridDim.x - 1 - blockIdx.x) * TILE_ROWS;
    const u32 warp_row = threadIdx.x / WARP * (BLOCKS * 16);
    const u32 last_row = first + TILE_ROWS < h.rows ? first + TILE_ROWS - 1 : h.rows - 1;
    const u32 keys = last_row / h.group + 1, seen_by_all = first / h.group + 1;
    bf16 *q = (bf16 *)(void *)arena, *g = q + TILE_ROWS * STRIDE, *ring = g + TILE_ROWS * STRIDE;
    struct PART(rows) numbers;
    float dq[BLOCKS][PIECES][4];
    (void)att;

    PART(copy_rows)(q, g, &h, first, TILE_ROWS, THREADS);
    PART(copy_keys)(ring, h.k, h.row, 0, TILE_KEYS, THREADS);
    PART(copy_keys)(ring + TILE_KEYS * STRIDE, h.v, h.row, 0, TILE_KEYS, THREADS);
    copy_async_commit();
    PART(load_rows)(&numbers, &h, first + warp_row);
    UNROLL
    for (u32 i = 0; i < BLOCKS * PIECES; i++)
        UNROLL
    for (u32 j = 0; j < 4; j++)
        dq[i / PIECES][i % PIECES][j] = 0.0f;
    u32 stage = 0;
    for (u32 key0 = 0; key0 < keys; key0 += TILE_KEYS) {
        const bf16 *k = ring + stage * 2 * TILE_KEYS * STRIDE, *v = k + TILE_KEYS * STRIDE;
        const u32 next = key0 + TILE_KEYS;
        copy_async_wait(0);
        block_sync();
        if (next < keys) {
            bf16 *to = ring + (stage ^ 1) * 2 * TILE_KEYS * STRIDE;
            PART(copy_keys)(to, h.k, h.row, next, TILE_KEYS, THREADS);
            PART(copy_keys)(to + TILE_KEYS * STRIDE, h.v, h.row, next, TILE_KEYS, THREADS);
            copy_async_commit();
        }
        UNROLL
        for (u32 i = 0; i < BLOCKS; i++) {
            float scores[TILE_KEYS / 8][4], ds[TILE_KEYS / 8][4];
            const u32 row = (warp_row + i * 16) * STRIDE;
            PART(dot)(scores, q + row, k, TILE_KEYS / 8, &lane);
            PART(dot)(ds, g + row, v, TILE_KEYS / 8, &lane);
            PART(ds)(scores, ds, &numbers, i, key0, next > seen_by_all);
            PART(add)(dq[i], ds, k, TILE_KEYS / 8, PIECES, &lane);
        }
        stage ^= 1;
    }
    bf16 *mine = q + warp_row * STRIDE, *out = dqkv + (h.q - qkv);
    warp_sync();
    UNROLL
    for (u32 i = 0; i < BLOCKS; i++)
        PART(stage)(mine + i * 16 * STRIDE, dq[i], 0, PIECES, fast_rsqrt((float)HEAD_DIM));
    warp_sync();
    UNROLL
    for (u32 i = 0; i < DIV_UP(BLOCKS * 16 * PIECES, WARP); i++) {
        const u32 piece = lane_id() + i * WARP, r = piece / PIECES, c = piece % PIECES * 8;
        const u32 at = first + warp_row + r;
        if (piece < BLOCKS * 16 * PIECES && at < h.rows)
            *(u32x4 *)(void *)(out + at / h.group * h.row + at % h.group * HEAD_DIM + c) =
                *(const u32x4 *)(const void *)(mine + r * STRIDE + c);
    }
}

#undef THREADS
#undef TILE_ROWS
#undef TILE_KEYS
#undef BLOCKS
#undef STRIDE

/* amx.h - products of fp32 on the tile unit of x86 (AMX), which multiplies bf16 and adds fp32.
 *
 * Every fp32 number is the sum of three bf16 numbers: its own 8 leading bits, those of what is
 * left, and the rest, each rounded to nearest. Of the nine products of two such sums the six
 * largest are taken; the others are below 2^-25 of |a b|, half a unit in the last place. Numbers
 * below 2^-110 lose their low parts, since the unit reads denormals as zero; what is not finite
 * stays so, and what bf16 rounds to infinity (above 3.39e38) becomes NaN.
 *
 * Operands are packed into pieces of 16 rows x 32 k of a, or 32 k x 16 columns of b:
 *
 *   a piece   [high, middle, low] tiles of a: [16 rows][32 k], of b: [16 pairs of k][16 columns][2]
 *
 * and panels of two pieces a step of 32 k, so that a tile product is c[32][32] in four tiles, with
 * two tiles of a and two of b. The unit takes 16 cycles a product and 8 to read a tile. */
#ifndef ARCH_AMX_H
#define ARCH_AMX_H

#include <immintrin.h>

#include "kernel.h"

enum {
    AMX_TILE = 1024, /* bytes of a tile: 16 rows of 64 */
    AMX_PARTS = 3,
    AMX_PIECE = AMX_PARTS * AMX_TILE,
    AMX_SIDE = 32, /* rows, columns and depth of a step */
    AMX_STEP = 2 * AMX_PIECE
};
#define AMX_STEPS(k) (((k) + AMX_SIDE - 1) / AMX_SIDE)

/* gcc 12 does not know that tile instructions read and write memory. */
#define AMX_MEMORY() __asm__ volatile("" : : : "memory")

/* All eight tiles 16 x 64 bytes: before the first product of a kernel; amx_end() behind its last,
 * so that switching threads need not save them. */
static inline void amx_begin(void)
{
    struct {
        uint8_t palette, start_row, zero[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } tiles = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        tiles.row_bytes[i] = 64;
        tiles.rows[i] = 16;
    }
    AMX_MEMORY();
    _tile_loadconfig(&tiles);
}

static inline void amx_end(void)
{
    _tile_release();
}

/* 16 pairs (even, odd) as bf16 in 32-bit lanes, even below; and what rounding left of them. */
static ALWAYS_INLINE __m512i amx_round(__m512 *even, __m512 *odd)
{
    const __m512i interleave =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    __m512i pair = _mm512_permutexvar_epi16(interleave, (__m512i)_mm512_cvtne2ps_pbh(*odd, *even));
    *even = *even - (__m512)_mm512_slli_epi32(pair, 16);
    *odd = *odd - (__m512)_mm512_and_si512(pair, _mm512_set1_epi32((int)0xffff0000));
    return pair;
}

/* The three parts of 16 pairs, to row `row` of three tiles. */
static ALWAYS_INLINE void amx_store(char *to, int row, __m512 even, __m512 odd)
{
    UNROLL
    for (int part = 0; part < AMX_PARTS; part++)
        _mm512_storeu_si512(to + part * AMX_TILE + row * 64, amx_round(&even, &odd));
}

static ALWAYS_INLINE __mmask16 amx_mask(int n)
{
    return (__mmask16)(n >= 16 ? 0xffff : n <= 0 ? 0 : (1u << n) - 1);
}

/* A piece from rows that lie along k: `rows` of 16, `depth` of 32 k; the rest is zero. */
static ALWAYS_INLINE void amx_piece_rows(char *to, const float *x, ptrdiff_t stride, int rows,
                                         int depth)
{
    const __m512i evens =
        _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i odds = _mm512_add_epi32(evens, _mm512_set1_epi32(1));
    __mmask16 low = amx_mask(depth), high = amx_mask(depth - 16);
    for (int r = 0; r < rows; r++, x += stride) {
        __m512 a = _mm512_maskz_loadu_ps(low, x), b = _mm512_maskz_loadu_ps(high, x + 16);
        amx_store(to, r, _mm512_permutex2var_ps(a, evens, b), _mm512_permutex2var_ps(a, odds, b));
    }
    for (int part = 0; part < AMX_PARTS && rows < 16; part++)
        memset(to + part * AMX_TILE + rows * 64, 0, (size_t)(16 - rows) * 64);
}

/* A piece from columns, k running down: `columns` of 16, `depth` of 32 rows; the rest is zero. */
static ALWAYS_INLINE void amx_piece_columns(char *to, const float *x, ptrdiff_t stride, int columns,
                                            int depth)
{
    __mmask16 mask = amx_mask(columns);
    for (int r = 0; r < 16; r++, x += 2 * stride) {
        PREFETCH(x + 64 * stride); /* two steps ahead: each row is a page of its own */
        PREFETCH(x + 65 * stride);
        amx_store(to, r, _mm512_maskz_loadu_ps(2 * r < depth ? mask : 0, x),
                  _mm512_maskz_loadu_ps(2 * r + 1 < depth ? mask : 0, x + stride));
    }
}

/* Each tile of a piece becomes its transpose in units of 32 bits: a piece of b one of a, and back.
 */
static ALWAYS_INLINE void amx_turn(char *piece)
{
    for (int part = 0; part < AMX_PARTS; part++) {
        float *tile = (float *)(void *)(piece + part * AMX_TILE);
        transpose_square(tile, 16, tile, 16);
    }
}

/* How the operand lies in memory: a with rows along k, b with columns down k, and both turned. */
enum amx_layout { AMX_A, AMX_A_TURNED, AMX_B, AMX_B_TURNED };

/* A panel: 2 pieces a step, AMX_STEPS(depth) steps; `side` of 32 rows or columns. */
static NOINLINE void amx_pack(enum amx_layout layout, char *to, const float *x, ptrdiff_t stride,
                              int side, int depth)
{
    bool along = layout == AMX_A || layout == AMX_B_TURNED;
    bool turn = layout == AMX_A_TURNED || layout == AMX_B_TURNED;
    for (int k = 0; k < depth; k += AMX_SIDE)
        for (int half = 0; half < 32; half += 16, to += AMX_PIECE) {
            int have = side - half < 16 ? side - half : 16;
            if (have <= 0) /* not multiplied */
                continue;
            if (along)
                amx_piece_rows(to, x + half * stride + k, stride, have, depth - k);
            else
                amx_piece_columns(to, x + k * stride + half, stride, have, depth - k);
            if (turn)
                amx_turn(to);
        }
}

/* c[rows][columns] = a b (+ add) over `steps` of 32 k. */
struct amx_product {
    const char *a, *b; /* panels; or of b, where b2 is given, two panels of bf16 (weights.h), 16 */
    const char *b2;    /* columns each, whose last step has `pairs` pairs of k */
    int steps, pairs;
    int rows, columns; /* at most 32 of each */
    float *c;
    const float *add;  /* laid out as c, may be c; or NULL */
    const float *bias; /* [columns] or NULL */
    ptrdiff_t c_row;
};

/* The four products of one part of a with one of b; of a lower right corner fewer. */
#define AMX_MULTIPLY(down, across)                                                                 \
    do {                                                                                           \
        _tile_dpbf16ps(0, 4, 6);                                                                   \
        if (across > 1)                                                                            \
            _tile_dpbf16ps(1, 4, 7);                                                               \
        if (down > 1)                                                                              \
            _tile_dpbf16ps(2, 5, 6);                                                               \
        if (down > 1 && across > 1)                                                                \
            _tile_dpbf16ps(3, 5, 7);                                                               \
    } while (0)

#define AMX_LOAD(first, second, count, from, part)                                                 \
    do {                                                                                           \
        _tile_loadd(first, (from) + (part)*AMX_TILE, 64);                                          \
        if (count > 1)                                                                             \
            _tile_loadd(second, (from) + AMX_PIECE + (part)*AMX_TILE, 64);                         \
    } while (0)

/* One step. High parts stay while the low ones pass: seven loads of a pair of tiles, not twelve. */
static ALWAYS_INLINE void amx_step(int down, int across, const char *a, const char *b)
{
    AMX_LOAD(6, 7, across, b, 0);
    AMX_LOAD(4, 5, down, a, 2);
    AMX_MULTIPLY(down, across);
    AMX_LOAD(4, 5, down, a, 1);
    AMX_MULTIPLY(down, across);
    AMX_LOAD(4, 5, down, a, 0);
    AMX_MULTIPLY(down, across);
    AMX_LOAD(6, 7, across, b, 2);
    AMX_MULTIPLY(down, across);
    AMX_LOAD(6, 7, across, b, 1);
    AMX_MULTIPLY(down, across);
    AMX_LOAD(4, 5, down, a, 1);
    AMX_MULTIPLY(down, across);
}

/* The same where b is bf16 already: one tile a step and 16 columns, side by side in b and b2. */
static ALWAYS_INLINE void amx_step_bf16(int down, int across, const char *a, const char *b,
                                        const char *b2)
{
    _tile_loadd(6, b, 64);
    if (across > 1)
        _tile_loadd(7, b2, 64);
    AMX_LOAD(4, 5, down, a, 2);
    AMX_MULTIPLY(down, across);
    AMX_LOAD(4, 5, down, a, 1);
    AMX_MULTIPLY(down, across);
    AMX_LOAD(4, 5, down, a, 0);
    AMX_MULTIPLY(down, across);
}

/* All steps over bf16 panels; of the last one, `pairs` of 16 pairs of k are there. */
static ALWAYS_INLINE void amx_steps_bf16(int down, int across, const struct amx_product *t)
{
    const char *a = t->a, *b = t->b, *b2 = t->b2;
    int whole = t->pairs == 16 ? t->steps : t->steps - 1;
    for (int k = 0; k < whole; k++, a += AMX_STEP, b += AMX_TILE, b2 += AMX_TILE)
        amx_step_bf16(down, across, a, b, b2);
    if (whole < t->steps) {
        char last[2][AMX_TILE] __attribute__((aligned(64))) = {{0}};
        memcpy(last[0], b, (size_t)t->pairs * 64);
        if (across > 1)
            memcpy(last[1], b2, (size_t)t->pairs * 64);
        AMX_MEMORY();
        amx_step_bf16(down, across, a, last[0], last[1]);
    }
}

static ALWAYS_INLINE void amx_tiles(int down, int across, const struct amx_product *t, float *c,
                                    const float *add, ptrdiff_t c_row)
{
    const size_t row = (size_t)c_row * sizeof(float);
    const ptrdiff_t below = 16 * c_row;
    AMX_MEMORY();
    if (add) {
        _tile_loadd(0, add, row);
        if (across > 1)
            _tile_loadd(1, add + 16, row);
        if (down > 1)
            _tile_loadd(2, add + below, row);
        if (down > 1 && across > 1)
            _tile_loadd(3, add + below + 16, row);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    const char *a = t->a, *b = t->b;
    if (t->b2)
        amx_steps_bf16(down, across, t);
    else
        for (int k = 0; k < t->steps; k++, a += AMX_STEP, b += AMX_STEP)
            amx_step(down, across, a, b);
    _tile_stored(0, c, row);
    if (across > 1)
        _tile_stored(1, c + 16, row);
    if (down > 1)
        _tile_stored(2, c + below, row);
    if (down > 1 && across > 1)
        _tile_stored(3, c + below + 16, row);
    AMX_MEMORY();
}

/* Where c ends inside a tile, by way of a whole one. */
static NOINLINE void amx_edge(const struct amx_product *t)
{
    float c[AMX_SIDE * AMX_SIDE] __attribute__((aligned(64)));
    if (t->add)
        for (int i = 0; i < t->rows; i++)
            memcpy(c + i * AMX_SIDE, t->add + i * t->c_row, sizeof(float) * (size_t)t->columns);
    const float *add = t->add ? c : NULL;
    if (t->rows > 16 && t->columns > 16)
        amx_tiles(2, 2, t, c, add, AMX_SIDE);
    else if (t->rows > 16)
        amx_tiles(2, 1, t, c, add, AMX_SIDE);
    else if (t->columns > 16)
        amx_tiles(1, 2, t, c, add, AMX_SIDE);
    else
        amx_tiles(1, 1, t, c, add, AMX_SIDE);
    for (int i = 0; i < t->rows; i++)
        memcpy(t->c + i * t->c_row, c + i * AMX_SIDE, sizeof(float) * (size_t)t->columns);
}

static NOINLINE void amx_multiply(const struct amx_product *t)
{
    if (t->rows == AMX_SIDE && t->columns == AMX_SIDE)
        amx_tiles(2, 2, t, t->c, t->add, t->c_row);
    else
        amx_edge(t);
    for (int i = 0; t->bias && i < t->rows; i++)
        for (int j = 0; j < t->columns; j++)
            t->c[i * t->c_row + j] += t->bias[j];
}
#endif

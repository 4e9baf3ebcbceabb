/* tiles_test.h - x as kernels of decode hand it on (archrt_cuda.h), made and judged in the words of
 * that contract. */
#ifndef TILES_TEST_H
#define TILES_TEST_H

#include "kernel_test.h"

struct test_tiles {
    u32 m, d, rows, columns, parts; /* rows and columns with those that are padding */
    bf16 *tiles;
    float *squares;
};

HOST_CODE static inline size_t tiles_place(const struct test_tiles *t, u32 row, u32 c)
{
    const u32 high = CUDA_TILE_HIGH(t->m);
    size_t tile = (size_t)(row / high) * (t->columns / 64) + c / 64;
    return (tile * high + row % high) * 64 + (c % 64 / 8 ^ row % 8) * 8 + c % 8;
}

/* As embedding leaves it: padding is 0, the rest poison. */
HOST_CODE static inline struct test_tiles tiles_alloc(u32 m, u32 d)
{
    struct test_tiles t = {m,         d,   CUDA_TILE_ROWS(m), CUDA_TILE_COLUMNS(d), CUDA_SQUARES(d),
                           (bf16 *)0, NULL};
    t.tiles = emu_alloc("tiles", (size_t)t.rows * t.columns * sizeof(bf16));
    t.squares = emu_alloc("squares", (size_t)m * t.parts * sizeof(float));
    emu_fill(t.tiles, 0, (size_t)t.rows * t.columns * sizeof(bf16));
    emu_fill(t.squares, 0xff, (size_t)m * t.parts * sizeof(float));
    for (u32 r = 0; r < m; r++) {
        for (u32 c = 0; c < d; c++)
            t.tiles[tiles_place(&t, r, c)] = 0xffff;
        for (u32 p = DIV_UP(d, 32); p < t.parts; p++)
            t.squares[(size_t)r * t.parts + p] = 0;
    }
    return t;
}

/* Of x[m][d]; the sums of squares lie where tiles of 64 and of 96 columns leave them, in turn. */
HOST_CODE static inline struct test_tiles tiles_of(const float *x, const float *gain, u32 m, u32 d)
{
    struct test_tiles t = tiles_alloc(m, d);
    for (u32 r = 0; r < m; r++) {
        const u32 wide = r % 2 ? 3 : 2;
        double sum = 0;
        for (u32 p = 0; p < t.parts; p++)
            t.squares[(size_t)r * t.parts + p] = 0;
        for (u32 c = 0; c < d; c++) {
            const float v = x[(size_t)r * d + c];
            sum = c % (32 * wide) ? sum + (double)v * v : (double)v * v;
            t.squares[(size_t)r * t.parts + c / 32 / wide * wide] = (float)sum;
            t.tiles[tiles_place(&t, r, c)] = bf16_from_f32(v * gain[c]);
        }
    }
    return t;
}

/* What a kernel left, beside x[m][d]: tiles to the bit, sums as good as fp32's, padding as it was.
 */
HOST_CODE static inline int tiles_check(const struct test_tiles *t, const float *x,
                                        const float *gain, const char *what)
{
    struct test_error e = {0, 0, 0, 0};
    for (u32 r = 0; r < t->rows; r++)
        for (u32 c = 0; c < t->columns; c++) {
            const bool there = r < t->m && c < t->d;
            const bf16 want = there ? bf16_from_f32(x[(size_t)r * t->d + c] * gain[c]) : 0;
            bf16 got;
            emu_read(&got, t->tiles + tiles_place(t, r, c), sizeof(got));
            if (got != want) {
                printf("%s: row %u, column %u of tiles is %04x, should be %04x\n", what, r, c, got,
                       want);
                return 1;
            }
        }
    for (u32 r = 0; r < t->m; r++) {
        double sum = 0, want = 0;
        for (u32 p = 0; p < t->parts; p++) {
            float part;
            emu_read(&part, t->squares + (size_t)r * t->parts + p, sizeof(part));
            sum += part;
        }
        for (u32 c = 0; c < t->d; c++)
            want += (double)x[(size_t)r * t->d + c] * x[(size_t)r * t->d + c];
        test_compare(&e, r, sum, want, 1e-30, 2e-6);
    }
    return test_verdict(&e, what);
}

#endif

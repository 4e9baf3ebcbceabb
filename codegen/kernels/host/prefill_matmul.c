/* prefill_matmul.c - y[m][N] = x[m][K] w[N][K]^T, + bias[N], + residual[m][N]; w packed
 * (weights.h).
 *
 * KERNEL      the function's name
 * MM_M        most rows; 1 <= m <= MM_M is the run-time argument; MM_N, MM_K as above
 * WTYPE       literal 0 fp32, 1 bf16, 2 int8; the arithmetic is fp32 in all three
 * MM_BIAS, MM_RESIDUAL   literal 0 or 1
 * MM_HALVES   literal 1: w is two packed matrices of N / 2 rows each (gate, then up); else 0
 *
 * A block of w becomes floats in the order the tile reads, which costs as much as a few rows of x;
 * then every strip of x meets it from the L2 cache. Threads split columns, so that each weight is
 * read and converted once, or rows where the columns do not divide well. Every thread reads all of
 * x and writes its own part of y: barriers before and after. scratch: MATMUL_SCRATCH_FLOATS.
 * On a tile unit: prefill_amx.h. */
#include "matmul.h"
#include "weights.h"
#if ARCH_AMX
#include "prefill_amx.h"
#endif

#ifndef ARCH_PREFILL_MATMUL_ONCE
#define ARCH_PREFILL_MATMUL_ONCE

/* Columns [at, at + TILE_COLUMNS) of one packed matrix of n rows, k in [begin, end). */
static ALWAYS_INLINE void prefill_pack(int type, float *to, const char *w, int n, int k, int at,
                                       int begin, int end)
{
    size_t panel = PANEL_BYTES(type, k);
    for (int v = 0; v < TILE_VECTORS; v++, at += VL)
        if (at < n)
            panel_floats(type, to + v * VL, TILE_COLUMNS, w + (size_t)(at / PANEL) * panel,
                         at % PANEL, begin, end);
        else
            for (int c = 0; c < end - begin; c++)
                vf_store(to + c * TILE_COLUMNS + v * VL, vf_set(0));
}

/* The thread's rows and tiles of columns: the grid of THREADS that makes the largest part smallest,
 * counting what reading and converting weights costs as so many rows. */
static inline void prefill_grid(int m, int tiles, int tid, struct range *rows,
                                struct range *columns)
{
    enum { WEIGHTS_AS_ROWS = 24 };
    int best = 1;
    int64_t least = INT64_MAX;
    for (int across = THREADS; across >= 1; across--) {
        if (THREADS % across)
            continue;
        int down = THREADS / across;
        int64_t most =
            (int64_t)((tiles + across - 1) / across) * ((m + down - 1) / down + WEIGHTS_AS_ROWS);
        if (most < least) {
            least = most;
            best = across;
        }
    }
    int down = THREADS / best, i = tid / best, j = tid % best;
    rows->begin = (int)((int64_t)m * i / down);
    rows->end = (int)((int64_t)m * (i + 1) / down);
    columns->begin = (int)((int64_t)tiles * j / best);
    columns->end = (int)((int64_t)tiles * (j + 1) / best);
}

struct prefill {
    struct row_product p;
    const char *w;
    int type, halves;
    struct range rows;
};

/* Tiles [begin, end) of half `half` of the columns. */
static ALWAYS_INLINE void prefill_tiles(const struct prefill *f, int half, int begin, int end,
                                        float *packed, float *copy,
                                        void (*tile)(const struct tile *))
{
    const struct row_product *p = &f->p;
    int n = p->n / f->halves, depth = even_part(p->k, TILE_DEPTH, QUANT_BLOCK);
    int most = MATMUL_BLOCK / depth / TILE_COLUMNS;
    const char *w = f->w + (size_t)half * PACKED_BYTES(f->type, n, p->k);
    for (; begin < end; begin += most) {
        int first = begin * TILE_COLUMNS, last = (end - begin < most ? end : begin + most);
        struct packed_block b = {.n0 = half * n + first, .packed = packed};
        b.n = (last * TILE_COLUMNS < n ? last * TILE_COLUMNS : n) - first;
        for (b.k0 = 0; b.k0 < p->k; b.k0 += depth) {
            b.k = p->k - b.k0 < depth ? p->k - b.k0 : depth;
            for (int t = begin; t < last; t++)
                prefill_pack(f->type, packed + (ptrdiff_t)(t - begin) * TILE_COLUMNS * b.k, w, n,
                             p->k, t * TILE_COLUMNS, b.k0, b.k0 + b.k);
            for (int i = f->rows.begin; i < f->rows.end; i += TILE_ROWS) {
                int left = f->rows.end - i, after = left - TILE_ROWS;
                product_strip(p, &b, i, left < TILE_ROWS ? left : TILE_ROWS,
                              after < TILE_ROWS ? after : TILE_ROWS, copy, tile);
            }
        }
    }
}

#if ARCH_AMX
static ALWAYS_INLINE void prefill_run(struct prefill *f, void (*tile)(const struct tile *), int tid)
{
    (void)tile;
    int n = f->p.n / f->halves, tiles = (n + AMX_SIDE - 1) / AMX_SIDE;
    float *scratch = f->p.scratch + (ptrdiff_t)tid * MATMUL_THREAD;
    struct range columns;
    prefill_grid(f->p.m, tiles * f->halves, tid, &f->rows, &columns);
    amx_begin();
    for (int half = 0; half < f->halves; half++) {
        int begin = (columns.begin - half * tiles) * AMX_SIDE;
        int end = (columns.end - half * tiles) * AMX_SIDE;
        const char *w = f->w + (size_t)half * PACKED_BYTES(f->type, n, f->p.k);
        amx_prefill(&f->p, f->type, w, half * n, begin > 0 ? begin : 0, amx_least(end, n), f->rows,
                    scratch);
    }
    amx_end();
}
#else
static ALWAYS_INLINE void prefill_run(struct prefill *f, void (*tile)(const struct tile *), int tid)
{
    float *packed = f->p.scratch + (ptrdiff_t)tid * MATMUL_THREAD, *copy = packed + MATMUL_BLOCK;
    int n = f->p.n / f->halves, tiles = (n + TILE_COLUMNS - 1) / TILE_COLUMNS;
    struct range columns;
    prefill_grid(f->p.m, tiles * f->halves, tid, &f->rows, &columns);
    for (int half = 0; half < f->halves; half++) {
        int begin = columns.begin - half * tiles, end = columns.end - half * tiles;
        begin = begin > 0 ? begin : 0;
        end = end < tiles ? end : tiles;
        prefill_tiles(f, half, begin, end, packed, copy, tile);
    }
}
#endif
#endif

static NOINLINE void CONCAT(KERNEL, _tile)(const struct tile *t)
{
    tile_product(TILE_ROWS, TILE_VECTORS, t, TILE_X_ROW(MM_K), 1, TILE_COLUMNS);
}

prefill_matmul_fn KERNEL;
void KERNEL(float *y, const float *x, const void *w, const float *bias, const float *residual,
            float *scratch, int m, int tid)
{
    struct prefill f = {.p = {.y = y,
                              .x = x,
                              .bias = MM_BIAS ? bias : NULL,
                              .add = MM_RESIDUAL ? residual : NULL,
                              .scratch = scratch,
                              .m = m,
                              .n = MM_N,
                              .k = MM_K},
                        .w = w,
                        .type = WTYPE,
                        .halves = 1 + MM_HALVES};
    prefill_run(&f, CONCAT(KERNEL, _tile), tid);
}

#undef KERNEL
#undef MM_M
#undef MM_N
#undef MM_K
#undef WTYPE
#undef MM_BIAS
#undef MM_RESIDUAL
#undef MM_ACCUMULATE
#undef MM_HALVES

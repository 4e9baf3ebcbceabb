/* matmul.h - the register tile of all matrix products, how operands are packed for it, and the
 * loops that matmul.c and matmul_dx.c share. NOTES-train.md has the reasons and the figures.
 *
 * A tile is c[TILE_ROWS][TILE_COLUMNS] = sum over k of a[row][k] b[k][column]: one broadcast of `a`
 * feeds TILE_VECTORS products, and all sums stay in registers. Steps are in floats. */
#ifndef ARCH_MATMUL_H
#define ARCH_MATMUL_H

#include "kernel.h"

#if defined(__AVX512F__)
enum { TILE_ROWS = 14, TILE_VECTORS = 2 }; /* 28 sums, 2 of b, 1 of a: 31 of 32 registers */
#elif defined(__AVX__)
enum { TILE_ROWS = 6, TILE_VECTORS = 2 }; /* 12 sums of 16 */
#elif defined(__aarch64__)
enum { TILE_ROWS = 8, TILE_VECTORS = 3 }; /* 24 sums of 32 */
#else
enum { TILE_ROWS = 5, TILE_VECTORS = 2 }; /* 10 sums of 16: without FMA, products need registers */
#endif
enum {
    TILE_COLUMNS = TILE_VECTORS * VL,
    TILE_DEPTH = 512, /* k taken at once: TILE_ROWS x TILE_DEPTH of a lie in the L1 cache */
    CACHE_LINE = 16,  /* floats of a cache line */
    TILE_COPY_STRIDE = TILE_DEPTH + 16, /* of copied rows: an odd number of cache lines */
    TILE_AHEAD = 8,                     /* k between two prefetches */
    /* Floats of packed b that one thread keeps in its L2 cache beside what streams through. */
    MATMUL_LEAST = TILE_DEPTH * TILE_COLUMNS,
    MATMUL_BLOCK = L2_BYTES / 32 * 5 > MATMUL_LEAST ? L2_BYTES / 32 * 5 : MATMUL_LEAST,
    MATMUL_COPY = (TILE_ROWS * TILE_COPY_STRIDE + 15) / 16 * 16,
    /* Weight gradients: rows of dy and x taken at once; tiles of rows and columns of dw that stay
     * in the L2 cache meanwhile, in half of it; floats between rows of packed dy. */
    GRADIENT_DEPTH = 128,
    GRADIENT_TILES = 32,
    GRADIENT_STEP = (TILE_ROWS + VL - 1) / VL * VL,
    GRADIENT_COLUMNS =
        L2_BYTES / 32 * 4 / (GRADIENT_TILES * TILE_ROWS) / TILE_COLUMNS * TILE_COLUMNS +
        TILE_COLUMNS,
    GRADIENT_SCRATCH = GRADIENT_DEPTH * (GRADIENT_TILES * GRADIENT_STEP + TILE_COLUMNS),
    VECTOR_SCRATCH = MATMUL_BLOCK + MATMUL_COPY > GRADIENT_SCRATCH ? MATMUL_BLOCK + MATMUL_COPY
                                                                   : GRADIENT_SCRATCH,
    /* On a tile unit (amx.h): k, or rows of dy and x, taken at once; floats of the packed operand
     * that stays in the L2 cache, of 2 MiB there, and of the strip that passes it. */
    AMX_DEPTH = 512,
    AMX_GRADIENT_DEPTH = 512,
    AMX_KEPT = 5 << 16,
    AMX_STRIP = AMX_DEPTH * 48,
    AMX_SCRATCH = AMX_KEPT + AMX_STRIP,
    MATMUL_THREAD = ARCH_AMX && AMX_SCRATCH > VECTOR_SCRATCH ? AMX_SCRATCH : VECTOR_SCRATCH
};

/* Each thread packs b for itself, which costs some 30 / (its rows) of the time; with many threads
 * that is more than a barrier for each block. */
#define MATMUL_SHARE (THREADS > 4)

/* Scratch of any matmul, matmul_dx or matmul_dw, all threads together. */
#define MATMUL_SCRATCH_FLOATS ((size_t)THREADS * MATMUL_THREAD)

struct tile {
    const float *a, *b;
    int depth;         /* of k */
    int columns;       /* valid ones of c; b has TILE_COLUMNS of them */
    float *c;          /* c = product (+ add) (+ bias) */
    const float *add;  /* laid out as c, may be c; or NULL */
    const float *bias; /* [columns] or NULL */
    ptrdiff_t c_row;
    /* What this thread reads soon: two streams, a prefetch of each every TILE_AHEAD k. */
    const float *soon[2];
    ptrdiff_t soon_step[2];
};

/* Sums to c where the tile ends inside a vector. */
static NOINLINE void tile_store_edge(const struct tile *t, const float *sums, int rows, int width)
{
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < t->columns; j++) {
            float sum = sums[i * width + j];
            if (t->bias)
                sum += t->bias[j];
            if (t->add)
                sum += t->add[i * t->c_row + j];
            t->c[i * t->c_row + j] = sum;
        }
}

static ALWAYS_INLINE void tile_store(const struct tile *t, int rows, int vectors,
                                     vf sum[][TILE_VECTORS])
{
    if (t->columns != vectors * VL) {
        float spilled[TILE_ROWS * TILE_COLUMNS];
        UNROLL
        for (int i = 0; i < rows; i++) {
            UNROLL
            for (int v = 0; v < vectors; v++)
                vf_store(spilled + (i * vectors + v) * VL, sum[i][v]);
        }
        tile_store_edge(t, spilled, rows, vectors * VL);
        return;
    }
    if (t->bias) {
        UNROLL
        for (int v = 0; v < vectors; v++) {
            vf bias = vf_load(t->bias + v * VL);
            UNROLL
            for (int i = 0; i < rows; i++)
                sum[i][v] += bias;
        }
    }
    if (t->add) {
        UNROLL
        for (int i = 0; i < rows; i++) {
            UNROLL
            for (int v = 0; v < vectors; v++)
                sum[i][v] += vf_load(t->add + i * t->c_row + v * VL);
        }
    }
    UNROLL
    for (int i = 0; i < rows; i++) {
        UNROLL
        for (int v = 0; v < vectors; v++)
            vf_store(t->c + i * t->c_row + v * VL, sum[i][v]);
    }
}

/* One k: sum[i][v] += a[i] b[v]. */
static ALWAYS_INLINE void tile_step(int rows, int vectors, const float *a, ptrdiff_t a_row,
                                    const float *b, vf sum[][TILE_VECTORS])
{
    vf column[TILE_VECTORS];
    UNROLL
    for (int v = 0; v < vectors; v++)
        column[v] = vf_load(b + v * VL);
    UNROLL
    for (int i = 0; i < rows; i++) {
        vf row = vf_set(a[i * a_row]);
        UNROLL
        for (int v = 0; v < vectors; v++)
            sum[i][v] += row * column[v];
    }
}

/* rows and vectors are constants where this is instantiated; so should the steps be. */
static ALWAYS_INLINE void tile_product(int rows, int vectors, const struct tile *t, ptrdiff_t a_row,
                                       ptrdiff_t a_step, ptrdiff_t b_step)
{
    vf sum[TILE_ROWS][TILE_VECTORS];
    const float *a = t->a, *b = t->b, *soon0 = t->soon[0], *soon1 = t->soon[1];
    const float *c = t->c;
    int k = 0;
    UNROLL
    for (int i = 0; i < rows; i++) {
        UNROLL
        for (int v = 0; v < vectors; v++)
            sum[i][v] = (vf){0};
    }
    for (; k + TILE_AHEAD <= t->depth; k += TILE_AHEAD) {
        PREFETCH_L2(soon0);
        PREFETCH_L2(soon1);
        soon0 += t->soon_step[0];
        soon1 += t->soon_step[1];
        if (k < rows * TILE_AHEAD) { /* one row of c each time */
            PREFETCH_WRITE(c);
            PREFETCH_WRITE(c + (vectors - 1) * VL);
            c += t->c_row;
        }
#pragma GCC unroll 2
        for (int i = 0; i < TILE_AHEAD; i++, a += a_step, b += b_step)
            tile_step(rows, vectors, a, a_row, b, sum);
    }
    for (; k < t->depth; k++, a += a_step, b += b_step)
        tile_step(rows, vectors, a, a_row, b, sum);
    tile_store(t, rows, vectors, sum);
}

/* Shared instances for the rows that remain at the lower edge. */
#define TILE_EDGE(rows)                                                                            \
    static NOINLINE void tile_edge_##rows(const struct tile *t, ptrdiff_t a_row, ptrdiff_t a_step, \
                                          ptrdiff_t b_step)                                        \
    {                                                                                              \
        tile_product(rows, TILE_VECTORS, t, a_row, a_step, b_step);                                \
    }
TILE_EDGE(1)
TILE_EDGE(2)
TILE_EDGE(4)
#if defined(__AVX512F__)
TILE_EDGE(8)
#else
#define tile_edge_8 tile_edge_4 /* never called: TILE_ROWS <= 8 */
#endif

/* A tile of any number of rows and any steps, in pieces of 8, 4, 2 and 1 rows. */
static NOINLINE void tile_edge(int rows, const struct tile *whole, ptrdiff_t a_row,
                               ptrdiff_t a_step, ptrdiff_t b_step)
{
    struct tile t = *whole;
    while (rows > 0) {
        int piece = 1;
        if (TILE_ROWS > 8 && rows >= 8) {
            tile_edge_8(&t, a_row, a_step, b_step);
            piece = 8;
        } else if (rows >= 4) {
            tile_edge_4(&t, a_row, a_step, b_step);
            piece = 4;
        } else if (rows >= 2) {
            tile_edge_2(&t, a_row, a_step, b_step);
            piece = 2;
        } else {
            tile_edge_1(&t, a_row, a_step, b_step);
        }
        rows -= piece;
        t.a += piece * a_row;
        t.c += piece * t.c_row;
        if (t.add)
            t.add += piece * t.c_row;
    }
}

/* The even and the odd result of interleaving two vectors: a0 b0 a1 b1 ... */
static ALWAYS_INLINE void vf_zip(vf *a, vf *b)
{
#if VECTOR_BYTES == 64
    vf low =
        __builtin_shufflevector(*a, *b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    vf high = __builtin_shufflevector(*a, *b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30,
                                      15, 31);
#elif VECTOR_BYTES == 32
    vf low = __builtin_shufflevector(*a, *b, 0, 8, 1, 9, 2, 10, 3, 11);
    vf high = __builtin_shufflevector(*a, *b, 4, 12, 5, 13, 6, 14, 7, 15);
#else
    vf low = __builtin_shufflevector(*a, *b, 0, 4, 1, 5);
    vf high = __builtin_shufflevector(*a, *b, 2, 6, 3, 7);
#endif
    *a = low;
    *b = high;
}

/* to[i][j] = from[j][i] for VL x VL floats: log2 VL rounds, each interleaving the rows of the first
 * half with those of the second. */
static NOINLINE void transpose_square(float *to, ptrdiff_t to_row, const float *from,
                                      ptrdiff_t from_row)
{
    vf row[VL], next[VL];
    UNROLL
    for (int i = 0; i < VL; i++)
        row[i] = vf_load(from + i * from_row);
    UNROLL
    for (int round = 1; round < VL; round *= 2) {
        UNROLL
        for (int i = 0; i < VL / 2; i++) {
            next[2 * i] = row[i];
            next[2 * i + 1] = row[i + VL / 2];
            vf_zip(&next[2 * i], &next[2 * i + 1]);
        }
        UNROLL
        for (int i = 0; i < VL; i++)
            row[i] = next[i];
    }
    UNROLL
    for (int i = 0; i < VL; i++)
        vf_store(to + i * to_row, row[i]);
}

/* One panel of packed b: panel[depth][TILE_COLUMNS], columns beyond `columns` zero, from
 * w[depth][columns] (pack_copied) or w[columns][depth] (pack_transposed), `stride` floats a row. */
typedef void pack_fn(float *panel, const float *w, ptrdiff_t stride, int depth, int columns);

static NOINLINE void pack_copied(float *panel, const float *w, ptrdiff_t stride, int depth,
                                 int columns)
{
    for (int k = 0; k < depth; k++, w += stride, panel += TILE_COLUMNS) {
        if (columns == TILE_COLUMNS) {
            UNROLL
            for (int v = 0; v < TILE_VECTORS; v++)
                vf_store(panel + v * VL, vf_load(w + v * VL));
            PREFETCH(w + 8 * stride);
            PREFETCH(w + 8 * stride + TILE_COLUMNS - 1);
        } else {
            for (int j = 0; j < TILE_COLUMNS; j++)
                panel[j] = j < columns ? w[j] : 0;
        }
    }
}

static NOINLINE void pack_transposed(float *panel, const float *w, ptrdiff_t stride, int depth,
                                     int columns)
{
    int k = 0;
    if (columns == TILE_COLUMNS)
        for (; k + VL <= depth; k += VL)
            for (int j = 0; j < TILE_COLUMNS; j += VL) {
                const float *from = w + j * stride + k;
                for (int i = 0; i < VL; i++)
                    PREFETCH(from + i * stride + 4 * VL);
                transpose_square(panel + k * TILE_COLUMNS + j, TILE_COLUMNS, from, stride);
            }
    for (; k < depth; k++)
        for (int j = 0; j < TILE_COLUMNS; j++)
            panel[k * TILE_COLUMNS + j] = j < columns ? w[j * stride + k] : 0;
}

/* y[m][n] = x[m][k] b[k][n] (+ bias) (+ add), b packed from w by blocks; rows split between threads
 * by share(m, ROW_GRANULE). `tile` takes TILE_ROWS rows of x, in place or copied. */
struct row_product {
    float *y;
    const float *x, *w, *bias, *add; /* add may be y */
    ptrdiff_t w_column, w_depth;     /* steps in w to the next column and to the next k */
    float *scratch;
    int m, n, k;
};

/* Whether rows of k floats, read in place, would compete for the same few lines of the L1 cache. */
#define TILE_COPIES(k) (TILE_ROWS > 8 && (k) % 1024 == 0)
#define TILE_X_ROW(k) (TILE_COPIES(k) ? TILE_COPY_STRIDE : (k))

struct packed_block {
    int n0, n, k0, k; /* columns and depth of b that are packed */
    const float *packed;
};

/* rows 1..TILE_ROWS of y from row i on, times all columns of the block. */
static ALWAYS_INLINE void product_strip(const struct row_product *p, const struct packed_block *b,
                                        int i, int rows, int rows_after, float *copy,
                                        void (*tile)(const struct tile *))
{
    const float *x = p->x + (ptrdiff_t)i * p->k + b->k0;
    const float *after = x + (rows_after > 0 ? (ptrdiff_t)rows * p->k : 0);
    if (TILE_COPIES(p->k))
        for (int r = 0; r < rows; r++)
            memcpy(copy + r * TILE_COPY_STRIDE, x + (ptrdiff_t)r * p->k, sizeof(float) * b->k);
    struct tile t = {.a = TILE_COPIES(p->k) ? copy : x,
                     .depth = b->k,
                     .c_row = p->n,
                     .soon_step = {TILE_AHEAD, TILE_AHEAD}};
    int next = 0;
    for (int j = 0; j < b->n; j += TILE_COLUMNS) {
        ptrdiff_t at = (ptrdiff_t)i * p->n + b->n0 + j;
        t.b = b->packed + (ptrdiff_t)j * b->k;
        t.columns = b->n - j < TILE_COLUMNS ? b->n - j : TILE_COLUMNS;
        t.c = p->y + at;
        t.add = b->k0 > 0 ? t.c : p->add ? p->add + at : NULL;
        t.bias = b->k0 == 0 && p->bias ? p->bias + b->n0 + j : NULL;
        t.soon[0] = after + (ptrdiff_t)next * p->k;
        next = next + 1 < rows_after ? next + 1 : 0;
        t.soon[1] = after + (ptrdiff_t)next * p->k;
        next = next + 1 < rows_after ? next + 1 : 0;
        if (rows == TILE_ROWS)
            tile(&t);
        else
            tile_edge(rows, &t, TILE_X_ROW(p->k), 1, TILE_COLUMNS);
    }
}

static ALWAYS_INLINE void product_block(const struct row_product *p, const struct packed_block *b,
                                        float *copy, void (*tile)(const struct tile *), int tid)
{
    struct range own = share(p->m, ROW_GRANULE, tid);
    for (int i = own.begin; i < own.end; i += TILE_ROWS) {
        int left = own.end - i, after = left - TILE_ROWS;
        product_strip(p, b, i, left < TILE_ROWS ? left : TILE_ROWS,
                      after < TILE_ROWS ? after : TILE_ROWS, copy, tile);
    }
}

/* The block size that cuts n into the fewest parts of at most `most`, a multiple of `unit`. */
static inline int even_part(int n, int most, int unit)
{
    int parts = n > most ? (n + most - 1) / most : 1;
    return ((n + parts - 1) / parts + unit - 1) / unit * unit;
}

/* This thread's part of a product's scratch: all that it has, or what is behind `shared` floats
 * that the threads share. */
static ALWAYS_INLINE float *product_own(const struct row_product *p, int shared, int floats,
                                        int tid)
{
    return MATMUL_SHARE ? p->scratch + shared + (ptrdiff_t)tid * floats
                        : p->scratch + (ptrdiff_t)tid * MATMUL_THREAD;
}

static ALWAYS_INLINE void multiply_rows(const struct row_product *p, pack_fn *pack,
                                        void (*tile)(const struct tile *), int tid)
{
    float *own = product_own(p, 2 * MATMUL_BLOCK, MATMUL_COPY, tid);
    float *copy = MATMUL_SHARE ? own : own + MATMUL_BLOCK;
    int depth = even_part(p->k, TILE_DEPTH, TILE_AHEAD);
    int width = even_part(p->n, MATMUL_BLOCK / depth / TILE_COLUMNS * TILE_COLUMNS, TILE_COLUMNS);
    int first = MATMUL_SHARE ? tid : 0, step = MATMUL_SHARE ? THREADS : 1, turn = 0;
    /* Shared blocks alternate, so that one barrier each is enough; another kernel may still be
     * reading the first. */
    if (MATMUL_SHARE)
        team_barrier(tid);
    for (int n0 = 0; n0 < p->n; n0 += width)
        for (int k0 = 0; k0 < p->k; k0 += depth, turn = !turn) {
            float *packed = MATMUL_SHARE ? p->scratch + turn * MATMUL_BLOCK : own;
            struct packed_block b = {n0, p->n - n0 < width ? p->n - n0 : width, k0,
                                     p->k - k0 < depth ? p->k - k0 : depth, packed};
            for (int j = first * TILE_COLUMNS; j < b.n; j += step * TILE_COLUMNS)
                pack(packed + (ptrdiff_t)j * b.k, p->w + (n0 + j) * p->w_column + k0 * p->w_depth,
                     p->w_column > p->w_depth ? p->w_column : p->w_depth, b.k,
                     b.n - j < TILE_COLUMNS ? b.n - j : TILE_COLUMNS);
            if (MATMUL_SHARE)
                team_barrier(tid);
            product_block(p, &b, copy, tile, tid);
        }
}

/* dw[n][k] += dy[m][n]^T x[m][k]; scratch is this thread's. */
struct weight_gradient {
    float *dw, *dbias; /* dbias or NULL */
    const float *dy, *x;
    float *scratch;
    int m, n, k;
};

struct gradient_chunk {
    int m0, depth, next; /* rows of dy and x now, and the first one of those that follow */
    int k0, columns;     /* of x and dw */
    const float *packed; /* dy, gradient_pack */
    const float *edge;   /* [depth][TILE_COLUMNS]: the last columns of x, where they fill no tile */
};

static NOINLINE void gradient_tile(const struct tile *t, int rows, ptrdiff_t b_step)
{
    if (rows == TILE_ROWS)
        tile_product(TILE_ROWS, TILE_VECTORS, t, 1, GRADIENT_STEP, b_step);
    else if (rows == TILE_ROWS - 1)
        tile_product(TILE_ROWS - 1, TILE_VECTORS, t, 1, GRADIENT_STEP, b_step);
    else
        tile_edge(rows, t, 1, GRADIENT_STEP, b_step);
}

/* How rows of dw are cut: `high` tiles of low + 1 rows, then tiles of `low`, the last one shorter.
 */
struct gradient_tiles {
    int count, low, high;
};

static inline struct gradient_tiles gradient_cut(int rows)
{
    struct gradient_tiles t = {(rows + TILE_ROWS - 1) / TILE_ROWS, TILE_ROWS, 0};
    if (rows > 0 && rows / t.count >= TILE_ROWS - 1) {
        t.low = rows / t.count;
        t.high = rows % t.count;
    }
    return t;
}

/* Tile number t of the cut of rows [begin, end): where it starts. */
static inline int gradient_start(struct gradient_tiles tiles, int t, int begin, int end)
{
    int n = begin + t * tiles.low + (t < tiles.high ? t : tiles.high);
    return n < end ? n : end;
}

/* packed[tile][GRADIENT_DEPTH][GRADIENT_STEP] = dy[depth][n..] of the `count` tiles whose first
 * rows of dw are start[0..count]; row by row, since a row of dy is one piece of memory. Lanes
 * behind a tile's rows hold anything. */
static NOINLINE void gradient_pack(float *packed, const float *dy, int n, int depth,
                                   const int *start, int count)
{
    for (int r = 0; r < depth; r++, dy += n, packed += GRADIENT_STEP) {
        float *to = packed;
        for (int t = 0; t < count; t++, to += GRADIENT_DEPTH * GRADIENT_STEP) {
            const float *from = dy + start[t];
            int readable = n - start[t];
            UNROLL
            for (int v = 0; v < GRADIENT_STEP; v += VL)
                vf_store(to + v, readable >= v + VL ? vf_load(from + v)
                                                    : vf_load_part(from + v, readable - v));
        }
    }
}

/* dbias[rows] += column sums of packed[depth][GRADIENT_STEP]. */
static NOINLINE void gradient_bias(float *dbias, const float *packed, int depth, int rows)
{
    float sum[GRADIENT_STEP] = {0};
    for (int r = 0; r < depth; r++, packed += GRADIENT_STEP)
        for (int j = 0; j < GRADIENT_STEP; j += VL)
            vf_store(sum + j, vf_load(sum + j) + vf_load(packed + j));
    for (int j = 0; j < rows; j++)
        dbias[j] += sum[j];
}

/* Tile number `index` of its block: rows n.. of dw, the columns of the chunk. */
static NOINLINE void gradient_strip(const struct weight_gradient *g, const struct gradient_chunk *c,
                                    int index, int n, int rows)
{
    enum { LINES = TILE_COLUMNS > CACHE_LINE ? TILE_COLUMNS / CACHE_LINE : 1 };
    int slots = c->depth / TILE_AHEAD, row = 0, end = c->k0 + c->columns;
    struct tile t = {.a = c->packed + (ptrdiff_t)index * GRADIENT_DEPTH * GRADIENT_STEP,
                     .depth = c->depth,
                     .c_row = g->k,
                     .soon_step = {g->k, g->n}};
    /* What follows: of x, each tile fetches some rows of one line of its columns, and
     * GRADIENT_TILES of them all; of dy, the tiles of a strip together its columns. */
    ptrdiff_t x_soon =
        (ptrdiff_t)(c->next + index / LINES * slots) * g->k + index % LINES * CACHE_LINE;
    for (int j = c->k0; j < end; j += TILE_COLUMNS) {
        t.columns = end - j < TILE_COLUMNS ? end - j : TILE_COLUMNS;
        t.c = g->dw + (ptrdiff_t)n * g->k + j;
        t.add = t.c;
        t.soon[0] = g->x + x_soon + j;
        t.soon[1] = g->dy + (ptrdiff_t)(c->next + row) * g->n + n;
        row = row + 2 * slots <= c->depth ? row + slots : 0;
        if (t.columns == TILE_COLUMNS) {
            t.b = g->x + (ptrdiff_t)c->m0 * g->k + j;
            gradient_tile(&t, rows, g->k);
        } else {
            t.b = c->edge;
            gradient_tile(&t, rows, TILE_COLUMNS);
        }
    }
}

/* `count` tiles of rows of dw, from start[i] to start[i + 1]; all of m for one block of columns. */
static NOINLINE void gradient_block(const struct weight_gradient *g, int k0, int columns,
                                    const int *start, int count)
{
    float *packed = g->scratch, *edge = packed + GRADIENT_TILES * GRADIENT_DEPTH * GRADIENT_STEP;
    int full = columns / TILE_COLUMNS * TILE_COLUMNS;
    struct gradient_chunk c = {.k0 = k0, .columns = columns, .packed = packed, .edge = edge};
    for (c.m0 = 0; c.m0 < g->m; c.m0 += GRADIENT_DEPTH) {
        c.depth = g->m - c.m0 < GRADIENT_DEPTH ? g->m - c.m0 : GRADIENT_DEPTH;
        c.next = c.m0 + 2 * GRADIENT_DEPTH <= g->m ? c.m0 + GRADIENT_DEPTH : 0;
        gradient_pack(packed, g->dy + (ptrdiff_t)c.m0 * g->n, g->n, c.depth, start, count);
        if (full < columns)
            pack_copied(edge, g->x + (ptrdiff_t)c.m0 * g->k + k0 + full, g->k, c.depth,
                        columns - full);
        for (int t = 0; t < count; t++) {
            int rows = start[t + 1] - start[t];
            gradient_strip(g, &c, t, start[t], rows);
            if (g->dbias && k0 == 0)
                gradient_bias(g->dbias + start[t],
                              packed + (ptrdiff_t)t * GRADIENT_DEPTH * GRADIENT_STEP, c.depth,
                              rows);
        }
    }
}

/* Rows [rows.begin, rows.end) of dw. */
static NOINLINE void accumulate_gradient(const struct weight_gradient *g, struct range rows)
{
    struct gradient_tiles tiles = gradient_cut(rows.end - rows.begin);
    int most = even_part(tiles.count, GRADIENT_TILES, 1), start[GRADIENT_TILES + 1];
    int columns = even_part(g->k, GRADIENT_COLUMNS, TILE_COLUMNS);
    for (int t = 0; t < tiles.count; t += most) {
        int count = tiles.count - t < most ? tiles.count - t : most;
        for (int i = 0; i <= count; i++)
            start[i] = gradient_start(tiles, t + i, rows.begin, rows.end);
        for (int k0 = 0; k0 < g->k; k0 += columns)
            gradient_block(g, k0, g->k - k0 < columns ? g->k - k0 : columns, start, count);
    }
}

#if ARCH_AMX
#include "matmul_amx.h"
#endif

/* y = x b + .. and dw += dy^T x, on the tile unit where there is one. */
static ALWAYS_INLINE void product_rows(const struct row_product *p, pack_fn *pack,
                                       void (*tile)(const struct tile *), int tid)
{
#if ARCH_AMX
    (void)pack;
    (void)tile;
    amx_multiply_rows(p, tid);
#else
    multiply_rows(p, pack, tile, tid);
#endif
}

static ALWAYS_INLINE void gradient_rows(const struct weight_gradient *g, struct range rows)
{
#if ARCH_AMX
    amx_gradient(g, rows);
#else
    accumulate_gradient(g, rows);
#endif
}
#endif

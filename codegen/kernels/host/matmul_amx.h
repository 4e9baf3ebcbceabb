/* matmul_amx.h - the loops of matmul.h over the tile unit's products (amx.h). Both operands are
 * packed here: rows of x a strip of 32 at a time, which stays in the L1 and L2 caches while all
 * columns of a block pass it. NOTES-train.md has the reasons and the figures. */
#ifndef ARCH_MATMUL_AMX_H
#define ARCH_MATMUL_AMX_H

#include "amx.h"

/* The place of panel number `i` of panels that are `depth` deep. */
static ALWAYS_INLINE char *amx_panel(char *first, int i, int depth)
{
    return first + (ptrdiff_t)i * AMX_STEPS(depth) * AMX_STEP;
}

/* Panels that a block may have. */
static inline int amx_most(int depth)
{
    return AMX_KEPT * 4 / (AMX_STEPS(depth) * AMX_STEP);
}

static inline int amx_least(int a, int b)
{
    return a < b ? a : b;
}

/* Rows [i, i + rows) of y, times all columns of the block. */
static ALWAYS_INLINE void amx_strip(const struct row_product *p, const struct packed_block *b,
                                    int i, int rows, char *strip)
{
    amx_pack(AMX_A, strip, p->x + (ptrdiff_t)i * p->k + b->k0, p->k, rows, b->k);
    struct amx_product t = {.a = strip, .steps = AMX_STEPS(b->k), .rows = rows, .c_row = p->n};
    for (int j = 0; j < b->n; j += AMX_SIDE) {
        ptrdiff_t at = (ptrdiff_t)i * p->n + b->n0 + j;
        t.b = amx_panel((char *)(void *)b->packed, j / AMX_SIDE, b->k);
        t.columns = amx_least(b->n - j, AMX_SIDE);
        t.c = p->y + at;
        t.add = b->k0 > 0 ? t.c : p->add ? p->add + at : NULL;
        t.bias = b->k0 == 0 && p->bias ? p->bias + b->n0 + j : NULL;
        amx_multiply(&t);
    }
}

static NOINLINE void amx_multiply_rows(const struct row_product *p, int tid)
{
    struct range rows = share(p->m, ROW_GRANULE, tid);
    float *own = product_own(p, 2 * AMX_KEPT, AMX_STRIP, tid);
    float *strip = MATMUL_SHARE ? own : own + AMX_KEPT;
    int depth = even_part(p->k, AMX_DEPTH, AMX_SIDE);
    int width = even_part(p->n, amx_most(depth) * AMX_SIDE, AMX_SIDE);
    int first = MATMUL_SHARE ? tid : 0, step = MATMUL_SHARE ? THREADS : 1, turn = 0;
    bool down = p->w_column < p->w_depth;
    ptrdiff_t stride = down ? p->w_depth : p->w_column;
    amx_begin();
    if (MATMUL_SHARE) /* as in multiply_rows */
        team_barrier(tid);
    for (int n0 = 0; n0 < p->n; n0 += width)
        for (int k0 = 0; k0 < p->k; k0 += depth, turn = !turn) {
            float *packed = MATMUL_SHARE ? p->scratch + turn * AMX_KEPT : own;
            struct packed_block b = {n0, amx_least(p->n - n0, width), k0,
                                     amx_least(p->k - k0, depth), packed};
            for (int j = first * AMX_SIDE; j < b.n; j += step * AMX_SIDE)
                amx_pack(down ? AMX_B : AMX_B_TURNED,
                         amx_panel((char *)(void *)packed, j / AMX_SIDE, b.k),
                         p->w + (n0 + j) * p->w_column + k0 * p->w_depth, stride,
                         amx_least(b.n - j, AMX_SIDE), b.k);
            if (MATMUL_SHARE)
                team_barrier(tid);
            for (int i = rows.begin; i < rows.end; i += AMX_SIDE)
                amx_strip(p, &b, i, amx_least(rows.end - i, AMX_SIDE), (char *)(void *)strip);
        }
    amx_end();
}

/* dbias[rows] += column sums of `depth` rows of dy from m0. */
static NOINLINE void amx_bias(const struct weight_gradient *g, struct range rows, int m0, int depth)
{
    for (int j = rows.begin; j < rows.end; j += VL) {
        int have = amx_least(rows.end - j, VL);
        vf sum = {0};
        for (int r = m0; r < m0 + depth; r++)
            sum += vf_load_part(g->dy + (ptrdiff_t)r * g->n + j, have);
        vf_store_part(g->dbias + j, vf_load_part(g->dbias + j, have) + sum, have);
    }
}

/* Panel number `i` of dy^T (a) or of x (b), `side` wide from column `at`; rows m0.. */
static ALWAYS_INLINE void amx_gradient_pack(const struct weight_gradient *g, bool is_x, char *to,
                                            int at, int side, int m0, int depth)
{
    if (is_x)
        amx_pack(AMX_B, to, g->x + (ptrdiff_t)m0 * g->k + at, g->k, side, depth);
    else
        amx_pack(AMX_A_TURNED, to, g->dy + (ptrdiff_t)m0 * g->n + at, g->n, side, depth);
}

/* Rows [rows.begin, rows.end) of dw += those of dy^T x. The operand with fewer columns is kept in
 * the L2 cache, so that each is packed once where one block holds it. */
static NOINLINE void amx_gradient(const struct weight_gradient *g, struct range rows)
{
    int n = rows.end - rows.begin, depth = even_part(g->m, AMX_GRADIENT_DEPTH, AMX_SIDE);
    bool keep_x = g->k <= n;
    int kept_n = keep_x ? g->k : n, strips_n = keep_x ? n : g->k;
    int width = even_part(kept_n, amx_most(depth) * AMX_SIDE, AMX_SIDE);
    char *kept = (char *)(void *)g->scratch;
    char *strip = (char *)(void *)(g->scratch + AMX_KEPT);
    int kept_at = keep_x ? 0 : rows.begin, strip_at = keep_x ? rows.begin : 0;
    amx_begin();
    for (int m0 = 0; m0 < g->m; m0 += depth) {
        int deep = amx_least(g->m - m0, depth);
        if (g->dbias)
            amx_bias(g, rows, m0, deep);
        for (int j0 = 0; j0 < kept_n; j0 += width) {
            int end = amx_least(kept_n, j0 + width);
            for (int j = j0; j < end; j += AMX_SIDE)
                amx_gradient_pack(g, keep_x, amx_panel(kept, (j - j0) / AMX_SIDE, deep),
                                  kept_at + j, amx_least(end - j, AMX_SIDE), m0, deep);
            for (int i = 0; i < strips_n; i += AMX_SIDE) {
                int side = amx_least(strips_n - i, AMX_SIDE);
                amx_gradient_pack(g, !keep_x, strip, strip_at + i, side, m0, deep);
                for (int j = j0; j < end; j += AMX_SIDE) {
                    char *panel = amx_panel(kept, (j - j0) / AMX_SIDE, deep);
                    int other = amx_least(end - j, AMX_SIDE);
                    float *dw = g->dw + (ptrdiff_t)(keep_x ? strip_at + i : kept_at + j) * g->k +
                                (keep_x ? j : i);
                    struct amx_product t = {.a = keep_x ? strip : panel,
                                            .b = keep_x ? panel : strip,
                                            .steps = AMX_STEPS(deep),
                                            .rows = keep_x ? side : other,
                                            .columns = keep_x ? other : side,
                                            .c = dw,
                                            .add = dw,
                                            .c_row = g->k};
                    amx_multiply(&t);
                }
            }
        }
    }
    amx_end();
}
#endif

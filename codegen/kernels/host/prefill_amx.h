/* prefill_amx.h - products with packed weights (weights.h) on the tile unit.
 *
 * A panel of bf16 weights is a column of tiles as it lies: nothing is packed, and bf16 being exact,
 * x in three parts makes three products where fp32 weights take six. fp32 and int8 weights become
 * fp32 in three parts, a block at a time in the L2 cache. */
#ifndef ARCH_PREFILL_AMX_H
#define ARCH_PREFILL_AMX_H

#include "matmul_amx.h"
#include "weights.h"

/* A panel of b (amx.h) from columns [at, at + side) of a packed matrix, k in [begin, begin +
 * depth).
 */
static ALWAYS_INLINE void amx_weights_pack(int type, char *to, const char *w, int k, int at,
                                           int side, int begin, int depth)
{
    float block[QUANT_BLOCK * PANEL];
    for (int half = 0; half < side; half += PANEL, to += AMX_PIECE) {
        const char *panel = w + (size_t)((at + half) / PANEL) * PANEL_BYTES(type, k);
        for (int c = 0; c < depth; c += QUANT_BLOCK) {
            int have = amx_least(depth - c, QUANT_BLOCK);
            const float *rows = (const float *)(const void *)panel + (size_t)(begin + c) * PANEL;
            if (type != WEIGHTS_F32) {
                panel_floats(type, block, PANEL, panel, 0, begin + c, begin + c + have);
                rows = block;
            }
            for (int s = 0; s < have; s += AMX_SIDE)
                amx_piece_columns(to + (ptrdiff_t)(c + s) / AMX_SIDE * AMX_STEP, rows + s * PANEL,
                                  PANEL, PANEL, have - s);
        }
    }
}

/* Columns [n0, n0 + n) of one packed matrix of `k` columns in memory, k in [k0, k0 + depth). */
struct amx_weights {
    const char *w, *packed; /* packed: not of bf16 */
    int type, k, n0, n, k0, depth;
};

/* Rows [i, i + rows) of y times all columns of the block; y's columns start at `at`. */
static ALWAYS_INLINE void amx_prefill_strip(const struct row_product *p,
                                            const struct amx_weights *b, int at, int i, int rows,
                                            char *strip)
{
    amx_pack(AMX_A, strip, p->x + (ptrdiff_t)i * p->k + b->k0, p->k, rows, b->depth);
    int steps = AMX_STEPS(b->depth), pairs = (b->depth - (steps - 1) * AMX_SIDE + 1) / 2;
    struct amx_product t = {
        .a = strip, .steps = steps, .pairs = pairs, .rows = rows, .c_row = p->n};
    for (int j = 0; j < b->n; j += AMX_SIDE) {
        ptrdiff_t c = (ptrdiff_t)i * p->n + at + j;
        t.columns = amx_least(b->n - j, AMX_SIDE);
        if (b->type == WEIGHTS_BF16) {
            size_t panel = PANEL_BYTES(WEIGHTS_BF16, b->k);
            t.b = b->w + (size_t)((b->n0 + j) / PANEL) * panel + (size_t)b->k0 * 32;
            t.b2 = t.b + panel; /* not read where there are no columns of it */
        } else {
            t.b = amx_panel((char *)(void *)b->packed, j / AMX_SIDE, b->depth);
        }
        t.c = p->y + c;
        t.add = b->k0 > 0 ? t.c : p->add ? p->add + c : NULL;
        t.bias = b->k0 == 0 && p->bias ? p->bias + at + j : NULL;
        amx_multiply(&t);
    }
}

/* Columns [begin, end) of a packed matrix, for `rows` of x; y's columns of it start at `at`. */
static ALWAYS_INLINE void amx_prefill(const struct row_product *p, int type, const char *w, int at,
                                      int begin, int end, struct range rows, float *scratch)
{
    char *packed = (char *)(void *)scratch, *strip = (char *)(void *)(scratch + AMX_KEPT);
    int depth = even_part(p->k, AMX_DEPTH, QUANT_BLOCK);
    int most = type == WEIGHTS_BF16 ? AMX_KEPT * 2 / depth / AMX_SIDE : amx_most(depth);
    for (int n0 = begin; n0 < end; n0 += most * AMX_SIDE) {
        struct amx_weights b = {.w = w,
                                .packed = packed,
                                .type = type,
                                .k = p->k,
                                .n0 = n0,
                                .n = amx_least(end - n0, most * AMX_SIDE)};
        for (b.k0 = 0; b.k0 < p->k; b.k0 += depth) {
            b.depth = amx_least(p->k - b.k0, depth);
            for (int j = 0; type != WEIGHTS_BF16 && j < b.n; j += AMX_SIDE)
                amx_weights_pack(type, amx_panel(packed, j / AMX_SIDE, b.depth), w, p->k, n0 + j,
                                 amx_least(b.n - j, AMX_SIDE), b.k0, b.depth);
            for (int i = rows.begin; i < rows.end; i += AMX_SIDE)
                amx_prefill_strip(p, &b, at + n0, i, amx_least(rows.end - i, AMX_SIDE), strip);
        }
    }
}
#endif

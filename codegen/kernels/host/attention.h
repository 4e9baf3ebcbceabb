/* attention.h - what attention.c and attention_backward.c share: their blocks and scratch, packing
 * of one kv head, and the softmax of a strip of scores. */
#ifndef ARCH_ATTENTION_H
#define ARCH_ATTENTION_H

#include "matmul.h"

enum {
    ATTENTION_KEYS = 256, /* scored at once; a multiple of every TILE_COLUMNS but NEON's 12 */
    ATTENTION_KEYS_UP = (ATTENTION_KEYS + TILE_COLUMNS - 1) / TILE_COLUMNS * TILE_COLUMNS,
    ATTENTION_ROW = ATTENTION_KEYS_UP + 16, /* of a strip of scores: an odd number of lines */
    ATTENTION_FORWARD_QUERIES =
        4 * TILE_ROWS,                /* that share a block of keys while it is in L1, L2 */
    ATTENTION_QUERIES = 8 * TILE_ROWS /* the depth of the products for dk and dv */
};

/* n rounded up to whole panels. */
#define ATTENTION_UP(n) (((n) + TILE_COLUMNS - 1) / TILE_COLUMNS * TILE_COLUMNS)
#define ATTENTION_BLOCKS(t) (((t) + ATTENTION_KEYS - 1) / ATTENTION_KEYS)
/* One packed operand of one kv head, T x E. */
#define ATTENTION_PACKED(t, e)                                                                     \
    ((size_t)ATTENTION_BLOCKS(t) * ATTENTION_KEYS_UP * (size_t)ATTENTION_UP(e))
/* Floats of one thread for T tokens and head_dim E, forward and backward. */
#define ATTENTION_FORWARD_SCRATCH(t, e)                                                            \
    (2 * ATTENTION_PACKED(t, e) + (size_t)TILE_ROWS * ATTENTION_ROW +                              \
     (size_t)ATTENTION_FORWARD_QUERIES * (ATTENTION_UP(e) + 2) + 64)
#define ATTENTION_BACKWARD_SCRATCH(t, e)                                                           \
    (3 * ATTENTION_PACKED(t, e) + 2 * ((size_t)(t) + ATTENTION_KEYS_UP) * ATTENTION_UP(e) +        \
     (size_t)ATTENTION_QUERIES * (2 * ATTENTION_ROW + 3 * (size_t)ATTENTION_UP(e) + 1) + 64)
#define ATTENTION_SCRATCH_FLOATS(t, e)                                                             \
    ((ATTENTION_BACKWARD_SCRATCH(t, e) + 15) / 16 * 16) /* the larger of the two */

/* This thread's part of batch x heads items: all items of whole sequences where rows are split by
 * sequences, so that what a thread reads and writes are its own rows; else any items. */
static inline struct range attention_share(int batch, int t, int heads, int tid)
{
    struct range own = share(batch * heads, 1, tid);
    if (ROW_GRANULE == t) {
        struct range rows = share(batch * t, t, tid);
        own.begin = rows.begin / t * heads;
        own.end = rows.end / t * heads;
    }
    return own;
}

/* Keys [k0, k0 + keys) of a block as b of scores: panels [keys / COLUMNS][E][COLUMNS]. */
static NOINLINE void attention_pack_scores(float *packed, const float *rows, int stride, int keys,
                                           int e)
{
    for (int j = 0; j < keys; j += TILE_COLUMNS)
        pack_transposed(packed + (ptrdiff_t)j * e, rows + (ptrdiff_t)j * stride, stride, e,
                        keys - j < TILE_COLUMNS ? keys - j : TILE_COLUMNS);
}

/* Rows [count][E] as b of sums over them: panels [E / COLUMNS][count][COLUMNS]. */
static NOINLINE void attention_pack_sums(float *packed, const float *rows, int stride, int count,
                                         int e)
{
    for (int j = 0; j < e; j += TILE_COLUMNS)
        pack_copied(packed + (ptrdiff_t)j * count, rows + j, stride, count,
                    e - j < TILE_COLUMNS ? e - j : TILE_COLUMNS);
}

/* Keys of the block from k0 that query q sees. */
static inline int attention_seen(int q, int k0)
{
    int seen = q + 1 - k0;
    return seen < 0 ? 0 : seen > ATTENTION_KEYS ? ATTENTION_KEYS : seen;
}

/* All ones in the lanes from j on that are below n. */
static ALWAYS_INLINE vi attention_mask(int j, int n)
{
    vi lane;
    UNROLL
    for (int i = 0; i < VL; i++)
        lane[i] = i;
    return lane + j < n;
}

/* One row of scores becomes its terms e^(scale s - top): `seen` of them, zeros up to `width`. top
 * and sum are those of the row so far; returns what its earlier terms must be multiplied by. */
static NOINLINE float attention_softmax(float *s, int seen, int width, float scale, float *top,
                                        float *sum)
{
    vf most = vf_set(-INFINITY), total = {0};
    if (seen == 0) {
        memset(s, 0, sizeof(float) * width);
        return 1;
    }
    for (int j = 0; j < seen; j += VL)
        most = vf_max(vf_select(attention_mask(j, seen), vf_load(s + j), most), most);
    float before = *top, now = vf_top(most) * scale;
    now = now > before ? now : before;
    int j = 0;
    for (; j < seen; j += VL) {
        vf term = vf_exp(vf_load(s + j) * scale - now);
        term = vf_select(attention_mask(j, seen), term, (vf){0});
        vf_store(s + j, term);
        total += term;
    }
    for (; j < width; j++)
        s[j] = 0;
    float factor = before > -INFINITY ? expf(before - now) : 0;
    *top = now;
    *sum = *sum * factor + vf_sum(total);
    return factor;
}

/* p becomes e^(scale p - lse) and ds, the gradients of p, those of the scores before scaling:
 * p (ds - dot) scale; both 0 from `seen` to `width`. */
static NOINLINE void attention_gradient(float *p, float *ds, int seen, int width, float scale,
                                        float lse, float dot)
{
    int j = 0;
    for (; j < seen; j += VL) {
        vi mask = attention_mask(j, seen);
        vf term = vf_exp(vf_load(p + j) * scale - lse);
        vf gradient = term * (vf_load(ds + j) - dot) * scale;
        vf_store(p + j, vf_select(mask, term, (vf){0}));
        vf_store(ds + j, vf_select(mask, gradient, (vf){0}));
    }
    for (; j < width; j++)
        p[j] = ds[j] = 0;
}

/* Sum of a[e] b[e]. */
static NOINLINE float attention_dot(const float *a, const float *b, int e)
{
    vf sum = {0};
    float rest = 0;
    int j = 0;
    for (; j + VL <= e; j += VL)
        sum += vf_load(a + j) * vf_load(b + j);
    for (; j < e; j++)
        rest += a[j] * b[j];
    return rest + vf_sum(sum);
}

/* c[rows][columns] = a b (+ add) over t->depth; b starts in panels of `panel` floats. tile() has
 * the steps of a built in. */
static ALWAYS_INLINE void attention_product(const struct tile *t, ptrdiff_t panel, int rows,
                                            int columns, ptrdiff_t a_row, ptrdiff_t a_step,
                                            void (*tile)(const struct tile *))
{
    struct tile one = *t;
    one.soon[0] = one.soon[1] = one.a;
    for (int j = 0; j < columns; j += TILE_COLUMNS) {
        one.columns = columns - j < TILE_COLUMNS ? columns - j : TILE_COLUMNS;
        if (rows == TILE_ROWS)
            tile(&one);
        else
            tile_edge(rows, &one, a_row, a_step, TILE_COLUMNS);
        one.b += panel;
        one.c += TILE_COLUMNS;
        if (one.add)
            one.add += TILE_COLUMNS;
    }
}

/* a is a strip of terms by rows, or by columns. */
static NOINLINE void attention_tile_rows(const struct tile *t)
{
    tile_product(TILE_ROWS, TILE_VECTORS, t, ATTENTION_ROW, 1, TILE_COLUMNS);
}

static NOINLINE void attention_tile_columns(const struct tile *t)
{
    tile_product(TILE_ROWS, TILE_VECTORS, t, 1, ATTENTION_ROW, TILE_COLUMNS);
}
#endif

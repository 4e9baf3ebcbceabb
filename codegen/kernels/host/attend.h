/* attend.h - attention of a few query rows over the cache of one kv head, for prefill and decode;
 * and the head norm and rotation that come before it.
 *
 * Rows are query heads of one kv head, at one position (decode) or at several (prefill). Keys are
 * taken ATTEND_KEYS at a time: scores, online softmax (running maximum and sum a row), and the sum
 * of values, all from the L1 cache. Nothing of the size of the context is materialised. */
#ifndef ARCH_ATTEND_H
#define ARCH_ATTEND_H

#include "kvcache.h"

enum {
    ATTEND_HEAD = 256, /* largest head_dim */
    /* A register tile: rows x vectors sums, for scores (vectors of keys) and values (of E). */
    ATTEND_VECTORS = 4,
#if defined(__AVX512F__) || defined(__aarch64__)
    ATTEND_TILE = 4,
#else
    ATTEND_TILE = 2,
#endif
};

/* Vectors of E: the last one may overlap the one before it. */
#define ATTEND_CHUNKS(e) (((e) + VL - 1) / VL)

/* The state of `rows` rows in ATTEND_FLOATS(rows, e) floats. */
struct attend {
    int e, rows;
    float *q;     /* [rows][WIDTH], scaled by 1 / sqrt(E) */
    float *sum;   /* [rows][WIDTH]: chunk j holds lanes from attend_lane(e, j) on */
    float *most;  /* [rows] largest score so far */
    float *total; /* [rows] sum of e^(score - most) */
    float *fade;  /* [rows] what the block at hand makes of earlier sums */
    float *score; /* [rows][ATTEND_KEYS] */
};

static ALWAYS_INLINE struct attend attend_state(float *scratch, int rows, int e)
{
    struct attend a = {.e = e, .rows = rows, .q = scratch};
    a.sum = a.q + (size_t)rows * ATTEND_WIDTH(e);
    a.score = a.sum + (size_t)rows * ATTEND_WIDTH(e);
    a.most = a.score + (size_t)rows * ATTEND_KEYS;
    a.total = a.most + rows;
    a.fade = a.total + rows;
    return a;
}

static ALWAYS_INLINE void attend_begin(const struct attend *a)
{
    memset(a->sum, 0, sizeof(float) * (size_t)a->rows * ATTEND_WIDTH(a->e));
    for (int r = 0; r < a->rows; r++) {
        a->most[r] = -INFINITY;
        a->total[r] = 0;
    }
}

/* The first of the E lanes that chunk j holds. */
static ALWAYS_INLINE int attend_lane(int e, int j)
{
    return e < VL ? 0 : j * VL + VL <= e ? j * VL : e - VL;
}

/* score[rows][16 panels] of `panels` panels of keys. */
static ALWAYS_INLINE void attend_score_tile(const struct attend *a, int rows, int panels,
                                            const float *q, float *score, const char *keys,
                                            size_t at)
{
    vf s[ATTEND_TILE * ATTEND_VECTORS] = {0};
    const int width = ATTEND_WIDTH(a->e), vectors = panels * PANEL_VECTORS;
    UNROLL_4
    for (int e = 0; e < a->e; e++) {
        vf k[ATTEND_VECTORS];
        FOREACH(v, vectors)
        k[v] = kv_load(keys, at + ((size_t)(v / PANEL_VECTORS) * (size_t)a->e + (size_t)e) * PANEL +
                                 (size_t)(v % PANEL_VECTORS) * VL);
        FOREACH(r, rows)
        {
            vf qs = vf_set(q[r * width + e]);
            FOREACH(v, vectors) s[r * ATTEND_VECTORS + v] += k[v] * qs;
        }
    }
    FOREACH(r, rows)
    {
        FOREACH(v, vectors)
        vf_store(score + r * ATTEND_KEYS + v * VL, s[r * ATTEND_VECTORS + v]);
    }
}

static ALWAYS_INLINE void attend_score_rows(const struct attend *a, int from, int panels, int j,
                                            const char *keys, size_t at)
{
    int r = from;
    const int width = ATTEND_WIDTH(a->e);
    for (; r + ATTEND_TILE <= a->rows; r += ATTEND_TILE)
        attend_score_tile(a, ATTEND_TILE, panels, a->q + r * width, a->score + r * ATTEND_KEYS + j,
                          keys, at);
    for (; r < a->rows; r++)
        attend_score_tile(a, 1, panels, a->q + r * width, a->score + r * ATTEND_KEYS + j, keys, at);
}

/* Scores of rows [from, rows) for n keys from k0, a multiple of 16, on; whole panels. */
static ALWAYS_INLINE void attend_scores(const struct attend *a, int from, const char *keys, int k0,
                                        int n)
{
    enum { MANY = ATTEND_VECTORS / PANEL_VECTORS };
    int j = 0;
    for (; MANY > 1 && j + (MANY - 1) * PANEL < n; j += MANY * PANEL)
        attend_score_rows(a, from, MANY, j, keys, (size_t)(k0 + j) * (size_t)a->e);
    for (; j < n; j += PANEL)
        attend_score_rows(a, from, 1, j, keys, (size_t)(k0 + j) * (size_t)a->e);
}

/* Scores of one row become weights e^(score - most); keys from `seen` on do not count. */
static ALWAYS_INLINE void attend_softmax(const struct attend *a, int r, int seen, int n)
{
    float *score = a->score + r * ATTEND_KEYS;
    int whole = (n + VL - 1) / VL * VL;
    for (int j = seen; j < whole; j++)
        score[j] = -INFINITY;
    vf top = vf_set(a->most[r]);
    for (int j = 0; j < whole; j += VL)
        top = vf_max(vf_load(score + j), top);
    float most = vf_top(top);
    vf total = vf_set(0);
    for (int j = 0; j < whole; j += VL) {
        vf p = vf_exp(vf_load(score + j) - vf_set(most));
        vf_store(score + j, p);
        total += p;
    }
    float fade = expf(a->most[r] - most);
    a->fade[r] = fade;
    a->total[r] = a->total[r] * fade + vf_sum(total);
    a->most[r] = most;
}

/* sum[rows][vectors] from chunk j on = fade sum + weights values. */
static ALWAYS_INLINE void attend_value_tile(const struct attend *a, int r0, int rows, int j,
                                            int vectors, const char *values, int k0, int n)
{
    vf s[ATTEND_TILE * ATTEND_VECTORS];
    const int width = ATTEND_WIDTH(a->e);
    float *sum = a->sum + r0 * width + j * VL;
    const float *p = a->score + r0 * ATTEND_KEYS;
    size_t lane[ATTEND_VECTORS];
    FOREACH(v, vectors) lane[v] = (size_t)attend_lane(a->e, j + v);
    FOREACH(r, rows)
    {
        vf fade = vf_set(a->fade[r0 + r]);
        FOREACH(v, vectors)
        s[r * ATTEND_VECTORS + v] = vf_load(sum + r * width + v * VL) * fade;
    }
    for (int key = 0; key < n; key++) {
        size_t at = (size_t)(k0 + key) * (size_t)a->e;
        vf x[ATTEND_VECTORS];
        FOREACH(v, vectors)
        x[v] = a->e < VL ? kv_load_part(values, at, a->e) : kv_load(values, at + lane[v]);
        FOREACH(r, rows)
        {
            vf weight = vf_set(p[r * ATTEND_KEYS + key]);
            FOREACH(v, vectors) s[r * ATTEND_VECTORS + v] += x[v] * weight;
        }
    }
    FOREACH(r, rows)
    {
        FOREACH(v, vectors) vf_store(sum + r * width + v * VL, s[r * ATTEND_VECTORS + v]);
    }
}

static ALWAYS_INLINE void attend_value_rows(const struct attend *a, int from, int j, int vectors,
                                            const char *values, int k0, int n)
{
    int r = from;
    for (; r + ATTEND_TILE <= a->rows; r += ATTEND_TILE)
        attend_value_tile(a, r, ATTEND_TILE, j, vectors, values, k0, n);
    for (; r < a->rows; r++)
        attend_value_tile(a, r, 1, j, vectors, values, k0, n);
}

static ALWAYS_INLINE void attend_values(const struct attend *a, int from, const char *values,
                                        int k0, int n)
{
    int j = 0, chunks = ATTEND_CHUNKS(a->e);
    for (; j + ATTEND_VECTORS <= chunks; j += ATTEND_VECTORS)
        attend_value_rows(a, from, j, ATTEND_VECTORS, values, k0, n);
    if (chunks - j == 3)
        attend_value_rows(a, from, j, 3, values, k0, n);
    else if (chunks - j == 2)
        attend_value_rows(a, from, j, 2, values, k0, n);
    else if (chunks - j == 1)
        attend_value_rows(a, from, j, 1, values, k0, n);
}

/* All rows over n <= ATTEND_KEYS keys from k0, a multiple of 16, on. Row r sees keys below
 * seen + r / group; rows that see none are left alone. n is what the last row sees of this block.
 */
static ALWAYS_INLINE void attend_block(const struct attend *a, int group, int seen,
                                       const char *keys, const char *values, int k0, int n)
{
    int from = 0;
    while (seen + from / group <= k0)
        from += group;
    attend_scores(a, from, keys, k0, n);
    for (int r = from; r < a->rows; r++) {
        int mine = seen + r / group - k0;
        attend_softmax(a, r, mine < n ? mine : n, n);
    }
    attend_values(a, from, values, k0, n);
}

/* One row's result: att[E] = factor x sum. */
static ALWAYS_INLINE void attend_store(const struct attend *a, int r, float *att, float factor)
{
    const float *sum = a->sum + r * ATTEND_WIDTH(a->e);
    if (a->e < VL) {
        for (int i = 0; i < a->e; i++)
            att[i] = sum[i] * factor;
        return;
    }
    for (int j = 0; j < ATTEND_CHUNKS(a->e); j++)
        vf_store(att + attend_lane(a->e, j), vf_load(sum + j * VL) * vf_set(factor));
}

/* Cosines and sines of one position, apart and scaled. */
struct turn {
    float cosine[ATTEND_HEAD / 2], sine[ATTEND_HEAD / 2];
};

static ALWAYS_INLINE void turn_load(struct turn *t, const float *rope, int position, int e)
{
    const float *from = rope + (size_t)position * (size_t)e;
    for (int i = 0; i < e / 2; i++) {
        t->cosine[i] = from[2 * i];
        t->sine[i] = from[2 * i + 1];
    }
}

/* One head: to[E] = rotated (x / rms(x) gain) scale; gain NULL: no norm. to may be x. */
static ALWAYS_INLINE void turn_head(const struct turn *t, float *to, const float *x,
                                    const float *gain, float eps, int e, float scale)
{
    const int half = e / 2;
    float by = scale;
    if (gain) {
        float squares = 0;
        for (int i = 0; i < e; i++)
            squares += x[i] * x[i];
        by = scale / sqrtf(squares / (float)e + eps);
    }
    for (int i = 0; i < half; i++) {
        float a = x[i] * by, b = x[half + i] * by;
        if (gain) {
            a *= gain[i];
            b *= gain[half + i];
        }
        to[i] = a * t->cosine[i] - b * t->sine[i];
        to[half + i] = b * t->cosine[i] + a * t->sine[i];
    }
}

#endif

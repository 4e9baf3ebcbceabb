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
    float *total; /* [rows][16] sums of e^(score - most), by vector lane */
    float *most;  /* [rows] largest score so far */
    float *score; /* [ATTEND_TILE][ATTEND_KEYS] */
};

static ALWAYS_INLINE struct attend attend_state(float *scratch, int rows, int e)
{
    struct attend a = {.e = e, .rows = rows, .q = scratch};
    a.sum = a.q + (size_t)rows * ATTEND_WIDTH(e);
    a.total = a.sum + (size_t)rows * ATTEND_WIDTH(e);
    a.score = a.total + (size_t)rows * 16;
    a.most = a.score + ATTEND_TILE_MOST * ATTEND_KEYS;
    return a;
}

static ALWAYS_INLINE void attend_begin(const struct attend *a)
{
    memset(a->sum, 0, sizeof(float) * (size_t)a->rows * (ATTEND_WIDTH(a->e) + 16));
    for (int r = 0; r < a->rows; r++)
        a->most[r] = -INFINITY;
}

static ALWAYS_INLINE float attend_total(const struct attend *a, int r)
{
    return vf_sum(vf_load(a->total + r * 16));
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

/* Scores of rows from r on for n keys from k0, a multiple of 16, on; whole panels. */
static ALWAYS_INLINE void attend_scores(const struct attend *a, int r, int rows, const char *keys,
                                        int k0, int n)
{
    enum { MANY = ATTEND_VECTORS / PANEL_VECTORS };
    const float *q = a->q + r * ATTEND_WIDTH(a->e);
    size_t at = (size_t)k0 * (size_t)a->e, step = (size_t)PANEL * (size_t)a->e;
    int j = 0;
    for (; MANY > 1 && j + (MANY - 1) * PANEL < n; j += MANY * PANEL, at += MANY * step)
        attend_score_tile(a, rows, MANY, q, a->score + j, keys, at);
    for (; j < n; j += PANEL, at += step)
        attend_score_tile(a, rows, 1, q, a->score + j, keys, at);
}

/* Scores of rows from r on become weights e^(score - most); row i sees `seen[i]` of the n keys.
 * fade[i] is what becomes of the row's earlier sums. */
static ALWAYS_INLINE void attend_softmax(const struct attend *a, int r, int rows, const int *seen,
                                         int n, float *fade)
{
    int whole = (n + VL - 1) / VL * VL;
    float now[ATTEND_TILE];
    FOREACH(i, rows)
    {
        float *score = a->score + i * ATTEND_KEYS;
        for (int j = seen[i]; j < whole; j++)
            score[j] = -INFINITY;
        vf top = vf_load(score);
        for (int j = VL; j < whole; j += VL)
            top = vf_max(vf_load(score + j), top);
        float most = vf_top(top), before = a->most[r + i];
        now[i] = most > before ? most : before;
    }
    FOREACH(i, rows)
    {
        float *score = a->score + i * ATTEND_KEYS;
        vf most = vf_set(now[i]), share = vf_exp(vf_set(a->most[r + i]) - most);
        vf total = vf_load(a->total + (r + i) * 16) * share;
        for (int j = 0; j < whole; j += VL) {
            vf p = vf_exp(vf_load(score + j) - most);
            vf_store(score + j, p);
            total += p;
        }
        vf_store(a->total + (r + i) * 16, total);
        a->most[r + i] = now[i];
        fade[i] = share[0];
    }
}

/* sum[rows][vectors] from chunk j on = fade sum + weights values. */
static ALWAYS_INLINE void attend_value_tile(const struct attend *a, int r0, int rows, int j,
                                            int vectors, const char *values, int k0, int n,
                                            const float *fade)
{
    vf s[ATTEND_TILE * ATTEND_VECTORS];
    const int width = ATTEND_WIDTH(a->e);
    float *sum = a->sum + r0 * width + j * VL;
    size_t lane[ATTEND_VECTORS];
    FOREACH(v, vectors) lane[v] = (size_t)attend_lane(a->e, j + v);
    FOREACH(r, rows)
    {
        FOREACH(v, vectors)
        s[r * ATTEND_VECTORS + v] = vf_load(sum + r * width + v * VL) * vf_set(fade[r]);
    }
    for (int key = 0; key < n; key++) {
        size_t at = (size_t)(k0 + key) * (size_t)a->e;
        vf x[ATTEND_VECTORS];
        FOREACH(v, vectors)
        x[v] = a->e < VL ? kv_load_part(values, at, a->e) : kv_load(values, at + lane[v]);
        FOREACH(r, rows)
        {
            vf weight = vf_set(a->score[r * ATTEND_KEYS + key]);
            FOREACH(v, vectors) s[r * ATTEND_VECTORS + v] += x[v] * weight;
        }
    }
    FOREACH(r, rows)
    {
        FOREACH(v, vectors) vf_store(sum + r * width + v * VL, s[r * ATTEND_VECTORS + v]);
    }
}

static ALWAYS_INLINE void attend_values(const struct attend *a, int r, int rows, const char *values,
                                        int k0, int n, const float *fade)
{
    int j = 0, chunks = ATTEND_CHUNKS(a->e);
    for (; j + ATTEND_VECTORS <= chunks; j += ATTEND_VECTORS)
        attend_value_tile(a, r, rows, j, ATTEND_VECTORS, values, k0, n, fade);
    if (chunks - j == 3)
        attend_value_tile(a, r, rows, j, 3, values, k0, n, fade);
    else if (chunks - j == 2)
        attend_value_tile(a, r, rows, j, 2, values, k0, n, fade);
    else if (chunks - j == 1)
        attend_value_tile(a, r, rows, j, 1, values, k0, n, fade);
}

static ALWAYS_INLINE void attend_rows(const struct attend *a, int r, int rows, int group, int seen,
                                      const char *keys, const char *values, int k0, int n)
{
    float fade[ATTEND_TILE];
    int mine[ATTEND_TILE];
    FOREACH(i, rows)
    {
        int to = seen + (r + i) / group - k0;
        mine[i] = to < n ? to : n;
    }
    attend_scores(a, r, rows, keys, k0, n);
    attend_softmax(a, r, rows, mine, n, fade);
    attend_values(a, r, rows, values, k0, n, fade);
}

/* All rows over n <= ATTEND_KEYS keys from k0, a multiple of 16, on. Row r sees keys below
 * seen + r / group; rows that see none are left alone. n is what the last row sees of this block.
 * A tile of rows goes through all three steps while its scores are in the L1 cache. */
static ALWAYS_INLINE void attend_block(const struct attend *a, int group, int seen,
                                       const char *keys, const char *values, int k0, int n)
{
    int r = 0;
    while (seen + r / group <= k0)
        r += group;
    for (; r + ATTEND_TILE <= a->rows; r += ATTEND_TILE)
        attend_rows(a, r, ATTEND_TILE, group, seen, keys, values, k0, n);
    if (ATTEND_TILE > 2 && r + 2 <= a->rows) {
        attend_rows(a, r, 2, group, seen, keys, values, k0, n);
        r += 2;
    }
    if (r < a->rows)
        attend_rows(a, r, 1, group, seen, keys, values, k0, n);
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

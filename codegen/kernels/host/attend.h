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
    float *score; /* [ATTEND_GROUP][ATTEND_KEYS] */
};

static ALWAYS_INLINE struct attend attend_state(float *scratch, int rows, int e)
{
    struct attend a = {.e = e, .rows = rows, .q = scratch};
    a.sum = a.q + (size_t)rows * ATTEND_WIDTH(e);
    a.total = a.sum + (size_t)rows * ATTEND_WIDTH(e);
    a.score = a.total + (size_t)rows * 16;
    a.most = a.score + ATTEND_GROUP * ATTEND_KEYS;
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
        {
            size_t i = at + ((size_t)(v / PANEL_VECTORS) * (size_t)a->e + (size_t)e) * PANEL +
                       (size_t)(v % PANEL_VECTORS) * VL;
            k[v] = kv_load(keys, i);
        }
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

/* score[rows] for n keys from k0, a multiple of 16, on; whole panels. */
static ALWAYS_INLINE void attend_scores(const struct attend *a, int rows, const float *q,
                                        float *score, const char *keys, int k0, int n)
{
    enum { MANY = ATTEND_VECTORS / PANEL_VECTORS };
    size_t at = (size_t)k0 * (size_t)a->e, step = (size_t)PANEL * (size_t)a->e;
    int j = 0;
    for (; MANY > 1 && j + (MANY - 1) * PANEL < n; j += MANY * PANEL, at += MANY * step)
        attend_score_tile(a, rows, MANY, q, score + j, keys, at);
    for (; MANY > 2 && j + PANEL < n; j += 2 * PANEL, at += 2 * step)
        attend_score_tile(a, rows, 2, q, score + j, keys, at);
    for (; j < n; j += PANEL, at += step)
        attend_score_tile(a, rows, 1, q, score + j, keys, at);
}

/* change[rows] = most before - most now; most becomes that of now. */
static ALWAYS_INLINE void attend_top(int rows, const float *score, int n, float *most,
                                     float *change)
{
    vf top[4];
    FOREACH(i, rows) top[i] = vf_set(most[i]);
    for (int j = 0; j < n; j += VL)
        FOREACH(i, rows) top[i] = vf_max(vf_load(score + i * ATTEND_KEYS + j), top[i]);
    FOREACH(i, rows)
    {
        float now = vf_top(top[i]);
        change[i] = most[i] - now;
        most[i] = now;
    }
}

/* Scores become e^(score - most); total[rows][16] = fade total + their sums. */
static ALWAYS_INLINE void attend_exp(int rows, float *score, int n, const float *most,
                                     const float *fade, float *total)
{
    vf sum[4];
    FOREACH(i, rows) sum[i] = vf_load(total + i * 16) * vf_set(fade[i]);
    for (int j = 0; j < n; j += VL)
        FOREACH(i, rows)
        {
            vf p = vf_exp(vf_load(score + i * ATTEND_KEYS + j) - vf_set(most[i]));
            vf_store(score + i * ATTEND_KEYS + j, p);
            sum[i] += p;
        }
    FOREACH(i, rows) vf_store(total + i * 16, sum[i]);
}

/* Softmax of the scores of rows r..r + count - 1, of which row i sees the first seen[i] of n keys;
 * fade[i] is what becomes of the row's earlier sums. */
static ALWAYS_INLINE void attend_softmax(const struct attend *a, int r, int count, const int *seen,
                                         int n, float *fade)
{
    int whole = (n + VL - 1) / VL * VL, i = 0;
    for (i = 0; i < count; i++)
        for (int j = seen[i]; j < whole; j++)
            a->score[i * ATTEND_KEYS + j] = -INFINITY;
    for (i = 0; i + 4 <= count; i += 4)
        attend_top(4, a->score + i * ATTEND_KEYS, whole, a->most + r + i, fade + i);
    for (; i < count; i++)
        attend_top(1, a->score + i * ATTEND_KEYS, whole, a->most + r + i, fade + i);
    for (i = 0; i < count; i += VL)
        vf_store(fade + i, vf_exp(vf_load(fade + i)));
    for (i = 0; i + 4 <= count; i += 4)
        attend_exp(4, a->score + i * ATTEND_KEYS, whole, a->most + r + i, fade + i,
                   a->total + (r + i) * 16);
    for (; i < count; i++)
        attend_exp(1, a->score + i * ATTEND_KEYS, whole, a->most + r + i, fade + i,
                   a->total + (r + i) * 16);
}

/* sum[rows][vectors] from chunk j on = fade sum + weights values. */
static ALWAYS_INLINE void attend_value_tile(const struct attend *a, int rows, float *sum,
                                            const float *score, const float *fade, int j,
                                            int vectors, const char *values, int k0, int n)
{
    vf s[ATTEND_TILE * ATTEND_VECTORS];
    const int width = ATTEND_WIDTH(a->e);
    size_t lane[ATTEND_VECTORS];
    sum += j * VL;
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
            vf weight = vf_set(score[r * ATTEND_KEYS + key]);
            FOREACH(v, vectors) s[r * ATTEND_VECTORS + v] += x[v] * weight;
        }
    }
    FOREACH(r, rows)
    {
        FOREACH(v, vectors) vf_store(sum + r * width + v * VL, s[r * ATTEND_VECTORS + v]);
    }
}

static ALWAYS_INLINE void attend_values(const struct attend *a, int rows, float *sum,
                                        const float *score, const float *fade, const char *values,
                                        int k0, int n)
{
    int j = 0, chunks = ATTEND_CHUNKS(a->e);
    for (; j + ATTEND_VECTORS <= chunks; j += ATTEND_VECTORS)
        attend_value_tile(a, rows, sum, score, fade, j, ATTEND_VECTORS, values, k0, n);
    if (chunks - j == 3)
        attend_value_tile(a, rows, sum, score, fade, j, 3, values, k0, n);
    else if (chunks - j == 2)
        attend_value_tile(a, rows, sum, score, fade, j, 2, values, k0, n);
    else if (chunks - j == 1)
        attend_value_tile(a, rows, sum, score, fade, j, 1, values, k0, n);
}

/* `count` rows from r on, at most ATTEND_GROUP. */
static ALWAYS_INLINE void attend_group(const struct attend *a, int r, int count, int group,
                                       int seen, const char *keys, const char *values, int k0,
                                       int n)
{
    const int width = ATTEND_WIDTH(a->e);
    float fade[ATTEND_GROUP] = {0}, *q = a->q + r * width, *sum = a->sum + r * width;
    int mine[ATTEND_GROUP], i = 0;
    for (; i + ATTEND_TILE <= count; i += ATTEND_TILE)
        attend_scores(a, ATTEND_TILE, q + i * width, a->score + i * ATTEND_KEYS, keys, k0, n);
    for (; i < count; i++)
        attend_scores(a, 1, q + i * width, a->score + i * ATTEND_KEYS, keys, k0, n);
    for (i = 0; i < count; i++) {
        int to = seen + (r + i) / group - k0;
        mine[i] = to < n ? to : n;
    }
    attend_softmax(a, r, count, mine, n, fade);
    for (i = 0; i + ATTEND_TILE <= count; i += ATTEND_TILE)
        attend_values(a, ATTEND_TILE, sum + i * width, a->score + i * ATTEND_KEYS, fade + i, values,
                      k0, n);
    for (; i < count; i++)
        attend_values(a, 1, sum + i * width, a->score + i * ATTEND_KEYS, fade + i, values, k0, n);
}

/* All rows over n <= ATTEND_KEYS keys from k0, a multiple of 16, on. Row r sees keys below
 * seen + r / group; rows that see none are left alone. n is what the last row sees of this block.
 * Groups of rows go through all three steps while keys, values and scores are in the L1 cache. */
static ALWAYS_INLINE void attend_block(const struct attend *a, int group, int seen,
                                       const char *keys, const char *values, int k0, int n)
{
    int r = 0;
    while (seen + r / group <= k0)
        r += group;
    for (; r < a->rows; r += ATTEND_GROUP)
        attend_group(a, r, a->rows - r < ATTEND_GROUP ? a->rows - r : ATTEND_GROUP, group, seen,
                     keys, values, k0, n);
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

/* Sum of squares of x[e]. */
static ALWAYS_INLINE float turn_squares(const float *x, int e)
{
    vf sum = {0};
    float rest = 0;
    int i = 0;
    for (; i + VL <= e; i += VL)
        sum += vf_load(x + i) * vf_load(x + i);
    for (; i < e; i++)
        rest += x[i] * x[i];
    return rest + vf_sum(sum);
}

/* Lanes i.. of both halves of a head, turned: *low and *high. */
static ALWAYS_INLINE void turn_lanes(const struct turn *t, vf *low, vf *high, const float *x,
                                     const float *gain, int i, int half, float by)
{
    vf a = vf_load(x + i) * vf_set(by), b = vf_load(x + half + i) * vf_set(by);
    vf cosine = vf_load(t->cosine + i), sine = vf_load(t->sine + i);
    if (gain) {
        a *= vf_load(gain + i);
        b *= vf_load(gain + half + i);
    }
    *low = a * cosine - b * sine;
    *high = b * cosine + a * sine;
}

/* One head: to[E] = rotated (x / rms(x) gain) scale; gain NULL: no norm. to may be x. */
static ALWAYS_INLINE void turn_head(const struct turn *t, float *to, const float *x,
                                    const float *gain, float eps, int e, float scale)
{
    const int half = e / 2;
    float by = scale;
    if (gain)
        by = scale / sqrtf(turn_squares(x, e) / (float)e + eps);
    if (half >= VL) {
        vf low, high, last_low, last_high; /* of the last lanes, which may overlap those before */
        turn_lanes(t, &last_low, &last_high, x, gain, half - VL, half, by);
        for (int i = 0; i + VL <= half; i += VL) {
            turn_lanes(t, &low, &high, x, gain, i, half, by);
            vf_store(to + i, low);
            vf_store(to + half + i, high);
        }
        vf_store(to + half - VL, last_low);
        vf_store(to + e - VL, last_high);
        return;
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

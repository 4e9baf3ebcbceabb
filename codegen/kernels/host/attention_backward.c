/* attention_backward.c - dqkv[B T][dq + 2 dkv], overwritten, from datt, att, lse and rotated qkv.
 *
 * KERNEL         the function's name
 * ATT_B, ATT_T   sequences and their length
 * ATT_H, ATT_K, ATT_E   heads, kv heads, head_dim (at most HEAD_MAX)
 *
 * With p = e^(scale q k^T - lse): dv = p^T datt, dp = datt v^T, ds = p (dp - datt . att) scale,
 * dq = ds k, dk = ds^T q. scratch: ATTENTION_SCRATCH_FLOATS(ATT_T, ATT_E) a thread (attention.h).
 * A thread takes whole (sequence, kv head) pairs, all of a sequence's where ROW_GRANULE is one, and
 * adds the heads of a group in order: the result does not depend on THREADS. */
#include "attention.h"

static NOINLINE void CONCAT(KERNEL, _scores)(const struct tile *t)
{
    tile_product(TILE_ROWS, TILE_VECTORS, t, (ATT_H + 2 * ATT_K) * ATT_E, 1, TILE_COLUMNS);
}

static NOINLINE void CONCAT(KERNEL, _terms)(const struct tile *t)
{
    tile_product(TILE_ROWS, TILE_VECTORS, t, ATT_H * ATT_E, 1, TILE_COLUMNS);
}

/* The thread's scratch. Of one kv head: k and v as b of scores, k as b of sums, dk and dv. Of a
 * block of queries: p and ds, q and datt as b of sums, datt . att. */
struct CONCAT(KERNEL, _scratch) {
    float *k, *v, *k_sums, *dk, *dv, *p, *ds, *q_sums, *datt_sums, *dot;
};

/* One head of one sequence, each starting at its first row and its column. */
struct CONCAT(KERNEL, _head) {
    const float *q, *datt, *att, *lse;
    float *dq;
};

static ALWAYS_INLINE ptrdiff_t CONCAT(KERNEL, _block)(int k0)
{
    return (ptrdiff_t)(k0 / ATTENTION_KEYS) * ATTENTION_KEYS_UP * ATTENTION_UP(ATT_E);
}

static ALWAYS_INLINE void CONCAT(KERNEL, _pack)(const struct CONCAT(KERNEL, _scratch) * s,
                                                const float *k, const float *v)
{
    const int width = (ATT_H + 2 * ATT_K) * ATT_E;
    for (int k0 = 0; k0 < ATT_T; k0 += ATTENTION_KEYS) {
        int keys = ATT_T - k0 < ATTENTION_KEYS ? ATT_T - k0 : ATTENTION_KEYS;
        ptrdiff_t at = CONCAT(KERNEL, _block)(k0), row = (ptrdiff_t)k0 * width;
        attention_pack_scores(s->k + at, k + row, width, keys, ATT_E);
        attention_pack_scores(s->v + at, v + row, width, keys, ATT_E);
        attention_pack_sums(s->k_sums + at, k + row, width, keys, ATT_E);
    }
}

/* p, ds and dq of queries first + i.. over the keys of the block from k0; `seen` is how many of
 * those the block of queries sees. */
static ALWAYS_INLINE void CONCAT(KERNEL, _strip)(const struct CONCAT(KERNEL, _scratch) * s,
                                                 const struct CONCAT(KERNEL, _head) * h, int first,
                                                 int i, int rows, int k0, int seen)
{
    const int width = (ATT_H + 2 * ATT_K) * ATT_E;
    const int keys = ATT_T - k0 < ATTENTION_KEYS ? ATT_T - k0 : ATTENTION_KEYS;
    const int most = attention_seen(first + i + rows - 1, k0);
    const float scale = 1.0f / sqrtf((float)ATT_E);
    ptrdiff_t at = CONCAT(KERNEL, _block)(k0), q = first + i, c = (ptrdiff_t)i * ATTENTION_ROW;
    struct tile t = {.a = h->q + q * width,
                     .b = s->k + at,
                     .depth = ATT_E,
                     .c = s->p + c,
                     .c_row = ATTENTION_ROW};
    attention_product(&t, (ptrdiff_t)ATT_E * TILE_COLUMNS, rows, ATTENTION_UP(most), width, 1,
                      CONCAT(KERNEL, _scores));
    t.a = h->datt + q * ATT_H * ATT_E;
    t.b = s->v + at;
    t.c = s->ds + c;
    attention_product(&t, (ptrdiff_t)ATT_E * TILE_COLUMNS, rows, ATTENTION_UP(most), ATT_H * ATT_E,
                      1, CONCAT(KERNEL, _terms));
    for (int r = 0; r < rows; r++)
        attention_gradient(s->p + c + r * ATTENTION_ROW, s->ds + c + r * ATTENTION_ROW,
                           attention_seen(first + i + r, k0), seen, scale, h->lse[(q + r) * ATT_H],
                           s->dot[i + r]);
    if (most == 0)
        return;
    t.a = s->ds + c;
    t.b = s->k_sums + at;
    t.depth = most;
    t.c = h->dq + q * width;
    t.c_row = width;
    t.add = k0 > 0 ? t.c : NULL;
    attention_product(&t, (ptrdiff_t)keys * TILE_COLUMNS, rows, ATT_E, ATTENTION_ROW, 1,
                      attention_tile_rows);
}

/* dk and dv of `seen` keys from k0: += ds^T q and p^T datt over `queries` from `first`. */
static ALWAYS_INLINE void CONCAT(KERNEL, _keys)(const struct CONCAT(KERNEL, _scratch) * s,
                                                int first, int queries, int k0, int seen)
{
    const int up = ATTENTION_UP(ATT_E);
    for (int j = 0; j < seen; j += TILE_ROWS) {
        int skip = k0 + j > first ? k0 + j - first : 0; /* queries that see none of these keys */
        int rows = seen - j < TILE_ROWS ? seen - j : TILE_ROWS;
        struct tile t = {.a = s->p + skip * ATTENTION_ROW + j,
                         .b = s->datt_sums + skip * TILE_COLUMNS,
                         .depth = queries - skip,
                         .c = s->dv + (ptrdiff_t)(k0 + j) * up,
                         .c_row = up};
        t.add = t.c;
        attention_product(&t, (ptrdiff_t)queries * TILE_COLUMNS, rows, up, 1, ATTENTION_ROW,
                          attention_tile_columns);
        t.a = s->ds + skip * ATTENTION_ROW + j;
        t.b = s->q_sums + skip * TILE_COLUMNS;
        t.c = s->dk + (ptrdiff_t)(k0 + j) * up;
        t.add = t.c;
        attention_product(&t, (ptrdiff_t)queries * TILE_COLUMNS, rows, up, 1, ATTENTION_ROW,
                          attention_tile_columns);
    }
}

static NOINLINE void CONCAT(KERNEL, _one)(const struct CONCAT(KERNEL, _scratch) * s,
                                          const struct CONCAT(KERNEL, _head) * h)
{
    const int width = (ATT_H + 2 * ATT_K) * ATT_E;
    for (int first = 0; first < ATT_T; first += ATTENTION_QUERIES) {
        int queries = ATT_T - first < ATTENTION_QUERIES ? ATT_T - first : ATTENTION_QUERIES;
        ptrdiff_t row = (ptrdiff_t)first * ATT_H * ATT_E;
        attention_pack_sums(s->q_sums, h->q + (ptrdiff_t)first * width, width, queries, ATT_E);
        attention_pack_sums(s->datt_sums, h->datt + row, ATT_H * ATT_E, queries, ATT_E);
        for (int i = 0; i < queries; i++)
            s->dot[i] = attention_dot(h->datt + row + (ptrdiff_t)i * ATT_H * ATT_E,
                                      h->att + row + (ptrdiff_t)i * ATT_H * ATT_E, ATT_E);
        for (int k0 = 0; k0 < first + queries; k0 += ATTENTION_KEYS) {
            int seen = attention_seen(first + queries - 1, k0);
            for (int i = 0; i < queries; i += TILE_ROWS)
                CONCAT(KERNEL, _strip)
            (s, h, first, i, queries - i < TILE_ROWS ? queries - i : TILE_ROWS, k0, seen);
            CONCAT(KERNEL, _keys)(s, first, queries, k0, seen);
        }
    }
}

static ALWAYS_INLINE struct CONCAT(KERNEL, _scratch) CONCAT(KERNEL, _places)(float *scratch)
{
    const size_t packed = ATTENTION_PACKED(ATT_T, ATT_E), up = ATTENTION_UP(ATT_E);
    struct CONCAT(KERNEL, _scratch) s;
    s.k = scratch;
    s.v = s.k + packed;
    s.k_sums = s.v + packed;
    s.dk = s.k_sums + packed;
    s.dv = s.dk + (size_t)ATT_T * up;
    s.p = s.dv + (size_t)ATT_T * up;
    s.ds = s.p + ATTENTION_QUERIES * ATTENTION_ROW;
    s.q_sums = s.ds + ATTENTION_QUERIES * ATTENTION_ROW;
    s.datt_sums = s.q_sums + ATTENTION_QUERIES * up;
    s.dot = s.datt_sums + ATTENTION_QUERIES * up;
    return s;
}

attention_backward_fn KERNEL;
void KERNEL(float *dqkv, const float *datt, const float *att, const float *lse, const float *qkv,
            float *scratch, int tid)
{
    const int group = ATT_H / ATT_K, width = (ATT_H + 2 * ATT_K) * ATT_E, up = ATTENTION_UP(ATT_E);
    struct CONCAT(KERNEL, _scratch) s =
        CONCAT(KERNEL, _places)(scratch + (ptrdiff_t)tid * ATTENTION_SCRATCH_FLOATS(ATT_T, ATT_E));
    struct range items = attention_share(ATT_B, ATT_T, ATT_K, tid);
    for (int i = items.begin; i < items.end; i++) {
        int kv = i % ATT_K, at_k = (ATT_H + kv) * ATT_E, at_v = at_k + ATT_K * ATT_E;
        ptrdiff_t row = (ptrdiff_t)(i / ATT_K) * ATT_T;
        const float *in = qkv + row * width;
        float *out = dqkv + row * width;
        memset(s.dk, 0, sizeof(float) * ATT_T * up);
        memset(s.dv, 0, sizeof(float) * ATT_T * up);
        CONCAT(KERNEL, _pack)(&s, in + at_k, in + at_v);
        for (int h = kv * group; h < (kv + 1) * group; h++) {
            ptrdiff_t at = (row * ATT_H + h) * ATT_E;
            struct CONCAT(KERNEL, _head) head = {in + h * ATT_E, datt + at, att + at,
                                                 lse + row * ATT_H + h, out + h * ATT_E};
            CONCAT(KERNEL, _one)(&s, &head);
        }
        for (int t = 0; t < ATT_T; t++) {
            memcpy(out + (ptrdiff_t)t * width + at_k, s.dk + (ptrdiff_t)t * up,
                   sizeof(float) * ATT_E);
            memcpy(out + (ptrdiff_t)t * width + at_v, s.dv + (ptrdiff_t)t * up,
                   sizeof(float) * ATT_E);
        }
    }
}

#undef KERNEL
#undef ATT_B
#undef ATT_T
#undef ATT_H
#undef ATT_K
#undef ATT_E

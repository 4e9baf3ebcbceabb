/* attention.c - att[B T][dq] = causal softmax(q k^T / sqrt(E)) v of rotated qkv[B T][dq + 2 dkv],
 * and lse[B T][H], the log of each row's sum of exponentials.
 *
 * KERNEL         the function's name
 * ATT_B, ATT_T   sequences and their length
 * ATT_H, ATT_K, ATT_E   heads, kv heads, head_dim (at most HEAD_MAX)
 *
 * scratch: ATTENTION_SCRATCH_FLOATS(ATT_T, ATT_E) a thread (attention.h). Each thread takes whole
 * sequences where ROW_GRANULE is one, so that its rows stay its own; else (sequence, head) pairs.
 */
#include "attention.h"

static NOINLINE void CONCAT(KERNEL, _scores)(const struct tile *t)
{
    tile_product(TILE_ROWS, TILE_VECTORS, t, (ATT_H + 2 * ATT_K) * ATT_E, 1, TILE_COLUMNS);
}

/* The thread's scratch: k and v of one kv head packed, a strip of scores, and of a block of queries
 * the sums so far with their largest score and sum of terms. */
struct CONCAT(KERNEL, _scratch) {
    float *k, *v, *strip, *sums, *top, *total;
};

static ALWAYS_INLINE void CONCAT(KERNEL, _pack)(const struct CONCAT(KERNEL, _scratch) * s,
                                                const float *k, const float *v, int width)
{
    for (int k0 = 0; k0 < ATT_T; k0 += ATTENTION_KEYS) {
        int keys = ATT_T - k0 < ATTENTION_KEYS ? ATT_T - k0 : ATTENTION_KEYS;
        ptrdiff_t at = (ptrdiff_t)(k0 / ATTENTION_KEYS) * ATTENTION_KEYS_UP * ATTENTION_UP(ATT_E);
        attention_pack_scores(s->k + at, k + (ptrdiff_t)k0 * width, width, keys, ATT_E);
        attention_pack_sums(s->v + at, v + (ptrdiff_t)k0 * width, width, keys, ATT_E);
    }
}

/* Queries first + i.. of a head (rows of them, q its first row) over the keys of the block from k0.
 */
static ALWAYS_INLINE void CONCAT(KERNEL, _strip)(const struct CONCAT(KERNEL, _scratch) * s,
                                                 const float *q, int first, int i, int rows, int k0)
{
    const int width = (ATT_H + 2 * ATT_K) * ATT_E, up = ATTENTION_UP(ATT_E);
    const int seen = attention_seen(first + i + rows - 1, k0);
    const int keys = ATT_T - k0 < ATTENTION_KEYS ? ATT_T - k0 : ATTENTION_KEYS;
    const float scale = 1.0f / sqrtf((float)ATT_E);
    ptrdiff_t at = (ptrdiff_t)(k0 / ATTENTION_KEYS) * ATTENTION_KEYS_UP * up;
    struct tile t = {.a = q + (ptrdiff_t)(first + i) * width,
                     .b = s->k + at,
                     .depth = ATT_E,
                     .c = s->strip,
                     .c_row = ATTENTION_ROW};
    if (seen == 0)
        return;
    attention_product(&t, (ptrdiff_t)ATT_E * TILE_COLUMNS, rows, ATTENTION_UP(seen), width, 1,
                      CONCAT(KERNEL, _scores));
    for (int r = 0; r < rows; r++) {
        float *sums = s->sums + (ptrdiff_t)(i + r) * up;
        float factor =
            attention_softmax(s->strip + r * ATTENTION_ROW, attention_seen(first + i + r, k0), seen,
                              scale, s->top + i + r, s->total + i + r);
        for (int j = 0; k0 > 0 && j < up; j += VL)
            vf_store(sums + j, vf_load(sums + j) * factor);
    }
    t.a = s->strip;
    t.b = s->v + at;
    t.depth = seen;
    t.c = s->sums + (ptrdiff_t)i * up;
    t.c_row = up;
    t.add = k0 > 0 ? t.c : NULL;
    attention_product(&t, (ptrdiff_t)keys * TILE_COLUMNS, rows, up, ATTENTION_ROW, 1,
                      attention_tile_rows);
}

/* One head of one sequence; att, lse and q start at its first row and its column. */
static NOINLINE void CONCAT(KERNEL, _head)(float *att, float *lse, const float *q,
                                           const struct CONCAT(KERNEL, _scratch) * s)
{
    const int up = ATTENTION_UP(ATT_E);
    for (int first = 0; first < ATT_T; first += ATTENTION_FORWARD_QUERIES) {
        int rows = ATT_T - first;
        if (rows > ATTENTION_FORWARD_QUERIES)
            rows = ATTENTION_FORWARD_QUERIES;
        for (int i = 0; i < rows; i++) {
            s->top[i] = -INFINITY;
            s->total[i] = 0;
        }
        for (int k0 = 0; k0 < first + rows; k0 += ATTENTION_KEYS)
            for (int i = 0; i < rows; i += TILE_ROWS)
                CONCAT(KERNEL, _strip)
        (s, q, first, i, rows - i < TILE_ROWS ? rows - i : TILE_ROWS, k0);
        for (int i = 0; i < rows; i++) {
            const float *sums = s->sums + (ptrdiff_t)i * up;
            float *to = att + (ptrdiff_t)(first + i) * ATT_H * ATT_E;
            float factor = 1.0f / s->total[i];
            for (int j = 0; j < ATT_E; j++)
                to[j] = sums[j] * factor;
            lse[(ptrdiff_t)(first + i) * ATT_H] = s->top[i] + logf(s->total[i]);
        }
    }
}

attention_fn KERNEL;
void KERNEL(float *att, float *lse, const float *qkv, float *scratch, int tid)
{
    const int group = ATT_H / ATT_K, width = (ATT_H + 2 * ATT_K) * ATT_E;
    const size_t packed = ATTENTION_PACKED(ATT_T, ATT_E);
    struct CONCAT(KERNEL, _scratch) own;
    own.k = scratch + (ptrdiff_t)tid * ATTENTION_SCRATCH_FLOATS(ATT_T, ATT_E);
    own.v = own.k + packed;
    own.strip = own.v + packed;
    own.sums = own.strip + TILE_ROWS * ATTENTION_ROW;
    own.top = own.sums + ATTENTION_FORWARD_QUERIES * ATTENTION_UP(ATT_E);
    own.total = own.top + ATTENTION_FORWARD_QUERIES;
    struct range items = attention_share(ATT_B, ATT_T, ATT_H, tid);
    for (int i = items.begin, held = -1; i < items.end; i++) {
        int b = i / ATT_H, h = i % ATT_H, kv = h / group;
        const float *rows = qkv + (ptrdiff_t)b * ATT_T * width;
        if (held != b * ATT_K + kv) {
            held = b * ATT_K + kv;
            CONCAT(KERNEL, _pack)
            (&own, rows + (ATT_H + kv) * ATT_E, rows + (ATT_H + ATT_K + kv) * ATT_E, width);
        }
        CONCAT(KERNEL, _head)
        (att + ((ptrdiff_t)b * ATT_T * ATT_H + h) * ATT_E, lse + (ptrdiff_t)b * ATT_T * ATT_H + h,
         rows + h * ATT_E, &own);
    }
}

#undef KERNEL
#undef ATT_B
#undef ATT_T
#undef ATT_H
#undef ATT_K
#undef ATT_E

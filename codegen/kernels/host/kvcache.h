/* kvcache.h - how keys and values of one layer and one sequence are kept, C positions, K heads of
 * E.
 *
 * Each head has its keys, then its values, C rounded up to whole panels of 16 positions:
 *
 *   keys    [C/16][E][16]   position is the vector lane, so 16 scores are E multiply-adds without a
 *                           horizontal sum, and a panel is the packed B operand of Q K^T
 *   values  [C][E]          E is the vector lane: the sum over positions runs down the rows, and a
 *                           run of rows is the packed B operand of P V
 *
 * Elements are fp32 (KVTYPE 0) or bf16, rounded to nearest even (KVTYPE 1). What lies behind the
 * last position written is never used, so a new cache needs no clearing. */
#ifndef ARCH_KVCACHE_H
#define ARCH_KVCACHE_H

#include "weights.h"

#ifndef KVTYPE
#define KVTYPE 0
#endif

enum { KV_F32, KV_BF16 };

/* Constant expressions where their arguments are. */
#define KV_ELEMENT (KVTYPE == 1 ? 2 : 4)
#define KV_POSITIONS(context) (((context) + 15) / 16 * 16)
#define KV_HEAD_BYTES(context, head_dim) ((size_t)KV_POSITIONS(context) * (head_dim)*KV_ELEMENT)
#define KV_LAYER_BYTES(context, kv_heads, head_dim)                                                \
    (2 * (size_t)(kv_heads)*KV_HEAD_BYTES(context, head_dim))

/* Scratch of prefill_attention.c and decode_attention.c, a thread. */
enum { ATTEND_KEYS = 64 };
/* E in whole panels, so that any vector length fits. */
#define ATTEND_WIDTH(e) (((e) + 15) / 16 * 16)
/* Query rows that prefill takes together; at least one position of any group. */
enum { PREFILL_ROWS = 32 };
/* Query rows whose scores are at work together. */
enum { ATTEND_GROUP = 16 };
/* The state of `rows` rows: queries, sums, totals, largest scores; and the scores at work. */
#define ATTEND_FLOATS(rows, e)                                                                     \
    (((size_t)(rows) * (2 * (size_t)ATTEND_WIDTH(e) + 17) + ATTEND_GROUP * ATTEND_KEYS + 31) /     \
     16 * 16)
#define PREFILL_ATTENTION_SCRATCH_FLOATS(group, e) ATTEND_FLOATS(PREFILL_ROWS, e)
#define DECODE_ATTENTION_SCRATCH_FLOATS(group, e)                                                  \
    (ATTEND_FLOATS(group, e) + 2 * (size_t)(group) * ((size_t)ATTEND_WIDTH(e) + 16))

/* Keys and values of head `head`. */
static inline char *kv_keys(const void *cache, int context, int head_dim, int head)
{
    return (char *)(uintptr_t)cache + 2 * (size_t)head * KV_HEAD_BYTES(context, head_dim);
}

static inline char *kv_values(const void *cache, int context, int head_dim, int head)
{
    return kv_keys(cache, context, head_dim, head) + KV_HEAD_BYTES(context, head_dim);
}

/* Indices of element e of `position`, in elements. */
static inline size_t kv_key_at(int head_dim, int position, int e)
{
    return ((size_t)(position / 16) * (size_t)head_dim + (size_t)e) * 16 + (size_t)(position % 16);
}

static inline size_t kv_value_at(int head_dim, int position, int e)
{
    return (size_t)position * (size_t)head_dim + (size_t)e;
}

static ALWAYS_INLINE void kv_write(char *base, size_t at, float x)
{
    if (KVTYPE == KV_BF16)
        ((uint16_t *)(void *)base)[at] = bf16_round(x);
    else
        ((float *)(void *)base)[at] = x;
}

static inline float kv_read(const char *base, size_t at)
{
    return KVTYPE == KV_BF16 ? bf16_float(((const uint16_t *)(const void *)base)[at])
                             : ((const float *)(const void *)base)[at];
}

typedef uint16_t kv_halves __attribute__((vector_size(VECTOR_BYTES / 2), aligned(2), may_alias));
typedef uint16_t kv_half __attribute__((vector_size(VECTOR_BYTES / 2)));

/* VL elements as floats. */
static ALWAYS_INLINE vf kv_load(const char *base, size_t at)
{
    if (KVTYPE == KV_BF16) {
        kv_half h = *(const kv_halves *)(const void *)(base + 2 * at);
        return (vf)(__builtin_convertvector(h, vu) << 16);
    }
    return vf_load((const float *)(const void *)base + at);
}

/* The first n < VL of them, the others zero. */
static ALWAYS_INLINE vf kv_load_part(const char *base, size_t at, int n)
{
    float lane[VL] = {0};
    for (int i = 0; i < n; i++)
        lane[i] = kv_read(base, at + (size_t)i);
    return vf_load(lane);
}

/* One head of k and of v into the cache. */
static ALWAYS_INLINE void kv_store(char *keys, char *values, int head_dim, int position,
                                   const float *k, const float *v)
{
    size_t key = kv_key_at(head_dim, position, 0), value = kv_value_at(head_dim, position, 0);
    for (int e = 0; e < head_dim; e++)
        kv_write(keys, key + (size_t)e * 16, k[e]);
    for (int e = 0; e < head_dim; e++)
        kv_write(values, value + (size_t)e, v[e]);
}

#endif

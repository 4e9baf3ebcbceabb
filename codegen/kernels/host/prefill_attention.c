/* prefill_attention.c - att[m][H E]: query i, at position past + i, over cached keys 0..past + i.
 *
 * KERNEL      the function's name
 * ATT_M       most queries
 * ATT_H, ATT_K, ATT_E   heads, kv heads (dividing H, group at most 16), head_dim (a multiple of 8,
 * at most 256); CONTEXT is of the whole program (shape.h); KVTYPE (kvcache.h)
 *
 * q is rotated and the cache filled (prefill_rope.c). A piece of work is a run of positions of one
 * kv head, its whole group together, so that a key is read once for up to PREFILL_ROWS rows. Pieces
 * go to threads longest first, there and back, which balances the causal triangle. scratch:
 * PREFILL_ATTENTION_SCRATCH_FLOATS(H / K, E) a thread. */
#include "attend.h"

#ifndef ARCH_PREFILL_ATTENTION_ONCE
#define ARCH_PREFILL_ATTENTION_ONCE

struct prefill_attention {
    int h, k, e, group, past, context;
    const float *qkv;
    const void *cache;
    float *att, *scratch;
};

/* Positions [i0, i1) of the chunk, kv head `head`. */
static ALWAYS_INLINE void prefill_piece(const struct prefill_attention *p, int head, int i0, int i1)
{
    const int e = p->e, group = p->group, rows = (i1 - i0) * group;
    const int width = (p->h + 2 * p->k) * e;
    const char *keys = kv_keys(p->cache, p->context, e, head);
    const char *values = kv_values(p->cache, p->context, e, head);
    const float scale = 1 / sqrtf((float)e);
    struct attend a = attend_state(p->scratch, rows, e);
    attend_begin(&a);
    for (int r = 0; r < rows; r++) {
        const float *q =
            p->qkv + (ptrdiff_t)(i0 + r / group) * width + (head * group + r % group) * e;
        for (int i = 0; i < e; i++)
            a.q[r * ATTEND_WIDTH(e) + i] = q[i] * scale;
    }
    int end = p->past + i1;
    for (int k0 = 0; k0 < end; k0 += ATTEND_KEYS)
        attend_block(&a, group, p->past + i0 + 1, keys, values, k0,
                     end - k0 < ATTEND_KEYS ? end - k0 : ATTEND_KEYS);
    for (int r = 0; r < rows; r++)
        attend_store(&a, r,
                     p->att + ((ptrdiff_t)(i0 + r / group) * p->h + head * group + r % group) * e,
                     1 / attend_total(&a, r));
}

static ALWAYS_INLINE void prefill_attend(const struct prefill_attention *p, int m, int tid)
{
    int most = PREFILL_ROWS / p->group,
        even = (int)(((int64_t)m * p->k + 4 * THREADS - 1) / (4 * THREADS));
    int run = even < most ? even : most, runs = (m + run - 1) / run;
    for (int i = 0; i < runs * p->k; i++) {
        int turn = i / THREADS, owner = turn % 2 ? THREADS - 1 - i % THREADS : i % THREADS;
        if (owner != tid)
            continue;
        int i0 = (runs - 1 - i / p->k) * run;
        prefill_piece(p, i % p->k, i0, i0 + run < m ? i0 + run : m);
    }
}
#endif

prefill_attention_fn KERNEL;
void KERNEL(float *att, const float *qkv, const void *cache, float *scratch, int past, int m,
            int tid)
{
    const struct prefill_attention p = {
        .h = ATT_H,
        .k = ATT_K,
        .e = ATT_E,
        .group = ATT_H / ATT_K,
        .past = past,
        .context = CONTEXT,
        .qkv = qkv,
        .cache = cache,
        .att = att,
        .scratch =
            scratch + (ptrdiff_t)tid * PREFILL_ATTENTION_SCRATCH_FLOATS(ATT_H / ATT_K, ATT_E)};
    prefill_attend(&p, m, tid);
}

#undef KERNEL
#undef ATT_B
#undef ATT_T
#undef ATT_M
#undef ATT_H
#undef ATT_K
#undef ATT_E
#undef HEAD_NORM
#undef NORM_EPS

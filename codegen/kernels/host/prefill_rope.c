/* prefill_rope.c - qkv[m][dq + 2 dkv]: q heads normalised and rotated in place at positions
 * past..past
 * + m - 1; k, so treated, and v of those positions into the cache (kvcache.h).
 *
 * KERNEL      the function's name
 * ROPE_M      most rows
 * ROPE_H, ROPE_K, ROPE_E   heads, kv heads, head_dim (a multiple of 8, at most 256); CONTEXT is of
 * the whole program (shape.h): past + m <= CONTEXT HEAD_NORM   literal 0 or 1; NORM_EPS; KVTYPE
 * (kvcache.h)
 *
 * k and v stay in qkv as projected. Rows are split by share(m, ROW_GRANULE). */
#include "attend.h"

#ifndef ARCH_PREFILL_ROPE_ONCE
#define ARCH_PREFILL_ROPE_ONCE

struct prefill_rope {
    int h, k, e, context;
    float eps;
    char *cache;
    const float *gain, *rope;
};

static ALWAYS_INLINE void prefill_rope_row(const struct prefill_rope *p, float *row, int position)
{
    const int e = p->e;
    struct turn turn;
    turn_load(&turn, p->rope, position, e);
    for (int head = 0; head < p->h; head++)
        turn_head(&turn, row + head * e, row + head * e, p->gain, p->eps, e, 1);
    for (int head = 0; head < p->k; head++) {
        float k[ATTEND_HEAD];
        turn_head(&turn, k, row + (p->h + head) * e, p->gain ? p->gain + e : NULL, p->eps, e, 1);
        kv_store(kv_keys(p->cache, p->context, e, head), kv_values(p->cache, p->context, e, head),
                 e, position, k, row + (p->h + p->k + head) * e);
    }
}
#endif

prefill_rope_fn KERNEL;
void KERNEL(float *qkv, void *cache, const float *gain, const float *rope, int past, int m, int tid)
{
    const struct prefill_rope p = {.h = ROPE_H,
                                   .k = ROPE_K,
                                   .e = ROPE_E,
                                   .context = CONTEXT,
                                   .eps = NORM_EPS,
                                   .cache = cache,
                                   .gain = HEAD_NORM ? gain : NULL,
                                   .rope = rope};
    struct range own = share(m, ROW_GRANULE, tid);
    for (int i = own.begin; i < own.end; i++)
        prefill_rope_row(&p, qkv + (ptrdiff_t)i * (ROPE_H + 2 * ROPE_K) * ROPE_E, past + i);
}

#undef KERNEL
#undef ROPE_M
#undef ROPE_T
#undef ROPE_H
#undef ROPE_K
#undef ROPE_E
#undef HEAD_NORM
#undef NORM_EPS

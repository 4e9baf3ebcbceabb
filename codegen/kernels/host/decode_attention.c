/* decode_attention.c - one token at position `past`: head norm and rotation of q and k, k and v
 * into the cache, att[H E] over keys 0..past.
 *
 * KERNEL      the function's name
 * ATT_H, ATT_K, ATT_E   heads, kv heads (dividing H, group at most 16), head_dim (a multiple of 8,
 * at most 256); CONTEXT is of the whole program (shape.h): past < CONTEXT HEAD_NORM   literal 0 or
 * 1; NORM_EPS; KVTYPE (kvcache.h)
 *
 * Work is the line of all (kv head, panel of 16 keys), cut into THREADS equal parts, so that one kv
 * head and a long context still keep all threads busy. A head that was cut leaves partial sums in
 * scratch, and after a barrier its rows are put together. The result depends on THREADS and `past`
 * only. scratch: DECODE_ATTENTION_SCRATCH_FLOATS(H / K, E) a thread. */
#include "attend.h"

#ifndef ARCH_DECODE_ATTENTION_ONCE
#define ARCH_DECODE_ATTENTION_ONCE

struct decode {
    int h, k, e, group, past, panels; /* panels of keys a head */
    float eps;
    const float *qkv, *gain, *rope;
    char *cache;
    int context;
    float *att, *scratch;
};

/* A thread's scratch: the state of a head at work, then two heads' partial results, each [group] of
 * most, total, sum[WIDTH]: the head its part begins in, and the head it ends in. */
static ALWAYS_INLINE float *decode_partial(const struct decode *d, int tid, int slot)
{
    size_t row = (size_t)ATTEND_WIDTH(d->e) + 16,
           own = DECODE_ATTENTION_SCRATCH_FLOATS(d->group, d->e);
    return d->scratch + (size_t)tid * own + ATTEND_FLOATS(d->group, d->e) +
           (size_t)slot * (size_t)d->group * row;
}

/* Part `tid` of the line of panels. */
static ALWAYS_INLINE struct range decode_part(const struct decode *d, int tid)
{
    int64_t line = (int64_t)d->k * d->panels;
    return (struct range){(int)(line * tid / THREADS), (int)(line * (tid + 1) / THREADS)};
}

/* Head `head` over its panels [first, last). */
static ALWAYS_INLINE void decode_keys_of(const struct decode *d, int head, int first, int last,
                                         const struct turn *turn, int tid, int slot)
{
    const int e = d->e, group = d->group;
    char *keys = kv_keys(d->cache, d->context, e, head);
    char *values = kv_values(d->cache, d->context, e, head);
    struct attend a = attend_state(
        d->scratch + (size_t)tid * DECODE_ATTENTION_SCRATCH_FLOATS(group, e), group, e);
    attend_begin(&a);
    for (int r = 0; r < group; r++)
        turn_head(turn, a.q + r * ATTEND_WIDTH(e), d->qkv + (head * group + r) * e, d->gain, d->eps,
                  e, 1 / sqrtf((float)e));
    if (last == d->panels) {
        float k[ATTEND_HEAD];
        turn_head(turn, k, d->qkv + (d->h + head) * e, d->gain ? d->gain + e : NULL, d->eps, e, 1);
        kv_store(keys, values, e, d->past, k, d->qkv + (d->h + d->k + head) * e);
    }
    int end = last * PANEL < d->past + 1 ? last * PANEL : d->past + 1;
    for (int k0 = first * PANEL; k0 < end; k0 += ATTEND_KEYS) {
        attend_block(&a, group, end, keys, values, k0,
                     end - k0 < ATTEND_KEYS ? end - k0 : ATTEND_KEYS);
    }
    if (first == 0 && last == d->panels) {
        for (int r = 0; r < group; r++)
            attend_store(&a, r, d->att + (head * group + r) * e, 1 / attend_total(&a, r));
        return;
    }
    float *to = decode_partial(d, tid, slot);
    for (int r = 0; r < group; r++, to += ATTEND_WIDTH(e) + 16) {
        to[0] = a.most[r];
        to[1] = attend_total(&a, r);
        memcpy(to + 16, a.sum + r * ATTEND_WIDTH(e), sizeof(float) * (size_t)ATTEND_WIDTH(e));
    }
}

/* Row r of a head that threads [t0, t1] share. */
static ALWAYS_INLINE void decode_join(const struct decode *d, int head, int r, int t0, int t1)
{
    const int width = ATTEND_WIDTH(d->e);
    float most = -INFINITY, total = 0, sum[ATTEND_HEAD] = {0};
    const float *part[THREADS];
    for (int t = t0; t <= t1; t++) {
        struct range line = decode_part(d, t);
        int begins_in = line.begin / d->panels;
        part[t] = NULL;
        if (line.begin == line.end) /* more threads than panels */
            continue;
        part[t] = decode_partial(d, t, begins_in == head ? 0 : 1) + r * (width + 16);
        most = fmaxf(most, part[t][0]);
    }
    for (int t = t0; t <= t1; t++) {
        if (!part[t])
            continue;
        float weight = expf(part[t][0] - most);
        total += weight * part[t][1];
        for (int i = 0; i < width; i++)
            sum[i] += weight * part[t][16 + i];
    }
    struct attend a = {.e = d->e, .rows = 1, .sum = sum};
    attend_store(&a, 0, d->att + (head * d->group + r) * d->e, 1 / total);
}

static ALWAYS_INLINE void decode_joins(const struct decode *d, int tid)
{
    for (int head = 0; head < d->k; head++) {
        int first = head * d->panels, last = first + d->panels, t0 = -1, t1 = -1;
        for (int t = 0; t < THREADS; t++) {
            struct range part = decode_part(d, t);
            if (part.begin >= last || part.end <= first || part.begin == part.end)
                continue;
            t0 = t0 < 0 ? t : t0;
            t1 = t;
        }
        for (int r = 0; t0 != t1 && r < d->group; r++)
            if ((head * d->group + r) % THREADS == tid)
                decode_join(d, head, r, t0, t1);
    }
}

static ALWAYS_INLINE void decode_run(const struct decode *d, int tid)
{
    struct range part = decode_part(d, tid);
    struct turn turn;
    turn_load(&turn, d->rope, d->past, d->e);
    int begins_in = part.begin / d->panels;
    for (int at = part.begin; at < part.end;) {
        int head = at / d->panels, first = at % d->panels;
        int last =
            part.end - head * d->panels < d->panels ? part.end - head * d->panels : d->panels;
        decode_keys_of(d, head, first, last, &turn, tid, head == begins_in ? 0 : 1);
        at = head * d->panels + last;
    }
    if (d->k % THREADS == 0) /* no head was cut */
        return;
    team_barrier(tid);
    decode_joins(d, tid);
}
#endif

decode_attention_fn KERNEL;
void KERNEL(float *att, const float *qkv, void *cache, const float *gain, const float *rope,
            float *scratch, int past, int tid)
{
    const struct decode d = {.h = ATT_H,
                             .k = ATT_K,
                             .e = ATT_E,
                             .group = ATT_H / ATT_K,
                             .past = past,
                             .panels = past / PANEL + 1,
                             .eps = NORM_EPS,
                             .qkv = qkv,
                             .gain = HEAD_NORM ? gain : NULL,
                             .rope = rope,
                             .cache = cache,
                             .context = CONTEXT,
                             .att = att,
                             .scratch = scratch};
    decode_run(&d, tid);
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

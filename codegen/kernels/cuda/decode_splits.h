/* decode_splits.h - what a block of decode_attention.cu leaves of its share of the keys, and how
 * the last one of a row and kv head weighs and adds what all of them left, in their order. */
#ifndef DECODE_SPLITS_H
#define DECODE_SPLITS_H

enum { KEYS_BATCH = 16 }; /* splits loaded at once */

/* Tiles of each of a row's and kv head's blocks: whole steps, so that every warp has one. */
DEVICE u32 keys_tiles_of(u32 length, u32 splits)
{
    const u32 tiles = DIV_UP(length, KEYS_TILE), share = DIV_UP(tiles, splits);
    return ROUND_UP(share, KEYS_TEAMS);
}

/* Splits that have any keys. */
DEVICE u32 keys_splits_used(u32 length, u32 splits)
{
    return DIV_UP(length, keys_tiles_of(length, splits) * KEYS_TILE);
}

/* What blocks leave in scratch: out[m][H][splits][E], then {maximum, sum}[m][H][splits]. */
struct keys_scratch {
    float *out;
    f32x2 *scale;
};

DEVICE struct keys_scratch keys_scratch(void *scratch, u32 rows, u32 heads, u32 splits)
{
    struct keys_scratch to;
    to.out = (float *)scratch;
    to.scale = (f32x2 *)(void *)(to.out + (u64)rows * heads * splits * HEAD_DIM);
    return to;
}

/* The warps' states as they are: [team][group] {maximum, sum}, then [team][group][E]. */
DEVICE void keys_publish(float *shared, const struct keys_state *s, u32 group)
{
    const u32 g = lane_id() / 4, i = lane_id() % 4;
    float *out = shared + KEYS_TEAMS * group * 2;
    UNROLL
    for (u32 h = 0; h < 2; h++) {
        const u32 query = g + 8 * h, at = keys_team() * group + query;
        const float sum = warp_sum(s->sum[h], 4);
        if (query >= group)
            continue;
        if (i == 0 && keys_half() == 0) {
            shared[at * 2] = s->most[h];
            shared[at * 2 + 1] = sum;
        }
        UNROLL
        for (u32 j = 0; j < KEYS_V * 16; j++) { /* columns 2 i and 2 i + 1 are elements 16 i.. */
            const u32 e = j / 16 * 64 + i * 16 + j % 16;
            if (keys_has(e))
                out[at * HEAD_DIM + keys_element(e)] = s->out[j / 16][j % 8][2 * h + j / 8 % 2];
        }
    }
}

/* Of one query's splits, what lane l has of l, l + 32 .. below `used`. */
struct keys_scales {
    float most[KEYS_MAX_SPLITS / WARP], sum[KEYS_MAX_SPLITS / WARP];
};

DEVICE void keys_load_scales(struct keys_scales *s, const f32x2 *from, u32 used)
{
    UNROLL
    for (u32 j = 0; j < KEYS_MAX_SPLITS / WARP; j++) {
        const u32 i = lane_id() + j * WARP;
        s->most[j] = i < used ? load_l2_f32((const float *)(from + i)) : KEYS_NONE;
        s->sum[j] = i < used ? load_l2_f32((const float *)(from + i) + 1) : 0.0f;
    }
}

/* What each split counts for in the row, to weight[used]. */
DEVICE void keys_weigh(float *weight, struct keys_scales *s, u32 used)
{
    float most = KEYS_NONE, sum = 0.0f;
    UNROLL
    for (u32 j = 0; j < KEYS_MAX_SPLITS / WARP; j++)
        most = f32_max(most, s->most[j]);
    most = warp_max(most, WARP);
    UNROLL
    for (u32 j = 0; j < KEYS_MAX_SPLITS / WARP; j++) {
        s->most[j] = fast_exp2(s->most[j] - most);
        sum = f32_fma(s->most[j], s->sum[j], sum);
    }
    const float norm = f32_divide(1.0f, warp_sum(sum, WARP));
    UNROLL
    for (u32 j = 0; j < KEYS_MAX_SPLITS / WARP; j++)
        if (lane_id() + j * WARP < used)
            weight[lane_id() + j * WARP] = s->most[j] * norm;
}

/* The same of all queries of the group, whose scales are `splits` apart, to weight[group][used]. A
 * warp a query, the next one's on the way. */
DEVICE void keys_shares(float *weight, const f32x2 *scale, u32 group, u32 splits, u32 used)
{
    struct keys_scales s[2];
    for (u32 query = threadIdx.x / WARP; query < group; query += 2 * KEYS_WARPS) {
        const u32 next = query + KEYS_WARPS;
        keys_load_scales(&s[0], scale + query * splits, used);
        keys_load_scales(&s[1], scale + LESSER(next, group - 1) * splits, used);
        keys_weigh(weight + query * used, &s[0], used);
        if (next < group)
            keys_weigh(weight + next * used, &s[1], used);
    }
}

/* Four elements of KEYS_BATCH splits: from[i], from[i + step] .. below `used`, all on the way at
 * once. */
struct keys_batch {
    u32x4 v[KEYS_BATCH];
};

DEVICE void keys_load_splits(struct keys_batch *b, const float *from, u32 i, u32 step, u32 used)
{
    UNROLL
    for (u32 j = 0; j < KEYS_BATCH; j++)
        b->v[j] = load_l2_u32x4(from + (u64)LESSER(i + j * step, used - 1) * HEAD_DIM);
}

DEVICE void keys_add_splits(float sum[4], const struct keys_batch *b, const float *weight, u32 i,
                            u32 step, u32 used)
{
    UNROLL
    for (u32 j = 0; j < KEYS_BATCH; j++) {
        const float share = i + j * step < used ? weight[i + j * step] : 0.0f;
        sum[0] = f32_fma(share, f32_from_bits(b->v[j].x), sum[0]);
        sum[1] = f32_fma(share, f32_from_bits(b->v[j].y), sum[1]);
        sum[2] = f32_fma(share, f32_from_bits(b->v[j].z), sum[2]);
        sum[3] = f32_fma(share, f32_from_bits(b->v[j].w), sum[3]);
    }
}

DEVICE void keys_store(bf16 *to, const float sum[4])
{
    u32x2 packed;
    packed.x = bf16_pack(sum[0], sum[1]);
    packed.y = bf16_pack(sum[2], sum[3]);
    *(u32x2 *)(void *)to = packed;
}

/* Where the four elements that output number o of the group stands for begin, of the first split.
 */
DEVICE const float *keys_split(const float *out, u32 o, u32 splits)
{
    const u32 query = o / (HEAD_DIM / 4), e = o % (HEAD_DIM / 4) * 4;
    return out + (u64)query * splits * HEAD_DIM + e;
}

/* att of the group's queries, `to`, from what their blocks left. Where there are threads enough,
 * `sharers` have every so-manieth split of an element each. */
DEVICE void keys_combine(bf16 *to, float *shared, struct keys_scratch from, u32 group, u32 splits,
                         u32 used)
{
    const u32 all = group * (HEAD_DIM / 4), t = threadIdx.x;
    const u32 sharers = all < KEYS_THREADS ? KEYS_THREADS / all : 1;
    const u32 mine = LESSER(t / all, sharers - 1), step = sharers * KEYS_BATCH;
    f32x4 *parts = (f32x4 *)(void *)(shared + ROUND_UP(group * used, 4));
    struct keys_batch batch;
    keys_load_splits(&batch, keys_split(from.out, t % all, splits), mine, sharers, used);
    keys_shares(shared, from.scale, group, splits, used);
    block_sync();
    for (u32 o = t % all; o < all && t / all < sharers; o += KEYS_THREADS) {
        const float *out = keys_split(from.out, o, splits);
        const float *weight = shared + o / (HEAD_DIM / 4) * used;
        float sum[4] = {0, 0, 0, 0};
        for (u32 i = mine; i < used; i += step) {
            if (i != mine || o >= KEYS_THREADS)
                keys_load_splits(&batch, out, i, sharers, used);
            keys_add_splits(sum, &batch, weight, i, sharers, used);
        }
        const f32x4 part = {sum[0], sum[1], sum[2], sum[3]};
        if (sharers == 1)
            keys_store(to + o * 4, sum);
        else
            parts[mine * all + o] = part;
    }
    if (sharers == 1)
        return;
    block_sync();
    if (t < all) {
        float sum[4] = {0, 0, 0, 0};
        for (u32 i = 0; i < sharers; i++) {
            const f32x4 part = parts[i * all + t];
            sum[0] += part.x;
            sum[1] += part.y;
            sum[2] += part.z;
            sum[3] += part.w;
        }
        keys_store(to + t * 4, sum);
    }
}

/* Counts this block in at the row's kv head; 1 in its last one, which leaves the counter at 0. What
 * the other blocks left may then be read, from L2. */
DEVICE u32 keys_last(int *counter, u32 blocks, u32 *shared)
{
    block_sync();
    if (threadIdx.x == 0) {
        *shared = atomic_add_acq_rel_u32((u32 *)counter, 1) + 1 == blocks;
        if (*shared)
            *counter = 0;
    }
    block_sync();
    const u32 last = *shared;
    block_sync();
    return last;
}

/* Adds the teams' states: what this block makes of the group's queries, to scratch, of which it is
 * number blockIdx.x of `splits`; or, the only one, to att. */
DEVICE void keys_meet(struct keys_scratch to, bf16 *att, const float *shared, u32 group, u32 splits,
                      u32 alone)
{
    const float *out = shared + KEYS_TEAMS * group * 2;
    for (u32 o = threadIdx.x; o < group * HEAD_DIM; o += KEYS_THREADS) {
        const u32 query = o / HEAD_DIM;
        const u64 at = (u64)query * splits + blockIdx.x;
        float most = KEYS_NONE, sum = 0.0f, value = 0.0f;
        UNROLL
        for (u32 w = 0; w < KEYS_TEAMS; w++)
            most = f32_max(most, shared[(w * group + query) * 2]);
        UNROLL
        for (u32 w = 0; w < KEYS_TEAMS; w++) {
            const float *scale = shared + (w * group + query) * 2;
            const float weight = fast_exp2(scale[0] - most);
            sum = f32_fma(weight, scale[1], sum);
            value = f32_fma(weight, out[w * group * HEAD_DIM + o], value);
        }
        if (alone) {
            att[o] = bf16_from_f32(f32_divide(value, sum));
            continue;
        }
        to.out[at * HEAD_DIM + o % HEAD_DIM] = value;
        if (o % HEAD_DIM == 0) {
            const f32x2 scale = {most, sum};
            to.scale[at] = scale;
        }
    }
}

#endif

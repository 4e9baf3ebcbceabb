/* decode_attention.cu - att[m][dq]: each row's query heads over keys 0..position of its slot's
 * cache.
 *
 * KERNEL    the entry point's name
 * DM_M      rows, any number
 * HEADS, KV_HEADS (at most 16 query heads a kv head), HEAD_DIM, CONTEXT, PAGES, CUDA_SMS
 *
 * Floor: 4 E bytes of cache a key and kv head, read once for the whole group: its query heads are
 * the 16 rows of the matrix instruction. A group of 9 costs what one of 8 or of 1 does, since the
 * bytes are what takes time.
 *
 * KEYS_SPLITS blocks share the keys of a row and kv head, a step's tiles or more each; a block
 * reads how many it has from the slot's length, so that a graph is replayed as it is. Its warps
 * take tiles of 16 keys in turn, each with its own running maximum, and meet once, at the end.
 * Above head size 128 two warps take a tile together, half of a head's elements each, so that no
 * more than 128 are in a warp's registers: they add up their scores through shared memory, one
 * barrier of 64 threads a tile, and both take the weights. Keys and values go from the cache to
 * operands without shared memory: scores = q k^T: lane (g, i) takes elements 8 i .. 8 i + 7 of 32
 * of key g, of q as of k (decode_stream.h); out += p v: lane (g, i) takes elements 8 g .. 8 g + 7
 * of 64 of keys 2 i, 2 i + 1, 2 i + 8 and 2 i + 9; element 8 g + j is column g of product j, so
 * that pairs of keys are put together in registers, and a lane ends with sixteen elements of out in
 * a row. The next tile's keys and values are asked for as soon as the registers of this one's are
 * free.
 *
 * All keys but the token's own are older than this step: a warp loads its first tile before
 * dependent_wait(), while q is still being made.
 *
 * The last block of a row and kv head to end weighs and adds what all of them left, in their order;
 * where there is only one, it writes the result itself. */
#include "device.h"
#include "launch.h"
#include "archrt_cuda.h"

#ifndef KEYS_H
#define KEYS_H

#define KEYS_NONE (-1e30f) /* below every score */
enum {
    KEYS_SHARE = DIV_UP(DIV_UP(HEAD_DIM, KEYS_HALVES), 8) * 8, /* elements of a head, a warp's */
    KEYS_Q = DIV_UP(KEYS_SHARE, 32),                           /* pieces of them for scores */
    KEYS_V = DIV_UP(KEYS_SHARE, 64),                           /* and for out */
    KEYS_STEP = KEYS_TEAMS * KEYS_TILE,                        /* keys between a warp's tiles */
    KEYS_BATCH = 16                                            /* splits loaded at once */
};
STATIC_ASSERT(HEAD_DIM % 8 == 0 && KEYS_SHARE <= 128, "registers hold a warp's share of out");
STATIC_ASSERT(KV_PAGE % KEYS_TILE == 0, "a tile is of one page");

/* What a lane keeps: rows g and g + 8 are query heads of the group. */
struct keys_state {
    u32 q[KEYS_Q][8];        /* pieces of them: rows g, g + 8 of each word */
    float out[KEYS_V][8][4]; /* d of product j of 64 columns */
    float most[2], sum[2];   /* of each row's scores; sum of this lane's own keys */
};

/* Keys and values of a tile, as a lane gets them. */
struct keys_tile {
    u32x4 k[KEYS_Q][2];
    u32x4 v[KEYS_V][4];
};

/* A tile in the cache. */
struct keys_place {
    const bf16 *k, *v; /* the first key's */
    u32 keys;          /* of it that the row sees, 1.. */
};

/* Which keys and which elements of a head are this warp's. */
DEVICE u32 keys_team(void)
{
    return threadIdx.x / WARP / KEYS_HALVES;
}

DEVICE u32 keys_half(void)
{
    return KEYS_HALVES == 1 ? 0 : threadIdx.x / WARP % KEYS_HALVES;
}

/* Of the share's element e, the head's; whether there is one. */
DEVICE u32 keys_element(u32 e)
{
    return keys_half() * KEYS_SHARE + e;
}

DEVICE u32 keys_has(u32 e)
{
    return e < KEYS_SHARE &&
           (KEYS_SHARE * KEYS_HALVES == HEAD_DIM || keys_element(e) < (u32)HEAD_DIM);
}

/* The same for loads of eight: lanes that have none load the last ones again, with their
 * neighbours' sector. `pieces`: what the lanes' elements reach up to. */
DEVICE u32 keys_loaded(u32 e, u32 pieces)
{
    const u32 end = KEYS_SHARE - 8, at = keys_element(pieces > KEYS_SHARE && e > end ? end : e);
    const u32 last = HEAD_DIM - 8;
    return KEYS_SHARE * KEYS_HALVES > HEAD_DIM && at > last ? last : at;
}

/* The tile of `key` on, of a page. */
DEVICE struct keys_place keys_place(const bf16 *cache, u32 page, u32 key, u32 end)
{
    const u64 half = (u64)(KV_HEADS)*KV_PAGE * HEAD_DIM;
    struct keys_place at;
    at.k = cache + page * 2 * half + (blockIdx.y * KV_PAGE + key % KV_PAGE) * HEAD_DIM;
    at.v = at.k + half;
    at.keys = end - key;
    return at;
}

/* Lanes past the end of a head or of the keys load again what others do: their queries are 0 and
 * their weights are 0. From L2, in the order of the program. */
DEVICE void keys_load_k(struct keys_tile *tile, struct keys_place at)
{
    UNROLL
    for (u32 c = 0; c < KEYS_Q; c++) {
        const u32 e = c * 32 + lane_id() % 4 * 8;
        UNROLL
        for (u32 i = 0; i < 2; i++) {
            const u32 key = LESSER(lane_id() / 4 + 8 * i, at.keys - 1);
            tile->k[c][i] = load_l2_u32x4(at.k + key * HEAD_DIM + keys_loaded(e, KEYS_Q * 32));
        }
    }
}

DEVICE void keys_load_v(struct keys_tile *tile, struct keys_place at)
{
    UNROLL
    for (u32 c = 0; c < KEYS_V; c++) {
        const u32 e = c * 64 + lane_id() / 4 * 8;
        UNROLL
        for (u32 i = 0; i < 4; i++) {
            const u32 key = LESSER(lane_id() % 4 * 2 + i / 2 * 8 + i % 2, at.keys - 1);
            tile->v[c][i] = load_l2_u32x4(at.v + key * HEAD_DIM + keys_loaded(e, KEYS_V * 64));
        }
    }
}

/* A piece of the group's queries, `first` being the first one's; rows past the group are its last.
 */
DEVICE void keys_query(u32 q[8], const bf16 *first, u32 group, u32 piece)
{
    const u32 g = lane_id() / 4, e = piece * 32 + lane_id() % 4 * 8;
    u32x4 v[2] = {{0, 0, 0, 0}, {0, 0, 0, 0}};
    if (keys_has(e))
        UNROLL
    for (u32 i = 0; i < 2; i++)
        v[i] = *(const u32x4 *)(const void *)(first + LESSER(g + 8 * i, group - 1) * HEAD_DIM +
                                              keys_element(e));
    q[0] = v[0].x;
    q[1] = v[1].x;
    q[2] = v[0].y;
    q[3] = v[1].y;
    q[4] = v[0].z;
    q[5] = v[1].z;
    q[6] = v[0].w;
    q[7] = v[1].w;
}

/* score[i] is d of queries by keys 8 i .. 8 i + 7, over this warp's elements. */
DEVICE void keys_scores(float score[2][4], const struct keys_state *s, const struct keys_tile *tile)
{
    UNROLL
    for (u32 i = 0; i < 8; i++)
        score[i / 4][i % 4] = 0.0f;
    UNROLL
    for (u32 c = 0; c < KEYS_Q; c++)
        UNROLL
    for (u32 i = 0; i < 2; i++) {
        const u32x4 k = tile->k[c][i];
        const u32 b[4] = {k.x, k.y, k.z, k.w};
        mma_m16n8k16_bf16(score[i], s->q[c], b);
        mma_m16n8k16_bf16(score[i], s->q[c] + 4, b + 2);
    }
}

/* Adds the other half's sums. `turn`, even or odd, says where they pass, so that one barrier a tile
 * does: what a warp writes over was read before the barrier in between. */
DEVICE void keys_exchange(float score[2][4], f32x4 *shared, u32 turn)
{
    const u32 other = threadIdx.x ^ WARP;
    f32x4 *sums = shared + turn % 2 * KEYS_THREADS * 2;
    UNROLL
    for (u32 i = 0; i < 2; i++) {
        const f32x4 mine = {score[i][0], score[i][1], score[i][2], score[i][3]};
        sums[i * KEYS_THREADS + threadIdx.x] = mine;
    }
    barrier_sync(1 + keys_team(), KEYS_HALVES * WARP);
    UNROLL
    for (u32 i = 0; i < 2; i++) {
        const f32x4 theirs = sums[i * KEYS_THREADS + other];
        score[i][0] += theirs.x;
        score[i][1] += theirs.y;
        score[i][2] += theirs.z;
        score[i][3] += theirs.w;
    }
}

/* Scores, in units of log2, become weights relative to the new maximum; out and sum follow it. p is
 * the weights as operand A. */
DEVICE void keys_weights(u32 p[4], struct keys_state *s, float score[2][4], float scale, u32 keys)
{
    UNROLL
    for (u32 i = 0; i < 8; i++) {
        const u32 key = i / 4 * 8 + lane_id() % 4 * 2 + i % 2;
        score[i / 4][i % 4] = key < keys ? score[i / 4][i % 4] * scale : KEYS_NONE;
    }
    UNROLL
    for (u32 h = 0; h < 2; h++) {
        float *a = score[0] + 2 * h, *b = score[1] + 2 * h;
        float most = f32_max(f32_max(a[0], a[1]), f32_max(b[0], b[1]));
        most = f32_max(most, shuffle_xor_f32(most, 1, WARP));
        most = f32_max(s->most[h], f32_max(most, shuffle_xor_f32(most, 2, WARP)));
        const float fade = fast_exp2(s->most[h] - most);
        s->most[h] = most;
        a[0] = fast_exp2(a[0] - most);
        a[1] = fast_exp2(a[1] - most);
        b[0] = fast_exp2(b[0] - most);
        b[1] = fast_exp2(b[1] - most);
        s->sum[h] = s->sum[h] * fade + (a[0] + a[1] + (b[0] + b[1]));
        UNROLL
        for (u32 j = 0; j < KEYS_V * 8; j++) {
            s->out[j / 8][j % 8][2 * h] *= fade;
            s->out[j / 8][j % 8][2 * h + 1] *= fade;
        }
        p[h] = bf16_pack(a[0], a[1]);
        p[2 + h] = bf16_pack(b[0], b[1]);
    }
}

/* Half `j % 2` of word j / 2 of two keys' values, the first key's below. */
DEVICE u32 keys_pair(u32x4 first, u32x4 second, u32 j)
{
    const u32 a[4] = {first.x, first.y, first.z, first.w};
    const u32 b[4] = {second.x, second.y, second.z, second.w};
    return bytes_select(a[j / 2], b[j / 2], j % 2 ? 0x7632 : 0x5410);
}

DEVICE void keys_add(struct keys_state *s, const u32 p[4], const struct keys_tile *tile)
{
    UNROLL
    for (u32 c = 0; c < KEYS_V; c++) {
        const u32x4 *v = tile->v[c];
        UNROLL
        for (u32 j = 0; j < 8; j++) {
            const u32 b[2] = {keys_pair(v[0], v[1], j), keys_pair(v[2], v[3], j)};
            mma_m16n8k16_bf16(s->out[c][j], p, b);
        }
    }
}

/* Before any key. */
DEVICE void keys_begin(struct keys_state *s, const bf16 *first, u32 group)
{
    UNROLL
    for (u32 c = 0; c < KEYS_Q; c++)
        keys_query(s->q[c], first, group, c);
    UNROLL
    for (u32 i = 0; i < KEYS_V * 32; i++)
        s->out[i / 32][i / 4 % 8][i % 4] = 0.0f;
    s->most[0] = s->most[1] = KEYS_NONE;
    s->sum[0] = s->sum[1] = 0.0f;
}

/* A warp's tiles: the keys `key`.. , KEYS_STEP .. further, below `end`; the row's pages; the first
 * tile's place. */
struct keys_work {
    const bf16 *cache;
    const int *pages;
    u32 key, end;
    struct keys_place first;
};

DEVICE struct keys_place keys_tile_at(const struct keys_work *work, u32 key)
{
    return keys_place(work->cache, (u32)work->pages[key / KV_PAGE], key, work->end);
}

/* What can be done before q is there: the place of the first tile and, if all of it is older than
 * this step, its loads. Returns whether it is loaded. */
DEVICE u32 keys_start(struct keys_tile *tile, struct keys_work *work, u32 old)
{
    const u32 whole = work->key < work->end && work->key + KEYS_TILE <= old;
    if (work->key < work->end)
        work->first = keys_tile_at(work, work->key);
    if (whole) {
        keys_load_k(tile, work->first);
        keys_load_v(tile, work->first);
    }
    return whole;
}

/* This warp's tiles, the first of which is there. */
DEVICE void keys_run(struct keys_state *s, struct keys_tile *tile, const struct keys_work *work,
                     f32x4 *shared)
{
    const float scale = 1.44269504f / f32_sqrt((float)HEAD_DIM);
    u32 key = work->key;
    for (u32 turn = 0; key < work->end; key += KEYS_STEP, turn++) {
        const u32 next = key + KEYS_STEP, more = next < work->end;
        struct keys_place at = {work->cache, work->cache, 1};
        float score[2][4];
        u32 p[4];
        if (more)
            at = keys_tile_at(work, next);
        keys_scores(score, s, tile);
        if (more)
            keys_load_k(tile, at);
        if (KEYS_HALVES > 1)
            keys_exchange(score, shared, turn);
        keys_weights(p, s, score, scale, work->end - key);
        keys_add(s, p, tile);
        if (more)
            keys_load_v(tile, at);
    }
}

/* ---- what a block leaves ---- */

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

KERNEL_ENTRY(KEYS_THREADS, 2)
KERNEL(bf16 *att, const bf16 *q, const bf16 *cache, const int *RESTRICT slot,
       const int *RESTRICT length, const int *RESTRICT pages, void *scratch, int *counter)
{
    SHARED_ARENA(arena);
    const u32 heads = (u32)(HEADS), kv_heads = (u32)(KV_HEADS), group = heads / kv_heads;
    const u32 r = blockIdx.z, splits = (u32)KEYS_SPLITS(DM_M);
    const u64 head = (u64)r * heads + blockIdx.y * group;
    f32x4 *exchange = (f32x4 *)(void *)arena;
    float *states = (float *)(void *)(arena + KEYS_EXCHANGE);
    struct keys_state s;
    struct keys_tile tile;
    dependents_launch();
    const i32 mine = slot[r];
    const u32 old = mine >= 0 ? (u32)length[mine] : 0, keys = mine >= 0 ? old + 1 : 0;
    const u32 share = keys_tiles_of(keys, splits) * KEYS_TILE, first = blockIdx.x * share;
    struct keys_work work = {cache,
                             pages + mine * (i32)(PAGES),
                             first + keys_team() * KEYS_TILE,
                             LESSER(keys, first + share),
                             {cache, cache, 1}};
    const u32 loaded = keys_start(&tile, &work, old);
    dependent_wait();
    if (first >= keys)
        return;
    if (!loaded && work.key < work.end) {
        keys_load_k(&tile, work.first);
        keys_load_v(&tile, work.first);
    }
    keys_begin(&s, q + head * HEAD_DIM, group);
    keys_run(&s, &tile, &work, exchange);
    keys_publish(states, &s, group);
    block_sync();
    const u32 used = keys_splits_used(keys, splits);
    struct keys_scratch left = keys_scratch(scratch, DM_M, heads, splits);
    left.out += head * splits * HEAD_DIM;
    left.scale += head * splits;
    keys_meet(left, att + head * HEAD_DIM, states, group, splits, used == 1);
    if (used > 1 && keys_last(counter + r * kv_heads + blockIdx.y, used, (u32 *)(void *)states))
        keys_combine(att + head * HEAD_DIM, states, left, group, splits, used);
}

#undef KERNEL
#undef DM_M

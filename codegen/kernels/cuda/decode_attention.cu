/* decode_attention.cu - att[m][dq]: each row's query heads over keys 0..position of its slot's
 * cache.
 *
 * KERNEL    the entry points' name: KERNEL, KERNEL_2
 * DM_M      rows, any number
 * HEADS, KV_HEADS (at most 16 query heads a kv head), HEAD_DIM, CONTEXT, PAGES, CUDA_SMS
 *
 * Floor: 4 E bytes of cache a key and kv head, read once for the whole group: its query heads are
 * the 16 rows of the matrix instruction. A group of 9 costs what one of 8 or of 1 does, since the
 * bytes are what takes time.
 *
 * Pass 1: KEYS_SPLITS blocks share the keys of a row and kv head, four pages' tiles or more each; a
 * block reads how many it has from the position, so that a graph is replayed as it is. Its warps
 * take tiles of 16 keys in turn, each with its own running maximum, and meet once, at the end.
 * Above head size 128 two warps take a tile together, half of a head's elements each, so that no
 * more than 128 are in a warp's registers: they add up their scores through shared memory, one
 * barrier of 64 threads a tile, and both take the weights. Keys and values go from the cache to
 * operands without shared memory: scores = q k^T: lane (g, i) takes elements 8 i .. 8 i + 7 of 32
 * of key g, of q as of k (decode_stream.h); out += p v: lane (g, i) takes elements 8 g .. 8 g + 7
 * of 64 of keys 2 i, 2 i + 1, 2 i + 8 and 2 i + 9; element 8 g + j is column g of product j, so
 * that pairs of keys are put together in registers, and a lane ends with sixteen elements of out in
 * a row. The next tile's keys and values are asked for as soon as the registers of this one's are
 * free. Pass 2: a block a row and query head weighs and adds the splits in their order. */
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
    KEYS_STEP = KEYS_TEAMS * KEYS_TILE                         /* keys between a warp's tiles */
};
STATIC_ASSERT(HEAD_DIM % 8 == 0 && KEYS_SHARE <= 128, "registers hold a warp's share of out");
STATIC_ASSERT(KV_PAGE == KEYS_WARPS * KEYS_TILE, "a block's share of keys begins with a page");

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
    const u32 row = KEYS_HALVES == 1 ? keys_team() * KEYS_TILE : key % KV_PAGE;
    struct keys_place at;
    at.k = cache + page * 2 * half + (blockIdx.y * KV_PAGE + row) * HEAD_DIM;
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

/* This warp's tiles of the pages of keys key.. to end. */
DEVICE void keys_run(struct keys_state *s, const bf16 *cache, const int *pages, u32 key, u32 end,
                     f32x4 *shared)
{
    const float scale = 1.44269504f / f32_sqrt((float)HEAD_DIM);
    struct keys_tile tile;
    key += keys_team() * KEYS_TILE;
    if (key >= end)
        return;
    u32 page = (u32)pages[key / KV_PAGE];
    keys_load_k(&tile, keys_place(cache, page, key, end));
    keys_load_v(&tile, keys_place(cache, page, key, end));
    for (u32 turn = 0; key < end; key += KEYS_STEP, turn++) {
        const u32 next = key + KEYS_STEP, more = next < end;
        float score[2][4];
        u32 p[4];
        if (more)
            page = (u32)pages[next / KV_PAGE];
        keys_scores(score, s, &tile);
        if (more)
            keys_load_k(&tile, keys_place(cache, page, next, end));
        if (KEYS_HALVES > 1)
            keys_exchange(score, shared, turn);
        keys_weights(p, s, score, scale, end - key);
        keys_add(s, p, &tile);
        if (more)
            keys_load_v(&tile, keys_place(cache, page, next, end));
    }
}

/* ---- what a block leaves ---- */

/* Of the blocks of one row and kv head: tiles 4 b .. of each, so that every warp has one. */
DEVICE u32 keys_tiles_of(u32 length, u32 splits)
{
    const u32 tiles = DIV_UP(length, KEYS_TILE), share = DIV_UP(tiles, splits);
    return ROUND_UP(share, KEYS_WARPS);
}

/* Splits that have any keys. */
DEVICE u32 keys_splits_used(u32 length, u32 splits)
{
    return DIV_UP(length, keys_tiles_of(length, splits) * KEYS_TILE);
}

/* Pass 1's results in scratch: out[m][H][splits][E], then {maximum, sum}[m][H][splits]. */
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

#endif

/* Adds the teams' states: split blockIdx.x of the group's query heads, from `head` on, of row r. */
DEVICE void CONCAT(KERNEL, _meet)(struct keys_scratch to, const float *shared, u32 group, u64 head,
                                  u32 splits)
{
    const float *out = shared + KEYS_TEAMS * group * 2;
    for (u32 o = threadIdx.x; o < group * HEAD_DIM; o += KEYS_THREADS) {
        const u32 query = o / HEAD_DIM;
        const u64 at = (head + query) * splits + blockIdx.x;
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
        to.out[at * HEAD_DIM + o % HEAD_DIM] = value;
        if (o % HEAD_DIM == 0) {
            const f32x2 scale = {most, sum};
            to.scale[at] = scale;
        }
    }
}

KERNEL_ENTRY(KEYS_THREADS, KEYS_SHARE <= 64 ? 4 : 2)
KERNEL(bf16 *att, const bf16 *q, const bf16 *cache, const int *RESTRICT slot, const int *position,
       const int *RESTRICT pages, void *scratch, int *counter)
{
    SHARED_ARENA(arena);
    const u32 heads = (u32)(HEADS), kv_heads = (u32)(KV_HEADS), group = heads / kv_heads;
    const u32 r = blockIdx.z, splits = (u32)KEYS_SPLITS(DM_M);
    const u64 head = (u64)r * heads + blockIdx.y * group;
    f32x4 *exchange = (f32x4 *)(void *)arena;
    float *states = (float *)(void *)(arena + KEYS_EXCHANGE);
    struct keys_state s;
    (void)att, (void)counter;
    dependents_launch();
    const i32 mine = slot[r];
    const int *row_pages = pages + mine * (i32)(PAGES);
    if (mine >= 0 && threadIdx.x * 32 < (u32)(PAGES))
        prefetch_l2(row_pages + threadIdx.x * 32);
    dependent_wait();
    if (mine < 0)
        return;
    const u32 length = (u32)position[r] + 1, share = keys_tiles_of(length, splits);
    const u32 first = blockIdx.x * share * KEYS_TILE; /* key, of a page's first */
    if (first >= length)
        return;
    const u32 end = LESSER(length, first + share * KEYS_TILE);
    keys_begin(&s, q + head * HEAD_DIM, group);
    keys_run(&s, cache, row_pages, first, end, exchange);
    keys_publish(states, &s, group);
    block_sync();
    CONCAT(KERNEL, _meet)
    (keys_scratch(scratch, DM_M, heads, splits), states, group, head, splits);
}

KERNEL_ENTRY(KEYS_THREADS, 1)
CONCAT(KERNEL, _2)
(bf16 *att, const bf16 *q, const bf16 *cache, const int *RESTRICT slot, const int *position,
 const int *RESTRICT pages, void *scratch, int *counter)
{
    SHARED_ARENA(arena);
    enum { LANES = HEAD_DIM / 4, TEAMS = KEYS_THREADS / LANES };
    const u32 r = blockIdx.y, splits = (u32)KEYS_SPLITS(DM_M), t = threadIdx.x;
    const u64 head = (u64)r * (u32)(HEADS) + blockIdx.x;
    const struct keys_scratch from = keys_scratch(scratch, DM_M, (u32)(HEADS), splits);
    float *weight = (float *)(void *)arena, *warps = weight + KEYS_MAX_SPLITS;
    f32x4 *team_out = (f32x4 *)(void *)(warps + KEYS_WARPS), value = {0, 0, 0, 0};
    (void)q, (void)cache, (void)pages, (void)counter;
    dependents_launch();
    const i32 mine = slot[r];
    dependent_wait();
    if (mine < 0)
        return;
    const u32 used = keys_splits_used((u32)position[r] + 1, splits);
    const f32x2 none = {KEYS_NONE, 0.0f};
    const f32x2 scale = t < used ? from.scale[head * splits + t] : none;
    float most = warp_max(scale.x, WARP);
    if (t % WARP == 0)
        warps[t / WARP] = most;
    block_sync();
    most = f32_max(f32_max(warps[0], warps[1]), f32_max(warps[2], warps[3]));
    weight[t] = fast_exp2(scale.x - most);
    block_sync();
    const float sum = block_sum(weight[t] * scale.y, warps, KEYS_THREADS);
    const u32 lane = t % LANES, team = t / LANES;
    const f32x4 *out = (const f32x4 *)(const void *)(from.out + head * splits * HEAD_DIM) + lane;
    if (team < TEAMS)
        for (u32 i = team; i < used; i += TEAMS) {
            const f32x4 v = out[i * LANES];
            value.x = f32_fma(weight[i], v.x, value.x);
            value.y = f32_fma(weight[i], v.y, value.y);
            value.z = f32_fma(weight[i], v.z, value.z);
            value.w = f32_fma(weight[i], v.w, value.w);
        }
    team_out[t] = value;
    block_sync();
    if (t < LANES) {
        for (u32 i = 1; i < TEAMS; i++) {
            const f32x4 v = team_out[i * LANES + t];
            value.x += v.x;
            value.y += v.y;
            value.z += v.z;
            value.w += v.w;
        }
        const float norm = f32_divide(1.0f, sum);
        u32x2 packed;
        packed.x = bf16_pack(value.x * norm, value.y * norm);
        packed.y = bf16_pack(value.z * norm, value.w * norm);
        ((u32x2 *)(void *)(att + head * HEAD_DIM))[t] = packed;
    }
}

#undef KERNEL
#undef DM_M

/* decode_attention.cu - att[m][dq]: each row's query heads over keys 0..position of its slot's
 * cache.
 *
 * KERNEL    the entry point's name
 * DM_M      rows, 1..8
 * HEADS, KV_HEADS (at most 16 query heads a kv head), HEAD_DIM, CONTEXT, PAGES, CUDA_SMS, CUDA_ARCH
 *
 * Floor: 4 E bytes of cache a key and kv head, read once for the whole group: its query heads are
 * the 16 rows of the matrix instruction. What takes the time, up to some thousand keys, is one
 * latency behind the other once q is there; so the kernel is made to have few.
 *
 * KEYS_CLUSTERS clusters of KEYS_CLUSTER blocks share the keys of a row and kv head, whole steps
 * each; how many of them have any is read from the slot's length, so that a graph is replayed as it
 * is. Up to KEYS_ALONE keys it is one cluster. A block's teams take tiles of 32 keys in turn
 * (decode_pairs.h), each with its own running maximum, two tiles in registers: that of a tile which
 * was used is asked for again at once.
 *
 * All keys but the token's own are older than this step: they are asked for before
 * dependent_wait(), while q is still being made, and only rows of the token's own key behind it.
 *
 * The blocks of a cluster store what they made of their keys into the shared memory of the one that
 * adds up; several clusters meet by way of scratch, where the last one to come adds
 * (decode_meet.h). Where there are no clusters a block is one. */
#include "device.h"
#include "launch.h"
#include "archrt_cuda.h"

/* decode_keys.h, cut as this kernel wants it. */
#undef KEYS_HALVES
#define KEYS_HALVES ATTEND_PARTS
#include "decode_keys.h"
#include "decode_pairs.h"
#include "decode_meet.h"

#ifndef ATTEND_WORK_H
#define ATTEND_WORK_H

/* A team's tiles: the keys `key`.. , ATTEND_STEP .. further, below `end`. */
struct attend_work {
    const bf16 *cache; /* of the kv head */
    const int *pages;  /* of the row */
    u32 key, end;
    u32 page; /* of every 32 tiles, lane l has that of tile l */
};

/* Keys of each of a row's and kv head's blocks: whole steps. */
DEVICE u32 attend_share(u32 keys, u32 blocks)
{
    return ROUND_UP(DIV_UP(keys, blocks), (u32)ATTEND_STEP);
}

/* The place of tile n, whose keys below `end` are seen. Tiles are asked for in their order. */
DEVICE struct attend_place attend_next(struct attend_work *work, u32 n, u32 end)
{
    const u32 key = work->key + n * ATTEND_STEP, mine = key + lane_id() * ATTEND_STEP;
    if (n % WARP == 0)
        work->page = mine < work->end ? (u32)work->pages[mine / KV_PAGE] : 0;
    const u64 page = shuffle_u32(work->page, n % WARP, WARP);
    const struct attend_place at = {
        work->cache + page * 2 * ATTEND_VALUES + key % KV_PAGE * HEAD_DIM, end - key};
    return at;
}

/* Before q is there: asks for what is older than this step of a team's first tiles. */
DEVICE void attend_ask(struct attend_tile tile[ATTEND_TILES], struct attend_place at[ATTEND_TILES],
                       struct attend_work *work, u32 old)
{
    UNROLL
    for (u32 j = 0; j < ATTEND_TILES; j++) {
        const u32 key = work->key + j * ATTEND_STEP;
        if (key < work->end)
            at[j] = attend_next(work, j, LESSER(work->end, old));
        if (key < LESSER(work->end, old)) {
            attend_load_k(&tile[j], at[j]);
            attend_load_v(&tile[j], at[j]);
        }
    }
}

/* Behind the wait: the token's own key, number `old`, where it is one of those tiles'. */
DEVICE void attend_ask_own(struct attend_tile tile[ATTEND_TILES],
                           const struct attend_place at[ATTEND_TILES],
                           const struct attend_work *work, u32 old)
{
    UNROLL
    for (u32 j = 0; j < ATTEND_TILES; j++) {
        const u32 key = work->key + j * ATTEND_STEP, own = old - key;
        if (key < work->end && own < ATTEND_KEYS)
            attend_load_own(&tile[j], at[j].k, own);
    }
}

/* Tile n, which is there; its registers are asked for the team's tile after the next. */
DEVICE void attend_turn(struct keys_state *s, struct attend_tile *tile, struct attend_work *work,
                        u32 n, f32x4 *shared, float scale, u32 rows)
{
    const u32 key = work->key + n * ATTEND_STEP, next = n + ATTEND_TILES;
    const u32 more = key + ATTEND_TILES * ATTEND_STEP < work->end;
    struct attend_place at = {work->cache, 1};
    float score[2][2][4];
    u32 p[2][4] = {{0, 0, 0, 0}, {0, 0, 0, 0}};
    if (more)
        at = attend_next(work, next, work->end);
    attend_scores(score, s, tile);
    if (more)
        attend_load_k(tile, at);
    if (ATTEND_PARTS > 1)
        attend_exchange(score, shared, n, rows);
    if (work->end - key < ATTEND_KEYS)
        attend_hide(score, work->end - key);
    attend_weights(p, s, score, scale, 0);
    if (rows > 1)
        attend_weights(p, s, score, scale, 1);
    attend_add(s, p, tile);
    if (more)
        attend_load_v(tile, at);
}

DEVICE void attend_run(struct keys_state *s, struct attend_tile tile[ATTEND_TILES],
                       struct attend_work *work, f32x4 *shared, float scale, u32 rows)
{
    for (u32 n = 0; work->key + n * ATTEND_STEP < work->end; n += ATTEND_TILES)
        UNROLL
    for (u32 j = 0; j < ATTEND_TILES; j++)
        if (work->key + (n + j) * ATTEND_STEP < work->end)
            attend_turn(s, &tile[j], work, n + j, shared, scale, rows);
}

#endif

KERNEL_ENTRY(ATTEND_THREADS, 2)
KERNEL(bf16 *att, const bf16 *q, const bf16 *cache, const int *RESTRICT slot,
       const int *RESTRICT length, const int *RESTRICT pages, void *scratch, int *counter)
{
    SHARED_ARENA(arena);
    const u32 heads = (u32)(HEADS), kv_heads = (u32)(KV_HEADS), group = heads / kv_heads;
    const u32 cluster = (u32)KEYS_CLUSTER(DM_M), clusters = (u32)KEYS_CLUSTERS(DM_M);
    const u32 r = blockIdx.z, kv = blockIdx.x, unit = blockIdx.y / cluster;
    const u32 rows = (u32)ATTEND_ROWS;
    const u64 head = (u64)r * heads + kv * group;
    const u32 sums = group * ATTEND_PARTS * 2;
    const float scale = 1.44269504f / f32_sqrt((float)HEAD_DIM);
    u8 *states = arena + ATTEND_EXCHANGE;
    struct attend_room room = {(f32x4 *)(void *)states,
                               (u64 *)(void *)(states + ATTEND_STATES(DM_M)), cluster, 0,
                               blockIdx.y % cluster};
    struct keys_state s;
    struct attend_tile tile[ATTEND_TILES];
    struct attend_place at[ATTEND_TILES];
    dependents_launch();
    if (cluster > 1)
        attend_begin(room.barrier);
    const i32 mine = slot[r];
    const u32 old = mine >= 0 ? (u32)length[mine] : 0, keys = mine >= 0 ? old + 1 : 0;
    const u32 share = attend_share(keys, (keys > (u32)KEYS_ALONE(DM_M) ? clusters : 1) * cluster);
    const u32 first = blockIdx.y * share, used = keys ? DIV_UP(keys, share) : 0;
    struct attend_work work = {cache + (u64)kv * KV_PAGE * HEAD_DIM, pages + mine * (i32)(PAGES),
                               first + keys_team() * ATTEND_KEYS, LESSER(keys, first + share), 0};
    attend_ask(tile, at, &work, old);
    room.blocks = used > unit * cluster ? LESSER(used - unit * cluster, cluster) : 0;
    if (cluster > 1)
        attend_begun(&room, sums);
    dependent_wait();
    if (room.rank < room.blocks) {
        keys_begin(&s, q + head * HEAD_DIM, group);
        attend_ask_own(tile, at, &work, old);
        attend_run(&s, tile, &work, (f32x4 *)(void *)arena, scale, rows);
        attend_publish(&room, &s, group, 0);
        if (rows > 1)
            attend_publish(&room, &s, group, 1);
    }
    const u64 number = ((u64)r * kv_heads + kv) * sums;
    const struct attend_units units = {(struct attend_part *)scratch + number * 8 * clusters,
                                       counter + number, clusters,
                                       clusters > 1 ? DIV_UP(used, cluster) : 1, unit};
    attend_finish(att + head * HEAD_DIM, &room, &units, sums);
}

#undef KERNEL
#undef DM_M

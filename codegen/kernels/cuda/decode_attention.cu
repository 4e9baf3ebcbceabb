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
 * take tiles of 16 keys in turn (decode_keys.h), each with its own running maximum, and meet once,
 * at the end (decode_splits.h). The next tile's keys and values are asked for as soon as the
 * registers of this one's are free.
 *
 * All keys but the token's own are older than this step: a warp loads its first tile before
 * dependent_wait(), while q is still being made.
 *
 * The last block of a row and kv head to end adds up what all of them left; where there is only
 * one, it writes the result itself. */
#include "device.h"
#include "launch.h"
#include "archrt_cuda.h"

#include "decode_keys.h"
#include "decode_splits.h"

#ifndef KEYS_WORK_H
#define KEYS_WORK_H

enum { KEYS_STEP = KEYS_TEAMS * KEYS_TILE }; /* keys between a warp's tiles */

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

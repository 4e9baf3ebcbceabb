/* skinny_attention.cu - decode_attention.cu for 9 rows and more.
 *
 * KERNEL    the entry point's name
 * DM_M      rows, any number
 * HEADS, KV_HEADS (at most 16 query heads a kv head), HEAD_DIM, CONTEXT, PAGES, CUDA_SMS
 *
 * Floor: 4 E bytes of cache a key and kv head, read once for the whole group. They are many and
 * take all of the time, so everything here keeps them coming.
 *
 * Equal parts: a block a processor, resident all at once, each with an equal part of all tiles of
 * all rows, whose lengths may be as different as they like; each team of warps has an equal part of
 * that, and no barrier (skinny_pairs.h).
 *
 * A ring in shared memory, filled by cp.async, each lane's pieces its own (decode_ring.h): what is
 * under way holds no registers, and does not stop where one row ends and another begins, whose
 * queries come by the same ring. All that is older than this step is asked for before
 * dependent_wait().
 *
 * Ends once a block, not once a row: teams leave what they made of pairs that they share, which is
 * added up in the end, in the order of the sequence (skinny_pieces.h). */
#include "device.h"
#include "launch.h"
#include "archrt_cuda.h"

#include "decode_keys.h"
#include "decode_ring.h"
#include "skinny_pairs.h"
#include "skinny_pieces.h"

#ifndef SKINNY_TEAM_H
#define SKINNY_TEAM_H

STATIC_ASSERT(KEYS_SHARE == SKINNY_KEYS_SHARE, "launch_decode.h says how large a slot is");

/* The block's shared memory. `last` and what the end wants stand where the slots were. */
struct team_memory {
    u32 *ends;
    struct pair *left; /* [team][2]: of which it left a piece, none where tiles is 0 */
    struct pair *now;  /* [warp]: what it is at, and */
    struct part *part; /* its team's tiles: put down here while registers are wanted */
    f32x4 *exchange;
    struct pieces first, last; /* [team], number 0 and number 1 */
    u8 *slots;
};

DEVICE struct team_memory team_memory(u8 *arena, u32 rows, u32 group)
{
    struct team_memory m;
    m.ends = (u32 *)(void *)arena;
    arena += SKINNY_KEYS_ENDS(rows);
    m.left = (struct pair *)(void *)arena;
    m.now = m.left + 2 * SKINNY_KEYS_TEAMS;
    m.part = (struct part *)(void *)(m.now + SKINNY_KEYS_WARPS);
    arena += SKINNY_KEYS_NOTES;
    m.exchange = (f32x4 *)(void *)arena;
    arena += SKINNY_KEYS_EXCHANGE;
    m.first = pieces_in(arena, SKINNY_KEYS_TEAMS, group);
    m.slots = arena + SKINNY_KEYS_STATES;
    m.last = pieces_in(m.slots, SKINNY_KEYS_TEAMS, group);
    return m;
}

/* Says that the team left a piece of the pair under one of its two numbers. */
DEVICE void team_note(const struct team_memory *m, struct pair p, u32 number)
{
    if (lane_id() == 0 && keys_half() == 0)
        m->left[keys_team() * 2 + number] = p;
}

/* One tile, of which the row sees `keys`. Its slots are filled again as soon as operands are read.
 */
DEVICE void team_tile(struct keys_state *s, struct feed *f, const struct pairs *in, u32 keys,
                      f32x4 *exchange, u32 turn)
{
    const float scale = 1.44269504f / f32_sqrt((float)HEAD_DIM);
    struct keys_tile tile;
    float score[2][4];
    u32 p[4];
    feed_wait(f);
    keys_take_k(&tile, feed_slot(f));
    keys_scores(score, s, &tile);
    feed_refill(f, in, 0);
    if (KEYS_HALVES > 1)
        keys_exchange(score, exchange, turn);
    keys_weights(p, s, score, scale, keys);
    feed_wait(f);
    keys_take_v(&tile, feed_slot(f));
    keys_add(s, p, &tile);
    feed_refill(f, in, 1);
}

/* The next pair's queries are in the ring. */
DEVICE void team_queries(struct keys_state *s, struct feed *f, const struct pairs *in)
{
    feed_wait(f);
    keys_take_q(s, feed_slot(f));
    keys_clear(s);
    feed_refill(f, in, 0);
    feed_refill(f, in, 1);
}

/* The end of the team's tiles of a pair. */
DEVICE u32 team_until(struct part part, struct pair p)
{
    return LESSER(part.end, p.first + p.tiles);
}

/* The team's tiles of the pair that tile `at` is of. */
DEVICE void team_pair(struct keys_state *s, struct feed *f, const struct pairs *in, u32 at,
                      const struct team_memory *m, u32 *turn)
{
    const struct pair p = pair_find(in, at);
    const u32 warp = threadIdx.x / WARP;
    u32 tiles = team_until(m->part[warp], p) - at, keys = p.keys - (at - p.first) * KEYS_TILE;
    if (lane_id() == 0)
        m->now[warp] = p;
    for (; tiles; tiles--, keys -= KEYS_TILE, *turn += 1)
        team_tile(s, f, in, keys, m->exchange, *turn);
    warp_sync();
}

/* All of the team's tiles. 1: the last pair goes on behind them, its piece is still in registers.
 */
DEVICE u32 team_run(struct keys_state *s, struct feed *f, const struct pairs *in,
                    const struct team_memory *m, bf16 *att)
{
    u32 at = m->part[threadIdx.x / WARP].first, turn = 0;
    for (;;) {
        team_pair(s, f, in, at, m, &turn);
        const struct pair p = m->now[threadIdx.x / WARP];
        const struct part part = m->part[threadIdx.x / WARP];
        if (p.first < part.first) {
            piece_leave(m->first, keys_team(), s, in->group);
            team_note(m, p, 0);
        } else if (p.first + p.tiles > part.end) {
            return 1;
        } else {
            piece_store(att + (u64)p.number * in->group * HEAD_DIM, s, in->group);
        }
        at = team_until(part, p);
        if (at == part.end)
            return 0;
        warp_sync();
        team_queries(s, f, in);
    }
}

/* ---- the end of a block ---- */

/* Pairs that this block shares with others: one that began before it, one that begins in it. */
struct shared_pairs {
    struct pair before, begun; /* none where tiles is 0 */
};

/* Teams from `team` + 1 on whose piece number 0 is of the same pair. */
DEVICE u32 chain_teams(const struct pair *left, u32 team, u32 first)
{
    u32 end = team + 1;
    while (end < SKINNY_KEYS_TEAMS && left[end * 2].tiles && left[end * 2].first == first)
        end++;
    return end - team;
}

/* Adds up the teams' pieces of each pair that the block has alone, `alone`: results; or of those
 * that it shares: pieces in scratch. */
DEVICE struct shared_pairs block_meet(bf16 *att, struct pieces scratch, const struct team_memory *m,
                                      struct part block, u32 group, u32 alone)
{
    const struct pair none = {0, 0, 0, 0};
    struct shared_pairs shared = {none, none};
    for (u32 c = 0; c <= SKINNY_KEYS_TEAMS; c++) {
        const u32 begins = c > 0, team = begins ? c - 1 : 0;
        const struct pair p = m->left[team * 2 + begins];
        const u32 before = p.first < block.first;
        const u32 inside = !before && p.first + p.tiles <= block.end;
        if (p.tiles == 0 || inside != alone)
            continue;
        const struct chain chain = {begins ? m->last : m->first, m->first, team,
                                    chain_teams(m->left, team, p.first)};
        if (alone) {
            chain_store(att + (u64)p.number * group * HEAD_DIM, &chain, group);
        } else {
            chain_leave(scratch, blockIdx.x * 2 + !before, &chain, group);
            if (before)
                shared.before = p;
            else
                shared.begun = p;
        }
    }
    return shared;
}

/* Blocks that have parts of a pair. */
DEVICE struct part pair_blocks(struct pair p, u32 tiles, u32 blocks)
{
    const struct part b = {even_part(tiles, blocks, p.first),
                           even_part(tiles, blocks, p.first + p.tiles - 1) + 1};
    return b;
}

/* Counts the block in at a pair; 1 in the last one, which leaves the counter at 0. */
DEVICE u32 pair_last(int *counter, struct part blocks)
{
    const u32 last = atomic_add_acq_rel_u32((u32 *)counter, 1) + 1 == blocks.end - blocks.first;
    if (last)
        *counter = 0;
    return last;
}

/* Counts the block in at the pairs that it shares: last[2]. */
DEVICE void block_count_in(u32 *last, const struct shared_pairs *shared, int *counter, u32 tiles,
                           u32 blocks)
{
    block_sync();
    if (threadIdx.x < 2) {
        const struct pair p = threadIdx.x ? shared->begun : shared->before;
        last[threadIdx.x] =
            p.tiles ? pair_last(counter + p.number, pair_blocks(p, tiles, blocks)) : 0;
    }
}

/* Everything behind the block's last tile. Pairs shared with other blocks come first: their counts
 * are on the way while the others are added up. The last block at a pair writes its result. */
DEVICE void block_end(bf16 *att, void *scratch, int *counter, const struct pairs *in,
                      const struct team_memory *m)
{
    const u32 tiles = pairs_tiles(in), blocks = pairs_blocks(tiles), group = in->group;
    const struct part block = pairs_block(tiles, blocks);
    const struct pieces sums = pieces_in(scratch, (u32)(CUDA_SMS)*2, group);
    u32 *last = m->ends; /* as has been read */
    const struct shared_pairs shared = block_meet(att, sums, m, block, group, 0);
    const u32 any = shared.before.tiles | shared.begun.tiles;
    if (any)
        block_count_in(last, &shared, counter, tiles, blocks);
    block_meet(att, sums, m, block, group, 1);
    if (!any)
        return;
    block_sync();
    UNROLL
    for (u32 i = 0; i < 2; i++) {
        const struct pair p = i ? shared.begun : shared.before;
        if (i)
            block_sync();
        if (last[i])
            blocks_store(att + (u64)p.number * group * HEAD_DIM, m->slots, sums,
                         pair_blocks(p, tiles, blocks), group);
    }
}

#endif

KERNEL_ENTRY(SKINNY_KEYS_THREADS, SKINNY_KEYS_RESIDENT)
KERNEL(bf16 *att, const bf16 *q, const bf16 *cache, const int *RESTRICT slot,
       const int *RESTRICT length, const int *RESTRICT pages, void *scratch, int *counter)
{
    SHARED_ARENA(arena);
    const u32 rows = (u32)(DM_M), group = (u32)(HEADS) / (u32)(KV_HEADS);
    const u32 slots = (u32)SKINNY_KEYS_SLOTS(rows), warp = threadIdx.x / WARP;
    const struct team_memory m = team_memory(arena, rows, group);
    const struct pairs in = {q, cache, slot, length, pages, m.ends, rows, group};
    struct keys_state s;
    u32 goes_on = 0;
    dependents_launch();
    pairs_count(m.ends, slot, length, rows);
    const u32 tiles = pairs_tiles(&in), blocks = pairs_blocks(tiles);
    if (blockIdx.x >= blocks) {
        dependent_wait();
        return;
    }
    const struct part part = pairs_team(pairs_block(tiles, blocks));
    const struct pair none = {0, 0, 0, 0};
    team_note(&m, none, 0);
    team_note(&m, none, 1);
    if (lane_id() == 0)
        m.part[warp] = part;
    warp_sync();
    struct feed f = feed_begin(&in, part, m.slots + warp * (slots * KEYS_SLOT), slots);
    feed_fill(&f, &in);
    if (part.first < part.end) {
        keys_begin(&s, pair_q(&in, pair_find(&in, part.first).number), group);
        goes_on = team_run(&s, &f, &in, &m, att);
    }
    block_sync(); /* slots are empty */
    if (goes_on) {
        piece_leave(m.last, keys_team(), &s, group);
        team_note(&m, m.now[warp], 1);
    }
    block_sync();
    block_end(att, scratch, counter, &in, &m);
}

#undef KERNEL
#undef DM_M

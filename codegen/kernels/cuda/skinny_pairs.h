/* skinny_pairs.h - the work of skinny_attention.cu: which tiles are a team's, and how they come.
 *
 * A pair is a row and a kv head. All pairs' tiles of 16 keys stand in one sequence, row after row
 * and head after head, idle rows having none. Blocks have equal parts of it, teams equal parts of
 * their block's; so a team streams the end of one pair, perhaps whole ones, and the beginning of
 * another, whatever the rows' lengths. The cut depends on lengths alone. */
#ifndef SKINNY_PAIRS_H
#define SKINNY_PAIRS_H

#include "even_share.h"

/* What the step says of its rows; `ends`, in shared memory: tiles of one kv head of rows 0..r. */
struct pairs {
    const bf16 *q, *cache;
    const int *slot, *length, *pages;
    const u32 *ends;
    u32 rows, group;
};

/* One of them: its tiles in the sequence, its number, counted over all rows: whose heads, and whose
 * counter. `keys`: that the row sees. */
struct pair {
    u32 first, tiles, number, keys;
};

/* Tiles first.. to below end of the sequence. */
struct part {
    u32 first, end;
};

/* ---- the cut ----------------------------------------------------------------------------------
 */

DEVICE u32 pairs_keys(const int *slot, const int *length, u32 row)
{
    const i32 s = slot[row];
    return s < 0 ? 0 : (u32)length[s] + 1;
}

/* The whole block. */
DEVICE void pairs_count(u32 *ends, const int *slot, const int *length, u32 rows)
{
    for (u32 r = threadIdx.x; r < rows; r += SKINNY_KEYS_THREADS)
        ends[r] = DIV_UP(pairs_keys(slot, length, r), KEYS_TILE);
    block_sync();
    u32 before = 0;
    for (u32 r = lane_id(); threadIdx.x < WARP && r - lane_id() < rows; r += WARP) {
        u32 sum = r < rows ? ends[r] : 0;
        UNROLL
        for (u32 d = 1; d < WARP; d *= 2) {
            const u32 lower = shuffle_up_u32(sum, d, WARP);
            sum += lane_id() >= d ? lower : 0;
        }
        sum += before;
        if (r < rows)
            ends[r] = sum;
        before = shuffle_u32(sum, WARP - 1, WARP);
    }
    block_sync();
}

DEVICE u32 pairs_tiles(const struct pairs *in)
{
    return in->ends[in->rows - 1] * (u32)(KV_HEADS);
}

/* Blocks that have work: none has so little that a team goes without, but the last ones. */
DEVICE u32 pairs_blocks(u32 tiles)
{
    return LESSER((u32)(CUDA_SMS), DIV_UP(tiles, SKINNY_KEYS_TEAMS));
}

DEVICE struct part pairs_block(u32 tiles, u32 blocks)
{
    const struct part p = {even_share(tiles, blocks, blockIdx.x),
                           even_share(tiles, blocks, blockIdx.x + 1)};
    return p;
}

DEVICE struct part pairs_team(struct part block)
{
    const u32 tiles = block.end - block.first, teams = LESSER(tiles, SKINNY_KEYS_TEAMS);
    const u32 team = LESSER(keys_team(), teams), next = LESSER(keys_team() + 1, teams);
    const struct part p = {block.first + even_share(tiles, teams, team),
                           block.first + even_share(tiles, teams, next)};
    return p;
}

DEVICE u32 pairs_before(const struct pairs *in, u32 row)
{
    return row ? in->ends[row - 1] : 0;
}

/* The row that tile `at` is of: the first one to end behind it. */
DEVICE u32 pairs_row(const struct pairs *in, u32 at)
{
    u32 row = 0, last = in->rows - 1;
    while (row < last) {
        const u32 middle = (row + last) / 2;
        if (in->ends[middle] * (u32)(KV_HEADS) > at)
            last = middle;
        else
            row = middle + 1;
    }
    return row;
}

DEVICE struct pair pair_find(const struct pairs *in, u32 at)
{
    const u32 row = pairs_row(in, at), before = pairs_before(in, row);
    struct pair p;
    p.tiles = in->ends[row] - before;
    const u32 head = (at - before * (u32)(KV_HEADS)) / p.tiles;
    p.first = before * (u32)(KV_HEADS) + head * p.tiles;
    p.number = row * (u32)(KV_HEADS) + head;
    p.keys = pairs_keys(in->slot, in->length, row);
    return p;
}

/* The queries of a pair's group. */
DEVICE const bf16 *pair_q(const struct pairs *in, u32 number)
{
    return in->q + (u64)number * in->group * HEAD_DIM;
}

/* ---- the feed ----------------------------------------------------------------------------------
 *
 * A warp's slots are filled in turn, each behind its use: keys and values of a tile, and before the
 * tiles of every pair but the first its queries, as keys, and a slot without values. Each is a
 * group of copies, even where there is nothing to copy. */

struct feed {
    u32 tiles;      /* of the team that are still to come */
    u32 row, head;  /* the next one's */
    u32 key, keys;  /* its first key, of so many that the row sees */
    u32 queries;    /* 1: the pair's queries come first */
    u32 page;       /* number of the page that is next, on its way */
    const bf16 *at; /* the tile's keys */
    u8 *ring;       /* the warp's slots */
    u32 slots;      /* how many */
    u32 slot;       /* the one that is next to be used and filled */
};

DEVICE u8 *feed_slot(const struct feed *f)
{
    return f->ring + f->slot * KEYS_SLOT;
}

DEVICE void feed_turn(struct feed *f)
{
    f->slot = f->slot + 1 == f->slots ? 0 : f->slot + 1;
}

/* Asks for the number of a page of the row. */
DEVICE void feed_ask(struct feed *f, const struct pairs *in, u32 page)
{
    f->page = (u32)in->pages[in->slot[f->row] * (i32)(PAGES) + (i32)page];
}

/* The page's number is there: where the tile's keys are. Asks for the next page's number. */
DEVICE void feed_page(struct feed *f, const struct pairs *in)
{
    const u64 half = (u64)(KV_HEADS)*KV_PAGE * HEAD_DIM;
    const u32 next = f->key / KV_PAGE + 1;
    f->at = in->cache + f->page * 2 * half + (f->head * KV_PAGE + f->key % KV_PAGE) * HEAD_DIM;
    if (next * KV_PAGE < f->keys)
        feed_ask(f, in, next);
}

DEVICE struct feed feed_begin(const struct pairs *in, struct part part, u8 *ring, u32 slots)
{
    struct feed f = {part.end - part.first, 0, 0, 0, 0, 0, 0, in->cache, ring, slots, 0};
    if (part.first < part.end) {
        const struct pair p = pair_find(in, part.first);
        f.row = p.number / (u32)(KV_HEADS);
        f.head = p.number % (u32)(KV_HEADS);
        f.key = (part.first - p.first) * KEYS_TILE;
        f.keys = p.keys;
        feed_ask(&f, in, f.key / KV_PAGE);
        feed_page(&f, in);
    }
    return f;
}

/* The next pair, which there is. */
DEVICE void feed_next(struct feed *f, const struct pairs *in)
{
    f->key = 0;
    f->queries = 1;
    f->head++;
    if (f->head == (u32)(KV_HEADS)) {
        f->head = 0;
        do
            f->row++;
        while (in->ends[f->row] == in->ends[f->row - 1]);
        f->keys = pairs_keys(in->slot, in->length, f->row);
    }
    feed_ask(f, in, 0);
}

/* Is all of the next half tile older than this step? */
DEVICE u32 feed_old(const struct feed *f)
{
    return f->tiles == 0 || (!f->queries && f->key + KEYS_TILE < f->keys);
}

/* The next tile's keys, or queries. */
DEVICE void feed_keys(u8 *slot, struct feed *f, const struct pairs *in)
{
    if (f->tiles) {
        if (f->queries)
            keys_copy_k(slot, pair_q(in, f->row * (u32)(KV_HEADS) + f->head), in->group);
        else
            keys_copy_k(slot, f->at, f->keys - f->key);
    }
    copy_async_commit();
}

/* Behind a tile's values: on to the next one. */
DEVICE void feed_advance(struct feed *f, const struct pairs *in)
{
    f->tiles--;
    f->key += KEYS_TILE;
    f->at += KEYS_TILE * HEAD_DIM;
    if (f->key % KV_PAGE != 0 && f->key < f->keys)
        return;
    if (f->tiles == 0)
        return;
    if (f->key >= f->keys)
        feed_next(f, in);
    else
        feed_page(f, in);
}

/* Its values, or nothing. */
DEVICE void feed_values(u8 *slot, struct feed *f, const struct pairs *in)
{
    if (f->tiles) {
        if (f->queries) {
            f->queries = 0;
            feed_page(f, in);
        } else {
            keys_copy_v(slot, f->at + (u64)(KV_HEADS)*KV_PAGE * HEAD_DIM, f->keys - f->key);
            feed_advance(f, in);
        }
    }
    copy_async_commit();
}

/* Fills all slots; what is of this step, once it is there. */
DEVICE void feed_fill(struct feed *f, const struct pairs *in)
{
    u32 waited = 0;
    for (u32 n = 0; n < f->slots; n++) {
        if (!waited && (n >= SKINNY_KEYS_AHEAD || !feed_old(f))) {
            dependent_wait();
            waited = 1;
        }
        if (n % 2)
            feed_values(f->ring + n * KEYS_SLOT, f, in);
        else
            feed_keys(f->ring + n * KEYS_SLOT, f, in);
    }
    if (!waited)
        dependent_wait();
}

/* Fills the slot that was used, of values or not, with what comes `slots` later. Values behind keys
 * (an odd number of slots) are not in places of the same lanes, but for multiples of 64 elements.
 */
DEVICE void feed_refill(struct feed *f, const struct pairs *in, u32 values)
{
    if (f->slots % 2 && KEYS_SHARE % 64 != 0)
        warp_sync();
    if ((f->slots + values) % 2)
        feed_values(feed_slot(f), f, in);
    else
        feed_keys(feed_slot(f), f, in);
    feed_turn(f);
}

/* Until the next slot's copies have arrived. */
DEVICE void feed_wait(const struct feed *f)
{
    switch (f->slots) {
    case 2:
        copy_async_wait(1);
        break;
    case 3:
        copy_async_wait(2);
        break;
    case 4:
        copy_async_wait(3);
        break;
    case 5:
        copy_async_wait(4);
        break;
    case 6:
        copy_async_wait(5);
        break;
    case 7:
        copy_async_wait(6);
        break;
    case 8:
        copy_async_wait(7);
        break;
    case 9:
        copy_async_wait(8);
        break;
    case 10:
        copy_async_wait(9);
        break;
    case 11:
        copy_async_wait(10);
        break;
    default:
        copy_async_wait(11);
        break;
    }
}

#endif

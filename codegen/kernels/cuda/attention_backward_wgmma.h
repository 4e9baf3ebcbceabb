/* attention_backward_wgmma.h - passes 2 and 3 of attention_backward.cu on sm_90a.
 *
 * Pass 2: a block owns 128 keys of a kv head and goes over the tiles of 64 rows that see them, the
 * last tile first. dk and dv stay in registers. Warps 0..3 copy, each rows of q or of datt of every
 * other tile. Two groups of four warps take 64 keys each:
 *
 *   p^T = e^(k q^T - lse)      [key][row], A k, B q, both along
 *   ds^T = p^T (v datt^T - delta)
 *   dv += p^T datt, dk += ds^T q    A from registers, B across
 *   dq = ds k                  A ds^T across, from shared memory: both groups' keys; B k across
 *
 * dq is added to fp32 sums in scratch, straight from registers. Up to head size 64 the groups make
 * it in turn, a tile each, when the next tile's dk and dv are made, and the scores and dp of the
 * one after run ahead, so that softmax is hidden and groups need not be in step. Above, registers
 * are too few for that, and a group makes the columns before or from 64.
 *
 * Many blocks add to one tile, so they take turns, the block with the first keys first: the order
 * of every sum is fixed. Those who copy wait for turns and hand them on. Blocks of a head run a
 * tile or two apart. A block draws its work from a counter, and so waits only for blocks that have
 * begun. Some heads at a time, the first keys, which are most work, come first: enough heads that
 * blocks of one start their distance apart, few enough that L2 holds what they all add to.
 *
 * Pass 3: sums to bf16.
 *
 * Tiles are as TMA would write them: panels of 64 elements, rows of 128 bytes, swizzled. Columns
 * past the head are zeros where a product reads them. */
#include "device_sm90.h"
#include "mma_tile.h"

#define TILE_ROWS FLASH_BACK_ROWS
#define ALL_TILES FLASH_BACK_TILES((u32)(ATT_T))
#define BLOCK_KEYS 128
#define PANELS DIV_UP(HEAD_DIM, 64)
#define KEY_PANEL (BLOCK_KEYS * 128) /* bytes */
#define ROW_PANEL (TILE_ROWS * 128)
#define KEY_TILE (PANELS * KEY_PANEL)
#define ROW_TILE (PANELS * ROW_PANEL)
#define TERM_TILE (BLOCK_KEYS * TILE_ROWS * 2) /* of ds */
#define STAGES FLASH_BACK_STAGES(HEAD_DIM)
#define BUFFERS (2 * STAGES)
#define TERMS FLASH_BACK_TERMS(HEAD_DIM)
#define EVEN_PIECES (DIV_UP(HEAD_DIM, 16) * 2)
#define SUM_PIECES (HEAD_DIM <= 64 ? PIECES : 8) /* of dq, a group's */
#define SUM_SIZE (TILE_ROWS * HEAD_DIM)          /* floats of a tile */
#define TURN (HEAD_DIM <= 64 ? 5 : 3)            /* half tiles from block to block */
#define HEADS_AT_ONCE                                                                              \
    (ALL_TILES < 8 * TURN ? DIV_UP(TURN * CUDA_SMS, ALL_TILES) : DIV_UP((u32)CUDA_SMS, 8))
#define EARLY 2 /* steps of 16 rows whose dv starts before dp is there */
#define MULTIPLY_ROWS wgmma_n64
#define MULTIPLY_HELD CONCAT(CONCAT(wgmma_n, HEAD_DIM), _held_across)
#if HEAD_DIM <= 64
#define MULTIPLY_SUM CONCAT(CONCAT(wgmma_n, HEAD_DIM), _both_across)
#else
#define MULTIPLY_SUM wgmma_n64_both_across
#endif

STATIC_ASSERT(TILE_ROWS == 64, "products as wide as a tile has rows");

struct PART(block) {
    u8 *keys, *values, *ring, *terms;
    float *numbers;       /* lse and delta of the buffers' rows */
    u64 *full, *empty;    /* mbarriers of the buffers: q, datt of each stage */
    u64 *granted, *added; /* of each stage: the turn to add dq has come; it is added */
    u64 *shared;          /* of even and odd tiles: ds of both groups is there */
    u32 *ticket;
};

/* What it works on: a head's keys from `key` on, the tiles from `tile` on. */
struct PART(place) {
    u32 sequence, kv, key, tile;
};

DEVICE struct PART(place) PART(place_of)(u32 ticket)
{
    struct PART(place) p;
    const u32 all = (u32)(ATT_B) * (u32)(KV_HEADS), blocks = DIV_UP((u32)(ATT_T), BLOCK_KEYS);
    const u32 first = ticket / (HEADS_AT_ONCE * blocks) * HEADS_AT_ONCE;
    const u32 at_once = all - first < HEADS_AT_ONCE ? all - first : HEADS_AT_ONCE;
    const u32 at = ticket - first * blocks, head = first + at % at_once;
    p.sequence = head / (u32)(KV_HEADS);
    p.kv = head % (u32)(KV_HEADS);
    p.key = at / at_once * BLOCK_KEYS;
    p.tile = p.key * ((u32)(HEADS) / (u32)(KV_HEADS)) / TILE_ROWS;
    return p;
}

DEVICE u32 *PART(turns_of)(void *scratch)
{
    return (u32 *)(void *)(PART(delta_of)(scratch) + (u64)(ATT_B) * (u32)(ATT_T) * (u32)(HEADS));
}

/* Where 16 bytes of a tile of `rows` rows are. */
DEVICE u32 PART(piece)(u32 rows, u32 row, u32 piece)
{
    return piece / 8 * (rows * 128) + row * 128 + (piece % 8 ^ row % 8) * 16;
}

/* ---- copying ---- */

/* By one warp: rows first.. of q or of datt, tokens `row` elements apart, and their number. Each
 * lane finds where two of the rows are, and eight lanes at a time copy one. */
DEVICE void PART(copy_rows)(u8 *tile, float *numbers, const bf16 *from, const float *number,
                            u32 row, u32 first)
{
    const u32 group = (u32)(HEADS) / (u32)(KV_HEADS), rows = (u32)(ATT_T)*group, none = ~0u;
    u32 at[TILE_ROWS / WARP];
    UNROLL
    for (u32 h = 0; h < TILE_ROWS / WARP; h++) {
        const u32 i = h * WARP + lane_id(), r = first + i, token = r / group, head = r % group;
        at[h] = r < rows ? token * row + head * HEAD_DIM : none;
        if (r < rows)
            copy_async_4(numbers + i, number + (u64)token * (u32)(HEADS) + head);
        else
            numbers[i] = 0.0f; /* p is 1 and ds 0 there, times a datt and q of 0 */
    }
    /* Four rows on, all there is to an address is a constant: 128 bytes a row, and its swizzle. */
    const u32 p0 = lane_id() % 8, even = PART(piece)(TILE_ROWS, lane_id() / 8, p0), odd = even ^ 64;
    UNROLL
    for (u32 h = 0; h < TILE_ROWS / WARP; h++) {
        u32 there[8];
        UNROLL
        for (u32 k = 0; k < 8; k++)
            there[k] = shuffle_u32(at[h], k * 4 + lane_id() / 8, WARP);
        UNROLL
        for (u32 k = 0; k < 8; k++) {
            const u32 bytes = there[k] == none ? 0 : 16, down = (h * WARP + k * 4) * 128;
            const bf16 *head = from + (bytes ? there[k] : 0);
            UNROLL
            for (u32 p = p0; p < EVEN_PIECES; p += 8)
                copy_async_16_part(tile + (p - p0) / 8 * ROW_PANEL + (k % 2 ? odd : even) + down,
                                   p < PIECES ? head + p * 8 : from, p < PIECES ? bytes : 0);
        }
    }
}

/* The turn of key block `mine` has come. */
DEVICE void PART(await_turn)(const struct PART(block) * b, const u32 *turns, u32 i, u32 mine)
{
    if (lane_id() == 0) {
        while (load_acquire_u32(turns - i) != mine)
            spin_pause();
        mbarrier_arrive(b->granted + i % STAGES);
    }
    warp_sync();
}

/* When dq of tile i is added, it is the next block's turn. */
DEVICE void PART(hand_on)(const struct PART(block) * b, u32 *turns, u32 i, u32 mine)
{
    mbarrier_wait(b->added + i % STAGES, i / STAGES & 1);
    if (lane_id() == 0)
        store_release_u32(turns - i, mine + 1);
}

/* What warps 0..3 do: two copy q and hand on turns, two copy datt and wait for turns, each of every
 * other tile. Turns from the last tile's on, backwards. Waiting for another block, and telling one,
 * takes a way to L2 and back: here it keeps nobody from multiplying. */
DEVICE void PART(feed)(const struct PART(head) * h, const struct PART(block) * b, u32 *turns,
                       u32 tiles, u32 mine)
{
    const u32 kind = threadIdx.x / WARP % 2;
    const bf16 *from = kind ? h->datt : h->q;
    const float *number = kind ? h->delta : h->lse;
    const u64 row = kind ? h->att_row : h->row;
    const u32 end = tiles + STAGES - 1; /* of turns; in one register, so i is what is added to */
    for (u32 i = threadIdx.x / WARP / 2; i < end; i += 2) {
        const u32 own = i % STAGES * 2 + kind, copies = i + STAGES - 1 < end;
        if (i + 1 < end)
            mbarrier_wait(b->empty + own, ~(i / STAGES) & 1); /* tile i - STAGES is done with */
        if (copies)
            PART(copy_rows)
        (b->ring + own * ROW_TILE, b->numbers + own * TILE_ROWS, from, number, (u32)row,
         (ALL_TILES - 1 - i) * TILE_ROWS);
        copy_async_commit();
        if (kind == 0 && i >= STAGES)
            PART(hand_on)(b, turns, i - STAGES, mine);
        copy_async_wait(0);
        fence_proxy_async();
        warp_sync();
        if (lane_id() == 0 && copies)
            mbarrier_arrive(b->full + own);
        if (kind == 1 && i + 2 >= STAGES && i + 1 < end)
            PART(await_turn)(b, turns, i + 2 - STAGES, mine);
    }
}

/* The group's 64 keys and values, by its own threads. Keys past the sequence's end are 0. */
DEVICE void PART(copy_keys)(const struct PART(head) * h, const struct PART(block) * b, u32 first,
                            u32 group)
{
    const u32 r = threadIdx.x % 128 / 8;
    UNROLL
    for (u32 i = 0; i < 64; i += 16) {
        const u32 row = group * 64 + r + i, key = first + row, inside = key < (u32)(ATT_T);
        const bf16 *k = inside ? h->k + key * h->row : h->k;
        UNROLL
        for (u32 j = 0; j < PANELS; j++) {
            const u32 p = threadIdx.x % 8 + j * 8, at = PART(piece)(BLOCK_KEYS, row, p);
            const bf16 *from = p < PIECES ? k + p * 8 : k;
            const u32 bytes = inside && p < PIECES ? 16 : 0;
            copy_async_16_part(b->keys + at, from, bytes);
            copy_async_16_part(b->values + at, from + (h->v - h->k), bytes);
        }
    }
    copy_async_commit();
    copy_async_wait(0);
    fence_proxy_async();
    barrier_sync(1 + group, 128);
}

/* ---- products ---- */

/* Starts c[64 keys][rows] = a b^T over the head's elements. */
DEVICE void PART(start_dot)(float c[TILE_ROWS / 8][4], const u8 *a, const u8 *b)
{
    const u64 keys = here_u64(wgmma_along(a, 128)), rows = here_u64(wgmma_along(b, 128));
    wgmma_fence();
    UNROLL
    for (u32 e = 0; e < EVEN_PIECES / 2; e++)
        MULTIPLY_ROWS((float *)(void *)c, keys + e / 4 * (KEY_PANEL / 16) + e % 4 * 2,
                      rows + e / 4 * (ROW_PANEL / 16) + e % 4 * 2, e);
    wgmma_commit();
}

/* Starts sums[64 keys][the head's elements] += a b, over rows 16 `from`.. of b. */
DEVICE void PART(start_sum)(float sums[PIECES][4], u32 a[TILE_ROWS / 16][4], const u8 *b, u32 from,
                            u32 to, u32 more)
{
    const u64 rows = here_u64(wgmma_across(b, 128, ROW_PANEL));
    UNROLL
    for (u32 k = from; k < to; k++)
        MULTIPLY_HELD((float *)(void *)sums, a[k], rows + k * 128, k > from ? 1 : more);
}

/* Starts the group's part of dq = ds k: up to head size 64 all of it, else 64 columns. */
DEVICE void PART(start_dq)(float dq[SUM_PIECES][4], const u8 *terms, const u8 *keys, u32 group)
{
    const u32 columns = HEAD_DIM <= 64 ? 0 : group;
    const u64 a = here_u64(wgmma_across(terms, 128, KEY_PANEL));
    const u64 b = here_u64(wgmma_across(keys + columns * KEY_PANEL, 128, KEY_PANEL));
    UNROLL
    for (u32 k = 0; k < BLOCK_KEYS / 16; k++)
        MULTIPLY_SUM((float *)(void *)dq, a + k * 128, b + k * 128, k);
}

/* ---- p and ds ---- */

/* Takes out the keys that rows first.. do not see: row r sees key k where k G <= r, so that `least`
 * is the first to see this thread's first key. */
DEVICE void PART(mask)(float scores[TILE_ROWS / 8][4], u32 least, u32 group, u32 first)
{
    const u32 row = first + lane_id() % 4 * 2, other = least + 8 * (u32)here_u64(group);
    UNROLL
    for (u32 n = 0; n < TILE_ROWS / 8; n++)
        UNROLL
    for (u32 j = 0; j < 4; j++)
        if ((j < 2 ? least : other) > row + n * 8 + j % 2)
            scores[n][j] = f32_from_bits(0xff800000u);
}

/* Scores become p, of rows 16 `from`.. */
DEVICE void PART(probabilities)(float scores[TILE_ROWS / 8][4], const float *lse, u32 from, u32 to)
{
    const float factor = 1.44269504f * fast_rsqrt((float)HEAD_DIM);
    UNROLL
    for (u32 n = 2 * from; n < 2 * to; n++) {
        const f32x2 l = *(const f32x2 *)(const void *)(lse + n * 8 + lane_id() % 4 * 2);
        UNROLL
        for (u32 j = 0; j < 4; j++)
            scores[n][j] =
                fast_exp2(f32_fma(scores[n][j], factor, -1.44269504f * (j % 2 ? l.y : l.x)));
    }
}

/* dp becomes ds. */
DEVICE void PART(terms)(float dp[TILE_ROWS / 8][4], float p[TILE_ROWS / 8][4], const float *delta)
{
    UNROLL
    for (u32 n = 0; n < TILE_ROWS / 8; n++) {
        const f32x2 d = *(const f32x2 *)(const void *)(delta + n * 8 + lane_id() % 4 * 2);
        UNROLL
        for (u32 j = 0; j < 4; j++)
            dp[n][j] = p[n][j] * (dp[n][j] - (j % 2 ? d.y : d.x));
    }
}

/* As A of a product, rows 16 `from`.. */
DEVICE void PART(hold)(u32 held[TILE_ROWS / 16][4], float d[TILE_ROWS / 8][4], u32 from, u32 to)
{
    UNROLL
    for (u32 k = from; k < to; k++)
        mma_a_from_d(held[k], d[2 * k], d[2 * k + 1]);
}

/* The warp's sixteen keys of ds to the tile [key][row], four blocks of 8 x 8 at a time. */
DEVICE void PART(share_terms)(u8 *tile, u32 ds[TILE_ROWS / 16][4])
{
    const u32 l = lane_id(), key = (threadIdx.x - 128) / WARP * 16 + l % 16;
    const u32 at = (u32)here_u64(PART(piece)(BLOCK_KEYS, key, l / 16));
    UNROLL
    for (u32 k = 0; k < TILE_ROWS / 16; k++) /* two pieces on */
        stmatrix_x4(tile + (at ^ k * 32), ds[k]);
    fence_proxy_async();
}

/* ---- sums of dq ---- */

/* The turn to add to tile i. */
DEVICE void PART(await_grant)(const struct PART(block) * b, u32 i)
{
    mbarrier_wait(b->granted + i % STAGES, i / STAGES & 1);
}

/* Sums of a tile are [piece][thread of a group][4], as they lie in registers. */
DEVICE void PART(add)(const struct PART(block) * b, float *sums, float dq[SUM_PIECES][4], u32 i,
                      u32 group, u32 first_turn)
{
    const u32 part = HEAD_DIM <= 64 ? 0 : group;
    float *to = sums + (part * SUM_PIECES * 128 + threadIdx.x % 128) * 4;
    const u32 pieces = part ? PIECES - SUM_PIECES : SUM_PIECES;
    f32x4 v[SUM_PIECES];
    UNROLL
    for (u32 n = 0; n < SUM_PIECES; n++) {
        v[n].x = dq[n][0];
        v[n].y = dq[n][1];
        v[n].z = dq[n][2];
        v[n].w = dq[n][3];
    }
    if (first_turn) {
        UNROLL
        for (u32 n = 0; n < SUM_PIECES; n++)
            if (n < pieces)
                *(f32x4 *)(void *)(to + n * 512) = v[n];
    } else {
        UNROLL
        for (u32 n = 0; n < SUM_PIECES; n++)
            if (n < pieces)
                add_f32x4(to + n * 512, v[n]);
    }
    warp_sync();
    if (lane_id() == 0)
        mbarrier_arrive(b->added + i % STAGES);
}

/* ---- pass 2 ---- */

/* 64 keys' sums to qkv rows, as bf16. */
DEVICE void PART(store_keys)(bf16 *to, float sums[PIECES][4], u64 row, u32 key, float scale)
{
    const u32 q = lane_id() % 4;
    UNROLL
    for (u32 h = 0; h < 2; h++) {
        const u32 at = key + h * 8 + lane_id() / 4;
        UNROLL
        for (u32 n = 0; n < PIECES; n += 4) {
            u32 d[4];
            UNROLL
            for (u32 j = 0; j < 4; j++) {
                const u32 piece = n + j < PIECES ? n + j : n;
                d[j] = bf16_pack(sums[piece][2 * h] * scale, sums[piece][2 * h + 1] * scale);
            }
            const u32x4 v = mma_gather(d);
            if (at < (u32)(ATT_T) && n + q < PIECES)
                store_u32x4(to + at * row + (n + q) * 8, v);
        }
    }
}

/* Where the work is is found anew: in the loop its registers are needed. */
DEVICE void PART(store)(bf16 *dqkv, const struct PART(block) * b, float dk[PIECES][4],
                        float dv[PIECES][4])
{
    const struct PART(place) at = PART(place_of)(*b->ticket);
    const u64 dq = (u64)(HEADS)*HEAD_DIM, dkv = (u64)(KV_HEADS)*HEAD_DIM, row = dq + 2 * dkv;
    const u32 key = at.key + (threadIdx.x - 128) / WARP * 16;
    bf16 *to = dqkv + (u64)at.sequence * (u32)(ATT_T)*row + dq + at.kv * HEAD_DIM;
    PART(store_keys)(to, dk, row, key, fast_rsqrt((float)HEAD_DIM));
    PART(store_keys)(to + dkv, dv, row, key, 1.0f);
}

/* A group's work. */
struct PART(group) {
    const u8 *keys, *values; /* its own 64 */
    float *sums;             /* of the last tile, where it begins */
    u32 group, heads;
    u32 least, all_see; /* the first rows to see the thread's first key, and all of the block's */
};

DEVICE struct PART(group)
    PART(group_of)(void *scratch, const struct PART(block) * b, const struct PART(place) * at)
{
    const u64 last = ((u64)at->sequence * (u32)(KV_HEADS) + at->kv + 1) * ALL_TILES - 1;
    struct PART(group) g;
    g.group = shuffle_u32(threadIdx.x / 128 - 1, 0, WARP);
    g.heads = (u32)(HEADS) / (u32)(KV_HEADS);
    g.least = (at->key + (threadIdx.x - 128) / WARP * 16 + lane_id() / 4) * g.heads;
    g.all_see = (at->key + BLOCK_KEYS - 1) * g.heads;
    g.keys = b->keys + g.group * 8192;
    g.values = b->values + g.group * 8192;
    g.sums = (float *)scratch + last * SUM_SIZE;
    return g;
}

/* Of the first keys: it is the first to add to any tile, where nothing is yet. */
DEVICE u32 PART(first_keys)(const struct PART(group) * g)
{
    return (u32)here_u64(g->all_see) < BLOCK_KEYS * g->heads;
}

/* Does any row before tile i see a key of the block? Asked of what masks want too: the number of
 * tiles would take one register more. */
DEVICE u32 PART(more)(const struct PART(group) * g, u32 i)
{
    return (ALL_TILES - 1 - i) * TILE_ROWS + (BLOCK_KEYS - 1) * g->heads > g->all_see;
}

DEVICE void PART(give_back)(const struct PART(block) * b, u32 stage)
{
    if (lane_id() == 0) {
        mbarrier_arrive(b->empty + 2 * stage);
        mbarrier_arrive(b->empty + 2 * stage + 1);
    }
}

#if HEAD_DIM <= 64

/* What a group has in registers besides dk and dv. */
struct PART(tile) {
    float p[TILE_ROWS / 8][4], ds[TILE_ROWS / 8][4], dq[SUM_PIECES][4];
    u32 held_p[TILE_ROWS / 16][4], held_ds[TILE_ROWS / 16][4];
};

/* Starts the scores and dp of tile i: two batches. */
DEVICE void PART(start_tile)(struct PART(tile) * t, const struct PART(block) * b,
                             const struct PART(group) * g, u32 i)
{
    const u32 own = i % STAGES * 2;
    const u8 *q = b->ring + own * ROW_TILE;
    mbarrier_wait(b->full + own, i / STAGES & 1);
    PART(start_dot)(t->p, g->keys, q);
    mbarrier_wait(b->full + own + 1, i / STAGES & 1);
    PART(start_dot)(t->ds, g->values, q + ROW_TILE);
}

/* p and ds of tile i, whose scores and dp are under way, with one batch behind them. datt has come
 * long before it is waited for again: ptxas moves a wait for products ahead of the arithmetic
 * before it, but not over a branch. */
DEVICE void PART(finish_tile)(struct PART(tile) * t, const struct PART(block) * b,
                              const struct PART(group) * g, u32 i)
{
    const u32 first = (ALL_TILES - 1 - i) * TILE_ROWS;
    const float *lse = b->numbers + i % STAGES * 2 * TILE_ROWS;
    wgmma_wait(2);
    if (g->all_see > first)
        PART(mask)(t->p, g->least, g->heads, first);
    PART(probabilities)(t->p, lse, 0, TILE_ROWS / 16);
    mbarrier_wait(b->full + i % STAGES * 2 + 1, i / STAGES & 1);
    wgmma_wait(1);
    PART(terms)(t->ds, t->p, lse + TILE_ROWS);
}

/* p and ds become operands. */
DEVICE void PART(round_tile)(struct PART(tile) * t, const struct PART(block) * b, u32 i)
{
    PART(hold)(t->held_p, t->p, 0, TILE_ROWS / 16);
    PART(hold)(t->held_ds, t->ds, 0, TILE_ROWS / 16);
    PART(share_terms)(b->terms + i % TERMS * TERM_TILE, t->held_ds);
    warp_sync();
    if (lane_id() == 0)
        mbarrier_arrive(b->shared + i % 2);
}

/* Starts dq of the tile before i, where there is one and it is the group's, after both groups have
 * shared their ds. */
DEVICE void PART(start_last_dq)(struct PART(tile) * t, const struct PART(block) * b,
                                const struct PART(group) * g, u32 i)
{
    if (i > 0)
        mbarrier_wait(b->shared + (i - 1) % 2, (i - 1) / 2 & 1);
    if (i > 0 && i % 2 != g->group) {
        wgmma_fence(); /* in both branches, or ptxas makes its own */
        PART(start_dq)(t->dq, b->terms + (i - 1) % TERMS * TERM_TILE, b->keys, 0);
        wgmma_commit();
    } else {
        wgmma_fence();
        wgmma_commit();
    }
}

/* Waits for it and all else, and adds it. */
DEVICE void PART(finish_last_dq)(struct PART(tile) * t, const struct PART(block) * b,
                                 const struct PART(group) * g, u32 i)
{
    if (i > 0)
        PART(await_grant)(b, i - 1);
    wgmma_wait(0);
    if (i > 0 && i % 2 != g->group)
        PART(add)(b, g->sums - (u64)(i - 1) * SUM_SIZE, t->dq, i - 1, 0, PART(first_keys)(g));
}

/* Starts dk and dv of tile i. */
DEVICE void PART(start_sums)(float dk[PIECES][4], float dv[PIECES][4], struct PART(tile) * t,
                             const struct PART(block) * b, u32 i)
{
    const u8 *q = b->ring + i % STAGES * 2 * ROW_TILE;
    wgmma_fence();
    PART(start_sum)(dv, t->held_p, q + ROW_TILE, 0, TILE_ROWS / 16, i);
    PART(start_sum)(dk, t->held_ds, q, 0, TILE_ROWS / 16, i);
}

DEVICE void PART(go)(float dk[PIECES][4], float dv[PIECES][4], const struct PART(block) * b,
                     const struct PART(group) * g)
{
    struct PART(tile) t;
    u32 i = 0;
    PART(start_tile)(&t, b, g, 0);
    wgmma_fence();
    wgmma_commit(); /* nothing is behind */
    PART(finish_tile)(&t, b, g, 0);
    for (; PART(more)(g, i); i++) {
        PART(round_tile)(&t, b, i);
        PART(start_tile)(&t, b, g, i + 1);
        PART(start_sums)(dk, dv, &t, b, i);
        PART(start_last_dq)(&t, b, g, i);
        PART(finish_tile)(&t, b, g, i + 1);
        PART(finish_last_dq)(&t, b, g, i);
        PART(give_back)(b, i % STAGES);
    }
    PART(round_tile)(&t, b, i);
    PART(start_sums)(dk, dv, &t, b, i);
    PART(start_last_dq)(&t, b, g, i);
    PART(finish_last_dq)(&t, b, g, i);
    PART(start_last_dq)(&t, b, g, i + 1);
    PART(finish_last_dq)(&t, b, g, i + 1);
}

#else

DEVICE void PART(go)(float dk[PIECES][4], float dv[PIECES][4], const struct PART(block) * b,
                     const struct PART(group) * g)
{
    for (u32 i = 0;; i++) {
        const u32 own = i % STAGES * 2, first = (ALL_TILES - 1 - i) * TILE_ROWS;
        const u8 *q = b->ring + own * ROW_TILE, *datt = q + ROW_TILE;
        const float *lse = b->numbers + own * TILE_ROWS, *delta = lse + TILE_ROWS;
        u8 *terms = b->terms + i % TERMS * TERM_TILE;
        float p[TILE_ROWS / 8][4], ds[TILE_ROWS / 8][4], dq[SUM_PIECES][4];
        u32 held_p[TILE_ROWS / 16][4], held_ds[TILE_ROWS / 16][4];
        mbarrier_wait(b->full + own, i / STAGES & 1);
        PART(start_dot)(p, g->keys, q);
        mbarrier_wait(b->full + own + 1, i / STAGES & 1);
        PART(start_dot)(ds, g->values, datt);
        wgmma_wait(1);
        if (g->all_see > first)
            PART(mask)(p, g->least, g->heads, first);
        PART(probabilities)(p, lse, 0, EARLY);
        PART(hold)(held_p, p, 0, EARLY);
        wgmma_fence();
        PART(start_sum)(dv, held_p, datt, 0, EARLY, i);
        wgmma_commit();
        PART(probabilities)(p, lse, EARLY, TILE_ROWS / 16);
        PART(hold)(held_p, p, EARLY, TILE_ROWS / 16);
        mbarrier_wait(b->full + own + 1, i / STAGES & 1); /* as in finish_tile */
        wgmma_wait(1);
        PART(terms)(ds, p, delta);
        PART(hold)(held_ds, ds, 0, TILE_ROWS / 16);
        wgmma_fence();
        PART(start_sum)(dv, held_p, datt, EARLY, TILE_ROWS / 16, 1);
        PART(share_terms)(terms, held_ds);
        barrier_sync(3, 256); /* both groups' ds; and this group's additions to the last tile */
        PART(start_sum)(dk, held_ds, q, 0, TILE_ROWS / 16, i);
        PART(start_dq)(dq, terms, b->keys, g->group);
        wgmma_commit();
        PART(await_grant)(b, i);
        wgmma_wait(0);
        PART(give_back)(b, i % STAGES);
        PART(add)(b, g->sums - (u64)i * SUM_SIZE, dq, i, g->group, PART(first_keys)(g));
        if (!PART(more)(g, i))
            break;
    }
}

#endif

DEVICE void PART(multiply)(bf16 *dqkv, void *scratch, const struct PART(head) * h,
                           const struct PART(block) * b, const struct PART(place) * at)
{
    const struct PART(group) g = PART(group_of)(scratch, b, at);
    float dk[PIECES][4], dv[PIECES][4];
    PART(copy_keys)(h, b, at->key, g.group);
    PART(go)(dk, dv, b, &g);
    PART(store)(dqkv, b, dk, dv);
}

KERNEL_ENTRY(384, 1)
CONCAT(KERNEL, _2)
(bf16 *RESTRICT dqkv, const bf16 *RESTRICT datt, const bf16 *RESTRICT att,
 const float *RESTRICT lse, const bf16 *RESTRICT qkv, void *RESTRICT scratch)
{
    SHARED_ARENA(arena);
    struct PART(block) b;
    (void)att;
    b.keys = arena;
    b.values = b.keys + KEY_TILE;
    b.ring = b.values + KEY_TILE;
    b.terms = b.ring + BUFFERS * ROW_TILE;
    b.numbers = (float *)(void *)(b.terms + TERMS * TERM_TILE);
    b.full = (u64 *)(void *)(b.numbers + BUFFERS * TILE_ROWS);
    b.empty = b.full + BUFFERS;
    b.granted = b.empty + BUFFERS;
    b.added = b.granted + STAGES;
    b.shared = b.added + STAGES;
    b.ticket = (u32 *)(void *)(b.shared + 2);
    if (threadIdx.x == 0) {
        for (u32 i = 0; i < BUFFERS; i++) {
            mbarrier_init(b.full + i, 1);
            mbarrier_init(b.empty + i, 8); /* warps */
        }
        for (u32 i = 0; i < STAGES; i++) {
            mbarrier_init(b.granted + i, 1);
            mbarrier_init(b.added + i, HEAD_DIM <= 64 ? 4 : 8);
        }
        for (u32 i = 0; i < 2; i++)
            mbarrier_init(b.shared + i, 8);
        mbarrier_init_fence();
        const u64 turns = (u64)(ATT_B) * (u32)(KV_HEADS)*ALL_TILES;
        *b.ticket = atomic_add_u32(PART(turns_of)(scratch) + turns, 1);
    }
    block_sync();
    const struct PART(place) at = PART(place_of)(*b.ticket);
    const struct PART(head) h = PART(head_of)(datt, lse, qkv, scratch, at.sequence, at.kv);
    if (threadIdx.x < 128) {
        const u64 last = ((u64)at.sequence * (u32)(KV_HEADS) + at.kv + 1) * ALL_TILES - 1;
        registers_fewer(HEAD_DIM <= 120 ? 56 : 40);
        PART(feed)
        (&h, &b, PART(turns_of)(scratch) + last, ALL_TILES - at.tile, at.key / BLOCK_KEYS);
    } else {
        registers_more(HEAD_DIM <= 120 ? 224 : 232);
        PART(multiply)(dqkv, scratch, &h, &b, &at);
    }
}

/* ---- pass 3: dq ---- */

#define THREADS (HEAD_DIM <= 64 ? 128 : 256)

/* A block: a tile of rows; a warp: sixteen rows, of them the columns before or from 64. */
KERNEL_ENTRY(THREADS, 1)
CONCAT(KERNEL, _3)
(bf16 *RESTRICT dqkv, const bf16 *RESTRICT datt, const bf16 *RESTRICT att,
 const float *RESTRICT lse, const bf16 *RESTRICT qkv, void *RESTRICT scratch)
{
    const struct PART(head) h = PART(head_of)(datt, lse, qkv, scratch, blockIdx.z, blockIdx.y);
    const u32 group = threadIdx.x / 128, q = lane_id() % 4;
    const u32 first_piece = group * 8;
    const u32 row = blockIdx.x * TILE_ROWS + threadIdx.x % 128 / WARP * 16 + lane_id() / 4;
    const u64 tile = (u64)(blockIdx.z * (u32)(KV_HEADS) + blockIdx.y) * ALL_TILES + blockIdx.x;
    const float *from = (const float *)scratch + tile * SUM_SIZE +
                        (group * SUM_PIECES * 128 + threadIdx.x % 128) * 4;
    const float scale = fast_rsqrt((float)HEAD_DIM);
    bf16 *out = dqkv + (h.q - qkv);
    (void)att;
    UNROLL
    for (u32 n = 0; n < SUM_PIECES; n += 4) {
        u32 d[2][4];
        UNROLL
        for (u32 j = 0; j < 4; j++) {
            const u32 piece = n + j < SUM_PIECES && first_piece + n + j < PIECES ? n + j : 0;
            const f32x4 v = *(const f32x4 *)(const void *)(from + piece * 512);
            d[0][j] = bf16_pack(v.x * scale, v.y * scale);
            d[1][j] = bf16_pack(v.z * scale, v.w * scale);
        }
        UNROLL
        for (u32 i = 0; i < 2; i++) {
            const u32 at = row + i * 8, piece = first_piece + n + q;
            const u32x4 v = mma_gather(d[i]);
            if (at < h.rows && n + q < SUM_PIECES && piece < PIECES)
                store_u32x4(out + at / h.group * h.row + at % h.group * HEAD_DIM + piece * 8, v);
        }
    }
}

#undef THREADS
#undef TILE_ROWS
#undef ALL_TILES
#undef BLOCK_KEYS
#undef PANELS
#undef KEY_PANEL
#undef ROW_PANEL
#undef KEY_TILE
#undef ROW_TILE
#undef TERM_TILE
#undef STAGES
#undef BUFFERS
#undef TERMS
#undef EVEN_PIECES
#undef SUM_PIECES
#undef SUM_SIZE
#undef TURN
#undef HEADS_AT_ONCE
#undef EARLY
#undef MULTIPLY_ROWS
#undef MULTIPLY_HELD
#undef MULTIPLY_SUM

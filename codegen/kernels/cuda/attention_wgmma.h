/* attention_wgmma.h - the block of attention_tile.h on sm_90a (FlashAttention-3, Shah et al. 2024).
 * Two groups of four warps take 64 rows each; one thread of a third copies keys and values by TMA
 * into four buffers, keys and values of every other tile. A group starts the scores of the next
 * tile together with the output of this one and works on the softmax of one while the other is
 * being multiplied; the other group fills what is left.
 *
 * A block goes over works, long and short ones in turn, and is ahead of itself: the first keys and
 * values of the next work and its queries are on their way while this one's output is made.
 *
 * Tiles are panels of 64 elements, rows of 128 bytes, swizzled. What is beyond a head's size is
 * zero there, so that an odd multiple of 8 may be made even for the scores. */
#define PANELS DIV_UP(HEAD_DIM, 64)
#define PANEL_BYTES (128 * 128) /* of 128 rows */
#define TILE_BYTES (PANELS * PANEL_BYTES)
#define EVEN_PIECES (DIV_UP(HEAD_DIM, 16) * 2)
#define BUFFERS 4
#define MULTIPLIERS 256 /* threads */
#define MULTIPLY_SCORES CONCAT(wgmma_n, FLASH_WGMMA_KEYS)
#define MULTIPLY_VALUES CONCAT(CONCAT(wgmma_n, HEAD_DIM), _held_across)

STATIC_ASSERT(TILE_ROWS == 128 && TILE_KEYS == FLASH_WGMMA_KEYS, "a panel has 128 rows");

struct PART(block) {
    u8 *queries, *buffers;
    u64 *full, *empty; /* mbarriers of the buffers: keys, values of even tiles, of odd ones */
    u32 turn;          /* tiles of former works */
};

/* The block's n-th work: blocks take them in turn, there and back, so that the one with the most
 * keys of one round has the fewest of the next. */
DEVICE u32 PART(number)(u32 n)
{
    return n * gridDim.x + (n % 2 ? gridDim.x - 1 - blockIdx.x : blockIdx.x);
}

DEVICE u32 PART(tiles)(const struct PART(work) * w)
{
    return DIV_UP(PART(keys_of_any)(w), TILE_KEYS);
}

DEVICE u8 *PART(piece)(u8 *tile, u32 row, u32 piece)
{
    return tile + piece / 8 * PANEL_BYTES + row * 128 + (piece % 8 ^ row % 8) * 16;
}

/* Starts the copy of tile t of keys or values, RUN of them a box and panel. In place of a page that
 * the block does not see, and the table may not have, zeros: from outside of the cache. */
DEVICE void PART(copy)(const struct PART(work) * w, const struct PART(block) * b, u32 t, u32 value)
{
    const u32 turn = b->turn + t, own = turn % 2 * 2 + value, head = value ? w->values : w->keys;
    u8 *tile = b->buffers + own * TILE_BYTES;
    mbarrier_wait(b->empty + own, ~(turn / 2) & 1);
    mbarrier_arrive_expect(b->full + own, TILE_BYTES);
    for (u32 row = 0; row < TILE_KEYS; row += RUN) {
        const u32 key = t * TILE_KEYS + row;
        i32 outer = (i32)w->sequence;
        if (w->page)
            outer = key < PART(keys_of_any)(w) ? w->page[key / KV_PAGE] : -1;
        UNROLL
        for (u32 panel = 0; panel < PANELS; panel++)
            tensor_load_4d(tile + panel * PANEL_BYTES + row * 128, w->kv, (i32)panel * 64,
                           w->page ? 0 : (i32)key, (i32)head, outer, b->full + own);
    }
}

/* In the order in which the buffers are given back: keys are a tile ahead of values. */
DEVICE void PART(feed)(const struct PART(call) * c, struct PART(block) * b)
{
    struct PART(work) w;
    for (u32 n = 0; PART(take)(&w, c, PART(number)(n)); n++) {
        const u32 tiles = PART(tiles)(&w);
        if (n == 0)
            tensor_map_acquire(w.kv);
        for (u32 t = 0; t <= tiles; t++) {
            if (t < tiles)
                PART(copy)(&w, b, t, 0);
            if (t > 0)
                PART(copy)(&w, b, t - 1, 1);
        }
        b->turn += tiles;
    }
}

/* Starts the copy of the group's 64 queries, by its own threads. */
DEVICE void PART(copy_queries)(const struct PART(work) * w, const struct PART(block) * b, u32 group)
{
    const u32 r = threadIdx.x % 128 / 8;
    UNROLL
    for (u32 i = 0; i < 64; i += 16) {
        const u32 row = group * 64 + r + i, inside = w->first + row < w->rows;
        const u32 at = inside ? w->first + row : 0;
        const bf16 *from = w->q + at / w->group * w->q_row + at % w->group * HEAD_DIM;
        UNROLL
        for (u32 p = threadIdx.x % 8; p < EVEN_PIECES; p += 8)
            copy_async_16_part(PART(piece)(b->queries, row, p), p < PIECES ? from + p * 8 : from,
                               inside && p < PIECES ? 16 : 0);
    }
    copy_async_commit();
}

DEVICE void PART(await_queries)(u32 group)
{
    copy_async_wait(0);
    fence_proxy_async();
    barrier_sync(1 + group, 128);
}

/* Starts scores = q k^T of tile t. */
DEVICE void PART(start_scores)(float scores[TILE_KEYS / 8][4], const struct PART(block) * b, u32 t,
                               u32 group)
{
    const u32 turn = b->turn + t, own = turn % 2 * 2;
    const u64 q = wgmma_along(b->queries + group * 8192, 128);
    const u64 k = wgmma_along(b->buffers + own * TILE_BYTES, 128);
    mbarrier_wait(b->full + own, turn / 2 & 1);
    wgmma_fence();
    UNROLL
    for (u32 e = 0; e < EVEN_PIECES / 2; e++) {
        const u32 step = e / 4 * (PANEL_BYTES / 16) + e % 4 * 2;
        MULTIPLY_SCORES((float *)(void *)scores, q + step, k + step, e);
    }
    wgmma_commit();
}

/* Starts out += p v of tile t. */
DEVICE void PART(start_values)(float out[PIECES][4], u32 p[TILE_KEYS / 16][4],
                               const struct PART(block) * b, u32 t)
{
    const u32 turn = b->turn + t, own = turn % 2 * 2 + 1;
    const u64 v = wgmma_across(b->buffers + own * TILE_BYTES, 128, PANEL_BYTES);
    mbarrier_wait(b->full + own, turn / 2 & 1);
    wgmma_fence();
    UNROLL
    for (u32 k = 0; k < TILE_KEYS / 16; k++)
        MULTIPLY_VALUES((float *)(void *)out, p[k], v + k * 128, 1);
    wgmma_commit();
}

/* The warp has read keys (0) or values (1) of tile t. */
DEVICE void PART(give_back)(const struct PART(block) * b, u32 t, u32 value)
{
    warp_sync();
    if (lane_id() == 0)
        mbarrier_arrive(b->empty + (b->turn + t) % 2 * 2 + value);
}

DEVICE void PART(probabilities)(u32 p[TILE_KEYS / 16][4], float scores[TILE_KEYS / 8][4])
{
    UNROLL
    for (u32 k = 0; k < TILE_KEYS / 16; k++)
        mma_a_from_d(p[k], scores[2 * k], scores[2 * k + 1]);
}

/* All tiles of a work but for the last one's values, which p is to be multiplied with. */
DEVICE void PART(multiply)(const struct PART(work) * w, const struct PART(block) * b,
                           struct PART(rows) * rows, float out[PIECES][4], u32 p[TILE_KEYS / 16][4],
                           u32 group)
{
    const u32 tiles = PART(tiles)(w);
    float scores[TILE_KEYS / 8][4], shrink[2];
    UNROLL
    for (u32 n = 0; n < PIECES * 4; n++)
        out[n / 4][n % 4] = 0.0f;
    UNROLL
    for (u32 n = 0; n < TILE_KEYS / 2; n++)
        scores[n / 4][n % 4] = 0.0f; /* or ptxas orders all products behind each other: C7511 */
    PART(start_scores)(scores, b, 0, group);
    wgmma_wait(0);
    PART(give_back)(b, 0, 0);
    if (TILE_KEYS > PART(keys_of_all)(w))
        PART(mask)(scores, rows, 0);
    PART(softmax)(rows, scores, shrink);
    PART(probabilities)(p, scores);
    for (u32 t = 1; t < tiles; t++) {
        PART(start_scores)(scores, b, t, group);
        PART(start_values)(out, p, b, t - 1);
        wgmma_wait(1);
        PART(give_back)(b, t, 0);
        if ((t + 1) * TILE_KEYS > PART(keys_of_all)(w))
            PART(mask)(scores, rows, t * TILE_KEYS);
        PART(softmax)(rows, scores, shrink);
        wgmma_wait(0);
        PART(give_back)(b, t - 1, 1);
        PART(scale)(out, shrink);
        PART(probabilities)(p, scores);
    }
}

/* The group's 64 rows of every work of the block. */
DEVICE void PART(work_off)(const struct PART(call) * c, struct PART(block) * b)
{
    const u32 group = threadIdx.x / 128;
    struct PART(work) w, next;
    u32 more = PART(take)(&next, c, PART(number)(0));
    if (more)
        PART(copy_queries)(&next, b, group);
    for (u32 n = 1; more; n++) {
        float out[PIECES][4];
        u32 p[TILE_KEYS / 16][4];
        struct PART(rows) rows;
        w = next;
        const u32 row = w.first + threadIdx.x / WARP * 16, tiles = PART(tiles)(&w);
        PART(start)(&rows, &w, row);
        PART(await_queries)(group);
        PART(multiply)(&w, b, &rows, out, p, group);
        PART(start_values)(out, p, b, tiles - 1);
        more = PART(take)(&next, c, PART(number)(n));
        barrier_sync(1 + group, 128); /* all four warps are done with the queries */
        if (more)
            PART(copy_queries)(&next, b, group);
        wgmma_wait(0);
        PART(give_back)(b, tiles - 1, 1);
        PART(store)(&w, &rows, out, row);
        b->turn += tiles;
    }
}

DEVICE void PART(run)(const struct PART(call) * c, u8 *arena)
{
    struct PART(block) b;
    b.queries = arena;
    b.buffers = arena + TILE_BYTES;
    b.full = (u64 *)(void *)(b.buffers + BUFFERS * TILE_BYTES);
    b.empty = b.full + BUFFERS;
    b.turn = 0;
    if (threadIdx.x == 0) {
        for (u32 i = 0; i < BUFFERS; i++) {
            mbarrier_init(b.full + i, 1);
            mbarrier_init(b.empty + i, MULTIPLIERS / WARP);
        }
        mbarrier_init_fence();
    }
    block_sync();
    if (threadIdx.x < MULTIPLIERS) {
        registers_more(232);
        PART(work_off)(c, &b);
    } else {
        registers_fewer(40);
        if (threadIdx.x == MULTIPLIERS)
            PART(feed)(c, &b);
    }
}

#undef PANELS
#undef PANEL_BYTES
#undef TILE_BYTES
#undef EVEN_PIECES
#undef BUFFERS
#undef MULTIPLIERS
#undef MULTIPLY_SCORES
#undef MULTIPLY_VALUES

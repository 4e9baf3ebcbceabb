/* attention_wgmma.h - the block of attention_tile.h on sm_90a (FlashAttention-3, Shah et al. 2024).
 * Groups of four warps take 64 rows each, three groups up to head size 64, else two; one thread of
 * one more copies keys and values by TMA into stages. A group starts the scores of the next tile
 * together with the output of this one, and works on the softmax of the one while the other is
 * being multiplied.
 *
 * Groups start their products in turn. Left to themselves they fall in step, all at exponentials or
 * all waiting for products, and stay so.
 *
 * A block goes over works, long and short ones in turn, and is ahead of itself: the last values of
 * one work and the first scores of the next are one turn, the output is stored beside them, and the
 * next keys, values and queries are on their way.
 *
 * Tiles are panels of 64 elements, rows of 128 bytes, swizzled. What is beyond a head's size is
 * zero there, so that an odd multiple of 8 may be made even for the scores. */
#define PANELS DIV_UP(HEAD_DIM, 64)
#define PANEL_BYTES (TILE_KEYS * 128)
#define TILE_BYTES (PANELS * PANEL_BYTES)
#define QUERY_PANEL (64 * 128) /* of a group */
#define QUERY_BYTES (PANELS * QUERY_PANEL)
#define EVEN_PIECES (DIV_UP(HEAD_DIM, 16) * 2)
#define GROUPS FLASH_GROUPS(HEAD_DIM)
#define STAGES FLASH_STAGES(HEAD_DIM)
#define BUFFERS (2 * STAGES)
#define MULTIPLIERS (GROUPS * 128) /* threads */
#define MULTIPLY_SCORES CONCAT(wgmma_n, FLASH_WGMMA_KEYS)
#define MULTIPLY_VALUES CONCAT(CONCAT(wgmma_n, HEAD_DIM), _held_across)

STATIC_ASSERT(TILE_ROWS == GROUPS * 64, "64 rows a group");
STATIC_ASSERT(TILE_KEYS == FLASH_WGMMA_KEYS, "products as wide as a tile has keys");

struct PART(block) {
    u8 *queries, *buffers; /* queries: of this work and the next, each group's */
    u64 *full, *empty;     /* mbarriers of the buffers: keys, values of each stage */
    u32 turn;              /* tiles of former works */
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

/* Of tile t's keys (0) or values (1): the buffer, and the parity of its phase. */
DEVICE u32 PART(buffer)(const struct PART(block) * b, u32 t, u32 value)
{
    return (b->turn + t) % STAGES * 2 + value;
}

DEVICE u32 PART(phase)(const struct PART(block) * b, u32 t)
{
    return (b->turn + t) / STAGES & 1;
}

/* ---- copying ---- */

/* Starts the copy of tile t of keys or values, RUN of them a box and panel. In place of a page that
 * the block does not see, and the table may not have, zeros: from outside of the cache. */
DEVICE void PART(copy)(const struct PART(work) * w, const struct PART(block) * b, u32 t, u32 value)
{
    const u32 own = PART(buffer)(b, t, value), head = value ? w->values : w->keys;
    u8 *tile = b->buffers + own * TILE_BYTES;
    mbarrier_wait(b->empty + own, PART(phase)(b, t) ^ 1);
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

DEVICE u8 *PART(queries)(const struct PART(block) * b, u32 n, u32 group)
{
    return b->queries + (n % 2 * GROUPS + group) * QUERY_BYTES;
}

/* Starts the copy of the group's 64 queries of the n-th work, by its own threads. */
DEVICE void PART(copy_queries)(const struct PART(work) * w, const struct PART(block) * b, u32 n,
                               u32 group)
{
    const u32 r = threadIdx.x % 128 / 8;
    u8 *to = PART(queries)(b, n, group);
    UNROLL
    for (u32 i = 0; i < 64; i += 16) {
        const u32 row = r + i, at = w->first + group * 64 + row, inside = at < w->rows;
        const bf16 *from =
            inside ? w->q + at / w->group * w->q_row + at % w->group * HEAD_DIM : w->q;
        UNROLL
        for (u32 p = threadIdx.x % 8; p < EVEN_PIECES; p += 8)
            copy_async_16_part(to + p / 8 * QUERY_PANEL + row * 128 + (p % 8 ^ row % 8) * 16,
                               p < PIECES ? from + p * 8 : from, inside && p < PIECES ? 16 : 0);
    }
    copy_async_commit();
}

/* Also: the group's warps are done with the queries before. */
DEVICE void PART(await_queries)(u32 group)
{
    copy_async_wait(0);
    fence_proxy_async();
    barrier_sync(1 + group, 128);
}

/* ---- products ---- */

DEVICE void PART(await)(const struct PART(block) * b, u32 t, u32 value)
{
    mbarrier_wait(b->full + PART(buffer)(b, t, value), PART(phase)(b, t));
}

/* The warp has read keys or values of tile t. */
DEVICE void PART(give_back)(const struct PART(block) * b, u32 t, u32 value)
{
    warp_sync();
    if (lane_id() == 0)
        mbarrier_arrive(b->empty + PART(buffer)(b, t, value));
}

/* Turns of starting products: group after group. Numbers of barriers are made here, not ahead of
 * the loop: registers are few. */
DEVICE void PART(await_turn)(u32 group)
{
    barrier_sync(1 + GROUPS + (u32)here_u64(group), 256);
}

DEVICE void PART(pass_turn)(u32 group)
{
    barrier_arrive(1 + GROUPS + ((u32)here_u64(group) + 1) % GROUPS, 256);
}

/* Starts scores = q k^T of tile t, of the n-th work. */
DEVICE void PART(start_scores)(float scores[TILE_KEYS / 8][4], const struct PART(block) * b, u32 n,
                               u32 t, u32 group)
{
    const u64 q = wgmma_along(PART(queries)(b, n, group), 128);
    const u64 k = wgmma_along(b->buffers + PART(buffer)(b, t, 0) * TILE_BYTES, 128);
    UNROLL
    for (u32 e = 0; e < EVEN_PIECES / 2; e++)
        MULTIPLY_SCORES((float *)(void *)scores, q + e / 4 * (QUERY_PANEL / 16) + e % 4 * 2,
                        k + e / 4 * (PANEL_BYTES / 16) + e % 4 * 2, e);
    wgmma_commit();
}

/* Starts out += p v of tile t. */
DEVICE void PART(start_values)(float out[PIECES][4], u32 p[TILE_KEYS / 16][4],
                               const struct PART(block) * b, u32 t)
{
    const u64 v = wgmma_across(b->buffers + PART(buffer)(b, t, 1) * TILE_BYTES, 128, PANEL_BYTES);
    UNROLL
    for (u32 k = 0; k < TILE_KEYS / 16; k++)
        MULTIPLY_VALUES((float *)(void *)out, p[k], v + k * 128, 1);
    wgmma_commit();
}

DEVICE void PART(probabilities)(u32 p[TILE_KEYS / 16][4], float scores[TILE_KEYS / 8][4])
{
    UNROLL
    for (u32 k = 0; k < TILE_KEYS / 16; k++)
        mma_a_from_d(p[k], scores[2 * k], scores[2 * k + 1]);
}

/* What a group has in registers. */
struct PART(state) {
    float scores[TILE_KEYS / 8][4], out[PIECES][4];
    u32 p[TILE_KEYS / 16][4];
    struct PART(rows) rows;
    u32 group, tiles, keys_of_all;
};

/* The n-th work, whose first scores are under way. */
DEVICE void PART(begin)(struct PART(state) * s, const struct PART(call) * c, u32 n)
{
    struct PART(work) w;
    PART(take)(&w, c, PART(number)((u32)here_u64(n)));
    PART(start)(&s->rows, &w, w.first + threadIdx.x / WARP * 16);
    s->tiles = PART(tiles)(&w);
    s->keys_of_all = w.past + (w.first + s->group * 64) / w.group + 1;
    UNROLL
    for (u32 i = 0; i < PIECES * 4; i++)
        s->out[i / 4][i % 4] = 0.0f;
}

DEVICE void PART(end)(struct PART(state) * s, const struct PART(call) * c, u32 n)
{
    struct PART(work) w;
    PART(take)(&w, c, PART(number)((u32)here_u64(n)));
    PART(store)(&w, &s->rows, s->out, w.first + threadIdx.x / WARP * 16);
}

/* Scores of tile t, which are there, become probabilities. */
DEVICE void PART(soften)(struct PART(state) * s, float shrink[2], u32 t)
{
    if ((t + 1) * TILE_KEYS > s->keys_of_all)
        PART(mask)(s->scores, &s->rows, t * TILE_KEYS);
    PART(softmax)(&s->rows, s->scores, shrink);
}

/* All tiles of the n-th work, whose first scores are under way, but for the last one's values. */
DEVICE void PART(multiply)(struct PART(state) * s, const struct PART(block) * b, u32 n)
{
    float shrink[2];
    PART(give_back)(b, 0, 0);
    PART(soften)(s, shrink, 0);
    PART(probabilities)(s->p, s->scores);
    for (u32 t = 1; t < s->tiles; t++) {
        PART(await)(b, t, 0);
        PART(await)(b, t - 1, 1);
        PART(await_turn)(s->group);
        wgmma_fence();
        PART(start_scores)(s->scores, b, n, t, s->group);
        PART(start_values)(s->out, s->p, b, t - 1);
        PART(pass_turn)(s->group);
        wgmma_wait(1);
        PART(give_back)(b, t, 0);
        PART(soften)(s, shrink, t);
        wgmma_wait(0);
        PART(give_back)(b, t - 1, 1);
        PART(scale)(s->out, shrink);
        PART(probabilities)(s->p, s->scores);
    }
}

/* Starts the copy of the queries of the n-th work; 0: there is none. */
DEVICE u32 PART(prepare)(const struct PART(call) * c, const struct PART(block) * b, u32 n,
                         u32 group)
{
    struct PART(work) w;
    const u32 more = PART(take)(&w, c, PART(number)(n));
    if (more)
        PART(copy_queries)(&w, b, n, group);
    return more;
}

/* The group's 64 rows of every work of the block. */
DEVICE void PART(work_off)(const struct PART(call) * c, struct PART(block) * b)
{
    struct PART(state) s;
    u32 n = 0;
    s.group = shuffle_u32(threadIdx.x / 128, 0, WARP);
    if (!PART(prepare)(c, b, 0, s.group))
        return;
    if (s.group == GROUPS - 1)
        PART(pass_turn)(s.group);
    PART(await_queries)(s.group);
    PART(await)(b, 0, 0);
    PART(await_turn)(s.group);
    UNROLL
    for (u32 i = 0; i < TILE_KEYS / 2; i++)
        s.scores[i / 4][i % 4] = 0.0f; /* or ptxas orders all products behind each other: C7511 */
    wgmma_fence();
    PART(start_scores)(s.scores, b, 0, 0, s.group);
    PART(pass_turn)(s.group);
    wgmma_wait(0);
    for (;;) {
        const u32 more = PART(prepare)(c, b, n + 1, s.group);
        PART(begin)(&s, c, n);
        PART(multiply)(&s, b, n);
        PART(await)(b, s.tiles - 1, 1);
        if (!more)
            break;
        PART(await_queries)(s.group);
        PART(await)(b, s.tiles, 0);
        PART(await_turn)(s.group);
        wgmma_fence();
        PART(start_values)(s.out, s.p, b, s.tiles - 1);
        PART(start_scores)(s.scores, b, n + 1, s.tiles, s.group);
        PART(pass_turn)(s.group);
        wgmma_wait(1);
        PART(give_back)(b, s.tiles - 1, 1);
        PART(end)(&s, c, n++);
        wgmma_wait(0);
        b->turn += s.tiles;
    }
    PART(await_turn)(s.group);
    wgmma_fence();
    PART(start_values)(s.out, s.p, b, s.tiles - 1);
    PART(pass_turn)(s.group);
    wgmma_wait(0);
    PART(end)(&s, c, n);
    if (s.group == 0)
        PART(await_turn)(0); /* the one that nobody used */
}

DEVICE void PART(run)(const struct PART(call) * c, u8 *arena)
{
    struct PART(block) b;
    b.queries = arena;
    b.buffers = arena + 2 * GROUPS * QUERY_BYTES;
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
        registers_more(FLASH_MORE(HEAD_DIM));
        PART(work_off)(c, &b);
    } else {
        registers_fewer(FLASH_FEWER(HEAD_DIM));
        if (threadIdx.x == MULTIPLIERS)
            PART(feed)(c, &b);
    }
}

#undef PANELS
#undef PANEL_BYTES
#undef TILE_BYTES
#undef QUERY_PANEL
#undef QUERY_BYTES
#undef EVEN_PIECES
#undef GROUPS
#undef STAGES
#undef BUFFERS
#undef MULTIPLIERS
#undef MULTIPLY_SCORES
#undef MULTIPLY_VALUES

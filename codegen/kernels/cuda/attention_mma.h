/* attention_mma.h - the block of attention_tile.h on mma.sync, each warp 32 rows (16 above head
 * size 128); head sizes that are odd multiples of 8 end in an m16n8k8 step, so that nothing is
 * padded. Tiles of keys and values go through two buffers by cp.async, one barrier a tile. */
#define STRIDE FLASH_STRIDE(HEAD_DIM)
#define BLOCKS (FLASH_WARP_ROWS(HEAD_DIM) / 16) /* of 16 rows, a warp */
#define TILE_SIZE (TILE_KEYS * STRIDE)

/* Key `key`, a multiple of RUN; the RUN keys behind it lie kv_row elements apart. */
DEVICE const bf16 *PART(key_at)(const struct PART(work) * w, u32 key)
{
    const u32 outer = w->page ? (u32)w->page[key / KV_PAGE] : w->sequence;
    return w->kv + outer * w->kv_outer + w->keys * w->kv_head +
           (w->page ? key % KV_PAGE : key) * w->kv_row;
}

/* The tile of keys at `from`, `valid` of which exist, and their values behind; the others become 0.
 */
DEVICE void PART(copy)(bf16 *tile, const struct PART(work) * w, const bf16 *from, u32 valid)
{
    const u64 values = (w->values - w->keys) * w->kv_head;
    UNROLL
    for (u32 i = 0; i < DIV_UP(TILE_KEYS * PIECES, THREADS); i++) {
        const u32 piece = threadIdx.x + i * THREADS, r = piece / PIECES, c = piece % PIECES * 8;
        const bf16 *key = from + (r < valid ? r * w->kv_row + c : 0);
        if (TILE_KEYS * PIECES % THREADS == 0 || piece < TILE_KEYS * PIECES) {
            copy_async_16_part(tile + r * STRIDE + c, key, r < valid ? 16 : 0);
            copy_async_16_part(tile + TILE_SIZE + r * STRIDE + c, key + values, r < valid ? 16 : 0);
        }
    }
    copy_async_commit();
}

DEVICE void PART(copy_queries)(bf16 *tile, const struct PART(work) * w)
{
    UNROLL
    for (u32 i = 0; i < DIV_UP(TILE_ROWS * PIECES, THREADS); i++) {
        const u32 piece = threadIdx.x + i * THREADS, r = piece / PIECES, c = piece % PIECES * 8;
        const u32 inside = w->first + r < w->rows, at = inside ? w->first + r : 0;
        if (TILE_ROWS * PIECES % THREADS == 0 || piece < TILE_ROWS * PIECES)
            copy_async_16_part(tile + r * STRIDE + c,
                               w->q + at / w->group * w->q_row + at % w->group * HEAD_DIM + c,
                               inside ? 16 : 0);
    }
}

/* scores = q k^T: the warp's queries, all keys of the tile. */
DEVICE void PART(scores)(float scores[BLOCKS][TILE_KEYS / 8][4], const bf16 *q, const bf16 *k,
                         const struct tile_lane *lane)
{
    UNROLL
    for (u32 i = 0; i < BLOCKS * TILE_KEYS / 8; i++)
        UNROLL
    for (u32 j = 0; j < 4; j++)
        scores[i / (TILE_KEYS / 8)][i % (TILE_KEYS / 8)][j] = 0.0f;
    UNROLL
    for (u32 e = 0; e + 16 <= HEAD_DIM; e += 16) {
        u32 a[BLOCKS][4];
        UNROLL
        for (u32 i = 0; i < BLOCKS; i++)
            ldmatrix_x4(a[i], q + lane->rows + (i * 16 * STRIDE + e));
        UNROLL
        for (u32 n = 0; n < TILE_KEYS / 8; n += 2) {
            u32 b[4];
            ldmatrix_x4(b, k + lane->columns + (n * 8 * STRIDE + e));
            UNROLL
            for (u32 i = 0; i < BLOCKS; i++) {
                mma_m16n8k16_bf16(scores[i][n], a[i], b);
                mma_m16n8k16_bf16(scores[i][n + 1], a[i], b + 2);
            }
        }
    }
#if HEAD_DIM % 16 /* eight are left */
    u32 a[BLOCKS][2];
    UNROLL
    for (u32 i = 0; i < BLOCKS; i++)
        ldmatrix_x2(a[i], q + lane->single + (i * 16 * STRIDE + HEAD_DIM - 8));
    UNROLL
    for (u32 n = 0; n < TILE_KEYS / 8; n += 2) {
        u32 b[2];
        ldmatrix_x2(b, k + lane->single + (n * 8 * STRIDE + HEAD_DIM - 8));
        UNROLL
        for (u32 i = 0; i < BLOCKS; i++) {
            mma_m16n8k8_bf16(scores[i][n], a[i], b);
            mma_m16n8k8_bf16(scores[i][n + 1], a[i], b + 1);
        }
    }
#endif
}

/* out += p v. */
DEVICE void PART(add_values)(float out[BLOCKS][PIECES][4], float p[BLOCKS][TILE_KEYS / 8][4],
                             const bf16 *v, const struct tile_lane *lane)
{
    UNROLL
    for (u32 k = 0; k < TILE_KEYS / 16; k++) {
        u32 a[BLOCKS][4];
        UNROLL
        for (u32 i = 0; i < BLOCKS; i++)
            mma_a_from_d(a[i], p[i][2 * k], p[i][2 * k + 1]);
        UNROLL
        for (u32 n = 0; n + 2 <= PIECES; n += 2) {
            u32 b[4];
            ldmatrix_x4_trans(b, v + lane->rows + (k * 16 * STRIDE + n * 8));
            UNROLL
            for (u32 i = 0; i < BLOCKS; i++) {
                mma_m16n8k16_bf16(out[i][n], a[i], b);
                mma_m16n8k16_bf16(out[i][n + 1], a[i], b + 2);
            }
        }
        if (PIECES % 2) {
            u32 b[2];
            ldmatrix_x2_trans(b, v + lane->single + (k * 16 * STRIDE + HEAD_DIM - 8));
            UNROLL
            for (u32 i = 0; i < BLOCKS; i++)
                mma_m16n8k16_bf16(out[i][PIECES - 1], a[i], b);
        }
    }
}

/* The block's work: the one of its number. */
DEVICE void PART(run)(const struct PART(call) * c, u8 *arena)
{
    struct PART(work) work;
    const struct PART(work) *w = &work;
    if (!PART(take)(&work, c, blockIdx.x))
        return;
    const struct tile_lane lane = tile_lane_of(STRIDE);
    const u32 keys = PART(keys_of_any)(w), warp_row = threadIdx.x / WARP * (BLOCKS * 16);
    bf16 *queries = (bf16 *)(void *)arena, *ring = queries + TILE_ROWS * STRIDE;
    struct PART(rows) rows[BLOCKS];
    float out[BLOCKS][PIECES][4];
    PART(copy_queries)(queries, w);
    PART(copy)(ring, w, PART(key_at)(w, 0), keys);
    UNROLL
    for (u32 i = 0; i < BLOCKS; i++) {
        PART(start)(&rows[i], w, w->first + warp_row + i * 16);
        UNROLL
        for (u32 n = 0; n < PIECES * 4; n++)
            out[i][n / 4][n % 4] = 0.0f;
    }
    /* Where the next tile is takes a look into the table of pages: one tile ahead. */
    const bf16 *ahead = TILE_KEYS < keys ? PART(key_at)(w, TILE_KEYS) : w->kv;
    u32 stage = 0;
    for (u32 key0 = 0; key0 < keys; key0 += TILE_KEYS) {
        const u32 next = key0 + TILE_KEYS;
        copy_async_wait(0);
        block_sync();
        if (next < keys)
            PART(copy)(ring + (stage ^ 1) * 2 * TILE_SIZE, w, ahead, keys - next);
        if (next + TILE_KEYS < keys)
            ahead = PART(key_at)(w, next + TILE_KEYS);
        const bf16 *tile = ring + stage * 2 * TILE_SIZE;
        float scores[BLOCKS][TILE_KEYS / 8][4], shrink[2];
        PART(scores)(scores, queries + warp_row * STRIDE, tile, &lane);
        UNROLL
        for (u32 i = 0; i < BLOCKS; i++) {
            if (next > PART(keys_of_all)(w))
                PART(mask)(scores[i], &rows[i], key0);
            PART(softmax)(&rows[i], scores[i], shrink);
            PART(scale)(out[i], shrink);
        }
        PART(add_values)(out, scores, tile + TILE_SIZE, &lane);
        stage ^= 1;
    }
    UNROLL
    for (u32 i = 0; i < BLOCKS; i++)
        PART(store)(w, &rows[i], out[i], w->first + warp_row + i * 16);
}

#undef STRIDE
#undef BLOCKS
#undef TILE_SIZE

/* decode_pairs.h - a warp's tiles in decode_attention.cu: 32 keys and values in registers, two of
 * decode_keys.h, whose maximum and weights are made together: one exchange between lanes for both.
 *
 * Where a head is shared by ATTEND_PARTS warps, each has the scores over its elements; they add
 * them up through shared memory, a barrier of theirs a tile. */
#ifndef DECODE_PAIRS_H
#define DECODE_PAIRS_H

STATIC_ASSERT(KEYS_SHARE <= 64 && KEYS_V == 1, "two tiles a warp fit in its registers");
STATIC_ASSERT(ATTEND_KEYS == 2 * KEYS_TILE && KV_PAGE % ATTEND_KEYS == 0, "a tile is of one page");

struct attend_tile {
    struct keys_tile of[2];
};

/* A tile in the cache: its first key, whose value is ATTEND_VALUES elements further; how many keys
 * of it the row sees, 1.. */
struct attend_place {
    const bf16 *k;
    u32 keys;
};
#define ATTEND_VALUES ((u64)(KV_HEADS)*KV_PAGE * HEAD_DIM)

/* Rows of the tile, E apart: this lane's first, and how many there are behind it (< 0: it is past
 * the last one). Rows are counted from there, so that what a lane adds is a number in the code. */
struct attend_rows {
    const bf16 *first;
    i32 behind;
};

DEVICE struct attend_rows attend_rows(const bf16 *from, u32 row, u32 rows)
{
    const struct attend_rows r = {from + row * HEAD_DIM, (i32)rows - 1 - (i32)row};
    return r;
}

DEVICE u32x4 attend_load(struct attend_rows rows, i32 row)
{
    return load_l2_u32x4(rows.first + LESSER(row, rows.behind) * HEAD_DIM);
}

/* Lanes past the end of a head or of the keys that are seen load again what others do: their
 * queries are 0 and their weights are 0. From L2, in the order of the program. */
DEVICE void attend_load_k(struct attend_tile *tile, struct attend_place at)
{
    UNROLL
    for (u32 c = 0; c < KEYS_Q; c++) {
        const u32 e = keys_loaded(c * 32 + lane_id() % 4 * 8, KEYS_Q * 32);
        const struct attend_rows rows = attend_rows(at.k + e, lane_id() / 4, at.keys);
        UNROLL
        for (i32 i = 0; i < 4; i++)
            tile->of[i / 2].k[c][i % 2] = attend_load(rows, 8 * i);
    }
}

DEVICE void attend_load_v(struct attend_tile *tile, struct attend_place at)
{
    const u32 e = keys_loaded(lane_id() / 4 * 8, 64);
    const struct attend_rows rows =
        attend_rows(at.k + ATTEND_VALUES + e, lane_id() % 4 * 2, at.keys);
    UNROLL
    for (i32 i = 0; i < 8; i++)
        tile->of[i / 4].v[0][i % 4] = attend_load(rows, i / 2 * 8 + i % 2);
}

/* Key and value number `own`, the last that is seen, in place of what was loaded for it and those
 * past it: one row, whoever loads. */
DEVICE void attend_load_own(struct attend_tile *tile, const bf16 *first, u32 own)
{
    const bf16 *k = first + own * HEAD_DIM, *v = k + ATTEND_VALUES;
    const i32 behind_k = (i32)own - (i32)(lane_id() / 4);
    const i32 behind_v = (i32)own - (i32)(lane_id() % 4 * 2);
    UNROLL
    for (u32 c = 0; c < KEYS_Q; c++) {
        const u32 e = keys_loaded(c * 32 + lane_id() % 4 * 8, KEYS_Q * 32);
        UNROLL
        for (i32 i = 0; i < 4; i++)
            if (8 * i >= behind_k)
                tile->of[i / 2].k[c][i % 2] = load_l2_u32x4(k + e);
    }
    const u32 e = keys_loaded(lane_id() / 4 * 8, 64);
    UNROLL
    for (i32 i = 0; i < 8; i++)
        if (i / 2 * 8 + i % 2 >= behind_v)
            tile->of[i / 4].v[0][i % 4] = load_l2_u32x4(v + e);
}

/* score[t][i] is d of queries by keys 16 t + 8 i .. of the tile. */
DEVICE void attend_scores(float score[2][2][4], const struct keys_state *s,
                          const struct attend_tile *tile)
{
    keys_scores(score[0], s, &tile->of[0]);
    keys_scores(score[1], s, &tile->of[1]);
}

/* Adds the other parts' sums, in the order of the parts, so that all have the same bits. `turn`,
 * even or odd, says where they pass: what a warp writes over was read before the barrier in
 * between. `rows`: of queries g + 8 too where it is 2. */
DEVICE void attend_exchange(float score[2][2][4], f32x4 *shared, u32 turn, u32 rows)
{
    const u32 first = threadIdx.x / WARP / ATTEND_PARTS * ATTEND_PARTS * WARP + lane_id();
    f32x4 *sums = shared + turn % 2 * rows * 2 * ATTEND_THREADS;
    UNROLL
    for (u32 i = 0; i < 4; i++) {
        const u32 t = i % 2, h = i / 2 * 2;
        const f32x4 mine = {score[t][0][h], score[t][0][h + 1], score[t][1][h], score[t][1][h + 1]};
        if (i / 2 < rows)
            sums[i * ATTEND_THREADS + threadIdx.x] = mine;
    }
    barrier_sync(1 + keys_team(), ATTEND_PARTS * WARP);
    UNROLL
    for (u32 i = 0; i < 4; i++) {
        const u32 t = i % 2, h = i / 2 * 2;
        if (i / 2 >= rows)
            continue;
        f32x4 sum = sums[i * ATTEND_THREADS + first];
        UNROLL
        for (u32 part = 1; part < ATTEND_PARTS; part++) {
            const f32x4 more = sums[i * ATTEND_THREADS + first + part * WARP];
            sum.x += more.x;
            sum.y += more.y;
            sum.z += more.z;
            sum.w += more.w;
        }
        score[t][0][h] = sum.x;
        score[t][0][h + 1] = sum.y;
        score[t][1][h] = sum.z;
        score[t][1][h + 1] = sum.w;
    }
}

/* Scores of keys past the last one count for nothing. */
DEVICE void attend_hide(float score[2][2][4], u32 keys)
{
    UNROLL
    for (u32 i = 0; i < 16; i++) {
        const u32 key = i / 4 * 8 + lane_id() % 4 * 2 + i % 2;
        if (key >= keys)
            score[i / 8][i / 4 % 2][i % 4] = KEYS_NONE;
    }
}

/* As keys_weights(): of queries g (h 0) or g + 8 (h 1), whose scores become weights. `scale` is
 * that of scores in units of log2. */
DEVICE void attend_weights(u32 p[2][4], struct keys_state *s, float score[2][2][4], float scale,
                           u32 h)
{
    float most = KEYS_NONE, sum = 0.0f;
    UNROLL
    for (u32 i = 0; i < 8; i++)
        most = f32_max(most, score[i / 4][i / 2 % 2][2 * h + i % 2]);
    most = f32_max(most, shuffle_xor_f32(most, 1, WARP));
    most = f32_max(most, shuffle_xor_f32(most, 2, WARP));
    most = f32_max(s->most[h], most * scale);
    const float fade = fast_exp2(s->most[h] - most);
    UNROLL
    for (u32 i = 0; i < 4; i++) {
        float *pair = score[i / 2][i % 2] + 2 * h;
        pair[0] = fast_exp2(f32_fma(pair[0], scale, -most));
        pair[1] = fast_exp2(f32_fma(pair[1], scale, -most));
        sum += pair[0] + pair[1];
        p[i / 2][i % 2 * 2 + h] = bf16_pack(pair[0], pair[1]);
    }
    s->most[h] = most;
    s->sum[h] = f32_fma(s->sum[h], fade, sum);
    UNROLL
    for (u32 j = 0; j < 8; j++) {
        s->out[0][j][2 * h] *= fade;
        s->out[0][j][2 * h + 1] *= fade;
    }
}

DEVICE void attend_add(struct keys_state *s, u32 p[2][4], const struct attend_tile *tile)
{
    keys_add(s, p[0], &tile->of[0]);
    keys_add(s, p[1], &tile->of[1]);
}

#endif

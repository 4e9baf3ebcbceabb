/* decode_keys.h - a warp's part of attention of decode: the group's queries, tiles of 16 keys,
 * their scores and weights, the sums of values. Shared by decode_attention.cu and
 * skinny_attention.cu.
 *
 * KEYS_HALVES    warps that share a tile, an equal part of a head's elements each
 *
 * scores = q k^T: lane (g, i) takes elements 8 i .. 8 i + 7 of 32 of key g, of q as of k
 * (decode_stream.h); out += p v: lane (g, i) takes elements 8 g .. 8 g + 7 of 64 of keys 2 i, 2 i +
 * 1, 2 i + 8 and 2 i + 9; element 8 g + j is column g of product j, so that pairs of keys are put
 * together in registers, and a lane ends with sixteen elements of out in a row.
 *
 * Warps that share a tile add up their scores through shared memory, one barrier a tile, and all
 * take the weights. */
#ifndef DECODE_KEYS_H
#define DECODE_KEYS_H

#define KEYS_NONE (-1e30f) /* below every score */
enum {
    KEYS_SHARE = DIV_UP(DIV_UP(HEAD_DIM, KEYS_HALVES), 8) * 8, /* elements of a head, a warp's */
    KEYS_Q = DIV_UP(KEYS_SHARE, 32),                           /* pieces of them for scores */
    KEYS_V = DIV_UP(KEYS_SHARE, 64),                           /* and for out */
};
STATIC_ASSERT(HEAD_DIM % 8 == 0 && KEYS_SHARE <= 128, "registers hold a warp's share of out");
STATIC_ASSERT(KV_PAGE % KEYS_TILE == 0, "a tile is of one page");

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

/* Pieces of rows g and g + 8 as operand A, two of 16 columns. */
DEVICE void keys_rows(u32 q[8], u32x4 low, u32x4 high)
{
    q[0] = low.x;
    q[1] = high.x;
    q[2] = low.y;
    q[3] = high.y;
    q[4] = low.z;
    q[5] = high.z;
    q[6] = low.w;
    q[7] = high.w;
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
    keys_rows(q, v[0], v[1]);
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

/* Adds the other half's sums, by way of `shared`: 4 KB a team. `turn`, even or odd, says where they
 * pass, so that one barrier a tile does: what a warp writes over was read before the barrier in
 * between. */
DEVICE void keys_exchange(float score[2][4], f32x4 *shared, u32 turn)
{
    const u32 mine = keys_half() * WARP + lane_id(), pair = KEYS_HALVES * WARP;
    f32x4 *sums = shared + (keys_team() * 2 + turn % 2) * 2 * pair;
    UNROLL
    for (u32 i = 0; i < 2; i++) {
        const f32x4 sum = {score[i][0], score[i][1], score[i][2], score[i][3]};
        sums[i * pair + mine] = sum;
    }
    barrier_sync(1 + keys_team(), pair);
    UNROLL
    for (u32 i = 0; i < 2; i++) {
        const f32x4 theirs = sums[i * pair + (mine ^ WARP)];
        score[i][0] += theirs.x;
        score[i][1] += theirs.y;
        score[i][2] += theirs.z;
        score[i][3] += theirs.w;
    }
}

/* Keys of the tile that the row does not see count for nothing. */
DEVICE void keys_mask(float score[2][4], u32 keys)
{
    const u32 key = (u32)here_u64(lane_id()) % 4 * 2;
    UNROLL
    for (u32 i = 0; i < 8; i++)
        if (key + i / 4 * 8 + i % 2 >= keys)
            score[i / 4][i % 4] = KEYS_NONE;
}

/* Scores times `scale`, in units of log2, become weights relative to the new maximum; out and sum
 * follow it. p is the weights as operand A. */
DEVICE void keys_weights(u32 p[4], struct keys_state *s, float score[2][4], float scale, u32 keys)
{
    if (keys < KEYS_TILE)
        keys_mask(score, keys);
    UNROLL
    for (u32 i = 0; i < 8; i++)
        score[i / 4][i % 4] *= scale;
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
DEVICE void keys_clear(struct keys_state *s)
{
    UNROLL
    for (u32 i = 0; i < KEYS_V * 32; i++)
        s->out[i / 32][i / 4 % 8][i % 4] = 0.0f;
    s->most[0] = s->most[1] = KEYS_NONE;
    s->sum[0] = s->sum[1] = 0.0f;
}

/* The same, of the group's queries. */
DEVICE void keys_begin(struct keys_state *s, const bf16 *first, u32 group)
{
    UNROLL
    for (u32 c = 0; c < KEYS_Q; c++)
        keys_query(s->q[c], first, group, c);
    keys_clear(s);
}

#endif

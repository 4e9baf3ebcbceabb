/* skinny_pieces.h - what teams and blocks of skinny_attention.cu make of the pairs that they share,
 * and how it is added up, in the order of the sequence.
 *
 * A piece is a part of a pair's keys: for each query of the group the maximum and the sum of its
 * weights, and the weighted values. A team that has a pair alone writes its result. Else it leaves
 * a piece: number 0, of a pair that began before its part, or number 1, of one that begins in it
 * and goes on behind it; so never two of a kind. The same holds for a block, of the pieces of its
 * teams added up; those stand in scratch, and the last block of a pair to end adds them. */
#ifndef SKINNY_PIECES_H
#define SKINNY_PIECES_H

enum { PIECE_FOURS = HEAD_DIM / 4, PIECES_BATCH = 8 };

/* out[pieces][group][E], scale[pieces][group] {maximum, sum} behind it. */
struct pieces {
    float *out;
    f32x2 *scale;
};

DEVICE struct pieces pieces_in(void *memory, u32 n, u32 group)
{
    struct pieces p;
    p.out = (float *)memory;
    p.scale = (f32x2 *)(void *)(p.out + n * group * HEAD_DIM);
    return p;
}

/* ---- a warp's state ---------------------------------------------------------------------------
 *
 * Lane (g, i) has, of rows g and g + 8, elements 16 i .. of 64, eight of them in each half. */

DEVICE void piece_eight(float to[8], const struct keys_state *s, u32 c, u32 h, u32 half)
{
    UNROLL
    for (u32 j = 0; j < 8; j++)
        to[j] = s->out[c][j][2 * h + half];
}

/* To piece `at`. */
DEVICE void piece_leave(struct pieces to, u32 at, const struct keys_state *s, u32 group)
{
    UNROLL
    for (u32 h = 0; h < 2; h++) {
        const u32 query = lane_id() / 4 + 8 * h, place = at * group + query;
        const f32x2 scale = {s->most[h], warp_sum(s->sum[h], 4)};
        if (query >= group)
            continue;
        if (lane_id() % 4 == 0 && keys_half() == 0)
            to.scale[place] = scale;
        UNROLL
        for (u32 j = 0; j < KEYS_V * 2; j++) {
            const u32 e = j / 2 * 64 + lane_id() % 4 * 16 + j % 2 * 8;
            float v[8];
            piece_eight(v, s, j / 2, h, j % 2);
            const f32x4 a = {v[0], v[1], v[2], v[3]}, b = {v[4], v[5], v[6], v[7]};
            f32x4 *out = (f32x4 *)(void *)(to.out + place * HEAD_DIM + keys_element(e));
            if (keys_has(e)) {
                out[0] = a;
                out[1] = b;
            }
        }
    }
}

/* The result of a pair that the team had alone. */
DEVICE void piece_store(bf16 *att, const struct keys_state *s, u32 group)
{
    UNROLL
    for (u32 h = 0; h < 2; h++) {
        const u32 query = lane_id() / 4 + 8 * h;
        const float norm = f32_divide(1.0f, warp_sum(s->sum[h], 4));
        if (query >= group)
            continue;
        UNROLL
        for (u32 j = 0; j < KEYS_V * 2; j++) {
            const u32 e = j / 2 * 64 + lane_id() % 4 * 16 + j % 2 * 8;
            float v[8];
            piece_eight(v, s, j / 2, h, j % 2);
            UNROLL
            for (u32 i = 0; i < 8; i++)
                v[i] *= norm;
            if (keys_has(e))
                *(u32x4 *)(void *)(att + query * HEAD_DIM + keys_element(e)) = bf16_pack8(v);
        }
    }
}

/* ---- a block's teams ---------------------------------------------------------------------------
 */

/* Pieces of one pair in shared memory: of teams team.., number 0 all but perhaps the first's. */
struct chain {
    struct pieces first, rest;
    u32 team, teams;
};

/* A team's weight in four elements of a query. */
DEVICE void chain_add(f32x4 *value, float *sum, float most, struct pieces p, u32 at, u32 four)
{
    const f32x2 scale = p.scale[at];
    const f32x4 v = ((const f32x4 *)(const void *)(p.out + at * HEAD_DIM))[four];
    const float weight = fast_exp2(scale.x - most);
    *sum = f32_fma(weight, scale.y, *sum);
    value->x = f32_fma(weight, v.x, value->x);
    value->y = f32_fma(weight, v.y, value->y);
    value->z = f32_fma(weight, v.z, value->z);
    value->w = f32_fma(weight, v.w, value->w);
}

/* Four elements of one query of the pair, and the scale that they have. */
DEVICE f32x4 chain_sum(f32x2 *scale, const struct chain *c, u32 group, u32 query, u32 four)
{
    const u32 at = c->team * group + query;
    float most = c->first.scale[at].x, sum = 0.0f;
    f32x4 value = {0, 0, 0, 0};
    for (u32 t = 1; t < c->teams; t++)
        most = f32_max(most, c->rest.scale[at + t * group].x);
    chain_add(&value, &sum, most, c->first, at, four);
    for (u32 t = 1; t < c->teams; t++)
        chain_add(&value, &sum, most, c->rest, at + t * group, four);
    scale->x = most;
    scale->y = sum;
    return value;
}

DEVICE void piece_store_four(bf16 *to, f32x4 v, float norm)
{
    u32x2 packed;
    packed.x = bf16_pack(v.x * norm, v.y * norm);
    packed.y = bf16_pack(v.z * norm, v.w * norm);
    *(u32x2 *)(void *)to = packed;
}

/* The pair's result, to att, of its heads. The whole block. */
DEVICE void chain_store(bf16 *att, const struct chain *c, u32 group)
{
    for (u32 o = threadIdx.x; o < group * PIECE_FOURS; o += SKINNY_KEYS_THREADS) {
        f32x2 scale;
        const f32x4 v = chain_sum(&scale, c, group, o / PIECE_FOURS, o % PIECE_FOURS);
        piece_store_four(att + o * 4, v, f32_divide(1.0f, scale.y));
    }
}

/* The block's piece of the pair, to piece `at`. */
DEVICE void chain_leave(struct pieces to, u32 at, const struct chain *c, u32 group)
{
    for (u32 o = threadIdx.x; o < group * PIECE_FOURS; o += SKINNY_KEYS_THREADS) {
        const u32 query = o / PIECE_FOURS;
        f32x2 scale;
        const f32x4 v = chain_sum(&scale, c, group, query, o % PIECE_FOURS);
        ((f32x4 *)(void *)(to.out + (u64)at * group * HEAD_DIM))[o] = v;
        if (o % PIECE_FOURS == 0)
            to.scale[at * group + query] = scale;
    }
}

/* ---- a pair's blocks --------------------------------------------------------------------------
 *
 * Pieces stand in scratch, two of each block: of the pair's first one number 1, of the others
 * number 0. */

DEVICE u32 blocks_piece(u32 block, u32 i)
{
    return (block + i) * 2 + (i == 0);
}

/* weight[group][n]: {what each block's values count for, -}. Warps share the queries. */
DEVICE void blocks_weigh(f32x2 *weight, struct pieces from, u32 block, u32 n, u32 group)
{
    for (u32 o = threadIdx.x; o < group * n; o += SKINNY_KEYS_THREADS) {
        const float *scale =
            (const float *)(const void *)(from.scale + blocks_piece(block, o % n) * group + o / n);
        weight[o].x = load_l2_f32(scale);
        weight[o].y = load_l2_f32(scale + 1);
    }
    block_sync();
    for (u32 query = threadIdx.x / WARP; query < group; query += SKINNY_KEYS_WARPS) {
        f32x2 *mine = weight + query * n;
        float most = KEYS_NONE, sum = 0.0f;
        for (u32 i = lane_id(); i < n; i += WARP)
            most = f32_max(most, mine[i].x);
        most = warp_max(most, WARP);
        for (u32 i = lane_id(); i < n; i += WARP)
            sum = f32_fma(fast_exp2(mine[i].x - most), mine[i].y, sum);
        const float norm = f32_divide(1.0f, warp_sum(sum, WARP));
        for (u32 i = lane_id(); i < n; i += WARP)
            mine[i].x = fast_exp2(mine[i].x - most) * norm;
    }
    block_sync();
}

/* Four elements of pieces i, i + step .. of `n`, all on the way at once. */
struct blocks_batch {
    u32x4 v[PIECES_BATCH];
};

DEVICE void blocks_load(struct blocks_batch *b, const float *out, u32 group, u32 block, u32 n,
                        u32 i, u32 step)
{
    UNROLL
    for (u32 j = 0; j < PIECES_BATCH; j++) {
        const u32 piece = blocks_piece(block, LESSER(i + j * step, n - 1));
        b->v[j] = load_l2_u32x4(out + (u64)piece * group * HEAD_DIM);
    }
}

DEVICE void blocks_add(f32x4 *sum, const struct blocks_batch *b, const f32x2 *weight, u32 n, u32 i,
                       u32 step)
{
    UNROLL
    for (u32 j = 0; j < PIECES_BATCH; j++) {
        const float share = i + j * step < n ? weight[i + j * step].x : 0.0f;
        sum->x = f32_fma(share, f32_from_bits(b->v[j].x), sum->x);
        sum->y = f32_fma(share, f32_from_bits(b->v[j].y), sum->y);
        sum->z = f32_fma(share, f32_from_bits(b->v[j].z), sum->z);
        sum->w = f32_fma(share, f32_from_bits(b->v[j].w), sum->w);
    }
}

/* Sums of the `sharers` of each four elements, in their order. */
DEVICE void blocks_share(bf16 *att, const f32x4 *parts, u32 all, u32 sharers)
{
    const u32 t = threadIdx.x;
    block_sync();
    if (t >= all)
        return;
    f32x4 sum = parts[t];
    for (u32 i = 1; i < sharers; i++) {
        const f32x4 part = parts[i * all + t];
        sum.x += part.x;
        sum.y += part.y;
        sum.z += part.z;
        sum.w += part.w;
    }
    piece_store_four(att + t * 4, sum, 1.0f);
}

/* The pair's result from its blocks' pieces, the first of which are on the way while they are
 * weighed. Where there are threads enough, `sharers` have every so-manieth piece of four elements
 * each. The whole block, to which `shared` belongs. */
DEVICE void blocks_store(bf16 *att, u8 *shared, struct pieces from, struct part blocks, u32 group)
{
    const u32 block = blocks.first, n = blocks.end - block, all = group * PIECE_FOURS;
    const u32 sharers = all < SKINNY_KEYS_THREADS ? SKINNY_KEYS_THREADS / all : 1;
    const u32 mine = LESSER(threadIdx.x / all, sharers - 1), step = sharers * PIECES_BATCH;
    const u32 first = threadIdx.x % all;
    f32x2 *weight = (f32x2 *)(void *)shared;
    f32x4 *parts = (f32x4 *)(void *)(shared + ROUND_UP(group * n * 8, 16));
    struct blocks_batch batch;
    blocks_load(&batch, from.out + first * 4, group, block, n, mine, sharers);
    blocks_weigh(weight, from, block, n, group);
    for (u32 o = first; o < all && threadIdx.x / all < sharers; o += SKINNY_KEYS_THREADS) {
        f32x4 sum = {0, 0, 0, 0};
        for (u32 i = mine; i < n; i += step) {
            if (i != mine || o != first)
                blocks_load(&batch, from.out + o * 4, group, block, n, i, sharers);
            blocks_add(&sum, &batch, weight + o / PIECE_FOURS * n, n, i, sharers);
        }
        if (sharers == 1)
            piece_store_four(att + o * 4, sum, 1.0f);
        else
            parts[mine * all + o] = sum;
    }
    if (sharers > 1)
        blocks_share(att, parts, all, sharers);
}

#endif

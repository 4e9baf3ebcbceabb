/* decode_meet.h - how what the warps of decode_attention.cu made of their keys becomes one: first
 * those of a cluster of blocks (or of a block), in shared memory; then, where several share a row's
 * kv head, what each of those left in scratch.
 *
 * A state is {maximum, sum of weights, weighted values}. Eight pieces of four elements of a query
 * are a sum: the warps store their states' pieces where the sum is made, in their own or another
 * block's shared memory, which an mbarrier counts: no fence, no barrier of all, and a block may end
 * while what it stored is on its way. A warp makes a sum: lane (s, c) has piece c of every fourth
 * state, all loads under way at once; then the four lanes of a piece join. */
#ifndef DECODE_MEET_H
#define DECODE_MEET_H

#ifdef DEVICE_SM90A
#include "device_sm90.h"
#endif

enum { ATTEND_BATCH = 8 }; /* states of a lane at once: those of a cluster of 8 */

/* Four elements, weighted by 2^(score - most). */
struct attend_part {
    f32x4 value;
    f32x4 scale; /* most, sum of weights; so that they travel as one */
};

/* Where the states of a block's sums stand: sum i is number i / cluster of block i % cluster, or
 * all are this block's. */
struct attend_room {
    f32x4 *pieces; /* [sum][block][team][ATTEND_PIECES] */
    u64 *barrier;  /* of a cluster's block: it waits for the pieces of its sums */
    u32 cluster;   /* blocks that have sums: the cluster's, or 1 */
    u32 blocks;    /* that have keys, of this cluster */
    u32 rank;      /* this block in it */
};

/* The barrier is there before another block stores; where there are no clusters, nothing. The
 * cluster's blocks have all begun when attend_begun() returns, and the barrier knows how much it
 * waits for; others' bytes may have come before, which its count allows. */
DEVICE void attend_begin(u64 *barrier)
{
#ifdef DEVICE_SM90A
    if (threadIdx.x == 0) {
        mbarrier_init(barrier, 1);
        mbarrier_init_fence();
    }
    cluster_arrive();
#else
    (void)barrier;
#endif
}

DEVICE void attend_begun(const struct attend_room *room, u32 sums)
{
#ifdef DEVICE_SM90A
    cluster_wait();
    if (threadIdx.x == 0 && room->blocks > 1 && room->rank < sums)
        mbarrier_arrive_expect(room->barrier, DIV_UP(sums - room->rank, room->cluster) *
                                                  room->blocks * ATTEND_TEAMS * ATTEND_PIECES * 16);
#else
    (void)room, (void)sums;
#endif
}

DEVICE void attend_put(const struct attend_room *room, u32 sum, u32 piece, f32x4 v)
{
    const u32 slot = room->blocks > 1 ? sum / room->cluster : sum;
    const u32 states = (room->blocks > 1 ? room->cluster : 1) * ATTEND_TEAMS;
    f32x4 *to = room->pieces +
                (slot * states + room->rank * ATTEND_TEAMS + keys_team()) * ATTEND_PIECES + piece;
#ifdef DEVICE_SM90A
    if (room->blocks > 1) {
        cluster_store_f32x4(to, v, sum % room->cluster, room->barrier);
        return;
    }
#endif
    *to = v;
}

/* This team's state of queries g (h 0) or g + 8 (h 1), to where its sums are made. Of the sixteen
 * elements that lane i has in a row, 4 k .. are piece k % 2 4 + i of the k / 2-th sum, so that a
 * warp stores and loads 64 bytes and more in a row. */
DEVICE void attend_publish(const struct attend_room *room, const struct keys_state *s, u32 group,
                           u32 h)
{
    const u32 query = lane_id() / 4 + 8 * h, i = lane_id() % 4;
    const u32 sum = (query * ATTEND_PARTS + keys_half()) * 2;
    const float weights = warp_sum(s->sum[h], 4);
    const f32x4 scale = {s->most[h], weights, 0, 0};
    if (query >= group)
        return;
    UNROLL
    for (u32 k = 0; k < 4; k++) { /* element 16 i + j is out[j % 8][2 h + j / 8] */
        const float(*out)[4] = s->out[0] + k % 2 * 4;
        const u32 d = 2 * h + k / 2;
        const f32x4 v = {out[0][d], out[1][d], out[2][d], out[3][d]};
        attend_put(room, sum + k / 2, k % 2 * 4 + i, v);
    }
    if (i < 2)
        attend_put(room, sum + i, 8, scale);
}

/* Until all states of the block's sums are there. */
DEVICE void attend_meet(const struct attend_room *room)
{
#ifdef DEVICE_SM90A
    if (room->blocks > 1) {
        cluster_store_wait(room->barrier, 0);
        return;
    }
#endif
    (void)room;
    block_sync();
}

DEVICE struct attend_part attend_none(void)
{
    const struct attend_part none = {{0, 0, 0, 0}, {KEYS_NONE, 0, 0, 0}};
    return none;
}

/* What this lane adds up of a sum of this block. */
DEVICE void attend_gather(struct attend_part v[ATTEND_BATCH], const struct attend_room *room,
                          u32 sum)
{
    const u32 slot = room->blocks > 1 ? sum / room->cluster : sum;
    const u32 states = (room->blocks > 1 ? room->cluster : 1) * ATTEND_TEAMS;
    const f32x4 *from = room->pieces + slot * states * ATTEND_PIECES;
    UNROLL
    for (u32 j = 0; j < ATTEND_BATCH; j++) {
        const u32 state = lane_id() / 8 + 4 * j;
        v[j] = attend_none();
        if (4 * j < 8 * ATTEND_TEAMS && state < room->blocks * ATTEND_TEAMS) {
            v[j].value = from[state * ATTEND_PIECES + lane_id() % 8];
            v[j].scale = from[state * ATTEND_PIECES + 8];
        }
    }
}

DEVICE void attend_take(struct attend_part *to, struct attend_part from, float most)
{
    const float weight = fast_exp2(from.scale.x - most);
    to->value.x = f32_fma(weight, from.value.x, to->value.x);
    to->value.y = f32_fma(weight, from.value.y, to->value.y);
    to->value.z = f32_fma(weight, from.value.z, to->value.z);
    to->value.w = f32_fma(weight, from.value.w, to->value.w);
    to->scale.y = f32_fma(weight, from.scale.y, to->scale.y);
}

/* The lane's states as one. */
DEVICE struct attend_part attend_fold(const struct attend_part v[ATTEND_BATCH])
{
    struct attend_part sum = attend_none();
    UNROLL
    for (u32 j = 0; j < ATTEND_BATCH; j++)
        sum.scale.x = f32_max(sum.scale.x, v[j].scale.x);
    UNROLL
    for (u32 j = 0; j < ATTEND_BATCH; j++)
        attend_take(&sum, v[j], sum.scale.x);
    return sum;
}

/* Of the four lanes of a piece. */
DEVICE struct attend_part attend_join(struct attend_part mine)
{
    float most = f32_max(mine.scale.x, shuffle_xor_f32(mine.scale.x, 8, WARP));
    most = f32_max(most, shuffle_xor_f32(most, 16, WARP));
    struct attend_part sum = attend_none();
    attend_take(&sum, mine, most);
    float *each[5] = {&sum.value.x, &sum.value.y, &sum.value.z, &sum.value.w, &sum.scale.y};
    UNROLL
    for (u32 j = 0; j < 5; j++) {
        *each[j] += shuffle_xor_f32(*each[j], 8, WARP);
        *each[j] += shuffle_xor_f32(*each[j], 16, WARP);
    }
    sum.scale.x = most;
    return sum;
}

/* To the group's att: this lane's four elements of a sum, where the head has them. */
DEVICE void attend_store(bf16 *att, u32 sum, struct attend_part part)
{
    const u32 query = sum / (2 * ATTEND_PARTS), piece = lane_id() % 8;
    const u32 e = piece % 4 * 16 + (sum % 2 * 2 + piece / 4) * 4;
    const u32 element = sum / 2 % ATTEND_PARTS * KEYS_SHARE + e;
    const float norm = fast_reciprocal(part.scale.y);
    u32x2 packed;
    packed.x = bf16_pack(part.value.x * norm, part.value.y * norm);
    packed.y = bf16_pack(part.value.z * norm, part.value.w * norm);
    if (lane_id() < 8 && e < KEYS_SHARE && element < (u32)HEAD_DIM)
        *(u32x2 *)(void *)(att + query * HEAD_DIM + element) = packed;
}

/* ---- clusters that share a row's kv head: by way of scratch ---- */

struct attend_units {
    struct attend_part *left; /* [sum][piece][all] */
    int *counter;             /* of each sum */
    u32 all, used, mine;      /* clusters there are, that have keys; this one */
};

/* Leaves what this cluster has of a sum, and counts it in; 1 in the last one, which leaves the
 * counter at 0: what the others left may then be read, from L2. */
DEVICE u32 attend_leave(struct attend_part *left, struct attend_part part,
                        const struct attend_units *units, int *counter)
{
    u32 last = 0;
    if (lane_id() < 8)
        left[units->mine] = part;
    warp_sync();
    if (lane_id() == 0) {
        last = atomic_add_acq_rel_u32((u32 *)counter, 1) + 1 == units->used;
        if (last)
            *counter = 0;
    }
    last = shuffle_u32(last, 0, WARP);
    warp_sync();
    return last;
}

/* The sum of what all of them left, in their order. */
DEVICE struct attend_part attend_all(const struct attend_part *left, u32 used)
{
    struct attend_part sum = attend_none();
    for (u32 first = lane_id() / 8; first < ROUND_UP(used, 4); first += 4 * ATTEND_BATCH) {
        struct attend_part v[ATTEND_BATCH], both[2];
        UNROLL
        for (u32 j = 0; j < ATTEND_BATCH; j++) {
            const u32 i = first + 4 * j;
            v[j] = attend_none();
            if (i < used) {
                const u32x4 value = load_l2_u32x4(&left[i].value);
                const u32x4 scale = load_l2_u32x4(&left[i].scale);
                const f32x4 a = {f32_from_bits(value.x), f32_from_bits(value.y),
                                 f32_from_bits(value.z), f32_from_bits(value.w)};
                const f32x4 b = {f32_from_bits(scale.x), f32_from_bits(scale.y), 0, 0};
                v[j].value = a;
                v[j].scale = b;
            }
        }
        both[0] = sum;
        both[1] = attend_fold(v);
        sum = attend_none();
        sum.scale.x = f32_max(both[0].scale.x, both[1].scale.x);
        attend_take(&sum, both[0], sum.scale.x);
        attend_take(&sum, both[1], sum.scale.x);
    }
    return attend_join(sum);
}

/* The block's sums, from what its cluster and the others have, to the group's att. A warp a sum. */
DEVICE void attend_finish(bf16 *att, const struct attend_room *room,
                          const struct attend_units *units, u32 sums)
{
    const u32 makers = room->blocks > 1 ? room->cluster : 1; /* blocks that make sums */
    if (room->rank >= LESSER(makers, room->blocks ? sums : 0))
        return;
    attend_meet(room);
    for (u32 i = threadIdx.x / WARP * makers + room->rank; i < sums; i += ATTEND_WARPS * makers) {
        struct attend_part v[ATTEND_BATCH];
        attend_gather(v, room, i);
        struct attend_part part = attend_join(attend_fold(v));
        if (units->used > 1) {
            struct attend_part *left = units->left + (i * 8 + lane_id() % 8) * units->all;
            if (!attend_leave(left, part, units, units->counter + i))
                continue;
            part = attend_all(left, units->used);
        }
        attend_store(att, i, part);
    }
}

#endif

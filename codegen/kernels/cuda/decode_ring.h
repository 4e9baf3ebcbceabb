/* decode_ring.h - keys and values on their way, in shared memory: slots that a warp fills by
 * cp.async and empties into registers.
 *
 * A lane copies exactly the 16-byte pieces that it will itself use (decode_keys.h), into places of
 * its own: no other thread is waited for, only its own groups of copies, and what is under way
 * holds no registers. A slot is 16 rows of a warp's share of a head, of keys (or of queries, which
 * a matrix instruction takes in the same way) or of values, and takes their bytes, no more: lanes
 * without elements have no place, copy nothing and read zeros.
 *
 * Places are in the order of the lanes, so that eight lanes, which is what one cycle serves, read
 * 128 bytes in a row. */
#ifndef DECODE_RING_H
#define DECODE_RING_H

enum { KEYS_SLOT = KEYS_TILE * KEYS_SHARE * 2 };

/* ---- keys: lane (g, i) has elements 8 i .. of 32 of keys g and g + 8 ---- */

/* Lanes of each key that piece c has elements for. */
#define KEYS_K_LANES(c) LESSER(4u, (KEYS_SHARE - (c)*32u) / 8u)

/* This lane's place for key g + 8 i. */
DEVICE u32 keys_k_at(u32 c, u32 i)
{
    const u32 lanes = KEYS_K_LANES(c);
    return c * 2 * WARP * 16 + (i * 8 * lanes + lane_id() / 4 * lanes + lane_id() % 4) * 16;
}

/* One key's pieces; `from` is its element of lane (g, 0). */
DEVICE void keys_copy_key(u8 *slot, const bf16 *from, u32 i)
{
    UNROLL
    for (u32 c = 0; c < KEYS_Q; c++) {
        const u32 e = c * 32 + lane_id() % 4 * 8;
        if (keys_has(e))
            copy_async_16(slot + keys_k_at(c, i), from + e);
    }
}

/* Starts copies of rows `from`, E apart, of which there are `rows`: the last one stands for those
 * that are not, which is rare: its places are made here, not kept. The caller commits. */
DEVICE void keys_copy_k(u8 *slot, const bf16 *from, u32 rows)
{
    from += keys_element(0);
    if (rows >= KEYS_TILE) {
        from += lane_id() / 4 * HEAD_DIM;
        keys_copy_key(slot, from, 0);
        keys_copy_key(slot, from + 8 * HEAD_DIM, 1);
    } else {
        const u32 g = (u32)here_u64(lane_id()) / 4;
        keys_copy_key(slot, from + LESSER(g, rows - 1) * HEAD_DIM, 0);
        keys_copy_key(slot, from + LESSER(g + 8, rows - 1) * HEAD_DIM, 1);
    }
}

DEVICE u32x4 keys_read_k(const u8 *slot, u32 c, u32 i)
{
    u32x4 k = {0, 0, 0, 0};
    if (keys_has(c * 32 + lane_id() % 4 * 8))
        k = *(const u32x4 *)(const void *)(slot + keys_k_at(c, i));
    return k;
}

/* ---- values: lane (g, i) has elements 8 g .. of 64 of keys 2 i, 2 i + 1, 2 i + 8, 2 i + 9 ---- */

#define KEYS_V_LANES(c) (4 * LESSER(8u, (KEYS_SHARE - (c)*64u) / 8u))

/* This lane's place for the n-th of them. */
DEVICE u32 keys_v_at(u32 c, u32 n)
{
    return c * 4 * WARP * 16 + (n * KEYS_V_LANES(c) + lane_id()) * 16;
}

DEVICE void keys_copy_value(u8 *slot, const bf16 *from, u32 n)
{
    UNROLL
    for (u32 c = 0; c < KEYS_V; c++) {
        const u32 e = c * 64 + lane_id() / 4 * 8;
        if (keys_has(e))
            copy_async_16(slot + keys_v_at(c, n), from + e);
    }
}

/* As keys_copy_k. */
DEVICE void keys_copy_v(u8 *slot, const bf16 *from, u32 rows)
{
    from += keys_element(0);
    if (rows >= KEYS_TILE) {
        from += lane_id() % 4 * 2 * HEAD_DIM;
        UNROLL
        for (u32 n = 0; n < 4; n++)
            keys_copy_value(slot, from + (n / 2 * 8 + n % 2) * HEAD_DIM, n);
    } else {
        const u32 first = (u32)here_u64(lane_id()) % 4 * 2;
        UNROLL
        for (u32 n = 0; n < 4; n++)
            keys_copy_value(slot, from + LESSER(first + n / 2 * 8 + n % 2, rows - 1) * HEAD_DIM, n);
    }
}

DEVICE u32x4 keys_read_v(const u8 *slot, u32 c, u32 n)
{
    u32x4 v = {0, 0, 0, 0};
    if (keys_has(c * 64 + lane_id() / 4 * 8))
        v = *(const u32x4 *)(const void *)(slot + keys_v_at(c, n));
    return v;
}

/* ---- slots to registers, when their group has arrived ---- */

DEVICE void keys_take_k(struct keys_tile *tile, const u8 *slot)
{
    UNROLL
    for (u32 c = 0; c < KEYS_Q; c++)
        UNROLL
    for (u32 i = 0; i < 2; i++)
        tile->k[c][i] = keys_read_k(slot, c, i);
}

DEVICE void keys_take_v(struct keys_tile *tile, const u8 *slot)
{
    UNROLL
    for (u32 c = 0; c < KEYS_V; c++)
        UNROLL
    for (u32 n = 0; n < 4; n++)
        tile->v[c][n] = keys_read_v(slot, c, n);
}

/* Queries of a group, copied as keys. */
DEVICE void keys_take_q(struct keys_state *s, const u8 *slot)
{
    UNROLL
    for (u32 c = 0; c < KEYS_Q; c++)
        keys_rows(s->q[c], keys_read_k(slot, c, 0), keys_read_k(slot, c, 1));
}

#endif

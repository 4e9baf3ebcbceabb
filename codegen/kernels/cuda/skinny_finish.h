/* skinny_finish.h - the end of skinny_residual.cu, skinny_gate_up.cu and skinny_head.cu, whose
 * PART(_store)(out, row, item, first, second) does with a pair of sums what the kernel is for. */

/* Gives the block's sums to PART(_store): its own, or as the last of the splits those of all. */
DEVICE void PART(_finish)(const struct PART(_out) * out, float sums[2][WARP_X / 8][4], u32 rows,
                          const struct skinny_place *p, f32x2 *partial, int *counter, u32 *shared)
{
    if (SPLITS == 1) {
        UNROLL
        for (u32 i = 0; i < WARP_X / 2; i++) {
            const u32 a = i / (WARP_X / 4), j = i / 2 % (WARP_X / 8), e = i % 2;
            u32 item, row;
            if (PART(_item)(p, rows, a, j, e, &item, &row))
                PART(_store)(out, row, item, sums[a][j][e], sums[a][j][2 + e]);
        }
        return;
    }
    PART(_leave)(partial, sums, rows, p);
    if (!skinny_last(counter + blockIdx.z * BLOCKS + blockIdx.x, SPLITS, shared))
        return;
    const u32 count = p->end - p->first, height = LESSER(rows - p->row, SKINNY_ROWS);
    for (u32 i = threadIdx.x; i < count * height; i += SKINNY_AT_ONCE * SKINNY_THREADS) {
        f32x2 v[SKINNY_AT_ONCE];
        UNROLL
        for (u32 n = 0; n < SKINNY_AT_ONCE; n++) {
            const u32 at = i + n * SKINNY_THREADS;
            if (at < count * height)
                v[n] = PART(_gather)(partial, rows, p->first + at % count, p->row + at / count);
        }
        UNROLL
        for (u32 n = 0; n < SKINNY_AT_ONCE; n++) {
            const u32 at = i + n * SKINNY_THREADS;
            if (at < count * height)
                PART(_store)(out, p->row + at / count, p->first + at % count, v[n].x, v[n].y);
        }
    }
}

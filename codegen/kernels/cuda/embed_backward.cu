/* embed_backward.cu - dtable[token[i]][D] += dx[i][D]; rows of one token are added in the order of
 * rows, so that the sum is the same in every run.
 *
 * KERNEL    the function's name
 * EMBED_M   rows, EMBED_D columns (a multiple of 8); tokens lie in the table of VOCAB rows
 *
 * Floor: 4 M D bytes read, and 8 D bytes of each distinct token read and written.
 *
 * Pass 1 groups the rows by token: order[M] in scratch, the first row of each group marked. A warp
 * owns a class of tokens, those equal to its number modulo EMBED_CLASSES. It reads all M tokens
 * twice: to count its own and those of lower classes, which come before; then to write its rows,
 * one after the other. M / 32 steps a warp, whatever the tokens are, and no sorting.
 *
 * Pass 2: a block a place in the order and 1024 columns; where a group starts, it adds the group's
 * rows, EMBED_ADD_EACH loads under way; elsewhere it ends at once. */
#include "device.h"
#include "launch.h"
#include "archrt_cuda.h"
#include "four.h"

#define EMBED_FIRST 0x80000000u /* beside a row: the first of its token */

/* The lanes that own their row take turns, lowest row first: each moves its token's cursor on, and
 * where there is an order, writes its row there. Whole warps call. */
DEVICE void CONCAT(KERNEL, _turns)(u32 own, u32 *cursor, u32 *order, u32 row)
{
    const u32 me = 1u << lane_id();
    for (u32 left = warp_ballot(own); left; left &= left - 1) {
        if ((left & (0u - left)) == me) {
            const u32 at = *cursor & ~EMBED_FIRST, first = *cursor & EMBED_FIRST;
            if (order)
                order[at] = row | first;
            *cursor = at + 1;
        }
        warp_sync();
    }
}

/* All rows past a warp, in order, EMBED_SCAN_EACH at a time to a lane. Returns how many of this
 * lane's have a token of a lower class. */
DEVICE u32 CONCAT(KERNEL, _scan)(const int *RESTRICT token, u32 class_, u32 *cursors, u32 *order)
{
    const u32 m = (u32)(EMBED_M), classes = EMBED_CLASSES, none = 0xffffffffu;
    u32 lower = 0;
    for (u32 first = lane_id(); first - lane_id() < m; first += EMBED_SCAN_EACH * WARP) {
        u32 t[EMBED_SCAN_EACH];
        UNROLL
        for (u32 j = 0; j < EMBED_SCAN_EACH; j++) {
            const u32 row = first + j * WARP;
            t[j] = row < m ? (u32)token[row] : none;
        }
        UNROLL
        for (u32 j = 0; j < EMBED_SCAN_EACH; j++) {
            const u32 of = t[j] == none ? none : t[j] % classes;
            lower += of < class_;
            CONCAT(KERNEL, _turns)(of == class_, cursors + t[j] / classes, order, first + j * WARP);
        }
    }
    return lower;
}

/* Counts become where each token's rows begin, marked; `begin` is where the first token's do. */
DEVICE void CONCAT(KERNEL, _begins)(u32 *cursors, u32 n, u32 begin)
{
    const u32 lane = lane_id();
    for (u32 first = 0; first < n; first += WARP) {
        const u32 i = first + lane, count = i < n ? cursors[i] : 0;
        u32 sum = count; /* of the lanes up to this one */
        UNROLL
        for (u32 d = 1; d < WARP; d *= 2) {
            const u32 left = shuffle_up_u32(sum, d, WARP);
            sum += lane >= d ? left : 0;
        }
        if (i < n)
            cursors[i] = (begin + sum - count) | EMBED_FIRST;
        begin += shuffle_u32(sum, WARP - 1, WARP);
    }
}

KERNEL_ENTRY(EMBED_ORDER_THREADS, 1)
KERNEL(float *dtable, const float *dx, const int *RESTRICT token, void *scratch)
{
    SHARED_ARENA(arena);
    const u32 warp = threadIdx.x / WARP, n = EMBED_CURSORS;
    const u32 class_ = blockIdx.x * (EMBED_ORDER_THREADS / WARP) + warp;
    u32 *cursors = (u32 *)(void *)arena + warp * n;
    (void)dtable;
    (void)dx;
    for (u32 i = lane_id(); i < n; i += WARP)
        cursors[i] = 0;
    warp_sync();
    u32 lower = CONCAT(KERNEL, _scan)(token, class_, cursors, (u32 *)0);
    UNROLL
    for (u32 d = 1; d < WARP; d *= 2)
        lower += shuffle_xor_u32(lower, d, WARP);
    CONCAT(KERNEL, _begins)(cursors, n, lower);
    warp_sync();
    CONCAT(KERNEL, _scan)(token, class_, cursors, (u32 *)scratch);
}

/* Behind the last place of the group that starts at `at`. Whole warps call. */
DEVICE u32 CONCAT(KERNEL, _end)(const u32 *RESTRICT order, u32 at)
{
    const u32 m = (u32)(EMBED_M), lane = lane_id();
    u32 end = at + 1, stop = 0;
    for (;; end += WARP) {
        stop = warp_ballot(end + lane >= m || (order[end + lane] & EMBED_FIRST) != 0);
        if (stop)
            break;
    }
    for (; !(stop & 1); stop >>= 1)
        end++;
    return end;
}

KERNEL_ENTRY(EMBED_ADD_THREADS, 4)
CONCAT(KERNEL, _2)
(float *dtable, const float *RESTRICT dx, const int *RESTRICT token, void *scratch)
{
    const u32 *order = (const u32 *)scratch;
    const u32 d = (u32)(EMBED_D), column = (blockIdx.y * EMBED_ADD_THREADS + threadIdx.x) * 4;
    u32 at = blockIdx.x;
    if (!(order[at] & EMBED_FIRST))
        return;
    const u32 end = CONCAT(KERNEL, _end)(order, at);
    if (column >= d)
        return;
    float *to = dtable + (u64)token[order[at] & ~EMBED_FIRST] * d + column, sum[4];
    four_load(sum, to);
    for (; at < end; at += EMBED_ADD_EACH) {
        float add[EMBED_ADD_EACH][4];
        UNROLL
        for (u32 j = 0; j < EMBED_ADD_EACH; j++)
            if (at + j < end)
                four_load(add[j], dx + (u64)(order[at + j] & ~EMBED_FIRST) * d + column);
        UNROLL
        for (u32 j = 0; j < EMBED_ADD_EACH; j++)
            if (at + j < end) {
                UNROLL
                for (u32 i = 0; i < 4; i++)
                    sum[i] += add[j][i];
            }
    }
    four_store(to, sum);
}

#undef EMBED_FIRST
#undef KERNEL
#undef EMBED_M
#undef EMBED_D

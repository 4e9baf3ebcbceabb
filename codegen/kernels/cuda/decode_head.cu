/* decode_head.cu - logits[i][V] = w[V][D] times the norm of row head_row[i] of x, i < head_rows.
 * Fewer than 9 rows.
 *
 * KERNEL    the entry point's name
 * DM_M      rows, 1..8
 * DM_N      V, DM_K: D
 * EPSILON, CUDA_SMS, CUDA_ARCH
 *
 * Floor: 2 V D bytes of weights, read once. Work is cut as in decode_gate_up.cu; a warp's items are
 * rows of the first half of the vocabulary and rows as far into the second. How many rows there
 * are, and the only one's number, the host wrote: read before dependent_wait(). */
#include "decode_stream.h"

KERNEL_ENTRY(STREAM_THREADS, STREAM_RESIDENT(DM_M))
KERNEL(float *logits, const float *x, const bf16 *RESTRICT w, const float *RESTRICT gain,
       const struct cuda_call *call, const int *head_row, void *scratch, int *counter)
{
    SHARED_ARENA(arena);
    const u32 v = (u32)(DM_N), items = STREAM_ITEMS(v), g = lane_id() / 4, q = lane_id() % 4;
    const struct stream_work work = stream_own(w, v, (u32)(DM_K), items);
    struct stream_input in = stream_input(arena, STREAM_RING_WIDE, DM_M, (u32)(DM_K));
    struct stream_ring ring;
    (void)scratch, (void)counter;
    stream_start(&ring, arena, &work, STREAM_RING_WIDE);
    stream_warm(gain, (u32)(DM_K));
    const u32 rows = LESSER((u32)call->head_rows, (u32)(DM_M));
    const u32 only = DM_M == 1 && rows ? (u32)head_row[0] : 0;
    dependent_wait();
    if (rows == 0) {
        copy_async_wait(0);
        return;
    }
    in.x32 = x + (u64)only * in.k;
    in.gain = gain;
    in.row_of = DM_M == 1 ? (const int *)0 : head_row;
    in.used = rows;
    for (u32 tile = 0; tile < stream_own_tiles(v); tile++) {
        const u32 item = work.first + tile * 8 + g;
        float d[4];
        stream_product(d, &ring, &work, &in, tile);
        UNROLL
        for (u32 i = 0; i < 2; i++)
            if (item < work.end && 2 * q + i < in.used) {
                const float r = stream_rstd(&in, 2 * q + i, EPSILON);
                float *to = logits + (u64)(2 * q + i) * v + item;
                to[0] = d[i] * r;
                if (item + items < v)
                    to[items] = d[2 + i] * r;
            }
    }
}

#undef KERNEL
#undef DM_M
#undef DM_N
#undef DM_K

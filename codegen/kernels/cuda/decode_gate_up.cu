/* decode_gate_up.cu - h[m][F] = silu(gate) up, gate and up the rows i and F + i of w times the norm
 * of x. Fewer than 9 rows.
 *
 * KERNEL    the entry point's name
 * DM_M      rows, 1..8
 * DM_N      2 F, DM_K: D
 * EPSILON, CUDA_SMS, CUDA_ARCH
 *
 * Floor: 2 N K bytes of weights, read once. Each warp of the grid has columns of h of its own, an
 * even share to one column, and needs no other warp: the rows of gate and up lie in one operand, so
 * silu and product are a lane's. See decode_stream.h. */
#include "decode_stream.h"

KERNEL_ENTRY(STREAM_THREADS, STREAM_RESIDENT(DM_M))
KERNEL(bf16 *h, const float *x, const bf16 *RESTRICT w, const float *RESTRICT gain,
       const int *RESTRICT slot, void *scratch, int *counter)
{
    SHARED_ARENA(arena);
    const u32 f = (u32)(DM_N) / 2, g = lane_id() / 4, q = lane_id() % 4;
    const struct stream_work work = stream_own(w, (u32)(DM_N), (u32)(DM_K), f);
    struct stream_input in = stream_input(arena, STREAM_RING_WIDE, DM_M, (u32)(DM_K));
    struct stream_ring ring;
    (void)slot, (void)scratch, (void)counter;
    stream_start(&ring, arena, &work, STREAM_RING_WIDE);
    stream_warm(gain, (u32)(DM_K));
    dependent_wait();
    in.x32 = x;
    in.gain = gain;
    for (u32 tile = 0; tile < stream_own_tiles((u32)(DM_N)); tile++) {
        const u32 item = work.first + tile * 8 + g;
        float d[4];
        stream_product(d, &ring, &work, &in, tile);
        UNROLL
        for (u32 i = 0; i < 2; i++)
            if (item < work.end && 2 * q + i < DM_M) {
                const float r = stream_rstd(&in, 2 * q + i, EPSILON);
                h[(2 * q + i) * f + item] = bf16_from_f32(silu_f32(d[i] * r) * d[2 + i] * r);
            }
    }
}

#undef KERNEL
#undef DM_M
#undef DM_N
#undef DM_K

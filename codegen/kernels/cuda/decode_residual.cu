/* decode_residual.cu - y[m][N] = residual + w[N][K] a[m][K]. Fewer than 9 rows.
 *
 * KERNEL    the entry point's name
 * DM_M      rows, 1..8
 * DM_N, DM_K
 * CUDA_SMS, CUDA_ARCH
 *
 * Floor: 2 N K bytes of weights, read once. N is small (the residual stream), so that a block's
 * even share is some ten items, which its warps split by columns: warp i takes steps i, i + 8 .. of
 * every row, so that the block reads rows front to back. One block_sync() before the warps' sums
 * are added, one output pair a thread. */
#include "decode_stream.h"

KERNEL_ENTRY(STREAM_THREADS, STREAM_RESIDENT(DM_M))
KERNEL(float *y, const bf16 *a, const bf16 *RESTRICT w, const float *residual,
       const int *RESTRICT slot, void *scratch, int *counter)
{
    SHARED_ARENA(arena);
    const u32 n = (u32)(DM_N), half = n / 2, r = threadIdx.x / 32, i = threadIdx.x % 32;
    const struct stream_work work = stream_split(w, n, (u32)(DM_K), half);
    const u32 count = stream_split_end(n) - work.first;
    struct stream_input in = stream_input(arena, STREAM_RING, DM_M, (u32)(DM_K));
    struct stream_ring ring;
    float *partial = stream_partial(&in);
    (void)slot, (void)scratch, (void)counter;
    stream_start(&ring, arena, &work, STREAM_RING);
    dependent_wait();
    in.x = a;
    const u32 mine = i < count && r < DM_M;
    const u64 at = (u64)r * n + work.first + i;
    const float low = mine ? residual[at] : 0.0f, high = mine ? residual[at + half] : 0.0f;
    for (u32 tile = 0; tile * 8 < count; tile++) {
        float d[4];
        stream_product(d, &ring, &work, &in, tile);
        stream_keep(partial, tile, d);
    }
    block_sync();
    if (mine) {
        y[at] = low + stream_sum(partial, i, r, 0);
        y[at + half] = high + stream_sum(partial, i, r, 1);
    }
}

#undef KERNEL
#undef DM_M
#undef DM_N
#undef DM_K

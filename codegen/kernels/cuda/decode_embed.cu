/* decode_embed.cu - x[m][D] = table[token][D], the token and the position of each row's slot.
 *
 * KERNEL    the entry point's name
 * DM_M      rows
 * D_MODEL
 *
 * Floor: 2 D + 4 D bytes a row. A block a row, eight columns a thread. */
#include "device.h"
#include "launch.h"
#include "archrt_cuda.h"

KERNEL_ENTRY(EMBED_ROW_THREADS, 1)
KERNEL(float *x, int *token, int *position, const bf16 *RESTRICT table, const int *RESTRICT slot,
       const int *next, const int *length)
{
    const u32 row = blockIdx.x, d = (u32)(D_MODEL);
    dependents_launch();
    dependent_wait();
    const i32 s = slot[row];
    const i32 chosen = s >= 0 ? next[s] : 0;
    const u32 known = s >= 0 && chosen >= 0; /* a row of logits without any gives no token */
    if (threadIdx.x == 0) {
        token[row] = known ? chosen : 0;
        position[row] = s >= 0 ? length[s] : -1;
    }
    for (u32 c = threadIdx.x * 8; c < d; c += EMBED_ROW_THREADS * 8) {
        float v[8] = {0, 0, 0, 0, 0, 0, 0, 0};
        if (known)
            bf16_unpack8(v, *(const u32x4 *)(const void *)(table + (u64)(u32)chosen * d + c));
        f32x4 *to = (f32x4 *)(void *)(x + (u64)row * d + c);
        const f32x4 low = {v[0], v[1], v[2], v[3]}, high = {v[4], v[5], v[6], v[7]};
        to[0] = low;
        to[1] = high;
    }
}

#undef KERNEL
#undef DM_M

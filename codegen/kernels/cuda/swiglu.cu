/* swiglu.cu - h[m][F] = silu(gate) up, gate_up[m] = [F gate][F up], silu(g) = g / (1 + e^-g).
 *
 * KERNEL     the function's name
 * SWIGLU_M   most rows, SWIGLU_F columns (a multiple of 8)
 *
 * Floor: 6 M F bytes, 4 of them read. Rows and columns are one range, SWIGLU_BLOCK vectors of eight
 * columns a block; a thread has 2 SWIGLU_EACH loads of 16 bytes under way. */
#include "device.h"
#include "launch.h"
#include "archrt_cuda.h"

DEVICE u32x4 CONCAT(KERNEL, _eight)(u32x4 gates, u32x4 ups)
{
    float gate[8], up[8];
    bf16_unpack8(gate, gates);
    bf16_unpack8(up, ups);
    UNROLL
    for (u32 i = 0; i < 8; i++)
        gate[i] = silu_f32(gate[i]) * up[i];
    return bf16_pack8(gate);
}

KERNEL_ENTRY(SWIGLU_THREADS, 4)
KERNEL(bf16 *h, const bf16 *RESTRICT gate_up, const struct cuda_call *RESTRICT call)
{
    const u32 width = (u32)(SWIGLU_F) / 8, rows = call ? (u32)call->rows : (u32)(SWIGLU_M);
    const u32 first = blockIdx.x * SWIGLU_BLOCK + threadIdx.x, end = rows * width;
    u32x4 gate[SWIGLU_EACH], up[SWIGLU_EACH];
    if (first >= end)
        return;
    UNROLL
    for (u32 j = 0; j < SWIGLU_EACH; j++) {
        const u32 v = first + j * SWIGLU_THREADS, at = v < end ? v : first;
        const u32x4 *row = (const u32x4 *)(const void *)gate_up + (u64)(at / width) * width * 2;
        gate[j] = row[at % width];
        up[j] = row[width + at % width];
    }
    UNROLL
    for (u32 j = 0; j < SWIGLU_EACH; j++) {
        const u32 v = first + j * SWIGLU_THREADS;
        if (v < end)
            ((u32x4 *)(void *)h)[v] = CONCAT(KERNEL, _eight)(gate[j], up[j]);
    }
}

#undef KERNEL
#undef SWIGLU_M
#undef SWIGLU_F

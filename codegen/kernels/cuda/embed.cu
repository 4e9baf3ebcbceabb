/* embed.cu - x[m][D] = table[token[m]]: rows of the residual stream, fp32, from bf16 rows.
 *
 * KERNEL    the function's name
 * EMBED_M   most rows, EMBED_D columns (a multiple of 8); tokens lie in the table
 *
 * Floor: 6 M D bytes, 2 of them read. Rows and columns are one range, EMBED_BLOCK vectors of four
 * columns a block, so that few rows fill the machine too; a thread has EMBED_EACH loads under way.
 */
#include "device.h"
#include "launch.h"
#include "archrt_cuda.h"
#include "four.h"

KERNEL_ENTRY(EMBED_THREADS, 4)
KERNEL(float *x, const bf16 *RESTRICT table, const int *RESTRICT token,
       const struct cuda_call *RESTRICT call)
{
    const u32 width = (u32)(EMBED_D) / 4, rows = call ? (u32)call->rows : (u32)(EMBED_M);
    const u32 first = blockIdx.x * EMBED_BLOCK + threadIdx.x, end = rows * width;
    u32x2 from[EMBED_EACH];
    if (first >= end)
        return;
    UNROLL
    for (u32 j = 0; j < EMBED_EACH; j++) {
        const u32 v = first + j * EMBED_THREADS, at = v < end ? v : first;
        const bf16 *row = table + (u64)token[at / width] * width * 4;
        from[j] = *(const u32x2 *)(const void *)(row + at % width * 4);
    }
    UNROLL
    for (u32 j = 0; j < EMBED_EACH; j++) {
        const u32 v = first + j * EMBED_THREADS;
        float four[4];
        four_unpack(four, from[j]);
        if (v < end)
            four_store(x + (u64)v * 4, four);
    }
}

#undef KERNEL
#undef EMBED_M
#undef EMBED_D

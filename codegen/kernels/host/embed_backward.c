/* embed_backward.c - dtable[token][D] += dx[M][D], row by row.
 *
 * KERNEL    the function's name
 * EMBED_M   rows, EMBED_D columns
 *
 * Each thread owns columns and goes through all tokens in order, so equal tokens meet in one thread
 * and the sum does not depend on THREADS. All of dx must be ready. */
#include "kernel.h"

embed_backward_fn KERNEL;
void KERNEL(float *dtable, const float *dx, const int32_t *token, int tid)
{
    struct range own = share(EMBED_D, 16, tid);
    for (int i = 0; i < EMBED_M; i++) {
        float *to = dtable + (ptrdiff_t)token[i] * EMBED_D;
        const float *from = dx + (ptrdiff_t)i * EMBED_D;
        int j = own.begin;
        for (; j + VL <= own.end; j += VL)
            vf_store(to + j, vf_load(to + j) + vf_load(from + j));
        for (; j < own.end; j++)
            to[j] += from[j];
    }
}

#undef KERNEL
#undef EMBED_M
#undef EMBED_D

/* embed.c - x[M][D] = table[token][D].
 *
 * KERNEL    the function's name
 * EMBED_M   rows, EMBED_D columns
 *
 * Rows are split by share(M, ROW_GRANULE). Tokens must lie in the table. */
#include "kernel.h"

embed_fn KERNEL;
void KERNEL(float *x, const float *table, const int32_t *token, int tid)
{
    struct range own = share(EMBED_M, ROW_GRANULE, tid);
    for (int i = own.begin; i < own.end; i++)
        memcpy(x + (ptrdiff_t)i * EMBED_D, table + (ptrdiff_t)token[i] * EMBED_D,
               sizeof(float) * EMBED_D);
}

#undef KERNEL
#undef EMBED_M
#undef EMBED_D

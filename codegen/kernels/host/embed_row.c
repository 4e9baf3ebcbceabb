/* embed_row.c - x[m][D] = row token[i] of the packed table (weights.h), as floats.
 *
 * KERNEL     the function's name
 * EMBED_V, EMBED_D   the table's shape; tokens outside [0, V) are the caller's error and read as
 * zeros WTYPE      literal 0 fp32, 1 bf16, 2 int8
 *
 * Rows are split by share(m, ROW_GRANULE). A packed row is one lane of its panel, so a look-up
 * reads a line for each value it needs: D lines of 64 bytes a token, little beside what the layers
 * read. */
#include "weights.h"

#ifndef ARCH_EMBED_ROW_ONCE
#define ARCH_EMBED_ROW_ONCE

static ALWAYS_INLINE void embed_one(int type, float *x, const char *panel, int lane, int d)
{
    if (type == WEIGHTS_F32) {
        const float *w = (const float *)(const void *)panel + lane;
        for (int c = 0; c < d; c++)
            x[c] = w[(size_t)c * PANEL];
    } else if (type == WEIGHTS_BF16) {
        const uint16_t *w = (const uint16_t *)(const void *)panel + lane * 2;
        for (int c = 0; c < d; c++)
            x[c] = bf16_float(w[(size_t)(c / 2) * PANEL * 2 + c % 2]);
    } else {
        for (int begin = 0; begin < d; begin += QUANT_BLOCK, panel += QUANT_BLOCK_BYTES) {
            float scale = ((const float *)(const void *)panel)[lane];
            const uint8_t *q = (const uint8_t *)panel + PANEL * 4 + lane;
            int n = d - begin < QUANT_BLOCK ? d - begin : QUANT_BLOCK;
            for (int c = 0; c < n; c++)
                x[begin + c] = scale * (float)(q[c * PANEL] - QUANT_BIAS);
        }
    }
}

static ALWAYS_INLINE void embed_rows(int type, int d, float *x, const char *table,
                                     const int32_t *token, int m, int tid)
{
    struct range own = share(m, ROW_GRANULE, tid);
    for (int i = own.begin; i < own.end; i++) {
        float *to = x + (size_t)i * (size_t)d;
        embed_one(type, to, table + (size_t)(token[i] / PANEL) * PANEL_BYTES(type, d),
                  token[i] % PANEL, d);
    }
}
#endif

embed_row_fn KERNEL;
void KERNEL(float *x, const void *table, const int32_t *token, int m, int tid)
{
    embed_rows(WTYPE, EMBED_D, x, table, token, m, tid);
}

#undef KERNEL
#undef EMBED_M
#undef EMBED_D
#undef WTYPE

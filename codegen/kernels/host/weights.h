/* weights.h - how inference keeps weight matrices: packed once at load, read by prefill and decode.
 *
 * A matrix w[N][K] becomes panels of 16 rows, N padded with zero rows to whole panels. Within a
 * panel the row is the vector lane and K is the direction of streaming, so that y = w x is one long
 * run of multiply-adds without a horizontal sum, and the same panel is the packed B operand of a
 * matrix product:
 *
 *   fp32  [K][16]
 *   bf16  [K/2][16][2]                     pairs along K, the even one in the low half; K padded to
 * 2 int8  per 64 of K: scale[16] (fp32), then [64][16] bytes; the last block may be shorter, padded
 *         to a multiple of 4
 *
 * bf16 rounds to nearest even. int8 is symmetric: scale = max |w| / 127 over 64 weights of a row,
 * values rounded to nearest (ties to even); a block with a weight that is not finite is all zero
 * with a NaN scale, so that it shows. Every panel starts on 64 bytes. The layout does not
 * depend on the vector length of the machine. */
#ifndef ARCH_WEIGHTS_H
#define ARCH_WEIGHTS_H

#include "kernel.h"

enum { WEIGHTS_F32, WEIGHTS_BF16, WEIGHTS_I8 }; /* as enum archrt_dtype */
enum { PANEL = 16, QUANT_BLOCK = 64, QUANT_BIAS = 128 };
enum { PANEL_VECTORS = PANEL / VL };
enum { QUANT_BLOCK_BYTES = PANEL * 4 + QUANT_BLOCK * PANEL };

/* A short loop with a trip count known at compile time, flattened: accumulators indexed by it must
 * become registers. */
#ifndef FOREACH
#if defined(__clang__)
#define FOREACH(i, n) _Pragma("clang loop unroll(full)") for (int i = 0; i < (n); i++)
#define UNROLL_4 _Pragma("clang loop unroll_count(4)")
#else
#define FOREACH(i, n) _Pragma("GCC unroll 64") for (int i = 0; i < (n); i++)
#define UNROLL_4 _Pragma("GCC unroll 4")
#endif
#endif

/* Constant expressions where their arguments are; in bytes, multiples of 64. */
#define PANELS(n) (((n) + 15) / 16)
#define PANEL_BYTES(type, k)                                                                       \
    ((type) == 0   ? (size_t)(k)*64                                                                \
     : (type) == 1 ? ((size_t)(k) + 1) / 2 * 64                                                    \
                   : ((size_t)(k) + 3) / 4 * 64 + ((size_t)(k) + 63) / 64 * 64)
#define PACKED_BYTES(type, n, k) ((size_t)PANELS(n) * PANEL_BYTES(type, k))

/* Scratch of matvec.c, a thread; of prefill_matmul.c: MATMUL_SCRATCH_FLOATS (matmul.h) in all. */
#define MATVEC_SCRATCH_FLOATS(k) (((size_t)(k) + 63) / 64 * 112)

typedef uint8_t vb __attribute__((vector_size(VECTOR_BYTES / 4)));
typedef uint8_t vb_any __attribute__((vector_size(VECTOR_BYTES / 4), aligned(1), may_alias));
typedef uint32_t vu_any __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));

static inline uint16_t bf16_round(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    if ((u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(u >> 16 | 0x40); /* NaN stays NaN */
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static inline float bf16_float(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float x;
    memcpy(&x, &u, 4);
    return x;
}

/* VL biased weights, one k of an int8 panel, as 32-bit lanes: 1..255. The compiler knows that the
 * upper halves are zero, so a product with lanes that come from 16 bits becomes one pmaddwd or
 * vpdpwssd instead of a 32-bit multiplication. */
static ALWAYS_INLINE vi i8_lanes(const void *at)
{
    return __builtin_convertvector((vb) * (const vb_any *)at, vi);
}

/* VL lanes of pairs of a bf16 panel: the even k, and the odd one. */
static ALWAYS_INLINE vf bf16_even(const void *at)
{
    return (vf)(*(const vu_any *)at << 16);
}

static ALWAYS_INLINE vf bf16_odd(const void *at)
{
    return (vf)(*(const vu_any *)at & 0xffff0000);
}

static inline void pack_f32(float *to, const float *w, int rows, int k)
{
    for (int c = 0; c < k; c++)
        for (int r = 0; r < PANEL; r++)
            to[c * PANEL + r] = r < rows ? w[(size_t)r * k + c] : 0;
}

static inline void pack_bf16(uint16_t *to, const float *w, int rows, int k)
{
    for (int c = 0; c < k + k % 2; c++)
        for (int r = 0; r < PANEL; r++)
            to[c / 2 * 2 * PANEL + r * 2 + c % 2] =
                r < rows && c < k ? bf16_round(w[(size_t)r * k + c]) : 0;
}

/* The nearest integer plus QUANT_BIAS; |x| < 128. Adding 1.5 2^23 leaves it in the low bits. */
static inline uint8_t quant_round(float x)
{
    float shifted = x + (12582912.0f + QUANT_BIAS);
    uint32_t u;
    memcpy(&u, &shifted, 4);
    return (uint8_t)u;
}

static inline void pack_i8(char *to, const float *w, int rows, int k)
{
    for (int begin = 0; begin < k; begin += QUANT_BLOCK) {
        int end = begin + QUANT_BLOCK < k ? begin + QUANT_BLOCK : k;
        int padded = (end - begin + 3) / 4 * 4;
        float *scale = (float *)(void *)to;
        uint8_t *q = (uint8_t *)to + PANEL * 4;
        memset(to, 0, PANEL * 4);
        memset(q, QUANT_BIAS, (size_t)padded * PANEL);
        for (int r = 0; r < rows; r++) {
            const float *from = w + (size_t)r * k;
            float most = 0, sum = 0;
            for (int c = begin; c < end; c++) {
                most = fmaxf(most, fabsf(from[c]));
                sum += from[c] * 0; /* 0, or NaN where a weight is not finite */
            }
            bool zero = !(most > 1e-30f) || sum != 0;
            scale[r] = sum != 0 ? sum : zero ? 0 : most / 127;
            for (int c = begin; c < end && !zero; c++)
                q[(c - begin) * PANEL + r] = quant_round(from[c] * (127 / most));
        }
        to += PANEL * 4 + padded * PANEL;
    }
}

/* Packs w[n][k] into PACKED_BYTES(type, n, k) at `to`; all threads of the team together, no barrier
 * inside. */
static inline void weights_pack(int type, void *to, const float *w, int n, int k, int tid)
{
    struct range panels = share(PANELS(n), 1, tid);
    for (int p = panels.begin; p < panels.end; p++) {
        const float *from = w + (size_t)p * PANEL * k;
        char *panel = (char *)to + (size_t)p * PANEL_BYTES(type, k);
        int rows = n - p * PANEL < PANEL ? n - p * PANEL : PANEL;
        if (type == WEIGHTS_F32)
            pack_f32((float *)(void *)panel, from, rows, k);
        else if (type == WEIGHTS_BF16)
            pack_bf16((uint16_t *)(void *)panel, from, rows, k);
        else
            pack_i8(panel, from, rows, k);
    }
}

/* The value a packed matrix holds for w[row][c]: for row look-ups and tests, not for speed. */
static inline float weights_at(int type, const void *packed, int k, int row, int c)
{
    const char *panel = (const char *)packed + (size_t)(row / PANEL) * PANEL_BYTES(type, k);
    int r = row % PANEL;
    if (type == WEIGHTS_F32)
        return ((const float *)(const void *)panel)[(size_t)c * PANEL + r];
    if (type == WEIGHTS_BF16)
        return bf16_float(
            ((const uint16_t *)(const void *)panel)[(size_t)(c / 2) * 2 * PANEL + r * 2 + c % 2]);
    panel += (size_t)(c / QUANT_BLOCK) * QUANT_BLOCK_BYTES;
    float scale = ((const float *)(const void *)panel)[r];
    int q = ((const uint8_t *)panel)[PANEL * 4 + c % QUANT_BLOCK * PANEL + r];
    return scale * (float)(q - QUANT_BIAS);
}

/* VL rows, from lane `lane` of a panel on, for k in [begin, end): to[k - begin][..] as floats, rows
 * of `to` being `stride` floats apart. begin is a multiple of 64, or end - begin is 0. */
static ALWAYS_INLINE void panel_floats(int type, float *to, ptrdiff_t stride, const char *panel,
                                       int lane, int begin, int end)
{
    if (type == WEIGHTS_F32) {
        const float *w = (const float *)(const void *)panel + lane;
        for (int c = begin; c < end; c++, to += stride)
            vf_store(to, vf_load(w + (size_t)c * PANEL));
    } else if (type == WEIGHTS_BF16) {
        for (int c = begin; c < end; c += 2, to += 2 * stride) {
            const char *at = panel + (size_t)c * 32 + lane * 4;
            vf_store(to, bf16_even(at));
            if (c + 1 < end)
                vf_store(to + stride, bf16_odd(at));
        }
    } else {
        for (; begin < end; begin += QUANT_BLOCK) {
            const char *block = panel + (size_t)(begin / QUANT_BLOCK) * QUANT_BLOCK_BYTES;
            vf scale = vf_load((const float *)(const void *)block + lane);
            int n = end - begin < QUANT_BLOCK ? end - begin : QUANT_BLOCK;
            for (int c = 0; c < n; c++, to += stride) {
                vi q = i8_lanes(block + PANEL * 4 + c * PANEL + lane) - QUANT_BIAS;
                vf_store(to, __builtin_convertvector(q, vf) * scale);
            }
        }
    }
}

#endif

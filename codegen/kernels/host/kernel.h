/* kernel.h - what every host kernel is written in: vectors, work splits, the team of threads.
 *
 * A kernel file is a template. The including file defines KERNEL (the function's name) and the
 * constants that the file's first comment lists; with constants they become immediate operands and
 * fixed trip counts, with run-time variables (the generic build) the same text is a generic kernel.
 * A file undefines its parameters at its end, so one translation unit holds many instances; what
 * depends on them inside a file is named CONCAT(KERNEL, _part).
 *
 * Letters: B batch, T tokens, D d_model, H heads, K kv heads, E head_dim, F d_ff, V vocab, L
 * layers, C context. Matrices are row-major; weights are [out][in], as Hugging Face stores them. */
#ifndef ARCH_KERNEL_H
#define ARCH_KERNEL_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "archrt_kernels.h"
#include "shape.h" /* generated: THREADS, ROW_GRANULE and the shapes of this model */

#ifndef L2_BYTES
#define L2_BYTES (1 << 20) /* of one core; the blocks of the matrix products are cut to it */
#endif

/* The tile unit of x86 (amx.h), with the instructions that make bf16 of fp32. */
#if (defined(__AMX_BF16__) || defined(__AMXBF16__)) && defined(__AVX512BF16__) &&                  \
    defined(__AVX512BW__)
#define ARCH_AMX 1
#else
#define ARCH_AMX 0
#endif

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
enum {
    VL = VECTOR_BYTES / 4, /* fp32 lanes */
    HEAD_MAX = 512         /* largest head_dim */
};

#define CONCAT_(a, b) a##b
#define CONCAT(a, b) CONCAT_(a, b)
#define ALWAYS_INLINE inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline, unused))
/* Before a loop with a small constant trip count, whose arrays are to become registers. (clang
 * takes a count as a wish only, gcc knows no "full".) Not under a sanitizer, whose checks in every
 * copy would take minutes to compile. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(undefined_behavior_sanitizer)
#define UNROLL
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define UNROLL
#endif
#if !defined(UNROLL) && defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#elif !defined(UNROLL)
#define UNROLL _Pragma("GCC unroll 32")
#endif
/* Into the L1 cache, into the L2 cache, into the L1 cache for writing. Any address is safe. */
#define PREFETCH(p) __builtin_prefetch((p), 0, 3)
#define PREFETCH_L2(p) __builtin_prefetch((p), 0, 2)
#define PREFETCH_WRITE(p) __builtin_prefetch((p), 1, 3)

typedef float vf __attribute__((vector_size(VECTOR_BYTES)));
typedef int32_t vi __attribute__((vector_size(VECTOR_BYTES)));
typedef uint32_t vu __attribute__((vector_size(VECTOR_BYTES)));
/* The same at any address. */
typedef float vf_any __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));

/* Vectors go through functions, never through casts at the place of use: clang emits 64-byte
 * instructions under -march=native only in functions with 64-byte arguments or those they inline
 * into, and splits everything into 32 bytes elsewhere. */
static ALWAYS_INLINE vf vf_load(const float *p)
{
    return *(const vf_any *)p;
}

static ALWAYS_INLINE void vf_store(float *p, vf v)
{
    *(vf_any *)p = v;
}

/* x - 0 is x for every x, so this is a bare broadcast (x + 0 would not be: -0). */
static ALWAYS_INLINE vf vf_set(float x)
{
    return x - (vf){0};
}

/* The first n < VL lanes, the others zero; reads and writes no more than n floats. */
static ALWAYS_INLINE vf vf_load_part(const float *p, int n)
{
    float lane[VL] = {0};
    for (int i = 0; i < n; i++)
        lane[i] = p[i];
    return vf_load(lane);
}

static ALWAYS_INLINE void vf_store_part(float *p, vf v, int n)
{
    float lane[VL];
    vf_store(lane, v);
    for (int i = 0; i < n; i++)
        p[i] = lane[i];
}

/* Lanes of a where mask is -1, of b where it is 0. */
static ALWAYS_INLINE vf vf_select(vi mask, vf a, vf b)
{
    return (vf)((mask & (vi)a) | (~mask & (vi)b));
}

static ALWAYS_INLINE vf vf_max(vf a, vf b)
{
    return vf_select(a > b, a, b);
}

/* Sum and maximum of the lanes, as a tree: lane i with lane i + VL / 2, and so on. */
static ALWAYS_INLINE float vf_sum(vf v)
{
    float lane[VL];
    vf_store(lane, v);
    for (int w = VL / 2; w > 0; w /= 2)
        for (int i = 0; i < w; i++)
            lane[i] += lane[i + w];
    return lane[0];
}

static ALWAYS_INLINE float vf_top(vf v)
{
    float lane[VL];
    vf_store(lane, v);
    for (int w = VL / 2; w > 0; w /= 2)
        for (int i = 0; i < w; i++)
            lane[i] = lane[i] > lane[i + w] ? lane[i] : lane[i + w];
    return lane[0];
}

/* e^x within 2 ulp on [-87.3, 88.3], clamped to the values there outside; NaN stays NaN.
 * x = n ln 2 + r, |r| <= ln 2 / 2, e^r by its Taylor polynomial to r^7 with the last terms
 * economised (Cephes expf's coefficients), 2^n put together from bits. */
static ALWAYS_INLINE vf vf_exp(vf x)
{
    const vf low = vf_set(-87.3f), high = vf_set(88.3f), round = vf_set(12582912.0f);
    x = vf_select(x < low, low, x);
    x = vf_select(x > high, high, x);
    vf shifted = x * 1.44269504f + round; /* 1.5 2^23 + n: n stands in the low mantissa bits */
    vf n = shifted - round;
    vf r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    vf p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    return p * (vf)(((vu)shifted + 127) << 23);
}

/* 1 / (1 + e^-x) */
static ALWAYS_INLINE vf vf_sigmoid(vf x)
{
    return 1.0f / (1.0f + vf_exp(-x));
}

/* sqrt(x) of x >= 0 within 2 ulp for normal x; 0 at 0. Newton's iteration, because sqrtf() sets
 * errno and so is not vectorised under default flags. */
static ALWAYS_INLINE vf vf_sqrt(vf x)
{
    vf y = (vf)(0x5f3759df - ((vi)x >> 1)); /* 1 / sqrt(x) within 3.5 % */
    vf half = x * 0.5f;
    y = y * (1.5f - half * y * y);
    y = y * (1.5f - half * y * y);
    y = y * (1.5f - half * y * y);
    vf s = x * y;
    return s + 0.5f * y * (x - s * s);
}

struct range {
    int begin, end;
};

/* Thread `tid`'s share of n things in whole granules; the same for every kernel that splits the
 * same n by the same granule, so that one's output is the next one's input without a barrier. */
static inline struct range share(int n, int granule, int tid)
{
    int granules = (n + granule - 1) / granule;
    int begin = (int)((int64_t)granules * tid / THREADS) * granule;
    int end = (int)((int64_t)granules * (tid + 1) / THREADS) * granule;
    return (struct range){begin < n ? begin : n, end < n ? end : n};
}

/* All THREADS threads of the team must call it; what was written before is seen after.
 * Implemented by the runtime (team.c); spins, then sleeps. */
void team_barrier(int tid);

#endif

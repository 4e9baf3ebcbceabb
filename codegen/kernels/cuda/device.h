/* device.h - what every CUDA kernel is written in: a C subset of CUDA that four back ends accept.
 *
 *   clang -x cuda, no toolkit | nvcc   -> device_ptx.h: special instructions as inline assembly
 *   gcc or clang, -DARCH_EMULATE       -> emulator_dialect.h: the same functions, run lane by lane
 * on a CPU
 *
 * A kernel file is a template, as the host's are (kernels/host/kernel.h): the including file
 * defines KERNEL (the function's name) and the constants that the file's first comment lists; the
 * file undefines them at its end; what depends on them inside is named CONCAT(KERNEL, _part).
 *
 * Write in what C11 and CUDA share: casts from void pointers spelt out, no designated initialisers,
 * no compound literals, no overloads. Letters as everywhere: B batch, T tokens, D d_model, H heads,
 * K kv heads, E head_dim, F d_ff, V vocab. Matrices are row-major, weights [out][in].
 *
 * Warp functions are called by all 32 lanes of a warp together, block functions by all threads of
 * the block; a block is a multiple of 32 threads. */
#ifndef ARCH_DEVICE_H
#define ARCH_DEVICE_H

typedef signed char i8;
typedef unsigned char u8;
typedef unsigned short u16;
typedef int i32;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;
typedef u16 bf16; /* its bits: convert with the functions below */

/* One load or store instruction each: pointers to them must be aligned to their size. */
typedef struct __attribute__((aligned(8))) {
    u32 x, y;
} u32x2;
typedef struct __attribute__((aligned(16))) {
    u32 x, y, z, w;
} u32x4;
typedef struct __attribute__((aligned(8))) {
    float x, y;
} f32x2;
typedef struct __attribute__((aligned(16))) {
    float x, y, z, w;
} f32x4;

#define CONCAT_(a, b) a##b
#define CONCAT(a, b) CONCAT_(a, b)

/* The architecture compiled for: 80, 86, 89, 90 ..; 0 where there is none (nvcc's host pass).
 * DEVICE_SM90A: wgmma and setmaxnreg may be used. -DDEVICE_SM=N overrides, for PTX that is compiled
 * as an older target and retargeted by text. */
#ifndef DEVICE_SM
#if defined(ARCH_EMULATE)
#define DEVICE_SM 90
#elif defined(__CUDA_ARCH__)
#define DEVICE_SM (__CUDA_ARCH__ / 10)
#else
#define DEVICE_SM 0
#endif
#endif
#if !defined(DEVICE_SM90A) && (defined(__CUDA_ARCH_FEAT_SM90_ALL) || defined(ARCH_EMULATE))
#define DEVICE_SM90A
#endif

/* What a back end defines first.
 *
 * KERNEL_ENTRY(threads, min_blocks) KERNEL(args..)   an entry point; at most `threads` a block,
 *                        registers so that at least min_blocks fit a multiprocessor
 * DEVICE                 a function that kernels call: DEVICE float f(float x) {..}
 * INSTRUCTION            prototypes below only
 * RESTRICT               on pointers to data that no running kernel writes: loads become
 *                        ld.global.nc. Never on data that a predecessor under programmatic
 *                        dependent launch writes: the compiler may move such loads above the wait.
 * UNROLL                 before a loop with a constant trip count, whose arrays are registers
 * SHARED_ARENA(name)     inside a kernel: u8 *name, the block's dynamic shared memory, 1024-byte
 *                        aligned; the only shared memory there is. Uninitialised.
 * CONSTANT               static data in constant memory: CONSTANT float table[8];
 * PARAMETER_MAP          storage of a tensor map (device_sm90.h)
 * threadIdx blockIdx blockDim gridDim   .x .y .z */
#if defined(ARCH_EMULATE)
#include "emulator_dialect.h"
#else
#include "device_backend.h"
#endif

#ifdef __cplusplus
#define STATIC_ASSERT(condition, text) static_assert(condition, text)
#else
#define STATIC_ASSERT(condition, text) _Static_assert(condition, text)
#endif
#define WARP 32
#define DIV_UP(a, b) (((a) + (b)-1) / (b))

/* ---- arithmetic: plain C on every back end, so that loops around it unroll ---------------------
 */

/* Bits as they stand. */
DEVICE float f32_from_bits(u32 bits)
{
    float f;
    __builtin_memcpy(&f, &bits, 4);
    return f;
}

DEVICE u32 bits_from_f32(float f)
{
    u32 bits;
    __builtin_memcpy(&bits, &f, 4);
    return bits;
}

DEVICE float f32_from_bf16(bf16 x)
{
    return f32_from_bits((u32)x << 16);
}

/* The two halves of a word: element 0 is the low one. */
DEVICE float bf16_low(u32 pair)
{
    return f32_from_bits(pair << 16);
}

DEVICE float bf16_high(u32 pair)
{
    return f32_from_bits(pair & 0xffff0000u);
}

/* Round to nearest, ties to even; NaN becomes 0x7fff. */
INSTRUCTION bf16 bf16_from_f32(float x);
/* low in bits 0..15, high in bits 16..31. */
INSTRUCTION u32 bf16_pack(float low, float high);

/* Eight values of one 16-byte vector. */
DEVICE void bf16_unpack8(float out[8], u32x4 v)
{
    out[0] = bf16_low(v.x);
    out[1] = bf16_high(v.x);
    out[2] = bf16_low(v.y);
    out[3] = bf16_high(v.y);
    out[4] = bf16_low(v.z);
    out[5] = bf16_high(v.z);
    out[6] = bf16_low(v.w);
    out[7] = bf16_high(v.w);
}

DEVICE u32x4 bf16_pack8(const float in[8])
{
    u32x4 v;
    v.x = bf16_pack(in[0], in[1]);
    v.y = bf16_pack(in[2], in[3]);
    v.z = bf16_pack(in[4], in[5]);
    v.w = bf16_pack(in[6], in[7]);
    return v;
}

/* a b + c rounded once; the larger, the smaller (the other operand where one is NaN); |x|. */
DEVICE float f32_fma(float a, float b, float c)
{
    return BACKEND_FMAF(a, b, c);
}

DEVICE float f32_max(float a, float b)
{
    return BACKEND_FMAXF(a, b);
}

DEVICE float f32_min(float a, float b)
{
    return BACKEND_FMINF(a, b);
}

DEVICE float f32_abs(float x)
{
    return f32_from_bits(bits_from_f32(x) & 0x7fffffffu);
}

/* One instruction each, subnormals flushed to zero.
 * fast_exp2: 2^x within 2 ulp; 0 below -126. fast_log2: absolute error 2^-22 for x in [0.5, 2],
 * relative 2^-22 elsewhere. fast_rsqrt: 1 / sqrt(x) within 2 ulp. fast_reciprocal: 1 / x, 1 ulp. */
INSTRUCTION float fast_exp2(float x);
INSTRUCTION float fast_log2(float x);
INSTRUCTION float fast_rsqrt(float x);
INSTRUCTION float fast_reciprocal(float x);
/* Correctly rounded. */
INSTRUCTION float f32_sqrt(float x);
INSTRUCTION float f32_divide(float a, float b);

/* e^x within 3 ulp for |x| <= 87: x log2 e = t + r, the product's rounding error put back. */
DEVICE float exp_f32(float x)
{
    float t = x * 1.44269504f;
    float r = f32_fma(x, 1.44269504f, -t);
    r = f32_fma(x, 1.92596299e-8f, r);
    float y = fast_exp2(t);
    return y == 0.0f || t > 128.0f ? y : f32_fma(y, r * 0.69314718f, y);
}

/* ln x: absolute error 2e-7 near 1, relative 3e-7 elsewhere. */
DEVICE float log_f32(float x)
{
    return fast_log2(x) * 0.69314718f;
}

/* 1 / (1 + e^-x), relative error 1e-6; x times it (SiLU). */
DEVICE float sigmoid_f32(float x)
{
    return fast_reciprocal(1.0f + fast_exp2(x * -1.44269504f));
}

DEVICE float silu_f32(float x)
{
    return x * sigmoid_f32(x);
}

/* tanh x, absolute error 3e-7. */
DEVICE float tanh_f32(float x)
{
    return 1.0f - 2.0f * fast_reciprocal(1.0f + fast_exp2(x * 2.88539008f));
}

/* Sine and cosine of x, |x| <= 200000, absolute error 3e-7: x = n pi / 2 + r with pi / 2 in three
 * parts, then Cephes' polynomials. */
DEVICE void sincos_f32(float x, float *sine, float *cosine)
{
    float n = f32_fma(x, 0.636619772f, 12582912.0f); /* 1.5 2^23 rounds to an integer */
    u32 quadrant = bits_from_f32(n);
    n -= 12582912.0f;
    float r = f32_fma(n, -1.57079637f, x);
    r = f32_fma(n, 4.37113883e-8f, r);
    r = f32_fma(n, 1.71512489e-15f, r);
    float q = r * r;
    float s = f32_fma(
        f32_fma(f32_fma(-1.9515295891e-4f, q, 8.3321608736e-3f), q, -1.6666654611e-1f), q * r, r);
    float c = f32_fma(2.443315711809948e-5f, q, -1.388731625493765e-3f);
    c = f32_fma(f32_fma(c, q, 4.166664568298827e-2f), q * q, f32_fma(q, -0.5f, 1.0f));
    float a = quadrant & 1 ? c : s, b = quadrant & 1 ? s : c;
    *sine = quadrant & 2 ? -a : a;
    *cosine = (quadrant + 1) & 2 ? -b : b;
}

/* Four of the eight bytes a (0..3), b (4..7): number selector >> 4 i & 7 becomes byte i. */
INSTRUCTION u32 bytes_select(u32 a, u32 b, u32 selector);
/* c + the dot product of four signed bytes. */
INSTRUCTION i32 dot4_i8(u32 a, u32 b, i32 c);

/* x. What is made of it is made here: not before a loop, in registers that the loop needs; and what
 * it is made of, by now. */
INSTRUCTION u64 here_u64(u64 x);
INSTRUCTION float here_f32(float x);

/* ---- memory ------------------------------------------------------------------------------------
 *
 * Plain pointers load and store; *(const u32x4 *)p is one 16-byte instruction. These are for what
 * C cannot say. */

/* Weights and other data read once: through the read-only path, not kept in L1. p 16-byte (8-byte)
 * aligned; the data must not be written while the kernel runs. */
INSTRUCTION u32x4 load_stream_u32x4(const void *p);
INSTRUCTION u32x2 load_stream_u32x2(const void *p);
/* Read from L2, never from a stale L1 line: data that other blocks wrote during this kernel (after
 * load_acquire or a grid barrier). */
INSTRUCTION u32x4 load_l2_u32x4(const void *p);
INSTRUCTION float load_l2_f32(const float *p);
/* Written once, not read again soon. */
INSTRUCTION void store_stream_u32x4(void *p, u32x4 v);
/* *p = v in one instruction, whatever v was made of. */
INSTRUCTION void store_u32x4(void *p, u32x4 v);
/* Starts bringing the line of p into L2; p may be any address of an allocation. */
INSTRUCTION void prefetch_l2(const void *p);

/* Other blocks' view. Relaxed, at the scope of the device; old value returned. */
INSTRUCTION u32 atomic_add_u32(u32 *p, u32 v);
INSTRUCTION u32 atomic_max_u32(u32 *p, u32 v);
INSTRUCTION u32 atomic_exchange_u32(u32 *p, u32 v);
INSTRUCTION u32 atomic_cas_u32(u32 *p, u32 expected, u32 desired);
INSTRUCTION u64 atomic_max_u64(u64 *p, u64 v);
/* The order of float additions differs from run to run: only where one of them is made at most, or
 * all are exact. */
INSTRUCTION void atomic_add_f32(float *p, float v);
/* Acquire, release. A writer's block: every thread writes, block_sync(), then one thread
 * atomic_add_acq_rel_u32(counter, 1). A reader's: one thread loads with acquire until the count is
 * reached, block_sync(), then every thread reads. Works in global memory only. The same with
 * relaxed operations: the thread that does them calls thread_fence() between block_sync() and its
 * store, and between its load and block_sync(). */
INSTRUCTION u32 atomic_add_acq_rel_u32(u32 *p, u32 v);
INSTRUCTION u32 load_acquire_u32(const u32 *p);
INSTRUCTION void store_release_u32(u32 *p, u32 v);
/* __threadfence(): this thread's (and what it has observed of others') writes are seen before those
 * that follow, by the whole device. */
INSTRUCTION void thread_fence(void);
/* In a loop that polls a flag. */
INSTRUCTION void spin_pause(void);

/* ---- the block ---------------------------------------------------------------------------------
 */

/* __syncthreads(). */
INSTRUCTION void block_sync(void);
/* Barrier `id`, 1..15, of `threads` threads (whole warps): wait for all; arrive without waiting. */
INSTRUCTION void barrier_sync(u32 id, u32 threads);
INSTRUCTION void barrier_arrive(u32 id, u32 threads);
/* block_sync() that also counts the threads whose predicate is not 0. */
INSTRUCTION u32 block_count(u32 predicate);

/* ---- the warp ----------------------------------------------------------------------------------
 */

INSTRUCTION u32 lane_id(void);
/* Makes shared and global writes of the warp's lanes visible to each other. Shuffles do not. */
INSTRUCTION void warp_sync(void);
/* Lanes exchange values within groups of `width` lanes, a power of two; the mask, distance or
 * source lane is relative to the group. up, down: lanes without a partner keep their own value. */
INSTRUCTION u32 shuffle_u32(u32 v, u32 source, u32 width);
INSTRUCTION u32 shuffle_xor_u32(u32 v, u32 mask, u32 width);
INSTRUCTION u32 shuffle_up_u32(u32 v, u32 distance, u32 width);
INSTRUCTION u32 shuffle_down_u32(u32 v, u32 distance, u32 width);
INSTRUCTION float shuffle_f32(float v, u32 source, u32 width);
INSTRUCTION float shuffle_xor_f32(float v, u32 mask, u32 width);
INSTRUCTION float shuffle_up_f32(float v, u32 distance, u32 width);
INSTRUCTION float shuffle_down_f32(float v, u32 distance, u32 width);
/* Votes of the 32 lanes: 0 or 1; bit l is lane l's. */
INSTRUCTION u32 warp_any(u32 predicate);
INSTRUCTION u32 warp_all(u32 predicate);
INSTRUCTION u32 warp_ballot(u32 predicate);

/* Over each group of `width` lanes, the result in every lane; a butterfly, so the order is fixed
 * and every lane has the same bits. */
DEVICE float warp_sum(float v, u32 width)
{
    UNROLL
    for (u32 m = WARP / 2; m > 0; m >>= 1)
        if (m < width)
            v += shuffle_xor_f32(v, m, WARP);
    return v;
}

DEVICE float warp_max(float v, u32 width)
{
    UNROLL
    for (u32 m = WARP / 2; m > 0; m >>= 1)
        if (m < width)
            v = f32_max(v, shuffle_xor_f32(v, m, WARP));
    return v;
}

/* Sum over the block, the same bits in every thread. `scratch`: threads / 32 floats of shared
 * memory, free on entry; the caller puts a block_sync() before it uses it again. */
DEVICE float block_sum(float v, float *scratch, u32 threads)
{
    const u32 t = threadIdx.x;
    v = warp_sum(v, WARP);
    if (t % WARP == 0)
        scratch[t / WARP] = v;
    block_sync();
    v = t % WARP < threads / WARP ? scratch[t % WARP] : 0.0f;
    return warp_sum(v, WARP);
}

/* ---- matrix instructions -----------------------------------------------------------------------
 *
 * Lane l holds, with g = l / 4 and q = l % 4 (pairs of bf16 in one register, low column first):
 *   a[0] (g, 2q) a[1] (g + 8, 2q) a[2] (g, 2q + 8) a[3] (g + 8, 2q + 8)     of A[16][16]
 *   b[0] (2q, g) b[1] (2q + 8, g)                                          of B[16][8]
 *   d[0] (g, 2q) d[1] (g, 2q + 1) d[2] (g + 8, 2q) d[3] (g + 8, 2q + 1)    of D[16][8]
 * ldmatrix of 8 x 8 blocks of row-major A gives a; of row-major W[n][k] gives b (B is its
 * transpose); with _trans of row-major B[k][n]. */

/* Loads 1, 2 or 4 blocks of 8 rows of 16 bytes: lane 8 i + r gives the address of row r of block i
 * (lanes past the last block give any valid address of shared memory). `row` is in shared memory,
 * 16-byte aligned. r[i]: the pair (row l / 4, columns 2 (l % 4), + 1) of block i, or with _trans of
 * its transpose. */
INSTRUCTION void ldmatrix_x1(u32 r[1], const void *row);
INSTRUCTION void ldmatrix_x2(u32 r[2], const void *row);
INSTRUCTION void ldmatrix_x4(u32 r[4], const void *row);
INSTRUCTION void ldmatrix_x1_trans(u32 r[1], const void *row);
INSTRUCTION void ldmatrix_x2_trans(u32 r[2], const void *row);
INSTRUCTION void ldmatrix_x4_trans(u32 r[4], const void *row);
/* d += A B, bf16 with fp32 sums. m16n8k8: a[0], a[1], b[0] of the table. */
INSTRUCTION void mma_m16n8k16_bf16(float d[4], const u32 a[4], const u32 b[2]);
INSTRUCTION void mma_m16n8k8_bf16(float d[4], const u32 a[2], const u32 b[1]);
/* d += A B, tf32 (fp32 bits, the low 13 ignored): a[0] (g, q) a[1] (g + 8, q) a[2] (g, q + 4)
 * a[3] (g + 8, q + 4), b[0] (q, g) b[1] (q + 4, g). */
INSTRUCTION void mma_m16n8k8_tf32(float d[4], const u32 a[4], const u32 b[2]);
/* d += A B, signed bytes, exact: registers hold four bytes of k: a[0] (g, 4q..) a[1] (g + 8, 4q..)
 * a[2] (g, 4q + 16..) a[3] (g + 8, 4q + 16..), b[0] (4q.., g) b[1] (4q + 16.., g). */
INSTRUCTION void mma_m16n8k32_i8(i32 d[4], const u32 a[4], const u32 b[2]);

/* ---- asynchronous copies, global to shared (sm_80) ---------------------------------------------
 *
 * Each thread's copies are in the group that its next commit closes. wait(n), n a literal: all but
 * the newest n groups have arrived, for this thread; others see them after a barrier. */

/* 16 bytes past L1; 8 or 4 bytes through it. Both addresses aligned to the size. */
INSTRUCTION void copy_async_16(void *shared, const void *global);
INSTRUCTION void copy_async_8(void *shared, const void *global);
INSTRUCTION void copy_async_4(void *shared, const void *global);
/* The first `bytes` bytes from global, 0..16, the rest zeros. global is not read where bytes is 0,
 * but must be a valid pointer. */
INSTRUCTION void copy_async_16_part(void *shared, const void *global, u32 bytes);
INSTRUCTION void copy_async_commit(void);
#ifdef ARCH_EMULATE
INSTRUCTION void copy_async_wait(u32 groups);
#endif

/* ---- programmatic dependent launch (sm_90; nothing on older ones) -------------------------------
 *
 * A kernel launched with the attribute may start while its predecessor runs. Before
 * dependent_wait() it may touch only what no kernel since the last ordinary launch writes: weights,
 * shared memory. After it, everything those kernels did is visible. At least one thread of every
 * such kernel must wait, and those that use the predecessor's results all. dependents_launch():
 * once each of this kernel's blocks has called it, in any thread and any number of times, or has
 * ended, the successor may start. */
INSTRUCTION void dependent_wait(void);
INSTRUCTION void dependents_launch(void);

#ifndef ARCH_EMULATE
#include "device_ptx.h"
#endif

#endif

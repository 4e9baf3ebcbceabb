/* device_sm90.h - what only sm_90a has: barriers in shared memory that asynchronous copies arrive
 * at, bulk and tensor copies (TMA), matrix products of a warp group. Include after device.h; the
 * functions exist where DEVICE_SM90A is defined.
 *
 * Two kinds of access: a thread's own loads and stores, and those of the asynchronous units.
 * fence_proxy_async() stands between a thread's stores to shared memory and their use by a unit. */
#ifndef ARCH_DEVICE_SM90_H
#define ARCH_DEVICE_SM90_H

#include "device.h"

/* 64-byte aligned, in global memory, filled by the host (cuTensorMapEncodeTiled); read-only. */
typedef struct __attribute__((aligned(64))) {
    u64 words[16];
} tensor_map;

/* ---- mbarriers ---------------------------------------------------------------------------------
 *
 * Eight aligned bytes of shared memory. A phase ends when `arrivals` arrivals and all expected
 * bytes have come; then the next begins. Phases are numbered 0, 1, 0, 1: wait(parity) returns once
 * the current phase is not that one any more, so the first wait(1) returns at once. */

INSTRUCTION void mbarrier_init(u64 *b, u32 arrivals);
/* By the thread that initialised, before the block_sync() after which others may use them. */
INSTRUCTION void mbarrier_init_fence(void);
INSTRUCTION void mbarrier_arrive(u64 *b);
/* Arrives, and adds `bytes` to those that must come in this phase. */
INSTRUCTION void mbarrier_arrive_expect(u64 *b, u32 bytes);
/* 1 where the phase of that parity is over; the processor may sleep a while before it says 0. */
INSTRUCTION u32 mbarrier_test(u64 *b, u32 parity);
/* What the arrived threads wrote before, and the bytes that came, are visible on return. */
INSTRUCTION void mbarrier_wait(u64 *b, u32 parity);

/* ---- bulk copies -------------------------------------------------------------------------------
 *
 * By one thread. Addresses 16-byte aligned, sizes multiples of 16. Loads complete on an mbarrier;
 * stores in groups: wait_read(n): all but the newest n groups have read shared memory; wait(n):
 * they are written. n is a literal. */

INSTRUCTION void bulk_load(void *shared, const void *global, u32 bytes, u64 *barrier);
INSTRUCTION void bulk_store(void *global, const void *shared, u32 bytes);
INSTRUCTION void bulk_prefetch_l2(const void *global, u32 bytes);
/* A box of a tensor, element c0 (fastest), c1, .. first; what lies outside the tensor is loaded as
 * 0, and not stored. `shared` is 128-byte aligned (1024 for 128-byte swizzles). The barrier counts
 * the bytes of the whole box. */
INSTRUCTION void tensor_load_2d(void *shared, const tensor_map *map, i32 c0, i32 c1, u64 *barrier);
INSTRUCTION void tensor_load_3d(void *shared, const tensor_map *map, i32 c0, i32 c1, i32 c2,
                                u64 *barrier);
INSTRUCTION void tensor_load_4d(void *shared, const tensor_map *map, i32 c0, i32 c1, i32 c2, i32 c3,
                                u64 *barrier);
INSTRUCTION void tensor_store_2d(const tensor_map *map, i32 c0, i32 c1, const void *shared);
INSTRUCTION void tensor_store_3d(const tensor_map *map, i32 c0, i32 c1, i32 c2, const void *shared);
INSTRUCTION void bulk_commit(void);
/* Once, by the thread that uses the map, before its first use: the host copied the map to where it
 * is, and copies of boxes read it by a way of their own (the tensormap proxy). */
INSTRUCTION void tensor_map_acquire(const tensor_map *map);
/* Behind it: brings the map, of rank 2, to where copies look for it, so that the first of them need
 * not wait for it. (It asks L2 for a box in front of all columns, which is nothing.
 * prefetch.tensormap is for maps in constant and parameter memory.) */
INSTRUCTION void tensor_map_prefetch_2d(const tensor_map *map);
/* This thread's stores to shared memory so far may be read by asynchronous units, once a barrier
 * has told the thread that starts them. */
INSTRUCTION void fence_proxy_async(void);

/* ---- clusters ----------------------------------------------------------------------------------
 *
 * Up to 8 blocks, one behind the other along y, that run at the same time and may read each other's
 * shared memory: between two cluster_sync(), the first of which says that all have begun (and what
 * they wrote), the last that none reads any more. By all threads that have not ended. */

INSTRUCTION void cluster_sync(void);
/* Its halves: what a thread does between them touches no shared memory that others read or that is
 * another block's. */
INSTRUCTION void cluster_arrive(void);
INSTRUCTION void cluster_wait(void);
/* For cluster_arrive(), without its fence: says that the block has begun and, where the thread has
 * fenced them, that its mbarriers are there, and nothing of what it read or wrote. */
INSTRUCTION void cluster_arrive_begun(void);
/* What block `rank` of the cluster has where this block has p, 16-byte aligned. */
INSTRUCTION f32x4 cluster_load_f32x4(const void *p, u32 rank);
/* Stores v there, and adds its 16 bytes to those that block's mbarrier `barrier` waits for. Both
 * began, and initialised it, before the cluster met; only the one that waits has to stay. The
 * cluster is of two blocks at least; `rank` may be this one. */
INSTRUCTION void cluster_store_f32x4(void *p, f32x4 v, u32 rank, u64 *barrier);
/* Arrives at that block's mbarrier, and says what this thread (and what it has observed of others')
 * read and wrote: a fence for each warp that does it. */
INSTRUCTION void cluster_arrive_at(u64 *barrier, u32 rank);
/* mbarrier_wait() for bytes that cluster_store_f32x4() stored, or for such arrivals: they come from
 * another block, and so must what acquires them. */
INSTRUCTION void cluster_store_wait(u64 *barrier, u32 parity);

/* ---- products of a warp group ------------------------------------------------------------------
 *
 * Four warps, the first a multiple of four. D[64][n] (+)= A[64][16] B[16][n], bf16 with fp32 sums.
 * Lane l of warp w (0..3) of the group holds, with g = l / 4, q = l % 4, for j < n / 8:
 *   d[4 j] (16 w + g, 8 j + 2 q), d[4 j + 1] the next column, d[4 j + 2], d[4 j + 3] row + 8.
 * A from registers is that of mma_m16n8k16 for the warp's 16 rows.
 *
 * wgmma_fence() before the first product of a batch, wgmma_commit() behind the last, wgmma_wait(n),
 * a literal, until all but the newest n batches are done. d (and A's registers) must not be touched
 * between; nor may the tiles in shared memory be written. */

/* Tiles in shared memory as TMA writes them: rows of `width` bytes, 128, 64 or 32, swizzled by as
 * much, at an address that is a multiple of 8 width (1024, 512, 256).
 * wgmma_along: the sum runs along the rows ([m or n][k], k within `width`); + 2 for the next 16 of
 * k. wgmma_across: the sum runs across them ([k][n]); columns beyond the first width / 2 in tiles
 * `next` bytes further; + width for the next 16 of k. */
INSTRUCTION u64 wgmma_along(const void *tile, u32 width);
INSTRUCTION u64 wgmma_across(const void *tile, u32 width, u32 next);
INSTRUCTION void wgmma_fence(void);
INSTRUCTION void wgmma_commit(void);

/* For n of this list:
 *   wgmma_n128(d, a, b, add)             A, B along
 *   wgmma_n128_across(d, a, b, add)      A along, B across
 *   wgmma_n128_both_across(d, a, b, add) A across, B across
 *   wgmma_n128_held(d, r, b, add)        A in registers, B along
 *   wgmma_n128_held_across(d, r, b, add)
 * add 0: D = A B. */
#define WGMMA_SIZES(X)                                                                             \
    X(8)                                                                                           \
    X(16)                                                                                          \
    X(24) X(32) X(40) X(48) X(56) X(64) X(72) X(80) X(88) X(96) X(104) X(112) X(120) X(128) X(144) \
        X(160) X(176) X(192) X(208) X(224) X(240) X(256)
#define WGMMA_PROTOTYPES(n)                                                                        \
    INSTRUCTION void wgmma_n##n(float d[n / 2], u64 a, u64 b, u32 add);                            \
    INSTRUCTION void wgmma_n##n##_across(float d[n / 2], u64 a, u64 b, u32 add);                   \
    INSTRUCTION void wgmma_n##n##_both_across(float d[n / 2], u64 a, u64 b, u32 add);              \
    INSTRUCTION void wgmma_n##n##_held(float d[n / 2], const u32 r[4], u64 b, u32 add);            \
    INSTRUCTION void wgmma_n##n##_held_across(float d[n / 2], const u32 r[4], u64 b, u32 add);
WGMMA_SIZES(WGMMA_PROTOTYPES)
#undef WGMMA_PROTOTYPES

/* Four floats in global memory, 16-byte aligned, grow by v; nothing comes back, so nobody waits.
 * Whoever adds to them too, or reads them, is told by a flag or a barrier: else the sum's order
 * changes from run to run. */
INSTRUCTION void add_f32x4(float *p, f32x4 v);

/* Four blocks of 8 x 8 from the registers of ldmatrix_x4 to shared memory. */
INSTRUCTION void stmatrix_x4(void *row, const u32 r[4]);
INSTRUCTION void stmatrix_x4_trans(void *row, const u32 r[4]);

#ifdef ARCH_EMULATE
INSTRUCTION void bulk_wait_read(u32 groups);
INSTRUCTION void bulk_wait(u32 groups);
INSTRUCTION void wgmma_wait(u32 batches);
/* By all warps of a group; n a literal, a multiple of 8, 24..256. */
INSTRUCTION void registers_more(u32 n);
INSTRUCTION void registers_fewer(u32 n);
#else
#include "device_sm90_ptx.h"
#endif

#endif

/* device_ptx.h - the functions that device.h promises, as PTX. Contracts stand there.
 *
 * Arithmetic uses builtins where clang has them: every asm statement is convergent in CUDA mode,
 * and a loop around one is not unrolled at run time. */
#ifndef ARCH_DEVICE_PTX_H
#define ARCH_DEVICE_PTX_H

/* ---- arithmetic ---- */

#if defined(__clang__)

INSTRUCTION u32 bf16_pack(float low, float high)
{
    u32 r;
    auto pair = __nvvm_ff2bf16x2_rn(high, low); /* its type differs between versions of clang */
    __builtin_memcpy(&r, &pair, 4);
    return r;
}

INSTRUCTION float fast_exp2(float x)
{
    return __nvvm_ex2_approx_ftz_f(x);
}

INSTRUCTION float fast_log2(float x)
{
    return __nvvm_lg2_approx_ftz_f(x);
}

INSTRUCTION float fast_rsqrt(float x)
{
    return __nvvm_rsqrt_approx_ftz_f(x);
}

INSTRUCTION float fast_reciprocal(float x)
{
    return __nvvm_div_approx_ftz_f(1.0f, x); /* clang 14 has no rcp; ptxas makes it one */
}

INSTRUCTION float f32_sqrt(float x)
{
    return __builtin_sqrtf(x);
}

#else

INSTRUCTION u32 bf16_pack(float low, float high)
{
    u32 r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}

INSTRUCTION float fast_exp2(float x)
{
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

INSTRUCTION float fast_log2(float x)
{
    float r;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

INSTRUCTION float fast_rsqrt(float x)
{
    float r;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

INSTRUCTION float fast_reciprocal(float x)
{
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

INSTRUCTION float f32_sqrt(float x)
{
    return sqrtf(x);
}

#endif

INSTRUCTION bf16 bf16_from_f32(float x)
{
    return (bf16)bf16_pack(x, 0.0f);
}

INSTRUCTION float f32_divide(float a, float b)
{
    return a / b;
}

#if defined(__clang__)
INSTRUCTION u32 bytes_select(u32 a, u32 b, u32 selector)
{
    return (u32)__nvvm_prmt(a, b, selector);
}
#else
INSTRUCTION u32 bytes_select(u32 a, u32 b, u32 selector)
{
    return __byte_perm(a, b, selector);
}
#endif

INSTRUCTION i32 dot4_i8(u32 a, u32 b, i32 c)
{
    i32 r;
    asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
    return r;
}

INSTRUCTION u64 here_u64(u64 x)
{
    asm volatile("" : "+l"(x));
    return x;
}

INSTRUCTION float here_f32(float x)
{
    asm volatile("" : "+f"(x));
    return x;
}

/* ---- memory ---- */

/* The 32-bit address of a pointer into shared memory. */
DEVICE u32 ptx_shared(const void *p)
{
#if defined(__clang__)
    return (u32)(u64)(__attribute__((address_space(3))) void *)(void *)p;
#else
    return (u32)__cvta_generic_to_shared(p);
#endif
}

/* Volatile, so that none moves above dependent_wait(). */
INSTRUCTION u32x4 load_stream_u32x4(const void *p)
{
    u32x4 v;
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}

INSTRUCTION u32x2 load_stream_u32x2(const void *p)
{
    u32x2 v;
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v2.u32 {%0, %1}, [%2];"
                 : "=r"(v.x), "=r"(v.y)
                 : "l"(p));
    return v;
}

INSTRUCTION u32x4 load_l2_u32x4(const void *p)
{
    u32x4 v;
    asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p)
                 : "memory");
    return v;
}

INSTRUCTION float load_l2_f32(const float *p)
{
    float v;
    asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(v) : "l"(p) : "memory");
    return v;
}

INSTRUCTION void store_stream_u32x4(void *p, u32x4 v)
{
    asm volatile("st.global.cs.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(v.x), "r"(v.y),
                 "r"(v.z), "r"(v.w)
                 : "memory");
}

INSTRUCTION void store_u32x4(void *p, u32x4 v)
{
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(v.x), "r"(v.y), "r"(v.z),
                 "r"(v.w)
                 : "memory");
}

INSTRUCTION void prefetch_l2(const void *p)
{
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}

INSTRUCTION u32 atomic_add_u32(u32 *p, u32 v)
{
    u32 r;
    asm volatile("atom.relaxed.gpu.global.add.u32 %0, [%1], %2;"
                 : "=r"(r)
                 : "l"(p), "r"(v)
                 : "memory");
    return r;
}

INSTRUCTION u32 atomic_max_u32(u32 *p, u32 v)
{
    u32 r;
    asm volatile("atom.relaxed.gpu.global.max.u32 %0, [%1], %2;"
                 : "=r"(r)
                 : "l"(p), "r"(v)
                 : "memory");
    return r;
}

INSTRUCTION u32 atomic_exchange_u32(u32 *p, u32 v)
{
    u32 r;
    asm volatile("atom.relaxed.gpu.global.exch.b32 %0, [%1], %2;"
                 : "=r"(r)
                 : "l"(p), "r"(v)
                 : "memory");
    return r;
}

INSTRUCTION u32 atomic_cas_u32(u32 *p, u32 expected, u32 desired)
{
    u32 r;
    asm volatile("atom.relaxed.gpu.global.cas.b32 %0, [%1], %2, %3;"
                 : "=r"(r)
                 : "l"(p), "r"(expected), "r"(desired)
                 : "memory");
    return r;
}

INSTRUCTION u64 atomic_max_u64(u64 *p, u64 v)
{
    u64 r;
    asm volatile("atom.relaxed.gpu.global.max.u64 %0, [%1], %2;"
                 : "=l"(r)
                 : "l"(p), "l"(v)
                 : "memory");
    return r;
}

INSTRUCTION void atomic_add_f32(float *p, float v)
{
    asm volatile("red.relaxed.gpu.global.add.f32 [%0], %1;" ::"l"(p), "f"(v) : "memory");
}

INSTRUCTION u32 atomic_add_acq_rel_u32(u32 *p, u32 v)
{
    u32 r;
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], %2;"
                 : "=r"(r)
                 : "l"(p), "r"(v)
                 : "memory");
    return r;
}

INSTRUCTION u32 load_acquire_u32(const u32 *p)
{
    u32 r;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(r) : "l"(p) : "memory");
    return r;
}

INSTRUCTION void store_release_u32(u32 *p, u32 v)
{
    asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(p), "r"(v) : "memory");
}

INSTRUCTION void thread_fence(void)
{
    asm volatile("fence.acq_rel.gpu;" ::: "memory");
}

INSTRUCTION void spin_pause(void)
{
    asm volatile("nanosleep.u32 20;");
}

/* ---- block and warp ---- */

INSTRUCTION void block_sync(void)
{
    __syncthreads();
}

INSTRUCTION void barrier_sync(u32 id, u32 threads)
{
    asm volatile("barrier.sync.aligned %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

INSTRUCTION void barrier_arrive(u32 id, u32 threads)
{
    asm volatile("barrier.arrive.aligned %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

INSTRUCTION u32 block_count(u32 predicate)
{
    u32 r;
    asm volatile("{ .reg .pred p; setp.ne.u32 p, %1, 0; barrier.red.popc.aligned.u32 %0, 0, p; }"
                 : "=r"(r)
                 : "r"(predicate)
                 : "memory");
    return r;
}

INSTRUCTION u32 lane_id(void)
{
    return threadIdx.x % WARP;
}

INSTRUCTION void warp_sync(void)
{
    asm volatile("bar.warp.sync 0xffffffff;" ::: "memory");
}

#define PTX_SHUFFLE(name, mode, bound)                                                             \
    INSTRUCTION u32 name##_u32(u32 v, u32 at, u32 width)                                           \
    {                                                                                              \
        u32 r;                                                                                     \
        asm volatile("shfl.sync." mode ".b32 %0, %1, %2, %3, 0xffffffff;"                          \
                     : "=r"(r)                                                                     \
                     : "r"(v), "r"(at), "r"((WARP - width) << 8 | (bound)));                       \
        return r;                                                                                  \
    }                                                                                              \
    INSTRUCTION float name##_f32(float v, u32 at, u32 width)                                       \
    {                                                                                              \
        return f32_from_bits(name##_u32(bits_from_f32(v), at, width));                             \
    }
PTX_SHUFFLE(shuffle, "idx", 31)
PTX_SHUFFLE(shuffle_xor, "bfly", 31)
PTX_SHUFFLE(shuffle_up, "up", 0)
PTX_SHUFFLE(shuffle_down, "down", 31)
#undef PTX_SHUFFLE

INSTRUCTION u32 warp_ballot(u32 predicate)
{
    u32 r;
    asm volatile("{ .reg .pred p; setp.ne.u32 p, %1, 0; vote.sync.ballot.b32 %0, p, 0xffffffff; }"
                 : "=r"(r)
                 : "r"(predicate));
    return r;
}

INSTRUCTION u32 warp_any(u32 predicate)
{
    return warp_ballot(predicate) != 0;
}

INSTRUCTION u32 warp_all(u32 predicate)
{
    return warp_ballot(predicate) == 0xffffffffu;
}

/* ---- matrices ---- */

#define PTX_LDMATRIX(suffix, mode)                                                                 \
    INSTRUCTION void ldmatrix_x1##suffix(u32 r[1], const void *row)                                \
    {                                                                                              \
        asm volatile("ldmatrix.sync.aligned.m8n8.x1" mode ".shared.b16 {%0}, [%1];"                \
                     : "=r"(r[0])                                                                  \
                     : "r"(ptx_shared(row))                                                        \
                     : "memory");                                                                  \
    }                                                                                              \
    INSTRUCTION void ldmatrix_x2##suffix(u32 r[2], const void *row)                                \
    {                                                                                              \
        asm volatile("ldmatrix.sync.aligned.m8n8.x2" mode ".shared.b16 {%0, %1}, [%2];"            \
                     : "=r"(r[0]), "=r"(r[1])                                                      \
                     : "r"(ptx_shared(row))                                                        \
                     : "memory");                                                                  \
    }                                                                                              \
    INSTRUCTION void ldmatrix_x4##suffix(u32 r[4], const void *row)                                \
    {                                                                                              \
        asm volatile("ldmatrix.sync.aligned.m8n8.x4" mode ".shared.b16 {%0, %1, %2, %3}, [%4];"    \
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])                              \
                     : "r"(ptx_shared(row))                                                        \
                     : "memory");                                                                  \
    }
PTX_LDMATRIX(, "")
PTX_LDMATRIX(_trans, ".trans")
#undef PTX_LDMATRIX

INSTRUCTION void mma_m16n8k16_bf16(float d[4], const u32 a[4], const u32 b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
                 "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

INSTRUCTION void mma_m16n8k8_bf16(float d[4], const u32 a[2], const u32 b[1])
{
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
                 "{%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(b[0]));
}

INSTRUCTION void mma_m16n8k8_tf32(float d[4], const u32 a[4], const u32 b[2])
{
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, "
                 "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

INSTRUCTION void mma_m16n8k32_i8(i32 d[4], const u32 a[4], const u32 b[2])
{
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, "
                 "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* ---- asynchronous copies ---- */

INSTRUCTION void copy_async_16(void *shared, const void *global)
{
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(ptx_shared(shared)),
                 "l"(global)
                 : "memory");
}

INSTRUCTION void copy_async_8(void *shared, const void *global)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(ptx_shared(shared)), "l"(global)
                 : "memory");
}

INSTRUCTION void copy_async_4(void *shared, const void *global)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(ptx_shared(shared)), "l"(global)
                 : "memory");
}

INSTRUCTION void copy_async_16_part(void *shared, const void *global, u32 bytes)
{
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(ptx_shared(shared)),
                 "l"(global), "r"(bytes)
                 : "memory");
}

INSTRUCTION void copy_async_commit(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* A macro, because the operand is an immediate. (nvcc takes no enumerator there, but a sum with
 * one.) */
#define copy_async_wait(groups)                                                                    \
    asm volatile("cp.async.wait_group %0;" ::"n"((groups) + 0) : "memory")

/* ---- programmatic dependent launch ---- */

INSTRUCTION void dependent_wait(void)
{
#if DEVICE_SM >= 90
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

INSTRUCTION void dependents_launch(void)
{
#if DEVICE_SM >= 90
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

#endif

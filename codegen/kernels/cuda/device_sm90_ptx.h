/* device_sm90_ptx.h - the functions that device_sm90.h promises, as PTX. Contracts stand there. */
#ifndef ARCH_DEVICE_SM90_PTX_H
#define ARCH_DEVICE_SM90_PTX_H

/* ---- mbarriers ---- */

INSTRUCTION void mbarrier_init(u64 *b, u32 arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(ptx_shared(b)), "r"(arrivals)
                 : "memory");
}

INSTRUCTION void mbarrier_init_fence(void)
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

INSTRUCTION void mbarrier_arrive(u64 *b)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(ptx_shared(b)) : "memory");
}

INSTRUCTION void mbarrier_arrive_expect(u64 *b, u32 bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(ptx_shared(b)),
                 "r"(bytes)
                 : "memory");
}

INSTRUCTION u32 mbarrier_test(u64 *b, u32 parity)
{
    u32 done;
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; "
                 "selp.u32 %0, 1, 0, p; }"
                 : "=r"(done)
                 : "r"(ptx_shared(b)), "r"(parity)
                 : "memory");
    return done;
}

INSTRUCTION void mbarrier_wait(u64 *b, u32 parity)
{
    while (!mbarrier_test(b, parity)) {
    }
}

/* ---- bulk copies ---- */

INSTRUCTION void bulk_load(void *shared, const void *global, u32 bytes, u64 *barrier)
{
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, "
        "[%3];" ::"r"(ptx_shared(shared)),
        "l"(global), "r"(bytes), "r"(ptx_shared(barrier))
        : "memory");
}

INSTRUCTION void bulk_store(void *global, const void *shared, u32 bytes)
{
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(global),
                 "r"(ptx_shared(shared)), "r"(bytes)
                 : "memory");
}

INSTRUCTION void bulk_prefetch_l2(const void *global, u32 bytes)
{
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(global), "r"(bytes));
}

#define PTX_TENSOR_LOAD(rank)                                                                      \
    "cp.async.bulk.tensor." rank ".shared::cluster.global.tile.mbarrier::complete_tx::bytes "

INSTRUCTION void tensor_load_2d(void *shared, const tensor_map *map, i32 c0, i32 c1, u64 *barrier)
{
    asm volatile(PTX_TENSOR_LOAD("2d") "[%0], [%1, {%2, %3}], [%4];" ::"r"(ptx_shared(shared)),
                 "l"(map), "r"(c0), "r"(c1), "r"(ptx_shared(barrier))
                 : "memory");
}

INSTRUCTION void tensor_load_3d(void *shared, const tensor_map *map, i32 c0, i32 c1, i32 c2,
                                u64 *barrier)
{
    asm volatile(PTX_TENSOR_LOAD("3d") "[%0], [%1, {%2, %3, %4}], [%5];" ::"r"(ptx_shared(shared)),
                 "l"(map), "r"(c0), "r"(c1), "r"(c2), "r"(ptx_shared(barrier))
                 : "memory");
}

INSTRUCTION void tensor_load_4d(void *shared, const tensor_map *map, i32 c0, i32 c1, i32 c2, i32 c3,
                                u64 *barrier)
{
    asm volatile(
        PTX_TENSOR_LOAD("4d") "[%0], [%1, {%2, %3, %4, %5}], [%6];" ::"r"(ptx_shared(shared)),
        "l"(map), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(ptx_shared(barrier))
        : "memory");
}

INSTRUCTION void tensor_store_2d(const tensor_map *map, i32 c0, i32 c1, const void *shared)
{
    asm volatile(
        "cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%1, %2}], [%3];" ::"l"(
            map),
        "r"(c0), "r"(c1), "r"(ptx_shared(shared))
        : "memory");
}

INSTRUCTION void tensor_store_3d(const tensor_map *map, i32 c0, i32 c1, i32 c2, const void *shared)
{
    asm volatile(
        "cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%0, {%1, %2, %3}], [%4];" ::
            "l"(map),
        "r"(c0), "r"(c1), "r"(c2), "r"(ptx_shared(shared))
        : "memory");
}

INSTRUCTION void bulk_commit(void)
{
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

/* Macros, because the operands are immediates. */
#define bulk_wait_read(groups)                                                                     \
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"((groups) + 0) : "memory")
#define bulk_wait(groups)                                                                          \
    asm volatile("cp.async.bulk.wait_group %0;" ::"n"((groups) + 0) : "memory")

INSTRUCTION void tensor_map_acquire(const tensor_map *map)
{
    asm volatile("fence.proxy.tensormap::generic.acquire.sys [%0], 128;" ::"l"(map) : "memory");
}

INSTRUCTION void tensor_map_prefetch_2d(const tensor_map *map)
{
    asm volatile("cp.async.bulk.prefetch.tensor.2d.L2.global.tile [%0, {%1, %1}];" ::"l"(map),
                 "r"(-64)
                 : "memory");
}

INSTRUCTION void fence_proxy_async(void)
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

#define registers_more(n) asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"((n) + 0))
#define registers_fewer(n) asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"((n) + 0))

/* ---- clusters ---- */

INSTRUCTION void cluster_sync(void)
{
    asm volatile("barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
}

INSTRUCTION void cluster_arrive(void)
{
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}

INSTRUCTION void cluster_arrive_begun(void)
{
    asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}

INSTRUCTION void cluster_wait(void)
{
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

INSTRUCTION f32x4 cluster_load_f32x4(const void *p, u32 rank)
{
    f32x4 v;
    asm volatile("{ .reg .b32 t; mapa.shared::cluster.u32 t, %4, %5; "
                 "ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [t]; }"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "r"(ptx_shared(p)), "r"(rank)
                 : "memory");
    return v;
}

INSTRUCTION void cluster_store_f32x4(void *p, f32x4 v, u32 rank, u64 *barrier)
{
    asm volatile("{ .reg .b32 t, b; mapa.shared::cluster.u32 t, %0, %2; "
                 "mapa.shared::cluster.u32 b, %1, %2; "
                 "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 "
                 "[t], {%3, %4, %5, %6}, [b]; }" ::"r"(ptx_shared(p)),
                 "r"(ptx_shared(barrier)), "r"(rank), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w)
                 : "memory");
}

/* As mbarrier_wait(), whose acquire is of the block's scope and does not pair with a release by
 * another block. In machine code one invalidation of L1 more, once. */
INSTRUCTION void cluster_store_wait(u64 *barrier, u32 parity)
{
    u32 done;
    do
        asm volatile("{ .reg .pred p; "
                     "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2; "
                     "selp.u32 %0, 1, 0, p; }"
                     : "=r"(done)
                     : "r"(ptx_shared(barrier)), "r"(parity)
                     : "memory");
    while (!done);
}

INSTRUCTION void cluster_arrive_at(u64 *barrier, u32 rank)
{
    asm volatile(
        "{ .reg .b32 b; mapa.shared::cluster.u32 b, %0, %1; "
        "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [b]; }" ::"r"(ptx_shared(barrier)),
        "r"(rank)
        : "memory");
}

/* ---- products of a warp group ---- */

/* Address, leading and stride byte offsets in units of 16 bytes, swizzle 1, 2, 3 of 128, 64, 32. */
DEVICE u64 ptx_wgmma_tile(const void *tile, u32 width, u32 leading)
{
    const u32 swizzle = width == 128 ? 1 : width == 64 ? 2 : 3;
    return (u64)(ptx_shared(tile) >> 4 & 0x3fff) | (u64)(leading >> 4 & 0x3fff) << 16 |
           (u64)(8 * width >> 4) << 32 | (u64)swizzle << 62;
}

INSTRUCTION u64 wgmma_along(const void *tile, u32 width)
{
    return ptx_wgmma_tile(tile, width, 16);
}

INSTRUCTION u64 wgmma_across(const void *tile, u32 width, u32 next)
{
    return ptx_wgmma_tile(tile, width, next);
}

INSTRUCTION void wgmma_fence(void)
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

INSTRUCTION void wgmma_commit(void)
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

#define wgmma_wait(batches)                                                                        \
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"((batches) + 0) : "memory")

/* The first 4, 8, .. 128 accumulators: their names in the text, and their constraints. */
#define PTX_NAMES_4 "%0, %1, %2, %3"
#define PTX_NAMES_8 PTX_NAMES_4 ", %4, %5, %6, %7"
#define PTX_NAMES_12 PTX_NAMES_8 ", %8, %9, %10, %11"
#define PTX_NAMES_16 PTX_NAMES_12 ", %12, %13, %14, %15"
#define PTX_NAMES_20 PTX_NAMES_16 ", %16, %17, %18, %19"
#define PTX_NAMES_24 PTX_NAMES_20 ", %20, %21, %22, %23"
#define PTX_NAMES_28 PTX_NAMES_24 ", %24, %25, %26, %27"
#define PTX_NAMES_32 PTX_NAMES_28 ", %28, %29, %30, %31"
#define PTX_NAMES_36 PTX_NAMES_32 ", %32, %33, %34, %35"
#define PTX_NAMES_40 PTX_NAMES_36 ", %36, %37, %38, %39"
#define PTX_NAMES_44 PTX_NAMES_40 ", %40, %41, %42, %43"
#define PTX_NAMES_48 PTX_NAMES_44 ", %44, %45, %46, %47"
#define PTX_NAMES_52 PTX_NAMES_48 ", %48, %49, %50, %51"
#define PTX_NAMES_56 PTX_NAMES_52 ", %52, %53, %54, %55"
#define PTX_NAMES_60 PTX_NAMES_56 ", %56, %57, %58, %59"
#define PTX_NAMES_64 PTX_NAMES_60 ", %60, %61, %62, %63"
#define PTX_NAMES_68 PTX_NAMES_64 ", %64, %65, %66, %67"
#define PTX_NAMES_72 PTX_NAMES_68 ", %68, %69, %70, %71"
#define PTX_NAMES_76 PTX_NAMES_72 ", %72, %73, %74, %75"
#define PTX_NAMES_80 PTX_NAMES_76 ", %76, %77, %78, %79"
#define PTX_NAMES_84 PTX_NAMES_80 ", %80, %81, %82, %83"
#define PTX_NAMES_88 PTX_NAMES_84 ", %84, %85, %86, %87"
#define PTX_NAMES_92 PTX_NAMES_88 ", %88, %89, %90, %91"
#define PTX_NAMES_96 PTX_NAMES_92 ", %92, %93, %94, %95"
#define PTX_NAMES_100 PTX_NAMES_96 ", %96, %97, %98, %99"
#define PTX_NAMES_104 PTX_NAMES_100 ", %100, %101, %102, %103"
#define PTX_NAMES_108 PTX_NAMES_104 ", %104, %105, %106, %107"
#define PTX_NAMES_112 PTX_NAMES_108 ", %108, %109, %110, %111"
#define PTX_NAMES_116 PTX_NAMES_112 ", %112, %113, %114, %115"
#define PTX_NAMES_120 PTX_NAMES_116 ", %116, %117, %118, %119"
#define PTX_NAMES_124 PTX_NAMES_120 ", %120, %121, %122, %123"
#define PTX_NAMES_128 PTX_NAMES_124 ", %124, %125, %126, %127"
#define PTX_SUMS_4(d) "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
#define PTX_SUMS_8(d) PTX_SUMS_4(d), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7])
#define PTX_SUMS_12(d) PTX_SUMS_8(d), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11])
#define PTX_SUMS_16(d) PTX_SUMS_12(d), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15])
#define PTX_SUMS_20(d) PTX_SUMS_16(d), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19])
#define PTX_SUMS_24(d) PTX_SUMS_20(d), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23])
#define PTX_SUMS_28(d) PTX_SUMS_24(d), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27])
#define PTX_SUMS_32(d) PTX_SUMS_28(d), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
#define PTX_SUMS_36(d) PTX_SUMS_32(d), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35])
#define PTX_SUMS_40(d) PTX_SUMS_36(d), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39])
#define PTX_SUMS_44(d) PTX_SUMS_40(d), "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43])
#define PTX_SUMS_48(d) PTX_SUMS_44(d), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47])
#define PTX_SUMS_52(d) PTX_SUMS_48(d), "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51])
#define PTX_SUMS_56(d) PTX_SUMS_52(d), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55])
#define PTX_SUMS_60(d) PTX_SUMS_56(d), "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59])
#define PTX_SUMS_64(d) PTX_SUMS_60(d), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
#define PTX_SUMS_68(d) PTX_SUMS_64(d), "+f"(d[64]), "+f"(d[65]), "+f"(d[66]), "+f"(d[67])
#define PTX_SUMS_72(d) PTX_SUMS_68(d), "+f"(d[68]), "+f"(d[69]), "+f"(d[70]), "+f"(d[71])
#define PTX_SUMS_76(d) PTX_SUMS_72(d), "+f"(d[72]), "+f"(d[73]), "+f"(d[74]), "+f"(d[75])
#define PTX_SUMS_80(d) PTX_SUMS_76(d), "+f"(d[76]), "+f"(d[77]), "+f"(d[78]), "+f"(d[79])
#define PTX_SUMS_84(d) PTX_SUMS_80(d), "+f"(d[80]), "+f"(d[81]), "+f"(d[82]), "+f"(d[83])
#define PTX_SUMS_88(d) PTX_SUMS_84(d), "+f"(d[84]), "+f"(d[85]), "+f"(d[86]), "+f"(d[87])
#define PTX_SUMS_92(d) PTX_SUMS_88(d), "+f"(d[88]), "+f"(d[89]), "+f"(d[90]), "+f"(d[91])
#define PTX_SUMS_96(d) PTX_SUMS_92(d), "+f"(d[92]), "+f"(d[93]), "+f"(d[94]), "+f"(d[95])
#define PTX_SUMS_100(d) PTX_SUMS_96(d), "+f"(d[96]), "+f"(d[97]), "+f"(d[98]), "+f"(d[99])
#define PTX_SUMS_104(d) PTX_SUMS_100(d), "+f"(d[100]), "+f"(d[101]), "+f"(d[102]), "+f"(d[103])
#define PTX_SUMS_108(d) PTX_SUMS_104(d), "+f"(d[104]), "+f"(d[105]), "+f"(d[106]), "+f"(d[107])
#define PTX_SUMS_112(d) PTX_SUMS_108(d), "+f"(d[108]), "+f"(d[109]), "+f"(d[110]), "+f"(d[111])
#define PTX_SUMS_116(d) PTX_SUMS_112(d), "+f"(d[112]), "+f"(d[113]), "+f"(d[114]), "+f"(d[115])
#define PTX_SUMS_120(d) PTX_SUMS_116(d), "+f"(d[116]), "+f"(d[117]), "+f"(d[118]), "+f"(d[119])
#define PTX_SUMS_124(d) PTX_SUMS_120(d), "+f"(d[120]), "+f"(d[121]), "+f"(d[122]), "+f"(d[123])
#define PTX_SUMS_128(d) PTX_SUMS_124(d), "+f"(d[124]), "+f"(d[125]), "+f"(d[126]), "+f"(d[127])

/* The operands behind h = n / 2 accumulators have the numbers h, h + 1, ..; `add` is the last. */
#define PTX_WGMMA(n, h, name, a_across, across, o0, o1, o2)                                        \
    INSTRUCTION void wgmma_n##n##name(float d[h], u64 a, u64 b, u32 add)                           \
    {                                                                                              \
        asm volatile("{ .reg .pred p; setp.ne.b32 p, %" #o2 ", 0; "                                \
                     "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" PTX_NAMES_##h    \
                     "}, %" #o0 ", %" #o1 ", p, 1, 1, " a_across ", " across "; }"                 \
                     : PTX_SUMS_##h(d)                                                             \
                     : "l"(a), "l"(b), "r"(add));                                                  \
    }
#define PTX_WGMMA_HELD(n, h, name, across, o0, o1, o2, o3, o4, o5)                                 \
    INSTRUCTION void wgmma_n##n##name(float d[h], const u32 r[4], u64 b, u32 add)                  \
    {                                                                                              \
        asm volatile("{ .reg .pred p; setp.ne.b32 p, %" #o5 ", 0; "                                \
                     "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" PTX_NAMES_##h    \
                     "}, {%" #o0 ", %" #o1 ", %" #o2 ", %" #o3 "}, %" #o4 ", p, 1, 1, " across     \
                     "; }"                                                                         \
                     : PTX_SUMS_##h(d)                                                             \
                     : "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3]), "l"(b), "r"(add));              \
    }
#define PTX_WGMMAS(n, h, o0, o1, o2, o3, o4, o5)                                                   \
    PTX_WGMMA(n, h, , "0", "0", o0, o1, o2)                                                        \
    PTX_WGMMA(n, h, _across, "0", "1", o0, o1, o2)                                                 \
    PTX_WGMMA(n, h, _both_across, "1", "1", o0, o1, o2)                                            \
    PTX_WGMMA_HELD(n, h, _held, "0", o0, o1, o2, o3, o4, o5)                                       \
    PTX_WGMMA_HELD(n, h, _held_across, "1", o0, o1, o2, o3, o4, o5)
#if defined(DEVICE_SM90A)
PTX_WGMMAS(8, 4, 4, 5, 6, 7, 8, 9)
PTX_WGMMAS(16, 8, 8, 9, 10, 11, 12, 13)
PTX_WGMMAS(24, 12, 12, 13, 14, 15, 16, 17)
PTX_WGMMAS(32, 16, 16, 17, 18, 19, 20, 21)
PTX_WGMMAS(40, 20, 20, 21, 22, 23, 24, 25)
PTX_WGMMAS(48, 24, 24, 25, 26, 27, 28, 29)
PTX_WGMMAS(56, 28, 28, 29, 30, 31, 32, 33)
PTX_WGMMAS(64, 32, 32, 33, 34, 35, 36, 37)
PTX_WGMMAS(72, 36, 36, 37, 38, 39, 40, 41)
PTX_WGMMAS(80, 40, 40, 41, 42, 43, 44, 45)
PTX_WGMMAS(88, 44, 44, 45, 46, 47, 48, 49)
PTX_WGMMAS(96, 48, 48, 49, 50, 51, 52, 53)
PTX_WGMMAS(104, 52, 52, 53, 54, 55, 56, 57)
PTX_WGMMAS(112, 56, 56, 57, 58, 59, 60, 61)
PTX_WGMMAS(120, 60, 60, 61, 62, 63, 64, 65)
PTX_WGMMAS(128, 64, 64, 65, 66, 67, 68, 69)
PTX_WGMMAS(144, 72, 72, 73, 74, 75, 76, 77)
PTX_WGMMAS(160, 80, 80, 81, 82, 83, 84, 85)
PTX_WGMMAS(176, 88, 88, 89, 90, 91, 92, 93)
PTX_WGMMAS(192, 96, 96, 97, 98, 99, 100, 101)
PTX_WGMMAS(208, 104, 104, 105, 106, 107, 108, 109)
PTX_WGMMAS(224, 112, 112, 113, 114, 115, 116, 117)
PTX_WGMMAS(240, 120, 120, 121, 122, 123, 124, 125)
PTX_WGMMAS(256, 128, 128, 129, 130, 131, 132, 133)
#endif

/* ---- sums in global memory, stmatrix ---- */

INSTRUCTION void add_f32x4(float *p, f32x4 v)
{
    asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(p), "f"(v.x),
                 "f"(v.y), "f"(v.z), "f"(v.w)
                 : "memory");
}

INSTRUCTION void stmatrix_x4(void *row, const u32 r[4])
{
    asm volatile(
        "stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(ptx_shared(row)),
        "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
        : "memory");
}

INSTRUCTION void stmatrix_x4_trans(void *row, const u32 r[4])
{
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(
                     ptx_shared(row)),
                 "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
                 : "memory");
}

#endif

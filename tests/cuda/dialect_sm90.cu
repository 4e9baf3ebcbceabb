/* dialect_sm90.cu - the functions of device_sm90.h, so that each back end compiles them. Not meant to
 * compute anything. */
#include "device_sm90.h"

KERNEL_ENTRY(256, 1) every_sm90_function(float *out, const tensor_map *map, const u32x4 *in)
{
    SHARED_ARENA(arena);
    u64 *full = (u64 *)(void *)(arena + 65536), *empty = full + 1;
    const u32 t = threadIdx.x;
    if (t == 0) {
        mbarrier_init(full, 1);
        mbarrier_init(empty, 1);
        mbarrier_init_fence();
    }
    block_sync();
    if (t < 128) {
        registers_fewer(40);
        if (t == 0) {
            tensor_map_acquire(map);
            tensor_map_prefetch_2d(map);
            bulk_prefetch_l2(in, 4096);
            mbarrier_wait(empty, 1);
            mbarrier_arrive_expect(full, 3 * 16384 + 4096);
            tensor_load_2d(arena, map, 0, 0, full);
            tensor_load_3d(arena + 16384, map, 0, 0, 0, full);
            tensor_load_4d(arena + 32768, map, 0, 0, 0, 0, full);
            bulk_load(arena + 49152, in, 4096, full);
            mbarrier_wait(empty, 0);
            tensor_store_2d(map, 0, 0, arena);
            tensor_store_3d(map, 0, 0, 0, arena + 16384);
            bulk_store(out, arena + 32768, 4096);
            bulk_commit();
            bulk_wait_read(0);
            bulk_wait(0);
        }
    } else {
        registers_more(232);
        float d[64], e[32];
        u32 r[4];
        UNROLL
        for (int i = 0; i < 64; i++)
            d[i] = 0.0f;
        mbarrier_wait(full, 0);
        ldmatrix_x4(r, arena + 49152 + t % WARP * 16);
        const u64 a = wgmma_along(arena, 128), b = wgmma_along(arena + 16384, 128);
        wgmma_fence();
        UNROLL
        for (u32 k = 0; k < 4; k++)
            wgmma_n128(d, a + 2 * k, b + 2 * k, 1);
        wgmma_n64_across(e, a, wgmma_across(arena + 32768, 128, 8192), 0);
        wgmma_n64_both_across(e, wgmma_across(arena, 128, 8192),
                              wgmma_across(arena + 32768, 128, 8192), 1);
        wgmma_n128_held(d, r, b, 1);
        wgmma_n64_held_across(e, r, wgmma_across(arena + 32768, 64, 8192), 1);
        wgmma_commit();
        wgmma_wait(0);
        stmatrix_x4(arena + 49152 + t * 16 % 512, r);
        stmatrix_x4_trans(arena + 49152 + t * 16 % 512, r);
        fence_proxy_async();
        if (t == 128)
            mbarrier_arrive(empty);
        UNROLL
        for (u32 i = 0; i < 64; i++)
            out[t + i * 256] = d[i] + e[i / 2];
        f32x4 four = {d[0], d[1], d[2], d[3]};
        add_f32x4(out + t * 4, four);
    }
    cluster_sync();
    ((f32x4 *)(void *)out)[t] = cluster_load_f32x4(arena + t * 16, 0);
    cluster_arrive();
    cluster_wait();
    cluster_arrive_begun();
    cluster_wait();
    const f32x4 one = {1, 1, 1, 1};
    if (t == 0)
        mbarrier_arrive_expect(full, 16);
    if (t == 32)
        cluster_store_f32x4(arena, one, 0, full);
    cluster_store_wait(full, 1);
    if (t == 0)
        cluster_arrive_at(full, 0);
    cluster_store_wait(full, 0);
}

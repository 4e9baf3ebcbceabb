/* dialect.cu - every function of device.h once, so that each back end compiles each of them. Not
 * meant to compute anything. */
#include "device.h"

DEVICE float arithmetic(float x)
{
    float s, c, v[8];
    sincos_f32(x, &s, &c);
    u32x4 eight;
    eight.x = bf16_pack(s, c);
    eight.y = bf16_from_f32(x);
    eight.z = bits_from_f32(x);
    eight.w = 0;
    bf16_unpack8(v, eight);
    eight = bf16_pack8(v);
    float sum = f32_from_bf16((bf16)eight.x) + bf16_low(eight.y) + bf16_high(eight.z);
    sum += f32_fma(x, s, c) + f32_max(x, s) + f32_min(x, c) + f32_abs(x);
    sum += fast_exp2(x) + fast_log2(x) + fast_rsqrt(x) + fast_reciprocal(x) + f32_sqrt(x);
    sum += f32_divide(s, c) + exp_f32(x) + log_f32(x) + silu_f32(x) + tanh_f32(x);
    return sum + (float)dot4_i8(bytes_select(eight.x, eight.z, 0x5410), eight.y, 1);
}

DEVICE u32 other_blocks(u32 *flags, u64 *top, float *sums)
{
    u32 old = atomic_add_u32(flags, 1) + atomic_max_u32(flags + 1, 2);
    old += atomic_exchange_u32(flags + 2, 3) + atomic_cas_u32(flags + 3, 0, 1);
    old += (u32)atomic_max_u64(top, 7);
    atomic_add_f32(sums, 1.0f);
    thread_fence();
    store_release_u32(flags + 5, 1);
    while (load_acquire_u32(flags + 5) == 0)
        spin_pause();
    return old + atomic_add_acq_rel_u32(flags + 4, 1);
}

DEVICE float warp_functions(float x, u32 n)
{
    x += shuffle_f32(x, 3, 8) + shuffle_xor_f32(x, 2, 32);
    x += shuffle_up_f32(x, 1, 16) + shuffle_down_f32(x, 1, 32);
    n += shuffle_u32(n, 3, 8) + shuffle_xor_u32(n, 2, 32);
    n += shuffle_up_u32(n, 1, 16) + shuffle_down_u32(n, 1, 32);
    n += warp_any(n) + warp_all(n) + warp_ballot(n) + lane_id();
    warp_sync();
    return warp_sum(x, 16) + warp_max(x, 32) + (float)n;
}

DEVICE float matrices(const u8 *shared)
{
    u32 a[4], b[2];
    float d[4] = {0, 0, 0, 0};
    i32 e[4] = {0, 0, 0, 0};
    const u8 *row = shared + lane_id() * 16;
    ldmatrix_x4(a, row);
    ldmatrix_x2(b, row);
    mma_m16n8k16_bf16(d, a, b);
    ldmatrix_x1(b, row);
    mma_m16n8k8_bf16(d, a, b);
    ldmatrix_x4_trans(a, row);
    ldmatrix_x2_trans(b, row);
    mma_m16n8k8_tf32(d, a, b);
    ldmatrix_x1_trans(b, row);
    mma_m16n8k32_i8(e, a, b);
    return d[0] + d[1] + d[2] + d[3] + (float)(e[0] + e[1] + e[2] + e[3]);
}

KERNEL_ENTRY(128, 1) every_function(float *out, u32x4 *RESTRICT copy, const float *RESTRICT in,
                                    u32 *flags, u64 *top)
{
    SHARED_ARENA(arena);
    const u32 t = threadIdx.x + blockIdx.x * blockDim.x;
    prefetch_l2(in);
    copy_async_16(arena + threadIdx.x * 16, in + threadIdx.x * 4);
    copy_async_commit();
    copy_async_wait(0);
    block_sync();
    float x = matrices(arena) + arithmetic(in[t]);
    block_sync();
    copy_async_16_part(arena + threadIdx.x * 16, in, threadIdx.x % 16);
    copy_async_commit();
    copy_async_wait(0);
    block_sync();
    copy_async_8(arena + threadIdx.x * 16, in + t * 2);
    copy_async_4(arena + threadIdx.x * 16 + 8, in + t);
    copy_async_commit();
    copy_async_wait(0);
    block_sync();
    dependent_wait();
    dependents_launch();
    if (threadIdx.x < 64)
        barrier_sync(1, 128);
    else
        barrier_arrive(1, 128);
    x += warp_functions(x, t) + (float)block_count(t & 1);
    x += load_l2_f32(out + t) + (float)load_l2_u32x4(copy).x;
    if (threadIdx.x == 0)
        x += (float)other_blocks(flags, top, out);
    u32x4 v = load_stream_u32x4(in + t * 4);
    v.x += load_stream_u32x2(in + t * 2).x;
    store_stream_u32x4(copy + t, v);
    store_u32x4(copy + here_u64(t), v);
    out[t + gridDim.x] = here_f32(x) + block_sum(x, (float *)(void *)(arena + 4096), 128);
}

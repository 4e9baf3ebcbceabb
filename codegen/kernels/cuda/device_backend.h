/* device_backend.h - the words of device.h for clang -x cuda (without toolkit headers) and nvcc. */
#ifndef ARCH_DEVICE_BACKEND_H
#define ARCH_DEVICE_BACKEND_H

#if defined(__clang__)

#define __device__ __attribute__((device))
#define __global__ __attribute__((global))
#define __shared__ __attribute__((shared))
#define __constant__ __attribute__((constant))
#define DEVICE static __device__ inline __attribute__((always_inline))
#define KERNEL_ENTRY(threads, min_blocks)                                                          \
    extern "C" __global__ void __attribute__((launch_bounds(threads, min_blocks)))
#define SHARED_ARENA(name) extern __shared__ __attribute__((aligned(1024))) u8 name[]
#define BACKEND_FMAF(a, b, c) __builtin_fmaf(a, b, c)
#define BACKEND_FMAXF(a, b) __builtin_fmaxf(a, b)
#define BACKEND_FMINF(a, b) __builtin_fminf(a, b)

typedef struct {
    u32 x, y, z;
} backend_index;
#define BACKEND_INDEX(name, reg)                                                                   \
    DEVICE backend_index name(void)                                                                \
    {                                                                                              \
        backend_index i;                                                                           \
        i.x = (u32)__nvvm_read_ptx_sreg_##reg##_x();                                               \
        i.y = (u32)__nvvm_read_ptx_sreg_##reg##_y();                                               \
        i.z = (u32)__nvvm_read_ptx_sreg_##reg##_z();                                               \
        return i;                                                                                  \
    }
BACKEND_INDEX(backend_thread, tid)
BACKEND_INDEX(backend_block, ctaid)
BACKEND_INDEX(backend_block_size, ntid)
BACKEND_INDEX(backend_grid_size, nctaid)
#undef BACKEND_INDEX
#define threadIdx (backend_thread())
#define blockIdx (backend_block())
#define blockDim (backend_block_size())
#define gridDim (backend_grid_size())

#else /* nvcc */

#define DEVICE static __device__ __forceinline__
#define KERNEL_ENTRY(threads, min_blocks)                                                          \
    extern "C" __global__ void __launch_bounds__(threads, min_blocks)
#define SHARED_ARENA(name) extern __shared__ __align__(1024) u8 name[]
#define BACKEND_FMAF(a, b, c) fmaf(a, b, c)
#define BACKEND_FMAXF(a, b) fmaxf(a, b)
#define BACKEND_FMINF(a, b) fminf(a, b)

#endif

#define INSTRUCTION DEVICE
#define RESTRICT __restrict__
#define UNROLL _Pragma("unroll")
#define CONSTANT static __constant__

#endif

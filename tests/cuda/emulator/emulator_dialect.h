/* emulator_dialect.h - the words of device.h for a kernel that runs on the emulator. The file that
 * includes it is compiled with -fsanitize=thread and linked with the emulator, not with the
 * sanitizer's library: the compiler's calls around loads and stores are how every access of the
 * kernel, through whatever pointer, is seen. */
#ifndef ARCH_EMULATOR_DIALECT_H
#define ARCH_EMULATOR_DIALECT_H

/* Entry points have no prototypes, as in CUDA. */
#pragma GCC diagnostic ignored "-Wmissing-prototypes"

#define DEVICE static inline __attribute__((unused))
#define INSTRUCTION extern
#define KERNEL_ENTRY(threads, min_blocks) void
#define RESTRICT restrict
#define UNROLL
#define SHARED_ARENA(name) u8 *const name = (u8 *)emu_shared_arena()
#define CONSTANT static
#define BACKEND_FMAF(a, b, c) __builtin_fmaf(a, b, c)
#define BACKEND_FMAXF(a, b) __builtin_fmaxf(a, b)
#define BACKEND_FMINF(a, b) __builtin_fminf(a, b)
/* On reference code that stands in the same file as kernels: not watched, full speed. */
#define HOST_CODE __attribute__((no_sanitize("thread")))

struct emu_index {
    u32 x, y, z;
};
/* Constant, because no call of a kernel's functions ever changes threads. */
struct emu_index emu_thread_index(void) __attribute__((const));
struct emu_index emu_block_index(void) __attribute__((const));
struct emu_index emu_block_size(void) __attribute__((const));
struct emu_index emu_grid_size(void) __attribute__((const));
void *emu_shared_arena(void) __attribute__((const));
#define threadIdx (emu_thread_index())
#define blockIdx (emu_block_index())
#define blockDim (emu_block_size())
#define gridDim (emu_grid_size())

#endif

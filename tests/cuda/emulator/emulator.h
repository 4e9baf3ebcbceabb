/* emulator.h - runs CUDA kernels on a CPU and stops at the first thing that is wrong with them.
 *
 * Device memory is allocated here; kernels see nothing else but it, their block's shared memory and
 * the program's static data (to read). One launch runs at a time, on the calling thread. Any of
 * these stops it, with kernel, block, thread and source line:
 *
 *   an access outside allocations or shared memory, or not aligned to its size;
 *   a read of bytes that nothing has written;
 *   two accesses to the same bytes, one of them a write, that no barrier, fence or flag orders;
 *   data of an asynchronous copy or product used, or its source overwritten, before it was waited
 *   for; a kernel that ends with copies under way;
 *   lanes of a warp in different collective operations; threads that wait for ever;
 *   before dependent_wait(), use of what earlier kernels of the chain write;
 *   a block of a cluster that ends while another may still read its shared memory or stores to it,
 *   or that is read or stored to before it is known to have begun.
 *
 * Blocks, warps and lanes take turns in an order drawn from the seed; asynchronous operations
 * complete as late as the programming model allows, or at random before that. */
#ifndef ARCH_EMULATOR_H
#define ARCH_EMULATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- memory ---- */

/* Uninitialised device memory, 256-byte aligned, forbidden bytes on both sides. `name` is what
 * reports call it (kept, not copied). Ends the program when the arena is full. */
void *emu_alloc(const char *name, size_t bytes);
void emu_free(void *p); /* or NULL */
void emu_free_all(void);
/* Host to device, and a byte repeated: what they write is initialised. */
void emu_write(void *to, const void *from, size_t bytes);
void emu_fill(void *to, int byte, size_t bytes);
/* The host has written there through the pointer itself: as emu_write. */
void emu_mark(void *p, size_t bytes);
/* Device to host. A byte that nothing has written is a fault. */
bool emu_read(void *to, const void *from, size_t bytes);
/* Forgets what was written there, as of a buffer that a new phase uses for something else. */
void emu_forget(void *p, size_t bytes);

/* What a tensor_map (device_sm90.h) says: `rank` dimensions, the fastest first; strides in bytes of
 * all but the first; the box that one copy takes; rows swizzled by 0, 32, 64 or 128 bytes. */
struct emu_tensor {
    void *base;
    int element_bytes, rank, swizzle;
    uint32_t extents[5];
    uint64_t strides[4];
    uint32_t box[5];
};
/* The map in memory of the host, 128 bytes. False: what the hardware could not do. */
bool emu_encode_map(void *map, const struct emu_tensor *of);
/* The map in device memory. */
void emu_tensor_map(void *map, const struct emu_tensor *of);

/* ---- launches ---- */

/* Cast any kernel to this: (emu_kernel *)norm. */
typedef void emu_kernel(void);

/* {"norm", (emu_kernel *)norm, NORM_LAUNCH(m, d, 0)} in the words of launch.h. */
struct emu_launch {
    const char *name; /* of the kernel, for reports */
    emu_kernel *kernel;
    uint32_t grid[4]; /* x, y, z; blocks of a cluster, one behind the other along y, or 0: none */
    uint32_t threads, shared_bytes;
    bool dependent; /* may start before its predecessor ends */
    /* How to call `kernel` with `args`; NULL: all parameters are pointers, and args are they. */
    void (*call)(emu_kernel *kernel, void *const args[]);
};

enum { EMU_MAX_ARGS = 16 };

/* Runs the grid to its end. False: a fault, and emu_fault() tells it (only after emu_catch(true);
 * else a fault is printed and ends the program with status 1). */
bool emu_run(const struct emu_launch *launch, void *const args[], int n_args);
/* The same with the parameters spelt out, pointers only. */
#define EMU_RUN(launch, ...)                                                                       \
    emu_run(launch, (void *const[]){__VA_ARGS__},                                                  \
            (int)(sizeof((void *const[]){__VA_ARGS__}) / sizeof(void *)))

void emu_catch(bool catch_faults);
const char *emu_fault(void); /* of the last failed call; "" before any */

/* ---- options, for the launches that follow ---- */

void emu_seed(uint32_t seed);
/* Blocks that are on the machine together, 1..EMU_MAX_RESIDENT; default 2. A kernel whose blocks
 * wait for each other needs as many as its grid. */
enum { EMU_MAX_RESIDENT = 256, EMU_MAX_CLUSTER = 8 };
void emu_resident(int blocks);

/* Since the start of the program. */
uint64_t emu_switches(void);

#endif

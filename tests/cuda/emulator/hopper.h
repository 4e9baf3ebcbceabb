/* hopper.h - what hopper.c (mbarriers, copies) and wgmma.c share, and the tests' tensor maps. */
#ifndef ARCH_EMULATOR_HOPPER_H
#define ARCH_EMULATOR_HOPPER_H

#include "internal.h"
#include "device_sm90.h"

/* Shared memory's first address as the 18 bits of a descriptor have it. */
enum { SHARED_FIRST = 1024, MAX_PIECES = 256, MAX_MAPS = 8 };

u32 shared_number(const void *p, void *pc);
u8 *shared_pointer(u32 number, u32 bytes, void *pc);
/* The 16-byte pieces of rows of `width` bytes change places with the address bits above them. */
u32 swizzle(u32 number, u32 width);

/* What a thread has under way: stores from shared memory, and products (of its warp group). */
struct store {
    u8 *to;
    const u8 *from;
    u32 bytes, group;
    bool read; /* shared memory was read */
    u8 copy[16];
};

struct product {
    float *sums;     /* of this thread, n / 2 */
    const u32 *held; /* its registers of A, or NULL */
    u32 values[4];   /* of them, when the product began */
    u64 a, b;
    u32 n, batch;
    bool add, a_across, across;
    void *pc;
};

struct products {
    struct product *list;
    u32 n, room, batch;
    bool fenced;
    struct store *stores;
    u32 n_stores, store_room, group;
    const tensor_map *maps[MAX_MAPS]; /* acquired */
    u32 n_maps;
};

struct products *products_of(struct emu_thread *t, void *pc);

#endif

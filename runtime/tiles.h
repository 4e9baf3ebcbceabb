/* tiles.h - leave to use the tile unit of x86 (AMX). */
#ifndef ARCHRT_TILES_H
#define ARCHRT_TILES_H

#include <stdbool.h>

#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* Asks the kernel for the tile registers' place in this process; threads that start later have it
 * too. False: the processor has no tile unit, or the kernel does not give it. */
static inline bool tiles_allow(void)
{
#if defined(__x86_64__) && defined(__linux__)
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; /* arch_prctl(2), XSAVE component */
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
    return false;
#endif
}
#endif

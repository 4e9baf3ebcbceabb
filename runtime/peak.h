/* peak.h - what this machine can do, measured from inside the program by its own team of threads:
 * the ceilings that bench, train and generate quote fractions of. */
#ifndef ARCHRT_PEAK_H
#define ARCHRT_PEAK_H

#include <stdbool.h>
#include <stddef.h>

struct peak {
    const char *isa; /* widest vectors found: "AVX-512", "AVX2", "SSE2", "NEON", "128-bit" */
    int threads;
    double flops;       /* fp32 multiply-adds, two operations each, all threads together, 1/s */
    double products;    /* the same of the unit that does the program's matrix products */
    double read;        /* bytes/s of reading `working_set` over and over */
    size_t working_set; /* bytes */
    double read_memory; /* bytes/s of reading a buffer that no cache holds */
    double copy;        /* bytes/s read plus bytes/s written of memcpy between two such buffers */
};

/* All of them run on the team, which must be started with `threads` threads and idle. Each takes
 * the best of several bursts within about `seconds`; 0 where memory for the buffers is missing. */

/* fp32 FLOP/s with every operand in registers, on the widest vectors that this machine has. */
double peak_flops(int threads, double seconds);
/* fp32 FLOP/s of matrix products: peak_flops, or, where the program has them made of bf16 products
 * on the tile unit (kernels/host/amx.h), a sixth of that unit's FLOP/s on random numbers. */
double peak_products(int threads, bool tiles, double seconds);
/* Bytes/s of all threads streaming through `bytes` of memory, each its own contiguous part. */
double peak_read(int threads, size_t bytes, double seconds);
/* Bytes/s, read plus written, of memcpy from one buffer of `bytes` to another. */
double peak_copy(int threads, size_t bytes, double seconds);

/* The lot in about 0.3 s. tiles: as in peak_products; working_set: bytes that the caller's work
 * streams through, such as its packed weights; 0: as read_memory. */
void peak_measure(int threads, bool tiles, size_t working_set, struct peak *out);

#endif

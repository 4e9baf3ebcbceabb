/* standin.h - what the stand-in for cuBLASLt (standin.c) and the emulated device know of each
 * other, and how tests reach into it. */
#ifndef STANDIN_H
#define STANDIN_H

#include <stdbool.h>
#include <stddef.h>

/* The stream that the emulated device hands out. */
struct standin_stream {
    /* Copies `what` and runs work(stream, copy) now, or in each replay of the graph being recorded.
     */
    bool (*queue)(struct standin_stream *, bool (*work)(struct standin_stream *, const void *),
                  const void *what, size_t bytes);
    bool (*read)(void *to, const void *from, size_t bytes); /* of device memory; false: a fault */
    void (*write)(void *to, const void *from, size_t bytes);
};

/* Planted: what a caller might do wrong, done to its arguments in its place. */
enum standin_fault {
    FAULT_NONE,
    FAULT_LD_A, /* the stored matrix's other extent */
    FAULT_LD_B,
    FAULT_BETA, /* 0 */
    FAULT_TRANS_A,
    FAULT_TRANS_B,
    FAULT_BIAS,    /* no epilogue */
    FAULT_COLUMNS, /* the last column of D left out */
    FAULT_TYPE,    /* D as 16-bit numbers where it is fp32 */
    FAULT_START,   /* cublasLtCreate fails */
    FAULTS
};
/* Exported by the library: struct standin_state standin. */
struct standin_state {
    enum standin_fault fault;
    long runs;    /* products computed */
    long columns; /* of the last one's D */
};

#endif

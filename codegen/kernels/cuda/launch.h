/* launch.h - how many blocks and threads, how much shared memory and scratch each kind of kernel
 * takes, as plain C expressions of its shape: read by the kernel files, which thereby agree with
 * their own launch, and by the emitted launch tables (host C).
 *
 *   KIND_LAUNCH(m, n, k)    {blocks x, y, z}, threads, bytes of shared memory     of pass 1;
 *                           {x, y, z, c}: clusters of c blocks, one behind the other along y
 *   KIND_LAUNCH_2(m, n, k)  the same of pass 2, and so on
 *   KIND_SCRATCH(m, n, k)   bytes of scratch in device memory; left out where the kind takes none
 *   KIND_MAPS(m, n, k)      operands that are tensor maps (struct cuda_maps), where any are
 *
 * m, n, k are the kernel's as kernels.def says; HEADS, KV_HEADS, HEAD_DIM, CONTEXT, CUDA_SMS and
 * CUDA_ARCH (80, 86, 89, 90) may be used too. Expressions are at most 2^31 in value, 64-bit where a
 * product may pass that (write (size_t)). */
#ifndef LAUNCH_H
#define LAUNCH_H

/* Multiprocessors of the largest card of each architecture: what grids are cut to. */
#ifndef CUDA_SMS
#define CUDA_SMS                                                                                   \
    (CUDA_ARCH >= 120   ? 188                                                                      \
     : CUDA_ARCH >= 100 ? 148                                                                      \
     : CUDA_ARCH >= 90  ? 132                                                                      \
     : CUDA_ARCH == 89  ? 128                                                                      \
     : CUDA_ARCH >= 86  ? 84                                                                       \
                        : 108)
#endif

#define CEIL_DIV(a, b) (((a) + (b)-1) / (b))

/* Of a bf16 matrix [rows][columns], boxes of `down` rows. */
#define MATRIX_MAP(operand, rows, columns, down)                                                   \
    {                                                                                              \
        operand, 2, {(unsigned)(columns), (unsigned)(rows)},                                       \
            {2 * (unsigned long long)(columns)}, {CUDA_MAP_COLUMNS, down}                          \
    }

#include "launch_decode.h"
#include "launch_prefill.h"
#include "launch_train.h"

/* Kinds whose kernels take scratch but say nothing of it need none. */
#ifndef DECODE_QKV_SCRATCH
#define DECODE_QKV_SCRATCH(m, n, k) 0
#endif
#ifndef DECODE_ATTENTION_SCRATCH
#define DECODE_ATTENTION_SCRATCH(m, n, k) 0
#endif
#ifndef DECODE_RESIDUAL_SCRATCH
#define DECODE_RESIDUAL_SCRATCH(m, n, k) 0
#endif
#ifndef DECODE_GATE_UP_SCRATCH
#define DECODE_GATE_UP_SCRATCH(m, n, k) 0
#endif
#ifndef DECODE_HEAD_SCRATCH
#define DECODE_HEAD_SCRATCH(m, n, k) 0
#endif
#ifndef SAMPLE_SCRATCH
#define SAMPLE_SCRATCH(m, n, k) 0
#endif
#ifndef SKINNY_QKV_SCRATCH
#define SKINNY_QKV_SCRATCH(m, n, k) 0
#endif
#ifndef SKINNY_ATTENTION_SCRATCH
#define SKINNY_ATTENTION_SCRATCH(m, n, k) 0
#endif
#ifndef SKINNY_RESIDUAL_SCRATCH
#define SKINNY_RESIDUAL_SCRATCH(m, n, k) 0
#endif
#ifndef SKINNY_GATE_UP_SCRATCH
#define SKINNY_GATE_UP_SCRATCH(m, n, k) 0
#endif
#ifndef SKINNY_HEAD_SCRATCH
#define SKINNY_HEAD_SCRATCH(m, n, k) 0
#endif
#ifndef EMBED_BACKWARD_SCRATCH
#define EMBED_BACKWARD_SCRATCH(m, n, k) 0
#endif
#ifndef NORM_BACKWARD_SCRATCH
#define NORM_BACKWARD_SCRATCH(m, n, k) 0
#endif
#ifndef MATMUL_DW_SCRATCH
#define MATMUL_DW_SCRATCH(m, n, k) 0
#endif
#ifndef ROPE_BACKWARD_SCRATCH
#define ROPE_BACKWARD_SCRATCH(m, n, k) 0
#endif
#ifndef ATTENTION_BACKWARD_SCRATCH
#define ATTENTION_BACKWARD_SCRATCH(m, n, k) 0
#endif
#ifndef SUM_SQUARES_SCRATCH
#define SUM_SQUARES_SCRATCH(m, n, k) 0
#endif

#endif

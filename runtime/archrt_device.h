/* archrt_device.h - the tables by which an emitted program tells the run-time library what to do on
 * a CUDA device: kernels, launches, operands, images. Pure data: device_run.c walks it.
 *
 * A phase is a list of loops of steps; a step is one kernel with its operands, each a place in a
 * slab of device memory. Nothing in a phase changes from one call to the next, so that a phase can
 * be one CUDA graph: what does change (tokens, positions, learning rate) stands in slabs. */
#ifndef ARCHRT_DEVICE_H
#define ARCHRT_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "archrt_cuda.h"

enum archrt_cuda_kind {
#define ARCHRT_CUDA_KERNEL(kind, file, passes, early, title) ARCHRT_CUDA_##kind,
#include "cuda/kernels.def"
#undef ARCHRT_CUDA_KERNEL
    ARCHRT_CUDA_KINDS
};

/* Device memory: each slab is one allocation. B T tokens of training; CHUNK rows of prefill; SLOTS
 * sequences of decode. */
enum archrt_slab {
    SLAB_NONE,    /* a NULL operand */
    SLAB_WEIGHTS, /* bf16 matrices: the first PARAM_DECAYED elements of the parameter slab */
    SLAB_VECTORS, /* fp32 gains and biases: the rest of it (in training, the end of SLAB_PARAMS) */
    SLAB_ROPE,    /* fp32 [C][E/2][2] */
    SLAB_WORK,    /* activations */
    SLAB_SCRATCH,
    SLAB_COUNTER,
    SLAB_MAPS,   /* tensor maps, one for each place that some step copies boxes of */
    SLAB_TOKEN,  /* int [rows] */
    SLAB_TARGET, /* int [rows], -1: none */
    SLAB_LOSS,   /* fp32 [rows] */
    /* inference */
    SLAB_CACHE, /* bf16 [LAYERS][pool pages][2][K][KV_PAGE][E]; as many pages as the run wants */
    SLAB_PAGES, /* int [SLOTS][PAGES] */
    SLAB_CALL,  /* struct cuda_call */
    SLAB_SLOT,  /* int [rows] */
    SLAB_POSITION,
    SLAB_SEGMENT_ROW, /* int [SEGMENTS + 1] */
    SLAB_HEAD_ROW,    /* int [rows] */
    SLAB_NEXT,        /* int [SLOTS] the token to be fed next */
    SLAB_LENGTH,      /* int [SLOTS] tokens in the cache */
    SLAB_OUTPUT,      /* int [SLOTS][C] tokens chosen, by position */
    SLAB_SAMPLING,    /* struct cuda_sampling [SLOTS] */
    /* training */
    SLAB_PARAMS, /* fp32 */
    SLAB_GRADS,
    SLAB_OLD_GRADS, /* the same, or NULL where a step's first micro-batch overwrites them */
    SLAB_MOMENT1,
    SLAB_MOMENT2,
    SLAB_STEP, /* struct cuda_train */
    SLAB_COUNT
};

/* Bytes into a slab: at + layer * (number of the layer) + chunk * (turn of the loop over chunks).
 * Of SLAB_CACHE, `layer` is the bytes of one page of one layer: times the pool's pages. */
struct archrt_operand {
    enum archrt_slab slab;
    size_t at, layer, chunk;
};

enum { ARCHRT_MAX_OPERANDS = 15, ARCHRT_MAX_PASSES = 5 };
struct archrt_step {
    int kernel; /* index into the kernels */
    int n;      /* operands */
    struct archrt_operand operands[ARCHRT_MAX_OPERANDS];
};

enum archrt_loop_kind {
    ARCHRT_ONCE,
    ARCHRT_LAYERS,          /* first to last */
    ARCHRT_LAYERS_REVERSED, /* last to first */
    ARCHRT_CHUNKS           /* of rows whose logits exist at once */
};
enum archrt_when {
    ARCHRT_ALWAYS,
    ARCHRT_SCORED, /* where log-probabilities of targets are wanted */
    ARCHRT_LOGITS  /* where the logits behind some rows are */
};
struct archrt_loop {
    enum archrt_loop_kind kind;
    enum archrt_when when;
    int turns;
    const struct archrt_step *steps;
    int n;
};

enum archrt_phase_id {
    ARCHRT_PHASE_TRAIN, /* forward and backward of a micro-batch; gradients accumulate */
    ARCHRT_PHASE_EVAL,
    ARCHRT_PHASE_PREFILL,
    ARCHRT_PHASE_DECODE, /* one slot, one token */
    ARCHRT_PHASE_UPDATE, /* norm, clipping, AdamW */
    ARCHRT_PHASE_BATCH,  /* decode of all slots; empty where there is one */
    ARCHRT_PHASES
};
struct archrt_phase {
    const struct archrt_loop *loops;
    int n;
    /* Seconds behind `past` cached tokens, at least and expected, and what one more of those adds.
     * 0: not priced. */
    double past, floor, predicted, floor_a_token, predicted_a_token;
};

/* Of one pass of a kernel. */
struct archrt_launch {
    unsigned grid[4]; /* x, y, z; blocks of a cluster, one behind the other along y, or 0: none */
    unsigned threads, shared; /* no threads: a pass that this architecture has no use for */
};
struct archrt_launches {
    struct archrt_launch pass[ARCHRT_MAX_PASSES];
    size_t scratch;        /* bytes */
    struct cuda_maps maps; /* operands that are tensor maps on this architecture */
};

enum archrt_cuda_flag {
    ARCHRT_CUDA_WITH_BIAS = 1,
    ARCHRT_CUDA_WITH_RESIDUAL = 2,
    ARCHRT_CUDA_ACCUMULATES = 4,
    ARCHRT_CUDA_WITH_SWIGLU = 8,
    ARCHRT_CUDA_WITH_HEAD_NORM = 16,
    ARCHRT_CUDA_TO_F32 = 32
};
struct archrt_cuda_kernel {
    enum archrt_cuda_kind kind;
    const char *name, *phase; /* "train", "prefill", "decode", "batch" */
    int unit, passes;
    bool early; /* may start before its predecessor ends */
    int64_t m, n, k;
    unsigned flags;          /* enum archrt_cuda_flag */
    int times;               /* calls in its phase */
    double flops, bytes;     /* of one call */
    double floor, predicted; /* s of one call, at least and expected; 0: not priced */
    /* What one more cached token adds to a call behind its phase's `past`. */
    struct {
        double flops, bytes, floor, predicted;
    } a_token;
};

/* What was compiled for one architecture: an image for each unit, and the launches of each kernel.
 * An image is a cubin, or PTX for the driver to compile: zero-terminated text. */
struct archrt_image {
    const char *data, *end;
};
struct archrt_cuda_target {
    const char *name;                       /* "sm_90a" */
    int sm;                                 /* 90 */
    bool exact;                             /* "a": for this architecture and no later one */
    const struct archrt_image *images;      /* one a unit */
    const struct archrt_launches *launches; /* of each kernel */
};

struct archrt_cuda {
    const char *options;   /* "specialised, bf16, 64 slots, tuned for 132 processors" */
    const char *priced_on; /* the device that times are predicted for, or NULL */
    const struct archrt_cuda_target *targets;
    int n_targets;
    const char *const *units; /* names, for messages */
    int n_units;
    const struct archrt_cuda_kernel *kernels;
    int n_kernels;
    struct archrt_phase phases[ARCHRT_PHASES];
    /* Seconds that a micro-batch which adds to gradients takes beyond a step's first one. */
    double floor_adding, predicted_adding;
    size_t train_bytes[SLAB_COUNT], infer_bytes[SLAB_COUNT]; /* 0: not needed, or SLAB_CACHE */
    int64_t param_floats, param_decayed, param_table; /* archrt_cuda.h: cuda_adamw_fn */
    int layers, batch, sequence, chunk, slots, segments;
    int slot_pages;    /* PAGES: of a slot at most */
    int pool_pages;    /* that the spec's serving load wants, all slots together */
    int prompt, generate; /* tokens of that load a slot; 0 where the spec has none */
    double serve_predicted; /* generated tokens/s of that load, 0 where it is not known */
    size_t page_bytes; /* of one page of one layer */
    size_t logits_at;  /* bytes into SLAB_WORK: logits of prefill, decode and batch */
    size_t decode_logits_at, batch_logits_at;
};

#endif

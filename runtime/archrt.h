/* archrt.h - the run-time library's only public header: what an emitted program and libarchrt.a
 * know of each other. The emitted side defines one `struct archrt_model`; main() is the library's.
 *
 * All sizes are in elements unless they say bytes. Row-major everywhere. Slabs are 64-byte aligned,
 * owned by the runtime, allocated once. Functions with a `tid` are called by all `threads` threads
 * of the team at once and meet in team_barrier(); everything else is called by one thread. */
#ifndef ARCHRT_H
#define ARCHRT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ARCHRT_ABI = 2 };

/* The architecture, for `info`, config.json, RoPE tables and the plain reference. */
struct archrt_arch {
    const char *name; /* of the model in the .arch file */
    int layers, d_model, heads, kv_heads, head_dim, d_ff, vocab, context;
    bool tied, qkv_bias, qk_norm;
    float norm_eps;
    double rope_theta, rope_factor /* 0: none */, rope_low, rope_high, rope_original;
};

/* One parameter tensor by its Hugging Face name: a view of the parameter slab. */
struct archrt_tensor {
    const char *name; /* "model.layers.0.self_attn.q_proj.weight" */
    int rank;         /* 1 or 2 */
    int64_t shape[2];
    size_t offset; /* floats into the parameter slab; gradients and moments use the same */
    bool decay;    /* weight decay applies (matrices) */
    float
        init; /* standard deviation of the initial normal; 1 for gains means constant 1: see gain */
    bool gain; /* initialised to 1 (norms); biases: init 0 */
};

/* Defaults from the spec's train {} block; the command line overrides them. */
struct archrt_hyper {
    double lr, warmup /* steps */, weight_decay, clip, beta1, beta2, eps;
    double tokens; /* of the spec; 0: not given */
    int accumulate;
};

/* What kind of call a kernel of the table is: verify and bench know how to make inputs, run the
 * plain reference and count for each. One row per kernel in codegen/kernels.def. */
enum archrt_kernel_kind {
#define ARCHRT_KERNEL(kind, file, title) ARCHRT_##kind,
#include "kernels.def"
#undef ARCHRT_KERNEL
    ARCHRT_KERNEL_KINDS
};

/* A kernel's literal macros (MM_BIAS, MV_NORM, ...): which operands it reads. HEAD_NORM is qk_norm.
 */
enum archrt_kernel_flag {
    ARCHRT_BIAS = 1,
    ARCHRT_RESIDUAL = 2,
    ARCHRT_ACCUMULATE = 4,
    ARCHRT_WITH_NORM = 8,
    ARCHRT_WITH_SWIGLU = 16,
    ARCHRT_HALVES = 32 /* of none: verify's, inputs are numbers that bf16 has */
};

/* One specialised kernel of this program. `m` is the largest number of rows it takes. */
struct archrt_kernel {
    enum archrt_kernel_kind kind;
    const char *name;  /* "qkv_forward" */
    const char *phase; /* "train", "prefill", "decode" */
    int m, n, k;       /* the shape, as the kind reads it (kernels.def) */
    int weights;       /* enum archrt_dtype of the weights it streams */
    int times;         /* calls a phase makes of it (layers, or 1) */
    double flops,
        bytes; /* of one call at m rows; attention in decode: at context/2 cached tokens */
    void (*function)(void); /* cast to the kind's prototype, archrt_kernels.h */
    int flags;              /* enum archrt_kernel_flag */
    size_t scratch_bytes;   /* of its scratch argument; 0: within work_bytes or infer_work_bytes */
    /* Kinds that read packed weights (EMBED_ROW, PREFILL_MATMUL, MATVEC): w[n][k] (EMBED_ROW:
     * [vocab][n]) into packed_bytes at dst, by the whole team. */
    size_t packed_bytes;
    void (*pack)(void *dst, const float *w, int tid);
};

enum archrt_dtype { ARCHRT_F32, ARCHRT_BF16, ARCHRT_I8 };

/* One micro-batch of training. Rows are b * T + t. */
struct archrt_train {
    const float *params;
    float *grads;          /* accumulated into */
    void *work;            /* work_bytes */
    const int32_t *token;  /* [B T] */
    const int32_t *target; /* [B T], -1: no loss there */
    float grad_scale;      /* dloss of one target: 1 / (targets of the whole step) */
    float *loss;           /* [B T] out: -log p(target), 0 where target is -1 */
    const float *rope;     /* [C][E/2][2] cos, sin */
};

struct archrt_adamw {
    float *params, *grads, *m, *v; /* grads are cleared */
    float lr, beta1, beta2, eps, weight_decay, grad_scale /* clipping */;
    float correction1, correction2; /* 1 - beta^step */
};

/* One sequence being generated: cache and scratch. Zero `past` to start over. */
struct archrt_infer {
    const void *weights; /* as `pack` laid them out */
    void *cache;         /* cache_bytes */
    void *work;          /* infer_work_bytes */
    const float *rope;
    int past; /* tokens in the cache; the caller adds what it fed */
};

struct archrt_cuda;
struct archrt_model {
    int abi;             /* ARCHRT_ABI */
    const char *source;  /* "quickstart.arch:7" */
    const char *options; /* "specialised, int8 weights, 2 threads" */
    bool generic;        /* built with --generic */
    bool tiles;          /* host products use the tile unit of x86 (kernels/host/amx.h) */
    struct archrt_arch arch;
    struct archrt_hyper hyper;
    const struct archrt_tensor *tensors;
    int n_tensors;
    size_t param_floats; /* of the slab, padding included */
    int64_t params, total_params;
    int threads;
    double predicted_train, predicted_prefill, predicted_decode; /* tokens/s; 0: not priced */

    /* training: B x T fixed */
    int batch, sequence;
    size_t work_bytes;
    void (*train)(const struct archrt_train *, int tid); /* forward and backward */
    void (*eval)(const struct archrt_train *, int tid);  /* forward: fills loss only */
    void (*adamw)(const struct archrt_adamw *, int tid);
    double (*sum_squares)(const float *x,
                          int tid); /* of param_floats; same value on every thread */

    /* inference: weights of type `weights`, one sequence */
    int weights; /* enum archrt_dtype */
    int chunk;   /* tokens a prefill call takes at most */
    size_t weight_bytes, cache_bytes, infer_work_bytes;
    void (*pack)(void *weights, const float *params, int tid);
    /* n tokens behind s->past. logits: [V] of the last token, or NULL. logprobs: [n], log
     * p(target[i] | token[0..i]), or NULL. top: reserved. */
    void (*prefill)(const struct archrt_infer *s, const int32_t *token, int n, float *logits,
                    const int32_t *target, float *logprobs, int tid);
    void (*decode)(const struct archrt_infer *s, int32_t token, float *logits, int tid);

    const struct archrt_kernel *kernels;
    int n_kernels;
    const struct archrt_cuda *cuda; /* archrt_device.h; NULL: the host alone */
};

extern const struct archrt_model archrt_model; /* defined by the emitted program */

/* Runs work(arg, tid) on all threads of the team, the caller being tid 0. Not reentrant. */
void team_start(int threads);
void team_run(void (*work)(void *arg, int tid), void *arg);
void team_barrier(int tid);
void team_stop(void);

#endif

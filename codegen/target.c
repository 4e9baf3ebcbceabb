/* target.c - what each target can fuse, and its walk over the plan. */
#include "plan.h"

#include <string.h>

enum {
    TRAIN = 1 << SCHEDULE_TRAIN | 1 << SCHEDULE_EVAL,
    PREFILL = 1 << SCHEDULE_PREFILL,
    DECODE = 1 << SCHEDULE_DECODE,
    UPDATE = 1 << SCHEDULE_UPDATE,
    BATCH = 1 << SCHEDULE_BATCH
};

#define MUST(kind)                                                                                 \
    {                                                                                              \
        OP_##kind, false                                                                           \
    }
#define MAY(kind)                                                                                  \
    {                                                                                              \
        OP_##kind, true                                                                            \
    }

/* The host: in training, products take bias and residual with them; in decode a layer is five
 * kernels, each norm computed by every thread for itself inside the product behind it. */
static const struct fusion host_fusions[] = {
    {KERNEL_MATVEC, DECODE, 0, {MUST(NORM), MUST(MATMUL), MUST(SWIGLU)}, 3},
    {KERNEL_MATVEC, DECODE, 0, {MUST(NORM), MUST(MATMUL), MAY(BIAS)}, 3},
    {KERNEL_MATVEC, PREFILL, 1, {MUST(NORM), MUST(MATMUL)}, 2},
    {KERNEL_MATVEC, DECODE, 0, {MUST(MATMUL), MUST(ADD)}, 2},
    {KERNEL_DECODE_ATTENTION,
     DECODE,
     0,
     {MAY(HEAD_NORM), MUST(ROPE), MUST(KV_WRITE), MUST(ATTENTION)},
     4},
    {KERNEL_EMBED_ROW, PREFILL | DECODE, 0, {MUST(EMBED)}, 1},
    {KERNEL_PREFILL_MATMUL, PREFILL, 0, {MUST(MATMUL), MAY(BIAS), MAY(ADD)}, 3},
    {KERNEL_PREFILL_ROPE, PREFILL, 0, {MAY(HEAD_NORM), MUST(ROPE), MUST(KV_WRITE)}, 3},
    {KERNEL_PREFILL_ATTENTION, PREFILL, 0, {MUST(ATTENTION)}, 1},
    {KERNEL_EMBED, TRAIN, 0, {MUST(EMBED)}, 1},
    {KERNEL_NORM, TRAIN | PREFILL, 0, {MUST(NORM)}, 1},
    {KERNEL_MATMUL, TRAIN, 0, {MUST(MATMUL), MAY(BIAS), MAY(ADD)}, 3},
    {KERNEL_ROPE, TRAIN, 0, {MAY(HEAD_NORM), MUST(ROPE)}, 2},
    {KERNEL_ATTENTION, TRAIN, 0, {MUST(ATTENTION)}, 1},
    {KERNEL_SWIGLU, TRAIN | PREFILL, 0, {MUST(SWIGLU)}, 1},
    {KERNEL_LOSS, TRAIN | PREFILL, 0, {MUST(LOSS)}, 1},
    {KERNEL_MATMUL_DX, TRAIN, 0, {MUST(MATMUL_DX)}, 1},
    {KERNEL_MATMUL_DW, TRAIN, 0, {MUST(MATMUL_DW), MAY(BIAS_BW)}, 2},
    {KERNEL_NORM_BACKWARD, TRAIN, 0, {MUST(NORM_BW)}, 1},
    {KERNEL_SWIGLU_BACKWARD, TRAIN, 0, {MUST(SWIGLU_BW)}, 1},
    {KERNEL_ATTENTION_BACKWARD, TRAIN, 0, {MUST(ATTENTION_BW)}, 1},
    {KERNEL_ROPE_BACKWARD, TRAIN, 0, {MUST(ROPE_BW), MAY(HEAD_NORM_BW)}, 2},
    {KERNEL_EMBED_BACKWARD, TRAIN, 0, {MUST(EMBED_BW)}, 1},
    {KERNEL_SUM_SQUARES, 1 << SCHEDULE_UPDATE, 0, {MUST(GRAD_NORM)}, 1},
    {KERNEL_ADAMW, 1 << SCHEDULE_UPDATE, 0, {MUST(ADAMW)}, 1},
};

/* CUDA: in decode a layer is five kernels, of one kind up to 8 rows and of another above. */
static const struct fusion cuda_fusions[] = {
    {CUDA_DECODE_QKV,
     DECODE | BATCH,
     8,
     {MUST(NORM), MUST(MATMUL), MAY(BIAS), MAY(HEAD_NORM), MUST(ROPE), MUST(KV_WRITE)},
     6},
    {CUDA_DECODE_ATTENTION, DECODE | BATCH, 8, {MUST(ATTENTION)}, 1},
    {CUDA_DECODE_RESIDUAL, DECODE | BATCH, 8, {MUST(MATMUL), MUST(ADD)}, 2},
    {CUDA_DECODE_GATE_UP, DECODE | BATCH, 8, {MUST(NORM), MUST(MATMUL), MUST(SWIGLU)}, 3},
    {CUDA_DECODE_HEAD, DECODE | BATCH | PREFILL, 8, {MUST(NORM), MUST(MATMUL)}, 2},
    {CUDA_SKINNY_QKV,
     BATCH,
     0,
     {MUST(NORM), MUST(MATMUL), MAY(BIAS), MAY(HEAD_NORM), MUST(ROPE), MUST(KV_WRITE)},
     6},
    {CUDA_SKINNY_ATTENTION, BATCH, 0, {MUST(ATTENTION)}, 1},
    {CUDA_SKINNY_RESIDUAL, BATCH, 0, {MUST(MATMUL), MUST(ADD)}, 2},
    {CUDA_SKINNY_GATE_UP, BATCH, 0, {MUST(NORM), MUST(MATMUL), MUST(SWIGLU)}, 3},
    {CUDA_SKINNY_HEAD, BATCH, 0, {MUST(NORM), MUST(MATMUL)}, 2},
    {CUDA_DECODE_EMBED, DECODE | BATCH, 0, {MUST(EMBED)}, 1},
    {CUDA_SAMPLE, DECODE | BATCH | PREFILL, 0, {MUST(SAMPLE)}, 1},
    {CUDA_PREFILL_ROPE, PREFILL, 0, {MAY(HEAD_NORM), MUST(ROPE), MUST(KV_WRITE)}, 3},
    {CUDA_PREFILL_ATTENTION, PREFILL, 0, {MUST(ATTENTION)}, 1},
    {CUDA_MATMUL, PREFILL, 0, {MUST(MATMUL), MUST(SWIGLU)}, 2},
    {CUDA_HEAD_LOSS, TRAIN | PREFILL, 0, {MUST(MATMUL), MUST(HEAD_LOSS)}, 2},
    {CUDA_HEAD_SOFTMAX, TRAIN, 0, {MUST(MATMUL), MUST(LOSS)}, 2},
    {CUDA_HEAD_GRADIENT, TRAIN, 0, {MUST(MATMUL), MUST(LOSS_BW)}, 2},
    {CUDA_EMBED, TRAIN | PREFILL, 0, {MUST(EMBED)}, 1},
    {CUDA_NORM, TRAIN | PREFILL, 0, {MUST(NORM)}, 1},
    {CUDA_MATMUL, TRAIN | PREFILL, 0, {MUST(MATMUL), MAY(BIAS), MAY(ADD)}, 3},
    {CUDA_ROPE, TRAIN, 0, {MAY(HEAD_NORM), MUST(ROPE)}, 2},
    {CUDA_ATTENTION, TRAIN, 0, {MUST(ATTENTION)}, 1},
    {CUDA_SWIGLU, TRAIN, 0, {MUST(SWIGLU)}, 1},
    {CUDA_MATMUL_DX, TRAIN, 0, {MUST(MATMUL_DX)}, 1},
    {CUDA_MATMUL_DW, TRAIN, 0, {MUST(MATMUL_DW), MAY(BIAS_BW)}, 2},
    {CUDA_NORM_BACKWARD, TRAIN, 0, {MUST(NORM_BW)}, 1},
    {CUDA_SWIGLU_BACKWARD, TRAIN, 0, {MUST(SWIGLU_BW)}, 1},
    {CUDA_ATTENTION_BACKWARD, TRAIN, 0, {MUST(ATTENTION_BW)}, 1},
    {CUDA_ROPE_BACKWARD, TRAIN, 0, {MUST(ROPE_BW), MAY(HEAD_NORM_BW)}, 2},
    {CUDA_EMBED_BACKWARD, TRAIN, 0, {MUST(EMBED_BW)}, 1},
    {CUDA_SUM_SQUARES, UPDATE, 0, {MUST(GRAD_NORM)}, 1},
    {CUDA_ADAMW, UPDATE, 0, {MUST(ADAMW)}, 1},
};

static void emit_nothing(const struct plan *p, const struct model_spec *m, const char *source,
                         struct emitted_files *out)
{
    (void)p;
    (void)m;
    (void)source;
    (void)out;
}

enum {
    HOST_FUSIONS = sizeof host_fusions / sizeof host_fusions[0],
    CUDA_FUSIONS = sizeof cuda_fusions / sizeof cuda_fusions[0]
};

/* `null` plans as the host does and emits nothing: what remains is the plan alone. */
static const struct target targets[] = {
    {.name = "host",
     .fusions = host_fusions,
     .n_fusions = HOST_FUSIONS,
     .builds = true,
     .bind = host_bind,
     .emit = emit_host},
    {.name = "null",
     .fusions = host_fusions,
     .n_fusions = HOST_FUSIONS,
     .bind = host_bind,
     .emit = emit_nothing},
    {.name = "cuda",
     .fusions = cuda_fusions,
     .n_fusions = CUDA_FUSIONS,
     .builds = true,
     .launches = true,
     .set_extents = cuda_set_extents,
     .declare = cuda_declare,
     .bind = cuda_bind,
     .refuses = cuda_refuses,
     .emit = emit_cuda},
};

const struct target *target_find(const char *name)
{
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++)
        if (strcmp(targets[i].name, name) == 0)
            return &targets[i];
    return NULL;
}

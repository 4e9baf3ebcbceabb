/* target.c - what each target can fuse, and its walk over the plan. */
#include "codegen.h"

#include <string.h>

enum {
    TRAIN = 1 << SCHEDULE_TRAIN | 1 << SCHEDULE_EVAL,
    PREFILL = 1 << SCHEDULE_PREFILL,
    DECODE = 1 << SCHEDULE_DECODE,
    UPDATE = 1 << SCHEDULE_UPDATE
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
    {KERNEL_MATVEC, DECODE, false, {MUST(NORM), MUST(MATMUL), MUST(SWIGLU)}, 3},
    {KERNEL_MATVEC, DECODE, false, {MUST(NORM), MUST(MATMUL), MAY(BIAS)}, 3},
    {KERNEL_MATVEC, PREFILL, true, {MUST(NORM), MUST(MATMUL)}, 2},
    {KERNEL_MATVEC, DECODE, false, {MUST(MATMUL), MUST(ADD)}, 2},
    {KERNEL_DECODE_ATTENTION,
     DECODE,
     false,
     {MAY(HEAD_NORM), MUST(ROPE), MUST(KV_WRITE), MUST(ATTENTION)},
     4},
    {KERNEL_EMBED_ROW, PREFILL | DECODE, false, {MUST(EMBED)}, 1},
    {KERNEL_PREFILL_MATMUL, PREFILL, false, {MUST(MATMUL), MAY(BIAS), MAY(ADD)}, 3},
    {KERNEL_PREFILL_ROPE, PREFILL, false, {MAY(HEAD_NORM), MUST(ROPE), MUST(KV_WRITE)}, 3},
    {KERNEL_PREFILL_ATTENTION, PREFILL, false, {MUST(ATTENTION)}, 1},
    {KERNEL_EMBED, TRAIN, false, {MUST(EMBED)}, 1},
    {KERNEL_NORM, TRAIN | PREFILL, false, {MUST(NORM)}, 1},
    {KERNEL_MATMUL, TRAIN, false, {MUST(MATMUL), MAY(BIAS), MAY(ADD)}, 3},
    {KERNEL_ROPE, TRAIN, false, {MAY(HEAD_NORM), MUST(ROPE)}, 2},
    {KERNEL_ATTENTION, TRAIN, false, {MUST(ATTENTION)}, 1},
    {KERNEL_SWIGLU, TRAIN | PREFILL, false, {MUST(SWIGLU)}, 1},
    {KERNEL_LOSS, TRAIN | PREFILL, false, {MUST(LOSS)}, 1},
    {KERNEL_MATMUL_DX, TRAIN, false, {MUST(MATMUL_DX)}, 1},
    {KERNEL_MATMUL_DW, TRAIN, false, {MUST(MATMUL_DW), MAY(BIAS_BW)}, 2},
    {KERNEL_NORM_BACKWARD, TRAIN, false, {MUST(NORM_BW)}, 1},
    {KERNEL_SWIGLU_BACKWARD, TRAIN, false, {MUST(SWIGLU_BW)}, 1},
    {KERNEL_ATTENTION_BACKWARD, TRAIN, false, {MUST(ATTENTION_BW)}, 1},
    {KERNEL_ROPE_BACKWARD, TRAIN, false, {MUST(ROPE_BW), MAY(HEAD_NORM_BW)}, 2},
    {KERNEL_EMBED_BACKWARD, TRAIN, false, {MUST(EMBED_BW)}, 1},
    {KERNEL_SUM_SQUARES, 1 << SCHEDULE_UPDATE, false, {MUST(GRAD_NORM)}, 1},
    {KERNEL_ADAMW, 1 << SCHEDULE_UPDATE, false, {MUST(ADAMW)}, 1},
};

static void emit_nothing(const struct plan *p, const struct model_spec *m, const char *source,
                         struct emitted_files *out)
{
    (void)p;
    (void)m;
    (void)source;
    out->n = 0;
}

enum { HOST_FUSIONS = sizeof host_fusions / sizeof host_fusions[0] };

/* `null` plans as the host does and emits nothing: what remains is the plan alone. */
static const struct target targets[] = {
    {"host", host_fusions, HOST_FUSIONS, true, emit_host},
    {"null", host_fusions, HOST_FUSIONS, false, emit_nothing},
};

const struct target *target_find(const char *name)
{
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++)
        if (strcmp(targets[i].name, name) == 0)
            return &targets[i];
    return NULL;
}

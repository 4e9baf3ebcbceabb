/* plan_host.c - the operands of the host's kernels, in the order of their prototypes
 * (runtime/archrt_kernels.h). */
#include "plan.h"

static void bind_sums(struct binding *b)
{
    bind_operand(b, OPERAND_SUMS, 0, AT_WHOLE, true);
}

static void bind_matmul(struct binding *b)
{
    struct step *s = b->step;
    const struct op *add = find_kind(s, OP_ADD), *matmul = find_kind(s, OP_MATMUL);
    bind_value(b, s->fused[s->n_fused - 1]->out, true);
    bind_value(b, matmul->in[0], false);
    bind_weight(b, OPERAND_WEIGHT, matmul->weight);
    bind_weight(b, OPERAND_WEIGHT, weight_of(find_kind(s, OP_BIAS)));
    if (add)
        bind_value(b, add->in[1], false);
    else
        bind_none(b);
    bind_plain(b, b->id == SCHEDULE_PREFILL ? OPERAND_SCRATCH : OPERAND_BLOCKS);
    bind_plain(b, OPERAND_ROWS);
}

static void bind_matvec(struct binding *b)
{
    struct step *s = b->step;
    const struct op *add = find_kind(s, OP_ADD), *norm = find_kind(s, OP_NORM);
    const struct op *matmul = find_kind(s, OP_MATMUL);
    if (s->fused[s->n_fused - 1]->out == VALUE_LOGITS)
        bind_operand(b, OPERAND_LOGITS, 0, AT_WHOLE, true);
    else
        bind_value(b, s->fused[s->n_fused - 1]->out, true);
    bind_value(b, s->fused[0]->in[0], false);
    bind_weight(b, OPERAND_WEIGHT, matmul->weight);
    bind_weight(b, OPERAND_WEIGHT, weight_of(norm));
    bind_weight(b, OPERAND_WEIGHT, weight_of(find_kind(s, OP_BIAS)));
    if (add)
        bind_value(b, add->in[1], false);
    else
        bind_none(b);
    bind_plain(b, OPERAND_SCRATCH);
}

static void bind_norm(struct binding *b)
{
    const struct op *op = b->step->fused[0];
    bind_value(b, op->out, true);
    if (b->id == SCHEDULE_TRAIN)
        bind_buffer(b, rstd_buffer(op->weight), true);
    else
        bind_none(b);
    bind_value(b, op->in[0], false);
    bind_weight(b, OPERAND_WEIGHT, op->weight);
    bind_plain(b, OPERAND_ROWS);
}

static void bind_norm_backward(struct binding *b)
{
    const struct op *op = b->step->fused[0];
    bind_gradient(b, op->out, true);
    bind_weight(b, OPERAND_GRADIENT, op->weight);
    bind_gradient(b, op->in[0], false);
    bind_value(b, op->in[1], false);
    bind_buffer(b, rstd_buffer(op->weight), false);
    bind_weight(b, OPERAND_WEIGHT, op->weight);
    bind_sums(b);
}

static void bind_cached_rope(struct binding *b)
{
    bind_value(b, VALUE_ROPE, true);
    bind_operand(b, OPERAND_CACHE, 0, AT_LAYER, true);
    bind_weight(b, OPERAND_WEIGHT, weight_of(find_kind(b->step, OP_HEAD_NORM)));
    bind_plain(b, OPERAND_ROPE);
}

void host_bind(struct binding *b, enum kernel_kind kind)
{
    const struct op *op = b->step->fused[0];
    switch (kind) {
    case KERNEL_EMBED:
    case KERNEL_EMBED_ROW:
        bind_value(b, VALUE_X, true);
        bind_weight(b, OPERAND_WEIGHT, WEIGHT_EMBED);
        bind_plain(b, OPERAND_TOKENS);
        if (kind == KERNEL_EMBED_ROW)
            bind_plain(b, OPERAND_ROWS);
        break;
    case KERNEL_EMBED_BACKWARD:
        bind_weight(b, OPERAND_GRADIENT, WEIGHT_EMBED);
        bind_gradient(b, VALUE_X, false);
        bind_plain(b, OPERAND_TOKENS);
        break;
    case KERNEL_NORM:
        bind_norm(b);
        break;
    case KERNEL_NORM_BACKWARD:
        bind_norm_backward(b);
        break;
    case KERNEL_MATMUL:
    case KERNEL_PREFILL_MATMUL:
        bind_matmul(b);
        break;
    case KERNEL_MATMUL_DX:
        bind_gradient(b, op->out, true);
        bind_gradient(b, op->in[0], false);
        bind_weight(b, OPERAND_WEIGHT, op->weight);
        bind_plain(b, OPERAND_BLOCKS);
        bind_plain(b, OPERAND_ROWS);
        break;
    case KERNEL_MATMUL_DW:
        op = find_kind(b->step, OP_MATMUL_DW);
        bind_weight(b, OPERAND_GRADIENT, op->weight);
        bind_weight(b, OPERAND_GRADIENT, weight_of(find_kind(b->step, OP_BIAS_BW)));
        bind_gradient(b, op->in[0], false);
        bind_value(b, op->in[1], false);
        bind_plain(b, OPERAND_SCRATCH);
        bind_plain(b, OPERAND_ROWS);
        break;
    case KERNEL_ROPE:
        bind_rope(b);
        break;
    case KERNEL_ROPE_BACKWARD:
        bind_rope_backward(b);
        bind_sums(b);
        break;
    case KERNEL_ATTENTION:
        bind_value(b, VALUE_ATT, true);
        bind_buffer(b, BUFFER_LSE, true);
        bind_value(b, VALUE_ROPE, false);
        bind_plain(b, OPERAND_SCRATCH);
        break;
    case KERNEL_ATTENTION_BACKWARD:
        bind_gradient(b, VALUE_ROPE, true);
        bind_gradient(b, VALUE_ATT, false);
        bind_value(b, VALUE_ATT, false);
        bind_buffer(b, BUFFER_LSE, false);
        bind_value(b, VALUE_ROPE, false);
        bind_plain(b, OPERAND_SCRATCH);
        break;
    case KERNEL_SWIGLU:
        bind_value(b, VALUE_H, true);
        bind_value(b, VALUE_GATE_UP, false);
        bind_plain(b, OPERAND_ROWS);
        break;
    case KERNEL_SWIGLU_BACKWARD:
        bind_gradient(b, VALUE_GATE_UP, true);
        bind_value(b, VALUE_H, true);
        bind_gradient(b, VALUE_H, false);
        bind_value(b, VALUE_GATE_UP, false);
        break;
    case KERNEL_LOSS:
        bind_plain(b, OPERAND_LOSSES);
        bind_value(b, VALUE_LOGITS, true);
        bind_plain(b, OPERAND_TARGETS);
        bind_plain(b, OPERAND_SCALE);
        bind_plain(b, OPERAND_ROWS);
        break;
    case KERNEL_PREFILL_ROPE:
        bind_cached_rope(b);
        bind_plain(b, OPERAND_PAST);
        bind_plain(b, OPERAND_ROWS);
        break;
    case KERNEL_PREFILL_ATTENTION:
        bind_value(b, VALUE_ATT, true);
        bind_value(b, VALUE_ROPE, false);
        bind_operand(b, OPERAND_CACHE, 0, AT_LAYER, false);
        bind_plain(b, OPERAND_SCRATCH);
        bind_plain(b, OPERAND_PAST);
        bind_plain(b, OPERAND_ROWS);
        break;
    case KERNEL_MATVEC:
        bind_matvec(b);
        break;
    case KERNEL_DECODE_ATTENTION:
        bind_value(b, VALUE_ATT, true);
        bind_value(b, VALUE_ROPE, false);
        bind_operand(b, OPERAND_CACHE, 0, AT_LAYER, true);
        bind_weight(b, OPERAND_WEIGHT, weight_of(find_kind(b->step, OP_HEAD_NORM)));
        bind_plain(b, OPERAND_ROPE);
        bind_sums(b);
        bind_plain(b, OPERAND_PAST);
        break;
    default: /* every operand is the caller's */
        break;
    }
}

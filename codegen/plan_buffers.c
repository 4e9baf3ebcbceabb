/* plan_buffers.c - the activation buffers of each schedule: which value lives where, in what shape,
 * what the forward pass keeps for backward and what backward makes again. Where they stand in the
 * workspace is layout.c's. */
#include "plan.h"

static const struct {
    enum extent width, width2;
} value_shape[VALUE_COUNT] = {
    [VALUE_X] = {EXTENT_D_MODEL, EXTENT_NONE},     [VALUE_NORM1] = {EXTENT_D_MODEL, EXTENT_NONE},
    [VALUE_QKV] = {EXTENT_QKV, EXTENT_NONE},       [VALUE_ROPE] = {EXTENT_QKV, EXTENT_NONE},
    [VALUE_ATT] = {EXTENT_DQ, EXTENT_NONE},        [VALUE_X1] = {EXTENT_D_MODEL, EXTENT_NONE},
    [VALUE_NORM2] = {EXTENT_D_MODEL, EXTENT_NONE}, [VALUE_GATE_UP] = {EXTENT_GATE_UP, EXTENT_NONE},
    [VALUE_H] = {EXTENT_D_FF, EXTENT_NONE},        [VALUE_NORMF] = {EXTENT_D_MODEL, EXTENT_NONE},
    [VALUE_LOGITS] = {EXTENT_VOCAB, EXTENT_NONE},
};

static const char *const gradient_names[VALUE_COUNT] = {
    [VALUE_X] = "d_x",     [VALUE_NORM1] = "d_norm1", [VALUE_ROPE] = "d_qkv",
    [VALUE_ATT] = "d_att", [VALUE_NORM2] = "d_norm2", [VALUE_GATE_UP] = "d_gate_up",
    [VALUE_H] = "d_h",     [VALUE_NORMF] = "d_normf",
};

/* Values that live in another's buffer: rotation is in place unless a head norm keeps its input,
 * and in inference, where nothing is kept, always. */
enum value stored_as(const struct plan *p, enum schedule_id id, enum value v)
{
    bool in_place = !p->arch->qk_norm || id == SCHEDULE_PREFILL || id == SCHEDULE_DECODE ||
                    id == SCHEDULE_BATCH;
    return v == VALUE_QKV && in_place ? VALUE_ROPE : v;
}

/* Gradients that share one buffer: the residual stream's, which only accumulates; rotation's and
 * SwiGLU's, which are in place; the logits, which become their own gradient. */
int gradient_buffer(enum value v)
{
    if (v == VALUE_X1)
        v = VALUE_X;
    if (v == VALUE_QKV)
        v = VALUE_ROPE;
    if (v == VALUE_LOGITS)
        return BUFFER_VALUE + VALUE_LOGITS;
    return BUFFER_GRADIENT + (int)v;
}

/* ---- what backward makes again ---- */

int again_buffer(int id)
{
    return id < VALUE_COUNT ? BUFFER_AGAIN + id : BUFFER_AGAIN + VALUE_COUNT + id - BUFFER_RSTD1;
}

/* The operation of the forward pass that writes a buffer of a layer; NULL: none. */
static const struct op *maker_of(const struct plan *p, int id)
{
    const struct op_list *l = &p->lists[PHASE_TRAIN_FORWARD];
    for (int i = 0; i < l->n; i++) {
        const struct op *op = &l->ops[i];
        bool makes = id == BUFFER_LSE         ? op->kind == OP_ATTENTION
                     : id == BUFFER_HEAD_RSTD ? op->kind == OP_HEAD_NORM
                     : id == BUFFER_RSTD1     ? op->weight == WEIGHT_NORM1
                     : id == BUFFER_RSTD2     ? op->weight == WEIGHT_NORM2
                                          : op->out != VALUE_NONE && op->section == SECTION_LAYER &&
                                                (int)stored_as(p, SCHEDULE_TRAIN, op->out) == id;
        if (makes)
            return op;
    }
    return NULL;
}

bool made_again(const struct plan *p, enum schedule_id id, int buffer)
{
    bool value = buffer > VALUE_TOKENS && buffer < VALUE_LOGITS;
    bool statistic = buffer >= BUFFER_RSTD1 && buffer <= BUFFER_LSE && buffer != BUFFER_RSTDF;
    if (id != SCHEDULE_TRAIN || !(value || statistic))
        return false;
    const struct op *op = maker_of(p, buffer);
    return op && op_made_again(p->options.recompute, op);
}

/* The second copies of what is made again: one each, dead when the layer's gradients are done. */
static void declare_again(const struct plan *p, struct schedule *s)
{
    static const char *const names[] = {
        [VALUE_NORM1] = "norm1_again",     [VALUE_QKV] = "qkv_again",
        [VALUE_ROPE] = "rotated_again",    [VALUE_ATT] = "att_again",
        [VALUE_X1] = "x1_again",           [VALUE_NORM2] = "norm2_again",
        [VALUE_GATE_UP] = "gate_up_again", [BUFFER_RSTD1] = "rstd1_again",
        [BUFFER_RSTD2] = "rstd2_again",    [BUFFER_HEAD_RSTD] = "head_rstd_again",
        [BUFFER_LSE] = "lse_again"};
    for (int i = 0; i <= BUFFER_LSE; i++) {
        if (!made_again(p, SCHEDULE_TRAIN, i))
            continue;
        struct buffer *b = &s->buffers[again_buffer(i)];
        s->buffers[i].kept = false;
        *b = s->buffers[i];
        b->name = i == VALUE_ROPE && !p->arch->qk_norm ? "qkv_again" : names[i];
    }
}

/* ---- what there is ---- */

/* What forward keeps for backward: everything that backward reads, but h, which SwiGLU's backward
 * makes again on its way, and the final norm and logits, which stand outside the layers. */
static bool kept(enum value v)
{
    return v == VALUE_X || v == VALUE_NORM1 || v == VALUE_QKV || v == VALUE_ROPE ||
           v == VALUE_ATT || v == VALUE_X1 || v == VALUE_NORM2 || v == VALUE_GATE_UP;
}

enum extent rows_extent(enum schedule_id id)
{
    if (id == SCHEDULE_TRAIN || id == SCHEDULE_EVAL)
        return EXTENT_ROWS;
    return id == SCHEDULE_PREFILL ? EXTENT_CHUNK : id == SCHEDULE_BATCH ? EXTENT_SLOTS : EXTENT_ONE;
}

void declare_buffers(const struct plan *p, enum schedule_id id, struct schedule *s)
{
    enum extent rows = rows_extent(id);
    for (int v = 1; v < VALUE_COUNT; v++) {
        s->buffers[v] = (struct buffer){.name = value_names[v],
                                        .rows = rows,
                                        .width = value_shape[v].width,
                                        .kept = id == SCHEDULE_TRAIN && kept((enum value)v)};
        s->buffers[BUFFER_GRADIENT + v] =
            (struct buffer){.name = gradient_names[v], .rows = rows, .width = value_shape[v].width};
    }
    bool apart = stored_as(p, id, VALUE_QKV) == VALUE_QKV;
    s->buffers[VALUE_ROPE].name = apart ? "rotated" : "qkv";
    if (id == SCHEDULE_TRAIN || id == SCHEDULE_EVAL)
        s->buffers[VALUE_LOGITS].rows = EXTENT_LOSS_ROWS;
    else if (id == SCHEDULE_PREFILL) {
        s->buffers[VALUE_LOGITS].rows = EXTENT_SCORE_ROWS;
        s->buffers[VALUE_NORMF].rows = EXTENT_SCORE_ROWS;
    }
    bool keep = id == SCHEDULE_TRAIN;
    s->buffers[BUFFER_RSTD1] =
        (struct buffer){.name = "rstd1", .rows = rows, .width = EXTENT_ONE, .kept = keep};
    s->buffers[BUFFER_RSTD2] =
        (struct buffer){.name = "rstd2", .rows = rows, .width = EXTENT_ONE, .kept = keep};
    s->buffers[BUFFER_RSTDF] = (struct buffer){.name = "rstdf", .rows = rows, .width = EXTENT_ONE};
    s->buffers[BUFFER_HEAD_RSTD] =
        (struct buffer){.name = "head_rstd", .rows = rows, .width = EXTENT_ALL_HEADS, .kept = keep};
    s->buffers[BUFFER_LSE] =
        (struct buffer){.name = "lse", .rows = rows, .width = EXTENT_HEADS, .kept = keep};
    if (p->target->declare)
        p->target->declare(p, id, s);
    if (id == SCHEDULE_TRAIN)
        declare_again(p, s);
}

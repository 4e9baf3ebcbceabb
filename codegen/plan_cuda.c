/* plan_cuda.c - what is different in the plan of a CUDA program: types of buffers, how much is done
 * at once, the operands of its kernels in the order of their prototypes (runtime/archrt_cuda.h). */
#include "plan.h"

#include <assert.h>

/* ---- what it refuses ---- */

const char *cuda_refuses(struct arena *a, const struct arch *arch)
{
    const struct {
        const char *name;
        int value, step;
    } rows[] = {
        {"d_model", arch->d_model, 8}, {"d_ff", arch->d_ff, 8}, {"head_dim", arch->head_dim, 8}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int low = rows[i].value / rows[i].step * rows[i].step;
        if (low != rows[i].value)
            return arena_printf(a,
                                "%s %d is not a multiple of %d, as 16-byte loads of bf16 rows on a "
                                "GPU want; %d and %d are the nearest",
                                rows[i].name, rows[i].value, rows[i].step, low, low + rows[i].step);
    }
    if (arch->heads / arch->kv_heads > 16)
        return arena_printf(a, "a group of %d query heads: the GPU's kernels take 1 to 16",
                            arch->heads / arch->kv_heads);
    if (arch->head_dim > 256)
        return arena_printf(a, "head_dim %d: the GPU's kernels take at most 256", arch->head_dim);
    return NULL;
}

/* ---- extents and buffers ---- */

/* Prompts that one prefill call takes at most: few, since a call of 2048 tokens holds few prompts.
 */
enum { SEGMENTS = 8 };
/* Powers of logits at once, in bf16: 1 GiB, and rows of them at most, so that the head's weight
 * gradient, which is read and written once a chunk, stays a small part of the chunk's products. */
static const int64_t cuda_logits = 512 << 20;
enum { LOSS_ROWS = 4096 };

/* Rows of decode up to which norms stand in the products behind them, as in target.c. */
enum { STREAM_ROWS = 8 };

/* Of x between kernels of decode: CUDA_TILE_ROWS and so on of archrt_cuda.h, as the emitted table
 * asserts. */
static void set_tiles(struct plan *p)
{
    int64_t *e = p->extents, m = e[EXTENT_SLOTS], d = e[EXTENT_D_MODEL];
    if (m <= STREAM_ROWS)
        return;
    int64_t high = m > 192 ? 256 : (m + 63) / 64 * 64;
    e[EXTENT_TILE_ROWS] = (m + high - 1) / high * high;
    e[EXTENT_TILE_COLUMNS] = (d + 63) / 64 * 64;
    e[EXTENT_SQUARES] = (d + 127) / 128 * 4;
}

void cuda_set_extents(struct plan *p)
{
    int64_t *e = p->extents;
    e[EXTENT_VOCAB] = slab_vocab(p);
    e[EXTENT_SLOTS] = p->options.slots > 1 ? p->options.slots : 1;
    e[EXTENT_SEGMENTS] = SEGMENTS;
    set_tiles(p);
    e[EXTENT_LOSS_ROWS] = loss_rows(e[EXTENT_ROWS], p->arch->vocab, cuda_logits);
    if (e[EXTENT_LOSS_ROWS] > LOSS_ROWS)
        e[EXTENT_LOSS_ROWS] = loss_rows(e[EXTENT_ROWS], 1, LOSS_ROWS);
    e[EXTENT_SCORE_ROWS] = 0; /* scores want no logits */
    if (p->options.logits == LOGITS_NEVER) {
        e[EXTENT_LOSS_ROWS] = 0;
        e[EXTENT_HEAD_TOKENS] = ops_head_tokens(e[EXTENT_TOKENS]);
    }
}

/* The residual stream, its gradient, logits and statistics are fp32; all else is bf16. */
static enum dtype buffer_type(int id)
{
    switch (id) {
    case BUFFER_VALUE + VALUE_X:
    case BUFFER_VALUE + VALUE_X1:
    case BUFFER_VALUE + VALUE_LOGITS:
    case BUFFER_GRADIENT + VALUE_X:
    case BUFFER_RSTD1:
    case BUFFER_RSTD2:
    case BUFFER_RSTDF:
    case BUFFER_HEAD_RSTD:
    case BUFFER_LSE:
    case BUFFER_FACTOR:
    case BUFFER_TOP:
    case BUFFER_SUM:
    case BUFFER_SQUARES:
        return DTYPE_F32;
    default:
        return DTYPE_BF16;
    }
}

void cuda_declare(const struct plan *p, enum schedule_id id, struct schedule *s)
{
    struct buffer *b = s->buffers;
    b[BUFFER_D_X16] = (struct buffer){
        .name = "d_x16", .rows = b[BUFFER_GRADIENT + VALUE_X].rows, .width = EXTENT_D_MODEL};
    bool never = p->options.logits == LOGITS_NEVER;
    b[BUFFER_D_LOGITS] = (struct buffer){.name = "d_logits",
                                         .rows = never ? EXTENT_ROWS : b[VALUE_LOGITS].rows,
                                         .width = never ? EXTENT_HEAD_TOKENS : EXTENT_VOCAB};
    b[BUFFER_FACTOR] = (struct buffer){.name = "factor", .rows = EXTENT_ROWS, .width = EXTENT_ONE};
    b[BUFFER_SCALED] =
        (struct buffer){.name = "scaled", .rows = b[VALUE_LOGITS].rows, .width = EXTENT_D_MODEL};
    b[BUFFER_TOP] = (struct buffer){.name = "top", .rows = EXTENT_ROWS, .width = EXTENT_ONE};
    b[BUFFER_SUM] = (struct buffer){.name = "sum", .rows = EXTENT_ROWS, .width = EXTENT_ONE};
    b[BUFFER_TILES] =
        (struct buffer){.name = "tiles", .rows = EXTENT_TILE_ROWS, .width = EXTENT_TILE_COLUMNS};
    b[BUFFER_SQUARES] =
        (struct buffer){.name = "squares", .rows = EXTENT_SLOTS, .width = EXTENT_SQUARES};
    if (id == SCHEDULE_DECODE || id == SCHEDULE_BATCH) { /* k and v go straight to the cache */
        b[VALUE_ROPE].name = "q";
        b[VALUE_ROPE].width = EXTENT_DQ;
    }
    if (id == SCHEDULE_PREFILL) { /* of the last tokens of prompts; scores have none */
        b[VALUE_LOGITS].rows = EXTENT_SEGMENTS;
        b[VALUE_NORMF].rows = EXTENT_CHUNK;
    }
    for (int i = 0; i < BUFFER_COUNT; i++)
        b[i].type = buffer_type(i);
}

/* ---- operands ---- */

static bool is_training(const struct binding *b)
{
    return b->id == SCHEDULE_TRAIN || b->id == SCHEDULE_EVAL;
}

/* A gradient as products read it: bf16. */
static void bind_half_gradient(struct binding *b, enum value v)
{
    if (v == VALUE_X || v == VALUE_X1)
        bind_buffer(b, BUFFER_D_X16, false);
    else if (v == VALUE_LOGITS)
        bind_buffer(b, BUFFER_D_LOGITS, false);
    else
        bind_gradient(b, v, false);
}

static void bind_written(struct binding *b, enum operand_kind kind)
{
    bind_operand(b, kind, 0, AT_WHOLE, true);
}

/* Training uses all its rows. */
static void bind_call(struct binding *b)
{
    if (is_training(b))
        bind_none(b);
    else
        bind_plain(b, OPERAND_CALL);
}

static void bind_cache(struct binding *b, bool written)
{
    bind_operand(b, OPERAND_CACHE, 0, AT_LAYER, written);
}

static void bind_work(struct binding *b)
{
    bind_plain(b, OPERAND_SCRATCH);
    bind_plain(b, OPERAND_COUNTER);
}

static void bind_cached_rows(struct binding *b)
{
    bind_plain(b, OPERAND_SLOT);
    bind_plain(b, OPERAND_POSITION);
    bind_plain(b, OPERAND_PAGES);
}

/* The same where positions are the slots' lengths: known before the step's first kernel is done. */
static void bind_known_rows(struct binding *b)
{
    bind_plain(b, OPERAND_SLOT);
    bind_plain(b, OPERAND_LENGTH);
    bind_plain(b, OPERAND_PAGES);
}

/* What a kernel of decode of many rows reads of the one that made its x. */
static void bind_handed_on(struct binding *b)
{
    bind_buffer(b, BUFFER_TILES, false);
    bind_buffer(b, BUFFER_SQUARES, false);
}

/* What it leaves for the norm behind x: with its gain, if it is a layer's last kernel that of the
 * next layer, or the final norm's, which stands where one more layer's would (layout.c). */
static void bind_hands_on(struct binding *b, enum value x)
{
    const struct op_list *l = &b->p->slots;
    const struct op *norm = NULL;
    for (int i = 0; i < l->n && !norm; i++)
        if (l->ops[i].kind == OP_NORM && l->ops[i].in[0] == x)
            norm = &l->ops[i];
    assert(norm && norm->section == SECTION_LAYER);
    bool next = b->section == SECTION_LAYER && norm < b->step->fused[0];
    bind_operand(b, OPERAND_WEIGHT, (int)norm->weight,
                 next                          ? AT_NEXT_LAYER
                 : b->section == SECTION_LAYER ? AT_LAYER
                                               : AT_FIRST_LAYER,
                 false);
    bind_buffer(b, BUFFER_TILES, true);
    bind_buffer(b, BUFFER_SQUARES, true);
}

static void bind_decode_qkv(struct binding *b, enum kernel_kind kind)
{
    const struct step *s = b->step;
    const struct op *norm = find_kind(s, OP_NORM);
    bind_value(b, VALUE_ROPE, true);
    bind_cache(b, true);
    bind_value(b, norm->in[0], false);
    bind_weight(b, OPERAND_WEIGHT, find_kind(s, OP_MATMUL)->weight);
    bind_weight(b, OPERAND_WEIGHT, norm->weight);
    bind_weight(b, OPERAND_WEIGHT, weight_of(find_kind(s, OP_BIAS)));
    bind_weight(b, OPERAND_WEIGHT, weight_of(find_kind(s, OP_HEAD_NORM)));
    bind_plain(b, OPERAND_ROPE);
    bind_known_rows(b);
    bind_work(b);
    if (kind == CUDA_SKINNY_QKV)
        bind_handed_on(b);
}

static void bind_decode_product(struct binding *b, enum kernel_kind kind)
{
    const struct step *s = b->step;
    const struct op *norm = find_kind(s, OP_NORM), *add = find_kind(s, OP_ADD);
    bind_value(b, s->fused[s->n_fused - 1]->out, true);
    bind_value(b, s->fused[0]->in[0], false);
    bind_weight(b, OPERAND_WEIGHT, find_kind(s, OP_MATMUL)->weight);
    if (norm)
        bind_weight(b, OPERAND_WEIGHT, norm->weight);
    else
        bind_value(b, add->in[1], false);
    if (kind == CUDA_DECODE_HEAD || kind == CUDA_SKINNY_HEAD) {
        bind_plain(b, OPERAND_CALL);
        bind_plain(b, OPERAND_HEAD_ROW);
    } else {
        bind_plain(b, OPERAND_SLOT);
    }
    bind_work(b);
    if (kind == CUDA_SKINNY_RESIDUAL)
        bind_hands_on(b, s->fused[s->n_fused - 1]->out);
    else if (kind == CUDA_SKINNY_GATE_UP || kind == CUDA_SKINNY_HEAD)
        bind_handed_on(b);
}

static void bind_embed(struct binding *b)
{
    bind_value(b, VALUE_X, true);
    bind_written(b, OPERAND_TOKENS);
    bind_written(b, OPERAND_POSITION);
    bind_weight(b, OPERAND_WEIGHT, WEIGHT_EMBED);
    bind_plain(b, OPERAND_SLOT);
    bind_plain(b, OPERAND_NEXT);
    bind_plain(b, OPERAND_LENGTH);
    if (b->step->fused[0]->m > STREAM_ROWS)
        bind_hands_on(b, VALUE_X);
    else
        for (int i = 0; i < 3; i++)
            bind_none(b);
}

static void bind_sample(struct binding *b)
{
    bind_written(b, OPERAND_NEXT);
    bind_written(b, OPERAND_LENGTH);
    bind_written(b, OPERAND_OUTPUT);
    bind_value(b, VALUE_LOGITS, false);
    bind_plain(b, OPERAND_CALL);
    bind_plain(b, OPERAND_HEAD_ROW);
    bind_plain(b, OPERAND_SLOT);
    bind_plain(b, OPERAND_POSITION);
    bind_plain(b, OPERAND_SAMPLING);
    bind_work(b);
}

static void bind_decode(struct binding *b, enum kernel_kind kind)
{
    switch (kind) {
    case CUDA_DECODE_EMBED:
        bind_embed(b);
        break;
    case CUDA_DECODE_QKV:
    case CUDA_SKINNY_QKV:
        bind_decode_qkv(b, kind);
        break;
    case CUDA_DECODE_ATTENTION:
    case CUDA_SKINNY_ATTENTION:
        bind_value(b, VALUE_ATT, true);
        bind_value(b, VALUE_ROPE, false);
        bind_cache(b, false);
        bind_known_rows(b);
        bind_work(b);
        break;
    case CUDA_SAMPLE:
        bind_sample(b);
        break;
    default:
        bind_decode_product(b, kind);
        break;
    }
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
    bind_call(b);
}

static void bind_matmul(struct binding *b)
{
    const struct step *s = b->step;
    const struct op *add = find_kind(s, OP_ADD), *matmul = find_kind(s, OP_MATMUL);
    bind_value(b, s->fused[s->n_fused - 1]->out, true);
    bind_value(b, matmul->in[0], false);
    bind_weight(b, OPERAND_WEIGHT, matmul->weight);
    bind_weight(b, OPERAND_WEIGHT, weight_of(find_kind(s, OP_BIAS)));
    if (add)
        bind_value(b, add->in[1], false);
    else
        bind_none(b);
    bind_call(b);
}

/* The head's input and weights twice, for tiles and as addresses. */
static void bind_head_softmax(struct binding *b)
{
    const struct op *head = find_kind(b->step, OP_MATMUL);
    bind_plain(b, OPERAND_LOSSES);
    bind_buffer(b, BUFFER_D_LOGITS, true);
    bind_buffer(b, BUFFER_FACTOR, true);
    bind_buffer(b, BUFFER_SCALED, true);
    for (int i = 0; i < 2; i++) {
        bind_value(b, head->in[0], false);
        bind_weight(b, OPERAND_WEIGHT, head->weight);
    }
    bind_plain(b, OPERAND_TARGETS);
    bind_plain(b, OPERAND_STEP);
    bind_plain(b, OPERAND_SCRATCH);
}

/* In training with what gradients want: they add up in the residual stream's, in fp32. */
static void bind_head_loss(struct binding *b)
{
    const struct op *head = find_kind(b->step, OP_MATMUL);
    bind_plain(b, OPERAND_LOSSES);
    if (b->id == SCHEDULE_TRAIN) {
        bind_buffer(b, BUFFER_TOP, true);
        bind_buffer(b, BUFFER_SUM, true);
        bind_gradient(b, VALUE_X, true);
    } else {
        for (int i = 0; i < 3; i++)
            bind_none(b);
    }
    bind_value(b, head->in[0], false);
    bind_weight(b, OPERAND_WEIGHT, head->weight);
    bind_plain(b, OPERAND_TARGETS);
    bind_call(b);
    bind_plain(b, OPERAND_SCRATCH);
}

/* The weights twice more, as addresses: of all tokens, and of this turn's. */
static void bind_head_gradient(struct binding *b)
{
    const struct op *head = find_kind(b->step, OP_MATMUL);
    bind_buffer(b, BUFFER_D_LOGITS, true);
    bind_value(b, head->in[0], false);
    bind_weight(b, OPERAND_WEIGHT, head->weight);
    bind_buffer(b, BUFFER_TOP, false);
    bind_buffer(b, BUFFER_SUM, false);
    bind_plain(b, OPERAND_TARGETS);
    bind_operand(b, OPERAND_WEIGHT, (int)head->weight, AT_WHOLE, false);
    bind_weight(b, OPERAND_WEIGHT, head->weight);
    bind_plain(b, OPERAND_STEP);
}

/* What prefill and training do alike, and prefill alone. */
static void bind_rows(struct binding *b, enum kernel_kind kind)
{
    switch (kind) {
    case CUDA_EMBED:
        bind_value(b, VALUE_X, true);
        bind_weight(b, OPERAND_WEIGHT, WEIGHT_EMBED);
        bind_plain(b, OPERAND_TOKENS);
        bind_call(b);
        break;
    case CUDA_NORM:
        bind_norm(b);
        break;
    case CUDA_MATMUL:
        bind_matmul(b);
        break;
    case CUDA_SWIGLU:
        bind_value(b, VALUE_H, true);
        bind_value(b, VALUE_GATE_UP, false);
        bind_call(b);
        break;
    case CUDA_PREFILL_ROPE:
        bind_value(b, VALUE_ROPE, true);
        bind_cache(b, true);
        bind_weight(b, OPERAND_WEIGHT, weight_of(find_kind(b->step, OP_HEAD_NORM)));
        bind_plain(b, OPERAND_ROPE);
        bind_plain(b, OPERAND_CALL);
        bind_cached_rows(b);
        break;
    case CUDA_PREFILL_ATTENTION:
        bind_value(b, VALUE_ATT, true);
        bind_value(b, VALUE_ROPE, false);
        bind_cache(b, false);
        bind_plain(b, OPERAND_CALL);
        bind_plain(b, OPERAND_SEGMENT_ROW);
        bind_cached_rows(b);
        break;
    default:
        bind_head_loss(b);
        break;
    }
}

static void bind_norm_backward(struct binding *b)
{
    const struct op *op = b->step->fused[0];
    const struct kernel *k = &b->p->kernels[b->step->kernel];
    bind_gradient(b, op->out, true);
    bind_buffer(b, BUFFER_D_X16, true);
    bind_weight(b, OPERAND_GRADIENT, op->weight);
    if (k->in_place)
        bind_none(b);
    else
        bind_gradient(b, op->in[0], false);
    bind_value(b, op->in[1], false);
    bind_buffer(b, rstd_buffer(op->weight), false);
    bind_weight(b, OPERAND_WEIGHT, op->weight);
    if (k->factor)
        bind_buffer(b, BUFFER_FACTOR, false);
    else
        bind_none(b);
    bind_plain(b, OPERAND_SCRATCH);
}

static void bind_products_backward(struct binding *b, enum kernel_kind kind)
{
    const struct op *op = b->step->fused[0];
    if (kind == CUDA_MATMUL_DX) {
        bind_gradient(b, b->step->loop == LOOP_VOCAB ? VALUE_X : op->out, true);
        bind_half_gradient(b, op->in[0]);
        bind_weight(b, OPERAND_WEIGHT, op->weight);
        return;
    }
    bind_weight(b, OPERAND_GRADIENT, op->weight);
    bind_weight(b, OPERAND_GRADIENT, weight_of(find_kind(b->step, OP_BIAS_BW)));
    bind_half_gradient(b, op->in[0]);
    if (b->step->loop == LOOP_CHUNKS) /* what the logits' gradients lack, on the other side */
        bind_buffer(b, BUFFER_SCALED, false);
    else
        bind_value(b, op->in[1], false);
    bind_weight(b, OPERAND_OLD_GRADIENT, op->weight);
}

static void bind_training(struct binding *b, enum kernel_kind kind)
{
    switch (kind) {
    case CUDA_ROPE:
        bind_rope(b);
        break;
    case CUDA_ATTENTION:
        bind_value(b, VALUE_ATT, true);
        bind_buffer(b, BUFFER_LSE, true);
        bind_value(b, VALUE_ROPE, false);
        bind_value(b, VALUE_ROPE, false); /* keys and values: on sm_90 by a tensor map */
        break;
    case CUDA_HEAD_SOFTMAX:
        bind_head_softmax(b);
        break;
    case CUDA_EMBED_BACKWARD:
        bind_weight(b, OPERAND_GRADIENT, WEIGHT_EMBED);
        bind_gradient(b, VALUE_X, false);
        bind_plain(b, OPERAND_TOKENS);
        bind_plain(b, OPERAND_SCRATCH);
        break;
    case CUDA_NORM_BACKWARD:
        bind_norm_backward(b);
        break;
    case CUDA_HEAD_GRADIENT:
        bind_head_gradient(b);
        break;
    case CUDA_ROPE_BACKWARD:
        bind_rope_backward(b);
        bind_plain(b, OPERAND_SCRATCH);
        break;
    case CUDA_ATTENTION_BACKWARD:
        bind_gradient(b, VALUE_ROPE, true);
        bind_gradient(b, VALUE_ATT, false);
        bind_value(b, VALUE_ATT, false);
        bind_buffer(b, BUFFER_LSE, false);
        bind_value(b, VALUE_ROPE, false);
        bind_plain(b, OPERAND_SCRATCH);
        break;
    case CUDA_SWIGLU_BACKWARD:
        bind_gradient(b, VALUE_GATE_UP, true);
        bind_value(b, VALUE_H, true);
        bind_gradient(b, VALUE_H, false);
        bind_value(b, VALUE_GATE_UP, false);
        break;
    case CUDA_SUM_SQUARES:
        bind_written(b, OPERAND_STEP);
        bind_plain(b, OPERAND_GRADS);
        bind_plain(b, OPERAND_SCRATCH);
        break;
    case CUDA_ADAMW:
        bind_written(b, OPERAND_PARAMS);
        bind_written(b, OPERAND_WEIGHTS);
        bind_written(b, OPERAND_GRADS);
        bind_written(b, OPERAND_MOMENT1);
        bind_written(b, OPERAND_MOMENT2);
        bind_plain(b, OPERAND_STEP);
        break;
    default:
        bind_products_backward(b, kind);
        break;
    }
}

void cuda_bind(struct binding *b, enum kernel_kind kind)
{
    if (kind <= CUDA_SKINNY_HEAD)
        bind_decode(b, kind);
    else if (kind <= CUDA_HEAD_LOSS)
        bind_rows(b, kind);
    else
        bind_training(b, kind);
}

/* plan.c - operations become kernels: fuse, schedule, bind operands.
 *
 * Needs: the operation lists of lang/ops.c and the fusions of a target. Gives: per phase, steps in
 * order, each one kernel with its operands, in loops over layers or over chunks of rows. Buffers
 * are plan_buffers.c's, their places and barriers layout.c's, the operands of each kernel
 * plan_host.c's and plan_cuda.c's. Nothing here knows what language the target speaks. */
#include "plan.h"

#include <assert.h>
#include <string.h>

const char *const kernel_kind_names[KERNEL_KINDS] = {
    "embed",
    "embed_backward",
    "norm",
    "norm_backward",
    "matmul",
    "matmul_dx",
    "matmul_dw",
    "rope",
    "rope_backward",
    "attention",
    "attention_backward",
    "swiglu",
    "swiglu_backward",
    "loss",
    "sum_squares",
    "adamw",
    "embed_row",
    "prefill_matmul",
    "prefill_rope",
    "prefill_attention",
    "matvec",
    "decode_attention",
    [CUDA_DECODE_EMBED] = "decode_embed",
    "decode_qkv",
    "decode_attention",
    "decode_residual",
    "decode_gate_up",
    "decode_head",
    "sample",
    "skinny_qkv",
    "skinny_attention",
    "skinny_residual",
    "skinny_gate_up",
    "skinny_head",
    "prefill_rope",
    "prefill_attention",
    "embed",
    "norm",
    "matmul",
    "swiglu",
    "head_loss",
    "rope",
    "attention",
    "head_softmax",
    "embed_backward",
    "norm_backward",
    "matmul_dx",
    "matmul_dw",
    "head_gradient",
    "rope_backward",
    "attention_backward",
    "swiglu_backward",
    "sum_squares",
    "adamw",
};

const char *const kernel_files[KERNEL_KINDS] = {
#define ARCHRT_KERNEL(kind, file, title) [KERNEL_##kind] = file,
#include "kernels.def"
#undef ARCHRT_KERNEL
#define ARCHRT_CUDA_KERNEL(kind, file, passes, early, title) [CUDA_##kind] = file,
#include "kernels/cuda/kernels.def"
#undef ARCHRT_CUDA_KERNEL
};

const int kernel_passes[KERNEL_KINDS] = {
#define ARCHRT_CUDA_KERNEL(kind, file, passes, early, title) [CUDA_##kind] = passes,
#include "kernels/cuda/kernels.def"
#undef ARCHRT_CUDA_KERNEL
};

const bool kernel_early[KERNEL_KINDS] = {
#define ARCHRT_CUDA_KERNEL(kind, file, passes, early, title) [CUDA_##kind] = early,
#include "kernels/cuda/kernels.def"
#undef ARCHRT_CUDA_KERNEL
};

const char *const schedule_names[SCHEDULE_COUNT] = {
    [SCHEDULE_TRAIN] = "train",   [SCHEDULE_EVAL] = "eval",     [SCHEDULE_PREFILL] = "prefill",
    [SCHEDULE_DECODE] = "decode", [SCHEDULE_UPDATE] = "update", [SCHEDULE_BATCH] = "batch",
};

const char *const extent_names[EXTENT_COUNT] = {
    [EXTENT_NONE] = "-",
    [EXTENT_LAYERS] = "LAYERS",
    [EXTENT_D_MODEL] = "D_MODEL",
    [EXTENT_HEADS] = "HEADS",
    [EXTENT_KV_HEADS] = "KV_HEADS",
    [EXTENT_ALL_HEADS] = "HEADS + KV_HEADS",
    [EXTENT_HEAD_DIM] = "HEAD_DIM",
    [EXTENT_D_FF] = "D_FF",
    [EXTENT_GATE_UP] = "GATE_UP",
    [EXTENT_VOCAB] = "VOCAB",
    [EXTENT_TOKENS] = "TOKENS",
    [EXTENT_DQ] = "DQ",
    [EXTENT_DKV] = "DKV",
    [EXTENT_QKV] = "QKV",
    [EXTENT_CONTEXT] = "CONTEXT",
    [EXTENT_BATCH] = "BATCH",
    [EXTENT_SEQUENCE] = "SEQUENCE",
    [EXTENT_ROWS] = "ROWS",
    [EXTENT_LOSS_ROWS] = "LOSS_ROWS",
    [EXTENT_HEAD_TOKENS] = "HEAD_TOKENS",
    [EXTENT_CHUNK] = "CHUNK",
    [EXTENT_SCORE_ROWS] = "SCORE_ROWS",
    [EXTENT_SLOTS] = "SLOTS",
    [EXTENT_SEGMENTS] = "SEGMENTS",
    [EXTENT_TILE_ROWS] = "TILE_ROWS",
    [EXTENT_TILE_COLUMNS] = "TILE_COLUMNS",
    [EXTENT_SQUARES] = "SQUARES",
    [EXTENT_PARAMS] = "PARAM_FLOATS",
    [EXTENT_ONE] = "1",
};

/* ---- fusing ---- */

/* Operations of `list` from i that the fusion covers; 0 where it does not match. */
static int match(const struct fusion *f, const struct op_list *list, int i,
                 const struct op *fused[MAX_FUSED], int *n_fused)
{
    int at = i;
    *n_fused = 0;
    for (int k = 0; k < f->n; k++) {
        bool same = at < list->n && list->ops[at].kind == f->pattern[k].kind &&
                    list->ops[at].section == list->ops[i].section;
        if (same && f->most_rows && list->ops[at].m > f->most_rows)
            same = false;
        if (same)
            fused[(*n_fused)++] = &list->ops[at++];
        else if (!f->pattern[k].optional)
            return 0;
    }
    return at - i;
}

const struct op *find_kind(const struct step *s, enum op_kind kind)
{
    for (int i = 0; i < s->n_fused; i++)
        if (s->fused[i]->kind == kind)
            return s->fused[i];
    return NULL;
}

/* ---- operands ---- */

void bind_operand(struct binding *b, enum operand_kind kind, int id, enum operand_at at,
                  bool written)
{
    struct step *s = b->step;
    assert(s->n_operands < MAX_OPERANDS);
    if (written)
        s->writes |= 1u << s->n_operands;
    s->operands[s->n_operands++] = (struct operand){kind, id, at};
}

static enum operand_at which_copy(const struct binding *b, int buffer, bool written)
{
    const struct buffer *f = &b->s->buffers[buffer];
    if (b->step->loop == LOOP_CHUNKS && buffer != VALUE_LOGITS && buffer != BUFFER_D_LOGITS &&
        buffer != BUFFER_SCALED && !(b->id == SCHEDULE_PREFILL && buffer == VALUE_NORMF))
        return AT_CHUNK;
    if (b->id == SCHEDULE_PREFILL && b->section == SECTION_EXIT && b->step->when == WHEN_LOGITS)
        return buffer == VALUE_X && !b->p->target->launches ? AT_LAST_ROW : AT_WHOLE;
    if (!f->kept)
        return AT_WHOLE;
    if (b->section == SECTION_ENTRY)
        return AT_FIRST_LAYER;
    if (b->section == SECTION_EXIT)
        return AT_LAST_LAYER;
    return buffer == VALUE_X && written && !b->backward ? AT_NEXT_LAYER : AT_LAYER;
}

void bind_buffer(struct binding *b, int buffer, bool written)
{
    if ((b->again || b->backward) && made_again(b->p, b->id, buffer))
        buffer = again_buffer(buffer);
    bind_operand(b, OPERAND_BUFFER, buffer, which_copy(b, buffer, written), written);
}

void bind_value(struct binding *b, enum value v, bool written)
{
    bind_buffer(b, BUFFER_VALUE + (int)stored_as(b->p, b->id, v), written);
}

void bind_gradient(struct binding *b, enum value v, bool written)
{
    bind_buffer(b, gradient_buffer(v), written);
}

void bind_none(struct binding *b)
{
    bind_operand(b, OPERAND_NONE, 0, AT_WHOLE, false);
}

void bind_weight(struct binding *b, enum operand_kind kind, enum weight w)
{
    bool piece = b->step->loop == LOOP_VOCAB;
    if (w == WEIGHT_NONE)
        bind_none(b);
    else
        bind_operand(b, kind, (int)w,
                     piece                  ? AT_TOKENS
                     : weight_rows[w].layer ? AT_LAYER
                                            : AT_WHOLE,
                     kind == OPERAND_GRADIENT);
}

void bind_plain(struct binding *b, enum operand_kind kind)
{
    bool chunk =
        b->step->loop == LOOP_CHUNKS && (kind == OPERAND_TARGETS || kind == OPERAND_LOSSES);
    bind_operand(b, kind, 0, chunk ? AT_CHUNK : AT_WHOLE, kind == OPERAND_LOSSES);
}

enum weight weight_of(const struct op *op)
{
    return op ? op->weight : WEIGHT_NONE;
}

void bind_rope(struct binding *b)
{
    const struct op *norm = find_kind(b->step, OP_HEAD_NORM);
    bind_value(b, VALUE_ROPE, true);
    if (norm)
        bind_buffer(b, BUFFER_HEAD_RSTD, true);
    else
        bind_none(b);
    bind_value(b, VALUE_QKV, false);
    bind_weight(b, OPERAND_WEIGHT, weight_of(norm));
    bind_plain(b, OPERAND_ROPE);
}

void bind_rope_backward(struct binding *b)
{
    const struct op *norm = find_kind(b->step, OP_HEAD_NORM_BW);
    bind_gradient(b, VALUE_ROPE, true);
    bind_weight(b, OPERAND_GRADIENT, weight_of(norm));
    if (norm) {
        bind_value(b, VALUE_QKV, false);
        bind_buffer(b, BUFFER_HEAD_RSTD, false);
    } else {
        bind_none(b);
        bind_none(b);
    }
    bind_weight(b, OPERAND_WEIGHT, weight_of(norm));
    bind_plain(b, OPERAND_ROPE);
}

int rstd_buffer(enum weight norm)
{
    return norm == WEIGHT_NORM1 ? BUFFER_RSTD1 : norm == WEIGHT_NORM2 ? BUFFER_RSTD2 : BUFFER_RSTDF;
}

/* ---- kernels: one instance for each distinct shape ---- */

/* The two extents that name a kernel's shape, beside its rows. */
static void kernel_shape(struct kernel *k, const struct step *s)
{
    const struct op *op = s->n_fused ? s->fused[0] : NULL;
    switch (k->kind) {
    case KERNEL_MATMUL:
    case KERNEL_PREFILL_MATMUL:
    case KERNEL_MATVEC:
    case CUDA_MATMUL:
    case CUDA_HEAD_LOSS:
    case CUDA_HEAD_SOFTMAX:
    case CUDA_HEAD_GRADIENT:
    case CUDA_DECODE_QKV:
    case CUDA_DECODE_RESIDUAL:
    case CUDA_DECODE_GATE_UP:
    case CUDA_DECODE_HEAD:
    case CUDA_SKINNY_QKV:
    case CUDA_SKINNY_RESIDUAL:
    case CUDA_SKINNY_GATE_UP:
    case CUDA_SKINNY_HEAD:
        op = find_kind(s, OP_MATMUL);
        break;
    case KERNEL_MATMUL_DX:
    case KERNEL_MATMUL_DW:
    case CUDA_MATMUL_DX:
    case CUDA_MATMUL_DW:
        break;
    case KERNEL_ROPE:
    case KERNEL_ROPE_BACKWARD:
    case KERNEL_PREFILL_ROPE:
    case CUDA_ROPE:
    case CUDA_ROPE_BACKWARD:
    case CUDA_PREFILL_ROPE:
        k->n = EXTENT_QKV;
        k->k = EXTENT_HEAD_DIM;
        return;
    case KERNEL_ATTENTION:
    case KERNEL_ATTENTION_BACKWARD:
    case CUDA_ATTENTION:
    case CUDA_ATTENTION_BACKWARD:
        k->n = EXTENT_SEQUENCE;
        k->k = EXTENT_HEAD_DIM;
        return;
    case KERNEL_PREFILL_ATTENTION:
    case KERNEL_DECODE_ATTENTION:
    case CUDA_PREFILL_ATTENTION:
    case CUDA_DECODE_ATTENTION:
    case CUDA_SKINNY_ATTENTION:
        k->n = EXTENT_CONTEXT;
        k->k = EXTENT_HEAD_DIM;
        return;
    case KERNEL_SWIGLU:
    case KERNEL_SWIGLU_BACKWARD:
    case CUDA_SWIGLU:
    case CUDA_SWIGLU_BACKWARD:
        k->n = EXTENT_D_FF;
        return;
    case KERNEL_LOSS:
    case CUDA_SAMPLE:
        k->n = EXTENT_VOCAB;
        return;
    case KERNEL_SUM_SQUARES:
    case KERNEL_ADAMW:
    case CUDA_SUM_SQUARES:
    case CUDA_ADAMW:
        k->n = EXTENT_PARAMS;
        return;
    default:
        k->n = EXTENT_D_MODEL;
        return;
    }
    k->n = s->loop == LOOP_VOCAB ? EXTENT_HEAD_TOKENS : weight_rows[op->weight].n;
    k->k = weight_rows[op->weight].k;
}

static enum extent step_rows(const struct plan *p, enum schedule_id id, const struct step *s)
{
    if (s->loop == LOOP_CHUNKS)
        return id == SCHEDULE_PREFILL ? EXTENT_SCORE_ROWS : EXTENT_LOSS_ROWS;
    if (s->when == WHEN_LOGITS)
        return p->target->launches ? EXTENT_SEGMENTS : EXTENT_ONE;
    if (id == SCHEDULE_UPDATE)
        return EXTENT_ONE;
    return rows_extent(id);
}

static bool same_instance(const struct kernel *a, const struct kernel *b)
{
    return a->kind == b->kind && a->m == b->m && a->n == b->n && a->k == b->k &&
           a->bias == b->bias && a->residual == b->residual && a->norm == b->norm &&
           a->swiglu == b->swiglu && a->head_norm == b->head_norm &&
           a->accumulate == b->accumulate && a->out_f32 == b->out_f32 &&
           a->in_place == b->in_place && a->factor == b->factor && a->of_matrix == b->of_matrix;
}

/* Products are named after their matrix, all others after their kind. */
static const char *instance_name(struct arena *a, const struct kernel *k, const struct step *s)
{
    static const char *const suffix[KERNEL_KINDS] = {
        [KERNEL_MATMUL_DX] = "_dx",        [KERNEL_MATMUL_DW] = "_dw",
        [CUDA_MATMUL_DX] = "_dx",          [CUDA_MATMUL_DW] = "_dw",
        [CUDA_HEAD_LOSS] = "_loss",        [CUDA_HEAD_SOFTMAX] = "_softmax",
        [CUDA_HEAD_GRADIENT] = "_gradient"};
    const char *name = kernel_kind_names[k->kind];
    bool cuda = k->kind >= CUDA_DECODE_EMBED; /* apart from the host's, in one program */
    const char *phase = k->m == EXTENT_SEGMENTS ? "last" : k->phase;
    phase = arena_printf(a, "%s%s", cuda ? "cuda_" : "", phase);
    if (k->of_matrix == WEIGHT_NONE) {
        const char *bare = strncmp(name, "prefill_", 8) == 0  ? name + 8
                           : strncmp(name, "decode_", 7) == 0 ? name + 7
                           : strncmp(name, "skinny_", 7) == 0 ? name + 7
                                                              : name;
        bool final = strncmp(bare, "norm", 4) == 0 && s->fused[0]->weight == WEIGHT_NORMF;
        return arena_printf(a, "%s_%s%s", phase, final ? "final_" : "", bare);
    }
    const char *matrix = weight_names[k->of_matrix];
    for (int i = 0; i < s->n_fused; i++)
        if (s->fused[i]->out == VALUE_LOGITS || s->fused[i]->in[0] == VALUE_LOGITS)
            matrix = "head";
    return arena_printf(a, "%s_%s%s", phase, matrix, suffix[k->kind] ? suffix[k->kind] : "");
}

/* On a GPU only training does, and only where it was asked to. */
static bool writes_logits(const struct plan *p, enum schedule_id id)
{
    return !p->target->launches || (id == SCHEDULE_TRAIN && p->options.logits != LOGITS_NEVER);
}

int vocab_pieces(const struct plan *p)
{
    return (int)(p->extents[EXTENT_VOCAB] / p->extents[EXTENT_HEAD_TOKENS]);
}

static enum weight matrix_of(const struct step *s)
{
    for (int i = 0; i < s->n_fused; i++) {
        enum op_kind kind = s->fused[i]->kind;
        if (kind == OP_MATMUL || kind == OP_MATMUL_DX || kind == OP_MATMUL_DW)
            return s->fused[i]->weight;
    }
    return WEIGHT_NONE;
}

static int intern_kernel(struct arena *a, struct plan *p, enum schedule_id id,
                         enum kernel_kind kind, const struct step *s)
{
    struct kernel k = {.kind = kind};
    bool last_row = s->when == WHEN_LOGITS && !p->target->launches;
    k.phase = id == SCHEDULE_PREFILL  ? (last_row ? "decode" : "prefill")
              : id == SCHEDULE_DECODE ? "decode"
              : id == SCHEDULE_BATCH  ? "batch"
                                      : "train";
    k.m = step_rows(p, id, s);
    kernel_shape(&k, s);
    k.bias = find_kind(s, OP_BIAS) || find_kind(s, OP_BIAS_BW);
    k.residual = find_kind(s, OP_ADD) != NULL;
    k.norm = kind == KERNEL_MATVEC && find_kind(s, OP_NORM);
    k.swiglu = (kind == KERNEL_MATVEC || kind == CUDA_MATMUL) && find_kind(s, OP_SWIGLU);
    const struct op *product = kind == CUDA_MATMUL ? find_kind(s, OP_MATMUL) : NULL;
    k.out_f32 = product && (k.residual || product->out == VALUE_LOGITS);
    k.head_norm = find_kind(s, OP_HEAD_NORM) || find_kind(s, OP_HEAD_NORM_BW);
    /* The final norm's backward is the first to touch the residual gradient, unless the head's adds
     * up its pieces there. */
    k.accumulate =
        (kind == KERNEL_NORM_BACKWARD || kind == CUDA_NORM_BACKWARD) && s->loop != LOOP_NONE;
    bool final = kind == CUDA_NORM_BACKWARD && !k.accumulate;
    k.in_place = final && !writes_logits(p, id);
    k.factor = final && !k.in_place;
    if (kind == CUDA_MATMUL_DX && s->loop == LOOP_VOCAB)
        k.accumulate = k.out_f32 = true;
    k.of_matrix = matrix_of(s);
    int times = s->loop == LOOP_LAYERS || s->loop == LOOP_LAYERS_REVERSED ? p->arch->layers
                : s->loop == LOOP_VOCAB                                   ? vocab_pieces(p)
                : s->loop == LOOP_CHUNKS && id != SCHEDULE_PREFILL
                    ? (int)(p->extents[EXTENT_ROWS] / p->extents[EXTENT_LOSS_ROWS])
                    : 1;
    for (int i = 0; i < s->n_fused; i++) {
        const struct op *op = s->fused[i];
        k.flops += op->flops / times;
        k.bytes += (op->weight_bytes + op->value_bytes + op->kv_bytes) / times;
    }
    for (int i = 0; i < p->n_kernels; i++)
        if (same_instance(&p->kernels[i], &k)) {
            if (id != SCHEDULE_EVAL && s->when == WHEN_ALWAYS)
                p->kernels[i].times += times;
            return i;
        }
    k.times = s->when == WHEN_ALWAYS ? times : 0;
    k.name = instance_name(a, &k, s);
    assert(p->n_kernels < MAX_KERNELS);
    p->kernels[p->n_kernels] = k;
    return p->n_kernels++;
}

/* ---- schedules ---- */

static enum loop loop_of(const struct plan *p, enum schedule_id id, const struct op_list *list,
                         const struct op *op, enum condition when)
{
    bool backward = list->phase == PHASE_TRAIN_BACKWARD;
    if (op->section == SECTION_LAYER)
        return backward ? LOOP_LAYERS_REVERSED : LOOP_LAYERS;
    bool training = id == SCHEDULE_TRAIN || id == SCHEDULE_EVAL;
    bool logits = op->in[0] == VALUE_LOGITS || op->out == VALUE_LOGITS;
    if (!writes_logits(p, id))
        return backward && logits ? LOOP_VOCAB : LOOP_NONE;
    if (op->section == SECTION_EXIT && ((training && logits) || when == WHEN_SCORED))
        return LOOP_CHUNKS;
    return LOOP_NONE;
}

/* Row-wise kernels read only their own rows of what other row-wise kernels wrote. */
static enum partition partition_of(const struct plan *p, enum kernel_kind kind)
{
    switch (kind) {
    case KERNEL_EMBED:
    case KERNEL_NORM:
    case KERNEL_NORM_BACKWARD:
    case KERNEL_MATMUL:
    case KERNEL_MATMUL_DX:
    case KERNEL_ROPE:
    case KERNEL_ROPE_BACKWARD:
    case KERNEL_SWIGLU:
    case KERNEL_SWIGLU_BACKWARD:
    case KERNEL_LOSS:
    case KERNEL_PREFILL_ROPE:
    case KERNEL_EMBED_ROW:
        return PARTITION_ROWS;
    case KERNEL_ATTENTION:
    case KERNEL_ATTENTION_BACKWARD:
        return p->row_is_sequence ? PARTITION_ROWS : PARTITION_OTHER;
    default:
        return PARTITION_OTHER;
    }
}

static const struct fusion *find_fusion(const struct plan *p, enum schedule_id id,
                                        const struct op_list *list, int i, struct step *s,
                                        int *used)
{
    for (int f = 0; f < p->target->n_fusions; f++) {
        const struct fusion *fusion = &p->target->fusions[f];
        if (!(fusion->schedules & 1u << id))
            continue;
        *used = match(fusion, list, i, s->fused, &s->n_fused);
        if (*used > 0)
            return fusion;
    }
    return NULL;
}

static void note_scratch(struct plan *p, const struct step *step)
{
    for (int k = 0; k < step->n_operands; k++)
        if (step->operands[k].kind == OPERAND_SCRATCH)
            p->kernels[step->kernel].scratch = true;
}

/* Appends the step that begins with operation i of the list; again: in the backward pass, once
 * more. The operations that it does, or 0: there is no kernel for them. */
static int add_step(struct arena *a, struct plan *p, enum schedule_id id,
                    const struct op_list *list, int i, enum condition when_exit, bool again)
{
    struct schedule *s = &p->schedules[id];
    assert(s->n_steps < MAX_STEPS);
    struct step *step = &s->steps[s->n_steps];
    const struct op *op = &list->ops[i];
    int used = 0;
    const struct fusion *fusion = find_fusion(p, id, list, i, step, &used);
    if (!fusion)
        return 0;
    step->when = op->section == SECTION_EXIT ? when_exit : WHEN_ALWAYS;
    step->loop = again ? LOOP_LAYERS_REVERSED : loop_of(p, id, list, op, step->when);
    step->again = again;
    step->partition = partition_of(p, fusion->kernel);
    step->kernel = intern_kernel(a, p, id, fusion->kernel, step);
    struct binding b = {p, id, s, step, op->section, list->phase == PHASE_TRAIN_BACKWARD, again};
    p->target->bind(&b, fusion->kernel);
    note_scratch(p, step);
    s->n_steps++;
    return used;
}

/* The part of a layer's forward pass that its backward pass starts with: what was not kept. */
static void schedule_again(struct arena *a, struct plan *p)
{
    const struct op_list *list = &p->lists[PHASE_TRAIN_FORWARD];
    for (int i = 0; i < list->n;) {
        bool wanted = op_made_again(p->options.recompute, &list->ops[i]);
        i += wanted ? add_step(a, p, SCHEDULE_TRAIN, list, i, WHEN_ALWAYS, true) : 1;
    }
}

/* Appends the steps of list's operations from section `from` on to schedule `id`. */
static bool schedule_list(struct arena *a, struct plan *p, enum schedule_id id,
                          const struct op_list *list, enum section from, enum condition when_exit,
                          const char **why)
{
    bool backward = list->phase == PHASE_TRAIN_BACKWARD, begun = false;
    for (int i = 0; i < list->n;) {
        const struct op *op = &list->ops[i];
        if (op->section < from && !backward) {
            i++;
            continue;
        }
        if (backward && op->section == SECTION_LAYER && !begun) {
            begun = true;
            schedule_again(a, p);
        }
        int used = add_step(a, p, id, list, i, when_exit, false);
        if (used == 0) {
            *why = arena_printf(a, "target %s has no kernel for %s (%s)", p->target->name, op->name,
                                op_kind_names[op->kind]);
            return false;
        }
        i += used;
    }
    return true;
}

/* h is not kept: its gradient product waits until SwiGLU's backward has made h again. */
static void sink_down_dw(struct schedule *s)
{
    for (int i = 0; i + 1 < s->n_steps; i++) {
        struct step *step = &s->steps[i];
        const struct op *dw = find_kind(step, OP_MATMUL_DW);
        if (!dw || dw->in[1] != VALUE_H)
            continue;
        struct step moved = *step;
        assert(find_kind(&s->steps[i + 1], OP_SWIGLU_BW));
        s->steps[i] = s->steps[i + 1];
        s->steps[i + 1] = moved;
        return;
    }
}

/* Floats of logits that exist at once on the host. Each chunk of rows packs the head's weights anew
 * and adds to all of their gradient: with a quarter of this, a step of a vocabulary of 65536
 * took 1.4 times as long. */
static const int64_t host_logits = 32 << 20;

int64_t loss_rows(int64_t rows, int64_t vocab, int64_t floats)
{
    int64_t limit = floats / vocab;
    if (limit < 64)
        limit = 64;
    int64_t best = 1;
    for (int64_t n = 1; n <= rows; n++)
        if (rows % n == 0 && rows / n <= limit) {
            best = rows / n;
            break;
        }
    return best;
}

static void set_extents(struct plan *p)
{
    const struct arch *a = p->arch;
    const struct build_options *o = &p->options;
    int64_t *e = p->extents;
    e[EXTENT_LAYERS] = a->layers;
    e[EXTENT_D_MODEL] = a->d_model;
    e[EXTENT_HEADS] = a->heads;
    e[EXTENT_KV_HEADS] = a->kv_heads;
    e[EXTENT_ALL_HEADS] = a->heads + a->kv_heads;
    e[EXTENT_HEAD_DIM] = a->head_dim;
    e[EXTENT_D_FF] = a->d_ff;
    e[EXTENT_GATE_UP] = 2 * (int64_t)a->d_ff;
    e[EXTENT_VOCAB] = e[EXTENT_TOKENS] = a->vocab;
    e[EXTENT_DQ] = arch_dq(a);
    e[EXTENT_DKV] = arch_dkv(a);
    e[EXTENT_QKV] = arch_dq(a) + 2 * arch_dkv(a);
    e[EXTENT_CONTEXT] = a->context;
    e[EXTENT_BATCH] = o->batch;
    e[EXTENT_SEQUENCE] = o->sequence;
    e[EXTENT_ROWS] = (int64_t)o->batch * o->sequence;
    e[EXTENT_LOSS_ROWS] = loss_rows(e[EXTENT_ROWS], a->vocab, host_logits);
    e[EXTENT_CHUNK] = o->chunk;
    e[EXTENT_SCORE_ROWS] = loss_rows(o->chunk, a->vocab, host_logits);
    e[EXTENT_ONE] = 1;
    e[EXTENT_PARAMS] = slab_floats(p, NULL);
    if (p->target->set_extents)
        p->target->set_extents(p);
}

/* What each phase is asked to do. */
static void set_loads(struct plan *p)
{
    const struct build_options *o = &p->options;
    bool gpu = p->target->launches;
    enum dtype values = gpu ? DTYPE_BF16 : DTYPE_F32;
    struct workload train = {.batch = o->batch, .tokens = o->sequence, .values = values};
    if (gpu)
        train.weights = DTYPE_BF16;
    p->eval_load = train;
    p->eval_load.no_logits = gpu;
    train.no_logits = gpu && o->logits == LOGITS_NEVER;
    train.overwrites = gpu;
    for (int phase = PHASE_TRAIN_FORWARD; phase <= PHASE_OPTIMISER; phase++)
        p->loads[phase] = train;
    struct workload serve = {.batch = 1,
                             .tokens = o->chunk,
                             .weights = o->weights,
                             .kv = values,
                             .values = values,
                             .samples = gpu};
    p->loads[PHASE_PREFILL] = p->score_load = serve;
    p->score_load.all_logits = true;
    p->score_load.no_logits = gpu;
    serve.tokens = 1;
    serve.past = p->arch->context / 2;
    p->loads[PHASE_DECODE] = p->slots_load = serve;
    p->slots_load.batch = o->slots;
}

static void build_lists(struct plan *p)
{
    set_loads(p);
    for (int phase = 0; phase < PHASE_COUNT; phase++)
        ops_build(p->arch, (enum phase)phase, &p->loads[phase], &p->lists[phase]);
    ops_build(p->arch, PHASE_TRAIN_FORWARD, &p->eval_load, &p->eval);
    if (p->options.slots > 1)
        ops_build(p->arch, PHASE_DECODE, &p->slots_load, &p->slots);
    ops_build(p->arch, PHASE_PREFILL, &p->score_load, &p->score);
}

bool plan_build(struct arena *a, const struct arch *arch, const struct target *target,
                const struct build_options *o, struct plan *out, const char **why)
{
    *out = (struct plan){.arch = arch, .target = target, .options = *o};
    if (target->refuses && (*why = target->refuses(a, arch)))
        return false;
    out->row_is_sequence = o->batch >= o->threads && o->batch % o->threads == 0;
    set_extents(out);
    build_lists(out);
    for (int id = 0; id < SCHEDULE_COUNT; id++)
        declare_buffers(out, (enum schedule_id)id, &out->schedules[id]);
    const struct op_list *l = out->lists;
    bool ok =
        schedule_list(a, out, SCHEDULE_TRAIN, &l[PHASE_TRAIN_FORWARD], SECTION_ENTRY, WHEN_ALWAYS,
                      why) &&
        schedule_list(a, out, SCHEDULE_TRAIN, &l[PHASE_TRAIN_BACKWARD], SECTION_ENTRY, WHEN_ALWAYS,
                      why) &&
        schedule_list(a, out, SCHEDULE_EVAL, &out->eval, SECTION_ENTRY, WHEN_ALWAYS, why) &&
        schedule_list(a, out, SCHEDULE_PREFILL, &l[PHASE_PREFILL], SECTION_ENTRY, WHEN_LOGITS,
                      why) &&
        schedule_list(a, out, SCHEDULE_PREFILL, &out->score, SECTION_EXIT, WHEN_SCORED, why) &&
        schedule_list(a, out, SCHEDULE_DECODE, &l[PHASE_DECODE], SECTION_ENTRY, WHEN_ALWAYS, why) &&
        schedule_list(a, out, SCHEDULE_BATCH, &out->slots, SECTION_ENTRY, WHEN_ALWAYS, why) &&
        schedule_list(a, out, SCHEDULE_UPDATE, &l[PHASE_OPTIMISER], SECTION_ENTRY, WHEN_ALWAYS,
                      why);
    if (!ok)
        return false;
    sink_down_dw(&out->schedules[SCHEDULE_TRAIN]);
    for (int id = 0; id < SCHEDULE_COUNT; id++) {
        layout_buffers(out, &out->schedules[id]);
        place_barriers(out, &out->schedules[id]);
    }
    return true;
}

/* ops.c - from an architecture to one list of operations per phase.
 *
 * Everything that prices a model and everything that builds one reads these lists, so that what the
 * search predicts is what the program runs. Operations are the model's own, before any fusion: the
 * planner of a target decides which of them become one kernel. FLOPs count two a multiply-add. */
#include "lang.h"

#include <string.h>

const char *const phase_names[PHASE_COUNT] = {
    [PHASE_TRAIN_FORWARD] = "train forward",
    [PHASE_TRAIN_BACKWARD] = "train backward",
    [PHASE_OPTIMISER] = "optimiser",
    [PHASE_PREFILL] = "prefill",
    [PHASE_DECODE] = "decode",
};

const char *const op_kind_names[OP_KIND_COUNT] = {
    [OP_EMBED] = "embed",         [OP_NORM] = "norm",
    [OP_MATMUL] = "matmul",       [OP_BIAS] = "bias",
    [OP_HEAD_NORM] = "head_norm", [OP_ROPE] = "rope",
    [OP_KV_WRITE] = "kv_write",   [OP_ATTENTION] = "attention",
    [OP_SWIGLU] = "swiglu",       [OP_ADD] = "add",
    [OP_LOSS] = "loss",           [OP_HEAD_LOSS] = "head_loss",
    [OP_LOSS_BW] = "loss_bw",     [OP_SAMPLE] = "sample",
    [OP_EMBED_BW] = "embed_bw",   [OP_NORM_BW] = "norm_bw",
    [OP_MATMUL_DX] = "matmul_dx", [OP_MATMUL_DW] = "matmul_dw",
    [OP_BIAS_BW] = "bias_bw",     [OP_HEAD_NORM_BW] = "head_norm_bw",
    [OP_ROPE_BW] = "rope_bw",     [OP_ATTENTION_BW] = "attention_bw",
    [OP_SWIGLU_BW] = "swiglu_bw", [OP_GRAD_NORM] = "grad_norm",
    [OP_ADAMW] = "adamw",
};

const char *const value_names[VALUE_COUNT] = {
    [VALUE_NONE] = "-",          [VALUE_TOKENS] = "tokens", [VALUE_X] = "x",
    [VALUE_NORM1] = "norm1",     [VALUE_QKV] = "qkv",       [VALUE_ROPE] = "rope",
    [VALUE_ATT] = "att",         [VALUE_X1] = "x1",         [VALUE_NORM2] = "norm2",
    [VALUE_GATE_UP] = "gate_up", [VALUE_H] = "h",           [VALUE_NORMF] = "normf",
    [VALUE_LOGITS] = "logits",
};

const char *const weight_names[WEIGHT_COUNT] = {
    [WEIGHT_NONE] = "-",    [WEIGHT_EMBED] = "embed",       [WEIGHT_NORM1] = "norm1",
    [WEIGHT_QKV] = "qkv",   [WEIGHT_QKV_BIAS] = "qkv_bias", [WEIGHT_HEAD_NORM] = "head_norm",
    [WEIGHT_O] = "o",       [WEIGHT_NORM2] = "norm2",       [WEIGHT_GATE_UP] = "gate_up",
    [WEIGHT_DOWN] = "down", [WEIGHT_NORMF] = "normf",       [WEIGHT_HEAD] = "head",
};

/* The list under construction with what every operation's counts need. */
struct builder {
    const struct arch *a;
    const struct workload *w;
    struct op_list *out;
    enum section section;
    double value, weight; /* bytes of one activation and of one weight */
    double wide;          /* of the residual stream, its gradient and logits: fp32 */
};

static struct op *add(struct builder *b, enum op_kind kind, const char *name, int64_t m, int64_t n,
                      int64_t k)
{
    struct op *op = &b->out->ops[b->out->n++];
    memset(op, 0, sizeof *op);
    op->kind = kind;
    op->section = b->section;
    op->name = name;
    op->m = m;
    op->n = n;
    op->k = k;
    op->times = b->section == SECTION_LAYER ? b->a->layers : 1;
    return op;
}

static struct op *wire(struct op *op, enum value in0, enum value in1, enum value out,
                       enum weight weight)
{
    op->in[0] = in0;
    op->in[1] = in1;
    op->out = out;
    op->weight = weight;
    return op;
}

/* FLOPs and activation bytes of one call; all calls are counted. */
static struct op *count_bytes(struct op *op, double flops, double bytes)
{
    op->flops = flops * op->times;
    op->value_bytes = bytes * op->times;
    return op;
}

static struct op *count(struct builder *b, struct op *op, double flops, double values)
{
    return count_bytes(op, flops, values * b->value);
}

/* Bytes of an element of a value. */
static double bytes_of(const struct builder *b, enum value v)
{
    return v == VALUE_X || v == VALUE_X1 || v == VALUE_LOGITS ? b->wide : b->value;
}

/* Bytes of a product's input and output, m rows each. */
static double product_bytes(const struct builder *b, int64_t m, int64_t n, enum value y, int64_t k,
                            enum value x)
{
    return (double)m * (n * bytes_of(b, y) + k * bytes_of(b, x));
}

static void matmul(struct builder *b, const char *name, int64_t m, int64_t n, int64_t k,
                   enum value in, enum value out, enum weight weight)
{
    struct op *op = wire(add(b, OP_MATMUL, name, m, n, k), in, VALUE_NONE, out, weight);
    count_bytes(op, 2.0 * m * n * k, product_bytes(b, m, n, out, k, in));
    op->weight_bytes = (double)n * k * b->weight * op->times;
}

/* An operation that reads and writes rows of width n, with `flops` an element. */
static struct op *rowwise(struct builder *b, enum op_kind kind, const char *name, int64_t m,
                          int64_t n, double flops, double passes)
{
    return count(b, add(b, kind, name, m, n, 0), flops * m * n, passes * m * n);
}

static void norm(struct builder *b, const char *name, int64_t m, enum value in, enum value out,
                 enum weight weight)
{
    int64_t d = b->a->d_model;
    struct op *op = wire(add(b, OP_NORM, name, m, d, 0), in, VALUE_NONE, out, weight);
    count_bytes(op, 4.0 * m * d, (double)m * d * (bytes_of(b, in) + b->value));
}

/* Mean number of keys that a query sees: the cached ones and, causally, its own pass's. */
static double mean_keys(const struct workload *w)
{
    return w->past + (w->tokens + 1) / 2.0;
}

static void residual(struct builder *b, const char *name, int64_t m, enum value to, enum value from)
{
    int64_t d = b->a->d_model;
    struct op *op = wire(add(b, OP_ADD, name, m, d, 0), to, from, to, WEIGHT_NONE);
    count_bytes(op, (double)m * d, 3.0 * m * d * b->wide);
}

static void attention_block(struct builder *b, int64_t m, bool cached)
{
    const struct arch *a = b->a;
    int64_t d = a->d_model, dq = arch_dq(a), dkv = arch_dkv(a), qkv = dq + 2 * dkv;
    norm(b, "norm1", m, VALUE_X, VALUE_NORM1, WEIGHT_NORM1);
    matmul(b, "qkv", m, qkv, d, VALUE_NORM1, VALUE_QKV, WEIGHT_QKV);
    if (a->qkv_bias)
        wire(rowwise(b, OP_BIAS, "qkv_bias", m, qkv, 1, 2), VALUE_QKV, VALUE_NONE, VALUE_QKV,
             WEIGHT_QKV_BIAS);
    if (a->qk_norm) {
        struct op *op = add(b, OP_HEAD_NORM, "head_norm", m, a->heads + a->kv_heads, a->head_dim);
        wire(op, VALUE_QKV, VALUE_NONE, VALUE_ROPE, WEIGHT_HEAD_NORM);
        count(b, op, 4.0 * m * (dq + dkv), 2.0 * m * (dq + dkv));
    }
    wire(rowwise(b, OP_ROPE, "rope", m, dq + dkv, 3, 2), a->qk_norm ? VALUE_ROPE : VALUE_QKV,
         VALUE_NONE, VALUE_ROPE, WEIGHT_NONE);
    if (cached) {
        struct op *op = wire(add(b, OP_KV_WRITE, "kv_write", m, 2 * dkv, 0), VALUE_ROPE, VALUE_NONE,
                             VALUE_NONE, WEIGHT_NONE);
        op->kv_bytes = (double)m * 2 * dkv * dtype_bytes(b->w->kv) * op->times;
    }
    double keys = mean_keys(b->w);
    struct op *op = add(b, OP_ATTENTION, "attention", m, (int64_t)(keys + 0.5), a->head_dim);
    wire(op, VALUE_ROPE, VALUE_NONE, VALUE_ATT, WEIGHT_NONE);
    count(b, op, 4.0 * m * keys * dq, (double)m * (2 * dq + (cached ? 0 : 2 * dkv)));
    if (cached)
        op->kv_bytes =
            b->w->batch * (b->w->past + b->w->tokens) * 2 * dkv * dtype_bytes(b->w->kv) * op->times;
    matmul(b, "o", m, d, dq, VALUE_ATT, VALUE_X1, WEIGHT_O);
    residual(b, "residual1", m, VALUE_X1, VALUE_X);
}

static void mlp_block(struct builder *b, int64_t m)
{
    const struct arch *a = b->a;
    int64_t d = a->d_model, f = a->d_ff;
    norm(b, "norm2", m, VALUE_X1, VALUE_NORM2, WEIGHT_NORM2);
    matmul(b, "gate_up", m, 2 * f, d, VALUE_NORM2, VALUE_GATE_UP, WEIGHT_GATE_UP);
    wire(rowwise(b, OP_SWIGLU, "swiglu", m, f, 8, 3), VALUE_GATE_UP, VALUE_NONE, VALUE_H,
         WEIGHT_NONE);
    matmul(b, "down", m, d, f, VALUE_H, VALUE_X, WEIGHT_DOWN);
    residual(b, "residual2", m, VALUE_X, VALUE_X1);
}

static enum weight head_weight(const struct arch *a)
{
    return a->tied ? WEIGHT_EMBED : WEIGHT_HEAD;
}

int64_t ops_head_tokens(int64_t vocab)
{
    int64_t most = vocab / 64 > 1024 ? vocab / 64 : 1024;
    int64_t pieces = (vocab + most - 1) / most, each = (vocab + pieces - 1) / pieces;
    return (each + 7) / 8 * 8;
}

/* The head's product behind which nothing is written but a piece's gradients, if any. */
static void bare_head(struct builder *b, const char *name, int64_t m)
{
    const struct arch *a = b->a;
    matmul(b, name, m, a->vocab, a->d_model, VALUE_NORMF, VALUE_LOGITS, head_weight(a));
    b->out->ops[b->out->n - 1].value_bytes = (double)m * a->d_model * b->value;
}

/* Loss of logits that were written, and of those that were not: of them a pair of floats for each
 * 256 columns. In training whose products are narrower than logits, those become powers in the
 * head's product, as narrow; the head's input is read twice more, and written by a factor. */
static void loss_of_logits(struct builder *b, int64_t m)
{
    int64_t v = b->a->vocab;
    bool powers = !b->w->no_logits && b->value < b->wide;
    if (b->w->no_logits || powers) {
        bare_head(b, "head", m);
        struct op *op = wire(add(b, powers ? OP_LOSS : OP_HEAD_LOSS, "loss", m, v, 0), VALUE_LOGITS,
                             VALUE_TOKENS, VALUE_LOGITS, WEIGHT_NONE);
        double kept = powers ? b->value * ((double)v + 4.0 * b->a->d_model) : 0;
        count_bytes(op, 6.0 * m * v, (double)m * (16.0 * v / 256 + kept));
        return;
    }
    matmul(b, "head", m, v, b->a->d_model, VALUE_NORMF, VALUE_LOGITS, head_weight(b->a));
    struct op *op = wire(add(b, OP_LOSS, "loss", m, v, 0), VALUE_LOGITS, VALUE_TOKENS, VALUE_LOGITS,
                         WEIGHT_NONE);
    count_bytes(op, 8.0 * m * v, (double)m * v * (b->wide + b->value));
}

static void forward(struct builder *b, bool cached, bool loss)
{
    const struct arch *a = b->a;
    int64_t m = (int64_t)b->w->batch * b->w->tokens, d = a->d_model;
    b->section = SECTION_ENTRY;
    struct op *op =
        wire(add(b, OP_EMBED, "embed", m, d, 0), VALUE_TOKENS, VALUE_NONE, VALUE_X, WEIGHT_EMBED);
    count_bytes(op, 0, (double)m * d * b->wide);
    op->weight_bytes = (double)m * d * b->weight;
    b->section = SECTION_LAYER;
    attention_block(b, m, cached);
    mlp_block(b, m);
    b->section = SECTION_EXIT;
    int64_t rows = loss || b->w->all_logits ? m : b->w->batch;
    norm(b, "normf", rows, VALUE_X, VALUE_NORMF, WEIGHT_NORMF);
    if (loss || b->w->all_logits) {
        loss_of_logits(b, rows);
        return;
    }
    matmul(b, "head", rows, a->vocab, d, VALUE_NORMF, VALUE_LOGITS, head_weight(a));
    if (b->w->samples) {
        op = wire(add(b, OP_SAMPLE, "sample", rows, a->vocab, 0), VALUE_LOGITS, VALUE_NONE,
                  VALUE_TOKENS, WEIGHT_NONE);
        count_bytes(op, 2.0 * rows * a->vocab, (double)rows * a->vocab * b->wide);
    }
}

/* Gradients of y = x w^T: `in` is the input's name, `out` the output's. */
static void matmul_gradients(struct builder *b, const char *dx, const char *dw, int64_t m,
                             int64_t n, int64_t k, enum value in, enum value out,
                             enum weight weight)
{
    /* Gradients are read in the type of the operands of products, whatever they are kept in. */
    struct op *op = wire(add(b, OP_MATMUL_DX, dx, m, n, k), out, VALUE_NONE, in, weight);
    count(b, op, 2.0 * m * n * k, (double)m * (n + k));
    op->weight_bytes = (double)n * k * b->weight * op->times;
    op = wire(add(b, OP_MATMUL_DW, dw, m, n, k), out, in, VALUE_NONE, weight);
    count(b, op, 2.0 * m * n * k, (double)m * (n + k));
    /* The fp32 gradient, written, and read where it is added to. */
    op->weight_bytes = (b->w->overwrites ? 1.0 : 2.0) * n * k * 4 * op->times;
}

static void norm_gradient(struct builder *b, const char *name, int64_t m, enum value in,
                          enum value out, enum weight weight)
{
    int64_t d = b->a->d_model;
    struct op *op = wire(add(b, OP_NORM_BW, name, m, d, 0), out, in, in, weight);
    /* Its input and the stream's gradient, read and written; beside them, where the stream is wider
     * than other values, a narrow copy for the products that follow. */
    double narrow = b->wide > b->value ? 2 * b->value : b->value;
    count_bytes(op, 9.0 * m * d, (double)m * d * (3 * b->wide + narrow));
}

static void layer_backward(struct builder *b, int64_t m)
{
    const struct arch *a = b->a;
    int64_t d = a->d_model, f = a->d_ff, dq = arch_dq(a), dkv = arch_dkv(a), qkv = dq + 2 * dkv;
    matmul_gradients(b, "down_dx", "down_dw", m, d, f, VALUE_H, VALUE_X, WEIGHT_DOWN);
    wire(rowwise(b, OP_SWIGLU_BW, "swiglu_bw", m, f, 16, 6), VALUE_H, VALUE_GATE_UP, VALUE_GATE_UP,
         WEIGHT_NONE);
    matmul_gradients(b, "gate_up_dx", "gate_up_dw", m, 2 * f, d, VALUE_NORM2, VALUE_GATE_UP,
                     WEIGHT_GATE_UP);
    norm_gradient(b, "norm2_bw", m, VALUE_X1, VALUE_NORM2, WEIGHT_NORM2);
    matmul_gradients(b, "o_dx", "o_dw", m, d, dq, VALUE_ATT, VALUE_X1, WEIGHT_O);
    struct op *op =
        add(b, OP_ATTENTION_BW, "attention_bw", m, (int64_t)(mean_keys(b->w) + 0.5), a->head_dim);
    wire(op, VALUE_ATT, VALUE_ROPE, VALUE_ROPE, WEIGHT_NONE);
    count(b, op, 10.0 * m * mean_keys(b->w) * dq, (double)m * (4 * dq + 4 * dkv));
    wire(rowwise(b, OP_ROPE_BW, "rope_bw", m, dq + dkv, 3, 2), VALUE_ROPE, VALUE_NONE,
         a->qk_norm ? VALUE_ROPE : VALUE_QKV, WEIGHT_NONE);
    if (a->qk_norm) {
        op = add(b, OP_HEAD_NORM_BW, "head_norm_bw", m, a->heads + a->kv_heads, a->head_dim);
        wire(op, VALUE_ROPE, VALUE_QKV, VALUE_QKV, WEIGHT_HEAD_NORM);
        count(b, op, 9.0 * m * (dq + dkv), 4.0 * m * (dq + dkv));
    }
    matmul_gradients(b, "qkv_dx", "qkv_dw", m, qkv, d, VALUE_NORM1, VALUE_QKV, WEIGHT_QKV);
    if (a->qkv_bias)
        wire(rowwise(b, OP_BIAS_BW, "qkv_bias_bw", m, qkv, 1, 1), VALUE_QKV, VALUE_NONE, VALUE_NONE,
             WEIGHT_QKV_BIAS);
    norm_gradient(b, "norm1_bw", m, VALUE_X, VALUE_NORM1, WEIGHT_NORM1);
}

/* The head's gradients, a piece of the vocabulary at a time: their logits once more, and each piece
 * reads and writes all of dx in fp32, and reads all rows of its input. */
static void head_again(struct builder *b, int64_t m)
{
    const struct arch *a = b->a;
    int64_t v = a->vocab, pieces = (v + ops_head_tokens(v) - 1) / ops_head_tokens(v);
    bare_head(b, "head_again", m);
    b->out->ops[b->out->n - 1].value_bytes *= (double)pieces;
    struct op *op = wire(add(b, OP_LOSS_BW, "loss_bw", m, v, 0), VALUE_LOGITS, VALUE_TOKENS,
                         VALUE_LOGITS, WEIGHT_NONE);
    count(b, op, 4.0 * m * v, (double)m * v);
    matmul_gradients(b, "head_dx", "head_dw", m, v, a->d_model, VALUE_NORMF, VALUE_LOGITS,
                     head_weight(a));
    struct op *dx = &b->out->ops[b->out->n - 2], *dw = &b->out->ops[b->out->n - 1];
    dx->value_bytes += (double)m * a->d_model * (8.0 * (double)pieces - b->value);
    dw->value_bytes += (double)m * a->d_model * b->value * (double)(pieces - 1);
}

static void backward(struct builder *b)
{
    const struct arch *a = b->a;
    int64_t m = (int64_t)b->w->batch * b->w->tokens, d = a->d_model;
    b->section = SECTION_EXIT;
    if (b->w->no_logits)
        head_again(b, m);
    else
        matmul_gradients(b, "head_dx", "head_dw", m, a->vocab, d, VALUE_NORMF, VALUE_LOGITS,
                         head_weight(a));
    norm_gradient(b, "normf_bw", m, VALUE_X, VALUE_NORMF, WEIGHT_NORMF);
    b->section = SECTION_LAYER;
    layer_backward(b, m);
    b->section = SECTION_ENTRY;
    struct op *op = add(b, OP_EMBED_BW, "embed_bw", m, d, 0);
    wire(op, VALUE_X, VALUE_TOKENS, VALUE_NONE, WEIGHT_EMBED);
    count_bytes(op, (double)m * d, (double)m * d * b->wide);
    op->weight_bytes = 2.0 * m * d * 4;
}

static void optimiser(struct builder *b)
{
    int64_t n = arch_total_params(b->a);
    b->section = SECTION_EXIT;
    struct op *op = add(b, OP_GRAD_NORM, "grad_norm", 1, n, 0);
    op->flops = 2.0 * n;
    op->weight_bytes = 4.0 * n;
    op = add(b, OP_ADAMW, "adamw", 1, n, 0);
    op->flops = 14.0 * n;
    /* Parameter and two moments, read and written; the copy that products read; the gradient, read,
     * and cleared where the next one is added to it. */
    op->weight_bytes = (28.0 + (b->wide > b->value ? b->value : 0)) * n;
    bool table = !b->a->tied; /* rows of tokens that do not occur stay as they are cleared */
    double cleared = table ? (double)b->a->vocab * b->a->d_model : 0;
    op->weight_bytes += 4 * (b->w->overwrites ? cleared : (double)n);
}

void ops_build(const struct arch *a, enum phase phase, const struct workload *w,
               struct op_list *out)
{
    struct builder b = {.a = a, .w = w, .out = out};
    b.value = dtype_bytes(w->values);
    b.wide = dtype_bytes(DTYPE_F32);
    b.weight = dtype_bytes(w->weights);
    out->phase = phase;
    out->n = 0;
    switch (phase) {
    case PHASE_TRAIN_FORWARD:
        forward(&b, false, true);
        break;
    case PHASE_TRAIN_BACKWARD:
        backward(&b);
        break;
    case PHASE_OPTIMISER:
        optimiser(&b);
        break;
    case PHASE_PREFILL:
    case PHASE_DECODE:
        forward(&b, true, false);
        break;
    case PHASE_COUNT:
        break;
    }
}

/* A layer's last operations, behind gate and up, make what the next layer keeps; h is made again by
 * SwiGLU's own gradient. */
bool op_made_again(enum recompute level, const struct op *op)
{
    if (op->section != SECTION_LAYER)
        return false;
    switch (level) {
    case RECOMPUTE_NORMS:
        return op->kind == OP_NORM;
    case RECOMPUTE_MLP:
        return op->kind == OP_NORM || op->out == VALUE_GATE_UP;
    case RECOMPUTE_ALL:
        return op->out != VALUE_X && op->out != VALUE_H;
    default:
        return false;
    }
}

double ops_model_flops(const struct op_list *l)
{
    double sum = 0;
    for (int i = 0; i < l->n; i++)
        switch (l->ops[i].kind) {
        case OP_MATMUL: /* of backward: made again */
            sum += l->phase == PHASE_TRAIN_BACKWARD ? 0 : l->ops[i].flops;
            break;
        case OP_MATMUL_DX:
        case OP_MATMUL_DW:
        case OP_ATTENTION:
        case OP_ATTENTION_BW:
            sum += l->ops[i].flops;
            break;
        default:
            break;
        }
    return sum;
}

void ops_print(const struct op_list *l, FILE *out)
{
    static const char *const sections[] = {"entry", "layer", "exit"};
    fprintf(out, "%s\n", phase_names[l->phase]);
    fprintf(out, "  %-6s %-13s %-13s %4s %9s %9s %7s  %-9s %-9s %-9s %12s %12s\n", "where", "name",
            "operation", "x", "m", "n", "k", "in", "out", "weight", "MFLOP", "MB");
    for (int i = 0; i < l->n; i++) {
        const struct op *o = &l->ops[i];
        fprintf(out, "  %-6s %-13s %-13s %4d %9lld %9lld %7lld  %-9s %-9s %-9s %12.3f %12.3f\n",
                sections[o->section], o->name, op_kind_names[o->kind], o->times, (long long)o->m,
                (long long)o->n, (long long)o->k, value_names[o->in[0]], value_names[o->out],
                weight_names[o->weight], o->flops / 1e6,
                (o->weight_bytes + o->value_bytes + o->kv_bytes) / 1e6);
    }
}

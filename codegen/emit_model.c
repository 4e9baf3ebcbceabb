/* emit_model.c - model.c of a host program: where everything stands, the schedules as calls, and
 * the tables that the run-time library reads. */
#include "codegen.h"

#include <math.h>
#include <string.h>

/* ---- model.c: layout ---- */

const char *const schedule_prefix[SCHEDULE_COUNT] = {"T", "E", "P", "D", "U", "B"};

void upper_name(char *to, const char *name)
{
    while (*name)
        *to++ = (char)(*name >= 'a' && *name <= 'z' ? *name - 'a' + 'A' : *name), name++;
    *to = 0;
}

static void emit_buffer(const struct plan *p, enum schedule_id id, int b, struct text *t)
{
    const struct buffer *f = &p->schedules[id].buffers[b];
    char name[32];
    upper_name(name, f->name);
    if (f->kept)
        text_printf(t,
                    "#define %s_%s(l) (work + %zu + (size_t)(l) * %zu) /* [LAYERS%s][%s][%s] */\n",
                    schedule_prefix[id], name, f->offset, f->floats,
                    b == BUFFER_VALUE + VALUE_X ? " + 1" : "", extent_names[f->rows],
                    extent_names[f->width]);
    else
        text_printf(t, "#define %s_%s (work + %zu) /* [%s][%s] */\n", schedule_prefix[id], name,
                    f->offset, extent_names[f->rows], extent_names[f->width]);
}

static void emit_buffers(const struct plan *p, enum schedule_id id, const char *what,
                         struct text *t)
{
    text_printf(t, "\n/* %s. Buffers that never live at once share a place. */\n", what);
    for (int b = 0; b < BUFFER_COUNT; b++)
        if (p->schedules[id].buffers[b].used)
            emit_buffer(p, id, b, t);
}

static void emit_parameters(const struct plan *p, struct text *t)
{
    text_add(t, "\n/* Parameters and their gradients: floats into the slab. */\n");
    for (int w = 1; w < WEIGHT_COUNT; w++) {
        const struct weight_row *row = &weight_rows[w];
        if (!weight_present(p->arch, (enum weight)w))
            continue;
        int64_t at = weight_offset(p, (enum weight)w, 0);
        int64_t stride = weight_layer_stride(p, (enum weight)w);
        text_printf(
            t, row->layer ? "#define AT_%s(l) (%lld + (size_t)(l) * %lld)" : "#define AT_%s %lld",
            row->name, (long long)at, (long long)stride);
        text_printf(t, " /* %s%s[%s]", row->layer ? "[LAYERS]" : "",
                    w == WEIGHT_HEAD_NORM ? "[2]" : "", extent_names[row->n]);
        if (row->k != EXTENT_NONE)
            text_printf(t, "[%s]", extent_names[row->k]);
        text_add(t, " */\n");
    }
}

/* Inference: matrices packed, vectors as they are; offsets in bytes. */
static void emit_packed(const struct plan *p, struct text *t)
{
    text_add(t, "\n/* Weights as inference reads them: packed matrices, then gains and biases; "
                "bytes. */\n");
    text_add(t, "#define BYTES_EMBED PACKED_BYTES(WEIGHT_TYPE, VOCAB, D_MODEL)\n");
    if (!p->arch->tied)
        text_add(t, "#define BYTES_HEAD PACKED_BYTES(WEIGHT_TYPE, VOCAB, D_MODEL)\n");
    static const enum weight matrices[] = {WEIGHT_QKV, WEIGHT_O, WEIGHT_GATE_UP, WEIGHT_DOWN};
    for (int i = 0; i < 4; i++) {
        const struct weight_row *row = &weight_rows[matrices[i]];
        if (matrices[i] == WEIGHT_GATE_UP)
            text_add(t, "#define BYTES_GATE_UP (2 * PACKED_BYTES(WEIGHT_TYPE, D_FF, D_MODEL))\n");
        else
            text_printf(t, "#define BYTES_%s PACKED_BYTES(WEIGHT_TYPE, %s, %s)\n", row->name,
                        extent_names[row->n], extent_names[row->k]);
    }
    text_printf(t, "#define LAYER_AT (BYTES_EMBED%s)\n", p->arch->tied ? "" : " + BYTES_HEAD");
    text_add(
        t, "#define LAYER_BYTES (BYTES_QKV + BYTES_O + BYTES_GATE_UP + BYTES_DOWN)\n"
           "#define VECTORS_AT (LAYER_AT + LAYERS * LAYER_BYTES)\n"
           "#define WEIGHT_BYTES (VECTORS_AT + (PARAM_FLOATS - PARAM_DECAYED) * sizeof(float))\n\n"
           "#define PACKED_EMBED (weights)\n");
    if (!p->arch->tied)
        text_add(t, "#define PACKED_HEAD (weights + BYTES_EMBED)\n");
    text_add(t, "#define PACKED_QKV(l) (weights + LAYER_AT + (size_t)(l) * LAYER_BYTES)\n"
                "#define PACKED_O(l) (PACKED_QKV(l) + BYTES_QKV)\n"
                "#define PACKED_GATE_UP(l) (PACKED_O(l) + BYTES_O)\n"
                "#define PACKED_DOWN(l) (PACKED_GATE_UP(l) + BYTES_GATE_UP)\n"
                "/* A gain or bias, by its place in the parameter slab. */\n"
                "#define VECTOR(at) ((const float *)(const void *)(weights + VECTORS_AT) + (at) - "
                "PARAM_DECAYED)\n");
}

static size_t most_floats(const struct plan *p, enum schedule_id a, enum schedule_id b)
{
    size_t x = p->schedules[a].work_floats, y = p->schedules[b].work_floats;
    return x > y ? x : y;
}

/* The floats of one thread's scratch in a kernel that has any: where it finds its own part. */
static const char *scratch_part(const struct kernel *k, struct text *t)
{
    switch (k->kind) {
    case KERNEL_ATTENTION:
    case KERNEL_ATTENTION_BACKWARD:
        return "ATTENTION_SCRATCH_FLOATS(SEQUENCE, HEAD_DIM)";
    case KERNEL_PREFILL_ATTENTION:
        return "PREFILL_ATTENTION_SCRATCH_FLOATS(HEADS / KV_HEADS, HEAD_DIM)";
    case KERNEL_MATVEC:
        text_printf(t, "MATVEC_SCRATCH_FLOATS(%s)", extent_names[k->k]);
        return t->at;
    default:
        return "MATMUL_THREAD";
    }
}

/* Behind the buffers: what kernels need while they run. A thread's own part is dead when its kernel
 * ends, and is the same memory for all of them: a thread may be some kernels ahead of another.
 * Shared blocks and sums may still be read by another thread, so they stand apart. */
static void emit_scratch(const struct plan *p, struct text *t)
{
    size_t train = most_floats(p, SCHEDULE_TRAIN, SCHEDULE_EVAL);
    size_t infer = most_floats(p, SCHEDULE_PREFILL, SCHEDULE_DECODE);
    text_printf(
        t,
        "\n/* Behind the buffers: each thread's scratch, blocks that threads share, sums. A "
        "kernel\n"
        " * finds its thread's part tid times its own `floats` behind its argument. */\n"
        "#define MOST(a, b) ((a) > (b) ? (a) : (b))\n"
        "#define T_PART MOST(MATMUL_THREAD, ATTENTION_SCRATCH_FLOATS(SEQUENCE, HEAD_DIM))\n"
        "#define T_SCRATCH(floats) (work + %zu + (size_t)tid * (T_PART - (floats)))\n"
        "#define T_SHARED (work + %zu + (size_t)THREADS * T_PART)\n"
        "#define T_BLOCKS (MATMUL_SHARE ? T_SHARED : T_SCRATCH(MATMUL_THREAD))\n"
        "#define T_BLOCK_FLOATS (MATMUL_SHARE ? MATMUL_SCRATCH_FLOATS : 0)\n"
        "#define T_SUMS (T_SHARED + T_BLOCK_FLOATS)\n"
        "#define T_SUM_FLOATS (THREADS * MOST(D_MODEL, 2 * HEAD_DIM) + 16)\n"
        "#define T_WORK_BYTES \\\n"
        "    (sizeof(float) * (%zu + (size_t)THREADS * T_PART + T_BLOCK_FLOATS + T_SUM_FLOATS))\n",
        train, train, train);
    text_printf(t,
                "#define P_PART \\\n"
                "    MOST(MOST(MATMUL_THREAD, \\\n"
                "              PREFILL_ATTENTION_SCRATCH_FLOATS(HEADS / KV_HEADS, HEAD_DIM)), \\\n"
                "         MATVEC_SCRATCH_FLOATS(MOST(D_MODEL, MOST(DQ, D_FF))))\n"
                "#define P_SCRATCH(floats) (work + %zu + (size_t)tid * (P_PART - (floats)))\n"
                "#define P_SUMS (work + %zu + (size_t)THREADS * P_PART)\n"
                "#define P_WORK_BYTES \\\n"
                "    (sizeof(float) * (%zu + THREADS * (P_PART + \\\n"
                "                      DECODE_ATTENTION_SCRATCH_FLOATS(HEADS / KV_HEADS, "
                "HEAD_DIM))))\n"
                "\n/* Keys and values of one layer. */\n"
                "#define CACHE_BYTES KV_LAYER_BYTES(CONTEXT, KV_HEADS, HEAD_DIM)\n"
                "#define CACHE(l) ((char *)s->cache + (size_t)(l) * CACHE_BYTES)\n",
                infer, infer, infer);
}

/* ---- model.c: calls ---- */

struct emitter {
    const struct plan *p;
    enum schedule_id id;
    const struct schedule *s;
    struct text *t;
    int indent;
};

static void line_start(struct emitter *e)
{
    text_printf(e->t, "%*s", e->indent * 4, "");
}

static void emit_operand_buffer(struct emitter *e, const struct operand *o)
{
    const struct buffer *b = &e->s->buffers[o->id];
    char name[32];
    upper_name(name, b->name);
    text_printf(e->t, "%s_%s", schedule_prefix[e->id], name);
    const char *copy = !b->kept                  ? ""
                       : o->at == AT_NEXT_LAYER  ? "(l + 1)"
                       : o->at == AT_FIRST_LAYER ? "(0)"
                       : o->at == AT_LAYER       ? "(l)"
                                                 : "(LAYERS)";
    text_add(e->t, copy);
    if (o->at == AT_CHUNK)
        text_printf(e->t, " + (size_t)row * %s", extent_names[b->width]);
    if (o->at == AT_LAST_ROW)
        text_printf(e->t, " + (size_t)(n - 1) * %s", extent_names[b->width]);
}

static bool is_training(enum schedule_id id)
{
    return id == SCHEDULE_TRAIN || id == SCHEDULE_EVAL;
}

static void emit_operand_weight(struct emitter *e, const struct operand *o)
{
    const struct weight_row *row = &weight_rows[o->id];
    const char *copy = row->layer ? "(l)" : "";
    if (o->kind == OPERAND_GRADIENT)
        text_printf(e->t, "grads + AT_%s%s", row->name, copy);
    else if (is_training(e->id))
        text_printf(e->t, "params + AT_%s%s", row->name, copy);
    else if (row->k == EXTENT_NONE)
        text_printf(e->t, "VECTOR(AT_%s%s)", row->name, copy);
    else
        text_printf(e->t, "PACKED_%s%s", row->name, copy);
}

static void emit_operand_scratch(struct emitter *e, const struct kernel *k)
{
    struct text own = {0};
    text_printf(e->t, "%s(%s)", is_training(e->id) ? "T_SCRATCH" : "P_SCRATCH",
                scratch_part(k, &own));
    text_free(&own);
}

static void emit_operand(struct emitter *e, const struct step *step, const struct operand *o)
{
    bool train = is_training(e->id);
    const char *row = o->at == AT_CHUNK ? " + row" : "";
    switch (o->kind) {
    case OPERAND_NONE:
        text_add(e->t, "NULL");
        break;
    case OPERAND_BUFFER:
        emit_operand_buffer(e, o);
        break;
    case OPERAND_WEIGHT:
    case OPERAND_GRADIENT:
        emit_operand_weight(e, o);
        break;
    case OPERAND_TOKENS:
        text_add(e->t, train ? "run->token" : e->id == SCHEDULE_DECODE ? "&token" : "token");
        break;
    case OPERAND_TARGETS:
        text_printf(e->t, "%s%s", train ? "run->target" : "target", row);
        break;
    case OPERAND_LOSSES:
        text_printf(e->t, "%s%s", train ? "run->loss" : "logprobs", row);
        break;
    case OPERAND_LOGITS:
        text_add(e->t, "logits");
        break;
    case OPERAND_SCALE:
        text_add(e->t, e->id == SCHEDULE_TRAIN ? "run->grad_scale" : "0");
        break;
    case OPERAND_ROPE:
        text_add(e->t, train ? "run->rope" : "s->rope");
        break;
    case OPERAND_CACHE:
        text_add(e->t, "CACHE(l)");
        break;
    case OPERAND_PAST:
        text_add(e->t, "s->past");
        break;
    case OPERAND_ROWS:
        text_add(e->t, step->loop == LOOP_CHUNKS  ? (train ? "LOSS_ROWS" : "rows")
                       : train                    ? "ROWS"
                       : e->id == SCHEDULE_DECODE ? "1"
                                                  : "n");
        break;
    case OPERAND_SCRATCH:
        emit_operand_scratch(e, &e->p->kernels[step->kernel]);
        break;
    case OPERAND_BLOCKS:
        text_add(e->t, "T_BLOCKS");
        break;
    case OPERAND_SUMS:
        text_add(e->t, train ? "T_SUMS" : "P_SUMS");
        break;
    default: /* of other targets */
        break;
    }
}

/* A call, broken behind a comma where it would pass column 100. */
static void emit_step(struct emitter *e, const struct step *step)
{
    enum { COLUMNS = 100 };
    if (step->barrier) {
        line_start(e);
        text_add(e->t, "team_barrier(tid);\n");
    }
    struct text *t = e->t;
    size_t line = t->length;
    line_start(e);
    text_printf(t, "%s(", e->p->kernels[step->kernel].name);
    int align = (int)(t->length - line);
    for (int k = 0; k <= step->n_operands; k++) {
        struct text word = {0};
        e->t = &word;
        if (k < step->n_operands)
            emit_operand(e, step, &step->operands[k]);
        e->t = t;
        text_add(&word, k < step->n_operands ? "," : "tid);");
        bool first = k == 0;
        if (!first && t->length - line + 1 + word.length > COLUMNS) {
            text_add(t, "\n");
            line = t->length;
            text_printf(t, "%*s", align, "");
            first = true;
        }
        text_printf(t, "%s%s", first ? "" : " ", word.at);
        text_free(&word);
    }
    text_add(t, "\n");
}

static void open_loop(struct emitter *e, const struct step *step)
{
    if (step->when != WHEN_ALWAYS) {
        line_start(e);
        text_printf(e->t, "if (%s) {\n", step->when == WHEN_SCORED ? "logprobs" : "logits");
        e->indent++;
    }
    if (step->loop == LOOP_NONE)
        return;
    line_start(e);
    switch (step->loop) {
    case LOOP_LAYERS:
        text_add(e->t, "for (int l = 0; l < LAYERS; l++) {\n");
        break;
    case LOOP_LAYERS_REVERSED:
        text_add(e->t, "for (int l = LAYERS - 1; l >= 0; l--) {\n");
        break;
    default:
        if (is_training(e->id)) {
            text_add(e->t, "for (int row = 0; row < ROWS; row += LOSS_ROWS) {\n");
            break;
        }
        text_add(e->t, "for (int row = 0; row < n; row += SCORE_ROWS) {\n");
        e->indent++;
        line_start(e);
        text_add(e->t, "int rows = n - row < SCORE_ROWS ? n - row : SCORE_ROWS;\n");
        e->indent--;
        break;
    }
    e->indent++;
}

static void close_loop(struct emitter *e, const struct step *step)
{
    if (step->loop != LOOP_NONE) {
        e->indent--;
        line_start(e);
        text_add(e->t, "}\n");
    }
    if (step->when != WHEN_ALWAYS) {
        e->indent--;
        line_start(e);
        text_add(e->t, "}\n");
    }
}

static void emit_steps(struct emitter *e)
{
    const struct schedule *s = e->s;
    for (int i = 0; i < s->n_steps; i++) {
        const struct step *step = &s->steps[i];
        bool opens = i == 0 || step->loop != step[-1].loop || step->when != step[-1].when;
        if (opens)
            open_loop(e, step);
        emit_step(e, step);
        bool closes =
            i + 1 == s->n_steps || step->loop != step[1].loop || step->when != step[1].when;
        if (closes)
            close_loop(e, step);
    }
}

static void emit_function(const struct plan *p, enum schedule_id id, const char *head,
                          const char *locals, const char *tail, struct text *t)
{
    struct emitter e = {p, id, &p->schedules[id], t, 1};
    text_printf(t, "\n%s\n{\n%s", head, locals);
    emit_steps(&e);
    text_printf(t, "%s}\n", tail);
}

static void emit_sum_squares(struct text *t)
{
    text_add(t, "\nstatic double sum_squares(const float *x, int tid)\n{\n"
                "    static double partial[THREADS];\n"
                "    return train_sum_squares(x, partial, tid);\n}\n");
}

static void emit_phases(const struct plan *p, struct text *t)
{
    emit_function(p, SCHEDULE_TRAIN,
                  "/* Forward and backward of one micro-batch; gradients accumulate. */\n"
                  "static void train(const struct archrt_train *run, int tid)",
                  "    const float *params = run->params;\n"
                  "    float *grads = run->grads, *work = run->work;\n\n",
                  "", t);
    emit_function(p, SCHEDULE_EVAL,
                  "/* Forward alone: the loss of every token. */\n"
                  "static void eval(const struct archrt_train *run, int tid)",
                  "    const float *params = run->params;\n    float *work = run->work;\n\n", "",
                  t);
    emit_function(
        p, SCHEDULE_PREFILL,
        "/* n tokens behind s->past; log-probabilities of `target` and the logits behind the\n"
        " * last token where asked for. */\n"
        "static void prefill(const struct archrt_infer *s, const int32_t *token, int n,\n"
        "                    float *logits, const int32_t *target, float *logprobs, int tid)",
        "    const char *weights = s->weights;\n    float *work = s->work;\n\n",
        "    if (logprobs) {\n        team_barrier(tid);\n"
        "        for (int i = 0; tid == 0 && i < n; i++)\n"
        "            logprobs[i] = -logprobs[i];\n    }\n",
        t);
    emit_function(
        p, SCHEDULE_DECODE,
        "/* One token behind s->past. */\n"
        "static void decode(const struct archrt_infer *s, int32_t token, float *logits, int tid)",
        "    const char *weights = s->weights;\n    float *work = s->work;\n\n", "", t);
}

/* ---- model.c: packing, tables ---- */

static void emit_pack(const struct plan *p, struct text *t)
{
    text_add(
        t,
        "\n/* Gate rows and up rows: two matrices, each padded to whole panels. */\n"
        "static void pack_pair(char *to, const float *w, int tid)\n{\n"
        "    weights_pack(WEIGHT_TYPE, to, w, D_FF, D_MODEL, tid);\n"
        "    weights_pack(WEIGHT_TYPE, to + BYTES_GATE_UP / 2, w + (size_t)D_FF * D_MODEL, D_FF,\n"
        "                 D_MODEL, tid);\n}\n");
    text_add(
        t,
        "\n/* Parameters into the form that inference reads. */\n"
        "static void pack(void *to, const float *params, int tid)\n{\n"
        "    char *weights = to;\n"
        "    weights_pack(WEIGHT_TYPE, PACKED_EMBED, params + AT_EMBED, VOCAB, D_MODEL, tid);\n");
    if (!p->arch->tied)
        text_add(
            t,
            "    weights_pack(WEIGHT_TYPE, PACKED_HEAD, params + AT_HEAD, VOCAB, D_MODEL, tid);\n");
    text_add(t, "    for (int l = 0; l < LAYERS; l++) {\n");
    static const enum weight matrices[] = {WEIGHT_QKV, WEIGHT_O, WEIGHT_GATE_UP, WEIGHT_DOWN};
    for (int i = 0; i < 4; i++) {
        const struct weight_row *row = &weight_rows[matrices[i]];
        if (matrices[i] == WEIGHT_GATE_UP)
            text_add(t, "        pack_pair(PACKED_GATE_UP(l), params + AT_GATE_UP(l), tid);\n");
        else
            text_printf(t,
                        "        weights_pack(WEIGHT_TYPE, PACKED_%s(l), params + AT_%s(l), %s, "
                        "%s, tid);\n",
                        row->name, row->name, extent_names[row->n], extent_names[row->k]);
    }
    text_add(t, "    }\n    if (tid == 0)\n"
                "        memcpy(weights + VECTORS_AT, params + PARAM_DECAYED,\n"
                "               (PARAM_FLOATS - PARAM_DECAYED) * sizeof(float));\n}\n");
}

static bool has_packed_weights(const struct kernel *k)
{
    return k->kind == KERNEL_MATVEC || k->kind == KERNEL_PREFILL_MATMUL ||
           k->kind == KERNEL_EMBED_ROW;
}

/* The shapes as macros; products of 1 keep their number. */
static void emit_kernel_row(const struct kernel *k, struct text *t)
{
    char kind[32];
    upper_name(kind, kernel_kind_names[k->kind]);
    text_printf(t, "    {.kind = ARCHRT_%s,\n     .name = \"%s\",\n     .phase = \"%s\",\n", kind,
                k->name, k->phase);
    text_printf(t, "     .m = %s,\n     .n = %s,\n     .k = %s,\n", extent_names[k->m],
                extent_names[k->n], k->k == EXTENT_NONE ? "0" : extent_names[k->k]);
    text_printf(
        t, "     .weights = %s,\n     .times = %d,\n     .flops = %.0f,\n     .bytes = %.0f,\n",
        has_packed_weights(k) ? "WEIGHT_TYPE" : "ARCHRT_F32", k->times, k->flops, k->bytes);
    text_printf(t, "     .flags = 0%s%s%s%s%s,\n", k->bias ? " | ARCHRT_BIAS" : "",
                k->residual ? " | ARCHRT_RESIDUAL" : "",
                k->accumulate ? " | ARCHRT_ACCUMULATE" : "", k->norm ? " | ARCHRT_WITH_NORM" : "",
                k->swiglu ? " | ARCHRT_WITH_SWIGLU" : "");
    if (has_packed_weights(k))
        text_printf(t, "     .pack = pack_%s,\n     .packed_bytes = BYTES_%s,\n", k->name,
                    k->kind == KERNEL_EMBED_ROW ? "EMBED" : weight_rows[k->of_matrix].name);
    text_printf(t, "     .function = (void (*)(void))%s},\n", k->name);
}

static void emit_kernel_table(const struct plan *p, struct text *t)
{
    for (int i = 0; i < p->n_kernels; i++) {
        const struct kernel *k = &p->kernels[i];
        if (!has_packed_weights(k))
            continue;
        text_printf(t, "\nstatic void pack_%s(void *to, const float *w, int tid)\n{\n", k->name);
        if (k->of_matrix == WEIGHT_GATE_UP)
            text_add(t, "    pack_pair(to, w, tid);\n}\n");
        else
            text_printf(t, "    weights_pack(WEIGHT_TYPE, to, w, %s, %s, tid);\n}\n",
                        k->kind == KERNEL_EMBED_ROW ? "VOCAB" : extent_names[k->n],
                        k->kind == KERNEL_EMBED_ROW ? "D_MODEL" : extent_names[k->k]);
    }
    text_add(t, "\nstatic const struct archrt_kernel kernels[] = {\n");
    for (int i = 0; i < p->n_kernels; i++)
        emit_kernel_row(&p->kernels[i], t);
    text_add(t, "};\n");
}

static void emit_model(const struct plan *p, const struct model_spec *m, const char *source,
                       struct text *t)
{
    const struct arch *a = p->arch;
    if (p->options.cuda)
        text_add(t, "\nextern const struct archrt_cuda archrt_cuda; /* model_cuda.c */\n");
    text_add(t, "\nconst struct archrt_model archrt_model = {\n    .abi = ARCHRT_ABI,\n"
                "    .tiles = ARCH_AMX,\n");
    text_printf(t, "    .source = \"%s\",\n    .options = \"%s, %s weights, %d threads\",\n",
                source, p->options.generic ? "generic" : "specialised",
                dtype_names[p->options.weights], p->options.threads);
    text_printf(t, "    .generic = %s,\n", p->options.generic ? "true" : "false");
    text_printf(
        t,
        "    .arch = {.name = \"%s\", .layers = %d, .d_model = %d, .heads = %d, .kv_heads = %d,\n"
        "             .head_dim = %d, .d_ff = %d, .vocab = %d, .context = %d,\n"
        "             .tied = %s, .qkv_bias = %s, .qk_norm = %s, .norm_eps = EPSILON,\n"
        "             .rope_theta = %.17g, .rope_factor = %.17g, .rope_low = %.17g,\n"
        "             .rope_high = %.17g, .rope_original = %.17g},\n",
        a->name, a->layers, a->d_model, a->heads, a->kv_heads, a->head_dim, a->d_ff, a->vocab,
        a->context, a->tied ? "true" : "false", a->qkv_bias ? "true" : "false",
        a->qk_norm ? "true" : "false", a->rope.theta, a->rope.factor, a->rope.low, a->rope.high,
        a->rope.original);
    const struct train_spec *h = &m->train;
    text_printf(t,
                "    .hyper = {.lr = %.9g, .warmup = %.9g, .weight_decay = %.9g, .clip = %.9g,\n"
                "              .beta1 = %.9g, .beta2 = %.9g, .eps = 1e-8, .tokens = %.17g,\n"
                "              .accumulate = %d},\n",
                h->lr, h->warmup, h->weight_decay, h->clip, h->beta1, h->beta2,
                h->tokens > 0 ? h->tokens : 0, h->accumulate);
    text_add(t, "    .tensors = tensors,\n    .n_tensors = sizeof tensors / sizeof tensors[0],\n"
                "    .param_floats = PARAM_FLOATS,\n");
    text_printf(t, "    .params = %lld,\n    .total_params = %lld,\n", (long long)arch_params(a),
                (long long)arch_total_params(a));
    text_printf(t,
                "    .threads = THREADS,\n    .predicted_train = PREDICTED_TRAIN,\n"
                "    .predicted_prefill = PREDICTED_PREFILL,\n"
                "    .predicted_decode = PREDICTED_DECODE,\n"
                "    .batch = %d,\n    .sequence = %d,\n    .work_bytes = T_WORK_BYTES,\n"
                "    .train = train,\n    .eval = eval,\n    .adamw = %s,\n"
                "    .sum_squares = sum_squares,\n    .weights = WEIGHT_TYPE,\n    .chunk = %d,\n",
                p->options.batch, p->options.sequence, "train_adamw", p->options.chunk);
    text_add(t,
             "    .weight_bytes = WEIGHT_BYTES,\n    .cache_bytes = LAYERS * CACHE_BYTES,\n"
             "    .infer_work_bytes = P_WORK_BYTES,\n    .pack = pack,\n    .prefill = prefill,\n"
             "    .decode = decode,\n    .kernels = kernels,\n"
             "    .n_kernels = sizeof kernels / sizeof kernels[0],\n");
    text_add(t, p->options.cuda ? "    .cuda = &archrt_cuda,\n};\n" : "};\n");
}

/* ---- the Hugging Face names of everything in the slab ---- */

struct tensor {
    const char *name;
    enum weight weight;
    int64_t skip; /* floats into the weight: q, k, v and gate, up stand together */
    int64_t rows, columns;
};

static void emit_tensor(const struct plan *p, const struct tensor *x, int layer, double init,
                        struct text *t)
{
    text_printf(t, "    %s(\"", x->columns ? "MATRIX" : init < 0 ? "GAIN" : "BIAS");
    if (layer >= 0)
        text_printf(t, "model.layers.%d.", layer);
    text_printf(t, "%s\", %lld, ", x->name, (long long)x->rows);
    if (x->columns)
        text_printf(t, "%lld, ", (long long)x->columns);
    text_printf(t, "%lld",
                (long long)(weight_offset(p, x->weight, layer < 0 ? 0 : layer) + x->skip));
    if (x->columns)
        text_printf(t, ", %.6g", init);
    text_add(t, "),\n");
}

/* Normal with 0.02; what is added to the residual stream, smaller by the number of such additions.
 */
static double init_of(enum weight w, int layers)
{
    if (w == WEIGHT_O || w == WEIGHT_DOWN)
        return 0.02 / sqrt(2.0 * layers);
    if (w == WEIGHT_QKV_BIAS)
        return 0;
    return weight_rows[w].k == EXTENT_NONE ? -1 : 0.02;
}

static void emit_layer_tensors(const struct plan *p, int layer, struct text *t)
{
    const struct arch *a = p->arch;
    int64_t d = a->d_model, dq = arch_dq(a), dkv = arch_dkv(a), f = a->d_ff, e = a->head_dim;
    const struct tensor rows[] = {
        {"self_attn.q_proj.weight", WEIGHT_QKV, 0, dq, d},
        {"self_attn.k_proj.weight", WEIGHT_QKV, dq * d, dkv, d},
        {"self_attn.v_proj.weight", WEIGHT_QKV, (dq + dkv) * d, dkv, d},
        {"self_attn.o_proj.weight", WEIGHT_O, 0, d, dq},
        {"mlp.gate_proj.weight", WEIGHT_GATE_UP, 0, f, d},
        {"mlp.up_proj.weight", WEIGHT_GATE_UP, f * d, f, d},
        {"mlp.down_proj.weight", WEIGHT_DOWN, 0, d, f},
        {"input_layernorm.weight", WEIGHT_NORM1, 0, d, 0},
        {"self_attn.q_proj.bias", WEIGHT_QKV_BIAS, 0, dq, 0},
        {"self_attn.k_proj.bias", WEIGHT_QKV_BIAS, dq, dkv, 0},
        {"self_attn.v_proj.bias", WEIGHT_QKV_BIAS, dq + dkv, dkv, 0},
        {"self_attn.q_norm.weight", WEIGHT_HEAD_NORM, 0, e, 0},
        {"self_attn.k_norm.weight", WEIGHT_HEAD_NORM, e, e, 0},
        {"post_attention_layernorm.weight", WEIGHT_NORM2, 0, d, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (weight_present(a, rows[i].weight))
            emit_tensor(p, &rows[i], layer, init_of(rows[i].weight, a->layers), t);
}

static void emit_tensors(const struct plan *p, struct text *t)
{
    const struct arch *a = p->arch;
    const struct tensor embed = {"model.embed_tokens.weight", WEIGHT_EMBED, 0, a->vocab,
                                 a->d_model};
    const struct tensor head = {"lm_head.weight", WEIGHT_HEAD, 0, a->vocab, a->d_model};
    const struct tensor norm = {"model.norm.weight", WEIGHT_NORMF, 0, a->d_model, 0};
    text_add(t, "\n/* Every tensor by its Hugging Face name: where it stands, how it starts. */\n"
                "#define MATRIX(name, rows, columns, at, deviation) \\\n"
                "    {name, 2, {rows, columns}, at, .decay = true, .init = deviation}\n"
                "#define GAIN(name, rows, at) {name, 1, {rows, 1}, at, .gain = true}\n"
                "#define BIAS(name, rows, at) {name, 1, {rows, 1}, at, .init = 0}\n"
                "static const struct archrt_tensor tensors[] = {\n");
    emit_tensor(p, &embed, -1, 0.02, t);
    for (int l = 0; l < a->layers; l++)
        emit_layer_tensors(p, l, t);
    emit_tensor(p, &norm, -1, -1, t);
    if (!a->tied)
        emit_tensor(p, &head, -1, 0.02, t);
    text_add(t, "};\n");
}

/* ---- the whole file ---- */

void emit_model_file(const struct plan *p, const struct model_spec *m, const char *source,
                     struct text *t)
{
    text_printf(t,
                "/* model.c - %s (%s): the schedule of every phase over the kernels of kernels.h.\n"
                " * A barrier stands where one thread reads what another wrote. */\n",
                p->arch->name, source);
    if (p->options.generic)
        text_add(t, "#define SHAPE_NUMBERS\n");
    text_add(t, "#include \"attention.h\"\n#include \"kvcache.h\"\n#include \"matmul.h\"\n#include "
                "\"weights.h\"\n"
                "#include \"archrt.h\"\n#include \"kernels.h\"\n");
    emit_parameters(p, t);
    emit_packed(p, t);
    emit_buffers(p, SCHEDULE_TRAIN, "Training; [LAYERS] where backward reads them", t);
    emit_buffers(p, SCHEDULE_EVAL, "Evaluation", t);
    emit_buffers(p, SCHEDULE_PREFILL, "Prompt processing", t);
    emit_buffers(p, SCHEDULE_DECODE, "Decode", t);
    emit_scratch(p, t);
    emit_phases(p, t);
    emit_sum_squares(t);
    emit_pack(p, t);
    emit_tensors(p, t);
    emit_kernel_table(p, t);
    emit_model(p, m, source, t);
}

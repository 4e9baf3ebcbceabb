/* emit_cuda_model.c - model_cuda.c: the phases of a CUDA program as tables of launches, for the
 * run-time library to walk (runtime/archrt_device.h). */
#include "codegen.h"

#include <string.h>

static const char *type_name(enum dtype t)
{
    return t == DTYPE_BF16 ? "bf16" : "fp32";
}

static int type_bytes(enum dtype t)
{
    return t == DTYPE_BF16 ? 2 : 4;
}

/* ---- operands as macros ---- */

static void emit_buffer(const struct plan *p, enum schedule_id id, int b, struct text *t)
{
    const struct buffer *f = &p->schedules[id].buffers[b];
    char name[32];
    upper_name(name, f->name);
    const char *prefix = schedule_prefix[id];
    if (f->kept)
        text_printf(t, "#define %s_%s(first, step) KEPT(%zu, %zu, first, step)", prefix, name,
                    4 * f->offset, 4 * f->floats);
    else
        text_printf(t, "#define %s_%s(chunk) WORK(%zu, chunk)", prefix, name, 4 * f->offset);
    text_printf(t, " /* %s [%s%s][%s] */\n", type_name(f->type),
                f->kept ? b == BUFFER_VALUE + VALUE_X ? "LAYERS + 1][" : "LAYERS][" : "",
                extent_names[f->rows], extent_names[f->width]);
}

static void emit_buffers(const struct plan *p, enum schedule_id id, const char *what,
                         struct text *t)
{
    if (p->schedules[id].n_steps == 0)
        return;
    text_printf(t, "\n/* %s. Buffers that never live at once share a place. */\n", what);
    for (int b = 0; b < BUFFER_COUNT; b++)
        if (p->schedules[id].buffers[b].used)
            emit_buffer(p, id, b, t);
}

static void emit_weights(const struct plan *p, struct text *t)
{
    text_add(t,
             "\n/* Parameters: the same place, in elements, as bf16 (W), as fp32 vectors (V) and "
             "as fp32\n * gradients (G). (step) is 1 inside the loops over layers. */\n");
    for (int w = 1; w < WEIGHT_COUNT; w++) {
        const struct weight_row *row = &weight_rows[w];
        if (!weight_present(p->arch, (enum weight)w))
            continue;
        long long at = (long long)weight_offset(p, (enum weight)w, 0);
        long long stride = (long long)weight_layer_stride(p, (enum weight)w);
        text_printf(t, "#define AT_%s %lldull, %lldull /* %s%s[%s]%s%s%s */\n", row->name, at,
                    stride, row->layer ? "[LAYERS]" : "", w == WEIGHT_HEAD_NORM ? "[2]" : "",
                    extent_names[row->n], row->k == EXTENT_NONE ? "" : "[",
                    row->k == EXTENT_NONE ? "" : extent_names[row->k],
                    row->k == EXTENT_NONE ? "" : "]");
    }
    text_add(
        t, "#define PLACE(slab, bytes, at, stride) {slab, (bytes) * (at), (bytes) * (stride), 0}\n"
           "#define WEIGHT_2(at, stride) PLACE(SLAB_WEIGHTS, 2, at, stride)\n"
           "#define VECTOR_2(at, stride) PLACE(SLAB_VECTORS, 4, (at) - PARAM_DECAYED, stride)\n"
           "#define GRADIENT_2(at, stride) PLACE(SLAB_GRADS, 4, at, stride)\n"
           "#define OLD_2(at, stride) PLACE(SLAB_OLD_GRADS, 4, at, stride)\n"
           "#define NEXT_2(at, stride) VECTOR_2((at) + (stride), stride)\n"
           "#define W(...) WEIGHT_2(__VA_ARGS__)\n#define V(...) VECTOR_2(__VA_ARGS__)\n"
           "#define V_NEXT(...) NEXT_2(__VA_ARGS__) /* of the layer behind */\n"
           "#define G(...) GRADIENT_2(__VA_ARGS__)\n#define OLD(...) OLD_2(__VA_ARGS__)\n");
    if (p->extents[EXTENT_HEAD_TOKENS])
        text_add(t, "/* A turn's tokens of embedding or head. */\n"
                    "#define PIECE(slab, bytes, at, stride) \\\n"
                    "    {slab, (bytes) * (at), 0, (bytes) * (size_t)HEAD_TOKENS * D_MODEL}\n"
                    "#define WEIGHT_PIECE(at, stride) PIECE(SLAB_WEIGHTS, 2, at, stride)\n"
                    "#define GRADIENT_PIECE(at, stride) PIECE(SLAB_GRADS, 4, at, stride)\n"
                    "#define OLD_PIECE(at, stride) PIECE(SLAB_OLD_GRADS, 4, at, stride)\n"
                    "#define W_TOKENS(...) WEIGHT_PIECE(__VA_ARGS__)\n"
                    "#define G_TOKENS(...) GRADIENT_PIECE(__VA_ARGS__)\n"
                    "#define OLD_TOKENS(...) OLD_PIECE(__VA_ARGS__)\n");
}

static void emit_slabs(struct text *t)
{
    text_add(t,
             "\n/* What the caller fills, what kernels share. */\n"
             "#define NONE {SLAB_NONE, 0, 0, 0}\n"
             "#define WHOLE(slab) {slab, 0, 0, 0}\n"
             "#define BY_CHUNK(slab, rows) {slab, 0, 0, 4 * (size_t)(rows)}\n"
             "#define PAGE_BYTES (2 * 2 * (size_t)DKV * KV_PAGE) /* k and v, one layer */\n"
             "#define CACHE {SLAB_CACHE, 0, PAGE_BYTES, 0}\n"
             "\n/* Of the workspace: a buffer that lives once, from a chunk's row on; one with a "
             "copy a\n * layer, of which the first is meant, and step is 1 where the layers "
             "follow it. */\n"
             "#define WORK(at, chunk) {SLAB_WORK, at, 0, chunk}\n"
             "#define KEPT(at, copy, first, step) \\\n"
             "    {SLAB_WORK, (at) + (first) * (size_t)(copy), (step) * (size_t)(copy), 0}\n");
}

/* ---- steps ---- */

struct emitter {
    const struct plan *p;
    enum schedule_id id;
    const struct schedule *s;
    struct text *t;
};

static void emit_buffer_operand(const struct emitter *e, const struct operand *o, struct text *t)
{
    const struct buffer *b = &e->s->buffers[o->id];
    char name[32];
    upper_name(name, b->name);
    text_printf(t, "%s_%s", schedule_prefix[e->id], name);
    if (b->kept) {
        text_add(t, o->at == AT_NEXT_LAYER    ? "(1, 1)"
                    : o->at == AT_FIRST_LAYER ? "(0, 0)"
                    : o->at == AT_LAYER       ? "(0, 1)"
                                              : "(LAYERS, 0)");
        return;
    }
    if (o->at == AT_CHUNK)
        text_printf(t, "(%d * (size_t)LOSS_ROWS * %s)", type_bytes(b->type),
                    extent_names[b->width]);
    else
        text_add(t, "(0)");
}

/* A kept buffer in the loop over chunks: its last copy, rows of this turn. */
static void emit_kept_chunk(const struct emitter *e, const struct operand *o, struct text *t)
{
    const struct buffer *b = &e->s->buffers[o->id];
    text_printf(t, "{SLAB_WORK, %zu, 0, %d * (size_t)LOSS_ROWS * %s}",
                4 * (b->offset + (size_t)e->p->arch->layers * b->floats), type_bytes(b->type),
                extent_names[b->width]);
}

static const char *const slab_of[OPERAND_KINDS] = {
    [OPERAND_ROPE] = "WHOLE(SLAB_ROPE)",         [OPERAND_CACHE] = "CACHE",
    [OPERAND_SCRATCH] = "WHOLE(SLAB_SCRATCH)",   [OPERAND_TOKENS] = "WHOLE(SLAB_TOKEN)",
    [OPERAND_CALL] = "WHOLE(SLAB_CALL)",         [OPERAND_SLOT] = "WHOLE(SLAB_SLOT)",
    [OPERAND_POSITION] = "WHOLE(SLAB_POSITION)", [OPERAND_SEGMENT_ROW] = "WHOLE(SLAB_SEGMENT_ROW)",
    [OPERAND_HEAD_ROW] = "WHOLE(SLAB_HEAD_ROW)", [OPERAND_PAGES] = "WHOLE(SLAB_PAGES)",
    [OPERAND_NEXT] = "WHOLE(SLAB_NEXT)",         [OPERAND_LENGTH] = "WHOLE(SLAB_LENGTH)",
    [OPERAND_OUTPUT] = "WHOLE(SLAB_OUTPUT)",     [OPERAND_SAMPLING] = "WHOLE(SLAB_SAMPLING)",
    [OPERAND_COUNTER] = "WHOLE(SLAB_COUNTER)",   [OPERAND_STEP] = "WHOLE(SLAB_STEP)",
    [OPERAND_PARAMS] = "WHOLE(SLAB_PARAMS)",     [OPERAND_WEIGHTS] = "WHOLE(SLAB_WEIGHTS)",
    [OPERAND_GRADS] = "WHOLE(SLAB_GRADS)",       [OPERAND_MOMENT1] = "WHOLE(SLAB_MOMENT1)",
    [OPERAND_MOMENT2] = "WHOLE(SLAB_MOMENT2)",
};

static void emit_operand(const struct emitter *e, const struct operand *o, struct text *t)
{
    switch (o->kind) {
    case OPERAND_BUFFER:
        if (e->s->buffers[o->id].kept && o->at == AT_CHUNK)
            emit_kept_chunk(e, o, t);
        else
            emit_buffer_operand(e, o, t);
        break;
    case OPERAND_WEIGHT:
        if (o->at == AT_TOKENS) {
            text_printf(t, "W_TOKENS(AT_%s)", weight_rows[o->id].name);
            break;
        }
        text_printf(t, "%s(AT_%s)",
                    weight_rows[o->id].decay ? "W"
                    : o->at == AT_NEXT_LAYER ? "V_NEXT"
                                             : "V",
                    weight_rows[o->id].name);
        break;
    case OPERAND_GRADIENT:
    case OPERAND_OLD_GRADIENT:
        text_printf(t, "%s%s(AT_%s)", o->kind == OPERAND_GRADIENT ? "G" : "OLD",
                    o->at == AT_TOKENS ? "_TOKENS" : "", weight_rows[o->id].name);
        break;
    case OPERAND_TARGETS:
    case OPERAND_LOSSES:
        text_printf(t, o->at == AT_CHUNK ? "BY_CHUNK(SLAB_%s, LOSS_ROWS)" : "WHOLE(SLAB_%s)",
                    o->kind == OPERAND_TARGETS ? "TARGET" : "LOSS");
        break;
    default:
        text_add(t, slab_of[o->kind] ? slab_of[o->kind] : "NONE");
        break;
    }
}

/* What the step does, in the words of the operation lists: "norm1 + qkv + rope: [1][QKV] ..." */
static void emit_comment(const struct emitter *e, const struct step *step)
{
    const struct kernel *k = &e->p->kernels[step->kernel];
    text_add(e->t, "    /* ");
    for (int i = 0; i < step->n_fused; i++)
        text_printf(e->t, "%s%s", i ? " + " : "", step->fused[i]->name);
    text_printf(e->t, ": m %s, n %s", extent_names[k->m], extent_names[k->n]);
    if (k->k != EXTENT_NONE)
        text_printf(e->t, ", k %s", extent_names[k->k]);
    text_add(e->t, " */\n");
}

static void emit_step(const struct emitter *e, const struct step *step)
{
    enum { COLUMNS = 96 };
    char name[64];
    struct text *t = e->t;
    emit_comment(e, step);
    upper_name(name, e->p->kernels[step->kernel].name + strlen("cuda_"));
    size_t line = t->length;
    text_printf(t, "    {K_%s, %d, {", name, step->n_operands);
    for (int k = 0; k < step->n_operands; k++) {
        struct text word = {0};
        emit_operand(e, &step->operands[k], &word);
        bool last = k + 1 == step->n_operands;
        text_add(&word, last ? "}}," : ",");
        if (k > 0 && t->length - line + 1 + word.length > COLUMNS) {
            text_add(t, "\n");
            line = t->length;
            text_add(t, "         ");
        } else if (k > 0) {
            text_add(t, " ");
        }
        text_add(t, word.at);
        text_free(&word);
    }
    text_add(t, "\n");
}

static bool same_loop(const struct step *a, const struct step *b)
{
    return a->loop == b->loop && a->when == b->when;
}

static void emit_loop_rows(const struct emitter *e, struct text *loops)
{
    static const char *const kinds[] = {[LOOP_NONE] = "ARCHRT_ONCE",
                                        [LOOP_LAYERS] = "ARCHRT_LAYERS",
                                        [LOOP_LAYERS_REVERSED] = "ARCHRT_LAYERS_REVERSED",
                                        [LOOP_CHUNKS] = "ARCHRT_CHUNKS",
                                        [LOOP_VOCAB] = "ARCHRT_CHUNKS"};
    static const char *const when[] = {[WHEN_ALWAYS] = "ARCHRT_ALWAYS",
                                       [WHEN_SCORED] = "ARCHRT_SCORED",
                                       [WHEN_LOGITS] = "ARCHRT_LOGITS"};
    const struct schedule *s = e->s;
    for (int i = 0; i < s->n_steps;) {
        int end = i + 1;
        while (end < s->n_steps && same_loop(&s->steps[i], &s->steps[end]))
            end++;
        enum loop loop = s->steps[i].loop;
        text_printf(loops, "    {%s, %s, ", kinds[loop], when[s->steps[i].when]);
        text_add(loops, loop == LOOP_NONE     ? "1"
                        : loop == LOOP_VOCAB  ? "VOCAB / HEAD_TOKENS"
                        : loop == LOOP_CHUNKS ? "ROWS / LOSS_ROWS"
                                              : "LAYERS");
        text_printf(loops, ", %s_steps + %d, %d},\n", schedule_names[e->id], i, end - i);
        i = end;
    }
}

static void emit_phase(const struct plan *p, enum schedule_id id, const char *what, struct text *t)
{
    static const char *const loop_titles[] = {
        [LOOP_NONE] = "once",
        [LOOP_LAYERS] = "each layer",
        [LOOP_LAYERS_REVERSED] = "each layer, last to first",
        [LOOP_CHUNKS] = "each chunk of rows whose logits exist at once",
        [LOOP_VOCAB] = "each piece of the vocabulary",
    };
    static const char *const when_titles[] = {[WHEN_ALWAYS] = "",
                                              [WHEN_SCORED] = ", where targets are scored",
                                              [WHEN_LOGITS] = ", where logits are wanted"};
    const struct schedule *s = &p->schedules[id];
    struct emitter e = {p, id, s, t};
    if (s->n_steps == 0)
        return;
    text_printf(t, "\n/* ---- %s ---- */\n\nstatic const struct archrt_step %s_steps[] = {\n", what,
                schedule_names[id]);
    for (int i = 0; i < s->n_steps; i++) {
        if (i == 0 || !same_loop(&s->steps[i], &s->steps[i - 1]))
            text_printf(t, "    /* -- %s%s -- */\n", loop_titles[s->steps[i].loop],
                        when_titles[s->steps[i].when]);
        emit_step(&e, &s->steps[i]);
    }
    text_printf(t, "};\nstatic const struct archrt_loop %s_loops[] = {\n", schedule_names[id]);
    emit_loop_rows(&e, t);
    text_add(t, "};\n");
}

/* ---- kernels, images ---- */

static void emit_kernel_names(const struct plan *p, struct text *t)
{
    text_add(t, "\nenum {\n");
    for (int i = 0; i < p->n_kernels; i++) {
        char name[64];
        upper_name(name, p->kernels[i].name + strlen("cuda_"));
        text_printf(t, "    K_%s,\n", name);
    }
    text_add(t, "};\n");
}

/* The place of a unit among those that this program has. */
static int unit_number(const struct plan *p, int unit)
{
    int n = 0;
    for (int u = 0; u < unit; u++)
        n += cuda_unit_used(p, u);
    return n;
}

static void emit_flags(const struct kernel *k, struct text *t)
{
    const struct {
        bool set;
        const char *name;
    } flags[] = {{k->bias, "WITH_BIAS"},           {k->residual, "WITH_RESIDUAL"},
                 {k->accumulate, "ACCUMULATES"},   {k->swiglu, "WITH_SWIGLU"},
                 {k->head_norm, "WITH_HEAD_NORM"}, {k->out_f32, "TO_F32"}};
    text_add(t, "     .flags = 0");
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++)
        if (flags[i].set)
            text_printf(t, " | ARCHRT_CUDA_%s", flags[i].name);
    text_add(t, ",\n");
}

static void emit_kernel_row(const struct plan *p, const struct kernel *k, struct text *t)
{
    char kind[32];
    upper_name(kind, kernel_kind_names[k->kind]);
    const char *third = k->k == EXTENT_NONE ? "0" : extent_names[k->k];
    text_printf(t, "    {.kind = ARCHRT_CUDA_%s,\n     .name = \"%s\",\n     .phase = \"%s\",\n",
                kind, k->name, k->phase);
    text_printf(t, "     .unit = %d,\n     .passes = %d,\n     .early = %s,\n",
                unit_number(p, cuda_unit(p, k)), kernel_passes[k->kind],
                kernel_early[k->kind] ? "true" : "false");
    text_printf(t, "     .m = %s,\n     .n = %s,\n     .k = %s,\n", extent_names[k->m],
                extent_names[k->n], third);
    emit_flags(k, t);
    text_printf(t,
                "     .times = %d,\n     .flops = %.0f,\n     .bytes = %.0f,\n"
                "     .floor = %.4g,\n     .predicted = %.4g",
                k->times, k->flops, k->bytes, k->floor, k->seconds);
    if (k->a_token.bytes > 0)
        text_printf(t,
                    ",\n     .a_token = {.flops = %.0f, .bytes = %.0f, .floor = %.4g, "
                    ".predicted = %.4g}",
                    k->a_token.flops, k->a_token.bytes, k->a_token.floor, k->a_token.seconds);
    text_add(t, "},\n");
}

static void emit_kernels(const struct plan *p, struct text *t)
{
    text_add(t, "\n/* ---- kernels ---- */\n\n"
                "static const struct archrt_cuda_kernel kernels[] = {\n");
    for (int i = 0; i < p->n_kernels; i++)
        emit_kernel_row(p, &p->kernels[i], t);
    text_add(t, "};\n");
}

/* The unit's name without ".cu". */
static int stem(int unit)
{
    return (int)(strlen(cuda_unit_files[unit]) - 3);
}

static void emit_images(const struct plan *p, const struct cuda_target *target, struct text *t)
{
    for (int u = 0; u < CUDA_UNITS; u++)
        if (cuda_unit_used(p, u))
            text_printf(t, "IMAGE(%.*s_%s, \"%.*s.%s.image\")\n", stem(u), cuda_unit_files[u],
                        target->name, stem(u), cuda_unit_files[u], target->name);
    text_printf(t, "static const struct archrt_image images_%s[] = {\n", target->name);
    for (int u = 0; u < CUDA_UNITS; u++)
        if (cuda_unit_used(p, u))
            text_printf(t, "    {%.*s_%s, %.*s_%s_end},\n", stem(u), cuda_unit_files[u],
                        target->name, stem(u), cuda_unit_files[u], target->name);
    text_printf(t,
                "};\n#define CUDA_ARCH %d\n"
                "static const struct archrt_launches launches_%s[] = {\n"
                "#include \"cuda_launches.h\"\n};\n#undef CUDA_ARCH\n",
                target->sm, target->name);
}

static void emit_targets(const struct plan *p, const struct cuda_targets *targets, struct text *t)
{
    text_add(t, "\n/* ---- what was compiled, for each architecture ---- */\n\n"
                "_Static_assert(D_MODEL % 8 == 0 && D_FF % 8 == 0 && HEAD_DIM % 8 == 0 && VOCAB % "
                "8 == 0,\n               \"rows of bf16 are multiples of 16 bytes, as tensor maps "
                "want\");\n"
                "/* A cubin, or PTX with a zero behind it. */\n"
                "#define IMAGE(name, file) \\\n"
                "    __asm__(\".section .rodata\\n.balign 64\\n\" #name \":\\n.incbin \\\"\" file "
                "\"\\\"\\n\" \\\n"
                "            #name \"_end:\\n.byte 0\\n.previous\\n\"); \\\n"
                "    extern const char name[], name##_end[];\n");
    if (p->extents[EXTENT_TILE_ROWS])
        text_printf(t,
                    "_Static_assert(CUDA_TILE_ROWS(SLOTS) == %lld && CUDA_TILE_COLUMNS(D_MODEL) == "
                    "%lld &&\n                   CUDA_SQUARES(D_MODEL) == %lld, \"room for what "
                    "kernels hand on\");\n",
                    (long long)p->extents[EXTENT_TILE_ROWS],
                    (long long)p->extents[EXTENT_TILE_COLUMNS],
                    (long long)p->extents[EXTENT_SQUARES]);
    for (int i = 0; i < targets->n; i++)
        emit_images(p, &targets->list[i], t);
    text_add(t, "static const struct archrt_cuda_target targets[] = {\n");
    for (int i = 0; i < targets->n; i++) {
        const struct cuda_target *x = &targets->list[i];
        text_printf(t, "    {\"%s\", %d, %s, images_%s, launches_%s},\n", x->name, x->sm,
                    x->exact ? "true" : "false", x->name, x->name);
    }
    text_add(t, "};\nstatic const char *const units[] = {\n");
    for (int u = 0; u < CUDA_UNITS; u++)
        if (cuda_unit_used(p, u))
            text_printf(t, "    \"%s\",\n", cuda_unit_files[u]);
    text_add(t, "};\n");
}

/* ---- the whole table ---- */

static size_t most(size_t a, size_t b)
{
    return a > b ? a : b;
}

static void emit_sizes(const struct plan *p, struct text *t)
{
    const struct schedule *s = p->schedules;
    size_t train = most(s[SCHEDULE_TRAIN].work_floats, s[SCHEDULE_EVAL].work_floats);
    size_t infer = most(s[SCHEDULE_PREFILL].work_floats,
                        most(s[SCHEDULE_DECODE].work_floats, s[SCHEDULE_BATCH].work_floats));
    text_printf(t,
                "    .train_bytes = {[SLAB_WEIGHTS] = 2 * (size_t)PARAM_DECAYED,\n"
                "                    [SLAB_ROPE] = 4 * (size_t)CONTEXT * HEAD_DIM,\n"
                "                    [SLAB_WORK] = %zu,\n"
                "                    [SLAB_COUNTER] = 4 * CUDA_COUNTERS,\n"
                "                    [SLAB_TOKEN] = 4 * (size_t)ROWS,\n"
                "                    [SLAB_TARGET] = 4 * (size_t)ROWS,\n"
                "                    [SLAB_LOSS] = 4 * (size_t)ROWS,\n"
                "                    [SLAB_PARAMS] = 4 * (size_t)PARAM_FLOATS,\n"
                "                    [SLAB_GRADS] = 4 * (size_t)PARAM_FLOATS,\n"
                "                    [SLAB_MOMENT1] = 4 * (size_t)PARAM_FLOATS,\n"
                "                    [SLAB_MOMENT2] = 4 * (size_t)PARAM_FLOATS,\n"
                "                    [SLAB_STEP] = sizeof(struct cuda_train)},\n",
                4 * train);
    text_printf(t,
                "    .infer_bytes = {[SLAB_WEIGHTS] = 2 * (size_t)PARAM_DECAYED,\n"
                "                    [SLAB_VECTORS] = 4 * (size_t)(PARAM_FLOATS - PARAM_DECAYED),\n"
                "                    [SLAB_ROPE] = 4 * (size_t)CONTEXT * HEAD_DIM,\n"
                "                    [SLAB_WORK] = %zu,\n"
                "                    [SLAB_COUNTER] = 4 * DECODE_COUNTERS(SLOTS),\n"
                "                    [SLAB_TOKEN] = 4 * CALL_ROWS,\n"
                "                    [SLAB_TARGET] = 4 * CALL_ROWS,\n"
                "                    [SLAB_LOSS] = 4 * CALL_ROWS,\n"
                "                    [SLAB_PAGES] = 4 * (size_t)SLOTS * PAGES,\n"
                "                    [SLAB_CALL] = sizeof(struct cuda_call),\n"
                "                    [SLAB_SLOT] = 4 * CALL_ROWS,\n"
                "                    [SLAB_POSITION] = 4 * CALL_ROWS,\n"
                "                    [SLAB_SEGMENT_ROW] = 4 * (SEGMENTS + 1),\n"
                "                    [SLAB_HEAD_ROW] = 4 * CALL_ROWS,\n"
                "                    [SLAB_NEXT] = 4 * SLOTS,\n"
                "                    [SLAB_LENGTH] = 4 * SLOTS,\n"
                "                    [SLAB_OUTPUT] = 4 * (size_t)SLOTS * CONTEXT,\n"
                "                    [SLAB_SAMPLING] = SLOTS * sizeof(struct cuda_sampling)},\n",
                4 * infer);
}

static void emit_table(const struct plan *p, struct text *t)
{
    const struct schedule *s = p->schedules;
    text_printf(t,
                "\nconst struct archrt_cuda archrt_cuda = {\n"
                "    .options = \"%s, bf16, %lld slots\",\n"
                "    .targets = targets,\n    .n_targets = sizeof targets / sizeof targets[0],\n"
                "    .units = units,\n    .n_units = sizeof units / sizeof units[0],\n"
                "    .kernels = kernels,\n    .n_kernels = sizeof kernels / sizeof kernels[0],\n",
                p->options.generic ? "generic" : "specialised",
                (long long)p->extents[EXTENT_SLOTS]);
    if (p->device)
        text_printf(t, "    .priced_on = \"%s\",\n", p->device->name);
    text_add(t, "    .phases = {\n");
    for (int id = 0; id < SCHEDULE_COUNT; id++) {
        char name[32];
        upper_name(name, schedule_names[id]);
        const char *loops = schedule_names[id];
        if (s[id].n_steps)
            text_printf(
                t,
                "        [ARCHRT_PHASE_%s] = {%s_loops, sizeof %s_loops / sizeof "
                "%s_loops[0],\n            .past = %.0f, .floor = %.6g, .predicted = %.6g,\n"
                "            .floor_a_token = %.6g, .predicted_a_token = %.6g},\n",
                name, loops, loops, loops, s[id].past, s[id].price.floor, s[id].price.seconds,
                s[id].a_token.floor, s[id].a_token.seconds);
    }
    text_printf(t, "    },\n    .floor_adding = %.6g,\n    .predicted_adding = %.6g,\n",
                p->adding.floor, p->adding.seconds);
    emit_sizes(p, t);
    text_printf(t,
                "    .param_floats = PARAM_FLOATS,\n    .param_decayed = PARAM_DECAYED,\n"
                "    .param_table = PARAM_TABLE,\n"
                "    .layers = LAYERS,\n    .batch = BATCH,\n    .sequence = SEQUENCE,\n"
                "    .chunk = CHUNK,\n    .slots = SLOTS,\n"
                "    .segments = SEGMENTS,\n    .slot_pages = PAGES,\n    .pool_pages = %d,\n"
                "    .prompt = %d,\n    .generate = %d,\n    .serve_predicted = %.6g,\n"
                "    .page_bytes = PAGE_BYTES,\n    .logits_at = %zu,\n"
                "    .decode_logits_at = %zu,\n    .batch_logits_at = %zu,\n};\n",
                p->options.pages, p->options.prompt, p->options.generate, p->options.throughput,
                4 * s[SCHEDULE_PREFILL].buffers[VALUE_LOGITS].offset,
                4 * s[SCHEDULE_DECODE].buffers[VALUE_LOGITS].offset,
                4 * s[SCHEDULE_BATCH].buffers[VALUE_LOGITS].offset);
}

void emit_cuda_model(const struct plan *p, const char *source, const struct cuda_targets *targets,
                     struct text *t)
{
    text_printf(t,
                "/* model_cuda.c - %s (%s) on a GPU: every phase as a list of launches.\n"
                " * An operand is {slab, bytes, bytes a layer, bytes a chunk}. */\n",
                p->arch->name, source);
    if (p->options.generic)
        text_add(t, "#define SHAPE_NUMBERS\n");
    text_add(t, "#include \"archrt_device.h\"\n#include \"cuda_shape.h\"\n#include \"launch.h\"\n\n"
                "/* Rows of a call: of prefill or of decode. */\n"
                "#define CALL_ROWS (CHUNK > SLOTS ? CHUNK : SLOTS)\n");
    emit_slabs(t);
    emit_weights(p, t);
    emit_buffers(p, SCHEDULE_TRAIN, "Training; [LAYERS] where backward reads them", t);
    emit_buffers(p, SCHEDULE_EVAL, "Evaluation", t);
    emit_buffers(p, SCHEDULE_PREFILL, "Prompt processing", t);
    emit_buffers(p, SCHEDULE_DECODE, "Decode, one slot", t);
    emit_buffers(p, SCHEDULE_BATCH, "Decode, all slots", t);
    emit_kernel_names(p, t);
    emit_phase(p, SCHEDULE_TRAIN, "a micro-batch, forward and backward", t);
    emit_phase(p, SCHEDULE_EVAL, "a micro-batch, forward alone", t);
    emit_phase(p, SCHEDULE_PREFILL, "a chunk of prompts", t);
    emit_phase(p, SCHEDULE_DECODE, "one token of one slot", t);
    emit_phase(p, SCHEDULE_UPDATE, "the optimiser", t);
    emit_phase(p, SCHEDULE_BATCH, "one token of every slot", t);
    emit_kernels(p, t);
    emit_targets(p, targets, t);
    emit_table(p, t);
}

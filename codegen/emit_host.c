/* emit_host.c - the plan as C for the host.
 *
 * Emits shape.h (every number), the instances of the kernel files that the plan uses, and, from
 * emit_model.c, model.c: the schedules as calls. With --generic, shape.h names variables instead of
 * numbers, and shape.c gives them their values; all other text stays the same. */
#include "codegen.h"

#include <string.h>

/* ---- shape.h ---- */

static const struct {
    enum extent extent;
    const char *what;
} shape_rows[] = {
    {EXTENT_LAYERS, "L"},
    {EXTENT_D_MODEL, "D"},
    {EXTENT_HEADS, "H"},
    {EXTENT_KV_HEADS, "K"},
    {EXTENT_HEAD_DIM, "E"},
    {EXTENT_D_FF, "F"},
    {EXTENT_VOCAB, "V"},
    {EXTENT_CONTEXT, "C"},
    {EXTENT_BATCH, "sequences of a micro-batch"},
    {EXTENT_SEQUENCE, "tokens of a training sequence"},
    {EXTENT_LOSS_ROWS, "rows whose logits exist at once in training"},
    {EXTENT_CHUNK, "tokens that a prefill call takes at most"},
    {EXTENT_SCORE_ROWS, "of them, rows whose logits exist at once"},
};
enum { SHAPE_ROWS = sizeof shape_rows / sizeof shape_rows[0] };

static void lower(char *to, const char *name)
{
    while (*name)
        *to++ = (char)(*name >= 'A' && *name <= 'Z' ? *name - 'A' + 'a' : *name), name++;
    *to = 0;
}

static void emit_constants(const struct plan *p, struct text *t)
{
    for (int i = 0; i < SHAPE_ROWS; i++)
        text_printf(t, "#define %s %lld /* %s */\n", extent_names[shape_rows[i].extent],
                    (long long)p->extents[shape_rows[i].extent], shape_rows[i].what);
}

static void emit_variables(struct text *t)
{
    text_add(t, "extern const struct shape {\n");
    for (int i = 0; i < SHAPE_ROWS; i++) {
        char name[32];
        lower(name, extent_names[shape_rows[i].extent]);
        text_printf(t, "    int %s; /* %s */\n", name, shape_rows[i].what);
    }
    text_add(t, "} shape;\n\n");
    for (int i = 0; i < SHAPE_ROWS; i++) {
        char name[32];
        lower(name, extent_names[shape_rows[i].extent]);
        text_printf(t, "#define %s (shape.%s)\n", extent_names[shape_rows[i].extent], name);
    }
}

static void emit_shape(const struct plan *p, const char *source, struct text *t)
{
    int64_t decayed;
    int64_t floats = slab_floats(p, &decayed);
    text_printf(t, "/* shape.h - the shapes of %s (%s)%s. */\n", p->arch->name, source,
                p->options.generic ? ", read at run time" : "");
    text_add(t, "#ifndef SHAPE_H\n#define SHAPE_H\n\n");
    if (p->options.generic) {
        text_add(t, "#ifdef SHAPE_NUMBERS /* model.c: its tables want constants */\n");
        emit_constants(p, t);
        text_add(t, "#else\n");
        emit_variables(t);
        text_add(t, "#endif\n");
    } else
        emit_constants(p, t);
    text_add(t, "\n#define DQ (HEADS * HEAD_DIM)\n#define DKV (KV_HEADS * HEAD_DIM)\n"
                "#define QKV (DQ + 2 * DKV)\n#define GATE_UP (2 * D_FF)\n"
                "#define ROWS (BATCH * SEQUENCE)\n\n");
    text_printf(t, "#define THREADS %d\n", p->options.threads);
    text_printf(t, "#define ROW_GRANULE %s /* rows go to threads by whole %s */\n",
                p->row_is_sequence ? "SEQUENCE" : "1", p->row_is_sequence ? "sequences" : "rows");
    text_printf(t, "#define EPSILON %.9gf\n", p->arch->norm_eps);
    text_printf(t, "#define WEIGHT_TYPE %d /* %s weights in inference */\n", p->options.weights,
                dtype_names[p->options.weights]);
    text_printf(t, "#define PARAM_FLOATS %lld\n#define PARAM_DECAYED %lld /* matrices, first */\n",
                (long long)floats, (long long)decayed);
    text_add(t, "\n#endif\n");
}

static void emit_shape_values(const struct plan *p, struct text *t)
{
    text_add(t, "/* shape.c - the shapes that the generic build reads at run time. */\n"
                "#include \"shape.h\"\n\nconst struct shape shape = {\n");
    for (int i = 0; i < SHAPE_ROWS; i++) {
        char name[32];
        lower(name, extent_names[shape_rows[i].extent]);
        text_printf(t, "    .%s = %lld,\n", name, (long long)p->extents[shape_rows[i].extent]);
    }
    text_add(t, "};\n");
}

/* ---- instances of kernel files ---- */

struct macro {
    const char *name;
    const char *value;
};

static const char *flag(bool set)
{
    return set ? "1" : "0";
}

static int matmul_macros(const struct kernel *k, struct macro *m)
{
    bool prefill = k->kind == KERNEL_PREFILL_MATMUL;
    const struct macro rows[] = {{"MM_M", extent_names[k->m]},
                                 {"MM_N", extent_names[k->n]},
                                 {"MM_K", extent_names[k->k]},
                                 {"MM_BIAS", flag(k->bias)},
                                 {"MM_RESIDUAL", flag(k->residual)},
                                 {prefill ? "MM_HALVES" : "MM_ACCUMULATE",
                                  flag(prefill ? k->of_matrix == WEIGHT_GATE_UP : k->accumulate)},
                                 {"WTYPE", "WEIGHT_TYPE"}};
    int n = prefill ? 7 : 6;
    memcpy(m, rows, (size_t)n * sizeof *m);
    return n;
}

static int matvec_macros(const struct kernel *k, struct macro *m)
{
    const struct macro rows[] = {{"MV_N", extent_names[k->n]},
                                 {"MV_K", extent_names[k->k]},
                                 {"MV_NORM", flag(k->norm)},
                                 {"MV_BIAS", flag(k->bias)},
                                 {"MV_RESIDUAL", flag(k->residual)},
                                 {"MV_SWIGLU", flag(k->swiglu)},
                                 {"MV_EPS", "EPSILON"},
                                 {"WTYPE", "WEIGHT_TYPE"}};
    memcpy(m, rows, sizeof rows);
    return sizeof rows / sizeof rows[0];
}

/* Heads, under the prefix that the file wants, then what only some of them want. */
static int head_macros(const struct kernel *k, struct macro *m)
{
    static const struct macro rope[] = {
        {"ROPE_H", "HEADS"}, {"ROPE_K", "KV_HEADS"}, {"ROPE_E", "HEAD_DIM"}};
    static const struct macro attention[] = {
        {"ATT_H", "HEADS"}, {"ATT_K", "KV_HEADS"}, {"ATT_E", "HEAD_DIM"}};
    enum kernel_kind kind = k->kind;
    bool turns = kind == KERNEL_ROPE || kind == KERNEL_ROPE_BACKWARD || kind == KERNEL_PREFILL_ROPE;
    int n = 0;
    if (kind == KERNEL_ROPE || kind == KERNEL_ROPE_BACKWARD) {
        m[n++] = (struct macro){"ROPE_M", extent_names[k->m]};
        m[n++] = (struct macro){"ROPE_T", "SEQUENCE"};
    } else if (kind == KERNEL_ATTENTION || kind == KERNEL_ATTENTION_BACKWARD) {
        m[n++] = (struct macro){"ATT_B", "BATCH"};
        m[n++] = (struct macro){"ATT_T", "SEQUENCE"};
    } else if (kind != KERNEL_DECODE_ATTENTION) {
        m[n++] = (struct macro){turns ? "ROPE_M" : "ATT_M", extent_names[k->m]};
    }
    memcpy(m + n, turns ? rope : attention, sizeof rope);
    n += 3;
    if (turns || kind == KERNEL_DECODE_ATTENTION) {
        m[n++] = (struct macro){"HEAD_NORM", flag(k->head_norm)};
        m[n++] = (struct macro){"NORM_EPS", "EPSILON"};
    }
    return n;
}

/* The macros that the kernel file's first comment lists. */
static int kernel_macros(const struct kernel *k, struct macro *m)
{
    switch (k->kind) {
    case KERNEL_MATMUL:
    case KERNEL_MATMUL_DX:
    case KERNEL_MATMUL_DW:
    case KERNEL_PREFILL_MATMUL:
        return matmul_macros(k, m);
    case KERNEL_MATVEC:
        return matvec_macros(k, m);
    case KERNEL_ROPE:
    case KERNEL_ROPE_BACKWARD:
    case KERNEL_PREFILL_ROPE:
    case KERNEL_ATTENTION:
    case KERNEL_ATTENTION_BACKWARD:
    case KERNEL_PREFILL_ATTENTION:
    case KERNEL_DECODE_ATTENTION:
        return head_macros(k, m);
    case KERNEL_EMBED:
    case KERNEL_EMBED_BACKWARD:
        m[0] = (struct macro){"EMBED_M", extent_names[k->m]};
        m[1] = (struct macro){"EMBED_D", "D_MODEL"};
        return 2;
    case KERNEL_EMBED_ROW:
        m[0] = (struct macro){"EMBED_V", "VOCAB"};
        m[1] = (struct macro){"EMBED_D", "D_MODEL"};
        m[2] = (struct macro){"WTYPE", "WEIGHT_TYPE"};
        return 3;
    case KERNEL_NORM:
    case KERNEL_NORM_BACKWARD:
        m[0] = (struct macro){"NORM_M", extent_names[k->m]};
        m[1] = (struct macro){"NORM_D", "D_MODEL"};
        m[2] = (struct macro){"NORM_EPS", "EPSILON"};
        m[3] = (struct macro){"NORM_ACCUMULATE", flag(k->accumulate)};
        return k->kind == KERNEL_NORM ? 3 : 4;
    case KERNEL_SWIGLU:
    case KERNEL_SWIGLU_BACKWARD:
        m[0] = (struct macro){"SWIGLU_M", extent_names[k->m]};
        m[1] = (struct macro){"SWIGLU_F", "D_FF"};
        return 2;
    case KERNEL_LOSS:
        m[0] = (struct macro){"LOSS_M", extent_names[k->m]};
        m[1] = (struct macro){"LOSS_V", "VOCAB"};
        return 2;
    case KERNEL_SUM_SQUARES:
        m[0] = (struct macro){"SUM_N", "PARAM_FLOATS"};
        return 1;
    case KERNEL_ADAMW:
        m[0] = (struct macro){"ADAM_N", "PARAM_FLOATS"};
        m[1] = (struct macro){"ADAM_DECAYED", "PARAM_DECAYED"};
        return 2;
    default:
        break;
    }
    return 0;
}

static void set_granule(struct text *t, bool sequences)
{
    text_printf(t, "\n#undef ROW_GRANULE\n#define ROW_GRANULE %s\n", sequences ? "SEQUENCE" : "1");
}

static void emit_instance(const struct kernel *k, struct text *t)
{
    struct macro macros[8];
    int n = kernel_macros(k, macros);
    text_printf(t, "\n#define KERNEL %s\n", k->name);
    for (int i = 0; i < n; i++)
        text_printf(t, "#define %s %s\n", macros[i].name, macros[i].value);
    text_printf(t, "#include \"%s\"\n", kernel_files[k->kind]);
}

/* Translation units, those that take longest to compile first, so that two compilers end together.
 */
enum unit { UNIT_DECODE, UNIT_PREFILL, UNIT_ROWS, UNIT_GRADIENTS, UNIT_PRODUCTS, UNIT_COUNT };
static const struct {
    const char *file, *what;
} units[UNIT_COUNT] = {
    [UNIT_PRODUCTS] = {"train_products.c", "the forward products of training"},
    [UNIT_GRADIENTS] = {"train_gradients.c", "the gradient products of training"},
    [UNIT_ROWS] = {"train_rest.c", "attention, norms and the rest of training"},
    [UNIT_PREFILL] = {"prefill.c", "the kernels of prompt processing"},
    [UNIT_DECODE] = {"decode.c", "the kernels of one token"},
};

static enum unit unit_of(const struct kernel *k)
{
    if (strcmp(k->phase, "prefill") == 0)
        return UNIT_PREFILL;
    if (strcmp(k->phase, "decode") == 0)
        return UNIT_DECODE;
    if (k->kind == KERNEL_MATMUL)
        return UNIT_PRODUCTS;
    return k->kind == KERNEL_MATMUL_DX || k->kind == KERNEL_MATMUL_DW ? UNIT_GRADIENTS : UNIT_ROWS;
}

static void emit_unit(const struct plan *p, enum unit u, struct text *t)
{
    text_printf(t,
                "/* %s - %s. Each kernel file is a template;\n"
                " * the macros before it are its shape. */\n"
                "#include \"kernel.h\"\n#include \"archrt.h\"\n#include \"archrt_kernels.h\"\n"
                "#include \"kernels.h\"\n",
                units[u].file, units[u].what);
    bool sequences = p->row_is_sequence;
    for (int i = 0; i < p->n_kernels; i++) {
        const struct kernel *k = &p->kernels[i];
        if (unit_of(k) != u)
            continue;
        bool whole = p->row_is_sequence && k->m == EXTENT_ROWS;
        if (whole != sequences)
            set_granule(t, whole);
        sequences = whole;
        emit_instance(k, t);
    }
}

/* The prototype's name in archrt_kernels.h: kinds that share one share it. */
static void emit_prototypes(const struct plan *p, struct text *t)
{
    text_add(t, "/* kernels.h - the kernels of this program. */\n#ifndef KERNELS_H\n"
                "#define KERNELS_H\n\n#include \"archrt_kernels.h\"\n\n");
    for (int i = 0; i < p->n_kernels; i++)
        text_printf(t, "%s_fn %s;\n", kernel_kind_names[p->kernels[i].kind], p->kernels[i].name);
    text_add(t, "\n#endif\n");
}

/* ---- all files ---- */

static struct text *add_file(struct emitted_files *out, const char *name, bool compile)
{
    struct emitted *f = &out->files[out->n++];
    *f = (struct emitted){.name = name, .compile = compile};
    return &f->text;
}

void emit_host(const struct plan *p, const struct model_spec *m, const char *source,
               struct emitted_files *out)
{
    emit_shape(p, source, add_file(out, "shape.h", false));
    emit_prototypes(p, add_file(out, "kernels.h", false));
    for (int u = 0; u < UNIT_COUNT; u++)
        emit_unit(p, (enum unit)u, add_file(out, units[u].file, true));
    emit_model_file(p, m, source, add_file(out, "model.c", true));
    if (p->options.generic)
        emit_shape_values(p, add_file(out, "shape.c", true));
}

/* emit_cuda.c - the plan as CUDA.
 *
 * Emits cuda_shape.h (every number), the instances of the kernel files that the plan uses, and
 * cuda_launches.h (grid, threads and shared memory of each, once per architecture compiled for).
 * emit_cuda_model.c writes the phases. With --generic, cuda_shape.h names variables instead of
 * numbers; all other text stays the same. */
#include "codegen.h"

#include <string.h>

/* ---- cuda_shape.h ---- */

static const struct {
    enum extent extent;
    const char *what;
    bool literal; /* a number in the generic build too: it sizes registers */
} shape_rows[] = {
    {EXTENT_LAYERS, "L", false},
    {EXTENT_D_MODEL, "D", false},
    {EXTENT_HEADS, "H", false},
    {EXTENT_KV_HEADS, "K", false},
    {EXTENT_HEAD_DIM, "E", true},
    {EXTENT_D_FF, "F", false},
    {EXTENT_VOCAB, "V, rounded up", false},
    {EXTENT_TOKENS, "ids below it are tokens, those up to V padding", false},
    {EXTENT_CONTEXT, "C", false},
    {EXTENT_BATCH, "sequences of a micro-batch", false},
    {EXTENT_SEQUENCE, "T, tokens of a training sequence", false},
    {EXTENT_LOSS_ROWS, "rows whose logits exist at once in training", false},
    {EXTENT_HEAD_TOKENS, "tokens whose logits' gradients do", false},
    {EXTENT_CHUNK, "tokens that a prefill call takes at most", false},
    {EXTENT_SLOTS, "sequences decoded at once", true},
    {EXTENT_SEGMENTS, "prompts that a prefill call takes at most", true},
};
enum { SHAPE_ROWS = sizeof shape_rows / sizeof shape_rows[0] };

static void lower_name(char *to, const char *name)
{
    while (*name)
        *to++ = (char)(*name >= 'A' && *name <= 'Z' ? *name - 'A' + 'a' : *name), name++;
    *to = 0;
}

enum which { ALL_ROWS, LITERAL_ROWS };

/* A number of this plan, not 0, that is no literal. */
static bool is_variable(const struct plan *p, int i)
{
    return p->extents[shape_rows[i].extent] && !shape_rows[i].literal;
}

static void emit_numbers(const struct plan *p, enum which which, struct text *t)
{
    for (int i = 0; i < SHAPE_ROWS; i++)
        if (p->extents[shape_rows[i].extent] && (which == ALL_ROWS || shape_rows[i].literal))
            text_printf(t, "#define %s %lld /* %s */\n", extent_names[shape_rows[i].extent],
                        (long long)p->extents[shape_rows[i].extent], shape_rows[i].what);
}

/* Constant memory that the compiler must not look into: it could be written before a launch. */
static void emit_variables(const struct plan *p, struct text *t)
{
    text_add(t, "struct shape {\n");
    for (int i = 0; i < SHAPE_ROWS; i++) {
        char name[32];
        lower_name(name, extent_names[shape_rows[i].extent]);
        if (is_variable(p, i))
            text_printf(t, "    int %s; /* %s */\n", name, shape_rows[i].what);
    }
    text_add(t, "};\nSHAPE_VARIABLE = {");
    bool first = true;
    for (int i = 0; i < SHAPE_ROWS; i++)
        if (is_variable(p, i)) {
            text_printf(t, "%s%lld", first ? "" : ", ",
                        (long long)p->extents[shape_rows[i].extent]);
            first = false;
        }
    text_add(t, "};\n\n");
    for (int i = 0; i < SHAPE_ROWS; i++) {
        char name[32];
        lower_name(name, extent_names[shape_rows[i].extent]);
        if (is_variable(p, i))
            text_printf(t, "#define %s (shape.%s)\n", extent_names[shape_rows[i].extent], name);
    }
}

static void emit_shape(const struct plan *p, const char *source, struct text *t)
{
    int64_t decayed;
    int64_t floats = slab_floats(p, &decayed);
    text_printf(t, "/* cuda_shape.h - the shapes of %s (%s) on a GPU%s. */\n", p->arch->name,
                source, p->options.generic ? ", read at run time" : "");
    text_add(t, "#ifndef CUDA_SHAPE_H\n#define CUDA_SHAPE_H\n\n");
    if (p->options.generic) {
        text_add(t, "#define PRODUCT_WIDE(rows, columns) 256 /* of tiles on sm_90 */\n"
                    "#define SKINNY_WIDE(m, n, k) 64 /* likewise, in decode */\n"
                    "#define STREAM_AT_ONCE(m) 2u /* pieces of x: registers are few */\n"
                    "#ifdef SHAPE_NUMBERS /* model_cuda.c: its tables want constants */\n");
        emit_numbers(p, ALL_ROWS, t);
        text_add(t, "#else\n#ifdef ARCH_EMULATE\n#define SHAPE_VARIABLE static struct shape "
                    "shape\n#else\n#define SHAPE_VARIABLE extern \"C\" __constant__ struct shape "
                    "shape; \\\n    __constant__ struct shape shape\n#endif\n");
        emit_variables(p, t);
        emit_numbers(p, LITERAL_ROWS, t);
        text_add(t, "#endif\n");
    } else
        emit_numbers(p, ALL_ROWS, t);
    text_printf(
        t,
        "\n#define DQ (HEADS * HEAD_DIM)\n#define DKV (KV_HEADS * HEAD_DIM)\n"
        "#define QKV (DQ + 2 * DKV)\n#define GATE_UP (2 * D_FF)\n#define ROWS (BATCH * SEQUENCE)\n"
        "#define GROUP (HEADS / KV_HEADS) /* query heads of a kv head */\n"
        "#define PAGES ((CONTEXT + KV_PAGE - 1) / KV_PAGE) /* of the cache, a slot at most */\n\n"
        "#define EPSILON %.9gf\n"
        "#define PARAM_FLOATS %lld\n#define PARAM_DECAYED %lld /* matrices, first */\n"
        "#define PARAM_TABLE %lld /* an embedding that is no head, first of those */\n\n#endif\n",
        p->arch->norm_eps, (long long)floats, (long long)decayed,
        (long long)(p->arch->tied ? 0 : weight_offset(p, WEIGHT_HEAD, 0)));
}

/* ---- instances of kernel files ---- */

struct macro {
    const char *name;
    const char *value;
};
enum { MAX_MACROS = 8 };
struct macros {
    struct macro list[MAX_MACROS];
    int n;
};

static void put(struct macros *m, const char *name, const char *value)
{
    if (m->n < MAX_MACROS)
        m->list[m->n++] = (struct macro){name, value};
}

static void put_flag(struct macros *m, const char *name, bool set)
{
    put(m, name, set ? "1" : "0");
}

static void put_shape(struct macros *m, const struct kernel *k, const char *const names[3])
{
    const enum extent extents[] = {k->m, k->n, k->k};
    for (int i = 0; i < 3; i++)
        if (names[i])
            put(m, names[i], extent_names[extents[i]]);
}

static void decode_macros(const struct kernel *k, struct macros *m)
{
    bool product = k->kind != CUDA_DECODE_EMBED && k->kind != CUDA_DECODE_ATTENTION &&
                   k->kind != CUDA_SKINNY_ATTENTION;
    put_shape(m, k,
              (const char *const[]){"DM_M", product ? "DM_N" : NULL, product ? "DM_K" : NULL});
    if (k->kind == CUDA_DECODE_QKV || k->kind == CUDA_SKINNY_QKV) {
        put_flag(m, "DM_BIAS", k->bias);
        put_flag(m, "DM_HEAD_NORM", k->head_norm);
    }
}

static void matmul_macros(const struct kernel *k, struct macros *m)
{
    put_shape(m, k, (const char *const[]){"MM_M", "MM_N", "MM_K"});
    if (k->kind == CUDA_MATMUL_DX) {
        put_flag(m, "MM_ACCUMULATE", k->accumulate);
        return;
    }
    put_flag(m, "MM_BIAS", k->bias);
    if (k->kind == CUDA_MATMUL) {
        put_flag(m, "MM_RESIDUAL", k->residual);
        put_flag(m, "MM_SWIGLU", k->swiglu);
        put_flag(m, "MM_OUT_F32", k->out_f32);
    }
}

static void rope_macros(const struct kernel *k, struct macros *m)
{
    put(m, "ROPE_M", extent_names[k->m]);
    if (k->kind != CUDA_PREFILL_ROPE)
        put(m, "ROPE_T", "SEQUENCE");
    put_flag(m, "ROPE_HEAD_NORM", k->head_norm);
    put(m, "NORM_EPS", "EPSILON");
}

/* The macros that the kernel file's first comment lists. */
static void kernel_macros(const struct kernel *k, struct macros *m)
{
    switch (k->kind) {
    case CUDA_SAMPLE:
        put_shape(m, k, (const char *const[]){"SAMPLE_M", "SAMPLE_V", NULL});
        put(m, "SAMPLE_TOKENS", "TOKENS");
        break;
    case CUDA_ROPE:
    case CUDA_ROPE_BACKWARD:
    case CUDA_PREFILL_ROPE:
        rope_macros(k, m);
        break;
    case CUDA_PREFILL_ATTENTION:
        put(m, "ATT_M", extent_names[k->m]);
        break;
    case CUDA_ATTENTION:
    case CUDA_ATTENTION_BACKWARD:
        put(m, "ATT_B", "BATCH");
        put(m, "ATT_T", "SEQUENCE");
        break;
    case CUDA_EMBED:
    case CUDA_EMBED_BACKWARD:
        put_shape(m, k, (const char *const[]){"EMBED_M", "EMBED_D", NULL});
        break;
    case CUDA_NORM:
    case CUDA_NORM_BACKWARD:
        put_shape(m, k, (const char *const[]){"NORM_M", "NORM_D", NULL});
        put(m, "NORM_EPS", "EPSILON");
        if (k->kind == CUDA_NORM_BACKWARD) {
            put_flag(m, "NORM_ACCUMULATE", k->accumulate);
            put_flag(m, "NORM_IN_PLACE", k->in_place);
            put_flag(m, "NORM_FACTOR", k->factor);
        }
        break;
    case CUDA_SWIGLU:
    case CUDA_SWIGLU_BACKWARD:
        put_shape(m, k, (const char *const[]){"SWIGLU_M", "SWIGLU_F", NULL});
        break;
    case CUDA_HEAD_LOSS:
    case CUDA_HEAD_SOFTMAX:
    case CUDA_HEAD_GRADIENT:
        put_shape(m, k, (const char *const[]){"MM_M", "MM_N", "MM_K"});
        put(m, "MM_TOKENS", "TOKENS");
        break;
    case CUDA_SUM_SQUARES:
        put(m, "SUM_N", "PARAM_FLOATS");
        break;
    case CUDA_ADAMW:
        put(m, "ADAM_N", "PARAM_FLOATS");
        put(m, "ADAM_DECAYED", "PARAM_DECAYED");
        put(m, "ADAM_TABLE", "PARAM_TABLE");
        break;
    case CUDA_MATMUL:
    case CUDA_MATMUL_DX:
    case CUDA_MATMUL_DW:
        matmul_macros(k, m);
        break;
    default:
        decode_macros(k, m);
        break;
    }
}

static void emit_instance(const struct kernel *k, struct text *t)
{
    struct macros m = {.n = 0};
    kernel_macros(k, &m);
    text_printf(t, "\n/* %.4g MFLOP and %.4g MB a call, %d of them. */\n#define KERNEL %s\n",
                k->flops / 1e6, k->bytes / 1e6, k->times, k->name);
    for (int i = 0; i < m.n; i++)
        text_printf(t, "#define %s %s\n", m.list[i].name, m.list[i].value);
    text_printf(t, "#include \"%s\"\n", kernel_files[k->kind]);
}

/* Translation units: what takes long to compile stands apart and first. */
enum unit { UNIT_PREFILL, UNIT_FORWARD, UNIT_BACKWARD, UNIT_BATCH, UNIT_DECODE, UNIT_UPDATE };
const char *const cuda_unit_files[CUDA_UNITS] = {
    [UNIT_PREFILL] = "cuda_prefill.cu",   [UNIT_FORWARD] = "cuda_forward.cu",
    [UNIT_BACKWARD] = "cuda_backward.cu", [UNIT_BATCH] = "cuda_batch.cu",
    [UNIT_DECODE] = "cuda_decode.cu",     [UNIT_UPDATE] = "cuda_update.cu",
};
static const char *const unit_titles[CUDA_UNITS] = {
    [UNIT_PREFILL] = "the kernels of prompt processing",
    [UNIT_FORWARD] = "training, forward",
    [UNIT_BACKWARD] = "training, gradients",
    [UNIT_BATCH] = "the kernels of one token for every slot",
    [UNIT_DECODE] = "the kernels of one token",
    [UNIT_UPDATE] = "the optimiser",
};

int cuda_unit(const struct plan *p, const struct kernel *k)
{
    (void)p;
    if (k->kind == CUDA_SUM_SQUARES || k->kind == CUDA_ADAMW)
        return UNIT_UPDATE;
    if (strcmp(k->phase, "prefill") == 0)
        return UNIT_PREFILL;
    if (strcmp(k->phase, "decode") == 0)
        return UNIT_DECODE;
    if (strcmp(k->phase, "batch") == 0)
        return UNIT_BATCH;
    bool backward = k->kind >= CUDA_EMBED_BACKWARD;
    return backward ? UNIT_BACKWARD : UNIT_FORWARD;
}

bool cuda_unit_used(const struct plan *p, int unit)
{
    for (int i = 0; i < p->n_kernels; i++)
        if (cuda_unit(p, &p->kernels[i]) == unit)
            return true;
    return false;
}

static void emit_unit(const struct plan *p, int unit, struct text *t)
{
    text_printf(t,
                "/* %s - %s. Each kernel file is a template;\n"
                " * the macros before it are its shape. */\n"
                "#include \"device.h\"\n#include \"archrt_cuda.h\"\n#include \"cuda_shape.h\"\n"
                "#define CUDA_ARCH DEVICE_SM\n#include \"launch.h\"\n",
                cuda_unit_files[unit], unit_titles[unit]);
    for (int i = 0; i < p->n_kernels; i++)
        if (cuda_unit(p, &p->kernels[i]) == unit)
            emit_instance(&p->kernels[i], t);
}

/* ---- cuda_launches.h ---- */

/* Kinds of which launch.h has KIND_MAPS. */
static bool has_maps(enum kernel_kind kind)
{
    return kind == CUDA_MATMUL || kind == CUDA_MATMUL_DX || kind == CUDA_MATMUL_DW ||
           kind == CUDA_HEAD_LOSS || kind == CUDA_HEAD_SOFTMAX || kind == CUDA_HEAD_GRADIENT ||
           kind == CUDA_ATTENTION || kind == CUDA_PREFILL_ATTENTION || kind == CUDA_SKINNY_QKV ||
           kind == CUDA_SKINNY_RESIDUAL || kind == CUDA_SKINNY_GATE_UP || kind == CUDA_SKINNY_HEAD;
}

static void emit_launches(const struct plan *p, struct text *t)
{
    text_add(t,
             "/* cuda_launches.h - {blocks}, threads, shared memory of each pass of each kernel; "
             "scratch;\n * tensor maps, as launch.h computes them for CUDA_ARCH. */\n");
    for (int i = 0; i < p->n_kernels; i++) {
        const struct kernel *k = &p->kernels[i];
        char kind[32];
        upper_name(kind, kernel_kind_names[k->kind]);
        const char *third = k->k == EXTENT_NONE ? "0" : extent_names[k->k];
        text_add(t, "{{");
        for (int pass = 1; pass <= kernel_passes[k->kind]; pass++) {
            text_printf(t, "%s{%s_LAUNCH", pass > 1 ? ",\n " : "", kind);
            if (pass > 1)
                text_printf(t, "_%d", pass);
            text_printf(t, "(%s, %s, %s)}", extent_names[k->m], extent_names[k->n], third);
        }
        text_add(t, "},\n ");
        if (k->scratch)
            text_printf(t, "%s_SCRATCH(%s, %s, %s)", kind, extent_names[k->m], extent_names[k->n],
                        third);
        else
            text_add(t, "0");
        if (has_maps(k->kind))
            text_printf(t, ",\n %s_MAPS(%s, %s, %s)", kind, extent_names[k->m], extent_names[k->n],
                        third);
        else
            text_add(t, ",\n {.n = 0}");
        text_printf(t, "}, /* %s */\n", k->name);
    }
}

/* ---- all files ---- */

static struct text *add_file(struct emitted_files *out, const char *name, bool device)
{
    struct emitted *f = &out->files[out->n++];
    *f = (struct emitted){.name = name, .cuda = true, .device = device};
    return &f->text;
}

void emit_cuda(const struct plan *p, const struct model_spec *m, const char *source,
               struct emitted_files *out)
{
    (void)m;
    emit_shape(p, source, add_file(out, "cuda_shape.h", false));
    for (int unit = 0; unit < CUDA_UNITS; unit++)
        if (cuda_unit_used(p, unit))
            emit_unit(p, unit, add_file(out, cuda_unit_files[unit], true));
    emit_launches(p, add_file(out, "cuda_launches.h", false));
}

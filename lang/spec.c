/* spec.c - settings become the structs of lang.h, defaults included; and the two ways in. */
#include <math.h>
#include <string.h>

#include "front.h"

const char *const metric_names[METRIC_COUNT] = {
    [METRIC_LOSS] = "loss",
    [METRIC_THROUGHPUT] = "throughput",
    [METRIC_LATENCY] = "latency",
    [METRIC_TTFT] = "ttft",
    [METRIC_MEMORY] = "memory",
    [METRIC_KV_BYTES] = "kv_bytes",
    [METRIC_PARAMS] = "params",
    [METRIC_TOTAL_PARAMS] = "total_params",
    [METRIC_TRAIN_TIME] = "train_time",
    [METRIC_TRAIN_MEMORY] = "train_memory",
    [METRIC_R] = "r",
};

const char *const knob_names[KNOB_COUNT] = {
    [KNOB_D_MODEL] = "d_model",   [KNOB_R] = "r",
    [KNOB_GQA] = "gqa",           [KNOB_HEADS] = "heads",
    [KNOB_KV_HEADS] = "kv_heads", [KNOB_D_FF] = "d_ff",
    [KNOB_LAYERS] = "layers",     [KNOB_HEAD_DIM] = "head_dim",
};

const char *const dtype_names[DTYPE_COUNT] = {"fp32", "bf16", "int8"};
const char *const recompute_names[RECOMPUTE_COUNT] = {"auto", "none", "norms", "mlp", "all"};
const char *const logits_names[LOGITS_COUNT] = {"auto", "chunks", "never"};

const char *const law_form_names[] = {
    [LAW_CHINCHILLA] = "chinchilla", [LAW_MULTIPLICATIVE] = "multiplicative",
    [LAW_ADDITIVE] = "additive",     [LAW_JOINT] = "joint",
    [LAW_MORPH] = "morph",
};

double dtype_bytes(enum dtype t)
{
    return t == DTYPE_F32 ? 4 : t == DTYPE_BF16 ? 2 : 1 + 4.0 / 64;
}

int spec_find_model(const struct spec *s, const char *name)
{
    for (int i = 0; i < s->n_models; i++)
        if (!strcmp(s->models[i].name, name))
            return i;
    return -1;
}

int spec_find_study(const struct spec *s, const char *name)
{
    for (int i = 0; i < s->n_studies; i++)
        if (!strcmp(s->studies[i].name, name))
            return i;
    return -1;
}

/* ---- filling structs --------------------------------------------------------------------------
 */

static void fill_params(struct model_spec *m, const struct setting *s)
{
    m->params = s->number;
    m->params_tolerance = s->tolerance;
    m->params_at = s->value_at;
}

static void fill(char *base, const struct setting *s)
{
    const struct key_info *k = key_infos + s->key;
    void *field = base + k->offset;
    switch (k->type) {
    case TYPE_INT:
        *(int *)field = (int)s->number;
        break;
    case TYPE_REAL:
        *(double *)field = s->number;
        break;
    case TYPE_SPAN:
        ((double *)field)[0] = s->lo;
        ((double *)field)[1] = s->hi;
        break;
    case TYPE_BOOL:
        *(bool *)field = s->choice;
        break;
    case TYPE_KNOB:
        *(struct domain *)field = s->domain;
        break;
    case TYPE_PARAMS:
        fill_params((struct model_spec *)(void *)base, s);
        break;
    case TYPE_LAW:
    case TYPE_DEVICE:
        *(int *)field = s->target ? s->target->index : -1;
        break;
    case TYPE_DTYPE:
        *(enum dtype *)field = (enum dtype)s->choice;
        break;
    case TYPE_RECOMPUTE:
        *(enum recompute *)field = (enum recompute)s->choice;
        break;
    case TYPE_LOGITS:
        *(enum logits *)field = (enum logits)s->choice;
        break;
    case TYPE_FORM:
        *(enum law_form *)field = (enum law_form)s->choice;
        break;
    case TYPE_LIST:
    case TYPE_COUNTS:
        *(struct numbers *)field = (struct numbers){s->list, s->n_list};
        break;
    case TYPE_PATH:
        *(const char **)field = s->name;
        break;
    case TYPE_SAMPLES: /* build_samples */
    case TYPE_FAMILY:
    case TYPE_TEXT:
        break;
    }
}

static void fill_all(const struct decl *d, enum fills fills, void *base)
{
    for (int k = 0; k < KEY_COUNT; k++)
        if (d->all[k] && block_infos[key_infos[k].block].fills == fills)
            fill(base, d->all[k]);
}

/* The span to show for a group of settings: the first one given. */
static struct span group_span(const struct decl *d, enum fills fills)
{
    for (int k = 0; k < KEY_COUNT; k++)
        if (d->all[k] && block_infos[key_infos[k].block].fills == fills)
            return d->all[k]->at;
    return d->at;
}

static int larger(int a, int b)
{
    return a > b ? a : b;
}

static const struct train_spec usual_training = {.tokens = NAN,
                                                 .law = -1,
                                                 .device = -1,
                                                 .accumulate = 1,
                                                 .lr = 1e-3,
                                                 .warmup = 100,
                                                 .weight_decay = 0.1,
                                                 .clip = 1,
                                                 .beta1 = 0.9,
                                                 .beta2 = 0.95};
static const struct serve_spec usual_serving = {
    .device = -1, .batch = 1, .prompt = 512, .generate = 128};

static void default_context(const struct decl *d, struct model_spec *m)
{
    if (!d->all[KEY_CONTEXT])
        m->context = larger(2048, larger(m->serve.prompt + m->serve.generate, m->train.sequence));
}

/* A GPU serves in bf16 unless told otherwise; the host in fp32. */
static void default_types(const struct check *c, const struct decl *d, struct serve_spec *s)
{
    bool gpu = s->device >= 0 && !c->spec->devices[s->device].is_host &&
               c->spec->devices[s->device].threads == 0;
    if (!d->all[KEY_WEIGHTS])
        s->weights = gpu ? DTYPE_BF16 : DTYPE_F32;
    if (!d->all[KEY_KV])
        s->kv = gpu ? DTYPE_BF16 : DTYPE_F32;
}

static void build_model(struct check *c, struct decl *d, struct model_spec *m)
{
    *m = (struct model_spec){.name = d->name, .at = d->at, .norm_eps = 1e-5};
    m->params_at = d->at;
    m->rope.theta = 10000;
    m->train = usual_training;
    m->serve = usual_serving;
    if (d->all[KEY_FACTOR] || d->all[KEY_ORIGINAL]) {
        m->rope.low = 1;
        m->rope.high = 4;
    }
    fill_all(d, FILLS_MODEL, m);
    fill_all(d, FILLS_TRAIN, &m->train);
    fill_all(d, FILLS_SERVE, &m->serve);
    m->train.at = group_span(d, FILLS_TRAIN);
    m->serve.at = group_span(d, FILLS_SERVE);
    default_context(d, m);
    default_types(c, d, &m->serve);
    for (int k = 0; k < KNOB_COUNT; k++)
        if (m->knobs[k].kind == DOMAIN_UNSET)
            m->knobs[k].at = d->at;
}

/* What no list names keeps the law's own value. Lists of different lengths are reported by a rule;
 * until then only what all of them have counts. */
static void build_samples(struct check *c, const struct decl *d, struct law *l)
{
    int n = 0;
    bool any = false;
    for (int k = 0; k < KEY_COUNT; k++)
        if (key_infos[k].type == TYPE_SAMPLES && d->all[k]) {
            n = any && n < d->all[k]->n_list ? n : d->all[k]->n_list;
            any = true;
        }
    if (n == 0)
        return;
    struct law_sample own = {.E = l->E,
                             .A = l->A,
                             .B = l->B,
                             .alpha = l->alpha,
                             .beta = l->beta,
                             .a = {l->a[0], l->a[1], l->a[2]},
                             .b = {l->b[0], l->b[1], l->b[2]},
                             .morph_e = l->morph_e};
    struct law_sample *samples = arena_alloc(c->arena, (size_t)n * sizeof *samples);
    for (int i = 0; i < n; i++) {
        samples[i] = own;
        for (int k = 0; k < KEY_COUNT; k++)
            if (key_infos[k].type == TYPE_SAMPLES && d->all[k])
                *(double *)(void *)((char *)(samples + i) + key_infos[k].offset) =
                    d->all[k]->list[i];
    }
    l->samples = samples;
    l->n_samples = n;
}

static void build_law(struct check *c, struct decl *d, struct law *l)
{
    *l = (struct law){.name = d->name, .at = d->at, .base = -1, .observe_model = -1};
    l->E = l->A = l->B = l->alpha = l->beta = l->morph_e = l->observe_loss = NAN;
    l->r_lo = l->r_hi = l->x_lo = l->x_hi = l->params_lo = l->params_hi = NAN;
    for (int i = 0; i < 3; i++)
        l->a[i] = l->b[i] = NAN;
    fill_all(d, FILLS_LAW, l);
    build_samples(c, d, l);
    if (!d->observe)
        return;
    l->observe_loss = observe_value(c, d);
    l->observe_model = d->observed ? d->observed->index : -1;
}

/* `host` without rates is this machine, measured when it is needed. */
static void build_device(struct decl *d, struct device *v)
{
    *v = (struct device){
        .name = d->name, .at = d->at, .eff_matmul = 1, .eff_attention = 1, .eff_stream = 1};
    fill_all(d, FILLS_DEVICE, v);
    bool measured = d->all[KEY_FP32] || d->all[KEY_BF16] || d->all[KEY_MEMORY_BANDWIDTH];
    v->is_host = !strcmp(d->name, "host") && !measured;
}

/* `name` as the file that says it means it. */
static const char *path_from(struct check *c, const struct setting *s)
{
    if (!s || !s->name || s->name[0] == '/')
        return s ? s->name : NULL;
    const char *file = c->program->sources[s->value_at.source].path, *slash = strrchr(file, '/');
    return slash ? arena_printf(c->arena, "%.*s/%s", (int)(slash - file), file, s->name) : s->name;
}

static void build_study(struct check *c, struct decl *d, struct study_spec *s)
{
    *s = (struct study_spec){.name = d->name,
                             .at = d->at,
                             .held_out = 0.05,
                             .tolerance = 0.02,
                             .tokens_per_param = 20,
                             .gqa = 4,
                             .d_model_step = 8,
                             .d_ff_step = 8,
                             .seeds = 1,
                             .lr_exponent = -1.0 / 3,
                             .train = usual_training,
                             .serve = usual_serving};
    fill_all(d, FILLS_STUDY, s);
    fill_all(d, FILLS_TRAIN, &s->train);
    fill_all(d, FILLS_SERVE, &s->serve);
    s->train.at = group_span(d, FILLS_TRAIN);
    s->serve.at = group_span(d, FILLS_SERVE);
    default_types(c, d, &s->serve);
    s->data = path_from(c, d->all[KEY_STUDY_DATA]);
    s->validation = path_from(c, d->all[KEY_STUDY_VALIDATION]);
}

static int count(struct check *c, enum block kind)
{
    int n = 0;
    for (struct decl *d = c->first; d; d = d->next)
        if (d->kind == kind)
            d->index = n++;
    return n;
}

static void build_all(struct check *c)
{
    struct spec *s = c->spec;
    s->n_models = count(c, BLOCK_MODEL);
    s->n_laws = count(c, BLOCK_LAW);
    s->n_devices = count(c, BLOCK_DEVICE);
    struct model_spec *models = arena_alloc(c->arena, (size_t)(s->n_models + 1) * sizeof *models);
    struct law *laws = arena_alloc(c->arena, (size_t)(s->n_laws + 1) * sizeof *laws);
    struct device *devices = arena_alloc(c->arena, (size_t)(s->n_devices + 1) * sizeof *devices);
    s->n_studies = count(c, BLOCK_STUDY);
    struct study_spec *studies =
        arena_alloc(c->arena, (size_t)(s->n_studies + 1) * sizeof *studies);
    s->studies = studies;
    s->models = models;
    s->laws = laws;
    s->devices = devices;
    for (struct decl *d = c->first; d; d = d->next)
        if (d->kind == BLOCK_DEVICE)
            build_device(d, devices + d->index);
    for (struct decl *d = c->first; d; d = d->next) {
        if (d->kind == BLOCK_LAW)
            build_law(c, d, laws + d->index);
        if (d->kind == BLOCK_STUDY) {
            build_study(c, d, studies + d->index);
            if (d->source == 0)
                s->main_study = d->index;
        }
        if (d->kind != BLOCK_MODEL)
            continue;
        build_model(c, d, models + d->index);
        build_goals(c, d, models + d->index);
        if (d->source == 0)
            s->main_model = d->index;
    }
}

/* ---- the two ways in ----------------------------------------------------------------------------
 */

static bool read_spec(struct arena *a, const char *path, const char *text, size_t length,
                      const char *prelude, struct diags *d, struct spec *out)
{
    struct program *p = arena_alloc(a, sizeof *p);
    struct check *c = arena_alloc(a, sizeof *c);
    int errors = d->errors;
    *p = (struct program){.arena = a, .diags = d};
    *c = (struct check){.arena = a, .diags = d, .program = p, .spec = out};
    *out = (struct spec){.main_model = -1, .main_study = -1};
    if (!program_read(p, path, text, length, prelude))
        return false;
    out->sources = p->sources;
    out->n_sources = p->n_sources;
    collect(c);
    link_decls(c);
    build_all(c);
    run_rules(c);
    return d->errors == errors;
}

bool spec_read(struct arena *a, const char *path, const char *prelude, struct diags *d,
               struct spec *out)
{
    d->arena = d->arena ? d->arena : a;
    return read_spec(a, path, NULL, 0, prelude, d, out);
}

bool spec_parse(struct arena *a, const char *path, const char *text, size_t length,
                const char *prelude, struct diags *d, struct spec *out)
{
    d->arena = d->arena ? d->arena : a;
    return read_spec(a, path, text ? text : "", length, prelude, d, out);
}

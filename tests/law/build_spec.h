/* build_spec.h - specs built by hand, so that the law is tested without the front end. */
#ifndef BUILD_SPEC_H
#define BUILD_SPEC_H

#include "../../law/law.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SPEC_MODELS = 8, SPEC_GOALS = 4 };
enum { LAW_297M, LAW_1B, LAW_BESIROGLU, LAW_HOFFMANN, LAW_SPARE, SPEC_LAWS };
enum { DEVICE_H200, DEVICE_CPU, SPEC_DEVICES };

/* A spec with the built-in laws (as law.md prints them) and two devices; models are added. */
struct built {
    struct arena *arena;
    struct diags diags;
    struct source source;
    struct spec spec;
    struct model_spec models[SPEC_MODELS];
    struct goal goals[SPEC_MODELS][SPEC_GOALS];
    struct law laws[SPEC_LAWS];
    struct device devices[SPEC_DEVICES];
};

static inline struct law empty_law(const char *name, enum law_form form)
{
    struct law l = {.name = name, .form = form, .observe_model = -1, .base = -1};
    l.E = l.A = l.B = l.alpha = l.beta = l.morph_e = l.observe_loss = NAN;
    for (int i = 0; i < 3; i++)
        l.a[i] = l.b[i] = NAN;
    l.r_lo = l.r_hi = l.x_lo = l.x_hi = l.params_lo = l.params_hi = NAN;
    return l;
}

static inline struct law chinchilla_law(const char *name, double e, double a, double b,
                                        double alpha, double beta)
{
    struct law l = empty_law(name, LAW_CHINCHILLA);
    l.E = e, l.A = a, l.B = b, l.alpha = alpha, l.beta = beta;
    return l;
}

static inline struct law conditional_law(const char *name, const double a[3], const double b[3])
{
    struct law l = empty_law(name, LAW_MULTIPLICATIVE);
    memcpy(l.a, a, sizeof l.a);
    memcpy(l.b, b, sizeof l.b);
    l.base = LAW_BESIROGLU;
    l.r_lo = 0.5, l.r_hi = 5, l.x_lo = 0.02, l.x_hi = 0.16;
    return l;
}

static inline void add_laws(struct built *b)
{
    b->laws[LAW_297M] = conditional_law("bian2025_297m", (double[]){2.697, 0.0974, 0.0078},
                                        (double[]){0.3870, 0.0063, 0.0065});
    b->laws[LAW_297M].params_lo = 80e6, b->laws[LAW_297M].params_hi = 297e6;
    b->laws[LAW_1B] = conditional_law("bian2025_1b", (double[]){2.319, 0.238, 0.0176},
                                      (double[]){0.5104, 0.0051, 0.0062});
    b->laws[LAW_1B].params_lo = 0.9e9, b->laws[LAW_1B].params_hi = 1.1e9;
    b->laws[LAW_BESIROGLU] =
        chinchilla_law("besiroglu2024", 1.81686, 482.006, 2085.434, 0.34781, 0.36585);
    b->laws[LAW_HOFFMANN] = chinchilla_law("hoffmann2022", 1.69, 406.4, 410.7, 0.34, 0.28);
    b->laws[LAW_SPARE] = empty_law("spare", LAW_MULTIPLICATIVE);
}

static inline void add_devices(struct built *b)
{
    b->devices[DEVICE_H200] = (struct device){.name = "h200",
                                              .flops = {67e12, 989e12, 1979e12},
                                              .memory_bandwidth = 4.8e12,
                                              .memory_bytes = 141e9,
                                              .cache_bandwidth = 7e12,
                                              .cache_bytes = 50e6,
                                              .launch = 1.3e-6,
                                              .eff_matmul = 0.79,
                                              .eff_attention = 0.6,
                                              .eff_stream = 0.896};
    b->devices[DEVICE_CPU] = (struct device){.name = "cpu",
                                             .flops = {200e9, 200e9, 200e9},
                                             .memory_bandwidth = 25e9,
                                             .memory_bytes = 16e9,
                                             .cache_bandwidth = 80e9,
                                             .cache_bytes = 16e6,
                                             .launch = 0.3e-6,
                                             .threads = 2,
                                             .eff_matmul = 0.85,
                                             .eff_attention = 0.5,
                                             .eff_stream = 0.9};
}

static inline struct built *built_new(void)
{
    struct built *b = calloc(1, sizeof *b);
    if (!b)
        abort();
    b->arena = arena_new();
    b->source = (struct source){"test.arch", "", 0};
    b->diags = (struct diags){.arena = b->arena, .sources = &b->source, .n_sources = 1};
    add_laws(b);
    add_devices(b);
    b->spec = (struct spec){.sources = &b->source,
                            .n_sources = 1,
                            .models = b->models,
                            .laws = b->laws,
                            .n_laws = SPEC_LAWS,
                            .devices = b->devices,
                            .n_devices = SPEC_DEVICES};
    return b;
}

static inline void built_free(struct built *b)
{
    arena_free(b->arena);
    free(b);
}

static inline struct domain fixed(double v)
{
    return (struct domain){.kind = DOMAIN_FIXED, .value = v};
}

static inline struct domain within(double lo, double hi, double step)
{
    return (struct domain){.kind = DOMAIN_RANGE, .lo = lo, .hi = hi, .step = step};
}

static inline struct domain bare_free(void)
{
    return (struct domain){.kind = DOMAIN_FREE};
}

/* A model of LLaMA-3.2's kind, served as the paper does, with no knob set. Returns its index. */
static inline int add_model(struct built *b, const char *name)
{
    int i = b->spec.n_models++;
    struct model_spec *m = &b->models[i];
    m->name = name;
    m->vocab = 128256;
    m->context = 8192;
    m->tied = true;
    m->norm_eps = 1e-5;
    m->rope.theta = 5e5;
    m->params_tolerance = 0.01;
    m->train = (struct train_spec){.tokens = 100e9,
                                   .law = LAW_297M,
                                   .device = -1,
                                   .batch = 8,
                                   .sequence = 2048,
                                   .accumulate = 1};
    m->serve = (struct serve_spec){.device = DEVICE_H200,
                                   .batch = 64,
                                   .prompt = 4096,
                                   .generate = 1024,
                                   .weights = DTYPE_BF16,
                                   .kv = DTYPE_BF16};
    m->goals = b->goals[i];
    b->spec.main_model = i;
    return i;
}

static inline void set_shape(struct model_spec *m, int layers, int d, int heads, int kv, int e,
                             int f)
{
    m->knobs[KNOB_LAYERS] = fixed(layers);
    m->knobs[KNOB_D_MODEL] = fixed(d);
    m->knobs[KNOB_HEADS] = fixed(heads);
    m->knobs[KNOB_KV_HEADS] = fixed(kv);
    m->knobs[KNOB_HEAD_DIM] = fixed(e);
    m->knobs[KNOB_D_FF] = fixed(f);
}

/* The search of the paper: layers, head size and N fixed, width, ratio and group free. */
static inline void set_search(struct model_spec *m, int layers, int e, double params)
{
    m->knobs[KNOB_LAYERS] = fixed(layers);
    m->knobs[KNOB_HEAD_DIM] = fixed(e);
    m->params = params;
    m->knobs[KNOB_D_MODEL] = within(1024, 4096, 128);
    m->knobs[KNOB_R] = within(0.5, 5, 0);
    m->knobs[KNOB_GQA] = within(1, 9, 0);
}

static inline struct expr *number(struct built *b, double v)
{
    struct expr *e = arena_alloc(b->arena, sizeof *e);
    *e = (struct expr){.kind = EXPR_NUMBER, .number = v};
    return e;
}

static inline struct expr *metric_of(struct built *b, int model, enum metric metric)
{
    struct expr *e = arena_alloc(b->arena, sizeof *e);
    *e = (struct expr){.kind = EXPR_METRIC, .model = model, .metric = metric};
    return e;
}

static inline struct expr *combine(struct built *b, enum expr_kind kind, struct expr *lhs,
                                   struct expr *rhs)
{
    struct expr *e = arena_alloc(b->arena, sizeof *e);
    *e = (struct expr){.kind = kind, .lhs = lhs, .rhs = rhs};
    return e;
}

static inline void add_require(struct built *b, int model, struct expr *lhs, enum relation relation,
                               struct expr *rhs, const char *text)
{
    struct model_spec *m = &b->models[model];
    b->goals[model][m->n_goals++] = (struct goal){
        .kind = GOAL_REQUIRE, .relation = relation, .lhs = lhs, .rhs = rhs, .text = text};
}

static inline void add_objective(struct built *b, int model, enum goal_kind kind,
                                 enum metric metric)
{
    struct model_spec *m = &b->models[model];
    const char *verb = kind == GOAL_MAXIMIZE ? "maximize" : "minimize";
    b->goals[model][m->n_goals++] =
        (struct goal){.kind = kind,
                      .lhs = metric_of(b, model, metric),
                      .text = arena_printf(b->arena, "%s %s", verb, metric_names[metric])};
}

#endif

/* numbers_test.c - the law and the counts against published figures. */
#include "build_spec.h"
#include "check.h"

/* ---- shapes of arXiv:2510.18245, section by section ------------------------------------------ */

static const struct published {
    const char *name;
    int layers, d_model, heads, kv_heads, head_dim, d_ff;
    double r;
    int dq;
    int64_t params;
    double kv_bytes_bf16; /* a token */
    double row1, row2;    /* predicted multipliers of the two printed laws */
} published[] = {
    {"LLaMA-3.2-1B", 16, 2048, 32, 8, 64, 8192, 4.80, 2048, 973078528, 32768, 1.01572, 1.00764},
    {"Panda-1B", 16, 2560, 72, 18, 64, 4096, 16.0 / 15, 4608, 975175680, 73728, 1.00284, 1.00125},
    {"Surefire-1B", 16, 2560, 36, 4, 64, 6144, 3.6, 2304, 964689920, 16384, 1.01145, 1.00542},
    {"LLaMA-3.2-3B", 28, 3072, 24, 8, 128, 8192, 3.0, 3072, 2818572288, 114688, 1.01170, 1.00762},
    {"Panda-3B", 28, 4096, 36, 12, 128, 4096, 1.0, 4608, 2818572288, 172032, 1.00286, 1.00085},
    {"Surefire-3B", 28, 4096, 42, 6, 128, 4096, 1.0, 5376, 2818572288, 86016, 1.00286, 1.00085},
    {"Panda-3B, 1B fit", 28, 4096, 33, 11, 128, 4608, 27.0 / 22, 4224, 2877292544, 157696, NAN,
     NAN},
};
enum { N_PUBLISHED = sizeof published / sizeof *published };

static struct arch arch_of(const struct published *p)
{
    return (struct arch){.name = p->name,
                         .layers = p->layers,
                         .d_model = p->d_model,
                         .heads = p->heads,
                         .kv_heads = p->kv_heads,
                         .head_dim = p->head_dim,
                         .d_ff = p->d_ff,
                         .vocab = 128256,
                         .context = 8192,
                         .tied = true};
}

static void test_shapes(void)
{
    for (int i = 0; i < N_PUBLISHED; i++) {
        struct arch a = arch_of(&published[i]);
        CHECK(arch_params(&a) == published[i].params);
        CHECK(arch_dq(&a) == published[i].dq);
        CHECK_NEAR(arch_r(&a), published[i].r, 1e-12);
        /* attention a layer = N / (L (1 + r)), and back to heads and d_ff */
        double n = (double)published[i].params, r = published[i].r,
               group = (double)a.heads / a.kv_heads;
        double attention = n / (a.layers * (1 + r)), mlp = n * r / (a.layers * (1 + r));
        CHECK_NEAR(mlp / (3.0 * a.d_model), a.d_ff, 1e-6);
        CHECK_NEAR(attention / (2.0 * a.d_model * a.head_dim * (1 + 1 / group)), a.heads, 1e-9);
    }
}

static void test_multipliers(const struct built *b)
{
    for (int i = 0; i < N_PUBLISHED; i++) {
        struct arch a = arch_of(&published[i]);
        if (isnan(published[i].row1))
            continue;
        double per_layer = (double)a.d_model / a.layers, x = arch_width(&a), r = arch_r(&a);
        CHECK_NEAR(law_shape_term(&b->laws[LAW_297M], x, r, per_layer), published[i].row1, 5.1e-6);
        CHECK_NEAR(law_shape_term(&b->laws[LAW_1B], x, r, per_layer), published[i].row2, 5.1e-6);
    }
}

static void test_optima(const struct built *b)
{
    const struct law *row1 = &b->laws[LAW_297M], *row2 = &b->laws[LAW_1B];
    CHECK_NEAR(law_best_x(row1), 0.0801, 5e-5);
    CHECK_NEAR(law_best_r(row1), 1.0317, 5e-5);
    CHECK_NEAR(law_best_x(row2), 0.0739, 5e-5);
    CHECK_NEAR(law_best_r(row2), 1.2157, 5e-5);
    CHECK_NEAR(law_shape_term(row1, law_best_x(row1), law_best_r(row1), 0), 1.00282, 5.1e-6);
    CHECK_NEAR(law_shape_term(row2, law_best_x(row2), law_best_r(row2), 0), 1.00054, 5.1e-6);
    CHECK(isnan(law_best_x(&b->laws[LAW_BESIROGLU])) && isnan(law_best_r(&b->laws[LAW_BESIROGLU])));
}

/* Stationary in x and in r, and higher to all sides: a minimum. */
static void test_gradient(const struct law *law)
{
    double x = law_best_x(law), r = law_best_r(law), h = 1e-5;
    double here = law_loss(law, 2.5, x, r, 1);
    double dx = law_loss(law, 2.5, x * (1 + h), r, 1) - law_loss(law, 2.5, x * (1 - h), r, 1);
    double dr = law_loss(law, 2.5, x, r * (1 + h), 1) - law_loss(law, 2.5, x, r * (1 - h), 1);
    CHECK_NEAR(dx / (2 * h), 0, 1e-8);
    CHECK_NEAR(dr / (2 * h), 0, 1e-8);
    for (double t = 0.3; t < 4; t *= 1.3) {
        CHECK(law_loss(law, 2.5, x * t, r, 1) >= here);
        CHECK(law_loss(law, 2.5, x, r * t, 1) >= here);
    }
    /* The slope is wrong elsewhere: the check above can fail. */
    CHECK(fabs(law_loss(law, 2.5, x * 1.01, r, 1) - here) > 1e-7);
}

static void test_forms(const struct built *b)
{
    struct law law = b->laws[LAW_297M];
    test_gradient(&law);
    test_gradient(&b->laws[LAW_1B]);
    /* the gauge of the multiplicative form */
    struct law scaled = law;
    for (int i = 0; i < 3; i++)
        scaled.a[i] *= 3.7, scaled.b[i] /= 3.7;
    CHECK_NEAR(law_loss(&scaled, 2.5, 0.06, 3.1, 1), law_loss(&law, 2.5, 0.06, 3.1, 1), 1e-12);
    /* additive: a0 + a1 ln x + a2/x + b1 ln r + b2/r + L_opt */
    struct law additive = empty_law("additive", LAW_ADDITIVE);
    additive.a[0] = -0.4, additive.a[1] = 0.2, additive.a[2] = 0.015;
    additive.b[1] = 0.011, additive.b[2] = 0.012;
    double want = -0.4 + 0.2 * log(0.07) + 0.015 / 0.07 + 0.011 * log(2) + 0.012 / 2 + 2.5;
    CHECK_NEAR(law_loss(&additive, 2.5, 0.07, 2, 1), want, 1e-12);
    CHECK_NEAR(law_l_opt(&additive, want, 0.07, 2, 1), 2.5, 1e-12);
    test_gradient(&additive);
    /* joint, in x r alone */
    struct law joint = empty_law("joint", LAW_JOINT);
    joint.a[0] = 0.9, joint.b[0] = 0.02, joint.b[1] = 0.003;
    double xr = 0.07 * 2;
    CHECK_NEAR(law_loss(&joint, 2.5, 0.07, 2, 1), 2.5 * (0.9 + 0.02 * log(xr) + 0.003 / xr), 1e-12);
    CHECK_NEAR(law_loss(&joint, 2.5, 0.07, 2, 1), law_loss(&joint, 2.5, 0.14, 1, 1), 1e-12);
    CHECK(isnan(law_best_x(&joint)) && isnan(law_best_r(&joint)));
    /* a form without a minimum in x has no best x */
    law.a[1] = -0.1;
    CHECK(isnan(law_best_x(&law)));
}

static void test_chinchilla(const struct built *b)
{
    const struct law *h = &b->laws[LAW_HOFFMANN], *e = &b->laws[LAW_BESIROGLU];
    CHECK_NEAR(law_base_loss(h, 70e9, 1.4e12), 1.936645, 1e-6);
    CHECK_NEAR(law_base_loss(e, 70e9, 1.4e12), 1.973416, 1e-6);
    CHECK_NEAR(law_base_loss(e, 973078528, 100e9), 2.374515, 1e-6);
    /* Morph: N counts everything and one exponent is shared, R = d_model / layers */
    struct law m = empty_law("morph", LAW_MORPH);
    m.E = 2.44751, m.A = 54754.3, m.B = 778343, m.alpha = 0.614574, m.morph_e = 0.00114621;
    double base =
        2.44751 + 54754.3 * pow(78914048, -0.614574) + 778343 * pow(1610612736, -0.614574);
    CHECK_NEAR(law_base_loss(&m, 78914048, 1610612736), base, 1e-12);
    CHECK_NEAR(law_loss(&m, base, 0.1, 3, 64), base * (1 + 0.00114621 * pow(64, 0.614574)), 1e-12);
}

/* An observed loss fixes L_opt; other sizes follow the Chinchilla ratio, or nothing where the law
 * has no coefficients. */
static void test_pin(struct built *b)
{
    struct arch llama = arch_of(&published[0]), panda = arch_of(&published[1]);
    struct arch big = arch_of(&published[3]);
    int m = add_model(b, "pinned");
    struct pricing p;
    b->laws[LAW_SPARE] = b->laws[LAW_297M];
    b->laws[LAW_SPARE].observe_loss = 2.803;
    b->models[m].train.law = LAW_SPARE;
    double metrics[METRIC_COUNT];
    for (int base = 0; base < 2; base++) {
        b->laws[LAW_SPARE].base = base ? LAW_BESIROGLU : -1;
        pricing_init(&p, &b->spec, &b->models[m]);
        pricing_pin(&p, &llama, 100e9);
        double chinchilla = base ? law_base_loss(&b->laws[LAW_BESIROGLU], 975175680, 100e9) /
                                       law_base_loss(&b->laws[LAW_BESIROGLU], 973078528, 100e9)
                                 : 1;
        pricing_metrics(&p, &llama, 1u << METRIC_LOSS, metrics);
        CHECK_NEAR(metrics[METRIC_LOSS], 2.803, 1e-12);
        pricing_metrics(&p, &panda, 1u << METRIC_LOSS, metrics);
        CHECK_NEAR(metrics[METRIC_LOSS], 2.803 * chinchilla * 1.00284 / 1.01572, 3e-5);
        pricing_metrics(&p, &big, 1u << METRIC_LOSS, metrics);
        CHECK(base ? metrics[METRIC_LOSS] < 2.7 : metrics[METRIC_LOSS] > 2.78);
    }
    /* neither coefficients nor an observation: no loss */
    pricing_init(&p, &b->spec, &b->models[m]);
    p.chinchilla = NULL;
    pricing_metrics(&p, &panda, 1u << METRIC_LOSS, metrics);
    CHECK(isnan(metrics[METRIC_LOSS]));
}

static void test_bases(struct built *b)
{
    CHECK(law_chinchilla(&b->spec, &b->laws[LAW_297M]) == &b->laws[LAW_BESIROGLU]);
    CHECK(law_chinchilla(&b->spec, &b->laws[LAW_HOFFMANN]) == &b->laws[LAW_HOFFMANN]);
    struct law held = b->laws[LAW_SPARE];
    b->laws[LAW_SPARE] = empty_law("circle", LAW_MULTIPLICATIVE);
    CHECK(law_chinchilla(&b->spec, &b->laws[LAW_SPARE]) == NULL);
    b->laws[LAW_SPARE].base = LAW_SPARE;
    CHECK(law_chinchilla(&b->spec, &b->laws[LAW_SPARE]) == NULL);
    b->laws[LAW_SPARE] = held;
}

/* ---- open models' totals, embeddings and norms included -------------------------------------- */

static void test_totals(void)
{
    static const struct {
        struct arch a;
        int64_t total;
    } rows[] = {
        {{.layers = 16,
          .d_model = 2048,
          .heads = 32,
          .kv_heads = 8,
          .head_dim = 64,
          .d_ff = 8192,
          .vocab = 128256,
          .tied = true},
         1235814400},
        {{.layers = 28,
          .d_model = 3072,
          .heads = 24,
          .kv_heads = 8,
          .head_dim = 128,
          .d_ff = 8192,
          .vocab = 128256,
          .tied = true},
         3212749824},
        {{.layers = 32,
          .d_model = 4096,
          .heads = 32,
          .kv_heads = 8,
          .head_dim = 128,
          .d_ff = 14336,
          .vocab = 128256},
         8030261248},
        {{.layers = 28,
          .d_model = 1024,
          .heads = 16,
          .kv_heads = 8,
          .head_dim = 128,
          .d_ff = 3072,
          .vocab = 151936,
          .tied = true,
          .qk_norm = true},
         596049920},
        {{.layers = 24,
          .d_model = 896,
          .heads = 14,
          .kv_heads = 2,
          .head_dim = 64,
          .d_ff = 4864,
          .vocab = 151936,
          .tied = true,
          .qkv_bias = true},
         494032768},
        {{.layers = 22,
          .d_model = 2048,
          .heads = 32,
          .kv_heads = 4,
          .head_dim = 64,
          .d_ff = 5632,
          .vocab = 32000},
         1100048384},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        CHECK(arch_total_params(&rows[i].a) == rows[i].total);
}

/* ---- the cost model -------------------------------------------------------------------------- */

static void test_kv_bytes(struct built *b)
{
    int m = add_model(b, "kv");
    struct pricing p;
    double metrics[METRIC_COUNT];
    pricing_init(&p, &b->spec, &b->models[m]);
    for (int i = 0; i < N_PUBLISHED; i++) {
        struct arch a = arch_of(&published[i]);
        pricing_metrics(&p, &a, 1u << METRIC_KV_BYTES, metrics);
        CHECK_NEAR(metrics[METRIC_KV_BYTES], published[i].kv_bytes_bf16, 0);
    }
}

static double decode_step(const struct device *d, const struct arch *a, double past)
{
    struct op_list l;
    struct workload w = {.batch = 1,
                         .tokens = 1,
                         .past = past,
                         .weights = DTYPE_BF16,
                         .kv = DTYPE_BF16,
                         .values = DTYPE_BF16};
    ops_build(a, PHASE_DECODE, &w, &l);
    return cost_list(d, &l, &w);
}

/* A decode step stands between what its bytes take and what was measured of ordinary kernels. */
static void test_decode_anchor(const struct built *b)
{
    struct arch llama = arch_of(&published[0]);
    const struct device *h200 = &b->devices[DEVICE_H200];
    double at_start = decode_step(h200, &llama, 0), later = decode_step(h200, &llama, 16000);
    CHECK(at_start > 575e-6 && at_start < 794.74e-6);
    /* 16,000 tokens of cache are 32,768 bytes each, read at 55 % of what a copy reaches */
    CHECK_NEAR(later - at_start, 16000 * 32768 / (4.3e12 * 0.55), 2e-6);
}

/* On a GPU a step's first micro-batch writes gradients of matrices that the others read too, and
 * the optimiser writes none; on a CPU all are alike. */
static void test_accumulation(const struct built *b)
{
    struct arch a = arch_of(&published[0]);
    const struct device *devices[] = {&b->devices[DEVICE_H200], &b->devices[DEVICE_CPU]};
    for (int i = 0; i < 2; i++) {
        struct train_spec t = {.batch = 2, .sequence = 512, .accumulate = 1};
        struct workload w = cost_training(devices[i], &t, 8192);
        struct op_list l;
        ops_build(&a, PHASE_OPTIMISER, &w, &l);
        struct price update = cost_each(devices[i], &l, &w, NULL);
        struct price one = cost_train_step(devices[i], &t, &a);
        t.accumulate = 2;
        struct price two = cost_train_step(devices[i], &t, &a);
        t.accumulate = 5;
        struct price five = cost_train_step(devices[i], &t, &a);
        double matrices = (double)(arch_params(&a) + (int64_t)a.vocab * a.d_model);
        double first = one.bytes - update.bytes, other = two.bytes - one.bytes;
        CHECK_NEAR(other - first, i ? 0 : 4 * matrices, 1e-6 * first);
        CHECK_NEAR(five.bytes, one.bytes + 4 * other, 1e-6 * five.bytes);
        CHECK_NEAR(five.flops, 5 * one.flops, 1e-6 * five.flops);
    }
}

/* One call of a prompt's tokens behind `past` others. */
static double prompt_call(const struct device *d, const struct arch *a, struct workload w,
                          double past, bool last)
{
    struct op_list l;
    struct price each[MAX_OPS];
    double sum = 0;
    w.past = past;
    ops_build(a, PHASE_PREFILL, &w, &l);
    cost_each(d, &l, &w, each);
    for (int i = 0; i < l.n; i++)
        sum += last || l.ops[i].section != SECTION_EXIT ? each[i].seconds : 0;
    return sum;
}

/* Prompts on a GPU, call by call, each behind those before it; attention's arithmetic is that of
 * all pairs of tokens, however they are cut up. On a CPU they are one list. */
static void test_prompts(const struct built *b)
{
    const int lengths[] = {1, 700, 4096, 4097, 8192, 18000};
    struct arch a = arch_of(&published[0]);
    const struct device *h200 = &b->devices[DEVICE_H200], *cpu = &b->devices[DEVICE_CPU];
    for (int i = 0; i < 6; i++) {
        struct serve_spec s = {.batch = 3, .prompt = lengths[i], .weights = DTYPE_BF16};
        s.kv = DTYPE_BF16;
        struct workload w = cost_serving(h200, &s), call = w;
        double want = 0;
        call.batch = 1;
        for (int past = 0; past < w.tokens; past += call.tokens) {
            call.tokens = w.tokens - past < GPU_PROMPT_ROWS ? w.tokens - past : GPU_PROMPT_ROWS;
            want += 3 * prompt_call(h200, &a, call, past, past + call.tokens == w.tokens);
        }
        CHECK_NEAR(cost_prompts(h200, &a, &w).seconds, want, 1e-9 * want);
        struct op_list l;
        w = cost_serving(cpu, &s);
        ops_build(&a, PHASE_PREFILL, &w, &l);
        want = cost_list(cpu, &l, &w);
        CHECK_NEAR(cost_prompts(cpu, &a, &w).seconds, want, 1e-12 * want);
    }
    /* 2048 tokens behind 2048 take what 4096 take but for the first 2048: three times the keys. */
    struct workload w = {
        .batch = 1, .tokens = 2048, .weights = DTYPE_BF16, .kv = DTYPE_BF16, .values = DTYPE_BF16};
    double more = prompt_call(h200, &a, w, 2048, false) - prompt_call(h200, &a, w, 0, false);
    double pairs = 2048.0 * 2048, flops = 4 * pairs * arch_dq(&a) * a.layers;
    CHECK(more > flops / (989e12 * 0.60) && more < 1.5 * flops / (989e12 * 0.60));
}

/* Two Gauss points against the sum over every generated position. */
static void test_throughput(struct built *b)
{
    struct arch llama = arch_of(&published[0]);
    int m = add_model(b, "sum");
    struct pricing p;
    double metrics[METRIC_COUNT];
    pricing_init(&p, &b->spec, &b->models[m]);
    pricing_metrics(&p, &llama, ALL_METRICS, metrics);
    struct serve_spec *s = &b->models[m].serve;
    struct workload w = cost_serving(p.serving, s);
    double total = metrics[METRIC_TTFT];
    w.tokens = 1;
    for (int i = 1; i < s->generate; i++) {
        struct op_list l;
        w.past = s->prompt + i - 1;
        ops_build(&llama, PHASE_DECODE, &w, &l);
        total += cost_list(p.serving, &l, &w);
    }
    double want = 64.0 * 1024 / total;
    CHECK_NEAR(metrics[METRIC_THROUGHPUT], want, 1e-3 * want);
    CHECK(metrics[METRIC_MEMORY] > 2 * 1235814400.0 + 64.0 * 5120 * 32768);
    CHECK(metrics[METRIC_MEMORY] < 1.2 * (2 * 1235814400.0 + 64.0 * 5120 * 32768));
    CHECK(metrics[METRIC_TRAIN_MEMORY] > 16 * 1235814400.0);
    CHECK_NEAR(metrics[METRIC_TRAIN_TIME],
               100e9 / cost_train_rate(p.training, &b->models[m].train, &llama), 1);
    /* 6 N D FLOPs and attention at no more than the device's rate */
    CHECK(metrics[METRIC_TRAIN_TIME] > 6 * 973078528.0 * 100e9 / 989e12);
    CHECK(metrics[METRIC_TRAIN_TIME] < 3 * 6 * 1235814400.0 * 100e9 / 989e12);
}

/* Published serving figures on H200 (SGLang, 4096 in, 1024 out; batch not stated): the ratio of the
 * two shapes, which the cache decides. */
static void test_published_ratio(struct built *b)
{
    int m = add_model(b, "ratio");
    struct pricing p;
    double llama[METRIC_COUNT], surefire[METRIC_COUNT];
    struct arch a = arch_of(&published[0]), c = arch_of(&published[2]);
    pricing_init(&p, &b->spec, &b->models[m]);
    pricing_metrics(&p, &a, ALL_METRICS, llama);
    pricing_metrics(&p, &c, ALL_METRICS, surefire);
    CHECK_NEAR(surefire[METRIC_THROUGHPUT] / llama[METRIC_THROUGHPUT], 12645.55 / 8608.57, 0.15);
    struct arch big = arch_of(&published[3]), big_surefire = arch_of(&published[5]);
    pricing_metrics(&p, &big, ALL_METRICS, llama);
    pricing_metrics(&p, &big_surefire, ALL_METRICS, surefire);
    CHECK_NEAR(surefire[METRIC_THROUGHPUT] / llama[METRIC_THROUGHPUT], 4877.16 / 4183.09, 0.15);
}

/* What must hold of any price: more work is never cheaper, and nothing beats the device's limits.
 */
static void test_price_order(const struct built *b)
{
    struct arch a = {.layers = 6,
                     .d_model = 288,
                     .heads = 6,
                     .kv_heads = 6,
                     .head_dim = 48,
                     .d_ff = 768,
                     .vocab = 32000,
                     .context = 1024,
                     .tied = true};
    const struct device *cpu = &b->devices[DEVICE_CPU];
    struct workload w = {
        .batch = 1, .tokens = 1, .weights = DTYPE_F32, .kv = DTYPE_F32, .values = DTYPE_F32};
    struct op_list l;
    double before = 0;
    for (int tokens = 1; tokens <= 512; tokens *= 2) {
        w.tokens = tokens;
        ops_build(&a, PHASE_PREFILL, &w, &l);
        double now = cost_list(cpu, &l, &w), flops = 0, bytes = 0;
        for (int i = 0; i < l.n; i++)
            flops += l.ops[i].flops, bytes += l.ops[i].weight_bytes;
        CHECK(now > before);
        CHECK(now > flops / 200e9);
        CHECK(now > bytes / 80e9);
        before = now;
    }
    /* 60 MB of weights do not fit 16 MB of cache, the same model in int8 does */
    w.tokens = 1;
    ops_build(&a, PHASE_DECODE, &w, &l);
    double fp32 = cost_list(cpu, &l, &w);
    CHECK_NEAR(fp32, 4.0 * 15191712 / (25e9 * 0.9), 0.05 * fp32);
    w.weights = DTYPE_I8;
    ops_build(&a, PHASE_DECODE, &w, &l);
    CHECK(cost_list(cpu, &l, &w) < fp32 / 4);
}

/* A program of this shape (batch 8, sequence 256, fp32) plans a workspace of 58,611,712 floats. */
static void test_train_memory(struct built *b)
{
    int m = add_model(b, "memory");
    struct arch a = {.layers = 6,
                     .d_model = 320,
                     .heads = 5,
                     .kv_heads = 1,
                     .head_dim = 64,
                     .d_ff = 864,
                     .vocab = 4096,
                     .context = 2048,
                     .tied = true};
    struct pricing p;
    double metrics[METRIC_COUNT], want = 16.0 * 7766080 + 4.0 * 58611712;
    b->models[m].train.sequence = 256;
    b->models[m].serve.device = DEVICE_CPU;
    pricing_init(&p, &b->spec, &b->models[m]);
    pricing_metrics(&p, &a, 1u << METRIC_TRAIN_MEMORY, metrics);
    CHECK_NEAR(metrics[METRIC_TRAIN_MEMORY], want, 0.05 * want);
}

int main(void)
{
    struct built *b = built_new();
    test_shapes();
    test_multipliers(b);
    test_optima(b);
    test_forms(b);
    test_chinchilla(b);
    test_pin(b);
    test_bases(b);
    test_totals();
    test_kv_bytes(b);
    test_decode_anchor(b);
    test_accumulation(b);
    test_prompts(b);
    test_throughput(b);
    test_published_ratio(b);
    test_price_order(b);
    test_train_memory(b);
    built_free(b);
    return check_report("law numbers");
}

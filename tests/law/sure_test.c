/* sure_test.c - what the samples of a law say of the choice, against brute force: every candidate
 * under every sample by the scalar definition, and cases whose answer is known beforehand. */
#include "build_spec.h"
#include "check.h"

enum { N = 120 };

/* Coefficients that vary together, from a generator of our own so that all machines agree. */
static double noise(uint64_t *state)
{
    double sum = 0;
    for (int i = 0; i < 12; i++) {
        *state = *state * 6364136223846793005u + 1442695040888963407u;
        sum += (double)(*state >> 11) * 0x1p-53;
    }
    return sum - 6;
}

static void add_samples(struct built *b, int law, int n, double spread, uint64_t seed)
{
    struct law *l = &b->laws[law];
    struct law_sample *s = arena_alloc(b->arena, sizeof *s * (size_t)n);
    for (int i = 0; i < n; i++) {
        s[i] = (struct law_sample){.E = l->E + 0.02 * spread * noise(&seed),
                                   .A = l->A * exp(0.05 * spread * noise(&seed)),
                                   .B = l->B * exp(0.05 * spread * noise(&seed)),
                                   .alpha = l->alpha + 0.003 * spread * noise(&seed),
                                   .beta = l->beta + 0.003 * spread * noise(&seed),
                                   .morph_e = l->morph_e * exp(0.1 * spread * noise(&seed))};
        for (int k = 0; k < 3; k++) {
            s[i].a[k] = l->a[k] * (1 + (k ? 0.05 : 0) * spread * noise(&seed));
            s[i].b[k] = l->b[k] * (1 + (k ? 0.08 : 0) * spread * noise(&seed));
        }
    }
    l->samples = s;
    l->n_samples = n;
}

static bool said(const struct resolution *r, const char *part)
{
    for (int i = 0; i < r->n_warnings; i++)
        if (strstr(r->warnings[i], part))
            return true;
    return false;
}

/* ---- losses in bulk are those of the definition ---------------------------------------------- */

static void compare_losses(struct built *b, int m, const struct arch *observed)
{
    struct pricing p;
    double loss[N + 1];
    pricing_init(&p, &b->spec, &b->models[m]);
    if (observed)
        pricing_pin(&p, observed, 50e9);
    CHECK(pricing_is_sampled(&p));
    struct sampled_law *l = sampled_law_new(b->arena, &p, N + 1, 973e6);
    for (int width = 256; width <= 4096; width *= 2) { /* far from and near to params */
        struct arch a = {.layers = 16,
                         .d_model = width,
                         .heads = 36,
                         .kv_heads = 4,
                         .head_dim = 64,
                         .d_ff = 6144,
                         .vocab = 1000};
        sampled_losses(l, &a, loss);
        for (int i = 0; i <= N; i++) {
            double want = pricing_sampled_loss(&p, i, &a);
            CHECK(isfinite(want));
            CHECK_NEAR(loss[i], want, 1e-12 * want);
        }
    }
}

static void test_losses(void)
{
    static const enum law_form forms[] = {LAW_MULTIPLICATIVE, LAW_ADDITIVE, LAW_JOINT, LAW_MORPH,
                                          LAW_CHINCHILLA};
    struct arch observed = {.layers = 16,
                            .d_model = 2048,
                            .heads = 32,
                            .kv_heads = 8,
                            .head_dim = 64,
                            .d_ff = 8192,
                            .vocab = 1000};
    for (int f = 0; f < 5; f++)
        for (int pinned = 0; pinned < 2; pinned++)
            for (int base = 0; base < 3; base++) { /* none, another law, its own */
                struct built *b = built_new();
                struct law *l = &b->laws[LAW_SPARE];
                int m = add_model(b, "m");
                b->models[m].params = 973e6;
                b->models[m].train.law = LAW_SPARE;
                *l = conditional_law("spare", (double[]){2.697, 0.0974, 0.0078},
                                     (double[]){0.3870, 0.0063, 0.0065});
                l->form = forms[f];
                l->morph_e = 0.001;
                l->base = base == 1 ? LAW_BESIROGLU : -1;
                l->observe_loss = 2.8;
                if (base == 2 || forms[f] == LAW_MORPH || forms[f] == LAW_CHINCHILLA)
                    l->E = 1.8, l->A = 480, l->B = 2000, l->alpha = 0.34, l->beta = 0.36;
                if (forms[f] == LAW_MORPH)
                    l->beta = NAN;
                add_samples(b, LAW_SPARE, N, 1, 7);
                add_samples(b, LAW_BESIROGLU, N / 2, 1, 8);
                if (pinned || base || !isnan(l->E))
                    compare_losses(b, m, pinned ? &observed : NULL);
                built_free(b);
            }
}

/* ---- the choice against brute force ---------------------------------------------------------- */

/* A small search and the baseline that its requirement names. */
static int small_search(struct built *b, const struct law *law)
{
    int base = add_model(b, "base");
    set_shape(&b->models[base], 12, 768, 12, 4, 64, 3072);
    int m = add_model(b, "m");
    set_search(&b->models[m], 12, 64, 103e6);
    b->models[m].params_tolerance = 0.03;
    b->models[m].knobs[KNOB_D_MODEL] = within(512, 1280, 128);
    b->models[m].knobs[KNOB_GQA] = within(1, 6, 0);
    b->models[m].knobs[KNOB_D_FF] = within(256, 8192, 256);
    b->laws[LAW_297M] = *law;
    return m;
}

struct all {
    struct candidate at[4000];
    int n;
};

static void collect(void *user, const struct candidate *c)
{
    struct all *all = user;
    if (all->n < 4000)
        all->at[all->n++] = *c;
}

/* Fewer parameters, smaller width, fewer heads, as the manual says; then the rest. */
static bool first_of_equals(const struct arch *p, const struct arch *q)
{
    double a[] = {(double)arch_params(p), p->d_model, p->heads, p->kv_heads, p->d_ff};
    double b[] = {(double)arch_params(q), q->d_model, q->heads, q->kv_heads, q->d_ff};
    for (int i = 0; i < 5; i++)
        if (a[i] != b[i])
            return a[i] < b[i];
    return false;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double ranked(double *v, int n, double q)
{
    qsort(v, (size_t)n, sizeof *v, ascending);
    return v[(int)ceil(q * n) - 1];
}

/* losses[sample][candidate], and those of the baseline. */
struct brute {
    struct all all;
    double loss[N][4000], base[N];
    int pick[N];
};

static void brute_losses(struct brute *t, const struct resolution *r, const struct built *b)
{
    struct pricing base;
    struct arch a = {.layers = 12,
                     .d_model = 768,
                     .heads = 12,
                     .kv_heads = 4,
                     .head_dim = 64,
                     .d_ff = 3072,
                     .vocab = 128256};
    pricing_init(&base, &b->spec, &b->models[0]);
    for (int i = 0; i < N; i++) {
        t->base[i] = pricing_sampled_loss(&base, i, &a);
        for (int c = 0; c < t->all.n; c++)
            t->loss[i][c] = pricing_sampled_loss(&r->pricing, i, &t->all.at[c].arch);
    }
}

/* What each sample chooses: the fastest within the baseline's loss, or the least loss. */
static void brute_picks(struct brute *t, bool fastest)
{
    for (int i = 0; i < N; i++) {
        t->pick[i] = -1;
        for (int c = 0; c < t->all.n; c++) {
            if (fastest && !(t->base[i] - t->loss[i][c] >= 0))
                continue;
            int held = t->pick[i];
            double key = fastest ? -t->all.at[c].metrics[METRIC_THROUGHPUT] : t->loss[i][c];
            double best = held < 0  ? INFINITY
                          : fastest ? -t->all.at[held].metrics[METRIC_THROUGHPUT]
                                    : t->loss[i][held];
            if (key < best ||
                (key == best && first_of_equals(&t->all.at[c].arch, &t->all.at[held].arch)))
                t->pick[i] = c;
        }
    }
}

static int find(const struct brute *t, const struct arch *a)
{
    for (int c = 0; c < t->all.n; c++)
        if (same_shape(&t->all.at[c].arch, a))
            return c;
    return -1;
}

static void check_knobs(const struct brute *t, const struct sureness *s)
{
    double d[N], r[N], g[N], f[N];
    int n = 0, none = 0;
    for (int i = 0; i < N; i++) {
        none += t->pick[i] < 0;
        if (t->pick[i] < 0)
            continue;
        const struct arch *a = &t->all.at[t->pick[i]].arch;
        d[n] = a->d_model, r[n] = arch_r(a), g[n] = a->heads / a->kv_heads, f[n++] = a->d_ff;
    }
    CHECK(n > N / 2);
    CHECK_NEAR(s->none, (double)none / N, 1e-12);
    CHECK(s->knobs[KNOB_D_MODEL].lo == ranked(d, n, 0.05));
    CHECK(s->knobs[KNOB_D_MODEL].hi == ranked(d, n, 0.95));
    CHECK(s->knobs[KNOB_R].lo == ranked(r, n, 0.05) && s->knobs[KNOB_R].hi == ranked(r, n, 0.95));
    CHECK(s->knobs[KNOB_GQA].lo == ranked(g, n, 0.05));
    CHECK(s->knobs[KNOB_D_FF].hi == ranked(f, n, 0.95));
    CHECK(s->knobs[KNOB_R].lo < s->knobs[KNOB_R].hi); /* or the test says nothing */
}

/* Shares, wins and differences of every rival that is listed. */
static void check_rivals(const struct brute *t, const struct resolution *r, bool fastest)
{
    const struct sureness *s = r->sure;
    int best = find(t, &r->best.arch);
    double loss[N];
    for (int i = 0; i < N; i++)
        loss[i] = t->loss[i][best];
    CHECK_NEAR(s->loss.lo, ranked(loss, N, 0.05), 1e-12);
    CHECK_NEAR(s->loss.hi, ranked(loss, N, 0.95), 1e-12);
    CHECK(s->n_runners == r->n_runners && s->n_runners > 3 && s->n_often > 1);
    for (int k = 0; k < s->n_runners + s->n_often; k++) {
        const struct rival *v = k < s->n_runners ? &s->runners[k] : &s->often[k - s->n_runners];
        int c = find(t, &v->candidate.arch), wins = 0, picked = 0;
        double difference[N];
        for (int i = 0; i < N; i++) {
            bool ok = !fastest || t->base[i] - t->loss[i][c] >= 0;
            bool held = !fastest || t->base[i] - t->loss[i][best] >= 0;
            bool ahead = fastest ? t->all.at[c].metrics[METRIC_THROUGHPUT] >
                                       t->all.at[best].metrics[METRIC_THROUGHPUT]
                                 : t->loss[i][c] < t->loss[i][best];
            wins += ok && (!held || ahead);
            picked += t->pick[i] == c;
            difference[i] = t->loss[i][c] - t->loss[i][best];
        }
        CHECK_NEAR(v->wins, (double)wins / N, 1e-12);
        CHECK_NEAR(v->chosen, (double)picked / N, 1e-12);
        CHECK_NEAR(v->difference.lo, ranked(difference, N, 0.05), 1e-12);
        CHECK_NEAR(v->difference.hi, ranked(difference, N, 0.95), 1e-12);
    }
}

static void test_choice(bool fastest)
{
    struct built *b = built_new();
    struct law law = b->laws[LAW_297M];
    struct brute *t = calloc(1, sizeof *t);
    int m = small_search(b, &law);
    add_samples(b, LAW_297M, N, 4, 3);
    add_samples(b, LAW_BESIROGLU, N, 1, 4);
    if (fastest)
        add_require(b, m, metric_of(b, m, METRIC_LOSS), RELATION_LE, metric_of(b, 0, METRIC_LOSS),
                    "loss <= base.loss");
    add_objective(b, m, fastest ? GOAL_MAXIMIZE : GOAL_MINIMIZE,
                  fastest ? METRIC_THROUGHPUT : METRIC_LOSS);
    struct resolution r;
    CHECK(t && resolve(b->arena, &b->spec, m, &b->diags, &r) && r.found && r.sure);
    if (t && r.sure) {
        CHECK(search_each(b->arena, &r, ALL_METRICS, &b->diags, collect, &t->all));
        CHECK(t->all.n > 100 && t->all.n < 4000 && r.sure->n == N);
        brute_losses(t, &r, b);
        brute_picks(t, fastest);
        check_knobs(t, r.sure);
        check_rivals(t, &r, fastest);
        CHECK(said(&r, "the choice is not distinguishable from a runner-up: under "));
    }
    free(t);
    built_free(b);
}

/* ---- a requirement with a confidence --------------------------------------------------------- */

static void test_confidence(void)
{
    struct built *b = built_new();
    struct law law = b->laws[LAW_297M];
    struct brute *t = calloc(1, sizeof *t);
    int m = small_search(b, &law);
    add_samples(b, LAW_297M, N, 4, 3);
    add_samples(b, LAW_BESIROGLU, N, 1, 4);
    add_require(b, m, metric_of(b, m, METRIC_LOSS), RELATION_LE, metric_of(b, 0, METRIC_LOSS),
                "loss <= base.loss with 90%");
    b->goals[m][0].confidence = 0.9;
    add_objective(b, m, GOAL_MAXIMIZE, METRIC_THROUGHPUT);
    struct resolution r, plain;
    CHECK(t && resolve(b->arena, &b->spec, m, &b->diags, &r) && r.found && r.sure);
    CHECK(search_each(b->arena, &r, ALL_METRICS, &b->diags, collect, &t->all));
    brute_losses(t, &r, b);
    int best = -1;
    for (int c = 0; c < t->all.n; c++) {
        int holds = 0;
        for (int i = 0; i < N; i++)
            holds += t->base[i] - t->loss[i][c] >= 0;
        const double *rate = &t->all.at[c].metrics[METRIC_THROUGHPUT];
        if (holds >= 0.9 * N && (best < 0 || *rate > t->all.at[best].metrics[METRIC_THROUGHPUT]))
            best = c;
    }
    CHECK(best >= 0 && same_shape(&t->all.at[best].arch, &r.best.arch));
    CHECK(r.requirements[0].satisfied && r.requirements[0].margin >= 0);
    CHECK(r.requirements[0].share >= 0.9);
    CHECK(!said(&r, "carries no samples"));
    /* Asking less finds another, faster shape, of which it is said how unsure it is. */
    b->goals[m][0].confidence = 0;
    CHECK(resolve(b->arena, &b->spec, m, &b->diags, &plain) && plain.found);
    CHECK(plain.best.metrics[METRIC_THROUGHPUT] > r.best.metrics[METRIC_THROUGHPUT]);
    CHECK(plain.requirements[0].share < 0.9);
    CHECK(said(&plain, "holds under "));
    /* More than any candidate reaches. */
    b->goals[m][0].confidence = 1;
    b->goals[m][0].rhs = number(b, r.best.metrics[METRIC_LOSS] - 0.02);
    CHECK(resolve(b->arena, &b->spec, m, &b->diags, &plain) && !plain.found);
    CHECK(plain.binding == 0 && plain.requirements[0].margin < 0);
    CHECK(plain.requirements[0].share < 1 && !plain.sure);
    free(t);
    built_free(b);
}

/* ---- answers known beforehand ---------------------------------------------------------------- */

/* Only a0 of an additive law varies, by 0, 0.001, .. 0.099: every loss moves by as much, so that
 * its interval is known and nothing else moves at all. */
static void test_common_error(void)
{
    struct built *b = built_new();
    struct law law = b->laws[LAW_297M];
    law.form = LAW_ADDITIVE;
    law.a[0] = 0;
    struct law_sample samples[100];
    for (int i = 0; i < 100; i++) {
        samples[i] = (struct law_sample){NAN, NAN, NAN, NAN, NAN, {0}, {NAN, NAN, NAN}, NAN};
        samples[i].a[0] = 0.001 * i;
        samples[i].a[1] = samples[i].a[2] = NAN;
    }
    law.samples = samples;
    law.n_samples = 100;
    int m = small_search(b, &law);
    add_require(b, m, metric_of(b, m, METRIC_LOSS), RELATION_LE, metric_of(b, 0, METRIC_LOSS),
                "loss <= base.loss");
    add_objective(b, m, GOAL_MAXIMIZE, METRIC_THROUGHPUT);
    struct resolution r;
    CHECK(resolve(b->arena, &b->spec, m, &b->diags, &r) && r.found && r.sure);
    double loss = r.best.metrics[METRIC_LOSS];
    CHECK_NEAR(r.sure->loss.lo, loss + 0.004, 1e-12);
    CHECK_NEAR(r.sure->loss.hi, loss + 0.094, 1e-12);
    CHECK(r.sure->same == 1 && r.sure->none == 0 && r.sure->distinct == 1);
    CHECK(r.sure->knobs[KNOB_R].lo == arch_r(&r.best.arch));
    CHECK(r.sure->knobs[KNOB_R].hi == arch_r(&r.best.arch));
    CHECK(r.requirements[0].share == 1);
    CHECK_NEAR(r.requirements[0].margins.lo, r.requirements[0].margins.hi, 1e-12);
    CHECK(!said(&r, "not distinguishable") && !said(&r, "holds under"));
    for (int i = 0; i < r.sure->n_runners; i++)
        CHECK(r.sure->runners[i].wins == 0 && r.sure->runners[i].chosen == 0);
    built_free(b);
}

/* Two shapes of the same N, r and width: no sample tells them apart, and that is said. */
static void test_twins(void)
{
    struct built *b = built_new();
    struct law law = b->laws[LAW_297M];
    int m = small_search(b, &law);
    add_samples(b, LAW_297M, N, 1, 3);
    struct model_spec *s = &b->models[m];
    s->knobs[KNOB_D_MODEL] = fixed(768);
    s->knobs[KNOB_GQA] = within(1, 3, 0);
    s->knobs[KNOB_HEADS] = (struct domain){0};
    s->knobs[KNOB_D_FF] = fixed(3072);
    s->params_tolerance = 0.01;
    s->params = 12 * (2.0 * 768 * 64 * (12 + 4) + 3.0 * 768 * 3072); /* 12/4 heads, or 8/8 */
    add_objective(b, m, GOAL_MINIMIZE, METRIC_LOSS);
    struct resolution r;
    CHECK(resolve(b->arena, &b->spec, m, &b->diags, &r) && r.found && r.sure);
    CHECK(r.n_runners >= 1 && r.sure->runners[0].difference.lo == 0);
    CHECK(r.sure->runners[0].difference.hi == 0);
    CHECK(said(&r, "the law does not tell the choice from a runner-up: the loss of 12 layers"));
    built_free(b);
}

/* Without samples nothing is claimed, and a confidence that cannot be judged is said to be so. */
static void test_without(void)
{
    struct built *b = built_new();
    struct law law = b->laws[LAW_297M];
    int m = small_search(b, &law);
    add_require(b, m, metric_of(b, m, METRIC_LOSS), RELATION_LE, metric_of(b, 0, METRIC_LOSS),
                "loss <= base.loss with 90%");
    add_require(b, m, metric_of(b, m, METRIC_THROUGHPUT), RELATION_GE, number(b, 1),
                "throughput >= 1 tok/s with 50%");
    b->goals[m][0].confidence = 0.9;
    b->goals[m][1].confidence = 0.5;
    add_objective(b, m, GOAL_MAXIMIZE, METRIC_THROUGHPUT);
    struct resolution r;
    CHECK(resolve(b->arena, &b->spec, m, &b->diags, &r) && r.found && !r.sure);
    CHECK(isnan(r.requirements[0].share));
    CHECK(said(&r, "`loss <= base.loss with 90%`: law `bian2025_297m` carries no samples, so the "
                   "point estimate is compared; `archc fit RUNS.csv --bootstrap 1000` writes a law "
                   "that does"));
    CHECK(said(&r, "`throughput >= 1 tok/s with 50%`: only losses come with samples"));
    built_free(b);
}

/* Samples of nonsense: no number comes of them, and nothing is chosen by them. */
static void test_nonsense(void)
{
    struct built *b = built_new();
    struct law law = b->laws[LAW_297M];
    struct law_sample samples[3];
    for (int i = 0; i < 3; i++)
        samples[i] = (struct law_sample){
            1, 1e308, 1e308, -300, -300, {1e300, 1e300, 1e300}, {1e300, -1e300, 1e300}, 1};
    law.samples = samples;
    law.n_samples = 3;
    law.base = -1;
    law.E = law.A = law.B = law.alpha = law.beta = 1;
    int m = small_search(b, &law);
    add_require(b, m, metric_of(b, m, METRIC_LOSS), RELATION_LE, number(b, 1e9), "loss <= 1e9");
    add_objective(b, m, GOAL_MINIMIZE, METRIC_LOSS);
    struct resolution r;
    CHECK(resolve(b->arena, &b->spec, m, &b->diags, &r) && r.found && r.sure);
    CHECK(r.sure->none == 1 && isnan(r.sure->loss.lo) && isnan(r.sure->knobs[KNOB_R].lo));
    CHECK(r.requirements[0].share == 0);
    built_free(b);
}

int main(void)
{
    test_losses();
    test_choice(true);
    test_choice(false);
    test_confidence();
    test_common_error();
    test_twins();
    test_without();
    test_nonsense();
    return check_report("law sure");
}

/* fit_test.c - laws recovered from runs that were made with them, noise included; what the report
 * and the written law say; what cannot be fitted. */
#include "../../law/law.h"
#include "../../law/runs.h"
#include "check.h"

#include <stdlib.h>

/* ---- runs made with a known law -------------------------------------------------------------- */

static const double sizes[] = {80e6, 145e6, 297e6},
                    widths[] = {0.03, 0.045, 0.06, 0.075, 0.09, 0.11, 0.14},
                    ratios[] = {0.5, 0.75, 1.0, 1.3, 2.0, 3.2, 4.8};
enum { SIZES = 3, WIDTHS = 7, RATIOS = 7 };

static uint64_t state;

static double uniform(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return ((double)(state >> 11) + 0.5) / 9007199254740992.0;
}

static double normal(void)
{
    return sqrt(-2 * log(uniform())) * cos(6.283185307179586 * uniform());
}

/* The published law of 80M to 297M on the refitted Chinchilla curve. */
static struct law published(enum law_form form)
{
    struct law l = {.form = form, .base = -1, .observe_model = -1, .morph_e = NAN};
    const double a[3] = {2.697, 0.0974, 0.0078}, b[3] = {0.3870, 0.0063, 0.0065};
    l.E = 1.81686, l.A = 482.006, l.B = 2085.434, l.alpha = 0.34781, l.beta = 0.36585;
    memcpy(l.a, a, sizeof a);
    memcpy(l.b, b, sizeof b);
    if (form == LAW_ADDITIVE) { /* of the same size near the optimum */
        const double aa[3] = {0.35, 0.13, 0.0104}, bb[3] = {NAN, 0.05, 0.0516};
        memcpy(l.a, aa, sizeof aa);
        memcpy(l.b, bb, sizeof bb);
    }
    return l;
}

static double made_loss(const struct law *l, double n, double d, double x, double r)
{
    return law_loss(l, law_base_loss(l, n, d), x, r, 1);
}

/* Every width and ratio at every size and 20 and 100 tokens a parameter; `noise` is relative. */
static void make_runs(struct arena *a, const struct law *l, double noise, struct runs *t)
{
    static const char *const names[] = {"size", "date"};
    static const char *const labels[][2] = {
        {"80M", "2026-01-02"}, {"145M", "2026-03-04"}, {"297M", "2026-02-03"}};
    state = 42;
    runs_init(t, a, "made.csv", names, 2);
    for (int s = 0; s < SIZES; s++)
        for (int k = 0; k < 2 * WIDTHS * RATIOS; k++) {
            double n = sizes[s], d = n * (k % 2 ? 20 : 100), x = widths[k / 2 % WIDTHS],
                   r = ratios[k / 2 / WIDTHS];
            struct run row = {.d_model = floor(x * sqrt(n)),
                              .layers = NAN,
                              .heads = NAN,
                              .kv_heads = NAN,
                              .head_dim = NAN,
                              .d_ff = NAN,
                              .r = r,
                              .params = n,
                              .total_params = NAN,
                              .tokens = d,
                              .extra = labels[s]};
            row.loss = made_loss(l, n, d, row.d_model / sqrt(n), r) * exp(noise * normal());
            runs_add(t, &row);
        }
}

static struct fit_options options(enum law_form form, int bootstrap)
{
    return (struct fit_options){.form = form, .bootstrap = bootstrap, .seed = 7, .name = "made"};
}

static bool within(double v, const struct fit_value *i)
{
    return i->lo <= v && v <= i->hi;
}

/* Largest relative difference of two laws' shape terms, scale aside, over the grid. */
static double shape_difference(const struct law *p, const struct law *q)
{
    double worst = 0, p0 = law_shape_term(p, 0.08, 1, 1), q0 = law_shape_term(q, 0.08, 1, 1);
    for (int i = 0; i < WIDTHS; i++)
        for (int j = 0; j < RATIOS; j++)
            worst = fmax(worst, fabs(law_shape_term(p, widths[i], ratios[j], 1) / p0 /
                                         (law_shape_term(q, widths[i], ratios[j], 1) / q0) -
                                     1));
    return worst;
}

static void test_recovery(double noise, double x_within, double r_within, double shape_within)
{
    struct arena *a = arena_new();
    struct law truth = published(LAW_MULTIPLICATIVE);
    struct fit_options o = options(LAW_MULTIPLICATIVE, 200);
    struct runs t;
    struct fit f;
    struct text why = {0};
    make_runs(a, &truth, noise, &t);
    CHECK(fit_law(a, &t, &o, &f, &why) && why.length == 0);
    CHECK(f.n_rows == 294 && f.n_used == 294 && f.n_outliers == 0 && f.n_groups == 6);
    CHECK(f.has_width && f.has_ratio && f.curve_terms == 5 && f.n_refits + f.n_refused == 200);
    CHECK_NEAR(f.best_x.value, 0.0801, x_within);
    CHECK_NEAR(f.best_r.value, 1.0317, r_within);
    CHECK(shape_difference(&f.law, &truth) < shape_within);
    CHECK_NEAR(f.law.b[0] + f.law.b[2], 1, 1e-12); /* the gauge: the ratio factor is 1 at r = 1 */
    if (noise > 0) {
        CHECK(within(law_best_x(&truth), &f.best_x) && within(law_best_r(&truth), &f.best_r));
        CHECK(f.best_x.lo < f.best_x.value && f.best_x.value < f.best_x.hi);
    }
    CHECK(f.options.date && !strcmp(f.options.date, "2026-03-04"));
    text_free(&why);
    arena_free(a);
}

/* A prediction for a shape and a size that were not in the table. */
static void test_prediction(void)
{
    struct arena *a = arena_new();
    struct law truth = published(LAW_MULTIPLICATIVE);
    struct fit_options o = options(LAW_MULTIPLICATIVE, 0);
    struct runs t;
    struct fit f;
    struct text why = {0};
    make_runs(a, &truth, 0.002, &t);
    CHECK(fit_law(a, &t, &o, &f, &why));
    double want = made_loss(&truth, 200e6, 1e10, 0.08, 1.6),
           got = made_loss(&f.law, 200e6, 1e10, 0.08, 1.6);
    CHECK_NEAR(got, want, 0.01 * want);
    text_free(&why);
    arena_free(a);
}

static void test_forms(void)
{
    struct arena *a = arena_new();
    struct law truth = published(LAW_ADDITIVE);
    struct fit_options o = options(LAW_ADDITIVE, 0), m = options(LAW_MULTIPLICATIVE, 0),
                       j = options(LAW_JOINT, 0);
    struct law base = published(LAW_CHINCHILLA);
    struct runs t;
    struct fit f, g, h;
    struct text why = {0};
    base.name = "base";
    make_runs(a, &truth, 0, &t);
    o.l_opt = m.l_opt = j.l_opt = FIT_BASE;
    o.base = m.base = j.base = &base;
    CHECK(fit_law(a, &t, &o, &f, &why) && fit_law(a, &t, &m, &g, &why) &&
          fit_law(a, &t, &j, &h, &why));
    for (int k = 0; k < 3; k++)
        CHECK_NEAR(f.law.a[k], truth.a[k], 1e-9);
    CHECK_NEAR(f.law.b[1], truth.b[1], 1e-9);
    CHECK_NEAR(f.law.b[2], truth.b[2], 1e-9);
    /* the right form fits best, the joint one worst: x and r do not act through their product */
    CHECK(f.fitted.mse < 1e-20 && g.fitted.mse > f.fitted.mse && h.fitted.mse > 2 * g.fitted.mse);
    CHECK(isnan(f.law.E) && f.curve_terms == 0);
    text_free(&why);
    arena_free(a);
}

static void test_morph(void)
{
    struct arena *a = arena_new();
    struct law truth = published(LAW_MORPH);
    struct fit_options o = options(LAW_MORPH, 50);
    struct runs t;
    struct fit f;
    struct text why = {0};
    truth.beta = NAN, truth.E = 2.4, truth.A = 54754, truth.B = 778343, truth.alpha = 0.61,
    truth.morph_e = 0.00115;
    runs_init(&t, a, "morph.csv", NULL, 0);
    for (int k = 0; k < 60; k++) {
        double n = 8e7 * pow(1.5, k % 5), d = n * (k % 3 ? 20 : 160), depth = 20 * pow(1.7, k % 4);
        struct run row = {.layers = 8,
                          .d_model = round(8 * depth),
                          .heads = NAN,
                          .kv_heads = NAN,
                          .head_dim = NAN,
                          .d_ff = NAN,
                          .r = NAN,
                          .params = n / 2,
                          .total_params = n,
                          .tokens = d};
        row.loss = law_loss(&truth, law_base_loss(&truth, n, d), NAN, NAN, row.d_model / 8);
        runs_add(&t, &row);
    }
    CHECK(fit_law(a, &t, &o, &f, &why));
    CHECK_NEAR(f.law.E, truth.E, 1e-4);
    CHECK_NEAR(f.law.alpha, truth.alpha, 1e-5);
    CHECK_NEAR(f.law.A, truth.A, 10);
    CHECK_NEAR(f.law.B, truth.B, 100);
    CHECK_NEAR(f.law.morph_e, truth.morph_e, 1e-7);
    text_free(&why);
    arena_free(a);
}

static void test_chinchilla(void)
{
    struct arena *a = arena_new();
    struct law truth = published(LAW_CHINCHILLA);
    struct fit_options o = options(LAW_CHINCHILLA, 20);
    struct runs t;
    struct fit f;
    struct text why = {0};
    runs_init(&t, a, "chinchilla.csv", NULL, 0);
    for (int k = 0; k < 48; k++) {
        double n = 1e7 * pow(3, k % 6), d = 1e9 * pow(3, k / 6);
        struct run row = {.d_model = NAN,
                          .layers = NAN,
                          .heads = NAN,
                          .kv_heads = NAN,
                          .head_dim = NAN,
                          .d_ff = NAN,
                          .r = NAN,
                          .params = n,
                          .total_params = NAN,
                          .tokens = d};
        row.loss =
            law_base_loss(&truth, n, d) * (k == 5 ? 1.5 : 1); /* Huber shrugs at an outlier */
        runs_add(&t, &row);
    }
    CHECK(fit_law(a, &t, &o, &f, &why));
    CHECK_NEAR(f.law.E, truth.E, 0.002);
    CHECK_NEAR(f.law.alpha, truth.alpha, 0.003);
    CHECK_NEAR(f.law.beta, truth.beta, 0.003);
    CHECK(f.n_starts == 4500 && f.n_at_best > 0 && f.n_refits == 20);
    o.drop_highest = 1;
    CHECK(fit_law(a, &t, &o, &f, &why) && f.n_high == 1 && f.n_used == 47);
    text_free(&why);
    arena_free(a);
}

/* ---- selection and held-out error ------------------------------------------------------------ */

static void test_outliers(void)
{
    struct arena *a = arena_new();
    struct law truth = published(LAW_MULTIPLICATIVE);
    struct fit_options o = options(LAW_MULTIPLICATIVE, 0);
    struct runs t;
    struct fit f, g;
    struct text why = {0};
    make_runs(a, &truth, 0.001, &t);
    for (int i = 0; i < 20; i++) { /* what extreme ratios did in the paper: losses off the law */
        struct run row = t.rows[i];
        row.r = i % 2 ? 0.1 : 12.6;
        row.loss *= i % 2 ? 1.3 : 0.98;
        runs_add(&t, &row);
    }
    CHECK(fit_law(a, &t, &o, &f, &why) && f.n_outliers == 20 && f.n_used == 294);
    CHECK_NEAR(f.best_r.value, 1.0317, 0.25);
    o.all_r = true;
    CHECK(fit_law(a, &t, &o, &g, &why) && g.n_outliers == 0 && g.n_used == 314);
    CHECK(g.fitted.mse > 2 * f.fitted.mse &&
          shape_difference(&g.law, &truth) > 2 * shape_difference(&f.law, &truth));
    text_free(&why);
    arena_free(a);
}

static void test_holdout(void)
{
    struct arena *a = arena_new();
    struct law truth = published(LAW_MULTIPLICATIVE);
    struct fit_options o = options(LAW_MULTIPLICATIVE, 0);
    struct runs t;
    struct fit f;
    struct fit_step steps[8];
    struct text why = {0};
    make_runs(a, &truth, 0.001, &t);
    o.holdout = "size=297M";
    CHECK(fit_law(a, &t, &o, &f, &why) && f.n_held == 98 && f.held_out.n == 98 && f.n_used == 196);
    CHECK(f.held_out.spearman > 0.9 && f.held_out.mse < 2e-4);
    o.holdout = NULL;
    CHECK(fit_progressive(a, &t, &o, steps, 8, &why) == 2);
    CHECK(steps[0].fitted && steps[1].fitted && steps[1].error.n == 98);
    CHECK_NEAR(steps[1].error.mse, f.held_out.mse, 1e-15);
    CHECK_NEAR(steps[1].error.spearman, f.held_out.spearman, 1e-12);
    CHECK(steps[0].target == 145e6 && steps[1].params_hi == 145e6);
    o.group = "size";
    CHECK(fit_progressive(a, &t, &o, steps, 8, &why) == 2 && steps[1].error.n == 98);
    CHECK(why.length == 0);
    o.holdout = "size=7B";
    CHECK(!fit_law(a, &t, &o, &f, &why) && strstr(why.at, "holds out no run"));
    text_free(&why);
    arena_free(a);
}

/* One factor alone, few sizes, repeats. */
static void test_small(void)
{
    struct arena *a = arena_new();
    struct law truth = published(LAW_MULTIPLICATIVE);
    struct fit_options o = options(LAW_MULTIPLICATIVE, 100);
    struct runs t, one;
    struct fit f;
    struct text why = {0};
    make_runs(a, &truth, 0, &t);
    CHECK(runs_filter(&t, "r=1", true, &one, &why) && one.n == 42);
    CHECK(fit_law(a, &one, &o, &f, &why) && f.has_width && !f.has_ratio);
    CHECK(f.law.b[0] == 1 && f.law.b[1] == 0 && f.law.b[2] == 0 && isnan(f.best_r.value));
    CHECK_NEAR(f.best_x.value, 0.0801, 5e-4);
    CHECK(runs_filter(&t, "size=80M", true, &one, &why));
    CHECK(fit_law(a, &one, &o, &f, &why) && f.n_groups == 2 && f.curve_terms == 1);
    for (int i = 0; i < 98; i++) { /* a second seed, 0.02 away */
        struct run row = one.rows[i];
        row.loss += 0.02;
        runs_add(&one, &row);
    }
    CHECK(fit_law(a, &one, &o, &f, &why) && f.n_repeated == 98);
    CHECK_NEAR(f.noise, 0.02 / sqrt(2), 1e-9);
    text_free(&why);
    arena_free(a);
}

/* ---- what is written ------------------------------------------------------------------------- */

static char *written(struct arena *a, const struct fit *f)
{
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    fit_write(f, out);
    fclose(out);
    char *copy = arena_copy(a, text, n);
    free(text);
    return copy;
}

/* The front end reads the law as it stands, and it says what was fitted. */
static void test_written(enum law_form form)
{
    struct arena *a = arena_new();
    struct law truth = published(LAW_MULTIPLICATIVE);
    struct fit_options o = options(form, 120);
    struct runs t;
    struct fit f, again;
    struct text why = {0};
    struct diags d = {.arena = a};
    struct spec s;
    make_runs(a, &truth, 0.003, &t);
    t.path = "dir\n/bad \"name\xff\n.csv";
    o.date = "2026 \"or\"\nlater";
    struct runs few = t;
    if (form == LAW_CHINCHILLA) { /* 4500 descents over all runs take seconds */
        CHECK(runs_filter(&t, "r=1", true, &few, &why));
        t = few;
    }
    CHECK(fit_law(a, &t, &o, &f, &why) && fit_law(a, &t, &o, &again, &why));
    char *text = written(a, &f);
    CHECK(!strcmp(text, written(a, &again)));
    CHECK(spec_parse(a, "made.law", text, strlen(text), law_prelude, &d, &s));
    CHECK(d.errors == 0 && d.warnings == 1); /* no model in it */
    const struct law *l = s.laws + s.n_laws - 1;
    CHECK(!strcmp(l->name, "made") && l->form == form && l->n_samples == f.n_refits);
    CHECK(f.n_refits > 100);
    for (int i = 0; i < 3; i++) {
        CHECK(isnan(f.law.a[i]) || fabs(l->a[i] - f.law.a[i]) <= 1e-8 * fabs(f.law.a[i]));
        CHECK(isnan(f.law.b[i]) || fabs(l->b[i] - f.law.b[i]) <= 1e-8 * fabs(f.law.b[i]));
    }
    CHECK_NEAR(l->E, f.law.E, 1e-8);
    CHECK_NEAR(l->samples[3].E, f.law.samples[3].E, 1e-5);
    CHECK(l->params_lo <= 80e6 && l->params_hi >= 297e6);
    if (form != LAW_CHINCHILLA)
        CHECK(l->r_lo <= 0.5 && l->r_hi >= 4.8 && l->x_lo > 0.02);
    text_free(&why);
    arena_free(a);
}

/* ---- what cannot be fitted ------------------------------------------------------------------- */

static void refused(struct arena *a, const struct runs *t, const struct fit_options *o,
                    const char *says)
{
    struct fit f;
    struct text why = {0};
    CHECK(!fit_law(a, t, o, &f, &why));
    bool said = why.at && strstr(why.at, says);
    if (!said)
        printf("wanted: %s\ngot: %s\n", says, why.at ? why.at : "nothing");
    CHECK(said);
    text_free(&why);
}

static void test_refused(void)
{
    struct arena *a = arena_new();
    struct law truth = published(LAW_MULTIPLICATIVE);
    struct fit_options o = options(LAW_MULTIPLICATIVE, 0), morph = options(LAW_MORPH, 0);
    struct runs t, few;
    struct text why = {0};
    make_runs(a, &truth, 0, &t);
    refused(a, &t, &morph, "no run has total_params");
    refused(a, &t, &morph, "--columns total_params=HEADER");
    CHECK(runs_filter(&t, "loss=999", true, &few, &why));
    refused(a, &few, &o, "no runs are left to fit");
    few.n = 3;
    memcpy(few.rows = arena_alloc(a, 3 * sizeof *t.rows), t.rows, 3 * sizeof *t.rows);
    refused(a, &few, &o, "error: ");
    t.rows[7].r = NAN;
    refused(a, &t, &o, "made.csv:8: error: this run has no r");
    t.rows[7].r = 1;
    t.rows[9].tokens = NAN;
    refused(a, &t, &o, "made.csv:10: error: this run has no tokens");
    t.rows[9].tokens = 1e10;
    o.group = "nothing";
    refused(a, &t, &o, "'nothing' is no column to group by");
    o.group = NULL;
    for (int i = 0; i < t.n; i++)
        t.rows[i].tokens = 1e9 * pow(1.3, i);
    refused(a, &t, &o, "at no (N, D) are there three shapes to compare");
    for (int i = 0; i < t.n; i++)
        t.rows[i].r = t.rows[i].d_model = NAN;
    refused(a, &t, &o, "no run has d_model");
    text_free(&why);
    arena_free(a);
}

int main(void)
{
    test_recovery(0, 2e-4, 0.01, 1e-5);
    test_recovery(0.001, 2e-3, 0.2, 1e-3);
    test_prediction();
    test_forms();
    test_morph();
    test_chinchilla();
    test_outliers();
    test_holdout();
    test_small();
    test_written(LAW_MULTIPLICATIVE);
    test_written(LAW_ADDITIVE);
    test_written(LAW_JOINT);
    test_written(LAW_CHINCHILLA);
    test_refused();
    return check_report("fits");
}

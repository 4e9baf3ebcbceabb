/* fit_data_test.c - fits of published run tables against published figures. The tables are others'
 * and not part of this project: ARCHC_DATA names the directory that holds them. */
#include "../../law/law.h"
#include "../../law/runs.h"
#include "check.h"

#include <stdlib.h>
#include <time.h>

static double seconds(void)
{
    return (double)clock() / CLOCKS_PER_SEC;
}

static bool table(struct arena *a, const char *directory, const char *name, struct runs *t)
{
    struct text why = {0};
    bool good = runs_read(a, arena_printf(a, "%s/%s", directory, name), NULL, t, &why);
    text_free(&why);
    return good;
}

static int column(const struct runs *t, const char *name)
{
    for (int i = 0; i < t->n_extra; i++)
        if (!strcmp(t->extra_names[i], name))
            return i;
    return -1;
}

/* Besiroglu et al., arXiv:2404.10102: objective 0.00101827 at A 477.8, B 2143.4, E 1.8172, alpha
 * 0.3473, beta 0.3672; their bootstrap gives E a standard error of 0.0257. */
static void test_chinchilla(struct arena *a, const struct runs *t)
{
    struct fit_options o = {.form = LAW_CHINCHILLA, .drop_highest = 5, .seed = 1, .name = "c"};
    struct fit f;
    struct text why = {0};
    double start = seconds();
    CHECK(fit_law(a, t, &o, &f, &why));
    double fit_time = seconds() - start;
    CHECK_NEAR(f.objective, 0.00101827, 1e-8);
    CHECK_NEAR(f.law.A, 477.8, 0.1);
    CHECK_NEAR(f.law.B, 2143.4, 0.1);
    CHECK_NEAR(f.law.E, 1.8172, 5e-5);
    CHECK_NEAR(f.law.alpha, 0.3473, 5e-5);
    CHECK_NEAR(f.law.beta, 0.3672, 5e-5);
    o.bootstrap = 1000;
    start = seconds();
    CHECK(fit_law(a, t, &o, &f, &why) && f.n_refits > 990);
    double both = seconds() - start;
    CHECK_NEAR((f.E.hi - f.E.lo) / 3.92, 0.0257, 0.006);
    CHECK_NEAR((f.alpha.hi - f.alpha.lo) / 3.92, 0.0154, 0.004);
    printf("4500 starts: %.1f s of processor time; 1000 refits: %.1f s\n", fit_time,
           both - fit_time);
    text_free(&why);
}

/* arXiv:2501.18107, fitted on 27 of the 76 rows: 24 of five sizes at 20 tokens a parameter and the
 * smallest size at 160. */
static bool in_morph_fit(const struct runs *t, const struct run *r)
{
    static const char *const fitted[] = {"80M_", "116M_", "164M_", "237M_", "313M_"};
    const char *variant = r->extra[column(t, "variant")], *mult = r->extra[column(t, "token_mult")];
    for (int i = 0; i < 5; i++)
        if (!strncmp(variant, fitted[i], strlen(fitted[i])))
            return !strcmp(mult, "20N") || (i == 0 && !strcmp(mult, "160N"));
    return false;
}

static void test_morph(struct arena *a, const struct runs *t)
{
    struct fit_options o = {.form = LAW_MORPH, .name = "m"};
    struct runs some = *t;
    struct fit f;
    struct text why = {0};
    some.rows = arena_alloc(a, (size_t)t->n * sizeof *some.rows);
    some.n = 0;
    for (int i = 0; i < t->n; i++)
        if (in_morph_fit(t, t->rows + i))
            some.rows[some.n++] = t->rows[i];
    CHECK(some.n == 27 && fit_law(a, &some, &o, &f, &why));
    CHECK_NEAR(f.law.A, 54754.3, 0.05);
    CHECK_NEAR(f.law.B, 778343, 1);
    CHECK_NEAR(f.law.E, 2.44751, 5e-6);
    CHECK_NEAR(f.law.alpha, 0.614574, 5e-7);
    CHECK_NEAR(f.law.morph_e, 0.00114621, 5e-9);
    double squares = 0;
    for (int i = 0; i < t->n; i++) {
        const struct run *r = t->rows + i;
        double base = law_base_loss(&f.law, r->total_params, r->tokens);
        double miss = law_loss(&f.law, base, NAN, NAN, r->d_model / r->layers) - r->loss;
        squares += miss * miss / t->n;
    }
    CHECK_NEAR(squares, 0.0006, 5e-5);
    text_free(&why);
}

/* The same runs, one width factor over the sizes below 1B: best width 0.0742. The sizes are the
 * first words of the variants. */
static void test_width(struct arena *a, const struct runs *t)
{
    struct fit_options o = {.form = LAW_MULTIPLICATIVE,
                            .name = "w",
                            .group = "size",
                            .holdout = "size=1B",
                            .bootstrap = 200,
                            .seed = 3};
    const char *names[] = {"size"};
    struct runs sized;
    struct fit f;
    struct text why = {0};
    runs_init(&sized, a, t->path, names, 1);
    for (int i = 0; i < t->n; i++) {
        const char *variant = t->rows[i].extra[column(t, "variant")];
        const char *size = arena_copy(a, variant, strcspn(variant, "_"));
        struct run row = t->rows[i];
        row.extra = &size;
        runs_add(&sized, &row);
    }
    CHECK(fit_law(a, &sized, &o, &f, &why));
    CHECK(f.has_width && !f.has_ratio && f.fitted.n == 56 && f.n_held == 4);
    CHECK_NEAR(f.law.a[0], 1.21522, 5e-6);
    CHECK_NEAR(f.law.a[1], 0.134023, 5e-7);
    CHECK_NEAR(f.law.a[2], 0.0099471, 5e-8);
    CHECK_NEAR(f.best_x.value, 0.0742, 5e-5);
    CHECK_NEAR(f.fitted.spearman, 0.924, 5e-4); /* mean ranks of loss / lowest loss, all 56 */
    CHECK(f.best_x.lo < 0.0742 && f.best_x.hi > 0.0742);
    text_free(&why);
}

int main(void)
{
    const char *directory = getenv("ARCHC_DATA");
    struct arena *a = arena_new();
    struct runs chinchilla, morph;
    if (!directory || !table(a, directory, "chinchilla_245.csv", &chinchilla) ||
        !table(a, directory, "morph_arch_loss.csv", &morph)) {
        printf("skipped: ARCHC_DATA names no directory with chinchilla_245.csv and "
               "morph_arch_loss.csv\n");
        arena_free(a);
        return 77;
    }
    CHECK(chinchilla.n == 245 && morph.n == 76);
    test_chinchilla(a, &chinchilla);
    test_morph(a, &morph);
    test_width(a, &morph);
    arena_free(a);
    return check_report("fits of published tables");
}

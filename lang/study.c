/* study.c - the rules of `study` blocks: what a study needs before it can make runs. */
#include <math.h>

#include "front.h"

/* The keys without which there is nothing to train. */
void check_study_facts(struct check *c, struct decl *d)
{
    static const enum key needed[] = {KEY_STUDY_DATA, KEY_STUDY_SIZES, KEY_STUDY_LAYERS,
                                      KEY_STUDY_HEAD_DIM, KEY_STUDY_R};
    struct text t = {0};
    enum key first = KEY_COUNT;
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        if (d->all[needed[i]])
            continue;
        text_printf(&t, "%s%s", t.length ? ", " : "", key_infos[needed[i]].name);
        first = first == KEY_COUNT ? needed[i] : first;
    }
    if (!d->all[KEY_STUDY_WIDTH] && !d->all[KEY_STUDY_D_MODEL]) {
        text_printf(&t, "%swidth", t.length ? ", " : "");
        first = first == KEY_COUNT ? KEY_STUDY_WIDTH : first;
    }
    if (first != KEY_COUNT) {
        struct diag *g = rule_fail(c, d, RULE_MISSING_STUDY_FACTS, d->at,
                                   "the study '%s' does not give %s", d->name, t.at);
        diag_help(c->diags, g, "add %s, for example %s", key_infos[first].name,
                  key_infos[first].say);
    }
    text_free(&t);
}

/* A factor c0 + c1 ln x + c2 / x has three coefficients: fewer points say nothing of them. */
static void few_points(struct check *c, struct decl *d, enum key key, int n)
{
    if (n >= 3)
        return;
    struct diag *g = rule_fail(c, d, RULE_SMALL_GRID, d->all[key]->value_at,
                               "%d value%s of '%s' cannot show a curve", n, n == 1 ? "" : "s",
                               key_infos[key].name);
    diag_help(c->diags, g, "give three or more, for example %s", key_infos[key].say);
}

void check_study_grid(struct check *c, struct decl *d)
{
    const struct setting *width = d->all[KEY_STUDY_WIDTH], *d_model = d->all[KEY_STUDY_D_MODEL];
    if (width && d_model) {
        struct diag *g =
            rule_fail(c, d, RULE_STUDY_WIDTHS, d_model->at, "both width and d_model are given");
        diag_note(c->diags, g, &width->at, "width is here");
        diag_help(c->diags, g, "keep width, which means the same at every size");
        return;
    }
    few_points(c, d, width ? KEY_STUDY_WIDTH : KEY_STUDY_D_MODEL,
               width ? c->study->width.n : c->study->d_model.n);
    few_points(c, d, KEY_STUDY_R, c->study->r.n);
}

static bool is_too_large(struct check *c, struct decl *d)
{
    enum { MOST_POINTS = 4096 };
    const struct study_spec *s = c->study;
    double columns = s->width.n + s->d_model.n, points = columns * s->r.n * (s->sizes.n - 1.0);
    if (points <= MOST_POINTS)
        return false;
    struct diag *g = rule_fail(c, d, RULE_TOO_MANY, d->at, "a grid of %.0f shapes", points);
    diag_help(c->diags, g, "sizes, widths and ratios may make %d of them together", MOST_POINTS);
    return true;
}

void check_study_sizes(struct check *c, struct decl *d)
{
    const struct numbers *sizes = &c->study->sizes;
    const struct setting *s = d->all[KEY_STUDY_SIZES];
    struct diag *g;
    if (is_too_large(c, d))
        return;
    if (sizes->n < 2) {
        g = rule_fail(c, d, RULE_STUDY_SIZES, s->value_at,
                      "one size: the last one is predicted from those before it");
        diag_help(c->diags, g, "add a larger one: 'sizes = [%s, %s]'",
                  quantity_text(c->arena, sizes->at[0], UNIT_NONE),
                  quantity_text(c->arena, 2 * sizes->at[0], UNIT_NONE));
        return;
    }
    for (int i = 1; i < sizes->n; i++)
        if (sizes->at[i] < sizes->at[i - 1] * (1 + 2 * c->study->tolerance)) {
            g = rule_fail(c, d, RULE_STUDY_SIZES, s->value_at,
                          "the sizes %s and %s are one within the tolerance of %g%%",
                          quantity_text(c->arena, sizes->at[i - 1], UNIT_NONE),
                          quantity_text(c->arena, sizes->at[i], UNIT_NONE),
                          100 * c->study->tolerance);
            diag_help(c->diags, g, "keep one of them");
            return;
        }
}

void check_study_heads(struct check *c, struct decl *d)
{
    int e = c->study->head_dim;
    if (e % 8 == 0)
        return;
    struct diag *g = rule_fail(c, d, RULE_STUDY_HEAD_DIM, d->all[KEY_STUDY_HEAD_DIM]->value_at,
                               "head_dim must be a multiple of 8");
    diag_help(c->diags, g, "the nearest are %d and %d", e - e % 8, e - e % 8 + 8);
}

/* Written for a study itself; the same keys for all models of a file are nothing to remark on. */
void check_study_unused(struct check *c, struct decl *d)
{
    static const enum key unused[] = {KEY_TOKENS, KEY_TRAIN_LAW, KEY_TRAIN_DEVICE};
    for (size_t i = 0; i < sizeof unused / sizeof *unused; i++) {
        if (!d->own[unused[i]])
            continue;
        struct diag *g = rule_fail(c, d, RULE_STUDY_UNUSED, d->own[unused[i]]->at,
                                   "a study does not use '%s'", key_infos[unused[i]].name);
        diag_help(c->diags, g,
                  unused[i] == KEY_TOKENS
                      ? "its runs take tokens_per_param times their size; delete it"
                      : "it fits a law of its own, to runs made here; delete it");
    }
}

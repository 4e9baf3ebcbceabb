/* shape.c - rules about a model's shape: is it determined, do its facts agree. Needs the built
 * model; enumerates nothing.
 *
 * The shape is D, H, K, F for given layers and head_dim. Facts bind them:
 *   G = H / K,  S = H + K,  r = 3 F / (2 E S),  N = L D (2 E S + 3 F)      (heads of E, L layers)
 */
#include <math.h>
#include <string.h>

#include "front.h"

enum fact { FACT_D, FACT_H, FACT_K, FACT_F, FACT_G, FACT_S, FACT_R, FACT_N, FACT_COUNT };
#define FACT(f) (1u << FACT_##f)
enum { WHOLE_SHAPE = FACT(D) | FACT(H) | FACT(K) | FACT(F) };

static const struct {
    enum knob knob;
    unsigned fact;
} knob_facts[] = {
    {KNOB_D_MODEL, FACT(D)}, {KNOB_HEADS, FACT(H)}, {KNOB_KV_HEADS, FACT(K)},
    {KNOB_D_FF, FACT(F)},    {KNOB_GQA, FACT(G)},   {KNOB_R, FACT(R)},
};
enum { N_KNOB_FACTS = sizeof knob_facts / sizeof *knob_facts };

/* Knowing all of `from`, `gives` follows. */
static const struct {
    unsigned from, gives;
} consequences[] = {
    {FACT(H) | FACT(G), FACT(K)},           {FACT(K) | FACT(G), FACT(H)},
    {FACT(H) | FACT(K), FACT(G) | FACT(S)}, {FACT(S) | FACT(G), FACT(H) | FACT(K)},
    {FACT(S) | FACT(H), FACT(K)},           {FACT(S) | FACT(K), FACT(H)},
    {FACT(R) | FACT(S), FACT(F)},           {FACT(R) | FACT(F), FACT(S)},
    {FACT(S) | FACT(F), FACT(R)},           {FACT(N) | FACT(D) | FACT(R), FACT(S) | FACT(F)},
    {FACT(N) | FACT(D) | FACT(S), FACT(F)}, {FACT(N) | FACT(D) | FACT(F), FACT(S)},
    {FACT(N) | FACT(S) | FACT(F), FACT(D)},
};

static unsigned closure(unsigned known)
{
    unsigned before;
    do {
        before = known;
        for (size_t i = 0; i < sizeof consequences / sizeof *consequences; i++)
            if ((known & consequences[i].from) == consequences[i].from)
                known |= consequences[i].gives;
    } while (known != before);
    return known;
}

static bool determined(unsigned known)
{
    return (closure(known) & WHOLE_SHAPE) == WHOLE_SHAPE;
}

static unsigned given(const struct model_spec *m)
{
    unsigned known = m->params != 0 ? FACT(N) : 0;
    for (int i = 0; i < N_KNOB_FACTS; i++)
        if (m->knobs[knob_facts[i].knob].kind != DOMAIN_UNSET)
            known |= knob_facts[i].fact;
    return known;
}

static const char *fact_name(unsigned fact)
{
    for (int i = 0; i < N_KNOB_FACTS; i++)
        if (knob_facts[i].fact == fact)
            return knob_names[knob_facts[i].knob];
    return "params";
}

/* ---- what is missing ------------------------------------------------------------------------- */

void check_vocab(struct check *c, struct decl *d)
{
    if (d->all[KEY_VOCAB])
        return;
    struct diag *g = rule_fail(c, d, RULE_MISSING_VOCAB, d->at, "'%s' has no vocab", d->name);
    diag_help(c->diags, g, "add the size of its tokenizer: vocab = 32000");
}

void check_layers(struct check *c, struct decl *d)
{
    if (d->all[KEY_LAYERS])
        return;
    struct diag *g = rule_fail(c, d, RULE_MISSING_LAYERS, d->at, "'%s' has no layers", d->name);
    diag_note(c->diags, g, NULL,
              "the law does not choose the depth; 12 layers are usual to 300M "
              "parameters, 16 at 1B, 28 at 3B");
    diag_help(c->diags, g, "add it: layers = 16");
}

void check_head_dim(struct check *c, struct decl *d)
{
    if (d->all[KEY_HEAD_DIM])
        return;
    struct diag *g = rule_fail(c, d, RULE_MISSING_HEAD_DIM, d->at, "'%s' has no head_dim", d->name);
    diag_help(c->diags, g, "add it: head_dim = 64 is usual to 1B parameters, 128 from 3B");
}

struct completions {
    unsigned sets[8];
    int n;
};

static bool contains_one(const struct completions *c, unsigned set)
{
    for (int i = 0; i < c->n; i++)
        if ((set & c->sets[i]) == c->sets[i])
            return true;
    return false;
}

/* Smallest sets of further facts that would do, the shortest first, up to `most` of them. */
static void find_completions(struct completions *c, unsigned known, unsigned among, unsigned with,
                             int most)
{
    for (int size = 1; size <= 4; size++)
        for (unsigned add = 1; add <= among && c->n < most; add++)
            if (!(add & (~among | known)) && (add & with) == with &&
                __builtin_popcount(add) == size && !contains_one(c, add) && determined(known | add))
                c->sets[c->n++] = add;
}

/* Some that name the sizes, and some that name the number of parameters. */
static void list_completions(struct text *t, unsigned known)
{
    unsigned sizes = FACT(D) | FACT(H) | FACT(K) | FACT(F) | FACT(G) | FACT(R);
    struct completions c = {.n = 0};
    unsigned proportions = (FACT(R) | FACT(G)) & ~known;
    find_completions(&c, known, sizes, 0, 4);
    if (!(known & FACT(N))) {
        find_completions(&c, known, sizes | FACT(N), FACT(N) | proportions, c.n + 1);
        find_completions(&c, known, sizes | FACT(N), FACT(N), c.n + 2);
    }
    for (int i = 0; i < c.n; i++) {
        text_add(t, i ? "; " : "");
        const char *between = "";
        for (unsigned f = 1; f <= FACT(N); f <<= 1)
            if (c.sets[i] & f) {
                text_printf(t, "%s%s", between, fact_name(f));
                between = " + ";
            }
    }
}

/* With `params` the law has a range for d_model, so the search can choose it unasked. */
static bool width_alone_missing(unsigned known)
{
    return known & FACT(N) && !determined(known) && determined(known | FACT(D));
}

void check_unset_width(struct check *c, struct decl *d)
{
    if (!width_alone_missing(given(c->model)))
        return;
    struct diag *g = rule_fail(c, d, RULE_UNSET_WIDTH, d->at,
                               "'%s' has no d_model, so the search chooses it", d->name);
    diag_help(c->diags, g, "write 'd_model = free' to say so, or give it a value");
}

void check_enough_facts(struct check *c, struct decl *d)
{
    unsigned known = given(c->model);
    if (determined(known) || width_alone_missing(known))
        return;
    struct diag *g = rule_fail(c, d, RULE_TOO_FEW_SHAPE_FACTS, d->at,
                               "the shape of '%s' is not determined", d->name);
    struct text have = {0}, need = {0};
    for (unsigned f = 1; f < 1u << FACT_COUNT; f <<= 1)
        if (known & f)
            text_printf(&have, "%s%s", have.length ? ", " : "", fact_name(f));
    unsigned open = WHOLE_SHAPE & ~closure(known);
    const char *between = "";
    for (unsigned f = 1; f <= open; f <<= 1)
        if (open & f) {
            text_printf(&need, "%s%s", between, fact_name(f));
            between = ", ";
        }
    diag_note(c->diags, g, NULL, "given: %s; not settled by it: %s",
              have.length ? have.at : "nothing", need.at);
    text_free(&need);
    list_completions(&need, known);
    diag_help(c->diags, g, "any one of these completes it, each knob as a value or 'free': %s",
              need.length ? need.at : "d_model + heads + kv_heads + d_ff");
    text_free(&have);
    text_free(&need);
}

/* A bare `free` needs something that bounds it. */
void check_unbounded(struct check *c, struct decl *d)
{
    const struct model_spec *m = c->model;
    unsigned known = given(m);
    if (m->params != 0)
        return;
    for (int i = 0; i < N_KNOB_FACTS; i++) {
        const struct domain *k = m->knobs + knob_facts[i].knob;
        bool has_range = knob_facts[i].fact & (FACT(G) | FACT(R));
        if (k->kind != DOMAIN_FREE || has_range ||
            (knob_facts[i].fact != FACT(D) && determined(known & ~knob_facts[i].fact)))
            continue;
        const char *name = knob_names[knob_facts[i].knob];
        struct diag *g = rule_fail(c, d, RULE_UNBOUNDED_KNOB, k->at, "nothing bounds '%s'", name);
        if (knob_facts[i].fact == FACT(D))
            diag_note(c->diags, g, NULL,
                      "the law's range of d_model is 0.02..0.16 sqrt(params), "
                      "and '%s' has no params",
                      d->name);
        diag_help(c->diags, g, "give '%s' a range, '%s = free LO..HI', or the model 'params'", name,
                  name);
    }
}

/* ---- what disagrees ----------------------------------------------------------------------------
 */

static bool fixed(const struct model_spec *m, enum knob k, double *value)
{
    *value = m->knobs[k].value;
    return m->knobs[k].kind == DOMAIN_FIXED;
}

void check_heads_multiple(struct check *c, struct decl *d)
{
    const struct model_spec *m = c->model;
    double heads, group;
    if (!fixed(m, KNOB_HEADS, &heads))
        return;
    for (int i = 0; i < 2; i++) {
        enum knob k = i ? KNOB_GQA : KNOB_KV_HEADS;
        if (!fixed(m, k, &group) || fmod(heads, group) == 0)
            continue;
        double below = heads - fmod(heads, group);
        struct diag *g =
            rule_fail(c, d, RULE_HEADS_MULTIPLE, m->knobs[KNOB_HEADS].at,
                      "heads = %g is not a multiple of %s = %g", heads, knob_names[k], group);
        diag_note(c->diags, g, &m->knobs[k].at, "%s is set here", knob_names[k]);
        if (below > 0)
            diag_help(c->diags, g, "write heads = %g or heads = %g", below, below + group);
        else
            diag_help(c->diags, g, "write heads = %g", group);
        return;
    }
}

/* Is `value` in the domain? A bare `free` group is 1..16. */
static bool holds(const struct domain *k, double value)
{
    switch (k->kind) {
    case DOMAIN_UNSET:
    case DOMAIN_FREE:
        return true;
    case DOMAIN_FIXED:
        return k->value == value;
    case DOMAIN_RANGE:
        return value >= k->lo && value <= k->hi;
    case DOMAIN_LIST:
        for (int i = 0; i < k->n; i++)
            if (k->list[i] == value)
                return true;
        return false;
    }
    return true;
}

static bool group_agrees(struct check *c, struct decl *d, double heads, double kv_heads)
{
    const struct model_spec *m = c->model;
    const struct domain *gqa = m->knobs + KNOB_GQA;
    double group = heads / kv_heads;
    if (group > 16) {
        struct diag *g =
            rule_fail(c, d, RULE_CONTRADICTORY_SHAPE, m->knobs[KNOB_HEADS].at,
                      "%g heads on %g KV heads make groups of %g", heads, kv_heads, group);
        diag_note(c->diags, g, &m->knobs[KNOB_KV_HEADS].at, "kv_heads is set here");
        diag_help(c->diags, g, "there are kernels for groups 1 to 16: write kv_heads = %g or more",
                  ceil(heads / 16));
        return false;
    }
    if (holds(gqa, group))
        return true;
    struct diag *g = rule_fail(c, d, RULE_CONTRADICTORY_SHAPE, gqa->at,
                               "gqa disagrees with heads = %g and kv_heads = %g", heads, kv_heads);
    diag_note(c->diags, g, &m->knobs[KNOB_HEADS].at, "heads is set here");
    diag_note(c->diags, g, &m->knobs[KNOB_KV_HEADS].at, "kv_heads is set here");
    diag_help(c->diags, g, "delete gqa, or write gqa = %g", group);
    return false;
}

/* A fixed r is met by whole sizes only nearly: 1 % is let through. */
static bool ratio_agrees(struct check *c, struct decl *d, double heads, double kv_heads)
{
    const struct model_spec *m = c->model;
    const struct domain *k = m->knobs + KNOB_R;
    double d_ff, head_dim;
    if (!fixed(m, KNOB_D_FF, &d_ff) || !fixed(m, KNOB_HEAD_DIM, &head_dim))
        return true;
    double r = 3 * d_ff / (2 * head_dim * (heads + kv_heads));
    double lo = k->kind == DOMAIN_FIXED ? k->value : k->lo,
           hi = k->kind == DOMAIN_FIXED ? k->value : k->hi;
    bool bounded = k->kind == DOMAIN_FIXED || k->kind == DOMAIN_RANGE;
    if (!bounded || (r >= lo * 0.99 && r <= hi * 1.01))
        return true;
    struct diag *g = rule_fail(c, d, RULE_CONTRADICTORY_SHAPE, k->at,
                               "r disagrees with the fixed heads and d_ff, which make it %.4g", r);
    diag_note(c->diags, g, &m->knobs[KNOB_D_FF].at, "d_ff is set here");
    diag_note(c->diags, g, &m->knobs[KNOB_HEADS].at, "heads is set here");
    diag_help(c->diags, g, "delete r, or write d_ff = free and let r choose it");
    return false;
}

static void params_agree(struct check *c, struct decl *d, double heads, double kv_heads)
{
    const struct model_spec *m = c->model;
    double layers, d_model, d_ff, head_dim;
    if (m->params == 0 || !fixed(m, KNOB_LAYERS, &layers) || !fixed(m, KNOB_D_MODEL, &d_model) ||
        !fixed(m, KNOB_D_FF, &d_ff) || !fixed(m, KNOB_HEAD_DIM, &head_dim))
        return;
    double n = layers * d_model * (2 * head_dim * (heads + kv_heads) + 3 * d_ff);
    if (fabs(n - m->params) <= m->params * m->params_tolerance * (1 + 1e-12))
        return;
    struct diag *g = rule_fail(c, d, RULE_CONTRADICTORY_SHAPE, m->params_at,
                               "the fixed shape has %s parameters, %.2g%% off",
                               quantity_text(c->arena, n, UNIT_NONE), 100 * (n / m->params - 1));
    diag_note(c->diags, g, &m->knobs[KNOB_D_FF].at,
              "the shape: %g layers, d_model %g, %g/%g heads "
              "of %g, d_ff %g",
              layers, d_model, heads, kv_heads, head_dim, d_ff);
    diag_help(c->diags, g, "delete params, write params = %s, or leave a knob free",
              quantity_text(c->arena, n, UNIT_NONE));
}

void check_contradictions(struct check *c, struct decl *d)
{
    const struct model_spec *m = c->model;
    double heads, kv_heads, group;
    bool has_heads = fixed(m, KNOB_HEADS, &heads), has_kv = fixed(m, KNOB_KV_HEADS, &kv_heads);
    bool has_group = fixed(m, KNOB_GQA, &group);
    if (has_heads && !has_kv && has_group)
        kv_heads = heads / group;
    else if (has_kv && !has_heads && has_group)
        heads = kv_heads * group;
    else if (!has_heads || !has_kv)
        return;
    else if (!group_agrees(c, d, heads, kv_heads))
        return;
    if (ratio_agrees(c, d, heads, kv_heads))
        params_agree(c, d, heads, kv_heads);
}

/* value.c - what an entry's value is worth: types, units, bounds, domains. Driven by keys.def;
 * every failure says what to write instead. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "front.h"

/* One entry while it is read. */
struct reading {
    struct check *c;
    struct decl *decl;
    const struct key_info *info;
    struct setting *out;
};

static bool wrong_type(struct reading *r, struct span at, const char *want)
{
    struct diag *g =
        rule_fail(r->c, r->decl, RULE_WRONG_TYPE, at, "'%s' takes %s", r->info->name, want);
    diag_help(r->c->diags, g, "for example %s", r->info->say);
    return false;
}

/* ---- numbers ------------------------------------------------------------------------------- */

bool quantity_combine(struct check *c, struct decl *d, char op, struct quantity l,
                      struct quantity r, struct span at, struct quantity *out)
{
    *out = (struct quantity){0};
    out->bare = l.bare && r.bare;
    if (op == '*' || op == '/') {
        int sign = op == '*' ? 1 : -1;
        out->value = op == '*' ? l.value * r.value : l.value / r.value;
        out->dim = (struct dim){(signed char)(l.dim.seconds + sign * r.dim.seconds),
                                (signed char)(l.dim.bytes + sign * r.dim.bytes),
                                (signed char)(l.dim.tokens + sign * r.dim.tokens),
                                (signed char)(l.dim.flops + sign * r.dim.flops)};
        return true;
    }
    if (!dim_equal(l.dim, r.dim) && !l.bare && !r.bare) {
        struct diag *g = rule_fail(c, d, RULE_WRONG_UNIT, at, "%s and %s cannot be %s",
                                   dim_text(c->arena, l.dim), dim_text(c->arena, r.dim),
                                   op == '+' ? "added" : "subtracted");
        diag_help(c->diags, g, "both sides of '%c' must have the same unit", op);
        d->broken |= BREAKS_GOALS;
        return false;
    }
    out->value = op == '+' ? l.value + r.value : l.value - r.value;
    out->dim = l.bare ? r.dim : l.dim;
    return true;
}

static bool not_constant(struct reading *r, const struct ast_expr *e)
{
    struct check *c = r->c;
    if (e->kind == AST_NAME && (!strcmp(e->name, "yes") || !strcmp(e->name, "no")))
        return wrong_type(r, e->at, "a number");
    const char *name = e->kind == AST_NAME ? e->name : e->member;
    struct diag *g =
        rule_fail(c, r->decl, RULE_NOT_CONSTANT, e->at, "'%s' is not a number known here", name);
    diag_help(c->diags, g, "for example %s; what depends on a metric is a 'require'", r->info->say);
    return false;
}

static bool evaluate(struct reading *r, const struct ast_expr *e, struct quantity *out)
{
    struct quantity lhs, rhs;
    switch (e->kind) {
    case AST_NUMBER:
        *out = e->number;
        return true;
    case AST_BAD:
        r->decl->broken |= BREAKS_VALUES;
        return false;
    case AST_NAME:
    case AST_MEMBER:
        return not_constant(r, e);
    case AST_PAREN:
        return evaluate(r, e->lhs, out);
    case AST_NEG:
        if (!evaluate(r, e->lhs, out))
            return false;
        out->value = -out->value;
        return true;
    case AST_BINARY:
        break;
    }
    return evaluate(r, e->lhs, &lhs) && evaluate(r, e->rhs, &rhs) &&
           quantity_combine(r->c, r->decl, e->op, lhs, rhs, e->at, out);
}

static bool fits_unit(struct reading *r, struct span at, struct quantity q)
{
    const struct unit_info *unit = unit_infos + r->info->unit;
    bool percent_ok = r->info->unit == UNIT_FRACTION || !q.percent;
    if (percent_ok && (q.bare || dim_equal(q.dim, unit->dim)))
        return true;
    struct check *c = r->c;
    struct diag *g = rule_fail(c, r->decl, RULE_WRONG_UNIT, at, "'%s' is %s, not %s", r->info->name,
                               unit->means, q.percent ? "a percentage" : dim_text(c->arena, q.dim));
    diag_help(c->diags, g, "write it %s; for example %s", unit->spelled, r->info->say);
    return false;
}

static bool in_range(struct reading *r, struct span at, double v)
{
    struct check *c = r->c;
    const struct key_info *k = r->info;
    if (!isfinite(v)) {
        struct diag *g =
            rule_fail(c, r->decl, RULE_NUMBER_OVERFLOW, at, "this arithmetic has no finite result");
        diag_help(c->diags, g, "for example %s", k->say);
        return false;
    }
    if (v >= k->lo && v <= k->hi)
        return true;
    struct diag *g =
        rule_fail(c, r->decl, RULE_OUT_OF_RANGE, at, "'%s' must be in %s..%s", k->name,
                  quantity_text(c->arena, k->lo, k->unit), quantity_text(c->arena, k->hi, k->unit));
    diag_help(c->diags, g, "for example %s", k->say);
    return false;
}

static bool is_whole(struct reading *r, struct span at, double v)
{
    char below[32], above[32];
    if (v == floor(v))
        return true;
    struct diag *g =
        rule_fail(r->c, r->decl, RULE_NOT_INTEGER, at, "'%s' is a whole number", r->info->name);
    diag_help(r->c->diags, g, "write %s or %s", number_text(below, floor(v)),
              number_text(above, ceil(v)));
    return false;
}

static bool is_whole_key(const struct key_info *k)
{
    return k->type == TYPE_INT || k->type == TYPE_COUNTS ||
           (k->type == TYPE_KNOB && k != key_infos + KEY_R);
}

/* A number of this key's unit within its bounds, whole where the key asks for it. */
static bool number(struct reading *r, const struct ast_expr *e, double *out)
{
    struct quantity q;
    if (!evaluate(r, e, &q) || !fits_unit(r, e->at, q) || !in_range(r, e->at, q.value))
        return false;
    if (is_whole_key(r->info) && !is_whole(r, e->at, q.value))
        return false;
    *out = q.value;
    return true;
}

static bool single(struct reading *r, const struct ast_value *v)
{
    if (v->is_free) {
        struct diag *g = rule_fail(r->c, r->decl, RULE_NOT_FREEABLE, v->at, "'%s' cannot be free",
                                   r->info->name);
        diag_help(r->c->diags, g,
                  "free are d_model, r, gqa, heads, kv_heads, d_ff, layers and "
                  "head_dim; '%s' takes a value: %s",
                  r->info->name, r->info->say);
        return false;
    }
    if (v->kind == AST_TOLERANCE && r->info->type != TYPE_PARAMS) {
        struct diag *g = rule_fail(r->c, r->decl, RULE_BAD_TOLERANCE, v->hi->at,
                                   "'%s' takes no tolerance", r->info->name);
        diag_help(r->c->diags, g, "only 'params' does: params = 973M +- 1%%");
        return false;
    }
    return true;
}

static bool read_number(struct reading *r, const struct ast_value *v)
{
    if (!single(r, v))
        return false;
    return v->kind == AST_EXPR ? number(r, v->lo, &r->out->number)
                               : wrong_type(r, v->at, "one number");
}

static bool read_span(struct reading *r, const struct ast_value *v)
{
    if (!single(r, v))
        return false;
    if (v->kind != AST_RANGE || v->step)
        return wrong_type(r, v->at, "a range lo..hi");
    if (!number(r, v->lo, &r->out->lo) || !number(r, v->hi, &r->out->hi))
        return false;
    if (r->out->lo < r->out->hi)
        return true;
    struct diag *g = rule_fail(r->c, r->decl, RULE_EMPTY_DOMAIN, v->at, "an empty range");
    diag_help(r->c->diags, g, "write the smaller number first");
    return false;
}

/* ---- params +- tolerance -------------------------------------------------------------------- */

static bool read_params(struct reading *r, const struct ast_value *v)
{
    enum { MOST_PERCENT = 50 };
    struct quantity q;
    if (!single(r, v))
        return false;
    if (v->kind != AST_EXPR && v->kind != AST_TOLERANCE)
        return wrong_type(r, v->at, "a number with a tolerance");
    r->out->tolerance = 0.01;
    if (!number(r, v->lo, &r->out->number))
        return false;
    if (v->kind == AST_EXPR)
        return true;
    if (!evaluate(r, v->hi, &q))
        return false;
    r->out->tolerance = q.value;
    if (q.percent && q.value >= 0 && q.value <= MOST_PERCENT / 100.0)
        return true;
    struct diag *g = rule_fail(r->c, r->decl, RULE_BAD_TOLERANCE, v->hi->at,
                               "the tolerance is a percentage from 0%% to %d%%", MOST_PERCENT);
    diag_help(r->c->diags, g, "write '+- 1%%'");
    return false;
}

/* ---- knobs ---------------------------------------------------------------------------------- */

static bool head_dim_fits(struct reading *r, struct span at, double v)
{
    if (r->info != key_infos + KEY_HEAD_DIM || fmod(v, 8) == 0)
        return true;
    double below = v - fmod(v, 8);
    struct diag *g =
        rule_fail(r->c, r->decl, RULE_HEAD_DIM_MULTIPLE, at, "head_dim must be a multiple of 8");
    diag_help(r->c->diags, g, "the nearest are %.0f and %.0f", below, below + 8);
    return false;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void drop_repeats(struct reading *r, const struct ast_value *v, double *list,
                         struct domain *d)
{
    int n = d->n;
    qsort(list, (size_t)n, sizeof *list, ascending);
    d->n = 0;
    for (int i = 0; i < n; i++)
        if (i == 0 || list[i] != list[i - 1])
            list[d->n++] = list[i];
    if (d->n == n)
        return;
    struct diag *g =
        rule_fail(r->c, r->decl, RULE_REPEATED_VALUE, v->at, "this list names a value twice");
    diag_help(r->c->diags, g, "delete the repeated value");
}

static bool knob_list(struct reading *r, const struct ast_value *v)
{
    struct domain *d = &r->out->domain;
    double *list = arena_alloc(r->c->arena, (size_t)(v->n_items + 1) * sizeof *list);
    if (v->n_items > MAX_CHOICES) {
        struct diag *g = rule_fail(r->c, r->decl, RULE_TOO_MANY, v->at,
                                   "'%s' has more than %d values", r->info->name, MAX_CHOICES);
        diag_help(r->c->diags, g, "write a range: 'free LO..HI step S'");
        return false;
    }
    if (v->n_items == 0) {
        struct diag *g = rule_fail(r->c, r->decl, RULE_EMPTY_DOMAIN, v->at, "an empty list");
        diag_help(r->c->diags, g, "name the values: '%s = free [A, B]'", r->info->name);
        return false;
    }
    for (const struct ast_value *i = v->items; i; i = i->next) {
        if (i->kind != AST_EXPR || i->is_free)
            return wrong_type(r, i->at, "a list of numbers");
        if (!number(r, i->lo, list + d->n) || !head_dim_fits(r, i->at, list[d->n]))
            return false;
        d->n++;
    }
    d->kind = DOMAIN_LIST;
    d->list = list;
    drop_repeats(r, v, list, d);
    return true;
}

static bool knob_step(struct reading *r, const struct ast_expr *e, struct domain *d)
{
    struct quantity q;
    if (!evaluate(r, e, &q) || !fits_unit(r, e->at, q))
        return false;
    d->step = q.value;
    bool whole = !is_whole_key(r->info) || q.value == floor(q.value);
    if (q.value > 0 && isfinite(q.value) && whole)
        return true;
    struct diag *g = rule_fail(r->c, r->decl, RULE_BAD_STEP, e->at, "a step is a%s number above 0",
                               is_whole_key(r->info) ? " whole" : "");
    diag_help(r->c->diags, g, "leave 'step' out for the usual one");
    return false;
}

/* Without a step, the widths are multiples of what kernels like best. */
static bool holds_multiple(struct reading *r, const struct ast_value *v, const struct domain *d)
{
    enum key key = (enum key)(r->info - key_infos);
    double step = key == KEY_D_MODEL ? 64 : key == KEY_D_FF ? 128 : 0;
    if (step == 0 || ceil(d->lo / step) * step <= d->hi)
        return true;
    struct diag *g = rule_fail(r->c, r->decl, RULE_EMPTY_DOMAIN, v->at,
                               "this range holds no multiple of %g, the usual step of '%s'", step,
                               r->info->name);
    diag_help(r->c->diags, g, "widen it, or write 'free LO..HI step 8'");
    return false;
}

static bool knob_range(struct reading *r, const struct ast_value *v)
{
    struct domain *d = &r->out->domain;
    d->kind = DOMAIN_RANGE;
    if (!number(r, v->lo, &d->lo) || !number(r, v->hi, &d->hi))
        return false;
    if (v->step && !knob_step(r, v->step, d))
        return false;
    if (d->lo <= d->hi)
        return d->step != 0 || holds_multiple(r, v, d);
    struct diag *g = rule_fail(r->c, r->decl, RULE_EMPTY_DOMAIN, v->at, "an empty range");
    diag_help(r->c->diags, g, "write the smaller number first");
    return false;
}

/* The law does not say what depth or head size cost, so only a choice between named ones is let
 * through, with a warning. */
static bool unpriced_knob(struct reading *r, const struct ast_value *v)
{
    if (r->info != key_infos + KEY_LAYERS && r->info != key_infos + KEY_HEAD_DIM)
        return true;
    struct diag *g;
    if (v->kind == AST_LIST) {
        g = rule_fail(r->c, r->decl, RULE_NOT_PRICED, v->at, "the law does not price '%s'",
                      r->info->name);
        diag_note(r->c->diags, g, NULL,
                  "the losses of these choices are compared as if '%s' "
                  "did not matter",
                  r->info->name);
        diag_help(r->c->diags, g, "fix it to what is known to train well at this size");
        return true;
    }
    g = rule_fail(r->c, r->decl, RULE_LIST_ONLY, v->at, "'%s' can be free only as a list",
                  r->info->name);
    diag_help(r->c->diags, g, "name the choices: %s = free [%s]", r->info->name,
              r->info == key_infos + KEY_LAYERS ? "12, 16" : "64, 128");
    return false;
}

static bool read_knob(struct reading *r, const struct ast_value *v)
{
    struct domain *d = &r->out->domain;
    d->at = v->at;
    if (!v->is_free && v->kind == AST_EXPR) {
        d->kind = DOMAIN_FIXED;
        return number(r, v->lo, &d->value) && head_dim_fits(r, v->at, d->value);
    }
    if (!v->is_free && (v->kind == AST_RANGE || v->kind == AST_LIST)) {
        struct diag *g = rule_fail(r->c, r->decl, RULE_WRONG_TYPE, v->at,
                                   "several values for '%s', but it is not free", r->info->name);
        diag_help(r->c->diags, g, "write '%s = free %s'", r->info->name,
                  v->kind == AST_RANGE ? "LO..HI" : "[A, B]");
        return false;
    }
    if (!v->is_free)
        return single(r, v) && wrong_type(r, v->at, "a number or 'free'");
    if (!unpriced_knob(r, v))
        return false;
    if (v->kind == AST_FREE)
        d->kind = DOMAIN_FREE;
    return v->kind == AST_FREE ? true : v->kind == AST_LIST ? knob_list(r, v) : knob_range(r, v);
}

/* ---- names ----------------------------------------------------------------------------------- */

static const char *name_of(struct reading *r, const struct ast_value *v, const char *want)
{
    if (!single(r, v))
        return NULL;
    if (v->kind == AST_EXPR && v->lo->kind == AST_NAME)
        return v->lo->name;
    wrong_type(r, v->at, want);
    return NULL;
}

static bool read_bool(struct reading *r, const struct ast_value *v)
{
    const char *name = name_of(r, v, "yes or no");
    if (!name)
        return false;
    r->out->choice = !strcmp(name, "yes");
    if (r->out->choice || !strcmp(name, "no"))
        return true;
    bool on = !strcmp(name, "true") || !strcmp(name, "on");
    struct diag *g =
        rule_fail(r->c, r->decl, RULE_UNKNOWN_CHOICE, v->at, "'%s' takes yes or no", r->info->name);
    if (on || !strcmp(name, "false") || !strcmp(name, "off"))
        diag_help(r->c->diags, g, "write '%s'", on ? "yes" : "no");
    else
        diag_help(r->c->diags, g, "write '%s = yes' or '%s = no'", r->info->name, r->info->name);
    return false;
}

static bool read_choice(struct reading *r, const struct ast_value *v, const char *const *names,
                        int n)
{
    const char *name = name_of(r, v, r->info->say);
    if (!name)
        return false;
    struct nearest near = nearest_to(name);
    for (int i = 0; i < n; i++) {
        r->out->choice = i;
        if (!strcmp(names[i], name))
            return true;
        nearest_try(&near, names[i]);
    }
    struct diag *g = rule_fail(r->c, r->decl, RULE_UNKNOWN_CHOICE, v->at,
                               "'%s' is not a choice for '%s'", name, r->info->name);
    if (near.best)
        diag_help(r->c->diags, g, "did you mean '%s'?", near.best);
    else
        diag_help(r->c->diags, g, "it takes %s", r->info->say);
    return false;
}

static bool read_family(struct reading *r, const struct ast_value *v)
{
    const char *name = name_of(r, v, "a name");
    if (!name || !strcmp(name, "llama"))
        return name != NULL;
    struct diag *g = rule_fail(r->c, r->decl, RULE_UNSUPPORTED_FAMILY, v->at,
                               "the family '%s' is not known", name);
    diag_note(r->c->diags, g, NULL,
              "llama: RMSNorm, RoPE, SwiGLU, pre-norm; Llama, Qwen, SmolLM "
              "and TinyLlama models are of it");
    diag_help(r->c->diags, g,
              "write 'family = llama'; 'attention { bias = yes }' and "
              "'qk_norm = yes' cover the Qwen kinds");
    return false;
}

static bool read_name(struct reading *r, const struct ast_value *v)
{
    r->out->name = name_of(r, v, "a name");
    return r->out->name != NULL;
}

static bool read_samples(struct reading *r, const struct ast_value *v)
{
    double *list = arena_alloc(r->c->arena, (size_t)(v->n_items + 1) * sizeof *list);
    if (!single(r, v))
        return false;
    if (v->kind != AST_LIST)
        return wrong_type(r, v->at, "a list of numbers");
    if (v->n_items == 0) {
        struct diag *g = rule_fail(r->c, r->decl, RULE_EMPTY_DOMAIN, v->at, "an empty list");
        diag_help(r->c->diags, g, "leave '%s' out where there are no samples", r->info->name);
        return false;
    }
    for (const struct ast_value *i = v->items; i; i = i->next) {
        if (i->kind != AST_EXPR || i->is_free)
            return wrong_type(r, i->at, "a list of numbers");
        if (!number(r, i->lo, list + r->out->n_list))
            return false;
        r->out->n_list++;
    }
    r->out->list = list;
    return true;
}

/* Sorted, each value once. */
static bool read_list(struct reading *r, const struct ast_value *v)
{
    struct domain d = {.n = 0};
    if (v->kind == AST_LIST && v->n_items == 0) {
        struct diag *g = rule_fail(r->c, r->decl, RULE_EMPTY_DOMAIN, v->at, "an empty list");
        diag_help(r->c->diags, g, "for example %s", r->info->say);
        return false;
    }
    if (!read_samples(r, v))
        return false;
    double *list = arena_alloc(r->c->arena, (size_t)r->out->n_list * sizeof *list);
    memcpy(list, r->out->list, (size_t)r->out->n_list * sizeof *list);
    d.n = r->out->n_list;
    drop_repeats(r, v, list, &d);
    r->out->list = list;
    r->out->n_list = d.n;
    return true;
}

static bool read_path(struct reading *r, const struct ast_value *v)
{
    r->out->name = v->string;
    return v->kind == AST_STRING || wrong_type(r, v->at, "a path in quotes");
}

static bool read_text(struct reading *r, const struct ast_value *v)
{
    return v->kind == AST_STRING || wrong_type(r, v->at, "a string");
}

static bool read_value(struct reading *r, const struct ast_value *v)
{
    enum { N_FORMS = LAW_MORPH + 1 };
    switch (r->info->type) {
    case TYPE_INT:
    case TYPE_REAL:
        return read_number(r, v);
    case TYPE_SPAN:
        return read_span(r, v);
    case TYPE_BOOL:
        return read_bool(r, v);
    case TYPE_KNOB:
        return read_knob(r, v);
    case TYPE_PARAMS:
        return read_params(r, v);
    case TYPE_LAW:
    case TYPE_DEVICE:
        return read_name(r, v);
    case TYPE_DTYPE:
        return read_choice(r, v, dtype_names, (int)r->info->hi + 1);
    case TYPE_RECOMPUTE:
        return read_choice(r, v, recompute_names, RECOMPUTE_COUNT);
    case TYPE_LOGITS:
        return read_choice(r, v, logits_names, LOGITS_COUNT);
    case TYPE_FORM:
        return read_choice(r, v, law_form_names, N_FORMS);
    case TYPE_SAMPLES:
        return read_samples(r, v);
    case TYPE_LIST:
    case TYPE_COUNTS:
        return read_list(r, v);
    case TYPE_PATH:
        return read_path(r, v);
    case TYPE_FAMILY:
        return read_family(r, v);
    case TYPE_TEXT:
        return read_text(r, v);
    }
    return false;
}

struct setting *value_read(struct check *c, struct decl *d, enum key key,
                           const struct ast_item *entry)
{
    struct setting *s = arena_alloc(c->arena, sizeof *s);
    s->key = key;
    s->at = entry->word_at;
    s->value_at = entry->value->at;
    struct reading r = {c, d, key_infos + key, s};
    return read_value(&r, entry->value) ? s : NULL;
}

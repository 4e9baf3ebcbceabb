/* goal.c - requirements, objectives and observations: from trees to struct goal, with units. */
#include <math.h>
#include <string.h>

#include "front.h"

static const enum unit metric_units[METRIC_COUNT] = {
    [METRIC_LOSS] = UNIT_NONE,
    [METRIC_THROUGHPUT] = UNIT_TOKENS_S,
    [METRIC_LATENCY] = UNIT_SECONDS,
    [METRIC_TTFT] = UNIT_SECONDS,
    [METRIC_MEMORY] = UNIT_BYTES,
    [METRIC_KV_BYTES] = UNIT_BYTES,
    [METRIC_PARAMS] = UNIT_NONE,
    [METRIC_TOTAL_PARAMS] = UNIT_NONE,
    [METRIC_TRAIN_TIME] = UNIT_SECONDS,
    [METRIC_TRAIN_MEMORY] = UNIT_BYTES,
    [METRIC_R] = UNIT_NONE,
};

/* An expression under construction: what it evaluates to is not known, its unit is. */
struct typed {
    struct expr *expr;
    struct quantity q;
};

struct goal_reader {
    struct check *c;
    struct decl *owner; /* reports */
    struct decl *self;  /* whose metrics bare names are */
};

static int find_metric(const char *name)
{
    int m = 0;
    while (m < METRIC_COUNT && strcmp(metric_names[m], name))
        m++;
    return m;
}

static bool unknown_metric(struct goal_reader *r, struct span at, const char *name)
{
    struct check *c = r->c;
    struct diag *g =
        rule_fail(c, r->owner, RULE_UNKNOWN_METRIC, at, "there is no metric '%s'", name);
    struct nearest near = nearest_to(name);
    struct text t = {0};
    for (int m = 0; m < METRIC_COUNT; m++) {
        nearest_try(&near, metric_names[m]);
        text_printf(&t, "%s%s", m ? ", " : "", metric_names[m]);
    }
    int knob = 0;
    while (knob < KNOB_COUNT && strcmp(knob_names[knob], name))
        knob++;
    if (knob < KNOB_COUNT)
        diag_help(c->diags, g, "'%s' is a knob: bound it where it is set, '%s = free LO..HI'", name,
                  name);
    else if (find_decl(c, BLOCK_MODEL, name))
        diag_help(c->diags, g, "'%s' is a model: name one of its metrics, '%s.loss'", name, name);
    else if (near.best)
        diag_help(c->diags, g, "did you mean '%s'?", near.best);
    else
        diag_help(c->diags, g, "metrics: %s", t.at);
    text_free(&t);
    return false;
}

static bool metric(struct goal_reader *r, const struct ast_expr *e, struct typed *out)
{
    bool own = e->kind == AST_NAME;
    const char *name = own ? e->name : e->member;
    const struct decl *model = own ? r->self : find_decl(r->c, BLOCK_MODEL, e->name);
    if (!model) {
        r->owner->broken |= BREAKS_NAMES;
        if (r->c->program->incomplete)
            return false;
        struct diag *g = rule_fail(r->c, r->owner, RULE_UNKNOWN_MODEL, e->name_at,
                                   "there is no model '%s'", e->name);
        suggest_decl(r->c, g, BLOCK_MODEL, e->name);
        return false;
    }
    int m = find_metric(name);
    if (m == METRIC_COUNT)
        return unknown_metric(r, own ? e->at : e->member_at, name);
    out->expr->kind = EXPR_METRIC;
    out->expr->model = model->index;
    out->expr->metric = (enum metric)m;
    out->q = (struct quantity){1, unit_infos[metric_units[m]].dim, false, false};
    return true;
}

static bool build(struct goal_reader *r, const struct ast_expr *e, struct typed *out);

static bool binary(struct goal_reader *r, const struct ast_expr *e, struct typed *out)
{
    struct typed lhs, rhs;
    if (!build(r, e->lhs, &lhs) || !build(r, e->rhs, &rhs) ||
        !quantity_combine(r->c, r->owner, e->op, lhs.q, rhs.q, e->at, &out->q))
        return false;
    out->expr->kind = e->op == '+'   ? EXPR_ADD
                      : e->op == '-' ? EXPR_SUB
                      : e->op == '*' ? EXPR_MUL
                                     : EXPR_DIV;
    out->expr->lhs = lhs.expr;
    out->expr->rhs = rhs.expr;
    return true;
}

static bool build(struct goal_reader *r, const struct ast_expr *e, struct typed *out)
{
    struct typed operand;
    if (e->kind == AST_PAREN)
        return build(r, e->lhs, out);
    *out = (struct typed){0};
    out->expr = arena_alloc(r->c->arena, sizeof *out->expr);
    out->expr->at = e->at;
    switch (e->kind) {
    case AST_NUMBER:
        out->expr->kind = EXPR_NUMBER;
        out->expr->number = e->number.value;
        out->q = e->number;
        return true;
    case AST_NAME:
    case AST_MEMBER:
        return metric(r, e, out);
    case AST_NEG:
        if (!build(r, e->lhs, &operand))
            return false;
        out->expr->kind = EXPR_NEG;
        out->expr->lhs = operand.expr;
        out->q = operand.q;
        out->q.value = -out->q.value;
        return true;
    case AST_BINARY:
        return binary(r, e, out);
    case AST_BAD:
    case AST_PAREN:
        break;
    }
    r->owner->broken |= BREAKS_GOALS;
    return false;
}

static bool mentions(const struct expr *e, enum metric m)
{
    if (e->kind == EXPR_METRIC)
        return e->metric == m;
    return (e->lhs && mentions(e->lhs, m)) || (e->rhs && mentions(e->rhs, m));
}

/* A literal without unit beside a quantity with one: seconds are seldom meant, bytes never. */
static void bare_number(struct goal_reader *r, const struct typed *bare, const struct typed *other)
{
    bool time = dim_equal(other->q.dim, unit_infos[UNIT_SECONDS].dim);
    bool bytes = dim_equal(other->q.dim, unit_infos[UNIT_BYTES].dim) && bare->q.value < 1e6 &&
                 !mentions(other->expr, METRIC_KV_BYTES);
    if (!bare->q.bare || other->q.bare || bare->expr->kind != EXPR_NUMBER || (!time && !bytes))
        return;
    char n[32];
    number_text(n, bare->expr->number);
    struct diag *g = rule_fail(r->c, r->owner, RULE_BARE_NUMBER, bare->expr->at,
                               "%s is read as %s %s", n, n, time ? "seconds" : "bytes");
    if (time)
        diag_help(r->c->diags, g, "say which: %ss or %sms", n, n);
    else
        diag_help(r->c->diags, g, "write the unit: %sGB", n);
}

static bool same_units(struct goal_reader *r, const struct ast_item *item, const struct typed *lhs,
                       const struct typed *rhs)
{
    struct check *c = r->c;
    if (lhs->q.bare || rhs->q.bare || dim_equal(lhs->q.dim, rhs->q.dim)) {
        if (r->self == r->owner) {
            bare_number(r, lhs, rhs);
            bare_number(r, rhs, lhs);
        }
        return true;
    }
    struct diag *g =
        rule_fail(c, r->owner, RULE_WRONG_UNIT, item->rhs->at, "the left side is %s, this is %s",
                  dim_text(c->arena, lhs->q.dim), dim_text(c->arena, rhs->q.dim));
    r->owner->broken |= BREAKS_GOALS;
    for (int u = 0; u < UNIT_COUNT; u++)
        if (dim_equal(unit_infos[u].dim, lhs->q.dim)) {
            diag_help(c->diags, g, "write it %s", unit_infos[u].spelled);
            break;
        }
    return false;
}

static bool confidence(struct goal_reader *r, const struct ast_expr *e, double *out)
{
    if (!e)
        return true;
    *out = e->kind == AST_NUMBER ? e->number.value : 0;
    if (*out > 0 && *out < 1 && e->number.bare)
        return true;
    struct diag *g = rule_fail(r->c, r->owner, RULE_BAD_CONFIDENCE, e->at,
                               "a confidence is a percentage between 0%% and 100%%");
    diag_help(r->c->diags, g, "write 'with 90%%'");
    return false;
}

static bool objective(struct goal_reader *r, const struct ast_item *item, const struct typed *t)
{
    if (t->expr->kind == EXPR_METRIC && t->expr->model == r->self->index)
        return true;
    struct diag *g = rule_fail(r->c, r->owner, RULE_OBJECTIVE_NOT_METRIC, item->lhs->at,
                               "'%s' takes one metric of this model", item->word);
    diag_help(r->c->diags, g, "for example '%s %s'", item->word,
              item->goal == GOAL_MAXIMIZE ? "throughput" : "loss");
    return false;
}

static bool build_goal(struct goal_reader *r, const struct ast_item *item, struct goal *out)
{
    struct typed lhs, rhs;
    struct text t = {0};
    *out = (struct goal){.kind = item->goal, .relation = item->relation, .at = item->at};
    bool ok = build(r, item->lhs, &lhs);
    if (item->goal == GOAL_REQUIRE) {
        ok &= build(r, item->rhs, &rhs);
        ok = ok && same_units(r, item, &lhs, &rhs);
        ok &= confidence(r, item->confidence, &out->confidence);
    } else {
        ok = ok && objective(r, item, &lhs);
    }
    if (!ok)
        return false;
    out->lhs = lhs.expr;
    out->rhs = item->goal == GOAL_REQUIRE ? rhs.expr : NULL;
    goal_print(&t, r->c->program->sources + item->at.source, item);
    out->text = arena_copy(r->c->arena, t.at, t.length);
    text_free(&t);
    return true;
}

void build_goals(struct check *c, struct decl *d, struct model_spec *m)
{
    struct goal *goals = arena_alloc(c->arena, (size_t)(d->n_goals + 1) * sizeof *goals);
    m->goals = goals;
    for (int i = 0; i < d->n_goals; i++) {
        struct goal_reader r = {c, d->goal_owner[i], d};
        bool reported = d != r.owner && r.owner->broken & (BREAKS_GOALS | BREAKS_NAMES);
        if (reported)
            d->broken |= BREAKS_GOALS;
        else if (build_goal(&r, d->goals[i], goals + m->n_goals))
            m->n_goals++;
        else
            d->broken |= BREAKS_GOALS;
    }
}

double observe_value(struct check *c, struct decl *d)
{
    const struct ast_expr *e = d->observe->value->lo;
    if (e->kind == AST_BAD) {
        d->broken |= BREAKS_VALUES;
        return NAN;
    }
    bool plain = e->kind == AST_NUMBER && e->number.bare && !e->number.percent;
    if (plain && e->number.value > 0 && e->number.value < 1000)
        return e->number.value;
    d->broken |= BREAKS_VALUES;
    if (d->observe_inherited)
        return NAN;
    struct diag *g =
        plain ? rule_fail(c, d, RULE_OUT_OF_RANGE, e->at,
                          "a loss is above 0 and below 1000 nats per token")
              : rule_fail(c, d, RULE_WRONG_TYPE, e->at, "an observed loss is a plain number");
    diag_help(c->diags, g, "for example 'observe %s loss = 2.8'", d->observe->name);
    return NAN;
}

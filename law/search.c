/* search.c - from a model's domains and goals to one shape.
 *
 * Every candidate is judged by its realised N, r and cost. The cheap metrics (arithmetic on
 * integers) are evaluated for all, the dear ones (operation lists) only where they can still
 * matter. */
#include "law.h"

#include <math.h>
#include <string.h>

enum { MAX_CANDIDATES = 2000000, MAX_WARNINGS = 32 };

static const unsigned dear_metrics = 1u << METRIC_THROUGHPUT | 1u << METRIC_LATENCY |
                                     1u << METRIC_TTFT | 1u << METRIC_TRAIN_TIME |
                                     1u << METRIC_TRAIN_MEMORY;

/* ---- the resolver: models resolved so far ---------------------------------------------------- */

enum progress { NOT_YET, IN_PROGRESS, DONE, FAILED };

struct resolver {
    struct arena *arena;
    const struct spec *spec; /* ready */
    const char *host_why;    /* why `host` has no rates */
    struct diags *diags;
    struct resolution *done; /* a model */
    enum progress *progress;
};

static bool resolve_model(struct resolver *s, int model, struct span at);

static void warn(struct resolver *s, struct resolution *r, const char *text)
{
    if (!r->warnings)
        r->warnings = arena_alloc(s->arena, sizeof *r->warnings * MAX_WARNINGS);
    if (r->n_warnings < MAX_WARNINGS)
        r->warnings[r->n_warnings++] = text;
}

/* ---- expressions of the goals ---------------------------------------------------------------- */

/* Metrics of `model` itself that an expression reads. */
static unsigned own_metrics(const struct expr *e, int model)
{
    if (!e || e->kind == EXPR_NUMBER)
        return 0;
    if (e->kind == EXPR_METRIC)
        return e->model == model ? 1u << e->metric : 0;
    return own_metrics(e->lhs, model) | own_metrics(e->rhs, model);
}

struct scope {
    const struct resolver *resolver;
    int model;
    const double *own;
};

static double evaluate(const struct scope *c, const struct expr *e)
{
    switch (e->kind) {
    case EXPR_NUMBER:
        return e->number;
    case EXPR_METRIC:
        return e->model == c->model ? c->own[e->metric]
                                    : c->resolver->done[e->model].best.metrics[e->metric];
    case EXPR_ADD:
        return evaluate(c, e->lhs) + evaluate(c, e->rhs);
    case EXPR_SUB:
        return evaluate(c, e->lhs) - evaluate(c, e->rhs);
    case EXPR_MUL:
        return evaluate(c, e->lhs) * evaluate(c, e->rhs);
    case EXPR_DIV:
        return evaluate(c, e->lhs) / evaluate(c, e->rhs);
    case EXPR_NEG:
        return -evaluate(c, e->lhs);
    }
    return NAN;
}

/* Resolves every other model that an expression names. */
static bool resolve_references(struct resolver *s, const struct expr *e, int model)
{
    if (!e || e->kind == EXPR_NUMBER)
        return true;
    if (e->kind == EXPR_METRIC)
        return e->model == model || resolve_model(s, e->model, e->at);
    return resolve_references(s, e->lhs, model) && resolve_references(s, e->rhs, model);
}

/* ---- the search over one model --------------------------------------------------------------- */

enum order { ORDER_METRIC, ORDER_NEAREST_PARAMS, ORDER_NONE };

struct search {
    struct resolver *resolver;
    int model;
    struct resolution *out;
    struct shapes shapes;
    enum order order;
    enum metric metric;
    double sign; /* the key to be minimised is sign * metric */
    unsigned cheap, dear, objective;
    unsigned *reads; /* a requirement: metrics of its own that it reads */
    double *missed;  /* a requirement: by how much nearest[i] misses it */
    bool overflow;
};

static double key_of(const struct search *x, const struct candidate *c)
{
    if (x->order == ORDER_METRIC)
        return x->sign * c->metrics[x->metric];
    if (x->order == ORDER_NEAREST_PARAMS)
        return fabs((double)arch_params(&c->arch) - x->shapes.params);
    return 0;
}

/* Smaller key, then fewer parameters, smaller d_model, fewer heads; then whatever makes the order
 * total. */
static bool better(const struct search *x, const struct candidate *a, const struct candidate *b)
{
    double ka = key_of(x, a), kb = key_of(x, b);
    if (ka != kb)
        return ka < kb;
    const struct arch *p = &a->arch, *q = &b->arch;
    int64_t np = arch_params(p), nq = arch_params(q);
    if (np != nq)
        return np < nq;
    if (p->d_model != q->d_model)
        return p->d_model < q->d_model;
    if (p->heads != q->heads)
        return p->heads < q->heads;
    if (p->kv_heads != q->kv_heads)
        return p->kv_heads < q->kv_heads;
    if (p->d_ff != q->d_ff)
        return p->d_ff < q->d_ff;
    if (p->layers != q->layers)
        return p->layers < q->layers;
    return p->head_dim < q->head_dim;
}

/* Equality is up to rounding of the arithmetic. */
static void judge(const struct search *x, const struct candidate *c, struct requirement *q)
{
    struct scope scope = {x->resolver, x->model, c->metrics};
    q->lhs = evaluate(&scope, q->goal->lhs);
    q->rhs = evaluate(&scope, q->goal->rhs);
    switch (q->goal->relation) {
    case RELATION_LE:
        q->margin = q->rhs - q->lhs;
        break;
    case RELATION_GE:
        q->margin = q->lhs - q->rhs;
        break;
    case RELATION_EQ:
        q->margin = -fabs(q->lhs - q->rhs);
        if (-q->margin <= 1e-9 * fmax(fabs(q->lhs), fabs(q->rhs)))
            q->margin = 0;
        break;
    }
    q->satisfied = q->margin >= 0;
}

/* By which part of its bound a requirement is missed; a value that is not a number misses it by
 * all. */
static double shortfall(const struct requirement *q)
{
    double part = -q->margin / fmax(fabs(q->rhs), 1e-300);
    return isnan(part) ? INFINITY : part;
}

/* Judges those requirements whose metrics are all in `known` and were not all in `before`. Returns
 * how many fail; `*failed` is one of them. */
static int judge_known(const struct search *x, const struct candidate *c, unsigned known,
                       unsigned before, bool first, int *failed)
{
    int failures = 0;
    for (int i = 0; i < x->out->n_requirements; i++) {
        unsigned reads = x->reads[i];
        if ((reads & ~known) || (!first && !(reads & ~before)))
            continue;
        judge(x, c, &x->out->requirements[i]);
        if (!x->out->requirements[i].satisfied) {
            failures++;
            *failed = i;
        }
    }
    return failures;
}

static void keep_nearest(struct search *x, const struct candidate *c, int failed)
{
    double missed = shortfall(&x->out->requirements[failed]);
    struct candidate *held = &x->out->nearest[failed];
    if (held->arch.layers &&
        (missed > x->missed[failed] || (missed == x->missed[failed] && !better(x, c, held))))
        return;
    x->missed[failed] = missed;
    *held = *c;
}

/* Keeps the best and the runners-up in order. */
static void keep_best(struct search *x, const struct candidate *c)
{
    struct resolution *r = x->out;
    if (!r->found) {
        r->found = true;
        r->best = *c;
        return;
    }
    struct candidate next = *c;
    if (better(x, &next, &r->best)) {
        next = r->best;
        r->best = *c;
    }
    int at = r->n_runners;
    while (at > 0 && better(x, &next, &r->runners[at - 1]))
        at--;
    if (at == MAX_RUNNERS)
        return;
    int last = r->n_runners < MAX_RUNNERS ? r->n_runners++ : MAX_RUNNERS - 1;
    memmove(&r->runners[at + 1], &r->runners[at], sizeof next * (size_t)(last - at));
    r->runners[at] = next;
}

static bool visit(void *user, const struct arch *a)
{
    struct search *x = user;
    struct resolution *r = x->out;
    struct candidate c = {.arch = *a};
    int failed = -1;
    if (++r->n_candidates > MAX_CANDIDATES) {
        x->overflow = true;
        return false;
    }
    pricing_metrics(&r->pricing, a, x->cheap, c.metrics);
    int failures = judge_known(x, &c, x->cheap, 0, true, &failed);
    if (failures > 1)
        return true;
    if (x->dear) {
        pricing_metrics(&r->pricing, a, x->dear, c.metrics);
        failures += judge_known(x, &c, x->cheap | x->dear, x->cheap, false, &failed);
    }
    if (failures > 1)
        return true;
    pricing_metrics(&r->pricing, a, x->objective, c.metrics);
    if (failures == 1) {
        keep_nearest(x, &c, failed);
        return true;
    }
    r->n_feasible++;
    keep_best(x, &c);
    return true;
}

/* ---- goals ----------------------------------------------------------------------------------- */

static bool own_metric_missing(const struct search *x, unsigned wanted, enum metric *which)
{
    const struct pricing *p = &x->out->pricing;
    bool tokens = !isnan(p->model->train.tokens);
    bool loss = p->law && (p->is_observed || !isnan(p->pin) || (p->chinchilla && tokens));
    for (int i = 0; i < METRIC_COUNT; i++) {
        if (!(wanted >> i & 1))
            continue;
        *which = (enum metric)i;
        bool serving =
            i == METRIC_THROUGHPUT || i == METRIC_LATENCY || i == METRIC_TTFT || i == METRIC_MEMORY;
        bool training = i == METRIC_TRAIN_TIME || i == METRIC_TRAIN_MEMORY;
        if ((i == METRIC_LOSS && !loss) || (serving && !p->serving) || (training && !p->training) ||
            (i == METRIC_TRAIN_TIME && !tokens))
            return true;
    }
    return false;
}

/* Why a metric of a model is not a number, and what to write. */
static const char *missing_reason(const struct resolver *s, const struct pricing *p, enum metric m)
{
    int device = p->model->serve.device;
    switch (m) {
    case METRIC_LOSS:
        if (!p->law)
            return "train { } names no law: write `law = bian2025_297m`";
        if (!p->chinchilla)
            return "its law has no Chinchilla coefficients: give it `base = besiroglu2024` or "
                   "`observe MODEL loss = X`";
        return "train { } does not say how many tokens: write `tokens = 100B`";
    case METRIC_TRAIN_TIME:
        if (p->training)
            return "train { } does not say how many tokens: write `tokens = 100B`";
        device = p->model->train.device >= 0 ? p->model->train.device : device;
        break;
    case METRIC_TRAIN_MEMORY:
        device = p->model->train.device >= 0 ? p->model->train.device : device;
        break;
    default:
        break;
    }
    if (device < 0)
        return "serve { } names no device: write `device = host`";
    if (s->spec->devices[device].is_host && s->host_why)
        return s->host_why;
    return "its device states no rates";
}

static bool check_goal(struct search *x, const struct goal *g, const struct expr *e)
{
    struct resolver *s = x->resolver;
    enum metric which = METRIC_LOSS;
    if (!own_metric_missing(x, own_metrics(e, x->model), &which))
        return true;
    struct diag *d =
        diag_error(s->diags, g->at, "goal-unknown", "`%s` cannot be computed for model `%s`",
                   metric_names[which], x->out->model->name);
    diag_help(s->diags, d, "%s", missing_reason(s, &x->out->pricing, which));
    return false;
}

/* Numbers of other models that a goal reads must exist. */
static bool check_others(struct search *x, const struct goal *g, const struct expr *e)
{
    if (!e || e->kind == EXPR_NUMBER)
        return true;
    if (e->kind != EXPR_METRIC)
        return check_others(x, g, e->lhs) && check_others(x, g, e->rhs);
    struct resolver *s = x->resolver;
    if (e->model == x->model)
        return true;
    const struct resolution *o = &s->done[e->model];
    if (o->found && !isnan(o->best.metrics[e->metric]))
        return true;
    if (!o->found) {
        struct diag *d =
            diag_error(s->diags, e->at, "goal-unknown",
                       "no candidate satisfies the requirements of model `%s`", o->model->name);
        diag_help(s->diags, d, "run `archc explain FILE -m %s`, and relax one of them",
                  o->model->name);
        return false;
    }
    struct diag *d = diag_error(s->diags, e->at, "goal-unknown", "`%s.%s` cannot be computed",
                                o->model->name, metric_names[e->metric]);
    diag_help(s->diags, d, "%s", missing_reason(s, &o->pricing, e->metric));
    return false;
}

static bool collect_goals(struct search *x)
{
    struct resolver *s = x->resolver;
    const struct model_spec *m = x->out->model;
    size_t n = (size_t)m->n_goals + 1;
    x->out->requirements = arena_alloc(s->arena, sizeof *x->out->requirements * n);
    x->out->nearest = arena_alloc(s->arena, sizeof *x->out->nearest * n);
    x->reads = arena_alloc(s->arena, sizeof *x->reads * n);
    x->missed = arena_alloc(s->arena, sizeof *x->missed * n);
    unsigned read = 0;
    bool good = true;
    for (int i = 0; i < m->n_goals; i++) {
        const struct goal *g = &m->goals[i];
        if (!resolve_references(s, g->lhs, x->model) || !resolve_references(s, g->rhs, x->model))
            return false;
        bool known = check_goal(x, g, g->lhs) && check_others(x, g, g->lhs);
        if (g->rhs)
            known = known && check_goal(x, g, g->rhs) && check_others(x, g, g->rhs);
        good = good && known;
        if (g->kind == GOAL_REQUIRE) {
            int at = x->out->n_requirements++;
            x->out->requirements[at].goal = g;
            x->reads[at] = own_metrics(g->lhs, x->model) | own_metrics(g->rhs, x->model);
            read |= x->reads[at];
        } else {
            x->order = ORDER_METRIC;
            x->metric = g->lhs->metric;
            x->sign = g->kind == GOAL_MAXIMIZE ? -1 : 1;
            x->out->objective =
                arena_printf(s->arena, "%s %s", g->kind == GOAL_MAXIMIZE ? "maximize" : "minimize",
                             metric_names[x->metric]);
        }
        if (g->kind == GOAL_REQUIRE && g->confidence > 0)
            warn(s, x->out,
                 arena_printf(s->arena,
                              "`%s with %g%%`: the law carries no intervals, so the point "
                              "estimate is compared",
                              g->text, 100 * g->confidence));
    }
    x->cheap = read & ~dear_metrics;
    x->dear = read & dear_metrics;
    return good;
}

/* No objective: with free knobs the law's minimum, else the shape closest to the stated params. */
static void choose_order(struct search *x)
{
    struct resolution *r = x->out;
    enum metric which;
    if (!r->objective)
        r->objective = "";
    if (x->order == ORDER_METRIC) {
        x->objective = 1u << x->metric & ~(x->cheap | x->dear);
        return;
    }
    bool law =
        !own_metric_missing(x, 1u << METRIC_LOSS, &which) && r->pricing.law->form != LAW_CHINCHILLA;
    if (x->shapes.any_free && law) {
        x->order = ORDER_METRIC;
        x->metric = METRIC_LOSS;
        x->sign = 1;
        x->objective = 1u << METRIC_LOSS & ~x->cheap;
        r->objective = "minimize loss";
        warn(x->resolver, r, "no objective is stated: minimising loss, as the law can tell");
        return;
    }
    x->order = x->shapes.params > 0 ? ORDER_NEAREST_PARAMS : ORDER_NONE;
    if (x->shapes.any_free)
        warn(x->resolver, r,
             x->shapes.params > 0
                 ? "no objective is stated and no law tells shapes apart: taking the one closest "
                   "to params"
                 : "no objective is stated and no law tells shapes apart: taking the smallest");
}

/* ---- what the chosen shape must be warned of ------------------------------------------------- */

static void warn_range(struct resolver *s, struct resolution *r, const char *what, double value,
                       double lo, double hi)
{
    bool below = lo > 0 && value<lo *(1 - 1e-9), above = hi> 0 && value > hi * (1 + 1e-9);
    if (below || above)
        warn(s, r,
             arena_printf(s->arena,
                          "%s %.4g is outside the range that law `%s` was fitted on, %.4g..%.4g",
                          what, value, r->pricing.law->name, lo, hi));
}

static void warn_law(struct resolver *s, struct resolution *r)
{
    const struct law *law = r->pricing.law;
    const struct arch *a = &r->best.arch;
    if (!law)
        return;
    warn_range(s, r, "params", (double)arch_params(a), law->params_lo, law->params_hi);
    if (law->form == LAW_CHINCHILLA || law->form == LAW_MORPH)
        return;
    warn_range(s, r, "r", arch_r(a), law->r_lo, law->r_hi);
    warn_range(s, r, "width (d_model / sqrt(params))", arch_width(a), law->x_lo, law->x_hi);
}

static void warn_shape(struct resolver *s, struct resolution *r, const struct shapes *shapes)
{
    const struct arch *a = &r->best.arch;
    const struct domain *k = &r->model->knobs[KNOB_R];
    if (shapes->head_dim_assumed)
        warn(s, r, arena_printf(s->arena, "head_dim is not given: %d is assumed", a->head_dim));
    if (k->kind == DOMAIN_FIXED && fabs(arch_r(a) / k->value - 1) > 0.01)
        warn(s, r,
             arena_printf(s->arena,
                          "r = %.4g is not reached on the steps of the knobs: realised %.4g",
                          k->value, arch_r(a)));
    const struct device *d = r->pricing.serving;
    if (d && d->memory_bytes > 0 && r->best.metrics[METRIC_MEMORY] > d->memory_bytes)
        warn(s, r,
             arena_printf(s->arena, "serving takes %.4g GB, but `%s` has %.4g GB",
                          r->best.metrics[METRIC_MEMORY] / 1e9, d->name, d->memory_bytes / 1e9));
    d = r->pricing.training;
    if (d && d->memory_bytes > 0 && r->best.metrics[METRIC_TRAIN_MEMORY] > d->memory_bytes)
        warn(s, r,
             arena_printf(s->arena, "training takes %.4g GB, but `%s` has %.4g GB",
                          r->best.metrics[METRIC_TRAIN_MEMORY] / 1e9, d->name,
                          d->memory_bytes / 1e9));
}

/* One warning a reason: "latency, ttft are not known: ...". */
static void warn_missing(struct resolver *s, struct resolution *r)
{
    unsigned told = 0;
    for (int i = 0; i < METRIC_COUNT; i++) {
        if (!isnan(r->best.metrics[i]) || told >> i & 1)
            continue;
        const char *reason = missing_reason(s, &r->pricing, (enum metric)i);
        const char *names = metric_names[i], *verb = "is";
        for (int j = i + 1; j < METRIC_COUNT; j++) {
            if (!isnan(r->best.metrics[j]) ||
                strcmp(reason, missing_reason(s, &r->pricing, (enum metric)j)) != 0)
                continue;
            names = arena_printf(s->arena, "%s, %s", names, metric_names[j]);
            verb = "are";
            told |= 1u << j;
        }
        warn(s, r, arena_printf(s->arena, "%s %s not known: %s", names, verb, reason));
    }
}

/* ---- no candidate ---------------------------------------------------------------------------- */

/* The one requirement that, dropped, leaves a candidate which misses it by the smallest part; where
 * dropping one is never enough, -1 stands for "more than one". */
static int binding_requirement(const struct search *x)
{
    int binding = -1;
    for (int i = 0; i < x->out->n_requirements; i++)
        if (x->out->nearest[i].arch.layers && (binding < 0 || x->missed[i] < x->missed[binding]))
            binding = i;
    return binding;
}

static bool first_shape(void *user, const struct arch *a)
{
    struct search *x = user;
    struct arch *held = &x->out->outside;
    double wanted = x->shapes.params;
    if (!held->layers ||
        fabs((double)arch_params(a) - wanted) < fabs((double)arch_params(held) - wanted))
        *held = *a;
    return true;
}

/* An empty set: the shape whose N is closest when the tolerance is opened until there is one. */
static void find_outside(struct search *x)
{
    struct shapes s = x->shapes;
    for (double tolerance = 0.02; s.params > 0 && tolerance < 1; tolerance *= 2) {
        s.params_lo = s.params * (1 - tolerance);
        s.params_hi = s.params * (1 + tolerance);
        shapes_each(&s, first_shape, x);
        if (x->out->outside.layers)
            return;
    }
}

static void explain_failure(struct search *x)
{
    struct resolution *r = x->out;
    r->binding = -1;
    if (r->n_candidates == 0) {
        find_outside(x);
        return;
    }
    r->binding = binding_requirement(x);
    for (int i = 0; i < r->n_requirements; i++)
        if (r->nearest[i].arch.layers) {
            pricing_metrics(&r->pricing, &r->nearest[i].arch, ALL_METRICS, r->nearest[i].metrics);
            judge(x, &r->nearest[i], &r->requirements[i]);
        }
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* The law may have been pinned by the observed loss of another model, whose shape must be known. */
static bool pin_law(struct resolver *s, struct pricing *p, struct span at)
{
    const struct law *law = p->law;
    if (!law || law->observe_model < 0)
        return true;
    /* The observed model's own shape does not need its loss, unless that chooses it. */
    if (p->is_observed) {
        struct shapes shapes;
        if (!shapes_init(s->arena, p->model, law, s->diags, &shapes))
            return false;
        if (shapes.any_free) {
            diag_error(s->diags, law->at, "goal-cycle",
                       "law `%s` is pinned by the loss of model `%s`, whose shape it would choose",
                       law->name, p->model->name);
            return false;
        }
        return true; /* pinned once its shape is known */
    }
    if (!resolve_model(s, law->observe_model, at))
        return false;
    const struct resolution *o = &s->done[law->observe_model];
    if (!o->found) {
        diag_error(s->diags, law->at, "goal-unknown",
                   "law `%s` is pinned by model `%s`, which no candidate satisfies", law->name,
                   o->model->name);
        return false;
    }
    pricing_pin(p, &o->best.arch, o->model->train.tokens);
    return true;
}

static void finish_found(struct search *x)
{
    struct resolver *s = x->resolver;
    struct resolution *r = x->out;
    if (r->pricing.is_observed)
        pricing_pin(&r->pricing, &r->best.arch, r->model->train.tokens);
    pricing_metrics(&r->pricing, &r->best.arch, ALL_METRICS, r->best.metrics);
    for (int i = 0; i < r->n_runners; i++)
        pricing_metrics(&r->pricing, &r->runners[i].arch, ALL_METRICS, r->runners[i].metrics);
    for (int i = 0; i < r->n_requirements; i++)
        judge(x, &r->best, &r->requirements[i]);
    warn_shape(s, r, &x->shapes);
    warn_law(s, r);
    warn_missing(s, r);
}

static bool too_many(struct search *x)
{
    struct resolver *s = x->resolver;
    struct diag *d = diag_error(s->diags, x->out->model->at, "too-many-candidates",
                                "model `%s` leaves too many shapes to try", x->out->model->name);
    diag_help(s->diags, d, "narrow a knob, widen its step, or tighten the tolerance of params");
    return false;
}

static bool search_model(struct resolver *s, int model, struct resolution *out, struct span at)
{
    struct search x = {.resolver = s, .model = model, .out = out, .order = ORDER_NONE};
    out->model = &s->spec->models[model];
    out->binding = -1;
    pricing_init(&out->pricing, s->spec, out->model);
    if (!pin_law(s, &out->pricing, at))
        return false;
    if (!shapes_init(s->arena, out->model, out->pricing.law, s->diags, &x.shapes))
        return false;
    if (!collect_goals(&x))
        return false;
    choose_order(&x);
    if (!shapes_each(&x.shapes, visit, &x))
        return too_many(&x);
    if (out->found)
        finish_found(&x);
    else
        explain_failure(&x);
    return true;
}

static bool resolve_model(struct resolver *s, int model, struct span at)
{
    const char *name = s->spec->models[model].name;
    switch (s->progress[model]) {
    case DONE:
        return true;
    case FAILED:
        return false;
    case IN_PROGRESS:
        diag_error(s->diags, at, "goal-cycle",
                   "the goals of model `%s` refer, through others, to itself", name);
        return false;
    case NOT_YET:
        break;
    }
    s->progress[model] = IN_PROGRESS;
    bool done = search_model(s, model, &s->done[model], at);
    s->progress[model] = done ? DONE : FAILED;
    return done;
}

/* ---- this machine's rates -------------------------------------------------------------------- */

static bool names_device(const struct spec *s, int device)
{
    for (int i = 0; i < s->n_models; i++)
        if (s->models[i].serve.device == device || s->models[i].train.device == device)
            return true;
    return false;
}

void spec_ready(struct arena *a, const struct spec *in, struct spec *out, const char **why)
{
    *out = *in;
    *why = NULL;
    struct device *devices = NULL;
    for (int i = 0; i < in->n_devices; i++) {
        const struct device *d = &in->devices[i];
        if (!d->is_host || d->memory_bandwidth > 0 || !names_device(in, i))
            continue;
        if (!devices) {
            devices = arena_alloc(a, sizeof *devices * (size_t)in->n_devices);
            memcpy(devices, in->devices, sizeof *devices * (size_t)in->n_devices);
            out->devices = devices;
        }
        struct span at = d->at;
        if (!device_host(a, &devices[i], why))
            devices[i] = *d;
        devices[i].at = at;
    }
}

bool resolve(struct arena *a, const struct spec *s, int model, struct diags *d,
             struct resolution *out)
{
    struct resolver resolver = {.arena = a, .diags = d};
    struct spec *ready = arena_alloc(a, sizeof *ready);
    spec_ready(a, s, ready, &resolver.host_why);
    resolver.spec = ready;
    resolver.done = arena_alloc(a, sizeof *resolver.done * (size_t)(s->n_models + 1));
    resolver.progress = arena_alloc(a, sizeof *resolver.progress * (size_t)(s->n_models + 1));
    bool done = resolve_model(&resolver, model, s->models[model].at);
    *out = resolver.done[model];
    return done;
}

struct every {
    const struct resolution *r;
    unsigned wanted;
    void (*each)(void *user, const struct candidate *c);
    void *user;
};

static bool visit_every(void *user, const struct arch *a)
{
    struct every *e = user;
    struct candidate c = {.arch = *a};
    pricing_metrics(&e->r->pricing, a, e->wanted, c.metrics);
    e->each(e->user, &c);
    return true;
}

bool search_each(struct arena *a, const struct resolution *r, unsigned wanted, struct diags *d,
                 void (*each)(void *user, const struct candidate *c), void *user)
{
    struct every e = {r, wanted, each, user};
    struct shapes shapes;
    return shapes_init(a, r->model, r->pricing.law, d, &shapes) &&
           shapes_each(&shapes, visit_every, &e);
}

/* A law that the loss of some model pins needs that model's shape: found here in an arena of its
 * own. */
void cost_metrics(const struct spec *s, const struct model_spec *m, const struct arch *a,
                  double metrics[METRIC_COUNT])
{
    struct arena *arena = arena_new();
    struct diags diags = {.arena = arena, .sources = s->sources, .n_sources = s->n_sources};
    struct spec ready;
    const char *why;
    struct pricing p;
    spec_ready(arena, s, &ready, &why);
    pricing_init(&p, &ready, m);
    int observed = p.law ? p.law->observe_model : -1;
    struct resolution r;
    if (p.is_observed)
        pricing_pin(&p, a, m->train.tokens);
    else if (observed >= 0 && resolve(arena, s, observed, &diags, &r) && r.found)
        pricing_pin(&p, &r.best.arch, r.model->train.tokens);
    pricing_metrics(&p, a, ALL_METRICS, metrics);
    arena_free(arena);
}

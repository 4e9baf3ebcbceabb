/* search.c - from a model's domains and goals to one shape.
 *
 * Every candidate is judged by its realised N, r and cost. The cheap metrics (arithmetic on
 * integers) are evaluated for all, the dear ones (operation lists) only where they can still
 * matter. */
#include "search.h"

#include <math.h>
#include <string.h>

enum { MAX_CANDIDATES = 2000000, MAX_WARNINGS = 32 };

static const unsigned dear_metrics = 1u << METRIC_THROUGHPUT | 1u << METRIC_LATENCY |
                                     1u << METRIC_TTFT | 1u << METRIC_TRAIN_TIME |
                                     1u << METRIC_TRAIN_MEMORY;

static bool resolve_model(struct resolver *s, int model, struct span at);

void search_warn(struct resolver *s, struct resolution *r, const char *text)
{
    if (!r->warnings)
        r->warnings = arena_alloc(s->arena, sizeof *r->warnings * MAX_WARNINGS);
    if (r->n_warnings < MAX_WARNINGS)
        r->warnings[r->n_warnings++] = text;
}

/* ---- goals of other models ------------------------------------------------------------------- */

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

double search_key(const struct search *x, const struct candidate *c)
{
    if (x->order == ORDER_METRIC)
        return x->sign * c->metrics[x->metric];
    if (x->order == ORDER_NEAREST_PARAMS)
        return fabs((double)arch_params(&c->arch) - x->shapes.params);
    return 0;
}

bool shape_before(const struct arch *p, const struct arch *q)
{
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

static bool better(const struct search *x, const struct candidate *a, const struct candidate *b)
{
    double ka = search_key(x, a), kb = search_key(x, b);
    return ka != kb ? ka < kb : shape_before(&a->arch, &b->arch);
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
        judge(x, c, i, &x->out->requirements[i]);
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

/* Asking a thousand samples costs ten times a price. Where nobody asks how many candidates are
 * feasible, those that would not be kept are not asked about. */
static bool is_idle(const struct search *x, struct candidate *c)
{
    const struct resolution *r = x->out;
    if (!x->confident || x->model == x->resolver->wanted || r->n_runners < MAX_RUNNERS)
        return false;
    if (x->order == ORDER_METRIC)
        pricing_metrics(&r->pricing, &c->arch, 1u << x->metric, c->metrics);
    return !better(x, c, &r->runners[MAX_RUNNERS - 1]);
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
    if (is_idle(x, &c))
        return true;
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

static bool reads_loss(const struct expr *e)
{
    if (!e || e->kind == EXPR_NUMBER)
        return false;
    if (e->kind == EXPR_METRIC)
        return e->metric == METRIC_LOSS;
    return reads_loss(e->lhs) || reads_loss(e->rhs);
}

/* Whether samples bear on requirement i, and a warning where it asks for a share of none. */
static void note_confidence(struct search *x, int i)
{
    struct resolver *s = x->resolver;
    const struct goal *g = x->out->requirements[i].goal;
    const struct law *law = x->out->pricing.law;
    x->unsure[i] = reads_unsure_loss(x, g->lhs) || reads_unsure_loss(x, g->rhs);
    x->confident = x->confident || (g->confidence > 0 && x->unsure[i]);
    if (g->confidence <= 0 || x->unsure[i])
        return;
    if (!reads_loss(g->lhs) && !reads_loss(g->rhs))
        search_warn(s, x->out,
                    arena_printf(s->arena,
                                 "`%s`: only losses come with samples, so it is compared "
                                 "as it stands",
                                 g->text));
    else
        search_warn(s, x->out,
                    arena_printf(s->arena,
                                 "`%s`: law `%s` carries no samples, so the point "
                                 "estimate is compared; `archc fit RUNS.csv --bootstrap 1000` "
                                 "writes a law that does",
                                 g->text, law ? law->name : "?"));
}

static bool collect_goals(struct search *x)
{
    struct resolver *s = x->resolver;
    const struct model_spec *m = x->out->model;
    size_t n = (size_t)m->n_goals + 1;
    x->unsure = arena_alloc(s->arena, sizeof *x->unsure * n);
    x->loss = arena_alloc(s->arena, sizeof *x->loss * (size_t)(s->n_samples + 1));
    x->difference = arena_alloc(s->arena, sizeof *x->difference * (size_t)(s->n_samples + 1));
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
        if (g->kind == GOAL_REQUIRE)
            note_confidence(x, x->out->n_requirements - 1);
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
        search_warn(x->resolver, r, "no objective is stated: minimising loss, as the law can tell");
        return;
    }
    x->order = x->shapes.params > 0 ? ORDER_NEAREST_PARAMS : ORDER_NONE;
    if (x->shapes.any_free)
        search_warn(
            x->resolver, r,
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
        search_warn(
            s, r,
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
        search_warn(s, r,
                    arena_printf(s->arena, "head_dim is not given: %d is assumed", a->head_dim));
    if (k->kind == DOMAIN_FIXED && fabs(arch_r(a) / k->value - 1) > 0.01)
        search_warn(s, r,
                    arena_printf(s->arena,
                                 "r = %.4g is not reached on the steps of the knobs: realised %.4g",
                                 k->value, arch_r(a)));
    const struct device *d = r->pricing.serving;
    if (d && d->memory_bytes > 0 && r->best.metrics[METRIC_MEMORY] > d->memory_bytes)
        search_warn(s, r,
                    arena_printf(s->arena, "serving takes %.4g GB, but `%s` has %.4g GB",
                                 r->best.metrics[METRIC_MEMORY] / 1e9, d->name,
                                 d->memory_bytes / 1e9));
    d = r->pricing.training;
    if (d && d->memory_bytes > 0 && r->best.metrics[METRIC_TRAIN_MEMORY] > d->memory_bytes)
        search_warn(s, r,
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
        search_warn(s, r, arena_printf(s->arena, "%s %s not known: %s", names, verb, reason));
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
            judge_fully(x, &r->nearest[i], i, &r->requirements[i]);
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
        judge_fully(x, &r->best, i, &r->requirements[i]);
    warn_shape(s, r, &x->shapes);
    warn_law(s, r);
    warn_missing(s, r);
    if (x->model == s->wanted)
        search_sure(x);
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
    struct search *x = arena_alloc(s->arena, sizeof *x);
    *x = (struct search){.resolver = s, .model = model, .out = out, .order = ORDER_NONE};
    out->search = x;
    out->model = &s->spec->models[model];
    out->binding = -1;
    pricing_init(&out->pricing, s->spec, out->model);
    if (!pin_law(s, &out->pricing, at))
        return false;
    if (!shapes_init(s->arena, out->model, out->pricing.law, s->diags, &x->shapes))
        return false;
    if (!collect_goals(x))
        return false;
    choose_order(x);
    if (!shapes_each(&x->shapes, visit, x))
        return too_many(x);
    if (out->found)
        finish_found(x);
    else
        explain_failure(x);
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

static int samples_in_use(const struct spec *s)
{
    int n = 0;
    for (int i = 0; i < s->n_models; i++) {
        struct pricing p;
        pricing_init(&p, s, &s->models[i]);
        if (p.law && p.law->n_samples > n)
            n = p.law->n_samples;
        if (p.chinchilla && p.chinchilla->n_samples > n)
            n = p.chinchilla->n_samples;
    }
    return n < SAMPLES_MAX ? n : SAMPLES_MAX;
}

static bool resolve_as(struct arena *a, const struct spec *s, int model, bool want_sure,
                       struct diags *d, struct resolution *out)
{
    struct resolver *resolver = arena_alloc(a, sizeof *resolver);
    *resolver = (struct resolver){.arena = a, .diags = d, .wanted = want_sure ? model : -1};
    struct spec *ready = arena_alloc(a, sizeof *ready);
    spec_ready(a, s, ready, &resolver->host_why);
    resolver->spec = ready;
    resolver->done = arena_alloc(a, sizeof *resolver->done * (size_t)(s->n_models + 1));
    resolver->progress = arena_alloc(a, sizeof *resolver->progress * (size_t)(s->n_models + 1));
    resolver->n_samples = samples_in_use(ready);
    resolver->params = s->models[model].params;
    resolver->sampled = arena_alloc(a, sizeof *resolver->sampled * (size_t)(s->n_models + 1));
    resolver->losses = arena_alloc(a, sizeof *resolver->losses * (size_t)(s->n_models + 1));
    bool done = resolve_model(resolver, model, s->models[model].at);
    *out = resolver->done[model];
    return done;
}

bool resolve(struct arena *a, const struct spec *s, int model, struct diags *d,
             struct resolution *out)
{
    return resolve_as(a, s, model, true, d, out);
}

bool resolve_point(struct arena *a, const struct spec *s, int model, struct diags *d,
                   struct resolution *out)
{
    return resolve_as(a, s, model, false, d, out);
}

void resolution_judge(const struct resolution *r, const struct candidate *c, int i,
                      struct requirement *out)
{
    judge_fully(r->search, c, i, out);
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

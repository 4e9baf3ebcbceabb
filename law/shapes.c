/* shapes.c - the exact candidate set: every integer shape in the domains of a model's knobs.
 *
 * For each layers, head_dim, d_model and group G, heads are K G for every K, and d_ff runs over its
 * step between the bounds that params and r put on it. A shape is kept when its realised N and r
 * are inside; nothing is rounded afterwards. */
#include "law.h"

#include <limits.h>
#include <math.h>
#include <string.h>

enum { MAX_GQA = 16, D_MODEL_STEP = 64, D_FF_STEP = 128, LARGEST = 1 << 24, MAX_LAYERS = 4096 };
/* Head counts tried before the set is called too large: a fraction of a second. */
enum { MAX_STEPS = 10000000 };

static const double default_r_lo = 0.5, default_r_hi = 5;
static const double default_x_lo = 0.02, default_x_hi = 0.16;
/* Rounding of the arithmetic, not a tolerance: a shape on a bound is inside it. */
static const double slack = 1e-12;

/* ---- integers of a knob ---------------------------------------------------------------------- */

/* The smallest member that is at least v; -1: none. */
static int64_t at_least(const struct integers *s, int64_t v)
{
    if (s->list) {
        for (int i = 0; i < s->n; i++)
            if (s->list[i] >= v)
                return s->list[i];
        return -1;
    }
    if (v <= s->lo)
        return s->lo <= s->hi ? s->lo : -1;
    int64_t member = s->lo + (v - s->lo + s->step - 1) / s->step * s->step;
    return member <= s->hi ? member : -1;
}

/* The largest member that is at most v; -1: none. */
static int64_t at_most(const struct integers *s, int64_t v)
{
    if (s->list) {
        for (int i = s->n - 1; i >= 0; i--)
            if (s->list[i] <= v)
                return s->list[i];
        return -1;
    }
    if (v > s->hi)
        v = s->hi;
    return v < s->lo ? -1 : s->lo + (v - s->lo) / s->step * s->step;
}

static bool has(const struct integers *s, int64_t v)
{
    return at_least(s, v) == v;
}

static int64_t largest(const struct integers *s)
{
    return s->list ? s->list[s->n - 1] : s->hi;
}

static struct integers integers_range(int64_t lo, int64_t hi, int64_t step)
{
    return (struct integers){.lo = lo, .hi = hi, .step = step};
}

static struct integers integers_list(struct arena *a, const double *values, int n)
{
    int *list = arena_alloc(a, sizeof *list * (size_t)n);
    for (int i = 0; i < n; i++)
        list[i] = (int)fmin(values[i], LARGEST);
    return (struct integers){.list = list, .n = n};
}

static int64_t stated_step(const struct domain *k)
{
    return (int64_t)fmin(k->step, LARGEST);
}

/* A stated step counts from lo; a default step means its multiples. Unset and bare `free` are
 * whatever `range` says. */
static struct integers domain_integers(struct arena *a, const struct domain *k, int default_step,
                                       struct integers range)
{
    switch (k->kind) {
    case DOMAIN_FIXED:
        return integers_list(a, &k->value, 1);
    case DOMAIN_LIST:
        return integers_list(a, k->list, k->n);
    case DOMAIN_RANGE: {
        int64_t step = k->step >= 1 ? stated_step(k) : default_step;
        int64_t lo = (int64_t)ceil(fmax(1, fmin(k->lo, LARGEST)));
        if (k->step < 1)
            lo = (lo + step - 1) / step * step;
        return integers_range(lo, (int64_t)floor(fmin(k->hi, LARGEST)), step);
    }
    case DOMAIN_FREE:
        if (k->step >= 1) {
            range.step = stated_step(k);
            range.lo = (range.lo + range.step - 1) / range.step * range.step;
        }
        return range;
    case DOMAIN_UNSET:
        break;
    }
    return range;
}

/* ---- domains of a model ---------------------------------------------------------------------- */

static bool is_free(const struct domain *k)
{
    return k->kind == DOMAIN_FREE || k->kind == DOMAIN_RANGE || k->kind == DOMAIN_LIST;
}

static struct arch fixed_part(const struct model_spec *m)
{
    return (struct arch){.name = m->name,
                         .vocab = m->vocab,
                         .context = m->context,
                         .tied = m->tied,
                         .qkv_bias = m->qkv_bias,
                         .qk_norm = m->qk_norm,
                         .norm_eps = m->norm_eps,
                         .rope = m->rope};
}

/* Bare `free`, and a d_model that is not mentioned: the width range of the law about sqrt(params).
 */
static bool d_model_domain(struct arena *a, const struct model_spec *m, const struct law *law,
                           struct diags *d, struct integers *out)
{
    const struct domain *k = &m->knobs[KNOB_D_MODEL];
    double lo = law && law->x_lo > 0 ? law->x_lo : default_x_lo;
    double hi = law && law->x_hi > 0 ? law->x_hi : default_x_hi;
    struct integers range = integers_range(D_MODEL_STEP, LARGEST, D_MODEL_STEP);
    if (k->kind == DOMAIN_FREE || k->kind == DOMAIN_UNSET) {
        if (m->params <= 0) {
            struct diag *e = diag_error(d, k->kind == DOMAIN_FREE ? k->at : m->at, "unbounded-knob",
                                        "nothing bounds d_model of model `%s`", m->name);
            diag_help(d, e, "give `params`, or write `d_model = free LO..HI`");
            return false;
        }
        int64_t step = k->kind == DOMAIN_FREE && k->step >= 1 ? stated_step(k) : D_MODEL_STEP;
        double width = sqrt(m->params);
        range.lo = (int64_t)ceil(fmax(1, lo * width / (double)step)) * step;
        range.hi = (int64_t)floor(fmin(hi * width, LARGEST) / (double)step) * step;
        range.step = step;
        *out = range;
        return true;
    }
    *out = domain_integers(a, k, D_MODEL_STEP, range);
    return true;
}

static void r_domain(struct arena *a, const struct model_spec *m, const struct law *law,
                     struct shapes *out)
{
    const struct domain *k = &m->knobs[KNOB_R];
    out->r_lo = 0;
    out->r_hi = INFINITY;
    if (k->kind == DOMAIN_FREE) {
        out->r_lo = law && law->r_lo > 0 ? law->r_lo : default_r_lo;
        out->r_hi = law && law->r_hi > 0 ? law->r_hi : default_r_hi;
    } else if (k->kind == DOMAIN_RANGE) {
        out->r_lo = k->lo;
        out->r_hi = k->hi;
    } else if (k->kind == DOMAIN_LIST) {
        out->r_targets = k->list;
        out->n_r_targets = k->n;
    } else if (k->kind == DOMAIN_FIXED) {
        double *target = arena_alloc(a, sizeof *target);
        *target = k->value;
        out->r_targets = target;
        out->n_r_targets = 1;
    }
}

/* Not given: d_model / heads where both are known, else 64 up to about 1B and 128 above, as the
 * law's authors do. */
static void head_dim_domain(struct arena *a, const struct model_spec *m, struct shapes *out)
{
    const struct domain *h = &m->knobs[KNOB_HEADS], *d = &m->knobs[KNOB_D_MODEL];
    double assumed = m->params > 1.5e9 ? 128 : 64;
    if (h->kind == DOMAIN_FIXED && d->kind == DOMAIN_FIXED && fmod(d->value, h->value * 8) == 0)
        assumed = d->value / h->value;
    out->head_dim_assumed = m->knobs[KNOB_HEAD_DIM].kind == DOMAIN_UNSET;
    struct domain k = {.kind = DOMAIN_FIXED, .value = assumed};
    out->head_dim = domain_integers(a, out->head_dim_assumed ? &k : &m->knobs[KNOB_HEAD_DIM], 8,
                                    integers_range(8, LARGEST, 8));
}

static bool bounded(const struct model_spec *m, const struct shapes *s, struct diags *d)
{
    bool heads = largest(&s->heads) < LARGEST || largest(&s->kv_heads) < LARGEST;
    bool width = largest(&s->d_ff) < LARGEST || s->n_r_targets > 0 || isfinite(s->r_hi);
    if (m->params > 0 || (heads && width))
        return true;
    struct diag *e = diag_error(d, m->at, "unbounded-knob", "nothing bounds %s of model `%s`",
                                heads ? "d_ff" : "the number of heads", m->name);
    diag_help(d, e, "give `params`, which with r and gqa fixes both");
    return false;
}

bool shapes_init(struct arena *a, const struct model_spec *m, const struct law *law,
                 struct diags *d, struct shapes *out)
{
    memset(out, 0, sizeof *out);
    out->fixed = fixed_part(m);
    if (m->knobs[KNOB_LAYERS].kind == DOMAIN_UNSET || m->knobs[KNOB_LAYERS].kind == DOMAIN_FREE) {
        struct diag *e = diag_error(d, m->at, "unbounded-knob",
                                    "model `%s` does not say how many layers", m->name);
        diag_help(d, e, "write `layers = 16`, or `layers = free [12, 16, 24]`");
        return false;
    }
    out->layers = domain_integers(a, &m->knobs[KNOB_LAYERS], 1, integers_range(1, LARGEST, 1));
    head_dim_domain(a, m, out);
    if (!d_model_domain(a, m, law, d, &out->d_model))
        return false;
    out->gqa = domain_integers(a, &m->knobs[KNOB_GQA], 1, integers_range(1, MAX_GQA, 1));
    out->heads = domain_integers(a, &m->knobs[KNOB_HEADS], 1, integers_range(1, LARGEST, 1));
    out->kv_heads = domain_integers(a, &m->knobs[KNOB_KV_HEADS], 1, integers_range(1, LARGEST, 1));
    out->d_ff = domain_integers(a, &m->knobs[KNOB_D_FF], D_FF_STEP,
                                integers_range(D_FF_STEP, LARGEST, D_FF_STEP));
    r_domain(a, m, law, out);
    out->params = m->params;
    out->params_lo = 0;
    out->params_hi = INFINITY;
    if (m->params > 0) {
        out->params_lo = m->params * (1 - m->params_tolerance) * (1 - slack);
        out->params_hi = m->params * (1 + m->params_tolerance) * (1 + slack);
    }
    for (int i = 0; i < KNOB_COUNT; i++)
        out->any_free = out->any_free || is_free(&m->knobs[i]);
    return bounded(m, out, d);
}

/* ---- enumeration ----------------------------------------------------------------------------- */

struct walk {
    const struct shapes *s;
    bool (*each)(void *user, const struct arch *a);
    void *user;
    struct arch arch;
    int64_t steps; /* head counts tried so far */
};

static int64_t clamp(double v)
{
    return v < 0 ? 0 : v > LARGEST ? LARGEST : (int64_t)v;
}

/* Parameters of one layer's attention, and of its MLP per unit of d_ff. */
static double attention_params(const struct arch *a)
{
    return 2.0 * a->d_model * a->head_dim * ((double)a->heads + a->kv_heads);
}

/* d_ff between which N lies within the tolerance. */
static void d_ff_bounds(const struct walk *w, int64_t *lo, int64_t *hi)
{
    const struct shapes *s = w->s;
    double attention = attention_params(&w->arch), unit = 3.0 * w->arch.d_model;
    *lo = clamp(ceil((s->params_lo / w->arch.layers - attention) / unit - 1e-6));
    *hi = clamp(floor((s->params_hi / w->arch.layers - attention) / unit + 1e-6));
    if (*lo < 1)
        *lo = 1;
}

/* d_ff at which r has this value: r = 3 F / (2 (H + K) E). */
static double d_ff_at(const struct arch *a, double r)
{
    return r * 2.0 * a->head_dim * ((double)a->heads + a->kv_heads) / 3.0;
}

static bool inside(const struct shapes *s, const struct arch *a)
{
    double n = (double)arch_params(a);
    return n >= s->params_lo && n <= s->params_hi;
}

static bool walk_d_ff(struct walk *w)
{
    const struct shapes *s = w->s;
    int64_t lo, hi;
    d_ff_bounds(w, &lo, &hi);
    double from = d_ff_at(&w->arch, s->r_lo), to = d_ff_at(&w->arch, s->r_hi);
    lo = lo > clamp(from - 1) ? lo : clamp(from - 1);
    hi = hi < clamp(to + 1) ? hi : clamp(to + 1);
    for (int64_t f = at_least(&s->d_ff, lo); f >= 0 && f <= hi; f = at_least(&s->d_ff, f + 1)) {
        w->arch.d_ff = (int)f;
        double r = arch_r(&w->arch);
        if (r < s->r_lo * (1 - slack) || r > s->r_hi * (1 + slack) || !inside(s, &w->arch))
            continue;
        if (!w->each(w->user, &w->arch))
            return false;
    }
    return true;
}

/* The shape nearest to a wanted r, so far. */
struct nearest {
    double distance, off; /* |ln(r / wanted)|, then |N - params| */
    struct arch arch;
};

static void consider(const struct walk *w, double target, int64_t f, struct nearest *best)
{
    if (f < 0)
        return;
    struct arch a = w->arch;
    a.d_ff = (int)f;
    if (!inside(w->s, &a))
        return;
    double distance = fabs(log(arch_r(&a) / target));
    double off = fabs((double)arch_params(&a) - w->s->params);
    if (distance < best->distance || (distance == best->distance && off < best->off))
        *best = (struct nearest){distance, off, a};
}

static void nearest_d_ff(const struct walk *w, double target, struct nearest *best)
{
    int64_t lo, hi;
    d_ff_bounds(w, &lo, &hi);
    double wanted = d_ff_at(&w->arch, target);
    int64_t f = clamp(wanted) < lo ? lo : clamp(wanted) > hi ? hi : clamp(wanted);
    consider(w, target, at_most(&w->s->d_ff, f), best);
    consider(w, target, at_least(&w->s->d_ff, f), best);
}

/* Every K for which a head count K G exists and attention alone does not exceed the parameters. */
static void kv_bounds(const struct walk *w, int group, int64_t *lo, int64_t *hi)
{
    const struct shapes *s = w->s;
    double per_kv = 2.0 * w->arch.d_model * w->arch.head_dim * (group + 1.0) * w->arch.layers;
    *lo = 1;
    *hi = clamp(floor(s->params_hi / per_kv));
    int64_t most = largest(&s->heads) / group, widest = LARGEST / w->arch.head_dim / group;
    most = most < widest ? most : widest;
    *hi = *hi < most ? *hi : most;
    /* Attention of so few heads that even the largest r leaves N too small is not worth a look. */
    if (isfinite(s->r_hi) && s->params_lo > 0)
        *lo = clamp(floor(s->params_lo / ((1 + s->r_hi) * per_kv)));
    *lo = *lo < 1 ? 1 : *lo;
}

static bool walk_kv_heads(struct walk *w, int group, double target)
{
    const struct shapes *s = w->s;
    struct nearest best = {.distance = INFINITY};
    int64_t lo, hi;
    kv_bounds(w, group, &lo, &hi);
    for (int64_t k = at_least(&s->kv_heads, lo); k >= 0 && k <= hi;
         k = at_least(&s->kv_heads, k + 1)) {
        if (++w->steps > MAX_STEPS)
            return false;
        if (!has(&s->heads, k * group))
            continue;
        w->arch.kv_heads = (int)k;
        w->arch.heads = (int)(k * group);
        if (isnan(target)) {
            if (!walk_d_ff(w))
                return false;
        } else {
            nearest_d_ff(w, target, &best);
        }
    }
    return isinf(best.distance) || w->each(w->user, &best.arch);
}

static bool walk_groups(struct walk *w)
{
    const struct shapes *s = w->s;
    for (int64_t g = at_least(&s->gqa, 1); g >= 0 && g <= MAX_GQA; g = at_least(&s->gqa, g + 1)) {
        if (s->n_r_targets == 0 && !walk_kv_heads(w, (int)g, NAN))
            return false;
        for (int i = 0; i < s->n_r_targets; i++)
            if (!walk_kv_heads(w, (int)g, s->r_targets[i]))
                return false;
    }
    return true;
}

bool shapes_each(const struct shapes *s, bool (*each)(void *user, const struct arch *a), void *user)
{
    struct walk w = {s, each, user, s->fixed, 0};
    for (int64_t l = at_least(&s->layers, 1); l >= 0 && l <= MAX_LAYERS;
         l = at_least(&s->layers, l + 1))
        for (int64_t h = at_least(&s->head_dim, 1); h >= 0; h = at_least(&s->head_dim, h + 1))
            for (int64_t d = at_least(&s->d_model, 1); d >= 0; d = at_least(&s->d_model, d + 1)) {
                w.arch.layers = (int)l;
                w.arch.head_dim = (int)h;
                w.arch.d_model = (int)d;
                if (!walk_groups(&w))
                    return false;
            }
    return true;
}

/* fit.c - a law from runs: selection, the fit, its errors, its bootstrap, progressive evaluation.
 *
 * One pipeline makes the law and each of its bootstrap refits: points, groups of one (N, D), their
 * L_opt, the shape term, the curve of L_opt over N and D. */
#include "fit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LEAST_R 0.5
#define MOST_R 5.0

/* ---- predictions ----------------------------------------------------------------------------- */

struct law fit_blank(enum law_form form)
{
    struct law l = {.form = form, .base = -1, .observe_model = -1};
    l.E = l.A = l.B = l.alpha = l.beta = l.morph_e = l.observe_loss = NAN;
    l.r_lo = l.r_hi = l.x_lo = l.x_hi = l.params_lo = l.params_hi = NAN;
    for (int i = 0; i < 3; i++)
        l.a[i] = l.b[i] = NAN;
    return l;
}

/* A table without a factor has NaN there; its coefficients are 0, and any value will do. */
static double or_one(double v)
{
    return isnan(v) ? 1 : v;
}

double fit_predict(const struct law *law, const struct point *p)
{
    double l_opt = is_conditional(law->form) ? p->l_opt : law_base_loss(law, p->n, p->d);
    return law_loss(law, l_opt, or_one(p->x), or_one(p->r), or_one(p->depth));
}

static struct fit_error errors_of(struct arena *a, const struct law *law, const struct point *p,
                                  int n, double *relative)
{
    struct fit_error e = {n, NAN, NAN};
    double *got = arena_alloc(a, (size_t)(n + 1) * sizeof *got),
           *want = arena_alloc(a, (size_t)(n + 1) * sizeof *want), squares = 0, parts = 0;
    for (int i = 0; i < n; i++) {
        double lowest = law->form == LAW_CHINCHILLA ? 1 : p[i].l_opt,
               loss = fit_predict(law, p + i);
        got[i] = loss / lowest;
        want[i] = p[i].loss / lowest;
        squares += (loss - p[i].loss) * (loss - p[i].loss);
        parts += (loss / p[i].loss - 1) * (loss / p[i].loss - 1);
    }
    if (n > 0) {
        e.mse = squares / n;
        e.spearman = fit_spearman(a, got, want, n);
    }
    if (relative)
        *relative = sqrt(parts / n);
    return e;
}

/* ---- one fit --------------------------------------------------------------------------------- */

/* What stays the same between a fit and its refits. */
struct work {
    const struct solvers *solvers;
    const struct fit_options *o;
    const struct runs *runs;
    struct factors with;
    int terms;              /* of the curve; 0: choose */
    const struct law *near; /* the fit, while refitting */
    struct point *social;   /* room for those that are not lonely */
    struct point *lowest;   /* room for all points */
    double objective;
    int at_best;
};

/* L_opt of sorted points, and of the groups' lowest in w->lowest. Returns the number of those. */
static int set_l_opt(struct work *w, struct point *p, int n, struct law *curve)
{
    int groups = points_lowest(p, n, w->lowest);
    const struct law *from = w->o->l_opt == FIT_BASE ? w->o->base : curve;
    if (w->o->l_opt != FIT_BASE) {
        w->terms = fit_curve(w->solvers, w->lowest, groups, w->terms, w->near, curve);
        if (w->terms == 0)
            return 0;
    }
    for (int i = 0; i < n && w->o->l_opt != FIT_LOWEST; i++)
        p[i].l_opt = law_base_loss(from, p[i].n, p[i].d);
    return groups;
}

/* Under FIT_LOWEST lonely points say nothing about shapes. */
static int social_points(struct work *w, const struct point *p, int n)
{
    int kept = 0;
    for (int i = 0; i < n; i++)
        if (!p[i].lonely || w->o->l_opt != FIT_LOWEST)
            w->social[kept++] = p[i];
    return kept;
}

static bool fit_once(struct work *w, struct point *p, int n, struct law *out)
{
    struct law curve = fit_blank(LAW_CHINCHILLA);
    if (w->o->form == LAW_CHINCHILLA)
        return fit_chinchilla(w->solvers, p, n, w->near, out, &w->objective, &w->at_best);
    if (w->o->form == LAW_MORPH)
        return fit_form(w->solvers, LAW_MORPH, w->with, p, n, w->near, out, &w->objective);
    if (set_l_opt(w, p, n, &curve) == 0)
        return false;
    int social = social_points(w, p, n);
    if (!fit_form(w->solvers, w->o->form, w->with, w->social, social, w->near, out, &w->objective))
        return false;
    out->E = curve.E;
    out->A = curve.A;
    out->B = curve.B;
    out->alpha = curve.alpha;
    out->beta = curve.beta;
    return true;
}

/* Bounds that the language puts on coefficients: lang/keys.def. */
static bool holds(const struct law *l)
{
    const double large[] = {l->a[0], l->a[1], l->a[2], l->b[0], l->b[1], l->b[2]};
    for (int i = 0; i < 6; i++)
        if (fabs(large[i]) > 1e6)
            return false;
    return !(l->E < 0 || l->E > 1e6 || l->A < 0 || l->A > 1e12 || l->B < 0 || l->B > 1e12 ||
             l->alpha < 0 || l->alpha > 10 || l->beta < 0 || l->beta > 10 || l->morph_e < 0 ||
             l->morph_e > 1e6);
}

/* ---- selection ------------------------------------------------------------------------------- */

static void add_note(struct fit *f, struct arena *a, const char *text)
{
    enum { MOST = 32 };
    if (!f->notes)
        f->notes = arena_alloc(a, MOST * sizeof *f->notes);
    if (f->n_notes < MOST)
        f->notes[f->n_notes++] = text;
}

static int by_loss(const void *a, const void *b)
{
    const struct point *p = a, *q = b;
    return p->loss > q->loss ? -1 : p->loss < q->loss ? 1 : p->run->line - q->run->line;
}

/* Leaves out the highest losses and the outliers of r. */
static int select_points(const struct fit_options *o, struct point *p, int n, struct fit *f)
{
    int kept = 0;
    if (o->drop_highest > 0) {
        f->n_high = o->drop_highest < n ? o->drop_highest : n;
        qsort(p, (size_t)n, sizeof *p, by_loss);
        memmove(p, p + f->n_high, (size_t)(n - f->n_high) * sizeof *p);
        n -= f->n_high;
    }
    for (int i = 0; i < n; i++) {
        bool outlier =
            is_conditional(o->form) && !o->all_r && (p[i].r < LEAST_R || p[i].r > MOST_R);
        if (!outlier)
            p[kept++] = p[i];
    }
    f->n_outliers = n - kept;
    return kept;
}

static void span(double v, double *lo, double *hi)
{
    if (isnan(v))
        return;
    *lo = isnan(*lo) || v < *lo ? v : *lo;
    *hi = isnan(*hi) || v > *hi ? v : *hi;
}

static void set_ranges(struct law *l, const struct point *p, int n)
{
    for (int i = 0; i < n; i++) {
        span(p[i].x, &l->x_lo, &l->x_hi);
        span(p[i].r, &l->r_lo, &l->r_hi);
        span(isnan(p[i].params) ? p[i].n : p[i].params, &l->params_lo, &l->params_hi);
    }
}

/* A factor needs some spread to be told from noise. */
static void choose_factors(struct arena *a, const struct fit_options *o, struct work *w,
                           const struct point *p, int n, struct fit *f)
{
    w->with.width = w->with.ratio = true;
    if (o->form != LAW_MULTIPLICATIVE && o->form != LAW_ADDITIVE)
        return;
    w->with.width = points_vary(p, n, true, 1.3);
    w->with.ratio = points_vary(p, n, false, 1.5);
    if (!w->with.width)
        add_note(
            f, a,
            "d_model / sqrt(N) is missing or hardly varies (three values that span a factor of 1.3 "
            "are the least): the width factor is constant");
    if (!w->with.ratio)
        add_note(f, a,
                 "r is missing or hardly varies (three values that span a factor of 1.5 are the "
                 "least): the ratio factor is constant");
}

static const char *latest_date(const struct runs *t)
{
    const char *latest = NULL;
    for (int c = 0; c < t->n_extra; c++)
        for (int i = 0; i < t->n && !strcmp(t->extra_names[c], "date"); i++)
            if (*t->rows[i].extra[c] && (!latest || strcmp(t->rows[i].extra[c], latest) > 0))
                latest = t->rows[i].extra[c];
    return latest;
}

/* ---- bootstrap ------------------------------------------------------------------------------- */

/* splitmix64 */
static uint64_t draw(uint64_t *state)
{
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* As many rows as there are, drawn with replacement: from all, or from each group its own number,
 * so that no (N, D) is lost. `p` is sorted by group, and so is `out`. */
static void resample(const struct point *p, int n, bool grouped, uint64_t *state, struct point *out)
{
    for (int i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && (!grouped || p[end].group == p[i].group); end++)
            ;
        for (int j = i; j < end; j++)
            out[j] = p[i + (int)(draw(state) % (uint64_t)(end - i))];
    }
}

static struct law_sample sample_of(const struct law *l)
{
    return (struct law_sample){.E = l->E,
                               .A = l->A,
                               .B = l->B,
                               .alpha = l->alpha,
                               .beta = l->beta,
                               .a = {l->a[0], l->a[1], l->a[2]},
                               .b = {l->b[0], l->b[1], l->b[2]},
                               .morph_e = l->morph_e};
}

static struct law law_of(const struct law *l, const struct law_sample *s)
{
    struct law out = *l;
    out.E = s->E;
    out.A = s->A;
    out.B = s->B;
    out.alpha = s->alpha;
    out.beta = s->beta;
    memcpy(out.a, s->a, sizeof out.a);
    memcpy(out.b, s->b, sizeof out.b);
    out.morph_e = s->morph_e;
    return out;
}

/* Sorted anew, because repeats of a shape must stand together. */
static void regroup(const struct work *w, struct point *p, int n)
{
    if (is_conditional(w->o->form))
        points_group(w->runs, w->o->group, p, n);
}

static void bootstrap(struct arena *a, struct work *w, const struct point *p, int n, struct fit *f)
{
    const struct fit_options *o = w->o;
    uint64_t state = o->seed;
    struct law_sample *samples = arena_alloc(a, (size_t)(o->bootstrap + 1) * sizeof *samples);
    struct point *again = arena_alloc(a, (size_t)n * sizeof *again);
    w->near = &f->law;
    for (int i = 0; i < o->bootstrap; i++) {
        struct law law;
        resample(p, n, is_conditional(o->form), &state, again);
        regroup(w, again, n);
        if (fit_once(w, again, n, &law) && holds(&law))
            samples[f->n_refits++] = sample_of(&law);
        else
            f->n_refused++;
    }
    w->near = NULL;
    f->law.samples = samples;
    f->law.n_samples = f->n_refits;
}

/* ---- values with intervals ------------------------------------------------------------------- */

static double value_E(const struct law *l)
{
    return l->E;
}
static double value_A(const struct law *l)
{
    return l->A;
}
static double value_B(const struct law *l)
{
    return l->B;
}
static double value_alpha(const struct law *l)
{
    return l->alpha;
}
static double value_beta(const struct law *l)
{
    return l->beta;
}
static double value_morph(const struct law *l)
{
    return l->morph_e;
}

/* The factor (additive: the addend) at the best width and ratio, as far as they exist. */
static double value_least(const struct law *l)
{
    return law_shape_term(l, or_one(law_best_x(l)), or_one(law_best_r(l)), 1);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static struct fit_value value_of(struct arena *a, const struct law *law,
                                 double (*get)(const struct law *))
{
    double *all = arena_alloc(a, (size_t)(law->n_samples + 1) * sizeof *all);
    struct fit_value v = {get(law), NAN, NAN, NAN};
    int n = 0;
    for (int i = 0; i < law->n_samples; i++) {
        struct law sample = law_of(law, law->samples + i);
        double got = get(&sample);
        if (!isnan(got))
            all[n++] = got;
    }
    if (law->n_samples > 0)
        v.share = n / (double)law->n_samples;
    if (n < 20)
        return v;
    qsort(all, (size_t)n, sizeof *all, ascending);
    v.lo = all[(int)floor(0.025 * (n - 1) + 0.5)];
    v.hi = all[(int)floor(0.975 * (n - 1) + 0.5)];
    return v;
}

static void set_values(struct arena *a, struct fit *f)
{
    const struct law *l = &f->law;
    f->best_x = value_of(a, l, law_best_x);
    f->best_r = value_of(a, l, law_best_r);
    f->best_loss = value_of(a, l, value_least);
    f->E = value_of(a, l, value_E);
    f->A = value_of(a, l, value_A);
    f->B = value_of(a, l, value_B);
    f->alpha = value_of(a, l, value_alpha);
    f->beta = value_of(a, l, value_beta);
    f->morph_e = value_of(a, l, value_morph);
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* L_opt of points that were not fitted: the lowest of their group, whether fitted or not; or what
 * the law or its base predicts. */
static void set_held_l_opt(const struct work *w, const struct law *law, struct point *held, int n)
{
    const struct law *from = w->o->l_opt == FIT_BASE ? w->o->base : law;
    for (int i = 0; i < n && w->o->l_opt != FIT_LOWEST && is_conditional(law->form); i++)
        held[i].l_opt = law_base_loss(from, held[i].n, held[i].d);
}

static bool hold_out(struct arena *a, const struct work *w, const struct runs *held_runs,
                     const struct point *fitted, int n, struct fit *f, struct text *why)
{
    struct point *held, *all;
    struct fit ignored = {0};
    if (!points_new(a, held_runs, w->o->form, &held, why))
        return false;
    int n_held = select_points(&(struct fit_options){.form = w->o->form, .all_r = w->o->all_r},
                               held, held_runs->n, &ignored);
    all = arena_alloc(a, (size_t)(n + n_held) * sizeof *all);
    memcpy(all, fitted, (size_t)n * sizeof *all);
    memcpy(all + n, held, (size_t)n_held * sizeof *all);
    for (int i = 0; i < n + n_held; i++)
        all[i].held = i >= n;
    points_group(w->runs, w->o->group, all, n + n_held);
    points_lowest(all, n + n_held, NULL);
    points_lonely(all, n + n_held);
    int kept = 0;
    for (int i = 0; i < n + n_held; i++)
        if (all[i].held &&
            !(all[i].lonely && is_conditional(w->o->form) && w->o->l_opt == FIT_LOWEST))
            held[kept++] = all[i];
    set_held_l_opt(w, &f->law, held, kept);
    f->n_held = held_runs->n;
    f->held_out = errors_of(a, &f->law, held, kept, NULL);
    return true;
}

/* The relative ranks of Morph need an l_opt too; it is not used for predicting. */
static bool too_few(const struct fit *f, const struct runs *t, int n, int least, struct text *why)
{
    if (n > least)
        return false;
    text_printf(why, "%s: error: %d runs are left, and this form has %d coefficients to fit\n",
                t->path, n, least);
    if (f->n_outliers)
        text_printf(why,
                    "  help: %d runs with r outside 0.5..5 were left out: --all-r keeps them\n",
                    f->n_outliers);
    return true;
}

static bool prepare(struct arena *a, struct work *w, const struct runs *t, struct fit *f,
                    struct point **points, struct text *why)
{
    const struct fit_options *o = w->o;
    if (!points_new(a, t, o->form, points, why))
        return false;
    int n = select_points(o, *points, t->n, f);
    choose_factors(a, o, w, *points, n, f);
    if (too_few(f, t, n, form_coefficients(o->form, w->with), why))
        return false;
    f->n_used = n;
    f->n_groups = points_group(t, o->group, *points, n);
    if (f->n_groups < 0) {
        text_printf(why, "%s: error: '%s' is no column to group by\n", t->path, o->group);
        text_printf(why, "  help: name a column that the law does not know, such as size, with at "
                         "most 1000 different values\n");
        return false;
    }
    w->lowest = arena_alloc(a, (size_t)(n + 1) * sizeof *w->lowest);
    w->social = arena_alloc(a, (size_t)(n + 1) * sizeof *w->social);
    points_lowest(*points, n, NULL);
    if (is_conditional(o->form) && o->l_opt == FIT_LOWEST)
        f->n_lonely = n - points_lonely(*points, n);
    if (f->n_lonely == n) {
        text_printf(why, "%s: error: at no (N, D) are there three shapes to compare\n", t->path);
        text_printf(why,
                    "  help: --group COLUMN says which runs are of one size; --l-opt curve or a "
                    "law's name needs no groups\n");
        return false;
    }
    if (too_few(f, t, n - f->n_lonely, form_coefficients(o->form, w->with), why))
        return false;
    f->noise = points_noise(*points, n, &f->n_repeated);
    return true;
}

static void note_curve(struct arena *a, struct fit *f)
{
    if (!is_conditional(f->law.form) || f->options.l_opt == FIT_BASE)
        return;
    if (f->curve_terms == 3)
        add_note(f, a,
                 "D follows N in these runs, or there are few (N, D): the L_opt of the law is E + "
                 "A/N^alpha, which holds for models trained on as many tokens a parameter");
    if (f->curve_terms == 2)
        add_note(f, a,
                 "two sizes only, or no curve above them: the L_opt of the law is a power of N "
                 "through them");
    if (f->curve_terms == 1)
        add_note(f, a,
                 "one size only: the L_opt of the law is its lowest loss, whatever N and D are");
}

static bool fit_tables(struct arena *a, const struct runs *t, const struct runs *held,
                       const struct fit_options *o, struct fit *out, struct text *why)
{
    struct work w = {.o = o, .runs = t, .solvers = solvers_get(why)};
    struct point *p;
    if (!w.solvers || !prepare(a, &w, t, out, &p, why))
        return false;
    int n = out->n_used;
    struct law law;
    if (!fit_once(&w, p, n, &law) || !holds(&law)) {
        text_printf(why,
                    "%s: error: no %s law fits these %d runs: the solver finds no finite optimum\n",
                    t->path, law_form_names[o->form], n);
        text_printf(why, "  help: more sizes or shapes are needed, or another --form\n");
        return false;
    }
    out->law = law;
    out->law.name = o->name;
    out->has_width = w.with.width;
    out->has_ratio = w.with.ratio;
    out->objective = w.objective;
    out->curve_terms = is_conditional(o->form) && o->l_opt != FIT_BASE ? w.terms : 0;
    out->n_starts = o->form == LAW_CHINCHILLA ? CHINCHILLA_STARTS : 0;
    out->n_at_best = w.at_best;
    set_ranges(&out->law, p, n);
    int social = is_conditional(o->form) ? social_points(&w, p, n) : n;
    out->fitted =
        errors_of(a, &out->law, is_conditional(o->form) ? w.social : p, social, &out->relative_rms);
    bootstrap(a, &w, p, n, out);
    set_values(a, out);
    note_curve(a, out);
    return held->n == 0 || hold_out(a, &w, held, p, n, out, why);
}

bool fit_law(struct arena *a, const struct runs *t, const struct fit_options *o, struct fit *out,
             struct text *why)
{
    struct runs rest = *t, held = *t;
    struct text reason = {0};
    *out = (struct fit){.options = *o, .runs = t, .n_rows = t->n, .noise = NAN};
    out->held_out = (struct fit_error){0, NAN, NAN};
    held.n = 0;
    if (!out->options.date)
        out->options.date = latest_date(t);
    if (o->holdout && (!runs_filter(t, o->holdout, true, &held, &reason) ||
                       !runs_filter(t, o->holdout, false, &rest, &reason))) {
        text_printf(why, "%s: error: --holdout: %s\n", t->path, reason.at);
        text_free(&reason);
        return false;
    }
    if (o->holdout && held.n == 0) {
        text_printf(why, "%s: error: --holdout %s holds out no run\n", t->path, o->holdout);
        return false;
    }
    return fit_tables(a, &rest, &held, o, out, why);
}

/* ---- progressive ----------------------------------------------------------------------------- */

/* Rows of sizes below (or equal to) `size`, of points sorted by size. */
static struct runs rows_of(struct arena *a, const struct runs *t, const struct point *p, int n,
                           int size, bool equal)
{
    struct runs out = *t;
    out.n = 0;
    out.rows = arena_alloc(a, (size_t)(n + 1) * sizeof *out.rows);
    for (int i = 0; i < n; i++)
        if (equal ? p[i].size == size : p[i].size < size)
            out.rows[out.n++] = *p[i].run;
    return out;
}

static void step(struct arena *a, const struct runs *t, const struct fit_options *o,
                 const struct point *p, int n, int size, struct fit_step *s)
{
    struct runs small = rows_of(a, t, p, n, size, false), next = rows_of(a, t, p, n, size, true);
    struct fit_options quick = *o;
    struct fit f = {.noise = NAN};
    struct text why = {0};
    double targets = 0;
    *s = (struct fit_step){.params_lo = NAN, .params_hi = NAN, .best_x = NAN, .best_r = NAN};
    for (int i = 0; i < n; i++) {
        if (p[i].size < size)
            span(p[i].n, &s->params_lo, &s->params_hi);
        else if (p[i].size == size) {
            s->target += p[i].n;
            targets++;
        }
    }
    s->target /= targets;
    quick.bootstrap = 0;
    quick.holdout = NULL;
    quick.drop_highest = 0;
    s->fitted = fit_tables(a, &small, &next, &quick, &f, &why);
    if (s->fitted) {
        s->error = f.held_out;
        s->best_x = law_best_x(&f.law);
        s->best_r = law_best_r(&f.law);
    }
    if (why.length)
        s->why = arena_copy(a, why.at, why.length);
    text_free(&why);
}

int fit_progressive(struct arena *a, const struct runs *t, const struct fit_options *o,
                    struct fit_step *steps, int room, struct text *why)
{
    struct point *p;
    if (!points_new(a, t, o->form, &p, why))
        return -1;
    if (points_group(t, o->group, p, t->n) < 0) {
        text_printf(why, "%s: error: '%s' is no column to group by\n", t->path, o->group);
        return -1;
    }
    int sizes = p[t->n - 1].size + 1;
    if (sizes < 2) {
        text_printf(why,
                    "%s: error: --progressive needs at least two sizes, and all runs are of one\n",
                    t->path);
        return -1;
    }
    int n = 0;
    for (int size = 1; size < sizes && n < room; size++) {
        step(a, t, o, p, t->n, size, steps + n);
        n +=
            !steps[n].fitted || steps[n].error.n > 0; /* else there are too few shapes to compare */
    }
    return n;
}

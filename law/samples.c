/* samples.c - a law's samples: the loss of a shape under each of them.
 *
 * A sample is one bootstrap refit, so all its coefficients belong together. The search asks for the
 * losses of a hundred thousand shapes under a thousand samples each: what depends on the sample
 * alone is worked out once, and the rest is arithmetic on vectors of samples. */
#include "law.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- one sample ------------------------------------------------------------------------------ */

static double given(double sample, double own)
{
    return isfinite(sample) ? sample : own;
}

struct law law_sampled(const struct law *law, int i)
{
    struct law l = *law;
    if (law->n_samples <= 0)
        return l;
    const struct law_sample *s = &law->samples[i % law->n_samples];
    l.E = given(s->E, l.E);
    l.A = given(s->A, l.A);
    l.B = given(s->B, l.B);
    l.alpha = given(s->alpha, l.alpha);
    l.beta = given(s->beta, l.beta);
    for (int k = 0; k < 3; k++) {
        l.a[k] = given(s->a[k], l.a[k]);
        l.b[k] = given(s->b[k], l.b[k]);
    }
    l.morph_e = given(s->morph_e, l.morph_e);
    return l;
}

bool pricing_is_sampled(const struct pricing *p)
{
    return p->law && !p->is_observed &&
           (p->law->n_samples > 0 || (p->chinchilla && p->chinchilla->n_samples > 0));
}

double pricing_sampled_loss(const struct pricing *p, int i, const struct arch *a)
{
    struct pricing at = *p;
    struct law law, chinchilla;
    double metrics[METRIC_COUNT];
    if (p->law) {
        law = law_sampled(p->law, i);
        at.law = &law;
    }
    if (p->chinchilla) {
        chinchilla = law_sampled(p->chinchilla, i);
        at.chinchilla = &chinchilla;
    }
    if (!isnan(p->pin))
        pricing_pin(&at, &p->observed, p->pin_tokens);
    pricing_metrics(&at, a, 1u << METRIC_LOSS, metrics);
    return metrics[METRIC_LOSS];
}

/* ---- all samples ----------------------------------------------------------------------------- */

/* Two doubles: what every target of archc has. */
typedef double pair __attribute__((vector_size(16)));

/* Columns of one number a sample, `pairs` vectors each. */
struct sampled_law {
    const struct pricing *pricing;
    enum law_form form;
    int n, pairs;
    pair *a[3], *b[3]; /* of the factors; a number not given is 0 */
    /* L_opt(N) = scale (floor + size (N / n0)^-alpha): floor holds E and what D leaves. */
    pair *scale, *floor, *size, *alpha;
    double *morph_e, *morph_power;
    double ln_n0, steepest; /* the largest |alpha| */
};

static pair *column(struct arena *a, int pairs)
{
    return arena_alloc(a, sizeof(pair) * (size_t)pairs);
}

static double zero_if_unknown(double c)
{
    return isnan(c) ? 0 : c;
}

static void set(pair *column, int i, double v)
{
    column[i / 2][i % 2] = v;
}

/* The L_opt of sample i as a function of N. */
static void set_l_opt(struct sampled_law *l, int i, const struct law *law)
{
    const struct pricing *p = l->pricing;
    struct pricing at = *p;
    at.law = law;
    if (!isnan(p->pin))
        pricing_pin(&at, &p->observed, p->pin_tokens);
    set(l->scale, i, 1);
    set(l->floor, i, at.pin);
    if (!p->chinchilla)
        return; /* the pin holds for every N */
    struct law c = law_sampled(p->chinchilla, i);
    double tokens = p->model->train.tokens;
    double beta = c.form == LAW_MORPH && isnan(c.beta) ? c.alpha : c.beta;
    if (!isnan(p->pin)) {
        double there = law_base_loss(&c, p->pin_params, p->pin_tokens);
        if (isnan(there) || isnan(tokens))
            return;
        set(l->scale, i, at.pin / there);
    }
    set(l->floor, i, c.E + c.B * pow(tokens, -beta));
    set(l->size, i, c.A * exp(-c.alpha * l->ln_n0));
    set(l->alpha, i, c.alpha);
    l->steepest = fmax(l->steepest, fabs(c.alpha));
}

struct sampled_law *sampled_law_new(struct arena *a, const struct pricing *p, int n, double params)
{
    struct sampled_law *l = arena_alloc(a, sizeof *l);
    pair **columns[] = {&l->a[0], &l->a[1],  &l->a[2],  &l->b[0], &l->b[1],
                        &l->b[2], &l->scale, &l->floor, &l->size, &l->alpha};
    l->pricing = p;
    l->form = p->law ? p->law->form : LAW_CHINCHILLA;
    l->n = n;
    l->pairs = (n + 1) / 2;
    l->ln_n0 = log(params > 0 ? params : 1e9);
    for (size_t k = 0; k < sizeof columns / sizeof *columns; k++)
        *columns[k] = column(a, l->pairs);
    l->morph_e = arena_alloc(a, sizeof(double) * (size_t)n);
    l->morph_power = arena_alloc(a, sizeof(double) * (size_t)n);
    for (int i = 0; p->law && i < n; i++) {
        struct law law = law_sampled(p->law, i);
        bool forgiving = law.form == LAW_JOINT || law.form == LAW_ADDITIVE;
        for (int k = 0; k < 3; k++) {
            set(l->a[k], i, law.form == LAW_JOINT ? zero_if_unknown(law.a[k]) : law.a[k]);
            set(l->b[k], i, forgiving && k == 0 ? zero_if_unknown(law.b[k]) : law.b[k]);
        }
        l->morph_e[i] = law.morph_e;
        l->morph_power[i] = law.alpha;
        set_l_opt(l, i, &law);
    }
    return l;
}

/* exp for |z| <= 0.1 is its series to the eighth power, to 3e-15. */
static pair short_exp(pair z)
{
    pair sum = z / 8 + 1;
    for (int k = 7; k > 0; k--)
        sum = sum * z / k + 1;
    return sum;
}

static void l_opts(const struct sampled_law *l, const struct law_point *a, pair *out)
{
    const struct law *c = l->pricing->chinchilla;
    double n = c && c->form == LAW_MORPH ? a->total_params : a->params;
    double far = log(n) - l->ln_n0;
    bool near = fabs(far) * l->steepest <= 0.1;
    for (int i = 0; i < l->pairs; i++) {
        pair z = -l->alpha[i] * far;
        pair power = near ? short_exp(z) : (pair){exp(z[0]), exp(z[1])};
        out[i] = l->scale[i] * (l->floor[i] + l->size[i] * power);
    }
}

static void apply_factors(const struct sampled_law *l, double x, double r, pair *out)
{
    double ln_x = log(x), ln_r = log(r), per_x = 1 / x, per_r = 1 / r;
    for (int i = 0; i < l->pairs; i++) {
        pair width = l->a[0][i] + l->a[1][i] * ln_x + l->a[2][i] * per_x;
        pair ratio = l->b[0][i] + l->b[1][i] * ln_r + l->b[2][i] * per_r;
        out[i] = l->form == LAW_MULTIPLICATIVE ? out[i] * width * ratio : out[i] + width + ratio;
    }
}

static void apply_joint(const struct sampled_law *l, double x, double r, pair *out)
{
    double ln_x = log(x), ln_both = log(x * r), per_x = 1 / x, per_both = 1 / (x * r);
    for (int i = 0; i < l->pairs; i++)
        out[i] *= l->a[0][i] + l->a[1][i] * ln_x + l->a[2][i] * per_x + l->b[0][i] * ln_both +
                  l->b[1][i] * per_both;
}

void sampled_losses(const struct sampled_law *l, const struct arch *a, double *loss)
{
    struct law_point at = {(double)arch_params(a), (double)arch_total_params(a), arch_width(a),
                           arch_r(a), (double)a->d_model / a->layers};
    sampled_losses_at(l, &at, loss);
}

void sampled_losses_at(const struct sampled_law *l, const struct law_point *a, double *loss)
{
    const struct pricing *p = l->pricing;
    pair out[SAMPLES_MAX / 2];
    if (!p->law || p->is_observed) {
        for (int i = 0; i < l->n; i++)
            loss[i] = p->law ? p->law->observe_loss : NAN;
        return;
    }
    l_opts(l, a, out);
    if (l->form == LAW_MULTIPLICATIVE || l->form == LAW_ADDITIVE)
        apply_factors(l, a->x, a->r, out);
    else if (l->form == LAW_JOINT)
        apply_joint(l, a->x, a->r, out);
    memcpy(loss, out, sizeof *loss * (size_t)l->n);
    double ln_depth = log(a->d_model_per_layer);
    for (int i = 0; l->form == LAW_MORPH && i < l->n; i++)
        loss[i] *= 1 + l->morph_e[i] * exp(l->morph_power[i] * ln_depth);
}

/* ---- order statistics ------------------------------------------------------------------------ */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

struct interval interval_of(double *values, int n)
{
    int known = 0;
    for (int i = 0; i < n; i++)
        if (isfinite(values[i]))
            values[known++] = values[i];
    if (known == 0)
        return (struct interval){NAN, NAN};
    qsort(values, (size_t)known, sizeof *values, ascending);
    int lo = (int)ceil(0.05 * known) - 1, hi = (int)ceil(0.95 * known) - 1;
    return (struct interval){values[lo < 0 ? 0 : lo], values[hi < 0 ? 0 : hi]};
}

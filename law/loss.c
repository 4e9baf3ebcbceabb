/* loss.c - the forms of the law: what a shape (x, r) adds to the loss that N and D allow.
 *
 * Every conditional form multiplies or shifts L_opt by U-shaped factors f(t) = c0 + c1 ln t + c2 /
 * t, whose derivative c1/t - c2/t^2 vanishes at t* = c2/c1 alone: a minimum where c1, c2 > 0. The
 * logarithm is natural: no other base gives the published optima (arXiv:2510.18245). */
#include "law.h"

#include <math.h>

static double factor(const double c[3], double t)
{
    return c[0] + c[1] * log(t) + c[2] / t;
}

static double or_zero(double c)
{
    return isnan(c) ? 0 : c;
}

double law_base_loss(const struct law *law, double params, double tokens)
{
    double beta = law->form == LAW_MORPH && isnan(law->beta) ? law->alpha : law->beta;
    return law->E + law->A * pow(params, -law->alpha) + law->B * pow(tokens, -beta);
}

/* a0 + a1 ln x + a2/x + b0 ln(x r) + b1/(x r); the purely joint form has no a1, a2. */
static double joint(const struct law *law, double x, double r)
{
    const double a[3] = {or_zero(law->a[0]), or_zero(law->a[1]), or_zero(law->a[2])};
    return factor(a, x) + law->b[0] * log(x * r) + law->b[1] / (x * r);
}

double law_shape_term(const struct law *law, double x, double r, double d_model_per_layer)
{
    switch (law->form) {
    case LAW_CHINCHILLA:
        return 1;
    case LAW_MULTIPLICATIVE:
        return factor(law->a, x) * factor(law->b, r);
    case LAW_ADDITIVE:
        return factor(law->a, x) + or_zero(law->b[0]) + law->b[1] * log(r) + law->b[2] / r;
    case LAW_JOINT:
        return joint(law, x, r);
    case LAW_MORPH:
        return 1 + law->morph_e * pow(d_model_per_layer, law->alpha);
    }
    return NAN;
}

double law_loss(const struct law *law, double l_opt, double x, double r, double d_model_per_layer)
{
    double term = law_shape_term(law, x, r, d_model_per_layer);
    return law->form == LAW_ADDITIVE ? l_opt + term : l_opt * term;
}

double law_l_opt(const struct law *law, double loss, double x, double r, double d_model_per_layer)
{
    double term = law_shape_term(law, x, r, d_model_per_layer);
    return law->form == LAW_ADDITIVE ? loss - term : loss / term;
}

static bool separable(const struct law *law)
{
    return law->form == LAW_MULTIPLICATIVE || law->form == LAW_ADDITIVE;
}

double law_best_x(const struct law *law)
{
    return separable(law) && law->a[1] > 0 && law->a[2] > 0 ? law->a[2] / law->a[1] : NAN;
}

double law_best_r(const struct law *law)
{
    return separable(law) && law->b[1] > 0 && law->b[2] > 0 ? law->b[2] / law->b[1] : NAN;
}

const struct law *law_chinchilla(const struct spec *s, const struct law *law)
{
    for (int hops = 0; hops <= s->n_laws; hops++) {
        if (!isnan(law->E) && !isnan(law->A) && !isnan(law->alpha))
            return law;
        if (law->base < 0 || law->base >= s->n_laws)
            return NULL;
        law = &s->laws[law->base];
    }
    return NULL; /* bases that go round in a circle */
}

/* train_reference_test.c - gradients of ref.h, which kernels are judged by, against finite
 * differences of its functions. */
#include "check.h"
#include "ref.h"
#include "train_kernels.h" /* TEST_EPS */

static double *random_doubles(size_t n)
{
    double *p = doubles(NULL, n);
    for (size_t i = 0; i < n; i++)
        p[i] = (double)check_random();
    return p;
}

struct reference {
    int m, n, t, h, k, e;
    double *x, *fixed, *fixed2; /* the variable; what else the function reads */
    int32_t target[8];
    bool head_norm;
};

typedef void reference_fn(const struct reference *r, double *y, const double *x);
typedef void gradient_fn(const struct reference *r, double *dx, const double *dy);

/* <dy, f(x + h u) - f(x - h u)> / 2h against <gradient, u>. */
static void check_gradient(const char *name, const struct reference *r, reference_fn *f,
                           gradient_fn *gradient, size_t nx, size_t ny)
{
    double *dy = random_doubles(ny), *u = random_doubles(nx), *dx = doubles(NULL, nx);
    double *y[2] = {doubles(NULL, ny), doubles(NULL, ny)}, *x = doubles(NULL, nx);
    double slope = 0, product = 0, h = 1e-5;
    gradient(r, dx, dy);
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < nx; i++)
            x[i] = r->x[i] + (side ? -h : h) * u[i];
        f(r, y[side], x);
    }
    for (size_t i = 0; i < ny; i++)
        slope += dy[i] * (y[0][i] - y[1][i]) / (2 * h);
    for (size_t i = 0; i < nx; i++)
        product += dx[i] * u[i];
    if (!(fabs(slope - product) <= 1e-6 * (1 + fabs(slope))))
        check_failed(name, "the reference's slope is %.10g, its gradient says %.10g", slope,
                     product);
    check_passes++;
    free(dy);
    free(u);
    free(dx);
    free(y[0]);
    free(y[1]);
    free(x);
}

static void f_norm(const struct reference *r, double *y, const double *x)
{
    ref_norm(y, x, r->fixed, r->m, r->n, TEST_EPS);
}

static void g_norm(const struct reference *r, double *dx, const double *dy)
{
    double *dgain = doubles(NULL, r->n);
    ref_norm_backward(dx, dgain, dy, r->x, r->fixed, r->m, r->n, TEST_EPS);
    free(dgain);
}

static void f_norm_gain(const struct reference *r, double *y, const double *gain)
{
    ref_norm(y, r->fixed2, gain, r->m, r->n, TEST_EPS);
}

static void g_norm_gain(const struct reference *r, double *dgain, const double *dy)
{
    double *dx = doubles(NULL, (size_t)r->m * r->n);
    ref_norm_backward(dx, dgain, dy, r->fixed2, r->x, r->m, r->n, TEST_EPS);
    free(dx);
}

static void f_rope(const struct reference *r, double *y, const double *x)
{
    ref_rope(y, x, r->head_norm ? r->fixed : NULL, r->fixed2, r->m, r->t, r->h, r->k, r->e,
             TEST_EPS);
}

static void g_rope(const struct reference *r, double *dx, const double *dy)
{
    double *dgain = doubles(NULL, 2 * (size_t)r->e);
    memcpy(dx, dy, sizeof(double) * r->m * (r->h + 2 * r->k) * r->e);
    ref_rope_backward(dx, dgain, r->x, r->head_norm ? r->fixed : NULL, r->fixed2, r->m, r->t, r->h,
                      r->k, r->e, TEST_EPS);
    free(dgain);
}

static void f_attention(const struct reference *r, double *y, const double *x)
{
    double *lse = doubles(NULL, (size_t)r->m * r->h);
    ref_attention(y, lse, x, r->m / r->t, r->t, r->h, r->k, r->e);
    free(lse);
}

static void g_attention(const struct reference *r, double *dx, const double *dy)
{
    ref_attention_backward(dx, dy, r->x, r->m / r->t, r->t, r->h, r->k, r->e);
}

static void f_swiglu(const struct reference *r, double *y, const double *x)
{
    ref_swiglu(y, x, r->m, r->n);
}

static void g_swiglu(const struct reference *r, double *dx, const double *dy)
{
    ref_swiglu_backward(dx, dy, r->x, r->m, r->n);
}

static void f_loss(const struct reference *r, double *y, const double *x)
{
    ref_loss(y, NULL, x, r->target, 1, r->m, r->n);
}

static void g_loss(const struct reference *r, double *dx, const double *dy)
{
    double *loss = doubles(NULL, r->m);
    ref_loss(loss, dx, r->x, r->target, 1, r->m, r->n);
    for (int i = 0; i < r->m * r->n; i++)
        dx[i] *= dy[i / r->n];
    free(loss);
}

int main(void)
{
    struct reference r = {
        .m = 8, .n = 12, .t = 4, .h = 6, .k = 2, .e = 8, .target = {3, -1, 11, 0, 5, 5, -1, 7}};
    size_t nqkv = 8 * 10 * 8, nx = 8 * 24;
    check_in("references");
    r.x = random_doubles(nqkv);
    r.fixed = random_doubles(64);
    r.fixed2 = random_doubles(nqkv);
    check_gradient("norm", &r, f_norm, g_norm, 8 * 12, 8 * 12);
    check_gradient("norm gain", &r, f_norm_gain, g_norm_gain, 12, 8 * 12);
    check_gradient("attention", &r, f_attention, g_attention, nqkv, 8 * 48);
    check_gradient("swiglu", &r, f_swiglu, g_swiglu, nx, nx / 2);
    check_gradient("loss", &r, f_loss, g_loss, 8 * 12, 8);
    check_gradient("rope", &r, f_rope, g_rope, nqkv, nqkv);
    r.head_norm = true;
    check_gradient("rope and head norm", &r, f_rope, g_rope, nqkv, nqkv);
    free(r.x);
    free(r.fixed);
    free(r.fixed2);
    return check_report("gradients of references");
}

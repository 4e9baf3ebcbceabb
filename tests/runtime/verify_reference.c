/* verify_reference.c - the plain reference itself: its gradients against differences of its own
 * losses, its pieces against differences of themselves, its rounding against its definition. */
#include <math.h>

#include "reference.h"
#include "rt_check.h"
#include "verify.h"

static struct pcg32 source;

static void fill(double *x, int n)
{
    for (int i = 0; i < n; i++)
        x[i] = pcg32_normal(&source);
}

#define CHECK_NEAR(a, b, tolerance)                                                                \
    do {                                                                                           \
        double a_ = (a), b_ = (b);                                                                 \
        if (!(fabs(a_ - b_) <= (tolerance))) {                                                     \
            fprintf(stderr, "%s:%d: %.12g and %.12g\n", __FILE__, __LINE__, a_, b_);               \
            failures++;                                                                            \
        }                                                                                          \
    } while (0)

/* ---- pieces ------------------------------------------------------------------------------------
 */

enum { N = 24, KEYS = 7, E = 8 };

/* d of sum(weight f(x)) by central differences, against the analytic gradient. */
static double slope(double (*f)(const double *x, void *context), double *x, int i, void *context)
{
    const double h = 1e-5;
    double middle = x[i];
    x[i] = middle + h;
    double up = f(x, context);
    x[i] = middle - h;
    double down = f(x, context);
    x[i] = middle;
    return (up - down) / (2 * h);
}

struct norm_case {
    double gain[N], dy[N], x[N];
};

static double norm_of_x(const double *x, void *context)
{
    struct norm_case *c = context;
    double y[N];
    ref_norm(y, x, c->gain, 1e-3, N);
    return ref_dot(y, c->dy, N);
}

static double norm_of_gain(const double *gain, void *context)
{
    struct norm_case *c = context;
    double y[N];
    ref_norm(y, c->x, gain, 1e-3, N);
    return ref_dot(y, c->dy, N);
}

static void check_norm(void)
{
    struct norm_case c;
    double dx[N] = {0}, dgain[N] = {0};
    fill(c.gain, N), fill(c.dy, N), fill(c.x, N);
    ref_norm_backward(dx, dgain, c.dy, c.x, c.gain, 1e-3, N);
    for (int i = 0; i < N; i++) {
        CHECK_NEAR(dx[i], slope(norm_of_x, c.x, i, &c), 1e-8);
        CHECK_NEAR(dgain[i], slope(norm_of_gain, c.gain, i, &c), 1e-8);
    }
}

/* x holds q[E], k[KEYS][E], v[KEYS][E]. */
static double attend_of(const double *x, void *dout)
{
    double out[E], p[KEYS];
    ref_attend(out, p, x, x + E, x + E + KEYS * E, E, KEYS, E);
    return ref_dot(out, dout, E);
}

static void check_attend(void)
{
    enum { SIZE = E + 2 * KEYS * E };
    double x[SIZE], dout[E], d[SIZE] = {0}, p[KEYS], out[E];
    fill(x, SIZE), fill(dout, E);
    ref_attend_backward(d, d + E, d + E + KEYS * E, p, dout, x, x + E, x + E + KEYS * E, E, KEYS,
                        E);
    for (int i = 0; i < SIZE; i++)
        CHECK_NEAR(d[i], slope(attend_of, x, i, dout), 1e-8);
    /* Scores far beyond exp's range are still a softmax. */
    for (int i = 0; i < E; i++)
        x[i] *= 1e4;
    CHECK(isfinite(ref_attend(out, p, x, x + E, x + E + KEYS * E, E, KEYS, E)));
    for (int i = 0; i < E; i++)
        CHECK(isfinite(out[i]));
}

static double silu_of(const double *x, void *context)
{
    (void)context;
    return ref_silu(*x);
}

static double loss_of(const double *x, void *target)
{
    return ref_loss(x, N, *(int *)target, NULL, 0);
}

static void check_silu_and_loss(void)
{
    double logits[N], d[N];
    int target = 5;
    for (double x = -40; x <= 40; x += 0.37)
        CHECK_NEAR(ref_silu_slope(x), slope(silu_of, &x, 0, NULL), 1e-8);
    CHECK(ref_silu(-1e4) == 0 && ref_silu(1e4) == 1e4);
    fill(logits, N);
    ref_loss(logits, N, target, d, 1);
    for (int i = 0; i < N; i++)
        CHECK_NEAR(d[i], slope(loss_of, logits, i, &target), 1e-8);
}

static void check_rotation(void)
{
    double x[E], y[E], turn[E];
    struct archrt_arch a = {.head_dim = E, .rope_theta = 100};
    fill(x, E);
    memcpy(y, x, sizeof x);
    ref_turn(turn, &a, 3);
    CHECK_NEAR(turn[0], cos(3.0), 1e-15);
    CHECK_NEAR(turn[3], sin(3 * pow(100, -0.25)), 1e-15);
    ref_rotate(y, turn, E, false);
    CHECK_NEAR(ref_dot(x, x, E), ref_dot(y, y, E), 1e-12);
    ref_rotate(y, turn, E, true);
    for (int i = 0; i < E; i++)
        CHECK_NEAR(x[i], y[i], 1e-14);
}

static void check_rounding(void)
{
    float w[130];
    double out[130];
    const float exact[] = {1.0f, 1.00390625f, 1.01171875f, -3.0f, 0.0f, 1.005f};
    const double bf16[] = {1.0, 1.0, 1.015625, -3.0, 0.0, 1.0078125}; /* ties to even */
    ref_round(out, exact, 6, ARCHRT_BF16);
    for (int i = 0; i < 6; i++)
        CHECK_NEAR(out[i], bf16[i], 0);
    ref_round(out, exact, 6, ARCHRT_F32);
    CHECK(out[5] == (double)1.005f);
    for (int i = 0; i < 130; i++)
        w[i] = i < 64 ? (float)(i - 32) : i < 128 ? 0 : 1e-3f; /* blocks of 64, 64 and 2 */
    ref_round(out, w, 130, ARCHRT_I8);
    double step = (double)(32.0f / 127);
    for (int i = 0; i < 64; i++) {
        CHECK_NEAR(out[i] / step, nearbyint(out[i] / step), 1e-6);
        CHECK_NEAR(out[i], (double)w[i], step / 2 * 1.001);
    }
    CHECK(out[100] == 0);
    CHECK_NEAR(out[129], 1e-3, 1e-9);
}

static void check_adamw(void)
{
    double p = 1, m = 0, v = 0;
    struct ref_adamw s = {0.1, 0.9, 0.95, 1e-8, 0.5, 2, 0.1, 0.05};
    ref_adamw_step(&p, &m, &v, 3, &s, true);
    /* The first step moves by lr against the gradient's sign, after the decay. */
    CHECK_NEAR(p, 1 - 0.1 * 0.5 - 0.1, 1e-9);
    CHECK_NEAR(m, 0.6, 1e-12);
    CHECK_NEAR(v, 1.8, 1e-12);
}

/* ---- the whole model ---------------------------------------------------------------------------
 */

static void check_model(float *params, enum archrt_dtype rounding)
{
    enum { T = 11 };
    size_t n = archrt_model.param_floats;
    double loss[T], *grads = need(calloc(n, sizeof *grads));
    int32_t token[T], target[T];
    struct reference *r;
    struct failure f;
    if (!reference_open(&r, &archrt_model, params, rounding, &f))
        exit(failure_report(&f));
    for (int t = 0; t < T; t++) {
        token[t] = (int32_t)(pcg32_next(&source) % (uint32_t)archrt_model.arch.vocab);
        target[t] =
            t == 4 ? -1 : (int32_t)(pcg32_next(&source) % (uint32_t)archrt_model.arch.vocab);
    }
    CHECK(reference_backward(r, token, target, T, 0.25, loss, grads, &f));
    CHECK(loss[4] == 0);
    for (uint64_t seed = 0; seed < 6; seed++) {
        const double h = 1e-4;
        double along = 0, size = 0, sum[2] = {0};
        for (size_t i = 0; i < n; i++) {
            double term = grads[i] * reference_direction(r, seed, i);
            along += term;
            size += term * term;
        }
        for (int side = 0; side < 2; side++) {
            reference_move(r, seed, side ? -h : h);
            CHECK(reference_forward(r, token, target, T, loss, NULL, &f));
            for (int t = 0; t < T; t++)
                sum[side] += 0.25 * loss[t];
        }
        reference_move(r, 0, 0);
        CHECK_NEAR(along, (sum[0] - sum[1]) / (2 * h), 1e-6 * sqrt(size));
    }
    /* Later tokens do not reach back. */
    double first[T], again[T];
    CHECK(reference_forward(r, token, target, T, first, NULL, &f));
    token[T - 1] = (token[T - 1] + 1) % archrt_model.arch.vocab;
    CHECK(reference_forward(r, token, target, T, again, NULL, &f));
    CHECK(memcmp(first, again, (T - 1) * sizeof *first) == 0 && first[T - 1] != again[T - 1]);
    reference_close(r);
    free(grads);
}

static void check_missing_tensor(const float *params)
{
    struct archrt_model broken = archrt_model;
    struct archrt_tensor *tensors = need(malloc((size_t)broken.n_tensors * sizeof *tensors));
    struct reference *r;
    struct failure f = {0};
    memcpy(tensors, archrt_model.tensors, (size_t)broken.n_tensors * sizeof *tensors);
    broken.tensors = tensors;
    for (int i = 0; i < broken.n_tensors; i++) {
        struct archrt_tensor kept = tensors[i];
        tensors[i].name = "another";
        CHECK(!reference_open(&r, &broken, params, ARCHRT_F32, &f) && strstr(f.text, kept.name));
        tensors[i] = kept;
        tensors[i].shape[0]++;
        CHECK(!reference_open(&r, &broken, params, ARCHRT_F32, &f) && strstr(f.text, kept.name));
        tensors[i] = kept;
    }
    free(tensors);
}

int main(void)
{
    size_t bytes = archrt_model.param_floats * sizeof(float);
    float *params = need(malloc(bytes));
    pcg32_seed(&source, 42, 1);
    team_start(archrt_model.threads);
    check_norm();
    check_attend();
    check_silu_and_loss();
    check_rotation();
    check_rounding();
    check_adamw();
    verify_params(&archrt_model, params, 7);
    check_model(params, ARCHRT_F32);
    check_model(params, ARCHRT_BF16);
    check_missing_tensor(params);
    team_stop();
    free(params);
    if (failures)
        fprintf(stderr, "%d checks failed\n", failures);
    return failures != 0;
}

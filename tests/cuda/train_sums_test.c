/* train_sums_test.c - embed_backward.cu, norm_backward.cu, sum_squares.cu and adamw.cu against
 * fp64, with run-time shapes and with constants. */
#include <string.h>

#include "kernel_test.h"

#define CUDA_SMS 2
#define CUDA_ARCH 90

static int shape_m, shape_n, shape_v;
static i64 shape_params, shape_decayed, shape_table;

#define VOCAB ((u32)shape_v)
#define KERNEL embed_any
#define EMBED_M shape_m
#define EMBED_D shape_n
#include "embed_backward.cu"
#undef VOCAB
#define VOCAB 1000u
#define KERNEL embed_set
#define EMBED_M 300
#define EMBED_D 72
#include "embed_backward.cu"
#undef VOCAB
#define VOCAB ((u32)shape_v) /* for launches */

#define KERNEL norm_add_any
#define NORM_M shape_m
#define NORM_D shape_n
#define NORM_EPS 1e-5f
#define NORM_ACCUMULATE 1
#define NORM_IN_PLACE 0
#define NORM_FACTOR 0
#include "norm_backward.cu"
#define KERNEL norm_any
#define NORM_M shape_m
#define NORM_D shape_n
#define NORM_EPS 1e-5f
#define NORM_ACCUMULATE 0
#define NORM_IN_PLACE 0
#define NORM_FACTOR 1
#include "norm_backward.cu"
#define KERNEL norm_in_place
#define NORM_M shape_m
#define NORM_D shape_n
#define NORM_EPS 1e-5f
#define NORM_ACCUMULATE 0
#define NORM_IN_PLACE 1
#define NORM_FACTOR 0
#include "norm_backward.cu"
#define KERNEL norm_add_set
#define NORM_M 21
#define NORM_D 2304
#define NORM_EPS 1e-5f
#define NORM_ACCUMULATE 1
#define NORM_IN_PLACE 0
#define NORM_FACTOR 0
#include "norm_backward.cu"

#define KERNEL sum_any
#define SUM_N shape_params
#include "sum_squares.cu"
#define KERNEL sum_set
#define SUM_N 100000
#include "sum_squares.cu"

#define KERNEL adam_any
#define ADAM_N shape_params
#define ADAM_DECAYED shape_decayed
#define ADAM_TABLE shape_table
#include "adamw.cu"
#define KERNEL adam_set
#define ADAM_N 10000
#define ADAM_DECAYED 9992
#define ADAM_TABLE 4096
#include "adamw.cu"

/* ---- embed_backward ---- */

/* `common`: every so many rows have token 7; distinct tokens are V at most. */
HOST_CODE static int embed_backward(emu_kernel *one, emu_kernel *two, int common)
{
    char what[64];
    struct test_error e = {0, 0, 0, 0};
    const int m = shape_m, d = shape_n, v = shape_v;
    float *table = test_floats("dtable", (size_t)v * d, 1),
          *dx = test_floats("dx", (size_t)m * d, 1);
    int *token = emu_alloc("token", sizeof(int) * (size_t)m);
    float *want = malloc(sizeof(float) * (size_t)v * d);
    void *scratch = emu_alloc("scratch", EMBED_BACKWARD_SCRATCH(m, d, 0));
    memcpy(want, table, sizeof(float) * (size_t)v * d);
    for (int i = 0; i < m; i++) {
        token[i] = (int)((u32)(i * 2654435761u) >> 8) % v;
        if (i % common == 0)
            token[i] = 7 % v;
    }
    emu_mark(token, sizeof(int) * (size_t)m);
    for (int i = 0; i < m; i++) /* this very order: equal to the last bit */
        for (int j = 0; j < d; j++)
            want[(size_t)token[i] * d + j] += dx[i * d + j];
    const struct emu_launch launch = {"embed_backward", one,
                                      EMBED_BACKWARD_LAUNCH((u32)m, (u32)d, 0), false, NULL};
    const struct emu_launch launch_2 = {"embed_backward_2", two,
                                        EMBED_BACKWARD_LAUNCH_2((u32)m, (u32)d, 0), false, NULL};
    EMU_RUN(&launch, table, dx, token, scratch);
    EMU_RUN(&launch_2, table, dx, token, scratch);
    for (size_t i = 0; i < (size_t)v * d; i++)
        test_compare(&e, i, table[i], want[i], 1e-30, 0);
    snprintf(what, sizeof(what), "embed_backward of %d rows of %d, %d tokens", m, d, v);
    int bad = test_verdict(&e, what);
    free(want);
    emu_free_all();
    return bad;
}

/* ---- norm_backward ---- */

/* dx of one row; dgain and the size of its terms are added up. */
HOST_CODE static void norm_row(double *dx, double *dgain, double *sizes, const double *dy,
                               const float *x, double r, const float *gain, int d)
{
    double mean = 0;
    for (int j = 0; j < d; j++) {
        const double g = dy[j];
        mean += g * gain[j] * x[j] / d;
        dgain[j] += g * x[j] * r;
        sizes[j] += fabs(g * x[j] * r);
    }
    for (int j = 0; j < d; j++)
        dx[j] = r * (dy[j] * (double)gain[j] - x[j] * r * r * mean);
}

/* What dx holds before: nothing, and dy lacks a factor of each row; what is added to; dy. */
enum norm_dx { NORM_NOTHING, NORM_ADDED_TO, NORM_DY };

HOST_CODE static int norm_backward(emu_kernel *one, emu_kernel *two, enum norm_dx first)
{
    char what[64];
    struct test_error e = {0, 0, 0, 0}, e16 = e, gains = e;
    const int m = shape_m, d = shape_n;
    const size_t n = (size_t)m * d, columns = sizeof(double) * (size_t)d;
    float *x = test_floats("x", n, 3), *gain = test_floats("gain", (size_t)d, 1);
    bf16 *dy = first == NORM_DY ? NULL : test_bf16s("dy", n, 1);
    bf16 *dx16 = emu_alloc("dx16", sizeof(bf16) * n);
    float *dx =
        first == NORM_NOTHING ? emu_alloc("dx", sizeof(float) * n) : test_floats("dx", n, 1);
    float *dgain = test_floats("dgain", (size_t)d, 1), *before = malloc(sizeof(float) * n);
    float *rstd = emu_alloc("rstd", sizeof(float) * (size_t)m);
    float *factor = first == NORM_NOTHING ? test_floats("factor", (size_t)m, 1) : NULL;
    void *scratch = emu_alloc("scratch", NORM_BACKWARD_SCRATCH((u32)m, (u32)d, 0));
    double *row = malloc(columns), *sums = malloc(columns), *sizes = calloc(1, columns);
    double *dy_row = malloc(columns);
    memcpy(before, dx, sizeof(float) * n);
    for (int j = 0; j < d; j++)
        sums[j] = dgain[j];
    for (int i = 0; i < m; i++) {
        double sum = 0;
        for (int j = 0; j < d; j++)
            sum += (double)x[i * d + j] * x[i * d + j];
        rstd[i] = (float)(1 / sqrt(sum / d + 1e-5));
    }
    emu_mark(rstd, sizeof(float) * (size_t)m);
    const struct emu_launch launch = {"norm_backward", one, NORM_BACKWARD_LAUNCH((u32)m, (u32)d, 0),
                                      false, NULL};
    const struct emu_launch launch_2 = {"norm_backward_2", two,
                                        NORM_BACKWARD_LAUNCH_2((u32)m, (u32)d, 0), false, NULL};
    EMU_RUN(&launch, dx, dx16, dgain, dy, x, rstd, gain, factor, scratch);
    EMU_RUN(&launch_2, dx, dx16, dgain, dy, x, rstd, gain, factor, scratch);
    for (int i = 0; i < m; i++) {
        for (int j = 0; j < d; j++)
            dy_row[j] = (dy ? f32_from_bf16(dy[(size_t)i * d + j]) : before[(size_t)i * d + j]) *
                        (factor ? (double)factor[i] : 1);
        norm_row(row, sums, sizes, dy_row, x + (size_t)i * d, rstd[i], gain, d);
        for (int j = 0; j < d; j++) {
            const size_t at = (size_t)i * d + j;
            test_compare(&e, at, dx[at], row[j] + (first == NORM_ADDED_TO ? before[at] : 0), 3e-6,
                         0);
            test_compare(&e16, at, f32_from_bf16(dx16[at]), dx[at], 0, 1.0 / 256);
        }
    }
    for (int j = 0; j < d; j++)
        test_compare(&gains, (size_t)j, dgain[j], sums[j], 1e-6 * (1 + sizes[j]), 0);
    snprintf(what, sizeof(what), "norm_backward of %d rows of %d", m, d);
    int bad = test_verdict(&e, what) | test_verdict(&e16, what) | test_verdict(&gains, what);
    free(before);
    free(row);
    free(dy_row);
    free(sums);
    free(sizes);
    emu_free_all();
    return bad;
}

/* ---- sum_squares ---- */

/* clip 0: none. `scale` takes squares past fp32 where it is large. */
HOST_CODE static int sum_squares(emu_kernel *one, emu_kernel *two, float scale, float clip,
                                 float poison)
{
    char what[64];
    struct test_error e = {0, 0, 0, 0};
    const i64 n = shape_params;
    struct cuda_train host = {.clip = clip}, *train = emu_alloc("train", sizeof(host));
    float *grads = test_floats("grads", (size_t)n, scale);
    void *scratch = emu_alloc("scratch", SUM_SQUARES_SCRATCH(1, n, 0));
    double sum = 0;
    if (poison != 0)
        grads[n / 2] = poison;
    for (i64 i = 0; i < n; i++)
        sum += (double)grads[i] * grads[i];
    emu_write(train, &host, sizeof(host));
    const struct emu_launch launch = {
        "sum_squares", one, {(u32)SUM_BLOCKS(n), 1, 1}, SUM_THREADS, SUM_THREADS * 8, false, NULL};
    const struct emu_launch launch_2 = {"sum_squares_2", two, SUM_SQUARES_LAUNCH_2(1, n, 0), false,
                                        NULL};
    EMU_RUN(&launch, train, grads, scratch);
    EMU_RUN(&launch_2, train, grads, scratch);
    const double norm = sqrt(sum);
    const bool finite = norm <= 3.4e38;
    if (finite)
        test_compare(&e, 0, train->norm, norm, 0, 2e-7);
    test_compare(&e, 1, train->factor,
                 !finite                   ? 0
                 : clip > 0 && norm > clip ? clip / norm
                                           : 1,
                 1e-30, 4e-7);
    snprintf(what, sizeof(what), "sum_squares of %lld floats of %g", (long long)n, (double)scale);
    int bad = test_verdict(&e, what);
    if (!finite && train->factor != 0) {
        printf("%s: factor %g of a norm that is not finite\n", what, (double)train->factor);
        bad = 1;
    }
    emu_free_all();
    return bad;
}

/* ---- adamw ---- */

/* What is fp64 of the same formula; returns the change of p. */
HOST_CODE static double adam_one(const struct cuda_train *t, bool decayed, double p, double *m,
                                 double *v, double grad)
{
    const double g = grad * t->factor;
    *m = *m * t->beta1 + g * (1 - t->beta1);
    *v = *v * t->beta2 + g * g * (1 - t->beta2);
    const double root = sqrt(*v / t->correction2) + t->eps;
    return -t->lr * (*m / t->correction1 / root + (decayed ? t->weight_decay : 0) * p);
}

HOST_CODE static int adamw(emu_kernel *kernel, float factor)
{
    char what[64];
    struct test_error e = {0, 0, 0, 0}, moments = e, copies = e;
    const size_t n = (size_t)shape_params, decayed = (size_t)shape_decayed,
                 table = (size_t)shape_table, bytes = n * sizeof(float);
    struct cuda_train host = {.factor = factor,
                              .lr = 1e-3f,
                              .beta1 = 0.9f,
                              .beta2 = 0.95f,
                              .eps = 1e-8f,
                              .weight_decay = 0.1f,
                              .correction1 = 0.19f,
                              .correction2 = 0.0975f};
    struct cuda_train *train = emu_alloc("train", sizeof(host));
    float *p = test_floats("params", n, 1), *grads = test_floats("grads", n, 0.01f);
    float *m = test_floats("m", n, 0.01f), *v = test_floats("v", n, 0.001f);
    bf16 *weights = emu_alloc("weights", decayed * sizeof(bf16) + 2); /* one more, for nobody */
    float *old[] = {malloc(bytes), malloc(bytes), malloc(bytes), malloc(bytes)};
    float *const now[] = {p, m, v, grads};
    for (size_t i = 0; i < n; i++)
        v[i] = fabsf(v[i]);
    for (int i = 0; i < 4; i++)
        memcpy(old[i], now[i], bytes);
    if (factor == 0) /* what made the norm infinite must not spread */
        grads[3] = INFINITY;
    emu_write(train, &host, sizeof(host));
    const struct emu_launch launch = {"adamw", kernel, ADAMW_LAUNCH(1, (u32)n, 0), false, NULL};
    EMU_RUN(&launch, p, weights, grads, m, v, train);
    for (size_t i = 0; i < n; i++) {
        double m1 = old[1][i], v1 = old[2][i];
        double change = adam_one(&host, i < decayed, old[0][i], &m1, &v1, old[3][i]);
        if (factor == 0)
            change = 0, m1 = old[1][i], v1 = old[2][i];
        test_compare(&e, i, p[i], old[0][i] + change, 1e-6 * fabs(change) + 1e-30,
                     factor == 0 ? 0 : 1e-7);
        test_compare(&moments, i, m[i], m1, factor == 0 ? 1e-30 : 1e-9, factor == 0 ? 0 : 2e-7);
        test_compare(&moments, i, v[i], v1, factor == 0 ? 1e-30 : 1e-12, factor == 0 ? 0 : 2e-7);
        const bool cleared = i < table || i >= decayed; /* what others add to */
        const float left = cleared ? 0 : factor == 0 && i == 3 ? INFINITY : old[3][i];
        if (grads[i] != left)
            test_compare(&moments, i, 0, 1, 0, 0);
        if (i < decayed && factor != 0)
            test_compare(&copies, i, f32_from_bf16(weights[i]), p[i], 0, 1.0 / 256);
        if (i < decayed && factor == 0 && weights[i] != 0xffff)
            test_compare(&copies, i, 0, 1, 0, 0);
    }
    if (weights[decayed] != 0xffff)
        test_compare(&copies, decayed, 0, 1, 0, 0);
    snprintf(what, sizeof(what), "adamw of %zu floats, factor %g", n, (double)factor);
    int bad = test_verdict(&e, what) | test_verdict(&moments, what) | test_verdict(&copies, what);
    for (int i = 0; i < 4; i++)
        free(old[i]);
    emu_free_all();
    return bad;
}

HOST_CODE static int update(void)
{
    static const i64 sizes[] = {4, 1000, 4096, 50000};
    emu_kernel *one = (emu_kernel *)sum_any, *two = (emu_kernel *)sum_any_2;
    int bad = 0;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        shape_params = sizes[i];
        shape_decayed = sizes[i] / 8 * 4;
        shape_table = i % 2 ? sizes[i] / 16 * 4 : 0;
        bad |= sum_squares(one, two, 1, 0, 0) | sum_squares(one, two, 1, 1, 0);
        bad |= sum_squares(one, two, 1e25f, 1, 0) | sum_squares(one, two, 1e-25f, 1, 0);
        bad |= sum_squares(one, two, 1, 1, NAN) | sum_squares(one, two, 1, 0, INFINITY);
        bad |= adamw((emu_kernel *)adam_any, 1) | adamw((emu_kernel *)adam_any, 0.25f);
        bad |= adamw((emu_kernel *)adam_any, 0);
    }
    shape_params = 100000;
    bad |= sum_squares((emu_kernel *)sum_set, (emu_kernel *)sum_set_2, 0.1f, 1, 0);
    shape_params = 10000;
    shape_decayed = 9992;
    shape_table = 4096;
    return bad | adamw((emu_kernel *)adam_set, 0.5f);
}

HOST_CODE int main(void)
{
    static const int embeds[][4] = {
        {1, 8, 3, 1}, {37, 24, 5, 2}, {64, 40, 100000, 3}, {513, 1032, 40, 4}, {200, 8, 7, 1}};
    static const int norms[][2] = {{1, 8}, {5, 24}, {19, 320}, {11, 1032}, {9, 4096}, {3, 20000}};
    int bad = 0;
    for (u32 i = 0; i < sizeof(embeds) / sizeof(embeds[0]); i++) {
        shape_m = embeds[i][0];
        shape_n = embeds[i][1];
        shape_v = embeds[i][2];
        emu_seed(i);
        bad |= embed_backward((emu_kernel *)embed_any, (emu_kernel *)embed_any_2, embeds[i][3]);
    }
    shape_m = 300;
    shape_n = 72;
    shape_v = 1000;
    bad |= embed_backward((emu_kernel *)embed_set, (emu_kernel *)embed_set_2, 3);
    for (u32 i = 0; i < sizeof(norms) / sizeof(norms[0]); i++) {
        shape_m = norms[i][0];
        shape_n = norms[i][1];
        emu_seed(i);
        bad |=
            norm_backward((emu_kernel *)norm_add_any, (emu_kernel *)norm_add_any_2, NORM_ADDED_TO);
        bad |= norm_backward((emu_kernel *)norm_any, (emu_kernel *)norm_any_2, NORM_NOTHING);
        bad |= norm_backward((emu_kernel *)norm_in_place, (emu_kernel *)norm_in_place_2, NORM_DY);
    }
    shape_m = 21;
    shape_n = 2304;
    bad |= norm_backward((emu_kernel *)norm_add_set, (emu_kernel *)norm_add_set_2, NORM_ADDED_TO);
    return bad | update();
}

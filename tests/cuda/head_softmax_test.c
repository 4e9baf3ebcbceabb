/* head_softmax_test.c - head_softmax.cu against fp64: losses, gradients of logits as powers times a
 * factor, and what products make of them; odd vocabularies, padding, rows without a target, rows
 * whose target is e^-40 and less, alone, in one tile of rows of several, everywhere. */
#include "head_test.h"

#ifndef CUDA_ARCH
#define CUDA_ARCH 90
#endif
#define CUDA_SMS 3
#define HEADS 1
#define KV_HEADS 1
#define HEAD_DIM 64
#define SEGMENTS 1
#include "archrt_cuda.h"
#include "launch.h"

static int run_m, run_n, run_k, run_tokens;

/* Tiles as the shape wants them. */
#define KERNEL special
#define MM_M 70
#define MM_N 624
#define MM_K 328
#define MM_TOKENS 611
#include "head_softmax.cu"

HOST_CODE static u32 special_wide(void)
{
    return PRODUCT_COLUMNS(70, 624);
}

/* Shapes read at run time: tiles of each width. */
#undef PRODUCT_WIDE
#define PRODUCT_WIDE(rows, columns) 256
#define KERNEL any_256
#define MM_M run_m
#define MM_N run_n
#define MM_K run_k
#define MM_TOKENS run_tokens
#include "head_softmax.cu"
#undef PRODUCT_WIDE
#define PRODUCT_WIDE(rows, columns) 192
#define KERNEL any_192
#define MM_M run_m
#define MM_N run_n
#define MM_K run_k
#define MM_TOKENS run_tokens
#include "head_softmax.cu"
#undef PRODUCT_WIDE
#define PRODUCT_WIDE(rows, columns) 128
#define KERNEL any_128
#define MM_M run_m
#define MM_N run_n
#define MM_K run_k
#define MM_TOKENS run_tokens
#include "head_softmax.cu"

/* Of the kernel that is launched. */
static u32 run_wide;
#undef PRODUCT_WIDE
#define PRODUCT_WIDE(rows, columns) run_wide

enum { PASSES = 5 };
struct kernels {
    emu_kernel *pass[PASSES];
    u32 wide;
};
#define OF(name)                                                                                   \
    {                                                                                              \
        (emu_kernel *)name, (emu_kernel *)name##_2, (emu_kernel *)name##_3,                        \
            (emu_kernel *)name##_4, (emu_kernel *)name##_5                                         \
    }
static const struct kernels of_width[] = {
    {OF(any_256), 256}, {OF(any_192), 192}, {OF(any_128), 128}};

/* What the kernel writes. */
struct outputs {
    float *loss, *factor;
    bf16 *e, *scaled;
};

/* The first power, where the first rows have none that is far: pass 4 must not make it again. */
static const bf16 left_alone = 0x1234;

HOST_CODE static bf16 *untouched(const struct outputs *o, struct far_rows far)
{
    return far.each && far.from < PRODUCT_ROWS ? NULL : o->e;
}

/* All passes; `x` stands twice among the operands, as `w` does. */
HOST_CODE static int run_passes(const struct kernels *k, const struct data *d,
                                const struct outputs *o, struct far_rows far)
{
    const u32 m = (u32)d->s->m, n = (u32)d->n, c = (u32)d->s->k;
    run_wide = k->wide;
    void *scratch = emu_alloc("scratch", HEAD_SOFTMAX_SCRATCH(m, n, c));
    const struct cuda_maps maps = HEAD_SOFTMAX_MAPS(m, n, c);
    void *operands[] = {o->loss, o->e, o->factor, o->scaled, d->x,   d->w,
                        d->x,    d->w, d->target, d->train,  scratch};
    test_maps(&maps, operands);
    const struct emu_launch launches[] = {
        {"head_softmax", k->pass[0], HEAD_SOFTMAX_LAUNCH(m, n, c), false, NULL},
        {"head_softmax_2", k->pass[1], HEAD_SOFTMAX_LAUNCH_2(m, n, c), false, NULL},
        {"head_softmax_3", k->pass[2], HEAD_SOFTMAX_LAUNCH_3(m, n, c), false, NULL},
        {"head_softmax_4", k->pass[3], HEAD_SOFTMAX_LAUNCH_4(m, n, c), false, NULL},
        {"head_softmax_5", k->pass[4], HEAD_SOFTMAX_LAUNCH_5(m, n, c), false, NULL}};
    bf16 *left = untouched(o, far), before = 0;
    int bad = 0;
    for (int i = 0; i < PASSES; i++) {
        if (i == 3 && left) {
            before = *left;
            *left = left_alone;
        }
        emu_run(&launches[i], operands, 11);
    }
    if (left && *left != left_alone) {
        printf("tiles without far rows were made again\n");
        bad = 1;
    }
    if (left)
        *left = before;
    return bad;
}

/* (softmax - onehot) grad_scale; of a target less 1, what the others are. */
HOST_CODE static double gradient(const struct data *d, int row, int token)
{
    const double *z = d->z + (size_t)row * d->s->tokens;
    double sum = 0;
    if (d->target[row] < 0 || token >= d->s->tokens)
        return 0;
    if (token != d->target[row])
        return exp(z[token] - d->top[row]) / d->sum[row] * (double)grad_scale;
    for (int t = 0; t < d->s->tokens; t++)
        sum += t == token ? 0 : exp(z[t] - d->top[row]) / d->sum[row];
    return -sum * (double)grad_scale;
}

/* Loss: fp32's rounding of a few steps, and of logits as large as `size`. Gradients: a power is
 * rounded to bf16, by 2^-8 of itself at most; logits' own rounding, k terms in fp32, moves it by as
 * much of itself. A target's is a difference of numbers up to 1 in fp32. */
HOST_CODE static int check_rows(const struct data *d, const struct outputs *o)
{
    const struct shape *s = d->s;
    struct test_error loss = {0, 0, 0, 0}, e = loss, scaled = loss;
    for (int i = 0; i < s->m; i++) {
        double size = 0;
        for (int t = 0; t < s->tokens; t++)
            size = fmax(size, fabs(d->z[(size_t)i * s->tokens + t]));
        const double moved = size * ldexp(1, -22), f = o->factor[i];
        test_compare(&loss, (size_t)i, o->loss[i], d->loss[i],
                     d->target[i] < 0 ? 1e-30 : 2e-6 + moved, 1e-6);
        for (int t = 0; t < d->n; t++) {
            const double want = gradient(d, i, t);
            test_compare(&e, (size_t)i * d->n + t, f * f32_from_bf16(o->e[(size_t)i * d->n + t]),
                         want, t == d->target[i] ? 1e-7 : 1e-30, ldexp(1.02, -8) + moved + 2e-6);
        }
        for (int c = 0; c < s->k; c++) {
            const size_t at = (size_t)i * s->k + c;
            test_compare(&scaled, at, f32_from_bf16(o->scaled[at]), f * f32_from_bf16(d->x[at]),
                         1e-37, ldexp(1.0001, -8));
        }
    }
    return test_verdict(&loss, "loss") | test_verdict(&e, "gradients") |
           test_verdict(&scaled, "scaled rows");
}

/* dw = e^T scaled and dx = factor (e w), added up in fp64: each term has the rounding of a power,
 * and of dw that of an element of `scaled` too. Logits' own rounding: of the largest. */
HOST_CODE static int check_products(const struct data *d, const struct outputs *o)
{
    const struct shape *s = d->s;
    struct test_error dw = {0, 0, 0, 0}, dx = dw;
    double most = 0, *want = malloc(sizeof(double) * (size_t)s->m * d->n);
    for (int i = 0; i < s->m * s->tokens; i++)
        most = fmax(most, fabs(d->z[i]));
    const double one = ldexp(1.02, -8) + most * ldexp(1, -22) + 2e-6;
    for (int i = 0; i < s->m; i++)
        for (int t = 0; t < d->n; t++)
            want[(size_t)i * d->n + t] = gradient(d, i, t);
    for (int t = 0; t < d->n; t++)
        for (int c = 0; c < s->k; c += 1 + s->k / 24) {
            double sum = 0, exact = 0, size = 1e-30;
            for (int i = 0; i < s->m; i++) {
                const double x = f32_from_bf16(d->x[i * s->k + c]);
                const double term = want[(size_t)i * d->n + t] * x;
                sum += (double)f32_from_bf16(o->e[(size_t)i * d->n + t]) *
                       f32_from_bf16(o->scaled[i * s->k + c]);
                exact += term;
                size +=
                    fabs(term) * (one + ldexp(1.02, -8)) + (t == d->target[i] ? 1e-7 * fabs(x) : 0);
            }
            test_compare(&dw, (size_t)t * s->k + c, sum, exact, size, 0);
        }
    for (int i = 0; i < s->m; i++)
        for (int c = 0; c < s->k; c += 1 + s->k / 24) {
            double sum = 0, exact = 0, size = 1e-30;
            for (int t = 0; t < d->n; t++) {
                const double w = f32_from_bf16(d->w[(size_t)t * s->k + c]);
                const double term = want[(size_t)i * d->n + t] * w;
                sum += o->factor[i] * (double)f32_from_bf16(o->e[(size_t)i * d->n + t]) * w;
                exact += term;
                size += fabs(term) * one + (t == d->target[i] ? 1e-7 * fabs(w) : 0);
            }
            test_compare(&dx, (size_t)i * s->k + c, sum, exact, size, 0);
        }
    free(want);
    return test_verdict(&dw, "dw") | test_verdict(&dx, "dx");
}

/* How many rows are far in fact; what pass 4 is there for. */
HOST_CODE static int far_targets(const struct data *d)
{
    int n = 0;
    for (int i = 0; i < d->s->m; i++)
        n += d->loss[i] > 41;
    return n;
}

HOST_CODE static int run(const struct kernels *k, const struct shape *s, struct far_rows far)
{
    struct data d;
    struct outputs o;
    run_m = s->m;
    run_n = s->pieces * s->piece;
    run_k = s->k;
    run_tokens = s->tokens;
    make(&d, s, far);
    o.loss = emu_alloc("loss", 4 * (size_t)s->m);
    o.factor = emu_alloc("factor", 4 * (size_t)s->m);
    o.e = emu_alloc("e", 2 * (size_t)s->m * d.n);
    o.scaled = emu_alloc("scaled", 2 * (size_t)s->m * s->k);
    int bad = run_passes(k, &d, &o, far) | check_rows(&d, &o) | check_products(&d, &o);
    if (far.each && s->tokens > 1 && far_targets(&d) == 0) {
        printf("no row is far\n");
        bad = 1;
    }
    if (bad)
        printf("m %d, %d tokens of %d, k %d, tiles %u wide, far each %d from %d\n", s->m, s->tokens,
               d.n, s->k, k->wide, far.each, far.from);
    drop(&d);
    return bad;
}

/* Numbers that are none stay so, in their own row. */
HOST_CODE static int not_finite(const struct kernels *k, const struct shape *s)
{
    struct data d;
    struct outputs o;
    run_m = s->m;
    run_n = s->pieces * s->piece;
    run_k = s->k;
    run_tokens = s->tokens;
    make(&d, s, (struct far_rows){0, 0});
    d.x[2 * s->k] = 0x7fc0;            /* NaN */
    d.x[3 * s->k + s->k - 1] = 0x7f80; /* infinity */
    o.loss = emu_alloc("loss", 4 * (size_t)s->m);
    o.factor = emu_alloc("factor", 4 * (size_t)s->m);
    o.e = emu_alloc("e", 2 * (size_t)s->m * d.n);
    o.scaled = emu_alloc("scaled", 2 * (size_t)s->m * s->k);
    int bad = run_passes(k, &d, &o, (struct far_rows){0, 1});
    for (int i = 0; i < s->m; i++)
        if (!(fabsf(o.loss[i]) < 1e30f) != (i == 2 || i == 3)) {
            printf("loss %d is %g\n", i, (double)o.loss[i]);
            bad = 1;
        }
    drop(&d);
    return bad;
}

HOST_CODE int main(void)
{
    /* Less than a tile and tiles and a rest, of rows and of columns; tiles of padding alone; a
     * vocabulary of one token. */
    static const struct {
        struct shape shape;
        struct far_rows far;
    } cases[] = {{{1, 1, 1, 8, 8}, {0, 0}},         {{5, 29, 2, 16, 24}, {0, 1}},
                 {{130, 333, 2, 168, 40}, {0, 0}},  {{33, 1100, 3, 368, 72}, {0, 3}},
                 {{64, 256, 3, 128, 64}, {0, 1}},   {{300, 97, 1, 104, 16}, {140, 7}},
                 {{150, 270, 2, 136, 32}, {148, 1}}};
    static const struct shape odd = {9, 41, 1, 48, 16}, set_shape = {70, 611, 2, 312, 328};
    const struct kernels set = {OF(special), special_wide()};
    int bad = 0;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t w = 0; w < (PRODUCT_WGMMA ? 3 : 1); w++) {
            emu_seed((u32)(i + w) + 1);
            bad |= run(&of_width[w], &cases[i].shape, cases[i].far);
        }
    bad |= run(&set, &set_shape, (struct far_rows){0, 6});
    bad |= not_finite(&of_width[0], &odd);
    return bad;
}

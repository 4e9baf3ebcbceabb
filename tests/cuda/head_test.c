/* head_test.c - head_loss.cu and head_gradient.cu, with the products that carry the gradients on,
 * against fp64: odd vocabularies, padding, rows without a target, fewer rows than the most, pieces
 * of the vocabulary. */
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

static int run_m, run_n, run_k, run_piece, run_tokens;

/* Tiles as the shape wants them. */
#define KERNEL loss_special
#define MM_M 70
#define MM_N 624
#define MM_K 72
#define MM_TOKENS 611
#include "head_loss.cu"
#define KERNEL gradient_special
#define MM_M 70
#define MM_N 312
#define MM_K 72
#define MM_TOKENS 611
#include "head_gradient.cu"

HOST_CODE static u32 special_wide(u32 columns)
{
    return PRODUCT_COLUMNS(70, columns);
}

/* Shapes read at run time: tiles of each width. */
#undef PRODUCT_WIDE
#define PRODUCT_WIDE(rows, columns) 256
#define KERNEL loss_256
#define MM_M run_m
#define MM_N run_n
#define MM_K run_k
#define MM_TOKENS run_tokens
#include "head_loss.cu"
#define KERNEL gradient_256
#define MM_M run_m
#define MM_N run_piece
#define MM_K run_k
#define MM_TOKENS run_tokens
#include "head_gradient.cu"
#define KERNEL dx_256
#define MM_M run_m
#define MM_N run_piece
#define MM_K run_k
#define MM_ACCUMULATE 1
#include "matmul_dx.cu"
#undef PRODUCT_WIDE
#define PRODUCT_WIDE(rows, columns) 192
#define KERNEL loss_192
#define MM_M run_m
#define MM_N run_n
#define MM_K run_k
#define MM_TOKENS run_tokens
#include "head_loss.cu"
#define KERNEL gradient_192
#define MM_M run_m
#define MM_N run_piece
#define MM_K run_k
#define MM_TOKENS run_tokens
#include "head_gradient.cu"
#define KERNEL dx_192
#define MM_M run_m
#define MM_N run_piece
#define MM_K run_k
#define MM_ACCUMULATE 1
#include "matmul_dx.cu"
#undef PRODUCT_WIDE
#define PRODUCT_WIDE(rows, columns) 128
#define KERNEL loss_128
#define MM_M run_m
#define MM_N run_n
#define MM_K run_k
#define MM_TOKENS run_tokens
#include "head_loss.cu"
#define KERNEL gradient_128
#define MM_M run_m
#define MM_N run_piece
#define MM_K run_k
#define MM_TOKENS run_tokens
#include "head_gradient.cu"
#define KERNEL dx_128
#define MM_M run_m
#define MM_N run_piece
#define MM_K run_k
#define MM_ACCUMULATE 1
#include "matmul_dx.cu"

/* Of the kernel that is launched. */
static u32 run_wide;
#undef PRODUCT_WIDE
#define PRODUCT_WIDE(rows, columns) run_wide

struct kernels {
    emu_kernel *loss, *loss_2, *gradient, *dx;
    u32 wide;
};
static const struct kernels of_width[] = {{(emu_kernel *)loss_256, (emu_kernel *)loss_256_2,
                                           (emu_kernel *)gradient_256, (emu_kernel *)dx_256, 256},
                                          {(emu_kernel *)loss_192, (emu_kernel *)loss_192_2,
                                           (emu_kernel *)gradient_192, (emu_kernel *)dx_192, 192},
                                          {(emu_kernel *)loss_128, (emu_kernel *)loss_128_2,
                                           (emu_kernel *)gradient_128, (emu_kernel *)dx_128, 128}};

/* Both passes over `rows` rows; with top, as training calls them, else as evaluation does. */
HOST_CODE static void run_loss(const struct kernels *k, const struct data *d, int rows, float *loss,
                               float *top, float *sum, float *dx)
{
    const struct shape *s = d->s;
    const struct cuda_call call = {rows, 0, 0, 0};
    struct cuda_call *device_call = NULL;
    if (rows < s->m) {
        device_call = emu_alloc("call", sizeof call);
        emu_write(device_call, &call, sizeof call);
    }
    run_wide = k->wide;
    const struct emu_launch one = {"head_loss", k->loss,
                                   HEAD_LOSS_LAUNCH((u32)s->m, (u32)d->n, s->k), false, NULL};
    const struct emu_launch two = {"head_loss_2", k->loss_2,
                                   HEAD_LOSS_LAUNCH_2((u32)s->m, (u32)d->n, s->k), false, NULL};
    void *scratch = emu_alloc("scratch", HEAD_LOSS_SCRATCH((u32)s->m, (u32)d->n, s->k));
    const struct cuda_maps maps = HEAD_LOSS_MAPS((u32)s->m, (u32)d->n, (u32)s->k);
    void *operands[] = {loss, top, sum, dx, d->x, d->w, d->target, device_call, scratch};
    test_maps(&maps, operands);
    emu_run(&one, operands, 9);
    emu_run(&two, operands, 9);
}

HOST_CODE static int check_losses(const struct data *d, int rows, const float *loss,
                                  const float *top, const float *sum, const float *dx)
{
    struct test_error e = {0, 0, 0, 0}, tops = e, sums = e;
    int bad = 0;
    for (int i = 0; i < rows; i++) {
        test_compare(&e, (size_t)i, loss[i], d->loss[i], 4e-6, 1e-6);
        if (!top)
            continue;
        bool live = d->target[i] >= 0;
        test_compare(&tops, (size_t)i, top[i], live ? d->top[i] : 3.4e38, 2e-5, 1e-6);
        test_compare(&sums, (size_t)i, sum[i], live ? d->sum[i] : 1, 0, 2e-5);
    }
    for (int i = 0; dx && i < d->s->m * d->s->k; i++)
        bad |= dx[i] != 0.0f;
    if (bad)
        printf("dx is not cleared\n");
    return bad | test_verdict(&e, "loss") | test_verdict(&tops, "top") | test_verdict(&sums, "sum");
}

/* One piece of the gradients: within a bf16's rounding of fp64. */
HOST_CODE static int check_piece(const struct data *d, int first, const bf16 *got)
{
    const struct shape *s = d->s;
    struct test_error e = {0, 0, 0, 0};
    for (int i = 0; i < s->m; i++)
        for (int c = 0; c < s->piece; c++) {
            const int t = first + c;
            double want = 0;
            if (t < s->tokens && d->target[i] >= 0)
                want = (exp(d->z[(size_t)i * s->tokens + t] - d->top[i]) / d->sum[i] -
                        (t == d->target[i])) *
                       (double)grad_scale;
            const size_t at = (size_t)i * s->piece + c;
            test_compare(&e, at, f32_from_bf16(got[at]), want, 1e-7, 1.0 / 250);
        }
    return test_verdict(&e, "dlogits");
}

/* dx, from the gradients as the kernels rounded them: `all`[m][n]. */
HOST_CODE static int check_dx(const struct data *d, const float *dx, const bf16 *all)
{
    const struct shape *s = d->s;
    struct test_error e = {0, 0, 0, 0};
    for (int i = 0; i < s->m; i++)
        for (int k = 0; k < s->k; k++) {
            double sum = 0, size = 0;
            for (int t = 0; t < d->n; t++) {
                const double term = (double)f32_from_bf16(all[(size_t)i * d->n + t]) *
                                    f32_from_bf16(d->w[(size_t)t * s->k + k]);
                sum += term;
                size += fabs(term);
            }
            test_compare(&e, (size_t)i * s->k + k, dx[(size_t)i * s->k + k], sum,
                         1e-30 + size * d->n * ldexp(1, -24), 0);
        }
    return test_verdict(&e, "dx of all pieces");
}

HOST_CODE static int run_gradients(const struct kernels *k, const struct data *d, float *top,
                                   float *sum, float *dx)
{
    const struct shape *s = d->s;
    bf16 *all = malloc(sizeof(bf16) * (size_t)s->m * d->n);
    int bad = 0;
    for (int first = 0; first < d->n; first += s->piece) {
        bf16 *dlogits = emu_alloc("dlogits", sizeof(bf16) * (size_t)s->m * s->piece);
        bf16 *part = d->w + (size_t)first * s->k;
        const struct emu_launch l = {"head_gradient", k->gradient,
                                     HEAD_GRADIENT_LAUNCH((u32)s->m, (u32)s->piece, s->k), false,
                                     NULL};
        const struct cuda_maps maps = HEAD_GRADIENT_MAPS((u32)s->m, (u32)s->piece, (u32)s->k);
        void *operands[] = {dlogits, d->x, part, top, sum, d->target, d->w, part, d->train};
        test_maps(&maps, operands);
        emu_run(&l, operands, 9);
        bad |= check_piece(d, first, dlogits);
        for (int i = 0; i < s->m; i++)
            memcpy(all + (size_t)i * d->n + first, dlogits + (size_t)i * s->piece,
                   sizeof(bf16) * (size_t)s->piece);
        if (!k->dx)
            continue;
        const struct emu_launch add = {
            "matmul_dx", k->dx, MATMUL_DX_LAUNCH((u32)s->m, (u32)s->piece, (u32)s->k), false, NULL};
        const struct cuda_maps add_maps = MATMUL_DX_MAPS((u32)s->m, (u32)s->piece, (u32)s->k);
        void *added[] = {dx, dlogits, part};
        test_maps(&add_maps, added);
        emu_run(&add, added, 3);
    }
    if (k->dx)
        bad |= check_dx(d, dx, all);
    free(all);
    return bad;
}

HOST_CODE static int run(const struct kernels *k, const struct shape *s, u32 gradient_wide)
{
    struct data d;
    const size_t m = (size_t)s->m;
    run_m = s->m;
    run_n = s->pieces * s->piece;
    run_k = s->k;
    run_piece = s->piece;
    run_tokens = s->tokens;
    make(&d, s, (struct far_rows){0, 0});
    float *loss = emu_alloc("loss", 4 * m), *top = emu_alloc("top", 4 * m);
    float *sum = emu_alloc("sum", 4 * m), *dx = emu_alloc("dx", 4 * m * (size_t)s->k);
    run_loss(k, &d, s->m, loss, top, sum, dx);
    int bad = check_losses(&d, s->m, loss, top, sum, dx);
    run_wide = gradient_wide;
    bad |= run_gradients(k, &d, top, sum, dx);
    float *scored = test_floats("scored", m, 1); /* as evaluation does, of fewer rows */
    const float behind = scored[m - 1];
    const int rows = (s->m + 1) / 2;
    run_loss(k, &d, rows, scored, NULL, NULL, NULL);
    bad |= check_losses(&d, rows, scored, NULL, NULL, NULL);
    bad |= rows < s->m && scored[m - 1] != behind;
    if (bad)
        printf("m %d, %d tokens in %d x %d, k %d, tiles %u wide\n", s->m, s->tokens, s->pieces,
               s->piece, s->k, k->wide);
    drop(&d);
    return bad;
}

HOST_CODE int main(void)
{
    /* Less than a tile and tiles and a rest, of rows and of columns; a last piece of padding
     * alone; a vocabulary of one token. */
    static const struct shape shapes[] = {{1, 1, 1, 8, 8},        {5, 29, 2, 16, 24},
                                          {130, 333, 2, 168, 40}, {33, 1100, 3, 368, 72},
                                          {64, 256, 3, 128, 64},  {300, 97, 1, 104, 16}};
    static const struct shape special = {70, 611, 2, 312, 72};
    const struct kernels set = {(emu_kernel *)loss_special, (emu_kernel *)loss_special_2,
                                (emu_kernel *)gradient_special, NULL, special_wide(624)};
    int bad = 0;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (size_t w = 0; w < (PRODUCT_WGMMA ? 3 : 1); w++) {
            emu_seed((u32)(i + w) + 1);
            bad |= run(&of_width[w], &shapes[i], of_width[w].wide);
        }
    bad |= run(&set, &special, special_wide(312));
    return bad;
}

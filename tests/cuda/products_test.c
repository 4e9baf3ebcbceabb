/* products_test.c - matmul_dx.cu and matmul_dw.cu against fp64. Sums are fp32: off by 2^-24 a term
 * and addition at most, of the terms' sizes; a bf16 result by 2^-8 of itself beside. */
#include "kernel_test.h"

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

static int run_m, run_n, run_k;

/* Tiles as the shape wants them. */
#define KERNEL dx_special
#define MM_M 150
#define MM_N 96
#define MM_K 200
#define MM_ACCUMULATE 0
#include "matmul_dx.cu"
#define KERNEL dw_special
#define MM_M 150
#define MM_N 96
#define MM_K 200
#define MM_BIAS 0
#include "matmul_dw.cu"

HOST_CODE static u32 wide_of(u32 rows, u32 columns)
{
    return PRODUCT_COLUMNS(rows, columns);
}

/* Shapes read at run time: tiles of each width. */
#undef PRODUCT_WIDE
#define PRODUCT_WIDE(rows, columns) 256
#define KERNEL dx_256
#define MM_M run_m
#define MM_N run_n
#define MM_K run_k
#define MM_ACCUMULATE 0
#include "matmul_dx.cu"
#define KERNEL dw_256
#define MM_M run_m
#define MM_N run_n
#define MM_K run_k
#define MM_BIAS 1
#include "matmul_dw.cu"
#undef PRODUCT_WIDE
#define PRODUCT_WIDE(rows, columns) 192
#define KERNEL dx_192
#define MM_M run_m
#define MM_N run_n
#define MM_K run_k
#define MM_ACCUMULATE 0
#include "matmul_dx.cu"
#define KERNEL dw_192
#define MM_M run_m
#define MM_N run_n
#define MM_K run_k
#define MM_BIAS 1
#include "matmul_dw.cu"
#undef PRODUCT_WIDE
#define PRODUCT_WIDE(rows, columns) 128
#define KERNEL dx_128
#define MM_M run_m
#define MM_N run_n
#define MM_K run_k
#define MM_ACCUMULATE 0
#include "matmul_dx.cu"
#define KERNEL dw_128
#define MM_M run_m
#define MM_N run_n
#define MM_K run_k
#define MM_BIAS 1
#include "matmul_dw.cu"

/* Of the kernel that is launched. */
static u32 run_wide;
#undef PRODUCT_WIDE
#define PRODUCT_WIDE(rows, columns) run_wide

struct pair {
    emu_kernel *dx, *dw;
    u32 wide;
};
static const struct pair pairs[] = {{(emu_kernel *)dx_256, (emu_kernel *)dw_256, 256},
                                    {(emu_kernel *)dx_192, (emu_kernel *)dw_192, 192},
                                    {(emu_kernel *)dx_128, (emu_kernel *)dw_128, 128}};

struct shape {
    int m, n, k;
};

/* The kernels' sums have at most `terms` additions, one behind the other. */
HOST_CODE static double fp32_error(double size, int terms)
{
    return size * terms * ldexp(1, -24) + 1e-30;
}

HOST_CODE static int check_dx(const struct shape *s, const bf16 *dx, const bf16 *dy, const bf16 *w)
{
    struct test_error e = {0, 0, 0, 0};
    for (int i = 0; i < s->m; i++)
        for (int k = 0; k < s->k; k++) {
            double sum = 0, size = 0;
            for (int n = 0; n < s->n; n++) {
                double term =
                    (double)f32_from_bf16(dy[i * s->n + n]) * f32_from_bf16(w[n * s->k + k]);
                sum += term;
                size += fabs(term);
            }
            test_compare(&e, (size_t)(i * s->k + k), f32_from_bf16(dx[i * s->k + k]), sum,
                         fp32_error(size, s->n), 1.0 / 256);
        }
    return test_verdict(&e, "dx");
}

HOST_CODE static int run_dx(emu_kernel *kernel, const struct shape *s)
{
    bf16 *dy = test_bf16s("dy", (size_t)(s->m * s->n), 1);
    bf16 *w = test_bf16s("w", (size_t)(s->n * s->k), 1);
    bf16 *dx = emu_alloc("dx", sizeof(bf16) * (size_t)(s->m * s->k));
    const struct emu_launch launch = {"matmul_dx", kernel, MATMUL_DX_LAUNCH(s->m, s->n, s->k),
                                      false, NULL};
    const struct cuda_maps maps = MATMUL_DX_MAPS(s->m, s->n, s->k);
    void *operands[] = {dx, dy, w};
    test_maps(&maps, operands);
    emu_run(&launch, operands, 3);
    int bad = check_dx(s, dx, dy, w);
    emu_free_all();
    return bad;
}

HOST_CODE static int check_dw(const struct shape *s, const float *dw, const float *before,
                              const bf16 *dy, const bf16 *x)
{
    struct test_error e = {0, 0, 0, 0};
    for (int n = 0; n < s->n; n++)
        for (int k = 0; k < s->k; k++) {
            double sum = before[n * s->k + k], size = fabs(sum);
            for (int i = 0; i < s->m; i++) {
                double term =
                    (double)f32_from_bf16(dy[i * s->n + n]) * f32_from_bf16(x[i * s->k + k]);
                sum += term;
                size += fabs(term);
            }
            test_compare(&e, (size_t)(n * s->k + k), dw[n * s->k + k], sum,
                         fp32_error(size, s->m + 1), 0);
        }
    return test_verdict(&e, "dw");
}

HOST_CODE static int check_dbias(const struct shape *s, const float *dbias, const float *before,
                                 const bf16 *dy)
{
    struct test_error e = {0, 0, 0, 0};
    for (int n = 0; n < s->n; n++) {
        double sum = before[n], size = fabs(sum);
        for (int i = 0; i < s->m; i++) {
            sum += f32_from_bf16(dy[i * s->n + n]);
            size += fabs((double)f32_from_bf16(dy[i * s->n + n]));
        }
        test_compare(&e, (size_t)n, dbias[n], sum, fp32_error(size, s->m + 1), 0);
    }
    return test_verdict(&e, "dbias");
}

HOST_CODE static float *copy_of(const float *from, size_t n)
{
    float *to = emu_alloc("before", n * sizeof(float));
    emu_write(to, from, n * sizeof(float));
    return to;
}

/* Added to what is there, or over what nobody has written: to zeros, and 0 is not -0. */
HOST_CODE static int run_dw(emu_kernel *kernel, const struct shape *s, bool bias, bool adds)
{
    const size_t n = (size_t)(s->n * s->k);
    bf16 *dy = test_bf16s("dy", (size_t)(s->m * s->n), 1);
    bf16 *x = test_bf16s("x", (size_t)(s->m * s->k), 1);
    float *dw = adds ? test_floats("dw", n, 1) : emu_alloc("dw", n * sizeof(float));
    float *dbias = bias ? test_floats("dbias", (size_t)s->n, 1) : NULL;
    float *dw0 = adds ? copy_of(dw, n) : calloc(n, sizeof(float));
    float *dbias0 = bias ? copy_of(dbias, (size_t)s->n) : NULL;
    const struct emu_launch launch = {"matmul_dw", kernel, MATMUL_DW_LAUNCH(s->m, s->n, s->k),
                                      false, NULL};
    const struct cuda_maps maps = MATMUL_DW_MAPS(s->m, s->n, s->k);
    void *operands[] = {dw, dbias, dy, x, adds ? dw : NULL};
    test_maps(&maps, operands);
    emu_run(&launch, operands, 5);
    int bad = check_dw(s, dw, dw0, dy, x);
    for (size_t i = 0; i < n && !adds; i++)
        bad |= dw[i] == 0 && signbit(dw[i]);
    if (!adds)
        free(dw0);
    if (bias)
        bad |= check_dbias(s, dbias, dbias0, dy);
    emu_free_all();
    return bad;
}

/* The rule of launch.h with three processors: many rounds, 1.5 of 2, less than one. */
HOST_CODE static int check_widths(void)
{
    static const struct {
        u32 rows, columns, wide;
    } rows[] = {{16384, 2048, 256}, {256, 576, 192}, {384, 128, 128}, {128, 512, 192}};
    int bad = 0;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        u32 wide = wide_of(rows[i].rows, rows[i].columns);
        if (wide == (PRODUCT_WGMMA ? rows[i].wide : 128))
            continue;
        printf("tiles of %u x %u are %u wide\n", rows[i].rows, rows[i].columns, wide);
        bad = 1;
    }
    return bad;
}

HOST_CODE int main(void)
{
    /* Less than a tile, tiles and a rest, depths shorter than the ring; more than eight tiles down.
     */
    static const struct shape shapes[] = {{1, 8, 8},      {5, 24, 136},  {128, 128, 128},
                                          {129, 40, 264}, {70, 264, 72}, {1100, 16, 136},
                                          {33, 1096, 40}};
    static const struct shape special = {150, 96, 200};
    int bad = check_widths();
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        const struct shape *s = &shapes[i];
        run_m = s->m;
        run_n = s->n;
        run_k = s->k;
        for (size_t k = 0; k < (PRODUCT_WGMMA ? 3 : 1); k++) {
            emu_seed((u32)(i + k) + 1);
            run_wide = pairs[k].wide;
            int wrong = run_dx(pairs[k].dx, s) | run_dw(pairs[k].dw, s, true, true) |
                        run_dw(pairs[k].dw, s, true, false);
            if (wrong)
                printf("m %d, n %d, k %d, tiles %u wide\n", s->m, s->n, s->k, run_wide);
            bad |= wrong;
        }
    }
    run_wide = wide_of(150, 200);
    bad |= run_dx((emu_kernel *)dx_special, &special);
    run_wide = wide_of(96, 200);
    bad |= run_dw((emu_kernel *)dw_special, &special, false, true);
    bad |= run_dw((emu_kernel *)dw_special, &special, false, false);
    return bad;
}

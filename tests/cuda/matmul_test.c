/* matmul_test.c - matmul.cu against fp64, each epilogue, with constants and with run-time shapes.
 */
#include "kernel_test.h"

#define CUDA_SMS 132
#define HEADS 1
#define KV_HEADS 1
#define HEAD_DIM 64
#define SEGMENTS 1

#include "launch.h"

static int run_m, run_n, run_k;

/* Tiles as the shape wants them. */
#define KERNEL special
#define MM_M 150
#define MM_N 208
#define MM_K 72
#define MM_BIAS 0
#define MM_OUT_F32 0
#define MM_RESIDUAL 0
#define MM_SWIGLU 1
#include "matmul.cu"

HOST_CODE static u32 special_wide(void)
{
    return PRODUCT_COLUMNS(150, 208);
}

/* Shapes read at run time: tiles of each width. */
#undef PRODUCT_WIDE
#define PRODUCT_WIDE(rows, columns) 256
#define KERNEL plain
#define MM_M run_m
#define MM_N run_n
#define MM_K run_k
#define MM_BIAS 0
#define MM_OUT_F32 0
#define MM_RESIDUAL 0
#define MM_SWIGLU 0
#include "matmul.cu"
#define KERNEL biased
#define MM_M run_m
#define MM_N run_n
#define MM_K run_k
#define MM_BIAS 1
#define MM_OUT_F32 1
#define MM_RESIDUAL 0
#define MM_SWIGLU 0
#include "matmul.cu"
#define KERNEL gated
#define MM_M run_m
#define MM_N run_n
#define MM_K run_k
#define MM_BIAS 1
#define MM_OUT_F32 0
#define MM_RESIDUAL 0
#define MM_SWIGLU 1
#include "matmul.cu"
#undef PRODUCT_WIDE
#define PRODUCT_WIDE(rows, columns) 192
#define KERNEL added_192
#define MM_M run_m
#define MM_N run_n
#define MM_K run_k
#define MM_BIAS 0
#define MM_OUT_F32 1
#define MM_RESIDUAL 1
#define MM_SWIGLU 0
#include "matmul.cu"
#define KERNEL gated_192
#define MM_M run_m
#define MM_N run_n
#define MM_K run_k
#define MM_BIAS 1
#define MM_OUT_F32 0
#define MM_RESIDUAL 0
#define MM_SWIGLU 1
#include "matmul.cu"
#undef PRODUCT_WIDE
#define PRODUCT_WIDE(rows, columns) 128
#define KERNEL biased_128
#define MM_M run_m
#define MM_N run_n
#define MM_K run_k
#define MM_BIAS 1
#define MM_OUT_F32 1
#define MM_RESIDUAL 0
#define MM_SWIGLU 0
#include "matmul.cu"
#define KERNEL gated_128
#define MM_M run_m
#define MM_N run_n
#define MM_K run_k
#define MM_BIAS 0
#define MM_OUT_F32 0
#define MM_RESIDUAL 0
#define MM_SWIGLU 1
#include "matmul.cu"

/* Of the kernel that is launched. */
static u32 run_wide;
#undef PRODUCT_WIDE
#define PRODUCT_WIDE(rows, columns) run_wide

struct variant {
    const char *name;
    emu_kernel *kernel;
    bool bias, f32, residual, swiglu;
    u32 wide; /* columns of its tiles on sm_90 */
};

/* Of one row's one column: the product in fp64, and the size of its terms. */
HOST_CODE static double dot(const bf16 *x, const bf16 *w, int k, double *size)
{
    double sum = 0;
    *size = 0;
    for (int i = 0; i < k; i++) {
        double term = (double)f32_from_bf16(x[i]) * (double)f32_from_bf16(w[i]);
        sum += term;
        *size += fabs(term);
    }
    return sum;
}

HOST_CODE static int run(const struct variant *v, int m, int n, int k, int rows)
{
    char what[96];
    int width = v->swiglu ? n / 2 : n;
    bf16 *x = test_bf16s("x", (size_t)m * k, 1), *w = test_bf16s("w", (size_t)n * k, 0.1f);
    float *bias = v->bias ? test_floats("bias", (size_t)n, 1) : NULL;
    float *residual = v->residual ? test_floats("residual", (size_t)m * n, 1) : NULL;
    double *before = malloc(sizeof(double) * (size_t)m * n);
    for (int i = 0; residual && i < m * n; i++)
        before[i] = residual[i];
    /* y is the residual, as in the model. */
    void *y = residual ? (void *)residual : emu_alloc("y", (size_t)m * width * (v->f32 ? 4 : 2));
    struct cuda_call call = {rows, 0, 0, 0}, *device_call = NULL;
    if (rows < m) {
        device_call = emu_alloc("call", sizeof(call));
        emu_write(device_call, &call, sizeof(call));
    }
    run_wide = v->wide;
    const struct emu_launch l = {v->name, v->kernel, MATMUL_LAUNCH((u32)m, (u32)n, 0), false, NULL};
    run_m = m;
    run_n = n;
    run_k = k;
    const struct cuda_maps maps = MATMUL_MAPS(m, n, k);
    void *operands[] = {y, x, w, bias, residual, device_call};
    test_maps(&maps, operands);
    emu_run(&l, operands, 6);
    struct test_error e = {0, 0, 0, 0};
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < width; j++) {
            double size, up_size;
            double want = dot(x + i * k, w + j * k, k, &size) + (bias ? (double)bias[j] : 0);
            if (v->swiglu) {
                double up = dot(x + i * k, w + (j + width) * k, k, &up_size) +
                            (bias ? (double)bias[j + width] : 0);
                size = size * fabs(up) + up_size * fabs(want) + 1;
                want = want / (1 + exp(-want)) * up;
            }
            if (residual)
                want += before[i * n + j];
            double got = v->f32 ? (double)((float *)y)[i * width + j]
                                : (double)f32_from_bf16(((bf16 *)y)[i * width + j]);
            test_compare(&e, (size_t)(i * width + j), got, want,
                         size * k * ldexp(1, -24) + 1e-6 * (size + 1), v->f32 ? 1e-6 : 1.0 / 250);
        }
    snprintf(what, sizeof(what), "%s %d (%d) x %d x %d", v->name, m, rows, n, k);
    int bad = test_verdict(&e, what);
    free(before);
    emu_free_all();
    return bad;
}

HOST_CODE int main(void)
{
    static const struct variant variants[] = {
        {"plain", (emu_kernel *)plain, false, false, false, false, 256},
        {"biased", (emu_kernel *)biased, true, true, false, false, 256},
        {"gated", (emu_kernel *)gated, true, false, false, true, 256},
        {"added, 192", (emu_kernel *)added_192, false, true, true, false, 192},
        {"gated, 192", (emu_kernel *)gated_192, true, false, false, true, 192},
        {"biased, 128", (emu_kernel *)biased_128, true, true, false, false, 128},
        {"gated, 128", (emu_kernel *)gated_128, false, false, false, true, 128},
    };
    const struct variant fixed = {"special", (emu_kernel *)special, false, false, false,
                                  true,      special_wide()};
    static const int shapes[][4] = {{1, 8, 8, 1},       {130, 136, 40, 129}, {64, 72, 200, 64},
                                    {257, 24, 32, 100}, {20, 400, 104, 20},  {128, 256, 64, 128}};
    int bad = run(&fixed, 150, 208, 72, 150);
    for (u32 s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++)
        for (u32 v = 0; v < sizeof(variants) / sizeof(variants[0]); v++) {
            emu_seed(s + 1);
            int n = shapes[s][1] * (variants[v].swiglu ? 2 : 1);
            bad |= run(variants + v, shapes[s][0], n, shapes[s][2], shapes[s][3]);
        }
    return bad;
}

/* train_rows_test.c - embed.cu, swiglu.cu and swiglu_backward.cu against fp64, with run-time shapes
 * and with constants. */
#include <string.h>

#include "kernel_test.h"

#define CUDA_SMS 3
#define CUDA_ARCH 90

static int shape_m, shape_n;

#define KERNEL embed_any
#define EMBED_M shape_m
#define EMBED_D shape_n
#include "embed.cu"
#define KERNEL embed_set
#define EMBED_M 7
#define EMBED_D 320
#include "embed.cu"

#define KERNEL swiglu_any
#define SWIGLU_M shape_m
#define SWIGLU_F shape_n
#include "swiglu.cu"
#define KERNEL swiglu_set
#define SWIGLU_M 7
#define SWIGLU_F 864
#include "swiglu.cu"

#define KERNEL swiglu_backward_any
#define SWIGLU_M shape_m
#define SWIGLU_F shape_n
#include "swiglu_backward.cu"
#define KERNEL swiglu_backward_set
#define SWIGLU_M 7
#define SWIGLU_F 864
#include "swiglu_backward.cu"

/* Half a unit in the last place of bf16, and what fp32 arithmetic adds to it. */
#define BF16_ERROR (1.0 / 256 + 1e-5)

HOST_CODE static struct cuda_call *device_call(int rows)
{
    const struct cuda_call call = {rows, 0, 0, 0};
    struct cuda_call *p = emu_alloc("call", sizeof(call));
    emu_write(p, &call, sizeof(call));
    return p;
}

/* Rows that a call does not use keep the poison of emu_alloc. */
HOST_CODE static int untouched(const void *p, size_t begin, size_t end, const char *what)
{
    for (size_t i = begin; i < end; i++)
        if (((const u8 *)p)[i] != 0xff) {
            printf("%s: byte %zu, behind the rows in use, was written\n", what, i);
            return 1;
        }
    return 0;
}

HOST_CODE static int embed(emu_kernel *kernel, int m, int d, int rows)
{
    enum { V = 50 };
    char what[64];
    struct test_error e = {0, 0, 0, 0};
    bf16 *table = test_bf16s("table", (size_t)V * d, 1);
    int *token = emu_alloc("token", sizeof(int) * (size_t)m);
    float *x = emu_alloc("x", sizeof(float) * (size_t)m * d);
    for (int i = 0; i < m; i++)
        token[i] = i == 1 ? V - 1 : i * 7 % V;
    emu_mark(token, sizeof(int) * (size_t)m);
    const struct emu_launch launch = {"embed", kernel, EMBED_LAUNCH((u32)m, (u32)d, 0), false,
                                      NULL};
    EMU_RUN(&launch, x, table, token, rows < m ? device_call(rows) : NULL);
    snprintf(what, sizeof(what), "embed of %d rows of %d", rows, d);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < d; j++)
            test_compare(&e, (size_t)(i * d + j), x[i * d + j],
                         f32_from_bf16(table[token[i] * d + j]), 0, 1e-30);
    int bad = test_verdict(&e, what) | untouched(x, (size_t)rows * d * 4, (size_t)m * d * 4, what);
    emu_free_all();
    return bad;
}

HOST_CODE static int swiglu(emu_kernel *kernel, int m, int f, int rows)
{
    char what[64];
    struct test_error e = {0, 0, 0, 0};
    bf16 *in = test_bf16s("gate_up", (size_t)m * 2 * f, 3);
    bf16 *h = emu_alloc("h", sizeof(bf16) * (size_t)m * f);
    const struct emu_launch launch = {"swiglu", kernel, SWIGLU_LAUNCH((u32)m, (u32)f, 0), false,
                                      NULL};
    EMU_RUN(&launch, h, in, rows < m ? device_call(rows) : NULL);
    snprintf(what, sizeof(what), "swiglu of %d rows of %d", rows, f);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < f; j++) {
            const double g = f32_from_bf16(in[i * 2 * f + j]);
            const double u = f32_from_bf16(in[i * 2 * f + f + j]);
            test_compare(&e, (size_t)(i * f + j), f32_from_bf16(h[i * f + j]),
                         g / (1 + exp(-g)) * u, 1e-9, BF16_ERROR);
        }
    int bad = test_verdict(&e, what) | untouched(h, (size_t)rows * f * 2, (size_t)m * f * 2, what);
    emu_free_all();
    return bad;
}

/* in_place: the outputs take the inputs' places. */
HOST_CODE static int swiglu_backward(emu_kernel *kernel, int m, int f, bool in_place)
{
    char what[64];
    struct test_error gates = {0, 0, 0, 0}, ups = gates, hs = gates;
    const size_t wide = sizeof(bf16) * (size_t)m * 2 * f;
    bf16 *in = test_bf16s("gate_up", (size_t)m * 2 * f, 3),
         *dh = test_bf16s("dh", (size_t)m * f, 1);
    bf16 *out = in_place ? in : emu_alloc("dgate_up", wide);
    bf16 *h = in_place ? dh : emu_alloc("h", wide / 2);
    bf16 *old = malloc(wide), *old_dh = malloc(wide / 2);
    memcpy(old, in, wide);
    memcpy(old_dh, dh, wide / 2);
    const struct emu_launch launch = {"swiglu_backward", kernel,
                                      SWIGLU_BACKWARD_LAUNCH((u32)m, (u32)f, 0), false, NULL};
    EMU_RUN(&launch, out, h, dh, in);
    for (int i = 0; i < m; i++)
        for (int j = 0; j < f; j++) {
            const size_t at = (size_t)(i * f + j), gate = (size_t)(i * 2 * f + j), up = gate + f;
            const double g = f32_from_bf16(old[gate]), u = f32_from_bf16(old[up]);
            const double d = f32_from_bf16(old_dh[at]), s = 1 / (1 + exp(-g));
            test_compare(&gates, gate, f32_from_bf16(out[gate]), d * u * s * (1 + g * (1 - s)),
                         2e-7 * fabs(d * u), BF16_ERROR);
            test_compare(&ups, up, f32_from_bf16(out[up]), d * g * s, 1e-9, BF16_ERROR);
            test_compare(&hs, at, f32_from_bf16(h[at]), g * s * u, 1e-9, BF16_ERROR);
        }
    snprintf(what, sizeof(what), "swiglu_backward of %d rows of %d%s", m, f,
             in_place ? " in place" : "");
    int bad = test_verdict(&gates, what) | test_verdict(&ups, what) | test_verdict(&hs, what);
    free(old);
    free(old_dh);
    emu_free_all();
    return bad;
}

HOST_CODE int main(void)
{
    static const int shapes[][2] = {{1, 8}, {5, 24}, {3, 1032}, {11, 320}, {2, 4096}};
    int bad = 0;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        for (int part = 0; part < 2; part++) {
            shape_m = shapes[i][0];
            shape_n = shapes[i][1];
            const int rows = part ? shape_m / 2 : shape_m;
            emu_seed((u32)i);
            bad |= embed((emu_kernel *)embed_any, shape_m, shape_n, rows);
            bad |= swiglu((emu_kernel *)swiglu_any, shape_m, shape_n, rows);
            bad |= swiglu_backward((emu_kernel *)swiglu_backward_any, shape_m, shape_n, part);
        }
    bad |= embed((emu_kernel *)embed_set, 7, 320, 7);
    bad |= swiglu((emu_kernel *)swiglu_set, 7, 864, 7);
    bad |= swiglu_backward((emu_kernel *)swiglu_backward_set, 7, 864, true);
    return bad;
}

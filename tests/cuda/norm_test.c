/* norm_test.c - norm.cu against fp64, with constants and with run-time shapes. */
#include "kernel_test.h"

static int run_time_d;

#define KERNEL norm_generic
#define NORM_D run_time_d
#define NORM_EPS 1e-5
#include "norm.cu"
#define KERNEL norm_2304
#define NORM_D 2304
#define NORM_EPS 1e-5
#include "norm.cu"

HOST_CODE static int compare(const bf16 *y, const float *rstd, const float *x, const float *gain,
                             int rows, int d, const char *what)
{
    struct test_error e = {0, 0, 0, 0};
    for (int i = 0; i < rows; i++) {
        double sum = 0;
        for (int j = 0; j < d; j++)
            sum += (double)x[i * d + j] * x[i * d + j];
        double r = 1 / sqrt(sum / d + 1e-5);
        if (rstd)
            test_compare(&e, (size_t)i, rstd[i], r, 0, 1e-5);
        for (int j = 0; j < d; j++)
            test_compare(&e, (size_t)(i * d + j), f32_from_bf16(y[i * d + j]),
                         x[i * d + j] * r * gain[j], 1e-6, 1.0 / 250);
    }
    return test_verdict(&e, what);
}

HOST_CODE static int run(emu_kernel *kernel, int m, int d, int rows, bool keep)
{
    char what[64];
    struct cuda_call call = {rows, 0, 0, 0}, *device_call = NULL;
    float *x = test_floats("x", (size_t)m * d, 3), *gain = test_floats("gain", (size_t)d, 1);
    bf16 *y = emu_alloc("y", sizeof(bf16) * (size_t)m * d);
    float *rstd = keep ? emu_alloc("rstd", sizeof(float) * (size_t)m) : NULL;
    const struct emu_launch launch = {"norm", kernel, NORM_LAUNCH((u32)m, d, 0), false, NULL};
    if (rows < m) {
        device_call = emu_alloc("call", sizeof(call));
        emu_write(device_call, &call, sizeof(call));
    }
    EMU_RUN(&launch, y, rstd, x, gain, device_call);
    snprintf(what, sizeof(what), "norm of %d rows of %d", rows, d);
    int bad = compare(y, rstd, x, gain, rows, d, what);
    emu_free_all();
    return bad;
}

HOST_CODE int main(void)
{
    static const int widths[] = {8, 24, 64, 320, 1032, 2304, 4096, 9000};
    int bad = 0;
    for (size_t i = 0; i < sizeof(widths) / sizeof(widths[0]); i++)
        for (u32 seed = 1; seed <= 3; seed++) {
            emu_seed(seed);
            run_time_d = widths[i];
            bad |= run((emu_kernel *)norm_generic, 5, widths[i], 5 - (int)(seed & 1), seed < 3);
        }
    bad |= run((emu_kernel *)norm_2304, 7, 2304, 7, true);
    return bad;
}

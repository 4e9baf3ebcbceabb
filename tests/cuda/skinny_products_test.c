/* skinny_products_test.c - skinny_residual.cu, skinny_gate_up.cu and skinny_head.cu against fp64 at
 * ROWS rows, which is a number in every build: run-time shapes, then constants. On sm_90 tiles are
 * TEST_WIDE rows of weights, with constants as wide as the launch thinks best. */
#include "kernel_test.h"
#include "archrt_cuda.h"

static u32 run_n, run_k, run_sms, run_head_rows;
#ifndef CUDA_ARCH
#define CUDA_ARCH 90
#endif
#define CUDA_SMS run_sms
#define EPSILON 1e-5f
#define HEAD_DIM 64
#ifndef TEST_WIDE
#define TEST_WIDE 64
#endif
#define SKINNY_WIDE(m, n, k) TEST_WIDE
#include "launch.h"

#define KERNEL residual
#define DM_M ROWS
#define DM_N run_n
#define DM_K run_k
#include "skinny_residual.cu"
#define KERNEL gate_up
#define DM_M ROWS
#define DM_N run_n
#define DM_K run_k
#include "skinny_gate_up.cu"
#define KERNEL head
#define DM_M ROWS
#define DM_N run_n
#define DM_K run_k
#include "skinny_head.cu"

#undef SKINNY_WIDE
#define SKINNY_WIDE(m, n, k) SKINNY_BEST_WIDE(m, n, k)
#undef CUDA_SMS
#define CUDA_SMS 5
#define KERNEL residual_136_328
#define DM_M ROWS
#define DM_N 136
#define DM_K 328
#include "skinny_residual.cu"

HOST_CODE static struct emu_launch best_launch(void)
{
    const struct emu_launch l = {"residual", (emu_kernel *)residual_136_328,
                                 SKINNY_RESIDUAL_LAUNCH(ROWS, 136, 328), true, NULL};
    return l;
}

HOST_CODE static struct cuda_maps best_maps(void)
{
    const struct cuda_maps maps = SKINNY_RESIDUAL_MAPS(ROWS, 136, 328);
    return maps;
}

HOST_CODE static size_t best_scratch(void)
{
    return SKINNY_RESIDUAL_SCRATCH(ROWS, 136, 328);
}

#undef CUDA_SMS
#define CUDA_SMS run_sms
#undef SKINNY_WIDE
#define SKINNY_WIDE(m, n, k) TEST_WIDE

/* The sum, and its tolerance: of the sum's own rounding, and of two factors that the kernel rounds
 * to the other side of a tie, each 2^-8 of itself. */
HOST_CODE static double dot(const bf16 *w, const float *x, double *slack)
{
    double sum = 0, size = 0, most = 0;
    for (u32 i = 0; i < run_k; i++) {
        double term = (double)f32_from_bf16(w[i]) * x[i];
        sum += term;
        size += fabs(term);
        most = fmax(most, fabs(term));
    }
    *slack = 1e-6 * size + 2 * most / 256;
    return sum;
}

struct inputs {
    bf16 *w, *a, *h;
    float *x, *gain, *residual, *out, *row;
    i32 *head_row, *counter;
    struct cuda_call *call;
    void *scratch;
};

HOST_CODE static struct inputs make(size_t scratch)
{
    const size_t mk = (size_t)ROWS * run_k, mn = (size_t)ROWS * run_n;
    const struct cuda_call call = {ROWS, (i32)run_head_rows, 0, 0};
    struct inputs in;
    in.w = test_bf16s("w", (size_t)run_n * run_k, 0.1f);
    in.a = test_bf16s("a", mk, 1);
    in.x = test_floats("x", mk, 2);
    in.gain = test_floats("gain", run_k, 1);
    in.residual = test_floats("residual", mn, 1);
    in.out = emu_alloc("out", mn * sizeof(float));
    in.h = emu_alloc("h", mn * sizeof(bf16));
    in.head_row = emu_alloc("head_row", ROWS * sizeof(i32));
    in.counter = emu_alloc("counter", CUDA_COUNTERS * sizeof(i32));
    in.call = emu_alloc("call", sizeof(call));
    in.scratch = emu_alloc("scratch", scratch + 1);
    in.row = malloc(run_k * sizeof(float));
    emu_fill(in.counter, 0, CUDA_COUNTERS * sizeof(i32));
    emu_write(in.call, &call, sizeof(call));
    for (u32 i = 0; i < ROWS; i++)
        in.head_row[i] = (i32)((i * 7 + 3) % ROWS);
    emu_mark(in.head_row, ROWS * sizeof(i32));
    return in;
}

HOST_CODE static int done(struct inputs *in, const struct test_error *e, const char *what)
{
    char line[96];
    int bad = 0;
    snprintf(line, sizeof(line), "%s m %d n %u k %u, %u processors", what, ROWS, run_n, run_k,
             run_sms);
    for (u32 i = 0; i < CUDA_COUNTERS; i++)
        if (in->counter[i]) {
            printf("%s: counter %u is left at %d\n", line, i, in->counter[i]);
            bad = 1;
        }
    free(in->row);
    emu_free_all();
    return test_verdict(e, line) | bad;
}

/* x as the product of row r sees it, but for ties. */
HOST_CODE static void norm(struct inputs *in, u32 r)
{
    const float *x = in->x + (size_t)r * run_k;
    double squares = 0;
    for (u32 i = 0; i < run_k; i++)
        squares += (double)x[i] * x[i];
    for (u32 i = 0; i < run_k; i++)
        in->row[i] = f32_from_bf16(
            bf16_from_f32((float)(x[i] / sqrt(squares / run_k + 1e-5) * in->gain[i])));
}

HOST_CODE static int check_residual(bool best)
{
    struct inputs in = make(best ? best_scratch() : SKINNY_RESIDUAL_SCRATCH(ROWS, run_n, run_k));
    struct test_error e = {0, 0, 0, 0};
    const struct emu_launch plain = {"residual", (emu_kernel *)residual,
                                     SKINNY_RESIDUAL_LAUNCH(ROWS, run_n, run_k), true, NULL};
    const struct emu_launch launch = best ? best_launch() : plain;
    const struct cuda_maps plain_maps = SKINNY_RESIDUAL_MAPS(ROWS, run_n, run_k);
    const struct cuda_maps maps = best ? best_maps() : plain_maps;
    void *operands[] = {in.out, in.a, in.w, in.residual, NULL, in.scratch, in.counter};
    test_maps(&maps, operands);
    emu_run(&launch, operands, 7);
    for (u32 r = 0; r < ROWS; r++) {
        for (u32 i = 0; i < run_k; i++)
            in.row[i] = f32_from_bf16(in.a[r * run_k + i]);
        for (u32 j = 0; j < run_n; j++) {
            double slack, sum = dot(in.w + (size_t)j * run_k, in.row, &slack);
            test_compare(&e, r * run_n + j, in.out[r * run_n + j], sum + in.residual[r * run_n + j],
                         slack / 100 + 1e-6, 1e-6);
        }
    }
    return done(&in, &e, "residual");
}

HOST_CODE static int check_gate_up(void)
{
    struct inputs in = make(SKINNY_GATE_UP_SCRATCH(ROWS, run_n, run_k));
    struct test_error e = {0, 0, 0, 0};
    const u32 f = run_n / 2;
    const struct emu_launch launch = {"gate_up", (emu_kernel *)gate_up,
                                      SKINNY_GATE_UP_LAUNCH(ROWS, run_n, run_k), true, NULL};
    const struct emu_launch launch2 = {"gate_up_2", (emu_kernel *)gate_up_2,
                                       SKINNY_GATE_UP_LAUNCH_2(ROWS, run_n, run_k), true, NULL};
    const struct cuda_maps maps = SKINNY_GATE_UP_MAPS(ROWS, run_n, run_k);
    void *operands[] = {in.h, in.x, in.w, in.gain, NULL, in.scratch, in.counter};
    test_maps(&maps, operands);
    emu_run(&launch, operands, 7);
    emu_run(&launch2, operands, 7);
    for (u32 r = 0; r < ROWS; r++) {
        norm(&in, r);
        for (u32 j = 0; j < f; j++) {
            double slack[2], gate = dot(in.w + (size_t)j * run_k, in.row, &slack[0]);
            double up = dot(in.w + (size_t)(f + j) * run_k, in.row, &slack[1]);
            test_compare(&e, r * f + j, f32_from_bf16(in.h[r * f + j]),
                         gate / (1 + exp(-gate)) * up,
                         1.1 * slack[0] * fabs(up) + slack[1] * (fabs(gate) + slack[0]), 1.0 / 250);
        }
    }
    return done(&in, &e, "gate_up");
}

HOST_CODE static int check_head(void)
{
    struct inputs in = make(SKINNY_HEAD_SCRATCH(ROWS, run_n, run_k));
    struct test_error e = {0, 0, 0, 0};
    const struct emu_launch launch = {"head", (emu_kernel *)head,
                                      SKINNY_HEAD_LAUNCH(ROWS, run_n, run_k), true, NULL};
    const struct emu_launch launch2 = {"head_2", (emu_kernel *)head_2,
                                       SKINNY_HEAD_LAUNCH_2(ROWS, run_n, run_k), true, NULL};
    const struct cuda_maps maps = SKINNY_HEAD_MAPS(ROWS, run_n, run_k);
    void *operands[] = {in.out, in.x, in.w, in.gain, in.call, in.head_row, in.scratch, in.counter};
    test_maps(&maps, operands);
    emu_run(&launch, operands, 8);
    emu_run(&launch2, operands, 8);
    for (u32 i = 0; i < run_head_rows; i++) {
        norm(&in, (u32)in.head_row[i]);
        for (u32 j = 0; j < run_n; j++) {
            double slack, sum = dot(in.w + (size_t)j * run_k, in.row, &slack);
            test_compare(&e, i * run_n + j, in.out[i * run_n + j], sum, slack, 0);
        }
    }
    return done(&in, &e, "head");
}

HOST_CODE static void shape(u32 n, u32 k, u32 sms, u32 head_rows)
{
    static u32 seed;
    emu_seed(++seed);
    run_n = n;
    run_k = k;
    run_sms = sms;
    run_head_rows = head_rows;
}

HOST_CODE int main(void)
{
    int bad = 0;
    shape(136, 328, 5, ROWS);
    bad |= check_residual(false);
    bad |= check_residual(true);
    shape(400, 72, 3, ROWS);
    bad |= check_gate_up();
    shape(48, 520, 4, ROWS);
    bad |= check_gate_up();
    shape(307, 64, 2, ROWS - 2);
    bad |= check_head();
    shape(33, 800, 3, ROWS);
    bad |= check_head();
    shape(16, 8, 2, 0);
    bad |= check_head();
    return bad;
}

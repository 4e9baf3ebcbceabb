/* decode_products_test.c - decode_residual.cu, decode_gate_up.cu and decode_head.cu against fp64:
 * run- time shapes of all sorts, then constants. */
#include "kernel_test.h"
#include "archrt_cuda.h"

static u32 run_m, run_n, run_k, run_sms, run_arch = 90;
#define CUDA_SMS run_sms
#define CUDA_ARCH run_arch
#define EPSILON 1e-5f
#define D_MODEL run_n
#include "launch.h"

#define KERNEL embed
#define DM_M run_m
#include "decode_embed.cu"
#define KERNEL residual
#define DM_M run_m
#define DM_N run_n
#define DM_K run_k
#include "decode_residual.cu"
#define KERNEL gate_up
#define DM_M run_m
#define DM_N run_n
#define DM_K run_k
#include "decode_gate_up.cu"
#define KERNEL head
#define DM_M run_m
#define DM_N run_n
#define DM_K run_k
#include "decode_head.cu"

#define KERNEL residual_3_88_328
#define DM_M 3
#define DM_N 88
#define DM_K 328
#include "decode_residual.cu"
#define KERNEL gate_up_1_208_136
#define DM_M 1
#define DM_N 208
#define DM_K 136
#include "decode_gate_up.cu"
#define KERNEL head_8_211_64
#define DM_M 8
#define DM_N 211
#define DM_K 64
#include "decode_head.cu"

enum { FP32_OUT = 1, NORMED = 2 };

/* sum of w[row] x, both as the kernel rounds them, and of the absolute values. */
HOST_CODE static double dot(const bf16 *w, const float *x, u32 k, double *size)
{
    double sum = 0;
    *size = 0;
    for (u32 i = 0; i < k; i++) {
        double term = (double)f32_from_bf16(w[i]) * x[i];
        sum += term;
        *size += fabs(term);
    }
    return sum;
}

/* Row r of x as the product sees it, and the factor of its norm. */
HOST_CODE static double normed(float *to, const float *x, const float *gain, u32 k)
{
    double squares = 0;
    for (u32 i = 0; i < k; i++) {
        squares += (double)x[i] * x[i];
        to[i] = f32_from_bf16(bf16_from_f32(x[i] * gain[i]));
    }
    return 1 / sqrt(squares / k + 1e-5);
}

/* What every product takes. */
struct inputs {
    bf16 *w, *a;
    float *x, *gain, *row, *residual, *out;
    bf16 *h;
    i32 *slot, *head_row;
    struct cuda_call *call;
};

HOST_CODE static struct inputs make(void)
{
    const size_t mk = (size_t)run_m * run_k, mn = (size_t)run_m * run_n;
    struct inputs in;
    in.w = test_bf16s("w", (size_t)run_n * run_k, 0.1f);
    in.a = test_bf16s("a", mk, 1);
    in.x = test_floats("x", mk, 2);
    in.gain = test_floats("gain", run_k, 1);
    in.residual = test_floats("residual", mn, 1);
    in.out = emu_alloc("out", mn * sizeof(float));
    in.h = emu_alloc("h", mn * sizeof(bf16));
    in.slot = emu_alloc("slot", run_m * sizeof(i32));
    in.head_row = emu_alloc("head_row", run_m * sizeof(i32));
    in.call = emu_alloc("call", sizeof(*in.call));
    in.row = malloc(run_k * sizeof(float));
    for (u32 i = 0; i < run_m; i++) {
        in.slot[i] = (i32)i;
        in.head_row[i] = (i32)(run_m - 1 - i);
    }
    emu_mark(in.slot, run_m * sizeof(i32));
    emu_mark(in.head_row, run_m * sizeof(i32));
    return in;
}

HOST_CODE static int done(struct inputs *in, const struct test_error *e, const char *what)
{
    char line[96];
    snprintf(line, sizeof(line), "%s m %u n %u k %u, %u processors", what, run_m, run_n, run_k,
             run_sms);
    free(in->row);
    emu_free_all();
    return test_verdict(e, line);
}

HOST_CODE static int check_residual(emu_kernel *kernel)
{
    struct inputs in = make();
    struct test_error e = {0, 0, 0, 0};
    const struct emu_launch launch = {"residual", kernel,
                                      DECODE_RESIDUAL_LAUNCH(run_m, run_n, run_k), true, NULL};
    EMU_RUN(&launch, in.out, in.a, in.w, in.residual, in.slot, NULL, NULL);
    for (u32 r = 0; r < run_m; r++)
        for (u32 j = 0; j < run_n; j++) {
            double size, sum;
            for (u32 i = 0; i < run_k; i++)
                in.row[i] = f32_from_bf16(in.a[r * run_k + i]);
            sum = dot(in.w + (size_t)j * run_k, in.row, run_k, &size);
            test_compare(&e, r * run_n + j, in.out[r * run_n + j], sum + in.residual[r * run_n + j],
                         1e-6 * size + 1e-6, 1e-6);
        }
    return done(&in, &e, "residual");
}

HOST_CODE static int check_gate_up(emu_kernel *kernel)
{
    struct inputs in = make();
    struct test_error e = {0, 0, 0, 0};
    const u32 f = run_n / 2;
    const struct emu_launch launch = {"gate_up", kernel, DECODE_GATE_UP_LAUNCH(run_m, run_n, run_k),
                                      true, NULL};
    EMU_RUN(&launch, in.h, in.x, in.w, in.gain, in.slot, NULL, NULL);
    for (u32 r = 0; r < run_m; r++) {
        double rstd = normed(in.row, in.x + r * run_k, in.gain, run_k);
        for (u32 j = 0; j < f; j++) {
            double sizes[2];
            double gate = rstd * dot(in.w + (size_t)j * run_k, in.row, run_k, &sizes[0]);
            double up = rstd * dot(in.w + (size_t)(f + j) * run_k, in.row, run_k, &sizes[1]);
            test_compare(
                &e, r * f + j, f32_from_bf16(in.h[r * f + j]), gate / (1 + exp(-gate)) * up,
                2e-6 * rstd * (sizes[0] * fabs(up) + sizes[1] * fabs(gate)) + 1e-6, 1.0 / 250);
        }
    }
    return done(&in, &e, "gate_up");
}

HOST_CODE static int check_head(emu_kernel *kernel, u32 rows)
{
    struct inputs in = make();
    struct test_error e = {0, 0, 0, 0};
    const struct cuda_call call = {(i32)run_m, (i32)rows, 0, 0};
    const struct emu_launch launch = {"head", kernel, DECODE_HEAD_LAUNCH(run_m, run_n, run_k), true,
                                      NULL};
    emu_write(in.call, &call, sizeof(call));
    EMU_RUN(&launch, in.out, in.x, in.w, in.gain, in.call, in.head_row, NULL, NULL);
    for (u32 i = 0; i < rows; i++) {
        double rstd = normed(in.row, in.x + in.head_row[i] * (i32)run_k, in.gain, run_k);
        for (u32 j = 0; j < run_n; j++) {
            double size, sum = dot(in.w + (size_t)j * run_k, in.row, run_k, &size);
            test_compare(&e, i * run_n + j, in.out[i * run_n + j], sum * rstd,
                         2e-6 * size * rstd + 1e-6, 0);
        }
    }
    return done(&in, &e, "head");
}

HOST_CODE static int check_embed(void)
{
    struct test_error e = {0, 0, 0, 0};
    struct inputs in = make();
    i32 next[4] = {3, 0, 7, -1}, length[4] = {5, 0, 9, 2}, slots[3] = {2, -1, 3};
    i32 *d_next = emu_alloc("next", sizeof(next)), *d_length = emu_alloc("length", sizeof(length));
    i32 *slot = emu_alloc("slot", sizeof(slots)), *token = emu_alloc("token", 12);
    i32 *position = emu_alloc("position", 12);
    const struct emu_launch launch = {"embed", (emu_kernel *)embed, DECODE_EMBED_LAUNCH(3, 0, 0),
                                      true, NULL};
    bf16 *table = test_bf16s("table", 8 * (size_t)run_n, 1);
    emu_write(d_next, next, sizeof(next));
    emu_write(d_length, length, sizeof(length));
    emu_write(slot, slots, sizeof(slots));
    EMU_RUN(&launch, in.out, token, position, table, slot, d_next, d_length, NULL, NULL, NULL);
    for (u32 j = 0; j < 3 * run_n; j++)
        test_compare(&e, j, in.out[j], j < run_n ? f32_from_bf16(table[7 * run_n + j]) : 0, 1e-30,
                     0);
    int bad = token[0] != 7 || position[0] != 9 || token[1] != 0 || position[1] != -1 ||
              token[2] != 0 || position[2] != 2;
    if (bad)
        printf("embed: tokens %d %d %d\n", token[0], token[1], token[2]);
    return done(&in, &e, "embed") | bad;
}

HOST_CODE static void shape(u32 m, u32 n, u32 k, u32 sms)
{
    static u32 seed;
    emu_seed(++seed);
    run_m = m;
    run_n = n;
    run_k = k;
    run_sms = sms;
}

HOST_CODE int main(void)
{
    static const u32 shapes[][4] = {{1, 64, 64, 2},  {2, 80, 40, 3},   {3, 144, 200, 1},
                                    {5, 48, 520, 2}, {7, 264, 136, 3}, {8, 120, 1096, 2},
                                    {8, 16, 8, 4}};
    /* one row: last tiles of few items and of many, warps without columns */
    static const u32 single[][3] = {{36, 512, 2}, {40, 1024, 2}, {24, 768, 1},  {38, 640, 2},
                                    {6, 256, 1},  {44, 200, 2},  {20, 2304, 1}, {52, 1280, 2}};
    /* rows of x that are several pieces for a thread, and more than it has on its way at once */
    static const u32 wide[][2] = {{1, 2568}, {1, 5128}, {2, 4168}, {3, 2120}, {6, 4104}, {1, 8264}};
    int bad = 0;
    for (size_t i = 0; i < sizeof(wide) / sizeof(wide[0]); i++) {
        shape(wide[i][0], 16, wide[i][1], 1);
        bad |= check_residual((emu_kernel *)residual);
        bad |= check_gate_up((emu_kernel *)gate_up);
        bad |= check_head((emu_kernel *)head, run_m);
    }
    for (size_t i = 0; i < sizeof(single) / sizeof(single[0]); i++) {
        shape(1, single[i][0], single[i][1], single[i][2]);
        bad |= check_residual((emu_kernel *)residual);
    }
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        run_arch = i % 2 ? 90 : 86;
        shape(shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3]);
        bad |= check_residual((emu_kernel *)residual);
        bad |= check_gate_up((emu_kernel *)gate_up);
        run_n += i & 1; /* a vocabulary may be odd */
        bad |= check_head((emu_kernel *)head, run_m - (i == 4) * 3);
    }
    run_arch = 86; /* where 8 rows of these do not fit shared memory */
    shape(8, 24, 2640, 1);
    bad |= check_residual((emu_kernel *)residual);
    bad |= check_gate_up((emu_kernel *)gate_up);
    shape(8, 300, 3200, 1);
    bad |= check_head((emu_kernel *)head, 8);
    shape(3, 48, 64, 2);
    bad |= check_embed();
    run_arch = 90;
    shape(3, 88, 328, 3);
    bad |= check_residual((emu_kernel *)residual_3_88_328);
    shape(1, 208, 136, 2);
    bad |= check_gate_up((emu_kernel *)gate_up_1_208_136);
    shape(8, 211, 64, 2);
    bad |= check_head((emu_kernel *)head_8_211_64, 8);
    bad |= check_head((emu_kernel *)head_8_211_64, 0);
    return bad;
}

/* skinny_products_test.c - skinny_residual.cu, skinny_gate_up.cu, skinny_head.cu and, as it hands
 * on x, decode_embed.cu against fp64 at ROWS rows, which is a number in every build: run-time
 * shapes, then constants. On sm_90 tiles are TEST_WIDE rows of weights, with constants as wide as
 * the launch thinks best. */
#include "kernel_test.h"
#include "archrt_cuda.h"
#include "tiles_test.h"

static u32 run_n, run_k, run_sms, run_head_rows;
#ifndef CUDA_ARCH
#define CUDA_ARCH 90
#endif
#define CUDA_SMS run_sms
#define EPSILON 1e-5f
#define HEAD_DIM 64
#define D_MODEL run_k
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

#define KERNEL embed
#define DM_M ROWS
#include "decode_embed.cu"

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

/* The sum times a factor, and its tolerance: of the sum's own rounding, and of two factors that the
 * kernel rounds to the other side of a tie, each 2^-8 of itself. */
HOST_CODE static double dot(const bf16 *w, const float *x, double factor, double *slack)
{
    double sum = 0, size = 0, most = 0;
    for (u32 i = 0; i < run_k; i++) {
        double term = (double)f32_from_bf16(w[i]) * x[i] * factor;
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
        in.head_row[i] = (i32)((i * 23 + 3) % ROWS);
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

/* x as the product of row r sees it, but for ties, and the factor of its sums: of tiles the norm's,
 * which rounding is not behind. */
HOST_CODE static double norm(struct inputs *in, u32 r)
{
    const float *x = in->x + (size_t)r * run_k;
    double squares = 0;
    for (u32 i = 0; i < run_k; i++)
        squares += (double)x[i] * x[i];
    const double factor = 1 / sqrt(squares / run_k + 1e-5);
    for (u32 i = 0; i < run_k; i++)
        in->row[i] = f32_from_bf16(bf16_from_f32(
            SKINNY_FOLDED(ROWS) ? x[i] * in->gain[i] : (float)(x[i] * factor * in->gain[i])));
    return SKINNY_FOLDED(ROWS) ? factor : 1;
}

#if SKINNY_WGMMA
#define PASS_1(name) NULL
#else
#define PASS_1(name) (emu_kernel *)name
#endif
/* The norm, where it is a pass of its own, and the product. */
HOST_CODE static void run_both(const struct emu_launch launches[2], void *operands[], int n)
{
    if (launches[0].threads > 0)
        emu_run(&launches[0], operands, n);
    emu_run(&launches[1], operands, n);
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
    const struct test_tiles next = tiles_alloc(ROWS, run_n);
    float *gain = test_floats("gain", run_n, 1);
    void *operands[] = {in.out,     in.a,       in.w, in.residual, NULL,
                        in.scratch, in.counter, gain, next.tiles,  next.squares};
    test_maps(&maps, operands);
    emu_run(&launch, operands, 10);
    const int bad = SKINNY_FOLDED(ROWS) && tiles_check(&next, in.out, gain, "residual");
    for (u32 r = 0; r < ROWS; r++) {
        for (u32 i = 0; i < run_k; i++)
            in.row[i] = f32_from_bf16(in.a[r * run_k + i]);
        for (u32 j = 0; j < run_n; j++) {
            double slack, sum = dot(in.w + (size_t)j * run_k, in.row, 1, &slack);
            test_compare(&e, r * run_n + j, in.out[r * run_n + j], sum + in.residual[r * run_n + j],
                         slack / 100 + 1e-6, 1e-6);
        }
    }
    return done(&in, &e, "residual") | bad;
}

HOST_CODE static int check_gate_up(void)
{
    struct inputs in = make(SKINNY_GATE_UP_SCRATCH(ROWS, run_n, run_k));
    struct test_error e = {0, 0, 0, 0};
    const u32 f = run_n / 2;
    const struct emu_launch launches[] = {
        {"gate_up", PASS_1(gate_up), SKINNY_GATE_UP_LAUNCH(ROWS, run_n, run_k), true, NULL},
        {"gate_up_2", (emu_kernel *)gate_up_2, SKINNY_GATE_UP_LAUNCH_2(ROWS, run_n, run_k), true,
         NULL}};
    const struct cuda_maps maps = SKINNY_GATE_UP_MAPS(ROWS, run_n, run_k);
    const struct test_tiles x = tiles_of(in.x, in.gain, ROWS, run_k);
    void *operands[] = {in.h,       in.x,       in.w,    in.gain,  NULL,
                        in.scratch, in.counter, x.tiles, x.squares};
    test_maps(&maps, operands);
    run_both(launches, operands, 9);
    for (u32 r = 0; r < ROWS; r++) {
        const double factor = norm(&in, r);
        for (u32 j = 0; j < f; j++) {
            double slack[2];
            double gate = dot(in.w + (size_t)j * run_k, in.row, factor, &slack[0]);
            double up = dot(in.w + (size_t)(f + j) * run_k, in.row, factor, &slack[1]);
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
    const struct emu_launch launches[] = {
        {"head", PASS_1(head), SKINNY_HEAD_LAUNCH(ROWS, run_n, run_k), true, NULL},
        {"head_2", (emu_kernel *)head_2, SKINNY_HEAD_LAUNCH_2(ROWS, run_n, run_k), true, NULL}};
    const struct cuda_maps maps = SKINNY_HEAD_MAPS(ROWS, run_n, run_k);
    const struct test_tiles x = tiles_of(in.x, in.gain, ROWS, run_k);
    void *operands[] = {in.out,      in.x,       in.w,       in.gain, in.call,
                        in.head_row, in.scratch, in.counter, x.tiles, x.squares};
    test_maps(&maps, operands);
    run_both(launches, operands, 10);
    for (u32 i = 0; i < run_head_rows; i++) {
        const double factor = norm(&in, (u32)in.head_row[i]);
        for (u32 j = 0; j < run_n; j++) {
            double slack, sum = dot(in.w + (size_t)j * run_k, in.row, factor, &slack);
            test_compare(&e, i * run_n + j, in.out[i * run_n + j], sum, slack, 0);
        }
    }
    return done(&in, &e, "head");
}

enum { IDS = 8 };

/* A row in five is idle, one has no token; all of what is handed on is written. */
HOST_CODE static int check_embed(void)
{
    struct inputs in = make(0);
    struct test_error e = {0, 0, 0, 0};
    const struct emu_launch launch = {"embed", (emu_kernel *)embed, DECODE_EMBED_LAUNCH(ROWS, 0, 0),
                                      true, NULL};
    const struct test_tiles next = tiles_alloc(ROWS, run_k);
    bf16 *table = test_bf16s("table", (size_t)IDS * run_k, 1);
    i32 *slot = emu_alloc("slot", ROWS * 4), *token = emu_alloc("token", ROWS * 4);
    i32 *fed = emu_alloc("next", ROWS * 4), *length = emu_alloc("length", ROWS * 4);
    i32 *position = emu_alloc("position", ROWS * 4);
    int bad = 0;
    for (i32 i = 0; i < ROWS; i++) {
        slot[i] = i % 5 == 4 ? -1 : ROWS - 1 - i;
        fed[i] = i == ROWS / 2 ? -1 : i * 3 % IDS;
        length[i] = i * 11;
    }
    emu_mark(slot, ROWS * 4), emu_mark(fed, ROWS * 4), emu_mark(length, ROWS * 4);
    emu_fill(next.tiles, 0xff, (size_t)next.rows * next.columns * sizeof(bf16));
    emu_fill(next.squares, 0xff, (size_t)ROWS * next.parts * sizeof(float));
    EMU_RUN(&launch, in.x, token, position, table, slot, fed, length, in.gain, next.tiles,
            next.squares);
    for (u32 r = 0; r < ROWS; r++) {
        const i32 s = slot[r], id = s < 0 ? -1 : fed[s];
        bad |= token[r] != (id < 0 ? 0 : id) || position[r] != (s < 0 ? -1 : length[s]);
        for (u32 j = 0; j < run_k; j++)
            test_compare(&e, r * run_k + j, in.x[r * run_k + j],
                         id < 0 ? 0 : f32_from_bf16(table[(u32)id * run_k + j]), 1e-30, 0);
    }
    if (SKINNY_FOLDED(ROWS))
        bad |= tiles_check(&next, in.x, in.gain, "embed");
    return done(&in, &e, "embed") | bad;
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
    shape(72, 600, 6, ROWS); /* on sm_90 in clusters of 3, of 4 */
    bad |= check_residual(false);
    shape(72, 840, 9, ROWS);
    bad |= check_residual(false);
#if SKINNY_WGMMA
    shape(24, 2120, 4, ROWS); /* more steps a block than stages, not all as many */
    bad |= check_residual(false);
#endif
    shape(400, 72, 3, ROWS);
    bad |= check_gate_up();
    shape(48, 520, 4, ROWS);
    bad |= check_gate_up();
    shape(307, 64, 2, ROWS - 2);
    bad |= check_head();
    shape(33, 800, 4, ROWS);
    bad |= check_head();
    shape(16, 8, 2, 0);
    bad |= check_head();
    bad |= check_embed();
    shape(16, 200, 2, 0);
    bad |= check_embed();
    shape(16, 2304, 2, 0);
    bad |= check_embed();
    return bad;
}

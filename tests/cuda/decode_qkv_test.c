/* decode_qkv_test.c - decode_qkv.cu, or skinny_qkv.cu of SKINNY rows, against fp64, of one
 * HEAD_DIM: with and without bias and the norm of heads, run-time shapes and constants. */
#include "kernel_test.h"
#include "archrt_cuda.h"
#include "tiles_test.h"

static u32 run_m, run_k, run_heads, run_kv_heads, run_pages, run_sms;
#define HEADS run_heads
#define KV_HEADS run_kv_heads
#define PAGES run_pages
#define CONTEXT (run_pages * KV_PAGE)
#define CUDA_SMS run_sms
#ifndef CUDA_ARCH
#define CUDA_ARCH 90
#endif
#define EPSILON 1e-5f
#define QKV ((run_heads + 2 * run_kv_heads) * HEAD_DIM)
#include "launch.h"

#ifdef SKINNY
#define FILE_UNDER_TEST "skinny_qkv.cu"
#define LAUNCH(m, n, k) SKINNY_QKV_LAUNCH(m, n, k)
#define LAUNCH_2(m, n, k) SKINNY_QKV_LAUNCH_2(m, n, k)
#define SCRATCH(m, n, k) SKINNY_QKV_SCRATCH(m, n, k)
#define CONSTANT_M SKINNY
#if SKINNY_QKV_WGMMA(SKINNY)
#define ROUNDS_FIRST 1
#define SLACK 2e-5
#else
#define SLACK 0.01 /* a normed x between two bf16 may be rounded either way */
#endif
#else
#define FILE_UNDER_TEST "decode_qkv.cu"
#define LAUNCH(m, n, k) DECODE_QKV_LAUNCH(m, n, k)
#define SCRATCH(m, n, k) DECODE_QKV_SCRATCH(m, n, k)
#define CONSTANT_M 4
#define ROUNDS_FIRST 1
#define SLACK 2e-5
#endif

#define KERNEL plain
#ifdef SKINNY
#define DM_M SKINNY
#else
#define DM_M run_m
#endif
#define DM_N QKV
#define DM_K run_k
#define DM_BIAS 0
#define DM_HEAD_NORM 0
#include FILE_UNDER_TEST
#define KERNEL with_bias
#ifdef SKINNY
#define DM_M SKINNY
#else
#define DM_M run_m
#endif
#define DM_N QKV
#define DM_K run_k
#define DM_BIAS 1
#define DM_HEAD_NORM 0
#include FILE_UNDER_TEST
#define KERNEL with_norm
#ifdef SKINNY
#define DM_M SKINNY
#else
#define DM_M run_m
#endif
#define DM_N QKV
#define DM_K run_k
#define DM_BIAS 1
#define DM_HEAD_NORM 1
#include FILE_UNDER_TEST

#undef HEADS
#undef KV_HEADS
#define HEADS 6
#define KV_HEADS 2
#define KERNEL constants
#define DM_M CONSTANT_M
#define DM_N ((6 + 4) * HEAD_DIM)
#define DM_K 72
#define DM_BIAS 1
#define DM_HEAD_NORM 1
#include FILE_UNDER_TEST
#undef HEADS
#undef KV_HEADS
#define HEADS run_heads
#define KV_HEADS run_kv_heads

enum { POOL = 6, MAX_ROWS = 256 }; /* pages of the pool */

struct buffers {
    bf16 *q, *cache, *w;
    float *x, *gain, *bias, *head_gain, *rope;
    i32 *slot, *position, *length, *pages, *counter;
    void *scratch;
    float *row;
    double *want;
};

HOST_CODE static i32 *ints(const char *name, u32 n)
{
    i32 *p = emu_alloc(name, n * sizeof(i32));
    emu_fill(p, 0, n * sizeof(i32));
    return p;
}

/* Row i: slot i % 3 - 1 of -1, 0, 1.. no: every third row is idle, the others have a page each. */
HOST_CODE static struct buffers make(void)
{
    const size_t n = QKV, e = HEAD_DIM;
    const size_t page = 2 * (size_t)run_kv_heads * KV_PAGE * e;
    struct buffers b;
    b.q = emu_alloc("q", run_m * run_heads * e * 2);
    b.cache = emu_alloc("cache", (run_m + POOL) * page * 2);
    b.w = test_bf16s("w", n * run_k, 0.2f);
    b.x = test_floats("x", (size_t)run_m * run_k, 2);
    b.gain = test_floats("gain", run_k, 1);
    b.bias = test_floats("bias", n, 1);
    b.head_gain = test_floats("head_gain", 2 * e, 1);
    b.rope = test_floats("rope", (size_t)run_pages * KV_PAGE * e, 1);
    b.slot = ints("slot", run_m);
    b.position = ints("position", run_m);
    b.length = ints("length", run_m);
    b.pages = ints("pages", run_m * run_pages);
    b.counter = ints("counter", CUDA_COUNTERS);
    b.scratch = emu_alloc("scratch", SCRATCH(run_m, n, run_k));
    b.row = malloc(run_k * sizeof(float));
    b.want = malloc(n * sizeof(double));
    for (u32 i = 0; i < run_m; i++) {
        b.slot[i] = i % 3 == 2 ? -1 : (i32)(run_m - 1 - i);
        b.position[i] = i % 3 == 2 ? -1 : (i32)((i * 37 + 5) % (run_pages * KV_PAGE));
        if (b.slot[i] >= 0)
            b.length[b.slot[i]] = b.position[i];
        for (u32 p = 0; p < run_pages; p++)
            b.pages[(run_m - 1 - i) * run_pages + p] =
                p == (u32)b.position[i] / KV_PAGE ? (i32)(i + POOL / 2) : 99999;
    }
    return b;
}

/* The projection of row r, biased, normed and turned. */
HOST_CODE static void expect(const struct buffers *b, u32 r, bool bias, bool norm)
{
    const u32 e = HEAD_DIM, heads = run_heads + 2 * run_kv_heads;
    double squares = 0;
    for (u32 i = 0; i < run_k; i++) {
        float x = b->x[r * run_k + i];
        squares += (double)x * x;
        b->row[i] = f32_from_bf16(bf16_from_f32(x * b->gain[i]));
    }
#ifndef ROUNDS_FIRST /* but when x has its factor */
    float rstd = (float)(1 / sqrt(squares / run_k + 1e-5));
    for (u32 i = 0; i < run_k; i++)
        b->row[i] = f32_from_bf16(bf16_from_f32(b->x[r * run_k + i] * rstd * b->gain[i]));
    double factor = 1;
#else
    double factor = 1 / sqrt(squares / run_k + 1e-5);
#endif
    for (u32 j = 0; j < heads * e; j++) {
        double sum = 0;
        for (u32 i = 0; i < run_k; i++)
            sum += (double)f32_from_bf16(b->w[(size_t)j * run_k + i]) * b->row[i];
        b->want[j] = sum * factor + (bias ? b->bias[j] : 0);
    }
    for (u32 h = 0; h < run_heads + run_kv_heads; h++) {
        double *v = b->want + h * e, sum = 0;
        const float *gain = b->head_gain + (h < run_heads ? 0 : e);
        for (u32 i = 0; i < e; i++)
            sum += v[i] * v[i];
        for (u32 i = 0; norm && i < e; i++)
            v[i] *= gain[i] / sqrt(sum / e + 1e-5);
        for (u32 i = 0; i < e / 2; i++) {
            const float *turn = b->rope + ((size_t)b->position[r] * e / 2 + i) * 2;
            double low = v[i], high = v[i + e / 2];
            v[i] = low * turn[0] - high * turn[1];
            v[i + e / 2] = high * turn[0] + low * turn[1];
        }
    }
}

HOST_CODE static int compare(const struct buffers *b, bool bias, bool norm)
{
    const u32 e = HEAD_DIM, k_heads = run_kv_heads;
    struct test_error error = {0, 0, 0, 0};
    char what[128];
    for (u32 r = 0; r < run_m; r++) {
        if (b->slot[r] < 0)
            continue;
        const u32 p = (u32)b->position[r], q_heads = run_heads;
        const i32 page = b->pages[(u32)b->slot[r] * run_pages + p / KV_PAGE];
        expect(b, r, bias, norm);
        for (u32 j = 0; j < (q_heads + 2 * k_heads) * e; j++) {
            const u32 h = j / e;
            bf16 got;
            if (h < q_heads)
                emu_read(&got, b->q + (size_t)r * q_heads * e + j, 2);
            else
                emu_read(&got,
                         b->cache +
                             (((size_t)page * 2 * k_heads + h - q_heads) * KV_PAGE + p % KV_PAGE) *
                                 e +
                             j % e,
                         2);
            test_compare(&error, (size_t)r * 100000 + j, f32_from_bf16(got), b->want[j], SLACK,
                         1.0 / 250);
        }
    }
    snprintf(what, sizeof(what), "qkv m %u k %u heads %u/%u of %d, %u processors%s%s (row x 1e5)",
             run_m, run_k, run_heads, run_kv_heads, HEAD_DIM, run_sms, bias ? ", bias" : "",
             norm ? ", norm" : "");
    int bad = test_verdict(&error, what);
    for (u32 i = 0; i < CUDA_COUNTERS; i++)
        if (b->counter[i]) {
            printf("%s: counter %u is left at %d\n", what, i, b->counter[i]);
            return 1;
        }
    return bad;
}

HOST_CODE static int check(emu_kernel *kernel, emu_kernel *second, bool bias, bool norm)
{
    struct buffers b = make();
    const struct emu_launch launch = {"qkv", kernel, LAUNCH(run_m, QKV, run_k), true, NULL};
    const struct test_tiles x = tiles_of(b.x, b.gain, run_m, run_k);
    void *operands[] = {b.q,     b.cache,     b.x,       b.w,     b.gain,
                        b.bias,  b.head_gain, b.rope,    b.slot,  b.length,
                        b.pages, b.scratch,   b.counter, x.tiles, x.squares};
#ifdef SKINNY
    const struct emu_launch launch2 = {"qkv_2", second, LAUNCH_2(run_m, QKV, run_k), true, NULL};
    const struct cuda_maps maps = SKINNY_QKV_MAPS(run_m, QKV, run_k);
    test_maps(&maps, operands);
    if (launch.threads > 0)
        emu_run(&launch, operands, 15);
    emu_run(&launch2, operands, 15);
#else
    (void)second;
    emu_run(&launch, operands, 13);
#endif
    int bad = compare(&b, bias, norm);
    free(b.row);
    free(b.want);
    emu_free_all();
    return bad;
}

HOST_CODE static void shape(u32 m, u32 k, u32 heads, u32 kv_heads, u32 sms)
{
    static u32 seed;
    emu_seed(++seed);
    run_m = m;
    run_k = k;
    run_heads = heads;
    run_kv_heads = kv_heads;
    run_sms = sms;
    run_pages = 1 + seed % 3;
}

#if defined(SKINNY) && SKINNY_QKV_WGMMA(SKINNY)
#define RUN(name, bias, norm) check(NULL, (emu_kernel *)name##_2, bias, norm)
#elif defined(SKINNY)
#define RUN(name, bias, norm) check((emu_kernel *)name, (emu_kernel *)name##_2, bias, norm)
#else
#define RUN(name, bias, norm) check((emu_kernel *)name, NULL, bias, norm)
#endif

HOST_CODE int main(void)
{
    int bad = 0;
#ifdef SKINNY
    shape(SKINNY, 72, 3, 1, 3);
    bad |= RUN(plain, false, false);
    shape(SKINNY, 136, 2, 2, 2);
    bad |= RUN(with_bias, true, false);
    shape(SKINNY, 200, 5, 1, 7);
    bad |= RUN(with_norm, true, true);
    shape(SKINNY, 520, 3, 1, 14); /* columns split, in two, three, four */
    bad |= RUN(with_norm, true, true);
    shape(SKINNY, 520, 2, 1, 13);
    bad |= RUN(with_bias, true, false);
    shape(SKINNY, 800, 1, 1, 13);
    bad |= RUN(with_norm, true, true);
#else
    static const u32 shapes[][5] = {
        {1, 64, 3, 1, 2}, {3, 72, 2, 2, 3}, {8, 136, 9, 1, 7}, {1, 512, 3, 1, 16}};
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        shape(shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3], shapes[i][4]);
        bad |= RUN(plain, false, false);
        bad |= RUN(with_bias, true, false);
        bad |= RUN(with_norm, true, true);
    }
#endif
    shape(CONSTANT_M, 72, 6, 2, 5);
    bad |= RUN(constants, true, true);
    return bad;
}

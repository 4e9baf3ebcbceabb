/* attention_test.c - attention.cu, attention_backward.cu and prefill_attention.cu against fp64, for
 * the HEAD_DIM it is compiled with. Tolerances: the kernels round probabilities (or ds) to bf16
 * once, so each sum may be off by 2^-8 of the sum of its terms' sizes, and its result by 2^-9 of
 * itself. */
#include "kernel_test.h"

#include <string.h>

#ifndef CUDA_ARCH
#define CUDA_ARCH 90
#endif
#define CUDA_SMS 2 /* fewer than there are works */
#define FLASH_NEAR_BYTES (16u << 10) /* a head or two at a time */
#define CONTEXT 512
#define SEGMENTS 4
#define PAGES (CONTEXT / KV_PAGE)
#include "archrt_cuda.h"

static int heads, kv_heads, sequences, tokens_each;

#define HEADS heads
#define KV_HEADS kv_heads
#include "launch.h"
#define KERNEL attention
#define ATT_B sequences
#define ATT_T tokens_each
#include "attention.cu"
#define KERNEL attention_backward
#define ATT_B sequences
#define ATT_T tokens_each
#include "attention_backward.cu"
#define KERNEL prefill_attention
#define ATT_M (2 * CONTEXT)
#include "prefill_attention.cu"
#undef HEADS
#undef KV_HEADS

/* The same with numbers for shapes. */
#define HEADS 9
#define KV_HEADS 1
#define KERNEL attention_9
#define ATT_B 1
#define ATT_T 45
#include "attention.cu"
#define KERNEL attention_backward_9
#define ATT_B 1
#define ATT_T 45
#include "attention_backward.cu"
#define KERNEL prefill_attention_9
#define ATT_M (2 * CONTEXT)
#include "prefill_attention.cu"
#undef HEADS
#undef KV_HEADS
#define HEADS heads
#define KV_HEADS kv_heads

struct kernels {
    emu_kernel *forward, *backward[3], *prefill;
};
static const struct kernels generic = {(emu_kernel *)attention,
                                       {(emu_kernel *)attention_backward,
                                        (emu_kernel *)attention_backward_2,
                                        (emu_kernel *)attention_backward_3},
                                       (emu_kernel *)prefill_attention};
static const struct kernels special = {(emu_kernel *)attention_9,
                                       {(emu_kernel *)attention_backward_9,
                                        (emu_kernel *)attention_backward_9_2,
                                        (emu_kernel *)attention_backward_9_3},
                                       (emu_kernel *)prefill_attention_9};

enum { E = HEAD_DIM };
#define ROUNDING (1.02 / 256) /* of bf16, and a little for fp32 */

HOST_CODE static double *doubles(size_t n)
{
    double *p = calloc(n, sizeof *p);
    if (!p)
        exit(1);
    return p;
}

HOST_CODE static double dot(const bf16 *a, const bf16 *b)
{
    double sum = 0;
    for (int e = 0; e < E; e++)
        sum += (double)f32_from_bf16(a[e]) * f32_from_bf16(b[e]);
    return sum;
}

HOST_CODE static void add(double *to, double *size, double f, const bf16 *x)
{
    for (int e = 0; e < E; e++) {
        double term = f * f32_from_bf16(x[e]);
        to[e] += term;
        size[e] += fabs(term);
    }
}

HOST_CODE static void compare(struct test_error *e, const bf16 *got, const double *want,
                              const double *size, double scale)
{
    for (int i = 0; i < E; i++)
        test_compare(e, (size_t)i, f32_from_bf16(got[i]), scale * want[i],
                     ROUNDING * scale * size[i] + 1e-5, ROUNDING);
}

/* p over n keys; the log-sum-exp. */
HOST_CODE static double softmax(double *p, const bf16 *q, const bf16 *const *keys, int n)
{
    double top = -INFINITY, sum = 0;
    for (int j = 0; j < n; j++) {
        p[j] = dot(q, keys[j]) / sqrt(E);
        top = fmax(top, p[j]);
    }
    for (int j = 0; j < n; j++)
        sum += p[j] = exp(p[j] - top);
    for (int j = 0; j < n; j++)
        p[j] /= sum;
    return top + log(sum);
}

/* One query against n keys and values. */
HOST_CODE static double check_query(struct test_error *e, const bf16 *att, const bf16 *q,
                                    const bf16 *const *keys, const bf16 *const *values, int n,
                                    double *p)
{
    double out[E] = {0}, size[E] = {0};
    double lse = softmax(p, q, keys, n);
    for (int j = 0; j < n; j++)
        add(out, size, p[j], values[j]);
    compare(e, att, out, size, 1);
    return lse;
}

/* ---- training ---- */

struct tensors {
    bf16 *qkv, *att, *datt, *dqkv;
    float *lse;
    size_t width; /* of qkv */
    size_t dq;
};

/* dk and dv of one kv head of one sequence, from the rows that see each key. */
struct key_sums {
    double *dk, *dk_size, *dv, *dv_size;
};

HOST_CODE static void check_gradient(struct test_error *err, const struct tensors *t, size_t row,
                                     int n, int h, const bf16 *const *keys,
                                     const bf16 *const *values, const double *p,
                                     const struct key_sums *sums)
{
    const bf16 *q = t->qkv + row * t->width + h * E, *g = t->datt + row * t->dq + h * E;
    double dq[E] = {0}, size[E] = {0}, delta = dot(g, t->att + row * t->dq + h * E);
    for (int j = 0; j < n; j++) {
        double ds = p[j] * (dot(g, values[j]) - delta);
        add(dq, size, ds, keys[j]);
        add(sums->dk + j * E, sums->dk_size + j * E, ds, q);
        add(sums->dv + j * E, sums->dv_size + j * E, p[j], g);
    }
    compare(err, t->dqkv + row * t->width + h * E, dq, size, 1 / sqrt(E));
}

HOST_CODE static void check_head(struct test_error err[4], const struct tensors *t, int b, int kv)
{
    const size_t n = (size_t)tokens_each, token0 = (size_t)b * n,
                 group = (size_t)(heads / kv_heads);
    const size_t at_k = t->dq + (size_t)kv * E, at_v = at_k + (size_t)kv_heads * E;
    const bf16 **keys = calloc(2 * n, sizeof *keys), **values = keys + n;
    double *p = doubles(n), *all = doubles(4 * n * E);
    const struct key_sums sums = {all, all + n * E, all + 2 * n * E, all + 3 * n * E};
    for (size_t j = 0; j < n; j++) {
        keys[j] = t->qkv + (token0 + j) * t->width + at_k;
        values[j] = t->qkv + (token0 + j) * t->width + at_v;
    }
    for (size_t i = 0; i < n; i++)
        for (size_t g = 0; g < group; g++) {
            const size_t row = token0 + i, h = (size_t)kv * group + g;
            double lse = check_query(&err[0], t->att + row * t->dq + h * E,
                                     t->qkv + row * t->width + h * E, keys, values, (int)i + 1, p);
            test_compare(&err[0], row, t->lse[row * (size_t)heads + h], lse, 2e-5, 2e-6);
            check_gradient(&err[1], t, row, (int)i + 1, (int)h, keys, values, p, &sums);
        }
    for (size_t j = 0; j < n; j++) {
        const bf16 *dk = t->dqkv + (token0 + j) * t->width + at_k;
        compare(&err[2], dk, sums.dk + j * E, sums.dk_size + j * E, 1 / sqrt(E));
        compare(&err[3], dk + kv_heads * E, sums.dv + j * E, sums.dv_size + j * E, 1);
    }
    free(keys);
    free(p);
    free(all);
}

HOST_CODE static void run_training(const struct kernels *k, const struct tensors *t)
{
    const int rows = sequences * tokens_each;
    const struct emu_launch forward = {"attention", k->forward,
                                       ATTENTION_LAUNCH(rows, tokens_each, E), false, NULL};
    const struct emu_launch backward[3] = {
        {"delta", k->backward[0], ATTENTION_BACKWARD_LAUNCH(rows, tokens_each, E), false, NULL},
        {"dk dv", k->backward[1], ATTENTION_BACKWARD_LAUNCH_2(rows, tokens_each, E), false, NULL},
        {"dq", k->backward[2], ATTENTION_BACKWARD_LAUNCH_3(rows, tokens_each, E), false, NULL}};
    void *scratch = emu_alloc("scratch", ATTENTION_BACKWARD_SCRATCH(rows, tokens_each, E));
    const struct cuda_maps maps = ATTENTION_MAPS(rows, tokens_each, E);
    void *operands[] = {t->att, t->lse, t->qkv, t->qkv};
    test_maps(&maps, operands);
    emu_run(&forward, operands, 4);
    for (int pass = 0; pass < 3; pass++)
        EMU_RUN(&backward[pass], t->dqkv, t->datt, t->att, t->lse, t->qkv, scratch);
}

HOST_CODE static int training(const struct kernels *k, int h, int kv, int b, int n)
{
    static const char *const parts[4] = {"forward", "dq", "dk", "dv"};
    struct test_error err[4] = {{0, 0, 0, 0}};
    struct tensors t;
    heads = h;
    kv_heads = kv;
    sequences = b;
    tokens_each = n;
    const size_t rows = (size_t)(b * n);
    t.dq = (size_t)(h * E);
    t.width = (size_t)((h + 2 * kv) * E);
    t.qkv = test_bf16s("qkv", rows * t.width, 1.3f);
    t.datt = test_bf16s("datt", rows * t.dq, 1);
    t.att = emu_alloc("att", rows * t.dq * sizeof(bf16));
    t.dqkv = emu_alloc("dqkv", rows * t.width * sizeof(bf16));
    t.lse = emu_alloc("lse", rows * (size_t)h * sizeof(float));
    run_training(k, &t);
    for (int i = 0; i < b; i++)
        for (int j = 0; j < kv; j++)
            check_head(err, &t, i, j);
    int bad = 0;
    for (int i = 0; i < 4; i++) {
        char what[96];
        snprintf(what, sizeof what, "%s, head size %d, %d/%d heads, %d x %d tokens", parts[i], E, h,
                 kv, b, n);
        bad |= test_verdict(&err[i], what);
    }
    emu_free_all();
    return bad;
}

/* ---- prefill ---- */

enum { MOST_SEGMENTS = SEGMENTS, POOL = (MOST_SEGMENTS + 1) * PAGES };
struct prompt {
    int past, rows;
};
struct paged {
    bf16 *qkv, *att, *cache;
    int *slot, *position, *pages, *segment_row;
    struct cuda_call *call;
};

HOST_CODE static bf16 *cached(const struct paged *t, int slot, int position, int half, int kv)
{
    size_t page = (size_t)t->pages[slot * PAGES + position / KV_PAGE];
    return t->cache + (((page * 2 + (size_t)half) * (size_t)kv_heads + (size_t)kv) * KV_PAGE +
                       (size_t)(position % KV_PAGE)) *
                          E;
}

/* Slot i + 1 belongs to prompt i; its pages lie backwards in the pool, with others' between. Keys
 * and values behind the last are what other sequences left there: finite. Of the table no more is
 * there than what the prompts need. */
HOST_CODE static void make_paged(struct paged *t, const struct prompt *prompts, int n)
{
    int rows = 0;
    t->pages = emu_alloc("pages", sizeof(int) * POOL);
    t->cache = emu_alloc("cache", sizeof(bf16) * POOL * 2 * (size_t)kv_heads * KV_PAGE * E);
    emu_fill(t->cache, 0x5f, sizeof(bf16) * POOL * 2 * (size_t)kv_heads * KV_PAGE * E); /* 1.6e19 */
    for (int i = 0; i < POOL; i++)
        t->pages[i] = POOL - 1 - i;
    t->segment_row = emu_alloc("segment_row", sizeof(int) * (MOST_SEGMENTS + 1));
    for (int s = 0; s < n; s++) {
        t->segment_row[s] = rows;
        rows += prompts[s].rows;
        const int used = prompts[s].past + prompts[s].rows;
        emu_mark(t->pages + (s + 1) * PAGES, sizeof(int) * (size_t)((used - 1) / KV_PAGE + 1));
        for (int i = 0; i < used * kv_heads * 2; i++) {
            bf16 *to = cached(t, s + 1, i / 2 / kv_heads, i % 2, i / 2 % kv_heads);
            for (int e = 0; e < E; e++)
                to[e] = bf16_from_f32(test_random());
            emu_mark(to, sizeof(bf16) * E);
        }
    }
    t->segment_row[n] = rows;
    emu_mark(t->segment_row, sizeof(int) * ((size_t)n + 1));
    t->slot = emu_alloc("slot", sizeof(int) * (size_t)rows);
    t->position = emu_alloc("position", sizeof(int) * (size_t)rows);
    for (int s = 0; s < n; s++)
        for (int i = 0; i < prompts[s].rows; i++) {
            t->slot[t->segment_row[s] + i] = s + 1;
            t->position[t->segment_row[s] + i] = prompts[s].past + i;
        }
    emu_mark(t->slot, sizeof(int) * (size_t)rows);
    emu_mark(t->position, sizeof(int) * (size_t)rows);
    t->call = emu_alloc("call", sizeof *t->call);
    const struct cuda_call call = {rows, n, n, 0};
    emu_write(t->call, &call, sizeof call);
    t->qkv = test_bf16s("qkv", (size_t)(rows * (heads + 2 * kv_heads) * E), 1.3f);
    t->att = emu_alloc("att", sizeof(bf16) * (size_t)(rows * heads * E));
}

HOST_CODE static void check_prompt(struct test_error *err, const struct paged *t, int s)
{
    const bf16 *keys[CONTEXT], *values[CONTEXT];
    double p[CONTEXT];
    for (int row = t->segment_row[s]; row < t->segment_row[s + 1]; row++)
        for (int h = 0; h < heads; h++) {
            int n = t->position[row] + 1, kv = h / (heads / kv_heads);
            for (int j = 0; j < n; j++) {
                keys[j] = cached(t, s + 1, j, 0, kv);
                values[j] = cached(t, s + 1, j, 1, kv);
            }
            check_query(err, t->att + (row * heads + h) * E,
                        t->qkv + (row * (heads + 2 * kv_heads) + h) * E, keys, values, n, p);
        }
}

HOST_CODE static int prefill(const struct kernels *k, int h, int kv, const struct prompt *prompts,
                             int n)
{
    struct test_error err = {0, 0, 0, 0};
    struct paged t;
    char what[96];
    heads = h;
    kv_heads = kv;
    make_paged(&t, prompts, n);
    const struct emu_launch launch = {
        "prefill", k->prefill, PREFILL_ATTENTION_LAUNCH(2 * CONTEXT, CONTEXT, E), false, NULL};
    struct cuda_maps maps = PREFILL_ATTENTION_MAPS(2 * CONTEXT, CONTEXT, E);
    maps.list[0].extents[3] = POOL;
    void *operands[] = {t.att, t.qkv, t.cache, t.call, t.segment_row, t.slot, t.position, t.pages};
    test_maps(&maps, operands);
    emu_run(&launch, operands, 8);
    for (int s = 0; s < n; s++)
        check_prompt(&err, &t, s);
    snprintf(what, sizeof what, "prefill, head size %d, %d/%d heads, %d prompts", E, h, kv, n);
    emu_free_all();
    return test_verdict(&err, what);
}

HOST_CODE int main(int argc, char **argv)
{
    static const struct prompt one[] = {{0, 1}}, long_one[] = {{130, 70}},
                               several[] = {{0, 77}, {63, 1}, {64, 2}, {5, 40}};
    const bool all = argc > 1 && strcmp(argv[1], "all") == 0;
    int bad = 0;
    bad |= training(&special, 9, 1, 1, 45);
    bad |= prefill(&special, 9, 1, several, 4);
    bad |= training(&generic, 3, 1, 2, 70);
    bad |= prefill(&generic, 10, 2, long_one, 1);
    bad |= prefill(&generic, 2, 1, one, 1); /* less works than blocks */
    bad |= training(&generic, 2, 1, 1, 280); /* works of one to three tiles */
    bad |= training(&generic, 2, 2, 1, 1);
    for (int group = 1; all && group <= 16; group++) {
        emu_seed((u32)group);
        bad |= training(&generic, group * 2, 2, 1, 20 + 600 / (group + 3));
        bad |= prefill(&generic, group, 1, group % 2 ? one : several, group % 2 ? 1 : 4);
    }
    return bad;
}

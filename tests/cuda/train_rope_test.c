/* train_rope_test.c - rope.cu, rope_backward.cu and prefill_rope.cu at one HEAD_DIM against fp64,
 * with run-time shapes and with constants. */
#include <string.h>

#include "kernel_test.h"

#define CUDA_SMS 1
#define CUDA_ARCH 90
enum { CONTEXT = 150 };
#define PAGES ((CONTEXT + 63) / 64)

static int shape_m, shape_t, shape_heads, shape_kv_heads;

#define HEADS ((u32)shape_heads)
#define KV_HEADS ((u32)shape_kv_heads)
#define KERNEL rope_any
#define ROPE_M shape_m
#define ROPE_T shape_t
#define ROPE_HEAD_NORM 0
#define NORM_EPS 1e-5f
#include "rope.cu"
#define KERNEL rope_norm_any
#define ROPE_M shape_m
#define ROPE_T shape_t
#define ROPE_HEAD_NORM 1
#define NORM_EPS 1e-5f
#include "rope.cu"
#define KERNEL back_any
#define ROPE_M shape_m
#define ROPE_T shape_t
#define ROPE_HEAD_NORM 0
#define NORM_EPS 1e-5f
#include "rope_backward.cu"
#define KERNEL back_norm_any
#define ROPE_M shape_m
#define ROPE_T shape_t
#define ROPE_HEAD_NORM 1
#define NORM_EPS 1e-5f
#include "rope_backward.cu"
#define KERNEL prefill_any
#define ROPE_M shape_m
#define ROPE_HEAD_NORM 0
#define NORM_EPS 1e-5f
#include "prefill_rope.cu"
#define KERNEL prefill_norm_any
#define ROPE_M shape_m
#define ROPE_HEAD_NORM 1
#define NORM_EPS 1e-5f
#include "prefill_rope.cu"

#undef HEADS
#undef KV_HEADS
#define HEADS 9u
#define KV_HEADS 3u
#define KERNEL rope_norm_set
#define ROPE_M 20
#define ROPE_T 10
#define ROPE_HEAD_NORM 1
#define NORM_EPS 1e-5f
#include "rope.cu"
#define KERNEL back_norm_set
#define ROPE_M 20
#define ROPE_T 10
#define ROPE_HEAD_NORM 1
#define NORM_EPS 1e-5f
#include "rope_backward.cu"
#define KERNEL prefill_norm_set
#define ROPE_M 20
#define ROPE_HEAD_NORM 1
#define NORM_EPS 1e-5f
#include "prefill_rope.cu"
#undef HEADS
#undef KV_HEADS
#define HEADS ((u32)shape_heads) /* for launches */
#define KV_HEADS ((u32)shape_kv_heads)

#define BF16_ERROR (1.0 / 256 + 1e-5)
enum { E = HEAD_DIM };

struct rope_test {
    emu_kernel *forward, *backward, *backward_2, *prefill;
    int m, t, heads, kv_heads;
    bool norm;
};

struct rope_data {
    int m, turned, width;
    bf16 *in;
    float *gain, *rope;
    float *old; /* of the host: in, as floats */
};

HOST_CODE static struct rope_data make_data(const struct rope_test *t)
{
    struct rope_data d = {.m = t->m, .turned = t->heads + t->kv_heads};
    d.width = (d.turned + t->kv_heads) * E;
    const size_t n = (size_t)t->m * d.width, table = (size_t)CONTEXT * E;
    d.in = test_bf16s("qkv", n, 2);
    d.gain = t->norm ? test_floats("gain", 2 * E, 1) : NULL;
    d.rope = emu_alloc("rope", sizeof(float) * table);
    for (int p = 0; p < CONTEXT; p++)
        for (int i = 0; i < E / 2; i++) {
            const double angle = p * pow(10000, -2.0 * i / E);
            d.rope[p * E + 2 * i] = (float)cos(angle);
            d.rope[p * E + 2 * i + 1] = (float)sin(angle);
        }
    emu_mark(d.rope, sizeof(float) * table);
    d.old = malloc(sizeof(float) * n);
    for (size_t i = 0; i < n; i++)
        d.old[i] = f32_from_bf16(d.in[i]);
    return d;
}

HOST_CODE static double head_rstd(const float *x)
{
    double sum = 0;
    for (int i = 0; i < E; i++)
        sum += (double)x[i] * x[i];
    return 1 / sqrt(sum / E + 1e-5);
}

/* y[E]: head h of a row, normalised and rotated. Its length is at most |x| r: the tolerance's base.
 */
HOST_CODE static void head_forward(double y[E], const struct rope_data *d, const float *x,
                                   int which, int position)
{
    const double r = d->gain ? head_rstd(x) : 1;
    for (int i = 0; i < E / 2; i++) {
        const double c = d->rope[position * E + 2 * i], s = d->rope[position * E + 2 * i + 1];
        const double a = x[i] * r * (d->gain ? d->gain[which * E + i] : 1);
        const double b = x[i + E / 2] * r * (d->gain ? d->gain[which * E + i + E / 2] : 1);
        y[i] = a * c - b * s;
        y[i + E / 2] = b * c + a * s;
    }
}

HOST_CODE static int rope_forward(const struct rope_test *t, bool in_place)
{
    char what[96];
    struct test_error e = {0, 0, 0, 0}, rstds = e;
    struct rope_data d = make_data(t);
    bf16 *out = in_place ? d.in : emu_alloc("out", sizeof(bf16) * (size_t)t->m * d.width);
    float *rstd = t->norm ? emu_alloc("rstd", sizeof(float) * (size_t)(t->m * d.turned)) : NULL;
    const struct emu_launch launch = {"rope", t->forward, ROPE_LAUNCH((u32)t->m, 0, E), false,
                                      NULL};
    EMU_RUN(&launch, out, rstd, d.in, d.gain, d.rope);
    for (int i = 0; i < t->m; i++)
        for (int h = 0; h < d.turned + t->kv_heads; h++) {
            double y[E];
            const size_t at = (size_t)i * d.width + (size_t)h * E;
            if (h < d.turned)
                head_forward(y, &d, d.old + at, h >= t->heads, i % t->t);
            for (int j = 0; j < E; j++)
                test_compare(&e, at + j, f32_from_bf16(out[at + j]),
                             h < d.turned ? y[j] : d.old[at + j], 4e-6, BF16_ERROR);
            if (t->norm && h < d.turned)
                test_compare(&rstds, (size_t)(i * d.turned + h), rstd[i * d.turned + h],
                             head_rstd(d.old + at), 0, 1e-5);
        }
    snprintf(what, sizeof(what), "rope of %d rows, %d/%d heads of %d%s%s", t->m, t->heads,
             t->kv_heads, E, t->norm ? ", norm" : "", in_place ? ", in place" : "");
    int bad = test_verdict(&e, what) | test_verdict(&rstds, what);
    free(d.old);
    emu_free_all();
    return bad;
}

/* The gradient of one head, dy becoming dx; adds to dgain, and to `sizes` the terms' sizes. */
HOST_CODE static void head_backward(double g[E], const struct rope_data *d, const float *x,
                                    const float *dy, int which, int position, double *dgain,
                                    double *sizes)
{
    const double r = d->gain ? head_rstd(x) : 1;
    double mean = 0;
    for (int i = 0; i < E / 2; i++) {
        const double c = d->rope[position * E + 2 * i], s = d->rope[position * E + 2 * i + 1];
        g[i] = dy[i] * c + dy[i + E / 2] * s;
        g[i + E / 2] = dy[i + E / 2] * c - dy[i] * s;
    }
    for (int i = 0; d->gain && i < E; i++) {
        dgain[which * E + i] += g[i] * x[i] * r;
        sizes[which * E + i] += fabs(g[i] * x[i] * r);
        g[i] *= d->gain[which * E + i];
        mean += g[i] * x[i] / E;
    }
    for (int i = 0; d->gain && i < E; i++)
        g[i] = r * (g[i] - x[i] * r * r * mean);
}

HOST_CODE static int rope_backward(const struct rope_test *t)
{
    char what[96];
    struct test_error e = {0, 0, 0, 0}, gains = e;
    struct rope_data d = make_data(t);
    const size_t n = (size_t)t->m * d.width;
    bf16 *dqkv = test_bf16s("dqkv", n, 1);
    float *dgain = test_floats("dgain", 2 * E, 1), *old = malloc(sizeof(float) * n);
    float *rstd = emu_alloc("rstd", sizeof(float) * (size_t)(t->m * d.turned));
    void *scratch = emu_alloc("scratch", ROPE_BACKWARD_SCRATCH((u32)t->m, 0, E));
    double sums[2 * E], sizes[2 * E] = {0};
    for (int i = 0; i < 2 * E; i++)
        sums[i] = dgain[i];
    for (size_t i = 0; i < n; i++)
        old[i] = f32_from_bf16(dqkv[i]);
    for (int i = 0; i < t->m; i++)
        for (int h = 0; h < d.turned; h++)
            rstd[i * d.turned + h] = (float)head_rstd(d.old + (size_t)i * d.width + h * E);
    emu_mark(rstd, sizeof(float) * (size_t)(t->m * d.turned));
    const struct emu_launch one = {"rope_backward", t->backward,
                                   ROPE_BACKWARD_LAUNCH((u32)t->m, 0, E), false, NULL};
    const struct emu_launch two = {"rope_backward_2", t->backward_2,
                                   ROPE_BACKWARD_LAUNCH_2((u32)t->m, 0, E), false, NULL};
    bf16 *in = t->norm ? d.in : NULL;
    float *kept = t->norm ? rstd : NULL, *to = t->norm ? dgain : NULL;
    EMU_RUN(&one, dqkv, to, in, kept, d.gain, d.rope, scratch);
    EMU_RUN(&two, dqkv, to, in, kept, d.gain, d.rope, scratch);
    for (int i = 0; i < t->m; i++)
        for (int h = 0; h < d.turned + t->kv_heads; h++) {
            double g[E];
            const size_t at = (size_t)i * d.width + (size_t)h * E;
            if (h < d.turned)
                head_backward(g, &d, d.old + at, old + at, h >= t->heads, i % t->t, sums, sizes);
            for (int j = 0; j < E; j++)
                test_compare(&e, at + j, f32_from_bf16(dqkv[at + j]),
                             h < d.turned ? g[j] : old[at + j], 4e-6, BF16_ERROR);
        }
    for (int i = 0; t->norm && i < 2 * E; i++)
        test_compare(&gains, (size_t)i, dgain[i], sums[i], 2e-6 * (1 + sizes[i]), 0);
    snprintf(what, sizeof(what), "rope_backward of %d rows, %d/%d heads of %d%s", t->m, t->heads,
             t->kv_heads, E, t->norm ? ", norm" : "");
    int bad = test_verdict(&e, what) | test_verdict(&gains, what);
    free(d.old);
    free(old);
    emu_free_all();
    return bad;
}

/* The element of the cache: of k (0) or v (1). */
HOST_CODE static size_t cached(const struct rope_test *t, int page, int which, int head,
                               int position)
{
    return ((((size_t)page * 2 + which) * t->kv_heads + head) * KV_PAGE + position % KV_PAGE) * E;
}

/* Rows of two slots: positions 60.. of slot 1, 3.. of slot 0; pages in no order. */
HOST_CODE static int rope_prefill(const struct rope_test *t)
{
    enum { SLOTS = 2, POOL = SLOTS * PAGES };
    char what[96];
    struct test_error e = {0, 0, 0, 0}, kvs = e;
    struct rope_data d = make_data(t);
    const int rows = t->m > 1 ? t->m - 1 : 1;
    const size_t ints = sizeof(int) * (size_t)t->m, pool = cached(t, POOL, 0, 0, 0);
    const struct cuda_call host = {rows, 0, 2, 0};
    struct cuda_call *call = emu_alloc("call", sizeof(host));
    bf16 *cache = emu_alloc("cache", sizeof(bf16) * pool);
    int *slot = emu_alloc("slot", ints), *position = emu_alloc("position", ints);
    int *pages = emu_alloc("pages", sizeof(int) * POOL);
    emu_write(call, &host, sizeof(host));
    for (int i = 0; i < t->m; i++) {
        slot[i] = i < t->m / 2;
        position[i] = slot[i] ? 60 + i : 3 + i;
    }
    for (int i = 0; i < POOL; i++)
        pages[i] = (i * 5 + 2) % POOL;
    emu_mark(slot, ints);
    emu_mark(position, ints);
    emu_mark(pages, sizeof(int) * POOL);
    const struct emu_launch launch = {"prefill_rope", t->prefill,
                                      PREFILL_ROPE_LAUNCH((u32)t->m, 0, E), false, NULL};
    EMU_RUN(&launch, d.in, cache, d.gain, d.rope, call, slot, position, pages);
    size_t written = 0;
    for (int i = 0; i < rows; i++)
        for (int h = 0; h < d.turned + t->kv_heads; h++) {
            double y[E];
            const size_t at = (size_t)i * d.width + (size_t)h * E;
            const int page = pages[slot[i] * PAGES + position[i] / KV_PAGE], kv = h - t->heads;
            const bool is_v = h >= d.turned;
            const bf16 *got = d.in + at;
            if (h >= t->heads)
                got = cache + cached(t, page, is_v, is_v ? kv - t->kv_heads : kv, position[i]);
            if (!is_v)
                head_forward(y, &d, d.old + at, h >= t->heads, position[i]);
            for (int j = 0; j < E; j++)
                test_compare(h < t->heads ? &e : &kvs, at + j, f32_from_bf16(got[j]),
                             is_v ? d.old[at + j] : y[j], 4e-6, BF16_ERROR);
            written += h >= t->heads ? E : 0;
        }
    for (size_t i = 0; i < pool; i++)
        written -= cache[i] != 0xffff;
    snprintf(what, sizeof(what), "prefill_rope of %d rows, %d/%d heads of %d%s", rows, t->heads,
             t->kv_heads, E, t->norm ? ", norm" : "");
    int bad = test_verdict(&e, what) | test_verdict(&kvs, what);
    if (written != 0) {
        printf("%s: wrote elsewhere in the cache\n", what);
        bad = 1;
    }
    free(d.old);
    emu_free_all();
    return bad;
}

HOST_CODE static int run(const struct rope_test *t)
{
    shape_m = t->m;
    shape_t = t->t;
    shape_heads = t->heads;
    shape_kv_heads = t->kv_heads;
    return rope_forward(t, false) | rope_forward(t, true) | rope_backward(t) | rope_prefill(t);
}

HOST_CODE int main(void)
{
    static const int heads[][2] = {{1, 1}, {7, 1}, {15, 3}, {9, 9}, {32, 2}, {36, 4}};
    int bad = 0;
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        const int m = (int)(i * 7 % 16) + 1;
        const struct rope_test plain = {(emu_kernel *)rope_any,
                                        (emu_kernel *)back_any,
                                        (emu_kernel *)back_any_2,
                                        (emu_kernel *)prefill_any,
                                        m,
                                        m > 4 ? m / 2 : m,
                                        heads[i][0],
                                        heads[i][1],
                                        false};
        const struct rope_test norm = {(emu_kernel *)rope_norm_any,
                                       (emu_kernel *)back_norm_any,
                                       (emu_kernel *)back_norm_any_2,
                                       (emu_kernel *)prefill_norm_any,
                                       m + 13,
                                       m,
                                       heads[i][0],
                                       heads[i][1],
                                       true};
        emu_seed((u32)i);
        bad |= run(&plain) | run(&norm);
    }
    const struct rope_test set = {(emu_kernel *)rope_norm_set,
                                  (emu_kernel *)back_norm_set,
                                  (emu_kernel *)back_norm_set_2,
                                  (emu_kernel *)prefill_norm_set,
                                  20,
                                  10,
                                  9,
                                  3,
                                  true};
    return bad | run(&set);
}

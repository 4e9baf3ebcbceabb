/* decode_sample_test.c - sample.cu: which tokens the filters leave, and which one the random number
 * picks, against a full sort in fp64. */
#include <string.h>

#include "kernel_test.h"
#include "archrt_cuda.h"
#include "sample.h"

static u32 run_m, run_v, run_tokens;
#define CONTEXT 40
#define CUDA_ARCH 90
#define CUDA_SMS 2
#define HEADS 1
#define KV_HEADS 1
#define HEAD_DIM 8
#include "launch.h"

#define KERNEL sample
#define SAMPLE_M run_m
#define SAMPLE_V run_v
#define SAMPLE_TOKENS run_tokens
#include "sample.cu"

#define KERNEL sample_5000
#define SAMPLE_M 2
#define SAMPLE_V 5000
#define SAMPLE_TOKENS 4997
#include "sample.cu"

struct candidate {
    float logit;
    u32 id;
    double p;
};

HOST_CODE static int before(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

HOST_CODE static double total(const struct candidate *c, u32 n)
{
    double sum = 0;
    for (u32 i = 0; i < n; i++)
        sum += c[i].p;
    return sum;
}

/* The ranking's beginning that is kept, at least and at most: rounding may move the ends of top-p
 * and min-p by elements that weigh less than `slack` of the whole. */
HOST_CODE static void keep(const struct candidate *c, u32 n, const struct cuda_sampling *o,
                           u32 ends[2])
{
    for (int most = 0; most < 2; most++) {
        const double slack = most ? 3e-6 : -3e-6;
        u32 end = o->top_k && (u32)o->top_k < n ? (u32)o->top_k : n;
        if (o->top_p < 1) {
            double want = (o->top_p + slack) * total(c, end), sum = 0;
            u32 i = 0;
            while (i < end && (i == 0 || sum < want))
                sum += c[i++].p;
            end = i;
        }
        while (o->min_p > 0 && c[end - 1].p < o->min_p * (1 - slack))
            end--;
        ends[most] = end;
    }
}

/* The kernel's own random number and its order of picking: chunks of the vocabulary one after the
 * other, by rank within each. */
HOST_CODE static double uniform(const u32 seed[2], u32 position)
{
    u64 z = ((u64)seed[1] << 32 | seed[0]) + (u64)(position + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

HOST_CODE static int chosen_right(const struct candidate *c, u32 end, double u, i32 token)
{
    double all = total(c, end), target = u * all, sum = 0;
    for (u32 chunk = 0; chunk * SAMPLE_CHUNK < run_v; chunk++)
        for (u32 i = 0; i < end; i++)
            if (c[i].id / SAMPLE_CHUNK == chunk) {
                const double from = sum;
                sum += c[i].p;
                if ((i32)c[i].id == token)
                    return target >= from - 4e-6 * all && target < sum + 4e-6 * all && c[i].p > 0;
            }
    return 0;
}

HOST_CODE static int right(const float *logits, const struct cuda_sampling *o, u32 position,
                           i32 token, struct candidate *c)
{
    u32 n = 0, ends[2];
    for (u32 i = 0; i < run_tokens; i++)
        if (logits[i] > -INFINITY && (!o->tokens || i < (u32)o->tokens)) {
            const struct candidate one = {logits[i], i, 0};
            c[n++] = one;
        }
    if (n == 0)
        return token == -1;
    qsort(c, n, sizeof(*c), before);
    if (o->temperature == 0)
        return token == (i32)c[0].id;
    for (u32 i = 0; i < n; i++)
        c[i].p =
            c[i].logit == c[0].logit ? 1 : exp(((double)c[i].logit - c[0].logit) / o->temperature);
    keep(c, n, o, ends);
    const double u = uniform(o->seed, position + 1);
    for (u32 end = ends[0]; end <= ends[1]; end++)
        if (chosen_right(c, end, u, token))
            return 1;
    return 0;
}

STATIC_ASSERT((int)SAMPLER_RUN == (int)SAMPLE_CHUNK, "host and device walk the vocabulary alike");

/* What the host's sampler chooses. */
HOST_CODE static i32 by_host(const float *logits, const struct cuda_sampling *o, u32 position)
{
    const struct sampler_options same = {o->temperature, o->top_k, o->top_p, o->min_p,
                                         (u64)o->seed[1] << 32 | o->seed[0]};
    struct sampler *s = sampler_new(&same, (int)run_v);
    float *named = malloc(run_v * sizeof(*named));
    for (u32 i = 0; i < run_v; i++)
        named[i] = i >= run_tokens || (o->tokens && i >= (u32)o->tokens) ? -INFINITY : logits[i];
    const i32 token = sampler_next(s, named, (int)position);
    free(named);
    sampler_free(s);
    return token;
}

enum { SLOTS = 8 };

struct buffers {
    float *logits;
    i32 *next, *length, *output, *head_row, *slot, *position;
    struct cuda_call *call;
    struct cuda_sampling *sampling;
    void *scratch;
};

HOST_CODE static void *filled(const char *name, const void *from, size_t bytes)
{
    void *p = emu_alloc(name, bytes);
    emu_write(p, from, bytes);
    return p;
}

/* Logits i is of row m - 1 - i, whose slot is 2 i + 1; row 0 (the last logits) is idle where m > 2.
 */
HOST_CODE static struct buffers make(const float *logits, const struct cuda_sampling *o)
{
    i32 head_row[SLOTS], slot[SLOTS], position[SLOTS];
    struct cuda_sampling sampling[2 * SLOTS];
    struct buffers b;
    const struct cuda_call call = {(i32)run_m, (i32)run_m, 0, 0};
    memset(sampling, 0x55, sizeof(sampling));
    for (u32 i = 0; i < run_m; i++) {
        head_row[i] = (i32)(run_m - 1 - i);
        slot[run_m - 1 - i] = run_m > 2 && i == run_m - 1 ? -1 : (i32)(2 * i + 1);
        position[run_m - 1 - i] = (i32)(38 + i);
        sampling[2 * i + 1] = o[i];
    }
    b.logits = filled("logits", logits, (size_t)run_m * run_v * 4);
    b.head_row = filled("head_row", head_row, run_m * 4);
    b.slot = filled("slot", slot, run_m * 4);
    b.position = filled("position", position, run_m * 4);
    b.sampling = filled("sampling", sampling, sizeof(sampling));
    b.call = filled("call", &call, sizeof(call));
    b.next = emu_alloc("next", 2 * SLOTS * 4);
    b.length = emu_alloc("length", 2 * SLOTS * 4);
    b.output = emu_alloc("output", 2 * SLOTS * CONTEXT * 4);
    b.scratch = emu_alloc("scratch", SAMPLE_SCRATCH(run_m, run_v, 0));
    emu_fill(b.output, 0x11, 2 * SLOTS * CONTEXT * 4);
    return b;
}

HOST_CODE static int check(emu_kernel *first, emu_kernel *second, const float *logits,
                           const struct cuda_sampling *o, const char *what)
{
    struct buffers b = make(logits, o);
    struct candidate *c = malloc(run_v * sizeof(*c));
    const struct emu_launch launch = {"sample", first, SAMPLE_LAUNCH(run_m, run_v, 0), true, NULL};
    const struct emu_launch launch2 = {"sample_2", second, SAMPLE_LAUNCH_2(run_m, run_v, 0), true,
                                       NULL};
    int bad = 0;
    EMU_RUN(&launch, b.next, b.length, b.output, b.logits, b.call, b.head_row, b.slot, b.position,
            b.sampling, b.scratch, NULL);
    EMU_RUN(&launch2, b.next, b.length, b.output, b.logits, b.call, b.head_row, b.slot, b.position,
            b.sampling, b.scratch, NULL);
    for (u32 i = 0; i < run_m; i++) {
        const u32 s = 2 * i + 1, position = 38 + i;
        if (run_m > 2 && i == run_m - 1)
            continue;
        i32 token, length;
        emu_read(&token, b.next + s, 4);
        emu_read(&length, b.length + s, 4);
        if (!right(logits + (size_t)i * run_v, &o[i], position, token, c) ||
            token != by_host(logits + (size_t)i * run_v, &o[i], position + 1) ||
            length != (i32)position + 1 ||
            (position + 1 < CONTEXT && b.output[s * CONTEXT + position + 1] != token)) {
            printf("%s, V %u, row %u: token %d, length %d (temperature %g k %d p %g min %g)\n",
                   what, run_v, i, token, length, o[i].temperature, o[i].top_k, o[i].top_p,
                   o[i].min_p);
            bad = 1;
        }
        if (position + 1 >= CONTEXT && s + 1 < 2 * SLOTS &&
            b.output[(s + 1) * CONTEXT] != 0x11111111)
            bad = 1;
    }
    free(c);
    emu_free_all();
    return bad;
}

static const struct cuda_sampling options[] = {
    {0, 1, 0, 0, {1, 2}, 0, 0},
    {1, 1, 0, 0, {3, 4}, 5, 0},
    {0.7f, 1, 0, 40, {5, 6}, 0, 0},
    {1, 0.9f, 0, 0, {7, 8}, 0, 0},
    {1.3f, 0.95f, 0, 50, {9, 1}, 0, 0},
    {1, 1, 0.05f, 0, {2, 3}, 0, 0},
    {0.8f, 0.8f, 0.1f, 300, {4, 5}, 0, 0},
    {2, 0.5f, 0, 2500, {6, 7}, 0, 0},
    {1, 0, 0, 0, {8, 9}, 0, 0},
    {1, 1, 0, 1, {10, 11}, 0, 0},
    {1, 0.999f, 0, 0, {12, 13}, 4000, 0},
    {1e-3f, 0.9f, 0.2f, 7, {14, 15}, 0, 0},
};
enum { OPTIONS = sizeof(options) / sizeof(options[0]) };

enum shape { NORMAL, FLAT, EQUAL, STEEP, INFINITE, NAMELESS, SHAPES };

/* Padding is more likely than any token. */
HOST_CODE static void fill(float *logits, enum shape shape)
{
    for (u32 i = 0; i < run_m * run_v; i++) {
        const float x = test_random();
        logits[i] = i % run_v >= run_tokens ? 500
                    : shape == NORMAL       ? x * 3
                    : shape == FLAT         ? x * 0.05f
                    : shape == EQUAL        ? (i & 1 ? 0.0f : -0.0f)
                    : shape == STEEP        ? x * 40
                    : shape == NAMELESS     ? (i % 3 ? -INFINITY : NAN)
                    : i % 7 == 3            ? INFINITY
                    : i % 7                 ? x
                                            : (i & 8 ? NAN : -INFINITY);
    }
}

HOST_CODE int main(void)
{
    static const u32 sizes[] = {7, 1025, 5000};
    float *logits = malloc(sizeof(float) * SLOTS * 5000);
    int bad = 0;
    for (u32 shape = 0; shape < SHAPES; shape++)
        for (u32 size = 0; size < 3; size++)
            for (u32 first = 0; first < OPTIONS; first += 4) {
                char what[32];
                run_v = sizes[size];
                run_m = 5; /* the last is idle */
                if (shape != NORMAL && shape != EQUAL && size == 1)
                    continue;
                emu_seed(shape * 100 + size * 10 + first);
                run_tokens = run_v > 7 ? run_v - 3 : run_v;
                fill(logits, shape);
                struct cuda_sampling o[5] = {options[first], options[first + 1], options[first + 2],
                                             options[first + 3], options[0]};
                snprintf(what, sizeof(what), "shape %u", shape);
                bad |= check((emu_kernel *)sample, (emu_kernel *)sample_2, logits, o, what);
            }
    run_m = 2;
    run_v = 5000;
    run_tokens = 4997;
    fill(logits, NORMAL);
    bad |= check((emu_kernel *)sample_5000, (emu_kernel *)sample_5000_2, logits, options + 4,
                 "constants");
    free(logits);
    return bad;
}

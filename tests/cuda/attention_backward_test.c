/* attention_backward_test.c - attention_backward.cu against fp64, for the HEAD_DIM and CUDA_ARCH it
 * is compiled with: every group, lengths around the tiles, many heads; that the turns of its blocks
 * change nothing; and how far bf16 p and ds are from gradients without any rounding. */
#include "kernel_test.h"

#include <string.h>

#ifndef CUDA_ARCH
#define CUDA_ARCH 90
#endif
#define CUDA_SMS 8 /* few: blocks draw work of some heads at a time */
#define CONTEXT 512
#define SEGMENTS 4
#include "archrt_cuda.h"

static int heads, kv_heads, sequences, tokens_each;

#define HEADS heads
#define KV_HEADS kv_heads
#include "launch.h"
#define KERNEL attention_backward
#define ATT_B sequences
#define ATT_T tokens_each
#include "attention_backward.cu"

enum { E = HEAD_DIM, DQ = 0, DK, DV, PARTS };
static const char *const part_names[PARTS] = {"dq", "dk", "dv"};
/* p or ds is rounded to bf16 once, so a sum may be off by 2^-8 of the sizes of its terms; its
 * result is rounded once. A little is for fp32. */
#define ROUNDING (1.02 / 256)

struct shape {
    int group, kv_heads, sequences, tokens;
};

/* Inputs, and gradients in fp64 with the sums of their terms' sizes, both [B T][dq + 2 dkv]. */
struct problem {
    bf16 *qkv, *att, *datt;
    float *lse;
    size_t rows, width, dq;
    double *want, *size;
};

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

/* to += f x. */
HOST_CODE static void add(const struct problem *p, size_t to, double f, const bf16 *x)
{
    for (int e = 0; e < E; e++) {
        double term = f * f32_from_bf16(x[e]);
        p->want[to + (size_t)e] += term;
        p->size[to + (size_t)e] += fabs(term);
    }
}

/* One query head of one token: its row of att and lse as the forward pass would leave them, then
 * its terms of the gradients. `exact`: delta from att before it was rounded. */
HOST_CODE static void row_terms(const struct problem *p, size_t token0, int token, int head,
                                bool exact, double *weights)
{
    const size_t row = token0 + (size_t)token;
    const size_t q = row * p->width + (size_t)(head * E),
                 at_k = p->dq + (size_t)(head / (heads / kv_heads) * E);
    const size_t at_v = at_k + (size_t)(kv_heads * E);
    bf16 *att = p->att + row * p->dq + head * E;
    const bf16 *datt = p->datt + row * p->dq + head * E;
    double top = -INFINITY, sum = 0, out[E] = {0}, delta = 0;
    for (int j = 0; j <= token; j++) {
        weights[j] = dot(p->qkv + q, p->qkv + (token0 + (size_t)j) * p->width + at_k) / sqrt(E);
        top = fmax(top, weights[j]);
    }
    for (int j = 0; j <= token; j++)
        sum += weights[j] = exp(weights[j] - top);
    p->lse[row * (size_t)heads + (size_t)head] = (float)(top + log(sum));
    for (int j = 0; j <= token; j++) {
        weights[j] /= sum;
        for (int e = 0; e < E; e++)
            out[e] += weights[j] *
                      f32_from_bf16(p->qkv[(token0 + (size_t)j) * p->width + at_v + (size_t)e]);
    }
    for (int e = 0; e < E; e++) {
        att[e] = bf16_from_f32((float)out[e]);
        delta += (exact ? out[e] : (double)f32_from_bf16(att[e])) * f32_from_bf16(datt[e]);
    }
    for (int j = 0; j <= token; j++) {
        const size_t k = (token0 + (size_t)j) * p->width + at_k, v = k - at_k + at_v;
        const double ds = weights[j] * (dot(datt, p->qkv + v) - delta);
        add(p, q, ds / sqrt(E), p->qkv + k);
        add(p, k, ds / sqrt(E), p->qkv + q);
        add(p, v, weights[j], datt);
    }
}

HOST_CODE static struct problem make(const struct shape *s, float scale, bool exact)
{
    struct problem p;
    heads = s->group * s->kv_heads;
    kv_heads = s->kv_heads;
    sequences = s->sequences;
    tokens_each = s->tokens;
    p.rows = (size_t)(s->sequences * s->tokens);
    p.dq = (size_t)(heads * E);
    p.width = (size_t)((heads + 2 * kv_heads) * E);
    p.qkv = test_bf16s("qkv", p.rows * p.width, scale);
    p.datt = test_bf16s("datt", p.rows * p.dq, 1);
    p.att = emu_alloc("att", p.rows * p.dq * sizeof(bf16));
    p.lse = emu_alloc("lse", p.rows * (size_t)heads * sizeof(float));
    p.want = doubles(p.rows * p.width);
    p.size = doubles(p.rows * p.width);
    double *weights = doubles((size_t)s->tokens);
    for (int b = 0; b < s->sequences; b++)
        for (int t = 0; t < s->tokens; t++)
            for (int h = 0; h < heads; h++)
                row_terms(&p, (size_t)(b * s->tokens), t, h, exact, weights);
    free(weights);
    emu_mark(p.att, p.rows * p.dq * sizeof(bf16));
    emu_mark(p.lse, p.rows * (size_t)heads * sizeof(float));
    return p;
}

HOST_CODE static void end(struct problem *p)
{
    free(p->want);
    free(p->size);
    emu_free_all();
}

/* The three passes, on poisoned outputs and scratch. */
HOST_CODE static bf16 *run(const struct problem *p)
{
    const int rows = (int)p->rows;
    const struct emu_launch passes[3] = {
        {"delta", (emu_kernel *)attention_backward, ATTENTION_BACKWARD_LAUNCH(rows, tokens_each, E),
         false, NULL},
        {"pass 2", (emu_kernel *)attention_backward_2,
         ATTENTION_BACKWARD_LAUNCH_2(rows, tokens_each, E), false, NULL},
        {"pass 3", (emu_kernel *)attention_backward_3,
         ATTENTION_BACKWARD_LAUNCH_3(rows, tokens_each, E), false, NULL}};
    bf16 *dqkv = emu_alloc("dqkv", p->rows * p->width * sizeof(bf16));
    void *scratch = emu_alloc("scratch", ATTENTION_BACKWARD_SCRATCH(rows, tokens_each, E));
    for (int pass = 0; pass < 3; pass++)
        EMU_RUN(&passes[pass], dqkv, p->datt, p->att, p->lse, p->qkv, scratch);
    return dqkv;
}

HOST_CODE static int part_of(const struct problem *p, size_t i)
{
    const size_t column = i % p->width;
    return column < p->dq ? DQ : column < p->dq + (size_t)(kv_heads * E) ? DK : DV;
}

HOST_CODE static int check(const struct shape *s)
{
    struct test_error err[PARTS] = {{0, 0, 0, 0}};
    struct problem p = make(s, 1.3f, false);
    const bf16 *got = run(&p);
    int bad = 0;
    for (size_t i = 0; i < p.rows * p.width; i++)
        test_compare(&err[part_of(&p, i)], i, f32_from_bf16(got[i]), p.want[i],
                     ROUNDING * p.size[i] + 1e-5, ROUNDING);
    for (int i = 0; i < PARTS; i++) {
        char what[96];
        snprintf(what, sizeof what, "%s, head size %d, group %d, %d heads, %d x %d tokens",
                 part_names[i], E, s->group, s->kv_heads, s->sequences, s->tokens);
        bad |= test_verdict(&err[i], what);
    }
    end(&p);
    return bad;
}

/* The same bits whatever the order in which blocks and warps run. */
HOST_CODE static int check_order(const struct shape *s)
{
    struct problem p = make(s, 1.3f, false);
    const size_t bytes = p.rows * p.width * sizeof(bf16);
    const bf16 *first = run(&p);
    int bad = 0;
    for (u32 seed = 100; seed < 103; seed++) {
        emu_seed(seed);
        bad |= memcmp(first, run(&p), bytes) != 0;
    }
    if (bad)
        printf("head size %d, group %d: the result depends on the order of the blocks\n", E,
               s->group);
    end(&p);
    return bad;
}

/* |got - want| / |want| over all elements of a part, against gradients in which nothing is rounded
 * but the inputs. A rounding to bf16 is 0.42 2^-8 off, root mean square: p (ds) and the result make
 * 0.6 2^-8 where rounding errors are as random as the terms. att, rounded, is in delta: that counts
 * where p is almost 0 or 1 and ds almost 0, as with large logits. */
HOST_CODE static int check_precision(const struct shape *s, float scale, const double most[PARTS])
{
    double error[PARTS] = {0}, norm[PARTS] = {0};
    struct problem p = make(s, scale, true);
    const bf16 *got = run(&p);
    int bad = 0;
    for (size_t i = 0; i < p.rows * p.width; i++) {
        const double d = f32_from_bf16(got[i]) - p.want[i];
        error[part_of(&p, i)] += d * d;
        norm[part_of(&p, i)] += p.want[i] * p.want[i];
    }
    for (int i = 0; i < PARTS; i++) {
        const double off = 256 * sqrt(error[i] / norm[i]);
        if (!(off <= most[i])) {
            printf("%s, head size %d, inputs times %g: %.3g 2^-8 of its norm off, at most %.3g\n",
                   part_names[i], E, (double)scale, off, most[i]);
            bad = 1;
        }
    }
    end(&p);
    return bad;
}

HOST_CODE int main(void)
{
    static const struct shape shapes[] = {
        {1, 2, 1, 1},   {1, 1, 1, 129}, {3, 1, 1, 129},  {4, 1, 2, 63}, {5, 1, 1, 67},
        {7, 1, 1, 131}, {9, 2, 1, 33},  {16, 1, 1, 130}, {9, 1, 3, 1},  {1, 6, 3, 131},
    };
    static const struct shape order = {3, 2, 1, 150}, long_one = {2, 1, 1, 512};
    static const double small[PARTS] = {0.7, 0.7, 0.65}, large[PARTS] = {1.5, 1.5, 0.65};
    int bad = 0;
    for (u32 i = 0; i < (E > 128 ? 6 : sizeof shapes / sizeof *shapes); i++) {
        emu_seed(i + 1);
        bad |= check(&shapes[i]);
    }
    bad |= check_order(&order);
    if (E == 64 || E == 128) {
        bad |= check_precision(&long_one, 1, small); /* logits of deviation 1 */
        bad |= check_precision(&long_one, 3, large); /* of 9: up to 40 */
    }
    return bad;
}

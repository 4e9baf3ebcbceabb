/* head_test.h - what the tests of heads without logits share: cases, and in fp64 what their logits
 * come to. */
#ifndef HEAD_TEST_H
#define HEAD_TEST_H

#include <string.h>

#include "kernel_test.h"

/* One case: n = pieces of `piece` rows of w, the first `tokens` of which are tokens. */
struct shape {
    int m, tokens, pieces, piece, k;
};

/* What the kernels have, in emulated memory, and what they should come to. */
struct data {
    const struct shape *s;
    int n;
    bf16 *x, *w;
    int *target;
    struct cuda_train *train;
    double *z, *loss, *top, *sum; /* fp64 */
};
static const float grad_scale = 0.37f;

HOST_CODE static inline double logit(const struct data *d, int row, int token)
{
    double sum = 0;
    for (int i = 0; i < d->s->k; i++)
        sum += (double)f32_from_bf16(d->x[row * d->s->k + i]) *
               (double)f32_from_bf16(d->w[token * d->s->k + i]);
    return sum;
}

/* Rows whose logits lie far apart: from number `from` on, each `each`th; 0: none. */
struct far_rows {
    int from, each;
};

HOST_CODE static inline bool is_far(struct far_rows f, int row)
{
    return f.each && row >= f.from && row % f.each == 0;
}

/* Rows of padding are zeros, as in the slab; target -1 in every fifth row, else anywhere, the
 * first token, the last and the likeliest too. */
HOST_CODE static inline void make(struct data *d, const struct shape *s, struct far_rows far)
{
    d->s = s;
    d->n = s->pieces * s->piece;
    d->x = test_bf16s("x", (size_t)s->m * s->k, 1);
    for (int i = 0; i < s->m * s->k; i++)
        if (is_far(far, i / s->k))
            d->x[i] = bf16_from_f32(64 * f32_from_bf16(d->x[i]));
    d->w = test_bf16s("w", (size_t)d->n * s->k, 0.4f);
    memset(d->w + s->tokens * s->k, 0, sizeof(bf16) * (size_t)(d->n - s->tokens) * s->k);
    d->target = emu_alloc("target", sizeof(int) * (size_t)s->m);
    d->train = emu_alloc("train", sizeof *d->train);
    for (int i = 0; i < s->m; i++)
        d->target[i] = i % 5 == 4    ? -1
                       : i % 11 == 0 ? s->tokens - 1
                       : i % 11 == 1 ? 0
                                     : (int)((u32)(i * 2654435761u) >> 8) % s->tokens;
    emu_mark(d->target, sizeof(int) * (size_t)s->m);
    memset(d->train, 0, sizeof *d->train);
    d->train->grad_scale = grad_scale;
    emu_mark(d->train, sizeof *d->train);
    d->z = malloc(sizeof(double) * (size_t)s->m * s->tokens);
    d->loss = malloc(sizeof(double) * (size_t)s->m);
    d->top = malloc(sizeof(double) * (size_t)s->m);
    d->sum = malloc(sizeof(double) * (size_t)s->m);
    for (int i = 0; i < s->m; i++) {
        double *z = d->z + (size_t)i * s->tokens;
        d->top[i] = -1e300;
        d->sum[i] = 0;
        for (int t = 0; t < s->tokens; t++) {
            z[t] = logit(d, i, t);
            d->top[i] = fmax(d->top[i], z[t]);
        }
        for (int t = 0; t < s->tokens; t++)
            if (i % 11 == 2 && d->target[i] >= 0 && z[t] == d->top[i])
                d->target[i] = t;
        for (int t = 0; t < s->tokens; t++)
            d->sum[i] += exp(z[t] - d->top[i]);
        d->loss[i] = d->target[i] < 0 ? 0 : log(d->sum[i]) + d->top[i] - z[d->target[i]];
    }
}

HOST_CODE static inline void drop(struct data *d)
{
    free(d->z);
    free(d->loss);
    free(d->top);
    free(d->sum);
    emu_free_all();
}

#endif

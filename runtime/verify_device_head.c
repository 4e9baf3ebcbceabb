/* verify_device_head.c - references of the head whose logits are not written: loss behind it, and
 * the gradients of a piece of its logits. */
#include <math.h>
#include <stdlib.h>

#include "verify.h"

/* w times a power of two, exact in bf16: logits of about 1. */
static void scale_weights(struct trial *t)
{
    float k = (float)t->kernel->k, scale = exp2f(-floorf(log2f(sqrtf(k))));
    for (size_t i = 0; i < area(t->kernel->n, t->kernel->k); i++)
        t->w[i] *= scale;
}

/* Targets of the whole vocabulary; one row in five has none. */
static bool make_targets(struct trial *t, struct failure *f)
{
    if (!trial_tokens(t, t->m, t->model->arch.vocab, f))
        return false;
    for (int i = 1; i < t->m; i++)
        if (pcg32_next(&t->random) % 5 == 0)
            t->token[i] = -1;
    return true;
}

/* A logit, and the size of its terms. */
static double logit(const struct trial *t, int64_t row, int64_t token, double *size)
{
    int64_t k = t->kernel->k;
    const float *x = t->x + row * k, *w = t->w + token * k;
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < k; i++) {
        double term = (double)x[i] * (double)w[i];
        sum += term;
        squares += term * term;
    }
    *size = sqrt(squares);
    return sum;
}

/* Variant 1: losses alone. y: losses, y2: largest logits, rstd: sums, dy: what is cleared. */
bool device_head_loss_prepare(struct trial *t, struct failure *f)
{
    int64_t n = t->kernel->n, k = t->kernel->k;
    bool made = trial_floats(t, &t->y, area(t->m, 1), ROLE_OUTPUT, f) &&
                trial_floats(t, &t->x, area(t->m, k), ROLE_INPUT, f) &&
                trial_floats(t, &t->w, area(n, k), ROLE_INPUT, f) && make_targets(t, f);
    if (made && !t->variant)
        made = trial_floats(t, &t->y2, area(t->m, 1), ROLE_OUTPUT, f) &&
               trial_floats(t, &t->rstd, area(t->m, 1), ROLE_OUTPUT, f) &&
               trial_floats(t, &t->dy, area(t->m, k), ROLE_OUTPUT, f);
    if (made)
        scale_weights(t);
    return made;
}

static void judge_loss(struct trial *t, int64_t row)
{
    int V = t->model->arch.vocab;
    double *z = need(malloc(area(V, 1) * sizeof *z)), top = -INFINITY, sum = 0, most = 0, size;
    for (int v = 0; v < V; v++) {
        z[v] = logit(t, row, v, &size);
        top = fmax(top, z[v]);
        most = fmax(most, size);
    }
    for (int v = 0; v < V; v++)
        sum += exp(z[v] - top);
    bool live = t->token[row] >= 0;
    double loss = live ? log(sum) + top - z[t->token[row]] : 0;
    judge(t, (double)t->y[row], loss, live ? fabs(loss) + most + 1 : 1e-30);
    if (live && !t->variant) {
        judge(t, (double)t->y2[row], top, fabs(top) + most);
        judge(t, (double)t->rstd[row], sum, sum * (1 + most));
    }
    free(z);
}

void device_head_loss_check(struct trial *t)
{
    int64_t k = t->kernel->k, count = sample_count(t, t->m, 4.0 * t->model->arch.vocab * (double)k);
    t->depth = (double)k;
    for (int64_t s = 0; s < count; s++)
        judge_loss(t, sample_at(t, s, count, t->m));
    for (size_t i = 0; !t->variant && i < area(t->m, k); i++)
        if (t->dy[i] != 0) {
            trial_fault(t, "element %zu of the gradient is not cleared", i);
            return;
        }
}

/* rstd: largest logits, lse: sums behind them, whatever they are. */
bool device_head_gradient_prepare(struct trial *t, struct failure *f)
{
    int64_t n = t->kernel->n, k = t->kernel->k;
    if (!trial_floats(t, &t->y, area(t->m, n), ROLE_OUTPUT, f) ||
        !trial_floats(t, &t->x, area(t->m, k), ROLE_INPUT, f) ||
        !trial_floats(t, &t->w, area(n, k), ROLE_INPUT, f) ||
        !trial_floats(t, &t->rstd, area(t->m, 1), ROLE_INPUT, f) ||
        !trial_floats(t, &t->lse, area(t->m, 1), ROLE_INPUT, f) || !make_targets(t, f))
        return false;
    scale_weights(t);
    for (int64_t i = 0; i < t->m; i++)
        t->lse[i] = 3 + t->lse[i];
    return true;
}

/* Column c of a row: with the first piece of the vocabulary, token c. */
static void judge_gradient(struct trial *t, int64_t row, int64_t c)
{
    double size, scale = (double)VERIFY_LOSS_SCALE, z = logit(t, row, c, &size);
    double part = exp(z - (double)t->rstd[row]) / (double)t->lse[row] * scale;
    double want = part - (c == t->token[row] ? scale : 0);
    if (c >= t->model->arch.vocab)
        judge(t, (double)t->y[row * t->kernel->n + c], 0, 1e-30);
    else
        judge(t, (double)t->y[row * t->kernel->n + c], want, fabs(want) + part * (1 + size));
}

void device_head_gradient_check(struct trial *t)
{
    int64_t n = t->kernel->n, k = t->kernel->k;
    int64_t each = sample_count(t, n, 4.0 * (double)k * t->m);
    t->depth = (double)k;
    for (int64_t row = 0; row < t->m; row++) {
        for (int64_t s = 0; s < each; s++)
            judge_gradient(t, row, sample_at(t, s, each, n));
        if (t->token[row] >= 0 && t->token[row] < n)
            judge_gradient(t, row, t->token[row]);
    }
}

/* verify_device_head.c - references of the head whose logits are not written: loss behind it, what
 * its gradients want, and the gradients of a piece of its logits. */
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

/* All logits of a row, and what they come to. */
struct row_logits {
    double *z, top, sum, loss; /* sum: of e^(z - top) */
    double most;               /* the largest size of their terms */
    bool live;                 /* has a target */
};

/* The caller frees z. */
static struct row_logits logits_of(const struct trial *t, int64_t row)
{
    int V = t->model->arch.vocab, own = t->token[row];
    struct row_logits r = {.z = need(malloc(area(V, 1) * sizeof *r.z)), .top = -INFINITY};
    double size;
    for (int v = 0; v < V; v++) {
        r.z[v] = logit(t, row, v, &size);
        r.top = fmax(r.top, r.z[v]);
        r.most = fmax(r.most, size);
    }
    for (int v = 0; v < V; v++)
        r.sum += exp(r.z[v] - r.top);
    r.live = own >= 0;
    r.loss = r.live ? log(r.sum) + r.top - r.z[own] : 0;
    return r;
}

static void judge_loss(struct trial *t, int64_t row)
{
    struct row_logits r = logits_of(t, row);
    judge(t, (double)t->y[row], r.loss, r.live ? fabs(r.loss) + r.most + 1 : 1e-30);
    if (r.live && !t->variant) {
        judge(t, (double)t->y2[row], r.top, fabs(r.top) + r.most);
        judge(t, (double)t->rstd[row], r.sum, r.sum * (1 + r.most));
    }
    free(r.z);
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

/* y: losses, gate_up: powers, y2: factors, qkv: scaled rows. Some rows have logits far apart. */
bool device_head_softmax_prepare(struct trial *t, struct failure *f)
{
    int64_t n = t->kernel->n, k = t->kernel->k;
    if (!trial_floats(t, &t->y, area(t->m, 1), ROLE_OUTPUT, f) ||
        !trial_floats(t, &t->gate_up, area(t->m, n), ROLE_OUTPUT, f) ||
        !trial_floats(t, &t->y2, area(t->m, 1), ROLE_OUTPUT, f) ||
        !trial_floats(t, &t->qkv, area(t->m, k), ROLE_OUTPUT, f) ||
        !trial_floats(t, &t->x, area(t->m, k), ROLE_INPUT, f) ||
        !trial_floats(t, &t->w, area(n, k), ROLE_INPUT, f) || !make_targets(t, f))
        return false;
    scale_weights(t);
    for (int64_t row = 3; row < t->m; row += 16)
        for (int64_t i = 0; i < k; i++)
            t->x[row * k + i] *= 128;
    return true;
}

/* Of fp32, where the limit allows for bf16 too. */
static void judge_whole(struct trial *t, double got, double want, double magnitude)
{
    double fp32 = t->kind->tolerance * sqrt(t->depth);
    judge(t, got, want, magnitude * (fp32 / (fp32 + t->rounding)));
}

/* Each gradient is a power times the row's factor. */
static void judge_softmax(struct trial *t, int64_t row)
{
    int64_t n = t->kernel->n;
    struct row_logits r = logits_of(t, row);
    double factor = (double)t->y2[row], scale = r.live ? (double)VERIFY_LOSS_SCALE : 0;
    judge_whole(t, (double)t->y[row], r.loss, r.live ? fabs(r.loss) + r.most + 1 : 1e-30);
    for (int64_t v = 0; v < t->model->arch.vocab; v++) {
        double part = exp(r.z[v] - r.top) / r.sum, want = part;
        if (v == t->token[row]) { /* less 1: what all others are */
            want = 0;
            for (int64_t o = 0; o < t->model->arch.vocab; o++)
                want -= o == v ? 0 : exp(r.z[o] - r.top) / r.sum;
        }
        judge(t, (double)t->gate_up[row * n + v] * factor, want * scale,
              fabs(want) * scale * (1 + r.most) + 1e-30);
    }
    free(r.z);
}

/* Every row, without its logits: gradients add up to 0, padding has none, x is scaled. */
static void judge_row_sums(struct trial *t, int64_t row)
{
    int64_t n = t->kernel->n, k = t->kernel->k;
    const float *e = t->gate_up + row * n;
    double sum = 0, size = 0, factor = (double)t->y2[row];
    for (int64_t v = 0; v < n; v++) {
        sum += (double)e[v];
        size += fabs((double)e[v]);
        if (v >= t->model->arch.vocab || t->token[row] < 0)
            judge(t, (double)e[v], 0, 1e-30);
    }
    judge(t, sum, 0, size + 1e-30);
    for (int64_t i = 0; i < k; i++) {
        double want = (double)t->x[row * k + i] * factor;
        judge(t, (double)t->qkv[row * k + i], want, fabs(want) + 1e-30);
    }
    if (t->token[row] < 0)
        judge(t, factor, 0, 1e-30);
}

void device_head_softmax_check(struct trial *t)
{
    int64_t k = t->kernel->k, count = sample_count(t, t->m, 4.0 * t->model->arch.vocab * (double)k);
    t->depth = (double)k;
    for (int64_t row = 0; row < t->m; row++)
        judge_row_sums(t, row);
    for (int64_t s = 0; s < count; s++)
        judge_softmax(t, sample_at(t, s, count, t->m));
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

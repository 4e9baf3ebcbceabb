/* verify_train.c - the training kernels: their inputs, their calls, their plain references. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "reference.h"
#include "verify.h"

/* ---- embed -------------------------------------------------------------------------------------
 */

bool embed_prepare(struct trial *t, struct failure *f)
{
    int V = t->model->arch.vocab, n = t->kernel->n;
    return trial_floats(t, &t->y, area(t->m, n), ROLE_OUTPUT, f) &&
           trial_floats(t, &t->w, area(V, n), ROLE_INPUT, f) && trial_tokens(t, t->m, V, f);
}

void embed_call(struct trial *t, int tid)
{
    FUNCTION(embed_fn, t)(t->y, t->w, t->token, tid);
}

void embed_check(struct trial *t)
{
    int64_t n = t->kernel->n;
    for (int64_t i = 0; i < t->m; i++)
        for (int64_t j = 0; j < n; j++)
            judge(t, (double)t->y[i * n + j], (double)t->w[t->token[i] * n + j], 1);
}

bool embed_backward_prepare(struct trial *t, struct failure *f)
{
    int V = t->model->arch.vocab, n = t->kernel->n;
    return trial_floats(t, &t->y, area(V, n), ROLE_INOUT, f) &&
           trial_floats(t, &t->dy, area(t->m, n), ROLE_INPUT, f) && trial_tokens(t, t->m, V, f);
}

void embed_backward_call(struct trial *t, int tid)
{
    FUNCTION(embed_backward_fn, t)(t->y, t->dy, t->token, tid);
}

void embed_backward_check(struct trial *t)
{
    const float *before = trial_pristine(t, t->y);
    int64_t n = t->kernel->n, V = t->model->arch.vocab;
    int *last = need(malloc(area(V, 1) * sizeof *last)); /* chains of rows by token */
    int *next = need(malloc(area(t->m, 1) * sizeof *next));
    memset(last, -1, area(V, 1) * sizeof *last);
    for (int i = 0; i < t->m; i++) {
        next[i] = last[t->token[i]];
        last[t->token[i]] = i;
    }
    for (int64_t v = 0; v < V; v++)
        for (int64_t j = 0; j < n; j++) {
            double want = (double)before[v * n + j], magnitude = fabs(want);
            for (int i = last[v]; i >= 0; i = next[i]) {
                want += (double)t->dy[i * n + j];
                magnitude += fabs((double)t->dy[i * n + j]);
            }
            judge(t, (double)t->y[v * n + j], want, magnitude);
        }
    free(last);
    free(next);
}

/* ---- norm --------------------------------------------------------------------------------------
 */

bool norm_prepare(struct trial *t, struct failure *f)
{
    int n = t->kernel->n;
    return trial_floats(t, &t->y, area(t->m, n), ROLE_OUTPUT, f) &&
           trial_floats(t, &t->y2, area(t->m, 1), ROLE_OUTPUT, f) &&
           trial_floats(t, &t->x, area(t->m, n), ROLE_INPUT, f) &&
           trial_floats(t, &t->gain, area(n, 1), ROLE_INPUT, f);
}

void norm_call(struct trial *t, int tid)
{
    FUNCTION(norm_fn, t)(t->y, t->y2, t->x, t->gain, t->m, tid);
}

void norm_check(struct trial *t)
{
    int n = t->kernel->n;
    int64_t count = sample_count(t, t->m, 10.0 * n);
    double *gain = widen(t->gain, area(n, 1)), *want = need(malloc(area(n, 8)));
    for (int64_t s = 0; s < count; s++) {
        int64_t i = sample_at(t, s, count, t->m);
        double *x = widen(t->x + i * n, area(n, 1));
        double rstd = ref_norm(want, x, gain, (double)t->model->arch.norm_eps, n);
        for (int j = 0; j < n; j++)
            judge(t, (double)t->y[i * n + j], want[j], fabs(want[j]) + 0.1);
        judge(t, (double)t->y2[i], rstd, rstd);
        free(x);
    }
    free(want);
    free(gain);
}

bool norm_backward_prepare(struct trial *t, struct failure *f)
{
    int n = t->kernel->n;
    size_t rows = area(t->m, n);
    enum buffer_role role = FLAG(t, ARCHRT_ACCUMULATE) ? ROLE_INOUT : ROLE_OUTPUT;
    bool made = trial_floats(t, &t->y, rows, role, f) &&
                trial_floats(t, &t->y2, area(n, 1), ROLE_INOUT, f) &&
                trial_floats(t, &t->dy, rows, ROLE_INPUT, f) &&
                trial_floats(t, &t->x, rows, ROLE_INPUT, f) &&
                trial_floats(t, &t->rstd, area(t->m, 1), ROLE_INPUT, f) &&
                trial_floats(t, &t->gain, area(n, 1), ROLE_INPUT, f) && trial_scratch(t, f);
    for (int64_t i = 0; made && i < t->m; i++) {
        double squares = 0;
        for (int j = 0; j < n; j++)
            squares += (double)t->x[i * n + j] * (double)t->x[i * n + j];
        t->rstd[i] = (float)(1 / sqrt(squares / n + (double)t->model->arch.norm_eps));
    }
    return made;
}

void norm_backward_call(struct trial *t, int tid)
{
    FUNCTION(norm_backward_fn, t)
    (t->y, t->y2, t->dy, t->x, t->rstd, t->gain, t->scratch, tid);
}

/* All rows: each of them adds to the gain's gradient. */
void norm_backward_check(struct trial *t)
{
    int n = t->kernel->n;
    const float *dx_before = trial_pristine(t, t->y), *dgain_before = trial_pristine(t, t->y2);
    double *gain = widen(t->gain, area(n, 1)), *dgain = widen(dgain_before, area(n, 1));
    for (int64_t i = 0; i < t->m; i++) {
        double *x = widen(t->x + i * n, area(n, 1)), *dy = widen(t->dy + i * n, area(n, 1));
        double *dx =
            dx_before ? widen(dx_before + i * n, area(n, 1)) : need(calloc(area(n, 1), sizeof *dx));
        ref_norm_backward(dx, dgain, dy, x, gain, (double)t->model->arch.norm_eps, n);
        for (int j = 0; j < n; j++)
            judge(t, (double)t->y[i * n + j], dx[j], fabs(dx[j]) + 1);
        free(x);
        free(dy);
        free(dx);
    }
    for (int j = 0; j < n; j++)
        judge(t, (double)t->y2[j], dgain[j], sqrt(t->m));
    t->depth = fmax(t->m, 16); /* sums over rows; within a row over n, but of smaller terms */
    free(gain);
    free(dgain);
}

/* ---- products ----------------------------------------------------------------------------------
 */

bool matmul_prepare(struct trial *t, struct failure *f)
{
    int64_t n = t->kernel->n, k = t->kernel->k;
    bool in_place = t->variant == 1;
    if (!trial_floats(t, &t->y, area(t->m, n), in_place ? ROLE_INOUT : ROLE_OUTPUT, f) ||
        !trial_floats(t, &t->x, area(t->m, k), ROLE_INPUT, f) ||
        !trial_floats(t, &t->w, area(n, k), ROLE_INPUT, f) || !trial_scratch(t, f))
        return false;
    if (FLAG(t, ARCHRT_BIAS) && !trial_floats(t, &t->bias, area(n, 1), ROLE_INPUT, f))
        return false;
    t->residual = in_place ? t->y : NULL;
    return !FLAG(t, ARCHRT_RESIDUAL) || in_place ||
           trial_floats(t, &t->residual, area(t->m, n), ROLE_INPUT, f);
}

void matmul_call(struct trial *t, int tid)
{
    FUNCTION(matmul_fn, t)
    (t->y, t->x, t->w, t->bias, t->residual, t->scratch, t->m, tid);
}

void matmul_check(struct trial *t)
{
    int64_t n = t->kernel->n, k = t->kernel->k;
    struct product_check c = {.M = t->m, .N = n, .K = k, .out = t->y, .bias = t->bias};
    c.a = t->x, c.ai = k, c.ak = 1;
    c.b = t->rounded ? t->rounded : t->w, c.bj = k, c.bk = 1;
    c.added = t->residual == t->y ? trial_pristine(t, t->y) : t->residual;
    check_product(t, &c);
}

bool matmul_dx_prepare(struct trial *t, struct failure *f)
{
    int64_t n = t->kernel->n, k = t->kernel->k;
    enum buffer_role role = FLAG(t, ARCHRT_ACCUMULATE) ? ROLE_INOUT : ROLE_OUTPUT;
    return trial_floats(t, &t->y, area(t->m, k), role, f) &&
           trial_floats(t, &t->dy, area(t->m, n), ROLE_INPUT, f) &&
           trial_floats(t, &t->w, area(n, k), ROLE_INPUT, f) && trial_scratch(t, f);
}

void matmul_dx_call(struct trial *t, int tid)
{
    FUNCTION(matmul_dx_fn, t)(t->y, t->dy, t->w, t->scratch, t->m, tid);
}

void matmul_dx_check(struct trial *t)
{
    int64_t n = t->kernel->n, k = t->kernel->k;
    struct product_check c = {.M = t->m, .N = k, .K = n, .out = t->y};
    c.a = t->dy, c.ai = n, c.ak = 1;
    c.b = t->w, c.bj = 1, c.bk = k;
    c.added = trial_pristine(t, t->y);
    check_product(t, &c);
}

bool matmul_dw_prepare(struct trial *t, struct failure *f)
{
    int64_t n = t->kernel->n, k = t->kernel->k;
    return trial_floats(t, &t->y, area(n, k), ROLE_INOUT, f) &&
           (!FLAG(t, ARCHRT_BIAS) || trial_floats(t, &t->y2, area(n, 1), ROLE_INOUT, f)) &&
           trial_floats(t, &t->dy, area(t->m, n), ROLE_INPUT, f) &&
           trial_floats(t, &t->x, area(t->m, k), ROLE_INPUT, f) && trial_scratch(t, f);
}

void matmul_dw_call(struct trial *t, int tid)
{
    FUNCTION(matmul_dw_fn, t)(t->y, t->y2, t->dy, t->x, t->scratch, t->m, tid);
}

void matmul_dw_check(struct trial *t)
{
    int64_t n = t->kernel->n, k = t->kernel->k;
    struct product_check c = {.M = n, .N = k, .K = t->m, .out = t->y};
    c.a = t->dy, c.ai = 1, c.ak = n;
    c.b = t->x, c.bj = 1, c.bk = k;
    c.added = trial_pristine(t, t->y);
    check_product(t, &c);
    const float *before = t->y2 ? trial_pristine(t, t->y2) : NULL;
    for (int64_t j = 0; before && j < n; j++) {
        double want = (double)before[j];
        for (int64_t i = 0; i < t->m; i++)
            want += (double)t->dy[i * n + j];
        judge(t, (double)t->y2[j], want, sqrt(t->m) + fabs((double)before[j]));
    }
}

/* ---- rope --------------------------------------------------------------------------------------
 */

bool rope_prepare(struct trial *t, struct failure *f)
{
    struct heads h = heads_of(t);
    bool in_place = t->variant == 1;
    size_t n = area(t->m, h.width);
    if (!trial_floats(t, &t->y, n, in_place ? ROLE_INOUT : ROLE_OUTPUT, f) || !trial_rope(t, f))
        return false;
    t->qkv = t->y;
    if (!in_place && !trial_floats(t, &t->qkv, n, ROLE_INPUT, f))
        return false;
    return !t->model->arch.qk_norm ||
           (trial_floats(t, &t->gain, area(2, h.E), ROLE_INPUT, f) &&
            trial_floats(t, &t->y2, area(t->m, h.H + h.K), ROLE_OUTPUT, f));
}

void rope_call(struct trial *t, int tid)
{
    FUNCTION(rope_fn, t)(t->y, t->y2, t->qkv, t->gain, t->rope, tid);
}

void rope_check(struct trial *t)
{
    struct heads h = heads_of(t);
    const float *in = t->qkv == t->y ? trial_pristine(t, t->y) : t->qkv;
    double *turn = widen(t->rope, area(t->model->arch.context, h.E));
    double *gain = t->gain ? widen(t->gain, area(2, h.E)) : NULL;
    int64_t count = sample_count(t, t->m, 20.0 * h.width);
    for (int64_t s = 0; s < count; s++) {
        int64_t i = sample_at(t, s, count, t->m), p = i % t->model->sequence;
        double *row = widen(in + i * h.width, area(h.width, 1));
        for (int j = 0; j < h.H + h.K; j++) {
            double *x = row + (int64_t)j * h.E;
            if (gain) {
                double rstd =
                    ref_norm(x, x, gain + (j >= h.H) * h.E, (double)t->model->arch.norm_eps, h.E);
                judge(t, (double)t->y2[i * (h.H + h.K) + j], rstd, rstd);
            }
            ref_rotate(x, turn + p * h.E, h.E, false);
        }
        for (int j = 0; j < h.width; j++)
            judge(t, (double)t->y[i * h.width + j], row[j], 1);
        free(row);
    }
    free(turn);
    free(gain);
}

bool rope_backward_prepare(struct trial *t, struct failure *f)
{
    struct heads h = heads_of(t);
    size_t n = area(t->m, h.width);
    if (!trial_floats(t, &t->y, n, ROLE_INOUT, f) || !trial_rope(t, f) || !trial_scratch(t, f))
        return false;
    if (!t->model->arch.qk_norm)
        return true;
    if (!trial_floats(t, &t->y2, area(2, h.E), ROLE_INOUT, f) ||
        !trial_floats(t, &t->qkv, n, ROLE_INPUT, f) ||
        !trial_floats(t, &t->gain, area(2, h.E), ROLE_INPUT, f) ||
        !trial_floats(t, &t->rstd, area(t->m, h.H + h.K), ROLE_INPUT, f))
        return false;
    for (int64_t i = 0; i < t->m; i++)
        for (int j = 0; j < h.H + h.K; j++) {
            const float *x = t->qkv + i * h.width + (int64_t)j * h.E;
            double squares = 0;
            for (int e = 0; e < h.E; e++)
                squares += (double)x[e] * (double)x[e];
            t->rstd[i * (h.H + h.K) + j] =
                (float)(1 / sqrt(squares / h.E + (double)t->model->arch.norm_eps));
        }
    return true;
}

void rope_backward_call(struct trial *t, int tid)
{
    FUNCTION(rope_backward_fn, t)
    (t->y, t->y2, t->qkv, t->rstd, t->gain, t->rope, t->scratch, tid);
}

void rope_backward_check(struct trial *t)
{
    struct heads h = heads_of(t);
    const float *before = trial_pristine(t, t->y);
    double *turn = widen(t->rope, area(t->model->arch.context, h.E));
    double *gain = t->gain ? widen(t->gain, area(2, h.E)) : NULL;
    double *dgain = gain ? widen(trial_pristine(t, t->y2), area(2, h.E)) : NULL;
    for (int64_t i = 0; i < t->m; i++) {
        double *row = widen(before + i * h.width, area(h.width, 1));
        double *in = gain ? widen(t->qkv + i * h.width, area(h.width, 1)) : NULL;
        for (int j = 0; j < h.H + h.K; j++) {
            int64_t at = (int64_t)j * h.E, g = (j >= h.H) * h.E;
            double dx[h.E];
            ref_rotate(row + at, turn + i % t->model->sequence * h.E, h.E, true);
            if (!gain)
                continue;
            memset(dx, 0, sizeof dx);
            ref_norm_backward(dx, dgain + g, row + at, in + at, gain + g,
                              (double)t->model->arch.norm_eps, h.E);
            memcpy(row + at, dx, sizeof dx);
        }
        for (int j = 0; j < h.width; j++)
            judge(t, (double)t->y[i * h.width + j], row[j], fabs(row[j]) + 1);
        free(row);
        free(in);
    }
    for (int j = 0; gain && j < 2 * h.E; j++)
        judge(t, (double)t->y2[j], dgain[j], sqrt((double)t->m * (j < h.E ? h.H : h.K)));
    t->depth = gain ? fmax(16, (double)t->m * h.H) : 1;
    free(turn);
    free(gain);
    free(dgain);
}

/* ---- attention ---------------------------------------------------------------------------------
 */

/* Scores of standard deviation about 2: some rows nearly pick one key, none is flat. */
static bool attention_inputs(struct trial *t, struct failure *f)
{
    struct heads h = heads_of(t);
    if (!trial_floats(t, &t->qkv, area(t->m, h.width), ROLE_INPUT, f))
        return false;
    for (int64_t i = 0; i < t->m; i++)
        for (int j = 0; j < h.dq; j++)
            t->qkv[i * h.width + j] *= 2;
    return true;
}

bool attention_prepare(struct trial *t, struct failure *f)
{
    struct heads h = heads_of(t);
    return attention_inputs(t, f) && trial_floats(t, &t->y, area(t->m, h.dq), ROLE_OUTPUT, f) &&
           trial_floats(t, &t->y2, area(t->m, h.H), ROLE_OUTPUT, f) && trial_scratch(t, f);
}

void attention_call(struct trial *t, int tid)
{
    FUNCTION(attention_fn, t)(t->y, t->y2, t->qkv, t->scratch, tid);
}

/* One query of one head: its output and log-sum-exp in double. */
static double attend_at(const struct trial *t, const double *sequence, int position, int head,
                        double *out, double *p)
{
    struct heads h = heads_of(t);
    int64_t k = h.dq + head / (h.H / h.K) * h.E;
    return ref_attend(out, p, sequence + (int64_t)position * h.width + (int64_t)head * h.E,
                      sequence + k, sequence + k + h.dkv, h.width, position + 1, h.E);
}

void attention_check(struct trial *t)
{
    struct heads h = heads_of(t);
    int T = t->model->sequence;
    int64_t queries = (int64_t)T * h.H, sequences = t->m / T;
    /* The last key of a sequence is the most that a query reads. */
    int64_t count = sample_count(t, sequences * queries, 8.0 * T * h.E) / sequences;
    double *p = need(malloc(area(T, 8)));
    double out[h.E];
    count = count < 2 ? 2 : count > queries ? queries : count;
    for (int64_t b = 0; b < sequences; b++) {
        double *rows = widen(t->qkv + b * T * h.width, area(T, h.width));
        for (int64_t s = 0; s < count; s++) {
            int64_t at = sample_at(t, s, count, queries), q = at / h.H, row = b * T + q;
            int head = (int)(at % h.H);
            double lse = attend_at(t, rows, (int)q, head, out, p);
            for (int e = 0; e < h.E; e++)
                judge(t, (double)t->y[row * h.dq + head * h.E + e], out[e], 1);
            judge(t, (double)t->y2[row * h.H + head], lse, fabs(lse) + 1);
        }
        free(rows);
    }
    t->depth = h.E;
    free(p);
}

/* att and lse of the forward pass, by the reference. */
static void attention_forward(struct trial *t)
{
    struct heads h = heads_of(t);
    int T = t->model->sequence;
    double *p = need(malloc(area(T, 8)));
    double out[h.E];
    for (int64_t b = 0; b < t->m / T; b++) {
        double *rows = widen(t->qkv + b * T * h.width, area(T, h.width));
        for (int64_t q = 0; q < T; q++)
            for (int head = 0; head < h.H; head++) {
                int64_t row = b * T + q;
                t->lse[row * h.H + head] = (float)attend_at(t, rows, (int)q, head, out, p);
                for (int e = 0; e < h.E; e++)
                    t->x[row * h.dq + head * h.E + e] = (float)out[e];
            }
        free(rows);
    }
    free(p);
}

struct forward_job {
    struct trial *t;
    attention_fn *function;
};

static void forward_work(void *arg, int tid)
{
    struct forward_job *j = arg;
    j->function(j->t->x, j->t->lse, j->t->qkv, j->t->scratch, tid);
}

bool attention_backward_prepare(struct trial *t, struct failure *f)
{
    struct heads h = heads_of(t);
    if (!attention_inputs(t, f) || !trial_floats(t, &t->y, area(t->m, h.width), ROLE_OUTPUT, f) ||
        !trial_floats(t, &t->dy, area(t->m, h.dq), ROLE_INPUT, f) ||
        !trial_floats(t, &t->x, area(t->m, h.dq), ROLE_INPUT, f) ||
        !trial_floats(t, &t->lse, area(t->m, h.H), ROLE_INPUT, f) || !trial_scratch(t, f))
        return false;
    double flops = (double)t->m * h.dq * 2 * t->model->sequence;
    const struct archrt_model *m = t->model;
    /* Large shapes take the program's own forward kernel, which is judged by itself. */
    for (int i = 0; flops > 5e8 && i < m->n_kernels; i++) {
        const struct archrt_kernel *k = &m->kernels[i];
        if (k->kind != ARCHRT_ATTENTION || k->m != t->m)
            continue;
        struct trial forward;
        struct forward_job job = {t, (attention_fn *)k->function};
        float *own = t->scratch;
        bool made = trial_open(&forward, m, k, k->m, 0, 0, 1, f); /* for its scratch */
        if (made) {
            t->scratch = forward.scratch;
            team_run(forward_work, &job);
            t->scratch = own;
        }
        trial_close(&forward);
        return made;
    }
    attention_forward(t);
    return true;
}

void attention_backward_call(struct trial *t, int tid)
{
    FUNCTION(attention_backward_fn, t)(t->y, t->dy, t->x, t->lse, t->qkv, t->scratch, tid);
}

/* All queries of sequence b and of the heads that share kv head kv. */
static void judge_group(struct trial *t, int64_t b, int kv)
{
    struct heads h = heads_of(t);
    int64_t T = t->model->sequence, first = b * T, G = h.H / h.K;
    double *rows = widen(t->qkv + first * h.width, area(T, h.width));
    double *dout = widen(t->dy + first * h.dq, area(T, h.dq));
    double *d = need(calloc(area(T, h.width), sizeof *d)), *p = need(malloc(area(T, 8)));
    int64_t k = h.dq + (int64_t)kv * h.E, v = k + h.dkv;
    for (int64_t head = kv * G; head < (kv + 1) * G; head++)
        for (int64_t q = 0; q < T; q++)
            ref_attend_backward(d + q * h.width + head * h.E, d + k, d + v, p,
                                dout + q * h.dq + head * h.E, rows + q * h.width + head * h.E,
                                rows + k, rows + v, h.width, (int)q + 1, h.E);
    for (int64_t q = 0; q < T; q++) {
        const float *got = t->y + (first + q) * h.width;
        const double *want = d + q * h.width;
        for (int64_t e = kv * G * h.E; e < (kv + 1) * G * h.E; e++)
            judge(t, (double)got[e], want[e], fabs(want[e]) + 1);
        for (int64_t e = 0; e < h.E; e++) {
            judge(t, (double)got[k + e], want[k + e], fabs(want[k + e]) + 2);
            judge(t, (double)got[v + e], want[v + e], fabs(want[v + e]) + 1);
        }
    }
    free(rows);
    free(dout);
    free(d);
    free(p);
}

void attention_backward_check(struct trial *t)
{
    struct heads h = heads_of(t);
    int64_t T = t->model->sequence, groups = t->m / T * h.K;
    double cost = 8.0 * (double)(T * T) * h.E * h.H / h.K;
    int64_t count = sample_count(t, groups, cost);
    for (int64_t s = 0; s < count; s++) {
        int64_t at = sample_at(t, s, count, groups);
        judge_group(t, at / h.K, (int)(at % h.K));
    }
    t->depth = fmax(h.E, (double)(h.H / h.K));
}

/* ---- swiglu ------------------------------------------------------------------------------------
 */

bool swiglu_prepare(struct trial *t, struct failure *f)
{
    int n = t->kernel->n;
    return trial_floats(t, &t->y, area(t->m, n), ROLE_OUTPUT, f) &&
           trial_floats(t, &t->gate_up, area(t->m, 2 * n), ROLE_INPUT, f);
}

void swiglu_call(struct trial *t, int tid)
{
    FUNCTION(swiglu_fn, t)(t->y, t->gate_up, t->m, tid);
}

void swiglu_check(struct trial *t)
{
    int64_t n = t->kernel->n, count = sample_count(t, t->m, 40.0 * (double)n);
    for (int64_t s = 0; s < count; s++) {
        int64_t i = sample_at(t, s, count, t->m);
        for (int64_t j = 0; j < n; j++) {
            double gate = (double)t->gate_up[i * 2 * n + j];
            double want = ref_silu(gate) * (double)t->gate_up[i * 2 * n + n + j];
            judge(t, (double)t->y[i * n + j], want, fabs(want) + 0.01);
        }
    }
}

/* Variant 1: everything in place, as training does. */
bool swiglu_backward_prepare(struct trial *t, struct failure *f)
{
    int n = t->kernel->n;
    if (t->variant == 1) {
        if (!trial_floats(t, &t->y, area(t->m, 2 * n), ROLE_INOUT, f) ||
            !trial_floats(t, &t->y2, area(t->m, n), ROLE_INOUT, f))
            return false;
        t->gate_up = t->y;
        t->dy = t->y2;
        return true;
    }
    return trial_floats(t, &t->y, area(t->m, 2 * n), ROLE_OUTPUT, f) &&
           trial_floats(t, &t->y2, area(t->m, n), ROLE_OUTPUT, f) &&
           trial_floats(t, &t->gate_up, area(t->m, 2 * n), ROLE_INPUT, f) &&
           trial_floats(t, &t->dy, area(t->m, n), ROLE_INPUT, f);
}

void swiglu_backward_call(struct trial *t, int tid)
{
    FUNCTION(swiglu_backward_fn, t)(t->y, t->y2, t->dy, t->gate_up, tid);
}

void swiglu_backward_check(struct trial *t)
{
    const float *gate_up = t->variant ? trial_pristine(t, t->y) : t->gate_up;
    const float *dh = t->variant ? trial_pristine(t, t->y2) : t->dy;
    int64_t n = t->kernel->n, count = sample_count(t, t->m, 80.0 * (double)n);
    for (int64_t s = 0; s < count; s++) {
        int64_t i = sample_at(t, s, count, t->m);
        for (int64_t j = 0; j < n; j++) {
            double gate = (double)gate_up[i * 2 * n + j], up = (double)gate_up[i * 2 * n + n + j];
            double d = (double)dh[i * n + j], dup = d * ref_silu(gate);
            double dgate = d * up * ref_silu_slope(gate), h = ref_silu(gate) * up;
            judge(t, (double)t->y[i * 2 * n + j], dgate, fabs(dgate) + 0.05);
            judge(t, (double)t->y[i * 2 * n + n + j], dup, fabs(dup) + 0.01);
            judge(t, (double)t->y2[i * n + j], h, fabs(h) + 0.01);
        }
    }
}

/* ---- loss --------------------------------------------------------------------------------------
 */

/* Gradients are judged in units of this scale. */
static const float loss_scale = VERIFY_LOSS_SCALE;

bool loss_prepare(struct trial *t, struct failure *f)
{
    int V = t->kernel->n;
    if (!trial_floats(t, &t->y, area(t->m, V), ROLE_INOUT, f) ||
        !trial_floats(t, &t->y2, area(t->m, 1), ROLE_OUTPUT, f) || !trial_tokens(t, t->m, V, f))
        return false;
    for (int i = 0; i < t->m; i++)
        if (pcg32_next(&t->random) % 5 == 0 && i > 0)
            t->token[i] = -1;
    for (size_t i = 0; i < area(t->m, V); i++)
        t->y[i] *= 3;
    return true;
}

void loss_call(struct trial *t, int tid)
{
    float scale = t->variant ? 0 : loss_scale;
    FUNCTION(loss_fn, t)(t->y2, t->y, t->token, scale, t->m, tid);
}

static void judge_loss_row(struct trial *t, const float *before, int64_t i)
{
    int V = t->kernel->n;
    double *logits = widen(before + i * V, area(V, 1)), loss = 0;
    const float *got = t->y + i * V;
    if (t->variant)
        for (int j = 0; j < V; j++)
            judge(t, (double)got[j], logits[j], 1e-30); /* must not change */
    if (t->token[i] >= 0)
        loss = ref_loss(logits, V, t->token[i], logits, (double)loss_scale);
    else
        memset(logits, 0, area(V, 1) * sizeof *logits);
    judge(t, (double)t->y2[i], loss, fabs(loss) + 1);
    for (int j = 0; !t->variant && j < V; j++) {
        double size = fabs(logits[j]) + 1e-3 * (double)loss_scale / V;
        judge(t, (double)got[j], logits[j], t->token[i] < 0 ? 1e-30 : size);
    }
    free(logits);
}

void loss_check(struct trial *t)
{
    const float *before = trial_pristine(t, t->y);
    int64_t count = sample_count(t, t->m, 60.0 * t->kernel->n);
    for (int64_t s = 0; s < count; s++)
        judge_loss_row(t, before, sample_at(t, s, count, t->m));
    t->depth = 16; /* exp of an argument of about 10 carries some roundings of its own */
}

/* ---- sum of squares, AdamW ---------------------------------------------------------------------
 */

bool sum_squares_prepare(struct trial *t, struct failure *f)
{
    return trial_floats(t, &t->x, area(t->kernel->n, 1), ROLE_INPUT, f) && trial_scratch(t, f);
}

void sum_squares_call(struct trial *t, int tid)
{
    double sum = FUNCTION(sum_squares_fn, t)(t->x, (double *)(void *)t->scratch, tid);
    if (tid < 256)
        t->sums[tid] = sum;
}

void sum_squares_check(struct trial *t)
{
    double want = 0;
    for (int64_t i = 0; i < t->kernel->n; i++)
        want += (double)t->x[i] * (double)t->x[i];
    for (int i = 0; i < t->model->threads && i < 256; i++) {
        judge(t, t->sums[i], want, want);
        if (t->sums[i] != t->sums[0])
            trial_fault(t, "thread %d got another sum than thread 0", i);
    }
    t->depth = 4;
}

/* Whether weight decay applies to float i of the slab; -1 in the padding between tensors. */
static int decays(const struct archrt_model *m, size_t i)
{
    for (int j = 0; j < m->n_tensors; j++) {
        const struct archrt_tensor *x = &m->tensors[j];
        if (i >= x->offset && i < x->offset + (size_t)tensor_size(x))
            return x->decay;
    }
    return -1;
}

bool adamw_prepare(struct trial *t, struct failure *f)
{
    size_t n = (size_t)t->kernel->n;
    struct archrt_adamw *s = &t->step;
    t->spoil = (int64_t)t->model->tensors[0].offset + 1; /* the slab's end is padding */
    if (!trial_floats(t, &t->y, n, ROLE_INOUT, f) ||
        !trial_floats(t, &s->grads, n, ROLE_INOUT, f) ||
        !trial_floats(t, &s->m, n, ROLE_INOUT, f) || !trial_floats(t, &s->v, n, ROLE_INOUT, f))
        return false;
    for (size_t i = 0; i < n; i++) {
        s->v[i] *= s->v[i];
        s->m[i] *= 0.5f;
    }
    s->params = t->y;
    s->lr = 0.1f, s->beta1 = 0.9f, s->beta2 = 0.95f, s->eps = 1e-8f, s->weight_decay = 0.2f;
    s->grad_scale = 0.7f, s->correction1 = 0.3f, s->correction2 = 0.2f;
    return true;
}

void adamw_call(struct trial *t, int tid)
{
    FUNCTION(adamw_fn, t)(&t->step, tid);
}

void adamw_check(struct trial *t)
{
    const struct archrt_adamw *s = &t->step;
    const float *p0 = trial_pristine(t, t->y), *g0 = trial_pristine(t, s->grads);
    const float *m0 = trial_pristine(t, s->m), *v0 = trial_pristine(t, s->v);
    const struct ref_adamw step = {(double)s->lr,           (double)s->beta1,
                                   (double)s->beta2,        (double)s->eps,
                                   (double)s->weight_decay, (double)s->grad_scale,
                                   (double)s->correction1,  (double)s->correction2};
    int64_t n = t->kernel->n, count = sample_count(t, n, 60.0);
    for (int64_t c = 0; c < count; c++) {
        int64_t i = sample_at(t, c, count, n);
        int decay = decays(t->model, (size_t)i);
        if (decay < 0)
            continue;
        double p = (double)p0[i], m = (double)m0[i], v = (double)v0[i];
        ref_adamw_step(&p, &m, &v, (double)g0[i], &step, decay);
        judge(t, (double)s->m[i], m, fabs(m) + 0.1);
        judge(t, (double)s->v[i], v, fabs(v) + 0.1);
        judge(t, (double)t->y[i], p, fabs(p) + fabs(p - (double)p0[i]));
        judge(t, (double)s->grads[i], 0, 1e-30);
    }
}

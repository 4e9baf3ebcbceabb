/* toy2_training.h - the training side of toy2_model.c: kernels as plain loops, forward and
 * backward, loss and optimiser. */
#ifndef TOY2_TRAINING_H
#define TOY2_TRAINING_H

#include "toy2_shape.h"

/* ---- training kernels --------------------------------------------------------------------------
 */

static void embed(float *x, const float *table, const int32_t *token, int tid)
{
    struct range r = share(M, tid);
    for (int i = r.begin; i < r.end; i++)
        memcpy(x + i * D, table + token[i] * D, D * sizeof *x);
}

static void embed_backward(float *dtable, const float *dx, const int32_t *token, int tid)
{
    struct range r = share(D, tid);
    for (int i = 0; i < M; i++)
        for (int j = r.begin; j < r.end; j++)
            dtable[token[i] * D + j] += dx[i * D + j];
}

static float norm_row(float *y, const float *x, const float *gain, int n)
{
    float squares = 0;
    for (int i = 0; i < n; i++)
        squares += x[i] * x[i];
    float rstd = 1 / sqrtf(squares / (float)n + EPS);
    for (int i = 0; i < n; i++)
        y[i] = x[i] * rstd * gain[i];
    return rstd;
}

static void norm(float *y, float *rstd, const float *x, const float *gain, int m, int tid)
{
    struct range r = share(m, tid);
    for (int i = r.begin; i < r.end; i++) {
        float s = norm_row(y + i * D, x + i * D, gain, D);
        if (rstd)
            rstd[i] = s;
    }
}

static void norm_row_backward(float *dx, float *dgain, const float *dy, const float *x, float rstd,
                              const float *gain, int n)
{
    float along = 0;
    for (int i = 0; i < n; i++)
        along += dy[i] * gain[i] * x[i];
    along *= rstd * rstd / (float)n;
    for (int i = 0; i < n; i++) {
        dgain[i] += dy[i] * x[i] * rstd;
        dx[i] += rstd * (dy[i] * gain[i] - along * x[i]);
    }
}

static void norm_backward(float *dx, float *dgain, const float *dy, const float *x,
                          const float *rstd, const float *gain, float *scratch, int tid)
{
    (void)scratch;
    if (tid == 0)
        for (int i = 0; i < M; i++)
            norm_row_backward(dx + i * D, dgain, dy + i * D, x + i * D, rstd[i], gain, D);
}

static float dot(const float *a, const float *b, int n)
{
    float s = 0;
    for (int i = 0; i < n; i++)
        s += a[i] * b[i];
    return s;
}

static void multiply(float *y, const float *x, const float *w, const float *bias,
                     const float *residual, int m, int n, int k, int tid)
{
    struct range r = share(m, tid);
    for (int i = r.begin; i < r.end; i++)
        for (int j = 0; j < n; j++)
            y[i * n + j] = dot(x + i * k, w + j * k, k) + (bias ? bias[j] : 0) +
                           (residual ? residual[i * n + j] : 0);
}

static void multiply_dx(float *dx, const float *dy, const float *w, int m, int n, int k, int tid)
{
    struct range r = share(m, tid);
    for (int i = r.begin; i < r.end; i++) {
        memset(dx + i * k, 0, (size_t)k * sizeof *dx);
        for (int j = 0; j < n; j++)
            for (int l = 0; l < k; l++)
                dx[i * k + l] += dy[i * n + j] * w[j * k + l];
    }
}

static void multiply_dw(float *dw, float *dbias, const float *dy, const float *x, int m, int n,
                        int k, int tid)
{
    struct range r = share(n, tid);
    for (int i = 0; i < m; i++)
        for (int j = r.begin; j < r.end; j++) {
            for (int l = 0; l < k; l++)
                dw[j * k + l] += dy[i * n + j] * x[i * k + l];
            if (dbias)
                dbias[j] += dy[i * n + j];
        }
}

#define PRODUCTS(name, n, k)                                                                       \
    static void name(float *y, const float *x, const float *w, const float *bias,                  \
                     const float *residual, float *scratch, int m, int tid)                        \
    {                                                                                              \
        (void)scratch;                                                                             \
        multiply(y, x, w, bias, residual, m, n, k, tid);                                           \
    }                                                                                              \
    static void name##_dx(float *dx, const float *dy, const float *w, float *scratch, int m,       \
                          int tid)                                                                 \
    {                                                                                              \
        (void)scratch;                                                                             \
        multiply_dx(dx, dy, w, m, n, k, tid);                                                      \
    }                                                                                              \
    static void name##_dw(float *dw, float *dbias, const float *dy, const float *x,                \
                          float *scratch, int m, int tid)                                          \
    {                                                                                              \
        (void)scratch;                                                                             \
        multiply_dw(dw, dbias, dy, x, m, n, k, tid);                                               \
    }
PRODUCTS(qkv, QKV, D)
PRODUCTS(out, D, DQ)
PRODUCTS(gate_up, 2 * F, D)
PRODUCTS(down, D, F)
PRODUCTS(head, V, D)

static void rotate(float *x, const float *turn, float sign)
{
    for (int i = 0; i < E / 2; i++) {
        float c = turn[2 * i], s = sign * turn[2 * i + 1], a = x[i], b = x[i + E / 2];
        x[i] = a * c - b * s;
        x[i + E / 2] = a * s + b * c;
    }
}

static void turn_row(float *row, float *rstd, const float *gain, const float *turn)
{
    for (int h = 0; h < H + K; h++) {
        if (QK_NORM) {
            float s = norm_row(row + h * E, row + h * E, gain + (h >= H) * E, E);
            if (rstd)
                rstd[h] = s;
        }
        rotate(row + h * E, turn, 1);
    }
}

static void rope(float *out, float *rstd, const float *in, const float *gain, const float *table,
                 int tid)
{
    struct range r = share(M, tid);
    for (int i = r.begin; i < r.end; i++) {
        memmove(out + i * QKV, in + i * QKV, QKV * sizeof *out);
        turn_row(out + i * QKV, rstd ? rstd + i * (H + K) : NULL, gain, table + i % T * E);
    }
}

static void rope_backward(float *dqkv, float *dgain, const float *in, const float *rstd,
                          const float *gain, const float *table, float *scratch, int tid)
{
    (void)scratch;
    for (int i = 0; tid == 0 && i < M; i++)
        for (int h = 0; h < H + K; h++) {
            float *d = dqkv + i * QKV + h * E, dx[E] = {0};
            rotate(d, table + i % T * E, -1);
            if (!QK_NORM)
                continue;
            norm_row_backward(dx, dgain + (h >= H) * E, d, in + i * QKV + h * E,
                              rstd[i * (H + K) + h], gain + (h >= H) * E, E);
            memcpy(d, dx, sizeof dx);
        }
}

/* One query over keys whose rows are `stride` apart. */
static float attend(float *att, float *p, const float *q, const float *k, const float *v,
                    int stride, int keys)
{
    float best = -INFINITY, sum = 0;
    for (int j = 0; j < keys; j++) {
        p[j] = dot(q, k + j * stride, E) / sqrtf(E);
        best = fmaxf(best, p[j]);
    }
    for (int j = 0; j < keys; j++)
        sum += p[j] = expf(p[j] - best);
    memset(att, 0, E * sizeof *att);
    for (int j = 0; j < keys; j++)
        for (int e = 0; e < E; e++)
            att[e] += p[j] / sum * v[j * stride + e];
    return best + logf(sum);
}

static void attention(float *att, float *lse, const float *qkv_rows, float *scratch, int tid)
{
    struct range r = share(M, tid);
    float p[T];
    (void)scratch;
    for (int i = r.begin; i < r.end; i++)
        for (int h = 0; h < H; h++) {
            const float *first = qkv_rows + (i / T * T) * QKV, *k = first + DQ + h / (H / K) * E;
            lse[i * H + h] = attend(att + i * DQ + h * E, p, qkv_rows + i * QKV + h * E, k, k + DKV,
                                    QKV, i % T + 1);
        }
}

static void attention_backward(float *dqkv, const float *datt, const float *att, const float *lse,
                               const float *rows, float *scratch, int tid)
{
    struct range r = share(B, tid);
    (void)scratch;
    memset(dqkv + r.begin * T * QKV, 0, (size_t)((r.end - r.begin) * T * QKV) * sizeof *dqkv);
    for (int i = r.begin * T; i < r.end * T; i++)
        for (int h = 0; h < H; h++) {
            const float *q = rows + i * QKV + h * E, *d = datt + i * DQ + h * E;
            float along = dot(d, att + i * DQ + h * E, E), scale = 1 / sqrtf(E);
            for (int j = i / T * T; j <= i; j++) {
                int at = j * QKV + DQ + h / (H / K) * E;
                const float *k = rows + at, *v = k + DKV;
                float p = expf(dot(q, k, E) * scale - lse[i * H + h]);
                float ds = scale * p * (dot(d, v, E) - along);
                for (int e = 0; e < E; e++) {
                    dqkv[i * QKV + h * E + e] += ds * k[e];
                    dqkv[at + e] += ds * q[e];
                    dqkv[at + DKV + e] += p * d[e];
                }
            }
        }
}

static void swiglu(float *h, const float *gu, int m, int tid)
{
    struct range r = share(m, tid);
    for (int i = r.begin; i < r.end; i++)
        for (int j = 0; j < F; j++) {
            float g = gu[i * 2 * F + j];
            h[i * F + j] = g / (1 + expf(-g)) * gu[i * 2 * F + F + j];
        }
}

static void swiglu_backward(float *dgu, float *h, const float *dh, const float *gu, int tid)
{
    struct range r = share(M, tid);
    for (int i = r.begin; i < r.end; i++)
        for (int j = 0; j < F; j++) {
            float g = gu[i * 2 * F + j], up = gu[i * 2 * F + F + j], d = dh[i * F + j];
            float s = 1 / (1 + expf(-g));
            dgu[i * 2 * F + j] = d * up * s * (1 + g * (1 - s));
            dgu[i * 2 * F + F + j] = d * g * s;
            if (h)
                h[i * F + j] = g * s * up;
        }
}

static void loss(float *out_loss, float *logits, const int32_t *target, float scale, int m, int tid)
{
    struct range r = share(m, tid);
    for (int i = r.begin; i < r.end; i++) {
        float *x = logits + i * V, best = -INFINITY, sum = 0;
        for (int v = 0; v < V; v++)
            best = fmaxf(best, x[v]);
        for (int v = 0; v < V; v++)
            sum += expf(x[v] - best);
        out_loss[i] = target[i] < 0 ? 0 : best + logf(sum) - x[target[i]];
        if (scale == 0)
            continue;
        for (int v = 0; v < V; v++)
            x[v] = target[i] < 0 ? 0 : (expf(x[v] - best) / sum - (v == target[i])) * scale;
    }
}

static double squares_shared[64];
static double sum_squares(const float *x, double *scratch, int tid)
{
    struct range r = share(PARAM_FLOATS, tid);
    double s = 0;
    (void)scratch;
    for (int i = r.begin; i < r.end; i++)
        s += (double)x[i] * (double)x[i];
    squares_shared[tid] = s;
    team_barrier(tid);
    s = 0;
    for (int i = 0; i < THREADS; i++)
        s += squares_shared[i];
    team_barrier(tid);
    return s;
}

static double model_sum_squares(const float *x, int tid)
{
    return sum_squares(x, NULL, tid);
}

static void adamw(const struct archrt_adamw *s, int tid)
{
    struct range r = share(PARAM_FLOATS, tid);
    for (int i = r.begin; i < r.end; i++) {
        float g = s->grads[i] * s->grad_scale;
        s->m[i] = s->beta1 * s->m[i] + (1 - s->beta1) * g;
        s->v[i] = s->beta2 * s->v[i] + (1 - s->beta2) * g * g;
        float decay = i < SMALL ? s->weight_decay : 0;
        s->params[i] -=
            s->lr * (s->m[i] / s->correction1 / (sqrtf(s->v[i] / s->correction2) + s->eps) +
                     decay * s->params[i]);
        s->grads[i] = 0;
    }
}

/* ---- training ----------------------------------------------------------------------------------
 */

struct layer_work {
    float x[M * D], norm1[M * D], rstd1[M], qkv[M * QKV], rotated[M * QKV], head_rstd[M * (H + K)];
    float att[M * DQ], lse[M * H], mid[M * D], norm2[M * D], rstd2[M], gu[M * 2 * F], h[M * F];
};
struct train_work {
    struct layer_work layer[L];
    float x[M * D], normf[M * D], rstdf[M], logits[M * V];
    float dx[M * D], dnorm[M * D], dqkv[M * QKV], datt[M * DQ], dgu[M * 2 * F], dh[M * F];
};

#define THEN team_barrier(tid)

static void forward(const struct archrt_train *s, struct train_work *w, int tid)
{
    const float *p = s->params;
    embed(w->layer[0].x, p + EMBED, s->token, tid), THEN;
    for (int i = 0; i < L; i++) {
        struct layer_work *a = &w->layer[i];
        const float *m = p + LAYERS + i * LAYER, *v = p + SMALL + i * SMALL_LAYER;
        norm(a->norm1, a->rstd1, a->x, v + NORM1, M, tid), THEN;
        qkv(a->qkv, a->norm1, m + WQKV, BIAS ? v + QKV_BIAS : NULL, NULL, NULL, M, tid), THEN;
        rope(a->rotated, a->head_rstd, a->qkv, v + HEAD_GAIN, s->rope, tid), THEN;
        attention(a->att, a->lse, a->rotated, NULL, tid), THEN;
        out(a->mid, a->att, m + WO, NULL, a->x, NULL, M, tid), THEN;
        norm(a->norm2, a->rstd2, a->mid, v + NORM2, M, tid), THEN;
        gate_up(a->gu, a->norm2, m + WGU, NULL, NULL, NULL, M, tid), THEN;
        swiglu(a->h, a->gu, M, tid), THEN;
        down(i + 1 < L ? w->layer[i + 1].x : w->x, a->h, m + WDOWN, NULL, a->mid, NULL, M, tid);
        THEN;
    }
    norm(w->normf, w->rstdf, w->x, p + FINAL, M, tid), THEN;
    head(w->logits, w->normf, p + HEAD, NULL, NULL, NULL, M, tid), THEN;
}

static void eval(const struct archrt_train *s, int tid)
{
    struct train_work *w = s->work;
    forward(s, w, tid);
    loss(s->loss, w->logits, s->target, 0, M, tid);
}

static void backward_layer(const struct archrt_train *s, struct train_work *w, int i, int tid)
{
    struct layer_work *a = &w->layer[i];
    const float *m = s->params + LAYERS + i * LAYER, *v = s->params + SMALL + i * SMALL_LAYER;
    float *gm = s->grads + LAYERS + i * LAYER, *gv = s->grads + SMALL + i * SMALL_LAYER;
    down_dw(gm + WDOWN, NULL, w->dx, a->h, NULL, M, tid);
    down_dx(w->dh, w->dx, m + WDOWN, NULL, M, tid), THEN;
    swiglu_backward(w->dgu, a->h, w->dh, a->gu, tid), THEN;
    gate_up_dw(gm + WGU, NULL, w->dgu, a->norm2, NULL, M, tid);
    gate_up_dx(w->dnorm, w->dgu, m + WGU, NULL, M, tid), THEN;
    norm_backward(w->dx, gv + NORM2, w->dnorm, a->mid, a->rstd2, v + NORM2, NULL, tid), THEN;
    out_dw(gm + WO, NULL, w->dx, a->att, NULL, M, tid);
    out_dx(w->datt, w->dx, m + WO, NULL, M, tid), THEN;
    attention_backward(w->dqkv, w->datt, a->att, a->lse, a->rotated, NULL, tid), THEN;
    rope_backward(w->dqkv, gv + HEAD_GAIN, a->qkv, a->head_rstd, v + HEAD_GAIN, s->rope, NULL, tid);
    THEN;
    qkv_dw(gm + WQKV, BIAS ? gv + QKV_BIAS : NULL, w->dqkv, a->norm1, NULL, M, tid);
    qkv_dx(w->dnorm, w->dqkv, m + WQKV, NULL, M, tid), THEN;
    norm_backward(w->dx, gv + NORM1, w->dnorm, a->x, a->rstd1, v + NORM1, NULL, tid), THEN;
}

static void train(const struct archrt_train *s, int tid)
{
    struct train_work *w = s->work;
    forward(s, w, tid);
    loss(s->loss, w->logits, s->target, s->grad_scale, M, tid), THEN;
    head_dw(s->grads + HEAD, NULL, w->logits, w->normf, NULL, M, tid);
    head_dx(w->dnorm, w->logits, s->params + HEAD, NULL, M, tid);
    struct range r = share(M * D, tid);
    memset(w->dx + r.begin, 0, (size_t)(r.end - r.begin) * sizeof *w->dx), THEN;
    norm_backward(w->dx, s->grads + FINAL, w->dnorm, w->x, w->rstdf, s->params + FINAL, NULL, tid);
    THEN;
    for (int i = L - 1; i >= 0; i--)
        backward_layer(s, w, i, tid);
    embed_backward(s->grads + EMBED, w->dx, s->token, tid), THEN;
}

#endif

/* toy2_model.c - a small real transformer written by hand: an archrt_model with plain loops for
 * kernels, every kind of them once, so that verify, bench and generate have something to work on
 * that no code generator made. TOY_VARIANT picks the architecture (the same three as
 * torch_reference.py), TOY_WEIGHTS the type of the packed weights, TOY_THREADS the team. */
#include <math.h>
#include <string.h>

#include "archrt.h"
#include "archrt_kernels.h"

#ifndef TOY_VARIANT
#define TOY_VARIANT 0
#endif
#ifndef TOY_WEIGHTS
#define TOY_WEIGHTS 0
#endif
#ifndef TOY_THREADS
#define TOY_THREADS 2
#endif

#if TOY_VARIANT == 0 /* group 3, dq != d_model */
#define NAME "plain"
enum { L = 2, D = 48, H = 6, K = 2, E = 16, F = 80, V = 101, TIED = 0, BIAS = 0, QK_NORM = 0 };
#define ROPE_THETA 1e4
#define ROPE_SCALING 0, 0, 0, 0
#elif TOY_VARIANT == 1 /* Qwen3-like: head norms, tied; group 5; as many ids as bytes */
#define NAME "qk_norm"
enum { L = 2, D = 40, H = 5, K = 1, E = 8, F = 56, V = 256, TIED = 1, BIAS = 0, QK_NORM = 1 };
#define ROPE_THETA 1e6
#define ROPE_SCALING 0, 0, 0, 0
#else /* Qwen2-like biases, Llama 3's long context */
#define NAME "bias"
enum { L = 3, D = 32, H = 4, K = 4, E = 8, F = 64, V = 67, TIED = 0, BIAS = 1, QK_NORM = 0 };
#define ROPE_THETA 500.0
#define ROPE_SCALING 8, 1, 4, 16
#endif
enum { C = 64, B = 2, T = 24, CHUNK = 20, M = B * T, THREADS = TOY_THREADS };
enum { DQ = H * E, DKV = K * E, QKV = DQ + 2 * DKV };
static const float EPS = 1e-5f;

/* The parameter slab: matrices, then gains and biases, then padding. */
enum {
    EMBED = 0,
    HEAD = TIED ? EMBED : V * D,
    LAYERS = (TIED ? 1 : 2) * V * D,
    WQKV = 0,
    WO = WQKV + QKV * D,
    WGU = WO + D * DQ,
    WDOWN = WGU + 2 * F * D,
    LAYER = WDOWN + D * F,
    SMALL = LAYERS + L * LAYER,
    NORM1 = 0,
    NORM2 = NORM1 + D,
    HEAD_GAIN = NORM2 + D,
    QKV_BIAS = HEAD_GAIN + 2 * E,
    SMALL_LAYER = QKV_BIAS + QKV,
    FINAL = SMALL + L * SMALL_LAYER,
    PARAM_FLOATS = (FINAL + D + 15) / 16 * 16
};

struct range {
    int begin, end;
};

static struct range share(int n, int tid)
{
    return (struct range){n * tid / THREADS, n * (tid + 1) / THREADS};
}

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

/* ---- packed weights: rows of one type ----------------------------------------------------------
 */

enum { BLOCK = 64 };

/* A row of k weights: fp32; bf16; or int8 with one fp32 scale a block behind them. */
static size_t packed_row(int k)
{
    size_t blocks = (size_t)(k + BLOCK - 1) / BLOCK;
    return TOY_WEIGHTS == 0   ? (size_t)k * 4
           : TOY_WEIGHTS == 1 ? (size_t)(k + 1) / 2 * 4
                              : blocks * BLOCK + blocks * 4;
}

#define PACKED_ROW(k)                                                                              \
    (TOY_WEIGHTS == 0   ? (size_t)(k)*4                                                            \
     : TOY_WEIGHTS == 1 ? (size_t)((k) + 1) / 2 * 4                                                \
                        : (size_t)((k) + BLOCK - 1) / BLOCK * (BLOCK + 4))

static void pack_row(char *at, const float *w, int k)
{
    if (TOY_WEIGHTS == 0) {
        memcpy(at, w, (size_t)k * sizeof *w);
        return;
    }
    if (TOY_WEIGHTS == 1) {
        for (int i = 0; i < k; i++) {
            uint32_t u;
            memcpy(&u, w + i, 4);
            u = (u + 0x7fff + (u >> 16 & 1)) >> 16;
            ((uint16_t *)(void *)at)[i] = (uint16_t)u;
        }
        return;
    }
    int blocks = (k + BLOCK - 1) / BLOCK;
    float *scale = (float *)(void *)(at + blocks * BLOCK);
    for (int b = 0; b < blocks; b++) {
        float top = 0;
        for (int i = b * BLOCK; i < k && i < (b + 1) * BLOCK; i++)
            top = fmaxf(top, fabsf(w[i]));
        scale[b] = top / 127;
        for (int i = b * BLOCK; i < k && i < (b + 1) * BLOCK; i++)
            ((signed char *)at)[i] = (signed char)(top > 0 ? rintf(w[i] / scale[b]) : 0);
    }
}

static void unpack_row(float *w, const char *at, int k)
{
    for (int i = 0; i < k; i++) {
        if (TOY_WEIGHTS == 0) {
            w[i] = ((const float *)(const void *)at)[i];
        } else if (TOY_WEIGHTS == 1) {
            uint32_t u = (uint32_t)((const uint16_t *)(const void *)at)[i] << 16;
            memcpy(w + i, &u, 4);
        } else {
            int blocks = (k + BLOCK - 1) / BLOCK;
            w[i] = (float)((const signed char *)at)[i] *
                   ((const float *)(const void *)(at + blocks * BLOCK))[i / BLOCK];
        }
    }
}

static void pack_matrix(void *dst, const float *w, int n, int k, int tid)
{
    struct range r = share(n, tid);
    for (int i = r.begin; i < r.end; i++)
        pack_row((char *)dst + (size_t)i * packed_row(k), w + i * k, k);
}

#define PACK(name, n, k)                                                                           \
    static void name(void *dst, const float *w, int tid)                                           \
    {                                                                                              \
        pack_matrix(dst, w, n, k, tid);                                                            \
    }
PACK(pack_table, V, D)
PACK(pack_qkv, QKV, D)
PACK(pack_out, D, DQ)
PACK(pack_gate_up, 2 * F, D)
PACK(pack_down, D, F)

/* The slab of packed weights: head, embedding, layers, then gains and biases as they are. */
#define P_HEAD ((size_t)0)
#define P_EMBED (TIED ? P_HEAD : V * PACKED_ROW(D))
#define P_LAYERS (P_EMBED + V * PACKED_ROW(D))
#define P_QKV ((size_t)0)
#define P_OUT (P_QKV + QKV * PACKED_ROW(D))
#define P_GU (P_OUT + D * PACKED_ROW(DQ))
#define P_DOWN (P_GU + 2 * F * PACKED_ROW(D))
#define P_LAYER (P_DOWN + D * PACKED_ROW(F))
#define P_SMALL (P_LAYERS + L * P_LAYER)
#define P_END (P_SMALL + (size_t)(PARAM_FLOATS - SMALL) * 4)

static void pack(void *weights, const float *params, int tid)
{
    char *to = weights;
    pack_table(to + P_HEAD, params + HEAD, tid);
    pack_table(to + P_EMBED, params + EMBED, tid);
    for (int i = 0; i < L; i++) {
        char *layer = to + P_LAYERS + (size_t)i * P_LAYER;
        const float *m = params + LAYERS + i * LAYER;
        pack_qkv(layer + P_QKV, m + WQKV, tid);
        pack_out(layer + P_OUT, m + WO, tid);
        pack_gate_up(layer + P_GU, m + WGU, tid);
        pack_down(layer + P_DOWN, m + WDOWN, tid);
    }
    if (tid == 0)
        memcpy(to + P_SMALL, params + SMALL, (size_t)(PARAM_FLOATS - SMALL) * sizeof *params);
}

/* ---- inference kernels -------------------------------------------------------------------------
 */

static void embed_row(float *x, const void *table, const int32_t *token, int m, int tid)
{
    struct range r = share(m, tid);
    for (int i = r.begin; i < r.end; i++)
        unpack_row(x + i * D, (const char *)table + (size_t)token[i] * packed_row(D), D);
}

static void packed_multiply(float *y, const float *x, const void *w, const float *bias,
                            const float *residual, int m, int n, int k, int tid)
{
    struct range r = share(n, tid);
    float row[V + 2 * F + QKV + D];
    for (int j = r.begin; j < r.end; j++) {
        unpack_row(row, (const char *)w + (size_t)j * packed_row(k), k);
        for (int i = 0; i < m; i++)
            y[i * n + j] = dot(x + i * k, row, k) + (bias ? bias[j] : 0) +
                           (residual ? residual[i * n + j] : 0);
    }
}

#define PACKED_PRODUCT(name, n, k)                                                                 \
    static void name(float *y, const float *x, const void *w, const float *bias,                   \
                     const float *residual, float *scratch, int m, int tid)                        \
    {                                                                                              \
        (void)scratch;                                                                             \
        packed_multiply(y, x, w, bias, residual, m, n, k, tid);                                    \
    }
PACKED_PRODUCT(prefill_qkv, QKV, D)
PACKED_PRODUCT(prefill_out, D, DQ)
PACKED_PRODUCT(prefill_gate_up, 2 * F, D)
PACKED_PRODUCT(prefill_down, D, F)
PACKED_PRODUCT(prefill_head, V, D)

/* The cache of a layer: [token][k and v of all heads]. */
static void prefill_rope(float *rows, void *cache, const float *gain, const float *table, int past,
                         int m, int tid)
{
    struct range r = share(m, tid);
    for (int i = r.begin; i < r.end; i++) {
        turn_row(rows + i * QKV, NULL, gain, table + (past + i) * E);
        memcpy((float *)cache + (past + i) * 2 * DKV, rows + i * QKV + DQ, 2 * DKV * sizeof *rows);
    }
}

static void prefill_attention(float *att, const float *rows, const void *cache, float *scratch,
                              int past, int m, int tid)
{
    struct range r = share(m * H, tid);
    float p[C];
    (void)scratch;
    for (int i = r.begin; i < r.end; i++) {
        const float *k = (const float *)cache + i % H / (H / K) * E;
        attend(att + i / H * DQ + i % H * E, p, rows + i / H * QKV + i % H * E, k, k + DKV, 2 * DKV,
               past + i / H + 1);
    }
}

#define MATVEC(name, n, k, with_norm, with_swiglu)                                                 \
    static void name(float *y, const float *x, const void *w, const float *gain,                   \
                     const float *bias, const float *residual, float *scratch, int tid)            \
    {                                                                                              \
        float normed[k], row[k];                                                                   \
        int outputs = (with_swiglu) ? (n) / 2 : (n);                                               \
        struct range r = share(outputs, tid);                                                      \
        (void)scratch;                                                                             \
        if (with_norm)                                                                             \
            norm_row(normed, x, gain, k);                                                          \
        else                                                                                       \
            memcpy(normed, x, sizeof normed);                                                      \
        team_barrier(tid);                                                                         \
        for (int i = r.begin; i < r.end; i++) {                                                    \
            unpack_row(row, (const char *)w + (size_t)i * packed_row(k), k);                       \
            float sum = dot(row, normed, k) + (bias ? bias[i] : 0);                                \
            if (with_swiglu) {                                                                     \
                unpack_row(row, (const char *)w + (size_t)(outputs + i) * packed_row(k), k);       \
                sum = sum / (1 + expf(-sum)) * dot(row, normed, k);                                \
            }                                                                                      \
            y[i] = sum + (residual ? residual[i] : 0);                                             \
        }                                                                                          \
    }
MATVEC(decode_qkv, QKV, D, 1, 0)
MATVEC(decode_out, D, DQ, 0, 0)
MATVEC(decode_gate_up, 2 * F, D, 1, 1)
MATVEC(decode_down, D, F, 0, 0)
MATVEC(decode_head, V, D, 1, 0)

static void decode_attention(float *att, const float *row, void *cache, const float *gain,
                             const float *table, float *scratch, int past, int tid)
{
    float turned[QKV], p[C];
    struct range r = share(H, tid);
    (void)scratch;
    memcpy(turned, row, sizeof turned);
    turn_row(turned, NULL, gain, table + past * E);
    if (tid == 0)
        memcpy((float *)cache + past * 2 * DKV, turned + DQ, 2 * DKV * sizeof *turned);
    team_barrier(tid);
    for (int h = r.begin; h < r.end; h++) {
        const float *k = (const float *)cache + h / (H / K) * E;
        attend(att + h * E, p, turned + h * E, k, k + DKV, 2 * DKV, past + 1);
    }
}

struct infer_work {
    float x[CHUNK * D], normed[CHUNK * D], qkv[CHUNK * QKV], att[CHUNK * DQ], gu[CHUNK * 2 * F];
    float h[CHUNK * F], logits[CHUNK * V], losses[CHUNK];
};

struct layer_weights {
    const char *matrix;
    const float *small;
    char *cache;
};

static struct layer_weights layer_at(const struct archrt_infer *s, int i)
{
    const char *w = s->weights;
    return (struct layer_weights){
        w + P_LAYERS + (size_t)i * P_LAYER,
        (const float *)(const void *)(w + P_SMALL) + i * SMALL_LAYER,
        (char *)s->cache + (size_t)i * C * 2 * DKV * sizeof(float),
    };
}

static const float *final_gain(const struct archrt_infer *s)
{
    return (const float *)(const void *)((const char *)s->weights + P_SMALL) + (FINAL - SMALL);
}

static void prefill(const struct archrt_infer *s, const int32_t *token, int n, float *logits,
                    const int32_t *target, float *logprobs, int tid)
{
    struct infer_work *w = s->work;
    const char *weights = s->weights;
    embed_row(w->x, weights + P_EMBED, token, n, tid), THEN;
    for (int i = 0; i < L; i++) {
        struct layer_weights l = layer_at(s, i);
        norm(w->normed, NULL, w->x, l.small + NORM1, n, tid), THEN;
        prefill_qkv(w->qkv, w->normed, l.matrix + P_QKV, BIAS ? l.small + QKV_BIAS : NULL, NULL,
                    NULL, n, tid);
        THEN;
        prefill_rope(w->qkv, l.cache, l.small + HEAD_GAIN, s->rope, s->past, n, tid), THEN;
        prefill_attention(w->att, w->qkv, l.cache, NULL, s->past, n, tid), THEN;
        prefill_out(w->x, w->att, l.matrix + P_OUT, NULL, w->x, NULL, n, tid), THEN;
        norm(w->normed, NULL, w->x, l.small + NORM2, n, tid), THEN;
        prefill_gate_up(w->gu, w->normed, l.matrix + P_GU, NULL, NULL, NULL, n, tid), THEN;
        swiglu(w->h, w->gu, n, tid), THEN;
        prefill_down(w->x, w->h, l.matrix + P_DOWN, NULL, w->x, NULL, n, tid), THEN;
    }
    norm(w->normed, NULL, w->x, final_gain(s), n, tid), THEN;
    prefill_head(w->logits, w->normed, weights + P_HEAD, NULL, NULL, NULL, n, tid), THEN;
    if (logits && tid == 0)
        memcpy(logits, w->logits + (n - 1) * V, V * sizeof *logits);
    if (!logprobs)
        return;
    loss(w->losses, w->logits, target, 0, n, tid), THEN;
    for (int i = 0; tid == 0 && i < n; i++)
        logprobs[i] = -w->losses[i];
}

static void decode(const struct archrt_infer *s, int32_t token, float *logits, int tid)
{
    struct infer_work *w = s->work;
    const char *weights = s->weights;
    embed_row(w->x, weights + P_EMBED, &token, 1, tid), THEN;
    for (int i = 0; i < L; i++) {
        struct layer_weights l = layer_at(s, i);
        decode_qkv(w->qkv, w->x, l.matrix + P_QKV, l.small + NORM1,
                   BIAS ? l.small + QKV_BIAS : NULL, NULL, NULL, tid);
        THEN;
        decode_attention(w->att, w->qkv, l.cache, l.small + HEAD_GAIN, s->rope, NULL, s->past, tid);
        THEN;
        decode_out(w->x, w->att, l.matrix + P_OUT, NULL, NULL, w->x, NULL, tid), THEN;
        decode_gate_up(w->h, w->x, l.matrix + P_GU, l.small + NORM2, NULL, NULL, NULL, tid), THEN;
        decode_down(w->x, w->h, l.matrix + P_DOWN, NULL, NULL, w->x, NULL, tid), THEN;
    }
    decode_head(logits, w->x, weights + P_HEAD, final_gain(s), NULL, NULL, NULL, tid);
}

/* ---- the table ---------------------------------------------------------------------------------
 */

#define MATRIX(name, rows, columns, at)                                                            \
    {                                                                                              \
        name, 2, {rows, columns}, at, true, 0.02f, false                                           \
    }
#define VECTOR(name, n, at, is_gain)                                                               \
    {                                                                                              \
        name, 1, {n, 0}, at, false, 0, is_gain                                                     \
    }
#define AT(i, what) (LAYERS + (i)*LAYER + (what))
#define SMALL_AT(i, what) (SMALL + (i)*SMALL_LAYER + (what))
#define LAYER_TENSORS(i)                                                                           \
    MATRIX("model.layers." #i ".self_attn.q_proj.weight", DQ, D, AT(i, WQKV)),                     \
        MATRIX("model.layers." #i ".self_attn.k_proj.weight", DKV, D, AT(i, WQKV + DQ * D)),       \
        MATRIX("model.layers." #i ".self_attn.v_proj.weight", DKV, D,                              \
               AT(i, WQKV + (DQ + DKV) * D)),                                                      \
        MATRIX("model.layers." #i ".self_attn.o_proj.weight", D, DQ, AT(i, WO)),                   \
        MATRIX("model.layers." #i ".mlp.gate_proj.weight", F, D, AT(i, WGU)),                      \
        MATRIX("model.layers." #i ".mlp.up_proj.weight", F, D, AT(i, WGU + F * D)),                \
        MATRIX("model.layers." #i ".mlp.down_proj.weight", D, F, AT(i, WDOWN)),                    \
        VECTOR("model.layers." #i ".input_layernorm.weight", D, SMALL_AT(i, NORM1), true),         \
        VECTOR("model.layers." #i ".post_attention_layernorm.weight", D, SMALL_AT(i, NORM2), true)
#define LAYER_NORMS(i)                                                                             \
    VECTOR("model.layers." #i ".self_attn.q_norm.weight", E, SMALL_AT(i, HEAD_GAIN), true),        \
        VECTOR("model.layers." #i ".self_attn.k_norm.weight", E, SMALL_AT(i, HEAD_GAIN + E), true)
#define LAYER_BIASES(i)                                                                            \
    VECTOR("model.layers." #i ".self_attn.q_proj.bias", DQ, SMALL_AT(i, QKV_BIAS), false),         \
        VECTOR("model.layers." #i ".self_attn.k_proj.bias", DKV, SMALL_AT(i, QKV_BIAS + DQ),       \
               false),                                                                             \
        VECTOR("model.layers." #i ".self_attn.v_proj.bias", DKV, SMALL_AT(i, QKV_BIAS + DQ + DKV), \
               false)

static const struct archrt_tensor tensors[] = {
    MATRIX("model.embed_tokens.weight", V, D, EMBED),
#if TOY_VARIANT != 1
    MATRIX("lm_head.weight", V, D, HEAD),
#endif
    LAYER_TENSORS(0),
    LAYER_TENSORS(1),
#if TOY_VARIANT == 1
    LAYER_NORMS(0),
    LAYER_NORMS(1),
#endif
#if TOY_VARIANT == 2
    LAYER_TENSORS(2),
    LAYER_BIASES(0),
    LAYER_BIASES(1),
    LAYER_BIASES(2),
#endif
    VECTOR("model.norm.weight", D, FINAL, true),
};

typedef void any_function(void);
#define KERNEL(kind, function, phase, m, n, k, flags, times, flops, bytes)                         \
    {                                                                                              \
        ARCHRT_##kind, #function, phase, m, n, k, ARCHRT_F32, times, flops, bytes,                 \
            (any_function *)(function), flags, 64, 0, NULL                                         \
    }
#define PACKED(kind, function, phase, m, n, k, flags, times, rows, columns, packer)                \
    {                                                                                              \
        ARCHRT_##kind, #function, phase, m, n, k, TOY_WEIGHTS, times,                              \
            2.0 * (m) * (rows) * (columns), (double)((rows)*PACKED_ROW(columns)),                  \
            (any_function *)(function), flags, 64, (rows)*PACKED_ROW(columns), packer              \
    }
#define PRODUCT(kind, function, n, k, flags, times)                                                \
    KERNEL(kind, function, "train", M, n, k, flags, times, 2.0 * M * (n) * (k),                    \
           4.0 * (M * (n) + M * (k) + (n) * (k)))

static const struct archrt_kernel kernels[] = {
    KERNEL(EMBED, embed, "train", M, D, 0, 0, 1, 0, 8.0 * M * D),
    KERNEL(EMBED_BACKWARD, embed_backward, "train", M, D, 0, 0, 1, 0, 12.0 * M * D),
    KERNEL(NORM, norm, "train", M, D, 0, 0, 2 * L + 1, 4.0 * M * D, 8.0 * M * D),
    KERNEL(NORM_BACKWARD, norm_backward, "train", M, D, 0, ARCHRT_ACCUMULATE, 2 * L + 1, 8.0 * M * D, 16.0 * M * D),
    PRODUCT(MATMUL, qkv, QKV, D, BIAS ? ARCHRT_BIAS : 0, L),
    PRODUCT(MATMUL, out, D, DQ, ARCHRT_RESIDUAL, L),
    PRODUCT(MATMUL, gate_up, 2 * F, D, 0, L),
    PRODUCT(MATMUL, down, D, F, ARCHRT_RESIDUAL, L),
    PRODUCT(MATMUL, head, V, D, 0, 1),
    PRODUCT(MATMUL_DX, qkv_dx, QKV, D, 0, L),
    PRODUCT(MATMUL_DX, head_dx, V, D, 0, 1),
    PRODUCT(MATMUL_DW, qkv_dw, QKV, D, BIAS ? ARCHRT_BIAS : 0, L),
    PRODUCT(MATMUL_DW, down_dw, D, F, 0, L),
    KERNEL(ROPE, rope, "train", M, QKV, E, 0, L, 3.0 * M * QKV, 8.0 * M * QKV),
    KERNEL(ROPE_BACKWARD, rope_backward, "train", M, QKV, E, 0, L, 3.0 * M * QKV, 8.0 * M * QKV),
    KERNEL(ATTENTION, attention, "train", M, T, E, 0, L, 2.0 * M * (T + 1) * DQ, 8.0 * M * QKV),
    KERNEL(ATTENTION_BACKWARD, attention_backward, "train", M, T, E, 0, L, 5.0 * M * (T + 1) * DQ,
           16.0 * M * QKV),
    KERNEL(SWIGLU, swiglu, "train", M, F, 0, 0, L, 5.0 * M * F, 12.0 * M * F),
    KERNEL(SWIGLU_BACKWARD, swiglu_backward, "train", M, F, 0, 0, L, 9.0 * M * F, 24.0 * M * F),
    KERNEL(LOSS, loss, "train", M, V, 0, 0, 1, 5.0 * M * V, 8.0 * M * V),
    KERNEL(SUM_SQUARES, sum_squares, "train", 1, PARAM_FLOATS, 0, 0, 1, 2.0 * PARAM_FLOATS,
           4.0 * PARAM_FLOATS),
    KERNEL(ADAMW, adamw, "train", 1, PARAM_FLOATS, 0, 0, 1, 12.0 * PARAM_FLOATS,
           28.0 * PARAM_FLOATS),
    PACKED(EMBED_ROW, embed_row, "prefill", CHUNK, D, 0, 0, 1, V, D, pack_table),
    KERNEL(NORM, norm, "prefill", CHUNK, D, 0, 0, 2 * L + 1, 4.0 * CHUNK * D, 8.0 * CHUNK * D),
    PACKED(PREFILL_MATMUL, prefill_qkv, "prefill", CHUNK, QKV, D, BIAS ? ARCHRT_BIAS : 0, L, QKV, D,
           pack_qkv),
    PACKED(PREFILL_MATMUL, prefill_out, "prefill", CHUNK, D, DQ, ARCHRT_RESIDUAL, L, D, DQ,
           pack_out),
    KERNEL(PREFILL_ROPE, prefill_rope, "prefill", CHUNK, QKV, E, 0, L, 3.0 * CHUNK * QKV,
           8.0 * CHUNK * QKV),
    KERNEL(PREFILL_ATTENTION, prefill_attention, "prefill", CHUNK, DQ, E, 0, L,
           2.0 * CHUNK * CHUNK * DQ, 8.0 * CHUNK * QKV),
    PACKED(MATVEC, decode_qkv, "decode", 1, QKV, D, ARCHRT_WITH_NORM | (BIAS ? ARCHRT_BIAS : 0), L,
           QKV, D, pack_qkv),
    PACKED(MATVEC, decode_out, "decode", 1, D, DQ, ARCHRT_RESIDUAL, L, D, DQ, pack_out),
    PACKED(MATVEC, decode_gate_up, "decode", 1, 2 * F, D, ARCHRT_WITH_NORM | ARCHRT_WITH_SWIGLU, L,
           2 * F, D, pack_gate_up),
    PACKED(MATVEC, decode_head, "decode", 1, V, D, ARCHRT_WITH_NORM, 1, V, D, pack_table),
    KERNEL(DECODE_ATTENTION, decode_attention, "decode", 1, DQ, E, 0, L, 4.0 * C / 2 * DQ,
           4.0 * C * DKV),
};

enum {
    SMALL_PARAMS = L * (2 * D + (QK_NORM ? 2 * E : 0) + (BIAS ? QKV : 0)) + D,
    MATRICES = L * LAYER
};

const struct archrt_model archrt_model = {
    .abi = ARCHRT_ABI,
    .source = "toy2_model.c",
    .options = "plain loops",
    .arch = {NAME, L, D, H, K, E, F, V, C, TIED, BIAS, QK_NORM, 1e-5f, ROPE_THETA, ROPE_SCALING},
    .hyper = {.lr = 3e-3,
              .warmup = 10,
              .weight_decay = 0.1,
              .clip = 1,
              .beta1 = 0.9,
              .beta2 = 0.95,
              .eps = 1e-8,
              .accumulate = 1},
    .tensors = tensors,
    .n_tensors = sizeof tensors / sizeof *tensors,
    .param_floats = PARAM_FLOATS,
    .params = MATRICES,
    .total_params = SMALL + SMALL_PARAMS,
    .threads = THREADS,
    .batch = B,
    .sequence = T,
    .work_bytes = sizeof(struct train_work),
    .train = train,
    .eval = eval,
    .adamw = adamw,
    .sum_squares = model_sum_squares,
    .weights = TOY_WEIGHTS,
    .chunk = CHUNK,
    .weight_bytes = P_END,
    .cache_bytes = (size_t)L * C * 2 * DKV * sizeof(float),
    .infer_work_bytes = sizeof(struct infer_work),
    .pack = pack,
    .prefill = prefill,
    .decode = decode,
    .kernels = kernels,
    .n_kernels = sizeof kernels / sizeof *kernels,
};

/* train_layer_ref.h - one layer in fp64, forward and backward: norm, qkv with bias, head norm and
 * rotation, causal attention, output and residual, norm, gate and up, SwiGLU, down and residual.
 *
 * Values are rounded to bf16 where the CUDA kernels keep bf16, so that results differ by little but
 * the order of sums; with ref_rounds false nothing is rounded, and gradients are those of finite
 * differences. */
#ifndef TRAIN_LAYER_REF_H
#define TRAIN_LAYER_REF_H

#include <string.h>

#include "kernel_test.h"

/* B, T, D_MODEL, HEADS, KV_HEADS, HEAD_DIM, D_FF are the including file's. */
enum {
    M = B * T,
    D = D_MODEL,
    H = HEADS,
    K = KV_HEADS,
    E = HEAD_DIM,
    F = D_FF,
    DQ = H * E,
    QKV = (H + 2 * K) * E,
    TURNED = H + K
};
#define LAYER_EPS 1e-5

/* What has a gradient: the parameters, and the layer's input. */
enum { P_QKV, P_BIAS, P_O, P_GATE_UP, P_DOWN, P_GAIN1, P_GAIN2, P_HEAD_GAIN, P_X, P_COUNT };
static const struct {
    const char *name;
    int floats;
} layer_tensors[P_COUNT] = {
    [P_QKV] = {"w_qkv", QKV *D}, [P_BIAS] = {"bias", QKV},
    [P_O] = {"w_o", D *DQ},      [P_GATE_UP] = {"w_gate_up", 2 * F *D},
    [P_DOWN] = {"w_down", D *F}, [P_GAIN1] = {"gain1", D},
    [P_GAIN2] = {"gain2", D},    [P_HEAD_GAIN] = {"head_gain", 2 * E},
    [P_X] = {"x", M *D},
};

struct layer_ref {
    double *p[P_COUNT], *grad[P_COUNT];
    double norm1[M * D], qkv[M * QKV], rot[M * QKV], weights[B * H * T * T], att[M * DQ];
    double x1[M * D], norm2[M * D], gate_up[M * 2 * F], h[M * F], x2[M * D];
    double rope[T * E];
    double dx[M * D]; /* of x2, then of x1, then of x */
};

static bool ref_rounds;

HOST_CODE static double ref_round(double x)
{
    return ref_rounds ? (double)f32_from_bf16(bf16_from_f32((float)x)) : x;
}

/* ---- products: y = x w^T, dx = dy w, dw += dy^T x ---- */

HOST_CODE static void ref_product(double *y, const double *x, const double *w, const double *bias,
                                  const double *residual, int n, int k)
{
    for (int i = 0; i < M; i++)
        for (int j = 0; j < n; j++) {
            double sum = bias ? bias[j] : 0;
            for (int l = 0; l < k; l++)
                sum += x[i * k + l] * w[j * k + l];
            y[i * n + j] = residual ? sum + residual[i * n + j] : ref_round(sum);
        }
}

HOST_CODE static void ref_product_dx(double *dx, const double *dy, const double *w, int n, int k)
{
    for (int i = 0; i < M; i++)
        for (int l = 0; l < k; l++) {
            double sum = 0;
            for (int j = 0; j < n; j++)
                sum += dy[i * n + j] * w[j * k + l];
            dx[i * k + l] = ref_round(sum);
        }
}

HOST_CODE static void ref_product_dw(double *dw, const double *dy, const double *x, int n, int k)
{
    for (int i = 0; i < M; i++)
        for (int j = 0; j < n; j++)
            for (int l = 0; l < k; l++)
                dw[j * k + l] += dy[i * n + j] * x[i * k + l];
}

/* ---- norms of n values; backward adds ---- */

HOST_CODE static double ref_rstd(const double *x, int n)
{
    double sum = 0;
    for (int j = 0; j < n; j++)
        sum += x[j] * x[j];
    return 1 / sqrt(sum / n + LAYER_EPS);
}

HOST_CODE static void ref_norm(double *y, const double *x, const double *gain, int n)
{
    const double r = ref_rstd(x, n);
    for (int j = 0; j < n; j++)
        y[j] = x[j] * r * gain[j];
}

HOST_CODE static void ref_norm_backward(double *dx, double *dgain, const double *dy,
                                        const double *x, const double *gain, int n)
{
    const double r = ref_rstd(x, n);
    double mean = 0;
    for (int j = 0; j < n; j++)
        mean += dy[j] * gain[j] * x[j] / n;
    for (int j = 0; j < n; j++) {
        dgain[j] += dy[j] * x[j] * r;
        dx[j] += r * (dy[j] * gain[j] - x[j] * r * r * mean);
    }
}

HOST_CODE static void ref_turn(double *x, const double *rope, double sign)
{
    for (int i = 0; i < E / 2; i++) {
        const double a = x[i], b = x[i + E / 2], c = rope[2 * i], s = sign * rope[2 * i + 1];
        x[i] = a * c - b * s;
        x[i + E / 2] = b * c + a * s;
    }
}

/* ---- attention of head h of sequence b: its q, k, v rows ---- */

HOST_CODE static size_t ref_at(int b, int t, int head)
{
    return (size_t)(b * T + t) * QKV + (size_t)head * E;
}

HOST_CODE static void ref_attention(struct layer_ref *r, int b, int h)
{
    const int kv = h / (H / K);
    double *weights = r->weights + (b * H + h) * T * T;
    for (int t = 0; t < T; t++) {
        double sum = 0, *w = weights + t * T;
        for (int s = 0; s <= t; s++) {
            w[s] = 0;
            for (int i = 0; i < E; i++)
                w[s] += r->rot[ref_at(b, t, h) + i] * r->rot[ref_at(b, s, H + kv) + i];
            w[s] = exp(w[s] / sqrt(E));
            sum += w[s];
        }
        for (int s = 0; s <= t; s++)
            w[s] /= sum;
        for (int i = 0; i < E; i++) {
            double out = 0;
            for (int s = 0; s <= t; s++)
                out += w[s] * r->rot[ref_at(b, s, TURNED + kv) + i];
            r->att[(b * T + t) * DQ + h * E + i] = ref_round(out);
        }
    }
}

/* Adds to drot; att is as rounded. */
HOST_CODE static void ref_attention_backward(double *drot, const struct layer_ref *r,
                                             const double *datt, int b, int h)
{
    const int kv = h / (H / K);
    const double *weights = r->weights + (b * H + h) * T * T;
    for (int t = 0; t < T; t++) {
        const double *d = datt + (b * T + t) * DQ + h * E, *o = r->att + (b * T + t) * DQ + h * E;
        double delta = 0;
        for (int i = 0; i < E; i++)
            delta += d[i] * o[i];
        for (int s = 0; s <= t; s++) {
            const double w = weights[t * T + s];
            double dw = 0;
            for (int i = 0; i < E; i++) {
                dw += d[i] * r->rot[ref_at(b, s, TURNED + kv) + i];
                drot[ref_at(b, s, TURNED + kv) + i] += w * d[i];
            }
            const double score = w * (dw - delta) / sqrt(E);
            for (int i = 0; i < E; i++) {
                drot[ref_at(b, t, h) + i] += score * r->rot[ref_at(b, s, H + kv) + i];
                drot[ref_at(b, s, H + kv) + i] += score * r->rot[ref_at(b, t, h) + i];
            }
        }
    }
}

/* ---- the layer ---- */

HOST_CODE static void ref_round_all(double *x, int n)
{
    for (int i = 0; i < n; i++)
        x[i] = ref_round(x[i]);
}

HOST_CODE static void ref_forward(struct layer_ref *r)
{
    for (int i = 0; i < M; i++)
        ref_norm(r->norm1 + i * D, r->p[P_X] + i * D, r->p[P_GAIN1], D);
    ref_round_all(r->norm1, M * D);
    ref_product(r->qkv, r->norm1, r->p[P_QKV], r->p[P_BIAS], NULL, QKV, D);
    memcpy(r->rot, r->qkv, sizeof(r->rot));
    for (int i = 0; i < M; i++)
        for (int h = 0; h < TURNED; h++) {
            double *head = r->rot + i * QKV + h * E;
            ref_norm(head, r->qkv + i * QKV + h * E, r->p[P_HEAD_GAIN] + (h < H ? 0 : E), E);
            ref_turn(head, r->rope + i % T * E, 1);
        }
    ref_round_all(r->rot, M * QKV);
    for (int b = 0; b < B; b++)
        for (int h = 0; h < H; h++)
            ref_attention(r, b, h);
    ref_product(r->x1, r->att, r->p[P_O], NULL, r->p[P_X], D, DQ);
    for (int i = 0; i < M; i++)
        ref_norm(r->norm2 + i * D, r->x1 + i * D, r->p[P_GAIN2], D);
    ref_round_all(r->norm2, M * D);
    ref_product(r->gate_up, r->norm2, r->p[P_GATE_UP], NULL, NULL, 2 * F, D);
    for (int i = 0; i < M; i++)
        for (int j = 0; j < F; j++) {
            const double g = r->gate_up[i * 2 * F + j], u = r->gate_up[i * 2 * F + F + j];
            r->h[i * F + j] = ref_round(g / (1 + exp(-g)) * u);
        }
    ref_product(r->x2, r->h, r->p[P_DOWN], NULL, r->x1, D, F);
}

/* r->dx: of x2, becomes that of x1. */
HOST_CODE static void ref_mlp_backward(struct layer_ref *r)
{
    static double half[M * D], dh[M * F], dgate_up[M * 2 * F], dnorm[M * D];
    memcpy(half, r->dx, sizeof(half));
    ref_round_all(half, M * D);
    ref_product_dx(dh, half, r->p[P_DOWN], D, F);
    ref_product_dw(r->grad[P_DOWN], half, r->h, D, F);
    for (int i = 0; i < M; i++)
        for (int j = 0; j < F; j++) {
            const double g = r->gate_up[i * 2 * F + j], u = r->gate_up[i * 2 * F + F + j];
            const double s = 1 / (1 + exp(-g)), d = dh[i * F + j];
            dgate_up[i * 2 * F + j] = ref_round(d * u * s * (1 + g * (1 - s)));
            dgate_up[i * 2 * F + F + j] = ref_round(d * g * s);
        }
    ref_product_dx(dnorm, dgate_up, r->p[P_GATE_UP], 2 * F, D);
    ref_product_dw(r->grad[P_GATE_UP], dgate_up, r->norm2, 2 * F, D);
    for (int i = 0; i < M; i++)
        ref_norm_backward(r->dx + i * D, r->grad[P_GAIN2], dnorm + i * D, r->x1 + i * D,
                          r->p[P_GAIN2], D);
}

/* From the gradient of rotated heads to that of projected ones. */
HOST_CODE static void ref_rope_backward(struct layer_ref *r, double *dqkv)
{
    for (int i = 0; i < M; i++)
        for (int h = 0; h < TURNED; h++) {
            double dy[E], *d = dqkv + i * QKV + h * E;
            const int which = h < H ? 0 : E;
            ref_turn(d, r->rope + i % T * E, -1);
            memcpy(dy, d, sizeof(dy));
            memset(d, 0, sizeof(dy));
            ref_norm_backward(d, r->grad[P_HEAD_GAIN] + which, dy, r->qkv + i * QKV + h * E,
                              r->p[P_HEAD_GAIN] + which, E);
        }
    ref_round_all(dqkv, M * QKV);
}

/* r->dx: of x1, becomes that of x. */
HOST_CODE static void ref_mixer_backward(struct layer_ref *r)
{
    static double half[M * D], datt[M * DQ], dqkv[M * QKV], dnorm[M * D];
    memcpy(half, r->dx, sizeof(half));
    ref_round_all(half, M * D);
    ref_product_dx(datt, half, r->p[P_O], D, DQ);
    ref_product_dw(r->grad[P_O], half, r->att, D, DQ);
    memset(dqkv, 0, sizeof(dqkv));
    for (int b = 0; b < B; b++)
        for (int h = 0; h < H; h++)
            ref_attention_backward(dqkv, r, datt, b, h);
    ref_round_all(dqkv, M * QKV);
    ref_rope_backward(r, dqkv);
    ref_product_dx(dnorm, dqkv, r->p[P_QKV], QKV, D);
    ref_product_dw(r->grad[P_QKV], dqkv, r->norm1, QKV, D);
    for (int i = 0; i < M; i++)
        for (int j = 0; j < QKV; j++)
            r->grad[P_BIAS][j] += dqkv[i * QKV + j];
    for (int i = 0; i < M; i++)
        ref_norm_backward(r->dx + i * D, r->grad[P_GAIN1], dnorm + i * D, r->p[P_X] + i * D,
                          r->p[P_GAIN1], D);
}

/* Gradients of sum(x2 dx), r->dx being dx; that of x is left in r->dx and r->grad[P_X]. */
HOST_CODE static void ref_backward(struct layer_ref *r)
{
    for (int t = 0; t < P_COUNT; t++)
        memset(r->grad[t], 0, sizeof(double) * (size_t)layer_tensors[t].floats);
    ref_mlp_backward(r);
    ref_mixer_backward(r);
    memcpy(r->grad[P_X], r->dx, sizeof(r->dx));
}

#endif

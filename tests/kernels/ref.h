/* ref.h - the training operations as plain loops in double, the truth that kernels are held to. All
 * shapes as in archrt_kernels.h. Gradients accumulate (+=). */
#ifndef REF_H
#define REF_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

/* y[m][n] = x[m][k] w[n][k]^T */
static inline void ref_matmul(double *y, const double *x, const double *w, int m, int n, int k)
{
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            double sum = 0;
            for (int l = 0; l < k; l++)
                sum += x[(size_t)i * k + l] * w[(size_t)j * k + l];
            y[(size_t)i * n + j] = sum;
        }
}

/* dx[m][k] += dy[m][n] w[n][k]; dw[n][k] += dy^T x; db[n] += column sums of dy. */
static inline void ref_matmul_backward(double *dx, double *dw, double *db, const double *dy,
                                       const double *x, const double *w, int m, int n, int k)
{
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            double d = dy[(size_t)i * n + j];
            db[j] += d;
            for (int l = 0; l < k; l++) {
                dx[(size_t)i * k + l] += d * w[(size_t)j * k + l];
                dw[(size_t)j * k + l] += d * x[(size_t)i * k + l];
            }
        }
}

static inline double ref_rstd(const double *x, int d, double eps)
{
    double sum = 0;
    for (int j = 0; j < d; j++)
        sum += x[j] * x[j];
    return 1 / sqrt(sum / d + eps);
}

static inline void ref_norm(double *y, const double *x, const double *gain, int m, int d,
                            double eps)
{
    for (int i = 0; i < m; i++) {
        double r = ref_rstd(x + (size_t)i * d, d, eps);
        for (int j = 0; j < d; j++)
            y[(size_t)i * d + j] = x[(size_t)i * d + j] * r * gain[j];
    }
}

static inline void ref_norm_backward(double *dx, double *dgain, const double *dy, const double *x,
                                     const double *gain, int m, int d, double eps)
{
    for (int i = 0; i < m; i++) {
        const double *xi = x + (size_t)i * d, *dyi = dy + (size_t)i * d;
        double r = ref_rstd(xi, d, eps), dot = 0;
        for (int j = 0; j < d; j++)
            dot += dyi[j] * gain[j] * xi[j];
        for (int j = 0; j < d; j++) {
            dgain[j] += dyi[j] * xi[j] * r;
            dx[(size_t)i * d + j] += r * dyi[j] * gain[j] - xi[j] * r * r * r * dot / d;
        }
    }
}

/* rope: [t][e / 2][cos, sin]; gain: [2][e] or NULL for no head norm. */
static inline void ref_rope(double *out, const double *in, const double *gain, const double *rope,
                            int m, int t, int h, int k, int e, double eps)
{
    for (int i = 0; i < m; i++)
        for (int c = 0; c < h + 2 * k; c++) {
            const double *x = in + ((size_t)i * (h + 2 * k) + c) * e;
            double *y = out + ((size_t)i * (h + 2 * k) + c) * e, n[512];
            double r = ref_rstd(x, e, eps);
            for (int j = 0; j < e; j++)
                n[j] = gain && c < h + k ? x[j] * r * gain[(c < h ? 0 : e) + j] : x[j];
            for (int j = 0; j < e; j++) {
                const double *turn = rope + ((size_t)(i % t) * (e / 2) + j % (e / 2)) * 2;
                double other = j < e / 2 ? -n[j + e / 2] : n[j - e / 2];
                y[j] = c < h + k ? n[j] * turn[0] + other * turn[1] : n[j];
            }
        }
}

/* d in place; dgain[2][e] += where gain. */
static inline void ref_rope_backward(double *d, double *dgain, const double *in, const double *gain,
                                     const double *rope, int m, int t, int h, int k, int e,
                                     double eps)
{
    for (int i = 0; i < m; i++)
        for (int c = 0; c < h + k; c++) {
            double *dy = d + ((size_t)i * (h + 2 * k) + c) * e, n[512] = {0}, dx[512] = {0};
            for (int j = 0; j < e; j++) {
                const double *turn = rope + ((size_t)(i % t) * (e / 2) + j % (e / 2)) * 2;
                n[j] = dy[j] * turn[0] + (j < e / 2 ? dy[j + e / 2] : -dy[j - e / 2]) * turn[1];
            }
            int which = c < h ? 0 : e;
            if (gain)
                ref_norm_backward(dx, dgain + which, n, in + ((size_t)i * (h + 2 * k) + c) * e,
                                  gain + which, 1, e, eps);
            for (int j = 0; j < e; j++)
                dy[j] = gain ? dx[j] : n[j];
        }
}

/* p[0..i] of query i of head c: the softmax of its scores; returns their log-sum-exp. */
static inline double ref_scores(double *p, const double *qkv, int i, int c, int h, int k, int e)
{
    size_t width = (size_t)(h + 2 * k) * e;
    const double *q = qkv + i * width + (size_t)c * e, *key = qkv + (size_t)(h + c / (h / k)) * e;
    double top = -INFINITY, sum = 0;
    for (int j = 0; j <= i; j++) {
        p[j] = 0;
        for (int l = 0; l < e; l++)
            p[j] += q[l] * key[j * width + l];
        p[j] /= sqrt(e);
        top = p[j] > top ? p[j] : top;
    }
    for (int j = 0; j <= i; j++)
        sum += exp(p[j] - top);
    for (int j = 0; j <= i; j++)
        p[j] = exp(p[j] - top) / sum;
    return top + log(sum);
}

static inline void ref_attention(double *att, double *lse, const double *qkv, int b, int t, int h,
                                 int k, int e)
{
    size_t width = (size_t)(h + 2 * k) * e;
    double *p = calloc((size_t)t, sizeof *p);
    for (int s = 0; s < b * t * h; s++) {
        int i = s / h % t, c = s % h;
        const double *rows = qkv + (size_t)(s / h / t) * t * width;
        lse[s] = ref_scores(p, rows, i, c, h, k, e);
        for (int l = 0; l < e; l++) {
            double sum = 0;
            for (int j = 0; j <= i; j++)
                sum += p[j] * rows[j * width + (size_t)(h + k + c / (h / k)) * e + l];
            att[(size_t)s * e + l] = sum;
        }
    }
    free(p);
}

static inline void ref_attention_backward(double *dqkv, const double *datt, const double *qkv,
                                          int b, int t, int h, int k, int e)
{
    size_t width = (size_t)(h + 2 * k) * e;
    double *p = calloc(2 * (size_t)t, sizeof *p), *dp = p + t;
    for (int s = 0; s < b * t * h; s++) {
        int i = s / h % t, c = s % h;
        size_t base = (size_t)(s / h / t) * t * width, q = i * width + (size_t)c * e;
        size_t at_k = (size_t)(h + c / (h / k)) * e, at_v = at_k + (size_t)k * e;
        const double *rows = qkv + base, *d = datt + (size_t)s * e;
        double *out = dqkv + base, dot = 0;
        ref_scores(p, rows, i, c, h, k, e);
        for (int j = 0; j <= i; j++) {
            dp[j] = 0;
            for (int l = 0; l < e; l++) {
                dp[j] += d[l] * rows[j * width + at_v + l];
                out[j * width + at_v + l] += p[j] * d[l];
            }
            dot += p[j] * dp[j];
        }
        for (int j = 0; j <= i; j++)
            for (int l = 0; l < e; l++) {
                double ds = p[j] * (dp[j] - dot) / sqrt(e);
                out[q + l] += ds * rows[j * width + at_k + l];
                out[j * width + at_k + l] += ds * rows[q + l];
            }
    }
    free(p);
}

static inline void ref_swiglu(double *out, const double *gu, int m, int f)
{
    for (int i = 0; i < m; i++)
        for (int j = 0; j < f; j++) {
            double g = gu[(size_t)i * 2 * f + j], u = gu[(size_t)i * 2 * f + f + j];
            out[(size_t)i * f + j] = g / (1 + exp(-g)) * u;
        }
}

static inline void ref_swiglu_backward(double *dgu, const double *dh, const double *gu, int m,
                                       int f)
{
    for (int i = 0; i < m; i++)
        for (int j = 0; j < f; j++) {
            size_t at = (size_t)i * 2 * f + j;
            double g = gu[at], u = gu[at + f], s = 1 / (1 + exp(-g)), d = dh[(size_t)i * f + j];
            dgu[at] += d * u * (s + g * s * (1 - s));
            dgu[at + f] += d * g * s;
        }
}

/* gradient may be NULL */
static inline void ref_loss(double *loss, double *gradient, const double *logits,
                            const int32_t *target, double scale, int m, int v)
{
    for (int i = 0; i < m; i++) {
        const double *x = logits + (size_t)i * v;
        double top = x[0], sum = 0;
        for (int j = 0; j < v; j++)
            top = x[j] > top ? x[j] : top;
        for (int j = 0; j < v; j++)
            sum += exp(x[j] - top);
        loss[i] = target[i] < 0 ? 0 : top + log(sum) - x[target[i]];
        for (int j = 0; gradient && j < v; j++)
            gradient[(size_t)i * v + j] =
                target[i] < 0 ? 0 : (exp(x[j] - top) / sum - (j == target[i])) * scale;
    }
}
#endif

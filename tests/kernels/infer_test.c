/* infer_test.c - the inference kernels against plain fp64 loops.
 *
 * Compiled with shapes as constants (-DD_MODEL=.. and so on) it tests that one; without, the
 * generic kernels over a list of shapes. Weights of the reference are what the packed ones stand
 * for, so the tolerance is that of fp32 sums, and for int8 that of x rounded to 16 bits. */
#include "infer_test.h"

#include "archrt_kernels.h"
#include "weights.h"

#if !ATTENTION_ONLY
#define TYPE 0
#include "instances.h"
#define TYPE 1
#include "instances.h"
#define TYPE 2
#include "instances.h"
#endif

#define KERNEL decode_attention
#define ATT_H HEADS
#define ATT_K KV_HEADS
#define ATT_E HEAD_DIM
#define HEAD_NORM 0
#define NORM_EPS EPSILON
#include "decode_attention.c"

#define KERNEL decode_attention_normed
#define ATT_H HEADS
#define ATT_K KV_HEADS
#define ATT_E HEAD_DIM
#define HEAD_NORM 1
#define NORM_EPS EPSILON
#include "decode_attention.c"

#define KERNEL prefill_attention
#define ATT_M CHUNK
#define ATT_H HEADS
#define ATT_K KV_HEADS
#define ATT_E HEAD_DIM
#include "prefill_attention.c"

#define KERNEL prefill_rope
#define ROPE_M CHUNK
#define ROPE_H HEADS
#define ROPE_K KV_HEADS
#define ROPE_E HEAD_DIM
#define HEAD_NORM 0
#define NORM_EPS EPSILON
#include "prefill_rope.c"

#define KERNEL prefill_rope_normed
#define ROPE_M CHUNK
#define ROPE_H HEADS
#define ROPE_K KV_HEADS
#define ROPE_E HEAD_DIM
#define HEAD_NORM 1
#define NORM_EPS EPSILON
#include "prefill_rope.c"

#if GENERIC
struct shape shape;
static const struct shape shapes[] = {
    /* name, D, H, K, E, F, V, C */
    {"plain", 64, 4, 2, 16, 128, 96, 80},
    {"one of everything", 8, 1, 1, 8, 1, 1, 1},
    {"group 5, head 40", 40, 5, 1, 40, 104, 50, 33},
    {"group 9, head 64", 96, 9, 1, 64, 200, 257, 200},
    {"group 16, head 256", 160, 16, 1, 256, 100, 31, 83},
    {"head 72, odd F", 72, 6, 6, 72, 65, 17, 130},
    {"odd D", 131, 14, 2, 24, 67, 33, 70},
    {"group 3, head 48", 288, 6, 2, 48, 400, 600, 140},
    {"F of whole pages", 64, 2, 1, 128, 1024, 48, 40},
};
#define NAME shape.name
#else
#define NAME "constants"
#endif

#if !ATTENTION_ONLY
/* ---- packed weights ---- */

static const char *const type_names[] = {"fp32", "bf16", "int8"};

struct matrix {
    int type, n, k, halves;
    char *packed;
    double *value; /* [n][k] as packed */
};

struct packing {
    struct matrix *m;
    const float *w;
};

static void pack_all(void *arg, int tid)
{
    const struct packing *p = arg;
    int rows = p->m->n / p->m->halves;
    for (int h = 0; h < p->m->halves; h++)
        weights_pack(p->m->type, p->m->packed + h * PACKED_BYTES(p->m->type, rows, p->m->k),
                     p->w + (size_t)h * rows * p->m->k, rows, p->m->k, tid);
}

/* How far a packed weight may be from w, whose block of 64 has the largest magnitude `most`. */
static double packing_error(int type, double w, double most)
{
    return type == WEIGHTS_F32 ? 0 : type == WEIGHTS_BF16 ? fabs(w) / 256 : most / 127 * 0.5001;
}

static void check_packing(const struct matrix *m, const float *w)
{
    for (int r = 0; r < m->n; r++)
        for (int c = 0; c < m->k; c++) {
            double most = 0, x = w[(size_t)r * m->k + c], got = m->value[(size_t)r * m->k + c];
            for (int i = c / 64 * 64; i < m->k && i < c / 64 * 64 + 64; i++)
                most = fmax(most, fabs((double)w[(size_t)r * m->k + i]));
            if (fabs(got - x) <= packing_error(m->type, x, most))
                continue;
            printf("FAIL %s: %s packed [%d][%d] is %g, should be near %g\n", NAME,
                   type_names[m->type], r, c, got, x);
            failures++;
            return;
        }
}

static struct matrix matrix_random(int type, int n, int k, int halves)
{
    struct matrix m = {type, n, k, halves, NULL, NULL};
    float *w = random_floats((size_t)n * k, 1, 0.1f);
    for (int c = 0; c < k && n > 2; c++)
        w[k + c] = 0; /* a row of zeros has no scale */
    m.packed = buffer(halves * PACKED_BYTES(type, n / halves, k));
    m.value = buffer(sizeof(double) * (size_t)n * k);
    struct packing p = {&m, w};
    team_all(pack_all, &p);
    int rows = n / halves;
    for (int r = 0; r < n; r++)
        for (int c = 0; c < k; c++)
            m.value[(size_t)r * k + c] =
                weights_at(type, m.packed + r / rows * PACKED_BYTES(type, rows, k), k, r % rows, c);
    check_packing(&m, w);
    return m;
}

/* ---- reference of products ---- */

enum { MOST_K = 4096 };

/* y[n] and its tolerance for one row x[k]; `normed`: of x / rms(x) gain. */
static void product_reference(const struct matrix *m, const float *x, const float *gain,
                              const float *bias, const float *residual, bool rounds, double *y,
                              double *tolerance)
{
    double *f = malloc(sizeof(double) * m->k), squares = 0;
    for (int c = 0; c < m->k; c++)
        squares += (double)x[c] * x[c];
    double rstd = 1 / sqrt(squares / m->k + (double)EPSILON);
    double most[MOST_K / 64 + 1] = {0}; /* of 64, over 65534: half a step of 16 bits */
    for (int c = 0; c < m->k; c++) {
        f[c] = gain ? x[c] * rstd * gain[c] : x[c];
        most[c / 64] = fmax(most[c / 64], rounds ? fabs(f[c]) / 65534 : 0);
    }
    for (int r = 0; r < m->n; r++) {
        double sum = 0, size = 0, rounding = 0;
        for (int c = 0; c < m->k; c++) {
            double w = m->value[(size_t)r * m->k + c];
            sum += w * f[c];
            size += fabs(w * f[c]);
            rounding += fabs(w) * most[c / 64];
        }
        double more = (bias ? (double)bias[r] : 0) + (residual ? (double)residual[r] : 0);
        y[r] = sum + more;
        tolerance[r] = 2e-6 * (size + fabs(more)) + 1.01 * rounding + 1e-9;
    }
    free(f);
}

static double silu(double x)
{
    return x / (1 + exp(-x));
}

/* ---- one token ---- */

struct matvec_call {
    matvec_fn *kernel;
    float *y, *scratch;
    const float *x, *gain, *bias, *residual;
    const void *w;
};

static void matvec_all(void *arg, int tid)
{
    const struct matvec_call *c = arg;
    c->kernel(c->y, c->x, c->w, c->gain, c->bias, c->residual, c->scratch, tid);
}

static void test_matvec(const char *name, matvec_fn *kernel, int type, int n, int k, bool norm,
                        bool bias, bool residual, bool swiglu)
{
    char what[64];
    snprintf(what, sizeof what, "matvec %s %s", name, type_names[type]);
    struct matrix m = matrix_random(type, n, k, swiglu ? 2 : 1);
    int out = swiglu ? n / 2 : n;
    struct matvec_call c = {.kernel = kernel,
                            .y = floats(out),
                            .scratch = floats(THREADS * MATVEC_SCRATCH_FLOATS(k)),
                            .x = random_floats(k, 2, 0.1f),
                            .gain = norm ? random_floats(k, 0.5f, 1) : NULL,
                            .bias = bias ? random_floats(n, 1, 0) : NULL,
                            .residual = residual ? random_floats(n, 1, 0) : NULL,
                            .w = m.packed};
    double *want = buffer(sizeof(double) * n), *tolerance = buffer(sizeof(double) * n);
    product_reference(&m, c.x, c.gain, c.bias, c.residual, type == WEIGHTS_I8, want, tolerance);
    for (int r = 0; swiglu && r < out; r++) {
        double g = want[r], u = want[out + r];
        tolerance[r] = 1.2 * tolerance[r] * fabs(u) + fabs(silu(g)) * tolerance[out + r] +
                       1e-6 * fabs(silu(g) * u) + 1e-9;
        want[r] = silu(g) * u;
    }
    team_all(matvec_all, &c);
    compare(NAME, what, c.y, want, tolerance, out);
    if (residual) { /* y may be residual */
        memcpy(c.y, c.residual, sizeof(float) * out);
        c.residual = c.y;
        team_all(matvec_all, &c);
        compare(NAME, what, c.y, want, tolerance, out);
    }
    buffers_free(what);
}

/* What is not a number must not come out as one, although integers stand between. */
static void test_not_finite(void)
{
    int n = D_MODEL, k = DQ;
    float *w = random_floats((size_t)n * k, 1, 0), *x = random_floats(k, 1, 0);
    struct matrix m = {WEIGHTS_I8, n, k, 1, buffer(PACKED_BYTES(WEIGHTS_I8, n, k)), NULL};
    struct packing p = {&m, w};
    struct matvec_call c = {.kernel = mv_o_2,
                            .y = floats(n),
                            .scratch = floats(THREADS * MATVEC_SCRATCH_FLOATS(k)),
                            .x = x,
                            .residual = random_floats(n, 1, 0),
                            .w = m.packed};
    for (int i = 0; i < 4; i++) {
        float *spot = i < 2 ? &x[k - 1] : &w[(size_t)n * k - 1], kept = *spot;
        *spot = i % 2 ? NAN : INFINITY;
        team_all(pack_all, &p);
        team_all(matvec_all, &c);
        *spot = kept;
        if (!isfinite(c.y[n - 1]) && (i < 2 || n == 1 || isfinite(c.y[0])))
            continue;
        printf("FAIL %s: int8 matvec with %s in %s gives %g\n", NAME, i % 2 ? "NaN" : "infinity",
               i < 2 ? "x" : "w", (double)c.y[n - 1]);
        failures++;
    }
    buffers_free("not finite");
}

/* ---- m tokens ---- */

struct prefill_call {
    prefill_matmul_fn *kernel;
    float *y, *scratch;
    const float *x, *bias, *residual;
    const void *w;
    int m;
};

static void prefill_all(void *arg, int tid)
{
    const struct prefill_call *c = arg;
    c->kernel(c->y, c->x, c->w, c->bias, c->residual, c->scratch, c->m, tid);
}

static void test_prefill(const char *name, prefill_matmul_fn *kernel, int type, int n, int k,
                         bool bias, bool residual, int halves)
{
    static const int rows[] = {1, 3, 14, 29, CHUNK};
    char what[64];
    snprintf(what, sizeof what, "prefill %s %s", name, type_names[type]);
    struct matrix w = matrix_random(type, n, k, halves);
    struct prefill_call c = {.kernel = kernel,
                             .scratch = floats(MATMUL_SCRATCH_FLOATS),
                             .x = random_floats((size_t)CHUNK * k, 2, 0.1f),
                             .bias = bias ? random_floats(n, 1, 0) : NULL,
                             .w = w.packed};
    const float *r = residual ? random_floats((size_t)CHUNK * n, 1, 0) : NULL;
    double *want = buffer(sizeof(double) * CHUNK * n),
           *tolerance = buffer(sizeof(double) * CHUNK * n);
    for (int i = 0; i < CHUNK; i++)
        product_reference(&w, c.x + (size_t)i * k, NULL, c.bias, r ? r + (size_t)i * n : NULL,
                          false, want + (size_t)i * n, tolerance + (size_t)i * n);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        size_t out = (size_t)rows[i] * n;
        c.m = rows[i];
        c.y = floats(out);
        c.residual = r;
        if (residual && i % 2) { /* y may be residual */
            memcpy(c.y, r, sizeof(float) * out);
            c.residual = c.y;
        }
        team_all(prefill_all, &c);
        compare(NAME, what, c.y, want, tolerance, out);
    }
    buffers_free(what);
}

/* ---- rows of the table ---- */

struct embed_call {
    embed_row_fn *kernel;
    float *x;
    const void *table;
    const int32_t *token;
    int m;
};

static void embed_all(void *arg, int tid)
{
    const struct embed_call *c = arg;
    c->kernel(c->x, c->table, c->token, c->m, tid);
}

static void test_embed(embed_row_fn *kernel, int type)
{
    enum { TOKENS = 9 };
    int32_t token[TOKENS];
    struct matrix table = matrix_random(type, VOCAB, D_MODEL, 1);
    struct embed_call c = {kernel, floats(TOKENS * D_MODEL), table.packed, token, TOKENS};
    for (int i = 0; i < TOKENS; i++)
        token[i] = i == 0 ? VOCAB - 1 : (i * 37) % VOCAB;
    team_all(embed_all, &c);
    for (int i = 0; i < TOKENS; i++) {
        double zero[D_MODEL + 1];
        memset(zero, 0, sizeof zero);
        compare(NAME, type_names[type], c.x + i * D_MODEL, table.value + (size_t)token[i] * D_MODEL,
                zero, D_MODEL);
    }
    buffers_free("embed_row");
}

#endif

/* ---- attention ---- */

struct sequence {
    int n;
    bool normed;
    const float *qkv, *gain, *rope; /* qkv [n][QKV] as projected */
    char *cache;
    float *att; /* [n][DQ] */
    float *scratch, *chunk;
};

struct chunk_call {
    const struct sequence *s;
    int past, m;
};

static void prefill_chunk(void *arg, int tid)
{
    const struct chunk_call *c = arg;
    const struct sequence *s = c->s;
    (s->normed ? prefill_rope_normed : prefill_rope)(s->chunk, s->cache, s->gain, s->rope, c->past,
                                                     c->m, tid);
    team_barrier(tid);
    prefill_attention(s->att + (size_t)c->past * DQ, s->chunk, s->cache, s->scratch, c->past, c->m,
                      tid);
}

static void decode_all(void *arg, int tid)
{
    const struct sequence *s = arg;
    for (int i = 0; i < s->n; i++) {
        (s->normed ? decode_attention_normed
                   : decode_attention)(s->att + (size_t)i * DQ, s->qkv + (size_t)i * QKV, s->cache,
                                       s->gain, s->rope, s->scratch, i, tid);
        team_barrier(tid);
    }
}

/* One head, normalised and rotated. */
static void turn_reference(const struct sequence *s, int position, const float *x,
                           const float *gain, double *to)
{
    int half = HEAD_DIM / 2;
    double squares = 0;
    for (int i = 0; i < HEAD_DIM; i++)
        squares += (double)x[i] * x[i];
    double rstd = s->normed ? 1 / sqrt(squares / HEAD_DIM + (double)EPSILON) : 1;
    for (int i = 0; i < half; i++) {
        const float *turn = s->rope + ((size_t)position * half + i) * 2;
        double a = x[i] * rstd * (s->normed ? gain[i] : 1);
        double b = x[half + i] * rstd * (s->normed ? gain[half + i] : 1);
        to[i] = a * turn[0] - b * turn[1];
        to[half + i] = b * turn[0] + a * turn[1];
    }
}

/* What the cache should hold, checked against what it holds; then what it holds, as k[], v[]. */
static void cache_reference(const struct sequence *s, const char *what, double *k, double *v)
{
    double turned[ATTEND_HEAD], error = KVTYPE == KV_BF16 ? 1.0 / 256 : 1e-5;
    for (int head = 0; head < KV_HEADS; head++) {
        const char *keys = kv_keys(s->cache, CONTEXT, HEAD_DIM, head);
        const char *values = kv_values(s->cache, CONTEXT, HEAD_DIM, head);
        for (int i = 0; i < s->n; i++) {
            const float *row = s->qkv + (size_t)i * QKV;
            turn_reference(s, i, row + DQ + head * HEAD_DIM, s->gain + HEAD_DIM, turned);
            for (int e = 0; e < HEAD_DIM; e++) {
                size_t at = ((size_t)head * s->n + i) * HEAD_DIM + e;
                double value = row[DQ + DKV + head * HEAD_DIM + e];
                k[at] = kv_read(keys, kv_key_at(HEAD_DIM, i, e));
                v[at] = kv_read(values, kv_value_at(HEAD_DIM, i, e));
                if (fabs(k[at] - turned[e]) <= error * (fabs(turned[e]) + 0.1) &&
                    fabs(v[at] - value) <= error * (fabs(value) + 1e-2))
                    continue;
                printf("FAIL %s: %s: cache at head %d, position %d, %d: k %g for %g, v %g for %g\n",
                       NAME, what, head, i, e, k[at], turned[e], v[at], value);
                failures++;
            }
        }
    }
}

static void attention_reference(const struct sequence *s, const double *k, const double *v,
                                double *att, double *tolerance)
{
    double q[ATTEND_HEAD], *p = malloc(sizeof(double) * s->n);
    int group = HEADS / KV_HEADS;
    for (int i = 0; i < s->n; i++)
        for (int h = 0; h < HEADS; h++) {
            const double *kh = k + (size_t)(h / group) * s->n * HEAD_DIM;
            const double *vh = v + (size_t)(h / group) * s->n * HEAD_DIM;
            double most = -INFINITY, total = 0, largest = 0;
            turn_reference(s, i, s->qkv + (size_t)i * QKV + h * HEAD_DIM, s->gain, q);
            for (int j = 0; j <= i; j++) {
                double dot = 0;
                for (int e = 0; e < HEAD_DIM; e++)
                    dot += q[e] * kh[j * HEAD_DIM + e];
                p[j] = dot / sqrt(HEAD_DIM);
                most = fmax(most, p[j]);
                largest = fmax(largest, fabs(p[j]));
            }
            for (int j = 0; j <= i; j++)
                total += p[j] = exp(p[j] - most);
            for (int e = 0; e < HEAD_DIM; e++) {
                double sum = 0, size = 0;
                for (int j = 0; j <= i; j++) {
                    sum += p[j] * vh[j * HEAD_DIM + e];
                    size += p[j] * fabs(vh[j * HEAD_DIM + e]);
                }
                size_t at = ((size_t)i * HEADS + h) * HEAD_DIM + e;
                att[at] = sum / total;
                tolerance[at] = 2e-6 * (2 + largest) * size / total + 1e-7;
            }
        }
    free(p);
}

static void prefill_in_chunks(struct sequence *s, int first)
{
    for (int past = 0, m; past < s->n; past += m) {
        m = past == 0 ? first : CHUNK;
        m = m < s->n - past ? m : s->n - past;
        s->chunk = floats((size_t)m * QKV);
        memcpy(s->chunk, s->qkv + (size_t)past * QKV, sizeof(float) * m * QKV);
        struct chunk_call c = {s, past, m};
        team_all(prefill_chunk, &c);
    }
}

static void test_attention(bool normed, int first)
{
    char what[64];
    int n = CONTEXT;
    size_t outs = (size_t)n * DQ, state = (size_t)n * DKV;
    struct sequence s = {.n = n, .normed = normed};
    s.qkv = random_floats((size_t)n * QKV, 3, 0);
    s.gain = random_floats(2 * HEAD_DIM, 0.5f, 1.5f);
    s.rope = random_floats((size_t)n * HEAD_DIM, 1, 0);
    s.scratch = floats(THREADS * (PREFILL_ATTENTION_SCRATCH_FLOATS(HEADS / KV_HEADS, HEAD_DIM) +
                                  DECODE_ATTENTION_SCRATCH_FLOATS(HEADS / KV_HEADS, HEAD_DIM)));
    double *k = buffer(8 * state), *v = buffer(8 * state);
    double *want = buffer(8 * outs), *tolerance = buffer(8 * outs);

    snprintf(what, sizeof what, "prefill attention%s, first chunk %d", normed ? ", head norm" : "",
             first);
    s.cache = buffer(KV_LAYER_BYTES(CONTEXT, KV_HEADS, HEAD_DIM));
    s.att = floats(outs);
    prefill_in_chunks(&s, first);
    cache_reference(&s, what, k, v);
    attention_reference(&s, k, v, want, tolerance);
    compare(NAME, what, s.att, want, tolerance, outs);

    snprintf(what, sizeof what, "decode attention%s", normed ? ", head norm" : "");
    s.cache = buffer(KV_LAYER_BYTES(CONTEXT, KV_HEADS, HEAD_DIM));
    s.att = floats(outs);
    team_all(decode_all, &s);
    cache_reference(&s, what, k, v);
    if (KVTYPE == KV_BF16) /* k next to a tie may round either way */
        attention_reference(&s, k, v, want, tolerance);
    compare(NAME, what, s.att, want, tolerance, outs);
    buffers_free(what);
}

/* ---- all ---- */

#define TEST_TYPE(t)                                                                               \
    do {                                                                                           \
        test_matvec("qkv", mv_qkv_##t, t, QKV, D_MODEL, true, true, false, false);                 \
        test_matvec("o", mv_o_##t, t, D_MODEL, DQ, false, false, true, false);                     \
        test_matvec("gate_up", mv_gate_up_##t, t, 2 * D_FF, D_MODEL, true, false, false, true);    \
        test_matvec("down", mv_down_##t, t, D_MODEL, D_FF, false, true, true, false);              \
        test_matvec("head", mv_head_##t, t, VOCAB, D_MODEL, true, false, false, false);            \
        test_prefill("qkv", mm_qkv_##t, t, QKV, D_MODEL, true, false, 1);                          \
        test_prefill("o", mm_o_##t, t, D_MODEL, DQ, false, true, 1);                               \
        test_prefill("gate_up", mm_gate_up_##t, t, 2 * D_FF, D_MODEL, false, false, 2);            \
        test_prefill("down", mm_down_##t, t, D_MODEL, D_FF, true, true, 1);                        \
        test_prefill("head", mm_head_##t, t, VOCAB, D_MODEL, false, false, 1);                     \
        test_embed(embed_##t, t);                                                                  \
    } while (0)

static void test_shape(void)
{
#if !ATTENTION_ONLY
    TEST_TYPE(0);
    TEST_TYPE(1);
    TEST_TYPE(2);
    test_not_finite();
#endif
    test_attention(false, CHUNK);
    test_attention(true, 7);
    test_attention(false, 1);
}

int main(void)
{
#if GENERIC
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        shape = shapes[i];
        test_shape();
    }
#else
    test_shape();
#endif
    printf("%d failures\n", failures);
    return failures != 0;
}

/* verify_infer.c - the inference kernels: packed weights and cached keys. The layouts are the
 * program's own: weights go in through its pack functions, keys through its rotation kernel. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "reference.h"
#include "verify.h"

/* ---- packed weights ----------------------------------------------------------------------------
 */

static void pack_work(void *arg, int tid)
{
    struct trial *t = arg;
    t->kernel->pack(t->packed, t->w, tid);
}

/* Packs w[rows][columns] and keeps what the packed type makes of it in t->rounded. */
static bool pack_weights(struct trial *t, int64_t rows, int64_t columns, struct failure *f)
{
    if (!t->kernel->pack || !t->kernel->packed_bytes)
        return failed(f, STATUS_OK, "no pack function: only the whole model judges it");
    if (!trial_bytes(t, &t->packed, t->kernel->packed_bytes, ROLE_SCRATCH, f))
        return false;
    for (int64_t i = 0; t->kernel->weights == ARCHRT_I8 && i < rows; i++)
        ref_avoid_ties(t->w + i * columns, (int)columns);
    team_run(pack_work, t);
    t->operands[t->n_operands - 1].role = ROLE_INPUT; /* from here on */
    t->rounded = need(malloc(area(rows, columns) * sizeof *t->rounded));
    double *row = need(malloc(area(columns, 1) * sizeof *row));
    for (int64_t i = 0; i < rows; i++) {
        ref_round(row, t->w + i * columns, (int)columns, (enum archrt_dtype)t->kernel->weights);
        for (int64_t j = 0; j < columns; j++)
            t->rounded[i * columns + j] = (float)row[j];
    }
    free(row);
    return true;
}

bool embed_row_prepare(struct trial *t, struct failure *f)
{
    int V = t->model->arch.vocab, n = t->kernel->n;
    return trial_floats(t, &t->y, area(t->m, n), ROLE_OUTPUT, f) &&
           trial_floats(t, &t->w, area(V, n), ROLE_INPUT, f) && trial_tokens(t, t->m, V, f) &&
           pack_weights(t, V, n, f);
}

void embed_row_call(struct trial *t, int tid)
{
    FUNCTION(embed_row_fn, t)(t->y, t->packed, t->token, t->m, tid);
}

void embed_row_check(struct trial *t)
{
    int64_t n = t->kernel->n;
    for (int64_t i = 0; i < t->m; i++)
        for (int64_t j = 0; j < n; j++) {
            double want = (double)t->rounded[t->token[i] * n + j];
            judge(t, (double)t->y[i * n + j], want, fabs(want));
        }
}

bool prefill_matmul_prepare(struct trial *t, struct failure *f)
{
    return matmul_prepare(t, f) && pack_weights(t, t->kernel->n, t->kernel->k, f);
}

void prefill_matmul_call(struct trial *t, int tid)
{
    FUNCTION(prefill_matmul_fn, t)
    (t->y, t->x, t->packed, t->bias, t->residual, t->scratch, t->m, tid);
}

void prefill_matmul_check(struct trial *t)
{
    matmul_check(t);
}

/* ---- matvec ------------------------------------------------------------------------------------
 */

bool matvec_prepare(struct trial *t, struct failure *f)
{
    int64_t n = t->kernel->n, k = t->kernel->k;
    int64_t outputs = FLAG(t, ARCHRT_WITH_SWIGLU) ? n / 2 : n;
    bool in_place = t->variant == 1;
    if (!trial_floats(t, &t->y, area(outputs, 1), in_place ? ROLE_INOUT : ROLE_OUTPUT, f) ||
        !trial_floats(t, &t->x, area(k, 1), ROLE_INPUT, f) ||
        !trial_floats(t, &t->w, area(n, k), ROLE_INPUT, f) || !trial_scratch(t, f))
        return false;
    if (FLAG(t, ARCHRT_WITH_NORM) && !trial_floats(t, &t->gain, area(k, 1), ROLE_INPUT, f))
        return false;
    if (FLAG(t, ARCHRT_BIAS) && !trial_floats(t, &t->bias, area(n, 1), ROLE_INPUT, f))
        return false;
    t->residual = in_place ? t->y : NULL;
    if (FLAG(t, ARCHRT_RESIDUAL) && !in_place &&
        !trial_floats(t, &t->residual, area(outputs, 1), ROLE_INPUT, f))
        return false;
    /* Sums of about 2, so that SiLU is neither linear nor saturated. */
    float scale = FLAG(t, ARCHRT_WITH_SWIGLU) ? 2 / sqrtf((float)k) : 1;
    for (size_t i = 0; i < area(n, k); i++)
        t->w[i] *= scale;
    return pack_weights(t, n, k, f);
}

void matvec_call(struct trial *t, int tid)
{
    FUNCTION(matvec_fn, t)
    (t->y, t->x, t->packed, t->gain, t->bias, t->residual, t->scratch, tid);
}

static double row_dot(const float *w, const double *x, int64_t n, double *magnitude)
{
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) {
        double term = (double)w[i] * x[i];
        sum += term;
        squares += term * term;
    }
    *magnitude = sqrt(squares);
    return sum;
}

static void check_swiglu_rows(struct trial *t, const double *x)
{
    int64_t half = t->kernel->n / 2, k = t->kernel->k;
    int64_t count = sample_count(t, half, 4.0 * (double)k);
    t->depth = (double)k;
    for (int64_t s = 0; s < count; s++) {
        int64_t i = sample_at(t, s, count, half);
        double gate_size, up_size;
        double gate = row_dot(t->rounded + i * k, x, k, &gate_size);
        double up = row_dot(t->rounded + (half + i) * k, x, k, &up_size);
        double want = ref_silu(gate) * up;
        double size = fabs(ref_silu_slope(gate) * up) * gate_size + fabs(ref_silu(gate)) * up_size;
        judge(t, (double)t->y[i], want, size + fabs(want) + 0.01);
    }
}

void matvec_check(struct trial *t)
{
    int64_t n = t->kernel->n, k = t->kernel->k;
    double *x = widen(t->x, area(k, 1));
    if (t->gain) {
        double *gain = widen(t->gain, area(k, 1));
        ref_norm(x, x, gain, (double)t->model->arch.norm_eps, (int)k);
        free(gain);
    }
    if (FLAG(t, ARCHRT_WITH_SWIGLU)) {
        check_swiglu_rows(t, x);
    } else {
        float *normed = need(malloc(area(k, 1) * sizeof *normed));
        for (int64_t i = 0; i < k; i++)
            normed[i] = (float)x[i];
        struct product_check c = {.M = 1, .N = n, .K = k, .out = t->y, .bias = t->bias};
        c.a = normed, c.ai = k, c.ak = 1;
        c.b = t->rounded, c.bj = k, c.bk = 1;
        c.added = t->residual == t->y ? trial_pristine(t, t->y) : t->residual;
        check_product(t, &c);
        free(normed);
    }
    free(x);
}

/* ---- rotation and the cache --------------------------------------------------------------------
 */

static bool cache_prepare(struct trial *t, struct failure *f)
{
    const struct archrt_model *m = t->model;
    struct heads h = heads_of(t);
    if (!trial_bytes(t, &t->cache, m->cache_bytes / (size_t)m->arch.layers, ROLE_SCRATCH, f) ||
        !trial_rope(t, f))
        return false;
    return !m->arch.qk_norm || trial_floats(t, &t->gain, area(2, h.E), ROLE_INPUT, f);
}

/* Row of qkv at a position, in place: what the kernel should make of it. */
static void turn_row(const struct trial *t, double *row, int64_t position)
{
    struct heads h = heads_of(t);
    double turn[h.E];
    for (int e = 0; e < h.E; e++)
        turn[e] = (double)t->rope[position * h.E + e];
    for (int j = 0; j < h.H + h.K; j++) {
        double *x = row + (int64_t)j * h.E;
        if (t->gain) {
            double gain[h.E];
            for (int e = 0; e < h.E; e++)
                gain[e] = (double)t->gain[(j >= h.H) * h.E + e];
            ref_norm(x, x, gain, (double)t->model->arch.norm_eps, h.E);
        }
        ref_rotate(x, turn, h.E, false);
    }
}

bool prefill_rope_prepare(struct trial *t, struct failure *f)
{
    struct heads h = heads_of(t);
    t->spoil = (int64_t)(t->m - 1) * h.width + h.dq - 1; /* of a query: keys are not looked at */
    return trial_floats(t, &t->y, area(t->m, h.width), ROLE_INOUT, f) && cache_prepare(t, f);
}

void prefill_rope_call(struct trial *t, int tid)
{
    FUNCTION(prefill_rope_fn, t)(t->y, t->cache, t->gain, t->rope, t->past, t->m, tid);
}

/* Of the keys and values only the attention kernels can tell: the layout is theirs. */
void prefill_rope_check(struct trial *t)
{
    struct heads h = heads_of(t);
    const float *before = trial_pristine(t, t->y);
    for (int64_t i = 0; i < t->m; i++) {
        double *row = widen(before + i * h.width, area(h.width, 1));
        turn_row(t, row, t->past + i);
        for (int j = 0; j < h.dq; j++)
            judge(t, (double)t->y[i * h.width + j], row[j], fabs(row[j]) + 0.5);
        free(row);
    }
    t->depth = h.E; /* angles by fp32 tables, norms over E */
}

static const struct archrt_kernel *find_kernel(const struct archrt_model *m,
                                               enum archrt_kernel_kind kind)
{
    for (int i = 0; i < m->n_kernels; i++)
        if (m->kernels[i].kind == kind)
            return &m->kernels[i];
    return NULL;
}

struct feed {
    const struct trial *t;
    void (*function)(void);
    float *att, *rows; /* of this call */
    int past, m;
};

static void rope_feed(void *arg, int tid)
{
    const struct feed *d = arg;
    ((prefill_rope_fn *)d->function)(d->rows, d->t->cache, d->t->gain, d->t->rope, d->past, d->m,
                                     tid);
}

static void decode_feed(void *arg, int tid)
{
    const struct feed *d = arg;
    const struct trial *t = d->t;
    ((decode_attention_fn *)d->function)(d->att, d->rows, t->cache, t->gain, t->rope, t->scratch,
                                         d->past, tid);
}

/* Random qkv of tokens 0..n, raw into `rows` and turned into t->turned. */
static float *random_rows(struct trial *t, int64_t n)
{
    struct heads h = heads_of(t);
    float *rows = need(malloc(area(n, h.width) * sizeof *rows));
    for (size_t i = 0; i < area(n, h.width); i++) {
        float x = (float)pcg32_normal(&t->random);
        rows[i] = (int)(i % (size_t)h.width) < h.dq ? 2 * x : x;
    }
    t->turned = widen(rows, area(n, h.width));
    for (int64_t p = 0; p < n; p++)
        turn_row(t, t->turned + p * h.width, p);
    return rows;
}

/* Puts rows past..past + n into the cache with the program's rotation kernel; q is turned in place.
 */
static bool feed_rows(struct trial *t, float *rows, int past, int n, struct failure *f)
{
    const struct archrt_kernel *k = find_kernel(t->model, ARCHRT_PREFILL_ROPE);
    struct heads h = heads_of(t);
    if (!k)
        return failed(f, STATUS_OK, "no prefill_rope kernel to fill the cache with");
    for (int at = 0; at < n; at += k->m) {
        struct feed d = {.t = t, .function = k->function, .past = past + at};
        d.rows = rows + (int64_t)at * h.width;
        d.m = n - at < k->m ? n - at : k->m;
        team_run(rope_feed, &d);
    }
    return true;
}

bool prefill_attention_prepare(struct trial *t, struct failure *f)
{
    struct heads h = heads_of(t);
    if (!trial_floats(t, &t->y, area(t->m, h.dq), ROLE_OUTPUT, f) ||
        !trial_floats(t, &t->qkv, area(t->m, h.width), ROLE_INPUT, f) || !trial_scratch(t, f) ||
        !cache_prepare(t, f))
        return false;
    float *rows = random_rows(t, t->past + t->m);
    float *last = rows + (int64_t)t->past * h.width;
    bool fed = feed_rows(t, rows, 0, t->past, f) && feed_rows(t, last, t->past, t->m, f);
    memcpy(t->qkv, last, area(t->m, h.width) * sizeof *last);
    free(rows);
    return fed;
}

void prefill_attention_call(struct trial *t, int tid)
{
    FUNCTION(prefill_attention_fn, t)
    (t->y, t->qkv, t->cache, t->scratch, t->past, t->m, tid);
}

/* Query i of head `head` over the keys up to its own. */
static void judge_query(struct trial *t, int64_t i, int head)
{
    struct heads h = heads_of(t);
    int keys = t->past + (int)i + 1;
    int64_t k = h.dq + head / (h.H / h.K) * h.E;
    double *p = need(malloc(area(keys, 1) * sizeof *p));
    double out[h.E];
    ref_attend(out, p, t->turned + (t->past + i) * h.width + (int64_t)head * h.E, t->turned + k,
               t->turned + k + h.dkv, h.width, keys, h.E);
    for (int e = 0; e < h.E; e++)
        judge(t, (double)t->y[i * h.dq + (int64_t)head * h.E + e], out[e], fabs(out[e]) + 1);
    free(p);
}

void prefill_attention_check(struct trial *t)
{
    struct heads h = heads_of(t);
    int64_t n = (int64_t)t->m * h.H;
    int64_t count = sample_count(t, n, 8.0 * (t->past + t->m) * h.E);
    for (int64_t s = 0; s < count; s++) {
        int64_t at = sample_at(t, s, count, n);
        judge_query(t, at / h.H, (int)(at % h.H));
    }
    t->depth = h.E;
}

/* The newest cached token goes in through the kernel itself, the others by the rotation kernel. */
bool decode_attention_prepare(struct trial *t, struct failure *f)
{
    struct heads h = heads_of(t);
    if (!trial_floats(t, &t->y, area(h.dq, 1), ROLE_OUTPUT, f) ||
        !trial_floats(t, &t->qkv, area(h.width, 1), ROLE_INPUT, f) || !trial_scratch(t, f) ||
        !cache_prepare(t, f))
        return false;
    float *rows = random_rows(t, t->past + 1);
    float *att = need(malloc(area(h.dq, 1) * sizeof *att));
    bool fed = t->past < 2 || feed_rows(t, rows, 0, t->past - 1, f);
    if (fed && t->past > 0) {
        struct feed d = {.t = t, .function = t->kernel->function, .att = att};
        d.past = t->past - 1;
        /* feed_rows turned the rows in front of it only. */
        d.rows = rows + (int64_t)d.past * h.width;
        team_run(decode_feed, &d);
    }
    memcpy(t->qkv, rows + (int64_t)t->past * h.width, area(h.width, 1) * sizeof *rows);
    free(att);
    free(rows);
    return fed;
}

void decode_attention_call(struct trial *t, int tid)
{
    FUNCTION(decode_attention_fn, t)
    (t->y, t->qkv, t->cache, t->gain, t->rope, t->scratch, t->past, tid);
}

void decode_attention_check(struct trial *t)
{
    struct heads h = heads_of(t);
    int64_t count = sample_count(t, h.H, 8.0 * (t->past + 1) * h.E);
    for (int64_t s = 0; s < count; s++)
        judge_query(t, 0, (int)sample_at(t, s, count, h.H));
    t->depth = h.E;
}

/* toy_model.c - a small archrt_model in plain C, so that the run-time library is tested without the
 * code generator: an embedding, half of the previous token's embedding added, a gain, a head.
 *
 *   x[t] = E[token t] + E[token t-1] / 2      y[t] = x[t] gain      logits[t] = head y[t]
 *
 * TOY_VOCAB, TOY_THREADS, TOY_D, TOY_T and TOY_TIED change the shape. */
#include <math.h>
#include <string.h>

#include "archrt.h"

#ifndef TOY_VOCAB
#define TOY_VOCAB 257
#endif
#ifndef TOY_THREADS
#define TOY_THREADS 2
#endif
#ifndef TOY_D
#define TOY_D 24
#endif
#ifndef TOY_T
#define TOY_T 16
#endif
#ifndef TOY_TIED
#define TOY_TIED 0
#endif

enum {
    V = TOY_VOCAB,
    D = TOY_D,
    B = 4,
    T = TOY_T,
    ROWS = B * T,
    CONTEXT = 64,
    CHUNK = 8,
    TABLE = (V * D + 15) / 16 * 16, /* rounded up: the slab has padding */
    GAIN = (D + 15) / 16 * 16,
    HEAD_AT = TOY_TIED ? 0 : TABLE + GAIN,
    FLOATS = TABLE + GAIN + (TOY_TIED ? 0 : TABLE)
};

struct work {
    float x[ROWS][D], y[ROWS][D], dy[ROWS][D], logits[ROWS][V];
    double partial[TOY_THREADS];
};

static int begin_of(int n, int tid)
{
    return n * tid / TOY_THREADS;
}

static void input(float *x, const float *table, int32_t token, int32_t before)
{
    for (int d = 0; d < D; d++)
        x[d] = table[token * D + d] + (before >= 0 ? 0.5f * table[before * D + d] : 0);
}

static void output(float *logits, float *y, const float *x, const float *params)
{
    const float *gain = params + TABLE, *head = params + HEAD_AT;
    for (int d = 0; d < D; d++)
        y[d] = x[d] * gain[d];
    for (int v = 0; v < V; v++) {
        float sum = 0;
        for (int d = 0; d < D; d++)
            sum += head[v * D + d] * y[d];
        logits[v] = sum;
    }
}

static float log_sum_exp(const float *logits)
{
    float most = logits[0], sum = 0;
    for (int v = 1; v < V; v++)
        most = logits[v] > most ? logits[v] : most;
    for (int v = 0; v < V; v++)
        sum += expf(logits[v] - most);
    return most + logf(sum);
}

/* Forward of row r; with `scale`, logits become their gradients. */
static void forward(const struct archrt_train *s, int r, float scale)
{
    struct work *w = s->work;
    int32_t before = r % T ? s->token[r - 1] : -1, target = s->target[r];
    input(w->x[r], s->params, s->token[r], before);
    output(w->logits[r], w->y[r], w->x[r], s->params);
    float lse = log_sum_exp(w->logits[r]);
    s->loss[r] = target < 0 ? 0 : lse - w->logits[r][target];
    for (int v = 0; scale != 0 && v < V; v++)
        w->logits[r][v] = target < 0 ? 0 : scale * (expf(w->logits[r][v] - lse) - (v == target));
}

static void toy_eval(const struct archrt_train *s, int tid)
{
    for (int r = begin_of(ROWS, tid); r < begin_of(ROWS, tid + 1); r++)
        forward(s, r, 0);
}

static void row_gradient(const struct archrt_train *s, int r)
{
    struct work *w = s->work;
    const float *head = s->params + HEAD_AT;
    memset(w->dy[r], 0, sizeof w->dy[r]);
    for (int v = 0; v < V; v++)
        for (int d = 0; d < D; d++)
            w->dy[r][d] += w->logits[r][v] * head[v * D + d];
}

/* Thread `tid` owns columns, so every sum has one order. */
static void column_gradient(const struct archrt_train *s, int d)
{
    struct work *w = s->work;
    float *table = s->grads, *gain = s->grads + TABLE, *head = s->grads + HEAD_AT;
    float g = s->params[TABLE + d];
    for (int r = 0; r < ROWS; r++) {
        for (int v = 0; v < V; v++)
            head[v * D + d] += w->logits[r][v] * w->y[r][d];
        gain[d] += w->dy[r][d] * w->x[r][d];
        table[s->token[r] * D + d] += w->dy[r][d] * g;
        if (r % T)
            table[s->token[r - 1] * D + d] += 0.5f * w->dy[r][d] * g;
    }
}

static void toy_train(const struct archrt_train *s, int tid)
{
    for (int r = begin_of(ROWS, tid); r < begin_of(ROWS, tid + 1); r++) {
        forward(s, r, s->grad_scale);
        row_gradient(s, r);
    }
    team_barrier(tid);
    for (int d = begin_of(D, tid); d < begin_of(D, tid + 1); d++)
        column_gradient(s, d);
}

static void toy_adamw(const struct archrt_adamw *s, int tid)
{
    for (int i = begin_of(FLOATS, tid); i < begin_of(FLOATS, tid + 1); i++) {
        float g = s->grads[i] * s->grad_scale;
        float decay = i < TABLE || i >= TABLE + GAIN ? s->weight_decay : 0;
        s->m[i] = s->beta1 * s->m[i] + (1 - s->beta1) * g;
        s->v[i] = s->beta2 * s->v[i] + (1 - s->beta2) * g * g;
        s->params[i] -=
            s->lr * (s->m[i] / s->correction1 / (sqrtf(s->v[i] / s->correction2) + s->eps) +
                     decay * s->params[i]);
        s->grads[i] = 0;
    }
}

static double toy_sum_squares(const float *x, int tid)
{
    static double partial[TOY_THREADS];
    double sum = 0;
    for (int i = begin_of(FLOATS, tid); i < begin_of(FLOATS, tid + 1); i++)
        sum += (double)x[i] * (double)x[i];
    team_barrier(tid);
    partial[tid] = sum;
    team_barrier(tid);
    sum = 0;
    for (int i = 0; i < TOY_THREADS; i++)
        sum += partial[i];
    return sum;
}

static void toy_pack(void *weights, const float *params, int tid)
{
    if (tid == 0)
        memcpy(weights, params, FLOATS * sizeof(float));
}

/* The cache holds the last token. */
static void toy_prefill(const struct archrt_infer *s, const int32_t *token, int n, float *logits,
                        const int32_t *target, float *logprobs, int tid)
{
    float x[D], y[D], all[V];
    int32_t *last = s->cache;
    for (int i = 0; tid == 0 && i < n; i++) {
        input(x, s->weights, token[i], i > 0 ? token[i - 1] : s->past > 0 ? *last : -1);
        output(all, y, x, s->weights);
        if (logprobs)
            logprobs[i] = all[target[i]] - log_sum_exp(all);
        if (logits && i == n - 1)
            memcpy(logits, all, sizeof all);
    }
    if (tid == 0)
        *last = token[n - 1];
}

static void toy_decode(const struct archrt_infer *s, int32_t token, float *logits, int tid)
{
    toy_prefill(s, &token, 1, logits, NULL, NULL, tid);
}

static const struct archrt_tensor tensors[] = {
    {"model.embed_tokens.weight", 2, {V, D}, 0, true, 0.02f, false},
    {"model.norm.weight", 1, {D, 0}, TABLE, false, 1, true},
    {"lm_head.weight", 2, {V, D}, HEAD_AT, true, 0.02f, false},
};

static const struct archrt_kernel kernels[] = {
    {.kind = ARCHRT_EMBED,
     .name = "embed",
     .phase = "train",
     .m = ROWS,
     .n = D,
     .k = V,
     .times = 1,
     .bytes = ROWS * D * 4.0},
};

const struct archrt_model archrt_model = {
    .abi = ARCHRT_ABI,
    .source = "toy.arch:1",
    .options = "toy kernels",
    .arch = {.name = "toy",
             .layers = 0,
             .d_model = D,
             .heads = 3,
             .kv_heads = 1,
             .head_dim = 8,
             .d_ff = 16,
             .vocab = V,
             .context = CONTEXT,
             .tied = TOY_TIED,
             .norm_eps = 1e-5f,
             .rope_theta = 10000},
    .hyper = {.lr = 0.02,
              .warmup = 10,
              .weight_decay = 0.1,
              .clip = 1,
              .beta1 = 0.9,
              .beta2 = 0.95,
              .eps = 1e-8,
              .accumulate = 1},
    .tensors = tensors,
    .n_tensors = TOY_TIED ? 2 : 3,
    .param_floats = FLOATS,
    .params = V * D,
    .total_params = V * D * (2 - TOY_TIED) + D,
    .threads = TOY_THREADS,
    .batch = B,
    .sequence = T,
    .work_bytes = sizeof(struct work),
    .train = toy_train,
    .eval = toy_eval,
    .adamw = toy_adamw,
    .sum_squares = toy_sum_squares,
    .weights = ARCHRT_F32,
    .chunk = CHUNK,
    .weight_bytes = FLOATS * sizeof(float),
    .cache_bytes = 64,
    .infer_work_bytes = 64,
    .pack = toy_pack,
    .prefill = toy_prefill,
    .decode = toy_decode,
    .kernels = kernels,
    .n_kernels = 1,
};

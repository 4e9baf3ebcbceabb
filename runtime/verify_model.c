/* verify_model.c - the whole model against the plain one: losses, gradients, the optimiser, and
 * generation by every path there is. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gpu.h"
#include "reference.h"
#include "verify.h"

/* What rounding to fp32 may do to a loss or logit in nats, and to a gradient as a part of its
 * tensor's largest, for one layer; layers add up like independent errors. Measured on right
 * programs: a fifth of it or less. */
static const double loss_limit = 4e-5, gradient_limit = 4e-5;

/* Products of one row with int8 weights, prefill's last head among them, round activations to 16
 * bits with a scale per 64. A block's largest value is 3 to 6 deviations, so a product's relative
 * error is 3e-5 to 5e-5; four a layer add up as their root to 2e-4 in a logit of deviation 2, and
 * the worst of some 10^5 logits is 5 deviations out. The limit is 25 times that of fp32, 1e-3 times
 * the root of the layers. */
static const double rounded_factor = 25;

/* On a device activations and weights are bf16 and sums fp32: 2^-9 enters where 2^-24 did. Eight
 * roundings a layer of 2^-9 / sqrt(3) each are 3e-3 of a logit of deviation 2, and the worst of
 * some 10^4 logits is 4 to 5 deviations out: 0.05 for two layers. On the emulator, whose products
 * round as a GPU's do but for the order, right programs of two layers came to 0.09 in 25,000
 * logits, 0.03 in gradients and 0.02 along a direction, five seeds: the limit is 0.14. */
static const double half_factor = 2000;

static double depth_limit(double one, const struct archrt_model *m)
{
    return one * sqrt(1 + m->arch.layers) * (device_in_use() ? half_factor : 1);
}

static double inference_limit(const struct archrt_model *m)
{
    return depth_limit(loss_limit, m) * (m->weights == ARCHRT_I8 ? rounded_factor : 1);
}

void verify_params(const struct archrt_model *m, float *params, uint64_t seed)
{
    memset(params, 0, m->param_floats * sizeof *params);
    for (int i = 0; i < m->n_tensors; i++) {
        const struct archrt_tensor *t = &m->tensors[i];
        bool embed = strcmp(t->name, "model.embed_tokens.weight") == 0;
        bool head = strcmp(t->name, "lm_head.weight") == 0 || (embed && m->arch.tied);
        /* Sums of unit size in every layer, logits of standard deviation 2. */
        double scale =
            t->rank == 1 ? (t->gain ? 0.2 : 0.3) : (head ? 2 : 1) / sqrt((double)t->shape[1]);
        if (embed && !head)
            scale = 1;
        for (int64_t j = 0; j < tensor_size(t); j++) {
            uint64_t bits = mix64(seed ^ mix64(t->offset + (uint64_t)j));
            double uniform = (double)(bits >> 11) * 0x1p-52 - 1;
            params[t->offset + (size_t)j] = (float)((t->gain ? 1 : 0) + 1.732 * scale * uniform);
        }
        for (int64_t j = 0; t->rank == 2 && j < t->shape[0]; j++)
            ref_avoid_ties(params + t->offset + j * t->shape[1], (int)t->shape[1]);
    }
}

/* What the checks share. Slabs are released at the end by the table in `slabs`. */
struct whole {
    const struct archrt_model *m;
    const struct model_checks *c;
    struct failure *f;
    struct pcg32 random;
    float *params, *grads, *rope, *loss;
    void *work;
    int32_t *token, *target; /* [B T] */
    int rows;                /* B T */
    int sequences, prefix;   /* that the reference looks at: the first `prefix` tokens of the first
                                and last sequences */
    double *want;            /* [B T] losses by the reference */
    struct {
        void *at;
        size_t bytes;
    } slabs[24];
    int n_slabs;
};

static bool need_slab(struct whole *w, void *out, size_t bytes, const char *what)
{
    void *at;
    if (!slab_alloc(&at, bytes, what, w->f))
        return false;
    w->slabs[w->n_slabs].at = at;
    w->slabs[w->n_slabs++].bytes = bytes;
    memcpy(out, &at, sizeof at);
    return true;
}

static void release(struct whole *w)
{
    while (w->n_slabs-- > 0)
        slab_free(w->slabs[w->n_slabs].at, w->slabs[w->n_slabs].bytes);
}

static void begin(struct whole *w, const char *what)
{
    w->c->begin(w->c->to, what);
}

static void report(struct whole *w, struct model_row *row)
{
    row->passed = row->error <= row->limit; /* false for NaN */
    w->c->report(w->c->to, row);
}

static bool planted(const struct whole *w, const char *name)
{
    return w->c->plant && strcmp(w->c->plant, name) == 0;
}

static void compare(struct model_row *row, double got, double want)
{
    double error = fabs(got - want);
    if (isnan(error) || error > row->error) /* NaN stays */
        row->error = error;
    row->checked++;
}

static void random_tokens(struct whole *w, int32_t *token, int n)
{
    for (int i = 0; i < n; i++)
        token[i] = (int32_t)(pcg32_next(&w->random) % (uint32_t)w->m->arch.vocab);
}

/* ---- tables ------------------------------------------------------------------------------------
 */

static int by_offset(const void *a, const void *b)
{
    const struct archrt_tensor *const *x = a, *const *y = b;
    return (*x)->offset < (*y)->offset ? -1 : (*x)->offset > (*y)->offset;
}

static void check_tensors(struct whole *w)
{
    const struct archrt_model *m = w->m;
    struct model_row row = {.what = "tensor table"};
    begin(w, row.what);
    const struct archrt_tensor **order = need(malloc(((size_t)m->n_tensors + 1) * sizeof *order));
    size_t end = 0;
    int64_t elements = 0;
    for (int i = 0; i < m->n_tensors; i++)
        order[i] = &m->tensors[i];
    qsort(order, (size_t)m->n_tensors, sizeof *order, by_offset);
    for (int i = 0; i < m->n_tensors; i++) {
        if (order[i]->offset < end) {
            row.error++;
            snprintf(row.note, sizeof row.note, "%s overlaps its predecessor", order[i]->name);
        }
        end = order[i]->offset + (size_t)tensor_size(order[i]);
        elements += tensor_size(order[i]);
        row.checked++;
    }
    if (end > m->param_floats) {
        row.error++;
        snprintf(row.note, sizeof row.note, "the last tensor ends behind the slab");
    }
    if (elements != m->total_params) {
        row.error++;
        snprintf(row.note, sizeof row.note, "%lld elements, but %lld parameters are stated",
                 (long long)elements, (long long)m->total_params);
    }
    free(order);
    report(w, &row);
}

static void check_rotations(struct whole *w)
{
    const struct archrt_arch *a = &w->m->arch;
    struct model_row row = {.what = "table of rotations", .limit = 2e-7};
    begin(w, row.what);
    double *turn = need(malloc((size_t)a->head_dim * sizeof *turn));
    int step = a->context > 4096 ? a->context / 4096 : 1;
    for (int p = 0; p < a->context; p += step) {
        ref_turn(turn, a, p);
        for (int i = 0; i < a->head_dim; i++)
            compare(&row, (double)w->rope[(size_t)p * (size_t)a->head_dim + (size_t)i], turn[i]);
    }
    free(turn);
    report(w, &row);
}

/* ---- training ----------------------------------------------------------------------------------
 */

struct pass_job {
    void (*function)(const struct archrt_train *, int tid);
    struct archrt_train pass;
};

static void pass_work(void *arg, int tid)
{
    const struct pass_job *j = arg;
    j->function(&j->pass, tid);
}

/* Runs train or eval. Losses are poisoned before; so is the work slab's front. */
static void run_pass(struct whole *w, bool train, const int32_t *token, const int32_t *target,
                     float *grads)
{
    struct pass_job job = {train ? w->m->train : w->m->eval, {.params = w->params}};
    job.pass.grads = grads;
    job.pass.work = w->work;
    job.pass.token = token;
    job.pass.target = target;
    job.pass.grad_scale = 1 / (float)w->rows;
    job.pass.loss = w->loss;
    job.pass.rope = w->rope;
    size_t front = w->m->work_bytes < 64u << 20 ? w->m->work_bytes : 64u << 20;
    memset(w->loss, 0xff, (size_t)w->rows * sizeof *w->loss);
    memset(w->work, 0xff, front);
    team_run(pass_work, &job);
}

static void zero_grads(struct whole *w)
{
    memset(w->grads, 0, w->m->param_floats * sizeof *w->grads);
}

/* Sequence s of those that the reference looks at: the first and the last ones. */
static int slot(const struct whole *w, int s)
{
    return s < (w->sequences + 1) / 2 ? s : w->m->batch - (w->sequences - s);
}

/* How much the budget allows: everything, or a prefix of one or two sequences. */
static void choose_sample(struct whole *w)
{
    const struct archrt_model *m = w->m;
    double token = 3 * flops_forward(m, m->sequence / 2.0);
    double tokens = w->c->budget / token;
    w->sequences =
        tokens < m->batch * (double)m->sequence ? (m->batch < 2 ? m->batch : 2) : m->batch;
    if (tokens / w->sequences < 8 && m->sequence >= 8)
        w->sequences = 1;
    double prefix = tokens / w->sequences;
    w->prefix = prefix < 2 ? 2 : prefix < m->sequence ? (int)prefix : m->sequence;
    if (w->prefix > m->sequence)
        w->prefix = m->sequence;
}

/* Targets outside the sample are -1. Some within are, too. */
static void make_targets(struct whole *w)
{
    int T = w->m->sequence;
    for (int i = 0; i < w->rows; i++)
        w->target[i] = -1;
    for (int s = 0; s < w->sequences; s++)
        for (int t = 0; t < w->prefix; t++)
            if (t == 0 || pcg32_next(&w->random) % 8)
                w->target[slot(w, s) * T + t] =
                    (int32_t)(pcg32_next(&w->random) % (uint32_t)w->m->arch.vocab);
}

static bool reference_losses(struct whole *w, struct reference *r)
{
    int T = w->m->sequence;
    for (int s = 0; s < w->sequences; s++) {
        int at = slot(w, s) * T;
        if (!reference_forward(r, w->token + at, w->target + at, w->prefix, w->want + at, NULL,
                               w->f))
            return false;
    }
    return true;
}

static void compare_losses(struct whole *w, const char *what)
{
    struct model_row row = {.what = what, .limit = depth_limit(loss_limit, w->m)};
    if (planted(w, "loss"))
        w->loss[slot(w, 0) * w->m->sequence] += 0.01f;
    for (int i = 0; i < w->rows; i++) {
        compare(&row, (double)w->loss[i], w->want[i]);
        if (w->target[i] < 0 && w->loss[i] != 0)
            row.error = NAN;
    }
    snprintf(row.note, sizeof row.note, "%d of %d sequences, %d of %d tokens", w->sequences,
             w->m->batch, w->prefix, w->m->sequence);
    report(w, &row);
}

/* The same sequences in other slots of the batch: the reference has not seen all slots. */
static void check_slots(struct whole *w)
{
    int T = w->m->sequence, n = w->rows;
    struct model_row row = {.what = "loss in every slot", .limit = 1e-5};
    int32_t *token = need(malloc((size_t)n * sizeof *token));
    int32_t *target = need(malloc((size_t)n * sizeof *target));
    float *loss = need(malloc((size_t)n * sizeof *loss));
    begin(w, row.what);
    random_tokens(w, w->target, n);
    run_pass(w, false, w->token, w->target, NULL);
    memcpy(loss, w->loss, (size_t)n * sizeof *loss);
    for (int i = 0; i < n; i++) {
        token[i] = w->token[(i + T) % n];
        target[i] = w->target[(i + T) % n];
    }
    run_pass(w, false, token, target, NULL);
    for (int i = 0; i < n; i++)
        compare(&row, (double)w->loss[i], (double)loss[(i + T) % n]);
    free(token);
    free(target);
    free(loss);
    report(w, &row);
}

/* Tensor by tensor, relative to the largest of its gradients. */
static void compare_gradients(struct whole *w, const double *want, const char *what)
{
    struct model_row row = {.what = what, .limit = depth_limit(gradient_limit, w->m)};
    double worst = -1;
    if (planted(w, "gradients"))
        w->grads[w->m->tensors[w->m->n_tensors / 2].offset] *= 1.5f;
    for (int i = 0; i < w->m->n_tensors; i++) {
        const struct archrt_tensor *t = &w->m->tensors[i];
        double largest = 0, error = 0;
        for (size_t j = t->offset; j < t->offset + (size_t)tensor_size(t); j++) {
            double e = fabs((double)w->grads[j] - want[j]);
            largest = fmax(largest, fabs(want[j]));
            if (isnan(e) || e > error) /* NaN stays */
                error = e;
            row.checked++;
        }
        error = largest > 0 ? error / largest : error > 0 ? INFINITY : 0 * error;
        if (isnan(error) || error > worst) {
            worst = row.error = error;
            snprintf(row.note, sizeof row.note, "worst in %s", t->name);
        }
    }
    report(w, &row);
}

static bool check_gradients(struct whole *w, struct reference *r)
{
    size_t bytes = w->m->param_floats * sizeof(double);
    double *want;
    int T = w->m->sequence;
    if (bytes > (size_t)4 << 30) {
        notice("gradients are judged along a direction only: %zu GiB for the reference's own "
               "would be needed",
               bytes >> 30);
        return true;
    }
    if (!need_slab(w, &want, bytes, "the reference's gradients"))
        return false;
    begin(w, "gradients");
    for (int s = 0; s < w->sequences; s++) {
        int at = slot(w, s) * T;
        if (!reference_backward(r, w->token + at, w->target + at, w->prefix, 1.0 / w->rows,
                                w->want + at, want, w->f))
            return false;
    }
    compare_gradients(w, want, "gradients");
    return true;
}

/* The program's gradients along a random direction against the reference's loss at both ends of a
 * short step: no backward pass but the program's own takes part. */
static bool check_slope(struct whole *w, struct reference *r)
{
    struct model_row row = {.what = "gradients, along a direction", .limit = 1e-3, .checked = 1};
    if (device_in_use())
        row.limit = depth_limit(gradient_limit, w->m);
    begin(w, row.what);
    const double step = 1e-4;
    double size, sum[2] = {0};
    uint64_t seed = w->c->seed + 77;
    double got = reference_slope(r, seed, w->grads, &size);
    for (int side = 0; side < 2; side++) {
        reference_move(r, seed, side ? -step : step);
        if (!reference_losses(w, r))
            return false;
        for (int i = 0; i < w->rows; i++)
            sum[side] += w->want[i] / w->rows;
    }
    reference_move(r, seed, 0);
    double want = (sum[0] - sum[1]) / (2 * step);
    row.error = fabs(got - want) / size;
    snprintf(row.note, sizeof row.note, "%.6g, should be %.6g", got, want);
    report(w, &row);
    return true;
}

/* Gradients of all targets against the sum of those of two halves: what the sample left out. */
static bool check_linear(struct whole *w)
{
    double *whole;
    int32_t *half = need(malloc((size_t)w->rows * sizeof *half));
    size_t n = w->m->param_floats;
    bool room = need_slab(w, &whole, n * sizeof(double), "gradients in double");
    if (room) {
        begin(w, "gradients add up");
        random_tokens(w, w->target, w->rows);
        zero_grads(w);
        run_pass(w, true, w->token, w->target, w->grads);
        for (size_t i = 0; i < n; i++)
            whole[i] = (double)w->grads[i];
        zero_grads(w);
        for (int part = 0; part < 2; part++) {
            for (int i = 0; i < w->rows; i++)
                half[i] = i % 2 == part ? w->target[i] : -1;
            run_pass(w, true, w->token, half, w->grads); /* accumulates */
        }
        compare_gradients(w, whole, "gradients add up");
    }
    free(half);
    return room;
}

struct update_job {
    const struct archrt_model *m;
    struct archrt_adamw step;
    double sum;
};

static void sum_work(void *arg, int tid)
{
    struct update_job *j = arg;
    double sum = j->m->sum_squares(j->step.grads, tid);
    if (tid == 0)
        j->sum = sum;
}

static void adamw_work(void *arg, int tid)
{
    struct update_job *j = arg;
    j->m->adamw(&j->step, tid);
}

static void check_sum(struct whole *w)
{
    struct update_job j = {.m = w->m, .step = {.grads = w->grads}};
    struct model_row row = {.what = "sum of squares", .limit = 1e-5};
    double want = 0;
    begin(w, row.what);
    for (size_t i = 0; i < w->m->param_floats; i++)
        want += (double)w->grads[i] * (double)w->grads[i];
    team_run(sum_work, &j);
    compare(&row, j.sum / want, 1);
    report(w, &row);
}

static bool check_update(struct whole *w)
{
    const struct archrt_model *m = w->m;
    struct update_job j = {.m = m};
    struct archrt_adamw *s = &j.step;
    struct model_row row = {.what = "AdamW step", .limit = 1e-5};
    float *before, *grads;
    size_t bytes = m->param_floats * sizeof(float);
    if (!need_slab(w, &s->m, bytes, "moments") || !need_slab(w, &s->v, bytes, "moments") ||
        !need_slab(w, &before, bytes, "parameters") || !need_slab(w, &grads, bytes, "gradients"))
        return false;
    begin(w, row.what);
    memcpy(before, w->params, bytes);
    memcpy(grads, w->grads, bytes);
    s->params = w->params, s->grads = w->grads;
    s->lr = 0.01f, s->beta1 = 0.9f, s->beta2 = 0.95f, s->eps = 1e-8f, s->weight_decay = 0.1f;
    s->grad_scale = 0.5f, s->correction1 = 1 - 0.9f, s->correction2 = 1 - 0.95f;
    const struct ref_adamw step = {(double)s->lr,           (double)s->beta1,
                                   (double)s->beta2,        (double)s->eps,
                                   (double)s->weight_decay, (double)s->grad_scale,
                                   (double)s->correction1,  (double)s->correction2};
    team_run(adamw_work, &j);
    for (int i = 0; i < m->n_tensors; i++) {
        const struct archrt_tensor *t = &m->tensors[i];
        for (size_t k = t->offset; k < t->offset + (size_t)tensor_size(t); k++) {
            double p = (double)before[k], m1 = 0, v1 = 0;
            /* Where a gradient is next to nothing, eps and rounding decide. */
            bool clear = fabs((double)grads[k]) > 1e-10 || grads[k] == 0;
            ref_adamw_step(&p, &m1, &v1, (double)grads[k], &step, t->decay);
            if (clear)
                compare(&row, (double)w->params[k], p);
            if (w->grads[k] != 0)
                snprintf(row.note, sizeof row.note, "%s: gradient not cleared", t->name);
        }
    }
    if (row.note[0])
        row.error = INFINITY;
    report(w, &row);
    memcpy(w->params, before, bytes);
    return true;
}

static bool check_training(struct whole *w)
{
    const struct archrt_model *m = w->m;
    struct reference *r;
    w->rows = m->batch * m->sequence;
    size_t rows = (size_t)w->rows;
    if (!need_slab(w, &w->work, m->work_bytes, "activations") ||
        !need_slab(w, &w->grads, m->param_floats * sizeof(float), "gradients") ||
        !need_slab(w, &w->token, rows * sizeof(int32_t), "tokens") ||
        !need_slab(w, &w->target, rows * sizeof(int32_t), "targets") ||
        !need_slab(w, &w->loss, rows * sizeof(float), "losses") ||
        !need_slab(w, &w->want, rows * sizeof(double), "losses") ||
        !reference_open(&r, m, w->params, ARCHRT_F32, w->f))
        return false;
    random_tokens(w, w->token, w->rows);
    choose_sample(w);
    make_targets(w);
    bool done = reference_losses(w, r);
    if (done) {
        begin(w, "losses of eval");
        run_pass(w, false, w->token, w->target, NULL);
        compare_losses(w, "losses of eval");
        begin(w, "losses of train");
        zero_grads(w);
        run_pass(w, true, w->token, w->target, w->grads);
        compare_losses(w, "losses of train");
        done = check_gradients(w, r) && check_slope(w, r);
    }
    reference_close(r);
    if (!done)
        return false;
    check_slots(w);
    if (!check_linear(w))
        return false;
    check_sum(w);
    return check_update(w);
}

/* ---- generation --------------------------------------------------------------------------------
 */

struct generation {
    struct whole *w;
    struct inference run;
    int n; /* tokens that the reference has seen */
    int32_t *token;
    double *want;        /* [n] -log p of the next token */
    double *want_logits; /* [n][V] */
    float *logits, *logprobs;
};

static double logprob(const float *logits, int V, int target)
{
    double *wide = widen(logits, (size_t)V);
    double loss = ref_loss(wide, V, target, NULL, 0);
    free(wide);
    return -loss;
}

/* Logits after token i: up to a constant, which log-softmax takes away. */
static void compare_logits(struct generation *g, struct model_row *row, int i)
{
    int V = g->w->m->arch.vocab;
    double *got = widen(g->logits, (size_t)V);
    const double *want = g->want_logits + (int64_t)i * V;
    for (int v = 0; v < V; v++)
        compare(row, got[v], want[v]);
    free(got);
}

/* Feeds the tokens in the given pieces (the last one repeats) through prefill. */
static void check_prefill(struct generation *g, const char *what, const int *pieces)
{
    struct model_row row = {.what = what, .limit = inference_limit(g->w->m)};
    begin(g->w, what);
    memset(g->logprobs, 0xff, (size_t)g->n * sizeof *g->logprobs);
    g->run.state.past = 0;
    for (int at = 0; at < g->n;) {
        int part = *pieces < g->n - at ? *pieces : g->n - at;
        pieces += pieces[1] != 0;
        inference_feed(&g->run, g->token + at, part, g->logits, g->token + at + 1,
                       g->logprobs + at);
        at += part;
        compare_logits(g, &row, at - 1);
    }
    if (planted(g->w, "prefill"))
        g->logprobs[g->n - 1] += 0.01f;
    for (int i = 0; i < g->n; i++)
        compare(&row, -(double)g->logprobs[i], g->want[i]);
    snprintf(row.note, sizeof row.note, "%d tokens", g->n);
    report(g->w, &row);
}

static void check_decode(struct generation *g)
{
    int V = g->w->m->arch.vocab;
    struct model_row row = {.what = "decode, step by step", .limit = inference_limit(g->w->m)};
    begin(g->w, row.what);
    g->run.state.past = 0;
    for (int i = 0; i < g->n; i++) {
        memset(g->logits, 0xff, (size_t)V * sizeof *g->logits);
        inference_step(&g->run, g->token[i], g->logits);
        if (planted(g->w, "decode") && i == g->n - 1)
            g->logits[V - 1] += 0.01f;
        compare_logits(g, &row, i);
        compare(&row, -logprob(g->logits, V, g->token[i + 1]), g->want[i]);
    }
    snprintf(row.note, sizeof row.note, "%d tokens", g->n);
    report(g->w, &row);
}

/* The last two positions of the context by decode and by prefill. What lies between the first chunk
 * and them is a cache of zeros, which is as good as any. */
static void check_context_end(struct generation *g)
{
    const struct archrt_model *m = g->w->m;
    int C = m->arch.context, V = m->arch.vocab;
    struct model_row row = {.what = "decode and prefill, end of context"};
    row.limit = inference_limit(m);
    if (C < 3)
        return;
    begin(g->w, row.what);
    float *first = need(malloc((size_t)V * sizeof *first));
    int fed = g->n < C - 2 ? g->n : C - 2;
    g->run.state.past = 0;
    memset(g->run.cache, 0, m->cache_bytes);
    inference_feed(&g->run, g->token, fed, NULL, NULL, NULL);
    g->run.state.past = C - 2;
    inference_feed(&g->run, g->token, 2, first, NULL, NULL);
    g->run.state.past = C - 2;
    inference_step(&g->run, g->token[0], g->logits);
    inference_step(&g->run, g->token[1], g->logits);
    for (int v = 0; v < V; v++)
        compare(&row, (double)g->logits[v], (double)first[v]);
    snprintf(row.note, sizeof row.note, "positions %d, %d", C - 2, C - 1);
    free(first);
    report(g->w, &row);
}

static bool generation_open(struct generation *g)
{
    struct whole *w = g->w;
    const struct archrt_model *m = w->m;
    double tokens = w->c->budget / flops_forward(m, 32);
    /* Enough for two chunks and a rest where that is cheap. */
    int most = 2 * m->chunk + 3 < 160 ? 2 * m->chunk + 3 : 160;
    g->n = tokens < 4 ? 4 : tokens < most ? (int)tokens : most;
    if (g->n > m->arch.context)
        g->n = m->arch.context;
    size_t n = (size_t)g->n, V = (size_t)m->arch.vocab;
    return need_slab(w, &g->token, (n + 1) * sizeof(int32_t), "tokens") &&
           need_slab(w, &g->want, n * sizeof(double), "losses") &&
           need_slab(w, &g->want_logits, n * V * sizeof(double), "logits") &&
           need_slab(w, &g->logits, V * sizeof(float), "logits") &&
           need_slab(w, &g->logprobs, n * sizeof(float), "log-probabilities") &&
           inference_open(&g->run, m, w->params, w->f);
}

static bool check_generation(struct whole *w)
{
    struct generation g = {.w = w};
    struct reference *r;
    static const int whole[] = {1 << 30, 0}, pieces[] = {1, 3, 7, 0};
    if (!generation_open(&g))
        return false;
    random_tokens(w, g.token, g.n + 1);
    bool done = reference_open(&r, w->m, w->params, (enum archrt_dtype)w->m->weights, w->f);
    if (done) {
        done = reference_forward(r, g.token, g.token + 1, g.n, g.want, g.want_logits, w->f);
        reference_close(r);
    }
    if (done) {
        check_prefill(&g, "prefill", whole);
        check_prefill(&g, "prefill, in pieces of 1, 3, 7", pieces);
        check_decode(&g);
        check_context_end(&g);
    }
    inference_close(&g.run);
    return done;
}

bool verify_model(const struct archrt_model *m, const struct model_checks *c, struct failure *f)
{
    struct whole w = {.m = m, .c = c, .f = f};
    size_t rope = (size_t)m->arch.context * (size_t)m->arch.head_dim * sizeof(float);
    pcg32_seed(&w.random, c->seed, 11);
    bool done = need_slab(&w, &w.params, m->param_floats * sizeof(float), "parameters") &&
                need_slab(&w, &w.rope, rope, "the table of rotations");
    if (done) {
        verify_params(m, w.params, c->seed);
        rope_table(&m->arch, w.rope);
        check_tensors(&w);
        check_rotations(&w);
        done = check_training(&w) && check_generation(&w);
    }
    release(&w);
    return done;
}

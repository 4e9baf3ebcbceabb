/* model_test.c - a whole program on the emulated GPU against the same program on the host: losses,
 * gradients, a few steps of training, prompts, one token after another, all slots at once.
 *
 *     model_test SEED [library] [bench]
 *
 * The run-time library, the launch tables and the kernels are those of a GPU program; only the
 * device is another, and with `library` a stand-in for cuBLASLt does the products. The host
 * computes in fp32, the device in bf16 with fp32 sums, hence the tolerances: 2^-9 an operation, a
 * few dozen operations deep. */
#include "model_device.h"
#include "sample.h"

#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "blas/standin.h"

static int failures;
static struct standin_state *standin; /* of the library in use, or NULL */

#define CHECK(condition, ...)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            failures++;                                                                            \
            printf("%s:%d: ", __FILE__, __LINE__);                                                 \
            printf(__VA_ARGS__);                                                                   \
            putchar('\n');                                                                         \
        }                                                                                          \
    } while (0)

static void must(bool ok, const struct failure *f)
{
    if (ok)
        return;
    printf("%s\n", f->text);
    exit(1);
}

static void *zeros(size_t n, size_t size)
{
    return need(calloc(n ? n : 1, size));
}

/* ---- what both sides train on ---- */

struct sample {
    float *params, *grads, *m, *v, *loss, *rope;
    void *work;
    int32_t *token, *target;
    int rows;
};

static const struct archrt_model *host = &archrt_model;

/* Sums of unit size in every layer, gains about 1, logits of deviation 2. */
static void fill_params(float *params, uint64_t seed)
{
    for (int i = 0; i < host->n_tensors; i++) {
        const struct archrt_tensor *t = &host->tensors[i];
        bool embed = strcmp(t->name, "model.embed_tokens.weight") == 0;
        bool head = strcmp(t->name, "lm_head.weight") == 0 || (embed && host->arch.tied);
        double scale = t->rank == 1 ? 0.2 : (head ? 2 : 1) / sqrt((double)t->shape[1]);
        for (int64_t k = 0; k < tensor_size(t); k++) {
            uint64_t bits = mix64(seed ^ mix64(t->offset + (uint64_t)k));
            double uniform = (double)(bits >> 11) * 0x1p-52 - 1;
            params[t->offset + (size_t)k] =
                (float)((t->gain ? 1 : 0) + 1.732 * (embed && !head ? 1 : scale) * uniform);
        }
    }
}

static void sample_open(struct sample *s)
{
    size_t n = host->param_floats;
    s->rows = host->batch * host->sequence;
    s->params = zeros(n, sizeof(float));
    s->grads = zeros(n, sizeof(float));
    s->m = zeros(n, sizeof(float));
    s->v = zeros(n, sizeof(float));
    s->loss = zeros((size_t)s->rows, sizeof(float));
    s->rope = zeros((size_t)host->arch.context * (size_t)host->arch.head_dim, sizeof(float));
    if (posix_memalign(&s->work, 64, host->work_bytes))
        abort();
    s->token = zeros((size_t)s->rows, sizeof *s->token);
    s->target = zeros((size_t)s->rows, sizeof *s->target);
    fill_params(s->params, 7);
    rope_table(&host->arch, s->rope);
    for (int i = 0; i < s->rows; i++) {
        s->token[i] = (int32_t)(mix64((uint64_t)i) % (uint64_t)host->arch.vocab);
        s->target[i] = i % 7 == 3 ? -1 : (int32_t)(mix64((uint64_t)i + 99) % 20);
    }
}

static void sample_close(struct sample *s)
{
    free(s->params);
    free(s->grads);
    free(s->m);
    free(s->v);
    free(s->loss);
    free(s->rope);
    free(s->work);
    free(s->token);
    free(s->target);
}

struct call {
    void (*function)(const struct archrt_train *, int tid);
    struct archrt_train pass;
};

static void call_work(void *arg, int tid)
{
    const struct call *c = arg;
    c->function(&c->pass, tid);
}

static void run_pass(struct sample *s, void (*function)(const struct archrt_train *, int))
{
    struct call c = {function,
                     {.params = s->params,
                      .grads = s->grads,
                      .work = s->work,
                      .token = s->token,
                      .target = s->target,
                      .grad_scale = 1.0f / (float)s->rows,
                      .loss = s->loss,
                      .rope = s->rope}};
    team_run(call_work, &c);
}

static double mean_loss(const struct sample *s)
{
    double sum = 0;
    for (int i = 0; i < s->rows; i++)
        sum += (double)s->loss[i];
    return sum / s->rows;
}

/* ---- one micro-batch ---- */

/* The error of a tensor's gradient as a part of its length. */
static double gradient_error(const struct archrt_tensor *t, const float *got, const float *want)
{
    double error = 0, length = 0;
    for (int64_t i = 0; i < tensor_size(t); i++) {
        double a = (double)got[t->offset + (size_t)i], b = (double)want[t->offset + (size_t)i];
        error += (a - b) * (a - b);
        length += b * b;
    }
    return length > 0 ? sqrt(error / length) : sqrt(error);
}

/* Calls of the library in a phase: it has no epilogue for an fp32 bias on bf16 sums. */
static long library_calls(enum archrt_phase_id id)
{
    const struct archrt_phase *phase = &host->cuda->phases[id];
    long n = 0;
    for (int l = 0; standin && l < phase->n; l++)
        for (int i = 0; i < phase->loops[l].n; i++) {
            const struct archrt_loop *loop = &phase->loops[l];
            const struct archrt_cuda_kernel *k = &host->cuda->kernels[loop->steps[i].kernel];
            n += device_blas_can(k) && !(k->flags & ARCHRT_CUDA_WITH_BIAS) ? loop->turns : 0;
        }
    return n;
}

static void check_micro_batch(void)
{
    struct sample a = {0}, b = {0};
    struct failure f;
    sample_open(&a);
    sample_open(&b);
    run_pass(&a, host->train);
    run_pass(&b, the_model->train);
    must(!device_failed(&f), &f);
    double worst = 0;
    for (int i = 0; i < a.rows; i++) {
        double error = fabs((double)a.loss[i] - (double)b.loss[i]);
        worst = error > worst || isnan(error) ? error : worst;
        CHECK(a.target[i] >= 0 || b.loss[i] == 0, "loss %g without a target", (double)b.loss[i]);
    }
    CHECK(worst < 0.12, "a loss differs by %g", worst);
    double worst_gradient = 0;
    for (int i = 0; i < host->n_tensors; i++) {
        double error = gradient_error(&host->tensors[i], b.grads, a.grads);
        worst_gradient = fmax(worst_gradient, error);
        CHECK(error < 0.04, "the gradient of %s differs by %g of its length", host->tensors[i].name,
              error);
    }
    long before = standin ? standin->runs : 0;
    run_pass(&b, the_model->eval);
    must(!device_failed(&f), &f);
    long calls = standin ? standin->runs - before : 0;
    CHECK(calls == library_calls(ARCHRT_PHASE_EVAL), "%ld calls of the library in eval, not %ld",
          calls, library_calls(ARCHRT_PHASE_EVAL));
    for (int i = 0; i < a.rows; i++)
        CHECK(fabs((double)a.loss[i] - (double)b.loss[i]) < 0.12, "eval: loss %d is %g, not %g", i,
              (double)b.loss[i], (double)a.loss[i]);
    printf("micro-batch: worst loss %.4f, worst gradient %.4f\n", worst, worst_gradient);
    sample_close(&a);
    sample_close(&b);
}

/* ---- training ---- */

struct update {
    struct sample *s;
    struct archrt_adamw adamw;
    double norm;
};

static void update_work(void *arg, int tid)
{
    struct update *u = arg;
    double norm = sqrt(host->sum_squares(u->s->grads, tid));
    struct archrt_adamw adamw = u->adamw;
    if (norm > 1)
        adamw.grad_scale = (float)(1 / norm);
    if (tid == 0)
        u->norm = norm;
    host->adamw(&adamw, tid);
}

enum { STEPS = 3, MICRO_BATCHES = 2 };

static struct archrt_adamw adamw_of(struct sample *s, int step)
{
    return (struct archrt_adamw){.params = s->params,
                                 .grads = s->grads,
                                 .m = s->m,
                                 .v = s->v,
                                 .lr = 0.01f,
                                 .beta1 = 0.9f,
                                 .beta2 = 0.95f,
                                 .eps = 1e-8f,
                                 .weight_decay = 0.1f,
                                 .grad_scale = 1,
                                 .correction1 = (float)(1 - pow(0.9, step + 1)),
                                 .correction2 = (float)(1 - pow(0.95, step + 1))};
}

static void host_step(struct sample *s, int step, double *loss, double *norm)
{
    *loss = 0;
    for (int i = 0; i < MICRO_BATCHES; i++) {
        struct call c = {host->train,
                         {.params = s->params,
                          .grads = s->grads,
                          .work = s->work,
                          .token = s->token,
                          .target = s->target,
                          .grad_scale = 1.0f / (float)(s->rows * MICRO_BATCHES),
                          .loss = s->loss,
                          .rope = s->rope}};
        team_run(call_work, &c);
        *loss += mean_loss(s) / MICRO_BATCHES;
    }
    struct update u = {s, adamw_of(s, step), 0};
    team_run(update_work, &u);
    *norm = u.norm;
}

static void device_one_step(struct sample *s, int step, float scale, double *loss, double *norm)
{
    struct failure f;
    struct archrt_adamw a = adamw_of(s, step);
    size_t n = (size_t)s->rows;
    int32_t *token = zeros(n * MICRO_BATCHES, sizeof *token);
    int32_t *target = zeros(n * MICRO_BATCHES, sizeof *target);
    float *losses = zeros(n * MICRO_BATCHES, sizeof *losses);
    for (size_t i = 0; i < n * MICRO_BATCHES; i++) {
        token[i] = s->token[i % n];
        target[i] = s->target[i % n];
    }
    struct device_step d = {token,
                            target,
                            losses,
                            MICRO_BATCHES,
                            {.grad_scale = scale / (float)(s->rows * MICRO_BATCHES),
                             .lr = a.lr,
                             .beta1 = a.beta1,
                             .beta2 = a.beta2,
                             .eps = a.eps,
                             .weight_decay = a.weight_decay,
                             .correction1 = a.correction1,
                             .correction2 = a.correction2,
                             .clip = 1}};
    must(device_train_step(&d, norm, &f), &f);
    *loss = 0;
    for (size_t i = 0; i < n * MICRO_BATCHES; i++)
        *loss += (double)losses[i] / (double)(n * MICRO_BATCHES);
    free(token);
    free(target);
    free(losses);
}

static void check_training(void)
{
    struct sample a = {0}, b = {0};
    struct failure f;
    sample_open(&a);
    sample_open(&b);
    must(device_train_begin(b.params, b.m, b.v, &f), &f);
    /* Gradients that are not finite change nothing, and nothing of them is left to the next step:
     * matrices' are overwritten, others were cleared. */
    double first = 0, last = 0;
    device_one_step(&b, 0, NAN, &first, &last);
    CHECK(!isfinite(last), "the norm of NaNs is %g", last);
    for (int step = 0; step < STEPS; step++) {
        double want, got, want_norm, got_norm;
        host_step(&a, step, &want, &want_norm);
        device_one_step(&b, step, 1, &got, &got_norm);
        CHECK(fabs(got - want) < 0.02 + 0.02 * want, "step %d: loss %g, on the host %g", step, got,
              want);
        CHECK(fabs(got_norm - want_norm) < 0.05 * want_norm, "step %d: norm %g, on the host %g",
              step, got_norm, want_norm);
        first = step ? first : got;
        last = got;
    }
    CHECK(last < first - 0.3, "the loss went from %g to %g only", first, last);
    must(device_train_fetch(b.params, b.m, b.v, &f), &f);
    double error = 0, length = 0;
    for (size_t i = 0; i < host->param_floats; i++) {
        error += pow((double)a.params[i] - (double)b.params[i], 2);
        length += pow((double)a.params[i], 2);
    }
    CHECK(sqrt(error / length) < 0.02, "parameters differ by %g of their length",
          sqrt(error / length));
    printf("training: loss %.3f to %.3f, parameters differ by %.5f\n", first, last,
           sqrt(error / length));
    device_train_end();
    sample_close(&a);
    sample_close(&b);
}

/* ---- inference ---- */

enum { PROMPT = 37, STEPS_ON = 5 };

static int best(const float *logits)
{
    int at = 0;
    for (int i = 1; i < host->arch.vocab; i++)
        if (logits[i] > logits[at])
            at = i;
    return at;
}

/* The largest difference of two rows of logits. */
static double apart(const float *a, const float *b)
{
    double worst = 0;
    for (int i = 0; i < host->arch.vocab; i++) {
        double error = fabs((double)a[i] - (double)b[i]);
        worst = error > worst || isnan(error) ? error : worst;
    }
    return worst;
}

static void check_inference(const float *params)
{
    struct inference a, b;
    struct failure f;
    size_t V = (size_t)host->arch.vocab;
    float *want = zeros(V, sizeof(float)), *got = zeros(V, sizeof(float));
    float scores[2][PROMPT];
    int32_t token[PROMPT + 1];
    for (int i = 0; i <= PROMPT; i++)
        token[i] = (int32_t)(mix64((uint64_t)i + 5) % V);
    must(inference_open(&a, host, params, &f), &f);
    must(inference_open(&b, the_model, params, &f), &f);
    must(!device_failed(&f), &f);
    /* Two calls: the second stands behind cached keys and has more rows, so that the graph recorded
     * for the first does not do for it. */
    for (int part = 0; part < 2; part++) {
        int at = part ? 16 : 0, n = part ? PROMPT - 16 : 16;
        inference_feed(&a, token + at, n, want, token + at + 1, scores[0] + at);
        inference_feed(&b, token + at, n, got, token + at + 1, scores[1] + at);
    }
    must(!device_failed(&f), &f);
    int part = (host->cuda->chunk + DEVICE_ROW_STEPS - 1) / DEVICE_ROW_STEPS;
    int most = (PROMPT - 16 + part - 1) / part * part;
    CHECK(!standin || standin->columns == most, "the library multiplied %ld rows of %d",
          standin->columns, PROMPT - 16);
    double worst = apart(got, want);
    for (int i = 0; i < PROMPT; i++)
        CHECK(fabs((double)scores[0][i] - (double)scores[1][i]) < 0.15,
              "log-probability %d is %g, on the host %g", i, (double)scores[1][i],
              (double)scores[0][i]);
    for (int i = 0; i < STEPS_ON; i++) {
        int32_t next = (int32_t)best(want);
        inference_step(&a, next, want);
        inference_step(&b, next, got);
        must(!device_failed(&f), &f);
        worst = fmax(worst, apart(got, want));
    }
    CHECK(worst < 0.2, "logits differ by %g", worst);
    printf("inference: worst logit %.4f\n", worst);
    inference_close(&a);
    inference_close(&b);
    free(want);
    free(got);
}

/* ---- all slots at once ---- */

/* Four kinds of choice; ids at the vocabulary's end are not to be chosen. */
static struct cuda_sampling sampling_of(int i)
{
    static const struct cuda_sampling kinds[] = {
        {.temperature = 0, .top_p = 1},
        {.temperature = 0.5f, .top_p = 1},
        {.temperature = 0.4f, .top_p = 0.9f, .top_k = 30},
        {.temperature = 0.6f, .top_p = 0.95f, .min_p = 0.02f},
    };
    struct cuda_sampling s = kinds[i % 4];
    s.seed[0] = (unsigned)i + 3;
    s.seed[1] = 7;
    s.tokens = host->arch.vocab - 5;
    return s;
}

/* What the host's sampler chooses at `position`. */
static int by_host(float *logits, const struct cuda_sampling *o, int position)
{
    struct sampler_options same = {(double)o->temperature, o->top_k, (double)o->top_p,
                                   (double)o->min_p, (uint64_t)o->seed[1] << 32 | o->seed[0]};
    struct sampler *sampler = need(sampler_new(&same, host->arch.vocab));
    for (int id = o->tokens; id < host->arch.vocab; id++)
        logits[id] = -INFINITY;
    int token = sampler_next(sampler, logits, position);
    sampler_free(sampler);
    return token;
}

struct slots {
    struct session s;
    int n, lengths[256];
    int32_t *token; /* [slots][context] */
};

static void put(struct slots *t, enum archrt_slab slab, const void *from, size_t n)
{
    struct failure f;
    must(session_put(&t->s, slab, 0, from, n * sizeof(int), &f), &f);
}

/* Pages in an order of their own, so that nothing but the table can find them. */
static void put_pages(struct slots *t)
{
    const struct archrt_cuda *c = t->s.cuda;
    int all = c->slots * c->slot_pages, *pages = zeros((size_t)all, sizeof *pages);
    for (int i = 0; i < all; i++)
        pages[i] = all - 1 - i;
    put(t, SLAB_PAGES, pages, (size_t)all);
    free(pages);
}

/* Prompts of all slots, a few in each call, of different lengths. */
static void feed_prompts(struct slots *t)
{
    const struct archrt_cuda *c = t->s.cuda;
    struct failure f;
    size_t room = (size_t)c->chunk;
    int *rows = zeros(5 * room, sizeof *rows);
    int *slot = rows + room, *position = slot + room, *head = position + room, *first = head + room;
    for (int at = 0; at < t->n;) {
        struct cuda_call call = {0};
        while (at < t->n && call.segments < c->segments && call.rows + t->lengths[at] <= c->chunk) {
            first[call.segments] = call.rows;
            for (int i = 0; i < t->lengths[at]; i++, call.rows++) {
                rows[call.rows] = t->token[at * host->arch.context + i];
                slot[call.rows] = at;
                position[call.rows] = i;
            }
            head[call.head_rows++] = call.rows - 1;
            first[++call.segments] = call.rows;
            at++;
        }
        put(t, SLAB_TOKEN, rows, room);
        put(t, SLAB_SLOT, slot, room);
        put(t, SLAB_POSITION, position, room);
        put(t, SLAB_HEAD_ROW, head, (size_t)call.head_rows);
        put(t, SLAB_SEGMENT_ROW, first, (size_t)call.segments + 1);
        put(t, SLAB_CALL, &call, sizeof call / sizeof(int));
        must(session_run(&t->s, ARCHRT_PHASE_PREFILL, 2, &f), &f);
    }
    free(rows);
}

static void put_sampling(struct slots *t)
{
    struct cuda_sampling *sampling = zeros((size_t)t->n, sizeof *sampling);
    for (int i = 0; i < t->n; i++)
        sampling[i] = sampling_of(i);
    put(t, SLAB_SAMPLING, sampling, (size_t)t->n * sizeof *sampling / sizeof(int));
    free(sampling);
}

/* One step of all slots; the tokens are the host sampler's over the same logits. */
static void check_step(struct slots *t, int step)
{
    size_t V = ((size_t)host->arch.vocab + 7) / 8 * 8, rows = (size_t)t->n - 1; /* padding too */
    float *logits = zeros(rows * V, sizeof *logits);
    int *next = zeros(rows, sizeof *next);
    struct failure f;
    must(session_run(&t->s, ARCHRT_PHASE_BATCH, 0, &f) &&
             session_get(&t->s, logits, SLAB_WORK, t->s.cuda->batch_logits_at,
                         rows * V * sizeof *logits, &f) &&
             session_get(&t->s, next, SLAB_NEXT, 0, rows * sizeof *next, &f) &&
             session_wait(&t->s, &f),
         &f);
    for (size_t i = 0; i < rows; i++) {
        struct cuda_sampling o = sampling_of((int)i);
        int wanted = by_host(logits + i * V, &o, t->lengths[i] + step + 1);
        CHECK(next[i] == wanted, "slot %zu, step %d: token %d, the host's sampler takes %d", i,
              step, next[i], wanted);
    }
    free(logits);
    free(next);
}

/* Greedy tokens of one slot by the host, at each step the host's own choice and the margin by which
 * it won: where it is narrow, bf16 may choose another. */
static void check_slot(const float *params, const struct slots *t, int slot, const int *output)
{
    struct inference a;
    struct failure f;
    int n = t->lengths[slot];
    float *logits = zeros((size_t)host->arch.vocab, sizeof *logits);
    must(inference_open(&a, host, params, &f), &f);
    inference_feed(&a, t->token + slot * host->arch.context, n, logits, NULL, NULL);
    for (int i = 0; i <= STEPS_ON; i++) {
        for (int id = sampling_of(slot).tokens; i > 0 && id < host->arch.vocab; id++)
            logits[id] = -INFINITY;
        int chosen = output[slot * host->arch.context + n + i], wanted = best(logits);
        bool known = chosen >= 0 && chosen < host->arch.vocab;
        CHECK(known && logits[chosen] > logits[wanted] - 0.25f,
              "slot %d, step %d: token %d, the host's is %d", slot, i, chosen, wanted);
        if (!known)
            break;
        inference_step(&a, chosen, logits);
    }
    inference_close(&a);
    free(logits);
}

static void check_slots(const float *params, struct device *device)
{
    const struct archrt_cuda *c = host->cuda;
    struct slots t = {.n = c->slots};
    struct failure f;
    size_t context = (size_t)host->arch.context;
    if (!c->phases[ARCHRT_PHASE_BATCH].n)
        return;
    must(session_open(&t.s, device, c, false, c->slots * c->slot_pages, &f), &f);
    t.token = zeros((size_t)t.n * context, sizeof *t.token);
    for (int i = 0; i < t.n; i++) {
        t.lengths[i] = 1 + (int)(mix64((uint64_t)i + 3) % 30);
        for (int k = 0; k < t.lengths[i]; k++)
            t.token[(size_t)i * context + (size_t)k] =
                (int32_t)(mix64((uint64_t)(i * 1000 + k)) % (uint64_t)host->arch.vocab);
    }
    unsigned short *half = zeros((size_t)c->param_decayed, sizeof *half);
    for (int64_t i = 0; i < c->param_decayed; i++) {
        uint32_t bits;
        memcpy(&bits, params + i, sizeof bits);
        half[i] = (unsigned short)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
    }
    float *rope = zeros(context * (size_t)host->arch.head_dim, sizeof *rope);
    rope_table(&host->arch, rope);
    must(session_put(&t.s, SLAB_WEIGHTS, 0, half, t.s.bytes[SLAB_WEIGHTS], &f) &&
             session_put(&t.s, SLAB_VECTORS, 0, params + c->param_decayed, t.s.bytes[SLAB_VECTORS],
                         &f) &&
             session_put(&t.s, SLAB_ROPE, 0, rope, t.s.bytes[SLAB_ROPE], &f),
         &f);
    put_pages(&t);
    feed_prompts(&t);
    int *slot = zeros((size_t)t.n, sizeof *slot), *head = zeros((size_t)t.n, sizeof *head);
    for (int i = 0; i < t.n; i++) {
        slot[i] = i == t.n - 1 ? -1 : i; /* the last one rests */
        head[i] = i;
    }
    struct cuda_call call = {.rows = t.n, .head_rows = t.n, .segments = 0};
    put(&t, SLAB_SLOT, slot, (size_t)t.n);
    put(&t, SLAB_HEAD_ROW, head, (size_t)t.n);
    put(&t, SLAB_CALL, &call, sizeof call / sizeof(int));
    put_sampling(&t);
    for (int i = 0; i < STEPS_ON; i++)
        check_step(&t, i);
    int *output = zeros((size_t)t.n * context, sizeof *output), length = 0;
    must(session_get(&t.s, output, SLAB_OUTPUT, 0, t.s.bytes[SLAB_OUTPUT], &f) &&
             session_get(&t.s, &length, SLAB_LENGTH, 4 * (size_t)(t.n - 1), sizeof length, &f) &&
             session_wait(&t.s, &f),
         &f);
    CHECK(length == t.lengths[t.n - 1], "the idle slot has %d tokens, not %d", length,
          t.lengths[t.n - 1]);
    for (int i = 0; i + 1 < t.n; i += 4)
        check_slot(params, &t, i, output);
    printf("slots: %d of them, %d tokens each\n", t.n - 1, STEPS_ON + 1);
    session_close(&t.s);
    free(t.token);
    free(half);
    free(rope);
    free(slot);
    free(head);
    free(output);
}

/* ---- continuations, chosen on the device ---- */

enum { MOST = 7, CONTINUATIONS = 20 };
struct continued {
    int n[CONTINUATIONS], ends; /* `ends`: a sequence does where a token is a multiple of it; 0 */
    int32_t token[CONTINUATIONS][MOST];
    bool over[CONTINUATIONS], loaded;
};

static enum continuation_answer take(void *arg, int which, int32_t token)
{
    struct continued *c = arg;
    CHECK(c->loaded && !c->over[which] && c->n[which] < MOST, "sequence %d goes on past its end",
          which);
    c->token[which][c->n[which]++] = token;
    c->over[which] = c->n[which] == MOST || (c->ends && token % c->ends == 0);
    return c->over[which] ? CONTINUATION_END : CONTINUATION_ON;
}

static void loaded(void *arg)
{
    ((struct continued *)arg)->loaded = true;
}

/* Tokens of one sequence that are not those of the host's sampler over the logits that the device
 * gives where one token is fed after another. */
static int other_tokens(const float *params, const struct continuations *g,
                        const struct continued *c, int which)
{
    struct inference a;
    struct failure f;
    int others = 0;
    const struct cuda_sampling *o = &g->sampling[which];
    float *logits = zeros((size_t)host->arch.vocab, sizeof *logits);
    must(inference_open(&a, the_model, params, &f), &f);
    if (g->n > 1)
        inference_feed(&a, g->prompt, g->n - 1, NULL, NULL, NULL);
    for (int i = 0; i < c->n[which]; i++) {
        int32_t fed = i ? c->token[which][i - 1] : g->prompt[g->n - 1], got = c->token[which][i];
        inference_step(&a, fed, logits);
        must(!device_failed(&f), &f);
        others += got != by_host(logits, o, g->n + i);
        CHECK(got >= 0 && got < o->tokens, "sequence %d, token %d is %d", which, i, got);
        if (got < 0 || got >= o->tokens)
            break;
    }
    inference_close(&a);
    free(logits);
    return others;
}

/* `first` is the first kind of sampling. One sequence alone computes what the reference does, to
 * the bit; several are other kernels' work, whose sums round differently. */
static void check_continuations(const float *params, int n, int count, int first, int ends)
{
    struct continued c = {.ends = ends};
    struct cuda_sampling sampling[CONTINUATIONS];
    struct failure f;
    int32_t *prompt = zeros((size_t)n, sizeof *prompt);
    for (int i = 0; i < n; i++)
        prompt[i] = (int32_t)(mix64((uint64_t)i + 31) % (uint64_t)host->arch.vocab);
    for (int i = 0; i < count; i++)
        sampling[i] = sampling_of(first + i);
    struct continuations g = {prompt, n, count, MOST, sampling, take, loaded, &c};
    must(device_generate(params, &g, &f), &f);
    int all = 0, others = 0, shortest = MOST;
    for (int i = 0; i < count; i++) {
        CHECK(c.over[i], "sequence %d has no end", i);
        all += c.n[i];
        shortest = c.n[i] < shortest ? c.n[i] : shortest;
        others += other_tokens(params, &g, &c, i);
    }
    CHECK(others <= (count > 1 ? all / 6 : 0), "%d of %d tokens are others than the host's", others,
          all);
    CHECK(!ends || shortest < MOST, "no sequence ended before the others");
    printf("continuations: %d of %d tokens behind %d, %d others\n", count, all, n, others);
    free(prompt);
}

static void check_generation(const float *params)
{
    int page = KV_PAGE, slots = host->cuda->slots;
    check_continuations(params, 1, 1, 0, 0);
    check_continuations(params, page - 3, 1, 1, 0);
    check_continuations(params, page + 1, 1, 2, 0); /* the prompt's page is whole */
    check_continuations(params, page + 4, 1, 3, 0);
    check_continuations(params, page - 2, slots + 3, 0, 3); /* more than slots */
    check_continuations(params, page + 5, 2, 1, 2);
}

/* ---- a library that does not start: an error where it is wanted, our own kernels otherwise ----
 */

/* Of a training session: products on top of a residual, whose depth is short in these models, are
 * our own unless the library was asked for by name. */
static void check_residuals(const struct session *s)
{
    const struct archrt_phase *phase = &s->cuda->phases[ARCHRT_PHASE_TRAIN];
    int residuals = 0, others = 0;
    for (int l = 0; l < phase->n; l++)
        for (int i = 0; i < phase->loops[l].n; i++) {
            const struct archrt_step *step = &phase->loops[l].steps[i];
            const struct archrt_cuda_kernel *k = &s->cuda->kernels[step->kernel];
            bool library = products_library(s, step) != NULL;
            residuals += library && k->flags & ARCHRT_CUDA_WITH_RESIDUAL;
            others += library && !(k->flags & ARCHRT_CUDA_WITH_RESIDUAL);
        }
    bool named = s->device->products == PRODUCTS_LIBRARY;
    CHECK((residuals > 0) == named && others > 0, "the library does %d residuals, %d others",
          residuals, others);
}

static void check_choice(struct device *device)
{
    struct session s;
    struct failure f;
    standin->fault = FAULT_START;
    CHECK(!session_open(&s, device, host->cuda, true, 0, &f) && f.status == STATUS_WORLD &&
              strstr(f.text, "--products library: ") && !s.device,
          "a library that does not start: %s", f.text);
    device->products = PRODUCTS_AUTO;
    must(session_open(&s, device, host->cuda, true, 0, &f), &f);
    CHECK(!products_name(&s), "products by %s", products_name(&s));
    session_close(&s);
    standin->fault = FAULT_NONE;
    for (int training = 0; training < 2; training++) {
        must(session_open(&s, device, host->cuda, training, 1, &f), &f);
        CHECK(!products_name(&s) == !training, "auto takes %s for %s",
              products_name(&s) ? "the library" : "our own", training ? "training" : "prompts");
        if (training)
            check_residuals(&s);
        session_close(&s);
    }
    device->products = PRODUCTS_LIBRARY;
    must(session_open(&s, device, host->cuda, true, 1, &f), &f);
    check_residuals(&s);
    session_close(&s);
}

/* ---- bench: that it runs every kernel of every phase ---- */

/* 1 where training writes logits: the loss of evaluation is a kernel of its own then. */
static size_t evaluation_alone(void)
{
    for (int i = 0; i < host->cuda->n_kernels; i++)
        if (host->cuda->kernels[i].kind == ARCHRT_CUDA_HEAD_SOFTMAX)
            return 1;
    return 0;
}

static json_t *phase_of(json_t *phases, const char *name)
{
    size_t i;
    json_t *row;
    json_array_foreach(phases, i, row) if (strcmp(json_string_value(json_object_get(row, "phase")),
                                                  name) == 0) return row;
    return NULL;
}

/* A step of two micro-batches is two of them and an update, in work and in what is predicted: the
 * second one's gradients are added. */
static void check_bench_step(json_t *phases)
{
    const struct archrt_cuda *c = host->cuda;
    const char *const names[] = {"train", "update", "step"};
    double tokens[3], predicted[3], flops[3], seconds[3];
    for (int i = 0; i < 3; i++) {
        json_t *row = phase_of(phases, names[i]);
        CHECK(row, "no row of %s", names[i]);
        tokens[i] = json_number_value(json_object_get(row, "tokens"));
        predicted[i] = json_number_value(json_object_get(row, "predicted_seconds"));
        seconds[i] = json_number_value(json_object_get(row, "seconds"));
        flops[i] = json_number_value(json_object_get(row, "flops_per_second")) * seconds[i];
    }
    json_t *n = json_object_get(phase_of(phases, "step"), "micro_batches");
    CHECK(json_integer_value(n) == 2 && tokens[2] == 2 * tokens[0], "a step of %g tokens",
          tokens[2]);
    CHECK(fabs(flops[2] / (2 * flops[0] + flops[1]) - 1) < 1e-9, "a step of %g FLOPs", flops[2]);
    double want = 2 * predicted[0] + predicted[1] + c->predicted_adding;
    CHECK(c->predicted_adding > 0 && fabs(predicted[2] / want - 1) < 1e-9,
          "a step is predicted to take %g s, not %g", predicted[2], want);
}

/* Two micro-batches a step, which the program's table then has as a row of its own. */
static void check_bench(struct device *device)
{
    const struct bench_request request = {.rounds = 1, .phases = BENCH_ALL, .micro_batches = 2};
    json_t *out;
    struct failure f;
    must(device_bench(device, &request, &out, &f), &f);
    size_t steps = 0;
    for (int id = 0; id < ARCHRT_PHASES; id++)
        for (int l = 0; id != ARCHRT_PHASE_EVAL && l < host->cuda->phases[id].n; l++)
            steps += (size_t)host->cuda->phases[id].loops[l].n;
    steps += evaluation_alone();
    json_t *kernels = json_object_get(out, "kernels"), *phases = json_object_get(out, "phases");
    CHECK(json_array_size(kernels) == steps, "%zu kernels timed, of %zu", json_array_size(kernels),
          steps);
    CHECK(json_array_size(phases) == 10, "%zu phases timed", json_array_size(phases));
    for (size_t i = 0; i < json_array_size(phases); i++)
        CHECK(json_is_real(json_object_get(json_array_get(phases, i), "seconds")),
              "phase %zu took no time", i);
    double prompts, generation, rate;
    CHECK(json_unpack(json_object_get(out, "load"), "{sfsfsf}", "prompt_seconds", &prompts,
                      "generate_seconds", &generation, "tokens_per_second", &rate) == 0,
          "no serving load");
    int tokens = host->cuda->slots * host->cuda->generate;
    CHECK(fabs(rate * (prompts + generation) / tokens - 1) < 1e-9, "%g tokens/s", rate);
    size_t compared = 0;
    for (size_t i = 0; i < json_array_size(kernels); i++)
        compared += json_is_real(json_object_get(json_array_get(kernels, i), "library_speedup"));
    CHECK((compared > 0) == (standin != NULL), "%zu products timed both ways", compared);
    for (size_t i = 0; i < json_array_size(phases); i++) {
        json_t *row = json_array_get(phases, i);
        const char *phase = json_string_value(json_object_get(row, "phase"));
        bool products = strcmp(phase, "train") == 0 || strcmp(phase, "prefill") == 0;
        CHECK(json_is_real(json_object_get(row, "own_seconds")) == (products && standin),
              "phase %s is timed both ways, or is not", phase);
    }
    check_bench_step(phases);
    json_decref(out);
}

/* bench --only: kernels of training and of inference, or none. */
static void check_bench_only(struct device *device)
{
    json_t *out;
    struct failure f;
    struct bench_request request = {.rounds = 1, .phases = BENCH_ALL, .only = "attention_b"};
    must(device_bench(device, &request, &out, &f), &f);
    json_t *kernels = json_object_get(out, "kernels");
    CHECK(json_array_size(kernels) == 1, "%zu kernels timed, of 1", json_array_size(kernels));
    CHECK(strcmp(json_string_value(json_object_get(json_array_get(kernels, 0), "name")),
                 "cuda_train_attention_backward") == 0,
          "another kernel");
    CHECK(json_array_size(json_object_get(out, "phases")) == 0, "phases are timed");
    json_decref(out);
    request.only = "no such kernel";
    CHECK(!device_bench(device, &request, &out, &f) && f.status == STATUS_USAGE,
          "a kernel that there is not was timed");
    json_decref(out);
}

int main(int argc, char **argv)
{
    struct failure f;
    struct device *device = emulated_device();
    program_name = "model_test";
    emu_seed(argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 0) : 1);
    team_start(host->threads);
    must(device_use(device, &f), &f);
    printf("%s\n", device_says());
    bool bench = argc > 2 && strcmp(argv[argc - 1], "bench") == 0;
    if (argc > 2 && strcmp(argv[2], "library") == 0) {
        device->products = PRODUCTS_LIBRARY;
        void *library = dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_LOCAL);
        standin = library ? dlsym(library, "standin") : NULL;
        if (!standin) {
            printf("the library that loads is not the stand-in\n");
            return 1;
        }
        check_choice(device);
    }
    double before = clock_seconds();
    float *params = zeros(host->param_floats, sizeof *params);
    fill_params(params, 11);
    check_inference(params);
    printf("  %.1f s\n", clock_seconds() - before);
    check_slots(params, device);
    printf("  %.1f s\n", clock_seconds() - before);
    if (!standin) /* decode: no products for the library */
        check_generation(params);
    printf("  %.1f s\n", clock_seconds() - before);
    check_micro_batch();
    printf("  %.1f s\n", clock_seconds() - before);
    check_training();
    printf("  %.1f s\n", clock_seconds() - before);
    if (bench)
        check_bench(device);
    check_bench_only(device);
    printf("%ld launches, %ld of them early, %.1f s; %d failures\n", emulated_launches,
           emulated_early, clock_seconds() - before, failures);
    free(params);
    device_leave();
    team_stop();
    return failures != 0;
}

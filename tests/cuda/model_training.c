/* model_training.c - of model_test: losses and gradients of a micro-batch, some steps of training.
 */
#include "model_check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- what both sides train on ---- */

struct sample {
    float *params, *grads, *m, *v, *loss, *rope;
    void *work;
    int32_t *token, *target;
    int rows;
};

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

void check_micro_batch(void)
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

void check_training(void)
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

/* verify_torch.c - the plain reference, then the program's own kernels, against the values that an
 * independent PyTorch implementation left in torch_values.h. Linked with an archrt_model whose name
 * and shape are one of torch_reference.py's variants, with batch 2 and sequence 24. */
#include <math.h>

#include "reference.h"
#include "rt_check.h"
#include "torch_values.h"

enum { ROWS = TORCH_BATCH * TORCH_LENGTH };

static const struct torch_variant *variant;
static int32_t token[ROWS], target[ROWS];

static void near(const char *what, double got, double want, double tolerance)
{
    if (fabs(got - want) <= tolerance)
        return;
    fprintf(stderr, "%s: %s is %.12g, PyTorch says %.12g\n", archrt_model.arch.name, what, got,
            want);
    failures++;
}

static double uniform(const char *prefix, const char *name, size_t i)
{
    uint64_t h = 14695981039346656037ull;
    for (const char *p = prefix; *p; p++)
        h = (h ^ (unsigned char)*p) * 1099511628211ull;
    for (const char *p = name; *p; p++)
        h = (h ^ (unsigned char)*p) * 1099511628211ull;
    return (double)(mix64(h ^ mix64(i)) >> 11) * 0x1p-52 - 1;
}

/* As weights() of torch_reference.py. */
static void make_params(float *params)
{
    memset(params, 0, archrt_model.param_floats * sizeof *params);
    for (int i = 0; i < archrt_model.n_tensors; i++) {
        const struct archrt_tensor *t = &archrt_model.tensors[i];
        bool embed = strncmp(t->name, "model.embed", 11) == 0;
        bool head = strcmp(t->name, "lm_head.weight") == 0 || (embed && archrt_model.arch.tied);
        double scale = t->rank == 1 ? (t->gain ? 0.2 : 0.3)
                       : head       ? 2 / sqrt((double)t->shape[1])
                       : embed      ? 1
                                    : 1 / sqrt((double)t->shape[1]);
        for (size_t j = 0; j < (size_t)tensor_size(t); j++)
            params[t->offset + j] =
                (float)((t->gain ? 1.0 : 0.0) + (1.732 * scale) * uniform("", t->name, j));
    }
}

static void make_tokens(void)
{
    for (int b = 0; b < TORCH_BATCH; b++)
        for (int t = 0; t < TORCH_LENGTH; t++) {
            uint64_t at = 1000 + (uint64_t)(b * (TORCH_LENGTH + 1) + t);
            uint64_t vocab = (uint64_t)archrt_model.arch.vocab;
            token[b * TORCH_LENGTH + t] = (int32_t)(mix64(at) % vocab);
            target[b * TORCH_LENGTH + t] = (int32_t)(mix64(at + 1) % vocab);
        }
}

/* Both sides name the same tensors. */
static void compare_gradients(const double *grads, double tolerance)
{
    CHECK(variant->n_gradients == archrt_model.n_tensors);
    for (int i = 0; i < variant->n_gradients; i++) {
        const struct torch_gradient *want = &variant->gradients[i];
        const struct archrt_tensor *t = tensor_find(&archrt_model, want->name);
        double squares = 0, along = 0;
        CHECK(t != NULL);
        for (size_t j = 0; t && j < (size_t)tensor_size(t); j++) {
            double g = grads[t->offset + j];
            squares += g * g;
            along += g * uniform("direction ", t->name, j);
        }
        near(want->name, sqrt(squares), want->norm, tolerance * want->norm);
        near(want->name, along, want->along, tolerance * want->norm);
    }
}

/* One pass of the reference over both sequences. */
static double reference_pass(struct reference *r, double *loss, double *grads)
{
    struct failure f;
    double sum = 0;
    for (int b = 0; b < TORCH_BATCH; b++)
        if (!reference_backward(r, token + b * TORCH_LENGTH, target + b * TORCH_LENGTH,
                                TORCH_LENGTH, 1.0 / ROWS, loss + b * TORCH_LENGTH, grads, &f))
            exit(failure_report(&f));
    for (int i = 0; i < ROWS; i++)
        sum += loss[i] / ROWS;
    return sum;
}

static void check_reference(float *params)
{
    struct reference *r;
    struct failure f;
    size_t n = archrt_model.param_floats;
    double loss[ROWS], *grads = need(calloc(n, sizeof *grads));
    if (!reference_open(&r, &archrt_model, params, ARCHRT_F32, &f))
        exit(failure_report(&f));
    reference_pass(r, loss, grads);
    for (int i = 0; i < ROWS; i++)
        near("a loss of the reference", loss[i], variant->losses[i], 1e-11);
    compare_gradients(grads, 1e-11);
    reference_close(r);
    free(grads);
}

/* The reference reads fp32 parameters, so its 20 steps are rounded to fp32 after each: as exact as
 * a run of fp32 parameters can be. */
static void check_reference_curve(float *params)
{
    size_t n = archrt_model.param_floats;
    double *m = need(calloc(n, sizeof *m)), *v = need(calloc(n, sizeof *v)), loss[ROWS];
    double *grads = need(malloc(n * sizeof *grads));
    struct reference *r;
    struct failure f;
    if (!reference_open(&r, &archrt_model, params, ARCHRT_F32, &f))
        exit(failure_report(&f));
    for (int step = 0; step < TORCH_STEPS; step++) {
        double squares = 0;
        memset(grads, 0, n * sizeof *grads);
        near("the reference's loss while training", reference_pass(r, loss, grads),
             variant->curve[step], 1e-5);
        for (size_t i = 0; i < n; i++)
            squares += grads[i] * grads[i];
        struct ref_adamw s = {torch_lr,
                              torch_beta1,
                              torch_beta2,
                              torch_eps,
                              torch_decay,
                              fmin(1, torch_clip / sqrt(squares)),
                              1 - pow(torch_beta1, step + 1),
                              1 - pow(torch_beta2, step + 1)};
        for (int i = 0; i < archrt_model.n_tensors; i++) {
            const struct archrt_tensor *t = &archrt_model.tensors[i];
            for (size_t j = t->offset; j < t->offset + (size_t)tensor_size(t); j++) {
                double p = (double)params[j];
                ref_adamw_step(&p, &m[j], &v[j], grads[j], &s, t->rank == 2);
                params[j] = (float)p;
            }
        }
    }
    reference_close(r);
    free(m);
    free(v);
    free(grads);
}

/* The program's own training, in fp32. */
struct job {
    struct archrt_train pass;
    struct archrt_adamw update;
    double squares;
};

static void train_work(void *arg, int tid)
{
    archrt_model.train(&((struct job *)arg)->pass, tid);
}

static void update_work(void *arg, int tid)
{
    struct job *j = arg;
    double squares = archrt_model.sum_squares(j->update.grads, tid);
    team_barrier(tid);
    if (tid == 0)
        j->update.grad_scale = (float)fmin(1, torch_clip / sqrt(squares));
    team_barrier(tid);
    archrt_model.adamw(&j->update, tid);
}

static void check_program(float *params)
{
    size_t n = archrt_model.param_floats, bytes = n * sizeof(float);
    size_t rope = (size_t)archrt_model.arch.context * (size_t)archrt_model.arch.head_dim;
    struct failure f;
    float loss[ROWS];
    struct slab {
        void *at;
        size_t bytes;
    } s[] = {{NULL, bytes},
             {NULL, bytes},
             {NULL, bytes},
             {NULL, rope * 4},
             {NULL, archrt_model.work_bytes}};
    for (int i = 0; i < 5; i++)
        if (!slab_alloc(&s[i].at, s[i].bytes, "the test", &f))
            exit(failure_report(&f));
    float *grads = s[0].at;
    rope_table(&archrt_model.arch, s[3].at);
    struct job j = {{params, grads, s[4].at, token, target, 1.0f / ROWS, loss, s[3].at},
                    {params, grads, s[1].at, s[2].at, (float)torch_lr, (float)torch_beta1,
                     (float)torch_beta2, (float)torch_eps, (float)torch_decay, 1, 0, 0},
                    0};
    for (int step = 0; step < TORCH_STEPS; step++) {
        double mean = 0;
        team_run(train_work, &j);
        for (int i = 0; i < ROWS; i++)
            mean += (double)loss[i] / ROWS;
        if (step == 0) {
            double *wide = need(malloc(n * sizeof *wide));
            for (size_t i = 0; i < n; i++)
                wide[i] = (double)grads[i];
            for (int i = 0; i < ROWS; i++)
                near("a loss of the program", (double)loss[i], variant->losses[i], 3e-5);
            compare_gradients(wide, 3e-5);
            free(wide);
        }
        near("the program's loss while training", mean, variant->curve[step], 1e-3);
        j.update.correction1 = (float)(1 - pow(torch_beta1, step + 1));
        j.update.correction2 = (float)(1 - pow(torch_beta2, step + 1));
        team_run(update_work, &j);
    }
    for (int i = 0; i < 5; i++)
        slab_free(s[i].at, s[i].bytes);
}

int main(void)
{
    void *slab;
    struct failure f;
    size_t bytes = archrt_model.param_floats * sizeof(float);
    program_name = "verify_torch";
    for (size_t i = 0; i < sizeof torch_variants / sizeof *torch_variants; i++)
        if (strcmp(torch_variants[i].name, archrt_model.arch.name) == 0)
            variant = &torch_variants[i];
    if (!variant || archrt_model.batch != TORCH_BATCH || archrt_model.sequence != TORCH_LENGTH) {
        fprintf(stderr, "%s of this shape is no variant of torch_reference.py\n",
                archrt_model.arch.name);
        return 1;
    }
    if (!slab_alloc(&slab, bytes, "parameters", &f))
        return failure_report(&f);
    float *params = slab;
    team_start(archrt_model.threads);
    make_tokens();
    make_params(params);
    check_reference(params);
    check_reference_curve(params);
    make_params(params);
    check_program(params);
    team_stop();
    slab_free(slab, bytes);
    if (failures)
        fprintf(stderr, "%d values differ\n", failures);
    return failures != 0;
}

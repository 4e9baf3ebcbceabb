/* model.c - what follows from the emitted table: tensors, initial parameters, rotations, FLOPs. */
#include <math.h>
#include <string.h>

#include "runtime.h"

int64_t tensor_size(const struct archrt_tensor *t)
{
    return t->rank == 2 ? t->shape[0] * t->shape[1] : t->shape[0];
}

const struct archrt_tensor *tensor_find(const struct archrt_model *m, const char *name)
{
    for (int i = 0; i < m->n_tensors; i++)
        if (strcmp(m->tensors[i].name, name) == 0)
            return &m->tensors[i];
    return NULL;
}

struct init_job {
    const struct archrt_model *model;
    float *params;
    uint64_t seed;
};

/* Box-Muller on numbered random bits: element i depends on the seed, the tensor and i alone. */
static void fill_normal(float *x, int64_t begin, int64_t end, float deviation, uint64_t key)
{
    for (int64_t i = begin; i < end; i++) {
        uint64_t bits = mix64(key + (uint64_t)(i >> 1));
        float u = ((float)(bits >> 41) + 0.5f) * 0x1p-23f;
        float turn = (float)((bits >> 17) & 0xffffff) * (6.2831853f * 0x1p-24f);
        float radius = deviation * sqrtf(-2.0f * logf(u));
        x[i] = radius * (i & 1 ? sinf(turn) : cosf(turn));
    }
}

static void init_work(void *arg, int tid)
{
    const struct init_job *job = arg;
    const struct archrt_model *m = job->model;
    for (int i = 0; i < m->n_tensors; i++) {
        const struct archrt_tensor *t = &m->tensors[i];
        float *x = job->params + t->offset;
        int64_t n = tensor_size(t);
        int64_t begin = n / m->threads * tid, end = n / m->threads * (tid + 1);
        if (tid == m->threads - 1)
            end = n;
        if (t->gain || t->init == 0) {
            for (int64_t j = begin; j < end; j++)
                x[j] = t->gain ? 1.0f : 0.0f;
            continue;
        }
        fill_normal(x, begin, end, t->init, mix64(job->seed ^ mix64((uint64_t)i + 1)));
    }
}

void params_init(const struct archrt_model *m, float *params, uint64_t seed)
{
    struct init_job job = {m, params, seed};
    memset(params, 0, m->param_floats * sizeof *params);
    team_run(init_work, &job);
}

/* Llama 3's scaling: long waves are slowed by the factor, short ones left alone, and between the
 * two bounds the frequency is blended (as in Hugging Face's _compute_llama3_parameters). */
static double scaled_frequency(const struct archrt_arch *a, double f)
{
    if (a->rope_factor <= 0)
        return f;
    double turns = a->rope_original * f / 6.283185307179586; /* within the original context */
    if (turns < a->rope_low)
        return f / a->rope_factor;
    if (turns > a->rope_high)
        return f;
    double blend = (turns - a->rope_low) / (a->rope_high - a->rope_low);
    return (1 - blend) * f / a->rope_factor + blend * f;
}

void rope_table(const struct archrt_arch *a, float *rope)
{
    enum { BLOCK = 64 };
    int half = a->head_dim / 2;
    for (int i = 0; i < half; i++) {
        double f = scaled_frequency(a, pow(a->rope_theta, -2.0 * i / a->head_dim));
        double c[BLOCK], s[BLOCK];
        for (int j = 0; j < BLOCK; j++) {
            c[j] = cos(f * j);
            s[j] = sin(f * j);
        }
        /* Sums of angles by products: a long context would spend 100 ms in cos and sin otherwise.
         */
        for (int p = 0; p < a->context; p += BLOCK) {
            double cp = cos(f * p), sp = sin(f * p);
            for (int j = 0; j < BLOCK && p + j < a->context; j++) {
                float *out = rope + ((size_t)(p + j) * (size_t)half + (size_t)i) * 2;
                out[0] = (float)(cp * c[j] - sp * s[j]);
                out[1] = (float)(sp * c[j] + cp * s[j]);
            }
        }
    }
}

double flops_forward(const struct archrt_model *m, double keys)
{
    const struct archrt_arch *a = &m->arch;
    double head = 2.0 * a->vocab * a->d_model;
    double attention = 4.0 * keys * a->heads * a->head_dim * a->layers;
    return 2.0 * (double)m->params + head + attention;
}

double flops_train(const struct archrt_model *m)
{
    return 3 * flops_forward(m, (m->sequence + 1) / 2.0);
}

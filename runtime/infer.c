/* infer.c - one sequence through the packed weights. */
#include <string.h>

#include "runtime.h"

struct pack_job {
    const struct archrt_model *model;
    void *weights;
    const float *params;
};

static void pack_work(void *arg, int tid)
{
    const struct pack_job *job = arg;
    job->model->pack(job->weights, job->params, tid);
}

bool inference_open(struct inference *s, const struct archrt_model *m, const float *params,
                    struct failure *f)
{
    size_t rope_bytes = (size_t)m->arch.context * (size_t)m->arch.head_dim * sizeof(float);
    *s = (struct inference){.model = m};
    if (!slab_alloc(&s->weights, m->weight_bytes, "the packed weights", f) ||
        !slab_alloc(&s->cache, m->cache_bytes, "the cache of keys and values", f) ||
        !slab_alloc(&s->work, m->infer_work_bytes, "the scratch of inference", f) ||
        !slab_alloc(&s->rope, rope_bytes, "the table of rotations", f)) {
        inference_close(s);
        return false;
    }
    rope_table(&m->arch, s->rope);
    struct pack_job job = {m, s->weights, params};
    team_run(pack_work, &job);
    s->state = (struct archrt_infer){s->weights, s->cache, s->work, s->rope, 0};
    return true;
}

void inference_close(struct inference *s)
{
    const struct archrt_model *m = s->model;
    slab_free(s->weights, m->weight_bytes);
    slab_free(s->cache, m->cache_bytes);
    slab_free(s->work, m->infer_work_bytes);
    slab_free(s->rope, (size_t)m->arch.context * (size_t)m->arch.head_dim * sizeof(float));
    *s = (struct inference){.model = m};
}

struct feed_job {
    struct inference *s;
    const int32_t *token, *target;
    int n;
    float *logits, *logprobs;
};

static void feed_work(void *arg, int tid)
{
    const struct feed_job *j = arg;
    j->s->model->prefill(&j->s->state, j->token, j->n, j->logits, j->target, j->logprobs, tid);
}

void inference_feed(struct inference *s, const int32_t *token, int n, float *logits,
                    const int32_t *target, float *logprobs)
{
    for (int at = 0; at < n; at += s->model->chunk) {
        int part = n - at < s->model->chunk ? n - at : s->model->chunk;
        bool last = at + part == n;
        struct feed_job job = {.s = s,
                               .token = token + at,
                               .target = target ? target + at : NULL,
                               .n = part,
                               .logits = last ? logits : NULL,
                               .logprobs = logprobs ? logprobs + at : NULL};
        team_run(feed_work, &job);
        s->state.past += part;
    }
}

struct step_job {
    struct inference *s;
    int32_t token;
    float *logits;
};

static void step_work(void *arg, int tid)
{
    const struct step_job *j = arg;
    j->s->model->decode(&j->s->state, j->token, j->logits, tid);
}

void inference_step(struct inference *s, int32_t token, float *logits)
{
    struct step_job job = {s, token, logits};
    team_run(step_work, &job);
    s->state.past++;
}

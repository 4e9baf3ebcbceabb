/* evaluate.c - the loss of a stretch of data, in windows. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "evaluate.h"

double loss_mean(const struct loss_sum *l)
{
    return l->tokens > 0 ? l->nats / (double)l->tokens : NAN;
}

double loss_bits_per_byte(const struct loss_sum *l)
{
    return l->bytes > 0 ? l->nats / (double)l->bytes / 0.69314718055994531 : NAN;
}

void evaluator_open(struct evaluator *e, const struct archrt_model *m, const float *params,
                    void *work, const float *rope)
{
    size_t rows = (size_t)m->batch * (size_t)m->sequence;
    *e = (struct evaluator){.model = m, .params = params, .work = work, .rope = rope};
    e->token = need(calloc(rows, sizeof *e->token));
    e->target = need(calloc(rows, sizeof *e->target));
    e->loss = need(calloc(rows, sizeof *e->loss));
}

void evaluator_close(struct evaluator *e)
{
    free(e->token);
    free(e->target);
    free(e->loss);
}

uint64_t stretch_windows(const struct stretch *s)
{
    uint64_t targets = s->tokens > 0 ? s->tokens - 1 : 0, length = (uint64_t)s->length;
    if (targets <= length)
        return targets > 0;
    return 1 + (targets - length + (uint64_t)s->stride - 1) / (uint64_t)s->stride;
}

struct window stretch_window(const struct stretch *s, uint64_t i)
{
    uint64_t at = i * (uint64_t)s->stride, left = s->tokens - 1 - at;
    return (struct window){.start = s->begin + at,
                           .inputs = left < (uint64_t)s->length ? (int)left : s->length,
                           .counted = i == 0 ? 0 : s->length - s->stride};
}

/* Row b of the batch: the window's tokens, targets where they count, -1 elsewhere. */
static bool fill_row(struct evaluator *e, struct data *d, const struct window *w, int b,
                     struct loss_sum *sum, struct failure *f)
{
    int T = e->model->sequence;
    int32_t *token = e->token + (size_t)b * (size_t)T, *target = e->target + (size_t)b * (size_t)T;
    size_t n = (size_t)w->inputs;
    if (!data_read(d, w->start, n, token, f) || !data_read(d, w->start + 1, n, target, f))
        return false;
    for (int t = w->inputs; t < T; t++) {
        token[t] = 0;
        target[t] = -1;
    }
    for (int t = 0; t < w->counted; t++)
        target[t] = -1;
    int64_t bytes = data_bytes(d, target + w->counted, n - (size_t)w->counted);
    sum->tokens += w->inputs - w->counted;
    sum->bytes = bytes < 0 ? -1 : sum->bytes + bytes;
    return true;
}

static void leave_empty(struct evaluator *e, int b)
{
    size_t T = (size_t)e->model->sequence;
    memset(e->token + (size_t)b * T, 0, T * sizeof *e->token);
    memset(e->target + (size_t)b * T, 0xff, T * sizeof *e->target);
}

struct eval_job {
    const struct archrt_model *model;
    struct archrt_train call;
};

static void eval_work(void *arg, int tid)
{
    const struct eval_job *j = arg;
    j->model->eval(&j->call, tid);
}

static double run_batch(struct evaluator *e)
{
    const struct archrt_model *m = e->model;
    struct eval_job job = {m,
                           {.params = e->params,
                            .work = e->work,
                            .token = e->token,
                            .target = e->target,
                            .loss = e->loss,
                            .rope = e->rope}};
    team_run(eval_work, &job);
    double nats = 0;
    for (size_t i = 0, n = (size_t)m->batch * (size_t)m->sequence; i < n; i++)
        nats += (double)e->loss[i];
    return nats;
}

bool evaluate(struct evaluator *e, struct data *d, const struct stretch *s, uint64_t most,
              struct loss_sum *out, struct failure *f)
{
    uint64_t all = stretch_windows(s), n = most > 0 && most < all ? most : all;
    int B = e->model->batch;
    *out = (struct loss_sum){0, 0, 0};
    for (uint64_t i = 0; i < n; i += (uint64_t)B) {
        for (int b = 0; b < B; b++) {
            uint64_t j = i + (uint64_t)b;
            if (j >= n) {
                leave_empty(e, b);
                continue;
            }
            struct window w = stretch_window(s, n == all ? j : j * all / n);
            if (!fill_row(e, d, &w, b, out, f))
                return false;
        }
        out->nats += run_batch(e);
    }
    return true;
}

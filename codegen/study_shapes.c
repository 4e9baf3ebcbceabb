/* study_shapes.c - points of a study's grid become integer shapes, and shapes become runs. */
#include "study.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- the nearest shape --------------------------------------------------------------------------
 */

struct aim {
    double params, x, r;
    int gqa;
};

/* Squared distance in logarithms. N weighs most: what is compared must be of one size. */
static double distance(const struct arch *a, const struct aim *aim)
{
    double n = log((double)arch_params(a) / aim->params);
    double x = log(arch_width(a) / aim->x), r = log(arch_r(a) / aim->r);
    return 400 * n * n + 4 * x * x + r * r;
}

/* d_ff is what is left of the parameters, on its step: below and above. */
static void try_heads(const struct study *s, const struct aim *aim, struct arch *a, double *best,
                      struct arch *out)
{
    double layer = aim->params / a->layers / a->d_model;
    double left = layer - 2.0 * a->head_dim * (a->heads + a->kv_heads);
    int step = s->spec->d_ff_step;
    for (int k = 0; k < 2; k++) {
        double f = (floor(left / 3 / step) + k) * step;
        if (f < 8 || f > 1048576)
            continue;
        a->d_ff = (int)f;
        double n = (double)arch_params(a) / aim->params - 1, far = distance(a, aim);
        if (fabs(n) <= s->spec->tolerance && far < *best) {
            *best = far;
            *out = *a;
        }
    }
}

static void name_shape(const struct study *s, struct arch *a)
{
    a->name = arena_printf(s->arena, "d%d_h%d_k%d_f%d", a->d_model, a->heads, a->kv_heads, a->d_ff);
}

bool study_shape(const struct study *s, double params, double x, double r, int gqa,
                 struct arch *out)
{
    const struct study_spec *spec = s->spec;
    struct aim aim = {params, x, r, gqa};
    struct model_spec m = study_model(s, NULL);
    struct arch a = {.layers = spec->layers,
                     .head_dim = spec->head_dim,
                     .vocab = m.vocab,
                     .context = m.context,
                     .tied = m.tied,
                     .norm_eps = m.norm_eps,
                     .rope = m.rope};
    double best = INFINITY, wanted = x * sqrt(params);
    int step = spec->d_model_step, nearest = (int)(wanted / step + 0.5);
    for (int i = nearest - 2; i <= nearest + 2; i++) {
        a.d_model = i * step;
        if (i < 1 || a.d_model < 8 || a.d_model > 65536)
            continue;
        for (a.kv_heads = 1; a.kv_heads * gqa <= 1024; a.kv_heads++) {
            a.heads = a.kv_heads * gqa;
            if (2.0 * a.head_dim * (a.heads + a.kv_heads) * a.d_model * a.layers > 1.2 * params)
                break;
            try_heads(s, &aim, &a, &best, out);
        }
    }
    if (isfinite(best))
        name_shape(s, out);
    return isfinite(best);
}

bool study_baseline(const struct study *s, double params, struct arch *out)
{
    /* With H E = d_model: N = L 2 d^2 (1 + 1/G) (1 + r). */
    double r = 4.8, attention = 2 * (1 + 1.0 / s->spec->gqa);
    double x = 1 / sqrt(s->spec->layers * attention * (1 + r));
    return study_shape(s, params, x, r, s->spec->gqa, out);
}

/* ---- runs -------------------------------------------------------------------------------------
 */

static int larger(int a, int b)
{
    return a > b ? a : b;
}

struct model_spec study_model(const struct study *s, const struct arch *a)
{
    const struct study_spec *spec = s->spec;
    struct model_spec m = {.name = a ? a->name : "shape",
                           .at = spec->at,
                           .vocab = 256,
                           .tied = true,
                           .norm_eps = 1e-5,
                           .rope = {.theta = 10000},
                           .train = spec->train,
                           .serve = spec->serve};
    m.train.sequence = m.train.sequence > 0 ? m.train.sequence : 256;
    m.train.batch = m.train.batch > 0 ? m.train.batch : 8;
    m.context = larger(m.train.sequence, m.serve.prompt + m.serve.generate);
    return m;
}

double study_lr(const struct study *s, double size)
{
    return s->spec->train.lr * pow(size / s->spec->sizes.at[0], s->spec->lr_exponent);
}

double study_predict(const struct study *s, const struct study_run *run)
{
    if (!(s->core.flops[DTYPE_F32] > 0))
        return NAN;
    struct model_spec m = study_model(s, &run->arch);
    return run->tokens / cost_train_rate(&s->core, &m.train, &run->arch);
}

bool study_same_run(const struct study_run *a, const struct study_run *b)
{
    const struct arch *p = &a->arch, *q = &b->arch;
    return p->layers == q->layers && p->d_model == q->d_model && p->heads == q->heads &&
           p->kv_heads == q->kv_heads && p->head_dim == q->head_dim && p->d_ff == q->d_ff &&
           a->seed == b->seed && fabs(a->tokens - b->tokens) < 0.5 &&
           fabs(a->lr - b->lr) <= 1e-6 * b->lr;
}

void study_add(struct study *s, const struct study_run *run)
{
    for (int i = 0; i < s->n_runs; i++)
        if (study_same_run(&s->runs[i], run))
            return;
    if ((s->n_runs & (s->n_runs + 1)) == 0) { /* full: 0, 1, 3, 7, .. */
        struct study_run *more = arena_alloc(s->arena, (size_t)(2 * s->n_runs + 1) * sizeof *more);
        if (s->n_runs > 0)
            memcpy(more, s->runs, (size_t)s->n_runs * sizeof *more);
        s->runs = more;
    }
    struct study_run *to = &s->runs[s->n_runs++];
    *to = *run;
    for (int i = 0; i < s->n_strays && !to->done; i++)
        if (study_same_run(&s->strays[i], to)) {
            to->done = true;
            to->loss = s->strays[i].loss;
            to->bits = s->strays[i].bits;
            to->seconds = s->strays[i].seconds;
        }
}

static bool schedule_point(struct study *s, double size, double x, double r, bool centre)
{
    const struct study_spec *spec = s->spec;
    struct study_run run = {.stage = STAGE_GRID,
                            .role = centre ? "centre" : "grid",
                            .size = size,
                            .tokens = round(spec->tokens_per_param * size),
                            .lr = study_lr(s, size)};
    if (!study_shape(s, size, x, r, spec->gqa, &run.arch)) {
        fprintf(stderr,
                "archc: study %s: no shape of %s parameters has width %.3g and r %.3g: widen "
                "tolerance, or lower head_dim, d_ff_step or d_model_step\n",
                spec->name, study_size_text(s, size), x, r);
        return false;
    }
    for (run.seed = 1; run.seed <= (centre ? spec->seeds : 1); run.seed++)
        study_add(s, &run);
    return true;
}

bool study_schedule_grid(struct study *s)
{
    const struct study_spec *spec = s->spec;
    bool by_width = spec->width.n > 0;
    const struct numbers *columns = by_width ? &spec->width : &spec->d_model;
    bool good = true;
    for (int n = 0; n + 1 < spec->sizes.n; n++) {
        double size = spec->sizes.at[n];
        for (int i = 0; i < columns->n; i++)
            for (int k = 0; k < spec->r.n; k++) {
                double x = by_width ? columns->at[i] : columns->at[i] / sqrt(size);
                bool centre = i == columns->n / 2 && k == spec->r.n / 2;
                good = schedule_point(s, size, x, spec->r.at[k], centre) && good;
            }
    }
    return good;
}

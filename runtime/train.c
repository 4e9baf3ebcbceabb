/* train.c - the training loop.
 *
 * A run's state is its parameters, its moments and a few numbers: which samples come next follows
 * from the seed and the number of samples taken (data.h), so that resuming is bit for bit. */
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "gpu.h"
#include "files.h"
#include "train.h"

struct trainer {
    const struct archrt_model *model;
    struct plan plan;
    struct data data, val; /* val.n == 0: the tail of data */
    struct windows windows;
    struct stretch held_out; /* of val or data; tokens 0: none */
    uint64_t fingerprint;
    int64_t step, samples, saved_step;
    double seconds_before, started; /* of earlier runs; clock at the start of this one */
    char trained_by[400];           /* what the run has been computed by; "": not known */
    float *params, *grads, *m, *v;
    void *work, *rope;
    int32_t *token, *target; /* [accumulate][B T] */
    float *loss;
    struct evaluator evaluator;
    struct report report;
    bool save_failed;
};

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    interrupted = number;
}

/* The second signal ends the process at once, as people expect; checkpoints stand that too. */
static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESETHAND};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    struct sigaction hangup; /* nohup asks to ignore it */
    if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN)
        sigaction(SIGHUP, &action, NULL);
}

static size_t slab_bytes(const struct trainer *t)
{
    return t->model->param_floats * sizeof(float);
}

static size_t rope_bytes(const struct trainer *t)
{
    return (size_t)t->model->arch.context * (size_t)t->model->arch.head_dim * sizeof(float);
}

static int64_t rows(const struct trainer *t)
{
    return (int64_t)t->model->batch * t->model->sequence;
}

static int64_t tokens_done(const struct trainer *t)
{
    return t->samples * t->model->sequence;
}

static double elapsed(const struct trainer *t)
{
    return t->seconds_before + clock_seconds() - t->started;
}

static bool allocate(struct trainer *t, struct failure *f)
{
    size_t bytes = slab_bytes(t), n = (size_t)(rows(t) * t->plan.accumulate);
    if (!slab_alloc((void **)&t->params, bytes, "the parameters", f) ||
        !slab_alloc((void **)&t->grads, bytes, "the gradients", f) ||
        !slab_alloc((void **)&t->m, bytes, "the optimiser's first moments", f) ||
        !slab_alloc((void **)&t->v, bytes, "the optimiser's second moments", f) ||
        !slab_alloc(&t->work, t->model->work_bytes, "the activations", f) ||
        !slab_alloc(&t->rope, rope_bytes(t), "the table of rotations", f) ||
        !slab_alloc((void **)&t->token, n * sizeof *t->token, "the tokens of a step", f) ||
        !slab_alloc((void **)&t->target, n * sizeof *t->target, "the targets of a step", f) ||
        !slab_alloc((void **)&t->loss, n * sizeof *t->loss, "the losses of a step", f))
        return false;
    rope_table(&t->model->arch, t->rope);
    evaluator_open(&t->evaluator, t->model, t->params, t->work, t->rope);
    return true;
}

static void release(struct trainer *t)
{
    size_t bytes = slab_bytes(t), n = (size_t)(rows(t) * t->plan.accumulate);
    slab_free(t->params, bytes);
    slab_free(t->grads, bytes);
    slab_free(t->m, bytes);
    slab_free(t->v, bytes);
    slab_free(t->work, t->model->work_bytes);
    slab_free(t->rope, rope_bytes(t));
    slab_free(t->token, n * sizeof *t->token);
    slab_free(t->target, n * sizeof *t->target);
    slab_free(t->loss, n * sizeof *t->loss);
    evaluator_close(&t->evaluator);
    data_close(&t->data);
    data_close(&t->val);
    free(t->plan.data.at);
    free(t->plan.val.at);
}

/* ---- data: what is trained on and what is held out ----------------------------------------------
 */

static void hold_out(struct trainer *t)
{
    uint64_t all = t->data.tokens, least = (uint64_t)t->model->sequence + 1;
    t->windows = (struct windows){0, all, t->model->sequence, (uint64_t)t->plan.seed};
    t->held_out = (struct stretch){0, 0, t->model->sequence, t->model->sequence};
    if (t->plan.val.n > 0) {
        t->held_out.tokens = t->val.tokens;
        return;
    }
    uint64_t tail = (uint64_t)(t->plan.val_fraction * (double)all);
    if (tail < 2 || all - tail < least)
        return;
    t->held_out.begin = t->windows.tokens = all - tail;
    t->held_out.tokens = tail;
}

static bool open_data(struct trainer *t, struct failure *f)
{
    const struct plan *p = &t->plan;
    if (!data_open(&t->data, &p->data, t->model, p->tokenizer, f) ||
        (p->val.n > 0 && !data_open(&t->val, &p->val, t->model, p->tokenizer, f)))
        return false;
    hold_out(t);
    if (windows_per_epoch(&t->windows) == 0)
        return failed(f, STATUS_INPUT,
                      "the data has %llu tokens; one sample takes %d: give more data, or compile a "
                      "shorter sequence",
                      (unsigned long long)t->windows.tokens, t->model->sequence + 1);
    return data_fingerprint(&t->data, &t->fingerprint, f);
}

/* ---- checkpoints
 * --------------------------------------------------------------------------------- */

static json_t *make_state(struct trainer *t)
{
    char print[24], by[sizeof t->trained_by];
    snprintf(print, sizeof print, "%016llx", (unsigned long long)t->fingerprint);
    device_trains_by(by, sizeof by);
    return json_pack("{sisssIsIsIsfsisisisss{sIssssss}so}", "format", 1, "model",
                     t->model->arch.name, "step", (json_int_t)t->step, "samples",
                     (json_int_t)t->samples, "tokens", (json_int_t)tokens_done(t), "seconds",
                     elapsed(t), "batch", t->model->batch, "sequence", t->model->sequence,
                     "threads", t->model->threads, "device", by, "data", "tokens",
                     (json_int_t)t->windows.tokens, "fingerprint", print, "tokenizer",
                     t->data.tokenizer.name ? t->data.tokenizer.name : "shards", "held_out",
                     t->plan.val.n > 0 ? "files" : "tail", "plan", plan_state(&t->plan));
}

static bool save(struct trainer *t, struct failure *f)
{
    double before = clock_seconds();
    json_t *state = make_state(t);
    struct checkpoint c = {t->step, t->params, t->m, t->v, state};
    report_sync(&t->report);
    bool good = (!device_in_use() || device_train_fetch(t->params, t->m, t->v, f)) &&
                checkpoint_save(t->plan.out, t->model, &c, (int)t->plan.keep, f);
    json_decref(state);
    if (good)
        t->saved_step = t->step;
    t->save_failed = !good;
    t->report.paused += clock_seconds() - before;
    return good;
}

static int64_t state_int(json_t *state, const char *key)
{
    json_t *j = json_object_get(state, key);
    return json_is_integer(j) && json_integer_value(j) >= 0 ? json_integer_value(j) : -1;
}

static bool check_state(const struct trainer *t, json_t *state, struct failure *f)
{
    const char *out = t->plan.out;
    const struct {
        const char *key;
        int ours;
    } fixed[] = {{"batch", t->model->batch}, {"sequence", t->model->sequence}};
    if (state_int(state, "format") != 1 || state_int(state, "step") < 0 ||
        state_int(state, "samples") < 0 || !json_is_number(json_object_get(state, "seconds")))
        return failed(
            f, STATUS_INPUT,
            "the train_state.json in %s is damaged or of another version: start over from "
            "its weights with --weights %s and another --out",
            out, out);
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        if (state_int(state, fixed[i].key) != fixed[i].ours)
            return failed(f, STATUS_INPUT,
                          "%s was trained with %s %lld; this program has %d: compile the spec it "
                          "began with, or start anew with --weights %s and another --out",
                          out, fixed[i].key, (long long)state_int(state, fixed[i].key),
                          fixed[i].ours, out);
    if (state_int(state, "threads") != t->model->threads && !device_in_use())
        notice(
            "%s was trained with %lld threads, this program has %d: the run goes on, but not bit "
            "for bit",
            out, (long long)state_int(state, "threads"), t->model->threads);
    return true;
}

static bool check_data(const struct trainer *t, json_t *state, struct failure *f)
{
    char print[24];
    json_t *data = json_object_get(state, "data");
    const char *theirs = json_string_value(json_object_get(data, "fingerprint"));
    snprintf(print, sizeof print, "%016llx", (unsigned long long)t->fingerprint);
    if (theirs && strcmp(theirs, print) == 0 &&
        state_int(data, "tokens") == (int64_t)t->windows.tokens)
        return true;
    return failed(
        f, STATUS_INPUT,
        "%s was trained on other data (%lld tokens; given: %llu): give the same --data and "
        "--val, or start anew with --weights %s and another --out",
        t->plan.out, (long long)state_int(data, "tokens"), (unsigned long long)t->windows.tokens,
        t->plan.out);
}

/* ---- start
 * --------------------------------------------------------------------------------------- */

static bool load_checkpoint(struct trainer *t, json_t *state, struct failure *f)
{
    struct checkpoint c = {0, t->params, t->m, t->v, NULL};
    if (!checkpoint_load(t->plan.out, t->model, &c, f))
        return false;
    t->step = t->saved_step = state_int(state, "step");
    t->samples = state_int(state, "samples");
    t->seconds_before = json_number_value(json_object_get(state, "seconds"));
    const char *by = json_string_value(json_object_get(state, "device"));
    snprintf(t->trained_by, sizeof t->trained_by, "%s", by ? by : "");
    return true;
}

/* A device, a driver or a library adds up in an order of its own. */
static void note_device(const struct trainer *t)
{
    char now[sizeof t->trained_by];
    device_trains_by(now, sizeof now);
    if (t->trained_by[0] && strcmp(t->trained_by, now) != 0)
        notice("%s was trained on: %s; now: %s: the run goes on, but not bit for bit", t->plan.out,
               t->trained_by, now);
}

static bool set_up(struct trainer *t, json_t *state, struct failure *f)
{
    if (state && (!plan_resume(&t->plan, state, f) || !check_state(t, state, f)))
        return false;
    if (!plan_settle(&t->plan, t->model, f) || !open_data(t, f) ||
        (state && !check_data(t, state, f)) || !allocate(t, f))
        return false;
    if (state)
        return load_checkpoint(t, state, f);
    if (t->plan.weights)
        return weights_read(t->plan.weights, t->model, t->params, f);
    params_init(t->model, t->params, (uint64_t)t->plan.seed);
    return true;
}

static bool refuse_existing(const char *out, struct failure *f)
{
    return failed(f, STATUS_INPUT,
                  "%s holds a training run: --resume goes on with it, another --out starts over",
                  out);
}

/* A new OUT is made only after everything else was found in order. */
static bool start(struct trainer *t, struct failure *f)
{
    const char *out = t->plan.out;
    json_t *state = NULL;
    bool exists = checkpoint_exists(out);
    t->saved_step = -1;
    if (exists && !t->plan.resume)
        return refuse_existing(out, f);
    if (exists && (!checkpoint_prepare(out, f) || !(state = checkpoint_state(out, f))))
        return false;
    bool good = set_up(t, state, f);
    json_decref(state);
    if (good && !exists)
        good = checkpoint_prepare(out, f) && (!checkpoint_exists(out) || refuse_existing(out, f));
    return good && report_open(&t->report, &t->plan, t->model, t->step, tokens_done(t), f);
}

static void introduce(struct trainer *t)
{
    char a[32], b[32], c[32], d[32];
    const struct archrt_model *m = t->model;
    size_t memory = 4 * slab_bytes(t) + m->work_bytes;
    report_say(&t->report, "%s: %s parameters, %s of memory, %s", m->arch.name,
               show_count(a, (double)m->total_params), show_bytes(b, (double)memory), m->options);
    report_say(&t->report, "data: %s tokens to train on, %s held out (%s)",
               show_count(a, (double)t->windows.tokens), show_count(b, (double)t->held_out.tokens),
               t->plan.val.n > 0         ? "--val"
               : t->held_out.tokens == 0 ? "too little data or --val-fraction 0"
                                         : "the tail of the data");
    report_say(&t->report, "steps of %s tokens, %s%s%s",
               show_count(c, (double)(rows(t) * t->plan.accumulate)),
               t->plan.steps > 0 ? show_count(d, (double)t->plan.steps) : "",
               t->plan.steps > 0 ? " of them" : "as many as fit in ",
               t->plan.steps > 0 ? "" : show_time(d, t->plan.seconds));
    if (t->step > 0)
        report_say(&t->report, "resumed at step %lld", (long long)t->step);
    else if (t->plan.resume)
        report_say(&t->report, "nothing to resume in %s: starting", t->plan.out);
}

/* ---- a step
 * -------------------------------------------------------------------------------------- */

struct step_job {
    struct trainer *t;
    struct archrt_adamw adamw;
    double norm;
};

/* All threads see the same norm, so all of them skip a step that would spoil the parameters. */
static void step_work(void *arg, int tid)
{
    struct step_job *j = arg;
    struct trainer *t = j->t;
    const struct archrt_model *m = t->model;
    int64_t n = rows(t);
    for (int64_t i = 0; i < t->plan.accumulate; i++) {
        struct archrt_train call = {.params = t->params,
                                    .grads = t->grads,
                                    .work = t->work,
                                    .token = t->token + i * n,
                                    .target = t->target + i * n,
                                    .grad_scale = 1.0f / (float)(n * t->plan.accumulate),
                                    .loss = t->loss + i * n,
                                    .rope = t->rope};
        m->train(&call, tid);
        team_barrier(tid);
    }
    double norm = sqrt(m->sum_squares(t->grads, tid));
    if (tid == 0)
        j->norm = norm;
    if (!isfinite(norm))
        return;
    struct archrt_adamw adamw = j->adamw;
    if (t->plan.clip > 0 && norm > t->plan.clip)
        adamw.grad_scale = (float)(t->plan.clip / norm);
    m->adamw(&adamw, tid);
}

static bool fill_step(struct trainer *t, struct failure *f)
{
    size_t T = (size_t)t->model->sequence;
    int64_t n = t->plan.accumulate * t->model->batch;
    for (int64_t i = 0; i < n; i++) {
        uint64_t at = window_start(&t->windows, (uint64_t)(t->samples + i));
        if (!data_read(&t->data, at, T, t->token + (size_t)i * T, f) ||
            !data_read(&t->data, at + 1, T, t->target + (size_t)i * T, f))
            return false;
    }
    return true;
}

static struct archrt_adamw adamw_of(const struct trainer *t, double lr)
{
    const struct plan *p = &t->plan;
    double n = (double)(t->step + 1);
    return (struct archrt_adamw){.params = t->params,
                                 .grads = t->grads,
                                 .m = t->m,
                                 .v = t->v,
                                 .lr = (float)lr,
                                 .beta1 = (float)p->beta1,
                                 .beta2 = (float)p->beta2,
                                 .eps = (float)p->eps,
                                 .weight_decay = (float)p->decay,
                                 .grad_scale = 1,
                                 .correction1 = (float)(1 - pow(p->beta1, n)),
                                 .correction2 = (float)(1 - pow(p->beta2, n))};
}

/* The step on a device, where parameters, moments and gradients stay. */
static bool step_on_device(struct step_job *j, struct failure *f)
{
    struct trainer *t = j->t;
    const struct archrt_adamw *a = &j->adamw;
    struct device_step step = {.token = t->token,
                               .target = t->target,
                               .loss = t->loss,
                               .micro_batches = (int)t->plan.accumulate,
                               .train = {.grad_scale = 1.0f / (float)(rows(t) * t->plan.accumulate),
                                         .lr = a->lr,
                                         .beta1 = a->beta1,
                                         .beta2 = a->beta2,
                                         .eps = a->eps,
                                         .weight_decay = a->weight_decay,
                                         .correction1 = a->correction1,
                                         .correction2 = a->correction2,
                                         .clip = (float)t->plan.clip}};
    return device_train_step(&step, &j->norm, f);
}

static bool not_finite(const struct trainer *t, const char *what, struct failure *f)
{
    const char *advice = "try a lower --lr or a longer --warmup";
    if (t->saved_step < 0)
        return failed(f, STATUS_INPUT, "the %s of step %lld is not finite: %s", what,
                      (long long)t->step + 1, advice);
    return failed(f, STATUS_INPUT,
                  "the %s of step %lld is not finite: --resume goes on from step %lld; %s", what,
                  (long long)t->step + 1, (long long)t->saved_step, advice);
}

static bool one_step(struct trainer *t, struct step_facts *s, struct failure *f)
{
    double lr = plan_lr(&t->plan, t->step, elapsed(t));
    if (!fill_step(t, f))
        return false;
    struct step_job job = {t, adamw_of(t, lr), 0};
    if (!device_in_use())
        team_run(step_work, &job);
    else if (!step_on_device(&job, f))
        return false;
    double nats = 0;
    int64_t n = rows(t) * t->plan.accumulate;
    for (int64_t i = 0; i < n; i++)
        nats += (double)t->loss[i];
    if (!isfinite(nats) || !isfinite(job.norm))
        return not_finite(t, isfinite(nats) ? "gradient" : "loss", f);
    t->step++;
    t->samples += t->plan.accumulate * t->model->batch;
    *s = (struct step_facts){.step = t->step,
                             .tokens = tokens_done(t),
                             .loss = nats / (double)n,
                             .lr = lr,
                             .grad_norm = job.norm,
                             .seconds = elapsed(t),
                             .val_loss = NAN,
                             .val_bits = NAN};
    return true;
}

/* ---- the run
 * ------------------------------------------------------------------------------------- */

static bool validate(struct trainer *t, int64_t batches, struct step_facts *s, struct failure *f)
{
    struct loss_sum sum;
    double before = clock_seconds();
    if (t->held_out.tokens < 2)
        return true;
    if (!evaluate(&t->evaluator, t->plan.val.n > 0 ? &t->val : &t->data, &t->held_out,
                  (uint64_t)(batches * t->model->batch), &sum, f))
        return false;
    s->val_loss = loss_mean(&sum);
    s->val_bits = loss_bits_per_byte(&sum);
    t->report.paused += clock_seconds() - before;
    return true;
}

static bool finished(const struct trainer *t)
{
    return (t->plan.steps > 0 && t->step >= t->plan.steps) ||
           (t->plan.seconds > 0 && elapsed(t) >= t->plan.seconds);
}

static bool due(int64_t step, int64_t every)
{
    return every > 0 && step % every == 0;
}

/* A checkpoint that cannot be written in mid-run is no reason to lose the run: the disk may have
 * room again at the next one. */
static void save_or_warn(struct trainer *t)
{
    struct failure f;
    if (!save(t, &f))
        notice("no checkpoint of step %lld: %s; training goes on and tries again",
               (long long)t->step, f.text);
}

/* The last validation is a larger one, but must not outlast a time limit by more than a twentieth;
 * a forward pass takes less than half of a training step. */
static int64_t last_batches(const struct trainer *t)
{
    int64_t most = 4 * t->plan.eval_batches;
    int64_t passes = (t->step - t->report.first_step) * t->plan.accumulate;
    if (!(t->plan.seconds > 0) || passes == 0)
        return most;
    double each = (clock_seconds() - t->started - t->report.paused) / (double)passes / 2;
    double fit = 0.05 * t->plan.seconds / each;
    return fit < 1 ? 1 : fit < (double)most ? (int64_t)fit : most;
}

static bool loop(struct trainer *t, struct failure *f)
{
    for (bool last = finished(t); !last && !interrupted;) {
        struct step_facts s;
        if (!one_step(t, &s, f))
            return false;
        last = finished(t);
        if (last || due(t->step, t->plan.eval_every))
            if (!validate(t, last ? last_batches(t) : t->plan.eval_batches, &s, f))
                return false;
        report_step(&t->report, &t->plan, &s);
        if (due(t->step, t->plan.save_every) && !last && !interrupted)
            save_or_warn(t);
    }
    return true;
}

static void conclude(struct trainer *t)
{
    char time[32];
    const struct report *r = &t->report;
    if (!isnan(r->val_bits))
        report_say(&t->report, "held out: %.4f bits per byte, loss %.4f a token", r->val_bits,
                   r->val_loss);
    else if (!isnan(r->val_loss))
        report_say(&t->report, "held out: loss %.4f a token", r->val_loss);
    report_say(&t->report, "step %lld saved in %s/latest after %s", (long long)t->step, t->plan.out,
               show_time(time, elapsed(t)));
}

static int run(struct trainer *t)
{
    struct failure f;
    if (!start(t, &f))
        return failure_report(&f);
    if (device_in_use() && !device_train_begin(t->params, t->m, t->v, &f))
        return failure_report(&f);
    note_device(t);
    introduce(t);
    catch_signals();
    if (t->step > 0 && finished(t)) {
        report_say(&t->report, "already at its end: give more --steps, --tokens or --seconds");
        return STATUS_OK;
    }
    t->started = clock_seconds();
    bool good = loop(t, &f);
    report_break(&t->report);
    if (!good)
        return failure_report(&f);
    int stopped = interrupted; /* before the save, which a second signal may end */
    if (!save(t, &f))
        return failure_report(&f);
    conclude(t);
    if (!stopped)
        return t->report.metrics_failed ? STATUS_WORLD : STATUS_OK;
    notice("interrupted after step %lld: saved; --resume goes on from there", (long long)t->step);
    return STATUS_INTERRUPTED;
}

int cmd_train(int argc, char **argv)
{
    static struct trainer t;
    struct failure f;
    t = (struct trainer){.model = the_model, .started = clock_seconds()};
    t.report.metrics = -1;
    switch (plan_read(&t.plan, t.model, argc, argv, &f)) {
    case OPTIONS_HELP:
        return STATUS_OK;
    case OPTIONS_WRONG:
        return failure_report(&f);
    default:
        break;
    }
    int status = run(&t);
    report_close(&t.report);
    release(&t);
    return status;
}

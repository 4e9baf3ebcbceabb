/* train_plan.c - how a run is to go: options, what a checkpoint remembers of them, the learning
 * rate. */
#include <math.h>
#include <string.h>

#include "train.h"

static const char summary[] =
    "Trains this model. Data: plain text, JSONL (an object with \"text\" a line), either as .gz or "
    ".zst,\nor token shards. Numbers take K, M, B. SIGINT, SIGTERM and SIGHUP save a checkpoint "
    "and end the "
    "run with\nstatus 130; --resume goes on bit for bit, except under --seconds, where the "
    "learning "
    "rate follows\nthe clock.";

/* Whole and real numbers of this table are what a checkpoint remembers. */
static void plan_table(struct plan *p, struct option out[PLAN_OPTIONS])
{
    const double most = 9e15;
    const struct option table[] = {
        {"data", "FILE..", OPTION_TEXTS, &p->data, 0, 0, 0, "what to train on"},
        {"val", "FILE..", OPTION_TEXTS, &p->val, 0, 0, 0,
         "validation data; else the tail of --data"},
        {"val-fraction", "X", OPTION_REAL, &p->val_fraction, 0, 0, 0.5,
         "of the data held out at its end (0.05)"},
        {"tokenizer", "T", OPTION_TEXT, &p->tokenizer, 0, 0, 0, "tokenizer.json (bytes)"},
        {"steps", "N", OPTION_INT, &p->steps, 0, 1, most, "optimiser steps"},
        {"tokens", "N", OPTION_INT, &p->tokens, 0, 1, most, "or tokens (the spec's)"},
        {"seconds", "X", OPTION_REAL, &p->seconds, 0, 0.001, 1e9, "or seconds, all in all"},
        {"out", "DIR", OPTION_TEXT, &p->out, 0, 0, 0, "checkpoints and metrics.jsonl (run)"},
        {"resume", NULL, OPTION_FLAG, &p->resume, 0, 0, 0,
         "go on from DIR/latest; from the start if there is none"},
        {"weights", "DIR", OPTION_TEXT, &p->weights, 0, 0, 0,
         "start from these instead of random ones"},
        {"lr", "X", OPTION_REAL, &p->lr, 0, 0, 10, "peak learning rate (the spec's)"},
        {"warmup", "N", OPTION_REAL, &p->warmup, 0, 0, most,
         "steps to reach it (the spec's, at most a tenth)"},
        {"final-lr", "X", OPTION_REAL, &p->final_lr, 0, 0, 1, "fraction left at the end (0.1)"},
        {"decay", "X", OPTION_REAL, &p->decay, 0, 0, 10, "weight decay (the spec's)"},
        {"clip", "X", OPTION_REAL, &p->clip, 0, 0, 1e9,
         "largest global gradient norm; 0: none (the spec's)"},
        {"beta1", "X", OPTION_REAL, &p->beta1, 0, 0, 0.99999, "of AdamW (the spec's)"},
        {"beta2", "X", OPTION_REAL, &p->beta2, 0, 0, 0.99999999, "of AdamW (the spec's)"},
        {"eps", "X", OPTION_REAL, &p->eps, 0, 0, 1, "of AdamW (the spec's)"},
        {"accumulate", "N", OPTION_INT, &p->accumulate, 0, 1, 65536,
         "micro-batches a step (the spec's)"},
        {"seed", "N", OPTION_INT, &p->seed, 0, 0, most, "of weights and data order (1)"},
        {"eval-every", "N", OPTION_INT, &p->eval_every, 0, 0, most,
         "steps between validations; 0: only at the end (200)"},
        {"eval-batches", "N", OPTION_INT, &p->eval_batches, 0, 1, most,
         "batches of a validation, spread evenly (16; four times as many at the end)"},
        {"save-every", "N", OPTION_INT, &p->save_every, 0, 0, most,
         "steps between checkpoints; 0: only at the end (500)"},
        {"keep", "N", OPTION_INT, &p->keep, 0, 1, 1e6, "checkpoints that stay (2)"},
        {"quiet", NULL, OPTION_FLAG, &p->quiet, 0, 0, 0, "no progress, only errors and notes"},
        {NULL, NULL, OPTION_FLAG, NULL, 0, 0, 0, NULL},
    };
    _Static_assert(sizeof table / sizeof *table <= PLAN_OPTIONS, "plan.given is too short");
    memcpy(out, table, sizeof table);
    for (int i = 0; out[i].name; i++)
        out[i].given = &p->given[i];
}

static bool is_given(struct plan *p, const void *value)
{
    struct option table[PLAN_OPTIONS];
    plan_table(p, table);
    for (int i = 0; table[i].name; i++)
        if (table[i].value == value)
            return p->given[i];
    return false;
}

enum options_result plan_read(struct plan *p, const struct archrt_model *m, int argc, char **argv,
                              struct failure *f)
{
    const struct archrt_hyper *h = &m->hyper;
    *p = (struct plan){.out = "run",
                       .val_fraction = 0.05,
                       .lr = h->lr,
                       .warmup = h->warmup,
                       .final_lr = 0.1,
                       .decay = h->weight_decay,
                       .clip = h->clip,
                       .beta1 = h->beta1,
                       .beta2 = h->beta2,
                       .eps = h->eps > 0 ? h->eps : 1e-8,
                       .accumulate = h->accumulate > 0 ? h->accumulate : 1,
                       .seed = 1,
                       .eval_every = 200,
                       .eval_batches = 16,
                       .save_every = 500,
                       .keep = 2};
    struct option table[PLAN_OPTIONS];
    plan_table(p, table);
    enum options_result result = options_read(table, summary, argc, argv, NULL, f);
    if (result != OPTIONS_READ)
        return result;
    if (p->data.n == 0)
        failed(f, STATUS_USAGE, "nothing to train on: give --data FILE..");
    else if (p->resume && p->weights)
        failed(f, STATUS_USAGE,
               "--resume and --weights exclude each other: a resumed run has its "
               "own weights");
    else if (is_given(p, &p->steps) && is_given(p, &p->tokens))
        failed(f, STATUS_USAGE, "--steps and --tokens exclude each other: give one");
    else
        return OPTIONS_READ;
    return OPTIONS_WRONG;
}

/* How long to train is one decision: one of its options on the command line replaces all three. */
static bool is_length(const struct plan *p, const struct option *o)
{
    return o->value == &p->steps || o->value == &p->tokens || o->value == &p->seconds;
}

static bool length_given(struct plan *p)
{
    return is_given(p, &p->steps) || is_given(p, &p->tokens) || is_given(p, &p->seconds);
}

bool plan_resume(struct plan *p, json_t *state, struct failure *f)
{
    struct option table[PLAN_OPTIONS];
    json_t *plan = json_object_get(state, "plan");
    bool length = length_given(p);
    plan_table(p, table);
    for (const struct option *o = table; o->name; o++) {
        json_t *j = json_object_get(plan, o->name);
        bool whole = o->kind == OPTION_INT;
        if ((!whole && o->kind != OPTION_REAL) || *o->given || (length && is_length(p, o)))
            continue;
        if (whole ? !json_is_integer(j) : !json_is_number(j))
            return failed(f, STATUS_INPUT,
                          "the train_state.json in %s lacks plan.%s: it was written by another "
                          "version or is damaged",
                          p->out, o->name);
        double x = json_number_value(j);
        if (!is_length(p, o) && !(x >= o->min && x <= o->max))
            return failed(f, STATUS_INPUT, "the train_state.json in %s says plan.%s = %g: damaged",
                          p->out, o->name, x);
        if (whole)
            *(int64_t *)o->value = json_integer_value(j);
        else
            *(double *)o->value = x;
    }
    return true;
}

json_t *plan_state(struct plan *p)
{
    struct option table[PLAN_OPTIONS];
    json_t *plan = json_object();
    plan_table(p, table);
    for (const struct option *o = table; o->name; o++) {
        if (o->kind == OPTION_INT)
            json_object_set_new(plan, o->name, json_integer(*(const int64_t *)o->value));
        else if (o->kind == OPTION_REAL)
            json_object_set_new(plan, o->name, json_real(*(const double *)o->value));
    }
    return plan;
}

bool plan_settle(struct plan *p, const struct archrt_model *m, struct failure *f)
{
    int64_t a_step = p->accumulate * m->batch * m->sequence;
    if (p->tokens == 0 && p->steps == 0 && p->seconds <= 0)
        p->tokens = m->hyper.tokens < 9e15 ? (int64_t)m->hyper.tokens : 0;
    if (p->tokens > 0)
        p->steps = (p->tokens + a_step - 1) / a_step;
    if (p->steps <= 0 && !(p->seconds > 0))
        return failed(f, STATUS_USAGE,
                      "nothing says how long to train: give --steps, --tokens or "
                      "--seconds");
    if (p->steps > 0 && !is_given(p, &p->warmup) && p->warmup > (double)p->steps / 10)
        p->warmup = (double)(p->steps / 10);
    if (p->lr <= 0)
        return failed(f, STATUS_USAGE, "the learning rate is %g: give --lr, 3e-4 for example",
                      p->lr);
    return true;
}

double plan_lr(const struct plan *p, int64_t done, double elapsed)
{
    double by_steps = p->steps > 0 ? (double)done / (double)p->steps : 0;
    double by_time = p->seconds > 0 ? elapsed / p->seconds : 0;
    double warm = p->warmup > 0 ? (double)(done + 1) / p->warmup : 1;
    if (warm < 20 * by_time)
        warm = 20 * by_time; /* a slow machine must not spend its minutes warming up */
    double start = p->steps > 0 ? p->warmup / (double)p->steps : 0;
    double at = by_steps > by_time ? by_steps : by_time;
    at = start < 1 ? (at - start) / (1 - start) : 0;
    at = at < 0 ? 0 : at > 1 ? 1 : at;
    double cosine = 0.5 * (1 + cos(3.14159265358979323846 * at));
    return p->lr * (warm < 1 ? warm : 1) * (p->final_lr + (1 - p->final_lr) * cosine);
}

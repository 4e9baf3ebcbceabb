/* train_cost.c - training: what a step takes and what it keeps, how much of a layer's forward pass
 * is made again in its backward pass so that it fits, and whether logits are written. */
#include "law.h"

#include <math.h>

/* ---- memory ---------------------------------------------------------------------------------- */

/* Elements of one row of an activation. */
double cost_value_width(const struct arch *a, enum value v)
{
    double dq = arch_dq(a), dkv = arch_dkv(a);
    switch (v) {
    case VALUE_X:
    case VALUE_NORM1:
    case VALUE_X1:
    case VALUE_NORM2:
    case VALUE_NORMF:
        return a->d_model;
    case VALUE_QKV:
    case VALUE_ROPE:
        return dq + 2 * dkv;
    case VALUE_ATT:
        return dq;
    case VALUE_GATE_UP:
        return 2.0 * a->d_ff;
    case VALUE_H:
        return a->d_ff;
    case VALUE_LOGITS:
        return a->vocab;
    case VALUE_NONE:
    case VALUE_TOKENS:
    case VALUE_COUNT:
        break;
    }
    return 0;
}

/* Rows whose logits exist at once: the head and the loss go through a micro-batch piece by piece.
 */
static double loss_rows(const struct device *d, double rows, const struct arch *a)
{
    if (device_is_cpu(d))
        return fmin(rows, fmax(64, (8 << 20) / (double)a->vocab));
    double most = fmin(4096, fmax(64, floor((512 << 20) / (double)a->vocab)));
    for (double pieces = ceil(rows / most); pieces < rows && pieces < 4096; pieces++)
        if (fmod(rows, pieces) == 0)
            return rows / pieces; /* all of one size */
    return fmin(rows, most);
}

/* Bytes of a row of a value: on a GPU the residual stream is fp32 whatever the others are. */
static double row_bytes(const struct workload *w, const struct arch *a, enum value v)
{
    bool wide = v == VALUE_X || v == VALUE_X1 || v == VALUE_LOGITS;
    return cost_value_width(a, v) * dtype_bytes(wide ? DTYPE_F32 : w->values);
}

/* Whether backward makes a value of a layer again. */
static bool remade(const struct op_list *forward, enum recompute level, enum value v)
{
    for (int i = 0; i < forward->n; i++)
        if (forward->ops[i].out == v && op_made_again(level, &forward->ops[i]))
            return true;
    return false;
}

/* Bytes of activations: what forward leaves for backward, and beside it at most what one of two
 * places wants for itself, a layer's gradients or what stands between the final norm and its. */
struct activations {
    double kept, layer; /* a row */
};

/* Kept values are there once a layer, those made again once. An operation of the backward list
 * reads a gradient (its first input) and what the forward pass kept (its second), and makes a
 * gradient: at most those of one operation exist, and the residual stream's, which has a narrow
 * copy where it is wider than the others. */
static struct activations layer_bytes(const struct workload *w, const struct arch *a,
                                      enum recompute level)
{
    struct op_list forward, backward;
    struct activations x = {0};
    ops_build(a, PHASE_TRAIN_FORWARD, w, &forward);
    ops_build(a, PHASE_TRAIN_BACKWARD, w, &backward);
    double copies[VALUE_COUNT] = {0}, gradients = 0, narrow = dtype_bytes(w->values);
    for (int i = 0; i < backward.n; i++) {
        const struct op *op = &backward.ops[i];
        if (op->section == SECTION_EXIT)
            continue;
        copies[op->in[1]] = fmax(copies[op->in[1]], op->times);
        gradients = fmax(gradients, cost_value_width(a, op->in[0]) + cost_value_width(a, op->out));
    }
    copies[VALUE_H] = 0; /* made again from gate and up */
    for (int v = VALUE_X; v < VALUE_LOGITS; v++) {
        double bytes = row_bytes(w, a, (enum value)v);
        if (copies[v] > 0 && remade(&forward, level, (enum value)v))
            x.layer += bytes;
        else
            x.kept += copies[v] * bytes;
    }
    x.layer += narrow * gradients;
    x.kept += row_bytes(w, a, VALUE_X); /* the stream's gradient */
    if (w->values != DTYPE_F32) {
        /* The stream behind the last layer; in scratch sums of attention's gradients, or pairs of
         * the head's loss. */
        x.kept += row_bytes(w, a, VALUE_X) + fmax(4.0 * arch_dq(a), 4 + 8 * a->vocab / 256.0);
        x.layer += narrow * a->d_model + row_bytes(w, a, VALUE_H);
    }
    return x;
}

/* A chunk's logits, which become their own gradient, or a piece's gradients and what makes them
 * again; the final norm's output, and with chunks its gradient. Narrow gradients lack a factor of
 * each row, which a chunk of the final norm's output has. */
static double head_bytes(const struct device *d, const struct workload *w, const struct arch *a,
                         double rows, enum logits form)
{
    double narrow = dtype_bytes(w->values);
    if (form == LOGITS_NEVER && !device_is_cpu(d))
        return rows * (narrow * ((double)ops_head_tokens(a->vocab) + a->d_model) + 8);
    double chunk = loss_rows(d, rows, a) * narrow, both = rows * 2 * narrow * a->d_model;
    return chunk * (double)a->vocab + both + (narrow < 4 ? chunk * a->d_model + 4 * rows : 0);
}

double cost_train_memory_at(const struct device *d, const struct train_spec *t,
                            const struct arch *a, enum recompute level, enum logits form)
{
    struct workload w = cost_training(d, t, a->context);
    double rows = (double)w.batch * w.tokens;
    double copies = w.values == DTYPE_F32 ? 0 : dtype_bytes(w.values); /* of parameters */
    struct activations x = layer_bytes(&w, a, level);
    return (16 + copies) * (double)arch_total_params(a) + rows * x.kept +
           fmax(rows * x.layer, head_bytes(d, &w, a, rows, form));
}

double cost_train_memory(const struct device *d, const struct train_spec *t, const struct arch *a)
{
    return cost_train_memory_at(d, t, a, cost_recompute(d, t, a), cost_logits(d, t, a));
}

/* ---- what is made again ---------------------------------------------------------------------- */

/* The rest is the driver's, the library's, and what an allocator cannot use. */
static const double usable_memory = 0.94;

/* What is made again, and whether logits are written. */
struct choice {
    enum recompute level;
    enum logits form;
};

/* Least work first: norms are read and written once more; then the head's product is made twice;
 * products of gate and up give as many bytes for their FLOPs as a whole layer does, but attention
 * comes with that. Where nothing fits: what takes least. */
static struct choice choose(const struct device *d, const struct train_spec *t,
                            const struct arch *a)
{
    static const struct choice by_work[] = {
        {RECOMPUTE_NONE, LOGITS_CHUNKS}, {RECOMPUTE_NORMS, LOGITS_CHUNKS},
        {RECOMPUTE_NONE, LOGITS_NEVER},  {RECOMPUTE_NORMS, LOGITS_NEVER},
        {RECOMPUTE_MLP, LOGITS_CHUNKS},  {RECOMPUTE_MLP, LOGITS_NEVER},
        {RECOMPUTE_ALL, LOGITS_CHUNKS},  {RECOMPUTE_ALL, LOGITS_NEVER}};
    enum { CHOICES = sizeof by_work / sizeof by_work[0] };
    struct choice best = {t->recompute, t->logits};
    bool unasked = device_is_cpu(d) || d->memory_bytes <= 0;
    double least = INFINITY;
    for (int i = 0; i < CHOICES; i++) {
        struct choice c = by_work[i];
        if ((t->recompute != RECOMPUTE_AUTO && c.level != t->recompute) ||
            (t->logits != LOGITS_AUTO && c.form != t->logits))
            continue;
        double bytes = cost_train_memory_at(d, t, a, c.level, c.form);
        if (unasked || bytes <= usable_memory * d->memory_bytes)
            return c;
        if (bytes < least) {
            least = bytes;
            best = c;
        }
    }
    return best;
}

enum recompute cost_recompute(const struct device *d, const struct train_spec *t,
                              const struct arch *a)
{
    return choose(d, t, a).level;
}

enum logits cost_logits(const struct device *d, const struct train_spec *t, const struct arch *a)
{
    return device_is_cpu(d) ? LOGITS_CHUNKS : choose(d, t, a).form;
}

/* ---- time ------------------------------------------------------------------------------------ */

/* What is made again of a forward list whose operations are priced. */
static struct price price_again(const struct op_list *l, const struct price each[],
                                enum recompute level)
{
    struct price sum = {0};
    for (int i = 0; i < l->n; i++)
        if (op_made_again(level, &l->ops[i]))
            price_add(&sum, &each[i]);
    sum.flops = 0; /* not the model's */
    return sum;
}

/* Forward and backward pass of a micro-batch. */
static struct price micro_batch(const struct device *d, const struct arch *a,
                                const struct workload *w, enum recompute level)
{
    struct op_list l;
    struct price each[MAX_OPS];
    ops_build(a, PHASE_TRAIN_FORWARD, w, &l);
    struct price sum = cost_each(d, &l, w, each), again = price_again(&l, each, level);
    sum.flops = ops_model_flops(&l);
    price_add(&sum, &again);
    ops_build(a, PHASE_TRAIN_BACKWARD, w, &l);
    struct price backward = cost_each(d, &l, w, NULL);
    backward.flops = ops_model_flops(&l);
    price_add(&sum, &backward);
    return sum;
}

struct price cost_train_step(const struct device *d, const struct train_spec *t,
                             const struct arch *a)
{
    struct workload w = cost_training(d, t, a->context);
    enum recompute level = cost_recompute(d, t, a);
    struct op_list l;
    w.no_logits = cost_logits(d, t, a) == LOGITS_NEVER;
    ops_build(a, PHASE_OPTIMISER, &w, &l);
    struct price sum = cost_each(d, &l, &w, NULL), first = micro_batch(d, a, &w, level);
    sum.flops = ops_model_flops(&l);
    price_add(&sum, &first);
    if (t->accumulate > 1) { /* others add to what the first has left */
        w.overwrites = false;
        struct price other = micro_batch(d, a, &w, level);
        other = price_times(&other, t->accumulate - 1);
        price_add(&sum, &other);
    }
    return sum;
}

double cost_train_rate(const struct device *d, const struct train_spec *t, const struct arch *a)
{
    struct workload w = cost_training(d, t, a->context);
    int accumulate = t->accumulate > 0 ? t->accumulate : 1;
    return (double)accumulate * w.batch * w.tokens / cost_train_step(d, t, a).seconds;
}

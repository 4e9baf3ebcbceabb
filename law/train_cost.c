/* train_cost.c - training: what a step takes and what it keeps, and how much of a layer's forward
 * pass is made again in its backward pass so that it fits. */
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
    double most = fmin(2048, fmax(64, floor((256 << 20) / (double)a->vocab)));
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

/* Bytes a row: an operation of the backward list reads a gradient (its first input) and what the
 * forward pass kept (its second), and makes a gradient. Kept values are there once a layer, those
 * made again once; of gradients, at most those of one operation and the residual stream's, which
 * has a narrow copy where it is wider than the others. */
static double activation_bytes(const struct workload *w, const struct arch *a, enum recompute level)
{
    struct op_list forward, backward;
    ops_build(a, PHASE_TRAIN_FORWARD, w, &forward);
    ops_build(a, PHASE_TRAIN_BACKWARD, w, &backward);
    double copies[VALUE_COUNT] = {0}, bytes = 0, gradients = 0, narrow = dtype_bytes(w->values);
    for (int i = 0; i < backward.n; i++) {
        const struct op *op = &backward.ops[i];
        copies[op->in[1]] = fmax(copies[op->in[1]], op->times);
        if (op->in[0] != VALUE_LOGITS)
            gradients =
                fmax(gradients, cost_value_width(a, op->in[0]) + cost_value_width(a, op->out));
    }
    copies[VALUE_H] = 0; /* made again from gate and up */
    for (int v = VALUE_X; v < VALUE_LOGITS; v++)
        if (copies[v] > 0)
            bytes += row_bytes(w, a, (enum value)v) *
                     (remade(&forward, level, (enum value)v) ? 1 : copies[v]);
    bytes += narrow * gradients + row_bytes(w, a, VALUE_X);
    if (w->values != DTYPE_F32)
        bytes += row_bytes(w, a, VALUE_X) + narrow * a->d_model + row_bytes(w, a, VALUE_H) +
                 4.0 * arch_dq(a); /* the last: sums of attention's gradients, in scratch */
    return bytes;
}

double cost_train_memory_at(const struct device *d, const struct train_spec *t,
                            const struct arch *a, enum recompute level)
{
    struct workload w = cost_training(d, t, a->context);
    bool narrow =
        w.values != DTYPE_F32; /* bf16 copies of parameters, and of the logits' gradient */
    double rows = (double)w.batch * w.tokens;
    double state = (16.0 + (narrow ? 2 : 0)) * (double)arch_total_params(a);
    return state + rows * activation_bytes(&w, a, level) +
           loss_rows(d, rows, a) * (double)a->vocab * (narrow ? 6 : 4);
}

double cost_train_memory(const struct device *d, const struct train_spec *t, const struct arch *a)
{
    return cost_train_memory_at(d, t, a, cost_recompute(d, t, a));
}

/* ---- what is made again ---------------------------------------------------------------------- */

/* The rest is the driver's, the library's, and what an allocator cannot use. */
static const double usable_memory = 0.94;

/* Least work first: norms are read and written once more, products of gate and up give as many
 * bytes for their FLOPs as a whole layer does, but attention comes with that. */
enum recompute cost_recompute(const struct device *d, const struct train_spec *t,
                              const struct arch *a)
{
    if (t->recompute != RECOMPUTE_AUTO)
        return t->recompute;
    if (device_is_cpu(d) || d->memory_bytes <= 0)
        return RECOMPUTE_NONE;
    enum recompute level = RECOMPUTE_NONE;
    while (level < RECOMPUTE_ALL &&
           cost_train_memory_at(d, t, a, level) > usable_memory * d->memory_bytes)
        level++;
    return level;
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

struct price cost_train_step(const struct device *d, const struct train_spec *t,
                             const struct arch *a)
{
    static const enum phase phases[] = {PHASE_TRAIN_FORWARD, PHASE_TRAIN_BACKWARD, PHASE_OPTIMISER};
    struct workload w = cost_training(d, t, a->context);
    enum recompute level = cost_recompute(d, t, a);
    struct price sum = {0};
    for (int i = 0; i < 3; i++) {
        struct op_list l;
        ops_build(a, phases[i], &w, &l);
        struct price each[MAX_OPS], one = cost_each(d, &l, &w, each);
        one.flops = ops_model_flops(&l);
        if (phases[i] == PHASE_TRAIN_FORWARD) {
            struct price again = price_again(&l, each, level);
            price_add(&one, &again);
        }
        int times = phases[i] != PHASE_OPTIMISER && t->accumulate > 0 ? t->accumulate : 1;
        for (int k = 0; k < times; k++)
            price_add(&sum, &one);
    }
    return sum;
}

double cost_train_rate(const struct device *d, const struct train_spec *t, const struct arch *a)
{
    struct workload w = cost_training(d, t, a->context);
    int accumulate = t->accumulate > 0 ? t->accumulate : 1;
    return (double)accumulate * w.batch * w.tokens / cost_train_step(d, t, a).seconds;
}

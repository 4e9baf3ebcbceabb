/* cost.c - what a list of operations takes on a device, and every metric that follows from it.
 *
 * An operation takes the longer of its arithmetic and its traffic, plus what it costs to start. How
 * far below the device's limits each kind of operation stays is price.c's. */
#include "law.h"

#include <math.h>
#include <string.h>

/* ---- one operation --------------------------------------------------------------------------- */

/* Elementwise work reaches this fraction of the fp32 peak (loads, exponentials, reductions): an
 * estimate, as are the rates below 1 of vector rows above. */
static const double vector_efficiency = 0.25;

/* A CPU widens packed weights on the fly: estimated cost of one weight in fused multiply-adds.
 * Every pass over the weights pays it once, and a pass takes at most `widen_rows` rows. */
static const double widen_cost[DTYPE_COUNT] = {[DTYPE_F32] = 0, [DTYPE_BF16] = 1, [DTYPE_I8] = 2};
static const double widen_rows = 512;

/* Products of two operand types run at the slower one's rate: narrow weights are widened. On a CPU
 * with a tile unit fp32 is three bf16 parts and bf16 weights are one: half the products for as many
 * tiles of x, which measured 1.6 times as fast. Decode, one row at a time, is the vector units'. */
double cost_matrix_peak(const struct device *d, enum phase phase, const struct workload *w)
{
    if (d->products > 0 && phase != PHASE_DECODE)
        return d->products * (w->weights == DTYPE_BF16 ? 1.6 : 1);
    double weights = d->flops[w->weights], values = d->flops[w->values];
    if (weights <= 0 || (values > 0 && values < weights))
        weights = values;
    return weights > 0 ? weights : d->flops[DTYPE_F32];
}

/* The rates that one phase sees. */
struct rates {
    double matrix, attention, vector; /* FLOP/s reached */
    double stored;                    /* bytes/s of weights and KV cache */
    double cache, memory;             /* bytes/s of activations, by whether they fit */
};

/* A working set that fits is read from cache; one four times as large never is; between the two the
 * part that stays resident falls linearly: shared caches protect part of what is read in turns
 * rather than lose all of it. Decoding 24 shapes was predicted within 7 % in the median so, within
 * 13 % where nothing was left at twice the size. */
static double streaming_rate(const struct device *d, double bytes)
{
    if (d->cache_bandwidth <= 0 || d->cache_bytes <= 0)
        return d->memory_bandwidth;
    double resident = fmin(1, fmax(0, (4 - bytes / d->cache_bytes) / 3));
    double slow = d->memory_bandwidth, fast = fmax(d->cache_bandwidth, slow);
    return 1 / (resident / fast + (1 - resident) / slow);
}

/* An efficiency that the device does not state is 1. */
static double fraction(double efficiency)
{
    return efficiency > 0 ? efficiency : 1;
}

static void rates_init(struct rates *r, const struct device *d, enum phase phase,
                       const struct workload *w, double stored_bytes)
{
    double matrix = cost_matrix_peak(d, phase, w);
    r->matrix = matrix * fraction(d->eff_matmul);
    r->attention = d->flops[w->values] > 0 ? d->flops[w->values] : matrix;
    r->attention *= fraction(d->eff_attention);
    r->vector = (d->flops[DTYPE_F32] > 0 ? d->flops[DTYPE_F32] : matrix) * vector_efficiency;
    double stream = fraction(d->eff_stream);
    r->stored = streaming_rate(d, stored_bytes) * stream;
    r->memory = d->memory_bandwidth * stream;
    r->cache = fmax(d->cache_bandwidth * stream, r->memory);
}

/* What one phase on one device has in common. */
struct pricer {
    const struct device *d;
    enum phase phase;
    const struct workload *w;
    struct rates r;
};

/* FLOPs of an operation, the widening of packed weights among them. */
static double arithmetic(const struct pricer *p, const struct op *op)
{
    bool tiles = p->d->products > 0 && p->phase != PHASE_DECODE; /* packing is in their rate */
    if (!device_is_cpu(p->d) || op->kind != OP_MATMUL || tiles)
        return op->flops;
    enum dtype weights = p->w->weights;
    return op->flops + 2 * widen_cost[weights] * (op->weight_bytes / dtype_bytes(weights)) *
                           ceil((double)op->m / widen_rows);
}

static double unit_rate(const struct rates *r, enum price_unit unit)
{
    return unit == UNIT_ATTENTION ? r->attention : unit == UNIT_VECTOR ? r->vector : r->matrix;
}

/* The device's limit, where `unit_rate` is what its best kernels reach of it. */
static double unit_peak(const struct pricer *p, enum price_unit unit)
{
    double matrix = cost_matrix_peak(p->d, p->phase, p->w), fp32 = p->d->flops[DTYPE_F32];
    return unit == UNIT_VECTOR && fp32 > 0 ? fp32 : matrix;
}

static struct price price_one(const struct pricer *p, const struct op *op)
{
    struct price_row row = price_row(p->d, p->phase, op);
    bool fused = row.fused >> p->phase & 1;
    double values = op->value_bytes * (fused ? row.residue : 1);
    bool fits = op->value_bytes <= p->d->cache_bytes * op->times;
    double stored = op->weight_bytes + op->kv_bytes;
    double traffic = stored / p->r.stored + values / (fits ? p->r.cache : p->r.memory);
    double start = (fused && device_is_cpu(p->d) ? 0 : row.passes) * row.exposed * p->d->launch;
    struct price out = {.bytes = stored + values, .floor = traffic};
    out.seconds = traffic / row.stream + op->times * start;
    if (fused)
        return out;
    double flops = arithmetic(p, op);
    out.flops = op->flops;
    out.floor = fmax(traffic, flops / unit_peak(p, row.unit));
    out.seconds = fmax(traffic / row.stream, flops / (unit_rate(&p->r, row.unit) * row.rate)) +
                  op->times * start;
    return out;
}

static void pricer_init(struct pricer *p, const struct device *d, enum phase phase,
                        const struct workload *w, double stored_bytes)
{
    *p = (struct pricer){.d = d, .phase = phase, .w = w};
    rates_init(&p->r, d, phase, w, stored_bytes);
}

double cost_op(const struct device *d, enum phase phase, const struct op *op,
               const struct workload *w)
{
    struct pricer p;
    pricer_init(&p, d, phase, w, op->weight_bytes + op->kv_bytes);
    return price_one(&p, op).seconds;
}

void price_add(struct price *sum, const struct price *more)
{
    sum->flops += more->flops;
    sum->bytes += more->bytes;
    sum->floor += more->floor;
    sum->seconds += more->seconds;
}

struct price price_times(const struct price *x, double factor)
{
    return (struct price){x->flops * factor, x->bytes * factor, x->floor * factor,
                          x->seconds * factor};
}

struct price cost_each(const struct device *d, const struct op_list *l, const struct workload *w,
                       struct price each[])
{
    double stored = 0;
    for (int i = 0; i < l->n; i++)
        stored += l->ops[i].weight_bytes + l->ops[i].kv_bytes;
    struct pricer p;
    pricer_init(&p, d, l->phase, w, stored);
    struct price sum = {0};
    for (int i = 0; i < l->n; i++) {
        struct price one = price_one(&p, &l->ops[i]);
        price_add(&sum, &one);
        if (each)
            each[i] = one;
    }
    return sum;
}

double cost_list(const struct device *d, const struct op_list *l, const struct workload *w)
{
    return cost_each(d, l, w, NULL).seconds;
}

/* ---- phases ---------------------------------------------------------------------------------- */

struct workload cost_serving(const struct device *d, const struct serve_spec *s)
{
    struct workload w = {.batch = s->batch > 0 ? s->batch : 1,
                         .tokens = s->prompt,
                         .weights = s->weights,
                         .kv = s->kv};
    w.values = device_is_cpu(d) || s->weights == DTYPE_F32 ? DTYPE_F32 : DTYPE_BF16;
    w.samples = !device_is_cpu(d);
    return w;
}

struct workload cost_training(const struct device *d, const struct train_spec *t, int context)
{
    int sequence = t->sequence > 0 ? t->sequence : context < 256 ? context : 256;
    struct workload w = {.batch = t->batch > 0 ? t->batch : 8, .tokens = sequence};
    bool bf16 = !device_is_cpu(d) && d->flops[DTYPE_BF16] > d->flops[DTYPE_F32];
    w.weights = w.values = w.kv = bf16 ? DTYPE_BF16 : DTYPE_F32;
    w.overwrites = !device_is_cpu(d);
    return w;
}

/* So many calls of a list, with or without what is made of the last rows alone. */
static struct price calls_price(const struct device *d, const struct arch *a,
                                const struct workload *w, double calls, bool exit)
{
    struct op_list l;
    struct price each[MAX_OPS], sum = {0};
    ops_build(a, PHASE_PREFILL, w, &l);
    cost_each(d, &l, w, each);
    for (int i = 0; i < l.n; i++)
        if (exit || l.ops[i].section != SECTION_EXIT)
            price_add(&sum, &each[i]);
    return price_times(&sum, calls);
}

/* What a call takes grows evenly with the tokens before it, since attention's arithmetic takes
 * longer than its cache: so all calls but the last cost what as many would in their midst. */
struct price cost_prompts(const struct device *d, const struct arch *a, const struct workload *w)
{
    if (device_is_cpu(d))
        return calls_price(d, a, w, 1, true);
    int full = w->tokens > 0 ? (w->tokens - 1) / GPU_PROMPT_ROWS : 0;
    struct workload call = *w;
    call.batch = 1;
    call.tokens = w->tokens - full * GPU_PROMPT_ROWS;
    call.past = w->past + full * GPU_PROMPT_ROWS;
    struct price sum = calls_price(d, a, &call, w->batch, true);
    if (full == 0)
        return sum;
    call.tokens = GPU_PROMPT_ROWS;
    call.past = w->past + (full - 1) * GPU_PROMPT_ROWS / 2.0;
    struct price before = calls_price(d, a, &call, (double)full * w->batch, false);
    price_add(&sum, &before);
    return sum;
}

static double decode_time(const struct device *d, const struct arch *a, struct workload w,
                          double past)
{
    struct op_list list;
    w.tokens = 1;
    w.past = past;
    ops_build(a, PHASE_DECODE, &w, &list);
    return cost_list(d, &list, &w);
}

/* Prefill, then decode integrated over the generated positions: two Gauss points, exact while the
 * cost of a step is a cubic of the position. The prompt's logits are the first token. */
static double throughput(const struct device *d, const struct serve_spec *s, const struct arch *a,
                         const struct workload *w, double ttft)
{
    double steps = s->generate - 1, middle = s->prompt + steps / 2, offset = steps / sqrt(12);
    double decode = 0;
    if (steps > 0)
        decode = steps * 0.5 *
                 (decode_time(d, a, *w, middle - offset) + decode_time(d, a, *w, middle + offset));
    return w->batch * (double)s->generate / (ttft + decode);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static double kv_bytes(const struct arch *a, enum dtype kv)
{
    return 2.0 * a->layers * arch_dkv(a) * dtype_bytes(kv);
}

/* Prompts are taken in pieces of this many rows, which bounds the activations. */
static double prefill_rows(const struct device *d)
{
    return device_is_cpu(d) ? 512 : GPU_PROMPT_ROWS;
}

static double serving_memory(const struct device *d, const struct serve_spec *s,
                             const struct arch *a)
{
    struct workload w = cost_serving(d, s);
    double rows = fmin(prefill_rows(d), (double)w.batch * fmax(1, s->prompt)), width = 0;
    for (int v = VALUE_X; v < VALUE_LOGITS; v++)
        width += cost_value_width(a, (enum value)v);
    double positions = (double)w.batch * (s->prompt + s->generate);
    return (double)arch_total_params(a) * dtype_bytes(s->weights) + positions * kv_bytes(a, s->kv) +
           rows * width * dtype_bytes(w.values) + 4.0 * w.batch * a->vocab;
}

/* ---- metrics --------------------------------------------------------------------------------- */

static const struct device *find_device(const struct spec *s, int i)
{
    return i >= 0 && i < s->n_devices && s->devices[i].memory_bandwidth > 0 ? &s->devices[i] : NULL;
}

void pricing_init(struct pricing *p, const struct spec *s, const struct model_spec *m)
{
    memset(p, 0, sizeof *p);
    p->model = m;
    p->pin = p->pin_params = p->pin_tokens = NAN;
    if (m->train.law >= 0 && m->train.law < s->n_laws) {
        p->law = &s->laws[m->train.law];
        p->chinchilla = law_chinchilla(s, p->law);
        p->is_observed = p->law->observe_model >= 0 && m == &s->models[p->law->observe_model];
    }
    p->serving = find_device(s, m->serve.device);
    p->training = m->train.device >= 0 ? find_device(s, m->train.device) : p->serving;
}

static double law_params(const struct law *base, double params, double total_params)
{
    return base->form == LAW_MORPH ? total_params : params;
}

static double d_per_layer(const struct arch *a)
{
    return (double)a->d_model / a->layers;
}

void pricing_pin(struct pricing *p, const struct arch *observed, double observed_tokens)
{
    if (!p->law)
        return;
    p->observed = *observed;
    p->pin_params = (double)arch_params(observed);
    if (p->chinchilla)
        p->pin_params =
            law_params(p->chinchilla, p->pin_params, (double)arch_total_params(observed));
    p->pin_tokens = observed_tokens;
    p->pin = law_l_opt(p->law, p->law->observe_loss, arch_width(observed), arch_r(observed),
                       d_per_layer(observed));
}

/* A pinned L_opt moves to other N and D by the ratio of the Chinchilla losses where the law has
 * coefficients and both token counts are known, and stays where it is otherwise. */
double pricing_l_opt(const struct pricing *p, double params, double total_params)
{
    const struct law *c = p->chinchilla;
    double tokens = p->model->train.tokens;
    if (!c)
        return p->pin;
    double n = law_params(c, params, total_params);
    if (isnan(p->pin))
        return law_base_loss(c, n, tokens);
    double there = law_base_loss(c, p->pin_params, p->pin_tokens);
    double here = law_base_loss(c, n, tokens);
    return isnan(there) || isnan(here) ? p->pin : p->pin * (here / there);
}

static double loss(const struct pricing *p, const struct arch *a)
{
    if (!p->law)
        return NAN;
    if (p->is_observed)
        return p->law->observe_loss;
    double params = (double)arch_params(a);
    double l_opt = pricing_l_opt(p, params, (double)arch_total_params(a));
    return law_loss(p->law, l_opt, arch_width(a), arch_r(a), d_per_layer(a));
}

static void serving_metrics(const struct pricing *p, const struct arch *a, unsigned wanted,
                            double metrics[METRIC_COUNT])
{
    const struct device *d = p->serving;
    const struct serve_spec *s = &p->model->serve;
    if (wanted & 1u << METRIC_MEMORY)
        metrics[METRIC_MEMORY] = d ? serving_memory(d, s, a) : NAN;
    if (!(wanted & (1u << METRIC_THROUGHPUT | 1u << METRIC_LATENCY | 1u << METRIC_TTFT)))
        return;
    double ttft = NAN, rate = NAN, latency = NAN;
    if (d) {
        struct workload w = cost_serving(d, s);
        ttft = cost_prompts(d, a, &w).seconds;
        if (wanted & 1u << METRIC_THROUGHPUT)
            rate = throughput(d, s, a, &w, ttft);
        if (wanted & 1u << METRIC_LATENCY)
            latency = decode_time(d, a, w, s->prompt + s->generate / 2.0);
    }
    if (wanted & 1u << METRIC_THROUGHPUT)
        metrics[METRIC_THROUGHPUT] = rate;
    if (wanted & 1u << METRIC_LATENCY)
        metrics[METRIC_LATENCY] = latency;
    if (wanted & 1u << METRIC_TTFT)
        metrics[METRIC_TTFT] = ttft;
}

static void training_metrics(const struct pricing *p, const struct arch *a, unsigned wanted,
                             double metrics[METRIC_COUNT])
{
    const struct device *d = p->training;
    const struct train_spec *t = &p->model->train;
    if (wanted & 1u << METRIC_TRAIN_TIME)
        metrics[METRIC_TRAIN_TIME] =
            d && !isnan(t->tokens) ? t->tokens / cost_train_rate(d, t, a) : NAN;
    if (wanted & 1u << METRIC_TRAIN_MEMORY)
        metrics[METRIC_TRAIN_MEMORY] = d ? cost_train_memory(d, t, a) : NAN;
}

void pricing_metrics(const struct pricing *p, const struct arch *a, unsigned wanted,
                     double metrics[METRIC_COUNT])
{
    if (wanted & 1u << METRIC_LOSS)
        metrics[METRIC_LOSS] = loss(p, a);
    if (wanted & 1u << METRIC_PARAMS)
        metrics[METRIC_PARAMS] = (double)arch_params(a);
    if (wanted & 1u << METRIC_TOTAL_PARAMS)
        metrics[METRIC_TOTAL_PARAMS] = (double)arch_total_params(a);
    if (wanted & 1u << METRIC_R)
        metrics[METRIC_R] = arch_r(a);
    if (wanted & 1u << METRIC_KV_BYTES)
        metrics[METRIC_KV_BYTES] = kv_bytes(a, p->model->serve.kv);
    serving_metrics(p, a, wanted, metrics);
    training_metrics(p, a, wanted, metrics);
}

/* plan_price.c - what a plan takes on a device: the prices of law/cost.c, put to the steps that do
 * the operations. No price is made here: the sum over the steps of a list is cost_list of it. */
#include "plan.h"

/* An operation list with the schedule that runs it. */
struct priced_list {
    enum schedule_id id;
    const struct op_list *list;
    const struct workload *load;
};

/* Calls of a step in its phase. */
static int calls(const struct plan *p, const struct step *s, enum schedule_id id)
{
    if (s->loop == LOOP_LAYERS || s->loop == LOOP_LAYERS_REVERSED)
        return p->arch->layers;
    if (s->loop == LOOP_VOCAB)
        return vocab_pieces(p);
    if (s->loop != LOOP_CHUNKS)
        return 1;
    return id == SCHEDULE_PREFILL ? (int)(p->extents[EXTENT_CHUNK] / p->extents[EXTENT_SCORE_ROWS])
                                  : (int)(p->extents[EXTENT_ROWS] / p->extents[EXTENT_LOSS_ROWS]);
}

static void price_kernel(struct plan *p, const struct step *s, enum schedule_id id,
                         const struct price *a_token)
{
    struct kernel *k = &p->kernels[s->kernel];
    if (k->seconds > 0)
        return; /* another step has the same instance */
    k->floor = s->price.floor / calls(p, s, id);
    k->seconds = s->price.seconds / calls(p, s, id);
    k->a_token = price_times(a_token, 1.0 / calls(p, s, id));
}

/* What one more cached token adds to each operation, over the whole context. */
static void price_a_token(const struct plan *p, const struct priced_list *x, struct price each[])
{
    bool cached = x->list->phase == PHASE_PREFILL || x->list->phase == PHASE_DECODE;
    double apart = p->arch->context - x->load->tokens;
    struct price at[2][MAX_OPS];
    struct workload w = *x->load;
    struct op_list l = *x->list;
    for (int i = 0; i < 2 && cached && apart > 0; i++) {
        w.past = i * apart;
        ops_build(p->arch, l.phase, &w, &l);
        cost_each(p->device, &l, &w, at[i]);
    }
    for (int i = 0; i < l.n; i++) {
        each[i] = (struct price){0};
        if (!cached || apart <= 0)
            continue;
        struct price less = price_times(&at[0][i], -1);
        price_add(&at[1][i], &less);
        each[i] = price_times(&at[1][i], 1 / apart);
    }
}

static void price_schedule(struct plan *p, const struct priced_list *x)
{
    struct price each[MAX_OPS], a_token[MAX_OPS];
    struct schedule *s = &p->schedules[x->id];
    const struct op *ops = x->list->ops;
    cost_each(p->device, x->list, x->load, each);
    price_a_token(p, x, a_token);
    s->past = x->load->past;
    for (int i = 0; i < s->n_steps; i++) {
        struct step *step = &s->steps[i];
        struct price before = step->price, more = {0};
        for (int k = 0; k < step->n_fused; k++)
            if (step->fused[k] >= ops && step->fused[k] < ops + x->list->n) {
                price_add(&step->price, &each[step->fused[k] - ops]);
                price_add(&more, &a_token[step->fused[k] - ops]);
            }
        if (step->price.bytes == before.bytes && step->price.flops == before.flops)
            continue; /* of another list */
        price_kernel(p, step, x->id, &more);
        if (step->when != WHEN_SCORED) {
            price_add(&s->price, &step->price);
            price_add(&s->a_token, &more);
        }
    }
}

/* A micro-batch whose gradients replace others, or are added to them. */
static struct price micro_batch(const struct plan *p, bool overwrites)
{
    struct price sum = {0};
    for (int phase = PHASE_TRAIN_FORWARD; phase <= PHASE_TRAIN_BACKWARD; phase++) {
        struct workload w = p->loads[phase];
        struct op_list l;
        w.overwrites = overwrites;
        ops_build(p->arch, (enum phase)phase, &w, &l);
        struct price pass = cost_each(p->device, &l, &w, NULL);
        price_add(&sum, &pass);
    }
    return sum;
}

static struct price price_adding(const struct plan *p)
{
    struct price first = micro_batch(p, p->loads[PHASE_TRAIN_BACKWARD].overwrites);
    struct price other = micro_batch(p, false);
    first = price_times(&first, -1);
    price_add(&other, &first);
    return other;
}

void plan_price(struct plan *p, const struct device *d)
{
    const struct priced_list lists[] = {
        {SCHEDULE_TRAIN, &p->lists[PHASE_TRAIN_FORWARD], &p->loads[PHASE_TRAIN_FORWARD]},
        {SCHEDULE_TRAIN, &p->lists[PHASE_TRAIN_BACKWARD], &p->loads[PHASE_TRAIN_BACKWARD]},
        {SCHEDULE_EVAL, &p->eval, &p->eval_load},
        {SCHEDULE_PREFILL, &p->lists[PHASE_PREFILL], &p->loads[PHASE_PREFILL]},
        {SCHEDULE_PREFILL, &p->score, &p->score_load},
        {SCHEDULE_DECODE, &p->lists[PHASE_DECODE], &p->loads[PHASE_DECODE]},
        {SCHEDULE_BATCH, &p->slots, &p->slots_load},
        {SCHEDULE_UPDATE, &p->lists[PHASE_OPTIMISER], &p->loads[PHASE_OPTIMISER]},
    };
    p->device = d;
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        price_schedule(p, &lists[i]);
    p->adding = price_adding(p);
}

double plan_train_seconds(const struct plan *p, int micro_batches)
{
    const struct schedule *s = p->schedules;
    return micro_batches * s[SCHEDULE_TRAIN].price.seconds +
           (micro_batches - 1) * p->adding.seconds + s[SCHEDULE_UPDATE].price.seconds;
}

double plan_train_mfu(const struct plan *p, int micro_batches)
{
    double flops = ops_model_flops(&p->lists[PHASE_TRAIN_FORWARD]) +
                   ops_model_flops(&p->lists[PHASE_TRAIN_BACKWARD]);
    double peak = cost_matrix_peak(p->device, PHASE_TRAIN_FORWARD, &p->loads[PHASE_TRAIN_FORWARD]);
    return micro_batches * flops / plan_train_seconds(p, micro_batches) / peak;
}

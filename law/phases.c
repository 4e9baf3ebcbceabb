/* phases.c - the phases of a shape on the devices that serve and train it, side by side: what
 * resolve and explain print below the metrics. */
#include "law.h"

#include <math.h>

static void add_phase(struct phase_prices *out, struct phase_price x)
{
    out->at[out->n++] = x;
}

static struct price price_decode(const struct device *d, const struct arch *a,
                                 const struct workload *w)
{
    struct op_list l;
    ops_build(a, PHASE_DECODE, w, &l);
    return cost_each(d, &l, w, NULL);
}

static void serving_phases(const struct pricing *p, const struct arch *a, struct phase_prices *out)
{
    const struct serve_spec *s = &p->model->serve;
    struct workload prompt = cost_serving(p->serving, s), decode = prompt;
    decode.tokens = 1;
    decode.past = s->prompt + s->generate / 2.0;
    const int batch = decode.batch, rows[] = {1, batch};
    for (int i = 0; i < (batch > 1 ? 2 : 1); i++) {
        decode.batch = rows[i];
        add_phase(out, (struct phase_price){.name = "decode",
                                            .device = p->serving->name,
                                            .sequences = rows[i],
                                            .behind = decode.past,
                                            .tokens = rows[i],
                                            .mfu = NAN,
                                            .price = price_decode(p->serving, a, &decode)});
    }
    add_phase(out, (struct phase_price){.name = "prefill",
                                        .device = p->serving->name,
                                        .sequences = batch,
                                        .tokens = (double)batch * s->prompt,
                                        .mfu = NAN,
                                        .price = cost_prompts(p->serving, a, &prompt)});
}

static void training_phase(const struct pricing *p, const struct arch *a, struct phase_prices *out)
{
    const struct train_spec *t = &p->model->train;
    struct phase_price x = {.name = "train", .device = p->training->name};
    struct workload w = cost_training(p->training, t, a->context);
    x.sequences = w.batch * (t->accumulate > 0 ? t->accumulate : 1);
    x.tokens = (double)x.sequences * w.tokens;
    x.price = cost_train_step(p->training, t, a);
    x.recompute = cost_recompute(p->training, t, a);
    x.logits = cost_logits(p->training, t, a);
    x.mfu =
        x.price.flops / x.price.seconds / cost_matrix_peak(p->training, PHASE_TRAIN_FORWARD, &w);
    add_phase(out, x);
}

void pricing_phases(const struct pricing *p, const struct arch *a, struct phase_prices *out)
{
    out->n = 0;
    if (p->serving)
        serving_phases(p, a, out);
    if (p->training)
        training_phase(p, a, out);
}

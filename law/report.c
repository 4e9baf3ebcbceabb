/* report.c - what `archc resolve` prints: a resolution as text and as JSON, or why there is none.
 */
#include "law.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* ---- numbers and shapes as text -------------------------------------------------------------- */

/* 964689920 -> "964,689,920" */
static char *grouped(char buffer[METRIC_TEXT], double value)
{
    char digits[METRIC_TEXT];
    int n = snprintf(digits, sizeof digits, "%.0f", value), at = 0;
    if (n < 0 || n > 30)
        return strcpy(buffer, "?");
    for (int i = 0; i < n; i++) {
        buffer[at++] = digits[i];
        if (digits[i] != '-' && i + 1 < n && (n - i - 1) % 3 == 0)
            buffer[at++] = ',';
    }
    buffer[at] = 0;
    return buffer;
}

static const char *scaled(char buffer[METRIC_TEXT], double value, const char *const units[],
                          double base)
{
    int u = 0;
    while (units[u + 1] && fabs(value) >= base) {
        value /= base;
        u++;
    }
    snprintf(buffer, METRIC_TEXT, "%.4g %s", value, units[u]);
    return buffer;
}

static const char *seconds_text(char buffer[METRIC_TEXT], double s)
{
    static const char *const small[] = {"us", "ms", "s", NULL};
    if (s < 120)
        return scaled(buffer, s * 1e6, small, 1000);
    if (s < 7200)
        snprintf(buffer, METRIC_TEXT, "%.1f minutes", s / 60);
    else if (s < 2 * 86400.0)
        snprintf(buffer, METRIC_TEXT, "%.1f hours", s / 3600);
    else
        snprintf(buffer, METRIC_TEXT, "%.1f days", s / 86400);
    return buffer;
}

const char *metric_text(char buffer[METRIC_TEXT], enum metric m, double value)
{
    static const char *const bytes[] = {"B", "kB", "MB", "GB", "TB", NULL};
    if (isnan(value))
        return strcpy(buffer, "unknown");
    switch (m) {
    case METRIC_LOSS:
        snprintf(buffer, METRIC_TEXT, "%.4f", value);
        return buffer;
    case METRIC_R:
        snprintf(buffer, METRIC_TEXT, "%.3f", value);
        return buffer;
    case METRIC_THROUGHPUT:
        if (value < 100)
            snprintf(buffer, METRIC_TEXT, "%.4g tok/s", value);
        else
            strcat(grouped(buffer, value), " tok/s");
        return buffer;
    case METRIC_LATENCY:
    case METRIC_TTFT:
    case METRIC_TRAIN_TIME:
        return seconds_text(buffer, value);
    case METRIC_MEMORY:
    case METRIC_TRAIN_MEMORY:
        return scaled(buffer, value, bytes, 1000);
    case METRIC_KV_BYTES:
        return strcat(grouped(buffer, value), " B/token");
    case METRIC_PARAMS:
    case METRIC_TOTAL_PARAMS:
        return grouped(buffer, value);
    case METRIC_COUNT:
        break;
    }
    return strcpy(buffer, "?");
}

const char *shape_text(char buffer[SHAPE_TEXT], const struct arch *a)
{
    snprintf(buffer, SHAPE_TEXT, "%d layers, d_model %d, %d/%d heads of %d (gqa %d), d_ff %d",
             a->layers, a->d_model, a->heads, a->kv_heads, a->head_dim, a->heads / a->kv_heads,
             a->d_ff);
    return buffer;
}

bool same_shape(const struct arch *a, const struct arch *b)
{
    return a->layers == b->layers && a->d_model == b->d_model && a->heads == b->heads &&
           a->kv_heads == b->kv_heads && a->head_dim == b->head_dim && a->d_ff == b->d_ff;
}

static void print_requirements(const struct resolution *r, FILE *out)
{
    if (r->n_requirements == 0)
        return;
    fprintf(out, "requirements\n");
    for (int i = 0; i < r->n_requirements; i++) {
        const struct requirement *q = &r->requirements[i];
        fprintf(out, "  %-4s %s", q->satisfied ? "met" : "NOT", q->goal->text);
        fprintf(out, "   (%.6g against %.6g, margin %.4g)\n", q->lhs, q->rhs, q->margin);
        if (!isnan(q->share))
            fprintf(out, "       holds under %.3g %% of the samples, margin %.4g..%.4g\n",
                    100 * q->share, q->margins.lo, q->margins.hi);
    }
}

/* ---- what the samples of the law say --------------------------------------------------------- */

const char *interval_text(char buffer[METRIC_TEXT], struct interval i, int decimals)
{
    if (isnan(i.lo) || isnan(i.hi))
        return strcpy(buffer, "unknown");
    snprintf(buffer, METRIC_TEXT, "%.*f..%.*f", decimals, i.lo, decimals, i.hi);
    return buffer;
}

static void print_sureness(const struct resolution *r, FILE *out)
{
    const struct sureness *s = r->sure;
    char text[METRIC_TEXT], shape[SHAPE_TEXT];
    if (!s)
        return;
    fprintf(out, "what %d samples of the law leave open, 5..95 %%\n", s->n);
    fprintf(out, "  %-13s %-22s of this shape\n", "loss", interval_text(text, s->loss, 4));
    for (int i = 0; i < KNOB_COUNT; i++)
        if (s->knobs[i].lo < s->knobs[i].hi)
            fprintf(out, "  %-13s %-22s of the shapes that the samples choose\n", knob_names[i],
                    interval_text(text, s->knobs[i], i == KNOB_R ? 3 : 0));
    fprintf(out, "  %.3g %% of the samples choose this shape\n", 100 * s->same);
    if (s->none > 0)
        fprintf(out, "  %.3g %% find no candidate\n", 100 * s->none);
    for (int i = 0; i < s->n_often && i < 3; i++)
        if (!same_shape(&s->often[i].candidate.arch, &r->best.arch))
            fprintf(out, "  %.3g %% choose %s\n", 100 * s->often[i].chosen,
                    shape_text(shape, &s->often[i].candidate.arch));
}

static void print_counts(const struct resolution *r, FILE *out)
{
    char n[METRIC_TEXT], m[METRIC_TEXT];
    fprintf(out, "search\n  %s candidate%s", grouped(n, (double)r->n_candidates),
            r->n_candidates == 1 ? "" : "s");
    if (r->n_requirements > 0)
        fprintf(out, ", %s feasible", grouped(m, (double)r->n_feasible));
    if (r->objective[0])
        fprintf(out, ", %s", r->objective);
    fprintf(out, "\n");
}

static void print_warnings(const struct resolution *r, FILE *out)
{
    for (int i = 0; i < r->n_warnings; i++)
        fprintf(out, "warning: %s\n", r->warnings[i]);
}

static void print_metrics(const struct resolution *r, FILE *out)
{
    static const struct {
        enum metric metric;
        const char *title;
    } rows[] = {
        {METRIC_LOSS, "loss, nats per token"},   {METRIC_THROUGHPUT, "throughput of the batch"},
        {METRIC_LATENCY, "one decode step"},     {METRIC_TTFT, "prefill of the batch"},
        {METRIC_MEMORY, "memory while serving"}, {METRIC_KV_BYTES, "KV cache"},
        {METRIC_TRAIN_TIME, "training time"},    {METRIC_TRAIN_MEMORY, "memory while training"},
    };
    char text[METRIC_TEXT];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        fprintf(out, "  %-13s %-14s %s\n", metric_names[rows[i].metric],
                metric_text(text, rows[i].metric, r->best.metrics[rows[i].metric]), rows[i].title);
}

/* Floor and expectation of each phase. */
static void print_phases(const struct resolution *r, FILE *out)
{
    struct phase_prices phases;
    char low[METRIC_TEXT], high[METRIC_TEXT];
    pricing_phases(&r->pricing, &r->best.arch, &phases);
    for (int i = 0; i < phases.n; i++) {
        const struct phase_price *x = &phases.at[i];
        fprintf(out, "  %-13s %-14s at least %s: %d sequence%s on %s", x->name,
                seconds_text(high, x->price.seconds), seconds_text(low, x->price.floor),
                x->sequences, x->sequences == 1 ? "" : "s", x->device);
        if (x->behind > 0)
            fprintf(out, ", behind %.0f tokens", x->behind);
        if (!isnan(x->mfu))
            fprintf(out, ", %.1f %% of the matrix peak", 100 * x->mfu);
        if (x->recompute > RECOMPUTE_NONE)
            fprintf(out, ", backward makes %s again", recompute_names[x->recompute]);
        if (x->logits == LOGITS_NEVER)
            fprintf(out, ", logits are never written");
        fputc('\n', out);
    }
}

static void print_pricing(const struct resolution *r, FILE *out)
{
    const struct pricing *p = &r->pricing;
    const struct serve_spec *s = &p->model->serve;
    if (p->law) {
        fprintf(out, "law %s", p->law->name);
        if (p->law->observe_model >= 0)
            fprintf(out, ", pinned by an observed loss of %.6g", p->law->observe_loss);
        else if (p->chinchilla && p->chinchilla != p->law)
            fprintf(out, ", L_opt from %s", p->chinchilla->name);
        fprintf(out, "\n");
    }
    if (p->serving)
        fprintf(out, "served on %s: batch %d, prompt %d, generate %d, %s weights, %s cache\n",
                p->serving->name, s->batch, s->prompt, s->generate, dtype_names[s->weights],
                dtype_names[s->kv]);
}

void resolution_print(const struct resolution *r, FILE *out)
{
    char text[SHAPE_TEXT], n[METRIC_TEXT], total[METRIC_TEXT];
    const struct arch *a = &r->best.arch;
    fprintf(out, "%s: %s\n", r->model->name, shape_text(text, a));
    fprintf(out, "  params        %-14s", grouped(n, (double)arch_params(a)));
    if (r->model->params > 0)
        fprintf(out, " %+.2f %% of %.4g asked for;",
                100 * ((double)arch_params(a) / r->model->params - 1), r->model->params);
    fprintf(out, " %s with embeddings\n", grouped(total, (double)arch_total_params(a)));
    fprintf(out, "  r             %-14.4f MLP / attention parameters\n", arch_r(a));
    fprintf(out, "  width         %-14.5f d_model / sqrt(params); dq %d\n", arch_width(a),
            arch_dq(a));
    print_metrics(r, out);
    print_phases(r, out);
    print_pricing(r, out);
    print_requirements(r, out);
    print_sureness(r, out);
    print_counts(r, out);
    print_warnings(r, out);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static void json_string(const char *s, FILE *out)
{
    fputc('"', out);
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\')
            fprintf(out, "\\%c", c);
        else if (c < 32 || c == 127)
            fprintf(out, "\\u%04x", c);
        else
            fputc(c, out);
    }
    fputc('"', out);
}

/* JSON has no NaN and no infinity. */
static void json_number(double v, FILE *out)
{
    if (!isfinite(v))
        fprintf(out, "null");
    else if (v == floor(v) && fabs(v) < 1e15)
        fprintf(out, "%.0f", v);
    else
        fprintf(out, "%.12g", v);
}

static void json_architecture(const struct arch *a, FILE *out)
{
    fprintf(out,
            "{\"layers\": %d, \"d_model\": %d, \"heads\": %d, \"kv_heads\": %d, \"head_dim\": %d, "
            "\"d_ff\": %d, \"vocab\": %d, \"tied\": %s, \"gqa\": %d, \"r\": ",
            a->layers, a->d_model, a->heads, a->kv_heads, a->head_dim, a->d_ff, a->vocab,
            a->tied ? "true" : "false", a->heads / a->kv_heads);
    json_number(arch_r(a), out);
    fprintf(out, ", \"params\": %" PRId64 ", \"total_params\": %" PRId64 "}", arch_params(a),
            arch_total_params(a));
}

static void json_metrics(const double metrics[METRIC_COUNT], FILE *out)
{
    static const enum metric listed[] = {METRIC_LOSS,       METRIC_THROUGHPUT,  METRIC_LATENCY,
                                         METRIC_TTFT,       METRIC_MEMORY,      METRIC_KV_BYTES,
                                         METRIC_TRAIN_TIME, METRIC_TRAIN_MEMORY};
    for (size_t i = 0; i < sizeof listed / sizeof *listed; i++) {
        fprintf(out, "%s\"%s\": ", i ? ", " : "{", metric_names[listed[i]]);
        json_number(metrics[listed[i]], out);
    }
    fprintf(out, "}");
}

static void json_interval(struct interval i, FILE *out)
{
    fprintf(out, "[");
    json_number(i.lo, out);
    fprintf(out, ", ");
    json_number(i.hi, out);
    fprintf(out, "]");
}

/* Keys that are there only where they say something. */
static void json_confidence(const struct requirement *q, FILE *out)
{
    if (q->goal->confidence > 0) {
        fprintf(out, ", \"confidence\": ");
        json_number(q->goal->confidence, out);
    }
    if (isnan(q->share))
        return;
    fprintf(out, ", \"share\": ");
    json_number(q->share, out);
    fprintf(out, ", \"margin_interval\": ");
    json_interval(q->margins, out);
}

static void json_rivals(const char *key, const struct rival *v, int n, FILE *out)
{
    fprintf(out, ",\n    \"%s\": [", key);
    for (int i = 0; i < n; i++) {
        fprintf(out, "%s\n      {\"architecture\": ", i ? "," : "");
        json_architecture(&v[i].candidate.arch, out);
        fprintf(out, ", \"chosen_by\": ");
        json_number(v[i].chosen, out);
        fprintf(out, ", \"wins\": ");
        json_number(v[i].wins, out);
        fprintf(out, ", \"loss_difference\": ");
        json_interval(v[i].difference, out);
        fprintf(out, "}");
    }
    fprintf(out, "%s]", n ? "\n    " : "");
}

static void json_sureness(const struct sureness *s, FILE *out)
{
    fprintf(out,
            ",\n  \"uncertainty\": {\"samples\": %d, \"level\": [0.05, 0.95], \"loss\": ", s->n);
    json_interval(s->loss, out);
    fprintf(out, ",\n    \"architecture\": {");
    for (int i = 0; i < KNOB_COUNT; i++) {
        fprintf(out, "%s\"%s\": ", i ? ", " : "", knob_names[i]);
        json_interval(s->knobs[i], out);
    }
    fprintf(out, "},\n    \"chosen_by\": ");
    json_number(s->same, out);
    fprintf(out, ", \"infeasible\": ");
    json_number(s->none, out);
    json_rivals("runners", s->runners, s->n_runners, out);
    json_rivals("choices", s->often, s->n_often, out);
    fprintf(out, "}");
}

static void json_requirements(const struct resolution *r, FILE *out)
{
    static const char *const relations[] = {
        [RELATION_LE] = "<=", [RELATION_GE] = ">=", [RELATION_EQ] = "=="};
    fprintf(out, "[");
    for (int i = 0; i < r->n_requirements; i++) {
        struct requirement q = r->requirements[i];
        if (!r->found && !r->nearest[i].arch.layers)
            q.lhs = q.rhs = q.margin = NAN; /* nothing to be judged by */
        fprintf(out, "%s\n    {\"text\": ", i ? "," : "");
        json_string(q.goal->text, out);
        fprintf(out, ", \"lhs\": ");
        json_number(q.lhs, out);
        fprintf(out, ", \"op\": \"%s\", \"rhs\": ", relations[q.goal->relation]);
        json_number(q.rhs, out);
        fprintf(out,
                ", \"satisfied\": %s, \"margin\": ", r->found && q.satisfied ? "true" : "false");
        json_number(q.margin, out);
        json_confidence(&q, out);
        fprintf(out, "}");
    }
    fprintf(out, "%s]", r->n_requirements ? "\n  " : "");
}

static void json_phases(const struct resolution *r, FILE *out)
{
    struct phase_prices phases;
    pricing_phases(&r->pricing, &r->best.arch, &phases);
    if (phases.n == 0)
        return; /* no device is named */
    fprintf(out, ",\n  \"phases\": [");
    for (int i = 0; i < phases.n; i++) {
        const struct phase_price *x = &phases.at[i];
        fprintf(out, "%s\n    {\"phase\": \"%s\", \"device\": \"%s\", \"sequences\": %d",
                i ? "," : "", x->name, x->device, x->sequences);
        const struct {
            const char *name;
            double value;
        } rows[] = {{"behind", x->behind},
                    {"tokens", x->tokens},
                    {"floor_seconds", x->price.floor},
                    {"seconds", x->price.seconds},
                    {"tokens_per_second", x->tokens / x->price.seconds},
                    {"flops", x->price.flops},
                    {"bytes", x->price.bytes},
                    {"mfu", x->mfu}};
        for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
            fprintf(out, ", \"%s\": ", rows[k].name);
            json_number(rows[k].value, out);
        }
        if (x->recompute != RECOMPUTE_AUTO)
            fprintf(out, ", \"recompute\": \"%s\"", recompute_names[x->recompute]);
        if (x->logits == LOGITS_NEVER)
            fprintf(out, ", \"logits\": \"%s\"", logits_names[x->logits]);
        fprintf(out, "}");
    }
    fprintf(out, "\n  ]");
}

void resolution_json(const struct resolution *r, FILE *out)
{
    fprintf(out, "{\n  \"model\": ");
    json_string(r->model->name, out);
    fprintf(out, ",\n  \"architecture\": ");
    if (r->found)
        json_architecture(&r->best.arch, out);
    else
        fprintf(out, "null");
    fprintf(out, ",\n  \"metrics\": ");
    if (r->found)
        json_metrics(r->best.metrics, out);
    else
        fprintf(out, "null");
    if (r->found)
        json_phases(r, out);
    fprintf(out, ",\n  \"requirements\": ");
    json_requirements(r, out);
    fprintf(out,
            ",\n  \"search\": {\"candidates\": %" PRId64 ", \"feasible\": %" PRId64
            ", \"objective\": ",
            r->n_candidates, r->n_feasible);
    json_string(r->objective, out);
    fprintf(out, "}");
    if (r->sure)
        json_sureness(r->sure, out);
    if (r->measured)
        fprintf(out, ",\n  \"measured\": %s", r->measured);
    fprintf(out, ",\n  \"warnings\": [");
    for (int i = 0; i < r->n_warnings; i++) {
        fprintf(out, "%s\n    ", i ? "," : "");
        json_string(r->warnings[i], out);
    }
    fprintf(out, "%s]\n}\n", r->n_warnings ? "\n  " : "");
}

/* ---- nothing found --------------------------------------------------------------------------- */

static void empty_set(const struct resolution *r, FILE *out)
{
    char text[SHAPE_TEXT], n[METRIC_TEXT];
    const struct arch *a = &r->outside;
    fprintf(out, "model %s: no integer shape lies in the domains of its knobs\n", r->model->name);
    if (!a->layers) {
        fprintf(out, "  help: widen a knob, or its step; no change of params alone is enough\n");
        return;
    }
    fprintf(out, "  closest in params: %s: %s, %+.2f %%\n", shape_text(text, a),
            grouped(n, (double)arch_params(a)),
            100 * ((double)arch_params(a) / r->model->params - 1));
    fprintf(out, "  help: params tolerates +- %.3g %% now; widen that, or take finer steps\n",
            100 * r->model->params_tolerance);
}

static void print_nearest(const struct spec *s, const struct resolution *r, int i, FILE *out)
{
    const struct candidate *c = &r->nearest[i];
    const struct requirement *q = &r->requirements[i];
    char text[SHAPE_TEXT], loss[METRIC_TEXT], rate[METRIC_TEXT];
    (void)s;
    fprintf(out, "  without `%s`: ", q->goal->text);
    if (!c->arch.layers) {
        fprintf(out, "the others still exclude every candidate\n");
        return;
    }
    fprintf(out, "nearest is %s\n", shape_text(text, &c->arch));
    if (q->goal->confidence > 0 && !isnan(q->share))
        fprintf(out, "      holds under %.3g %% of the samples, %g %% are asked for\n",
                100 * q->share, 100 * q->goal->confidence);
    fprintf(out, "      loss %s, throughput %s, ",
            metric_text(loss, METRIC_LOSS, c->metrics[METRIC_LOSS]),
            metric_text(rate, METRIC_THROUGHPUT, c->metrics[METRIC_THROUGHPUT]));
    fprintf(out, "and misses it: %.6g against %.6g, %.3g %%\n", q->lhs, q->rhs,
            100 * fabs(q->lhs - q->rhs) / fmax(fabs(q->rhs), 1e-300));
}

void resolution_infeasible(const struct spec *s, const struct resolution *r, FILE *out)
{
    char n[METRIC_TEXT];
    if (r->n_candidates == 0) {
        empty_set(r, out);
        print_warnings(r, out);
        return;
    }
    fprintf(out, "model %s: none of %s candidate%s meets all requirements\n", r->model->name,
            grouped(n, (double)r->n_candidates), r->n_candidates == 1 ? "" : "s");
    if (r->binding >= 0)
        fprintf(out, "  binding: `%s` is the one missed by least\n",
                r->requirements[r->binding].goal->text);
    else
        fprintf(out, "  binding: no single one; at least two must give way\n");
    for (int i = 0; i < r->n_requirements; i++)
        print_nearest(s, r, i, out);
    print_warnings(r, out);
}

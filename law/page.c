/* page.c - `archc report`: all that is known of a choice as one page, to be read by people who have
 * neither the spec nor archc at hand. */
#define _GNU_SOURCE
#include "law.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CELL = 192, MAX_OTHERS = 4 };

struct page {
    struct html h;
    const struct insight *in;
    const struct resolution *r;
    const char *why; /* the first picture that could not be made */
};

/* ---- the shape and its metrics, beside other models -------------------------------------------
 */

/* Rows have a title, the choice, its interval where there are samples, then other models. */
struct columns {
    int n, others;
    bool sure;
};

static struct columns open_comparison(struct page *p, const char *caption)
{
    const char *heads[3 + MAX_OTHERS] = {"", p->r->model->name};
    struct columns c = {.n = 2, .sure = p->r->sure != NULL};
    if (c.sure)
        heads[c.n++] = "5..95 % of the samples";
    c.others = p->in->n_named < MAX_OTHERS ? p->in->n_named : MAX_OTHERS;
    for (int i = 0; i < c.others; i++)
        heads[c.n++] = p->in->named[i].name;
    html_table(&p->h, caption, heads, c.n, ~1u);
    return c;
}

static void knob_row(struct page *p, const struct columns *c, enum knob k, const char *title)
{
    char text[2 + MAX_OTHERS][METRIC_TEXT];
    const char *cell[3 + MAX_OTHERS] = {title, text[0]};
    int n = 2, decimals = k == KNOB_R ? 3 : 0;
    snprintf(text[0], METRIC_TEXT, "%.*f", decimals, knob_value(&p->r->best.arch, k));
    if (c->sure) {
        struct interval i = p->r->sure->knobs[k];
        cell[n++] = i.lo < i.hi ? interval_text(text[1], i, decimals) : "the same";
    }
    for (int i = 0; i < c->others; i++) {
        snprintf(text[2 + i], METRIC_TEXT, "%.*f", decimals,
                 knob_value(&p->in->named[i].candidate.arch, k));
        cell[n++] = text[2 + i];
    }
    html_row(&p->h, false, cell);
}

static void metric_row(struct page *p, const struct columns *c, enum metric m, const char *title)
{
    char text[2 + MAX_OTHERS][METRIC_TEXT];
    const char *cell[3 + MAX_OTHERS] = {title, metric_text(text[0], m, p->r->best.metrics[m])};
    int n = 2;
    if (c->sure)
        cell[n++] = m == METRIC_LOSS ? interval_text(text[1], p->r->sure->loss, 4) : "";
    for (int i = 0; i < c->others; i++)
        cell[n++] = metric_text(text[2 + i], m, p->in->named[i].candidate.metrics[m]);
    html_row(&p->h, p->r->objective[0] && m == p->in->objective, cell);
}

static void write_shape(struct page *p)
{
    static const struct {
        enum knob knob;
        const char *title;
    } knobs[] = {{KNOB_LAYERS, "layers"},     {KNOB_D_MODEL, "d_model"},
                 {KNOB_HEADS, "query heads"}, {KNOB_KV_HEADS, "key/value heads"},
                 {KNOB_GQA, "group (gqa)"},   {KNOB_HEAD_DIM, "head size"},
                 {KNOB_D_FF, "d_ff"},         {KNOB_R, "r, MLP / attention parameters"}};
    html_section(&p->h, "The shape");
    struct columns c = open_comparison(p, NULL);
    for (size_t i = 0; i < sizeof knobs / sizeof *knobs; i++)
        knob_row(p, &c, knobs[i].knob, knobs[i].title);
    metric_row(p, &c, METRIC_PARAMS, "parameters in matrices (N)");
    metric_row(p, &c, METRIC_TOTAL_PARAMS, "parameters with embeddings");
    html_table_end(&p->h);
    if (c.sure)
        html_paragraph(&p->h,
                       "%.3g %% of the law's %d samples choose this very shape; the intervals are "
                       "of the shapes that they choose.",
                       100 * p->r->sure->same, p->r->sure->n);
}

static void write_metrics(struct page *p)
{
    static const struct {
        enum metric metric;
        const char *title;
    } rows[] = {
        {METRIC_LOSS, "loss, nats per token"},   {METRIC_THROUGHPUT, "throughput of the batch"},
        {METRIC_LATENCY, "one decode step"},     {METRIC_TTFT, "prefill of the batch"},
        {METRIC_MEMORY, "memory while serving"}, {METRIC_KV_BYTES, "KV cache"},
        {METRIC_TRAIN_TIME, "training time"},    {METRIC_TRAIN_MEMORY, "memory while training"}};
    const struct serve_spec *s = &p->r->model->serve;
    html_section(&p->h, "What is predicted of it");
    struct columns c = open_comparison(p, NULL);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        metric_row(p, &c, rows[i].metric, rows[i].title);
    html_table_end(&p->h);
    if (p->r->pricing.serving)
        html_paragraph(&p->h,
                       "Served on %s: batch %d, prompt %d, generate %d, %s weights, %s cache. "
                       "Times are those of a cost model, not measured.",
                       p->r->pricing.serving->name, s->batch, s->prompt, s->generate,
                       dtype_names[s->weights], dtype_names[s->kv]);
}

/* ---- requirements ---------------------------------------------------------------------------- */

static void requirement_row(struct page *p, const struct requirement *q)
{
    char value[CELL], bound[CELL], margin[CELL], range[CELL] = "", share[CELL] = "";
    snprintf(value, CELL, "%.6g", q->lhs);
    snprintf(bound, CELL, "%.6g", q->rhs);
    snprintf(margin, CELL, "%.4g (%.3g %%)", q->margin,
             100 * q->margin / fmax(fabs(q->rhs), 1e-300));
    if (!isnan(q->share)) {
        snprintf(range, CELL, "%.4g..%.4g", q->margins.lo, q->margins.hi);
        snprintf(share, CELL, "%.3g %%", 100 * q->share);
    }
    const char *cell[] = {
        q->goal->text, q->satisfied ? "met" : "not met", value, bound, margin, range, share};
    html_row(&p->h, false, cell);
}

static void trade_row(struct page *p, const char *what, const struct candidate *c)
{
    char value[METRIC_TEXT], change[CELL] = "", shape[SHAPE_TEXT];
    enum metric m = p->in->objective;
    const char *cell[] = {what, "out of reach", change, ""};
    if (c->arch.layers) {
        cell[1] = metric_text(value, m, c->metrics[m]);
        snprintf(change, CELL, "%+.2f %%", 100 * (c->metrics[m] / p->r->best.metrics[m] - 1));
        cell[3] = shape_text(shape, &c->arch);
    }
    html_row(&p->h, false, cell);
}

static void write_trade(struct page *p, const struct trade *t)
{
    static const char *const titles[TRADE_STEPS] = {"tightened by 1 %", "tightened by 0.1 %",
                                                    "relaxed by 0.1 %", "relaxed by 1 %"};
    const char *heads[] = {"the bound", metric_names[p->in->objective], "change",
                           "shape then chosen"};
    struct text caption = {0};
    text_printf(&caption, "What `%s` costs", t->requirement->goal->text);
    if (!isnan(t->rate))
        text_printf(&caption, ": 1 %% of the bound is worth %.3g %% of %s", fabs(t->rate),
                    metric_names[p->in->objective]);
    html_table(&p->h, caption.at, heads, 4, 6);
    for (int k = 0; k < TRADE_STEPS; k++)
        if (t->requirement->goal->relation != RELATION_EQ)
            trade_row(p, titles[k], &t->at[k]);
    trade_row(p, "dropped", &t->dropped);
    html_table_end(&p->h);
    text_free(&caption);
}

static void write_trades(struct page *p)
{
    int binding = 0;
    for (int i = 0; i < p->in->n_trades; i++)
        if (p->in->trades[i].binds) {
            write_trade(p, &p->in->trades[i]);
            binding++;
        }
    if (binding == 0 && p->in->n_trades > 0)
        html_paragraph(&p->h, "None binds: the choice is the same without any one of them.");
}

static void write_requirements(struct page *p)
{
    const char *heads[] = {"requirement",       "", "value", "bound", "margin", "margin, 5..95 %",
                           "samples that agree"};
    if (p->r->n_requirements == 0)
        return;
    html_section(&p->h, "Requirements");
    html_table(&p->h, NULL, heads, p->r->sure ? 7 : 5, ~3u);
    for (int i = 0; i < p->r->n_requirements; i++)
        requirement_row(p, &p->r->requirements[i]);
    html_table_end(&p->h);
    write_trades(p);
}

/* ---- pictures -------------------------------------------------------------------------------- */

static FILE *new_script(struct page *p, int width, int height)
{
    FILE *script = tmpfile();
    if (script)
        plot_begin(script, width, height);
    else
        p->why = "no temporary file could be made for a picture: is the disk full?";
    return script;
}

static void set_figure(struct page *p, FILE *script, const char *caption)
{
    const char *why = NULL;
    if (!script)
        return;
    html_figure(&p->h, script, caption, &why);
    fclose(script);
    p->why = p->why ? p->why : why;
}

static void write_curves(struct page *p)
{
    if (p->in->n_curves + p->in->n_profiles == 0)
        return;
    html_section(&p->h, "Around each knob");
    for (int i = 0; i < p->in->n_curves; i++) {
        const struct curve *c = &p->in->curves[i];
        char caption[CELL * 2];
        FILE *script = new_script(p, 800, 430);
        if (script)
            figure_curve(c, p->in, script);
        snprintf(caption, sizeof caption,
                 "The law's loss over %s, everything else held. Baselines stand at their own loss, "
                 "off the curve where their other proportions differ.%s",
                 knob_names[c->knob],
                 isfinite(c->low[0]) ? " The band is what the samples leave open of the difference "
                                       "from the chosen shape: what all shapes share is left out."
                                     : "");
        set_figure(p, script, caption);
    }
    for (int i = 0; i < p->in->n_profiles; i++) {
        FILE *script = new_script(p, 800, 360);
        char caption[CELL];
        if (script)
            figure_profile(&p->in->profiles[i], p->in, script);
        snprintf(caption, sizeof caption,
                 "The best choice that meets the requirements at each %s, with all else chosen "
                 "anew.",
                 knob_names[p->in->profiles[i].knob]);
        set_figure(p, script, caption);
    }
}

static void write_front(struct page *p, struct arena *a)
{
    struct diags quiet = {.arena = a};
    struct front f;
    const char *why = NULL;
    if (!front_build(a, p->r, p->in->named, p->in->n_named, &quiet, &f, &why)) {
        p->why = p->why ? p->why : why;
        front_free(&f);
        return;
    }
    if (f.n_all > 1) {
        FILE *script = new_script(p, 800, 520);
        html_section(&p->h, "Loss against throughput");
        if (script)
            figure_front(&f, script);
        set_figure(p, script,
                   "Every candidate, and those that none beats in both. The chosen one is the best "
                   "that meets the requirements.");
        html_paragraph(&p->h,
                       "%zu of %zu candidates are not beaten in both; `archc frontier FILE "
                       "--csv F` lists them.",
                       f.n_best, f.n_all);
    }
    front_free(&f);
}

/* ---- others ---------------------------------------------------------------------------------- */

static void runner_row(struct page *p, const char *place, const struct candidate *c,
                       const struct rival *v, bool marked)
{
    char loss[METRIC_TEXT], value[METRIC_TEXT], shape[SHAPE_TEXT], range[CELL] = "",
                                                                   wins[CELL] = "";
    enum metric m = p->in->objective == METRIC_LOSS ? METRIC_THROUGHPUT : p->in->objective;
    const char *cell[] = {place,
                          shape_text(shape, &c->arch),
                          metric_text(loss, METRIC_LOSS, c->metrics[METRIC_LOSS]),
                          metric_text(value, m, c->metrics[m]),
                          range,
                          wins};
    if (v) {
        snprintf(range, CELL, "%+.4f..%+.4f", v->difference.lo, v->difference.hi);
        snprintf(wins, CELL, "%.3g %%", 100 * v->wins);
    }
    html_row(&p->h, marked, cell);
}

static void write_runners(struct page *p)
{
    enum metric m = p->in->objective == METRIC_LOSS ? METRIC_THROUGHPUT : p->in->objective;
    const char *heads[] = {
        "", "shape", "loss", metric_names[m], "its loss less the choice's", "better under"};
    const struct sureness *s = p->r->sure;
    if (p->r->n_runners == 0)
        return;
    html_section(&p->h, "Runners-up");
    html_table(&p->h, NULL, heads, s ? 6 : 4, ~3u);
    runner_row(p, "chosen", &p->r->best, NULL, true);
    for (int i = 0; i < p->r->n_runners && i < 2 * SHOWN_RUNNERS; i++) {
        char place[16];
        snprintf(place, sizeof place, "%d", i + 2);
        runner_row(p, place, &p->r->runners[i], s ? &s->runners[i] : NULL, false);
    }
    html_table_end(&p->h);
    if (!s)
        return;
    html_paragraph(&p->h, "Under a sample a shape is better than the chosen one if it meets the "
                          "requirements there, and the chosen one does not or is behind in the "
                          "objective.");
    const char *chosen_heads[] = {
        "share", "shape", "loss", metric_names[m], "its loss less the choice's", "better under"};
    html_table(&p->h, "The shapes that the samples themselves choose", chosen_heads, 6, ~2u);
    for (int i = 0; i < s->n_often && i < 2 * SHOWN_RUNNERS; i++) {
        char share[CELL];
        snprintf(share, CELL, "%.3g %%", 100 * s->often[i].chosen);
        runner_row(p, share, &s->often[i].candidate, &s->often[i],
                   same_shape(&s->often[i].candidate.arch, &p->r->best.arch));
    }
    html_table_end(&p->h);
}

static void write_exchange(struct page *p)
{
    const struct exchange *e = &p->in->exchange;
    const char *heads[] = {"loss allowed", "", "throughput", "change", "fastest shape within it"};
    if (!p->in->has_exchange)
        return;
    html_section(&p->h, "What loss buys");
    html_table(&p->h, "Other requirements aside", heads, 5, 15);
    for (int i = 0; i < RATES; i++) {
        char step[CELL], budget[CELL], rate[METRIC_TEXT], change[CELL] = "", shape[SHAPE_TEXT];
        const struct candidate *c = &e->best[i];
        const char *cell[] = {step, budget, "out of reach", change, ""};
        snprintf(step, CELL, "%+.1f %%", 100 * e->step[i]);
        snprintf(budget, CELL, "%.4f", e->budget[i]);
        if (c->arch.layers) {
            double t = c->metrics[METRIC_THROUGHPUT];
            cell[2] = metric_text(rate, METRIC_THROUGHPUT, t);
            snprintf(change, CELL, "%+.1f %%",
                     100 * (t / p->r->best.metrics[METRIC_THROUGHPUT] - 1));
            cell[4] = shape_text(shape, &c->arch);
        }
        html_row(&p->h, e->step[i] == 0, cell);
    }
    html_table_end(&p->h);
}

/* ---- where it comes from --------------------------------------------------------------------- */

static const char *formula(enum law_form form)
{
    switch (form) {
    case LAW_CHINCHILLA:
        return "L = E + A / N^alpha + B / D^beta";
    case LAW_MULTIPLICATIVE:
        return "L = (a0 + a1 ln x + a2 / x) (b0 + b1 ln r + b2 / r) L_opt(N, D)";
    case LAW_ADDITIVE:
        return "L = (a0 + a1 ln x + a2 / x) + (b1 ln r + b2 / r) + L_opt(N, D)";
    case LAW_JOINT:
        return "L = (a0 + a1 ln x + a2 / x + b0 ln(x r) + b1 / (x r)) L_opt(N, D)";
    case LAW_MORPH:
        return "L = (E + A / N^alpha + B / D^alpha) (1 + e R^alpha), R = d_model / layers";
    }
    return "";
}

/* The declaration at a span: from the start of its line to the brace that closes it. Strings and
 * comments may hold braces. */
static size_t declaration(const struct source *s, struct span at, const char **text)
{
    size_t from = at.start < s->length ? at.start : 0, i;
    int depth = 0;
    while (from > 0 && s->text[from - 1] != '\n')
        from--;
    for (i = from; i < s->length; i++) {
        char c = s->text[i];
        if (c == '#')
            i += strcspn(s->text + i, "\n");
        else if (c == '"')
            i += 1 + strcspn(s->text + i + 1, "\"\n");
        else if (c == '{')
            depth++;
        else if (c == '}' && --depth <= 0)
            break;
    }
    *text = s->text + from;
    return i < s->length ? i + 1 - from : i - from;
}

/* A long text is cut: samples of a law are columns of numbers. */
static void write_text(struct page *p, const char *text, size_t length)
{
    enum { MOST = 12000 };
    if (length <= MOST) {
        html_code(&p->h, text, length);
        return;
    }
    size_t n = MOST;
    while (n > 0 && text[n - 1] != '\n')
        n--;
    html_code(&p->h, text, n ? n : MOST);
    html_paragraph(&p->h, "(%zu more bytes are not shown)", length - (n ? n : MOST));
}

/* A page travels: the directories of the machine that made it do not. */
static const char *file_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static void write_declaration(struct page *p, struct span at)
{
    const struct spec *s = p->in->spec;
    const char *text;
    if (at.source >= (uint32_t)s->n_sources)
        return;
    const struct source *from = &s->sources[at.source];
    size_t length = declaration(from, at, &text);
    if (from->text == law_prelude)
        html_paragraph(&p->h, "Built into archc:");
    else
        html_paragraph(&p->h, "Declared in %s:", file_name(from->path));
    write_text(p, text, length);
}

static void write_law(struct page *p)
{
    const struct pricing *q = &p->r->pricing;
    if (!q->law)
        return;
    html_section(&p->h, "The law");
    html_paragraph(&p->h, "%s, %s form: %s; x = d_model / sqrt(N), r = MLP / attention parameters.",
                   q->law->name, law_form_names[q->law->form], formula(q->law->form));
    if (q->law->observe_model >= 0)
        html_paragraph(&p->h, "L_opt is pinned by an observed loss of %.6g.", q->law->observe_loss);
    else if (q->chinchilla && q->chinchilla != q->law)
        html_paragraph(&p->h, "L_opt comes from %s.", q->chinchilla->name);
    if (q->law->n_samples > 0)
        html_paragraph(&p->h,
                       "Its %d samples are bootstrap refits of the same runs: intervals say what "
                       "those runs leave open, not what the form of the law or the cost model "
                       "misses.",
                       q->law->n_samples);
    else
        html_paragraph(&p->h, "It carries no samples, so nothing is said of how sure its "
                              "predictions are.");
    write_declaration(p, q->law->at);
    if (q->chinchilla && q->chinchilla != q->law)
        write_declaration(p, q->chinchilla->at);
}

static void write_sources(struct page *p)
{
    const struct spec *s = p->in->spec;
    html_section(&p->h, "The spec");
    for (int i = 0; i < s->n_sources; i++) {
        if (s->sources[i].text == law_prelude)
            continue; /* built in; what was used of it stands above */
        html_paragraph(&p->h, "%s:", file_name(s->sources[i].path));
        write_text(p, s->sources[i].text, s->sources[i].length);
    }
}

/* ---- the whole ------------------------------------------------------------------------------- */

static void write_failure(struct page *p)
{
    char *text = NULL;
    size_t length = 0;
    FILE *f = open_memstream(&text, &length);
    if (!f)
        return;
    resolution_infeasible(p->in->spec, p->r, f);
    if (fclose(f) == 0)
        html_code(&p->h, text, length);
    free(text);
}

static void write_lead(struct page *p, struct arena *a)
{
    char shape[SHAPE_TEXT];
    const struct resolution *r = p->r;
    const char *lead =
        !r->found ? "no candidate satisfies the requirements"
                  : arena_printf(a, "%s%s%s, chosen among %lld candidates%s",
                                 shape_text(shape, &r->best.arch), r->objective[0] ? ": " : "",
                                 r->objective, (long long)r->n_candidates,
                                 r->n_requirements ? " under the requirements below" : "");
    html_open(&p->h, p->h.out, r->model->name, lead);
    for (int i = 0; r->found && i < r->n_warnings; i++)
        html_warning(&p->h, r->warnings[i]);
}

bool report(struct arena *a, const struct spec *s, int model, struct diags *d, FILE *html,
            bool *found, const char **why)
{
    struct insight *i = arena_alloc(a, sizeof *i);
    *found = false;
    *why = NULL;
    if (!insight_build(a, s, model, d, i))
        return false;
    struct page p = {.h = {.out = html}, .in = i, .r = &i->resolution};
    *found = i->resolution.found;
    write_lead(&p, a);
    if (*found) {
        write_shape(&p);
        write_metrics(&p);
        write_requirements(&p);
        write_curves(&p);
        write_front(&p, a);
        write_runners(&p);
        write_exchange(&p);
    } else {
        write_failure(&p);
    }
    write_law(&p);
    write_sources(&p);
    html_close(&p.h, "Made by `archc report`. It holds all it shows: no script, nothing fetched.");
    *why = p.why;
    return true;
}

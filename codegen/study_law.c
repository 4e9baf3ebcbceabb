/* study_law.c - runs of the small sizes become a law; the law becomes models of the last size. What
 * it writes is in the language: STUDY.law, and models.arch that imports it. */
#include "study.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- fitting ------------------------------------------------------------------------------------
 */

const char *study_law_name(const struct study *s)
{
    return arena_printf(s->arena, "%s_law", s->spec->name);
}

const char *study_size_text(const struct study *s, double size)
{
    static const struct {
        double unit;
        const char *suffix;
    } units[] = {{1e9, "B"}, {1e6, "M"}, {1e3, "K"}, {1, ""}};
    int i = 0;
    while (units[i].unit > 1 && size < units[i].unit)
        i++;
    return arena_printf(s->arena, "%.4g%s", size / units[i].unit, units[i].suffix);
}

static void fill_table(const struct study *s, struct runs *t)
{
    static const char *const extra_names[] = {"size", "role", "seed"};
    runs_init(t, s->arena, arena_printf(s->arena, "%s/runs.csv", s->dir), extra_names, 3);
    for (int i = 0; i < s->n_runs; i++) {
        const struct study_run *r = &s->runs[i];
        const struct arch *a = &r->arch;
        if (r->stage != STAGE_GRID || !r->done)
            continue;
        const char *extra[] = {arena_printf(s->arena, "%.0f", r->size), r->role,
                               arena_printf(s->arena, "%d", r->seed)};
        struct run row = {.d_model = a->d_model,
                          .layers = a->layers,
                          .heads = a->heads,
                          .kv_heads = a->kv_heads,
                          .head_dim = a->head_dim,
                          .d_ff = a->d_ff,
                          .r = NAN,
                          .params = NAN,
                          .total_params = (double)arch_total_params(a),
                          .tokens = r->tokens,
                          .loss = r->loss,
                          .extra = extra};
        runs_add(t, &row);
    }
}

static const char *one_line(const struct study *s, struct text *why)
{
    char *line = arena_copy(s->arena, why->at ? why->at : "", why->length);
    line[strcspn(line, "\n")] = 0;
    text_free(why);
    const char *error = strstr(line, "error: ");
    return error ? error + strlen("error: ") : line;
}

static void fit_form(struct study *s, struct study_law *l, enum law_form form)
{
    struct study_form *f = &l->forms[form];
    struct fit_options o = {.form = form,
                            .l_opt = FIT_LOWEST,
                            .group = "size",
                            .bootstrap = form == LAW_MULTIPLICATIVE ? 1000 : 200,
                            .seed = 1,
                            .name = study_law_name(s)};
    struct text why = {0};
    struct fit *fit = arena_alloc(s->arena, sizeof *fit);
    if (fit_law(s->arena, &l->table, &o, fit, &why))
        f->fit = fit;
    else
        f->why = one_line(s, &why);
    text_free(&why);
    why = (struct text){0};
    o.bootstrap = 0;
    f->n_steps = fit_progressive(s->arena, &l->table, &o, f->steps, STUDY_STEPS, &why);
    f->n_steps = f->n_steps < 0 ? 0 : f->n_steps;
    text_free(&why);
}

/* The lowest point of one factor within what was tried, by looking: a factor may have no minimum.
 */
static double lowest(const struct law *law, bool width, double lo, double hi)
{
    enum { POINTS = 400 };
    double best = NAN, least = INFINITY, r = sqrt(law->r_lo * law->r_hi);
    double x = sqrt(law->x_lo * law->x_hi);
    for (int i = 0; i <= POINTS; i++) {
        double at = lo * pow(hi / lo, (double)i / POINTS);
        double term = width ? law_shape_term(law, at, r, NAN) : law_shape_term(law, x, at, NAN);
        if (term < least) {
            least = term;
            best = at;
        }
    }
    return best;
}

int study_fit(struct study *s, struct study_law *l)
{
    *l = (struct study_law){0};
    fill_table(s, &l->table);
    for (int form = 0; form < STUDY_FORMS; form++)
        fit_form(s, l, (enum law_form)form);
    l->fit = l->forms[LAW_MULTIPLICATIVE].fit;
    if (!l->fit) {
        fprintf(stderr, "archc: no law can be fitted to these runs: %s\n",
                l->forms[LAW_MULTIPLICATIVE].why);
        return STATUS_SPEC;
    }
    const struct law *law = &l->fit->law;
    l->best_x = lowest(law, true, law->x_lo, law->x_hi);
    l->best_r = lowest(law, false, law->r_lo, law->r_hi);
    const char *path = arena_printf(s->arena, "%s/%s.law", s->dir, s->spec->name);
    FILE *f = fopen(path, "w");
    if (f)
        fit_write(l->fit, f);
    if (!f || ferror(f) || fclose(f) != 0)
        return study_world("write", path);
    return 0;
}

/* ---- models.arch
 * ---------------------------------------------------------------------------------- */

static double last_size(const struct study *s)
{
    return s->spec->sizes.at[s->spec->sizes.n - 1];
}

static void print_defaults(const struct study *s, FILE *f)
{
    struct model_spec m = study_model(s, NULL);
    const struct train_spec *t = &m.train;
    const struct serve_spec *v = &m.serve;
    fprintf(f, "train {\n    tokens       = %.0f\n    law          = %s\n",
            round(s->spec->tokens_per_param * last_size(s)), study_law_name(s));
    fprintf(f, "    batch        = %d\n    sequence     = %d\n    accumulate   = %d\n", t->batch,
            t->sequence, t->accumulate);
    fprintf(f, "    lr           = %.8g\n    warmup       = %.8g\n    weight_decay = %.8g\n",
            study_lr(s, last_size(s)), t->warmup, t->weight_decay);
    fprintf(f, "    clip         = %.8g\n    beta1        = %.8g\n    beta2        = %.8g\n}\n",
            t->clip, t->beta1, t->beta2);
    fprintf(f, "serve {\n    device   = %s\n",
            v->device >= 0 ? s->driver->spec.devices[v->device].name : "host");
    fprintf(f, "    batch    = %d\n    prompt   = %d\n    generate = %d\n    weights  = %s\n",
            v->batch, v->prompt, v->generate, dtype_names[v->weights]);
    fprintf(f, "    kv       = %s\n}\n", dtype_names[v->kv]);
}

static void print_common(const struct study *s, const char *name, FILE *f)
{
    struct model_spec m = study_model(s, NULL);
    fprintf(f,
            "\nmodel %s {\n    family   = llama\n    vocab    = %d\n    tied     = yes\n"
            "    context  = %d\n    layers   = %d\n    head_dim = %d\n",
            name, m.vocab, m.context, s->spec->layers, s->spec->head_dim);
}

/* d_model, r and gqa are free within what the law was fitted on. */
static void print_free(const struct study *s, const struct law *law, FILE *f)
{
    const struct study_spec *spec = s->spec;
    double n = last_size(s), step = spec->d_model_step;
    double lo = ceil(law->x_lo * sqrt(n) / step) * step;
    double hi = floor(law->x_hi * sqrt(n) / step) * step;
    fprintf(f, "    params   = %.0f +- %.6g%%\n", n, 100 * spec->tolerance);
    fprintf(f, "    d_model  = free %.0f..%.0f step %.0f\n", lo > step ? lo : step,
            hi > lo ? hi : lo, step);
    fprintf(f, "    d_ff     = free %d..%.0f step %d\n", spec->d_ff_step >= 8 ? spec->d_ff_step : 8,
            ceil(n / spec->layers / 3 / lo), spec->d_ff_step);
    fprintf(f, "    r        = free %.6g..%.6g\n", law->r_lo, law->r_hi);
}

static void print_groups(const struct study_spec *spec, FILE *f)
{
    bool has = false;
    fputs("    gqa      = free [", f);
    for (int i = 0; i < spec->groups.n; i++) {
        fprintf(f, "%s%.0f", i ? ", " : "", spec->groups.at[i]);
        has = has || spec->groups.at[i] == spec->gqa;
    }
    fprintf(f, has ? "]\n" : spec->groups.n ? ", %d]\n" : "%d]\n", spec->gqa);
}

/* A device that the study's file declares is declared again. */
static void print_device(const struct study *s, FILE *f)
{
    int at = s->spec->serve.device;
    const struct spec *spec = &s->driver->spec;
    if (at < 0 || spec->devices[at].is_host ||
        strcmp(spec->sources[spec->devices[at].at.source].path, "<built-in>") == 0)
        return;
    device_print(&spec->devices[at], f);
    fputc('\n', f);
}

static void print_models(const struct study *s, const struct study_law *l, const struct arch *base,
                         FILE *f)
{
    fprintf(f, "# The models of the study %s at its last size: `archc resolve` says why.\n",
            s->spec->name);
    fprintf(f, "import \"%s.law\"\n\n", s->spec->name);
    print_device(s, f);
    print_defaults(s, f);
    fprintf(f, "\n# LLaMA 3.2 1B's proportions.");
    print_common(s, "baseline", f);
    fprintf(f, "    d_model  = %d\n    heads    = %d\n    kv_heads = %d\n    d_ff     = %d\n}\n",
            base->d_model, base->heads, base->kv_heads, base->d_ff);
    fprintf(f, "\n# The lowest loss.");
    print_common(s, "panda", f);
    print_free(s, &l->fit->law, f);
    fprintf(f, "    gqa      = %d\n\n    minimize loss\n}\n", s->spec->gqa);
    fprintf(f, "\n# The fastest at the baseline's loss.");
    print_common(s, "surefire", f);
    print_free(s, &l->fit->law, f);
    print_groups(s->spec, f);
    fprintf(f, "\n    require  loss <= baseline.loss\n    maximize throughput\n}\n");
}

/* ---- choosing
 * ------------------------------------------------------------------------------------- */

static int read_models(struct study *s, struct study_law *l, const char *path)
{
    struct diags d = {.arena = s->arena};
    if (spec_read(s->arena, path, law_prelude, &d, &l->spec))
        return 0;
    diags_print(&d, stderr);
    return STATUS_SPEC;
}

static void choose(struct study *s, struct study_law *l, struct study_choice *c, const char *name)
{
    struct diags d = {.arena = s->arena};
    struct resolution *r = arena_alloc(s->arena, sizeof *r);
    int model = spec_find_model(&l->spec, name);
    *c = (struct study_choice){.name = name, .measured = NAN, .prefill = NAN, .decode = NAN};
    if (!resolve(s->arena, &l->spec, model, &d, r)) {
        diags_print(&d, stderr);
        return;
    }
    if (!r->found) {
        resolution_infeasible(&l->spec, r, stderr);
        return;
    }
    c->found = true;
    c->arch = r->best.arch;
    c->arch.name = arena_printf(s->arena, "d%d_h%d_k%d_f%d", c->arch.d_model, c->arch.heads,
                                c->arch.kv_heads, c->arch.d_ff);
    c->predicted = r->best.metrics[METRIC_LOSS];
    c->throughput = r->best.metrics[METRIC_THROUGHPUT];
    enum { SAMPLES = 1000 };
    double *loss = arena_alloc(s->arena, SAMPLES * sizeof *loss);
    int n = l->fit->law.n_samples < SAMPLES ? l->fit->law.n_samples : SAMPLES;
    for (int i = 0; i < n; i++)
        loss[i] = pricing_sampled_loss(&r->pricing, i, &c->arch);
    c->within = interval_of(loss, n);
}

static void add_final(struct study *s, const struct study_choice *c)
{
    double size = last_size(s);
    struct study_run run = {.arch = c->arch,
                            .stage = STAGE_FINAL,
                            .role = c->name,
                            .size = size,
                            .tokens = round(s->spec->tokens_per_param * size),
                            .lr = study_lr(s, size)};
    for (run.seed = 1; run.seed <= s->spec->seeds && c->found; run.seed++)
        study_add(s, &run);
}

/* Each group at the best width and ratio of the largest size of the grid. */
static void add_groups(struct study *s, const struct study_law *l)
{
    double size = s->spec->sizes.at[s->spec->sizes.n - 2];
    struct study_run run = {.stage = STAGE_GROUPS,
                            .role = "gqa",
                            .size = size,
                            .tokens = round(s->spec->tokens_per_param * size),
                            .lr = study_lr(s, size),
                            .seed = 1};
    for (int i = 0; i < s->spec->groups.n; i++)
        if (study_shape(s, size, l->best_x, l->best_r, (int)s->spec->groups.at[i], &run.arch))
            study_add(s, &run);
}

int study_choose(struct study *s, struct study_law *l)
{
    static const char *const names[CHOICES] = {"baseline", "panda", "surefire"};
    const char *path = arena_printf(s->arena, "%s/models.arch", s->dir);
    struct arch base;
    if (!study_baseline(s, last_size(s), &base)) {
        fprintf(stderr, "archc: study %s: no shape of %s parameters has LLaMA's proportions\n",
                s->spec->name, study_size_text(s, last_size(s)));
        return STATUS_SPEC;
    }
    FILE *f = fopen(path, "w");
    if (f)
        print_models(s, l, &base, f);
    if (!f || ferror(f) || fclose(f) != 0)
        return study_world("write", path);
    int status = read_models(s, l, path);
    if (status)
        return status;
    for (int i = 0; i < CHOICES; i++) {
        choose(s, l, &l->choices[i], names[i]);
        add_final(s, &l->choices[i]);
    }
    add_groups(s, l);
    return l->choices[CHOICE_BASELINE].found && l->choices[CHOICE_PANDA].found ? 0
                                                                               : STATUS_INFEASIBLE;
}

/* ---- what was observed
 * ------------------------------------------------------------------------------ */

void study_metrics(const struct study_law *l, const struct arch *a, double metrics[METRIC_COUNT])
{
    for (int m = 0; m < METRIC_COUNT; m++)
        metrics[m] = NAN;
    cost_metrics(&l->spec, &l->spec.models[spec_find_model(&l->spec, "panda")], a, metrics);
}

void study_observe(const struct study *s, struct study_law *l)
{
    for (int k = 0; k < CHOICES; k++) {
        struct study_choice *c = &l->choices[k];
        double sum = 0, squares = 0;
        c->seeds = 0;
        for (int i = 0; i < s->n_runs; i++) {
            const struct study_run *r = &s->runs[i];
            if (!c->found || r->stage != STAGE_FINAL || !r->done || !same_shape(&r->arch, &c->arch))
                continue;
            sum += r->loss;
            squares += r->loss * r->loss;
            c->seeds++;
        }
        double n = c->seeds;
        c->mean = n > 0 ? sum / n : NAN;
        c->deviation = n > 1 ? sqrt(fmax(0, (squares - sum * sum / n) / (n - 1))) : NAN;
    }
}

double study_noise(const struct study *s, double size, int *repeated)
{
    double squares = 0;
    int freedom = 0;
    *repeated = 0;
    for (int i = 0; i < s->n_runs; i++) {
        double sum = 0;
        int n = 0;
        bool first = s->runs[i].size == size && s->runs[i].done;
        for (int k = 0; first && k < s->n_runs; k++) {
            const struct study_run *r = &s->runs[k];
            if (!r->done || r->size != size || !same_shape(&r->arch, &s->runs[i].arch))
                continue;
            first = k >= i;
            sum += r->loss;
            n++;
        }
        if (!first || n < 2)
            continue;
        for (int k = i; k < s->n_runs; k++)
            if (s->runs[k].done && s->runs[k].size == size &&
                same_shape(&s->runs[k].arch, &s->runs[i].arch))
                squares += (s->runs[k].loss - sum / n) * (s->runs[k].loss - sum / n);
        freedom += n - 1;
        ++*repeated;
    }
    return freedom > 0 ? sqrt(squares / freedom) : NAN;
}

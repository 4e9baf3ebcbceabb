/* study_report.c - what came of a study: the same findings in the terminal and in report.html. A
 * finding that the runs do not bear out is said as plainly as one that they do. */
#include "study.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_FINDINGS = 24 };
struct findings {
    const char *at[MOST_FINDINGS];
    int n;
};

static void find(struct findings *f, const char *text)
{
    if (f->n < MOST_FINDINGS)
        f->at[f->n++] = text;
}

/* ---- the curves ---------------------------------------------------------------------------------
 */

static double term_at(const struct study_law *l, bool width, double at)
{
    return law_shape_term(&l->fit->law, width ? at : l->best_x, width ? l->best_r : at, NAN);
}

static double lowest_loss(const struct study *s, double size)
{
    double least = INFINITY;
    for (int i = 0; i < s->n_runs; i++)
        if (s->runs[i].done && s->runs[i].size == size && s->runs[i].stage == STAGE_GRID)
            least = fmin(least, s->runs[i].loss);
    return least;
}

static double small_size(const struct study *s)
{
    return s->spec->sizes.at[s->spec->sizes.n - 2];
}

static double last_size(const struct study *s)
{
    return s->spec->sizes.at[s->spec->sizes.n - 1];
}

/* Whether a factor has its minimum inside of what was tried, and how sure that is. */
static void find_curve(const struct study *s, const struct study_law *l, bool width,
                       struct findings *out)
{
    const struct law *law = &l->fit->law;
    const struct fit_value *v = width ? &l->fit->best_x : &l->fit->best_r;
    double lo = width ? law->x_lo : law->r_lo, hi = width ? law->x_hi : law->r_hi;
    double scale = lowest_loss(s, small_size(s));
    double bottom = term_at(l, width, width ? l->best_x : l->best_r);
    double left = scale * (term_at(l, width, lo) - bottom);
    double right = scale * (term_at(l, width, hi) - bottom);
    const char *name = width ? "Width" : "Ratio", *symbol = width ? "x" : "r";
    bool inside = v->value > lo && v->value < hi;
    bool sure = inside && v->share >= 0.95 && v->lo > lo && v->hi < hi;
    if (!inside)
        find(out,
             arena_printf(s->arena,
                          "%s: no U-shape in the range tried, %s %.3g to %.3g. The fitted loss "
                          "is lowest at its edge, %s = %.3g; the other end lies %.3f nats above.",
                          name, symbol, lo, hi, symbol, width ? l->best_x : l->best_r,
                          fmax(left, right)));
    else
        find(out, arena_printf(
                      s->arena,
                      "%s: %s. The fitted loss is lowest at %s = %.3g (95 %% of the refits: %.3g "
                      "to %.3g; %.0f %% of them have a minimum); the ends of the range tried, %.3g "
                      "and %.3g, lie %.3f and %.3f nats above.",
                      name, sure ? "U-shaped" : "a U in the fit, but not one to rely on", symbol,
                      v->value, v->lo, v->hi, 100 * v->share, lo, hi, left, right));
}

static void find_noise(const struct study *s, struct findings *out)
{
    for (int i = 0; i < s->spec->sizes.n; i++) {
        int shapes;
        double size = s->spec->sizes.at[i], noise = study_noise(s, size, &shapes);
        if (isfinite(noise))
            find(out,
                 arena_printf(s->arena,
                              "Noise at %s parameters: seeds of one shape differ by %.4f "
                              "nats (standard deviation, %d shape%s repeated).",
                              study_size_text(s, size), noise, shapes, shapes == 1 ? "" : "s"));
    }
}

static void find_forms(const struct study *s, const struct study_law *l, struct findings *out)
{
    const struct study_form *f = &l->forms[LAW_MULTIPLICATIVE];
    const struct study_form *joint = &l->forms[LAW_JOINT];
    for (int i = 0; i < f->n_steps; i++)
        if (f->steps[i].fitted)
            find(out, arena_printf(s->arena,
                                   "Fitted up to %s parameters, the law ranks the %d shapes of "
                                   "%s with Spearman %.3f (mean squared error %.2g).",
                                   study_size_text(s, f->steps[i].params_hi), f->steps[i].error.n,
                                   study_size_text(s, f->steps[i].target),
                                   f->steps[i].error.spearman, f->steps[i].error.mse));
    if (f->n_steps > 0 && joint->n_steps > 0 && f->steps[f->n_steps - 1].fitted &&
        joint->steps[joint->n_steps - 1].fitted) {
        double a = f->steps[f->n_steps - 1].error.spearman;
        double b = joint->steps[joint->n_steps - 1].error.spearman;
        find(out, arena_printf(s->arena,
                               "The separable form %s the joint one there: Spearman %.3f against "
                               "%.3f.",
                               a > b ? "ranks better than" : "does not rank better than", a, b));
    }
}

/* ---- the models ---------------------------------------------------------------------------------
 */

static void find_against_baseline(const struct study *s, const struct study_law *l, int which,
                                  struct findings *out)
{
    const struct study_choice *b = &l->choices[CHOICE_BASELINE], *c = &l->choices[which];
    int shapes;
    if (!c->found || c->seeds == 0 || b->seeds == 0)
        return;
    double noise = study_noise(s, last_size(s), &shapes);
    double difference = c->mean - b->mean;
    double error = 2 * noise * sqrt(1.0 / c->seeds + 1.0 / b->seeds);
    const char *judged = !isfinite(noise)           ? "with one seed each, nothing says whether "
                                                      "that is more than noise"
                         : fabs(difference) > error ? "more than the noise of seeds explains"
                                                    : "no more than the noise of seeds";
    find(out, arena_printf(s->arena,
                           "%s: loss %.4f, %.4f nats %s the baseline's %.4f (two standard errors: "
                           "%.4f): %s. The law had predicted %.4f %s.",
                           c->name, c->mean, fabs(difference), difference < 0 ? "below" : "above",
                           b->mean, error, judged, fabs(c->predicted - b->predicted),
                           c->predicted < b->predicted ? "below" : "above"));
}

static void find_speed(const struct study *s, const struct study_law *l, int which,
                       struct findings *out)
{
    const struct study_choice *b = &l->choices[CHOICE_BASELINE], *c = &l->choices[which];
    if (!c->found || !isfinite(c->measured) || !isfinite(b->measured))
        return;
    find(out, arena_printf(s->arena,
                           "%s: %.0f tokens/s measured with %s, %.2f times the baseline's %.0f; "
                           "predicted for all threads %.2f times.",
                           c->name, c->measured,
                           s->driver->threads
                               ? arena_printf(s->arena, "--threads %s", s->driver->threads)
                               : "all threads",
                           c->measured / b->measured, b->measured, c->throughput / b->throughput));
}

static void find_level(const struct study *s, const struct study_law *l, struct findings *out)
{
    for (int k = 0; k < CHOICES; k++) {
        const struct study_choice *c = &l->choices[k];
        if (!c->found || c->seeds == 0)
            continue;
        find(out, arena_printf(s->arena,
                               "%s: predicted loss %.4f (90 %% of the refits: %.4f to %.4f), "
                               "observed %.4f: off by %.1f %%.",
                               c->name, c->predicted, c->within.lo, c->within.hi, c->mean,
                               100 * fabs(c->predicted / c->mean - 1)));
    }
}

static void find_all(const struct study *s, const struct study_law *l, struct findings *out)
{
    out->n = 0;
    find_curve(s, l, true, out);
    find_curve(s, l, false, out);
    find_noise(s, out);
    find_forms(s, l, out);
    find_level(s, l, out);
    find_against_baseline(s, l, CHOICE_PANDA, out);
    find_against_baseline(s, l, CHOICE_SUREFIRE, out);
    if (l->load > 0.5)
        find(out, arena_printf(s->arena,
                               "While speed was measured other work was running (load %.0f): trust "
                               "the figures of speed less than their digits.",
                               l->load));
    find_speed(s, l, CHOICE_PANDA, out);
    find_speed(s, l, CHOICE_SUREFIRE, out);
}

/* ---- tables -------------------------------------------------------------------------------------
 */

/* A cell: "%.4f" or, of what is not known, a dash. */
static const char *cell(const struct study *s, const char *format, double v)
{
    char text[64];
    if (!isfinite(v))
        return "-";
    if (strcmp(format, "%.4f") == 0)
        snprintf(text, sizeof text, "%.4f", v);
    else if (strcmp(format, "%.3f") == 0)
        snprintf(text, sizeof text, "%.3f", v);
    else if (strcmp(format, "%.2g") == 0)
        snprintf(text, sizeof text, "%.2g", v);
    else
        snprintf(text, sizeof text, "%.0f", v);
    return arena_copy(s->arena, text, strlen(text));
}

static void models_table(const struct study *s, const struct study_law *l, struct html *h)
{
    static const char *const heads[] = {"model",     "shape", "x",        "r",  "gqa",
                                        "predicted", "90 %",  "observed", "sd", "seeds"};
    html_table(h, "Loss in nats a byte of held-out text; sd: of the seeds", heads, 10, 0x3bc);
    for (int k = 0; k < CHOICES; k++) {
        const struct study_choice *c = &l->choices[k];
        if (!c->found)
            continue;
        const char *row[] = {c->name,
                             c->arch.name,
                             cell(s, "%.4f", arch_width(&c->arch)),
                             cell(s, "%.3f", arch_r(&c->arch)),
                             cell(s, "", c->arch.heads / c->arch.kv_heads),
                             cell(s, "%.4f", c->predicted),
                             arena_printf(s->arena, "%.4f..%.4f", c->within.lo, c->within.hi),
                             cell(s, "%.4f", c->mean),
                             cell(s, "%.4f", c->deviation),
                             cell(s, "", c->seeds)};
        html_row(h, k == CHOICE_PANDA, row);
    }
    html_table_end(h);
}

static const char *threads_text(const struct study *s)
{
    const char *n = s->driver->threads;
    return !n ? "as many" : strcmp(n, "1") == 0 ? "one" : arena_printf(s->arena, "%s of them", n);
}

static void speed_table(const struct study *s, const struct study_law *l, struct html *h)
{
    static const char *const heads[] = {"model",  "predicted", "measured", "times baseline",
                                        "prompt", "decode",    "% spread"};
    const double base = l->choices[CHOICE_BASELINE].measured;
    html_table(h,
               arena_printf(s->arena,
                            "Tokens/s: %d generated behind a prompt of %d, one sequence, over both "
                            "together. Predicted for all threads; measured with %s; spread: of the "
                            "rounds",
                            s->spec->serve.generate, s->spec->serve.prompt, threads_text(s)),
               heads, 7, 0x7e);
    for (int k = 0; k < CHOICES; k++) {
        const struct study_choice *c = &l->choices[k];
        if (!c->found)
            continue;
        const char *row[] = {c->name,
                             cell(s, "", c->throughput),
                             cell(s, "", c->measured),
                             cell(s, "%.3f", c->measured / base),
                             cell(s, "", c->prefill),
                             cell(s, "", c->decode),
                             cell(s, "", 100 * c->spread)};
        html_row(h, k == CHOICE_SUREFIRE, row);
    }
    html_table_end(h);
}

static void forms_table(const struct study *s, const struct study_law *l, struct html *h)
{
    static const char *const heads[] = {"form",           "fitted to all: rms", "Spearman",
                                        "next size: MSE", "Spearman",           "remark"};
    html_table(h, "Every form on the small sizes; each size predicted from those below it", heads,
               6, 0x1e);
    for (int k = 0; k < STUDY_FORMS; k++) {
        const struct study_form *f = &l->forms[k];
        const struct fit_step *step = f->n_steps > 0 ? &f->steps[f->n_steps - 1] : NULL;
        bool known = step && step->fitted;
        const char *row[] = {law_form_names[k],
                             cell(s, "%.4f", f->fit ? sqrt(f->fit->fitted.mse) : NAN),
                             cell(s, "%.3f", f->fit ? f->fit->fitted.spearman : NAN),
                             cell(s, "%.2g", known ? step->error.mse : NAN),
                             cell(s, "%.3f", known ? step->error.spearman : NAN),
                             f->why                  ? f->why
                             : step && !step->fitted ? step->why
                                                     : NULL};
        html_row(h, k == LAW_MULTIPLICATIVE, row);
    }
    html_table_end(h);
}

/* The run of a shape at a size; NULL: not made. */
static const struct study_run *run_of(const struct study *s, const struct arch *a, double size)
{
    for (int i = 0; i < s->n_runs; i++)
        if (s->runs[i].done && s->runs[i].size == size && same_shape(&s->runs[i].arch, a))
            return &s->runs[i];
    return NULL;
}

static void groups_table(const struct study *s, const struct study_law *l, struct html *h)
{
    static const char *const heads[] = {"gqa", "shape", "N", "x", "r", "predicted tok/s", "loss"};
    html_table(h, "Near the best width and ratio, one seed each; the law does not price gqa", heads,
               7, 0x7d);
    for (int i = 0; i < s->spec->groups.n; i++) {
        double metrics[METRIC_COUNT], size = small_size(s);
        struct arch a;
        if (!study_shape(s, size, l->best_x, l->best_r, (int)s->spec->groups.at[i], &a))
            continue;
        const struct study_run *r = run_of(s, &a, size);
        study_metrics(l, &a, metrics);
        const char *row[] = {
            cell(s, "", a.heads / a.kv_heads),    a.name,
            cell(s, "", (double)arch_params(&a)), cell(s, "%.4f", arch_width(&a)),
            cell(s, "%.3f", arch_r(&a)),          cell(s, "", metrics[METRIC_THROUGHPUT]),
            cell(s, "%.4f", r ? r->loss : NAN)};
        html_row(h, false, row);
    }
    html_table_end(h);
}

static void runs_table(const struct study *s, struct html *h)
{
    static const char *const heads[] = {"role", "shape",  "N",    "x",         "r",      "gqa",
                                        "seed", "tokens", "loss", "bits/byte", "seconds"};
    html_table(h, NULL, heads, 11, 0x7fc);
    for (int i = 0; i < s->n_runs; i++) {
        const struct study_run *r = &s->runs[i];
        if (!r->done)
            continue;
        const char *row[] = {r->role,
                             r->arch.name,
                             cell(s, "", (double)arch_params(&r->arch)),
                             cell(s, "%.4f", arch_width(&r->arch)),
                             cell(s, "%.3f", arch_r(&r->arch)),
                             cell(s, "", r->arch.heads / r->arch.kv_heads),
                             cell(s, "", r->seed),
                             cell(s, "", r->tokens),
                             cell(s, "%.4f", r->loss),
                             cell(s, "%.4f", r->bits),
                             cell(s, "", r->seconds)};
        html_row(h, false, row);
    }
    html_table_end(h);
}

/* ---- pictures -----------------------------------------------------------------------------------
 */

static const char *const colours[] = {"#3b7dd8", "#d2502f", "#2f9e6e", "#c98a1b",
                                      "#7b52c7", "#8a8f98", "#b0407a", "#4aa8a8"};
enum { COLOURS = sizeof colours / sizeof *colours, CURVE = 60 };

/* The values of the other variable: one colour, one curve each. */
struct strata {
    double at[COLOURS];
    int n;
};

static struct strata strata_of(const struct study *s, bool width)
{
    struct strata t = {.n = 0};
    const struct study_spec *spec = s->spec;
    const struct numbers *v = width ? &spec->r : spec->width.n ? &spec->width : &spec->d_model;
    for (int i = 0; i < v->n && t.n < COLOURS; i++)
        t.at[t.n++] = width || spec->width.n ? v->at[i] : v->at[i] / sqrt(small_size(s));
    return t;
}

static int stratum(const struct strata *t, double v)
{
    int best = 0;
    for (int i = 1; i < t->n; i++)
        if (fabs(log(v / t->at[i])) < fabs(log(v / t->at[best])))
            best = i;
    return best;
}

static void curve_data(const struct study *s, const struct study_law *l, bool width,
                       const struct strata *t, FILE *f)
{
    const struct law *law = &l->fit->law;
    double lo = width ? law->x_lo : law->r_lo, hi = width ? law->x_hi : law->r_hi;
    for (int k = 0; k < t->n; k++) {
        fprintf(f, "$c%d << EOD\n", k);
        for (int i = 0; i <= CURVE; i++) {
            double at = lo * pow(hi / lo, (double)i / CURVE);
            fprintf(f, "%.6g %.6g\n", at,
                    law_shape_term(law, width ? at : t->at[k], width ? t->at[k] : at, NAN));
        }
        fprintf(f, "EOD\n");
        for (int z = 0; z + 1 < s->spec->sizes.n; z++) {
            double size = s->spec->sizes.at[z], least = lowest_loss(s, size);
            fprintf(f, "$p%d_%d << EOD\n", k, z);
            for (int i = 0; i < s->n_runs; i++) {
                const struct study_run *r = &s->runs[i];
                double other = width ? arch_r(&r->arch) : arch_width(&r->arch);
                if (r->done && r->stage == STAGE_GRID && r->size == size && stratum(t, other) == k)
                    fprintf(f, "%.6g %.6g\n", width ? arch_width(&r->arch) : arch_r(&r->arch),
                            r->loss / least);
            }
            fprintf(f, "NaN NaN\nEOD\n");
        }
    }
}

static void curve_figure(const struct study *s, const struct study_law *l, bool width,
                         struct html *h)
{
    FILE *f = tmpfile();
    struct strata t = strata_of(s, width);
    const char *why = NULL;
    if (!f)
        return;
    plot_begin(f, 900, 460);
    curve_data(s, l, width, &t, f);
    fprintf(f, "set logscale x\nset xlabel '%s'\nset ylabel 'loss / lowest loss of its size'\n",
            width ? "x = d_model / sqrt(N)" : "r = MLP / attention parameters");
    struct strata ticks = strata_of(s, !width);
    fprintf(f, "set xtics (");
    for (int k = 0; k < ticks.n; k++)
        fprintf(f, "%s%.3g", k ? ", " : "", ticks.at[k]);
    fprintf(f, ")\nset key outside right\nplot ");
    for (int k = 0; k < t.n; k++) {
        fprintf(f, "%s$c%d with lines lw 2 lc rgb '%s' title 'law, %s near %.3g'", k ? ", " : "", k,
                colours[k], width ? "r" : "x", t.at[k]);
        for (int z = 0; z + 1 < s->spec->sizes.n; z++)
            fprintf(f, ", $p%d_%d with points pt %d ps 1.1 lc rgb '%s' %s", k, z, 6 + z % 8,
                    colours[k],
                    k > 0 ? "notitle"
                          : arena_printf(s->arena, "title '%s parameters'",
                                         study_size_text(s, s->spec->sizes.at[z])));
    }
    fputc('\n', f);
    html_figure(h, f,
                width
                    ? "Loss against width at fixed size, depth and gqa: runs, and the fitted law."
                    : "Loss against ratio at fixed size, depth and gqa: runs, and the fitted law.",
                &why);
    fclose(f);
}

/* Every run against what the law makes of its shape and size; the last size was not fitted. */
static void predicted_figure(const struct study *s, const struct study_law *l, struct html *h)
{
    FILE *f = tmpfile();
    const char *why = NULL;
    if (!f)
        return;
    plot_begin(f, 900, 460);
    for (int z = 0; z < s->spec->sizes.n; z++) {
        fprintf(f, "$s%d << EOD\n", z);
        for (int i = 0; i < s->n_runs; i++) {
            const struct study_run *r = &s->runs[i];
            const struct law *law = &l->fit->law;
            double n = (double)arch_params(&r->arch);
            if (!r->done || r->size != s->spec->sizes.at[z] || r->stage == STAGE_GROUPS)
                continue;
            fprintf(f, "%.6g %.6g\n", r->loss,
                    law_loss(law, law_base_loss(law, n, r->tokens), arch_width(&r->arch),
                             arch_r(&r->arch), (double)r->arch.d_model / r->arch.layers));
        }
        fprintf(f, "NaN NaN\nEOD\n");
    }
    fprintf(
        f, "set xlabel 'observed loss'\nset ylabel 'predicted loss'\nset key outside right\nplot ");
    for (int z = 0; z < s->spec->sizes.n; z++)
        fprintf(f, "$s%d with points pt %d ps 1.1 lc rgb '%s' title '%s parameters%s', ", z,
                6 + z % 8, colours[z % COLOURS], study_size_text(s, s->spec->sizes.at[z]),
                z + 1 < s->spec->sizes.n ? "" : ", not fitted");
    fprintf(f, "x with lines ls 3 title 'equal'\n");
    html_figure(h, f, "Predicted against observed loss.", &why);
    fclose(f);
}

static void models_figure(const struct study *s, const struct study_law *l, struct html *h)
{
    FILE *f = tmpfile();
    const char *why = NULL;
    if (!f)
        return;
    plot_begin(f, 900, 380);
    fprintf(f, "$seeds << EOD\n");
    for (int k = 0; k < CHOICES; k++)
        for (int i = 0; i < s->n_runs; i++)
            if (s->runs[i].done && s->runs[i].stage == STAGE_FINAL && l->choices[k].found &&
                same_shape(&s->runs[i].arch, &l->choices[k].arch))
                fprintf(f, "%d %.6g\n", k, s->runs[i].loss);
    fprintf(f, "NaN NaN\nEOD\n$law << EOD\n");
    for (int k = 0; k < CHOICES; k++)
        if (l->choices[k].found)
            fprintf(f, "%.2f %.6g %.6g %.6g\n", k + 0.12, l->choices[k].predicted,
                    l->choices[k].within.lo, l->choices[k].within.hi);
    fprintf(f, "NaN NaN NaN NaN\nEOD\nset xrange [-0.5:%g]\nset xtics (", CHOICES - 0.5);
    for (int k = 0; k < CHOICES; k++)
        fprintf(f, "%s'%s' %d", k ? ", " : "", l->choices[k].name, k);
    fprintf(f,
            ")\nset ylabel 'loss'\nset key outside right\n"
            "plot $seeds with points pt 7 ps 1.2 lc rgb '%s' title 'runs, one a seed', "
            "$law using 1:2:3:4 with yerrorbars pt 5 lw 2 lc rgb '%s' title 'predicted'\n",
            colours[0], colours[1]);
    html_figure(h, f, "The three models at the last size: every seed, and what was predicted.",
                &why);
    fclose(f);
}

/* ---- the two ways out
 * ----------------------------------------------------------------------------- */

static void page(const struct study *s, const struct study_law *l, const struct findings *found,
                 FILE *out)
{
    const struct study_spec *spec = s->spec;
    struct html h;
    html_open(&h, out, arena_printf(s->arena, "Study %s", spec->name),
              "Shapes trained at fixed size, a law fitted to them, and the models that it chose.");
    html_section(&h, "Findings");
    for (int i = 0; i < found->n; i++)
        html_paragraph(&h, "%s", found->at[i]);
    html_section(&h, "What was done");
    html_paragraph(
        &h,
        "%d runs on %.4g bytes of text, %.3g bytes held out; %.4g tokens a parameter, so "
        "%.2g to %.2g epochs; vocabulary: bytes. Depth %d, head size %d, gqa %d except in "
        "the sweep. AdamW, cosine to a tenth; peak learning rate %.3g at the smallest "
        "size, scaled with (N / smallest)^%.3g and the same for all shapes of a size; "
        "steps of %d sequences of %d tokens. The shapes that are repeated have %d seeds.",
        s->n_runs, s->data_bytes, s->held_out_bytes, spec->tokens_per_param,
        spec->tokens_per_param * spec->sizes.at[0] / s->data_bytes,
        spec->tokens_per_param * last_size(s) / s->data_bytes, spec->layers, spec->head_dim,
        spec->gqa, spec->train.lr, spec->lr_exponent,
        study_model(s, NULL).train.batch * spec->train.accumulate,
        study_model(s, NULL).train.sequence, spec->seeds);
    html_section(&h, "Width and ratio");
    curve_figure(s, l, true, &h);
    curve_figure(s, l, false, &h);
    html_section(&h, "The law");
    forms_table(s, l, &h);
    predicted_figure(s, l, &h);
    html_section(&h, "The models it chose");
    models_table(s, l, &h);
    models_figure(s, l, &h);
    speed_table(s, l, &h);
    html_section(&h, "gqa");
    groups_table(s, l, &h);
    html_section(&h, "All runs");
    runs_table(s, &h);
    html_close(&h, "Made by archc study.");
}

int study_report(const struct study *s, const struct study_law *l)
{
    const char *path = arena_printf(s->arena, "%s/report.html", s->dir);
    const char *part = arena_printf(s->arena, "%s.part", path);
    struct findings found;
    find_all(s, l, &found);
    for (int i = 0; i < found.n; i++)
        printf("%s\n", found.at[i]);
    FILE *out = fopen(part, "w");
    if (!out)
        return study_world("write", part);
    page(s, l, &found, out);
    bool ok = !ferror(out);
    if (fclose(out) != 0 || !ok || rename(part, path) != 0)
        return study_world("write", path);
    printf("runs: %s/runs.csv; law: %s/%s.law; models: %s/models.arch; report: %s\n", s->dir,
           s->dir, s->spec->name, s->dir, path);
    return 0;
}

/* explain.c - why this shape: what the law and the requirements say around the one that was chosen,
 * in letters, as CSV, and as a picture. */
#include "law.h"

#include <math.h>
#include <string.h>

/* ---- requirements ---------------------------------------------------------------------------- */

static void print_change(const struct insight *i, const char *what, const struct candidate *c,
                         FILE *out)
{
    char shape[SHAPE_TEXT], text[METRIC_TEXT];
    enum metric m = i->objective;
    fprintf(out, "    %-21s ", what);
    if (!c->arch.layers) {
        fprintf(out, "out of reach\n");
        return;
    }
    double now = i->resolution.best.metrics[m], then = c->metrics[m];
    fprintf(out, "%s %s (%+.2f %%): %s\n", metric_names[m], metric_text(text, m, then),
            100 * (then / now - 1), shape_text(shape, &c->arch));
}

static void explain_trade(const struct insight *i, const struct trade *t, FILE *out)
{
    static const char *const titles[TRADE_STEPS] = {
        "tightened by 1 %:", "tightened by 0.1 %:", "relaxed by 0.1 %:", "relaxed by 1 %:"};
    if (!t->binds) {
        fprintf(out, "    does not bind: the choice is the same without it\n");
        return;
    }
    fprintf(out, "    binds");
    if (!isnan(t->rate))
        fprintf(out, ": 1 %% of the bound is worth %.3g %% of %s", fabs(t->rate),
                metric_names[i->objective]);
    fprintf(out, "\n");
    for (int k = 0; k < TRADE_STEPS && t->requirement->goal->relation != RELATION_EQ; k++)
        print_change(i, titles[k], &t->at[k], out);
    print_change(i, "dropped:", &t->dropped, out);
}

static void explain_requirements(const struct insight *i, FILE *out)
{
    const struct resolution *r = &i->resolution;
    if (r->n_requirements == 0)
        return;
    fprintf(out, "\nrequirements, and what they cost\n");
    for (int k = 0; k < r->n_requirements; k++) {
        const struct requirement *q = &r->requirements[k];
        fprintf(out, "  %s\n    %.6g against %.6g, margin %.4g (%.3g %%)\n", q->goal->text, q->lhs,
                q->rhs, q->margin, 100 * q->margin / fmax(fabs(q->rhs), 1e-300));
        if (k < i->n_trades)
            explain_trade(i, &i->trades[k], out);
    }
}

/* ---- the law's curve over a knob ------------------------------------------------------------- */

enum { COLUMNS = 61, ROWS = 11, SKIP = (CURVE_POINTS - 1) / (COLUMNS - 1) };

static int column_of(const struct curve *c, double v)
{
    double at = log(v / c->lo) / log(c->hi / c->lo) * (COLUMNS - 1);
    return !(at > 0) ? 0 : at > COLUMNS - 1 ? COLUMNS - 1 : (int)(at + 0.5);
}

/* A range under the axis: "   fitted    ======   0.5..5". */
static void draw_range(const struct curve *c, const char *title, char with, double lo, double hi,
                       FILE *out)
{
    char line[COLUMNS + 1];
    if (isnan(lo) || isnan(hi))
        return;
    memset(line, ' ', COLUMNS);
    line[COLUMNS] = 0;
    for (int i = column_of(c, lo); i <= column_of(c, hi); i++)
        line[i] = with;
    fprintf(out, "%9s %s %.5g..%.5g\n", title, line, lo, hi);
}

static void draw_axis(const struct curve *c, FILE *out)
{
    char line[COLUMNS + 1];
    memset(line, '-', COLUMNS);
    line[COLUMNS] = 0;
    if (!isnan(c->best) && c->best >= c->lo && c->best <= c->hi)
        line[column_of(c, c->best)] = '^';
    fprintf(out, "         +%s\n          %-*.5g%.5g\n", line, COLUMNS - 4, c->lo, c->hi);
    draw_range(c, "fitted", '=', c->fit_lo, c->fit_hi, out);
    draw_range(c, "samples", '~', c->picks.lo, c->picks.hi, out);
}

/* Baselines stand at their own place on the axis, with a letter, whatever their loss. */
static void draw_baselines(const struct curve *c, const struct insight *i, FILE *out)
{
    char line[COLUMNS + 1];
    bool any = false;
    memset(line, ' ', COLUMNS);
    line[COLUMNS] = 0;
    for (int k = 0; k < i->n_named && k < 26; k++)
        if (i->named[k].baseline) {
            line[column_of(c, knob_value(&i->named[k].candidate.arch, c->knob))] = (char)('a' + k);
            any = true;
        }
    if (!any)
        return;
    fprintf(out, "%9s %s\n", "baseline", line);
    for (int k = 0; k < i->n_named && k < 26; k++)
        if (i->named[k].baseline)
            fprintf(out, "          %c %s: %.5g, its own loss %.4f\n", 'a' + k, i->named[k].name,
                    knob_value(&i->named[k].candidate.arch, c->knob),
                    i->named[k].candidate.metrics[METRIC_LOSS]);
}

static void draw(const struct curve *c, const struct insight *in, FILE *out)
{
    double low = INFINITY, high = -INFINITY;
    for (int i = 0; i < CURVE_POINTS; i += SKIP) {
        low = fmin(low, c->loss[i]);
        high = fmax(high, c->loss[i]);
    }
    double step = high > low ? (high - low) / (ROWS - 1) : 1;
    int chosen = column_of(c, c->chosen);
    fprintf(out, "\nloss over %s, at this N and %s\n", knob_names[c->knob], c->held);
    for (int row = 0; row < ROWS; row++) {
        char line[COLUMNS + 1];
        memset(line, ' ', COLUMNS);
        for (int i = 0; i < COLUMNS; i++)
            if ((int)((high - c->loss[i * SKIP]) / step + 0.5) == row)
                line[i] = i == chosen ? 'O' : '*';
        line[COLUMNS] = 0;
        if (row == 0 || row == ROWS - 1)
            fprintf(out, "  %6.4f |%s\n", row ? low : high, line);
        else
            fprintf(out, "         |%s\n", line);
    }
    draw_axis(c, out);
    fprintf(out, "          O chosen: %.5g", c->chosen);
    if (!isnan(c->best))
        fprintf(out, "   ^ minimum of the law: %.5g", c->best);
    fprintf(out, "\n");
    draw_baselines(c, in, out);
}

/* ---- tables ---------------------------------------------------------------------------------- */

static void print_row(const char *name, const struct candidate *c, const char *behind, FILE *out)
{
    char loss[METRIC_TEXT], rate[METRIC_TEXT], shape[SHAPE_TEXT];
    fprintf(out, "  %-18s loss %s  throughput %-14s %s%s\n", name,
            metric_text(loss, METRIC_LOSS, c->metrics[METRIC_LOSS]),
            metric_text(rate, METRIC_THROUGHPUT, c->metrics[METRIC_THROUGHPUT]),
            shape_text(shape, &c->arch), behind);
}

/* d_model has too many values for a table that is read; the curve, the CSV and the picture have it.
 */
static void explain_profile(const struct insight *i, const struct profile *p, FILE *out)
{
    if (p->knob == KNOB_D_MODEL)
        return;
    fprintf(out, "\nbest choice at each %s (the law does not price %s)\n", knob_names[p->knob],
            knob_names[p->knob]);
    for (int k = 0; k < p->n; k++) {
        char value[32];
        snprintf(value, sizeof value, "%.0f", p->value[k]);
        if (p->at[k].arch.layers)
            print_row(value, &p->at[k],
                      same_shape(&p->at[k].arch, &i->resolution.best.arch) ? "  <" : "", out);
        else
            fprintf(out, "  %-18s nothing meets the requirements\n", value);
    }
}

static void explain_exchange(const struct insight *i, FILE *out)
{
    const struct exchange *e = &i->exchange;
    if (!i->has_exchange)
        return;
    fprintf(out,
            "\nwhat loss buys: the fastest candidate within a loss, other requirements aside\n");
    for (int k = 0; k < RATES; k++) {
        char rate[METRIC_TEXT], shape[SHAPE_TEXT];
        fprintf(out, "  loss %+5.1f %% (%.4f): ", 100 * e->step[k], e->budget[k]);
        if (!e->best[k].arch.layers) {
            fprintf(out, "out of reach\n");
            continue;
        }
        double t = e->best[k].metrics[METRIC_THROUGHPUT];
        fprintf(out, "%-14s (%+.1f %%)  %s\n", metric_text(rate, METRIC_THROUGHPUT, t),
                100 * (t / i->resolution.best.metrics[METRIC_THROUGHPUT] - 1),
                shape_text(shape, &e->best[k].arch));
    }
}

static void explain_runners(const struct insight *i, FILE *out)
{
    const struct resolution *r = &i->resolution;
    if (r->n_runners == 0)
        return;
    fprintf(out, "\nrunners-up\n");
    print_row("chosen", &r->best, "", out);
    for (int k = 0; k < r->n_runners && k < SHOWN_RUNNERS; k++) {
        const struct rival *v = r->sure ? &r->sure->runners[k] : NULL;
        print_row("", &r->runners[k], "", out);
        if (v)
            fprintf(out, "  %-18s loss less the choice's %+.4f..%+.4f, better under %.3g %%\n", "",
                    v->difference.lo, v->difference.hi, 100 * v->wins);
    }
}

static void explain_others(const struct insight *i, FILE *out)
{
    if (i->n_named > 0)
        fprintf(out, "\nother models of this file\n");
    for (int k = 0; k < i->n_named; k++)
        print_row(i->named[k].name, &i->named[k].candidate, "", out);
}

/* ---- CSV ------------------------------------------------------------------------------------- */

/* One table for all, a row a point: what it belongs to, where it is, what is found there. */
static void csv_row(const char *section, const char *item, double at, const struct candidate *c,
                    double loss, double low, double high, FILE *csv)
{
    fprintf(csv, "%s,%s,%.9g", section, item, at);
    const double numbers[] = {loss, low, high, c ? c->metrics[METRIC_THROUGHPUT] : NAN};
    for (int i = 0; i < 4; i++)
        fprintf(csv, isfinite(numbers[i]) ? ",%.9g" : ",", numbers[i]);
    if (c)
        fprintf(csv, ",%d,%d,%d,%d,%d,%d\n", c->arch.layers, c->arch.d_model, c->arch.heads,
                c->arch.kv_heads, c->arch.head_dim, c->arch.d_ff);
    else
        fprintf(csv, ",,,,,,\n");
}

static void csv_shape(const char *section, const char *item, double at, const struct candidate *c,
                      FILE *csv)
{
    if (c->arch.layers)
        csv_row(section, item, at, c, c->metrics[METRIC_LOSS], NAN, NAN, csv);
}

/* Requirements by number: their text may hold anything. */
static void csv_trades(const struct insight *i, FILE *csv)
{
    for (int k = 0; k < i->n_trades; k++) {
        char item[32];
        snprintf(item, sizeof item, "requirement %d", k + 1);
        for (int j = 0; j < TRADE_STEPS; j++)
            csv_shape("bound moved", item, trade_steps[j], &i->trades[k].at[j], csv);
        csv_shape("bound dropped", item, INFINITY, &i->trades[k].dropped, csv);
    }
}

static void write_csv(const struct insight *i, FILE *csv)
{
    const struct resolution *r = &i->resolution;
    fprintf(csv, "section,item,at,loss,loss_low,loss_high,throughput,layers,d_model,heads,"
                 "kv_heads,head_dim,d_ff\n");
    csv_row("chosen", r->model->name, 0, &r->best, r->best.metrics[METRIC_LOSS],
            r->sure ? r->sure->loss.lo : NAN, r->sure ? r->sure->loss.hi : NAN, csv);
    for (int k = 0; k < i->n_curves; k++)
        for (int j = 0; j < CURVE_POINTS; j++) {
            const struct curve *c = &i->curves[k];
            csv_row("curve", knob_names[c->knob], c->at[j], NULL, c->loss[j], c->low[j], c->high[j],
                    csv);
        }
    for (int k = 0; k < i->n_profiles; k++)
        for (int j = 0; j < i->profiles[k].n; j++)
            csv_shape("best at", knob_names[i->profiles[k].knob], i->profiles[k].value[j],
                      &i->profiles[k].at[j], csv);
    csv_trades(i, csv);
    for (int k = 0; k < RATES && i->has_exchange; k++)
        csv_shape("within loss", "loss", i->exchange.budget[k], &i->exchange.best[k], csv);
    for (int k = 0; k < r->n_runners; k++)
        csv_shape("runner-up", r->model->name, k + 1, &r->runners[k], csv);
    for (int k = 0; k < i->n_named; k++)
        csv_shape("model", i->named[k].name, 0, &i->named[k].candidate, csv);
}

/* ---- the picture ----------------------------------------------------------------------------- */

static const char *plot(const struct insight *i, FILE *svg)
{
    int panels = i->n_curves + i->n_profiles;
    FILE *script = tmpfile();
    const char *why = NULL;
    if (!script)
        return "no temporary file could be made for the plot: is the disk full?";
    if (panels == 0)
        why = "no knob is free and no law has a curve: nothing to draw";
    plot_begin(script, 800, 380 * panels);
    fprintf(script, "set multiplot layout %d,1\n", panels);
    for (int k = 0; k < i->n_curves; k++)
        figure_curve(&i->curves[k], i, script);
    for (int k = 0; k < i->n_profiles; k++)
        figure_profile(&i->profiles[k], i, script);
    fprintf(script, "unset multiplot\n");
    if (!why)
        plot_svg(script, svg, &why);
    fclose(script);
    return why;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static void print(const struct insight *i, FILE *out)
{
    resolution_print(&i->resolution, out);
    explain_requirements(i, out);
    for (int k = 0; k < i->n_curves; k++)
        draw(&i->curves[k], i, out);
    for (int k = 0; k < i->n_profiles; k++)
        explain_profile(i, &i->profiles[k], out);
    explain_exchange(i, out);
    explain_runners(i, out);
    explain_others(i, out);
}

bool explain(struct arena *a, const struct spec *s, int model, struct diags *d, FILE *csv,
             FILE *svg, FILE *out, bool *found, const char **why)
{
    struct insight *i = arena_alloc(a, sizeof *i);
    *found = false;
    *why = NULL;
    if (!insight_build(a, s, model, d, i))
        return false;
    *found = i->resolution.found;
    if (!*found) {
        resolution_infeasible(i->spec, &i->resolution, out);
        return true;
    }
    print(i, out);
    if (csv)
        write_csv(i, csv);
    if (svg)
        *why = plot(i, svg);
    return true;
}

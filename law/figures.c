/* figures.c - what gnuplot is told to draw. Marks are points, ranges are bars; every figure can be
 * read without colours. */
#include "law.h"

#include <math.h>

/* Pictures may share one script: what an earlier one set up is taken down first. */
static void start(FILE *f)
{
    fprintf(f, "unset label\nunset arrow\nunset object\nunset logscale\n"
               "set xtics auto\nset xrange [*:*]\nset yrange [*:*]\n"
               "set format x '%%g'\nset format y '%%g'\nunset title\n");
}

/* ---- the law over a knob --------------------------------------------------------------------- */

static void curve_data(const struct curve *c, FILE *f)
{
    fprintf(f, "$curve << EOD\n");
    for (int i = 0; i < CURVE_POINTS; i++)
        if (isfinite(c->low[i]) && isfinite(c->high[i]))
            fprintf(f, "%.9g %.9g %.9g %.9g\n", c->at[i], c->loss[i], c->low[i], c->high[i]);
        else
            fprintf(f, "%.9g %.9g\n", c->at[i], c->loss[i]);
    fprintf(f, "EOD\n");
}

/* A bar just above the axis, at `height` of the picture, cut to what is shown. */
static void bar(const struct curve *c, double lo, double hi, double height, const char *colour,
                FILE *f)
{
    lo = fmax(lo, c->lo);
    hi = fmin(hi, c->hi);
    if (lo < hi)
        fprintf(f, "set arrow from %.9g, graph %.3g to %.9g, graph %.3g nohead lw 5 lc rgb '%s'\n",
                lo, height, hi, height, colour);
}

static void key_of_bar(const char *title, const char *colour, FILE *f)
{
    fprintf(f, ", NaN with lines lw 5 lc rgb '%s' title '%s'", colour, title);
}

static bool is_shown(const struct curve *c, const struct named *n)
{
    double at = knob_value(&n->candidate.arch, c->knob);
    return n->baseline && isfinite(n->candidate.metrics[METRIC_LOSS]) && at >= c->lo && at <= c->hi;
}

static void curve_marks(const struct curve *c, const struct insight *i, FILE *f)
{
    for (int k = 0; k < i->n_named; k++) {
        const struct named *n = &i->named[k];
        if (!is_shown(c, n))
            continue;
        fprintf(f, ", '-' using 1:2 with points ls 5 ps 1.1 title ");
        plot_string(f, n->name);
    }
}

static void curve_mark_data(const struct curve *c, const struct insight *i, FILE *f)
{
    for (int k = 0; k < i->n_named; k++)
        if (is_shown(c, &i->named[k]))
            fprintf(f, "%.9g %.9g\ne\n", knob_value(&i->named[k].candidate.arch, c->knob),
                    i->named[k].candidate.metrics[METRIC_LOSS]);
}

void figure_curve(const struct curve *c, const struct insight *i, FILE *f)
{
    bool band = isfinite(c->low[0]), picks = c->picks.lo < c->picks.hi;
    bool fit = isfinite(c->fit_lo) && isfinite(c->fit_hi);
    start(f);
    curve_data(c, f);
    fprintf(f, "set title 'Loss over %s, at this N and %s'\n", knob_names[c->knob], c->held);
    fprintf(f, "set xlabel '%s'\nset ylabel 'loss, nats per token'\nset xrange [%.9g:%.9g]\n",
            c->knob == KNOB_R ? "r, MLP / attention parameters" : knob_names[c->knob], c->lo,
            c->hi);
    fprintf(f, "set key above\nset offsets 0, 0, graph 0.05, graph 0.12\n");
    if (c->knob == KNOB_R)
        fprintf(f, "set logscale x 2\n");
    if (fit)
        bar(c, c->fit_lo, c->fit_hi, 0.015, "#2f9e6e", f);
    if (picks)
        bar(c, c->picks.lo, c->picks.hi, 0.045, "#c98a1b", f);
    if (isfinite(c->best) && c->best > c->lo && c->best < c->hi)
        fprintf(f,
                "set arrow from %.9g, graph 0 to %.9g, graph 1 nohead dt 2 lw 1 lc rgb '#8a8f98'\n",
                c->best, c->best);
    fprintf(f, "plot ");
    if (band)
        fprintf(f, "$curve using 1:3:4 with filledcurves lc rgb '#3b7dd8' fs transparent solid "
                   "0.18 noborder title 'samples, 5..95 %%', ");
    fprintf(f, "$curve using 1:2 with lines ls 1 title 'the law'");
    curve_marks(c, i, f);
    fprintf(f, ", '-' using 1:2 with points ls 2 ps 1.2 title 'chosen'");
    if (isfinite(c->best) && c->best > c->lo && c->best < c->hi)
        fprintf(f, ", NaN with lines dt 2 lw 1 lc rgb '#8a8f98' title 'minimum'");
    if (fit)
        key_of_bar("fitted", "#2f9e6e", f);
    if (picks)
        key_of_bar("samples choose", "#c98a1b", f);
    fprintf(f, "\n");
    curve_mark_data(c, i, f);
    fprintf(f, "%.9g %.9g\ne\n", c->chosen, c->loss_chosen);
    fprintf(f, "set offsets 0, 0, 0, 0\n");
}

/* ---- the best choice at each value of a knob ------------------------------------------------- */

static const char *metric_axis(enum metric m)
{
    switch (m) {
    case METRIC_LOSS:
        return "loss, nats per token";
    case METRIC_THROUGHPUT:
        return "throughput, tokens/s";
    case METRIC_LATENCY:
    case METRIC_TTFT:
    case METRIC_TRAIN_TIME:
        return "seconds";
    case METRIC_MEMORY:
    case METRIC_KV_BYTES:
    case METRIC_TRAIN_MEMORY:
        return "bytes";
    default:
        return metric_names[m];
    }
}

void figure_profile(const struct profile *p, const struct insight *i, FILE *f)
{
    enum metric m = i->objective;
    double wide = p->n > 0 ? p->value[p->n - 1] - p->value[0] : 0;
    start(f);
    fprintf(f, "$profile << EOD\n");
    for (int k = 0; k < p->n; k++)
        if (p->at[k].arch.layers && isfinite(p->at[k].metrics[m]))
            fprintf(f, "%.9g %.9g\n", p->value[k], p->at[k].metrics[m]);
    fprintf(f, "EOD\nset title 'The best choice at each %s'\nset xlabel '%s'\nset ylabel '%s'\n",
            knob_names[p->knob], knob_names[p->knob], metric_axis(m));
    if (wide > 0)
        fprintf(f, "set xrange [%.9g:%.9g]\n", p->value[0] - 0.03 * wide,
                p->value[p->n - 1] + 0.03 * wide);
    fprintf(f,
            "set key above\nset offsets 0, 0, graph 0.08, graph 0.05\n"
            "plot $profile using 1:2 with linespoints ls 1 ps 0.6 title '%s', '-' using 1:2 with "
            "points ls 2 ps 1.2 title 'chosen'\n%.9g %.9g\ne\nset offsets 0, 0, 0, 0\n",
            metric_names[m], knob_value(&i->resolution.best.arch, p->knob),
            i->resolution.best.metrics[m]);
}

/* ---- loss against throughput ----------------------------------------------------------------- */

enum { CLOUD = 3000 };

static void front_data(const struct front *f, FILE *s)
{
    size_t every = f->n_all / CLOUD + 1;
    fprintf(s, "$all << EOD\n");
    for (size_t i = 0; i < f->n_all; i += every)
        fprintf(s, "%.6g %.7g\n", f->all[i].throughput, f->all[i].loss);
    fprintf(s, "EOD\n$front << EOD\n");
    for (size_t i = 0; i < f->n_best; i++)
        fprintf(s, "%.9g %.9g\n", f->best[i].throughput, f->best[i].loss);
    fprintf(s, "EOD\n");
}

static bool is_known(const struct candidate *c)
{
    return isfinite(c->metrics[METRIC_LOSS]) && isfinite(c->metrics[METRIC_THROUGHPUT]);
}

void figure_front(const struct front *f, FILE *s)
{
    const struct resolution *r = f->resolution;
    start(s);
    front_data(f, s);
    fprintf(s, "set title 'Loss against throughput: every candidate'\n"
               "set xlabel 'throughput, tokens/s'\nset ylabel 'loss, nats per token'\n"
               "set key above\nset offsets graph 0.02, graph 0.02, graph 0.04, graph 0.04\n"
               "set format x '%%.0f'\n");
    fprintf(s,
            "plot $all with points ls 3 ps 0.15 title 'candidates', "
            "$front with fsteps ls 1 title 'not beaten in both', $front with points ls 1 ps 0.35 "
            "notitle");
    for (int i = 0; i < f->n_named; i++)
        if (is_known(&f->named[i].candidate)) {
            fprintf(s, ", '-' using 1:2 with points ls 5 pt %d ps 1.1 title ", 4 + 2 * (i % 5));
            plot_string(s, f->named[i].name);
        }
    if (r->found) {
        fprintf(s, ", '-' using 1:2 with points ls 2 ps 1.2 title ");
        plot_string(s, r->model->name);
    }
    fprintf(s, "\n");
    for (int i = 0; i < f->n_named; i++)
        if (is_known(&f->named[i].candidate))
            fprintf(s, "%.9g %.9g\ne\n", f->named[i].candidate.metrics[METRIC_THROUGHPUT],
                    f->named[i].candidate.metrics[METRIC_LOSS]);
    if (r->found)
        fprintf(s, "%.9g %.9g\ne\n", r->best.metrics[METRIC_THROUGHPUT],
                r->best.metrics[METRIC_LOSS]);
    fprintf(s, "set offsets 0, 0, 0, 0\n");
}

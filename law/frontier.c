/* frontier.c - the shapes that no other beats in both loss and throughput. */
#include "law.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TABLE_ROWS = 24 };

struct points {
    struct front_point *at;
    size_t n, capacity;
    bool full; /* out of memory */
};

static void collect(void *user, const struct candidate *c)
{
    struct points *p = user;
    if (p->n == p->capacity && !p->full) {
        size_t capacity = p->capacity ? 2 * p->capacity : 4096;
        struct front_point *at = realloc(p->at, capacity * sizeof *at);
        p->full = !at;
        if (at) {
            p->at = at;
            p->capacity = capacity;
        }
    }
    if (p->full)
        return;
    const struct arch *a = &c->arch;
    p->at[p->n++] = (struct front_point){c->metrics[METRIC_LOSS],
                                         c->metrics[METRIC_THROUGHPUT],
                                         arch_params(a),
                                         a->layers,
                                         a->d_model,
                                         a->heads,
                                         a->kv_heads,
                                         a->head_dim,
                                         a->d_ff,
                                         NULL};
}

/* Ascending loss, then descending throughput, then fewer parameters, smaller d_model, fewer heads.
 */
static int compare(const void *x, const void *y)
{
    const struct front_point *a = x, *b = y;
    if (a->loss != b->loss)
        return a->loss < b->loss ? -1 : 1;
    if (a->throughput != b->throughput)
        return a->throughput > b->throughput ? -1 : 1;
    if (a->params != b->params)
        return a->params < b->params ? -1 : 1;
    if (a->d_model != b->d_model)
        return a->d_model - b->d_model;
    return a->heads != b->heads ? a->heads - b->heads : a->d_ff - b->d_ff;
}

/* Keeps those faster than every one of less or equal loss. The list must be sorted. */
static size_t pareto(const struct points *p, struct front_point *front)
{
    size_t n = 0;
    double fastest = -INFINITY;
    for (size_t i = 0; i < p->n; i++)
        if (p->at[i].throughput > fastest) {
            fastest = p->at[i].throughput;
            front[n++] = p->at[i];
        }
    return n;
}

static bool is_shape(const struct front_point *p, const struct arch *a)
{
    return p->layers == a->layers && p->d_model == a->d_model && p->heads == a->heads &&
           p->kv_heads == a->kv_heads && p->head_dim == a->head_dim && p->d_ff == a->d_ff;
}

static bool is_chosen(const struct front_point *p, const struct resolution *r)
{
    return r->found && is_shape(p, &r->best.arch);
}

static void name_points(struct front *f)
{
    for (size_t i = 0; i < f->n_best; i++)
        for (int k = 0; k < f->n_named; k++)
            if (is_shape(&f->best[i], &f->named[k].candidate.arch))
                f->best[i].name = f->named[k].name;
}

static double point_r(const struct front_point *p)
{
    return 3.0 * p->d_ff / (2.0 * p->head_dim * ((double)p->heads + p->kv_heads));
}

static void write_csv(const struct front_point *front, size_t n, const struct resolution *r,
                      FILE *csv)
{
    fprintf(
        csv,
        "loss,throughput,layers,d_model,heads,kv_heads,head_dim,d_ff,gqa,r,params,chosen,model\n");
    for (size_t i = 0; i < n; i++) {
        const struct front_point *p = &front[i];
        fprintf(csv, "%.9g,%.9g,%d,%d,%d,%d,%d,%d,%d,%.6g,%lld,%d,%s\n", p->loss, p->throughput,
                p->layers, p->d_model, p->heads, p->kv_heads, p->head_dim, p->d_ff,
                p->heads / p->kv_heads, point_r(p), (long long)p->params, is_chosen(p, r),
                p->name ? p->name : "");
    }
}

static void print_table(const struct front_point *front, size_t n, const struct resolution *r,
                        FILE *out)
{
    fprintf(out, "%zu of %lld candidates are not beaten in both loss and throughput\n", n,
            (long long)r->n_candidates);
    fprintf(out, "  %8s %12s  %7s %5s %5s %5s %6s %13s\n", "loss", "tok/s", "d_model", "heads",
            "kv", "gqa", "d_ff", "params");
    size_t every = (n + TABLE_ROWS - 1) / TABLE_ROWS;
    for (size_t i = 0; i < n; i++) {
        const struct front_point *p = &front[i];
        bool chosen = is_chosen(p, r);
        if (i % every != 0 && i + 1 != n && !chosen && !p->name)
            continue;
        fprintf(out, "  %8.4f %12.5g  %7d %5d %5d %5d %6d %13lld%s\n", p->loss, p->throughput,
                p->d_model, p->heads, p->kv_heads, p->heads / p->kv_heads, p->d_ff,
                (long long)p->params, chosen ? "  chosen" : "");
        if (p->name)
            fprintf(out, "  %8s the shape of %s\n", "", p->name);
    }
    if (every > 1)
        fprintf(out, "  (one in %zu is shown; --csv has all)\n", every);
}

/* ---- the whole ------------------------------------------------------------------------------- */

static bool both_known(const struct resolution *r, struct diags *d)
{
    const struct pricing *p = &r->pricing;
    double metrics[METRIC_COUNT] = {0};
    struct arch any = {.name = "",
                       .layers = 1,
                       .d_model = 64,
                       .heads = 1,
                       .kv_heads = 1,
                       .head_dim = 64,
                       .d_ff = 128,
                       .vocab = 256,
                       .context = 256};
    pricing_metrics(p, &any, 1u << METRIC_LOSS | 1u << METRIC_THROUGHPUT, metrics);
    if (isfinite(metrics[METRIC_LOSS]) && isfinite(metrics[METRIC_THROUGHPUT]))
        return true;
    bool loss = isfinite(metrics[METRIC_LOSS]);
    struct diag *e =
        diag_error(d, r->model->at, "goal-unknown", "the frontier of model `%s` needs its %s",
                   r->model->name, loss ? "throughput" : "loss");
    diag_help(d, e, "%s",
              loss ? "add `serve { device = host }`"
                   : "add `train { tokens = 100B  law = bian2025_297m }`");
    return false;
}

/* The least loss among those at least as fast, and the most throughput among those no worse. */
static void print_named(const struct front *f, FILE *out)
{
    bool titled = false;
    for (int i = 0; i < f->n_named; i++) {
        const struct named *m = &f->named[i];
        double loss = m->candidate.metrics[METRIC_LOSS];
        double rate = m->candidate.metrics[METRIC_THROUGHPUT], faster = NAN, lower = NAN;
        if (isnan(loss) || isnan(rate))
            continue;
        for (size_t k = 0; k < f->n_best; k++) {
            if (f->best[k].loss <= loss)
                faster = f->best[k].throughput;
            if (f->best[k].throughput >= rate && isnan(lower))
                lower = f->best[k].loss;
        }
        if (!titled)
            fprintf(out, "other models of this file\n");
        titled = true;
        fprintf(out, "  %8.4f %12.5g  %s", loss, rate, m->name);
        if (faster > rate)
            fprintf(out, ": at its loss the front is %.3g %% faster", 100 * (faster / rate - 1));
        if (lower < loss)
            fprintf(out, "%s at its speed %.4f lower", faster > rate ? "," : ":", loss - lower);
        fprintf(out, "\n");
    }
}

static const char *plot(const struct front *f, FILE *svg)
{
    FILE *script = tmpfile();
    const char *why = NULL;
    if (!script)
        return "no temporary file could be made for the plot: is the disk full?";
    plot_begin(script, 800, 520);
    figure_front(f, script);
    plot_svg(script, svg, &why);
    fclose(script);
    return why;
}

bool front_build(struct arena *a, const struct resolution *r, const struct named *named,
                 int n_named, struct diags *d, struct front *out, const char **why)
{
    struct points all = {0};
    *out = (struct front){.resolution = r, .named = named, .n_named = n_named};
    *why = NULL;
    if (!both_known(r, d))
        return false;
    bool good = search_each(a, r, 1u << METRIC_LOSS | 1u << METRIC_THROUGHPUT, d, collect, &all);
    out->all = all.at;
    if (!good)
        return false;
    out->best = malloc((all.n + 1) * sizeof *out->best);
    if (all.full || !out->best) {
        *why = "not enough memory for the candidates: narrow the knobs";
        return false;
    }
    qsort(all.at, all.n, sizeof *all.at, compare);
    out->n_all = all.n;
    out->n_best = pareto(&all, out->best);
    name_points(out);
    return true;
}

void front_free(struct front *f)
{
    free(f->all);
    free(f->best);
    f->all = f->best = NULL;
}

bool frontier(struct arena *a, const struct spec *s, int model, struct diags *d, FILE *csv,
              FILE *svg, FILE *out, const char **why)
{
    struct insight *i = arena_alloc(a, sizeof *i);
    struct front f;
    *why = NULL;
    if (!insight_others(a, s, model, d, i))
        return false;
    const struct resolution *r = &i->resolution;
    bool good = front_build(a, r, i->named, i->n_named, d, &f, why);
    if (good && out) {
        print_table(f.best, f.n_best, r, out);
        print_named(&f, out);
    }
    if (good && csv)
        write_csv(f.best, f.n_best, r, csv);
    if (good && svg && f.n_best > 0)
        *why = plot(&f, svg);
    front_free(&f);
    return good || *why;
}

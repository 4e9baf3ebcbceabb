/* frontier.c - the shapes that no other beats in both loss and throughput. */
#define _GNU_SOURCE
#include "law.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CLOUD = 4000, TABLE_ROWS = 24 };

/* What is kept of a candidate; the rest of its arch is the same for all. */
struct point {
    double loss, throughput;
    int64_t params;
    int layers, d_model, heads, kv_heads, head_dim, d_ff;
};

struct points {
    struct point *at;
    size_t n, capacity;
    bool full; /* out of memory */
};

static void collect(void *user, const struct candidate *c)
{
    struct points *p = user;
    if (p->n == p->capacity && !p->full) {
        size_t capacity = p->capacity ? 2 * p->capacity : 4096;
        struct point *at = realloc(p->at, capacity * sizeof *at);
        p->full = !at;
        if (at) {
            p->at = at;
            p->capacity = capacity;
        }
    }
    if (p->full)
        return;
    const struct arch *a = &c->arch;
    p->at[p->n++] = (struct point){c->metrics[METRIC_LOSS],
                                   c->metrics[METRIC_THROUGHPUT],
                                   arch_params(a),
                                   a->layers,
                                   a->d_model,
                                   a->heads,
                                   a->kv_heads,
                                   a->head_dim,
                                   a->d_ff};
}

/* Ascending loss, then descending throughput, then fewer parameters, smaller d_model, fewer heads.
 */
static int compare(const void *x, const void *y)
{
    const struct point *a = x, *b = y;
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
static size_t pareto(const struct points *p, struct point *front)
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

static bool is_chosen(const struct point *p, const struct resolution *r)
{
    const struct arch *a = &r->best.arch;
    return r->found && p->layers == a->layers && p->d_model == a->d_model && p->heads == a->heads &&
           p->kv_heads == a->kv_heads && p->head_dim == a->head_dim && p->d_ff == a->d_ff;
}

static double point_r(const struct point *p)
{
    return 3.0 * p->d_ff / (2.0 * p->head_dim * ((double)p->heads + p->kv_heads));
}

static void write_csv(const struct point *front, size_t n, const struct resolution *r, FILE *csv)
{
    fprintf(csv,
            "loss,throughput,layers,d_model,heads,kv_heads,head_dim,d_ff,gqa,r,params,chosen\n");
    for (size_t i = 0; i < n; i++) {
        const struct point *p = &front[i];
        fprintf(csv, "%.9g,%.9g,%d,%d,%d,%d,%d,%d,%d,%.6g,%lld,%d\n", p->loss, p->throughput,
                p->layers, p->d_model, p->heads, p->kv_heads, p->head_dim, p->d_ff,
                p->heads / p->kv_heads, point_r(p), (long long)p->params, is_chosen(p, r));
    }
}

static void print_table(const struct point *front, size_t n, const struct resolution *r, FILE *out)
{
    fprintf(out, "%zu of %lld candidates are not beaten in both loss and throughput\n", n,
            (long long)r->n_candidates);
    fprintf(out, "  %8s %12s  %7s %5s %5s %5s %6s %13s\n", "loss", "tok/s", "d_model", "heads",
            "kv", "gqa", "d_ff", "params");
    size_t every = (n + TABLE_ROWS - 1) / TABLE_ROWS;
    for (size_t i = 0; i < n; i++) {
        const struct point *p = &front[i];
        bool chosen = is_chosen(p, r);
        if (i % every != 0 && i + 1 != n && !chosen)
            continue;
        fprintf(out, "  %8.4f %12.5g  %7d %5d %5d %5d %6d %13lld%s\n", p->loss, p->throughput,
                p->d_model, p->heads, p->kv_heads, p->heads / p->kv_heads, p->d_ff,
                (long long)p->params, chosen ? "  chosen" : "");
    }
    if (every > 1)
        fprintf(out, "  (one in %zu is shown; --csv has all)\n", every);
}

/* ---- the plot, by gnuplot -------------------------------------------------------------------- */

static void write_script(const struct points *all, const struct point *front, size_t n,
                         const struct resolution *r, FILE *f)
{
    size_t every = all->n / CLOUD + 1;
    fprintf(f, "$all << EOD\n");
    for (size_t i = 0; i < all->n; i += every)
        fprintf(f, "%.9g %.9g\n", all->at[i].throughput, all->at[i].loss);
    fprintf(f, "EOD\n$front << EOD\n");
    for (size_t i = 0; i < n; i++)
        fprintf(f, "%.9g %.9g\n", front[i].throughput, front[i].loss);
    fprintf(f, "EOD\n$chosen << EOD\n");
    if (r->found)
        fprintf(f, "%.9g %.9g\n", r->best.metrics[METRIC_THROUGHPUT], r->best.metrics[METRIC_LOSS]);
    fprintf(f, "EOD\nset terminal svg size 800,520 dynamic enhanced background '#ffffff'\n"
               "set title 'Loss against throughput: the candidates of a model' noenhanced\n"
               "set xlabel 'throughput, tokens/s'\nset ylabel 'loss, nats per token'\n"
               "set grid\nset key top left\nset format x '%%.0f'\n"
               "plot $all with points pt 7 ps 0.2 lc rgb '#b0b0b0' title 'candidates', "
               "$front with linespoints pt 7 ps 0.4 lc rgb '#1f5fa8' title 'not beaten in both'");
    if (r->found)
        fprintf(f, ", $chosen with points pt 7 ps 1 lc rgb '#c03020' title '%s'", r->model->name);
    fprintf(f, "\n");
}

static const char *plot(const struct points *all, const struct point *front, size_t n,
                        const struct resolution *r, FILE *svg)
{
    FILE *script = tmpfile();
    const char *why = NULL;
    if (!script)
        return "no temporary file could be made for the plot: is the disk full?";
    write_script(all, front, n, r, script);
    plot_svg(script, svg, &why);
    fclose(script);
    return why;
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

bool frontier(struct arena *a, const struct spec *s, int model, struct diags *d, FILE *csv,
              FILE *svg, FILE *out, const char **why)
{
    struct resolution *r = arena_alloc(a, sizeof *r);
    struct points all = {0};
    *why = NULL;
    if (!resolve(a, s, model, d, r) || !both_known(r, d))
        return false;
    if (!search_each(a, r, 1u << METRIC_LOSS | 1u << METRIC_THROUGHPUT, d, collect, &all)) {
        free(all.at);
        return false;
    }
    struct point *front = malloc((all.n + 1) * sizeof *front);
    if (all.full || !front) {
        *why = "not enough memory for the candidates: narrow the knobs";
    } else {
        qsort(all.at, all.n, sizeof *all.at, compare);
        size_t n = pareto(&all, front);
        if (out)
            print_table(front, n, r, out);
        if (csv)
            write_csv(front, n, r, csv);
        if (svg && n > 0)
            *why = plot(&all, front, n, r, svg);
    }
    free(front);
    free(all.at);
    return true;
}

/* fit.c - `archc fit`: a run table becomes a law. The command line, the comparison of the forms,
 * the JSON; the fit itself is in law/. */
#include "driver.h"

#include "../law/runs.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

enum { MAX_SIZE_STEPS = 64, MAX_BOOTSTRAP = 5000, N_FORMS = LAW_MORPH + 1 };

const char fit_help[] =
    "archc fit RUNS.csv - fit a law of the loss to training runs\n"
    "\n"
    "RUNS.csv has a header and one run a line, columns by name, in any order:\n"
    "  loss                          of the trained model, nats per token\n"
    "  tokens                        it was trained on (or flops: D = flops / (6 params))\n"
    "  params                        N, without embedding and norms; or what gives it:\n"
    "  layers d_model heads kv_heads head_dim d_ff\n"
    "  r                             MLP over attention parameters, or as above\n"
    "  total_params                  with embeddings (form morph)\n"
    "Usual other spellings are known (n_layers, ffn, params_nonembed, ..). --columns loss=val_ce "
    "names\n"
    "any other header. Columns that the law does not know are kept for --where, --holdout, "
    "--group.\n"
    "\n"
    "  --form F          multiplicative (default): (a0 + a1 ln x + a2/x)(b0 + b1 ln r + b2/r) "
    "L_opt\n"
    "                    additive, joint: other ways to combine x = d_model / sqrt(N) and r\n"
    "                    chinchilla: E + A/N^alpha + B/D^beta; morph: depth against width\n"
    "  --l-opt L         L_opt of a run is the lowest loss at its (N, D) (`lowest`, default), a "
    "curve\n"
    "                    through those (`curve`), or that of a built-in law (besiroglu2024)\n"
    "  --group COLUMN    runs with equal texts there are of one size (default: N within 25 %)\n"
    "  --where C=V       fit only runs whose column C is V; V,W or LO..HI also\n"
    "  --holdout C=V     do not fit those runs, predict them: MSE and rank correlation\n"
    "  --progressive     fit on the smaller sizes, predict the next, size by size\n"
    "  --compare         all forms side by side, and what the outliers of r do\n"
    "  --all-r           keep runs with r outside 0.5..5, which are left out otherwise\n"
    "  --drop-highest N  leave out the N highest losses\n"
    "  --bootstrap N     refits for the intervals, kept in the law as samples (default 1000, at "
    "most\n"
    "                    5000; 0: none)\n"
    "  --seed N          of the bootstrap (default 1): same table and seed, same bytes\n"
    "  --date TEXT       of the data, for the record (default: the latest of a column `date`)\n"
    "  -o F.law, -m NAME write the law, under that name; --json prints the result for programs\n"
    "\n"
    "Then, in a .arch file:  import \"runs.law\"  and  train { law = runs }\n"
    "How to read the result, with worked examples: law/README.md\n";

/* ---- options --------------------------------------------------------------------------------- */

static int wrong(const char *text, const char *word)
{
    fprintf(stderr, "archc: %s %s; see archc fit --help\n", text, word);
    return STATUS_USAGE;
}

static bool is_word(const char *name)
{
    static const char *const words[] = {"import",  "require", "maximize", "minimize",
                                        "observe", "free",    "step",     "with"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcmp(words[i], name))
            return true;
    return false;
}

/* "results/Runs-2.csv" is runs_2. */
static const char *name_from(struct arena *a, const char *path)
{
    const char *slash = strrchr(path, '/'), *from = slash ? slash + 1 : path;
    char *name = arena_printf(a, "%.60s", from), *dot = strrchr(name, '.');
    if (dot && dot != name)
        *dot = 0;
    for (char *c = name; *c; c++)
        *c = isalnum((unsigned char)*c) ? (char)tolower((unsigned char)*c) : '_';
    bool good = isalpha((unsigned char)*name) || *name == '_';
    return good && !is_word(name) ? name : arena_printf(a, "law_%s", name);
}

static bool is_name(const char *s)
{
    bool good = isalpha((unsigned char)*s) || *s == '_';
    for (; *s; s++)
        good = good && (isalnum((unsigned char)*s) || *s == '_');
    return good;
}

static const struct law *builtin_law(struct driver *d, const char *name)
{
    static struct spec spec;
    static const char text[] = "# the built-in laws\n";
    struct diags ignored = {.arena = d->arena};
    spec_parse(d->arena, "", text, sizeof text - 1, law_prelude, &ignored, &spec);
    for (int i = 0; i < spec.n_laws; i++)
        if (!strcmp(spec.laws[i].name, name))
            return spec.laws + i;
    return NULL;
}

static int set_l_opt(struct driver *d, struct fit_options *o)
{
    if (!d->l_opt || !strcmp(d->l_opt, "lowest"))
        return 0;
    o->l_opt = FIT_CURVE;
    if (!strcmp(d->l_opt, "curve"))
        return 0;
    o->l_opt = FIT_BASE;
    o->base = builtin_law(d, d->l_opt);
    if (o->base && o->base->form == LAW_CHINCHILLA)
        return 0;
    return wrong("--l-opt wants lowest, curve, hoffmann2022 or besiroglu2024, not", d->l_opt);
}

static int set_form(const char *name, enum law_form *form)
{
    for (int i = 0; name && i < N_FORMS; i++)
        if (!strcmp(law_form_names[i], name)) {
            *form = (enum law_form)i;
            return 0;
        }
    return name ? wrong("--form wants multiplicative, additive, joint, chinchilla or morph, not",
                        name)
                : 0;
}

static int set_options(struct driver *d, struct fit_options *o)
{
    int seed = 1;
    *o = (struct fit_options){.form = LAW_MULTIPLICATIVE, .bootstrap = 1000};
    int status = set_form(d->form, &o->form);
    status = status ? status : set_l_opt(d, o);
    if (status)
        return status;
    if (d->bootstrap && !parse_count(d->bootstrap, 0, MAX_BOOTSTRAP, &o->bootstrap))
        return wrong("--bootstrap wants a number from 0 to 5000, not", d->bootstrap);
    if (d->seed && !parse_count(d->seed, 0, 2147483647, &seed))
        return wrong("--seed wants a number from 0 to 2147483647, not", d->seed);
    if (d->drop_highest && !parse_count(d->drop_highest, 0, MAX_RUNS, &o->drop_highest))
        return wrong("--drop-highest wants a number of runs, not", d->drop_highest);
    if (d->model && (!is_name(d->model) || is_word(d->model)))
        return wrong("-m wants a name of letters, digits and _, not", d->model);
    o->seed = (uint64_t)seed;
    o->all_r = d->all_r;
    o->group = d->group;
    o->holdout = d->holdout;
    o->date = d->date;
    o->name = d->model ? d->model : name_from(d->arena, d->output ? d->output : d->path);
    if (builtin_law(d, o->name))
        o->name = arena_printf(d->arena, "%s_fit", o->name);
    return 0;
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static json_t *real_or_null(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

static void put(json_t *to, const char *name, double v)
{
    json_object_set_new(to, name, real_or_null(v));
}

static void put_value(json_t *to, const char *name, const struct fit_value *v)
{
    if (!isnan(v->value))
        json_object_set_new(to, name,
                            json_pack("{s:o, s:o, s:o}", "value", real_or_null(v->value), "low",
                                      real_or_null(v->lo), "high", real_or_null(v->hi)));
}

static json_t *json_errors(const struct fit_error *e)
{
    return json_pack("{s:i, s:o, s:o}", "runs", e->n, "mse", real_or_null(e->mse), "spearman",
                     real_or_null(e->spearman));
}

static json_t *json_coefficients(const struct law *l)
{
    const struct {
        const char *name;
        double value;
    } all[] = {{"a0", l->a[0]}, {"a1", l->a[1]},     {"a2", l->a[2]},   {"b0", l->b[0]},
               {"b1", l->b[1]}, {"b2", l->b[2]},     {"E", l->E},       {"A", l->A},
               {"B", l->B},     {"alpha", l->alpha}, {"beta", l->beta}, {"e", l->morph_e}};
    json_t *out = json_object();
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!isnan(all[i].value))
            put(out, all[i].name, all[i].value);
    return out;
}

static json_t *json_intervals(const struct fit *f)
{
    json_t *out = json_object();
    put_value(out, "x", &f->best_x);
    put_value(out, "r", &f->best_r);
    put_value(out, "E", &f->E);
    put_value(out, "A", &f->A);
    put_value(out, "B", &f->B);
    put_value(out, "alpha", &f->alpha);
    put_value(out, "beta", &f->beta);
    put_value(out, "e", &f->morph_e);
    return out;
}

static json_t *json_notes(const struct fit *f)
{
    json_t *out = json_array();
    for (int i = 0; i < f->runs->n_notes; i++)
        json_array_append_new(out, json_string(f->runs->notes[i]));
    for (int i = 0; i < f->n_notes; i++)
        json_array_append_new(out, json_string(f->notes[i]));
    return out;
}

static json_t *json_fit(const struct fit *f)
{
    json_t *out = json_object();
    json_object_set_new(out, "law", json_string(f->law.name));
    json_object_set_new(out, "form", json_string(law_form_names[f->law.form]));
    json_object_set_new(out, "rows",
                        json_pack("{s:i, s:i, s:i, s:i, s:i}", "table", f->n_rows, "fitted",
                                  f->n_used, "outliers", f->n_outliers, "highest", f->n_high,
                                  "held_out", f->n_held));
    json_object_set_new(out, "groups", json_integer(f->n_groups));
    json_object_set_new(out, "coefficients", json_coefficients(&f->law));
    json_object_set_new(out, "best", json_intervals(f));
    put(out, "objective", f->objective);
    json_object_set_new(out, "residuals", json_errors(&f->fitted));
    json_object_set_new(out, "held_out", f->n_held ? json_errors(&f->held_out) : json_null());
    put(out, "noise", f->noise);
    json_object_set_new(out, "refits", json_integer(f->n_refits));
    json_object_set_new(out, "refused", json_integer(f->n_refused));
    json_object_set_new(out, "notes", json_notes(f));
    return out;
}

static json_t *json_steps(const struct fit_step *steps, int n)
{
    json_t *out = json_array();
    for (int i = 0; i < n; i++) {
        json_t *s = json_errors(&steps[i].error);
        put(s, "smallest", steps[i].params_lo);
        put(s, "largest", steps[i].params_hi);
        put(s, "target", steps[i].target);
        put(s, "x", steps[i].best_x);
        put(s, "r", steps[i].best_r);
        json_object_set_new(s, "fitted", json_boolean(steps[i].fitted));
        json_array_append_new(out, s);
    }
    return out;
}

static int print_json(json_t *j)
{
    int failed =
        json_dumpf(j, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(12));
    putchar('\n');
    json_decref(j);
    return failed ? STATUS_WORLD : 0;
}

/* ---- all forms side by side ------------------------------------------------------------------ */

struct row {
    const char *name;
    bool fitted, predicted;
    struct fit fit;
    struct fit_error held; /* --holdout, else the largest size from the smaller ones */
};

/* One form; what it cannot be fitted to is said in its row. */
static void compare_one(struct driver *d, const struct runs *t, const struct fit_options *base,
                        enum law_form form, bool all_r, struct row *row)
{
    struct fit_options o = *base;
    struct fit_step steps[MAX_SIZE_STEPS];
    struct text why = {0};
    o.form = form;
    o.all_r = all_r;
    o.bootstrap = 0;
    *row = (struct row){.name = all_r && !base->all_r
                                    ? arena_printf(d->arena, "%s, any r", law_form_names[form])
                                    : law_form_names[form]};
    row->fitted = fit_law(d->arena, t, &o, &row->fit, &why);
    row->held = row->fit.held_out;
    row->predicted = row->fitted && row->fit.n_held > 0;
    if (row->fitted && !o.holdout) {
        int n = fit_progressive(d->arena, t, &o, steps, MAX_SIZE_STEPS, &why);
        row->predicted = n > 0 && steps[n - 1].fitted;
        if (row->predicted)
            row->held = steps[n - 1].error;
    }
    text_free(&why);
}

static void print_error(const struct fit_error *e)
{
    printf("  %-6d %-9.3g ", e->n, e->mse);
    if (isnan(e->spearman))
        printf("%-8s", "-");
    else
        printf("%-8.4f", e->spearman);
}

static void print_best(double v)
{
    if (isnan(v))
        printf("  %-7s", "-");
    else
        printf("  %-7.4g", v);
}

static json_t *json_row(const struct row *r)
{
    json_t *j = r->fitted ? json_fit(&r->fit) : json_object();
    json_object_set_new(j, "name", json_string(r->name));
    json_object_set_new(j, "predicted", r->predicted ? json_errors(&r->held) : json_null());
    return j;
}

static int compare(struct driver *d, const struct runs *t, const struct fit_options *o)
{
    static const enum law_form order[] = {LAW_MULTIPLICATIVE, LAW_MULTIPLICATIVE, LAW_ADDITIVE,
                                          LAW_JOINT,          LAW_MORPH,          LAW_CHINCHILLA};
    enum { N = sizeof order / sizeof *order };
    json_t *all = json_array();
    int outliers = 0;
    if (!d->json) {
        printf("%-26s  %-26s  %-26s\n", "", "fitted",
               o->holdout ? "held out" : "next size predicted");
        printf("%-26s  %-6s %-9s %-8s  %-6s %-9s %-8s  %-7s  %-7s\n", "form", "runs", "MSE",
               "Spearman", "runs", "MSE", "Spearman", "x*", "r*");
    }
    for (int i = 0; i < N; i++) {
        struct row *r = arena_alloc(d->arena, sizeof *r);
        if (i == 1 && o->all_r)
            continue;
        compare_one(d, t, o, order[i], o->all_r || i == 1, r);
        outliers = i == 0 ? r->fit.n_outliers : outliers;
        if (i == 1 && outliers == 0)
            continue;
        json_array_append_new(all, json_row(r));
        if (d->json)
            continue;
        printf("%-26s", r->name);
        if (!r->fitted) {
            printf("  cannot be fitted to this table: archc fit --form %s says why\n",
                   law_form_names[order[i]]);
            continue;
        }
        print_error(&r->fit.fitted);
        if (r->predicted)
            print_error(&r->held);
        else
            printf("  %-6s %-9s %-8s", "-", "-", "-");
        print_best(r->fit.best_x.value);
        print_best(r->fit.best_r.value);
        putchar('\n');
    }
    if (d->json)
        return print_json(all);
    json_decref(all);
    printf("\nSpearman: ranks of loss / lowest loss at its (N, D); chinchilla: of the loss itself, "
           "which\n"
           "N and D alone decide. L_opt of conditional forms is %s.\n",
           o->l_opt == FIT_LOWEST  ? "the lowest loss at each (N, D), for predicted runs too"
           : o->l_opt == FIT_CURVE ? "a curve through the lowest losses"
                                   : o->base->name);
    return 0;
}

/* ---- the command ----------------------------------------------------------------------------- */

static int at_fault(struct text *why)
{
    fputs(why->at ? why->at : "archc: the runs cannot be fitted\n", stderr);
    bool world = why->at && !strncmp(why->at, "archc:", 6);
    text_free(why);
    return world ? STATUS_WORLD : STATUS_SPEC;
}

/* Written whole or not at all. */
static int write_law(struct driver *d, const struct fit *f)
{
    const char *part = arena_printf(d->arena, "%s.part", d->output);
    FILE *out = fopen(part, "w");
    if (out)
        fit_write(f, out);
    bool good = out && !ferror(out);
    if (out && fclose(out) != 0)
        good = false;
    if (good && rename(part, d->output) == 0)
        return 0;
    fprintf(stderr, "archc: cannot write %s: %s\n", d->output, strerror(errno));
    unlink(part);
    return STATUS_WORLD;
}

static int progressive(struct driver *d, const struct runs *t, const struct fit_options *o,
                       struct fit_step *steps, int *n)
{
    struct text why = {0};
    *n = 0;
    if (!d->progressive)
        return 0;
    int got = fit_progressive(d->arena, t, o, steps, MAX_SIZE_STEPS, &why);
    if (got < 0)
        return at_fault(&why);
    *n = got;
    text_free(&why);
    return 0;
}

static int fit_and_report(struct driver *d, const struct runs *t, const struct fit_options *o)
{
    struct fit_step steps[MAX_SIZE_STEPS];
    struct fit *f = arena_alloc(d->arena, sizeof *f);
    struct text why = {0};
    int n_steps;
    if (!fit_law(d->arena, t, o, f, &why))
        return at_fault(&why);
    text_free(&why);
    int status = progressive(d, t, o, steps, &n_steps);
    if (status)
        return status;
    if (d->json) {
        json_t *j = json_fit(f);
        if (d->progressive)
            json_object_set_new(j, "progressive", json_steps(steps, n_steps));
        status = print_json(j);
    } else {
        fit_print(f, stdout);
        if (d->progressive) {
            printf("\nprogressive: fitted on the smaller sizes, the next predicted\n");
            fit_steps_print(steps, n_steps, stdout);
        }
    }
    if (!status && d->output)
        status = write_law(d, f);
    if (!status && d->output && !d->json)
        printf("\nwritten to %s; use it with: import \"%s\" and law = %s\n", d->output, d->output,
               f->law.name);
    return status;
}

int run_fit(struct driver *d)
{
    struct fit_options o;
    struct runs all, kept;
    struct text why = {0};
    int status = set_options(d, &o);
    if (status)
        return status;
    if (!runs_read(d->arena, d->path, d->columns, &all, &why))
        return at_fault(&why);
    kept = all;
    if (d->where && !runs_filter(&all, d->where, true, &kept, &why)) {
        fprintf(stderr, "%s: error: --where: %s\n", d->path, why.at);
        text_free(&why);
        return STATUS_SPEC;
    }
    text_free(&why);
    return d->compare ? compare(d, &kept, &o) : fit_and_report(d, &kept, &o);
}

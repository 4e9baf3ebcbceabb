/* fit_report.c - what a fit says: for the terminal, and as a declaration in the language. */
#include "fit.h"

#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

/* Lines go out with a prefix, so that the report is a comment in the written law too. */
struct sink {
    FILE *out;
    const char *prefix;
};

/* Names of files and columns may hold anything; a law is one line of text after the other. */
static char *plain(char *text)
{
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || (unsigned char)*c >= 0x7f)
            *c = '?';
    return text;
}

static void say(const struct sink *s, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void say(const struct sink *s, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    fprintf(s->out, "%s%s\n", s->prefix, plain(line));
}

/* 79.8M, 1.24B: four digits. */
static const char *count_text(char text[32], double v)
{
    static const struct {
        double unit;
        const char *suffix;
    } units[] = {{1e12, "T"}, {1e9, "B"}, {1e6, "M"}, {1e3, "K"}};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (v >= units[i].unit) {
            snprintf(text, 32, "%.4g%s", v / units[i].unit, units[i].suffix);
            return text;
        }
    snprintf(text, 32, "%.4g", v);
    return text;
}

static const char *number_or(char text[32], double v, const char *otherwise)
{
    if (isnan(v))
        return otherwise;
    snprintf(text, 32, "%.4g", v);
    return text;
}

static const char *file_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* ---- the report ------------------------------------------------------------------------------ */

static void say_rows(const struct sink *s, const struct fit *f)
{
    char lo[32], hi[32];
    say(s, "rows       %d in the table, %d fitted", f->n_rows, f->n_used);
    if (f->n_lonely)
        say(s, "           %d of them only in L_opt: less than three shapes at their (N, D)",
            f->n_lonely);
    if (f->n_outliers)
        say(s,
            "           %d left out: r outside 0.5..5, which wrecks the fit (--all-r keeps them)",
            f->n_outliers);
    if (f->n_high)
        say(s, "           %d left out: the highest losses (--drop-highest)", f->n_high);
    if (f->n_held)
        say(s, "           %d held out: %s", f->n_held, f->options.holdout);
    if (!isnan(f->law.params_lo))
        say(s, "N          %s to %s", count_text(lo, f->law.params_lo),
            count_text(hi, f->law.params_hi));
    if (is_conditional(f->law.form))
        say(s, "x, r       x = d_model / sqrt(N) %s to %s, r %s to %s",
            number_or(lo, f->law.x_lo, "unknown"), number_or(hi, f->law.x_hi, "unknown"),
            number_or((char[32]){0}, f->law.r_lo, "unknown"),
            number_or((char[32]){0}, f->law.r_hi, "unknown"));
}

static void say_l_opt(const struct sink *s, const struct fit *f)
{
    if (!is_conditional(f->law.form))
        return;
    if (f->options.l_opt == FIT_LOWEST)
        say(s, "L_opt      the lowest loss of each of %d (N, D)", f->n_groups);
    else if (f->options.l_opt == FIT_CURVE)
        say(s, "L_opt      a Chinchilla curve through the lowest losses of %d (N, D)", f->n_groups);
    else
        say(s, "L_opt      that of %s", f->options.base->name);
}

static void say_value(const struct sink *s, const char *name, const struct fit_value *v)
{
    if (isnan(v->value) || v->value == 0) /* 0: a term that the curve does not have */
        return;
    if (isnan(v->lo))
        say(s, "%-10s %.6g", name, v->value);
    else if (v->share < 1)
        say(s, "%-10s %.6g   (%.4g .. %.4g; %.1f %% of the refits have none)", name, v->value,
            v->lo, v->hi, 100 * (1 - v->share));
    else
        say(s, "%-10s %.6g   (%.4g .. %.4g)", name, v->value, v->lo, v->hi);
}

static void say_best(const struct sink *s, const struct fit *f)
{
    const struct {
        bool fitted;
        const char *name;
        const struct fit_value *v;
    } both[] = {{f->has_width, "x*", &f->best_x}, {f->has_ratio, "r*", &f->best_r}};
    if (f->law.form == LAW_JOINT || !is_conditional(f->law.form))
        return;
    for (int i = 0; i < 2; i++) {
        if (both[i].fitted && isnan(both[i].v->value))
            say(s, "%-10s none: the fitted factor has no minimum, so no U shape shows here%s",
                both[i].name, both[i].v->share > 0.025 ? " (some refits have one)" : "");
        else if (both[i].fitted)
            say_value(s, both[i].name, both[i].v);
    }
    say_value(s, f->law.form == LAW_ADDITIVE ? "addend" : "factor", &f->best_loss);
}

static void say_coefficients(const struct sink *s, const struct fit *f)
{
    const struct law *l = &f->law;
    if (is_conditional(l->form)) {
        say(s, "width      a0 %.6g, a1 %.6g, a2 %.6g", l->a[0], l->a[1], l->a[2]);
        if (l->form == LAW_JOINT)
            say(s, "joint      b0 %.6g, b1 %.6g", l->b[0], l->b[1]);
        else
            say(s, "ratio      b0 %.6g, b1 %.6g, b2 %.6g", isnan(l->b[0]) ? 0 : l->b[0], l->b[1],
                l->b[2]);
    }
    say_best(s, f);
    say_value(s, "E", &f->E);
    say_value(s, "A", &f->A);
    say_value(s, "B", &f->B);
    say_value(s, "alpha", &f->alpha);
    say_value(s, "beta", &f->beta);
    say_value(s, "e", &f->morph_e);
}

static void say_errors(const struct sink *s, const struct fit *f)
{
    char text[32];
    if (f->law.form == LAW_CHINCHILLA)
        say(s,
            "objective  %.6g (sum of Huber, delta 1e-3, of log loss); %d of %d starts come within "
            "0.1 %%",
            f->objective, f->n_at_best, f->n_starts);
    say(s, "residuals  MSE %.3g, Spearman %s, rms %.3g %% of the loss", f->fitted.mse,
        number_or(text, f->fitted.spearman, "undefined"), 100 * f->relative_rms);
    if (f->n_held)
        say(s, "held out   MSE %.3g, Spearman %s over %d runs", f->held_out.mse,
            number_or(text, f->held_out.spearman, "undefined"), f->held_out.n);
    if (f->n_repeated)
        say(s, "noise      %.3g: standard deviation of the loss over repeats of %d shapes",
            f->noise, f->n_repeated);
    if (f->options.bootstrap)
        say(s, "intervals  95 %%, from %d bootstrap refits (seed %llu)%s", f->n_refits,
            (unsigned long long)f->options.seed,
            f->n_refused ? ", without those that end outside what a law can hold" : "");
    if (f->n_refused)
        say(s, "           %d refits were refused", f->n_refused);
}

static void say_notes(const struct sink *s, const char *const *notes, int n)
{
    for (int i = 0; i < n; i++)
        say(s, "note: %s", notes[i]);
}

static void say_all(const struct sink *s, const struct fit *f)
{
    say_rows(s, f);
    say_l_opt(s, f);
    say_coefficients(s, f);
    say_errors(s, f);
    say_notes(s, f->runs->notes, f->runs->n_notes);
    say_notes(s, f->notes, f->n_notes);
}

void fit_print(const struct fit *f, FILE *out)
{
    struct sink s = {out, "  "};
    fprintf(out, "%s: a %s law from %s\n", f->law.name, law_form_names[f->law.form],
            file_name(f->runs->path));
    say_all(&s, f);
}

void fit_steps_print(const struct fit_step *steps, int n, FILE *out)
{
    char lo[32], hi[32], target[32], x[32], r[32], rank[32];
    fprintf(out, "  fitted on              predicted   runs   MSE        Spearman   x*       r*\n");
    for (int i = 0; i < n; i++) {
        const struct fit_step *s = steps + i;
        fprintf(out, "  %-9s .. %-9s %-11s ", count_text(lo, s->params_lo),
                count_text(hi, s->params_hi), count_text(target, s->target));
        if (s->fitted)
            fprintf(out, "%-6d %-10.3g %-10s %-8s %s\n", s->error.n, s->error.mse,
                    number_or(rank, s->error.spearman, "-"), number_or(x, s->best_x, "-"),
                    number_or(r, s->best_r, "-"));
        else
            fprintf(out, "no fit: %s", s->why ? s->why : "\n");
    }
}

/* ---- the law, in the language ---------------------------------------------------------------- */

static void write_source(const struct fit *f, FILE *out)
{
    char text[512];
    snprintf(text, sizeof text, "archc fit %.200s: %d runs%s%.100s", file_name(f->runs->path),
             f->n_used, f->options.date ? ", data of " : "",
             f->options.date ? f->options.date : "");
    fputs("    source = \"", out);
    for (const char *c = plain(text); *c; c++)
        fprintf(out, "%s%c", *c == '"' || *c == '\\' ? "\\" : "", *c);
    fputs("\"\n", out);
}

static void write_number(const char *name, double v, FILE *out)
{
    fprintf(out, "        %-5s = %.10g\n", name, v);
}

/* Bounds are rounded outwards, so that the runs themselves lie inside. */
static double rounded(double v, bool up)
{
    double unit = pow(10, floor(log10(v)) - 3);
    return unit * (up ? ceil(v / unit - 1e-9) : floor(v / unit + 1e-9));
}

static void write_range(const char *name, double lo, double hi, double least, double most,
                        FILE *out)
{
    char from[32], to[32];
    if (isnan(lo) || !(rounded(lo, false) < rounded(hi, true)))
        return;
    fprintf(out, "        %-6s = %s..%s\n", name, count_text(from, fmax(least, rounded(lo, false))),
            count_text(to, fmin(most, rounded(hi, true))));
}

/* Which coefficients the law has, with their names in `samples`. */
static const struct coefficient {
    const char *block, *name;
    size_t at, sample;
} coefficients[] = {
    {"chinchilla", "E", offsetof(struct law, E), offsetof(struct law_sample, E)},
    {"chinchilla", "A", offsetof(struct law, A), offsetof(struct law_sample, A)},
    {"chinchilla", "B", offsetof(struct law, B), offsetof(struct law_sample, B)},
    {"chinchilla", "alpha", offsetof(struct law, alpha), offsetof(struct law_sample, alpha)},
    {"chinchilla", "beta", offsetof(struct law, beta), offsetof(struct law_sample, beta)},
    {"width", "a0", offsetof(struct law, a[0]), offsetof(struct law_sample, a[0])},
    {"width", "a1", offsetof(struct law, a[1]), offsetof(struct law_sample, a[1])},
    {"width", "a2", offsetof(struct law, a[2]), offsetof(struct law_sample, a[2])},
    {"ratio", "b0", offsetof(struct law, b[0]), offsetof(struct law_sample, b[0])},
    {"ratio", "b1", offsetof(struct law, b[1]), offsetof(struct law_sample, b[1])},
    {"ratio", "b2", offsetof(struct law, b[2]), offsetof(struct law_sample, b[2])},
    {"morph", "e", offsetof(struct law, morph_e), offsetof(struct law_sample, morph_e)},
};
enum { COEFFICIENTS = sizeof coefficients / sizeof *coefficients };

static double coefficient(const struct law *l, int i)
{
    return *(const double *)(const void *)((const char *)l + coefficients[i].at);
}

static void write_coefficients(const struct law *l, FILE *out)
{
    const char *open = NULL;
    for (int i = 0; i < COEFFICIENTS; i++) {
        if (isnan(coefficient(l, i)))
            continue;
        if (!open || strcmp(open, coefficients[i].block))
            fprintf(out, "%s    %s {\n", open ? "    }\n" : "", coefficients[i].block);
        open = coefficients[i].block;
        write_number(coefficients[i].name, coefficient(l, i), out);
    }
    fputs("    }\n", out);
}

static void write_list(const struct law *l, const struct coefficient *c, FILE *out)
{
    enum { MARGIN = 96 };
    int column = fprintf(out, "        %-5s = [", c->name);
    for (int k = 0; k < l->n_samples; k++) {
        char text[32];
        const char *sample = (const char *)(l->samples + k);
        int n = snprintf(text, sizeof text, "%.7g%s",
                         *(const double *)(const void *)(sample + c->sample),
                         k + 1 < l->n_samples ? "," : "]");
        if (column + n + 1 > MARGIN) {
            fputs("\n           ", out);
            column = 11;
        }
        column += fprintf(out, "%s%s", k ? " " : "", text);
    }
    fputc('\n', out);
}

static bool varies(const struct law *l, const struct coefficient *c)
{
    for (int k = 0; k < l->n_samples; k++) {
        const char *sample = (const char *)(l->samples + k);
        if (*(const double *)(const void *)(sample + c->sample) != 0)
            return true;
    }
    return false;
}

static void write_samples(const struct law *l, FILE *out)
{
    if (l->n_samples == 0)
        return;
    fputs("    samples {\n", out);
    for (int i = 0; i < COEFFICIENTS; i++)
        if (!isnan(coefficient(l, i)) && (coefficient(l, i) != 0 || varies(l, coefficients + i)))
            write_list(l, coefficients + i, out);
    fputs("    }\n", out);
}

static void write_fitted(const struct law *l, FILE *out)
{
    char text[512] = "";
    FILE *part = fmemopen(text, sizeof text, "w");
    if (!part)
        return;
    if (is_conditional(l->form)) {
        write_range("r", l->r_lo, l->r_hi, 0.001, 1000, part);
        write_range("width", l->x_lo, l->x_hi, 1e-6, 100, part);
    }
    write_range("params", l->params_lo, l->params_hi, 1, 1e15, part);
    fclose(part);
    if (*text)
        fprintf(out, "    fitted {\n%s    }\n", text);
}

void fit_write(const struct fit *f, FILE *out)
{
    struct sink s = {out, "#   "};
    fprintf(out, "# A %s law, fitted by archc fit.\n#\n", law_form_names[f->law.form]);
    say_all(&s, f);
    fprintf(out, "\nlaw %s {\n", f->law.name);
    write_source(f, out);
    fprintf(out, "    form   = %s\n", law_form_names[f->law.form]);
    if (is_conditional(f->law.form) && f->options.l_opt == FIT_BASE)
        fprintf(out, "    base   = %s\n", f->options.base->name);
    write_coefficients(&f->law, out);
    write_fitted(&f->law, out);
    write_samples(&f->law, out);
    fputs("}\n", out);
}

/* options.c - the command line of a subcommand, read by its table. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"

/* Levenshtein distance, at most 63 letters a word. */
static int distance(const char *a, const char *b)
{
    size_t n = strlen(b);
    int row[64];
    if (n > 63 || strlen(a) > 63)
        return 64;
    for (size_t j = 0; j <= n; j++)
        row[j] = (int)j;
    for (size_t i = 0; a[i]; i++) {
        int corner = row[0];
        row[0] = (int)i + 1;
        for (size_t j = 0; j < n; j++) {
            int best = corner + (a[i] != b[j]);
            corner = row[j + 1];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (corner + 1 < best)
                best = corner + 1;
            row[j + 1] = best;
        }
    }
    return row[n];
}

const char *nearest_word(const char *word, const char *const *words)
{
    const char *best = NULL;
    int least = (int)strlen(word) / 3 + 2;
    for (; *words; words++) {
        int d = distance(word, *words);
        if (d < least) {
            least = d;
            best = *words;
        }
    }
    return best;
}

static double suffix_factor(const char *suffix)
{
    static const struct {
        const char *text;
        double factor;
    } table[] = {{"", 1},     {"K", 1e3},     {"k", 1e3},        {"M", 1e6},          {"B", 1e9},
                 {"T", 1e12}, {"Ki", 1024.0}, {"Mi", 1048576.0}, {"Gi", 1073741824.0}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(suffix, table[i].text) == 0)
            return table[i].factor;
    return 0;
}

bool number_read(const char *text, int64_t min, int64_t max, int64_t *out)
{
    if (strpbrk(text, "xXpPnN") || *text == '\0' || strchr(" \t\n\v\f\r", *text))
        return false;
    /* Plain digits are exact beyond 2^53; with a point, an exponent or a suffix a double will do.
     */
    char *end;
    errno = 0;
    long long whole = strtoll(text, &end, 10);
    if (*end == '\0' && errno == 0) {
        *out = whole;
        return whole >= min && whole <= max;
    }
    double x = strtod(text, &end) * suffix_factor(end);
    if (end == text || suffix_factor(end) == 0 || !(fabs(x) < 9e18) || x != floor(x))
        return false;
    *out = (int64_t)x;
    return *out >= min && *out <= max;
}

static bool real_read(const char *text, double *out)
{
    char *end;
    if (*text == '\0' || strchr(" \t\n\v\f\r", *text) || strpbrk(text, "xX"))
        return false;
    *out = strtod(text, &end);
    double factor = suffix_factor(end);
    *out *= factor;
    return end != text && factor != 0 && isfinite(*out);
}

static bool wrong_value(struct failure *f, const struct option *o, const char *text)
{
    bool limited = o->min != 0 || o->max != 0;
    const char *kind = o->kind == OPTION_INT ? "a whole number" : "a number";
    if (limited && o->max >= 9e15)
        return failed(f, STATUS_USAGE, "--%s takes %s of at least %g, not '%s'", o->name, kind,
                      o->min, text);
    if (limited)
        return failed(f, STATUS_USAGE, "--%s takes %s from %g to %g, not '%s'", o->name, kind,
                      o->min, o->max, text);
    return failed(f, STATUS_USAGE, "--%s takes %s, not '%s'", o->name, kind, text);
}

static bool choice_read(const struct option *o, const char *text, struct failure *f)
{
    size_t n = strlen(text);
    for (const char *p = o->argument; *p && n > 0;) {
        size_t word = strcspn(p, "|");
        if (word == n && memcmp(p, text, n) == 0) {
            *(const char **)o->value = text;
            return true;
        }
        p += word + (p[word] == '|');
    }
    return failed(f, STATUS_USAGE, "--%s takes one of %s, not '%s'", o->name, o->argument, text);
}

static bool value_read(const struct option *o, const char *text, struct failure *f)
{
    bool limited = o->min != 0 || o->max != 0;
    switch (o->kind) {
    case OPTION_INT: {
        int64_t min = limited ? (int64_t)o->min : INT64_MIN;
        int64_t max = limited && o->max < 9e18 ? (int64_t)o->max : INT64_MAX;
        return number_read(text, min, max, o->value) || wrong_value(f, o, text);
    }
    case OPTION_REAL: {
        double x;
        if (!real_read(text, &x) || (limited && !(x >= o->min && x <= o->max)))
            return wrong_value(f, o, text);
        *(double *)o->value = x;
        return true;
    }
    case OPTION_TEXT:
        *(const char **)o->value = text;
        return true;
    case OPTION_CHOICE:
        return choice_read(o, text, f);
    default:
        return true;
    }
}

static void texts_add(struct texts *t, const char *word)
{
    t->at = need(realloc(t->at, ((size_t)t->n + 1) * sizeof *t->at));
    t->at[t->n++] = word;
}

static void print_help(const struct option *table, const char *summary, const char *command)
{
    printf("usage: %s %s [options]\n\n%s\n\n", program_name, command, summary);
    for (const struct option *o = table; o->name; o++) {
        char left[64];
        snprintf(left, sizeof left, "--%s%s%s", o->name, o->argument ? " " : "",
                 o->argument ? o->argument : "");
        printf("  %-26s %s\n", left, o->help);
    }
    printf("  %-26s %s\n", "--help", "this text");
}

static const struct option *find(const struct option *table, const char *name, size_t length)
{
    for (; table->name; table++)
        if (strlen(table->name) == length && memcmp(table->name, name, length) == 0)
            return table;
    return NULL;
}

static bool unknown(const struct option *table, const char *word, const char *command,
                    struct failure *f)
{
    const char *names[64];
    int n = 0;
    for (; table->name && n < 63; table++)
        names[n++] = table->name;
    names[n] = NULL;
    const char *near = nearest_word(word + 2, names);
    if (near)
        return failed(f, STATUS_USAGE, "no option %s: did you mean --%s?", word, near);
    return failed(f, STATUS_USAGE, "no option %s: '%s %s --help' lists them", word, program_name,
                  command);
}

/* Reads the option at argv[*i] and moves *i behind it. */
static bool option_read(const struct option *table, int argc, char **argv, int *i,
                        struct failure *f)
{
    const char *word = argv[(*i)++];
    const char *equals = strchr(word, '=');
    size_t length = equals ? (size_t)(equals - word) - 2 : strlen(word + 2);
    const struct option *o = find(table, word + 2, length);
    if (!o)
        return unknown(table, word, argv[0], f);
    if (o->given)
        *o->given = true;
    if (o->kind == OPTION_FLAG) {
        *(bool *)o->value = true;
        return equals ? failed(f, STATUS_USAGE, "--%s takes no value", o->name) : true;
    }
    if (!equals && (*i >= argc || strncmp(argv[*i], "--", 2) == 0))
        return failed(f, STATUS_USAGE, "--%s needs a value: --%s %s", o->name, o->name,
                      o->argument);
    if (o->kind != OPTION_TEXTS)
        return value_read(o, equals ? equals + 1 : argv[(*i)++], f);
    if (equals)
        texts_add(o->value, equals + 1);
    else
        while (*i < argc && strncmp(argv[*i], "--", 2) != 0)
            texts_add(o->value, argv[(*i)++]);
    return true;
}

enum options_result options_read(const struct option *table, const char *summary, int argc,
                                 char **argv, struct texts *positional, struct failure *f)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help(table, summary, argv[0]);
            return OPTIONS_HELP;
        }
    }
    for (int i = 1; i < argc;) {
        if (strncmp(argv[i], "--", 2) == 0) {
            if (!option_read(table, argc, argv, &i, f))
                return OPTIONS_WRONG;
        } else if (positional && (argv[i][0] != '-' || argv[i][1] == '\0')) {
            texts_add(positional, argv[i++]);
        } else {
            failed(f, STATUS_USAGE, "'%s' is not an option: '%s %s --help' lists them", argv[i],
                   program_name, argv[0]);
            return OPTIONS_WRONG;
        }
    }
    return OPTIONS_READ;
}

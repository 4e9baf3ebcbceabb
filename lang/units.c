/* units.c - number literals: digits, suffix, unit; and numbers as text again. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "front.h"

const struct unit_info unit_infos[UNIT_COUNT] = {
    [UNIT_NONE] = {{0, 0, 0, 0}, "a plain number", "without a unit"},
    [UNIT_FRACTION] = {{0, 0, 0, 0}, "a fraction", "as a fraction or with %"},
    [UNIT_SECONDS] = {{1, 0, 0, 0}, "a time", "in us, ms or s"},
    [UNIT_BYTES] = {{0, 1, 0, 0}, "a number of bytes", "in KB, MB, GB, TB, KiB, MiB or GiB"},
    [UNIT_TOKENS_S] = {{-1, 0, 1, 0}, "tokens per second", "in tok/s"},
    [UNIT_BYTES_S] = {{-1, 1, 0, 0}, "bytes per second", "in GB/s or TB/s"},
    [UNIT_FLOPS] = {{-1, 0, 0, 1}, "operations per second", "in GFLOP/s or TFLOP/s"},
};

static const struct spelling {
    const char *name;
    double factor;
    enum unit unit;
} spellings[] = {
    {"", 1, UNIT_NONE},
    {"K", 1e3, UNIT_NONE},
    {"M", 1e6, UNIT_NONE},
    {"B", 1e9, UNIT_NONE},
    {"T", 1e12, UNIT_NONE},
    {"Ki", 0x1p10, UNIT_NONE},
    {"Mi", 0x1p20, UNIT_NONE},
    {"Gi", 0x1p30, UNIT_NONE},
    {"%", 0.01, UNIT_FRACTION},
    {"us", 1e-6, UNIT_SECONDS},
    {"ms", 1e-3, UNIT_SECONDS},
    {"s", 1, UNIT_SECONDS},
    {"KB", 1e3, UNIT_BYTES},
    {"MB", 1e6, UNIT_BYTES},
    {"GB", 1e9, UNIT_BYTES},
    {"TB", 1e12, UNIT_BYTES},
    {"KiB", 0x1p10, UNIT_BYTES},
    {"MiB", 0x1p20, UNIT_BYTES},
    {"GiB", 0x1p30, UNIT_BYTES},
    {"tok/s", 1, UNIT_TOKENS_S},
    {"Ktok/s", 1e3, UNIT_TOKENS_S},
    {"Mtok/s", 1e6, UNIT_TOKENS_S},
    {"MB/s", 1e6, UNIT_BYTES_S},
    {"GB/s", 1e9, UNIT_BYTES_S},
    {"TB/s", 1e12, UNIT_BYTES_S},
    {"GFLOP/s", 1e9, UNIT_FLOPS},
    {"TFLOP/s", 1e12, UNIT_FLOPS},
};
enum { N_SPELLINGS = sizeof spellings / sizeof *spellings };

bool dim_equal(struct dim a, struct dim b)
{
    return a.seconds == b.seconds && a.bytes == b.bytes && a.tokens == b.tokens &&
           a.flops == b.flops;
}

const char *dim_text(struct arena *a, struct dim d)
{
    for (int u = 0; u < UNIT_COUNT; u++)
        if (dim_equal(d, unit_infos[u].dim))
            return unit_infos[u].means;
    return arena_printf(a, "seconds^%d bytes^%d tokens^%d operations^%d", d.seconds, d.bytes,
                        d.tokens, d.flops);
}

/* Copies digits, point and exponent without '_'; returns how much of the text they take, 0 where a
 * '_' does not stand between digits. */
static size_t copy_digits(const char *text, size_t length, char *out)
{
    size_t i = 0, n = 0;
    for (; i < length; i++) {
        char c = text[i];
        if (c == '_' && !(i + 1 < length && isdigit((unsigned char)text[i + 1])))
            return 0;
        if (c == '_')
            continue;
        bool exponent = (c == 'e' || c == 'E') && i + 1 < length &&
                        (isdigit((unsigned char)text[i + 1]) ||
                         (i + 2 < length && (text[i + 1] == '+' || text[i + 1] == '-') &&
                          isdigit((unsigned char)text[i + 2])));
        if (exponent)
            out[n++] = text[i++];
        if (!isdigit((unsigned char)text[i]) && text[i] != '.' && !exponent)
            break;
        out[n++] = text[i];
    }
    out[n] = '\0';
    return i;
}

static bool same_letters(const char *a, const char *b)
{
    for (; *a && *b; a++, b++)
        if (tolower((unsigned char)*a) != tolower((unsigned char)*b))
            return false;
    return *a == *b;
}

static const struct spelling *find_spelling(const char *tail, bool exactly)
{
    for (int i = 0; i < N_SPELLINGS; i++)
        if (exactly ? !strcmp(spellings[i].name, tail) : same_letters(spellings[i].name, tail))
            return spellings + i;
    return NULL;
}

static bool bad_tail(struct arena *a, const char *tail, const char **why, const char **help)
{
    const struct spelling *near = find_spelling(tail, false);
    *why = arena_printf(a, "'%s' is not a suffix or unit", tail);
    if (near)
        *help = arena_printf(a, "did you mean '%s'?", near->name);
    else
        *help = "suffixes: K M B T Ki Mi Gi %; units: us ms s, KB MB GB TB KiB MiB GiB, tok/s, "
                "GB/s TB/s, GFLOP/s TFLOP/s";
    return false;
}

bool quantity_read(struct arena *a, const char *text, size_t length, struct quantity *out,
                   const char **why, const char **help)
{
    *out = (struct quantity){0};
    *help = NULL;
    if (length > MAX_NUMBER_CHARS) {
        *why = arena_printf(a, "a number of %zu characters", length);
        *help = "write it with an exponent: 1e300";
        return false;
    }
    char digits[MAX_NUMBER_CHARS + 1], tail[MAX_NUMBER_CHARS + 1];
    size_t used = copy_digits(text, length, digits), n = 0;
    if (used == 0) {
        *why = "'_' must stand between digits";
        *help = "write 1_000_000";
        return false;
    }
    for (; used < length; used++)
        if (text[used] != ' ' && text[used] != '\t')
            tail[n++] = text[used];
    tail[n] = '\0';
    const struct spelling *s = find_spelling(tail, true);
    out->value = strtod(digits, NULL);
    if (!s)
        return bad_tail(a, tail, why, help);
    out->value = s->factor == 0.01 ? out->value / 100 : out->value * s->factor;
    out->percent = s->unit == UNIT_FRACTION;
    out->dim = unit_infos[s->unit].dim;
    out->bare = s->unit == UNIT_NONE || s->unit == UNIT_FRACTION;
    if (isfinite(out->value))
        return true;
    *why = "this number is too large";
    *help = "the largest number is about 1e308";
    return false;
}

const char *number_text(char buffer[32], double value)
{
    if (value == floor(value) && fabs(value) < 1e15) {
        snprintf(buffer, 32, "%.0f", value);
        return buffer;
    }
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(buffer, 32, "%.*g", digits, value);
        if (strtod(buffer, NULL) == value)
            break;
    }
    return buffer;
}

const char *quantity_text(struct arena *a, double value, enum unit unit)
{
    char buffer[32];
    const struct spelling *best = NULL;
    for (int i = 0; i < N_SPELLINGS; i++) {
        const struct spelling *s = spellings + i;
        bool fits = s->unit == unit && !strchr(s->name, 'i') && fabs(value) >= s->factor;
        if (fits && (!best || s->factor > best->factor))
            best = s;
        if (s->unit == unit && !strchr(s->name, 'i') && !best && fabs(value) < s->factor)
            best = s; /* the smallest unit is still too large: take it */
    }
    if (!best || unit == UNIT_FRACTION || value == 0 || (unit == UNIT_NONE && fabs(value) < 1e6))
        return arena_printf(a, "%s", number_text(buffer, value));
    snprintf(buffer, sizeof buffer, "%.4g", value / best->factor);
    if (strtod(buffer, NULL) * best->factor != value && unit == UNIT_NONE && value < 1e8)
        return arena_printf(a, "%s", number_text(buffer, value));
    if (strchr(buffer, 'e'))
        snprintf(buffer, sizeof buffer, "%.0f", value / best->factor);
    return arena_printf(a, "%s%s", buffer, best->name);
}

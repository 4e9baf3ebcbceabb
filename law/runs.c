/* runs.c - a table of training runs: CSV with a header, columns by name.
 *
 * The reader takes what spreadsheets, pandas and people write: a byte order mark, CRLF, quotes,
 * comment lines, several spellings of a column. What it does not understand it refuses with file
 * and line; it never guesses at a number. */
#include "runs.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_BYTES = 1 << 28, MAX_ERRORS_SHOWN = 20, MAX_FIELD_SHOWN = 40 };

/* ---- the columns ----------------------------------------------------------------------------- */

/* FLOPS stands for tokens: D = flops / (6 N). */
enum column {
    D_MODEL,
    LAYERS,
    HEADS,
    KV_HEADS,
    HEAD_DIM,
    D_FF,
    R,
    PARAMS,
    TOTAL,
    TOKENS,
    LOSS,
    FLOPS,
    COLUMNS
};

static const struct column_info {
    const char *names[5]; /* the first is the one that is written */
    double least, most;
    bool whole;
    size_t at; /* in struct run */
} columns[COLUMNS] = {
    [D_MODEL] = {{"d_model", "hidden_size"}, 1, 1e7, true, offsetof(struct run, d_model)},
    [LAYERS] = {{"layers", "n_layers", "num_layers", "num_hidden_layers"},
                1,
                1e5,
                true,
                offsetof(struct run, layers)},
    [HEADS] = {{"heads", "n_heads", "num_heads", "num_attention_heads"},
               1,
               1e6,
               true,
               offsetof(struct run, heads)},
    [KV_HEADS] = {{"kv_heads", "n_kv_heads", "num_kv_heads", "num_key_value_heads"},
                  1,
                  1e6,
                  true,
                  offsetof(struct run, kv_heads)},
    [HEAD_DIM] = {{"head_dim", "d_head"}, 1, 1e6, true, offsetof(struct run, head_dim)},
    [D_FF] =
        {{"d_ff", "ffn", "ffn_dim", "intermediate_size"}, 1, 1e8, true, offsetof(struct run, d_ff)},
    [R] = {{"r", "mlp_attention_ratio"}, 1e-6, 1e6, false, offsetof(struct run, r)},
    [PARAMS] = {{"params", "params_nonembed", "non_embedding_params", "params_non_embedding"},
                1,
                1e15,
                false,
                offsetof(struct run, params)},
    [TOTAL] =
        {{"total_params", "params_total"}, 1, 1e15, false, offsetof(struct run, total_params)},
    [TOKENS] = {{"tokens", "train_tokens"}, 1, 1e18, false, offsetof(struct run, tokens)},
    [LOSS] = {{"loss", "val_loss"}, 1e-6, 1e3, false, offsetof(struct run, loss)},
    [FLOPS] = {{"flops", "train_flops"}, 1, 1e30, false, 0},
};
enum { MAX_NAMES = sizeof columns->names / sizeof *columns->names };

static double *field(struct run *r, enum column c)
{
    return (double *)(void *)((char *)r + columns[c].at);
}

static double value_of(const struct run *r, enum column c)
{
    return *(const double *)(const void *)((const char *)r + columns[c].at);
}

static int column_named(const char *name)
{
    for (int c = 0; c < COLUMNS; c++)
        for (int i = 0; i < MAX_NAMES && columns[c].names[i]; i++)
            if (!strcmp(columns[c].names[i], name))
                return c;
    return -1;
}

/* ---- tables ---------------------------------------------------------------------------------- */

void runs_init(struct runs *t, struct arena *a, const char *path, const char *const *extra_names,
               int n_extra)
{
    *t = (struct runs){.arena = a, .path = path, .n_extra = n_extra};
    t->extra_names = arena_alloc(a, (size_t)(n_extra + 1) * sizeof *t->extra_names);
    for (int i = 0; i < n_extra; i++)
        t->extra_names[i] = arena_copy(a, extra_names[i], strlen(extra_names[i]));
}

static void note(struct runs *t, const char *text)
{
    enum { MOST = 8 };
    if (!t->notes)
        t->notes = arena_alloc(t->arena, MOST * sizeof *t->notes);
    for (int i = 0; i < t->n_notes; i++)
        if (!strcmp(t->notes[i], text))
            return;
    if (t->n_notes < MOST)
        t->notes[t->n_notes++] = arena_copy(t->arena, text, strlen(text));
}

/* What the shape determines: law.md section 2, N = L (2 d dq + 2 d dkv + 3 d f). */
static void derive(struct runs *t, struct run *r)
{
    if (isnan(r->kv_heads) && !isnan(r->heads) && !isnan(r->d_ff) && isnan(r->r)) {
        r->kv_heads = r->heads;
        note(t, "no kv_heads: taken as heads, attention without groups");
    }
    if (isnan(r->head_dim) && !isnan(r->heads) && !isnan(r->d_model)) {
        r->head_dim = r->d_model / r->heads;
        note(t, "no head_dim: taken as d_model / heads");
    }
    double attention = 2 * r->head_dim * (r->heads + r->kv_heads), mlp = 3 * r->d_ff;
    double params = r->layers * r->d_model * (attention + mlp);
    if (isnan(r->r))
        r->r = mlp / attention;
    if (isnan(r->params))
        r->params = params;
    else if (fabs(params / r->params - 1) > 0.05)
        note(t, "params differ from what layers, d_model, heads and d_ff give by more than 5 % in "
                "some rows: params should count matrices only, without embedding and norms");
}

void runs_add(struct runs *t, const struct run *row)
{
    if (t->n == t->room) {
        int room = t->room ? 2 * t->room : 64;
        struct run *rows = arena_alloc(t->arena, (size_t)room * sizeof *rows);
        if (t->n)
            memcpy(rows, t->rows, (size_t)t->n * sizeof *rows);
        t->rows = rows;
        t->room = room;
    }
    struct run *r = t->rows + t->n++;
    *r = *row;
    const char **extra = arena_alloc(t->arena, (size_t)(t->n_extra + 1) * sizeof *extra);
    for (int i = 0; i < t->n_extra; i++) {
        const char *text = row->extra && row->extra[i] ? row->extra[i] : "";
        extra[i] = arena_copy(t->arena, text, strlen(text));
    }
    r->extra = extra;
    if (r->line == 0)
        r->line = t->n;
    derive(t, r);
}

static void write_text(const char *s, FILE *out)
{
    if (!strpbrk(s, ",\"\r\n#") && *s != ' ') {
        fputs(s, out);
        return;
    }
    fputc('"', out);
    for (; *s; s++) {
        if (*s == '"')
            fputc('"', out);
        fputc(*s == '\n' || *s == '\r' ? ' ' : *s, out);
    }
    fputc('"', out);
}

void runs_write(const struct runs *t, FILE *out)
{
    bool given[COLUMNS] = {false};
    const char *comma = "";
    for (int i = 0; i < t->n; i++)
        for (int c = 0; c < FLOPS; c++)
            given[c] = given[c] || !isnan(value_of(t->rows + i, (enum column)c));
    for (int c = 0; c < FLOPS; c++)
        if (given[c]) {
            fprintf(out, "%s%s", comma, columns[c].names[0]);
            comma = ",";
        }
    for (int i = 0; i < t->n_extra; i++) {
        fputs(comma, out);
        write_text(t->extra_names[i], out);
        comma = ",";
    }
    fputc('\n', out);
    for (int i = 0; i < t->n; i++) {
        comma = "";
        for (int c = 0; c < FLOPS; c++) {
            double v = value_of(t->rows + i, (enum column)c);
            if (!given[c])
                continue;
            fputs(comma, out);
            if (!isnan(v))
                fprintf(out, "%.17g", v);
            comma = ",";
        }
        for (int k = 0; k < t->n_extra; k++) {
            fputs(comma, out);
            write_text(t->rows[i].extra[k], out);
            comma = ",";
        }
        fputc('\n', out);
    }
}

/* ---- reading --------------------------------------------------------------------------------- */

struct reader {
    const char *path;
    char *text;
    size_t length, at;
    int line;
    struct text *why;
    int errors;
    char *fields[MAX_RUN_COLUMNS];
    int n_fields;
    int header_line, n_columns;
    int meaning[MAX_RUN_COLUMNS]; /* enum column, or -1 - index of an extra column */
    const char *spelled[COLUMNS]; /* the header that stands for it */
    bool given[COLUMNS];
};

static void complain(struct reader *r, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void complain(struct reader *r, int line, const char *format, ...)
{
    char text[512];
    va_list args;
    if (r->errors++ >= MAX_ERRORS_SHOWN)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    text_printf(r->why, "%s:%d: error: %s\n", r->path, line, text);
}

static void help(struct reader *r, const char *text)
{
    if (r->errors <= MAX_ERRORS_SHOWN)
        text_printf(r->why, "  help: %s\n", text);
}

static bool load(struct reader *r)
{
    FILE *f = fopen(r->path, "rb");
    size_t room = 1 << 16;
    r->text = malloc(room + 1);
    while (f && r->text && !ferror(f) && !feof(f) && r->length <= MAX_BYTES) {
        r->length += fread(r->text + r->length, 1, room - r->length, f);
        if (r->length < room)
            continue;
        char *more = realloc(r->text, 2 * room + 1);
        if (!more)
            break;
        r->text = more;
        room *= 2;
    }
    bool good = f && r->text && feof(f) && !ferror(f) && r->length <= MAX_BYTES;
    int error = errno;
    if (f)
        fclose(f);
    if (good) {
        r->text[r->length] = 0;
        return true;
    }
    if (r->length > MAX_BYTES)
        text_printf(r->why, "%s: error: more than %d MiB: is this a table of runs?\n", r->path,
                    MAX_BYTES >> 20);
    else
        text_printf(r->why, "%s: error: cannot read it: %s\n", r->path, strerror(error));
    return false;
}

static bool is_text(struct reader *r)
{
    int line = 1;
    for (size_t i = 0; i < r->length; i++) {
        unsigned char c = (unsigned char)r->text[i];
        line += c == '\n';
        if ((c >= 0x20 && c != 0x7f) || c == '\t' || c == '\n' || c == '\r')
            continue;
        complain(r, line, "byte 0x%02x is not text", c);
        help(r, "a table of runs is a CSV file; is this the right file?");
        return false;
    }
    return true;
}

static char *trimmed(char *from, char *to)
{
    while (from < to && (*from == ' ' || *from == '\t'))
        from++;
    while (to > from && (to[-1] == ' ' || to[-1] == '\t' || to[-1] == '\r'))
        to--;
    *to = 0;
    return from;
}

/* A quoted field from its opening quote; undoubles quotes in place. Returns what follows the
 * closing quote, NULL where the line ends first. */
static char *quoted(char *at, char *end, char **out)
{
    char *to = at;
    *out = at;
    for (at++; at < end; at++) {
        if (*at == '"' && at + 1 < end && at[1] == '"')
            at++;
        else if (*at == '"')
            break;
        *to++ = *at;
    }
    if (at >= end)
        return NULL;
    at++;
    *to = 0;
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\r'))
        at++;
    return at;
}

static bool split(struct reader *r, char *at, char *end)
{
    r->n_fields = 0;
    for (;;) {
        char *start = at;
        if (r->n_fields == MAX_RUN_COLUMNS) {
            complain(r, r->line, "more than %d columns", MAX_RUN_COLUMNS);
            return false;
        }
        while (at < end && (*at == ' ' || *at == '\t'))
            at++;
        if (at < end && *at == '"') {
            at = quoted(at, end, &r->fields[r->n_fields++]);
            if (!at || (at < end && *at != ',')) {
                complain(r, r->line,
                         at ? "text behind a closing quote" : "a quote is not closed on this line");
                help(r, "write \"\" for a quote inside quotes");
                return false;
            }
        } else {
            while (at < end && *at != ',')
                at++;
            bool last = at >= end;
            r->fields[r->n_fields++] = trimmed(start, at);
            if (last)
                return true;
            at++;
            continue;
        }
        if (at >= end)
            return true;
        at++;
    }
}

/* The next line that says something. False: the end, or reported. */
static bool next_line(struct reader *r, bool *failed)
{
    *failed = false;
    while (r->at < r->length) {
        char *start = r->text + r->at, *end = memchr(start, '\n', r->length - r->at);
        r->at = end ? (size_t)(end - r->text) + 1 : r->length;
        end = end ? end : r->text + r->length;
        r->line++;
        while (end > start && end[-1] == '\r')
            end--;
        char *first = start;
        while (first < end && (*first == ' ' || *first == '\t'))
            first++;
        if (first == end || *first == '#')
            continue;
        *failed = !split(r, start, end);
        return !*failed;
    }
    return false;
}

/* The column that `columns` ("params=N,loss=val") assigns to this header. */
static int assigned(const char *list, const char *header)
{
    for (const char *at = list; at && *at;) {
        size_t n = strcspn(at, ","), name = strcspn(at, "=");
        char key[64];
        if (name < n && n - name - 1 == strlen(header) && name < sizeof key &&
            !strncmp(at + name + 1, header, n - name - 1)) {
            memcpy(key, at, name);
            key[name] = 0;
            return column_named(key);
        }
        at += n + (at[n] == ',');
    }
    return -1;
}

/* That every assignment of `columns` is one, and names a header. */
static void check_assigned(struct reader *r, const char *list)
{
    for (const char *at = list; at && *at;) {
        size_t n = strcspn(at, ","), name = strcspn(at, "=");
        char key[64];
        bool found = false;
        snprintf(key, sizeof key, "%.*s", (int)(name < 60 ? name : 60), at);
        if (name >= n) {
            complain(r, r->header_line, "--columns wants COLUMN=HEADER, not '%.*s'",
                     (int)(n < MAX_FIELD_SHOWN ? n : MAX_FIELD_SHOWN), at);
        } else if (column_named(key) < 0) {
            complain(r, r->header_line, "--columns: there is no column '%s'", key);
            help(r, "the columns are d_model, layers, heads, kv_heads, head_dim, d_ff, r, params, "
                    "total_params, tokens, flops and loss");
        } else {
            for (int i = 0; i < r->n_fields; i++)
                found |= strlen(r->fields[i]) == n - name - 1 &&
                         !strncmp(r->fields[i], at + name + 1, n - name - 1);
            if (!found)
                complain(r, r->header_line, "--columns: no header is called '%.*s'",
                         (int)(n - name - 1 < MAX_FIELD_SHOWN ? n - name - 1 : MAX_FIELD_SHOWN),
                         at + name + 1);
        }
        at += n + (at[n] == ',');
    }
}

static void take_header(struct reader *r, const char *list, const char **extra, int *n_extra)
{
    bool by_hand[COLUMNS] = {false};
    r->n_columns = r->n_fields;
    r->header_line = r->line;
    check_assigned(r, list);
    for (int i = 0; i < r->n_fields; i++) {
        int c = assigned(list, r->fields[i]);
        if (c >= 0)
            by_hand[c] = true;
    }
    for (int i = 0; i < r->n_fields; i++) {
        const char *name = r->fields[i];
        int hand = assigned(list, name), c = hand >= 0 ? hand : column_named(name);
        if (c >= 0 && hand < 0 && by_hand[c])
            c = -1;
        if (c < 0) {
            r->meaning[i] = -1 - *n_extra;
            extra[(*n_extra)++] = *name ? name : "?";
            continue;
        }
        if (r->given[c]) {
            char text[128];
            complain(r, r->line, "the headers '%.40s' and '%.40s' both mean %s", r->spelled[c],
                     name, columns[c].names[0]);
            snprintf(text, sizeof text, "say which: --columns %s=%.40s", columns[c].names[0], name);
            help(r, text);
        }
        r->given[c] = true;
        r->spelled[c] = name;
        r->meaning[i] = c;
    }
}

/* A plain decimal number: no hexadecimal, no nan, no inf, nothing behind it. */
static bool decimal(const char *s, double *out)
{
    char *end;
    size_t n = strspn(s, "0123456789+-.eE");
    if (n == 0 || s[n] || n > 100)
        return false;
    *out = strtod(s, &end);
    return *end == 0 && end != s && isfinite(*out);
}

static double cell(struct reader *r, int column, const char *text)
{
    const struct column_info *c = columns + column;
    double v = NAN;
    if (!*text)
        return NAN;
    if (!decimal(text, &v)) {
        complain(r, r->line, "%s is '%.*s', which is not a number", r->spelled[column],
                 MAX_FIELD_SHOWN, text);
    } else if (v < c->least || v > c->most) {
        complain(r, r->line, "%s is %.*s, outside %g..%g", r->spelled[column], MAX_FIELD_SHOWN,
                 text, c->least, c->most);
    } else if (c->whole && v != floor(v)) {
        complain(r, r->line, "%s is %.*s, but it counts whole things", r->spelled[column],
                 MAX_FIELD_SHOWN, text);
    } else {
        return v;
    }
    return NAN;
}

static void take_row(struct reader *r, struct runs *t)
{
    const char *extra[MAX_RUN_COLUMNS];
    struct run row = {.extra = extra, .line = r->line};
    double flops = NAN;
    if (r->n_fields != r->n_columns) {
        complain(r, r->line, "%d fields, but the header has %d", r->n_fields, r->n_columns);
        return;
    }
    for (int c = 0; c < FLOPS; c++)
        *field(&row, (enum column)c) = NAN;
    for (int i = 0; i < r->n_fields; i++) {
        int m = r->meaning[i];
        if (m < 0)
            extra[-1 - m] = r->fields[i];
        else if (m == FLOPS)
            flops = cell(r, m, r->fields[i]);
        else
            *field(&row, (enum column)m) = cell(r, m, r->fields[i]);
    }
    int n = t->n;
    runs_add(t, &row);
    if (isnan(t->rows[n].tokens) && !isnan(flops)) {
        t->rows[n].tokens = flops / (6 * t->rows[n].params);
        note(t, "no tokens: taken as flops / (6 params)");
    }
}

static bool looks_tabbed(const struct reader *r)
{
    return r->n_fields == 1 && strpbrk(r->fields[0], "\t;|");
}

static bool read_all(struct reader *r, const char *list, struct arena *a, struct runs *out)
{
    const char *extra[MAX_RUN_COLUMNS];
    int n_extra = 0;
    bool failed;
    r->at = r->length >= 3 && !memcmp(r->text, "\xEF\xBB\xBF", 3) ? 3 : 0;
    if (!is_text(r))
        return false;
    if (!next_line(r, &failed)) {
        if (!failed)
            complain(r, 1, "an empty table");
        help(r, "the first line names the columns: d_model,params,r,tokens,loss");
        return false;
    }
    if (looks_tabbed(r)) {
        complain(r, r->line, "no comma in the header: columns are separated by commas");
        return false;
    }
    take_header(r, list, extra, &n_extra);
    runs_init(out, a, r->path, extra, n_extra);
    while (r->errors < MAX_ERRORS_SHOWN) {
        bool more = next_line(r, &failed);
        if (!more && !failed)
            break;
        if (failed)
            continue;
        if (out->n == MAX_RUNS) {
            complain(r, r->line, "more than %d runs", MAX_RUNS);
            break;
        }
        take_row(r, out);
    }
    if (r->errors == 0 && out->n == 0)
        complain(r, r->line, "a header, but no run below it");
    return r->errors == 0;
}

bool runs_read(struct arena *a, const char *path, const char *list, struct runs *out,
               struct text *why)
{
    struct reader *r = arena_alloc(a, sizeof *r);
    r->path = path;
    r->why = why;
    *out = (struct runs){.arena = a, .path = path};
    bool good = load(r) && read_all(r, list, a, out);
    if (r->errors >= MAX_ERRORS_SHOWN)
        text_printf(why, "%s: more errors are not shown\n", path);
    free(r->text);
    r->text = NULL;
    return good;
}

/* ---- selecting ------------------------------------------------------------------------------- */

/* "80M" as well as "8e7". */
static bool quantity(const char *s, size_t n, double *out)
{
    static const char suffixes[] = "KMBT";
    char text[64];
    if (n == 0 || n >= sizeof text)
        return false;
    memcpy(text, s, n);
    text[n] = 0;
    const char *suffix = strchr(suffixes, text[n - 1]);
    if (suffix)
        text[n - 1] = 0;
    if (!decimal(text, out))
        return false;
    for (int i = 0; suffix && i <= suffix - suffixes; i++)
        *out *= 1000;
    return true;
}

struct condition {
    int column, extra; /* one of them >= 0 */
    const char *values;
};

static bool one_value(const struct condition *c, const struct run *row, const char *s, size_t n)
{
    const char *text = c->extra >= 0 ? row->extra[c->extra] : NULL;
    double own = NAN, lo, hi;
    if (text && strlen(text) == n && !strncmp(text, s, n))
        return true;
    if (c->column >= 0)
        own = value_of(row, (enum column)c->column);
    else if (!decimal(text, &own))
        return false;
    for (size_t i = 1; i + 2 < n; i++)
        if (s[i] == '.' && s[i + 1] == '.' && quantity(s, i, &lo) &&
            quantity(s + i + 2, n - i - 2, &hi))
            return own >= lo && own <= hi;
    return quantity(s, n, &lo) && fabs(own - lo) <= 1e-9 * fabs(lo);
}

static bool selects(const struct condition *c, const struct run *row)
{
    for (const char *at = c->values;; at++) {
        size_t n = strcspn(at, ",");
        if (one_value(c, row, at, n))
            return true;
        at += n;
        if (!*at)
            return false;
    }
}

static bool parse_condition(const struct runs *t, const char *text, struct condition *c,
                            struct text *why)
{
    size_t n = strcspn(text, "=");
    char name[128];
    *c = (struct condition){-1, -1, text + n + 1};
    if (!text[n] || n == 0 || n >= sizeof name || !text[n + 1]) {
        text_printf(why, "'%.60s' is not COLUMN=VALUE", text);
        return false;
    }
    memcpy(name, text, n);
    name[n] = 0;
    for (int i = 0; i < t->n_extra && c->extra < 0; i++)
        if (!strcmp(t->extra_names[i], name))
            c->extra = i;
    int known = c->extra < 0 ? column_named(name) : -1;
    c->column = known == FLOPS ? -1 : known;
    if (c->extra >= 0 || c->column >= 0)
        return true;
    text_printf(why, "there is no column '%s'; beside the known ones there %s", name,
                t->n_extra == 0   ? "are none"
                : t->n_extra == 1 ? "is "
                                  : "are ");
    for (int i = 0; i < t->n_extra && i < 20; i++)
        text_printf(why, "%s%.40s", i ? ", " : "", t->extra_names[i]);
    return false;
}

bool runs_filter(const struct runs *t, const char *condition, bool keep, struct runs *out,
                 struct text *why)
{
    struct condition c;
    if (!parse_condition(t, condition, &c, why))
        return false;
    *out = *t;
    out->n = 0;
    out->room = t->n;
    out->rows = arena_alloc(t->arena, (size_t)(t->n + 1) * sizeof *out->rows);
    for (int i = 0; i < t->n; i++)
        if (selects(&c, t->rows + i) == keep)
            out->rows[out->n++] = t->rows[i];
    return true;
}

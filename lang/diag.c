/* diag.c - diagnostics: collected as values, printed in source order. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "front.h"

bool diags_full(const struct diags *d)
{
    return d->errors >= MAX_ERRORS;
}

/* Past the limit a diagnostic is counted but no longer kept, so that a hostile file cannot make us
 * hold one for each of its bytes. */
static struct diag *diag_add(struct diags *d, enum severity severity, struct span at,
                             const char *rule, const char *text)
{
    int *count = severity == SEVERITY_ERROR ? &d->errors : &d->warnings;
    struct diag *g = arena_alloc(d->arena, sizeof *g);
    *g = (struct diag){severity, at.source != NO_SOURCE, at, rule, text, NULL, NULL};
    if ((*count)++ >= (severity == SEVERITY_ERROR ? MAX_ERRORS : MAX_WARNINGS))
        return g;
    if (d->last)
        d->last->next = g;
    else
        d->first = g;
    d->last = g;
    return g;
}

struct diag *diag_error(struct diags *d, struct span at, const char *rule, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const char *text = arena_vprintf(d->arena, format, args);
    va_end(args);
    return diag_add(d, SEVERITY_ERROR, at, rule, text);
}

struct diag *diag_warning(struct diags *d, struct span at, const char *rule, const char *format,
                          ...)
{
    va_list args;
    va_start(args, format);
    const char *text = arena_vprintf(d->arena, format, args);
    va_end(args);
    return diag_add(d, SEVERITY_WARNING, at, rule, text);
}

static void remark_add(struct diag *to, struct remark *r)
{
    struct remark **end = &to->remarks;
    while (*end)
        end = &(*end)->next;
    *end = r;
}

void diag_note(struct diags *d, struct diag *to, const struct span *at, const char *format, ...)
{
    struct remark *r = arena_alloc(d->arena, sizeof *r);
    va_list args;
    va_start(args, format);
    r->text = arena_vprintf(d->arena, format, args);
    va_end(args);
    if (at && at->source != NO_SOURCE) {
        r->has_span = true;
        r->at = *at;
    }
    remark_add(to, r);
}

void diag_help(struct diags *d, struct diag *to, const char *format, ...)
{
    struct remark *r = arena_alloc(d->arena, sizeof *r);
    va_list args;
    va_start(args, format);
    r->text = arena_vprintf(d->arena, format, args);
    va_end(args);
    r->is_help = true;
    remark_add(to, r);
}

/* ---- printing ------------------------------------------------------------------------------ */

/* The line that holds byte `at`. */
struct line {
    const char *start, *end;
    int number;
};

static struct line line_of(const struct source *s, uint32_t at)
{
    if (at > s->length)
        at = s->length;
    /* A caret at the end of a file that ends in a newline belongs on its last line. */
    if (at == s->length && at > 0 && s->text[at - 1] == '\n')
        at--;
    struct line l = {s->text + at, s->text + at, 1};
    while (l.start > s->text && l.start[-1] != '\n')
        l.start--;
    const char *end = s->text + s->length;
    while (l.end < end && *l.end != '\n')
        l.end++;
    for (const char *p = s->text; p < l.start; p++)
        l.number += *p == '\n';
    return l;
}

static bool continues(char c)
{
    return ((unsigned char)c & 0xC0) == 0x80;
}

/* Columns count characters, not bytes. */
static int columns(const char *from, const char *to)
{
    int n = 0;
    for (const char *p = from; p < to; p++)
        n += !continues(*p);
    return n;
}

/* What is not text is shown as '?': a terminal must not obey the file it complains about. */
static void print_safely(FILE *out, const char *from, const char *to, bool is_text)
{
    for (const char *p = from; p < to; p++) {
        unsigned char c = (unsigned char)*p;
        bool plain = c == '\t' || (c >= 0x20 && c < 0x7F) || (c >= 0x80 && is_text);
        fputc(plain ? c : '?', out);
    }
}

enum { EXCERPT = 100, LEAD = 60 };

/* A window of a long line around the caret. */
static void clip(struct line *l, const char *at)
{
    if (l->end > l->start && l->end[-1] == '\r')
        l->end--;
    if (at - l->start > EXCERPT) {
        l->start = at - LEAD;
        while (l->start < at && continues(*l->start))
            l->start++;
    }
    if (l->end - at > EXCERPT) {
        l->end = at + EXCERPT;
        while (l->end > l->start && continues(*l->end))
            l->end--;
    }
}

static void print_excerpt(FILE *out, const struct source *s, struct span at)
{
    struct line l = line_of(s, at.start), whole = l;
    const char *from = s->text + (at.start < s->length ? at.start : s->length);
    const char *to = s->text + (at.end < s->length ? at.end : s->length);
    if (from > l.end)
        from = l.end;
    clip(&l, from);
    if (to > l.end)
        to = l.end;
    bool is_text = utf8_valid(l.start, (size_t)(l.end - l.start));
    const char *head = l.start > whole.start ? "..." : "";
    fprintf(out, "%5d | %s", l.number, head);
    print_safely(out, l.start, l.end, is_text);
    fprintf(out, "%s\n      | %s", whole.end - l.end > 1 ? "..." : "", *head ? "   " : "");
    for (const char *p = l.start; p < from; p++)
        if (!is_text || !continues(*p))
            fputc(*p == '\t' ? '\t' : ' ', out);
    fputc('^', out);
    for (int n = is_text ? columns(from, to) : (int)(to - from); n > 1; n--)
        fputc('~', out);
    fputc('\n', out);
}

static void print_one(const struct diags *d, FILE *out, bool has_span, struct span at,
                      const char *kind, const char *text, const char *rule)
{
    const struct source *s =
        has_span && (int)at.source < d->n_sources ? d->sources + at.source : NULL;
    if (s && s->text) {
        struct line l = line_of(s, at.start);
        const char *from = s->text + (at.start < s->length ? at.start : s->length);
        fprintf(out, "%s:%d:%d: ", s->path, l.number,
                columns(l.start, from > l.end ? l.end : from) + 1);
    } else if (s) {
        fprintf(out, "%s: ", s->path);
    }
    fprintf(out, "%s: ", kind);
    size_t length = strlen(text);
    print_safely(out, text, text + length, utf8_valid(text, length));
    if (rule)
        fprintf(out, " [%s]", rule);
    fputc('\n', out);
    if (s && s->text && s->length)
        print_excerpt(out, s, at);
}

static int by_place(const void *a, const void *b)
{
    const struct diag *x = *(const struct diag *const *)a, *y = *(const struct diag *const *)b;
    if (x->has_span != y->has_span)
        return x->has_span ? 1 : -1;
    if (x->has_span && x->at.source != y->at.source)
        return x->at.source < y->at.source ? -1 : 1;
    if (x->has_span && x->at.start != y->at.start)
        return x->at.start < y->at.start ? -1 : 1;
    return 0;
}

/* qsort is not stable; equal places keep the order in which they were found. */
static void sort_by_place(const struct diag **list, int n)
{
    for (int i = 1; i < n; i++) {
        const struct diag *g = list[i];
        int j = i;
        for (; j > 0 && by_place(&list[j - 1], &g) > 0; j--)
            list[j] = list[j - 1];
        list[j] = g;
    }
}

void diags_print(const struct diags *d, FILE *out)
{
    const struct diag *list[MAX_ERRORS + MAX_WARNINGS];
    int n = 0;
    for (const struct diag *g = d->first; g && n < MAX_ERRORS + MAX_WARNINGS; g = g->next)
        list[n++] = g;
    sort_by_place(list, n);
    for (int i = 0; i < n; i++) {
        const struct diag *g = list[i];
        print_one(d, out, g->has_span, g->at, g->severity == SEVERITY_ERROR ? "error" : "warning",
                  g->text, g->rule);
        for (const struct remark *r = g->remarks; r; r = r->next)
            print_one(d, out, r->has_span, r->at, r->is_help ? "help" : "note", r->text, NULL);
    }
    if (d->errors > MAX_ERRORS || d->warnings > MAX_WARNINGS)
        fprintf(out,
                "more mistakes follow: the first %d errors and %d warnings are shown; "
                "mend these and run again\n",
                MAX_ERRORS, MAX_WARNINGS);
}

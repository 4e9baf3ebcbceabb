/* ast.c - the tree's builders, and the run of scanner and parser over one source. */
#include <stdarg.h>
#include <string.h>

#include "front.h"
#include "parse.h"

int yylex_init(void **scanner);
int yylex_destroy(void *scanner);
struct yy_buffer_state *yy_scan_bytes(const char *bytes, int length, void *scanner);

struct diag *parse_error(struct parse *p, struct span at, const char *rule, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const char *text = arena_vprintf(p->arena, format, args);
    va_end(args);
    return diag_error(p->diags, at, rule, "%s", text);
}

void parse_stop(struct parse *p)
{
    p->stopped = true;
}

/* The text under a span, shortened: it is going into a message. */
const char *parse_text(const struct parse *p, struct span at)
{
    enum { LONGEST = 40 };
    uint32_t end = at.end < p->source->length ? at.end : p->source->length;
    uint32_t n = end > at.start ? end - at.start : 0;
    const char *s = p->source->text + (at.start < end ? at.start : end);
    if (n <= LONGEST)
        return arena_copy(p->arena, s, n);
    n = LONGEST;
    while (n > 0 && ((unsigned char)s[n] & 0xC0) == 0x80)
        n--;
    return arena_printf(p->arena, "%.*s...", (int)n, s);
}

/* ---- expressions --------------------------------------------------------------------------- */

static struct ast_expr *expr_new(struct parse *p, struct span at, enum ast_expr_kind kind)
{
    struct ast_expr *e = arena_alloc(p->arena, sizeof *e);
    e->kind = kind;
    e->at = at;
    e->size = 1;
    return e;
}

struct ast_expr *ast_number(struct parse *p, struct span at)
{
    const char *why = NULL, *help = NULL;
    struct ast_expr *e = expr_new(p, at, AST_NUMBER);
    const char *text = p->source->text + at.start;
    if (p->stopped || diags_full(p->diags) ||
        quantity_read(p->arena, text, at.end - at.start, &e->number, &why, &help))
        return e;
    struct diag *g = parse_error(p, at, "bad-number", "%s", why);
    if (help)
        diag_help(p->diags, g, "%s", help);
    e->kind = AST_BAD;
    return e;
}

struct ast_expr *ast_name(struct parse *p, struct span at, const char *name)
{
    struct ast_expr *e = expr_new(p, at, AST_NAME);
    e->name = name;
    e->name_at = at;
    return e;
}

struct ast_expr *ast_member(struct parse *p, struct span at, struct span name_at, const char *name,
                            struct span member_at, const char *member)
{
    struct ast_expr *e = expr_new(p, at, AST_MEMBER);
    e->name = name;
    e->name_at = name_at;
    e->member = member;
    e->member_at = member_at;
    return e;
}

/* Later passes walk expressions recursively, so their size is bounded here, once. */
static struct ast_expr *bounded(struct parse *p, struct ast_expr *e)
{
    if (e->size <= 2 * MAX_EXPR)
        return e;
    struct diag *g =
        parse_error(p, e->at, "too-deep", "an expression of more than %d operations", MAX_EXPR);
    diag_help(p->diags, g, "shorten it");
    parse_stop(p);
    return expr_new(p, e->at, AST_BAD);
}

struct ast_expr *ast_binary(struct parse *p, struct span at, char op, const struct ast_expr *lhs,
                            const struct ast_expr *rhs)
{
    struct ast_expr *e = expr_new(p, at, AST_BINARY);
    e->op = op;
    e->lhs = lhs;
    e->rhs = rhs;
    e->size = 1 + lhs->size + rhs->size;
    return bounded(p, e);
}

struct ast_expr *ast_unary(struct parse *p, struct span at, enum ast_expr_kind kind,
                           const struct ast_expr *operand)
{
    struct ast_expr *e = expr_new(p, at, kind);
    e->lhs = operand;
    e->size = operand->size + 1;
    return bounded(p, e);
}

/* ---- values -------------------------------------------------------------------------------- */

struct ast_value *ast_value(struct parse *p, struct span at, enum ast_value_kind kind,
                            const struct ast_expr *lo, const struct ast_expr *hi,
                            const struct ast_expr *step)
{
    struct ast_value *v = arena_alloc(p->arena, sizeof *v);
    v->kind = kind;
    v->at = at;
    v->lo = lo;
    v->hi = hi;
    v->step = step;
    return v;
}

struct ast_value *ast_text(struct parse *p, struct span at, const char *string)
{
    struct ast_value *v = ast_value(p, at, AST_STRING, NULL, NULL, NULL);
    v->string = string;
    return v;
}

struct ast_value *ast_free(struct ast_value *v, struct span at)
{
    v->is_free = true;
    v->at = at;
    return v;
}

struct ast_value *ast_push(struct parse *p, struct ast_value *list, struct ast_value *item)
{
    if (!list)
        list = ast_value(p, item->at, AST_LIST, NULL, NULL, NULL);
    if (list->n_items == MAX_LIST) {
        struct diag *g =
            parse_error(p, item->at, "too-many", "a list of more than %d values", MAX_LIST);
        diag_help(p->diags, g, "write a range, or keep fewer of them");
        parse_stop(p);
    }
    list->n_items++;
    item->next = list->items;
    list->items = item;
    return list;
}

struct ast_value *ast_list_value(struct ast_value *list, struct span at)
{
    struct ast_value *forward = NULL;
    while (list->items) {
        struct ast_value *item = list->items;
        list->items = item->next;
        item->next = forward;
        forward = item;
    }
    list->items = forward;
    list->at = at;
    return list;
}

/* ---- items --------------------------------------------------------------------------------- */

struct ast_item *ast_item(struct parse *p, enum ast_item_kind kind, struct span at,
                          struct span word_at, const char *word)
{
    struct ast_item *i = arena_alloc(p->arena, sizeof *i);
    i->kind = kind;
    i->at = at;
    i->word = word;
    i->word_at = word_at;
    return i;
}

struct ast_list ast_append(struct ast_list list, struct ast_item *item)
{
    if (!item)
        return list;
    if (list.last)
        list.last->next = item;
    else
        list.first = item;
    list.last = item;
    return list;
}

void ast_append_top(struct parse *p, struct ast_item *item)
{
    struct ast_list all = ast_append((struct ast_list){p->ast->items, p->ast->last}, item);
    p->ast->items = all.first;
    p->ast->last = all.last;
    p->ast->incomplete |= item && item->kind == AST_ERROR;
}

/* ---- one source ---------------------------------------------------------------------------- */

/* Length of the UTF-8 character at s, 0 where there is none: RFC 3629, no surrogates. */
static size_t utf8_length(const unsigned char *s, size_t n)
{
    if (s[0] < 0x80)
        return 1;
    size_t want = s[0] >= 0xF0 ? 4 : s[0] >= 0xE0 ? 3 : 2;
    if (s[0] < 0xC2 || s[0] > 0xF4 || want > n)
        return 0;
    for (size_t i = 1; i < want; i++)
        if ((s[i] & 0xC0) != 0x80)
            return 0;
    bool bad = (s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xED && s[1] > 0x9F) ||
               (s[0] == 0xF0 && s[1] < 0x90) || (s[0] == 0xF4 && s[1] > 0x8F);
    return bad ? 0 : want;
}

static size_t text_prefix(const char *text, size_t n)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t i = 0;
    while (i < n) {
        bool control =
            s[i] == 0x7F || (s[i] < 0x20 && s[i] != '\n' && s[i] != '\t' && s[i] != '\r');
        size_t length = control ? 0 : utf8_length(s + i, n - i);
        if (length == 0)
            break;
        i += length;
    }
    return i;
}

bool utf8_valid(const char *s, size_t n)
{
    for (size_t i = 0, length; i < n; i += length)
        if ((length = utf8_length((const unsigned char *)s + i, n - i)) == 0)
            return false;
    return true;
}

bool source_is_text(struct diags *d, uint32_t source)
{
    const struct source *s = d->sources + source;
    size_t good = text_prefix(s->text, s->length);
    if (good == s->length)
        return true;
    unsigned byte = (unsigned char)s->text[good];
    struct span at = {source, (uint32_t)good, (uint32_t)good + 1};
    struct diag *g = diag_error(d, at, "not-text", "byte 0x%02x is not text", byte);
    diag_help(d, g, "a .arch file is UTF-8 text; is this the right file?");
    return false;
}

static bool has_bom(const struct source *s)
{
    return s->length >= 3 && !memcmp(s->text, "\xEF\xBB\xBF", 3);
}

void parse_begin(struct parse *p, struct arena *a, struct diags *d, uint32_t source)
{
    *p = (struct parse){.arena = a, .diags = d, .source = d->sources + source, .number = source};
    p->ast = arena_alloc(a, sizeof *p->ast);
    p->ast->source = source;
    p->at_line_start = true;
    p->cursor = has_bom(p->source) ? 3 : 0;
}

void *scan_begin(struct parse *p)
{
    void *scanner = NULL;
    if (yylex_init(&scanner))
        return NULL;
    /* A newline more than the file has: the rules for numbers look one character ahead. */
    size_t n = p->source->length - p->cursor;
    char *text = arena_copy(p->arena, p->source->text + p->cursor, n + 1);
    text[n] = '\n';
    yy_scan_bytes(text, (int)n + 1, scanner);
    return scanner;
}

struct ast *ast_parse(struct arena *a, struct diags *d, uint32_t source)
{
    struct parse p;
    parse_begin(&p, a, d, source);
    p.ast->incomplete = !source_is_text(d, source);
    if (p.ast->incomplete)
        return p.ast;
    void *scanner = scan_begin(&p);
    if (scanner) {
        /* 0 after recovery too: only the diagnostics say whether all was well. */
        p.ast->incomplete |= yyparse(scanner, &p) != 0 || p.stopped;
        yylex_destroy(scanner);
    }
    return p.ast;
}

/* format.c - `archc fmt`: the tree and its comments in canonical layout. Numbers stay as
 * written, with at most one blank before the unit.
 *
 * A comment stays behind its entry, or on its own line before what it precedes; one inside a value
 * that spans lines moves above the entry. At most one blank line is kept between two things. */
#include <string.h>

#include "front.h"

/* ---- values as text, also for the tree printer and for goals in messages --------------------- */

static void source_text(struct text *t, const struct source *s, struct span at)
{
    bool blank = false;
    for (uint32_t i = at.start; i < at.end && i < s->length; i++) {
        bool before = blank;
        blank = s->text[i] == ' ' || s->text[i] == '\t';
        if (!blank || !before)
            text_addn(t, blank ? " " : s->text + i, 1);
    }
}

void expr_print(struct text *t, const struct source *s, const struct ast_expr *e)
{
    switch (e->kind) {
    case AST_NUMBER:
    case AST_BAD:
        source_text(t, s, e->at);
        break;
    case AST_NAME:
        text_add(t, e->name);
        break;
    case AST_MEMBER:
        text_printf(t, "%s.%s", e->name, e->member);
        break;
    case AST_NEG:
        text_add(t, "-");
        expr_print(t, s, e->lhs);
        break;
    case AST_PAREN:
        text_add(t, "(");
        expr_print(t, s, e->lhs);
        text_add(t, ")");
        break;
    case AST_BINARY:
        expr_print(t, s, e->lhs);
        text_printf(t, " %c ", e->op);
        expr_print(t, s, e->rhs);
        break;
    }
}

static void string_print(struct text *t, const char *string)
{
    text_add(t, "\"");
    for (const char *c = string; *c; c++) {
        if (*c == '"' || *c == '\\')
            text_add(t, "\\");
        text_addn(t, c, 1);
    }
    text_add(t, "\"");
}

static void list_print(struct text *t, const struct source *s, const struct ast_value *v)
{
    text_add(t, "[");
    for (const struct ast_value *i = v->items; i; i = i->next) {
        value_print(t, s, i);
        text_add(t, i->next ? ", " : "");
    }
    text_add(t, "]");
}

void value_print(struct text *t, const struct source *s, const struct ast_value *v)
{
    if (v->is_free)
        text_add(t, v->kind == AST_FREE ? "free" : "free ");
    switch (v->kind) {
    case AST_FREE:
        break;
    case AST_EXPR:
        expr_print(t, s, v->lo);
        break;
    case AST_STRING:
        string_print(t, v->string);
        break;
    case AST_LIST:
        list_print(t, s, v);
        break;
    case AST_TOLERANCE:
    case AST_RANGE:
        expr_print(t, s, v->lo);
        text_add(t, v->kind == AST_RANGE ? ".." : " +- ");
        expr_print(t, s, v->hi);
        if (v->step) {
            text_add(t, " step ");
            expr_print(t, s, v->step);
        }
        break;
    }
}

void head_print(struct text *t, const struct ast_item *block)
{
    text_add(t, block->word);
    if (block->name)
        text_printf(t, " %s", block->name);
    if (block->parent)
        text_printf(t, " : %s", block->parent);
}

void goal_print(struct text *t, const struct source *s, const struct ast_item *goal)
{
    static const char *const relations[] = {
        [RELATION_LE] = "<=", [RELATION_GE] = ">=", [RELATION_EQ] = "=="};
    expr_print(t, s, goal->lhs);
    if (goal->goal != GOAL_REQUIRE)
        return;
    text_printf(t, " %s ", relations[goal->relation]);
    expr_print(t, s, goal->rhs);
    if (goal->confidence) {
        text_add(t, " with ");
        expr_print(t, s, goal->confidence);
    }
}

/* ---- layout -------------------------------------------------------------------------------- */

struct layout {
    const struct source *source;
    const struct ast_comment *comment; /* the next one to print */
    struct text *out;
    uint32_t end; /* in the source: where the last thing printed ended */
    bool fresh;   /* nothing printed yet in this block */
};

/* What a block's entries share: where '=' and trailing comments stand. */
struct columns {
    int word, comment;
};

enum { INDENT = 4, WIDEST_WORD = 24, WIDEST_LINE = 76 };

static int newlines(const struct source *s, uint32_t from, uint32_t to)
{
    int n = 0;
    for (uint32_t i = from; i < to && i < s->length; i++)
        n += s->text[i] == '\n';
    return n;
}

static int width(const char *s)
{
    int n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xC0) != 0x80;
    return n;
}

static bool is_aligned(const struct ast_item *i)
{
    return i->kind == AST_ENTRY || i->kind == AST_GOAL;
}

/* A non-block item as one line, without indent. */
static void line_print(struct text *t, const struct source *s, const struct ast_item *i, int word)
{
    switch (i->kind) {
    case AST_IMPORT:
        text_add(t, "import ");
        value_print(t, s, i->value);
        break;
    case AST_ENTRY:
        text_printf(t, "%-*s = ", word, i->word);
        value_print(t, s, i->value);
        break;
    case AST_GOAL:
        text_printf(t, "%-*s ", word, i->word);
        goal_print(t, s, i);
        break;
    case AST_OBSERVE:
        text_printf(t, "observe %s %s = ", i->name, i->parent);
        value_print(t, s, i->value);
        break;
    case AST_BLOCK:
    case AST_ERROR:
        break;
    }
}

static const struct ast_comment *comment_from(const struct ast_comment *c, uint32_t at)
{
    while (c && c->at.start < at)
        c = c->next;
    return c;
}

/* The comment that stands behind source byte `at` on its line, where nothing else stands between.
 */
static const struct ast_comment *trailing(const struct layout *l, uint32_t at)
{
    const struct ast_comment *c = comment_from(l->comment, at);
    if (!c)
        return NULL;
    for (uint32_t i = at; i < c->at.start; i++)
        if (!strchr(" \t\r", l->source->text[i]))
            return NULL;
    return c;
}

static struct columns measure(const struct layout *l, const struct ast_item *items, int indent)
{
    struct columns c = {0, 0};
    for (const struct ast_item *i = items; i; i = i->next)
        if (is_aligned(i) && width(i->word) > c.word && width(i->word) <= WIDEST_WORD)
            c.word = width(i->word);
    for (const struct ast_item *i = items; i; i = i->next) {
        if (i->kind == AST_BLOCK || !trailing(l, i->at.end))
            continue;
        struct text t = {0};
        line_print(&t, l->source, i, c.word);
        int n = indent + width(t.at) + 2;
        if (n > c.comment && n <= WIDEST_LINE)
            c.comment = n;
        text_free(&t);
    }
    return c;
}

static void comment_text(struct layout *l, const struct ast_comment *c)
{
    uint32_t end = c->at.end;
    while (end > c->at.start && strchr(" \t\r", l->source->text[end - 1]))
        end--;
    text_addn(l->out, l->source->text + c->at.start, end - c->at.start);
}

static void begin_line(struct layout *l, uint32_t start, int indent)
{
    if (!l->fresh && start > l->end && newlines(l->source, l->end, start) > 1)
        text_add(l->out, "\n");
    l->fresh = false;
    text_printf(l->out, "%*s", indent, "");
}

/* Comments before source byte `until`, each on a line of its own. */
static void comments_print(struct layout *l, uint32_t until, int indent)
{
    for (; l->comment && l->comment->at.start < until; l->comment = l->comment->next) {
        begin_line(l, l->comment->at.start, indent);
        comment_text(l, l->comment);
        text_add(l->out, "\n");
        l->end = l->comment->at.end;
    }
}

static void trailing_print(struct layout *l, uint32_t at, int column, size_t line_start)
{
    const struct ast_comment *c = trailing(l, at);
    if (c) {
        int pad = column - width(l->out->at + line_start);
        text_printf(l->out, "%*s", pad > 2 ? pad : 2, "");
        comment_text(l, c);
        l->comment = c->next;
        l->end = c->at.end;
    }
    text_add(l->out, "\n");
}

static void items_print(struct layout *l, const struct ast_item *items, int indent);

static void block_print(struct layout *l, const struct ast_item *i, int indent)
{
    size_t start = l->out->length;
    begin_line(l, i->at.start, indent);
    head_print(l->out, i);
    const struct ast_comment *c = comment_from(l->comment, i->at.start);
    if (!i->items && !(c && c->at.start < i->close.start)) {
        text_add(l->out, " {}");
    } else {
        text_add(l->out, " {");
        l->end = i->open.end;
        trailing_print(l, i->open.end, 0, start);
        l->fresh = true;
        items_print(l, i->items, indent + INDENT);
        comments_print(l, i->close.start, indent + INDENT);
        start = l->out->length;
        text_printf(l->out, "%*s}", indent, "");
    }
    l->fresh = false;
    l->end = i->at.end;
    trailing_print(l, i->at.end, 0, start);
}

static void items_print(struct layout *l, const struct ast_item *items, int indent)
{
    struct columns c = measure(l, items, indent);
    for (const struct ast_item *i = items; i; i = i->next) {
        comments_print(l, i->kind == AST_BLOCK ? i->at.start : i->at.end, indent);
        if (i->kind == AST_BLOCK) {
            block_print(l, i, indent);
            continue;
        }
        begin_line(l, i->at.start, indent);
        size_t start = l->out->length - (size_t)indent;
        line_print(l->out, l->source, i, c.word);
        l->end = i->at.end;
        trailing_print(l, i->at.end, c.comment, start);
    }
}

bool format_file(struct arena *a, const char *path, struct diags *d, FILE *out)
{
    struct source *s = arena_alloc(a, sizeof *s);
    const char *why;
    d->arena = d->arena ? d->arena : a;
    d->sources = s;
    d->n_sources = 1;
    if (!source_load(a, path, s, &why)) {
        diag_error(d, (struct span){0, 0, 0}, "unreadable", "%s", why);
        return false;
    }
    struct ast *ast = ast_parse(a, d, 0);
    if (d->errors)
        return false;
    struct text t = {0};
    struct layout l = {s, ast->comments, &t, 0, true};
    items_print(&l, ast->items, 0);
    comments_print(&l, s->length + 1, 0);
    fputs(t.at ? t.at : "", out);
    text_free(&t);
    return true;
}

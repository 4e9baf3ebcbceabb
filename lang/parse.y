/* parse.y - tokens to the tree. Generic: blocks, entries, values, goals; what a key means is not
 * known here. Entries end at a newline; a broken one is skipped to its end, or to the '}' that
 * closes its block, so every error is reported on its own line. Actions only call builders. */
%require "3.8"
%expect 0
%code requires {
#include "front.h"
}
%code provides {
#define YY_DECL int yylex(YYSTYPE *yylval, YYLTYPE *yylloc, void *scanner, struct parse *p)
YY_DECL;
}
%code {
#include <string.h>
#define YYMAXDEPTH 1000
static void yyerror(const YYLTYPE *at, void *scanner, struct parse *p, const char *message);
#define YYLLOC_DEFAULT(cur, rhs, n)                                                                \
    do {                                                                                           \
        (cur) = YYRHSLOC(rhs, (n) ? 1 : 0);                                                        \
        if (n)                                                                                     \
            (cur).end = YYRHSLOC(rhs, n).end;                                                      \
        else                                                                                       \
            (cur).start = (cur).end;                                                               \
    } while (0)
}
%define api.pure full
%define api.location.type {struct span}
%define api.token.prefix {TOK_}
%define api.value.type union
%define parse.error custom
%define parse.lac full
%locations
%param {void *scanner} {struct parse *p}
%initial-action { @$ = (struct span){p->number, 0, 0}; }

%token YYEOF 0      "the end of the file"
%token NEWLINE      "the end of the line"
%token LBRACE       "'{'"
%token RBRACE       "'}'"
%token LPAREN       "'('"
%token RPAREN       "')'"
%token LBRACKET     "'['"
%token RBRACKET     "']'"
%token ASSIGN       "'='"
%token COLON        "':'"
%token COMMA        "','"
%token DOT          "'.'"
%token DOTDOT       "'..'"
%token TOLERANCE    "'+-'"
%token PLUS         "'+'"
%token MINUS        "'-'"
%token TIMES        "'*'"
%token OVER         "'/'"
%token IMPORT       "'import'"
%token REQUIRE      "'require'"
%token MAXIMIZE     "'maximize'"
%token MINIMIZE     "'minimize'"
%token OBSERVE      "'observe'"
%token FREE         "'free'"
%token STEP         "'step'"
%token WITH         "'with'"
%token <enum relation> RELATION "a relation"
%token <struct ast_expr *> NUMBER "a number"
%token <const char *> NAME "a name"
%token <const char *> STRING "a string"

%nterm <struct ast_list> lines block
%nterm <struct ast_item *> line last item head goal
%nterm <struct ast_value *> value range list values
%nterm <struct ast_expr *> expr confidence

%left PLUS MINUS
%left TIMES OVER
%precedence NEGATION
%%
file: top ;

top: %empty
    | top line          { ast_append_top(p, $2); }
    | top RBRACE        { parse_error(p, @2, "syntax", "this '}' closes nothing"); }
    ;

lines: %empty           { $$ = (struct ast_list){0}; }
    | lines line        { $$ = ast_append($1, $2); }
    ;
line: NEWLINE           { $$ = NULL; }
    | item NEWLINE      { $$ = $1; }
    | error NEWLINE     { $$ = ast_item(p, AST_ERROR, @1, @1, "error"); yyerrok; }
    ;
last: %empty            { $$ = NULL; }
    | item              { $$ = $1; }
    | error             { $$ = ast_item(p, AST_ERROR, @1, @1, "error"); }
    ;
block: open lines last RBRACE  { $$ = ast_append($2, $3); }
    ;
open: LBRACE            { yyerrok; }
    ;

item: IMPORT STRING
        { $$ = ast_item(p, AST_IMPORT, @$, @1, "import"); $$->value = ast_text(p, @2, $2); }
    | NAME ASSIGN value
        { $$ = ast_item(p, AST_ENTRY, @$, @1, $1); $$->value = $3; }
    | head block
        { $$ = $1; $$->items = $2.first; $$->at = @$; $$->open = $$->close = @2;
          $$->open.end = @2.start + 1; $$->close.start = @2.end - 1; }
    | error block
        { $$ = ast_item(p, AST_ERROR, @1, @1, "error"); (void)$2; }
    | goal
        { $$ = $1; $$->at = @$; }
    | OBSERVE NAME NAME ASSIGN expr
        { $$ = ast_item(p, AST_OBSERVE, @$, @1, "observe"); $$->name = $2; $$->name_at = @2;
          $$->parent = $3; $$->parent_at = @3; $$->value = ast_value(p, @5, AST_EXPR, $5, NULL, NULL); }
    ;

head: NAME
        { $$ = ast_item(p, AST_BLOCK, @$, @1, $1); }
    | NAME NAME
        { $$ = ast_item(p, AST_BLOCK, @$, @1, $1); $$->name = $2; $$->name_at = @2; }
    | NAME COLON NAME
        { $$ = ast_item(p, AST_BLOCK, @$, @1, $1); $$->parent = $3; $$->parent_at = @3; }
    | NAME NAME COLON NAME
        { $$ = ast_item(p, AST_BLOCK, @$, @1, $1); $$->name = $2; $$->name_at = @2;
          $$->parent = $4; $$->parent_at = @4; }
    ;

goal: REQUIRE expr RELATION expr confidence
        { $$ = ast_item(p, AST_GOAL, @$, @1, "require"); $$->goal = GOAL_REQUIRE;
          $$->lhs = $2; $$->relation = $3; $$->rhs = $4; $$->confidence = $5; }
    | MAXIMIZE expr
        { $$ = ast_item(p, AST_GOAL, @$, @1, "maximize"); $$->goal = GOAL_MAXIMIZE; $$->lhs = $2; }
    | MINIMIZE expr
        { $$ = ast_item(p, AST_GOAL, @$, @1, "minimize"); $$->goal = GOAL_MINIMIZE; $$->lhs = $2; }
    ;
confidence: %empty      { $$ = NULL; }
    | WITH expr         { $$ = $2; }
    ;

value: expr             { $$ = ast_value(p, @$, AST_EXPR, $1, NULL, NULL); }
    | expr TOLERANCE expr { $$ = ast_value(p, @$, AST_TOLERANCE, $1, $3, NULL); }
    | STRING            { $$ = ast_text(p, @$, $1); }
    | range             { $$ = $1; }
    | list              { $$ = $1; }
    | FREE              { $$ = ast_free(ast_value(p, @$, AST_FREE, NULL, NULL, NULL), @$); }
    | FREE range        { $$ = ast_free($2, @$); }
    | FREE list         { $$ = ast_free($2, @$); }
    ;
range: expr DOTDOT expr { $$ = ast_value(p, @$, AST_RANGE, $1, $3, NULL); }
    | expr DOTDOT expr STEP expr { $$ = ast_value(p, @$, AST_RANGE, $1, $3, $5); }
    ;
list: LBRACKET RBRACKET { $$ = ast_value(p, @$, AST_LIST, NULL, NULL, NULL); }
    | LBRACKET values RBRACKET       { $$ = ast_list_value($2, @$); }
    | LBRACKET values COMMA RBRACKET { $$ = ast_list_value($2, @$); }
    ;
values: value           { $$ = ast_push(p, NULL, $1); }
    | values COMMA value { $$ = ast_push(p, $1, $3); }
    ;

expr: NUMBER            { $$ = $1; }
    | NAME              { $$ = ast_name(p, @$, $1); }
    | NAME DOT NAME     { $$ = ast_member(p, @$, @1, $1, @3, $3); }
    | LPAREN expr RPAREN { $$ = ast_unary(p, @$, AST_PAREN, $2); }
    | MINUS expr %prec NEGATION { $$ = ast_unary(p, @$, AST_NEG, $2); }
    | expr PLUS expr    { $$ = ast_binary(p, @$, '+', $1, $3); }
    | expr MINUS expr   { $$ = ast_binary(p, @$, '-', $1, $3); }
    | expr TIMES expr   { $$ = ast_binary(p, @$, '*', $1, $3); }
    | expr OVER expr    { $$ = ast_binary(p, @$, '/', $1, $3); }
    ;
%%
/* Bison itself speaks only when its stack is full. */
static void yyerror(const YYLTYPE *at, void *scanner, struct parse *p, const char *message)
{
    (void)scanner;
    (void)message;
    if (p->stopped)
        return;
    struct diag *g = parse_error(p, *at, "too-deep", "nested too deeply to read");
    diag_help(p->diags, g, "split this into smaller parts");
    parse_stop(p);
}

enum { MOST = 48 };
struct wanted {
    yysymbol_kind_t at[MOST];
    int n;
};

static bool wants(const struct wanted *w, yysymbol_kind_t kind)
{
    for (int i = 0; i < w->n; i++)
        if (w->at[i] == kind)
            return true;
    return false;
}

/* Takes `kinds` out of the list; the group's own name stands for them. */
static void drop(struct wanted *w, const yysymbol_kind_t *kinds, int n)
{
    int kept = 0;
    for (int i = 0; i < w->n; i++) {
        bool gone = false;
        for (int j = 0; j < n; j++)
            gone |= w->at[i] == kinds[j];
        if (!gone)
            w->at[kept++] = w->at[i];
    }
    w->n = kept;
}

static void expected(struct wanted *w, struct text *t)
{
    static const yysymbol_kind_t values[] = {YYSYMBOL_NUMBER, YYSYMBOL_NAME, YYSYMBOL_STRING,
        YYSYMBOL_FREE, YYSYMBOL_LBRACKET, YYSYMBOL_LPAREN, YYSYMBOL_MINUS};
    static const yysymbol_kind_t terms[] = {YYSYMBOL_NUMBER, YYSYMBOL_NAME, YYSYMBOL_LPAREN,
        YYSYMBOL_MINUS};
    static const yysymbol_kind_t operators[] = {YYSYMBOL_PLUS, YYSYMBOL_MINUS, YYSYMBOL_TIMES,
        YYSYMBOL_OVER, YYSYMBOL_DOT, YYSYMBOL_DOTDOT, YYSYMBOL_TOLERANCE, YYSYMBOL_STEP};
    static const yysymbol_kind_t items[] = {YYSYMBOL_NAME, YYSYMBOL_IMPORT, YYSYMBOL_REQUIRE,
        YYSYMBOL_MAXIMIZE, YYSYMBOL_MINIMIZE, YYSYMBOL_OBSERVE, YYSYMBOL_NEWLINE,
        YYSYMBOL_LBRACE};
    const char *groups[4];
    int n_groups = 0;
    if (wants(w, YYSYMBOL_REQUIRE)) {
        groups[n_groups++] = "an entry";
        drop(w, items, sizeof items / sizeof *items);
    } else if (wants(w, YYSYMBOL_STRING) && wants(w, YYSYMBOL_NUMBER)) {
        groups[n_groups++] = "a value";
        drop(w, values, sizeof values / sizeof *values);
    } else if (wants(w, YYSYMBOL_NUMBER) && wants(w, YYSYMBOL_LPAREN)) {
        groups[n_groups++] = wants(w, YYSYMBOL_LBRACKET) ? "a range or a list" : "an expression";
        drop(w, terms, sizeof terms / sizeof *terms);
        if (wants(w, YYSYMBOL_LBRACKET))
            drop(w, values, sizeof values / sizeof *values);
    } else if (wants(w, YYSYMBOL_TIMES) && wants(w, YYSYMBOL_DOTDOT) &&
               !wants(w, YYSYMBOL_NEWLINE)) {
        groups[n_groups++] = "'..'";
        w->n = 0;
    } else if (wants(w, YYSYMBOL_TIMES)) {
        groups[n_groups++] = "an operator";
        drop(w, operators, sizeof operators / sizeof *operators);
    }
    int total = n_groups + w->n;
    for (int i = 0; i < total; i++)
        text_printf(t, "%s%s", i == 0 ? "" : i == total - 1 ? " or " : ", ",
                    i < n_groups ? groups[i] : yysymbol_name(w->at[i - n_groups]));
}

static void found(const yypcontext_t *c, const struct parse *p, struct text *t)
{
    yysymbol_kind_t kind = yypcontext_token(c);
    const char *text = parse_text(p, *yypcontext_location(c));
    if (kind == YYSYMBOL_NAME || kind == YYSYMBOL_NUMBER || kind == YYSYMBOL_RELATION)
        text_printf(t, "'%s'", text);
    else
        text_printf(t, "%s", yysymbol_name(kind));
}

static bool is_word(yysymbol_kind_t kind)
{
    return kind >= YYSYMBOL_IMPORT && kind <= YYSYMBOL_WITH;
}

/* The edit that mends the commonest mistakes. */
static void advise(const yypcontext_t *c, struct parse *p, struct diag *g, const struct wanted *w)
{
    yysymbol_kind_t kind = yypcontext_token(c);
    const char *text = parse_text(p, *yypcontext_location(c));
    const char *before = parse_text(p, p->before);
    if (is_word(kind) && wants(w, YYSYMBOL_NAME))
        diag_help(p->diags, g, "'%s' is a word of the language: choose another name", text);
    else if (kind == YYSYMBOL_YYEOF && p->depth > 0)
        diag_note(p->diags, g, &p->brackets[p->depth - 1].at, "this '%c' is never closed",
                  p->brackets[p->depth - 1].open);
    else if (kind == YYSYMBOL_NEWLINE && wants(w, YYSYMBOL_LBRACE))
        diag_help(p->diags, g, "a block opens on the line of its name: '%s {'; an entry is "
                  "'%s = value'", before, before);
    else if (wants(w, YYSYMBOL_ASSIGN) && kind == YYSYMBOL_NUMBER)
        diag_help(p->diags, g, "write '%s = %s'", before, text);
    else if (wants(w, YYSYMBOL_RPAREN) && p->depth > 0 && !wants(w, YYSYMBOL_STRING))
        diag_note(p->diags, g, &p->brackets[p->depth - 1].at, "this '%c' is not closed",
                  p->brackets[p->depth - 1].open);
    else if (wants(w, YYSYMBOL_DOTDOT) && kind == YYSYMBOL_COMMA)
        diag_help(p->diags, g, "choices are listed in brackets: 'free [%s, ...]'", before);
    else if (wants(w, YYSYMBOL_DOTDOT) && !wants(w, YYSYMBOL_NEWLINE))
        diag_help(p->diags, g, "a free knob is 'free', 'free LO..HI' or 'free [A, B]'");
    else if (wants(w, YYSYMBOL_LBRACE) && kind == YYSYMBOL_MINUS)
        diag_help(p->diags, g, "names are made of letters, digits and '_'");
    else if (wants(w, YYSYMBOL_NEWLINE) && wants(w, YYSYMBOL_TIMES) &&
             (kind == YYSYMBOL_NAME || is_word(kind)))
        diag_help(p->diags, g, "an entry ends at its newline: put '%s' on a line of its own", text);
    else if (wants(w, YYSYMBOL_NEWLINE) && (kind == YYSYMBOL_COMMA))
        diag_help(p->diags, g, "entries are separated by newlines; a list is written [a, b, c]");
    else if (wants(w, YYSYMBOL_RELATION))
        diag_help(p->diags, g, "a requirement compares: 'require loss <= 2.8'");
}

static int yyreport_syntax_error(const yypcontext_t *c, void *scanner, struct parse *p)
{
    (void)scanner;
    struct span *place = yypcontext_location(c);
    bool newline = yypcontext_token(c) == YYSYMBOL_NEWLINE;
    bool brace_below = yypcontext_token(c) == YYSYMBOL_LBRACE && p->broken_line > 0 &&
                       p->before.start == p->broken_line;
    if (p->stopped || diags_full(p->diags) || brace_below)
        return 0;
    p->broken_line = newline ? place->start : 0;
    struct wanted w = {0};
    w.n = yypcontext_expected_tokens(c, w.at, MOST);
    struct wanted all = w;
    struct text want = {0}, have = {0};
    expected(&w, &want);
    found(c, p, &have);
    struct span at = *place;
    if (newline)
        at.start = at.end = p->before.end;
    struct diag *g = parse_error(p, at, "syntax", "expected %s, found %s",
                                 want.length ? want.at : "something else", have.at);
    advise(c, p, g, &all);
    text_free(&want);
    text_free(&have);
    return 0;
}

const char *token_name(int token)
{
    return yysymbol_name(YYTRANSLATE(token));
}

/* front.h - inside the front end: the syntax tree and what turns it into a spec.
 *
 *   scan.l, parse.y -> ast.c        the tree, which knows nothing of transformers
 *   units.c                         numbers: suffixes, units, constant arithmetic
 *   collect.c over keys.def         entries become settings of declarations
 *   link.c                          names become declarations; children inherit
 *   goal.c, spec.c                  settings become the structs of lang.h
 *   check.c, shape.c over rules.def what must hold of them
 *
 * Sectioned by the file that implements it. */
#ifndef ARCHC_FRONT_H
#define ARCHC_FRONT_H

#include <stdarg.h>

#include "lang.h"

enum {
    MAX_ERRORS = 50,
    MAX_WARNINGS = 50,
    MAX_NESTING = 32,  /* brackets inside brackets */
    MAX_EXPR = 100,    /* operations of one expression */
    MAX_GOALS = 32,    /* of one model, inherited ones included */
    MAX_LIST = 10000,  /* items of a list: refits of a law */
    MAX_CHOICES = 1024, /* of a knob */
    MAX_DECLS = 500,   /* models, laws and devices of one compilation */
    MAX_SOURCES = 128, /* files of one compilation */
    MAX_SOURCE_BYTES = 1 << 20,
    MAX_NUMBER_CHARS = 100,
};

#define PRELUDE_PATH "<built-in>"

/* ---- base.c -------------------------------------------------------------------------------- */

char *arena_vprintf(struct arena *a, const char *format, va_list args);

/* ---- diag.c -------------------------------------------------------------------------------- */

/* So many errors that more would help nobody: passes stop early. */
bool diags_full(const struct diags *d);

/* ---- units.c: quantities ------------------------------------------------------------------- */

/* What a quantity measures: a product of powers. All zero: a plain number. */
struct dim {
    signed char seconds, bytes, tokens, flops;
};
struct quantity {
    double value; /* in seconds, bytes, tokens, FLOPs */
    struct dim dim;
    bool bare;    /* a literal without a unit: takes the unit that its place asks for */
    bool percent; /* written with %, already divided by 100 */
};

/* The units that entries can ask for. */
enum unit {
    UNIT_NONE, /* a plain number; suffixes K M B T Ki Mi Gi */
    UNIT_FRACTION,
    UNIT_SECONDS,
    UNIT_BYTES,
    UNIT_TOKENS_S,
    UNIT_BYTES_S,
    UNIT_FLOPS,
    UNIT_COUNT
};
struct unit_info {
    struct dim dim;
    const char *means;   /* "a time" */
    const char *spelled; /* "us, ms or s" */
};
extern const struct unit_info unit_infos[UNIT_COUNT];
bool dim_equal(struct dim a, struct dim b);
/* "bytes/s", "a plain number", ... */
const char *dim_text(struct arena *a, struct dim d);
/* Reads a literal as scanned: digits, '_', exponent, suffix and unit. On failure `why` says what is
 * wrong and `help`, where not NULL, what to write. */
bool quantity_read(struct arena *a, const char *text, size_t length, struct quantity *out,
                   const char **why, const char **help);
/* Shortest decimal that reads back as `value`. */
const char *number_text(char buffer[32], double value);
/* number_text with the suffix that suits `unit` best: "4.8TB/s", "100B". */
const char *quantity_text(struct arena *a, double value, enum unit unit);

/* ---- ast.c: the tree ----------------------------------------------------------------------- */

enum ast_expr_kind { AST_NUMBER, AST_NAME, AST_MEMBER, AST_BINARY, AST_NEG, AST_PAREN, AST_BAD };
struct ast_expr {
    enum ast_expr_kind kind;
    char op;  /* AST_BINARY: + - * / */
    int size; /* nodes */
    struct quantity number;
    const char *name, *member; /* AST_NAME: name; AST_MEMBER: name.member */
    struct span at, name_at, member_at;
    const struct ast_expr *lhs, *rhs; /* AST_NEG, AST_PAREN: lhs alone */
};

enum ast_value_kind {
    AST_EXPR,      /* lo */
    AST_STRING,    /* string */
    AST_RANGE,     /* lo..hi, or lo..hi step step */
    AST_TOLERANCE, /* lo +- hi */
    AST_LIST,      /* items */
    AST_FREE       /* `free` alone; free_at marks it before a range or a list */
};
struct ast_value {
    enum ast_value_kind kind;
    bool is_free;
    const struct ast_expr *lo, *hi, *step;
    const char *string;
    struct ast_value *items, *next;
    int n_items;
    struct span at;
};

/* AST_ERROR: something stood here that could not be read, and was reported. */
enum ast_item_kind { AST_IMPORT, AST_ENTRY, AST_BLOCK, AST_GOAL, AST_OBSERVE, AST_ERROR };
struct ast_item {
    enum ast_item_kind kind;
    struct span at;      /* the whole of it, to its last character */
    struct span word_at; /* its first word */
    const char *word;    /* key, kind of block, `require`, `import`, ... */
    /* AST_BLOCK: KIND NAME : PARENT { items }; AST_OBSERVE: name is the model, parent the metric */
    const char *name, *parent;
    struct span name_at, parent_at;
    struct span open, close; /* AST_BLOCK: its braces */
    struct ast_item *items;
    const struct ast_value *value; /* AST_ENTRY, AST_IMPORT, AST_OBSERVE */
    enum goal_kind goal;           /* AST_GOAL */
    enum relation relation;
    const struct ast_expr *lhs, *rhs, *confidence;
    struct ast_item *next;
};

struct ast_comment {
    struct span at;
    struct ast_comment *next;
};

struct ast {
    uint32_t source;
    struct ast_item *items, *last;
    struct ast_comment *comments; /* in order */
    bool incomplete;              /* a declaration may be missing: it could not be read */
};

/* What the scanner and the parser share while they read one source. */
struct bracket {
    char open;
    struct span at;
};
struct parse {
    struct arena *arena;
    struct diags *diags;
    const struct source *source;
    uint32_t number, cursor;
    struct bracket brackets[MAX_NESTING];
    int depth;
    bool stopped;             /* past help: the scanner gives only the end of file */
    bool at_line_start;       /* nothing but blanks since the last newline token */
    uint32_t broken_line;     /* where the newline stands that was last found too early */
    struct span before, last; /* the last token but one, and the last */
    struct ast *ast;
    struct ast_comment *last_comment;
};

struct ast_list {
    struct ast_item *first, *last;
};

bool utf8_valid(const char *s, size_t n);
/* One tree per source; never NULL. Mistakes are in `d`. */
struct ast *ast_parse(struct arena *a, struct diags *d, uint32_t source);
/* For emit.c, which only scans: a parse ready to scan, and its scanner (NULL: no memory). */
void parse_begin(struct parse *p, struct arena *a, struct diags *d, uint32_t source);
void *scan_begin(struct parse *p);
/* False, and reported: a binary file, of which nothing should be scanned. */
bool source_is_text(struct diags *d, uint32_t source);

/* Node builders, for the grammar's actions. */
struct ast_expr *ast_number(struct parse *p, struct span at);
struct ast_expr *ast_name(struct parse *p, struct span at, const char *name);
struct ast_expr *ast_member(struct parse *p, struct span at, struct span name_at, const char *name,
                            struct span member_at, const char *member);
struct ast_expr *ast_binary(struct parse *p, struct span at, char op, const struct ast_expr *lhs,
                            const struct ast_expr *rhs);
struct ast_expr *ast_unary(struct parse *p, struct span at, enum ast_expr_kind kind,
                           const struct ast_expr *operand);
struct ast_value *ast_value(struct parse *p, struct span at, enum ast_value_kind kind,
                            const struct ast_expr *lo, const struct ast_expr *hi,
                            const struct ast_expr *step);
struct ast_value *ast_text(struct parse *p, struct span at, const char *string);
struct ast_value *ast_free(struct ast_value *v, struct span at);
struct ast_value *ast_list_value(struct ast_value *list, struct span at);
/* Lists are built newest first. */
struct ast_value *ast_push(struct parse *p, struct ast_value *list, struct ast_value *item);
struct ast_item *ast_item(struct parse *p, enum ast_item_kind kind, struct span at,
                          struct span word_at, const char *word);
struct ast_list ast_append(struct ast_list list, struct ast_item *item);
void ast_append_top(struct parse *p, struct ast_item *item);
/* A token in human words. */
const char *token_name(int token);
/* Diagnostics of the scanner and the parser. */
struct diag *parse_error(struct parse *p, struct span at, const char *rule, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void parse_stop(struct parse *p);
const char *parse_text(const struct parse *p, struct span at);

/* ---- format.c: trees as text ---------------------------------------------------------------- */

void expr_print(struct text *t, const struct source *s, const struct ast_expr *e);
void value_print(struct text *t, const struct source *s, const struct ast_value *v);
void head_print(struct text *t, const struct ast_item *block);
void goal_print(struct text *t, const struct source *s, const struct ast_item *goal);

/* ---- read.c: sources and imports --------------------------------------------------------------
 */

/* All trees of a compilation: an importing file comes after what it imports. */
struct program {
    struct arena *arena;
    struct diags *diags;
    struct source *sources; /* d->sources, writable */
    struct ast *asts[MAX_SOURCES];
    int n_asts;
    int n_sources;
    const struct ast *prelude; /* or NULL */
    struct ast_import *imports;
    bool may_import;
    bool incomplete; /* some declaration could not be read: a name may be missing for that alone */
};
/* Source `from` imports source `to`. */
struct ast_import {
    uint32_t from, to;
    struct ast_import *next;
};
bool program_read(struct program *p, const char *path, const char *text, size_t length,
                  const char *prelude);
/* Reads `path` into source `number`; false with a reason where it cannot be read. */
bool source_load(struct arena *a, const char *path, struct source *out, const char **why);

/* ---- collect.c: declarations and their settings -------------------------------------------------
 */

enum block {
#define BLOCK(id, word, inside, fills, named) BLOCK_##id,
#include "keys.def"
#undef BLOCK
    BLOCK_COUNT
};
/* The struct of lang.h that a block's keys fill. */
enum fills {
    FILLS_NONE,
    FILLS_MODEL,
    FILLS_TRAIN,
    FILLS_SERVE,
    FILLS_LAW,
    FILLS_SAMPLES, /* one struct law_sample for each item of its lists */
    FILLS_DEVICE,
    FILLS_STUDY
};
struct block_info {
    const char *word;
    unsigned inside; /* bits of enum block */
    enum fills fills;
    bool named;
};
extern const struct block_info block_infos[BLOCK_COUNT];

enum key {
#define KEY(id, block, name, type, unit, lo, hi, field, say) KEY_##id,
#include "keys.def"
#undef KEY
    KEY_COUNT
};
enum key_type {
    TYPE_INT,  /* int */
    TYPE_REAL, /* double */
    TYPE_SPAN, /* two doubles, lo..hi */
    TYPE_BOOL,
    TYPE_KNOB,   /* struct domain */
    TYPE_PARAMS, /* params and params_tolerance */
    TYPE_LAW,    /* int: index of the law of that name */
    TYPE_DEVICE, /* int */
    TYPE_DTYPE,
    TYPE_RECOMPUTE,
    TYPE_LOGITS,
    TYPE_FORM,
    TYPE_SAMPLES, /* a list of doubles, one for each sample */
    TYPE_LIST,    /* struct numbers */
    TYPE_COUNTS,  /* struct numbers, whole ones */
    TYPE_PATH,    /* const char *, from the directory of the file that says it */
    TYPE_FAMILY,  /* fills nothing */
    TYPE_TEXT     /* fills nothing */
};
struct key_info {
    enum block block;
    const char *name;
    enum key_type type;
    enum unit unit;
    double lo, hi;
    size_t offset;
    const char *say; /* an example, or why the bounds */
};
extern const struct key_info key_infos[KEY_COUNT];

enum rule {
#define RULE(id, name, severity, subject, check, needs, breaks) RULE_##id,
#include "rules.def"
#undef RULE
    RULE_COUNT
};

/* What a failed rule leaves unusable of a declaration. */
enum { BREAKS_VALUES = 1, BREAKS_NAMES = 2, BREAKS_SHAPE = 4, BREAKS_GOALS = 8 };

struct decl;
/* One entry, evaluated. */
struct setting {
    enum key key;
    struct span at, value_at; /* `key`, and what is right of '=' */
    double number, tolerance;
    struct domain domain;
    double lo, hi;
    const double *list; /* TYPE_SAMPLES, TYPE_LIST, TYPE_COUNTS: n_list numbers */
    int n_list;
    int choice;
    const char *name;          /* TYPE_LAW, TYPE_DEVICE, TYPE_PATH */
    const struct decl *target; /* what the name means; NULL: unknown */
};

/* A model, law or device; or (BLOCK_FILE) one source's file-wide train and serve settings. */
struct decl {
    enum block kind;
    const char *name;
    struct span at; /* its name */
    uint32_t source;
    bool builtin;
    const struct ast_item *item; /* NULL for BLOCK_FILE */
    struct decl *parent;
    struct setting *own[KEY_COUNT];
    struct setting *all[KEY_COUNT]; /* with what it inherits */
    const struct ast_item *goals[MAX_GOALS];
    struct decl *goal_owner[MAX_GOALS]; /* the ancestor that states it */
    int n_goals;
    bool full; /* more than MAX_GOALS: said once */
    const struct ast_item *observe;
    bool observe_inherited;
    const struct decl *observed;
    unsigned broken;
    bool linked;
    int index; /* in spec.models, .laws, .devices or .studies */
    struct decl *next, *bucket;
};

/* Models still to visit on a walk along goals. */
struct walk {
    bool seen[MAX_DECLS];
    int stack[MAX_DECLS], n;
};

struct check {
    struct arena *arena;
    struct diags *diags;
    struct program *program;
    struct decl *first, *last; /* in order of declaration */
    int n_decls;
    struct decl *defaults[MAX_SOURCES];
    struct decl *buckets[1024]; /* by kind and name */
    struct spec *spec;
    /* While rules run: */
    unsigned seen[MAX_DECLS]; /* of each model, the metrics that a rule has complained of */
    const struct model_spec *model;
    const struct law *law;
    const struct device *device;
    const struct study_spec *study;
    struct walk walk;
};

/* Reports `rule`, which is what decides severity and what else is not worth checking. */
struct diag *rule_fail(struct check *c, struct decl *d, enum rule rule, struct span at,
                       const char *format, ...) __attribute__((format(printf, 5, 6)));
void collect(struct check *c);
struct decl *find_decl(const struct check *c, enum block kind, const char *name);
/* "did you mean 'x'?" where some declaration of that kind is near enough, else what there is. */
void suggest_decl(struct check *c, struct diag *g, enum block kind, const char *name);

/* The nearest of several names. */
struct nearest {
    const char *wanted, *best;
    int distance;
};
struct nearest nearest_to(const char *wanted);
void nearest_try(struct nearest *n, const char *candidate);

/* ---- value.c: what an entry's value is worth ----------------------------------------------------
 */

/* NULL, and reported, where the value does not fit its key. */
struct setting *value_read(struct check *c, struct decl *d, enum key key,
                           const struct ast_item *entry);

/* Both sides of an operator; false, and reported, where their units do not go together. */
bool quantity_combine(struct check *c, struct decl *d, char op, struct quantity l,
                      struct quantity r, struct span at, struct quantity *out);

/* ---- link.c: names, parents, inheritance
 * --------------------------------------------------------- */

void link_decls(struct check *c);

/* ---- goal.c: requirements and objectives
 * ---------------------------------------------------------- */

void build_goals(struct check *c, struct decl *d, struct model_spec *m);
double observe_value(struct check *c, struct decl *d);

/* ---- check.c: runs the rules
 * ------------------------------------------------------------------------ */

void run_rules(struct check *c);
/* The rules themselves; c->model, c->law, c->device or c->study is the subject, built. */
typedef void rule_check(struct check *c, struct decl *d);
rule_check check_empty_file, check_no_model, check_vocab, check_layers, check_head_dim,
    check_enough_facts, check_unset_width, check_heads_multiple, check_contradictions,
    check_unbounded, check_rope_scaling, check_context, check_rates, check_goal_cycle,
    check_constant_goals, check_odd_objective, check_goal_needs_law, check_goal_needs_tokens,
    check_goal_needs_device, check_base_cycle, check_form, check_coefficients, check_unused,
    check_u_shape, check_samples, check_device_rates, check_cache_pair,
    check_study_facts, check_study_grid, check_study_sizes, check_study_heads, check_study_unused;

#endif

/* collect.c - the trees' blocks and entries become declarations with settings. Reports what stands
 * where it should not; leaves names unresolved for link.c. */
#include <string.h>

#include "front.h"

#define IN(block) (1u << BLOCK_##block)
const struct block_info block_infos[BLOCK_COUNT] = {
#define BLOCK(id, word, inside, fills, named) [BLOCK_##id] = {word, inside, FILLS_##fills, named},
#include "keys.def"
#undef BLOCK
};
#undef IN

/* offsetof within the struct that the key's block fills. */
typedef struct model_spec struct_MODEL, struct_ROPE, struct_SCALING, struct_NORM, struct_ATTENTION;
typedef struct train_spec struct_TRAIN;
typedef struct serve_spec struct_SERVE;
typedef struct law struct_LAW, struct_CHINCHILLA, struct_WIDTH, struct_RATIO, struct_FITTED,
    struct_MORPH;
typedef struct law_sample struct_SAMPLES;
typedef struct device struct_DEVICE, struct_EFFICIENCY;
typedef struct study_spec struct_STUDY;
#define none name /* keys that fill nothing need some member to point at */
const struct key_info key_infos[KEY_COUNT] = {
#define KEY(id, block, name, type, unit, lo, hi, field, say)                                       \
    [KEY_##id] = {BLOCK_##block,                                                                   \
                  name,                                                                            \
                  TYPE_##type,                                                                     \
                  UNIT_##unit,                                                                     \
                  lo,                                                                              \
                  hi,                                                                              \
                  offsetof(struct_##block, field),                                                 \
                  say},
#include "keys.def"
#undef KEY
};
#undef none

static const struct {
    const char *name;
    enum severity severity;
    unsigned breaks;
} rules[RULE_COUNT] = {
#define RULE(id, name, severity, subject, check, needs, breaks)                                    \
    [RULE_##id] = {name, SEVERITY_##severity, breaks},
#include "rules.def"
#undef RULE
};

struct diag *rule_fail(struct check *c, struct decl *d, enum rule rule, struct span at,
                       const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const char *text = arena_vprintf(c->arena, format, args);
    va_end(args);
    if (d)
        d->broken |= rules[rule].breaks;
    return (rules[rule].severity == SEVERITY_ERROR ? diag_error : diag_warning)(
        c->diags, at, rules[rule].name, "%s", text);
}

/* ---- names --------------------------------------------------------------------------------- */

struct nearest nearest_to(const char *wanted)
{
    int length = (int)strnlen(wanted, 64);
    return (struct nearest){wanted, NULL, length < 3 ? 2 : length < 8 ? 3 : 4};
}

void nearest_try(struct nearest *n, const char *candidate)
{
    int distance = name_distance(n->wanted, candidate, n->distance - 1);
    if (distance < n->distance) {
        n->distance = distance;
        n->best = candidate;
    }
}

static unsigned hash(enum block kind, const char *name)
{
    unsigned h = 2166136261u + kind;
    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * 16777619u;
    return h % (sizeof((struct check *)0)->buckets / sizeof(struct decl *));
}

struct decl *find_decl(const struct check *c, enum block kind, const char *name)
{
    struct decl *d = c->buckets[hash(kind, name)];
    while (d && (d->kind != kind || strcmp(d->name, name)))
        d = d->bucket;
    return d;
}

void suggest_decl(struct check *c, struct diag *g, enum block kind, const char *name)
{
    struct nearest near = nearest_to(name);
    struct text t = {0};
    int n = 0;
    for (const struct decl *d = c->first; d; d = d->next) {
        if (d->kind != kind || !d->name)
            continue;
        nearest_try(&near, d->name);
        if (n++ < 8)
            text_printf(&t, "%s%s", n > 1 ? ", " : "", d->name);
    }
    const char *what = block_infos[kind].word;
    if (near.best)
        diag_help(c->diags, g, "did you mean '%s'?", near.best);
    else if (n)
        diag_help(c->diags, g, "there %s %s%s; or declare '%s %s { ... }'", n > 1 ? "are" : "is",
                  t.at, n > 8 ? ", ..." : "", what, name);
    else
        diag_help(c->diags, g, "declare it: '%s %s { ... }'", what, name);
    text_free(&t);
}

static struct decl *decl_new(struct check *c, enum block kind, uint32_t source)
{
    struct decl *d = arena_alloc(c->arena, sizeof *d);
    d->kind = kind;
    d->source = source;
    d->builtin = c->program->prelude && c->program->prelude->source == source;
    return d;
}

static void decl_append(struct check *c, struct decl *d)
{
    if (c->last)
        c->last->next = d;
    else
        c->first = d;
    c->last = d;
    c->n_decls++;
}

/* Only `host` may be declared over its built-in: a calibration is saved under that name. */
static bool decl_name(struct check *c, struct decl *d)
{
    struct decl *old = find_decl(c, d->kind, d->name);
    struct decl **bucket = &c->buckets[hash(d->kind, d->name)];
    const char *what = block_infos[d->kind].word;
    if (old &&
        !(old->builtin && !d->builtin && d->kind == BLOCK_DEVICE && !strcmp(d->name, "host"))) {
        struct diag *g =
            rule_fail(c, d, RULE_DUPLICATE_NAME, d->at, "a second %s '%s'", what, d->name);
        if (old->builtin)
            diag_note(c->diags, g, NULL, "'%s' is built in", d->name);
        else
            diag_note(c->diags, g, &old->at, "the first is here");
        diag_help(c->diags, g, "give this one another name; '%s NEW : %s {' starts from the other",
                  what, d->name);
        return false;
    }
    d->bucket = *bucket; /* in front: it hides a built-in of that name */
    *bucket = d;
    return true;
}

/* ---- entries ------------------------------------------------------------------------------- */

static void list_blocks_of_key(struct check *c, struct diag *g, const char *name)
{
    for (int k = 0; k < KEY_COUNT; k++) {
        if (strcmp(key_infos[k].name, name))
            continue;
        diag_help(c->diags, g, "'%s' belongs in '%s { ... }'", name,
                  block_infos[key_infos[k].block].word);
    }
}

static void unknown_key(struct check *c, struct decl *d, enum block block, const struct ast_item *i)
{
    struct diag *g = rule_fail(c, d, RULE_UNKNOWN_KEY, i->word_at, "'%s' has no key '%s'",
                               block_infos[block].word, i->word);
    struct nearest near = nearest_to(i->word);
    struct text t = {0};
    bool elsewhere = false;
    for (int k = 0; k < KEY_COUNT; k++) {
        elsewhere |= !strcmp(key_infos[k].name, i->word);
        if (key_infos[k].block != block)
            continue;
        nearest_try(&near, key_infos[k].name);
        text_printf(&t, "%s%s", t.length ? ", " : "", key_infos[k].name);
    }
    for (int b = 0; b < BLOCK_COUNT; b++)
        if (block_infos[b].inside & 1u << block && !strcmp(block_infos[b].word, i->word))
            diag_help(c->diags, g, "'%s' is a block: '%s { ... }'", i->word, i->word);
    if (elsewhere)
        list_blocks_of_key(c, g, i->word);
    else if (near.best)
        diag_help(c->diags, g, "did you mean '%s'?", near.best);
    else
        diag_help(c->diags, g, "its keys are %s", t.at ? t.at : "none");
    text_free(&t);
}

static void collect_entry(struct check *c, struct decl *d, enum block block,
                          const struct ast_item *i)
{
    if (block == BLOCK_FILE) {
        struct diag *g =
            rule_fail(c, NULL, RULE_MISPLACED, i->word_at, "an entry outside of any block");
        diag_help(c->diags, g, "entries stand in a block: 'model NAME {'");
        list_blocks_of_key(c, g, i->word);
        return;
    }
    int key = 0;
    while (key < KEY_COUNT &&
           (key_infos[key].block != block || strcmp(key_infos[key].name, i->word)))
        key++;
    if (key == KEY_COUNT) {
        unknown_key(c, d, block, i);
        return;
    }
    if (d->own[key]) {
        struct diag *g =
            rule_fail(c, d, RULE_DUPLICATE_KEY, i->word_at, "'%s' is given twice", i->word);
        diag_note(c->diags, g, &d->own[key]->at, "the first is here");
        diag_help(c->diags, g, "delete one of them");
        return;
    }
    d->own[key] = value_read(c, d, (enum key)key, i);
}

static void misplaced(struct check *c, const struct ast_item *i, const char *where)
{
    struct diag *g =
        rule_fail(c, NULL, RULE_MISPLACED, i->word_at, "'%s' does not stand here", i->word);
    diag_help(c->diags, g, "it belongs %s", where);
}

static void collect_goal(struct check *c, struct decl *d, enum block block,
                         const struct ast_item *i)
{
    if (block != BLOCK_MODEL) {
        misplaced(c, i, "directly in 'model NAME { ... }'");
        return;
    }
    if (d->n_goals == MAX_GOALS && d->full)
        return;
    if (d->n_goals == MAX_GOALS) {
        d->full = true;
        struct diag *g = rule_fail(c, d, RULE_TOO_MANY, i->at, "more than %d goals", MAX_GOALS);
        diag_help(c->diags, g, "keep the requirements that bind");
        return;
    }
    for (int n = 0; n < d->n_goals && i->goal != GOAL_REQUIRE; n++) {
        if (d->goals[n]->goal == GOAL_REQUIRE)
            continue;
        struct diag *g = rule_fail(c, d, RULE_TWO_OBJECTIVES, i->at, "a second objective");
        diag_note(c->diags, g, &d->goals[n]->at, "the first is here");
        diag_help(c->diags, g, "keep one and turn the other into 'require METRIC <= BOUND'");
        return;
    }
    d->goal_owner[d->n_goals] = d;
    d->goals[d->n_goals++] = i;
}

static void collect_observe(struct check *c, struct decl *d, enum block block,
                            const struct ast_item *i)
{
    if (block != BLOCK_LAW) {
        misplaced(c, i, "directly in 'law NAME { ... }'");
    } else if (d->observe) {
        struct diag *g = rule_fail(c, d, RULE_TWO_OBSERVATIONS, i->at, "a second observation");
        diag_note(c->diags, g, &d->observe->at, "the first is here");
        diag_help(c->diags, g, "one observed loss pins the law: keep one");
    } else if (strcmp(i->parent, "loss")) {
        struct diag *g = rule_fail(c, d, RULE_OBSERVE_LOSS, i->parent_at,
                                   "a law can observe a loss, not '%s'", i->parent);
        diag_help(c->diags, g, "write 'observe %s loss = 2.8'", i->name);
    } else {
        d->observe = i;
    }
}

/* ---- blocks -------------------------------------------------------------------------------- */

static void collect_items(struct check *c, struct decl *d, enum block block,
                          const struct ast_item *items);

static void check_head(struct check *c, const struct ast_item *i, const struct block_info *b)
{
    if (i->name && !b->named) {
        struct diag *g =
            rule_fail(c, NULL, RULE_UNEXPECTED_NAME, i->name_at, "'%s' has no name", i->word);
        diag_help(c->diags, g, "write '%s {'", i->word);
    } else if (i->parent && !b->named) {
        struct diag *g =
            rule_fail(c, NULL, RULE_UNEXPECTED_NAME, i->parent_at, "'%s' has no parent", i->word);
        diag_help(c->diags, g, "write '%s {': models inherit it key by key", i->word);
    }
}

static void collect_decl(struct check *c, uint32_t source, enum block kind,
                         const struct ast_item *i)
{
    struct decl *d = decl_new(c, kind, source);
    d->item = i;
    d->name = i->name ? i->name : "?";
    d->at = i->name ? i->name_at : i->word_at;
    if (!i->name) {
        struct diag *g =
            rule_fail(c, d, RULE_MISSING_NAME, i->word_at, "this %s has no name", i->word);
        diag_help(c->diags, g, "write '%s NAME {'", i->word);
    }
    if (c->n_decls == MAX_DECLS) {
        struct diag *g =
            rule_fail(c, d, RULE_TOO_MANY, d->at, "more than %d declarations", MAX_DECLS);
        diag_help(c->diags, g, "split the file");
        c->n_decls++; /* said once */
    }
    bool counts = i->name && c->n_decls < MAX_DECLS && decl_name(c, d);
    collect_items(c, d, kind, i->items);
    if (counts)
        decl_append(c, d);
}

static void unknown_block(struct check *c, struct decl *d, enum block block,
                          const struct ast_item *i)
{
    struct nearest near = nearest_to(i->word);
    const struct block_info *elsewhere = NULL;
    for (int b = BLOCK_FILE + 1; b < BLOCK_COUNT; b++) {
        if (!strcmp(block_infos[b].word, i->word))
            elsewhere = block_infos + b;
        if (block_infos[b].inside & 1u << block)
            nearest_try(&near, block_infos[b].word);
    }
    struct diag *g;
    if (elsewhere) {
        g = rule_fail(c, d, RULE_MISPLACED, i->word_at, "'%s' does not stand here", i->word);
        for (int b = 0; b < BLOCK_COUNT; b++)
            if (elsewhere->inside & 1u << b)
                diag_help(c->diags, g,
                          b == BLOCK_FILE ? "it may stand in the file itself"
                                          : "it may stand in '%s { ... }'",
                          block_infos[b].word);
        return;
    }
    g = rule_fail(c, d, RULE_UNKNOWN_BLOCK, i->word_at, "'%s' is not a block", i->word);
    if (near.best)
        diag_help(c->diags, g, "did you mean '%s'?", near.best);
    else if (block == BLOCK_FILE)
        diag_help(c->diags, g, "a file holds model, law, device, study, train and serve blocks");
    else
        diag_help(c->diags, g, "an entry is written '%s = value'", i->word);
}

static void collect_block(struct check *c, struct decl *d, enum block block,
                          const struct ast_item *i)
{
    int kind = BLOCK_FILE + 1;
    while (kind < BLOCK_COUNT &&
           (strcmp(block_infos[kind].word, i->word) || !(block_infos[kind].inside & 1u << block)))
        kind++;
    if (kind == BLOCK_COUNT) {
        c->program->incomplete |= block == BLOCK_FILE;
        unknown_block(c, block == BLOCK_FILE ? NULL : d, block, i);
        return;
    }
    check_head(c, i, block_infos + kind);
    if (block_infos[kind].named)
        collect_decl(c, d->source, (enum block)kind, i);
    else
        collect_items(c, d, (enum block)kind, i->items);
}

static void collect_items(struct check *c, struct decl *d, enum block block,
                          const struct ast_item *items)
{
    for (const struct ast_item *i = items; i && !diags_full(c->diags); i = i->next) {
        switch (i->kind) {
        case AST_ENTRY:
            collect_entry(c, d, block, i);
            break;
        case AST_BLOCK:
            collect_block(c, d, block, i);
            break;
        case AST_GOAL:
            collect_goal(c, d, block, i);
            break;
        case AST_OBSERVE:
            collect_observe(c, d, block, i);
            break;
        case AST_ERROR: /* what it would have said is unknown: judge the rest mildly */
            if (block != BLOCK_FILE)
                d->broken |= BREAKS_VALUES | BREAKS_GOALS;
            break;
        case AST_IMPORT:
            if (block != BLOCK_FILE)
                misplaced(c, i, "at the top of the file");
            break;
        }
    }
}

void collect(struct check *c)
{
    for (int n = 0; n < c->program->n_asts; n++) {
        const struct ast *ast = c->program->asts[n];
        struct decl *d = decl_new(c, BLOCK_FILE, ast->source);
        c->defaults[ast->source] = d;
        collect_items(c, d, BLOCK_FILE, ast->items);
    }
}

/* link.c - names become declarations; children inherit key by key; file-wide train and serve
 * settings reach the models. Needs collect.c; afterwards decl.all is what a declaration says. */
#include <string.h>

#include "front.h"

/* ---- parents ------------------------------------------------------------------------------- */

static enum rule unknown_rule(enum block kind)
{
    return kind == BLOCK_LAW      ? RULE_UNKNOWN_LAW
           : kind == BLOCK_DEVICE ? RULE_UNKNOWN_DEVICE
           : kind == BLOCK_STUDY  ? RULE_UNKNOWN_STUDY
                                  : RULE_UNKNOWN_MODEL;
}

static void unknown(struct check *c, struct decl *d, enum block kind, struct span at,
                    const char *name)
{
    d->broken |= BREAKS_NAMES;
    if (c->program->incomplete)
        return;
    struct diag *g = rule_fail(c, d, unknown_rule(kind), at, "there is no %s '%s'",
                               block_infos[kind].word, name);
    suggest_decl(c, g, kind, name);
}

static void link_parent(struct check *c, struct decl *d)
{
    if (!d->item->parent)
        return;
    d->parent = find_decl(c, d->kind, d->item->parent);
    if (d->parent)
        return;
    unknown(c, d, d->kind, d->item->parent_at, d->item->parent);
    d->broken |= BREAKS_VALUES;
}

/* A declaration that is its own ancestor is cut loose from its parent. */
static void cut_cycle(struct check *c, struct decl *d)
{
    const struct decl *p = d->parent;
    for (int n = 0; p && p != d && n <= c->n_decls; n++)
        p = p->parent;
    if (!p || p != d)
        return;
    struct diag *g =
        rule_fail(c, d, RULE_PARENT_CYCLE, d->item->parent_at,
                  d->parent == d ? "'%s' is its own parent" : "'%s' descends from itself", d->name);
    for (p = d->parent; p != d; p = p->parent)
        diag_note(c->diags, g, &p->item->parent_at, "through '%s', whose parent is '%s'", p->name,
                  p->parent->name);
    diag_help(c->diags, g, "take ': %s' away", d->parent->name);
    for (struct decl *q = d->parent; q != d; q = q->parent)
        q->broken |= BREAKS_VALUES;
    d->parent = NULL;
}

static void inherit_goals(struct check *c, struct decl *d)
{
    const struct decl *p = d->parent;
    const struct ast_item *own[MAX_GOALS];
    int n_own = d->n_goals, n = 0;
    bool own_objective = false;
    memcpy(own, d->goals, sizeof own);
    for (int i = 0; i < n_own; i++)
        own_objective |= own[i]->goal != GOAL_REQUIRE;
    for (int i = 0; i < p->n_goals && n < MAX_GOALS; i++) {
        if (own_objective && p->goals[i]->goal != GOAL_REQUIRE)
            continue;
        d->goals[n] = p->goals[i];
        d->goal_owner[n++] = p->goal_owner[i];
    }
    for (int i = 0; i < n_own && n < MAX_GOALS; i++) {
        d->goals[n] = own[i];
        d->goal_owner[n++] = d;
    }
    if (n_own + p->n_goals > MAX_GOALS && n == MAX_GOALS) {
        struct diag *g = rule_fail(c, d, RULE_TOO_MANY, d->at,
                                   "more than %d goals with those that "
                                   "'%s' inherits",
                                   MAX_GOALS, d->name);
        diag_help(c->diags, g, "keep the requirements that bind");
    }
    d->n_goals = n;
}

/* Samples belong to the numbers that they were drawn with: who changes one of these starts without
 * samples. */
static void drop_samples(struct decl *d)
{
    bool own = d->own[KEY_FORM] || d->own[KEY_BASE];
    for (int k = 0; k < KEY_COUNT; k++) {
        enum block b = key_infos[k].block;
        own |= d->own[k] && (b == BLOCK_CHINCHILLA || b == BLOCK_WIDTH || b == BLOCK_RATIO ||
                             b == BLOCK_MORPH || b == BLOCK_SAMPLES);
    }
    for (int k = 0; own && k < KEY_COUNT; k++)
        if (key_infos[k].type == TYPE_SAMPLES)
            d->all[k] = d->own[k];
}

static void inherit(struct check *c, struct decl *d)
{
    const struct decl *p = d->parent;
    for (int k = 0; k < KEY_COUNT; k++)
        d->all[k] = d->own[k] ? d->own[k] : p ? p->all[k] : NULL;
    drop_samples(d);
    d->linked = true;
    if (!p)
        return;
    d->broken |= p->broken;
    inherit_goals(c, d);
    if (!d->observe) {
        d->observe = p->observe;
        d->observe_inherited = true;
    }
}

/* Ancestors first; a chain may be as long as there are declarations, so no recursion. */
static void inherit_all(struct check *c)
{
    struct decl **chain = arena_alloc(c->arena, (size_t)(c->n_decls + 1) * sizeof *chain);
    for (struct decl *d = c->first; d; d = d->next) {
        int n = 0;
        for (struct decl *p = d; p && !p->linked; p = p->parent)
            chain[n++] = p;
        while (n > 0)
            inherit(c, chain[--n]);
    }
}

/* ---- laws and devices by name -----------------------------------------------------------------
 */

static void link_settings(struct check *c, struct decl *d)
{
    for (int k = 0; k < KEY_COUNT; k++) {
        struct setting *s = d->own[k];
        if (!s || (key_infos[k].type != TYPE_LAW && key_infos[k].type != TYPE_DEVICE))
            continue;
        enum block kind = key_infos[k].type == TYPE_LAW ? BLOCK_LAW : BLOCK_DEVICE;
        s->target = find_decl(c, kind, s->name);
        if (!s->target)
            unknown(c, d, kind, s->value_at, s->name);
    }
}

static void link_observed(struct check *c, struct decl *d)
{
    if (!d->observe)
        return;
    d->observed = find_decl(c, BLOCK_MODEL, d->observe->name);
    if (!d->observed && !d->observe_inherited)
        unknown(c, d, BLOCK_MODEL, d->observe->name_at, d->observe->name);
}

/* ---- file-wide settings -------------------------------------------------------------------------
 */

/* What holds in `source`: its own file-wide settings, then those of the files it imports, the last
 * import first. */
static void file_wide(struct check *c, uint32_t source, bool *seen, struct decl *d)
{
    if (seen[source])
        return;
    seen[source] = true;
    const struct decl *file = c->defaults[source];
    if (!file)
        return;
    d->broken |= file->broken;
    for (int k = 0; k < KEY_COUNT; k++)
        if (!d->all[k])
            d->all[k] = file->own[k];
    uint32_t imports[MAX_SOURCES];
    int n = 0;
    for (const struct ast_import *i = c->program->imports; i; i = i->next)
        if (i->from == source && n < MAX_SOURCES)
            imports[n++] = i->to;
    while (n > 0)
        file_wide(c, imports[--n], seen, d);
}

void link_decls(struct check *c)
{
    for (struct decl *d = c->first; d; d = d->next)
        link_parent(c, d);
    for (struct decl *d = c->first; d; d = d->next)
        cut_cycle(c, d);
    for (int s = 0; s < MAX_SOURCES; s++)
        if (c->defaults[s])
            link_settings(c, c->defaults[s]);
    for (struct decl *d = c->first; d; d = d->next)
        link_settings(c, d);
    inherit_all(c);
    for (struct decl *d = c->first; d; d = d->next) {
        link_observed(c, d);
        bool seen[MAX_SOURCES] = {false};
        if (d->kind != BLOCK_MODEL && d->kind != BLOCK_STUDY)
            continue;
        file_wide(c, d->source, seen, d);
        file_wide(c, 0, seen, d);
    }
}

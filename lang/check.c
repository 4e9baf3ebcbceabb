/* check.c - runs the rules of rules.def over what was built, and holds those about settings, goals,
 * laws and devices. One small function each; shapes are in shape.c. */
#include <math.h>
#include <string.h>

#include "front.h"

/* ---- the table ------------------------------------------------------------------------------- */

enum subject {
    SUBJECT_TEXT,
    SUBJECT_ENTRY,
    SUBJECT_FILE,
    SUBJECT_MODEL,
    SUBJECT_LAW,
    SUBJECT_DEVICE,
    SUBJECT_STUDY
};

static const struct {
    enum subject subject;
    rule_check *check;
    unsigned needs;
} rules[RULE_COUNT] = {
#define RULE(id, name, severity, subject, check, needs, breaks)                                    \
    [RULE_##id] = {SUBJECT_##subject, check, needs},
#include "rules.def"
#undef RULE
};

static void run_on(struct check *c, struct decl *d, enum subject subject)
{
    for (int r = 0; r < RULE_COUNT && !diags_full(c->diags); r++)
        if (rules[r].subject == subject && rules[r].check && !(d->broken & rules[r].needs))
            rules[r].check(c, d);
}

void run_rules(struct check *c)
{
    run_on(c, c->defaults[0], SUBJECT_FILE);
    for (struct decl *d = c->first; d; d = d->next) {
        if (d->kind == BLOCK_MODEL) {
            c->model = c->spec->models + d->index;
            run_on(c, d, SUBJECT_MODEL);
        } else if (d->kind == BLOCK_LAW) {
            c->law = c->spec->laws + d->index;
            run_on(c, d, SUBJECT_LAW);
        } else if (d->kind == BLOCK_STUDY) {
            c->study = c->spec->studies + d->index;
            run_on(c, d, SUBJECT_STUDY);
        } else {
            c->device = c->spec->devices + d->index;
            run_on(c, d, SUBJECT_DEVICE);
        }
    }
}

/* ---- the file -------------------------------------------------------------------------------- */

static const struct span file_start = {0, 0, 0};

/* The file on the command line is read last: it comes after all that it imports. */
static bool is_empty(const struct check *c)
{
    return !c->program->asts[c->program->n_asts - 1]->items;
}

void check_empty_file(struct check *c, struct decl *d)
{
    if (c->diags->errors || !is_empty(c))
        return;
    struct diag *g = rule_fail(c, d, RULE_EMPTY_FILE, file_start, "this file declares nothing");
    diag_help(c->diags, g, "begin with 'model NAME {'; the examples directory has whole files");
}

void check_no_model(struct check *c, struct decl *d)
{
    if (c->diags->errors || c->spec->main_model >= 0 || c->spec->main_study >= 0 || is_empty(c))
        return;
    struct diag *g =
        rule_fail(c, d, RULE_NO_MODEL, file_start,
                  "this file declares no model of its own, so it can only be imported");
    diag_help(c->diags, g,
              "add 'model NAME { ... }' to compile it; 'model NAME : PARENT {}' is "
              "enough for one that it imports");
}

/* ---- settings that must agree ------------------------------------------------------------------
 */

void check_rope_scaling(struct check *c, struct decl *d)
{
    const struct setting *factor = d->all[KEY_FACTOR], *original = d->all[KEY_ORIGINAL];
    const struct setting *low = d->all[KEY_LOW], *high = d->all[KEY_HIGH];
    const struct setting *some = factor ? factor : original ? original : low ? low : high;
    struct diag *g;
    if (!some)
        return;
    if (!factor || !original) {
        g = rule_fail(c, d, RULE_ROPE_SCALING, some->at, "this scaling has no %s",
                      factor ? "original" : "factor");
        diag_help(c->diags, g, "Llama 3.2's is factor = 32, low = 1, high = 4, original = 8192");
    } else if (c->model->rope.low >= c->model->rope.high) {
        g = rule_fail(c, d, RULE_ROPE_SCALING, low ? low->value_at : high->value_at,
                      "low must be below high");
        diag_help(c->diags, g, "the usual pair is low = 1, high = 4");
    }
}

void check_context(struct check *c, struct decl *d)
{
    const struct model_spec *m = c->model;
    const struct setting *context = d->all[KEY_CONTEXT];
    int served = m->serve.prompt + m->serve.generate;
    if (!context)
        return;
    bool serves = d->all[KEY_PROMPT] || d->all[KEY_GENERATE];
    if (serves && served > m->context) {
        struct diag *g = rule_fail(c, d, RULE_CONTEXT_TOO_SHORT, context->value_at,
                                   "prompt + generate = %d positions do not fit the context of %d",
                                   served, m->context);
        diag_note(c->diags, g, &m->serve.at, "serving is set here");
        diag_help(c->diags, g, "write context = %d, or leave it out", served);
    }
    if (m->train.sequence > m->context) {
        struct diag *g = rule_fail(c, d, RULE_CONTEXT_TOO_SHORT, context->value_at,
                                   "sequences of %d tokens do not fit the context of %d",
                                   m->train.sequence, m->context);
        diag_note(c->diags, g, &d->all[KEY_SEQUENCE]->value_at, "the sequence is set here");
        diag_help(c->diags, g, "write context = %d, or leave it out", m->train.sequence);
    }
}

void check_rates(struct check *c, struct decl *d)
{
    const struct serve_spec *s = &c->model->serve;
    const struct device *v = s->device >= 0 ? c->spec->devices + s->device : NULL;
    bool converts = s->weights == DTYPE_I8 || (v && (v->is_host || v->threads > 0));
    if (!v || converts || v->flops[s->weights] > 0 || !d->all[KEY_WEIGHTS])
        return;
    struct diag *g = rule_fail(c, d, RULE_NO_SUCH_RATE, d->all[KEY_WEIGHTS]->value_at,
                               "the device '%s' has no %s rate", v->name, dtype_names[s->weights]);
    diag_help(c->diags, g, "add '%s = ...TFLOP/s' to the device, or serve other weights",
              dtype_names[s->weights]);
}

/* ---- goals -------------------------------------------------------------------------------------
 */

typedef void metric_visit(struct check *c, struct decl *d, const struct expr *e);

/* Of an inherited goal only this model's own metrics: the others were judged where it is stated. */
static void visit(struct check *c, struct decl *d, bool inherited, const struct expr *e,
                  metric_visit *f)
{
    if (!e)
        return;
    if (e->kind == EXPR_METRIC && (!inherited || e->model == d->index))
        f(c, d, e);
    visit(c, d, inherited, e->lhs, f);
    visit(c, d, inherited, e->rhs, f);
}

static void visit_goals(struct check *c, struct decl *d, metric_visit *f)
{
    for (int i = 0; i < c->model->n_goals; i++) {
        bool inherited = d->goal_owner[i] != d;
        visit(c, d, inherited, c->model->goals[i].lhs, f);
        visit(c, d, inherited, c->model->goals[i].rhs, f);
    }
}

static bool has_metric(const struct expr *e)
{
    return e && (e->kind == EXPR_METRIC || has_metric(e->lhs) || has_metric(e->rhs));
}

void check_constant_goals(struct check *c, struct decl *d)
{
    for (int i = 0; i < c->model->n_goals; i++) {
        const struct goal *goal = c->model->goals + i;
        if (d->goal_owner[i] != d || has_metric(goal->lhs) || has_metric(goal->rhs))
            continue;
        struct diag *g =
            rule_fail(c, d, RULE_CONSTANT_GOAL, goal->at, "this requirement names no metric");
        diag_help(c->diags, g, "for example 'require loss <= 2.8'");
    }
}

void check_odd_objective(struct check *c, struct decl *d)
{
    static const bool more_is_better[METRIC_COUNT] = {[METRIC_THROUGHPUT] = true};
    for (int i = 0; i < c->model->n_goals; i++) {
        const struct goal *goal = c->model->goals + i;
        enum metric m = goal->lhs->metric;
        if (goal->kind == GOAL_REQUIRE || m == METRIC_R || m == METRIC_PARAMS ||
            m == METRIC_TOTAL_PARAMS || d->goal_owner[i] != d ||
            more_is_better[m] == (goal->kind == GOAL_MAXIMIZE))
            continue;
        struct diag *g = rule_fail(c, d, RULE_ODD_OBJECTIVE, goal->at, "this asks for the worst %s",
                                   metric_names[m]);
        diag_help(c->diags, g, "did you mean '%s %s'?",
                  goal->kind == GOAL_MAXIMIZE ? "minimize" : "maximize", metric_names[m]);
    }
}

static void push_refs(struct walk *w, const struct expr *e, int self)
{
    if (!e)
        return;
    if (e->kind == EXPR_METRIC && e->model != self && !w->seen[e->model]) {
        w->seen[e->model] = true;
        w->stack[w->n++] = e->model;
    }
    push_refs(w, e->lhs, self);
    push_refs(w, e->rhs, self);
}

static void push_model(struct walk *w, const struct model_spec *m, int self)
{
    for (int i = 0; i < m->n_goals; i++) {
        push_refs(w, m->goals[i].lhs, self);
        push_refs(w, m->goals[i].rhs, self);
    }
}

/* Through models declared after `least` only: so that a cycle is reported by its first model. */
static bool reaches(struct check *c, int from, int to, int least)
{
    struct walk *w = &c->walk;
    *w = (struct walk){.n = 0};
    push_model(w, c->spec->models + from, from);
    while (w->n > 0) {
        int m = w->stack[--w->n];
        if (m == to)
            return true;
        if (m > least)
            push_model(w, c->spec->models + m, m);
    }
    return false;
}

static bool leads_to(struct check *c, const struct expr *e, int self, int to, int *next)
{
    if (!e)
        return false;
    if (e->kind == EXPR_METRIC && e->model != self) {
        *next = e->model;
        return e->model == to || (e->model > to && reaches(c, e->model, to, to));
    }
    return leads_to(c, e->lhs, self, to, next) || leads_to(c, e->rhs, self, to, next);
}

/* The goal of `self` on the way to `to`, and the model it mentions. */
static const struct goal *goal_towards(struct check *c, int self, int to, int *next)
{
    const struct model_spec *m = c->spec->models + self;
    for (int i = 0; i < m->n_goals; i++)
        if (leads_to(c, m->goals[i].lhs, self, to, next) ||
            leads_to(c, m->goals[i].rhs, self, to, next))
            return m->goals + i;
    return NULL;
}

void check_goal_cycle(struct check *c, struct decl *d)
{
    int self = d->index, next = self;
    if (!reaches(c, self, self, self))
        return;
    const struct goal *goal = goal_towards(c, self, self, &next);
    if (!goal)
        return;
    struct diag *g =
        rule_fail(c, d, RULE_GOAL_CYCLE, goal->at, "'%s' waits for '%s', which waits for '%s'",
                  d->name, c->spec->models[next].name, d->name);
    for (int n = 0; next != self && n < MAX_GOALS; n++) {
        int from = next;
        goal = goal_towards(c, from, self, &next);
        if (!goal)
            break;
        diag_note(c->diags, g, &goal->at, "'%s' waits for '%s' here", c->spec->models[from].name,
                  c->spec->models[next].name);
    }
    diag_help(c->diags, g, "compare one of them with a number, or with a third model");
}

static bool has_base(const struct spec *s, const struct law *l)
{
    for (int n = 0; l->base >= 0 && n < s->n_laws; n++)
        l = s->laws + l->base;
    return !isnan(l->E) && !isnan(l->A);
}

/* A model that lacks something is reported once for each metric, not at each mention. */
static bool first_mention(struct check *c, const struct expr *e)
{
    unsigned bit = 1u << e->metric;
    bool first = !(c->seen[e->model] & bit);
    c->seen[e->model] |= bit;
    return first;
}

static void visit_once(struct check *c, struct decl *d, metric_visit *f)
{
    memset(c->seen, 0, sizeof c->seen);
    visit_goals(c, d, f);
}

static void need_law(struct check *c, struct decl *d, const struct expr *e)
{
    const struct model_spec *m = c->spec->models + e->model;
    if (e->metric != METRIC_LOSS || m->train.law >= 0 || !first_mention(c, e))
        return;
    struct diag *g = rule_fail(c, d, RULE_GOAL_NEEDS_LAW, e->at,
                               "the loss of '%s' cannot be predicted: it has no law", m->name);
    diag_help(c->diags, g, "add 'law = bian2025_297m' to its train { ... }");
}

void check_goal_needs_law(struct check *c, struct decl *d)
{
    visit_once(c, d, need_law);
}

static void need_tokens(struct check *c, struct decl *d, const struct expr *e)
{
    const struct model_spec *m = c->spec->models + e->model;
    bool loss = e->metric == METRIC_LOSS && m->train.law >= 0 &&
                has_base(c->spec, c->spec->laws + m->train.law);
    bool needed = loss || e->metric == METRIC_TRAIN_TIME;
    if (!isnan(m->train.tokens) || !needed || !first_mention(c, e))
        return;
    struct diag *g = rule_fail(c, d, RULE_GOAL_NEEDS_TOKENS, e->at,
                               "the %s of '%s' depends on its training tokens, which are not given",
                               metric_names[e->metric], m->name);
    diag_help(c->diags, g, "add 'tokens = 100B' to its train { ... }");
}

void check_goal_needs_tokens(struct check *c, struct decl *d)
{
    visit_once(c, d, need_tokens);
}

static void need_device(struct check *c, struct decl *d, const struct expr *e)
{
    const struct model_spec *m = c->spec->models + e->model;
    bool serves =
        e->metric == METRIC_THROUGHPUT || e->metric == METRIC_LATENCY || e->metric == METRIC_TTFT;
    bool trains = e->metric == METRIC_TRAIN_TIME && m->train.device < 0;
    if (m->serve.device >= 0 || !(serves || trains) || !first_mention(c, e))
        return;
    struct diag *g = rule_fail(c, d, RULE_GOAL_NEEDS_DEVICE, e->at,
                               "the %s of '%s' cannot be predicted: it has no device",
                               metric_names[e->metric], m->name);
    diag_help(c->diags, g, "add 'device = host' or 'device = h200' to its %s { ... }",
              trains ? "train" : "serve");
}

void check_goal_needs_device(struct check *c, struct decl *d)
{
    visit_once(c, d, need_device);
}

/* ---- laws --------------------------------------------------------------------------------------
 */

/* A cycle is reported by its first law; one that only leads into a cycle is left unchecked. */
void check_base_cycle(struct check *c, struct decl *d)
{
    const struct law *laws = c->spec->laws;
    int n = 0, at = d->index, least = at;
    do {
        at = laws[at].base;
        least = at >= 0 && at < least ? at : least;
    } while (at >= 0 && at != d->index && n++ <= c->spec->n_laws);
    if (at < 0)
        return;
    d->broken |= BREAKS_SHAPE;
    if (at != d->index || least != d->index)
        return;
    struct diag *g = rule_fail(c, d, RULE_BASE_CYCLE, d->all[KEY_BASE]->value_at,
                               "the bases of '%s' go round in a circle", d->name);
    diag_help(c->diags, g, "give one of them its own chinchilla { ... } instead");
}

void check_form(struct check *c, struct decl *d)
{
    if (d->all[KEY_FORM])
        return;
    struct diag *g = rule_fail(c, d, RULE_MISSING_FORM, d->at, "the law '%s' has no form", d->name);
    if (d->all[KEY_BASE])
        diag_note(c->diags, g, &d->all[KEY_BASE]->at,
                  "a base gives Chinchilla coefficients only; 'law %s : %s {' would inherit all",
                  d->name, d->all[KEY_BASE]->name);
    diag_help(c->diags, g, "add 'form = multiplicative', additive, joint, chinchilla or morph");
}

/* Which coefficients each form is made of. */
#define FORM(f) (1u << LAW_##f)
enum { FACTORS = FORM(MULTIPLICATIVE) | FORM(ADDITIVE) | FORM(JOINT) };
static const struct coefficient {
    enum key key, sample;
    unsigned forms; /* that need it */
} coefficients[] = {
    {KEY_A0, KEY_SAMPLE_A0, FACTORS},
    {KEY_A1, KEY_SAMPLE_A1, FACTORS},
    {KEY_A2, KEY_SAMPLE_A2, FACTORS},
    {KEY_B0, KEY_SAMPLE_B0, FORM(MULTIPLICATIVE) | FORM(JOINT)},
    {KEY_B1, KEY_SAMPLE_B1, FACTORS},
    {KEY_B2, KEY_SAMPLE_B2, FORM(MULTIPLICATIVE) | FORM(ADDITIVE)},
    {KEY_MORPH_E, KEY_SAMPLE_MORPH_E, FORM(MORPH)},
    {KEY_E, KEY_SAMPLE_E, FACTORS | FORM(CHINCHILLA) | FORM(MORPH)},
    {KEY_A, KEY_SAMPLE_A, FACTORS | FORM(CHINCHILLA) | FORM(MORPH)},
    {KEY_B, KEY_SAMPLE_B, FACTORS | FORM(CHINCHILLA) | FORM(MORPH)},
    {KEY_ALPHA, KEY_SAMPLE_ALPHA, FACTORS | FORM(CHINCHILLA) | FORM(MORPH)},
    {KEY_BETA, KEY_SAMPLE_BETA, FACTORS | FORM(CHINCHILLA)},
};
#undef FORM
enum { N_COEFFICIENTS = sizeof coefficients / sizeof *coefficients };

/* L_opt comes from own or borrowed Chinchilla coefficients; an observation alone pins it too. */
static bool needs_chinchilla(const struct check *c, const struct decl *d)
{
    bool any = false;
    for (int i = 0; i < N_COEFFICIENTS; i++)
        any |=
            key_infos[coefficients[i].key].block == BLOCK_CHINCHILLA && d->all[coefficients[i].key];
    bool pinned = d->observe && c->law->form != LAW_CHINCHILLA && c->law->form != LAW_MORPH;
    return any || (c->law->base < 0 && !pinned);
}

static bool is_missing(const struct check *c, const struct decl *d, int i)
{
    const struct coefficient *k = coefficients + i;
    if (d->all[k->key] || !(k->forms & 1u << c->law->form))
        return false;
    return key_infos[k->key].block != BLOCK_CHINCHILLA || needs_chinchilla(c, d);
}

/* "width { a0 a1 }, chinchilla { E }" */
static bool list_missing(const struct check *c, const struct decl *d, struct text *t)
{
    enum block open = BLOCK_FILE;
    for (int i = 0; i < N_COEFFICIENTS; i++) {
        enum block b = key_infos[coefficients[i].key].block;
        if (!is_missing(c, d, i))
            continue;
        if (b != open)
            text_printf(t, "%s%s {", t->length ? " }, " : "", block_infos[b].word);
        text_printf(t, " %s", key_infos[coefficients[i].key].name);
        open = b;
    }
    text_add(t, open == BLOCK_FILE ? "" : " }");
    return open == BLOCK_CHINCHILLA;
}

void check_coefficients(struct check *c, struct decl *d)
{
    struct text t = {0};
    bool chinchilla = list_missing(c, d, &t);
    if (t.length) {
        struct diag *g =
            rule_fail(c, d, RULE_MISSING_COEFFICIENTS, d->at, "the %s law '%s' lacks %s",
                      law_form_names[c->law->form], d->name, t.at);
        diag_help(c->diags, g,
                  chinchilla ? "add them, or borrow the Chinchilla ones: 'base = "
                               "besiroglu2024'"
                             : "add them, each on a line of its own: 'a0 = 2.697'");
    }
    text_free(&t);
}

/* Every list refits a number that the law itself has, and sample i is item i of all of them. */
void check_samples(struct check *c, struct decl *d)
{
    const struct setting *first = NULL;
    for (int i = 0; i < N_COEFFICIENTS; i++) {
        const struct setting *s = d->own[coefficients[i].sample];
        const struct key_info *k = key_infos + coefficients[i].key;
        if (!s)
            continue;
        if (!d->all[coefficients[i].key]) {
            struct diag *g = rule_fail(c, d, RULE_SAMPLE_WITHOUT_VALUE, s->at,
                                       "samples of %s, but the law '%s' gives no %s", k->name,
                                       d->name, k->name);
            diag_help(c->diags, g, "add it in '%s { ... }', or delete the samples",
                      block_infos[k->block].word);
        } else if (first && s->n_list != first->n_list) {
            const char *first_name = key_infos[first->key].name;
            struct diag *g = rule_fail(c, d, RULE_SAMPLE_LENGTHS, s->value_at,
                                       "the lists of %s and %s differ in length: %d and %d",
                                       first_name, k->name, first->n_list, s->n_list);
            diag_note(c->diags, g, &first->at, "%s is here", first_name);
            diag_help(c->diags, g,
                      "a sample is one refit of the whole law: all lists have one length");
        }
        first = first ? first : s;
    }
}

void check_unused(struct check *c, struct decl *d)
{
    for (int i = 0; i < N_COEFFICIENTS; i++) {
        const struct setting *s = d->own[coefficients[i].key];
        if (!s || coefficients[i].forms & 1u << c->law->form || s->key == KEY_BETA)
            continue;
        struct diag *g =
            rule_fail(c, d, RULE_UNUSED_COEFFICIENTS, s->at, "a %s law does not use %s",
                      law_form_names[c->law->form], key_infos[s->key].name);
        diag_help(c->diags, g, "delete it, or choose the form that it belongs to");
    }
}

/* c0 + c1 ln x + c2 / x has a least value where c1 and c2 are positive; else there is no best x. */
void check_u_shape(struct check *c, struct decl *d)
{
    static const enum key slopes[] = {KEY_A1, KEY_A2, KEY_B1, KEY_B2};
    if (c->law->form != LAW_MULTIPLICATIVE && c->law->form != LAW_ADDITIVE)
        return;
    for (int i = 0; i < 4; i++) {
        const struct setting *s = d->own[slopes[i]], *other = d->own[slopes[i ^ 1]];
        bool constant = s && other && s->number == 0 && other->number == 0; /* and says so */
        if (!s || s->number > 0 || constant)
            continue;
        bool width = key_infos[s->key].block == BLOCK_WIDTH;
        struct diag *g = rule_fail(c, d, RULE_NOT_U_SHAPED, s->value_at,
                                   "the %s factor has no least value where %s is not positive",
                                   width ? "width" : "ratio", key_infos[s->key].name);
        diag_note(c->diags, g, NULL,
                  "c0 + c1 ln x + c2 / x is U-shaped for positive c1 and c2; "
                  "here the best %s lies at a bound",
                  width ? "d_model" : "r");
        diag_help(c->diags, g, "fit the law on more shapes, or bound the knob");
    }
}

/* ---- devices -----------------------------------------------------------------------------------
 */

void check_device_rates(struct check *c, struct decl *d)
{
    static const enum key keys[] = {KEY_FP32, KEY_MEMORY_BANDWIDTH, KEY_MEMORY};
    struct text t = {0};
    if (c->device->is_host && d->builtin)
        return;
    for (int i = 0; i < 3; i++)
        if (!d->all[keys[i]])
            text_printf(&t, "%s%s", t.length ? ", " : "", key_infos[keys[i]].name);
    if (t.length) {
        struct diag *g =
            rule_fail(c, d, RULE_MISSING_RATES, d->at, "the device '%s' has no %s", d->name, t.at);
        diag_help(c->diags, g,
                  "for example fp32 = 67TFLOP/s, memory_bandwidth = 4.8TB/s, memory = "
                  "141GB; 'archc calibrate' measures this machine");
    }
    text_free(&t);
}

void check_cache_pair(struct check *c, struct decl *d)
{
    const struct setting *rate = d->all[KEY_CACHE_BANDWIDTH], *size = d->all[KEY_CACHE];
    if (!rate == !size)
        return;
    struct diag *g =
        rule_fail(c, d, RULE_CACHE_PAIR, rate ? rate->at : size->at, "%s without %s has no effect",
                  rate ? "cache_bandwidth" : "cache", rate ? "cache" : "cache_bandwidth");
    diag_help(c->diags, g, "give both, or neither");
}

/* emit.c - the stage printers: tokens, tree, spec. One fact a line, in a fixed order. */
#include <math.h>
#include <string.h>

#include "front.h"
#include "parse.h"

int yylex_destroy(void *scanner);

static bool load(struct arena *a, const char *path, struct diags *d)
{
    struct source *s = arena_alloc(a, sizeof *s);
    const char *why;
    d->arena = d->arena ? d->arena : a;
    d->sources = s;
    d->n_sources = 1;
    if (source_load(a, path, s, &why))
        return true;
    diag_error(d, (struct span){0, 0, 0}, "unreadable", "%s", why);
    return false;
}

/* ---- tokens -------------------------------------------------------------------------------- */

static void place(const struct source *s, uint32_t at, int *line, int *column, uint32_t *seen)
{
    for (; *seen < at && *seen < s->length; ++*seen) {
        *column += 1;
        if (s->text[*seen] == '\n') {
            *line += 1;
            *column = 1;
        }
    }
}

void emit_tokens(struct arena *a, const char *path, struct diags *d, FILE *out)
{
    struct parse p;
    if (!load(a, path, d) || !source_is_text(d, 0))
        return;
    parse_begin(&p, a, d, 0);
    void *scanner = scan_begin(&p);
    if (!scanner)
        return;
    YYSTYPE value;
    struct span at;
    int line = 1, column = 1, token;
    uint32_t seen = 0;
    while ((token = yylex(&value, &at, scanner, &p)) != TOK_YYEOF) {
        place(p.source, at.start, &line, &column, &seen);
        bool spelled = token == TOK_NAME || token == TOK_NUMBER || token == TOK_STRING ||
                       token == TOK_RELATION;
        fprintf(out, "%d:%d %s", line, column, token_name(token));
        if (spelled)
            fprintf(out, " %.*s", (int)(at.end - at.start), p.source->text + at.start);
        fputc('\n', out);
    }
    yylex_destroy(scanner);
}

/* ---- tree ---------------------------------------------------------------------------------- */

static void tree(const struct source *s, const struct ast_item *items, int indent, FILE *out)
{
    static const char *const kinds[] = {
        [AST_IMPORT] = "import", [AST_ENTRY] = "entry",     [AST_BLOCK] = "block",
        [AST_GOAL] = "goal",     [AST_OBSERVE] = "observe", [AST_ERROR] = "error",
    };
    for (const struct ast_item *i = items; i; i = i->next) {
        struct text t = {0};
        fprintf(out, "%*s%s", indent, "", kinds[i->kind]);
        if (i->kind == AST_BLOCK)
            head_print(&t, i);
        else if (i->kind == AST_GOAL)
            goal_print(&t, s, i);
        else if (i->value)
            value_print(&t, s, i->value);
        if (i->kind == AST_ENTRY)
            fprintf(out, " %s =", i->word);
        if (i->kind == AST_GOAL)
            fprintf(out, " %s", i->word);
        if (i->kind == AST_OBSERVE)
            fprintf(out, " %s %s =", i->name, i->parent);
        fprintf(out, "%s%s\n", t.length ? " " : "", t.length ? t.at : "");
        text_free(&t);
        tree(s, i->items, indent + 2, out);
    }
}

void emit_ast(struct arena *a, const char *path, struct diags *d, FILE *out)
{
    if (!load(a, path, d))
        return;
    struct ast *ast = ast_parse(a, d, 0);
    tree(d->sources, ast->items, 0, out);
}

/* ---- spec ---------------------------------------------------------------------------------- */

static void real(FILE *out, const char *name, double value)
{
    char n[32];
    if (!isnan(value))
        fprintf(out, "  %s %s\n", name, number_text(n, value));
}

static void domain(FILE *out, const char *name, const struct domain *d)
{
    char a[32], b[32];
    switch (d->kind) {
    case DOMAIN_UNSET:
        return;
    case DOMAIN_FIXED:
        fprintf(out, "  %s %s\n", name, number_text(a, d->value));
        return;
    case DOMAIN_FREE:
        fprintf(out, "  %s free\n", name);
        return;
    case DOMAIN_RANGE:
        fprintf(out, "  %s free %s..%s", name, number_text(a, d->lo), number_text(b, d->hi));
        if (d->step != 0)
            fprintf(out, " step %s", number_text(a, d->step));
        fputc('\n', out);
        return;
    case DOMAIN_LIST:
        fprintf(out, "  %s free [", name);
        for (int i = 0; i < d->n; i++)
            fprintf(out, "%s%s", i ? ", " : "", number_text(a, d->list[i]));
        fputs("]\n", out);
        return;
    }
}

static void expression(FILE *out, const struct spec *s, const struct expr *e)
{
    static const char op[] = {
        [EXPR_ADD] = '+', [EXPR_SUB] = '-', [EXPR_MUL] = '*', [EXPR_DIV] = '/', [EXPR_NEG] = '-'};
    char n[32];
    if (e->kind == EXPR_NUMBER) {
        fputs(number_text(n, e->number), out);
    } else if (e->kind == EXPR_METRIC) {
        fprintf(out, "%s.%s", s->models[e->model].name, metric_names[e->metric]);
    } else {
        fprintf(out, "(%c ", op[e->kind]);
        expression(out, s, e->lhs);
        if (e->rhs) {
            fputc(' ', out);
            expression(out, s, e->rhs);
        }
        fputc(')', out);
    }
}

static void goal(FILE *out, const struct spec *s, const struct goal *g)
{
    static const char *const words[] = {"require", "maximize", "minimize"};
    static const char *const relations[] = {"<=", ">=", "=="};
    fprintf(out, "  %s ", words[g->kind]);
    if (g->rhs)
        fprintf(out, "(%s ", relations[g->relation]);
    expression(out, s, g->lhs);
    if (g->rhs) {
        fputc(' ', out);
        expression(out, s, g->rhs);
        fputc(')', out);
    }
    if (g->confidence != 0)
        fprintf(out, " with %g", g->confidence);
    fprintf(out, " # %s\n", g->text);
}

static const char *yes(bool b)
{
    return b ? "yes" : "no";
}

static void rope(FILE *out, const struct rope_spec *r)
{
    real(out, "rope.theta", r->theta);
    if (r->factor == 0)
        return;
    real(out, "rope.scaling.factor", r->factor);
    real(out, "rope.scaling.low", r->low);
    real(out, "rope.scaling.high", r->high);
    real(out, "rope.scaling.original", r->original);
}

static void train(FILE *out, const struct spec *s, const struct train_spec *t)
{
    real(out, "train.tokens", t->tokens);
    if (t->law >= 0)
        fprintf(out, "  train.law %s\n", s->laws[t->law].name);
    if (t->device >= 0)
        fprintf(out, "  train.device %s\n", s->devices[t->device].name);
    fprintf(out, "  train.batch %d\n  train.sequence %d\n  train.accumulate %d\n", t->batch,
            t->sequence, t->accumulate);
    if (t->recompute != RECOMPUTE_AUTO)
        fprintf(out, "  train.recompute %s\n", recompute_names[t->recompute]);
    if (t->logits != LOGITS_AUTO)
        fprintf(out, "  train.logits %s\n", logits_names[t->logits]);
    real(out, "train.lr", t->lr);
    real(out, "train.warmup", t->warmup);
    real(out, "train.weight_decay", t->weight_decay);
    real(out, "train.clip", t->clip);
    real(out, "train.beta1", t->beta1);
    real(out, "train.beta2", t->beta2);
}

static void serve(FILE *out, const struct spec *s, const struct serve_spec *v)
{
    if (v->device >= 0)
        fprintf(out, "  serve.device %s\n", s->devices[v->device].name);
    fprintf(out, "  serve.batch %d\n  serve.prompt %d\n  serve.generate %d\n", v->batch, v->prompt,
            v->generate);
    fprintf(out, "  serve.weights %s\n  serve.kv %s\n", dtype_names[v->weights],
            dtype_names[v->kv]);
}

static void model(FILE *out, const struct spec *s, const struct model_spec *m)
{
    fprintf(out, "model %s%s\n", m->name, m - s->models == s->main_model ? " # main" : "");
    for (int k = 0; k < KNOB_COUNT; k++)
        domain(out, knob_names[k], m->knobs + k);
    if (m->params != 0) {
        real(out, "params", m->params);
        real(out, "params_tolerance", m->params_tolerance);
    }
    fprintf(out, "  vocab %d\n  context %d\n  tied %s\n", m->vocab, m->context, yes(m->tied));
    real(out, "norm.eps", m->norm_eps);
    fprintf(out, "  attention.bias %s\n  attention.qk_norm %s\n", yes(m->qkv_bias),
            yes(m->qk_norm));
    rope(out, &m->rope);
    train(out, s, &m->train);
    serve(out, s, &m->serve);
    for (int i = 0; i < m->n_goals; i++)
        goal(out, s, m->goals + i);
}

/* What the law does not have is left out, as in the law itself. */
static void sample(FILE *out, const struct law_sample *s)
{
    const double values[] = {s->E,    s->A,    s->B,    s->alpha, s->beta, s->a[0],
                             s->a[1], s->a[2], s->b[0], s->b[1],  s->b[2], s->morph_e};
    char buffer[32];
    fputs("  sample", out);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        if (!isnan(values[i]))
            fprintf(out, " %s", number_text(buffer, values[i]));
    fputc('\n', out);
}

static void law(FILE *out, const struct spec *s, const struct law *l)
{
    fprintf(out, "law %s\n  form %s\n", l->name, law_form_names[l->form]);
    if (l->base >= 0)
        fprintf(out, "  base %s\n", s->laws[l->base].name);
    const struct {
        const char *name;
        double value;
    } facts[] = {
        {"E", l->E},
        {"A", l->A},
        {"B", l->B},
        {"alpha", l->alpha},
        {"beta", l->beta},
        {"a0", l->a[0]},
        {"a1", l->a[1]},
        {"a2", l->a[2]},
        {"b0", l->b[0]},
        {"b1", l->b[1]},
        {"b2", l->b[2]},
        {"morph.e", l->morph_e},
        {"r_lo", l->r_lo},
        {"r_hi", l->r_hi},
        {"width_lo", l->x_lo},
        {"width_hi", l->x_hi},
        {"params_lo", l->params_lo},
        {"params_hi", l->params_hi},
    };
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++)
        real(out, facts[i].name, facts[i].value);
    for (int i = 0; i < l->n_samples; i++)
        sample(out, l->samples + i);
    if (l->observe_model >= 0) {
        fprintf(out, "  observe %s\n", s->models[l->observe_model].name);
        real(out, "observe.loss", l->observe_loss);
    }
}

static void device(FILE *out, const struct device *v)
{
    fprintf(out, "device %s%s\n", v->name, v->is_host ? " # measured" : "");
    for (int t = 0; t < DTYPE_COUNT; t++)
        real(out, dtype_names[t], v->flops[t]);
    if (v->products > 0)
        real(out, "products", v->products);
    real(out, "memory_bandwidth", v->memory_bandwidth);
    real(out, "memory", v->memory_bytes);
    real(out, "cache_bandwidth", v->cache_bandwidth);
    real(out, "cache", v->cache_bytes);
    real(out, "launch", v->launch);
    real(out, "threads", v->threads);
    real(out, "efficiency.matmul", v->eff_matmul);
    real(out, "efficiency.attention", v->eff_attention);
    real(out, "efficiency.stream", v->eff_stream);
}

static bool is_builtin(const struct spec *s, struct span at)
{
    return (int)at.source < s->n_sources && !strcmp(s->sources[at.source].path, PRELUDE_PATH);
}

static void numbers(FILE *out, const char *name, const struct numbers *v)
{
    char n[32];
    if (v->n == 0)
        return;
    fprintf(out, "  %s [", name);
    for (int i = 0; i < v->n; i++)
        fprintf(out, "%s%s", i ? ", " : "", number_text(n, v->at[i]));
    fputs("]\n", out);
}

/* A path without the directory of the study's file, wherever that is. */
static const char *from_file(const struct spec *s, const struct study_spec *v, const char *path)
{
    const char *file = s->sources[v->at.source].path, *slash = strrchr(file, '/');
    size_t n = slash ? (size_t)(slash - file) + 1 : 0;
    return strncmp(file, path, n) == 0 ? path + n : path;
}

static void study(FILE *out, const struct spec *s, const struct study_spec *v)
{
    fprintf(out, "study %s\n  data %s\n", v->name, from_file(s, v, v->data));
    if (v->validation)
        fprintf(out, "  validation %s\n", from_file(s, v, v->validation));
    else
        real(out, "held_out", v->held_out);
    numbers(out, "sizes", &v->sizes);
    real(out, "tolerance", v->tolerance);
    real(out, "tokens_per_param", v->tokens_per_param);
    fprintf(out, "  layers %d\n  head_dim %d\n  gqa %d\n", v->layers, v->head_dim, v->gqa);
    numbers(out, "width", &v->width);
    numbers(out, "d_model", &v->d_model);
    numbers(out, "r", &v->r);
    numbers(out, "groups", &v->groups);
    fprintf(out, "  d_model_step %d\n  d_ff_step %d\n  seeds %d\n", v->d_model_step, v->d_ff_step,
            v->seeds);
    real(out, "lr_exponent", v->lr_exponent);
    train(out, s, &v->train);
    serve(out, s, &v->serve);
}

/* Built-in laws and devices are left out: they are the same for every file. */
void emit_spec(const struct spec *s, FILE *out)
{
    for (int i = 0; i < s->n_laws; i++)
        if (!is_builtin(s, s->laws[i].at))
            law(out, s, s->laws + i);
    for (int i = 0; i < s->n_devices; i++)
        if (!is_builtin(s, s->devices[i].at))
            device(out, s->devices + i);
    for (int i = 0; i < s->n_models; i++)
        model(out, s, s->models + i);
    for (int i = 0; i < s->n_studies; i++)
        study(out, s, s->studies + i);
}

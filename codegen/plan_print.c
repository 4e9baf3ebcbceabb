/* plan_print.c - the plan as text, and the check of what plan.c and layout.c promise. */
#include "codegen.h"

#include <assert.h>
#include <string.h>

/* ---- printing ---- */

static const char *operand_text(const struct schedule *s, const struct operand *o)
{
    static const char *const plain[] = {
        [OPERAND_NONE] = "-",
        [OPERAND_TOKENS] = "tokens",
        [OPERAND_TARGETS] = "targets",
        [OPERAND_LOSSES] = "losses",
        [OPERAND_LOGITS] = "logits",
        [OPERAND_SCALE] = "scale",
        [OPERAND_ROPE] = "rope_table",
        [OPERAND_CACHE] = "cache",
        [OPERAND_PAST] = "past",
        [OPERAND_ROWS] = "rows",
        [OPERAND_SCRATCH] = "scratch",
        [OPERAND_BLOCKS] = "blocks",
        [OPERAND_SUMS] = "sums",
        [OPERAND_CALL] = "call",
        [OPERAND_SLOT] = "slot",
        [OPERAND_POSITION] = "position",
        [OPERAND_SEGMENT_ROW] = "segment_row",
        [OPERAND_HEAD_ROW] = "head_row",
        [OPERAND_PAGES] = "pages",
        [OPERAND_NEXT] = "next",
        [OPERAND_LENGTH] = "length",
        [OPERAND_OUTPUT] = "output",
        [OPERAND_SAMPLING] = "sampling",
        [OPERAND_COUNTER] = "counter",
        [OPERAND_STEP] = "step",
        [OPERAND_PARAMS] = "params",
        [OPERAND_WEIGHTS] = "weights",
        [OPERAND_GRADS] = "grads",
        [OPERAND_MOMENT1] = "moment1",
        [OPERAND_MOMENT2] = "moment2",
    };
    if (o->kind == OPERAND_BUFFER)
        return s->buffers[o->id].name;
    if (o->kind == OPERAND_WEIGHT || o->kind == OPERAND_GRADIENT || o->kind == OPERAND_OLD_GRADIENT)
        return weight_rows[o->id].name;
    return plain[o->kind];
}

static void print_operands(const struct schedule *s, const struct step *step, FILE *out)
{
    static const char *const at[] = {
        [AT_WHOLE] = "",           [AT_FIRST_LAYER] = "[0]", [AT_LAYER] = "[l]",
        [AT_NEXT_LAYER] = "[l+1]", [AT_LAST_LAYER] = "[L]",  [AT_CHUNK] = "[c]",
        [AT_TOKENS] = "[v]",       [AT_LAST_ROW] = "[last]",
    };
    for (int k = 0; k < step->n_operands; k++) {
        const struct operand *o = &step->operands[k];
        fprintf(out, " %s%s%s%s", step->writes & 1u << k ? "=" : "",
                o->kind == OPERAND_GRADIENT       ? "d"
                : o->kind == OPERAND_OLD_GRADIENT ? "+d"
                                                  : "",
                operand_text(s, o), at[o->at]);
    }
}

/* "  29.0 us at least, 35.4 us" */
static void print_price(const struct price *x, FILE *out)
{
    fprintf(out, "at least %.1f us, expected %.1f us", 1e6 * x->floor, 1e6 * x->seconds);
    if (x->seconds > 0)
        fprintf(out, " (%.0f %%)", 100 * x->floor / x->seconds);
}

static void print_step(const struct plan *p, const struct schedule *s, const struct step *step,
                       FILE *out)
{
    const struct kernel *k = &p->kernels[step->kernel];
    bool launches = p->target->launches; /* every step is a launch: nothing is split or awaited */
    if (step->barrier && !launches)
        fprintf(out, "    ---- barrier\n");
    fprintf(out, "    %-24s %-5s", k->name,
            launches                            ? ""
            : step->partition == PARTITION_ROWS ? "rows"
                                                : "other");
    for (int i = 0; i < step->n_fused; i++)
        fprintf(out, "%s%s", i ? "+" : step->again ? " again " : " ", step->fused[i]->name);
    fprintf(out, " :");
    print_operands(s, step, out);
    if (p->device) {
        fprintf(out, "\n        ");
        print_price(&step->price, out);
    }
    fputc('\n', out);
}

static void print_loop_head(const struct step *step, FILE *out)
{
    static const char *const loops[] = {[LOOP_NONE] = "once",
                                        [LOOP_LAYERS] = "layers, first to last",
                                        [LOOP_LAYERS_REVERSED] = "layers, last to first",
                                        [LOOP_CHUNKS] = "chunks of rows",
                                        [LOOP_VOCAB] = "pieces of the vocabulary"};
    static const char *const when[] = {
        [WHEN_ALWAYS] = "", [WHEN_SCORED] = ", when scored", [WHEN_LOGITS] = ", when logits"};
    fprintf(out, "  %s%s\n", loops[step->loop], when[step->when]);
}

/* What a schedule takes in all, and what that is of: "decode: one token behind 4096". */
static void print_total(const struct plan *p, enum schedule_id id, FILE *out)
{
    const struct schedule *s = &p->schedules[id];
    fprintf(out, "  on %s ", p->device->name);
    print_price(&s->price, out);
    if (id == SCHEDULE_PREFILL || id == SCHEDULE_DECODE || id == SCHEDULE_BATCH)
        fprintf(out, ", behind %.0f tokens; %.3f ns more for each", s->past,
                1e9 * s->a_token.seconds);
    fputc('\n', out);
}

/* The phases side by side. */
static void print_summary(const struct plan *p, FILE *out)
{
    const struct schedule *s = p->schedules;
    const int steps[] = {1, p->options.accumulate};
    double rows = (double)p->extents[EXTENT_ROWS];
    fprintf(out, "expected on %s\n", p->device->name);
    for (int id = 0; id < SCHEDULE_COUNT; id++) {
        if (s[id].n_steps == 0)
            continue;
        fprintf(out, "  %-8s", schedule_names[id]);
        print_price(&s[id].price, out);
        fputc('\n', out);
    }
    for (int i = 0; i < (steps[1] > 1 ? 2 : 1); i++)
        fprintf(out,
                "  training %.0f tokens/s, %.1f %% of the matrix units' peak, %d micro-batch%s a "
                "step\n",
                steps[i] * rows / plan_train_seconds(p, steps[i]),
                100 * plan_train_mfu(p, steps[i]), steps[i], i ? "es" : "");
}

static void print_schedule(const struct plan *p, enum schedule_id id, FILE *out)
{
    const struct schedule *s = &p->schedules[id];
    if (s->n_steps == 0)
        return;
    fprintf(out, "schedule %s\n", schedule_names[id]);
    for (int i = 0; i < s->n_steps; i++) {
        const struct step *step = &s->steps[i];
        if (i == 0 || step->loop != step[-1].loop || step->when != step[-1].when)
            print_loop_head(step, out);
        print_step(p, s, step, out);
    }
    if (p->device)
        print_total(p, id, out);
    if (s->work_floats)
        fprintf(out, "  workspace %zu floats\n", s->work_floats);
    for (int b = 0; b < BUFFER_COUNT; b++)
        if (s->buffers[b].used)
            fprintf(out, "    %-10s [%s%s][%s]  steps %d..%d  offset %zu\n", s->buffers[b].name,
                    s->buffers[b].kept ? "LAYERS][" : "", extent_names[s->buffers[b].rows],
                    extent_names[s->buffers[b].width], s->buffers[b].first, s->buffers[b].last,
                    s->buffers[b].offset);
}

void plan_print(const struct plan *p, FILE *out)
{
    fprintf(out, "plan %s for %s, %d threads, %s weights, %s\n", p->arch->name, p->target->name,
            p->options.threads, dtype_names[p->options.weights],
            p->options.generic ? "generic" : "specialised");
    if (p->options.recompute > RECOMPUTE_NONE)
        fprintf(out, "backward makes again: %s\n", recompute_names[p->options.recompute]);
    if (p->target->launches && p->options.logits == LOGITS_NEVER)
        fprintf(out, "logits of training are never written\n");
    fprintf(out, "extents\n");
    for (int e = 1; e < EXTENT_ONE; e++)
        if (p->extents[e])
            fprintf(out, "  %-16s %lld\n", extent_names[e], (long long)p->extents[e]);
    fprintf(out, "kernels\n");
    for (int i = 0; i < p->n_kernels; i++) {
        const struct kernel *k = &p->kernels[i];
        fprintf(out, "  %-26s %-20s m %s n %s k %s  x %d  %.3f MFLOP %.3f MB\n", k->name,
                kernel_kind_names[k->kind], extent_names[k->m], extent_names[k->n],
                extent_names[k->k], k->times, k->flops / 1e6, k->bytes / 1e6);
    }
    for (int id = 0; id < SCHEDULE_COUNT; id++)
        print_schedule(p, (enum schedule_id)id, out);
    if (p->device)
        print_summary(p, out);
}

/* ---- verifying ---- */

static bool operation_done_once(const struct schedule *s, const struct op *op)
{
    int times = 0;
    for (int i = 0; i < s->n_steps; i++)
        for (int k = 0; k < s->steps[i].n_fused; k++)
            times += !s->steps[i].again && s->steps[i].fused[k] == op;
    return times == 1;
}

static bool all_done(const struct schedule *s, const struct op_list *list)
{
    for (int i = 0; i < list->n; i++)
        if (!operation_done_once(s, &list->ops[i]))
            return false;
    return true;
}

/* What is done again is what the level says, each once, in front of the layer's gradients. */
static bool again_as_asked(const struct plan *p)
{
    const struct schedule *s = &p->schedules[SCHEDULE_TRAIN];
    const struct op_list *l = &p->lists[PHASE_TRAIN_FORWARD];
    for (int i = 0; i < l->n; i++) {
        int times = 0;
        for (int k = 0; k < s->n_steps; k++)
            for (int f = 0; s->steps[k].again && f < s->steps[k].n_fused; f++)
                times += s->steps[k].fused[f] == &l->ops[i];
        if (times != op_made_again(p->options.recompute, &l->ops[i]))
            return false;
    }
    for (int k = 1; k < s->n_steps; k++)
        if (s->steps[k].again &&
            (s->steps[k].loop != LOOP_LAYERS_REVERSED ||
             (s->steps[k - 1].loop == s->steps[k].loop && !s->steps[k - 1].again)))
            return false;
    return true;
}

/* Every buffer that a step reads was written by an earlier one, or by an earlier turn of its loop.
 */
static bool defined_before_read(const struct schedule *s)
{
    bool written[BUFFER_COUNT] = {false};
    for (int i = 0; i < s->n_steps; i++)
        for (int pass = 0; pass < 2; pass++)
            for (int k = 0; k < s->steps[i].n_operands; k++) {
                const struct operand *o = &s->steps[i].operands[k];
                bool writes = s->steps[i].writes & 1u << k;
                if (o->kind != OPERAND_BUFFER || writes != (pass == 1))
                    continue;
                if (writes)
                    written[o->id] = true;
                else if (!written[o->id])
                    return false;
            }
    return true;
}

/* Down's gain of the layer behind the last is the final norm's. */
static bool norms_in_a_row(const struct plan *p)
{
    return weight_offset(p, WEIGHT_NORMF, 0) == weight_offset(p, WEIGHT_NORM1, p->arch->layers);
}

static bool live_buffers_apart(const struct plan *p, const struct schedule *s)
{
    for (int i = 0; i < BUFFER_COUNT; i++)
        for (int j = i + 1; j < BUFFER_COUNT; j++) {
            const struct buffer *a = &s->buffers[i], *b = &s->buffers[j];
            if (!a->used || !b->used || a->first > b->last || b->first > a->last)
                continue;
            if (a->offset < b->offset + buffer_floats(p, j, b) &&
                b->offset < a->offset + buffer_floats(p, i, a))
                return false;
        }
    return true;
}

bool plan_verify(const struct plan *p, const char **why)
{
    const struct {
        enum schedule_id id;
        const struct op_list *list;
    } covers[] = {{SCHEDULE_TRAIN, &p->lists[PHASE_TRAIN_FORWARD]},
                  {SCHEDULE_TRAIN, &p->lists[PHASE_TRAIN_BACKWARD]},
                  {SCHEDULE_EVAL, &p->eval},
                  {SCHEDULE_PREFILL, &p->lists[PHASE_PREFILL]},
                  {SCHEDULE_DECODE, &p->lists[PHASE_DECODE]},
                  {SCHEDULE_UPDATE, &p->lists[PHASE_OPTIMISER]}};
    for (size_t i = 0; i < sizeof covers / sizeof covers[0]; i++)
        if (!all_done(&p->schedules[covers[i].id], covers[i].list)) {
            *why = "an operation is done twice or never";
            return false;
        }
    if (!again_as_asked(p)) {
        *why = "what is to be made again is not, or twice, or too late";
        return false;
    }
    if (!norms_in_a_row(p)) {
        *why = "the final norm does not stand behind the layers' norms";
        return false;
    }
    for (int id = 0; id < SCHEDULE_COUNT; id++) {
        if (!defined_before_read(&p->schedules[id])) {
            *why = "a buffer is read before it is written";
            return false;
        }
        if (!live_buffers_apart(p, &p->schedules[id])) {
            *why = "two live buffers overlap";
            return false;
        }
    }
    return true;
}

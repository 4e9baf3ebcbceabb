/* layout.c - where things stand: parameters in their slab, activations in the workspace by
 * lifetime, barriers where one thread needs what another wrote.
 *
 * Needs: steps with operands (plan.c). Preserves their order. */
#include "codegen.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* ---- parameters: matrices first, since they decay, then gains and biases ---- */

const struct weight_row weight_rows[WEIGHT_COUNT] = {
    [WEIGHT_EMBED] = {"EMBED", EXTENT_VOCAB, EXTENT_D_MODEL, false, true},
    [WEIGHT_HEAD] = {"HEAD", EXTENT_VOCAB, EXTENT_D_MODEL, false, true},
    [WEIGHT_QKV] = {"QKV", EXTENT_QKV, EXTENT_D_MODEL, true, true},
    [WEIGHT_O] = {"O", EXTENT_D_MODEL, EXTENT_DQ, true, true},
    [WEIGHT_GATE_UP] = {"GATE_UP", EXTENT_GATE_UP, EXTENT_D_MODEL, true, true},
    [WEIGHT_DOWN] = {"DOWN", EXTENT_D_MODEL, EXTENT_D_FF, true, true},
    [WEIGHT_NORM1] = {"NORM1", EXTENT_D_MODEL, EXTENT_NONE, true, false},
    [WEIGHT_QKV_BIAS] = {"QKV_BIAS", EXTENT_QKV, EXTENT_NONE, true, false},
    [WEIGHT_HEAD_NORM] = {"HEAD_NORM", EXTENT_HEAD_DIM, EXTENT_NONE, true, false},
    [WEIGHT_NORM2] = {"NORM2", EXTENT_D_MODEL, EXTENT_NONE, true, false},
    [WEIGHT_NORMF] = {"NORMF", EXTENT_D_MODEL, EXTENT_NONE, false, false},
};

/* The slab's order: whole-model matrices, each layer's matrices, each layer's vectors, whole-model
 * vectors. Whatever norms what a layer leaves is the next layer's first vector: behind the last
 * layer, where the attention norm of one more would be, the final norm. */
static const enum weight slab_order[] = {
    WEIGHT_EMBED, WEIGHT_HEAD,     WEIGHT_QKV,       WEIGHT_O,     WEIGHT_GATE_UP, WEIGHT_DOWN,
    WEIGHT_NORM1, WEIGHT_QKV_BIAS, WEIGHT_HEAD_NORM, WEIGHT_NORM2, WEIGHT_NORMF};
enum { SLAB_ORDER = sizeof slab_order / sizeof slab_order[0] };

static int64_t round_up(int64_t n, int64_t step)
{
    return (n + step - 1) / step * step;
}

static int64_t round16(int64_t n)
{
    return round_up(n, 16);
}

bool weight_present(const struct arch *a, enum weight w)
{
    switch (w) {
    case WEIGHT_NONE:
        return false;
    case WEIGHT_HEAD:
        return !a->tied;
    case WEIGHT_QKV_BIAS:
        return a->qkv_bias;
    case WEIGHT_HEAD_NORM:
        return a->qk_norm;
    default:
        return true;
    }
}

int64_t slab_vocab(const struct plan *p)
{
    int64_t tokens = p->extents[EXTENT_TOKENS];
    return round_up(tokens,
                    p->options.logits == LOGITS_NEVER ? ops_head_tokens(tokens) : VOCAB_STEP);
}

/* Rows of the vocabulary are padded: zeros that no file has. */
static int64_t weight_floats(const struct plan *p, enum weight w)
{
    const struct weight_row *row = &weight_rows[w];
    int64_t rows = p->extents[row->n];
    if (row->n == EXTENT_VOCAB)
        rows = slab_vocab(p);
    int64_t n = rows * (row->k == EXTENT_NONE ? 1 : p->extents[row->k]);
    return w == WEIGHT_HEAD_NORM ? 2 * n : n;
}

/* Sum of the rounded sizes of the slab's weights that stand in one group, up to but not including
 * `until`. */
static int64_t group_floats(const struct plan *p, bool layer, bool decay, enum weight until)
{
    int64_t sum = 0;
    for (int i = 0; i < SLAB_ORDER; i++) {
        enum weight w = slab_order[i];
        if (w == until)
            break;
        if (weight_rows[w].layer == layer && weight_rows[w].decay == decay &&
            weight_present(p->arch, w))
            sum += round16(weight_floats(p, w));
    }
    return sum;
}

int64_t weight_offset(const struct plan *p, enum weight w, int layer)
{
    bool decay = weight_rows[w].decay, per_layer = weight_rows[w].layer;
    int64_t at = 0;
    if (!decay)
        slab_floats(p, &at);
    if (per_layer)
        at += layer * group_floats(p, true, decay, WEIGHT_NONE);
    if (per_layer == decay) /* matrices of layers, vectors of the model: the others come first */
        at += decay ? group_floats(p, false, true, WEIGHT_NONE)
                    : p->arch->layers * group_floats(p, true, false, WEIGHT_NONE);
    return at + group_floats(p, per_layer, decay, w);
}

int64_t weight_layer_stride(const struct plan *p, enum weight w)
{
    return weight_rows[w].layer ? group_floats(p, true, weight_rows[w].decay, WEIGHT_NONE) : 0;
}

int64_t slab_floats(const struct plan *p, int64_t *decayed)
{
    int layers = p->arch->layers;
    int64_t matrices = group_floats(p, false, true, WEIGHT_NONE) +
                       layers * group_floats(p, true, true, WEIGHT_NONE);
    int64_t vectors = group_floats(p, false, false, WEIGHT_NONE) +
                      layers * group_floats(p, true, false, WEIGHT_NONE);
    if (decayed)
        *decayed = matrices;
    return matrices + vectors;
}

/* ---- activations: first fit over lifetimes ---- */

static int copies(const struct plan *p, int id)
{
    return p->arch->layers + (id == BUFFER_VALUE + VALUE_X);
}

size_t buffer_floats(const struct plan *p, int id, const struct buffer *b)
{
    return b->floats * (size_t)(b->kept ? copies(p, id) : 1);
}

/* First and last step of the loop that step i stands in. */
static void loop_range(const struct schedule *s, int i, int *first, int *last)
{
    *first = *last = i;
    enum loop loop = s->steps[i].loop;
    if (loop == LOOP_NONE)
        return;
    while (*first > 0 && s->steps[*first - 1].loop == loop)
        --*first;
    while (*last + 1 < s->n_steps && s->steps[*last + 1].loop == loop)
        ++*last;
}

static void extend(struct buffer *b, int first, int last)
{
    if (!b->used || first < b->first)
        b->first = first;
    if (!b->used || last > b->last)
        b->last = last;
    b->used = true;
}

/* Does a turn of the loop [first, last] read what an earlier turn, or a step before it, left? */
static bool carried(const struct schedule *s, int id, int first, int last)
{
    for (int i = first; i <= last; i++) {
        const struct step *step = &s->steps[i];
        for (int k = 0; k < step->n_operands; k++) {
            const struct operand *o = &step->operands[k];
            if (o->kind == OPERAND_BUFFER && o->id == id)
                return !(step->writes & 1u << k) || o->at == AT_CHUNK;
        }
    }
    return false;
}

/* A buffer lives over the steps that touch it, and over a whole loop where it carries something
 * from one turn to the next: kept copies, rows written chunk by chunk, what a turn reads before it
 * writes, and what is used again behind the loop. */
static void find_lifetimes(struct schedule *s)
{
    for (int i = 0; i < s->n_steps; i++) {
        const struct step *step = &s->steps[i];
        for (int k = 0; k < step->n_operands; k++) {
            if (step->operands[k].kind != OPERAND_BUFFER)
                continue;
            int id = step->operands[k].id, first, last;
            struct buffer *b = &s->buffers[id];
            loop_range(s, i, &first, &last);
            bool outlives = b->used && b->first < first;
            if (b->kept || outlives || carried(s, id, first, last))
                extend(b, first, last);
            else
                extend(b, i, i);
        }
    }
    /* Written in a loop and read behind it: the last turn's, so every turn must keep it whole. */
    for (int id = 0; id < BUFFER_COUNT; id++) {
        struct buffer *b = &s->buffers[id];
        int first, last;
        if (!b->used)
            continue;
        loop_range(s, b->first, &first, &last);
        if (b->last > last)
            b->first = first;
    }
}

static int by_size(const void *a, const void *b)
{
    const struct buffer *const *x = a, *const *y = b;
    if ((*x)->floats != (*y)->floats)
        return (*x)->floats < (*y)->floats ? 1 : -1;
    return *x < *y ? -1 : *x > *y;
}

static bool alive_together(const struct buffer *a, const struct buffer *b)
{
    return a->first <= b->last && b->first <= a->last;
}

/* The lowest offset where `b` overlaps none of the placed buffers that live at the same time. */
static size_t first_fit(const struct plan *p, const struct schedule *s, const struct buffer *b,
                        struct buffer *const *placed, int n)
{
    size_t size = buffer_floats(p, (int)(b - s->buffers), b), at = 0;
    for (bool moved = true; moved;) {
        moved = false;
        for (int i = 0; i < n; i++) {
            const struct buffer *o = placed[i];
            size_t end = o->offset + buffer_floats(p, (int)(o - s->buffers), o);
            if (alive_together(b, o) && at < end && o->offset < at + size) {
                at = end;
                moved = true;
            }
        }
    }
    return at;
}

void layout_buffers(struct plan *p, struct schedule *s)
{
    find_lifetimes(s);
    struct buffer *order[BUFFER_COUNT];
    int n = 0;
    for (int id = 0; id < BUFFER_COUNT; id++) {
        struct buffer *b = &s->buffers[id];
        if (!b->used)
            continue;
        int64_t elements = p->extents[b->rows] * p->extents[b->width];
        b->floats = (size_t)round_up(b->type == DTYPE_BF16 ? (elements + 1) / 2 : elements,
                                     p->target->launches ? 64 : 16);
        order[n++] = b;
    }
    qsort(order, (size_t)n, sizeof order[0], by_size);
    for (int i = 0; i < n; i++) {
        order[i]->offset = first_fit(p, s, order[i], order, i);
        size_t end = order[i]->offset + buffer_floats(p, (int)(order[i] - s->buffers), order[i]);
        if (end > s->work_floats)
            s->work_floats = end;
    }
}

/* ---- barriers ---- */

/* Memory that a step touches, and how its threads share it. */
struct access {
    enum operand_kind kind;
    int id;
    size_t begin, end; /* of buffers */
    int64_t width;     /* of their rows */
    bool written;
    enum partition partition;
    enum extent rows;
};

enum { MAX_ACCESSES = MAX_STEPS * MAX_OPERANDS };
struct accesses {
    struct access list[MAX_ACCESSES];
    int n; /* since the last barrier */
};

static bool is_memory(enum operand_kind kind)
{
    return kind == OPERAND_BUFFER || kind == OPERAND_GRADIENT || kind == OPERAND_CACHE ||
           kind == OPERAND_LOSSES || kind == OPERAND_LOGITS || kind == OPERAND_SUMS;
}

static struct access access_of(const struct plan *p, const struct schedule *s,
                               const struct step *step, int k)
{
    const struct operand *o = &step->operands[k];
    struct access a = {.kind = o->kind,
                       .id = o->id,
                       .written = (step->writes >> k) & 1u,
                       .partition = step->partition,
                       .rows = p->kernels[step->kernel].m};
    if (o->kind == OPERAND_BUFFER) {
        const struct buffer *b = &s->buffers[o->id];
        a.begin = b->offset;
        a.end = b->offset + buffer_floats(p, o->id, b);
        a.width = p->extents[b->width];
    }
    if (o->at == AT_LAST_ROW)
        a.partition = PARTITION_OTHER;
    return a;
}

static bool conflict(const struct access *a, const struct access *b)
{
    if (a->kind != b->kind || (!a->written && !b->written))
        return false;
    if (a->kind == OPERAND_BUFFER ? a->begin >= b->end || b->begin >= a->end : a->id != b->id)
        return false;
    /* The same thread wrote the rows that it reads, as long as both mean the same rows. */
    bool same_rows = a->partition == PARTITION_ROWS && b->partition == PARTITION_ROWS &&
                     a->rows == b->rows && a->kind == OPERAND_BUFFER && a->begin == b->begin &&
                     a->end == b->end && a->width == b->width;
    return !same_rows;
}

static bool step_conflicts(const struct plan *p, const struct schedule *s, const struct step *step,
                           const struct accesses *since)
{
    for (int k = 0; k < step->n_operands; k++) {
        if (!is_memory(step->operands[k].kind))
            continue;
        struct access a = access_of(p, s, step, k);
        for (int i = 0; i < since->n; i++)
            if (conflict(&a, &since->list[i]))
                return true;
    }
    return false;
}

static void visit(const struct plan *p, struct schedule *s, int i, struct accesses *since)
{
    struct step *step = &s->steps[i];
    if (step->barrier || step_conflicts(p, s, step, since)) {
        step->barrier = true;
        if (step->when == WHEN_ALWAYS)
            since->n = 0;
    }
    for (int k = 0; k < step->n_operands; k++)
        if (is_memory(step->operands[k].kind)) {
            assert(since->n < MAX_ACCESSES);
            since->list[since->n++] = access_of(p, s, step, k);
        }
}

/* Two turns of every loop: the second sees what the first left behind. A conditional step may be
 * skipped, so its barrier does not serve those behind it. */
void place_barriers(const struct plan *p, struct schedule *s)
{
    for (int i = 0; p->target->launches && i < s->n_steps; i++)
        s->steps[i].barrier = true;
    if (p->target->launches)
        return;
    struct accesses *since = calloc(1, sizeof *since);
    assert(since);
    for (int i = 0; i < s->n_steps;) {
        int first, last;
        loop_range(s, i, &first, &last);
        int turns = s->steps[i].loop == LOOP_NONE ? 1 : 2;
        for (int turn = 0; turn < turns; turn++)
            for (int k = first; k <= last; k++)
                visit(p, s, k, since);
        i = last + 1;
    }
    free(since);
}

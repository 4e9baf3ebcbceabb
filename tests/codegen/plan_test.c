/* plan_test.c - plans over many architectures: every operation once, buffers apart, and no race.
 *
 * The race check is independent of layout.c's placement of barriers: it unrolls each schedule (all
 * layers, all chunks, with and without the conditional steps), computes the exact memory of every
 * operand, and asks whether two threads could touch the same place without a barrier between. */
#include "codegen.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int checks, failures;

#define CHECK(condition, ...)                                                                      \
    do {                                                                                           \
        checks++;                                                                                  \
        if (!(condition)) {                                                                        \
            failures++;                                                                            \
            printf("%s:%d: ", __FILE__, __LINE__);                                                 \
            printf(__VA_ARGS__);                                                                   \
            putchar('\n');                                                                         \
        }                                                                                          \
    } while (0)

/* ---- the race check ---- */

struct touch {
    int space; /* operand kind, or that and the weight */
    size_t begin, end;
    int64_t width;
    bool written, rows;
    enum extent of;
    const struct step *step;
};

struct trace {
    const struct plan *p;
    const struct schedule *s;
    struct touch *list;
    int n, races;
    const struct step *first, *second;
};

static struct touch touch_of(const struct trace *t, const struct step *step, int k, int layer,
                             int chunk)
{
    const struct operand *o = &step->operands[k];
    struct touch x = {.space = (int)o->kind, .end = 1, .written = step->writes >> k & 1u};
    x.step = step;
    x.rows = step->partition == PARTITION_ROWS;
    x.of = t->p->kernels[step->kernel].m;
    if (o->kind == OPERAND_BUFFER) {
        const struct buffer *b = &t->s->buffers[o->id];
        int copy = o->at == AT_LAYER        ? layer
                   : o->at == AT_NEXT_LAYER ? layer + 1
                   : o->at == AT_LAST_LAYER ? t->p->arch->layers
                                            : 0;
        x.begin = b->offset + (size_t)(b->kept ? copy : 0) * b->floats;
        x.end = x.begin + b->floats;
        x.width = t->p->extents[b->width];
        if (o->at == AT_CHUNK) {
            size_t row = (size_t)t->p->extents[b->width] / (b->type == DTYPE_BF16 ? 2 : 1);
            x.begin += row * (size_t)(chunk * t->p->extents[x.of]);
            x.end = x.begin + row * (size_t)t->p->extents[x.of];
        }
        if (o->at == AT_LAST_ROW)
            x.rows = false;
    } else if (o->kind == OPERAND_GRADIENT) {
        x.space += 100 * (o->id + 1) + 10000 * (o->at == AT_LAYER ? layer + 1 : 0);
        x.rows = false; /* a gradient has no rows of the batch */
    } else if (o->kind == OPERAND_CACHE) {
        x.space += 10000 * layer;
        x.rows = false;
    } else if (o->kind == OPERAND_SUMS) {
        x.rows = false;
    } else if (o->kind == OPERAND_LOSSES) {
        x.begin = (size_t)chunk;
        x.end = x.begin + 1;
    }
    return x;
}

static bool race(const struct touch *a, const struct touch *b)
{
    if (a->space != b->space || !(a->written || b->written) || a->begin >= b->end ||
        b->begin >= a->end)
        return false;
    bool each_its_own = a->rows && b->rows && a->of == b->of && a->begin == b->begin &&
                        a->end == b->end && a->width == b->width;
    return !each_its_own;
}

static void run_step(struct trace *t, const struct step *step, int layer, int chunk)
{
    if (step->barrier)
        t->n = 0;
    int before = t->n;
    for (int k = 0; k < step->n_operands; k++) {
        enum operand_kind kind = step->operands[k].kind;
        if (kind != OPERAND_BUFFER && kind != OPERAND_GRADIENT && kind != OPERAND_CACHE &&
            kind != OPERAND_LOSSES && kind != OPERAND_LOGITS && kind != OPERAND_SUMS)
            continue;
        struct touch x = touch_of(t, step, k, layer, chunk);
        for (int i = 0; i < before; i++)
            if (race(&x, &t->list[i])) {
                t->first = t->races ? t->first : t->list[i].step;
                t->second = t->races ? t->second : step;
                t->races++;
            }
        t->list[t->n++] = x;
    }
}

/* Runs steps [i, end) of one loop; conditional steps only where `when` has their bit. */
static void run_loop(struct trace *t, int i, int end, unsigned when)
{
    const struct step *s = t->s->steps;
    int layers = t->p->arch->layers;
    const int64_t *e = t->p->extents;
    int turns = layers;
    if (s[i].loop == LOOP_NONE)
        turns = 1;
    else if (s[i].loop == LOOP_VOCAB)
        turns = (int)(e[EXTENT_VOCAB] / e[EXTENT_HEAD_TOKENS]);
    else if (s[i].loop == LOOP_CHUNKS)
        turns = (int)(s[i].when == WHEN_SCORED ? e[EXTENT_CHUNK] / e[EXTENT_SCORE_ROWS]
                                               : e[EXTENT_ROWS] / e[EXTENT_LOSS_ROWS]);
    for (int turn = 0; turn < turns; turn++)
        for (int k = i; k < end; k++)
            if (s[k].when == WHEN_ALWAYS || when >> s[k].when & 1u)
                run_step(t, &s[k], s[i].loop == LOOP_LAYERS_REVERSED ? layers - 1 - turn : turn,
                         turn);
}

static int races(const struct plan *p, enum schedule_id id, unsigned when, const char **first,
                 const char **second)
{
    struct trace t = {.p = p, .s = &p->schedules[id]};
    t.list = calloc((size_t)(t.s->n_steps + 1) * 64 * MAX_OPERANDS, sizeof *t.list);
    for (int i = 0; i < t.s->n_steps;) {
        int end = i + 1;
        const struct step *s = t.s->steps;
        while (end < t.s->n_steps && s[end].loop == s[i].loop && s[end].when == s[i].when)
            end++;
        run_loop(&t, i, end, when);
        i = end;
    }
    *first = t.races ? p->kernels[t.first->kernel].name : "";
    *second = t.races ? p->kernels[t.second->kernel].name : "";
    free(t.list);
    return t.races;
}

/* ---- the architectures ---- */

static void check_plan(struct arena *a, const struct arch *arch, const struct build_options *o)
{
    struct plan *p = arena_alloc(a, sizeof *p);
    const char *why = "", *first, *second;
    bool built = plan_build(a, arch, target_find("host"), o, p, &why);
    CHECK(built, "no plan: %s", why);
    if (!built)
        return;
    CHECK(plan_verify(p, &why), "plan_verify: %s", why);
    for (int id = 0; id < SCHEDULE_UPDATE; id++)
        for (unsigned when = 0; when < (id == SCHEDULE_PREFILL ? 8u : 1u); when += 2)
            CHECK(races(p, (enum schedule_id)id, when, &first, &second) == 0,
                  "%s: %s races with %s", schedule_names[id], first, second);
    for (int id = 0; id < SCHEDULE_UPDATE; id++)
        for (int i = 0; i < BUFFER_COUNT; i++)
            for (int j = 0; j < i; j++) {
                const struct buffer *x = &p->schedules[id].buffers[i], *y = x - i + j;
                CHECK(!x->used || !y->used || strcmp(x->name, y->name) != 0, "%s: two buffers %s",
                      schedule_names[id], x->name);
            }
    for (int i = 0; i < p->n_kernels; i++)
        for (int j = 0; j < i; j++)
            CHECK(strcmp(p->kernels[i].name, p->kernels[j].name) != 0, "two kernels %s",
                  p->kernels[i].name);
}

static const enum recompute levels[] = {RECOMPUTE_NONE, RECOMPUTE_NORMS, RECOMPUTE_MLP,
                                        RECOMPUTE_ALL};
enum { LEVELS = sizeof levels / sizeof levels[0] };

static void check_many(struct arena *a)
{
    static const int heads[][3] = {{5, 1, 64}, {4, 4, 40}, {36, 4, 64}, {42, 6, 128}, {16, 1, 8}};
    static const int batches[][3] = {{8, 256, 2}, {8, 256, 3}, {1, 64, 2}, {4, 96, 4}, {3, 17, 1}};
    for (int h = 0; h < 5; h++)
        for (int b = 0; b < 5; b++)
            for (int bits = 0; bits < 8; bits++) {
                struct arch x = {.name = "test",
                                 .layers = 1 + bits % 3,
                                 .d_model = 320,
                                 .heads = heads[h][0],
                                 .kv_heads = heads[h][1],
                                 .head_dim = heads[h][2],
                                 .d_ff = 864,
                                 .vocab = bits & 1 ? 4096 : 128257,
                                 .context = 512,
                                 .tied = bits & 1,
                                 .qk_norm = bits & 2,
                                 .qkv_bias = bits & 4};
                struct build_options o = {.threads = batches[b][2],
                                          .batch = batches[b][0],
                                          .sequence = batches[b][1],
                                          .chunk = 512,
                                          .recompute = levels[(h + b + bits) % LEVELS]};
                check_plan(a, &x, &o);
            }
}

/* ---- the CUDA plan ---- */

static const struct device card = {.name = "card",
                                   .flops = {67e12, 989e12, 1979e12},
                                   .memory_bandwidth = 4.8e12,
                                   .memory_bytes = 141e9,
                                   .cache_bandwidth = 7e12,
                                   .cache_bytes = 50e6,
                                   .launch = 1.3e-6,
                                   .eff_matmul = 0.79,
                                   .eff_attention = 0.6,
                                   .eff_stream = 0.896};

static int steps_of(const struct plan *p, enum schedule_id id, enum kernel_kind kind)
{
    int n = 0;
    for (int i = 0; i < p->schedules[id].n_steps; i++)
        n += p->kernels[p->schedules[id].steps[i].kernel].kind == kind;
    return n;
}

/* Memory that an operand of one step reaches beyond its buffer: what layout.c took the bytes of an
 * element for. */
static void check_element_sizes(const struct plan *p)
{
    for (int id = 0; id < SCHEDULE_COUNT; id++)
        for (int i = 0; i < BUFFER_COUNT; i++) {
            const struct buffer *b = &p->schedules[id].buffers[i];
            if (!b->used)
                continue;
            int64_t elements = p->extents[b->rows] * p->extents[b->width];
            int64_t bytes = elements * (b->type == DTYPE_BF16 ? 2 : 4);
            CHECK((int64_t)b->floats * 4 >= bytes && (int64_t)b->floats * 4 < bytes + 256 &&
                      b->offset % 64 == 0,
                  "%s: %s has %zu floats for %lld bytes, at %zu", schedule_names[id], b->name,
                  b->floats, (long long)bytes, b->offset);
        }
}

static enum phase phase_of(enum schedule_id id)
{
    return id == SCHEDULE_PREFILL                          ? PHASE_PREFILL
           : id == SCHEDULE_UPDATE                         ? PHASE_OPTIMISER
           : id == SCHEDULE_DECODE || id == SCHEDULE_BATCH ? PHASE_DECODE
                                                           : PHASE_TRAIN_FORWARD;
}

/* As sm_90 has them, which decode is priced for: norms of many rows are no pass there. */
static int launches_of(enum kernel_kind kind)
{
    bool folded =
        kind == CUDA_SKINNY_QKV || kind == CUDA_SKINNY_GATE_UP || kind == CUDA_SKINNY_HEAD;
    return kernel_passes[kind] - folded;
}

/* One operation of a step starts its kernel, and the others hide in it as law/price.c says. */
static void check_step_price(const struct plan *p, enum schedule_id id, const struct step *step)
{
    int passes = 0, starts = 0;
    for (int k = 0; k < step->n_fused; k++) {
        struct price_row r = price_row(p->device, phase_of(id), step->fused[k]);
        starts += !(r.fused >> phase_of(id) & 1);
        passes += r.passes;
    }
    const struct kernel *kernel = &p->kernels[step->kernel];
    CHECK(starts == 1, "%s: %d operations start %s", schedule_names[id], starts, kernel->name);
    CHECK(passes == launches_of(kernel->kind), "%s: %d launches are priced, not %d", kernel->name,
          passes, launches_of(kernel->kind));
    CHECK(kernel->seconds > 0 && kernel->floor <= kernel->seconds, "%s: %g of %g s", kernel->name,
          kernel->floor, kernel->seconds);
}

static bool near(double a, double b)
{
    return a <= b * (1 + 1e-9) && a >= b * (1 - 1e-9);
}

/* Behind other tokens than it was priced at, a schedule takes what its list does there (decode of
 * a small model within what the device's cache keeps out of memory), and the kernel of attention
 * computes and moves what its operation does. */
static void check_behind(const struct plan *p, enum schedule_id id, const struct op_list *list,
                         struct workload w, double past)
{
    const struct schedule *s = &p->schedules[id];
    struct op_list l;
    w.past = past;
    ops_build(p->arch, list->phase, &w, &l);
    double want = cost_list(p->device, &l, &w), more = past - s->past;
    double got = s->price.seconds + more * s->a_token.seconds;
    CHECK(fabs(got - want) <= (list->phase == PHASE_PREFILL ? 1e-3 : 0.05) * want,
          "%s behind %.0f: %g s, %g of its list", schedule_names[id], past, got, want);
    for (int i = 0; i < s->n_steps; i++)
        for (int k = 0; k < l.n; k++)
            if (s->steps[i].fused[0] == &list->ops[k] && l.ops[k].kind == OP_ATTENTION) {
                const struct kernel *x = &p->kernels[s->steps[i].kernel];
                const struct op *op = &l.ops[k];
                double flops = (x->flops + more * x->a_token.flops) * op->times;
                double bytes = (x->bytes + more * x->a_token.bytes) * op->times;
                double moved = op->weight_bytes + op->value_bytes + op->kv_bytes;
                CHECK(near(flops, op->flops) && near(bytes, moved) &&
                          (past == 0 || x->a_token.flops > 0),
                      "%s behind %.0f: %g FLOPs and %g bytes of %g and %g", x->name, past, flops,
                      bytes, op->flops, moved);
            }
}

/* A plan takes what the search was told: the price of a schedule is that of its list. */
static void check_prices(const struct plan *p)
{
    for (int id = 0; id < SCHEDULE_COUNT; id++) {
        const struct schedule *s = &p->schedules[id];
        double sum = 0;
        for (int i = 0; i < s->n_steps; i++) {
            check_step_price(p, (enum schedule_id)id, &s->steps[i]);
            if (s->steps[i].when != WHEN_SCORED)
                sum += s->steps[i].price.seconds;
        }
        CHECK(near(sum, s->price.seconds), "%s: %g s of steps, %g in all", schedule_names[id], sum,
              s->price.seconds);
    }
    const struct {
        enum schedule_id id;
        const struct op_list *list;
        const struct workload *load;
    } rows[] = {
        {SCHEDULE_EVAL, &p->eval, &p->eval_load},
        {SCHEDULE_PREFILL, &p->lists[PHASE_PREFILL], &p->loads[PHASE_PREFILL]},
        {SCHEDULE_DECODE, &p->lists[PHASE_DECODE], &p->loads[PHASE_DECODE]},
        {SCHEDULE_BATCH, &p->slots, &p->slots_load},
        {SCHEDULE_UPDATE, &p->lists[PHASE_OPTIMISER], &p->loads[PHASE_OPTIMISER]},
    };
    for (int i = 0; i < 5; i++) {
        double want = cost_list(p->device, rows[i].list, rows[i].load);
        CHECK(near(p->schedules[rows[i].id].price.seconds, want), "%s: %g s, %g of its list",
              schedule_names[rows[i].id], p->schedules[rows[i].id].price.seconds, want);
        if (rows[i].list->phase == PHASE_PREFILL || rows[i].list->phase == PHASE_DECODE)
            for (int k = 0; k < 3; k++)
                check_behind(p, rows[i].id, rows[i].list, *rows[i].load,
                             k * (p->arch->context - rows[i].load->tokens) / 2);
    }
}

/* Where logits are never written nothing is as wide as the vocabulary, whose pieces cover it. */
static void check_never(const struct plan *p)
{
    const int64_t *e = p->extents;
    const struct schedule *s = &p->schedules[SCHEDULE_TRAIN];
    CHECK(e[EXTENT_VOCAB] >= e[EXTENT_TOKENS] && e[EXTENT_VOCAB] % e[EXTENT_HEAD_TOKENS] == 0 &&
              e[EXTENT_VOCAB] - e[EXTENT_TOKENS] < e[EXTENT_HEAD_TOKENS] &&
              e[EXTENT_HEAD_TOKENS] % 8 == 0 && e[EXTENT_PARAMS] == slab_floats(p, NULL),
          "%lld tokens in pieces of %lld", (long long)e[EXTENT_TOKENS],
          (long long)e[EXTENT_HEAD_TOKENS]);
    for (int i = 0; i < BUFFER_COUNT; i++)
        CHECK(!s->buffers[i].used || s->buffers[i].width != EXTENT_VOCAB, "%s is written",
              s->buffers[i].name);
    CHECK(steps_of(p, SCHEDULE_TRAIN, CUDA_HEAD_LOSS) == 1 &&
              steps_of(p, SCHEDULE_TRAIN, CUDA_HEAD_GRADIENT) == 1 &&
              steps_of(p, SCHEDULE_TRAIN, CUDA_HEAD_SOFTMAX) == 0,
          "the head without logits is another");
}

/* What a step of a batch hands on, and with which norm's gain; NONE: it reads it, or neither. */
static void check_handed_on(const struct plan *p)
{
    const struct {
        enum kernel_kind kind;
        int matrix;
        enum weight gain;
        enum operand_at at;
    } rows[] = {{CUDA_DECODE_EMBED, WEIGHT_NONE, WEIGHT_NORM1, AT_FIRST_LAYER},
                {CUDA_SKINNY_RESIDUAL, WEIGHT_O, WEIGHT_NORM2, AT_LAYER},
                {CUDA_SKINNY_RESIDUAL, WEIGHT_DOWN, WEIGHT_NORM1, AT_NEXT_LAYER}};
    const struct schedule *s = &p->schedules[SCHEDULE_BATCH];
    int read = 0, written = 0;
    for (int i = 0; i < s->n_steps; i++) {
        const struct step *step = &s->steps[i];
        const struct kernel *k = &p->kernels[step->kernel];
        const struct operand *last = &step->operands[step->n_operands - 1];
        if (last->kind != OPERAND_BUFFER || last->id != BUFFER_SQUARES)
            continue;
        bool writes = step->writes >> (step->n_operands - 1) & 1u;
        written += writes;
        read += !writes;
        for (int r = 0; writes && r < 3; r++)
            if (k->kind == rows[r].kind && (int)k->of_matrix == rows[r].matrix)
                CHECK(last[-2].kind == OPERAND_WEIGHT && last[-2].id == (int)rows[r].gain &&
                          last[-2].at == rows[r].at && last[-1].id == BUFFER_TILES,
                      "%s hands on for another norm", k->name);
    }
    bool many = p->options.slots > 8;
    CHECK(written == (many ? 3 : 0) && read == (many ? 3 : 0), "%d steps hand x on, %d read it",
          written, read);
    CHECK(weight_offset(p, WEIGHT_NORMF, 0) == weight_offset(p, WEIGHT_NORM1, p->arch->layers),
          "behind the last layer is another gain than the final norm's");
}

static void check_cuda_plan(struct arena *a, const struct arch *arch, int slots, enum logits logits)
{
    struct build_options o = {.threads = 2,
                              .batch = 4,
                              .sequence = 96,
                              .chunk = 512,
                              .weights = DTYPE_BF16,
                              .recompute = levels[(slots + arch->heads + arch->layers) % LEVELS],
                              .logits = logits,
                              .slots = slots};
    struct plan *p = arena_alloc(a, sizeof *p);
    const char *why = "", *first, *second;
    bool built = plan_build(a, arch, target_find("cuda"), &o, p, &why);
    CHECK(built, "no plan: %s", why);
    if (!built)
        return;
    CHECK(plan_verify(p, &why), "plan_verify: %s", why);
    check_element_sizes(p);
    if (logits == LOGITS_NEVER)
        check_never(p);
    plan_price(p, &card);
    check_prices(p);
    for (int id = 0; id < SCHEDULE_COUNT; id++)
        for (unsigned when = 0; when < (id == SCHEDULE_PREFILL ? 8u : 1u); when += 2)
            CHECK(races(p, (enum schedule_id)id, when, &first, &second) == 0,
                  "%s: %s races with %s", schedule_names[id], first, second);
    for (int i = 0; i < p->n_kernels; i++) {
        CHECK(p->kernels[i].kind >= CUDA_DECODE_EMBED, "%s is a host kernel", p->kernels[i].name);
        for (int j = 0; j < i; j++)
            CHECK(strcmp(p->kernels[i].name, p->kernels[j].name) != 0, "two kernels %s",
                  p->kernels[i].name);
    }
    /* A layer of decode is five kernels; embedding, head and choosing a token stand around it. */
    CHECK(p->schedules[SCHEDULE_DECODE].n_steps == 8, "decode has %d steps",
          p->schedules[SCHEDULE_DECODE].n_steps);
    CHECK(p->schedules[SCHEDULE_BATCH].n_steps == (slots > 1 ? 8 : 0), "batch has %d steps",
          p->schedules[SCHEDULE_BATCH].n_steps);
    CHECK(steps_of(p, SCHEDULE_BATCH, CUDA_SKINNY_RESIDUAL) == (slots > 8 ? 2 : 0) &&
              steps_of(p, SCHEDULE_BATCH, CUDA_DECODE_RESIDUAL) ==
                  (slots > 1 && slots <= 8 ? 2 : 0),
          "%d slots: the wrong products", slots);
    CHECK(steps_of(p, SCHEDULE_PREFILL, CUDA_SWIGLU) == 0 &&
              steps_of(p, SCHEDULE_TRAIN, CUDA_SWIGLU) == 1,
          "SwiGLU is not where it should be");
    check_handed_on(p);
    /* Scores and the last rows' logits share a place: a token is chosen before scores go there. */
    CHECK(steps_of(p, SCHEDULE_PREFILL, CUDA_SAMPLE) == 1, "no token after a prompt");
    for (int i = 0, scored = 0; i < p->schedules[SCHEDULE_PREFILL].n_steps; i++) {
        const struct step *s = &p->schedules[SCHEDULE_PREFILL].steps[i];
        scored |= s->when == WHEN_SCORED;
        CHECK(s->when != WHEN_LOGITS || !scored, "logits after scores");
    }
}

/* A GPU's kernels refuse what they cannot load 16 bytes at a time, and say what is near. */
static void check_refusals(struct arena *a, struct arch arch)
{
    struct build_options o = {.threads = 1, .batch = 1, .sequence = 8, .chunk = 64};
    struct plan *p = arena_alloc(a, sizeof *p);
    const char *why = "";
    arch.d_ff = 100;
    CHECK(!plan_build(a, &arch, target_find("cuda"), &o, p, &why) && strstr(why, "96 and 104"),
          "d_ff 100: %s", why);
    arch.d_ff = 96;
    arch.heads = 17;
    arch.kv_heads = 1;
    CHECK(!plan_build(a, &arch, target_find("cuda"), &o, p, &why) && strstr(why, "group of 17"),
          "17 heads a group: %s", why);
}

static void check_cuda(struct arena *a)
{
    static const int heads[][3] = {{5, 1, 64}, {4, 4, 40}, {36, 4, 64}, {42, 6, 128}, {16, 1, 8}};
    static const int slots[] = {1, 3, 8, 9, 64};
    struct arch x = {.name = "test", .d_model = 320, .d_ff = 864, .context = 512};
    for (int h = 0; h < 5; h++)
        for (int s = 0; s < 5; s++)
            for (int bits = 0; bits < 8; bits++) {
                x.layers = 1 + bits % 3;
                x.heads = heads[h][0];
                x.kv_heads = heads[h][1];
                x.head_dim = heads[h][2];
                x.vocab = bits & 1 ? 4096 : 128256;
                x.tied = bits & 1;
                x.qk_norm = bits & 2;
                x.qkv_bias = bits & 4;
                check_cuda_plan(a, &x, slots[s], LOGITS_CHUNKS);
                check_cuda_plan(a, &x, slots[s], LOGITS_NEVER);
            }
    check_refusals(a, x);
}

/* Each level keeps less than the one before, by what it makes again, and only of training; a step
 * that is done again and lost, or done behind the gradients that read it, is noticed. */
static void check_recompute(struct arena *a, const char *target)
{
    struct arch x = {.name = "test",
                     .layers = 8,
                     .d_model = 128,
                     .heads = 9,
                     .kv_heads = 1,
                     .head_dim = 16,
                     .d_ff = 384,
                     .vocab = 256,
                     .context = 64};
    size_t before = SIZE_MAX, eval = 0;
    for (int i = 0; i < LEVELS; i++) {
        struct build_options o = {.threads = 2,
                                  .batch = 4,
                                  .sequence = 64,
                                  .chunk = 64,
                                  .slots = 1,
                                  .recompute = levels[i]};
        struct plan *p = arena_alloc(a, sizeof *p);
        const char *why = "";
        CHECK(plan_build(a, &x, target_find(target), &o, p, &why) && plan_verify(p, &why),
              "%s, level %d: %s", target, i, why);
        struct schedule *s = &p->schedules[SCHEDULE_TRAIN];
        CHECK(s->work_floats < before, "%s, level %d: %zu floats of %zu", target, i, s->work_floats,
              before);
        before = s->work_floats;
        CHECK(i == 0 || p->schedules[SCHEDULE_EVAL].work_floats == eval, "eval is another");
        eval = p->schedules[SCHEDULE_EVAL].work_floats;
        int first = 0;
        while (first < s->n_steps && !s->steps[first].again)
            first++;
        if (first == s->n_steps)
            continue;
        CHECK(i > 0, "something is made again at level none");
        struct step again = s->steps[first];
        s->steps[first].again = false;
        CHECK(!plan_verify(p, &why), "an operation of the forward pass twice passes");
        s->steps[first] = again;
        s->steps[first].loop = LOOP_LAYERS;
        CHECK(!plan_verify(p, &why), "made again in the wrong loop passes");
        s->steps[first] = s->steps[s->n_steps - 2];
        s->steps[s->n_steps - 2] = again;
        CHECK(!plan_verify(p, &why), "made again too late passes");
    }
}

/* What the search takes a training plan's memory for is what the plan wants, at every level; and
 * with less memory more is made again, until it fits. */
static void check_train_memory(struct arena *a, struct arch x, enum logits logits)
{
    struct train_spec t = {.batch = 8, .sequence = 512, .accumulate = 1, .logits = logits};
    struct device d = card;
    double last = 0;
    for (int i = 0; i < LEVELS; i++) {
        struct build_options o = {.threads = 2,
                                  .batch = t.batch,
                                  .sequence = t.sequence,
                                  .chunk = 512,
                                  .slots = 1,
                                  .recompute = levels[i],
                                  .logits = logits};
        struct plan *p = arena_alloc(a, sizeof *p);
        const char *why = "";
        CHECK(plan_build(a, &x, target_find("cuda"), &o, p, &why), "no plan: %s", why);
        double have = 4.0 * (double)p->schedules[SCHEDULE_TRAIN].work_floats +
                      18.0 * (double)arch_total_params(&x) +
                      fmax(4.0 * arch_dq(&x), 4 + x.vocab / 32.0) * t.batch * t.sequence;
        double want = cost_train_memory_at(&d, &t, &x, levels[i], logits);
        CHECK(want > 0.98 * have && want < 1.02 * have, "%s: %.4g bytes, the plan has %.4g",
              recompute_names[levels[i]], want, have);
        plan_price(p, &d);
        t.recompute = levels[i];
        double step = cost_train_step(&d, &t, &x).seconds;
        CHECK(near(plan_train_seconds(p, 1), step), "%s: %g s, the plan takes %g",
              recompute_names[levels[i]], step, plan_train_seconds(p, 1));
        t.accumulate = 8;
        double long_step = cost_train_step(&d, &t, &x).seconds;
        CHECK(near(plan_train_seconds(p, 8), long_step), "8 micro-batches: %g s, the plan takes %g",
              long_step, plan_train_seconds(p, 8));
        CHECK(plan_train_mfu(p, 8) > plan_train_mfu(p, 1), "the optimiser is not shared");
        t.accumulate = 1;
        CHECK(step > last, "%s takes no longer", recompute_names[levels[i]]);
        last = step;
        t.recompute = RECOMPUTE_AUTO;
        d.memory_bytes = 1.001 * want / 0.94;
        CHECK(cost_recompute(&d, &t, &x) == levels[i], "%g bytes: %s", d.memory_bytes,
              recompute_names[cost_recompute(&d, &t, &x)]);
    }
    d.memory_bytes /= 2;
    CHECK(cost_recompute(&d, &t, &x) == RECOMPUTE_ALL, "too little memory is not asked for all");
    d.threads = 2;
    CHECK(cost_recompute(&d, &t, &x) == RECOMPUTE_NONE, "a CPU makes something again");
}

/* Never writing logits takes less memory and more time; a layer's gradients may want as much as a
 * chunk of logits, as those of 16384 rows do, and then nothing is won. It comes behind norms made
 * again, and before products. */
static void check_logits(struct arena *a, struct arch x)
{
    struct train_spec t = {.batch = 4, .sequence = 2048, .accumulate = 1};
    struct device d = card;
    double bytes[LOGITS_COUNT], seconds[LOGITS_COUNT];
    for (enum logits logits = LOGITS_CHUNKS; logits < LOGITS_COUNT; logits++) {
        struct build_options o = {.threads = 2,
                                  .batch = t.batch,
                                  .sequence = t.sequence,
                                  .chunk = 512,
                                  .slots = 1,
                                  .recompute = RECOMPUTE_NORMS,
                                  .logits = logits};
        struct plan *p = arena_alloc(a, sizeof *p);
        const char *why = "";
        CHECK(plan_build(a, &x, target_find("cuda"), &o, p, &why), "no plan: %s", why);
        plan_price(p, &d);
        seconds[logits] = plan_train_seconds(p, 1);
        const struct buffer *dz = &p->schedules[SCHEDULE_TRAIN].buffers[BUFFER_D_LOGITS];
        bytes[logits] = 4.0 * (double)dz->floats;
    }
    const double all = (double)t.batch * t.sequence * x.vocab * 4;
    CHECK(bytes[LOGITS_NEVER] < 0.01 * all, "%g bytes of %g of logits", bytes[LOGITS_NEVER], all);
    CHECK(seconds[LOGITS_NEVER] > seconds[LOGITS_CHUNKS] &&
              seconds[LOGITS_NEVER] < 1.1 * seconds[LOGITS_CHUNKS],
          "never takes %g s, chunks %g", seconds[LOGITS_NEVER], seconds[LOGITS_CHUNKS]);
    double chunks = cost_train_memory_at(&d, &t, &x, RECOMPUTE_NORMS, LOGITS_CHUNKS);
    double never = cost_train_memory_at(&d, &t, &x, RECOMPUTE_NORMS, LOGITS_NEVER);
    CHECK(never < chunks - 0.4 * bytes[LOGITS_CHUNKS], "never takes %g bytes, chunks %g", never,
          chunks);
    d.memory_bytes = 1.0001 * chunks / 0.94;
    CHECK(cost_logits(&d, &t, &x) == LOGITS_CHUNKS, "a chunk fits and is not written");
    d.memory_bytes = 0.9999 * chunks / 0.94;
    CHECK(cost_logits(&d, &t, &x) == LOGITS_NEVER && cost_recompute(&d, &t, &x) == RECOMPUTE_NORMS,
          "a chunk does not fit: %s, %s", logits_names[cost_logits(&d, &t, &x)],
          recompute_names[cost_recompute(&d, &t, &x)]);
    d.memory_bytes = 0.9999 * never / 0.94;
    CHECK(cost_logits(&d, &t, &x) == LOGITS_CHUNKS && cost_recompute(&d, &t, &x) == RECOMPUTE_MLP,
          "products are not made again");
    d.threads = 2;
    t.logits = LOGITS_NEVER;
    CHECK(cost_logits(&d, &t, &x) == LOGITS_CHUNKS, "a CPU never writes logits");
}

/* A barrier or a buffer put wrong must be noticed. */
static void check_planted(struct arena *a)
{
    struct arch x = {.name = "test",
                     .layers = 3,
                     .d_model = 64,
                     .heads = 4,
                     .kv_heads = 2,
                     .head_dim = 16,
                     .d_ff = 128,
                     .vocab = 256,
                     .context = 64,
                     .tied = true};
    struct build_options o = {.threads = 2, .batch = 2, .sequence = 32, .chunk = 64};
    struct plan *p = arena_alloc(a, sizeof *p);
    const char *why, *first, *second;
    CHECK(plan_build(a, &x, target_find("null"), &o, p, &why), "no plan: %s", why);
    for (int id = 0; id < SCHEDULE_UPDATE; id++) {
        struct schedule *s = &p->schedules[id];
        for (int i = 0; i < s->n_steps; i++) {
            if (!s->steps[i].barrier || s->steps[i].when != WHEN_ALWAYS)
                continue;
            s->steps[i].barrier = false;
            CHECK(races(p, (enum schedule_id)id, 0, &first, &second) > 0,
                  "%s: the barrier before step %d serves nothing", schedule_names[id], i);
            s->steps[i].barrier = true;
        }
    }
    struct schedule *s = &p->schedules[SCHEDULE_TRAIN];
    size_t offset = s->buffers[VALUE_NORM1].offset;
    s->buffers[VALUE_NORM1].offset = s->buffers[VALUE_GATE_UP].offset;
    CHECK(!plan_verify(p, &why), "overlapping buffers pass");
    s->buffers[VALUE_NORM1].offset = offset;
    s->steps[1] = s->steps[2];
    CHECK(!plan_verify(p, &why), "a lost step passes");
}

int main(void)
{
    struct arena *a = arena_new();
    check_many(a);
    check_cuda(a);
    check_recompute(a, "host");
    check_recompute(a, "cuda");
    const struct arch llama = {.name = "llama",
                               .layers = 16,
                               .d_model = 2048,
                               .heads = 32,
                               .kv_heads = 8,
                               .head_dim = 64,
                               .d_ff = 8192,
                               .vocab = 128256,
                               .context = 8192,
                               .tied = true};
    const struct arch qwen = {.name = "qwen",
                              .layers = 28,
                              .d_model = 1024,
                              .heads = 16,
                              .kv_heads = 8,
                              .head_dim = 128,
                              .d_ff = 3072,
                              .vocab = 151936,
                              .context = 4096,
                              .qk_norm = true};
    for (enum logits logits = LOGITS_CHUNKS; logits < LOGITS_COUNT; logits++) {
        check_train_memory(a, llama, logits);
        check_train_memory(a, qwen, logits);
    }
    check_logits(a, llama);
    check_planted(a);
    arena_free(a);
    printf("%d checks, %d failures\n", checks, failures);
    return failures != 0;
}

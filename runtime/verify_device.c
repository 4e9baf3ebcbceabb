/* verify_device.c - every kernel of a device by itself: made-up operands go to where a step of the
 * program has them, the step runs, and what it leaves is judged in double precision. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gpu.h"
#include "verify.h"

/* ---- which operand is which --------------------------------------------------------------------
 *
 * Numbers are those of the parameters in archrt_cuda.h. `rounding`: a result rounded to bf16 is off
 * by at most half of 2^-7 of itself, which may be some times the magnitude that it is judged by;
 * what is rounded on the way (a normed row, probabilities) adds up like independent errors. */

#define AT(number, type, member)                                                                   \
    {                                                                                              \
        .operand = number, .element = DEVICE_##type, .field = offsetof(struct trial, member)       \
    }
#define KIND(kind, host_kind, rounds, ...)                                                         \
    [ARCHRT_CUDA_##kind] = {                                                                       \
        .name = #kind, .host = ARCHRT_##host_kind, .rounding = rounds, .map = {__VA_ARGS__}}
#define OWN(kind, functions, rounds, ...)                                                          \
    [ARCHRT_CUDA_##kind] = {.name = #kind,                                                         \
                            .host = ARCHRT_MATMUL,                                                 \
                            .prepare = device_##functions##_prepare,                               \
                            .check = device_##functions##_check,                                   \
                            .rounding = rounds,                                                    \
                            .map = {__VA_ARGS__}}
/* Decode of few rows and of many have the same parameters. */
#define OWN_BOTH(kind, functions, rounds, ...)                                                     \
    OWN(DECODE_##kind, functions, rounds, __VA_ARGS__),                                            \
        OWN(SKINNY_##kind, functions, rounds, __VA_ARGS__)

static const struct device_kind device_kinds[ARCHRT_CUDA_KINDS] = {
    KIND(EMBED, EMBED, 0, AT(0, F32, y), AT(1, BF16, w), AT(2, INT, token)),
    KIND(EMBED_BACKWARD, EMBED_BACKWARD, 0, AT(0, F32, y), AT(1, F32, dy), AT(2, INT, token)),
    KIND(NORM, NORM, 1.1, AT(0, BF16, y), AT(1, F32, y2), AT(2, F32, x), AT(3, F32, gain)),
    KIND(NORM_BACKWARD, NORM_BACKWARD, 0, AT(0, F32, y), AT(2, F32, y2), AT(3, BF16, dy),
         AT(4, F32, x), AT(5, F32, rstd), AT(6, F32, gain), AT(0, F32, dy), AT(7, F32, lse)),
    KIND(MATMUL, MATMUL, 6, AT(0, BF16, y), AT(1, BF16, x), AT(2, BF16, w), AT(3, F32, bias),
         AT(4, F32, residual)),
    KIND(MATMUL_DX, MATMUL_DX, 6, AT(0, BF16, y), AT(1, BF16, dy), AT(2, BF16, w)),
    KIND(MATMUL_DW, MATMUL_DW, 0, AT(0, F32, y), AT(1, F32, y2), AT(2, BF16, dy), AT(3, BF16, x)),
    KIND(ROPE, ROPE, 4, AT(0, BF16, y), AT(1, F32, y2), AT(2, BF16, qkv), AT(3, F32, gain),
         AT(4, F32, rope)),
    KIND(ROPE_BACKWARD, ROPE_BACKWARD, 4, AT(0, BF16, y), AT(1, F32, y2), AT(2, BF16, qkv),
         AT(3, F32, rstd), AT(4, F32, gain), AT(5, F32, rope)),
    KIND(ATTENTION, ATTENTION, 3, AT(0, BF16, y), AT(1, F32, y2), AT(2, BF16, qkv),
         AT(3, BF16, qkv)),
    KIND(ATTENTION_BACKWARD, ATTENTION_BACKWARD, 8, AT(0, BF16, y), AT(1, BF16, dy), AT(2, BF16, x),
         AT(3, F32, lse), AT(4, BF16, qkv)),
    KIND(SWIGLU, SWIGLU, 1.1, AT(0, BF16, y), AT(1, BF16, gate_up)),
    KIND(SWIGLU_BACKWARD, SWIGLU_BACKWARD, 1.2, AT(0, BF16, y), AT(1, BF16, y2), AT(2, BF16, dy),
         AT(3, BF16, gate_up)),
    OWN(HEAD_LOSS, head_loss, 0, AT(0, F32, y), AT(1, F32, y2), AT(2, F32, rstd), AT(3, F32, dy),
        AT(4, BF16, x), AT(5, BF16, w), AT(6, INT, token)),
    OWN(HEAD_GRADIENT, head_gradient, 2, AT(0, BF16, y), AT(1, BF16, x), AT(2, BF16, w),
        AT(3, F32, rstd), AT(4, F32, lse), AT(5, INT, token)),
    OWN(HEAD_SOFTMAX, head_softmax, 1.1, AT(0, F32, y), AT(1, BF16, gate_up), AT(2, F32, y2),
        AT(3, BF16, qkv), AT(4, BF16, x), AT(5, BF16, w), AT(8, INT, token)),
    KIND(SUM_SQUARES, SUM_SQUARES, 0, AT(1, F32, x)),
    KIND(ADAMW, ADAMW, 0, AT(0, F32, y), AT(2, F32, step.grads), AT(3, F32, step.m),
         AT(4, F32, step.v)),

    KIND(DECODE_EMBED, EMBED, 0, AT(0, F32, y), AT(3, BF16, w)),
    KIND(DECODE_RESIDUAL, MATMUL, 0, AT(0, F32, y), AT(1, BF16, x), AT(2, BF16, w),
         AT(3, F32, residual)),
    KIND(SKINNY_RESIDUAL, MATMUL, 0, AT(0, F32, y), AT(1, BF16, x), AT(2, BF16, w),
         AT(3, F32, residual)),
    OWN_BOTH(QKV, qkv, 5, AT(0, BF16, y), AT(1, BF16, y2), AT(2, F32, x), AT(3, BF16, w),
             AT(4, F32, gain), AT(5, F32, bias), AT(6, F32, residual), AT(7, F32, rope)),
    OWN_BOTH(ATTENTION, attention, 3, AT(0, BF16, y), AT(1, BF16, x), AT(2, BF16, qkv)),
    OWN_BOTH(GATE_UP, normed, 5, AT(0, BF16, y), AT(1, F32, x), AT(2, BF16, w), AT(3, F32, gain)),
    OWN_BOTH(HEAD, normed, 5, AT(0, F32, y), AT(1, F32, x), AT(2, BF16, w), AT(3, F32, gain)),
    OWN(SAMPLE, sample, 0, AT(3, F32, x)),
    OWN(PREFILL_ROPE, rope, 4, AT(0, BF16, y), AT(1, BF16, y2), AT(2, F32, residual),
        AT(3, F32, rope)),
    OWN(PREFILL_ATTENTION, attention, 3, AT(0, BF16, y), AT(1, BF16, x), AT(2, BF16, qkv)),
};

/* ---- one trial of one step ---------------------------------------------------------------------
 */

enum { ROW_FACTOR = 7 }; /* operand of NORM_BACKWARD */

struct attempt {
    struct session *s;
    const struct archrt_step *step;
    const struct archrt_cuda_kernel *cuda;
    const struct device_kind *kind;
    struct archrt_model model;   /* as the device trains */
    struct archrt_kernel kernel; /* what the references are asked for */
    struct trial t;
    int layer;
    bool overwrites; /* a weight's gradient, rather than adding to it */
    struct failure *f;
};

static bool refused(struct attempt *a)
{
    return failed(a->f, STATUS_WORLD, "%s: %s: %s", a->s->device->name, a->cuda->name,
                  a->s->device->why);
}

static void *host_place(const struct attempt *a, const struct device_operand *o)
{
    void *at;
    memcpy(&at, (const char *)&a->t + o->field, sizeof at);
    return at;
}

static char *device_place(const struct attempt *a, int operand)
{
    return session_operand(a->s, &a->step->operands[operand], a->layer, 0);
}

static const struct operand *operand_of(const struct attempt *a, const void *at)
{
    for (int i = 0; i < a->t.n_operands; i++)
        if (a->t.operands[i].at == at)
            return &a->t.operands[i];
    return NULL;
}

/* What goes between host and device: n elements. */
struct block {
    char *at;
    size_t n, size;      /* bytes of one on the device */
    bool given, written; /* before the call, by it */
    float *host;
};

static bool to_f32(const struct attempt *a)
{
    bool product = a->cuda->kind == ARCHRT_CUDA_MATMUL || a->cuda->kind == ARCHRT_CUDA_MATMUL_DX;
    return product && a->cuda->flags & (ARCHRT_CUDA_TO_F32 | ARCHRT_CUDA_WITH_RESIDUAL);
}

/* False: the call has no such operand. */
static bool block_of(const struct attempt *a, const struct device_operand *o, struct block *b)
{
    float *host = host_place(a, o);
    char *at = device_place(a, o->operand);
    const struct operand *x = host ? operand_of(a, host) : NULL;
    if (!at || !x)
        return false;
    bool wide = o->element != DEVICE_BF16 || (o->operand == 0 && to_f32(a));
    /* A gradient that stands where it is overwritten is no operand of its own. */
    if (a->cuda->kind == ARCHRT_CUDA_NORM_BACKWARD && host == a->t.dy && o->operand == 0 &&
        device_place(a, 3))
        return false;
    *b = (struct block){.at = at,
                        .n = x->bytes / sizeof(float),
                        .size = wide ? 4 : 2,
                        .given = x->role != ROLE_OUTPUT && !(a->overwrites && o->operand == 0),
                        .written = x->role != ROLE_INPUT,
                        .host = host};
    return true;
}

static void narrow(void *to, const float *from, size_t n, size_t size)
{
    uint16_t *half = to;
    if (size == 4)
        memcpy(to, from, n * 4);
    for (size_t i = 0; size == 2 && i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &from[i], sizeof bits);
        half[i] = (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
    }
}

static void widen_halves(float *to, const void *from, size_t n, size_t size)
{
    const uint16_t *half = from;
    if (size == 4)
        memcpy(to, from, n * 4);
    for (size_t i = 0; size == 2 && i < n; i++) {
        uint32_t bits = (uint32_t)half[i] << 16;
        memcpy(&to[i], &bits, sizeof bits);
    }
}

static bool put_block(struct attempt *a, const struct block *b)
{
    struct device *d = a->s->device;
    size_t bytes = b->n * b->size;
    char *image = need(malloc(bytes + 4));
    if (b->given)
        narrow(image, b->host, b->n, b->size);
    else
        memset(image, 0xff, bytes); /* poison is NaN in both types */
    bool ok = d->api->to_device(d, b->at, image, bytes) || refused(a);
    free(image);
    return ok;
}

/* What the device has: into the host's operand where the call writes it; else it must be what was
 * put there. */
static bool get_block(struct attempt *a, const struct block *b, bool shared)
{
    struct device *d = a->s->device;
    size_t bytes = b->n * b->size;
    char *image = need(malloc(bytes + 4)), *before = need(malloc(bytes + 4));
    bool ok = (d->api->from_device(d, image, b->at, bytes) && d->api->wait(d)) || refused(a);
    if (ok && b->written) {
        widen_halves(b->host, image, b->n, b->size);
    } else if (ok && !shared) {
        narrow(before, b->host, b->n, b->size);
        if (memcmp(before, image, bytes) != 0)
            trial_fault(&a->t, "changed an input");
    }
    free(image);
    free(before);
    return ok;
}

static bool overlap(const struct block *a, const struct block *b)
{
    return a->at < b->at + b->n * b->size && b->at < a->at + a->n * a->size;
}

/* In place: outputs over inputs of the same call, which are not poisoned; nor are those inputs
 * compared afterwards. */
static bool each_block(struct attempt *a, bool before)
{
    struct block list[DEVICE_MAPPED];
    int n = 0;
    for (int i = 0; i < DEVICE_MAPPED && a->kind->map[i].element; i++)
        n += block_of(a, &a->kind->map[i], &list[n]);
    /* Poison, then what is given; inputs, then what was written. */
    for (int turn = 0; turn < 2; turn++)
        for (int i = 0; i < n; i++) {
            bool shared = false;
            for (int k = 0; k < n; k++)
                shared |=
                    k != i && list[k].written != list[i].written && overlap(&list[i], &list[k]);
            bool mine = turn == (before ? list[i].given : list[i].written);
            if (mine && !(before ? put_block(a, &list[i]) : get_block(a, &list[i], shared)))
                return false;
        }
    return true;
}

/* ---- around the call ---------------------------------------------------------------------------
 */

static bool put_ints(struct attempt *a, enum archrt_slab slab, int n, const int *list)
{
    size_t room = a->s->bytes[slab] / sizeof(int);
    return session_put(a->s, slab, 0, list, ((size_t)n < room ? (size_t)n : room) * sizeof *list,
                       a->f);
}

/* By slot: the token that is fed next and how many there are; by row: its slot, its position. */
static bool put_tokens(struct attempt *a)
{
    const struct trial *t = &a->t;
    int n = t->m, slots = a->s->cuda->slots, most = n > slots ? n : slots;
    int *list = need(calloc(5 * (size_t)most, sizeof *list)), *slot = list, *position = list + most;
    int *row = position + most, *next = row + most, *length = next + most;
    for (int i = 0; i < n; i++) {
        slot[i] = device_slot(t, i);
        position[i] = device_position(t, i);
        row[i] = i;
        length[slot[i]] = position[i];
        next[slot[i]] = t->token ? t->token[i] : 0;
    }
    bool ok = put_ints(a, SLAB_SLOT, n, slot) && put_ints(a, SLAB_POSITION, n, position) &&
              put_ints(a, SLAB_HEAD_ROW, n, row) && put_ints(a, SLAB_NEXT, slots, next) &&
              put_ints(a, SLAB_LENGTH, slots, length);
    free(list);
    return ok;
}

static bool put_pages(struct attempt *a)
{
    int each = a->s->cuda->slot_pages, n = a->s->cuda->slots * each;
    int *page = need(malloc((size_t)n * sizeof *page));
    for (int i = 0; i < n; i++)
        page[i] = device_page(i / each, i % each);
    bool ok = put_ints(a, SLAB_PAGES, n, page);
    free(page);
    return ok;
}

static bool put_greedy(struct attempt *a)
{
    size_t slots = (size_t)a->s->cuda->slots;
    struct cuda_sampling *greedy = need(calloc(slots, sizeof *greedy));
    for (size_t i = 0; i < slots; i++)
        greedy[i] = (struct cuda_sampling){.top_p = 1, .tokens = a->model.arch.vocab};
    bool ok = session_put(a->s, SLAB_SAMPLING, 0, greedy, slots * sizeof *greedy, a->f);
    free(greedy);
    return ok;
}

static bool put_rows(struct attempt *a)
{
    struct cuda_call call = {.rows = a->t.m, .head_rows = a->t.m, .segments = 1};
    int segment[2] = {0, a->t.m};
    return put_tokens(a) && put_pages(a) && put_greedy(a) &&
           put_ints(a, SLAB_SEGMENT_ROW, 2, segment) &&
           session_put(a->s, SLAB_CALL, 0, &call, sizeof call, a->f);
}

static const struct cuda_train training_step = {.grad_scale = VERIFY_LOSS_SCALE,
                                                .lr = 0.1f,
                                                .beta1 = 0.9f,
                                                .beta2 = 0.95f,
                                                .eps = 1e-8f,
                                                .weight_decay = 0.2f,
                                                .correction1 = 0.3f,
                                                .correction2 = 0.2f,
                                                .clip = 1,
                                                .factor = 0.7f};

static bool put_call(struct attempt *a)
{
    return a->s->training
               ? session_put(a->s, SLAB_STEP, 0, &training_step, sizeof training_step, a->f)
               : put_rows(a);
}

/* n elements of an operand that the trial has no place for, as fp32. The caller frees. */
static float *fetch(struct attempt *a, int operand, size_t n, size_t size)
{
    struct device *d = a->s->device;
    void *image = need(malloc(n * size + 4));
    float *out = need(malloc((n + 1) * sizeof *out));
    if (!d->api->from_device(d, image, device_place(a, operand), n * size) || !d->api->wait(d)) {
        refused(a);
        free(out);
        out = NULL;
    } else {
        widen_halves(out, image, n, size);
    }
    free(image);
    return out;
}

/* A bf16 copy of the first n floats of y, which must be those rounded. */
static bool check_copy(struct attempt *a, int operand, size_t n)
{
    float *got = fetch(a, operand, n, 2);
    uint16_t *want = need(malloc(n * 2 + 4));
    for (size_t i = 0; got && i < n; i++) {
        float rounded;
        narrow(&want[i], &a->t.y[i], 1, 2);
        widen_halves(&rounded, &want[i], 1, 2);
        if (memcmp(&rounded, &got[i], sizeof rounded) != 0) {
            trial_fault(&a->t, "bf16 copy %zu is %g, of %g", i, (double)got[i], (double)a->t.y[i]);
            break;
        }
    }
    free(want);
    free(got);
    return got != NULL;
}

static bool check_train_struct(struct attempt *a)
{
    struct cuda_train after;
    if (!session_get(a->s, &after, SLAB_STEP, 0, sizeof after, a->f) || !session_wait(a->s, a->f))
        return false;
    for (int i = 0; i < 256; i++)
        a->t.sums[i] = (double)after.norm * (double)after.norm;
    double factor = fmin(1, (double)after.clip / (double)after.norm);
    if (fabs((double)after.factor / factor - 1) > 1e-5)
        trial_fault(&a->t, "clips by %g, should by %g", (double)after.factor, factor);
    return true;
}

static bool check_tokens(struct attempt *a)
{
    const struct trial *t = &a->t;
    int slots = a->s->cuda->slots, n = t->m, V = a->model.arch.vocab;
    int *next = need(malloc((size_t)slots * 4)), *length = need(malloc((size_t)slots * 4));
    bool ok = session_get(a->s, next, SLAB_NEXT, 0, (size_t)slots * 4, a->f) &&
              session_get(a->s, length, SLAB_LENGTH, 0, (size_t)slots * 4, a->f) &&
              session_wait(a->s, a->f);
    for (int i = 0; ok && i < n; i++) {
        const float *row = t->x + (size_t)i * (size_t)a->cuda->n;
        int best = 0, slot = device_slot(t, i);
        for (int v = 1; v < V; v++)
            if (row[v] > row[best])
                best = v;
        if (t->plant == PLANT_VALUE) /* a token is no number that could be spoilt a little */
            best = (best + 1) % V;
        if (next[slot] != best || length[slot] != device_position(t, i) + 1)
            trial_fault(&a->t, "row %d: token %d at %d, should be %d at %d", i, next[slot],
                        length[slot], best, device_position(t, i) + 1);
        a->t.checked++;
    }
    free(next);
    free(length);
    return ok;
}

/* Gradients that the next step overwrites are left as they were; the reference clears all. */
static void check_left(struct attempt *a)
{
    const struct archrt_cuda *c = a->s->cuda;
    float *grads = a->t.step.grads;
    const float *before = trial_pristine(&a->t, grads);
    for (int64_t i = c->param_table; i < c->param_decayed; i++) {
        if (memcmp(&grads[i], &before[i], sizeof *grads) != 0) {
            trial_fault(&a->t, "changed gradient %lld", (long long)i);
            break;
        }
        grads[i] = 0;
    }
}

/* What the map does not say. */
static bool check_rest(struct attempt *a)
{
    struct trial *t = &a->t;
    switch (a->cuda->kind) {
    case ARCHRT_CUDA_NORM: /* forward alone keeps no factor: the reference's takes its place */
        for (int64_t i = 0; !device_place(a, 1) && i < t->m; i++) {
            double squares = 0;
            for (int64_t j = 0; j < t->kernel->n; j++)
                squares += pow((double)t->x[i * t->kernel->n + j], 2);
            t->y2[i] = (float)(1 / sqrt(squares / t->kernel->n + (double)t->model->arch.norm_eps));
        }
        return true;
    case ARCHRT_CUDA_NORM_BACKWARD: /* the reference's dy lacks nothing */
        for (int64_t i = 0; t->lse && i < t->m; i++)
            for (int64_t j = 0; j < t->kernel->n; j++)
                t->dy[i * t->kernel->n + j] *= t->lse[i];
        return check_copy(a, 1, area(t->m, t->kernel->n));
    case ARCHRT_CUDA_ADAMW:
        check_left(a);
        return check_copy(a, 1, (size_t)a->s->cuda->param_decayed);
    case ARCHRT_CUDA_SUM_SQUARES:
        return check_train_struct(a);
    case ARCHRT_CUDA_SAMPLE:
        return check_tokens(a);
    default:
        return true;
    }
}

/* ---- all cases of one kernel -------------------------------------------------------------------
 */

static int host_flags(unsigned cuda)
{
    return ARCHRT_HALVES | (cuda & ARCHRT_CUDA_WITH_BIAS ? ARCHRT_BIAS : 0) |
           (cuda & ARCHRT_CUDA_WITH_RESIDUAL ? ARCHRT_RESIDUAL : 0) |
           (cuda & ARCHRT_CUDA_ACCUMULATES ? ARCHRT_ACCUMULATE : 0) |
           (cuda & ARCHRT_CUDA_WITH_SWIGLU ? ARCHRT_WITH_SWIGLU : 0);
}

static void describe(struct attempt *a)
{
    const struct archrt_cuda_kernel *k = a->cuda;
    a->kernel = (struct archrt_kernel){.kind = a->kind->host,
                                       .name = k->name,
                                       .phase = k->phase,
                                       .m = (int)k->m,
                                       .n = (int)k->n,
                                       .k = (int)k->k,
                                       .flags = host_flags(k->flags),
                                       .scratch_bytes = 64};
    if (k->kind == ARCHRT_CUDA_DECODE_RESIDUAL || k->kind == ARCHRT_CUDA_SKINNY_RESIDUAL)
        a->kernel.flags |= ARCHRT_RESIDUAL;
    if (k->kind == ARCHRT_CUDA_DECODE_GATE_UP || k->kind == ARCHRT_CUDA_SKINNY_GATE_UP)
        a->kernel.flags |= ARCHRT_WITH_SWIGLU;
}

static bool run_case(struct attempt *a, int m, int past, const struct device_checks *c,
                     struct kernel_verdict *out)
{
    bool swiglu = a->cuda->kind == ARCHRT_CUDA_MATMUL && (a->kernel.flags & ARCHRT_WITH_SWIGLU);
    struct kind kind = kinds[a->kind->host];
    struct trial *t = &a->t;
    if (a->kind->prepare || swiglu) {
        kind.prepare = swiglu ? device_normed_prepare : a->kind->prepare;
        kind.check = swiglu ? device_normed_check : a->kind->check;
    }
    int variant = a->cuda->kind == ARCHRT_CUDA_HEAD_LOSS && !device_place(a, 1);
    if (!trial_open_as(t, &a->model, &a->kernel, &kind, m, past, variant, c->seed, a->f))
        return false;
    if (a->cuda->kind == ARCHRT_CUDA_NORM_BACKWARD && device_place(a, ROW_FACTOR) &&
        !trial_floats(t, &t->lse, (size_t)m, ROLE_INPUT, a->f))
        return false;
    if (a->overwrites)
        trial_zero(t, t->y);
    t->budget = c->budget;
    if (!to_f32(a))
        t->rounding = a->kind->rounding * 0x1p-8;
    if (c->plant && (strcmp(c->plant, "kernels") == 0 || strcmp(c->plant, a->cuda->name) == 0))
        t->plant = PLANT_VALUE;
    const struct device_handing handing = {a->s, a->step, a->layer, t};
    a->s->overwrites = a->overwrites;
    bool done = put_call(a) && each_block(a, true) && device_tiles_put(&handing, a->f) &&
                session_step(a->s, a->step, a->layer, 0, false, a->f) && session_wait(a->s, a->f) &&
                each_block(a, false) && device_tiles_check(&handing, a->f) && check_rest(a);
    a->s->overwrites = false;
    if (!done)
        return false;
    trial_seal(t); /* inputs were compared on the device */
    verdict_note(out, t, trial_judge(t));
    return true;
}

static bool over_cache(enum archrt_cuda_kind kind)
{
    return kind == ARCHRT_CUDA_DECODE_QKV || kind == ARCHRT_CUDA_DECODE_ATTENTION ||
           kind == ARCHRT_CUDA_SKINNY_QKV || kind == ARCHRT_CUDA_SKINNY_ATTENTION ||
           kind == ARCHRT_CUDA_PREFILL_ROPE || kind == ARCHRT_CUDA_PREFILL_ATTENTION;
}

/* Are the rows in use a matter of the call? */
static bool rows_vary(const struct attempt *a)
{
    bool call = false;
    for (int i = 0; i < a->step->n; i++)
        call |= a->step->operands[i].slab == SLAB_CALL;
    return call && strcmp(a->cuda->phase, "prefill") == 0;
}

/* A weight's gradient in both forms. */
static bool run_both(struct attempt *a, int m, int past, const struct device_checks *c,
                     struct kernel_verdict *out)
{
    bool done = true;
    for (int form = 0; form <= (a->cuda->kind == ARCHRT_CUDA_MATMUL_DW) && done; form++) {
        a->overwrites = form;
        done = run_case(a, m, past, c, out);
        trial_close(&a->t);
    }
    return done;
}

/* Of inference, calls of fewer rows than there is room for too, and with keys in front. */
static bool run_cases(struct attempt *a, const struct device_checks *c, struct kernel_verdict *out)
{
    bool prompt = strcmp(a->cuda->phase, "prefill") == 0, done = true;
    int room = DEVICE_SLOT_PAGES * KV_PAGE, m = a->cuda->m < 1 ? 1 : (int)a->cuda->m;
    if (room > a->model.arch.context)
        room = a->model.arch.context;
    if (prompt && m > room)
        m = room;
    if (prompt && a->cuda->kind == ARCHRT_CUDA_SAMPLE)
        m = 1; /* of one slot, whose next token the last row decides */
    const int pasts[] = {0, 37 % room, room - 1};
    *out = (struct kernel_verdict){.passed = true};
    for (int i = 0; i < (over_cache(a->cuda->kind) ? 3 : 1); i++)
        for (int few = 0; few <= (rows_vary(a) && m > 2) && done; few++) {
            int rows = few ? (m / 3) | 1 : m;
            int past = prompt && pasts[i] + rows > room ? room - rows : pasts[i];
            done = run_both(a, rows, past, c, out);
        }
    return done;
}

/* ---- all kernels -------------------------------------------------------------------------------
 */

static bool asked(const struct device_checks *c, const struct archrt_cuda_kernel *k)
{
    return !c->only || strstr(k->name, c->only);
}

/* Whether a session of training, or of inference, has a kernel that is asked for. */
static bool any_asked(const struct device_checks *c, const struct archrt_cuda *cuda, bool training)
{
    for (int i = 0; i < cuda->n_kernels; i++)
        if ((strcmp(cuda->kernels[i].phase, "train") == 0) == training &&
            asked(c, &cuda->kernels[i]))
            return true;
    return false;
}

static bool each_kernel(struct session *s, enum archrt_phase_id id, bool *seen,
                        const struct device_checks *c, struct failure *f)
{
    const struct archrt_phase *phase = &s->cuda->phases[id];
    for (int l = 0; l < phase->n; l++)
        for (int i = 0; i < phase->loops[l].n; i++) {
            const struct archrt_loop *loop = &phase->loops[l];
            const struct archrt_step *step = &loop->steps[i];
            struct attempt a = {.s = s, .step = step, .model = *the_model, .f = f};
            struct kernel_verdict verdict;
            if (seen[step->kernel])
                continue;
            seen[step->kernel] = true;
            a.cuda = &s->cuda->kernels[step->kernel];
            if (!asked(c, a.cuda))
                continue;
            a.kind = &device_kinds[a.cuda->kind];
            a.model.work_bytes = archrt_model.work_bytes; /* of host kernels that make inputs */
            a.layer = loop->kind == ARCHRT_LAYERS || loop->kind == ARCHRT_LAYERS_REVERSED
                          ? loop->turns - 1
                          : 0;
            describe(&a);
            c->begin(c->to, &a.kernel);
            if (!a.kind->name)
                verdict =
                    (struct kernel_verdict){.skipped = true, .note = "no reference of its own"};
            else if (!run_cases(&a, c, &verdict))
                return false;
            c->report(c->to, &a.kernel, &verdict);
        }
    return true;
}

bool verify_device(struct device *d, const struct device_checks *c, struct failure *f)
{
    const struct archrt_cuda *cuda = archrt_model.cuda;
    bool *seen = need(calloc((size_t)cuda->n_kernels, sizeof *seen));
    bool training = any_asked(c, cuda, true), inference = any_asked(c, cuda, false), done = true;
    struct session s;
    if (!training && !inference)
        done = failed(f, STATUS_USAGE, "no kernel's name holds \"%s\"; `info` lists them", c->only);
    if (training && (done = session_open(&s, d, cuda, true, 0, f))) {
        done = each_kernel(&s, ARCHRT_PHASE_TRAIN, seen, c, f) &&
               each_kernel(&s, ARCHRT_PHASE_EVAL, seen, c, f) &&
               each_kernel(&s, ARCHRT_PHASE_UPDATE, seen, c, f);
        session_close(&s);
    }
    if (done && inference &&
        (done = session_open(&s, d, cuda, false, cuda->slots * DEVICE_SLOT_PAGES, f))) {
        done = each_kernel(&s, ARCHRT_PHASE_PREFILL, seen, c, f) &&
               each_kernel(&s, ARCHRT_PHASE_DECODE, seen, c, f) &&
               each_kernel(&s, ARCHRT_PHASE_BATCH, seen, c, f);
        session_close(&s);
    }
    free(seen);
    return done;
}

/* trial.c - one call of one kernel: operands between guard zones, and the judgement of what the
 * call left behind. What is special to a kind stands in verify_train.c and verify_infer.c. */
#define _GNU_SOURCE
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "reference.h"
#include "verify.h"

enum { GUARD = 4096 };
static const unsigned char guard_byte = 0xa5, poison_byte = 0xff; /* four poison bytes are a NaN */

/* Tolerances are for fp32 sums: one rounding is 6e-8 of a term, and a sum of n terms in any order
 * strays by a few roots of n of those. exp, division and the like add some units. Kinds with packed
 * weights are judged by the rounded weights, so theirs are the same. */
const struct kind kinds[ARCHRT_KERNEL_KINDS] = {
#define KIND(kind, name, tolerance, free_rows, cached, variants)                                   \
    [ARCHRT_##kind] = {#kind,        tolerance, name##_prepare, name##_call,                       \
                       name##_check, free_rows, cached,         variants}
    KIND(EMBED, embed, 0, false, false, 1),
    KIND(EMBED_BACKWARD, embed_backward, 1e-6, false, false, 1),
    KIND(NORM, norm, 1e-6, true, false, 1),
    KIND(NORM_BACKWARD, norm_backward, 1e-6, false, false, 1),
    KIND(MATMUL, matmul, 6e-7, true, false, 2),
    KIND(MATMUL_DX, matmul_dx, 6e-7, false, false, 1),
    KIND(MATMUL_DW, matmul_dw, 6e-7, false, false, 1),
    KIND(ROPE, rope, 2e-6, false, false, 2),
    KIND(ROPE_BACKWARD, rope_backward, 2e-6, false, false, 1),
    KIND(ATTENTION, attention, 2e-6, false, false, 1),
    KIND(ATTENTION_BACKWARD, attention_backward, 4e-6, false, false, 1),
    KIND(SWIGLU, swiglu, 2e-6, true, false, 1),
    KIND(SWIGLU_BACKWARD, swiglu_backward, 4e-6, false, false, 2),
    KIND(LOSS, loss, 4e-6, true, false, 2),
    KIND(SUM_SQUARES, sum_squares, 1e-6, false, false, 1),
    KIND(ADAMW, adamw, 6e-6, false, false, 1), /* a root, three quotients, sums that cancel */
    KIND(EMBED_ROW, embed_row, 1e-6, true, false, 1),
    KIND(PREFILL_MATMUL, prefill_matmul, 6e-7, true, false, 2),
    KIND(PREFILL_ROPE, prefill_rope, 2e-6, true, true, 1),
    KIND(PREFILL_ATTENTION, prefill_attention, 2e-6, true, true, 1),
    KIND(MATVEC, matvec, 6e-7, false, false, 2),
    KIND(DECODE_ATTENTION, decode_attention, 2e-6, false, true, 1),
#undef KIND
};

/* int8 weights may meet activations rounded to 16 bits with a scale per 64: an element is off by up
 * to max / 65534, a sum of many by 1.5e-5 of its magnitude, five deviations of that at worst. */
static const double rounded_input = 1e-4;

/* ---- operands ----------------------------------------------------------------------------------
 */

/* Uniform with variance 1, by a generator fast enough for gigabytes. */
static void fill(struct trial *t, float *x, size_t n)
{
    uint64_t state = (uint64_t)pcg32_next(&t->random) << 32 | pcg32_next(&t->random) | 1;
    for (size_t i = 0; i < n; i++) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        x[i] = ((float)(state >> 40) - 8388607.5f) * (1.7320508f / 8388608.0f);
    }
    for (size_t i = 0; FLAG(t, ARCHRT_HALVES) && i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits = (bits + 0x8000u) & 0xffff0000u;
        memcpy(&x[i], &bits, sizeof bits);
    }
}

static uint64_t sum_of(const void *at, size_t bytes)
{
    const unsigned char *p = at;
    uint64_t sum = 14695981039346656037ull, word;
    for (size_t i = 0; i + 8 <= bytes; i += 8) {
        memcpy(&word, p + i, 8);
        sum = (sum ^ word) * 1099511628211ull;
    }
    for (size_t i = bytes / 8 * 8; i < bytes; i++)
        sum = (sum ^ p[i]) * 1099511628211ull;
    return sum;
}

bool trial_bytes(struct trial *t, void **out, size_t bytes, enum buffer_role role,
                 struct failure *f)
{
    struct operand *o = &t->operands[t->n_operands];
    void *map;
    /* The guards lie on both sides of the operand without a gap behind it: it ends where the upper
     * guard begins, up to the 64 bytes that kernels may expect of its start. */
    *o = (struct operand){.bytes = bytes, .role = role};
    o->mapped = GUARD + (bytes + 63) / 64 * 64 + GUARD;
    if (!slab_alloc(&map, o->mapped, "the operands of a kernel", f))
        return false;
    t->n_operands++;
    o->map = map;
    o->at = o->map + GUARD;
    memset(o->map, guard_byte, GUARD);
    memset((char *)o->at + bytes, guard_byte, o->mapped - GUARD - bytes);
    if (role == ROLE_OUTPUT)
        memset(o->at, poison_byte, bytes);
    if (role == ROLE_SCRATCH) /* a huge one is shared by all kernels: its front will do */
        memset(o->at, poison_byte, bytes < (64u << 20) ? bytes : 64u << 20);
    *out = o->at;
    return true;
}

bool trial_floats(struct trial *t, float **out, size_t n, enum buffer_role role, struct failure *f)
{
    void *at;
    if (!trial_bytes(t, &at, n * sizeof(float), role, f))
        return false;
    *out = at;
    t->operands[t->n_operands - 1].floats = true;
    if (role == ROLE_INPUT || role == ROLE_INOUT)
        fill(t, *out, n);
    return true;
}

bool trial_tokens(struct trial *t, int n, int vocab, struct failure *f)
{
    void *at;
    if (!trial_bytes(t, &at, (size_t)n * sizeof *t->token, ROLE_INPUT, f))
        return false;
    t->token = at;
    for (int i = 0; i < n; i++)
        t->token[i] = (int32_t)(pcg32_next(&t->random) % (uint32_t)vocab);
    t->token[0] = vocab - 1;
    if (n > 2)
        t->token[n - 1] = t->token[1]; /* the same token twice, and the ends of the table */
    if (n > 3)
        t->token[2] = 0;
    return true;
}

bool trial_rope(struct trial *t, struct failure *f)
{
    const struct archrt_arch *a = &t->model->arch;
    size_t n = (size_t)a->context * (size_t)a->head_dim;
    void *at;
    if (!trial_bytes(t, &at, n * sizeof(float), ROLE_INPUT, f))
        return false;
    t->rope = at;
    rope_table(a, t->rope);
    return true;
}

bool trial_scratch(struct trial *t, struct failure *f)
{
    size_t bytes = t->kernel->scratch_bytes;
    void *at;
    if (bytes == 0)
        bytes = strcmp(t->kernel->phase, "train") == 0 ? t->model->work_bytes
                                                       : t->model->infer_work_bytes;
    if (!trial_bytes(t, &at, bytes, ROLE_SCRATCH, f))
        return false;
    t->scratch = at;
    return true;
}

void trial_seal(struct trial *t)
{
    for (int i = 0; i < t->n_operands; i++) {
        struct operand *o = &t->operands[i];
        if (o->role == ROLE_INPUT)
            o->sum = sum_of(o->at, o->bytes);
        if (o->role == ROLE_INOUT && !o->pristine) {
            o->pristine = need(malloc(o->bytes + 1));
            memcpy(o->pristine, o->at, o->bytes);
        }
    }
}

const float *trial_pristine(const struct trial *t, const void *at)
{
    for (int i = 0; i < t->n_operands; i++)
        if (t->operands[i].at == at)
            return t->operands[i].pristine;
    return NULL;
}

void trial_zero(struct trial *t, const void *at)
{
    for (int i = 0; i < t->n_operands; i++)
        if (t->operands[i].at == at) {
            memset(t->operands[i].at, 0, t->operands[i].bytes);
            memset(t->operands[i].pristine, 0, t->operands[i].bytes);
        }
}

void trial_reset(struct trial *t)
{
    for (int i = 0; i < t->n_operands; i++)
        if (t->operands[i].pristine)
            memcpy(t->operands[i].at, t->operands[i].pristine, t->operands[i].bytes);
}

bool trial_open(struct trial *t, const struct archrt_model *model,
                const struct archrt_kernel *kernel, int m, int past, int variant, uint64_t seed,
                struct failure *f)
{
    return trial_open_as(t, model, kernel, &kinds[kernel->kind], m, past, variant, seed, f);
}

bool trial_open_as(struct trial *t, const struct archrt_model *model,
                   const struct archrt_kernel *kernel, const struct kind *kind, int m, int past,
                   int variant, uint64_t seed, struct failure *f)
{
    memset(t, 0, sizeof *t);
    t->model = model;
    t->kernel = kernel;
    t->kind = kind;
    if (kernel->kind == ARCHRT_MATVEC && kernel->weights == ARCHRT_I8)
        t->rounding = rounded_input;
    t->m = m;
    t->past = past;
    t->variant = variant;
    t->budget = 3e7;
    t->depth = 1;
    pcg32_seed(&t->random, seed, (uint64_t)kernel->kind << 32 | (uint32_t)m);
    if (!t->kind->prepare(t, f))
        return false;
    trial_seal(t);
    return true;
}

void trial_close(struct trial *t)
{
    for (int i = 0; i < t->n_operands; i++) {
        free(t->operands[i].pristine);
        slab_free(t->operands[i].map, t->operands[i].mapped);
    }
    free(t->rounded);
    free(t->turned);
    memset(t, 0, sizeof *t);
}

static void run_work(void *arg, int tid)
{
    struct trial *t = arg;
    t->kind->call(t, tid);
}

void trial_run(struct trial *t)
{
    team_run(run_work, t);
}

/* ---- judgement ---------------------------------------------------------------------------------
 */

void trial_fault(struct trial *t, const char *format, ...)
{
    va_list list;
    if (t->fault[0])
        return; /* the first one */
    va_start(list, format);
    vsnprintf(t->fault, sizeof t->fault, format, list);
    va_end(list);
}

void judge(struct trial *t, double got, double want, double magnitude)
{
    double error = fabs(got - want);
    t->checked++;
    if (!isfinite(got)) {
        trial_fault(t, "%g where %g belongs", got, want);
        return;
    }
    if (error > t->max_abs)
        t->max_abs = error;
    if (error == 0)
        return;
    double relative = magnitude > 0 ? error / magnitude : INFINITY;
    if (relative > t->max_rel)
        t->max_rel = relative;
}

int64_t sample_count(const struct trial *t, int64_t n, double cost)
{
    double covered = t->budget / (cost > 1 ? cost : 1);
    int64_t count = covered < (double)n ? (int64_t)covered : n;
    return count > 2 ? count : n < 2 ? n : 2;
}

int64_t sample_at(struct trial *t, int64_t i, int64_t count, int64_t n)
{
    if (count == n)
        return i;
    if (i < 2)
        return i == 0 ? n - 1 : 0;
    uint64_t word = (uint64_t)pcg32_next(&t->random) << 32 | pcg32_next(&t->random);
    return (int64_t)(word % (uint64_t)n);
}

double *widen(const float *a, size_t n)
{
    double *out = need(malloc((n + 1) * sizeof *out));
    for (size_t i = 0; i < n; i++)
        out[i] = (double)a[i];
    return out;
}

/* Sum of products with its magnitude: the root of the sum of the squared terms. */
static double strided_dot(const struct product_check *c, int64_t i, int64_t j, double *magnitude)
{
    double sum = 0, squares = 0;
    for (int64_t k = 0; k < c->K; k++) {
        double term = (double)c->a[i * c->ai + k * c->ak] * (double)c->b[j * c->bj + k * c->bk];
        sum += term;
        squares += term * term;
    }
    *magnitude = sqrt(squares);
    return sum;
}

static double extra(const struct product_check *c, int64_t i, int64_t j)
{
    double sum = c->bias ? (double)c->bias[j] : 0;
    return c->added ? sum + (double)c->added[i * c->N + j] : sum;
}

/* Every row of out times a vector of signs against A (B signs): costs a row and a column of work,
 * and no wrong element escapes it but by chance. */
static void check_projection(struct trial *t, const struct product_check *c, double magnitude)
{
    double *sign = need(malloc((size_t)c->N * sizeof *sign));
    double *projected = need(calloc((size_t)c->K + 1, sizeof *projected));
    for (int64_t j = 0; j < c->N; j++) {
        sign[j] = pcg32_next(&t->random) & 1 ? 1 : -1;
        for (int64_t k = 0; k < c->K; k++)
            projected[k] += sign[j] * (double)c->b[j * c->bj + k * c->bk];
    }
    int64_t checked = t->checked;
    double worst_abs = t->max_abs;
    for (int64_t i = 0; i < c->M; i++) {
        double got = 0, want = 0;
        for (int64_t j = 0; j < c->N; j++)
            got += sign[j] * ((double)c->out[i * c->N + j] - extra(c, i, j));
        for (int64_t k = 0; k < c->K; k++)
            want += (double)c->a[i * c->ai + k * c->ak] * projected[k];
        judge(t, got, want, magnitude * sqrt((double)c->N));
    }
    t->checked = checked; /* the count is of single elements, and so is the largest error */
    t->max_abs = worst_abs;
    free(sign);
    free(projected);
}

void check_product(struct trial *t, const struct product_check *c)
{
    int64_t n = c->M * c->N, count = sample_count(t, n, 4.0 * (double)c->K);
    double squares = 0;
    t->depth = (double)c->K;
    for (int64_t s = 0; s < count; s++) {
        int64_t at = sample_at(t, s, count, n), i = at / c->N, j = at % c->N;
        double magnitude, want = strided_dot(c, i, j, &magnitude) + extra(c, i, j);
        magnitude += fabs(extra(c, i, j));
        squares += magnitude * magnitude;
        judge(t, (double)c->out[at], want, magnitude);
    }
    check_projection(t, c, sqrt(squares / (double)count));
}

static void judge_operand(struct trial *t, const struct operand *o, const char *which)
{
    const unsigned char *front = (const unsigned char *)o->map;
    const unsigned char *back = (const unsigned char *)o->at + o->bytes;
    size_t behind = o->mapped - GUARD - o->bytes;
    for (size_t i = 0; i < GUARD; i++)
        if (front[i] != guard_byte)
            trial_fault(t, "wrote in front of %s, %zu bytes before it", which, GUARD - i);
    for (size_t i = 0; i < behind; i++)
        if (back[i] != guard_byte)
            trial_fault(t, "wrote behind the end of %s, byte %zu there", which, i);
    if (o->role == ROLE_INPUT && o->sum != sum_of(o->at, o->bytes))
        trial_fault(t, "changed an input (%s)", which);
    const float *x = o->at;
    if (o->floats && (o->role == ROLE_OUTPUT || o->role == ROLE_INOUT))
        for (size_t i = 0; i < o->bytes / sizeof *x; i++)
            if (!isfinite(x[i])) {
                trial_fault(t, "%s[%zu] of %zu is %s", which, i, o->bytes / sizeof *x,
                            isnan(x[i]) ? "NaN, or was never written" : "infinite");
                break;
            }
}

/* Spoils what a right kernel left, so that the judgement itself can be tested. */
static void apply_plant(struct trial *t)
{
    struct operand *main = NULL, *input = NULL;
    for (int i = 0; i < t->n_operands; i++) {
        if (t->operands[i].at == (void *)t->y)
            main = &t->operands[i];
        if (t->operands[i].role == ROLE_INPUT)
            input = &t->operands[i];
    }
    for (int i = 0; t->plant == PLANT_VALUE && i < 256; i++)
        t->sums[i] *= 1.001; /* for the kind that returns its result */
    if (!main)
        return;
    float *end = (float *)main->at + main->bytes / sizeof *end;
    float *last = t->spoil ? (float *)main->at + t->spoil : end - 1;
    if (t->plant == PLANT_VALUE)
        *last += (0.01f + 64 * (float)t->rounding) * (fabsf(*last) + 1);
    if (t->plant == PLANT_POISON)
        *last = NAN;
    if (t->plant == PLANT_GUARD)
        *end = 1;
    if (t->plant == PLANT_INPUT && input)
        *(unsigned char *)input->at ^= 1;
}

bool trial_judge(struct trial *t)
{
    apply_plant(t);
    for (int i = 0; i < t->n_operands; i++) {
        char which[40];
        const void *at = t->operands[i].at;
        if (at == (void *)t->y)
            snprintf(which, sizeof which, "the output");
        else if (at == (void *)t->y2)
            snprintf(which, sizeof which, "the second output");
        else
            snprintf(which, sizeof which, at == (void *)t->scratch ? "the scratch" : "operand %d",
                     i);
        judge_operand(t, &t->operands[i], which);
    }
    if (!t->fault[0])
        t->kind->check(t);
    t->limit = t->kind->tolerance * sqrt(t->depth) + t->rounding;
    return !t->fault[0] && t->max_rel <= t->limit;
}

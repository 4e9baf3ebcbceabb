/* verify_device_infer.c - the references of device kernels of prompts and decode, which do at once
 * what the host's kernels do one by one, over a paged cache. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "archrt_cuda.h"
#include "reference.h"
#include "verify.h"

/* ---- rows and the cache ------------------------------------------------------------------------
 *
 * The cache of a layer, as floats: [page][k, v][kv head][KV_PAGE][E]. */

static bool of_prompt(const struct trial *t)
{
    return strcmp(t->kernel->phase, "prefill") == 0;
}

/* A prompt is slot 0's; rows of decode are the slots', last to first. */
int device_slot(const struct trial *t, int row)
{
    return of_prompt(t) ? 0 : t->m - 1 - row;
}

int device_position(const struct trial *t, int row)
{
    int room = DEVICE_SLOT_PAGES * KV_PAGE;
    if (room > t->model->arch.context)
        room = t->model->arch.context;
    return of_prompt(t) ? t->past + row : (t->past + 7 * row) % room;
}

/* Last to first, so that no page is where its number says. */
int device_page(int slot, int n)
{
    return slot * DEVICE_SLOT_PAGES + DEVICE_SLOT_PAGES - 1 - n % DEVICE_SLOT_PAGES;
}

static size_t cache_floats(const struct trial *t)
{
    struct heads h = heads_of(t);
    int slots = of_prompt(t) ? 1 : t->m;
    return area((int64_t)slots * DEVICE_SLOT_PAGES * 2, (int64_t)h.dkv * KV_PAGE);
}

/* The E floats of a token's k (0) or v (1) of one kv head. */
static size_t cache_at(const struct trial *t, int slot, int position, int which, int head)
{
    struct heads h = heads_of(t);
    int64_t page = device_page(slot, position / KV_PAGE);
    return (size_t)((((page * 2 + which) * h.K + head) * KV_PAGE + position % KV_PAGE) * h.E);
}

/* ---- norm, product, SwiGLU ---------------------------------------------------------------------
 */

static int64_t outputs(const struct trial *t)
{
    return FLAG(t, ARCHRT_WITH_SWIGLU) ? t->kernel->n / 2 : t->kernel->n;
}

/* Does a norm come first? x of those is fp32. */
static bool norm_first(const struct trial *t)
{
    return t->kernel->kind == ARCHRT_MATMUL && !(of_prompt(t) && FLAG(t, ARCHRT_WITH_SWIGLU));
}

bool device_normed_prepare(struct trial *t, struct failure *f)
{
    int64_t n = t->kernel->n, k = t->kernel->k;
    if (!trial_floats(t, &t->y, area(t->m, outputs(t)), ROLE_OUTPUT, f) ||
        !trial_floats(t, &t->x, area(t->m, k), ROLE_INPUT, f) ||
        !trial_floats(t, &t->w, area(n, k), ROLE_INPUT, f))
        return false;
    float scale = exp2f(-floorf(log2f(sqrtf((float)k)))); /* exact in bf16; sums of about 1 */
    for (size_t i = 0; i < area(n, k); i++)
        t->w[i] *= scale;
    return !norm_first(t) || trial_floats(t, &t->gain, area(k, 1), ROLE_INPUT, f);
}

/* Row r of x, normed where the kernel does. The caller frees. */
static double *input_row(const struct trial *t, int64_t r)
{
    int k = t->kernel->k;
    double *x = widen(t->x + r * k, area(k, 1));
    if (t->gain) {
        double *gain = widen(t->gain, area(k, 1));
        ref_norm(x, x, gain, (double)t->model->arch.norm_eps, k);
        free(gain);
    }
    return x;
}

static double row_dot(const struct trial *t, int64_t row, const double *x, double *size)
{
    int64_t k = t->kernel->k;
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < k; i++) {
        double term = (double)t->w[row * k + i] * x[i];
        sum += term;
        squares += term * term;
    }
    *size = sqrt(squares);
    return sum;
}

/* How many of the n things of each row are looked at. */
static int64_t each_row(const struct trial *t, int64_t n, double cost)
{
    int64_t each = sample_count(t, t->m * n, cost) / t->m + 2;
    return each < n ? each : n;
}

void device_normed_check(struct trial *t)
{
    int64_t n = outputs(t), k = t->kernel->k;
    int64_t each = each_row(t, n, 4.0 * (double)k);
    t->depth = (double)k;
    for (int64_t r = 0; r < t->m; r++) {
        double *x = input_row(t, r), gate_size, up_size;
        for (int64_t s = 0; s < each; s++) {
            int64_t i = sample_at(t, s, each, n);
            double gate = row_dot(t, i, x, &gate_size), want = gate, size = gate_size;
            if (FLAG(t, ARCHRT_WITH_SWIGLU)) {
                double up = row_dot(t, n + i, x, &up_size);
                want = ref_silu(gate) * up;
                size = fabs(ref_silu_slope(gate) * up) * gate_size + fabs(ref_silu(gate)) * up_size;
            }
            judge(t, (double)t->y[r * n + i], want, size + fabs(want) + 0.01);
        }
        free(x);
    }
}

/* ---- q, k and v of a token ---------------------------------------------------------------------
 */

static bool cache_and_rotations(struct trial *t, enum buffer_role role, float **cache,
                                struct failure *f)
{
    struct heads h = heads_of(t);
    return trial_floats(t, cache, cache_floats(t), role, f) && trial_rope(t, f) &&
           (!t->model->arch.qk_norm || trial_floats(t, &t->residual, area(2, h.E), ROLE_INPUT, f));
}

bool device_qkv_prepare(struct trial *t, struct failure *f)
{
    struct heads h = heads_of(t);
    int64_t k = t->kernel->k;
    if (!trial_floats(t, &t->y, area(t->m, h.dq), ROLE_OUTPUT, f) ||
        !trial_floats(t, &t->x, area(t->m, k), ROLE_INPUT, f) ||
        !trial_floats(t, &t->w, area(h.width, k), ROLE_INPUT, f) ||
        !trial_floats(t, &t->gain, area(k, 1), ROLE_INPUT, f))
        return false;
    float scale = exp2f(-floorf(log2f(sqrtf((float)k))));
    for (size_t i = 0; i < area(h.width, k); i++)
        t->w[i] *= scale;
    return (!FLAG(t, ARCHRT_BIAS) || trial_floats(t, &t->bias, area(h.width, 1), ROLE_INPUT, f)) &&
           cache_and_rotations(t, ROLE_INOUT, &t->y2, f);
}

/* Head j of q, k, v in turn, from what was projected: normed and rotated, if it is q or k. */
static void finish_head(const struct trial *t, double *x, int j, int position)
{
    struct heads h = heads_of(t);
    double gain[h.E], turn[h.E];
    if (j >= h.H + h.K)
        return;
    for (int e = 0; e < h.E; e++) {
        gain[e] = t->residual ? (double)t->residual[(j >= h.H) * h.E + e] : 0;
        turn[e] = (double)t->rope[(int64_t)position * h.E + e];
    }
    if (t->residual)
        ref_norm(x, x, gain, (double)t->model->arch.norm_eps, h.E);
    ref_rotate(x, turn, h.E, false);
}

/* Where the kernel should have left head j of a row: q, or the cache. */
static const float *head_place(const struct trial *t, int64_t row, int64_t q_stride, int j)
{
    struct heads h = heads_of(t);
    int slot = device_slot(t, (int)row), position = device_position(t, (int)row);
    if (j < h.H)
        return t->y + row * q_stride + (int64_t)j * h.E;
    int which = j >= h.H + h.K;
    return t->y2 + cache_at(t, slot, position, which, j - h.H - which * h.K);
}

static void judge_head(struct trial *t, const float *got, const double *want)
{
    int E = t->model->arch.head_dim;
    double size = sqrt(ref_dot(want, want, E) / E);
    for (int e = 0; e < E; e++)
        judge(t, (double)got[e], want[e], fabs(want[e]) + size);
}

/* Nothing of the cache changed but what these rows' tokens take. */
static void check_rest_of_cache(struct trial *t)
{
    const float *before = trial_pristine(t, t->y2);
    size_t n = cache_floats(t), changed = 0;
    for (size_t i = 0; before && i < n; i++)
        changed += memcmp(&t->y2[i], &before[i], sizeof *before) != 0;
    if (changed > area(t->m, 2 * heads_of(t).dkv))
        trial_fault(t, "%zu elements of the cache changed, of %d tokens", changed, t->m);
}

void device_qkv_check(struct trial *t)
{
    struct heads h = heads_of(t);
    int64_t heads = h.H + 2 * h.K, k = t->kernel->k;
    int64_t each = each_row(t, heads, 4.0 * (double)(h.E * k));
    double want[h.E], size;
    for (int64_t r = 0; r < t->m; r++) {
        double *x = input_row(t, r);
        for (int64_t s = 0; s < each; s++) {
            int j = (int)sample_at(t, s, each, heads);
            for (int e = 0; e < h.E; e++) {
                int64_t row = (int64_t)j * h.E + e;
                want[e] = row_dot(t, row, x, &size) + (t->bias ? (double)t->bias[row] : 0);
            }
            finish_head(t, want, j, device_position(t, (int)r));
            judge_head(t, head_place(t, r, h.dq, j), want);
        }
        free(x);
    }
    check_rest_of_cache(t);
}

/* ---- rotation of a prompt's rows ---------------------------------------------------------------
 */

bool device_rope_prepare(struct trial *t, struct failure *f)
{
    struct heads h = heads_of(t);
    t->spoil = 1; /* an element of q: what stays of k and v in these rows is nobody's */
    return trial_floats(t, &t->y, area(t->m, h.width), ROLE_INOUT, f) &&
           cache_and_rotations(t, ROLE_INOUT, &t->y2, f);
}

void device_rope_check(struct trial *t)
{
    struct heads h = heads_of(t);
    const float *before = trial_pristine(t, t->y);
    for (int64_t r = 0; r < t->m; r++)
        for (int j = 0; j < h.H + 2 * h.K; j++) {
            double *want = widen(before + r * h.width + (int64_t)j * h.E, area(h.E, 1));
            finish_head(t, want, j, device_position(t, (int)r));
            judge_head(t, head_place(t, r, h.width, j), want);
            free(want);
        }
    check_rest_of_cache(t);
}

/* ---- attention over the cache ------------------------------------------------------------------
 */

bool device_attention_prepare(struct trial *t, struct failure *f)
{
    struct heads h = heads_of(t);
    int64_t width = of_prompt(t) ? h.width : h.dq;
    if (!trial_floats(t, &t->y, area(t->m, h.dq), ROLE_OUTPUT, f) ||
        !trial_floats(t, &t->x, area(t->m, width), ROLE_INPUT, f))
        return false;
    for (size_t i = 0; i < area(t->m, width); i++)
        t->x[i] *= 2; /* as attention_inputs() of training */
    return trial_floats(t, &t->qkv, cache_floats(t), ROLE_INPUT, f);
}

static void attend_cache(const struct trial *t, int64_t row, int head, double *out)
{
    struct heads h = heads_of(t);
    int64_t width = of_prompt(t) ? h.width : h.dq;
    int slot = device_slot(t, (int)row), keys = device_position(t, (int)row) + 1;
    double *q = widen(t->x + row * width + (int64_t)head * h.E, area(h.E, 1));
    double *k = need(malloc(area(keys, h.E) * 8)), *v = need(malloc(area(keys, h.E) * 8));
    double *p = need(malloc(area(keys, 8)));
    for (int64_t i = 0; i < keys; i++)
        for (int e = 0; e < h.E; e++) {
            int kv = head / (h.H / h.K);
            k[i * h.E + e] = (double)t->qkv[cache_at(t, slot, (int)i, 0, kv) + (size_t)e];
            v[i * h.E + e] = (double)t->qkv[cache_at(t, slot, (int)i, 1, kv) + (size_t)e];
        }
    ref_attend(out, p, q, k, v, h.E, keys, h.E);
    free(q), free(k), free(v), free(p);
}

void device_attention_check(struct trial *t)
{
    struct heads h = heads_of(t);
    int64_t n = (int64_t)t->m * h.H;
    int64_t count = sample_count(t, n, 8.0 * DEVICE_SLOT_PAGES * KV_PAGE * h.E);
    double want[h.E];
    t->depth = h.E;
    for (int64_t s = 0; s < count; s++) {
        int64_t at = sample_at(t, s, count, n);
        attend_cache(t, at / h.H, (int)(at % h.H), want);
        for (int e = 0; e < h.E; e++)
            judge(t, (double)t->y[at * h.E + e], want[e], 1);
    }
}

/* ---- the most likely token; verify_device.c looks what was chosen ------------------------------
 */

bool device_sample_prepare(struct trial *t, struct failure *f)
{
    return trial_floats(t, &t->x, area(t->m, t->kernel->n), ROLE_INPUT, f);
}

void device_sample_check(struct trial *t)
{
    (void)t;
}

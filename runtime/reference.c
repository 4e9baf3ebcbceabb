/* reference.c - the plain model in double. Written to be read, not to be fast: no tiles, no fusion,
 * no online softmax. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "reference.h"

/* ---- pieces ------------------------------------------------------------------------------------
 */

double ref_dot(const double *a, const double *b, int n)
{
    double s[8] = {0};
    int i = 0;
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++)
            s[j] += a[i + j] * b[i + j];
    for (; i < n; i++)
        s[0] += a[i] * b[i];
    return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
}

void ref_add(double *y, double factor, const double *x, int n)
{
    for (int i = 0; i < n; i++)
        y[i] += factor * x[i];
}

double ref_norm(double *y, const double *x, const double *gain, double eps, int n)
{
    double rstd = 1 / sqrt(ref_dot(x, x, n) / n + eps);
    for (int i = 0; i < n; i++)
        y[i] = x[i] * rstd * gain[i];
    return rstd;
}

void ref_norm_backward(double *dx, double *dgain, const double *dy, const double *x,
                       const double *gain, double eps, int n)
{
    double rstd = 1 / sqrt(ref_dot(x, x, n) / n + eps), along = 0;
    for (int i = 0; i < n; i++)
        along += dy[i] * gain[i] * x[i] * rstd / n;
    for (int i = 0; i < n; i++) {
        dx[i] += rstd * (dy[i] * gain[i] - along * x[i] * rstd);
        dgain[i] += dy[i] * x[i] * rstd;
    }
}

void ref_rotate(double *x, const double *turn, int E, bool backward)
{
    for (int i = 0; i < E / 2; i++) {
        double c = turn[2 * i], s = backward ? -turn[2 * i + 1] : turn[2 * i + 1];
        double a = x[i], b = x[i + E / 2];
        x[i] = a * c - b * s;
        x[i + E / 2] = a * s + b * c;
    }
}

double ref_attend(double *out, double *p, const double *q, const double *k, const double *v,
                  int stride, int keys, int E)
{
    double scale = 1 / sqrt(E), best = -INFINITY, sum = 0;
    for (int j = 0; j < keys; j++) {
        p[j] = scale * ref_dot(q, k + (size_t)j * (size_t)stride, E);
        best = fmax(best, p[j]);
    }
    for (int j = 0; j < keys; j++)
        sum += p[j] = exp(p[j] - best);
    memset(out, 0, (size_t)E * sizeof *out);
    for (int j = 0; j < keys; j++) {
        p[j] /= sum;
        ref_add(out, p[j], v + (size_t)j * (size_t)stride, E);
    }
    return best + log(sum);
}

void ref_attend_backward(double *dq, double *dk, double *dv, double *p, const double *dout,
                         const double *q, const double *k, const double *v, int stride, int keys,
                         int E)
{
    double scale = 1 / sqrt(E), out[E], along;
    ref_attend(out, p, q, k, v, stride, keys, E);
    along = ref_dot(dout, out, E);
    for (int j = 0; j < keys; j++) {
        size_t at = (size_t)j * (size_t)stride;
        double ds = scale * p[j] * (ref_dot(dout, v + at, E) - along);
        ref_add(dv + at, p[j], dout, E);
        ref_add(dq, ds, k + at, E);
        ref_add(dk + at, ds, q, E);
    }
}

double ref_silu(double x)
{
    return x / (1 + exp(-x));
}

double ref_silu_slope(double x)
{
    double s = 1 / (1 + exp(-x));
    return s * (1 + x * (1 - s));
}

double ref_loss(const double *logits, int V, int target, double *d, double scale)
{
    double best = -INFINITY, sum = 0;
    for (int i = 0; i < V; i++)
        best = fmax(best, logits[i]);
    for (int i = 0; i < V; i++)
        sum += exp(logits[i] - best);
    double loss = best + log(sum) - logits[target];
    if (d)
        for (int i = 0; i < V; i++)
            d[i] = (exp(logits[i] - best) / sum - (i == target)) * scale;
    return loss;
}

static double round_bf16(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    u += 0x7fff + (u >> 16 & 1); /* nearest, ties to even; weights are never NaN */
    u &= 0xffff0000u;
    memcpy(&x, &u, sizeof x);
    return x;
}

void ref_round(double *out, const float *w, int n, enum archrt_dtype type)
{
    for (int begin = 0; begin < n; begin += 64) {
        int end = begin + 64 < n ? begin + 64 : n;
        float top = 0;
        for (int i = begin; i < end; i++)
            top = fmaxf(top, fabsf(w[i]));
        float scale = top / 127; /* kept in fp32, as the packed weights do */
        for (int i = begin; i < end; i++)
            out[i] = type == ARCHRT_BF16              ? round_bf16(w[i])
                     : type == ARCHRT_I8 && scale > 0 ? nearbyint((double)w[i] / scale) * scale
                                                      : w[i];
    }
}

void ref_avoid_ties(float *w, int n)
{
    for (int begin = 0; begin < n; begin += 64) {
        int end = begin + 64 < n ? begin + 64 : n;
        float top = 0;
        for (int i = begin; i < end; i++)
            top = fmaxf(top, fabsf(w[i]));
        for (int i = begin; i < end && top > 0; i++) {
            double steps = (double)w[i] / (double)(top / 127), nearest = nearbyint(steps);
            if (fabs(steps - nearest) > 0.49)
                w[i] = (float)((nearest + 0.4 * (steps < nearest ? -1 : 1)) * (double)(top / 127));
        }
    }
}

void ref_adamw_step(double *p, double *m, double *v, double grad, const struct ref_adamw *step,
                    bool decay)
{
    double g = grad * step->grad_scale;
    *m = step->beta1 * *m + (1 - step->beta1) * g;
    *v = step->beta2 * *v + (1 - step->beta2) * g * g;
    if (decay)
        *p -= step->lr * step->weight_decay * *p;
    *p -= step->lr * (*m / step->correction1) / (sqrt(*v / step->correction2) + step->eps);
}

/* The frequency of pair i, with Llama 3's scaling of the long wavelengths where the model has it.
 */
static double frequency(const struct archrt_arch *a, int i)
{
    double f = pow(a->rope_theta, -2.0 * i / a->head_dim);
    if (a->rope_factor == 0)
        return f;
    double turns = a->rope_original * f / 6.283185307179586; /* within the original context */
    if (turns > a->rope_high)
        return f;
    if (turns < a->rope_low)
        return f / a->rope_factor;
    double smooth = (turns - a->rope_low) / (a->rope_high - a->rope_low);
    return (1 - smooth) * f / a->rope_factor + smooth * f;
}

void ref_turn(double *turn, const struct archrt_arch *a, int p)
{
    for (int i = 0; i < a->head_dim / 2; i++) {
        turn[2 * i] = cos(p * frequency(a, i));
        turn[2 * i + 1] = sin(p * frequency(a, i));
    }
}

/* ---- the model's tensors -----------------------------------------------------------------------
 */

struct layer {
    const struct archrt_tensor *norm1, *q, *k, *v, *q_bias, *k_bias, *v_bias, *q_norm, *k_norm, *o;
    const struct archrt_tensor *norm2, *gate, *up, *down;
};

struct reference {
    const struct archrt_model *model;
    const float *params;
    enum archrt_dtype rounding;
    uint64_t seed; /* of the direction */
    double step;
    const struct archrt_tensor *embed, *norm, *head;
    struct layer *layers;
    double *turn;  /* [T][E/2][2] of the sequence at hand */
    double *slab;  /* what a pass keeps */
    size_t floats; /* of it */
};

static bool find(const struct archrt_tensor **out, const struct archrt_model *m, int64_t rows,
                 int64_t columns, struct failure *f, const char *format, int layer)
{
    char name[128];
    snprintf(name, sizeof name, format, layer);
    const struct archrt_tensor *t = *out = tensor_find(m, name);
    if (!t)
        return failed(f, STATUS_INPUT, "the program's tensor table has no %s", name);
    bool fits = columns ? t->rank == 2 && t->shape[0] == rows && t->shape[1] == columns
                        : t->rank == 1 && t->shape[0] == rows;
    if (!fits || t->offset + (size_t)tensor_size(t) > m->param_floats)
        return failed(f, STATUS_INPUT, "%s has not the shape that the architecture gives it", name);
    return true;
}

static bool find_layer(struct layer *l, const struct archrt_model *m, int i, struct failure *f)
{
    const struct archrt_arch *a = &m->arch;
    int64_t D = a->d_model, E = a->head_dim, dq = a->heads * E, dkv = a->kv_heads * E, F = a->d_ff;
    const struct {
        const struct archrt_tensor **out;
        int64_t rows, columns;
        const char *format;
        bool wanted;
    } wanted[] = {
        {&l->norm1, D, 0, "model.layers.%d.input_layernorm.weight", true},
        {&l->q, dq, D, "model.layers.%d.self_attn.q_proj.weight", true},
        {&l->k, dkv, D, "model.layers.%d.self_attn.k_proj.weight", true},
        {&l->v, dkv, D, "model.layers.%d.self_attn.v_proj.weight", true},
        {&l->q_bias, dq, 0, "model.layers.%d.self_attn.q_proj.bias", a->qkv_bias},
        {&l->k_bias, dkv, 0, "model.layers.%d.self_attn.k_proj.bias", a->qkv_bias},
        {&l->v_bias, dkv, 0, "model.layers.%d.self_attn.v_proj.bias", a->qkv_bias},
        {&l->q_norm, E, 0, "model.layers.%d.self_attn.q_norm.weight", a->qk_norm},
        {&l->k_norm, E, 0, "model.layers.%d.self_attn.k_norm.weight", a->qk_norm},
        {&l->o, D, dq, "model.layers.%d.self_attn.o_proj.weight", true},
        {&l->norm2, D, 0, "model.layers.%d.post_attention_layernorm.weight", true},
        {&l->gate, F, D, "model.layers.%d.mlp.gate_proj.weight", true},
        {&l->up, F, D, "model.layers.%d.mlp.up_proj.weight", true},
        {&l->down, D, F, "model.layers.%d.mlp.down_proj.weight", true},
    };
    for (size_t j = 0; j < sizeof wanted / sizeof *wanted; j++)
        if (wanted[j].wanted &&
            !find(wanted[j].out, m, wanted[j].rows, wanted[j].columns, f, wanted[j].format, i))
            return false;
    return true;
}

static bool find_all(struct reference *r, struct failure *f)
{
    const struct archrt_model *m = r->model;
    const struct archrt_arch *a = &m->arch;
    if (!find(&r->embed, m, a->vocab, a->d_model, f, "model.embed_tokens.weight", 0) ||
        !find(&r->norm, m, a->d_model, 0, f, "model.norm.weight", 0))
        return false;
    r->head = r->embed;
    if (!a->tied && !find(&r->head, m, a->vocab, a->d_model, f, "lm_head.weight", 0))
        return false;
    for (int i = 0; i < a->layers; i++)
        if (!find_layer(&r->layers[i], m, i, f))
            return false;
    return true;
}

bool reference_open(struct reference **out, const struct archrt_model *m, const float *params,
                    enum archrt_dtype rounding, struct failure *f)
{
    struct reference *r = need(calloc(1, sizeof *r));
    r->model = m;
    r->params = params;
    r->rounding = rounding;
    r->layers = need(calloc((size_t)m->arch.layers + 1, sizeof *r->layers));
    *out = r;
    if (find_all(r, f))
        return true;
    reference_close(r);
    *out = NULL;
    return false;
}

void reference_close(struct reference *r)
{
    if (r) {
        free(r->layers);
        slab_free(r->slab, r->floats * sizeof *r->slab);
    }
    free(r);
}

void reference_move(struct reference *r, uint64_t seed, double step)
{
    r->seed = seed;
    r->step = step;
}

/* Of the size of an ordinary parameter, so that one step moves all tensors alike. */
static double direction(const struct archrt_tensor *t, uint64_t seed, size_t i)
{
    double uniform = (double)(mix64(seed ^ mix64(i)) >> 11) * 0x1p-52 - 1;
    return uniform * (t->gain || !(t->init > 0) ? 0.02 : (double)t->init);
}

double reference_direction(const struct reference *r, uint64_t seed, size_t i)
{
    for (int j = 0; j < r->model->n_tensors; j++) {
        const struct archrt_tensor *t = &r->model->tensors[j];
        if (i >= t->offset && i < t->offset + (size_t)tensor_size(t))
            return direction(t, seed, i);
    }
    return 0;
}

double reference_slope(const struct reference *r, uint64_t seed, const float *grads, double *size)
{
    double sum = 0, squares = 0;
    for (int j = 0; j < r->model->n_tensors; j++) {
        const struct archrt_tensor *t = &r->model->tensors[j];
        for (size_t i = t->offset; i < t->offset + (size_t)tensor_size(t); i++) {
            double term = (double)grads[i] * direction(t, seed, i);
            sum += term;
            squares += term * term;
        }
    }
    *size = sqrt(squares);
    return sum;
}

/* Row `row` of a tensor in double: rounded, then moved along the direction. */
static void fetch(const struct reference *r, const struct archrt_tensor *t, int64_t row,
                  double *out)
{
    int n = (int)(t->rank == 2 ? t->shape[1] : t->shape[0]);
    size_t at = t->offset + (size_t)row * (size_t)n;
    ref_round(out, r->params + at, n, t->rank == 2 ? r->rounding : ARCHRT_F32);
    if (r->step != 0)
        for (int i = 0; i < n; i++)
            out[i] += r->step * direction(t, r->seed, at + (size_t)i);
}

/* ---- products with a tensor, on the team -------------------------------------------------------
 */

/* T rows x (`K` columns, dense) and y (part of rows `stride` long). */
struct product {
    const struct reference *r;
    const struct archrt_tensor *w, *bias;
    int T, stride;
    const double *x, *dy;
    double *y, *dx, *grads;
};

static void multiply_share(void *arg, int tid)
{
    const struct product *p = arg;
    int64_t N = p->w->shape[0], threads = p->r->model->threads;
    int K = (int)p->w->shape[1];
    double row[K];
    for (int64_t n = N * tid / threads; n < N * (tid + 1) / threads; n++) {
        fetch(p->r, p->w, n, row);
        for (int t = 0; t < p->T; t++)
            p->y[(int64_t)t * p->stride + n] = ref_dot(p->x + (int64_t)t * K, row, K);
    }
}

/* y[T][N] = x[T][K] w[N][K]^T + bias; y's rows are `stride` apart. */
static void multiply(const struct reference *r, double *y, int stride, const double *x,
                     const struct archrt_tensor *w, const struct archrt_tensor *bias, int T)
{
    struct product p = {.r = r, .w = w, .T = T, .stride = stride, .x = x, .y = y};
    team_run(multiply_share, &p);
    if (!bias)
        return;
    double row[bias->shape[0]];
    fetch(r, bias, 0, row);
    for (int t = 0; t < T; t++)
        ref_add(y + (int64_t)t * stride, 1, row, (int)bias->shape[0]);
}

static void backward_share(void *arg, int tid)
{
    const struct product *p = arg;
    int64_t N = p->w->shape[0], threads = p->r->model->threads;
    int K = (int)p->w->shape[1];
    double row[K];
    for (int64_t n = N * tid / threads; n < N * (tid + 1) / threads; n++)
        for (int t = 0; t < p->T; t++)
            ref_add(p->grads + p->w->offset + n * K, p->dy[(int64_t)t * p->stride + n],
                    p->x + (int64_t)t * K, K);
    /* Each thread its own rows of dx, from all rows of w. */
    for (int64_t n = 0; n < N; n++) {
        fetch(p->r, p->w, n, row);
        for (int64_t t = p->T * tid / threads; t < p->T * (tid + 1) / threads; t++)
            ref_add(p->dx + t * K, p->dy[t * p->stride + n], row, K);
    }
}

/* dx[T][K] +=, and the gradients of w and bias. */
static void multiply_backward(const struct reference *r, double *dx, double *grads,
                              const double *dy, int stride, const double *x,
                              const struct archrt_tensor *w, const struct archrt_tensor *bias,
                              int T)
{
    struct product p = {.r = r, .w = w, .T = T, .stride = stride, .x = x, .dy = dy, .dx = dx};
    p.grads = grads;
    team_run(backward_share, &p);
    for (int t = 0; bias && t < T; t++)
        ref_add(grads + bias->offset, 1, dy + (int64_t)t * stride, (int)bias->shape[0]);
}

/* ---- the passes --------------------------------------------------------------------------------
 */

/* What a layer's forward pass leaves for its backward pass; each [T][width]. */
struct kept {
    double *x, *norm1, *qkv, *turned, *att, *mid, *norm2, *gate_up, *h;
};

struct pass {
    struct reference *r;
    const struct archrt_arch *a;
    const int32_t *token, *target;
    int T, D, E, dq, dkv, width, F, V;
    struct kept *kept; /* [layers + 1]: the last one holds the final x and norm1 */
    double *logits, *probability;
    double *d[6]; /* gradients: x, norm, qkv, att, gate_up, h */
};

struct carver {
    double *base; /* NULL: only counts */
    size_t used;
};

static double *carve(struct carver *c, int64_t n)
{
    double *p = c->base ? c->base + c->used : NULL;
    c->used += ((size_t)n + 7) / 8 * 8;
    return p;
}

/* Lays the pass out in the slab at `base` (NULL: only counts); returns the doubles it takes. */
static size_t lay_out(struct pass *p, double *base, bool backward)
{
    struct carver at = {base, 0};
    int64_t T = p->T;
    for (int i = 0; i <= p->a->layers; i++) {
        struct kept *k = &p->kept[i];
        /* Without a backward pass two layers take turns. */
        if (!backward && i >= 2 && i < p->a->layers) {
            *k = p->kept[i - 2];
            continue;
        }
        k->x = carve(&at, T * p->D);
        k->norm1 = carve(&at, T * p->D);
        if (i == p->a->layers)
            break;
        k->qkv = carve(&at, T * p->width);
        k->turned = carve(&at, T * p->width);
        k->att = carve(&at, T * p->dq);
        k->mid = carve(&at, T * p->D);
        k->norm2 = carve(&at, T * p->D);
        k->gate_up = carve(&at, T * 2 * p->F);
        k->h = carve(&at, T * p->F);
    }
    p->logits = carve(&at, T * p->V);
    p->probability = carve(&at, T);
    p->r->turn = carve(&at, T * p->E);
    const int widths[6] = {p->D, p->D, p->width, p->dq, 2 * p->F, p->F};
    for (int i = 0; backward && i < 6; i++)
        p->d[i] = carve(&at, T * widths[i]);
    return at.used;
}

static bool begin(struct pass *p, struct reference *r, const int32_t *token, const int32_t *target,
                  int T, bool backward, struct failure *f)
{
    const struct archrt_arch *a = &r->model->arch;
    *p = (struct pass){.r = r, .a = a, .token = token, .target = target, .T = T};
    p->D = a->d_model, p->E = a->head_dim, p->F = a->d_ff, p->V = a->vocab;
    p->dq = a->heads * p->E, p->dkv = a->kv_heads * p->E, p->width = p->dq + 2 * p->dkv;
    p->kept = need(calloc((size_t)a->layers + 1, sizeof *p->kept));
    size_t floats = lay_out(p, NULL, backward);
    if (r->floats < floats) {
        void *slab;
        slab_free(r->slab, r->floats * sizeof *r->slab);
        r->slab = NULL, r->floats = 0;
        if (!slab_alloc(&slab, floats * sizeof(double), "the reference's activations", f)) {
            free(p->kept);
            return false;
        }
        r->slab = slab, r->floats = floats;
    }
    lay_out(p, r->slab, backward);
    for (int t = 0; t < T; t++)
        ref_turn(r->turn + (int64_t)t * p->E, a, t);
    return true;
}

static void norm_rows(struct pass *p, double *y, const double *x, const struct archrt_tensor *gain)
{
    double g[p->D];
    fetch(p->r, gain, 0, g);
    for (int64_t t = 0; t < p->T; t++)
        ref_norm(y + t * p->D, x + t * p->D, g, (double)p->a->norm_eps, p->D);
}

/* Head norm and rotation of the q and k heads of k->qkv into k->turned. */
static void turn_heads(struct pass *p, const struct layer *l, struct kept *k)
{
    double gain[2][p->E];
    if (p->a->qk_norm) {
        fetch(p->r, l->q_norm, 0, gain[0]);
        fetch(p->r, l->k_norm, 0, gain[1]);
    }
    memcpy(k->turned, k->qkv, (size_t)p->T * (size_t)p->width * sizeof(double));
    for (int64_t t = 0; t < p->T; t++)
        for (int h = 0; h < p->a->heads + p->a->kv_heads; h++) {
            double *x = k->turned + t * p->width + (int64_t)h * p->E;
            if (p->a->qk_norm)
                ref_norm(x, x, gain[h >= p->a->heads], (double)p->a->norm_eps, p->E);
            ref_rotate(x, p->r->turn + t * p->E, p->E, false);
        }
}

static void turn_heads_backward(struct pass *p, const struct layer *l, const struct kept *k,
                                double *dqkv, double *grads)
{
    double gain[2][p->E], dhead[p->E];
    if (p->a->qk_norm) {
        fetch(p->r, l->q_norm, 0, gain[0]);
        fetch(p->r, l->k_norm, 0, gain[1]);
    }
    for (int64_t t = 0; t < p->T; t++)
        for (int h = 0; h < p->a->heads + p->a->kv_heads; h++) {
            int64_t at = t * p->width + (int64_t)h * p->E;
            ref_rotate(dqkv + at, p->r->turn + t * p->E, p->E, true);
            if (!p->a->qk_norm)
                continue;
            bool is_k = h >= p->a->heads;
            memcpy(dhead, dqkv + at, sizeof dhead);
            memset(dqkv + at, 0, sizeof dhead);
            ref_norm_backward(dqkv + at, grads + (is_k ? l->k_norm : l->q_norm)->offset, dhead,
                              k->qkv + at, gain[is_k], (double)p->a->norm_eps, p->E);
        }
}

/* Head h's place in a row of qkv, and its key's and value's. */
static void places(const struct pass *p, int h, int *q, int *k, int *v)
{
    int kv = h / (p->a->heads / p->a->kv_heads);
    *q = h * p->E;
    *k = p->dq + kv * p->E;
    *v = *k + p->dkv;
}

static void attention(struct pass *p, struct kept *kept)
{
    for (int h = 0; h < p->a->heads; h++) {
        int q, k, v;
        places(p, h, &q, &k, &v);
        for (int64_t t = 0; t < p->T; t++)
            ref_attend(kept->att + t * p->dq + q, p->probability, kept->turned + t * p->width + q,
                       kept->turned + k, kept->turned + v, p->width, (int)t + 1, p->E);
    }
}

static void attention_backward(struct pass *p, const struct kept *kept, double *dqkv,
                               const double *datt)
{
    for (int h = 0; h < p->a->heads; h++) {
        int q, k, v;
        places(p, h, &q, &k, &v);
        for (int64_t t = 0; t < p->T; t++)
            ref_attend_backward(dqkv + t * p->width + q, dqkv + k, dqkv + v, p->probability,
                                datt + t * p->dq + q, kept->turned + t * p->width + q,
                                kept->turned + k, kept->turned + v, p->width, (int)t + 1, p->E);
    }
}

static void forward_layer(struct pass *p, const struct layer *l, struct kept *k, double *out)
{
    int64_t T = p->T, D = p->D, F = p->F;
    norm_rows(p, k->norm1, k->x, l->norm1);
    multiply(p->r, k->qkv, p->width, k->norm1, l->q, l->q_bias, p->T);
    multiply(p->r, k->qkv + p->dq, p->width, k->norm1, l->k, l->k_bias, p->T);
    multiply(p->r, k->qkv + p->dq + p->dkv, p->width, k->norm1, l->v, l->v_bias, p->T);
    turn_heads(p, l, k);
    attention(p, k);
    multiply(p->r, k->mid, p->D, k->att, l->o, NULL, p->T);
    ref_add(k->mid, 1, k->x, (int)(T * D));
    norm_rows(p, k->norm2, k->mid, l->norm2);
    multiply(p->r, k->gate_up, 2 * p->F, k->norm2, l->gate, NULL, p->T);
    multiply(p->r, k->gate_up + F, 2 * p->F, k->norm2, l->up, NULL, p->T);
    for (int64_t t = 0; t < T; t++)
        for (int64_t i = 0; i < F; i++)
            k->h[t * F + i] = ref_silu(k->gate_up[t * 2 * F + i]) * k->gate_up[t * 2 * F + F + i];
    multiply(p->r, out, p->D, k->h, l->down, NULL, p->T);
    ref_add(out, 1, k->mid, (int)(T * D));
}

static void forward(struct pass *p, double *loss)
{
    struct reference *r = p->r;
    int64_t D = p->D, L = p->a->layers;
    for (int64_t t = 0; t < p->T; t++)
        fetch(r, r->embed, p->token[t], p->kept[0].x + t * D);
    for (int64_t i = 0; i < L; i++)
        forward_layer(p, &r->layers[i], &p->kept[i], p->kept[i + 1].x);
    norm_rows(p, p->kept[L].norm1, p->kept[L].x, r->norm);
    multiply(r, p->logits, p->V, p->kept[L].norm1, r->head, NULL, p->T);
    for (int64_t t = 0; t < p->T; t++)
        loss[t] = !p->target || p->target[t] < 0
                      ? 0
                      : ref_loss(p->logits + t * p->V, p->V, p->target[t], NULL, 0);
}

static void clear(struct pass *p, int i, int width)
{
    memset(p->d[i], 0, (size_t)p->T * (size_t)width * sizeof(double));
}

/* dx += for dy through the norm of rows x. */
static void norm_rows_backward(struct pass *p, double *dx, double *grads, const double *dy,
                               const double *x, const struct archrt_tensor *gain)
{
    double g[p->D];
    fetch(p->r, gain, 0, g);
    for (int64_t t = 0; t < p->T; t++)
        ref_norm_backward(dx + t * p->D, grads + gain->offset, dy + t * p->D, x + t * p->D, g,
                          (double)p->a->norm_eps, p->D);
}

/* d[0] holds the gradient of the layer's output and receives that of its input. */
static void backward_layer(struct pass *p, const struct layer *l, const struct kept *k,
                           double *grads)
{
    int64_t T = p->T, F = p->F;
    double *dx = p->d[0], *dnorm = p->d[1], *dqkv = p->d[2], *datt = p->d[3];
    double *dgu = p->d[4], *dh = p->d[5];
    clear(p, 5, p->F);
    multiply_backward(p->r, dh, grads, dx, p->D, k->h, l->down, NULL, p->T);
    for (int64_t t = 0; t < T; t++)
        for (int64_t i = 0; i < F; i++) {
            double gate = k->gate_up[t * 2 * F + i], up = k->gate_up[t * 2 * F + F + i];
            dgu[t * 2 * F + i] = dh[t * F + i] * up * ref_silu_slope(gate);
            dgu[t * 2 * F + F + i] = dh[t * F + i] * ref_silu(gate);
        }
    clear(p, 1, p->D);
    multiply_backward(p->r, dnorm, grads, dgu, 2 * p->F, k->norm2, l->gate, NULL, p->T);
    multiply_backward(p->r, dnorm, grads, dgu + F, 2 * p->F, k->norm2, l->up, NULL, p->T);
    norm_rows_backward(p, dx, grads, dnorm, k->mid, l->norm2);

    clear(p, 3, p->dq);
    multiply_backward(p->r, datt, grads, dx, p->D, k->att, l->o, NULL, p->T);
    clear(p, 2, p->width);
    attention_backward(p, k, dqkv, datt);
    turn_heads_backward(p, l, k, dqkv, grads);
    clear(p, 1, p->D);
    multiply_backward(p->r, dnorm, grads, dqkv, p->width, k->norm1, l->q, l->q_bias, p->T);
    multiply_backward(p->r, dnorm, grads, dqkv + p->dq, p->width, k->norm1, l->k, l->k_bias, p->T);
    multiply_backward(p->r, dnorm, grads, dqkv + p->dq + p->dkv, p->width, k->norm1, l->v,
                      l->v_bias, p->T);
    norm_rows_backward(p, dx, grads, dnorm, k->x, l->norm1);
}

static void backward(struct pass *p, double scale, double *grads)
{
    struct reference *r = p->r;
    int64_t D = p->D, L = p->a->layers;
    for (int64_t t = 0; t < p->T; t++) {
        double *d = p->logits + t * p->V;
        if (!p->target || p->target[t] < 0)
            memset(d, 0, (size_t)p->V * sizeof *d);
        else
            ref_loss(d, p->V, p->target[t], d, scale);
    }
    clear(p, 0, p->D);
    clear(p, 1, p->D);
    multiply_backward(r, p->d[1], grads, p->logits, p->V, p->kept[L].norm1, r->head, NULL, p->T);
    norm_rows_backward(p, p->d[0], grads, p->d[1], p->kept[L].x, r->norm);
    for (int64_t i = L - 1; i >= 0; i--)
        backward_layer(p, &r->layers[i], &p->kept[i], grads);
    for (int64_t t = 0; t < p->T; t++)
        ref_add(grads + r->embed->offset + p->token[t] * D, 1, p->d[0] + t * D, p->D);
}

bool reference_forward(struct reference *r, const int32_t *token, const int32_t *target, int T,
                       double *loss, double *logits, struct failure *f)
{
    struct pass p;
    if (!begin(&p, r, token, target, T, false, f))
        return false;
    forward(&p, loss);
    if (logits)
        memcpy(logits, p.logits, (size_t)T * (size_t)p.V * sizeof *logits);
    free(p.kept);
    return true;
}

bool reference_backward(struct reference *r, const int32_t *token, const int32_t *target, int T,
                        double scale, double *loss, double *grads, struct failure *f)
{
    struct pass p;
    if (!begin(&p, r, token, target, T, true, f))
        return false;
    forward(&p, loss);
    backward(&p, scale, grads);
    free(p.kept);
    return true;
}

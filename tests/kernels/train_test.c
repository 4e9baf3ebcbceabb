/* train_test.c - every training kernel against ref.h: constants and run-time shapes, ordinary and
 * odd sizes, 1, 2, 3 and 7 threads; outputs are NaN beforehand, buffers have guard zones. */
#include "check.h"
#include "ref.h"
#include "team_test.h"
#include "train_kernels.h"

extern const struct train_kernels generic, set1, set2, set3;
struct train_shape train_shape;

/* What a kernel may be off by, in units of |value| + rms of all values. */
static const double close_product = 4e-6, close_rows = 4e-6, close_attention = 6e-6,
                    close_attention_backward = 3e-5, close_swiglu = 3e-6, close_loss = 4e-6,
                    close_adamw = 3e-6, close_sum = 2e-7;

/* One call on all threads. */
struct call {
    const struct train_kernels *kernels;
    void (*work)(const struct call *c, int tid);
    float *out[3];
    const float *in[6];
    float *scratch;
    const int32_t *token;
    int variant, m;
    const struct archrt_adamw *step;
    double *sums, *scratch_sums;
    float scale;
};

static void call_work(void *arg, int tid)
{
    const struct call *c = arg;
    c->work(c, tid);
}

static void run(struct call *c, void (*work)(const struct call *c, int tid))
{
    c->work = work;
    test_team_run(call_work, c);
}

static struct train_shape shape_of(const struct train_kernels *k)
{
    return k->shape.threads ? k->shape : train_shape;
}

static float *copy_of(const float *p, size_t n)
{
    float *q = guarded(n);
    memcpy(q, p, n * sizeof *q);
    return q;
}

/* --- products --- */

static void work_matmul(const struct call *c, int tid)
{
    c->kernels->matmul[c->variant](c->out[0], c->in[0], c->in[1], c->in[2], c->in[3], c->scratch,
                                   c->m, tid);
}

static void work_dx(const struct call *c, int tid)
{
    c->kernels->dx[c->variant](c->out[0], c->in[0], c->in[1], c->scratch, c->m, tid);
}

static void work_dw(const struct call *c, int tid)
{
    c->kernels->dw[c->variant](c->out[0], c->out[1], c->in[0], c->in[1], c->scratch, c->m, tid);
}

static void test_matmul(const struct train_kernels *k, int variant, int m)
{
    struct train_shape s = shape_of(k);
    size_t nx = (size_t)m * s.in, nw = (size_t)s.out * s.in, ny = (size_t)m * s.out;
    size_t ns = k->matmul_scratch();
    float *x = random_floats(nx), *w = random_floats(nw), *bias = random_floats(s.out);
    float *residual = random_floats(ny), *y = guarded(ny), *scratch = guarded(ns);
    double *rx = doubles(x, nx), *rw = doubles(w, nw), *ry = doubles(NULL, ny);
    ref_matmul(ry, rx, rw, m, s.out, s.in);
    for (size_t i = 0; i < ny; i++)
        ry[i] +=
            (variant & 1 ? (double)bias[i % s.out] : 0) + (variant & 2 ? (double)residual[i] : 0);
    struct call c = {.kernels = k,
                     .out = {y},
                     .in = {x, w, bias, residual},
                     .scratch = scratch,
                     .variant = variant,
                     .m = m};
    run(&c, work_matmul);
    check_close("matmul", y, ry, ny, close_product);
    if (variant & 2) { /* y may be residual */
        c.out[0] = residual;
        run(&c, work_matmul);
        check_close("matmul in place", residual, ry, ny, close_product);
    }
    free(rx);
    free(rw);
    free(ry);
    guarded_free("matmul x", x, nx);
    guarded_free("matmul w", w, nw);
    guarded_free("matmul bias", bias, s.out);
    guarded_free("matmul residual", residual, ny);
    guarded_free("matmul y", y, ny);
    guarded_free("matmul scratch", scratch, ns);
}

static void test_matmul_backward(const struct train_kernels *k, int variant, int m)
{
    struct train_shape s = shape_of(k);
    size_t nx = (size_t)m * s.in, nw = (size_t)s.out * s.in, ny = (size_t)m * s.out;
    size_t ns = k->matmul_scratch();
    float *x = random_floats(nx), *w = random_floats(nw), *dy = random_floats(ny);
    float *dx = variant ? random_floats(nx) : guarded(nx), *dw = random_floats(nw);
    float *db = random_floats(s.out), *scratch = guarded(ns);
    double *rx = doubles(x, nx), *rw = doubles(w, nw), *rdy = doubles(dy, ny);
    double *rdx = doubles(variant ? dx : NULL, nx), *rdw = doubles(dw, nw);
    double *rdb = doubles(db, s.out), *nothing = doubles(NULL, s.out);
    float *db_before = copy_of(db, s.out);
    ref_matmul_backward(rdx, rdw, variant ? rdb : nothing, rdy, rx, rw, m, s.out, s.in);
    struct call c = {
        .kernels = k, .out = {dx}, .in = {dy, w}, .scratch = scratch, .variant = variant, .m = m};
    run(&c, work_dx);
    check_close("dx", dx, rdx, nx, close_product);
    c = (struct call){.kernels = k,
                      .out = {dw, variant ? db : NULL},
                      .in = {dy, x},
                      .scratch = scratch,
                      .variant = variant,
                      .m = m};
    run(&c, work_dw);
    check_close("dw", dw, rdw, nw, close_product);
    if (variant)
        check_close("dbias", db, rdb, s.out, close_product);
    else
        check_same("no dbias", db, db_before, s.out);
    free(rx);
    free(rw);
    free(rdy);
    free(rdx);
    free(rdw);
    free(rdb);
    free(nothing);
    guarded_free("dw x", x, nx);
    guarded_free("dx w", w, nw);
    guarded_free("dy", dy, ny);
    guarded_free("dx", dx, nx);
    guarded_free("dw", dw, nw);
    guarded_free("dbias", db, s.out);
    guarded_free("dbias before", db_before, s.out);
    guarded_free("backward scratch", scratch, ns);
}

/* --- embedding and norm --- */

static void work_embed(const struct call *c, int tid)
{
    c->kernels->embed(c->out[0], c->in[0], c->token, tid);
}

static void work_embed_backward(const struct call *c, int tid)
{
    c->kernels->embed_backward(c->out[0], c->in[0], c->token, tid);
}

static void test_embed(const struct train_kernels *k)
{
    struct train_shape s = shape_of(k);
    int m = s.b * s.t;
    size_t nt = (size_t)s.v * s.d, nx = (size_t)m * s.d;
    float *table = random_floats(nt), *x = guarded(nx), *dtable = random_floats(nt);
    float *dx = random_floats(nx);
    int32_t *token = malloc(sizeof *token * (m + 1));
    double *rx = doubles(NULL, nx), *rdt = doubles(dtable, nt);
    for (int i = 0; i < m; i++) { /* few different ones, so that rows add up; and the last one */
        token[i] = i == 0 ? s.v - 1 : (int32_t)(fabsf(check_random()) * 4) % s.v;
        for (int j = 0; j < s.d; j++) {
            rx[(size_t)i * s.d + j] = (double)table[(size_t)token[i] * s.d + j];
            rdt[(size_t)token[i] * s.d + j] += (double)dx[(size_t)i * s.d + j];
        }
    }
    struct call c = {.kernels = k, .out = {x}, .in = {table}, .token = token};
    run(&c, work_embed);
    check_close("embed", x, rx, nx, 0);
    c.out[0] = dtable;
    c.in[0] = dx;
    run(&c, work_embed_backward);
    check_close("embed_backward", dtable, rdt, nt, 5 * close_rows);
    free(token);
    free(rx);
    free(rdt);
    guarded_free("embed table", table, nt);
    guarded_free("embed x", x, nx);
    guarded_free("embed dtable", dtable, nt);
    guarded_free("embed dx", dx, nx);
}

static void work_norm(const struct call *c, int tid)
{
    c->kernels->norm(c->out[0], c->out[1], c->in[0], c->in[1], c->m, tid);
}

static void work_norm_backward(const struct call *c, int tid)
{
    c->kernels->norm_backward[c->variant](c->out[0], c->out[1], c->in[0], c->in[1], c->in[2],
                                          c->in[3], c->scratch, tid);
}

static void test_norm(const struct train_kernels *k, int variant)
{
    struct train_shape s = shape_of(k);
    int m = s.b * s.t;
    size_t n = (size_t)m * s.d, ns = (size_t)s.threads * s.d;
    float *x = random_floats(n), *gain = random_floats(s.d), *y = guarded(n), *rstd = guarded(m);
    float *dy = random_floats(n), *dx = variant ? random_floats(n) : guarded(n);
    float *dgain = random_floats(s.d), *scratch = guarded(ns);
    double *rx = doubles(x, n), *rg = doubles(gain, s.d), *ry = doubles(NULL, n);
    double *rdy = doubles(dy, n), *rdx = doubles(variant ? dx : NULL, n),
           *rdg = doubles(dgain, s.d);
    double *rr = doubles(NULL, m);
    ref_norm(ry, rx, rg, m, s.d, TEST_EPS);
    ref_norm_backward(rdx, rdg, rdy, rx, rg, m, s.d, TEST_EPS);
    for (int i = 0; i < m; i++)
        rr[i] = ref_rstd(rx + (size_t)i * s.d, s.d, TEST_EPS);
    struct call c = {.kernels = k, .out = {y, rstd}, .in = {x, gain}, .m = m};
    run(&c, work_norm);
    check_close("norm", y, ry, n, close_rows);
    check_close("norm rstd", rstd, rr, m, close_rows);
    c = (struct call){.kernels = k,
                      .out = {dx, dgain},
                      .in = {dy, x, rstd, gain},
                      .scratch = scratch,
                      .variant = variant};
    run(&c, work_norm_backward);
    check_close("norm_backward dx", dx, rdx, n, close_rows);
    check_close("norm_backward dgain", dgain, rdg, s.d, close_rows);
    /* one row, no rstd */
    float *one = guarded(s.d);
    c = (struct call){.kernels = k, .out = {one, NULL}, .in = {x, gain}, .m = 1};
    run(&c, work_norm);
    check_same("norm of one row", one, y, s.d);
    guarded_free("norm one", one, s.d);
    free(rx);
    free(rg);
    free(ry);
    free(rdy);
    free(rdx);
    free(rdg);
    free(rr);
    guarded_free("norm x", x, n);
    guarded_free("norm gain", gain, s.d);
    guarded_free("norm y", y, n);
    guarded_free("norm rstd", rstd, m);
    guarded_free("norm dy", dy, n);
    guarded_free("norm dx", dx, n);
    guarded_free("norm dgain", dgain, s.d);
    guarded_free("norm scratch", scratch, ns);
}

/* --- rotation --- */

static void work_rope(const struct call *c, int tid)
{
    c->kernels->rope[c->variant](c->out[0], c->out[1], c->in[0], c->in[1], c->in[2], tid);
}

static void work_rope_backward(const struct call *c, int tid)
{
    c->kernels->rope_backward[c->variant](c->out[0], c->out[1], c->in[0], c->in[1], c->in[2],
                                          c->in[3], c->scratch, tid);
}

static float *rope_table(int t, int e)
{
    float *p = guarded((size_t)t * e);
    for (int i = 0; i < t; i++)
        for (int j = 0; j < e / 2; j++) {
            double angle = i * pow(10000, -2.0 * j / e);
            p[(size_t)i * e + 2 * j] = (float)cos(angle);
            p[(size_t)i * e + 2 * j + 1] = (float)sin(angle);
        }
    return p;
}

static void test_rope(const struct train_kernels *k, int variant)
{
    struct train_shape s = shape_of(k);
    int m = s.b * s.t, turned = s.h + s.k;
    size_t n = (size_t)m * (s.h + 2 * s.k) * s.e, ng = 2 * (size_t)s.e, nr = (size_t)m * turned;
    size_t ns = variant ? s.threads * ng : 0;
    float *in = random_floats(n), *gain = random_floats(ng), *out = guarded(n), *rstd = guarded(nr);
    float *rope = rope_table(s.t, s.e), *d = random_floats(n), *dgain = random_floats(ng);
    float *scratch = guarded(ns);
    double *ri = doubles(in, n), *rg = doubles(gain, ng), *ro = doubles(NULL, n);
    double *rr = doubles(rope, (size_t)s.t * s.e), *rd = doubles(d, n), *rdg = doubles(dgain, ng);
    ref_rope(ro, ri, variant ? rg : NULL, rr, m, s.t, s.h, s.k, s.e, TEST_EPS);
    ref_rope_backward(rd, rdg, ri, variant ? rg : NULL, rr, m, s.t, s.h, s.k, s.e, TEST_EPS);
    struct call c = {.kernels = k,
                     .out = {out, variant ? rstd : NULL},
                     .in = {in, variant ? gain : NULL, rope},
                     .variant = variant};
    run(&c, work_rope);
    check_close("rope", out, ro, n, close_rows);
    c = (struct call){
        .kernels = k,
        .out = {d, variant ? dgain : NULL},
        .in = {variant ? in : NULL, variant ? rstd : NULL, variant ? gain : NULL, rope},
        .scratch = scratch,
        .variant = variant};
    run(&c, work_rope_backward);
    check_close("rope_backward", d, rd, n, close_rows);
    check_close("rope_backward dgain", dgain, rdg, ng, close_rows);
    c = (struct call){.kernels = k,
                      .out = {in, variant ? rstd : NULL},
                      .in = {in, variant ? gain : NULL, rope},
                      .variant = variant};
    run(&c, work_rope);
    check_same("rope in place", in, out, n);
    free(ri);
    free(rg);
    free(ro);
    free(rr);
    free(rd);
    free(rdg);
    guarded_free("rope in", in, n);
    guarded_free("rope gain", gain, ng);
    guarded_free("rope out", out, n);
    guarded_free("rope rstd", rstd, nr);
    guarded_free("rope table", rope, (size_t)s.t * s.e);
    guarded_free("rope d", d, n);
    guarded_free("rope dgain", dgain, ng);
    guarded_free("rope scratch", scratch, ns);
}

/* --- attention --- */

static void work_attention(const struct call *c, int tid)
{
    c->kernels->attention(c->out[0], c->out[1], c->in[0], c->scratch, tid);
}

static void work_attention_backward(const struct call *c, int tid)
{
    c->kernels->attention_backward(c->out[0], c->in[0], c->in[1], c->in[2], c->in[3], c->scratch,
                                   tid);
}

/* `spread` scales the scores: far apart ones are where a softmax goes wrong. */
static void test_attention(const struct train_kernels *k, float spread)
{
    struct train_shape s = shape_of(k);
    size_t m = (size_t)s.b * s.t, n = m * (s.h + 2 * s.k) * s.e, na = m * s.h * s.e, nl = m * s.h;
    size_t ns = k->attention_scratch();
    float *qkv = random_floats(n), *att = guarded(na), *lse = guarded(nl),
          *datt = random_floats(na);
    float *dqkv = guarded(n), *scratch = guarded(ns);
    for (size_t i = 0; i < n; i++)
        qkv[i] *= spread;
    double *rq = doubles(qkv, n), *ra = doubles(NULL, na), *rl = doubles(NULL, nl);
    double *rda = doubles(datt, na), *rdq = doubles(NULL, n);
    ref_attention(ra, rl, rq, s.b, s.t, s.h, s.k, s.e);
    ref_attention_backward(rdq, rda, rq, s.b, s.t, s.h, s.k, s.e);
    struct call c = {.kernels = k, .out = {att, lse}, .in = {qkv}, .scratch = scratch};
    run(&c, work_attention);
    check_close("attention", att, ra, na, close_attention * spread);
    check_close("attention lse", lse, rl, nl, close_attention);
    for (size_t i = 0; i < ns; i++)
        scratch[i] = NAN;
    c = (struct call){.kernels = k, .out = {dqkv}, .in = {datt, att, lse, qkv}, .scratch = scratch};
    run(&c, work_attention_backward);
    check_close("attention_backward", dqkv, rdq, n, close_attention_backward * spread);
    free(rq);
    free(ra);
    free(rl);
    free(rda);
    free(rdq);
    guarded_free("attention qkv", qkv, n);
    guarded_free("attention att", att, na);
    guarded_free("attention lse", lse, nl);
    guarded_free("attention datt", datt, na);
    guarded_free("attention dqkv", dqkv, n);
    guarded_free("attention scratch", scratch, ns);
}

/* --- swiglu, loss --- */

static void work_swiglu(const struct call *c, int tid)
{
    c->kernels->swiglu(c->out[0], c->in[0], c->m, tid);
}

static void work_swiglu_backward(const struct call *c, int tid)
{
    c->kernels->swiglu_backward(c->out[0], c->out[1], c->in[0], c->in[1], tid);
}

static void test_swiglu(const struct train_kernels *k)
{
    struct train_shape s = shape_of(k);
    int m = s.b * s.t;
    size_t nh = (size_t)m * s.f, n = 2 * nh;
    float *gu = random_floats(n), *h = guarded(nh), *dh = random_floats(nh), *dgu = guarded(n);
    for (size_t i = 0; i < n; i++) /* some far out */
        gu[i] *= i % 7 == 0 ? 120 : 4;
    double *rgu = doubles(gu, n), *rh = doubles(NULL, nh), *rdh = doubles(dh, nh);
    double *rdgu = doubles(NULL, n);
    ref_swiglu(rh, rgu, m, s.f);
    ref_swiglu_backward(rdgu, rdh, rgu, m, s.f);
    struct call c = {.kernels = k, .out = {h}, .in = {gu}, .m = m};
    run(&c, work_swiglu);
    check_close("swiglu", h, rh, nh, close_swiglu);
    c = (struct call){.kernels = k, .out = {dgu, NULL}, .in = {dh, gu}};
    run(&c, work_swiglu_backward);
    check_close("swiglu_backward", dgu, rdgu, n, close_swiglu);
    c = (struct call){.kernels = k, .out = {gu, dh}, .in = {dh, gu}}; /* all in place */
    run(&c, work_swiglu_backward);
    check_same("swiglu_backward in place", gu, dgu, n);
    check_close("swiglu_backward h", dh, rh, nh, close_swiglu);
    free(rgu);
    free(rh);
    free(rdh);
    free(rdgu);
    guarded_free("swiglu gate_up", gu, n);
    guarded_free("swiglu h", h, nh);
    guarded_free("swiglu dh", dh, nh);
    guarded_free("swiglu dgate_up", dgu, n);
}

static void work_loss(const struct call *c, int tid)
{
    c->kernels->loss(c->out[0], c->out[1], c->token, c->scale, c->m, tid);
}

static void test_loss(const struct train_kernels *k, float spread)
{
    struct train_shape s = shape_of(k);
    int m = s.b * s.t;
    size_t n = (size_t)m * s.v;
    float *logits = random_floats(n), *loss = guarded(m);
    int32_t *target = malloc(sizeof *target * (m + 1));
    for (size_t i = 0; i < n; i++)
        logits[i] *= spread;
    for (int i = 0; i < m; i++)
        target[i] = i % 5 == 3 ? -1 : i == 0 ? s.v - 1 : (int32_t)((unsigned)i * 7919u % s.v);
    double *rx = doubles(logits, n), *rl = doubles(NULL, m), *rd = doubles(NULL, n);
    float *before = copy_of(logits, n);
    ref_loss(rl, rd, rx, target, 0.125, m, s.v);
    struct call c = {.kernels = k, .out = {loss, logits}, .token = target, .m = m, .scale = 0};
    run(&c, work_loss);
    check_close("loss", loss, rl, m, close_loss);
    check_same("logits stay", logits, before, n);
    for (int i = 0; i < m; i++)
        loss[i] = NAN;
    c.scale = 0.125f;
    run(&c, work_loss);
    check_close("loss", loss, rl, m, close_loss);
    check_close("loss gradient", logits, rd, n, close_loss * (spread > 10 ? 10 : 1));
    free(target);
    free(rx);
    free(rl);
    free(rd);
    guarded_free("loss before", before, n);
    guarded_free("loss logits", logits, n);
    guarded_free("loss", loss, m);
}

/* --- optimiser --- */

static void work_sum_squares(const struct call *c, int tid)
{
    for (int i = 0; i < 3; i++) /* scratch is free again on return */
        c->sums[tid] = c->kernels->sum_squares(c->in[0], c->scratch_sums, tid);
}

static void work_adamw(const struct call *c, int tid)
{
    c->kernels->adamw(c->step, tid);
}

static void test_sum_squares(const struct train_kernels *k)
{
    struct train_shape s = shape_of(k);
    float *x = random_floats(s.n);
    double want = 0, *sums = doubles(NULL, s.threads), *scratch = doubles(NULL, s.threads);
    for (int i = 0; i < s.n; i++)
        want += (double)x[i] * (double)x[i];
    struct call c = {.kernels = k, .in = {x}, .sums = sums, .scratch_sums = scratch};
    run(&c, work_sum_squares);
    for (int t = 0; t < s.threads; t++)
        if (!(fabs(sums[t] - want) <= close_sum * want) || sums[t] != sums[0])
            check_failed("sum_squares", "thread %d has %.17g, not %.17g", t, sums[t], want);
    check_passes++;
    free(sums);
    free(scratch);
    guarded_free("sum x", x, s.n);
}

static void test_adamw(const struct train_kernels *k)
{
    struct train_shape s = shape_of(k);
    float *p = random_floats(s.n), *g = random_floats(s.n), *m = random_floats(s.n);
    float *v = random_floats(s.n);
    const struct archrt_adamw step = {p,     g,     m,    v,    1e-2f,  0.9f,
                                      0.95f, 1e-8f, 0.1f, 0.5f, 0.271f, 0.142625f};
    for (int i = 0; i < s.n; i++)
        v[i] = i % 11 == 0 ? 0 : v[i] * v[i] * (i % 13 == 0 ? 1e-12f : 1);
    if (s.n > 22) /* the first step of an unused parameter */
        g[22] = m[22] = 0;
    double *rp = doubles(p, s.n), *rm = doubles(m, s.n), *rv = doubles(v, s.n);
    for (int i = 0; i < s.n; i++) {
        double grad = (double)g[i] * 0.5;
        rm[i] = (double)step.beta1 * rm[i] + (1 - (double)step.beta1) * grad;
        rv[i] = (double)step.beta2 * rv[i] + (1 - (double)step.beta2) * grad * grad;
        double update = rm[i] / (double)step.correction1 /
                        (sqrt(rv[i] / (double)step.correction2) + (double)step.eps);
        rp[i] -=
            (double)step.lr * (update + (i < s.decayed ? (double)step.weight_decay * rp[i] : 0));
    }
    struct call c = {.kernels = k, .step = &step};
    run(&c, work_adamw);
    check_close("adamw m", m, rm, s.n, close_adamw);
    check_close("adamw v", v, rv, s.n, close_adamw);
    check_close("adamw params", p, rp, s.n, close_adamw);
    double *zero = doubles(NULL, s.n);
    check_close("adamw grads", g, zero, s.n, 0);
    free(zero);
    free(rp);
    free(rm);
    free(rv);
    guarded_free("adamw p", p, s.n);
    guarded_free("adamw g", g, s.n);
    guarded_free("adamw m", m, s.n);
    guarded_free("adamw v", v, s.n);
}

/* --- all of it --- */

static void test_products(const struct train_kernels *k)
{
    struct train_shape s = shape_of(k);
    int m = s.b * s.t;
    for (int variant = 0; variant < 4; variant++)
        test_matmul(k, variant, m);
    test_matmul(k, 3, 1);
    for (int variant = 0; variant < 2; variant++)
        test_matmul_backward(k, variant, m);
}

static void test_rows(const struct train_kernels *k)
{
    test_embed(k);
    test_norm(k, 0);
    test_norm(k, 1);
    test_rope(k, 0);
    test_rope(k, 1);
    test_swiglu(k);
    test_loss(k, 1);
    test_loss(k, 60);
    test_sum_squares(k);
    test_adamw(k);
}

static void test_all(const struct train_kernels *k)
{
    struct train_shape s = shape_of(k);
    check_in("%s, %d threads: B %d T %d H %d K %d E %d d %d f %d v %d, %d x %d", k->name, s.threads,
             s.b, s.t, s.h, s.k, s.e, s.d, s.f, s.v, s.out, s.in);
    test_team_start(s.threads);
    test_products(k);
    test_rows(k);
    test_attention(k, 1);
    test_attention(k, 4);
    test_team_stop();
}

int main(void)
{
    static const struct train_shape shapes[] = {
        /* b t h k e d f v out in n decayed threads granule */
        {1, 1, 1, 1, 8, 8, 1, 2, 1, 1, 1, 0, 1, 1},
        {1, 1, 16, 1, 64, 31, 17, 33, 15, 9, 31, 7, 2, 1},
        {2, 37, 9, 3, 40, 100, 65, 257, 66, 50, 1025, 1024, 2, 37},
        {2, 13, 7, 7, 48, 63, 31, 100, 33, 449, 4097, 13, 3, 1},
        {1, 131, 5, 1, 128, 65, 130, 63, 130, 33, 9000, 9000, 3, 1},
        {3, 70, 4, 2, 256, 48, 16, 40, 32, 64, 640, 320, 3, 70},
        {1, 270, 3, 1, 72, 16, 8, 16, 48, 1000, 64, 64, 2, 1},
        {14, 5, 8, 1, 16, 161, 96, 511, 700, 100, 2048, 0, 7, 5},
        {1, 260, 2, 1, 80, 129, 77, 99, 450, 260, 70000, 1234, 7, 1},
        {5, 30, 16, 16, 40, 20, 33, 5, 3, 1024, 100, 50, 1, 30},
        {1, 3, 3, 3, 24, 7, 3, 9, 14, 2048, 5, 2, 7, 1},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        train_shape = shapes[i];
        test_all(&generic);
    }
#if !defined(GENERIC_ONLY)
    test_all(&set1);
    test_all(&set2);
    test_all(&set3);
#endif
    return check_report("train kernels");
}

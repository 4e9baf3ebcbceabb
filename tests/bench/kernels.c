/* kernels.c - the matrix products of training against OpenBLAS and BLIS, at the shapes of the 9M
 * model (d 320, 5 heads and 1 kv head of 64, f 864, vocabulary 4096, B 8, T 256) and of a GPT-like
 * layer (d 512). Each product is checked first; then the three take turns, and the medians (and the
 * best tenth) of the rounds are told as GFLOP/s and as a part of the FMA peak measured in between.
 *
 *   cc=clang; k=codegen/kernels/host
 *   $cc -std=gnu11 -O3 -march=native -DTHREADS=2 -I$k -Itests/kernels -Iruntime
 * tests/bench/kernels.c \ -o kernels_bench -ldl -lm -pthread && ./kernels_bench [rounds [shape]]
 *
 * The libraries come from $OPENBLAS and $BLIS or the usual names; one that is missing is left out.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "archrt_kernels.h"
#include "team_test.h"
#include "matmul.h"

#define STRING_(x) #x
#define STRING(x) STRING_(x)

struct shape {
    const char *name;
    int m, n, k;
    matmul_fn *forward;
    matmul_dx_fn *dx;
    matmul_dw_fn *dw;
};

#define SHAPE qkv
#define ROWS 2048
#define OUT 448
#define IN 320
#include "kernels_shape.h"
#define SHAPE attention_out
#define ROWS 2048
#define OUT 320
#define IN 320
#include "kernels_shape.h"
#define SHAPE gate_up
#define ROWS 2048
#define OUT 1728
#define IN 320
#include "kernels_shape.h"
#define SHAPE down
#define ROWS 2048
#define OUT 320
#define IN 864
#include "kernels_shape.h"
#define SHAPE head
#define ROWS 2048
#define OUT 4096
#define IN 320
#include "kernels_shape.h"
#define SHAPE wide
#define ROWS 2048
#define OUT 1536
#define IN 512
#include "kernels_shape.h"

static const struct shape *const shapes[] = {&qkv_shape,  &attention_out_shape, &gate_up_shape,
                                             &down_shape, &head_shape,          &wide_shape};

/* CBLAS: row major 101, plain 111, transposed 112. */
typedef void sgemm_fn(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a,
                      int lda, const float *b, int ldb, float beta, float *c, int ldc);

enum { ARCHC, OPENBLAS, BLIS, SIDES, MOST_ROUNDS = 501 };
static const char *const side_name[SIDES] = {"archc", "OpenBLAS", "BLIS"};
static sgemm_fn *sgemm[SIDES];

enum product { FORWARD, DX, DW, PRODUCTS };
static const char *const product_name[PRODUCTS] = {"forward", "dx", "dw"};

struct data {
    const struct shape *s;
    enum product product;
    float *x, *w, *y, *scratch; /* [m k], [n k], [m n] */
    float *out;                 /* of the product, largest of the three */
    double peak;                /* FLOP/s of the last peak loop */
};

/* One thread's work is timed by its CPU clock, which others on the machine disturb less. */
static double now(void)
{
    struct timespec t;
    clock_gettime(THREADS == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static float *slab(size_t floats)
{
    size_t bytes = (floats * sizeof(float) + (2u << 20)) & ~((size_t)(2u << 20) - 1);
    float *p = aligned_alloc(2u << 20, bytes);
    if (!p) {
        fprintf(stderr, "kernels: no memory\n");
        exit(4);
    }
#ifdef MADV_HUGEPAGE
    madvise(p, bytes, MADV_HUGEPAGE);
#endif
    memset(p, 0, bytes);
    return p;
}

static void fill(float *p, size_t n)
{
    static uint32_t seed = 12345;
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        p[i] = (float)(seed >> 8) / 8388608.0f - 1;
    }
}

/* 12 independent chains of FMA in registers, timed by the thread itself. Short and right behind a
 * product: the clock of a processor falls under the load of one, so that a long loop without loads
 * would tell of a speed that no product can have. */
static void peak_work(void *arg, int tid)
{
    enum { STEPS = 10000 };
    struct data *d = arg;
    vf chain[12], a = vf_set(0.999f), b = vf_set(0.001f);
    for (int i = 0; i < 12; i++)
        chain[i] = vf_set((float)i);
    double t = now();
    for (int i = 0; i < STEPS; i++) {
        UNROLL
        for (int j = 0; j < 12; j++) {
            chain[j] = chain[j] * a + b;
            __asm__ volatile("" : "+m"(*(char *)arg));
        }
    }
    float sum = 0;
    for (int i = 0; i < 12; i++)
        sum += vf_sum(chain[i]);
    if (tid == 0)
        d->peak = sum == 1234.5f ? 0 : 2.0 * STEPS * 12 * VL * THREADS / (now() - t);
}

static void product_work(void *arg, int tid)
{
    const struct data *d = arg;
    const struct shape *s = d->s;
    if (d->product == FORWARD)
        s->forward(d->out, d->x, d->w, NULL, NULL, d->scratch, s->m, tid);
    else if (d->product == DX)
        s->dx(d->out, d->y, d->w, d->scratch, s->m, tid);
    else
        s->dw(d->out, NULL, d->y, d->x, d->scratch, s->m, tid);
}

static void blas(const struct data *d, sgemm_fn *f)
{
    const struct shape *s = d->s;
    if (d->product == FORWARD)
        f(101, 111, 112, s->m, s->n, s->k, 1, d->x, s->k, d->w, s->k, 0, d->out, s->n);
    else if (d->product == DX)
        f(101, 111, 111, s->m, s->k, s->n, 1, d->y, s->n, d->w, s->k, 0, d->out, s->k);
    else
        f(101, 112, 111, s->n, s->k, s->m, 1, d->y, s->n, d->x, s->k, 1, d->out, s->k);
}

static void run(struct data *d, int side)
{
    if (side == ARCHC)
        test_team_run(product_work, d);
    else
        blas(d, sgemm[side]);
}

static size_t out_size(const struct data *d)
{
    const struct shape *s = d->s;
    return d->product == FORWARD ? (size_t)s->m * s->n
           : d->product == DX    ? (size_t)s->m * s->k
                                 : (size_t)s->n * s->k;
}

/* A thousand elements of the product against sums in double. */
static bool right(struct data *d)
{
    const struct shape *s = d->s;
    int columns = d->product == FORWARD ? s->n : s->k;
    memset(d->out, d->product == DW ? 0 : 0xff, out_size(d) * sizeof(float));
    run(d, ARCHC);
    for (int q = 0; q < 1000; q++) {
        size_t at = (size_t)rand() % out_size(d);
        int i = (int)(at / columns), j = (int)(at % columns);
        double sum = 0, size = 0;
        int depth = d->product == FORWARD ? s->k : d->product == DX ? s->n : s->m;
        for (int k = 0; k < depth; k++) {
            double term = d->product == FORWARD
                              ? (double)d->x[(size_t)i * s->k + k] * d->w[(size_t)j * s->k + k]
                          : d->product == DX
                              ? (double)d->y[(size_t)i * s->n + k] * d->w[(size_t)k * s->k + j]
                              : (double)d->y[(size_t)k * s->n + i] * d->x[(size_t)k * s->k + j];
            sum += term;
            size += fabs(term);
        }
        if (!(fabs(sum - d->out[at]) <= 1e-6 * size)) {
            fprintf(stderr, "%s %s: [%d][%d] is %g, not %g\n", s->name, product_name[d->product], i,
                    j, (double)d->out[at], sum);
            return false;
        }
    }
    return true;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double timed_peak(struct data *d)
{
    run(d, ARCHC);
    test_team_run(peak_work, d);
    return d->peak;
}

static void measure(struct data *d, int rounds)
{
    static double rate[SIDES + 1][MOST_ROUNDS];
    double flops = 2.0 * d->s->m * d->s->n * d->s->k;
    for (int r = -1; r < rounds; r++)
        for (int side = 0; side <= SIDES; side++) {
            double got;
            if (side == SIDES) {
                got = timed_peak(d);
            } else if (side != ARCHC && !sgemm[side]) {
                got = 0;
            } else {
                double t = now();
                run(d, side);
                got = flops / (now() - t);
            }
            if (r >= 0)
                rate[side][r] = got;
        }
    for (int side = 0; side <= SIDES; side++)
        qsort(rate[side], rounds, sizeof(double), by_size);
    int half = rounds / 2, high = rounds * 9 / 10;
    printf("%-14s %-8s peak %5.0f (%5.0f)", d->s->name, product_name[d->product],
           1e-9 * rate[SIDES][half], 1e-9 * rate[SIDES][high]);
    for (int side = 0; side < SIDES; side++)
        printf(" | %s %5.1f %3.0f%% (%5.1f %3.0f%%)", side_name[side], 1e-9 * rate[side][half],
               100 * rate[side][half] / rate[SIDES][half], 1e-9 * rate[side][high],
               100 * rate[side][high] / rate[SIDES][high]);
    printf("\n");
    fflush(stdout);
}

static void *library(const char *variable, const char *name)
{
    const char *path = getenv(variable);
    void *handle = dlopen(path ? path : name, RTLD_NOW | RTLD_LOCAL);
    if (!handle)
        fprintf(stderr, "kernels: without %s: %s\n", variable, dlerror());
    return handle;
}

static void open_opponents(void)
{
    void *openblas = library("OPENBLAS", "libopenblas.so.0"),
         *blis = library("BLIS", "libblis.so.4");
    void (*threads)(int);
    void (*blis_threads)(int64_t);
    if (openblas) {
        *(void **)&sgemm[OPENBLAS] = dlsym(openblas, "cblas_sgemm");
        *(void **)&threads = dlsym(openblas, "openblas_set_num_threads");
        if (threads)
            threads(THREADS);
    }
    if (blis) {
        *(void **)&sgemm[BLIS] = dlsym(blis, "cblas_sgemm");
        *(void **)&blis_threads = dlsym(blis, "bli_thread_set_num_threads");
        if (blis_threads)
            blis_threads(THREADS);
    }
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 21, failures = 0;
    if (rounds < 1 || rounds > MOST_ROUNDS) {
        fprintf(stderr, "usage: kernels [rounds 1..%d [shape]]\n", MOST_ROUNDS);
        return 2;
    }
    open_opponents();
    test_team_start(THREADS);
    printf("%d threads, GFLOP/s: median, part of peak (best tenth)\n", THREADS);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const struct shape *s = shapes[i];
        if (argc > 2 && strcmp(argv[2], s->name) != 0)
            continue;
        size_t most = (size_t)s->m * (s->n > s->k ? s->n : s->k);
        if (most < (size_t)s->n * s->k)
            most = (size_t)s->n * s->k;
        struct data d = {s,
                         FORWARD,
                         slab((size_t)s->m * s->k),
                         slab((size_t)s->n * s->k),
                         slab((size_t)s->m * s->n),
                         slab(MATMUL_SCRATCH_FLOATS),
                         slab(most),
                         0};
        fill(d.x, (size_t)s->m * s->k);
        fill(d.w, (size_t)s->n * s->k);
        fill(d.y, (size_t)s->m * s->n);
        for (int p = 0; p < PRODUCTS; p++) {
            d.product = p;
            if (right(&d))
                measure(&d, rounds);
            else
                failures++;
        }
        free(d.x);
        free(d.w);
        free(d.y);
        free(d.scratch);
        free(d.out);
    }
    test_team_stop();
    return failures > 0;
}

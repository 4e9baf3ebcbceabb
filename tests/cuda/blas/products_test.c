/* products_test.c - every kind of product that goes to cuBLASLt, through device_blas.c and a
 * stand-in for the library (standin.c) on emulated device memory, against fp64: odd shapes, outputs
 * that nothing has written before, plain calls and recorded ones. Then mistakes are planted, and
 * each must be found. */
#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../model_device.h"
#include "standin.h"

const struct model_kernel model_kernels[1] = {{NULL, NULL}}; /* no kernel runs here */
const int n_model_kernels = 0;

static int failures;

#define CHECK(condition, ...)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            failures++;                                                                            \
            printf("%s:%d: ", __FILE__, __LINE__);                                                 \
            printf(__VA_ARGS__);                                                                   \
            putchar('\n');                                                                         \
        }                                                                                          \
    } while (0)

/* ---- memory: bf16 and fp32, at addresses that are 16-byte aligned and no more ---- */

enum { SHIFT = 16 };
struct tensor {
    int64_t rows, columns;
    int bytes; /* of an element: 2, 4 */
    char *at;
    double *copy; /* what the test put there */
};

static double random_number(uint64_t *state)
{
    *state = mix64(*state + 1);
    return (double)(*state >> 11) * 0x1p-52 - 1;
}

static uint16_t half_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static float float_of(uint16_t half)
{
    uint32_t bits = (uint32_t)half << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static void fill(struct tensor *t, uint64_t *state)
{
    for (int64_t i = 0; i < t->rows * t->columns; i++) {
        float x = (float)random_number(state);
        uint16_t half = half_of(x);
        t->copy[i] = (double)(t->bytes == 4 ? x : float_of(half));
        emu_write(t->at + i * t->bytes, t->bytes == 4 ? (void *)&x : (void *)&half,
                  (size_t)t->bytes);
    }
}

static struct tensor tensor(int64_t rows, int64_t columns, int bytes)
{
    size_t n = (size_t)(rows * columns);
    char *at = emu_alloc("operand", n * (size_t)bytes + SHIFT);
    return (struct tensor){rows, columns, bytes, at + SHIFT, need(calloc(n, sizeof(double)))};
}

static bool element(const struct tensor *t, int64_t row, int64_t column, double *out)
{
    float x = 0;
    uint16_t half = 0;
    const char *at = t->at + (row * t->columns + column) * t->bytes;
    if (!emu_read(t->bytes == 4 ? (void *)&x : (void *)&half, at, (size_t)t->bytes))
        return false;
    *out = (double)(t->bytes == 4 ? x : float_of(half));
    return true;
}

/* ---- cases ---- */

struct kind {
    const char *name;
    enum archrt_cuda_kind kind;
    unsigned flags;
    bool in_place, refused;
};
static const struct kind kinds[] = {
    {"y", ARCHRT_CUDA_MATMUL, 0, false, false},
    {"fp32 y", ARCHRT_CUDA_MATMUL, ARCHRT_CUDA_TO_F32, false, false},
    {"y + residual", ARCHRT_CUDA_MATMUL, ARCHRT_CUDA_WITH_RESIDUAL | ARCHRT_CUDA_TO_F32, false,
     false},
    {"y += ", ARCHRT_CUDA_MATMUL, ARCHRT_CUDA_WITH_RESIDUAL | ARCHRT_CUDA_TO_F32, true, false},
    {"fp32 y + bias", ARCHRT_CUDA_MATMUL, ARCHRT_CUDA_WITH_BIAS | ARCHRT_CUDA_TO_F32, false, false},
    {"y + bias + residual", ARCHRT_CUDA_MATMUL,
     ARCHRT_CUDA_WITH_BIAS | ARCHRT_CUDA_WITH_RESIDUAL | ARCHRT_CUDA_TO_F32, false, false},
    {"dx", ARCHRT_CUDA_MATMUL_DX, 0, false, false},
    {"dw", ARCHRT_CUDA_MATMUL_DW, 0, true, false},
    /* What it has no epilogue for: an fp32 bias on bf16 sums, SwiGLU, a bias's gradient added. */
    {"y + bias", ARCHRT_CUDA_MATMUL, ARCHRT_CUDA_WITH_BIAS, false, true},
    {"swiglu", ARCHRT_CUDA_MATMUL, ARCHRT_CUDA_WITH_SWIGLU, false, true},
    {"dw, dbias", ARCHRT_CUDA_MATMUL_DW, ARCHRT_CUDA_WITH_BIAS, true, true},
    {"dw, overwritten", ARCHRT_CUDA_MATMUL_DW, 0, false, false},
    {"dx on dx", ARCHRT_CUDA_MATMUL_DX, ARCHRT_CUDA_ACCUMULATES | ARCHRT_CUDA_TO_F32, true, false},
};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

struct shape {
    int64_t m, n, k;
};
static const struct shape shapes[] = {{1, 8, 8},     {5, 24, 136},  {37, 40, 72}, {64, 64, 64},
                                      {129, 8, 200}, {70, 264, 16}, {131, 72, 24}};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

struct product {
    const struct kind *kind;
    struct shape s;
    struct tensor out, x, w, bias, residual; /* x: dy of dx, dw; w: x of dw */
    void *operands[BLAS_OPERANDS];
};

static bool flag(const struct product *p, unsigned which)
{
    return p->kind->flags & which;
}

static void open_product(struct product *p, const struct kind *kind, struct shape s, uint64_t seed)
{
    bool dx = kind->kind == ARCHRT_CUDA_MATMUL_DX, dw = kind->kind == ARCHRT_CUDA_MATMUL_DW;
    *p = (struct product){.kind = kind, .s = s};
    int out_bytes = dw || kind->flags & ARCHRT_CUDA_TO_F32 ? 4 : 2;
    p->out = dw   ? tensor(s.n, s.k, out_bytes)
             : dx ? tensor(s.m, s.k, out_bytes)
                  : tensor(s.m, s.n, out_bytes);
    p->x = tensor(s.m, dx || dw ? s.n : s.k, 2);
    p->w = dw ? tensor(s.m, s.k, 2) : tensor(s.n, s.k, 2);
    p->bias = tensor(1, s.n, 4);
    p->residual = kind->in_place ? p->out : tensor(s.m, s.n, 4);
    fill(&p->x, &seed);
    fill(&p->w, &seed);
    fill(&p->bias, &seed);
    fill(&p->residual, &seed);
    void *matmul[] = {p->out.at, p->x.at, p->w.at, p->bias.at, p->residual.at};
    void *gradient[] = {p->out.at, p->x.at, p->w.at, NULL, NULL};
    void *weights[] = {p->out.at, p->bias.at, p->x.at, p->w.at, kind->in_place ? p->out.at : NULL};
    memcpy(p->operands, dw ? weights : dx ? gradient : matmul, sizeof p->operands);
}

static void close_product(struct product *p)
{
    if (!p->kind->in_place)
        free(p->residual.copy);
    free(p->out.copy);
    free(p->x.copy);
    free(p->w.copy);
    free(p->bias.copy);
    emu_free_all();
}

static struct blas_product *plan(struct device_blas *b, const struct product *p)
{
    struct blas_shape s = {.kind = p->kind->kind,
                           .rows = p->s.m,
                           .n = p->s.n,
                           .k = p->s.k,
                           .flags = p->kind->flags,
                           .bias = (void *)(uintptr_t)SHIFT};
    for (int i = 0; i < BLAS_OPERANDS; i++)
        s.align[i] = p->operands[i] ? SHIFT : 256;
    if (p->kind->kind == ARCHRT_CUDA_MATMUL_DW) /* of what is added to, whether it is or not */
        s.align[4] = SHIFT;
    return device_blas_plan(b, &s);
}

/* The sum at a place of the output, and the sum of the sizes of what was added. */
static double wanted(const struct product *p, int64_t row, int64_t column, int times, double *size)
{
    const double *x = p->x.copy, *w = p->w.copy;
    int64_t n = p->s.n, k = p->s.k;
    bool dx = p->kind->kind == ARCHRT_CUDA_MATMUL_DX, dw = p->kind->kind == ARCHRT_CUDA_MATMUL_DW;
    double sum = 0;
    *size = 0;
    for (int64_t i = 0; i < (dw ? p->s.m : dx ? n : k); i++) {
        double term = dw   ? x[i * n + row] * w[i * k + column]
                      : dx ? x[row * n + i] * w[i * k + column]
                           : x[row * k + i] * w[column * k + i];
        sum += times * term;
        *size += times * fabs(term);
    }
    bool on_top = (dw && p->kind->in_place) || flag(p, ARCHRT_CUDA_ACCUMULATES);
    double before = on_top                               ? p->out.copy[row * k + column]
                    : flag(p, ARCHRT_CUDA_WITH_RESIDUAL) ? p->residual.copy[row * n + column]
                                                         : 0;
    double bias = !dw && flag(p, ARCHRT_CUDA_WITH_BIAS) ? p->bias.copy[column] : 0;
    *size += fabs(before) + fabs(bias);
    return sum + before + bias;
}

static bool right(const struct product *p, int times)
{
    for (int64_t row = 0; row < p->out.rows; row++)
        for (int64_t column = 0; column < p->out.columns; column++) {
            double size, got, want = wanted(p, row, column, times, &size);
            if (!element(&p->out, row, column, &got))
                return false;
            double allowed = 4 * 0x1p-24 * size + (p->out.bytes == 2 ? 0x1p-8 * fabs(want) : 0);
            if (!(fabs(got - want) <= allowed))
                return false;
        }
    return true;
}

/* ---- checks ---- */

static bool run(struct device *d, const struct blas_product *planned, const struct product *p,
                void *workspace)
{
    return device_blas_run(d, planned, p->operands, workspace) && d->api->wait(d);
}

struct bench {
    struct device *device;
    struct device_blas *blas;
    struct standin_state *standin;
};

static void *workspace(const struct bench *b)
{
    return emu_alloc("workspace", device_blas_workspace(b->blas));
}

static void check_product(const struct bench *b, const struct kind *kind, struct shape s,
                          uint64_t seed)
{
    struct product p;
    open_product(&p, kind, s, seed);
    struct blas_product *planned = plan(b->blas, &p);
    CHECK(!planned == kind->refused, "%s, m %d, n %d, k %d: %s", kind->name, (int)s.m, (int)s.n,
          (int)s.k, planned ? "planned" : "refused");
    if (planned) {
        bool ran = run(b->device, planned, &p, workspace(b));
        CHECK(ran && right(&p, 1), "%s, m %d, n %d, k %d: %s", kind->name, (int)s.m, (int)s.n,
              (int)s.k, ran ? "wrong" : b->device->why);
    }
    device_blas_drop(planned);
    close_product(&p);
}

/* While a graph is recorded nothing is computed; each replay computes once. */
static void check_recorded(const struct bench *b)
{
    struct product p;
    void *graph = NULL;
    struct device *d = b->device;
    open_product(&p, &kinds[7], shapes[2], 77);
    struct blas_product *planned = plan(b->blas, &p);
    long before = b->standin->runs;
    bool ok = planned && d->api->begin_graph(d) &&
              device_blas_run(d, planned, p.operands, workspace(b)) && d->api->end_graph(d, &graph);
    CHECK(ok && b->standin->runs == before, "a product ran while it was recorded");
    ok = ok && d->api->replay(d, graph) && d->api->replay(d, graph) && d->api->wait(d);
    CHECK(ok && b->standin->runs == before + 2 && right(&p, 2), "two replays: %s", d->why);
    if (graph)
        d->api->drop_graph(d, graph);
    device_blas_drop(planned);
    close_product(&p);
}

/* The same sums, bit for bit: no algorithm that adds in the order of arrival was taken. */
static void check_repeats(const struct bench *b)
{
    enum { FLOATS = 37 * 40 };
    float results[3][FLOATS];
    for (int i = 0; i < 3; i++) {
        struct product p;
        open_product(&p, &kinds[1], (struct shape){37, 40, 200}, 5);
        struct blas_product *planned = plan(b->blas, &p);
        if (!planned || !run(b->device, planned, &p, workspace(b)) ||
            !emu_read(results[i], p.out.at, sizeof results[i]))
            memset(results[i], i, sizeof results[i]);
        device_blas_drop(planned);
        close_product(&p);
    }
    CHECK(memcmp(results[0], results[1], sizeof results[0]) == 0 &&
              memcmp(results[0], results[2], sizeof results[0]) == 0,
          "a product does not repeat bit for bit");
}

/* A library that uses what it was promised must refuse a pointer that breaks the promise. */
static void check_alignment(const struct bench *b)
{
    struct product p;
    open_product(&p, &kinds[0], shapes[2], 3);
    struct blas_shape s = {.kind = ARCHRT_CUDA_MATMUL,
                           .rows = p.s.m,
                           .n = p.s.n,
                           .k = p.s.k,
                           .align = {SHIFT, SHIFT, 256, SHIFT, SHIFT}};
    struct blas_product *planned = device_blas_plan(b->blas, &s);
    CHECK(planned && !run(b->device, planned, &p, workspace(b)) &&
              strstr(b->device->why, "status 7"),
          "weights less aligned than promised: %s", b->device->why);
    device_blas_drop(planned);
    close_product(&p);
}

/* Does the fault change anything of this product? */
static bool matters(const struct product *p, enum standin_fault fault)
{
    bool dw = p->kind->kind == ARCHRT_CUDA_MATMUL_DW, dx = p->kind->kind == ARCHRT_CUDA_MATMUL_DX;
    switch (fault) {
    case FAULT_LD_A: /* A is x of dw, else w */
        return p->s.k != (dw ? p->s.m : p->s.n);
    case FAULT_LD_B:
        return p->s.m != (dx || dw ? p->s.n : p->s.k);
    case FAULT_BETA:
        return (dw && p->kind->in_place) ||
               flag(p, ARCHRT_CUDA_WITH_RESIDUAL | ARCHRT_CUDA_ACCUMULATES);
    case FAULT_BIAS:
        return flag(p, ARCHRT_CUDA_WITH_BIAS);
    case FAULT_TYPE:
        return p->out.bytes == 4;
    default:
        return true;
    }
}

static void check_fault(const struct bench *b, enum standin_fault fault, const struct kind *kind,
                        struct shape s, int *found)
{
    struct product p;
    open_product(&p, kind, s, 9);
    struct blas_product *planned = plan(b->blas, &p);
    if (matters(&p, fault)) {
        b->standin->fault = fault;
        bool ran = run(b->device, planned, &p, workspace(b));
        b->standin->fault = FAULT_NONE;
        CHECK(!ran || !right(&p, 1), "%s, m %d, n %d, k %d: fault %d is not found", kind->name,
              (int)s.m, (int)s.n, (int)s.k, (int)fault);
        *found += ran; /* by its numbers, not because it was refused */
    }
    device_blas_drop(planned);
    close_product(&p);
}

static void check_faults(const struct bench *b)
{
    for (int fault = FAULT_NONE + 1; fault < FAULT_START; fault++) {
        int found = 0;
        for (int i = 0; i < KINDS; i++)
            for (int k = 0; k < SHAPES && !kinds[i].refused; k++)
                check_fault(b, (enum standin_fault)fault, &kinds[i], shapes[k], &found);
        bool leading = fault == FAULT_LD_A || fault == FAULT_LD_B;
        CHECK(found > 0 || leading, "no numbers show fault %d", fault);
    }
}

/* ---- loading ---- */

static void check_loading(const struct bench *b)
{
    char why[160] = "", file[256] = "";
    struct device_api without = *b->device->api;
    struct device other = *b->device;
    without.stream = NULL;
    other.api = &without;
    CHECK(!device_blas_open(&other, why, sizeof why) && strstr(why, "no library works"), "%s", why);
    b->standin->fault = FAULT_START;
    CHECK(!device_blas_open(b->device, why, sizeof why) && strstr(why, "does not start"), "%s",
          why);
    b->standin->fault = FAULT_NONE;
    CHECK(device_blas_find(file, sizeof file) && strstr(file, "standin/libcublasLt.so.13"), "%s",
          file);
    CHECK(strcmp(device_blas_name(b->blas), "cuBLASLt 13.99.0") == 0, "%s",
          device_blas_name(b->blas));
}

int main(void)
{
    char why[160];
    struct bench b = {.device = emulated_device()};
    b.blas = device_blas_open(b.device, why, sizeof why);
    void *library = dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_NOLOAD);
    b.standin = library ? dlsym(library, "standin") : NULL;
    if (!b.blas || !b.standin) {
        printf("the stand-in is not loaded: %s\n", b.blas ? "another library is" : why);
        return 1;
    }
    for (int i = 0; i < KINDS; i++)
        for (int k = 0; k < SHAPES; k++)
            for (uint64_t seed = 1; seed <= 3; seed++)
                check_product(&b, &kinds[i], shapes[k], seed);
    check_recorded(&b);
    check_repeats(&b);
    check_alignment(&b);
    check_faults(&b);
    check_loading(&b);
    printf("%ld products, %d failures\n", b.standin->runs, failures);
    device_blas_close(b.blas);
    b.device->api->close(b.device);
    return failures != 0;
}

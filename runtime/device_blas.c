/* device_blas.c - matrix products through cuBLASLt, which is loaded when a session on a device
 * wants it: loading half a gigabyte takes seconds the first time.
 *
 * The library's matrices stand column behind column, ours row behind row: our [r][c] is its c x r
 * matrix with leading dimension c. So it computes our products transposed, D = op(A) op(B) + beta
 * C:
 *
 *     y[m][N] = x[m][K] w[N][K]^T      Y (N x m)  = W (K x N)^T X (K x m)
 *     dx[m][K] = dy[m][N] w[N][K]      dX (K x m) = W (K x N)   dY (N x m) (+ dX, in fp32)
 *     dw[N][K] += dy[m][N]^T x[m][K]   dW (K x N) = X (K x m)   dY (N x m)^T (+ dW)
 *
 * A bias of a column of y is one of a row of Y, as its epilogue has it. */
#include "gpu.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cublaslt.h"

struct device_blas {
#define LT_FIELD(result, field, symbol, parameters) result(*field) parameters;
    LT_FUNCTIONS(LT_FIELD)
#undef LT_FIELD
    lt_handle handle;
    size_t workspace;
    char name[48];
};

/* Which operand of the kernel (archrt_cuda.h) is which matrix. */
struct roles {
    int d, a, b, c, bias; /* bias -1: none */
};
struct blas_product {
    struct device_blas *blas;
    lt_handle matmul, a, b, c, d;
    struct lt_algorithm algorithm;
    struct roles role;
    size_t workspace;
    float beta;
};

/* ---- loading ---- */

static const char *const files[] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so.11"};
enum { FILES = sizeof files / sizeof files[0] };

/* ISO C has no conversion from dlsym's pointer to a function's; the bits are the same. */
static const char *missing_symbol(struct device_blas *b, void *library)
{
    const struct {
        const char *symbol;
        size_t at;
    } rows[] = {
#define LT_ROW(result, field, symbol, parameters) {symbol, offsetof(struct device_blas, field)},
        LT_FUNCTIONS(LT_ROW)
#undef LT_ROW
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        void *at = dlsym(library, rows[i].symbol);
        if (!at)
            return rows[i].symbol;
        memcpy((char *)b + rows[i].at, &at, sizeof at);
    }
    return NULL;
}

/* A library that was loaded stays so: it has registered work for the end of the process. */
static bool load(struct device_blas *b, const char *file, char *why, size_t room)
{
    void *library = dlopen(file, RTLD_LAZY | RTLD_LOCAL);
    if (!library)
        return false;
    const char *missing = missing_symbol(b, library);
    int status = missing ? LT_NOT_INITIALIZED : b->create(&b->handle);
    if (missing)
        snprintf(why, room, "%s has no %s", file, missing);
    else if (status != LT_SUCCESS)
        snprintf(why, room, "%s does not start (status %d): is it newer than the driver?", file,
                 status);
    return status == LT_SUCCESS;
}

/* What NVIDIA advises for each generation; little of a small device. */
static size_t workspace_for(const struct device *d)
{
    size_t advised = (d->sm >= 90 ? 32u : 4u) << 20, most = d->memory / 256;
    return advised < most ? advised : most;
}

/* By the loader's own path, newest first; then where we know that it may be. */
static bool load_any(struct device_blas *b, char *why, size_t room)
{
    char file[256];
    snprintf(why, room, "no %s, nor .12, nor .11", files[0]);
    for (int i = 0; i < FILES; i++)
        if (load(b, files[i], why, room))
            return true;
    return device_blas_find(file, sizeof file) && load(b, file, why, room);
}

struct device_blas *device_blas_open(const struct device *d, char *why, size_t room)
{
    struct device_blas *b = need(calloc(1, sizeof *b));
    if (!d->api->stream)
        snprintf(why, room, "no library works on this device");
    if (!d->api->stream || !load_any(b, why, room)) {
        free(b);
        return NULL;
    }
    size_t v = b->version();
    snprintf(b->name, sizeof b->name, "cuBLASLt %zu.%zu.%zu", v / 10000, v / 100 % 100, v % 100);
    b->workspace = workspace_for(d);
    return b;
}

void device_blas_close(struct device_blas *b)
{
    if (b)
        b->destroy(b->handle);
    free(b);
}

const char *device_blas_name(const struct device_blas *b)
{
    return b->name;
}

size_t device_blas_workspace(const struct device_blas *b)
{
    return b->workspace;
}

/* ---- finding without loading ---- */

static bool stands_in(const char *directory, size_t length, char *out, size_t room)
{
    for (int i = 0; length && i < FILES; i++) {
        snprintf(out, room, "%.*s/%s", (int)length, directory, files[i]);
        if (access(out, R_OK) == 0)
            return true;
    }
    return false;
}

bool device_blas_find(char *out, size_t room)
{
    static const char *const usual[] = {"/usr/local/cuda/lib64", "/usr/lib/x86_64-linux-gnu",
                                        "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"};
    const char *path = getenv("LD_LIBRARY_PATH");
    while (path && *path) {
        size_t length = strcspn(path, ":");
        if (stands_in(path, length, out, room))
            return true;
        path += length + (path[length] == ':');
    }
    for (size_t i = 0; i < sizeof usual / sizeof usual[0]; i++)
        if (stands_in(usual[i], strlen(usual[i]), out, room))
            return true;
    return false;
}

/* ---- one product ---- */

/* As the library has it: op(A) is rows x depth, op(B) depth x columns; `a_`, `b_`: as stored. */
struct arranged {
    int64_t rows, columns, a_rows, a_columns, b_rows, b_columns;
    int trans_a, trans_b, d_type;
    float beta;
    struct roles role;
};

/* False: none of its epilogues does what the kernel does. It has no SwiGLU; its gradient of a bias
 * overwrites, where ours adds to what other micro-batches left. */
static bool arrange(const struct blas_shape *s, struct arranged *p)
{
    int64_t m = s->rows, n = s->n, k = s->k;
    bool bias = s->flags & ARCHRT_CUDA_WITH_BIAS, residual = s->flags & ARCHRT_CUDA_WITH_RESIDUAL;
    switch (s->kind) {
    case ARCHRT_CUDA_MATMUL:
        *p = (struct arranged){
            n,
            m,
            k,
            n,
            k,
            m,
            LT_OP_T,
            LT_OP_N,
            LT_R_16BF,
            0,
            {.d = 0, .b = 1, .a = 2, .c = residual ? 4 : 0, .bias = bias ? 3 : -1}};
        if (residual || s->flags & ARCHRT_CUDA_TO_F32)
            p->d_type = LT_R_32F;
        p->beta = residual;
        return !(s->flags & ARCHRT_CUDA_WITH_SWIGLU);
    case ARCHRT_CUDA_MATMUL_DX:
        *p = (struct arranged){k,
                               m,
                               k,
                               n,
                               n,
                               m,
                               LT_OP_N,
                               LT_OP_N,
                               LT_R_16BF,
                               0,
                               {.d = 0, .b = 1, .a = 2, .c = 0, .bias = -1}};
        p->beta = s->flags & ARCHRT_CUDA_ACCUMULATES ? 1 : 0;
        if (p->beta > 0)
            p->d_type = LT_R_32F;
        return true;
    case ARCHRT_CUDA_MATMUL_DW:
        *p = (struct arranged){k,
                               n,
                               k,
                               m,
                               n,
                               m,
                               LT_OP_N,
                               LT_OP_T,
                               LT_R_32F,
                               1,
                               {.d = 0, .b = 2, .a = 3, .c = 4, .bias = -1}};
        return !bias;
    default:
        return false;
    }
}

bool device_blas_can(const struct archrt_cuda_kernel *k)
{
    const struct blas_shape s = {.kind = k->kind, .n = k->n, .k = k->k, .flags = k->flags};
    struct arranged p;
    return arrange(&s, &p);
}

static bool set(const struct device_blas *b, lt_handle matmul, int attribute, int32_t value)
{
    return b->matmul_set(matmul, attribute, &value, sizeof value) == LT_SUCCESS;
}

static bool layout(const struct device_blas *b, lt_handle *out, int type, int64_t rows,
                   int64_t columns)
{
    return b->layout(out, type, (uint64_t)rows, (uint64_t)columns, rows) == LT_SUCCESS;
}

/* Biases are fp32, whatever D is. The pointer tells the search how they are aligned. */
static bool describe_bias(const struct device_blas *b, lt_handle matmul, const void *bias)
{
    return set(b, matmul, LT_MATMUL_EPILOGUE, LT_EPILOGUE_BIAS) &&
           set(b, matmul, LT_MATMUL_BIAS_TYPE, LT_R_32F) &&
           b->matmul_set(matmul, LT_MATMUL_BIAS_POINTER, &bias, sizeof bias) == LT_SUCCESS;
}

static bool describe(struct blas_product *p, const struct arranged *a, const void *bias)
{
    const struct device_blas *b = p->blas;
    return b->matmul(&p->matmul, LT_COMPUTE_32F, LT_R_32F) == LT_SUCCESS &&
           set(b, p->matmul, LT_MATMUL_TRANSA, a->trans_a) &&
           set(b, p->matmul, LT_MATMUL_TRANSB, a->trans_b) &&
           (a->role.bias < 0 || describe_bias(b, p->matmul, bias)) &&
           layout(b, &p->a, LT_R_16BF, a->a_rows, a->a_columns) &&
           layout(b, &p->b, LT_R_16BF, a->b_rows, a->b_columns) &&
           layout(b, &p->c, a->d_type, a->rows, a->columns) &&
           layout(b, &p->d, a->d_type, a->rows, a->columns);
}

static bool prefer(const struct device_blas *b, lt_handle preference, int attribute, uint32_t value)
{
    return b->preference_set(preference, attribute, &value, sizeof value) == LT_SUCCESS;
}

/* Parts of a sum may meet in the workspace only, as fp32 and in one order: a run repeats bit for
 * bit. The search's first answer is taken, not the fastest of several, for the same reason. */
static bool find(struct blas_product *p, const struct blas_shape *s)
{
    const struct device_blas *b = p->blas;
    lt_handle wanted = NULL;
    struct lt_found found = {.state = LT_NOT_SUPPORTED};
    uint64_t room = b->workspace;
    int n = 0;
    bool ok =
        b->preference(&wanted) == LT_SUCCESS &&
        b->preference_set(wanted, LT_PREFERENCE_WORKSPACE, &room, sizeof room) == LT_SUCCESS &&
        prefer(b, wanted, LT_PREFERENCE_REDUCTIONS, LT_REDUCTION_COMPUTE) &&
        prefer(b, wanted, LT_PREFERENCE_ALIGN_A, s->align[p->role.a]) &&
        prefer(b, wanted, LT_PREFERENCE_ALIGN_B, s->align[p->role.b]) &&
        prefer(b, wanted, LT_PREFERENCE_ALIGN_C, s->align[p->role.c]) &&
        prefer(b, wanted, LT_PREFERENCE_ALIGN_D, s->align[p->role.d]) &&
        b->find(b->handle, p->matmul, p->a, p->b, p->c, p->d, wanted, 1, &found, &n) ==
            LT_SUCCESS &&
        n == 1 && found.state == LT_SUCCESS && found.workspace <= b->workspace;
    if (wanted)
        b->preference_drop(wanted);
    p->algorithm = found.algorithm;
    p->workspace = found.workspace;
    return ok;
}

struct blas_product *device_blas_plan(struct device_blas *b, const struct blas_shape *s)
{
    struct arranged a;
    if (!arrange(s, &a))
        return NULL;
    struct blas_product *p = need(calloc(1, sizeof *p));
    p->blas = b;
    p->role = a.role;
    p->beta = a.beta;
    if (describe(p, &a, s->bias) && find(p, s))
        return p;
    device_blas_drop(p);
    return NULL;
}

void device_blas_drop(struct blas_product *p)
{
    if (!p)
        return;
    lt_handle layouts[] = {p->a, p->b, p->c, p->d};
    for (int i = 0; i < 4; i++)
        if (layouts[i])
            p->blas->layout_drop(layouts[i]);
    if (p->matmul)
        p->blas->matmul_drop(p->matmul);
    free(p);
}

bool device_blas_run(struct device *d, const struct blas_product *p, void *const *operands,
                     void *workspace)
{
    const struct device_blas *b = p->blas;
    const struct roles *r = &p->role;
    const float one = 1, beta = operands[r->c] ? p->beta : 0;
    void *c = operands[r->c] ? operands[r->c] : operands[r->d];
    int status = LT_SUCCESS;
    if (r->bias >= 0)
        status = b->matmul_set(p->matmul, LT_MATMUL_BIAS_POINTER, &operands[r->bias],
                               sizeof operands[0]);
    if (status == LT_SUCCESS)
        status = b->run(b->handle, p->matmul, &one, operands[r->a], p->a, operands[r->b], p->b,
                        &beta, c, p->c, operands[r->d], p->d, &p->algorithm, workspace,
                        p->workspace, d->api->stream(d));
    if (status != LT_SUCCESS)
        snprintf(d->why, sizeof d->why, "%s: status %d of a product", b->name, status);
    return status == LT_SUCCESS;
}

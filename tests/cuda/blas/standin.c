/* standin.c - libcublasLt.so.13 as far as the run-time library uses it, in plain C on emulated
 * device memory: sums in double precision, descriptors read and refusals made as NVIDIA documents
 * them (cublasLt.h and the tables of cublasLtMatmul in the cuBLAS manual). Where the manual leaves
 * the library a choice, this one takes the strict side: it uses every byte of alignment that it was
 * promised, and a sum that may be reduced in place is added up in another order each time. */
#include "standin.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cublaslt.h"

#define EXPORT __attribute__((visibility("default")))

EXPORT extern struct standin_state standin;
struct standin_state standin;

/* ---- descriptors: attributes by number ---- */

enum { ATTRIBUTES = 32, MAGIC = 0x17ab1e };
enum family { LAYOUT, MATMUL, PREFERENCE, HANDLE };
struct lt_opaque {
    enum family family;
    union {
        int32_t i;
        uint64_t u;
        void *p;
    } value[ATTRIBUTES];
};

/* Bytes of attribute i, a digit each; 0: none that can be set. */
static const char *const sizes[] = {[LAYOUT] = "44888488",
                                    [MATMUL] = "444444448088888448888848814",
                                    [PREFERENCE] = "4804044444008",
                                    [HANDLE] = ""};

static int create(lt_handle *out, enum family family)
{
    if (!out)
        return LT_INVALID_VALUE;
    *out = calloc(1, sizeof **out);
    if (!*out)
        return 3;
    (*out)->family = family;
    return LT_SUCCESS;
}

static int drop(lt_handle h)
{
    free(h);
    return LT_SUCCESS;
}

static int set(lt_handle h, enum family family, int attribute, const void *from, size_t bytes)
{
    size_t n = strlen(sizes[family]);
    if (!h || h->family != family || !from || attribute < 0 || (size_t)attribute >= n || !bytes ||
        (size_t)(sizes[family][attribute] - '0') != bytes)
        return LT_INVALID_VALUE;
    memcpy(&h->value[attribute], from, bytes);
    return LT_SUCCESS;
}

EXPORT int cublasLtCreate(lt_handle *out);
EXPORT int cublasLtDestroy(lt_handle h);
EXPORT size_t cublasLtGetVersion(void);
EXPORT int cublasLtMatrixLayoutCreate(lt_handle *out, int type, uint64_t rows, uint64_t columns,
                                      int64_t ld);
EXPORT int cublasLtMatrixLayoutDestroy(lt_handle h);
EXPORT int cublasLtMatrixLayoutSetAttribute(lt_handle h, int attribute, const void *from, size_t n);
EXPORT int cublasLtMatmulDescCreate(lt_handle *out, int compute, int scale);
EXPORT int cublasLtMatmulDescDestroy(lt_handle h);
EXPORT int cublasLtMatmulDescSetAttribute(lt_handle h, int attribute, const void *from, size_t n);
EXPORT int cublasLtMatmulPreferenceCreate(lt_handle *out);
EXPORT int cublasLtMatmulPreferenceDestroy(lt_handle h);
EXPORT int cublasLtMatmulPreferenceSetAttribute(lt_handle h, int attribute, const void *from,
                                                size_t n);
EXPORT int cublasLtMatmulAlgoGetHeuristic(lt_handle h, lt_handle matmul, lt_handle a, lt_handle b,
                                          lt_handle c, lt_handle d, lt_handle preference,
                                          int requested, struct lt_found *out, int *n);
EXPORT int cublasLtMatmul(lt_handle h, lt_handle matmul, const void *alpha, const void *a,
                          lt_handle a_layout, const void *b, lt_handle b_layout, const void *beta,
                          const void *c, lt_handle c_layout, void *d, lt_handle d_layout,
                          const struct lt_algorithm *algorithm, void *workspace, size_t bytes,
                          void *stream);

int cublasLtCreate(lt_handle *out)
{
    return standin.fault == FAULT_START ? LT_NOT_INITIALIZED : create(out, HANDLE);
}

int cublasLtDestroy(lt_handle h)
{
    return drop(h);
}

size_t cublasLtGetVersion(void)
{
    return 139900; /* no release */
}

int cublasLtMatrixLayoutCreate(lt_handle *out, int type, uint64_t rows, uint64_t columns,
                               int64_t ld)
{
    int status = create(out, LAYOUT);
    if (status != LT_SUCCESS)
        return status;
    (*out)->value[LT_LAYOUT_TYPE].i = type;
    (*out)->value[LT_LAYOUT_ROWS].u = rows;
    (*out)->value[LT_LAYOUT_COLS].u = columns;
    (*out)->value[LT_LAYOUT_LD].u = (uint64_t)ld;
    (*out)->value[5].i = 1; /* batches */
    return LT_SUCCESS;
}

int cublasLtMatrixLayoutDestroy(lt_handle h)
{
    return drop(h);
}

int cublasLtMatrixLayoutSetAttribute(lt_handle h, int attribute, const void *from, size_t n)
{
    return set(h, LAYOUT, attribute, from, n);
}

int cublasLtMatmulDescCreate(lt_handle *out, int compute, int scale)
{
    int status = create(out, MATMUL);
    if (status != LT_SUCCESS)
        return status;
    (*out)->value[0].i = compute;
    (*out)->value[1].i = scale;
    (*out)->value[LT_MATMUL_EPILOGUE].i = LT_EPILOGUE_DEFAULT;
    (*out)->value[LT_MATMUL_BIAS_TYPE].i = -1;
    return LT_SUCCESS;
}

int cublasLtMatmulDescDestroy(lt_handle h)
{
    return drop(h);
}

int cublasLtMatmulDescSetAttribute(lt_handle h, int attribute, const void *from, size_t n)
{
    return set(h, MATMUL, attribute, from, n);
}

int cublasLtMatmulPreferenceCreate(lt_handle *out)
{
    int status = create(out, PREFERENCE);
    if (status != LT_SUCCESS)
        return status;
    (*out)->value[LT_PREFERENCE_REDUCTIONS].i = 7;
    for (int i = LT_PREFERENCE_ALIGN_A; i <= LT_PREFERENCE_ALIGN_D; i++)
        (*out)->value[i].i = 256;
    return LT_SUCCESS;
}

int cublasLtMatmulPreferenceDestroy(lt_handle h)
{
    return drop(h);
}

int cublasLtMatmulPreferenceSetAttribute(lt_handle h, int attribute, const void *from, size_t n)
{
    return set(h, PREFERENCE, attribute, from, n);
}

/* ---- a product, resolved ---- */

struct matrix {
    int type, order;
    int64_t rows, columns, ld;
    const void *at;
};
struct product {
    struct matrix a, b, c, d;
    int trans_a, trans_b, epilogue, bias_type, reduction, splits;
    const void *bias;
    double alpha, beta;
    void *workspace;
    size_t workspace_bytes;
};

static struct matrix matrix_of(lt_handle h, const void *at)
{
    return (struct matrix){h->value[LT_LAYOUT_TYPE].i,          h->value[LT_LAYOUT_ORDER].i,
                           (int64_t)h->value[LT_LAYOUT_ROWS].u, (int64_t)h->value[LT_LAYOUT_COLS].u,
                           (int64_t)h->value[LT_LAYOUT_LD].u,   at};
}

static int64_t stored_rows(const struct matrix *m) /* that lie side by side */
{
    return m->order == LT_ORDER_COL ? m->rows : m->columns;
}

static size_t element(const struct matrix *m)
{
    return m->type == LT_R_32F ? 4 : 2;
}

static size_t place(const struct matrix *m, int64_t row, int64_t column)
{
    return (size_t)(m->order == LT_ORDER_COL ? row + column * m->ld : row * m->ld + column);
}

static size_t extent(const struct matrix *m)
{
    return (place(m, m->rows - 1, m->columns - 1) + 1) * element(m);
}

static bool is_layout(lt_handle h)
{
    return h && h->family == LAYOUT;
}

/* In conflict: INVALID_VALUE. */
static bool consistent(const struct product *p)
{
    const struct matrix *list[] = {&p->a, &p->b, &p->c, &p->d};
    for (int i = 0; i < 4; i++)
        if (list[i]->rows < 1 || list[i]->columns < 1 || list[i]->ld < stored_rows(list[i]))
            return false;
    int64_t m = p->trans_a ? p->a.columns : p->a.rows, k = p->trans_a ? p->a.rows : p->a.columns;
    int64_t k2 = p->trans_b ? p->b.columns : p->b.rows, n = p->trans_b ? p->b.rows : p->b.columns;
    return m == p->d.rows && n == p->d.columns && k == k2 && p->c.rows == m && p->c.columns == n;
}

/* The rows of the manual's table for sums and scales in fp32 that have bf16 factors. */
static bool supported(const struct product *p, lt_handle matmul, lt_handle d)
{
    bool types = matmul->value[0].i == LT_COMPUTE_32F && matmul->value[1].i == LT_R_32F &&
                 p->a.type == LT_R_16BF && p->b.type == LT_R_16BF && p->c.type == p->d.type &&
                 (p->d.type == LT_R_16BF || p->d.type == LT_R_32F);
    bool plain = matmul->value[2].i == 0 && matmul->value[5].i == 0 && matmul->value[6].i == 0 &&
                 d->value[5].i == 1 && p->a.order <= 1 && p->b.order <= 1 && p->c.order <= 1 &&
                 p->d.order == p->c.order;
    bool biased = p->epilogue == LT_EPILOGUE_BIAS;
    if (biased && p->bias_type != -1 && p->bias_type != p->d.type)
        return false;
    return types && plain && (biased || p->epilogue == LT_EPILOGUE_DEFAULT);
}

static struct product product_of(lt_handle matmul, lt_handle a, lt_handle b, lt_handle c,
                                 lt_handle d)
{
    return (struct product){.a = matrix_of(a, NULL),
                            .b = matrix_of(b, NULL),
                            .c = matrix_of(c, NULL),
                            .d = matrix_of(d, NULL),
                            .trans_a = matmul->value[LT_MATMUL_TRANSA].i,
                            .trans_b = matmul->value[LT_MATMUL_TRANSB].i,
                            .epilogue = matmul->value[LT_MATMUL_EPILOGUE].i,
                            .bias_type = matmul->value[LT_MATMUL_BIAS_TYPE].i,
                            .bias = matmul->value[LT_MATMUL_BIAS_POINTER].p};
}

/* ---- the search ---- */

/* An algorithm is {MAGIC, reduction, splits, bytes of workspace, alignments of A, B, C, D}. */
static struct lt_found algorithm(int reduction, int splits, size_t workspace, lt_handle wanted)
{
    struct lt_found f = {.workspace = workspace, .state = LT_SUCCESS, .waves = 1};
    uint64_t aligned = 0;
    for (int i = 0; i < 4; i++)
        aligned = aligned << 16 | (uint16_t)wanted->value[LT_PREFERENCE_ALIGN_A + i].i;
    memcpy(f.algorithm.data,
           (uint64_t[]){MAGIC, (uint64_t)reduction, (uint64_t)splits, workspace, aligned},
           5 * sizeof(uint64_t));
    return f;
}

int cublasLtMatmulAlgoGetHeuristic(lt_handle h, lt_handle matmul, lt_handle a, lt_handle b,
                                   lt_handle c, lt_handle d, lt_handle preference, int requested,
                                   struct lt_found *out, int *n)
{
    if (!h || h->family != HANDLE)
        return LT_NOT_INITIALIZED;
    if (!matmul || matmul->family != MATMUL || !is_layout(a) || !is_layout(b) || !is_layout(c) ||
        !is_layout(d) || !preference || preference->family != PREFERENCE || requested < 1 || !out ||
        !n)
        return LT_INVALID_VALUE;
    *n = 0;
    struct product p = product_of(matmul, a, b, c, d);
    if (!consistent(&p))
        return LT_INVALID_VALUE;
    if (!supported(&p, matmul, d))
        return LT_NOT_SUPPORTED;
    int64_t depth = p.trans_a ? p.a.rows : p.a.columns;
    int allowed = preference->value[LT_PREFERENCE_REDUCTIONS].i;
    size_t room = preference->value[LT_PREFERENCE_WORKSPACE].u;
    enum { SPLIT = 3, WORKSPACE = 192 };
    if (depth >= 64 && allowed & LT_REDUCTION_INPLACE && room >= WORKSPACE)
        out[(*n)++] = algorithm(LT_REDUCTION_INPLACE, SPLIT, WORKSPACE, preference);
    if (depth >= 64 && allowed & LT_REDUCTION_COMPUTE && room >= WORKSPACE && *n < requested)
        out[(*n)++] = algorithm(LT_REDUCTION_COMPUTE, SPLIT, WORKSPACE, preference);
    if (*n < requested)
        out[(*n)++] = algorithm(0, 1, 0, preference);
    return LT_SUCCESS;
}

/* ---- computing ---- */

static double number(const struct matrix *m, const void *copy, int64_t row, int64_t column)
{
    size_t at = place(m, row, column);
    if (m->type == LT_R_32F)
        return (double)((const float *)copy)[at];
    uint32_t bits = (uint32_t)((const uint16_t *)copy)[at] << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return (double)x;
}

static void put(const struct matrix *m, void *to, double value)
{
    float x = (float)value;
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint16_t half = (uint16_t)(isnan(x) ? 0x7fff : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
    memcpy(to, m->type == LT_R_32F ? (void *)&x : (void *)&half, element(m));
}

/* op(m) as rows x depth of numbers (`across`: m holds depth x rows); NULL: a fault. */
static double *fetch(struct standin_stream *s, const struct matrix *m, bool across)
{
    int64_t rows = across ? m->columns : m->rows, depth = across ? m->rows : m->columns;
    char *copy = malloc(extent(m));
    double *out = malloc((size_t)(rows * depth) * sizeof *out);
    bool ok = copy && out && s->read(copy, m->at, extent(m));
    for (int64_t i = 0; ok && i < rows; i++)
        for (int64_t k = 0; k < depth; k++)
            out[i * depth + k] = across ? number(m, copy, k, i) : number(m, copy, i, k);
    free(copy);
    if (!ok)
        free(out);
    return ok ? out : NULL;
}

/* A row of op(A) times a column of op(B): the parts of a split sum as fp32, in order, or as they
 * come. */
static double sum_of(const struct product *p, const double *a, const double *b, int64_t depth,
                     int64_t row)
{
    int64_t each = (depth + p->splits - 1) / p->splits;
    long turn = p->reduction == LT_REDUCTION_INPLACE ? standin.runs + row : 0;
    double sum = 0;
    for (int i = 0; i < p->splits; i++) {
        int64_t from = (i + turn) % p->splits * each,
                to = from + each < depth ? from + each : depth;
        double part = 0;
        for (int64_t k = from; k < to; k++)
            part += a[k] * b[k];
        sum = p->splits == 1 ? part : (double)((float)sum + (float)part);
    }
    return sum;
}

static void column(struct standin_stream *s, const struct product *p, int64_t n, const double *sums)
{
    const struct matrix *d = &p->d;
    size_t bytes = element(d);
    char *out = malloc((size_t)d->rows * bytes), *to = (char *)(uintptr_t)d->at;
    bool together = out && d->order == LT_ORDER_COL;
    for (int64_t m = 0; out && m < d->rows; m++) {
        put(d, out + (size_t)m * bytes, sums[m]);
        if (!together)
            s->write(to + place(d, m, n) * bytes, out + (size_t)m * bytes, bytes);
    }
    if (together)
        s->write(to + place(d, 0, n) * bytes, out, (size_t)d->rows * bytes);
    free(out);
}

static bool compute(struct standin_stream *s, const void *what)
{
    const struct product *p = what;
    const struct matrix bias = {p->d.type, LT_ORDER_COL, p->d.rows, 1, p->d.rows, p->bias};
    bool biased = p->epilogue == LT_EPILOGUE_BIAS;
    int64_t rows = p->d.rows, depth = p->trans_a ? p->a.rows : p->a.columns;
    double *a = fetch(s, &p->a, p->trans_a), *b = fetch(s, &p->b, !p->trans_b);
    double *c = p->beta != 0 ? fetch(s, &p->c, true) : NULL;
    double *v = biased ? fetch(s, &bias, false) : NULL, *sums = malloc((size_t)rows * sizeof *sums);
    bool ok = a && b && sums && (p->beta == 0 || c) && (!biased || v);
    standin.runs++;
    standin.columns = p->d.columns;
    if (ok && p->workspace_bytes)
        s->write(p->workspace, &(uint64_t){0x7ff8dead7ff8dead}, sizeof(uint64_t));
    for (int64_t n = 0; ok && n < p->d.columns; n++) {
        for (int64_t m = 0; m < rows; m++)
            sums[m] = p->alpha * sum_of(p, a + m * depth, b + n * depth, depth, m) +
                      (c ? p->beta * c[n * rows + m] : 0) + (v ? v[m] : 0);
        column(s, p, n, sums);
    }
    free(a);
    free(b);
    free(c);
    free(v);
    free(sums);
    return ok;
}

/* ---- cublasLtMatmul ---- */

static void plant(struct product *p)
{
    switch (standin.fault) {
    case FAULT_LD_A:
        p->a.ld = p->a.columns;
        break;
    case FAULT_LD_B:
        p->b.ld = p->b.columns;
        break;
    case FAULT_BETA:
        p->beta = 0;
        break;
    case FAULT_TRANS_A:
        p->trans_a = !p->trans_a;
        break;
    case FAULT_TRANS_B:
        p->trans_b = !p->trans_b;
        break;
    case FAULT_BIAS:
        p->epilogue = LT_EPILOGUE_DEFAULT;
        break;
    case FAULT_TYPE:
        p->d.type = p->c.type = LT_R_16BF;
        break;
    default:
        break;
    }
}

static bool aligned(const void *p, unsigned bytes)
{
    return bytes && (uintptr_t)p % bytes == 0;
}

static bool overlap(const struct matrix *m, const struct matrix *d)
{
    const char *a = m->at, *b = d->at;
    return a < b + extent(d) && b < a + extent(m);
}

/* Pointers and workspace as the algorithm was promised them. */
static bool usable(const struct product *p, const struct lt_algorithm *x, size_t bytes)
{
    const struct matrix *list[] = {&p->a, &p->b, &p->c, &p->d};
    if (x->data[0] != MAGIC || bytes < x->data[3] || (bytes && !aligned(p->workspace, 256)))
        return false;
    for (int i = 0; i < 4; i++)
        if (!list[i]->at || !aligned(list[i]->at, (unsigned)(x->data[4] >> (48 - 16 * i) & 0xffff)))
            return false;
    bool in_place = p->c.at == p->d.at && p->c.ld == p->d.ld;
    return !overlap(&p->a, &p->d) && !overlap(&p->b, &p->d) &&
           (p->beta == 0 || in_place || !overlap(&p->c, &p->d)) &&
           (p->epilogue != LT_EPILOGUE_BIAS || aligned(p->bias, 16));
}

int cublasLtMatmul(lt_handle h, lt_handle matmul, const void *alpha, const void *a,
                   lt_handle a_layout, const void *b, lt_handle b_layout, const void *beta,
                   const void *c, lt_handle c_layout, void *d, lt_handle d_layout,
                   const struct lt_algorithm *x, void *workspace, size_t bytes, void *stream)
{
    struct standin_stream *s = stream;
    if (!h || h->family != HANDLE)
        return LT_NOT_INITIALIZED;
    if (!matmul || matmul->family != MATMUL || !is_layout(a_layout) || !is_layout(b_layout) ||
        !is_layout(c_layout) || !is_layout(d_layout) || !alpha || !beta || !x || !s)
        return LT_INVALID_VALUE;
    struct product p = product_of(matmul, a_layout, b_layout, c_layout, d_layout);
    p.a.at = a;
    p.b.at = b;
    p.c.at = c;
    p.d.at = d;
    p.alpha = (double)*(const float *)alpha;
    p.beta = (double)*(const float *)beta;
    p.workspace = workspace;
    p.workspace_bytes = bytes;
    p.reduction = (int)x->data[1];
    p.splits = (int)x->data[2];
    plant(&p);
    if (!consistent(&p) || !usable(&p, x, bytes))
        return LT_INVALID_VALUE;
    if (!supported(&p, matmul, d_layout))
        return LT_NOT_SUPPORTED;
    p.d.columns -= standin.fault == FAULT_COLUMNS;
    return s->queue(s, compute, &p, sizeof p) ? LT_SUCCESS : LT_EXECUTION_FAILED;
}

/* device_products.c - which matrix products of a session the library does (device_blas.c), and for
 * how many rows.
 *
 * Our own kernels read from device memory how many rows of a prompt are in use; a call of the
 * library has its shape in the graph. So a session with the library has a graph of prefill for each
 * sixteenth of CHUNK rows, and takes the smallest that the call in SLAB_CALL fits. Rows between are
 * computed, and nobody reads them. Finer steps would gain little: a sixteenth of 4096 rows is where
 * a product stops waiting for its weights. */
#include "gpu.h"

#include <stdlib.h>
#include <string.h>

struct entry {
    int kernel;
    int64_t rows;
    struct blas_product *product; /* NULL: the library refused */
};
struct session_products {
    struct device_blas *blas;
    struct entry *list;
    int n, room;
    bool own;     /* our own kernels for now, for comparison */
    int row_step; /* of the next prefill: as many sixteenths of its rows, less one */
};
enum { MATMUL_CALL = 5, ALL_ROWS = DEVICE_ROW_STEPS - 1 };

bool products_choose(struct device *d, const char *word, struct failure *f)
{
    static const char *const words[] = {
        [PRODUCTS_OWN] = "own", [PRODUCTS_AUTO] = "auto", [PRODUCTS_LIBRARY] = "library"};
    for (int i = 0; word && i < 3; i++)
        if (strcmp(word, words[i]) == 0) {
            if (d)
                d->products = (enum products)i;
            return true;
        }
    if (d)
        d->products = PRODUCTS_AUTO;
    return !word || failed(f, STATUS_USAGE, "--products is own, library or auto, not %s", word);
}

bool products_open(struct session *s, struct failure *f)
{
    char why[160];
    struct device *d = s->device;
    s->products = need(calloc(1, sizeof *s->products));
    s->products->row_step = ALL_ROWS;
    if (d->products == PRODUCTS_OWN || (d->products == PRODUCTS_AUTO && !s->training))
        return true;
    s->products->blas = device_blas_open(d, why, sizeof why);
    return s->products->blas || d->products != PRODUCTS_LIBRARY ||
           failed(f, STATUS_WORLD, "--products library: %s", why);
}

void products_close(struct session *s)
{
    struct session_products *p = s->products;
    if (!p)
        return;
    for (int i = 0; i < p->n; i++)
        device_blas_drop(p->list[i].product);
    device_blas_close(p->blas);
    free(p->list);
    free(p);
    s->products = NULL;
}

size_t products_workspace(const struct session *s)
{
    return s->products->blas ? device_blas_workspace(s->products->blas) : 0;
}

const char *products_name(const struct session *s)
{
    return s->products->blas && !s->products->own ? device_blas_name(s->products->blas) : NULL;
}

/* ---- which product of how many rows ---- */

void products_rows(struct session *s, int rows)
{
    int step = (int)(((int64_t)rows * DEVICE_ROW_STEPS - 1) / s->cuda->chunk);
    s->products->row_step = rows < 1 ? 0 : step < ALL_ROWS ? step : ALL_ROWS;
}

int products_row_step(const struct session *s, enum archrt_phase_id id)
{
    bool steps = id == ARCHRT_PHASE_PREFILL && products_name(s);
    return steps ? s->products->row_step : ALL_ROWS;
}

/* Those that the call may have, where the kernel asks it; all. */
static int64_t rows_of(const struct session *s, const struct archrt_step *step)
{
    const struct archrt_cuda_kernel *k = &s->cuda->kernels[step->kernel];
    if (k->kind != ARCHRT_CUDA_MATMUL || step->operands[MATMUL_CALL].slab == SLAB_NONE)
        return k->m;
    return (k->m * (s->products->row_step + 1) + ALL_ROWS) / DEVICE_ROW_STEPS;
}

static const struct entry *find(const struct session *s, const struct archrt_step *step)
{
    const struct session_products *p = s->products;
    int64_t rows = rows_of(s, step);
    for (int i = 0; i < p->n; i++)
        if (p->list[i].kernel == step->kernel && p->list[i].rows == rows)
            return &p->list[i];
    return NULL;
}

const struct blas_product *products_library(const struct session *s, const struct archrt_step *step)
{
    if (s->products->own || !s->products->blas)
        return NULL;
    const struct entry *found = find(s, step);
    return found ? found->product : NULL;
}

bool products_run(struct session *s, const struct blas_product *p, void *const *operands)
{
    return device_blas_run(s->device, p, operands, s->slabs[SLAB_SCRATCH]);
}

/* ---- plans ---- */

/* Products that our own kernels do where nobody asked for the library by name. fp32 sums on top of
 * a residual are twice the bytes of the product's operands where its depth is short; our kernels
 * ask for the residual while they multiply. On an H200 the library took 287 us for such a product
 * of 16384 x 2048 x 2048, 79 more than for the same one without (ours 231), but 295 for one of 2304
 * in depth (ours 324). */
enum { SHORT_DEPTH = 2048 };
static bool ours_by_shape(const struct session *s, const struct archrt_cuda_kernel *k)
{
    return s->device->products != PRODUCTS_LIBRARY && k->kind == ARCHRT_CUDA_MATMUL &&
           k->flags & ARCHRT_CUDA_WITH_RESIDUAL && k->k <= SHORT_DEPTH;
}

/* The lowest bit set in any address that operand i has, in whatever layer or chunk. */
static unsigned alignment(const struct session *s, int kernel, int i)
{
    uintptr_t bits = 256;
    for (int id = 0; id < ARCHRT_PHASES; id++)
        for (int l = 0; l < s->cuda->phases[id].n; l++) {
            const struct archrt_loop *loop = &s->cuda->phases[id].loops[l];
            for (int k = 0; k < loop->n; k++) {
                const struct archrt_operand *o = &loop->steps[k].operands[i];
                if (loop->steps[k].kernel == kernel && i < loop->steps[k].n)
                    bits |= ((uintptr_t)s->slabs[o->slab] + o->at) | o->layer | o->chunk;
            }
        }
    return (unsigned)(bits & -bits);
}

static struct entry *plan(struct session *s, const struct archrt_step *step)
{
    struct session_products *p = s->products;
    const struct archrt_cuda_kernel *k = &s->cuda->kernels[step->kernel];
    struct blas_shape shape = {
        .kind = k->kind, .rows = rows_of(s, step), .n = k->n, .k = k->k, .flags = k->flags};
    for (int i = 0; i < BLAS_OPERANDS; i++)
        shape.align[i] = alignment(s, step->kernel, i);
    if (k->flags & ARCHRT_CUDA_WITH_BIAS) /* aligned as the worst of them */
        shape.bias = (void *)(uintptr_t)shape.align[BLAS_BIAS];
    if (p->n == p->room) {
        p->room = p->room ? 2 * p->room : 32;
        p->list = need(realloc(p->list, (size_t)p->room * sizeof *p->list));
    }
    p->list[p->n] = (struct entry){step->kernel, shape.rows, device_blas_plan(p->blas, &shape)};
    return &p->list[p->n++];
}

/* The first call of a product loads its code, which a graph that is being recorded does not allow:
 * so each runs once beforehand. That harms nothing. What a prompt's products write is written again
 * before it is read, and those of training are all planned in session_open, where memory holds
 * zeros: their results are zeros too. */
bool products_prepare(struct session *s, enum archrt_phase_id id, struct failure *f)
{
    const struct archrt_phase *phase = &s->cuda->phases[id];
    for (int l = 0; products_name(s) && l < phase->n; l++)
        for (int i = 0; i < phase->loops[l].n; i++) {
            const struct archrt_step *step = &phase->loops[l].steps[i];
            const struct archrt_cuda_kernel *k = &s->cuda->kernels[step->kernel];
            if (!device_blas_can(k) || ours_by_shape(s, k) || find(s, step))
                continue;
            if (plan(s, step)->product && !session_step(s, step, 0, 0, false, f))
                return false;
        }
    return true;
}

bool products_prepare_all(struct session *s, struct failure *f)
{
    if (s->training)
        return products_prepare(s, ARCHRT_PHASE_TRAIN, f) &&
               products_prepare(s, ARCHRT_PHASE_EVAL, f);
    return products_prepare(s, ARCHRT_PHASE_PREFILL, f);
}

void products_compare(struct session *s, bool own)
{
    s->products->own = own;
    session_forget(s);
}

/* device_run.c - walks the emitted tables: slabs, images, phases as graphs. */
#include "gpu.h"

#include <stdlib.h>
#include <string.h>

static bool refused(const struct session *s, struct failure *f, const char *doing)
{
    return failed(f, STATUS_WORLD, "%s: cannot %s: %s", s->device->name, doing, s->device->why);
}

const struct archrt_cuda_target *device_target(const struct archrt_cuda *cuda, int sm)
{
    const struct archrt_cuda_target *best = NULL;
    for (int i = 0; i < cuda->n_targets; i++) {
        const struct archrt_cuda_target *t = &cuda->targets[i];
        bool binary = memcmp(t->images[0].data, "\177ELF", 4) == 0;
        bool fits = t->sm <= sm && (!binary || t->sm / 10 == sm / 10) && (!t->exact || t->sm == sm);
        if (fits && (!best || t->sm > best->sm))
            best = t;
    }
    return best;
}

/* ---- slabs ---- */

static size_t scratch_bytes(const struct session *s)
{
    size_t most = 0;
    for (int i = 0; i < s->cuda->n_kernels; i++) {
        const struct archrt_cuda_kernel *k = &s->cuda->kernels[i];
        size_t bytes = s->target->launches[i].scratch;
        if ((strcmp(k->phase, "train") == 0) == s->training && bytes > most)
            most = bytes;
    }
    return most;
}

static bool alloc_slabs(struct session *s, struct failure *f)
{
    const struct archrt_cuda *c = s->cuda;
    struct device *d = s->device;
    for (int i = 1; i < SLAB_COUNT; i++)
        s->bytes[i] = s->training ? c->train_bytes[i] : c->infer_bytes[i];
    s->bytes[SLAB_SCRATCH] = scratch_bytes(s);
    if (s->bytes[SLAB_SCRATCH] < products_workspace(s))
        s->bytes[SLAB_SCRATCH] = products_workspace(s);
    s->bytes[SLAB_CACHE] = c->page_bytes * (size_t)c->layers * (size_t)s->pool_pages;
    size_t all = 0;
    for (int i = 1; i < SLAB_COUNT; i++)
        all += s->bytes[i];
    for (int i = 1; i < SLAB_COUNT; i++)
        if (s->bytes[i] && (!d->api->alloc(d, s->bytes[i], &s->slabs[i]) ||
                            !d->api->clear(d, s->slabs[i], s->bytes[i]))) {
            char need_text[32];
            return failed(f, STATUS_WORLD, "%s: %s of memory for %s: %s", d->name,
                          show_bytes(need_text, (double)all),
                          s->training ? "training" : "inference", d->why);
        }
    if (s->training) {
        s->slabs[SLAB_VECTORS] =
            (char *)s->slabs[SLAB_PARAMS] + sizeof(float) * (size_t)c->param_decayed;
        s->slabs[SLAB_OLD_GRADS] = s->slabs[SLAB_GRADS];
    }
    return true;
}

/* ---- images ---- */

static bool load_images(struct session *s, struct failure *f)
{
    const struct archrt_cuda *c = s->cuda;
    struct device *d = s->device;
    bool *wanted = need(calloc((size_t)c->n_units, sizeof *wanted));
    bool ok = true;
    for (int i = 0; i < c->n_kernels; i++)
        if ((strcmp(c->kernels[i].phase, "train") == 0) == s->training)
            wanted[c->kernels[i].unit] = true;
    for (int u = 0; u < c->n_units && ok; u++) {
        const struct archrt_image *image = &s->target->images[u];
        if (wanted[u])
            ok = d->api->load(d, c->units[u], image->data, (size_t)(image->end - image->data),
                              &s->modules[u]);
    }
    free(wanted);
    return ok || refused(s, f, "load the kernels");
}

static bool find_functions(struct session *s, struct failure *f)
{
    const struct archrt_cuda *c = s->cuda;
    for (int i = 0; i < c->n_kernels; i++) {
        const struct archrt_cuda_kernel *k = &c->kernels[i];
        for (int pass = 0; s->modules[k->unit] && pass < k->passes; pass++) {
            const struct archrt_launch *launch = &s->target->launches[i].pass[pass];
            char name[96];
            if (launch->threads == 0)
                continue;
            snprintf(name, sizeof name, pass ? "%s_%d" : "%s", k->name, pass + 1);
            if (!s->device->api->function(s->device, s->modules[k->unit], name, launch->shared,
                                          k->early && s->device->sm >= 90, &s->functions[i][pass]))
                return refused(s, f, name);
        }
    }
    return true;
}

bool session_open(struct session *s, struct device *device, const struct archrt_cuda *cuda,
                  bool training, int pool_pages, struct failure *f)
{
    *s = (struct session){
        .device = device, .cuda = cuda, .training = training, .pool_pages = pool_pages};
    s->target = device_target(cuda, device->sm);
    if (!s->target)
        return failed(f, STATUS_WORLD,
                      "%s is an sm_%d, for which this program has no code: compile it with "
                      "--target sm_%d",
                      device->name, device->sm, device->sm);
    s->modules = need(calloc((size_t)cuda->n_units, sizeof *s->modules));
    s->functions = need(calloc((size_t)cuda->n_kernels, sizeof *s->functions));
    if (products_open(s, f) && alloc_slabs(s, f) && load_images(s, f) && find_functions(s, f) &&
        session_make_maps(s, f) && products_prepare_all(s, f))
        return true;
    session_close(s);
    return false;
}

void session_forget(struct session *s)
{
    struct device *d = s->device;
    void **graphs = &s->graphs[0][0][0];
    d->api->wait(d);
    for (size_t i = 0; i < sizeof s->graphs / sizeof *graphs; i++)
        if (graphs[i])
            d->api->drop_graph(d, graphs[i]);
    memset(s->graphs, 0, sizeof s->graphs);
}

void session_close(struct session *s)
{
    struct device *d = s->device;
    if (!d)
        return;
    session_forget(s);
    products_close(s);
    for (int u = 0; s->modules && u < s->cuda->n_units; u++)
        if (s->modules[u])
            d->api->unload(d, s->modules[u]);
    if (s->training)
        s->slabs[SLAB_VECTORS] = s->slabs[SLAB_OLD_GRADS] = NULL;
    for (int i = 1; i < SLAB_COUNT; i++)
        d->api->release(d, s->slabs[i]);
    free(s->modules);
    free(s->functions);
    free(s->maps);
    *s = (struct session){.device = NULL};
}

/* ---- phases ---- */

/* Of turns that all leave their sums in one place, the first one overwrites. */
static bool overwritten(const struct session *s, const struct archrt_operand *o, int chunk)
{
    return o->slab == SLAB_OLD_GRADS && s->overwrites && (chunk == 0 || o->chunk > 0);
}

void *session_operand(const struct session *s, const struct archrt_operand *o, int layer, int chunk)
{
    char *base = overwritten(s, o, chunk) ? NULL : s->slabs[o->slab];
    size_t stride = o->layer * (o->slab == SLAB_CACHE ? (size_t)s->pool_pages : 1);
    return base ? base + o->at + (size_t)layer * stride + (size_t)chunk * o->chunk : NULL;
}

bool session_step(struct session *s, const struct archrt_step *step, int layer, int chunk,
                  bool early, struct failure *f)
{
    const struct archrt_cuda_kernel *k = &s->cuda->kernels[step->kernel];
    void *pointers[ARCHRT_MAX_OPERANDS], *args[ARCHRT_MAX_OPERANDS];
    for (int i = 0; i < step->n; i++) {
        pointers[i] = session_operand(s, &step->operands[i], layer, chunk);
        args[i] = &pointers[i];
    }
    const struct blas_product *product = products_library(s, step);
    if (product)
        return products_run(s, product, pointers) || refused(s, f, k->name);
    const struct cuda_maps *maps = &s->target->launches[step->kernel].maps;
    for (int i = 0; i < maps->n; i++) {
        void **pointer = &pointers[maps->list[i].operand];
        *pointer = session_map_of(s, &maps->list[i], *pointer);
    }
    bool behind = early; /* a kernel that it may overlap */
    for (int pass = 0; pass < k->passes; pass++) {
        const struct archrt_launch *launch = &s->target->launches[step->kernel].pass[pass];
        if (launch->threads == 0)
            continue;
        if (!s->device->api->launch(s->device, s->functions[step->kernel][pass], launch, args,
                                    step->n, k->early && behind))
            return refused(s, f, k->name);
        behind = true;
    }
    return true;
}

static bool wanted(enum archrt_when when, unsigned mask)
{
    return when == ARCHRT_ALWAYS || mask >> (when - 1) & 1u;
}

bool session_each_step(struct session *s, enum archrt_phase_id id, unsigned when,
                       session_visit *visit, struct failure *f)
{
    const struct archrt_phase *phase = &s->cuda->phases[id];
    for (int l = 0; l < phase->n; l++) {
        const struct archrt_loop *loop = &phase->loops[l];
        for (int turn = 0; wanted(loop->when, when) && turn < loop->turns; turn++) {
            int layer = loop->kind == ARCHRT_LAYERS            ? turn
                        : loop->kind == ARCHRT_LAYERS_REVERSED ? loop->turns - 1 - turn
                                                               : 0;
            for (int i = 0; i < loop->n; i++)
                if (!visit(s, &loop->steps[i], layer, loop->kind == ARCHRT_CHUNKS ? turn : 0, f))
                    return false;
        }
    }
    return true;
}

static bool launch(struct session *s, const struct archrt_step *step, int layer, int chunk,
                   struct failure *f)
{
    bool early = s->launched;
    /* The last node of a library's call need not be a kernel. */
    s->launched = !products_library(s, step);
    return session_step(s, step, layer, chunk, early, f);
}

bool session_launch(struct session *s, enum archrt_phase_id id, unsigned when, struct failure *f)
{
    s->launched = false;
    s->overwrites = id == ARCHRT_PHASE_TRAIN && when == FIRST_MICRO_BATCH;
    bool done = session_each_step(s, id, when, launch, f);
    s->overwrites = false;
    return done;
}

bool session_run(struct session *s, enum archrt_phase_id id, unsigned when, struct failure *f)
{
    struct device *d = s->device;
    void **graph = &s->graphs[id][when][products_row_step(s, id)];
    if (!*graph) {
        if (!products_prepare(s, id, f))
            return false;
        if (!d->api->begin_graph(d))
            return refused(s, f, "record a graph");
        bool launched = session_launch(s, id, when, f);
        if (!d->api->end_graph(d, graph))
            return launched && refused(s, f, "record a graph");
        if (!launched)
            return false;
    }
    return d->api->replay(d, *graph) || refused(s, f, "run a graph");
}

bool session_put(struct session *s, enum archrt_slab slab, size_t at, const void *from,
                 size_t bytes, struct failure *f)
{
    if (slab == SLAB_CALL)
        products_rows(s, ((const struct cuda_call *)from)->rows);
    return s->device->api->to_device(s->device, (char *)s->slabs[slab] + at, from, bytes) ||
           refused(s, f, "copy to it");
}

bool session_get(struct session *s, void *to, enum archrt_slab slab, size_t at, size_t bytes,
                 struct failure *f)
{
    return s->device->api->from_device(s->device, to, (char *)s->slabs[slab] + at, bytes) ||
           refused(s, f, "copy from it");
}

bool session_wait(struct session *s, struct failure *f)
{
    return s->device->api->wait(s->device) || refused(s, f, "finish its work");
}

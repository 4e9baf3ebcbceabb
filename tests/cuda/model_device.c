/* model_device.c - the emulator behind struct device_api: what a program's run-time library does on
 * a GPU, it does here, graphs included. A graph is the list of launches between its two ends, calls
 * of the stand-in for cuBLASLt among them.
 *
 * The queue is emptied as late as a GPU could: when somebody waits. Until then pinned memory has
 * not been read, and what was to be fetched is not there. */
#include "model_device.h"

#include "blas/standin.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_RECORDED = 512 };
struct recorded {
    struct emu_launch launch;
    void *args[EMU_MAX_ARGS];
    int n;
    bool (*work)(struct standin_stream *, const void *); /* or NULL: a launch */
    void *what;
};
struct graph {
    struct recorded list[MAX_RECORDED];
    int n;
};

enum queued_kind {
    QUEUED_LAUNCH,
    QUEUED_GRAPH,
    QUEUED_CLEAR,
    QUEUED_COPY,
    QUEUED_PUT,
    QUEUED_GET,
    QUEUED_MARK
};
struct queued {
    enum queued_kind kind;
    struct recorded launch;
    const struct graph *graph;
    void *to;
    const void *from;
    void *staged; /* a copy of `from`, pageable memory; freed when it was put */
    size_t bytes;
    int which;
};

enum { MAX_PINNED = 16 };
struct emulated {
    struct device device; /* first */
    struct standin_stream stream;
    struct graph *open;  /* being recorded */
    bool behind_library; /* the last thing launched was a call of a library */
    double marks[2];
    struct queued *queue; /* those from `done` to `n` are to come */
    size_t n, done, room, places[DEVICE_PLACES];
    struct {
        const char *at;
        size_t bytes;
    } pinned[MAX_PINNED];
};

long emulated_launches, emulated_early;

static struct emulated *of(struct device *d)
{
    return (struct emulated *)(void *)d;
}

static bool refuse(struct device *d, const char *why)
{
    snprintf(d->why, sizeof d->why, "%s", why);
    return false;
}

static bool alloc(struct device *d, size_t bytes, void **out)
{
    (void)d;
    *out = emu_alloc("slab", bytes);
    return true;
}

static void release(struct device *d, void *at)
{
    (void)d;
    emu_free(at);
}

static bool host_alloc(struct device *d, size_t bytes, void **out)
{
    for (int i = 0; i < MAX_PINNED; i++)
        if (!of(d)->pinned[i].at) {
            *out = malloc(bytes);
            of(d)->pinned[i].at = *out;
            of(d)->pinned[i].bytes = bytes;
            return *out || refuse(d, "no memory");
        }
    return refuse(d, "too much pinned memory");
}

static bool is_pinned(struct device *d, const void *p)
{
    for (int i = 0; i < MAX_PINNED; i++) {
        const char *at = of(d)->pinned[i].at;
        if (at && (const char *)p >= at && (const char *)p < at + of(d)->pinned[i].bytes)
            return true;
    }
    return false;
}

static void host_release(struct device *d, void *at)
{
    for (int i = 0; i < MAX_PINNED; i++)
        if (at && of(d)->pinned[i].at == at)
            of(d)->pinned[i].at = NULL;
    free(at);
}

/* ---- the queue ---- */

static bool queue(struct device *d, struct queued q)
{
    struct emulated *e = of(d);
    if (e->open)
        return refuse(d, "not a launch, and inside a graph");
    if (e->n == e->room) {
        e->room = 2 * e->room + 64;
        e->queue = realloc(e->queue, e->room * sizeof *e->queue);
        if (!e->queue)
            abort();
    }
    e->queue[e->n++] = q;
    return true;
}

static bool run(struct device *d, const struct recorded *r)
{
    if (r->work)
        return r->work(&of(d)->stream, r->what) || refuse(d, emu_fault());
    emulated_launches++;
    emulated_early += r->launch.dependent;
    return emu_run(&r->launch, r->args, r->n) || refuse(d, emu_fault());
}

static bool run_graph(struct device *d, const struct graph *g)
{
    for (int i = 0; i < g->n; i++)
        if (!run(d, &g->list[i]))
            return false;
    return true;
}

/* Bytes that nothing has written go along as they are. */
static void copy_now(void *to, const void *from, size_t bytes)
{
    memmove(to, from, bytes);
    emu_mark(to, bytes);
}

static bool perform(struct device *d, struct queued *q)
{
    bool ok;
    switch (q->kind) {
    case QUEUED_LAUNCH:
        ok = run(d, &q->launch);
        free(q->launch.what);
        return ok;
    case QUEUED_GRAPH:
        return run_graph(d, q->graph);
    case QUEUED_CLEAR:
        emu_fill(q->to, 0, q->bytes);
        return true;
    case QUEUED_COPY:
        copy_now(q->to, q->from, q->bytes);
        return true;
    case QUEUED_PUT:
        emu_write(q->to, q->staged ? q->staged : q->from, q->bytes);
        free(q->staged);
        return true;
    case QUEUED_GET:
        return emu_read(q->to, q->from, q->bytes) || refuse(d, emu_fault());
    default:
        of(d)->marks[q->which] = clock_seconds();
        return true;
    }
}

static bool empty_queue(struct device *d, size_t until)
{
    struct emulated *e = of(d);
    while (e->done < until)
        if (!perform(d, &e->queue[e->done++]))
            return false;
    return true;
}

static bool clear(struct device *d, void *at, size_t bytes)
{
    return queue(d, (struct queued){.kind = QUEUED_CLEAR, .to = at, .bytes = bytes});
}

static bool copy(struct device *d, void *to, const void *from, size_t bytes)
{
    return queue(d, (struct queued){.kind = QUEUED_COPY, .to = to, .from = from, .bytes = bytes});
}

static bool to_device(struct device *d, void *to, const void *from, size_t bytes)
{
    struct queued q = {.kind = QUEUED_PUT, .to = to, .from = from, .bytes = bytes};
    if (!is_pinned(d, from)) {
        q.staged = need(malloc(bytes));
        memcpy(q.staged, from, bytes);
    }
    return queue(d, q);
}

static bool from_device(struct device *d, void *to, const void *from, size_t bytes)
{
    memset(to, 0x5a, bytes); /* it is not there yet */
    return queue(d, (struct queued){.kind = QUEUED_GET, .to = to, .from = from, .bytes = bytes});
}

static bool wait(struct device *d)
{
    struct emulated *e = of(d);
    if (e->open)
        return refuse(d, "a wait inside a graph");
    bool ok = empty_queue(d, e->n);
    e->n = e->done = 0;
    memset(e->places, 0, sizeof e->places);
    return ok;
}

static bool place(struct device *d, int which)
{
    of(d)->places[which] = of(d)->n;
    return true;
}

static bool reach(struct device *d, int which)
{
    return empty_queue(d, of(d)->places[which]);
}

static bool tensor_map(struct device *d, void *to, const struct cuda_map *m, void *at)
{
    struct emu_tensor t = {.base = at, .element_bytes = 2, .rank = m->rank, .swizzle = 128};
    memcpy(t.extents, m->extents, sizeof m->extents);
    memcpy(t.box, m->box, sizeof m->box);
    for (int i = 0; i + 1 < m->rank; i++)
        t.strides[i] = m->strides[i];
    return emu_encode_map(to, &t) || refuse(d, emu_fault());
}

/* The kernels are linked in; the image is what the build put there in place of a cubin. */
static bool load(struct device *d, const char *name, const char *image, size_t bytes, void **out)
{
    (void)name;
    if (bytes < 8 || memcmp(image, "emulated", 8) != 0)
        return refuse(d, "not an image for the emulator");
    *out = d;
    return true;
}

static void unload(struct device *d, void *module)
{
    (void)d;
    (void)module;
}

static bool function(struct device *d, void *module, const char *name, unsigned shared, bool beside,
                     void **out)
{
    (void)module;
    (void)beside;
    if (shared > 227u << 10)
        return refuse(d, "more shared memory than a block can have");
    for (int i = 0; i < n_model_kernels; i++)
        if (model_kernels[i].kernel && strcmp(model_kernels[i].name, name) == 0) {
            *out = (void *)(uintptr_t)&model_kernels[i];
            return true;
        }
    return refuse(d, "no such kernel");
}

/* Into the graph that is being recorded, or the queue. */
static bool keep(struct device *d, const struct recorded *r)
{
    struct graph *g = of(d)->open;
    of(d)->behind_library = r->work;
    if (!g)
        return queue(d, (struct queued){.kind = QUEUED_LAUNCH, .launch = *r});
    if (g->n == MAX_RECORDED)
        return refuse(d, "too long a graph");
    g->list[g->n++] = *r;
    return true;
}

static bool launch(struct device *d, void *at, const struct archrt_launch *l, void *const *args,
                   int n, bool early)
{
    if (early && of(d)->behind_library)
        return refuse(d, "a launch may not be early behind a call of a library");
    const struct model_kernel *k = at;
    struct recorded r = {.launch = {.name = k->name,
                                    .kernel = k->kernel,
                                    .grid = {l->grid[0], l->grid[1], l->grid[2], l->grid[3]},
                                    .threads = l->threads,
                                    .shared_bytes = l->shared,
                                    .dependent = early},
                         .n = n};
    for (int i = 0; i < n; i++)
        r.args[i] = *(void *const *)args[i];
    return keep(d, &r);
}

static bool library_call(struct standin_stream *s,
                         bool (*work)(struct standin_stream *, const void *), const void *what,
                         size_t bytes)
{
    struct emulated *e = (struct emulated *)(void *)((char *)s - offsetof(struct emulated, stream));
    struct recorded r = {.work = work, .what = need(malloc(bytes))};
    memcpy(r.what, what, bytes);
    return keep(&e->device, &r);
}

static void *stream(struct device *d)
{
    return &of(d)->stream;
}

static bool begin_graph(struct device *d)
{
    of(d)->behind_library = false;
    of(d)->open = calloc(1, sizeof(struct graph));
    return of(d)->open || refuse(d, "no memory");
}

static bool end_graph(struct device *d, void **out)
{
    *out = of(d)->open;
    of(d)->open = NULL;
    return true;
}

static bool replay(struct device *d, void *at)
{
    return queue(d, (struct queued){.kind = QUEUED_GRAPH, .graph = at});
}

static void drop_graph(struct device *d, void *at)
{
    struct graph *g = at;
    (void)d;
    for (int i = 0; i < g->n; i++)
        free(g->list[i].what);
    free(g);
}

static bool mark(struct device *d, int which)
{
    return queue(d, (struct queued){.kind = QUEUED_MARK, .which = which});
}

static double elapsed(struct device *d)
{
    return of(d)->marks[1] - of(d)->marks[0];
}

static void close_device(struct device *d)
{
    free(of(d)->queue);
    free(d);
}

static const struct device_api api = {.alloc = alloc,
                                      .release = release,
                                      .host_alloc = host_alloc,
                                      .host_release = host_release,
                                      .clear = clear,
                                      .copy = copy,
                                      .to_device = to_device,
                                      .from_device = from_device,
                                      .wait = wait,
                                      .place = place,
                                      .reach = reach,
                                      .tensor_map = tensor_map,
                                      .load = load,
                                      .unload = unload,
                                      .function = function,
                                      .launch = launch,
                                      .begin_graph = begin_graph,
                                      .end_graph = end_graph,
                                      .replay = replay,
                                      .drop_graph = drop_graph,
                                      .mark = mark,
                                      .elapsed = elapsed,
                                      .stream = stream,
                                      .close = close_device};

struct device *emulated_device(void)
{
    struct emulated *d = calloc(1, sizeof *d);
    if (!d)
        abort();
    d->device = (struct device){.api = &api,
                                .name = "emulator",
                                .driver = "none",
                                .sm = 90,
                                .processors = 132,
                                .memory = 64 << 10,
                                .free_memory = 64 << 10};
    d->stream = (struct standin_stream){library_call, emu_read, emu_write};
    emu_catch(true);
    return &d->device;
}

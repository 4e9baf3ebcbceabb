/* model_device.c - the emulator behind struct device_api: what a program's run-time library does on
 * a GPU, it does here, graphs included. A graph is the list of launches between its two ends. */
#include "model_device.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_RECORDED = 512 };
struct recorded {
    struct emu_launch launch;
    void *args[EMU_MAX_ARGS];
    int n;
};
struct graph {
    struct recorded list[MAX_RECORDED];
    int n;
};
struct emulated {
    struct device device; /* first */
    struct graph *open;   /* being recorded */
    double marks[2];
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
    *out = malloc(bytes);
    return *out || refuse(d, "no memory");
}

static void host_release(struct device *d, void *at)
{
    (void)d;
    free(at);
}

static bool clear(struct device *d, void *at, size_t bytes)
{
    (void)d;
    emu_fill(at, 0, bytes);
    return true;
}

static bool copy(struct device *d, void *to, const void *from, size_t bytes)
{
    (void)d;
    (void)from;
    emu_fill(to, 0, bytes); /* only bench copies, and looks at nothing but the time */
    return true;
}

static bool to_device(struct device *d, void *to, const void *from, size_t bytes)
{
    if (of(d)->open)
        return refuse(d, "a copy inside a graph");
    emu_write(to, from, bytes);
    return true;
}

static bool from_device(struct device *d, void *to, const void *from, size_t bytes)
{
    if (of(d)->open)
        return refuse(d, "a copy inside a graph");
    return emu_read(to, from, bytes) || refuse(d, emu_fault());
}

static bool wait(struct device *d)
{
    return !of(d)->open || refuse(d, "a wait inside a graph");
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

static bool function(struct device *d, void *module, const char *name, unsigned shared, void **out)
{
    (void)module;
    if (shared > 227u << 10)
        return refuse(d, "more shared memory than a block can have");
    for (int i = 0; i < n_model_kernels; i++)
        if (strcmp(model_kernels[i].name, name) == 0) {
            *out = (void *)(uintptr_t)&model_kernels[i];
            return true;
        }
    return refuse(d, "no such kernel");
}

static bool run(struct device *d, const struct recorded *r)
{
    emulated_launches++;
    emulated_early += r->launch.dependent;
    return emu_run(&r->launch, r->args, r->n) || refuse(d, emu_fault());
}

static bool launch(struct device *d, void *at, const struct archrt_launch *l, void *const *args,
                   int n, bool early)
{
    const struct model_kernel *k = at;
    struct recorded r = {.launch = {.name = k->name,
                                    .kernel = k->kernel,
                                    .grid = {l->grid[0], l->grid[1], l->grid[2]},
                                    .threads = l->threads,
                                    .shared_bytes = l->shared,
                                    .dependent = early},
                         .n = n};
    for (int i = 0; i < n; i++)
        r.args[i] = *(void *const *)args[i];
    struct graph *g = of(d)->open;
    if (!g)
        return run(d, &r);
    if (g->n == MAX_RECORDED)
        return refuse(d, "too long a graph");
    g->list[g->n++] = r;
    return true;
}

static bool begin_graph(struct device *d)
{
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
    const struct graph *g = at;
    for (int i = 0; i < g->n; i++)
        if (!run(d, &g->list[i]))
            return false;
    return true;
}

static void drop_graph(struct device *d, void *graph)
{
    (void)d;
    free(graph);
}

static bool mark(struct device *d, int which)
{
    of(d)->marks[which] = clock_seconds();
    return true;
}

static double elapsed(struct device *d)
{
    return of(d)->marks[1] - of(d)->marks[0];
}

static void close_device(struct device *d)
{
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
    emu_catch(true);
    return &d->device;
}

/* device_cuda.c - the CUDA driver, loaded when it is first wanted. Its interface is declared here,
 * so that no toolkit is needed to build; libcuda.so.1 comes with the driver. */
#include "gpu.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

/* ---- the driver's interface: names and types of cuda.h ------------------------------------------
 */

typedef unsigned long long cu_address;
typedef struct cu_opaque *cu_handle; /* of contexts, modules, functions, streams, graphs, events */
enum {
    CU_SUCCESS = 0,
    CU_STREAM_NON_BLOCKING = 1,
    CU_EVENT_WITHOUT_TIME = 2,
    CU_CAPTURE_THREAD_LOCAL = 1,
    CU_MULTIPROCESSORS = 16,
    CU_MAJOR = 75,
    CU_MINOR = 76,
    CU_DYNAMIC_SHARED = 8,
    CU_SHARED_PERCENT = 9,
    CU_LAUNCH_CLUSTER = 4,
    CU_LAUNCH_EARLY = 6, /* programmatic stream serialization */
    CU_LOG_BUFFER = 5,   /* of the compiler of PTX: errors */
    CU_LOG_BYTES = 6,
    /* of tensor maps */
    CU_BF16 = 9,
    CU_NOT_INTERLEAVED = 0,
    CU_SWIZZLE_128 = 3,
    CU_L2_256_BYTES = 3,
    CU_OUTSIDE_IS_ZERO = 0
};
struct cu_attribute {
    int id;
    char pad[4];
    union {
        char bytes[64];
        int value;
        unsigned cluster[3];
    } value;
};
struct cu_launch {
    unsigned grid_x, grid_y, grid_z, block_x, block_y, block_z, shared;
    cu_handle stream;
    struct cu_attribute *attributes;
    unsigned n_attributes;
};
_Static_assert(sizeof(struct cu_attribute) == 72 && sizeof(struct cu_launch) == 56,
               "the layout of cuda.h");

/* X(field, symbol, parameters) */
#define DRIVER_FUNCTIONS(X)                                                                        \
    X(init, "cuInit", (unsigned))                                                                  \
    X(version, "cuDriverGetVersion", (int *))                                                      \
    X(count, "cuDeviceGetCount", (int *))                                                          \
    X(get, "cuDeviceGet", (int *, int))                                                            \
    X(get_name, "cuDeviceGetName", (char *, int, int))                                             \
    X(attribute, "cuDeviceGetAttribute", (int *, int, int))                                        \
    X(retain, "cuDevicePrimaryCtxRetain", (cu_handle *, int))                                      \
    X(leave, "cuDevicePrimaryCtxRelease_v2", (int))                                                \
    X(current, "cuCtxSetCurrent", (cu_handle))                                                     \
    X(memory, "cuMemGetInfo_v2", (size_t *, size_t *))                                             \
    X(alloc, "cuMemAlloc_v2", (cu_address *, size_t))                                              \
    X(free, "cuMemFree_v2", (cu_address))                                                          \
    X(host_alloc, "cuMemHostAlloc", (void **, size_t, unsigned))                                   \
    X(host_free, "cuMemFreeHost", (void *))                                                        \
    X(clear, "cuMemsetD8Async", (cu_address, unsigned char, size_t, cu_handle))                    \
    X(copy, "cuMemcpyDtoDAsync_v2", (cu_address, cu_address, size_t, cu_handle))                   \
    X(to_device, "cuMemcpyHtoDAsync_v2", (cu_address, const void *, size_t, cu_handle))            \
    X(from_device, "cuMemcpyDtoHAsync_v2", (void *, cu_address, size_t, cu_handle))                \
    X(stream, "cuStreamCreate", (cu_handle *, unsigned))                                           \
    X(stream_drop, "cuStreamDestroy_v2", (cu_handle))                                              \
    X(stream_wait, "cuStreamSynchronize", (cu_handle))                                             \
    X(capture, "cuStreamBeginCapture_v2", (cu_handle, int))                                        \
    X(end_capture, "cuStreamEndCapture", (cu_handle, cu_handle *))                                 \
    X(instantiate, "cuGraphInstantiateWithFlags", (cu_handle *, cu_handle, unsigned long long))    \
    X(graph_launch, "cuGraphLaunch", (cu_handle, cu_handle))                                       \
    X(graph_drop, "cuGraphDestroy", (cu_handle))                                                   \
    X(executable_drop, "cuGraphExecDestroy", (cu_handle))                                          \
    X(load, "cuModuleLoadDataEx", (cu_handle *, const void *, unsigned, int *, void **))           \
    X(unload, "cuModuleUnload", (cu_handle))                                                       \
    X(function, "cuModuleGetFunction", (cu_handle *, cu_handle, const char *))                     \
    X(function_set, "cuFuncSetAttribute", (cu_handle, int, int))                                   \
    X(launch, "cuLaunchKernelEx", (const struct cu_launch *, cu_handle, void **, void **))         \
    X(event, "cuEventCreate", (cu_handle *, unsigned))                                             \
    X(event_drop, "cuEventDestroy_v2", (cu_handle))                                                \
    X(event_record, "cuEventRecord", (cu_handle, cu_handle))                                       \
    X(event_wait, "cuEventSynchronize", (cu_handle))                                               \
    X(event_elapsed, "cuEventElapsedTime", (float *, cu_handle, cu_handle))                        \
    X(tensor_map, "cuTensorMapEncodeTiled",                                                        \
      (void *, int, unsigned, void *, const unsigned long long *, const unsigned long long *,      \
       const unsigned *, const unsigned *, int, int, int, int))                                    \
    X(error_text, "cuGetErrorString", (int, const char **))

struct driver {
#define DRIVER_FIELD(field, symbol, parameters) int(*field) parameters;
    DRIVER_FUNCTIONS(DRIVER_FIELD)
#undef DRIVER_FIELD
    void *library;
};

struct cuda_device {
    struct device device; /* first */
    struct driver cu;
    int ordinal;
    cu_handle context, stream, events[2], places[DEVICE_PLACES];
};

static struct cuda_device *of(struct device *d)
{
    return (struct cuda_device *)(void *)d;
}

static cu_address address(const void *p)
{
    return (cu_address)(uintptr_t)p;
}

static bool check(struct cuda_device *d, int result, const char *what)
{
    const char *text = NULL;
    if (result == CU_SUCCESS)
        return true;
    if (d->cu.error_text(result, &text) != CU_SUCCESS || !text)
        text = "unknown error";
    snprintf(d->device.why, sizeof d->device.why, "%s: %s (%d)", what, text, result);
    return false;
}

/* ---- memory ---- */

static bool device_alloc(struct device *base, size_t bytes, void **out)
{
    struct cuda_device *d = of(base);
    cu_address at = 0;
    if (!check(d, d->cu.alloc(&at, bytes), "allocating memory"))
        return false;
    *out = (void *)(uintptr_t)at;
    return true;
}

static void device_release(struct device *base, void *at)
{
    if (at)
        of(base)->cu.free(address(at));
}

static bool host_alloc(struct device *base, size_t bytes, void **out)
{
    struct cuda_device *d = of(base);
    return check(d, d->cu.host_alloc(out, bytes, 0), "allocating pinned memory");
}

static void host_release(struct device *base, void *at)
{
    if (at)
        of(base)->cu.host_free(at);
}

static bool device_clear(struct device *base, void *at, size_t bytes)
{
    struct cuda_device *d = of(base);
    return check(d, d->cu.clear(address(at), 0, bytes, d->stream), "clearing memory");
}

static bool device_copy(struct device *base, void *to, const void *from, size_t bytes)
{
    struct cuda_device *d = of(base);
    return check(d, d->cu.copy(address(to), address(from), bytes, d->stream), "copying");
}

/* Pageable sources are staged by the driver before it returns, pinned ones read in the queue. */
static bool to_device(struct device *base, void *to, const void *from, size_t bytes)
{
    struct cuda_device *d = of(base);
    return check(d, d->cu.to_device(address(to), from, bytes, d->stream), "copying to the device");
}

static bool from_device(struct device *base, void *to, const void *from, size_t bytes)
{
    struct cuda_device *d = of(base);
    return check(d, d->cu.from_device(to, address(from), bytes, d->stream),
                 "copying from the device");
}

static bool device_wait(struct device *base)
{
    struct cuda_device *d = of(base);
    return check(d, d->cu.stream_wait(d->stream), "waiting for the device");
}

static bool device_place(struct device *base, int which)
{
    struct cuda_device *d = of(base);
    return check(d, d->cu.event_record(d->places[which], d->stream), "recording an event");
}

static bool device_reach(struct device *base, int which)
{
    struct cuda_device *d = of(base);
    return check(d, d->cu.event_wait(d->places[which]), "waiting for the device");
}

/* Rows of a box are half of what DRAM is asked for: the other half is of the next box. */
static bool tensor_map(struct device *base, void *to, const struct cuda_map *m, void *at)
{
    struct cuda_device *d = of(base);
    unsigned long long extents[CUDA_MAP_RANK];
    unsigned one[CUDA_MAP_RANK];
    for (int i = 0; i < CUDA_MAP_RANK; i++) {
        extents[i] = m->extents[i];
        one[i] = 1;
    }
    return check(d,
                 d->cu.tensor_map(to, CU_BF16, (unsigned)m->rank, at, extents, m->strides, m->box,
                                  one, CU_NOT_INTERLEAVED, CU_SWIZZLE_128, CU_L2_256_BYTES,
                                  CU_OUTSIDE_IS_ZERO),
                 "describing a tensor");
}

/* ---- code ---- */

static bool device_load(struct device *base, const char *name, const char *image, size_t bytes,
                        void **out)
{
    struct cuda_device *d = of(base);
    char log[240] = "";
    int options[] = {CU_LOG_BUFFER, CU_LOG_BYTES};
    void *values[] = {log, (void *)(uintptr_t)sizeof log};
    (void)bytes; /* a cubin says its own length; PTX ends in a zero */
    int result = d->cu.load((cu_handle *)out, image, 2, options, values);
    if (check(d, result, name))
        return true;
    log[sizeof log - 1] = 0;
    log[strcspn(log, "\n")] = 0;
    size_t used = strlen(d->device.why);
    if (log[0])
        snprintf(d->device.why + used, sizeof d->device.why - used, ": %s", log);
    return false;
}

static void device_unload(struct device *base, void *module)
{
    of(base)->cu.unload(module);
}

/* A processor divides its memory into cache and shared memory anew only while it is idle, and the
 * driver would divide for each kernel as its own blocks want it. So kernels that are to overlap
 * take one division, the one that has room for most blocks. */
static bool device_function(struct device *base, void *module, const char *name, unsigned shared,
                            bool beside, void **out)
{
    struct cuda_device *d = of(base);
    enum { WITHOUT_ASKING = 48 << 10 };
    if (!check(d, d->cu.function((cu_handle *)out, module, name), name))
        return false;
    if (beside && !check(d, d->cu.function_set(*out, CU_SHARED_PERCENT, 100), name))
        return false;
    return shared <= WITHOUT_ASKING ||
           check(d, d->cu.function_set(*out, CU_DYNAMIC_SHARED, (int)shared), name);
}

static bool device_launch(struct device *base, void *function, const struct archrt_launch *l,
                          void *const *args, int n, bool early)
{
    struct cuda_device *d = of(base);
    struct cu_attribute attributes[2];
    unsigned n_attributes = 0;
    if (l->grid[3] > 1)
        attributes[n_attributes++] = (struct cu_attribute){
            .id = CU_LAUNCH_CLUSTER, .value = {.cluster = {1, l->grid[3], 1}}};
    if (early && base->sm >= 90)
        attributes[n_attributes++] =
            (struct cu_attribute){.id = CU_LAUNCH_EARLY, .value = {.value = 1}};
    struct cu_launch launch = {.grid_x = l->grid[0],
                               .grid_y = l->grid[1],
                               .grid_z = l->grid[2],
                               .block_x = l->threads,
                               .block_y = 1,
                               .block_z = 1,
                               .shared = l->shared,
                               .stream = d->stream,
                               .attributes = attributes,
                               .n_attributes = n_attributes};
    (void)n;
    return check(d, d->cu.launch(&launch, function, (void **)(uintptr_t)args, NULL), "launching");
}

/* ---- graphs and time ---- */

static bool begin_graph(struct device *base)
{
    struct cuda_device *d = of(base);
    return check(d, d->cu.capture(d->stream, CU_CAPTURE_THREAD_LOCAL), "beginning a capture");
}

static bool end_graph(struct device *base, void **out)
{
    struct cuda_device *d = of(base);
    cu_handle graph = NULL;
    if (!check(d, d->cu.end_capture(d->stream, &graph), "ending a capture"))
        return false;
    bool ok = check(d, d->cu.instantiate((cu_handle *)out, graph, 0), "making a graph");
    d->cu.graph_drop(graph);
    return ok;
}

static bool replay(struct device *base, void *graph)
{
    struct cuda_device *d = of(base);
    return check(d, d->cu.graph_launch(graph, d->stream), "launching a graph");
}

static void drop_graph(struct device *base, void *graph)
{
    of(base)->cu.executable_drop(graph);
}

static bool mark(struct device *base, int which)
{
    struct cuda_device *d = of(base);
    return check(d, d->cu.event_record(d->events[which], d->stream), "recording an event");
}

static double elapsed(struct device *base)
{
    struct cuda_device *d = of(base);
    float milliseconds = 0;
    d->cu.event_elapsed(&milliseconds, d->events[0], d->events[1]);
    return milliseconds * 1e-3;
}

static void *device_stream(struct device *base)
{
    return of(base)->stream;
}

/* ---- opening ---- */

static void device_close(struct device *base)
{
    struct cuda_device *d = of(base);
    for (int i = 0; i < 2; i++)
        if (d->events[i])
            d->cu.event_drop(d->events[i]);
    for (int i = 0; i < DEVICE_PLACES; i++)
        if (d->places[i])
            d->cu.event_drop(d->places[i]);
    if (d->stream)
        d->cu.stream_drop(d->stream);
    if (d->context)
        d->cu.leave(d->ordinal);
    if (d->cu.library)
        dlclose(d->cu.library);
    free(d);
}

static const struct device_api cuda_api = {
    .alloc = device_alloc,
    .release = device_release,
    .host_alloc = host_alloc,
    .host_release = host_release,
    .clear = device_clear,
    .copy = device_copy,
    .to_device = to_device,
    .from_device = from_device,
    .wait = device_wait,
    .place = device_place,
    .reach = device_reach,
    .tensor_map = tensor_map,
    .load = device_load,
    .unload = device_unload,
    .function = device_function,
    .launch = device_launch,
    .begin_graph = begin_graph,
    .end_graph = end_graph,
    .replay = replay,
    .drop_graph = drop_graph,
    .mark = mark,
    .elapsed = elapsed,
    .stream = device_stream,
    .close = device_close,
};

/* ISO C has no conversion from dlsym's pointer to a function's; the bits are the same. */
static bool find_symbols(struct driver *cu, char *why, size_t room)
{
    const struct {
        const char *symbol;
        size_t at;
    } rows[] = {
#define DRIVER_ROW(field, symbol, parameters) {symbol, offsetof(struct driver, field)},
        DRIVER_FUNCTIONS(DRIVER_ROW)
#undef DRIVER_ROW
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        void *at = dlsym(cu->library, rows[i].symbol);
        if (!at) {
            snprintf(why, room,
                     "the CUDA driver has no %s: it is older than CUDA 12.0, install a newer one",
                     rows[i].symbol);
            return false;
        }
        memcpy((char *)cu + rows[i].at, &at, sizeof at);
    }
    return true;
}

static bool describe(struct cuda_device *d)
{
    struct device *base = &d->device;
    int major = 0, minor = 0, version = 0;
    bool ok =
        check(d, d->cu.get(&d->ordinal, 0), "choosing a device") &&
        check(d, d->cu.get_name(base->name, sizeof base->name, d->ordinal), "naming it") &&
        check(d, d->cu.attribute(&major, CU_MAJOR, d->ordinal), "asking it") &&
        check(d, d->cu.attribute(&minor, CU_MINOR, d->ordinal), "asking it") &&
        check(d, d->cu.attribute(&base->processors, CU_MULTIPROCESSORS, d->ordinal), "asking it") &&
        check(d, d->cu.version(&version), "asking the driver");
    base->sm = 10 * major + minor;
    snprintf(base->driver, sizeof base->driver, "CUDA %d.%d", version / 1000, version % 1000 / 10);
    return ok;
}

static bool start(struct cuda_device *d)
{
    struct device *base = &d->device;
    bool ok = check(d, d->cu.retain(&d->context, d->ordinal), "starting it") &&
              check(d, d->cu.current(d->context), "starting it") &&
              check(d, d->cu.stream(&d->stream, CU_STREAM_NON_BLOCKING), "starting it") &&
              check(d, d->cu.event(&d->events[0], 0), "starting it") &&
              check(d, d->cu.event(&d->events[1], 0), "starting it") &&
              check(d, d->cu.memory(&base->free_memory, &base->memory), "asking its memory");
    for (int i = 0; i < DEVICE_PLACES && ok; i++)
        ok = check(d, d->cu.event(&d->places[i], CU_EVENT_WITHOUT_TIME), "starting it");
    return ok;
}

struct device *cuda_device_open(char *why, size_t room)
{
    struct cuda_device *d = need(calloc(1, sizeof *d));
    int count = 0;
    d->device.api = &cuda_api;
    d->cu.library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!d->cu.library) {
        snprintf(why, room, "no CUDA driver (libcuda.so.1)");
    } else if (find_symbols(&d->cu, why, room)) {
        int result = d->cu.init(0);
        if (result == CU_SUCCESS)
            result = d->cu.count(&count);
        if (result != CU_SUCCESS || count == 0)
            snprintf(why, room, "the CUDA driver finds no device");
        else if (describe(d) && start(d))
            return &d->device;
        else
            snprintf(why, room, "%s", d->device.why);
    }
    device_close(&d->device);
    return NULL;
}

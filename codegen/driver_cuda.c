/* driver_cuda.c - what the driver does for CUDA targets: reads --target, plans and emits the second
 * side of the program, compiles it as far as --emit wants. */
#include <math.h>

#include "driver.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int driver_targets(struct driver *d, const char **host)
{
    *host = "host";
    d->cuda = (struct cuda_targets){.n = 0};
    for (const char *at = d->target ? d->target : "host"; *at;) {
        size_t n = strcspn(at, ",");
        const char *why = NULL;
        if (n == 4 && strncmp(at, "null", 4) == 0)
            *host = "null";
        else if (!(n == 4 && strncmp(at, "host", 4) == 0) &&
                 !cuda_targets_parse(at, n, &d->cuda, &why)) {
            fprintf(stderr, "archc: unknown target %.*s; the targets are %s\n", (int)n, at, why);
            return STATUS_USAGE;
        }
        at += n;
        at += *at == ',';
    }
    return 0;
}

/* Serving decides how many sequences are decoded at once, and the pages of cache they take. */
static struct build_options cuda_options(const struct build_options *host,
                                         const struct model_spec *m, int context)
{
    enum { MOST_SLOTS = 256, LEAST_CHUNK = 64 };
    struct build_options o = *host;
    o.weights = DTYPE_BF16;
    o.accumulate = m->train.accumulate;
    o.slots = m->serve.batch < 1 ? 1 : m->serve.batch > MOST_SLOTS ? MOST_SLOTS : m->serve.batch;
    o.chunk = (context + LEAST_CHUNK - 1) / LEAST_CHUNK * LEAST_CHUNK;
    if (o.chunk > GPU_PROMPT_ROWS)
        o.chunk = GPU_PROMPT_ROWS;
    int load = m->serve.prompt + m->serve.generate;
    if (load <= 0 || load > context)
        load = context;
    else
        o.prompt = m->serve.prompt, o.generate = m->serve.generate;
    int slot = (context + CACHE_PAGE - 1) / CACHE_PAGE;
    int64_t all = (int64_t)o.slots * ((load + CACHE_PAGE - 1) / CACHE_PAGE);
    o.pages = all > slot ? (int)all : slot;
    return o;
}

/* A device of the spec that is a GPU, or NULL. */
static const struct device *named_gpu(const struct driver *d, int device)
{
    const struct device *x = device >= 0 ? &d->spec.devices[device] : NULL;
    return x && !x->is_host && !device_is_cpu(x) ? x : NULL;
}

/* What the CUDA side is priced on: the GPU that the spec serves or trains on, else the one that an
 * architecture stands for. NULL: none is known. */
static const struct device *priced_on(const struct driver *d, const struct model_spec *m)
{
    static const struct {
        int sm;
        const char *device;
    } cards[] = {{80, "a100_40gb"}, {89, "rtx4090"}, {90, "h200"}};
    const struct device *named = named_gpu(d, m->serve.device);
    if (!named)
        named = named_gpu(d, m->train.device);
    for (size_t i = 0; !named && i < sizeof cards / sizeof cards[0]; i++)
        for (int k = 0; k < d->spec.n_devices; k++)
            if (cards[i].sm == d->cuda.list[0].sm &&
                strcmp(d->spec.devices[k].name, cards[i].device) == 0)
                return &d->spec.devices[k];
    return named;
}

enum logits driver_logits(const struct driver *d)
{
    const struct model_spec *m = d->resolution.model;
    const struct device *trains = named_gpu(d, m->train.device);
    if (!trains)
        trains = priced_on(d, m);
    if (trains)
        return cost_logits(trains, &m->train, &d->resolution.best.arch);
    return m->train.logits == LOGITS_NEVER ? LOGITS_NEVER : LOGITS_CHUNKS;
}

int driver_plan_cuda(struct driver *d, const struct build_options *host, const char *source)
{
    const struct model_spec *m = d->resolution.model;
    const struct arch *arch = &d->resolution.best.arch;
    const char *why = NULL;
    struct build_options o = cuda_options(host, m, arch->context);
    const struct device *device = priced_on(d, m), *trains = named_gpu(d, m->train.device);
    double throughput = d->resolution.best.metrics[METRIC_THROUGHPUT];
    if (o.generate && named_gpu(d, m->serve.device) && isfinite(throughput))
        o.throughput = throughput;
    if (trains || device) /* its memory decides what is kept */
        o.recompute = cost_recompute(trains ? trains : device, &m->train, arch);
    d->cuda_plan = arena_alloc(d->arena, sizeof *d->cuda_plan);
    if (!plan_build(d->arena, arch, target_find("cuda"), &o, d->cuda_plan, &why) ||
        !plan_verify(d->cuda_plan, &why)) {
        fprintf(stderr, "archc: %s on a GPU: %s\n", m->name, why);
        return STATUS_SPEC;
    }
    if (device)
        plan_price(d->cuda_plan, device);
    d->cuda_plan->target->emit(d->cuda_plan, m, source, &d->files);
    struct emitted *f = &d->files.files[d->files.n++];
    *f = (struct emitted){.name = "model_cuda.c", .compile = true, .cuda = true};
    emit_cuda_model(d->cuda_plan, source, &d->cuda, &f->text);
    return 0;
}

static int copy_out(const char *dir, const char *name, const char *suffix)
{
    char path[4096], block[1 << 14];
    snprintf(path, sizeof path, "%s/%s.%s", dir, name, suffix);
    FILE *f = fopen(path, "rb");
    if (!f)
        return STATUS_WORLD;
    printf("// ==== %s.%s ====\n", name, suffix);
    for (size_t n; (n = fread(block, 1, sizeof block, f)) > 0;)
        fwrite(block, 1, n, stdout);
    fclose(f);
    return 0;
}

static int print_units(struct driver *d, const char *dir, const char *suffix)
{
    int status = 0;
    for (int i = 0; i < d->files.n; i++)
        for (int k = 0; d->files.files[i].device && k < d->cuda.n && !status; k++) {
            const char *file = d->files.files[i].name;
            const char *name = arena_printf(d->arena, "%.*s.%s", (int)strlen(file) - 3, file,
                                            d->cuda.list[k].name);
            status = copy_out(dir, name, suffix);
        }
    return status;
}

int driver_emit_device(struct driver *d, enum device_stage stage)
{
    static const char *const suffix[] = {"ll", "ptx", "cubin"};
    struct tools tools = {.device_cc = d->device_cc,
                          .cuda = &d->cuda,
                          .kernels = d->kernels,
                          .verbose = d->verbose,
                          .keep = d->output};
    struct text why = {0};
    char temporary[] = "/tmp/archc-XXXXXX";
    const char *dir = d->output;
    if (!dir && stage == DEVICE_CUBIN) {
        fprintf(stderr, "archc: --emit=cubin writes files: say where with -o DIR\n");
        return STATUS_USAGE;
    }
    if (!dir && !(dir = mkdtemp(temporary))) {
        fprintf(stderr, "archc: cannot make a directory in /tmp\n");
        return STATUS_WORLD;
    }
    bool ok = build_device(&d->files, &tools, stage, dir, &why);
    int status = ok ? 0 : STATUS_WORLD;
    if (!ok)
        fprintf(stderr, "archc: %s\n", why.at);
    else if (!d->output)
        status = print_units(d, dir, suffix[stage]);
    if (!d->output)
        remove_directory(dir);
    text_free(&why);
    return status;
}

/* info.c - what this program is: shapes, memory, kernels, predicted speed. */
#include <string.h>

#include <jansson.h>

#include "gpu.h"
#include "options.h"

static const char *const kind_names[] = {
#define ARCHRT_KERNEL(kind, file, title) #kind,
#include "kernels.def"
#undef ARCHRT_KERNEL
};

static const char *dtype_name(int dtype)
{
    return dtype == ARCHRT_I8 ? "int8" : dtype == ARCHRT_BF16 ? "bf16" : "fp32";
}

static double train_bytes(const struct archrt_model *m)
{
    return 4.0 * (double)m->param_floats * sizeof(float) + (double)m->work_bytes;
}

static double infer_bytes(const struct archrt_model *m)
{
    return (double)m->weight_bytes + (double)m->cache_bytes + (double)m->infer_work_bytes;
}

static json_t *architecture_json(const struct archrt_model *m)
{
    const struct archrt_arch *a = &m->arch;
    json_t *j =
        json_pack("{sisisisisisisisisbsbsbsfsfsf}", "layers", a->layers, "d_model", a->d_model,
                  "heads", a->heads, "kv_heads", a->kv_heads, "head_dim", a->head_dim, "d_ff",
                  a->d_ff, "vocab", a->vocab, "context", a->context, "tied", a->tied, "qkv_bias",
                  a->qkv_bias, "qk_norm", a->qk_norm, "norm_eps", decimal(a->norm_eps),
                  "rope_theta", a->rope_theta, "rope_factor", a->rope_factor);
    json_object_set_new(j, "params", json_integer(m->params));
    json_object_set_new(j, "total_params", json_integer(m->total_params));
    return j;
}

static json_t *kernel_json(const struct archrt_kernel *k)
{
    return json_pack("{sssssssisisisssisfsf}", "kind", kind_names[k->kind], "name", k->name,
                     "phase", k->phase, "m", k->m, "n", k->n, "k", k->k, "weights",
                     dtype_name(k->weights), "times", k->times, "flops", k->flops, "bytes",
                     k->bytes);
}

static json_t *speed_json(double tokens_per_second)
{
    return tokens_per_second > 0 ? json_real(tokens_per_second) : json_null();
}

static const char *const phase_names[ARCHRT_PHASES] = {
    [ARCHRT_PHASE_TRAIN] = "train",     [ARCHRT_PHASE_EVAL] = "eval",
    [ARCHRT_PHASE_PREFILL] = "prefill", [ARCHRT_PHASE_DECODE] = "decode",
    [ARCHRT_PHASE_UPDATE] = "update",   [ARCHRT_PHASE_BATCH] = "batch",
};

static json_t *cuda_phases_json(const struct archrt_cuda *c)
{
    json_t *phases = json_object();
    for (int i = 0; i < ARCHRT_PHASES; i++)
        if (c->phases[i].n)
            json_object_set_new(phases, phase_names[i],
                                json_pack("{soso}", "floor_seconds", speed_json(c->phases[i].floor),
                                          "seconds", speed_json(c->phases[i].predicted)));
    return phases;
}

/* Of each pass that it has, for the first architecture. */
static json_t *launches_json(const struct archrt_cuda *c, int kernel)
{
    json_t *list = json_array();
    for (int i = 0; c->n_targets && i < c->kernels[kernel].passes; i++) {
        const struct archrt_launch *l = &c->targets[0].launches[kernel].pass[i];
        if (l->threads == 0)
            continue;
        json_array_append_new(list, json_pack("{s[III]sIsI}", "grid", (json_int_t)l->grid[0],
                                              (json_int_t)l->grid[1], (json_int_t)l->grid[2],
                                              "threads", (json_int_t)l->threads, "shared_bytes",
                                              (json_int_t)l->shared));
    }
    return list;
}

static json_t *cuda_json(const struct archrt_cuda *c)
{
    json_t *kernels = json_array();
    char say[256];
    struct device *d = cuda_device_open(say, sizeof say);
    for (int i = 0; i < c->n_kernels; i++) {
        const struct archrt_cuda_kernel *k = &c->kernels[i];
        json_array_append_new(
            kernels, json_pack("{sssssIsIsIsisfsfsososo}", "name", k->name, "phase", k->phase, "m",
                               (json_int_t)k->m, "n", (json_int_t)k->n, "k", (json_int_t)k->k,
                               "times", k->times, "flops", k->flops, "bytes", k->bytes,
                               "floor_seconds", speed_json(k->floor), "predicted_seconds",
                               speed_json(k->predicted), "launches", launches_json(c, i)));
    }
    json_t *name = d ? json_string(d->name) : json_null();
    if (d)
        d->api->close(d);
    return json_pack(
        "{sssosssosfsoso}", "options", c->options, "device", name, "no_device", d ? "" : say,
        "predicted_for", c->priced_on ? json_string(c->priced_on) : json_null(), "predicted_past",
        c->phases[ARCHRT_PHASE_DECODE].past, "predicted", cuda_phases_json(c), "kernels", kernels);
}

static void print_json(const struct archrt_model *m)
{
    json_t *kernels = json_array();
    for (int i = 0; i < m->n_kernels; i++)
        json_array_append_new(kernels, kernel_json(&m->kernels[i]));
    json_t *j = json_pack(
        "{sssssssbsisososososo}", "model", m->arch.name, "source", m->source, "options", m->options,
        "generic", m->generic, "threads", m->threads, "architecture", architecture_json(m),
        "training",
        json_pack("{sisisIsI}", "batch", m->batch, "sequence", m->sequence, "parameter_bytes",
                  (json_int_t)(m->param_floats * sizeof(float)), "memory_bytes",
                  (json_int_t)train_bytes(m)),
        "inference",
        json_pack("{sssisIsIsI}", "weights", dtype_name(m->weights), "chunk", m->chunk,
                  "weight_bytes", (json_int_t)m->weight_bytes, "cache_bytes",
                  (json_int_t)m->cache_bytes, "memory_bytes", (json_int_t)infer_bytes(m)),
        "predicted_tokens_per_second",
        json_pack("{sososo}", "train", speed_json(m->predicted_train), "prefill",
                  speed_json(m->predicted_prefill), "decode", speed_json(m->predicted_decode)),
        "kernels", kernels);
    if (m->cuda)
        json_object_set_new(j, "cuda", cuda_json(m->cuda));
    json_dumpf(j, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(j);
}

static void print_architecture(const struct archrt_model *m)
{
    const struct archrt_arch *a = &m->arch;
    char n[32], total[32];
    printf("%s, compiled from %s (%s)\n\n", a->name, m->source, m->options);
    printf("  layers %d, d_model %d, %d heads of %d, %d kv heads (group %d), d_ff %d\n", a->layers,
           a->d_model, a->heads, a->head_dim, a->kv_heads,
           a->kv_heads > 0 ? a->heads / a->kv_heads : 0, a->d_ff);
    printf("  vocabulary %d%s, context %d, rope theta %g", a->vocab, a->tied ? " (tied)" : "",
           a->context, a->rope_theta);
    if (a->rope_factor > 0)
        printf(" (llama3 scaling, factor %g)", a->rope_factor);
    printf("%s%s\n", a->qkv_bias ? ", q k v biases" : "", a->qk_norm ? ", q k norms" : "");
    printf("  %s parameters in matrices, %s in all\n\n", show_count(n, (double)m->params),
           show_count(total, (double)m->total_params));
}

static void print_memory(const struct archrt_model *m)
{
    char a[32], b[32], c[32], d[32];
    double slab = (double)m->param_floats * sizeof(float);
    printf(
        "training   %d x %d tokens a micro-batch: %s (parameters, gradients and two moments, each "
        "%s,\n           activations %s)\n",
        m->batch, m->sequence, show_bytes(a, train_bytes(m)), show_bytes(b, slab),
        show_bytes(c, (double)m->work_bytes));
    printf(
        "inference  %s weights: %s (weights %s, cache %s, scratch %s), prompts in chunks of %d\n",
        dtype_name(m->weights), show_bytes(a, infer_bytes(m)),
        show_bytes(b, (double)m->weight_bytes), show_bytes(c, (double)m->cache_bytes),
        show_bytes(d, (double)m->infer_work_bytes), m->chunk);
    printf("threads    %d, fixed when it was compiled\n", m->threads);
}

static void print_predicted(const struct archrt_model *m)
{
    const struct {
        const char *phase;
        double speed;
    } rows[] = {{"training", m->predicted_train},
                {"prompt", m->predicted_prefill},
                {"generation", m->predicted_decode}};
    char n[32];
    printf("predicted ");
    for (int i = 0; i < 3; i++)
        printf("%s %s %s", i ? "," : "", rows[i].phase,
               rows[i].speed > 0 ? show_count(n, rows[i].speed) : "not priced");
    printf(" tokens/s\n\n");
}

static void print_kernels(const struct archrt_model *m)
{
    printf("%-8s %-18s %-22s %7s %7s %7s  %-5s %6s %9s %10s\n", "phase", "kind", "kernel", "m", "n",
           "k", "type", "calls", "GFLOP", "MB");
    for (int i = 0; i < m->n_kernels; i++) {
        const struct archrt_kernel *k = &m->kernels[i];
        printf("%-8s %-18s %-22s %7d %7d %7d  %-5s %6d %9.4f %10.3f\n", k->phase,
               kind_names[k->kind], k->name, k->m, k->n, k->k, dtype_name(k->weights), k->times,
               k->flops * 1e-9, k->bytes * 1e-6);
    }
}

/* Whether sessions would use the library; to look is not to load. */
static void print_products(const struct archrt_cuda *c)
{
    char file[256];
    int all = 0, by_library = 0;
    for (int i = 0; i < c->n_kernels; i++) {
        enum archrt_cuda_kind kind = c->kernels[i].kind;
        all += kind == ARCHRT_CUDA_MATMUL || kind == ARCHRT_CUDA_MATMUL_DX ||
               kind == ARCHRT_CUDA_MATMUL_DW;
        by_library += device_blas_can(&c->kernels[i]);
    }
    if (device_blas_find(file, sizeof file))
        printf("           products: %s, where it starts, can do %d of %d; see --products\n\n",
               file, by_library, all);
    else
        printf("           products: own kernels (no libcublasLt.so in the usual places)\n\n");
}

/* "predicted for h200: train 262857 us, decode 736 us behind 4096 tokens" */
static void print_cuda_predicted(const struct archrt_cuda *c)
{
    if (!c->priced_on)
        return;
    printf("           predicted for %s:", c->priced_on);
    for (int i = 0, n = 0; i < ARCHRT_PHASES; i++)
        if (c->phases[i].n)
            printf("%s %s %.0f us", n++ ? "," : "", phase_names[i], c->phases[i].predicted * 1e6);
    printf("; decode behind %.0f tokens\n", c->phases[ARCHRT_PHASE_DECODE].past);
}

static void print_cuda(const struct archrt_cuda *c)
{
    char a[32], b[32], say[256];
    struct device *d = cuda_device_open(say, sizeof say);
    double train = 0, infer = (double)c->page_bytes * c->layers * c->slot_pages;
    for (int i = 0; i < SLAB_COUNT; i++) {
        train += (double)c->train_bytes[i];
        infer += (double)c->infer_bytes[i];
    }
    printf("cuda       %s; code for", c->options);
    for (int i = 0; i < c->n_targets; i++)
        printf("%s %s", i ? "," : "", c->targets[i].name);
    printf("; training %s, one sequence of %d tokens %s\n", show_bytes(a, train),
           c->slot_pages * KV_PAGE, show_bytes(b, infer));
    print_cuda_predicted(c);
    if (!d)
        printf("           %s: it computes on the host\n", say);
    else
        printf("           here: %s, %s, %d processors, %s\n", d->name, d->driver, d->processors,
               show_bytes(a, (double)d->memory));
    print_products(c);
    if (d)
        d->api->close(d);
}

static void print_cuda_kernels(const struct archrt_cuda *c)
{
    printf("\n%-8s %-34s %9s %7s %7s  %6s %9s %10s %9s %9s\n", "cuda", "kernel", "m", "n", "k",
           "calls", "GFLOP", "MB", "least us", "predicted");
    for (int i = 0; i < c->n_kernels; i++) {
        const struct archrt_cuda_kernel *k = &c->kernels[i];
        printf("%-8s %-34s %9lld %7lld %7lld  %6d %9.4f %10.3f %9.1f %9.1f\n", k->phase, k->name,
               (long long)k->m, (long long)k->n, (long long)k->k, k->times, k->flops * 1e-9,
               k->bytes * 1e-6, k->floor * 1e6, k->predicted * 1e6);
    }
}

int cmd_info(int argc, char **argv)
{
    struct failure f;
    bool json = false;
    const struct option table[] = {
        {"json", NULL, OPTION_FLAG, &json, NULL, 0, 0, "one JSON object"},
        {NULL, NULL, OPTION_FLAG, NULL, NULL, 0, 0, NULL},
    };
    enum options_result result =
        options_read(table, "Architecture, memory, predicted speed and kernels of this program.",
                     argc, argv, NULL, &f);
    if (result != OPTIONS_READ)
        return result == OPTIONS_HELP ? STATUS_OK : failure_report(&f);
    if (json) {
        print_json(&archrt_model);
        return STATUS_OK;
    }
    print_architecture(&archrt_model);
    print_memory(&archrt_model);
    print_predicted(&archrt_model);
    if (archrt_model.cuda)
        print_cuda(archrt_model.cuda);
    print_kernels(&archrt_model);
    if (archrt_model.cuda)
        print_cuda_kernels(archrt_model.cuda);
    return STATUS_OK;
}

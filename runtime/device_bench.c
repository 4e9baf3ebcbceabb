/* device_bench.c - `bench --device cuda`: every kernel by itself, every phase as its graph, against
 * what this card copies and what the tables say must be moved and computed. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gpu.h"
#include "options.h"

/* What the sessions are filled with: random, so that no unit rests on zeros; small, so that nothing
 * overflows on its way through the layers. */
enum { NOISE = 8 << 20 };

struct device_bench {
    struct device *device;
    const struct archrt_cuda *cuda;
    const struct bench_request *asked;
    struct session s;
    int past;    /* tokens in the cache in front of the rows of a call */
    double copy; /* bytes/s, read and written */
    char products[48];
    json_t *kernels, *phases, *load;
    struct failure *f;
};

static bool refused(struct device_bench *b)
{
    return failed(b->f, STATUS_WORLD, "%s: %s", b->device->name, b->device->why);
}

static bool fill(struct device_bench *b, enum archrt_slab slab, bool half, double scale)
{
    size_t bytes = b->s.bytes[slab], block = bytes < NOISE ? bytes : NOISE;
    char *noise = need(malloc(block + 4));
    for (size_t i = 0; i < block / (half ? 2 : 4); i++) {
        float x = (float)(((double)(mix64(i + 1) >> 11) * 0x1p-52 - 1) * scale);
        uint32_t bits;
        memcpy(&bits, &x, sizeof bits);
        uint16_t high = (uint16_t)(bits >> 16);
        if (half)
            memcpy(noise + 2 * i, &high, 2);
        else
            memcpy(noise + 4 * i, &bits, 4);
    }
    /* The slab's first block comes from here, the others are its copies. */
    char *slab_at = b->s.slabs[slab];
    bool ok = !bytes || session_put(&b->s, slab, 0, noise, block, b->f);
    for (size_t at = block; at < bytes && ok; at += block) {
        size_t part = bytes - at < block ? bytes - at : block;
        ok = b->device->api->copy(b->device, slab_at + at, slab_at, part) || refused(b);
    }
    free(noise);
    return ok;
}

static bool fill_ints(struct device_bench *b, enum archrt_slab slab, int first, int step, int limit)
{
    size_t n = b->s.bytes[slab] / sizeof(int);
    int *list = need(malloc(n * sizeof *list + 1));
    for (size_t i = 0; i < n; i++)
        list[i] = (first + (int)i * step) % limit;
    bool ok = session_put(&b->s, slab, 0, list, n * sizeof *list, b->f);
    free(list);
    return ok;
}

/* Each slot has its part of the pool; the first one, alone, runs on through the others'. */
static bool fill_pages(struct device_bench *b)
{
    int slots = b->cuda->slots, each = b->cuda->slot_pages, pool = b->s.pool_pages;
    int *pages = need(malloc((size_t)slots * (size_t)each * sizeof *pages));
    for (int slot = 0; slot < slots; slot++)
        for (int i = 0; i < each; i++)
            pages[slot * each + i] = (slot * (pool / slots) + i) % pool;
    bool ok = session_put(&b->s, SLAB_PAGES, 0, pages, b->s.bytes[SLAB_PAGES], b->f);
    free(pages);
    return ok;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void about_to(const struct device_bench *b, const char *what)
{
    if (b->asked->progress)
        b->asked->progress(what);
}

/* Rounds of so many seconds: what takes long needs no many of them to be known. */
static int rounds_of(const struct device_bench *b, double seconds)
{
    enum { FEW = 3 };
    const double enough = 2;
    int most = b->asked->rounds;
    if (most <= FEW || !(seconds * most > enough))
        return most;
    return seconds * FEW > enough ? FEW : (int)(enough / seconds);
}

/* Median seconds of one of `calls` calls, over the rounds. */
static bool time_calls(struct device_bench *b, bool (*call)(struct device_bench *, void *),
                       void *what, int calls, double *seconds)
{
    enum { MOST_ROUNDS = 64 };
    double list[MOST_ROUNDS];
    const struct device_api *api = b->device->api;
    int rounds = 1;
    for (int i = -1; i < rounds; i++) { /* one to warm up */
        if (!api->mark(b->device, 0))
            return refused(b);
        for (int k = 0; k < calls; k++)
            if (!call(b, what))
                return false;
        if (!api->mark(b->device, 1) || !api->wait(b->device))
            return refused(b);
        double took = api->elapsed(b->device);
        if (i < 0)
            rounds = rounds_of(b, took);
        else
            list[i] = took / calls;
    }
    qsort(list, (size_t)rounds, sizeof *list, by_value);
    *seconds = list[rounds / 2];
    return true;
}

/* ---- kernels ---- */

struct one_step {
    const struct archrt_step *step;
    int turns, turn;
    enum archrt_loop_kind kind;
};

/* Another layer each time: together the layers' weights are larger than any cache. */
static bool call_step(struct device_bench *b, void *what)
{
    struct one_step *o = what;
    o->turn = (o->turn + 1) % o->turns;
    bool chunks = o->kind == ARCHRT_CHUNKS;
    return session_step(&b->s, o->step, chunks ? 0 : o->turn, chunks ? o->turn : 0, false, b->f);
}

static json_t *number_or_null(double x)
{
    return isfinite(x) && x > 0 ? json_real(x) : json_null();
}

/* What the library did, done by our own kernels: into `row`, with how much faster the library is.
 */
static bool time_own(struct device_bench *b, bool (*call)(struct device_bench *, void *),
                     void *what, int calls, double seconds, json_t *row)
{
    double own;
    products_compare(&b->s, true);
    bool ok = time_calls(b, call, what, calls, &own);
    products_compare(&b->s, false);
    if (!ok)
        return false;
    json_object_set_new(row, "library_seconds", number_or_null(seconds));
    json_object_set_new(row, "own_seconds", number_or_null(own));
    json_object_set_new(row, "library_speedup", number_or_null(own / seconds));
    return true;
}

/* Cached tokens beyond those that a phase is priced behind. */
static double tokens_more(const struct device_bench *b, const struct archrt_phase *phase)
{
    return b->past - phase->past;
}

/* A call of a kernel behind so many more tokens than its phase is priced behind. */
static json_t *kernel_row(const struct device_bench *b, const struct archrt_cuda_kernel *k,
                          double more, int calls, double seconds)
{
    double flops = k->flops + more * k->a_token.flops, bytes = k->bytes + more * k->a_token.bytes;
    return json_pack("{sssssIsIsIsisisfsfsososososo}", "name", k->name, "phase", k->phase, "m",
                     (json_int_t)k->m, "n", (json_int_t)k->n, "k", (json_int_t)k->k, "past",
                     b->past, "calls", calls, "flops", flops, "bytes", bytes, "seconds",
                     number_or_null(seconds), "floor_seconds",
                     number_or_null(k->floor + more * k->a_token.floor), "predicted_seconds",
                     number_or_null(k->predicted + more * k->a_token.predicted), "flops_per_second",
                     number_or_null(flops / seconds), "of_copy_bandwidth",
                     number_or_null(bytes / seconds / b->copy));
}

static bool trains(const struct archrt_cuda *c, int kernel)
{
    const struct archrt_phase *phase = &c->phases[ARCHRT_PHASE_TRAIN];
    for (int l = 0; l < phase->n; l++)
        for (int i = 0; i < phase->loops[l].n; i++)
            if (phase->loops[l].steps[i].kernel == kernel)
                return true;
    return false;
}

static bool asked(const struct device_bench *b, unsigned phases)
{
    return (b->asked->phases & phases) != 0;
}

static bool wanted(const struct device_bench *b, int kernel)
{
    const char *only = b->asked->only;
    return !only || strstr(b->cuda->kernels[kernel].name, only);
}

/* Whether anything of these phases is to be timed. */
static bool wanted_of(const struct device_bench *b, const enum archrt_phase_id *ids, int n)
{
    for (int p = 0; p < n; p++) {
        const struct archrt_phase *phase = &b->cuda->phases[ids[p]];
        for (int l = 0; l < phase->n; l++)
            for (int i = 0; i < phase->loops[l].n; i++)
                if (wanted(b, phase->loops[l].steps[i].kernel))
                    return true;
    }
    return false;
}

/* Evaluation's kernels are training's, but for what it does without gradients. */
static bool bench_kernels(struct device_bench *b, enum archrt_phase_id id)
{
    const struct archrt_phase *phase = &b->cuda->phases[id];
    for (int l = 0; l < phase->n && !b->asked->whole; l++)
        for (int i = 0; i < phase->loops[l].n; i++) {
            const struct archrt_loop *loop = &phase->loops[l];
            struct one_step o = {&loop->steps[i], loop->turns, 0, loop->kind};
            const struct archrt_cuda_kernel *k = &b->cuda->kernels[o.step->kernel];
            int calls = loop->turns > 4 ? loop->turns : 4;
            bool library = products_library(&b->s, o.step);
            double seconds;
            if (!wanted(b, o.step->kernel) ||
                (id == ARCHRT_PHASE_EVAL && trains(b->cuda, o.step->kernel)))
                continue;
            about_to(b, k->name);
            if (!time_calls(b, call_step, &o, calls, &seconds))
                return false;
            json_t *row = kernel_row(b, k, tokens_more(b, phase), loop->turns, seconds);
            json_array_append_new(b->kernels, row);
            if (library && !time_own(b, call_step, &o, calls, seconds, row))
                return false;
        }
    return true;
}

/* ---- phases ---- */

struct one_phase {
    enum archrt_phase_id id;
    unsigned when;
};

static bool call_phase(struct device_bench *b, void *what)
{
    const struct one_phase *o = what;
    return session_run(&b->s, o->id, o->when, b->f);
}

struct phase_price {
    double flops, bytes, floor, predicted;
};

/* A phase behind b->past tokens by its kernels; conditional steps count where `when` has them. */
static struct phase_price price(const struct device_bench *b, const struct one_phase *o)
{
    const struct archrt_phase *phase = &b->cuda->phases[o->id];
    double more = tokens_more(b, phase);
    struct phase_price sum = {.floor = phase->floor + more * phase->floor_a_token,
                              .predicted = phase->predicted + more * phase->predicted_a_token};
    for (int l = 0; l < phase->n; l++) {
        const struct archrt_loop *loop = &phase->loops[l];
        bool counted = loop->when == ARCHRT_ALWAYS || o->when >> (loop->when - 1) & 1u;
        for (int i = 0; i < loop->n; i++) {
            const struct archrt_cuda_kernel *k = &b->cuda->kernels[loop->steps[i].kernel];
            if (counted) {
                sum.flops += (k->flops + more * k->a_token.flops) * loop->turns;
                sum.bytes += (k->bytes + more * k->a_token.bytes) * loop->turns;
            } else if (loop->when == ARCHRT_LOGITS) { /* the phase is priced with them */
                sum.floor -= k->floor * loop->turns;
                sum.predicted -= k->predicted * loop->turns;
            }
        }
    }
    return sum;
}

static bool uses_library(const struct device_bench *b, enum archrt_phase_id id)
{
    const struct archrt_phase *phase = &b->cuda->phases[id];
    for (int l = 0; l < phase->n; l++)
        for (int i = 0; i < phase->loops[l].n; i++)
            if (products_library(&b->s, &phase->loops[l].steps[i]))
                return true;
    return false;
}

static json_t *phase_row(const struct device_bench *b, const char *name, double tokens,
                         double seconds, const struct phase_price *x)
{
    return json_pack("{sssisfsosososososo}", "phase", name, "past", b->past, "tokens", tokens,
                     "seconds", number_or_null(seconds), "floor_seconds", number_or_null(x->floor),
                     "predicted_seconds", number_or_null(x->predicted), "tokens_per_second",
                     number_or_null(tokens / seconds), "flops_per_second",
                     number_or_null(x->flops / seconds), "of_copy_bandwidth",
                     number_or_null(x->bytes / seconds / b->copy));
}

/* A row of the table; *seconds: of one call. */
static bool bench_phase(struct device_bench *b, const char *name, struct one_phase o, double tokens,
                        int calls, double *seconds)
{
    *seconds = 0;
    about_to(b, name);
    if (b->asked->only) /* once, for what kernels alone find */
        return call_phase(b, &o);
    if (!time_calls(b, call_phase, &o, calls, seconds))
        return false;
    struct phase_price x = price(b, &o);
    json_t *row = phase_row(b, name, tokens, *seconds, &x);
    json_array_append_new(b->phases, row);
    return !uses_library(b, o.id) || time_own(b, call_phase, &o, calls, *seconds, row);
}

/* Every slot stands behind `past` tokens, in front of each round. */
static bool at_past(struct device_bench *b, int rows, int past)
{
    struct cuda_call call = {.rows = rows, .head_rows = rows, .segments = 1};
    b->past = past;
    return fill_ints(b, SLAB_LENGTH, past, 0, INT32_MAX) &&
           fill_ints(b, SLAB_NEXT, 1, 1, the_model->arch.vocab) &&
           fill_ints(b, SLAB_SLOT, 0, 1, b->cuda->slots) &&
           fill_ints(b, SLAB_HEAD_ROW, 0, 1, rows) &&
           session_put(&b->s, SLAB_CALL, 0, &call, sizeof call, b->f);
}

/* One token of each of `rows` slots at the beginning, in the middle and at the end of first..last:
 * *mean seconds over all of those places, by Simpson's rule. */
static bool bench_steps(struct device_bench *b, const char *name, enum archrt_phase_id id, int rows,
                        int first, int last, double *mean)
{
    int calls = b->asked->rounds > 4 ? 8 : 1, end = last - (b->asked->rounds + 2) * calls;
    const int pasts[] = {first, first + (last - first) / 2, end > first ? end : first};
    double seconds[3];
    for (int i = 0; i < 3; i++)
        if (!at_past(b, rows, pasts[i]) ||
            !bench_phase(b, name, (struct one_phase){id, 0}, rows, calls, &seconds[i]))
            return false;
    *mean = (seconds[0] + 4 * seconds[1] + seconds[2]) / 6;
    return at_past(b, rows, pasts[1]); /* for the kernels alone */
}

static bool bench_batch(struct device_bench *b, int first, int last, double *mean)
{
    return bench_steps(b, "batch", ARCHRT_PHASE_BATCH, b->cuda->slots, first, last, mean) &&
           bench_kernels(b, ARCHRT_PHASE_BATCH);
}

/* `n` tokens of a prompt behind `past` others. */
static bool at_prompt(struct device_bench *b, int past, int n)
{
    int context = the_model->arch.context;
    struct cuda_call call = {.rows = n, .head_rows = 1, .segments = 1};
    int first[2] = {0, n}, head = n - 1;
    b->past = past;
    return fill_ints(b, SLAB_TOKEN, 1, 7, the_model->arch.vocab) &&
           fill_ints(b, SLAB_SLOT, 0, 0, 1) && fill_ints(b, SLAB_POSITION, past, 1, context) &&
           session_put(&b->s, SLAB_SEGMENT_ROW, 0, first, sizeof first, b->f) &&
           session_put(&b->s, SLAB_HEAD_ROW, 0, &head, sizeof head, b->f) &&
           session_put(&b->s, SLAB_CALL, 0, &call, sizeof call, b->f);
}

/* A prompt of so many tokens, chunk by chunk; *seconds of all of it. */
static bool bench_prompt(struct device_bench *b, int tokens, double *seconds)
{
    enum { NO_LOGITS = 0, LOGITS = 2 };
    *seconds = 0;
    for (int past = 0, n; past < tokens; past += n) {
        double part;
        n = tokens - past < b->cuda->chunk ? tokens - past : b->cuda->chunk;
        struct one_phase o = {ARCHRT_PHASE_PREFILL, past + n < tokens ? NO_LOGITS : LOGITS};
        if (!at_prompt(b, past, n) || !bench_phase(b, "prefill", o, n, 1, &part))
            return false;
        *seconds += part;
    }
    return bench_kernels(b, ARCHRT_PHASE_PREFILL);
}

/* The serving load that the spec declares, from its parts: the prompts one after the other, then
 * every slot's tokens together. */
static bool bench_load(struct device_bench *b)
{
    const struct archrt_cuda *c = b->cuda;
    int end = c->prompt + c->generate;
    double prompt, step;
    bool one = c->slots == 1, prompts_too = asked(b, BENCH_PREFILL);
    bool steps_too = asked(b, one ? BENCH_DECODE : BENCH_BATCH);
    if (prompts_too && !bench_prompt(b, c->prompt, &prompt))
        return false;
    if (steps_too && !(one ? bench_steps(b, "decode", ARCHRT_PHASE_DECODE, 1, c->prompt, end, &step)
                           : bench_batch(b, c->prompt, end, &step)))
        return false;
    if (!prompts_too || !steps_too || b->asked->only)
        return true;
    double prompts = prompt * c->slots, steps = step * (c->generate - 1);
    double rate = (double)c->slots * c->generate / (prompts + steps);
    b->load = json_pack("{sisisisfsfsfso}", "sequences", c->slots, "prompt", c->prompt, "generate",
                        c->generate, "prompt_seconds", prompts, "generate_seconds", steps,
                        "tokens_per_second", rate, "predicted_tokens_per_second",
                        number_or_null(c->serve_predicted));
    return true;
}

/* Where the spec declares no load: one chunk of a prompt, and what the cache has room for. */
static bool bench_no_load(struct device_bench *b)
{
    const struct archrt_cuda *c = b->cuda;
    int context = the_model->arch.context, each = c->pool_pages / c->slots * KV_PAGE;
    double seconds;
    return (!asked(b, BENCH_PREFILL) ||
            bench_prompt(b, c->chunk < context ? c->chunk : context, &seconds)) &&
           (c->slots == 1 || !asked(b, BENCH_BATCH) ||
            bench_batch(b, 1, each < context ? each : context, &seconds));
}

static void say_products(struct device_bench *b)
{
    const char *library = products_name(&b->s);
    snprintf(b->products, sizeof b->products, "%s", library ? library : "own kernels");
}

static bool bench_inference(struct device_bench *b)
{
    const struct archrt_cuda *c = b->cuda;
    double mean;
    static const enum archrt_phase_id mine[] = {ARCHRT_PHASE_DECODE, ARCHRT_PHASE_BATCH,
                                                ARCHRT_PHASE_PREFILL};
    if (!asked(b, BENCH_DECODE | BENCH_PREFILL | BENCH_BATCH) || !wanted_of(b, mine, 3))
        return true;
    if (!session_open(&b->s, b->device, c, false, c->pool_pages, b->f))
        return false;
    say_products(b);
    bool ok = fill(b, SLAB_WEIGHTS, true, 0.05) && fill(b, SLAB_VECTORS, false, 1) &&
              fill(b, SLAB_ROPE, false, 1) && fill(b, SLAB_CACHE, true, 1) && fill_pages(b) &&
              (!asked(b, BENCH_DECODE) || (bench_steps(b, "decode", ARCHRT_PHASE_DECODE, 1, 1,
                                                       the_model->arch.context, &mean) &&
                                           bench_kernels(b, ARCHRT_PHASE_DECODE))) &&
              (c->generate ? bench_load(b) : bench_no_load(b));
    session_close(&b->s);
    return ok;
}

static bool call_training(struct device_bench *b, void *what)
{
    const int *micro_batches = what;
    for (int i = 0; i < *micro_batches; i++)
        if (!session_run(&b->s, ARCHRT_PHASE_TRAIN, i ? 0 : FIRST_MICRO_BATCH, b->f))
            return false;
    return session_run(&b->s, ARCHRT_PHASE_UPDATE, 0, b->f);
}

static struct phase_price price_training(const struct device_bench *b, int micro_batches)
{
    const struct one_phase pass = {ARCHRT_PHASE_TRAIN, FIRST_MICRO_BATCH};
    const struct one_phase update = {ARCHRT_PHASE_UPDATE, 0};
    struct phase_price x = price(b, &pass), u = price(b, &update);
    double n = micro_batches;
    return (struct phase_price){.flops = n * x.flops + u.flops,
                                .bytes = n * x.bytes + u.bytes,
                                .floor = n * x.floor + (n - 1) * b->cuda->floor_adding + u.floor,
                                .predicted = n * x.predicted + (n - 1) * b->cuda->predicted_adding +
                                             u.predicted};
}

/* A whole step, where that is more than a micro-batch and an update, which have rows of their own:
 * the more micro-batches, the less the update costs each. */
static bool bench_training_step(struct device_bench *b, double tokens)
{
    int n = b->asked->micro_batches;
    double seconds;
    if (n < 2 || b->asked->only)
        return true;
    about_to(b, "step");
    if (!time_calls(b, call_training, &n, 1, &seconds))
        return false;
    struct phase_price x = price_training(b, n);
    json_t *row = phase_row(b, "step", n * tokens, seconds, &x);
    json_object_set_new(row, "micro_batches", json_integer(n));
    json_array_append_new(b->phases, row);
    return true;
}

/* Those of a step's first micro-batch, as the phase is timed. */
static bool bench_first_kernels(struct device_bench *b)
{
    b->s.overwrites = true;
    bool ok = bench_kernels(b, ARCHRT_PHASE_TRAIN);
    b->s.overwrites = false;
    return ok;
}

static bool bench_training(struct device_bench *b)
{
    const struct archrt_cuda *c = b->cuda;
    struct cuda_train step = {.grad_scale = 1e-4f,
                              .lr = 1e-9f,
                              .beta1 = 0.9f,
                              .beta2 = 0.95f,
                              .eps = 1e-8f,
                              .correction1 = 0.1f,
                              .correction2 = 0.05f,
                              .clip = 1};
    double tokens = (double)c->batch * c->sequence, seconds;
    static const enum archrt_phase_id mine[] = {ARCHRT_PHASE_TRAIN, ARCHRT_PHASE_EVAL,
                                                ARCHRT_PHASE_UPDATE};
    if (!asked(b, BENCH_TRAIN) || !wanted_of(b, mine, 3))
        return true;
    b->past = 0;
    if (!session_open(&b->s, b->device, c, true, 0, b->f))
        return false;
    say_products(b);
    bool ok =
        fill(b, SLAB_PARAMS, false, 0.05) && fill(b, SLAB_WEIGHTS, true, 0.05) &&
        fill(b, SLAB_ROPE, false, 1) && fill_ints(b, SLAB_TOKEN, 1, 7, the_model->arch.vocab) &&
        fill_ints(b, SLAB_TARGET, 3, 11, the_model->arch.vocab) &&
        session_put(&b->s, SLAB_STEP, 0, &step, sizeof step, b->f) &&
        bench_phase(b, "train", (struct one_phase){ARCHRT_PHASE_TRAIN, FIRST_MICRO_BATCH}, tokens,
                    1, &seconds) &&
        bench_phase(b, "update", (struct one_phase){ARCHRT_PHASE_UPDATE, 0}, 0, 1, &seconds) &&
        bench_training_step(b, tokens) && bench_first_kernels(b) &&
        fill(b, SLAB_GRADS, false, 1e-3) && /* what was added up there is no update */
        bench_kernels(b, ARCHRT_PHASE_EVAL) && bench_kernels(b, ARCHRT_PHASE_UPDATE);
    session_close(&b->s);
    return ok;
}

/* ---- what the card copies ---- */

struct two {
    void *from, *to;
    size_t bytes;
};

static bool call_copy(struct device_bench *b, void *what)
{
    const struct two *t = what;
    return b->device->api->copy(b->device, t->to, t->from, t->bytes) || refused(b);
}

static bool measure_copy(struct device_bench *b)
{
    const struct device_api *api = b->device->api;
    struct two t = {NULL, NULL, b->device->memory / 64};
    double seconds = 0;
    bool ok = api->alloc(b->device, t.bytes, &t.from) && api->alloc(b->device, t.bytes, &t.to) &&
              api->clear(b->device, t.from, t.bytes);
    if (!ok)
        refused(b);
    ok = ok && time_calls(b, call_copy, &t, 2, &seconds);
    api->release(b->device, t.from);
    api->release(b->device, t.to);
    b->copy = 2.0 * (double)t.bytes / seconds;
    return ok;
}

/* ---- all of it ---- */

bool device_bench(struct device *device, const struct bench_request *request, json_t **out,
                  struct failure *f)
{
    struct device_bench b = {.device = device,
                             .cuda = archrt_model.cuda,
                             .asked = request,
                             .kernels = json_array(),
                             .phases = json_array(),
                             .f = f};
    *out = json_object();
    json_object_set_new(*out, "model", json_string(archrt_model.arch.name));
    json_object_set_new(*out, "options", json_string(b.cuda->options));
    json_object_set_new(*out, "device", json_string(device->name));
    json_object_set_new(*out, "driver", json_string(device->driver));
    json_object_set_new(*out, "predicted_for",
                        b.cuda->priced_on ? json_string(b.cuda->priced_on) : json_null());
    enum products products = device->products;
    if (products == PRODUCTS_AUTO) /* of prompts too, to compare */
        device->products = PRODUCTS_IF_LOADED;
    bool ok = measure_copy(&b) && bench_inference(&b) && bench_training(&b);
    if (ok && request->only && json_array_size(b.kernels) == 0)
        ok = failed(f, STATUS_USAGE, "no kernel's name holds \"%s\"; `info` lists them",
                    request->only);
    device->products = products;
    json_object_set_new(*out, "products", json_string(b.products));
    json_object_set_new(*out, "copy_bytes_per_second", json_real(b.copy));
    json_object_set_new(*out, "phases", b.phases);
    json_object_set_new(*out, "load", b.load ? b.load : json_null());
    json_object_set_new(*out, "kernels", b.kernels);
    return ok;
}

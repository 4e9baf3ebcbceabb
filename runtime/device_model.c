/* device_model.c - the model on a device, behind the functions of struct archrt_model.
 *
 * There is one device, so there is one of these. Functions are called by all threads of the team;
 * thread 0 does the work, the others have none. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gpu.h"

enum { SEQUENCES = 2 }; /* that may be generated at once through struct archrt_infer */

static struct {
    struct device *device;
    struct archrt_model model;
    struct session train, infer;
    bool train_open, infer_open;
    bool resident; /* parameters of training live on the device */
    float *pinned; /* losses of a step, then its struct cuda_train */
    size_t pinned_rows;
    char says[256];
    struct failure failure;
    bool failed;
    /* inference: whose cache each slot is, and what the small slabs hold */
    const void *owner[SEQUENCES];
    int owners, decoding; /* the slot that CALL and SLOT are set up for; -1: for none */
    int next[SEQUENCES], length[SEQUENCES];
} gpu;

const struct archrt_model *the_model = &archrt_model;

bool device_failed(struct failure *f)
{
    if (!gpu.failed)
        return false;
    *f = gpu.failure;
    gpu.failed = false;
    return true;
}

/* Remembers the first failure of functions that cannot return one. */
static void remember(const struct failure *f)
{
    if (!gpu.failed)
        gpu.failure = *f;
    gpu.failed = true;
}

static void fill_nan(float *to, size_t n)
{
    for (size_t i = 0; to && i < n; i++)
        to[i] = NAN;
}

/* ---- parameters ---- */

static uint16_t to_bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return 0x7fff;
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

/* The matrices as bf16, through a buffer. */
static bool put_matrices(struct session *s, const float *params, struct failure *f)
{
    enum { BLOCK = 4 << 20 };
    size_t n = (size_t)s->cuda->param_decayed;
    uint16_t *half = need(malloc((n < BLOCK ? n : BLOCK) * sizeof *half));
    bool ok = true;
    for (size_t at = 0; at < n && ok; at += BLOCK) {
        size_t part = n - at < BLOCK ? n - at : BLOCK;
        for (size_t i = 0; i < part; i++)
            half[i] = to_bf16(params[at + i]);
        ok = session_put(s, SLAB_WEIGHTS, at * sizeof *half, half, part * sizeof *half, f);
    }
    free(half);
    return ok;
}

static bool put_rope(struct session *s, struct failure *f)
{
    float *rope = need(malloc(s->bytes[SLAB_ROPE]));
    rope_table(&gpu.model.arch, rope);
    bool ok = session_put(s, SLAB_ROPE, 0, rope, s->bytes[SLAB_ROPE], f);
    free(rope);
    return ok;
}

bool device_put_weights(struct session *s, const float *params, struct failure *f)
{
    const float *vectors = params + s->cuda->param_decayed;
    return put_matrices(s, params, f) &&
           session_put(s, SLAB_VECTORS, 0, vectors, s->bytes[SLAB_VECTORS], f) && put_rope(s, f);
}

/* ---- training ---- */

static bool open_training(struct failure *f)
{
    if (!gpu.train_open)
        gpu.train_open = session_open(&gpu.train, gpu.device, archrt_model.cuda, true, 0, f) &&
                         put_rope(&gpu.train, f);
    return gpu.train_open;
}

static bool put_params(const float *params, struct failure *f)
{
    struct session *s = &gpu.train;
    return session_put(s, SLAB_PARAMS, 0, params, s->bytes[SLAB_PARAMS], f) &&
           put_matrices(s, params, f);
}

static bool put_tokens(const int32_t *token, const int32_t *target, struct failure *f)
{
    struct session *s = &gpu.train;
    return session_put(s, SLAB_TOKEN, 0, token, s->bytes[SLAB_TOKEN], f) &&
           session_put(s, SLAB_TARGET, 0, target, s->bytes[SLAB_TARGET], f);
}

static bool pass(const struct archrt_train *run, bool backward, struct failure *f)
{
    struct session *s = &gpu.train;
    struct cuda_train step = {.grad_scale = run->grad_scale};
    if (!open_training(f) || (!gpu.resident && !put_params(run->params, f)) ||
        !put_tokens(run->token, run->target, f))
        return false;
    if (backward && (!session_put(s, SLAB_STEP, 0, &step, sizeof step, f) ||
                     !session_put(s, SLAB_GRADS, 0, run->grads, s->bytes[SLAB_GRADS], f)))
        return false;
    return session_run(s, backward ? ARCHRT_PHASE_TRAIN : ARCHRT_PHASE_EVAL, 0, f) &&
           session_get(s, run->loss, SLAB_LOSS, 0, s->bytes[SLAB_LOSS], f) &&
           (!backward || session_get(s, run->grads, SLAB_GRADS, 0, s->bytes[SLAB_GRADS], f)) &&
           session_wait(s, f);
}

static void run_pass(const struct archrt_train *run, bool backward, int tid)
{
    struct failure f;
    if (tid != 0 || pass(run, backward, &f))
        return;
    remember(&f);
    fill_nan(run->loss, (size_t)gpu.model.batch * (size_t)gpu.model.sequence);
}

static void device_train(const struct archrt_train *run, int tid)
{
    run_pass(run, true, tid);
}

static void device_eval(const struct archrt_train *run, int tid)
{
    run_pass(run, false, tid);
}

bool device_in_use(void)
{
    return gpu.device != NULL;
}

struct device *the_device(void)
{
    return gpu.device;
}

static bool make_pinned(int micro_batches, struct failure *f)
{
    size_t rows = gpu.train.bytes[SLAB_LOSS] / sizeof(float) * (size_t)micro_batches;
    struct device *d = gpu.device;
    if (rows <= gpu.pinned_rows)
        return true;
    d->api->host_release(d, gpu.pinned);
    gpu.pinned = NULL;
    gpu.pinned_rows = 0;
    void *at;
    if (!d->api->host_alloc(d, rows * sizeof(float) + sizeof(struct cuda_train), &at))
        return failed(f, STATUS_WORLD, "%s: %s", d->name, d->why);
    gpu.pinned = at;
    gpu.pinned_rows = rows;
    return true;
}

bool device_train_begin(const float *params, const float *m, const float *v, struct failure *f)
{
    struct session *s = &gpu.train;
    if (!open_training(f) || !put_params(params, f))
        return false;
    if (m && v &&
        (!session_put(s, SLAB_MOMENT1, 0, m, s->bytes[SLAB_MOMENT1], f) ||
         !session_put(s, SLAB_MOMENT2, 0, v, s->bytes[SLAB_MOMENT2], f)))
        return false;
    struct device *d = gpu.device;
    if (!d->api->clear(d, s->slabs[SLAB_GRADS], s->bytes[SLAB_GRADS]) || !d->api->wait(d))
        return failed(f, STATUS_WORLD, "%s: %s", d->name, d->why);
    gpu.resident = true;
    return true;
}

bool device_train_step(const struct device_step *step, double *norm, struct failure *f)
{
    struct session *s = &gpu.train;
    size_t bytes = s->bytes[SLAB_LOSS], n = bytes / sizeof(float);
    if (!make_pinned(step->micro_batches, f) ||
        !session_put(s, SLAB_STEP, 0, &step->train, sizeof step->train, f))
        return false;
    for (int i = 0; i < step->micro_batches; i++)
        if (!put_tokens(step->token + (size_t)i * n, step->target + (size_t)i * n, f) ||
            !session_run(s, ARCHRT_PHASE_TRAIN, i == 0 ? FIRST_MICRO_BATCH : 0, f) ||
            !session_get(s, gpu.pinned + (size_t)i * n, SLAB_LOSS, 0, bytes, f))
            return false;
    struct cuda_train *after = (void *)(gpu.pinned + gpu.pinned_rows);
    if (!session_run(s, ARCHRT_PHASE_UPDATE, 0, f) ||
        !session_get(s, after, SLAB_STEP, 0, sizeof *after, f) || !session_wait(s, f))
        return false;
    memcpy(step->loss, gpu.pinned, bytes * (size_t)step->micro_batches);
    *norm = (double)after->norm;
    return true;
}

bool device_train_fetch(float *params, float *m, float *v, struct failure *f)
{
    struct session *s = &gpu.train;
    return session_get(s, params, SLAB_PARAMS, 0, s->bytes[SLAB_PARAMS], f) &&
           (!m || session_get(s, m, SLAB_MOMENT1, 0, s->bytes[SLAB_MOMENT1], f)) &&
           (!v || session_get(s, v, SLAB_MOMENT2, 0, s->bytes[SLAB_MOMENT2], f)) &&
           session_wait(s, f);
}

void device_trains_by(char *out, size_t room)
{
    const char *library = gpu.train_open ? products_name(&gpu.train) : NULL;
    if (!gpu.device)
        snprintf(out, room, "host");
    else
        snprintf(out, room, "%s, products by %s", gpu.says, library ? library : "own kernels");
}

void device_train_end(void)
{
    gpu.resident = false;
}

/* ---- inference ---- */

/* Slots of this interface own all the pages that a whole context takes. */
static bool put_pages(struct session *s, struct failure *f)
{
    size_t n = s->bytes[SLAB_PAGES] / sizeof(int);
    int *pages = need(calloc(n, sizeof *pages));
    for (size_t i = 0; i < n; i++)
        pages[i] = (int)(i % (size_t)s->pool_pages);
    bool ok = session_put(s, SLAB_PAGES, 0, pages, n * sizeof *pages, f);
    free(pages);
    return ok;
}

static bool open_inference(struct failure *f)
{
    const struct archrt_cuda *c = archrt_model.cuda;
    gpu.owners = c->slots < SEQUENCES ? c->slots : SEQUENCES;
    if (!gpu.infer_open)
        gpu.infer_open =
            session_open(&gpu.infer, gpu.device, c, false, gpu.owners * c->slot_pages, f) &&
            put_pages(&gpu.infer, f);
    gpu.decoding = -1;
    for (int i = 0; i < SEQUENCES; i++)
        gpu.next[i] = gpu.length[i] = -1;
    return gpu.infer_open;
}

static void device_pack(void *weights, const float *params, int tid)
{
    struct failure f;
    (void)weights; /* they are on the device */
    if (tid == 0 && !(open_inference(&f) && device_put_weights(&gpu.infer, params, &f)))
        remember(&f);
}

/* A sequence keeps its slot; where there is no free one, a new sequence takes over the last. */
static int slot_of(const struct archrt_infer *s)
{
    for (int i = 0; i < gpu.owners; i++)
        if (gpu.owner[i] == s->cache)
            return i;
    int slot = 0;
    while (slot + 1 < gpu.owners && gpu.owner[slot])
        slot++;
    gpu.owner[slot] = s->cache;
    return slot;
}

bool device_put_rows(struct session *s, const int32_t *token, const int32_t *target, int n,
                     int slot, int past, bool logits, struct failure *f)
{
    size_t room = s->bytes[SLAB_TOKEN] / sizeof(int), bytes = (size_t)n * sizeof(int);
    int *rows = need(malloc(3 * room * sizeof *rows)), *position = rows + room;
    int *wanted = position + room;
    struct cuda_call call = {.rows = n, .head_rows = logits, .segments = 1};
    int segment_row[2] = {0, n}, head_row = n - 1;
    for (size_t i = 0; i < room; i++) {
        rows[i] = slot;
        position[i] = past + (int)i;
        wanted[i] = target && i < (size_t)n ? target[i] : -1;
    }
    bool ok = session_put(s, SLAB_TOKEN, 0, token, bytes, f) &&
              session_put(s, SLAB_SLOT, 0, rows, bytes, f) &&
              session_put(s, SLAB_POSITION, 0, position, bytes, f) &&
              session_put(s, SLAB_TARGET, 0, wanted, room * sizeof *wanted, f) &&
              session_put(s, SLAB_SEGMENT_ROW, 0, segment_row, sizeof segment_row, f) &&
              session_put(s, SLAB_HEAD_ROW, 0, &head_row, sizeof head_row, f) &&
              session_put(s, SLAB_CALL, 0, &call, sizeof call, f);
    free(rows);
    return ok;
}

static bool get_logits(float *logits, size_t at, struct failure *f)
{
    struct session *s = &gpu.infer;
    return session_get(s, logits, SLAB_WORK, at, (size_t)gpu.model.arch.vocab * sizeof *logits,
                       f) &&
           session_wait(s, f);
}

/* Scores and logits share a place, so that a call that wants both runs twice. */
static bool feed(const struct archrt_infer *sequence, const int32_t *token, int n, float *logits,
                 const int32_t *target, float *logprobs, struct failure *f)
{
    struct session *s = &gpu.infer;
    int slot = slot_of(sequence);
    if (!gpu.infer_open)
        return failed(f, STATUS_WORLD, "the weights are not on the device");
    gpu.decoding = -1;
    if (!device_put_rows(s, token, target, n, slot, sequence->past, logits != NULL, f))
        return false;
    if (logprobs && (!session_run(s, ARCHRT_PHASE_PREFILL, 1, f) ||
                     !session_get(s, logprobs, SLAB_LOSS, 0, (size_t)n * sizeof *logprobs, f) ||
                     !session_wait(s, f)))
        return false;
    for (int i = 0; logprobs && i < n; i++)
        logprobs[i] = -logprobs[i];
    if (logits)
        gpu.next[slot] = gpu.length[slot] = -1;
    if (!logits)
        return logprobs || (session_run(s, ARCHRT_PHASE_PREFILL, 0, f) && session_wait(s, f));
    return session_run(s, ARCHRT_PHASE_PREFILL, 2, f) &&
           get_logits(logits, archrt_model.cuda->logits_at, f);
}

static void device_prefill(const struct archrt_infer *s, const int32_t *token, int n, float *logits,
                           const int32_t *target, float *logprobs, int tid)
{
    struct failure f;
    if (tid != 0 || feed(s, token, n, logits, target, logprobs, &f))
        return;
    remember(&f);
    fill_nan(logits, (size_t)gpu.model.arch.vocab);
    fill_nan(logprobs, (size_t)n);
}

static bool put_int(enum archrt_slab slab, int i, int value, struct failure *f)
{
    return session_put(&gpu.infer, slab, (size_t)i * sizeof value, &value, sizeof value, f);
}

/* Only what differs from what the device has goes there: it counts tokens itself. */
static bool decode_one(const struct archrt_infer *sequence, int32_t token, float *logits,
                       struct failure *f)
{
    struct session *s = &gpu.infer;
    int slot = slot_of(sequence);
    if (!gpu.infer_open)
        return failed(f, STATUS_WORLD, "the weights are not on the device");
    if (gpu.decoding != slot) {
        struct cuda_call call = {.rows = 1, .head_rows = 1, .segments = 1};
        if (!put_int(SLAB_SLOT, 0, slot, f) || !put_int(SLAB_HEAD_ROW, 0, 0, f) ||
            !session_put(s, SLAB_CALL, 0, &call, sizeof call, f))
            return false;
        gpu.decoding = slot;
    }
    if (gpu.length[slot] != sequence->past && !put_int(SLAB_LENGTH, slot, sequence->past, f))
        return false;
    if (!put_int(SLAB_NEXT, slot, token, f) || !session_run(s, ARCHRT_PHASE_DECODE, 0, f))
        return false;
    gpu.length[slot] = sequence->past + 1;
    return !logits || get_logits(logits, archrt_model.cuda->decode_logits_at, f);
}

static void device_decode(const struct archrt_infer *s, int32_t token, float *logits, int tid)
{
    struct failure f;
    if (tid != 0 || decode_one(s, token, logits, &f))
        return;
    remember(&f);
    fill_nan(logits, (size_t)gpu.model.arch.vocab);
}

/* ---- choosing ---- */

const char *device_says(void)
{
    return archrt_model.cuda ? gpu.says : NULL;
}

static struct archrt_model on_device(void)
{
    enum { HARDLY_ANY = 64 };
    struct archrt_model m = archrt_model;
    m.train = device_train;
    m.eval = device_eval;
    m.pack = device_pack;
    m.prefill = device_prefill;
    m.decode = device_decode;
    m.weights = ARCHRT_BF16;
    m.chunk = m.cuda->chunk;
    m.batch = m.cuda->batch;
    m.sequence = m.cuda->sequence;
    m.work_bytes = m.weight_bytes = m.cache_bytes = m.infer_work_bytes = HARDLY_ANY;
    return m;
}

bool device_use(struct device *device, struct failure *f)
{
    const struct archrt_cuda_target *t = device_target(archrt_model.cuda, device->sm);
    if (!t) {
        snprintf(gpu.says, sizeof gpu.says,
                 "%s is an sm_%d, for which this program has no code (compile it with --target "
                 "sm_%d)",
                 device->name, device->sm, device->sm);
        return failed(f, STATUS_WORLD, "%s", gpu.says);
    }
    gpu.device = device;
    gpu.model = on_device();
    the_model = &gpu.model;
    char memory[32];
    snprintf(gpu.says, sizeof gpu.says, "%s, %d processors, %s, %s, code for %s", device->name,
             device->processors, show_bytes(memory, (double)device->memory), device->driver,
             t->name);
    return true;
}

bool device_choose(const char *wanted, const char *products, struct failure *f)
{
    bool host = wanted && strcmp(wanted, "host") == 0, cuda = wanted && strcmp(wanted, "cuda") == 0;
    if (wanted && !host && !cuda)
        return failed(f, STATUS_USAGE, "--device is host or cuda, not %s", wanted);
    if (!products_choose(NULL, products, f))
        return false;
    if (host)
        return true;
    if (!archrt_model.cuda)
        return !cuda || failed(f, STATUS_USAGE,
                               "this program has no CUDA code: compile it with --target sm_90, or "
                               "the architecture that your card has");
    struct device *device = cuda_device_open(gpu.says, sizeof gpu.says);
    if (device && device_use(device, f))
        return products_choose(device, products, f);
    if (device)
        device->api->close(device);
    if (cuda)
        return failed(f, STATUS_WORLD, "--device cuda: %s", gpu.says);
    notice("%s: host kernels are used", gpu.says);
    return true;
}

void device_leave(void)
{
    if (gpu.train_open)
        session_close(&gpu.train);
    if (gpu.infer_open)
        session_close(&gpu.infer);
    if (gpu.device) {
        gpu.device->api->host_release(gpu.device, gpu.pinned);
        gpu.device->api->close(gpu.device);
    }
    memset(&gpu, 0, sizeof gpu);
    the_model = &archrt_model;
}

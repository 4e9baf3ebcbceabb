/* model_inference.c - of model_test: prompts, one token after another, all slots at once, texts
 * whose tokens the device chooses. */
#include "model_check.h"
#include "sample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- inference ---- */

enum { PROMPT = 37, STEPS_ON = 5 };

static int best(const float *logits)
{
    int at = 0;
    for (int i = 1; i < host->arch.vocab; i++)
        if (logits[i] > logits[at])
            at = i;
    return at;
}

/* The largest difference of two rows of logits. */
static double apart(const float *a, const float *b)
{
    double worst = 0;
    for (int i = 0; i < host->arch.vocab; i++) {
        double error = fabs((double)a[i] - (double)b[i]);
        worst = error > worst || isnan(error) ? error : worst;
    }
    return worst;
}

void check_inference(const float *params)
{
    struct inference a, b;
    struct failure f;
    size_t V = (size_t)host->arch.vocab;
    float *want = zeros(V, sizeof(float)), *got = zeros(V, sizeof(float));
    float scores[2][PROMPT];
    int32_t token[PROMPT + 1];
    for (int i = 0; i <= PROMPT; i++)
        token[i] = (int32_t)(mix64((uint64_t)i + 5) % V);
    must(inference_open(&a, host, params, &f), &f);
    must(inference_open(&b, the_model, params, &f), &f);
    must(!device_failed(&f), &f);
    /* Two calls: the second stands behind cached keys and has more rows, so that the graph recorded
     * for the first does not do for it. */
    for (int part = 0; part < 2; part++) {
        int at = part ? 16 : 0, n = part ? PROMPT - 16 : 16;
        inference_feed(&a, token + at, n, want, token + at + 1, scores[0] + at);
        inference_feed(&b, token + at, n, got, token + at + 1, scores[1] + at);
    }
    must(!device_failed(&f), &f);
    int part = (host->cuda->chunk + DEVICE_ROW_STEPS - 1) / DEVICE_ROW_STEPS;
    int most = (PROMPT - 16 + part - 1) / part * part;
    CHECK(!standin || standin->columns == most, "the library multiplied %ld rows of %d",
          standin->columns, PROMPT - 16);
    double worst = apart(got, want);
    for (int i = 0; i < PROMPT; i++)
        CHECK(fabs((double)scores[0][i] - (double)scores[1][i]) < 0.15,
              "log-probability %d is %g, on the host %g", i, (double)scores[1][i],
              (double)scores[0][i]);
    for (int i = 0; i < STEPS_ON; i++) {
        int32_t next = (int32_t)best(want);
        inference_step(&a, next, want);
        inference_step(&b, next, got);
        must(!device_failed(&f), &f);
        worst = fmax(worst, apart(got, want));
    }
    CHECK(worst < 0.2, "logits differ by %g", worst);
    printf("inference: worst logit %.4f\n", worst);
    inference_close(&a);
    inference_close(&b);
    free(want);
    free(got);
}

/* ---- all slots at once ---- */

/* Four kinds of choice; ids at the vocabulary's end are not to be chosen. */
static struct cuda_sampling sampling_of(int i)
{
    static const struct cuda_sampling kinds[] = {
        {.temperature = 0, .top_p = 1},
        {.temperature = 0.5f, .top_p = 1},
        {.temperature = 0.4f, .top_p = 0.9f, .top_k = 30},
        {.temperature = 0.6f, .top_p = 0.95f, .min_p = 0.02f},
    };
    struct cuda_sampling s = kinds[i % 4];
    s.seed[0] = (unsigned)i + 3;
    s.seed[1] = 7;
    s.tokens = host->arch.vocab - 5;
    return s;
}

/* What the host's sampler chooses at `position`. */
static int by_host(float *logits, const struct cuda_sampling *o, int position)
{
    struct sampler_options same = {(double)o->temperature, o->top_k, (double)o->top_p,
                                   (double)o->min_p, (uint64_t)o->seed[1] << 32 | o->seed[0]};
    struct sampler *sampler = need(sampler_new(&same, host->arch.vocab));
    for (int id = o->tokens; id < host->arch.vocab; id++)
        logits[id] = -INFINITY;
    int token = sampler_next(sampler, logits, position);
    sampler_free(sampler);
    return token;
}

struct slots {
    struct session s;
    int n, lengths[256];
    int32_t *token; /* [slots][context] */
};

static void put(struct slots *t, enum archrt_slab slab, const void *from, size_t n)
{
    struct failure f;
    must(session_put(&t->s, slab, 0, from, n * sizeof(int), &f), &f);
}

/* Pages in an order of their own, so that nothing but the table can find them. */
static void put_pages(struct slots *t)
{
    const struct archrt_cuda *c = t->s.cuda;
    int all = c->slots * c->slot_pages, *pages = zeros((size_t)all, sizeof *pages);
    for (int i = 0; i < all; i++)
        pages[i] = all - 1 - i;
    put(t, SLAB_PAGES, pages, (size_t)all);
    free(pages);
}

/* Prompts of all slots, a few in each call, of different lengths. */
static void feed_prompts(struct slots *t)
{
    const struct archrt_cuda *c = t->s.cuda;
    struct failure f;
    size_t room = (size_t)c->chunk;
    int *rows = zeros(5 * room, sizeof *rows);
    int *slot = rows + room, *position = slot + room, *head = position + room, *first = head + room;
    for (int at = 0; at < t->n;) {
        struct cuda_call call = {0};
        while (at < t->n && call.segments < c->segments && call.rows + t->lengths[at] <= c->chunk) {
            first[call.segments] = call.rows;
            for (int i = 0; i < t->lengths[at]; i++, call.rows++) {
                rows[call.rows] = t->token[at * host->arch.context + i];
                slot[call.rows] = at;
                position[call.rows] = i;
            }
            head[call.head_rows++] = call.rows - 1;
            first[++call.segments] = call.rows;
            at++;
        }
        put(t, SLAB_TOKEN, rows, room);
        put(t, SLAB_SLOT, slot, room);
        put(t, SLAB_POSITION, position, room);
        put(t, SLAB_HEAD_ROW, head, (size_t)call.head_rows);
        put(t, SLAB_SEGMENT_ROW, first, (size_t)call.segments + 1);
        put(t, SLAB_CALL, &call, sizeof call / sizeof(int));
        must(session_run(&t->s, ARCHRT_PHASE_PREFILL, 2, &f), &f);
    }
    free(rows);
}

static void put_sampling(struct slots *t)
{
    struct cuda_sampling *sampling = zeros((size_t)t->n, sizeof *sampling);
    for (int i = 0; i < t->n; i++)
        sampling[i] = sampling_of(i);
    put(t, SLAB_SAMPLING, sampling, (size_t)t->n * sizeof *sampling / sizeof(int));
    free(sampling);
}

/* One step of all slots; the tokens are the host sampler's over the same logits. */
static void check_step(struct slots *t, int step)
{
    size_t V = ((size_t)host->arch.vocab + 7) / 8 * 8, rows = (size_t)t->n - 1; /* padding too */
    float *logits = zeros(rows * V, sizeof *logits);
    int *next = zeros(rows, sizeof *next);
    struct failure f;
    must(session_run(&t->s, ARCHRT_PHASE_BATCH, 0, &f) &&
             session_get(&t->s, logits, SLAB_WORK, t->s.cuda->batch_logits_at,
                         rows * V * sizeof *logits, &f) &&
             session_get(&t->s, next, SLAB_NEXT, 0, rows * sizeof *next, &f) &&
             session_wait(&t->s, &f),
         &f);
    for (size_t i = 0; i < rows; i++) {
        struct cuda_sampling o = sampling_of((int)i);
        int wanted = by_host(logits + i * V, &o, t->lengths[i] + step + 1);
        CHECK(next[i] == wanted, "slot %zu, step %d: token %d, the host's sampler takes %d", i,
              step, next[i], wanted);
    }
    free(logits);
    free(next);
}

/* Greedy tokens of one slot by the host, at each step the host's own choice and the margin by which
 * it won: where it is narrow, bf16 may choose another. */
static void check_slot(const float *params, const struct slots *t, int slot, const int *output)
{
    struct inference a;
    struct failure f;
    int n = t->lengths[slot];
    float *logits = zeros((size_t)host->arch.vocab, sizeof *logits);
    must(inference_open(&a, host, params, &f), &f);
    inference_feed(&a, t->token + slot * host->arch.context, n, logits, NULL, NULL);
    for (int i = 0; i <= STEPS_ON; i++) {
        for (int id = sampling_of(slot).tokens; i > 0 && id < host->arch.vocab; id++)
            logits[id] = -INFINITY;
        int chosen = output[slot * host->arch.context + n + i], wanted = best(logits);
        bool known = chosen >= 0 && chosen < host->arch.vocab;
        CHECK(known && logits[chosen] > logits[wanted] - 0.25f,
              "slot %d, step %d: token %d, the host's is %d", slot, i, chosen, wanted);
        if (!known)
            break;
        inference_step(&a, chosen, logits);
    }
    inference_close(&a);
    free(logits);
}

void check_slots(const float *params, struct device *device)
{
    const struct archrt_cuda *c = host->cuda;
    struct slots t = {.n = c->slots};
    struct failure f;
    size_t context = (size_t)host->arch.context;
    if (!c->phases[ARCHRT_PHASE_BATCH].n)
        return;
    must(session_open(&t.s, device, c, false, c->slots * c->slot_pages, &f), &f);
    t.token = zeros((size_t)t.n * context, sizeof *t.token);
    for (int i = 0; i < t.n; i++) {
        t.lengths[i] = 1 + (int)(mix64((uint64_t)i + 3) % 30);
        for (int k = 0; k < t.lengths[i]; k++)
            t.token[(size_t)i * context + (size_t)k] =
                (int32_t)(mix64((uint64_t)(i * 1000 + k)) % (uint64_t)host->arch.vocab);
    }
    unsigned short *half = zeros((size_t)c->param_decayed, sizeof *half);
    for (int64_t i = 0; i < c->param_decayed; i++) {
        uint32_t bits;
        memcpy(&bits, params + i, sizeof bits);
        half[i] = (unsigned short)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
    }
    float *rope = zeros(context * (size_t)host->arch.head_dim, sizeof *rope);
    rope_table(&host->arch, rope);
    must(session_put(&t.s, SLAB_WEIGHTS, 0, half, t.s.bytes[SLAB_WEIGHTS], &f) &&
             session_put(&t.s, SLAB_VECTORS, 0, params + c->param_decayed, t.s.bytes[SLAB_VECTORS],
                         &f) &&
             session_put(&t.s, SLAB_ROPE, 0, rope, t.s.bytes[SLAB_ROPE], &f),
         &f);
    put_pages(&t);
    feed_prompts(&t);
    int *slot = zeros((size_t)t.n, sizeof *slot), *head = zeros((size_t)t.n, sizeof *head);
    for (int i = 0; i < t.n; i++) {
        slot[i] = i == t.n - 1 ? -1 : i; /* the last one rests */
        head[i] = i;
    }
    struct cuda_call call = {.rows = t.n, .head_rows = t.n, .segments = 0};
    put(&t, SLAB_SLOT, slot, (size_t)t.n);
    put(&t, SLAB_HEAD_ROW, head, (size_t)t.n);
    put(&t, SLAB_CALL, &call, sizeof call / sizeof(int));
    put_sampling(&t);
    for (int i = 0; i < STEPS_ON; i++)
        check_step(&t, i);
    int *output = zeros((size_t)t.n * context, sizeof *output), length = 0;
    must(session_get(&t.s, output, SLAB_OUTPUT, 0, t.s.bytes[SLAB_OUTPUT], &f) &&
             session_get(&t.s, &length, SLAB_LENGTH, 4 * (size_t)(t.n - 1), sizeof length, &f) &&
             session_wait(&t.s, &f),
         &f);
    CHECK(length == t.lengths[t.n - 1], "the idle slot has %d tokens, not %d", length,
          t.lengths[t.n - 1]);
    for (int i = 0; i + 1 < t.n; i += 4)
        check_slot(params, &t, i, output);
    printf("slots: %d of them, %d tokens each\n", t.n - 1, STEPS_ON + 1);
    session_close(&t.s);
    free(t.token);
    free(half);
    free(rope);
    free(slot);
    free(head);
    free(output);
}

/* ---- continuations, chosen on the device ---- */

enum { MOST = 7, CONTINUATIONS = 20 };
struct continued {
    int n[CONTINUATIONS], ends; /* `ends`: a sequence does where a token is a multiple of it; 0 */
    int32_t token[CONTINUATIONS][MOST];
    bool over[CONTINUATIONS], loaded;
};

static enum continuation_answer take(void *arg, int which, int32_t token)
{
    struct continued *c = arg;
    CHECK(c->loaded && !c->over[which] && c->n[which] < MOST, "sequence %d goes on past its end",
          which);
    c->token[which][c->n[which]++] = token;
    c->over[which] = c->n[which] == MOST || (c->ends && token % c->ends == 0);
    return c->over[which] ? CONTINUATION_END : CONTINUATION_ON;
}

static void loaded(void *arg)
{
    ((struct continued *)arg)->loaded = true;
}

/* Tokens of one sequence that are not those of the host's sampler over the logits that the device
 * gives where one token is fed after another. */
static int other_tokens(const float *params, const struct continuations *g,
                        const struct continued *c, int which)
{
    struct inference a;
    struct failure f;
    int others = 0;
    const struct cuda_sampling *o = &g->sampling[which];
    float *logits = zeros((size_t)host->arch.vocab, sizeof *logits);
    must(inference_open(&a, the_model, params, &f), &f);
    if (g->n > 1)
        inference_feed(&a, g->prompt, g->n - 1, NULL, NULL, NULL);
    for (int i = 0; i < c->n[which]; i++) {
        int32_t fed = i ? c->token[which][i - 1] : g->prompt[g->n - 1], got = c->token[which][i];
        inference_step(&a, fed, logits);
        must(!device_failed(&f), &f);
        others += got != by_host(logits, o, g->n + i);
        CHECK(got >= 0 && got < o->tokens, "sequence %d, token %d is %d", which, i, got);
        if (got < 0 || got >= o->tokens)
            break;
    }
    inference_close(&a);
    free(logits);
    return others;
}

/* `first` is the first kind of sampling. One sequence alone computes what the reference does, to
 * the bit; several are other kernels' work, whose sums round differently. */
static void check_continuations(const float *params, int n, int count, int first, int ends)
{
    struct continued c = {.ends = ends};
    struct cuda_sampling sampling[CONTINUATIONS];
    struct failure f;
    int32_t *prompt = zeros((size_t)n, sizeof *prompt);
    for (int i = 0; i < n; i++)
        prompt[i] = (int32_t)(mix64((uint64_t)i + 31) % (uint64_t)host->arch.vocab);
    for (int i = 0; i < count; i++)
        sampling[i] = sampling_of(first + i);
    struct continuations g = {prompt, n, count, MOST, sampling, take, loaded, &c};
    must(device_generate(params, &g, &f), &f);
    int all = 0, others = 0, shortest = MOST;
    for (int i = 0; i < count; i++) {
        CHECK(c.over[i], "sequence %d has no end", i);
        all += c.n[i];
        shortest = c.n[i] < shortest ? c.n[i] : shortest;
        others += other_tokens(params, &g, &c, i);
    }
    CHECK(others <= (count > 1 ? all / 6 : 0), "%d of %d tokens are others than the host's", others,
          all);
    CHECK(!ends || shortest < MOST, "no sequence ended before the others");
    printf("continuations: %d of %d tokens behind %d, %d others\n", count, all, n, others);
    free(prompt);
}

void check_generation(const float *params)
{
    int page = KV_PAGE, slots = host->cuda->slots;
    check_continuations(params, 1, 1, 0, 0);
    check_continuations(params, page - 3, 1, 1, 0);
    check_continuations(params, page + 1, 1, 2, 0); /* the prompt's page is whole */
    check_continuations(params, page + 4, 1, 3, 0);
    check_continuations(params, page - 2, slots + 3, 0, 3); /* more than slots */
    check_continuations(params, page + 5, 2, 1, 2);
}

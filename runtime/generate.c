/* generate.c - continues a prompt, streaming; or several times, each with a seed of its own. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>

#include "checkpoint.h"
#include "gpu.h"
#include "options.h"
#include "peak.h"
#include "sample.h"
#include "stream.h"
#include "tokenizer.h"

struct settings {
    const char *weights, *prompt, *file, *tokenizer;
    struct texts stop;
    struct sampler_options sampling;
    int64_t tokens, count, top_k, seed;
    bool random, greedy, json, verbose, seeded;
};

/* Text on its way out: held back while it may be the front of a UTF-8 sequence or of a stop text.
 */
struct output {
    const struct settings *s;
    char *at;
    size_t n, capacity, sent; /* at[0, sent) is out */
    bool stopped;             /* at a stop text, which was cut off */
};

/* ---- output ------------------------------------------------------------------------------------
 */

/* Bytes that the UTF-8 sequence beginning with `c` has; 1 for what begins none. */
static size_t sequence_length(unsigned char c)
{
    return c >= 0xf0 && c < 0xf8 ? 4 : c >= 0xe0 ? (c < 0xf0 ? 3 : 1) : c >= 0xc2 ? 2 : 1;
}

/* How much of text[0, n) ends with a whole sequence. Bytes that are no UTF-8 count as whole. */
static size_t whole_sequences(const char *text, size_t n)
{
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        unsigned char c = (unsigned char)text[n - back];
        if ((c & 0xc0) == 0x80)
            continue; /* a continuation: its beginning lies further back */
        return sequence_length(c) > back ? n - back : n;
    }
    return n;
}

/* Longest end of text[0, n) that a stop text begins with, short of the whole one. */
static size_t stop_front(const struct output *o)
{
    size_t longest = 0;
    for (int i = 0; i < o->s->stop.n; i++) {
        const char *stop = o->s->stop.at[i];
        size_t length = strlen(stop);
        for (size_t k = length - 1; k > longest; k--)
            if (k <= o->n && memcmp(o->at + o->n - k, stop, k) == 0)
                longest = k;
    }
    return longest;
}

/* Where the first stop text begins in what is not out yet, or n. */
static size_t stop_begin(const struct output *o)
{
    size_t first = o->n;
    for (int i = 0; i < o->s->stop.n; i++) {
        size_t length = strlen(o->s->stop.at[i]);
        for (size_t at = o->sent; at + length <= o->n && at < first; at++)
            if (memcmp(o->at + at, o->s->stop.at[i], length) == 0)
                first = at;
    }
    return first;
}

static void send(struct output *o, size_t end)
{
    if (!o->s->json && o->s->count == 1 && end > o->sent) {
        fwrite(o->at + o->sent, 1, end - o->sent, stdout);
        fflush(stdout);
    }
    if (end > o->sent)
        o->sent = end;
}

static void output_add(struct output *o, const char *text, size_t n)
{
    if (o->n + n > o->capacity) {
        o->capacity = 2 * o->capacity + n + 256;
        o->at = need(realloc(o->at, o->capacity));
    }
    memcpy(o->at + o->n, text, n);
    o->n += n;
    size_t stop = stop_begin(o);
    if (stop < o->n) {
        o->n = stop;
        o->stopped = true;
        send(o, o->n);
        return;
    }
    size_t end = o->n - stop_front(o);
    send(o, whole_sequences(o->at, end < o->sent ? o->sent : end));
}

/* ---- prompt ------------------------------------------------------------------------------------
 */

static bool read_prompt(const struct settings *s, char **text, size_t *n, struct failure *f)
{
    *text = NULL;
    *n = 0;
    if (s->prompt) {
        *n = strlen(s->prompt);
        *text = need(strdup(s->prompt));
        return true;
    }
    struct stream in;
    size_t capacity = 1 << 16, got = 1;
    if (!stream_open(&in, s->file ? s->file : "-", f))
        return false;
    bool good = true;
    *text = need(malloc(capacity));
    while (good && got > 0) {
        if (*n == capacity)
            *text = need(realloc(*text, capacity *= 2));
        good = stream_read(&in, *text + *n, capacity - *n, &got, f);
        *n += good ? got : 0;
    }
    stream_close(&in);
    return good;
}

/* Ids of the prompt, its front cut where context and wish leave no room for it. */
static bool encode_prompt(const struct settings *s, const struct tokenizer *t, int32_t **id,
                          int *count, struct failure *f)
{
    char *text;
    size_t n;
    if (!read_prompt(s, &text, &n, f)) {
        free(text);
        return false;
    }
    size_t bound = t->bound(t, n) + 1, tokens = 0;
    *id = need(malloc(bound * sizeof **id));
    if (n > 0)
        tokens = t->encode(t, text, n, *id);
    free(text);
    if (tokens == 0 && t->separator < 0)
        return failed(f, STATUS_INPUT, "the prompt is empty: give --prompt TEXT or --file F");
    if (tokens == 0)
        (*id)[tokens++] = t->separator; /* as at the beginning of a document */
    size_t context = (size_t)archrt_model.arch.context;
    size_t keep = (size_t)s->tokens < context / 2 ? context - (size_t)s->tokens : context / 2;
    if (keep == 0)
        keep = 1;
    if (tokens > keep) {
        notice("the prompt's first %zu of %zu tokens are left out: the context holds %zu, with "
               "room for what is generated",
               tokens - keep, tokens, context);
        memmove(*id, *id + (tokens - keep), keep * sizeof **id);
        tokens = keep;
    }
    *count = (int)tokens;
    return true;
}

/* ---- generation --------------------------------------------------------------------------------
 */

struct sequence {
    struct output out;
    const char *finish; /* "length", "stop", "end", "context"; NULL: under way */
    int generated;
    double started, first, ended; /* clock */
    int32_t *id;
};

struct run {
    const struct settings *s;
    struct tokenizer t;
    int32_t *prompt;
    int n; /* tokens of it */
    float *params;
    struct sequence *sequences; /* [count] */
    int printed;                /* of them */
    char *piece;                /* text of one token */
    struct failure *f;
};

/* Tokens of a sequence at most: the last one of a full context is not fed. */
static int most_tokens(const struct run *run)
{
    int room = archrt_model.arch.context - run->n + 1;
    return run->s->tokens < room ? (int)run->s->tokens : room;
}

static void print_sequences(struct run *run);

static enum continuation_answer finish(struct run *run, struct sequence *q, const char *why)
{
    q->finish = why;
    q->ended = clock_seconds();
    if (!q->out.stopped)
        send(&q->out, q->out.n);
    print_sequences(run);
    return CONTINUATION_END;
}

/* One more token of a sequence, as the sampler or the device chose it. */
static enum continuation_answer take(void *arg, int which, int32_t id)
{
    struct run *run = arg;
    struct sequence *q = &run->sequences[which];
    if (id < 0) {
        failed(run->f, STATUS_INPUT,
               "the model gave no finite logit after %d tokens: are these weights of a run that "
               "diverged?",
               run->n + q->generated);
        return CONTINUATION_OVER;
    }
    if (q->generated == 0)
        q->first = clock_seconds();
    q->id[q->generated++] = id;
    if (id == run->t.separator)
        return finish(run, q, "end");
    output_add(&q->out, run->piece, run->t.decode(&run->t, id, run->piece));
    if (q->out.stopped)
        return finish(run, q, "stop");
    if (q->generated == run->s->tokens)
        return finish(run, q, "length");
    if (q->generated == most_tokens(run))
        return finish(run, q, "context");
    return CONTINUATION_ON;
}

/* As soon as they are packed or on the device. */
static void release_params(void *arg)
{
    struct run *run = arg;
    slab_free(run->params, archrt_model.param_floats * sizeof(float));
    run->params = NULL;
}

static uint64_t seed_of(const struct settings *s, int which)
{
    return (uint64_t)s->seed + (uint64_t)which;
}

/* Continues behind the prompt, which is in the cache. */
static enum continuation_answer continue_on_host(struct run *run, struct inference *model,
                                                 int which, float *logits)
{
    int V = archrt_model.arch.vocab;
    struct sampler_options options = run->s->sampling;
    options.seed = seed_of(run->s, which);
    struct sampler *sampler = need(sampler_new(&options, V));
    enum continuation_answer answer = CONTINUATION_ON;
    model->state.past = run->n;
    while (answer == CONTINUATION_ON) {
        for (int i = run->t.vocab; i < V; i++)
            logits[i] = -INFINITY; /* ids without text */
        int id = sampler_next(sampler, logits, model->state.past);
        answer = take(run, which, id);
        if (answer == CONTINUATION_ON)
            inference_step(model, id, logits);
    }
    sampler_free(sampler);
    return answer;
}

/* One sequence after another. */
static bool generate_on_host(struct run *run)
{
    struct inference model = {.model = the_model};
    size_t bytes = (size_t)archrt_model.arch.vocab * sizeof(float);
    float *first = need(malloc(bytes)), *logits = need(malloc(bytes));
    bool good = inference_open(&model, the_model, run->params, run->f);
    release_params(run);
    double begun = clock_seconds();
    if (good)
        inference_feed(&model, run->prompt, run->n, first, NULL, NULL);
    for (int i = 0; i < run->s->count && good; i++) {
        memcpy(logits, first, bytes);
        run->sequences[i].started = i ? clock_seconds() : begun;
        good = continue_on_host(run, &model, i, logits) != CONTINUATION_OVER;
    }
    inference_close(&model);
    free(first);
    free(logits);
    return good;
}

/* As many sequences at once as the device has slots. */
static bool generate_on_device(struct run *run)
{
    const struct sampler_options *o = &run->s->sampling;
    size_t count = (size_t)run->s->count;
    struct cuda_sampling *sampling = need(calloc(count, sizeof *sampling));
    double begun = clock_seconds();
    for (size_t i = 0; i < count; i++) {
        uint64_t seed = seed_of(run->s, (int)i);
        run->sequences[i].started = begun;
        sampling[i] = (struct cuda_sampling){.temperature = (float)o->temperature,
                                             .top_p = (float)o->top_p,
                                             .min_p = (float)o->min_p,
                                             .top_k = o->top_k,
                                             .seed = {(unsigned)seed, (unsigned)(seed >> 32)},
                                             .tokens = run->t.vocab};
    }
    struct continuations g = {.prompt = run->prompt,
                              .n = run->n,
                              .count = (int)count,
                              .most = most_tokens(run),
                              .sampling = sampling,
                              .take = take,
                              .loaded = release_params,
                              .arg = run};
    run->f->status = STATUS_OK; /* take() may set it while the device is well */
    bool good = device_generate(run->params, &g, run->f) && run->f->status == STATUS_OK;
    free(sampling);
    return good;
}

/* ---- reports -----------------------------------------------------------------------------------
 */

static double tokens_per_second(const struct sequence *q)
{
    double rest = q->ended - q->first;
    return q->generated > 1 && rest > 0 ? (q->generated - 1) / rest : 0;
}

/* Part of the measured read bandwidth that decoding used: weights and the cache at mid-way. */
static double read_fraction(const struct run *run, const struct sequence *q)
{
    static const double width[] = {4, 2, 1.0625};
    const struct archrt_model *m = the_model;
    double weights =
        ((double)m->params + (double)m->arch.vocab * m->arch.d_model) * width[m->weights];
    double cache = (double)m->cache_bytes / m->arch.context * (run->n + q->generated / 2.0);
    double read = peak_read(m->threads, m->weight_bytes, 0.06);
    return read > 0 ? (weights + cache) * tokens_per_second(q) / read : 0;
}

static void print_speed(const struct run *run, const struct sequence *q)
{
    double first = q->first - q->started;
    if (tokens_per_second(q) == 0)
        return;
    fprintf(stderr, "%s: %d tokens in, first out after %.1f ms (%.0f tokens/s); then %.1f tokens/s",
            program_name, run->n, 1e3 * first, run->n / first, tokens_per_second(q));
    if (!device_in_use())
        fprintf(stderr, ", %.0f%% of this machine's read bandwidth", 100 * read_fraction(run, q));
    fputc('\n', stderr);
}

static void print_total(const struct run *run)
{
    const struct sequence *q = run->sequences;
    long long tokens = 0;
    double ended = q->ended;
    for (int i = 0; i < run->s->count; i++) {
        tokens += q[i].generated;
        ended = q[i].ended > ended ? q[i].ended : ended;
    }
    fprintf(stderr, "%s: %d tokens in; %lld sequences, %lld tokens out in %.2f s, %.1f tokens/s\n",
            program_name, run->n, (long long)run->s->count, tokens, ended - q->started,
            (double)tokens / (ended - q->started));
}

/* JSON texts are UTF-8: what is not becomes U+FFFD. */
static json_t *json_text(const char *text, size_t n)
{
    char *out = need(malloc(3 * n + 1));
    size_t used = 0;
    for (size_t i = 0; i < n;) {
        size_t length = sequence_length((unsigned char)text[i]);
        json_t *probe = i + length <= n ? json_stringn(text + i, length) : NULL;
        if (probe) {
            memcpy(out + used, text + i, length);
            used += length;
            i += length;
        } else {
            memcpy(out + used, "\xef\xbf\xbd", 3);
            used += 3;
            i++;
        }
        json_decref(probe);
    }
    json_t *result = json_stringn(out, used);
    free(out);
    return result;
}

static void print_json(const struct run *run, int which)
{
    const struct sequence *q = &run->sequences[which];
    json_t *ids = json_array();
    for (int i = 0; i < q->generated; i++)
        json_array_append_new(ids, json_integer(q->id[i]));
    json_t *all =
        json_pack("{s:i, s:o, s:o, s:s, s:i, s:i, s:I, s:f, s:f}", "sequence", which, "text",
                  json_text(q->out.at ? q->out.at : "", q->out.n), "tokens", ids, "finish",
                  q->finish, "prompt_tokens", run->n, "generated_tokens", q->generated, "seed",
                  (json_int_t)seed_of(run->s, which), "first_token_seconds", q->first - q->started,
                  "tokens_per_second", tokens_per_second(q));
    json_dumpf(all, stdout, JSON_REAL_PRECISION(6));
    putchar('\n');
    fflush(stdout);
    json_decref(all);
}

/* Those that have ended, in their order; a text that is alone was printed as it came. */
static void print_sequences(struct run *run)
{
    const struct settings *s = run->s;
    for (; run->printed < s->count && run->sequences[run->printed].finish; run->printed++) {
        const struct output *out = &run->sequences[run->printed].out;
        if (s->json) {
            print_json(run, run->printed);
        } else if (s->count > 1) {
            printf("[%d]\n", run->printed);
            fwrite(out->at, 1, out->n, stdout);
            putchar('\n');
            fflush(stdout);
        }
    }
}

static void print_end(const struct run *run)
{
    const struct settings *s = run->s;
    const struct sequence *q = run->sequences;
    bool terminal = isatty(STDOUT_FILENO);
    if (s->json)
        return;
    if (terminal && s->count == 1)
        putchar('\n');
    fflush(stdout);
    if (s->count == 1 && strcmp(q->finish, "context") == 0)
        notice("the context of %d tokens is full; the text ends there", archrt_model.arch.context);
    if (!s->verbose && !(terminal && isatty(STDERR_FILENO)))
        return;
    if (s->count == 1)
        print_speed(run, q);
    else
        print_total(run);
}

/* ---- the command -------------------------------------------------------------------------------
 */

static bool load(struct run *run)
{
    const struct settings *s = run->s;
    void *params;
    if (!slab_alloc(&params, archrt_model.param_floats * sizeof(float), "the parameters", run->f))
        return false;
    run->params = params;
    if (!s->random)
        return weights_read(s->weights, &archrt_model, params, run->f);
    params_init(&archrt_model, params, (uint64_t)s->seed);
    return true;
}

static bool check_settings(struct settings *s, struct failure *f)
{
    if (!s->weights == !s->random)
        return failed(f, STATUS_USAGE,
                      s->weights ? "--weights and --random exclude each other"
                                 : "give --weights DIR (or --random)");
    if (s->prompt && s->file)
        return failed(f, STATUS_USAGE, "--prompt and --file exclude each other: give one");
    for (int i = 0; i < s->stop.n; i++)
        if (!*s->stop.at[i])
            return failed(f, STATUS_USAGE, "--stop needs a text that is not empty");
    if (s->greedy)
        s->sampling.temperature = 0;
    if (!s->seeded)
        s->seed = (int64_t)(mix64((uint64_t)time(NULL) ^ (uint64_t)getpid() << 32) >> 1);
    s->sampling.top_k = (int)s->top_k;
    const char *wrong = sampler_options_error(&s->sampling);
    return !wrong || failed(f, STATUS_USAGE, "%s", wrong);
}

static void open_sequences(struct run *run)
{
    size_t count = (size_t)run->s->count, most = (size_t)most_tokens(run);
    run->sequences = need(calloc(count, sizeof *run->sequences));
    for (size_t i = 0; i < count; i++) {
        run->sequences[i].out.s = run->s;
        run->sequences[i].id = need(malloc(most * sizeof(int32_t)));
    }
    run->piece = need(malloc(run->t.longest + 1));
}

static void close_sequences(struct run *run)
{
    for (int i = 0; run->sequences && i < run->s->count; i++) {
        free(run->sequences[i].out.at);
        free(run->sequences[i].id);
    }
    free(run->sequences);
    free(run->piece);
}

static bool generate(struct run *run)
{
    if (!encode_prompt(run->s, &run->t, &run->prompt, &run->n, run->f) || !load(run))
        return false;
    open_sequences(run);
    if (!(device_in_use() ? generate_on_device(run) : generate_on_host(run)))
        return false;
    print_end(run);
    return true;
}

static bool run_generate(struct settings *s, struct failure *f)
{
    struct run run = {.s = s, .f = f};
    if (!check_settings(s, f) || !tokenizer_open(&run.t, &archrt_model, s->tokenizer, f))
        return false;
    bool good = generate(&run);
    release_params(&run);
    close_sequences(&run);
    free(run.prompt);
    tokenizer_close(&run.t);
    return good;
}

int cmd_generate(int argc, char **argv)
{
    struct settings s = {.tokens = 256, .count = 1, .sampling = {.temperature = 0.8, .top_p = 1}};
    struct failure f;
    const struct option table[] = {
        {"weights", "DIR", OPTION_TEXT, &s.weights, NULL, 0, 0,
         "a model in Hugging Face layout, or the OUT of a training run"},
        {"random", NULL, OPTION_FLAG, &s.random, NULL, 0, 0,
         "random weights instead, to try the speed"},
        {"prompt", "TEXT", OPTION_TEXT, &s.prompt, NULL, 0, 0, "what to continue"},
        {"file", "F", OPTION_TEXT, &s.file, NULL, 0, 0,
         "the prompt from a file (with neither: from standard input)"},
        {"tokenizer", "T", OPTION_TEXT, &s.tokenizer, NULL, 0, 0, "a tokenizer.json"},
        {"tokens", "N", OPTION_INT, &s.tokens, NULL, 1, 1e9, "at most so many (256)"},
        {"count", "N", OPTION_INT, &s.count, NULL, 1, 65536,
         "so many continuations, the first with --seed, the next with the seed after it; on a GPU "
         "decoded together (1: printed as it comes)"},
        {"temperature", "X", OPTION_REAL, &s.sampling.temperature, NULL, 0, 1e6,
         "logits are divided by it first; 0: greedy (0.8)"},
        {"top-k", "N", OPTION_INT, &s.top_k, NULL, 0, 2e9, "then keep the N most likely; 0: all"},
        {"top-p", "P", OPTION_REAL, &s.sampling.top_p, NULL, 0, 1,
         "of these the fewest that make up P (1)"},
        {"min-p", "P", OPTION_REAL, &s.sampling.min_p, NULL, 0, 1,
         "of these the ones at least P times as likely as the best (0)"},
        {"greedy", NULL, OPTION_FLAG, &s.greedy, NULL, 0, 0, "always the most likely"},
        {"seed", "N", OPTION_INT, &s.seed, &s.seeded, 0, 9e18,
         "the same seed, the same text (from the clock)"},
        {"stop", "TEXT..", OPTION_TEXTS, &s.stop, NULL, 0, 0, "end before any of these texts"},
        {"json", NULL, OPTION_FLAG, &s.json, NULL, 0, 0,
         "one JSON object a line for each continuation, instead of the text"},
        {"verbose", NULL, OPTION_FLAG, &s.verbose, NULL, 0, 0,
         "speed on standard error (also -v; on a terminal always)"},
        {0},
    };
    static char verbose[] = "--verbose";
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "-v") == 0)
            argv[i] = verbose;
    int status = STATUS_OK;
    switch (options_read(table, "Continues a prompt and prints what follows it, as it comes.", argc,
                         argv, NULL, &f)) {
    case OPTIONS_HELP:
        break;
    case OPTIONS_WRONG:
        status = failure_report(&f);
        break;
    default:
        if (!run_generate(&s, &f))
            status = failure_report(&f);
    }
    free(s.stop.at);
    return status;
}

/* generate.c - continues a prompt, streaming. */
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
    int64_t tokens, top_k, seed;
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
    if (!o->s->json && end > o->sent) {
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

struct report {
    const char *finish; /* "length", "stop", "end", "context" */
    int prompt, generated;
    double first, rest; /* s: to the first token, and from there to the last */
    int32_t *id;
};

/* False: the model's output is no distribution. */
static bool generate(const struct settings *s, struct inference *run, struct tokenizer *t,
                     const int32_t *prompt, struct sampler *sampler, struct output *out,
                     struct report *r, struct failure *f)
{
    int V = archrt_model.arch.vocab;
    float *logits = need(malloc((size_t)V * sizeof *logits));
    char *piece = need(malloc(t->longest + 1));
    double start = clock_seconds(), first = start;
    bool good = true;
    inference_feed(run, prompt, r->prompt, logits, NULL, NULL);
    r->finish = "length";
    while (r->generated < s->tokens) {
        for (int i = t->vocab; i < V; i++)
            logits[i] = -INFINITY; /* ids without text */
        int id = sampler_next(sampler, logits);
        if (id < 0) {
            good = failed(f, STATUS_INPUT,
                          "the model gave no finite logit after %d tokens: are these weights of a "
                          "run that diverged?",
                          run->state.past);
            break;
        }
        if (r->generated == 0)
            first = clock_seconds();
        r->id[r->generated++] = id;
        if (id == t->separator) {
            r->finish = "end";
            break;
        }
        output_add(out, piece, t->decode(t, id, piece));
        if (out->stopped || r->generated == s->tokens) {
            r->finish = out->stopped ? "stop" : "length";
            break;
        }
        if (run->state.past == archrt_model.arch.context) {
            r->finish = "context";
            break;
        }
        inference_step(run, id, logits);
    }
    if (!out->stopped)
        send(out, out->n);
    r->first = first - start;
    r->rest = clock_seconds() - first;
    free(logits);
    free(piece);
    return good;
}

/* ---- reports -----------------------------------------------------------------------------------
 */

static double tokens_per_second(const struct report *r)
{
    return r->generated > 1 && r->rest > 0 ? (r->generated - 1) / r->rest : 0;
}

/* Part of the measured read bandwidth that decoding used: weights and the cache at mid-way. */
static double read_fraction(const struct report *r)
{
    static const double width[] = {4, 2, 1.0625};
    const struct archrt_model *m = the_model;
    double weights =
        ((double)m->params + (double)m->arch.vocab * m->arch.d_model) * width[m->weights];
    double cache = (double)m->cache_bytes / m->arch.context * (r->prompt + r->generated / 2.0);
    double read = peak_read(m->threads, m->weight_bytes, 0.06);
    return read > 0 ? (weights + cache) * tokens_per_second(r) / read : 0;
}

static void print_speed(const struct report *r)
{
    if (tokens_per_second(r) == 0)
        return;
    fprintf(stderr, "%s: %d tokens in, first out after %.1f ms (%.0f tokens/s); then %.1f tokens/s",
            program_name, r->prompt, 1e3 * r->first, r->prompt / r->first, tokens_per_second(r));
    if (!device_in_use())
        fprintf(stderr, ", %.0f%% of this machine's read bandwidth", 100 * read_fraction(r));
    fputc('\n', stderr);
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

static void print_json(const struct settings *s, const struct output *out, const struct report *r)
{
    json_t *ids = json_array();
    for (int i = 0; i < r->generated; i++)
        json_array_append_new(ids, json_integer(r->id[i]));
    json_t *all = json_pack("{s:o, s:o, s:s, s:i, s:i, s:I, s:f, s:f}", "text",
                            json_text(out->at ? out->at : "", out->n), "tokens", ids, "finish",
                            r->finish, "prompt_tokens", r->prompt, "generated_tokens", r->generated,
                            "seed", (json_int_t)s->seed, "first_token_seconds", r->first,
                            "tokens_per_second", tokens_per_second(r));
    json_dumpf(all, stdout, JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(all);
}

static void print_end(const struct settings *s, const struct output *out, const struct report *r)
{
    if (s->json) {
        print_json(s, out, r);
        return;
    }
    bool terminal = isatty(STDOUT_FILENO);
    if (terminal)
        putchar('\n');
    fflush(stdout);
    if (strcmp(r->finish, "context") == 0)
        notice("the context of %d tokens is full; the text ends there", archrt_model.arch.context);
    if (s->verbose || (terminal && isatty(STDERR_FILENO)))
        print_speed(r);
}

/* ---- the command -------------------------------------------------------------------------------
 */

static bool load(const struct settings *s, struct inference *run, struct failure *f)
{
    void *params;
    size_t bytes = archrt_model.param_floats * sizeof(float);
    if (!slab_alloc(&params, bytes, "the parameters", f))
        return false;
    bool good = true;
    if (s->random)
        params_init(&archrt_model, params, (uint64_t)s->seed);
    else
        good = weights_read(s->weights, &archrt_model, params, f);
    good = good && inference_open(run, the_model, params, f);
    slab_free(params, bytes);
    return good;
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
    s->sampling.seed = (uint64_t)s->seed;
    s->sampling.top_k = (int)s->top_k;
    const char *wrong = sampler_options_error(&s->sampling);
    return !wrong || failed(f, STATUS_USAGE, "%s", wrong);
}

static bool run_generate(struct settings *s, struct failure *f)
{
    struct tokenizer t = {0};
    struct inference run = {.model = the_model};
    struct output out = {.s = s};
    struct report r = {0};
    int32_t *prompt = NULL;
    if (!check_settings(s, f) || !tokenizer_open(&t, &archrt_model, s->tokenizer, f))
        return false;
    struct sampler *sampler = need(sampler_new(&s->sampling, archrt_model.arch.vocab));
    bool good = encode_prompt(s, &t, &prompt, &r.prompt, f) && load(s, &run, f);
    if (good) {
        /* The last token of a full context is not fed. */
        r.id = need(malloc(((size_t)archrt_model.arch.context + 1) * sizeof *r.id));
        good = generate(s, &run, &t, prompt, sampler, &out, &r, f);
        if (good)
            print_end(s, &out, &r);
        inference_close(&run);
    }
    free(r.id);
    free(prompt);
    free(out.at);
    sampler_free(sampler);
    tokenizer_close(&t);
    return good;
}

int cmd_generate(int argc, char **argv)
{
    struct settings s = {.tokens = 256, .sampling = {.temperature = 0.8, .top_p = 1}};
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
        {"json", NULL, OPTION_FLAG, &s.json, NULL, 0, 0, "one JSON object instead of the text"},
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

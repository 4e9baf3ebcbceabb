/* eval.c - loss on files, and the log-probability of each token of a text. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "checkpoint.h"
#include "gpu.h"
#include "evaluate.h"
#include "stream.h"

/* Weights for reading only. */
static bool load_params(const struct archrt_model *m, const char *dir, float **params,
                        struct failure *f)
{
    if (!dir)
        return failed(f, STATUS_USAGE, "no weights: give --weights DIR");
    return slab_alloc((void **)params, m->param_floats * sizeof **params, "the parameters", f) &&
           weights_read(dir, m, *params, f);
}

/* ---- scoring by the inference path, windows of the whole context
 * --------------------------------- */

/* Called for each token in order; the first one's logprob is NaN. False stops. */
typedef bool score_sink(void *to, const int32_t *id, const float *logprob, size_t n,
                        struct failure *f);

struct scorer {
    struct inference inference;
    struct data *data;
    int32_t *token; /* context + 1 */
    float *logprob; /* context */
};

static bool scorer_open(struct scorer *s, const struct archrt_model *m, const float *params,
                        struct data *d, struct failure *f)
{
    *s = (struct scorer){.data = d};
    if (!inference_open(&s->inference, m, params, f))
        return false;
    s->token = need(malloc(((size_t)m->arch.context + 1) * sizeof *s->token));
    s->logprob = need(malloc((size_t)m->arch.context * sizeof *s->logprob));
    return true;
}

static void scorer_close(struct scorer *s)
{
    if (s->inference.model)
        inference_close(&s->inference);
    free(s->token);
    free(s->logprob);
}

/* Windows as in evaluate.h: of the whole context, the next one half a context on, so that every
 * token is conditioned on at least half a context, or on all that there is before it. */
static bool score_all(struct scorer *s, int stride, score_sink *sink, void *to, struct failure *f)
{
    int C = s->inference.model->arch.context;
    struct stretch all = {0, s->data->tokens, C, stride > 0 ? stride : C > 1 ? C / 2 : 1};
    int32_t first;
    const float nothing = NAN;
    if (!data_read(s->data, 0, 1, &first, f) || !sink(to, &first, &nothing, 1, f))
        return false;
    for (uint64_t i = 0, n = stretch_windows(&all); i < n; i++) {
        struct window w = stretch_window(&all, i);
        if (!data_read(s->data, w.start, (size_t)w.inputs + 1, s->token, f))
            return false;
        s->inference.state.past = 0;
        inference_feed(&s->inference, s->token, w.inputs, NULL, s->token + 1, s->logprob);
        if (!sink(to, s->token + 1 + w.counted, s->logprob + w.counted,
                  (size_t)(w.inputs - w.counted), f))
            return false;
    }
    return true;
}

/* ---- eval
 * ---------------------------------------------------------------------------------------- */

struct eval_options {
    struct texts data;
    const char *weights, *tokenizer;
    int64_t stride;
    bool json, as_served;
};

struct sum_sink {
    const struct data *data;
    struct loss_sum sum;
};

static bool add_up(void *to, const int32_t *id, const float *logprob, size_t n, struct failure *f)
{
    struct sum_sink *s = to;
    (void)f;
    for (size_t i = 0; i < n; i++) {
        if (isnan(logprob[i]) && s->sum.tokens == 0)
            continue; /* the first token of all is given, not predicted */
        s->sum.nats -= (double)logprob[i];
        s->sum.tokens++;
        int64_t bytes = data_bytes(s->data, id + i, 1);
        s->sum.bytes = bytes < 0 ? -1 : s->sum.bytes + bytes;
    }
    return true;
}

static bool eval_served(const struct eval_options *o, const struct archrt_model *m,
                        const float *params, struct data *d, struct loss_sum *sum,
                        struct failure *f)
{
    struct scorer s;
    struct sum_sink sink = {d, {0, 0, 0}};
    if (!scorer_open(&s, m, params, d, f))
        return false;
    bool good = score_all(&s, (int)o->stride, add_up, &sink, f);
    scorer_close(&s);
    *sum = sink.sum;
    return good;
}

static bool eval_trained(const struct eval_options *o, const struct archrt_model *m,
                         const float *params, struct data *d, struct loss_sum *sum,
                         struct failure *f)
{
    struct evaluator e;
    void *work = NULL, *rope = NULL;
    size_t rope_bytes = (size_t)m->arch.context * (size_t)m->arch.head_dim * sizeof(float);
    struct stretch all = {0, d->tokens, m->sequence, (int)o->stride};
    bool good = slab_alloc(&work, m->work_bytes, "the activations", f) &&
                slab_alloc(&rope, rope_bytes, "the table of rotations", f);
    if (good) {
        rope_table(&m->arch, rope);
        evaluator_open(&e, m, params, work, rope);
        good = evaluate(&e, d, &all, 0, sum, f);
        evaluator_close(&e);
    }
    slab_free(work, m->work_bytes);
    slab_free(rope, rope_bytes);
    return good;
}

static const char *dtype_name(int dtype)
{
    return dtype == ARCHRT_I8 ? "int8" : dtype == ARCHRT_BF16 ? "bf16" : "fp32";
}

static json_t *real_or_null(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

static void print_eval(const struct eval_options *o, const struct archrt_model *m,
                       const struct loss_sum *sum, double seconds)
{
    double loss = loss_mean(sum), bits = loss_bits_per_byte(sum);
    int window = o->as_served ? m->arch.context : m->sequence;
    if (o->json) {
        json_t *j =
            json_pack("{sfsososIsosisIsssf}", "loss", loss, "perplexity", real_or_null(exp(loss)),
                      "bits_per_byte", real_or_null(bits), "tokens", (json_int_t)sum->tokens,
                      "bytes", sum->bytes < 0 ? json_null() : json_integer(sum->bytes), "window",
                      window, "stride", (json_int_t)o->stride, "weights",
                      dtype_name(o->as_served ? m->weights : ARCHRT_F32), "seconds", seconds);
        json_dumpf(j, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
        putchar('\n');
        json_decref(j);
        return;
    }
    char count[32];
    printf("loss %.4f a token, perplexity %.3f", loss, exp(loss));
    if (!isnan(bits))
        printf(", %.4f bits per byte", bits);
    printf("\n%lld tokens predicted in windows of %d, one every %lld; %s weights; %s tok/s\n",
           (long long)sum->tokens, window, (long long)o->stride,
           dtype_name(o->as_served ? m->weights : ARCHRT_F32),
           show_count(count, (double)sum->tokens / seconds));
}

static bool run_eval(struct eval_options *o, struct failure *f)
{
    const struct archrt_model *m = the_model;
    struct data d;
    struct loss_sum sum;
    float *params = NULL;
    int window = o->as_served ? m->arch.context : m->sequence;
    if (o->data.n == 0)
        return failed(f, STATUS_USAGE, "nothing to evaluate: give --data FILE..");
    if (o->stride > window)
        return failed(f, STATUS_USAGE, "--stride is at most the window, %d", window);
    if (o->stride == 0)
        o->stride = o->as_served && window > 1 ? window / 2 : window;
    if (!data_open(&d, &o->data, m, o->tokenizer, f))
        return false;
    bool good = d.tokens >= 2 || failed(f, STATUS_INPUT,
                                        "one token alone cannot be predicted: "
                                        "give a longer file");
    good = good && load_params(m, o->weights, &params, f);
    if (good && device_in_use() && !o->as_served)
        good = device_train_begin(params, NULL, NULL, f);
    double before = clock_seconds();
    good = good && (o->as_served ? eval_served : eval_trained)(o, m, params, &d, &sum, f);
    if (good && !isfinite(sum.nats))
        good = failed(f, STATUS_INPUT, "the loss is not finite: these weights are broken");
    if (good)
        print_eval(o, m, &sum, clock_seconds() - before);
    slab_free(params, m->param_floats * sizeof *params);
    data_close(&d);
    return good;
}

int cmd_eval(int argc, char **argv)
{
    struct failure f;
    struct eval_options o = {.weights = NULL};
    const struct option table[] = {
        {"weights", "DIR", OPTION_TEXT, &o.weights, NULL, 0, 0, "Hugging Face weights, or a run"},
        {"data", "FILE..", OPTION_TEXTS, &o.data, NULL, 0, 0, "text, JSONL or token shards"},
        {"tokenizer", "T", OPTION_TEXT, &o.tokenizer, NULL, 0, 0, "tokenizer.json (bytes)"},
        {"stride", "N", OPTION_INT, &o.stride, NULL, 1, 1e9,
         "tokens between windows (the window; with --as-served half of it)"},
        {"as-served", NULL, OPTION_FLAG, &o.as_served, NULL, 0, 0,
         "by the inference kernels and their weights, windows of the whole context"},
        {"json", NULL, OPTION_FLAG, &o.json, NULL, 0, 0, "one JSON object"},
        {NULL, NULL, OPTION_FLAG, NULL, NULL, 0, 0, NULL},
    };
    enum options_result result = options_read(
        table,
        "Loss, perplexity and bits per byte on files. Windows of the training sequence follow one\n"
        "another; each token is predicted from those before it in its window.",
        argc, argv, NULL, &f);
    if (result == OPTIONS_HELP)
        return STATUS_OK;
    bool good = result == OPTIONS_READ && run_eval(&o, &f);
    free(o.data.at);
    return good ? STATUS_OK : failure_report(&f);
}

/* ---- score
 * --------------------------------------------------------------------------------------- */

static bool print_scores(void *to, const int32_t *id, const float *logprob, size_t n,
                         struct failure *f)
{
    (void)to;
    for (size_t i = 0; i < n; i++) {
        if (isnan(logprob[i]))
            printf("{\"token\": %d, \"logprob\": null}\n", (int)id[i]);
        else
            printf("{\"token\": %d, \"logprob\": %.7g}\n", (int)id[i], (double)logprob[i]);
    }
    return !ferror(stdout) || failed_file(f, "write", "the output");
}

/* The text's tokens as data of one segment: a text is scored as it is, without a separator. */
static bool text_data(struct data *d, const char *text, size_t n, const char *tokenizer,
                      struct failure *f)
{
    *d = (struct data){.vocab = archrt_model.arch.vocab, .byte_level = true};
    if (!tokenizer_open(&d->tokenizer, &archrt_model, tokenizer, f))
        return false;
    int32_t *id = need(malloc((d->tokenizer.bound(&d->tokenizer, n) + 1) * sizeof *id));
    d->tokens = d->tokenizer.encode(&d->tokenizer, text, n, id);
    d->segment = need(calloc(1, sizeof *d->segment));
    d->segment->kind = SEGMENT_STORE;
    d->segment->count = d->tokens;
    d->n = 1;
    d->store = (struct store){.width = sizeof *id, .fd = -1, .buffer = (unsigned char *)id};
    d->stored = id;
    return d->tokens > 0 || failed(f, STATUS_INPUT, "the text is empty: nothing to score");
}

static bool read_all(const char *path, char **text, size_t *n, struct failure *f)
{
    struct stream s;
    size_t capacity = 1 << 16, got = 1;
    if (!stream_open(&s, path, f))
        return false;
    bool good = true;
    *n = 0;
    *text = need(malloc(capacity));
    while (good && got > 0) {
        if (*n == capacity)
            *text = need(realloc(*text, capacity *= 2));
        good = stream_read(&s, *text + *n, capacity - *n, &got, f);
        *n += good ? got : 0;
    }
    stream_close(&s);
    return good;
}

struct score_options {
    const char *weights, *text, *file, *tokenizer;
    int64_t stride;
};

static bool run_score(const struct score_options *o, struct failure *f)
{
    const struct archrt_model *m = the_model;
    char *read = NULL;
    size_t n = o->text ? strlen(o->text) : 0;
    float *params = NULL;
    struct data d = {.n = 0};
    struct scorer s = {.data = NULL};
    if (o->text && o->file)
        return failed(f, STATUS_USAGE, "--text and --file exclude each other: give one");
    if (o->stride > m->arch.context)
        return failed(f, STATUS_USAGE, "--stride is at most the context, %d", m->arch.context);
    bool good = (o->text || read_all(o->file ? o->file : "-", &read, &n, f)) &&
                text_data(&d, o->text ? o->text : read, n, o->tokenizer, f) &&
                load_params(m, o->weights, &params, f) && scorer_open(&s, m, params, &d, f);
    good = good && score_all(&s, (int)o->stride, print_scores, NULL, f);
    scorer_close(&s);
    slab_free(params, m->param_floats * sizeof *params);
    data_close(&d);
    free(read);
    return good;
}

int cmd_score(int argc, char **argv)
{
    struct failure f;
    struct score_options o = {.weights = NULL};
    const struct option table[] = {
        {"weights", "DIR", OPTION_TEXT, &o.weights, NULL, 0, 0, "Hugging Face weights, or a run"},
        {"text", "TEXT", OPTION_TEXT, &o.text, NULL, 0, 0, "the text"},
        {"file", "FILE", OPTION_TEXT, &o.file, NULL, 0, 0, "or a file (standard input)"},
        {"tokenizer", "T", OPTION_TEXT, &o.tokenizer, NULL, 0, 0, "tokenizer.json (bytes)"},
        {"stride", "N", OPTION_INT, &o.stride, NULL, 1, 1e9,
         "tokens between windows of texts beyond the context (half the context)"},
        {NULL, NULL, OPTION_FLAG, NULL, NULL, 0, 0, NULL},
    };
    enum options_result result = options_read(
        table,
        "One JSON line for each token of a text: {\"token\": id, \"logprob\": x}; the first one's "
        "is\n"
        "null. Beyond the context: windows of the whole context, each half a context further, so\n"
        "that every token is predicted from at least half a context.",
        argc, argv, NULL, &f);
    if (result == OPTIONS_HELP)
        return STATUS_OK;
    return result == OPTIONS_READ && run_score(&o, &f) ? STATUS_OK : failure_report(&f);
}

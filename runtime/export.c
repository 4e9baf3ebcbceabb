/* export.c - weights in Hugging Face layout; data as a token shard. */
#include <stdlib.h>
#include <string.h>

#include "checkpoint.h"
#include "data.h"
#include "files.h"

struct export_options {
    const char *weights, *out, *dtype, *shard, *tokenizer;
    struct texts data;
};

static bool export_weights(const struct export_options *o, struct failure *f)
{
    const struct archrt_model *m = &archrt_model;
    enum archrt_dtype dtype = strcmp(o->dtype, "bf16") == 0 ? ARCHRT_BF16 : ARCHRT_F32;
    float *params = NULL;
    if (!o->weights || !o->out)
        return failed(f, STATUS_USAGE, "%s is missing: give --weights DIR and --out DIR",
                      o->weights ? "--out" : "--weights");
    bool good =
        slab_alloc((void **)&params, m->param_floats * sizeof *params, "the parameters", f) &&
        weights_read(o->weights, m, params, f) && directory_make(o->out, f) &&
        weights_write(o->out, m, params, dtype, f);
    slab_free(params, m->param_floats * sizeof *params);
    if (good && m->arch.qk_norm && m->arch.qkv_bias)
        notice("transformers has no class with head norms and q, k, v biases but no output bias: "
               "add zero o_proj.bias tensors before opening these weights there");
    if (good)
        printf("%s/model.safetensors and config.json: %s, %s\n", o->out, m->arch.name, o->dtype);
    return good;
}

static bool copy_tokens(struct data *d, struct shard_writer *w, struct failure *f)
{
    enum { PART = 1 << 16 };
    int32_t *id = need(malloc(PART * sizeof *id));
    bool good = true;
    for (uint64_t at = 0; good && at < d->tokens; at += PART) {
        size_t n = d->tokens - at < PART ? (size_t)(d->tokens - at) : PART;
        good = data_read(d, at, n, id, f);
        if (good)
            shard_put(w, id, n); /* a failure is kept for shard_finish */
    }
    free(id);
    return good;
}

static bool export_shard(const struct export_options *o, struct failure *f)
{
    const struct archrt_model *m = &archrt_model;
    struct data d;
    if (o->data.n == 0 || o->weights || o->out)
        return failed(f, STATUS_USAGE, "--shard goes with --data FILE.. and nothing else");
    if (!data_open(&d, &o->data, m, o->tokenizer, f))
        return false;
    /* Byte-level ids are at most 256 whatever room the model has, so that the shard fits others. */
    int vocab = d.byte_level && d.tokenizer.name ? d.tokenizer.vocab : m->arch.vocab;
    struct shard_writer *w = shard_create(o->shard, vocab, d.byte_level, f);
    bool good = w != NULL;
    if (w && !copy_tokens(&d, w, f)) {
        shard_abandon(w);
        good = false;
    } else if (w) {
        good = shard_finish(w, f);
    }
    if (good)
        printf("%s: %llu tokens, vocabulary %d\n", o->shard, (unsigned long long)d.tokens, vocab);
    data_close(&d);
    return good;
}

int cmd_export(int argc, char **argv)
{
    struct failure f;
    struct export_options o = {.dtype = "fp32"};
    const struct option table[] = {
        {"weights", "DIR", OPTION_TEXT, &o.weights, NULL, 0, 0, "Hugging Face weights, or a run"},
        {"out", "DIR", OPTION_TEXT, &o.out, NULL, 0, 0, "where model.safetensors goes"},
        {"dtype", "fp32|bf16", OPTION_CHOICE, &o.dtype, NULL, 0, 0,
         "of the written weights (fp32)"},
        {"shard", "FILE", OPTION_TEXT, &o.shard, NULL, 0, 0,
         "write --data as a token shard instead"},
        {"data", "FILE..", OPTION_TEXTS, &o.data, NULL, 0, 0, "for --shard: text, JSONL, shards"},
        {"tokenizer", "T", OPTION_TEXT, &o.tokenizer, NULL, 0, 0, "tokenizer.json (bytes)"},
        {NULL, NULL, OPTION_FLAG, NULL, NULL, 0, 0, NULL},
    };
    enum options_result result = options_read(
        table, "Writes weights as Hugging Face reads them: model.safetensors and config.json.",
        argc, argv, NULL, &f);
    if (result == OPTIONS_HELP)
        return STATUS_OK;
    bool good = result == OPTIONS_READ && (o.shard ? export_shard(&o, &f) : export_weights(&o, &f));
    free(o.data.at);
    return good ? STATUS_OK : failure_report(&f);
}

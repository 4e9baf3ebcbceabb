/* hf_config.c - config.json in Hugging Face's form, from and against the compiled architecture. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "files.h"
#include "hf_config.h"

/* The class of transformers whose forward pass is ours. */
static void set_class(json_t *c, const struct archrt_arch *a)
{
    const char *type = a->qk_norm ? "qwen3" : a->qkv_bias ? "qwen2" : "llama";
    const char *class = a->qk_norm    ? "Qwen3ForCausalLM"
                        : a->qkv_bias ? "Qwen2ForCausalLM"
                                      : "LlamaForCausalLM";
    json_object_set_new(c, "architectures", json_pack("[s]", class));
    json_object_set_new(c, "model_type", json_string(type));
    if (a->qk_norm || !a->qkv_bias)
        json_object_set_new(c, "attention_bias", json_boolean(a->qkv_bias));
    if (a->qk_norm || a->qkv_bias)
        json_object_set_new(c, "use_sliding_window", json_false());
    else
        json_object_set_new(c, "mlp_bias", json_false());
}

static json_t *rope_scaling(const struct archrt_arch *a)
{
    if (a->rope_factor <= 0)
        return json_null();
    return json_pack("{sssfsfsfsI}", "rope_type", "llama3", "factor", a->rope_factor,
                     "low_freq_factor", a->rope_low, "high_freq_factor", a->rope_high,
                     "original_max_position_embeddings", (json_int_t)a->rope_original);
}

bool hf_config_write(const char *path, const struct archrt_arch *a, enum archrt_dtype dtype,
                     struct failure *f)
{
    json_t *c = json_object();
    set_class(c, a);
    json_t *rest = json_pack(
        "{sisisisisisisisssfsfsososs}", "vocab_size", a->vocab, "hidden_size", a->d_model,
        "intermediate_size", a->d_ff, "num_hidden_layers", a->layers, "num_attention_heads",
        a->heads, "num_key_value_heads", a->kv_heads, "head_dim", a->head_dim, "hidden_act", "silu",
        "rms_norm_eps", decimal(a->norm_eps), "rope_theta", a->rope_theta, "rope_scaling",
        rope_scaling(a), "tie_word_embeddings", json_boolean(a->tied), "torch_dtype",
        dtype == ARCHRT_BF16 ? "bfloat16" : "float32");
    json_object_update(c, rest);
    json_decref(rest);
    json_object_set_new(c, "max_position_embeddings", json_integer(a->context));
    json_object_set_new(c, "attention_dropout", json_real(0.0));
    json_object_set_new(c, "initializer_range", json_real(0.02));
    json_object_set_new(c, "use_cache", json_true());
    json_object_set_new(c, "bos_token_id", json_null());
    json_object_set_new(c, "eos_token_id", a->vocab == 257 ? json_integer(256) : json_null());
    json_object_set_new(c, "pad_token_id", json_null());
    char *text = need(json_dumps(c, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9)));
    json_decref(c);
    char *file = path_printf("%s\n", text);
    bool good = file_replace(path, file, strlen(file), f);
    free(file);
    free(text);
    return good;
}

/* What differs, gathered into one line. */
struct differences {
    char text[700];
    size_t used;
    int n;
};

static void differ(struct differences *d, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void differ(struct differences *d, const char *format, ...)
{
    va_list list;
    if (d->n++ > 0 && d->used < sizeof d->text)
        d->used += (size_t)snprintf(d->text + d->used, sizeof d->text - d->used, ", ");
    va_start(list, format);
    if (d->used < sizeof d->text)
        d->used += (size_t)vsnprintf(d->text + d->used, sizeof d->text - d->used, format, list);
    va_end(list);
}

static void check_int(struct differences *d, json_t *c, const char *key, int64_t absent,
                      int64_t ours)
{
    json_t *j = json_object_get(c, key);
    bool missing = !j || json_is_null(j);
    if (missing && absent < 0)
        differ(d, "%s is missing (compiled: %lld)", key, (long long)ours);
    else if (!missing && !json_is_integer(j))
        differ(d, "%s is not a whole number", key);
    else if ((missing ? absent : json_integer_value(j)) != ours)
        differ(d, "%s %lld (compiled: %lld)", key,
               (long long)(missing ? absent : json_integer_value(j)), (long long)ours);
}

static void check_real(struct differences *d, json_t *c, const char *key, double absent,
                       double ours)
{
    json_t *j = json_object_get(c, key);
    bool missing = !j || json_is_null(j);
    double x = missing ? absent : json_number_value(j);
    if (!missing && !json_is_number(j))
        differ(d, "%s is not a number", key);
    else if (!(fabs(x - ours) <= 1e-6 * fabs(ours)))
        differ(d, "%s %g (compiled: %g)", key, x, ours);
}

static void check_bool(struct differences *d, json_t *c, const char *key, bool absent, bool ours)
{
    json_t *j = json_object_get(c, key);
    bool missing = !j || json_is_null(j);
    if (!missing && !json_is_boolean(j))
        differ(d, "%s is not true or false", key);
    else if ((missing ? absent : json_is_true(j)) != ours)
        differ(d, "%s %s (compiled: %s)", key, ours ? "false" : "true", ours ? "true" : "false");
}

/* Absent, null and rope_type "default" are all no scaling; transformers 5 keeps theta and scaling
 * together in rope_parameters. */
static void check_rope(struct differences *d, json_t *c, const struct archrt_arch *a)
{
    json_t *new = json_object_get(c, "rope_parameters");
    json_t *scaling = json_is_object(new) ? new : json_object_get(c, "rope_scaling");
    json_t *theta_in = json_is_object(new) && json_object_get(new, "rope_theta") ? new : c;
    check_real(d, theta_in, "rope_theta", 10000.0, a->rope_theta);
    json_t *type = json_object_get(scaling, "rope_type");
    const char *name = json_string_value(type ? type : json_object_get(scaling, "type"));
    if (!name)
        name = json_is_object(scaling) && scaling != new ? "of no type" : "default";
    if (strcmp(name, "default") == 0) {
        if (a->rope_factor > 0)
            differ(d, "rope_scaling none (compiled: llama3, factor %g)", a->rope_factor);
        return;
    }
    if (strcmp(name, "llama3") != 0 || a->rope_factor <= 0) {
        differ(d, "rope_scaling %.40s (compiled: %s)", name,
               a->rope_factor > 0 ? "llama3" : "none");
        return;
    }
    check_real(d, scaling, "factor", 0, a->rope_factor);
    check_real(d, scaling, "low_freq_factor", 1, a->rope_low);
    check_real(d, scaling, "high_freq_factor", 4, a->rope_high);
    check_real(d, scaling, "original_max_position_embeddings", 8192, a->rope_original);
}

static void check_class(struct differences *d, json_t *c, const struct archrt_arch *a)
{
    const char *type = json_string_value(json_object_get(c, "model_type"));
    const char *ours = a->qk_norm ? "qwen3" : a->qkv_bias ? "qwen2" : "llama";
    if (!type)
        differ(d, "model_type is missing (compiled: %s)", ours);
    else if (strcmp(type, ours) != 0 && !(strcmp(type, "mistral") == 0 && *ours == 'l'))
        differ(d, "model_type %.40s (compiled: %s)", type, ours);
    json_t *act = json_object_get(c, "hidden_act");
    if (act && (!json_is_string(act) || strcmp(json_string_value(act), "silu") != 0))
        differ(d, "hidden_act %.40s (compiled: silu)",
               json_is_string(act) ? json_string_value(act) : "is not a name");
    if (strcmp(ours, "qwen2") != 0)
        check_bool(d, c, "attention_bias", false, a->qkv_bias);
    check_bool(d, c, "mlp_bias", false, false);
    json_t *window = json_object_get(c, "sliding_window");
    if (window && !json_is_null(window) &&
        (json_is_true(json_object_get(c, "use_sliding_window")) ||
         (type && strcmp(type, "mistral") == 0)))
        differ(d, "sliding_window attention (compiled: none)");
}

static void check_all(struct differences *d, json_t *c, const struct archrt_arch *a)
{
    json_t *heads = json_object_get(c, "num_attention_heads");
    json_t *hidden = json_object_get(c, "hidden_size");
    int64_t n = json_integer_value(heads), head_dim = n > 0 ? json_integer_value(hidden) / n : -1;
    check_class(d, c, a);
    check_int(d, c, "vocab_size", -1, a->vocab);
    check_int(d, c, "hidden_size", -1, a->d_model);
    check_int(d, c, "intermediate_size", -1, a->d_ff);
    check_int(d, c, "num_hidden_layers", -1, a->layers);
    check_int(d, c, "num_attention_heads", -1, a->heads);
    check_int(d, c, "num_key_value_heads", n > 0 ? n : -1, a->kv_heads);
    /* Qwen3's default is 128 whatever the width; its files always say it. */
    check_int(d, c, "head_dim", a->qk_norm ? 128 : head_dim, a->head_dim);
    check_real(d, c, "rms_norm_eps", 1e-6, (double)a->norm_eps);
    check_bool(d, c, "tie_word_embeddings", false, a->tied);
    check_rope(d, c, a);
}

bool hf_config_check_text(const char *path, const char *text, size_t n, const struct archrt_arch *a,
                          struct failure *f)
{
    json_error_t e;
    json_t *c = json_loadb(text, n, 0, &e);
    if (!json_is_object(c)) {
        json_decref(c);
        return failed(f, STATUS_INPUT, "%s:%d: not a JSON object: %s: download or write it again",
                      path, c ? 1 : e.line, c ? "another value" : e.text);
    }
    struct differences d = {.n = 0};
    check_all(&d, c, a);
    json_decref(c);
    if (d.n == 0)
        return true;
    return failed(
        f, STATUS_INPUT,
        "%s is of another architecture than this program (%s): %s: 'archc import' makes a "
        ".arch file of it to compile",
        path, a->name, d.text);
}

bool hf_config_check(const char *path, const struct archrt_arch *a, struct failure *f)
{
    size_t n;
    char *text = file_read(path, 16 << 20, &n, f);
    if (!text)
        return false;
    bool good = hf_config_check_text(path, text, n, a, f);
    free(text);
    return good;
}

/* import.c - a Hugging Face config.json becomes a .arch file.
 *
 * Families that are the decoder this compiler builds (RMSNorm, RoPE, SwiGLU, pre-norm): Llama and
 * its look-alikes, Qwen2 (q, k, v biases), Qwen3 (head norms). What the config says and the
 * language cannot express is an error that names the key, never dropped. */
#include "driver.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

struct config {
    const char *path;
    json_t *root;
    bool failed;
};

static void complain(struct config *c, const char *key, const char *text)
{
    fprintf(stderr, "%s: error: %s%s%s\n", c->path, key, *key ? ": " : "", text);
    c->failed = true;
}

static bool present(const struct config *c, const char *key)
{
    json_t *v = json_object_get(c->root, key);
    return v && !json_is_null(v);
}

/* A positive integer; `fallback` where the key is absent, an error where there is none (0). */
static long integer(struct config *c, const char *key, long fallback)
{
    json_t *v = json_object_get(c->root, key);
    if (!v || json_is_null(v)) {
        if (fallback == 0)
            complain(c, key, "missing");
        return fallback;
    }
    if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > 1000000000) {
        complain(c, key, "not a positive integer");
        return 1;
    }
    return (long)json_integer_value(v);
}

static double number(struct config *c, json_t *of, const char *key, double fallback)
{
    json_t *v = json_object_get(of, key);
    if (!v || json_is_null(v))
        return fallback;
    if (!json_is_number(v) || json_number_value(v) <= 0) {
        complain(c, key, "not a positive number");
        return 1;
    }
    return json_number_value(v);
}

static bool boolean(struct config *c, const char *key, bool fallback)
{
    json_t *v = json_object_get(c->root, key);
    if (!v || json_is_null(v))
        return fallback;
    if (!json_is_boolean(v))
        complain(c, key, "neither true nor false");
    return json_is_true(v);
}

static const char *string(json_t *of, const char *key, const char *fallback)
{
    const char *s = json_string_value(json_object_get(of, key));
    return s ? s : fallback;
}

/* A name of the language from the directory that the config lies in: "Qwen3-0.6B" is qwen3_0_6b. */
static void name_from_path(const char *path, char name[64])
{
    char whole[4096];
    if (!realpath(path, whole))
        snprintf(whole, sizeof whole, "%s", path);
    char *slash = strrchr(whole, '/');
    if (slash)
        *slash = 0;
    slash = strrchr(whole, '/');
    const char *from = slash && slash[1] ? slash + 1 : "imported";
    int n = 0;
    if (isdigit((unsigned char)*from))
        n += snprintf(name, 64, "m_");
    for (; *from && n < 63; from++)
        name[n++] = isalnum((unsigned char)*from) ? (char)tolower((unsigned char)*from) : '_';
    name[n] = 0;
}

static const char *const families[] = {"llama", "mistral", "qwen2", "qwen3", "smollm"};

static void check_family(struct config *c)
{
    const char *type = string(c->root, "model_type", "");
    bool known = false;
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
        known = known || strcmp(type, families[i]) == 0;
    if (!known)
        complain(c, "model_type", "not one of llama, mistral, qwen2, qwen3: another kind of model");
    const char *act = string(c->root, "hidden_act", "silu");
    if (strcmp(act, "silu") != 0)
        complain(c, "hidden_act", "not silu: the MLP is not SwiGLU");
    if (boolean(c, "mlp_bias", false))
        complain(c, "mlp_bias", "biases in the MLP are not supported");
    if (present(c, "sliding_window") &&
        boolean(c, "use_sliding_window", strcmp(type, "mistral") == 0))
        complain(c, "sliding_window", "attention over a window is not supported");
    if (strcmp(type, "qwen2") != 0 && boolean(c, "attention_bias", false))
        complain(c, "attention_bias", "a bias on o_proj too is not supported");
}

static void print_rope(struct config *c, struct text *t)
{
    json_t *parameters = json_object_get(c->root, "rope_parameters"); /* of transformers 5 */
    json_t *scaling =
        json_is_object(parameters) ? parameters : json_object_get(c->root, "rope_scaling");
    double theta =
        number(c, c->root, "rope_theta",
               json_is_object(scaling) ? number(c, scaling, "rope_theta", 10000) : 10000);
    const char *type = json_is_object(scaling)
                           ? string(scaling, "rope_type", string(scaling, "type", "default"))
                           : "default";
    text_printf(t, "\n    rope {\n        theta = %.10g\n", theta);
    if (strcmp(type, "llama3") == 0) {
        text_printf(
            t, "        scaling {\n            factor   = %.10g\n            low      = %.10g\n",
            number(c, scaling, "factor", 8), number(c, scaling, "low_freq_factor", 1));
        text_printf(t, "            high     = %.10g\n            original = %.10g\n        }\n",
                    number(c, scaling, "high_freq_factor", 4),
                    number(c, scaling, "original_max_position_embeddings", 8192));
    } else if (strcmp(type, "default") != 0) {
        complain(c, "rope_scaling", "only llama3 scaling is supported");
    }
    text_add(t, "    }\n");
}

static void print_model(struct config *c, const char *name, struct text *t)
{
    const char *type = string(c->root, "model_type", "");
    long heads = integer(c, "num_attention_heads", 0), d = integer(c, "hidden_size", 0);
    text_printf(t, "model %s {\n    family   = llama\n", name);
    text_printf(t, "    vocab    = %ld\n", integer(c, "vocab_size", 0));
    text_printf(t, "    tied     = %s\n", boolean(c, "tie_word_embeddings", false) ? "yes" : "no");
    text_printf(t, "    context  = %ld\n", integer(c, "max_position_embeddings", 2048));
    text_printf(t, "    layers   = %ld\n", integer(c, "num_hidden_layers", 0));
    text_printf(t, "    d_model  = %ld\n    heads    = %ld\n", d, heads);
    text_printf(t, "    kv_heads = %ld\n", integer(c, "num_key_value_heads", heads));
    text_printf(t, "    head_dim = %ld\n",
                integer(c, "head_dim", heads > 0 && d >= heads ? d / heads : 1));
    text_printf(t, "    d_ff     = %ld\n", integer(c, "intermediate_size", 0));
    print_rope(c, t);
    text_printf(t, "    norm {\n        eps = %.10g\n    }\n",
                number(c, c->root, "rms_norm_eps", 1e-6));
    bool bias = strcmp(type, "qwen2") == 0, qk_norm = strcmp(type, "qwen3") == 0;
    if (bias || qk_norm)
        text_printf(t, "    attention {\n        %s = yes\n    }\n", bias ? "bias" : "qk_norm");
    text_add(t, "}\n");
}

static int write_result(const struct driver *d, const struct text *t)
{
    FILE *out = d->output ? fopen(d->output, "w") : stdout;
    bool ok = out && fputs(t->at, out) >= 0;
    if (out && out != stdout && fclose(out) != 0)
        ok = false;
    if (ok)
        return 0;
    fprintf(stderr, "archc: cannot write %s: %s\n", d->output ? d->output : "the output",
            strerror(errno));
    return STATUS_WORLD;
}

int run_import(struct driver *d)
{
    json_error_t error;
    struct config c = {.path = d->path,
                       .root = json_load_file(d->path, JSON_REJECT_DUPLICATES, &error)};
    if (!c.root) {
        fprintf(stderr, "%s:%d:%d: error: %s\n", d->path, error.line > 0 ? error.line : 1,
                error.column > 0 ? error.column : 1, error.text);
        return STATUS_SPEC;
    }
    struct text t = {0};
    char name[64];
    name_from_path(d->path, name);
    if (json_is_object(c.root)) {
        check_family(&c);
        print_model(&c, d->model ? d->model : name, &t);
    } else {
        complain(&c, "", "not a JSON object");
    }
    int status = c.failed ? STATUS_SPEC : write_result(d, &t);
    json_decref(c.root);
    text_free(&t);
    return status;
}

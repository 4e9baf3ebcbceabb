/* config_test.c - config.json: what is written is read back, and every difference is named. */
#include "files.h"
#include "hf_config.h"
#include "rt_check.h"

static const struct archrt_arch llama = {.name = "a",
                                         .layers = 16,
                                         .d_model = 2560,
                                         .heads = 36,
                                         .kv_heads = 4,
                                         .head_dim = 64,
                                         .d_ff = 6144,
                                         .vocab = 128256,
                                         .context = 2048,
                                         .tied = true,
                                         .norm_eps = 1e-5f,
                                         .rope_theta = 500000};

static bool check(const char *text, const struct archrt_arch *a, struct failure *f)
{
    *f = (struct failure){0, ""};
    return hf_config_check_text("config.json", text, strlen(text), a, f);
}

static void test_round_trips(void)
{
    struct archrt_arch a[5] = {llama, llama, llama, llama, llama};
    struct failure f;
    a[1].rope_factor = 32;
    a[1].rope_low = 1;
    a[1].rope_high = 4;
    a[1].rope_original = 8192;
    a[2].qk_norm = true;
    a[2].norm_eps = 1e-6f;
    a[3].qkv_bias = true;
    a[4].tied = false;
    for (int i = 0; i < 5; i++) {
        CHECK(hf_config_write("config.json", &a[i], ARCHRT_BF16, &f));
        for (int k = 0; k < 5; k++)
            CHECK(hf_config_check("config.json", &a[k], &f) == (i == k));
    }
    size_t n;
    CHECK(hf_config_write("config.json", &a[2], ARCHRT_F32, &f));
    char *text = file_read("config.json", 1 << 20, &n, &f);
    CHECK(strstr(text, "\"Qwen3ForCausalLM\"") && strstr(text, "\"rms_norm_eps\": 1e-6"));
    free(text);
}

#define SHAPE                                                                                      \
    "\"model_type\":\"llama\",\"vocab_size\":128256,\"hidden_size\":2560,\"num_hidden_layers\":"   \
    "16,"                                                                                          \
    "\"intermediate_size\":6144,\"num_attention_heads\":36,\"num_key_value_heads\":4,"             \
    "\"head_dim\":64,\"tie_word_embeddings\":true,\"rms_norm_eps\":1e-05"

static void test_foreign(void)
{
    struct failure f;
    CHECK(check("{" SHAPE ",\"rope_theta\":500000.0}", &llama, &f));
    CHECK(check("{" SHAPE ",\"rope_theta\":500000,\"rope_scaling\":null,\"hidden_act\":\"silu\"}",
                &llama, &f));
    CHECK(check("{" SHAPE ",\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":5e5}}",
                &llama, &f));
    CHECK(!check("{" SHAPE "}", &llama, &f));
    CHECK_FAILURE(f, "rope_theta 10000 (compiled: 500000)");
    CHECK(!check("{" SHAPE ",\"rope_theta\":5e5,\"rope_scaling\":{\"rope_type\":\"yarn\"}}", &llama,
                 &f));
    CHECK_FAILURE(f, "rope_scaling yarn (compiled: none)");
    CHECK(!check("{" SHAPE ",\"rope_theta\":5e5,\"rope_scaling\":{\"factor\":2}}", &llama, &f));
    CHECK_FAILURE(f, "rope_scaling of no type");
    CHECK(!check("{" SHAPE ",\"rope_theta\":5e5,\"attention_bias\":true,\"hidden_act\":\"gelu\"}",
                 &llama, &f));
    CHECK_FAILURE(f, "hidden_act gelu (compiled: silu), attention_bias true (compiled: false)");
    CHECK(!check("{\"model_type\":\"gemma\"}", &llama, &f));
    CHECK_FAILURE(f,
                  "model_type gemma (compiled: llama), vocab_size is missing (compiled: 128256)");
    CHECK(!check("{\"hidden_size\":\"2560\"}", &llama, &f));
    CHECK_FAILURE(f, "hidden_size is not a whole number");
}

static void test_hostile(void)
{
    static const char *const texts[] = {"", "[]", "{", "null", "{\"a\":1}x", "\xff\xfe", "{}{}"};
    struct failure f;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        CHECK(!check(texts[i], &llama, &f));
        CHECK_FAILURE(f, "config.json");
    }
    CHECK(!check("{\"num_attention_heads\":0,\"hidden_size\":-1,\"rms_norm_eps\":{}}", &llama, &f));
    CHECK_FAILURE(f, "rms_norm_eps is not a number");
    CHECK(!check("{\"model_type\":7,\"hidden_act\":7,\"rope_scaling\":7}", &llama, &f));
    CHECK_FAILURE(f, "model_type is missing");
}

int main(void)
{
    enter_scratch();
    test_round_trips();
    test_foreign();
    test_hostile();
    return leave_scratch();
}

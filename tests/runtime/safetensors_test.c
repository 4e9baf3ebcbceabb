/* safetensors_test.c - hostile files are refused with one line, good ones come back exactly. */
#include <math.h>

#include "checkpoint.h"
#include "files.h"
#include "rt_check.h"
#include "safetensors.h"

static void header_case(const char *header, uint64_t data_bytes, const char *expected)
{
    struct safetensors s;
    struct failure f = {0, ""};
    bool good = safetensors_parse(&s, "x", header, strlen(header), data_bytes, &f);
    if (good)
        safetensors_close(&s);
    if (!expected) {
        CHECK(good);
        return;
    }
    CHECK(!good);
    CHECK_FAILURE(f, expected);
}

#define ENTRY(dtype, shape, offsets)                                                               \
    "{\"a\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

static void test_headers(void)
{
    header_case("{}", 0, NULL);
    header_case(ENTRY("F32", "[2,3]", "[0,24]"), 24, NULL);
    header_case(ENTRY("F32", "[]", "[0,4]"), 4, NULL);
    header_case(ENTRY("F32", "[0]", "[0,0]"), 0, NULL);
    header_case("{\"__metadata__\":{\"format\":\"pt\"}}", 0, NULL);
    header_case("", 0, "not JSON");
    header_case("[]", 0, "not JSON");
    header_case(" {}", 0, "not JSON");
    header_case("{", 0, "not JSON");
    header_case("{}x", 0, "not JSON");
    header_case("{\"a\":NaN}", 0, "not JSON");
    header_case("{\"a\":1e999}", 0, "not JSON");
    header_case("{\"a\":{},\"a\":{}}", 0, "not JSON");
    header_case("{\"\":{}}", 0, "no name");
    header_case("{\"a\":1}", 0, "not an object");
    header_case("{\"a\":[]}", 0, "not an object");
    header_case("{\"a\":{}}", 0, "dtype");
    header_case("{\"__metadata__\":{\"a\":1}}", 0, "object of strings");
    header_case("{\"__metadata__\":\"a\"}", 0, "object of strings");
    header_case(ENTRY("F31", "[1]", "[0,4]"), 4, "dtype");
    header_case(ENTRY("F32", "[2]", "[0,4]"), 4, "disagree");
    header_case(ENTRY("F32", "[1]", "[0,4]"), 3, "beyond the end");
    header_case(ENTRY("F32", "[1]", "[0,4]"), 5, "belong to no tensor");
    header_case(ENTRY("F32", "[1]", "[4,8]"), 8, "hole");
    header_case(ENTRY("F32", "[1]", "[4,0]"), 4, "data_offsets");
    header_case(ENTRY("F32", "[1]", "[-4,0]"), 4, "data_offsets");
    header_case(ENTRY("F32", "[1]", "[0.0,4]"), 4, "data_offsets");
    header_case(ENTRY("F32", "[1]", "[0,4,8]"), 4, "data_offsets");
    header_case(ENTRY("F32", "[1]", "[0,9223372036854775807]"), 4, "beyond the end");
    header_case(ENTRY("F32", "[1]", "[0,9223372036854775808]"), 4, "not JSON");
    header_case(ENTRY("F32", "[-1]", "[0,4]"), 4, "shape");
    header_case(ENTRY("F32", "[1.0]", "[0,4]"), 4, "shape");
    header_case(ENTRY("F32", "4", "[0,4]"), 4, "shape");
    header_case(ENTRY("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, "shape");
    header_case(ENTRY("F32", "[4611686018427387904,4]", "[0,0]"), 0, "shape");
    header_case(ENTRY("F32", "[9223372036854775807,9223372036854775807]", "[0,4]"), 4, "shape");
    header_case("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
                8, "overlaps");
    header_case("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
                "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
                4, "overlaps");
}

static void test_nesting(void)
{
    enum { DEEP = 100000 };
    char *text = malloc(DEEP + 16);
    strcpy(text, "{\"a\":");
    memset(text + 5, '[', DEEP);
    text[5 + DEEP] = '\0';
    header_case(text, 0, "not JSON");
    free(text);
}

static float *parameters(void)
{
    float *p = calloc(archrt_model.param_floats, sizeof *p);
    params_init(&archrt_model, p, 7);
    return p;
}

static bool load(const char *dir, struct failure *f)
{
    float *p = calloc(archrt_model.param_floats, sizeof *p);
    *f = (struct failure){0, ""};
    bool good = weights_read(dir, &archrt_model, p, f);
    free(p);
    return good;
}

/* Cut at every offset, and each byte changed: never a crash; every cut is found. */
static void test_damage(void)
{
    struct failure f;
    float *p = parameters();
    size_t n;
    CHECK(directory_make("good", &f) && weights_write("good", &archrt_model, p, ARCHRT_F32, &f));
    CHECK(load("good", &f));
    char *file = file_read("good/model.safetensors", 1 << 24, &n, &f);
    CHECK(directory_make("cut", &f) && system("cp good/config.json cut/") == 0);
    for (size_t i = 0; i < n; i += i < 600 ? 1 : 1009) {
        write_file("cut/model.safetensors", file, i);
        CHECK(!load("cut", &f) && f.status == STATUS_INPUT && f.text[0]);
    }
    for (size_t i = 0; i < 600 && i < n; i++) {
        file[i] ^= (char)(1 << (i % 8));
        write_file("cut/model.safetensors", file, n);
        if (!load("cut", &f))
            CHECK(f.status == STATUS_INPUT && f.text[0] && !strchr(f.text, '\n'));
        file[i] ^= (char)(1 << (i % 8));
    }
    float nan_value = NAN;
    memcpy(file + n - 4, &nan_value, 4);
    write_file("cut/model.safetensors", file, n);
    CHECK(!load("cut", &f));
    CHECK_FAILURE(f, "not numbers");
    free(file);
    free(p);
}

static void test_lengths(void)
{
    struct failure f;
    unsigned char file[64] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    write_file("cut/model.safetensors", file, sizeof file);
    CHECK(!load("cut", &f));
    CHECK_FAILURE(f, "claims");
    CHECK(truncate("cut/model.safetensors", 1 << 30) == 0);
    memcpy(file, "\0\0\0\x20\0\0\0\0", 8);
    FILE *out = fopen("cut/model.safetensors", "r+b");
    CHECK(out && fwrite(file, 1, 8, out) == 8 && fclose(out) == 0);
    CHECK(!load("cut", &f));
    CHECK_FAILURE(f, "header of");
}

static void write_tensors(const char *path, const struct tensor_source *t, int n)
{
    struct failure f;
    CHECK(safetensors_write(path, t, n, ARCHRT_F32, &f));
}

static void sources(struct tensor_source *t, const float *p)
{
    for (int i = 0; i < archrt_model.n_tensors; i++) {
        const struct archrt_tensor *from = &archrt_model.tensors[i];
        t[i] = (struct tensor_source){
            from->name, from->rank, {from->shape[0], from->shape[1]}, p + from->offset};
    }
}

static void test_tensors(void)
{
    struct failure f;
    struct tensor_source t[4];
    float *p = parameters();
    CHECK(directory_make("odd", &f) && system("cp good/config.json odd/") == 0);
    sources(t, p);
    write_tensors("odd/model.safetensors", t, 2);
    CHECK(!load("odd", &f));
    CHECK_FAILURE(f, "lack tensor 'lm_head.weight'");
    t[2].shape[0] /= 2;
    write_tensors("odd/model.safetensors", t, 3);
    CHECK(!load("odd", &f));
    CHECK_FAILURE(f, "is 128x24; this program was compiled for 257x24");
    t[2].shape[0] = archrt_model.arch.vocab;
    t[3] = (struct tensor_source){"model.layers.0.self_attn.q_proj.bias", 1, {3, 0}, p};
    write_tensors("odd/model.safetensors", t, 4);
    CHECK(!load("odd", &f));
    CHECK_FAILURE(f, "no place");
    t[3].name = "model.layers.0.self_attn.rotary_emb.inv_freq";
    write_tensors("odd/model.safetensors", t, 4);
    CHECK(load("odd", &f));
    CHECK(unlink("odd/config.json") == 0 && !load("odd", &f));
    CHECK_FAILURE(f, "no config.json");
    CHECK(!load("nowhere", &f));
    CHECK_FAILURE(f, "no directory");
    CHECK(directory_make("bare", &f) && !load("bare", &f));
    CHECK_FAILURE(f, "no weights");
    free(p);
}

static void index_case(const char *text, const char *expected)
{
    struct failure f;
    write_file("sharded/model.safetensors.index.json", text, strlen(text));
    bool good = load("sharded", &f);
    CHECK(good == !expected);
    if (expected)
        CHECK_FAILURE(f, expected);
}

static void test_index(void)
{
    struct failure f;
    struct tensor_source t[3];
    float *p = parameters();
    CHECK(directory_make("sharded", &f) && system("cp good/config.json sharded/") == 0);
    sources(t, p);
    write_tensors("sharded/one.safetensors", t, 2);
    write_tensors("sharded/two.safetensors", t + 2, 1);
#define MAP(a, b, c)                                                                               \
    "{\"weight_map\":{\"model.embed_tokens.weight\":" a ",\"model.norm.weight\":" b                \
    ",\"lm_head.weight\":" c "}}"
    index_case(MAP("\"one.safetensors\"", "\"one.safetensors\"", "\"two.safetensors\""), NULL);
    index_case(MAP("\"one.safetensors\"", "\"two.safetensors\"", "\"two.safetensors\""), "lack");
    index_case(MAP("\"one.safetensors\"", "\"one.safetensors\"", "\"three\""), "three");
    index_case(MAP("\"one.safetensors\"", "\"one.safetensors\"", "\"../two\""), "same directory");
    index_case(MAP("\"one.safetensors\"", "\"one.safetensors\"", "3"), "same directory");
    index_case(MAP("\"one.safetensors\"", "\"one.safetensors\"", "\"..\""), "same directory");
    index_case("{\"weight_map\":{}}", "no tensors");
    index_case("{\"weight_map\":[]}", "weight_map");
    index_case("{}", "weight_map");
    index_case("", "index.json");
    free(p);
}

/* Every half against its value from the definition, and rounding to bf16 to nearest even. */
static void test_numbers(void)
{
    struct failure f;
    static uint16_t halves[65536];
    size_t finite = 0;
    for (uint32_t i = 0; i < 65536; i++)
        if ((i & 0x7c00) != 0x7c00)
            halves[finite++] = (uint16_t)i;
    char header[128];
    int n = snprintf(header, sizeof header, ENTRY("F16", "[%zu]", "[0,%zu]"), finite, 2 * finite);
    uint64_t length = (uint64_t)n;
    FILE *out = fopen("half", "wb");
    CHECK(out && fwrite(&length, 8, 1, out) == 1 && fwrite(header, 1, (size_t)n, out) == (size_t)n);
    CHECK(fwrite(halves, 2, finite, out) == finite && fclose(out) == 0);
    struct safetensors s;
    float *x = malloc(finite * sizeof *x);
    CHECK(safetensors_open(&s, "half", &f) && safetensors_read(&s, s.tensor, x, &f));
    for (size_t i = 0; i < finite; i++) {
        int exponent = halves[i] >> 10 & 31, fraction = halves[i] & 0x3ff;
        double value = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
        CHECK((double)x[i] == (halves[i] & 0x8000 ? -value : value));
    }
    safetensors_close(&s);
    free(x);
    CHECK(bf16_round(1.0f) == 0x3f80 && bf16_round(-2.0f) == 0xc000);
    CHECK(bf16_round(1.00390625f) == 0x3f80); /* halfway: even below */
    CHECK(bf16_round(1.01171875f) == 0x3f82); /* halfway: even above */
    CHECK(bf16_round(1.003906309604645f) == 0x3f81);
    CHECK((bf16_round(NAN) & 0x7fff) > 0x7f80);
}

static void test_round_trip(void)
{
    struct failure f;
    float *p = parameters(), *q = calloc(archrt_model.param_floats, sizeof *q);
    memset(q, 0xff, archrt_model.param_floats * sizeof *q);
    CHECK(weights_read("good", &archrt_model, q, &f));
    CHECK(memcmp(p, q, archrt_model.param_floats * sizeof *p) == 0);
    char error[200] = "x";
    CHECK(weights_load("good", &archrt_model, q, error, sizeof error));
    CHECK(!weights_load("nowhere", &archrt_model, q, error, sizeof error) && strlen(error) > 10);
    CHECK(directory_make("half-size", &f));
    CHECK(weights_write("half-size", &archrt_model, p, ARCHRT_BF16, &f));
    CHECK(weights_read("half-size", &archrt_model, q, &f));
    for (size_t i = 0; i < archrt_model.param_floats; i++) {
        uint32_t bits = (uint32_t)bf16_round(p[i]) << 16;
        CHECK(memcmp(&bits, &q[i], 4) == 0);
    }
    free(p);
    free(q);
}

int main(void)
{
    team_start(archrt_model.threads);
    enter_scratch();
    test_headers();
    test_nesting();
    test_damage();
    test_lengths();
    test_tensors();
    test_index();
    test_numbers();
    test_round_trip();
    team_stop();
    return leave_scratch();
}

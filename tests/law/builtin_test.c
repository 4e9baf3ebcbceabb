/* builtin_test.c - builtin.arch says what the papers and data sheets say. */
#include "build_spec.h"
#include "check.h"

static const struct law *find_law(const struct spec *s, const char *name)
{
    for (int i = 0; i < s->n_laws; i++)
        if (strcmp(s->laws[i].name, name) == 0)
            return &s->laws[i];
    return NULL;
}

static const struct device *find_device(const struct spec *s, const char *name)
{
    for (int i = 0; i < s->n_devices; i++)
        if (strcmp(s->devices[i].name, name) == 0)
            return &s->devices[i];
    return NULL;
}

static void same_numbers(const struct law *got, const struct law *want)
{
    CHECK(got != NULL);
    if (!got)
        return;
    CHECK(got->form == want->form);
    for (int i = 0; i < 3 && want->form == LAW_MULTIPLICATIVE; i++) {
        CHECK_NEAR(got->a[i], want->a[i], 1e-15);
        CHECK_NEAR(got->b[i], want->b[i], 1e-15);
    }
    if (want->form == LAW_MULTIPLICATIVE) {
        CHECK_NEAR(got->params_lo, want->params_lo, 1);
        CHECK_NEAR(got->params_hi, want->params_hi, 1);
        CHECK_NEAR(got->r_lo, 0.5, 0);
        CHECK_NEAR(got->r_hi, 5, 0);
        CHECK_NEAR(got->x_lo, 0.02, 1e-15);
        CHECK_NEAR(got->x_hi, 0.16, 1e-15);
        return;
    }
    CHECK_NEAR(got->E, want->E, 1e-15);
    CHECK_NEAR(got->A, want->A, 1e-12);
    CHECK_NEAR(got->B, want->B, 1e-12);
    CHECK_NEAR(got->alpha, want->alpha, 1e-15);
    CHECK_NEAR(got->beta, want->beta, 1e-15);
}

static void test_devices(const struct spec *s, const struct built *b)
{
    const struct device *h200 = find_device(s, "h200"), *want = &b->devices[DEVICE_H200];
    CHECK(h200 != NULL);
    if (h200) {
        CHECK_NEAR(h200->flops[DTYPE_BF16], want->flops[DTYPE_BF16], 1);
        CHECK_NEAR(h200->memory_bandwidth, 4.8e12, 1);
        CHECK_NEAR(h200->memory_bytes, 141e9, 1);
        CHECK_NEAR(h200->launch, 1.3e-6, 1e-12);
        CHECK_NEAR(h200->eff_stream, 0.75, 1e-12);
        CHECK_NEAR(h200->cache_bytes, 50e6, 1);
        CHECK(h200->threads == 0 && !h200->is_host);
    }
    static const char *const others[] = {"h100", "a100_40gb", "rtx4090"};
    for (int i = 0; i < 3; i++) {
        const struct device *d = find_device(s, others[i]);
        CHECK(d && d->flops[DTYPE_BF16] > d->flops[DTYPE_F32] && d->memory_bandwidth > 1e12 &&
              d->memory_bytes > 2e10 && d->eff_matmul > 0.5 && d->eff_stream > 0.5);
    }
    const struct device *host = find_device(s, "host");
    CHECK(host && host->is_host && host->memory_bandwidth == 0);
}

/* Llama-3.2-1B, bf16, batch 1, ordinary kernels under CUDA graphs, measured: H200 794.74 us, H100
 * 979.51 us. */
static void test_anchors(const struct spec *s)
{
    static const struct {
        const char *device;
        double seconds;
    } rows[] = {{"h200", 794.74e-6}, {"h100", 979.51e-6}};
    struct arch llama = {.layers = 16,
                         .d_model = 2048,
                         .heads = 32,
                         .kv_heads = 8,
                         .head_dim = 64,
                         .d_ff = 8192,
                         .vocab = 128256,
                         .context = 8192,
                         .tied = true};
    struct workload w = {
        .batch = 1, .tokens = 1, .weights = DTYPE_BF16, .kv = DTYPE_BF16, .values = DTYPE_BF16};
    struct op_list l;
    ops_build(&llama, PHASE_DECODE, &w, &l);
    for (int i = 0; i < 2; i++) {
        const struct device *d = find_device(s, rows[i].device);
        CHECK(d != NULL);
        if (d)
            CHECK_NEAR(cost_list(d, &l, &w), rows[i].seconds, 0.02 * rows[i].seconds);
    }
}

int main(void)
{
    static const char text[] =
        "model m {\n family = llama\n vocab = 256\n layers = 2\n head_dim = 8\n"
        " d_model = 64\n heads = 4\n kv_heads = 2\n d_ff = 128\n}\n";
    struct built *b = built_new();
    struct diags d = {.arena = b->arena};
    struct spec s;
    bool read = spec_parse(b->arena, "test.arch", text, sizeof text - 1, law_prelude, &d, &s);
    diags_print(&d, stdout);
    CHECK(read && d.errors == 0);
    if (read) {
        same_numbers(find_law(&s, "bian2025_297m"), &b->laws[LAW_297M]);
        same_numbers(find_law(&s, "bian2025_1b"), &b->laws[LAW_1B]);
        same_numbers(find_law(&s, "besiroglu2024"), &b->laws[LAW_BESIROGLU]);
        same_numbers(find_law(&s, "hoffmann2022"), &b->laws[LAW_HOFFMANN]);
        const struct law *law = find_law(&s, "bian2025_297m");
        CHECK(law && law_chinchilla(&s, law) == find_law(&s, "besiroglu2024"));
        test_devices(&s, b);
        test_anchors(&s);
    }
    built_free(b);
    return check_report("law builtin");
}

/* fuzz_safetensors.c - libFuzzer on a whole safetensors file in memory: header, config and index.
 *
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -Iruntime -Icodegen \
 *       tests/fuzz/fuzz_safetensors.c tests/runtime/toy_model.c \
 *       runtime/{safetensors,hf_config,files,support,team}.c -ljansson -lm -lpthread */
#include <stdlib.h>
#include <string.h>

#include "hf_config.h"
#include "safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What parsing promises: tensors in order, without holes, covering the data. */
static void check(const struct safetensors *s, uint64_t data_bytes)
{
    uint64_t at = 0;
    for (int i = 0; i < s->n; i++) {
        const struct stored_tensor *t = &s->tensor[i];
        uint64_t bytes = (uint64_t)t->width;
        for (int k = 0; k < t->rank; k++)
            bytes *= (uint64_t)t->shape[k];
        if (t->begin != at || t->end - t->begin != bytes || !safetensors_find(s, t->name))
            abort();
        at = t->end;
    }
    if (at != data_bytes)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct safetensors s;
    struct failure f;
    if (size < 2)
        return 0;
    /* The first two bytes choose how much data follows the header. */
    uint64_t data_bytes = (uint64_t)data[0] << 8 | data[1];
    char *text = malloc(size - 2 + 1);
    memcpy(text, data + 2, size - 2);
    if (safetensors_parse(&s, "fuzz", text, size - 2, data_bytes, &f)) {
        check(&s, data_bytes);
        safetensors_close(&s);
    } else if (f.status != STATUS_INPUT || strchr(f.text, '\0') == f.text) {
        abort();
    }
    hf_config_check_text("fuzz", text, size - 2, &archrt_model.arch, &f);
    free(text);
    return 0;
}

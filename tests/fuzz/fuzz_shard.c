/* fuzz_shard.c - libFuzzer on a token shard in memory. Checksums would stop random changes at the
 * door, so the target mends them first where the sizes allow.
 *
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -Iruntime -Icodegen \
 *       tests/fuzz/fuzz_shard.c tests/runtime/toy_model.c \
 *       runtime/{shard,files,support,team}.c -lz -lm -lpthread */
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "shard.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put32(uint8_t *b, uint32_t x)
{
    for (int i = 0; i < 4; i++)
        b[i] = (uint8_t)(x >> (8 * i));
}

static void mend(uint8_t *file, size_t size)
{
    if (size < 68 || memcmp(file, "archtok\n", 8) != 0)
        return;
    put32(file + 32, 65536);
    put32(file + size - 4, (uint32_t)crc32_z(0, file + 64, size - 68)); /* one block */
    put32(file + 36, (uint32_t)crc32_z(0, file + size - 4, 4));
    put32(file + 60, (uint32_t)crc32_z(0, file, 60));
}

static void read_all(struct shard *s)
{
    struct failure f;
    int32_t id[256];
    for (uint64_t at = 0; at < s->count; at += 256) {
        size_t n = s->count - at < 256 ? (size_t)(s->count - at) : 256;
        if (!shard_read(s, at, n, 257, id, &f))
            return;
        for (size_t i = 0; i < n; i++)
            if (id[i] < 0 || id[i] >= 257)
                abort();
    }
}

static void try(uint8_t *file, size_t size)
{
    struct shard s;
    struct failure f;
    if (!shard_parse(&s, "fuzz", file, size, &f))
        return;
    read_all(&s);
    shard_close(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4)
        return 0;
    uint8_t *file = malloc(size);
    memcpy(file, data, size);
    try(file, size);
    mend(file, size);
    try(file, size);
    free(file);
    return 0;
}

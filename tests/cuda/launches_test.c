/* launches_test.c - what launch.h asks of the machine, over every head size, group and number of
 * rows and over uneven widths: shared memory that a block can have, blocks of whole warps, clusters
 * that divide the grid, grids and counters that exist, and two blocks a processor where NOTES count
 * on them. */
#include <stddef.h>
#include <stdio.h>

static int arch, heads, kv_heads, head_dim, context, segments = 16;
#define CUDA_ARCH arch
#define HEADS heads
#define KV_HEADS kv_heads
#define HEAD_DIM head_dim
#define CONTEXT context
#define SEGMENTS segments
/* Once, where a macro would be written out wherever the width stands. */
static int wide_of(int m, int n, int k);
#define SKINNY_WIDE(m, n, k) wide_of(m, n, k)
#include "archrt_cuda.h"
#include "launch.h"

static int wide_of(int m, int n, int k)
{
    return SKINNY_BEST_WIDE(m, n, k);
}

struct launch {
    unsigned grid[4], threads, shared;
};

static int wrong;

static void complain(const char *kind, int m, int n, int k, const char *what)
{
    if (wrong++ < 20)
        printf("%s, sm_%d, %d rows, n %d, k %d, %d/%d heads of %d, context %d: %s\n", kind, arch, m,
               n, k, heads, kv_heads, head_dim, context, what);
}

/* Compute capability: bytes of shared memory that a block may ask for (CUDA C++ programming guide,
 * technical specifications), one kilobyte less than a processor has. */
static unsigned block_bytes(void)
{
    return (arch == 80 || arch == 87 ? 163 : arch >= 90 && arch < 120 ? 227 : 99) << 10;
}

static void check(const char *kind, struct launch l, int m, int n, int k)
{
    if (l.threads == 0)
        return; /* no such pass here */
    if (l.threads > 1024 || l.threads % 32)
        complain(kind, m, n, k, "a block is whole warps, at most 32");
    if (l.shared > block_bytes())
        complain(kind, m, n, k, "more shared memory than a block can have");
    if (l.grid[0] < 1 || l.grid[1] < 1 || l.grid[2] < 1 || l.grid[0] > 0x7fffffff ||
        l.grid[1] > 65535 || l.grid[2] > 65535)
        complain(kind, m, n, k, "no such grid");
    if (l.grid[3] > 8 || (l.grid[3] > 1 && (arch < 90 || l.grid[1] % l.grid[3])))
        complain(kind, m, n, k, "clusters are whole, of 8 blocks at most");
}
#define CHECK(KIND, m, n, k)                                                                       \
    check(#KIND, (struct launch){KIND##_LAUNCH(m, n, k)}, (int)(m), (int)(n), (int)(k))
#define CHECK_PASS(KIND, pass, m, n, k)                                                            \
    check(#KIND " " #pass, (struct launch){KIND##_LAUNCH_##pass(m, n, k)}, (int)(m), (int)(n),     \
          (int)(k))

/* Beside a block of batched attention one of a cluster of the products around it is resident, where
 * that takes half of a processor: a kilobyte of each is the system's. */
static void check_pair(const char *kind, struct launch l, int m, int n, int k)
{
    const struct launch attention = {SKINNY_ATTENTION_LAUNCH(m, 0, 0)};
    if (arch == 90 && l.grid[3] > 1 && l.shared <= 113 << 10 &&
        l.shared + attention.shared + 2048 > 228 << 10)
        complain(kind, m, n, k, "no room beside attention");
}

static void attention(void)
{
    static const int rows[] = {9, 13, 64, 128, 192, 256};
    for (int m = 1; m <= 8; m++) {
        CHECK(DECODE_ATTENTION, m, 0, 0);
        if (DECODE_ATTENTION_COUNTERS(m) > DECODE_COUNTERS(m))
            complain("DECODE_ATTENTION", m, 0, 0, "counters");
    }
    for (int i = 0; i < 6; i++) {
        const int m = rows[i], n = (heads + 2 * kv_heads) * head_dim, k = heads * head_dim;
        CHECK(SKINNY_ATTENTION, m, 0, 0);
        if (SKINNY_ATTENTION_COUNTERS(m) > DECODE_COUNTERS(m) ||
            DECODE_ATTENTION_COUNTERS(1) > DECODE_COUNTERS(m))
            complain("SKINNY_ATTENTION", m, 0, 0, "counters");
        if (SKINNY_KEYS_SLOTS(m) < 2 || SKINNY_KEYS_SLOTS(m) > 12)
            complain("SKINNY_ATTENTION", m, 0, 0, "slots that feed_wait() does not know");
        CHECK_PASS(SKINNY_QKV, 2, m, n, k);
        check_pair("SKINNY_QKV", (struct launch){SKINNY_QKV_LAUNCH_2(m, n, k)}, m, n, k);
        CHECK(SKINNY_RESIDUAL, m, k, k);
        check_pair("SKINNY_RESIDUAL", (struct launch){SKINNY_RESIDUAL_LAUNCH(m, k, k)}, m, k, k);
    }
    CHECK(PREFILL_ATTENTION, 4096, 0, head_dim);
    CHECK(ATTENTION, 8 * 512, 512, head_dim);
    CHECK(ATTENTION_BACKWARD, 8 * 512, 512, head_dim);
    CHECK_PASS(ATTENTION_BACKWARD, 2, 8 * 512, 512, head_dim);
    CHECK_PASS(ATTENTION_BACKWARD, 3, 8 * 512, 512, head_dim);
    CHECK(ROPE_BACKWARD, 8 * 512, 0, head_dim);
}

static void products(int n, int k)
{
    for (int m = 1; m <= 8; m++) {
        CHECK(DECODE_QKV, m, n, k);
        CHECK(DECODE_RESIDUAL, m, n, k);
        CHECK(DECODE_GATE_UP, m, n, k);
        CHECK(DECODE_HEAD, m, n, k);
    }
    for (int m = 9; m <= 256; m += 13) {
        CHECK(SKINNY_RESIDUAL, m, n, k);
        CHECK_PASS(SKINNY_GATE_UP, 2, m, n, k);
        CHECK_PASS(SKINNY_HEAD, 2, m, n, k);
        CHECK_PASS(SAMPLE, 2, m, n, 0);
    }
    CHECK(MATMUL, 4096, n, k);
    CHECK(MATMUL_DX, 16384, n, k);
    CHECK(MATMUL_DW, 16384, n, k);
    CHECK(HEAD_SOFTMAX, 4096, n, k);
    CHECK_PASS(HEAD_SOFTMAX, 2, 4096, n, k);
    CHECK_PASS(HEAD_SOFTMAX, 3, 4096, n, k);
    CHECK_PASS(HEAD_SOFTMAX, 4, 4096, n, k);
}

int main(void)
{
    static const int archs[] = {80, 86, 89, 90, 100, 120};
    static const int kvs[] = {1, 2, 3, 4, 5, 7, 8, 12, 18, 33, 72};
    static const int contexts[] = {256, 8192, 131072};
    for (int a = 0; a < 6; a++) {
        arch = archs[a];
        for (int i = 0; i < 11 * 16 * 3; i++) {
            kv_heads = kvs[i % 11];
            heads = kv_heads * (1 + i / 11 % 16);
            context = contexts[i / 176];
            for (head_dim = 40; head_dim <= 256; head_dim += 8)
                attention();
        }
        heads = 32, kv_heads = 8, head_dim = 64, context = 8192;
        for (int k = 64; k <= 32768; k += k < 1024 ? 136 : k / 4 / 8 * 8)
            for (int n = 64; n <= 300000; n += n / 2 / 8 * 8)
                products(n, k);
    }
    return wrong != 0;
}

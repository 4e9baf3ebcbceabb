/* skinny_attention_test.c - skinny_attention.cu against fp64, of one HEAD_DIM: groups of 1 to 16,
 * rows of very different lengths, idle ones, and as many cuts of them as there are processors. */
#include <string.h>

#include "kernel_test.h"
#include "archrt_cuda.h"
#ifndef CUDA_ARCH
#define CUDA_ARCH 90
#endif

static volatile bf16 changes; /* 0, which no compiler knows */
static u32 run_m, run_group, run_kv_heads, run_pages, run_sms;
#define HEADS (run_group * run_kv_heads)
#define KV_HEADS run_kv_heads
#define PAGES run_pages
#define CONTEXT (run_pages * KV_PAGE)
#define CUDA_SMS run_sms
#include "launch.h"

#define KERNEL attention
#define DM_M run_m
#include "skinny_attention.cu"

/* The same with shapes that are numbers; what it shares with the other is not. */
#undef HEADS
#undef KV_HEADS
#define HEADS 27
#define KV_HEADS 3
#define KERNEL attention_9_3
#define DM_M 13
#include "skinny_attention.cu"
#undef HEADS
#undef KV_HEADS
#define HEADS (run_group * run_kv_heads)
#define KV_HEADS run_kv_heads

/* What stands in front of it in a step: writes q, and the token's own k and v, as they are. A block
 * a row. */
KERNEL_ENTRY(WARP, 1)
token(bf16 *q, bf16 *cache, const int *slot, const int *length, const int *pages)
{
    const u32 row = blockIdx.x;
    for (u32 i = threadIdx.x; i < HEADS * HEAD_DIM; i += WARP)
        q[row * HEADS * HEAD_DIM + i] ^= changes;
    if (slot[row] < 0)
        return;
    const u32 t = (u32)length[slot[row]];
    const u32 page = (u32)pages[(u32)slot[row] * PAGES + t / KV_PAGE];
    for (u32 i = threadIdx.x; i < 2 * KV_HEADS * HEAD_DIM; i += WARP) {
        const u64 head = page * 2 * KV_HEADS + i / HEAD_DIM;
        bf16 *at = cache + (head * KV_PAGE + t % KV_PAGE) * HEAD_DIM + i % HEAD_DIM;
        *at ^= changes;
    }
}

enum { MOST_KEYS = 34 * SKINNY_KEYS_TEAMS * KEYS_TILE }; /* what 34 blocks share */

struct buffers {
    bf16 *att, *q, *cache;
    i32 *slot, *length, *pages;
    void *scratch;
    i32 *counter;
};

HOST_CODE static bf16 *key(const struct buffers *b, u32 row, u32 half, u32 kv, u32 t)
{
    const size_t head = KV_PAGE * HEAD_DIM, page = 2 * run_kv_heads * head;
    return b->cache + (row * run_pages + t / KV_PAGE) * page + (half * run_kv_heads + kv) * head +
           t % KV_PAGE * HEAD_DIM;
}

/* Row i has slot m - 1 - i, whose page p is number i PAGES + p of the pool. What is past its length
 * is never written. */
HOST_CODE static void make_row(struct buffers *b, u32 row, u32 keys)
{
    const i32 slot = keys ? (i32)(run_m - 1 - row) : -1, length = (i32)keys - 1;
    emu_write(b->slot + row, &slot, 4);
    if (slot >= 0)
        emu_write(b->length + slot, &length, 4);
    for (u32 p = 0; p < run_pages; p++) {
        const i32 number = p * KV_PAGE < keys ? (i32)(row * run_pages + p) : 1 << 30;
        emu_write(b->pages + (run_m - 1 - row) * run_pages + p, &number, 4);
    }
    for (u32 t = 0; t < keys; t++)
        for (u32 h = 0; h < 2 * run_kv_heads; h++) {
            bf16 v[HEAD_DIM];
            for (u32 j = 0; j < HEAD_DIM; j++)
                v[j] = bf16_from_f32(test_random());
            emu_write(key(b, row, h / run_kv_heads, h % run_kv_heads, t), v, sizeof(v));
        }
}

HOST_CODE static void make(struct buffers *b, const u32 *keys)
{
    const size_t page = 2 * run_kv_heads * KV_PAGE * HEAD_DIM;
    b->att = emu_alloc("att", run_m * HEADS * HEAD_DIM * 2);
    b->q = test_bf16s("q", run_m * HEADS * HEAD_DIM, 1.5f);
    b->cache = emu_alloc("cache", run_m * run_pages * page * 2);
    b->slot = emu_alloc("slot", run_m * 4);
    b->length = emu_alloc("length", run_m * 4);
    b->pages = emu_alloc("pages", run_m * run_pages * 4);
    b->scratch = emu_alloc("scratch", SKINNY_ATTENTION_SCRATCH(run_m, 0, 0));
    b->counter = emu_alloc("counter", run_m * run_kv_heads * 4);
    emu_fill(b->counter, 0, run_m * run_kv_heads * 4);
    for (u32 i = 0; i < run_m; i++)
        make_row(b, i, keys[i]);
}

/* The weights of a head's keys; the result is their sum. */
HOST_CODE static double weigh(const struct buffers *b, double *weight, u32 row, u32 h, u32 keys)
{
    const bf16 *q = b->q + ((size_t)row * HEADS + h) * HEAD_DIM;
    double most = -1e30, all = 0;
    for (u32 t = 0; t < keys; t++) {
        const bf16 *k = key(b, row, 0, h / run_group, t);
        double sum = 0;
        for (u32 j = 0; j < HEAD_DIM; j++)
            sum += (double)f32_from_bf16(q[j]) * f32_from_bf16(k[j]);
        weight[t] = sum / sqrt(HEAD_DIM);
        most = fmax(most, weight[t]);
    }
    for (u32 t = 0; t < keys; t++)
        all += weight[t] = exp(weight[t] - most);
    return all;
}

HOST_CODE static void compare_head(const struct buffers *b, struct test_error *error, u32 row,
                                   u32 h, u32 keys)
{
    static double weight[MOST_KEYS];
    const double all = weigh(b, weight, row, h, keys);
    double sum[HEAD_DIM] = {0}, size[HEAD_DIM] = {0};
    for (u32 t = 0; t < keys; t++) {
        const bf16 *v = key(b, row, 1, h / run_group, t);
        for (u32 j = 0; j < HEAD_DIM; j++) {
            sum[j] += weight[t] / all * (double)f32_from_bf16(v[j]);
            size[j] += weight[t] / all * fabs((double)f32_from_bf16(v[j]));
        }
    }
    for (u32 j = 0; j < HEAD_DIM; j++) {
        const size_t at = ((size_t)row * HEADS + h) * HEAD_DIM + j;
        bf16 got;
        emu_read(&got, b->att + at, 2);
        /* weights as bf16, which may be wrong by 2^-8 each where keys are few, and the result */
        test_compare(error, at, f32_from_bf16(got), sum[j], size[j] / 252, 1.0 / 252);
    }
}

/* Blocks, warps and lanes in another order: not a bit may change, and counters were left at 0. */
HOST_CODE static int differs(const struct emu_launch *launch, const struct buffers *b)
{
    const size_t bytes = run_m * HEADS * HEAD_DIM * sizeof(bf16);
    void *first = malloc(bytes);
    if (!first)
        return 1;
    memcpy(first, b->att, bytes);
    emu_seed(1000 + run_sms);
    EMU_RUN(launch, b->att, b->q, b->cache, b->slot, b->length, b->pages, b->scratch, b->counter);
    const int changed = memcmp(first, b->att, bytes) != 0;
    free(first);
    if (changed)
        printf("attention of %u rows, %u blocks: another order, other results\n", run_m, run_sms);
    return changed;
}

HOST_CODE static int check(emu_kernel *kernel, const u32 *keys)
{
    struct buffers b;
    char what[128];
    struct test_error error = {0, 0, 0, 0};
    i32 counted = 0;
    make(&b, keys);
    const struct emu_launch launch = {"attention", kernel, SKINNY_ATTENTION_LAUNCH(run_m, 0, 0),
                                      true, NULL};
    const struct emu_launch before = {
        "token", (emu_kernel *)token, {run_m, 1, 1, 0}, WARP, 0, false, NULL};
    EMU_RUN(&before, b.q, b.cache, b.slot, b.length, b.pages);
    EMU_RUN(&launch, b.att, b.q, b.cache, b.slot, b.length, b.pages, b.scratch, b.counter);
    for (u32 i = 0; i < run_m * run_kv_heads; i++)
        counted |= b.counter[i];
    for (u32 i = 0; i < run_m; i++)
        for (u32 h = 0; h < HEADS && keys[i]; h++)
            compare_head(&b, &error, i, h, keys[i]);
    snprintf(what, sizeof(what), "attention of %u rows, %u x %u heads of %d, %u blocks, %u slots",
             run_m, run_kv_heads, run_group, HEAD_DIM, run_sms, (u32)SKINNY_KEYS_SLOTS(run_m));
    const int changed = !counted && run_group == 4 && differs(&launch, &b);
    emu_free_all();
    if (counted)
        printf("%s: counters are not left at 0\n", what);
    return test_verdict(&error, what) | (counted != 0) | changed;
}

HOST_CODE static void shape(u32 m, u32 group, u32 kv_heads, u32 pages, u32 sms)
{
    static u32 seed;
    emu_seed(++seed);
    run_m = m;
    run_group = group;
    run_kv_heads = kv_heads;
    run_pages = pages;
    run_sms = sms;
}

/* 0 to `most` keys, most of them few: a third of the rows idle. */
HOST_CODE static void draw(u32 *keys, u32 m, u32 most)
{
    for (u32 i = 0; i < m; i++) {
        const float u = fabsf(test_random()) / 4;
        keys[i] = test_random() < -0.5f ? 0 : (u32)(u * u * (float)most) % most + 1;
    }
}

HOST_CODE int main(void)
{
    static const u32 groups[] = {1, 2, 3, 5, 7, 8, 9, 12, 16}, sms[] = {3, 5, 1, 8, 13};
    u32 keys[80];
    int bad = 0;
    for (u32 i = 0; i < sizeof(groups) / sizeof(groups[0]); i++) {
        shape(9 + i % 3, groups[i], 1 + i % 3, 4, sms[i % 5]);
        draw(keys, run_m, 256);
        bad |= check((emu_kernel *)attention, keys);
    }
    /* Fewer tiles than teams, none at all, one row among idle ones, rows alike. */
    static const u32 one[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1}, none[9] = {0},
                     alone[9] = {0, 0, 0, 0, 511, 0, 0, 0, 0},
                     alike[9] = {144, 144, 144, 144, 144, 144, 144, 144, 144};
    const u32 *few[] = {one, none, alone, alike};
    for (u32 i = 0; i < 4; i++) {
        shape(9, 4, 1, 8, 6);
        bad |= check((emu_kernel *)attention, few[i]);
    }
    static const u32 longest[9] = {0, 0, 0, MOST_KEYS, 0, 0, 0, 0, 1};
    shape(9, 2, 1, CEIL_DIV(MOST_KEYS, KV_PAGE), 40);
    bad |= check((emu_kernel *)attention, longest);
    shape(13, 9, 3, 3, 7);
    draw(keys, 13, 192);
    bad |= check((emu_kernel *)attention_9_3, keys);
    shape(70, 2, 1, 2, 20);
    draw(keys, 70, 128);
    bad |= check((emu_kernel *)attention, keys);
    return bad;
}

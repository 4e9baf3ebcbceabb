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

#include "cache_test.h"

enum { MOST_KEYS = 34 * SKINNY_KEYS_TEAMS * KEYS_TILE }; /* what 34 blocks share */

struct buffers {
    struct cached of;
    void *scratch;
    i32 *counter;
};

HOST_CODE static void make(struct buffers *b, const u32 *keys)
{
    cached_make(&b->of);
    b->scratch = emu_alloc("scratch", SKINNY_ATTENTION_SCRATCH(run_m, 0, 0));
    b->counter = emu_alloc("counter", run_m * run_kv_heads * 4);
    emu_fill(b->counter, 0, run_m * run_kv_heads * 4);
    for (u32 i = 0; i < run_m; i++)
        cached_row(&b->of, i, keys[i], keys[i]);
}

HOST_CODE static void run(const struct emu_launch *launch, const struct buffers *b)
{
    const struct cached *of = &b->of;
    EMU_RUN(launch, of->att, of->q, of->cache, of->slot, of->length, of->pages, b->scratch,
            b->counter);
}

/* Blocks, warps and lanes in another order: not a bit may change, and counters were left at 0. */
HOST_CODE static int differs(const struct emu_launch *launch, const struct buffers *b)
{
    const size_t bytes = run_m * HEADS * HEAD_DIM * sizeof(bf16);
    void *first = malloc(bytes);
    if (!first)
        return 1;
    memcpy(first, b->of.att, bytes);
    emu_seed(1000 + run_sms);
    run(launch, b);
    const int changed = memcmp(first, b->of.att, bytes) != 0;
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
    EMU_RUN(&before, b.of.q, b.of.cache, b.of.slot, b.of.length, b.of.pages);
    run(&launch, &b);
    for (u32 i = 0; i < run_m * run_kv_heads; i++)
        counted |= b.counter[i];
    for (u32 i = 0; i < run_m; i++)
        for (u32 h = 0; h < HEADS && keys[i]; h++)
            /* weights as bf16, which may be wrong by 2^-8 each where keys are few, and the result
             */
            cached_compare(&b.of, &error, i, h, keys[i], 1.0 / 252, 1.0 / 252);
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

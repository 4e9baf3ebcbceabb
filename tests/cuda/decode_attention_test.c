/* decode_attention_test.c - decode_attention.cu against fp64, of one HEAD_DIM: groups of 1 to 16,
 * contexts of one key to several pages, idle rows; blocks by themselves, clusters of 2 to 8, and
 * several clusters a row and kv head. */
#include "kernel_test.h"
#include "archrt_cuda.h"

static u32 run_m, run_group, run_kv_heads, run_pages, run_sms, run_arch, run_alone;
#define HEADS (run_group * run_kv_heads)
#define KV_HEADS run_kv_heads
#define PAGES run_pages
#define CONTEXT (run_pages * KV_PAGE)
#define CUDA_SMS run_sms
#define CUDA_ARCH run_arch
#define KEYS_ALONE(m) (KEYS_CLUSTER(m) == 1 ? 0 : run_alone)
#include "launch.h"

#define KERNEL attention
#define DM_M run_m
#include FILE_UNDER_TEST

#undef HEADS
#undef KV_HEADS
#undef PAGES
#define HEADS 9
#define KV_HEADS 1
#define PAGES 2
#define KERNEL attention_9_1
#define DM_M 2
#include FILE_UNDER_TEST
#undef HEADS
#undef KV_HEADS
#undef PAGES
#define HEADS (run_group * run_kv_heads)
#define KV_HEADS run_kv_heads
#define PAGES run_pages

/* What comes before it in a step: the rows' own keys and values, element at[b] of the cache on,
 * which attention may not read before dependent_wait(). */
KERNEL_ENTRY(WARP, 1) own_keys(bf16 *cache, const bf16 *made, const i32 *at)
{
    for (u32 e = threadIdx.x; e < HEAD_DIM; e += WARP)
        cache[at[blockIdx.x] + (i32)e] = made[blockIdx.x * HEAD_DIM + e];
}

#include "cache_test.h"

struct buffers {
    struct cached of;
    bf16 *made; /* the rows' own keys and values, and where in the cache they go */
    i32 *at;
    u32 n_made;
    void *scratch;
    i32 *counter;
};

HOST_CODE static void make_own(struct buffers *b, u32 row, u32 t)
{
    for (u32 h = 0; h < 2 * run_kv_heads; h++) {
        const bf16 *own = cached_at(&b->of, row, h / run_kv_heads, h % run_kv_heads, t);
        const i32 at = (i32)(own - b->of.cache);
        emu_write(b->at + b->n_made++, &at, 4);
    }
}

HOST_CODE static void make(struct buffers *b, const u32 *lengths)
{
    cached_make(&b->of);
    b->made = test_bf16s("made", run_m * 2 * run_kv_heads * HEAD_DIM, 1);
    b->at = emu_alloc("at", run_m * 2 * run_kv_heads * 4);
    b->n_made = 0;
    b->scratch = emu_alloc("scratch", DECODE_ATTENTION_SCRATCH(run_m, 0, 0) + 16);
    b->counter = emu_alloc("counter", CUDA_COUNTERS * 4);
    emu_fill(b->counter, 0, CUDA_COUNTERS * 4);
    for (u32 i = 0; i < run_m; i++) {
        cached_row(&b->of, i, lengths[i], lengths[i] ? lengths[i] - 1 : 0);
        if (lengths[i])
            make_own(b, i, lengths[i] - 1);
    }
}

HOST_CODE static int check(emu_kernel *kernel, const u32 *lengths)
{
    struct buffers b;
    char what[128];
    struct test_error error = {0, 0, 0, 0};
    i32 counted = 0;
    make(&b, lengths);
    const struct emu_launch launch = {"attention", kernel, DECODE_ATTENTION_LAUNCH(run_m, 0, 0),
                                      true, NULL};
    const struct emu_launch before = {
        "own_keys", (emu_kernel *)own_keys, {b.n_made, 1, 1}, WARP, 0, false, NULL};
    EMU_RUN(&before, b.of.cache, b.made, b.at);
    EMU_RUN(&launch, b.of.att, b.of.q, b.of.cache, b.of.slot, b.of.length, b.of.pages, b.scratch,
            b.counter);
    for (u32 i = 0; i < CUDA_COUNTERS; i++)
        counted |= b.counter[i];
    for (u32 i = 0; i < run_m; i++)
        for (u32 h = 0; h < HEADS && lengths[i]; h++)
            /* weights as bf16, 2^-9 each, and the result */
            cached_compare(&b.of, &error, i, h, lengths[i], 1.0 / 500, 1.0 / 250);
    snprintf(what, sizeof(what), "attention of %u rows, %u x %u heads of %d, %u clusters of %u",
             run_m, run_kv_heads, run_group, HEAD_DIM, (u32)KEYS_CLUSTERS(run_m),
             (u32)KEYS_CLUSTER(run_m));
    emu_free_all();
    if (counted)
        printf("%s: counters are not left at 0\n", what);
    return test_verdict(&error, what) | (counted != 0);
}

HOST_CODE static void shape(u32 m, u32 group, u32 kv_heads, u32 pages)
{
    static u32 seed;
    emu_seed(++seed);
    run_m = m;
    run_group = group;
    run_kv_heads = kv_heads;
    run_pages = pages;
}

/* So many blocks a cluster and, behind `alone` keys, clusters a row and kv head: where the cluster
 * is of 1, blocks of an architecture without clusters. */
HOST_CODE static void cut(u32 cluster, u32 clusters, u32 alone)
{
    const u32 all = cluster * clusters * run_m * run_kv_heads;
    run_arch = cluster == 1 ? 80 : 90;
    run_sms = cluster == 1 ? all : (all * 20 + 16) / 17;
    run_alone = alone;
}

HOST_CODE static int check_cut(u32 cluster, u32 clusters)
{
    if (KEYS_CLUSTER(run_m) == cluster && KEYS_CLUSTERS(run_m) == clusters)
        return 0;
    printf("%u clusters of %u for %u of %u\n", (u32)KEYS_CLUSTERS(run_m), (u32)KEYS_CLUSTER(run_m),
           clusters, cluster);
    return 1;
}

/* Every group, with rows of a few keys, of none, and of several tiles. */
HOST_CODE static int check_groups(void)
{
    static const u32 groups[] = {1, 2, 3, 4, 5, 7, 8, 9, 12, 16}, clusters[] = {1, 8, 2, 4, 3};
    int bad = 0;
    for (u32 i = 0; i < sizeof(groups) / sizeof(groups[0]); i++) {
        const u32 lengths[3] = {1 + i * 13, i == 3 ? 0 : 65, 300 - i * 7};
        shape(3, groups[i], 1 + i % 2, 5);
        cut(clusters[i % 5], i % 5 == 0 ? 1 + i / 2 : 1, 1024);
        bad |= check_cut(clusters[i % 5],
                         i % 5 == 0 ? LESSER(1 + i / 2, CEIL_DIV(320, ATTEND_STEP)) : 1);
        bad |= check((emu_kernel *)attention, lengths);
    }
    return bad;
}

/* The token's own key as a tile's first, last, in the second tile, in the second turn; one block
 * that has keys, all but one that have. */
HOST_CODE static int check_edges(u32 cluster)
{
    const u32 step = ATTEND_STEP;
    const u32 lengths[8] = {32, 33, step, step + 1, 2 * step - 7, 2 * step + 1, 4 * step + 1, 0};
    int bad = 0;
    shape(8, 3, 1, CEIL_DIV(4 * step + 1, KV_PAGE));
    cut(cluster, 1, CONTEXT);
    bad |= check_cut(cluster, 1);
    return bad | check((emu_kernel *)attention, lengths);
}

/* Rows on both sides of what a cluster takes alone. */
HOST_CODE static int check_clusters(u32 group)
{
    const u32 alone = 8 * ATTEND_STEP, lengths[2] = {alone, alone + 3 * ATTEND_STEP / 2};
    shape(2, group, 1, CEIL_DIV(lengths[1], KV_PAGE));
    cut(8, 3, alone);
    return check_cut(8, 3) | check((emu_kernel *)attention, lengths);
}

HOST_CODE int main(void)
{
    int bad = check_groups() | check_edges(2) | check_edges(7) | check_clusters(5);
    const u32 few[2] = {64, 127}, long_[1] = {ATTEND_PARTS > 2 ? 34 * ATTEND_STEP : 700};
    shape(2, 9, 1, 2);
    cut(2, 1, 128);
    bad |= check((emu_kernel *)attention_9_1, few);
    shape(1, 3, 1, 18); /* more than 32 tiles of one team, more than 32 blocks */
    cut(1, 1, 0);
    bad |= check((emu_kernel *)attention, long_);
    cut(1, 34, 0);
    return bad | check((emu_kernel *)attention, long_);
}

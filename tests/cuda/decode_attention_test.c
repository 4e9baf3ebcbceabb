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

struct buffers {
    bf16 *att, *q, *cache, *made;
    i32 *at;
    u32 n_made;
    i32 *slot, *length, *pages;
    void *scratch;
    i32 *counter;
    double score[2048];
};

/* Row i has slot m - 1 - i, whose page p is number i PAGES + p of the pool. The keys past its
 * length are never written. */
HOST_CODE static void make(struct buffers *b, const u32 *lengths)
{
    const size_t e = HEAD_DIM, head = KV_PAGE * e, page = 2 * run_kv_heads * head;
    b->att = emu_alloc("att", run_m * HEADS * e * 2);
    b->q = test_bf16s("q", run_m * HEADS * e, 1.5f);
    b->cache = emu_alloc("cache", run_m * run_pages * page * 2);
    b->made = test_bf16s("made", run_m * 2 * run_kv_heads * e, 1);
    b->at = emu_alloc("at", run_m * 2 * run_kv_heads * 4);
    b->n_made = 0;
    b->slot = emu_alloc("slot", run_m * 4);
    b->length = emu_alloc("length", run_m * 4);
    b->pages = emu_alloc("pages", run_m * run_pages * 4);
    b->scratch = emu_alloc("scratch", DECODE_ATTENTION_SCRATCH(run_m, 0, 0) + 16);
    b->counter = emu_alloc("counter", CUDA_COUNTERS * 4);
    emu_fill(b->counter, 0, CUDA_COUNTERS * 4);
    for (u32 i = 0; i < run_m; i++) {
        const i32 slot = lengths[i] ? (i32)(run_m - 1 - i) : -1, at = (i32)lengths[i] - 1;
        emu_write(b->slot + i, &slot, 4);
        if (slot >= 0)
            emu_write(b->length + slot, &at, 4);
        for (u32 p = 0; p < run_pages; p++) {
            const i32 number = p * KV_PAGE < lengths[i] ? (i32)(i * run_pages + p) : 1 << 30;
            emu_write(b->pages + (run_m - 1 - i) * run_pages + p, &number, 4);
        }
        for (u32 t = 0; t < lengths[i]; t++)
            for (u32 h = 0; h < 2 * run_kv_heads; h++) {
                const size_t to = (i * run_pages + t / KV_PAGE) * page + h * head + t % KV_PAGE * e;
                const i32 own = (i32)to;
                bf16 v[HEAD_DIM];
                for (u32 j = 0; j < e; j++)
                    v[j] = bf16_from_f32(test_random());
                if (t + 1 < lengths[i])
                    emu_write(b->cache + to, v, sizeof(v));
                else
                    emu_write(b->at + b->n_made++, &own, 4);
            }
    }
}

HOST_CODE static const bf16 *key(const struct buffers *b, u32 row, u32 half, u32 kv, u32 t)
{
    const size_t head = KV_PAGE * HEAD_DIM, page = 2 * run_kv_heads * head;
    return b->cache + (row * run_pages + t / KV_PAGE) * page + (half * run_kv_heads + kv) * head +
           t % KV_PAGE * HEAD_DIM;
}

HOST_CODE static void compare_head(struct buffers *b, struct test_error *error, u32 row, u32 h,
                                   u32 length)
{
    const bf16 *q = b->q + ((size_t)row * HEADS + h) * HEAD_DIM;
    const u32 kv = h / run_group;
    double most = -1e30, all = 0;
    for (u32 t = 0; t < length; t++) {
        const bf16 *k = key(b, row, 0, kv, t);
        double sum = 0;
        for (u32 j = 0; j < HEAD_DIM; j++)
            sum += (double)f32_from_bf16(q[j]) * f32_from_bf16(k[j]);
        b->score[t] = sum / sqrt(HEAD_DIM);
        most = fmax(most, b->score[t]);
    }
    for (u32 t = 0; t < length; t++)
        all += b->score[t] = exp(b->score[t] - most);
    for (u32 j = 0; j < HEAD_DIM; j++) {
        const size_t at = ((size_t)row * HEADS + h) * HEAD_DIM + j;
        double sum = 0, size = 0;
        bf16 got;
        for (u32 t = 0; t < length; t++) {
            const double v = f32_from_bf16(key(b, row, 1, kv, t)[j]);
            sum += b->score[t] / all * v;
            size += b->score[t] / all * fabs(v);
        }
        emu_read(&got, b->att + at, 2);
        /* weights as bf16, 2^-9 each, and the result */
        test_compare(error, at, f32_from_bf16(got), sum, size / 500, 1.0 / 250);
    }
}

HOST_CODE static int check(emu_kernel *kernel, const u32 *lengths)
{
    static struct buffers b;
    char what[128];
    struct test_error error = {0, 0, 0, 0};
    i32 counted = 0;
    make(&b, lengths);
    const struct emu_launch launch = {"attention", kernel, DECODE_ATTENTION_LAUNCH(run_m, 0, 0),
                                      true, NULL};
    const struct emu_launch before = {
        "own_keys", (emu_kernel *)own_keys, {b.n_made, 1, 1}, WARP, 0, false, NULL};
    EMU_RUN(&before, b.cache, b.made, b.at);
    EMU_RUN(&launch, b.att, b.q, b.cache, b.slot, b.length, b.pages, b.scratch, b.counter);
    for (u32 i = 0; i < CUDA_COUNTERS; i++)
        counted |= b.counter[i];
    for (u32 i = 0; i < run_m; i++)
        for (u32 h = 0; h < HEADS && lengths[i]; h++)
            compare_head(&b, &error, i, h, lengths[i]);
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

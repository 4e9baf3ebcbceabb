/* cache_test.h - what tests of attention over the cache share: rows in its pages, and a head's
 * attention in fp64. Who includes it has HEAD_DIM and, as variables, run_m rows, run_group query
 * heads to each of run_kv_heads, and run_pages a slot. */
#ifndef CACHE_TEST_H
#define CACHE_TEST_H

struct cached {
    bf16 *att, *q, *cache;
    i32 *slot, *length, *pages;
};

enum { CACHED_MOST_KEYS = 34 * 128 };

/* Key or value (half) t of a row, whose page p is number row run_pages + p of the pool. */
HOST_CODE static bf16 *cached_at(const struct cached *b, u32 row, u32 half, u32 kv, u32 t)
{
    const size_t head = KV_PAGE * HEAD_DIM, page = 2 * run_kv_heads * head;
    return b->cache + (row * run_pages + t / KV_PAGE) * page + (half * run_kv_heads + kv) * head +
           t % KV_PAGE * HEAD_DIM;
}

/* All rows idle, nothing in the cache. */
HOST_CODE static void cached_make(struct cached *b)
{
    const size_t page = 2 * run_kv_heads * KV_PAGE * HEAD_DIM;
    const size_t queries = run_m * run_group * run_kv_heads * HEAD_DIM;
    b->att = emu_alloc("att", queries * 2);
    b->q = test_bf16s("q", queries, 1.5f);
    b->cache = emu_alloc("cache", run_m * run_pages * page * 2);
    b->slot = emu_alloc("slot", run_m * 4);
    b->length = emu_alloc("length", run_m * 4);
    b->pages = emu_alloc("pages", run_m * run_pages * 4);
}

/* The row has slot m - 1 - row and so many keys, the first `written` of which are there; nothing is
 * behind them, pages without keys are nowhere. No keys: it is idle. */
HOST_CODE static void cached_row(struct cached *b, u32 row, u32 keys, u32 written)
{
    const i32 slot = keys ? (i32)(run_m - 1 - row) : -1, length = (i32)keys - 1;
    emu_write(b->slot + row, &slot, 4);
    if (slot >= 0)
        emu_write(b->length + slot, &length, 4);
    for (u32 p = 0; p < run_pages; p++) {
        const i32 number = p * KV_PAGE < keys ? (i32)(row * run_pages + p) : 1 << 30;
        emu_write(b->pages + (run_m - 1 - row) * run_pages + p, &number, 4);
    }
    for (u32 t = 0; t < written; t++)
        for (u32 h = 0; h < 2 * run_kv_heads; h++) {
            bf16 v[HEAD_DIM];
            for (u32 j = 0; j < HEAD_DIM; j++)
                v[j] = bf16_from_f32(test_random());
            emu_write(cached_at(b, row, h / run_kv_heads, h % run_kv_heads, t), v, sizeof(v));
        }
}

/* The weights of a head's keys; the result is their sum. */
HOST_CODE static double cached_weigh(const struct cached *b, double *weight, u32 row, u32 h,
                                     u32 keys)
{
    const bf16 *q = b->q + ((size_t)row * run_group * run_kv_heads + h) * HEAD_DIM;
    double most = -1e30, all = 0;
    for (u32 t = 0; t < keys; t++) {
        const bf16 *k = cached_at(b, row, 0, h / run_group, t);
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

/* A head of a row against fp64: may be off by `part` of what was summed up, and of itself. */
HOST_CODE static void cached_compare(const struct cached *b, struct test_error *error, u32 row,
                                     u32 h, u32 keys, double part, double relative)
{
    static double weight[CACHED_MOST_KEYS];
    const double all = cached_weigh(b, weight, row, h, keys);
    double sum[HEAD_DIM] = {0}, size[HEAD_DIM] = {0};
    for (u32 t = 0; t < keys; t++) {
        const bf16 *v = cached_at(b, row, 1, h / run_group, t);
        for (u32 j = 0; j < HEAD_DIM; j++) {
            sum[j] += weight[t] / all * (double)f32_from_bf16(v[j]);
            size[j] += weight[t] / all * fabs((double)f32_from_bf16(v[j]));
        }
    }
    for (u32 j = 0; j < HEAD_DIM; j++) {
        const size_t at = ((size_t)row * run_group * run_kv_heads + h) * HEAD_DIM + j;
        bf16 got;
        emu_read(&got, b->att + at, 2);
        test_compare(error, at, f32_from_bf16(got), sum[j], size[j] * part, relative);
    }
}

#endif

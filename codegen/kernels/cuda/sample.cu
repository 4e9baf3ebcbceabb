/* sample.cu - the next token of each row of logits, and its slot's new length.
 *
 * KERNEL      the entry points' name: KERNEL, KERNEL_2
 * SAMPLE_M    most rows
 * SAMPLE_V    V, columns of logits; those from SAMPLE_TOKENS on are padding
 * CONTEXT
 *
 * What is kept of a row by top-k, top-p and min-p is always a beginning of its ranking: larger
 * logits first, then smaller ids. So the row is ranked as far as that takes, exactly and in one
 * order: nothing here depends on which thread came first.
 *
 * Pass 1: a block a chunk of SAMPLE_CHUNK logits sorts it, and adds up the probabilities, relative
 * to the chunk's best, in that order; or where the temperature is 0 only finds the best. Pass 2: a
 * block a row. Each filter asks for the shortest beginning of the ranking that reaches some count
 * or sum. Every chunk has a window of ranks in which that end may lie; they are narrowed by looking
 * up one logit in all chunks at a time (first one that leaves at most SAMPLE_HEAD of each chunk,
 * which mostly decides it), until what is left can be sorted in shared memory. Then one random
 * number picks a chunk and an element of it, as runtime/sample.c does: the same token.
 *
 * Floor: 4 V bytes a row; with a temperature, 10 V more written to scratch (L2) by pass 1 and a
 * small part of them read by pass 2. */
#include "device.h"
#include "launch.h"
#include "archrt_cuda.h"

#ifndef SAMPLE_H
#define SAMPLE_H

typedef u64
    ranked; /* a logit's order in bits 32.., the complement of its id below: larger is first */

enum {
    SAMPLE_HEAD = 16,
    SAMPLE_EACH = SAMPLE_CHUNK / SAMPLE_THREADS,
    SAMPLE_WARPS = SAMPLE_THREADS / WARP
};

/* Monotonic in x; 0 for what cannot be chosen, NaN and -inf. */
DEVICE u32 sample_order(float x)
{
    const u32 bits = bits_from_f32(x + 0.0f); /* -0 is 0 */
    const u32 order = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return x != x || order <= 0x007fffffu ? 0 : order;
}

DEVICE float sample_logit(u32 order)
{
    return f32_from_bits(order & 0x80000000u ? order & 0x7fffffffu : ~order);
}

DEVICE ranked sample_ranked(u32 order, u32 id)
{
    return (u64)order << 32 | (u32)~id;
}

/* Probability relative to `best`'s; both are orders. */
DEVICE float sample_weight(u32 order, u32 best, float temperature)
{
    if (order == best)
        return 1.0f;
    return order == 0
               ? 0.0f
               : exp_f32(f32_max(f32_divide(sample_logit(order) - sample_logit(best), temperature),
                                 -200.0f));
}

/* Whose token row i of the logits chooses, -1: nobody's. The host wrote that, as it did how it is
 * chosen: known before dependent_wait(), where four loads one behind the other cost nothing. (Not
 * RESTRICT: the compiler would load behind the wait.) */
struct sample_whose {
    i32 slot;
    u32 row; /* of x, and so of position */
};

DEVICE struct sample_whose sample_whose(const struct cuda_call *call, const int *head_row,
                                        const int *slot, u32 i)
{
    struct sample_whose whose = {-1, 0};
    if (i < (u32)call->head_rows) {
        whose.row = (u32)head_row[i];
        whose.slot = slot[whose.row];
    }
    return whose;
}

/* ---- over the block; `scratch` has SAMPLE_WARPS places of 8 bytes ---- */

DEVICE ranked sample_warp_most(ranked v)
{
    UNROLL
    for (u32 m = WARP / 2; m > 0; m >>= 1) {
        const u32 high = shuffle_xor_u32((u32)(v >> 32), m, WARP);
        const ranked other = (u64)high << 32 | shuffle_xor_u32((u32)v, m, WARP);
        v = other > v ? other : v;
    }
    return v;
}

DEVICE ranked sample_most(ranked v, u64 *scratch)
{
    v = sample_warp_most(v);
    block_sync();
    if (lane_id() == 0)
        scratch[threadIdx.x / WARP] = v;
    block_sync();
    return sample_warp_most(scratch[lane_id() % SAMPLE_WARPS]);
}

DEVICE float sample_add(float v, u64 *scratch)
{
    block_sync();
    return block_sum(v, (float *)(void *)scratch, SAMPLE_THREADS);
}

/* Sum of v over the threads before this one. */
DEVICE float sample_before(float v, u64 *scratch)
{
    float *warps = (float *)(void *)scratch, sum = v;
    UNROLL
    for (u32 d = 1; d < WARP; d *= 2) {
        const float other = shuffle_up_f32(sum, d, WARP);
        sum += lane_id() >= d ? other : 0.0f;
    }
    block_sync();
    if (lane_id() == WARP - 1)
        warps[threadIdx.x / WARP] = sum;
    block_sync();
    float before = 0.0f;
    UNROLL
    for (u32 w = 0; w < SAMPLE_WARPS; w++)
        before += w < threadIdx.x / WARP ? warps[w] : 0.0f;
    const float own = shuffle_up_f32(sum, 1, WARP);
    return before + (lane_id() > 0 ? own : 0.0f);
}

/* Bitonic: list[n] descending; n a power of two, at least 2. */
DEVICE void sample_sort(ranked *list, u32 n)
{
    for (u32 size = 2; size <= n; size *= 2)
        for (u32 apart = size / 2; apart > 0; apart /= 2) {
            block_sync();
            for (u32 i = threadIdx.x; i < n / 2; i += SAMPLE_THREADS) {
                const u32 a = (i & ~(apart - 1)) * 2 + (i & (apart - 1)), b = a + apart;
                const ranked x = list[a], y = list[b];
                if ((x < y) == ((a & size) == 0)) {
                    list[a] = y;
                    list[b] = x;
                }
            }
        }
    block_sync();
}

/* ---- scratch ---- */

/* Of one row: each chunk's best, then its logits in their ranking: orders, sums of weights relative
 * to the chunk's best up to and with each, ids within the chunk. */
struct sample_chunks {
    ranked *best; /* [chunks] */
    u32 *order;   /* [chunks][SAMPLE_CHUNK] */
    float *sum;
    u16 *id;
};

DEVICE struct sample_chunks sample_chunks(void *scratch, u32 row, u32 rows, u32 chunks)
{
    const u64 all = (u64)rows * chunks, first = (u64)row * chunks;
    u32 *orders = (u32 *)(void *)((ranked *)scratch + ROUND_UP(all, 2));
    float *sums = (float *)(void *)(orders + all * SAMPLE_CHUNK);
    u16 *ids = (u16 *)(void *)(sums + all * SAMPLE_CHUNK);
    struct sample_chunks at;
    at.best = (ranked *)scratch + first;
    at.order = orders + first * SAMPLE_CHUNK;
    at.sum = sums + first * SAMPLE_CHUNK;
    at.id = ids + first * SAMPLE_CHUNK;
    return at;
}

/* ---- pass 1 ---- */

/* Stores the sorted chunk: a thread has SAMPLE_EACH logits in a row. */
DEVICE void sample_store(const struct sample_chunks *to, u32 chunk, const ranked *list,
                         float temperature, u64 *scratch)
{
    const u64 at = (u64)chunk * SAMPLE_CHUNK + threadIdx.x * SAMPLE_EACH;
    const u32 best = (u32)(list[0] >> 32);
    u32 order[SAMPLE_EACH], id[SAMPLE_EACH];
    float sum[SAMPLE_EACH], all = 0.0f;
    UNROLL
    for (u32 i = 0; i < SAMPLE_EACH; i++) {
        const ranked v = list[threadIdx.x * SAMPLE_EACH + i];
        order[i] = (u32)(v >> 32);
        id[i] = ~(u32)v - chunk * SAMPLE_CHUNK;
        sum[i] = all += sample_weight(order[i], best, temperature);
    }
    const float before = sample_before(all, scratch);
    const u32x4 orders = {order[0], order[1], order[2], order[3]};
    const f32x4 sums = {before + sum[0], before + sum[1], before + sum[2], before + sum[3]};
    const u32x2 ids = {id[0] | id[1] << 16, id[2] | id[3] << 16};
    *(u32x4 *)(void *)(to->order + at) = orders;
    *(f32x4 *)(void *)(to->sum + at) = sums;
    *(u32x2 *)(void *)(to->id + at) = ids;
}
STATIC_ASSERT(SAMPLE_EACH == 4, "a thread stores four logits as one vector");

/* ---- pass 2 ---- */

/* A row and its windows: of chunk c, ranks below low[c] are kept, those from high[c] on are not. A
 * thread has chunks first.. to end; the arrays are in shared memory. */
struct sample_row {
    struct sample_chunks in;
    u32 first, end;
    u32 best; /* order */
    float temperature;
    u32 *low, *high, *at; /* [chunks] */
    float *scale;         /* [chunks] weight of the chunk's best */
    ranked *list;         /* [SAMPLE_LIST] */
    u64 *scratch;
};

DEVICE ranked sample_at(const struct sample_row *row, u32 c, u32 rank)
{
    const u64 i = (u64)c * SAMPLE_CHUNK + rank;
    return sample_ranked(row->in.order[i], c * SAMPLE_CHUNK + row->in.id[i]);
}

/* How many of the chunk rank before or at `last`, or with `least` > 0 weigh that much; between low
 * and high. */
DEVICE u32 sample_rank(const struct sample_row *row, u32 c, ranked last, float least, u32 low,
                       u32 high)
{
    while (low < high) {
        const u32 middle = (low + high) / 2;
        const ranked v = sample_at(row, c, middle);
        if (least > 0.0f ? sample_weight((u32)(v >> 32), row->best, row->temperature) >= least
                         : v >= last)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Of all chunks' first end[c]: how many, or the sum of weights. */
DEVICE float sample_total(const struct sample_row *row, const u32 *end, u32 weigh)
{
    float sum = 0.0f;
    for (u32 c = row->first; c < row->end; c++)
        if (!weigh)
            sum += (float)end[c];
        else if (end[c] > 0)
            sum = f32_fma(row->in.sum[(u64)c * SAMPLE_CHUNK + end[c] - 1], row->scale[c], sum);
    return sample_add(sum, row->scratch);
}

/* Logits in the windows. */
DEVICE u32 sample_open(const struct sample_row *row)
{
    float sum = 0.0f;
    for (u32 c = row->first; c < row->end; c++)
        sum += (float)(row->high[c] - row->low[c]);
    return (u32)sample_add(sum, row->scratch);
}

/* A logit to look up: the best of those that come SAMPLE_HEAD places behind their chunk's first, or
 * the middle of the largest window. */
DEVICE ranked sample_pivot(const struct sample_row *row, u32 heads)
{
    ranked pivot = 0;
    for (u32 c = row->first; c < row->end; c++) {
        const u32 open = row->high[c] - row->low[c];
        const ranked v = !heads               ? (u64)open << 32 | c
                         : open > SAMPLE_HEAD ? sample_at(row, c, row->low[c] + SAMPLE_HEAD)
                                              : 0;
        pivot = v > pivot ? v : pivot;
    }
    pivot = sample_most(pivot, row->scratch);
    if (heads)
        return pivot + 1; /* itself excluded */
    const u32 c = (u32)pivot;
    return sample_at(row, c, (row->low[c] + row->high[c] - 1) / 2);
}

/* Halves the windows, more or less, around where the total reaches `want`. */
DEVICE void sample_halve(struct sample_row *row, u32 heads, u32 weigh, float want)
{
    const ranked pivot = sample_pivot(row, heads);
    for (u32 c = row->first; c < row->end; c++)
        row->at[c] = sample_rank(row, c, pivot, 0.0f, row->low[c], row->high[c]);
    const u32 reached = sample_total(row, row->at, weigh) >= want;
    for (u32 c = row->first; c < row->end; c++)
        *(reached ? &row->high[c] : &row->low[c]) = row->at[c];
    block_sync();
}

/* The windows' logits, sorted. Their number rounded up to a power of two. */
DEVICE u32 sample_gather(struct sample_row *row, u32 open)
{
    u32 size = SAMPLE_THREADS;
    while (size < open)
        size *= 2;
    float mine = 0.0f;
    for (u32 c = row->first; c < row->end; c++)
        mine += (float)(row->high[c] - row->low[c]);
    u32 to = (u32)sample_before(mine, row->scratch);
    for (u32 i = threadIdx.x; i < size; i += SAMPLE_THREADS)
        if (i >= open)
            row->list[i] = 0;
    for (u32 c = row->first; c < row->end; c++)
        for (u32 rank = row->low[c]; rank < row->high[c]; rank++)
            row->list[to++] = sample_at(row, c, rank);
    sample_sort(row->list, size);
    return size;
}

/* The first of the sorted list at which base and what came before reach `want`; else the last. */
DEVICE ranked sample_reach(struct sample_row *row, u32 size, u32 open, u32 weigh, float base,
                           float want)
{
    const u32 each = size / SAMPLE_THREADS, first = threadIdx.x * each;
    float sum = 0.0f;
    for (u32 i = first; i < first + each; i++)
        sum += !weigh ? (float)(i < open)
                      : sample_weight((u32)(row->list[i] >> 32), row->best, row->temperature);
    sum = base + sample_before(sum, row->scratch);
    ranked found = 0;
    for (u32 i = first; i < first + each && i < open; i++) {
        sum +=
            !weigh ? 1.0f : sample_weight((u32)(row->list[i] >> 32), row->best, row->temperature);
        if (sum >= want && found == 0)
            found = row->list[i];
    }
    found = sample_most(found, row->scratch);
    return found ? found : row->list[open - 1];
}

/* Keeps the fewest first-ranking of what `high` leaves that are `want`, or weigh that much. */
DEVICE void sample_keep(struct sample_row *row, u32 weigh, float want)
{
    for (u32 c = row->first; c < row->end; c++)
        row->low[c] = 0;
    block_sync();
    if (sample_total(row, row->high, weigh) <= want && !weigh)
        return; /* fewer than that are left anyway */
    u32 open = sample_open(row);
    for (u32 turn = 0; open > SAMPLE_LIST || (turn == 0 && open > SAMPLE_THREADS); turn++) {
        sample_halve(row, turn == 0, weigh, want);
        open = sample_open(row);
    }
    if (open == 0)
        return;
    const float base = sample_total(row, row->low, weigh);
    const u32 size = sample_gather(row, open);
    const ranked last = sample_reach(row, size, open, weigh, base, want);
    for (u32 c = row->first; c < row->end; c++)
        row->high[c] = sample_rank(row, c, last, 0.0f, row->low[c], row->high[c]);
    block_sync();
}

/* Uniform in [0, 1), 53 bits: splitmix64 of the seed's stream and the position, as the host's
 * sampler_uniform(). */
DEVICE double sample_uniform(u32 seed0, u32 seed1, u32 position)
{
    u64 z = ((u64)seed1 << 32 | seed0) + (u64)(position + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    return (double)(z >> 11) * (1.0 / 9007199254740992.0);
}

/* One of what `high` leaves, by weight; `otherwise` where rounding lets the number pass them all.
 */
DEVICE u32 sample_draw(struct sample_row *row, double uniform, u32 chunks, u32 otherwise)
{
    float *weight = row->scale; /* becomes the chunks' totals */
    u32 *place = row->at;       /* [0] the chunk, [1] the token */
    double *rest = (double *)(void *)row->scratch;
    for (u32 c = row->first; c < row->end; c++)
        weight[c] *= row->high[c] ? row->in.sum[(u64)c * SAMPLE_CHUNK + row->high[c] - 1] : 0.0f;
    block_sync();
    double all = 0.0;
    for (u32 c = 0; c < chunks; c++)
        all += (double)weight[c];
    const double target = uniform * all;
    double before = 0.0;
    if (threadIdx.x == 0) {
        place[0] = chunks;
        place[1] = otherwise;
    }
    block_sync();
    for (u32 c = 0; c < row->end; c++) {
        const double after = before + (double)weight[c];
        if (c >= row->first && target >= before && target < after) {
            place[0] = c;
            *rest = (target - before) / (double)weight[c];
        }
        before = after;
    }
    block_sync();
    const u32 chosen = place[0];
    if (chosen < chunks) {
        const u64 first = (u64)chosen * SAMPLE_CHUNK;
        const u32 end = row->high[chosen];
        const double want = *rest * (double)row->in.sum[first + end - 1];
        for (u32 i = threadIdx.x; i < end; i += SAMPLE_THREADS)
            if (want < (double)row->in.sum[first + i] &&
                (i == 0 || want >= (double)row->in.sum[first + i - 1]))
                place[1] = chosen * SAMPLE_CHUNK + row->in.id[first + i];
    }
    block_sync();
    return place[1];
}

DEVICE u32 sample_filtered(struct sample_row *row, const struct cuda_sampling *options, u32 chunks,
                           u32 best_id, u32 position)
{
    row->temperature = options->temperature;
    for (u32 c = row->first; c < row->end; c++) {
        row->scale[c] = sample_weight((u32)(row->in.best[c] >> 32), row->best, row->temperature);
        row->high[c] = sample_rank(row, c, (ranked)1 << 32, 0.0f, 0, SAMPLE_CHUNK);
    }
    block_sync();
    if (options->top_k > 0)
        sample_keep(row, 0, (float)options->top_k);
    if (options->top_p < 1.0f)
        sample_keep(row, 1, options->top_p * sample_total(row, row->high, 1));
    if (options->min_p > 0.0f)
        for (u32 c = row->first; c < row->end; c++)
            row->high[c] = sample_rank(row, c, 0, options->min_p, 0, row->high[c]);
    block_sync();
    return sample_draw(row, sample_uniform(options->seed[0], options->seed[1], position), chunks,
                       best_id);
}

#endif

KERNEL_ENTRY(SAMPLE_THREADS, 1)
KERNEL(int *next, int *length, int *output, const float *logits, const struct cuda_call *call,
       const int *head_row, const int *slot, const int *position,
       const struct cuda_sampling *sampling, void *scratch, int *counter)
{
    SHARED_ARENA(arena);
    const u32 v = (u32)(SAMPLE_V), i = blockIdx.y, chunk = blockIdx.x, t = threadIdx.x;
    const struct sample_chunks to = sample_chunks(scratch, i, SAMPLE_M, gridDim.x);
    u64 *warps = (u64 *)(void *)arena;
    ranked *list = warps + SAMPLE_WARPS, mine[SAMPLE_EACH], most = 0;
    (void)next, (void)length, (void)output, (void)position, (void)counter;
    dependents_launch();
    const i32 s = sample_whose(call, head_row, slot, i).slot;
    const float temperature = s >= 0 ? sampling[s].temperature : 0.0f;
    const u32 tokens = s >= 0 ? (u32)sampling[s].tokens : 0;
    const u32 named = tokens ? LESSER(tokens, (u32)(SAMPLE_TOKENS)) : (u32)(SAMPLE_TOKENS);
    dependent_wait();
    if (s < 0)
        return;
    UNROLL
    for (u32 j = 0; j < SAMPLE_EACH; j++) {
        const u32 id = chunk * SAMPLE_CHUNK + j * SAMPLE_THREADS + t;
        mine[j] = sample_ranked(id < named ? sample_order(logits[(u64)i * v + id]) : 0, id);
        most = mine[j] > most ? mine[j] : most;
    }
    if (temperature != 0.0f) {
        UNROLL
        for (u32 j = 0; j < SAMPLE_EACH; j++)
            list[j * SAMPLE_THREADS + t] = mine[j];
        sample_sort(list, SAMPLE_CHUNK);
        most = list[0];
        sample_store(&to, chunk, list, temperature, warps);
    } else {
        most = sample_most(most, warps);
    }
    if (t == 0)
        to.best[chunk] = most;
}

KERNEL_ENTRY(SAMPLE_THREADS, 1)
CONCAT(KERNEL, _2)
(int *next, int *length, int *output, const float *logits, const struct cuda_call *call,
 const int *head_row, const int *slot, const int *position, const struct cuda_sampling *sampling,
 void *scratch, int *counter)
{
    SHARED_ARENA(arena);
    const u32 i = blockIdx.x, chunks = DIV_UP((u32)(SAMPLE_V), SAMPLE_CHUNK);
    const u32 each = DIV_UP(chunks, SAMPLE_THREADS), t = threadIdx.x;
    struct sample_row row;
    (void)logits, (void)counter;
    dependents_launch();
    const struct sample_whose whose = sample_whose(call, head_row, slot, i);
    const float temperature = whose.slot >= 0 ? sampling[whose.slot].temperature : 0.0f;
    dependent_wait();
    if (whose.slot < 0)
        return;
    const u32 s = (u32)whose.slot, at = (u32)position[whose.row];
    row.in = sample_chunks(scratch, i, SAMPLE_M, chunks);
    row.first = LESSER(t * each, chunks);
    row.end = LESSER(row.first + each, chunks);
    row.scratch = (u64 *)(void *)arena;
    row.list = row.scratch + SAMPLE_WARPS;
    row.low = (u32 *)(void *)(row.list + SAMPLE_LIST);
    row.high = row.low + chunks;
    row.at = row.high + chunks;
    row.scale = (float *)(void *)(row.at + GREATER(chunks, 2));
    ranked best = 0;
    for (u32 c = row.first; c < row.end; c++)
        best = row.in.best[c] > best ? row.in.best[c] : best;
    best = sample_most(best, row.scratch);
    row.best = (u32)(best >> 32);
    i32 token = row.best ? (i32) ~(u32)best : -1;
    if (row.best && temperature != 0.0f)
        token = (i32)sample_filtered(&row, &sampling[s], chunks, (u32)token, at + 1);
    if (t == 0) {
        next[s] = token;
        length[s] = (int)at + 1;
        if (at + 1 < (u32)(CONTEXT))
            output[(u64)s * (u32)(CONTEXT) + at + 1] = token;
    }
}

#undef KERNEL
#undef SAMPLE_M
#undef SAMPLE_V
#undef SAMPLE_TOKENS

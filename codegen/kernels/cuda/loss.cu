/* loss.cu - cross-entropy of rows of logits: loss[m] = log sum e^x - x[target], 0 where there is
 * no target (target < 0); where dlogits is given, dlogits[m] = (softmax - onehot) grad_scale, 0
 * in rows without a target.
 *
 * KERNEL   the function's name
 * LOSS_M   rows, LOSS_V columns: any number, so that rows may start at any element
 * LOSS_TOKENS  of them; the columns behind are padding: not counted, their gradient is 0
 *
 * LOSS_KEPT  batches of LOSS_EACH vectors that a thread keeps in registers: a number, 2 for rows
 * that shared memory does not hold, else 0
 *
 * Floor: 6 M V bytes, 4 of them read. A block a row. The first sweep keeps, for each thread, the
 * largest logit so far and the sum of e^(x - largest); the second makes the gradient. The row's
 * beginning stays in registers, as much of the rest as fits in shared memory; what is left is read
 * a second time, last part first, which is still in L2. Vectors are those of the whole matrix,
 * aligned; the few elements of a row before and after them are the first threads', one each. */
#include "device.h"
#include "launch.h"
#include "archrt_cuda.h"
#include "four.h"

#define LOSS_BATCHES (LOSS_KEPT ? LOSS_KEPT : 1)

#ifndef LOSS_ONCE
#define LOSS_ONCE
#define LOSS_LOWEST (-3.4e38f)
/* How a row lies on aligned vectors: `before` elements, `vectors` of four, the rest. */
struct loss_row {
    const float *x;
    u32 before, vectors, others; /* others: elements that are in no vector */
};
#endif

DEVICE struct loss_row CONCAT(KERNEL, _place)(const float *logits, u32 row)
{
    const u64 start = (u64)row * (u32)(LOSS_V);
    const u32 v = (u32)(LOSS_TOKENS), before = (u32)(0 - start) % 4;
    struct loss_row r;
    r.x = logits + start;
    r.before = before < v ? before : v;
    r.vectors = (v - r.before) / 4;
    r.others = v - r.vectors * 4;
    return r;
}

/* Which element of the row number i of those in no vector is. */
DEVICE u32 CONCAT(KERNEL, _other)(struct loss_row r, u32 i)
{
    return i < r.before ? i : i + r.vectors * 4;
}

DEVICE float CONCAT(KERNEL, _exp)(float x, float top)
{
    return fast_exp2((x - top) * 1.44269504f);
}

/* n more values. */
DEVICE void CONCAT(KERNEL, _take)(float *top, float *sum, const float *x, u32 n)
{
    float most = *top;
    UNROLL
    for (u32 i = 0; i < n; i++)
        most = f32_max(most, x[i]);
    *sum *= CONCAT(KERNEL, _exp)(*top, most);
    *top = most;
    UNROLL
    for (u32 i = 0; i < n; i++)
        *sum += CONCAT(KERNEL, _exp)(x[i], most);
}

/* A thread's vectors from number `first` on, where the row has them; also to `held`, where given,
 * those of them that it has room for. */
DEVICE void CONCAT(KERNEL, _batch)(float x[LOSS_EACH][4], struct loss_row r, u32 first, f32x4 *held)
{
    const u32 begin = LOSS_KEPT * LOSS_EACH * LOSS_THREADS;
    const f32x4 *from = (const f32x4 *)(const void *)(r.x + r.before);
    UNROLL
    for (u32 j = 0; j < LOSS_EACH; j++) {
        const u32 v = first + j * LOSS_THREADS;
        f32x4 four = {LOSS_LOWEST, LOSS_LOWEST, LOSS_LOWEST, LOSS_LOWEST};
        if (v < r.vectors)
            four = from[v];
        if (held && v < r.vectors && v - begin < LOSS_HOLDS((u32)(LOSS_V)))
            held[v - begin] = four;
        four_split(x[j], four);
    }
}

/* Largest of the row, and the sum of e^(x - largest), the same in every thread. held[0]: the first
 * vector behind those in registers. */
DEVICE void CONCAT(KERNEL, _sweep)(struct loss_row r, float kept[LOSS_BATCHES][LOSS_EACH][4],
                                   f32x4 *held, float *scratch, float *top, float *sum)
{
    const u32 t = threadIdx.x, step = LOSS_THREADS * LOSS_EACH;
    *top = LOSS_LOWEST;
    *sum = 0.0f;
    UNROLL
    for (u32 k = 0; k < LOSS_BATCHES && LOSS_KEPT > 0; k++) {
        CONCAT(KERNEL, _batch)(kept[k], r, t + k * step, (f32x4 *)0);
        CONCAT(KERNEL, _take)(top, sum, &kept[k][0][0], LOSS_EACH * 4);
    }
    for (u32 first = t + LOSS_KEPT * step; first < r.vectors; first += step) {
        float x[LOSS_EACH][4];
        CONCAT(KERNEL, _batch)(x, r, first, held);
        CONCAT(KERNEL, _take)(top, sum, &x[0][0], LOSS_EACH * 4);
    }
    if (t < r.others)
        CONCAT(KERNEL, _take)(top, sum, r.x + CONCAT(KERNEL, _other)(r, t), 1);
    const float own = *top;
    float most = warp_max(own, WARP);
    if (t % WARP == 0)
        scratch[t / WARP] = most;
    block_sync();
    most = warp_max(scratch[t % (LOSS_THREADS / WARP)], WARP);
    *top = most;
    *sum = block_sum(*sum * CONCAT(KERNEL, _exp)(own, most), scratch + LOSS_THREADS / WARP,
                     LOSS_THREADS);
}

/* One vector of the gradient. */
DEVICE void CONCAT(KERNEL, _vector)(bf16 *d, const float x[4], float top, float factor)
{
    float four[4];
    UNROLL
    for (u32 i = 0; i < 4; i++)
        four[i] = CONCAT(KERNEL, _exp)(x[i], top) * factor;
    four_store_bf16(d, four);
}

/* Vectors begin .. end - 1 of the gradient, last first, but for -grad_scale at the target. `from`:
 * the row's vectors, in shared memory or not; factor = grad_scale / sum. */
DEVICE void CONCAT(KERNEL, _vectors)(bf16 *d, const f32x4 *from, u32 begin, u32 end, float top,
                                     float factor)
{
    const u32 step = LOSS_THREADS * LOSS_EACH;
    for (u32 turn = DIV_UP(end - begin, step); turn > 0; turn--) {
        const u32 first = begin + (turn - 1) * step + threadIdx.x;
        f32x4 x[LOSS_EACH];
        UNROLL
        for (u32 j = 0; j < LOSS_EACH; j++)
            if (first + j * LOSS_THREADS < end)
                x[j] = from[first + j * LOSS_THREADS];
        UNROLL
        for (u32 j = 0; j < LOSS_EACH; j++) {
            float four[4];
            four_split(four, x[j]);
            if (first + j * LOSS_THREADS < end)
                CONCAT(KERNEL, _vector)(d + (first + j * LOSS_THREADS) * 4, four, top, factor);
        }
    }
}

/* Those that are still in registers. */
DEVICE void CONCAT(KERNEL, _kept)(bf16 *d, float kept[LOSS_BATCHES][LOSS_EACH][4], u32 vectors,
                                  float top, float factor)
{
    UNROLL
    for (u32 k = 0; k < LOSS_BATCHES && LOSS_KEPT > 0; k++) {
        UNROLL
        for (u32 j = 0; j < LOSS_EACH; j++) {
            const u32 v = threadIdx.x + (k * LOSS_EACH + j) * LOSS_THREADS;
            if (v < vectors)
                CONCAT(KERNEL, _vector)(d + v * 4, kept[k][j], top, factor);
        }
    }
}

/* Padding has no gradient. */
DEVICE void CONCAT(KERNEL, _pad)(bf16 *d)
{
    for (u32 i = (u32)(LOSS_TOKENS) + threadIdx.x; i < (u32)(LOSS_V); i += LOSS_THREADS)
        d[i] = 0;
}

DEVICE void CONCAT(KERNEL, _gradient)(bf16 *d, struct loss_row r,
                                      float kept[LOSS_BATCHES][LOSS_EACH][4], const f32x4 *held,
                                      float top, float factor)
{
    const u32 first = LOSS_KEPT * LOSS_EACH * LOSS_THREADS;
    const u32 holds = first + LOSS_HOLDS((u32)(LOSS_V));
    const u32 begin = first < r.vectors ? first : r.vectors;
    const u32 middle = holds < r.vectors ? holds : r.vectors;
    const f32x4 *from = (const f32x4 *)(const void *)(r.x + r.before);
    CONCAT(KERNEL, _vectors)(d + r.before, from, middle, r.vectors, top, factor);
    CONCAT(KERNEL, _vectors)(d + r.before + begin * 4, held, 0, middle - begin, top, factor);
    CONCAT(KERNEL, _kept)(d + r.before, kept, r.vectors, top, factor);
    if (threadIdx.x < r.others) {
        const u32 at = CONCAT(KERNEL, _other)(r, threadIdx.x);
        d[at] = bf16_from_f32(CONCAT(KERNEL, _exp)(r.x[at], top) * factor);
    }
    CONCAT(KERNEL, _pad)(d);
}

DEVICE void CONCAT(KERNEL, _clear)(bf16 *d, struct loss_row r)
{
    const float zero[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (u32 v = threadIdx.x; v < r.vectors; v += LOSS_THREADS)
        four_store_bf16(d + r.before + v * 4, zero);
    if (threadIdx.x < r.others)
        d[CONCAT(KERNEL, _other)(r, threadIdx.x)] = 0;
    CONCAT(KERNEL, _pad)(d);
}

KERNEL_ENTRY(LOSS_THREADS, LOSS_KEPT ? 1 : 2)
KERNEL(float *loss, bf16 *dlogits, const float *RESTRICT logits, const int *RESTRICT targets,
       const struct cuda_train *RESTRICT train)
{
    SHARED_ARENA(arena);
    const u32 row = blockIdx.x;
    const int target = targets[row];
    const struct loss_row r = CONCAT(KERNEL, _place)(logits, row);
    float *scratch = (float *)(void *)arena, top, sum;
    f32x4 *held = (f32x4 *)(void *)(scratch + 2 * LOSS_THREADS / WARP);
    float kept[LOSS_BATCHES][LOSS_EACH][4];
    bf16 *d = dlogits ? dlogits + (u64)row * (u32)(LOSS_V) : dlogits;
    if (target < 0) {
        if (threadIdx.x == 0)
            loss[row] = 0.0f;
        if (d)
            CONCAT(KERNEL, _clear)(d, r);
        return;
    }
    CONCAT(KERNEL, _sweep)(r, kept, held, scratch, &top, &sum);
    const float chosen = r.x[target];
    if (threadIdx.x == 0)
        loss[row] = log_f32(sum) + (top - chosen);
    if (!d)
        return;
    const float scale = train->grad_scale, factor = f32_divide(scale, sum);
    CONCAT(KERNEL, _gradient)(d, r, kept, held, top, factor);
    block_sync();
    if (threadIdx.x == 0)
        d[target] = bf16_from_f32(f32_fma(CONCAT(KERNEL, _exp)(chosen, top), factor, -scale));
}

#undef KERNEL
#undef LOSS_M
#undef LOSS_V
#undef LOSS_TOKENS
#undef LOSS_KEPT
#undef LOSS_BATCHES

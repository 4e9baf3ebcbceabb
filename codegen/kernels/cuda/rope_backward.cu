/* rope_backward.cu - dqkv[m] in place: gradients of rotated q and k heads become those of the
 * projected ones; where ROPE_HEAD_NORM also through n = x r gain, whose gain's gradient is added to
 * dgain[2][E] (q, k). v is left as it is.
 *
 * KERNEL           the function's name
 * ROPE_M           rows; ROPE_T of a sequence
 * ROPE_HEAD_NORM   0 or 1; NORM_EPS is ignored
 * HEADS, KV_HEADS, HEAD_DIM (a number)
 *
 * Floor: 4 M (dq + dkv) bytes, with the head norm 6. Pass 1: blocks take rows in turn, heads lie on
 * lanes as in rope.cu, each thread sums dgain for its elements; the block's sum goes to
 * scratch[block][2][E]. Pass 2 adds those up. */
#include "device.h"
#include "launch.h"
#include "archrt_cuda.h"
#include "columns.h"
#include "rope.h"

#define ROPE_BACKWARD_EACH (ROPE_HEAD_NORM ? 1 : 3) /* heads of a thread under way */

/* Behind the rotation: d becomes the gradient of x; `sum` += that of gain. */
DEVICE struct rope_pairs CONCAT(KERNEL, _norm)(struct rope_pairs d, struct rope_pairs x, float r,
                                               struct rope_pairs gain, struct rope_pairs *sum)
{
    struct rope_pairs g;
    UNROLL
    for (u32 i = 0; i < 4; i++) {
        g.a[i] = d.a[i] * gain.a[i];
        g.b[i] = d.b[i] * gain.b[i];
        sum->a[i] = f32_fma(d.a[i], x.a[i] * r, sum->a[i]);
        sum->b[i] = f32_fma(d.b[i], x.b[i] * r, sum->b[i]);
    }
    const float c = rope_dot(g, x) * (1.0f / (float)HEAD_DIM) * r * r;
    UNROLL
    for (u32 i = 0; i < 4; i++) {
        g.a[i] = (g.a[i] - x.a[i] * c) * r;
        g.b[i] = (g.b[i] - x.b[i] * c) * r;
    }
    return g;
}

/* Heads first .. last - 1 of one row, which have one gain. A thread loads all that it has of
 * ROPE_BACKWARD_EACH turns of the slots before it stores any: d is read and written, so no load may
 * pass a store. */
DEVICE void CONCAT(KERNEL, _heads)(bf16 *d, const bf16 *in, const float *rstd, u32 first, u32 last,
                                   struct rope_pairs angle, const float *RESTRICT gain,
                                   struct rope_pairs *sum)
{
    const u32 lane = threadIdx.x % ROPE_LANES(HEAD_DIM), works = lane < HEAD_DIM / 8;
    const u32 slot = threadIdx.x / ROPE_LANES(HEAD_DIM);
    for (; first < last; first += ROPE_SLOTS * ROPE_BACKWARD_EACH) {
        struct rope_pairs y[ROPE_BACKWARD_EACH], x[ROPE_BACKWARD_EACH];
        float r[ROPE_BACKWARD_EACH] = {0.0f};
        UNROLL
        for (u32 j = 0; j < ROPE_BACKWARD_EACH; j++) {
            const u32 head = first + slot + j * ROPE_SLOTS, live = works && head < last;
            y[j] = x[j] = rope_zero();
            if (live)
                y[j] = rope_load(d + head * HEAD_DIM, lane);
            if (ROPE_HEAD_NORM && live) {
                x[j] = rope_load(in + head * HEAD_DIM, lane);
                r[j] = rstd[head];
            }
        }
        UNROLL
        for (u32 j = 0; j < ROPE_BACKWARD_EACH; j++) {
            const u32 head = first + slot + j * ROPE_SLOTS;
            y[j] = rope_turn_back(y[j], angle);
            if (ROPE_HEAD_NORM) {
                const struct rope_pairs g = works ? rope_load_f32(gain, lane) : rope_zero();
                y[j] = CONCAT(KERNEL, _norm)(y[j], x[j], r[j], g, sum);
            }
            if (works && head < last)
                rope_store(d + head * HEAD_DIM, lane, y[j]);
        }
    }
}

/* The block's sums over its slots, to partial[2][E]. */
DEVICE void CONCAT(KERNEL, _leave)(float *partial, float *shared, struct rope_pairs q,
                                   struct rope_pairs k)
{
    const u32 lane = threadIdx.x % ROPE_LANES(HEAD_DIM), slot = threadIdx.x / ROPE_LANES(HEAD_DIM);
    float *own = shared + slot * 2 * HEAD_DIM + lane * 4;
    if (lane < HEAD_DIM / 8) {
        four_store(own, q.a);
        four_store(own + HEAD_DIM / 2, q.b);
        four_store(own + HEAD_DIM, k.a);
        four_store(own + HEAD_DIM + HEAD_DIM / 2, k.b);
    }
    block_sync();
    for (u32 c = threadIdx.x; c < 2 * HEAD_DIM; c += ROPE_THREADS) {
        float sum = 0.0f;
        for (u32 s = 0; s < ROPE_SLOTS; s++)
            sum += shared[s * 2 * HEAD_DIM + c];
        partial[c] = sum;
    }
}

KERNEL_ENTRY(ROPE_THREADS, 5)
KERNEL(bf16 *dqkv, float *dgain, const bf16 *RESTRICT in, const float *RESTRICT rstd,
       const float *RESTRICT head_gain, const float *RESTRICT rope, void *scratch)
{
    SHARED_ARENA(arena);
    const u32 lane = threadIdx.x % ROPE_LANES(HEAD_DIM), works = lane < HEAD_DIM / 8;
    const u32 turned = HEADS + KV_HEADS, width = (turned + KV_HEADS) * HEAD_DIM;
    const float *k_gain = ROPE_HEAD_NORM ? head_gain + HEAD_DIM : head_gain;
    struct rope_pairs q_sum = rope_zero(), k_sum = rope_zero();
    (void)dgain;
    for (u32 row = blockIdx.x; row < (u32)(ROPE_M); row += gridDim.x) {
        struct rope_pairs angle = rope_zero();
        const bf16 *from = ROPE_HEAD_NORM ? in + (u64)row * width : in;
        const float *r = ROPE_HEAD_NORM ? rstd + (u64)row * turned : rstd;
        bf16 *d = dqkv + (u64)row * width;
        if (works)
            angle = rope_angles(rope, row % (u32)(ROPE_T), lane);
        CONCAT(KERNEL, _heads)
        (d, from, r, 0, ROPE_HEAD_NORM ? HEADS : turned, angle, head_gain, &q_sum);
        if (ROPE_HEAD_NORM)
            CONCAT(KERNEL, _heads)(d, from, r, HEADS, turned, angle, k_gain, &k_sum);
    }
    if (ROPE_HEAD_NORM) {
        float *partial = (float *)scratch + (u64)blockIdx.x * 2 * HEAD_DIM;
        CONCAT(KERNEL, _leave)(partial, (float *)(void *)arena, q_sum, k_sum);
    }
}

KERNEL_ENTRY(COLUMNS_THREADS, 1)
CONCAT(KERNEL, _2)
(bf16 *dqkv, float *dgain, const bf16 *in, const float *rstd, const float *head_gain,
 const float *rope, void *scratch)
{
    SHARED_ARENA(arena);
    (void)dqkv;
    (void)in;
    (void)rstd;
    (void)head_gain;
    (void)rope;
    if (ROPE_HEAD_NORM)
        add_columns(dgain, (const float *)scratch, ROPE_BACKWARD_BLOCKS((u32)(ROPE_M)),
                    2 * HEAD_DIM, (float *)(void *)arena);
}

#undef ROPE_BACKWARD_EACH
#undef KERNEL
#undef ROPE_M
#undef ROPE_T
#undef ROPE_HEAD_NORM
#undef NORM_EPS

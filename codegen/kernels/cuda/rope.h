/* rope.h - what the rotating kernels share: how a head lies on lanes, the rotation, the head's
 * norm.
 *
 * A lane holds four pairs of a head, elements 4 l .. 4 l + 3 and those HEAD_DIM / 2 further on; a
 * head takes ROPE_LANES lanes, of which the first HEAD_DIM / 8 have work. Four, not eight, because
 * half a head is a multiple of 4 elements only. HEAD_DIM is a number in every build. */
#ifndef ROPE_H
#define ROPE_H

#include "device.h"
#include "four.h"
#include "launch.h"

#define ROPE_SLOTS (ROPE_THREADS / ROPE_LANES(HEAD_DIM)) /* heads that a block has at once */

STATIC_ASSERT(HEAD_DIM % 8 == 0 && HEAD_DIM <= 256, "a head is at most 32 lanes of 8 elements");

/* One lane's part of a head. */
struct rope_pairs {
    float a[4], b[4];
};

DEVICE struct rope_pairs rope_zero(void)
{
    struct rope_pairs p;
    UNROLL
    for (u32 i = 0; i < 4; i++)
        p.a[i] = p.b[i] = 0.0f;
    return p;
}

/* From, or to, the head that starts at `head`. */
DEVICE struct rope_pairs rope_load(const bf16 *head, u32 lane)
{
    struct rope_pairs p;
    four_load_bf16(p.a, head + lane * 4);
    four_load_bf16(p.b, head + HEAD_DIM / 2 + lane * 4);
    return p;
}

DEVICE struct rope_pairs rope_load_f32(const float *head, u32 lane)
{
    struct rope_pairs p;
    four_load(p.a, head + lane * 4);
    four_load(p.b, head + HEAD_DIM / 2 + lane * 4);
    return p;
}

DEVICE void rope_store(bf16 *head, u32 lane, struct rope_pairs p)
{
    four_store_bf16(head + lane * 4, p.a);
    four_store_bf16(head + HEAD_DIM / 2 + lane * 4, p.b);
}

/* a: cosines, b: sines of a position's four angles; rope[position][E/2] = {cos, sin}. */
DEVICE struct rope_pairs rope_angles(const float *rope, u32 position, u32 lane)
{
    const float *from = rope + (u64)position * HEAD_DIM + lane * 8;
    float v[8];
    struct rope_pairs p;
    four_load(v, from);
    four_load(v + 4, from + 4);
    UNROLL
    for (u32 i = 0; i < 4; i++) {
        p.a[i] = v[2 * i];
        p.b[i] = v[2 * i + 1];
    }
    return p;
}

DEVICE struct rope_pairs rope_turn(struct rope_pairs x, struct rope_pairs angle)
{
    struct rope_pairs y;
    UNROLL
    for (u32 i = 0; i < 4; i++) {
        y.a[i] = x.a[i] * angle.a[i] - x.b[i] * angle.b[i];
        y.b[i] = x.b[i] * angle.a[i] + x.a[i] * angle.b[i];
    }
    return y;
}

/* By the opposite angle. */
DEVICE struct rope_pairs rope_turn_back(struct rope_pairs y, struct rope_pairs angle)
{
    UNROLL
    for (u32 i = 0; i < 4; i++)
        angle.b[i] = -angle.b[i];
    return rope_turn(y, angle);
}

/* Sum of x y over the head, in all of its lanes; lanes without work hold zeros. Whole warps call.
 */
DEVICE float rope_dot(struct rope_pairs x, struct rope_pairs y)
{
    float sum = 0.0f;
    UNROLL
    for (u32 i = 0; i < 4; i++)
        sum = f32_fma(x.a[i], y.a[i], f32_fma(x.b[i], y.b[i], sum));
    return warp_sum(sum, ROPE_LANES(HEAD_DIM));
}

/* x r gain, r = 1 / rms(x) over the head. Whole warps call. */
DEVICE struct rope_pairs rope_norm(struct rope_pairs x, struct rope_pairs gain, float eps, float *r)
{
    *r = fast_rsqrt(rope_dot(x, x) * (1.0f / (float)HEAD_DIM) + eps);
    UNROLL
    for (u32 i = 0; i < 4; i++) {
        x.a[i] *= *r * gain.a[i];
        x.b[i] *= *r * gain.b[i];
    }
    return x;
}

#endif

/* rope.cu - out[m] = q and k heads of in[m] = [dq q][dkv k][dkv v] rotated by position m % T,
 * behind a norm of each head where ROPE_HEAD_NORM (rstd[m][H + K] kept for backward); v copied.
 *
 * KERNEL           the function's name
 * ROPE_M           rows; ROPE_T of a sequence
 * ROPE_HEAD_NORM   0 or 1; NORM_EPS
 * HEADS, KV_HEADS, HEAD_DIM (a number)
 *
 * Floor: 4 M QKV bytes, half of them read (in place 4 M (dq + dkv)). A block a row: its angles stay
 * in registers for all heads, which go through the block ROPE_SLOTS at a time. out may be in. */
#include "device.h"
#include "launch.h"
#include "archrt_cuda.h"
#include "rope.h"

KERNEL_ENTRY(ROPE_THREADS, 12)
KERNEL(bf16 *out, float *rstd, const bf16 *in, const float *RESTRICT head_gain,
       const float *RESTRICT rope)
{
    const u32 row = blockIdx.x, lane = threadIdx.x % ROPE_LANES(HEAD_DIM),
              slot = threadIdx.x / ROPE_LANES(HEAD_DIM);
    const u32 turned = HEADS + KV_HEADS, width = (turned + KV_HEADS) * HEAD_DIM;
    const u32 works = lane < HEAD_DIM / 8;
    const bf16 *from = in + (u64)row * width;
    bf16 *to = out + (u64)row * width;
    struct rope_pairs angle = rope_zero();
    if (works)
        angle = rope_angles(rope, row % (u32)(ROPE_T), lane);
    for (u32 first = 0; first < turned; first += ROPE_SLOTS) {
        const u32 head = first + slot, live = works && head < turned;
        struct rope_pairs x = rope_zero();
        if (live)
            x = rope_load(from + head * HEAD_DIM, lane);
        if (ROPE_HEAD_NORM) {
            struct rope_pairs gain = rope_zero();
            float r;
            if (works)
                gain = rope_load_f32(head_gain + (head < HEADS ? 0 : HEAD_DIM), lane);
            x = rope_norm(x, gain, (float)(NORM_EPS), &r);
            if (live && lane == 0)
                rstd[(u64)row * turned + head] = r;
        }
        if (live)
            rope_store(to + head * HEAD_DIM, lane, rope_turn(x, angle));
    }
    if (out != in)
        for (u32 v = turned * HEAD_DIM / 8 + threadIdx.x; v < width / 8; v += ROPE_THREADS)
            ((u32x4 *)(void *)to)[v] = ((const u32x4 *)(const void *)from)[v];
}

#undef KERNEL
#undef ROPE_M
#undef ROPE_T
#undef ROPE_HEAD_NORM
#undef NORM_EPS

/* four.h - four elements of a row at a time: 16 bytes of fp32, 8 of bf16. Kernels that mix both
 * types give each lane four columns, so that a warp's access is one contiguous piece of either. */
#ifndef FOUR_H
#define FOUR_H

#include "device.h"

DEVICE void four_split(float out[4], f32x4 v)
{
    out[0] = v.x;
    out[1] = v.y;
    out[2] = v.z;
    out[3] = v.w;
}

DEVICE f32x4 four_join(const float in[4])
{
    f32x4 v;
    v.x = in[0];
    v.y = in[1];
    v.z = in[2];
    v.w = in[3];
    return v;
}

DEVICE void four_load(float out[4], const float *p)
{
    four_split(out, *(const f32x4 *)(const void *)p);
}

DEVICE void four_store(float *p, const float in[4])
{
    *(f32x4 *)(void *)p = four_join(in);
}

DEVICE void four_unpack(float out[4], u32x2 v)
{
    out[0] = bf16_low(v.x);
    out[1] = bf16_high(v.x);
    out[2] = bf16_low(v.y);
    out[3] = bf16_high(v.y);
}

DEVICE u32x2 four_pack(const float in[4])
{
    u32x2 v;
    v.x = bf16_pack(in[0], in[1]);
    v.y = bf16_pack(in[2], in[3]);
    return v;
}

DEVICE void four_load_bf16(float out[4], const bf16 *p)
{
    four_unpack(out, *(const u32x2 *)(const void *)p);
}

DEVICE void four_store_bf16(bf16 *p, const float in[4])
{
    *(u32x2 *)(void *)p = four_pack(in);
}

#endif

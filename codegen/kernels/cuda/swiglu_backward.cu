/* swiglu_backward.cu - from dh[m][F] and gate_up[m] = [F gate g][F up u], with s = 1 / (1 + e^-g):
 * dgate_up = [dh u s (1 + g (1 - s))][dh g s], and h = g s u made again (the weight gradient of the
 * product behind wants it, and forward need not keep it).
 *
 * KERNEL     the function's name
 * SWIGLU_M   rows, SWIGLU_F columns (a multiple of 8)
 *
 * Floor: 12 M F bytes, half of them read. Cut as swiglu.cu is. dgate_up may be gate_up and h may be
 * dh: a thread reads all that it will overwrite, and nobody else does. */
#include "device.h"
#include "launch.h"
#include "archrt_cuda.h"

/* Eight columns: their gate becomes dgate, up becomes dup, dh becomes h. */
DEVICE void CONCAT(KERNEL, _eight)(u32x4 *gates, u32x4 *ups, u32x4 *downs)
{
    float gate[8], up[8], down[8];
    bf16_unpack8(gate, *gates);
    bf16_unpack8(up, *ups);
    bf16_unpack8(down, *downs);
    UNROLL
    for (u32 i = 0; i < 8; i++) {
        const float s = sigmoid_f32(gate[i]), silu = gate[i] * s, d = down[i];
        down[i] = silu * up[i];
        gate[i] = d * up[i] * f32_fma(silu, 1.0f - s, s);
        up[i] = d * silu;
    }
    *gates = bf16_pack8(gate);
    *ups = bf16_pack8(up);
    *downs = bf16_pack8(down);
}

KERNEL_ENTRY(SWIGLU_THREADS, 4)
KERNEL(bf16 *dgate_up, bf16 *h, const bf16 *dh, const bf16 *gate_up)
{
    const u32 width = (u32)(SWIGLU_F) / 8, end = (u32)(SWIGLU_M)*width;
    const u32 first = blockIdx.x * SWIGLU_BLOCK + threadIdx.x;
    const u32x4 *in = (const u32x4 *)(const void *)gate_up, *d = (const u32x4 *)(const void *)dh;
    u32x4 *out = (u32x4 *)(void *)dgate_up, *again = (u32x4 *)(void *)h;
    u32x4 gate[SWIGLU_EACH], up[SWIGLU_EACH], down[SWIGLU_EACH];
    u64 at[SWIGLU_EACH];
    UNROLL
    for (u32 j = 0; j < SWIGLU_EACH; j++) {
        const u32 v = first + j * SWIGLU_THREADS;
        at[j] = (u64)(v / width) * width + v;
        if (v < end) {
            gate[j] = in[at[j]];
            up[j] = in[at[j] + width];
            down[j] = d[v];
        }
    }
    UNROLL
    for (u32 j = 0; j < SWIGLU_EACH; j++) {
        const u32 v = first + j * SWIGLU_THREADS;
        if (v < end) {
            CONCAT(KERNEL, _eight)(&gate[j], &up[j], &down[j]);
            out[at[j]] = gate[j];
            out[at[j] + width] = up[j];
            again[v] = down[j];
        }
    }
}

#undef KERNEL
#undef SWIGLU_M
#undef SWIGLU_F

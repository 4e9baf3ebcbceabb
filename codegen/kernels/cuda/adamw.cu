/* adamw.cu - one AdamW step (Loshchilov and Hutter, arXiv:1711.05101): with g = grad factor,
 * m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2,
 * p -= lr (m / correction1 / (sqrt(v / correction2) + eps) + decay p). The first ADAM_DECAYED
 * parameters, the matrices, are decayed, and their bf16 copies go to weights. Gradients that
 * kernels only add to become 0: those behind the matrices, and those of the first ADAM_TABLE
 * parameters. Others are left, for the next step's first product to overwrite. Where factor is 0
 * only the gradients change.
 *
 * KERNEL         the function's name
 * ADAM_N         floats, ADAM_DECAYED of them decayed
 * ADAM_TABLE     floats of an embedding that is no head, at the front; all multiples of 4
 *
 * Floor: 30 N bytes, 16 of them read. A thread has one vector of four parameters, four loads of 16
 * bytes under way. Zeros are stored last and whole: a store that needs nothing of what was loaded
 * would otherwise leave before the loads are back, and meet them in the L2. */
#include "device.h"
#include "launch.h"
#include "archrt_cuda.h"
#include "four.h"

/* What is the same for all parameters. */
struct CONCAT(KERNEL, _step) {
    float factor, beta1, beta2, rate1, rate2, lr, eps, decay;
};

DEVICE struct CONCAT(KERNEL, _step) CONCAT(KERNEL, _of)(const struct cuda_train *RESTRICT train)
{
    struct CONCAT(KERNEL, _step) s;
    s.factor = train->factor;
    s.beta1 = train->beta1;
    s.beta2 = train->beta2;
    s.rate1 = f32_divide(1.0f, train->correction1);
    s.rate2 = f32_divide(1.0f, train->correction2);
    s.lr = train->lr;
    s.eps = train->eps;
    s.decay = train->weight_decay;
    return s;
}

DEVICE void CONCAT(KERNEL, _four)(struct CONCAT(KERNEL, _step) s, float decay, float p[4],
                                  float m[4], float v[4], const float grad[4])
{
    UNROLL
    for (u32 i = 0; i < 4; i++) {
        const float g = grad[i] * s.factor;
        m[i] = f32_fma(m[i], s.beta1, g * (1.0f - s.beta1));
        v[i] = f32_fma(v[i], s.beta2, g * g * (1.0f - s.beta2));
        const float u = v[i] * s.rate2, root = u * fast_rsqrt(f32_max(u, 1e-37f)) + s.eps;
        p[i] -= s.lr * f32_fma(p[i], decay, m[i] * s.rate1 * fast_reciprocal(root));
    }
}

KERNEL_ENTRY(ADAM_THREADS, 4)
KERNEL(float *params, bf16 *weights, float *grads, float *m, float *v,
       const struct cuda_train *RESTRICT train)
{
    const u64 i = (u64)blockIdx.x * ADAM_THREADS + threadIdx.x;
    const u64 vectors = (u64)(ADAM_N) / 4, decayed = (u64)(ADAM_DECAYED) / 4;
    const u64 table = (u64)(ADAM_TABLE) / 4;
    const u32x4 zero = {0, 0, 0, 0};
    float p4[4], m4[4], v4[4], g4[4];
    if (i >= vectors)
        return;
    four_load(p4, params + i * 4);
    four_load(m4, m + i * 4);
    four_load(v4, v + i * 4);
    four_load(g4, grads + i * 4);
    const struct CONCAT(KERNEL, _step) s = CONCAT(KERNEL, _of)(train);
    if (s.factor != 0.0f) {
        CONCAT(KERNEL, _four)(s, i < decayed ? s.decay : 0.0f, p4, m4, v4, g4);
        if (i < decayed)
            four_store_bf16(weights + i * 4, p4);
        four_store(params + i * 4, p4);
        four_store(m + i * 4, m4);
        four_store(v + i * 4, v4);
    }
    if (i < table || i >= decayed)
        store_u32x4(grads + i * 4, zero);
}

#undef KERNEL
#undef ADAM_N
#undef ADAM_DECAYED
#undef ADAM_TABLE

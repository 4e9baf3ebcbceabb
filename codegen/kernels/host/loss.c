/* loss.c - loss[m] = -log softmax(logits[m])[target], 0 where target < 0; where scale != 0 the row
 * becomes its gradient, (softmax - onehot) scale, or 0 where target < 0.
 *
 * KERNEL   the function's name
 * LOSS_M   most rows, LOSS_V columns
 *
 * Rows are split by share(m, ROW_GRANULE). */
#include "kernel.h"

static ALWAYS_INLINE float CONCAT(KERNEL, _top)(const float *x)
{
    vf top[4];
    int j = 0;
    float most = x[0];
    UNROLL
    for (int v = 0; v < 4; v++)
        top[v] = vf_set(x[0]);
    for (; j + 4 * VL <= LOSS_V; j += 4 * VL) {
        UNROLL
        for (int v = 0; v < 4; v++)
            top[v] = vf_max(vf_load(x + j + v * VL), top[v]);
    }
    for (; j < LOSS_V; j++)
        most = x[j] > most ? x[j] : most;
    float rest = vf_top(vf_max(vf_max(top[0], top[1]), vf_max(top[2], top[3])));
    return rest > most ? rest : most;
}

/* Sum of e^(x - top); `keep`: the terms take the place of x. */
static ALWAYS_INLINE float CONCAT(KERNEL, _terms)(float *x, float top, bool keep)
{
    vf sum[2] = {{0}};
    float rest = 0;
    int j = 0;
    for (; j + 2 * VL <= LOSS_V; j += 2 * VL) {
        UNROLL
        for (int v = 0; v < 2; v++) {
            vf e = vf_exp(vf_load(x + j + v * VL) - top);
            sum[v] += e;
            if (keep)
                vf_store(x + j + v * VL, e);
        }
    }
    for (; j < LOSS_V; j += VL) {
        int n = LOSS_V - j < VL ? LOSS_V - j : VL;
        vf e = vf_exp(vf_load_part(x + j, n) - top);
        for (int i = 0; i < n; i++)
            rest += e[i];
        if (keep)
            vf_store_part(x + j, e, n);
    }
    return rest + vf_sum(sum[0] + sum[1]);
}

static ALWAYS_INLINE float CONCAT(KERNEL, _row)(float *x, int target, float scale)
{
    if (target < 0) {
        if (scale != 0)
            memset(x, 0, sizeof(float) * LOSS_V);
        return 0;
    }
    float top = CONCAT(KERNEL, _top)(x), chosen = x[target];
    float sum =
        scale != 0 ? CONCAT(KERNEL, _terms)(x, top, true) : CONCAT(KERNEL, _terms)(x, top, false);
    if (scale != 0) {
        float factor = scale / sum;
        int j = 0;
        for (; j + VL <= LOSS_V; j += VL)
            vf_store(x + j, vf_load(x + j) * factor);
        for (; j < LOSS_V; j++)
            x[j] *= factor;
        x[target] -= scale;
    }
    return logf(sum) + (top - chosen);
}

loss_fn KERNEL;
void KERNEL(float *loss, float *logits, const int32_t *target, float scale, int m, int tid)
{
    struct range own = share(m, ROW_GRANULE, tid);
    for (int i = own.begin; i < own.end; i++)
        loss[i] = CONCAT(KERNEL, _row)(logits + (ptrdiff_t)i * LOSS_V, target[i], scale);
}

#undef KERNEL
#undef LOSS_M
#undef LOSS_V

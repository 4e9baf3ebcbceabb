/* adamw.c - one AdamW step (Loshchilov and Hutter, arXiv:1711.05101): with g = grad grad_scale,
 * m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2,
 * p -= lr (m / correction1 / (sqrt(v / correction2) + eps) + decay p); grads become 0.
 *
 * KERNEL         the function's name
 * ADAM_N         floats of the parameter slab
 * ADAM_DECAYED   the first so many are decayed, the rest are not
 *
 * Floats are split between threads in pieces of 1024. */
#include "archrt.h"
#include "kernel.h"

static ALWAYS_INLINE void CONCAT(KERNEL, _lanes)(const struct archrt_adamw *s, float decay, vf *p,
                                                 vf *m, vf *v, vf g)
{
    g = g * s->grad_scale;
    *m = *m * s->beta1 + g * (1.0f - s->beta1);
    *v = *v * s->beta2 + g * g * (1.0f - s->beta2);
    vf root = vf_sqrt(*v * (1.0f / s->correction2)) + s->eps;
    *p -= s->lr * (*m * (1.0f / s->correction1) / root + *p * decay);
}

static NOINLINE void CONCAT(KERNEL, _range)(const struct archrt_adamw *step, int64_t begin,
                                            int64_t end, float decay)
{
    const struct archrt_adamw s = *step;
    int64_t i = begin;
    for (; i + VL <= end; i += VL) {
        vf p = vf_load(s.params + i), m = vf_load(s.m + i), v = vf_load(s.v + i);
        CONCAT(KERNEL, _lanes)(&s, decay, &p, &m, &v, vf_load(s.grads + i));
        vf_store(s.params + i, p);
        vf_store(s.m + i, m);
        vf_store(s.v + i, v);
        vf_store(s.grads + i, (vf){0});
    }
    if (i < end) {
        int n = (int)(end - i);
        vf p = vf_load_part(s.params + i, n), m = vf_load_part(s.m + i, n);
        vf v = vf_load_part(s.v + i, n);
        CONCAT(KERNEL, _lanes)(&s, decay, &p, &m, &v, vf_load_part(s.grads + i, n));
        vf_store_part(s.params + i, p, n);
        vf_store_part(s.m + i, m, n);
        vf_store_part(s.v + i, v, n);
        vf_store_part(s.grads + i, (vf){0}, n);
    }
}

adamw_fn KERNEL;
void KERNEL(const struct archrt_adamw *step, int tid)
{
    enum { PIECE = 1024 };
    const int64_t n = ADAM_N, decayed = ADAM_DECAYED;
    struct range own = share((int)((n + PIECE - 1) / PIECE), 1, tid);
    int64_t begin = (int64_t)own.begin * PIECE, end = (int64_t)own.end * PIECE;
    if (end > n)
        end = n;
    int64_t middle = decayed < begin ? begin : decayed > end ? end : decayed;
    CONCAT(KERNEL, _range)(step, begin, middle, step->weight_decay);
    CONCAT(KERNEL, _range)(step, middle, end, 0);
}

#undef KERNEL
#undef ADAM_N
#undef ADAM_DECAYED

/* train_instance.c - one set of training kernels, the table INSTANCE. Without SET the shapes are
 * run-time variables, the generic build; else they are one of the lists of constants below. */
#include "train_kernels.h"

#ifndef SET
#define S(field) train_shape.field
#else
#define S(field) S_##field
#endif
#define NAME(kernel) CONCAT(INSTANCE, _##kernel)
#define THREADS S(threads)
#define ROW_GRANULE S(granule)

#ifdef SET
enum {
#if SET == 1 /* the 9M model, shortened; whole sequences to each of two threads */
    S_b = 4,
    S_t = 64,
    S_h = 5,
    S_k = 1,
    S_e = 64,
    S_d = 320,
    S_f = 864,
    S_v = 515,
    S_out = 448,
    S_in = 320,
    S_n = 5003,
    S_decayed = 3001,
    S_threads = 2,
    S_granule = 64
#elif SET == 2 /* nothing fits anything */
    S_b = 3,
    S_t = 19,
    S_h = 6,
    S_k = 2,
    S_e = 40,
    S_d = 77,
    S_f = 45,
    S_v = 131,
    S_out = 99,
    S_in = 77,
    S_n = 130,
    S_decayed = 130,
    S_threads = 3,
    S_granule = 1
#else          /* more depth than a block, rows a power of two apart, more than one block of keys */
    S_b = 1,
    S_t = 300,
    S_h = 4,
    S_k = 4,
    S_e = 80,
    S_d = 1024,
    S_f = 96,
    S_v = 1000,
    S_out = 97,
    S_in = 1024,
    S_n = 4096,
    S_decayed = 0,
    S_threads = 1,
    S_granule = 1
#endif
};
#endif

#include "kernel.h"

embed_fn NAME(embed);
embed_backward_fn NAME(embed_backward);
norm_fn NAME(norm);
matmul_fn NAME(matmul_plain), NAME(matmul_bias), NAME(matmul_residual), NAME(matmul_both);
matmul_dx_fn NAME(dx_plain), NAME(dx_more);
matmul_dw_fn NAME(dw_plain), NAME(dw_bias);
rope_fn NAME(rope), NAME(turned);
rope_backward_fn NAME(rope_backward), NAME(turned_backward);
attention_fn NAME(attention);
attention_backward_fn NAME(attention_backward);
swiglu_fn NAME(swiglu);
swiglu_backward_fn NAME(swiglu_backward);
loss_fn NAME(loss);
sum_squares_fn NAME(sum_squares);
adamw_fn NAME(adamw);
norm_backward_fn NAME(norm_first), NAME(norm_more);

#define KERNEL NAME(embed)
#define EMBED_M (S(b) * S(t))
#define EMBED_D S(d)
#include "embed.c"

#define KERNEL NAME(embed_backward)
#define EMBED_M (S(b) * S(t))
#define EMBED_D S(d)
#include "embed_backward.c"

#define KERNEL NAME(norm)
#define NORM_M (S(b) * S(t))
#define NORM_D S(d)
#define NORM_EPS TEST_EPS
#include "norm.c"

#define KERNEL NAME(norm_first)
#define NORM_M (S(b) * S(t))
#define NORM_D S(d)
#define NORM_EPS TEST_EPS
#define NORM_ACCUMULATE 0
#include "norm_backward.c"

#define KERNEL NAME(norm_more)
#define NORM_M (S(b) * S(t))
#define NORM_D S(d)
#define NORM_EPS TEST_EPS
#define NORM_ACCUMULATE 1
#include "norm_backward.c"

#define KERNEL NAME(matmul_plain)
#define MM_M (S(b) * S(t))
#define MM_N S(out)
#define MM_K S(in)
#define MM_BIAS 0
#define MM_RESIDUAL 0
#define MM_ACCUMULATE 0
#include "matmul.c"

#define KERNEL NAME(matmul_bias)
#define MM_M (S(b) * S(t))
#define MM_N S(out)
#define MM_K S(in)
#define MM_BIAS 1
#define MM_RESIDUAL 0
#define MM_ACCUMULATE 0
#include "matmul.c"

#define KERNEL NAME(matmul_residual)
#define MM_M (S(b) * S(t))
#define MM_N S(out)
#define MM_K S(in)
#define MM_BIAS 0
#define MM_RESIDUAL 1
#define MM_ACCUMULATE 0
#include "matmul.c"

#define KERNEL NAME(matmul_both)
#define MM_M (S(b) * S(t))
#define MM_N S(out)
#define MM_K S(in)
#define MM_BIAS 1
#define MM_RESIDUAL 1
#define MM_ACCUMULATE 0
#include "matmul.c"

#define KERNEL NAME(dx_plain)
#define MM_M (S(b) * S(t))
#define MM_N S(out)
#define MM_K S(in)
#define MM_BIAS 0
#define MM_RESIDUAL 0
#define MM_ACCUMULATE 0
#include "matmul_dx.c"

#define KERNEL NAME(dx_more)
#define MM_M (S(b) * S(t))
#define MM_N S(out)
#define MM_K S(in)
#define MM_BIAS 0
#define MM_RESIDUAL 0
#define MM_ACCUMULATE 1
#include "matmul_dx.c"

#define KERNEL NAME(dw_plain)
#define MM_M (S(b) * S(t))
#define MM_N S(out)
#define MM_K S(in)
#define MM_BIAS 0
#define MM_RESIDUAL 0
#define MM_ACCUMULATE 0
#include "matmul_dw.c"

#define KERNEL NAME(dw_bias)
#define MM_M (S(b) * S(t))
#define MM_N S(out)
#define MM_K S(in)
#define MM_BIAS 1
#define MM_RESIDUAL 0
#define MM_ACCUMULATE 0
#include "matmul_dw.c"

#define KERNEL NAME(rope)
#define ROPE_M (S(b) * S(t))
#define ROPE_T S(t)
#define ROPE_H S(h)
#define ROPE_K S(k)
#define ROPE_E S(e)
#define HEAD_NORM 0
#define NORM_EPS TEST_EPS
#include "rope.c"

#define KERNEL NAME(turned)
#define ROPE_M (S(b) * S(t))
#define ROPE_T S(t)
#define ROPE_H S(h)
#define ROPE_K S(k)
#define ROPE_E S(e)
#define HEAD_NORM 1
#define NORM_EPS TEST_EPS
#include "rope.c"

#define KERNEL NAME(rope_backward)
#define ROPE_M (S(b) * S(t))
#define ROPE_T S(t)
#define ROPE_H S(h)
#define ROPE_K S(k)
#define ROPE_E S(e)
#define HEAD_NORM 0
#define NORM_EPS TEST_EPS
#include "rope_backward.c"

#define KERNEL NAME(turned_backward)
#define ROPE_M (S(b) * S(t))
#define ROPE_T S(t)
#define ROPE_H S(h)
#define ROPE_K S(k)
#define ROPE_E S(e)
#define HEAD_NORM 1
#define NORM_EPS TEST_EPS
#include "rope_backward.c"

#define KERNEL NAME(attention)
#define ATT_B S(b)
#define ATT_T S(t)
#define ATT_H S(h)
#define ATT_K S(k)
#define ATT_E S(e)
#include "attention.c"

#define KERNEL NAME(attention_backward)
#define ATT_B S(b)
#define ATT_T S(t)
#define ATT_H S(h)
#define ATT_K S(k)
#define ATT_E S(e)
#include "attention_backward.c"

#define KERNEL NAME(swiglu)
#define SWIGLU_M (S(b) * S(t))
#define SWIGLU_F S(f)
#include "swiglu.c"

#define KERNEL NAME(swiglu_backward)
#define SWIGLU_M (S(b) * S(t))
#define SWIGLU_F S(f)
#include "swiglu_backward.c"

#define KERNEL NAME(loss)
#define LOSS_M (S(b) * S(t))
#define LOSS_V S(v)
#include "loss.c"

#define KERNEL NAME(sum_squares)
#define SUM_N S(n)
#include "sum_squares.c"

#define KERNEL NAME(adamw)
#define ADAM_N S(n)
#define ADAM_DECAYED S(decayed)
#include "adamw.c"

static size_t matmul_scratch(void)
{
    return MATMUL_SCRATCH_FLOATS;
}

static size_t attention_scratch(void)
{
    return THREADS * ATTENTION_SCRATCH_FLOATS(S(t), S(e));
}

#define STRING_(x) #x
#define STRING(x) STRING_(x)

const struct train_kernels INSTANCE;
const struct train_kernels INSTANCE = {
    STRING(INSTANCE),
#ifdef SET
    {S_b, S_t, S_h, S_k, S_e, S_d, S_f, S_v, S_out, S_in, S_n, S_decayed, S_threads, S_granule},
#else
    {0},
#endif
    NAME(embed),
    NAME(embed_backward),
    NAME(norm),
    {NAME(norm_first), NAME(norm_more)},
    {NAME(matmul_plain), NAME(matmul_bias), NAME(matmul_residual), NAME(matmul_both)},
    {NAME(dx_plain), NAME(dx_more)},
    {NAME(dw_plain), NAME(dw_bias)},
    {NAME(rope), NAME(turned)},
    {NAME(rope_backward), NAME(turned_backward)},
    NAME(attention),
    NAME(attention_backward),
    NAME(swiglu),
    NAME(swiglu_backward),
    NAME(loss),
    NAME(sum_squares),
    NAME(adamw),
    matmul_scratch,
    attention_scratch,
};

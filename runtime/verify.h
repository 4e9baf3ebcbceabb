/* verify.h - one call of one kernel with made-up inputs, judged against the plain reference. verify
 * runs such trials for correctness, bench runs them again for time. */
#ifndef VERIFY_H
#define VERIFY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "archrt.h"
#include "archrt_kernels.h"
#include "runtime.h"
#include "sample.h"

enum buffer_role {
    ROLE_INPUT,  /* must not change */
    ROLE_OUTPUT, /* filled with NaN before the call; none may be left */
    ROLE_INOUT,  /* added to, or transformed in place */
    ROLE_SCRATCH
};

/* Memory of one operand with guard zones before and behind. */
struct operand {
    void *at;
    size_t bytes, mapped;
    char *map;
    enum buffer_role role;
    bool floats;    /* of fp32: poison is looked for */
    uint64_t sum;   /* ROLE_INPUT: of its contents before the call */
    void *pristine; /* ROLE_INOUT: a copy from before the call */
};

enum { MAX_OPERANDS = 14 };

enum plant { PLANT_NONE, PLANT_VALUE, PLANT_GUARD, PLANT_INPUT, PLANT_POISON };

struct trial {
    const struct archrt_model *model;
    const struct archrt_kernel *kernel;
    const struct kind *kind;
    int m;         /* rows of this call */
    int past;      /* tokens cached in front of them */
    int variant;   /* 1: the other way the prototype allows: in place, or without gradients */
    double budget; /* of reference FLOPs, roughly; what is beyond is sampled */
    struct pcg32 random;
    enum plant plant;
    int64_t spoil; /* element of y that a planted fault falls on; 0: the last one */

    /* The operands a kind uses, by the names in archrt_kernels.h. */
    struct operand operands[MAX_OPERANDS];
    int n_operands;
    float *x, *w, *bias, *residual, *gain, *rope, *dy, *rstd, *lse, *qkv, *gate_up, *scratch;
    float *y, *y2; /* what the kernel writes: the main output and the lesser one */
    void *packed, *cache;
    float *rounded; /* w as the packed type holds it, [n][k] */
    double *turned; /* qkv of all cached and current tokens after head norm and rotation */
    int32_t *token;
    struct archrt_adamw step;
    double sums[256]; /* what each thread returned */

    /* The judgement. */
    int64_t checked; /* elements compared one by one with the reference */
    double depth;    /* terms that an element sums up: errors may grow with its root */
    double max_abs, max_rel, limit;
    double rounding; /* what the limit allows beside the tolerance of fp32 sums */
    char fault[160]; /* what is wrong beside tolerance, or empty */
};

/* The kernel as the function it is, and its switches. */
#define FUNCTION(type, t) ((type *)(t)->kernel->function)
#define FLAG(t, flag) (((t)->kernel->flags & (flag)) != 0)

static inline size_t area(int64_t rows, int64_t columns)
{
    return (size_t)rows * (size_t)columns;
}

/* Widths of a row of qkv. */
struct heads {
    int H, K, E, dq, dkv, width;
};

static inline struct heads heads_of(const struct trial *t)
{
    const struct archrt_arch *a = &t->model->arch;
    int E = a->head_dim, dq = a->heads * E, dkv = a->kv_heads * E;
    return (struct heads){a->heads, a->kv_heads, E, dq, dkv, dq + 2 * dkv};
}

/* How one kind of kernel is tried. */
struct kind {
    const char *name;
    /* Bound of |got - want| / magnitude for one term; times sqrt(depth) for a trial. */
    double tolerance;
    bool (*prepare)(struct trial *t, struct failure *f); /* allocates and fills the operands */
    void (*call)(struct trial *t, int tid);
    void (*check)(struct trial *t);
    bool free_rows; /* takes any m up to the kernel's, except in training */
    bool cached;    /* works at any `past` */
    int variants;
};
extern const struct kind kinds[ARCHRT_KERNEL_KINDS];

/* The kinds' functions, named by the rows of the table in trial.c. verify_train.c, verify_infer.c
 */
#define DECLARE_KIND(name)                                                                         \
    bool name##_prepare(struct trial *t, struct failure *f);                                       \
    void name##_call(struct trial *t, int tid);                                                    \
    void name##_check(struct trial *t);
DECLARE_KIND(embed)
DECLARE_KIND(embed_backward)
DECLARE_KIND(norm)
DECLARE_KIND(norm_backward)
DECLARE_KIND(matmul)
DECLARE_KIND(matmul_dx)
DECLARE_KIND(matmul_dw)
DECLARE_KIND(rope)
DECLARE_KIND(rope_backward)
DECLARE_KIND(attention)
DECLARE_KIND(attention_backward)
DECLARE_KIND(swiglu)
DECLARE_KIND(swiglu_backward)
DECLARE_KIND(loss)
DECLARE_KIND(sum_squares)
DECLARE_KIND(adamw)
DECLARE_KIND(embed_row)
DECLARE_KIND(prefill_matmul)
DECLARE_KIND(prefill_rope)
DECLARE_KIND(prefill_attention)
DECLARE_KIND(matvec)
DECLARE_KIND(decode_attention)
#undef DECLARE_KIND

/* What loss_check takes as the gradient of one target. */
#define VERIFY_LOSS_SCALE 0.37f

/* ---- trial.c -----------------------------------------------------------------------------------
 */

/* Makes the inputs of a call of `kernel` with m rows behind `past` tokens; the team must be idle.
 * trial_close in any case. A kernel that cannot be called by itself (packed weights without a pack
 * function) gives false with f->status STATUS_OK and the reason. */
bool trial_open(struct trial *t, const struct archrt_model *model,
                const struct archrt_kernel *kernel, int m, int past, int variant, uint64_t seed,
                struct failure *f);
/* The same with other functions than those of the kernel's kind. */
bool trial_open_as(struct trial *t, const struct archrt_model *model,
                   const struct archrt_kernel *kernel, const struct kind *kind, int m, int past,
                   int variant, uint64_t seed, struct failure *f);
void trial_close(struct trial *t);
/* Calls the kernel once on the team. */
void trial_run(struct trial *t);
/* Operands that a call changes back to what they were, for another call. */
void trial_reset(struct trial *t);
/* Judges what the first call left; false: t->fault or the error says why. */
bool trial_judge(struct trial *t);

/* For the kinds. Memory as described at enum buffer_role; floats are filled with uniform numbers of
 * variance 1 where not ROLE_OUTPUT or ROLE_SCRATCH. */
bool trial_floats(struct trial *t, float **out, size_t n, enum buffer_role role, struct failure *f);
bool trial_bytes(struct trial *t, void **out, size_t bytes, enum buffer_role role,
                 struct failure *f);
bool trial_tokens(struct trial *t, int n, int vocab, struct failure *f);
bool trial_rope(struct trial *t, struct failure *f);
bool trial_scratch(struct trial *t, struct failure *f);
const float *trial_pristine(const struct trial *t, const void *at);
void trial_zero(struct trial *t, const void *at); /* of what a call adds to; sealed already */
void trial_seal(struct trial *t); /* takes the sums and copies; after the inputs were filled */

/* One compared element: `magnitude` is the size of what was summed up to it. */
void judge(struct trial *t, double got, double want, double magnitude);
void trial_fault(struct trial *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* How many of n units of `cost` FLOPs the budget covers, at least 2; and the i-th of that many,
 * always with the first and the last. */
int64_t sample_count(const struct trial *t, int64_t n, double cost);
int64_t sample_at(struct trial *t, int64_t i, int64_t count, int64_t n);
/* a[i] in double, widened from fp32. The caller frees. */
double *widen(const float *a, size_t n);

/* out[M][N] against the sums over k of A[i][k] B[k][j] + extra, where A[i][k] = a[i ai + k ak] and
 * B[k][j] = b[j bj + k bk]: a sample of elements one by one, and all of them through a random
 * projection of every row. extra: bias[j] and added[i][j], each may be NULL. */
struct product_check {
    int64_t M, N, K;
    const float *out;
    const float *a;
    int64_t ai, ak;
    const float *b;
    int64_t bj, bk;
    const float *bias, *added;
};
void check_product(struct trial *t, const struct product_check *c);

/* ---- verify_model.c: the whole model -----------------------------------------------------------
 */

struct model_row {
    const char *what;
    int64_t checked;
    double error, limit;
    bool passed;
    char note[200];
};
struct model_checks {
    const char *plant; /* name of a check whose result is to be spoilt, or NULL */
    uint64_t seed;
    double budget; /* of reference FLOPs a check */
    /* What is about to run, which names a kernel that never ends; then how it went. */
    void (*begin)(void *to, const char *what);
    void (*report)(void *to, const struct model_row *row);
    void *to;
};
/* Reports one row per check. False: memory or the like failed. */
bool verify_model(const struct archrt_model *m, const struct model_checks *c, struct failure *f);

/* Random parameters whose logits are far from flat: every gain, bias and matrix matters. */
void verify_params(const struct archrt_model *m, float *params, uint64_t seed);

/* All cases of one kernel, as verify runs them: rows, cached tokens, variants. */
struct kernel_verdict {
    bool passed, skipped;
    int cases;
    int64_t checked;
    double max_abs, max_rel, limit; /* of the case nearest to (or furthest beyond) its limit */
    char note[300];
};
/* Adds one case. */
void verdict_note(struct kernel_verdict *v, const struct trial *t, bool passed);
bool verify_kernel(const struct archrt_model *m, const struct archrt_kernel *k, uint64_t seed,
                   double budget, enum plant plant, struct kernel_verdict *out, struct failure *f);

/* ---- verify_device.c: every kernel of a device by itself ---------------------------------------
 *
 * A step's operands are filled where the program has them, the step runs, and what it leaves is
 * judged: by the plain references of the host's kernels where those compute the same, else by
 * verify_device_infer.c's and verify_device_head.c's. */

struct device;
struct device_checks {
    uint64_t seed;
    double budget;
    const char *plant; /* a kernel whose result is to be spoilt ("kernels": of all), or NULL */
    const char *only;  /* kernels whose names hold this text; NULL: all */
    void (*begin)(void *to, const struct archrt_kernel *k);
    void (*report)(void *to, const struct archrt_kernel *k, const struct kernel_verdict *v);
    void *to;
};
bool verify_device(struct device *d, const struct device_checks *c, struct failure *f);

/* verify_device_tiles.c: what kernels of decode hand on beside x. Before the call, made of the
 * trial's x, or poisoned where the kernel writes it; behind it, judged by the trial's y, or
 * unchanged. Nothing where the step has no such operands. */
struct session;
struct archrt_step;
struct device_handing {
    struct session *s;
    const struct archrt_step *step;
    int layer;
    struct trial *t;
};
bool device_tiles_put(const struct device_handing *a, struct failure *f);
bool device_tiles_check(const struct device_handing *a, struct failure *f);

enum device_element { DEVICE_NO_OPERAND, DEVICE_F32, DEVICE_BF16, DEVICE_INT };
/* Where a trial's operand goes: number `operand` of the kernel's parameters. */
struct device_operand {
    unsigned char operand, element;
    unsigned short field; /* of struct trial, bytes */
};
enum { DEVICE_MAPPED = 8 };
struct device_kind {
    const char *name;
    enum archrt_kernel_kind host; /* the kind whose functions these are where they are NULL */
    bool (*prepare)(struct trial *t, struct failure *f);
    void (*check)(struct trial *t);
    double rounding; /* to bf16, on the way and of the result, in units of 2^-8 of a magnitude */
    struct device_operand map[DEVICE_MAPPED];
};

/* Of the rows of a trial of inference: which slot's, which token of it. The page of a slot's token
 * in the pool, of `DEVICE_SLOT_PAGES` pages a slot. */
enum { DEVICE_SLOT_PAGES = 8 };
int device_slot(const struct trial *t, int row);
int device_position(const struct trial *t, int row);
int device_page(int slot, int n);

#define DECLARE_DEVICE_KIND(name)                                                                  \
    bool device_##name##_prepare(struct trial *t, struct failure *f);                              \
    void device_##name##_check(struct trial *t);
DECLARE_DEVICE_KIND(normed)
DECLARE_DEVICE_KIND(qkv)
DECLARE_DEVICE_KIND(attention)
DECLARE_DEVICE_KIND(rope)
DECLARE_DEVICE_KIND(sample)
DECLARE_DEVICE_KIND(head_loss)
DECLARE_DEVICE_KIND(head_softmax)
DECLARE_DEVICE_KIND(head_gradient)
#undef DECLARE_DEVICE_KIND

#endif

/* train_layer_test.c - one layer's training through the kernels, one behind the other as the
 * schedule launches them, against fp64 (train_layer_ref.h). A mistake that every kernel's own test
 * shares with its kernel, as in a layout, shows here. */
#define CUDA_SMS 3
#define CUDA_ARCH 90
#define CONTEXT 64
#define SEGMENTS 1
#define VOCAB 100
#define B 2
#define T 21
#define D_MODEL 72
#define HEADS 9
#define KV_HEADS 1
#define HEAD_DIM 40
#define D_FF 104

#include "train_layer_ref.h"

#define KERNEL layer_norm
#define NORM_M M
#define NORM_D D
#define NORM_EPS 1e-5f
#include "norm.cu"
#define KERNEL layer_qkv
#define MM_M M
#define MM_N QKV
#define MM_K D
#define MM_BIAS 1
#define MM_RESIDUAL 0
#define MM_SWIGLU 0
#define MM_OUT_F32 0
#include "matmul.cu"
#define KERNEL layer_rope
#define ROPE_M M
#define ROPE_T T
#define ROPE_HEAD_NORM 1
#define NORM_EPS 1e-5f
#include "rope.cu"
#define KERNEL layer_attention
#define ATT_B B
#define ATT_T T
#include "attention.cu"
#define KERNEL layer_o
#define MM_M M
#define MM_N D
#define MM_K DQ
#define MM_BIAS 0
#define MM_RESIDUAL 1
#define MM_SWIGLU 0
#define MM_OUT_F32 1
#include "matmul.cu"
#define KERNEL layer_gate_up
#define MM_M M
#define MM_N (2 * F)
#define MM_K D
#define MM_BIAS 0
#define MM_RESIDUAL 0
#define MM_SWIGLU 0
#define MM_OUT_F32 0
#include "matmul.cu"
#define KERNEL layer_swiglu
#define SWIGLU_M M
#define SWIGLU_F F
#include "swiglu.cu"
#define KERNEL layer_down
#define MM_M M
#define MM_N D
#define MM_K F
#define MM_BIAS 0
#define MM_RESIDUAL 1
#define MM_SWIGLU 0
#define MM_OUT_F32 1
#include "matmul.cu"

#define KERNEL layer_down_dx
#define MM_M M
#define MM_N D
#define MM_K F
#define MM_ACCUMULATE 0
#include "matmul_dx.cu"
#define KERNEL layer_down_dw
#define MM_M M
#define MM_N D
#define MM_K F
#define MM_BIAS 0
#include "matmul_dw.cu"
#define KERNEL layer_swiglu_backward
#define SWIGLU_M M
#define SWIGLU_F F
#include "swiglu_backward.cu"
#define KERNEL layer_gate_up_dx
#define MM_M M
#define MM_N (2 * F)
#define MM_K D
#define MM_ACCUMULATE 0
#include "matmul_dx.cu"
#define KERNEL layer_gate_up_dw
#define MM_M M
#define MM_N (2 * F)
#define MM_K D
#define MM_BIAS 0
#include "matmul_dw.cu"
#define KERNEL layer_norm_backward
#define NORM_M M
#define NORM_D D
#define NORM_EPS 1e-5f
#define NORM_ACCUMULATE 1
#define NORM_IN_PLACE 0
#define NORM_FACTOR 0
#include "norm_backward.cu"
#define KERNEL layer_o_dx
#define MM_M M
#define MM_N D
#define MM_K DQ
#define MM_ACCUMULATE 0
#include "matmul_dx.cu"
#define KERNEL layer_o_dw
#define MM_M M
#define MM_N D
#define MM_K DQ
#define MM_BIAS 0
#include "matmul_dw.cu"
#define KERNEL layer_attention_backward
#define ATT_B B
#define ATT_T T
#include "attention_backward.cu"
#define KERNEL layer_rope_backward
#define ROPE_M M
#define ROPE_T T
#define ROPE_HEAD_NORM 1
#define NORM_EPS 1e-5f
#include "rope_backward.cu"
#define KERNEL layer_qkv_dx
#define MM_M M
#define MM_N QKV
#define MM_K D
#define MM_ACCUMULATE 0
#include "matmul_dx.cu"
#define KERNEL layer_qkv_dw
#define MM_M M
#define MM_N QKV
#define MM_K D
#define MM_BIAS 1
#include "matmul_dw.cu"

/* Launches one pass: its kernel, its row of launch.h, its operands. */
#define RUN(name, kernel_launch, ...)                                                              \
    do {                                                                                           \
        const struct emu_launch run_ = {#name, (emu_kernel *)name, kernel_launch, false, NULL};    \
        EMU_RUN(&run_, __VA_ARGS__);                                                               \
    } while (0)
/* The same of a kind that has tensor maps: the kind, the kernel's m, n, k. */
#define RUN_MAPPED(kind, name, m, n, k, ...)                                                       \
    do {                                                                                           \
        const struct emu_launch run_ = {#name, (emu_kernel *)name, kind##_LAUNCH(m, n, k), false,  \
                                        NULL};                                                     \
        const struct cuda_maps maps_ = kind##_MAPS(m, n, k);                                       \
        void *operands_[] = {__VA_ARGS__};                                                         \
        test_maps(&maps_, operands_);                                                              \
        emu_run(&run_, operands_, sizeof operands_ / sizeof operands_[0]);                         \
    } while (0)

/* ---- the layer on the device ---- */

struct layer {
    void *p[P_COUNT]; /* matrices bf16, vectors and x fp32 */
    float *grad[P_COUNT];
    float *rope, *rstd1, *rstd2, *head_rstd, *lse, *x1, *x2;
    bf16 *norm1, *qkv, *rot, *att, *norm2, *gate_up, *h;
    float *dx;
    bf16 *dx16, *dh, *dgate_up, *dnorm, *datt, *dqkv;
    void *scratch;
};

HOST_CODE static bool is_matrix(int tensor)
{
    return tensor == P_QKV || tensor == P_O || tensor == P_GATE_UP || tensor == P_DOWN;
}

HOST_CODE static float *new_floats(const char *name, int n)
{
    return emu_alloc(name, sizeof(float) * (size_t)n);
}

HOST_CODE static bf16 *new_bf16s(const char *name, int n)
{
    return emu_alloc(name, sizeof(bf16) * (size_t)n);
}

HOST_CODE static void allocate(struct layer *l)
{
    l->rstd1 = new_floats("rstd1", M);
    l->rstd2 = new_floats("rstd2", M);
    l->head_rstd = new_floats("head_rstd", M * TURNED);
    l->lse = new_floats("lse", M * H);
    l->x1 = new_floats("x1", M * D);
    l->x2 = new_floats("x2", M * D);
    l->norm1 = new_bf16s("norm1", M * D);
    l->qkv = new_bf16s("qkv", M * QKV);
    l->rot = new_bf16s("rot", M * QKV);
    l->att = new_bf16s("att", M * DQ);
    l->norm2 = new_bf16s("norm2", M * D);
    l->gate_up = new_bf16s("gate_up", M * 2 * F);
    l->h = new_bf16s("h", M * F);
    l->dh = new_bf16s("dh", M * F);
    l->dgate_up = new_bf16s("dgate_up", M * 2 * F);
    l->dnorm = new_bf16s("dnorm", M * D);
    l->datt = new_bf16s("datt", M * DQ);
    l->dqkv = new_bf16s("dqkv", M * QKV);
    l->scratch = emu_alloc("scratch", 1 << 20);
}

/* Random values of both; those of the device that are bf16 are the reference's too. */
HOST_CODE static void fill(struct layer *l, struct layer_ref *r)
{
    for (int t = 0; t < P_COUNT; t++) {
        const int n = layer_tensors[t].floats, width = t == P_O ? DQ : t == P_DOWN ? F : D;
        const float scale = is_matrix(t) ? 1 / sqrtf((float)width) : t == P_BIAS ? 0.3f : 1;
        r->p[t] = malloc(sizeof(double) * (size_t)n);
        r->grad[t] = malloc(sizeof(double) * (size_t)n);
        l->grad[t] = new_floats(layer_tensors[t].name, n);
        emu_fill(l->grad[t], 0, sizeof(float) * (size_t)n);
        if (is_matrix(t))
            l->p[t] = test_bf16s(layer_tensors[t].name, (size_t)n, scale);
        else
            l->p[t] = test_floats(layer_tensors[t].name, (size_t)n, scale);
        for (int i = 0; i < n; i++)
            r->p[t][i] = is_matrix(t) ? f32_from_bf16(((bf16 *)l->p[t])[i]) : ((float *)l->p[t])[i];
    }
    l->rope = new_floats("rope", T * E);
    for (int i = 0; i < T * E / 2; i++) {
        const double angle = i / (E / 2) * pow(10000, -2.0 * (i % (E / 2)) / E);
        l->rope[2 * i] = (float)cos(angle);
        l->rope[2 * i + 1] = (float)sin(angle);
    }
    emu_mark(l->rope, sizeof(float) * T * E);
    l->dx = test_floats("dx", M * D, 1);
    l->dx16 = new_bf16s("dx16", M * D);
    for (int i = 0; i < M * D; i++) {
        r->dx[i] = l->dx[i];
        l->dx16[i] = bf16_from_f32(l->dx[i]);
    }
    emu_mark(l->dx16, sizeof(bf16) * M * D);
    for (int i = 0; i < T * E; i++)
        r->rope[i] = l->rope[i];
}

HOST_CODE static void forward(struct layer *l)
{
    void *none = NULL;
    RUN(layer_norm, NORM_LAUNCH(M, D, 0), l->norm1, l->rstd1, l->p[P_X], l->p[P_GAIN1], none);
    RUN_MAPPED(MATMUL, layer_qkv, M, QKV, D, l->qkv, l->norm1, l->p[P_QKV], l->p[P_BIAS], none,
               none);
    RUN(layer_rope, ROPE_LAUNCH(M, QKV, E), l->rot, l->head_rstd, l->qkv, l->p[P_HEAD_GAIN],
        l->rope);
    RUN_MAPPED(ATTENTION, layer_attention, M, T, E, l->att, l->lse, l->rot, l->rot);
    RUN_MAPPED(MATMUL, layer_o, M, D, DQ, l->x1, l->att, l->p[P_O], none, l->p[P_X], none);
    RUN(layer_norm, NORM_LAUNCH(M, D, 0), l->norm2, l->rstd2, l->x1, l->p[P_GAIN2], none);
    RUN_MAPPED(MATMUL, layer_gate_up, M, 2 * F, D, l->gate_up, l->norm2, l->p[P_GATE_UP], none,
               none, none);
    RUN(layer_swiglu, SWIGLU_LAUNCH(M, F, 0), l->h, l->gate_up, none);
    RUN_MAPPED(MATMUL, layer_down, M, D, F, l->x2, l->h, l->p[P_DOWN], none, l->x1, none);
}

HOST_CODE static void backward(struct layer *l)
{
    void *none = NULL;
    RUN_MAPPED(MATMUL_DX, layer_down_dx, M, D, F, l->dh, l->dx16, l->p[P_DOWN]);
    RUN(layer_swiglu_backward, SWIGLU_BACKWARD_LAUNCH(M, F, 0), l->dgate_up, l->h, l->dh,
        l->gate_up);
    RUN_MAPPED(MATMUL_DW, layer_down_dw, M, D, F, l->grad[P_DOWN], none, l->dx16, l->h,
               l->grad[P_DOWN]);
    RUN_MAPPED(MATMUL_DX, layer_gate_up_dx, M, 2 * F, D, l->dnorm, l->dgate_up, l->p[P_GATE_UP]);
    RUN_MAPPED(MATMUL_DW, layer_gate_up_dw, M, 2 * F, D, l->grad[P_GATE_UP], none, l->dgate_up,
               l->norm2, l->grad[P_GATE_UP]);
    RUN(layer_norm_backward, NORM_BACKWARD_LAUNCH(M, D, 0), l->dx, l->dx16, l->grad[P_GAIN2],
        l->dnorm, l->x1, l->rstd2, l->p[P_GAIN2], none, l->scratch);
    RUN(layer_norm_backward_2, NORM_BACKWARD_LAUNCH_2(M, D, 0), l->dx, l->dx16, l->grad[P_GAIN2],
        l->dnorm, l->x1, l->rstd2, l->p[P_GAIN2], none, l->scratch);
    RUN_MAPPED(MATMUL_DX, layer_o_dx, M, D, DQ, l->datt, l->dx16, l->p[P_O]);
    RUN_MAPPED(MATMUL_DW, layer_o_dw, M, D, DQ, l->grad[P_O], none, l->dx16, l->att, l->grad[P_O]);
    RUN(layer_attention_backward, ATTENTION_BACKWARD_LAUNCH(M, T, E), l->dqkv, l->datt, l->att,
        l->lse, l->rot, l->scratch);
    RUN(layer_attention_backward_2, ATTENTION_BACKWARD_LAUNCH_2(M, T, E), l->dqkv, l->datt, l->att,
        l->lse, l->rot, l->scratch);
    RUN(layer_attention_backward_3, ATTENTION_BACKWARD_LAUNCH_3(M, T, E), l->dqkv, l->datt, l->att,
        l->lse, l->rot, l->scratch);
    RUN(layer_rope_backward, ROPE_BACKWARD_LAUNCH(M, QKV, E), l->dqkv, l->grad[P_HEAD_GAIN], l->qkv,
        l->head_rstd, l->p[P_HEAD_GAIN], l->rope, l->scratch);
    RUN(layer_rope_backward_2, ROPE_BACKWARD_LAUNCH_2(M, QKV, E), l->dqkv, l->grad[P_HEAD_GAIN],
        l->qkv, l->head_rstd, l->p[P_HEAD_GAIN], l->rope, l->scratch);
    RUN_MAPPED(MATMUL_DX, layer_qkv_dx, M, QKV, D, l->dnorm, l->dqkv, l->p[P_QKV]);
    RUN_MAPPED(MATMUL_DW, layer_qkv_dw, M, QKV, D, l->grad[P_QKV], l->grad[P_BIAS], l->dqkv,
               l->norm1, l->grad[P_QKV]);
    RUN(layer_norm_backward, NORM_BACKWARD_LAUNCH(M, D, 0), l->dx, l->dx16, l->grad[P_GAIN1],
        l->dnorm, l->p[P_X], l->rstd1, l->p[P_GAIN1], none, l->scratch);
    RUN(layer_norm_backward_2, NORM_BACKWARD_LAUNCH_2(M, D, 0), l->dx, l->dx16, l->grad[P_GAIN1],
        l->dnorm, l->p[P_X], l->rstd1, l->p[P_GAIN1], none, l->scratch);
}

/* ---- comparisons ---- */

/* |got - want| over |want|, both as wholes; got is bf16 or fp32. */
HOST_CODE static int compare(const char *name, const void *got, bool half, const double *want,
                             int n, double limit)
{
    double apart = 0, size = 0;
    for (int i = 0; i < n; i++) {
        const double x = half ? f32_from_bf16(((const bf16 *)got)[i]) : ((const float *)got)[i];
        apart += (x - want[i]) * (x - want[i]);
        size += want[i] * want[i];
    }
    const double error = sqrt(apart / size);
    if (error <= limit)
        return 0;
    printf("%s: %.3g of its size off, at most %.3g expected\n", name, error, limit);
    return 1;
}

/* The reference's own gradients against finite differences, nothing rounded, one random direction
 * of each tensor. */
HOST_CODE static int check_reference(struct layer_ref *r)
{
    static double direction[2 * F * D + QKV * D + M * D], weight[M * D];
    const double step = 1e-5;
    int bad = 0;
    memcpy(weight, r->dx, sizeof(weight));
    ref_rounds = false;
    ref_forward(r);
    ref_backward(r);
    for (int t = 0; t < P_COUNT; t++) {
        const int n = layer_tensors[t].floats;
        double slope = 0, difference = 0;
        for (int i = 0; i < n; i++) {
            direction[i] = test_random();
            slope += direction[i] * r->grad[t][i];
        }
        for (int side = -1; side <= 1; side += 2) {
            for (int i = 0; i < n; i++)
                r->p[t][i] += side * step * direction[i];
            ref_forward(r);
            for (int i = 0; i < M * D; i++)
                difference += side * weight[i] * r->x2[i] / (2 * step);
            for (int i = 0; i < n; i++)
                r->p[t][i] -= side * step * direction[i];
        }
        if (!(fabs(difference - slope) <= 1e-5 * (fabs(slope) + 1))) {
            printf("reference's gradient of %s: %.9g along a line, difference %.9g\n",
                   layer_tensors[t].name, slope, difference);
            bad = 1;
        }
    }
    memcpy(r->dx, weight, sizeof(weight));
    ref_rounds = true;
    return bad;
}

/* Behind attention, whose kernels round weights to bf16 inside, errors are those of bf16: 2^-9 a
 * value, a few of them one behind the other. Before it, equal roundings: only ties differ. */
HOST_CODE static int check_layer(const struct layer *l, const struct layer_ref *r)
{
    const double before = 1e-3, behind = 8e-3;
    int bad = compare("norm1", l->norm1, true, r->norm1, M * D, before);
    bad |= compare("qkv", l->qkv, true, r->qkv, M * QKV, before);
    bad |= compare("rope", l->rot, true, r->rot, M * QKV, before);
    bad |= compare("att", l->att, true, r->att, M * DQ, behind);
    bad |= compare("x1", l->x1, false, r->x1, M * D, behind);
    bad |= compare("norm2", l->norm2, true, r->norm2, M * D, behind);
    bad |= compare("gate_up", l->gate_up, true, r->gate_up, M * 2 * F, behind);
    bad |= compare("h", l->h, true, r->h, M * F, behind);
    bad |= compare("x2", l->x2, false, r->x2, M * D, behind);
    bad |= compare("gradient of x", l->dx, false, r->grad[P_X], M * D, behind);
    for (int t = 0; t < P_X; t++)
        bad |= compare(layer_tensors[t].name, l->grad[t], false, r->grad[t],
                       layer_tensors[t].floats, behind);
    return bad;
}

HOST_CODE int main(void)
{
    static struct layer l;
    static struct layer_ref r;
    emu_seed(3);
    fill(&l, &r);
    allocate(&l);
    int bad = check_reference(&r);
    ref_forward(&r);
    ref_backward(&r);
    forward(&l);
    backward(&l);
    bad |= check_layer(&l, &r);
    for (int t = 0; t < P_COUNT; t++) {
        free(r.p[t]);
        free(r.grad[t]);
    }
    emu_free_all();
    return bad;
}

/* toy2_model.c - a small real transformer written by hand: an archrt_model with plain loops for
 * kernels, every kind of them once, so that verify, bench and generate have something to work on
 * that no code generator made. TOY_VARIANT picks the architecture (the same three as
 * torch_reference.py), TOY_WEIGHTS the type of the packed weights, TOY_THREADS the team. */
#include "toy2_inference.h"
#include "toy2_training.h"

/* ---- the table ---------------------------------------------------------------------------------
 */

#define MATRIX(name, rows, columns, at)                                                            \
    {                                                                                              \
        name, 2, {rows, columns}, at, true, 0.02f, false                                           \
    }
#define VECTOR(name, n, at, is_gain)                                                               \
    {                                                                                              \
        name, 1, {n, 0}, at, false, 0, is_gain                                                     \
    }
#define AT(i, what) (LAYERS + (i)*LAYER + (what))
#define SMALL_AT(i, what) (SMALL + (i)*SMALL_LAYER + (what))
#define LAYER_TENSORS(i)                                                                           \
    MATRIX("model.layers." #i ".self_attn.q_proj.weight", DQ, D, AT(i, WQKV)),                     \
        MATRIX("model.layers." #i ".self_attn.k_proj.weight", DKV, D, AT(i, WQKV + DQ * D)),       \
        MATRIX("model.layers." #i ".self_attn.v_proj.weight", DKV, D,                              \
               AT(i, WQKV + (DQ + DKV) * D)),                                                      \
        MATRIX("model.layers." #i ".self_attn.o_proj.weight", D, DQ, AT(i, WO)),                   \
        MATRIX("model.layers." #i ".mlp.gate_proj.weight", F, D, AT(i, WGU)),                      \
        MATRIX("model.layers." #i ".mlp.up_proj.weight", F, D, AT(i, WGU + F * D)),                \
        MATRIX("model.layers." #i ".mlp.down_proj.weight", D, F, AT(i, WDOWN)),                    \
        VECTOR("model.layers." #i ".input_layernorm.weight", D, SMALL_AT(i, NORM1), true),         \
        VECTOR("model.layers." #i ".post_attention_layernorm.weight", D, SMALL_AT(i, NORM2), true)
#define LAYER_NORMS(i)                                                                             \
    VECTOR("model.layers." #i ".self_attn.q_norm.weight", E, SMALL_AT(i, HEAD_GAIN), true),        \
        VECTOR("model.layers." #i ".self_attn.k_norm.weight", E, SMALL_AT(i, HEAD_GAIN + E), true)
#define LAYER_BIASES(i)                                                                            \
    VECTOR("model.layers." #i ".self_attn.q_proj.bias", DQ, SMALL_AT(i, QKV_BIAS), false),         \
        VECTOR("model.layers." #i ".self_attn.k_proj.bias", DKV, SMALL_AT(i, QKV_BIAS + DQ),       \
               false),                                                                             \
        VECTOR("model.layers." #i ".self_attn.v_proj.bias", DKV, SMALL_AT(i, QKV_BIAS + DQ + DKV), \
               false)

static const struct archrt_tensor tensors[] = {
    MATRIX("model.embed_tokens.weight", V, D, EMBED),
#if TOY_VARIANT != 1
    MATRIX("lm_head.weight", V, D, HEAD),
#endif
    LAYER_TENSORS(0),
    LAYER_TENSORS(1),
#if TOY_VARIANT == 1
    LAYER_NORMS(0),
    LAYER_NORMS(1),
#endif
#if TOY_VARIANT == 2
    LAYER_TENSORS(2),
    LAYER_BIASES(0),
    LAYER_BIASES(1),
    LAYER_BIASES(2),
#endif
    VECTOR("model.norm.weight", D, FINAL, true),
};

typedef void any_function(void);
#define KERNEL(kind, function, phase, m, n, k, flags, times, flops, bytes)                         \
    {                                                                                              \
        ARCHRT_##kind, #function, phase, m, n, k, ARCHRT_F32, times, flops, bytes,                 \
            (any_function *)(function), flags, 64, 0, NULL                                         \
    }
#define PACKED(kind, function, phase, m, n, k, flags, times, rows, columns, packer)                \
    {                                                                                              \
        ARCHRT_##kind, #function, phase, m, n, k, TOY_WEIGHTS, times,                              \
            2.0 * (m) * (rows) * (columns), (double)((rows)*PACKED_ROW(columns)),                  \
            (any_function *)(function), flags, 64, (rows)*PACKED_ROW(columns), packer              \
    }
#define PRODUCT(kind, function, n, k, flags, times)                                                \
    KERNEL(kind, function, "train", M, n, k, flags, times, 2.0 * M * (n) * (k),                    \
           4.0 * (M * (n) + M * (k) + (n) * (k)))

static const struct archrt_kernel kernels[] = {
    KERNEL(EMBED, embed, "train", M, D, 0, 0, 1, 0, 8.0 * M * D),
    KERNEL(EMBED_BACKWARD, embed_backward, "train", M, D, 0, 0, 1, 0, 12.0 * M * D),
    KERNEL(NORM, norm, "train", M, D, 0, 0, 2 * L + 1, 4.0 * M * D, 8.0 * M * D),
    KERNEL(NORM_BACKWARD, norm_backward, "train", M, D, 0, ARCHRT_ACCUMULATE, 2 * L + 1, 8.0 * M * D, 16.0 * M * D),
    PRODUCT(MATMUL, qkv, QKV, D, BIAS ? ARCHRT_BIAS : 0, L),
    PRODUCT(MATMUL, out, D, DQ, ARCHRT_RESIDUAL, L),
    PRODUCT(MATMUL, gate_up, 2 * F, D, 0, L),
    PRODUCT(MATMUL, down, D, F, ARCHRT_RESIDUAL, L),
    PRODUCT(MATMUL, head, V, D, 0, 1),
    PRODUCT(MATMUL_DX, qkv_dx, QKV, D, 0, L),
    PRODUCT(MATMUL_DX, head_dx, V, D, 0, 1),
    PRODUCT(MATMUL_DW, qkv_dw, QKV, D, BIAS ? ARCHRT_BIAS : 0, L),
    PRODUCT(MATMUL_DW, down_dw, D, F, 0, L),
    KERNEL(ROPE, rope, "train", M, QKV, E, 0, L, 3.0 * M * QKV, 8.0 * M * QKV),
    KERNEL(ROPE_BACKWARD, rope_backward, "train", M, QKV, E, 0, L, 3.0 * M * QKV, 8.0 * M * QKV),
    KERNEL(ATTENTION, attention, "train", M, T, E, 0, L, 2.0 * M * (T + 1) * DQ, 8.0 * M * QKV),
    KERNEL(ATTENTION_BACKWARD, attention_backward, "train", M, T, E, 0, L, 5.0 * M * (T + 1) * DQ,
           16.0 * M * QKV),
    KERNEL(SWIGLU, swiglu, "train", M, F, 0, 0, L, 5.0 * M * F, 12.0 * M * F),
    KERNEL(SWIGLU_BACKWARD, swiglu_backward, "train", M, F, 0, 0, L, 9.0 * M * F, 24.0 * M * F),
    KERNEL(LOSS, loss, "train", M, V, 0, 0, 1, 5.0 * M * V, 8.0 * M * V),
    KERNEL(SUM_SQUARES, sum_squares, "train", 1, PARAM_FLOATS, 0, 0, 1, 2.0 * PARAM_FLOATS,
           4.0 * PARAM_FLOATS),
    KERNEL(ADAMW, adamw, "train", 1, PARAM_FLOATS, 0, 0, 1, 12.0 * PARAM_FLOATS,
           28.0 * PARAM_FLOATS),
    PACKED(EMBED_ROW, embed_row, "prefill", CHUNK, D, 0, 0, 1, V, D, pack_table),
    KERNEL(NORM, norm, "prefill", CHUNK, D, 0, 0, 2 * L + 1, 4.0 * CHUNK * D, 8.0 * CHUNK * D),
    PACKED(PREFILL_MATMUL, prefill_qkv, "prefill", CHUNK, QKV, D, BIAS ? ARCHRT_BIAS : 0, L, QKV, D,
           pack_qkv),
    PACKED(PREFILL_MATMUL, prefill_out, "prefill", CHUNK, D, DQ, ARCHRT_RESIDUAL, L, D, DQ,
           pack_out),
    KERNEL(PREFILL_ROPE, prefill_rope, "prefill", CHUNK, QKV, E, 0, L, 3.0 * CHUNK * QKV,
           8.0 * CHUNK * QKV),
    KERNEL(PREFILL_ATTENTION, prefill_attention, "prefill", CHUNK, DQ, E, 0, L,
           2.0 * CHUNK * CHUNK * DQ, 8.0 * CHUNK * QKV),
    PACKED(MATVEC, decode_qkv, "decode", 1, QKV, D, ARCHRT_WITH_NORM | (BIAS ? ARCHRT_BIAS : 0), L,
           QKV, D, pack_qkv),
    PACKED(MATVEC, decode_out, "decode", 1, D, DQ, ARCHRT_RESIDUAL, L, D, DQ, pack_out),
    PACKED(MATVEC, decode_gate_up, "decode", 1, 2 * F, D, ARCHRT_WITH_NORM | ARCHRT_WITH_SWIGLU, L,
           2 * F, D, pack_gate_up),
    PACKED(MATVEC, decode_head, "decode", 1, V, D, ARCHRT_WITH_NORM, 1, V, D, pack_table),
    KERNEL(DECODE_ATTENTION, decode_attention, "decode", 1, DQ, E, 0, L, 4.0 * C / 2 * DQ,
           4.0 * C * DKV),
};

enum {
    SMALL_PARAMS = L * (2 * D + (QK_NORM ? 2 * E : 0) + (BIAS ? QKV : 0)) + D,
    MATRICES = L * LAYER
};

const struct archrt_model archrt_model = {
    .abi = ARCHRT_ABI,
    .source = "toy2_model.c",
    .options = "plain loops",
    .arch = {NAME, L, D, H, K, E, F, V, C, TIED, BIAS, QK_NORM, 1e-5f, ROPE_THETA, ROPE_SCALING},
    .hyper = {.lr = 3e-3,
              .warmup = 10,
              .weight_decay = 0.1,
              .clip = 1,
              .beta1 = 0.9,
              .beta2 = 0.95,
              .eps = 1e-8,
              .accumulate = 1},
    .tensors = tensors,
    .n_tensors = sizeof tensors / sizeof *tensors,
    .param_floats = PARAM_FLOATS,
    .params = MATRICES,
    .total_params = SMALL + SMALL_PARAMS,
    .threads = THREADS,
    .batch = B,
    .sequence = T,
    .work_bytes = sizeof(struct train_work),
    .train = train,
    .eval = eval,
    .adamw = adamw,
    .sum_squares = model_sum_squares,
    .weights = TOY_WEIGHTS,
    .chunk = CHUNK,
    .weight_bytes = P_END,
    .cache_bytes = (size_t)L * C * 2 * DKV * sizeof(float),
    .infer_work_bytes = sizeof(struct infer_work),
    .pack = pack,
    .prefill = prefill,
    .decode = decode,
    .kernels = kernels,
    .n_kernels = sizeof kernels / sizeof *kernels,
};

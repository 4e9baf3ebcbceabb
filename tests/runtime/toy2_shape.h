/* toy2_shape.h - the three architectures of toy2_model.c, its slab of parameters, and how threads
 * share rows. */
#ifndef TOY2_SHAPE_H
#define TOY2_SHAPE_H

#include <math.h>
#include <string.h>

#include "archrt.h"
#include "archrt_kernels.h"

#ifndef TOY_VARIANT
#define TOY_VARIANT 0
#endif
#ifndef TOY_WEIGHTS
#define TOY_WEIGHTS 0
#endif
#ifndef TOY_THREADS
#define TOY_THREADS 2
#endif

#if TOY_VARIANT == 0 /* group 3, dq != d_model */
#define NAME "plain"
enum { L = 2, D = 48, H = 6, K = 2, E = 16, F = 80, V = 101, TIED = 0, BIAS = 0, QK_NORM = 0 };
#define ROPE_THETA 1e4
#define ROPE_SCALING 0, 0, 0, 0
#elif TOY_VARIANT == 1 /* Qwen3-like: head norms, tied; group 5; as many ids as bytes */
#define NAME "qk_norm"
enum { L = 2, D = 40, H = 5, K = 1, E = 8, F = 56, V = 256, TIED = 1, BIAS = 0, QK_NORM = 1 };
#define ROPE_THETA 1e6
#define ROPE_SCALING 0, 0, 0, 0
#else /* Qwen2-like biases, Llama 3's long context */
#define NAME "bias"
enum { L = 3, D = 32, H = 4, K = 4, E = 8, F = 64, V = 67, TIED = 0, BIAS = 1, QK_NORM = 0 };
#define ROPE_THETA 500.0
#define ROPE_SCALING 8, 1, 4, 16
#endif
enum { C = 64, B = 2, T = 24, CHUNK = 20, M = B * T, THREADS = TOY_THREADS };
enum { DQ = H * E, DKV = K * E, QKV = DQ + 2 * DKV };
static const float EPS = 1e-5f;

/* The parameter slab: matrices, then gains and biases, then padding. */
enum {
    EMBED = 0,
    HEAD = TIED ? EMBED : V * D,
    LAYERS = (TIED ? 1 : 2) * V * D,
    WQKV = 0,
    WO = WQKV + QKV * D,
    WGU = WO + D * DQ,
    WDOWN = WGU + 2 * F * D,
    LAYER = WDOWN + D * F,
    SMALL = LAYERS + L * LAYER,
    NORM1 = 0,
    NORM2 = NORM1 + D,
    HEAD_GAIN = NORM2 + D,
    QKV_BIAS = HEAD_GAIN + 2 * E,
    SMALL_LAYER = QKV_BIAS + QKV,
    FINAL = SMALL + L * SMALL_LAYER,
    PARAM_FLOATS = (FINAL + D + 15) / 16 * 16
};

struct range {
    int begin, end;
};

static struct range share(int n, int tid)
{
    return (struct range){n * tid / THREADS, n * (tid + 1) / THREADS};
}

#endif

/* train_kernels.h - the training kernels as a table of one set of shapes, for train_test.c; an
 * instance of it is train_instance.c compiled with constants, or with run-time shapes. */
#ifndef TRAIN_KERNELS_H
#define TRAIN_KERNELS_H

#include <stddef.h>

#include "archrt.h"
#include "archrt_kernels.h"

#define TEST_EPS 1e-5f

struct train_shape {
    int b, t, h, k, e, d, f, v;
    int out, in; /* of a weight matrix [out][in] */
    int n, decayed;
    int threads, granule;
};

struct train_kernels {
    const char *name;
    struct train_shape shape; /* threads == 0: follows train_shape */
    embed_fn *embed;
    embed_backward_fn *embed_backward;
    norm_fn *norm;
    norm_backward_fn *norm_backward[2]; /* 1: accumulate */
    matmul_fn *matmul[4];               /* 1: bias, 2: residual */
    matmul_dx_fn *dx[2];                /* 1: accumulate */
    matmul_dw_fn *dw[2];                /* 1: bias */
    rope_fn *rope[2];                   /* 1: head norm */
    rope_backward_fn *rope_backward[2];
    attention_fn *attention;
    attention_backward_fn *attention_backward;
    swiglu_fn *swiglu;
    swiglu_backward_fn *swiglu_backward;
    loss_fn *loss;
    sum_squares_fn *sum_squares;
    adamw_fn *adamw;
    size_t (*matmul_scratch)(void), (*attention_scratch)(void); /* floats of all threads */
};

extern struct train_shape train_shape; /* of the generic instance */
#endif

/* kernel_test.h - what tests of CUDA kernels share: random inputs, copies, comparison. */
#ifndef KERNEL_TEST_H
#define KERNEL_TEST_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "device.h"
#include "archrt_cuda.h"
#include "emulator.h"

static u32 test_state = 1;

/* Roughly normal, deviation 1; never 0. */
HOST_CODE static inline float test_random(void)
{
    float sum = 0;
    for (int i = 0; i < 4; i++) {
        test_state = test_state * 1664525u + 1013904223u;
        sum += (float)(test_state >> 8) / 16777216.0f - 0.5f;
    }
    return sum * 1.7320508f + 1e-4f;
}

/* n random floats times `scale`, in device memory. */
HOST_CODE static inline float *test_floats(const char *name, size_t n, float scale)
{
    float *p = emu_alloc(name, n * sizeof(float));
    for (size_t i = 0; i < n; i++)
        p[i] = test_random() * scale;
    emu_mark(p, n * sizeof(float));
    return p;
}

HOST_CODE static inline bf16 *test_bf16s(const char *name, size_t n, float scale)
{
    bf16 *p = emu_alloc(name, n * sizeof(bf16));
    for (size_t i = 0; i < n; i++)
        p[i] = bf16_from_f32(test_random() * scale);
    emu_mark(p, n * sizeof(bf16));
    return p;
}

/* Operands of which a kernel wants tensor maps become maps, in device memory. */
HOST_CODE static inline void test_maps(const struct cuda_maps *maps, void *operands[])
{
    for (int i = 0; i < maps->n; i++) {
        const struct cuda_map *m = &maps->list[i];
        struct emu_tensor t = {operands[m->operand], 2, m->rank, 128, {0}, {0}, {0}};
        for (int d = 0; d < m->rank; d++) {
            t.extents[d] = m->extents[d];
            t.box[d] = m->box[d];
            if (d > 0)
                t.strides[d - 1] = m->strides[d - 1];
        }
        operands[m->operand] = emu_alloc("tensor map", CUDA_MAP_BYTES);
        emu_tensor_map(operands[m->operand], &t);
    }
}

/* The largest |got - want| / (absolute + relative |want|) so far; past 1, or NaN, is a failure. */
struct test_error {
    double worst;
    size_t at;
    double got, want;
};

HOST_CODE static inline void test_compare(struct test_error *e, size_t at, double got, double want,
                                          double absolute, double relative)
{
    double ratio = fabs(got - want) / (absolute + relative * fabs(want));
    if (!(ratio <= e->worst)) {
        e->worst = ratio == ratio ? ratio : INFINITY;
        e->at = at;
        e->got = got;
        e->want = want;
    }
}

/* 0 where all was within the tolerance; else says where it was not. */
HOST_CODE static inline int test_verdict(const struct test_error *e, const char *what)
{
    if (e->worst <= 1)
        return 0;
    printf("%s: element %zu is %.9g, should be %.9g (%.3g times the tolerance)\n", what, e->at,
           e->got, e->want, e->worst);
    return 1;
}

#endif

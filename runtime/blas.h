/* blas.h - the vendor's matrix product, if this machine has one: bench's opponent, loaded at run
 * time and needed for nothing. */
#ifndef BLAS_H
#define BLAS_H

#include <stdbool.h>
#include <stdint.h>

struct blas {
    const char *name; /* "OpenBLAS", "BLIS", or the file given */
    void *library;
    void (*sgemm)(int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
                  const float *a, int lda, const float *b, int ldb, float beta, float *c, int ldc);
    bool threads_set; /* false: the library offers no way that we know */
};

enum { MAX_BLAS = 2 };

/* Opens OpenBLAS and BLIS, or the one library `file` ("none": none), with `threads` threads each.
 * Returns how many were found. */
int blas_open(struct blas list[MAX_BLAS], const char *file, int threads);
void blas_close(struct blas *list, int n);

/* c[M][N] = A B + beta c, all row-major; a is A[M][K], or its transpose [K][M] where trans_a; b is
 * B[K][N], or [N][K] where trans_b. */
void blas_multiply(const struct blas *blas, float *c, const float *a, bool trans_a, const float *b,
                   bool trans_b, int M, int N, int K, float beta);

#endif

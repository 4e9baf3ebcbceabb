/* cublaslt.h - the part of cuBLASLt's interface that device_blas.c uses, declared here so that no
 * toolkit is needed to build. Values and layouts are those of cublasLt.h, cublas_api.h and
 * library_types.h, the same in cuBLAS 11, 12 and 13; tests/cuda/blas_interface_test.c compares them
 * with the headers where they are installed. */
#ifndef CUBLASLT_H
#define CUBLASLT_H

#include <stddef.h>
#include <stdint.h>

typedef struct lt_opaque *lt_handle; /* of the library, descriptors, layouts, preferences */

enum lt_status {
    LT_SUCCESS = 0,
    LT_NOT_INITIALIZED = 1,
    LT_INVALID_VALUE = 7,
    LT_ARCH_MISMATCH = 8,
    LT_EXECUTION_FAILED = 13,
    LT_NOT_SUPPORTED = 15
};
enum lt_type { LT_R_32F = 0, LT_R_16BF = 14 };
enum lt_compute { LT_COMPUTE_32F = 68 };
enum lt_operation { LT_OP_N = 0, LT_OP_T = 1 };
enum lt_order { LT_ORDER_COL = 0 }; /* column behind column; what layouts are by default */
enum lt_epilogue {
    LT_EPILOGUE_DEFAULT = 1,
    LT_EPILOGUE_BIAS = 4 /* + bias[rows of D], the same in each column */
};
/* Of a sum cut into parts: added to D in place; in the workspace, as fp32 or as D's type. */
enum lt_reduction { LT_REDUCTION_INPLACE = 1, LT_REDUCTION_COMPUTE = 2, LT_REDUCTION_OUTPUT = 4 };

enum lt_layout_attribute { /* bytes: 4, 4, 8, 8, 8 */
                           LT_LAYOUT_TYPE = 0,
                           LT_LAYOUT_ORDER = 1,
                           LT_LAYOUT_ROWS = 2,
                           LT_LAYOUT_COLS = 3,
                           LT_LAYOUT_LD = 4
};
enum lt_matmul_attribute { /* 4 bytes but for the pointer */
                           LT_MATMUL_TRANSA = 3,
                           LT_MATMUL_TRANSB = 4,
                           LT_MATMUL_EPILOGUE = 7,
                           LT_MATMUL_BIAS_POINTER = 8,
                           LT_MATMUL_BIAS_TYPE = 26
};
enum lt_preference { /* 4 bytes but for the workspace's 8 */
                     LT_PREFERENCE_WORKSPACE = 1,
                     LT_PREFERENCE_REDUCTIONS = 3,
                     LT_PREFERENCE_ALIGN_A = 5,
                     LT_PREFERENCE_ALIGN_B = 6,
                     LT_PREFERENCE_ALIGN_C = 7,
                     LT_PREFERENCE_ALIGN_D = 8
};

struct lt_algorithm {
    uint64_t data[8];
};
struct lt_found {
    struct lt_algorithm algorithm;
    size_t workspace; /* bytes that it needs */
    int state;        /* enum lt_status; the rest counts only where it is LT_SUCCESS */
    float waves;
    int reserved[4];
};

/* X(result, field, symbol, parameters) */
#define LT_FUNCTIONS(X)                                                                            \
    X(int, create, "cublasLtCreate", (lt_handle *))                                                \
    X(int, destroy, "cublasLtDestroy", (lt_handle))                                                \
    X(size_t, version, "cublasLtGetVersion", (void))                                               \
    X(int, layout, "cublasLtMatrixLayoutCreate", (lt_handle *, int, uint64_t, uint64_t, int64_t))  \
    X(int, layout_drop, "cublasLtMatrixLayoutDestroy", (lt_handle))                                \
    X(int, matmul, "cublasLtMatmulDescCreate", (lt_handle *, int, int))                            \
    X(int, matmul_drop, "cublasLtMatmulDescDestroy", (lt_handle))                                  \
    X(int, matmul_set, "cublasLtMatmulDescSetAttribute", (lt_handle, int, const void *, size_t))   \
    X(int, preference, "cublasLtMatmulPreferenceCreate", (lt_handle *))                            \
    X(int, preference_drop, "cublasLtMatmulPreferenceDestroy", (lt_handle))                        \
    X(int, preference_set, "cublasLtMatmulPreferenceSetAttribute",                                 \
      (lt_handle, int, const void *, size_t))                                                      \
    X(int, find, "cublasLtMatmulAlgoGetHeuristic",                                                 \
      (lt_handle, lt_handle matmul, lt_handle a, lt_handle b, lt_handle c, lt_handle d,            \
       lt_handle preference, int, struct lt_found *, int *))                                       \
    X(int, run, "cublasLtMatmul",                                                                  \
      (lt_handle, lt_handle matmul, const void *alpha, const void *a, lt_handle, const void *b,    \
       lt_handle, const void *beta, const void *c, lt_handle, void *d, lt_handle,                  \
       const struct lt_algorithm *, void *workspace, size_t, void *stream))

#endif

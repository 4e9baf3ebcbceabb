/* interface_test.c - cublaslt.h, which declares the library's interface anew, against NVIDIA's own
 * headers: values and layouts, and the types of the functions. All of it at compile time. */
#include <stdio.h>

#include <cublasLt.h>

#include "cublaslt.h"

#define SAME(ours, theirs) _Static_assert((int)(ours) == (int)(theirs), #ours)

SAME(LT_SUCCESS, CUBLAS_STATUS_SUCCESS);
SAME(LT_NOT_INITIALIZED, CUBLAS_STATUS_NOT_INITIALIZED);
SAME(LT_INVALID_VALUE, CUBLAS_STATUS_INVALID_VALUE);
SAME(LT_ARCH_MISMATCH, CUBLAS_STATUS_ARCH_MISMATCH);
SAME(LT_EXECUTION_FAILED, CUBLAS_STATUS_EXECUTION_FAILED);
SAME(LT_NOT_SUPPORTED, CUBLAS_STATUS_NOT_SUPPORTED);
SAME(LT_R_32F, CUDA_R_32F);
SAME(LT_R_16BF, CUDA_R_16BF);
SAME(LT_COMPUTE_32F, CUBLAS_COMPUTE_32F);
SAME(LT_OP_N, CUBLAS_OP_N);
SAME(LT_OP_T, CUBLAS_OP_T);
SAME(LT_ORDER_COL, CUBLASLT_ORDER_COL);
SAME(LT_EPILOGUE_DEFAULT, CUBLASLT_EPILOGUE_DEFAULT);
SAME(LT_EPILOGUE_BIAS, CUBLASLT_EPILOGUE_BIAS);
SAME(LT_REDUCTION_INPLACE, CUBLASLT_REDUCTION_SCHEME_INPLACE);
SAME(LT_REDUCTION_COMPUTE, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
SAME(LT_REDUCTION_OUTPUT, CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE);
SAME(LT_LAYOUT_TYPE, CUBLASLT_MATRIX_LAYOUT_TYPE);
SAME(LT_LAYOUT_ORDER, CUBLASLT_MATRIX_LAYOUT_ORDER);
SAME(LT_LAYOUT_ROWS, CUBLASLT_MATRIX_LAYOUT_ROWS);
SAME(LT_LAYOUT_COLS, CUBLASLT_MATRIX_LAYOUT_COLS);
SAME(LT_LAYOUT_LD, CUBLASLT_MATRIX_LAYOUT_LD);
SAME(LT_MATMUL_TRANSA, CUBLASLT_MATMUL_DESC_TRANSA);
SAME(LT_MATMUL_TRANSB, CUBLASLT_MATMUL_DESC_TRANSB);
SAME(LT_MATMUL_EPILOGUE, CUBLASLT_MATMUL_DESC_EPILOGUE);
SAME(LT_MATMUL_BIAS_POINTER, CUBLASLT_MATMUL_DESC_BIAS_POINTER);
SAME(LT_MATMUL_BIAS_TYPE, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE);
SAME(LT_PREFERENCE_WORKSPACE, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
SAME(LT_PREFERENCE_REDUCTIONS, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK);
SAME(LT_PREFERENCE_ALIGN_A, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES);
SAME(LT_PREFERENCE_ALIGN_B, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES);
SAME(LT_PREFERENCE_ALIGN_C, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES);
SAME(LT_PREFERENCE_ALIGN_D, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES);

SAME(sizeof(struct lt_algorithm), sizeof(cublasLtMatmulAlgo_t));
SAME(sizeof(struct lt_found), sizeof(cublasLtMatmulHeuristicResult_t));
SAME(offsetof(struct lt_found, workspace),
     offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize));
SAME(offsetof(struct lt_found, state), offsetof(cublasLtMatmulHeuristicResult_t, state));
SAME(offsetof(struct lt_found, waves), offsetof(cublasLtMatmulHeuristicResult_t, wavesCount));
SAME(sizeof(cublasStatus_t), sizeof(int)); /* all enumerations are passed as int */
SAME(sizeof(cudaDataType), sizeof(int));

/* The functions as the header has them: each is called as cublaslt.h calls it. */
typedef cublasStatus_t layout_fn(cublasLtMatrixLayout_t *, cudaDataType, uint64_t, uint64_t,
                                 int64_t);
typedef cublasStatus_t matmul_fn(cublasLtMatmulDesc_t *, cublasComputeType_t, cudaDataType_t);
typedef cublasStatus_t find_fn(cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t,
                               cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                               cublasLtMatrixLayout_t, cublasLtMatmulPreference_t, int,
                               cublasLtMatmulHeuristicResult_t *, int *);
typedef cublasStatus_t run_fn(cublasLtHandle_t, cublasLtMatmulDesc_t, const void *, const void *,
                              cublasLtMatrixLayout_t, const void *, cublasLtMatrixLayout_t,
                              const void *, const void *, cublasLtMatrixLayout_t, void *,
                              cublasLtMatrixLayout_t, const cublasLtMatmulAlgo_t *, void *, size_t,
                              cudaStream_t);
#define TYPED(function, type)                                                                      \
    _Static_assert(__builtin_types_compatible_p(__typeof__(&function), type *), #function)
TYPED(cublasLtMatrixLayoutCreate, layout_fn);
TYPED(cublasLtMatmulDescCreate, matmul_fn);
TYPED(cublasLtMatmulAlgoGetHeuristic, find_fn);
TYPED(cublasLtMatmul, run_fn);

int main(void)
{
    printf("cublaslt.h agrees with the headers of cuBLAS %d.%d.%d\n", CUBLAS_VER_MAJOR,
           CUBLAS_VER_MINOR, CUBLAS_VER_PATCH);
    return 0;
}

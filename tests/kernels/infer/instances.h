/* instances.h - the kernels of infer_test.c for one type of weights: TYPE is 0, 1 or 2. Included
 * once for each. */
#define KERNEL CONCAT(mv_qkv_, TYPE)
#define MV_N QKV
#define MV_K D_MODEL
#define WTYPE TYPE
#define MV_NORM 1
#define MV_EPS EPSILON
#define MV_BIAS 1
#define MV_RESIDUAL 0
#define MV_SWIGLU 0
#include "matvec.c"

#define KERNEL CONCAT(mv_o_, TYPE)
#define MV_N D_MODEL
#define MV_K DQ
#define WTYPE TYPE
#define MV_NORM 0
#define MV_EPS EPSILON
#define MV_BIAS 0
#define MV_RESIDUAL 1
#define MV_SWIGLU 0
#include "matvec.c"

#define KERNEL CONCAT(mv_gate_up_, TYPE)
#define MV_N (2 * D_FF)
#define MV_K D_MODEL
#define WTYPE TYPE
#define MV_NORM 1
#define MV_EPS EPSILON
#define MV_BIAS 0
#define MV_RESIDUAL 0
#define MV_SWIGLU 1
#include "matvec.c"

#define KERNEL CONCAT(mv_down_, TYPE)
#define MV_N D_MODEL
#define MV_K D_FF
#define WTYPE TYPE
#define MV_NORM 0
#define MV_EPS EPSILON
#define MV_BIAS 1
#define MV_RESIDUAL 1
#define MV_SWIGLU 0
#include "matvec.c"

#define KERNEL CONCAT(mv_head_, TYPE)
#define MV_N VOCAB
#define MV_K D_MODEL
#define WTYPE TYPE
#define MV_NORM 1
#define MV_EPS EPSILON
#define MV_BIAS 0
#define MV_RESIDUAL 0
#define MV_SWIGLU 0
#include "matvec.c"

#define KERNEL CONCAT(mm_qkv_, TYPE)
#define MM_M CHUNK
#define MM_N QKV
#define MM_K D_MODEL
#define WTYPE TYPE
#define MM_BIAS 1
#define MM_RESIDUAL 0
#define MM_HALVES 0
#include "prefill_matmul.c"

#define KERNEL CONCAT(mm_o_, TYPE)
#define MM_M CHUNK
#define MM_N D_MODEL
#define MM_K DQ
#define WTYPE TYPE
#define MM_BIAS 0
#define MM_RESIDUAL 1
#define MM_HALVES 0
#include "prefill_matmul.c"

#define KERNEL CONCAT(mm_gate_up_, TYPE)
#define MM_M CHUNK
#define MM_N (2 * D_FF)
#define MM_K D_MODEL
#define WTYPE TYPE
#define MM_BIAS 0
#define MM_RESIDUAL 0
#define MM_HALVES 1
#include "prefill_matmul.c"

#define KERNEL CONCAT(mm_down_, TYPE)
#define MM_M CHUNK
#define MM_N D_MODEL
#define MM_K D_FF
#define WTYPE TYPE
#define MM_BIAS 1
#define MM_RESIDUAL 1
#define MM_HALVES 0
#include "prefill_matmul.c"

#define KERNEL CONCAT(mm_head_, TYPE)
#define MM_M CHUNK
#define MM_N VOCAB
#define MM_K D_MODEL
#define WTYPE TYPE
#define MM_BIAS 0
#define MM_RESIDUAL 0
#define MM_HALVES 0
#include "prefill_matmul.c"

#define KERNEL CONCAT(embed_, TYPE)
#define EMBED_M CHUNK
#define EMBED_D D_MODEL
#define WTYPE TYPE
#include "embed_row.c"

#undef TYPE

/* kernels_shape.h - the three products of one weight matrix for kernels.c, which defines SHAPE (a
 * name), ROWS, OUT and IN; undefined here. */
matmul_fn CONCAT(SHAPE, _forward);
matmul_dx_fn CONCAT(SHAPE, _dx);
matmul_dw_fn CONCAT(SHAPE, _dw);

#define KERNEL CONCAT(SHAPE, _forward)
#define MM_M ROWS
#define MM_N OUT
#define MM_K IN
#define MM_BIAS 0
#define MM_RESIDUAL 0
#define MM_ACCUMULATE 0
#include "matmul.c"

#define KERNEL CONCAT(SHAPE, _dx)
#define MM_M ROWS
#define MM_N OUT
#define MM_K IN
#define MM_BIAS 0
#define MM_RESIDUAL 0
#define MM_ACCUMULATE 0
#include "matmul_dx.c"

#define KERNEL CONCAT(SHAPE, _dw)
#define MM_M ROWS
#define MM_N OUT
#define MM_K IN
#define MM_BIAS 0
#define MM_RESIDUAL 0
#define MM_ACCUMULATE 0
#include "matmul_dw.c"

static const struct shape CONCAT(SHAPE, _shape) = {
    STRING(SHAPE), ROWS, OUT, IN, CONCAT(SHAPE, _forward), CONCAT(SHAPE, _dx), CONCAT(SHAPE, _dw)};
#undef SHAPE
#undef ROWS
#undef OUT
#undef IN

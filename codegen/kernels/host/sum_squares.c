/* sum_squares.c - the sum of squares of x[N], the same on every thread.
 *
 * KERNEL   the function's name
 * SUM_N    floats
 *
 * fp32 within pieces of 4096 floats, double across them. */
#include "kernel.h"

static NOINLINE double CONCAT(KERNEL, _piece)(const float *x, int n)
{
    vf sum[4] = {{0}};
    float rest = 0;
    int j = 0;
    for (; j + 4 * VL <= n; j += 4 * VL) {
        UNROLL
        for (int v = 0; v < 4; v++) {
            vf lane = vf_load(x + j + v * VL);
            sum[v] += lane * lane;
        }
    }
    for (; j < n; j++)
        rest += x[j] * x[j];
    return (double)rest + (double)vf_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

sum_squares_fn KERNEL;
double KERNEL(const float *x, double *scratch, int tid)
{
    enum { PIECE = 4096 };
    const int64_t n = SUM_N;
    struct range own = share((int)((n + PIECE - 1) / PIECE), 1, tid);
    double sum = 0;
    for (int p = own.begin; p < own.end; p++) {
        int64_t left = n - (int64_t)p * PIECE;
        sum += CONCAT(KERNEL, _piece)(x + (int64_t)p * PIECE, left < PIECE ? (int)left : PIECE);
    }
    scratch[tid] = sum;
    team_barrier(tid);
    sum = 0;
    for (int t = 0; t < THREADS; t++)
        sum += scratch[t];
    team_barrier(tid); /* the next call may write scratch at once */
    return sum;
}

#undef KERNEL
#undef SUM_N

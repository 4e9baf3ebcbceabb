/* blas.c - OpenBLAS and BLIS through dlopen. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "blas.h"

/* A data pointer from dlsym is a function's by POSIX; ISO C wants the detour. */
static void symbol(const struct blas *b, const char *name, void *function)
{
    void *at = dlsym(b->library, name);
    memcpy(function, &at, sizeof at);
}

static void set_threads(struct blas *b, int threads)
{
    void (*openblas)(int);
    void (*blis)(int64_t);
    symbol(b, "openblas_set_num_threads", &openblas);
    symbol(b, "bli_thread_set_num_threads", &blis);
    if (openblas)
        openblas(threads);
    else if (blis)
        blis(threads); /* dim_t: 64 bits in every 64-bit build */
    b->threads_set = openblas || blis;
}

static bool open_one(struct blas *b, const char *name, const char *file, int threads)
{
    *b = (struct blas){.name = name, .library = dlopen(file, RTLD_NOW | RTLD_LOCAL)};
    if (!b->library)
        return false;
    symbol(b, "cblas_sgemm", &b->sgemm);
    if (!b->sgemm) {
        dlclose(b->library);
        return false;
    }
    set_threads(b, threads);
    return true;
}

int blas_open(struct blas list[MAX_BLAS], const char *file, int threads)
{
    static const struct {
        const char *name, *files[3];
    } known[] = {
        {"OpenBLAS", {"libopenblas.so.0", "libopenblas.so", NULL}},
        {"BLIS", {"libblis.so.4", "libblis.so", NULL}},
    };
    int n = 0;
    /* After a product OpenBLAS's threads would spin for 2^26 cycles, against the next contestant:
     * half a millisecond is enough for its own next call. */
    setenv("OPENBLAS_THREAD_TIMEOUT", "20", 0);
    if (file && strcmp(file, "none") == 0)
        return 0;
    if (file)
        return open_one(&list[0], file, file, threads);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        for (const char *const *path = known[i].files; *path; path++)
            if (open_one(&list[n], known[i].name, *path, threads)) {
                n++;
                break;
            }
    return n;
}

void blas_close(struct blas *list, int n)
{
    /* Not dlclose: their threads may still be on the way to sleep in the library's code. */
    memset(list, 0, (size_t)n * sizeof *list);
}

void blas_multiply(const struct blas *blas, float *c, const float *a, bool trans_a, const float *b,
                   bool trans_b, int M, int N, int K, float beta)
{
    enum { ROW_MAJOR = 101, NO_TRANS = 111, TRANS = 112 };
    blas->sgemm(ROW_MAJOR, trans_a ? TRANS : NO_TRANS, trans_b ? TRANS : NO_TRANS, M, N, K, 1, a,
                trans_a ? M : K, b, trans_b ? K : N, beta, c, N);
}

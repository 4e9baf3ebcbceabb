/* check.h - buffers with guard zones and comparisons for kernel tests. */
#ifndef CHECK_H
#define CHECK_H

#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* AddressSanitizer guards better than a zone of our own, which would hide reads from it. */
#if defined(__SANITIZE_ADDRESS__)
enum { GUARD = 0 };
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
enum { GUARD = 0 };
#else
enum { GUARD = 256 };
#endif
#else
enum { GUARD = 256 };
#endif
static const uint32_t guard_word = 0x7fc5a5a5; /* a NaN: what reads it shows it */

static int check_failures, check_passes;
static char check_case[200]; /* told with every failure */

static inline void check_in(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(check_case, sizeof check_case, format, args);
    va_end(args);
}

static inline void check_failed(const char *name, const char *format, ...)
{
    va_list args;
    if (++check_failures > 40)
        return;
    fprintf(stderr, "FAIL %s: %s: ", check_case, name);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

/* n floats between guard zones, all NaN, 64-byte aligned; guarded_free checks the zones. */
static inline float *guarded(size_t n)
{
    void *p = NULL;
    if (posix_memalign(&p, 64, (n + 2 * GUARD) * sizeof(float) + (n == 0)) != 0) {
        fprintf(stderr, "check: no memory\n");
        exit(4);
    }
    uint32_t *words = p;
    for (size_t i = 0; i < n + 2 * GUARD; i++)
        words[i] = guard_word;
    return (float *)p + GUARD;
}

static inline void guarded_free(const char *name, float *p, size_t n)
{
    uint32_t *words = (uint32_t *)(p - GUARD);
    for (size_t i = 0; i < GUARD; i++)
        if (words[i] != guard_word || words[GUARD + n + i] != guard_word) {
            check_failed(name, "wrote outside its buffer of %zu, near %zu", n, i);
            break;
        }
    free(words);
}

static uint64_t check_seed = 1;

/* Uniform in (-1, 1). */
static inline float check_random(void)
{
    check_seed = check_seed * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(check_seed >> 32) / 2147483648.0f;
}

static inline float *random_floats(size_t n)
{
    float *p = guarded(n);
    for (size_t i = 0; i < n; i++)
        p[i] = check_random();
    return p;
}

static inline double *doubles(const float *from, size_t n)
{
    double *p = calloc(n + 1, sizeof *p);
    if (!p) {
        fprintf(stderr, "check: no memory\n");
        exit(4);
    }
    for (size_t i = 0; from && i < n; i++)
        p[i] = (double)from[i];
    return p;
}

/* |got - want| <= tolerance (|want| + root mean square of want), everywhere; NaN fails. */
static inline bool check_close(const char *name, const float *got, const double *want, size_t n,
                               double tolerance)
{
    double square = 0, worst = -1;
    size_t at = 0;
    for (size_t i = 0; i < n; i++)
        square += want[i] * want[i];
    double rms = n > 0 ? sqrt(square / (double)n) : 0;
    for (size_t i = 0; i < n; i++) {
        double error = fabs((double)got[i] - want[i]) / (fabs(want[i]) + rms + 1e-30);
        if (!(error <= worst)) {
            worst = error;
            at = i;
            if (isnan(error))
                break;
        }
    }
    if (n > 0 && !(worst <= tolerance)) {
        check_failed(name, "[%zu] of %zu is %.9g, not %.9g (error %.2g, allowed %.2g)", at, n,
                     (double)got[at], want[at], worst, tolerance);
        return false;
    }
    check_passes++;
    return true;
}

static inline void check_same(const char *name, const float *got, const float *want, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(got + i, want + i, sizeof(float)) != 0) {
            check_failed(name, "[%zu] of %zu is %.9g, not exactly %.9g", i, n, (double)got[i],
                         (double)want[i]);
            return;
        }
    check_passes++;
}

static inline int check_report(const char *program)
{
    printf("%s: %d checks passed, %d failed\n", program, check_passes, check_failures);
    return check_failures > 0;
}
#endif

/* check.h - tests that say what they expected. */
#ifndef LAW_CHECK_H
#define LAW_CHECK_H

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static int check_failures, check_count;

static inline void check_that(bool good, const char *what, const char *file, int line)
{
    check_count++;
    if (good)
        return;
    check_failures++;
    printf("%s:%d: failed: %s\n", file, line, what);
}

static inline void check_close(double got, double want, double tolerance, const char *what,
                               const char *file, int line)
{
    check_count++;
    if (fabs(got - want) <= tolerance)
        return;
    check_failures++;
    printf("%s:%d: %s is %.10g, should be %.10g within %.3g\n", file, line, what, got, want,
           tolerance);
}

#define CHECK(condition) check_that(condition, #condition, __FILE__, __LINE__)
#define CHECK_NEAR(got, want, tolerance) check_close(got, want, tolerance, #got, __FILE__, __LINE__)

static inline int check_report(const char *name)
{
    printf("%s: %d checks, %d failed\n", name, check_count, check_failures);
    return check_failures > 0;
}

#endif

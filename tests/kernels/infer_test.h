/* infer_test.h - what infer_test.c stands on: a team, guarded buffers, random numbers, comparison.
 */
#ifndef INFER_TEST_H
#define INFER_TEST_H

#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tiles.h"

#include "kernel.h"

/* ---- team: THREADS threads that sleep in their barrier ---- */

static pthread_barrier_t team_meeting;

void team_barrier(int tid)
{
    (void)tid;
    if (THREADS > 1)
        pthread_barrier_wait(&team_meeting);
}

struct team_work {
    void (*work)(void *arg, int tid);
    void *arg;
    int tid;
};

static void *team_member(void *arg)
{
    const struct team_work *w = arg;
    w->work(w->arg, w->tid);
    return NULL;
}

static void team_all(void (*work)(void *arg, int tid), void *arg)
{
    pthread_t thread[THREADS];
    struct team_work w[THREADS];
    tiles_allow(); /* as in team_test.h */
    pthread_barrier_init(&team_meeting, NULL, THREADS);
    for (int t = THREADS - 1; t >= 0; t--) {
        w[t] = (struct team_work){work, arg, t};
        if (t > 0 && pthread_create(&thread[t], NULL, team_member, &w[t]) != 0)
            abort();
    }
    team_member(&w[0]);
    for (int t = 1; t < THREADS; t++)
        pthread_join(thread[t], NULL);
    pthread_barrier_destroy(&team_meeting);
}

/* ---- buffers between canaries ---- */

enum { GUARD = 256, CANARY = 0xA5, MOST_BUFFERS = 64 };

static struct {
    unsigned char *at;
    size_t bytes;
} buffers[MOST_BUFFERS];
static int n_buffers;

/* 64-byte aligned, full of NaN (as floats and as bf16). */
static void *buffer(size_t bytes)
{
    size_t whole = (bytes + 63) / 64 * 64 + 2 * GUARD;
    unsigned char *at = aligned_alloc(64, whole);
    if (!at || n_buffers == MOST_BUFFERS)
        abort();
    memset(at, CANARY, whole);
    memset(at + GUARD, 0xff, bytes);
    buffers[n_buffers].at = at;
    buffers[n_buffers++].bytes = bytes;
    return at + GUARD;
}

static float *floats(size_t n)
{
    return buffer(n * sizeof(float));
}

static int failures;

/* Frees all buffers; an overwritten canary is a failure of `what`. */
static void buffers_free(const char *what)
{
    for (int i = 0; i < n_buffers; i++) {
        size_t whole = (buffers[i].bytes + 63) / 64 * 64 + 2 * GUARD;
        for (size_t b = 0; b < whole; b++) {
            bool inside = b >= GUARD && b < GUARD + buffers[i].bytes;
            if (inside || buffers[i].at[b] == CANARY)
                continue;
            printf("FAIL %s: buffer %d of %zu bytes written at byte %td\n", what, i,
                   buffers[i].bytes, (ptrdiff_t)b - GUARD);
            failures++;
            break;
        }
        free(buffers[i].at);
    }
    n_buffers = 0;
}

/* ---- numbers ---- */

static uint64_t random_state = 88172645463325252u;

/* Uniform in (-1, 1). */
static float random_float(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (float)(int32_t)(random_state >> 32) * 0x1p-31f;
}

static float *random_floats(size_t n, float scale, float around)
{
    float *x = floats(n);
    for (size_t i = 0; i < n; i++)
        x[i] = around + scale * random_float();
    return x;
}

/* got[i] against want[i], both within tolerance[i]; NaN never passes. */
static void compare(const char *shape_name, const char *what, const float *got, const double *want,
                    const double *tolerance, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double off = fabs((double)got[i] - want[i]);
        if (off <= tolerance[i])
            continue;
        printf("FAIL %s: %s: element %zu of %zu is %.9g, should be %.9g +- %.2g\n", shape_name,
               what, i, n, (double)got[i], want[i], tolerance[i]);
        failures++;
        return;
    }
}

#endif

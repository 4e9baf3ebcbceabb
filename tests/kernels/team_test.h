/* team_test.h - a small team of threads for kernel tests and benchmarks: a barrier that spins, then
 * yields, so that more threads than cores go on too. */
#ifndef TEAM_TEST_H
#define TEAM_TEST_H

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "tiles.h"

enum { TEAM_MOST = 64 };

static struct {
    int threads;
    atomic_int waiting, meeting;
    void (*work)(void *arg, int tid);
    void *arg;
    pthread_t thread[TEAM_MOST];
    int tid[TEAM_MOST];
} test_team;

void team_barrier(int tid);
void team_barrier(int tid)
{
    (void)tid;
    int now = atomic_load(&test_team.meeting);
    if (atomic_fetch_add(&test_team.waiting, 1) + 1 == test_team.threads) {
        atomic_store(&test_team.waiting, 0);
        atomic_fetch_add(&test_team.meeting, 1);
        return;
    }
    for (int i = 0; atomic_load(&test_team.meeting) == now; i++)
        if (i > 2000)
            sched_yield();
}

static void *team_loop(void *number)
{
    const int tid = *(int *)number;
    for (;;) {
        team_barrier(tid);
        if (!test_team.work)
            return NULL;
        test_team.work(test_team.arg, tid);
        team_barrier(tid);
    }
}

/* The team stands ready in a barrier between runs; threads <= TEAM_MOST. */
static void test_team_start(int threads)
{
    test_team.threads = threads;
    tiles_allow(); /* kernels with a tile unit have been compiled only where there is one */
    for (int i = 1; i < threads; i++) {
        test_team.tid[i] = i;
        pthread_create(&test_team.thread[i], NULL, team_loop, &test_team.tid[i]);
    }
}

static void test_team_run(void (*work)(void *arg, int tid), void *arg)
{
    test_team.work = work;
    test_team.arg = arg;
    team_barrier(0);
    work(arg, 0);
    team_barrier(0);
}

static void test_team_stop(void)
{
    test_team.work = NULL;
    team_barrier(0);
    for (int i = 1; i < test_team.threads; i++)
        pthread_join(test_team.thread[i], NULL);
}
#endif

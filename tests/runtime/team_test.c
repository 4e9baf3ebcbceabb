/* team_test.c - the barrier keeps threads together, with more threads than cores too. */
#include <stdatomic.h>
#include <time.h>

#include "rt_check.h"

enum { MOST = 16 };

struct count {
    int threads, rounds;
    int at[MOST]; /* plain memory: the barrier must order it */
    atomic_int wrong;
};

static void count_work(void *arg, int tid)
{
    struct count *c = arg;
    for (int i = 1; i <= c->rounds; i++) {
        c->at[tid] = i;
        team_barrier(tid);
        for (int t = 0; t < c->threads; t++)
            if (c->at[t] != i)
                atomic_fetch_add(&c->wrong, 1);
        team_barrier(tid);
    }
}

static void test_together(int threads, int rounds)
{
    struct count c = {.threads = threads, .rounds = rounds};
    team_start(threads);
    for (int run = 0; run < 5; run++) {
        memset(c.at, 0, sizeof c.at);
        team_run(count_work, &c);
        CHECK(c.at[threads - 1] == rounds);
    }
    team_stop();
    CHECK(atomic_load(&c.wrong) == 0);
}

static void slow_work(void *arg, int tid)
{
    int *sum = arg;
    struct timespec nap = {0, 30000000};
    if (tid == 1)
        nanosleep(&nap, NULL); /* the others fall asleep in the barrier */
    team_barrier(tid);
    if (tid == 0)
        *sum += 1;
}

static void test_sleepers(void)
{
    int sum = 0;
    struct timespec nap = {0, 20000000};
    team_start(3);
    for (int i = 0; i < 3; i++) {
        nanosleep(&nap, NULL); /* the workers fall asleep between runs */
        team_run(slow_work, &sum);
    }
    team_stop();
    CHECK(sum == 3);
}

static void idle_work(void *arg, int tid)
{
    (void)arg;
    for (int i = 0; i < 20000; i++)
        team_barrier(tid);
}

/* Not a check: the machine may be busy. */
static void show_latency(void)
{
    team_start(2);
    team_run(idle_work, NULL);
    double best = 1;
    for (int i = 0; i < 5; i++) {
        double before = clock_seconds();
        team_run(idle_work, NULL);
        double each = (clock_seconds() - before) / 20000;
        best = each < best ? each : best;
    }
    team_stop();
    printf("barrier of 2 threads: %.0f ns\n", best * 1e9);
}

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* An idle team must leave the processor to others. */
static void test_idle_is_cheap(void)
{
    struct timespec nap = {0, 200000000};
    team_start(4);
    double before = cpu_seconds();
    nanosleep(&nap, NULL);
    CHECK(cpu_seconds() - before < 0.05);
    team_stop();
}

int main(void)
{
    test_together(1, 10);
    test_together(2, 3000);
    test_together(3, 300);
    test_together(5, 100);
    test_together(8, 50);
    test_together(13, 30);
    test_sleepers();
    test_idle_is_cheap();
    show_latency();
    return failures != 0;
}

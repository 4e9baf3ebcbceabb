/* team.c - the threads of a program and their barrier.
 *
 * The barrier is a dissemination barrier: in round k thread i tells thread i + 2^k and hears from
 * thread i - 2^k, so two threads need one message each way and 64 threads six rounds. A message is
 * the number of the meeting, written to a word that only one pair of threads shares. Who waits
 * spins first, yields then, and at last sleeps on the word: with fewer cores than threads nobody
 * burns the time that the thread he waits for needs. Between two team_runs the workers wait in the
 * same barrier. */
#define _GNU_SOURCE /* sched_getaffinity */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#else
#include <time.h>
#endif

#include "runtime.h"
#include "tiles.h"

enum {
    MAX_THREADS = 256,
    ROUNDS = 8,   /* 2^8 threads */
    SPINS = 400,  /* pauses before yielding, about 10 us; fewer where cores are short */
    YIELDS = 200, /* before sleeping */
    ASLEEP = 1u   /* the reader of this word sleeps */
};

struct member {
    /* heard[k]: 2 * (number of the last meeting announced by the partner of round k) + ASLEEP */
    struct {
        _Atomic uint32_t word;
        char pad[60]; /* a line of its own: the partner writes it while others are read */
    } heard[ROUNDS];
    uint32_t meeting; /* this thread's own count */
    pthread_t thread;
    char pad[48];
};

static struct {
    struct member member[MAX_THREADS];
    int threads, spins;
    void (*work)(void *arg, int tid); /* NULL: the team is dismissed */
    void *arg;
} team;

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#endif
}

/* Sleeps while *word == seen; may wake for no reason. */
static void word_sleep(_Atomic uint32_t *word, uint32_t seen)
{
#if defined(__linux__)
    syscall(SYS_futex, (uint32_t *)word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
#else
    struct timespec nap = {0, 50000};
    if (atomic_load_explicit(word, memory_order_relaxed) == seen)
        nanosleep(&nap, NULL);
#endif
}

static void word_wake(_Atomic uint32_t *word)
{
#if defined(__linux__)
    syscall(SYS_futex, (uint32_t *)word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
#else
    (void)word;
#endif
}

static void tell(_Atomic uint32_t *word, uint32_t meeting)
{
    uint32_t before = atomic_exchange_explicit(word, meeting << 1, memory_order_acq_rel);
    if (before & ASLEEP)
        word_wake(word);
}

/* The partner is at most one meeting ahead, so a difference in 31 bits tells early from late. */
static bool reached(uint32_t word, uint32_t meeting)
{
    return (int32_t)((word & ~ASLEEP) - (meeting << 1)) >= 0;
}

static void hear(_Atomic uint32_t *word, uint32_t meeting)
{
    for (int i = 0; i < team.spins; i++) {
        if (reached(atomic_load_explicit(word, memory_order_acquire), meeting))
            return;
        relax();
    }
    for (int i = 0; i < YIELDS; i++) {
        if (reached(atomic_load_explicit(word, memory_order_acquire), meeting))
            return;
        sched_yield();
    }
    for (;;) {
        uint32_t now = atomic_load_explicit(word, memory_order_acquire);
        if (reached(now, meeting))
            return;
        if ((now & ASLEEP) ||
            atomic_compare_exchange_strong_explicit(word, &now, now | ASLEEP, memory_order_acq_rel,
                                                    memory_order_acquire))
            word_sleep(word, now | ASLEEP);
    }
}

void team_barrier(int tid)
{
    int n = team.threads;
    if (n < 2)
        return;
    struct member *self = &team.member[tid];
    uint32_t meeting = ++self->meeting;
    for (int round = 0, step = 1; step < n; round++, step <<= 1) {
        int to = tid + step < n ? tid + step : tid + step - n;
        tell(&team.member[to].heard[round].word, meeting);
        hear(&self->heard[round].word, meeting);
    }
}

/* Numbers below the normal range count as 0 in this thread: they carry no information that training
 * or inference could use, and slow some processors down thirtyfold. */
static void flush_denormals(void)
{
#if defined(__x86_64__)
    __builtin_ia32_ldmxcsr(__builtin_ia32_stmxcsr() | 0x8040); /* flush to zero, read as zero */
#elif defined(__aarch64__)
    uint64_t control;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control));
    __asm__ volatile("msr fpcr, %0" : : "r"(control | 1u << 24));
#endif
}

static void *worker(void *arg)
{
    int tid = (int)(intptr_t)arg;
    flush_denormals();
    for (;;) {
        team_barrier(tid);
        if (!team.work)
            return NULL;
        team.work(team.arg, tid);
        team_barrier(tid);
    }
}

static int cores(void)
{
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return CPU_COUNT(&set);
#endif
    return (int)sysconf(_SC_NPROCESSORS_ONLN);
}

void team_start(int threads)
{
    if (threads < 1 || threads > MAX_THREADS) {
        fprintf(stderr, "%s: error: this program was built for %d threads; 1 to %d work\n",
                program_name, threads, MAX_THREADS);
        exit(STATUS_WORLD);
    }
    flush_denormals();
    tiles_allow(); /* main() has told of it where the program needs them and they are not here */
    team.threads = threads;
    team.spins = threads <= cores() ? SPINS : SPINS / 100;
    for (int i = 0; i < threads; i++) {
        team.member[i].meeting = 0;
        for (int k = 0; k < ROUNDS; k++)
            atomic_store_explicit(&team.member[i].heard[k].word, 0, memory_order_relaxed);
    }
    for (int i = 1; i < threads; i++) {
        if (pthread_create(&team.member[i].thread, NULL, worker, (void *)(intptr_t)i) == 0)
            continue;
        fprintf(stderr, "%s: error: cannot start thread %d of %d: raise the limit on processes\n",
                program_name, i + 1, threads);
        exit(STATUS_WORLD);
    }
}

void team_run(void (*work)(void *arg, int tid), void *arg)
{
    team.work = work;
    team.arg = arg;
    team_barrier(0);
    work(arg, 0);
    team_barrier(0);
}

void team_stop(void)
{
    team.work = NULL;
    team_barrier(0);
    for (int i = 1; i < team.threads; i++)
        pthread_join(team.member[i].thread, NULL);
    team.threads = 0;
}

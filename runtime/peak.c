/* peak.c - ceilings of this machine. The library is built for the oldest processor of its kind, so
 * the loops exist once per vector width and the widest supported one is chosen at run time. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "archrt.h"
#include "peak.h"
#include "tiles.h"

enum { MAX_BURSTS = 64 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Results go here, so that no loop is dead. */
static volatile float float_sink;
static volatile uint64_t word_sink;

/* Twelve independent chains cover two multiply-add pipes of latency up to six. */
#define DEFINE_LOOPS(name, bytes, attribute)                                                       \
    typedef float name##_floats __attribute__((vector_size(bytes)));                               \
    typedef uint64_t name##_words __attribute__((vector_size(bytes), may_alias));                  \
    attribute static double name##_multiply_add(long rounds)                                       \
    {                                                                                              \
        name##_floats b = {0}, c = {0};                                                            \
        b += 0.999f;                                                                               \
        c += 0.001f;                                                                               \
        name##_floats a0 = c, a1 = b, a2 = c, a3 = b, a4 = c, a5 = b;                              \
        name##_floats a6 = b, a7 = c, a8 = b, a9 = c, a10 = b, a11 = c;                            \
        for (long i = 0; i < rounds; i++) {                                                        \
            a0 = a0 * b + c, a1 = a1 * b + c, a2 = a2 * b + c, a3 = a3 * b + c;                    \
            a4 = a4 * b + c, a5 = a5 * b + c, a6 = a6 * b + c, a7 = a7 * b + c;                    \
            a8 = a8 * b + c, a9 = a9 * b + c, a10 = a10 * b + c, a11 = a11 * b + c;                \
            /* Keeps the chains apart: equal ones would be computed once. */                       \
            __asm__ volatile(""                                                                    \
                             : "+" VECTOR_REGISTER(a0), "+" VECTOR_REGISTER(a1),                   \
                               "+" VECTOR_REGISTER(a2), "+" VECTOR_REGISTER(a3),                   \
                               "+" VECTOR_REGISTER(a4), "+" VECTOR_REGISTER(a5),                   \
                               "+" VECTOR_REGISTER(a6), "+" VECTOR_REGISTER(a7),                   \
                               "+" VECTOR_REGISTER(a8), "+" VECTOR_REGISTER(a9),                   \
                               "+" VECTOR_REGISTER(a10), "+" VECTOR_REGISTER(a11));                \
        }                                                                                          \
        a0 += a1 + a2 + a3 + a4 + a5 + a6 + a7 + a8 + a9 + a10 + a11;                              \
        float_sink = a0[0];                                                                        \
        return 12.0 * 2.0 * (double)(bytes / sizeof(float)) * (double)rounds;                      \
    }                                                                                              \
    attribute static void name##_read(const char *at, size_t length)                               \
    {                                                                                              \
        const name##_words *p = (const name##_words *)at, *end = p + length / (bytes);             \
        name##_words s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};                                       \
        for (; end - p >= 8; p += 8) {                                                             \
            s0 += p[0] ^ p[4], s1 += p[1] ^ p[5];                                                  \
            s2 += p[2] ^ p[6], s3 += p[3] ^ p[7];                                                  \
        }                                                                                          \
        s0 += s1 + s2 + s3;                                                                        \
        word_sink = s0[0] + s0[1];                                                                 \
    }

#if defined(__x86_64__)
#define VECTOR_REGISTER(v) "x"(v)
DEFINE_LOOPS(wide16, 16, )
DEFINE_LOOPS(wide32, 32, __attribute__((target("avx2,fma"))))
#undef VECTOR_REGISTER
#define VECTOR_REGISTER(v) "v"(v)
DEFINE_LOOPS(wide64, 64, __attribute__((target("avx512f"))))
#elif defined(__aarch64__)
#define VECTOR_REGISTER(v) "w"(v)
DEFINE_LOOPS(wide16, 16, )
#else
#define VECTOR_REGISTER(v) "m"(v)
DEFINE_LOOPS(wide16, 16, )
#endif

#if defined(__x86_64__) && defined(__linux__)
static double tiles_in_registers(long rounds)
{
    return tile_products(rounds, false);
}
#endif

struct loops {
    const char *isa;
    double (*multiply_add)(long rounds);
    void (*read)(const char *at, size_t length);
};

static struct loops loops_of_this_machine(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f"))
        return (struct loops){"AVX-512", wide64_multiply_add, wide64_read};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return (struct loops){"AVX2", wide32_multiply_add, wide32_read};
    return (struct loops){"SSE2", wide16_multiply_add, wide16_read};
#elif defined(__aarch64__)
    return (struct loops){"NEON", wide16_multiply_add, wide16_read};
#else
    return (struct loops){"128-bit", wide16_multiply_add, wide16_read};
#endif
}

/* One measurement: every thread does its part of a burst between two barriers, over and over. */
struct run {
    struct loops loops;
    int threads;
    double seconds;
    long rounds; /* of multiply-adds a burst; 0: memory */
    char *from, *to;
    size_t bytes;  /* of each buffer */
    double work;   /* of one thread's burst of multiply-adds */
    double rate;   /* best burst, units/s of all threads */
    double finish; /* decided by thread 0, so that all stop at the same burst */
};

static void burst(struct run *r, int tid)
{
    if (r->rounds) {
        double work = r->loops.multiply_add(r->rounds);
        if (tid == 0)
            r->work = work * r->threads;
        return;
    }
    size_t lines = r->bytes / 64;
    size_t begin = lines * (size_t)tid / (size_t)r->threads * 64;
    size_t end = lines * ((size_t)tid + 1) / (size_t)r->threads * 64;
    if (r->to)
        memcpy(r->to + begin, r->from + begin, end - begin);
    else
        r->loops.read(r->from + begin, end - begin);
}

static void measure(void *arg, int tid)
{
    struct run *r = arg;
    double started = now();
    burst(r, tid); /* warms up clocks and caches; brings in pages on the thread that uses them */
    for (int i = 0; i < MAX_BURSTS; i++) {
        team_barrier(tid);
        double t = now();
        burst(r, tid);
        team_barrier(tid);
        t = now() - t;
        if (tid == 0) {
            double work = r->rounds ? r->work : (double)r->bytes * (r->to ? 2 : 1);
            if (t > 0 && work / t > r->rate)
                r->rate = work / t;
            r->finish = now() - started;
        }
        team_barrier(tid);
        if (i >= 2 && r->finish > r->seconds)
            return;
    }
}

static double arithmetic(struct loops loops, int threads, double seconds)
{
    struct run r = {.loops = loops, .threads = threads, .seconds = seconds};
    /* Bursts of about a millisecond: long against a barrier, short against a time slice. */
    r.rounds = 1000;
    double t = now();
    r.loops.multiply_add(r.rounds);
    t = now() - t;
    double rounds = t > 0 ? 1e-3 * (double)r.rounds / t : 1e5;
    r.rounds = rounds < 1000 ? 1000 : rounds > 1e8 ? (long)1e8 : (long)rounds;
    team_run(measure, &r);
    return r.rate;
}

double peak_flops(int threads, double seconds)
{
    return arithmetic(loops_of_this_machine(), threads, seconds);
}

double peak_products(int threads, bool tiles, double seconds)
{
    struct loops loops = loops_of_this_machine();
#if defined(__x86_64__) && defined(__linux__)
    if (tiles)
        loops.multiply_add = tiles_in_registers;
#else
    (void)tiles;
#endif
    return arithmetic(loops, threads, seconds);
}

static char *map(size_t bytes)
{
    char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
#ifdef MADV_HUGEPAGE
    madvise(p, bytes, MADV_HUGEPAGE);
#endif
    return p;
}

static void touch(void *arg, int tid)
{
    struct run *r = arg;
    size_t lines = r->bytes / 64;
    size_t begin = lines * (size_t)tid / (size_t)r->threads * 64;
    size_t end = lines * ((size_t)tid + 1) / (size_t)r->threads * 64;
    memset(r->from + begin, 1 + tid, end - begin); /* else every page reads as the one zero page */
    if (r->to)
        memset(r->to + begin, 1, end - begin);
}

static double stream(int threads, size_t bytes, double seconds, int copy)
{
    struct run r = {.loops = loops_of_this_machine(), .threads = threads, .seconds = seconds};
    r.bytes = (bytes + 4095) / 4096 * 4096;
    r.from = map(r.bytes);
    r.to = copy ? map(r.bytes) : NULL;
    if (r.from && (r.to || !copy)) {
        team_run(touch, &r);
        team_run(measure, &r);
    }
    if (r.from)
        munmap(r.from, r.bytes);
    if (r.to)
        munmap(r.to, r.bytes);
    return r.rate;
}

double peak_read(int threads, size_t bytes, double seconds)
{
    return stream(threads, bytes ? bytes : 4096, seconds, 0);
}

double peak_copy(int threads, size_t bytes, double seconds)
{
    return stream(threads, bytes ? bytes : 4096, seconds, 1);
}

void peak_measure(int threads, bool tiles, size_t working_set, struct peak *out)
{
    const size_t memory = (size_t)256 << 20; /* beyond the last-level caches of today */
    *out = (struct peak){.isa = loops_of_this_machine().isa, .threads = threads};
    out->flops = peak_flops(threads, 0.06);
    out->products = tiles ? peak_products(threads, true, 0.06) : out->flops;
    out->read_memory = peak_read(threads, memory, 0.1);
    out->copy = peak_copy(threads, memory / 4, 0.06);
    if (working_set == 0 || working_set >= memory) {
        out->working_set = memory;
        out->read = out->read_memory;
        return;
    }
    out->working_set = working_set;
    out->read = peak_read(threads, working_set, 0.06);
}

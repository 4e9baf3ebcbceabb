/* device.c - this machine as a `device`: what it can do, measured once and remembered.
 *
 * archc is built for the baseline instruction set, so the two kernels that measure (fused
 * multiply-adds and a streaming read) are compiled for several and chosen at run time. Vectors are
 * GNU vectors. Rates are taken from many short windows, since other programs only ever make them
 * worse. */
#define _GNU_SOURCE
#include "law.h"

#include "../runtime/tiles.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Fractions of the measured limits that the kernels of a compiled program reach: those that predict
 * the 24 shapes of tests/bench/predict.sh without bias on two AVX-512 cores, without and with
 * tiles. */
static const double kernels_matmul = 0.63, kernels_tiles = 0.52, kernels_attention = 0.40,
                    kernels_stream = 0.90;

enum { MAX_THREADS = 64, FORMAT_VERSION = 6 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- kernels, one copy per instruction set --------------------------------------------------- */

/* Twelve independent accumulators hide the latency of two fused multiply-adds a cycle. */
#define FMA_KERNEL(name, attribute, bytes)                                                         \
    attribute static float name(long rounds, float seed)                                           \
    {                                                                                              \
        typedef float v __attribute__((vector_size(bytes)));                                       \
        v a0 = seed - (v){0}, a1 = a0 + 1, a2 = a0 + 2, a3 = a0 + 3, a4 = a0 + 4, a5 = a0 + 5;     \
        v a6 = a0 + 6, a7 = a0 + 7, a8 = a0 + 8, a9 = a0 + 9, aa = a0 + 10, ab = a0 + 11;          \
        const v m = (1 - 1e-6f) - (v){0} * seed, c = 1e-6f * seed - (v){0};                        \
        for (long i = 0; i < rounds; i++) {                                                        \
            a0 = a0 * m + c, a1 = a1 * m + c, a2 = a2 * m + c, a3 = a3 * m + c;                    \
            a4 = a4 * m + c, a5 = a5 * m + c, a6 = a6 * m + c, a7 = a7 * m + c;                    \
            a8 = a8 * m + c, a9 = a9 * m + c, aa = aa * m + c, ab = ab * m + c;                    \
        }                                                                                          \
        v s = a0 + a1 + a2 + a3 + a4 + a5 + a6 + a7 + a8 + a9 + aa + ab;                           \
        return s[0] + s[bytes / 4 - 1];                                                            \
    }                                                                                              \
    enum { name##_flops = 12 * 2 * (bytes) / 4 }

/* Reads `bytes_` (a multiple of 512) in order. */
#define READ_KERNEL(name, attribute, bytes)                                                        \
    attribute static float name(const float *p, size_t bytes_)                                     \
    {                                                                                              \
        typedef float v __attribute__((vector_size(bytes)));                                       \
        enum { W = (bytes) / 4 };                                                                  \
        v a = {0}, b = {0}, c = {0}, d = {0};                                                      \
        for (const float *end = p + bytes_ / 4; p < end; p += 8 * W) {                             \
            const v *q = (const v *)p;                                                             \
            a += q[0] + q[4];                                                                      \
            b += q[1] + q[5];                                                                      \
            c += q[2] + q[6];                                                                      \
            d += q[3] + q[7];                                                                      \
        }                                                                                          \
        v s = a + b + c + d;                                                                       \
        return s[0] + s[W - 1];                                                                    \
    }                                                                                              \
    struct name##_semicolon

FMA_KERNEL(fma_base, , 16);
READ_KERNEL(read_base, , 16);
#if defined(__x86_64__)
FMA_KERNEL(fma_256, __attribute__((target("avx2,fma"))), 32);
READ_KERNEL(read_256, __attribute__((target("avx2"))), 32);
FMA_KERNEL(fma_512, __attribute__((target("avx512f"))), 64);
READ_KERNEL(read_512, __attribute__((target("avx512f"))), 64);
#endif

struct kernels {
    const char *isa;
    float (*fma)(long rounds, float seed);
    double fma_flops; /* of one round */
    float (*read)(const float *p, size_t bytes);
};

static struct kernels pick_kernels(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f"))
        return (struct kernels){"avx512f", fma_512, fma_512_flops, read_512};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return (struct kernels){"avx2", fma_256, fma_256_flops, read_256};
#endif
    return (struct kernels){"baseline", fma_base, fma_base_flops, read_base};
}

/* ---- a team that starts together ------------------------------------------------------------- */

enum { MAX_WINDOWS = 512 };

struct team {
    struct kernels kernels;
    int threads;
    void (*work)(struct team *t, int tid);
    pthread_barrier_t start;
    double result[MAX_THREADS]; /* what the work found, a thread */
    /* what the work is about */
    char *slab;
    size_t bytes; /* a thread */
    atomic_int arrived, turn, enough;
    volatile float sink[MAX_THREADS];
};

struct member {
    struct team *team;
    int tid;
};

static void *member_run(void *arg)
{
    struct member *m = arg;
    pthread_barrier_wait(&m->team->start);
    m->team->work(m->team, m->tid);
    return NULL;
}

/* False: the threads cannot be had. */
static bool team_run(struct team *t, void (*work)(struct team *t, int tid))
{
    pthread_t ids[MAX_THREADS];
    struct member members[MAX_THREADS];
    t->work = work;
    if (pthread_barrier_init(&t->start, NULL, (unsigned)t->threads))
        return false;
    for (int i = 0; i < t->threads; i++)
        members[i] = (struct member){t, i};
    for (int i = 1; i < t->threads; i++)
        if (pthread_create(&ids[i], NULL, member_run, &members[i])) {
            /* Those that started wait at the barrier for ever; without them there is no
             * measurement. */
            return false;
        }
    member_run(&members[0]);
    for (int i = 1; i < t->threads; i++)
        pthread_join(ids[i], NULL);
    pthread_barrier_destroy(&t->start);
    return true;
}

/* ---- what is measured ---------------------------------------------------------------------------

   Each thread times many windows of well under a millisecond, shorter than a time slice, and
   reports the third quartile of its rates: what another program takes of the processor falls into
   few of them. */

struct windows {
    double rate[MAX_WINDOWS];
    int n;
    double begin;
};

static bool windows_open(const struct windows *w, double seconds)
{
    return w->n < MAX_WINDOWS && now() - w->begin < seconds;
}

static int ascending(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

static double windows_rate(struct windows *w)
{
    qsort(w->rate, (size_t)w->n, sizeof *w->rate, ascending);
    return w->n ? w->rate[w->n * 3 / 4] : 0;
}

static double team_sum(const struct team *t)
{
    double sum = 0;
    for (int i = 0; i < t->threads; i++)
        sum += t->result[i];
    return sum;
}

static void work_fma(struct team *t, int tid)
{
    struct windows w = {.begin = now()};
    const long rounds = 20000;
    while (windows_open(&w, 0.3)) {
        double start = now();
        t->sink[tid] = t->kernels.fma(rounds, 1.0f + (float)tid);
        w.rate[w.n++] = t->kernels.fma_flops * (double)rounds / (now() - start);
    }
    t->result[tid] = windows_rate(&w);
}

/* fp32 products on the tile unit, with operands in the caches. */
static void work_tiles(struct team *t, int tid)
{
    t->result[tid] = 0;
#if defined(__x86_64__) && defined(__linux__)
    struct windows w = {.begin = now()};
    while (windows_open(&w, 0.3)) {
        double start = now();
        double flops = tile_products(6000, true);
        w.rate[w.n++] = flops / (now() - start);
    }
    t->result[tid] = windows_rate(&w);
#endif
}

static double measure_tiles(struct team *t)
{
    return tiles_allow() && team_run(t, work_tiles) ? team_sum(t) : 0;
}

static double measure_flops(struct team *t)
{
    return team_run(t, work_fma) ? team_sum(t) : 0;
}

static void work_touch(struct team *t, int tid)
{
    memset(t->slab + (size_t)tid * t->bytes, 1, t->bytes);
}

/* Reads its share again and again, a window at a time. */
static void work_read(struct team *t, int tid)
{
    const char *share = t->slab + (size_t)tid * t->bytes;
    size_t window = t->bytes < (size_t)1 << 20 ? t->bytes : (size_t)1 << 20, at = 0;
    struct windows w = {0};
    t->sink[tid] =
        t->kernels.read((const float *)share, t->bytes < (size_t)64 << 20 ? t->bytes : 512);
    w.begin = now();
    while (windows_open(&w, 0.15)) {
        double start = now();
        t->sink[tid] = t->kernels.read((const float *)(share + at), window);
        w.rate[w.n++] = (double)window / (now() - start);
        at = at + 2 * window <= t->bytes ? at + window : 0;
    }
    t->result[tid] = windows_rate(&w);
}

/* Bytes/s of all threads together, each reading its own `bytes`. */
static double measure_read(struct team *t, size_t bytes)
{
    t->bytes = bytes & ~(size_t)511;
    return team_run(t, work_read) ? team_sum(t) : 0;
}

static void pass_barrier(struct team *t)
{
    int turn = atomic_load(&t->turn);
    if (atomic_fetch_add(&t->arrived, 1) == t->threads - 1) {
        atomic_store(&t->arrived, 0);
        atomic_store(&t->turn, turn + 1);
        return;
    }
    for (int spins = 0; atomic_load(&t->turn) == turn; spins++)
        if (spins > 2000)
            sched_yield();
}

/* The shortest of many runs: a team that is not running as a whole waits for a time slice. The
 * first thread decides when it is enough, before a barrier, so that all stop after the same one. */
static void work_barrier(struct team *t, int tid)
{
    const int rounds = 50;
    double best = INFINITY, begin = now();
    for (int trial = 0; trial < 2000; trial++) {
        if (tid == 0)
            atomic_store(&t->enough, now() - begin > 0.4);
        pass_barrier(t);
        if (atomic_load(&t->enough))
            break;
        double start = now();
        for (int i = 0; i < rounds; i++)
            pass_barrier(t);
        best = fmin(best, (now() - start) / rounds);
    }
    t->result[tid] = best;
}

static double measure_barrier(struct team *t)
{
    return team_run(t, work_barrier) && isfinite(t->result[0]) ? t->result[0] : 1e-6;
}

/* Where the reading rate falls from the cache's to the memory's. The rate is taken at twice the sum
 * of the private caches, which no thread's share fits into any more. */
static void find_cache(struct team *t, struct device *d, size_t largest)
{
    enum { SIZES = 24 };
    double rate[SIZES];
    size_t size[SIZES];
    long l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
    size_t private_bytes = (size_t)(l2 > 0 ? l2 : 1 << 20) * (size_t)t->threads;
    int n = 0;
    for (size_t s = private_bytes * 2; s < largest && n < SIZES - 1; s += s / 2) {
        size[n] = s;
        rate[n++] = measure_read(t, s / (size_t)t->threads);
    }
    d->memory_bandwidth = measure_read(t, largest / (size_t)t->threads);
    if (n == 0)
        return;
    double knee = sqrt(rate[0] * d->memory_bandwidth);
    if (rate[0] < 1.25 * d->memory_bandwidth) { /* no shared cache to speak of */
        d->cache_bandwidth = measure_read(t, private_bytes / 2 / (size_t)t->threads);
        d->cache_bytes = (double)private_bytes;
        return;
    }
    d->cache_bandwidth = rate[0];
    for (int i = 0; i < n && rate[i] > knee; i++)
        d->cache_bytes = (double)size[i];
}

/* Cores that this process may run on, hyper-threads of one core counted once: a second thread on a
 * core adds nothing to kernels that keep it busy. */
static int usable_cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set))
        return 1;
    int cores = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &set))
            continue;
        char path[96];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list",
                 cpu);
        FILE *f = fopen(path, "r");
        int first = cpu;
        if (f) {
            if (fscanf(f, "%d", &first) != 1)
                first = cpu;
            fclose(f);
        }
        cores += first == cpu || !CPU_ISSET(first, &set);
    }
    return cores < 1 ? 1 : cores > MAX_THREADS ? MAX_THREADS : cores;
}

static bool measure(struct team *t, struct device *d, const char **why)
{
    d->threads = t->threads;
    d->memory_bytes = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    size_t largest = (size_t)512 << 20;
    while (largest > (size_t)16 << 20 && (double)largest > d->memory_bytes / 8)
        largest /= 2;
    t->slab = mmap(NULL, largest, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (t->slab == MAP_FAILED) {
        *why = "no memory for the measurement of this machine";
        return false;
    }
    madvise(t->slab, largest, MADV_HUGEPAGE);
    t->bytes = largest / (size_t)t->threads;
    bool threads = team_run(t, work_touch);
    double flops = threads ? measure_flops(t) : 0;
    /* bf16 and int8 weights are widened to fp32 before they are multiplied. */
    for (int i = 0; i < DTYPE_COUNT; i++)
        d->flops[i] = flops;
    d->products = flops > 0 ? measure_tiles(t) : 0;
    if (flops > 0) {
        find_cache(t, d, largest);
        d->launch = measure_barrier(t);
    }
    munmap(t->slab, largest);
    if (flops <= 0 || d->memory_bandwidth <= 0) {
        *why = "the threads for the measurement of this machine could not be started";
        return false;
    }
    d->eff_matmul = d->products > 0 ? kernels_tiles : kernels_matmul;
    d->eff_attention = kernels_attention;
    d->eff_stream = kernels_stream;
    return true;
}

bool device_measure(struct device *out, const char **why)
{
    struct team *t = calloc(1, sizeof *t);
    if (!t) {
        *why = "no memory for the measurement of this machine";
        return false;
    }
    memset(out, 0, sizeof *out);
    out->name = "host";
    out->is_host = true;
    t->kernels = pick_kernels();
    t->threads = usable_cores();
    bool done = measure(t, out, why);
    free(t);
    return done;
}

/* ---- as text, and back ----------------------------------------------------------------------- */

/* One row a key: the same table prints a device and reads the file in the cache. */
static const struct key {
    const char *name, *unit;
    size_t offset;
    double scale;
    bool nested; /* in efficiency { } */
} keys[] = {
    {"fp32", " GFLOP/s", offsetof(struct device, flops[DTYPE_F32]), 1e9, false},
    {"bf16", " GFLOP/s", offsetof(struct device, flops[DTYPE_BF16]), 1e9, false},
    {"int8", " GFLOP/s", offsetof(struct device, flops[DTYPE_I8]), 1e9, false},
    {"products", " GFLOP/s", offsetof(struct device, products), 1e9, false},
    {"memory_bandwidth", " GB/s", offsetof(struct device, memory_bandwidth), 1e9, false},
    {"memory", " MB", offsetof(struct device, memory_bytes), 1e6, false},
    {"cache_bandwidth", " GB/s", offsetof(struct device, cache_bandwidth), 1e9, false},
    {"cache", " MB", offsetof(struct device, cache_bytes), 1e6, false},
    {"launch", " us", offsetof(struct device, launch), 1e-6, false},
    {"matmul", "", offsetof(struct device, eff_matmul), 1, true},
    {"attention", "", offsetof(struct device, eff_attention), 1, true},
    {"stream", "", offsetof(struct device, eff_stream), 1, true},
};
enum { N_KEYS = sizeof keys / sizeof *keys };

static double *field(struct device *d, const struct key *k)
{
    return (double *)((char *)d + k->offset);
}

static void print_keys(const struct device *d, bool nested, int indent, FILE *out)
{
    for (int i = 0; i < N_KEYS; i++) {
        double v = *field((struct device *)d, &keys[i]) / keys[i].scale;
        if (keys[i].nested == nested && (v > 0 || nested))
            fprintf(out, "%*s%-*s = %.6g%s\n", indent, "", nested ? 9 : 16, keys[i].name, v,
                    keys[i].unit);
    }
}

static void print_declaration(const struct device *d, const char *source, FILE *out)
{
    fprintf(out, "device %s {\n", d->name);
    if (source)
        fprintf(out, "    source           = \"%s\"\n", source);
    print_keys(d, false, 4, out);
    if (d->threads > 0)
        fprintf(out, "    threads          = %d\n", d->threads);
    fprintf(out, "    efficiency {\n");
    print_keys(d, true, 8, out);
    fprintf(out, "    }\n}\n");
}

/* What the measurement is valid for: CPU, its cores in use, the instruction set, this file's
 * format. */
static void host_identity(char *out, size_t size)
{
    char model[96] = "unknown CPU", line[512], family[32] = "", stepping[32] = "";
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && fgets(line, sizeof line, f)) {
        if (line[0] == '\n')
            break; /* the first processor is enough */
        sscanf(line, "model name : %95[^\n]", model);
        sscanf(line, "model : %31[^\n]", family);
        sscanf(line, "stepping : %31[^\n]", stepping);
    }
    if (f)
        fclose(f);
    for (char *p = model; *p; p++)
        if (*p == '"' || *p == '\\' || (unsigned char)*p < 32 || (unsigned char)*p > 126)
            *p = ' ';
    snprintf(out, size, "measured (format %d): %s, model %d stepping %d, %d cores, %s",
             FORMAT_VERSION, model, atoi(family), atoi(stepping), usable_cores(),
             pick_kernels().isa);
}

void device_print(const struct device *d, FILE *out)
{
    char identity[256];
    host_identity(identity, sizeof identity);
    print_declaration(d, d->is_host ? identity : NULL, out);
}

static void read_line(char *line, struct device *d)
{
    char name[32];
    double value;
    if (sscanf(line, " %31[a-z0-9_] = %lf", name, &value) != 2)
        return;
    if (strcmp(name, "threads") == 0 && value >= 1 && value <= MAX_THREADS)
        d->threads = (int)value;
    for (int i = 0; i < N_KEYS; i++)
        if (strcmp(name, keys[i].name) == 0)
            *field(d, &keys[i]) = value * keys[i].scale;
}

/* A whole and plausible device: a truncated or edited file is measured again. */
static bool plausible(const struct device *d)
{
    for (int i = 0; i < N_KEYS; i++) {
        double v = *field((struct device *)d, &keys[i]);
        bool optional = keys[i].offset == offsetof(struct device, products);
        if (!isfinite(v) || v < 0 || (v == 0 && !optional) || (keys[i].nested && v > 1))
            return false;
    }
    return d->threads > 0;
}

static bool cache_read(const char *path, struct device *out)
{
    FILE *f = fopen(path, "r");
    if (!f)
        return false;
    char identity[256], line[512];
    bool same = false, whole = false;
    host_identity(identity, sizeof identity);
    for (int n = 0; n < 64 && fgets(line, sizeof line, f); n++) {
        same = same || strstr(line, identity);
        whole = line[0] == '}';
        read_line(line, out);
    }
    fclose(f);
    return same && whole && plausible(out);
}

/* NULL: neither variable is set, so there is nowhere to remember anything. */
static char *cache_directory(struct arena *a)
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (xdg && xdg[0] == '/')
        return arena_printf(a, "%s/archc", xdg);
    return home && home[0] == '/' ? arena_printf(a, "%s/.cache/archc", home) : NULL;
}

/* All or nothing, and nothing is no failure: written beside and renamed. */
static void cache_write(struct arena *a, const char *directory, const struct device *d)
{
    char *parent = arena_copy(a, directory, strlen(directory));
    *strrchr(parent, '/') = 0;
    mkdir(parent, 0755);
    mkdir(directory, 0755);
    char *path = arena_printf(a, "%s/host.arch", directory);
    char *temporary = arena_printf(a, "%s/host.%ld", directory, (long)getpid());
    FILE *f = fopen(temporary, "w");
    if (!f)
        return;
    fprintf(f, "# Measured by archc; delete this file to measure again.\n");
    device_print(d, f);
    bool bad = ferror(f);
    if (fclose(f) || bad || rename(temporary, path))
        unlink(temporary);
}

bool device_host(struct arena *a, struct device *out, const char **why)
{
    char *directory = cache_directory(a);
    memset(out, 0, sizeof *out);
    out->name = "host";
    out->is_host = true;
    if (directory && cache_read(arena_printf(a, "%s/host.arch", directory), out))
        return true;
    if (!device_measure(out, why))
        return false;
    if (directory)
        cache_write(a, directory, out);
    return true;
}

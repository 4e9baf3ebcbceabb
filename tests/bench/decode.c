/* decode.c - the inference kernels at the shapes of one model (-DD_MODEL=.. and so on, -DLAYERS),
 * for each type of weights: a whole decode step against this machine's read bandwidth over the same
 * weights, and a whole prompt against its multiply-add peak. The limits are measured in turns with
 * the work, so that a noisy machine slows both. Random weights; no fork, no barrier but the team's.
 *
 *   decode [repetitions]
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "kernel.h"
#include "archrt_kernels.h"
#include "team_test.h"

#define TYPE 0
#include "instances.h"
#define TYPE 1
#include "instances.h"
#define TYPE 2
#include "instances.h"

#define KERNEL decode_attention
#define ATT_H HEADS
#define ATT_K KV_HEADS
#define ATT_E HEAD_DIM
#define HEAD_NORM 0
#define NORM_EPS EPSILON
#include "decode_attention.c"

#define KERNEL prefill_attention
#define ATT_M CHUNK
#define ATT_H HEADS
#define ATT_K KV_HEADS
#define ATT_E HEAD_DIM
#include "prefill_attention.c"

#define KERNEL prefill_rope
#define ROPE_M CHUNK
#define ROPE_H HEADS
#define ROPE_K KV_HEADS
#define ROPE_E HEAD_DIM
#define HEAD_NORM 0
#define NORM_EPS EPSILON
#include "prefill_rope.c"

#define KERNEL prefill_norm
#define NORM_M CHUNK
#define NORM_D D_MODEL
#define NORM_EPS EPSILON
#include "norm.c"

#define KERNEL prefill_swiglu
#define SWIGLU_M CHUNK
#define SWIGLU_F D_FF
#include "swiglu.c"

static const struct {
    const char *name;
    embed_row_fn *embed;
    matvec_fn *qkv, *o, *gate_up, *down, *head;
    prefill_matmul_fn *many_qkv, *many_o, *many_gate_up, *many_down;
} kernels[3] = {{"fp32", embed_0, mv_qkv_0, mv_o_0, mv_gate_up_0, mv_down_0, mv_head_0, mm_qkv_0,
                 mm_o_0, mm_gate_up_0, mm_down_0},
                {"bf16", embed_1, mv_qkv_1, mv_o_1, mv_gate_up_1, mv_down_1, mv_head_1, mm_qkv_1,
                 mm_o_1, mm_gate_up_1, mm_down_1},
                {"int8", embed_2, mv_qkv_2, mv_o_2, mv_gate_up_2, mv_down_2, mv_head_2, mm_qkv_2,
                 mm_o_2, mm_gate_up_2, mm_down_2}};
enum { MOST_REPETITIONS = 200, POSITION = 256 };

/* Seconds of one repetition, by phase of a token. */
enum part {
    PART_QKV,
    PART_ATTENTION,
    PART_O,
    PART_GATE_UP,
    PART_DOWN,
    PART_HEAD,
    PART_REST,
    PARTS
};
static const char *const part_names[] = {"qkv",  "attention", "o",   "gate_up",
                                         "down", "head",      "rest"};

static struct {
    int type, repetitions;
    size_t bytes, token_bytes; /* of the weights; and with the keys and values that a token reads */
    char *weights, *cache;
    float *x, *y, *qkv, *att, *wide, *h, *logits, *scratch, *ones, *zeros, *rope;
    int32_t token[CHUNK];
    double step[MOST_REPETITIONS], read[MOST_REPETITIONS], prompt[MOST_REPETITIONS];
    double peak[MOST_REPETITIONS], part[PARTS][MOST_REPETITIONS], many[PARTS][MOST_REPETITIONS];
    volatile float sink[THREADS][16];
} run;

/* One thread's processor time is free of what else the machine does; several must meet in time. */
static double now(void)
{
    struct timespec t;
    clock_gettime(THREADS == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#define BYTES_HEAD(t) PACKED_BYTES(t, VOCAB, D_MODEL)
#define BYTES_QKV(t) PACKED_BYTES(t, QKV, D_MODEL)
#define BYTES_O(t) PACKED_BYTES(t, D_MODEL, DQ)
#define BYTES_GATE_UP(t) (2 * PACKED_BYTES(t, D_FF, D_MODEL))
#define BYTES_DOWN(t) PACKED_BYTES(t, D_MODEL, D_FF)
#define BYTES_LAYER(t) (BYTES_QKV(t) + BYTES_O(t) + BYTES_GATE_UP(t) + BYTES_DOWN(t))

static double lap(double *since, double *sum)
{
    double t = now();
    *sum += t - *since;
    *since = t;
    return t;
}

static void token_step(int repetition, int tid)
{
    double part[PARTS] = {0}, since = now();
    size_t cache = KV_LAYER_BYTES(CONTEXT, KV_HEADS, HEAD_DIM);
    int t = run.type;
    kernels[t].embed(run.x, run.weights, run.token, 1, tid);
    const char *w = run.weights + BYTES_HEAD(t);
    for (int l = 0; l < LAYERS; l++) {
        team_barrier(tid);
        since = now();
        kernels[t].qkv(run.qkv, run.x, w, run.ones, run.zeros, NULL, run.scratch, tid);
        w += BYTES_QKV(t);
        team_barrier(tid);
        lap(&since, &part[PART_QKV]);
        decode_attention(run.att, run.qkv, run.cache + (size_t)l * cache, NULL, run.rope,
                         run.scratch, POSITION, tid);
        team_barrier(tid);
        lap(&since, &part[PART_ATTENTION]);
        kernels[t].o(run.x, run.att, w, NULL, NULL, run.x, run.scratch, tid);
        w += BYTES_O(t);
        team_barrier(tid);
        lap(&since, &part[PART_O]);
        kernels[t].gate_up(run.h, run.x, w, run.ones, NULL, NULL, run.scratch, tid);
        w += BYTES_GATE_UP(t);
        team_barrier(tid);
        lap(&since, &part[PART_GATE_UP]);
        kernels[t].down(run.x, run.h, w, NULL, run.zeros, run.x, run.scratch, tid);
        w += BYTES_DOWN(t);
        lap(&since, &part[PART_DOWN]);
    }
    team_barrier(tid);
    since = now();
    kernels[t].head(run.logits, run.x, run.weights, run.ones, NULL, NULL, run.scratch, tid);
    team_barrier(tid);
    lap(&since, &part[PART_HEAD]);
    for (int i = 0; tid == 0 && i < PARTS; i++)
        run.part[i][repetition] = part[i];
}

static void prompt_step(int repetition, int tid)
{
    double part[PARTS] = {0}, since = now();
    size_t cache = KV_LAYER_BYTES(CONTEXT, KV_HEADS, HEAD_DIM);
    int t = run.type;
    kernels[t].embed(run.x, run.weights, run.token, CHUNK, tid);
    const char *w = run.weights + BYTES_HEAD(t);
    for (int l = 0; l < LAYERS; l++) {
        team_barrier(tid);
        prefill_norm(run.y, NULL, run.x, run.ones, CHUNK, tid);
        team_barrier(tid);
        lap(&since, &part[PART_REST]);
        kernels[t].many_qkv(run.qkv, run.y, w, run.zeros, NULL, run.scratch, CHUNK, tid);
        w += BYTES_QKV(t);
        team_barrier(tid);
        lap(&since, &part[PART_QKV]);
        prefill_rope(run.qkv, run.cache + (size_t)l * cache, NULL, run.rope, 0, CHUNK, tid);
        team_barrier(tid);
        lap(&since, &part[PART_REST]);
        prefill_attention(run.att, run.qkv, run.cache + (size_t)l * cache, run.scratch, 0, CHUNK,
                          tid);
        team_barrier(tid);
        lap(&since, &part[PART_ATTENTION]);
        kernels[t].many_o(run.x, run.att, w, NULL, run.x, run.scratch, CHUNK, tid);
        w += BYTES_O(t);
        team_barrier(tid);
        lap(&since, &part[PART_O]);
        prefill_norm(run.y, NULL, run.x, run.ones, CHUNK, tid);
        team_barrier(tid);
        lap(&since, &part[PART_REST]);
        kernels[t].many_gate_up(run.wide, run.y, w, NULL, NULL, run.scratch, CHUNK, tid);
        w += BYTES_GATE_UP(t);
        team_barrier(tid);
        lap(&since, &part[PART_GATE_UP]);
        prefill_swiglu(run.h, run.wide, CHUNK, tid);
        team_barrier(tid);
        lap(&since, &part[PART_REST]);
        kernels[t].many_down(run.x, run.h, w, run.zeros, run.x, run.scratch, CHUNK, tid);
        w += BYTES_DOWN(t);
        team_barrier(tid);
        lap(&since, &part[PART_DOWN]);
    }
    kernels[t].head(run.logits, run.x + (size_t)(CHUNK - 1) * D_MODEL, run.weights, run.ones, NULL,
                    NULL, run.scratch, tid);
    team_barrier(tid);
    lap(&since, &part[PART_HEAD]);
    for (int i = 0; tid == 0 && i < PARTS; i++)
        run.many[i][repetition] = part[i];
}

/* The best reader we know: four streams a thread, each with its own prefetch. */
static void read_step(int tid)
{
    size_t part = run.bytes / THREADS / 4 / 256 * 256;
    const char *at = run.weights + (size_t)tid * 4 * part;
    vf sum[4] = {{0}};
    for (size_t i = 0; i < part; i += 64)
        for (int s = 0; s < 4; s++) {
            PREFETCH(at + s * part + i + 1024);
            for (int v = 0; v < 64; v += VECTOR_BYTES)
                sum[s] += vf_load((const float *)(const void *)(at + s * part + i + v));
        }
    run.sink[tid][0] = vf_sum(sum[0] + sum[1] + sum[2] + sum[3]);
}

enum { PEAK_SUMS = 12, PEAK_LOOPS = 400000 };
static void peak_step(int tid)
{
    vf sum[PEAK_SUMS], a = vf_set(0.999f), b = vf_set(1e-3f);
    for (int i = 0; i < PEAK_SUMS; i++)
        sum[i] = vf_set((float)i);
    for (int k = 0; k < PEAK_LOOPS; k++)
        for (int i = 0; i < PEAK_SUMS; i++)
            sum[i] = sum[i] * a + b;
    for (int i = 1; i < PEAK_SUMS; i++)
        sum[0] += sum[i];
    run.sink[tid][0] = vf_sum(sum[0]);
}

static void timed(double *to, void (*step)(int), int tid)
{
    team_barrier(tid);
    double begin = now();
    step(tid);
    team_barrier(tid);
    if (tid == 0)
        *to = now() - begin;
}

static void all_steps(void *arg, int tid)
{
    (void)arg;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(tid, &set);
    sched_setaffinity(0, sizeof set, &set);
    for (int r = 0; r < run.repetitions; r++) {
        timed(&run.read[r], read_step, tid);
        team_barrier(tid);
        double begin = now();
        token_step(r, tid);
        if (tid == 0)
            run.step[r] = now() - begin;
    }
    for (int r = 0; r < run.repetitions / 5 + 1; r++) {
        team_barrier(tid);
        double begin = now();
        prompt_step(r, tid);
        if (tid == 0)
            run.prompt[r] = now() - begin;
        timed(&run.peak[r], peak_step, tid);
    }
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts; the best, the median. */
struct spread {
    double best, median;
};
static struct spread spread_of(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, by_size);
    return (struct spread){x[0], x[n / 2]};
}

static void report(void)
{
    int n = run.repetitions, few = n / 5 + 1;
    double layer = (double)LAYERS * (2.0 * D_MODEL * (QKV + DQ + 3.0 * D_FF)),
           flops = CHUNK * layer + (double)LAYERS * 2 * CHUNK * (CHUNK + 1.0) * DQ;
    double peak_flops = 2.0 * THREADS * PEAK_SUMS * VL * PEAK_LOOPS;
    struct spread step = spread_of(run.step, n), read = spread_of(run.read, n);
    struct spread prompt = spread_of(run.prompt, few), peak = spread_of(run.peak, few);
    double most = run.bytes / read.best / 1e9, usual = run.bytes / read.median / 1e9;
    double best = run.token_bytes / step.best / 1e9, median = run.token_bytes / step.median / 1e9;
    printf(
        "%s: decode %.0f tok/s best, %.0f median; %.1f of %.1f GB/s best (%.0f %%), %.1f of %.1f "
        "median (%.0f %%)\n",
        kernels[run.type].name, 1 / step.best, 1 / step.median, best, most, 100 * best / most,
        median, usual, 100 * median / usual);
    size_t bytes[PARTS] = {
        LAYERS * BYTES_QKV(run.type),  LAYERS * 2 * (size_t)(POSITION + 1) * DKV * KV_ELEMENT,
        LAYERS * BYTES_O(run.type),    LAYERS * BYTES_GATE_UP(run.type),
        LAYERS * BYTES_DOWN(run.type), BYTES_HEAD(run.type)};
    double products[PARTS] = {(double)QKV * D_MODEL, (CHUNK + 1.0) * DQ, (double)DQ * D_MODEL,
                              2.0 * D_FF * D_MODEL, (double)D_FF * D_MODEL};
    for (int i = 0; i < PART_REST; i++) {
        struct spread part = spread_of(run.part[i], n);
        printf("      %-9s %7.1f us best, %7.1f median; %5.1f GB/s best\n", part_names[i],
               1e6 * part.best, 1e6 * part.median, bytes[i] / part.best / 1e9);
    }
    printf("      prompt of %d: %.0f tok/s best, %.0f median; %.1f of %.1f GFLOP/s best (%.0f %%), "
           "median %.0f %%\n",
           CHUNK, CHUNK / prompt.best, CHUNK / prompt.median, flops / prompt.best / 1e9,
           peak_flops / peak.best / 1e9, 100 * flops / prompt.best / (peak_flops / peak.best),
           100 * flops / prompt.median / (peak_flops / peak.median));
    for (int i = 0; i < PARTS; i++) {
        struct spread part = spread_of(run.many[i], few);
        printf("      %-9s %7.2f ms best, %7.2f median; %5.1f GFLOP/s best\n", part_names[i],
               1e3 * part.best, 1e3 * part.median, 2e-9 * LAYERS * CHUNK * products[i] / part.best);
    }
    fflush(stdout);
}

static void *memory(size_t bytes)
{
    bytes = (bytes + (2u << 20) - 1) >> 21 << 21;
    void *at = aligned_alloc(2u << 20, bytes);
    if (!at)
        abort();
    madvise(at, bytes, MADV_HUGEPAGE);
    memset(at, 0, bytes);
    return at;
}

static float *random_rows(size_t n, float scale)
{
    float *x = memory(n * sizeof(float));
    for (size_t i = 0; i < n; i++)
        x[i] = scale * ((float)rand() / (float)RAND_MAX - 0.5f);
    return x;
}

static void pack_model(const float *w)
{
    static const struct {
        int n, k;
    } parts[] = {{VOCAB, D_MODEL}, {QKV, D_MODEL},  {D_MODEL, DQ},
                 {D_FF, D_MODEL},  {D_FF, D_MODEL}, {D_MODEL, D_FF}};
    char *to = run.weights;
    for (int l = 0; l < LAYERS; l++)
        for (int i = l ? 1 : 0; i < 6; i++)
            for (int t = 0; t < THREADS; t++) {
                weights_pack(run.type, to, w, parts[i].n, parts[i].k, t);
                if (t == THREADS - 1)
                    to += PACKED_BYTES(run.type, parts[i].n, parts[i].k);
            }
}

int main(int argc, char **argv)
{
    run.repetitions = argc > 1 ? atoi(argv[1]) : 30;
    if (run.repetitions < 1 || run.repetitions > MOST_REPETITIONS)
        return fprintf(stderr, "decode: 1 to %d repetitions\n", MOST_REPETITIONS), 2;
    size_t widest = 2 * D_FF > QKV ? 2 * D_FF : QKV, k = D_FF > DQ ? D_FF : DQ;
    float *w = random_rows(
        (size_t)VOCAB * D_MODEL > k * D_MODEL ? (size_t)VOCAB * D_MODEL : k * D_MODEL, 0.1f);
    run.weights = memory(BYTES_HEAD(0) + LAYERS * BYTES_LAYER(0) + 4096);
    run.cache = memory(LAYERS * KV_LAYER_BYTES(CONTEXT, KV_HEADS, HEAD_DIM));
    run.x = random_rows((size_t)CHUNK * D_MODEL, 1);
    run.y = random_rows((size_t)CHUNK * D_MODEL, 1);
    run.qkv = random_rows((size_t)CHUNK * QKV, 1);
    run.att = random_rows((size_t)CHUNK * DQ, 1);
    run.wide = random_rows(CHUNK * widest, 1);
    run.h = random_rows((size_t)CHUNK * D_FF, 1);
    run.logits = random_rows(VOCAB, 1);
    run.rope = random_rows((size_t)CONTEXT * HEAD_DIM, 1);
    run.zeros = memory(widest * sizeof(float));
    run.ones = memory(D_MODEL * sizeof(float));
    for (int i = 0; i < D_MODEL; i++)
        run.ones[i] = 1;
    run.scratch =
        memory(sizeof(float) * (MATMUL_SCRATCH_FLOATS + THREADS * MATVEC_SCRATCH_FLOATS(k) +
                                THREADS * PREFILL_ATTENTION_SCRATCH_FLOATS(1, HEAD_DIM) +
                                THREADS * DECODE_ATTENTION_SCRATCH_FLOATS(16, HEAD_DIM)));
    for (int i = 0; i < CHUNK; i++)
        run.token[i] = i * 97 % VOCAB;
    printf("D %d, L %d, H %d/%d x %d, F %d, V %d, %d threads, position %d\n", D_MODEL, LAYERS,
           HEADS, KV_HEADS, HEAD_DIM, D_FF, VOCAB, THREADS, POSITION);
    test_team_start(THREADS);
    for (run.type = 0; run.type < 3; run.type++) {
        run.bytes = BYTES_HEAD(run.type) + LAYERS * BYTES_LAYER(run.type);
        run.token_bytes = run.bytes + LAYERS * 2 * (size_t)(POSITION + 1) * DKV * KV_ELEMENT;
        pack_model(w);
        test_team_run(all_steps, NULL);
        report();
    }
    test_team_stop();
    return 0;
}

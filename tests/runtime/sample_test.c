/* sample_test.c - the sampler: its generator, its distributions by chi-square, its edges. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rt_check.h"
#include "sample.h"

enum { V = 16, DRAWS = 40000 };

/* Probabilities that the filters should leave, in the documented order, by sorting and looping. */
static void expected(double *p, const float *logits, const struct sampler_options *o)
{
    int order[V], kept = V;
    double sum = 0, best = -INFINITY;
    for (int i = 0; i < V; i++) {
        order[i] = i;
        best = isnan(logits[i]) ? best : fmax(best, (double)logits[i]);
    }
    for (int i = 0; i < V; i++)
        for (int j = 0; j + 1 < V; j++) /* stable */
            if (logits[order[j + 1]] > logits[order[j]] ||
                (isnan(logits[order[j]]) && !isnan(logits[order[j + 1]]))) {
                int t = order[j];
                order[j] = order[j + 1];
                order[j + 1] = t;
            }
    for (int i = 0; i < V; i++) {
        p[i] = isnan(logits[i]) ? 0 : exp(((double)logits[i] - best) / o->temperature);
        if ((double)logits[i] == best)
            p[i] = 1; /* also for infinities */
    }
    if (o->top_k && o->top_k < kept)
        kept = o->top_k;
    for (int i = 0; i < kept; i++)
        sum += p[order[i]];
    double part = 0;
    for (int i = 0; i < kept; i++) {
        part += p[order[i]];
        if (o->top_p < 1 && part >= o->top_p * sum) {
            kept = i + 1;
            break;
        }
    }
    for (int i = kept; i < V; i++)
        p[order[i]] = 0;
    sum = 0;
    for (int i = 0; i < V; i++) {
        if (p[i] < o->min_p)
            p[i] = 0;
        sum += p[i];
    }
    for (int i = 0; i < V; i++)
        p[i] /= sum;
}

/* Pearson's statistic stays below mean + 5 deviations; what has probability 0 never comes. */
static void check_distribution(const float *logits, struct sampler_options o, int line)
{
    double p[V], statistic = 0;
    int count[V] = {0}, freedom = -1;
    struct sampler *s = sampler_new(&o, V);
    expected(p, logits, &o);
    for (int i = 0; i < DRAWS; i++) {
        int id = sampler_next(s, logits, i);
        if (id < 0 || id >= V) {
            fprintf(stderr, "line %d: id %d\n", line, id);
            failures++;
            break;
        }
        count[id]++;
    }
    for (int i = 0; i < V; i++) {
        if (p[i] == 0) {
            if (count[i]) {
                fprintf(stderr, "line %d: %d drawn, which is filtered\n", line, i);
                failures++;
            }
            continue;
        }
        double want = p[i] * DRAWS;
        if (want < 5)
            continue; /* too rare for the statistic */
        freedom++;
        statistic += (count[i] - want) * (count[i] - want) / want;
    }
    if (statistic > freedom + 5 * sqrt(2.0 * freedom) + 5) {
        fprintf(stderr, "line %d: chi-square %.1f at %d degrees of freedom\n", line, statistic,
                freedom);
        failures++;
    }
    sampler_free(s);
}
#define DISTRIBUTION(logits, ...)                                                                  \
    check_distribution(logits, (struct sampler_options){__VA_ARGS__}, __LINE__)

static void check_generator(void)
{
    /* The first outputs of the PCG authors' demo: seed 42, stream 54. */
    static const uint32_t known[] = {0xa15c02b7, 0x7b47f409, 0xba1d3330,
                                     0x83d2f293, 0xbfa4784b, 0xcbed606e};
    struct pcg32 r;
    double sum = 0, squares = 0;
    pcg32_seed(&r, 42, 54);
    for (int i = 0; i < 6; i++)
        CHECK(pcg32_next(&r) == known[i]);
    for (int i = 0; i < 100000; i++) {
        double u = pcg32_uniform(&r), z = pcg32_normal(&r);
        CHECK(u >= 0 && u < 1 && isfinite(z));
        sum += z;
        squares += z * z;
    }
    CHECK(fabs(sum / 1e5) < 0.02 && fabs(squares / 1e5 - 1) < 0.03);
}

static void check_distributions(void)
{
    float ordinary[V], ties[V], strange[V];
    for (int i = 0; i < V; i++) {
        ordinary[i] = (float)((i * 7) % V) * 0.3f;
        ties[i] = (float)(i / 4); /* four of each */
        strange[i] = i % 3 == 0 ? -INFINITY : i % 3 == 1 ? NAN : (float)i * 0.2f;
    }
    DISTRIBUTION(ordinary, 1, 0, 1, 0, 1);
    DISTRIBUTION(ordinary, 0.5, 0, 1, 0, 2);
    DISTRIBUTION(ordinary, 3, 0, 1, 0, 3);
    DISTRIBUTION(ordinary, 1, 5, 1, 0, 4);
    DISTRIBUTION(ordinary, 1, 0, 0.7, 0, 5);
    DISTRIBUTION(ordinary, 1, 0, 1, 0.2, 6);
    DISTRIBUTION(ordinary, 0.8, 9, 0.9, 0.1, 7);
    DISTRIBUTION(ordinary, 1.5, 100, 0.95, 0.05, 8); /* top_k beyond the vocabulary */
    DISTRIBUTION(ties, 1, 6, 1, 0, 9);               /* cuts through equals: smaller ids stay */
    DISTRIBUTION(ties, 1, 0, 0.8, 0, 10);
    DISTRIBUTION(strange, 1, 0, 1, 0, 11);
    DISTRIBUTION(strange, 1, 3, 0.9, 0, 12);
}

static int next_of(const float *logits, int n, struct sampler_options o)
{
    struct sampler *s = sampler_new(&o, n);
    int id = sampler_next(s, logits, 3);
    sampler_free(s);
    return id;
}
#define NEXT(logits, ...) next_of(logits, V, (struct sampler_options){__VA_ARGS__})

static void check_edges(void)
{
    float x[V], lone[V], none[V], infinite[V], extreme[V];
    for (int i = 0; i < V; i++) {
        x[i] = (float)((i * 11) % V);
        lone[i] = -INFINITY;
        none[i] = i % 2 ? NAN : -INFINITY;
        infinite[i] = (float)i;
        extreme[i] = i == 3 ? 3e38f : -3e38f;
    }
    lone[9] = -1e30f;
    infinite[5] = infinite[11] = INFINITY;
    int best = sample_greedy(x, V);
    CHECK(x[best] == V - 1);
    for (uint64_t seed = 0; seed < 200; seed++) {
        CHECK(NEXT(x, 1, 1, 1, 0, seed) == best);     /* top_k 1 is greedy */
        CHECK(NEXT(x, 5, 0, 1e-12, 0, seed) == best); /* top_p towards 0, too */
        CHECK(NEXT(x, 5, 0, 0, 0, seed) == best);
        CHECK(NEXT(x, 5, 0, 1, 1, seed) == best);      /* min_p 1: the best only */
        CHECK(NEXT(x, 0, 0, 1, 0, seed) == best);      /* temperature 0 */
        CHECK(NEXT(x, 1e-300, 0, 1, 0, seed) == best); /* and next to it */
        CHECK(NEXT(lone, 1, 0, 1, 0, seed) == 9);      /* all -inf but one */
        CHECK(NEXT(lone, 0.7, 4, 0.5, 0.5, seed) == 9);
        CHECK(NEXT(extreme, 1, 0, 1, 0, seed) == 3); /* differences beyond fp32 */
        int id = NEXT(infinite, 1, 0, 1, 0, seed);
        CHECK(id == 5 || id == 11);                /* +inf beats all, equals share */
        CHECK(NEXT(none, 1, 0, 1, 0, seed) == -1); /* nothing to choose from */
        CHECK(NEXT(none, 0, 0, 1, 0, seed) == -1);
    }
    float equal[3] = {2, 2, 2};
    CHECK(sample_greedy(equal, 3) == 0); /* the first of equals */
    equal[0] = NAN;
    CHECK(sample_greedy(equal, 3) == 1);
    CHECK(next_of(equal, 1, (struct sampler_options){1, 0, 1, 0, 1}) == -1);
}

/* The same seed gives the same choices, in any order of positions; another seed gives others. */
static void check_seeds(void)
{
    float x[V];
    int first[50], differs = 0;
    struct sampler_options o = {1, 0, 1, 0, 99}, filtered = {1, 3, 0.9, 0.1, 99};
    for (int i = 0; i < V; i++)
        x[i] = (float)i * 0.1f;
    for (int round = 0; round < 3; round++) {
        struct sampler *s = sampler_new(&o, V), *t = sampler_new(&filtered, V);
        for (int k = 0; k < 50; k++) {
            int i = round == 1 ? 49 - k : k, id = sampler_next(s, x, i);
            if (round == 0)
                first[i] = id;
            else if (round == 1)
                CHECK(id == first[i]);
            else
                differs += id != first[i];
            sampler_next(t, x, i);
        }
        sampler_free(s);
        sampler_free(t);
        o.seed += round == 1;
    }
    CHECK(differs > 20);
}

/* The token is the one at which the running sum passes the draw: runs of ids in turn, the larger
 * first within a run. */
static void check_order(void)
{
    enum { N = 2 * SAMPLER_RUN + 100 };
    static float x[N];
    int order[N];
    struct sampler_options o = {1, 0, 1, 0, 77};
    struct sampler *s = sampler_new(&o, N);
    for (int i = 0; i < N; i++) {
        x[i] = (float)(i * 37 % 101) * 0.02f;
        order[i] = i;
    }
    for (int i = 1; i < N; i++) /* by run, then by logit, then by id */
        for (int j = i; j > 0 && j % SAMPLER_RUN && x[order[j]] > x[order[j - 1]]; j--) {
            int t = order[j];
            order[j] = order[j - 1];
            order[j - 1] = t;
        }
    double all = 0;
    for (int i = 0; i < N; i++)
        all += exp((double)x[order[i]]);
    for (int position = 0; position < 400; position++) {
        double target = sampler_uniform(77, position) * all, sum = 0;
        int i = 0;
        while (i + 1 < N && (sum += exp((double)x[order[i]])) <= target)
            i++;
        CHECK(sampler_next(s, x, position) == order[i]);
    }
    sampler_free(s);
}

/* A vocabulary of real size: the partial selection agrees with a full sort. */
static void check_large(void)
{
    enum { N = 50000 };
    float *x = malloc(N * sizeof *x);
    struct pcg32 r;
    pcg32_seed(&r, 5, 5);
    for (int i = 0; i < N; i++)
        x[i] = (float)(pcg32_next(&r) % 1000) * 0.005f; /* many ties, a flat distribution */
    for (int k = 1; k <= N; k *= 7) {
        struct sampler_options o = {1, k, 0.999, 0, 1};
        struct sampler *s = sampler_new(&o, N);
        for (int i = 0; i < 3; i++) {
            int id = sampler_next(s, x, i), before = 0;
            CHECK(id >= 0 && id < N);
            for (int j = 0; j < N; j++)
                before += x[j] > x[id] || (x[j] == x[id] && j < id);
            CHECK(before < k);
        }
        sampler_free(s);
    }
    free(x);
}

static void check_options(void)
{
    struct sampler_options good = {0.8, 40, 0.9, 0.05, 1},
                           bad[] = {
                               {-1, 0, 1, 0, 0},  {NAN, 0, 1, 0, 0}, {INFINITY, 0, 1, 0, 0},
                               {1, -1, 1, 0, 0},  {1, 0, 1.1, 0, 0}, {1, 0, -0.1, 0, 0},
                               {1, 0, NAN, 0, 0}, {1, 0, 1, 2, 0},   {1, 0, 1, NAN, 0},
                           };
    CHECK(sampler_options_error(&good) == NULL);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(sampler_options_error(&bad[i]) != NULL);
}

int main(void)
{
    check_generator();
    check_distributions();
    check_edges();
    check_seeds();
    check_order();
    check_large();
    check_options();
    if (failures)
        fprintf(stderr, "%d checks failed\n", failures);
    return failures != 0;
}

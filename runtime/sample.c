/* sample.c - temperature, top-k, top-p, min-p, and the numbers that choose. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime.h"
#include "sample.h"

uint32_t pcg32_next(struct pcg32 *r)
{
    uint64_t old = r->state;
    r->state = old * 6364136223846793005ull + r->increment;
    uint32_t word = (uint32_t)(((old >> 18) ^ old) >> 27), turn = (uint32_t)(old >> 59);
    return (word >> turn) | (word << (-turn & 31));
}

void pcg32_seed(struct pcg32 *r, uint64_t seed, uint64_t stream)
{
    r->state = 0;
    r->increment = (stream << 1) | 1;
    pcg32_next(r);
    r->state += seed;
    pcg32_next(r);
}

double pcg32_uniform(struct pcg32 *r)
{
    uint64_t high = pcg32_next(r) >> 5, low = pcg32_next(r) >> 6; /* 27 and 26 bits */
    return (double)(high << 26 | low) * 0x1p-53;
}

double pcg32_normal(struct pcg32 *r)
{
    double u = 1 - pcg32_uniform(r), v = pcg32_uniform(r);
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

struct candidate {
    float logit;
    int id;
    double p; /* exp((logit - best) / temperature): 1 for the best */
};

struct sampler {
    struct sampler_options options;
    int vocab;
    struct candidate *candidates; /* [vocab] */
    double *runs;                 /* total of each run of SAMPLER_RUN ids */
};

const char *sampler_options_error(const struct sampler_options *o)
{
    if (!(o->temperature >= 0) || isinf(o->temperature))
        return "--temperature must be 0 (greedy) or a positive number";
    if (o->top_k < 0)
        return "--top-k must be 0 (all) or a positive count";
    if (!(o->top_p >= 0 && o->top_p <= 1))
        return "--top-p must lie within 0..1";
    if (!(o->min_p >= 0 && o->min_p <= 1))
        return "--min-p must lie within 0..1";
    return NULL;
}

struct sampler *sampler_new(const struct sampler_options *o, int vocab)
{
    struct sampler *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->options = *o;
    s->vocab = vocab;
    s->candidates = malloc((size_t)vocab * sizeof *s->candidates);
    s->runs = malloc(((size_t)vocab / SAMPLER_RUN + 1) * sizeof *s->runs);
    if (s->candidates && s->runs)
        return s;
    sampler_free(s);
    return NULL;
}

void sampler_free(struct sampler *s)
{
    if (s) {
        free(s->candidates);
        free(s->runs);
    }
    free(s);
}

double sampler_uniform(uint64_t seed, int position)
{
    return (double)(mix64(seed + (uint64_t)position * 0x9e3779b97f4a7c15u) >> 11) * 0x1p-53;
}

int sample_greedy(const float *logits, int n)
{
    int best = -1;
    for (int i = 0; i < n; i++)
        if (logits[i] > (best < 0 ? -INFINITY : logits[best])) /* false for NaN */
            best = i;
    return best;
}

/* Whether a ranks before b: larger logit first, then smaller id. */
static bool before(const struct candidate *a, const struct candidate *b)
{
    return a->logit != b->logit ? a->logit > b->logit : a->id < b->id;
}

static int compare(const void *a, const void *b)
{
    return before(a, b) ? -1 : before(b, a) ? 1 : 0;
}

/* Brings the k first-ranking of c[0..n) to the front, in any order (Hoare's selection). */
static void select_first(struct candidate *c, int n, int k)
{
    int low = 0, high = n - 1;
    while (low < high) {
        struct candidate pivot = c[low + (high - low) / 2];
        int i = low, j = high;
        while (i <= j) {
            while (before(&c[i], &pivot))
                i++;
            while (before(&pivot, &c[j]))
                j--;
            if (i <= j) {
                struct candidate t = c[i];
                c[i++] = c[j];
                c[j--] = t;
            }
        }
        if (k - 1 <= j)
            high = j;
        else if (k - 1 >= i)
            low = i;
        else
            return;
    }
}

static double total(const struct candidate *c, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += c[i].p;
    return sum;
}

/* Everything above -inf, with p set; the number of them. */
static int gather(struct sampler *s, const float *logits, int best)
{
    struct candidate *c = s->candidates;
    bool infinite = isinf(logits[best]);
    int n = 0;
    for (int i = 0; i < s->vocab; i++) {
        float x = logits[i];
        if (!(x > -INFINITY) || (infinite && x < INFINITY))
            continue;
        /* The difference in double: float's would overflow for the extremes. */
        double p = infinite ? 1 : exp(((double)x - (double)logits[best]) / s->options.temperature);
        c[n++] = (struct candidate){x, i, p};
    }
    return n;
}

/* The fewest first-ranking whose share of the total reaches top_p, brought to the front. */
static int nucleus(struct candidate *c, int n, double top_p)
{
    double want = top_p * total(c, n);
    /* Sorting everything is slow and rarely needed: sort a growing front. */
    for (int front = n < 256 ? n : 256;; front = front > n / 8 ? n : front * 8) {
        if (front < n)
            select_first(c, n, front);
        qsort(c, (size_t)front, sizeof *c, compare);
        double sum = 0;
        for (int i = 0; i < front; i++) {
            sum += c[i].p;
            if (sum >= want)
                return i + 1;
        }
        if (front == n)
            return n; /* rounding: top_p is 1 within it */
    }
}

/* The run in which the running sum of totals passes *target, which becomes what is left of it
 * there; -1: rounding, none. */
static int find_run(struct sampler *s, const struct candidate *c, int n, double u, double *target)
{
    int runs = s->vocab / SAMPLER_RUN + 1;
    double all = 0;
    memset(s->runs, 0, (size_t)runs * sizeof *s->runs);
    for (int i = 0; i < n; i++)
        s->runs[c[i].id / SAMPLER_RUN] += c[i].p;
    for (int r = 0; r < runs; r++)
        all += s->runs[r];
    *target = u * all;
    for (int r = 0; r < runs; r++) {
        if (*target < s->runs[r])
            return r;
        *target -= s->runs[r];
    }
    return -1;
}

/* One of c[0..n), which is reordered, by weight. */
static int draw(struct sampler *s, struct candidate *c, int n, double u, int otherwise)
{
    double target, sum = 0;
    int run = find_run(s, c, n, u, &target), kept = 0;
    for (int i = 0; i < n; i++)
        if (c[i].id / SAMPLER_RUN == run)
            c[kept++] = c[i];
    qsort(c, (size_t)kept, sizeof *c, compare);
    for (int i = 0; i < kept; i++) {
        sum += c[i].p;
        if (target < sum)
            return c[i].id;
    }
    return otherwise;
}

int sampler_next(struct sampler *s, const float *logits, int position)
{
    const struct sampler_options *o = &s->options;
    int best = sample_greedy(logits, s->vocab);
    if (best < 0 || o->temperature == 0)
        return best;
    struct candidate *c = s->candidates;
    int n = gather(s, logits, best);
    if (o->top_k && o->top_k < n) {
        select_first(c, n, o->top_k);
        n = o->top_k;
    }
    if (o->top_p < 1)
        n = nucleus(c, n, o->top_p);
    if (o->min_p > 0) {
        int kept = 0;
        for (int i = 0; i < n; i++)
            if (c[i].p >= o->min_p) /* the best's p is 1 */
                c[kept++] = c[i];
        n = kept;
    }
    return draw(s, c, n, sampler_uniform(o->seed, position), best);
}

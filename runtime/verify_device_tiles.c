/* verify_device_tiles.c - x as kernels of decode of many rows hand it on to the product behind them
 * (archrt_cuda.h): made of a trial's x where a kernel reads it, judged by a trial's y where it
 * leaves it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "archrt_cuda.h"
#include "gpu.h"
#include "verify.h"

/* The last operands of a step: [gain,] tiles, squares. */
struct handed_on {
    struct session *s;
    float *gain; /* NULL: the kernel reads what was handed on */
    uint16_t *tiles;
    float *squares;
    int m, d;
    size_t n_tiles, n_squares;
};

static uint16_t to_half(float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static size_t tile_at(const struct handed_on *h, int row, int c)
{
    int high = CUDA_TILE_HIGH(h->m), across = CUDA_TILE_COLUMNS(h->d) / 64;
    size_t tile = (size_t)(row / high * across + c / 64);
    return (tile * (size_t)high + (size_t)(row % high)) * 64 + (size_t)((c / 8 ^ row) % 8 * 8) +
           (size_t)(c % 8);
}

enum role { NEITHER, READS, WRITES };

static enum role role_of(enum archrt_cuda_kind kind)
{
    switch (kind) {
    case ARCHRT_CUDA_DECODE_EMBED:
    case ARCHRT_CUDA_SKINNY_RESIDUAL:
        return WRITES;
    case ARCHRT_CUDA_SKINNY_QKV:
    case ARCHRT_CUDA_SKINNY_GATE_UP:
    case ARCHRT_CUDA_SKINNY_HEAD:
        return READS;
    default:
        return NEITHER;
    }
}

/* Whether this device's kernels hand x on: where they do, no product norms in a pass of its own. */
static bool folded(const struct session *s)
{
    for (int i = 0; i < s->cuda->n_kernels; i++)
        if (s->cuda->kernels[i].kind == ARCHRT_CUDA_SKINNY_GATE_UP)
            return s->target->launches[i].pass[0].threads == 0;
    return false;
}

static void *place(const struct device_handing *a, int from_last)
{
    return session_operand(a->s, &a->step->operands[a->step->n - from_last], a->layer, 0);
}

/* False: the step has nothing to do with it. */
static bool handed_open(struct handed_on *h, const struct device_handing *a)
{
    const struct archrt_cuda_kernel *k = &a->s->cuda->kernels[a->step->kernel];
    enum role role = role_of(k->kind);
    if (role == NEITHER || !place(a, 2) || !folded(a->s))
        return false;
    *h = (struct handed_on){.s = a->s, .m = a->t->m, .d = (int)(role == READS ? k->k : k->n)};
    h->n_tiles = area(CUDA_TILE_ROWS(h->m), CUDA_TILE_COLUMNS(h->d));
    h->n_squares = area(h->m, CUDA_SQUARES(h->d));
    h->tiles = need(calloc(h->n_tiles, sizeof *h->tiles));
    h->squares = need(calloc(h->n_squares, sizeof *h->squares));
    h->gain = role == WRITES ? need(malloc((size_t)h->d * sizeof *h->gain)) : NULL;
    for (int i = 0; h->gain && i < h->d; i++)
        h->gain[i] = (float)(i * 37 % 64 - 20) / 32;
    return true;
}

static void handed_close(struct handed_on *h)
{
    free(h->tiles);
    free(h->squares);
    free(h->gain);
}

/* x[m][d] as it is handed on; sums of 32 columns each. */
static void hand_on(struct handed_on *h, const float *x, const float *gain)
{
    for (int r = 0; r < h->m; r++)
        for (int c = 0; c < h->d; c++) {
            float v = x[(size_t)r * (size_t)h->d + (size_t)c];
            h->tiles[tile_at(h, r, c)] = to_half(v * gain[c]);
            h->squares[(size_t)r * CUDA_SQUARES(h->d) + (size_t)(c / 32)] += v * v;
        }
}

/* What no row and column of x is in is 0, as embedding leaves it; where a kernel is to write, NaN.
 * Of embedding, all of it. */
static void poison(struct handed_on *h, bool whole)
{
    if (whole)
        memset(h->tiles, 0xff, h->n_tiles * sizeof *h->tiles);
    for (int r = 0; r < h->m; r++) {
        for (int c = 0; c < h->d; c++)
            h->tiles[tile_at(h, r, c)] = 0xffff;
        for (int p = 0; p < CUDA_SQUARES(h->d); p++)
            if (whole || p < (h->d + 31) / 32)
                h->squares[(size_t)r * CUDA_SQUARES(h->d) + (size_t)p] = NAN;
    }
}

bool device_tiles_put(const struct device_handing *a, struct failure *f)
{
    struct handed_on h;
    if (!handed_open(&h, a))
        return true;
    struct device *d = a->s->device;
    bool embeds = a->s->cuda->kernels[a->step->kernel].kind == ARCHRT_CUDA_DECODE_EMBED;
    if (h.gain)
        poison(&h, embeds);
    else
        hand_on(&h, a->t->x, a->t->gain);
    bool ok = (!h.gain || d->api->to_device(d, place(a, 3), h.gain, (size_t)h.d * 4)) &&
              d->api->to_device(d, place(a, 2), h.tiles, h.n_tiles * 2) &&
              d->api->to_device(d, place(a, 1), h.squares, h.n_squares * 4) && d->api->wait(d);
    handed_close(&h);
    return ok || failed(f, STATUS_WORLD, "%s: %s", d->name, d->why);
}

static void judge_tiles(struct trial *t, const struct handed_on *h, const uint16_t *got)
{
    for (int r = 0; r < CUDA_TILE_ROWS(h->m); r++)
        for (int c = 0; c < CUDA_TILE_COLUMNS(h->d); c++) {
            uint16_t is = got[tile_at(h, r, c)], want = h->tiles[tile_at(h, r, c)];
            if (is != want) {
                trial_fault(t, "what is handed on: row %d, column %d is bf16 %04x, should be %04x",
                            r, c, is, want);
                return;
            }
        }
}

static void judge_squares(struct trial *t, const struct handed_on *h, const float *got)
{
    for (int r = 0; r < h->m; r++) {
        double sum = 0, want = 0;
        for (int p = 0; p < CUDA_SQUARES(h->d); p++) {
            size_t at = (size_t)r * CUDA_SQUARES(h->d) + (size_t)p;
            sum += (double)got[at];
            want += (double)h->squares[at];
        }
        if (!(fabs(sum - want) <= 1e-5 * want)) {
            trial_fault(t, "what is handed on: squares of row %d are %g, should be %g", r, sum,
                        want);
            return;
        }
    }
}

bool device_tiles_check(const struct device_handing *a, struct failure *f)
{
    struct handed_on h;
    if (!handed_open(&h, a))
        return true;
    struct device *d = a->s->device;
    uint16_t *tiles = need(malloc(h.n_tiles * 2));
    float *squares = need(malloc(h.n_squares * 4));
    bool ok = d->api->from_device(d, tiles, place(a, 2), h.n_tiles * 2) &&
              d->api->from_device(d, squares, place(a, 1), h.n_squares * 4) && d->api->wait(d);
    hand_on(&h, h.gain ? a->t->y : a->t->x, h.gain ? h.gain : a->t->gain);
    if (ok) {
        judge_tiles(a->t, &h, tiles);
        judge_squares(a->t, &h, squares);
    }
    free(tiles);
    free(squares);
    handed_close(&h);
    return ok || failed(f, STATUS_WORLD, "%s: %s", d->name, d->why);
}

/* order.c - what happened before what, as CUDA's memory model has it.
 *
 * Each thread has a clock; an access is (thread, clock). A barrier of the whole block or warp
 * raises a floor: accesses with clocks up to it are known to all. What named barriers, mbarriers
 * and flags order is kept in vectors of clocks. Shuffles, votes and matrix instructions order
 * nothing. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

/* Memory that lives as long as a launch. */
enum { PIECE = 1 << 20 };
static struct piece {
    struct piece *next;
    size_t used;
    _Alignas(16) u8 bytes[PIECE];
} * pieces, *spare;

static void *keep(size_t bytes)
{
    bytes = (bytes + 15) & ~(size_t)15;
    if (bytes > PIECE)
        fault(NULL, "the grid is too large for flags between blocks");
    if (!pieces || pieces->used + bytes > PIECE) {
        struct piece *p = spare;
        if (p)
            spare = p->next;
        else
            p = malloc(sizeof(*p));
        if (!p)
            fault(NULL, "the emulator is out of memory");
        p->used = 0;
        p->next = pieces;
        pieces = p;
    }
    void *p = pieces->bytes + pieces->used;
    pieces->used += bytes;
    return memset(p, 0, bytes);
}

static struct {
    const u32 *a, *b;
    vector sum;
} merged; /* the last merge: the lanes of a warp ask for the same one */
static struct {
    world a, b, sum;
} merged_far;

void order_reset(void)
{
    while (pieces) {
        struct piece *p = pieces;
        pieces = p->next;
        p->next = spare;
        spare = p;
    }
    merged.a = merged.b = NULL;
    merged.sum = NULL;
    merged_far.a = merged_far.b = merged_far.sum = NULL;
}

vector vector_new(void)
{
    return keep((machine.threads + 1) * sizeof(u32));
}

static u32 *engine_of(vector v)
{
    return v + machine.threads;
}

static u32 larger(u32 a, u32 b)
{
    return a > b ? a : b;
}

static void raise_to(vector v, const u32 *by)
{
    for (u32 i = 0; i <= machine.threads; i++)
        v[i] = larger(v[i], by[i]);
}

bool ordered(const struct emu_thread *t, u32 id, u32 clock)
{
    const struct emu_block *b = t->block;
    u32 index = id & 2047, engine = index == ENGINE;
    if (id >> 11 != b->number) {
        const u32 *of = t->far ? t->far[id >> 11] : NULL;
        return of && clock <= of[engine ? machine.threads : index];
    }
    if (engine)
        return clock <= b->engine_floor || (t->seen && clock <= t->seen[machine.threads]);
    return clock <= b->floor || (index / WARP == t->index / WARP && clock <= t->warp->floor) ||
           (t->seen && clock <= t->seen[index]);
}

static void tick(struct emu_thread *t)
{
    t->clock++;
    t->block->top = larger(t->block->top, t->clock);
}

void publish(struct emu_thread *t, vector into)
{
    const struct emu_block *b = t->block;
    for (u32 i = 0; i < machine.threads; i++)
        into[i] = larger(into[i], b->floor);
    for (u32 i = t->index - t->lane; i < t->index - t->lane + WARP; i++)
        into[i] = larger(into[i], t->warp->floor);
    *engine_of(into) = larger(*engine_of(into), b->engine_floor);
    if (t->seen)
        raise_to(into, t->seen);
    into[t->index] = t->clock;
    tick(t);
}

void learn(struct emu_thread *t, const u32 *from)
{
    if (!from || t->seen == from)
        return;
    if (!t->seen) {
        t->seen = (vector)from;
        return;
    }
    if (merged.a != t->seen || merged.b != from) {
        merged.a = t->seen;
        merged.b = from;
        merged.sum = vector_new();
        raise_to(merged.sum, merged.a);
        raise_to(merged.sum, merged.b);
    }
    t->seen = merged.sum;
}

static vector vector_merge(vector a, vector b);

/* Everything that threads first .. first + n - 1 know of other blocks becomes known to them all. */
static void share_far(struct emu_thread *threads, u32 n)
{
    world all = NULL;
    bool any = false;
    for (u32 i = 0; i < n; i++)
        if (threads[i].far && threads[i].far != all) {
            all = world_merge(all, threads[i].far);
            any = true;
        }
    for (u32 i = 0; any && i < n; i++)
        threads[i].far = all;
}

void meet_block(struct emu_block *b)
{
    b->floor = b->top;
    b->top++;
    for (u32 i = 0; i < machine.threads; i++) {
        struct emu_thread *t = b->threads + i;
        t->clock = b->top;
        if (t->seen)
            b->engine_floor = larger(b->engine_floor, *engine_of(t->seen));
        t->seen = NULL;
    }
    share_far(b->threads, machine.threads);
}

/* All blocks of the cluster, whose threads are all there: each knows of all the others. */
void meet_cluster(struct emu_block *b)
{
    world all = keep(machine.blocks * sizeof(*all));
    for (u32 i = 0; i < b->n_cluster; i++) {
        struct emu_block *one = b->cluster[i];
        vector v = vector_new();
        meet_block(one);
        for (u32 t = 0; t < machine.threads; t++)
            v[t] = one->floor;
        *engine_of(v) = one->engine_floor;
        all = world_merge(all, one->threads[0].far);
        all[one->number] = vector_merge(all[one->number], v);
    }
    for (u32 i = 0; i < b->n_cluster; i++)
        for (u32 t = 0; t < machine.threads; t++)
            b->cluster[i]->threads[t].far = all;
}

void meet_warp(struct emu_warp *w)
{
    vector all = NULL;
    bool differ = false;
    for (u32 l = 0; l < WARP; l++) {
        w->floor = larger(w->floor, w->threads[l].clock);
        if (w->threads[l].seen != w->threads[0].seen)
            differ = true;
    }
    if (differ) {
        all = vector_new();
        for (u32 l = 0; l < WARP; l++)
            if (w->threads[l].seen)
                raise_to(all, w->threads[l].seen);
    }
    for (u32 l = 0; l < WARP; l++) {
        w->threads[l].clock = w->floor;
        tick(w->threads + l);
        if (differ)
            w->threads[l].seen = all;
    }
    share_far(w->threads, WARP);
}

u32 meet_as_one(struct emu_thread *first, u32 n)
{
    u32 clock = first->clock;
    vector v = vector_new();
    v[first->index] = clock;
    tick(first);
    for (u32 i = 0; i < n; i++)
        learn(first + i, v);
    return clock;
}

/* ---- between blocks ---- */

static vector vector_merge(vector a, vector b)
{
    if (!a || !b || a == b)
        return a ? a : b;
    vector v = vector_new();
    raise_to(v, a);
    raise_to(v, b);
    return v;
}

world world_merge(world a, world b)
{
    if (!a || !b || a == b)
        return a ? a : b;
    world w = keep(machine.blocks * sizeof(*w));
    for (u32 i = 0; i < machine.blocks; i++)
        w[i] = vector_merge(a[i], b[i]);
    return w;
}

world world_publish(struct emu_thread *t, world into)
{
    world w = keep(machine.blocks * sizeof(*w));
    for (u32 i = 0; i < machine.blocks; i++)
        w[i] = vector_merge(into ? into[i] : NULL, t->far ? t->far[i] : NULL);
    vector own = vector_new();
    publish(t, own);
    w[t->block->number] = vector_merge(w[t->block->number], own);
    return w;
}

void world_learn(struct emu_thread *t, world from)
{
    if (!from || from == t->far)
        return;
    t->far = world_merge(t->far, from);
    learn(t, from[t->block->number]);
}

void learn_far(struct emu_thread *t, world from)
{
    if (!from || from == t->far)
        return;
    if (merged_far.a != t->far || merged_far.b != from) {
        merged_far.sum = world_merge(t->far, from);
        merged_far.a = t->far;
        merged_far.b = from;
    }
    t->far = merged_far.sum;
}

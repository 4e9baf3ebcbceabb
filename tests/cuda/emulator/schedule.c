/* schedule.c - launches, whose turn it is, and the barriers of a block.
 *
 * A thread runs until it must wait; then another that is ready is drawn, most often from the same
 * warp, whose stacks are warm in the cache. What the last to arrive completes makes the others
 * ready: nobody polls, except in loops of the kernel's own. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { POLLS = 400000, MAX_SHARED = 227 << 10, MAX_BLOCKS = 1 << 20 };

struct emu_thread *emu_current;
struct machine machine = {.random = 1};

static struct emu_block *slots[EMU_MAX_RESIDENT];
static int wanted_resident = 2;
static struct fiber outside;
static bool failed;
static void *const *launch_args;
static int n_launch_args;
static u64 polls_progress;
static u32 polls;

void emu_seed(uint32_t seed)
{
    machine.random = seed * 2654435761u + 1;
    if (machine.random == 0)
        machine.random = 1;
}

void emu_resident(int blocks)
{
    wanted_resident = blocks < 1 ? 1 : blocks > EMU_MAX_RESIDENT ? EMU_MAX_RESIDENT : blocks;
}

uint64_t emu_switches(void)
{
    return machine.switches;
}

/* xorshift32 */
u32 random_next(void)
{
    u32 x = machine.random;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return machine.random = x;
}

/* A set bit of `mask`, which is not 0; roughly even. */
static u32 random_bit(u32 mask, u32 random)
{
    u32 turn = random & 31;
    u32 rotated = mask >> turn | mask << (-turn & 31);
    return ((u32)__builtin_ctz(rotated) + turn) & 31;
}

/* ---- turns ---- */

static struct emu_block *draw_block(struct emu_block *now, u32 random)
{
    if (now && now->ready_warps && (random & 127))
        return now;
    u32 first = (random >> 7) % (u32)machine.n_resident;
    for (int i = 0; i < machine.n_resident; i++) {
        struct emu_block *b = machine.resident[(first + (u32)i) % (u32)machine.n_resident];
        if (b->ready_warps)
            return b;
    }
    return NULL;
}

static struct emu_thread *draw(void)
{
    u32 random = random_next();
    struct emu_block *now = emu_current ? emu_current->block : NULL;
    struct emu_block *b = draw_block(now, random);
    while (!b && transfer_one())
        b = draw_block(now, random);
    if (!b)
        return NULL;
    random >>= 12;
    struct emu_warp *w = b == now ? emu_current->warp : NULL;
    if (!w || !w->ready || (random & 15) == 0)
        w = b->warps + random_bit(b->ready_warps, random >> 4);
    return w->threads + random_bit(w->ready, random >> 9);
}

void make_ready(struct emu_thread *t)
{
    t->waiting = NULL;
    t->warp->ready |= 1u << t->lane;
    t->block->ready_warps |= 1u << (t->index / WARP);
}

static void not_ready(struct emu_thread *t)
{
    t->warp->ready &= ~(1u << t->lane);
    if (!t->warp->ready)
        t->block->ready_warps &= ~(1u << (t->index / WARP));
}

void next_turn(void)
{
    struct emu_thread *from = emu_current, *to;
    if ((random_next() & 255) == 0)
        transfer_one();
    to = draw();
    if (!to) {
        report_deadlock();
        abandon_launch();
    }
    if (to == from)
        return;
    machine.switches++;
    emu_current = to;
    fiber_switch(&from->fiber, &to->fiber);
}

void wait_turn(const char *what, u32 id, void *pc)
{
    struct emu_thread *t = emu_current;
    t->waiting = what;
    t->waiting_id = id;
    t->waiting_pc = pc;
    not_ready(t);
    machine.progress++;
    next_turn();
}

void poll_turn(const char *what, void *pc)
{
    if (polls_progress != machine.progress) {
        polls_progress = machine.progress;
        polls = 0;
    }
    if (++polls > POLLS)
        fault(pc, "deadlock: threads poll in %s for ever%s", what,
              (u32)machine.n_resident < machine.blocks
                  ? " (not all blocks of the grid are resident: emu_resident())"
                  : "");
    emu_current->waiting_pc = pc;
    if (polls % 64 == 0)
        transfer_one();
    next_turn();
}

/* ---- barriers ---- */

/* Are the two calls one of the source's? The compiler may have made several of it. */
static bool same_call(void *a, void *b)
{
    enum { KNOWN = 64 };
    static void *known[KNOWN][2];
    static u32 n;
    for (u32 i = 0; i < n && i < KNOWN; i++)
        if (known[i][0] == a && known[i][1] == b)
            return true;
    if (strcmp(source_line(a), source_line(b)) != 0)
        return false;
    known[n % KNOWN][0] = a;
    known[n++ % KNOWN][1] = b;
    return true;
}

/* Barriers are `.aligned`: a warp runs the instruction once, for all of its lanes, which therefore
 * have the same calls in the same order. */
static void aligned(const char *what, u32 id, void *pc)
{
    struct emu_thread *t = emu_current;
    struct emu_warp *w = t->warp;
    struct barrier_call *call = w->calls + t->barriers % BARRIER_CALLS;
    const struct barrier_call mine = {what, id, pc};
    if (t->barriers == w->barriers) {
        *call = mine;
        w->barriers++;
    } else if (w->barriers - t->barriers <= BARRIER_CALLS &&
               (call->what != what || call->id != id ||
                (call->pc != pc && !same_call(call->pc, pc)))) {
        fault(pc, "lanes of a warp diverged: this one is in %s %u, another in %s %u at %s", what,
              id, call->what, call->id, source_line(call->pc));
    }
    t->barriers++;
}

static void release_all(struct emu_block *b, struct barrier *barrier)
{
    for (u32 w = 0; w < b->n_warps; w++) {
        u32 waiting = barrier->waiting[w];
        b->warps[w].ready |= waiting;
        if (waiting)
            b->ready_warps |= 1u << w;
        for (u32 l = 0; l < WARP; l++)
            if (waiting >> l & 1)
                b->warps[w].threads[l].waiting = NULL;
        barrier->waiting[w] = 0;
    }
    barrier->arrived = 0;
    machine.progress++;
}

static void block_wait(void *pc, const char *what)
{
    struct emu_thread *t = emu_current;
    struct emu_block *b = t->block;
    struct barrier *barrier = b->barriers;
    aligned(what, 0, pc);
    if (++barrier->arrived == b->live) {
        meet_block(b);
        release_all(b, barrier);
        return;
    }
    barrier->waiting[t->index / WARP] |= 1u << t->lane;
    wait_turn(what, 0, pc);
}

/* ---- clusters ---- */

static bool cluster_complete(const struct emu_block *b)
{
    u32 live = 0;
    for (u32 i = 0; i < b->n_cluster; i++)
        live += b->cluster[i]->live;
    return b->cluster[0]->cluster_arrived == live;
}

static void cluster_release(struct emu_block *b)
{
    const bool begun = b->cluster[0]->cluster_begun;
    if (!begun)
        meet_cluster(b);
    b->cluster[0]->cluster_arrived = 0;
    b->cluster[0]->cluster_begun = false;
    for (u32 i = 0; i < b->n_cluster; i++) {
        struct emu_block *one = b->cluster[i];
        one->cluster_syncs++;
        if (begun)
            hopper_block_begun(one);
        else
            one->peer_reads = 0;
        for (u32 t = 0; t < machine.threads; t++)
            if (one->cluster_waiting[t / WARP] >> t % WARP & 1)
                make_ready(one->threads + t);
        memset(one->cluster_waiting, 0, sizeof(one->cluster_waiting));
    }
    machine.progress++;
}

static void cluster_arrived(struct emu_thread *t, bool begun, void *pc)
{
    struct emu_block *b = t->block;
    aligned("cluster_arrive", 0, pc);
    b->cluster[0]->cluster_begun |= begun;
    if (t->cluster_pending)
        fault(pc, "a second arrival, and no cluster_wait() behind the first");
    t->cluster_pending = true;
    t->cluster_phase = b->cluster_syncs;
    b->cluster[0]->cluster_arrived++;
    if (cluster_complete(b))
        cluster_release(b);
}

static void cluster_waited(struct emu_thread *t, const char *what, void *pc)
{
    struct emu_block *b = t->block;
    aligned("cluster_wait", 0, pc);
    if (!t->cluster_pending)
        fault(pc, "cluster_wait() without cluster_arrive()");
    if (b->cluster_syncs == t->cluster_phase) {
        b->cluster_waiting[t->index / WARP] |= 1u << t->lane;
        wait_turn(what, 0, pc);
    }
    t->cluster_pending = false;
}

void cluster_sync(void)
{
    cluster_arrived(emu_current, false, PC);
    cluster_waited(emu_current, "cluster_sync", PC);
}

void cluster_arrive(void)
{
    cluster_arrived(emu_current, false, PC);
}

void cluster_arrive_begun(void)
{
    cluster_arrived(emu_current, true, PC);
}

void cluster_wait(void)
{
    cluster_waited(emu_current, "cluster_wait", PC);
}

f32x4 cluster_load_f32x4(const void *p, u32 rank)
{
    struct emu_block *b = emu_current->block;
    f32x4 v;
    if (rank >= b->n_cluster)
        fault(PC, "cluster_load_f32x4 from block %u of a cluster of %u", rank, b->n_cluster);
    struct emu_block *peer = b->cluster[rank];
    if (!b->cluster_syncs)
        fault(PC, "cluster_load_f32x4 before cluster_sync(): block %u may not have begun", rank);
    if (emu_current->cluster_pending)
        fault(PC, "cluster_load_f32x4 behind cluster_arrive(): block %u may have ended", rank);
    if (peer->live == 0)
        fault(PC, "cluster_load_f32x4 from block %u of the cluster, which has ended", rank);
    if ((uintptr_t)p & 15 || !in_shared(p, 16))
        fault(PC, "cluster_load_f32x4: not an aligned address of shared memory");
    const u8 *at = peer->shared + ((const u8 *)p - b->shared);
    check_peer_read(peer, at, 16, PC);
    peer->peer_reads += peer != b;
    memcpy(&v, at, 16);
    return v;
}

void block_sync(void)
{
    block_wait(PC, "block_sync");
}

u32 block_count(u32 predicate)
{
    struct emu_block *b = emu_current->block;
    u32 turn = b->sync_count & 1;
    b->counts[turn] += predicate != 0;
    block_wait(PC, "block_count");
    /* Whoever leaves first opens the next count. */
    if (turn == (b->sync_count & 1)) {
        b->sync_count++;
        b->counts[turn ^ 1] = 0;
    }
    return b->counts[turn];
}

static void barrier_join(u32 id, u32 threads, bool wait, const char *what, void *pc)
{
    struct emu_thread *t = emu_current;
    struct emu_block *b = t->block;
    if (id < 1 || id > 15)
        fault(pc, "%s: barrier %u does not exist (1..15)", what, id);
    if (threads == 0 || threads % WARP || threads > machine.threads)
        fault(pc, "%s: barrier %u of %u threads (whole warps, at most %u threads)", what, id,
              threads, machine.threads);
    struct barrier *barrier = b->barriers + id;
    aligned(what, id, pc);
    if (barrier->arrived == 0) {
        barrier->expected = threads;
        barrier->pending = vector_new();
        barrier->far = barrier->last_far = NULL;
    } else if (barrier->expected != threads) {
        fault(pc, "%s: barrier %u of %u threads, but others expect %u", what, id, threads,
              barrier->expected);
    }
    publish(t, barrier->pending);
    if (t->far != barrier->last_far)
        barrier->far = world_merge(barrier->far, t->far);
    barrier->last_far = t->far;
    if (wait)
        barrier->waiting[t->index / WARP] |= 1u << t->lane;
    if (++barrier->arrived == threads) {
        for (u32 i = 0; i < machine.threads; i++)
            if (barrier->waiting[i / WARP] >> i % WARP & 1) {
                learn(b->threads + i, barrier->pending);
                b->threads[i].far = barrier->far;
            }
        barrier->waiting[t->index / WARP] &= ~(1u << t->lane);
        release_all(b, barrier);
    } else if (wait) {
        wait_turn(what, id, pc);
    }
}

void barrier_sync(u32 id, u32 threads)
{
    barrier_join(id, threads, true, "barrier_sync", PC);
}

void barrier_arrive(u32 id, u32 threads)
{
    barrier_join(id, threads, false, "barrier_arrive", PC);
}

/* ---- threads ---- */

struct emu_index emu_thread_index(void)
{
    return emu_current->at;
}

struct emu_index emu_block_index(void)
{
    return emu_current->block->at;
}

struct emu_index emu_block_size(void)
{
    struct emu_index i = {machine.threads, 1, 1};
    return i;
}

struct emu_index emu_grid_size(void)
{
    const uint32_t *grid = machine.launch->grid;
    struct emu_index i = {grid[0], grid[1], grid[2]};
    return i;
}

void *emu_shared_arena(void)
{
    return emu_current->block->shared;
}

void dependent_wait(void)
{
    emu_current->waited = true;
    machine.any_waited = true;
}

void dependents_launch(void)
{
}

typedef void all_pointers(void *, void *, void *, void *, void *, void *, void *, void *, void *,
                          void *, void *, void *, void *, void *, void *, void *);

static void call_kernel(void)
{
    if (machine.launch->call) {
        machine.launch->call(machine.launch->kernel, launch_args);
        return;
    }
    /* The callee takes as many as it has: the calling conventions in use allow it. */
    void *a[EMU_MAX_ARGS] = {0};
    for (int i = 0; i < n_launch_args; i++)
        a[i] = launch_args[i];
    all_pointers *f = (all_pointers *)machine.launch->kernel;
    f(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11], a[12], a[13], a[14],
      a[15]);
}

static void thread_main(void)
{
    call_kernel();
    struct emu_thread *t = emu_current;
    struct emu_block *b = t->block;
    copies_check_exit(t);
    hopper_thread_exit(t);
    warp_check_exit(t);
    if (t->cluster_pending)
        fault(NULL, "the thread ends between cluster_arrive() and cluster_wait()");
    t->done = true;
    t->warp->live &= ~(1u << t->lane);
    not_ready(t);
    machine.progress++;
    if (b->live == 1 && b->peer_reads)
        fault(NULL, "the block ends, and no cluster_sync() says that others have read its shared "
                    "memory");
    b->live--;
    if (b->cluster[0]->cluster_arrived && cluster_complete(b))
        cluster_release(b);
    if (b->live == 0) {
        hopper_check_exit(b);
        emu_current = NULL;
        fiber_switch(&t->fiber, &outside);
    }
    if (b->barriers[0].arrived == b->live) {
        meet_block(b);
        release_all(b, b->barriers);
    }
    next_turn();
    abort(); /* a thread that has ended gets no turn */
}

/* ---- blocks and grids ---- */

static void start_block(struct emu_block *b, u32 number, u32 base)
{
    const uint32_t *grid = machine.launch->grid;
    b->at = (struct emu_index){number % grid[0], number / grid[0] % grid[1],
                               number / grid[0] / grid[1]};
    b->number = number;
    b->live = machine.threads;
    b->n_warps = machine.threads / WARP;
    b->ready_warps = (u32)(((u64)1 << b->n_warps) - 1);
    b->base = base;
    b->floor = b->engine_floor = b->base;
    b->engine_clock = b->base + 1;
    b->top = b->base + 1;
    b->sync_count = b->counts[0] = b->counts[1] = 0;
    b->cluster_syncs = b->cluster_arrived = b->peer_reads = 0;
    memset(b->cluster_waiting, 0, sizeof(b->cluster_waiting));
    b->cluster_begun = false;
    b->shared = shared_slot(b->slot);
    memset(b->barriers, 0, sizeof(b->barriers));
    memset(b->groups, 0, sizeof(b->groups));
    memset(b->shared, 0xff, machine.launch->shared_bytes);
    hopper_start_block(b);
    for (u32 i = 0; i < machine.threads; i++) {
        struct emu_thread *t = b->threads + i;
        struct async_copy *copies = t->copies;
        struct products *products = t->products;
        u32 room = t->room;
        memset(t, 0, sizeof(*t));
        t->copies = copies;
        t->products = products;
        t->room = room;
        t->block = b;
        t->warp = b->warps + i / WARP;
        t->index = i;
        t->lane = i % WARP;
        t->id = number << 11 | i;
        t->at = (struct emu_index){i, 0, 0};
        t->clock = b->top;
        t->proxy_clock = b->base;
        hopper_start_thread(t);
        fiber_start(&t->fiber, (int)(b->slot * machine.threads + i), thread_main);
    }
    for (u32 w = 0; w < b->n_warps; w++) {
        struct emu_warp *warp = b->warps + w;
        memset(warp, 0, sizeof(*warp));
        warp->ready = warp->live = 0xffffffffu;
        warp->floor = b->base;
        warp->threads = b->threads + w * WARP;
    }
}

static struct emu_block *slot(int i)
{
    if (!slots[i]) {
        slots[i] = calloc(1, sizeof(*slots[i]));
        if (!slots[i]) {
            fprintf(stderr, "emulator: out of memory\n");
            exit(1);
        }
        slots[i]->slot = (u32)i;
    }
    return slots[i];
}

static u32 cluster_size(void)
{
    return machine.launch->grid[3] > 1 ? machine.launch->grid[3] : 1;
}

/* The blocks of cluster `number` (without clusters: block `number`) on the machine's places from
 * `first` on. Clocks of all of them begin together. */
static void start_cluster(int first, u32 number)
{
    const uint32_t *grid = machine.launch->grid;
    const u32 size = cluster_size(), high = grid[1] / size;
    const u32 x = number % grid[0], y = number / grid[0] % high * size;
    const u32 z = number / grid[0] / high;
    struct emu_block **blocks = machine.resident + first;
    u32 base = machine.base;
    for (u32 i = 0; i < size; i++)
        base = blocks[i]->top > base ? blocks[i]->top : base;
    for (u32 i = 0; i < size; i++) {
        blocks[i]->n_cluster = size;
        memcpy(blocks[i]->cluster, blocks, size * sizeof(*blocks));
        start_block(blocks[i], x + grid[0] * (y + i + grid[1] * z), base);
    }
}

static bool cluster_ended(int first)
{
    for (u32 i = 0; i < cluster_size(); i++)
        if (machine.resident[first + (int)i]->live)
            return false;
    return true;
}

static bool bad_launch(const struct emu_launch *l, int n_args)
{
    u32 threads = l->threads;
    u64 blocks = (u64)l->grid[0] * l->grid[1] * l->grid[2];
    if (threads == 0 || threads > MAX_THREADS || threads % WARP)
        fault_outside("%s: a block of %u threads: whole warps, at most %d threads", l->name,
                      threads, MAX_THREADS);
    else if (blocks == 0 || blocks > MAX_BLOCKS)
        fault_outside("%s: a grid of %llu blocks: 1..%d", l->name, blocks, MAX_BLOCKS);
    else if (l->shared_bytes > MAX_SHARED)
        fault_outside("%s: %u bytes of shared memory: at most %d", l->name, l->shared_bytes,
                      MAX_SHARED);
    else if (n_args > EMU_MAX_ARGS && !l->call)
        fault_outside("%s: %d arguments: at most %d", l->name, n_args, EMU_MAX_ARGS);
    else if (l->grid[3] > EMU_MAX_CLUSTER || (l->grid[3] > 1 && l->grid[1] % l->grid[3]))
        fault_outside("%s: clusters of %u of %u blocks along y: at most %d, and whole ones",
                      l->name, l->grid[3], l->grid[1], EMU_MAX_CLUSTER);
    else if (!l->kernel)
        fault_outside("%s: no kernel", l->name);
    else
        return false;
    return true;
}

/* The blocks' numbers in the order in which they start. */
static u32 *shuffled(u32 n)
{
    u32 *order = malloc(n * sizeof(*order));
    if (!order) {
        fprintf(stderr, "emulator: out of memory\n");
        exit(1);
    }
    for (u32 i = 0; i < n; i++) {
        u32 j = random_next() % (i + 1);
        order[i] = order[j];
        order[j] = i;
    }
    return order;
}

static void prepare(const struct emu_launch *l, void *const args[], int n_args)
{
    machine.launch = l;
    machine.blocks = l->grid[0] * l->grid[1] * l->grid[2];
    machine.threads = l->threads;
    machine.base = machine.top;
    if (!l->dependent)
        machine.chain = machine.base;
    machine.any_waited = false;
    machine.n_resident =
        wanted_resident < (int)machine.blocks ? wanted_resident : (int)machine.blocks;
    const int size = (int)cluster_size();
    machine.n_resident = machine.n_resident < size ? size : machine.n_resident / size * size;
    launch_args = args;
    n_launch_args = n_args;
    polls = 0;
    failed = false;
    order_reset();
}

/* Draws a thread of a resident block and comes back when some block has ended, or on a fault. */
static void run_some(void)
{
    struct emu_thread *t = draw();
    if (!t) { /* those blocks that are left wait for ever */
        emu_current = machine.resident[0]->threads;
        report_deadlock();
        emu_current = NULL;
        failed = true;
        return;
    }
    emu_current = t;
    fiber_switch(&outside, &t->fiber);
    emu_current = NULL;
}

static void run_grid(void)
{
    const int size = (int)cluster_size();
    const u32 clusters = machine.blocks / (u32)size;
    u32 *order = shuffled(clusters), next = 0;
    for (int i = 0; i < machine.n_resident; i++)
        machine.resident[i] = slot(i);
    for (int i = 0; i < machine.n_resident; i += size)
        start_cluster(i, order[next++]);
    while (machine.n_resident > 0 && !failed) {
        run_some();
        for (int i = 0; i < machine.n_resident && !failed; i += size) {
            if (!cluster_ended(i))
                continue;
            for (int k = i; k < i + size; k++)
                if (machine.resident[k]->top > machine.top)
                    machine.top = machine.resident[k]->top;
            if (next < clusters) {
                start_cluster(i, order[next++]);
            } else {
                machine.n_resident -= size;
                memcpy(machine.resident + i, machine.resident + machine.n_resident,
                       (size_t)size * sizeof(*machine.resident));
                i -= size;
            }
        }
    }
    free(order);
}

NORETURN void abandon_launch(void)
{
    struct emu_thread *t = emu_current;
    failed = true;
    emu_current = NULL;
    fiber_switch(&t->fiber, &outside);
    abort();
}

/* Nothing of an abandoned launch is to be seen by the next one. */
static void clean_up(void)
{
    for (int i = 0; i < EMU_MAX_RESIDENT; i++)
        if (slots[i]) {
            if (slots[i]->top > machine.top)
                machine.top = slots[i]->top;
            for (int t = 0; t < MAX_THREADS; t++)
                slots[i]->threads[t].n_copies = 0;
        }
    shadow_reset_shared();
}

bool emu_run(const struct emu_launch *launch, void *const args[], int n_args)
{
    if (emu_current || bad_launch(launch, n_args))
        return false;
    prepare(launch, args, n_args);
    run_grid();
    if (failed) {
        clean_up();
        return false;
    }
    if (launch->dependent && !machine.any_waited) {
        fault_outside("%s: launched as dependent, but no thread called dependent_wait()",
                      launch->name);
        return false;
    }
    return true;
}

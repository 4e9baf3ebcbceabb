/* hopper.c - mbarriers, bulk and tensor copies, stores to other blocks of a cluster.
 *
 * Copies and such stores to shared memory wait in a queue of their block until nothing else can
 * run, or until chance picks them; their writes are those of the block's asynchronous engine, which
 * threads learn of from the mbarrier. Stores are done when they are waited for. */
#include <stdlib.h>
#include <string.h>

#include "hopper.h"

struct mbarrier {
    u32 at; /* in shared memory */
    u32 expected, phase;
    i32 pending, bytes;
    u32 init_by, init_clock;
    bool fenced, begun;      /* begun: other blocks know that it is there */
    bool stored;             /* blocks of the cluster store to it, or arrive */
    vector collecting, told; /* what arrivals of this phase publish; of the last phase */
    world far, far_told;     /* the same, of other blocks */
    u32 waiting[MAX_WARPS];
};

enum { MAX_RANK = 5, MOST_BYTES = (1 << 20) - 1 }; /* that an mbarrier counts, either way */
/* What the emulator keeps in a tensor_map. Strides in bytes, of dimensions 1 and up. */
struct emulated_map {
    u8 *base;
    u32 magic;
    u8 rank, element, width, unused;
    u32 extents[MAX_RANK];
    u64 strides[MAX_RANK - 1];
    u16 box[MAX_RANK];
};
enum { MAP_MAGIC = 0x7e5507ab };
STATIC_ASSERT(sizeof(struct emulated_map) <= sizeof(tensor_map), "a map fits its storage");

struct transfer {
    const struct emulated_map *map; /* NULL: plain */
    const u8 *from;                 /* NULL: `value`, which another block of the cluster stores */
    f32x4 value;
    u8 *to;
    u32 bytes;
    i32 first[MAX_RANK];
    u32 barrier; /* index */
};

static void *grow(void *list, u32 n, u32 *room, size_t size, void *pc)
{
    if (n < *room)
        return list;
    *room = *room ? 2 * *room : 16;
    list = realloc(list, *room * size);
    if (!list)
        fault(pc, "the emulator is out of memory");
    return list;
}

struct products *products_of(struct emu_thread *t, void *pc)
{
    if (!t->products && !(t->products = calloc(1, sizeof(*t->products))))
        fault(pc, "the emulator is out of memory");
    return t->products;
}

u32 shared_number(const void *p, void *pc)
{
    if (!in_shared(p, 1))
        fault(pc, "an address outside of shared memory");
    return (u32)((const u8 *)p - emu_current->block->shared) + SHARED_FIRST;
}

u8 *shared_pointer(u32 number, u32 bytes, void *pc)
{
    u8 *p = emu_current->block->shared + number - SHARED_FIRST;
    if (number < SHARED_FIRST || !in_shared(p, bytes))
        fault(pc, "an asynchronous operation outside of shared memory: byte %d of %u",
              (int)number - SHARED_FIRST, machine.launch->shared_bytes);
    return p;
}

u32 swizzle(u32 number, u32 width)
{
    return number ^ (number >> 3 & (width - 16));
}

/* ---- mbarriers ---- */

void hopper_start_block(struct emu_block *b)
{
    for (int i = 0; i < b->n_mbarriers; i++)
        mark_barrier(b->shared + b->mbarriers[i].at, false);
    b->n_mbarriers = b->n_transfers = 0;
}

static struct mbarrier *mbarrier_in(struct emu_block *b, u32 at, void *pc)
{
    struct emu_thread *t = emu_current;
    for (int i = 0; i < b->n_mbarriers; i++) {
        struct mbarrier *m = b->mbarriers + i;
        if (m->at != at)
            continue;
        if (m->init_by != t->id && !(m->begun && b != t->block) &&
            !ordered(t, m->init_by, m->init_clock))
            fault(pc, "use of an mbarrier that nothing orders after its initialisation by %s",
                  thread_name(m->init_by));
        return m;
    }
    fault(pc, "use of an mbarrier at byte %u of shared memory that was not initialised", at);
    abort();
}

static struct mbarrier *mbarrier_of(const u64 *p, void *pc)
{
    struct emu_block *b = emu_current->block;
    if (!in_shared(p, 8) || ((uintptr_t)p & 7))
        fault(pc, "an mbarrier that is not eight aligned bytes of shared memory");
    return mbarrier_in(b, (u32)((const u8 *)p - b->shared), pc);
}

void mbarrier_init(u64 *p, u32 arrivals)
{
    struct emu_thread *t = emu_current;
    struct emu_block *b = t->block;
    if (!in_shared(p, 8) || ((uintptr_t)p & 7))
        fault(PC, "an mbarrier that is not eight aligned bytes of shared memory");
    if (arrivals == 0 || arrivals >= 1u << 20)
        fault(PC, "an mbarrier of %u arrivals: 1..1048575", arrivals);
    check_write(p, 8, 8, PC);
    u32 room = (u32)b->room_mbarriers;
    b->mbarriers = grow(b->mbarriers, (u32)b->n_mbarriers, &room, sizeof(*b->mbarriers), PC);
    b->room_mbarriers = (int)room;
    struct mbarrier *m = b->mbarriers + b->n_mbarriers++;
    memset(m, 0, sizeof(*m));
    m->at = (u32)((u8 *)p - b->shared);
    m->expected = arrivals;
    m->pending = (i32)arrivals;
    m->init_by = t->id;
    m->init_clock = t->clock;
    m->collecting = vector_new();
    mark_barrier(p, true);
}

void mbarrier_init_fence(void)
{
    struct emu_block *b = emu_current->block;
    for (int i = 0; i < b->n_mbarriers; i++)
        if (b->mbarriers[i].init_by == emu_current->id)
            b->mbarriers[i].fenced = true;
}

void hopper_block_begun(struct emu_block *b)
{
    for (int i = 0; i < b->n_mbarriers; i++)
        b->mbarriers[i].begun |= b->mbarriers[i].fenced;
}

/* The last phase's arrivals become known. */
static void hear(struct emu_thread *t, const struct mbarrier *m)
{
    learn(t, m->told);
    learn_far(t, m->far_told);
}

static void complete(struct emu_block *b, struct mbarrier *m)
{
    if (m->pending || m->bytes)
        return;
    m->phase++;
    m->pending = (i32)m->expected;
    m->told = m->collecting;
    m->collecting = vector_new();
    m->far_told = m->far;
    m->far = NULL;
    machine.progress++;
    for (u32 i = 0; i < machine.threads; i++)
        if (m->waiting[i / WARP] >> i % WARP & 1) {
            hear(b->threads + i, m);
            make_ready(b->threads + i);
        }
    memset(m->waiting, 0, sizeof(m->waiting));
}

static void arrive(struct mbarrier *m, u32 bytes, void *pc)
{
    if (m->pending == 0)
        fault(pc, "more arrivals at the mbarrier at byte %u than the %u of a phase", m->at,
              m->expected);
    publish(emu_current, m->collecting);
    m->far = world_merge(m->far, emu_current->far);
    if (bytes > MOST_BYTES || m->bytes + (i32)bytes > MOST_BYTES)
        fault(pc, "the mbarrier at byte %u is to count %u bytes more than %d, and can %d", m->at,
              bytes, m->bytes, MOST_BYTES);
    m->bytes += (i32)bytes;
    m->pending--;
    complete(emu_current->block, m);
}

void mbarrier_arrive(u64 *b)
{
    arrive(mbarrier_of(b, PC), 0, PC);
}

void mbarrier_arrive_expect(u64 *b, u32 bytes)
{
    arrive(mbarrier_of(b, PC), bytes, PC);
}

/* The barrier of another block of the cluster that stands where this block has `barrier`. */
static struct mbarrier *mbarrier_at(u32 rank, const u64 *barrier, const char *what, void *pc)
{
    struct emu_block *b = emu_current->block;
    if (rank >= b->n_cluster || b->n_cluster == 1)
        fault(pc, "%s to block %u of a cluster of %u", what, rank, b->n_cluster);
    struct emu_block *peer = b->cluster[rank];
    if (!b->cluster_syncs)
        fault(pc, "%s before the cluster has met: block %u may not have begun", what, rank);
    if (peer->live == 0)
        fault(pc, "%s to block %u of the cluster, which has ended", what, rank);
    struct mbarrier *m = mbarrier_in(peer, (u32)((const u8 *)barrier - b->shared), pc);
    if (!m->fenced)
        fault(pc, "%s: an mbarrier without mbarrier_init_fence()", what);
    m->stored = true;
    return m;
}

void cluster_arrive_at(u64 *b, u32 rank)
{
    struct mbarrier *m = mbarrier_at(rank, b, "cluster_arrive_at", PC);
    if (m->pending == 0)
        fault(PC, "more arrivals at the mbarrier at byte %u than the %u of a phase", m->at,
              m->expected);
    struct emu_block *own = emu_current->block, *peer = own->cluster[rank];
    if (peer == own)
        publish(emu_current, m->collecting);
    m->far = world_publish(emu_current, m->far);
    m->pending--;
    complete(peer, m);
}

static struct mbarrier *wait_for(u64 *b, u32 parity, void *pc)
{
    struct emu_thread *t = emu_current;
    struct mbarrier *m = mbarrier_of(b, pc);
    if (parity > 1)
        fault(pc, "mbarrier_wait: parity %u (0 or 1)", parity);
    if ((m->phase & 1) != parity) {
        hear(t, m);
        return m;
    }
    m->waiting[t->index / WARP] |= 1u << t->lane;
    wait_turn(parity ? "mbarrier_wait(1) of byte" : "mbarrier_wait(0) of byte", m->at, pc);
    return mbarrier_of(b, pc);
}

/* The acquire of mbarrier_wait() is of the block's scope. */
static void acquire_of_block(const struct mbarrier *m, void *pc)
{
    if (m->stored)
        fault(pc, "bytes or arrivals of blocks of the cluster want cluster_store_wait()");
}

void mbarrier_wait(u64 *b, u32 parity)
{
    acquire_of_block(wait_for(b, parity, PC), PC);
}

void cluster_store_wait(u64 *b, u32 parity)
{
    wait_for(b, parity, PC);
}

u32 mbarrier_test(u64 *b, u32 parity)
{
    struct mbarrier *m = mbarrier_of(b, PC);
    if (parity > 1)
        fault(PC, "mbarrier_test: parity %u (0 or 1)", parity);
    if ((m->phase & 1) == parity) {
        poll_turn("mbarrier_test", PC);
        m = mbarrier_of(b, PC);
    }
    if ((m->phase & 1) == parity)
        return 0;
    acquire_of_block(m, PC);
    hear(emu_current, m);
    return 1;
}

/* ---- tensor maps ---- */

bool emu_encode_map(void *to, const struct emu_tensor *of)
{
    struct emulated_map map;
    memset(&map, 0, sizeof(map));
    map.base = of->base;
    map.magic = MAP_MAGIC;
    map.rank = (u8)of->rank;
    map.element = (u8)of->element_bytes;
    map.width = (u8)of->swizzle;
    bool bad = of->rank < 1 || of->rank > MAX_RANK || ((uintptr_t)of->base & 15);
    for (int i = 0; !bad && i < of->rank; i++) {
        map.extents[i] = of->extents[i];
        map.box[i] = (u16)of->box[i];
        bad = of->extents[i] == 0 || of->box[i] == 0 || of->box[i] > 256;
        if (i > 0) {
            map.strides[i - 1] = of->strides[i - 1];
            bad = bad || of->strides[i - 1] % 16 || of->strides[i - 1] >> 40;
        }
    }
    u32 inner = bad ? 0 : of->box[0] * (u32)of->element_bytes;
    if (bad || inner % 16 || (of->swizzle && inner > (u32)of->swizzle)) {
        fault_outside("a tensor map whose base or stride is not a multiple of 16 bytes, an extent "
                      "of 0, a box side outside of 1..256, or rows of the box that are no multiple "
                      "of 16 bytes or exceed the swizzle");
        return false;
    }
    memset(to, 0, sizeof(tensor_map));
    memcpy(to, &map, sizeof(map));
    return true;
}

void emu_tensor_map(void *to, const struct emu_tensor *of)
{
    tensor_map map;
    if (emu_encode_map(&map, of))
        emu_write(to, &map, sizeof(map));
}

static const struct emulated_map *map_at(const tensor_map *p, void *pc)
{
    const struct emulated_map *map = (const struct emulated_map *)(const void *)p;
    for (u32 i = 0; i < sizeof(*p); i += 16)
        check_read((const u8 *)p + i, 16, i ? 16 : 64, pc);
    if (map->magic != MAP_MAGIC)
        fault(pc, "not a tensor map");
    return map;
}

/* A map that the thread may use: the host's copy of it is another way to memory. */
static const struct emulated_map *map_of(const tensor_map *p, void *pc)
{
    const struct products *own = products_of(emu_current, pc);
    for (u32 i = 0; i < own->n_maps; i++)
        if (own->maps[i] == p)
            return map_at(p, pc);
    fault(pc, "a tensor map that this thread has not named to tensor_map_acquire()");
    return NULL;
}

static u32 box_bytes(const struct emulated_map *map)
{
    u32 bytes = map->element;
    for (int i = 0; i < map->rank; i++)
        bytes *= map->box[i];
    return bytes;
}

/* Sixteen bytes of a box: piece i in the order of shared memory. Their place in the tensor; in
 * *inside, how many of them the tensor has. */
static u8 *piece_of(const struct emulated_map *map, const i32 first[], u32 piece, u32 *inside)
{
    u32 rest = piece * 16;
    i64 offset = 0;
    i64 left = 16;
    for (int i = 0; i < map->rank; i++) {
        u32 side = i ? map->box[i] : map->box[0] * map->element;
        i64 at = rest % side;
        rest /= side;
        if (i == 0) {
            at += (i64)first[0] * map->element;
            i64 end = (i64)map->extents[0] * map->element;
            left = at < 0 ? 0 : end - at < 16 ? end - at : 16;
            offset = at;
        } else {
            at += first[i];
            if (at < 0 || at >= map->extents[i])
                left = 0;
            offset += at * (i64)map->strides[i - 1];
        }
    }
    *inside = left < 0 ? 0 : (u32)left;
    return map->base + (*inside ? offset : 0);
}

/* ---- copies to shared memory ---- */

static void check_pieces(const u8 *p, u32 bytes, bool write, void *pc)
{
    for (u32 i = 0; i < bytes; i += 16) {
        u32 n = bytes - i < 16 ? bytes - i : 16;
        if (write)
            check_write(p + i, n, 1, pc);
        else
            check_read(p + i, n, 1, pc);
    }
}

static void enqueue(struct emu_block *b, const struct transfer *of, void *pc)
{
    u32 room = (u32)b->room_transfers;
    b->transfers = grow(b->transfers, (u32)b->n_transfers, &room, sizeof(*b->transfers), pc);
    b->room_transfers = (int)room;
    b->transfers[b->n_transfers++] = *of;
}

static void queue(const struct transfer *of, void *pc)
{
    struct emu_block *b = emu_current->block;
    struct mbarrier *m = b->mbarriers + of->barrier;
    if (!m->fenced)
        fault(pc, "an asynchronous copy to an mbarrier without mbarrier_init_fence()");
    if (!in_shared(of->to, of->bytes))
        fault(pc, "the copy's destination, %u bytes, is outside of shared memory", of->bytes);
    check_proxy(of->to, of->bytes, "write", pc);
    pending_begin(of->to, of->bytes, pc);
    enqueue(b, of, pc);
}

void cluster_store_f32x4(void *p, f32x4 v, u32 rank, u64 *barrier)
{
    struct mbarrier *m = mbarrier_at(rank, barrier, "cluster_store_f32x4", PC);
    struct emu_block *b = emu_current->block, *peer = b->cluster[rank];
    if ((uintptr_t)p & 15 || !in_shared(p, 16))
        fault(PC, "cluster_store_f32x4: not an aligned address of shared memory");
    u8 *to = peer->shared + ((const u8 *)p - b->shared);
    struct transfer t = {NULL, NULL, v, to, 16, {0}, (u32)(m - peer->mbarriers)};
    pending_peer(peer, to, 16, PC);
    enqueue(peer, &t, PC);
}

static void check_bulk(const void *shared, const void *global, u32 bytes, void *pc)
{
    if (((uintptr_t)shared | (uintptr_t)global | bytes) & 15)
        fault(pc, "a bulk copy of %u bytes: addresses and size are multiples of 16", bytes);
}

void bulk_load(void *shared, const void *global, u32 bytes, u64 *barrier)
{
    struct transfer t = {NULL, global, {0, 0, 0, 0}, shared, bytes, {0}, 0};
    check_bulk(shared, global, bytes, PC);
    check_pieces(global, bytes, false, PC);
    t.barrier = (u32)(mbarrier_of(barrier, PC) - emu_current->block->mbarriers);
    queue(&t, PC);
}

static void load_box(void *shared, const tensor_map *p, int rank, const i32 first[], u64 *barrier,
                     void *pc)
{
    const struct emulated_map *map = map_of(p, pc);
    struct transfer t = {map, NULL, {0, 0, 0, 0}, shared, box_bytes(map), {0}, 0};
    if (map->rank != rank)
        fault(pc, "a tensor of %d dimensions, not of %d", map->rank, rank);
    if ((uintptr_t)shared & 127)
        fault(pc, "a tensor copy to shared memory that is not 128-byte aligned");
    memmove(t.first, first, (size_t)rank * sizeof(*first));
    for (u32 i = 0; i < t.bytes / 16; i++) {
        u32 inside;
        const u8 *from = piece_of(map, first, i, &inside);
        if (inside)
            check_pieces(from, inside, false, pc);
    }
    t.barrier = (u32)(mbarrier_of(barrier, pc) - emu_current->block->mbarriers);
    queue(&t, pc);
}

void tensor_load_2d(void *shared, const tensor_map *map, i32 c0, i32 c1, u64 *barrier)
{
    const i32 first[] = {c0, c1};
    load_box(shared, map, 2, first, barrier, PC);
}

void tensor_load_3d(void *shared, const tensor_map *map, i32 c0, i32 c1, i32 c2, u64 *barrier)
{
    const i32 first[] = {c0, c1, c2};
    load_box(shared, map, 3, first, barrier, PC);
}

void tensor_load_4d(void *shared, const tensor_map *map, i32 c0, i32 c1, i32 c2, i32 c3,
                    u64 *barrier)
{
    const i32 first[] = {c0, c1, c2, c3};
    load_box(shared, map, 4, first, barrier, PC);
}

static u8 *swizzled(struct emu_block *b, u8 *p, u32 width)
{
    u32 number = (u32)(p - b->shared);
    return width ? b->shared + swizzle(number, width) : p;
}

static void transfer_run(struct emu_block *b, const struct transfer *t)
{
    struct mbarrier *m = b->mbarriers + t->barrier;
    for (u32 i = 0; i < t->bytes / 16; i++) {
        u8 *to = t->to + i * 16;
        u32 inside = 16;
        const u8 *from;
        if (!t->map) {
            from = t->from ? t->from + i * 16 : (const u8 *)&t->value;
        } else {
            from = piece_of(t->map, t->first, i, &inside);
            to = swizzled(b, to, t->map->width);
        }
        memmove(to, from, inside);
        memset(to + inside, 0, 16 - inside);
    }
    u32 clock = b->engine_clock++;
    if (b->top < b->engine_clock) /* what runs in this memory next starts later than all of it */
        b->top = b->engine_clock;
    pending_end(t->to, t->bytes, b->number << 11 | ENGINE, clock);
    m->collecting[machine.threads] = clock;
    m->bytes -= (i32)t->bytes;
    if (m->bytes < -MOST_BYTES)
        fault(NULL, "more than %d bytes have come that the mbarrier at byte %u does not expect",
              MOST_BYTES, m->at);
    complete(b, m);
}

bool transfer_one(void)
{
    u32 first = random_next() % (u32)machine.n_resident;
    for (int i = 0; i < machine.n_resident; i++) {
        struct emu_block *b = machine.resident[(first + (u32)i) % (u32)machine.n_resident];
        if (!b->n_transfers)
            continue;
        u32 pick = random_next() % (u32)b->n_transfers;
        struct transfer t = b->transfers[pick];
        b->transfers[pick] = b->transfers[--b->n_transfers];
        transfer_run(b, &t);
        return true;
    }
    return false;
}

/* ---- stores from shared memory ---- */

static void store_piece(u8 *to, const u8 *from, u32 bytes, void *pc)
{
    struct products *p = products_of(emu_current, pc);
    pending_begin(to, bytes, pc);
    p->stores = grow(p->stores, p->n_stores, &p->store_room, sizeof(*p->stores), pc);
    p->stores[p->n_stores++] = (struct store){to, from, bytes, p->group, false, {0}};
}

static void store_source(const u8 *from, u32 bytes, void *pc)
{
    if (!in_shared(from, bytes))
        fault(pc, "the copy's source, %u bytes, is outside of shared memory", bytes);
    pending_read_begin(from, bytes, pc);
    check_proxy(from, bytes, "read", pc);
}

void bulk_store(void *global, const void *shared, u32 bytes)
{
    check_bulk(shared, global, bytes, PC);
    store_source(shared, bytes, PC);
    for (u32 i = 0; i < bytes; i += 16)
        store_piece((u8 *)global + i, (const u8 *)shared + i, 16, PC);
}

static void store_box(const tensor_map *p, int rank, const i32 first[], const void *shared,
                      void *pc)
{
    const struct emulated_map *map = map_of(p, pc);
    struct emu_block *b = emu_current->block;
    u32 bytes = box_bytes(map);
    if (map->rank != rank)
        fault(pc, "a tensor of %d dimensions, not of %d", map->rank, rank);
    if ((uintptr_t)shared & 127)
        fault(pc, "a tensor copy from shared memory that is not 128-byte aligned");
    store_source(shared, bytes, pc);
    for (u32 i = 0; i < bytes / 16; i++) {
        u32 inside;
        u8 *to = piece_of(map, first, i, &inside);
        const u8 *from = swizzled(b, (u8 *)(uintptr_t)shared + i * 16, map->width);
        if (inside)
            store_piece(to, from, inside, pc);
        else
            pending_read_end(from, 16, emu_current->id, emu_current->clock);
    }
}

void tensor_store_2d(const tensor_map *map, i32 c0, i32 c1, const void *shared)
{
    const i32 first[] = {c0, c1};
    store_box(map, 2, first, shared, PC);
}

void tensor_store_3d(const tensor_map *map, i32 c0, i32 c1, i32 c2, const void *shared)
{
    const i32 first[] = {c0, c1, c2};
    store_box(map, 3, first, shared, PC);
}

void bulk_commit(void)
{
    products_of(emu_current, PC)->group++;
}

static void wait_stores(struct emu_thread *t, u32 groups, bool written, bool ending, void *pc)
{
    struct products *p = products_of(t, pc);
    u32 kept = 0;
    for (u32 i = 0; i < p->n_stores; i++) {
        struct store *s = p->stores + i;
        bool due = ending || p->group - s->group > groups;
        if (due && !s->read) {
            memmove(s->copy, s->from, s->bytes);
            pending_read_end(s->from, 16, t->id, t->clock);
            s->read = true;
        }
        if (due && written) {
            memmove(s->to, s->copy, s->bytes);
            pending_end(s->to, s->bytes, t->id, t->clock);
        } else {
            p->stores[kept++] = *s;
        }
    }
    p->n_stores = kept;
}

void bulk_wait_read(u32 groups)
{
    wait_stores(emu_current, groups, false, false, PC);
}

void bulk_wait(u32 groups)
{
    wait_stores(emu_current, groups, true, false, PC);
}

void bulk_prefetch_l2(const void *global, u32 bytes)
{
    if (((uintptr_t)global | bytes) & 15)
        fault(PC, "bulk_prefetch_l2 of %u bytes: address and size are multiples of 16", bytes);
}

void tensor_map_acquire(const tensor_map *map)
{
    struct products *own = products_of(emu_current, PC);
    map_at(map, PC);
    if (own->n_maps == MAX_MAPS)
        fault(PC, "more than %d tensor maps of one thread", MAX_MAPS);
    own->maps[own->n_maps++] = map;
}

void tensor_map_prefetch_2d(const tensor_map *map)
{
    if (map_of(map, PC)->rank != 2)
        fault(PC, "tensor_map_prefetch_2d of a map of another rank");
}

void fence_proxy_async(void)
{
    emu_current->proxy_clock = emu_current->clock;
    vector none = vector_new();
    publish(emu_current, none); /* its clock ticks: later stores are not covered */
}

/* ---- ends ---- */

void hopper_thread_exit(struct emu_thread *t)
{
    struct products *p = t->products;
    if (!p)
        return;
    if (p->n)
        fault(p->list[0].pc, "the thread ended with %u products not waited for", p->n);
    for (u32 i = 0; i < p->n_stores; i++)
        if (!p->stores[i].read)
            fault(NULL, "the thread ended before its bulk stores had read shared memory");
    wait_stores(t, 0, true, true, NULL);
}

void hopper_check_exit(struct emu_block *b)
{
    if (b->n_transfers)
        fault(NULL, "the block ended with %d asynchronous copies under way", b->n_transfers);
}

void hopper_start_thread(struct emu_thread *t)
{
    struct products *p = t->products;
    if (p) {
        p->n = p->n_stores = p->n_maps = p->batch = p->group = 0;
        p->fenced = false;
    }
}

void registers_more(u32 n)
{
    if (n % 8 || n < 24 || n > 256)
        fault(PC, "registers_more(%u): a multiple of 8, 24..256", n);
}

void registers_fewer(u32 n)
{
    if (n % 8 || n < 24 || n > 256)
        fault(PC, "registers_fewer(%u): a multiple of 8, 24..256", n);
}

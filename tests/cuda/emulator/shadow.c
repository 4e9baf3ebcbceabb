/* shadow.c - device memory, a cell of bookkeeping for every four bytes of it, and the checks that
 * the compiler's instrumentation calls before each load and store of a kernel. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "internal.h"

/* Shared memory of resident blocks stands at the start of the arena, a slot each. */
#define SLOT_BYTES ((u64)256 << 10)
#define SHARED_BYTES (SLOT_BYTES * EMU_MAX_RESIDENT)
#define ARENA_BYTES ((u64)2 << 30)
enum { RED_ZONE = 256, MAX_ALLOCATIONS = 16384 };

static u8 *arena;
static struct cell *cells;
static struct allocation {
    const char *name;
    u64 at, bytes, room;
    bool live;
} * allocations;
static int n_allocations;
static u64 arena_end = SHARED_BYTES + RED_ZONE;

static void *reserve(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    if (p == MAP_FAILED) {
        perror("emulator: device memory");
        exit(1);
    }
    return p;
}

static void need_arena(void)
{
    if (arena)
        return;
    arena = reserve(ARENA_BYTES);
    cells = reserve(ARENA_BYTES / 4 * sizeof(struct cell));
    allocations = reserve(MAX_ALLOCATIONS * sizeof(*allocations));
}

u8 *shared_slot(u32 slot)
{
    need_arena();
    return arena + slot * SLOT_BYTES;
}

void shadow_reset_shared(void)
{
    madvise(cells, SHARED_BYTES / 4 * sizeof(struct cell), MADV_DONTNEED);
}

/* ---- allocations ---- */

static void clear_cells(u64 at, u64 bytes)
{
    memset(cells + at / 4, 0, (bytes + 3) / 4 * sizeof(struct cell));
}

static void set_bytes(u64 at, u64 bytes, bool valid, bool init)
{
    for (u64 i = at; i < at + bytes;) {
        u32 first = i & 3, n = at + bytes - i < 4 - first ? (u32)(at + bytes - i) : 4 - first;
        u32 mask = ((1u << n) - 1) << first;
        struct cell *c = cells + i / 4;
        c->valid = (c->valid | (valid ? mask : 0)) & 15;
        c->init = (init ? c->init | mask : c->init & ~mask) & 15;
        i += n;
    }
}

static struct allocation *find_room(u64 room)
{
    for (int i = 0; i < n_allocations; i++)
        if (!allocations[i].live && allocations[i].room >= room &&
            allocations[i].room <= room + room / 4)
            return allocations + i;
    if (n_allocations == MAX_ALLOCATIONS || arena_end + room > ARENA_BYTES) {
        fprintf(stderr, "emulator: device memory is full (%d allocations)\n", n_allocations);
        exit(1);
    }
    struct allocation *a = allocations + n_allocations++;
    a->at = arena_end;
    a->room = room;
    arena_end += room;
    return a;
}

void *emu_alloc(const char *name, size_t bytes)
{
    need_arena();
    u64 room = ((bytes + 255) & ~(u64)255) + RED_ZONE;
    struct allocation *a = find_room(room);
    a->name = name;
    a->bytes = bytes;
    a->live = true;
    clear_cells(a->at, a->room);
    set_bytes(a->at, bytes, true, false);
    memset(arena + a->at, 0xff, bytes);
    return arena + a->at;
}

static struct allocation *allocation_of(u64 at)
{
    for (int i = 0; i < n_allocations; i++)
        if (at >= allocations[i].at && at < allocations[i].at + allocations[i].room)
            return allocations + i;
    return NULL;
}

void emu_free(void *p)
{
    if (!p)
        return;
    struct allocation *a = allocation_of((u64)((u8 *)p - arena));
    if (!a || !a->live || arena + a->at != (u8 *)p) {
        fault_outside("emu_free of what is not allocated");
        return;
    }
    a->live = false;
    clear_cells(a->at, a->room);
}

void emu_free_all(void)
{
    need_arena();
    u64 used = arena_end - SHARED_BYTES;
    madvise(cells + SHARED_BYTES / 4, used / 4 * sizeof(struct cell), MADV_DONTNEED);
    n_allocations = 0;
    arena_end = SHARED_BYTES + RED_ZONE;
}

static bool host_range(const void *p, size_t bytes, const char *what)
{
    u64 at = (u64)((const u8 *)p - arena);
    struct allocation *a = arena && at < ARENA_BYTES ? allocation_of(at) : NULL;
    if (a && a->live && at + bytes <= a->at + a->bytes)
        return true;
    if (a && a->live)
        fault_outside("%s: %zu bytes at byte %llu of %s, which has %llu", what, bytes, at - a->at,
                      a->name, a->bytes);
    else
        fault_outside("%s: not device memory", what);
    return false;
}

void emu_write(void *to, const void *from, size_t bytes)
{
    if (!host_range(to, bytes, "emu_write"))
        return;
    memmove(to, from, bytes);
    set_bytes((u64)((u8 *)to - arena), bytes, true, true);
}

void emu_fill(void *to, int byte, size_t bytes)
{
    if (!host_range(to, bytes, "emu_fill"))
        return;
    memset(to, byte, bytes);
    set_bytes((u64)((u8 *)to - arena), bytes, true, true);
}

void emu_mark(void *p, size_t bytes)
{
    if (host_range(p, bytes, "emu_mark"))
        set_bytes((u64)((u8 *)p - arena), bytes, true, true);
}

void emu_forget(void *p, size_t bytes)
{
    if (host_range(p, bytes, "emu_forget"))
        set_bytes((u64)((u8 *)p - arena), bytes, true, false);
}

bool emu_read(void *to, const void *from, size_t bytes)
{
    if (!host_range(from, bytes, "emu_read"))
        return false;
    u64 at = (u64)((const u8 *)from - arena);
    for (u64 i = at; i < at + bytes; i++)
        if (!(cells[i / 4].init >> (i & 3) & 1)) {
            struct allocation *a = allocation_of(at);
            fault_outside("emu_read: byte %llu of %s was never written", i - a->at, a->name);
            return false;
        }
    memmove(to, from, bytes);
    return true;
}

/* ---- where an address is, in words ---- */

static const char *place(u64 at)
{
    static char text[160];
    if (at < SHARED_BYTES) {
        u64 offset = at % SLOT_BYTES;
        snprintf(text, sizeof(text), "byte %llu of shared memory (%u bytes)", offset,
                 machine.launch->shared_bytes);
        return text;
    }
    const struct allocation *a = allocation_of(at);
    if (!a)
        snprintf(text, sizeof(text), "device memory that is not allocated");
    else if (!a->live)
        snprintf(text, sizeof(text), "byte %llu of the freed %s", at - a->at, a->name);
    else
        snprintf(text, sizeof(text), "byte %llu of %s (%llu bytes)", at - a->at, a->name, a->bytes);
    return text;
}

extern char __executable_start[], _end[];

/* Not in the arena: the thread's own variables and the program's constants may be read. */
static void check_elsewhere(const void *p, u32 size, bool write, void *pc)
{
    if (fiber_owns(p)) {
        if (UNLIKELY(emu_current->products))
            hopper_check_registers(p, size, pc);
        return;
    }
    bool constant = (uintptr_t)p >= (uintptr_t)__executable_start && (uintptr_t)p < (uintptr_t)_end;
    if (constant && !write)
        return;
    fault(pc, "%s of %u bytes at %p, %s", write ? "write" : "read", size, p,
          constant ? "the program's static data" : "which is not device memory");
}

/* ---- the checks ---- */

enum access { READ, ASYNC_READ, ATOMIC_READ, WRITE, ATOMIC_WRITE };
static const char *const access_names[] = {"read", "asynchronous read", "atomic read", "write",
                                           "atomic write"};

static NORETURN void race(void *pc, u64 at, enum access access, const char *other, u32 id,
                          u32 other_pc)
{
    char who[64], line[160];
    snprintf(who, sizeof(who), "%s", thread_name(id));
    snprintf(line, sizeof(line), "%s", other_pc ? source_line(pc_unpack(other_pc)) : "");
    fault(pc, "%s of %s that nothing orders after the %s by %s%s%s", access_names[access],
          place(at), other, who, other_pc ? " at " : "", line);
}

/* Writes of the launch's predecessors, while they may still run. */
static void check_dependent(const struct cell *c, u64 at, bool write, void *pc)
{
    u32 last = c->write_clock;
    const char *what = "write";
    if (write)
        for (int i = 0; i < 2; i++)
            if (c->read_clock[i] <= machine.base && c->read_clock[i] > last) {
                last = c->read_clock[i];
                what = "read";
            }
    if (last > machine.chain && last <= machine.base)
        fault(pc, "%s of %s before dependent_wait(): an earlier kernel may still %s it",
              write ? "write" : "read", place(at), what);
}

static inline void check_bytes(const struct cell *c, u64 at, u32 mask, bool shared,
                               enum access access, void *pc)
{
    if (UNLIKELY(!shared && (c->valid & mask) != mask))
        fault(pc, "%s outside of allocations: %s", access_names[access], place(at));
    if (UNLIKELY(c->pending))
        fault(pc, "%s of %s, which an asynchronous copy by %s at %s has not been waited for",
              access_names[access], place(at), thread_name(c->writer),
              source_line(pc_unpack(c->write_pc)));
    if (UNLIKELY(c->barrier))
        fault(pc, "%s of %s, which is an mbarrier", access_names[access], place(at));
    if (UNLIKELY(machine.launch->dependent && !shared && !emu_current->waited))
        check_dependent(c, at, access >= WRITE, pc);
}

static inline void read_cell(struct cell *c, u64 at, u32 mask, bool shared, u32 base,
                             enum access access, void *pc)
{
    struct emu_thread *t = emu_current;
    bool fresh = c->write_clock > base; /* written by this launch, in shared memory this block */
    check_bytes(c, at, mask, shared, access, pc);
    if (UNLIKELY(((shared && !fresh ? 0 : c->init) & mask) != mask))
        fault(pc, "read of %s, which nothing has written", place(at));
    if (fresh && c->writer != t->id && (c->write_mask & mask) &&
        !(access == ATOMIC_READ && c->atomic) && UNLIKELY(!ordered(t, c->writer, c->write_clock)))
        race(pc, at, access, "write", c->writer, c->write_pc);
    if (access != READ)
        return;
    if (c->reader[0] != t->id) {
        c->reader[1] = c->reader[0];
        c->read_clock[1] = c->read_clock[0];
        c->read_mask = (u8)(c->read_mask << 4);
        c->reader[0] = t->id;
    } else if (c->read_clock[0] != t->clock) {
        c->read_mask &= 0xf0;
    }
    c->read_clock[0] = t->clock;
    c->read_mask |= (u8)mask;
}

static inline void write_cell(struct cell *c, u64 at, u32 mask, bool shared, u32 base,
                              enum access access, void *pc)
{
    struct emu_thread *t = emu_current;
    bool fresh = c->write_clock > base;
    check_bytes(c, at, mask, shared, access, pc);
    if (UNLIKELY(c->pending_reads))
        fault(pc, "write to %s, which an asynchronous operation is still reading", place(at));
    if (fresh && c->writer != t->id && (c->write_mask & mask) &&
        !(access == ATOMIC_WRITE && c->atomic) && UNLIKELY(!ordered(t, c->writer, c->write_clock)))
        race(pc, at, access, "write", c->writer, c->write_pc);
    for (int i = 0; i < 2; i++)
        if (c->read_clock[i] > base && c->reader[i] != t->id && (c->read_mask >> 4 * i & mask) &&
            UNLIKELY(!ordered(t, c->reader[i], c->read_clock[i])))
            race(pc, at, access, "read", c->reader[i], 0);
    if (c->writer != t->id || c->write_clock != t->clock)
        c->write_mask = 0;
    if (shared && !fresh)
        c->init = 0;
    c->init = (c->init | mask) & 15;
    c->write_mask = (c->write_mask | mask) & 15;
    c->writer = t->id;
    c->write_clock = t->clock;
    c->write_pc = pc_pack(pc);
    c->atomic = access == ATOMIC_WRITE;
    c->engine = 0;
}

static inline void check(const void *p, u32 size, u32 align, enum access access, void *pc)
{
    struct emu_thread *t = emu_current;
    u64 at = (u64)((const u8 *)p - arena);
    if (UNLIKELY(at >= ARENA_BYTES - size)) {
        check_elsewhere(p, size, access >= WRITE, pc);
        return;
    }
    if (UNLIKELY((uintptr_t)p & (align - 1)))
        fault(pc, "misaligned %s of %u bytes at %s", access_names[access], size, place(at));
    bool shared = at < SHARED_BYTES;
    if (shared && UNLIKELY(!in_shared(p, size)))
        fault(pc, "%s of %u bytes outside of shared memory: %s", access_names[access], size,
              place(at));
    u32 base = shared ? t->block->base : machine.base;
    u64 cell = at / 4;
    for (u64 mask = (((u64)1 << size) - 1) << (at & 3); mask; mask >>= 4, cell++) {
        if (access < WRITE)
            read_cell(cells + cell, at, mask & 15, shared, base, access, pc);
        else
            write_cell(cells + cell, at, mask & 15, shared, base, access, pc);
    }
}

void check_peer_read(const struct emu_block *peer, const void *p, u32 size, void *pc)
{
    u64 at = (u64)((const u8 *)p - arena), from = (u64)((const u8 *)p - peer->shared);
    if (from + size > machine.launch->shared_bytes || from >= SLOT_BYTES)
        fault(pc, "read of %u bytes outside of another block's shared memory", size);
    for (u32 i = 0; i < size; i += 4)
        read_cell(cells + (at + i) / 4, at + i, 15, true, peer->base, READ, pc);
}

bool in_shared(const void *p, u32 size)
{
    u64 at = (u64)((const u8 *)p - emu_current->block->shared);
    return at + size <= machine.launch->shared_bytes && at < SLOT_BYTES;
}

void check_read(const void *p, u32 size, u32 align, void *pc)
{
    check(p, size, align, READ, pc);
}

void check_write(const void *p, u32 size, u32 align, void *pc)
{
    check(p, size, align, WRITE, pc);
}

void check_atomic(const void *p, u32 size, bool write, void *pc)
{
    check(p, size, size, ATOMIC_READ, pc);
    if (write)
        check(p, size, size, ATOMIC_WRITE, pc);
}

/* ---- asynchronous ---- */

/* The cells of [p, p + size), which is known to be in the arena, and the bytes of one that it has.
 */
#define EACH_CELL(c, p, size)                                                                      \
    for (struct cell *c = cells + ((const u8 *)(p)-arena) / 4,                                     \
                     *end_ = cells + ((const u8 *)(p)-arena + (size) + 3) / 4;                     \
         c < end_; c++)

static u8 *bytes_of(const struct cell *c)
{
    return arena + (c - cells) * 4;
}

static u32 mask_of(const struct cell *c, const void *p, u32 size)
{
    u32 mask = 0;
    for (u32 i = 0; i < 4; i++)
        mask |= (u32)((u64)(bytes_of(c) + i - (const u8 *)p) < size) << i;
    return mask;
}

void pending_begin(const void *p, u32 size, void *pc)
{
    for (u32 i = 0; i < size; i += 4)
        check((const u8 *)p + i, size - i < 4 ? size - i : 4, 1, WRITE, pc);
    EACH_CELL(c, p, size)
    c->pending = 1;
}

void pending_peer(const struct emu_block *peer, const void *p, u32 size, void *pc)
{
    EACH_CELL(c, p, size)
    {
        write_cell(c, (u64)(bytes_of(c) - arena), 15, true, peer->base, WRITE, pc);
        c->pending = 1;
    }
}

void pending_end(const void *p, u32 size, u32 id, u32 clock)
{
    EACH_CELL(c, p, size)
    {
        c->pending = 0;
        c->writer = id;
        c->write_clock = clock;
        c->write_mask = mask_of(c, p, size) & 15;
        c->engine = (id & 2047) == ENGINE;
    }
}

void pending_read_begin(const void *p, u32 size, void *pc)
{
    for (u32 i = 0; i < size; i += 4)
        check((const u8 *)p + i, size - i < 4 ? size - i : 4, 1, ASYNC_READ, pc);
    EACH_CELL(c, p, size)
    {
        if (c->pending_reads == 255)
            fault(pc, "too many asynchronous reads of the same bytes");
        c->pending_reads++;
    }
}

void pending_read_end(const void *p, u32 size, u32 id, u32 clock)
{
    EACH_CELL(c, p, size)
    {
        c->pending_reads--;
        c->reader[0] = id;
        c->read_clock[0] = clock;
        c->read_mask |= (u8)mask_of(c, p, size);
    }
}

static u32 proxy_clock_of(u32 id)
{
    return emu_current->block->threads[id & 1023].proxy_clock;
}

void check_proxy(const void *p, u32 size, const char *access, void *pc)
{
    u32 base = emu_current->block->base;
    EACH_CELL(c, p, size)
    if (!c->engine && c->write_clock > base && c->write_clock > proxy_clock_of(c->writer))
        fault(pc, "asynchronous %s of %s, written by %s at %s without fence_proxy_async()", access,
              place((u64)(bytes_of(c) - arena)), thread_name(c->writer),
              source_line(pc_unpack(c->write_pc)));
}

void mark_barrier(const void *p, bool on)
{
    EACH_CELL(c, p, 8)
    c->barrier = on;
}

/* ---- what the compiler calls ---- */

void __tsan_init(void);
void __tsan_func_entry(void *pc);
void __tsan_func_exit(void *unused);
void __tsan_init(void)
{
}

void __tsan_func_entry(void *pc)
{
    (void)pc;
}

void __tsan_func_exit(void *unused)
{
    (void)unused;
}

#define HOOK(name, access, size, align)                                                            \
    void name(void *p);                                                                            \
    void name(void *p)                                                                             \
    {                                                                                              \
        if (emu_current)                                                                           \
            check(p, size, align, access, PC);                                                     \
    }
#define HOOKS(size)                                                                                \
    HOOK(__tsan_read##size, READ, size, size)                                                      \
    HOOK(__tsan_write##size, WRITE, size, size)                                                    \
    HOOK(__tsan_unaligned_read##size, READ, size, 1)                                               \
    HOOK(__tsan_unaligned_write##size, WRITE, size, 1)
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)

static void check_range(void *p, u64 size, enum access access, void *pc)
{
    for (u64 i = 0; emu_current && i < size; i += 16)
        check((u8 *)p + i, size - i < 16 ? (u32)(size - i) : 16, 1, access, pc);
}

void __tsan_read_range(void *p, long size);
void __tsan_write_range(void *p, long size);
void *__tsan_memcpy(void *to, const void *from, uintptr_t size);
void *__tsan_memmove(void *to, const void *from, uintptr_t size);
void *__tsan_memset(void *to, int byte, uintptr_t size);

void __tsan_read_range(void *p, long size)
{
    check_range(p, (u64)size, READ, PC);
}

void __tsan_write_range(void *p, long size)
{
    check_range(p, (u64)size, WRITE, PC);
}

void *__tsan_memcpy(void *to, const void *from, uintptr_t size)
{
    check_range((void *)(uintptr_t)from, size, READ, PC);
    check_range(to, size, WRITE, PC);
    return memmove(to, from, size);
}

void *__tsan_memmove(void *to, const void *from, uintptr_t size)
{
    check_range((void *)(uintptr_t)from, size, READ, PC);
    check_range(to, size, WRITE, PC);
    return memmove(to, from, size);
}

void *__tsan_memset(void *to, int byte, uintptr_t size)
{
    check_range(to, size, WRITE, PC);
    return memset(to, byte, size);
}

#ifndef ARCHC_SANITIZE
/* What the code of -fsanitize=alignment calls: a pointer is used as one to a vector, and is not
 * aligned to it. (Loads of vectors may have been split by now, so that their size does not tell.)
 */
struct type_mismatch {
    const void *file;
    u32 line, column;
};
void __ubsan_handle_type_mismatch_v1(const struct type_mismatch *at, uintptr_t pointer);
void __ubsan_handle_type_mismatch_v1(const struct type_mismatch *at, uintptr_t pointer)
{
    (void)at;
    if (emu_current)
        fault(PC, "misaligned vector at %s",
              pointer - (uintptr_t)arena < ARENA_BYTES ? place(pointer - (uintptr_t)arena)
                                                       : "a variable");
}
#endif

/* What clang before 15 calls for a structure that is copied or cleared, uninstrumented; linked with
 * --wrap=memcpy and --wrap=memset, which is why the emulator's own files call memmove and, by a
 * definition of tests/cuda/CMakeLists.txt, the real memset. */
void *__wrap_memcpy(void *to, const void *from, uintptr_t size);
void *__wrap_memcpy(void *to, const void *from, uintptr_t size)
{
    if ((uintptr_t)from - (uintptr_t)arena < ARENA_BYTES)
        check_range((void *)(uintptr_t)from, size, READ, PC);
    if ((uintptr_t)to - (uintptr_t)arena < ARENA_BYTES)
        check_range(to, size, WRITE, PC);
    return memmove(to, from, size);
}

void *__wrap_memset(void *to, int byte, uintptr_t size);
void *__wrap_memset(void *to, int byte, uintptr_t size)
{
    if ((uintptr_t)to - (uintptr_t)arena < ARENA_BYTES)
        check_range(to, size, WRITE, PC);
    return memset(to, byte, size);
}

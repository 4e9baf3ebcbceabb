/* copy.c - arithmetic instructions, asynchronous copies, and what blocks tell each other. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"
#include "device_sm90.h"

/* ---- arithmetic ---- */

bf16 bf16_from_f32(float x)
{
    u32 bits = bits_from_f32(x);
    if (x != x)
        return 0x7fff;
    return (bf16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

u32 bf16_pack(float low, float high)
{
    return bf16_from_f32(low) | (u32)bf16_from_f32(high) << 16;
}

/* Subnormals count as zero. */
static float flush(float x)
{
    return f32_abs(x) < 0x1p-126f ? f32_from_bits(bits_from_f32(x) & 0x80000000u) : x;
}

float fast_exp2(float x)
{
    return flush(exp2f(flush(x)));
}

float fast_log2(float x)
{
    return log2f(flush(x));
}

float fast_rsqrt(float x)
{
    return 1.0f / sqrtf(flush(x));
}

float fast_reciprocal(float x)
{
    return flush(1.0f / flush(x));
}

float f32_sqrt(float x)
{
    return sqrtf(x);
}

float f32_divide(float a, float b)
{
    return a / b;
}

u32 bytes_select(u32 a, u32 b, u32 selector)
{
    u32 r = 0;
    for (u32 i = 0; i < 4; i++)
        r |= (u32)(((u64)b << 32 | a) >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
    return r;
}

i32 dot4_i8(u32 a, u32 b, i32 c)
{
    for (u32 i = 0; i < 4; i++)
        c = (i32)((u32)c + (u32)((i8)(a >> 8 * i) * (i8)(b >> 8 * i)));
    return c;
}

u64 here_u64(u64 x)
{
    return x;
}

float here_f32(float x)
{
    return x;
}

/* ---- memory ---- */

u32x4 load_stream_u32x4(const void *p)
{
    check_read(p, 16, 16, PC);
    return *(const u32x4 *)p;
}

u32x2 load_stream_u32x2(const void *p)
{
    check_read(p, 8, 8, PC);
    return *(const u32x2 *)p;
}

u32x4 load_l2_u32x4(const void *p)
{
    check_read(p, 16, 16, PC);
    return *(const u32x4 *)p;
}

float load_l2_f32(const float *p)
{
    check_read(p, 4, 4, PC);
    return *p;
}

void store_stream_u32x4(void *p, u32x4 v)
{
    check_write(p, 16, 16, PC);
    *(u32x4 *)p = v;
}

void store_u32x4(void *p, u32x4 v)
{
    check_write(p, 16, 16, PC);
    *(u32x4 *)p = v;
}

void prefetch_l2(const void *p)
{
    (void)p;
}

/* ---- asynchronous copies ---- */

static void copy_begin(void *to, const void *from, u32 filled, u32 bytes, void *pc)
{
    struct emu_thread *t = emu_current;
    if (!in_shared(to, filled))
        fault(pc, "copy_async: the destination is outside of shared memory");
    if (((uintptr_t)to | (uintptr_t)from) & (filled - 1))
        fault(pc, "copy_async: an address that is not aligned to %u bytes", filled);
    if (bytes > filled)
        fault(pc, "copy_async_16_part: %u bytes of 16", bytes);
    for (u32 i = 0; i < bytes;) {
        u32 n = bytes - i >= 4 ? 4 : 1;
        check_read((const u8 *)from + i, n, 1, pc);
        i += n;
    }
    pending_begin(to, filled, pc);
    if (t->n_copies == t->room) {
        t->room = t->room ? 2 * t->room : 16;
        t->copies = realloc(t->copies, t->room * sizeof(*t->copies));
        if (!t->copies)
            fault(pc, "the emulator is out of memory");
    }
    t->copies[t->n_copies++] = (struct async_copy){to, from, bytes, filled, t->group, pc};
}

void copy_async_16(void *shared, const void *global)
{
    copy_begin(shared, global, 16, 16, PC);
}

void copy_async_8(void *shared, const void *global)
{
    copy_begin(shared, global, 8, 8, PC);
}

void copy_async_4(void *shared, const void *global)
{
    copy_begin(shared, global, 4, 4, PC);
}

void copy_async_16_part(void *shared, const void *global, u32 bytes)
{
    copy_begin(shared, global, 16, bytes, PC);
}

void copy_async_commit(void)
{
    emu_current->group++;
}

void copy_async_wait(u32 groups)
{
    struct emu_thread *t = emu_current;
    u32 kept = 0;
    for (u32 i = 0; i < t->n_copies; i++) {
        struct async_copy *c = t->copies + i;
        if (t->group - c->group <= groups) {
            t->copies[kept++] = *c;
            continue;
        }
        memmove(c->to, c->from, c->bytes);
        memset(c->to + c->bytes, 0, c->filled - c->bytes);
        pending_end(c->to, c->filled, t->id, t->clock);
    }
    t->n_copies = kept;
}

void copies_check_exit(struct emu_thread *t)
{
    if (t->n_copies)
        fault(t->copies[0].pc, "the thread ended with %u asynchronous copies not waited for",
              t->n_copies);
}

/* ---- flags and counters ----
 *
 * A flag remembers what its writers published; a load with acquire learns it. A relaxed store
 * publishes what the thread knew at its last fence, a relaxed load is learned at the next one. */

struct flag {
    const void *at;
    world told;
};

enum { MAX_FLAGS = 1 << 14 };
static struct flag flags[MAX_FLAGS];
static int n_flags;
static u32 flags_base;

static struct flag *flag_of(const void *p, void *pc)
{
    if (flags_base != machine.base) { /* a new launch */
        memset(flags, 0, n_flags ? sizeof(flags) : 0);
        n_flags = 0;
        flags_base = machine.base;
    }
    u32 i = (u32)((uintptr_t)p >> 2) * 2654435761u >> 18;
    while (flags[i].at && flags[i].at != p)
        i = (i + 1) % MAX_FLAGS;
    if (!flags[i].at) {
        if (++n_flags == MAX_FLAGS)
            fault(pc, "more than %d flags", MAX_FLAGS - 1);
        flags[i].at = p;
    }
    return flags + i;
}

static void not_shared(const void *p, void *pc)
{
    if ((u64)((const u8 *)p - emu_current->block->shared) < machine.launch->shared_bytes)
        fault(pc, "an atomic operation on shared memory: it works in global memory only");
}

enum order { RELAXED = 0, ACQUIRE = 1, RELEASE = 2 };

/* Before the operation proper. A value read by a relaxed read-modify-write carries on what the flag
 * was told (a release sequence). */
static void flag_access(const void *p, u32 size, bool write, enum order order, void *pc)
{
    struct emu_thread *t = emu_current;
    not_shared(p, pc);
    if (order & ACQUIRE)
        world_learn(t, flag_of(p, pc)->told);
    check_atomic(p, size, write, pc);
    struct flag *f = flag_of(p, pc);
    if (!(order & ACQUIRE))
        t->loaded = world_merge(t->loaded, f->told);
    if (write) {
        if (order & RELEASE)
            f->told = world_publish(t, f->told);
        else
            f->told = world_merge(f->told, t->fenced);
        machine.progress++;
    }
}

void thread_fence(void)
{
    struct emu_thread *t = emu_current;
    world_learn(t, t->loaded);
    t->fenced = world_publish(t, NULL);
}

#define ATOMIC(name, type, order, result)                                                          \
    type name(type *p, type v)                                                                     \
    {                                                                                              \
        flag_access(p, sizeof(type), true, order, PC);                                             \
        type old = *p;                                                                             \
        *p = result;                                                                               \
        return old;                                                                                \
    }
ATOMIC(atomic_add_u32, u32, RELAXED, old + v)
ATOMIC(atomic_max_u32, u32, RELAXED, old > v ? old : v)
ATOMIC(atomic_exchange_u32, u32, RELAXED, v)
ATOMIC(atomic_max_u64, u64, RELAXED, old > v ? old : v)
ATOMIC(atomic_add_acq_rel_u32, u32, ACQUIRE | RELEASE, old + v)

u32 atomic_cas_u32(u32 *p, u32 expected, u32 desired)
{
    flag_access(p, 4, true, RELAXED, PC);
    u32 old = *p;
    if (old == expected)
        *p = desired;
    else
        poll_turn("atomic_cas_u32", PC);
    return old;
}

void atomic_add_f32(float *p, float v)
{
    flag_access(p, 4, true, RELAXED, PC);
    *p += v;
}

/* A read and a write to others: additions that nothing orders are a race. */
void add_f32x4(float *p, f32x4 v)
{
    not_shared(p, PC);
    check_read(p, 16, 16, PC);
    check_write(p, 16, 16, PC);
    p[0] += v.x;
    p[1] += v.y;
    p[2] += v.z;
    p[3] += v.w;
}

u32 load_acquire_u32(const u32 *p)
{
    poll_turn("load_acquire_u32", PC);
    flag_access(p, 4, false, ACQUIRE, PC);
    return *p;
}

void store_release_u32(u32 *p, u32 v)
{
    struct emu_thread *t = emu_current;
    not_shared(p, PC);
    check_atomic(p, 4, true, PC);
    flag_of(p, PC)->told = world_publish(t, NULL);
    machine.progress++;
    *p = v;
}

void spin_pause(void)
{
    poll_turn("spin_pause", PC);
}

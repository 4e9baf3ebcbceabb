/* internal.h - what the files of the emulator share.
 *
 *   fiber.c    stacks and switches            schedule.c  launches, turns, waits, barriers
 *   shadow.c   device memory, its checks      order.c     what happened before what
 *   warp.c     warp collectives, matrices     copy.c      cp.async, atomics, flags
 *   hopper.c   mbarriers, bulk copies         wgmma.c     products of warp groups
 *   report.c   faults in words */
#ifndef ARCH_EMULATOR_INTERNAL_H
#define ARCH_EMULATOR_INTERNAL_H

#include "emulator.h"
#include "device.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN
#endif
/* Address sanitizer looks for the ends of the stack before calls that do not return, and does not
 * know those of fibers. */
#ifdef WITH_ASAN
#define NORETURN
#else
#define NORETURN _Noreturn
#endif

#define PC (__builtin_return_address(0))
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

enum { MAX_THREADS = 1024, MAX_WARPS = 32, ENGINE = MAX_THREADS, CLOCKS = MAX_THREADS + 1 };

/* ---- fiber.c ---- */

#if !defined(__x86_64__) || defined(EMU_UCONTEXT)
#include <ucontext.h>
struct fiber {
    ucontext_t context;
};
#else
struct fiber {
    void *stack_pointer;
};
#endif

/* Makes `f` a fresh call of `entry` on the stack of number `stack`. */
void fiber_start(struct fiber *f, int stack, void (*entry)(void));
void fiber_switch(struct fiber *from, struct fiber *to);
/* Is p in some fiber's stack? */
bool fiber_owns(const void *p);

/* ---- the machine ---- */

/* Clocks of the threads of a block as somebody knows them, [threads], then the block's
 * asynchronous engine. Immutable once published. */
typedef u32 *vector;

/* What a thread knows of other blocks: [blocks of the grid], NULL: nothing. Immutable. */
typedef vector *world;

struct async_copy {
    u8 *to;
    const u8 *from;
    u32 bytes, filled; /* of `filled` bytes written the first `bytes` come from `from` */
    u32 group;
    void *pc;
};

struct emu_thread {
    struct fiber fiber;
    struct emu_block *block;
    struct emu_warp *warp;
    u32 index, lane, id; /* id: in the grid, block << 11 | index */
    struct emu_index at;
    u32 clock;           /* of its next access */
    vector seen;         /* of its own block beyond the floors, or NULL */
    world far;           /* of other blocks */
    world fenced;        /* what its last fence published */
    world loaded;        /* by relaxed loads, known after the next fence */
    u32 proxy_clock;     /* accesses up to here were fenced for asynchronous operations */
    bool done, waited;   /* waited: dependent_wait() */
    bool cluster_pending; /* between cluster_arrive(), in cluster_phase, and cluster_wait() */
    u32 cluster_phase;
    const char *waiting; /* in what, NULL: it is not */
    u32 waiting_id;
    void *waiting_pc;
    struct async_copy *copies;
    u32 n_copies, room, group;
    struct products *products; /* wgmma under way (hopper.c), NULL: none ever */
    u32 spins;
    u32 barriers; /* so far, of block, cluster or some threads */
};

/* A barrier instruction that all lanes of a warp are to run as one. */
struct barrier_call {
    const char *what;
    u32 id;
    void *pc;
};

enum { MAX_OPERANDS = 4, BARRIER_CALLS = 32 };
struct emu_warp {
    u32 ready, live, arrived; /* bit l: lane l */
    const char *op;           /* that the arrived lanes are in */
    void *op_pc;
    u32 floor; /* accesses of its lanes with a clock up to this are known to all of them */
    struct emu_thread *threads;
    void *operands[32][MAX_OPERANDS];
    u32 barriers; /* of the lane that is farthest; the last ones */
    struct barrier_call calls[BARRIER_CALLS];
};

struct barrier {
    u32 arrived, expected;
    vector pending;      /* what the arrived publish */
    world far, last_far; /* what they know of other blocks; what the last of them does */
    u32 waiting[MAX_WARPS];
};

struct emu_block {
    struct emu_index at;
    u32 number, slot, live, n_warps;
    u32 ready_warps; /* bit w: warp w has ready lanes */
    u32 base;        /* clocks up to here are of what ran before in its shared memory */
    u32 floor;       /* as of a warp, of all threads */
    u32 engine_floor, engine_clock;
    u32 top;                   /* highest clock of any thread */
    u32 sync_count, counts[2]; /* of block_count */
    u8 *shared;
    struct emu_block *cluster[EMU_MAX_CLUSTER]; /* all of its blocks */
    u32 n_cluster, cluster_syncs;
    u32 cluster_arrived; /* threads of all blocks, counted in the first of them */
    u32 cluster_waiting[MAX_WARPS];
    bool cluster_begun;  /* in the first of them: somebody's arrival says no more than that */
    u32 peer_reads; /* of its shared memory by others, since the last cluster_sync() */
    struct barrier barriers[16];
    struct mbarrier *mbarriers;
    int n_mbarriers, room_mbarriers;
    struct transfer *transfers; /* of the asynchronous engine, not yet done */
    int n_transfers, room_transfers;
    struct warp_group {
        const char *op;
        u32 arrived;
    } groups[MAX_WARPS / 4];
    struct emu_warp warps[MAX_WARPS];
    struct emu_thread threads[MAX_THREADS];
};

extern struct emu_thread *emu_current; /* NULL outside of launches */

/* ---- schedule.c ---- */

struct machine {
    const struct emu_launch *launch;
    u32 blocks;  /* of the grid */
    u32 threads; /* of a block */
    u32 base;    /* clocks up to here are of earlier launches */
    u32 chain;   /* of launches before the last that was not dependent */
    u32 top;     /* highest clock used */
    bool any_waited;
    struct emu_block *resident[EMU_MAX_RESIDENT];
    int n_resident, live;
    u32 random;
    u64 switches, progress; /* progress: changes when anything but polling happens */
};
extern struct machine machine;

u32 random_next(void);
/* Ends this thread's turn until it is made ready again. */
void wait_turn(const char *what, u32 id, void *pc);
void make_ready(struct emu_thread *t);
/* Lets others run in a loop that polls. */
void poll_turn(const char *what, void *pc);
/* Ends the launch: the fault is in words already. */
NORETURN void abandon_launch(void);
/* Switches to whatever runs next; the current thread runs on only when its turn comes. */
void next_turn(void);

/* ---- report.c ---- */

NORETURN void fault(void *pc, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A failure of a call from outside of a launch. */
void fault_outside(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Puts into words who waits for what; the launch is then to be abandoned. */
void report_deadlock(void);
/* "norm.cu:41"; in one of a few static buffers. */
const char *source_line(void *pc);
u32 pc_pack(void *pc);
void *pc_unpack(u32 packed);
const char *thread_name(u32 id); /* "thread 3 of block 7" */

/* ---- order.c ---- */

/* Does the current thread know of the access that thread `id` made at `clock`? */
bool ordered(const struct emu_thread *t, u32 id, u32 clock);
/* Everything t knows of its own block, itself included; merged into `into`. Then its clock ticks.
 */
void publish(struct emu_thread *t, vector into);
void learn(struct emu_thread *t, const u32 *from);
vector vector_new(void);
void meet_block(struct emu_block *b);
void meet_cluster(struct emu_block *b);
void meet_warp(struct emu_warp *w);
/* A time that threads first .. first + n - 1 all know of, as one of `first`: of what they did as
 * one. */
u32 meet_as_one(struct emu_thread *first, u32 n);
/* Releases and acquires at device scope. */
world world_publish(struct emu_thread *t, world into);
world world_merge(world a, world b);
void world_learn(struct emu_thread *t, world from);
/* The same of other blocks only. */
void learn_far(struct emu_thread *t, world from);
void order_reset(void); /* before each launch */

/* ---- shadow.c ---- */

/* Four bytes of device or shared memory. Thread ids and clocks of the last writer and of the last
 * two readers that differ; masks have a bit a byte. */
struct cell {
    u32 writer, write_clock, write_pc;
    u32 reader[2], read_clock[2];
    u8 valid : 4, init : 4;
    u8 write_mask : 4, pending : 1, atomic : 1, engine : 1, barrier : 1;
    u8 read_mask; /* low half: reader 0 */
    u8 pending_reads;
};

void check_read(const void *p, u32 size, u32 align, void *pc);
void check_write(const void *p, u32 size, u32 align, void *pc);
/* A read of what is shared memory of another block of the cluster. */
void check_peer_read(const struct emu_block *peer, const void *p, u32 size, void *pc);
/* As an atomic operation of 4 or 8 bytes: no race with others of its kind. */
void check_atomic(const void *p, u32 size, bool write, void *pc);
/* An asynchronous write begins: as a write now, and nobody may touch it until it is finished. */
void pending_begin(const void *p, u32 size, void *pc);
/* The same of what is shared memory of another block of the cluster. */
void pending_peer(const struct emu_block *peer, const void *p, u32 size, void *pc);
/* It has arrived, as a write of thread `id` at `clock`. */
void pending_end(const void *p, u32 size, u32 id, u32 clock);
/* An asynchronous read begins and ends: nobody may write in between. */
void pending_read_begin(const void *p, u32 size, void *pc);
void pending_read_end(const void *p, u32 size, u32 id, u32 clock);
/* A "read" or "write" by the asynchronous proxy: generic writes must have been fenced for it. */
void check_proxy(const void *p, u32 size, const char *access, void *pc);
void mark_barrier(const void *p, bool on);
bool in_shared(const void *p, u32 size);
u8 *shared_slot(u32 slot);
void shadow_reset_shared(void); /* after a fault */

/* ---- warp.c ---- */

/* The lanes of a warp meet in `op`; the last to come runs it for all, on warp->operands. */
void warp_meet(const char *op, void (*run)(struct emu_warp *), void *a, void *b, void *c, void *pc);
void warp_check_exit(struct emu_thread *t);

/* ---- copy.c, hopper.c ---- */

void copies_check_exit(struct emu_thread *t);
void hopper_start_block(struct emu_block *b);
/* Its mbarriers, as far as they are fenced, may be used by the cluster's other blocks. */
void hopper_block_begun(struct emu_block *b);
void hopper_check_exit(struct emu_block *b);
void hopper_thread_exit(struct emu_thread *t);
void hopper_start_thread(struct emu_thread *t);
/* A thread's own variable: is it an accumulator of a product under way? */
void hopper_check_registers(const void *p, u32 size, void *pc);
/* Does one of the asynchronous transfers of some block; false: there are none. */
bool transfer_one(void);

#endif

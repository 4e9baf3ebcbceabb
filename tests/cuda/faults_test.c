/* faults_test.c - that the emulator stops at each kind of fault, and says where; and that the same
 * kernels without the fault run to their end. `fault` selects: 0 is the right kernel. */
#include <string.h>

#include "kernel_test.h"
#include "device_sm90.h"

static int fault_wanted;

enum { THREADS = 64 };


/* ---- shared memory and barriers ---- */

/* y[i] = x[reversed i] through shared memory. */
KERNEL_ENTRY(THREADS, 1) reverse(float *y, const float *x)
{
    SHARED_ARENA(arena);
    float *s = (float *)(void *)arena;
    const u32 t = threadIdx.x;
    s[t] = x[blockIdx.x * THREADS + t];
    if (fault_wanted != 1)
        block_sync();
    y[blockIdx.x * THREADS + t] = s[THREADS - 1 - t]; /* MARK missing barrier */
    if (fault_wanted == 2)
        s[t] = 0; /* MARK overwritten before a barrier */
    if (fault_wanted == 3)
        s[THREADS + t] = 0; /* MARK shared overflow */
    if (fault_wanted == 4 && t == 5)
        y[gridDim.x * THREADS] = 0; /* MARK global overflow */
    if (fault_wanted == 5)
        y[blockIdx.x * THREADS + t] = x[-1]; /* MARK before the start */
    if (fault_wanted == 6)
        *(float *)(void *)y = 0; /* MARK all blocks write one place */
}

/* Warp 0 gives to warp 1 by a named barrier; or not. */
KERNEL_ENTRY(THREADS, 1) hand_over(float *y, const float *x)
{
    SHARED_ARENA(arena);
    float *s = (float *)(void *)arena;
    const u32 t = threadIdx.x;
    if (t < WARP) {
        s[t] = x[t];
        barrier_arrive(1, fault_wanted == 3 ? WARP : THREADS);
        if (fault_wanted == 2)
            s[t] = 0;
    } else {
        if (fault_wanted != 1)
            barrier_sync(1, THREADS);
        y[t - WARP] = s[t - WARP];    /* MARK missing named barrier */
    }
}

/* Lanes of one warp, with and without warp_sync(). */
KERNEL_ENTRY(THREADS, 1) rotate(float *y, const float *x)
{
    SHARED_ARENA(arena);
    float *s = (float *)(void *)arena;
    const u32 t = threadIdx.x;
    float v = x[t];
    s[t] = v;
    if (fault_wanted != 1)
        warp_sync();
    v += shuffle_xor_f32(v, 1, WARP); /* orders nothing */
    y[t] = s[t ^ 1] + 0 * v;          /* MARK missing warp_sync */
}

/* ---- loads ---- */

KERNEL_ENTRY(THREADS, 1) loads(float *y, const float *x, float *scratch)
{
    SHARED_ARENA(arena);
    const u32 t = threadIdx.x;
    float sum = x[t];
    if (fault_wanted == 1)
        sum += ((const f32x4 *)(const void *)(x + 1))[t].y; /* MARK misaligned */
    if (fault_wanted == 2)
        sum += scratch[t]; /* MARK uninitialised global */
    if (fault_wanted == 3)
        sum += ((const float *)(const void *)arena)[t]; /* MARK uninitialised shared */
    if (fault_wanted == 4)
        sum += (float)load_stream_u32x4(x + 2).x; /* MARK misaligned stream */
    if (fault_wanted == 5)
        sum += *(const float *)(const void *)(0x1000 + (u64)t * 4); /* MARK wild */
    y[t] = sum;
}

/* ---- asynchronous copies ---- */

KERNEL_ENTRY(THREADS, 1) copies(float *y, const float *x)
{
    SHARED_ARENA(arena);
    float *s = (float *)(void *)arena;
    const u32 t = threadIdx.x;
    copy_async_16(s + t * 4, x + t * 4);
    copy_async_commit();
    copy_async_16_part(s + THREADS * 4 + t * 4, x + t * 4, 8); /* MARK never waited for */
    copy_async_commit();
    if (fault_wanted == 1)
        copy_async_wait(2);
    else
        copy_async_wait(1);
    if (fault_wanted != 2)
        block_sync();
    y[t] = s[(t * 4 + 4) % (THREADS * 4)]; /* MARK not arrived */
    if (fault_wanted == 3)
        return;
    copy_async_wait(0);
    y[t] += s[THREADS * 4 + t * 4 + 3];
    if (fault_wanted == 4)
        copy_async_16(s + t * 4, x + t * 4); /* MARK overwrites what is read */
    copy_async_commit();
    copy_async_wait(0);
}

/* ---- collectives ---- */

KERNEL_ENTRY(THREADS, 1) collectives(float *y, const float *x)
{
    const u32 t = threadIdx.x;
    float v = x[t];
    if (fault_wanted == 1 && t % 2)
        v += shuffle_xor_f32(v, 1, WARP); /* MARK divergent shuffle */
    else if (fault_wanted == 2 && t % 2)
        v = warp_any(1) ? v : 0; /* MARK two collectives */
    else if (fault_wanted == 2)
        v += shuffle_xor_f32(v, 1, WARP); /* MARK the other collective */
    else if (fault_wanted == 3 && t < 7)
        return;
    if (fault_wanted == 4 && t == 40)
        return;
    if (fault_wanted == 3)
        v += shuffle_f32(v, 0, WARP); /* MARK lanes have ended */
    if (fault_wanted == 5 && t < WARP)
        barrier_sync(2, THREADS); /* MARK deadlock */
    if (fault_wanted == 6 && t >= WARP)
        v += shuffle_f32(v, 0, 12);
    if (fault_wanted == 7 && t % 2) { /* as many threads as there are, but not whole warps */
        block_sync();
        y[t] = 1;
    } else if (fault_wanted == 7) {
        y[t] = 2;
        block_sync();
    }
    if (fault_wanted == 8 && t % WARP < 16)
        barrier_arrive(1, THREADS / 2);
    if (fault_wanted == 8)
        block_sync();
    y[t] = v;
}

/* ---- matrices: D = A A^T of a 16 x 16 tile, swizzled ---- */

DEVICE u32 swizzled(u32 row, u32 chunk)
{
    return row * 32 + ((chunk ^ (row >> 2 & 1)) << 4);
}

KERNEL_ENTRY(WARP, 1) square(float *y, const bf16 *x)
{
    SHARED_ARENA(arena);
    const u32 t = threadIdx.x, row = t / 2;
    u32 a[4], b[4];
    float low[4] = {0}, high[4] = {0};
    copy_async_16(arena + swizzled(row, t % 2), x + t * 8);
    copy_async_commit();
    copy_async_wait(0);
    block_sync();
    const u32 r = fault_wanted == 1 ? t % 8 : t % 16; /* a wrong row: wrong results */
    ldmatrix_x4(a, arena + swizzled(r, t / 16));
    const u8 *column = arena + swizzled(t % 8 + t / 16 * 8, t / 8 % 2);
    ldmatrix_x4(b, fault_wanted == 2 ? column + 8 : column); /* MARK misaligned ldmatrix */
    mma_m16n8k16_bf16(low, a, b);
    mma_m16n8k16_bf16(high, a, b + 2);
    for (u32 i = 0; i < 4; i++) {
        y[(t / 4 + i / 2 * 8) * 16 + t % 4 * 2 + i % 2] = low[i];
        y[(t / 4 + i / 2 * 8) * 16 + t % 4 * 2 + i % 2 + 8] = high[i];
    }
}

/* ---- between blocks: the last block adds up what each left ---- */

KERNEL_ENTRY(THREADS, 1) last_block(float *y, float *scratch, const float *x, u32 *counter)
{
    SHARED_ARENA(arena);
    u32 *last = (u32 *)(void *)arena;
    const u32 t = threadIdx.x, b = blockIdx.x;
    scratch[b * THREADS + t] = x[b * THREADS + t];
    if (fault_wanted != 1)
        block_sync();
    if (t == 0) {
        if (fault_wanted == 3)
            thread_fence();
        *last = fault_wanted == 2 || fault_wanted == 3 ? atomic_add_u32(counter, 1)
                                                       : atomic_add_acq_rel_u32(counter, 1);
        if (fault_wanted == 3)
            thread_fence();
    }
    block_sync();
    if (*last != gridDim.x - 1)
        return;
    float sum = 0;
    for (u32 i = 0; i < gridDim.x; i++)
        sum += scratch[i * THREADS + t]; /* MARK not released */
    y[t] = sum;
    if (t == 0)
        store_release_u32(counter, 0);
}

/* All blocks wait for each other. */
KERNEL_ENTRY(THREADS, 1) grid_wait(float *y, float *scratch, const float *x, u32 *counter)
{
    const u32 t = threadIdx.x, b = blockIdx.x;
    scratch[b * THREADS + t] = x[b * THREADS + t];
    block_sync();
    if (t == 0) {
        atomic_add_acq_rel_u32(counter, 1);
        while (load_acquire_u32(counter) != gridDim.x)
            spin_pause();
    }
    if (fault_wanted != 1)
        block_sync();
    const float *next = scratch + (b + 1) % gridDim.x * THREADS;
    y[b * THREADS + t] = next[t]; /* MARK no barrier behind the flag */
}

/* Blocks add to y one after the other, in the order in which they began. The flag is read by one
 * thread, and named barriers tell the others. */
KERNEL_ENTRY(THREADS, 1) in_turn(float *y, const float *x, u32 *counter)
{
    SHARED_ARENA(arena);
    u32 *drawn = (u32 *)(void *)arena;
    const u32 t = threadIdx.x;
    if (t == 0)
        *drawn = atomic_add_u32(counter + 1, 1);
    block_sync();
    const u32 turn = *drawn;
    if (t == 0 && fault_wanted != 1)
        while (load_acquire_u32(counter) != turn)
            spin_pause();
    if (fault_wanted != 2)
        barrier_sync(1, THREADS);
    const f32x4 v = ((const f32x4 *)(const void *)x)[t];
    if (fault_wanted == 4 && t == 0)
        store_release_u32(counter, turn + 1);
    if (turn == 0 && fault_wanted != 3)
        ((f32x4 *)(void *)y)[t] = v; /* MARK the first */
    else
        add_f32x4(y + 4 * t, v); /* MARK adds out of turn */
    barrier_sync(1, THREADS);
    if (t == 0 && fault_wanted != 4)
        store_release_u32(counter, turn + 1);
}

/* ---- programmatic dependent launch ---- */

KERNEL_ENTRY(THREADS, 1) dependent(float *y, float *before, float *x, const float *weights)
{
    const u32 t = threadIdx.x;
    float v = weights[t];
    if (fault_wanted == 1)
        v += before[t]; /* MARK reads before the wait */
    if (fault_wanted == 2)
        before[t] = v; /* MARK writes what was written before the wait */
    if (fault_wanted == 4)
        x[t] = v; /* MARK writes what was read before the wait */
    if (fault_wanted != 3)
        dependent_wait();
    dependents_launch();
    y[t] = v + (fault_wanted == 3 ? 0 : before[t]);
}

/* ---- clusters ---- */

/* Each block of a pair gives out what the other has. */
KERNEL_ENTRY(THREADS, 1) pairs(float *y, const float *x)
{
    SHARED_ARENA(arena);
    float *s = (float *)(void *)arena;
    const u32 t = threadIdx.x, block = blockIdx.x * 2 + blockIdx.y;
    s[t] = x[block * THREADS + t];
    if (fault_wanted == 6) {
        cluster_arrive();
        cluster_arrive();
    }
    if (fault_wanted != 1)
        cluster_sync();
    if (fault_wanted == 7)
        cluster_arrive();
    const u32 rank = fault_wanted == 4 ? 2 : 1 - blockIdx.y;
    const float *from = fault_wanted == 5 ? s + t : s + t / 4 * 4;
    const f32x4 v = cluster_load_f32x4(from, rank); /* MARK of the other block */
    y[block * THREADS + t] = t % 4 == 0 ? v.x : t % 4 == 1 ? v.y : t % 4 == 2 ? v.z : v.w;
    if (fault_wanted == 3)
        s[t] = 0; /* MARK others may still read */
    if (fault_wanted != 2)
        cluster_arrive();
    if (fault_wanted != 2 && fault_wanted != 8)
        cluster_wait();
}

/* The same, handed over: each thread stores four of its own into the other block. */
KERNEL_ENTRY(THREADS, 1) gifts(float *y, const float *x)
{
    SHARED_ARENA(arena);
    f32x4 *s = (f32x4 *)(void *)arena;
    u64 *barrier = (u64 *)(void *)(arena + THREADS * 16);
    const u32 t = threadIdx.x, block = blockIdx.x * 2 + blockIdx.y;
    const u32 bytes = THREADS * 16 + (fault_wanted == 2 ? 16 : fault_wanted == 8 ? 1 << 20 : 0);
    if (t == 0) {
        mbarrier_init(barrier, 1);
        if (fault_wanted != 1)
            mbarrier_init_fence();
        mbarrier_arrive_expect(barrier, bytes); /* MARK counts */
    }
    if (fault_wanted != 3)
        cluster_sync();
    const float own = x[block * THREADS + t];
    const f32x4 v = {own, own, own, own};
    if (fault_wanted == 4)
        s[t] = v; /* MARK overwrites what may have come */
    const u32 to = fault_wanted == 9 ? 0 : 1 - blockIdx.y;
    cluster_store_f32x4(s + t, v, to, barrier); /* MARK a gift */
    if (fault_wanted == 5)
        return;
    if (fault_wanted == 7)
        mbarrier_wait(barrier, 0); /* MARK waits as if it were the block's own */
    else if (fault_wanted != 6)
        cluster_store_wait(barrier, 0);
    y[block * THREADS + t] = s[t].x; /* MARK takes the gift */
}

/* The same where each block has something of its own: it reads all of that, and only then asks the
 * other for what takes its place. */
KERNEL_ENTRY(THREADS, 1) swaps(float *y, const float *x)
{
    SHARED_ARENA(arena);
    f32x4 *s = (f32x4 *)(void *)arena;
    u64 *come = (u64 *)(void *)(arena + THREADS * 16), *room = come + 1;
    const u32 t = threadIdx.x, other = THREADS - 1 - t, block = blockIdx.x * 2 + blockIdx.y;
    if (t == 0) {
        mbarrier_init(come, 1);
        mbarrier_init(room, 1);
        if (fault_wanted != 1)
            mbarrier_init_fence();
        mbarrier_arrive_expect(come, THREADS * 16);
    }
    if (fault_wanted != 2) {
        cluster_arrive_begun();
        cluster_wait();
    }
    const float own = x[block * THREADS + t];
    const f32x4 four = {own, own, own, own};
    s[t] = four;
    block_sync();
    const f32x4 v = s[other];
    if (fault_wanted != 3)
        block_sync();
    if (t == 0)
        cluster_arrive_at(room, fault_wanted == 4 ? 2 : 1 - blockIdx.y); /* MARK asks */
    if (fault_wanted == 5)
        mbarrier_wait(room, 0); /* MARK waits as if it had asked itself */
    else if (fault_wanted != 6)
        cluster_store_wait(room, 0);
    cluster_store_f32x4(s + other, v, 1 - blockIdx.y, come);
    cluster_store_wait(come, 0);
    y[block * THREADS + t] = s[t].x;
}

/* ---- the harness ---- */

static float *y, *x, *scratch, *before, *between;
static u32 *counter;
static bf16 *tile;

HOST_CODE static void fresh(void)
{
    emu_free_all();
    x = test_floats("x", 1024, 1);
    y = emu_alloc("y", 4 * THREADS * sizeof(float));
    scratch = emu_alloc("scratch", 4 * THREADS * sizeof(float));
    before = emu_alloc("before", THREADS * sizeof(float));
    between = emu_alloc("between", THREADS * sizeof(float));
    counter = emu_alloc("counter", 2 * sizeof(u32));
    emu_fill(counter, 0, 2 * sizeof(u32));
    tile = test_bf16s("tile", 256, 1);
}

/* The line of this file that holds `mark` after MARK. */
HOST_CODE static int line_of(const char *mark)
{
    char text[512], wanted[128];
    FILE *f = fopen(THIS_FILE, "r");
    snprintf(wanted, sizeof(wanted), "/* MARK %s */", mark);
    for (int line = 1; f && fgets(text, sizeof(text), f); line++)
        if (strstr(text, wanted)) {
            fclose(f);
            return line;
        }
    if (f)
        fclose(f);
    printf("%s: no line is marked %s\n", THIS_FILE, mark);
    exit(1);
}

enum which {
    REVERSE, HAND_OVER, ROTATE, LOADS, COPIES, COLLECTIVES, SQUARE, LAST, GRID, TURN, DEPENDENT, PAIRS,
    SWAPS, GIFTS, LONELY
};

HOST_CODE static bool run(enum which which)
{
    const struct emu_launch launches[] = {
        {"reverse", (emu_kernel *)reverse, {4, 1, 1}, THREADS, THREADS * 4, false, NULL},
        {"hand_over", (emu_kernel *)hand_over, {1, 1, 1}, THREADS, THREADS * 4, false, NULL},
        {"rotate", (emu_kernel *)rotate, {1, 1, 1}, THREADS, THREADS * 4, false, NULL},
        {"loads", (emu_kernel *)loads, {1, 1, 1}, THREADS, THREADS * 4, false, NULL},
        {"copies", (emu_kernel *)copies, {1, 1, 1}, THREADS, THREADS * 32, false, NULL},
        {"collectives", (emu_kernel *)collectives, {1, 1, 1}, THREADS, 0, false, NULL},
        {"square", (emu_kernel *)square, {1, 1, 1}, WARP, 512, false, NULL},
        {"last_block", (emu_kernel *)last_block, {4, 1, 1}, THREADS, 4, false, NULL},
        {"grid_wait", (emu_kernel *)grid_wait, {4, 1, 1}, THREADS, 0, false, NULL},
        {"in_turn", (emu_kernel *)in_turn, {4, 1, 1}, THREADS, 4, false, NULL},
        {"dependent", (emu_kernel *)dependent, {1, 1, 1}, THREADS, 0, true, NULL},
        {"pairs", (emu_kernel *)pairs, {2, 2, 1, 2}, THREADS, THREADS * 4, false, NULL},
        {"swaps", (emu_kernel *)swaps, {2, 2, 1, 2}, THREADS, THREADS * 16 + 16, false, NULL},
        {"gifts", (emu_kernel *)gifts, {2, 2, 1, 2}, THREADS, THREADS * 16 + 8, false, NULL},
        {"gifts", (emu_kernel *)gifts, {2, 1, 1}, THREADS, THREADS * 16 + 8, false, NULL},
    };
    const struct emu_launch *l = launches + which;
    switch (which) {
    case LOADS:
        return EMU_RUN(l, y, x, scratch);
    case LAST:
    case GRID:
        return EMU_RUN(l, y, scratch, x, counter);
    case TURN:
        return EMU_RUN(l, y, x, counter);
    case SQUARE:
        return EMU_RUN(l, y, tile);
    case DEPENDENT: {
        /* A predecessor that writes `before`, and one between, which may start while that runs. */
        const int wanted = fault_wanted;
        fault_wanted = 0;
        emu_fill(scratch, 0, THREADS * sizeof(float));
        bool ok = EMU_RUN(launches + ROTATE, before, x) &&
                  EMU_RUN(l, between, scratch, scratch, scratch);
        fault_wanted = wanted;
        return ok && EMU_RUN(l, y, before, x, scratch);
    }
    default:
        return EMU_RUN(l, y, x);
    }
}

HOST_CODE static bool square_is_right(void)
{
    for (int i = 0; i < 256; i++) {
        double sum = 0;
        for (int k = 0; k < 16; k++)
            sum += (double)f32_from_bf16(tile[i / 16 * 16 + k]) *
                   (double)f32_from_bf16(tile[i % 16 * 16 + k]);
        if (!(fabs(sum - y[i]) < 1e-3))
            return false;
    }
    return true;
}

HOST_CODE static bool turns_are_right(void)
{
    for (int i = 0; i < 4 * THREADS; i++)
        if (y[i] != (x[i] + x[i]) + x[i] + x[i])
            return false;
    return true;
}

HOST_CODE static bool pairs_are_right(void)
{
    for (int i = 0; i < 4 * THREADS; i++)
        if (y[i] != x[i ^ THREADS])
            return false;
    return true;
}

struct planted {
    enum which which;
    int fault;
    const char *mark; /* of the line that the report must name; NULL: any */
    const char *says;
};
static const struct planted planted[] = {
    {REVERSE, 1, "missing barrier", ""}, /* a race, or not yet written */
    {REVERSE, 2, "overwritten before a barrier", "nothing orders"},
    {REVERSE, 3, "shared overflow", "outside of shared memory: byte "},
    {REVERSE, 4, "global overflow", "thread 5 (warp 0, lane 5)"},
    {REVERSE, 5, "before the start", "outside of allocations"},
    {REVERSE, 6, "all blocks write one place", "nothing orders after the write by thread"},
    {HAND_OVER, 1, "missing named barrier", ""}, /* a race, or not yet written */
    {HAND_OVER, 3, NULL, "barrier"},
    {ROTATE, 1, "missing warp_sync", "nothing orders after the write by thread"},
#ifndef ARCHC_SANITIZE /* which takes the compiler's check of alignment for itself */
    {LOADS, 1, "misaligned", "misaligned"},
#endif
    {LOADS, 2, "uninitialised global", "of scratch (1024 bytes), which nothing has written"},
    {LOADS, 3, "uninitialised shared", "shared memory (256 bytes), which nothing has written"},
    {LOADS, 4, "misaligned stream", "misaligned read of 16 bytes"},
    {LOADS, 5, "wild", "which is not device memory"},
    {COPIES, 1, "not arrived", "has not been waited for"},
    {COPIES, 2, "not arrived", ""}, /* not waited for by its thread, or not ordered */
    {COPIES, 3, "never waited for", "asynchronous copies not waited for"},
    {COPIES, 4, "overwrites what is read", "nothing orders"},
    {COLLECTIVES, 1, NULL, "diverged"},
    {COLLECTIVES, 2, NULL, "lanes of a warp diverged: this one is in"},
    {COLLECTIVES, 3, NULL, "shuffle"},
    {COLLECTIVES, 5, "deadlock", "deadlock: 32 threads from thread 0 wait in barrier_sync 2"},
    {COLLECTIVES, 6, NULL, "a power of two"},
    {COLLECTIVES, 7, NULL, "lanes of a warp diverged: this one is in block_sync 0, another in"},
    {COLLECTIVES, 8, NULL, "lanes of a warp diverged: this one is in"},
    {SQUARE, 2, "misaligned ldmatrix", "misaligned read of 16 bytes"},
    {LAST, 1, "not released", "nothing orders after the write by thread"},
    {LAST, 2, "not released", "nothing orders after the write by thread"},
    {GRID, 1, "no barrier behind the flag", ""}, /* a race, or not yet written */
    {TURN, 1, "adds out of turn", ""}, /* a race, or not yet written */
    {TURN, 2, NULL, ""},               /* the same, of the first block too */
    {TURN, 3, "adds out of turn", "which nothing has written"},
    {TURN, 4, "adds out of turn", ""},
    {DEPENDENT, 1, "reads before the wait", "before dependent_wait()"},
    {DEPENDENT, 2, "writes what was written before the wait", "may still write it"},
    {DEPENDENT, 4, "writes what was read before the wait", "may still read it"},
    {DEPENDENT, 3, NULL, "no thread called dependent_wait()"},
    {PAIRS, 1, "of the other block", "may not have begun"},
    {PAIRS, 2, NULL, ""}, /* it ends, or has ended */
    {PAIRS, 3, NULL, ""}, /* read after it, or write behind a read, that nothing orders */
    {PAIRS, 4, "of the other block", "from block 2 of a cluster of 2"},
    {PAIRS, 5, "of the other block", "not an aligned address"},
    {PAIRS, 6, NULL, "a second arrival"},
    {PAIRS, 7, "of the other block", "behind cluster_arrive(): block "},
    {PAIRS, 8, NULL, "ends between cluster_arrive() and cluster_wait()"},
    {SWAPS, 1, "asks", ""}, /* initialised, but not fenced */
    {SWAPS, 2, "asks", "may not have begun"},
    {SWAPS, 3, NULL, ""}, /* a store, or what it finds, that nothing orders */
    {SWAPS, 4, "asks", "to block 2 of a cluster of 2"},
    {SWAPS, 5, "waits as if it had asked itself", "want cluster_store_wait()"},
    {SWAPS, 6, NULL, ""}, /* as 3 */
    {GIFTS, 1, "a gift", "without mbarrier_init_fence()"},
    {GIFTS, 2, NULL, "deadlock"},
    {GIFTS, 3, "a gift", "may not have begun"},
    {GIFTS, 4, NULL, ""},             /* a race, or bytes under way */
    {GIFTS, 5, NULL, ""},             /* it has ended, or ends with copies under way */
    {GIFTS, 6, "takes the gift", ""}, /* not written, not arrived or not ordered */
    {GIFTS, 7, "waits as if it were the block's own", "want cluster_store_wait()"},
    {GIFTS, 8, "counts", "is to count 1049600 bytes more than 0, and can 1048575"},
    {LONELY, 9, "a gift", "to block 0 of a cluster of 1"},
};

HOST_CODE static int check_planted(const struct planted *p)
{
    char place[64];
    fault_wanted = p->fault;
    fresh();
    if (run(p->which)) {
        printf("planted fault not found: kernel %d, fault %d\n", p->which, p->fault);
        return 1;
    }
    snprintf(place, sizeof(place), "faults_test.c:%d", p->mark ? line_of(p->mark) : 0);
    if ((p->mark && !strstr(emu_fault(), place)) || !strstr(emu_fault(), p->says)) {
        printf("planted fault %d of kernel %d: wanted \"%s\" at %s, got: %s\n", p->fault, p->which,
               p->says, p->mark ? place : "any line", emu_fault());
        return 1;
    }
    return 0;
}

HOST_CODE static int check_right(enum which which)
{
    fault_wanted = 0;
    fresh();
    if (which == GRID)
        emu_resident(4);
    bool ok = run(which);
    emu_resident(2);
    if (!ok) {
        printf("a fault in the right kernel %d: %s\n", which, emu_fault());
        return 1;
    }
    if (which == SQUARE && !square_is_right()) {
        printf("square: wrong result\n");
        return 1;
    }
    if (which >= PAIRS && which <= GIFTS && !pairs_are_right()) {
        printf("%s: wrong result\n", which == PAIRS ? "pairs" : "gifts");
        return 1;
    }
    if (which == TURN && !turns_are_right()) {
        printf("in_turn: wrong result\n");
        return 1;
    }
    return 0;
}

/* Faults that depend on neither a planted line nor the report. */
HOST_CODE static int check_others(void)
{
    int bad = 0;
    fresh();
    fault_wanted = 1; /* rows of a tile mixed up: no fault, wrong numbers */
    if (!run(SQUARE) || square_is_right()) {
        printf("a wrong row of ldmatrix went unnoticed\n");
        bad = 1;
    }
    fresh();
    fault_wanted = 3; /* fences around relaxed atomics: right */
    if (!run(LAST)) {
        printf("last_block with fences: %s\n", emu_fault());
        bad = 1;
    }
    fresh();
    fault_wanted = 0; /* two of four blocks resident: they wait for ever */
    if (run(GRID) || !strstr(emu_fault(), "not all blocks of the grid are resident")) {
        printf("grid_wait with two blocks resident: %s\n", emu_fault());
        bad = 1;
    }
    return bad;
}

HOST_CODE int main(void)
{
    int bad = 0;
    emu_catch(true);
    for (u32 seed = 1; seed <= 5; seed++) {
        emu_seed(seed);
        for (size_t i = 0; i < sizeof(planted) / sizeof(planted[0]); i++)
            bad |= check_planted(planted + i);
        for (int which = REVERSE; which <= GIFTS; which++)
            bad |= check_right((enum which)which);
        bad |= check_others();
    }
    return bad;
}

/* decode_ring_test.c - decode_ring.h: each lane of each warp gets, by way of its slots, the
 * elements of keys, values and queries that decode_keys.h says, zeros where a head has none. */
#include "kernel_test.h"
#define HEADS 1
#define KV_HEADS 1
#define CONTEXT 64
#define CUDA_SMS 1
#define CUDA_ARCH 90
#include "launch.h"
#include "decode_keys.h"
#include "decode_ring.h"

enum {
    SLOTS = 3, /* one more than is filled: what lies behind is nobody's */
    PIECES = KEYS_Q * 2 + KEYS_V * 4,
    OUT = PIECES + KEYS_Q * 2 /* 16 bytes each of a lane */
};

static u32 run_rows;

/* out[warp][lane][OUT]: keys, values, queries as they come to be in registers. */
KERNEL_ENTRY(SKINNY_KEYS_THREADS, 1) through_slots(u32x4 *out, const bf16 *k, const bf16 *v)
{
    SHARED_ARENA(arena);
    u8 *slot = arena + threadIdx.x / WARP * (SLOTS * KEYS_SLOT);
    struct keys_tile tile;
    struct keys_state s;
    u32x4 *mine = out + threadIdx.x * OUT;
    keys_copy_k(slot, k, run_rows);
    copy_async_commit();
    keys_copy_v(slot + KEYS_SLOT, v, run_rows);
    copy_async_commit();
    copy_async_wait(1);
    keys_take_k(&tile, slot);
    keys_take_q(&s, slot);
    copy_async_wait(0);
    keys_take_v(&tile, slot + KEYS_SLOT);
    for (u32 j = 0; j < KEYS_Q * 2; j++)
        *mine++ = tile.k[j / 2][j % 2];
    for (u32 j = 0; j < KEYS_V * 4; j++)
        *mine++ = tile.v[j / 4][j % 4];
    for (u32 j = 0; j < KEYS_Q * 2; j++) {
        const u32 *q = s.q[j / 2] + j % 2;
        const u32x4 row = {q[0], q[2], q[4], q[6]};
        *mine++ = row;
    }
}

struct run {
    bf16 *k, *v;
    u32x4 *out;
    int bad;
};

/* Of piece j, whose elements begin at e of the warp's share, of a row. */
HOST_CODE static void compare(struct run *r, u32 thread, u32 j, const bf16 *from, u32 row, u32 e)
{
    const u32 half = KEYS_HALVES == 1 ? 0 : thread / WARP % KEYS_HALVES;
    const u32 head = half * KEYS_SHARE + e, last = run_rows - 1;
    const int has = e < KEYS_SHARE && head < HEAD_DIM;
    bf16 got[8];
    emu_read(got, r->out + (size_t)thread * OUT + j, 16);
    for (u32 i = 0; i < 8; i++) {
        const bf16 want = has ? from[(row < last ? row : last) * HEAD_DIM + head + i] : 0;
        if (got[i] != want && !r->bad++)
            printf("thread %u, piece %u, row %u, element %u: %x for %x\n", thread, j, row, head + i,
                   got[i], want);
    }
}

HOST_CODE static int check(u32 rows)
{
    struct run r = {test_bf16s("k", rows * HEAD_DIM, 1), test_bf16s("v", rows * HEAD_DIM, 1),
                    emu_alloc("out", sizeof(u32x4) * OUT * SKINNY_KEYS_THREADS), 0};
    const struct emu_launch launch = {"through_slots",
                                      (emu_kernel *)through_slots,
                                      {1, 1, 1, 0},
                                      SKINNY_KEYS_THREADS,
                                      SKINNY_KEYS_WARPS * SLOTS * KEYS_SLOT,
                                      false,
                                      NULL};
    run_rows = rows;
    EMU_RUN(&launch, r.out, r.k, r.v);
    for (u32 t = 0; t < SKINNY_KEYS_THREADS; t++) {
        const u32 g = t % WARP / 4, i = t % 4;
        for (u32 j = 0; j < KEYS_Q * 2; j++)
            compare(&r, t, j, r.k, g + j % 2 * 8, j / 2 * 32 + i * 8);
        for (u32 j = 0; j < KEYS_V * 4; j++)
            compare(&r, t, KEYS_Q * 2 + j, r.v, i * 2 + j % 4 / 2 * 8 + j % 2, j / 4 * 64 + g * 8);
        for (u32 j = 0; j < KEYS_Q * 2; j++)
            compare(&r, t, PIECES + j, r.k, g + j % 2 * 8, j / 2 * 32 + i * 8);
    }
    emu_free_all();
    return r.bad != 0;
}

HOST_CODE int main(void)
{
    static const u32 rows[] = {16, 100, 1, 7, 15};
    int bad = 0;
    for (u32 i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        emu_seed(i + 1);
        bad |= check(rows[i]);
    }
    return bad;
}

/* warp.c - operations that the 32 lanes of a warp do together. The last lane to arrive does them
 * for all. */
#include <string.h>

#include "internal.h"

void warp_meet(const char *op, void (*run)(struct emu_warp *), void *a, void *b, void *c, void *pc)
{
    struct emu_thread *t = emu_current;
    struct emu_warp *w = t->warp;
    void **operands = w->operands[t->lane];
    operands[0] = a;
    operands[1] = b;
    operands[2] = c;
    operands[3] = pc;
    if (w->arrived == 0) {
        w->op = op;
        w->op_pc = pc;
    } else if (w->op != op) {
        fault(pc, "lanes of a warp diverged: this one is in %s, lanes %08x in %s at %s", op,
              w->arrived, w->op, source_line(w->op_pc));
    }
    if (w->live != 0xffffffffu)
        fault(pc, "lanes of a warp diverged: %s, when lanes %08x have ended", op, ~w->live);
    w->arrived |= 1u << t->lane;
    if (w->arrived != 0xffffffffu) {
        wait_turn(op, 0, pc);
        return;
    }
    w->arrived = 0;
    w->ready = 0xffffffffu;
    t->block->ready_warps |= 1u << (t->index / WARP);
    for (u32 l = 0; l < WARP; l++)
        w->threads[l].waiting = NULL;
    run(w);
}

void warp_check_exit(struct emu_thread *t)
{
    if (t->warp->arrived)
        fault(t->warp->op_pc, "lanes of a warp diverged: this one has ended, lanes %08x are in %s",
              t->warp->arrived, t->warp->op);
}

u32 lane_id(void)
{
    return emu_current->lane;
}

void warp_sync(void)
{
    warp_meet("warp_sync", meet_warp, NULL, NULL, NULL, PC);
}

/* ---- shuffles and votes ---- */

struct shuffle {
    u32 value, at, width, result;
};

enum mode { INDEX, XOR, UP, DOWN };

static void shuffle_lanes(struct emu_warp *w, enum mode mode)
{
    u32 values[WARP];
    for (u32 l = 0; l < WARP; l++)
        values[l] = ((const struct shuffle *)w->operands[l][0])->value;
    for (u32 l = 0; l < WARP; l++) {
        struct shuffle *s = w->operands[l][0];
        if (s->width == 0 || s->width > WARP || (s->width & (s->width - 1)))
            fault(w->operands[l][3], "shuffle of width %u: a power of two up to 32", s->width);
        u32 first = l & ~(s->width - 1), from = l;
        switch (mode) {
        case INDEX:
            from = first + s->at % s->width;
            break;
        case XOR:
            /* The machine lets the mask reach groups below, never above. */
            from = (l ^ s->at) < first + s->width ? l ^ s->at : l;
            break;
        case UP:
            from = l - first >= s->at ? l - s->at : l;
            break;
        case DOWN:
            from = l - first + s->at < s->width ? l + s->at : l;
            break;
        }
        if (mode == XOR && s->at >= s->width)
            fault(w->operands[l][3], "shuffle_xor: mask %u in groups of %u lanes", s->at, s->width);
        s->result = values[from];
    }
}

static void run_index(struct emu_warp *w)
{
    shuffle_lanes(w, INDEX);
}

static void run_xor(struct emu_warp *w)
{
    shuffle_lanes(w, XOR);
}

static void run_up(struct emu_warp *w)
{
    shuffle_lanes(w, UP);
}

static void run_down(struct emu_warp *w)
{
    shuffle_lanes(w, DOWN);
}

static u32 do_shuffle(const char *op, void (*run)(struct emu_warp *), u32 v, u32 at, u32 width,
                      void *pc)
{
    struct shuffle s = {v, at, width, 0};
    warp_meet(op, run, &s, NULL, NULL, pc);
    return s.result;
}

#define SHUFFLE(name, run)                                                                         \
    u32 name##_u32(u32 v, u32 at, u32 width)                                                       \
    {                                                                                              \
        return do_shuffle(#name, run, v, at, width, PC);                                           \
    }                                                                                              \
    float name##_f32(float v, u32 at, u32 width)                                                   \
    {                                                                                              \
        return f32_from_bits(do_shuffle(#name, run, bits_from_f32(v), at, width, PC));             \
    }
SHUFFLE(shuffle, run_index)
SHUFFLE(shuffle_xor, run_xor)
SHUFFLE(shuffle_up, run_up)
SHUFFLE(shuffle_down, run_down)

static void run_ballot(struct emu_warp *w)
{
    u32 ballot = 0;
    for (u32 l = 0; l < WARP; l++)
        ballot |= (u32)(*(u32 *)w->operands[l][0] != 0) << l;
    for (u32 l = 0; l < WARP; l++)
        *(u32 *)w->operands[l][0] = ballot;
}

static u32 ballot(const char *op, u32 predicate, void *pc)
{
    warp_meet(op, run_ballot, &predicate, NULL, NULL, pc);
    return predicate;
}

u32 warp_any(u32 predicate)
{
    return ballot("warp_any", predicate, PC) != 0;
}

u32 warp_all(u32 predicate)
{
    return ballot("warp_all", predicate, PC) == 0xffffffffu;
}

u32 warp_ballot(u32 predicate)
{
    return ballot("warp_ballot", predicate, PC);
}

/* ---- ldmatrix ---- */

static void load_matrices(struct emu_warp *w, u32 blocks, bool transpose)
{
    u16 row[4][8][8];
    for (u32 l = 0; l < WARP; l++) {
        const u8 *p = w->operands[l][1];
        if (l < 8 * blocks)
            memmove(row[l / 8][l % 8], p, 16);
    }
    for (u32 l = 0; l < WARP; l++)
        for (u32 i = 0; i < blocks; i++) {
            u32 a = l / 4, b = 2 * (l % 4);
            u32 low = transpose ? row[i][b][a] : row[i][a][b];
            u32 high = transpose ? row[i][b + 1][a] : row[i][a][b + 1];
            ((u32 *)w->operands[l][0])[i] = low | high << 16;
        }
}

#define LDMATRIX(name, blocks, transpose)                                                          \
    static void run_##name(struct emu_warp *w)                                                     \
    {                                                                                              \
        load_matrices(w, blocks, transpose);                                                       \
    }                                                                                              \
    void name(u32 r[blocks], const void *row)                                                      \
    {                                                                                              \
        u32 used = emu_current->lane < 8 * blocks ? 16 : 1;                                        \
        if (!in_shared(row, used))                                                                 \
            fault(PC, #name ": an address outside of shared memory");                              \
        if (used == 16)                                                                            \
            check_read(row, 16, 16, PC);                                                           \
        warp_meet(#name, run_##name, r, (void *)(uintptr_t)row, NULL, PC);                         \
    }
LDMATRIX(ldmatrix_x1, 1, false)
LDMATRIX(ldmatrix_x2, 2, false)
LDMATRIX(ldmatrix_x4, 4, false)
LDMATRIX(ldmatrix_x1_trans, 1, true)
LDMATRIX(ldmatrix_x2_trans, 2, true)
LDMATRIX(ldmatrix_x4_trans, 4, true)

/* ---- products of matrices ---- */

/* D[16][8] += A[16][k] B[k][8], fp32 sums in the order of k. */
static void multiply(float d[16][8], const float *a, const float *b, u32 k)
{
    for (u32 i = 0; i < 16; i++)
        for (u32 q = 0; q < k; q++) {
            float x = a[i * k + q];
            for (u32 j = 0; j < 8; j++)
                d[i][j] += x * b[q * 8 + j];
        }
}

static void accumulators(struct emu_warp *w, float d[16][8], bool back)
{
    for (u32 l = 0; l < WARP; l++) {
        float *mine = w->operands[l][0];
        for (u32 i = 0; i < 4; i++) {
            float *element = &d[l / 4 + 8 * (i / 2)][2 * (l % 4) + i % 2];
            if (back)
                mine[i] = *element;
            else
                *element = mine[i];
        }
    }
}

static void run_bf16(struct emu_warp *w, u32 k)
{
    float a[16 * 16], b[16 * 8], d[16][8];
    for (u32 l = 0; l < WARP; l++) {
        const u32 *from_a = w->operands[l][1], *from_b = w->operands[l][2];
        u32 g = l / 4, q = 2 * (l % 4);
        for (u32 half = 0; half < k / 8; half++) {
            for (u32 top = 0; top < 2; top++) {
                u32 pair = from_a[2 * half + top];
                a[(g + 8 * top) * k + q + 8 * half] = bf16_low(pair);
                a[(g + 8 * top) * k + q + 8 * half + 1] = bf16_high(pair);
            }
            b[(q + 8 * half) * 8 + g] = bf16_low(from_b[half]);
            b[(q + 8 * half + 1) * 8 + g] = bf16_high(from_b[half]);
        }
    }
    accumulators(w, d, false);
    multiply(d, a, b, k);
    accumulators(w, d, true);
}

static void run_bf16_k16(struct emu_warp *w)
{
    run_bf16(w, 16);
}

static void run_bf16_k8(struct emu_warp *w)
{
    run_bf16(w, 8);
}

static void run_tf32(struct emu_warp *w)
{
    float a[16 * 8], b[8 * 8], d[16][8];
    for (u32 l = 0; l < WARP; l++) {
        const u32 *from_a = w->operands[l][1], *from_b = w->operands[l][2];
        u32 g = l / 4, q = l % 4;
        for (u32 i = 0; i < 4; i++)
            a[(g + 8 * (i & 1)) * 8 + q + 4 * (i >> 1)] = f32_from_bits(from_a[i] & 0xffffe000u);
        for (u32 i = 0; i < 2; i++)
            b[(q + 4 * i) * 8 + g] = f32_from_bits(from_b[i] & 0xffffe000u);
    }
    accumulators(w, d, false);
    multiply(d, a, b, 8);
    accumulators(w, d, true);
}

static i32 byte_of(u32 word, u32 i)
{
    return (i8)(word >> 8 * i);
}

static void run_i8(struct emu_warp *w)
{
    i32 a[16][32], b[32][8];
    for (u32 l = 0; l < WARP; l++) {
        const u32 *from_a = w->operands[l][1], *from_b = w->operands[l][2];
        u32 g = l / 4, q = 4 * (l % 4);
        for (u32 i = 0; i < 4; i++) {
            for (u32 r = 0; r < 4; r++)
                a[g + 8 * (r & 1)][q + 16 * (r >> 1) + i] = byte_of(from_a[r], i);
            for (u32 r = 0; r < 2; r++)
                b[q + 16 * r + i][g] = byte_of(from_b[r], i);
        }
    }
    for (u32 l = 0; l < WARP; l++)
        for (u32 i = 0; i < 4; i++) {
            u32 sum = 0;
            for (u32 k = 0; k < 32; k++)
                sum += (u32)(a[l / 4 + 8 * (i / 2)][k] * b[k][2 * (l % 4) + i % 2]);
            ((u32 *)w->operands[l][0])[i] += sum;
        }
}

#define MMA(name, type, a_count, b_count, run)                                                     \
    void name(type d[4], const u32 a[a_count], const u32 b[b_count])                               \
    {                                                                                              \
        warp_meet(#name, run, d, (void *)(uintptr_t)a, (void *)(uintptr_t)b, PC);                  \
    }
MMA(mma_m16n8k16_bf16, float, 4, 2, run_bf16_k16)
MMA(mma_m16n8k8_bf16, float, 2, 1, run_bf16_k8)
MMA(mma_m16n8k8_tf32, float, 4, 2, run_tf32)
MMA(mma_m16n8k32_i8, i32, 4, 2, run_i8)

/* wgmma.c - products of a warp group. They are done when they are waited for; until then the
 * accumulators must not be touched, nor the tiles written. */
#include <stdlib.h>
#include <string.h>

#include "hopper.h"

enum { GROUP = 128 };

/* ---- tiles ---- */

static u32 width_of(u64 tile, void *pc)
{
    u32 kind = (u32)(tile >> 62);
    if (kind == 0)
        fault(pc, "wgmma: not a tile of wgmma_along or wgmma_across");
    return kind == 1 ? 128 : kind == 2 ? 64 : 32;
}

static u64 tile_of(const void *tile, u32 width, u32 next, void *pc)
{
    if (width != 128 && width != 64 && width != 32)
        fault(pc, "a tile with rows of %u bytes: 128, 64 or 32", width);
    u32 number = shared_number(tile, pc);
    if (number % (8 * width))
        fault(pc, "a tile at byte %u of shared memory: with rows of %u bytes, a multiple of %u",
              number - SHARED_FIRST, width, 8 * width);
    return (u64)(number >> 4) | (u64)(next >> 4 & 0x3fff) << 16 | (u64)(8 * width >> 4) << 32 |
           (u64)(width == 128  ? 1
                 : width == 64 ? 2
                               : 3)
               << 62;
}

u64 wgmma_along(const void *tile, u32 width)
{
    return tile_of(tile, width, 16, PC);
}

u64 wgmma_across(const void *tile, u32 width, u32 next)
{
    if (next % 16)
        fault(PC, "wgmma_across: tiles %u bytes apart: a multiple of 16", next);
    return tile_of(tile, width, next, PC);
}

/* Where 16 bytes of a tile are: of row r, columns 8 c... */
static u8 *tile_piece(u64 tile, u32 width, u32 offset, void *pc)
{
    u32 first = (u32)(tile & 0x3fff) << 4;
    return shared_pointer(swizzle(first + offset, width), 16, pc);
}

/* The pieces of an operand of `side` rows or columns and depth 16: piece p, in *step of them the
 * first of which is element (*at, *k) and which runs along k or not. */
static u32 pieces_of(u64 tile, u32 side, bool across, u8 *pieces[2 * MAX_PIECES], void *pc)
{
    u32 width = width_of(tile, pc), n = 0;
    u32 leading = (u32)(tile >> 16 & 0x3fff) << 4, stride = (u32)(tile >> 32 & 0x3fff) << 4;
    if (!across) {
        for (u32 i = 0; i < side; i++)
            for (u32 c = 0; c < 2; c++)
                pieces[n++] = tile_piece(tile, width, i / 8 * stride + i % 8 * width + c * 16, pc);
        return n;
    }
    u32 chunk = width / 2;
    for (u32 k = 0; k < 16; k++)
        for (u32 i = 0; i < side; i += 8)
            pieces[n++] = tile_piece(
                tile, width, i / chunk * leading + i % chunk * 2 + k / 8 * stride + k % 8 * width,
                pc);
    return n;
}

static void load_operand(float *out, u64 tile, u32 side, bool across, void *pc)
{
    u8 *pieces[2 * MAX_PIECES];
    u32 n = pieces_of(tile, side, across, pieces, pc);
    for (u32 p = 0; p < n; p++) {
        u16 values[8];
        memmove(values, pieces[p], 16);
        for (u32 e = 0; e < 8; e++) {
            u32 i = across ? p % (side / 8) * 8 + e : p / 2,
                k = across ? p / (side / 8) : p % 2 * 8 + e;
            out[k * side + i] = f32_from_bf16(values[e]);
        }
    }
}

/* At the end, as a read of thread `id` at `clock`. */
static void each_piece(const struct product *p, bool begin, u32 id, u32 clock)
{
    u8 *pieces[2 * MAX_PIECES];
    for (int operand = 0; operand < 2; operand++) {
        if (operand == 0 && p->held)
            continue;
        u32 n = pieces_of(operand ? p->b : p->a, operand ? p->n : 64,
                          operand ? p->across : p->a_across, pieces, p->pc);
        for (u32 i = 0; i < n; i++)
            if (begin) {
                pending_read_begin(pieces[i], 16, p->pc);
                check_proxy(pieces[i], 16, "read", p->pc);
            } else {
                pending_read_end(pieces[i], 16, id, clock);
            }
    }
}

/* ---- the warp group ---- */

/* Its 128 threads meet; the last to come runs `run`. */
static void group_meet(const char *op, void (*run)(struct emu_thread *threads, u32 operand),
                       u32 operand, void *pc)
{
    struct emu_thread *t = emu_current;
    struct emu_block *b = t->block;
    u32 g = t->index / GROUP;
    struct warp_group *group = b->groups + g;
    if ((g + 1) * GROUP > machine.threads)
        fault(pc, "%s by warps that are no whole group of four", op);
    if (group->arrived == 0)
        group->op = op;
    else if (group->op != op)
        fault(pc, "threads of a warp group diverged: this one is in %s, %u in %s", op,
              group->arrived, group->op);
    if (++group->arrived < GROUP) {
        wait_turn(op, 0, pc);
        return;
    }
    group->arrived = 0;
    for (u32 i = 0; i < GROUP; i++)
        make_ready(b->threads + g * GROUP + i);
    run(b->threads + g * GROUP, operand);
}

static void begin(struct emu_thread *threads, u32 at)
{
    const struct product *mine = threads[0].products->list + at;
    for (u32 i = 1; i < GROUP; i++) {
        const struct product *p = threads[i].products->list + at;
        if (threads[i].products->n != threads[0].products->n || p->a != mine->a ||
            p->b != mine->b || p->add != mine->add || p->n != mine->n)
            fault(mine->pc, "wgmma: threads of the warp group give different operands");
    }
    each_piece(mine, true, 0, 0);
}

static void issue(const char *op, float *d, const u32 *held, u64 a, u64 b, u32 add, u32 n,
                  bool a_across, bool across, void *pc)
{
    struct emu_thread *t = emu_current;
    struct products *p = products_of(t, pc);
    if (!p->fenced)
        fault(pc, "%s: no wgmma_fence() since registers were last waited for", op);
    if (p->n == p->room) {
        p->room = p->room ? 2 * p->room : 16;
        p->list = realloc(p->list, p->room * sizeof(*p->list));
        if (!p->list)
            fault(pc, "the emulator is out of memory");
    }
    struct product *product = p->list + p->n++;
    *product = (struct product){d, held, {0}, a, b, n, p->batch, add != 0, a_across, across, pc};
    if (held)
        memmove(product->values, held, sizeof(product->values));
    group_meet(op, begin, p->n - 1, pc);
}

#define WGMMA(n)                                                                                   \
    void wgmma_n##n(float d[n / 2], u64 a, u64 b, u32 add)                                         \
    {                                                                                              \
        issue("wgmma_n" #n, d, NULL, a, b, add, n, false, false, PC);                              \
    }                                                                                              \
    void wgmma_n##n##_across(float d[n / 2], u64 a, u64 b, u32 add)                                \
    {                                                                                              \
        issue("wgmma_n" #n "_across", d, NULL, a, b, add, n, false, true, PC);                     \
    }                                                                                              \
    void wgmma_n##n##_both_across(float d[n / 2], u64 a, u64 b, u32 add)                           \
    {                                                                                              \
        issue("wgmma_n" #n "_both_across", d, NULL, a, b, add, n, true, true, PC);                 \
    }                                                                                              \
    void wgmma_n##n##_held(float d[n / 2], const u32 r[4], u64 b, u32 add)                         \
    {                                                                                              \
        issue("wgmma_n" #n "_held", d, r, 0, b, add, n, false, false, PC);                         \
    }                                                                                              \
    void wgmma_n##n##_held_across(float d[n / 2], const u32 r[4], u64 b, u32 add)                  \
    {                                                                                              \
        issue("wgmma_n" #n "_held_across", d, r, 0, b, add, n, false, true, PC);                   \
    }
WGMMA_SIZES(WGMMA)

void wgmma_fence(void)
{
    products_of(emu_current, PC)->fenced = true;
}

void wgmma_commit(void)
{
    products_of(emu_current, PC)->batch++;
}

static void load_held(float *a, const struct emu_thread *threads, u32 at)
{
    for (u32 t = 0; t < GROUP; t++) {
        const u32 *r = threads[t].products->list[at].values;
        u32 row = t / WARP * 16 + t % WARP / 4, k = t % 4 * 2;
        for (u32 i = 0; i < 4; i++) {
            a[(k + i / 2 * 8) * 64 + row + i % 2 * 8] = bf16_low(r[i]);
            a[(k + i / 2 * 8 + 1) * 64 + row + i % 2 * 8] = bf16_high(r[i]);
        }
    }
}

/* a[16][64], b[16][n], both across. */
static void multiply(struct emu_thread *threads, u32 at, const float *a, const float *b)
{
    static float sums[64][256];
    const struct product *p = threads[0].products->list + at;
    for (int back = 0; back < 2; back++) {
        for (u32 t = 0; t < GROUP; t++) {
            float *d = threads[t].products->list[at].sums;
            for (u32 i = 0; i < p->n / 2; i++) {
                float *s = &sums[t / WARP * 16 + t % WARP / 4 + i % 4 / 2 * 8]
                                [i / 4 * 8 + t % 4 * 2 + i % 2];
                if (back)
                    d[i] = *s;
                else
                    *s = p->add ? d[i] : 0.0f;
            }
        }
        for (u32 i = 0; !back && i < 64; i++)
            for (u32 k = 0; k < 16; k++) {
                float x = a[k * 64 + i];
                const float *row = b + k * p->n;
                for (u32 j = 0; j < p->n; j++)
                    sums[i][j] += x * row[j];
            }
    }
}

static void finish(struct emu_thread *threads, u32 batches)
{
    static float a[16 * 64], b[16 * 256];
    struct products *first = threads[0].products;
    u32 due = 0, clock = meet_as_one(threads, GROUP);
    while (due < first->n && first->batch - first->list[due].batch > batches)
        due++;
    for (u32 i = 0; i < due; i++) {
        struct product *p = first->list + i;
        if (p->held)
            load_held(a, threads, i);
        else
            load_operand(a, p->a, 64, p->a_across, p->pc);
        load_operand(b, p->b, p->n, p->across, p->pc);
        multiply(threads, i, a, b);
        each_piece(p, false, threads->id, clock);
    }
    for (u32 t = 0; t < GROUP; t++) {
        struct products *p = threads[t].products;
        memmove(p->list, p->list + due, (p->n - due) * sizeof(*p->list));
        p->n -= due;
        p->fenced = false;
    }
}

void wgmma_wait(u32 batches)
{
    products_of(emu_current, PC);
    group_meet("wgmma_wait", finish, batches, PC);
}

void hopper_check_registers(const void *at, u32 size, void *pc)
{
    const struct products *all = emu_current->products;
    for (u32 i = 0; i < all->n; i++) {
        const struct product *p = all->list + i;
        u64 sums = (u64)((const u8 *)at + size - (const u8 *)p->sums);
        u64 held = (u64)((const u8 *)at + size - (const u8 *)p->held);
        if (sums - 1 < p->n * 2 + size - 1 || (p->held && held - 1 < 16 + size - 1))
            fault(pc, "registers of the product at %s used before wgmma_wait()",
                  source_line(p->pc));
    }
}

/* ---- stmatrix ---- */

static void store_matrices(struct emu_warp *w, bool transpose)
{
    u16 block[4][8][8];
    for (u32 l = 0; l < WARP; l++)
        for (u32 i = 0; i < 4; i++) {
            u32 pair = ((const u32 *)w->operands[l][1])[i], a = l / 4, b = 2 * (l % 4);
            block[i][transpose ? b : a][transpose ? a : b] = (u16)pair;
            block[i][transpose ? b + 1 : a][transpose ? a : b + 1] = (u16)(pair >> 16);
        }
    for (u32 l = 0; l < WARP; l++)
        memmove(w->operands[l][0], block[l / 8][l % 8], 16);
}

static void store_rows(struct emu_warp *w)
{
    store_matrices(w, false);
}

static void store_columns(struct emu_warp *w)
{
    store_matrices(w, true);
}

static void stmatrix(const char *op, void (*run)(struct emu_warp *), void *row, const u32 *r,
                     void *pc)
{
    if (!in_shared(row, 16))
        fault(pc, "%s: an address outside of shared memory", op);
    check_write(row, 16, 16, pc);
    warp_meet(op, run, row, (void *)(uintptr_t)r, NULL, pc);
}

void stmatrix_x4(void *row, const u32 r[4])
{
    stmatrix("stmatrix_x4", store_rows, row, r, PC);
}

void stmatrix_x4_trans(void *row, const u32 r[4])
{
    stmatrix("stmatrix_x4_trans", store_columns, row, r, PC);
}

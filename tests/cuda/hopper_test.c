/* hopper_test.c - mbarriers, tensor copies and products of warp groups on the emulator: right
 * kernels against fp64, and planted faults. */
#include <string.h>

#include "kernel_test.h"
#include "device_sm90.h"

static int fault_wanted;

enum { M = 128, N = 128, K = 448, TILE = 128 * 64 * 2, STAGES = 3, THREADS = 384 };

/* C[M][N] = A[M][K] B[N][K]^T: a producer warp group and two consumers of 64 rows each; C leaves by
 * tensor stores. */
KERNEL_ENTRY(THREADS, 1)
product(const tensor_map *a_map, const tensor_map *b_map, const tensor_map *c_map)
{
    SHARED_ARENA(arena);
    u64 *full = (u64 *)(void *)(arena + STAGES * 2 * TILE), *empty = full + STAGES;
    const u32 t = threadIdx.x, group = t / 128;
    if (t == 0) {
        for (u32 s = 0; s < STAGES; s++) {
            mbarrier_init(full + s, 1);
            mbarrier_init(empty + s, 2);
        }
        if (fault_wanted != 5)
            mbarrier_init_fence();
    }
    if (fault_wanted != 9)
        block_sync();
    if (group == 0) {
        registers_fewer(40);
        if (fault_wanted != 12)
            tensor_map_acquire(a_map);
        tensor_map_acquire(b_map);
        for (u32 k = 0; t == 0 && k < K / 64; k++) {
            const u32 s = k % STAGES, phase = k / STAGES & 1;
            u8 *stage = arena + s * 2 * TILE;
            if (fault_wanted != 3)
                mbarrier_wait(empty + s, phase ^ 1);
            if (fault_wanted == 13)
                mbarrier_arrive(full + s);
            else
                mbarrier_arrive_expect(full + s, fault_wanted == 6    ? 3 * TILE
                                                 : fault_wanted == 14 ? TILE
                                                                      : 2 * TILE);
            tensor_load_2d(stage, a_map, (i32)(k * 64), 0, full + s); /* MARK overwrites a tile */
            tensor_load_2d(stage + TILE, b_map, (i32)(k * 64), 0, full + s);
        }
        return;
    }
    registers_more(232);
    float d[64];
    for (u32 i = 0; i < 64; i++)
        d[i] = 0.0f;
    for (u32 k = 0; k < K / 64; k++) {
        const u32 s = k % STAGES, phase = k / STAGES & 1;
        u8 *stage = arena + s * 2 * TILE;
        mbarrier_wait(full + s, fault_wanted == 1 ? phase ^ 1 : phase);
        if (fault_wanted == 15) { /* its own store to a tile, then the product's read of it */
            if (t % 128 == 0)
                *(u32 *)(void *)(stage + (group - 1) * TILE / 2) = 0;
            barrier_sync(1 + group, 128);
        }
        const u64 a = wgmma_along(stage + (group - 1) * TILE / 2, 128);
        const u64 b = wgmma_along(stage + TILE, 128);
        if (fault_wanted != 4)
            wgmma_fence();
        for (u32 i = 0; i < 4; i++)
            wgmma_n128(d, a + 2 * i, b + 2 * i, 1); /* MARK product */
        wgmma_commit();
        if (fault_wanted == 2)
            d[0] += 1.0f; /* MARK touches the sums */
        if (fault_wanted == 8)
            return;
        wgmma_wait(0);
        if (fault_wanted == 16 && t % 128 == 0) /* then the next copy's write to it */
            *(u32 *)(void *)(stage + (group - 1) * TILE / 2) = 0;
        if (t % 128 == 0)
            mbarrier_arrive(empty + s);
    }
    const u32 lane = t % WARP, row = t % 128 / WARP * 16 + lane / 4;
    float *out = (float *)(void *)arena + (group - 1) * 64 * 128;
    barrier_sync(1, 256); /* all tiles are read */
    for (u32 j = 0; j < 64; j++) {
        const u32 column = j / 4 * 8 + lane % 4 * 2 + j % 2;
        /* chunks of 32 columns: what one copy takes */
        out[column / 32 * 64 * 32 + (row + j % 4 / 2 * 8) * 32 + column % 32] = d[j];
    }
    if (fault_wanted != 7)
        fence_proxy_async();
    barrier_sync(1 + group, 128);
    if (t % 128 == 0) {
        tensor_map_acquire(c_map);
        for (u32 c = 0; c < 4; c++)
            tensor_store_2d(c_map, (i32)(c * 32), (i32)((group - 1) * 64), out + c * 64 * 32);
        bulk_commit();
        if (fault_wanted == 10)
            out[0] = 0; /* MARK overwrites what is being stored */
        if (fault_wanted != 11)
            bulk_wait_read(0);
    }
}

/* D[64][80] = A[64][32] B[32][80]: A from registers, B across in tiles of 64 and 16 columns. */
KERNEL_ENTRY(128, 1)
held(float *d_out, const bf16 *a_in, const tensor_map *b64, const tensor_map *b16)
{
    SHARED_ARENA(arena);
    u64 *full = (u64 *)(void *)(arena + 16384);
    const u32 t = threadIdx.x, lane = t % WARP, row = t / WARP * 16 + lane / 4;
    if (t == 0) {
        mbarrier_init(full, 1);
        mbarrier_init_fence();
    }
    block_sync();
    if (t == 0) {
        tensor_map_acquire(b64);
        tensor_map_acquire(b16);
        mbarrier_arrive_expect(full, 32 * 80 * 2);
        tensor_load_2d(arena, b64, 0, 0, full);
        tensor_load_2d(arena + 4096, b16, 64, 0, full);
    }
    u32 a[2][4];
    for (u32 k = 0; k < 2; k++)
        for (u32 i = 0; i < 4; i++)
            a[k][i] = *(const u32 *)(const void *)(a_in + (row + i % 2 * 8) * 32 + k * 16 +
                                                   lane % 4 * 2 + i / 2 * 8);
    float wide[32], narrow[8];
    const u64 left = wgmma_across(arena, 128, 0), right = wgmma_across(arena + 4096, 32, 0);
    mbarrier_wait(full, 0);
    wgmma_fence();
    for (u32 k = 0; k < 2; k++) {
        wgmma_n64_held_across(wide, a[k], left + 128 * k, k);
        wgmma_n16_held_across(narrow, a[k], right + 32 * k, k);
    }
    wgmma_commit();
    wgmma_wait(0);
    for (u32 i = 0; i < 40; i++) {
        const u32 column = i / 4 * 8 + lane % 4 * 2 + i % 2;
        d_out[(row + i % 4 / 2 * 8) * 80 + column] = i < 32 ? wide[i] : narrow[i - 32];
    }
}

/* D[64][64] = A[32][64]^T B[32][64]: both across. */
KERNEL_ENTRY(128, 1) across(float *d_out, const tensor_map *a_map, const tensor_map *b_map)
{
    SHARED_ARENA(arena);
    u64 *full = (u64 *)(void *)(arena + 8192);
    const u32 t = threadIdx.x, lane = t % WARP, row = t / WARP * 16 + lane / 4;
    if (t == 0) {
        mbarrier_init(full, 1);
        mbarrier_init_fence();
    }
    block_sync();
    if (t == 0) {
        tensor_map_acquire(a_map);
        tensor_map_acquire(b_map);
        mbarrier_arrive_expect(full, 2 * 32 * 64 * 2);
        tensor_load_2d(arena, a_map, 0, 0, full);
        tensor_load_2d(arena + 4096, b_map, 0, 0, full);
    }
    float d[32];
    const u64 a = wgmma_across(arena, 128, 0), b = wgmma_across(arena + 4096, 128, 0);
    mbarrier_wait(full, 0);
    wgmma_fence();
    for (u32 k = 0; k < 2; k++)
        if (fault_wanted == 1) /* a taken for [m][k]: no fault, wrong numbers */
            wgmma_n64_across(d, a + 2 * k, b + 128 * k, k);
        else
            wgmma_n64_both_across(d, a + 128 * k, b + 128 * k, k);
    wgmma_commit();
    wgmma_wait(0);
    for (u32 i = 0; i < 32; i++)
        d_out[(row + i % 4 / 2 * 8) * 64 + i / 4 * 8 + lane % 4 * 2 + i % 2] = d[i];
}

/* ---- the harness ---- */

HOST_CODE static void *map_2d(const char *name, void *base, int element, u32 columns, u32 rows,
                              u32 box_columns, u32 box_rows, int width)
{
    const struct emu_tensor tensor = {.base = base,
                                      .element_bytes = element,
                                      .rank = 2,
                                      .swizzle = width,
                                      .extents = {columns, rows},
                                      .strides = {(u64)columns * (u64)element},
                                      .box = {box_columns, box_rows}};
    void *map = emu_alloc(name, sizeof(tensor_map));
    emu_tensor_map(map, &tensor);
    return map;
}

HOST_CODE static bool run_product(bool *right)
{
    const struct emu_launch l = {
        "product", (emu_kernel *)product, {1, 1, 1}, THREADS, STAGES * 2 * TILE + 64, false, NULL};
    emu_free_all();
    bf16 *a = test_bf16s("a", M * K, 1), *b = test_bf16s("b", N * K, 1);
    float *c = emu_alloc("c", M * N * sizeof(float));
    void *a_map = map_2d("a_map", a, 2, K, M, 64, 128, 128);
    void *b_map = map_2d("b_map", b, 2, K, N, 64, 128, 128);
    void *c_map = map_2d("c_map", c, 4, N, M, 32, 64, 0);
    if (!EMU_RUN(&l, a_map, b_map, c_map))
        return false;
    struct test_error e = {0, 0, 0, 0};
    for (size_t i = 0; i < M * N; i++) {
        double sum = 0;
        for (size_t k = 0; k < K; k++)
            sum +=
                (double)f32_from_bf16(a[i / N * K + k]) * (double)f32_from_bf16(b[i % N * K + k]);
        test_compare(&e, i, c[i], sum, 1e-3, 1e-5);
    }
    *right = !test_verdict(&e, "product");
    return true;
}

HOST_CODE static int run_held(void)
{
    const struct emu_launch l = {"held", (emu_kernel *)held, {1, 1, 1}, 128, 16384 + 8, false,
                                 NULL};
    emu_free_all();
    bf16 *a = test_bf16s("a", 64 * 32, 1), *b = test_bf16s("b", 32 * 80, 1);
    float *d = emu_alloc("d", 64 * 80 * sizeof(float));
    void *b64 = map_2d("b64", b, 2, 80, 32, 64, 32, 128);
    void *b16 = map_2d("b16", b, 2, 80, 32, 16, 32, 32);
    if (!EMU_RUN(&l, d, a, b64, b16)) {
        printf("held: %s\n", emu_fault());
        return 1;
    }
    struct test_error e = {0, 0, 0, 0};
    for (size_t i = 0; i < 64 * 80; i++) {
        double sum = 0;
        for (size_t k = 0; k < 32; k++)
            sum += (double)f32_from_bf16(a[i / 80 * 32 + k]) *
                   (double)f32_from_bf16(b[k * 80 + i % 80]);
        test_compare(&e, i, d[i], sum, 1e-4, 1e-5);
    }
    return test_verdict(&e, "held");
}

HOST_CODE static bool across_is_right(void)
{
    const struct emu_launch l = {"across", (emu_kernel *)across, {1, 1, 1}, 128, 16384 + 8, false,
                                 NULL};
    emu_free_all();
    bf16 *a = test_bf16s("a", 32 * 64, 1), *b = test_bf16s("b", 32 * 64, 1);
    float *d = emu_alloc("d", 64 * 64 * sizeof(float));
    void *a_map = map_2d("a_map", a, 2, 64, 32, 64, 32, 128);
    void *b_map = map_2d("b_map", b, 2, 64, 32, 64, 32, 128);
    if (!EMU_RUN(&l, d, a_map, b_map)) {
        printf("across: %s\n", emu_fault());
        return false;
    }
    for (size_t i = 0; i < 64 * 64; i++) {
        double sum = 0;
        for (size_t k = 0; k < 32; k++)
            sum += (double)f32_from_bf16(a[k * 64 + i / 64]) *
                   (double)f32_from_bf16(b[k * 64 + i % 64]);
        if (!(fabs(d[i] - sum) < 1e-4))
            return false;
    }
    return true;
}

struct planted {
    int fault;
    const char *says;
};
static const struct planted planted[] = {
    {1, ""}, /* a wrong parity: a tile that has not come, or a deadlock */
    {2, "used before wgmma_wait()"},
    {3, ""}, /* a tile overwritten: nothing orders, or still reading, or arrivals */
    {4, "no wgmma_fence()"},
    {5, "without mbarrier_init_fence()"},
    {6, "deadlock"},
    {7, "without fence_proxy_async()"},
    {8, "not waited for"},
    {9, "mbarrier"},
    {10, "still reading"},
    {11, "before its bulk stores had read"},
    {12, "tensor_map_acquire()"},
    {13, ""}, /* nothing expected: a tile that has not come */
    {14, ""}, /* too few bytes expected: the same */
    {15, "asynchronous read of"},
    {16, "asynchronous write of"},
};

HOST_CODE int main(void)
{
    int bad = 0;
    bool right = false;
    emu_catch(true);
    for (u32 seed = 1; seed <= 3; seed++) {
        emu_seed(seed);
        fault_wanted = 0;
        if (!run_product(&right) || !right) {
            printf("product: %s\n", emu_fault());
            bad = 1;
        }
        bad |= run_held();
        if (!across_is_right()) {
            printf("across: wrong result\n");
            bad = 1;
        }
        fault_wanted = 1;
        if (across_is_right()) {
            printf("across: a wrong operand went unnoticed\n");
            bad = 1;
        }
        for (size_t i = 0; i < sizeof(planted) / sizeof(planted[0]); i++) {
            fault_wanted = planted[i].fault;
            if (run_product(&right)) {
                printf("planted fault %d not found\n", fault_wanted);
                bad = 1;
            } else if (!strstr(emu_fault(), planted[i].says)) {
                printf("planted fault %d: wanted \"%s\", got: %s\n", fault_wanted, planted[i].says,
                       emu_fault());
                bad = 1;
            }
            if (getenv("SHOW_FAULTS"))
                printf("%d: %s\n", fault_wanted, emu_fault());
        }
    }
    return bad;
}

/* tiles.h - the tile unit of x86 (AMX): leave to use it, and what it can do. */
#ifndef ARCHRT_TILES_H
#define ARCHRT_TILES_H

#include <stdbool.h>
#include <stdint.h>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* Asks the kernel for the tile registers' place in this process; threads that start later have it
 * too. False: the processor has no tile unit for bf16, or the kernel does not give it. */
static inline bool tiles_allow(void)
{
#if defined(__x86_64__) && defined(__linux__)
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; /* arch_prctl(2), XSAVE component */
    enum { AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24, AVX512_BF16 = 1 << 5 };
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & AMX_BF16) || !(d & AMX_TILE))
        return false;
    if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a & AVX512_BF16))
        return false;
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
    return false;
#endif
}

#if defined(__x86_64__) && defined(__linux__)
/* fp32 FLOPs of `rounds` turns of products, six to one of fp32 as in kernels/host/amx.h. Numbers
 * are random: on zeros the clock is higher. in_cache: operands are read as the kernels' are, from
 * panels in the L1 and L2 caches; else they stay in registers. After tiles_allow(). */
__attribute__((target("amx-tile,amx-bf16"))) static inline double tile_products(long rounds,
                                                                                bool in_cache)
{
    enum { TILES = 64, NUMBERS = 16 * 32, FLOPS = 2 * 16 * NUMBERS, PRODUCTS_OF_FP32 = 6 };
    static _Thread_local uint16_t numbers[TILES][NUMBERS];
    struct {
        uint8_t palette, start_row, zero[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } tiles = {.palette = 1};
    uint32_t random = 1;
    /* Once a thread. Signs, and sizes from 2^-4 to 1. */
    bool filled = numbers[TILES - 1][NUMBERS - 1] != 0;
    for (int i = 0; !filled && i < TILES * NUMBERS; i++) {
        random = random * 1664525 + 1013904223;
        uint32_t size = 0x3d80 + (random >> 16 & 0x1ff);
        numbers[i / NUMBERS][i % NUMBERS] = (uint16_t)(size + (random & 0x8000));
    }
    for (int i = 0; i < 8; i++) {
        tiles.row_bytes[i] = 64;
        tiles.rows[i] = 16;
    }
    __asm__ volatile("" : : "r"(numbers), "r"(&tiles) : "memory");
    _tile_loadconfig(&tiles);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, numbers[0], 64);
    _tile_loadd(5, numbers[1], 64);
    _tile_loadd(6, numbers[2], 64);
    _tile_loadd(7, numbers[3], 64);
    for (long i = 0; i < rounds; i++) {
        if (in_cache) { /* seven pairs of tiles for six fours of products */
            const uint16_t *at = numbers[i % (TILES / 4) * 4];
            _tile_loadd(4, at, 64);
            _tile_loadd(5, at + NUMBERS, 64);
            if (i % 6 < 2)
                _tile_loadd(6, at + 2 * NUMBERS, 64);
            if (i % 6 < 2)
                _tile_loadd(7, at + 3 * NUMBERS, 64);
        }
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
    return 4.0 * FLOPS / PRODUCTS_OF_FP32 * (double)rounds;
}
#endif
#endif

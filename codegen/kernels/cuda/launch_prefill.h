/* launch_prefill.h - launches and scratch of the prefill kernels, and those that training shares;
 * see launch.h. */
#ifndef LAUNCH_PREFILL_H
#define LAUNCH_PREFILL_H

enum { NORM_THREADS = 256 };
#define NORM_LAUNCH(m, n, k) {(m), 1, 1}, NORM_THREADS, NORM_THREADS / 32 * 4

/* Products (product.h): tiles of the result, stages of the sum. On sm_90 a block a processor goes
 * over all tiles; elsewhere a block is a tile. */
#define PRODUCT_WGMMA (CUDA_ARCH == 90)
#define PRODUCT_ROWS 128
#define PRODUCT_DEPTH (PRODUCT_WGMMA ? 64 : 32)
#define PRODUCT_THREADS (PRODUCT_WGMMA ? 288 : 128)
#define PRODUCT_TILES(rows, columns, wide) (CEIL_DIV(rows, PRODUCT_ROWS) * CEIL_DIV(columns, wide))

/* Columns of a tile on sm_90: 256, or fewer where that leaves fewer processors idle in the last
 * round of tiles. A step of 64 of the depth takes as long as shared memory needs, of rows of 128
 * bytes a cycle each: 128 + w are written, twice 64 + w are read, 256 + 3 w. (At 256 the products
 * themselves take as long.) Where shapes are read at run time the caller says PRODUCT_WIDE. */
#define PRODUCT_CYCLES(rows, columns, wide)                                                        \
    (CEIL_DIV(PRODUCT_TILES(rows, columns, wide), CUDA_SMS) * (256 + 3 * (wide)))
#define PRODUCT_BETTER(rows, columns, a, b)                                                        \
    (PRODUCT_CYCLES(rows, columns, a) < PRODUCT_CYCLES(rows, columns, b))
#ifndef PRODUCT_WIDE
#define PRODUCT_WIDE(rows, columns)                                                                \
    (PRODUCT_BETTER(rows, columns, 192, 256) ? PRODUCT_BETTER(rows, columns, 128, 192) ? 128 : 192 \
     : PRODUCT_BETTER(rows, columns, 128, 256) ? 128                                               \
                                               : 256)
#endif
#define PRODUCT_COLUMNS(rows, columns) (PRODUCT_WGMMA ? PRODUCT_WIDE(rows, columns) : 128)

/* On sm_90: as many stages as there is room for, each with two barriers behind them. */
#define PRODUCT_STAGE_BYTES(wide) ((PRODUCT_ROWS + (wide)) * 128)
#define PRODUCT_STAGES(wide) (PRODUCT_WGMMA ? SHARED_MOST / (PRODUCT_STAGE_BYTES(wide) + 16) : 3)
#define PRODUCT_SHARED(wide) (PRODUCT_STAGES(wide) * (PRODUCT_STAGE_BYTES(wide) + 16))
/* Elements of 32 rows and columns of an operand's tile in product_mma.h: stored along, 128 rows of
 * 40; across, 32 rows of 136. */
#define PRODUCT_ALONG (128 * 40)
#define PRODUCT_ACROSS (32 * 136)
#define PRODUCT_BLOCKS(rows, columns) PRODUCT_TILES(rows, columns, PRODUCT_COLUMNS(rows, columns))
#define PRODUCT_LAUNCH(rows, columns, a, b)                                                        \
    {PRODUCT_WGMMA && PRODUCT_BLOCKS(rows, columns) > CUDA_SMS ? CUDA_SMS                          \
                                                               : PRODUCT_BLOCKS(rows, columns),    \
     1, 1},                                                                                        \
        PRODUCT_THREADS,                                                                           \
        PRODUCT_WGMMA ? PRODUCT_SHARED(PRODUCT_COLUMNS(rows, columns)) : 3 * 2 * ((a) + (b))
/* Boxes of an operand, on sm_90: stored along, half of its side of a tile; across, 64 x 64. */
#define PRODUCT_ROW_MAP(operand, rows, depth) MATRIX_MAP(operand, rows, depth, PRODUCT_ROWS / 2)
#define PRODUCT_ACROSS_MAP(operand, depth, side) MATRIX_MAP(operand, depth, side, PRODUCT_DEPTH)

#define MATMUL_LAUNCH(m, n, k) PRODUCT_LAUNCH(m, n, PRODUCT_ALONG, PRODUCT_ALONG)
#define MATMUL_MAPS(m, n, k)                                                                       \
    {                                                                                              \
        PRODUCT_WGMMA * 2,                                                                         \
        {                                                                                          \
            PRODUCT_ROW_MAP(1, m, k), MATRIX_MAP(2, n, k, PRODUCT_COLUMNS(m, n) / 2)               \
        }                                                                                          \
    }

/* Attention, forward (attention_tile.h). On mma.sync: above head size 64 a warp's 32 rows leave
 * registers for the scores of 32 keys, above 128 for 16 rows only. With wgmma: groups of 64 rows,
 * stages of 128 keys and values, panels of 64 elements; registers of a thread that multiplies, and
 * of one that copies, 64 K in all. */
#define FLASH_ROOMY (CUDA_ARCH >= 90 && CUDA_ARCH < 120) /* 227 KB a block */
#define FLASH_STRIDE(e) ((((e) / 8) | 1) * 8)            /* elements between rows, as TILE_STRIDE */
#define FLASH_WGMMA(e) (CUDA_ARCH == 90 && (e) <= 128)
#define FLASH_WGMMA_KEYS 128
#define FLASH_GROUPS(e) ((e) <= 64 ? 3 : 2)
#define FLASH_STAGES(e) ((e) <= 64 ? 4 : 2)
#define FLASH_MORE(e) ((e) <= 64 ? 160 : 240)
#define FLASH_FEWER(e) ((e) <= 64 ? 32 : 24)
#define FLASH_WARP_ROWS(e) ((e) <= 128 ? 32 : 16)
#define FLASH_WARPS(e) ((e) < 192 || CUDA_ARCH == 80 || FLASH_ROOMY ? ((e) <= 128 ? 4 : 8) : 4)
#define FLASH_ROWS(e)                                                                              \
    (FLASH_WGMMA(e) ? 64 * FLASH_GROUPS(e) : FLASH_WARPS(e) * FLASH_WARP_ROWS(e))
#define FLASH_THREADS(e) (FLASH_WGMMA(e) ? 128 * (FLASH_GROUPS(e) + 1) : FLASH_WARPS(e) * 32)
#define FLASH_KEYS(e)                                                                              \
    (FLASH_WGMMA(e) ? FLASH_WGMMA_KEYS : (e) <= 64 || ((e) <= 128 && FLASH_ROOMY) ? 64 : 32)
#define FLASH_SHARED(e)                                                                            \
    (FLASH_WGMMA(e) ? 128 * CEIL_DIV(e, 64) *                                                      \
                              (2 * FLASH_ROWS(e) + 2 * FLASH_STAGES(e) * FLASH_WGMMA_KEYS) +       \
                          4 * FLASH_STAGES(e) * 8                                                  \
                    : 2 * FLASH_STRIDE(e) * (FLASH_ROWS(e) + 4 * FLASH_KEYS(e)))
/* Of so many works: with wgmma a block a processor takes them in turn, else each has a block. */
#define FLASH_LAUNCH(works, e)                                                                     \
    {FLASH_WGMMA(e) && (works) > CUDA_SMS ? CUDA_SMS : (works), 1, 1}, FLASH_THREADS(e),           \
        FLASH_SHARED(e)
/* Heads, of so many, whose keys and values, n of each, L2 is to hold at a time. */
#ifndef FLASH_NEAR_BYTES
#define FLASH_NEAR_BYTES (16u << 20)
#endif
#define FLASH_NEAR_HEADS(heads, n, e)                                                              \
    CEIL_DIV(heads, CEIL_DIV((heads) * (n) * (e), FLASH_NEAR_BYTES / 4))
#define ATTENTION_LAUNCH(m, n, k)                                                                  \
    FLASH_LAUNCH(CEIL_DIV((n) * (HEADS / KV_HEADS), FLASH_ROWS(k)) * KV_HEADS * ((m) / (n)), k)
/* Keys and values, boxes of a page's keys and 64 elements: [sequence][head][key][E] of qkv rows,
 * [page][k, v: head][key][E] of the cache. */
#define FLASH_MAP(operand, keys, heads, outer, key_bytes, head_bytes, outer_bytes, e)              \
    {                                                                                              \
        operand, 4, {(unsigned)(e), (unsigned)(keys), (unsigned)(heads), (unsigned)(outer)},       \
            {(key_bytes), (head_bytes), (outer_bytes)}, {CUDA_MAP_COLUMNS, KV_PAGE, 1, 1}          \
    }
#define FLASH_QKV_BYTES(e) (2ull * (HEADS + 2 * KV_HEADS) * (e))
#define ATTENTION_MAPS(m, n, k)                                                                    \
    {                                                                                              \
        FLASH_WGMMA(k),                                                                            \
        {                                                                                          \
            FLASH_MAP(3, n, HEADS + 2 * KV_HEADS, (m) / (n), FLASH_QKV_BYTES(k), 2ull * (k),       \
                      (n)*FLASH_QKV_BYTES(k), k)                                                   \
        }                                                                                          \
    }
#define PREFILL_ATTENTION_MAPS(m, n, k)                                                            \
    {                                                                                              \
        FLASH_WGMMA(k),                                                                            \
        {                                                                                          \
            FLASH_MAP(2, KV_PAGE, 2 * KV_HEADS, 0, 2ull * (k), 2ull * (k)*KV_PAGE,                 \
                      4ull * (k)*KV_PAGE * KV_HEADS, k)                                            \
        }                                                                                          \
    }
/* Each segment may leave one work partly filled. */
#define PREFILL_ATTENTION_LAUNCH(m, n, k)                                                          \
    FLASH_LAUNCH(((m) * (HEADS / KV_HEADS) / FLASH_ROWS(k) + SEGMENTS) * KV_HEADS, k)

/* Shared memory that a block may have. */
#define SHARED_MOST                                                                                \
    ((CUDA_ARCH == 80 || CUDA_ARCH == 87   ? 163                                                   \
      : CUDA_ARCH >= 90 && CUDA_ARCH < 120 ? 227                                                   \
                                           : 99)                                                   \
     << 10)

/* Rows and columns as one range of vectors: threads, vectors of each, of a block. */
enum { EMBED_THREADS = 256, EMBED_EACH = 4, EMBED_BLOCK = EMBED_THREADS * EMBED_EACH };
#define EMBED_LAUNCH(m, n, k) {CEIL_DIV((size_t)(m) * (n) / 4, EMBED_BLOCK), 1, 1}, EMBED_THREADS, 0
enum { SWIGLU_THREADS = 256, SWIGLU_EACH = 2, SWIGLU_BLOCK = SWIGLU_THREADS * SWIGLU_EACH };
#define SWIGLU_LAUNCH(m, n, k)                                                                     \
    {CEIL_DIV((size_t)(m) * (n) / 8, SWIGLU_BLOCK), 1, 1}, SWIGLU_THREADS, 0

enum { ROPE_THREADS = 128 }; /* a row each */
#define ROPE_LANES(e) ((e) <= 64 ? 8u : (e) <= 128 ? 16u : 32u) /* of a head */
#define PREFILL_ROPE_LAUNCH(m, n, k) {(m), 1, 1}, ROPE_THREADS, 0

#endif

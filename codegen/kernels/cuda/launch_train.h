/* launch_train.h - launches and scratch of the training kernels; see launch.h. */
#ifndef LAUNCH_TRAIN_H
#define LAUNCH_TRAIN_H

/* Products of training (product.h). */
#define MATMUL_DX_LAUNCH(m, n, k) PRODUCT_LAUNCH(m, k, PRODUCT_ALONG, PRODUCT_ACROSS)
#define MATMUL_DW_LAUNCH(m, n, k) PRODUCT_LAUNCH(n, k, PRODUCT_ACROSS, PRODUCT_ACROSS)
#define MATMUL_DX_MAPS(m, n, k)                                                                    \
    {                                                                                              \
        PRODUCT_WGMMA * 2, { PRODUCT_ROW_MAP(1, m, n), PRODUCT_ACROSS_MAP(2, n, k) }               \
    }
#define MATMUL_DW_MAPS(m, n, k)                                                                    \
    {                                                                                              \
        PRODUCT_WGMMA * 2, { PRODUCT_ACROSS_MAP(2, m, n), PRODUCT_ACROSS_MAP(3, m, k) }            \
    }

/* The head without logits (head_softmax.cu, head_loss.cu, head_gradient.cu): a pair of numbers for
 * each row of a tile; rows of the pairs, so that each begins at 8 bytes. HEAD_QUARTERS: of 32 rows,
 * whole tiles of them. */
enum { HEAD_WARPS = 8, HEAD_EACH = 4, HEAD_JOINS = 16 };
#define HEAD_ROWS(m) (CEIL_DIV(m, 2) * 2)
#define HEAD_QUARTERS(m) (CEIL_DIV(m, PRODUCT_ROWS) * 4)
#define HEAD_PARTS(m, n) CEIL_DIV(n, PRODUCT_COLUMNS(m, n))
#define HEAD_LOSS_LAUNCH(m, n, k) PRODUCT_LAUNCH(m, n, PRODUCT_ALONG, PRODUCT_ALONG)
#define HEAD_LOSS_LAUNCH_2(m, n, k) {CEIL_DIV(m, 32), 1, 1}, HEAD_WARPS * 32, HEAD_WARPS * 32 * 8
#define HEAD_LOSS_SCRATCH(m, n, k) ((size_t)HEAD_ROWS(m) * (4 + 8 * (size_t)HEAD_PARTS(m, n)))
#define HEAD_LOSS_MAPS(m, n, k)                                                                    \
    {                                                                                              \
        PRODUCT_WGMMA * 2,                                                                         \
        {                                                                                          \
            PRODUCT_ROW_MAP(4, m, k), MATRIX_MAP(5, n, k, PRODUCT_COLUMNS(m, n) / 2)               \
        }                                                                                          \
    }
#define HEAD_SOFTMAX_LAUNCH(m, n, k) {CEIL_DIV(m, HEAD_WARPS), 1, 1}, HEAD_WARPS * 32, 0
#define HEAD_SOFTMAX_LAUNCH_2(m, n, k) PRODUCT_LAUNCH(m, n, PRODUCT_ALONG, PRODUCT_ALONG)
#define HEAD_SOFTMAX_LAUNCH_3(m, n, k)                                                             \
    {HEAD_QUARTERS(m), 1, 1}, HEAD_JOINS * 32, HEAD_JOINS * 32 * 8 + 32 * 4
/* Few blocks, each over many tiles, since there is rarely anything to do. */
#define HEAD_SOFTMAX_LAUNCH_4(m, n, k)                                                             \
    {LEAST(PRODUCT_BLOCKS(m, n), CUDA_SMS * (PRODUCT_WGMMA ? 1 : 2)), 1, 1}, PRODUCT_THREADS,      \
        PRODUCT_WGMMA ? PRODUCT_SHARED(PRODUCT_COLUMNS(m, n)) : 3 * 4 * PRODUCT_ALONG
#define HEAD_SOFTMAX_LAUNCH_5(m, n, k) HEAD_SOFTMAX_LAUNCH_3(m, n, k)
#define HEAD_SOFTMAX_SCRATCH(m, n, k)                                                              \
    (8 * (size_t)HEAD_ROWS(m) * (1 + (size_t)HEAD_PARTS(m, n)) + 4 * (size_t)HEAD_QUARTERS(m))
#define HEAD_SOFTMAX_MAPS(m, n, k) HEAD_LOSS_MAPS(m, n, k)
#define HEAD_GRADIENT_LAUNCH(m, n, k) PRODUCT_LAUNCH(m, n, PRODUCT_ALONG, PRODUCT_ALONG)
#define HEAD_GRADIENT_MAPS(m, n, k) MATMUL_MAPS(m, n, k)

/* Attention, backward. */
#define FLASH_LANES(e) ((e) <= 32 ? 4 : (e) <= 64 ? 8 : (e) <= 128 ? 16 : 32) /* of a head, pass 1 */
#define FLASH_HALVES(e) ((e) <= 128 ? 1 : 2) /* of a head's columns, each a warp's in pass 2 */
#define FLASH_KEY_WARPS(e) ((e) <= 64 || CUDA_ARCH == 80 || FLASH_ROOMY ? 8 : 4)
#define FLASH_KEY_BLOCK(e) (16 * FLASH_KEY_WARPS(e) / FLASH_HALVES(e))
#define FLASH_KEY_ROWS(e) ((e) <= 64 ? 64 : (e) <= 128 || CUDA_ARCH == 80 || FLASH_ROOMY ? 32 : 16)
#define FLASH_KEY_SHARED(e)                                                                        \
    (2 * FLASH_STRIDE(e) * (2 * FLASH_KEY_BLOCK(e) + 4 * FLASH_KEY_ROWS(e)) +                      \
     4 * 4 * FLASH_KEY_ROWS(e))
#define FLASH_QUERY_ROWS(e) ((e) <= 64 ? 128 : 64)
#define FLASH_QUERY_KEYS(e)                                                                        \
    ((e) <= 64 ? 64 : (e) <= 128 || CUDA_ARCH == 80 || FLASH_ROOMY ? 32 : 16)
#define FLASH_QUERY_SHARED(e)                                                                      \
    (2 * FLASH_STRIDE(e) * (2 * FLASH_QUERY_ROWS(e) + 4 * FLASH_QUERY_KEYS(e)))
/* On sm_90a up to head size 128 (attention_backward_wgmma.h): blocks of 128 keys, tiles of 64 rows
 * in stages, panels of 64 elements. Scratch: sums of dq, tile by tile; turns, one a tile, and a
 * number that blocks draw their work from. */
#define FLASH_BACK_WGMMA(e) (CUDA_ARCH == 90 && (e) <= 128)
#define FLASH_BACK_ROWS 64
#define FLASH_BACK_STAGES(e) ((e) <= 64 ? 4 : 3)
#define FLASH_BACK_TERMS(e) ((e) <= 64 ? 4 : 2) /* tiles of ds */
#define FLASH_BACK_TILES(n) CEIL_DIV((n) * (HEADS / KV_HEADS), FLASH_BACK_ROWS)
#define FLASH_BACK_SHARED(e)                                                                       \
    (2 * 128 * CEIL_DIV(e, 64) * (128 + FLASH_BACK_STAGES(e) * FLASH_BACK_ROWS) +                  \
     FLASH_BACK_TERMS(e) * 256 * FLASH_BACK_ROWS + 2 * 4 * FLASH_BACK_STAGES(e) * FLASH_BACK_ROWS + 256)
#define FLASH_BACK_ALL_TILES(m, n) ((m) / (n)*KV_HEADS * FLASH_BACK_TILES(n))
#define FLASH_BACK_SUMS(m, n, e)                                                                   \
    (FLASH_BACK_WGMMA(e) ? FLASH_BACK_ALL_TILES(m, n) * FLASH_BACK_ROWS * (e) : 0)
#define FLASH_BACK_TURNS(m, n, e) (FLASH_BACK_WGMMA(e) ? FLASH_BACK_ALL_TILES(m, n) + 1 : 0)
#define ATTENTION_BACKWARD_LAUNCH(m, n, k) {CEIL_DIV((m)*HEADS, 256 / FLASH_LANES(k)), 1, 1}, 256, 0
#define ATTENTION_BACKWARD_LAUNCH_2(m, n, k)                                                       \
    {FLASH_BACK_WGMMA(k) ? CEIL_DIV(n, 128) * KV_HEADS * ((m) / (n))                               \
                         : CEIL_DIV(n, FLASH_KEY_BLOCK(k)),                                        \
     FLASH_BACK_WGMMA(k) ? 1 : KV_HEADS, FLASH_BACK_WGMMA(k) ? 1 : (m) / (n)},                     \
        FLASH_BACK_WGMMA(k) ? 384 : FLASH_KEY_WARPS(k) * 32,                                       \
        FLASH_BACK_WGMMA(k) ? FLASH_BACK_SHARED(k) : FLASH_KEY_SHARED(k)
#define ATTENTION_BACKWARD_LAUNCH_3(m, n, k)                                                       \
    {FLASH_BACK_WGMMA(k) ? FLASH_BACK_TILES(n)                                                     \
                         : CEIL_DIV((n) * (HEADS / KV_HEADS), FLASH_QUERY_ROWS(k)),                \
     KV_HEADS, (m) / (n)},                                                                         \
        FLASH_BACK_WGMMA(k) && (k) > 64 ? 256 : 128,                                               \
        FLASH_BACK_WGMMA(k) ? 0 : FLASH_QUERY_SHARED(k)
#define ATTENTION_BACKWARD_SCRATCH(m, n, k)                                                        \
    (((size_t)(m)*HEADS + FLASH_BACK_SUMS((size_t)(m), n, k) +                                     \
      FLASH_BACK_TURNS((size_t)(m), n, k)) *                                                       \
     4)

#define ROPE_LAUNCH(m, n, k) {(m), 1, 1}, ROPE_THREADS, 0

#define SWIGLU_BACKWARD_LAUNCH(m, n, k) SWIGLU_LAUNCH(m, n, k)

/* Blocks that each sum some columns, then COLUMNS_THREADS threads for every 32 columns of sums. */
enum { COLUMNS_THREADS = 1024 };
#define COLUMNS_LAUNCH(n) {CEIL_DIV(n, 32), 1, 1}, COLUMNS_THREADS, COLUMNS_THREADS * 4
#define LEAST(a, b) ((a) < (b) ? (a) : (b))

/* Gradients of rotation, head norm included. Shared memory: 2 E sums of each head at once. */
#define ROPE_BACKWARD_BLOCKS(m) LEAST(m, CUDA_SMS * 8u)
#define ROPE_BACKWARD_LAUNCH(m, n, k)                                                              \
    {ROPE_BACKWARD_BLOCKS(m), 1, 1}, ROPE_THREADS,                                                 \
        ROPE_THREADS / ROPE_LANES(k) * 2 * (k)*4
#define ROPE_BACKWARD_LAUNCH_2(m, n, k) COLUMNS_LAUNCH(2 * (k))
#define ROPE_BACKWARD_SCRATCH(m, n, k) ((size_t)ROPE_BACKWARD_BLOCKS(m) * 2 * (k)*4)

/* Sums of columns, and where they fit two rows of x, dx and dy, in shared memory; as many blocks as
 * a multiprocessor has room for, so that none comes late. */
#define NORM_MEANS (2 * NORM_THREADS / 32 * 4)
#define NORM_STAGED(n) (NORM_MEANS + (n) * 24 <= SHARED_MOST)
#define NORM_SHARED(n) (NORM_MEANS + (n) * (NORM_STAGED(n) ? 24 : 4))
#define NORM_ROOM(n) LEAST((SHARED_MOST + 1024) / (NORM_SHARED(n) + 1024), 4u)
#define NORM_BACKWARD_BLOCKS(m, n) LEAST(m, CUDA_SMS * NORM_ROOM(n))
#define NORM_BACKWARD_LAUNCH(m, n, k)                                                              \
    {NORM_BACKWARD_BLOCKS(m, n), 1, 1}, NORM_THREADS, NORM_SHARED(n)
#define NORM_BACKWARD_LAUNCH_2(m, n, k) COLUMNS_LAUNCH(n)
#define NORM_BACKWARD_SCRATCH(m, n, k) ((size_t)LEAST(m, CUDA_SMS * 4u) * (n)*4) /* on any device */

/* Warps that each own a class of tokens, with a cursor in shared memory for each token of it. */
enum {
    EMBED_ORDER_THREADS = 256,
    EMBED_SCAN_EACH = 8,
    EMBED_ORDER_WARPS = EMBED_ORDER_THREADS / 32,
    EMBED_ADD_THREADS = 256,
    EMBED_ADD_EACH = 8
};
#define EMBED_ORDER_BLOCKS                                                                         \
    (CEIL_DIV(VOCAB, EMBED_ORDER_WARPS * 1024u) > CUDA_SMS                                         \
         ? CEIL_DIV(VOCAB, EMBED_ORDER_WARPS * 1024u)                                              \
         : CUDA_SMS + 0u)
#define EMBED_CLASSES (EMBED_ORDER_BLOCKS * EMBED_ORDER_WARPS)
#define EMBED_CURSORS CEIL_DIV(VOCAB, EMBED_CLASSES) /* of a class */
#define EMBED_BACKWARD_LAUNCH(m, n, k)                                                             \
    {EMBED_ORDER_BLOCKS, 1, 1}, EMBED_ORDER_THREADS, EMBED_ORDER_WARPS * EMBED_CURSORS * 4
#define EMBED_BACKWARD_LAUNCH_2(m, n, k)                                                           \
    {(m), CEIL_DIV(n, EMBED_ADD_THREADS * 4), 1}, EMBED_ADD_THREADS, 0
#define EMBED_BACKWARD_SCRATCH(m, n, k) ((size_t)(m)*4)

/* The slab in pieces that blocks take in turn; all blocks fit the machine at once. */
enum { SUM_THREADS = 256, SUM_EACH = 4, SUM_BLOCK = SUM_THREADS * SUM_EACH };
#define SUM_BLOCKS(n) LEAST(CEIL_DIV((n) / 4, SUM_BLOCK), CUDA_SMS * 4u)
#define SUM_SQUARES_LAUNCH(m, n, k) {SUM_BLOCKS((size_t)(n)), 1, 1}, SUM_THREADS, SUM_THREADS * 8
#define SUM_SQUARES_LAUNCH_2(m, n, k) {1, 1, 1}, SUM_THREADS, SUM_THREADS * 8
#define SUM_SQUARES_SCRATCH(m, n, k) (SUM_BLOCKS((size_t)(n)) * 8)
enum { ADAM_THREADS = 256 };
#define ADAMW_LAUNCH(m, n, k) {CEIL_DIV((size_t)(n) / 4, ADAM_THREADS), 1, 1}, ADAM_THREADS, 0

#endif

/* launch_decode.h - launches and scratch of the decode kernels; see launch.h. */
#ifndef LAUNCH_DECODE_H
#define LAUNCH_DECODE_H

/* Shared memory: 99 KB a block on the small dies, 163 on sm_80, 227 on sm_90 and sm_100. */
#define SMALL_SHARED (CUDA_ARCH == 86 || CUDA_ARCH == 89 || CUDA_ARCH >= 120)
#define LESSER(a, b) ((a) < (b) ? (a) : (b))
#define GREATER(a, b) ((a) > (b) ? (a) : (b))
#define ROUND_UP(a, b) (CEIL_DIV(a, b) * (b))

/* Where norms are halves of the kernels around them (archrt_cuda.h); of others pass 1 norms. */
#define SKINNY_FOLDED(m) (CUDA_ARCH == 90 && (m) > 8)

/* Embedding: a row a block, those of tiles that have none of x too. */
enum { EMBED_ROW_THREADS = 256 };
#define DECODE_EMBED_LAUNCH(m, n, k)                                                               \
    {SKINNY_FOLDED(m) ? CUDA_TILE_ROWS(m) : (m), 1, 1}, EMBED_ROW_THREADS, 0

/* Streamed products (decode_stream.h). A step is 16 rows of 64 columns of weights, 2 KB a warp;
 * each warp has STREAM_RING of them, in the kernels that are wide (below) STREAM_RING_WIDE; until
 * its turn comes it has at most STREAM_PACE under way. */
enum { STREAM_WARPS = 8, STREAM_THREADS = 256, STREAM_COLUMNS = 64, STREAM_STEP = 2048 };
#define STREAM_RING (SMALL_SHARED ? 3 : 5)
#define STREAM_RING_WIDE (CUDA_ARCH < 90 || SMALL_SHARED ? STREAM_RING : 7)
#define STREAM_PACE (CUDA_ARCH < 90 ? STREAM_RING : 2)
/* Blocks a processor that registers must allow: 64 a thread at one row where kernels overlap, so
 * that two of them and attention's blocks fit; else 128, of which at most 120 are taken. */
#define STREAM_RESIDENT(m) (CUDA_ARCH >= 90 && (m) == 1 ? 4 : 2)
/* Rows of x stand in shared memory, `STREAM_PANEL` columns of them at a time: all, where they fit.
 * A thread has STREAM_AT_ONCE pieces of four columns of each row to be normed on their way: of one
 * row or two all of 4096 columns. */
#ifndef STREAM_AT_ONCE
#define STREAM_AT_ONCE(m) ((m) <= 2 ? 4u : 2u)
#endif
#define STREAM_X_BYTES ((SMALL_SHARED ? 32 : CUDA_ARCH < 90 ? 64 : 112) * 1024)
#define STREAM_X_STRIDE(columns) (ROUND_UP(columns, 64) + 32)
#define STREAM_PANEL(m, k)                                                                         \
    ((m)*2 * STREAM_X_STRIDE(k) <= STREAM_X_BYTES ? (k)                                            \
                                                  : (STREAM_X_BYTES / ((m)*2) - 32) / 512 * 512)
#define STREAM_SHARED(ring, m, k)                                                                  \
    ((ring)*STREAM_WARPS * STREAM_STEP + (m)*2 * STREAM_X_STRIDE(STREAM_PANEL(m, k)) +             \
     (m)*STREAM_WARPS * 4)
/* An item is two rows of weights. Split by rows, each warp has items of its own; split by columns,
 * the warps of a block share its items, at most 32, and add up their sums in shared memory. */
#define STREAM_ITEMS(n) CEIL_DIV(n, 2)
#define STREAM_SPLIT_BLOCKS(n)                                                                     \
    LESSER(STREAM_ITEMS(n), CUDA_SMS *CEIL_DIV(STREAM_ITEMS(n), CUDA_SMS * 32))
#define STREAM_SPLIT_SHARED(m, n, k)                                                               \
    (STREAM_SHARED(STREAM_RING, m, k) +                                                            \
     CEIL_DIV(CEIL_DIV(STREAM_ITEMS(n), STREAM_SPLIT_BLOCKS(n)), 8) * STREAM_WARPS * 512)

/* Where kernels overlap no processor may take two blocks of one while another has none: each kernel
 * would take as long as its two. So every other kernel of a layer takes more than half of the
 * shared memory: no two of it fit, and beside it one block of a narrower one, but no two. The
 * narrower kernel comes while the wide one in front of it is on all processors. */
#define STREAM_WIDE (CUDA_ARCH == 90 || CUDA_ARCH == 100 ? 228 * 1024 / 2 - 1024 + 16 : 0)
#define STREAM_OWN_BLOCKS(n) LESSER(CUDA_SMS, CEIL_DIV(STREAM_ITEMS(n), STREAM_WARPS))

#define DECODE_QKV_LAUNCH(m, n, k)                                                                 \
    {STREAM_SPLIT_BLOCKS(n), 1, 1}, STREAM_THREADS,                                                \
        GREATER(STREAM_SPLIT_SHARED(m, n, k), STREAM_WIDE)
#define DECODE_QKV_SCRATCH(m, n, k) ((size_t)(m) * (n)*4)
#define DECODE_RESIDUAL_LAUNCH(m, n, k)                                                            \
    {STREAM_SPLIT_BLOCKS(n), 1, 1}, STREAM_THREADS, STREAM_SPLIT_SHARED(m, n, k)
#define DECODE_GATE_UP_LAUNCH(m, n, k)                                                             \
    {STREAM_OWN_BLOCKS(n), 1, 1}, STREAM_THREADS,                                                  \
        GREATER(STREAM_SHARED(STREAM_RING_WIDE, m, k), STREAM_WIDE)
#define DECODE_HEAD_LAUNCH(m, n, k)                                                                \
    {STREAM_OWN_BLOCKS(n), 1, 1}, STREAM_THREADS,                                                  \
        GREATER(STREAM_SHARED(STREAM_RING_WIDE, m, k), STREAM_WIDE)

/* Attention: a tile of keys is a warp's (decode_keys.h); above head size 128 two warps', half of
 * the elements each, which exchange the sums of their scores. */
enum { KEYS_TILE = 16, KEYS_MAX_SPLITS = 128 };
#define KEYS_HALVES (HEAD_DIM <= 128 ? 1 : 2)

/* Attention of few rows (decode_attention.cu): four warps; above head size 64 two of them, above
 * 128 all take a tile of keys together, an equal part of the elements each, so that two tiles a
 * warp fit in registers beside what it keeps. Half of a processor's registers, so that two products
 * have room beside it, and of shared memory no more than what they leave. */
enum { ATTEND_WARPS = 4, ATTEND_THREADS = 128, ATTEND_KEYS = 32, ATTEND_TILES = 2 };
#define ATTEND_PARTS (HEAD_DIM <= 64 ? 1 : HEAD_DIM <= 128 ? 2 : 4)
#define ATTEND_TEAMS (ATTEND_WARPS / ATTEND_PARTS)
#define ATTEND_STEP (ATTEND_TEAMS * ATTEND_KEYS) /* keys between a team's tiles */
/* Halves of the matrix instruction's 16 rows that the group fills. */
#define ATTEND_ROWS (HEADS / KV_HEADS > 8 ? 2 : 1)
#define ATTEND_EXCHANGE (ATTEND_PARTS == 1 ? 0 : ATTEND_ROWS * 4 * ATTEND_THREADS * 16)
/* The teams' states of a cluster, where its blocks add them up: eight pieces of 16 bytes and their
 * scale, of each half of a part of a query. */
enum { ATTEND_PIECES = 9 };
#define ATTEND_STATES(m)                                                                           \
    (ROUND_UP(HEADS / KV_HEADS * ATTEND_PARTS * 2, KEYS_CLUSTER(m)) * ATTEND_TEAMS *               \
     ATTEND_PIECES * 16)
/* Clusters of at most 8 blocks, the largest that find room all at once, a block a processor: an
 * H200 holds 30 of 4 and about 14 of 8, 17 processors in 20; of 2, whose processors are made in
 * pairs, as many as it has pairs. */
#define KEYS_ROOM(m) (CUDA_SMS * 17 / 20 / (KV_HEADS * (m)))
#define KEYS_CLUSTER(m)                                                                            \
    (CUDA_ARCH != 90                  ? 1                                                          \
     : KEYS_ROOM(m) >= 2              ? LESSER(8, KEYS_ROOM(m))                                    \
     : 2 * KV_HEADS * (m) <= CUDA_SMS ? 2                                                          \
                                      : 1)
/* Up to so many keys one cluster has all of a row and kv head: three times what its registers hold.
 * From there on reading by as many as there are is worth the three latencies in which clusters
 * meet. */
#ifndef KEYS_ALONE
#define KEYS_ALONE(m) (KEYS_CLUSTER(m) == 1 ? 0 : 3 * KEYS_CLUSTER(m) * ATTEND_TILES * ATTEND_STEP)
#endif
#define KEYS_CLUSTERS(m)                                                                           \
    (KEYS_CLUSTER(m) > 1                                                                           \
         ? (CONTEXT <= KEYS_ALONE(m) ? 1 : GREATER(1, KEYS_ROOM(m) / KEYS_CLUSTER(m)))             \
         : GREATER(1, LESSER(LESSER(KEYS_MAX_SPLITS, CEIL_DIV(CONTEXT, ATTEND_STEP)),              \
                             CUDA_SMS / (KV_HEADS * (m)))))
#define DECODE_ATTENTION_LAUNCH(m, n, k)                                                           \
    {KV_HEADS, KEYS_CLUSTER(m) * KEYS_CLUSTERS(m), (m), KEYS_CLUSTER(m)}, ATTEND_THREADS,          \
        ATTEND_EXCHANGE + ATTEND_STATES(m) + 16
/* Where clusters meet: 32 bytes of four elements. */
#define DECODE_ATTENTION_SCRATCH(m, n, k)                                                          \
    (KEYS_CLUSTERS(m) == 1 ? (size_t)0                                                             \
                           : (size_t)(m)*HEADS * ATTEND_PARTS * 16 * KEYS_CLUSTERS(m) * 32)

/* Attention of 9 rows and more: a block a processor, all resident at once, whose teams of warps
 * have each a part of all rows' tiles (skinny_pairs.h). What is under way stands in shared memory,
 * slots of 16 rows of a warp's share of a head, as many as SKINNY_KEYS_ROOM has place for: on sm_90
 * what half a processor has, so that a product's block finds room beside it; elsewhere what the
 * bandwidth times two microseconds asks for, so that two blocks fit where a card has fewer
 * processors. On sm_90, where blocks come while others are resident, each takes STREAM_WIDE and no
 * processor two. */
#define SKINNY_KEYS_ROOM ((SMALL_SHARED ? 48 : CUDA_ARCH < 90 ? 80 : 113) * 1024)
#define SKINNY_KEYS_SHARE (CEIL_DIV(CEIL_DIV(HEAD_DIM, KEYS_HALVES), 8) * 8)
#define SKINNY_KEYS_WARPS (SKINNY_KEYS_SHARE <= (KEYS_HALVES == 1 ? 88 : 72) ? 8 : 4)
#define SKINNY_KEYS_TEAMS (SKINNY_KEYS_WARPS / KEYS_HALVES)
#define SKINNY_KEYS_THREADS (32 * SKINNY_KEYS_WARPS)
/* Blocks that a processor's registers must have room for. Eight warps find room twice at head size
 * 64 alone: above for 64 elements of out a lane, below for places of lanes without elements. */
#define SKINNY_KEYS_RESIDENT (SKINNY_KEYS_WARPS == 4 || SKINNY_KEYS_SHARE == 64 ? 2 : 1)
#define SKINNY_KEYS_SLOT_ROW (SKINNY_KEYS_WARPS * KEYS_TILE * SKINNY_KEYS_SHARE * 2)
#define SKINNY_KEYS_EXCHANGE (KEYS_HALVES == 1 ? 0 : SKINNY_KEYS_TEAMS * 4096)
/* A state a team, each of a group's queries: elements, maximum, sum. */
#define SKINNY_KEYS_STATES ROUND_UP(SKINNY_KEYS_TEAMS *(HEADS / KV_HEADS) * (HEAD_DIM + 2) * 4, 16)
/* Beside the slots: ends of rows, what warps and teams are at, exchanged scores, states. */
#define SKINNY_KEYS_ENDS(m) ROUND_UP((m)*4, 16)
#define SKINNY_KEYS_NOTES (SKINNY_KEYS_TEAMS * 32 + SKINNY_KEYS_WARPS * 24)
#define SKINNY_KEYS_FIXED(m)                                                                       \
    (SKINNY_KEYS_ENDS(m) + SKINNY_KEYS_NOTES + SKINNY_KEYS_EXCHANGE + SKINNY_KEYS_STATES)
#define SKINNY_KEYS_SLOTS(m)                                                                       \
    (SKINNY_KEYS_FIXED(m) + 3 * SKINNY_KEYS_SLOT_ROW > SKINNY_KEYS_ROOM                            \
         ? 2                                                                                       \
         : LESSER(12, (SKINNY_KEYS_ROOM - SKINNY_KEYS_FIXED(m)) / SKINNY_KEYS_SLOT_ROW))
/* Slots that are asked for before the kernel in front has ended. Its own last reads stand in the
 * same queue, as weights asked for ahead have shown (NOTES-skinny.md); but these have to come
 * anyway, and what it waits longer the keys come sooner. So all, until a card says otherwise. */
#define SKINNY_KEYS_AHEAD 12
/* In their place in the end: states again; weights of all blocks and partial sums. */
#define SKINNY_KEYS_SUMS                                                                           \
    (ROUND_UP((HEADS / KV_HEADS) * CUDA_SMS * 8, 16) + SKINNY_KEYS_THREADS * 16)
#define SKINNY_ATTENTION_LAUNCH(m, n, k)                                                           \
    {CUDA_SMS, 1, 1}, SKINNY_KEYS_THREADS,                                                         \
        GREATER(SKINNY_KEYS_FIXED(m) + GREATER(SKINNY_KEYS_SLOTS(m) * SKINNY_KEYS_SLOT_ROW,        \
                                               GREATER(SKINNY_KEYS_STATES, SKINNY_KEYS_SUMS)),     \
                STREAM_WIDE)
#define SKINNY_ATTENTION_SCRATCH(m, n, k)                                                          \
    ((size_t)CUDA_SMS * 2 * (HEADS / KV_HEADS) * (HEAD_DIM + 2) * 4)

/* Counters of the attention kernels: one for a sum of a row, or for a row's kv head. What is there
 * for decode of up to m rows. */
#define DECODE_ATTENTION_COUNTERS(m) ((m)*HEADS * ATTEND_PARTS * 2)
#define SKINNY_ATTENTION_COUNTERS(m) ((m)*KV_HEADS)
#define DECODE_COUNTERS(m)                                                                         \
    GREATER(CUDA_COUNTERS,                                                                         \
            GREATER(DECODE_ATTENTION_COUNTERS(LESSER(m, 8)), SKINNY_ATTENTION_COUNTERS(m)))

/* Products of 9 rows and more (skinny_product.h): at most 64 items and 256 rows of x a block,
 * `splits` of the columns. Blocks are made as many as processors, at the fewest splits that allows.
 */
enum {
    SKINNY_THREADS = 256,
    SKINNY_TILE = 128, /* rows of weights */
    SKINNY_ROWS = 256,
    SKINNY_MAX_SPLITS = 4 /* blocks of a cluster: more find room too late */
};
#define SKINNY_FULL(n) CEIL_DIV(CEIL_DIV(n, 2), SKINNY_TILE / 2)
#define SKINNY_SPLITS(n, k) GREATER(1, LESSER(CUDA_SMS / SKINNY_FULL(n), CEIL_DIV(k, 256)))
#define SKINNY_BLOCKS(n, k)                                                                        \
    LESSER(CEIL_DIV(n, 2), SKINNY_FULL(n) >= CUDA_SMS                                              \
                               ? CUDA_SMS * CEIL_DIV(SKINNY_FULL(n), CUDA_SMS)                     \
                               : CUDA_SMS / SKINNY_SPLITS(n, k))
#define SKINNY_DEPTH(m) ((m) > (SMALL_SHARED ? 64 : CUDA_ARCH < 90 ? 128 : 256) ? 32 : 64)
#define SKINNY_STAGES(m)                                                                           \
    (SMALL_SHARED                                ? ((m) > 64 && (m) <= 128 ? 4 : 3)                \
     : CUDA_ARCH >= 90 && (m) > 64 && (m) <= 128 ? 3                                               \
                                                 : 4)
#define SKINNY_WARP_X(m) ROUND_UP((m) <= 64 ? (m) : CEIL_DIV(LESSER(m, SKINNY_ROWS), 2), 16)
#define SKINNY_TILE_X(m) ((m) <= 64 ? SKINNY_WARP_X(m) : 2 * SKINNY_WARP_X(m))
#define SKINNY_SHARED(m)                                                                           \
    (SKINNY_STAGES(m) * (SKINNY_TILE + SKINNY_TILE_X(m)) * (SKINNY_DEPTH(m) + 8) * 2)
/* Sums of all splits. */
#define SKINNY_PARTIAL(m, n, k) ((size_t)(m)*SKINNY_SPLITS(n, k) * CEIL_DIV(n, 2) * 8)
/* The same on sm_90 (skinny_wgmma.h): tiles of `wide` rows of weights and 64 rows of x a warp
 * group, stages of 64 columns. Where tiles are few, clusters of `splits` blocks share a tile's
 * columns; else a block a processor goes over them. */
#define SKINNY_WGMMA (CUDA_ARCH == 90)
#define SKINNY_GROUPS(m) LESSER(CEIL_DIV(m, 64), SKINNY_ROWS / 64)
#define SKINNY_X(m) (SKINNY_GROUPS(m) * 64)
#define SKINNY_THREADS_90(m) (SKINNY_GROUPS(m) * 128 + 32)
#define SKINNY_STAGE(m, wide) (((wide) + SKINNY_X(m)) * 128)
/* As many as find processors, of 256 columns at least. Said number by number: nested as LESSER it
 * was written out eight times wherever it stands, and the tables of a program were 24 MB of it. */
#define SKINNY_CAN_SPLIT(splits, tiles, k)                                                         \
    ((tiles) * (splits) <= CUDA_SMS && (k) > 256 * ((splits)-1))
#define SKINNY_SPLITS_90(tiles, k)                                                                 \
    (SKINNY_CAN_SPLIT(SKINNY_MAX_SPLITS, tiles, k) ? SKINNY_MAX_SPLITS                             \
     : SKINNY_CAN_SPLIT(3, tiles, k)               ? 3                                             \
     : SKINNY_CAN_SPLIT(2, tiles, k)               ? 2                                             \
                                                   : 1)
/* Shared memory of a block, filled with stages and their mbarriers, 16 bytes a stage and 16 more:
 * a processor's; where half of one is four stages and more, in clusters so much as fits beside
 * STREAM_WIDE, since their blocks begin together or not at all. Others have a whole one there too,
 * as was measured; with STREAM_WIDE they would begin beside the kernel in front and leave room for
 * the one behind (NOTES-skinny.md, Next). */
#ifndef SKINNY_ROOM_ALONE
#define SKINNY_ROOM_ALONE (226 << 10)
#endif
#define SKINNY_ROOM_CLUSTER ((112 << 10) + 512)
#define SKINNY_SHARED_90(m, tiles, k, wide)                                                        \
    (SKINNY_STAGE(m, wide) > 28 << 10  ? 226 << 10                                                 \
     : SKINNY_SPLITS_90(tiles, k) == 1 ? SKINNY_ROOM_ALONE                                         \
                                       : SKINNY_ROOM_CLUSTER)
#define SKINNY_STAGES_90(m, tiles, k, wide)                                                        \
    ((SKINNY_SHARED_90(m, tiles, k, wide) - 16) / (SKINNY_STAGE(m, wide) + 16))
/* Rows of a tile, by bytes that the busiest processor copies, which L2 gives at least 69 KB a us:
 * its weights and the x beside them; or, if that is longer, the time of all weights from memory, 32
 * KB a us. Where columns are split, also the sums, and 2.5 us in which they are exchanged.
 * 128 only where a thread has room for as many sums (above 192 rows 96 registers, beside
 * which others' sums would find none). Where shapes are read at run time the caller says
 * SKINNY_WIDE. */
#define SKINNY_COPIED(m, tiles, k, wide)                                                           \
    (CEIL_DIV((tiles)*SKINNY_SPLITS_90(tiles, k), CUDA_SMS) *                                      \
     CEIL_DIV(CEIL_DIV(k, 64), SKINNY_SPLITS_90(tiles, k)) * SKINNY_STAGE(m, wide))
#define SKINNY_COST_OF(m, n, tiles, k, wide)                                                       \
    (GREATER(SKINNY_COPIED(m, tiles, k, wide), CEIL_DIV(n, CUDA_SMS) * (k) / 5 * 22) +             \
     SKINNY_COPIED(m, tiles, k, wide) / 8 +                                                        \
     (SKINNY_SPLITS_90(tiles, k) > 1                                                               \
          ? (wide)*SKINNY_X(m) * (4 + 2 * SKINNY_SPLITS_90(tiles, k)) + 175000                     \
          : 0))
#define SKINNY_COST(m, n, k, wide) SKINNY_COST_OF(m, n, CEIL_DIV(n, wide), k, wide)
#define SKINNY_BETTER(m, n, k, a, b) (SKINNY_COST(m, n, k, a) <= SKINNY_COST(m, n, k, b))
#define SKINNY_ROOM_128(m, n, k) ((m) <= 192 || SKINNY_SPLITS_90(CEIL_DIV(n, 128), k) == 1)
#define SKINNY_BEST_WIDE(m, n, k)                                                                  \
    (SKINNY_ROOM_128(m, n, k) && SKINNY_BETTER(m, n, k, 128, 96) &&                                \
             SKINNY_BETTER(m, n, k, 128, 64)                                                       \
         ? 128                                                                                     \
     : SKINNY_BETTER(m, n, k, 96, 64) ? 96                                                         \
                                      : 64)
#ifndef SKINNY_WIDE
#define SKINNY_WIDE(m, n, k) SKINNY_BEST_WIDE(m, n, k)
#endif
#define SKINNY_TILES(m, n, k) CEIL_DIV(n, SKINNY_WIDE(m, n, k))

/* qkv's tiles are whole heads, each half of one a box: a thread has both elements that are rotated
 * together. */
#define SKINNY_QKV_WGMMA(m) (CUDA_ARCH == 90 && HEAD_DIM <= ((m) <= 192 ? 128 : 96))
#define SKINNY_HALF ROUND_UP(HEAD_DIM / 2, 8)
#define SKINNY_QKV_HEADS(m) GREATER(1, ((m) <= 64 || (m) > 192 ? 32 : 64) / SKINNY_HALF)
#define SKINNY_QKV_WIDE(m) (SKINNY_QKV_HEADS(m) * 2 * SKINNY_HALF)
#define SKINNY_QKV_TILES(m, n) CEIL_DIV((n) / HEAD_DIM, SKINNY_QKV_HEADS(m))

/* `on` says which of the two. */
#define SKINNY_LAUNCH(on, m, n, k, tiles, wide)                                                    \
    {(on) ? LESSER(CUDA_SMS, tiles) : SKINNY_BLOCKS(n, k),                                         \
     (on) ? SKINNY_SPLITS_90(tiles, k) : SKINNY_SPLITS(n, k), CEIL_DIV(m, SKINNY_ROWS),            \
     (on) ? SKINNY_SPLITS_90(tiles, k) : 0},                                                       \
        (on) ? SKINNY_THREADS_90(m) : SKINNY_THREADS,                                              \
        (on) ? SKINNY_SHARED_90(m, tiles, k, wide) : SKINNY_SHARED(m)
#define SKINNY_SUMS(on, m, n, k) ((on) ? (size_t)0 : SKINNY_PARTIAL(m, n, k))
/* Pass 1, of those that begin with a norm, leaves x in scratch, in front of sums; on wgmma there is
 * no such pass: the kernel in front has left it. */
#define SKINNY_NORM_LAUNCH(on, m)                                                                  \
    {(on) ? 0 : (m), 1, 1}, (on) ? 0 : SKINNY_THREADS, (on) ? 0 : SKINNY_THREADS / 32 * 4
#define SKINNY_NORMED(on, m, k) ((on) ? (size_t)0 : (size_t)(m) * (k)*2)
#define SKINNY_PLAIN(m, n, k) SKINNY_WGMMA, m, n, k, SKINNY_TILES(m, n, k), SKINNY_WIDE(m, n, k)
#define SKINNY_HEADS(m, n, k)                                                                      \
    SKINNY_QKV_WGMMA(m), m, n, k, SKINNY_QKV_TILES(m, n), SKINNY_QKV_WIDE(m)
#define SKINNY_CALL(what, ...) what(__VA_ARGS__)

#define SKINNY_QKV_LAUNCH(m, n, k) SKINNY_NORM_LAUNCH(SKINNY_QKV_WGMMA(m), m)
#define SKINNY_QKV_LAUNCH_2(m, n, k) SKINNY_CALL(SKINNY_LAUNCH, SKINNY_HEADS(m, n, k))
#define SKINNY_QKV_SCRATCH(m, n, k)                                                                \
    (SKINNY_NORMED(SKINNY_QKV_WGMMA(m), m, k) + SKINNY_SUMS(SKINNY_QKV_WGMMA(m), m, n, k))
#define SKINNY_QKV_MAPS(m, n, k)                                                                   \
    {                                                                                              \
        SKINNY_QKV_WGMMA(m),                                                                       \
        {                                                                                          \
            MATRIX_MAP(3, n, k, SKINNY_HALF)                                                       \
        }                                                                                          \
    }
#define SKINNY_GATE_UP_LAUNCH(m, n, k) SKINNY_NORM_LAUNCH(SKINNY_WGMMA, m)
#define SKINNY_GATE_UP_LAUNCH_2(m, n, k) SKINNY_CALL(SKINNY_LAUNCH, SKINNY_PLAIN(m, n, k))
#define SKINNY_GATE_UP_SCRATCH(m, n, k)                                                            \
    (SKINNY_NORMED(SKINNY_WGMMA, m, k) + SKINNY_SUMS(SKINNY_WGMMA, m, n, k))
#define SKINNY_GATE_UP_MAPS(m, n, k)                                                               \
    {                                                                                              \
        SKINNY_WGMMA,                                                                              \
        {                                                                                          \
            MATRIX_MAP(2, n, k, SKINNY_WIDE(m, n, k) / 2)                                          \
        }                                                                                          \
    }
#define SKINNY_HEAD_LAUNCH(m, n, k) SKINNY_NORM_LAUNCH(SKINNY_WGMMA, m)
#define SKINNY_HEAD_LAUNCH_2(m, n, k) SKINNY_CALL(SKINNY_LAUNCH, SKINNY_PLAIN(m, n, k))
#define SKINNY_HEAD_SCRATCH(m, n, k) SKINNY_GATE_UP_SCRATCH(m, n, k)
#define SKINNY_HEAD_MAPS(m, n, k)                                                                  \
    {                                                                                              \
        SKINNY_WGMMA,                                                                              \
        {                                                                                          \
            MATRIX_MAP(2, n, k, SKINNY_WIDE(m, n, k))                                              \
        }                                                                                          \
    }
#define SKINNY_RESIDUAL_LAUNCH(m, n, k) SKINNY_CALL(SKINNY_LAUNCH, SKINNY_PLAIN(m, n, k))
#define SKINNY_RESIDUAL_SCRATCH(m, n, k) SKINNY_SUMS(SKINNY_WGMMA, m, n, k)
#define SKINNY_RESIDUAL_MAPS(m, n, k)                                                              \
    {                                                                                              \
        SKINNY_WGMMA * 2,                                                                          \
        {                                                                                          \
            MATRIX_MAP(1, m, k, SKINNY_X(m)), MATRIX_MAP(2, n, k, SKINNY_WIDE(m, n, k))            \
        }                                                                                          \
    }

/* Sampling: pass 1 a block a chunk of logits, pass 2 a block a row. */
enum { SAMPLE_CHUNK = 1024, SAMPLE_THREADS = 256, SAMPLE_LIST = 2048 };
#define SAMPLE_LAUNCH(m, n, k)                                                                     \
    {CEIL_DIV(n, SAMPLE_CHUNK), (m), 1}, SAMPLE_THREADS, SAMPLE_CHUNK * 8 + SAMPLE_THREADS / 32 * 8
#define SAMPLE_LAUNCH_2(m, n, k)                                                                   \
    {(m), 1, 1}, SAMPLE_THREADS,                                                                   \
        SAMPLE_LIST * 8 + SAMPLE_THREADS / 32 * 8 + 16 * CEIL_DIV(n, SAMPLE_CHUNK) + 16
#define SAMPLE_SCRATCH(m, n, k)                                                                    \
    ((size_t)(m)*CEIL_DIV(n, SAMPLE_CHUNK) * (8 + 10 * SAMPLE_CHUNK) + 16)

#endif

/* product_mma.h - the products of product.h on mma.sync: one tile a block. */
#define PRODUCT_I 4
#define PRODUCT_J 8
#define PRODUCT_STRIDE(across) ((across) ? TILE_STRIDE(128) : TILE_STRIDE(PRODUCT_DEPTH))
#define PRODUCT_SIZE(across) (((across) ? PRODUCT_DEPTH : 128) * PRODUCT_STRIDE(across))

struct product {
    struct product_operand a, b;
    const float *old;  /* not asked for ahead */
    const u32 *wanted; /* 0, or of each 32 rows of C: 0 where they do not want their tile made */
    u32 columns;       /* of a tile: 128 */
    bf16 *ring;
    u32 row, column; /* corner of the tile */
};

DEVICE void product_start(struct product *p, u32 columns, u8 *arena)
{
    p->wanted = 0;
    p->columns = columns;
    p->ring = (bf16 *)(void *)arena;
}

DEVICE u32 product_feed(struct product *p)
{
    (void)p;
    return 0;
}

DEVICE u32 product_row(const struct product *p)
{
    return p->row + threadIdx.x / WARP / 2 * 64;
}

DEVICE u32 product_column(const struct product *p)
{
    return p->column + threadIdx.x / WARP % 2 * 64;
}

DEVICE u32 product_pieces(const struct product *p)
{
    (void)p;
    return PRODUCT_J;
}

/* The row that stands at place x of an operand that is stored along; `side` or more: none. */
DEVICE u32 product_place(const struct product_operand *o, u32 x)
{
    const u32 half = PRODUCT_J * 4, c = x / (2 * half) * half + x % half;
    if (!o->paired)
        return x;
    return c >= o->paired ? o->side : x % (2 * half) < half ? c : o->paired + c;
}

/* Starts the copy of the operand's tile at depth k, `first` of its side; what lies outside becomes
 * 0. */
DEVICE void product_copy(bf16 *tile, const struct product_operand *o, u32 first, u32 k)
{
    const u32 across = o->across, pieces = (across ? 128 : PRODUCT_DEPTH) / 8;
    const u32 rows = across ? o->depth : o->side, columns = across ? o->side : o->depth;
    const u32 row0 = across ? k : first, column0 = across ? first : k;
    const u32 r = threadIdx.x / pieces, c = threadIdx.x % pieces * 8;
    UNROLL
    for (u32 i = 0; i < 128 * PRODUCT_DEPTH / 8 / PRODUCT_THREADS; i++) {
        const u32 y = r + i * (PRODUCT_THREADS / pieces);
        const u32 from = across ? row0 + y : product_place(o, row0 + y);
        const u32 inside = from < rows && column0 + c < columns;
        copy_async_16_part(tile + y * PRODUCT_STRIDE(across) + c,
                           inside ? o->at + from * o->row + column0 + c : o->at, inside ? 16 : 0);
    }
}

/* The warp's 64 x 64: sums += the product of two tiles, a and b at the warp's rows and columns. */
DEVICE void product_multiply(float sums[PRODUCT_I][PRODUCT_J][4], const bf16 *a, const bf16 *b,
                             u32 a_across, u32 b_across)
{
    const u32 a_row = PRODUCT_STRIDE(a_across), b_row = PRODUCT_STRIDE(b_across);
    const struct tile_lane a_lane = tile_lane_of(a_row), b_lane = tile_lane_of(b_row);
    UNROLL
    for (u32 k = 0; k < PRODUCT_DEPTH; k += 16) {
        u32 rows[4][4], columns[4][4];
        UNROLL
        for (u32 i = 0; i < 4; i++) {
            if (a_across)
                ldmatrix_x4_trans(rows[i], a + a_lane.columns + (k * a_row + i * 16));
            else
                ldmatrix_x4(rows[i], a + a_lane.rows + (i * 16 * a_row + k));
            if (b_across)
                ldmatrix_x4_trans(columns[i], b + b_lane.rows + (k * b_row + i * 16));
            else
                ldmatrix_x4(columns[i], b + b_lane.columns + (i * 16 * b_row + k));
        }
        UNROLL
        for (u32 i = 0; i < PRODUCT_I; i++)
            UNROLL
        for (u32 j = 0; j < PRODUCT_J; j++)
            mma_m16n8k16_bf16(sums[i][j], rows[i], &columns[j / 2][j % 2 * 2]);
    }
}

/* The warp's part of a tile of C. With `column`, adds to it the sum over the depth of row
 * number threadIdx.x of the tile of A, which must be stored across. */
DEVICE void product_tile(struct product *p, u32 tile, float sums[PRODUCT_I][PRODUCT_J][4],
                         float *column)
{
    const u32 a_across = p->a.across, b_across = p->b.across;
    const u32 a_size = PRODUCT_SIZE(a_across), stage = a_size + PRODUCT_SIZE(b_across);
    const u32 steps = DIV_UP(p->a.depth, PRODUCT_DEPTH);
    product_corner(tile, p->a.side, p->b.side, p->columns, &p->row, &p->column);
    const u32 a_at = (product_row(p) - p->row) * (a_across ? 1 : PRODUCT_STRIDE(0));
    const u32 b_at = (product_column(p) - p->column) * (b_across ? 1 : PRODUCT_STRIDE(0));
    UNROLL
    for (u32 i = 0; i < PRODUCT_I * PRODUCT_J * 4; i++)
        sums[i / 4 / PRODUCT_J][i / 4 % PRODUCT_J][i % 4] = 0.0f;
    block_sync(); /* the ring is free */
    UNROLL
    for (u32 s = 0; s < PRODUCT_STAGES(128) - 1; s++) {
        if (s < steps) {
            product_copy(p->ring + s * stage, &p->a, p->row, s * PRODUCT_DEPTH);
            product_copy(p->ring + s * stage + a_size, &p->b, p->column, s * PRODUCT_DEPTH);
        }
        copy_async_commit();
    }
    u32 read = 0, fill = PRODUCT_STAGES(128) - 1;
    for (u32 s = 0; s < steps; s++) {
        copy_async_wait(PRODUCT_STAGES(128) - 2);
        block_sync();
        if (s + PRODUCT_STAGES(128) - 1 < steps) {
            const u32 k = (s + PRODUCT_STAGES(128) - 1) * PRODUCT_DEPTH;
            product_copy(p->ring + fill * stage, &p->a, p->row, k);
            product_copy(p->ring + fill * stage + a_size, &p->b, p->column, k);
        }
        copy_async_commit();
        const bf16 *a = p->ring + read * stage;
        product_multiply(sums, a + a_at, a + a_size + b_at, a_across, b_across);
        if (column)
            for (u32 k = 0; k < PRODUCT_DEPTH; k++)
                *column += f32_from_bf16(a[k * PRODUCT_STRIDE(1) + threadIdx.x]);
        fill = read;
        read = read + 1 == PRODUCT_STAGES(128) ? 0 : read + 1;
    }
    copy_async_wait(0);
}

/* Which row of C, from the tile's corner, this thread has the column sum of; any other: none. */
DEVICE u32 product_column_row(void)
{
    return threadIdx.x;
}

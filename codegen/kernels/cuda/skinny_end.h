/* skinny_end.h - forgets the macros of skinny_product.h and of the kernel file. */
#undef PART
#undef BLOCK_ROWS
#undef BLOCKS
#undef SPLITS
#undef DEPTH
#undef STAGES
#undef STRIDE
#undef SPLIT_K
#undef WARP_X
#undef TILE_X
#undef STAGE
#undef PIECES
#undef SWEEP
#undef KERNEL
#undef DM_M
#undef DM_N
#undef DM_K

/* attention_end.h - undefines what attention_tile.h defined for one instance. */
#undef PART
#undef TILE_KEYS
#undef TILE_ROWS
#undef THREADS
#undef PIECES
#undef RUN
#undef KEY_SOURCE
#undef SCORE_FACTOR

/* skinny_attention.cu - decode_attention.cu for 9 rows and more: the same kernel. Its group of
 * query heads is on the rows of the matrix instruction at any number of rows, and its bytes are the
 * floor; what differs is KEYS_SPLITS, by which blocks are many and short enough to even out rows of
 * different length. */
#include "decode_attention.cu"

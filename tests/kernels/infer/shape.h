/* shape.h - of infer_test.c: constants from the command line, or variables for the generic build.
 */
#ifndef SHAPE_H
#define SHAPE_H

#ifndef D_MODEL
struct shape {
    const char *name;
    int d_model, heads, kv_heads, head_dim, d_ff, vocab, context;
};
extern struct shape shape;
#define D_MODEL (shape.d_model)
#define HEADS (shape.heads)
#define KV_HEADS (shape.kv_heads)
#define HEAD_DIM (shape.head_dim)
#define D_FF (shape.d_ff)
#define VOCAB (shape.vocab)
#define CONTEXT (shape.context)
#define GENERIC 1
#else
#define GENERIC 0
#endif

#define DQ (HEADS * HEAD_DIM)
#define DKV (KV_HEADS * HEAD_DIM)
#define QKV (DQ + 2 * DKV)
#ifndef CHUNK
#define CHUNK 64
#endif
#define EPSILON 1e-5f
#define ROW_GRANULE 1

#endif

/* data.h - the training and validation data as one long row of tokens.
 *
 * Files are read in the order given. Plain text under the byte-level vocabulary and token shards
 * are mapped, never read whole. Compressed text and JSONL become tokens in a store (store.h). A
 * file of text is one document, a line of JSONL is one; behind each stands the separator, where the
 * vocabulary has one, or a newline behind JSONL documents, where it has not. */
#ifndef DATA_H
#define DATA_H

#include "options.h"
#include "shard.h"
#include "store.h"
#include "tokenizer.h"

struct segment {
    uint64_t begin, count; /* tokens, in the row */
    enum { SEGMENT_BYTES, SEGMENT_STORE, SEGMENT_SHARD } kind;
    const unsigned char *text; /* SEGMENT_BYTES: mapped */
    size_t bytes;              /* of it; count is one more where a separator follows */
    uint64_t stored;           /* SEGMENT_STORE: its first token's place in the store */
    struct shard shard;
};

struct data {
    struct segment *segment;
    int n;
    uint64_t tokens;
    uint64_t documents;
    struct store store;         /* of all segments that are not mapped */
    const void *stored;         /* its tokens */
    int vocab;                  /* of the model: every token is below it */
    struct tokenizer tokenizer; /* .name NULL: only shards, of a vocabulary not known here */
    bool byte_level;            /* every token's number of bytes is known: 1, separators 0 */
};

/* Opens all files. tokenizer: NULL or --tokenizer's value. The kind of a file is told by its first
 * bytes (gzip, zstd, shards) and by its name (.jsonl or .ndjson, also with .gz or .zst behind). */
bool data_open(struct data *d, const struct texts *files, const struct archrt_model *m,
               const char *tokenizer, struct failure *f);
void data_close(struct data *d);
/* Tokens at..at + n, which exist. */
bool data_read(struct data *d, uint64_t at, size_t n, int32_t *out, struct failure *f);
/* A number that tells other data from this: of the count and of tokens read at 64 places. Not of
 * names, places or compression. */
bool data_fingerprint(struct data *d, uint64_t *out, struct failure *f);
/* Bytes of text that tokens stand for; -1 where it is not known. */
int64_t data_bytes(const struct data *d, const int32_t *id, size_t n);

/* ---- windows: which part of the row a training sample is
 * ----------------------------------------- */

/* Samples 0, 1, 2, .. of training: each epoch cuts [begin, begin + tokens) into windows of `length`
 * tokens (and one target more) at a shift of its own, and visits them in an order of its own. All
 * of it follows from the seed and the sample's number, so that a run resumes by the number alone.
 */
struct windows {
    uint64_t begin, tokens;
    int length;
    uint64_t seed;
};
uint64_t windows_per_epoch(const struct windows *w); /* 0: fewer than length + 1 tokens */
/* Where sample k starts: length + 1 tokens follow. */
uint64_t window_start(const struct windows *w, uint64_t k);

#endif

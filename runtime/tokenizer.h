/* tokenizer.h - text to token ids and back. Byte level today; other vocabularies implement the same
 * struct. */
#ifndef TOKENIZER_H
#define TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime.h"

struct tokenizer {
    const char *name; /* "bytes": recorded in checkpoints, compared on resume */
    int vocab;        /* ids are below it */
    int separator;    /* id put behind each document, or -1: the vocabulary has none */
    /* Most ids that `length` bytes can become: the room `encode` needs. */
    size_t (*bound)(const struct tokenizer *t, size_t length);
    /* Ids of the text into `id`; returns how many. Every byte string can be encoded. */
    size_t (*encode)(const struct tokenizer *t, const char *text, size_t length, int32_t *id);
    /* The bytes of one id, not terminated; 0 for a separator or an id without text. `out` has room
     * for `longest` bytes. */
    size_t (*decode)(const struct tokenizer *t, int32_t id, char *out);
    size_t longest;
    void (*free)(struct tokenizer *t);
    void *data;
};

/* Byte level: id = byte; 256, where the vocabulary has it, is the document separator. `file` is
 * NULL or a tokenizer.json. Fails where vocab < 256 or the file is of a kind not known. */
bool tokenizer_open(struct tokenizer *t, const struct archrt_model *m, const char *file,
                    struct failure *f);
void tokenizer_close(struct tokenizer *t);

#endif

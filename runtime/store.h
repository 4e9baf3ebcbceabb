/* store.h - tokens in the order they come, as narrow as the vocabulary allows. Up to 64 MiB stay in
 * memory; more go to an unnamed temporary file (in $TMPDIR or /tmp) that is mapped, so that the
 * system decides what of it stays in memory. */
#ifndef STORE_H
#define STORE_H

#include "runtime.h"

struct store {
    int width; /* bytes a token: 1, 2 or 4 */
    unsigned char *buffer;
    size_t used; /* bytes in the buffer */
    int fd;      /* -1: all in the buffer */
    uint64_t spilled;
    const void *mapping; /* of the file, once finished */
};

void store_open(struct store *s, int vocab);
bool store_add(struct store *s, const int32_t *id, size_t n, struct failure *f);
uint64_t store_count(const struct store *s);
/* No more will come: *tokens, which live until store_close. */
bool store_finish(struct store *s, const void **tokens, struct failure *f);
void store_close(struct store *s);

#endif

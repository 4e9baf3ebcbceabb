/* store.c - tokens in the order they come: in memory first, in an unnamed file beyond that. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "files.h"
#include "store.h"

enum { BUFFER = 64 << 20 };

void store_open(struct store *s, int vocab)
{
    *s = (struct store){.width = vocab <= 256 ? 1 : vocab <= 65536 ? 2 : 4, .fd = -1};
    s->buffer = need(malloc(BUFFER));
}

static bool open_file(struct store *s, struct failure *f)
{
    const char *where = getenv("TMPDIR");
    char *path = path_printf("%s/tokens-XXXXXX", where && *where ? where : "/tmp");
    s->fd = mkstemp(path);
    bool good = s->fd >= 0 && unlink(path) == 0;
    if (!good)
        failed(f, STATUS_WORLD, "cannot write %s: %s: set TMPDIR to a directory with space", path,
               strerror(errno));
    free(path);
    return good;
}

static bool spill(struct store *s, struct failure *f)
{
    if (s->fd < 0 && !open_file(s, f))
        return false;
    for (size_t at = 0; at < s->used;) {
        ssize_t k = write(s->fd, s->buffer + at, s->used - at);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return failed(
                f, STATUS_WORLD,
                "cannot keep the tokens of the data in a temporary file: %s: set TMPDIR to "
                "a directory with space, or train from token shards",
                strerror(errno));
        at += (size_t)k;
    }
    s->spilled += s->used;
    s->used = 0;
    return true;
}

static void narrow(unsigned char *to, int width, const int32_t *id, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t x = (uint32_t)id[i];
        uint16_t half = (uint16_t)x;
        if (width == 1)
            to[i] = (unsigned char)x;
        else if (width == 2)
            memcpy(to + 2 * i, &half, 2);
        else
            memcpy(to + 4 * i, &x, 4);
    }
}

bool store_add(struct store *s, const int32_t *id, size_t n, struct failure *f)
{
    while (n > 0) {
        size_t room = (BUFFER - s->used) / (size_t)s->width, part = n < room ? n : room;
        narrow(s->buffer + s->used, s->width, id, part);
        s->used += part * (size_t)s->width;
        id += part;
        n -= part;
        if (part == room && !spill(s, f))
            return false;
    }
    return true;
}

uint64_t store_count(const struct store *s)
{
    return (s->spilled + s->used) / (uint64_t)s->width;
}

bool store_finish(struct store *s, const void **tokens, struct failure *f)
{
    if (s->fd < 0) {
        *tokens = s->buffer = need(realloc(s->buffer, s->used ? s->used : 1));
        return true;
    }
    if (!spill(s, f))
        return false;
    void *at = mmap(NULL, s->spilled, PROT_READ, MAP_SHARED, s->fd, 0);
    if (at == MAP_FAILED)
        return failed(f, STATUS_WORLD, "cannot map the temporary file of tokens: %s",
                      strerror(errno));
    free(s->buffer);
    s->buffer = NULL;
    *tokens = s->mapping = at;
    return true;
}

void store_close(struct store *s)
{
    if (s->mapping)
        munmap((void *)(uintptr_t)s->mapping, s->spilled);
    if (s->fd >= 0)
        close(s->fd);
    free(s->buffer);
    *s = (struct store){.fd = -1};
}

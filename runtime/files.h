/* files.h - files that are read whole or not at all, and written whole or not at all. */
#ifndef FILES_H
#define FILES_H

#include <sys/types.h>

#include "runtime.h"

/* A path by format, in malloc'ed memory. */
char *path_printf(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Buffered output into a new file (truncated if there). After a failure every call is a no-op that
 * returns false; writer_close reports it, removes the file and releases all. */
struct writer {
    int fd;
    char *path;
    unsigned char *buffer;
    size_t used;
    bool broken;
    struct failure failure;
};
bool writer_open(struct writer *w, const char *path, struct failure *f);
bool writer_put(struct writer *w, const void *data, size_t n);
/* Overwrites what was put earlier at an offset. */
bool writer_put_at(struct writer *w, const void *data, size_t n, off_t offset);
/* Flushes, reaches the disk (fsync), closes. */
bool writer_close(struct writer *w, struct failure *f);
/* Gives up: closes and removes. */
void writer_abandon(struct writer *w);

/* Writes PATH.partial, then renames it to PATH. */
bool file_replace(const char *path, const void *data, size_t n, struct failure *f);
/* The whole file, NUL terminated, in malloc'ed memory; fails beyond `limit` bytes. */
char *file_read(const char *path, size_t limit, size_t *n, struct failure *f);
/* Reads exactly n bytes at an offset; a file that ends earlier is STATUS_INPUT. */
bool file_read_at(int fd, const char *path, void *data, size_t n, uint64_t offset,
                  struct failure *f);
/* Opens a regular file for reading and tells its size. -1 and `f`: it cannot. */
int file_open(const char *path, uint64_t *size, struct failure *f);

bool path_exists(const char *path);
bool directory_make(const char *path, struct failure *f); /* with its parents */
bool directory_sync(const char *path, struct failure *f); /* renames in it reach the disk */
bool tree_remove(const char *path, struct failure *f);    /* absent is fine */

#endif

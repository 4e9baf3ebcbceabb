/* stream.h - the bytes of a file, decompressed as they are read. Memory is bounded whatever the
 * file's size. */
#ifndef STREAM_H
#define STREAM_H

#include "runtime.h"

enum { STREAM_PEEK = 16 };

struct stream {
    char *path;
    int fd;
    enum { STREAM_PLAIN, STREAM_GZIP, STREAM_ZSTD } kind;
    unsigned char *input; /* what was read and not yet used: [at, end) */
    size_t at, end;
    bool file_ended;
    void *decoder;
    bool frame_ended; /* the compressed data may end here */
};

/* Opens a file or a pipe; "-" is standard input. The kind is told by the first bytes. */
bool stream_open(struct stream *s, const char *path, struct failure *f);
/* Up to n bytes; *got = 0 at the end. Damaged or cut compressed data is an error. */
bool stream_read(struct stream *s, void *out, size_t n, size_t *got, struct failure *f);
void stream_close(struct stream *s);

/* Lines of a stream, without their newline; a last one without newline counts. */
struct lines {
    struct stream *stream;
    char *buffer;
    size_t at, end, capacity;
    long number; /* of the line last returned, from 1 */
    bool whole;  /* the line last returned ended in a newline */
    bool ended;
};
void lines_open(struct lines *l, struct stream *s);
/* *line = NULL at the end. The text is good until the next call and NUL terminated. */
bool lines_next(struct lines *l, char **line, size_t *n, struct failure *f);
void lines_close(struct lines *l);

#endif

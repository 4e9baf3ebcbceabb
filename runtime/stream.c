/* stream.c - the bytes of a file, decompressed as they are read. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "files.h"
#include "stream.h"

enum { INPUT = 1 << 17, LINE_MAX_BYTES = 1 << 28 };

/* Keeps what is unused and reads more behind it. */
static bool refill(struct stream *s, struct failure *f)
{
    memmove(s->input, s->input + s->at, s->end - s->at);
    s->end -= s->at;
    s->at = 0;
    while (!s->file_ended && s->end < STREAM_PEEK) {
        ssize_t k = read(s->fd, s->input + s->end, INPUT - s->end);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return failed_file(f, "read", s->path);
        s->file_ended = k == 0;
        s->end += (size_t)k;
    }
    return true;
}

static bool start_decoder(struct stream *s, struct failure *f)
{
    const unsigned char *b = s->input;
    if (s->end >= 2 && b[0] == 0x1f && b[1] == 0x8b) {
        z_stream *z = need(calloc(1, sizeof *z));
        s->kind = STREAM_GZIP;
        s->decoder = z;
        return inflateInit2(z, 15 + 16) == Z_OK || failed(f, STATUS_WORLD, "no memory for zlib");
    }
    if (s->end >= 4 && b[0] == 0x28 && b[1] == 0xb5 && b[2] == 0x2f && b[3] == 0xfd) {
        s->kind = STREAM_ZSTD;
        s->decoder = need(ZSTD_createDCtx());
    }
    return true;
}

bool stream_open(struct stream *s, const char *path, struct failure *f)
{
    struct stat st;
    *s = (struct stream){.fd = -1, .kind = STREAM_PLAIN};
    s->path = path_printf("%s", strcmp(path, "-") == 0 ? "standard input" : path);
    s->fd = strcmp(path, "-") == 0 ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
    s->input = need(malloc(INPUT));
    bool good = s->fd >= 0 && fstat(s->fd, &st) == 0;
    if (!good)
        failed_file(f, "read", s->path);
    else if (S_ISDIR(st.st_mode))
        good = failed(f, STATUS_INPUT, "cannot read %s: it is a directory: give files", path);
    if (good && refill(s, f) && start_decoder(s, f))
        return true;
    stream_close(s);
    return false;
}

static bool damaged(const struct stream *s, const char *what, struct failure *f)
{
    return failed(f, STATUS_INPUT, "%s: the compressed data %s: make or download it again", s->path,
                  what);
}

/* One step of inflate; members may follow one another. */
static bool step_gzip(struct stream *s, unsigned char *out, size_t n, size_t *got,
                      struct failure *f)
{
    z_stream *z = s->decoder;
    if (s->frame_ended) {
        if (inflateReset(z) != Z_OK)
            return damaged(s, "is damaged", f);
        s->frame_ended = false;
    }
    z->next_in = s->input + s->at;
    z->avail_in = (uInt)(s->end - s->at);
    z->next_out = out;
    z->avail_out = (uInt)n;
    int result = inflate(z, Z_NO_FLUSH);
    s->at = s->end - z->avail_in;
    *got = n - z->avail_out;
    s->frame_ended = result == Z_STREAM_END;
    if (result == Z_MEM_ERROR)
        return failed(f, STATUS_WORLD, "no memory to decompress %s: free some", s->path);
    return result == Z_OK || result == Z_STREAM_END || result == Z_BUF_ERROR ||
           damaged(s, "is damaged", f);
}

static bool step_zstd(struct stream *s, unsigned char *out, size_t n, size_t *got,
                      struct failure *f)
{
    ZSTD_inBuffer in = {s->input, s->end, s->at};
    ZSTD_outBuffer to = {out, n, 0};
    size_t result = ZSTD_decompressStream(s->decoder, &to, &in);
    if (ZSTD_isError(result))
        return failed(f, STATUS_INPUT, "%s: the compressed data is damaged (%s): make it again",
                      s->path, ZSTD_getErrorName(result));
    s->at = in.pos;
    *got = to.pos;
    s->frame_ended = result == 0;
    return true;
}

static bool read_compressed(struct stream *s, unsigned char *out, size_t n, size_t *got,
                            struct failure *f)
{
    size_t limit = n < 1u << 30 ? n : 1u << 30;
    while (*got == 0) {
        if (s->at == s->end && !refill(s, f))
            return false;
        if (s->at == s->end && s->frame_ended)
            return true;
        bool starved = s->at == s->end;
        size_t before = s->at;
        if (!(s->kind == STREAM_GZIP ? step_gzip : step_zstd)(s, out, limit, got, f))
            return false;
        if (starved && *got == 0 && s->at == before && !s->frame_ended)
            return damaged(s, "ends early", f);
    }
    return true;
}

bool stream_read(struct stream *s, void *out, size_t n, size_t *got, struct failure *f)
{
    *got = 0;
    if (n == 0)
        return true;
    if (s->kind != STREAM_PLAIN)
        return read_compressed(s, out, n, got, f);
    if (s->at == s->end && !refill(s, f))
        return false;
    *got = s->end - s->at < n ? s->end - s->at : n;
    memcpy(out, s->input + s->at, *got);
    s->at += *got;
    return true;
}

void stream_close(struct stream *s)
{
    if (s->kind == STREAM_GZIP && s->decoder) {
        inflateEnd(s->decoder);
        free(s->decoder);
    } else if (s->decoder) {
        ZSTD_freeDCtx(s->decoder);
    }
    if (s->fd >= 0)
        close(s->fd);
    free(s->input);
    free(s->path);
    *s = (struct stream){.fd = -1};
}

void lines_open(struct lines *l, struct stream *s)
{
    *l = (struct lines){.stream = s, .capacity = 1 << 16};
    l->buffer = need(malloc(l->capacity + 1));
}

static bool lines_fill(struct lines *l, struct failure *f)
{
    if (l->at > 0) {
        memmove(l->buffer, l->buffer + l->at, l->end - l->at);
        l->end -= l->at;
        l->at = 0;
    }
    if (l->end == l->capacity) {
        if (l->capacity >= LINE_MAX_BYTES)
            return failed(f, STATUS_INPUT,
                          "%s:%ld: a line longer than 256 MiB: is it one JSON object a line?",
                          l->stream->path, l->number + 1);
        l->capacity *= 2;
        l->buffer = need(realloc(l->buffer, l->capacity + 1));
    }
    size_t got;
    if (!stream_read(l->stream, l->buffer + l->end, l->capacity - l->end, &got, f))
        return false;
    l->ended = got == 0;
    l->end += got;
    return true;
}

bool lines_next(struct lines *l, char **line, size_t *n, struct failure *f)
{
    size_t seen = 0;
    *line = NULL;
    *n = 0;
    for (;;) {
        char *from = l->buffer + l->at;
        char *newline = memchr(from + seen, '\n', l->end - l->at - seen);
        seen = l->end - l->at;
        if (newline || (l->ended && seen > 0)) {
            *line = from;
            *n = newline ? (size_t)(newline - from) : seen;
            l->at += *n + (newline != NULL);
            from[*n] = '\0';
            l->whole = newline != NULL;
            l->number++;
            return true;
        }
        if (l->ended)
            return true;
        if (!lines_fill(l, f))
            return false;
    }
}

void lines_close(struct lines *l)
{
    free(l->buffer);
    l->buffer = NULL;
}

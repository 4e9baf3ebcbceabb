/* shard.c - files of token ids, mapped and checked where they are read. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

#include "files.h"
#include "shard.h"

enum { HEADER = 64, BLOCK = 65536, LLMC_HEADER = 1024 };
static const char magic[8] = {'a', 'r', 'c', 'h', 't', 'o', 'k', '\n'};

static uint32_t get32(const unsigned char *b)
{
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static uint64_t get64(const unsigned char *b)
{
    return (uint64_t)get32(b) | (uint64_t)get32(b + 4) << 32;
}

static void put32(unsigned char *b, uint32_t x)
{
    for (int i = 0; i < 4; i++)
        b[i] = (unsigned char)(x >> (8 * i));
}

static uint32_t crc(const void *data, size_t n)
{
    return (uint32_t)crc32_z(0, data, n);
}

static bool llmc_magic(const unsigned char *b)
{
    return get32(b) == 20240520 || get32(b) == 20240801;
}

bool shard_magic(const void *start, size_t n)
{
    return (n >= 8 && memcmp(start, magic, 8) == 0) || (n >= 4 && llmc_magic(start));
}

static bool bad(const struct shard *s, const char *what, struct failure *f)
{
    return failed(f, STATUS_INPUT, "%s is not a valid token shard: %s: write it again", s->path,
                  what);
}

static size_t blocks_of(uint64_t count, int width)
{
    return (size_t)((count * (uint64_t)width + BLOCK - 1) / BLOCK);
}

static bool parse_own(struct shard *s, struct failure *f)
{
    const unsigned char *h = s->file;
    if (s->file_bytes < HEADER)
        return bad(s, "it is shorter than its header", f);
    if (get32(h + 60) != crc(h, 60))
        return bad(s, "its header is damaged", f);
    if (get32(h + 8) != 1)
        return failed(f, STATUS_INPUT, "%s is a token shard of version %u; this program reads 1",
                      s->path, get32(h + 8));
    s->vocab = get32(h + 12);
    s->width = (int)get32(h + 16);
    s->byte_level = get32(h + 20) & 1;
    s->count = get64(h + 24);
    if ((s->width != 2 && s->width != 4) || get32(h + 32) != BLOCK || s->vocab == 0)
        return bad(s, "its header makes no sense", f);
    uint64_t room = s->file_bytes - HEADER;
    if (s->count > room / (uint64_t)s->width)
        return bad(s, "it is cut short", f);
    size_t table = blocks_of(s->count, s->width) * 4;
    if (room != s->count * (uint64_t)s->width + table)
        return bad(s, "its size and its count disagree", f);
    s->ids = s->file + HEADER;
    s->table = s->file + s->file_bytes - table;
    if (get32(h + 36) != crc(s->table, table))
        return bad(s, "its checksums are damaged", f);
    return true;
}

static bool parse_llmc(struct shard *s, struct failure *f)
{
    if (s->file_bytes < LLMC_HEADER)
        return bad(s, "it is shorter than its header", f);
    uint32_t version = get32(s->file + 4);
    bool wide = get32(s->file) == 20240801;
    if (version != (wide ? 7 : 1))
        return failed(f, STATUS_INPUT, "%s is an llm.c shard of version %u; this program reads %d",
                      s->path, version, wide ? 7 : 1);
    s->width = wide ? 4 : 2;
    s->count = get32(s->file + 8);
    if (s->file_bytes - LLMC_HEADER != s->count * (uint64_t)s->width)
        return bad(s, "its size and its count disagree", f);
    s->ids = s->file + LLMC_HEADER;
    return true;
}

bool shard_parse(struct shard *s, const char *path, const void *file, size_t n, struct failure *f)
{
    *s = (struct shard){.path = path_printf("%s", path), .file = file, .file_bytes = n};
    bool good = shard_magic(file, n);
    if (!good)
        bad(s, "its first bytes are others", f);
    else
        good = memcmp(file, magic, 4) == 0 ? parse_own(s, f) : parse_llmc(s, f);
    if (good && s->count == 0)
        good = bad(s, "it holds no tokens", f);
    if (!good) {
        shard_close(s);
        return false;
    }
    if (s->table)
        s->checked = need(calloc(blocks_of(s->count, s->width) / 8 + 1, 1));
    return true;
}

bool shard_open(struct shard *s, const char *path, struct failure *f)
{
    uint64_t size;
    int fd = file_open(path, &size, f);
    if (fd < 0)
        return false;
    void *at = size > 0 ? mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    int error = errno;
    close(fd);
    if (at == MAP_FAILED)
        return failed(f, size ? STATUS_WORLD : STATUS_INPUT, "cannot map %s: %s", path,
                      size ? strerror(error) : "it is empty");
    if (!shard_parse(s, path, at, (size_t)size, f)) {
        munmap(at, (size_t)size);
        return false;
    }
    s->mapped = true;
    return true;
}

static bool check_block(struct shard *s, size_t block, struct failure *f)
{
    if (s->checked[block / 8] >> (block % 8) & 1)
        return true;
    uint64_t begin = (uint64_t)block * BLOCK, end = s->count * (uint64_t)s->width;
    size_t n = end - begin < BLOCK ? (size_t)(end - begin) : BLOCK;
    if (crc(s->ids + begin, n) != get32(s->table + 4 * block))
        return failed(f, STATUS_INPUT,
                      "%s is damaged: the tokens from number %llu on do not match their checksum: "
                      "write it again",
                      s->path, (unsigned long long)(begin / (uint64_t)s->width));
    s->checked[block / 8] |= (unsigned char)(1u << (block % 8));
    return true;
}

bool shard_read(struct shard *s, uint64_t at, size_t n, int vocab, int32_t *out, struct failure *f)
{
    uint64_t begin = at * (uint64_t)s->width, end = (at + n) * (uint64_t)s->width;
    uint32_t limit = s->vocab && s->vocab < (uint32_t)vocab ? s->vocab : (uint32_t)vocab;
    for (uint64_t block = begin / BLOCK; s->table && n > 0 && block <= (end - 1) / BLOCK; block++)
        if (!check_block(s, (size_t)block, f))
            return false;
    const unsigned char *from = s->ids + begin;
    for (size_t i = 0; i < n; i++) {
        uint32_t id =
            s->width == 2 ? (uint32_t)(from[2 * i] | from[2 * i + 1] << 8) : get32(from + 4 * i);
        if (id >= limit)
            return failed(f, STATUS_INPUT,
                          "%s: token number %llu is %u; the vocabulary ends at %u: is the shard of "
                          "another tokenizer?",
                          s->path, (unsigned long long)(at + i), id, limit - 1);
        out[i] = (int32_t)id;
    }
    return true;
}

void shard_close(struct shard *s)
{
    if (s->mapped)
        munmap((void *)(uintptr_t)s->file, s->file_bytes);
    free(s->checked);
    free(s->path);
    *s = (struct shard){.path = NULL};
}

struct shard_writer {
    struct writer out;
    char *path, *partial;
    int vocab, width;
    bool byte_level;
    uint64_t count;
    uint32_t block_crc;
    size_t in_block;
    unsigned char *table;
    size_t blocks, capacity;
};

struct shard_writer *shard_create(const char *path, int vocab, bool byte_level, struct failure *f)
{
    static const unsigned char blank[HEADER];
    struct shard_writer *w = need(calloc(1, sizeof *w));
    w->path = path_printf("%s", path);
    w->partial = path_printf("%s.partial", path);
    w->vocab = vocab;
    w->width = vocab <= 65536 ? 2 : 4;
    w->byte_level = byte_level;
    if (!writer_open(&w->out, w->partial, f)) {
        free(w->path);
        free(w->partial);
        free(w);
        return NULL;
    }
    writer_put(&w->out, blank, HEADER);
    return w;
}

static void end_block(struct shard_writer *w)
{
    if (w->blocks == w->capacity) {
        w->capacity = w->capacity ? 2 * w->capacity : 256;
        w->table = need(realloc(w->table, 4 * w->capacity));
    }
    put32(w->table + 4 * w->blocks++, w->block_crc);
    w->block_crc = 0;
    w->in_block = 0;
}

bool shard_put(struct shard_writer *w, const int32_t *id, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char b[4];
        put32(b, (uint32_t)id[i]);
        writer_put(&w->out, b, (size_t)w->width);
        w->block_crc = (uint32_t)crc32_z(w->block_crc, b, (size_t)w->width);
        w->in_block += (size_t)w->width;
        if (w->in_block == BLOCK)
            end_block(w);
    }
    w->count += n;
    return !w->out.broken;
}

/* The header is known only at the end, so it is written over the blank one before the rename. */
static void write_header(struct shard_writer *w)
{
    unsigned char h[HEADER] = {0};
    memcpy(h, magic, 8);
    put32(h + 8, 1);
    put32(h + 12, (uint32_t)w->vocab);
    put32(h + 16, (uint32_t)w->width);
    put32(h + 20, w->byte_level);
    put32(h + 24, (uint32_t)w->count);
    put32(h + 28, (uint32_t)(w->count >> 32));
    put32(h + 32, BLOCK);
    put32(h + 36, crc(w->table, 4 * w->blocks));
    put32(h + 60, crc(h, 60));
    writer_put_at(&w->out, h, HEADER, 0);
}

static void shard_release(struct shard_writer *w)
{
    free(w->path);
    free(w->partial);
    free(w->table);
    free(w);
}

void shard_abandon(struct shard_writer *w)
{
    writer_abandon(&w->out);
    shard_release(w);
}

bool shard_finish(struct shard_writer *w, struct failure *f)
{
    if (w->in_block > 0)
        end_block(w);
    writer_put(&w->out, w->table, 4 * w->blocks);
    write_header(w);
    bool good = writer_close(&w->out, f);
    if (good && rename(w->partial, w->path) != 0)
        good = failed_file(f, "rename", w->partial);
    shard_release(w);
    return good;
}

/* shard.h - files of token ids, mapped and checked where they are read.
 *
 * The format, little-endian throughout:
 *
 *    0  magic    "archtok\n"
 *    8  u32      version, 1
 *   12  u32      vocabulary: every id is below it
 *   16  u32      bytes of an id: 2 or 4
 *   20  u32      flags: 1 = byte level (id = byte, 256 = document separator)
 *   24  u64      count of ids
 *   32  u32      bytes of a block, 65536
 *   36  u32      CRC-32 of the table of block checksums
 *   40  20 bytes zero
 *   60  u32      CRC-32 of bytes 0..59
 *   64           ids
 *    +           table: one CRC-32 (u32) for each block of the ids, the last one may be shorter
 *
 * A block is checked when it is first read, so that a large shard costs nothing at start. llm.c's
 * files (magic 20240520 version 1: u16; magic 20240801 version 7: u32) are read too; they carry no
 * checksums. */
#ifndef SHARD_H
#define SHARD_H

#include "runtime.h"

struct shard {
    char *path;
    const unsigned char *file; /* mapped, or the caller's */
    size_t file_bytes;
    bool mapped;
    const unsigned char *ids, *table; /* table NULL: no checksums */
    int width;
    uint32_t vocab; /* 0: not said */
    uint64_t count;
    bool byte_level;
    unsigned char *checked; /* one bit a block */
};

/* Do these first n bytes of a file start a shard? */
bool shard_magic(const void *start, size_t n);
bool shard_open(struct shard *s, const char *path, struct failure *f);
/* The same on a file in memory, which must outlive the shard. */
bool shard_parse(struct shard *s, const char *path, const void *file, size_t n, struct failure *f);
/* Ids at..at + n, which exist; each is below `vocab`, or it is an error that names its place. */
bool shard_read(struct shard *s, uint64_t at, size_t n, int vocab, int32_t *out, struct failure *f);
void shard_close(struct shard *s);

/* Writing: create, put, finish or abandon. PATH appears whole or not at all. */
struct shard_writer;
struct shard_writer *shard_create(const char *path, int vocab, bool byte_level, struct failure *f);
bool shard_put(struct shard_writer *w, const int32_t *id, size_t n);
/* Releases w whatever comes. */
bool shard_finish(struct shard_writer *w, struct failure *f);
void shard_abandon(struct shard_writer *w);

#endif

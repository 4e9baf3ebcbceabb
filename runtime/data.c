/* data.c - files become one long row of tokens. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "data.h"
#include "files.h"
#include "stream.h"

static bool ends_with(const char *text, size_t n, const char *end)
{
    size_t k = strlen(end);
    return n >= k && memcmp(text + n - k, end, k) == 0;
}

static bool named_jsonl(const char *path)
{
    size_t n = strlen(path);
    if (ends_with(path, n, ".gz"))
        n -= 3;
    else if (ends_with(path, n, ".zst"))
        n -= 4;
    return ends_with(path, n, ".jsonl") || ends_with(path, n, ".ndjson");
}

static bool empty(const char *path, struct failure *f)
{
    return failed(f, STATUS_INPUT, "%s is empty: give a file with text or tokens", path);
}

/* A growing buffer of ids between the tokenizer and the store. */
struct encoder {
    const struct tokenizer *tokenizer;
    struct store *store;
    int32_t *id;
    size_t capacity;
};

static bool encode(struct encoder *e, const char *text, size_t n, struct failure *f)
{
    size_t bound = e->tokenizer->bound(e->tokenizer, n);
    if (bound > e->capacity) {
        e->capacity = bound;
        e->id = need(realloc(e->id, bound * sizeof *e->id));
    }
    size_t k = e->tokenizer->encode(e->tokenizer, text, n, e->id);
    return store_add(e->store, e->id, k, f);
}

static bool end_document(struct data *d, struct encoder *e, bool line, struct failure *f)
{
    int32_t separator = e->tokenizer->separator;
    d->documents++;
    if (separator >= 0)
        return store_add(e->store, &separator, 1, f);
    return line ? encode(e, "\n", 1, f) : true;
}

static bool read_text(struct data *d, struct stream *s, struct encoder *e, struct failure *f)
{
    enum { PART = 1 << 16 };
    char *part = need(malloc(PART));
    size_t got = 1;
    bool good = true, any = false;
    while (good && got > 0) {
        good = stream_read(s, part, PART, &got, f) && encode(e, part, got, f);
        any |= got > 0;
    }
    free(part);
    if (good && !any)
        return empty(s->path, f);
    return good && end_document(d, e, false, f);
}

static bool blank(const char *line, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strchr(" \t\r", line[i]) || line[i] == '\0')
            return false;
    return true;
}

static bool read_object(struct data *d, const struct lines *l, const char *line, size_t n,
                        struct encoder *e, struct failure *f)
{
    json_error_t error;
    json_t *object = json_loadb(line, n, JSON_ALLOW_NUL, &error);
    json_t *text = json_object_get(object, "text");
    bool good;
    if (!object)
        good = failed(f, STATUS_INPUT, "%s:%ld: not JSON: %s: mend or drop the line",
                      l->stream->path, l->number, error.text);
    else if (!json_is_string(text))
        good = failed(f, STATUS_INPUT,
                      "%s:%ld: %s: each line must be an object like {\"text\": \"...\"}",
                      l->stream->path, l->number,
                      json_is_object(object) ? "no string \"text\"" : "not an object");
    else
        good = encode(e, json_string_value(text), json_string_length(text), f) &&
               end_document(d, e, true, f);
    json_decref(object);
    return good;
}

static bool read_jsonl(struct data *d, struct stream *s, struct encoder *e, struct failure *f)
{
    struct lines l;
    char *line;
    size_t n;
    uint64_t before = d->documents;
    lines_open(&l, s);
    bool good = true;
    while (good && (good = lines_next(&l, &line, &n, f)) && line) {
        if (l.number == 1 && n >= 3 && memcmp(line, "\xef\xbb\xbf", 3) == 0) {
            line += 3;
            n -= 3;
        }
        if (!blank(line, n))
            good = read_object(d, &l, line, n, e, f);
    }
    lines_close(&l);
    if (good && d->documents == before)
        return empty(s->path, f);
    return good;
}

static struct segment *add_segment(struct data *d)
{
    d->segment = need(realloc(d->segment, ((size_t)d->n + 1) * sizeof *d->segment));
    struct segment *s = &d->segment[d->n++];
    *s = (struct segment){.begin = d->tokens};
    return s;
}

static bool need_tokenizer(struct data *d, const struct archrt_model *m, const char *file,
                           struct failure *f)
{
    return d->tokenizer.name || tokenizer_open(&d->tokenizer, m, file, f);
}

static bool add_stored(struct data *d, struct stream *stream, bool jsonl, struct failure *f)
{
    struct segment *s = add_segment(d);
    s->kind = SEGMENT_STORE;
    if (d->store.width == 0)
        store_open(&d->store, d->tokenizer.vocab);
    s->stored = store_count(&d->store);
    struct encoder e = {&d->tokenizer, &d->store, NULL, 0};
    bool good = (jsonl ? read_jsonl : read_text)(d, stream, &e, f);
    s->count = store_count(&d->store) - s->stored;
    free(e.id);
    return good;
}

static bool add_shard(struct data *d, const char *path, const struct archrt_model *m,
                      struct failure *f)
{
    struct shard shard;
    if (!shard_open(&shard, path, f))
        return false;
    if (shard.vocab > (uint32_t)m->arch.vocab) {
        failed(f, STATUS_INPUT,
               "%s is of a vocabulary of %u; this program's is %d: use shards of its tokenizer",
               path, shard.vocab, m->arch.vocab);
        shard_close(&shard);
        return false;
    }
    struct segment *s = add_segment(d);
    s->kind = SEGMENT_SHARD;
    s->shard = shard;
    s->count = shard.count;
    d->byte_level &= shard.byte_level;
    return true;
}

/* Plain text is its own row of tokens under the byte-level vocabulary. */
static bool add_mapped(struct data *d, const char *path, int fd, size_t size, struct failure *f)
{
    if (size == 0)
        return empty(path, f);
    void *at = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        return failed(f, STATUS_WORLD, "cannot map %s: %s", path, strerror(errno));
    struct segment *s = add_segment(d);
    s->kind = SEGMENT_BYTES;
    s->text = at;
    s->bytes = size;
    s->count = size + (d->tokenizer.separator >= 0);
    d->documents++;
    return true;
}

static bool add_text(struct data *d, const char *path, struct stream *stream, struct failure *f)
{
    struct stat st;
    bool jsonl = named_jsonl(path);
    bool bytes = strcmp(d->tokenizer.name, "bytes") == 0;
    if (!jsonl && bytes && stream->kind == STREAM_PLAIN && fstat(stream->fd, &st) == 0 &&
        S_ISREG(st.st_mode) && strcmp(path, "-") != 0)
        return add_mapped(d, path, stream->fd, (size_t)st.st_size, f);
    return add_stored(d, stream, jsonl, f);
}

static bool add_file(struct data *d, const char *path, const struct archrt_model *m,
                     const char *tokenizer, struct failure *f)
{
    struct stream stream;
    if (!stream_open(&stream, path, f))
        return false;
    bool good;
    if (stream.kind == STREAM_PLAIN && shard_magic(stream.input, stream.end))
        good = add_shard(d, path, m, f);
    else
        good = need_tokenizer(d, m, tokenizer, f) && add_text(d, path, &stream, f);
    stream_close(&stream);
    if (good)
        d->tokens += d->segment[d->n - 1].count;
    return good;
}

bool data_open(struct data *d, const struct texts *files, const struct archrt_model *m,
               const char *tokenizer, struct failure *f)
{
    *d = (struct data){.vocab = m->arch.vocab, .byte_level = true};
    bool good = tokenizer == NULL || need_tokenizer(d, m, tokenizer, f);
    for (int i = 0; good && i < files->n; i++)
        good = add_file(d, files->at[i], m, tokenizer, f);
    if (good && d->store.width)
        good = store_finish(&d->store, &d->stored, f);
    if (d->tokenizer.name && strcmp(d->tokenizer.name, "bytes") != 0)
        d->byte_level = false;
    if (!good)
        data_close(d);
    return good;
}

void data_close(struct data *d)
{
    for (int i = 0; i < d->n; i++) {
        struct segment *s = &d->segment[i];
        if (s->kind == SEGMENT_BYTES)
            munmap((void *)(uintptr_t)s->text, s->bytes);
        if (s->kind == SEGMENT_SHARD)
            shard_close(&s->shard);
    }
    if (d->store.width)
        store_close(&d->store);
    free(d->segment);
    if (d->tokenizer.name)
        tokenizer_close(&d->tokenizer);
    *d = (struct data){.n = 0};
}

static void widen_bytes(const struct data *d, const struct segment *s, uint64_t at, size_t n,
                        int32_t *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = at + i < s->bytes ? s->text[at + i] : d->tokenizer.separator;
}

static void widen_store(const struct data *d, uint64_t at, size_t n, int32_t *out)
{
    const unsigned char *narrow = d->stored;
    const uint16_t *middle = d->stored;
    const int32_t *wide = d->stored;
    for (size_t i = 0; i < n; i++)
        out[i] = d->store.width == 1   ? narrow[at + i]
                 : d->store.width == 2 ? middle[at + i]
                                       : wide[at + i];
}

static const struct segment *segment_of(const struct data *d, uint64_t at)
{
    int low = 0, high = d->n - 1;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (d->segment[middle].begin <= at)
            low = middle;
        else
            high = middle - 1;
    }
    return &d->segment[low];
}

bool data_read(struct data *d, uint64_t at, size_t n, int32_t *out, struct failure *f)
{
    while (n > 0) {
        struct segment *s = &d->segment[segment_of(d, at) - d->segment];
        uint64_t inside = at - s->begin, left = s->count - inside;
        size_t part = left < n ? (size_t)left : n;
        if (s->kind == SEGMENT_BYTES)
            widen_bytes(d, s, inside, part, out);
        else if (s->kind == SEGMENT_STORE)
            widen_store(d, s->stored + inside, part, out);
        else if (!shard_read(&s->shard, inside, part, d->vocab, out, f))
            return false;
        at += part;
        out += part;
        n -= part;
    }
    return true;
}

bool data_fingerprint(struct data *d, uint64_t *out, struct failure *f)
{
    enum { PLACES = 64, PART = 256 };
    int32_t id[PART];
    uint64_t hash = mix64(d->tokens);
    size_t part = d->tokens < PART ? (size_t)d->tokens : PART;
    for (uint64_t i = 0; i < PLACES && part > 0; i++) {
        uint64_t at = (d->tokens - part) / (PLACES - 1) * i;
        if (i == PLACES - 1)
            at = d->tokens - part;
        if (!data_read(d, at, part, id, f))
            return false;
        for (size_t k = 0; k < part; k++)
            hash = mix64(hash ^ (uint64_t)id[k]);
    }
    *out = hash;
    return true;
}

int64_t data_bytes(const struct data *d, const int32_t *id, size_t n)
{
    int64_t bytes = 0;
    if (!d->byte_level)
        return -1;
    for (size_t i = 0; i < n; i++)
        bytes += id[i] >= 0 && id[i] < 256;
    return bytes;
}

/* Windows cut at shift 0; where there are many, one is given up so that the shift can be anything.
 */
uint64_t windows_per_epoch(const struct windows *w)
{
    uint64_t length = (uint64_t)w->length;
    uint64_t n = w->tokens == 0 ? 0 : (w->tokens - 1) / length;
    return n >= 64 ? n - 1 : n;
}

/* A permutation of 0..n-1: four Feistel rounds on the next power of four, walked until inside. */
static uint64_t permute(uint64_t x, uint64_t n, uint64_t key)
{
    int half = 1;
    while (half < 31 && n > (uint64_t)1 << (2 * half))
        half++;
    uint64_t mask = ((uint64_t)1 << half) - 1;
    do {
        uint64_t left = x >> half, right = x & mask;
        for (uint64_t round = 0; round < 4; round++) {
            uint64_t next = left ^ (mix64(key ^ mix64(right + (round << 40))) & mask);
            left = right;
            right = next;
        }
        x = left << half | right;
    } while (x >= n);
    return x;
}

uint64_t window_start(const struct windows *w, uint64_t k)
{
    uint64_t n = windows_per_epoch(w), length = (uint64_t)w->length;
    uint64_t epoch = k / n, key = mix64(w->seed ^ mix64(epoch + 1));
    uint64_t spare = w->tokens - 1 - n * length;
    return w->begin + mix64(key) % (spare + 1) + permute(k % n, n, key) * length;
}

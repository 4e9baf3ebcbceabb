/* data_test.c - every kind of data gives the tokens it should, and damage is found and named. */
#include <zlib.h>
#include <zstd.h>

#include "data.h"
#include "evaluate.h"
#include "files.h"
#include "rt_check.h"

static bool open_files(struct data *d, const char **path, int n, struct failure *f)
{
    struct texts t = {path, n};
    *f = (struct failure){STATUS_OK, ""};
    return data_open(d, &t, &archrt_model, NULL, f);
}

static bool open_one(struct data *d, const char *path, struct failure *f)
{
    return open_files(d, &path, 1, f);
}

static void refused(const char *path, const char *expected)
{
    struct data d;
    struct failure f;
    bool good = open_one(&d, path, &f);
    CHECK(!good);
    CHECK_FAILURE(f, expected);
    if (good)
        data_close(&d);
}

static void write_gzip(const char *path, const void *data, size_t n, const char *mode)
{
    gzFile out = gzopen(path, mode);
    CHECK(out && gzwrite(out, data, (unsigned)n) == (int)n && gzclose(out) == Z_OK);
}

static void write_zstd(const char *path, const void *data, size_t n)
{
    size_t bound = ZSTD_compressBound(n);
    char *to = malloc(bound);
    write_file(path, to, ZSTD_compress(to, bound, data, n, 3));
    free(to);
}

static void expect(const char *path, const int32_t *id, size_t n)
{
    struct data d;
    struct failure f;
    int32_t got[64];
    bool good = open_one(&d, path, &f);
    CHECK(good && d.tokens == n);
    if (!good || d.tokens != n)
        return;
    CHECK(data_read(&d, 0, n, got, &f) && memcmp(got, id, n * sizeof *id) == 0);
    for (size_t i = 0; i < n; i++)
        CHECK(data_read(&d, i, 1, got, &f) && got[0] == id[i]);
    data_close(&d);
}

static const char jsonl[] =
    "{\"text\": \"a\\u00e9\\n\"}\n\n  {\"id\": 1, \"text\": \"\\u0000\"}\r\n"
    "{\"text\": \"z\"}";
static const int32_t jsonl_ids[] = {'a', 0xc3, 0xa9, '\n', 256, 0, 256, 'z', 256};

static void test_kinds(void)
{
    static const int32_t text_ids[] = {'h', 'i', 0xff, 0, 256};
    write_file("t.txt", "hi\xff\0", 4);
    expect("t.txt", text_ids, 5);
    write_gzip("t.gz", "hi\xff\0", 4, "wb");
    expect("t.gz", text_ids, 5);
    write_zstd("t.zst", "hi\xff\0", 4);
    expect("t.zst", text_ids, 5);
    write_gzip("two.gz", "hi", 2, "wb");
    write_gzip("two.gz", "\xff\0", 2, "ab"); /* members follow one another */
    expect("two.gz", text_ids, 5);
    write_file("j.jsonl", jsonl, sizeof jsonl - 1);
    expect("j.jsonl", jsonl_ids, 9);
    write_gzip("j.jsonl.gz", jsonl, sizeof jsonl - 1, "wb");
    expect("j.jsonl.gz", jsonl_ids, 9);
    write_zstd("j.ndjson.zst", jsonl, sizeof jsonl - 1);
    expect("j.ndjson.zst", jsonl_ids, 9);
    write_file("bom.jsonl", "\xef\xbb\xbf{\"text\":\"\"}\n", 15);
    expect("bom.jsonl", (const int32_t[]){256}, 1);
}

static void test_bad_lines(void)
{
    static const struct {
        const char *text, *expected;
    } cases[] = {
        {"{\"text\":\"a\"}\n{\"text\":}\n", "x.jsonl:2: not JSON"},
        {"\n\n{\"test\":\"a\"}\n", "x.jsonl:3: no string \"text\""},
        {"{\"text\":7}", "x.jsonl:1: no string"},
        {"[1]\n", "x.jsonl:1: not an object"},
        {"{\"text\":\"\xff\"}\n", "x.jsonl:1: not JSON"},
        {"{\"text\":\"\\ud800\"}\n", "x.jsonl:1: not JSON"},
        {"{\"text\":\"a\"}{\"text\":\"b\"}\n", "x.jsonl:1: not JSON"},
        {"\n \n", "x.jsonl is empty"},
        {"", "x.jsonl is empty"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_file("x.jsonl", cases[i].text, strlen(cases[i].text));
        refused("x.jsonl", cases[i].expected);
    }
    size_t deep = 300000;
    char *text = malloc(deep);
    memset(text, '[', deep);
    write_file("x.jsonl", text, deep);
    refused("x.jsonl", "x.jsonl:1: not JSON");
    free(text);
}

/* Compressed data cut at every offset or with a byte changed: found, or the tokens are right. */
static void test_damaged_compression(void)
{
    static const char *const names[] = {"j.jsonl.gz", "j.ndjson.zst"};
    struct failure f;
    struct data d;
    for (int k = 0; k < 2; k++) {
        size_t n;
        char *file = file_read(names[k], 1 << 20, &n, &f);
        for (size_t i = 4; i < n; i++) {
            write_file(k ? "cut.jsonl.zst" : "cut.jsonl.gz", file, i);
            CHECK(!open_one(&d, k ? "cut.jsonl.zst" : "cut.jsonl.gz", &f));
            CHECK(f.status == STATUS_INPUT && f.text[0]);
        }
        free(file);
    }
    write_file("e.txt", "", 0);
    refused("e.txt", "e.txt is empty");
    write_gzip("e.gz", "", 0, "wb");
    refused("e.gz", "e.gz is empty");
    refused(".", "directory");
    refused("absent", "cannot read absent");
}

static void write_shard(const char *path, const int32_t *id, size_t n, int vocab)
{
    struct failure f;
    struct shard_writer *w = shard_create(path, vocab, true, &f);
    CHECK(w && shard_put(w, id, n) && shard_finish(w, &f));
}

static bool shard_good(const void *file, size_t n, const int32_t *id, size_t count)
{
    struct shard s;
    struct failure f;
    int32_t *got = malloc((count + 1) * sizeof *got);
    bool good = shard_parse(&s, "s", file, n, &f);
    if (good) {
        good = s.count == count && shard_read(&s, 0, count, 257, got, &f) &&
               memcmp(got, id, count * sizeof *id) == 0;
        shard_close(&s);
    }
    CHECK(good || (f.status == STATUS_INPUT && f.text[0]));
    free(got);
    return good;
}

/* Every bit of a shard is under a checksum: any change, any cut, any excess is found. */
static void test_shards(void)
{
    enum { N = 40000 }; /* more than one block */
    int32_t *id = malloc(N * sizeof *id);
    struct failure f;
    size_t n;
    for (int i = 0; i < N; i++)
        id[i] = (int32_t)(mix64((uint64_t)i) % 257);
    write_shard("s.tok", id, N, 257);
    char *file = file_read("s.tok", 1 << 24, &n, &f);
    CHECK(shard_good(file, n, id, N));
    for (size_t i = 0; i < n; i += i < 64 || i > n - 9 ? 1 : 97) {
        file[i] ^= (char)(1 << (i % 8));
        CHECK(!shard_good(file, n, id, N));
        file[i] ^= (char)(1 << (i % 8));
        CHECK(!shard_good(file, i, id, N));
    }
    free(file);
    write_file("cut.tok", "archtok\n", 8);
    refused("cut.tok", "not a valid token shard");
    write_shard("s.tok", id, 3, 257);
    expect("s.tok", id, 3);
    write_shard("s.tok", id, 3, 300);
    refused("s.tok", "vocabulary of 300; this program's is 257");
    write_shard("s.tok", (const int32_t[]){1, 200}, 2, 200); /* 200 is not below 200 */
    struct data d;
    int32_t got[2];
    CHECK(open_one(&d, "s.tok", &f) && !data_read(&d, 0, 2, got, &f));
    CHECK_FAILURE(f, "token number 1 is 200");
    data_close(&d);
    free(id);
}

static void write_llmc(const char *path, uint32_t magic, uint32_t version, uint32_t count,
                       const void *ids, size_t n)
{
    uint32_t header[256] = {magic, version, count};
    FILE *out = fopen(path, "wb");
    CHECK(out && fwrite(header, sizeof header, 1, out) == 1 && fwrite(ids, 1, n, out) == n);
    CHECK(fclose(out) == 0);
}

static void test_llmc(void)
{
    static const uint16_t narrow[] = {5, 256, 0};
    static const uint32_t wide[] = {5, 256, 0}, large[] = {5, 257};
    static const int32_t ids[] = {5, 256, 0};
    write_llmc("l.bin", 20240520, 1, 3, narrow, sizeof narrow);
    expect("l.bin", ids, 3);
    write_llmc("l.bin", 20240801, 7, 3, wide, sizeof wide);
    expect("l.bin", ids, 3);
    write_llmc("l.bin", 20240520, 2, 3, narrow, sizeof narrow);
    refused("l.bin", "version 2");
    write_llmc("l.bin", 20240520, 1, 4, narrow, sizeof narrow);
    refused("l.bin", "disagree");
    write_llmc("l.bin", 20240520, 1, 0, narrow, 0);
    refused("l.bin", "no tokens");
    write_llmc("l.bin", 20240801, 7, 2, large, sizeof large);
    struct data d;
    struct failure f;
    int32_t got[2];
    CHECK(open_one(&d, "l.bin", &f) && !d.byte_level && !data_read(&d, 0, 2, got, &f));
    CHECK_FAILURE(f, "token number 1 is 257; the vocabulary ends at 256");
    data_close(&d);
    write_file("l.bin", "\x88\xd8\x34\x01", 4);
    refused("l.bin", "shorter than its header");
}

/* Rows over several files, and more tokens than stay in memory. */
static void test_rows(void)
{
    const char *files[] = {"t.txt", "j.jsonl", "t.gz"};
    struct data d, e;
    struct failure f;
    int32_t all[19], part[19];
    uint64_t print, other;
    CHECK(open_files(&d, files, 3, &f) && d.tokens == 19 && data_read(&d, 0, 19, all, &f));
    CHECK(all[4] == 256 && all[5] == 'a' && all[14] == 'h');
    for (uint64_t from = 0; from < 19; from++)
        for (size_t n = 0; n <= 19 - from; n++)
            CHECK(data_read(&d, from, n, part, &f) && memcmp(part, all + from, n * 4) == 0);
    files[0] = "t.zst";
    CHECK(open_files(&e, files, 3, &f));
    CHECK(data_fingerprint(&d, &print, &f) && data_fingerprint(&e, &other, &f) && print == other);
    CHECK(data_bytes(&d, all, 19) == 19 - 5);
    data_close(&e);
    files[0] = "j.jsonl";
    CHECK(open_files(&e, files, 3, &f) && data_fingerprint(&e, &other, &f) && print != other);
    data_close(&e);
    data_close(&d);
}

static void test_spill(void)
{
    enum { N = 40 << 20 }; /* 2 bytes a token: more than the 64 MiB that stay in memory */
    struct data d;
    struct failure f;
    unsigned char *text = malloc(N);
    int32_t got[100];
    for (size_t i = 0; i < N; i++)
        text[i] = (unsigned char)(i * 7 + i / 251);
    write_gzip("big.gz", text, N, "wb1");
    CHECK(open_one(&d, "big.gz", &f) && d.tokens == N + 1 && d.store.fd >= 0);
    for (uint64_t at = 0; at + 100 < N; at += 999983) {
        CHECK(data_read(&d, at, 100, got, &f));
        for (size_t i = 0; i < 100; i++)
            CHECK(got[i] == text[at + i]);
    }
    data_close(&d);
    free(text);
}

/* Each epoch visits each window once, in its own order, inside the data. */
static void test_windows(void)
{
    static const uint64_t sizes[] = {17, 33, 48, 1000, 5000, 100003};
    static unsigned char seen[100003];
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        struct windows w = {10, sizes[k], 16, 3};
        uint64_t n = windows_per_epoch(&w), first[3] = {0};
        CHECK(n > 0);
        for (uint64_t epoch = 0; epoch < 3; epoch++) {
            memset(seen, 0, sizeof seen);
            uint64_t shift = (window_start(&w, epoch * n) - 10) % 16;
            for (uint64_t i = 0; i < n; i++) {
                uint64_t at = window_start(&w, epoch * n + i);
                CHECK(at >= 10 && at + 17 <= 10 + sizes[k]);
                CHECK((at - 10) % 16 == shift && !seen[at - 10]);
                seen[at - 10] = 1;
                first[epoch] = mix64(first[epoch] ^ at);
            }
        }
        if (n > 100)
            CHECK(first[0] != first[1] && first[1] != first[2]);
    }
    CHECK(windows_per_epoch(&(struct windows){0, 16, 16, 1}) == 0);
    CHECK(windows_per_epoch(&(struct windows){0, 0, 16, 1}) == 0);
}

/* Every token but the first counts once, from enough before it. */
static void test_stretches(void)
{
    for (uint64_t tokens = 0; tokens < 70; tokens++) {
        for (int stride = 1; stride <= 16; stride += 5) {
            struct stretch s = {5, tokens, 16, stride};
            unsigned char counted[80] = {0};
            for (uint64_t i = 0; i < stretch_windows(&s); i++) {
                struct window w = stretch_window(&s, i);
                CHECK(w.inputs <= 16 && w.counted < w.inputs);
                CHECK(w.start >= 5 && w.start + (uint64_t)w.inputs < 5 + tokens);
                CHECK(i == 0 || w.counted >= 16 - stride);
                for (int k = w.counted; k < w.inputs; k++)
                    counted[w.start - 5 + (uint64_t)k + 1]++;
            }
            for (uint64_t t = 0; t < tokens; t++)
                CHECK(counted[t] == (t > 0));
        }
    }
}

int main(void)
{
    team_start(archrt_model.threads);
    enter_scratch();
    setenv("TMPDIR", scratch, 1);
    test_kinds();
    test_bad_lines();
    test_damaged_compression();
    test_shards();
    test_llmc();
    test_rows();
    test_spill();
    test_windows();
    test_stretches();
    team_stop();
    return leave_scratch();
}

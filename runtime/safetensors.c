/* safetensors.c - the safetensors format, read from untrusted files and written for others. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "files.h"
#include "safetensors.h"

static const struct {
    const char *name;
    int width;
} dtypes[] = {
    {"F32", 4}, {"BF16", 2}, {"F16", 2},  {"F64", 8},     {"I64", 8},
    {"I32", 4}, {"I16", 2},  {"I8", 1},   {"U64", 8},     {"U32", 4},
    {"U16", 2}, {"U8", 1},   {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1},
};

static bool bad(struct failure *f, const char *path, const char *name, const char *what)
{
    return failed(f, STATUS_INPUT,
                  "%s is not a valid safetensors file: tensor '%.100s': %s: download or write it "
                  "again",
                  path, name, what);
}

static bool read_dtype(json_t *j, struct stored_tensor *t)
{
    const char *name = json_string_value(j);
    for (size_t i = 0; name && i < sizeof dtypes / sizeof *dtypes; i++) {
        if (strcmp(name, dtypes[i].name) == 0) {
            t->dtype = dtypes[i].name;
            t->width = dtypes[i].width;
            return true;
        }
    }
    return false;
}

/* Fills in the shape and the bytes that it takes. */
static bool read_shape(json_t *j, struct stored_tensor *t, uint64_t *bytes)
{
    if (!json_is_array(j) || json_array_size(j) > SAFETENSORS_RANK_MAX)
        return false;
    t->rank = (int)json_array_size(j);
    *bytes = (uint64_t)t->width;
    for (int i = 0; i < t->rank; i++) {
        json_t *extent = json_array_get(j, (size_t)i);
        if (!json_is_integer(extent) || json_integer_value(extent) < 0)
            return false;
        t->shape[i] = json_integer_value(extent);
        if (__builtin_mul_overflow(*bytes, (uint64_t)t->shape[i], bytes))
            return false;
    }
    return true;
}

static bool read_offsets(json_t *j, struct stored_tensor *t)
{
    if (!json_is_array(j) || json_array_size(j) != 2)
        return false;
    json_t *begin = json_array_get(j, 0), *end = json_array_get(j, 1);
    if (!json_is_integer(begin) || !json_is_integer(end) || json_integer_value(begin) < 0 ||
        json_integer_value(end) < json_integer_value(begin))
        return false;
    t->begin = (uint64_t)json_integer_value(begin);
    t->end = (uint64_t)json_integer_value(end);
    return true;
}

static bool read_entry(struct safetensors *s, const char *name, json_t *j, uint64_t data_bytes,
                       struct failure *f)
{
    struct stored_tensor *t = &s->tensor[s->n];
    uint64_t bytes;
    *t = (struct stored_tensor){.name = name};
    if (*name == '\0')
        return bad(f, s->path, name, "it has no name");
    if (!json_is_object(j))
        return bad(f, s->path, name, "its entry is not an object");
    if (!read_dtype(json_object_get(j, "dtype"), t))
        return bad(f, s->path, name, "its dtype is not a known one");
    if (!read_shape(json_object_get(j, "shape"), t, &bytes))
        return bad(f, s->path, name, "its shape is not a list of sizes");
    if (!read_offsets(json_object_get(j, "data_offsets"), t))
        return bad(f, s->path, name, "its data_offsets are not [begin, end]");
    if (t->end > data_bytes)
        return bad(f, s->path, name, "its data lies beyond the end of the file");
    if (t->end - t->begin != bytes)
        return bad(f, s->path, name, "its shape and data_offsets disagree");
    s->n++;
    return true;
}

static bool metadata_valid(json_t *j)
{
    const char *key;
    json_t *value;
    if (!json_is_object(j))
        return false;
    json_object_foreach(j, key, value) if (!json_is_string(value)) return false;
    return true;
}

static int by_offset(const void *a, const void *b)
{
    const struct stored_tensor *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

static bool check_coverage(const struct safetensors *s, uint64_t data_bytes, struct failure *f)
{
    uint64_t at = 0;
    for (int i = 0; i < s->n; i++) {
        if (s->tensor[i].begin != at)
            return bad(f, s->path, s->tensor[i].name,
                       s->tensor[i].begin < at ? "its data overlaps another tensor's"
                                               : "there is a hole before its data");
        at = s->tensor[i].end;
    }
    if (at != data_bytes)
        return failed(
            f, STATUS_INPUT,
            "%s is not a valid safetensors file: %llu bytes belong to no tensor: download "
            "or write it again",
            s->path, (unsigned long long)(data_bytes - at));
    return true;
}

static bool read_header(struct safetensors *s, uint64_t data_bytes, struct failure *f)
{
    const char *name;
    json_t *entry;
    s->tensor = need(calloc(json_object_size(s->root) + 1, sizeof *s->tensor));
    json_object_foreach(s->root, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0) {
            if (!metadata_valid(entry))
                return bad(f, s->path, name, "it is not an object of strings");
        } else if (!read_entry(s, name, entry, data_bytes, f)) {
            return false;
        }
    }
    qsort(s->tensor, (size_t)s->n, sizeof *s->tensor, by_offset);
    return check_coverage(s, data_bytes, f);
}

bool safetensors_parse(struct safetensors *s, const char *path, const char *header, size_t n,
                       uint64_t data_bytes, struct failure *f)
{
    json_error_t e;
    *s = (struct safetensors){.fd = -1, .path = path_printf("%s", path)};
    s->root = n > 0 && header[0] == '{' ? json_loadb(header, n, JSON_REJECT_DUPLICATES, &e) : NULL;
    if (!s->root) {
        failed(f, STATUS_INPUT,
               "%s is not a valid safetensors file: its header is not JSON%s%s: download or write "
               "it again",
               path, n > 0 && header[0] == '{' ? ": " : "",
               n > 0 && header[0] == '{' ? e.text : "");
    } else if (read_header(s, data_bytes, f)) {
        return true;
    }
    safetensors_close(s);
    return false;
}

static bool read_length(int fd, const char *path, uint64_t size, uint64_t *length,
                        struct failure *f)
{
    unsigned char b[8];
    if (size < 8)
        return failed(f, STATUS_INPUT,
                      "%s is not a safetensors file: it has %llu bytes: download or write it again",
                      path, (unsigned long long)size);
    if (!file_read_at(fd, path, b, 8, 0, f))
        return false;
    *length = 0;
    for (int i = 7; i >= 0; i--)
        *length = *length << 8 | b[i];
    if (*length > size - 8)
        return failed(f, STATUS_INPUT,
                      "%s is cut short or not a safetensors file: its header claims %llu bytes of "
                      "%llu: download or write it again",
                      path, (unsigned long long)*length, (unsigned long long)(size - 8));
    if (*length > SAFETENSORS_HEADER_MAX)
        return failed(f, STATUS_INPUT,
                      "%s has a header of %llu bytes; up to %d are read: is it a safetensors file?",
                      path, (unsigned long long)*length, SAFETENSORS_HEADER_MAX);
    return true;
}

bool safetensors_open(struct safetensors *s, const char *path, struct failure *f)
{
    uint64_t size, length = 0;
    int fd = file_open(path, &size, f);
    if (fd < 0)
        return false;
    char *header = NULL;
    bool good = read_length(fd, path, size, &length, f);
    if (good) {
        header = need(malloc((size_t)length + 1));
        good = file_read_at(fd, path, header, (size_t)length, 8, f) &&
               safetensors_parse(s, path, header, (size_t)length, size - 8 - length, f);
    }
    free(header);
    if (!good) {
        close(fd);
        return false;
    }
    s->fd = fd;
    s->data_at = 8 + length;
    return true;
}

void safetensors_close(struct safetensors *s)
{
    if (s->fd >= 0)
        close(s->fd);
    json_decref(s->root);
    free(s->tensor);
    free(s->path);
    *s = (struct safetensors){.fd = -1};
}

const struct stored_tensor *safetensors_find(const struct safetensors *s, const char *name)
{
    for (int i = 0; i < s->n; i++)
        if (strcmp(s->tensor[i].name, name) == 0)
            return &s->tensor[i];
    return NULL;
}

static float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static float half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = (h >> 10) & 31, fraction = h & 0x3ff;
    if (exponent == 31)
        return float_of(sign | 0x7f800000 | fraction << 13);
    if (exponent > 0)
        return float_of(sign | (exponent + 112) << 23 | fraction << 13);
    float x = (float)fraction * 0x1p-24f;
    return sign ? -x : x;
}

uint16_t bf16_round(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (x != x)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* Values are little-endian in the file, as on every machine that the kernels run on. */
static void widen(const struct stored_tensor *t, const uint16_t *from, float *out, size_t n)
{
    if (t->dtype[0] == 'B')
        for (size_t i = 0; i < n; i++)
            out[i] = float_of((uint32_t)from[i] << 16);
    else
        for (size_t i = 0; i < n; i++)
            out[i] = half_to_float(from[i]);
}

static bool all_finite(const float *x, size_t n)
{
    uint32_t infinite = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        infinite |= (bits & 0x7f800000) == 0x7f800000;
    }
    return !infinite;
}

static bool read_part(const struct safetensors *s, const struct stored_tensor *t, uint64_t offset,
                      size_t n, uint16_t *scratch, float *out, struct failure *f)
{
    void *to = t->width == 4 ? (void *)out : (void *)scratch;
    uint64_t at = s->data_at + t->begin + offset * (uint64_t)t->width;
    if (!file_read_at(s->fd, s->path, to, n * (size_t)t->width, at, f))
        return false;
    if (t->width == 2)
        widen(t, scratch, out, n);
    if (!all_finite(out, n))
        return bad(f, s->path, t->name, "it holds values that are infinite or not numbers");
    return true;
}

bool safetensors_read(const struct safetensors *s, const struct stored_tensor *t, float *out,
                      struct failure *f)
{
    enum { PART = 1 << 18 };
    if (strcmp(t->dtype, "F32") != 0 && strcmp(t->dtype, "BF16") != 0 &&
        strcmp(t->dtype, "F16") != 0)
        return failed(f, STATUS_INPUT,
                      "%s: tensor '%.100s' is %s: weights must be F32, BF16 or F16: convert it",
                      s->path, t->name, t->dtype);
    uint64_t n = (t->end - t->begin) / (uint64_t)t->width;
    uint16_t *scratch = t->width == 2 ? need(malloc(PART * sizeof *scratch)) : NULL;
    bool good = true;
    for (uint64_t at = 0; good && at < n; at += PART) {
        size_t part = n - at < PART ? (size_t)(n - at) : PART;
        good = read_part(s, t, at, part, scratch, out + at, f);
    }
    free(scratch);
    return good;
}

/* The header as text, padded with spaces to a multiple of 8; malloc'ed. */
static char *build_header(const struct tensor_source *t, int n, enum archrt_dtype dtype)
{
    json_t *root = json_object();
    int64_t at = 0, width = dtype == ARCHRT_BF16 ? 2 : 4;
    json_object_set_new(root, "__metadata__", json_pack("{ss}", "format", "pt"));
    for (int i = 0; i < n; i++) {
        int64_t size = width;
        json_t *shape = json_array();
        for (int k = 0; k < t[i].rank; k++) {
            json_array_append_new(shape, json_integer(t[i].shape[k]));
            size *= t[i].shape[k];
        }
        json_object_set_new(root, t[i].name,
                            json_pack("{sssos[II]}", "dtype", width == 2 ? "BF16" : "F32", "shape",
                                      shape, "data_offsets", (json_int_t)at,
                                      (json_int_t)(at + size)));
        at += size;
    }
    char *text = need(json_dumps(root, JSON_COMPACT | JSON_PRESERVE_ORDER));
    json_decref(root);
    size_t length = strlen(text), padded = (length + 7) / 8 * 8;
    char *header = need(malloc(padded + 1));
    memset(header, ' ', padded);
    memcpy(header, text, length);
    header[padded] = '\0';
    free(text);
    return header;
}

static void put_tensor(struct writer *w, const struct tensor_source *t, enum archrt_dtype dtype)
{
    enum { PART = 4096 };
    size_t n = 1;
    for (int i = 0; i < t->rank; i++)
        n *= (size_t)t->shape[i];
    if (dtype != ARCHRT_BF16) {
        writer_put(w, t->data, n * sizeof *t->data);
        return;
    }
    uint16_t part[PART];
    for (size_t at = 0; at < n; at += PART) {
        size_t k = n - at < PART ? n - at : PART;
        for (size_t i = 0; i < k; i++)
            part[i] = bf16_round(t->data[at + i]);
        writer_put(w, part, k * sizeof *part);
    }
}

bool safetensors_write(const char *path, const struct tensor_source *t, int n,
                       enum archrt_dtype dtype, struct failure *f)
{
    struct writer w;
    char *partial = path_printf("%s.partial", path);
    bool good = writer_open(&w, partial, f);
    if (good) {
        char *header = build_header(t, n, dtype);
        uint64_t length = strlen(header);
        unsigned char le[8];
        for (int i = 0; i < 8; i++)
            le[i] = (unsigned char)(length >> (8 * i));
        writer_put(&w, le, sizeof le);
        writer_put(&w, header, (size_t)length);
        for (int i = 0; i < n; i++)
            put_tensor(&w, &t[i], dtype);
        free(header);
        good = writer_close(&w, f);
    }
    if (good && rename(partial, path) != 0) {
        good = failed_file(f, "rename", partial);
        unlink(partial);
    }
    free(partial);
    return good;
}

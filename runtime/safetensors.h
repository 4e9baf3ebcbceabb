/* safetensors.h - the safetensors format, read from untrusted files and written for others.
 *
 *   u64 LE header bytes | JSON { "NAME": {"dtype","shape","data_offsets":[begin,end]}, ...
 *                                "__metadata__": {string: string} } | data
 *
 * Offsets count from the end of the header, are in bounds, in order, without holes or overlaps, and
 * together cover the data: all of it is checked. https://github.com/huggingface/safetensors */
#ifndef SAFETENSORS_H
#define SAFETENSORS_H

#include <jansson.h>

#include "runtime.h"

enum { SAFETENSORS_HEADER_MAX = 16 << 20, SAFETENSORS_RANK_MAX = 8 };

struct stored_tensor {
    const char *name;
    const char *dtype; /* "F32" */
    int width;         /* bytes of an element */
    int rank;
    int64_t shape[SAFETENSORS_RANK_MAX];
    uint64_t begin, end; /* bytes, from the start of the data */
};

struct safetensors {
    char *path;
    int fd; /* -1 where only a header was parsed */
    uint64_t data_at;
    json_t *root;                 /* owns the names */
    struct stored_tensor *tensor; /* in the order of the data */
    int n;
};

/* Checks a header of n bytes that is followed by `data_bytes` of data. On success release with
 * safetensors_close. */
bool safetensors_parse(struct safetensors *s, const char *path, const char *header, size_t n,
                       uint64_t data_bytes, struct failure *f);
bool safetensors_open(struct safetensors *s, const char *path, struct failure *f);
void safetensors_close(struct safetensors *s);
const struct stored_tensor *safetensors_find(const struct safetensors *s, const char *name);
/* Elements as fp32 into out, which has room for them. F32, BF16 and F16 only; a value that is not
 * finite is an error. */
bool safetensors_read(const struct safetensors *s, const struct stored_tensor *t, float *out,
                      struct failure *f);

/* One tensor to be written, from fp32 memory. */
struct tensor_source {
    const char *name;
    int rank;
    int64_t shape[2];
    const float *data;
};
/* Writes the tensors in this order as F32 or BF16 (nearest, ties to even); PATH appears whole or
 * not at all. */
bool safetensors_write(const char *path, const struct tensor_source *t, int n,
                       enum archrt_dtype dtype, struct failure *f);

/* Rounds to the nearest bf16, ties to even; NaN stays NaN. */
uint16_t bf16_round(float x);

#endif

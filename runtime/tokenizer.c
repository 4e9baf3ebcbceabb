/* tokenizer.c - the byte-level vocabulary. */
#include "tokenizer.h"

static size_t bytes_bound(const struct tokenizer *t, size_t length)
{
    (void)t;
    return length;
}

static size_t bytes_encode(const struct tokenizer *t, const char *text, size_t length, int32_t *id)
{
    (void)t;
    for (size_t i = 0; i < length; i++)
        id[i] = (unsigned char)text[i];
    return length;
}

static size_t bytes_decode(const struct tokenizer *t, int32_t id, char *out)
{
    (void)t;
    if (id < 0 || id > 255)
        return 0;
    *out = (char)id;
    return 1;
}

static void bytes_free(struct tokenizer *t)
{
    (void)t;
}

bool tokenizer_open(struct tokenizer *t, const struct archrt_model *m, const char *file,
                    struct failure *f)
{
    if (file)
        return failed(f, STATUS_INPUT,
                      "cannot use %s: this version knows the byte-level vocabulary only; leave "
                      "--tokenizer out, or give token shards",
                      file);
    if (m->arch.vocab < 256)
        return failed(f, STATUS_INPUT,
                      "a vocabulary of %d cannot hold bytes: give token shards whose ids are below "
                      "%d",
                      m->arch.vocab, m->arch.vocab);
    *t = (struct tokenizer){.name = "bytes",
                            .vocab = m->arch.vocab > 256 ? 257 : 256,
                            .separator = m->arch.vocab > 256 ? 256 : -1,
                            .bound = bytes_bound,
                            .encode = bytes_encode,
                            .decode = bytes_decode,
                            .longest = 1,
                            .free = bytes_free};
    return true;
}

void tokenizer_close(struct tokenizer *t)
{
    if (t->free)
        t->free(t);
    t->free = NULL;
}

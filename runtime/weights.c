/* weights.c - parameters in Hugging Face layout, in and out. */
#include <stdlib.h>
#include <string.h>

#include "checkpoint.h"
#include "files.h"
#include "hf_config.h"
#include "safetensors.h"

/* The files of one set of weights: one, or the shards of an index. */
struct weight_files {
    struct safetensors *file;
    int n;
    json_t *map; /* tensor name -> file name; NULL: one file */
};

static void files_close(struct weight_files *w)
{
    for (int i = 0; i < w->n; i++)
        safetensors_close(&w->file[i]);
    free(w->file);
    json_decref(w->map);
    *w = (struct weight_files){NULL, 0, NULL};
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static struct safetensors *shard_of(const struct weight_files *w, const char *name)
{
    for (int i = 0; i < w->n; i++)
        if (strcmp(base_name(w->file[i].path), name) == 0)
            return &w->file[i];
    return NULL;
}

static bool add_file(struct weight_files *w, const char *dir, const char *name, struct failure *f)
{
    char *path = path_printf("%s/%s", dir, name);
    w->file = need(realloc(w->file, ((size_t)w->n + 1) * sizeof *w->file));
    bool good = safetensors_open(&w->file[w->n], path, f);
    if (good)
        w->n++;
    free(path);
    return good;
}

/* A shard's name is a plain file name in the same directory: an index must not reach elsewhere. */
static bool open_shards(struct weight_files *w, const char *dir, const char *path,
                        struct failure *f)
{
    enum { MOST_SHARDS = 4096 };
    const char *tensor;
    json_t *value;
    json_object_foreach(w->map, tensor, value)
    {
        const char *name = json_string_value(value);
        if (!name || *name == '\0' || strchr(name, '/') || strcmp(name, "..") == 0)
            return failed(
                f, STATUS_INPUT,
                "%s: tensor '%.100s' is not in a file of the same directory: download the "
                "index again",
                path, tensor);
        if (!shard_of(w, name) && (w->n == MOST_SHARDS || !add_file(w, dir, name, f)))
            return w->n < MOST_SHARDS
                       ? false
                       : failed(f, STATUS_INPUT, "%s names more than %d files", path, MOST_SHARDS);
    }
    if (w->n == 0)
        return failed(f, STATUS_INPUT, "%s names no tensors: download it again", path);
    return true;
}

static bool open_index(struct weight_files *w, const char *dir, const char *path, struct failure *f)
{
    size_t n;
    json_error_t e;
    char *text = file_read(path, SAFETENSORS_HEADER_MAX, &n, f);
    if (!text)
        return false;
    json_t *root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &e);
    free(text);
    w->map = json_incref(json_object_get(root, "weight_map"));
    bool parsed = root != NULL;
    json_decref(root);
    if (!json_is_object(w->map))
        return failed(f, STATUS_INPUT, "%s: %s: download it again", path,
                      parsed ? "there is no object \"weight_map\"" : e.text);
    return open_shards(w, dir, path, f);
}

static bool files_open(struct weight_files *w, const char *dir, struct failure *f)
{
    *w = (struct weight_files){NULL, 0, NULL};
    char *index = path_printf("%s/model.safetensors.index.json", dir);
    char *single = path_printf("%s/model.safetensors", dir);
    bool good;
    if (path_exists(single))
        good = add_file(w, dir, "model.safetensors", f);
    else if (path_exists(index))
        good = open_index(w, dir, index, f);
    else
        good = failed(f, STATUS_INPUT,
                      "no model.safetensors in %s: give a directory of Hugging Face weights or the "
                      "--out of a training run",
                      dir);
    free(index);
    free(single);
    if (!good)
        files_close(w);
    return good;
}

static const struct stored_tensor *find(const struct weight_files *w, const char *name,
                                        const struct safetensors **file)
{
    json_t *where = w->map ? json_object_get(w->map, name) : NULL;
    *file = w->map ? (where ? shard_of(w, json_string_value(where)) : NULL) : &w->file[0];
    return *file ? safetensors_find(*file, name) : NULL;
}

static void show_shape(char *out, size_t size, int rank, const int64_t *shape)
{
    size_t used = (size_t)snprintf(out, size, rank == 0 ? "a scalar" : "");
    for (int i = 0; i < rank && used < size; i++)
        used +=
            (size_t)snprintf(out + used, size - used, "%s%lld", i ? "x" : "", (long long)shape[i]);
}

static bool same_shape(const struct archrt_tensor *t, const struct stored_tensor *s)
{
    return s->rank == t->rank && s->shape[0] == t->shape[0] &&
           (t->rank < 2 || s->shape[1] == t->shape[1]);
}

static bool load_tensor(const struct weight_files *w, const char *dir,
                        const struct archrt_tensor *t, float *params, struct failure *f)
{
    const struct safetensors *file;
    const struct stored_tensor *s = find(w, t->name, &file);
    if (!s)
        return failed(f, STATUS_INPUT,
                      "the weights in %s lack tensor '%s': they are incomplete or of another "
                      "architecture",
                      dir, t->name);
    if (!same_shape(t, s)) {
        char theirs[180], ours[64];
        show_shape(theirs, sizeof theirs, s->rank, s->shape);
        show_shape(ours, sizeof ours, t->rank, t->shape);
        return failed(
            f, STATUS_INPUT,
            "%s: tensor '%s' is %s; this program was compiled for %s: compile the .arch of "
            "those weights",
            file->path, t->name, theirs, ours);
    }
    return safetensors_read(file, s, params + t->offset, f);
}

/* A tensor that the model does not have changes what the weights compute, unless it is a buffer
 * that older exports carry, or the head of tied weights. */
static bool harmless(const struct archrt_model *m, const char *name)
{
    return strstr(name, "rotary_emb.inv_freq") != NULL ||
           (m->arch.tied && strcmp(name, "lm_head.weight") == 0);
}

static bool check_strangers(const struct weight_files *w, const struct archrt_model *m,
                            struct failure *f)
{
    for (int i = 0; i < w->n; i++) {
        for (int k = 0; k < w->file[i].n; k++) {
            const char *name = w->file[i].tensor[k].name;
            if (!tensor_find(m, name) && !harmless(m, name))
                return failed(
                    f, STATUS_INPUT,
                    "%s: tensor '%.100s' has no place in this program: the weights are of "
                    "another architecture",
                    w->file[i].path, name);
        }
    }
    return true;
}

static bool read_from(const char *dir, const struct archrt_model *m, float *params,
                      struct failure *f)
{
    struct weight_files w;
    char *config = path_printf("%s/config.json", dir);
    bool good = path_exists(config) ? hf_config_check(config, &m->arch, f)
                                    : failed(f, STATUS_INPUT,
                                             "no config.json in %s: it says how the weights are to "
                                             "be used; copy it there too",
                                             dir);
    free(config);
    if (!good || !files_open(&w, dir, f))
        return false;
    memset(params, 0, m->param_floats * sizeof *params);
    good = check_strangers(&w, m, f);
    for (int i = 0; good && i < m->n_tensors; i++)
        good = load_tensor(&w, dir, &m->tensors[i], params, f);
    files_close(&w);
    return good;
}

bool weights_read(const char *dir, const struct archrt_model *m, float *params, struct failure *f)
{
    static const char *const marks[] = {"model.safetensors", "model.safetensors.index.json",
                                        "config.json"};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        char *path = path_printf("%s/%s", dir, marks[i]);
        bool there = path_exists(path);
        free(path);
        if (there)
            return read_from(dir, m, params, f);
    }
    char *latest = path_printf("%s/latest", dir);
    bool good;
    if (path_exists(latest))
        good = read_from(latest, m, params, f);
    else if (!path_exists(dir))
        good = failed(f, STATUS_INPUT, "no directory %s: check --weights", dir);
    else
        good = failed(f, STATUS_INPUT,
                      "no weights in %s: give the directory that holds model.safetensors and "
                      "config.json, or the --out of a training run",
                      dir);
    free(latest);
    return good;
}

bool weights_load(const char *dir, const struct archrt_model *m, float *params, char *error,
                  size_t error_size)
{
    struct failure f = {STATUS_OK, ""};
    bool good = weights_read(dir, m, params, &f);
    if (error_size > 0)
        snprintf(error, error_size, "%s", f.text);
    return good;
}

bool weights_write(const char *dir, const struct archrt_model *m, const float *params,
                   enum archrt_dtype dtype, struct failure *f)
{
    struct tensor_source *t = need(calloc((size_t)m->n_tensors + 1, sizeof *t));
    for (int i = 0; i < m->n_tensors; i++) {
        const struct archrt_tensor *from = &m->tensors[i];
        t[i] = (struct tensor_source){.name = from->name,
                                      .rank = from->rank,
                                      .shape = {from->shape[0], from->shape[1]},
                                      .data = params + from->offset};
    }
    char *weights = path_printf("%s/model.safetensors", dir);
    char *config = path_printf("%s/config.json", dir);
    bool good = safetensors_write(weights, t, m->n_tensors, dtype, f) &&
                hf_config_write(config, &m->arch, dtype, f) && directory_sync(dir, f);
    free(weights);
    free(config);
    free(t);
    return good;
}

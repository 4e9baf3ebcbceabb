/* checkpoint.c - checkpoints that a kill at any instant cannot spoil.
 *
 * Order of a save: all files into OUT/.partial, each fsync'ed; the directory fsync'ed; one rename
 * to OUT/step-N; OUT fsync'ed; `latest` replaced by renaming a new link over it; OUT fsync'ed; only
 * then old checkpoints go. What a kill leaves behind (.partial, .latest, .trash) the next run
 * removes. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "checkpoint.h"
#include "files.h"
#include "safetensors.h"

static bool save_optimizer(const char *path, const struct archrt_model *m,
                           const struct checkpoint *c, struct failure *f)
{
    int n = 2 * m->n_tensors;
    struct tensor_source *t = need(calloc((size_t)n + 1, sizeof *t));
    for (int i = 0; i < n; i++) {
        const struct archrt_tensor *from = &m->tensors[i / 2];
        t[i] = (struct tensor_source){.name = path_printf("%c.%s", i % 2 ? 'v' : 'm', from->name),
                                      .rank = from->rank,
                                      .shape = {from->shape[0], from->shape[1]},
                                      .data = (i % 2 ? c->v : c->m) + from->offset};
    }
    bool good = safetensors_write(path, t, n, ARCHRT_F32, f);
    for (int i = 0; i < n; i++)
        free((char *)(uintptr_t)t[i].name);
    free(t);
    return good;
}

static bool save_state(const char *path, json_t *state, struct failure *f)
{
    char *text = need(json_dumps(state, JSON_INDENT(2) | JSON_PRESERVE_ORDER));
    bool good = file_replace(path, text, strlen(text), f);
    free(text);
    return good;
}

static bool save_files(const char *dir, const struct archrt_model *m, const struct checkpoint *c,
                       struct failure *f)
{
    char *optimizer = path_printf("%s/optimizer.safetensors", dir);
    char *state = path_printf("%s/train_state.json", dir);
    bool good = tree_remove(dir, f) && directory_make(dir, f) &&
                weights_write(dir, m, c->params, ARCHRT_F32, f) &&
                save_optimizer(optimizer, m, c, f) && save_state(state, c->state, f) &&
                directory_sync(dir, f);
    free(optimizer);
    free(state);
    return good;
}

static int64_t step_of(const char *name)
{
    char *end;
    if (strncmp(name, "step-", 5) != 0 || !isdigit((unsigned char)name[5]))
        return -1;
    long long step = strtoll(name + 5, &end, 10);
    return *end == '\0' ? step : -1;
}

static int64_t latest_step(const char *out)
{
    char target[64];
    char *latest = path_printf("%s/latest", out);
    ssize_t n = readlink(latest, target, sizeof target - 1);
    free(latest);
    if (n < 0)
        return -1;
    target[n] = '\0';
    return step_of(target);
}

/* Out of sight by one rename, so that a half removed directory is never taken for a checkpoint. */
static bool discard(const char *out, int64_t step, struct failure *f)
{
    char *path = path_printf("%s/step-%lld", out, (long long)step);
    char *trash = path_printf("%s/.trash-%lld", out, (long long)step);
    bool good = tree_remove(trash, f);
    if (good && rename(path, trash) != 0)
        good = errno == ENOENT || failed_file(f, "remove", path);
    good = good && tree_remove(trash, f);
    free(path);
    free(trash);
    return good;
}

/* `latest` becomes a link to step-N, at once or not at all. */
static bool point_latest(const char *out, int64_t step, struct failure *f)
{
    char *target = path_printf("step-%lld", (long long)step);
    char *link = path_printf("%s/.latest", out), *latest = path_printf("%s/latest", out);
    bool good = tree_remove(link, f);
    if (good && symlink(target, link) != 0)
        good = failed_file(f, "write", link);
    if (good && rename(link, latest) != 0)
        good = failed_file(f, "replace", latest);
    free(target);
    free(link);
    free(latest);
    return good && directory_sync(out, f);
}

static bool publish(const char *out, const char *partial, int64_t step, struct failure *f)
{
    char *final = path_printf("%s/step-%lld", out, (long long)step);
    bool good = discard(out, step, f);
    if (good && rename(partial, final) != 0)
        good = failed_file(f, "rename", partial);
    free(final);
    return good && directory_sync(out, f) && point_latest(out, step, f);
}

static int descending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Other steps than `current`, newest first; malloc'ed. */
static int64_t *list_steps(const char *out, int64_t current, int *n)
{
    int64_t *step = NULL;
    DIR *d = opendir(out);
    *n = 0;
    for (struct dirent *e; d && (e = readdir(d)) != NULL;) {
        int64_t s = step_of(e->d_name);
        if (s < 0 || s == current)
            continue;
        step = need(realloc(step, ((size_t)*n + 1) * sizeof *step));
        step[(*n)++] = s;
    }
    if (d)
        closedir(d);
    if (step)
        qsort(step, (size_t)*n, sizeof *step, descending);
    return step;
}

static void prune(const char *out, int64_t current, int keep)
{
    int n;
    int64_t *step = list_steps(out, current, &n);
    struct failure f;
    for (int i = keep - 1; i < n; i++)
        if (!discard(out, step[i], &f))
            notice("an old checkpoint stays: %s", f.text);
    free(step);
}

bool checkpoint_save(const char *out, const struct archrt_model *m, const struct checkpoint *c,
                     int keep, struct failure *f)
{
    if (latest_step(out) == c->step)
        return true;
    char *partial = path_printf("%s/.partial", out);
    bool good = save_files(partial, m, c, f) && publish(out, partial, c->step, f);
    struct failure ignored;
    if (!good)
        tree_remove(partial, &ignored);
    else
        prune(out, c->step, keep < 1 ? 1 : keep);
    free(partial);
    return good;
}

bool checkpoint_exists(const char *out)
{
    int n;
    free(list_steps(out, -1, &n));
    char *latest = path_printf("%s/latest", out);
    bool there = n > 0 || path_exists(latest);
    free(latest);
    return there;
}

json_t *checkpoint_state(const char *out, struct failure *f)
{
    size_t n;
    json_error_t e;
    char *path = path_printf("%s/latest/train_state.json", out);
    char *text = file_read(path, 16 << 20, &n, f);
    json_t *state = text ? json_loadb(text, n, JSON_REJECT_DUPLICATES, &e) : NULL;
    if (text && !json_is_object(state)) {
        failed(f, STATUS_INPUT, "%s is damaged: %s: resume from another checkpoint of %s", path,
               state ? "not an object" : e.text, out);
        json_decref(state);
        state = NULL;
    }
    free(text);
    free(path);
    return state;
}

static bool load_moment(const struct safetensors *s, const struct archrt_tensor *t, char moment,
                        float *slab, struct failure *f)
{
    char *name = path_printf("%c.%s", moment, t->name);
    const struct stored_tensor *from = safetensors_find(s, name);
    bool good = from && from->rank == t->rank && from->shape[0] == t->shape[0] &&
                (t->rank < 2 || from->shape[1] == t->shape[1]);
    if (!good)
        failed(f, STATUS_INPUT, "%s lacks '%s' in this program's shape: it is of another model",
               s->path, name);
    free(name);
    return good && safetensors_read(s, from, slab + t->offset, f);
}

bool checkpoint_load(const char *out, const struct archrt_model *m, struct checkpoint *c,
                     struct failure *f)
{
    struct safetensors s;
    char *latest = path_printf("%s/latest", out);
    char *optimizer = path_printf("%s/optimizer.safetensors", latest);
    bool good = weights_read(latest, m, c->params, f) && safetensors_open(&s, optimizer, f);
    free(latest);
    free(optimizer);
    if (!good)
        return false;
    for (int i = 0; good && i < m->n_tensors; i++)
        good = load_moment(&s, &m->tensors[i], 'm', c->m, f) &&
               load_moment(&s, &m->tensors[i], 'v', c->v, f);
    safetensors_close(&s);
    return good;
}

static bool take(const char *out, struct failure *f)
{
    int fd = open(out, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return failed_file(f, "use", out);
    /* The lock lives as long as the descriptor, which is never closed: until the process ends. Some
     * network file systems lock no directories; then there is no protection, but no harm either. */
    if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        close(fd);
        return failed(f, STATUS_INPUT,
                      "another process trains into %s: wait for it or give another --out", out);
    }
    return true;
}

/* A kill between the two renames of a first save leaves a whole step-N without `latest`. */
static bool adopt_newest(const char *out, struct failure *f)
{
    int n;
    int64_t *step = list_steps(out, -1, &n);
    char *latest = path_printf("%s/latest", out);
    bool good = n == 0 || path_exists(latest) || point_latest(out, step[0], f);
    free(latest);
    free(step);
    return good;
}

bool checkpoint_prepare(const char *out, struct failure *f)
{
    if (!directory_make(out, f) || !take(out, f))
        return false;
    DIR *d = opendir(out);
    bool good = d != NULL || failed_file(f, "read", out);
    for (struct dirent *e; good && (e = readdir(d)) != NULL;) {
        if (strcmp(e->d_name, ".partial") != 0 && strcmp(e->d_name, ".latest") != 0 &&
            strncmp(e->d_name, ".trash-", 7) != 0)
            continue;
        char *path = path_printf("%s/%s", out, e->d_name);
        good = tree_remove(path, f);
        free(path);
    }
    if (d)
        closedir(d);
    return good && adopt_newest(out, f);
}

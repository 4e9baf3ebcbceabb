/* files.c - files that are read whole or not at all, and written whole or not at all. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files.h"

enum { BUFFER = 1 << 20 };

char *path_printf(const char *format, ...)
{
    va_list list, again;
    va_start(list, format);
    va_copy(again, list);
    int n = vsnprintf(NULL, 0, format, list);
    va_end(list);
    char *path = need(malloc((size_t)n + 1));
    vsnprintf(path, (size_t)n + 1, format, again);
    va_end(again);
    return path;
}

static bool write_all(int fd, const unsigned char *data, size_t n)
{
    while (n > 0) {
        ssize_t k = write(fd, data, n);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return false;
        data += k;
        n -= (size_t)k;
    }
    return true;
}

bool writer_open(struct writer *w, const char *path, struct failure *f)
{
    *w = (struct writer){.fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)};
    if (w->fd < 0)
        return failed_file(f, "write", path);
    w->path = path_printf("%s", path);
    w->buffer = need(malloc(BUFFER));
    return true;
}

static bool writer_flush(struct writer *w)
{
    if (!w->broken && !write_all(w->fd, w->buffer, w->used)) {
        failed_file(&w->failure, "write", w->path);
        w->broken = true;
    }
    w->used = 0;
    return !w->broken;
}

bool writer_put(struct writer *w, const void *data, size_t n)
{
    const unsigned char *from = data;
    while (n > 0 && !w->broken) {
        size_t part = BUFFER - w->used < n ? BUFFER - w->used : n;
        memcpy(w->buffer + w->used, from, part);
        w->used += part;
        from += part;
        n -= part;
        if (w->used == BUFFER)
            writer_flush(w);
    }
    return !w->broken;
}

bool writer_put_at(struct writer *w, const void *data, size_t n, off_t offset)
{
    if (writer_flush(w) && pwrite(w->fd, data, n, offset) != (ssize_t)n) {
        failed_file(&w->failure, "write", w->path);
        w->broken = true;
    }
    return !w->broken;
}

static void writer_release(struct writer *w)
{
    if (w->broken)
        unlink(w->path);
    free(w->path);
    free(w->buffer);
    w->fd = -1;
}

bool writer_close(struct writer *w, struct failure *f)
{
    writer_flush(w);
    if (!w->broken && fsync(w->fd) != 0 && errno != EINVAL && errno != EROFS) {
        failed_file(&w->failure, "write", w->path);
        w->broken = true;
    }
    if (close(w->fd) != 0 && !w->broken) {
        failed_file(&w->failure, "write", w->path);
        w->broken = true;
    }
    if (w->broken)
        *f = w->failure;
    bool good = !w->broken;
    writer_release(w);
    return good;
}

void writer_abandon(struct writer *w)
{
    w->broken = true;
    close(w->fd);
    writer_release(w);
}

bool file_replace(const char *path, const void *data, size_t n, struct failure *f)
{
    struct writer w;
    char *partial = path_printf("%s.partial", path);
    bool good = writer_open(&w, partial, f);
    if (good) {
        writer_put(&w, data, n);
        good = writer_close(&w, f);
    }
    if (good && rename(partial, path) != 0) {
        good = failed_file(f, "rename", partial);
        unlink(partial);
    }
    free(partial);
    return good;
}

int file_open(const char *path, uint64_t *size, struct failure *f)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat s;
    if (fd < 0 || fstat(fd, &s) != 0) {
        failed_file(f, "read", path);
        if (fd >= 0)
            close(fd);
        return -1;
    }
    if (!S_ISREG(s.st_mode)) {
        failed(f, STATUS_INPUT, "cannot read %s: it is %s: give a file", path,
               S_ISDIR(s.st_mode) ? "a directory" : "not a regular file");
        close(fd);
        return -1;
    }
    *size = (uint64_t)s.st_size;
    return fd;
}

bool file_read_at(int fd, const char *path, void *data, size_t n, uint64_t offset,
                  struct failure *f)
{
    char *to = data;
    while (n > 0) {
        ssize_t k = pread(fd, to, n, (off_t)offset);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return failed_file(f, "read", path);
        if (k == 0)
            return failed(f, STATUS_INPUT, "%s ends early: copy it again", path);
        to += k;
        n -= (size_t)k;
        offset += (uint64_t)k;
    }
    return true;
}

char *file_read(const char *path, size_t limit, size_t *n, struct failure *f)
{
    uint64_t size;
    int fd = file_open(path, &size, f);
    if (fd < 0)
        return NULL;
    char *data = NULL;
    if (size > limit) {
        failed(f, STATUS_INPUT, "%s has %llu bytes, more than the %zu that such a file can have",
               path, (unsigned long long)size, limit);
    } else {
        data = need(malloc((size_t)size + 1));
        data[size] = '\0';
        *n = (size_t)size;
        if (!file_read_at(fd, path, data, (size_t)size, 0, f)) {
            free(data);
            data = NULL;
        }
    }
    close(fd);
    return data;
}

bool path_exists(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0;
}

bool directory_make(const char *path, struct failure *f)
{
    char *copy = path_printf("%s", path);
    bool good = *copy != '\0';
    if (!good)
        failed(f, STATUS_INPUT, "a directory's name is empty: give one");
    for (char *p = copy + 1; good; p++) {
        char end = *p;
        if (end != '/' && end != '\0')
            continue;
        *p = '\0';
        struct stat s;
        if (mkdir(copy, 0777) != 0 &&
            (errno != EEXIST || stat(copy, &s) != 0 || !S_ISDIR(s.st_mode)))
            good = failed_file(f, "make the directory", copy);
        *p = end;
        if (end == '\0')
            break;
    }
    free(copy);
    return good;
}

bool directory_sync(const char *path, struct failure *f)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool good = fd >= 0 && (fsync(fd) == 0 || errno == EINVAL);
    if (!good)
        failed_file(f, "write", path);
    if (fd >= 0)
        close(fd);
    return good;
}

/* Depth is bounded: checkpoints hold files only. */
static bool remove_below(const char *path, int depth, struct failure *f)
{
    struct stat s;
    if (lstat(path, &s) != 0)
        return errno == ENOENT || failed_file(f, "remove", path);
    if (!S_ISDIR(s.st_mode))
        return unlink(path) == 0 || errno == ENOENT || failed_file(f, "remove", path);
    DIR *d = depth > 0 ? opendir(path) : NULL;
    if (!d)
        return failed_file(f, "remove", path);
    bool good = true;
    for (struct dirent *e; good && (e = readdir(d)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        char *child = path_printf("%s/%s", path, e->d_name);
        good = remove_below(child, depth - 1, f);
        free(child);
    }
    closedir(d);
    return good && (rmdir(path) == 0 || errno == ENOENT || failed_file(f, "remove", path));
}

bool tree_remove(const char *path, struct failure *f)
{
    return remove_below(path, 3, f);
}

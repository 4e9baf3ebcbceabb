/* support.c - failures, memory, time, numbers for people. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "runtime.h"

const char *program_name = "program";

bool failed(struct failure *f, int status, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    f->status = status;
    vsnprintf(f->text, sizeof f->text, format, list);
    va_end(list);
    return false;
}

static const char *advice(int error)
{
    switch (error) {
    case ENOENT:
        return ": check the path";
    case EACCES:
    case EPERM:
        return ": check the permissions";
    case ENOSPC:
    case EDQUOT:
        return ": free some space or choose another place";
    case EFBIG:
        return ": raise the file size limit (ulimit -f)";
    case ENOMEM:
        return ": free some memory";
    case EMFILE:
        return ": raise the limit on open files (ulimit -n)";
    case EROFS:
        return ": choose another place";
    default:
        return "";
    }
}

bool failed_file(struct failure *f, const char *doing, const char *path)
{
    int error = errno;
    bool input = error == ENOENT || error == EACCES || error == EPERM || error == EISDIR ||
                 error == ENOTDIR || error == ELOOP || error == ENAMETOOLONG || error == EEXIST;
    return failed(f, input ? STATUS_INPUT : STATUS_WORLD, "cannot %s %s: %s%s", doing, path,
                  strerror(error), advice(error));
}

/* Bytes of a terminal's control sequences become '?'; UTF-8 passes. */
static void print_clean(FILE *out, const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p; p++)
        putc(*p < 0x20 || *p == 0x7f ? '?' : *p, out);
}

int failure_report(const struct failure *f)
{
    fflush(stdout);
    fprintf(stderr, "%s: error: ", program_name);
    print_clean(stderr, f->text);
    fputc('\n', stderr);
    return f->status;
}

void notice(const char *format, ...)
{
    char text[1000];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    fflush(stdout);
    fprintf(stderr, "%s: note: ", program_name);
    print_clean(stderr, text);
    fputc('\n', stderr);
}

bool slab_alloc(void **slab, size_t bytes, const char *what, struct failure *f)
{
    *slab = NULL;
    if (bytes == 0)
        return true;
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) {
        char size[32];
        return failed(f, STATUS_WORLD,
                      "no memory for %s, %s: free some, or compile a smaller batch or model", what,
                      show_bytes(size, (double)bytes));
    }
#ifdef MADV_HUGEPAGE
    if (bytes >= 4u << 20)
        madvise(at, bytes, MADV_HUGEPAGE);
#endif
    *slab = at;
    return true;
}

void slab_free(void *slab, size_t bytes)
{
    if (slab)
        munmap(slab, bytes);
}

void *need(void *from_malloc)
{
    if (from_malloc)
        return from_malloc;
    fprintf(stderr, "%s: error: out of memory: free some\n", program_name);
    exit(STATUS_WORLD);
}

double clock_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

uint64_t mix64(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

double decimal(float x)
{
    char text[32];
    snprintf(text, sizeof text, "%.7g", (double)x);
    return strtod(text, NULL);
}

char *show_bytes(char *out, double bytes)
{
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    int i = 0;
    while (bytes >= 1024 && i < 4) {
        bytes /= 1024;
        i++;
    }
    snprintf(out, 32, i == 0 ? "%.0f %s" : bytes < 10 ? "%.2f %s" : "%.1f %s", bytes, unit[i]);
    return out;
}

char *show_count(char *out, double n)
{
    static const char *const unit[] = {"", "k", "M", "B", "T"};
    int i = 0;
    while (fabs(n) >= 999.95 && i < 4) {
        n /= 1000;
        i++;
    }
    snprintf(out, 32, i == 0 ? "%.0f%s" : n < 100 ? "%.2f%s" : "%.1f%s", n, unit[i]);
    return out;
}

char *show_time(char *out, double seconds)
{
    double limit = 1e9;
    if (!(seconds >= 0 && seconds < limit))
        snprintf(out, 32, "-");
    else if (seconds < 60)
        snprintf(out, 32, "%.0fs", seconds);
    else if (seconds < 3600)
        snprintf(out, 32, "%dm %02ds", (int)seconds / 60, (int)seconds % 60);
    else if (seconds < 86400)
        snprintf(out, 32, "%dh %02dm", (int)seconds / 3600, (int)seconds % 3600 / 60);
    else
        snprintf(out, 32, "%dd %02dh", (int)(seconds / 86400), (int)seconds % 86400 / 3600);
    return out;
}

/* device_test.c - this machine measured, remembered, and measured again when what is remembered is
 * broken or of another machine. The file under test is included to reach the functions between. */
#include "../../law/device.c"

#include "check.h"

#include <ftw.h>

static void test_measured(struct device *d)
{
    const char *why = NULL;
    CHECK(device_measure(d, &why));
    CHECK(plausible(d));
    CHECK(d->is_host && d->threads >= 1 && d->threads <= MAX_THREADS);
    CHECK(d->flops[DTYPE_F32] > 1e9 && d->flops[DTYPE_F32] < 1e15);
    CHECK(d->memory_bandwidth > 1e8 && d->memory_bandwidth < 1e13);
    CHECK(d->cache_bandwidth > d->memory_bandwidth * 0.8);
    CHECK(d->launch > 1e-9 && d->launch < 1e-2);
    printf(
        "%.0f GFLOP/s, memory %.1f GB/s, cache %.1f GB/s in %.0f MB, barrier %.2f us, %d threads\n",
        d->flops[0] / 1e9, d->memory_bandwidth / 1e9, d->cache_bandwidth / 1e9,
        d->cache_bytes / 1e6, d->launch * 1e6, d->threads);
}

static char *slurp(const char *path, size_t *size)
{
    static char text[8192];
    FILE *f = fopen(path, "r");
    *size = f ? fread(text, 1, sizeof text - 1, f) : 0;
    text[*size] = 0;
    if (f)
        fclose(f);
    return text;
}

static void write_text(const char *path, const char *text, size_t size)
{
    FILE *f = fopen(path, "w");
    CHECK(f && fwrite(text, 1, size, f) == size);
    if (f)
        fclose(f);
}

static void test_remembered(struct arena *a, const char *directory, const struct device *d)
{
    struct device back = {.name = "host"};
    char *path = arena_printf(a, "%s/archc/host.arch", directory);
    cache_write(a, arena_printf(a, "%s/archc", directory), d);
    CHECK(cache_read(path, &back));
    for (int i = 0; i < N_KEYS; i++) {
        double was = *field((struct device *)d, &keys[i]), is = *field(&back, &keys[i]);
        CHECK_NEAR(is, was, 1e-5 * was);
    }
    CHECK(back.threads == d->threads);
    /* cut anywhere, it is not believed */
    size_t size;
    char *text = slurp(path, &size), *whole = arena_copy(a, text, size);
    CHECK(size > 300);
    for (size_t cut = 0; cut + 1 < size; cut++) {
        write_text(path, whole, cut);
        CHECK(!cache_read(path, &back));
    }
    /* nor when the CPU differs, or a number is nonsense */
    char *other = arena_copy(a, whole, size), *stepping = strstr(other, "stepping ");
    stepping[9] = stepping[9] == '9' ? '8' : '9';
    write_text(path, other, size);
    CHECK(!cache_read(path, &back));
    char *wrong = arena_copy(a, whole, size), *stream = strstr(wrong, "stream    = 0");
    CHECK(stream != NULL);
    stream[12] = '7';
    write_text(path, wrong, size);
    CHECK(!cache_read(path, &back));
    write_text(path, whole, size);
    CHECK(cache_read(path, &back));
}

/* The way that resolve() takes: a remembered machine is not measured again. */
static void test_host(struct arena *a, const char *directory, const struct device *d)
{
    struct device first, second;
    const char *why = NULL;
    setenv("XDG_CACHE_HOME", directory, 1);
    CHECK(device_host(a, &first, &why));
    double start = now();
    CHECK(device_host(a, &second, &why));
    CHECK(now() - start < 0.2);
    CHECK(memcmp(&first, &second, sizeof first) == 0);
    CHECK_NEAR(first.flops[0], d->flops[0], 1e-5 * d->flops[0]);
    /* where nothing can be written, nothing is, and nothing fails */
    cache_write(a, "/proc/no/such/place", d);
    setenv("XDG_CACHE_HOME", "relative", 1);
    unsetenv("HOME");
    CHECK(cache_directory(a) == NULL);
    setenv("HOME", "/home/someone", 1);
    CHECK(strcmp(cache_directory(a), "/home/someone/.cache/archc") == 0);
}

static int remove_one(const char *path, const struct stat *s, int kind, struct FTW *w)
{
    (void)s, (void)kind, (void)w;
    return remove(path);
}

int main(void)
{
    char directory[] = "/tmp/archc-device-XXXXXX";
    struct arena *a = arena_new();
    struct device d;
    if (!mkdtemp(directory)) {
        printf("no temporary directory\n");
        return 77;
    }
    test_measured(&d);
    test_remembered(a, directory, &d);
    test_host(a, directory, &d);
    nftw(directory, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    arena_free(a);
    return check_report("law device");
}

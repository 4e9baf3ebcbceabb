/* fuzz_lang - libFuzzer target: any bytes are a .arch file. Not part of the build; from the root:
 *
 *   sh tests/fuzz/fuzz_lang.sh [seconds]
 *
 * Each input is parsed, checked and printed; where it has no errors it is formatted as well, and
 * its format must mean the same and stay as it is when formatted again. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../lang/front.h"

static char *prelude;
static FILE *sink;

static char *read_whole(FILE *f)
{
    long n = ftell(f);
    char *text = calloc(1, (size_t)n + 1);
    rewind(f);
    if (n > 0 && fread(text, 1, (size_t)n, f) != (size_t)n)
        abort();
    return text;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    FILE *f = fopen(getenv("FUZZ_PRELUDE") ? getenv("FUZZ_PRELUDE") : "", "rb");
    sink = tmpfile();
    if (!sink)
        exit(2);
    if (f && !fseek(f, 0, SEEK_END)) {
        prelude = read_whole(f);
        fclose(f);
    }
    return 0;
}

/* The spec of a text, as printed. */
static char *meaning(const char *text, size_t length, int *errors)
{
    struct arena *a = arena_new();
    struct diags d = {.arena = a};
    struct spec s;
    spec_parse(a, "f.arch", text, length, prelude, &d, &s);
    rewind(sink);
    diags_print(&d, sink);
    rewind(sink);
    emit_spec(&s, sink);
    char *out = read_whole(sink);
    *errors = d.errors;
    arena_free(a);
    return out;
}

static char *formatted(const char *text, size_t length)
{
    char path[] = "/tmp/fuzz_lang_XXXXXX";
    int fd = mkstemp(path);
    if (fd < 0 || write(fd, text, length) != (ssize_t)length)
        abort();
    close(fd);
    struct arena *a = arena_new();
    struct diags d = {.arena = a};
    rewind(sink);
    bool ok = format_file(a, path, &d, sink);
    char *out = ok ? read_whole(sink) : NULL;
    unlink(path);
    arena_free(a);
    return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int errors, errors_after;
    char *text = malloc(size + 1); /* exact, so that a read past the end is seen */
    memcpy(text, data, size);
    text[size] = '\0';
    char *before = meaning(text, size, &errors);
    char *once = formatted(text, size);
    if (once) {
        char *after = meaning(once, strlen(once), &errors_after);
        char *twice = formatted(once, strlen(once));
        if (errors != errors_after || (errors == 0 && strcmp(before, after)))
            abort(); /* the meaning changed */
        if (!twice || strcmp(once, twice))
            abort(); /* not idempotent */
        free(after);
        free(twice);
    }
    free(once);
    free(before);
    free(text);
    return 0;
}

/* lang_tool - the front end alone, for its tests.
 *
 *   lang_tool [--prelude FILE] check|parse|fmt|tokens|ast|spec FILE
 *
 * `parse` is `check` from memory, which refuses imports.
 * Diagnostics go to stderr. Exit status 0: no errors, 1: errors, 2: usage. */
#include <stdlib.h>
#include <string.h>

#include "../../lang/lang.h"

static char *read_text(const char *path)
{
    FILE *f = fopen(path, "rb");
    char *text = calloc(1, 1 << 20);
    if (!f || !text || fread(text, 1, (1 << 20) - 1, f) == 0) {
        fprintf(stderr, "lang_tool: cannot read %s\n", path);
        exit(2);
    }
    fclose(f);
    return text;
}

static bool run(struct arena *a, const char *mode, const char *path, const char *prelude,
                struct diags *d)
{
    struct spec spec;
    if (!strcmp(mode, "check"))
        return spec_read(a, path, prelude, d, &spec);
    if (!strcmp(mode, "parse")) {
        char *text = read_text(path);
        bool ok = spec_parse(a, path, text, strlen(text), prelude, d, &spec);
        free(text);
        return ok;
    }
    if (!strcmp(mode, "fmt"))
        return format_file(a, path, d, stdout);
    if (!strcmp(mode, "spec")) {
        bool ok = spec_read(a, path, prelude, d, &spec);
        emit_spec(&spec, stdout);
        return ok;
    }
    if (!strcmp(mode, "tokens"))
        emit_tokens(a, path, d, stdout);
    else if (!strcmp(mode, "ast"))
        emit_ast(a, path, d, stdout);
    else
        exit(2);
    return d->errors == 0;
}

int main(int argc, char **argv)
{
    char *prelude = NULL;
    if (argc == 5 && !strcmp(argv[1], "--prelude")) {
        prelude = read_text(argv[2]);
        argc -= 2;
        argv += 2;
    }
    if (argc != 3) {
        fputs("usage: lang_tool [--prelude FILE] check|parse|fmt|tokens|ast|spec FILE\n", stderr);
        return 2;
    }
    struct arena *a = arena_new();
    struct diags d = {.arena = a};
    bool ok = run(a, argv[1], argv[2], prelude, &d);
    diags_print(&d, stderr);
    arena_free(a);
    free(prelude);
    return ok ? 0 : 1;
}

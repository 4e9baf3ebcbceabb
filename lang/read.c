/* read.c - sources: from disk or memory, with all they import. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "front.h"

/* A file's identity, so that two spellings of one path are read once. */
struct identity {
    dev_t device;
    ino_t inode;
};
struct reader {
    struct program *program;
    struct identity ids[MAX_SOURCES];
    enum { UNREAD, READING, READ } state[MAX_SOURCES];
};

static const char *size_text(struct arena *a, double bytes)
{
    return quantity_text(a, bytes, UNIT_BYTES);
}

static bool too_large(struct arena *a, double bytes, const char **why)
{
    *why = bytes > 0 ? arena_printf(a, "the file holds %s; a .arch file is at most 1MiB",
                                    size_text(a, bytes))
                     : "the file holds more than 1MiB, the most a .arch file may hold";
    return false;
}

/* Reads at most one byte more than is allowed. */
static bool read_all(struct arena *a, int fd, struct source *out, const char **why)
{
    size_t n = 0, room = 16 << 10;
    char *buffer = malloc(room);
    ssize_t got = buffer ? 0 : -1;
    while (buffer && (got = read(fd, buffer + n, room - n)) > 0) {
        n += (size_t)got;
        if (n > MAX_SOURCE_BYTES)
            break;
        if (n == room) {
            char *more = realloc(buffer, room *= 4);
            if (!more)
                got = -1;
            else
                buffer = more;
            if (!more)
                break;
        }
    }
    bool ok = got >= 0 && n <= MAX_SOURCE_BYTES;
    if (ok) {
        out->text = arena_copy(a, buffer, n);
        out->length = (uint32_t)n;
    } else if (got < 0) {
        *why = arena_printf(a, "cannot read it: %s", strerror(errno));
    } else {
        too_large(a, 0, why);
    }
    free(buffer);
    return ok;
}

static bool open_and_read(struct arena *a, const char *path, struct source *out,
                          struct identity *id, const char **why)
{
    *out = (struct source){arena_copy(a, path, strlen(path)), NULL, 0};
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st)) {
        *why = arena_printf(a, "cannot open it: %s", strerror(errno));
        if (fd >= 0)
            close(fd);
        return false;
    }
    *id = (struct identity){st.st_dev, st.st_ino};
    bool ok = false;
    if (S_ISDIR(st.st_mode))
        *why = "it is a directory; name a .arch file in it";
    else if (S_ISREG(st.st_mode) && st.st_size > MAX_SOURCE_BYTES)
        too_large(a, (double)st.st_size, why);
    else
        ok = read_all(a, fd, out, why);
    close(fd);
    return ok;
}

bool source_load(struct arena *a, const char *path, struct source *out, const char **why)
{
    struct identity id;
    return open_and_read(a, path, out, &id, why);
}

/* ---- imports ------------------------------------------------------------------------------- */

static const char *join(struct arena *a, const char *importer, const char *path)
{
    const char *slash = strrchr(importer, '/');
    if (path[0] == '/' || !slash)
        return path;
    return arena_printf(a, "%.*s%s", (int)(slash - importer + 1), importer, path);
}

static void edge(struct program *p, uint32_t from, uint32_t to)
{
    struct ast_import *e = arena_alloc(p->arena, sizeof *e);
    *e = (struct ast_import){from, to, NULL};
    struct ast_import **end = &p->imports;
    while (*end)
        end = &(*end)->next;
    *end = e;
}

static int find_source(const struct reader *r, struct identity id)
{
    for (int i = 0; i < r->program->n_sources; i++)
        if (r->state[i] != UNREAD && r->ids[i].inode == id.inode && r->ids[i].device == id.device)
            return i;
    return -1;
}

static void parse_source(struct reader *r, uint32_t number);

static void import_failed(struct program *p, struct span at, const char *path, const char *why)
{
    p->incomplete = true;
    struct diag *g = diag_error(p->diags, at, "import-missing", "cannot import \"%s\"", path);
    diag_note(p->diags, g, NULL, "%s%s%s", path, path[0] ? ": " : "", why);
    diag_help(p->diags, g, "an import is looked for beside the file that imports it");
}

static void import_one(struct reader *r, uint32_t from, const struct ast_item *item)
{
    struct program *p = r->program;
    struct span at = item->value->at;
    const char *path = item->value->string;
    if (!p->may_import) {
        struct diag *g = diag_error(p->diags, at, "import-refused", "no imports here");
        diag_help(p->diags, g, "text that does not come from a file cannot import files");
        return;
    }
    if (p->n_sources == MAX_SOURCES) {
        struct diag *g = diag_error(p->diags, at, "too-many", "more than %d files", MAX_SOURCES);
        diag_help(p->diags, g, "put these declarations into fewer files");
        return;
    }
    path = join(p->arena, p->sources[from].path, path);
    uint32_t number = (uint32_t)p->n_sources;
    const char *why;
    bool ok = path[0] && open_and_read(p->arena, path, p->sources + number, r->ids + number, &why);
    if (!ok) {
        import_failed(p, at, path, path[0] ? why : "the path is empty");
        return;
    }
    int known = find_source(r, r->ids[number]);
    if (known >= 0 && r->state[known] == READING) {
        struct diag *g = diag_error(p->diags, at, "import-cycle",
                                    known == (int)from ? "\"%s\" imports itself"
                                                       : "\"%s\" is importing this file already",
                                    path);
        diag_help(p->diags, g, "move what both need into a third file, and import that");
        return;
    }
    if (known >= 0) {
        edge(p, from, (uint32_t)known);
        return;
    }
    p->diags->n_sources = ++p->n_sources;
    edge(p, from, number);
    parse_source(r, number);
}

/* Imports nest as deep as there are files: MAX_SOURCES bounds the recursion. */
static void parse_source(struct reader *r, uint32_t number)
{
    struct program *p = r->program;
    r->state[number] = READING;
    struct ast *ast = ast_parse(p->arena, p->diags, number);
    for (const struct ast_item *i = ast->items; i; i = i->next)
        if (i->kind == AST_IMPORT && !diags_full(p->diags))
            import_one(r, number, i);
    r->state[number] = READ;
    p->incomplete |= ast->incomplete;
    p->asts[p->n_asts++] = ast;
}

static void read_prelude(struct program *p, const char *prelude)
{
    if (!prelude)
        return;
    uint32_t number = (uint32_t)p->n_sources;
    p->sources[number] = (struct source){PRELUDE_PATH, prelude, (uint32_t)strlen(prelude)};
    p->diags->n_sources = ++p->n_sources;
    p->prelude = ast_parse(p->arena, p->diags, number);
    p->asts[p->n_asts++] = (struct ast *)p->prelude;
}

static bool read_main(struct program *p, struct reader *r, const char *path, const char *text,
                      size_t length)
{
    const char *why;
    bool ok = true;
    p->n_sources = p->diags->n_sources = 1;
    p->sources[0].path = path;
    if (!p->may_import && length > MAX_SOURCE_BYTES)
        ok = too_large(p->arena, (double)length, &why);
    else if (!p->may_import)
        p->sources[0] = (struct source){path, arena_copy(p->arena, text, length), (uint32_t)length};
    else
        ok = open_and_read(p->arena, path, p->sources, r->ids, &why);
    if (!ok)
        diag_error(p->diags, (struct span){0, 0, 0}, "unreadable", "%s", why);
    return ok;
}

bool program_read(struct program *p, const char *path, const char *text, size_t length,
                  const char *prelude)
{
    struct reader *r = arena_alloc(p->arena, sizeof *r);
    r->program = p;
    p->sources = arena_alloc(p->arena, MAX_SOURCES * sizeof *p->sources);
    p->diags->sources = p->sources;
    p->may_import = text == NULL;
    if (!read_main(p, r, path, text, length))
        return false;
    r->state[0] = READING;
    read_prelude(p, prelude);
    parse_source(r, 0);
    return true;
}

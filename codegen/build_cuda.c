/* build_cuda.c - device units become PTX, and cubins where there is a ptxas.
 *
 * Any clang from 13 on will do, without CUDA's headers: special instructions are inline assembly,
 * which LLVM passes on unread. So an architecture newer than the clang is compiled as the newest
 * one it knows, and the PTX says otherwise afterwards. nvcc compiles the same files. */
#include "build.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- architectures ---- */

/* The processors that kernels are written for; those in between are compiled as the one below. */
static const struct architecture {
    const char *word, *name; /* as asked for, as compiled */
    int sm;
    bool exact;
    const char *ptx; /* least version of PTX */
} architectures[] = {
    {"sm_80", "sm_80", 80, false, "8.0"},    {"sm_86", "sm_86", 86, false, "8.0"},
    {"sm_87", "sm_87", 87, false, "8.0"},    {"sm_89", "sm_89", 89, false, "8.0"},
    {"sm_90", "sm_90a", 90, true, "8.3"},    {"sm_90a", "sm_90a", 90, true, "8.3"},
    {"sm_100", "sm_100", 100, false, "8.6"}, {"sm_120", "sm_120", 120, false, "8.7"},
};
enum { ARCHITECTURES = sizeof architectures / sizeof architectures[0] };

bool cuda_targets_parse(const char *name, size_t n, struct cuda_targets *out, const char **why)
{
    for (int i = 0; i < ARCHITECTURES; i++) {
        const struct architecture *a = &architectures[i];
        if (strlen(a->word) != n || strncmp(a->word, name, n) != 0)
            continue;
        for (int k = 0; k < out->n; k++)
            if (strcmp(out->list[k].name, a->name) == 0)
                return true;
        if (out->n < MAX_CUDA_TARGETS)
            out->list[out->n++] = (struct cuda_target){a->name, a->sm, a->exact};
        return true;
    }
    *why = "host, null, sm_80, sm_86, sm_87, sm_89, sm_90, sm_100 and sm_120";
    return false;
}

static const char *ptx_version(const struct cuda_target *target)
{
    for (int i = 0; i < ARCHITECTURES; i++)
        if (strcmp(architectures[i].name, target->name) == 0)
            return architectures[i].ptx;
    return "8.0";
}

/* ---- the device compiler ---- */

struct device_compiler {
    const char *path, *ptxas; /* ptxas NULL: PTX is embedded */
    int clang;                /* its major version; 0: nvcc */
};

static int clang_version(struct arena *a, const char *path, const char *dir)
{
    struct tasks t = {.arena = a};
    struct task *task = add_task(&t, dir, "device_cc");
    struct text why = {0};
    char line[512];
    int version = 0;
    task->what = "--version";
    word(&task->commands[task->n], path);
    word(&task->commands[task->n++], "--version");
    bool ok = run_tasks(&t, &why);
    FILE *f = ok ? fopen(task->log, "r") : NULL;
    while (f && !version && fgets(line, sizeof line, f)) {
        const char *at = strstr(line, "clang version ");
        if (at)
            version = atoi(at + strlen("clang version "));
    }
    if (f)
        fclose(f);
    text_free(&why);
    return version;
}

static const char *default_device_compiler(struct arena *a)
{
    static const char *const names[] = {"clang-19", "clang-20", "clang-21", "clang-22",
                                        "clang-18", "clang-17", "clang-16", "clang",
                                        "clang-15", "clang-14", "clang-13", "nvcc"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *path = find_tool(a, names[i]);
        if (path)
            return path;
    }
    return NULL;
}

static bool find_compiler(struct arena *a, const struct tools *tools, const char *dir,
                          struct device_compiler *out, struct text *why)
{
    *out = (struct device_compiler){.ptxas = find_tool(a, "ptxas")};
    out->path = tools->device_cc ? find_tool(a, tools->device_cc) : default_device_compiler(a);
    if (!out->path) {
        text_printf(why,
                    "no compiler for device code: %s%s; install clang-19 (no CUDA toolkit is "
                    "needed), or name one with --device-cc",
                    tools->device_cc ? tools->device_cc : "neither clang nor nvcc is in the path",
                    tools->device_cc ? " is not there" : "");
        return false;
    }
    const char *slash = strrchr(out->path, '/');
    if (strncmp(slash ? slash + 1 : out->path, "nvcc", 4) == 0)
        return true;
    out->clang = clang_version(a, out->path, dir);
    if (out->clang >= 13)
        return true;
    text_printf(why, "%s is %s; device code wants clang 13 or later, or nvcc (--device-cc)",
                out->path, out->clang ? "too old a clang" : "neither clang nor nvcc");
    return false;
}

/* The architecture to compile as; another name than the target's: the PTX is to be renamed. */
static const char *compiled_as(int clang, const struct cuda_target *target)
{
    if (clang >= 22 || target->sm <= 80)
        return target->name;
    if (clang >= 19)
        return target->sm <= 90 ? target->name : "sm_90";
    if (clang >= 16)
        return target->sm < 90 ? target->name : "sm_90";
    return target->sm <= 86 ? target->name : "sm_86";
}

/* The version of PTX to ask a clang for, which never guesses one: what it knows, at most 8.0. */
static const char *feature(int clang)
{
    return clang >= 22 ? "+ptx87" : clang >= 16 ? "+ptx78" : clang >= 14 ? "+ptx74" : "+ptx72";
}

/* ---- renaming PTX ---- */

static char *read_text(const char *path, size_t *length, struct text *why)
{
    FILE *f = fopen(path, "rb");
    struct text t = {0};
    char block[1 << 14];
    for (size_t n; f && (n = fread(block, 1, sizeof block - 1, f)) > 0;) {
        block[n] = 0;
        text_add(&t, block);
    }
    if (!f || ferror(f)) {
        text_printf(why, "cannot read %s: %s", path, strerror(errno));
        text_free(&t);
    }
    if (f)
        fclose(f);
    *length = t.length;
    return t.at;
}

/* The file's `.version` and `.target` become `how` ("8.3 sm_90a"). */
static bool rename_ptx(const struct task *task, struct text *why)
{
    char version[16] = "", target[16] = "";
    size_t length;
    char *text = read_text(task->from, &length, why);
    if (!text || sscanf(task->how, "%15s %15s", version, target) != 2) {
        free(text);
        return false;
    }
    FILE *out = fopen(task->from, "wb");
    for (const char *line = text; out && *line;) {
        size_t n = strcspn(line, "\n") + (line[strcspn(line, "\n")] == '\n');
        if (strncmp(line, ".version ", 9) == 0)
            fprintf(out, ".version %s\n", version);
        else if (strncmp(line, ".target ", 8) == 0)
            fprintf(out, ".target %s\n", target);
        else
            fwrite(line, 1, n, out);
        line += n;
    }
    bool ok = out && !ferror(out);
    if (out && fclose(out) != 0)
        ok = false;
    if (!ok)
        text_printf(why, "cannot write %s: %s", task->from, strerror(errno));
    free(text);
    return ok;
}

/* ---- tasks ---- */

struct device_build {
    struct tasks *tasks;
    const struct device_compiler *compiler;
    enum device_stage stage;
    bool images;
    const char *dir;
};

static void include_words(const struct device_build *b, struct command *c)
{
    struct arena *a = b->tasks->arena;
    word(c, arena_printf(a, "-I%s", b->dir));
    word(c, arena_printf(a, "-I%s/cuda", b->dir));
}

static void clang_words(const struct device_build *b, struct command *c,
                        const struct cuda_target *target)
{
    struct arena *a = b->tasks->arena;
    const char *as = compiled_as(b->compiler->clang, target);
    word(c, b->compiler->path);
    word(c, "-x");
    word(c, "cuda");
    word(c, "--cuda-device-only");
    word(c, "-nocudainc");
    word(c, "-nocudalib");
    word(c, "--cuda-path=/nonexistent");
    word(c, arena_printf(a, "--cuda-gpu-arch=%s", as));
    word(c, "-Xclang");
    word(c, "-target-feature");
    word(c, "-Xclang");
    word(c, target->sm > 90 || b->compiler->clang < 19 ? feature(b->compiler->clang)
            : target->sm == 90                         ? "+ptx83"
                                                       : "+ptx80");
    word(c, "-O3");
    if (strcmp(as, target->name) != 0) {
        word(c, arena_printf(a, "-DDEVICE_SM=%d", target->sm));
        if (target->sm == 90)
            word(c, "-DDEVICE_SM90A");
    }
    include_words(b, c);
    word(c, "-S");
    if (b->stage == DEVICE_LLVM)
        word(c, "-emit-llvm");
}

static void nvcc_words(const struct device_build *b, struct command *c,
                       const struct cuda_target *target)
{
    word(c, b->compiler->path);
    word(c, "-x");
    word(c, "cu");
    word(c, "-O3");
    word(c, arena_printf(b->tasks->arena, "-arch=%s", target->name));
    word(c, "-Xptxas");
    word(c, "-v"); /* registers and spills stay in the log */
    include_words(b, c);
    word(c, b->stage == DEVICE_PTX ? "-ptx" : "-cubin");
}

static void add_unit(const struct device_build *b, const char *file,
                     const struct cuda_target *target)
{
    static const char *const suffix[] = {
        [DEVICE_LLVM] = "ll", [DEVICE_PTX] = "ptx", [DEVICE_CUBIN] = "cubin"};
    struct arena *a = b->tasks->arena;
    int clang = b->compiler->clang, stem = (int)strlen(file) - 3;
    const char *name = arena_printf(a, "%.*s.%s", stem, file, target->name);
    struct task *task = add_task(b->tasks, b->dir, name);
    struct command *first = &task->commands[task->n++];
    bool assemble = clang && b->stage == DEVICE_CUBIN && b->compiler->ptxas;
    const char *result =
        arena_printf(a, "%s/%s.%s", b->dir, name, b->images ? "image" : suffix[b->stage]);
    const char *ptx = assemble ? arena_printf(a, "%s/%s.ptx", b->dir, name) : result;
    task->what = name;
    if (clang)
        clang_words(b, first, target);
    else
        nvcc_words(b, first, target);
    word(first, arena_printf(a, "%s/%s", b->dir, file));
    word(first, "-o");
    word(first, ptx);
    if (clang && b->stage != DEVICE_LLVM && strcmp(compiled_as(clang, target), target->name) != 0) {
        task->after_first = rename_ptx;
        task->from = ptx;
        task->how = arena_printf(a, "%s %s", ptx_version(target), target->name);
    }
    if (!assemble)
        return;
    struct command *second = &task->commands[task->n++];
    word(second, b->compiler->ptxas);
    word(second, "-v");
    word(second, arena_printf(a, "-arch=%s", target->name));
    word(second, ptx);
    word(second, "-o");
    word(second, result);
}

bool add_device_tasks(struct tasks *t, const struct emitted_files *files, const struct tools *tools,
                      enum device_stage stage, bool images, const char *dir, struct text *why)
{
    struct device_compiler *compiler = arena_alloc(t->arena, sizeof *compiler);
    if (!find_compiler(t->arena, tools, dir, compiler, why))
        return false;
    if (!compiler->clang && stage == DEVICE_LLVM) {
        text_add(why, "nvcc has no LLVM to show; name a clang with --device-cc");
        return false;
    }
    if (compiler->clang && stage == DEVICE_CUBIN && !images && !compiler->ptxas) {
        text_add(why, "a cubin wants ptxas, which is neither in the path nor in "
                      "/usr/local/cuda/bin; --emit=ptx needs none");
        return false;
    }
    struct device_build b = {t, compiler, stage, images, dir};
    for (int i = 0; i < files->n; i++)
        for (int k = 0; files->files[i].device && k < tools->cuda->n; k++)
            add_unit(&b, files->files[i].name, &tools->cuda->list[k]);
    return true;
}

bool build_device(const struct emitted_files *files, const struct tools *tools,
                  enum device_stage stage, const char *dir, struct text *why)
{
    struct tasks *t = calloc(1, sizeof *t);
    if (!t) {
        text_add(why, "out of memory");
        return false;
    }
    t->arena = arena_new();
    t->verbose = tools->verbose;
    bool ok = write_files(files, dir, why) && write_resources(tools, dir, why) &&
              add_device_tasks(t, files, tools, stage, false, dir, why) && run_tasks(t, why);
    arena_free(t->arena);
    free(t);
    return ok;
}

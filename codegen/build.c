/* build.c - emitted files become a program: write, compile as many at once as there are processors,
 * link with the run-time library that archc carries.
 *
 * The compiler is a subprocess. All work happens in a directory of its own; the program appears
 * under its name only when it is whole. */
#include "build.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

/* ---- what archc carries ---- */

#define RESOURCE(number, name) extern const char resource_##number[], resource_##number##_end[];
#include "resources.inc"
#undef RESOURCE

static const struct resource {
    const char *name, *begin, *end;
} resources[] = {
#define RESOURCE(number, name) {name, resource_##number, resource_##number##_end},
#include "resources.inc"
#undef RESOURCE
};
enum { RESOURCES = sizeof resources / sizeof resources[0] };

/* ---- files ---- */

bool write_file(const char *dir, const char *name, const char *at, size_t n, struct text *why)
{
    struct text path = {0};
    text_printf(&path, "%s/%s", dir, name);
    FILE *f = fopen(path.at, "wb");
    bool ok = f && fwrite(at, 1, n, f) == n;
    if (f && fclose(f) != 0)
        ok = false;
    if (!ok)
        text_printf(why, "cannot write %s: %s", path.at, strerror(errno));
    text_free(&path);
    return ok;
}

bool write_files(const struct emitted_files *files, const char *dir, struct text *why)
{
    if (mkdir(dir, 0777) != 0 && errno != EEXIST) {
        text_printf(why, "cannot make the directory %s: %s", dir, strerror(errno));
        return false;
    }
    for (int i = 0; i < files->n; i++)
        if (!write_file(dir, files->files[i].name, files->files[i].text.at,
                        files->files[i].text.length, why))
            return false;
    return true;
}

/* All of a file; false: a line in `why`. */
static bool read_all(FILE *f, const char *path, struct text *out, struct text *why)
{
    char block[1 << 14];
    for (size_t n; (n = fread(block, 1, sizeof block, f)) > 0;)
        text_addn(out, block, n);
    if (ferror(f))
        text_printf(why, "cannot read %s: %s", path, strerror(errno));
    return !ferror(f);
}

/* The file of tools->kernels that replaces a resource, where there is one: *theirs. The caller
 * frees. */
static bool replaced(const struct tools *tools, const char *resource, struct text *out,
                     bool *theirs, struct text *why)
{
    const char *name = strncmp(resource, "cuda/", 5) == 0 ? resource + 5 : NULL;
    struct text path = {0};
    bool ok = true;
    *theirs = false;
    if (!name || !tools->kernels)
        return true;
    text_printf(&path, "%s/%s", tools->kernels, name);
    FILE *f = fopen(path.at, "rb");
    if (f) {
        *theirs = true;
        ok = read_all(f, path.at, out, why);
        fclose(f);
    } else if (errno != ENOENT) {
        text_printf(why, "cannot read %s: %s", path.at, strerror(errno));
        ok = false;
    }
    text_free(&path);
    return ok;
}

static bool write_resource(const struct tools *tools, const struct resource *r, const char *dir,
                           int *taken, struct text *why)
{
    struct text other = {0};
    bool theirs, ok = replaced(tools, r->name, &other, &theirs, why);
    if (ok)
        ok = theirs ? write_file(dir, r->name, other.at, other.length, why)
                    : write_file(dir, r->name, r->begin, (size_t)(r->end - r->begin), why);
    text_free(&other);
    *taken += theirs;
    return ok;
}

bool write_resources(const struct tools *tools, const char *dir, struct text *why)
{
    struct text cuda = {0};
    int taken = 0;
    text_printf(&cuda, "%s/cuda", dir);
    bool made = mkdir(cuda.at, 0777) == 0 || errno == EEXIST;
    if (!made)
        text_printf(why, "cannot make the directory %s: %s", cuda.at, strerror(errno));
    text_free(&cuda);
    if (!made)
        return false;
    for (int i = 0; i < RESOURCES; i++)
        if (!write_resource(tools, &resources[i], dir, &taken, why))
            return false;
    if (tools->kernels && taken == 0)
        text_printf(why, "--kernels %s: no file there has the name of a CUDA kernel's",
                    tools->kernels);
    return !tools->kernels || taken > 0;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

void remove_directory(const char *dir)
{
    nftw(dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

/* ---- tools ---- */

void word(struct command *c, const char *w)
{
    if (c->n < MAX_WORDS)
        c->words[c->n++] = w;
    c->words[c->n] = NULL;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

const char *find_tool(struct arena *a, const char *name)
{
    if (strchr(name, '/'))
        return access(name, X_OK) == 0 ? name : NULL;
    const char *path = getenv("PATH");
    for (; path && *path; path += strcspn(path, ":"), path += *path == ':') {
        const char *whole = arena_printf(a, "%.*s/%s", (int)strcspn(path, ":"), path, name);
        if (access(whole, X_OK) == 0)
            return whole;
    }
    const char *cuda = arena_printf(a, "/usr/local/cuda/bin/%s", name);
    return access(cuda, X_OK) == 0 ? cuda : NULL;
}

struct task *add_task(struct tasks *t, const char *dir, const char *name)
{
    assert(t->n < MAX_TASKS);
    struct task *task = &t->list[t->n++];
    *task = (struct task){.log = arena_printf(t->arena, "%s/%s.log", dir, name)};
    return task;
}

/* Starts the command that is due. Its paths are whole; output goes behind what the log has. */
static bool start(struct task *task, bool verbose, struct text *why)
{
    const struct command *c = &task->commands[task->at];
    if (verbose) {
        for (int i = 0; i < c->n; i++)
            fprintf(stderr, "%s%s", i ? " " : "+ ", c->words[i]);
        fputc('\n', stderr);
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, task->log, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    task->started = seconds();
    int error =
        posix_spawnp(&task->pid, c->words[0], &actions, NULL, (char **)(void *)c->words, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (error) {
        task->pid = 0;
        text_printf(why, "cannot run %s: %s; install it, or name another compiler with --cc",
                    c->words[0], strerror(error));
        return false;
    }
    return true;
}

static void add_log(struct text *why, const char *path)
{
    char line[512];
    FILE *f = fopen(path, "r");
    for (int i = 0; f && i < 12 && fgets(line, sizeof line, f); i++)
        text_printf(why, "%s%s", i == 0 ? "\n" : "", line);
    if (f)
        fclose(f);
}

/* Waits for the task's command; its failure goes into `why`, once. */
static bool finish(struct task *task, bool verbose, struct text *why)
{
    int status = 0;
    while (waitpid(task->pid, &status, 0) < 0 && errno == EINTR)
        ;
    bool ok = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (verbose)
        fprintf(stderr, "  %s %s: %.2f s\n", task->commands[task->at].words[0], task->what,
                seconds() - task->started);
    if (!ok && why->length == 0) {
        text_printf(why, "%s %s failed", task->commands[task->at].words[0], task->what);
        add_log(why, task->log);
    }
    task->pid = 0;
    return ok;
}

/* The running task whose command has ended, or will end first. */
static struct task *next_to_end(struct tasks *t)
{
    struct task *oldest = NULL;
    siginfo_t ended = {0};
    waitid(P_ALL, 0, &ended, WEXITED | WNOWAIT);
    for (int i = 0; i < t->n; i++) {
        if (t->list[i].pid && t->list[i].pid == ended.si_pid)
            return &t->list[i];
        if (t->list[i].pid && !oldest)
            oldest = &t->list[i];
    }
    return oldest; /* it was another child of this process that ended */
}

/* Ends the task's command and starts its next one. False: it failed, or was the last (*more). */
static bool advance(struct tasks *t, struct task *task, bool *more, struct text *why)
{
    *more = false;
    if (!finish(task, t->verbose, why))
        return false;
    if (task->at == 0 && task->after_first && !task->after_first(task, why))
        return false;
    if (++task->at == task->n)
        return true;
    *more = start(task, t->verbose, why);
    return *more;
}

bool run_tasks(struct tasks *t, struct text *why)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    int at_once = t->jobs > 0 ? t->jobs : processors < 1 ? 1 : (int)processors;
    int running = 0, next = 0;
    bool ok = true;
    while (running > 0 || (ok && next < t->n)) {
        if (ok && next < t->n && running < at_once) {
            ok = start(&t->list[next++], t->verbose, why);
            running += ok;
            continue;
        }
        struct task *task = next_to_end(t);
        bool more = false;
        if (ok)
            ok = advance(t, task, &more, why);
        else
            finish(task, t->verbose, why);
        running -= !more;
    }
    return ok;
}

/* ---- compiling and linking ---- */

/* Kernels say in their vectors what may be reordered; nothing more is allowed to the compiler. */
static void compile_words(struct command *c, const struct tools *tools, const char *march)
{
    word(c, tools->cc);
    word(c, "-std=gnu11");
    word(c, "-O3");
    word(c, march);
    word(c, "-ffp-contract=fast");
    word(c, "-fno-math-errno");
    word(c, "-fno-trapping-math");
    word(c, "-fno-strict-aliasing");
#ifdef ARCHC_SANITIZE
    word(c, "-g");
    word(c, "-fsanitize=address,undefined");
    word(c, "-fno-sanitize-recover=undefined");
#endif
}

struct build {
    const struct emitted_files *files;
    const struct tools *tools;
    const char *dir, *march, *predicted[3];
    struct arena *arena;
};

static bool is_inference(const char *name)
{
    return strcmp(name, "prefill.c") == 0 || strcmp(name, "decode.c") == 0;
}

static void add_compile(struct build *b, struct tasks *t, const struct emitted *file)
{
    struct arena *a = b->arena;
    struct task *task = add_task(t, b->dir, file->name);
    struct command *c = &task->commands[task->n++];
    task->what = file->name;
    compile_words(c, b->tools, b->march);
    word(c, arena_printf(a, "-I%s", b->dir));
    if (file->cuda) {
        word(c, arena_printf(a, "-I%s/cuda", b->dir));
        word(c, arena_printf(a, "-Wa,-I%s", b->dir)); /* the images */
    }
    for (int k = 0; k < 3; k++)
        word(c, b->predicted[k]);
    if (b->tools->training_only && is_inference(file->name))
        word(c, "-O0");
    word(c, "-c");
    word(c, arena_printf(a, "%s/%s", b->dir, file->name));
    word(c, "-o");
    word(c, arena_printf(a, "%s/%s.o", b->dir, file->name));
}

/* Host and device units beside each other, then what embeds the device's images. */
static bool compile_all(struct build *b, struct text *why)
{
    struct tasks t = {.arena = b->arena, .verbose = b->tools->verbose, .jobs = b->tools->jobs};
    for (int i = 0; i < b->files->n; i++)
        if (b->files->files[i].compile && !b->files->files[i].cuda)
            add_compile(b, &t, &b->files->files[i]);
    if (b->tools->cuda && b->tools->cuda->n &&
        !add_device_tasks(&t, b->files, b->tools, DEVICE_CUBIN, true, b->dir, why))
        return false;
    if (!run_tasks(&t, why))
        return false;
    t.n = 0;
    for (int i = 0; i < b->files->n; i++)
        if (b->files->files[i].compile && b->files->files[i].cuda)
            add_compile(b, &t, &b->files->files[i]);
    return run_tasks(&t, why);
}

static bool link_all(struct build *b, const char *program, struct text *why)
{
    struct tasks t = {.arena = b->arena, .verbose = b->tools->verbose};
    struct task *task = add_task(&t, b->dir, "program");
    struct command *c = &task->commands[task->n++];
    task->what = "program";
    word(c, b->tools->cc);
#ifdef ARCHC_SANITIZE
    word(c, "-fsanitize=address,undefined");
#endif
    for (int i = 0; i < b->files->n; i++)
        if (b->files->files[i].compile)
            word(c, arena_printf(b->arena, "%s/%s.o", b->dir, b->files->files[i].name));
    word(c, arena_printf(b->arena, "%s/libarchrt.a", b->dir));
    word(c, "-lm");
    word(c, "-lpthread");
    word(c, "-ldl");
    word(c, "-o");
    word(c, program);
    return run_tasks(&t, why);
}

/* Copies next to `output` and renames, so that a full disk leaves no half a program. */
static bool install(const char *from, const char *output, struct text *why)
{
    struct text temporary = {0};
    text_printf(&temporary, "%s.part.%ld", output, (long)getpid());
    FILE *in = fopen(from, "rb"), *out = fopen(temporary.at, "wb");
    char block[1 << 16];
    bool ok = in && out;
    for (size_t n; ok && (n = fread(block, 1, sizeof block, in)) > 0;)
        ok = fwrite(block, 1, n, out) == n;
    if (in)
        fclose(in);
    if (out && fclose(out) != 0)
        ok = false;
    ok = ok && chmod(temporary.at, 0755) == 0 && rename(temporary.at, output) == 0;
    if (!ok) {
        text_printf(why, "cannot write %s: %s", output, strerror(errno));
        unlink(temporary.at);
    }
    text_free(&temporary);
    return ok;
}

static char *work_directory(const struct tools *tools, struct text *why)
{
    struct text dir = {0};
    if (tools->keep) {
        text_add(&dir, tools->keep);
        if (mkdir(dir.at, 0777) == 0 || errno == EEXIST)
            return dir.at;
    } else {
        const char *tmp = getenv("TMPDIR");
        text_printf(&dir, "%s/archc-XXXXXX", tmp && *tmp ? tmp : "/tmp");
        if (mkdtemp(dir.at))
            return dir.at;
    }
    text_printf(why, "cannot make the directory %s: %s", dir.at, strerror(errno));
    text_free(&dir);
    return NULL;
}

bool build_program(const struct emitted_files *files, const struct tools *tools,
                   const double predicted[3], const char *output, struct text *why)
{
    static const char *const names[] = {"TRAIN", "PREFILL", "DECODE"};
    char *dir = work_directory(tools, why);
    if (!dir)
        return false;
    struct build b = {.files = files, .tools = tools, .dir = dir, .arena = arena_new()};
    b.march = arena_printf(b.arena, "-march=%s", tools->march);
    for (int k = 0; k < 3; k++)
        b.predicted[k] = arena_printf(b.arena, "-DPREDICTED_%s=%.6g", names[k], predicted[k]);
    const char *program = arena_printf(b.arena, "%s/program", dir);
    bool ok = write_files(files, dir, why) && write_resources(tools, dir, why) &&
              compile_all(&b, why) && link_all(&b, program, why) && install(program, output, why);
    if (!tools->keep)
        remove_directory(dir);
    arena_free(b.arena);
    free(dir);
    return ok;
}

static uint64_t mix(uint64_t h, const char *at, size_t n)
{
    for (size_t i = 0; i < n; i++)
        h = (h ^ (unsigned char)at[i]) * 1099511628211u;
    return (h ^ n) * 1099511628211u;
}

uint64_t build_fingerprint(const struct emitted_files *files, const struct tools *tools)
{
    uint64_t h = 14695981039346656037u;
    for (int i = 0; i < files->n; i++) {
        h = mix(h, files->files[i].name, strlen(files->files[i].name));
        h = mix(h, files->files[i].text.at, files->files[i].text.length);
    }
    for (int i = 0; i < RESOURCES; i++)
        h = mix(h, resources[i].begin, (size_t)(resources[i].end - resources[i].begin));
    h = mix(h, tools->cc, strlen(tools->cc));
    h = mix(h, tools->march, strlen(tools->march));
    return mix(h, tools->training_only ? "training" : "whole", 5);
}

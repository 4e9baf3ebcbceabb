/* build.h - what build.c and build_cuda.c share: running tools, several at once. */
#ifndef ARCHC_BUILD_H
#define ARCHC_BUILD_H

#include "codegen.h"

#include <sys/types.h>

/* The words of one tool run. Strings are the arena's, or literals. */
enum { MAX_WORDS = 64 };
struct command {
    const char *words[MAX_WORDS + 1];
    int n;
};
void word(struct command *c, const char *w);

/* Commands that run one behind the other; tasks run beside each other. */
enum { MAX_COMMANDS = 3, MAX_TASKS = 96 };
struct task {
    struct command commands[MAX_COMMANDS];
    /* Runs in this process behind the first command, on the file `from`; NULL: nothing. */
    bool (*after_first)(const struct task *, struct text *why);
    const char *from, *how;
    int n, at; /* commands, the one that runs */
    const char *what, *log;
    pid_t pid;
    double started;
};
struct tasks {
    struct arena *arena;
    struct task list[MAX_TASKS];
    int n;
    bool verbose;
    int jobs; /* tools at once; 0: as many as there are processors */
};
/* A new task whose output goes to DIR/NAME.log. */
struct task *add_task(struct tasks *t, const char *dir, const char *name);
/* Runs all of them, `jobs` at once. False: the first failure in `why`. */
bool run_tasks(struct tasks *t, struct text *why);

bool write_file(const char *dir, const char *name, const char *at, size_t n, struct text *why);
/* The kernel sources and headers that archc carries, those of tools->kernels in their places. */
bool write_resources(const struct tools *tools, const char *dir, struct text *why);
/* DIR/NAME in the first directory of the path that has it, else in CUDA's own; NULL: nowhere. */
const char *find_tool(struct arena *a, const char *name);

/* Adds a task for each unit and target that leaves UNIT.TARGET.image (or .ll, .ptx, .cubin) in
 * `dir`. */
bool add_device_tasks(struct tasks *t, const struct emitted_files *files, const struct tools *tools,
                      enum device_stage stage, bool images, const char *dir, struct text *why);

#endif

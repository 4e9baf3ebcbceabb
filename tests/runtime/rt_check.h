/* rt_check.h - checks that say where they failed, and scratch files. */
#ifndef RT_CHECK_H
#define RT_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime.h"

static int failures;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);                \
            failures++;                                                                            \
        }                                                                                          \
    } while (0)

/* The failure is a user's, one clean line, and says `part`. */
#define CHECK_FAILURE(f, part)                                                                     \
    do {                                                                                           \
        if ((f).status != STATUS_INPUT || !strstr((f).text, part) || strchr((f).text, '\n')) {     \
            fprintf(stderr, "%s:%d: status %d, '%s' does not say '%s'\n", __FILE__, __LINE__,      \
                    (f).status, (f).text, part);                                                   \
            failures++;                                                                            \
        }                                                                                          \
    } while (0)

static char scratch[64] = "/tmp/rt-test-XXXXXX";

/* Every test works in a directory of its own. */
static inline void enter_scratch(void)
{
    if (!mkdtemp(scratch) || chdir(scratch) != 0) {
        perror(scratch);
        exit(1);
    }
}

static inline int leave_scratch(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", scratch);
    if (chdir("/") != 0 || system(command) != 0)
        failures++;
    if (failures)
        fprintf(stderr, "%d checks failed\n", failures);
    return failures != 0;
}

static inline void write_file(const char *path, const void *data, size_t n)
{
    FILE *out = fopen(path, "wb");
    if (!out || fwrite(data, 1, n, out) != n || fclose(out) != 0) {
        perror(path);
        exit(1);
    }
}

#endif

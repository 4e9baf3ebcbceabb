/* options.h - one table describes a subcommand's options: it is parsed, checked and printed as
 * help. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "runtime.h"

enum option_kind {
    OPTION_FLAG,  /* bool * */
    OPTION_INT,   /* int64_t *; suffixes K M B T (powers of 1000) and Ki Mi Gi are read */
    OPTION_REAL,  /* double * */
    OPTION_TEXT,  /* const char ** */
    OPTION_TEXTS, /* struct texts *: takes words up to the next --option; may be repeated */
    OPTION_CHOICE /* const char **; `argument` lists the words: "fp32|bf16" */
};

struct texts {
    const char **at;
    int n;
};

struct option {
    const char *name;     /* without the dashes; NULL ends the table */
    const char *argument; /* what help calls the value: "N", "FILE.."; NULL for flags */
    enum option_kind kind;
    void *value;     /* holds the default */
    bool *given;     /* set where not NULL */
    double min, max; /* OPTION_INT, OPTION_REAL: inclusive; both 0: no limits */
    const char *help;
};

/* Reads argv[1..]. `positional` takes the other words; NULL: there must be none.
 * OPTIONS_HELP: --help was printed. OPTIONS_WRONG: `f` says what (STATUS_USAGE). */
enum options_result { OPTIONS_READ, OPTIONS_HELP, OPTIONS_WRONG };
/* Both "--name value" and "--name=value". `summary` is the first line of the help. */
enum options_result options_read(const struct option *table, const char *summary, int argc,
                                 char **argv, struct texts *positional, struct failure *f);

/* "1.5M", "0x10" is refused. False: not a whole number in [min, max]. */
bool number_read(const char *text, int64_t min, int64_t max, int64_t *out);

/* The word of `words` nearest to `word`, or NULL where none is near. words ends with NULL. */
const char *nearest_word(const char *word, const char *const *words);

#endif

/* runtime.h - what the parts of the run-time library know of each other. Not installed: an emitted
 * program sees archrt.h only. Sectioned by the file that implements it.
 *
 * Errors are values: a function that can fail returns false and says why in `struct failure`, one
 * line that names what is wrong and what to do. Only main() ends the process. */
#ifndef RUNTIME_H
#define RUNTIME_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "archrt.h"

/* Exit statuses of the program. */
enum status {
    STATUS_OK = 0,
    STATUS_INPUT = 1,        /* a file, a text or a checkpoint is wrong */
    STATUS_USAGE = 2,        /* the command line is wrong */
    STATUS_WORLD = 4,        /* the disk is full, memory is short */
    STATUS_INTERRUPTED = 130 /* SIGINT or SIGTERM; what there was is saved */
};

/* ---- support.c: failures, memory, time, random numbers, numbers for people ---------------------
 */

struct failure {
    int status; /* enum status */
    char text[1000];
};

/* Fills in `f` and returns false. */
bool failed(struct failure *f, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* "PATH: what strerror says", STATUS_INPUT where the path is at fault (missing, a directory, not
 * permitted), else STATUS_WORLD. `doing` is "read", "write", ... Uses errno. Returns false. */
bool failed_file(struct failure *f, const char *doing, const char *path);
/* "NAME: error: TEXT" on stderr; returns f->status. Everything unprintable in the text is shown as
 * '?', so that a hostile file cannot send escape sequences to the terminal. */
int failure_report(const struct failure *f);
void notice(const char *format, ...) __attribute__((format(printf, 1, 2))); /* "NAME: note: TEXT" */
extern const char *program_name; /* last part of argv[0] */

/* Zeroed, 64-byte aligned (in fact page aligned; large pages where the system has them). False:
 * there is not so much memory. slab_free takes the same size; both accept 0. */
bool slab_alloc(void **slab, size_t bytes, const char *what, struct failure *f);
void slab_free(void *slab, size_t bytes);
/* malloc and realloc that end the process with status 4 and one line: for small things only. */
void *need(void *from_malloc);

double clock_seconds(void); /* monotonic */

/* A good 64-bit mix of x (splitmix64): numbered random numbers, random(seed, i), need no state. */
uint64_t mix64(uint64_t x);

/* A float as the decimal number people wrote: 1e-05, not 9.99999975e-06. */
double decimal(float x);
/* "1.5 GiB", "12.3k", "3m 20s" into a buffer of at least 32 bytes, which is returned. */
char *show_bytes(char *out, double bytes);
char *show_count(char *out, double n);
char *show_time(char *out, double seconds);

/* ---- model.c: the emitted table's tensors, and what follows from the architecture ---------------
 */

/* Elements of a tensor. */
int64_t tensor_size(const struct archrt_tensor *t);
const struct archrt_tensor *tensor_find(const struct archrt_model *m, const char *name);
/* Initial parameters from the table: normal(0, init), gains 1. The same for any number of threads.
 */
void params_init(const struct archrt_model *m, float *params, uint64_t seed);
/* cos, sin of position p and frequency i at [p][i][2], rotate-half order, llama3 scaling applied.
 * `rope` holds context * head_dim floats. */
void rope_table(const struct archrt_arch *a, float *rope);
/* FLOPs of one token: matrices and the head at two a multiply-add, causal attention over `keys`
 * keys on average. Training is three times the forward pass, at (T + 1) / 2 keys. */
double flops_forward(const struct archrt_model *m, double keys);
double flops_train(const struct archrt_model *m);

/* ---- infer.c: one sequence through the packed weights ------------------------------------------
 */

struct inference {
    const struct archrt_model *model;
    struct archrt_infer state; /* .past tokens are in the cache */
    void *weights, *cache, *work, *rope;
};

/* Packs `params` (which may be released afterwards). Release with inference_close. */
bool inference_open(struct inference *s, const struct archrt_model *m, const float *params,
                    struct failure *f);
void inference_close(struct inference *s);
/* Feeds n tokens in chunks; past + n <= context. logits: [V] after the last one, or NULL. With
 * `target` and `logprobs` ([n] each) also log p(target[i] | what came before and token[i]). */
void inference_feed(struct inference *s, const int32_t *token, int n, float *logits,
                    const int32_t *target, float *logprobs);
void inference_step(struct inference *s, int32_t token, float *logits); /* one token, decode */

/* ---- subcommands: argv[0] is the subcommand's name; the exit status is returned
 * ------------------ */

int cmd_info(int argc, char **argv);     /* info.c */
int cmd_train(int argc, char **argv);    /* train.c */
int cmd_eval(int argc, char **argv);     /* eval.c */
int cmd_score(int argc, char **argv);    /* eval.c */
int cmd_generate(int argc, char **argv); /* generate.c */
int cmd_bench(int argc, char **argv);    /* bench.c */
int cmd_verify(int argc, char **argv);   /* verify.c */
int cmd_export(int argc, char **argv);   /* export.c */

#endif

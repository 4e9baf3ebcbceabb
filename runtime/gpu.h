/* gpu.h - a device that runs CUDA kernels, and a program's phases on it. Sectioned by file. */
#ifndef GPU_H
#define GPU_H

#include <jansson.h>

#include "archrt_device.h"
#include "runtime.h"

/* ---- what a device can do: device_cuda.c is the driver's, tests/cuda has an emulated one --------
 *
 * Work is queued in one order; copies stand in that order too. Functions that return bool put one
 * line into device->why where they return false. */

enum { DEVICE_PLACES = 4 };
struct device;
/* Whose matrix products: ours; the library's in training, where it loads (NOTES.md says why not for
 * prompts); the library's; the library's where it loads. */
enum products { PRODUCTS_OWN, PRODUCTS_AUTO, PRODUCTS_LIBRARY, PRODUCTS_IF_LOADED };
struct device_api {
    bool (*alloc)(struct device *, size_t bytes,
                  void **out);                /* not initialised, 256-byte aligned */
    void (*release)(struct device *, void *); /* or NULL */
    bool (*host_alloc)(struct device *, size_t bytes, void **out); /* of the host, pinned */
    void (*host_release)(struct device *, void *);
    bool (*clear)(struct device *, void *at, size_t bytes);
    bool (*copy)(struct device *, void *to, const void *from, size_t bytes); /* on the device */
    /* `from` may change when it returns; but one from host_alloc is read when the queue comes
     * there, and nothing is waited for. */
    bool (*to_device)(struct device *, void *to, const void *from, size_t bytes);
    /* `to` is there after the next wait(), or when a place behind is reached; it is from
     * host_alloc, or any memory if the caller waits before it goes away. */
    bool (*from_device)(struct device *, void *to, const void *from, size_t bytes);
    bool (*wait)(struct device *); /* for all that was queued */
    /* Marks a place in the queue; waits until it is reached. 0 .. DEVICE_PLACES - 1. */
    bool (*place)(struct device *, int which);
    bool (*reach)(struct device *, int which);
    /* Writes to `to`, CUDA_MAP_BYTES of the host, 64-byte aligned, the tensor map of what lies at
     * `at` on the device. */
    bool (*tensor_map)(struct device *, void *to, const struct cuda_map *, void *at);
    bool (*load)(struct device *, const char *name, const char *image, size_t bytes, void **out);
    void (*unload)(struct device *, void *module);
    /* `shared`: bytes of shared memory a block. `beside`: its blocks shall be resident together
     * with another kernel's. */
    bool (*function)(struct device *, void *module, const char *name, unsigned shared, bool beside,
                     void **out);
    /* `early`: may start before the launch in front of it ends. */
    bool (*launch)(struct device *, void *function, const struct archrt_launch *, void *const *args,
                   int n, bool early);
    /* Launches between the two become a graph instead of running. */
    bool (*begin_graph)(struct device *);
    bool (*end_graph)(struct device *, void **out);
    bool (*replay)(struct device *, void *graph);
    void (*drop_graph)(struct device *, void *graph);
    /* Seconds of the device's own clock between two marks in the queue, after a wait. */
    bool (*mark)(struct device *, int which); /* 0 or 1 */
    double (*elapsed)(struct device *);
    /* The queue, as libraries take it; NULL where none can work. */
    void *(*stream)(struct device *);
    void (*close)(struct device *);
};
struct device {
    const struct device_api *api;
    char name[96], driver[48], why[320];
    int sm, processors; /* 90; multiprocessors */
    size_t memory, free_memory;
    enum products products; /* of the sessions that are opened from now on */
};

/* The first device of the CUDA driver, which is loaded here; NULL: `why` (one line) says what is
 * missing. */
struct device *cuda_device_open(char *why, size_t room);

/* ---- device_run.c: slabs, images and phases -----------------------------------------------------
 */

enum {
    DEVICE_WHENS = 4,      /* bit 0: scored, bit 1: logits */
    FIRST_MICRO_BATCH = 1, /* of training: gradients of matrices are overwritten, not added to */
    DEVICE_ROW_STEPS = 16  /* device_products.c; the last is all rows */
};
struct session_map { /* number i: at i CUDA_MAP_BYTES of SLAB_MAPS */
    const struct cuda_map *shape;
    void *at;
};
struct session_products;
struct session {
    struct device *device;
    const struct archrt_cuda *cuda;
    const struct archrt_cuda_target *target;
    bool training;
    int pool_pages;
    void *slabs[SLAB_COUNT]; /* SLAB_VECTORS of training lies inside SLAB_PARAMS */
    size_t bytes[SLAB_COUNT];
    void **modules;                                              /* of each unit */
    void *(*functions)[ARCHRT_MAX_PASSES];                       /* of each kernel */
    void *graphs[ARCHRT_PHASES][DEVICE_WHENS][DEVICE_ROW_STEPS]; /* made at first use */
    bool launched;   /* something of this phase that what follows need not wait for to start */
    bool overwrites; /* steps are those of a step's first micro-batch */
    struct session_map *maps;
    size_t n_maps, room_maps;
    struct session_products *products;
};

/* The code of this program that the device can run, the best of it; NULL: none. */
const struct archrt_cuda_target *device_target(const struct archrt_cuda *cuda, int sm);
/* Allocates the slabs (cleared), loads what the phases need. pool_pages: of the cache; 0 in
 * training. False: `f`, and nothing is left. */
bool session_open(struct session *s, struct device *device, const struct archrt_cuda *cuda,
                  bool training, int pool_pages, struct failure *f);
void session_close(struct session *s);
/* Queues a phase: the first time as launches that become a graph, then as that graph. when: bit 0
 * the scored steps too, bit 1 those that want logits; of training 0 or FIRST_MICRO_BATCH. */
bool session_run(struct session *s, enum archrt_phase_id phase, unsigned when, struct failure *f);
/* The same, launch by launch: for profilers and for kernels that misbehave. */
bool session_launch(struct session *s, enum archrt_phase_id phase, unsigned when,
                    struct failure *f);
/* One kernel of a phase's step, all its passes, in layer `layer` and chunk `chunk`. */
bool session_step(struct session *s, const struct archrt_step *step, int layer, int chunk,
                  bool early, struct failure *f);
bool session_put(struct session *s, enum archrt_slab slab, size_t at, const void *from,
                 size_t bytes, struct failure *f);
bool session_get(struct session *s, void *to, enum archrt_slab slab, size_t at, size_t bytes,
                 struct failure *f);
bool session_wait(struct session *s, struct failure *f);

/* Each step of a phase in the order of its launches; false: `visit` returned false. */
typedef bool session_visit(struct session *s, const struct archrt_step *step, int layer, int chunk,
                           struct failure *f);
bool session_each_step(struct session *s, enum archrt_phase_id phase, unsigned when,
                       session_visit *visit, struct failure *f);
/* Where a step's operand is. */
void *session_operand(const struct session *s, const struct archrt_operand *o, int layer,
                      int chunk);

/* Drops the graphs, to be recorded anew. */
void session_forget(struct session *s);

/* ---- device_maps.c ------------------------------------------------------------------------------
 *
 * A step's operand lies elsewhere in each layer and chunk, and a tensor map holds an address: so
 * there is a map for each of these places, made when the session opens. They are a few hundred, of
 * 128 bytes. */

bool session_make_maps(struct session *s, struct failure *f);
/* The map, on the device, of the operand at `at`. */
void *session_map_of(const struct session *s, const struct cuda_map *shape, const void *at);

/* ---- device_blas.c: matrix products through cuBLASLt --------------------------------------------
 *
 * Loaded at run time; needed for nothing. Results repeat bit for bit, as those of our kernels. */

struct device_blas;
struct blas_product; /* a product of one shape: descriptors and the algorithm found for it */
enum { BLAS_OPERANDS = 5, BLAS_BIAS = 3 };
struct blas_shape {
    enum archrt_cuda_kind kind;
    int64_t rows, n, k;            /* `rows` of the kernel's m */
    unsigned flags;                /* enum archrt_cuda_flag */
    unsigned align[BLAS_OPERANDS]; /* bytes, of each operand of the kernel, whatever the call */
    const void *bias;              /* any address as well aligned as the worst of them */
};

/* Seconds, the first time. NULL: `why` (one line) says what is missing. */
struct device_blas *device_blas_open(const struct device *d, char *why, size_t room);
void device_blas_close(struct device_blas *b); /* or NULL */
const char *device_blas_name(const struct device_blas *b);
size_t device_blas_workspace(const struct device_blas *b); /* bytes that products may want */
/* The file that a session would load, without loading it: the usual places. */
bool device_blas_find(char *out, size_t room);
/* Has the library anything that does the same? */
bool device_blas_can(const struct archrt_cuda_kernel *k);
/* NULL: it refuses this shape. */
struct blas_product *device_blas_plan(struct device_blas *b, const struct blas_shape *s);
void device_blas_drop(struct blas_product *p); /* or NULL */
/* Queues it, operands as the kernel's; legal while a graph is recorded, but not for the first call
 * of a plan. workspace: device_blas_workspace() bytes, 256-byte aligned. */
bool device_blas_run(struct device *d, const struct blas_product *p, void *const *operands,
                     void *workspace);

/* ---- device_products.c: which products of a session the library does ----------------------------
 */

/* `--products own|library|auto` for the sessions of a device (NULL: only checks the word). */
bool products_choose(struct device *d, const char *word, struct failure *f);
/* Before the slabs: loads the library where it is wanted. */
bool products_open(struct session *s, struct failure *f);
void products_close(struct session *s);
size_t products_workspace(const struct session *s); /* bytes of SLAB_SCRATCH */
/* Plans the products of a phase, or of all, that have no plan yet, and runs each once. */
bool products_prepare(struct session *s, enum archrt_phase_id id, struct failure *f);
bool products_prepare_all(struct session *s, struct failure *f);
/* The library's product for a step; NULL: our own kernel does it. */
const struct blas_product *products_library(const struct session *s,
                                            const struct archrt_step *step);
bool products_run(struct session *s, const struct blas_product *p, void *const *operands);
/* How many rows the next prompts have, and which graph of a phase that makes. */
void products_rows(struct session *s, int rows);
int products_row_step(const struct session *s, enum archrt_phase_id id);
const char *products_name(const struct session *s); /* "cuBLASLt 13.1.0"; NULL: our own kernels */
/* For comparisons: our own kernels from now on, or the library again. */
void products_compare(struct session *s, bool own);

/* ---- device_model.c: the model on a device, behind the same interface --------------------------
 *
 * The commands know one `struct archrt_model` with functions over host memory. On a device they get
 * a copy of it whose functions copy in, run phases and copy out, so that all of them work as they
 * are; what must be fast (a training run, generation of many tokens) keeps its state on the device
 * and says so. */

extern const struct archrt_model *the_model; /* what commands work with; &archrt_model at first */

/* `--device` of the command line: "cuda" (an error where there is none), "host", or NULL: CUDA
 * where the program has code for a device that is here; `--products` likewise (NULL: auto). Sets
 * the_model. */
bool device_choose(const char *wanted, const char *products, struct failure *f);
/* The same on a device that is open already; it is closed by device_leave. */
bool device_use(struct device *device, struct failure *f);
void device_leave(void);
/* "CUDA 13.0, NVIDIA H200, 132 processors" or why there is none; NULL: the program has no CUDA. */
const char *device_says(void);
/* Did something fail on the device since the last call? Then it is in `f`. */
bool device_failed(struct failure *f);

struct device *the_device(void); /* NULL: the host */

/* A training run whose parameters, gradients and moments stay on the device. */
struct device_step {
    const int32_t *token, *target; /* [micro-batches][B T] */
    float *loss;                   /* [micro-batches][B T], out */
    int micro_batches;
    struct cuda_train train; /* norm and factor are not read */
};
bool device_in_use(void); /* is the_model on a device? */
/* What computes a training run, and so the order of its sums: "host", or device, code and who
 * multiplies. On a device, after device_train_begin. */
void device_trains_by(char *out, size_t room);
bool device_train_begin(const float *params, const float *m, const float *v, struct failure *f);
/* One step; *norm is that of the gradients, before clipping. */
bool device_train_step(const struct device_step *step, double *norm, struct failure *f);
bool device_train_fetch(float *params, float *m, float *v, struct failure *f);
void device_train_end(void);

/* Matrices (as bf16), gains, biases and rotations of inference into a session's slabs. */
bool device_put_weights(struct session *s, const float *params, struct failure *f);
/* n rows of one slot for prefill, behind `past` of its tokens; target: [n], or NULL. `logits`: of
 * the last row. */
bool device_put_rows(struct session *s, const int32_t *token, const int32_t *target, int n,
                     int slot, int past, bool logits, struct failure *f);

/* ---- device_generate.c: tokens chosen on the device ---------------------------------------------
 */

enum continuation_answer {
    CONTINUATION_ON,
    CONTINUATION_END, /* of this sequence */
    CONTINUATION_OVER /* of all */
};
/* `count` continuations of one prompt of n >= 1 tokens, as many at once as there are slots. At most
 * `most` tokens each; n - 1 + most <= context. */
struct continuations {
    const int32_t *prompt;
    int n, count, most;
    const struct cuda_sampling *sampling; /* [count] */
    /* A token of sequence `which`, in its order; -1: there was no finite logit. Called by
     * device_generate, on its thread. */
    enum continuation_answer (*take)(void *arg, int which, int32_t token);
    void (*loaded)(void *arg); /* the parameters are not read any more */
    void *arg;
};
/* Uses a session of its own. */
bool device_generate(const float *params, const struct continuations *g, struct failure *f);

/* ---- device_bench.c, device_bench_command.c -----------------------------------------------------
 */

enum { BENCH_DECODE = 1, BENCH_PREFILL = 2, BENCH_BATCH = 4, BENCH_TRAIN = 8, BENCH_ALL = 15 };
struct bench_request {
    int rounds;        /* of which the median; fewer, but 3, of what takes seconds */
    unsigned phases;   /* BENCH_... */
    bool whole;        /* no single kernels */
    const char *only;  /* kernels whose names hold this text, and no phases; NULL: everything */
    int micro_batches; /* of a training step, which has a row of its own where they are several */
    void (*progress)(const char *what); /* is told what is about to be timed; NULL: nobody */
};
/* Times kernels and phases: an object with `copy_bytes_per_second`, `phases`, `kernels`. The
 * caller releases *out, also where it returns false. */
bool device_bench(struct device *device, const struct bench_request *request, json_t **out,
                  struct failure *f);
int cmd_device_bench(int argc, char **argv);

#endif

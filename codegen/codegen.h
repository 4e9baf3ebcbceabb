/* codegen.h - from concrete integers to a program.
 *
 *   arch -> operation lists (lang/ops.c) -> plan -> C and CUDA files -> program
 *           plan.c  plan_cuda.c  layout.c   emit_host.c  emit_cuda.c  build.c  build_cuda.c
 *                                                                     archc.c drives
 *
 * The plan knows no language: kernels, operands, buffers, loops and barriers. A target is the
 * fusions it can do and a walk over the plan. Sectioned by file. */
#ifndef ARCHC_CODEGEN_H
#define ARCHC_CODEGEN_H

#include "../lang/lang.h"
#include "../law/law.h"

/* ---- plan.c: operations become kernels, values become buffers ---------------------------------
 */

enum kernel_kind {
#define ARCHRT_KERNEL(kind, file, title) KERNEL_##kind,
#include "kernels.def"
#undef ARCHRT_KERNEL
#define ARCHRT_CUDA_KERNEL(kind, file, passes, early, title) CUDA_##kind,
#include "kernels/cuda/kernels.def"
#undef ARCHRT_CUDA_KERNEL
    KERNEL_KINDS
};
extern const char *const kernel_kind_names[KERNEL_KINDS]; /* "matmul_dx" */
extern const char *const kernel_files[KERNEL_KINDS];      /* "matmul_dx.c" */
extern const int kernel_passes[KERNEL_KINDS];             /* of CUDA kinds */
extern const bool kernel_early[KERNEL_KINDS];

/* A dimension by name, so that emitted code and printed plans speak of D_MODEL rather than of 320.
 */
enum extent {
    EXTENT_NONE,
    EXTENT_LAYERS,
    EXTENT_D_MODEL,
    EXTENT_HEADS,
    EXTENT_KV_HEADS,
    EXTENT_ALL_HEADS, /* heads + kv_heads */
    EXTENT_HEAD_DIM,
    EXTENT_D_FF,
    EXTENT_GATE_UP, /* 2 F */
    EXTENT_VOCAB,   /* V; on a GPU rounded up, as the head's rows in the slab are */
    EXTENT_TOKENS,  /* V as the model has it */
    EXTENT_DQ,
    EXTENT_DKV,
    EXTENT_QKV, /* dq + 2 dkv */
    EXTENT_CONTEXT,
    EXTENT_BATCH,
    EXTENT_SEQUENCE,
    EXTENT_ROWS,        /* B T of a training micro-batch */
    EXTENT_LOSS_ROWS,   /* rows whose logits exist at once */
    EXTENT_HEAD_TOKENS, /* or tokens whose logits' gradients do, where logits are never written */
    EXTENT_CHUNK,       /* tokens a prefill call takes at most */
    EXTENT_SCORE_ROWS,  /* of them, rows whose logits exist at once */
    EXTENT_SLOTS,       /* sequences that a CUDA program decodes at once */
    EXTENT_SEGMENTS,    /* prompts that one of its prefill calls takes at most */
    EXTENT_TILE_ROWS,   /* of x as kernels of decode hand it on (archrt_cuda.h); 0: none does */
    EXTENT_TILE_COLUMNS,
    EXTENT_SQUARES, /* sums of squares of a row of it */
    EXTENT_PARAMS,  /* floats of the parameter slab */
    EXTENT_ONE,
    EXTENT_COUNT
};
extern const char *const extent_names[EXTENT_COUNT];

/* What a program is built for, beside its architecture. */
struct build_options {
    enum dtype weights; /* of inference */
    int threads;
    int batch, sequence, chunk;
    bool generic;
    enum recompute recompute; /* of training; auto: none */
    enum logits logits;       /* of training on a GPU; auto: chunks */
    bool cuda;                /* the program has a CUDA side too */
    int slots;                /* CUDA: sequences decoded at once */
    int accumulate;           /* CUDA: micro-batches of a step, which is priced; 0: one */
    int pages;                /* CUDA: pages of the cache that the serving load wants */
    int prompt, generate;     /* CUDA: tokens of a sequence of that load; 0: none is declared */
    double throughput;        /* CUDA: predicted generated tokens/s of that load; 0: not known */
};
enum { MAX_CUDA_TARGETS = 8, CACHE_PAGE = 64 /* tokens; KV_PAGE of archrt_cuda.h */ };
/* An NVIDIA architecture: "sm_90", "sm_90a". */
struct cuda_target {
    const char *name;
    int sm;
    bool exact; /* of an "a" architecture: its code runs on no other */
};
struct cuda_targets {
    struct cuda_target list[MAX_CUDA_TARGETS];
    int n;
};

/* Activation buffers. Values and their gradients by the value's name, then what kernels keep. */
enum buffer_id {
    BUFFER_VALUE = 0,
    BUFFER_GRADIENT = VALUE_COUNT,
    BUFFER_RSTD1 = 2 * VALUE_COUNT,
    BUFFER_RSTD2,
    BUFFER_RSTDF,
    BUFFER_HEAD_RSTD,
    BUFFER_LSE,
    BUFFER_D_X16,    /* CUDA: bf16 copy of the residual stream's gradient */
    BUFFER_D_LOGITS, /* CUDA: bf16, in chunks but for a factor of each row, */
    BUFFER_FACTOR,   /* this one, */
    BUFFER_SCALED,   /* which the final norm's output has here */
    BUFFER_TOP,      /* of a row's logits that are not written: the largest, */
    BUFFER_SUM,      /* and the sum of e^(logit - largest) */
    BUFFER_TILES,    /* CUDA: x times the next norm's gain, */
    BUFFER_SQUARES,  /* and what that norm wants beside it */
    BUFFER_AGAIN,    /* what backward makes again: values, then statistics from RSTD1 on */
    BUFFER_COUNT = BUFFER_AGAIN + VALUE_COUNT + BUFFER_LSE - BUFFER_RSTD1 + 1
};

struct buffer {
    const char *name; /* "gate_up", "d_gate_up" */
    bool used;
    enum extent rows, width, width2; /* [rows][width (x width2)] */
    enum dtype type;                 /* fp32, or bf16 */
    bool kept;                       /* a copy a layer (and one more of x), for backward */
    int first, last;                 /* steps of the schedule between which it lives */
    size_t floats;                   /* of one copy, rounded up to 16 */
    size_t offset;                   /* floats into the workspace */
};

/* An argument of a kernel call. */
enum operand_kind {
    OPERAND_NONE,         /* not given: NULL */
    OPERAND_BUFFER,       /* id: buffer */
    OPERAND_WEIGHT,       /* id: enum weight */
    OPERAND_GRADIENT,     /* id: enum weight */
    OPERAND_OLD_GRADIENT, /* the same; NULL where it is overwritten rather than added to */
    OPERAND_TOKENS,
    OPERAND_TARGETS,
    OPERAND_LOSSES,
    OPERAND_LOGITS, /* the caller's */
    OPERAND_SCALE,  /* gradient of one target's loss */
    OPERAND_ROPE,   /* table of cosines and sines */
    OPERAND_CACHE,  /* this layer's keys and values */
    OPERAND_PAST,
    OPERAND_ROWS,    /* rows of this call */
    OPERAND_SCRATCH, /* each thread its own part, dead when the kernel ends */
    OPERAND_BLOCKS,  /* packed blocks of a product, which many threads share */
    OPERAND_SUMS,    /* partial results that the threads add up */
    /* CUDA: arrays in device memory, of archrt_cuda.h */
    OPERAND_CALL,
    OPERAND_SLOT,
    OPERAND_POSITION,
    OPERAND_SEGMENT_ROW,
    OPERAND_HEAD_ROW,
    OPERAND_PAGES,
    OPERAND_NEXT,
    OPERAND_LENGTH,
    OPERAND_OUTPUT,
    OPERAND_SAMPLING,
    OPERAND_COUNTER,
    OPERAND_STEP,    /* struct cuda_train */
    OPERAND_PARAMS,  /* the whole slabs, of the optimiser */
    OPERAND_WEIGHTS, /* bf16 copies */
    OPERAND_GRADS,
    OPERAND_MOMENT1,
    OPERAND_MOMENT2,
    OPERAND_KINDS
};
/* Which copy of a buffer or weight, or which rows of it. */
enum operand_at {
    AT_WHOLE,
    AT_FIRST_LAYER,
    AT_LAYER,
    AT_NEXT_LAYER,
    AT_LAST_LAYER,
    AT_CHUNK,   /* from the first row of this turn of the chunk loop */
    AT_TOKENS,  /* from the first token of this turn of the loop over the vocabulary */
    AT_LAST_ROW /* of the rows of this call */
};
struct operand {
    enum operand_kind kind;
    int id;
    enum operand_at at;
};

/* How a kernel divides its work between threads: what one reads of another's output. */
enum partition { PARTITION_ROWS, PARTITION_OTHER };

enum { MAX_FUSED = 6, MAX_OPERANDS = 15 };

/* One specialised kernel: an instance of a kernel file. */
struct kernel {
    enum kernel_kind kind;
    const char *name;  /* "train_qkv" */
    const char *phase; /* "train", "prefill", "decode", "batch" */
    enum extent m, n, k;
    enum weight of_matrix;                                    /* products: whose */
    bool bias, residual, accumulate, norm, swiglu, head_norm; /* the file's switches */
    bool out_f32, scratch;                                    /* of CUDA products; of any */
    bool in_place, factor; /* CUDA NORM_BACKWARD: dy in dx; dy lacks a factor of each row */
    int times;             /* calls in its phase */
    double flops, bytes;   /* of one call */
    double floor, seconds; /* of one call: plan_price */
    struct price a_token;  /* what a cached token more adds to a call: plan_price */
};

enum loop { LOOP_NONE, LOOP_LAYERS, LOOP_LAYERS_REVERSED, LOOP_CHUNKS, LOOP_VOCAB };
/* Steps that only some calls ask for. */
enum condition { WHEN_ALWAYS, WHEN_SCORED, WHEN_LOGITS };

struct step {
    int kernel; /* index into plan.kernels */
    enum loop loop;
    enum condition when;
    const struct op *fused[MAX_FUSED]; /* the operations it does */
    int n_fused;
    bool again; /* operations of the forward pass that backward does once more */
    struct operand operands[MAX_OPERANDS];
    int n_operands;
    unsigned writes; /* bit i: operand i is written */
    enum partition partition;
    bool barrier;       /* all threads meet before it */
    struct price price; /* of all its calls: plan_price */
};

enum schedule_id {
    SCHEDULE_TRAIN,
    SCHEDULE_EVAL,
    SCHEDULE_PREFILL,
    SCHEDULE_DECODE,
    SCHEDULE_UPDATE,
    SCHEDULE_BATCH, /* decode of all slots at once */
    SCHEDULE_COUNT
};
extern const char *const schedule_names[SCHEDULE_COUNT];

enum { MAX_STEPS = 2 * MAX_OPS, MAX_KERNELS = 3 * MAX_OPS };
struct schedule {
    struct step steps[MAX_STEPS];
    int n_steps;
    struct buffer buffers[BUFFER_COUNT];
    size_t work_floats;
    /* plan_price. Of all steps but those of scored prompts, behind `past` tokens; what one more of
     * those adds. */
    struct price price, a_token;
    double past;
};

struct plan {
    const struct arch *arch;
    const struct target *target;
    struct build_options options;
    int64_t extents[EXTENT_COUNT];
    struct op_list lists[PHASE_COUNT];
    struct op_list score; /* prefill with a head row for every token */
    struct op_list eval;  /* the forward pass of training as evaluation has it */
    struct op_list slots; /* decode of all slots; empty where there is one */
    struct workload loads[PHASE_COUNT], score_load, eval_load, slots_load; /* they were built for */
    const struct device *device; /* that it was priced on; NULL: it was not */
    /* plan_price. What a micro-batch that adds to gradients takes beyond a step's first one. */
    struct price adding;
    struct schedule schedules[SCHEDULE_COUNT];
    struct kernel kernels[MAX_KERNELS];
    int n_kernels;
    bool row_is_sequence; /* rows are shared between threads by whole sequences */
};

/* One way to make a kernel of consecutive operations. Longest pattern first. */
struct fusion {
    enum kernel_kind kernel;
    unsigned schedules; /* bit set of schedule ids */
    int most_rows;      /* only where the operations have no more rows; 0: any number */
    struct {
        enum op_kind kind;
        bool optional;
    } pattern[MAX_FUSED];
    int n;
};

/* Fuses, schedules, lays out buffers, places barriers. False: the target cannot do an operation;
 * `why` names it. */
bool plan_build(struct arena *a, const struct arch *arch, const struct target *target,
                const struct build_options *o, struct plan *out, const char **why);
/* Checks what plan_build promises: every operation done once, every operand defined before it is
 * read, live buffers never overlapping. False: `why`. */
bool plan_verify(const struct plan *p, const char **why);
void plan_print(const struct plan *p, FILE *out); /* --emit=plan */

/* ---- plan_price.c: what the steps of a plan take on a device -----------------------------------
 */

/* Prices every step, kernel and schedule. The sum over a schedule's steps is cost_list of its
 * operations: what the search ranks by. */
void plan_price(struct plan *p, const struct device *d);
/* A step of so many micro-batches, with its update: expected seconds, and the matrix units' part of
 * the device's peak that the model's own products are in that time (MFU). */
double plan_train_seconds(const struct plan *p, int micro_batches);
double plan_train_mfu(const struct plan *p, int micro_batches);

/* ---- layout.c: lifetimes and offsets of buffers, barriers between kernels ----------------------
 */

void layout_buffers(struct plan *p, struct schedule *s);
size_t buffer_floats(const struct plan *p, int id, const struct buffer *b); /* all copies */
void place_barriers(const struct plan *p, struct schedule *s);

/* ---- target.c ----------------------------------------------------------------------------------
 */

/* A generated file. */
struct emitted {
    const char *name; /* "model.c" */
    struct text text;
    bool compile; /* a translation unit of C, not a header */
    bool cuda;    /* part of the CUDA side */
    bool device;  /* a unit of device code: compiled once for every CUDA target */
};
enum { MAX_EMITTED = 32 };
struct emitted_files {
    struct emitted files[MAX_EMITTED];
    int n;
};

struct binding;
struct target {
    const char *name; /* "host", "null", "cuda" */
    const struct fusion *fusions;
    int n_fusions;
    bool builds;   /* emits files that become a program */
    bool launches; /* every kernel ends before the next one starts: each step is a barrier */
    /* What is different from the host's plan; NULL where nothing is. */
    void (*set_extents)(struct plan *);
    void (*declare)(const struct plan *, enum schedule_id, struct schedule *);
    void (*bind)(struct binding *, enum kernel_kind); /* operands of a step, by its kernel */
    /* Why the target cannot do this architecture, and what would help; NULL: it can. */
    const char *(*refuses)(struct arena *, const struct arch *);
    void (*emit)(const struct plan *p, const struct model_spec *m, const char *source,
                 struct emitted_files *out); /* appends */
};
const struct target *target_find(const char *name); /* NULL: none of that name */

/* ---- emit_host.c: C for the host ----------------------------------------------------------------
 */

void emit_host(const struct plan *p, const struct model_spec *m, const char *source,
               struct emitted_files *out);
/* emit_model.c: model.c of it. */
void emit_model_file(const struct plan *p, const struct model_spec *m, const char *source,
                     struct text *t);
extern const char *const schedule_prefix[SCHEDULE_COUNT]; /* "T", of a buffer's macro */
void upper_name(char *to, const char *name);

/* ---- emit_cuda.c: CUDA, and the launch tables ---------------------------------------------------
 */

/* Appends to `out`: cuda_shape.h, the units, the launches. */
void emit_cuda(const struct plan *p, const struct model_spec *m, const char *source,
               struct emitted_files *out);
/* emit_cuda_model.c: model_cuda.c, for the targets named. */
void emit_cuda_model(const struct plan *p, const char *source, const struct cuda_targets *targets,
                     struct text *t);
enum { CUDA_UNITS = 6 };
extern const char *const cuda_unit_files[CUDA_UNITS]; /* "cuda_decode.cu" */
int cuda_unit(const struct plan *p, const struct kernel *k);
bool cuda_unit_used(const struct plan *p, int unit);

/* ---- layout.c: where parameters stand in the slab ----------------------------------------------
 */

struct weight_row {
    const char *name;
    enum extent n, k; /* rows, columns; k EXTENT_NONE for vectors */
    bool layer, decay;
};
extern const struct weight_row weight_rows[WEIGHT_COUNT];
/* Rows of embedding and head in the slab are a multiple of this, so that rows of logits and of
 * their bf16 gradients begin at 16 bytes. */
enum { VOCAB_STEP = 8 };
/* Those rows: where logits are never written, whole pieces of the vocabulary. Of both sides of a
 * program, which share the slab's layout. */
int64_t slab_vocab(const struct plan *p);
bool weight_present(const struct arch *a, enum weight w);
/* Floats into the slab of weight w of layer l; decayed matrices first. */
int64_t weight_offset(const struct plan *p, enum weight w, int layer);
int64_t weight_layer_stride(const struct plan *p, enum weight w);
int64_t slab_floats(const struct plan *p, int64_t *decayed);

/* ---- build.c: files, compiler, linker ----------------------------------------------------------
 */

struct tools {
    const char *cc;        /* "clang" */
    const char *march;     /* "native" */
    bool verbose;          /* print each tool run and its time */
    const char *keep;      /* directory to leave the files in, or NULL */
    const char *device_cc; /* of CUDA: a clang, or nvcc; NULL: the best clang there is */
    const struct cuda_targets *cuda;
    const char *kernels; /* directory whose CUDA files replace those of their names, or NULL */
    int jobs;            /* compilers at once; 0: as many as there are processors */
    bool training_only;  /* the inference kernels will not be run: compiled fast, not well */
};
/* Writes the files and the kernel sources to a directory, compiles as many at once as
 * there are processors, links with the embedded libarchrt.a, and moves the program to `output`.
 * False: one line in `why`. */
bool build_program(const struct emitted_files *files, const struct tools *tools,
                   const double predicted[3], const char *output, struct text *why);
bool write_files(const struct emitted_files *files, const char *dir, struct text *why);
/* Of all that decides the program: the files, what archc carries, the compiler and its options. */
uint64_t build_fingerprint(const struct emitted_files *files, const struct tools *tools);
void remove_directory(const char *dir); /* and everything in it; links are not followed */

/* ---- build_cuda.c: device code ------------------------------------------------------------------
 */

/* "sm_90" of a comma list of targets; "sm_90" means sm_90a, which is the same processor with its
 * own matrix instructions. False: `why` says what is meant. */
bool cuda_targets_parse(const char *word, size_t n, struct cuda_targets *out, const char **why);
/* How far --emit goes with device code. */
enum device_stage { DEVICE_LLVM, DEVICE_PTX, DEVICE_CUBIN };
/* Compiles the device units of `files` in `dir` (made if need be) as far as `stage`: files like
 * cuda_decode.sm_90a.ptx. */
bool build_device(const struct emitted_files *files, const struct tools *tools,
                  enum device_stage stage, const char *dir, struct text *why);

#endif

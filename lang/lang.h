/* lang.h - the front end: from a .arch file to a checked spec, and the integers of an architecture.
 *
 *   source -> tokens -> ast -> spec          (scan.l, parse.y, ast.c, check.c, spec.c)
 *   arch -> one list of operations a phase   (arch.c, ops.c)
 *
 * Sectioned by the file that implements it. Depends on nothing above it. */
#ifndef ARCHC_LANG_H
#define ARCHC_LANG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* ---- base.c: memory and text -------------------------------------------------------------- */

/* One arena per compilation: everything the compiler allocates lives until arena_free. */
struct arena;
struct arena *arena_new(void);
void arena_free(struct arena *a);
/* Zeroed, 16-byte aligned. Out of memory ends the process with status 4 and one line. */
void *arena_alloc(struct arena *a, size_t size);
char *arena_copy(struct arena *a, const char *text, size_t length); /* NUL is added */
char *arena_printf(struct arena *a, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A growing text; `at` is always NUL terminated once something was added. Release with text_free. */
struct text {
    char *at;
    size_t length, capacity;
};
void text_add(struct text *t, const char *s);
void text_addn(struct text *t, const char *s, size_t n);
void text_printf(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_free(struct text *t);

/* Edit distance between names, at most `limit` + 1; for did-you-mean. */
int name_distance(const char *a, const char *b, int limit);

/* ---- diag.c: what is wrong, where, and the edit that mends it ------------------------------ */

/* Byte range [start, end) of source number `source` (0 is the file on the command line). */
struct span {
    uint32_t source, start, end;
};
#define NO_SOURCE UINT32_MAX /* span.source of a diagnostic that is about no place in a file */

struct source {
    const char *path; /* as the user wrote it */
    const char *text; /* NUL terminated */
    uint32_t length;
};

enum severity { SEVERITY_ERROR, SEVERITY_WARNING };

struct remark {
    bool is_help; /* "help:" rather than "note:" */
    bool has_span;
    struct span at;
    const char *text;
    struct remark *next;
};

struct diag {
    enum severity severity;
    bool has_span; /* false: about the file as a whole, or about no file */
    struct span at;
    const char *rule; /* name in rules.def, or NULL */
    const char *text;
    struct remark *remarks;
    struct diag *next;
};

struct diags {
    struct arena *arena;
    const struct source *sources;
    int n_sources;
    struct diag *first, *last;
    int errors, warnings;
};

struct diag *diag_error(struct diags *d, struct span at, const char *rule, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
struct diag *diag_warning(struct diags *d, struct span at, const char *rule, const char *format,
                          ...) __attribute__((format(printf, 4, 5)));
void diag_note(struct diags *d, struct diag *to, const struct span *at, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void diag_help(struct diags *d, struct diag *to, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* file:line:col: error: text [rule], the line, caret and tildes, notes, helps; in source order. */
void diags_print(const struct diags *d, FILE *out);

/* ---- spec.c: what the checked file says ---------------------------------------------------- */

enum metric {
    METRIC_LOSS,        /* nats per token */
    METRIC_THROUGHPUT,  /* generated tokens/s of the whole batch over prefill + decode */
    METRIC_LATENCY,     /* s, one decode step of the batch at the mean position */
    METRIC_TTFT,        /* s, prefill of the batch */
    METRIC_MEMORY,      /* bytes while serving: weights, KV cache, workspace */
    METRIC_KV_BYTES,    /* bytes of KV cache a token */
    METRIC_PARAMS,      /* N: matrices only, no embedding, no norms */
    METRIC_TOTAL_PARAMS,
    METRIC_TRAIN_TIME,   /* s */
    METRIC_TRAIN_MEMORY, /* bytes */
    METRIC_R,            /* MLP parameters / attention parameters */
    METRIC_COUNT
};
extern const char *const metric_names[METRIC_COUNT];

enum knob {
    KNOB_D_MODEL,
    KNOB_R,
    KNOB_GQA,
    KNOB_HEADS,
    KNOB_KV_HEADS,
    KNOB_D_FF,
    KNOB_LAYERS,
    KNOB_HEAD_DIM,
    KNOB_COUNT
};
extern const char *const knob_names[KNOB_COUNT];

enum domain_kind {
    DOMAIN_UNSET, /* not mentioned: derived from the others */
    DOMAIN_FIXED, /* value */
    DOMAIN_FREE,  /* bare `free`: the law's fitted range */
    DOMAIN_RANGE, /* lo..hi */
    DOMAIN_LIST   /* list[n], ascending, no repeats */
};

struct domain {
    enum domain_kind kind;
    double value, lo, hi;
    double step; /* 0: the default (d_model 64, d_ff 128, others 1; r has none) */
    const double *list;
    int n;
    struct span at;
};

enum dtype { DTYPE_F32, DTYPE_BF16, DTYPE_I8, DTYPE_COUNT };
extern const char *const dtype_names[DTYPE_COUNT]; /* fp32 bf16 int8 */
/* Bytes of one weight; int8 carries one fp32 scale per 64 weights: 1.0625. */
double dtype_bytes(enum dtype t);

enum expr_kind { EXPR_NUMBER, EXPR_METRIC, EXPR_ADD, EXPR_SUB, EXPR_MUL, EXPR_DIV, EXPR_NEG };
struct expr {
    enum expr_kind kind;
    double number;
    int model; /* EXPR_METRIC: index into spec.models */
    enum metric metric;
    const struct expr *lhs, *rhs;
    struct span at;
};

enum goal_kind { GOAL_REQUIRE, GOAL_MAXIMIZE, GOAL_MINIMIZE };
enum relation { RELATION_LE, RELATION_GE, RELATION_EQ };
struct goal {
    enum goal_kind kind;
    enum relation relation;       /* GOAL_REQUIRE */
    const struct expr *lhs, *rhs; /* GOAL_REQUIRE: both; else lhs alone, a metric of this model */
    double confidence;            /* `with 90%`: 0.9; 0 where not asked for */
    const char *text;             /* "loss <= llama_3_2_1b.loss", canonical spacing */
    struct span at;
};

/* A conditional scaling law as data; law/law.h evaluates it. NaN marks a number not given. */
enum law_form { LAW_CHINCHILLA, LAW_MULTIPLICATIVE, LAW_ADDITIVE, LAW_JOINT, LAW_MORPH };
extern const char *const law_form_names[];
/* One bootstrap refit of a law: the coefficients that take the place of the law's own. */
struct law_sample {
    double E, A, B, alpha, beta, a[3], b[3], morph_e;
};
struct law {
    const char *name;
    enum law_form form;
    double E, A, B, alpha, beta; /* L_opt(N, D) = E + A/N^alpha + B/D^beta */
    double a[3], b[3];           /* width and ratio factors; joint: a[3] then b[0..1] in ln(xr), 1/(xr) */
    double morph_e;              /* (1 + e R^alpha), R = d_model / layers */
    double r_lo, r_hi, x_lo, x_hi, params_lo, params_hi; /* fitted range */
    int observe_model;           /* index into spec.models whose loss was observed, or -1 */
    double observe_loss;
    int base; /* index into spec.laws whose Chinchilla coefficients are taken, or -1: its own */
    const struct law_sample *samples; /* n_samples, equally likely; how sure the fit is */
    int n_samples;                    /* 0: not known */
    struct span at;
};

/* What a machine can do. Rates in SI units per second; 0 marks a rate it does not have. */
struct device {
    const char *name;
    double flops[DTYPE_COUNT];  /* peak of the matrix units, by operand type */
    double products;            /* of fp32 products, where a CPU has a tile unit for them; or 0 */
    double memory_bandwidth;    /* bytes/s, streaming read */
    double memory_bytes;
    double cache_bandwidth;     /* bytes/s when the working set fits in cache_bytes */
    double cache_bytes;
    double launch;              /* s of overhead an operation (kernel launch, barrier) */
    int threads;                /* host: threads used; GPU: 0 */
    double eff_matmul;          /* fraction of peak reached by large products */
    double eff_attention;       /* fraction of peak reached by attention over many queries */
    double eff_stream;          /* fraction of bandwidth reached by weight and KV streaming */
    bool is_host;               /* measured on this machine: law_device_ready() fills it in */
    struct span at;
};

/* What a layer's backward pass makes again rather than finds kept: memory for time. */
enum recompute {
    RECOMPUTE_AUTO,  /* as much as the device's memory asks for */
    RECOMPUTE_NONE,
    RECOMPUTE_NORMS, /* both norms' outputs */
    RECOMPUTE_MLP,   /* gate and up too */
    RECOMPUTE_ALL,   /* the layer, from its input */
    RECOMPUTE_COUNT
};
extern const char *const recompute_names[RECOMPUTE_COUNT]; /* auto none norms mlp all */

/* How a GPU's training goes from the final norm to the loss and back. */
enum logits {
    LOGITS_AUTO,   /* in chunks, unless memory is short of even those */
    LOGITS_CHUNKS, /* all logits of some rows at a time, written as what their gradients are of */
    LOGITS_NEVER,  /* never written: the head's product is made twice */
    LOGITS_COUNT
};
extern const char *const logits_names[LOGITS_COUNT]; /* auto chunks never */

struct train_spec {
    double tokens; /* NaN: not given; D of the law */
    int law;       /* index into spec.laws, or -1 */
    int device;    /* index into spec.devices, or -1: the serving device */
    int batch;     /* sequences a micro-batch; 0: 8 */
    int sequence;  /* tokens a sequence; 0: min(context, 256) */
    int accumulate;
    enum recompute recompute;
    enum logits logits;
    double lr, warmup /* steps */, weight_decay, clip, beta1, beta2;
    struct span at;
};

struct serve_spec {
    int device; /* index into spec.devices, or -1 */
    int batch, prompt, generate;
    enum dtype weights, kv;
    struct span at;
};

/* Distinct and ascending; n 0: not given. */
struct numbers {
    const double *at;
    int n;
};

/* Runs to make and a law to fit to them. The last size is predicted from the others, then trained.
 * The vocabulary is bytes. */
struct study_spec {
    const char *name;
    struct span at;
    const char *data, *validation; /* paths from here; NULL: not given */
    double held_out;               /* share of `data` at its end, where `validation` is not given */
    struct numbers sizes;          /* N: matrices only */
    double tolerance;              /* of N, as a fraction */
    double tokens_per_param;
    int layers, head_dim, gqa; /* the same in every shape of the grid; 0: not given */
    struct numbers width;      /* x = d_model / sqrt(N); or */
    struct numbers d_model;    /* the same at every size */
    struct numbers r;
    struct numbers groups; /* gqa to try at the best shape */
    int d_model_step, d_ff_step;
    int seeds;          /* runs of the centre of each grid and of the last size's models */
    double lr_exponent; /* peak learning rate: train.lr (N / smallest size)^lr_exponent */
    struct train_spec train;
    struct serve_spec serve;
};

struct rope_spec {
    double theta;
    double factor; /* 0: no scaling; llama3 scaling otherwise */
    double low, high, original;
};

struct model_spec {
    const char *name;
    struct span at;
    struct domain knobs[KNOB_COUNT];
    double params, params_tolerance; /* params 0: not given; tolerance as a fraction */
    struct span params_at;
    int vocab, context;
    bool tied, qkv_bias, qk_norm;
    double norm_eps;
    struct rope_spec rope;
    struct train_spec train;
    struct serve_spec serve;
    const struct goal *goals;
    int n_goals;
};

struct spec {
    const struct source *sources;
    int n_sources;
    const struct model_spec *models; /* in order of declaration; imported ones first */
    int n_models;
    int main_model; /* the last model declared in file 0; -1 where it declares none */
    const struct law *laws;
    int n_laws;
    const struct device *devices;
    int n_devices;
    const struct study_spec *studies;
    int n_studies;
    int main_study; /* the last study declared in file 0; -1 where it declares none */
};

/* Reads `path` and all it imports (relative to the importing file), parses and checks.
 * `prelude` is the text of the built-in laws and devices, in the language itself; may be NULL.
 * Every user's mistake becomes a diagnostic; false if there was an error. A file that cannot be
 * read is a diagnostic too. */
bool spec_read(struct arena *a, const char *path, const char *prelude, struct diags *d,
               struct spec *out);
/* The same from memory: for tests and the fuzzer. Imports are refused. */
bool spec_parse(struct arena *a, const char *path, const char *text, size_t length,
                const char *prelude, struct diags *d, struct spec *out);
int spec_find_model(const struct spec *s, const char *name); /* -1: none */
int spec_find_study(const struct spec *s, const char *name);
/* Stage printers behind --emit=tokens,ast,spec. They print what they can of a broken file. */
void emit_tokens(struct arena *a, const char *path, struct diags *d, FILE *out);
void emit_ast(struct arena *a, const char *path, struct diags *d, FILE *out);
void emit_spec(const struct spec *s, FILE *out);
/* `archc fmt`: canonical layout, comments kept, meaning unchanged, idempotent. False: syntax
 * errors were reported and nothing was printed. */
bool format_file(struct arena *a, const char *path, struct diags *d, FILE *out);

/* ---- arch.c: one concrete decoder-only transformer ----------------------------------------- */

/* B batch, T tokens, D d_model, H heads, K kv heads, E head_dim, F d_ff, V vocab, L layers. */
struct arch {
    const char *name;
    int layers, d_model, heads, kv_heads, head_dim, d_ff, vocab, context;
    bool tied, qkv_bias, qk_norm;
    double norm_eps;
    struct rope_spec rope;
};

int arch_dq(const struct arch *a);         /* H E */
int arch_dkv(const struct arch *a);        /* K E */
int64_t arch_params(const struct arch *a); /* N = L (2 D dq + 2 D dkv + 3 D F) */
int64_t arch_total_params(const struct arch *a);
double arch_r(const struct arch *a);     /* 3 F / (2 dq (1 + 1/G)) */
double arch_width(const struct arch *a); /* x = D / sqrt(N) */
void arch_print(const struct arch *a, FILE *out); /* --emit=arch */

/* ---- ops.c: one list of operations per phase ------------------------------------------------ */

/* The same list is priced by law/cost.c and turned into kernels by codegen/plan.c. */
enum phase {
    PHASE_TRAIN_FORWARD,  /* B x T tokens, saving what backward needs */
    PHASE_TRAIN_BACKWARD, /* gradients of all parameters */
    PHASE_OPTIMISER,      /* global norm, clipping, AdamW */
    PHASE_PREFILL,        /* B prompts of T tokens behind `past` cached ones */
    PHASE_DECODE,         /* one token for each of B sequences, each behind `past` cached ones */
    PHASE_COUNT
};
extern const char *const phase_names[PHASE_COUNT];

enum op_kind {
    OP_EMBED,     /* x[m,n] = table[token]                                                     */
    OP_NORM,      /* y[m,n] = x / rms(x) gain                                                  */
    OP_MATMUL,    /* y[m,n] = x[m,k] w[n,k]^T                                                  */
    OP_BIAS,      /* y[m,n] += bias                                                            */
    OP_HEAD_NORM, /* RMSNorm of each head of q and k: m rows of n = H + K heads of k = E        */
    OP_ROPE,      /* rotation of q and k                                                       */
    OP_KV_WRITE,  /* k, v into the cache                                                       */
    OP_ATTENTION, /* causal; m query rows, n = keys seen a row on average, k = E; H and K heads */
    OP_SWIGLU,    /* h[m,n] = silu(gate) up                                                    */
    OP_ADD,       /* residual                                                                  */
    OP_LOSS,      /* softmax cross-entropy over n = V                                          */
    OP_HEAD_LOSS, /* the same right behind the head, its logits not written                    */
    OP_SAMPLE,    /* the next token of each of m rows from n = V logits                        */
    OP_EMBED_BW,
    OP_NORM_BW,
    OP_MATMUL_DX, /* dx[m,k] = dy[m,n] w[n,k]                                                  */
    OP_MATMUL_DW, /* dw[n,k] += dy[m,n]^T x[m,k]                                               */
    OP_BIAS_BW,
    OP_HEAD_NORM_BW,
    OP_ROPE_BW,
    OP_ATTENTION_BW,
    OP_SWIGLU_BW,
    OP_LOSS_BW,   /* gradients of m rows of n = V logits right behind the head, made again      */
    OP_GRAD_NORM, /* sum of squares of n gradients                                             */
    OP_ADAMW,     /* n parameters                                                              */
    OP_KIND_COUNT
};
extern const char *const op_kind_names[OP_KIND_COUNT];

/* Where an operation stands: before the layers, in each of them, or after them. */
enum section { SECTION_ENTRY, SECTION_LAYER, SECTION_EXIT };

/* Activations, named. The planner gives each a buffer. */
enum value {
    VALUE_NONE,
    VALUE_TOKENS,  /* [m] */
    VALUE_X,       /* [m][D] residual stream entering a layer, and leaving the last one */
    VALUE_NORM1,   /* [m][D] */
    VALUE_QKV,     /* [m][dq + 2 dkv] as projected (and biased) */
    VALUE_ROPE,    /* [m][dq + 2 dkv] after head norm and rotation */
    VALUE_ATT,     /* [m][dq] */
    VALUE_X1,      /* [m][D] residual stream between attention and MLP */
    VALUE_NORM2,   /* [m][D] */
    VALUE_GATE_UP, /* [m][2 F] */
    VALUE_H,       /* [m][F] */
    VALUE_NORMF,   /* [m][D] after the final norm */
    VALUE_LOGITS,  /* [m][V] */
    VALUE_COUNT
};

enum weight {
    WEIGHT_NONE,
    WEIGHT_EMBED,     /* [V][D]; also the head where tied */
    WEIGHT_NORM1,     /* [D] */
    WEIGHT_QKV,       /* [dq + 2 dkv][D]: q, k, v rows one after the other */
    WEIGHT_QKV_BIAS,  /* [dq + 2 dkv] */
    WEIGHT_HEAD_NORM, /* [2][E]: q gain, k gain */
    WEIGHT_O,         /* [D][dq] */
    WEIGHT_NORM2,     /* [D] */
    WEIGHT_GATE_UP,   /* [2 F][D]: gate rows, then up rows */
    WEIGHT_DOWN,      /* [D][F] */
    WEIGHT_NORMF,     /* [D] */
    WEIGHT_HEAD,      /* [V][D] where not tied */
    WEIGHT_COUNT
};
extern const char *const value_names[VALUE_COUNT], *const weight_names[WEIGHT_COUNT];

struct op {
    enum op_kind kind;
    enum section section;
    const char *name; /* "qkv", "attention", "o", "gate_up", "down", "head", ... */
    int64_t m, n, k;  /* meaning per kind, above */
    enum value in[2], out;
    enum weight weight;
    int times;           /* layers, or 1 */
    double flops;        /* of all `times` together, two a multiply-add */
    double weight_bytes; /* parameters (and gradients, moments) moved, all times */
    double value_bytes;  /* activations moved, all times */
    double kv_bytes;     /* cache moved, all times */
};

/* What one pass is asked to do. */
struct workload {
    int batch, tokens; /* tokens a sequence in this pass */
    double past;       /* cached tokens before it */
    enum dtype weights, kv, values;
    bool no_logits;  /* training, scoring: a row's logits are not written */
    bool overwrites; /* training: products' gradients replace others, which nobody clears */
    bool all_logits; /* prefill: a head row for every token (scoring) rather than the last */
    bool samples;    /* logits stay on the device, where a kernel chooses from them */
};

enum { MAX_OPS = 48 };
struct op_list {
    enum phase phase;
    int n;
    struct op ops[MAX_OPS];
};
/* Fixed cost, no allocation: about a microsecond. */
void ops_build(const struct arch *a, enum phase phase, const struct workload *w,
               struct op_list *out);
/* Tokens whose logits' gradients exist at once where logits are never written: a 64th of the
 * vocabulary, or 1024, in pieces of one size, a multiple of 8. */
int64_t ops_head_tokens(int64_t vocab);
/* Whether backward does an operation of the forward pass again at that level. */
bool op_made_again(enum recompute level, const struct op *op);
/* FLOPs of the model's own products, attention's among them: what MFU counts. */
double ops_model_flops(const struct op_list *l);
void ops_print(const struct op_list *l, FILE *out);

#endif

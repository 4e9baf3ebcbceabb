/* plan.h - what the files of the planner share: binding the operands of a step. plan.c fuses and
 * schedules; plan_host.c and plan_cuda.c say what each target's kernels take. */
#ifndef ARCHC_PLAN_H
#define ARCHC_PLAN_H

#include "codegen.h"

/* What binding one step needs to know. */
struct binding {
    const struct plan *p;
    enum schedule_id id;
    const struct schedule *s;
    struct step *step;
    enum section section;
    bool backward;
    bool again; /* an operation of the forward pass, done once more */
};

/* Appends an operand to the step. */
void bind_operand(struct binding *b, enum operand_kind kind, int id, enum operand_at at,
                  bool written);
/* The copy, or the rows, that the step's place in the schedule makes it mean. */
void bind_buffer(struct binding *b, int buffer, bool written);
void bind_value(struct binding *b, enum value v, bool written);
void bind_gradient(struct binding *b, enum value v, bool written);
void bind_none(struct binding *b);
void bind_weight(struct binding *b, enum operand_kind kind, enum weight w); /* or none */
void bind_plain(struct binding *b, enum operand_kind kind);
/* The rotation of training, and its gradient but for the scratch behind it. */
void bind_rope(struct binding *b);
void bind_rope_backward(struct binding *b);

const struct op *find_kind(const struct step *s, enum op_kind kind); /* NULL: does none */
enum weight weight_of(const struct op *op);                          /* of NULL: none */
int rstd_buffer(enum weight norm);
int vocab_pieces(const struct plan *p); /* turns of a loop over the vocabulary */

/* ---- plan_buffers.c ---- */

enum value stored_as(const struct plan *p, enum schedule_id id, enum value v);
int gradient_buffer(enum value v);
enum extent rows_extent(enum schedule_id id);
void declare_buffers(const struct plan *p, enum schedule_id id, struct schedule *s);
/* Whether backward makes again what that buffer had in forward; the buffer that it does it in. */
bool made_again(const struct plan *p, enum schedule_id id, int buffer);
int again_buffer(int id);

/* The divisor of `rows` nearest below the rows whose logits fit into `floats`. */
int64_t loss_rows(int64_t rows, int64_t vocab, int64_t floats);

void host_bind(struct binding *b, enum kernel_kind kind); /* plan_host.c */

/* plan_cuda.c: the hooks of struct target. */
void cuda_set_extents(struct plan *p);
void cuda_declare(const struct plan *p, enum schedule_id id, struct schedule *s);
void cuda_bind(struct binding *b, enum kernel_kind kind);
const char *cuda_refuses(struct arena *a, const struct arch *arch);

#endif

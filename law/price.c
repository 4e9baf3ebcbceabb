/* price.c - what the kernels of an operation reach of a device's limits: one table a kind of device
 * and way of working. Whatever prices an operation, for the search or for a plan, reads it here.
 *
 * Rows of a CPU are calibrated (tests/bench/predict.sh); fractions of it are the device's own.
 * Rows of a GPU are what its kernels are expected to reach, or reached on an H200
 * (codegen/kernels/cuda/NOTES-*.md). */
#include "law.h"

enum {
    TRAIN = 1 << PHASE_TRAIN_FORWARD | 1 << PHASE_TRAIN_BACKWARD | 1 << PHASE_OPTIMISER,
    DECODE = 1 << PHASE_DECODE,
    ALWAYS = TRAIN | 1 << PHASE_PREFILL | DECODE
};

/* {unit, rate, fused, residue, stream, passes, exposed} */
static const struct price_row cpu[OP_KIND_COUNT] = {
    [OP_EMBED] = {UNIT_VECTOR, 1, 0, 1, 1, 1, 1},
    [OP_NORM] = {UNIT_VECTOR, 1, DECODE, 0, 1, 1, 1},
    [OP_MATMUL] = {UNIT_MATRIX, 1, 0, 1, 1, 1, 1},
    [OP_BIAS] = {UNIT_VECTOR, 1, ALWAYS, 0, 1, 1, 1},
    [OP_HEAD_NORM] = {UNIT_VECTOR, 1, ALWAYS, 0, 1, 1, 1},
    [OP_ROPE] = {UNIT_VECTOR, 1, DECODE, 0, 1, 1, 1},
    [OP_KV_WRITE] = {UNIT_VECTOR, 1, ALWAYS, 0, 1, 1, 1},
    [OP_ATTENTION] = {UNIT_ATTENTION, 1, 0, 1, 1, 1, 1},
    [OP_SWIGLU] = {UNIT_VECTOR, 0.5, DECODE, 0, 1, 1, 1},
    [OP_ADD] = {UNIT_VECTOR, 1, ALWAYS, 1.0 / 3, 1, 1, 1},
    [OP_LOSS] = {UNIT_VECTOR, 0.5, 0, 1, 1, 1, 1},
    [OP_HEAD_LOSS] = {UNIT_VECTOR, 0.5, 0, 1, 1, 1, 1},
    [OP_LOSS_BW] = {UNIT_VECTOR, 0.5, 0, 1, 1, 1, 1},
    [OP_SAMPLE] = {UNIT_VECTOR, 1, 0, 1, 1, 1, 1},
    [OP_EMBED_BW] = {UNIT_VECTOR, 1, 0, 1, 1, 1, 1},
    [OP_NORM_BW] = {UNIT_VECTOR, 1, 0, 1, 1, 1, 1},
    [OP_MATMUL_DX] = {UNIT_MATRIX, 1, 0, 1, 1, 1, 1},
    [OP_MATMUL_DW] = {UNIT_MATRIX, 1, 0, 1, 1, 1, 1},
    [OP_BIAS_BW] = {UNIT_VECTOR, 1, ALWAYS, 0, 1, 1, 1},
    [OP_HEAD_NORM_BW] = {UNIT_VECTOR, 1, ALWAYS, 0, 1, 1, 1},
    [OP_ROPE_BW] = {UNIT_VECTOR, 1, 0, 1, 1, 1, 1},
    /* FlashAttention-3 on H100 at 2k to 4k: backward 316 to 444, forward 560 to 667 TFLOP/s. */
    [OP_ATTENTION_BW] = {UNIT_ATTENTION, 0.62, 0, 1, 1, 1, 1},
    [OP_SWIGLU_BW] = {UNIT_VECTOR, 0.5, 0, 1, 1, 1, 1},
    [OP_GRAD_NORM] = {UNIT_VECTOR, 1, 0, 1, 1, 1, 1},
    [OP_ADAMW] = {UNIT_VECTOR, 1, 0, 1, 1, 1, 1},
};

/* Prefill and training: many rows, tiles on the matrix units. Fractions that an H200 reached with
 * 16384 rows of Llama-3.2-1B and of Surefire-1B (codegen/kernels/cuda/NOTES-train.md has the
 * figures).
 *
 * Products are in proportion to the vendor's (`matmul` of the device), as a session has them: by
 * the library; with --products own training takes 5 to 11 % longer. Attention is in proportion to
 * `attention`, of which `gpu_exponentials` takes its part: in a short run an H200 reached 3 to 9 %
 * more than these say at head size 64 and 15 % at 128, in a long one less, for its clock falls. Its
 * gradients: one pass on wgmma, with turns for the sums of dq. Before sm_90 two passes make seven
 * products for the five that are counted: too low a price there. */
static const struct price_row gpu_rows[OP_KIND_COUNT] = {
    [OP_EMBED] = {UNIT_VECTOR, 1, 0, 1, 0.90, 1, 1},
    [OP_NORM] = {UNIT_VECTOR, 1, 0, 1, 0.96, 1, 1},
    [OP_MATMUL] = {UNIT_MATRIX, 0.88, 0, 1, 0.90, 1, 1},
    [OP_BIAS] = {UNIT_VECTOR, 1, ALWAYS, 0, 1, 0, 1},
    [OP_HEAD_NORM] = {UNIT_VECTOR, 1, ALWAYS, 0, 1, 0, 1},
    [OP_ROPE] = {UNIT_VECTOR, 1, 0, 1, 0.89, 1, 1},
    [OP_KV_WRITE] = {UNIT_VECTOR, 1, ALWAYS, 0, 1, 0, 1},
    [OP_ATTENTION] = {UNIT_ATTENTION, 1, 0, 1, 0.85, 1, 1},
    [OP_SWIGLU] = {UNIT_VECTOR, 0.5, 0, 1, 1.00, 1, 1},
    /* The product in front of it writes the sum: what is left is the stream's being read. */
    [OP_ADD] = {UNIT_VECTOR, 1, ALWAYS, 1.0 / 3, 0.90, 0, 1},
    /* In the registers of the head's product, whose rate has the end of a tile in it; in training
     * tiles end with a store of powers, which nothing hides. */
    [OP_LOSS] = {UNIT_VECTOR, 1, ALWAYS, 1, 0.90, 4, 1},
    [OP_HEAD_LOSS] = {UNIT_VECTOR, 1, ALWAYS, 1, 0.50, 1, 1},
    [OP_LOSS_BW] = {UNIT_VECTOR, 1, ALWAYS, 1, 0.90, 0, 1},
    [OP_SAMPLE] = {UNIT_VECTOR, 1, 0, 1, 0.50, 2, 1},
    [OP_EMBED_BW] = {UNIT_VECTOR, 1, 0, 1, 0.45, 2, 1},
    [OP_NORM_BW] = {UNIT_VECTOR, 1, 0, 1, 0.86, 2, 1},
    [OP_MATMUL_DX] = {UNIT_MATRIX, 0.88, 0, 1, 0.90, 1, 1},
    [OP_MATMUL_DW] = {UNIT_MATRIX, 0.84, 0, 1, 0.90, 1, 1},
    [OP_BIAS_BW] = {UNIT_VECTOR, 1, ALWAYS, 0, 1, 0, 1},
    [OP_HEAD_NORM_BW] = {UNIT_VECTOR, 1, ALWAYS, 0, 1, 0, 1},
    [OP_ROPE_BW] = {UNIT_VECTOR, 1, 0, 1, 0.84, 2, 1},
    [OP_ATTENTION_BW] = {UNIT_ATTENTION, 0.88, 0, 1, 0.85, 3, 1},
    [OP_SWIGLU_BW] = {UNIT_VECTOR, 0.5, 0, 1, 0.95, 1, 1},
    [OP_GRAD_NORM] = {UNIT_VECTOR, 1, 0, 1, 1.00, 2, 1},
    [OP_ADAMW] = {UNIT_VECTOR, 1, 0, 1, 0.96, 1, 1},
};

/* Decode. Products stream weights; up to 8 rows they fill their rings before their predecessor
 * ends, so that about 0.6 of a launch is left to be seen: fitted to steps of Llama-3.2-1B and
 * Surefire-1B behind one token on an H200, which they meet within 7 % (NOTES-decode.md).
 *
 * Above, as an H200 has it at 64 rows (NOTES-skinny.md): weights stream at nine tenths of what is
 * copied; a kernel's beginning and end take some launches more, most where blocks share a matrix of
 * few rows by columns and add up. Norms are halves of the kernels around them: so since that was
 * measured, and of sm_90 alone; elsewhere they are passes, of two launches' time each, that are not
 * priced here. */
static const struct price_row gpu_stream = {UNIT_MATRIX, 0.75, 0, 1, 0.96, 1, 0.62};
static const struct price_row gpu_skinny = {UNIT_MATRIX, 0.75, 0, 1, 0.93, 1, 1};
static const struct price_row gpu_skinny_split = {UNIT_MATRIX, 0.75, 0, 1, 0.93, 1, 4.15};
static const struct price_row gpu_within = {UNIT_VECTOR, 1, ALWAYS, 0, 1, 0, 1};
/* Keys and values. Of few rows a warp has a tile or a few, one behind the other, while the next
 * product fills its ring: latency, and half of the bandwidth. */
static const struct price_row gpu_cached = {UNIT_ATTENTION, 0.5, 0, 1, 0.55, 1, 1.15};
/* The same of many rows: all that a copy reaches, and 19 us of ends and of waves that do not fill.
 * Measured of a kernel with a block a row, head and split; skinny_attention.cu has equal parts and
 * no waves since, and has not been on a card (NOTES-skinny.md predicts 6 us for 19). */
static const struct price_row gpu_skinny_cached = {UNIT_ATTENTION, 0.5, 0, 1, 0.92, 1, 9};
static const struct price_row gpu_skinny_sample = {UNIT_VECTOR, 1, 0, 1, 0.50, 2, 4.9};

/* A row of exponentials beside the products of attention: at head size 64 the special function
 * units take as long as the matrix units do, and half of it is seen. */
static double gpu_exponentials(const struct op *op)
{
    return 1 / (0.86 + 0.52 * 64 / (double)op->k);
}

/* SPLIT_ROWS: of weights, of which tiles of 128 leave half of the processors idle. */
enum { STREAM_ROWS = 8, SPLIT_ROWS = 8448 };

static struct price_row gpu_decode(const struct op *op)
{
    bool stream = op->m <= STREAM_ROWS;
    switch (op->kind) {
    case OP_MATMUL:
        return stream ? gpu_stream : op->n > SPLIT_ROWS ? gpu_skinny : gpu_skinny_split;
    case OP_ATTENTION:
        return stream ? gpu_cached : gpu_skinny_cached;
    case OP_SAMPLE:
        return stream ? gpu_rows[OP_SAMPLE] : gpu_skinny_sample;
    case OP_EMBED:
        return gpu_rows[op->kind];
    default:
        return gpu_within;
    }
}

bool device_is_cpu(const struct device *d)
{
    return d->threads > 0;
}

struct price_row price_row(const struct device *d, enum phase phase, const struct op *op)
{
    if (device_is_cpu(d))
        return cpu[op->kind];
    /* The logits behind a prompt are decode's kernels too. */
    bool last = phase == PHASE_PREFILL && op->section == SECTION_EXIT && op->m <= STREAM_ROWS;
    if (phase == PHASE_DECODE || last)
        return gpu_decode(op);
    if (op->kind == OP_SWIGLU && phase == PHASE_PREFILL)
        return gpu_within; /* in training its input is kept */
    struct price_row r = gpu_rows[op->kind];
    if (op->kind == OP_ATTENTION || op->kind == OP_ATTENTION_BW)
        r.rate *= gpu_exponentials(op);
    return r;
}

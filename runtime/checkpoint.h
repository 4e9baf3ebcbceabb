/* checkpoint.h - weights in Hugging Face layout, and the checkpoints of a training run.
 *
 *   OUT/step-N/model.safetensors      parameters, fp32
 *   OUT/step-N/config.json            Hugging Face config
 *   OUT/step-N/optimizer.safetensors  m.NAME and v.NAME, fp32
 *   OUT/step-N/train_state.json       the rest of the run's state
 *   OUT/latest -> step-N              symbolic link, replaced atomically
 *
 * A step-N directory appears by one rename after all its files reached the disk, and `latest` moves
 * after that, so that a kill or a full disk at any instant leaves the last whole checkpoint. */
#ifndef CHECKPOINT_H
#define CHECKPOINT_H

#include <jansson.h>

#include "runtime.h"

/* Reads DIR/config.json and DIR/model.safetensors (or its sharded index) into the parameter slab
 * (param_floats; the padding is set to 0). Everything is checked against the model. DIR may be a
 * training run's OUT: then OUT/latest is read. False: `error` is one line that says what and what
 * to do. */
bool weights_load(const char *dir, const struct archrt_model *m, float *params, char *error,
                  size_t error_size);
/* The same with the exit status. */
bool weights_read(const char *dir, const struct archrt_model *m, float *params, struct failure *f);

/* Writes config.json and model.safetensors into DIR, which must exist; each atomically. */
bool weights_write(const char *dir, const struct archrt_model *m, const float *params,
                   enum archrt_dtype dtype, struct failure *f);

/* What a checkpoint holds besides config.json. */
struct checkpoint {
    int64_t step;
    float *params, *m, *v; /* param_floats each */
    json_t *state;         /* train_state.json: an object; borrowed by save, new from load */
};

/* Saves OUT/step-N, moves `latest`, removes all but the last `keep`. Does nothing where `latest` is
 * already that step. */
bool checkpoint_save(const char *out, const struct archrt_model *m, const struct checkpoint *c,
                     int keep, struct failure *f);
/* Is there a checkpoint in OUT? */
bool checkpoint_exists(const char *out);
/* train_state.json of OUT/latest, so that it can be checked before slabs are filled. */
json_t *checkpoint_state(const char *out, struct failure *f);
/* Parameters and moments of OUT/latest; c's slabs are the caller's. c->state is not touched. */
bool checkpoint_load(const char *out, const struct archrt_model *m, struct checkpoint *c,
                     struct failure *f);
/* Makes OUT (and its parents), takes it for this process (released when it ends) and removes what a
 * killed run left half written; `latest` is set right where a kill left none. Fails where another
 * process trains into it. */
bool checkpoint_prepare(const char *out, struct failure *f);

#endif

/* hf_config.h - config.json in Hugging Face's form, from and against the compiled architecture. */
#ifndef HF_CONFIG_H
#define HF_CONFIG_H

#include "runtime.h"

/* LlamaForCausalLM, or Qwen3ForCausalLM with head norms, or Qwen2ForCausalLM with q, k, v biases.
 */
bool hf_config_write(const char *path, const struct archrt_arch *a, enum archrt_dtype dtype,
                     struct failure *f);
/* Every difference between the file and the compiled shape is named in one line. */
bool hf_config_check(const char *path, const struct archrt_arch *a, struct failure *f);
/* The same on a text in memory. */
bool hf_config_check_text(const char *path, const char *text, size_t n, const struct archrt_arch *a,
                          struct failure *f);

#endif

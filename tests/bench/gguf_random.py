#!/usr/bin/env python3
"""Writes a GGUF file of a Llama-style model with seeded random weights, for llama-bench.

    gguf_random.py OUT.gguf TYPE D_MODEL LAYERS HEADS KV_HEADS D_FF VOCAB

TYPE is f32, bf16 or q8_0; the head is tied to the embedding; head size is D_MODEL / HEADS. Speed
does not depend on the weights' values, but zeros would flatter denormal and sparse paths, so they
are normal(0, 0.02). Needs the `gguf` package; without it, prints a line "skip: ..." and exits 0.
"""
import sys

try:
    import gguf
    import numpy as np
except ImportError as e:
    print(f"skip: the Python package {e.name} is not installed")
    sys.exit(0)

TYPES = {"f32": gguf.GGMLQuantizationType.F32, "bf16": gguf.GGMLQuantizationType.BF16,
         "q8_0": gguf.GGMLQuantizationType.Q8_0}
FILE_TYPES = {"f32": gguf.LlamaFileType.ALL_F32, "bf16": gguf.LlamaFileType.MOSTLY_BF16,
              "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}


def main():
    if len(sys.argv) != 9 or sys.argv[2] not in TYPES:
        sys.exit(__doc__)
    path, kind = sys.argv[1:3]
    d, layers, heads, kv_heads, d_ff, vocab = map(int, sys.argv[3:])
    e = d // heads
    rng = np.random.default_rng(1)
    w = gguf.GGUFWriter(path, "llama")
    w.add_context_length(2048)
    w.add_embedding_length(d)
    w.add_block_count(layers)
    w.add_feed_forward_length(d_ff)
    w.add_head_count(heads)
    w.add_head_count_kv(kv_heads)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_dimension_count(e)
    w.add_vocab_size(vocab)
    w.add_file_type(FILE_TYPES[kind])
    w.add_tokenizer_model("no_vocab")

    def matrix(name, rows, columns):
        x = rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(0.02)
        w.add_tensor(name + ".weight", gguf.quants.quantize(x, TYPES[kind]),
                     raw_dtype=TYPES[kind])

    def gain(name):
        w.add_tensor(name + ".weight", np.ones(d, dtype=np.float32))

    matrix("token_embd", vocab, d)
    for i in range(layers):
        gain(f"blk.{i}.attn_norm")
        matrix(f"blk.{i}.attn_q", heads * e, d)
        matrix(f"blk.{i}.attn_k", kv_heads * e, d)
        matrix(f"blk.{i}.attn_v", kv_heads * e, d)
        matrix(f"blk.{i}.attn_output", d, heads * e)
        gain(f"blk.{i}.ffn_norm")
        matrix(f"blk.{i}.ffn_gate", d_ff, d)
        matrix(f"blk.{i}.ffn_up", d_ff, d)
        matrix(f"blk.{i}.ffn_down", d, d_ff)
    gain("output_norm")
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Weights trained here open in transformers, give the same loss there, and come back.

    python3 transformers_check.py PROGRAM     # a program that archc made, or a toy of the tests

Trains a few steps on tokens of its own, exports as fp32 and bf16, compares the loss of one sequence
with transformers', and reads what transformers saves, in one file and in shards. Exit status 77 where
transformers or PyTorch is not installed."""
import json
import os
import random
import struct
import subprocess
import sys
import tempfile

try:
    import torch
    import transformers
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)


def run(*arguments):
    return subprocess.run([sys.argv[1], *arguments], check=True, capture_output=True, text=True).stdout


def write_tokens(path, ids):
    """llm.c's format, which the program reads too."""
    header = struct.pack("<256i", 20240520, 1, len(ids), *[0] * 253)
    with open(path, "wb") as out:
        out.write(header + struct.pack(f"<{len(ids)}H", *ids))


def loss_here(weights, data):
    return json.loads(run("eval", "--weights", weights, "--data", data, "--json"))["loss"]


def loss_there(model, ids):
    with torch.no_grad():
        logits = model(torch.tensor([ids[:-1]])).logits.double()[0]
    return torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:])).item()


def same(what, a, b):
    print(f"{what}: {a:.7f} {b:.7f}")
    if not abs(a - b) < 2e-6 * abs(a):
        sys.exit(f"{what}: the losses differ")


def check(directory, dtype, short):
    data, weights = os.path.join(directory, "short.bin"), os.path.join(directory, dtype)
    run("export", "--weights", os.path.join(directory, "run"), "--out", weights, "--dtype", dtype)
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        weights, output_loading_info=True, dtype=torch.float32)
    if any(report.values()):
        sys.exit(f"transformers complains: {report}")
    ours = loss_here(weights, data)
    same(f"{dtype} in {type(model).__name__}", ours, loss_there(model, short))
    for name, limit in ("back", "1GB"), ("shards", "20KB"):
        model.save_pretrained(weights + name, max_shard_size=limit)
        same(f"{dtype} {name}", ours, loss_here(weights + name, data))


def main():
    transformers.logging.set_verbosity_error()
    info = json.loads(run("info", "--json"))
    vocab, length = info["architecture"]["vocab"], info["training"]["sequence"]
    chance = random.Random(3)
    ids = [chance.randrange(vocab) if chance.random() < 0.3 else i * 7 % vocab for i in range(3000)]
    with tempfile.TemporaryDirectory() as directory:
        write_tokens(os.path.join(directory, "data.bin"), ids)
        write_tokens(os.path.join(directory, "short.bin"), ids[:length + 1])
        run("train", "--data", os.path.join(directory, "data.bin"), "--steps", "40", "--lr", "0.01",
            "--out", os.path.join(directory, "run"), "--quiet")
        for dtype in "fp32", "bf16":
            check(directory, dtype, ids[:length + 1])


main()

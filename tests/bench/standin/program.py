#!/usr/bin/env python3
"""A stand-in for a compiled program on a GPU, for the test of gpu.sh: knows `info`, `verify` and
`bench --json` of a model of two kernels. Its own name and FAULTS decide what goes wrong: of
"NAME:FAULT .." hang (verify or bench), wrong, memory."""
import json
import os
import sys
import time

NAME = os.path.basename(sys.argv[0])
FAULTS = [word.split(":")[1] for word in os.environ.get("FAULTS", "").split() if word.split(":")[0] == NAME]
KERNELS = [{"name": "cuda_decode_head", "phase": "decode", "m": 1, "n": 128256, "k": 2048, "flops": 5e8},
           {"name": "cuda_train_o_dw", "phase": "train", "m": 256, "n": 512, "k": 1024, "flops": 2.7e8},
           {"name": "cuda_train_attention", "phase": "train", "m": 64, "n": 32, "k": 16, "flops": 1e6}]
DEVICE = "h100" if ".h100" in NAME else "h200"


def option(name):
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else None


def hang(at):
    print(at, end="", flush=True)
    time.sleep(1000)


def verify():
    if "hang" in FAULTS:
        hang("cuda_decode_attention      decode   1 x 2048 ")
    print("1 passed, 1 failed" if "wrong" in FAULTS else "71 passed, 0 failed")
    return "wrong" in FAULTS


def row(phase, past, tokens, seconds, **more):
    return {"phase": phase, "past": past, "tokens": tokens, "seconds": seconds, "floor_seconds": seconds / 2,
            "predicted_seconds": seconds, "tokens_per_second": tokens / seconds,
            "flops_per_second": 4.947e14, "of_copy_bandwidth": 0.8, **more}


def rows_of(phase):
    if phase == "decode":
        return [row("decode", past, 1, 7e-4) for past in (1, 4096, 8056)]
    if phase == "prefill":
        return [row("prefill", 0, 4096, 0.016)]
    if phase == "batch":
        return [row("batch", past, 64, 3e-3) for past in (4096, 4608, 4984)]
    return [row("train", 0, 16384, 0.2), row("update", 0, 0, 0.02),
            row("step", 0, 131072, 1.62, micro_batches=8)]


def bench():
    phases, only = (option("--phase") or "decode,prefill,batch,train").split(","), option("--only")
    if "hang" in FAULTS and "train" in phases:
        sys.stderr.write("cuda_train_o\n")
        hang("")
    if "memory" in FAULTS and "train" in phases:
        sys.exit(f"{NAME}: NVIDIA H100 80GB HBM3: 90.1 GB of memory for training: out of memory (2)")
    time.sleep(0.01)
    kernels = [{**k, "seconds": 1e-5, "calls": 1} for k in KERNELS
               if "--whole" not in sys.argv and k["phase"] in phases and (only or "") in k["name"]]
    load = {"sequences": 64, "prompt": 4096, "generate": 1024, "prompt_seconds": 1.0,
            "tokens_per_second": 15000.0, "predicted_tokens_per_second": 14000.0}
    print(json.dumps({
        "model": NAME, "device": "NVIDIA H100 80GB HBM3", "driver": "CUDA 13.0", "predicted_for": DEVICE,
        "products": "own kernels", "copy_bytes_per_second": 3e12,
        "phases": [] if only else [r for phase in phases for r in rows_of(phase)],
        "load": load if {"prefill", "batch"} <= set(phases) and not only else None, "kernels": kernels}))
    return 0


def info():
    print(json.dumps({"cuda": {"kernels": KERNELS}}) if "--json" in sys.argv else "products: libcublasLt.so")
    return 0


sys.exit({"verify": verify, "bench": bench, "info": info}[sys.argv[1]]())

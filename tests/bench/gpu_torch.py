"""gpu_torch.py DIR PROGRAMS: the opponents of each DIR/MODEL.special.json, timed on the same card:
cuBLAS for every product, the fastest back end of scaled_dot_product_attention in turns with
PROGRAMS/MODEL's own kernel, and the matrix peak. Writes DIR/MODEL.torch.json. CUDA events, warm-up,
medians; operands rotate through more than the cache."""
import glob
import json
import math
import os
import statistics
import subprocess
import sys

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


def seconds(call, rounds=15, calls=16):
    """Median of one call: as many calls in a row as our own kernels are timed by, for a card that is
    kept busy lowers its clock."""
    for _ in range(calls):
        call(0)
    times = []
    for _ in range(rounds):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record()
        for i in range(calls):
            call(i)
        b.record()
        b.synchronize()
        times.append(a.elapsed_time(b) * 1e-3 / calls)
    return statistics.median(times)


def matrix(rows, columns):
    return torch.randn(rows, columns, device="cuda", dtype=torch.bfloat16) * 0.05


def replayed(call, calls=16):
    """The same calls as one CUDA graph: a product of microseconds is over before Python can launch the
    next one, and would be timed by that."""
    call(0)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(calls):
            call(i)
    return seconds(lambda i: graph.replay(), calls=1) / calls


CACHE = {}


def product(m, n, k):
    if (m, n, k) not in CACHE:
        CACHE[m, n, k] = time_product(m, n, k)
    return CACHE[m, n, k]


def time_product(m, n, k):
    copies = max(1, min(8, (256 << 20) // (2 * n * k)))
    x, w = matrix(m, k), [matrix(n, k) for _ in range(copies)]
    return replayed(lambda i: torch.nn.functional.linear(x, w[i % copies]))


def peak():
    n = 8192
    a, b = matrix(n, n), matrix(n, n)
    return 2 * n**3 / seconds(lambda i: a @ b, rounds=7, calls=10)


def copy_bandwidth():
    a = torch.empty(1 << 30, dtype=torch.uint8, device="cuda").random_()
    b = torch.empty_like(a)
    return 2 * a.numel() / seconds(lambda i: b.copy_(a), rounds=7)


def attention(shape, batch, length, backward):
    """Seconds by the fastest back end there is, and its name."""
    h, k, e = shape["heads"], shape["kv_heads"], shape["head_dim"]
    q = torch.randn(batch, h, length, e, device="cuda", dtype=torch.bfloat16, requires_grad=backward)
    kv = [torch.randn(batch, k, length, e, device="cuda", dtype=torch.bfloat16,
                      requires_grad=backward) for _ in range(2)]

    def forward(_):
        return torch.nn.functional.scaled_dot_product_attention(q, *kv, is_causal=True,
                                                                enable_gqa=h != k)

    best = (math.inf, None)
    for end in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
        try:
            with sdpa_kernel(end):
                if backward:
                    out = forward(0)
                    grad = torch.randn_like(out)
                    time = seconds(lambda i: torch.autograd.grad(out, [q] + kv, grad,
                                                                 retain_graph=True))
                else:
                    time = seconds(forward)
            best = min(best, (time, end.name.lower()))
        except RuntimeError as why:  # a back end that has not this shape
            print(f"{end.name} on {shape}: {str(why).splitlines()[0]}", file=sys.stderr)
    return best


def attention_row(name, shape, batch, length, backward):
    time, end = attention(shape, batch, length, backward)
    return {"name": name, "library": f"SDPA, {end}", "seconds": time if end else None}


def ours_alone(program, kernel):
    """Seconds of a kernel of a program, timed by the program, for which memory is given back here;
    None where the program could not."""
    torch.cuda.empty_cache()
    command = [program, "bench", "--device", "cuda", "--only", kernel, "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        print(f"{kernel} of {program} not timed: {done.stderr.strip()}", file=sys.stderr)
        return None
    rows = json.loads(done.stdout)["kernels"]
    return next((row["seconds"] for row in rows if row["name"] == kernel), None)


def attention_turns(program, name, shape, batch, length, backward, turns=3):
    """The same with our kernel in turns: both meet the card as warm as the other left it."""
    pairs = [(ours_alone(program, name), attention_row(name, shape, batch, length, backward))
             for _ in range(turns)]
    ours, theirs = [a for a, _ in pairs], [row["seconds"] for _, row in pairs]
    if None in ours + theirs:
        return pairs[0][1]
    return {**pairs[0][1], "seconds": statistics.median(theirs),
            "ours_in_turns": statistics.median(ours)}


def opponents(path, programs, limits):
    with open(path) as f:
        ours = json.load(f)
    with open(path.replace(".special.json", ".arch.json")) as f:
        shape = json.load(f)["architecture"]
    program = os.path.join(programs, os.path.basename(path)[: -len(".special.json")])
    rows = []
    for kernel in ours["kernels"]:
        name, m, n, k = kernel["name"], kernel["m"], kernel["n"], kernel["k"]
        if kernel["flops"] > 0 and k > 0 and "attention" not in name and "rope" not in name:
            if name.endswith("_dx"):
                m, n, k = m, k, n
            elif name.endswith("_dw"):
                m, n, k = n, k, m
            rows.append({"name": name, "library": "cuBLAS", "seconds": product(m, n, k)})
        elif name == "cuda_train_attention":
            rows.append(attention_turns(program, name, shape, m // n, n, False))
        elif name == "cuda_train_attention_backward":
            rows.append(attention_turns(program, name, shape, m // n, n, True))
    lengths = [{"length": t, **{way: attention_row(way, shape, max(1, 16384 // t), t, way == "backward")
                                for way in ("forward", "backward")}}
               for t in (1024, 4096)]
    return {**limits, "torch": torch.__version__, "rows": rows, "attention": lengths}


def main():
    torch.manual_seed(1)
    limits = {"matrix_peak": peak(), "copy_bandwidth": copy_bandwidth()}
    for path in sorted(glob.glob(sys.argv[1] + "/*.special.json")):
        with open(path.replace(".special.json", ".torch.json"), "w") as f:
            json.dump(opponents(path, sys.argv[2], limits), f, indent=1)


main()

"""gpu_torch.py DIR PROGRAM MODEL: the opponents of PROGRAM's kernels, timed on the same card: the
fastest back end of scaled_dot_product_attention in turns with the program's own kernel, cuBLAS for
every product, and the matrix peak. DIR/MODEL.arch.json has the shape. Writes DIR/MODEL.torch.json anew
behind each of them, whole, so that nothing is lost where this is stopped. CUDA events, warm-up, medians;
operands rotate through more than the cache. At most 5 GB of memory, which is given back while the
program runs."""
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
    """Seconds; None where there is no memory for it."""
    if (m, n, k) not in CACHE:
        try:
            CACHE[m, n, k] = time_product(m, n, k)
        except torch.cuda.OutOfMemoryError as why:
            print(f"product of {m} x {n} x {k}: {str(why).splitlines()[0]}", file=sys.stderr)
            CACHE[m, n, k] = None
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
        except RuntimeError as why:  # a back end that has not this shape, or finds no memory
            print(f"{end.name} on {shape}: {str(why).splitlines()[0]}", file=sys.stderr)
    return best


def attention_row(name, shape, batch, length, backward):
    time, end = attention(shape, batch, length, backward)
    return {"name": name, "library": f"SDPA, {end}", "seconds": time if end else None}


def ours_alone(program, kernel):
    """Seconds of a kernel of a program, timed by the program, for which memory is given back here;
    None where the program could not, or not in time."""
    torch.cuda.empty_cache()
    command = [program, "bench", "--device", "cuda", "--only", kernel, "--phase", "train", "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=40)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as why:
        print(f"{kernel} of {os.path.basename(program)} not timed: {why.stderr}", file=sys.stderr)
        return None
    rows = json.loads(done.stdout)["kernels"]
    return next((row["seconds"] for row in rows if row["name"] == kernel), None)


def attention_turns(program, name, shape, batch, length, backward, turns=3):
    """The same with our kernel in turns: both meet the card as warm as the other left it."""
    ours, theirs = [], []
    for _ in range(turns):
        ours.append(ours_alone(program, name))
        row = attention_row(name, shape, batch, length, backward)
        theirs.append(row["seconds"])
        if ours[-1] is None or theirs[-1] is None:
            return row
    return {**row, "seconds": statistics.median(theirs), "ours_in_turns": statistics.median(ours)}


def training_attention(kernels):
    """(name, batch, length, backward) of the two kernels of training."""
    ends = {"cuda_train_attention": False, "cuda_train_attention_backward": True}
    return [(k["name"], k["m"] // k["n"], k["n"], ends[k["name"]]) for k in kernels if k["name"] in ends]


def products(kernels):
    """(name, (m, n, k)) of every matrix product, as y = x W^T."""
    for kernel in kernels:
        name, m, n, k = (kernel[key] for key in ("name", "m", "n", "k"))
        if kernel["flops"] > 0 and k > 0 and "attention" not in name and "rope" not in name:
            if name.endswith("_dx"):
                m, n, k = m, k, n
            elif name.endswith("_dw"):
                m, n, k = n, k, m
            yield name, (m, n, k)


def opponents(program, shape, result, save):
    """Fills result, and saves it behind every row."""
    info = subprocess.run([program, "info", "--json"], check=True, capture_output=True, text=True)
    kernels = json.loads(info.stdout)["cuda"]["kernels"]
    for name, batch, length, backward in training_attention(kernels):
        result["rows"].append(attention_turns(program, name, shape, batch, length, backward))
        save()
    for name, size in products(kernels):
        result["rows"].append({"name": name, "library": "cuBLAS", "seconds": product(*size)})
        save()
    for length in (1024, 4096):
        ways = {way: attention_row(way, shape, max(1, 16384 // length), length, way == "backward")
                for way in ("forward", "backward")}
        result["attention"].append({"length": length, **ways})
        save()


def main():
    directory, program, model = sys.argv[1:]
    with open(f"{directory}/{model}.arch.json") as f:
        shape = json.load(f)["architecture"]
    path = f"{directory}/{model}.torch.json"
    torch.manual_seed(1)
    result = {"matrix_peak": peak(), "copy_bandwidth": copy_bandwidth(), "torch": torch.__version__,
              "rows": [], "attention": []}

    def save():
        with open(path + ".part", "w") as f:
            json.dump(result, f, indent=1)
        os.replace(path + ".part", path)

    opponents(program, shape, result, save)


if __name__ == "__main__":
    main()

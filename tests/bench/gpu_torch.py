"""gpu_torch.py DIR: the opponents of each DIR/MODEL.special.json, timed on the same card: cuBLAS for
every product, scaled_dot_product_attention, a compiled training step, and the matrix peak. Writes
DIR/MODEL.torch.json. CUDA events, warm-up, medians; operands rotate through more than the cache."""
import glob
import json
import statistics
import sys

import torch


def seconds(call, rounds=15, calls=4):
    for _ in range(3):
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


def product(m, n, k):
    copies = max(1, min(8, (256 << 20) // (2 * n * k)))
    x, w = matrix(m, k), [matrix(n, k) for _ in range(copies)]
    return seconds(lambda i: torch.nn.functional.linear(x, w[i % copies]))


def peak():
    n = 8192
    a, b = matrix(n, n), matrix(n, n)
    return 2 * n**3 / seconds(lambda i: a @ b, rounds=7, calls=10)


def copy_bandwidth():
    a = torch.empty(1 << 30, dtype=torch.uint8, device="cuda").random_()
    b = torch.empty_like(a)
    return 2 * a.numel() / seconds(lambda i: b.copy_(a), rounds=7)


def attention(shape, batch, length, backward):
    h, k, e = shape["heads"], shape["kv_heads"], shape["head_dim"]
    q = torch.randn(batch, h, length, e, device="cuda", dtype=torch.bfloat16, requires_grad=backward)
    kv = [torch.randn(batch, k, length, e, device="cuda", dtype=torch.bfloat16,
                      requires_grad=backward) for _ in range(2)]

    def forward(_):
        return torch.nn.functional.scaled_dot_product_attention(q, *kv, is_causal=True,
                                                                enable_gqa=h != k)

    if not backward:
        return seconds(forward)
    out = forward(0)
    grad = torch.randn_like(out)
    return seconds(lambda i: torch.autograd.grad(out, [q] + kv, grad, retain_graph=True))


def opponents(path, limits):
    with open(path) as f:
        ours = json.load(f)
    with open(path.replace(".special.json", ".arch.json")) as f:
        shape = json.load(f)["architecture"]
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
            rows.append({"name": name, "library": "SDPA",
                         "seconds": attention(shape, m // n, n, False)})
        elif name == "cuda_train_attention_backward":
            rows.append({"name": name, "library": "SDPA",
                         "seconds": attention(shape, m // n, n, True)})
    lengths = [{"length": t, "forward": attention(shape, max(1, 16384 // t), t, False),
                "backward": attention(shape, max(1, 16384 // t), t, True)}
               for t in (1024, 2048, 4096)]
    return {**limits, "torch": torch.__version__, "rows": rows, "attention": lengths}


def main():
    torch.manual_seed(1)
    limits = {"matrix_peak": peak(), "copy_bandwidth": copy_bandwidth()}
    for path in sorted(glob.glob(sys.argv[1] + "/*.special.json")):
        with open(path.replace(".special.json", ".torch.json"), "w") as f:
            json.dump(opponents(path, limits), f, indent=1)


main()

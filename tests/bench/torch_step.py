#!/usr/bin/env python3
"""Training step of a Llama-style model in PyTorch on the CPU: the opponent of `train`.

Same work as the compiled program: fp32, RMSNorm, RoPE, grouped-query attention, SwiGLU, cross-entropy
over every position, clipping by global norm, AdamW with decay on matrices only. Projections are
fused (q, k, v in one product; gate and up in one) because that is the fastest PyTorch here too.
Prints one JSON object with the median of --rounds rounds of --steps steps for each mode.
Skips, with a line that begins "skip:", where PyTorch is absent.
"""
import argparse
import json
import math
import statistics
import sys
import time

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    print("skip: PyTorch is not installed (python3 -m pip install torch)")
    sys.exit(0)


class Block(torch.nn.Module):
    def __init__(self, a):
        super().__init__()
        self.a = a
        dq, dkv = a.heads * a.head_dim, a.kv_heads * a.head_dim
        linear = lambda i, o: torch.nn.Linear(i, o, bias=False)
        self.norm1 = torch.nn.RMSNorm(a.d_model, eps=1e-5)
        self.qkv = linear(a.d_model, dq + 2 * dkv)
        self.o = linear(dq, a.d_model)
        self.norm2 = torch.nn.RMSNorm(a.d_model, eps=1e-5)
        self.gate_up = linear(a.d_model, 2 * a.d_ff)
        self.down = linear(a.d_ff, a.d_model)

    def forward(self, x, cos, sin):
        a = self.a
        b, t, _ = x.shape
        dq, dkv = a.heads * a.head_dim, a.kv_heads * a.head_dim
        q, k, v = self.qkv(self.norm1(x)).split([dq, dkv, dkv], dim=-1)
        q = rotate(q.view(b, t, a.heads, a.head_dim).transpose(1, 2), cos, sin)
        k = rotate(k.view(b, t, a.kv_heads, a.head_dim).transpose(1, 2), cos, sin)
        v = v.view(b, t, a.kv_heads, a.head_dim).transpose(1, 2)
        group = a.heads // a.kv_heads
        if group > 1:
            shape = (b, a.kv_heads, group, t, a.head_dim)
            k = k[:, :, None].expand(shape).reshape(b, a.heads, t, a.head_dim)
            v = v[:, :, None].expand(shape).reshape(b, a.heads, t, a.head_dim)
        att = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(att.transpose(1, 2).reshape(b, t, dq))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


def rotate(x, cos, sin):
    lo, hi = x.chunk(2, dim=-1)
    return torch.cat((lo * cos - hi * sin, hi * cos + lo * sin), dim=-1)


class Llama(torch.nn.Module):
    def __init__(self, a):
        super().__init__()
        self.embed = torch.nn.Embedding(a.vocab, a.d_model)
        self.blocks = torch.nn.ModuleList(Block(a) for _ in range(a.layers))
        self.norm = torch.nn.RMSNorm(a.d_model, eps=1e-5)
        self.head = torch.nn.Linear(a.d_model, a.vocab, bias=False)
        for p in self.parameters():
            if p.dim() > 1:
                torch.nn.init.normal_(p, std=0.02)
        if a.tied:
            self.head.weight = self.embed.weight
        angle = torch.outer(torch.arange(a.sequence).float(),
                            10000.0 ** (-torch.arange(0, a.head_dim, 2).float() / a.head_dim))
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def forward(self, token, target):
        x = self.embed(token)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), target.view(-1))


def flops_per_token(a):
    """6 FLOPs a weight that multiplies (the head included), and causal attention: a query row sees
    (T + 1) / 2 keys, 2 products of 2 E FLOPs a head forward and twice that backward."""
    dq, dkv = a.heads * a.head_dim, a.kv_heads * a.head_dim
    n = a.layers * (2 * a.d_model * dq + 2 * a.d_model * dkv + 3 * a.d_model * a.d_ff)
    n += a.vocab * a.d_model
    return 6 * n + 3 * a.layers * 4 * dq * (a.sequence + 1) / 2


def stepper(a, compiled):
    torch.manual_seed(1)
    model = Llama(a)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    optimiser = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1},
                                   {"params": vectors, "weight_decay": 0.0}],
                                  lr=1e-3, betas=(0.9, 0.95), fused=True)
    loss_of = torch.compile(model) if compiled else model
    token = torch.randint(0, a.vocab, (a.batch, a.sequence + 1))

    def step():
        loss = loss_of(token[:, :-1].contiguous(), token[:, 1:].contiguous())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return loss.item()

    return step


def measure(step, rounds, steps):
    first = step()
    for _ in range(2):
        step()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(steps):
            last = step()
        times.append((time.perf_counter() - start) / steps)
    if not last < first:
        sys.exit("the loss did not fall: nothing was trained, so nothing was measured")
    return times, first, last


def product_peak(n=2048, rounds=7):
    """GFLOP/s of the largest easy product: what this PyTorch's BLAS reaches at best."""
    x, y = torch.randn(n, n), torch.randn(n, n)
    best = math.inf
    for _ in range(rounds):
        start = time.perf_counter()
        x @ y
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best / 1e9


def arguments():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in [("d-model", 320), ("layers", 6), ("heads", 5), ("kv-heads", 1),
                        ("head-dim", 64), ("d-ff", 864), ("vocab", 4096), ("batch", 8),
                        ("sequence", 256), ("threads", 2), ("rounds", 5), ("steps", 2)]:
        p.add_argument("--" + name, type=int, default=value)
    p.add_argument("--untied", dest="tied", action="store_false")
    p.add_argument("--modes", default="eager,compile", help="eager, compile, or both with a comma")
    return p.parse_args()


def main():
    a = arguments()
    torch.set_num_threads(a.threads)
    tokens = a.batch * a.sequence
    out = {"opponent": "PyTorch " + torch.__version__, "threads": a.threads,
           "flops_per_token": flops_per_token(a), "product_gflops": product_peak(), "modes": {}}
    for mode in a.modes.split(","):
        try:
            times, first, last = measure(stepper(a, mode == "compile"), a.rounds, a.steps)
        except Exception as e:  # torch.compile needs a working C++ compiler
            out["modes"][mode] = {"error": str(e).splitlines()[0]}
            continue
        median = statistics.median(times)
        out["modes"][mode] = {
            "tokens_per_second": tokens / median,
            "best_tokens_per_second": tokens / min(times),
            "gflops": tokens / median * flops_per_token(a) / 1e9,
            "spread": (max(times) - min(times)) / median,
            "first_loss": first, "last_loss": last}
    print(json.dumps(out))


if __name__ == "__main__":
    main()

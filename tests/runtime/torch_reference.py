#!/usr/bin/env python3
"""An independent implementation of three tiny models in PyTorch, double precision.

Writes torch_values.h and torch_values.json beside itself: losses, gradients tensor by tensor, and
the losses of 20 steps of AdamW. verify_torch.c compares the plain reference and a program's kernels
with them, without needing PyTorch. Weights and tokens come from a hash, so that both sides make the
same ones. Written from the published descriptions of Llama, Qwen2 and Qwen3, not from reference.c.

    python3 tests/runtime/torch_reference.py            # rewrites the values
    python3 tests/runtime/torch_reference.py --check    # fails where they differ from the stored ones
"""
import json
import math
import pathlib
import sys

import numpy as np
import torch
import torch.nn.functional as F

VARIANTS = {
    "plain": dict(layers=2, d_model=48, heads=6, kv_heads=2, head_dim=16, d_ff=80, vocab=101,
                  tied=False, bias=False, qk_norm=False, theta=1e4, scaling=None),
    "qk_norm": dict(layers=2, d_model=40, heads=5, kv_heads=1, head_dim=8, d_ff=56, vocab=256,
                    tied=True, bias=False, qk_norm=True, theta=1e6, scaling=None),
    "bias": dict(layers=3, d_model=32, heads=4, kv_heads=4, head_dim=8, d_ff=64, vocab=67,
                 tied=False, bias=True, qk_norm=False, theta=500.0, scaling=(8.0, 1.0, 4.0, 16.0)),
}
EPS = 1e-5
BATCH, LENGTH = 2, 24
STEPS, LR, BETAS, ADAM_EPS, DECAY, CLIP = 20, 0.01, (0.9, 0.95), 1e-8, 0.1, 1.0
MASK = (1 << 64) - 1


def mix64(x):
    with np.errstate(over="ignore"):
        x = (x + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def name_hash(name):
    h = 14695981039346656037
    for byte in name.encode():
        h = ((h ^ byte) * 1099511628211) & MASK
    return np.uint64(h)


def uniform(name, n):
    """In [-1, 1), exact in double on both sides."""
    bits = mix64(name_hash(name) ^ mix64(np.arange(n, dtype=np.uint64)))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1


def shapes(c):
    d, e, f = c["d_model"], c["head_dim"], c["d_ff"]
    dq, dkv = c["heads"] * e, c["kv_heads"] * e
    out = {"model.embed_tokens.weight": (c["vocab"], d), "model.norm.weight": (d,)}
    if not c["tied"]:
        out["lm_head.weight"] = (c["vocab"], d)
    for i in range(c["layers"]):
        p = f"model.layers.{i}."
        out |= {p + "input_layernorm.weight": (d,), p + "post_attention_layernorm.weight": (d,),
                p + "self_attn.q_proj.weight": (dq, d), p + "self_attn.k_proj.weight": (dkv, d),
                p + "self_attn.v_proj.weight": (dkv, d), p + "self_attn.o_proj.weight": (d, dq),
                p + "mlp.gate_proj.weight": (f, d), p + "mlp.up_proj.weight": (f, d),
                p + "mlp.down_proj.weight": (d, f)}
        if c["bias"]:
            out |= {p + "self_attn.q_proj.bias": (dq,), p + "self_attn.k_proj.bias": (dkv,),
                    p + "self_attn.v_proj.bias": (dkv,)}
        if c["qk_norm"]:
            out |= {p + "self_attn.q_norm.weight": (e,), p + "self_attn.k_norm.weight": (e,)}
    return out


def weights(c):
    out = {}
    for name, shape in shapes(c).items():
        gain = len(shape) == 1 and not name.endswith(".bias")
        if len(shape) == 1:
            scale = 0.2 if gain else 0.3
        elif name == "lm_head.weight" or (name.startswith("model.embed") and c["tied"]):
            scale = 2 / math.sqrt(shape[1])
        elif name.startswith("model.embed"):
            scale = 1.0
        else:
            scale = 1 / math.sqrt(shape[1])
        x = (1.0 if gain else 0.0) + (1.732 * scale) * uniform(name, math.prod(shape))
        x = torch.tensor(x.astype(np.float32).astype(np.float64)).reshape(shape)
        out[name] = x.requires_grad_()
    return out


def ids(c):
    n = BATCH * (LENGTH + 1)
    draws = mix64(np.arange(1000, 1000 + n, dtype=np.uint64)) % np.uint64(c["vocab"])
    return torch.tensor(draws.astype(np.int64)).reshape(BATCH, LENGTH + 1)


def rms_norm(x, gain):
    return F.rms_norm(x, gain.shape, gain, EPS)


def angles(c, n):
    e = c["head_dim"]
    frequency = c["theta"] ** -(torch.arange(0, e, 2, dtype=torch.float64) / e)
    if c["scaling"]:
        factor, low, high, original = c["scaling"]
        wavelength = 2 * math.pi / frequency
        smooth = (original / wavelength - low) / (high - low)
        blended = (1 - smooth) * frequency / factor + smooth * frequency
        scaled = torch.where(wavelength > original / low, frequency / factor, frequency)
        between = (wavelength <= original / low) & (wavelength >= original / high)
        frequency = torch.where(between, blended, scaled)
    return torch.outer(torch.arange(n, dtype=torch.float64), frequency)


def rotate(x, angle):
    """Pairs (i, i + E/2) as complex numbers."""
    half = x.shape[-1] // 2
    z = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat((z.real, z.imag), -1)


def forward(c, w, tokens):
    batch, n = tokens.shape
    x = F.embedding(tokens, w["model.embed_tokens.weight"])
    angle = angles(c, n)
    for i in range(c["layers"]):
        p = f"model.layers.{i}."
        y = rms_norm(x, w[p + "input_layernorm.weight"])
        heads = {}
        for part, count in (("q", c["heads"]), ("k", c["kv_heads"]), ("v", c["kv_heads"])):
            name = f"{p}self_attn.{part}_proj."
            z = F.linear(y, w[name + "weight"], w.get(name + "bias"))
            z = z.reshape(batch, n, count, c["head_dim"]).transpose(1, 2)
            if c["qk_norm"] and part != "v":
                z = rms_norm(z, w[f"{p}self_attn.{part}_norm.weight"])
            heads[part] = rotate(z, angle) if part != "v" else z
        group = c["heads"] // c["kv_heads"]
        k, v = (heads[part].repeat_interleave(group, 1) for part in "kv")
        att = F.scaled_dot_product_attention(heads["q"], k, v, is_causal=True)
        att = att.transpose(1, 2).reshape(batch, n, -1)
        x = x + att @ w[p + "self_attn.o_proj.weight"].T
        y = rms_norm(x, w[p + "post_attention_layernorm.weight"])
        gate, up = y @ w[p + "mlp.gate_proj.weight"].T, y @ w[p + "mlp.up_proj.weight"].T
        x = x + (F.silu(gate) * up) @ w[p + "mlp.down_proj.weight"].T
    x = rms_norm(x, w["model.norm.weight"])
    head = w["model.embed_tokens.weight" if c["tied"] else "lm_head.weight"]
    return x @ head.T


def losses(c, w):
    tokens = ids(c)
    logits = forward(c, w, tokens[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")


def train(c):
    w = weights(c)
    groups = [dict(params=[x for x in w.values() if x.dim() == 2], weight_decay=DECAY),
              dict(params=[x for x in w.values() if x.dim() == 1], weight_decay=0.0)]
    adam = torch.optim.AdamW(groups, lr=LR, betas=BETAS, eps=ADAM_EPS)
    curve = []
    for _ in range(STEPS):
        loss = losses(c, w).mean()
        curve.append(loss.item())
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(w.values(), CLIP)
        adam.step()
    return curve


def values(c):
    w = weights(c)
    each = losses(c, w)
    each.mean().backward()
    gradients = {}
    for name, x in w.items():
        g = x.grad.flatten()
        along = torch.dot(g, torch.tensor(uniform("direction " + name, g.numel())))
        gradients[name] = dict(norm=g.norm().item(), along=along.item())
    return dict(losses=each.tolist(), gradients=gradients, curve=train(c))


def header(all_values):
    out = ["/* torch_values.h - written by torch_reference.py; not to be edited. */",
           "#ifndef TORCH_VALUES_H", "#define TORCH_VALUES_H", "",
           f"enum {{ TORCH_BATCH = {BATCH}, TORCH_LENGTH = {LENGTH}, TORCH_STEPS = {STEPS} }};",
           f"static const double torch_lr = {LR}, torch_beta1 = {BETAS[0]}, torch_beta2 = {BETAS[1]},",
           f"                    torch_eps = {ADAM_EPS}, torch_decay = {DECAY}, torch_clip = {CLIP};",
           "", "struct torch_gradient {", "    const char *name;", "    double norm, along;", "};", ""]
    for name, v in all_values.items():
        for what in ("losses", "curve"):
            out.append(f"static const double torch_{name}_{what}[] = {{")
            out += [f"    {x!r}," for x in v[what]] + ["};"]
        out.append(f"static const struct torch_gradient torch_{name}_gradients[] = {{")
        out += [f'    {{"{t}", {g["norm"]!r}, {g["along"]!r}}},' for t, g in v["gradients"].items()]
        out += ["};", ""]
    out += ["static const struct torch_variant {", "    const char *name;",
            "    const double *losses, *curve;", "    const struct torch_gradient *gradients;",
            "    int n_gradients;", "} torch_variants[] = {"]
    for name, v in all_values.items():
        out.append(f'    {{"{name}", torch_{name}_losses, torch_{name}_curve, '
                   f'torch_{name}_gradients, {len(v["gradients"])}}},')
    out += ["};", "", "#endif", ""]
    return "\n".join(out)


def close(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(close(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(close, a, b))
    return abs(a - b) <= 1e-9 * (1 + abs(b))


def main():
    torch.set_num_threads(1)
    here = pathlib.Path(__file__).parent
    all_values = {name: values(c) for name, c in VARIANTS.items()}
    if "--check" in sys.argv:
        stored = json.loads((here / "torch_values.json").read_text())
        sys.exit(0 if close(all_values, stored) else "the stored values differ: run without --check")
    (here / "torch_values.json").write_text(json.dumps(all_values, indent=1) + "\n")
    (here / "torch_values.h").write_text(header(all_values))


if __name__ == "__main__":
    main()

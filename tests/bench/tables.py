#!/usr/bin/env python3
"""Markdown tables from the JSON that all.sh left in a directory.

    tables.py DIR TABLE..
"""
import glob
import json
import os
import statistics
import sys

median = statistics.median


def load(pattern):
    return [json.load(open(path)) for path in sorted(glob.glob(os.path.join(directory, pattern)))]


def table(header, rows):
    if not rows:
        print("(nothing was measured)\n")
        return
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def spread(values):
    return (max(values) - min(values)) / median(values) if len(values) > 1 else 0.0


def phase_rates(runs, phase, tokens=None):
    """tokens/s and fractions of one phase, one value a run."""
    return [p for r in runs for p in r["phases"]
            if p["phase"] == phase and (tokens is None or (p["tokens"], p["past"]) == tokens)]


def machine(runs):
    if runs:
        m = [r["machine"] for r in runs]
        print(f"Limits in the same runs: {median(x['fma_gflops'] for x in m):.0f} GFLOP/s of "
              f"multiply-adds, {median(x['product_gflops'] for x in m):.0f} of fp32 products "
              f"(more where a tile unit does them), "
              f"{median(x['memory_read_gbs'] for x in m):.1f} GB/s read from memory, "
              f"{runs[0]['threads']} threads.\n")


def of_fma(fraction, run):
    """A fraction of the limit of products as one of the multiply-add peak."""
    return fraction * run["machine"]["product_gflops"] / run["machine"]["fma_gflops"]


def training():
    print("### Training step, 9M parameters (fp32, batch 8 x 256 tokens)\n")
    ours, theirs = load("train.*.json"), load("torch.*.json")
    machine(ours)
    steps = phase_rates(ours, "train")
    if not steps:
        table([], [])
        return
    rate = median(p["tokens_per_second"] for p in steps)
    fraction = median(of_fma(p["peak_fraction"], r)
                      for r in ours for p in r["phases"] if p["phase"] == "train")
    rows = [["archc", f"{rate:.0f}", f"{fraction:.0%}",
             f"{spread([p['tokens_per_second'] for p in steps]):.0%}", "1.00x"]]
    peak = median(r["machine"]["fma_gflops"] for r in ours)
    for mode in sorted({m for r in theirs for m in r["modes"]}):
        good = [r["modes"][mode] for r in theirs if "error" not in r["modes"].get(mode, {"error": 1})]
        if not good:
            continue
        tps = median(g["tokens_per_second"] for g in good)
        rows.append([f"{theirs[0]['opponent']}, {mode}", f"{tps:.0f}",
                     f"{median(g['gflops'] for g in good) / peak:.0%}",
                     f"{spread([g['tokens_per_second'] for g in good]):.0%}",
                     f"{rate / tps:.2f}x"])
    table(["", "tokens/s", "of FMA peak", "spread", "archc is"], rows)


def products():
    print("### Matrix products of that step\n")
    runs = load("train.*.json")
    machine(runs)
    rows, worst = [], []
    names = [k["name"] for k in runs[0]["kernels"] if k.get("blas")] if runs else []
    for name in names:
        ks = [k for r in runs for k in r["kernels"] if k["name"] == name]
        k = ks[0]
        row = [f"`{name}`", f"{k['m']} x {k['n']} x {k['k']}",
               f"{median(x['gflops'] for x in ks):.0f}",
               f"{median(of_fma(k['peak_fraction'], r) for r in runs for k in r['kernels'] if k['name'] == name):.0%}"]
        best = []
        for i, blas in enumerate(k["blas"]):
            ratio = median(x["blas"][i]["ratio"] for x in ks)
            best.append(ratio)
            row.append(f"{ratio:.2f}x")
        worst.append(min(best))
        rows.append(row)
    libraries = [b["library"] for b in runs[0]["kernels"][names.index(names[0])]["blas"]] if 0 else (
        [b["library"] for k in runs[0]["kernels"] if k.get("blas") for b in k["blas"]] if runs else [])
    seen = list(dict.fromkeys(libraries))
    table(["product", "m x n x k", "GFLOP/s", "of FMA peak"] + ["against " + x for x in seen], rows)
    if worst:
        print(f"Against the better library on each product: median {median(worst):.2f}x, "
              f"worst {min(worst):.2f}x.\n")


TYPES = {"fp32": "f32", "bf16": "bf16", "int8": "q8_0"}


def inference():
    print("### Prompt of 512 tokens and decode, batch 1, tokens/s\n")
    llama = [row for r in load("llama.*.json") for row in r]
    machine(load("infer.*.decode.*.json"))
    opponents = list(dict.fromkeys(r["opponent"] for r in llama))
    rows = []
    for model in ["15m", "100m"]:
        for phase, test in [("prefill", "prompt 512"), ("decode", "decode 128")]:
            for type_ in TYPES:
                runs = load(f"infer.{model}.{type_}.{phase}.*.json")
                ps = phase_rates(runs, phase, (512, 0) if phase == "prefill" else None)
                ps = [p for p in ps if p["past"] == 0]
                if not ps:
                    continue
                rate = median(p["tokens_per_second"] for p in ps)
                limit = "peak_fraction" if phase == "prefill" else "read_fraction"
                row = [model, type_, test, f"{rate:.1f}", f"{median(p[limit] for p in ps):.0%}"]
                best = []
                for o in opponents:
                    theirs = [r["tokens_per_second"] for r in llama
                              if (r["opponent"], r["model"], r["type"], r["test"])
                              == (o, model, TYPES[type_], test)]
                    row.append(f"{median(theirs):.1f}" if theirs else "-")
                    best += [median(theirs)] if theirs else []
                row.append(f"{rate / max(best):.2f}x" if best else "-")
                rows.append(row)
    table(["model", "weights", "work", "archc", "of the limit"] + opponents
          + ["archc is, of the better"], rows)
    print("The limit is that of fp32 products for prompts and read bandwidth, at this size of weights, for decode. "
          "int8 stands against q8_0, which has a scale for every 32 weights, ours for every 64.\n")


def generic():
    print("### Specialised against the same kernels with run-time shapes (quickstart.arch)\n")
    a, b = load("generic.specialised.*.json"), load("generic.generic.*.json")
    rows = []
    if a and b:
        for k in a[0]["kernels"]:
            xs = [x["seconds"] for r in a for x in r["kernels"] if x["name"] == k["name"]]
            ys = [x["seconds"] for r in b for x in r["kernels"] if x["name"] == k["name"]]
            if None in xs or None in ys or not xs or not ys:
                continue
            rows.append([f"`{k['name']}`", k["phase"], f"{median(xs) * 1e6:.1f}",
                         f"{median(ys) * 1e6:.1f}", f"{median(ys) / median(xs):.2f}x"])
        for i, p in enumerate(a[0]["phases"]):
            xs = [r["phases"][i]["seconds"] for r in a]
            ys = [r["phases"][i]["seconds"] for r in b]
            rows.append([f"**{p['what']}**", p["phase"], f"{median(xs) * 1e6:.1f}",
                         f"{median(ys) * 1e6:.1f}", f"**{median(ys) / median(xs):.2f}x**"])
    table(["kernel", "phase", "specialised, us", "generic, us", "gain"], rows)


def predicted():
    print("### Predicted before anything was built, and measured, tokens/s\n")
    path = os.path.join(directory, "predict.json")
    if not os.path.exists(path):
        table([], [])
        return
    found = json.load(open(path))
    phases = list(found["summary"])
    rows = [[r["shape"]] + [f'{r[p]["predicted"]:.0f} / {r[p]["measured"]:.0f} '
                            f'({r[p]["predicted"] / r[p]["measured"] - 1:+.0%})' for p in phases]
            for r in found["shapes"]]
    table(["shape"] + phases, rows)
    for p in phases:
        m, b = found["summary"][p]["measured"], found["summary"][p]["best"]
        print(f'{p}: median error {m["median_error"]:.0%}, worst {m["worst_error"]:.0%}, Spearman '
              f'{m["spearman"]:.2f}; against the fastest sample {b["median_error"]:.0%}, '
              f'{b["worst_error"]:.0%}, {b["spearman"]:.2f}.')
    print()


if len(sys.argv) < 3:
    sys.exit(__doc__)
directory = sys.argv[1]
for name in sys.argv[2:]:
    {"training": training, "products": products, "inference": inference, "generic": generic,
     "predicted": predicted}[name]()

#!/usr/bin/env python3
"""JSON of predicted against measured, from what predict.sh left in the current directory: names has
a line a shape, NAME.info its predictions, NAME.1 .. NAME.N its rounds of `bench --whole`.
"""
import glob
import json
import statistics

PHASES = ["train", "prefill", "decode"]
PROMPT, GENERATE = 512, 128  # of the throughput that the search would rank by


def ranks(values):
    order = sorted(range(len(values)), key=values.__getitem__)
    rank = [0.0] * len(values)
    for place, i in enumerate(order):
        rank[i] = float(place)
    return rank


def spearman(a, b):
    return statistics.correlation(ranks(a), ranks(b))


def rates(runs, phase):
    """Median over rounds, and the best sample, in tokens/s. Predictions are for whole prompts, and
    for decoding at half the context: the row of most cached tokens, then of most tokens."""
    rows = [max((p for p in r["phases"] if p["phase"] == phase), key=lambda p: (p["past"], p["tokens"]))
            for r in runs]
    return (statistics.median(r["tokens_per_second"] for r in rows),
            max(r["tokens"] / r["fastest_seconds"] for r in rows))


def rows():
    for line in open("names"):
        name, shape = line.rstrip("\n").split(" ", 1)
        runs = [json.load(open(p)) for p in sorted(glob.glob(name + ".[0-9]*"))]
        predicted = json.load(open(name + ".info"))["predicted_tokens_per_second"]
        row = {"name": name, "shape": shape}
        for phase in PHASES:
            measured, best = rates(runs, phase)
            row[phase] = {"predicted": predicted[phase], "measured": measured, "best": best}
        row["throughput"] = {
            kind: GENERATE / (PROMPT / row["prefill"][kind] + GENERATE / row["decode"][kind])
            for kind in ["predicted", "measured", "best"]}
        yield row


def summary(table):
    out = {}
    for phase in PHASES + ["throughput"]:
        p = [r[phase]["predicted"] for r in table]
        out[phase] = {"shapes": len(table)}
        for against in ["measured", "best"]:
            m = [r[phase][against] for r in table]
            errors = [abs(a / b - 1) for a, b in zip(p, m)]
            out[phase][against] = {"median_error": statistics.median(errors), "worst_error": max(errors),
                                   "spearman": spearman(p, m)}
    return out


table = list(rows())
print(json.dumps({"shapes": table, "summary": summary(table)}, indent=1))

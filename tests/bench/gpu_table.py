"""gpu_table.py ARCHC README [--write]: the README's table of GPU figures, between its two markers:
what the cost model predicts of the models of gpu.arch (`archc --emit=plan`, `archc resolve`) beside
what the newest result file of each card in results/ measured (tests/gpu.sh writes them), or "not yet
measured". With --write the README gets it; without, exit status 1 and the difference where the README
says something else."""
import difflib
import glob
import json
import os
import re
import subprocess
import sys

BEGIN, END = "<!-- gpu_table.py: begin -->", "<!-- gpu_table.py: end -->"
HERE = os.path.dirname(os.path.abspath(__file__))
SPEC = os.path.join(HERE, "gpu.arch")
MODELS = ["llama_3_2_1b", "surefire_1b", "panda_1b", "qwen3_0_6b"]
MISSING = "not yet measured"
LOAD = (64, 4096, 1024)  # sequences, tokens in, tokens out: gpu.arch
BF16_PEAK = {"NVIDIA H200": 989.4e12, "NVIDIA H100 80GB HBM3": 989.4e12}  # dense, data sheets


def run(archc, *words):
    return subprocess.run([archc, *words], check=True, capture_output=True, text=True).stdout


def predicted(archc, model):
    """Cells of the row of predictions for an H200."""
    plan = run(archc, SPEC, "-m", model, "--emit=plan", "--target", "sm_90")
    plan = plan[plan.index("expected on h200"):]
    low, high = re.search(r"^  decode +at least ([0-9.]+) us, expected ([0-9.]+) us", plan, re.M).groups()
    rate, mfu = re.search(r"training (\d+) tokens/s, ([0-9.]+) %", plan).groups()
    metrics = json.loads(run(archc, "resolve", SPEC, "-m", model, "--json"))["metrics"]
    prompts = LOAD[0] * LOAD[1] / metrics["ttft"]
    return [f"{float(high):.0f} (at least {float(low):.0f})", f"{metrics['throughput']:,.0f}",
            f"{prompts:,.0f}", f"{int(rate):,} (MFU {float(mfu):.0f} %)"]


def newest(directory):
    """Of each card the result file of the latest date."""
    results = {}
    for path in sorted(glob.glob(directory + "/*.json")):
        with open(path) as f:
            result = json.load(f)
        if result["card"] not in results or result["date"] > results[result["card"]]["date"]:
            results[result["card"]] = result
    return results


def phase(entry, name):
    """The middle one where a phase was timed behind several lengths."""
    rows = [row for row in entry["specialised"]["phases"] if row["phase"] == name]
    return rows[len(rows) // 2] if rows else None


def measured(card, entry):
    decode, prefill, train, update = (phase(entry, name)
                                      for name in ("decode", "prefill", "train", "update"))
    load = entry["specialised"].get("load")
    prompts = (load["sequences"] * load["prompt"] / load["prompt_seconds"] if load
               else prefill["tokens_per_second"])
    step = train["seconds"] + update["seconds"]
    training = f"{train['tokens'] / step:,.0f}"
    if card in BF16_PEAK:
        mfu = train["flops_per_second"] * train["seconds"] / step / BF16_PEAK[card]
        training += f" (MFU {100 * mfu:.0f} %)"
    return [f"{decode['seconds'] * 1e6:.0f} ({100 * decode['of_copy_bandwidth']:.0f} % of copying)",
            f"{load['tokens_per_second']:,.0f}" if load else MISSING, f"{prompts:,.0f}", training]


def verified(result):
    """Were programs verified in the run, all of them without a failure?"""
    return result["verified"] and all(", 0 failed" in line for line in result["verified"])


def rows(archc, results):
    for model in MODELS:
        yield [model, "H200, predicted", *predicted(archc, model)]
        for card, result in sorted(results.items()):
            if verified(result) and model in result["models"]:
                yield [model, f"{card}, {result['date'][:10]}",
                       *measured(card, result["models"][model])]
        if not any(model in r["models"] for r in results.values()):
            yield [model, "measured"] + 4 * [MISSING]


def table(archc, directory):
    head = ["model", "card", "decode step, us", "serving, tokens/s", "prompts, tokens/s",
            "training, tokens/s"]
    lines = [head, ["---"] * len(head), *rows(archc, newest(directory))]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def main():
    archc, readme = sys.argv[1:3]
    with open(readme) as f:
        text = f.read()
    begin, end = text.index(BEGIN) + len(BEGIN) + 1, text.index(END)
    new = text[:begin] + table(archc, os.path.join(HERE, "results")) + text[end:]
    if sys.argv[3:] == ["--write"]:
        with open(readme, "w") as f:
            f.write(new)
        return 0
    sys.stdout.writelines(difflib.unified_diff(text.splitlines(True), new.splitlines(True),
                                               readme, "what gpu_table.py makes of results/"))
    return new != text


if __name__ == "__main__":
    sys.exit(main())

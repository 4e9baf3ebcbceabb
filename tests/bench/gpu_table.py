"""gpu_table.py ARCHC README [--write]: the README's table of GPU figures, between its two markers:
what the cost model predicts of the models of gpu.arch (`archc --emit=plan`, `archc resolve`) for an
H200, and for each other card that was measured, beside what the newest result of each card in
results/ that has the model measured (tests/gpu.sh writes them), or "not yet measured". With --write
the README gets it; without, exit status 1 and the difference where the README says something else."""
import difflib
import glob
import json
import os
import re
import subprocess
import sys
import tempfile

from gpu_merge import training

BEGIN, END = "<!-- gpu_table.py: begin -->", "<!-- gpu_table.py: end -->"
HERE = os.path.dirname(os.path.abspath(__file__))
SPEC = os.path.join(HERE, "gpu.arch")
MODELS = ["llama_3_2_1b", "surefire_1b", "panda_1b", "qwen3_0_6b"]
MISSING = "not yet measured"
LOAD = (64, 4096, 1024)  # sequences, tokens in, tokens out: gpu.arch


def run(archc, *words):
    return subprocess.run([archc, *words], check=True, capture_output=True, text=True).stdout


def training_cell(steps):
    """Of (micro-batches, tokens/s, MFU or None): "70,756 (MFU 56 %), 8: 73,812 (58 %)"."""
    cells = [f"{rate:,.0f}" + (f" ({'' if i else 'MFU '}{100 * mfu:.0f} %)" if mfu else "")
             for i, (n, rate, mfu) in enumerate(steps)]
    return ", ".join(cell if i == 0 else f"{steps[i][0]}: {cell}" for i, cell in enumerate(cells))


def predicted(archc, spec, model, device):
    """Cells of the row of predictions for a device."""
    plan = run(archc, spec, "-m", model, "--emit=plan", "--target", "sm_90")
    plan = plan[plan.index("expected on " + device):]
    low, high = re.search(r"^  decode +at least ([0-9.]+) us, expected ([0-9.]+) us", plan, re.M).groups()
    steps = re.findall(r"training (\d+) tokens/s, ([0-9.]+) %.*, (\d+) micro-batch", plan)
    metrics = json.loads(run(archc, "resolve", spec, "-m", model, "--json"))["metrics"]
    prompts = LOAD[0] * LOAD[1] / metrics["ttft"]
    return [f"{float(high):.0f} (at least {float(low):.0f})", f"{metrics['throughput']:,.0f}",
            f"{prompts:,.0f}",
            training_cell([(int(n), int(rate), float(mfu) / 100) for rate, mfu, n in steps])]


def on_device(device, directory):
    """gpu.arch served on another device."""
    with open(SPEC) as f:
        text = re.sub(r"device( *)= h200", rf"device\1= {device}", f.read())
    path = os.path.join(directory, device + ".arch")
    with open(path, "w") as f:
        f.write(text.replace('"../../', f'"{HERE}/../../'))
    return path


def newest(directory):
    """Of each model and card the entry of the latest result that has its phases, and is verified:
    {model: {card: (result, entry)}}."""
    found = {model: {} for model in MODELS}
    for path in sorted(glob.glob(directory + "/*.json")):
        with open(path) as f:
            result = json.load(f)
        for model, entry in result["models"].items() if verified(result) else ():
            before = found.setdefault(model, {}).get(result["card"])
            if entry["specialised"]["phases"] and (not before or result["date"] > before[0]["date"]):
                found[model][result["card"]] = result, entry
    return found


def phase(entry, name):
    """The middle one where a phase was timed behind several lengths."""
    rows = [row for row in entry["specialised"]["phases"] if row["phase"] == name]
    return rows[len(rows) // 2] if rows else None


def measured(card, entry):
    """Cells of the row of what was measured; what the run did not come to is missing."""
    decode, prefill = phase(entry, "decode"), phase(entry, "prefill")
    load = entry["specialised"].get("load")
    prompts = (load["sequences"] * load["prompt"] / load["prompt_seconds"] if load
               else prefill and prefill["tokens_per_second"])
    steps = [(step["micro_batches"], step["tokens_per_second"], step["mfu"])
             for step in training({**entry["specialised"], "device": card})]
    return [f"{decode['seconds'] * 1e6:.0f} ({100 * decode['of_copy_bandwidth']:.0f} % of copying)"
            if decode else MISSING,
            f"{load['tokens_per_second']:,.0f}" if load else MISSING,
            f"{prompts:,.0f}" if prompts else MISSING, training_cell(steps) if steps else MISSING]


def verified(result):
    """Were programs verified in the run, all of them without a failure?"""
    return result["verified"] and all(", 0 failed" in line for line in result["verified"])


def rows(archc, results, directory):
    priced = {entry["specialised"].get("predicted_for") for cards in results.values()
              for _, entry in cards.values()}
    specs = [(device, on_device(device, directory)) for device in ["h200", *sorted(priced - {"h200", None})]]
    for model in MODELS:
        for device, spec in specs:
            yield [model, f"{device.upper()}, predicted", *predicted(archc, spec, model, device)]
        for card, (result, entry) in sorted(results[model].items()):
            yield [model, f"{card}, {result['date'][:10]}", *measured(card, entry)]
        if not results[model]:
            yield [model, "measured"] + 4 * [MISSING]


def table(archc, directory):
    head = ["model", "card", "decode step, us", "serving, tokens/s", "prompts, tokens/s",
            "training, tokens/s"]
    with tempfile.TemporaryDirectory() as scratch:
        lines = [head, ["---"] * len(head), *rows(archc, newest(directory), scratch)]
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

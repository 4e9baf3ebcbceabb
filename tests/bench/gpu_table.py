"""gpu_table.py ARCHC README [--write]: the README's table of GPU figures, between its two markers:
what the cost model predicts of the examples (`archc --emit=plan`) beside what the newest result file
of each card in results/ measured (tests/gpu.sh writes them), or "not yet measured". With --write the
README gets it; without, exit status 1 and the difference where the README says something else."""
import difflib
import glob
import json
import os
import re
import subprocess
import sys

BEGIN, END = "<!-- gpu_table.py: begin -->", "<!-- gpu_table.py: end -->"
HERE = os.path.dirname(os.path.abspath(__file__))
EXAMPLES = os.path.join(HERE, "..", "..", "examples")
MODELS = ["llama_3_2_1b", "surefire_1b", "panda_1b", "qwen3_0_6b"]
MISSING = "not yet measured"


def predicted(archc, model):
    """Of the CUDA plan on an H200: seconds of each phase (at least, expected), tokens of a prefill
    call, tokens/s and MFU of training."""
    plan = subprocess.run([archc, f"{EXAMPLES}/{model}.arch", "--emit=plan", "--target", "sm_90"],
                          check=True, capture_output=True, text=True).stdout
    chunk = int(re.findall(r"^  CHUNK +(\d+)$", plan, re.M)[-1])
    plan = plan[plan.index("expected on h200"):]
    phases = {name: (float(low) * 1e-6, float(high) * 1e-6) for name, low, high in
              re.findall(r"^  (\w+) +at least ([0-9.]+) us, expected ([0-9.]+) us", plan, re.M)}
    rate, mfu = re.search(r"training (\d+) tokens/s, ([0-9.]+) %", plan).groups()
    return phases, chunk, float(rate), float(mfu)


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


def measured(entry):
    decode, prefill, train, update = (phase(entry, name)
                                      for name in ("decode", "prefill", "train", "update"))
    step = train["seconds"] + update["seconds"]
    return [f"{decode['seconds'] * 1e6:.0f} ({100 * decode['of_copy_bandwidth']:.0f} %)",
            f"{prefill['tokens_per_second']:,.0f}", f"{train['tokens'] / step:,.0f}"]


def rows(archc, results):
    for model in MODELS:
        phases, chunk, rate, mfu = predicted(archc, model)
        low, high = phases["decode"]
        yield [model, "H200, predicted", f"{high * 1e6:.0f} (at least {low * 1e6:.0f})",
               f"{chunk / phases['prefill'][1]:,.0f}", f"{rate:,.0f} (MFU {mfu:.0f} %)"]
        for card, result in sorted(results.items()):
            if result["verified"] and model in result["models"]:
                yield [model, f"{card}, {result['date'][:10]}", *measured(result["models"][model])]
        if not any(model in r["models"] for r in results.values()):
            yield [model, "measured", MISSING, MISSING, MISSING]


def table(archc, directory):
    head = ["model", "card", "decode step, us", "prompt, tokens/s", "training, tokens/s"]
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

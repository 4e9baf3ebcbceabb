#!/bin/sh
# tables_test.sh ARCHC: the README's GPU table is what gpu_table.py makes of the results; a result
# file becomes rows, beside what is predicted for its card; constants of knobs.txt are in their
# headers; odd shapes and their siblings are of equal bytes (an odd d_ff: 0.1 % fewer), and cost the
# same where bytes are the limit.
set -e
archc=$1
here=$(cd "$(dirname "$0")" && pwd)
command -v python3 >/dev/null || { echo "skipped: python3 is not installed"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 "$here/gpu_table.py" "$archc" "$here/../../README.md" || {
    echo "make it again: python3 tests/bench/gpu_table.py build/archc README.md --write"
    exit 1
}
python3 "$here/gpu_knobs.py" check "$here/../../codegen/kernels/cuda" || exit 1
sh "$here/odd_shapes.sh" "$archc" "$work/odd.json"
mkdir "$work/results"
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$here python3 - "$archc" "$work" <<'PYTHON'
import json, sys
import gpu_table

archc, work = sys.argv[1:]
for row in json.load(open(work + "/odd.json")):
    least = 0.998 if row["odd"] == "odd_d_ff" else 1
    assert least <= row["params"] <= 1 and row["cache"] == 1, row
    for name, phase in row["phases"].items():
        tax = abs(phase["predicted"] - 1)
        assert tax < (0.005 if name in ("decode", "batch") else 0.03), (name, row)
        assert phase["measured"] is None

def result(card, date, us, device="h200", **more):
    at = [{"phase": "decode", "seconds": us * f * 1e-6, "of_copy_bandwidth": 0.8} for f in (1, 2, 3)]
    rest = [{"phase": "prefill", "seconds": 1, "tokens_per_second": 250000.0},
            {"phase": "train", "seconds": 0.3, "tokens": 4096.0, "flops_per_second": 3.2978e14}, {"phase": "update", "seconds": 0.1},
            {"phase": "step", "seconds": 2.5, "tokens": 32768.0, "micro_batches": 8}]
    load = {"sequences": 64, "prompt": 4096, "prompt_seconds": 1, "tokens_per_second": 12345.6}
    table = {"phases": at + rest, "load": load, "predicted_for": device, **more}
    whole = {"card": card, "date": date, "verified": ["a: 72 passed, 0 failed"],
             "models": {"llama_3_2_1b": {"specialised": table}}}
    with open(f"{work}/results/{date[:4]}-{card}.json", "w") as f:
        json.dump(whole, f)

result("NVIDIA H200", "2031-05-06T07:08Z", 350)
result("NVIDIA H200", "2030-05-06T07:08Z", 100)
result("NVIDIA H200", "2032-05-06T07:08Z", 100, phases=[])  # came to no phase
result("NVIDIA H100 80GB HBM3", "2031-06-06T07:08Z", 450, "h100", load=None,
       phases=[{"phase": "decode", "seconds": 9e-4, "of_copy_bandwidth": 0.7}])  # cut short
assert not gpu_table.verified({"verified": ["a: 71 passed, 1 failed"]})
assert not gpu_table.verified({"verified": []})
table = gpu_table.table(archc, work + "/results")
row = ("| llama_3_2_1b | NVIDIA H200, 2031-05-06 | 700 (80 % of copying) | 12,346 | 262,144 |"
       " 10,240 (MFU 25 %), 8: 13,107 (32 %) |")
assert row in table, table
short = ("| llama_3_2_1b | NVIDIA H100 80GB HBM3, 2031-06-06 | 900 (70 % of copying) |"
         + 3 * f" {gpu_table.MISSING} |")
assert short in table, table
assert "2030" not in table and "2032" not in table and "llama_3_2_1b | measured" not in table, table
assert table.count(gpu_table.MISSING) == 3 + 12, table

def decode(model, device):
    start = f"| {model} | {device}, predicted | "
    return int(next(line for line in table.splitlines() if line.startswith(start))[len(start):].split()[0])

for model in gpu_table.MODELS:  # memory of an H100 has 0.7 of an H200's bandwidth
    assert 1.2 < decode(model, "H100") / decode(model, "H200") < 1.45, model
PYTHON
echo ok

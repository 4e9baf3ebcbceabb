#!/bin/sh
# tables_test.sh ARCHC: the README's GPU table is what gpu_table.py makes of the results; a result
# file becomes rows; odd shapes and their siblings are of equal bytes (an odd d_ff: 0.1 % fewer), and
# cost the same where bytes are the limit.
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

def result(card, date, us):
    at = [{"phase": "decode", "seconds": us * f * 1e-6, "of_copy_bandwidth": 0.8} for f in (1, 2, 3)]
    rest = [{"phase": "prefill", "seconds": 1, "tokens_per_second": 250000.0},
            {"phase": "train", "seconds": 0.3, "tokens": 4096.0, "flops_per_second": 3.2978e14}, {"phase": "update", "seconds": 0.1}]
    load = {"sequences": 64, "prompt": 4096, "prompt_seconds": 1, "tokens_per_second": 12345.6}
    whole = {"card": card, "date": date, "verified": ["a: 72 passed, 0 failed"],
             "models": {"llama_3_2_1b": {"specialised": {"phases": at + rest, "load": load}}}}
    with open(f"{work}/results/{date[:4]}-{card}.json", "w") as f:
        json.dump(whole, f)

result("NVIDIA H200", "2031-05-06T07:08Z", 350)
result("NVIDIA H200", "2030-05-06T07:08Z", 100)
assert not gpu_table.verified({"verified": ["a: 71 passed, 1 failed"]})
assert not gpu_table.verified({"verified": []})
table = gpu_table.table(archc, work + "/results")
row = ("| llama_3_2_1b | NVIDIA H200, 2031-05-06 | 700 (80 % of copying) | 12,346 | 262,144 |"
       " 10,240 (MFU 25 %) |")
assert row in table, table
assert "2030" not in table and "llama_3_2_1b | measured" not in table, table
assert table.count(gpu_table.MISSING) == 12, table
PYTHON
echo ok

#!/bin/sh
# bench.sh ARCHC PROGRAM MODEL.arch: `archc bench` on a device, which is the emulated one: both
# programs are PROGRAM. Verified, then timed; every kernel and phase of the plan is in the table.
set -u
archc=$1 program=$2 model=$3
work=$(mktemp -d "${TMPDIR:-/tmp}/cuda-bench-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
ln -s "$program" "$work/a" # paths are short
cd "$work" || exit 1
fail() {
    echo "bench.sh: $*"
    exit 1
}

# Once each: the emulator takes seconds for what takes a GPU microseconds.
"$archc" bench "$model" --target sm_90 --programs ./a,./a --rounds 1 --repeat 1 --json >out 2>err ||
    fail "failed: $(cat err)"
[ ! -s err ] || fail "said $(cat err)"
# Some phases, whole; a step of two micro-batches.
./a bench --device cuda --whole --phase decode,train --accumulate 2 --repeat 1 --progress --json >some 2>names ||
    fail "some phases: $(cat names)"
[ "$(sort -u names | tr '\n' ' ')" = "decode step train update " ] || fail "told: $(cat names)"
./a bench --device cuda --phase training 2>err && fail "no such phase" || [ $? = 2 ]
command -v python3 >/dev/null || { echo "skipped: python3 is not installed"; exit 77; }
python3 - <<'PYTHON' || exit 1
import json
out = json.load(open("out"))
assert out["device"] == "emulator" and out["predicted_for"] == "h200", out
v = out["verified"]
assert v["passed"] is True and 0 < v["error"] < v["limit"] and v["nearest"], v
assert out["copy_bytes_per_second"] > 0 and out["fastest_product_flops_per_second"] > 0
kernels = {k["name"]: k for k in out["kernels"]}
assert len(kernels) == len(out["kernels"]) > 50
for k in kernels.values():
    assert k["predicted_seconds"] >= k["floor_seconds"] > 0, k
    assert k["specialised_seconds"] > 0 and k["generic_seconds"] > 0, k
    assert k["of_fastest_product"] is None or 0 <= k["of_fastest_product"] <= 3, k
    assert 0.02 < k["factor"] < 50 and k["of_copy_bandwidth"] > 0, k
    assert k["specialised"]["shared_bytes"] == k["generic"]["shared_bytes"] is not None, k
phases = [(p["what"], p["past"]) for p in out["phases"]]
assert {"train", "update", "prefill", "decode", "batch"} == {what for what, _ in phases}, phases
some = json.load(open("some"))
assert [row["phase"] for row in some["phases"]] == 3 * ["decode"] + ["train", "update", "step"], some["phases"]
assert some["phases"][-1]["micro_batches"] == 2 and not some["kernels"] and not some["load"]
timed = [p for p in out["phases"] if p["specialised_seconds"]]
assert len(timed) == 9 and all(p["predicted_seconds"] > p["floor_seconds"] > 0 for p in timed), timed
for what in "decode", "batch":
    behind = sorted((p["past"], p["predicted_seconds"], p["floor_seconds"]) for p in timed if p["what"] == what)
    assert len(behind) == 3 and all(a < b for i in (0, 1) for a, b in zip(behind[i], behind[i + 1])), behind
PYTHON

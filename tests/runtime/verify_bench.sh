#!/bin/sh
# bench judges before it times, and its JSON holds what bench.c promises.
# usage: verify_bench.sh PROGRAM ..
out=$(mktemp) || exit 1
trap 'rm -f "$out"' EXIT
bad=0

complain() {
    echo "$*" >&2
    bad=$((bad + 1))
}

for program in "$@"; do
    "$program" bench --json --blas none > "$out" || complain "$program bench --json failed"
    python3 - "$out" <<'PY' || complain "$program: bad JSON"
import json, sys
v = json.load(open(sys.argv[1]))
assert v["correct"] is True and v["generic"] is False and v["repeat"] == 5
m = v["machine"]
assert m["fma_gflops"] > 1 and m["read_gbs"] > 0.1 and m["memory_read_gbs"] > 0.1
for k in v["kernels"]:
    assert k["correct"] is True and k["seconds"] > 0 and k["spread"] >= 0 and k["blas"] == []
    assert (k["gflops"] > 0) == (k["peak_fraction"] > 0)
assert {p["phase"] for p in v["phases"]} == {"train", "prefill", "decode"}
assert [p["past"] for p in v["phases"] if p["phase"] == "decode"] == [0, 32]
for p in v["phases"]:
    assert abs(p["tokens"] / p["seconds"] / p["tokens_per_second"] - 1) < 1e-4
    assert (p["read_fraction"] is not None) == (p["phase"] == "decode")
PY
    "$program" bench --phase decode --blas none > "$out" || complain "$program bench failed"
    grep -q "tokens from position 32" "$out" || complain "$program: no decode phase"
    grep -q " train " "$out" && complain "$program: --phase decode shows training"
    "$program" bench --blas /nonexistent.so > "$out" 2>&1
    [ $? -eq 1 ] || complain "$program bench --blas /nonexistent.so: not status 1"
    "$program" bench --phase nothing > "$out" 2>&1
    [ $? -eq 2 ] || complain "$program bench --phase nothing: not status 2"
done
[ $bad -eq 0 ]

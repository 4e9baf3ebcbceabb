#!/bin/sh
# verify must fail, and name the right kernel, for every kind of fault in every kind of kernel: a
# wrong element, one never written, a write outside, a changed input, and spoilt whole-model results.
# usage: verify_plants.sh PROGRAM ..
out=$(mktemp) || exit 1
trap 'rm -f "$out"' EXIT
bad=0

complain() {
    echo "$*" >&2
    bad=$((bad + 1))
}

# caught PROGRAM PLANT PATTERN
caught() {
    "$1" verify --seed 3 --plant "$2" > "$out" 2>&1
    status=$?
    [ $status -eq 1 ] || complain "$1 --plant $2: status $status"
    grep -q "$3" "$out" || { complain "$1 --plant $2: no '$3'"; cat "$out" >&2; }
}

for program in "$@"; do
    for kind in EMBED EMBED_BACKWARD NORM NORM_BACKWARD MATMUL MATMUL_DX MATMUL_DW ROPE \
        ROPE_BACKWARD ATTENTION ATTENTION_BACKWARD SWIGLU SWIGLU_BACKWARD LOSS SUM_SQUARES ADAMW \
        EMBED_ROW PREFILL_MATMUL PREFILL_ROPE PREFILL_ATTENTION MATVEC DECODE_ATTENTION; do
        caught "$program" $kind "FAIL"
    done
    for kind in MATMUL_DX LOSS DECODE_ATTENTION; do
        caught "$program" $kind:guard "FAIL.*wrote behind the end of the output"
        caught "$program" $kind:nan "FAIL.*NaN, or was never written"
        caught "$program" $kind:input "FAIL.*changed an input"
    done
    caught "$program" loss "losses of eval .*FAIL"
    caught "$program" gradients "^gradients .*FAIL: worst in"
    caught "$program" prefill "^prefill .*FAIL"
    caught "$program" decode "^decode, step by step .*FAIL"
    # Only what was spoilt fails.
    "$program" verify --seed 3 --plant EMBED > "$out"
    [ "$(grep -c FAIL "$out")" -eq 1 ] || complain "$program: more than the planted fault failed"

    "$program" verify --seed 3 --json > "$out" || complain "$program verify --json failed"
    python3 - "$out" <<'PY' || complain "$program: bad JSON"
import json, sys
v = json.load(open(sys.argv[1]))
assert v["passed"] is True and v["checks_failed"] == 0
assert {k["kind"] for k in v["kernels"]} >= {"MATMUL", "LOSS", "MATVEC", "DECODE_ATTENTION"}
assert all(k["passed"] and k["max_rel"] <= k["limit"] for k in v["kernels"])
assert all(c["passed"] and c["checked"] > 0 for c in v["whole_model"])
PY
    "$program" verify --seed x > "$out" 2>&1
    [ $? -eq 2 ] || complain "$program verify --seed x: not status 2"
done
[ $bad -eq 0 ]

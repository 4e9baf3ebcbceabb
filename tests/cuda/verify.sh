#!/bin/sh
# verify.sh A B ..: `verify --device cuda` of programs on a GPU, emulated or not: every kernel by
# itself and the whole model pass; results that are spoilt fail, each of them; some kernels alone.
set -u
work=$(mktemp -d "${TMPDIR:-/tmp}/cuda-verify-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
bad=0
complain() {
    echo "$*" >&2
    bad=$((bad + 1))
}
for program in "$@"; do
    "$program" verify --device cuda >"$work/out" || complain "$program: $(grep FAIL "$work/out")"
    grep -q '^[0-9]* passed, 0 failed$' "$work/out" || complain "$program: $(tail -1 "$work/out")"
    for phase in train prefill decode batch; do
        [ "$(grep -c "^cuda_[a-z_]* *$phase .* pass$" "$work/out")" -ge 8 ] || complain "$phase: few kernels"
    done
done
"$1" verify --device cuda --plant kernels >"$work/out" && complain "spoilt results pass"
grep '^cuda_' "$work/out" | grep -v FAIL && complain "these pass though spoilt"
# Kernels by name, without the whole model; what is about to run stands in front of how it went.
"$1" verify --device cuda --only decode_attention >"$work/out" || complain "--only: $(cat "$work/out")"
grep -q '^1 passed, 0 failed$' "$work/out" || complain "--only: not one kernel"
grep -q '^cuda_decode_attention *decode .* pass$' "$work/out" || complain "--only: another kernel"
"$1" verify --device cuda --only nothing >"$work/out" 2>&1 && complain "--only nothing" || [ $? = 2 ]
[ $bad -eq 0 ]

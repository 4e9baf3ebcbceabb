#!/bin/sh
# odd_shapes.sh ARCHC RESULT.json [ARCHC-OPTION..]: groups of 9 and 7 against 8, head size 80 against
# 64 and 128, at equal bytes: predicted, and measured where there is a GPU (the options say how to
# compile for it: --target sm_90). Prints a table. Needs python3.
set -e
archc=$1 result=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
status=0
for model in group_8 group_9 group_7 head_80 head_64 head_128; do
    "$archc" resolve "$here/odd_shapes.arch" -m $model --json >"$work/$model.predicted" 2>/dev/null
    [ $# -gt 0 ] && nvidia-smi >/dev/null 2>&1 || continue
    "$archc" "$here/odd_shapes.arch" -m $model "$@" -o "$work/program"
    if "$work/program" verify --device cuda >"$work/verify"; then
        "$work/program" bench --device cuda --json >"$work/$model.measured" || status=1
    else
        tail -1 "$work/verify"
        status=1
    fi
    rm -f "$work/program"
done
python3 "$here/odd_shapes.py" "$work" "$result"
exit $status

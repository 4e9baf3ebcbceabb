#!/bin/sh
# odd_shapes.sh ARCHC RESULT.json [DIR]: groups of 9 and 7 against 8, a d_ff that is an odd multiple
# of 8, head size 80 against 64 and 128, at equal bytes: predicted, and measured where
# DIR/MODEL.measured is what `bench --device cuda --json` of that model's program printed
# (tests/gpu.sh has them). Prints a table. Needs python3.
set -e
archc=$1 result=$2
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for model in group_8 group_9 group_7 odd_d_ff head_64 head_80 head_128; do
    "$archc" resolve "$here/odd_shapes.arch" -m $model --json >"$work/$model.predicted" 2>/dev/null
    [ -z "$3" ] || cp "$3/$model.measured" "$work/"
done
python3 "$here/odd_shapes.py" "$work" "$result"

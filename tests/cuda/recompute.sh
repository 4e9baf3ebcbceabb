#!/bin/sh
# recompute.sh NONE NORMS MLP ALL: programs that differ in what backward makes again, on the emulated
# GPU and on the host: parameters and moments after two steps are the same to the last bit.
set -u
work=$(mktemp -d "${TMPDIR:-/tmp}/cuda-recompute-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
none=$1
for i in 1 2 3 4 5 6 7 8 9 10; do
    echo "In the beginning God created the heaven and the earth. And the earth was without form."
done >"$work/text"
bad=0
complain() {
    echo "$*" >&2
    bad=$((bad + 1))
}
for program in "$@"; do
    name=$(basename "$program")
    for device in cuda host; do
        "$program" train --quiet --device $device --data "$work/text" --steps 2 --accumulate 2 \
            --seed 3 --products own --out "$work/$name.$device" || complain "$name on $device failed"
        for file in model.safetensors optimizer.safetensors; do
            cmp "$work/$(basename "$none").$device/latest/$file" "$work/$name.$device/latest/$file" ||
                complain "$name on $device: other gradients"
        done
    done
done
[ $bad -eq 0 ]

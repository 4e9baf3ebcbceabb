#!/bin/sh
# recompute_emit.sh ARCHC FILE.arch LEVEL DIR: the C and CUDA of FILE with `recompute = LEVEL`.
set -e
archc=$1 file=$2 level=$3 dir=$4
mkdir -p "$dir"
sed "s/^train {/train {\n    recompute = $level/" "$file" >"$dir/model.arch"
grep -q "recompute = $level" "$dir/model.arch"
"$archc" "$dir/model.arch" --emit=c,cuda --target sm_90 --threads 2 -o "$dir"
for unit in batch decode prefill forward backward update; do
    printf emulated >"$dir/cuda_$unit.sm_90a.image"
done

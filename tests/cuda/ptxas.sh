#!/bin/sh
# ptxas.sh ARCHC EXPECTED [record]: registers and spills of every kernel of a few programs, as ptxas
# says, against what EXPECTED has: a line `architecture kernel registers spilled-bytes` each, spilled
# bytes being those of the stack too. More than 8 registers over, or one byte more spilled, is a
# failure; decode kernels never spill. `record` writes EXPECTED anew. Exit status 77: no ptxas.
set -e
archc=$1 expected=$2 record=$3
here=$(cd "$(dirname "$0")" && pwd)
ptxas=$(command -v ptxas || echo /usr/local/cuda/bin/ptxas)
[ -x "$ptxas" ] || { echo "no ptxas: nothing is checked"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A program for each: group 9 with 64 slots; head norms; biases and group 7.
for pair in surefire_1b:sm_80,sm_86,sm_89,sm_90 qwen3_0_6b:sm_90 qwen2_5_0_5b:sm_80; do
    model=${pair%%:*} targets=${pair#*:}
    "$archc" "$here/../../examples/$model.arch" --emit=ptx --target "$targets" -o "$work/$model" \
        2>"$work/notes" || { cat "$work/notes"; exit 1; }
    for ptx in "$work/$model"/*.ptx; do
        arch=${ptx%.ptx}
        arch=${arch##*.}
        "$ptxas" -v -arch="$arch" "$ptx" -o "$work/cubin" 2>&1 |
        awk -v arch="$arch" -v model="$model" '
            /Compiling entry function/ { split($0, part, "\047"); name = part[2] }
            /bytes stack frame/ { spill = $1 > $5 ? $1 : $5 }
            /Used [0-9]+ registers/ {
                for (i = 1; i < NF; i++) if ($i == "Used") print arch, model "." name, $(i + 1), spill
            }
            /[Ss]erialized/ { print arch, model "." name, "serialized", 1 }'
    done
done | sort >"$work/got"

if [ "$record" = record ]; then
    cp "$work/got" "$expected"
    echo "$(wc -l <"$expected") kernels recorded"
    exit 0
fi
awk '
    NR == FNR { registers[$1 " " $2] = $3; spilled[$1 " " $2] = $4; next }
    { key = $1 " " $2; n++ }
    $3 == "serialized" { print key ": wgmma is serialized"; bad = 1; next }
    !(key in registers) { print key ": not in the recorded figures"; bad = 1; next }
    $3 > registers[key] + 8 { print key ": " $3 " registers, recorded " registers[key]; bad = 1 }
    $4 > spilled[key] { print key ": " $4 " bytes spilled, recorded " spilled[key]; bad = 1 }
    key ~ /\.cuda_(decode|batch|last)_/ && $4 > 0 { print key ": a decode kernel spills " $4; bad = 1 }
    { delete registers[key] }
    END {
        for (key in registers) { print key ": recorded, but no longer there"; bad = 1 }
        print n " kernels"
        exit bad
    }' "$expected" "$work/got"

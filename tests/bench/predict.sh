#!/bin/sh
# predict.sh - what the cost model says of 24 shapes before they are built, and what they do.
#
#   sh tests/bench/predict.sh [--json] [--rounds N]
#
# Every shape is compiled for this machine (its limits are measured once and cached; delete
# ~/.cache/archc/host.arch to measure anew), and its predictions are read from `info --json`. Then all
# of them take turns at `bench --whole`, N rounds (3), so that what else this machine does falls on all
# alike; measured is the median over the rounds, best the fastest sample of any. Shapes are small
# enough to take seconds each and differ in width, depth, r, group, head size, vocabulary and weights.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
archc=${ARCHC:-$here/../../build/archc}
case $archc in /*) ;; *) archc=$(pwd)/$archc ;; esac
threads=${THREADS:-$(nproc)}
rounds=3 json=
while [ $# -gt 0 ]; do
    case $1 in
    --json) json=yes; shift ;;
    --rounds) rounds=$2; shift 2 ;;
    *) sed -n '2,4s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# name d_model layers heads kv_heads head_dim d_ff vocab weights
while read -r name d l h k e f v w; do
    cat >"$name.arch" <<A
model $name {
    family = llama
    vocab = $v
    tied = yes
    context = 1024
    layers = $l
    d_model = $d
    heads = $h
    kv_heads = $k
    head_dim = $e
    d_ff = $f
    train { batch = 8
        sequence = 256 }
    serve { weights = $w }
}
A
    echo "compiling $name" >&2
    "$archc" "$name.arch" --threads "$threads" -o "$name" 2>log || { cat log >&2; exit 1; }
    "./$name" info --json >"$name.info" </dev/null
    echo "$name" "d $d, $l layers, $h/$k x $e, f $f, vocabulary $v, $w" >>names
done <<'T'
narrow   128  8  4 2  64  512   256 fp32
bytes    192  4  3 1  64  512   256 fp32
wide     512  3  8 2  64 1536  1024 fp32
wide_r1  640  3 12 4  64  640  1024 fp32
bench9m  320  6  5 1  64  864  4096 fp32
group2   320  6  6 3  64  768  4096 fp32
group3   256  6  6 2  64  896  4096 fp32
group5   320  5  5 1  64  768  2048 bf16
group7   256  6  7 1  64  768  4096 bf16
group9   384  4  9 1  64 1024  2048 int8
group16  384  4 16 1  64  512  2048 fp32
heads128 384  6  4 2 128  768  4096 fp32
heads40  320  6  8 4  40 1024  8192 bf16
heads96  384  5  6 2  96  896  4096 int8
mlp      288  6  6 6  48  768 32000 fp32
mlp_bf16 288  6  6 6  48  768 32000 bf16
mlp_int8 288  6  6 6  48  768 32000 int8
attn     256  6 16 4  64  256  4096 int8
thick    512  2  8 4  64 2560  8192 fp32
deep     192 12  3 1  64  512  4096 fp32
full     448  4  7 7  64 1152  4096 bf16
r_half   512  4 16 8  64  512  4096 fp32
r_five   384  5  4 1  64 2048  4096 bf16
vocab    256  4  4 2  64  640 65536 int8
T

round=1
while [ "$round" -le "$rounds" ]; do
    while read -r name shape; do
        echo "round $round: $name" >&2
        "./$name" bench --json --whole >"$name.$round" 2>log </dev/null ||
            { echo "$name: bench failed" >&2; cat log >&2; exit 1; }
    done <names
    round=$((round + 1))
done
python3 "$here/predicted.py" >predict.json
if [ "$json" ]; then
    cat predict.json
else
    python3 "$here/tables.py" . predicted
fi

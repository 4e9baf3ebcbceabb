#!/bin/sh
# predict.sh - what the cost model says of ten shapes before they are built, and what they do.
#
#   sh tests/bench/predict.sh [--json]
#
# Each shape is compiled for this machine (its limits are measured once and cached; delete
# ~/.cache/archc/host.arch to measure anew), its predictions are read from `info --json`, its speed
# from `bench --json` of whole phases. Shapes are small enough to take seconds each and differ in
# width, depth, r, group, head size and vocabulary.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
archc=${ARCHC:-$here/../../build/archc}
case $archc in /*) ;; *) archc=$(pwd)/$archc ;; esac
threads=${THREADS:-$(nproc)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
: >rows

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
    echo "$name" >&2
    "$archc" "$name.arch" --threads "$threads" -o p 2>log || { cat log >&2; exit 1; }
    ./p info --json >info.json </dev/null
    for phase in train prefill decode; do
        ./p bench --json --phase $phase --blas none >$phase.json 2>log </dev/null ||
            { echo "$name: bench --phase $phase failed" >&2; cat log >&2; exit 1; }
    done
    python3 - "$name" "$d" "$l" "$h" "$k" "$e" "$f" "$v" "$w" >>rows <<'P'
import json, sys
name, d, l, h, k, e, f, v, w = sys.argv[1:]
info = json.load(open("info.json"))
row = {"name": name, "shape": f"d {d}, {l} layers, {h}/{k} x {e}, f {f}, vocabulary {v}, {w}"}
for phase in ["train", "prefill", "decode"]:
    measured = json.load(open(phase + ".json"))["phases"]
    # The prediction is for decoding at half the context and for whole chunks.
    at = max(measured, key=lambda p: (p["past"], p["tokens"]))
    row[phase] = {"predicted": info["predicted_tokens_per_second"][phase], "measured": at["tokens_per_second"]}
print(json.dumps(row))
P
done <<'T'
narrow   128  8  4 2  64  512   256 fp32
bytes    192  4  3 1  64  512   256 fp32
wide     512  3  8 2  64 1536  1024 fp32
bench9m  320  6  5 1  64  864  4096 fp32
group7   256  6  7 1  64  768  4096 bf16
group9   384  4  9 1  64 1024  2048 int8
heads128 384  6  4 2 128  768  4096 fp32
heads40  320  6  8 4  40 1024  8192 bf16
mlp      288  6  6 6  48  768 32000 fp32
attn     256  6 16 4  64  256  4096 int8
T
if [ "${1:-}" = --json ]; then
    python3 -c 'import json; print(json.dumps([json.loads(l) for l in open("rows")]))'
else
    python3 - <<'P'
import json
print(f'{"":9} {"":>42}' + "".join(f"{p + ' predicted':>19} {'measured':>9} {'':>6}"
      for p in ["train", "prefill", "decode"]))
for line in open("rows"):
    r = json.loads(line)
    print(f'{r["name"]:9} {r["shape"]:>42}' + "".join(
        f'{r[p]["predicted"]:19.0f} {r[p]["measured"]:9.0f} '
        f'{r[p]["predicted"] / r[p]["measured"] - 1:+6.0%}' for p in ["train", "prefill", "decode"]))
P
fi

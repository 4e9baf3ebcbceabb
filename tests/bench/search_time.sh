#!/bin/sh
# search_time.sh ARCHC - how long the exact search takes over more than 100,000 candidates, each with its
# loss and its throughput evaluated. Prints one line a run; the goal is one second.
archc=${1:?usage: search_time.sh ARCHC}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
cat > "$dir/large.arch" << 'SPEC'
train {
    tokens = 100B
    law    = bian2025_297m
}
serve {
    device   = h200
    batch    = 64
    prompt   = 4096
    generate = 1024
    weights  = bf16
}
model large {
    family   = llama
    vocab    = 128256
    tied     = yes
    layers   = 16
    head_dim = 64
    params   = 973M +- 1%
    d_model  = free 1024..4096 step 32
    r        = free 0.5..5
    gqa      = free 1..9
    d_ff     = free 32..16384 step 32
    require  loss <= 2.6
    maximize throughput
}
SPEC
for run in 1 2 3; do
    start=$(date +%s%N)
    "$archc" resolve "$dir/large.arch" --json > "$dir/out.json" 2> "$dir/err" || { cat "$dir/err"; exit 1; }
    end=$(date +%s%N)
    candidates=$(sed -n 's/.*"candidates": \([0-9]*\).*/\1/p' "$dir/out.json")
    echo "search: $candidates candidates in $(((end - start) / 1000000)) ms"
done

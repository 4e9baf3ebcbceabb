#!/bin/sh
# llama_cpp.sh - prompt 512 and decode 128 of the 15M and 100M shapes by llama.cpp and ik_llama.cpp.
#
#   LLAMA_BENCH=/path/to/llama-bench IK_LLAMA_BENCH=/path/to/ik/llama-bench sh llama_cpp.sh [--json]
#
# THREADS (2), REPEAT (5) and GGUF_DIR (files are made there once, with random weights) may be set.
# Nothing is downloaded or built: an opponent that is not pointed to is skipped by name. ik_llama.cpp
# repacks its weights at load (-rtr 1), llama.cpp does so by itself: their fastest forms. Flash
# attention is tried off and on and the better taken. Figures are medians, tokens a second.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
threads=${THREADS:-2}
repeat=${REPEAT:-5}
dir=${GGUF_DIR:-${TMPDIR:-/tmp}/archc-gguf}
json=
[ "${1:-}" = --json ] && json=yes
rows=$(mktemp)
trap 'rm -f "$rows"' EXIT

skip()
{
    echo "skip: $*" >&2
}

# gguf NAME TYPE: the file's path on stdout, or nothing.
gguf()
{
    case $1 in
    15m) shape="288 6 6 6 768 32000" ;;
    100m) shape="768 12 12 4 2048 32000" ;;
    esac
    file=$dir/$1-$2.gguf
    if [ ! -s "$file" ]; then
        mkdir -p "$dir"
        # shellcheck disable=SC2086
        python3 "$here/gguf_random.py" "$file.part" "$2" $shape >&2
        [ -s "$file.part" ] || return 0
        mv "$file.part" "$file"
    fi
    echo "$file"
}

# measure OPPONENT BINARY OPTION..: one row a model, type and test, the better of -fa 0 and 1.
measure()
{
    opponent=$1 binary=$2
    shift 2
    for model in 15m 100m; do
        for type in f32 bf16 q8_0; do
            file=$(gguf $model $type)
            [ -n "$file" ] || continue
            for fa in 0 1; do
                "$binary" -m "$file" -p 512 -n 128 -t "$threads" -r "$repeat" -fa $fa "$@" \
                    -o json 2>/dev/null >"$rows.one" ||
                    { skip "$opponent $model $type -fa $fa: $binary failed"; continue; }
                python3 - "$opponent" "$model" "$type" "$rows.one" <<'P' >>"$rows"
import json, statistics, sys
opponent, model, type_, path = sys.argv[1:]
for t in json.load(open(path)):
    test = "prompt 512" if t["n_prompt"] else "decode 128"
    print(json.dumps({"opponent": opponent, "model": model, "type": type_, "test": test,
                      "tokens_per_second": statistics.median(t["samples_ts"]),
                      "best": max(t["samples_ts"]),
                      "spread": (max(t["samples_ts"]) - min(t["samples_ts"])) / t["avg_ts"]}))
P
            done
        done
    done
}

if ! python3 -c 'import gguf' 2>/dev/null && [ ! -s "$dir/15m-f32.gguf" ]; then
    skip "llama.cpp: no GGUF files in $dir and the Python package gguf is not installed"
    exit 0
fi
if [ -x "${LLAMA_BENCH:-}" ]; then
    measure llama.cpp "$LLAMA_BENCH"
else
    skip "llama.cpp: set LLAMA_BENCH to its llama-bench"
fi
if [ -x "${IK_LLAMA_BENCH:-}" ]; then
    measure ik_llama.cpp "$IK_LLAMA_BENCH" -rtr 1
else
    skip "ik_llama.cpp: set IK_LLAMA_BENCH to its llama-bench"
fi
rm -f "$rows.one"

python3 - "$rows" "$json" <<'P'
import json, sys
best = {}
for line in open(sys.argv[1]):
    r = json.loads(line)
    key = (r["model"], r["type"], r["test"], r["opponent"])
    if key not in best or r["tokens_per_second"] > best[key]["tokens_per_second"]:
        best[key] = r
if sys.argv[2]:
    print(json.dumps(list(best.values())))
else:
    print(f'{"model":6} {"type":5} {"test":11} {"opponent":13} {"tok/s":>9} {"best":>9} {"spread":>7}')
    for r in best.values():
        print(f'{r["model"]:6} {r["type"]:5} {r["test"]:11} {r["opponent"]:13} '
              f'{r["tokens_per_second"]:9.1f} {r["best"]:9.1f} {r["spread"]:7.0%}')
P

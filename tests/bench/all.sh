#!/bin/sh
# all.sh - every table of the README, measured on this machine.
#
#   sh tests/bench/all.sh [--rounds N] [--out DIR] [TABLE..]
#
# TABLE: training products inference generic predicted (default: all). Opponents are used where they
# are found and skipped by name where not; README.md in this directory says how to point to them.
# Ours and theirs take turns, N rounds (3); a figure is the median over rounds of medians. The raw
# JSON of every run stays in DIR (build/bench). Leave the machine alone while it runs.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
rounds=3 out=$root/build/bench wanted=
while [ $# -gt 0 ]; do
    case $1 in
    --rounds) rounds=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    training | products | inference | generic | predicted) wanted="$wanted $1"; shift ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
wanted=${wanted:-training products inference generic predicted}
archc=${ARCHC:-$root/build/archc}
threads=${THREADS:-$(nproc)}
[ -x "$archc" ] || { echo "no $archc: build first (cmake --build build), or set ARCHC" >&2; exit 1; }
mkdir -p "$out"
cd "$out"

asked()
{
    case " $wanted " in *" $1 "*) return 0 ;; esac
    return 1
}

progress()
{
    printf '%s\n' "$*" >&2
}

# compile NAME FILE OPTION..: the program out/NAME.
compile()
{
    name=$1 file=$2
    shift 2
    "$archc" "$root/examples/$file.arch" --threads "$threads" "$@" -o "$out/$name" 2>"$name.log" ||
        { cat "$name.log" >&2; exit 1; }
}

# turn NAME COMMAND..: the JSON of one round; a failure or a skip leaves none, and is told.
turn()
{
    file=$1
    shift
    if ! "$@" >"$file.part" 2>"$file.log" || ! grep -q '^[[{]' "$file.part"; then
        progress "  $(head -n 1 "$file.part" | grep '^skip' || tail -n 1 "$file.log")"
        rm -f "$file.part" "$file"
        return 0
    fi
    mv "$file.part" "$file"
}

each_round()
{
    seq 1 "$rounds"
}

if asked training || asked products; then
    rm -f train.*.json torch.*.json
    compile bench_9m bench_9m
    for i in $(each_round); do
        progress "training step, round $i"
        turn "train.$i.json" ./bench_9m bench --json --phase train
        ! asked training || turn "torch.$i.json" python3 "$here/torch_step.py" --threads "$threads"
    done
fi
if asked inference; then
    rm -f infer.*.json llama.*.json
    for model in 15m 100m; do
        for type in fp32 bf16 int8; do
            compile "llama_$model.$type" "llama_$model" --weights $type
        done
    done
    for i in $(each_round); do
        for model in 15m 100m; do
            for type in fp32 bf16 int8; do
                progress "prefill and decode, $model, $type, round $i"
                turn "infer.$model.$type.prefill.$i.json" "./llama_$model.$type" bench --json \
                    --phase prefill --blas none
                turn "infer.$model.$type.decode.$i.json" "./llama_$model.$type" bench --json \
                    --phase decode --blas none
            done
        done
        progress "llama.cpp and ik_llama.cpp, round $i"
        turn "llama.$i.json" env THREADS="$threads" sh "$here/llama_cpp.sh" --json
        ! grep '^skip' "llama.$i.json.log" >&2 || true
    done
fi
if asked generic; then
    rm -f generic.*.json
    compile quickstart quickstart
    compile quickstart_generic quickstart --generic
    for i in $(each_round); do
        progress "specialised and generic, round $i"
        turn "generic.specialised.$i.json" ./quickstart bench --json --blas none
        turn "generic.generic.$i.json" ./quickstart_generic bench --json --blas none
    done
fi
if asked predicted; then
    progress "predicted and measured"
    ARCHC=$archc THREADS=$threads sh "$here/predict.sh" --json --rounds "$rounds" >predict.json
fi
exec python3 "$here/tables.py" "$out" $wanted

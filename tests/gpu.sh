#!/bin/sh
# gpu.sh: everything that only a GPU can show, in one command.
#
#   sh tests/gpu.sh                    build archc and the programs here, then all of it
#   sh tests/gpu.sh --pack FILE.tar    compile the programs for sm_90a (SM=80: another) and put them
#                                      into one file, for a machine that has Python with PyTorch, or
#                                      nothing at all: tar xf FILE.tar && sh gpu/gpu.sh
#
# Verifies every phase of small models, of the heads, widths and vocabulary of those that are timed,
# against the plain reference, with our own products and with cuBLASLt's; trains, kills, resumes and
# generates; then times kernels and phases of the large ones, specialised and generic, beside cuBLAS
# and PyTorch in the same run, and odd shapes beside their even siblings; runs compute-sanitizer last.
# Writes one file, results/DATE-CARD.json, as soon as there is something to write.
#
# By environment: PARTS (verify program bench torch odd generic sanitize: which of them, in this
# order), MODELS, SMALL (which small ones are verified), OUT (where the result goes), FULL=1 (verify the
# large models too: minutes each), VERIFY_SECONDS (at most, of one: 900), GENERIC (of which models the generic builds are timed), KEEP_GOING=1
# (time what is wrong too; the result says so). Exit status: 0 all verified, 1 something is wrong.
set -e
here=$(cd "$(dirname "$0")" && pwd)
large=${MODELS:-llama_3_2_1b surefire_1b panda_1b qwen3_0_6b}
generic=${GENERIC-$large}
odd='group_8 group_9 group_7 odd_d_ff head_64 head_80 head_128'
parts=" ${PARTS:-verify program bench torch odd generic sanitize} "

# Is a program among those asked for? A large one always.
chosen() { case "$1 ${SMALL:-$1} " in small_*" $1 "* | [!s]* | surefire*) ;; *) return 1 ;; esac }

wants() { case "$parts" in *" $1 "*) ;; *) return 1 ;; esac }

# compile DIR SM: the programs of the parts into DIR/programs, and what the compiler resolved.
compile()
{
    mkdir -p "$1/programs"
    set -- "$1/programs" --target "$2" --march "${MARCH:-x86-64-v3}"
    command -v clang-19 >/dev/null || set -- "$@" --device-cc nvcc
    command -v clang >/dev/null || set -- "$@" --cc gcc
    to=$1
    shift
    for model in model_a model_b; do
        chosen "small_$model" || continue
        "$archc" "$root/tests/cuda/$model.arch" "$@" --threads 2 -o "$to/small_$model"
    done
    for model in $large $(sed -n 's/^model \(small_[a-z0-9_]*\).*/\1/p' "$root/tests/bench/gpu.arch"); do
        case $model in small_*) threads=2 ;; *) threads=${THREADS:-16} ;; esac
        chosen "$model" || continue
        "$archc" "$root/tests/bench/gpu.arch" -m "$model" "$@" --threads "$threads" -o "$to/$model" 2>/dev/null
        "$archc" resolve "$root/tests/bench/gpu.arch" -m "$model" --json >"$to/$model.arch.json" 2>/dev/null
    done
    for model in $(wants generic && echo "$generic"); do
        "$archc" "$root/tests/bench/gpu.arch" -m "$model" "$@" --generic -o "$to/$model.generic" 2>/dev/null
    done
    for model in $odd; do
        for name in "small_$model" $(wants odd && echo "$model"); do
            chosen "$name" || continue
            "$archc" "$root/tests/bench/odd_shapes.arch" -m "$name" "$@" --threads 2 -o "$to/$name" 2>/dev/null
        done
        "$archc" resolve "$root/tests/bench/odd_shapes.arch" -m "$model" --json >"$to/$model.predicted" 2>/dev/null
    done
}

root=$(dirname "$here")
archc=${ARCHC:-$root/build/archc}
if [ "$1" = --pack ]; then
    [ -n "$2" ] || { echo "gpu.sh: --pack wants a file"; exit 2; }
    [ -x "$archc" ] || { echo "gpu.sh: no $archc: build it, or say where with ARCHC=PATH"; exit 2; }
    stage=$(mktemp -d)
    trap 'rm -rf "$stage"' EXIT
    mkdir "$stage/gpu"
    compile "$stage/gpu" "sm_${SM:-90a}"
    cp "$here/gpu.sh" "$here/bench/gpu_torch.py" "$here/bench/gpu_merge.py" \
        "$here/bench/odd_shapes.py" "$here/cuda/program.sh" "$stage/gpu/"
    (cd "$root" && git rev-parse --short HEAD 2>/dev/null || echo unknown) >"$stage/gpu/commit"
    tar -cf "$2" -C "$stage" gpu
    exit 0
fi

card=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -1 | tr ' /' '--')
sm=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -1 | tr -d .)
[ -n "$sm" ] || { echo "gpu.sh: nvidia-smi finds no GPU here"; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ -d "$here/programs" ]; then # unpacked
    programs=$here/programs tools=$here out=${OUT:-$here/results} program_test=$here/program.sh
    commit=$(cat "$here/commit")
else
    [ -x "$archc" ] || { cmake -S "$root" -B "$root/build" && cmake --build "$root/build" --target archc -j "$(nproc)"; }
    THREADS=$(nproc) MARCH=native
    compile "$work" "sm_$sm"
    programs=$work/programs tools=$here/bench out=${OUT:-$here/bench/results}
    program_test=$here/cuda/program.sh
    commit=$(git -C "$root" rev-parse --short HEAD 2>/dev/null || echo unknown)
fi
mkdir -p "$out"
result=$out/$(date -u +%Y%m%d-%H%M)-$card.json
start=$(date +%s)
part() { wants "$1" && echo "[$(($(date +%s) - start)) s] $1"; }
merge() { python3 "$tools/gpu_merge.py" "$work" "$result" "$commit" "$@"; }
echo "card $card (sm_$sm), commit $commit"
status=0

# Right before fast. verify NAME PRODUCTS: a line of result in $work/verified. By the library, where
# there is one, some of them: its products know nothing of heads.
verify()
{
    log=$work/$1.$2.verify
    [ "$2" = own ] || "$programs/$1" info | grep -q 'products: .*libcublasLt.so' || return 0
    timeout "${VERIFY_SECONDS:-900}" "$programs/$1" verify --device cuda --products "$2" >"$log" 2>&1 || cp "$log" "$work/$1.$2.wrong"
    echo "$1, products $2: $(tail -1 "$log")" >>"$work/verified"
}
if part verify; then
    for path in "$programs"/small_*; do
        name=$(basename "$path")
        case $name in *.json) continue ;; esac
        verify "$name" own &
        case $name in small_model_* | small_surefire* | small_logits*) verify "$name" library & ;; esac
    done
    wait
    [ -z "$FULL" ] || for model in $large; do verify "$model" own; verify "$model" library; done
    sort "$work/verified"
    if ls "$work"/*.wrong >/dev/null 2>&1; then
        cat "$work"/*.wrong
        status=1
        [ -n "$KEEP_GOING" ] || { echo "gpu.sh: not verified: no speed is measured"; exit 1; }
    fi
fi
if part program; then
    if ! sh "$program_test" "$programs/small_model_a" 4000; then
        echo "gpu.sh: resuming or texts: see above"
        status=1
        [ -n "$KEEP_GOING" ] || exit 1
    fi
fi

# measure NAME FILE [OPTION..]: one program's own table.
measure()
{
    name=$1 file=$2
    shift 2
    if "$programs/$name" bench --device cuda --json "$@" >"$file.part"; then mv "$file.part" "$file"
    else echo "gpu.sh: bench of $name failed" && status=1; fi
}
if part bench; then
    for model in $large; do
        measure "$model" "$work/$model.special.json"
        cp "$programs/$model.arch.json" "$work/"
    done
    merge --quiet
fi
if part torch && python3 -c 'import torch' 2>/dev/null; then
    python3 "$tools/gpu_torch.py" "$work" "$programs" || status=1
    merge --quiet
fi
if part odd; then
    mkdir "$work/odd"
    for model in $odd; do
        cp "$programs/$model.predicted" "$work/odd/"
        measure "$model" "$work/odd/$model.measured"
    done
    python3 "$tools/odd_shapes.py" "$work/odd" "$work/odd_shapes.json"
    merge --quiet
fi
if part generic; then
    for model in $generic; do measure "$model.generic" "$work/$model.generic.json" --products own; done
    merge --quiet
fi
if wants bench; then merge || status=1; fi
if part sanitize && command -v compute-sanitizer >/dev/null; then
    for name in small_model_a small_model_b; do
        for tool in memcheck racecheck synccheck initcheck; do
            compute-sanitizer --tool $tool --error-exitcode 9 "$programs/$name" generate --random \
                --tokens 3 --count 4 --device cuda >"$work/$name.$tool" 2>&1 ||
                { echo "compute-sanitizer $tool: $name"; tail -20 "$work/$name.$tool"; status=1; }
        done
    done
fi
[ ! -f "$result" ] || echo "result: $result"
exit $status

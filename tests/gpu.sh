#!/bin/sh
# gpu.sh: everything that only a GPU can show, in one command.
#
#   sh tests/gpu.sh                    build archc and the programs here, then all of it
#   sh tests/gpu.sh --pack FILE.tar.gz compile the programs for sm_90a (SM=80: another) and put them
#                                      into one file, for a machine that has Python with PyTorch, or
#                                      nothing at all: tar xf FILE.tar.gz && sh gpu/gpu.sh
#
# Its parts, what is worth most first; README.md in bench/ says what each does and what it takes:
#   verify    every phase of small models against the plain reference; trains, kills, resumes
#   bench     phases of the first two large models
#   odd       phases of odd shapes beside their even siblings
#   kernels   each kernel of the first two
#   torch     cuBLAS and PyTorch on the same shapes
#   others    phases, kernels and opponents of the other large models
#   generic   kernels and phases with run-time shapes
#   sanitize  compute-sanitizer on small models
#   knobs     constants that only a card can settle (bench/knobs.txt); not unless asked for
# Behind each of them, and each model, results/DATE-CARD.json is written anew and whole, so that
# whoever stops this at any time has what was done. Unpacked, a later call with other parts goes on
# with what an earlier one left in gpu/work.
#
# By environment: PARTS (which, always in the order above), LIMIT (seconds for all of it, 3600; a
# program has PROGRAM_SECONDS of them at most, 90, one verification VERIFY_SECONDS, 150), OUT (where
# the result goes), MODELS, OTHERS, GENERIC, SMALL (of these models), DEVICES (which GPUs programs
# are compiled for by --pack), FULL=1 (verify large models too: minutes each), KEEP_GOING=1 (time
# what is wrong too; the result says so). Exit status: 0 all verified, 1 something is wrong.
set -e
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
archc=${ARCHC:-$root/build/archc}
models=${MODELS-llama_3_2_1b surefire_1b}
others=${OTHERS-panda_1b qwen3_0_6b}
generic=${GENERIC-$models}
odd='group_8 group_9 group_7 odd_d_ff head_64 head_80 head_128'
parts=" ${PARTS:-verify bench odd kernels torch others generic sanitize} "

wants() { case "$parts" in *" $1 "*) ;; *) return 1 ;; esac }

# Is a small program among those asked for?
chosen() { case " ${SMALL:-$1} " in *" $1 "*) ;; *) return 1 ;; esac }

# What the law calls a card; nothing: it knows none.
device_of() { case $1 in *H100*) echo h100 ;; *H200*) echo h200 ;; *4090*) echo rtx4090 ;; *A100*) echo a100_40gb ;; esac }

# ---- compiling ----------------------------------------------------------------------------------

# spec NAME DEVICE: bench/NAME.arch served on another device, which decides what training keeps and
# what is predicted.
spec()
{
    sed -e "s/device *= h200/device = $2/" -e "s|\"../../examples/|\"$root/examples/|" \
        "$root/tests/bench/$1.arch" >"$specs/$1.$2.arch"
    echo "$specs/$1.$2.arch"
}

# program SPEC MODEL FILE [OPTION..]
program()
{
    from=$1 which=$2 file=$3
    shift 3
    "$archc" "$from" -m "$which" $options "$@" -o "$to/$file" 2>"$specs/log" ||
        { cat "$specs/log"; echo "gpu.sh: $which does not compile"; exit 1; }
}

# compile DIR SM DEVICE..: the programs of the parts into DIR/programs, and what is predicted.
compile()
{
    to=$1/programs options="--target $2 --march ${MARCH:-x86-64-v3}"
    shift 2
    mkdir -p "$to"
    specs=$(mktemp -d)
    command -v clang-19 >/dev/null || options="$options --device-cc nvcc"
    command -v clang >/dev/null || options="$options --cc gcc"
    bench=$root/tests/bench
    for model in model_a model_b; do
        ! chosen "small_$model" || program "$root/tests/cuda/$model.arch" $model "small_$model" --threads 2
    done
    for model in $(sed -n 's/^model \(small_[a-z0-9_]*\).*/\1/p' "$bench/gpu.arch"); do
        ! chosen "$model" || program "$bench/gpu.arch" "$model" "$model" --threads 2
    done
    for model in $odd; do
        ! chosen "small_$model" || program "$bench/odd_shapes.arch" "small_$model" "small_$model" --threads 2
        ! wants odd || program "$bench/odd_shapes.arch" "$model" "$model" --threads 2
    done
    for device in "$@"; do
        for model in $models $others; do
            program "$(spec gpu "$device")" "$model" "$model.$device" --threads "${THREADS:-16}"
            "$archc" resolve "$specs/gpu.$device.arch" -m "$model" --json >"$to/$model.$device.arch.json" 2>/dev/null
        done
        for model in $odd; do
            "$archc" resolve "$(spec odd_shapes "$device")" -m "$model" --json >"$to/$model.$device.predicted" 2>/dev/null
        done
    done
    for model in $(wants generic && echo "$generic"); do
        program "$bench/gpu.arch" "$model" "$model.generic" --threads "${THREADS:-16}" --generic
    done
    ! wants knobs || python3 "$bench/gpu_knobs.py" build "$to" "$archc" "$(spec gpu "$1")" $options --threads "${THREADS:-16}"
    rm -rf "$specs"
}

if [ "$1" = --pack ]; then
    [ -n "$2" ] || { echo "gpu.sh: --pack wants a file"; exit 2; }
    [ -x "$archc" ] || { echo "gpu.sh: no $archc: build it, or say where with ARCHC=PATH"; exit 2; }
    stage=$(mktemp -d)
    trap 'rm -rf "$stage"' EXIT
    compile "$stage/gpu" "sm_${SM:-90a}" ${DEVICES:-h200 h100}
    cp "$here/gpu.sh" "$here"/bench/gpu_*.py "$here/bench/odd_shapes.py" "$here/bench/knobs.txt" \
        "$here/cuda/program.sh" "$stage/gpu/"
    (cd "$root" && git rev-parse --short HEAD 2>/dev/null || echo unknown) >"$stage/gpu/commit"
    tar -caf "$2" -C "$stage" gpu
    exit 0
fi

# ---- the machine --------------------------------------------------------------------------------

ask() { nvidia-smi --query-gpu="$1" --format=csv,noheader 2>/dev/null | head -1; }
card=$(ask name)
sm=$(ask compute_cap | tr -d .)
[ -n "$sm" ] || { echo "gpu.sh: nvidia-smi finds no GPU here"; exit 1; }
device=$(device_of "$card")
start=$(date +%s)
end=$((start + ${LIMIT:-3600}))

if [ -d "$here/programs" ]; then # unpacked
    programs=$here/programs tools=$here work=$here/work out=${OUT:-$here/results} program_test=$here/program.sh
    commit=$(cat "$here/commit")
else
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    [ -x "$archc" ] || { cmake -S "$root" -B "$root/build" && cmake --build "$root/build" --target archc -j "$(nproc)"; }
    THREADS=$(nproc) MARCH=native
    compile "$work" "sm_$sm" "${device:=h200}"
    programs=$work/programs tools=$here/bench out=${OUT:-$here/bench/results}
    program_test=$here/cuda/program.sh
    commit=$(git -C "$root" rev-parse --short HEAD 2>/dev/null || echo unknown)
fi
mkdir -p "$out" "$work/odd"
result=$out/$(date -u +%Y%m%d-%H%M)-$(echo "$card" | tr ' /' '--').json
first=${models%% *}
[ -e "$programs/$first.$device" ] || device=$(ls "$programs" | sed -n "s/^$first\.\([a-z0-9_]*\)$/\1/p" | grep -v generic | head -1)
device=${device:-h200}
printf '%s\n%s\n%s\n' "$card" "$(ask driver_version)" "$(ask memory.total)" >"$work/card"
echo "card $card (sm_$sm, $(ask memory.total)), commit $commit, programs for $device"
status=0

# Named parts have so many seconds of what is left of all. False: not asked for, or no time.
part()
{
    wants "$1" || return 1
    by=$(($(date +%s) + $2))
    [ $by -le $end ] || by=$end
    echo "[$(($(date +%s) - start)) s] $1"
    [ $((end - $(date +%s))) -ge 5 ] || { note "$1: no time was left"; return 1; }
}

note()
{
    echo "gpu.sh: $*"
    echo "$*" >>"$work/notes"
}

# within SECONDS COMMAND..: status 124 where it did not end in that time, or by the end of the part.
within()
{
    most=$1 remaining=$((by - $(date +%s)))
    shift
    [ $remaining -ge "$most" ] || most=$remaining
    [ "$most" -ge 2 ] || return 124
    timeout -k 3 "$most" "$@"
}

late() { [ "$1" = 124 ] || [ "$1" = 137 ]; }

merge() { python3 "$tools/gpu_merge.py" "$work" "$result" "$commit" "$@" || status=1; }

# ---- right before fast --------------------------------------------------------------------------

# verify NAME PRODUCTS: a line of result in $work/verified. By the library, where there is one, some
# of them: its products know nothing of heads. The last line of a log that was cut short names what
# did not end.
verify()
{
    log=$work/$1.$2.verify rc=0 cut=
    rm -f "$work/$1.$2.wrong"
    [ "$2" = own ] || "$programs/$1" info | grep -q 'products: .*libcublasLt.so' || return 0
    within "${VERIFY_SECONDS:-150}" "$programs/$1" verify --device cuda --products "$2" >"$log" 2>&1 || rc=$?
    [ $rc = 0 ] || cp "$log" "$work/$1.$2.wrong"
    ! late $rc || cut='not done in time, stopped at '
    echo "$1, products $2: $cut$(tail -1 "$log" | tr -s ' ' | sed 's/ $//')" >"$work/$1.$2.verified"
}

# Training that was killed goes on, texts are the host's.
verify_program()
{
    rm -f "$work/program.wrong"
    within "${VERIFY_SECONDS:-150}" sh "$program_test" "$programs/small_model_a" 4000 >"$work/program.log" 2>&1 ||
        cp "$work/program.log" "$work/program.wrong"
}

if part verify 240; then
    for path in "$programs"/small_*; do
        name=$(basename "$path")
        verify "$name" own &
        case $name in small_model_* | small_surefire* | small_logits*) verify "$name" library & ;; esac
    done
    [ ! -x "$programs/small_model_a" ] || verify_program &
    wait
    for model in $([ -z "$FULL" ] || echo "$models $others"); do
        VERIFY_SECONDS=900 verify "$model.$device" own
        VERIFY_SECONDS=900 verify "$model.$device" library
    done
    cat "$work"/*.verified
    for log in "$work"/*.wrong; do
        [ ! -e "$log" ] || { status=1; echo "---- $log"; tail -30 "$log"; }
    done
    [ ! -e "$work/program.wrong" ] || note "resuming or texts of small_model_a are wrong"
    merge --quiet
fi

# right MODEL: neither its small sibling was wrong nor what stands for all models.
right()
{
    [ -z "$KEEP_GOING" ] || return 0
    for log in "$work/small_$1".*.wrong "$work"/small_model_*.wrong "$work"/small_vocabulary.*.wrong; do
        [ -e "$log" ] || continue
        said="$1: $(basename "$log" .wrong) is wrong: no speed is measured"
        grep -qxF "$said" "$work/notes" 2>/dev/null || note "$said"
        return 1
    done
}

# ---- speed --------------------------------------------------------------------------------------

# measure PROGRAM FILE [OPTION..]: some of a program's own table. What finds no memory is told, and
# is no failure.
measure()
{
    name=$1 file=$2
    shift 2
    rc=0
    within "${PROGRAM_SECONDS:-90}" "$programs/$name" bench --device cuda --json --progress "$@" >"$file.part" 2>"$file.log" || rc=$?
    if [ $rc = 0 ]; then
        mv "$file.part" "$file"
    elif late $rc; then
        note "$name, bench $*: not done in time, stopped at $(tail -1 "$file.log")"
        status=1
    else
        note "$name, bench $*: $(tail -1 "$file.log")"
        grep -q ' of memory for ' "$file.log" || status=1
    fi
}

phases()
{
    cp "$programs/$1.$device.arch.json" "$work/$1.arch.json"
    for phase in decode prefill,batch train; do
        measure "$1.$device" "$work/$1.$phase.json" --whole --phase $phase
        merge --quiet
    done
}

kernels()
{
    for phase in decode prefill batch train; do
        measure "$1.$device" "$work/$1.kernels.$phase.json" --only cuda_ --phase $phase
    done
    merge --quiet
}

opponents()
{
    rc=0
    within "${OPPONENT_SECONDS:-120}" python3 "$tools/gpu_torch.py" "$work" "$programs/$1.$device" "$1" || rc=$?
    [ $rc = 0 ] || note "opponents of $1: $(late $rc && echo 'not all in time' || echo failed)"
    merge --quiet
}

has_torch() { python3 -c 'import torch' 2>/dev/null || { note "no PyTorch here, so no opponents"; return 1; }; }

if part bench 150; then
    for model in $models; do ! right "$model" || phases "$model"; done
fi
if part odd 120; then
    for model in $odd; do
        cp "$programs/$model.$device.predicted" "$work/odd/$model.predicted"
        ! right "$model" || measure "$model" "$work/odd/$model.measured" --whole
    done
    python3 "$tools/odd_shapes.py" "$work/odd" "$work/odd_shapes.json" || status=1
    merge --quiet
fi
if part kernels 150; then
    for model in $models; do ! right "$model" || kernels "$model"; done
fi
if part torch 240 && has_torch; then
    for model in $models; do ! right "$model" || opponents "$model"; done
fi
if part others 400; then
    for model in $others; do ! right "$model" || phases "$model"; done
    for model in $others; do ! right "$model" || kernels "$model"; done
    for model in $(has_torch && echo "$others"); do ! right "$model" || opponents "$model"; done
fi
if part generic 150; then
    for model in $generic; do
        ! right "$model" || measure "$model.generic" "$work/$model.generic.json" --products own
        merge --quiet
    done
fi
if part sanitize 200 && command -v compute-sanitizer >/dev/null; then
    for name in small_model_a small_model_b; do
        for tool in memcheck racecheck synccheck initcheck; do
            within 60 compute-sanitizer --tool $tool --error-exitcode 9 "$programs/$name" generate --random \
                --tokens 3 --count 4 --device cuda >"$work/$name.$tool" 2>&1 ||
                { note "compute-sanitizer $tool: $name"; tail -20 "$work/$name.$tool"; status=1; }
        done
    done
fi
if part knobs 300; then
    python3 "$tools/gpu_knobs.py" time "$programs" "$device" "$work" "$by" || status=1
    merge --quiet
fi
merge
[ ! -f "$result" ] || echo "result: $result"
exit $status

#!/bin/sh
# gpu.sh [PACK.tar.gz]: everything that only a GPU can show, in one command.
#
#   sh tests/gpu.sh                    build archc here (cmake, flex, bison), then all of it
#   sh tests/gpu.sh --pack FILE.tar    put archc (libc only), the examples and this into one file,
#                                      for a machine with nvcc and PyTorch and nothing else:
#                                      tar xf FILE.tar && sh gpu/gpu.sh
#
# Verifies every phase against the plain reference, with our own products and with cuBLASLt's, runs
# compute-sanitizer on small shapes, then
# times kernels and phases, specialised and generic, beside cuBLAS and PyTorch in the same run.
# Writes one file, results/DATE-CARD.json. Options by environment: ARCHC (the compiler), MODELS
# (which examples), OUT (where the result goes). Exit status: 0 all verified, 1 something is wrong.
set -e
here=$(cd "$(dirname "$0")" && pwd)

if [ "$1" = --pack ]; then
    [ -n "$2" ] || { echo "gpu.sh: --pack wants a file"; exit 2; }
    root=$(dirname "$here")
    archc=${ARCHC:-$root/build/archc}
    [ -x "$archc" ] || { echo "gpu.sh: no $archc: build it, or say where with ARCHC=PATH"; exit 2; }
    stage=$(mktemp -d)
    trap 'rm -rf "$stage"' EXIT
    mkdir "$stage/gpu"
    cp "$archc" "$stage/gpu/archc"
    cp "$here/gpu.sh" "$here/bench/gpu_torch.py" "$here/bench/gpu_merge.py" "$here"/bench/odd_shapes.* \
        "$stage/gpu/"
    cp -r "$root/examples" "$stage/gpu/examples"
    cp "$here/cuda/program.sh" "$stage/gpu/"
    cp "$here/cuda/model_a.arch" "$here/cuda/model_b.arch" "$stage/gpu/examples/"
    (cd "$root" && git rev-parse --short HEAD 2>/dev/null || echo unknown) >"$stage/gpu/commit"
    tar -cf "$2" -C "$stage" gpu
    ldd "$archc" 2>/dev/null | grep -v 'linux-vdso\|libc\.\|libm\.\|ld-linux' || true
    exit 0
fi

card=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -1 | tr ' /' '--')
sm=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -1 | tr -d .)
[ -n "$sm" ] || { echo "gpu.sh: nvidia-smi finds no GPU here"; exit 1; }

if [ -x "$here/archc" ]; then # unpacked
    archc=${ARCHC:-$here/archc} examples=$here/examples tools=$here out=${OUT:-$here/results}
    commit=$(cat "$here/commit") program_test=$here/program.sh
else
    root=$(dirname "$here")
    program_test=$here/cuda/program.sh
    examples=$root/examples tools=$here/bench out=${OUT:-$here/bench/results}
    archc=${ARCHC:-$root/build/archc}
    [ -x "$archc" ] || { cmake -S "$root" -B "$root/build" && cmake --build "$root/build" --target archc -j "$(nproc)"; }
    commit=$(git -C "$root" rev-parse --short HEAD 2>/dev/null || echo unknown)
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
set -- --target "sm_$sm"
command -v clang-19 >/dev/null || set -- "$@" --device-cc nvcc
command -v clang >/dev/null || set -- "$@" --cc gcc
echo "card $card (sm_$sm), commit $commit"
status=0

# verify PROGRAM: with our own products, and with the library's where there is one.
verify()
{
    program=$1 choices=own bad=0
    if "$program" info | grep -q 'products: .*libcublasLt.so'; then choices='own library'
    else echo "$(basename "$program"): no cuBLASLt here: own products only"; fi
    for products in $choices; do
        log=$program.verify.$products
        "$program" verify --device cuda --products $products >"$log" || { cat "$log"; bad=1; }
        echo "$(tail -1 "$log") (products: $products)"
    done
    return $bad
}

# 1. Right before fast: small models of every kind with reference gradients, under the sanitizer too.
a=$examples/model_a.arch b=$examples/model_b.arch
[ -f "$a" ] || { a=$here/cuda/model_a.arch b=$here/cuda/model_b.arch; }
for file in "$a" "$b"; do
    name=$(basename "$file" .arch)
    "$archc" "$file" "$@" -o "$work/$name"
    verify "$work/$name" || status=1
    if command -v compute-sanitizer >/dev/null; then
        for tool in memcheck racecheck synccheck initcheck; do
            compute-sanitizer --tool $tool --error-exitcode 9 "$work/$name" generate --random \
                --tokens 3 --count 4 --device cuda >"$work/$name.$tool" 2>&1 ||
                { echo "compute-sanitizer $tool: $name"; tail -20 "$work/$name.$tool"; status=1; }
        done
    fi
done
sh "$program_test" "$work/model_a" 4000 || { echo "gpu.sh: resuming or texts: see above"; status=1; }
[ $status = 0 ] || { echo "gpu.sh: not verified: no speed is measured"; exit 1; }

# 2. The models that matter: verified, then timed, specialised and generic.
for model in ${MODELS:-llama_3_2_1b surefire_1b panda_1b qwen3_0_6b}; do
    file=$examples/$model.arch
    "$archc" "$file" "$@" -o "$work/$model"
    verify "$work/$model" || { status=1; continue; }
    "$work/$model" bench --device cuda --json >"$work/$model.special.json" || status=1
    if "$archc" "$file" "$@" --generic -o "$work/$model.generic"; then
        "$work/$model.generic" bench --device cuda --products own --json >"$work/$model.generic.json" || status=1
    fi
    "$archc" resolve "$file" --json >"$work/$model.arch.json"
    rm -f "$work/$model" "$work/$model.generic"
done

# 3. What odd groups and head sizes cost beside siblings of equal bytes.
sh "$tools/odd_shapes.sh" "$archc" "$work/odd_shapes.json" "$@" || status=1

# 4. The opponents on the same shapes, and the card's matrix peak.
python3 "$tools/gpu_torch.py" "$work" || status=1
result=$out/$(date -u +%Y%m%d-%H%M)-$card.json
python3 "$tools/gpu_merge.py" "$work" "$result" "$commit" || status=1
echo "result: $result"
exit $status

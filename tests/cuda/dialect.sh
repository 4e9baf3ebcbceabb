#!/bin/sh
# dialect.sh SOURCE_DIR - every function of the dialect through each device compiler that is here:
# clang 14 and newer for the architectures they know, clang 14 by way of sm_80 for sm_90a, nvcc. The
# PTX goes through ptxas where there is one, and must come out without spills and warnings.
set -u
source=$1
kernels=$source/codegen/kernels/cuda
here=$source/tests/cuda
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
bad=0
tried=0

tool() {
    if command -v "$1" >/dev/null 2>&1; then
        command -v "$1"
    elif [ -x "/usr/local/cuda/bin/$1" ]; then
        echo "/usr/local/cuda/bin/$1"
    fi
}
ptxas=$(tool ptxas)
nvcc=$(tool nvcc)

# judge WHAT LOG: what the assembler said.
judge() {
    if grep -iqE 'warning|error|C75' "$2" || grep -E 'spill' "$2" | grep -qv '0 bytes spill stores, 0 bytes spill loads'; then
        echo "$1:"
        cat "$2"
        bad=1
    fi
}

assemble() { # WHAT ARCH
    [ -n "$ptxas" ] || return 0
    "$ptxas" -v -arch="$2" "$work/k.ptx" -o "$work/k.cubin" >"$work/log" 2>&1 || bad=1
    judge "$1" "$work/log"
}

clang() { # COMPILER FILE ARCH PTX OPTION..
    cc=$1 file=$2 arch=$3 ptx=$4
    shift 4
    tried=$((tried + 1))
    "$cc" -x cuda --cuda-device-only -nocudainc -nocudalib --cuda-path=/nonexistent \
        --cuda-gpu-arch="$arch" -Xclang -target-feature -Xclang "+ptx$ptx" -O3 -Wall -Wextra -Werror \
        -I "$kernels" "$@" -S "$here/$file" -o "$work/k.ptx" || bad=1
}

for version in 14 15 16 17 18 19 20 21 22; do
    cc=$(tool clang-$version)
    [ -n "$cc" ] || continue
    for arch in sm_80 sm_86; do
        clang "$cc" dialect.cu $arch 74
        assemble "$cc $arch" $arch
    done
    if [ "$version" -ge 18 ]; then
        clang "$cc" dialect.cu sm_89 78
        assemble "$cc sm_89" sm_89
        clang "$cc" dialect.cu sm_90a 83
        assemble "$cc sm_90a" sm_90a
        clang "$cc" dialect_sm90.cu sm_90a 83
        assemble "$cc sm_90a" sm_90a
    else
        for file in dialect.cu dialect_sm90.cu; do
            clang "$cc" $file sm_80 74 -DDEVICE_SM=90 -DDEVICE_SM90A
            sed -i -e 's/^\.version.*/.version 8.3/' -e 's/^\.target.*/.target sm_90a/' "$work/k.ptx"
            assemble "$cc sm_90a by way of sm_80" sm_90a
        done
    fi
done
if [ -n "$nvcc" ]; then
    for arch in sm_80 sm_86 sm_89 sm_90a; do
        files=dialect.cu
        [ $arch = sm_90a ] && files="dialect.cu dialect_sm90.cu"
        for file in $files; do
            tried=$((tried + 1))
            "$nvcc" -arch=$arch -cubin -Xptxas -v -I "$kernels" "$here/$file" -o "$work/k.cubin" \
                >"$work/log" 2>&1 || bad=1
            judge "nvcc $arch $file" "$work/log"
        done
    done
fi
if [ $tried = 0 ]; then
    echo "no device compiler (clang-14 or newer, nvcc): nothing to compare"
    exit 77
fi
exit $bad

#!/bin/sh
# run.sh - the study of kjv.arch, into build/study_kjv: some 25 minutes on two quiet cores. It may be
# stopped at any time; the same command goes on.
#
#   sh examples/study_kjv/run.sh [OPTION..]      options of `archc study`, --dry-run for example
set -eu
cd "$(dirname "$0")/../.."
. examples/packages.sh
need_packages cmake ninja-build gcc libc6-dev clang flex bison libjansson-dev zlib1g-dev libzstd-dev \
    libcminpack-dev libnlopt-dev bible-kjv gnuplot-nox

out=build/study_kjv
mkdir -p $out
if ! { cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release &&
    cmake --build build --target archc; } >$out/build.log 2>&1; then
    tail -n 20 $out/build.log >&2
    echo "the build failed; the whole log is in $out/build.log" >&2
    exit 1
fi
# One verse a line, without its reference.
bible -f 'gen1:1-rev22:21' | sed 's/^[^ ]* //' >$out/kjv.txt
cp examples/study_kjv/kjv.arch $out/
build/archc study $out/kjv.arch -o $out/result "$@"

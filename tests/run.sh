#!/bin/sh
# run.sh - builds and tests everything, from nothing: packages, gcc, clang, sanitizers.
#
#   sh tests/run.sh [--quick]     --quick: the default build and its tests only
#
# The last line is `N passed, N failed, N skipped`; the exit status is 0 only if none failed. A build
# counts as one test, a test registered with CTest as one test in each build that runs it.
set -u
cd "$(dirname "$0")/.." || exit 1
. examples/packages.sh

passed=0 failed=0 skipped=0
logs=build/logs
jobs=$(nproc 2>/dev/null || echo 2)

passed_one()
{
    passed=$((passed + 1))
    printf '%-9s %s (%d s)\n' ok "$1" "$2"
}

failed_one()
{
    failed=$((failed + 1))
    printf '%-9s %s\n' FAILED "$1"
}

# build NAME CC CMAKE_OPTION..: configures and builds into build/NAME ("." is build itself). The
# compiler is chosen where the directory is first configured.
build()
{
    name=$1 cc=$2
    shift 2
    directory=build/$name
    [ "$name" = default ] && directory=build
    start=$(date +%s)
    if cmake -S . -B "$directory" -G Ninja -DCMAKE_C_COMPILER="$cc" "$@" >"$logs/$name.build" 2>&1 &&
        cmake --build "$directory" -j "$jobs" >>"$logs/$name.build" 2>&1; then
        passed_one "build $name" $(($(date +%s) - start))
    else
        failed_one "build $name"
        grep -E -A 4 'error|Error|FAILED' "$logs/$name.build" | head -n 40
        return 1
    fi
}

# run_ctest NAME CTEST_OPTION..: runs the tests of a build and adds up what CTest counted.
run_ctest()
{
    name=$1
    shift
    directory=build/$name
    [ "$name" = default ] && directory=build
    log=$logs/$name.test
    start=$(date +%s)
    ctest --test-dir "$directory" -j "$jobs" --timeout 240 --output-on-failure "$@" >"$log" 2>&1
    good=$(grep -c -E '^ *[0-9]+/[0-9]+ Test .* Passed ' "$log")
    idle=$(grep -c -E '^ *[0-9]+/[0-9]+ Test .*\*\*\*Skipped' "$log")
    all=$(grep -c -E '^ *[0-9]+/[0-9]+ Test ' "$log")
    bad=$((all - good - idle))
    if [ "$all" -eq 0 ]; then
        failed_one "tests $name: CTest ran none"
        tail -n 5 "$log"
        return
    fi
    passed=$((passed + good))
    failed=$((failed + bad))
    skipped=$((skipped + idle))
    printf '%-9s tests %s: %d passed, %d failed, %d skipped (%d s)\n' \
        "$([ "$bad" -eq 0 ] && echo ok || echo FAILED)" "$name" "$good" "$bad" "$idle" \
        $(($(date +%s) - start))
    grep -E '^ *[0-9]+/[0-9]+ Test .*\*\*\*Skipped' "$log"
    [ "$bad" -eq 0 ] || sed -n '/\*\*\*/p;/^The following tests FAILED/,$p' "$log" | head -n 100
    [ "$bad" -eq 0 ] || echo "          the whole log: $log"
}

finish()
{
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ]
    exit
}

if ! need_packages cmake ninja-build gcc libc6-dev clang flex bison libjansson-dev zlib1g-dev \
    libzstd-dev libcminpack-dev libnlopt-dev python3 xz-utils gnuplot-nox; then
    failed_one "packages"
    finish
fi
# Any clang compiles the CUDA kernels; this one does it five times as fast as Debian 12's own.
need_packages clang-19 || true
mkdir -p "$logs"

build default gcc -DCMAKE_BUILD_TYPE=Release && run_ctest default
[ "${1:-}" = --quick ] && finish

# The emulator checks every access of a CUDA kernel itself, so one build of those tests is enough.
build clang clang -DCMAKE_BUILD_TYPE=Release -DARCHC_TEST_CUDA=OFF && run_ctest clang -LE slow
# Leaks are not errors: the compiler's arena ends with the process.
ASAN_OPTIONS=detect_leaks=0
export ASAN_OPTIONS
# Sanitizers make gcc warn of code that it has rewritten itself; what they find they find at -O1, for
# a third of the time that -O2 takes to compile. Assertions stand here: a Release build has none.
build sanitize gcc -DCMAKE_BUILD_TYPE=RelWithDebInfo \
    -DCMAKE_C_FLAGS_RELWITHDEBINFO="-O1 -g1" -DARCHC_SANITIZE=ON -DARCHC_WERROR=OFF \
    -DARCHC_TEST_CUDA=OFF &&
    run_ctest sanitize -LE slow
finish

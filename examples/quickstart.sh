#!/bin/sh
# quickstart.sh - from a clean machine to a trained model: about six minutes on two cores.
#
#   sh examples/quickstart.sh [--seconds N]     N seconds of training, 180 if not given
#
# Installs what is missing, builds archc in build/, compiles examples/quickstart.arch, trains the
# program on the King James Bible, compares it with gzip and xz on text that neither has seen, writes
# a passage, and measures the specialised kernels against the same kernels with run-time shapes.
set -eu
cd "$(dirname "$0")/.."
. examples/packages.sh

seconds=180
while [ $# -gt 0 ]; do
    case $1 in
    --seconds)
        [ $# -ge 2 ] || { echo "--seconds needs a number" >&2; exit 2; }
        seconds=$2
        shift 2
        ;;
    --seconds=*)
        seconds=${1#*=}
        shift
        ;;
    *)
        sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
    esac
done
case $seconds in
'' | *[!0-9]* | 0) echo "--seconds needs a whole number above 0" >&2; exit 2 ;;
esac

# Shows a command, then runs it.
run()
{
    printf '\n$ %s\n' "$*"
    "$@"
}

need_packages cmake ninja-build gcc libc6-dev clang flex bison libjansson-dev zlib1g-dev \
    libzstd-dev libcminpack-dev libnlopt-dev bible-kjv xz-utils gzip

out=build/quickstart
mkdir -p $out
if ! { cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release &&
    cmake --build build --target archc; } >$out/build.log 2>&1; then
    tail -n 20 $out/build.log >&2
    echo "the build failed; the whole log is in $out/build.log" >&2
    exit 1
fi
archc=build/archc
spec=examples/quickstart.arch

run $archc check $spec
run $archc resolve $spec
run $archc $spec -o $out/quickstart

# One verse a line: "Ge1:1 In the beginning ..." without its reference. The last twentieth is held
# out: no run of the program or of a compressor sees it before it is scored.
bible -f 'gen1:1-rev22:21' | sed 's/^[^ ]* //' >$out/bible.txt
lines=$(wc -l <$out/bible.txt)
head -n $((lines * 19 / 20)) $out/bible.txt >$out/train.txt
tail -n +$((lines * 19 / 20 + 1)) $out/bible.txt >$out/held.txt

rm -rf $out/run
run $out/quickstart train --data $out/train.txt --val $out/held.txt --seconds "$seconds" \
    --out $out/run
# Windows overlap by half: every byte is predicted from 128 or more before it, where there are so many.
run $out/quickstart eval --weights $out/run --data $out/held.txt --stride 128 --json |
    tee $out/eval.json
model=$(sed -n 's/.*"bits_per_byte": *\([0-9.]*\).*/\1/p' $out/eval.json)

# row NAME ALONE AFTER: bits per byte of the held-out text, given its size in bytes.
row()
{
    awk -v name="$1" -v alone="$2" -v after="$3" -v n="$(wc -c <$out/held.txt)" \
        'BEGIN { printf "%-36s %7.3f %20.3f\n", name, 8 * alone / n, 8 * after / n }'
}
printf '\n%-36s %7s %20s\n' "bits per byte of the held-out text" alone "after training text"
for tool in "gzip -9" "xz -9e"; do
    alone=$($tool -c <$out/held.txt | wc -c)
    before=$($tool -c <$out/train.txt | wc -c)
    both=$(cat $out/train.txt $out/held.txt | $tool -c | wc -c)
    row "$tool" "$alone" $((both - before))
done
printf '%-36s %7s %20.3f\n' "this model, $seconds s of training" - "$model"

prompt="And it came to pass in those days, that"
run $out/quickstart generate --weights $out/run --tokens 200 --temperature 0.7 --seed 1 \
    --prompt "$prompt"
echo
run $archc bench $spec

#!/bin/sh
# fuzz_lang.sh [seconds] - builds the fuzz target with clang in a scratch directory and runs it from
# the golden inputs. Needs clang, flex and bison. A crash leaves its input in that directory.
seconds=${1:-120}
root=$(cd "$(dirname "$0")/../.." && pwd)
dir=${TMPDIR:-/tmp}/fuzz_lang
mkdir -p "$dir/corpus" && cd "$dir" || exit 2
bison -o parse.c --header=parse.h "$root/lang/parse.y" || exit 2
flex -o scan.c "$root/lang/scan.l" || exit 2
sources=
for f in base diag units ast read collect value link goal spec check shape format emit; do
    sources="$sources $root/lang/$f.c"
done
clang -std=gnu11 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -w \
    -I"$root/lang" -I. "$root/tests/fuzz/fuzz_lang.c" $sources parse.c scan.c -lm -o fuzz_lang || exit 2
cat "$root"/lang/keys.def "$root"/lang/scan.l | tr -c 'A-Za-z0-9_"' '\n' |
    sed -n 's/^"\([A-Za-z0-9_][A-Za-z0-9_]*\)"$/"\1"/p' | sort -u >words
FUZZ_PRELUDE=$root/tests/lang/good/prelude.arch nice ./fuzz_lang -max_total_time="$seconds" \
    -max_len=2000 -dict=words -timeout=10 -print_final_stats=1 corpus "$root"/tests/lang/bad \
    "$root"/tests/lang/good 2>&1 | tail -40

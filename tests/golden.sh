#!/bin/sh
# golden.sh TOOL DIR [update] - every expected file in DIR against what TOOL prints now.
#
# The extension of the expected file says how TOOL reads the .arch file beside it:
#   x.diag    diagnostics of `TOOL check x.arch`, and that it fails if they hold an error
#   x.mem     the same of `TOOL parse x.arch`, which reads from memory
#   x.fmt x.tokens x.ast x.spec    what `TOOL fmt|tokens|ast|spec x.arch` prints
# DIR/prelude.arch, where there is one, takes the place of the built-in laws and devices.
# `update` rewrites the expected files: read the difference before you commit it.
tool=$1 update=$3 failed=0 n=0
cd "$2" || exit 2
case $tool in /*) ;; *) tool=$OLDPWD/$tool ;; esac
set -- --prelude prelude.arch
[ -f prelude.arch ] || set --
now=$(mktemp) || exit 2
trap 'rm -f "$now"' EXIT

for want in *.diag *.mem *.fmt *.tokens *.ast *.spec; do
    [ -e "$want" ] || continue
    n=$((n + 1))
    file=${want%.*}.arch
    case $want in
    *.diag) timeout 20 "$tool" "$@" check "$file" >"$now" 2>&1 ;;
    *.mem) timeout 20 "$tool" "$@" parse "$file" >"$now" 2>&1 ;;
    *) timeout 20 "$tool" "$@" "${want##*.}" "$file" >"$now" 2>/dev/null ;;
    esac
    status=$?
    [ "$update" = update ] && cat "$now" >"$want"
    expected=0
    case $want in
    *.diag | *.mem) grep -q '^[^ ].*: error: \|^error: ' "$want" && expected=1 ;;
    esac
    if ! cmp -s "$want" "$now"; then
        echo "FAIL $want"
        diff -u "$want" "$now" | head -40
        failed=$((failed + 1))
    elif [ "$status" -ne "$expected" ]; then
        echo "FAIL $want: exit status $status, expected $expected"
        failed=$((failed + 1))
    fi
done
echo "$((n - failed)) of $n passed"
[ "$n" -gt 0 ] && [ "$failed" -eq 0 ]

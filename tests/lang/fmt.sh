#!/bin/sh
# fmt.sh TOOL PRELUDE FILE... - formatting keeps the meaning and every comment, and a second time
# changes nothing. All files are formatted before any is compared, for they import each other.
tool=$1 prelude=$2
shift 2
dir=$(mktemp -d) || exit 2
trap 'rm -rf "$dir"' EXIT
failed=0
fail() {
    echo "FAIL $1: $2"
    failed=1
}
comments() { sed -n 's/^[^"#]*\("[^"]*"[^"#]*\)*#/#/p' "$1" | sed 's/[ \t\r]*$//' | sort; }

for f in "$@"; do
    "$tool" fmt "$f" >"$dir/${f##*/}" || fail "$f" "cannot be formatted"
done
for f in "$@"; do
    new=$dir/${f##*/}
    "$tool" fmt "$new" >"$dir/again" && cmp -s "$new" "$dir/again" || fail "$f" "fmt twice differs"
    "$tool" --prelude "$prelude" spec "$f" >"$dir/before" 2>/dev/null
    "$tool" --prelude "$prelude" spec "$new" >"$dir/after" 2>/dev/null
    [ -s "$dir/before" ] || fail "$f" "has no spec"
    cmp -s "$dir/before" "$dir/after" || fail "$f" "the meaning changed"
    comments "$f" >"$dir/before"
    comments "$new" >"$dir/after"
    cmp -s "$dir/before" "$dir/after" || fail "$f" "comments changed"
    grep -q '[ 	]$' "$new" && fail "$f" "blanks at the end of a line"
done
exit $failed

#!/bin/sh
# examples.sh TOOL PRELUDE FILE... - the examples have nothing to complain of and are formatted.
tool=$1 prelude=$2
shift 2
failed=0
for f in "$@"; do
    said=$(timeout 20 "$tool" --prelude "$prelude" check "$f" 2>&1) && [ -z "$said" ] || {
        echo "FAIL $f: $said"
        failed=1
    }
done
[ $# -gt 0 ] && exit $failed

#!/bin/sh
# rules.sh RULES.DEF DIR - every rule of the table has a golden message in DIR, and every rule named
# in a message there is in the table.
failed=0
names=$(sed -n 's/^RULE([A-Z_]*, "\([a-z-]*\)".*/\1/p' "$1")
[ -n "$names" ] || exit 2
for name in $names; do
    grep -q ": \(error\|warning\): .* \[$name\]\$" "$2"/*.diag "$2"/*.mem || {
        echo "FAIL no golden message for [$name]"
        failed=1
    }
done
for name in $(sed -n 's/.*: \(error\|warning\): .* \[\([a-z-]*\)\]$/\2/p' "$2"/*.diag "$2"/*.mem | sort -u); do
    echo "$names" | grep -qx -e "$name" || {
        echo "FAIL [$name] is not in the table"
        failed=1
    }
done
exit $failed

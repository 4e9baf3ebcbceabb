# lib.sh - what the scripts share: a scratch directory, a text to train on, checks that count.
# Usage: sh NAME.sh DIRECTORY-OF-THE-TOYS
set -u
bin=$1
work=$(mktemp -d "${TMPDIR:-/tmp}/rt-script-XXXXXX")
trap 'cd /; rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
cd "$work" || exit 1
failed=0

fail() {
    echo "failed: $*" >&2
    failed=$((failed + 1))
}

# check TEXT COMMAND..: the command succeeds
check() {
    what=$1
    shift
    "$@" || fail "$what"
}

# status N COMMAND..: the command ends with this status; its output stays in out and err
status() {
    expected=$1
    shift
    "$@" >out 2>err
    got=$?
    [ $got -eq "$expected" ] || { fail "status $got, not $expected: $*"; cat err >&2; }
}

# refuses N TEXT COMMAND..: status N, one line on stderr that has the text
refuses() {
    expected=$1 text=$2
    shift 2
    status "$expected" "$@"
    [ "$(wc -l <err)" -eq 1 ] || { fail "not one line: $*"; cat err >&2; }
    grep -qF -- "$text" err || { fail "'$text' is not said by: $*"; cat err >&2; }
}

# Sentences with some structure, so that training learns something.
make_text() {
    awk -v n="$1" 'BEGIN {
        split("the earth heaven waters light day night land seas spirit", noun, " ")
        split("made saw called divided moved gathered blessed", verb, " ")
        s = 12345
        for (i = 0; i < n; i++) {
            s = (s * 1103515245 + 12345) % 2147483648; a = int(s / 65536) % 10 + 1
            s = (s * 1103515245 + 12345) % 2147483648; b = int(s / 65536) % 7 + 1
            s = (s * 1103515245 + 12345) % 2147483648; c = int(s / 65536) % 10 + 1
            print "And the " noun[a] " " verb[b] " the " noun[c] "."
        }
    }'
}

# The metrics without what depends on the clock.
timeless() {
    sed 's/,"seconds":[0-9.e+-]*//' "$1"
}

finish() {
    [ $failed -eq 0 ] || { echo "$failed checks failed" >&2; exit 1; }
    exit 0
}

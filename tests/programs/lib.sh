# lib.sh - sourced by the whole-program tests: sh TEST.sh ARCHC [CASE]. Each test stands in its own
# directory, which goes when it ends (KEEP=1 leaves it), and fails if any check failed.

archc=$1
case $archc in /*) ;; *) archc=$(pwd)/$archc ;; esac
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap '[ -n "${KEEP:-}" ] && echo "left in $work" || rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
# The measured machine is cached for all tests of a build directory, and not among the user's files.
XDG_CACHE_HOME=${ARCHC_TEST_CACHE:-$work/cache}
export XDG_CACHE_HOME
checks=0 wrong=0

cd "$work" || exit 1

# check MESSAGE COMMAND..: the command must succeed.
check()
{
    message=$1
    shift
    checks=$((checks + 1))
    if ! "$@"; then
        wrong=$((wrong + 1))
        echo "FAILED: $message" >&2
        return 1
    fi
}

# expect STATUS COMMAND..: the command must end with exactly this status. Its output is kept in the
# files out and err, and shown where the status is another one.
expect()
{
    status=$1
    shift
    checks=$((checks + 1))
    "$@" >out 2>err </dev/null
    got=$?
    if [ "$got" -ne "$status" ]; then
        wrong=$((wrong + 1))
        echo "FAILED: status $got instead of $status: $*" >&2
        head -n 20 out err >&2
        return 1
    fi
}

# says PATTERN FILE: the file has a line that matches (extended regular expression).
says()
{
    grep -q -E -e "$1" "$2" || {
        echo "no line like '$1' in:" >&2
        head -n 20 "$2" >&2
        return 1
    }
}

# json FILE EXPRESSION: the file is one JSON object `o`, and the Python expression holds.
json()
{
    python3 - "$1" "$2" <<'P'
import json, math, sys
o = json.load(open(sys.argv[1]))
if not eval(" ".join(sys.argv[2].split())):
    sys.exit(f"{sys.argv[2]} does not hold in {sys.argv[1]}: {json.dumps(o)[:600]}")
P
}

# number FILE EXPRESSION: prints the value.
number()
{
    python3 -c 'import json, sys; o = json.load(open(sys.argv[1])); print(repr(eval(sys.argv[2])))' \
        "$1" "$2"
}

# near A B RELATIVE
near()
{
    python3 -c 'import sys; a, b, r = map(float, sys.argv[1:])
sys.exit(0 if abs(a - b) <= r * max(abs(a), abs(b)) else f"{a} and {b} differ by more than {r}")' \
        "$1" "$2" "$3"
}

# model NAME: writes NAME.arch from the variables below.
d_model=64 layers=2 heads=4 kv_heads=2 head_dim=40 d_ff=128 vocab=257 tied=yes context=128
qk_norm=no bias=no weights=fp32 threads=1 batch=2 sequence=32
model()
{
    cat >"$1.arch" <<A
model $1 {
    family   = llama
    vocab    = $vocab
    tied     = $tied
    context  = $context
    layers   = $layers
    d_model  = $d_model
    heads    = $heads
    kv_heads = $kv_heads
    head_dim = $head_dim
    d_ff     = $d_ff
    attention { bias = $bias
        qk_norm = $qk_norm }
    train { batch = $batch
        sequence = $sequence }
    serve { weights = $weights }
}
A
}

# Options for programs whose compiler is not what is tested: the one that is fastest at it.
quick=
! command -v clang-19 >/dev/null || quick='--cc clang-19'

# compile NAME OPTION..: archc NAME.arch for the number of threads above.
compile()
{
    name_of_model=$1
    shift
    "$archc" "$name_of_model.arch" --threads "$threads" "$@"
}

# 40 kB of words with structure to learn, the same everywhere.
corpus()
{
    python3 - "$1" <<'P'
import random, sys
r = random.Random(7)
words = ["".join(r.choice("etaoinshrdlu") for _ in range(r.randint(2, 7))) for _ in range(60)]
text = ""
while len(text) < 40000:
    text += " ".join(r.choice(words) for _ in range(r.randint(4, 12))).capitalize() + ".\n"
open(sys.argv[1], "w").write(text)
P
}

finish()
{
    if [ "$wrong" -ne 0 ]; then
        echo "$wrong of $checks checks failed" >&2
        exit 1
    fi
    echo "$checks checks"
    exit 0
}

#!/bin/sh
# world.sh TOOL - files that are not what they should be: each gets its message, quickly.
tool=$1 failed=0
dir=$(mktemp -d) || exit 2
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 2
says() { # WHAT the output of the rest must contain
    want=$1
    shift
    got=$(timeout 10 "$@" 2>&1)
    status=$?
    case $status:$got in
    1:*"$want"*) ;;
    *)
        echo "FAIL $*: status $status, wanted '$want', got: $got"
        failed=1
        ;;
    esac
}
truncate -s 100M large.arch
says "holds 104.9MB; a .arch file is at most 1MiB [unreadable]" "$tool" check large.arch
says "at most 1MiB" "$tool" fmt large.arch
yes 'model a {}' | head -c 100000000 >text.arch
says "at most 1MiB" "$tool" check text.arch
says "more than 1MiB" sh -c "yes | '$tool' check /dev/stdin"
says "it is a directory" "$tool" check .
says "No such file" "$tool" check none.arch
says "No such file" "$tool" fmt none.arch
says "No such file" "$tool" tokens none.arch
head -c 100000 /dev/urandom >random.arch
says "is not text [not-text]" "$tool" check random.arch
says "is not text [not-text]" "$tool" tokens random.arch
says "is not text [not-text]" "$tool" fmt random.arch
cp "$tool" program.arch
says "" "$tool" check program.arch
: >empty.arch
says "[empty-file]" "$tool" check empty.arch
# A chain of imports as long as is allowed, and one longer; a diamond is read once.
i=0
while [ $i -lt 150 ]; do
    echo "import \"c$((i + 1)).arch\"" >c$i.arch
    i=$((i + 1))
done
says "more than 128 files [too-many]" "$tool" check c0.arch
printf 'import "l.arch"\nimport "r.arch"\nmodel m : base {}\n' >top.arch
printf 'import "base.arch"\n' >l.arch
printf 'import "./base.arch"\n' >r.arch
printf 'model base {}\n' >base.arch
says "base.arch:1:7: error: 'base' has no vocab" "$tool" check top.arch
[ "$("$tool" check top.arch 2>&1 | grep -c 'has no vocab')" = 2 ] || {
    echo "FAIL a file imported twice is read twice"
    failed=1
}
exit $failed

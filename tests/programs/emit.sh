#!/bin/sh
# emit.sh ARCHC - the emitted text: the same on every run, in every directory, and naming neither.
. "$(dirname "$0")/lib.sh"
threads=2 qk_norm=yes weights=int8
model m
mkdir elsewhere
cp m.arch elsewhere
for stage in tokens ast spec arch plan c; do
    expect 0 "$archc" m.arch --emit=$stage && cp out "first.$stage"
    check "--emit=$stage prints" [ -s out ]
    expect 0 "$archc" m.arch --emit=$stage
    check "--emit=$stage is the same twice" cmp "first.$stage" out
    (cd elsewhere && "$archc" m.arch --emit=$stage >out)
    check "--emit=$stage is the same elsewhere" cmp "first.$stage" elsewhere/out
    check "--emit=$stage names no directory" sh -c "! grep -q -F '$work' first.$stage"
done
check "the emitted C names its spec and line" says 'm\.arch:1' first.c
finish

#!/bin/sh
# compilers.sh ARCHC - gcc in place of clang, an older CPU, and both against the default program.
. "$(dirname "$0")/lib.sh"
kv_heads=1 heads=5 head_dim=64 threads=2
model m
corpus text
head -c 2000 text >held
expect 0 compile m -o p || finish
expect 0 ./p train --data text --steps 4 --out run --quiet
expect 0 ./p eval --weights run --data held --json
loss=$(number out "o['loss']")

if command -v gcc >/dev/null; then
    expect 0 compile m --cc gcc -o by_gcc
    expect 0 ./by_gcc verify
    expect 0 ./by_gcc eval --weights run --data held --json
    check "gcc's program computes the same" near "$loss" "$(number out "o['loss']")" 1e-5
fi
case $(uname -m) in
x86_64) marches="x86-64 x86-64-v3" ;;
*) marches= ;;
esac
if grep -q -w amx_bf16 /proc/cpuinfo; then
    marches="$marches x86-64-v4" # vectors alone, where the default has tiles too
fi
for march in $marches; do
    [ $march = x86-64-v3 ] && ! grep -q -w avx2 /proc/cpuinfo && continue
    expect 0 compile m --march $march -o old
    expect 0 ./old verify
    expect 0 ./old eval --weights run --data held --json
    check "$march computes the same" near "$loss" "$(number out "o['loss']")" 1e-5
done
finish

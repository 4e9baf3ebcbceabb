#!/bin/sh
# bench_cuda.sh ARCHC: `archc bench --target` where there may be no GPU: one line says so, and what
# is known without one is there, for both programs; nothing that would be measured is made up.
set -e
archc=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
fail() { echo "bench_cuda.sh: $*"; exit 1; }
cat >tiny.arch <<'END'
train {
    batch    = 1
    sequence = 16
}
model tiny {
    family   = llama
    vocab    = 256
    tied     = yes
    context  = 64
    layers   = 1
    head_dim = 16
    d_model  = 48
    heads    = 6
    kv_heads = 2
    d_ff     = 128
}
END
cc=
! command -v clang-19 >/dev/null || cc='--cc clang-19' # in half the time
"$archc" bench tiny.arch --target sm_80 --threads 1 $cc --json --rounds 1 >out 2>err || fail "failed: $(cat err)"
if ! grep -q 'nothing is measured: ' err; then
    echo "a GPU is here: tests/gpu.sh has this"
    exit 0
fi
[ "$(wc -l <err)" -eq 1 ] || fail "more than one line: $(cat err)"
"$archc" bench tiny.arch --target sm_80 --repeat 0 2>err && fail "--repeat 0" || [ $? = 2 ]
"$archc" bench tiny.arch --target sm_80 --programs one 2>err && fail "--programs one" || [ $? = 2 ]
command -v python3 >/dev/null || { echo "skipped: python3 is not installed"; exit 77; }
assembler=no
{ command -v ptxas || [ -x /usr/local/cuda/bin/ptxas ]; } >/dev/null && assembler=yes
python3 - $assembler <<'PYTHON' || fail "not what is known"
import json, sys
out = json.load(open("out"))
assert out["device"] is None and out["verified"] is None and out["rounds"] == 0, out
assert out["predicted_for"] == "a100_40gb" and out["copy_bytes_per_second"] is None
measured = ["specialised_seconds", "generic_seconds", "factor", "library_seconds", "library",
            "of_copy_bandwidth", "of_fastest_product", "tokens_per_second"]
assert len(out["kernels"]) > 40 and len(out["phases"]) == 4
for row in out["kernels"] + out["phases"]:
    assert all(row[key] is None for key in measured), row
    assert row["predicted_seconds"] >= row["floor_seconds"] > 0, row
for k in out["kernels"]:
    for which in ("specialised", "generic"):
        assert k[which]["shared_bytes"] >= 0, k
        if sys.argv[1] == "yes":
            assert 8 < k[which]["registers"] <= 255 and k[which]["spill_bytes"] >= 0, k
# Constants cost registers less often than they save them.
if sys.argv[1] == "yes":
    fewer = [k for k in out["kernels"]
             if k["specialised"]["registers"] < k["generic"]["registers"]]
    assert len(fewer) > len(out["kernels"]) / 3, len(fewer)
PYTHON
echo ok

#!/bin/sh
# report.sh LAW_TOOL - what resolve, explain and frontier print, on specs in the language itself.
# JSON is read back by python3 and compared with what the spec and the manual say.
tool=$1
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
failed=0
command -v python3 > /dev/null || { echo "skipped: python3 is not installed"; exit 77; }

cat > "$dir/base.arch" << 'SPEC'
train {
    tokens = 100B
    law    = bian2025_297m
}
serve {
    device   = h200
    batch    = 64
    prompt   = 4096
    generate = 1024
    weights  = bf16
    kv       = bf16
}
model llama_3_2_1b {
    family   = llama
    vocab    = 128256
    tied     = yes
    layers   = 16
    head_dim = 64
    d_model  = 2048
    heads    = 32
    kv_heads = 8
    d_ff     = 8192
}
SPEC

search() { # name, goals: the paper's search over shapes of 973M
    cat "$dir/base.arch"
    cat << SPEC
model $1 {
    family   = llama
    vocab    = 128256
    tied     = yes
    layers   = 16
    head_dim = 64
    params   = 973M +- 1%
    d_model  = free 1024..4096 step 128
    r        = free 0.5..5
    gqa      = free 1..9
$2
}
SPEC
}

expect() { # what, expected status, actual status
    [ "$2" -eq "$3" ] && return
    echo "$1: exit status $3, should be $2"
    failed=1
}

contains() { # what, file, text
    grep -qF -- "$3" "$2" && return
    echo "$1: does not say \`$3\`:"
    cat "$2"
    failed=1
}

search surefire_1b '    require  loss <= llama_3_2_1b.loss
    maximize throughput' > "$dir/good.arch"
search wish '    require  loss <= 2.39
    require  throughput >= 22K tok/s
    maximize throughput' > "$dir/wish.arch"
sed 's/law    = bian2025_297m//; s/device   = h200//' "$dir/base.arch" > "$dir/plain.arch"

for name in good wish plain; do
    "$tool" json "$dir/$name.arch" > "$dir/$name.json" 2> "$dir/$name.err"
    echo $? > "$dir/$name.status"
done
expect good 0 "$(cat "$dir/good.status")"
expect wish 3 "$(cat "$dir/wish.status")"
expect plain 0 "$(cat "$dir/plain.status")"
python3 - "$dir" << 'PYTHON' || failed=1
import json, sys

def no_constant(name):
    raise ValueError(name + " is not JSON")

def read(name):
    with open(sys.argv[1] + "/" + name + ".json") as f:
        return json.load(f, parse_constant=no_constant)

good, wish, plain = read("good"), read("wish"), read("plain")
assert list(good) == ["model", "architecture", "metrics", "requirements", "search",
                      "warnings"], list(good)
a = good["architecture"]
assert list(a) == ["layers", "d_model", "heads", "kv_heads", "head_dim", "d_ff", "vocab", "tied",
                   "gqa", "r", "params", "total_params"], list(a)
assert list(good["metrics"]) == ["loss", "throughput", "latency", "ttft", "memory", "kv_bytes",
                                 "train_time", "train_memory"], list(good["metrics"])
d, h, k, e, f, l = (a[x] for x in ("d_model", "heads", "kv_heads", "head_dim", "d_ff", "layers"))
assert a["params"] == l * (2 * d * h * e + 2 * d * k * e + 3 * d * f)
assert abs(a["params"] / 973e6 - 1) <= 0.01 and h == k * a["gqa"] and d % 128 == 0 and f % 128 == 0
assert abs(a["r"] - 3 * f / (2 * h * e * (1 + 1 / a["gqa"]))) < 1e-9 and 0.5 <= a["r"] <= 5
assert good["metrics"]["kv_bytes"] == 4 * l * k * e
q = good["requirements"][0]
assert q["text"] == "loss <= llama_3_2_1b.loss" and q["op"] == "<=" and q["satisfied"] is True, q
assert abs(q["rhs"] - q["lhs"] - q["margin"]) < 1e-9 and q["lhs"] == good["metrics"]["loss"]
s = good["search"]
assert s["objective"] == "maximize throughput" and 0 < s["feasible"] < s["candidates"], s
assert any("8e+07..2.97e+08" in w for w in good["warnings"]), good["warnings"]
assert wish["architecture"] is None and wish["metrics"] is None
assert wish["search"]["feasible"] == 0
assert [r["satisfied"] for r in wish["requirements"]] == [False, False]
assert wish["requirements"][0]["margin"] < 0
m = plain["metrics"]
assert m["loss"] is None and m["throughput"] is None and m["memory"] is None
assert m["kv_bytes"] == 32768
assert any("loss is not known" in w for w in plain["warnings"])
assert any("throughput, latency" in w for w in plain["warnings"])
PYTHON

contains infeasible "$dir/wish.err" "binding: \`loss <= 2.39\` is the one missed by least"
contains infeasible "$dir/wish.err" "without \`throughput >= "

"$tool" explain "$dir/good.arch" > "$dir/explain" 2> "$dir/explain.err"
expect explain 0 $?
for part in "16 layers, d_model" "loss over d_model" "loss over r" "minimum of the law" \
    "fitted" "relaxed by 1 %" "best choice at each gqa" "what loss buys" "runners-up" \
    "llama_3_2_1b"; do
    contains explain "$dir/explain" "$part"
done
"$tool" explain "$dir/wish.arch" > "$dir/explain" 2> "$dir/explain.err"
expect "explain, infeasible" 3 $?
contains "explain, infeasible" "$dir/explain" "none of"

# The front in the CSV: loss and throughput both ascend, and the chosen shape is on it.
"$tool" frontier "$dir/good.arch" "" "$dir/front.csv" > "$dir/front" 2> "$dir/front.err"
expect frontier 0 $?
python3 - "$dir" << 'PYTHON' || failed=1
import csv, sys
rows = list(csv.DictReader(open(sys.argv[1] + "/front.csv")))
assert len(rows) > 10
for a, b in zip(rows, rows[1:]):
    assert float(a["loss"]) < float(b["loss"]) and float(a["throughput"]) < float(b["throughput"])
assert sum(int(r["chosen"]) for r in rows) == 1
PYTHON
if command -v gnuplot > /dev/null; then
    "$tool" frontier "$dir/good.arch" "" "$dir/front.csv" "$dir/front.svg" > /dev/null \
        2> "$dir/front.err"
    expect "frontier, plot" 0 $?
    python3 -c "import sys, xml.dom.minidom as x
assert x.parse(sys.argv[1]).documentElement.tagName == 'svg'" "$dir/front.svg" || failed=1
fi
PATH=/nonexistent "$tool" frontier "$dir/good.arch" "" "$dir/again.csv" "$dir/none.svg" \
    > /dev/null 2> "$dir/front.err"
expect "frontier without gnuplot" 4 $?
contains "frontier without gnuplot" "$dir/front.err" "install it (gnuplot-nox)"
cmp -s "$dir/front.csv" "$dir/again.csv" || { echo "frontier: two runs differ"; failed=1; }

[ $failed -eq 0 ] && echo "law report: passed"
exit $failed

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
    require  throughput >= 18500 tok/s
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
assert list(good) == ["model", "architecture", "metrics", "phases", "requirements", "search",
                      "warnings"], list(good)
assert [(p["phase"], p["sequences"]) for p in good["phases"]] == [
    ("decode", 1), ("decode", 64), ("prefill", 64), ("train", 8)], good["phases"]
for p in good["phases"]:
    assert p["device"] == "h200" and 0 < p["floor_seconds"] < p["seconds"], p
    assert abs(p["tokens"] / p["seconds"] / p["tokens_per_second"] - 1) < 1e-9
    assert (p["mfu"] is not None) == (p["phase"] == "train")
assert abs(good["phases"][1]["seconds"] / good["metrics"]["latency"] - 1) < 1e-9
assert abs(good["phases"][2]["seconds"] / good["metrics"]["ttft"] - 1) < 1e-9
assert "phases" not in plain
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
    "llama_3_2_1b" "at least" "of the matrix peak"; do
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

# ---- a law with samples -------------------------------------------------------------------------
# Four refits that move the best r and width: what they say is recomputed below from the formula.
sed 's/law    = bian2025_297m/law    = refitted/' "$dir/good.arch" > "$dir/sure.arch"
cat >> "$dir/sure.arch" << 'SPEC'
law refitted : bian2025_297m {
    source = "</pre><script>alert(1)</script> \"quoted\" & more"
    samples {
        b1 = [0.0063, 0.0075, 0.0052, 0.0063]
        b2 = [0.0065, 0.0060, 0.0070, 0.0052]
        a0 = [2.697, 2.697, 2.717, 2.677]
        a2 = [0.0078, 0.0064, 0.0085, 0.0078]
    }
}
SPEC
sed 's/loss <= llama_3_2_1b.loss/& with 90%/' "$dir/sure.arch" > "$dir/with.arch"
sed 's/loss <= llama_3_2_1b.loss/& with 90%/' "$dir/good.arch" > "$dir/without.arch"
for name in sure with without; do
    "$tool" json "$dir/$name.arch" > "$dir/$name.json" 2> "$dir/$name.err"
    expect "$name" 0 $?
    "$tool" resolve "$dir/$name.arch" > "$dir/$name.text" 2>> "$dir/$name.err"
done
python3 - "$dir" << 'PYTHON' || failed=1
import json, math, sys
def read(name):
    return json.load(open(sys.argv[1] + "/" + name + ".json"))
a1, b0 = 0.0974, 0.3870
samples = [(0.0063, 0.0065, 2.697, 0.0078), (0.0075, 0.0060, 2.697, 0.0064),
           (0.0052, 0.0070, 2.717, 0.0085), (0.0063, 0.0052, 2.677, 0.0078)]
def loss(a, s):
    b1, b2, a0, a2 = s
    n, r = a["params"], a["r"]
    x = a["d_model"] / math.sqrt(n)
    l_opt = 1.81686 + 482.006 / n**0.34781 + 2085.434 / 100e9**0.36585
    return (a0 + a1 * math.log(x) + a2 / x) * (b0 + b1 * math.log(r) + b2 / r) * l_opt
base = {"params": 973078528, "r": 4.8, "d_model": 2048}
def check(o):
    a, u = o["architecture"], o["uncertainty"]
    q = o["requirements"][0]
    here = sorted(loss(a, s) for s in samples)
    margin = sorted(loss(base, s) - loss(a, s) for s in samples)
    assert u["samples"] == 4 and u["level"] == [0.05, 0.95]
    assert abs(u["loss"][0] - here[0]) < 1e-9 and abs(u["loss"][1] - here[3]) < 1e-9
    assert q["share"] == sum(m >= 0 for m in margin) / 4, q
    assert abs(q["margin_interval"][0] - margin[0]) < 1e-9
    assert abs(q["margin_interval"][1] - margin[3]) < 1e-9
    for v in u["runners"] + u["choices"]:
        d = [loss(v["architecture"], s) - loss(a, s) for s in samples]
        assert abs(v["loss_difference"][0] - min(d)) < 1e-9
        assert abs(v["loss_difference"][1] - max(d)) < 1e-9
    assert abs(sum(v["chosen_by"] for v in u["choices"]) + u["infeasible"] - 1) < 1e-9
    assert u["architecture"]["r"][0] < u["architecture"]["r"][1]
    return q, margin
q, margin = check(read("sure"))
assert q["share"] < 0.9 and "confidence" not in q
w, margin = check(read("with"))
assert w["confidence"] == 0.9 and w["share"] >= 0.9 and w["satisfied"] is True
assert abs(w["margin"] - margin[0]) < 1e-9 and margin[0] >= 0 # nine in ten of four are all four
assert read("with")["metrics"]["throughput"] < read("sure")["metrics"]["throughput"]
plain = read("without")
assert "uncertainty" not in plain and "share" not in plain["requirements"][0]
PYTHON
contains samples "$dir/sure.text" "what 4 samples of the law leave open, 5..95 %"
contains samples "$dir/sure.text" "holds under 75 % of the samples, margin -0.003703..0.003784"
contains samples "$dir/sure.text" "\`loss <= llama_3_2_1b.loss\` holds under 75 % of the law's 4 \
samples; \`require loss <= llama_3_2_1b.loss with 90%\` asks for more"
contains samples "$dir/sure.text" "warning: the choice is not distinguishable from a runner-up: \
under 25 % of the law's 4 samples 16 layers, d_model 3328, 27/3 heads of 64 (gqa 9), d_ff 4864 \
is the better one (its loss less the choice's: -0.0056..-0.0042)"
contains "with" "$dir/with.text" "met  loss <= llama_3_2_1b.loss with 90%   ("
contains without "$dir/without.text" "warning: \`loss <= llama_3_2_1b.loss with 90%\`: law \
\`bian2025_297m\` carries no samples, so the point estimate is compared; \`archc fit RUNS.csv \
--bootstrap 1000\` writes a law that does"
grep -q "samples, so it is compared" "$dir/without.text" && failed=1

# ---- pictures, tables, pages --------------------------------------------------------------------
"$tool" explain "$dir/sure.arch" "" "$dir/explain.csv" > "$dir/explain" 2> "$dir/explain.err"
expect "explain with samples" 0 $?
for part in "  samples " "baseline" "a llama_3_2_1b: 2048" "binds: 1 % of the bound is worth" \
    "tightened by 0.1 %" "loss less the choice's"; do
    contains "explain with samples" "$dir/explain" "$part"
done
python3 - "$dir" << 'PYTHON' || failed=1
import csv, sys
rows = list(csv.DictReader(open(sys.argv[1] + "/explain.csv")))
curve = [r for r in rows if r["section"] == "curve" and r["item"] == "r"]
assert len(curve) == 121
for r in curve:
    assert float(r["loss_low"]) <= float(r["loss"]) + 0.02
    assert float(r["loss_low"]) <= float(r["loss_high"])
least = min(curve, key=lambda r: float(r["loss"]))
assert abs(float(least["at"]) - 0.0065 / 0.0063) < 0.05
best = [r for r in rows if r["section"] == "best at" and r["item"] == "gqa"]
assert [float(r["at"]) for r in best] == list(range(1, 10))
chosen = next(r for r in rows if r["section"] == "chosen")
assert max(float(r["throughput"]) for r in best) == float(chosen["throughput"])
moved = {float(r["at"]): float(r["throughput"]) for r in rows if r["section"] == "bound moved"}
steps = sorted(moved)
assert len(steps) >= 3 and all(moved[a] <= moved[b] for a, b in zip(steps, steps[1:]))
assert any(r["section"] == "model" and r["item"] == "llama_3_2_1b" for r in rows)
PYTHON

cp "$dir/sure.arch" "$dir/<b>&'.arch"
printf '# \001 \377 <img src=x onerror=alert(1)> </pre><script src="http://x/"></script>\n' \
    > "$dir/note"
cat "$dir/note" "$dir/sure.arch" | tr -d '\001\377' > "$dir/<b>&'.arch"
if command -v gnuplot > /dev/null; then
    "$tool" explain "$dir/sure.arch" "" "$dir/explain.csv" "$dir/explain.svg" > /dev/null
    expect "explain, plot" 0 $?
    python3 -c "import sys, xml.dom.minidom as x
assert x.parse(sys.argv[1]).documentElement.tagName == 'svg'" "$dir/explain.svg" || failed=1
    (cd "$dir" && "$tool" report "<b>&'.arch" "" page.html) 2> "$dir/page.err"
    expect report 0 $?
fi
PATH=/nonexistent "$tool" report "$dir/sure.arch" "" "$dir/bare.html" 2> "$dir/page.err"
expect "report without gnuplot" 4 $?
contains "report without gnuplot" "$dir/bare.html" "gnuplot could not be run: install it"
"$tool" report "$dir/wish.arch" "" "$dir/wish.html" 2> "$dir/page.err"
expect "report, infeasible" 3 $?
contains "report, infeasible" "$dir/wish.html" "none of"
cat > "$dir/page.py" << 'PYTHON'
# A page is well formed, fetches nothing, runs nothing, and shows what it should.
import html.parser, re, sys
VOID = {"meta", "br", "hr", "img", "link"}
class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.texts, self.svg = [], [], 0
    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "img", "iframe", "link", "object", "b2"), tag
        for key, value in attrs:
            assert not key.startswith("on"), (tag, key)
            if key in ("src", "href", "xlink:href"):
                assert value.startswith("#"), (tag, key, value)
        self.svg += tag == "svg"
        if tag not in VOID:
            self.open.append(tag)
    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()
    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag
    def handle_data(self, data):
        self.texts.append(data)
text = open(sys.argv[1], encoding="utf-8").read()
page = Page()
page.feed(text)
page.close()
assert page.open == [], page.open
shown = "".join(page.texts)
assert page.svg == int(sys.argv[2]), page.svg
assert not re.search(r"@import|url\(", text.split("</style>")[0])
for part in sys.argv[3:]:
    assert part in shown, part
PYTHON
python3 "$dir/page.py" "$dir/bare.html" 0 "The shape" "Requirements" "Runners-up" \
    "</pre><script>alert(1)</script>" "Its 4 samples" "holds under 75 %" || failed=1
python3 "$dir/page.py" "$dir/wish.html" 0 "no candidate satisfies" "binding:" || failed=1
if [ -f "$dir/page.html" ]; then
    python3 "$dir/page.py" "$dir/page.html" 5 "<b>&'.arch" "<img src=x onerror" \
        "What loss buys" "Around each knob" "5..95 %" || failed=1
    (cd "$dir" && "$tool" report "<b>&'.arch" "" again.html) 2> "$dir/page.err"
    cmp -s "$dir/page.html" "$dir/again.html" || { echo "report: two runs differ"; failed=1; }
fi

[ $failed -eq 0 ] && echo "law report: passed"
exit $failed

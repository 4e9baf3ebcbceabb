#!/bin/sh
# measure.sh ARCHC - `--measure N` and `archc report` as commands: candidates are compiled and timed,
# the measured one is what is reported and built, and what cannot be measured is said to be so.
. "$(dirname "$0")/lib.sh"

# Two widths and two groups of a model so small that a build is most of the time.
spec() # FILE GOAL DEVICE
{
    cat >"$1" <<A
train { tokens = 1M
    law = bian2025_297m }
serve { device = $3
    batch = ${4:-1}
    prompt = 32
    generate = 32
    weights = fp32 }
model tiny {
    family = llama
    vocab = 256
    tied = yes
    context = 128
    layers = 2
    head_dim = 32
    params = 150K +- 20%
    d_model = free 64..96 step 32
    d_ff = free 128..256 step 128
    gqa = free 1..2
    r = free 0.5..8
    $2
}
A
}
spec speed.arch "maximize throughput" host
spec loss.arch "minimize loss" host
spec away.arch "maximize throughput" h200
spec batch.arch "maximize throughput" host 4
spec wish.arch "maximize throughput
    require throughput >= 1e9 tok/s" host

TMPDIR=$work/tmp
export TMPDIR
mkdir tmp

expect 2 "$archc" resolve speed.arch --measure 1
check "the number is explained" says "wants a number from 2 to 16, not 1" err
expect 2 "$archc" resolve speed.arch --measure 2x
expect 2 "$archc" resolve loss.arch --measure 2
check "an objective that is no speed" says "write .maximize throughput., or minimize latency" err
expect 2 "$archc" resolve away.arch --measure 2
check "another machine" says "write .device = host. in serve" err
expect 2 "$archc" resolve speed.arch --measure 2 --rounds 0
expect 3 "$archc" resolve wish.arch --measure 2
expect 4 "$archc" resolve speed.arch --measure 2 --cc false
check "compiles that fail" says "none of 2 candidates could be built and timed" err
check "nothing is left behind" [ -z "$(ls tmp)" ]

expect 0 "$archc" resolve speed.arch --json --measure 3 --rounds 2 $quick
cp out measured.json
check "measured stands beside predicted" json measured.json "
    o['measured']['metric'] == 'throughput' and o['measured']['rounds'] == 2
    and 2 <= len(o['measured']['candidates']) <= 3
    and all(c['built'] and c['measured'] > 0 and c['predicted'] > 0 and len(c['rounds']) == 2
            and abs(sum(c['rounds']) / 2 - c['measured']) < 1e-6 * c['measured']
            and c['spread'] >= 0 for c in o['measured']['candidates'])
    and sum(c['chosen'] for c in o['measured']['candidates']) == 1"
check "the measured choice is the one reported" json measured.json "
    next(c for c in o['measured']['candidates'] if c['chosen'])['architecture'] ==
    {k: o['architecture'][k] for k in ('layers', 'd_model', 'heads', 'kv_heads', 'head_dim', 'd_ff')}"
check "both groups were tried" json measured.json "
    len({c['architecture']['heads'] // c['architecture']['kv_heads']
         for c in o['measured']['candidates']}) == 2"
check "what is far behind the best is not chosen" json measured.json "
    next(c for c in o['measured']['candidates'] if c['chosen'])['measured'] *
    (1 + max(c['spread'] for c in o['measured']['candidates'])) >=
    max(c['measured'] for c in o['measured']['candidates'])"

expect 0 "$archc" batch.arch --measure 2 --rounds 1 $quick -o tiny
check "nothing is left behind" [ -z "$(ls tmp)" ]
check "a table" says "predicted +measured +spread +error" out
check "a batch is not what is timed" says "one sequence at a time, not with a batch of 4" err
check "the chosen one is built" [ -x tiny ]
expect 0 ./tiny info

if command -v gnuplot >/dev/null; then drawn=0; else drawn=4; fi
expect $drawn "$archc" report speed.arch -o page.html
check "a page" says "<h2>The shape</h2>" page.html
check "nothing but the page" [ ! -e page.html.part ]
expect 4 "$archc" report speed.arch -o none/page.html
expect 3 "$archc" report wish.arch -o wish.html
check "a page of a failure" says "no candidate satisfies the requirements" wish.html
expect 1 "$archc" report missing.arch -o missing.html
check "no page of nothing" [ ! -e missing.html ]
finish

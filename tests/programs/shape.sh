#!/bin/sh
# shape.sh ARCHC NAME - one small model of an uncommon shape through its whole life: compile, verify,
# train, score, generate, export, and the same with run-time shapes (--generic).
. "$(dirname "$0")/lib.sh"
name=$2

# Groups 1..16, head sizes 40..256, dq != d_model, one layer, odd vocabularies and lengths.
case $name in
g1_e40) kv_heads=4 ;;
g2_e256) heads=2 kv_heads=1 head_dim=256 d_ff=192 vocab=999 bias=yes ;;
g3_e64) d_model=192 heads=3 kv_heads=1 head_dim=64 d_ff=384 vocab=256 weights=bf16 threads=2 ;;
g3_k3) d_model=128 heads=9 kv_heads=3 head_dim=64 d_ff=200 weights=bf16 batch=3 sequence=33 ;;
g4_e80) d_model=128 layers=1 heads=4 kv_heads=1 head_dim=80 d_ff=256 vocab=500 tied=no
    weights=int8 threads=2 ;;
g5_e64) d_model=320 heads=5 kv_heads=1 head_dim=64 d_ff=864 vocab=300 weights=int8 threads=3 ;;
g7_e128) d_model=128 heads=7 kv_heads=1 head_dim=128 d_ff=256 vocab=301 tied=no bias=yes
    weights=bf16 threads=2 batch=1 ;;
g9_e64) d_model=128 heads=18 kv_heads=2 head_dim=64 vocab=259 qk_norm=yes threads=2 ;;
g16_e40) layers=3 heads=16 kv_heads=1 vocab=256 tied=no qk_norm=yes weights=int8 threads=3 batch=4
    sequence=31 ;;
*)
    echo "no case '$name'" >&2
    exit 2
    ;;
esac
model m
corpus text
head -c 3000 text >held

expect 0 compile m -o p || finish
expect 0 ./p info --json
check "info is the shape that was asked for" json out "
    all(o['architecture'][k] == v for k, v in dict(d_model=$d_model, layers=$layers, heads=$heads,
        kv_heads=$kv_heads, head_dim=$head_dim, d_ff=$d_ff, vocab=$vocab).items())"
expect 0 ./p verify
expect 0 ./p train --data text --val held --steps 12 --eval-every 6 --out run --quiet --warmup 2 \
    --lr 3e-3
check "the loss falls, and is finite" python3 - <<'P'
import json, math, sys
losses = [r["loss"] for r in map(json.loads, open("run/metrics.jsonl")) if "loss" in r]
sys.exit(not (len(losses) >= 2 and all(map(math.isfinite, losses)) and losses[-1] < losses[0]))
P

expect 0 ./p eval --weights run --data held --json && cp out eval.json
expect 0 ./p score --weights run --file held && cp out score.jsonl
check "score gives a token a line, the first one null" python3 - <<'P'
import json, sys
rows = [json.loads(l) for l in open("score.jsonl")]
text = open("held", "rb").read()
sys.exit(not (bytes(r["token"] for r in rows) == text and rows[0]["logprob"] is None
              and all(r["logprob"] <= 0 for r in rows[1:])))
P

expect 0 ./p generate --weights run --prompt "The " --tokens 40 --seed 5 && cp out one
expect 0 ./p generate --weights run --prompt "The " --tokens 40 --seed 5 && cp out two
check "the same seed gives the same text" cmp one two
expect 0 ./p generate --weights run --prompt "The " --tokens 40 --seed 6 && cp out two
check "another seed gives another text" sh -c '! cmp -s one two'
expect 0 ./p generate --weights run --prompt "The " --tokens 20 --greedy && cp out greedy

mkdir exported
expect 0 ./p export --weights run --out exported
expect 0 ./p eval --weights exported --data held --json
check "an exported model evaluates the same" json out "o['loss'] == $(number eval.json "o['loss']")"

expect 0 compile m --generic $quick -o q || finish # by another compiler, where there is one
expect 0 ./q eval --weights run --data held --json
check "run-time shapes give the same loss" near "$(number eval.json "o['loss']")" \
    "$(number out "o['loss']")" 1e-5
expect 0 ./q generate --weights run --prompt "The " --tokens 20 --greedy
check "run-time shapes generate the same text" cmp greedy out
expect 0 ./q verify
finish

# train.sh - training from every kind of data, evaluation, scores, export.
. "$(dirname "$0")/lib.sh"
toy=$bin/toy
make_text 1500 >t.txt

status 0 "$toy" train --data t.txt --steps 120 --out a --eval-every 50
grep -q '^step 120/120 ' out || fail "no line for the last step"
grep -q 'held out: .* bits per byte' out || fail "no held-out figure"
[ "$(wc -l <a/metrics.jsonl)" -eq 120 ] || fail "not one line of metrics a step"
[ "$(grep -c val_bits_per_byte a/metrics.jsonl)" -eq 3 ] || fail "validations: not at 50, 100 and 120"
awk -F'"loss":' 'NR == 1 { split($2, x, ","); first = x[1] }
    END { split($2, x, ","); exit !(x[1] < first / 2) }' a/metrics.jsonl || fail "nothing was learnt"
[ "$(readlink a/latest)" = step-120 ] || fail "latest is not step-120"
[ "$(ls -A a | tr '\n' ' ')" = "latest metrics.jsonl step-120 " ] || fail "left over: $(ls -A a)"

# The same text in other clothes gives the same run.
gzip -k t.txt
zstd -qk t.txt 2>/dev/null || { command -v zstd >/dev/null || cp t.txt t.txt.zst; }
awk '{ printf "%s%s\\n", NR == 1 ? "{\"text\": \"" : "", $0 } END { print "\"}" }' t.txt >t.jsonl
status 0 "$toy" export --data t.txt --shard t.tok
for data in t.txt.gz t.txt.zst t.jsonl t.tok; do
    status 0 "$toy" train --quiet --data $data --steps 120 --out b-$data --eval-every 50
    [ ! -s out ] && [ ! -s err ] || fail "--quiet is not quiet"
    cmp -s a/latest/model.safetensors b-$data/latest/model.safetensors || fail "$data differs"
    timeless b-$data/metrics.jsonl >m1
    timeless a/metrics.jsonl | cmp -s - m1 || fail "$data: metrics differ"
done

# One thread, the same data: another order of sums at most.
status 0 "$bin/toy_one_thread" train --quiet --data t.txt --steps 1 --out one
[ "$(head -c 30 one/metrics.jsonl)" = "$(head -c 30 a/metrics.jsonl)" ] || fail "one thread differs"

# --tokens rounds up to steps; --seconds ends in time; --accumulate counts.
status 0 "$toy" train --quiet --data t.txt --tokens 100 --out c
[ "$(wc -l <c/metrics.jsonl)" -eq 2 ] || fail "100 tokens are not 2 steps of 64"
status 0 "$toy" train --quiet --data t.txt --steps 2 --accumulate 3 --out d
tail -n 1 d/metrics.jsonl | grep -q '"tokens":384,' || fail "accumulation is not counted"
status 0 timeout 20 "$toy" train --quiet --data t.txt --seconds 0.5 --out e
check "--seconds leaves a checkpoint" test -f e/latest/model.safetensors
status 0 "$toy" train --quiet --data t.txt --val t.jsonl --steps 3 --out g
check "--val is evaluated" grep -q val_loss g/metrics.jsonl
status 0 "$toy" train --data t.txt --val-fraction 0 --steps 3 --out h
check "nothing held out is said" grep -q '0 held out' out
status 0 "$toy" train --quiet --data t.txt --weights a --steps 1 --lr 1e-9 --out i
awk -F'"loss":' '{ split($2, x, ","); exit !(x[1] < 3.5) }' i/metrics.jsonl ||
    fail "--weights does not start from them"

# eval and score say the same where their windows are the same: sequence 16 of 64.
head -c 16 t.txt >short
status 0 "$toy" eval --weights a --data short --json
cp out trained
status 0 "$toy" eval --weights a --data short --as-served --json
for key in loss bits_per_byte tokens bytes; do
    x=$(sed "s/.*\"$key\":\([^,]*\),.*/\1/" trained) y=$(sed "s/.*\"$key\":\([^,]*\),.*/\1/" out)
    awk "BEGIN { d = $x - $y; exit !(d * d < 1e-10) }" || fail "eval $key: $x, as served $y"
done
status 0 "$toy" score --weights a --file short
[ "$(wc -l <out)" -eq 16 ] || fail "score: not one line a token"
head -n 1 out | grep -q '^{"token": 65, "logprob": null}$' || fail "score: the first line"
"$toy" score --weights a --text "$(head -c 10 t.txt)" >x
head -n 10 out | cmp -s - x || fail "score: what comes later changes what was before"

# A text beyond the context: each token once, close to what shorter windows say.
status 0 "$toy" score --weights a --file t.txt
[ "$(wc -l <out)" -eq "$(wc -c <t.txt)" ] || fail "score of a long text: not one line a token"
[ "$(grep -c null out)" -eq 1 ] || fail "score of a long text: more than one null"
"$toy" score --weights a <t.txt | cmp -s - out || fail "score from standard input differs"
"$toy" score --weights a --text "$(head -n 3 t.txt)" | head -n 40 >x
head -n 40 out | cmp -s - x || fail "score --text differs"

# Export and back.
status 0 "$toy" export --weights a --out hf
cmp -s hf/model.safetensors a/latest/model.safetensors || fail "fp32 export differs"
cmp -s hf/config.json a/latest/config.json || fail "config differs"
status 0 "$toy" export --weights a --out half --dtype bf16
check "bf16 is said in the config" grep -q bfloat16 half/config.json
status 0 "$toy" export --weights half --out again --dtype bf16
cmp -s half/model.safetensors again/model.safetensors || fail "bf16 export is not stable"
status 0 "$bin/toy_tied" train --quiet --data t.txt --steps 5 --out tied
status 0 "$bin/toy_tied" eval --weights tied --data short
status 0 "$bin/toy_ids" info --json
finish

#!/bin/sh
# program.sh PROGRAM [STEPS]: a program (model_a.arch) on a GPU, emulated or not, from its command
# line: a training run of so many steps (4) that was killed goes on bit for bit; texts are those of
# the host.
set -u
program=$1 steps=${2:-4}
work=$(mktemp -d "${TMPDIR:-/tmp}/cuda-program-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
cd "$work" || exit 1
bad=0

complain() {
    echo "$*" >&2
    bad=$((bad + 1))
}

for i in 1 2 3 4 5 6 7 8 9 10; do
    echo "In the beginning God created the heaven and the earth. And the earth was without form."
done >text

# ---- resuming ----

options="--quiet --device cuda --data text --steps $steps --save-every $((steps / 4)) --keep 9
    --eval-every $((steps - 1)) --eval-batches 1
    --accumulate 2 --seed 3"
# shellcheck disable=SC2086
"$program" train $options --out straight || complain "training failed"
# shellcheck disable=SC2086
"$program" train $options --out killed &
pid=$!
i=0
while [ ! -e killed/step-$((steps / 4)) ] && [ $i -lt 1200 ]; do
    sleep 0.05
    i=$((i + 1))
done
kill -KILL $pid
wait $pid 2>err
[ -e killed/step-$steps ] && complain "it was over before it was killed"
at=$(readlink killed/latest)
"$program" train --quiet --device cuda --data text --out killed --resume 2>notes ||
    complain "no resuming"
for file in model.safetensors optimizer.safetensors config.json; do
    cmp -s straight/latest/$file killed/latest/$file || complain "resumed from $at: $file differs"
done
for run in straight killed; do
    sed 's/,"seconds":[0-9.e+-]*//' $run/metrics.jsonl >$run.metrics
done
[ "$(wc -l <straight.metrics)" -eq "$steps" ] || complain "not a line of metrics a step"
cmp -s straight.metrics killed.metrics || complain "resumed from $at: metrics differ"

[ -s notes ] && complain "resuming said: $(cat notes)"
"$program" train --quiet --device host --data text --out killed --resume --steps $((steps + 1)) 2>notes ||
    complain "no going on on the host"
grep -q 'trained on: .*, products by .*; now: host: .* not bit for bit' notes ||
    complain "another device was not noted"

# ---- texts ----

# Learned by heart, so that rounding to bf16 changes no choice within a training sequence's length.
"$program" train --quiet --device host --data text --steps 500 --lr 0.003 --out learned ||
    complain "training on the host failed"

texts() {
    "$program" generate --weights learned --prompt "In the" --tokens 17 "$@" 2>err ||
        complain "generate $*: $(cat err)"
}
for how in "--greedy" "--seed 5 --temperature 0.9" "--seed 6 --top-k 3 --temperature 2" \
    "--seed 7 --top-p 0.8 --min-p 0.1 --temperature 1.5" "--greedy --stop God"; do
    # shellcheck disable=SC2086
    texts $how --device cuda >device && texts $how --device host >host
    cmp -s device host || complain "generate $how: another text than the host's"
done
texts --greedy --device cuda --stop God >device
grep -q '^ beginning $' device || complain "not what it has learned: $(cat device)"
# More sequences than slots: all of them, in their order, each what the host gives. Warm enough for
# them to differ, not so warm that rare tokens come, between which rounding to bf16 may choose.
for device in cuda host; do
    texts --count 5 --seed 11 --temperature 0.8 --json --device $device |
        sed -e 's/"first_token_seconds".*//' >$device
done
[ "$(wc -l <cuda)" -eq 5 ] || complain "not five lines"
cmp -s cuda host || complain "--count 5: other texts than the host's"
# To the end of the context.
"$program" generate --weights learned --prompt "In the beginning" --tokens 500 --greedy \
    --device cuda >device 2>err
[ "$(($(wc -c <device) + 16))" -eq 97 ] || complain "the context was not filled"
grep -q 'context of 96 tokens is full' err || complain "that it is full was not said"
[ $bad -eq 0 ]

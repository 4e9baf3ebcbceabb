# resume.sh - a run that was killed or interrupted goes on bit for bit.
. "$(dirname "$0")/lib.sh"
toy=$bin/toy
make_text 1500 >t.txt
options="--quiet --data t.txt --steps 200 --save-every 25 --eval-every 30 --accumulate 2"

status 0 "$toy" train $options --out straight
timeless straight/metrics.jsonl >straight.metrics

same() {
    for file in model.safetensors optimizer.safetensors config.json; do
        cmp -s straight/latest/$file $1/latest/$file || fail "$2: $file differs"
    done
    timeless $1/metrics.jsonl | cmp -s - straight.metrics || fail "$2: metrics differ"
}

# wait_for FILE: until it exists, 20 s at most
wait_for() {
    i=0
    while [ ! -e "$1" ] && [ $i -lt 400 ]; do
        sleep 0.05
        i=$((i + 1))
    done
}

for signal in KILL INT TERM; do
    out=by-$signal
    "$toy" train $options --out $out 2>err &
    pid=$!
    wait_for $out/step-50
    kill -$signal $pid
    wait $pid
    got=$?
    case $signal in
    KILL) ;;
    *)
        [ $got -eq 130 ] || [ -e $out/step-200 ] || fail "SIG$signal: status $got, not 130"
        grep -q 'interrupted after step' err || [ -e $out/step-200 ] || fail "SIG$signal: not said"
        ;;
    esac
    check "SIG$signal: a checkpoint is there" test -f $out/latest/model.safetensors
    # The command line's numbers come from the checkpoint.
    status 0 "$toy" train --quiet --data t.txt --out $out --resume
    same $out "SIG$signal"
done

# --resume where there is nothing starts.
status 0 "$toy" train $options --out fresh --resume
same fresh "--resume from nothing"

# At its end already; further with more steps.
status 0 "$toy" train --data t.txt --out fresh --resume
check "the end is said" grep -q 'already at its end' out
status 0 "$toy" train --quiet --data t.txt --out fresh --resume --steps 210
[ "$(readlink fresh/latest)" = step-210 ] || fail "no further steps"
[ "$(wc -l <fresh/metrics.jsonl)" -eq 210 ] || fail "metrics of the further steps"

# Metrics cut in the middle of a line, or with lines that are no longer true.
cp -r straight cut
printf '{"step":201,"loss":1}\n{"step":20' >>cut/metrics.jsonl
status 0 "$toy" train --quiet --data t.txt --out cut --resume --steps 200
status 0 "$toy" train --quiet --data t.txt --out cut --resume --steps 202
[ "$(wc -l <cut/metrics.jsonl)" -eq 202 ] || fail "stale metrics stay"

# Killed between the two renames of a save: the newest whole checkpoint counts.
cp -r straight orphan
rm orphan/latest
refuses 1 "holds a training run" "$toy" train $options --out orphan
status 0 "$toy" train --quiet --data t.txt --out orphan --resume --steps 200
[ "$(readlink orphan/latest)" = step-200 ] || fail "the newest checkpoint was not adopted"

# What does not fit is refused.
refuses 1 "holds a training run" "$toy" train $options --out straight
head -n 1400 t.txt >other.txt
refuses 1 "other data" "$toy" train --quiet --data other.txt --out straight --resume
sed 's/heaven/heavem/' t.txt >other.txt
refuses 1 "other data" "$toy" train --quiet --data other.txt --out straight --resume
refuses 1 "other data" "$toy" train --quiet --data t.txt --val t.txt --out straight --resume
refuses 1 "another architecture" "$bin/toy_wide" train --quiet --data t.txt --out straight --resume
refuses 1 "sequence 16" "$bin/toy_long" train --quiet --data t.txt --out straight --resume
status 0 "$bin/toy_one_thread" train --quiet --data t.txt --out straight --resume --steps 201
check "other threads are noted" grep -q 'not bit for bit' err
cp -r fresh damaged
printf '{' >damaged/latest/train_state.json
refuses 1 "damaged" "$toy" train --quiet --data t.txt --out damaged --resume
printf '{"format":1,"step":3}' >damaged/latest/train_state.json
refuses 1 "train_state.json" "$toy" train --quiet --data t.txt --out damaged --resume
rm damaged/latest/train_state.json
refuses 1 "train_state.json" "$toy" train --quiet --data t.txt --out damaged --resume
finish

# crash.sh - whatever kills a run, the last whole checkpoint stays: SIGKILL at any instant, a full
# disk, a limit on file sizes.
. "$(dirname "$0")/lib.sh"
toy=$bin/toy
make_text 400 >t.txt
options="--quiet --data t.txt --steps 1000000 --save-every 1 --eval-every 0"

# latest, where there is one, is loadable and whole; resuming starts from it.
last=0
for delay in 0.02 0.05 0.03 0.11 0.07 0.02 0.13 0.06 0.04 0.09 0.15 0.03; do
    "$toy" train $options --out k --resume 2>err &
    pid=$!
    sleep $delay
    kill -KILL $pid 2>/dev/null
    wait $pid 2>/dev/null
    [ ! -s err ] || { fail "resuming complained"; cat err >&2; }
    [ -e k/latest ] || continue
    status 0 "$toy" eval --weights k --data t.txt --json
    step=$(readlink k/latest)
    step=${step#step-}
    [ "$step" -ge $last ] || fail "latest went back from $last to $step"
    last=$step
    check "the state is of the same step" grep -q "\"step\": $step," k/latest/train_state.json
done
[ "$last" -gt 0 ] || fail "no checkpoint in the whole loop"
status 0 "$toy" train --quiet --data t.txt --out k --resume --steps $((last + 2))
left=$(find k -maxdepth 1 \( -name '.partial' -o -name '.trash*' -o -name '.latest' \) | wc -l)
[ "$left" -eq 0 ] || fail "leftovers stay after a clean end"
[ "$(find k -maxdepth 1 -name 'step-*' | wc -l)" -le 2 ] || fail "more than two checkpoints stay"

# Two runs in one directory.
"$toy" train $options --out k2 2>/dev/null &
pid=$!
while [ ! -e k2/latest ]; do sleep 0.02; done
refuses 1 "another process trains" "$toy" train $options --out k2 --resume
kill -KILL $pid
wait $pid 2>/dev/null

# Files may not grow beyond 40 KiB: the checkpoint fails, what there was stays, the run says so.
status 0 "$toy" train --quiet --data t.txt --steps 10 --out lim
cp lim/latest/model.safetensors before
(ulimit -f 40 && exec "$toy" train --quiet --data t.txt --steps 20 --save-every 5 --out lim --resume) \
    >out 2>err
[ $? -eq 4 ] || fail "file size limit: status is not 4"
check "file size limit: said" grep -q 'cannot write lim/.partial/model.safetensors' err
[ "$(readlink lim/latest)" = step-10 ] || fail "file size limit: latest moved"
cmp -s before lim/latest/model.safetensors || fail "file size limit: the old checkpoint changed"
[ ! -e lim/.partial ] || fail "file size limit: a half checkpoint stays"

# A full disk, where a small file system can be mounted.
mkdir small
if mount -t tmpfs -o size=400k tmpfs small 2>/dev/null; then
    status 0 "$toy" train --quiet --data t.txt --steps 5 --out small/run
    dd if=/dev/zero of=small/filler bs=1k count=1000 2>/dev/null
    status 4 "$toy" train --quiet --data t.txt --steps 8 --out small/run --resume
    check "full disk: said" grep -q 'No space left' err
    [ "$(readlink small/run/latest)" = step-5 ] || fail "full disk: latest moved"
    status 0 "$toy" eval --weights small/run --data t.txt
    rm small/filler
    status 0 "$toy" train --quiet --data t.txt --steps 8 --out small/run --resume
    [ "$(readlink small/run/latest)" = step-8 ] || fail "full disk: no checkpoint once there is room"
    umount small
else
    echo "no tmpfs could be mounted: the full disk was not tried"
fi
finish

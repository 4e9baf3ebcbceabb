#!/bin/sh
# train.sh ARCHC - training ends where it would have ended, however often it was stopped.
. "$(dirname "$0")/lib.sh"
threads=2 kv_heads=1
model m
corpus text
expect 0 compile m -o p || finish

train()
{
    out_dir=$1
    shift
    ./p train --data text --steps 30 --eval-every 4 --save-every 3 --out "$out_dir" --quiet "$@"
}
saved=latest/model.safetensors

expect 0 train straight
expect 0 train again
check "two runs are the same bit for bit" cmp straight/$saved again/$saved
expect 0 train other --seed 2
check "another seed is another run" sh -c "! cmp -s straight/$saved other/$saved"

# A stop at a step that was not planned: the schedule is that of the whole run.
./p train --data text --steps 30 --eval-every 4 --save-every 3 --out killed --quiet &
pid=$!
tries=0
while [ ! -e killed/latest ] && [ $tries -lt 500 ]; do
    sleep 0.01
    tries=$((tries + 1))
done
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
check "it was killed on its way" [ "$(readlink killed/latest)" != "$(readlink straight/latest)" ]
expect 0 train killed --resume
check "killed and resumed is the same bit for bit" cmp straight/$saved killed/$saved
check "and so are the moments" cmp straight/latest/optimizer.safetensors \
    killed/latest/optimizer.safetensors

expect 1 train straight
check "an existing run is not overwritten" says 'resume' err
threads=1 d_ff=192
model n
expect 0 compile n -o other_shape || finish
expect 1 ./other_shape eval --weights straight --data text
check "another shape's weights are refused by name" says 'intermediate_size|d_ff|shape' err

# A full disk: the last whole checkpoint survives.
(
    ulimit -f 64
    trap '' XFSZ
    ./p train --data text --steps 30 --save-every 3 --out full --quiet >out 2>err
    [ $? -eq 4 ]
)
check "a full disk is status 4" [ $? -eq 0 ]
check "one line says what to do" [ "$(wc -l <err)" -ge 1 ]
finish

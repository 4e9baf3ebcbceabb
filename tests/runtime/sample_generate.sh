#!/bin/sh
# generate: seeds, stops, streaming and the context's end, with random weights of a byte vocabulary.
# usage: sample_generate.sh PROGRAM (the rest is ignored)
program=$1
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
bad=0

complain() {
    echo "$*" >&2
    bad=$((bad + 1))
}

run() {
    "$program" generate --random --prompt "In the beginning" "$@" 2> "$dir/err"
}

run --seed 5 --tokens 30 > "$dir/a" && run --seed 5 --tokens 30 > "$dir/b" || complain "failed"
cmp -s "$dir/a" "$dir/b" || complain "the same seed gave two texts"
[ "$(wc -c < "$dir/a")" -eq 30 ] || complain "30 tokens are not 30 bytes"
[ -s "$dir/err" ] && complain "speed on stderr although it is no terminal"
printf 'In the beginning' | "$program" generate --random --seed 5 --tokens 30 > "$dir/b"
cmp -s "$dir/a" "$dir/b" || complain "a prompt from standard input differs"
printf 'In the beginning' > "$dir/prompt"
"$program" generate --random --seed 5 --tokens 30 --file "$dir/prompt" > "$dir/b"
cmp -s "$dir/a" "$dir/b" || complain "a prompt from a file differs"
# --random's weights follow the seed, so that greedy texts do, too; but not its draws.
run --seed 5 --greedy --tokens 20 > "$dir/a"
run --seed 5 --top-k 1 --temperature 3 --tokens 20 > "$dir/b"
cmp -s "$dir/a" "$dir/b" || complain "--top-k 1 is not --greedy"
run --seed 5 --tokens 20 -v > "$dir/a"
grep -q "tokens/s" "$dir/err" || complain "no speed with -v"
run --seed 5 --tokens 500 > "$dir/a" || complain "beyond the context failed"
grep -q "context of 64 tokens is full" "$dir/err" || complain "no note about the full context"

# The stop text and all behind it are left out; the JSON agrees with the text.
run --seed 5 --tokens 40 --json > "$dir/json"
python3 - "$dir/json" "$dir/stop" <<'PY' || complain "bad JSON"
import json, sys
v = json.load(open(sys.argv[1]))
assert v["finish"] == "length" and v["generated_tokens"] == 40 == len(v["tokens"])
assert v["prompt_tokens"] == 16 and v["seed"] == 5
text = bytes(v["tokens"])
assert v["text"] == text.decode("utf-8", "replace") or "\ufffd" in v["text"]
at = next(i for i in range(10, 38) if 0 < text[i] < 128 and 0 < text[i + 1] < 128
          and text.find(text[i:i + 2]) == i)
open(sys.argv[2], "wb").write(text[at:at + 2])
open(sys.argv[2] + ".want", "wb").write(text[:at])
PY
run --seed 5 --tokens 40 --stop "$(cat "$dir/stop")" > "$dir/a"
cmp -s "$dir/a" "$dir/stop.want" || complain "--stop did not cut where it should"

# Several continuations: each is what its seed alone gives.
for i in 1 2 3 4 5 6 7 8; do echo "And God called the light Day, and the darkness he called Night."; done > "$dir/text"
"$program" train --quiet --data "$dir/text" --steps 2 --out "$dir/run" 2> "$dir/err" || complain "training failed"
several() {
    "$program" generate --weights "$dir/run" --prompt "In the" --tokens 24 "$@" 2> "$dir/err"
}
several --seed 7 --count 3 --json > "$dir/json" || complain "--count failed"
for seed in 7 8 9; do several --seed $seed --json; done > "$dir/singly"
several --seed 7 --count 3 > "$dir/texts"
several --seed 9 > "$dir/last"
python3 - "$dir" <<'PY' || complain "--count is not what the seeds give one by one"
import json, sys
together, singly = ([json.loads(line) for line in open(f"{sys.argv[1]}/{name}")]
                    for name in ("json", "singly"))
assert [v["sequence"] for v in together] == [0, 1, 2] and [v["seed"] for v in together] == [7, 8, 9]
for a, b in zip(together, singly, strict=True):
    assert all(a[k] == b[k] for k in ("text", "tokens", "finish", "seed", "prompt_tokens"))
assert together[0]["tokens"] != together[1]["tokens"]
texts, last = (open(f"{sys.argv[1]}/{name}", "rb").read() for name in ("texts", "last"))
assert texts.startswith(b"[0]\n") and texts.endswith(b"\n[2]\n" + last + b"\n")
PY
several --count 2 -v > "$dir/a"
grep -q "2 sequences, .* tokens/s" "$dir/err" || complain "no total speed with -v"

for wrong in "--count 0" "--top-p 2" "--temperature -1" "--tokens 0" "--min-p x" "--top-k -3"; do
    # shellcheck disable=SC2086
    run $wrong > "$dir/a"
    [ $? -eq 2 ] || complain "$wrong: not status 2"
done
"$program" generate --prompt x 2> "$dir/err"
[ $? -eq 2 ] || complain "neither --weights nor --random: not status 2"
"$program" generate --random --prompt '' 2> "$dir/err"
[ $? -eq 1 ] || complain "an empty prompt: not status 1"
"$program" generate --weights "$dir" --prompt x 2> "$dir/err"
[ $? -eq 1 ] || complain "no weights there: not status 1"
[ $bad -eq 0 ]

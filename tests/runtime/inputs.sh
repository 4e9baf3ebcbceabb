# inputs.sh - mistakes on the command line and in files: one line each, the right exit status.
. "$(dirname "$0")/lib.sh"
toy=$bin/toy
make_text 200 >t.txt

status 2 "$toy"
status 0 "$toy" --help
for command in info train eval score export; do
    status 0 "$toy" $command --help
    check "$command --help" grep -q '^usage: toy ' out
done
refuses 2 "did you mean train?" "$toy" trian
refuses 2 "--help lists them" "$toy" xxxxxxxxxxx
refuses 2 "did you mean --steps?" "$toy" train --data t.txt --step 4
refuses 2 "give --data" "$toy" train --steps 4
refuses 2 "how long" "$toy" train --data t.txt
refuses 2 "whole number" "$toy" train --data t.txt --steps many
refuses 2 "give --weights" "$toy" eval --data t.txt
refuses 2 "give --data" "$toy" eval --weights x
refuses 2 "one of fp32|bf16" "$toy" export --dtype fp8
refuses 2 "--out is missing" "$toy" export --weights x
refuses 2 "exclude" "$toy" score --weights x --text a --file b
refuses 1 "check the path" "$toy" train --data absent --steps 1
refuses 1 "directory" "$toy" train --data . --steps 1
refuses 1 "/dev/null is empty" "$toy" train --data /dev/null --steps 1
printf 'tiny' >tiny.txt
refuses 1 "one sample takes 17" "$toy" train --data tiny.txt --steps 1
: >empty
refuses 1 "empty is empty" "$toy" train --data empty --steps 1
printf '{"text": "a"}\n{"text": "b"\n' >bad.jsonl
refuses 1 "bad.jsonl:2: not JSON" "$toy" train --data bad.jsonl --steps 1
refuses 1 "cannot hold bytes" "$bin/toy_ids" train --data t.txt --steps 1
refuses 1 "--tokenizer" "$toy" train --data t.txt --tokenizer x.json --steps 1
refuses 1 "no directory nowhere" "$toy" eval --weights nowhere --data t.txt
refuses 1 "text is empty" "$toy" score --weights nowhere --text ""
refuses 1 "not finite" "$toy" train --quiet --data t.txt --steps 300 --lr 10 --clip 0 --decay 10 --out hot
refuses 1 "cannot make the directory t.txt" "$toy" train --quiet --data t.txt --steps 1 --out t.txt/run
refuses 1 "cannot make the directory" "$toy" train --quiet --data t.txt --steps 1 --out t.txt

[ ! -e run ] || fail "a mistake left an empty run behind"

# A hostile name cannot reach the terminal's controls.
printf 'x' >"$(printf 'evil\033[31m.jsonl')"
status 1 "$toy" train --data "$(printf 'evil\033[31m.jsonl')" --steps 1
if grep -q "$(printf '\033')" err; then fail "an escape sequence reached the terminal"; fi

# The same directory of weights in a program of another shape.
status 0 "$toy" train --quiet --data t.txt --steps 2 --out run
refuses 1 "hidden_size 24 (compiled: 40)" "$bin/toy_wide" eval --weights run --data t.txt
refuses 1 "tie_word_embeddings false (compiled: true)" "$bin/toy_tied" eval --weights run --data t.txt
refuses 1 "vocab_size 257 (compiled: 64)" "$bin/toy_ids" export --weights run --out x
finish

#!/bin/sh
# study.sh ARCHC - a study ends with the same table however often it is killed, makes no run twice,
# and what it writes is whole: the law in the language, the models, one page without a network.
. "$(dirname "$0")/lib.sh"
corpus text
cat >tiny.arch <<'A'
study tiny {
    data             = "text"
    sizes            = [6K, 12K]
    tolerance        = 10%
    tokens_per_param = 1
    layers           = 1
    head_dim         = 8
    gqa              = 1
    d_ff_step        = 4
    width            = [0.2, 0.3, 0.5]
    r                = [0.6, 1.2, 2.4]
    groups           = [1, 2]
    train {
        batch    = 2
        sequence = 32
    }
    serve {
        device   = host
        prompt   = 16
        generate = 16
    }
}
A

study()
{
    "$archc" study tiny.arch $quick "$@"
}

# The table without what a clock measures.
table()
{
    cut -d, -f1-18,20 "$1/runs.csv"
}

expect 0 study -o whole --dry-run || finish
check "the schedule names the centre" says 'centre +d' out
check "a dry run leaves nothing behind" [ ! -e whole ]

expect 0 study -o whole --rounds 0 || finish
check "it says what it found of the width" says '^Width: ' out
check "and of the ratio" says '^Ratio: ' out
check "and of the models" says '^panda: loss ' out
check "each finished run is told" says '^\[1/' err
check "the law is the language's" "$archc" check whole/tiny.law >/dev/null 2>&1
check "the models resolve" "$archc" resolve whole/models.arch -m panda --json \
    >panda.json 2>/dev/null
check "as the table has them" sh -c "grep -q '^panda,' whole/runs.csv"
shape=$(sed -n 's/^panda,.*/&/p' whole/runs.csv | head -n 1 |
    awk -F, '{ print "d" $6 "_h" $7 "_k" $8 "_f" $10 }')
program=$(ls whole/programs/"$shape"-???????????????? | head -n 1)
expect 0 "$program" eval --weights whole/runs/"$shape"-12000-s1-???????? --data text --json
check "a run's weights open in its program" says '"loss"' out
check "the table is one that fit reads" "$archc" fit whole/runs.csv --form multiplicative \
    --bootstrap 0 -o again.law >/dev/null 2>&1
check "the page needs no network" sh -c \
    "! grep -o 'src=\"[^d]*\|href=\"http[^\"]*\|@import\|url(http' whole/report.html"
if command -v gnuplot >/dev/null; then
    check "and has its pictures" [ "$(grep -c '<svg' whole/report.html)" -ge 4 ]
else
    check "and says what they want" says 'gnuplot could not be run: install it' whole/report.html
fi
runs=$(($(wc -l <whole/runs.csv) - 1))

expect 0 study -o whole --rounds 0
check "nothing is made twice" sh -c "! grep -q '^\[' err"

# Killed in the middle, without a chance to clean up. The programs are there already.
mkdir killed
cp -r whole/programs killed/
"$archc" study tiny.arch $quick -o killed --rounds 0 >out 2>err &
pid=$!
tries=0
while [ ! -e killed/runs.csv ] && [ $tries -lt 2000 ]; do
    sleep 0.01
    tries=$((tries + 1))
done
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
made=$(($(wc -l <killed/runs.csv) - 1))
check "it was killed on its way" [ "$made" -ge 1 -a "$made" -lt "$runs" ]
expect 0 study -o killed --rounds 0
check "only the rest was made" [ "$(grep -c '^\[' err)" -eq $((runs - made)) ]
table whole >a
table killed >b
check "the table is the same" cmp a b

# Stopped as a person would, while the first programs are compiled.
"$archc" study tiny.arch $quick -o stopped --rounds 0 >out 2>err &
pid=$!
tries=0
while [ ! -d stopped/programs ] && [ $tries -lt 2000 ]; do
    sleep 0.01
    tries=$((tries + 1))
done
kill -TERM $pid
wait $pid
check "a signal is status 143" [ $? -eq 143 ]
check "and it says how to go on" says 'the same command goes on' err

# What a person can get wrong.
sed 's/tokens_per_param = 1/tokens_per_param = 1\n    held_out = 10%/' tiny.arch >other.arch
expect 1 "$archc" study other.arch $quick -o whole
check "other data's runs are not mixed in" says 'other training settings.*-o' err
sed '3s/^grid,/gird,/' whole/runs.csv >bad.csv
mkdir -p spoilt && cp bad.csv spoilt/runs.csv
expect 1 study -o spoilt
check "a spoilt table is named by line" says 'runs.csv:3: error' err
expect 2 study -o whole --jobs 0
expect 2 study -m nobody
sed 's/"text"/"nowhere"/' tiny.arch >none.arch
expect 4 "$archc" study none.arch
check "a missing corpus is named" says 'nowhere' err
finish

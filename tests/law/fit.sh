#!/bin/sh
# fit.sh ARCHC - `archc fit` as a user runs it: a table in, a law out that archc compiles with.
archc=$1
failed=0
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 2

fail()
{
    echo "FAIL $1"
    failed=1
}

# expect STATUS PATTERN COMMAND..: exit status and a line of the output.
expect()
{
    status=$1 pattern=$2
    shift 2
    timeout 120 "$@" >out 2>&1
    got=$?
    [ "$got" -eq "$status" ] || fail "$*: exit status $got, expected $status"
    grep -q -e "$pattern" out || {
        fail "$*: no '$pattern' in"
        head -n 20 out
    }
}

# Losses by the published law of arXiv:2510.18245 with a deterministic ripple for noise.
awk 'BEGIN {
    print "run,size,d_model,params,r,tokens,loss"
    for (s = 0; s < 3; s++) {
        n = s == 0 ? 80e6 : s == 1 ? 145e6 : 297e6
        for (i = 0; i < 6; i++)
            for (j = 0; j < 7; j++) {
                d = int(sqrt(n) * (0.035 + 0.02 * i)); x = d / sqrt(n); r = 0.5 * exp(0.35 * j)
                l = 1.81686 + 482.006 / n ^ 0.34781 + 2085.434 / (100 * n) ^ 0.36585
                l *= (2.697 + 0.0974 * log(x) + 0.0078 / x) * (0.387 + 0.0063 * log(r) + 0.0065 / r)
                l *= 1 + 0.0005 * sin(k++ * 2.39996)
                printf "%d,%dM,%d,%d,%.4f,%.0f,%.6f\n", k, n / 1e6, d, n, r, 100 * n, l
            }
    }
}' >runs.csv

expect 0 'x\*  *0\.08[01]' "$archc" fit runs.csv --bootstrap 100 -o runs.law
expect 0 'law runs {' cat runs.law
cp runs.law first.law
expect 0 'r\*  *1\.0' "$archc" fit runs.csv --bootstrap 100 -o runs.law
cmp -s runs.law first.law || fail "the same table and seed give another law"
expect 0 '^runs.law: 0 models' "$archc" check runs.law
grep -q ': error' out && fail "check finds errors in the law"

cat >small.arch <<'EOF'
import "runs.law"
model small {
    vocab    = 32000
    layers   = 8
    head_dim = 64
    params   = 150M +- 2%
    d_model  = free 512..1536 step 64
    r        = free 0.5..5
    gqa      = 4
    train {
        tokens = 15B
        law    = runs
    }
    minimize loss
}
EOF
expect 0 'd_model  *9[0-9][0-9]\|d_model  *10[0-9][0-9]\|d_model 10[0-9][0-9]\|d_model 9' "$archc" resolve small.arch

expect 0 '"spearman"' "$archc" fit runs.csv --json --progressive --bootstrap 0
expect 0 'predicted' "$archc" fit runs.csv --progressive --bootstrap 0
expect 0 'held out  *MSE' "$archc" fit runs.csv --holdout size=297M --bootstrap 0
expect 0 '^joint ' "$archc" fit runs.csv --compare
expect 0 'base   = besiroglu2024' sh -c "'$archc' fit runs.csv --l-opt besiroglu2024 --bootstrap 20 \
    -o b.law && cat b.law"
expect 0 'b.law: 0 models' "$archc" check b.law
expect 0 'data of 2026' sh -c "'$archc' fit runs.csv --bootstrap 0 --date 2026-05 -m mine -o m.law &&
    cat m.law"
expect 0 '^law mine' cat m.law
expect 0 'E  *= ' sh -c "'$archc' fit runs.csv --form additive --bootstrap 20 -o a.law && cat a.law"
expect 0 'a.law: 0 models' "$archc" check a.law
expect 0 'RUNS.csv has a header' "$archc" fit --help

# What is wrong is said with its place, and nothing is written.
expect 1 'no run has r$\|there are three shapes\|no run has' "$archc" fit runs.csv --form morph -o no.law
[ -e no.law ] && fail "a law was written without a fit"
sed '5s/,[0-9.]*$/,high/' runs.csv >bad.csv
expect 1 "^bad.csv:5: error: loss is 'high'" "$archc" fit bad.csv
expect 1 'holds out no run' "$archc" fit runs.csv --holdout size=7B
expect 1 "no column 'colour'" "$archc" fit runs.csv --where colour=red
expect 2 'wants multiplicative' "$archc" fit runs.csv --form quadratic
expect 2 'wants a number from 0 to 5000' "$archc" fit runs.csv --bootstrap lots
expect 1 'cannot read' "$archc" fit absent.csv
head -c 2000 /dev/urandom >noise.csv
expect 1 'error:' "$archc" fit noise.csv
expect 4 'cannot write' "$archc" fit runs.csv --bootstrap 0 -o absent/runs.law
[ "$failed" -eq 0 ] && echo "archc fit: all good"
exit $failed

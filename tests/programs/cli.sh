#!/bin/sh
# cli.sh ARCHC - the command line as the manual promises it: statuses 0, 1, 2, 3, 4, help, JSON.
. "$(dirname "$0")/lib.sh"
model m

expect 0 "$archc" --help
check "--help names every command" sh -c '
    for c in check resolve explain frontier fmt import bench calibrate; do
        grep -q -w "$c" out || { echo "no $c" >&2; exit 1; }
    done'
expect 0 "$archc" check m.arch
check "check of a good file is silent on stderr" [ ! -s err ]
expect 0 "$archc" resolve m.arch
check "resolve shows the shape" says 'd_model' out
expect 0 "$archc" resolve m.arch --json
check "resolve --json has the promised keys" json out "
    set(o) == {'model', 'architecture', 'metrics', 'requirements', 'search', 'warnings'}
    and set(o['architecture']) == {'layers', 'd_model', 'heads', 'kv_heads', 'head_dim', 'd_ff',
        'vocab', 'tied', 'gqa', 'r', 'params', 'total_params'}
    and set(o['metrics']) >= {'loss', 'throughput', 'latency', 'ttft', 'memory', 'kv_bytes',
        'train_time', 'train_memory'}
    and set(o['search']) == {'candidates', 'feasible', 'objective'}
    and o['architecture']['d_model'] == $d_model and o['architecture']['tied'] is True
    and o['metrics']['loss'] is None and any('loss' in w or 'law' in w for w in o['warnings'])"

cat >free.arch <<'A'
train { tokens = 100B
    law = bian2025_297m }
serve { device = h200
    batch = 64
    prompt = 4096
    generate = 1024
    weights = bf16 }
model base {
    family = llama
    vocab = 128256
    tied = yes
    layers = 16
    head_dim = 64
    d_model = 2048
    heads = 32
    kv_heads = 8
    d_ff = 8192
}
model fast {
    family = llama
    vocab = 128256
    tied = yes
    layers = 16
    head_dim = 64
    params = 973M +- 1%
    d_model = free 1024..4096 step 128
    r = free 0.5..5
    gqa = free 1..9
    require loss <= base.loss
    maximize throughput
}
A
expect 0 "$archc" resolve free.arch --json
check "the requirement is met and the search counted" json out "
    o['model'] == 'fast' and o['requirements'][0]['satisfied']
    and o['requirements'][0]['margin'] >= 0
    and o['requirements'][0]['lhs'] <= o['requirements'][0]['rhs']
    and o['search']['candidates'] >= o['search']['feasible'] > 0
    and 'throughput' in o['search']['objective']
    and abs(o['architecture']['params'] - 973e6) <= 9.73e6
    and o['architecture']['heads'] == o['architecture']['kv_heads'] * o['architecture']['gqa']"
fast=$(number out "o['metrics']['throughput']")
expect 0 "$archc" resolve free.arch -m base --json
check "-m chooses the model" json out "o['model'] == 'base' and o['metrics']['throughput'] < $fast"
expect 0 "$archc" explain free.arch
expect 0 "$archc" frontier free.arch --csv front.csv
check "the frontier has rows" [ "$(wc -l <front.csv)" -ge 3 ]

# 1: the spec is wrong.
sed 's/d_model *=/d_modle =/' m.arch >bad.arch
expect 1 "$archc" check bad.arch
check "a diagnostic has place, rule and help" says '^bad\.arch:[0-9]+:[0-9]+: error: .*\[[a-z-]+\]' err
check "did you mean" says 'd_model' err
expect 1 "$archc" bad.arch -o p
check "nothing was built" [ ! -e p ]
expect 1 "$archc" check missing.arch
: >empty.arch
expect 1 "$archc" empty.arch -o p
head -c 4096 /dev/urandom >binary.arch
expect 1 "$archc" check binary.arch

# 2: the command line is wrong.
expect 2 "$archc"
expect 2 "$archc" --no-such-option m.arch
expect 2 "$archc" check
expect 2 "$archc" m.arch --emit=nothing
expect 2 "$archc" m.arch --target nothing
expect 2 "$archc" resolve m.arch -m nobody

# 3: no candidate satisfies the requirements.
sed 's/base\.loss/0.5 * base.loss/' free.arch >impossible.arch
expect 3 "$archc" resolve impossible.arch
check "the binding requirement is named" sh -c 'cat out err | grep -q "0.5 \* base.loss"'
expect 3 "$archc" impossible.arch -o p
check "nothing was built" [ ! -e p ]

# 4: the world failed.
mkdir tools
for tool in sh ld as; do ln -s "$(command -v $tool)" tools/$tool 2>/dev/null; done
expect 4 env PATH="$work/tools" "$archc" m.arch -o p
check "the missing compiler is named, with what to do" says '(clang|gcc).*install' err
expect 4 "$archc" m.arch --cc no_such_cc -o p
check "the missing compiler is named" says 'no_such_cc' err
expect 4 "$archc" m.arch -o missing_directory/p
checks=$((checks + 1))
if [ -w /dev/full ]; then
    "$archc" resolve m.arch >/dev/full 2>err
    check "a full disk is status 4" [ $? -eq 4 ]
fi
(
    ulimit -f 8
    trap '' XFSZ
    "$archc" m.arch -o limited >out 2>err
    [ $? -eq 4 ]
)
check "a full disk while building is status 4" [ $? -eq 0 ]
check "and leaves no program behind" [ ! -e limited ]

# -v shows each tool run; the program starts without a configuration.
expect 0 "$archc" m.arch -v -o p || finish
check "-v shows the tools" sh -c 'cat out err | grep -q -E "clang|cc"'
expect 0 ./p --help
check "the program's help names its commands" sh -c '
    for c in info train eval score generate bench verify export; do
        grep -q -w "$c" out || { echo "no $c" >&2; exit 1; }
    done'
expect 2 ./p
expect 2 ./p no_such_command
expect 2 ./p train --no-such-option
expect 1 ./p eval --weights nowhere --data m.arch
expect 1 ./p train --data nowhere --steps 1 --out run
expect 0 ./p bench --json --repeat 5 --blas none
check "bench --json: every kernel right and timed, all three phases" json out "
    o['correct'] and all(k['correct'] and k['seconds'] > 0 for k in o['kernels'])
    and {p['phase'] for p in o['phases']} == {'train', 'prefill', 'decode'}
    and all(p['tokens_per_second'] > 0 for p in o['phases']) and o['machine']['fma_gflops'] > 0"
expect 0 "$archc" fmt m.arch
finish

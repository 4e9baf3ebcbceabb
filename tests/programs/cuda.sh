#!/bin/sh
# cuda.sh ARCHC: a program with CUDA code on a machine that may have no GPU: emitted text, embedded
# images, the choice of device, messages. Needs a clang that compiles device code.
set -e
archc=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cat >tiny.arch <<'END'
train {
    batch    = 1
    sequence = 16
}
serve {
    batch    = 2
    prompt   = 16
    generate = 16
}
model tiny {
    family   = llama
    vocab    = 257
    tied     = yes
    context  = 64
    layers   = 2
    head_dim = 16
    d_model  = 48
    heads    = 6
    kv_heads = 2
    d_ff     = 128
}
END
fail() { echo "cuda.sh: $*"; exit 1; }
expect() { grep -q -e "$2" "$1" || { cat "$1"; fail "$1 lacks: $2"; }; }

# The same spec, the same text; no place or time of this machine in it.
"$archc" tiny.arch --emit=cuda >one
"$archc" tiny.arch --emit=cuda >two
cmp one two
expect one '#define D_MODEL 48'
expect one 'K_DECODE_QKV'
! grep -q "$work" one || fail "emitted text names a directory"

# Every step of the CUDA plan has its price, on the card that sm_90 stands for; the host's have none.
"$archc" tiny.arch --emit=plan --target sm_90 >plan
expect plan '^expected on h200$'
expect plan '^  decode  at least [0-9.]* us, expected [0-9.]* us'
[ "$(grep -c '^        at least' plan)" = "$(sed '1,/for cuda/d' plan | grep -c '^    cuda_.* : ')" ] ||
    fail "steps without a price"
"$archc" tiny.arch --emit=plan >plan
! grep -q 'at least' plan || fail "the host's plan has times of this machine in it"

# A clang that is older than the architecture compiles for it all the same.
cc=clang
command -v clang-14 >/dev/null && cc=clang-14
if command -v $cc >/dev/null; then
    "$archc" tiny.arch --emit=ptx --target sm_90 --device-cc $cc -o ptx
    expect ptx/cuda_decode.sm_90a.ptx '^.target sm_90a'
    expect ptx/cuda_decode.sm_90a.ptx 'entry cuda_decode_qkv'
    expect ptx/cuda_decode.sm_90a.ptx 'griddepcontrol.wait'
fi

# Kernel files of one's own in place of those that archc carries; a directory without any is a mistake.
mkdir mine empty
echo '#error "mine is compiled"' >mine/norm.cu
"$archc" tiny.arch --emit=ptx --target sm_90 --kernels mine >out 2>&1 && fail "another norm.cu" || [ $? = 4 ]
expect out 'mine is compiled'
"$archc" tiny.arch --emit=ptx --target sm_90 --kernels empty >out 2>&1 && fail "no kernels there" || [ $? = 4 ]
expect out 'no file there has the name of a CUDA kernel'
mkdir empty/norm.cu
"$archc" tiny.arch --emit=ptx --target sm_90 --kernels empty >out 2>&1 && fail "a directory for a kernel" || [ $? = 4 ]
expect out 'cannot read empty/norm.cu'

"$archc" tiny.arch --emit=cubin >out 2>&1 && fail "cubins to the terminal" || [ $? = 2 ]
"$archc" tiny.arch --target sm_75 >out 2>&1 && fail "sm_75 is taken" || [ $? = 2 ]
expect out 'unknown target sm_75; the targets are host'
"$archc" tiny.arch --target sm_80 --device-cc /no/such/cc >out 2>&1 && fail "no compiler" || [ $? = 4 ]
expect out 'install clang-19'
expect one '#define VOCAB 264 '
expect one '#define TOKENS 257 '
for odd in 'd_ff     = 128/d_ff     = 100/96 and 104' 'd_model  = 48/d_model  = 44/40 and 48'; do
    sed "s/${odd%/*}/" tiny.arch >odd.arch
    "$archc" odd.arch --target sm_80 --emit=plan >out 2>&1 && fail "$odd is taken" || [ $? = 1 ]
    expect out "${odd##*/} are the nearest"
done

# The program: two architectures, the host's kernels, and one line where there is no driver.
"$archc" tiny.arch --target sm_80,sm_90 --threads 2 -o tiny
./tiny info >out
expect out 'code for sm_80, sm_90a'
expect out 'cuda_batch_attention'
expect out 'products: '
expect out 'predicted for a100_40gb: train [1-9][0-9]* us'
mkdir -p lib && : >lib/libcublasLt.so.13
LD_LIBRARY_PATH=lib ./tiny info >out
expect out 'products: lib/libcublasLt.so.13, where it starts'
rm -r lib
# The library takes seconds to load: neither to look nor on the host.
for command in info --help 'generate --random --prompt abc --tokens 1 --device host'; do
    LD_DEBUG=files ./tiny $command >out 2>&1
    if grep -q 'calling init.*cublas' out; then fail "'$command' loads cuBLASLt"; fi
done
./tiny info --json >out
expect out '"predicted_for": "a100_40gb"'
expect out '"predicted_seconds": [0-9.]*e-'
./tiny generate --random --greedy --tokens 4 --prompt abc >text 2>notes
./tiny generate --random --greedy --tokens 4 --prompt abc --device host >text2 2>notes2
[ ! -s notes2 ] || fail "a note for --device host"
if grep -q 'no CUDA driver\|finds no device' notes; then
    [ "$(wc -l <notes)" = 1 ] || fail "more than one line about the missing driver"
    cmp text text2
    ./tiny verify --device cuda >out 2>&1 && fail "--device cuda without a GPU" || [ $? = 4 ]
    expect out '--device cuda: '
    ./tiny generate --random --greedy --tokens 4 --prompt abc --products library >text2 2>notes2
    cmp text text2 && cmp notes notes2
else
    ./tiny verify --device cuda --products own
    ./tiny verify --device cuda --products auto
fi
./tiny generate --random --tokens 1 --products mine >out 2>&1 && fail "--products mine" || [ $? = 2 ]
expect out 'own, library or auto'
./tiny --help >out
expect out '--products own|library|auto'
./tiny generate --random --tokens 1 --device gpu >out 2>&1 && fail "--device gpu" || [ $? = 2 ]
expect out 'host or cuda'
"$archc" tiny.arch --threads 2 -o plain
./plain generate --random --tokens 1 --device cuda >out 2>&1 && fail "no CUDA in it" || [ $? = 2 ]
expect out 'compile it with --target'
echo ok

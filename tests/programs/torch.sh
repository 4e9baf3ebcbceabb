#!/bin/sh
# torch.sh ARCHC CC - three compiled models against what an independent PyTorch implementation stored
# in tests/runtime/torch_values.h: losses, gradients and twenty steps of AdamW.
. "$(dirname "$0")/lib.sh"
cc=${2:-cc}
root=$here/../..

# values NAME: the program of NAME.arch, with the comparison in place of its main.
values()
{
    expect 0 compile "$1" --keep "$1" -o "$1.program" || return
    expect 0 "$cc" -std=gnu11 -O1 -I "$root/runtime" -I "$root/codegen" -I "$root/tests/runtime" \
        "$root/tests/runtime/verify_torch.c" "$1"/*.o "$1/libarchrt.a" -lm -lpthread -ldl \
        -o "$1.values" || return
    expect 0 "./$1.values"
}

batch=2 sequence=24 context=32
layers=2 d_model=48 heads=6 kv_heads=2 head_dim=16 d_ff=80 vocab=101 tied=no
model plain
values plain
threads=2 d_model=40 heads=5 kv_heads=1 head_dim=8 d_ff=56 vocab=256 tied=yes qk_norm=yes
model qk_norm
sed 's/context *=/rope { theta = 1e6 }\n&/' qk_norm.arch >with_rope && mv with_rope qk_norm.arch
values qk_norm
threads=3 layers=3 d_model=32 heads=4 kv_heads=4 d_ff=64 vocab=67 tied=no qk_norm=no bias=yes
model bias
sed 's/context *=/rope { theta = 500\n scaling { factor = 8\n low = 1\n high = 4\n original = 16 }\n }\n&/' \
    bias.arch >with_rope && mv with_rope bias.arch
values bias
finish

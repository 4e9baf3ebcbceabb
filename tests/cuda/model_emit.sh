#!/bin/sh
# model_emit.sh ARCHC FILE.arch DIR: what model.cmake compiles: the program's C and CUDA, and a table
# of the entry points in place of images; a pass that sm_90 has no use for is not among them.
set -e
archc=$1 file=$2 dir=$3
mkdir -p "$dir"
"$archc" "$file" --emit=c,cuda --target sm_90 --threads 2 -o "$dir"
cd "$dir"
sed -n -e 's/.*\.name = "\([a-z0-9_]*\)".*/\1/p' -e 's/.*\.passes = \([0-9]\).*/\1/p' model_cuda.c |
awk '/^[0-9]/ { for (i = 1; i <= $1; i++) print name (i > 1 ? "_" i : ""); next } { name = $1 }' >names
{
    echo '#include "model_device.h"'
    sed 's/.*/emu_kernel & __attribute__((weak));/' names
    echo 'const struct model_kernel model_kernels[] = {'
    sed 's/.*/    {"&", &},/' names
    echo '};'
    echo 'const int n_model_kernels = sizeof model_kernels / sizeof model_kernels[0];'
} >model_kernels.c
for unit in batch decode prefill forward backward update; do
    printf '#include "cuda_%s.cu"\n' $unit >unit_$unit.c
    printf emulated >cuda_$unit.sm_90a.image
done

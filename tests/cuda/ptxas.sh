#!/bin/sh
# ptxas.sh ARCHC EXPECTED [record]: registers and spills of every kernel of a few programs, as ptxas
# says, against what EXPECTED has: a line `architecture kernel registers spilled-bytes` each, spilled
# bytes being those of the stack too, below a line that names the tools. More than 8 registers over,
# or one byte more spilled, is a failure; specialised decode kernels never spill. With other tools
# than the recorded ones only the last is checked, without ptxas only that all compiles to PTX.
# `record` writes EXPECTED anew.
set -e
archc=$1 expected=$2 record=$3
here=$(cd "$(dirname "$0")" && pwd)
ptxas=$(command -v ptxas || echo /usr/local/cuda/bin/ptxas)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ -x "$ptxas" ]; then
    assembler=$("$ptxas" --version | sed -n 's/.*release \([0-9.]*\).*/ptxas \1/p')
else
    assembler="no ptxas"
    [ "$record" != record ] || { echo "no ptxas: nothing to record"; exit 1; }
fi

# figures ARCH MODEL PTX PATTERN: a line for each kernel whose name matches.
figures()
{
    entries=$(sed -n 's/^.*\.entry \([a-z_0-9]*\).*/\1/p' "$3" | grep "$4") || return 0
    if [ ! -x "$ptxas" ]; then
        echo "$entries" | sed "s/.*/$1 $2.& 0 0/"
        return
    fi
    "$ptxas" -v -arch="$1" -e "$(echo "$entries" | tr '\n' ',' | sed 's/,$//')" "$3" -o "$work/cubin" 2>&1 |
        awk -v arch="$1" -v model="$2" '
            /Compiling entry function/ { split($0, part, "\047"); name = part[2] }
            /bytes stack frame/ { spill = $1 > $5 ? $1 : $5 }
            /Used [0-9]+ registers/ {
                for (i = 1; i < NF; i++) if ($i == "Used") print arch, model "." name, $(i + 1), spill
            }
            /[Ss]erialized/ { print arch, model "." name, "serialized", 1 }'
}

# only NAME ..: the device compiler of the first program, for units of these names; others are empty.
only()
{
    patterns=$(printf ' | */cuda_%s.cu\\ *' "$@")
    cat >"$work/clang-only" <<END
#!/bin/sh
case " \$* " in
*" --version "*$patterns) exec "$(cat "$work/compiler")" "\$@" ;;
esac
for out; do :; done
echo >"\$out"
END
    chmod +x "$work/clang-only"
    echo "--device-cc $work/clang-only"
}

# A program for each: group 9 with 64 slots; head norms; biases and group 7; head size 256, of which
# the decode attention alone; logits that are never written, of which the head alone; run-time shapes,
# heads of 64 and of 128.
examples=$here/../../examples
for pair in "$examples/surefire_1b:sm_80,sm_86,sm_89,sm_90" "$examples/qwen3_0_6b:sm_90" \
    "$examples/qwen2_5_0_5b:sm_80" "$here/wide_heads:sm_80,sm_86,sm_89,sm_90" \
    "$here/no_logits:sm_80,sm_90" "$examples/surefire_1b:sm_90:--generic" \
    "$examples/qwen3_0_6b:sm_90:--generic"; do
    file=${pair%%:*} targets=${pair#*:} kernels='.' option=
    case $targets in *:*) option=${targets#*:} ;; esac
    targets=${targets%:*}
    model=${file##*/}${option#-}
    case $model in
    wide_heads) kernels='_\(decode\|batch\)_attention' option=$(only decode batch) ;;
    no_logits) kernels='_train_\(head\|final\)_' option=$(only forward backward) ;;
    esac
    "$archc" "$file.arch" --emit=ptx --target "$targets" -o "$work/$model" -v $option \
        2>"$work/notes" || { cat "$work/notes"; exit 1; }
    [ -e "$work/compiler" ] ||
        { sed -n 's/^+ \([^ ]*clang[^ ]*\) .*/\1/p' "$work/notes"; echo clang; } | head -n 1 >"$work/compiler"
    for ptx in "$work/$model"/*.ptx; do
        [ "$(wc -l <"$ptx")" -gt 1 ] || continue # not asked for
        arch=${ptx%.ptx}
        figures "${arch##*.}" "$model" "$ptx" "$kernels"
    done
done | sort >"$work/rows"
tools="# $("$(cat "$work/compiler")" --version | grep -o -m 1 'clang version [0-9]*'), $assembler"
{ echo "$tools"; cat "$work/rows"; } >"$work/got"

if [ "$record" = record ]; then
    cp "$work/got" "$expected"
    echo "$(wc -l <"$work/rows") kernels recorded"
    exit 0
fi
same=1
[ "$(head -n 1 "$expected")" = "$tools" ] || same=0
[ "$same" = 1 ] || echo "$tools; recorded with $(head -n 1 "$expected"): registers are not compared"
awk -v same="$same" '
    /^#/ { next }
    NR == FNR { registers[$1 " " $2] = $3; spilled[$1 " " $2] = $4; next }
    { key = $1 " " $2; n++ }
    $3 == "serialized" { print key ": wgmma is serialized"; bad = 1; next }
    !(key in registers) { print key ": not in the recorded figures"; bad = 1; next }
    same && $3 > registers[key] + 8 { print key ": " $3 " registers, recorded " registers[key]; bad = 1 }
    same && $4 > spilled[key] { print key ": " $4 " bytes spilled, recorded " spilled[key]; bad = 1 }
    key ~ /\.cuda_(decode|batch|last)_/ && key !~ /-generic\./ && $4 > 0 { print key ": a decode kernel spills " $4; bad = 1 }
    { delete registers[key] }
    END {
        for (key in registers) { print key ": recorded, but no longer there"; bad = 1 }
        print n " kernels"
        exit bad
    }' "$expected" "$work/got"

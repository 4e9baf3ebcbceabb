#!/bin/sh
# gpu_test.sh: gpu.sh unpacked on a machine whose card, programs and PyTorch are stand-ins. Programs
# of the card that is there are measured; what is wrong, hangs or finds no memory is named and costs
# the others nothing; the result grows part by part, and a second call goes on with the first one's.
set -u
here=$(cd "$(dirname "$0")" && pwd)
command -v python3 >/dev/null || { echo "skipped: python3 is not installed"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "gpu_test.sh: $*"; cat "$work/out"; exit 1; }

gpu=$work/gpu
mkdir -p "$gpu/programs" "$work/bin"
cp "$here/../gpu.sh" "$here"/gpu_*.py "$here/odd_shapes.py" "$here/knobs.txt" "$gpu/"
echo "exit 0" >"$gpu/program.sh"
echo abc1234 >"$gpu/commit"
cat >"$work/bin/nvidia-smi" <<'END'
#!/bin/sh
case $1 in *=name) echo "NVIDIA H100 80GB HBM3" ;; *compute_cap) echo 9.0 ;; *driver*) echo 580 ;; *) echo "81559 MiB" ;; esac
END
chmod +x "$work/bin/nvidia-smi" "$here/standin/program.py"
add() { for name in "$@"; do cp "$here/standin/program.py" "$gpu/programs/$name"; done; }
shape='{"architecture": {"heads": 4, "kv_heads": 2, "head_dim": 16, "total_params": 1000}, "metrics": {"kv_bytes": 8}, "phases": []}'
for model in llama_3_2_1b surefire_1b panda_1b qwen3_0_6b; do
    add "small_$model" "$model.h100" "$model.h200" "$model.generic"
    echo "$shape" >"$gpu/programs/$model.h100.arch.json"
done
for model in group_8 group_9 group_7 odd_d_ff head_64 head_80 head_128; do
    add "small_$model" $model
    echo "$shape" >"$gpu/programs/$model.h100.predicted"
done
add small_model_a small_vocabulary knob.KEYS_ALONE.1.surefire_1b knob.KEYS_ALONE.2.surefire_1b \
    knob.KEYS_ROOM.1.panda_1b
run() { PATH=$work/bin:$PATH PYTHONPATH=$here/standin PYTHONDONTWRITEBYTECODE=1 "$@" sh "$gpu/gpu.sh" >"$work/out" 2>&1; }

# Time for nothing but what comes first; then the rest, with faults.
run env LIMIT=20 PARTS="verify bench" MODELS=llama_3_2_1b OUT="$work/first" || fail "failed"
run env FAULTS="small_surefire_1b:hang surefire_1b.h100:hang small_panda_1b:wrong qwen3_0_6b.h100:memory knob.KEYS_ALONE.1.surefire_1b:wrong" \
    VERIFY_SECONDS=5 PROGRAM_SECONDS=8 PARTS="verify odd kernels torch others generic knobs" OUT="$work/second"
[ $? -eq 1 ] || fail "a wrong program: status $?"
[ -z "$(find "$work" -name '*.json.part' -path '*first*' -o -name '*.json.part' -path '*second*')" ] || fail "half a result"
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$here python3 - "$work" <<'PYTHON' || fail "not the result"
import glob, json, sys
work = sys.argv[1]
first, second = (json.load(open(glob.glob(f"{work}/{name}/*.json")[0])) for name in ("first", "second"))
assert first["card"] == "NVIDIA H100 80GB HBM3" and first["commit"] == "abc1234", first
assert first["predicted_for"] == "h100" and first["memory"] == "81559 MiB" and not first["notes"], first
assert list(first["models"]) == ["llama_3_2_1b"] and first["odd_shapes"] is None
llama = first["models"]["llama_3_2_1b"]
assert [row["phase"] for row in llama["specialised"]["phases"]] == \
    3 * ["decode"] + ["prefill"] + 3 * ["batch"] + ["train", "update", "step"]
assert llama["specialised"]["load"] and not llama["specialised"]["kernels"] and not llama["opponents"]
steps = [(s["micro_batches"], round(s["tokens_per_second"]), round(s["mfu"], 3)) for s in llama["training"]]
assert steps == [(1, 74473, 0.455), (8, 80909, 0.494)], steps

# The second call has what the first one left, and all that is right.
assert second["models"]["llama_3_2_1b"]["specialised"]["phases"] == llama["specialised"]["phases"]
assert {"small_llama_3_2_1b, products own: 71 passed, 0 failed",
        "small_surefire_1b, products own: not done in time, stopped at cuda_decode_attention decode 1 x 2048",
        "small_panda_1b, products own: 1 passed, 1 failed"} <= set(second["verified"]), second["verified"]
assert set(second["models"]) == {"llama_3_2_1b", "qwen3_0_6b"}, list(second["models"])
kernels = [k["name"] for k in second["models"]["llama_3_2_1b"]["specialised"]["kernels"]]
assert kernels == ["cuda_decode_head", "cuda_train_o_dw", "cuda_train_attention"], kernels
torch = second["models"]["llama_3_2_1b"]["opponents"]
rows = {row["name"]: (row["library"], row["seconds"]) for row in torch["rows"]}
assert rows == {"cuda_train_attention": ("SDPA, flash_attention", 0.001), "cuda_decode_head": ("cuBLAS", None),
                "cuda_train_o_dw": ("cuBLAS", 0.001 / 16)}, rows
assert torch["rows"][0]["ours_in_turns"] == 1e-5 and len(torch["attention"]) == 2
assert second["models"]["llama_3_2_1b"]["generic"] and len(second["odd_shapes"]) == 5
assert second["odd_shapes"][0]["phases"]["decode"]["measured"] == 1
qwen = second["models"]["qwen3_0_6b"]["specialised"]
assert "train" not in [row["phase"] for row in qwen["phases"]] and qwen["load"]
notes = "\n".join(second["notes"])
for said in ("surefire_1b: small_surefire_1b.library is wrong: no speed", "panda_1b: small_panda_1b.own is wrong",
             "qwen3_0_6b.h100, bench --whole --phase train: qwen3_0_6b.h100: NVIDIA H100 80GB HBM3: 90.1 GB of memory"):
    assert said in notes, (said, notes)
knobs = second["knobs"]
assert {(row["constant"], row["model"], row["past"], row["turns"], row["ratio"]) for row in knobs["rows"]} == \
    {(constant, model, past, 3, 1.0) for constant, model in (("KEYS_ALONE", "surefire_1b"), ("KEYS_ROOM", "panda_1b"))
     for past in (1, 4096, 8056)}, knobs["rows"]
assert sum("not verified, so not timed" in note for note in knobs["notes"]) == 1, knobs["notes"]
PYTHON

# What hangs while it is timed costs its own time, and its name is known; no time: nothing begins.
rm -rf "$gpu/work"
run env FAULTS="llama_3_2_1b.h100:hang" PROGRAM_SECONDS=4 PARTS="bench" OUT="$work/third" && fail "a hang is no failure"
grep -q 'note: llama_3_2_1b.h100, bench --whole --phase train: not done in time, stopped at cuda_train_o$' "$work/out" ||
    fail "what hung is not named"
grep -q 'surefire_1b on NVIDIA H100' "$work/out" || fail "nothing behind what hung"
run env LIMIT=3 PARTS="odd" OUT="$work/fourth" || fail "no time is a failure"
grep -q 'note: odd: no time was left' "$work/out" || fail "something began without time"
echo ok

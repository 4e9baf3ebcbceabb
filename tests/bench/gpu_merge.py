"""gpu_merge.py DIR RESULT COMMIT [--quiet]: one result file of what gpu.sh left in DIR so far, and the
table on the terminal: each kernel specialised, generic and by the vendor, as fractions of this card's
limits. Whatever is not there, or was cut short, is null."""
import datetime
import glob
import json
import os
import sys

# Dense bf16 with fp32 accumulation, of the data sheets: what MFU is a fraction of.
BF16_PEAK = {"NVIDIA H200": 989.4e12, "NVIDIA H100 80GB HBM3": 989.4e12}
PARTS = ["decode", "prefill,batch", "train"]  # calls of bench, whose rows come in this order
KERNELS = ["kernels.decode", "kernels.prefill", "kernels.batch", "kernels.train"]


def read(path):
    try:
        with open(path) as f:
            return json.load(f)
    except (OSError, ValueError):
        return None


def lines(path):
    if not os.path.exists(path):
        return []
    with open(path) as f:
        return f.read().splitlines()


def by_name(result, key="kernels"):
    return {row["name"]: row["seconds"] for row in (result or {}).get(key, [])}


def joined(directory, model):
    """One table of a program's calls of bench; None: nothing was measured."""
    parts = [read(f"{directory}/{model}.{part}.json") for part in PARTS + KERNELS]
    parts = [part for part in parts if part]
    if not parts:
        return None
    whole = {key: value for key, value in parts[0].items() if key not in ("phases", "load", "kernels")}
    whole["phases"] = [row for part in parts for row in part["phases"]]
    whole["load"] = next((part["load"] for part in parts if part["load"]), None)
    whole["kernels"] = [row for part in parts for row in part["kernels"]]
    return whole


def training(table):
    """Steps of one micro-batch and of as many as the spec has: tokens/s, and MFU where the card's
    peak is known."""
    rows = {row["phase"]: row for row in table["phases"]}
    steps = []
    if "train" in rows and "update" in rows:
        both = {key: rows["train"][key] + rows["update"][key] for key in ("seconds", "predicted_seconds")
                if rows["train"].get(key) and rows["update"].get(key)}
        steps.append((1, rows["train"]["tokens"], rows["train"], both))
    if "step" in rows and "train" in rows:
        steps.append((rows["step"]["micro_batches"], rows["step"]["tokens"], rows["train"], rows["step"]))
    peak = BF16_PEAK.get(table["device"])
    result = []
    for n, tokens, micro_batch, step in steps:
        if not step.get("seconds"):
            continue
        flops = n * micro_batch["flops_per_second"] * micro_batch["seconds"]
        predicted = step.get("predicted_seconds")
        result.append({"micro_batches": n, "seconds": step["seconds"],
                       "tokens_per_second": tokens / step["seconds"],
                       "predicted_tokens_per_second": tokens / predicted if predicted else None,
                       "mfu": flops / step["seconds"] / peak if peak else None})
    return result


def show(model, entry):
    special, torch = entry["specialised"], entry["opponents"] or {}
    generic, vendor = by_name(entry["generic"]), by_name(torch, "rows")
    in_turns = {row["name"]: row.get("ours_in_turns") for row in torch.get("rows", [])}
    print(f"\n{model} on {special['device']}: copies {special['copy_bytes_per_second'] / 1e12:.2f} TB/s"
          + (f", products {torch['matrix_peak'] / 1e12:.0f} TFLOP/s" if torch else "")
          + f"; predicted for {special['predicted_for']}")
    for row in special["phases"]:
        print(f"  {row['phase']:8} behind {row['past']:6}: {row['seconds'] * 1e6:10.1f} us"
              f", predicted {(row['predicted_seconds'] or 0) * 1e6:10.1f}"
              f"  {row['tokens_per_second'] or 0:10.0f} tokens/s"
              f"  {100 * (row['of_copy_bandwidth'] or 0):5.1f} % of copying")
    for step in entry["training"]:
        print(f"  training, {step['micro_batches']} micro-batches a step: {step['tokens_per_second']:.0f} tokens/s"
              + (f", MFU {100 * step['mfu']:.1f} %" if step["mfu"] else ""))
    load = special["load"]
    if load:
        print(f"  {load['sequences']} sequences, {load['prompt']} in, {load['generate']} out: "
              f"{load['tokens_per_second']:.0f} tokens/s, predicted {load['predicted_tokens_per_second'] or 0:.0f}")
    print(f"  {'kernel':34} {'us':>9} {'generic':>9} {'vendor':>9} {'own':>9}   (products by "
          f"{special.get('products', 'own kernels')})")
    for row in special["kernels"]:
        ours = row.get("own_seconds") or row["seconds"]  # the generic build has our kernels alone
        turns = in_turns.get(row["name"]) or row["seconds"]
        other = [(generic.get(row["name"]), ours), (vendor.get(row["name"]), turns),
                 (row.get("own_seconds"), row["seconds"])]
        cells = "".join(f" {x / y:8.2f}x" if x and y else f" {'-':>9}" for x, y in other)
        print(f"  {row['name']:34} {(row['seconds'] or 0) * 1e6:9.2f}{cells}")


def entry_of(directory, model):
    table = joined(directory, model)
    return table and {"specialised": table, "training": training(table),
                      "generic": read(f"{directory}/{model}.generic.json"),
                      "opponents": read(f"{directory}/{model}.torch.json"),
                      "resolved": read(f"{directory}/{model}.arch.json")}


def verified(directory):
    """What each program said at the end of its verification; none: nothing was verified."""
    return sorted(line for path in glob.glob(directory + "/*.verified") for line in lines(path))


def merged(directory, commit):
    names = sorted(os.path.basename(path)[: -len(".arch.json")]
                   for path in glob.glob(directory + "/*.arch.json"))
    entries = {name: entry_of(directory, name) for name in names}
    models = {name: entry for name, entry in entries.items() if entry}
    tables = [entry["specialised"] for entry in models.values()]
    card = lines(directory + "/card") + [None] * 3  # of nvidia-smi: name, driver, memory
    return {"date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%MZ"),
            "card": tables[0]["device"] if tables else card[0],
            "driver": tables[0]["driver"] if tables else card[1],
            "memory": card[2],
            "predicted_for": tables[0]["predicted_for"] if tables else None,
            "commit": commit, "verified": verified(directory), "notes": lines(directory + "/notes"),
            "models": models, "odd_shapes": read(directory + "/odd_shapes.json"),
            "knobs": read(directory + "/knobs.json")}


def main():
    directory, result, commit = sys.argv[1:4]
    whole = merged(directory, commit)
    with open(result + ".part", "w") as f:
        json.dump(whole, f, indent=1)
    os.replace(result + ".part", result)
    if "--quiet" in sys.argv:
        return
    for model, entry in whole["models"].items():
        show(model, entry)
    for note in whole["notes"]:
        print("note: " + note)


if __name__ == "__main__":
    main()

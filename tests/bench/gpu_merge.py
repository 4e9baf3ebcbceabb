"""gpu_merge.py DIR RESULT COMMIT [--quiet]: one result file of what gpu.sh left in DIR so far, and the
table on the terminal: each kernel specialised, generic and by the vendor, as fractions of this card's
limits."""
import datetime
import glob
import json
import os
import sys


def read(path):
    if not os.path.exists(path) or os.path.getsize(path) == 0:
        return None
    with open(path) as f:
        return json.load(f)


def by_name(result, key="kernels"):
    return {row["name"]: row["seconds"] for row in (result or {}).get(key, [])}


def show(model, entry):
    special, torch = entry["specialised"], entry["opponents"] or {}
    generic, vendor = by_name(entry["generic"]), by_name(torch, "rows")
    in_turns = {row["name"]: row.get("ours_in_turns") for row in torch.get("rows", [])}
    print(f"\n{model} on {special['device']}: copies {special['copy_bytes_per_second'] / 1e12:.2f} TB/s"
          + (f", products {torch['matrix_peak'] / 1e12:.0f} TFLOP/s" if torch else ""))
    for row in special["phases"]:
        print(f"  {row['phase']:8} behind {row['past']:6}: {row['seconds'] * 1e6:10.1f} us"
              f"  {row['tokens_per_second'] or 0:10.0f} tokens/s"
              f"  {100 * (row['of_copy_bandwidth'] or 0):5.1f} % of copying")
    load = special.get("load")
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
        cells = "".join(f" {x / y:8.2f}x" if x else f" {'-':>9}" for x, y in other)
        print(f"  {row['name']:34} {row['seconds'] * 1e6:9.2f}{cells}")


def verified(directory):
    """What each program said at the end of its verification; none: nothing was verified."""
    path = directory + "/verified"
    if not os.path.exists(path):
        return []
    with open(path) as f:
        return sorted(f.read().splitlines())


def main():
    directory, result, commit = sys.argv[1:4]
    models = {}
    for path in sorted(glob.glob(directory + "/*.special.json")):
        model = os.path.basename(path)[: -len(".special.json")]
        special = read(path)
        if special is None:
            continue
        models[model] = {"specialised": special, "generic": read(f"{directory}/{model}.generic.json"),
                         "opponents": read(f"{directory}/{model}.torch.json"),
                         "resolved": read(f"{directory}/{model}.arch.json")}
        if "--quiet" not in sys.argv:
            show(model, models[model])
    if not models:
        sys.exit("nothing was measured")
    first = next(iter(models.values()))["specialised"]
    whole = {"date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%MZ"),
             "card": first["device"], "driver": first["driver"], "commit": commit, "verified": verified(directory),
             "models": models, "odd_shapes": read(f"{directory}/odd_shapes.json")}
    with open(result + ".part", "w") as f:
        json.dump(whole, f, indent=1)
    os.replace(result + ".part", result)


main()

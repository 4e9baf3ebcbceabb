"""odd_shapes.py DIR RESULT: odd shapes beside their siblings, from DIR/MODEL.predicted (of `archc
resolve --json`) and, where they are, DIR/MODEL.measured (of `bench --device cuda --json`). A ratio
above 1: the odd shape takes that much longer for the same bytes."""
import json
import os
import sys

PAIRS = [("group_9", "group_8"), ("group_7", "group_8"), ("odd_d_ff", "group_8"),
         ("head_80", "head_64"), ("head_80", "head_128")]
# Phase, its name in what resolve prints, its sequences (None: whatever), behind about how many
# tokens a program is measured, against the context.
PHASES = [("decode", "decode", 1), ("batch", "decode", 64), ("prefill", "prefill", None),
          ("train", "train", None)]


def read(path):
    if not os.path.exists(path) or os.path.getsize(path) == 0:
        return None
    with open(path) as f:
        return json.load(f)


def predicted(resolved, name, sequences):
    for phase in resolved["phases"]:
        if phase["phase"] == name and sequences in (None, phase["sequences"]):
            return phase["seconds"]
    return None


def measured(bench, name):
    """The phase in the middle of the context, where it stands there more than once."""
    rows = [row for row in (bench or {}).get("phases", []) if row["phase"] == name]
    return rows[len(rows) // 2]["seconds"] if rows else None


def ratio(a, b):
    return a / b if a and b else None


def compare(directory):
    rows = []
    for odd, even in PAIRS:
        what = {m: (read(f"{directory}/{m}.predicted"), read(f"{directory}/{m}.measured"))
                for m in (odd, even)}
        params = [what[m][0]["architecture"]["total_params"] for m in (odd, even)]
        cache = [what[m][0]["metrics"]["kv_bytes"] for m in (odd, even)]
        row = {"odd": odd, "even": even, "params": params[0] / params[1],
               "cache": cache[0] / cache[1], "phases": {}}
        for phase, name, sequences in PHASES:
            row["phases"][phase] = {
                "predicted": ratio(*(predicted(what[m][0], name, sequences) for m in (odd, even))),
                "measured": ratio(*(measured(what[m][1], phase) for m in (odd, even))),
                "measured_seconds": [measured(what[m][1], phase) for m in (odd, even)]}
        rows.append(row)
    return rows


def cell(x):
    return f"{x:.3f}" if x else "-"


def main():
    rows = compare(sys.argv[1])
    print(f"{'odd / even':22} {'bytes':>7} {'cache':>7}  "
          + "  ".join(f"{phase + ' pred., meas.':>22}" for phase, _, _ in PHASES))
    for row in rows:
        print(f"{row['odd'] + ' / ' + row['even']:22} {row['params']:7.4f} {row['cache']:7.4f}  "
              + "  ".join(f"{cell(row['phases'][p]['predicted']):>14}{cell(row['phases'][p]['measured']):>8}"
                          for p, _, _ in PHASES))
    with open(sys.argv[2], "w") as f:
        json.dump(rows, f, indent=1)


main()

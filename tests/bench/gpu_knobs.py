"""gpu_knobs.py: programs whose kernels have one constant changed, in turns with the unchanged one.

    check HEADERS                       every constant of knobs.txt stands in its file
    build TO ARCHC SPEC OPTION..        TO/knob.CONSTANT.NUMBER.MODEL for every line, model and value
    time PROGRAMS DEVICE DIR UNTIL      verifies and times them until that second (date +%s); writes
                                        DIR/knobs.json behind every turn, prints a table

knobs.txt beside this file says which constants, files, models, values."""
import collections
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
HEADERS = os.path.join(HERE, "../../codegen/kernels/cuda")
TURNS = 3
Knob = collections.namedtuple("Knob", "constant file kernels phase models values")


def knobs():
    with open(os.path.join(HERE, "knobs.txt")) as f:
        lines = [line for line in f.read().splitlines() if line and not line.startswith("#")]
    for line in lines:
        constant, file, kernels, phase, models, values = (cell.strip() for cell in line.split("|"))
        yield Knob(constant, file, kernels, phase, models.split(), [v.strip() for v in values.split(";")])


def replaced(text, constant, body):
    """The header with another body of one #define, which may go on over several lines."""
    pattern = re.compile(rf"^(#define {constant}(?:\([a-z_, ]*\))?)[ \\]((?:.*\\\n)*.*)$", re.M)
    found = pattern.findall(text)
    if len(found) != 1:
        sys.exit(f"gpu_knobs.py: {len(found)} definitions of {constant}")
    return pattern.sub(lambda m: f"{m[1]} {body}", text)


def changed(headers, knob, value):
    with open(os.path.join(headers, knob.file)) as f:
        text = f.read()
    new = replaced(text, knob.constant, value)
    if new == text:
        sys.exit(f"gpu_knobs.py: {knob.constant} is {value} already")
    return new


def program_of(knob, number, model):
    return f"knob.{knob.constant}.{number + 1}.{model}"


def each():
    """(knob, number, value, model) of every program."""
    return [(knob, i, value, model) for knob in knobs() for model in knob.models
            for i, value in enumerate(knob.values)]


def check(headers):
    for knob, _, value, _ in each():
        changed(headers, knob, value)


def build(to, archc, spec, *options):
    for knob, number, value, model in each():
        with tempfile.TemporaryDirectory() as directory:
            with open(os.path.join(directory, knob.file), "w") as f:
                f.write(changed(HEADERS, knob, value))
            done = subprocess.run([archc, spec, "-m", model, *options, "--kernels", directory, "-o",
                                   os.path.join(to, program_of(knob, number, model))],
                                  stderr=subprocess.PIPE, text=True)
            if done.returncode:
                sys.exit(f"{done.stderr}gpu_knobs.py: {knob.constant} {value}, {model} does not compile")


# ---- on the card ----


class OutOfTime(Exception):
    pass


def run(command, until):
    """What a program printed; None where it failed or did not end."""
    left = until - time.time()
    if left < 3:
        raise OutOfTime
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=min(60, left))
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as why:
        said = why.stderr or why.stdout or why
        print(f"gpu_knobs.py: {os.path.basename(command[0])} {' '.join(command[1:])}: {said}", file=sys.stderr)
        return None
    return done.stdout


def phases(program, phase, until):
    """Seconds behind each number of cached tokens."""
    out = run([program, "bench", "--device", "cuda", "--whole", "--phase", phase, "--products", "own",
               "--repeat", "5", "--json"], until)
    rows = json.loads(out)["phases"] if out else []
    return {row["past"]: row["seconds"] for row in rows if row["phase"] == phase}


def verified(programs, until, notes):
    """Variants of each (model, phase) that are right: (label, program)."""
    groups = collections.defaultdict(list)
    for knob, number, value, model in each():
        program = os.path.join(programs, program_of(knob, number, model))
        label = (knob.constant, value)
        if not os.path.exists(program):
            notes.append(f"{knob.constant} {value}, {model}: no program")
        elif run([program, "verify", "--device", "cuda", "--only", knob.kernels], until) is None:
            notes.append(f"{knob.constant} {value}, {model}: not verified, so not timed")
        else:
            groups[model, knob.phase].append((label, program))
    return groups


def rows_of(samples):
    """A row for each changed program and place: its median beside that of the unchanged one."""
    rows = []
    for (model, phase, label), times in samples.items():
        for past, seconds in times.items() if label else ():
            base = statistics.median(samples[model, phase, None].get(past, [float("nan")]))
            ours = statistics.median(seconds)
            rows.append({"constant": label[0], "value": label[1], "model": model, "phase": phase,
                         "past": past, "turns": len(seconds), "seconds": ours,
                         "unchanged_seconds": base, "ratio": ours / base})
    return rows


def take_turns(groups, programs, device, until, save):
    samples = collections.defaultdict(lambda: collections.defaultdict(list))
    for _ in range(TURNS):
        for (model, phase), variants in groups.items():
            unchanged = os.path.join(programs, f"{model}.{device}")
            for label, program in [(None, unchanged)] + variants:
                for past, seconds in phases(program, phase, until).items():
                    samples[model, phase, label][past].append(seconds)
            save(rows_of(samples))


def show(rows):
    print(f"{'constant':18} {'model':14} {'phase':6} {'behind':>7} {'us':>9} {'unchanged':>9} {'ratio':>6}  value")
    for row in rows:
        print(f"{row['constant']:18} {row['model']:14} {row['phase']:6} {row['past']:7} {row['seconds'] * 1e6:9.1f}"
              f" {row['unchanged_seconds'] * 1e6:9.1f} {row['ratio']:6.3f}  {row['value']}")


def measure(programs, device, directory, until):
    result = {"rows": [], "notes": []}
    path = os.path.join(directory, "knobs.json")

    def save(rows):
        result["rows"] = rows
        with open(path + ".part", "w") as f:
            json.dump(result, f, indent=1)
        os.replace(path + ".part", path)

    try:
        groups = verified(programs, until, result["notes"])
        take_turns(groups, programs, device, until, save)
    except OutOfTime:
        result["notes"].append("not all turns in time")
    save(result["rows"])
    show(result["rows"])
    for note in result["notes"]:
        print("note: " + note)


def main():
    command, words = sys.argv[1], sys.argv[2:]
    if command == "check":
        check(*words)
    elif command == "build":
        build(*words)
    elif command == "time":
        measure(*words[:3], float(words[3]))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()

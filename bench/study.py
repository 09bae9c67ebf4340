"""What a cell of the position study costs: `python bench/study.py [--turns 3] [--json FILE]`.

CPU seconds of one cell of sweeps/pos_embed.yaml as `vitexp sweep` runs it, with evaluation and probe: all processes of
the sweep count, and what a sweep costs that finds all its cells finished is spread over the cells of the whole study.
Beside it the matrix products of its training steps alone (the floor of `vitexp bench`), and the same run as a process
of its own of a plain timm + Lightning script (bench/plain_timm.py). All take turns, on one thread each; a turn is one
seed of the arms, a figure the median over the turns with the least and the most, a ratio the median of the turns' own.
"""

import argparse
import contextlib
import ctypes
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}

import torch
import yaml

from vitexp.record import read_record
from vitexp.tools import bench

HOME = Path(__file__).absolute().parents[1]
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}
TIMES_FLOOR, TIMES_FASTER = {"fp32": 1.7, "bf16": 2.2}, 3.0
"""The goals: at most so many times the floor, at least so many times faster than separate processes."""
_PR_SET_CHILD_SUBREAPER = 36
_FLOOR_SECONDS = 2.0


def main() -> None:
    """Prints the table, and writes the turns where asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3, help="default: 3")
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS, help="default: both")
    parser.add_argument(
        "--pos-embed", nargs="+", metavar="WORD", help="the baseline and arms with these (default: all)"
    )
    parser.add_argument("--epochs", type=int, default=10, help="of a run (default: 10, as in the study)")
    parser.add_argument("--json", type=Path, help="write the turns here too")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):  # shards and records are made here
        Path("experiments").symlink_to(HOME / "experiments")
        turns = list(measured(chosen))
    print(table(turns))
    if chosen.json:
        chosen.json.write_text(json.dumps(turns, indent=1) + "\n")


def measured(chosen: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """CPU seconds of each turn at each precision; a turn of one epoch first makes the shards and fills caches."""
    for turn in range(chosen.turns + 1):
        for precision in chosen.precisions:
            epochs = chosen.epochs if turn else 1
            cell, images = swept(f"{precision}-{turn}", precision, turn, epochs, chosen.pos_embed)
            options = [f"--precision={PRECISIONS[precision]}", f"--epochs={epochs}", f"--seed={turn}"]
            separate = cpu_seconds(sys.executable, str(HOME / "bench/plain_timm.py"), *options)
            if turn:
                floor = floor_of(images, precision)
                found = {"turn": turn, "precision": precision, "floor": floor, "cell": cell, "separate": separate}
                print(json.dumps(found), file=sys.stderr, flush=True)
                yield found


def swept(name: str, precision: str, seed: int, epochs: int, words: list[str] | None) -> tuple[float, int]:
    """CPU seconds of a cell, and the training images that it saw.

    Raises: SystemExit where a cell did not finish.
    """
    file = yaml.safe_load((HOME / "sweeps/pos_embed.yaml").read_text())
    parameters = file["parameters"]
    base = {name.partition(".")[2]: value for name, value in parameters["study.baseline"]["value"].items()}
    arms = [arm for arm in parameters["model"]["values"] if not words or arm["pos_embed"] in words or arm == base]
    whole_study = len(parameters["model"]["values"]) * len(parameters["seed_everything"]["values"])
    parameters["model"] = {"values": arms}
    parameters["seed_everything"] = {"values": [seed]}
    parameters["trainer"] = {"value": {"precision": PRECISIONS[precision], "max_epochs": epochs}}
    Path(f"{name}.yaml").write_text(yaml.safe_dump(file))
    command = (sys.executable, "-m", "vitexp", "sweep", f"{name}.yaml", "--workers", "1", "--root", name)
    trained, nothing = cpu_seconds(*command), cpu_seconds(*command)
    records = [read_record(path.parent) for path in Path(name).rglob("record.json")]
    if len(records) != len(arms) or any(record.status != "finished" for record in records):
        raise SystemExit(f"{name}: {len(records)} of {len(arms)} cells have a record, or not all are finished")
    return (trained - nothing) / len(arms) + nothing / whole_study, records[0].images_seen or 0


def cpu_seconds(*command: str) -> float:
    """CPU seconds of a command and of every process that it leaves, such as the fork server of a sweep.

    Raises: SystemExit with what it said, where it fails.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # the kernel hands such processes to this one
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def floor_of(images: int, precision: str) -> float:
    """CPU seconds of the matrix products of the training steps: the network of the study, its batch of 64."""
    size = replace(bench.SIZES["digits"], batch=64)
    step = bench._floor(size, bench.PRECISIONS[precision], relative=False)
    return images / size.batch * statistics.median(bench._race({"floor": step}, _FLOOR_SECONDS)["floor"])


def table(turns: list[dict[str, Any]]) -> str:
    """Markdown."""
    heads = ["precision", "floor, s", "cell, s", "times floor", "goal", "own process, s", "times faster", "goal"]
    lines = [f"CPU seconds of one run; {bench._machine()}", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for precision in dict.fromkeys(turn["precision"] for turn in turns):
        own = [turn for turn in turns if turn["precision"] == precision]
        floor, cell, separate = ([turn[name] for turn in own] for name in ("floor", "cell", "separate"))
        over = [a / b for a, b in zip(cell, floor, strict=True)]
        faster = [a / b for a, b in zip(separate, cell, strict=True)]
        most = TIMES_FLOOR[precision]
        goals = [
            f"at most {most:g}, {'met' if statistics.median(over) <= most else 'missed'}",
            f"at least {TIMES_FASTER:g}, {'met' if statistics.median(faster) >= TIMES_FASTER else 'missed'}",
        ]
        cells = [precision, *map(_told, (floor, cell, over)), goals[0], *map(_told, (separate, faster)), goals[1]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _told(figures: list[float]) -> str:
    return f"{statistics.median(figures):.2f} ({min(figures):.2f}-{max(figures):.2f})"


if __name__ == "__main__":
    main()

"""Controls: studies whose answers are known, because the data were drawn so (data/sources/drawn.py).

They test the whole chain: data, training, records, pairing of seeds, statistics, verdicts. `controls_where` must find
every kind of position better than none, and none at chance; `controls_what` must find all equivalent; and an arm must
not differ from itself under other seeds (A/A). Each expectation is compared with what the ordinary table says.
"""

import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vitexp import starter
from vitexp.record import RunRecord, run_directory, write_record
from vitexp.stats import BETTER, WORSE
from vitexp.study.arm import Arm, name
from vitexp.study.cells import SEED, make_cells
from vitexp.study.spec import Study
from vitexp.study.table import Entry, Table, make_table
from vitexp.study.trained import chance_of

WHERE, WHAT = (starter.path("sweeps", f"controls_{study}.yaml") for study in ("where", "what"))
STUDIES = (WHERE, WHAT)
METRIC = "test_acc"
FLOOR, CEILING = 0.5, 0.97
"""Between which accuracies an arm can be seen to be better or worse than another."""
_ERRORS = 2.0
"""Standard errors of an accuracy, by the number of test images, within which it counts as chance."""
HALF = "half"
"""The factor of an A/A test"""
_NO_VERDICT = "no verdict"


@dataclass(frozen=True)
class Answer:
    """One planted answer beside the one that was obtained."""

    arm: str
    expected: str
    obtained: str
    holds: bool


def answers(root: str | Path = "runs") -> list[Answer]:
    """Every planted answer, from the runs of both studies below `root`.

    Raises: ValueError where a study has no finished runs.
    """
    what = make_table(WHAT, root)
    return [*_where(make_table(WHERE, root)), *_what(what), *_same(what, Path(root))]


def shown(answers: Sequence[Answer]) -> str:
    """A line for each answer, and one that counts."""
    rows = [(one.arm, f"expected {one.expected}", f"obtained {one.obtained}") for one in answers]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([*map(str.ljust, row, widths), "holds" if one.holds else "DOES NOT HOLD"])
        for row, one in zip(rows, answers, strict=True)
    ]
    return "\n".join([*lines, f"{sum(one.holds for one in answers)} of {len(answers)} planted answers hold"])


def document(answers: Sequence[Answer]) -> dict[str, Any]:
    """The same for `--json` (docs/json.md)."""
    return {
        "schema": "vitexp.controls/1",
        "holds": all(one.holds for one in answers),
        "answers": [asdict(one) for one in answers],
    }


def _where(table: Table) -> Iterator[Answer]:
    for entry in table.entries[METRIC]:
        if entry.is_baseline:
            yield from _at_chance(entry.arm)
        else:
            verdict = _verdict(entry)
            yield Answer(f"where: {name(entry.arm)}", "better than none", verdict, verdict.startswith(BETTER))


def _at_chance(arm: Arm) -> Iterator[Answer]:
    """Each run by itself: in a mean, runs below chance would hide one above it."""
    for seed in arm.asked:
        run, expected, obtained, holds = arm.runs.get(seed), "chance", "no finished run", False
        if run is not None and (chance := chance_of(run)) is not None:
            error = _ERRORS * math.sqrt(chance * (1 - chance) / run.data["test_images"])
            expected = f"chance, {100 * chance:.2f} ± {100 * error:.2f} %"
            obtained, holds = f"{100 * run.metrics[METRIC]:.2f} %", abs(run.metrics[METRIC] - chance) <= error
        yield Answer(f"where: {name(arm)} seed={seed}", expected, obtained, holds)


def _what(table: Table) -> Iterator[Answer]:
    margin = f"{table.study.config.margin:g}"
    for entry in table.entries[METRIC]:
        if not entry.is_baseline:
            verdict = _verdict(entry)
            small = f"equivalent within {margin}"
            yield Answer(f"what: {name(entry.arm)}", small, verdict, verdict.endswith(small))
    for entry in table.entries[METRIC]:
        mean = sum(entry.values.values()) / max(1, len(entry.values))
        between = f"{100 * FLOOR:.0f} to {100 * CEILING:.0f} %"
        yield Answer(f"what: {name(entry.arm)}", between, f"{100 * mean:.2f} %", FLOOR <= mean <= CEILING)


def _same(table: Table, root: Path) -> Iterator[Answer]:
    """A/A: the first half of each arm's seeds against the second, by the same records and the same table."""
    with tempfile.TemporaryDirectory() as folder:
        halves = make_table(_halved(table, root, Path(folder)), folder)
    for entry in halves.entries[METRIC]:
        if not entry.is_baseline:
            label = name(replace(entry.arm, factors={k: v for k, v in entry.arm.factors.items() if k != HALF}))
            verdict = _verdict(entry)
            differ = verdict.startswith((BETTER, WORSE, _NO_VERDICT))
            yield Answer(f"same: {label}, other seeds", "no difference shown", verdict, not differ)


def _halved(table: Table, root: Path, folder: Path) -> Study:
    """A study of halves. Its runs are copied to `folder`, each half with seeds from 0 on, so that they are paired."""
    points = []
    for arm in table.arms:
        seeds = sorted(arm.runs)
        middle = len(seeds) // 2
        for half, members in (("first", seeds[:middle]), ("second", seeds[middle : 2 * middle])):
            for seed, old in enumerate(members):
                _copy_run(arm.runs[old], root, folder, half, seed)
                points.append({**arm.factors, HALF: half, SEED: seed})
    config = replace(table.study.config, baseline={HALF: "first"})
    return replace(table.study, config=config, known=tuple(make_cells(points)))


def _copy_run(run: RunRecord, root: Path, folder: Path, half: str, seed: int) -> None:
    source = run_directory(root, run.study, run.cell, run.seed)
    target = run_directory(folder, run.study, f"{run.cell}-{half}", seed)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("checkpoints", "metrics", "wandb"))
    config = run.config | {HALF: half, SEED: seed}
    write_record(replace(run, cell=target.parent.name, seed=seed, config=config), target)


def _verdict(entry: Entry) -> str:
    return entry.judgement.verdict if entry.judgement else entry.left_out or _NO_VERDICT

"""The plan of a study: each cell as `vitexp fit` resolves it, before anything trains, and the file that says so."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

from vitexp import metrics
from vitexp.record import flatten, write_atomically
from vitexp.study.cells import SEED, Cell
from vitexp.study.run.worker import Parse, kill, parse_cells
from vitexp.study.spec import Study

PLAN_NAME = "study.json"
FACTS = ("parameters", "steps", "images_seen", "train_flops")
_PARSE_ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class PlannedCell:
    """A cell with what the parser makes of it."""

    cell: Cell
    argv: list[str]
    fingerprint: str
    name: str
    run_directory: str
    config: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else the parser knows beforehand: parameters, steps, images_seen, train_flops."""
    images: Mapping[str, int] = field(default_factory=dict)
    """How many images the splits val and test have, where that is known."""
    measured_on: Mapping[str, str] = field(default_factory=dict)
    """The fingerprints of these images and their labels, where they are known."""
    published: str = ""
    """The published size that stands for a data set which is not here: such a plan has costs, and makes no run."""

    @property
    def label(self) -> str:
        """What varies, in words."""
        return self.cell.label

    @property
    def seed(self) -> int | None:
        """The seed of the resolved config, which may come from its base file."""
        seed = self.config.get(SEED, self.cell.seed)
        return seed if isinstance(seed, int) else None


def plan_study(
    study: Study,
    *,
    parse: Parse,
    context: BaseContext,
    root: str | Path = "runs",
    workers: int = 1,
    extra: Sequence[str] = (),
) -> list[PlannedCell]:
    """Parses every cell; `extra` arguments go to all of them. Writes root/NAME/study.json.

    Raises: ValueError naming the first cell that is refused, with its sentence.
    """
    cells = study.cells()
    planned = plan_cells(study, cells, parse=parse, context=context, root=root, workers=workers, extra=extra)
    write_plan(study, planned, root)
    return planned


def write_plan(study: Study, planned: Sequence[PlannedCell], root: str | Path) -> None:
    """Writes root/NAME/study.json."""
    write_atomically(study_file(root, study.name), json.dumps(_describe(study, planned), indent=1) + "\n")


def plan_cells(
    study: Study,
    cells: Sequence[Cell],
    *,
    parse: Parse,
    context: BaseContext,
    root: str | Path = "runs",
    workers: int = 1,
    extra: Sequence[str] = (),
) -> list[PlannedCell]:
    """Some cells of a study as the parser resolves them.

    Raises: ValueError naming the first one that is refused, with its sentence.
    """
    folder = Path(root) / study.name
    argvs = [[*study.argv(cell, _write_arguments(cell, folder)), *extra] for cell in cells]
    resolved = parse_all(parse, argvs, context, workers)
    refused = [(cell, answer) for cell, answer in zip(cells, resolved, strict=True) if isinstance(answer, str)]
    if refused:
        others = f" ({len(refused) - 1} more are refused)" if len(refused) > 1 else ""
        raise ValueError(f"{study.path}: cell {refused[0][0].label!r} is refused: {refused[0][1]}{others}")
    planned = [
        resolved_cell(cell, argv, answer)
        for cell, argv, answer in zip(cells, argvs, resolved, strict=True)
        if not isinstance(answer, str)
    ]
    _check_directories(study, planned)
    _check_factors(study, planned)
    return planned


def resolved_cell(cell: Cell, argv: list[str], answer: Mapping[str, Any]) -> PlannedCell:
    """A cell with the parser's answer."""
    return PlannedCell(
        cell=cell,
        argv=argv,
        fingerprint=answer["fingerprint"],
        name=answer["cell"],
        run_directory=str(answer["run_directory"]),
        config=answer["config"],
        facts={name: answer[name] for name in FACTS if name in answer},
        images=answer.get("images", {}),
        measured_on=answer.get("measured_on", {}),
        published=answer.get("published", ""),
    )


def study_file(root: str | Path, name: str) -> Path:
    """Where the plan of a study lies."""
    return Path(root) / name / PLAN_NAME


def parse_all(
    parse: Parse, argvs: list[list[str]], context: BaseContext, workers: int
) -> list[Mapping[str, Any] | str]:
    """The parser's answer to each cell's arguments, or the sentence in which it refuses them; in worker processes."""
    answers: dict[int, Mapping[str, Any] | str] = {}
    for _ in range(_PARSE_ATTEMPTS):
        missing = {number: argv for number, argv in enumerate(argvs) if number not in answers}
        if not missing:
            break
        answers |= _parse_in_processes(parse, missing, context, min(workers, len(missing)))
    if len(answers) < len(argvs):
        raise ValueError(
            f"the processes that parse cells were killed {_PARSE_ATTEMPTS} times; there may be too little memory: use "
            "fewer --workers"
        )
    return [answers[number] for number in range(len(argvs))]


def _parse_in_processes(
    parse: Parse, argvs: Mapping[int, list[str]], context: BaseContext, workers: int
) -> dict[int, Mapping[str, Any] | str]:
    """The answers by number; those of a process that was killed are missing."""
    answers: dict[int, Mapping[str, Any] | str] = {}
    processes: dict[Connection, BaseProcess] = {}
    try:
        for worker in range(workers):
            share = dict(list(argvs.items())[worker::workers])
            receiving, sending = context.Pipe(duplex=False)
            with sending:  # its copy in the process alone keeps the pipe open
                processes[receiving] = process = context.Process(target=parse_cells, args=(parse, share, sending))  # type: ignore[attr-defined]
                process.start()
        while processes:
            for ready in cast("list[Connection]", wait(list(processes))):
                try:
                    number, answer = ready.recv()
                    answers[number] = answer
                except (EOFError, OSError):
                    processes.pop(ready).join()
                    ready.close()
    finally:
        for process in processes.values():  # after Ctrl-C
            kill(process)
    return answers


def _write_arguments(cell: Cell, folder: Path) -> Path:
    """The cell's arguments in a file named by its content: what another runner reads is never changed."""
    content = cell.args_json
    path = folder / "cells" / f"{hashlib.sha256(content.encode()).hexdigest()[:12]}.json"
    if not path.exists():
        write_atomically(path, content)
    return path


def _check_directories(study: Study, planned: Sequence[PlannedCell]) -> None:
    owners: dict[str, PlannedCell] = {}
    for cell in planned:
        owner = owners.setdefault(cell.run_directory, cell)
        if owner.fingerprint != cell.fingerprint:
            raise ValueError(
                f"{study.path}: cells {owner.label!r} and {cell.label!r} would share {cell.run_directory}; let the "
                "runs name their own directories (no run.dir in a study)"
            )


def changed_values(cell: PlannedCell) -> dict[str, tuple[Any, Any]]:
    """The values that did not arrive: dotted key to what the study asks for and what the parser makes of it."""
    resolved = flatten(cell.config)
    return {
        key: (asked, resolved[key])
        for key, asked in cell.cell.overrides.items()
        if key in resolved and asked != "auto" and asked != resolved[key] and str(asked) != str(resolved[key])
    }


def _check_factors(study: Study, planned: Sequence[PlannedCell]) -> None:
    for cell in planned:
        for key, (asked, resolved) in changed_values(cell).items():
            if key in study.factors:
                raise ValueError(
                    f"{study.path}: cell {cell.label!r} asks for {key}={asked} and would run with {resolved}; "
                    "give each group of options either as one block or as dotted names"
                )


def _describe(study: Study, planned: Sequence[PlannedCell]) -> dict[str, Any]:
    cells = [
        {
            "index": planned_cell.cell.index,
            "label": planned_cell.label,
            "overrides": planned_cell.cell.overrides,
            "seed": planned_cell.seed,
            "fingerprint": planned_cell.fingerprint,
            "cell": planned_cell.name,
            "run_directory": planned_cell.run_directory,
        }
        for planned_cell in planned
    ]
    return {"study": study.name, "sweep": str(study.path), "sweep_sha256": study.sha256, "cells": cells}


# Which numbers a cell will measure, by its resolved config, and whether the study asks for others.

_READINGS = {"classify": ("acc", "loss", *(row.name for row in metrics.of_logits())), "masked_pixels": ("loss",)}
"""What is read over a split, by objective; the other objectives predict colours."""


def check_metrics(study: Study, planned: Sequence[PlannedCell]) -> None:
    """Raises: ValueError for a metric that the study reports or chooses by and that a cell will not measure."""
    asked = {name: "study.metrics" for name in study.config.metrics}
    if study.config.tune:
        asked |= {study.config.select: "study.select"}
    if study.method == "bayes":
        asked |= {study.metric["name"]: "metric.name"}
    for cell in planned:
        measured = measured_by(cell)
        for name, place in asked.items():
            if measured and name not in measured:
                raise ValueError(
                    f"{study.path}: {place} names {name}, which cell {cell.label!r} will not measure; it measures "
                    f"{', '.join(measured)}"
                )


def measured_by(cell: PlannedCell) -> list[str]:
    """The metrics that a run of the cell will have; none where its config does not say what it learns."""
    config = flatten(cell.config)
    objective = config.get("model.objective")
    if objective is None:
        return []
    readings = _READINGS.get(objective, ("colour_acc", "loss"))
    test = cell.images.get("test") != 0
    found = _of_split(config, "val", readings) if cell.images.get("val") != 0 else []
    found += _of_split(config, "test", readings) if test and config.get("run.test", True) else []
    return found + [f"fewshot_{shots}" for shots in config.get("run.shots") or [] if test]


def _of_split(config: dict[str, object], split: str, readings: Sequence[str]) -> list[str]:
    """A limited evaluation is recorded under another name, because it is not the number of the split."""
    limit = config.get(f"trainer.limit_{split}_batches")
    limited = "" if limit is None or (isinstance(limit, float) and limit == 1.0) else metrics.LIMITED
    return [] if limit == 0 else [f"{limited}{split}_{reading}" for reading in readings]

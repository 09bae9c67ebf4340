"""The cells of a study as `vitexp fit` resolves them, before anything trains, and the file that says so."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vitexp import metrics
from vitexp.record import flatten, write_atomically
from vitexp.study.cells import SEED, Cell
from vitexp.study.run.processes import Parse, parse_cell, worker_pool
from vitexp.study.sequence import PLAN_NAME, stored_plan
from vitexp.study.spec import Study

FACTS = ("parameters", "steps", "images_seen", "train_flops")
_PARSE_ATTEMPTS = 3

Answer = Mapping[str, Any]
"""What the parser makes of a cell: the function `plan` of cli.py gives it."""


@dataclass(frozen=True, kw_only=True)
class ResolvedCell(Cell):
    """A cell with what the parser makes of it; its seed is that of the resolved config, which may be the base file's.

    `facts` is what the parser knows beforehand, `images` how many the splits val and test have, `measured_on` the
    fingerprints of these images and their labels; each as far as it is known. With `published`, the published size of a
    data set that is not here, a cell has costs, and makes no run.
    """

    argv: list[str]
    fingerprint: str
    name: str
    run_directory: str
    config: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, int] = field(default_factory=dict)
    measured_on: Mapping[str, str] = field(default_factory=dict)
    published: str = ""
    own_metrics: Mapping[str, Any] = field(default_factory=dict)
    """What evaluators of the user's own measure of the test images."""


def resolved_cell(cell: Cell, argv: list[str], answer: Answer) -> ResolvedCell:
    """A cell with the parser's answer."""
    seed = answer["config"].get(SEED, cell.seed)
    metrics.learn({cell.label: {"metrics": answer.get("own_metrics")}})
    return ResolvedCell(
        **vars(cell) | {"seed": seed if isinstance(seed, int) else None},
        argv=argv,
        fingerprint=answer["fingerprint"],
        name=answer["cell"],
        run_directory=str(answer["run_directory"]),
        config=answer["config"],
        facts={name: answer[name] for name in FACTS if name in answer},
        **{name: answer[name] for name in ("images", "measured_on", "published", "own_metrics") if name in answer},
    )


def resolve_cells(
    study: Study,
    cells: Sequence[Cell],
    *,
    parse: Parse,
    root: str | Path = "runs",
    workers: int = 1,
    extra: Sequence[str] = (),
) -> list[ResolvedCell]:
    """Cells of a study as the parser resolves them; `extra` arguments go to all of them."""
    argvs = [[*study.argv(cell, _write_arguments(cell, Path(root) / study.name)), *extra] for cell in cells]
    resolved, refused = [], []
    for cell, argv, answer in zip(cells, argvs, parse_all(parse, argvs, workers), strict=True):
        if isinstance(answer, str):
            refused.append(f"cell {cell.label!r} is refused: {answer}")
        else:
            resolved.append(resolved_cell(cell, argv, answer))
    if refused:
        others = f" ({len(refused) - 1} more are refused)" if len(refused) > 1 else ""
        raise ValueError(f"{study.path}: {refused[0]}{others}")
    _check(study, resolved)
    return resolved


def write_cells(study: Study, cells: Sequence[ResolvedCell], root: str | Path, more: Mapping[str, Any]) -> None:
    """Writes root/NAME/study.json: what each cell sets, by which fingerprint its run is known, when it was first asked
    for, and what is `more`.
    """
    before = stored_plan(Path(root) / study.name).get("cells", ())
    known = {one["fingerprint"]: one.get("planned", "") for one in before}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    names = {name: name for name in ("index", "label", "overrides", "seed", "fingerprint")}
    names |= {"cell": "name", "run_directory": "run_directory"}
    described = [
        {key: getattr(cell, name) for key, name in names.items()} | {"planned": known.get(cell.fingerprint, now)}
        for cell in cells
    ]
    content = {
        "study": study.name,
        "sweep": str(study.path),
        "sweep_sha256": study.sha256,
        "command": list(study.command),
        **more,
        "cells": described,
    }
    write_atomically(Path(root) / study.name / PLAN_NAME, json.dumps(content, indent=1) + "\n")


def parse_all(parse: Parse, argvs: Sequence[list[str]], workers: int = 1) -> list[Answer | str]:
    """The parser's answer to each cell's arguments, or the sentence in which it refuses them; in worker processes."""
    answers: dict[int, Answer | str] = {}
    for _ in range(_PARSE_ATTEMPTS):
        missing = [number for number in range(len(argvs)) if number not in answers]
        if not missing:
            break
        with worker_pool(min(workers, len(missing))) as pool, suppress(BrokenProcessPool):  # one was killed
            futures = {number: pool.submit(parse_cell, parse, argvs[number]) for number in missing}
            for number, future in futures.items():
                with suppress(BrokenProcessPool):
                    answers[number] = future.result()
    if len(answers) < len(argvs):
        why = f"the processes that parse cells were killed {_PARSE_ATTEMPTS} times"
        raise ValueError(f"{why}; there may be too little memory: use fewer --workers")
    return [answers[number] for number in range(len(argvs))]


def _write_arguments(cell: Cell, folder: Path) -> Path:
    """The cell's arguments in a file named by its content: what another runner reads is never changed."""
    content = cell.args_json
    path = folder / "cells" / f"{hashlib.sha256(content.encode()).hexdigest()[:12]}.json"
    if not path.exists():
        write_atomically(path, content)
    return path


def _check(study: Study, cells: Sequence[ResolvedCell]) -> None:
    """Raises: ValueError when cells would share a folder, or are not what the study asks for."""
    owners: dict[str, ResolvedCell] = {}
    for cell in cells:
        owner = owners.setdefault(cell.run_directory, cell)
        if owner.fingerprint != cell.fingerprint:
            both = f"cells {owner.label!r} and {cell.label!r} would share {cell.run_directory}"
            raise ValueError(f"{study.path}: {both}; let the runs name their own directories (no run.dir in a study)")
        for key, (asked, resolved) in changed_values(cell).items():
            if key in study.factors:
                what = f"cell {cell.label!r} asks for {key}={asked} and would run with {resolved}"
                raise ValueError(f"{study.path}: {what}; give each group of options as one block or as dotted names")


def changed_values(cell: ResolvedCell) -> dict[str, tuple[Any, Any]]:
    """The values that did not arrive: dotted key to what the study asks for and what the parser makes of it."""
    resolved = flatten(cell.config)
    return {
        key: (asked, resolved[key])
        for key, asked in cell.overrides.items()
        if key in resolved and asked != "auto" and asked != resolved[key] and str(asked) != str(resolved[key])
    }


# Which numbers a cell will measure, by its resolved config, and whether the study asks for others.

_READINGS = {"classify": ("acc", "loss", *(row.name for row in metrics.of_logits())), "masked_pixels": ("loss",)}
"""What is read over a split, by objective; the other objectives predict colours."""


def check_metrics(study: Study, cells: Sequence[ResolvedCell]) -> None:
    """Raises: ValueError for a metric that the study reports or chooses by and that a cell will not measure."""
    asked = {name: "study.metrics" for name in study.config.metrics}
    if study.config.tune:
        asked |= {study.config.select: "study.select"}
    if study.method == "bayes":
        asked |= {study.metric["name"]: "metric.name"}
    for cell in cells:
        measured = measured_by(cell)
        for name, place in asked.items():
            if measured and name not in measured and not metrics.change(name):  # which `vitexp robustness` measures
                what = f"{place} names {name}, which cell {cell.label!r} will not measure"
                raise ValueError(f"{study.path}: {what}; it measures {', '.join(measured)}")


def measured_by(cell: ResolvedCell) -> list[str]:
    """The metrics that a run of the cell will have; none where its config does not say what it learns."""
    config = flatten(cell.config)
    objective = config.get("model.objective")
    if objective is None:
        return []
    found = []
    for split, wanted in (("val", True), ("test", config.get("run.test", True))):
        limit = config.get(f"trainer.limit_{split}_batches")
        if wanted and cell.images.get(split) != 0 and limit != 0:
            # A limited evaluation is recorded under another name, because it is not the number of the split.
            limited = "" if limit is None or (isinstance(limit, float) and limit == 1.0) else metrics.LIMITED
            found += [f"{limited}{split}_{name}" for name in _READINGS.get(objective, ("colour_acc", "loss"))]
    shots = config.get("run.shots") or [] if cell.images.get("test") != 0 else []
    found += [f"test_{name}" for name in cell.own_metrics]
    return found + [f"fewshot_{number}" for number in shots]

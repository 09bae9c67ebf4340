"""A study that gets seeds until it is decided: what was planned before its first run, and which cells come next.

The plan stands in runs/NAME/study.json. Everything else follows from it and the records, so that a run that is killed
anywhere goes on as if nothing had happened.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vitexp.metrics import change
from vitexp.record import checked
from vitexp.stats import planning
from vitexp.study.arm import spelling
from vitexp.study.cells import SEED, Cell, make_cells
from vitexp.study.spec import Study

PLAN_NAME = "study.json"
_FACTOR = 2
"""Times the runs of the sweep file that a study may take, where no budget is given."""


@dataclass(frozen=True)
class Looks:
    """The seeds of every arm in their order, and after how many of them the study looks."""

    seeds: tuple[int, ...]
    after: tuple[int, ...]
    sweep_sha256: str
    since: str = field(default="", compare=False)
    """When they were planned; "" in plans that did not note it yet"""

    def as_stored(self) -> dict[str, Any]:
        """What stands in study.json, with a digest by which a later edit is seen."""
        plain = asdict(self)
        return {**plain, "sha256": hashlib.sha256(json.dumps(plain).encode()).hexdigest()}


def stored_plan(folder: Path) -> dict[str, Any]:
    """What the local runner has planned for a study, with its `cells`; nothing where W&B agents alone ran it.

    Raises: ValueError for a damaged file.
    """
    path = folder / PLAN_NAME
    if not path.is_file():
        return {}
    try:
        stored = checked(json.loads(path.read_text()), dict[str, Any], "the file")
        for cell in checked(stored["cells"], list[dict[str, Any]], "cells"):
            checked(cell["overrides"], dict[str, Any], "overrides")
            checked(cell["fingerprint"], str, "fingerprint")
            checked(cell.get("planned", ""), str, "planned")
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error!r}); remove it, and runs are found by their config") from error
    return stored


def plan_looks(study: Study, root: str | Path, budget: int | None) -> Looks:
    """The plan that the folder of the study holds, or else a new one, for which nothing may have run yet.

    Raises: ValueError when the sweep file or the budget changed since, or the study cannot be planned so.
    """
    arms = arms_of(study)
    listed = sorted({cell.seed for cell in study.cells() if cell.seed is not None})
    if not listed or study.config.tune or not study.config.baseline:
        raise ValueError(
            f"{study.path}: --until-decided needs {SEED} among the parameters, a study.baseline to compare with, and "
            "no study.tune (tune first, then compare)"
        )
    if later := next(filter(change, study.config.metrics), None):
        raise ValueError(f"{study.path}: --until-decided looks while it trains, and {later} is measured afterwards")
    most = (budget or _FACTOR * len(study.cells())) // len(arms)
    if most < planning.MINIMUM_SEEDS:
        raise ValueError(
            f"--budget {budget} is below the first look: {len(arms)} arms take {planning.MINIMUM_SEEDS} seeds each, "
            f"{planning.MINIMUM_SEEDS * len(arms)} runs"
        )
    more = range(listed[-1] + 1, listed[-1] + 1 + max(0, most - len(listed)))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    new = Looks((*listed, *more)[:most], planning.looks(most), study.sha256, now)
    known = read_looks(Path(root) / study.name)
    if known is None:
        return new
    if known.sweep_sha256 != new.sweep_sha256:
        raise ValueError(
            f"{study.path} was changed after its looks were planned ({Path(root) / study.name / PLAN_NAME}): put it "
            "back, or give the changed study another study.name"
        )
    if budget is not None and known != new:
        raise ValueError(
            f"--budget {budget} is not that of the plan, which ends at {known.after[-1]} seeds an arm "
            f"({known.after[-1] * len(arms)} runs): a plan that changes with its results is none; leave --budget out"
        )
    return known


def read_looks(folder: Path) -> Looks | None:
    """The plan in the folder of a study; None where there is none. Raises: ValueError for one that is damaged."""
    path = folder / PLAN_NAME
    try:
        if (stored := stored_plan(folder).get("until_decided")) is None:
            return None
        seeds, after = (tuple(checked(stored[name], list[int], name)) for name in ("seeds", "after"))
        digest, since = (
            checked(stored["sweep_sha256"], str, "sweep_sha256"),
            checked(stored.get("since", ""), str, "since"),
        )
        found = Looks(seeds, after, digest, since)
        if found.after != planning.looks(len(seeds)):
            raise ValueError(f"its looks {list(after)} are not those that were planned for {len(seeds)} seeds")
        if stored.get("sha256", made := found.as_stored()["sha256"]) != made:
            raise ValueError(f"its {len(seeds)} seeds are not those that were planned")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged or was edited ({error}); the study cannot go on by its plan") from error
    return found


def arms_of(study: Study) -> dict[str, Cell]:
    """A cell of each arm, by the spelling of its factors without the seed."""
    found: dict[str, Cell] = {}
    for cell in study.cells():
        found.setdefault(_name(cell.overrides), cell)
    return found


def _name(overrides: Mapping[str, Any]) -> str:
    return spelling({key: value for key, value in overrides.items() if key != SEED})


def with_seeds(study: Study, seeds: Mapping[str, Sequence[int]]) -> Study:
    """The study with its own seeds for each arm. Raises: ValueError where the seed is no parameter of its own."""
    cells = []
    for name, cell in arms_of(study).items():
        if SEED not in cell.arguments:
            raise ValueError(f"{study.path}: write {SEED} as a parameter of its own, so that seeds can be added")
        cells += [{**cell.arguments, SEED: seed} for seed in seeds.get(name, ())]
    return replace(study, known=tuple(make_cells(cells)))


def given_seeds(folder: Path) -> dict[str, list[int]]:
    """The seeds that each arm has been given so far, by its name in `arms_of`; from study.json."""
    found: dict[str, list[int]] = {}
    for cell in stored_plan(folder)["cells"]:
        found.setdefault(_name(cell["overrides"]), []).append(cell["seed"])
    return found

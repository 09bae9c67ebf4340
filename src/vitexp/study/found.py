"""Studies that are read from their runs alone, where no sweep file is at hand."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from vitexp.record import RECORD_NAME, RunRecord, flatten, read_records, result_config
from vitexp.study import mixture
from vitexp.study.cell import SEED, Cell, make_cells
from vitexp.study.spec import Study, StudyConfig, check_setting

PLAN_NAME = "study.json"
_FOLLOWS = ("data.content", "data.subset", "run.init_content")
"""Keys of a resolved config that no sweep sets: they follow from the data set and its size."""


@dataclass(frozen=True)
class FoundStudy(Study):
    """A study whose cells are known from its runs or from the runner's plan, and whose sweep file is not read."""

    known: tuple[Cell, ...] = ()

    def cells(self, seed: int = 0) -> list[Cell]:
        """The cells, which no seed changes: they were drawn before they ran."""
        return list(self.known)


def study_folders(place: str | Path) -> list[Path]:
    """Every folder at or below `place` that holds the runs of a study (ROOT/STUDY/CELL/seed-N/record.json).

    A run with a folder of its own choice, such as ROOT/NAME/last, belongs to none: it would make a study of all ROOT.
    """
    found = sorted({path.parents[2] for path in Path(place).resolve().rglob(f"seed-*/{RECORD_NAME}")})
    here = Path.cwd()
    return [folder.relative_to(here) if folder.is_relative_to(here) and folder != here else folder for folder in found]


def found_study(folder: str | Path) -> FoundStudy:
    """The study whose runs lie in `folder`: cells from the runner's plan, or else from what differs between runs.

    Raises: ValueError when there is no run, or a file of it is damaged.
    """
    folder = Path(folder)
    records, damaged = read_records(folder)
    if not records:
        why = (
            f"no run that can be read: {damaged[0]}" if damaged else "no run; run a study there first (`vitexp sweep`)"
        )
        raise ValueError(f"{folder} holds {why}")
    newest = max(records, key=lambda record: record.started)
    planned = _planned_cells(folder / PLAN_NAME)
    return FoundStudy(
        path=folder,
        sha256="",
        method="grid",
        program=None,
        command=(),
        parameters=(),
        config=_config(newest, folder.name),
        known=tuple(planned or _told_cells(records)),
    )


def _config(record: RunRecord, name: str) -> StudyConfig:
    """The study block of a run; settings that this version does not know are passed over.

    Raises: ValueError for a setting of another kind than the study's.
    """
    block = record.config.get("study") or {}
    known = {f.name: block[f.name] for f in fields(StudyConfig) if block.get(f.name) is not None and f.name != "name"}
    for key, value in known.items():
        try:
            check_setting(key, value)
        except ValueError as error:
            raise ValueError(f"{name}: its newest run cannot be read as a study: {error}") from error
    return StudyConfig(**known | {"name": name, "baseline": flatten(known.get("baseline", {}))})


def _planned_cells(path: Path) -> list[Cell]:
    """The cells that the local runner has planned, those without a run among them; none without a plan."""
    if not path.is_file():
        return []
    try:
        return [
            Cell(index, dict(cell["overrides"]), dict(cell["overrides"]), str(cell["label"]), cell.get("seed"))
            for index, cell in enumerate(json.loads(path.read_text())["cells"])
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}); remove it, and runs are found by their config") from error


def _told_cells(records: Sequence[RunRecord]) -> list[Cell]:
    """One cell for each run: what differs between runs are the factors. Which data set it is goes by its name."""
    flat = [_told(record) for record in records]
    keys = dict.fromkeys(key for config in flat for key in config)
    varied = [key for key in keys if len({mixture.text(config.get(key)) for config in flat}) > 1]
    points = [{key: config.get(key) for key in (*varied, SEED)} for config in flat]
    return make_cells(list({mixture.text(point): point for point in points}.values()))


def _told(record: RunRecord) -> dict[str, Any]:
    config = {key: value for key, value in result_config(record.config).items() if key not in _FOLLOWS}
    return config | {"data.name": record.data.get("name"), SEED: record.seed}

"""Which runs answer a study: its cells are looked up among the records and grouped into arms, paired by seed.

Runs that do not belong together are never pooled in silence (arm.py), and a run that is absent, failed or still
going on is counted as that, never as 0.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from vitexp.record import RunRecord, read_records, result_config
from vitexp.study import cautions, comparison
from vitexp.study.arm import (
    Arm,
    check_alike,
    cut_short,
    finished_runs,
    flat_config,
    other_differences,
    spelling,
    stopped_at,
    value_counts,
)
from vitexp.study.spec import Cell, Study

SEED = "seed_everything"


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Records that lie elsewhere than below a folder, where that is in words, and why others could not be read."""

    place: str
    records: tuple[RunRecord, ...]
    damaged: tuple[str, ...] = ()


Root = str | Path | Runs
"""Where the runs of a study are looked up: below a folder, or among those that were read already."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The arms of a study in the order of its file, with what a reader of any number from them must know."""

    study: Study
    arms: tuple[Arm, ...]
    notes: tuple[str, ...]
    place: str
    """Where the runs are, in words"""
    damaged: tuple[str, ...] = ()
    """A sentence for each record that could not be read"""

    @cached_property
    def cautions(self) -> tuple[str, ...]:
        """What a reader must know before the first number, of the runs that the arms now have."""
        left_out = [f"left out: {sentence}" for sentence in self.damaged]
        return (*cautions.find(self.arms), *comparison.cautions(self.study, self.arms), *left_out)


def select(study: Study, root: Root, where: Mapping[str, Any] | None = None) -> Selection:
    """The runs in `root` that belong to the cells of `study`; `where` keeps only runs whose config has these values.

    Raises: ValueError when the runs of one cell were configured differently, or when `where` fits no run.
    """
    runs, planned = _lookup(study, root)
    place, cells, planned = runs.place, study.cells(), {} if where else planned
    index = _RecordIndex(_kept(list(runs.records), where or {}, place))
    keys = factor_keys(cells)
    arms: dict[str, list[tuple[Cell, list[RunRecord]]]] = defaultdict(list)
    for cell in cells:
        arms[spelling(_factors(cell, keys))].append((cell, _answers(cell, index, keys, planned)))
    found = [[record for _, records in members for record in records] for members in arms.values()]
    check_alike(found, keys, place)
    return Selection(
        study=study,
        arms=tuple(_arm(members, keys) for members in arms.values()),
        notes=tuple(other_differences(found, keys)),
        place=place,
        damaged=runs.damaged,
    )


def factor_keys(cells: Sequence[Cell]) -> list[str]:
    """The dotted keys that differ between cells, the seed left out, in the order of the file."""
    names = dict.fromkeys(key for cell in cells for key in cell.overrides if key != SEED)
    return [key for key in names if len({spelling(cell.overrides.get(key)) for cell in cells}) > 1]


def parse_where(pairs: Iterable[str]) -> dict[str, Any]:
    """`key=value` words as typed after --where; values are read as YAML.

    Raises: ValueError for a word of another form.
    """
    read = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise ValueError(f"--where got {pair!r}; write key=value, such as --where trainer.max_epochs=30")
        try:
            read[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"--where got {pair!r}, whose value is not YAML; write it as in a config") from error
    return read


class _RecordIndex:
    """Records that are looked up by their fingerprint or by any set of config values."""

    def __init__(self, records: Iterable[RunRecord]) -> None:
        self._known = [(flat_config(record), record) for record in records]
        self._by_keys: dict[tuple[str, ...], dict[tuple[str, ...], list[RunRecord]]] = {}

    def of_fingerprint(self, fingerprint: str) -> list[RunRecord]:
        return [record for _, record in self._known if record.fingerprint == fingerprint]

    def of_values(self, wanted: Mapping[str, Any]) -> list[RunRecord]:
        keys = tuple(sorted(wanted))
        if keys not in self._by_keys:
            held = self._by_keys.setdefault(keys, defaultdict(list))
            for config, record in self._known:
                held[tuple(spelling(config.get(key)) for key in keys)].append(record)
        return self._by_keys[keys].get(tuple(spelling(wanted[key]) for key in keys), [])


def _answers(cell: Cell, index: _RecordIndex, keys: Sequence[str], planned: Mapping[str, str]) -> list[RunRecord]:
    """The runs of a cell: by fingerprint where the local runner has noted it, otherwise by all that the cell sets."""
    fingerprint = planned.get(spelling(cell.overrides))
    if fingerprint is not None:
        return index.of_fingerprint(fingerprint)
    matters = {*keys, *result_config(cell.overrides)}
    return index.of_values({key: value for key, value in cell.overrides.items() if key in matters})


def _lookup(study: Study, root: Root) -> tuple[Runs, dict[str, str]]:
    """The runs, and the fingerprints by cell where the local runner has noted them."""
    if isinstance(root, Runs):
        return root, {}
    folder = Path(root) / study.name
    records, damaged = read_records(folder)
    return Runs(place=str(folder), records=tuple(records), damaged=tuple(damaged)), _planned(folder)


def _factors(cell: Cell, keys: Sequence[str]) -> dict[str, Any]:
    return {key: cell.overrides.get(key) for key in keys}


def _arm(members: Sequence[tuple[Cell, list[RunRecord]]], keys: Sequence[str]) -> Arm:
    runs, unfinished = {}, {}
    for cell, found in members:
        done = finished_runs(found)
        if done:
            runs[cell.seed or 0] = max(done, key=lambda record: (record.finished or "", record.started))
        else:
            unfinished[cell.seed or 0] = _why(found)
    return Arm(
        factors=_factors(members[0][0], keys),
        asked=tuple(dict.fromkeys(cell.seed or 0 for cell, _ in members)),
        runs=runs,
        unfinished=unfinished,
    )


def _why(found: Sequence[RunRecord]) -> str:
    """Why a cell has no finished run, from the newest of its records."""
    if not found:
        return "not run"
    last = max(found, key=lambda record: record.started)
    if last.status in ("stopped", "finished"):
        return cut_short(last) or stopped_at(last)
    return f"{last.status} ({last.reason})" if last.reason else last.status


def _kept(records: list[RunRecord], where: Mapping[str, Any], place: str) -> list[RunRecord]:
    wanted = {key: spelling(value) for key, value in where.items()}
    kept = [r for r in records if all(spelling(flat_config(r).get(key)) == value for key, value in wanted.items())]
    if where and records and not kept:
        asked = ", ".join(f"{key}={value}" for key, value in where.items())
        held = "; ".join(f"{key}: {value_counts(records, key)}" for key in where)
        raise ValueError(f"none of the {len(records)} runs in {place} has {asked}; they have {held}")
    return kept


def _planned(folder: Path) -> dict[str, str]:
    """The fingerprint that the local runner gave each cell, by what the cell sets; W&B agents leave no such file."""
    path = folder / "study.json"
    if not path.is_file():
        return {}
    try:
        cells = json.loads(path.read_text())["cells"]
        return {spelling(cell["overrides"]): cell["fingerprint"] for cell in cells}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}); remove it, and runs are found by their config") from error

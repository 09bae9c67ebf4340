"""Which runs answer a study: its cells are looked up among the records and grouped into arms, paired by seed.

Runs that do not belong together are never pooled in silence (arm.py), and a run that is absent, failed or still
going on is counted as that, never as 0. Without a sweep file at hand the runs themselves, or the server of W&B, say
what the study was.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, fields, replace
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

import yaml

from vitexp.record import RECORD_NAME, RunRecord, read_records, result_config
from vitexp.robust import with_tests
from vitexp.study.arm import (
    Arm,
    check_alike,
    clause,
    differing_keys,
    flat_config,
    name,
    run_cautions,
    spelling,
    value_counts,
)
from vitexp.study.cells import SEED, Cell, make_cells
from vitexp.study.comparison import Comparisons
from vitexp.study.samples import unsound_answers
from vitexp.study.sequence import Looks, given_seeds, read_looks, stored_plan, with_seeds
from vitexp.study.spec import TOP_KEYS, Study, StudyConfig, make_config, parse_study, read_study
from vitexp.study.trained import cut_short, finished_runs, stopped_at
from vitexp.study.wandb_answers import with_answers
from vitexp.wandb_record import from_wandb, unreachable

SECONDS = 30
"""How long one question to W&B's server may take."""
PAGE = 100
"""Runs with their configs in one of its answers."""
PLANNED_LOOKS = "cells of planned looks, by vitexp sweep --until-decided"
"""The description of a sweep that serves a plan, which W&B does not hold."""
_WITHOUT_LOOKS = (
    "this sweep serves planned looks (--until-decided), which W&B does not hold: verdicts take the number of seeds "
    "as fixed, and so err in more than 5 % of studies; where runs/{name}/study.json is, `vitexp table FILE` counts them"
)
_OTHER_COMMAND = "the command of the sweep file is another than when these runs were planned: run `vitexp sweep` again"
_FOLLOWS = ("data.content", "data.subset", "run.init_content")
"""Keys of a resolved config that no sweep sets: they follow from the data set and its size."""


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Records that lie elsewhere than below a folder, where that is as text, why others could not be read, and what
    else there is to know of them."""

    location: str
    records: tuple[RunRecord, ...]
    damaged: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    """Those of the records' runs there."""


Root = str | Path | Runs
"""Where the runs of a study are looked up: below a folder, or among those that were read already."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The arms of a study in the order of its file, with what a reader of any number from them must know."""

    study: Study
    arms: tuple[Arm, ...]
    notes: tuple[str, ...]
    location: str
    """The folder of the runs, or the W&B sweep"""
    damaged: tuple[str, ...] = ()
    """A sentence for each record that could not be read"""
    looks: Looks | None = None
    """The plan of a study that gets seeds until it is decided"""

    @cached_property
    def confounded(self) -> tuple[str, ...]:
        """For each arm in what it differs from its baseline besides what is compared; empty where in nothing."""
        comparisons = Comparisons(self.arms, self.study.config)
        pairs = [(arm, comparisons.baseline_of(arm)) for arm in self.arms]
        return tuple(comparisons.unlike(arm, base) if base and base is not arm else "" for arm, base in pairs)

    @cached_property
    def cautions(self) -> tuple[str, ...]:
        """What a reader must know before the first number, of the runs that the arms now have."""
        pairs = zip(self.arms, self.confounded, strict=True)
        several = [f"{name(arm)} (it and the baseline {text})" for arm, text in pairs if text]
        confounded = clause("confounded, and so not compared with the baseline", several, len(several), "; ")
        config = self.study.config
        unsound = unsound_answers(self.arms, config.metrics) if config.images == "such" else ()
        return (*run_cautions(self.arms), *confounded, *(f"left out: {text}" for text in self.damaged), *unsound)


def select(study: Study, root: Root, where: Mapping[str, Any] | None = None) -> Selection:
    """The runs in `root` that belong to the cells of `study`; `where` keeps only runs whose config has these values.

    A study that gets seeds until it is decided has all that its plan has given to its arms.
    Raises: ValueError when the runs of one cell were configured differently, or when `where` fits no run.
    """
    planned, runs, looks = [], root, None
    if not isinstance(runs, Runs):
        folder = Path(runs) / study.name
        if looks := read_looks(folder):
            study = with_seeds(study, given_seeds(folder))
        stored, (records, damaged) = stored_plan(folder), read_records(folder)
        planned, before = _planned(stored), stored.get("command", list(study.command))
        tested = [with_tests(record, damaged) for record in records]
        notes = (_OTHER_COMMAND,) if study.parameters and before != list(study.command) else ()
        runs = Runs(location=str(folder), records=tuple(tested), damaged=tuple(damaged), notes=notes)
    fingerprints = {} if where else {spelling(cell.overrides): fingerprint for cell, fingerprint in planned}
    cells, records = study.cells(), _kept(runs, where or {})
    keys = [key for key in differing_keys([cell.overrides for cell in cells]) if key != SEED]
    arms: dict[str, list[tuple[Cell, list[RunRecord]]]] = defaultdict(list)
    for cell, answers in zip(cells, _answers(cells, records, keys, fingerprints), strict=True):
        arms[spelling([cell.overrides.get(key) for key in keys])].append((cell, answers))
    found = [finished_runs(record for _, answers in members for record in answers) for members in arms.values()]
    return Selection(
        study=study,
        arms=tuple(_arm(members, keys, bool(where)) for members in arms.values()),
        notes=(*_only(where or {}), *check_alike(found, keys, runs.location), *runs.notes),
        location=runs.location,
        damaged=runs.damaged,
        looks=looks,
    )


def _kept(runs: Runs, where: Mapping[str, Any]) -> list[RunRecord]:
    wanted = {key: spelling(value) for key, value in where.items()}
    kept = [r for r in runs.records if all(spelling(flat_config(r).get(key)) == value for key, value in wanted.items())]
    if runs.records and not kept:
        asked = ", ".join(f"{key}={value}" for key, value in where.items())
        held = "; ".join(f"{key}: {value_counts(runs.records, key)}" for key in where)
        raise ValueError(f"none of the {len(runs.records)} runs in {runs.location} has {asked}; they have {held}")
    return kept


def _answers(
    cells: Sequence[Cell], records: Sequence[RunRecord], keys: Sequence[str], planned: Mapping[str, str]
) -> list[list[RunRecord]]:
    """The runs of each cell: by fingerprint where the local runner noted it, otherwise by all that the cell sets."""
    by_fingerprint: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        by_fingerprint[record.fingerprint].append(record)
    known: dict[tuple[str, ...], dict[str, list[RunRecord]]] = {}
    found = []
    for cell in cells:
        if fingerprint := planned.get(spelling(cell.overrides)):
            found.append(by_fingerprint.get(fingerprint, []))
            continue
        matters = {*keys, *result_config(cell.overrides)}
        wanted = {key: value for key, value in cell.overrides.items() if key in matters}
        if tuple(wanted) not in known:
            by_values = known[tuple(wanted)] = defaultdict(list)
            for config, record in ((flat_config(record), record) for record in records):
                by_values[spelling([config.get(key) for key in wanted])].append(record)
        found.append(known[tuple(wanted)].get(spelling(list(wanted.values())), []))
    return found


def _only(where: Mapping[str, Any]) -> list[str]:
    return [f"only runs with {', '.join(f'{key}={value}' for key, value in where.items())} (--where)"] if where else []


def _arm(members: Sequence[tuple[Cell, list[RunRecord]]], keys: Sequence[str], some: bool) -> Arm:
    runs, unfinished = {}, {}
    for cell, found in members:
        if done := finished_runs(found):
            runs[cell.seed or 0] = max(done, key=lambda record: (record.finished or "", record.started))
        else:
            unfinished[cell.seed or 0] = _why(found) if found or not some else "not among these runs"
    return Arm(
        factors={key: members[0][0].overrides.get(key) for key in keys},
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


def parse_where(pairs: Iterable[str]) -> dict[str, Any]:
    """`key=value` words as typed after --where; values are read as YAML. Raises: ValueError for other words."""
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


def study_folders(path: str | Path) -> list[Path]:
    """Every folder at or below `path` that holds the runs of a study (ROOT/STUDY/CELL/seed-N/record.json).

    A run with a folder of its own choice, such as ROOT/NAME/last, belongs to none: it would make a study of all ROOT.
    """
    found = sorted({path.parents[2] for path in Path(path).resolve().rglob(f"seed-*/{RECORD_NAME}")})
    here = Path.cwd()
    return [folder.relative_to(here) if folder.is_relative_to(here) and folder != here else folder for folder in found]


def found_study(folder: str | Path) -> Study:
    """The study whose runs lie in `folder`: cells from the runner's plan, or else from what differs between runs.

    Raises: ValueError when there is no run, or a file of it is damaged.
    """
    folder = Path(folder)
    records, damaged = read_records(folder)
    if not records:
        why = f" that can be read: {damaged[0]}" if damaged else "; run a study there first (`vitexp sweep`)"
        raise ValueError(f"{folder} holds no run{why}")
    cells = [cell for cell, _ in _planned(stored_plan(folder))] or _cells_of_records(records)
    block = max(records, key=lambda record: record.started).config.get("study") or {}
    # settings that this version does not know are passed over
    known = {one.name: block[one.name] for one in fields(StudyConfig) if block.get(one.name) is not None}
    try:
        return Study(path=folder, config=make_config(known | {"name": folder.name}), known=tuple(cells))
    except ValueError as error:
        raise ValueError(f"{folder.name}: its newest run cannot be read as a study: {error}") from error


def _planned(stored: Mapping[str, Any]) -> list[tuple[Cell, str]]:
    """The planned cells with their fingerprints."""
    return [
        (Cell(index, one["overrides"], one["overrides"], one.get("label", ""), one.get("seed")), one["fingerprint"])
        for index, one in enumerate(stored.get("cells", ()))
    ]


def _cells_of_records(records: Sequence[RunRecord]) -> list[Cell]:
    """One cell for each run: what differs between runs are the factors. Which data set it is goes by its name."""
    flat = []
    for record in records:
        config = {key: value for key, value in result_config(record.config).items() if key not in _FOLLOWS}
        flat.append(config | {"data.name": record.data.get("name"), SEED: record.seed})
    points = [{key: config.get(key) for key in (*differing_keys(flat), SEED)} for config in flat]
    return make_cells(list({spelling(point): point for point in points}.values()))


def read_sweep(address: str, file: str | None = None) -> tuple[Study, Runs]:
    """The study in `file`, or else the one that the W&B sweep itself holds, and the sweep's runs.

    Raises: ValueError when the address is no ENTITY/PROJECT/SWEEP, or the server does not show it.
    """
    parts = address.partition("?")[0].split("/")
    if "://" in address:  # that of the sweep's page
        parts = [word for word in parts[3:] if word != "sweeps"]
    if len(parts) != 3 or not all(parts):
        raise ValueError(
            f"--from wandb got {address!r}; write ENTITY/PROJECT/SWEEP, as `wandb sweep` printed it after `wandb agent`"
        )
    path = "/".join(parts)
    settings, runs = _ask(*parts)
    study = read_study(file) if file else parse_study(Path(path), yaml.safe_dump(settings).encode())
    if study.method != "grid":
        raise ValueError(
            f"the W&B sweep {path} is a {study.method} search, whose cells nobody knows beforehand; grids are read"
        )
    found = _read_runs(f"the W&B sweep {path}", runs)
    if settings.get("description") == PLANNED_LOOKS:
        found = replace(found, notes=(_WITHOUT_LOOKS.format(name=study.name),))
    if study.config.images != "such":
        return study, found
    records, notes = with_answers(zip(found.ids, found.records, strict=True), parts[0], parts[1], SECONDS)
    return study, replace(found, records=records, notes=(*found.notes, *notes))


ServerRun = tuple[str, dict[str, Any], dict[str, Any], str]
"""The id, config, summary and state of a run on W&B's server; its name is for people, and other runs may have it."""


def _ask(entity: str, project: str, name: str) -> tuple[dict[str, Any], list[ServerRun]]:
    """The settings and runs of a sweep. What the client says to the terminal is left out."""
    import wandb

    path = f"{entity}/{project}/{name}"
    try:
        with redirect_stderr(StringIO()):
            if why := unreachable(wandb.setup().settings.base_url):
                raise ConnectionError(why)
            api = wandb.Api(timeout=SECONDS)
            settings = {key: value for key, value in api.sweep(path).config.items() if key in TOP_KEYS}
            found = api.runs(f"{entity}/{project}", filters={"sweep": name}, per_page=PAGE, lazy=False)
            # summaries as the server sent them, without the client's way of wrapping nested values
            runs = [(str(one.id), dict(one.config), dict(one.summary._json_dict), str(one.state)) for one in found]
    except (wandb.errors.Error, ValueError, OSError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, wandb.errors.UsageError):
            raise ValueError(f"W&B does not know you ({why}); run `wandb login`, or set WANDB_API_KEY") from error
        raise ValueError(f"the W&B sweep {path} cannot be read: {why}") from error
    return settings, runs


def _read_runs(location: str, runs: Iterable[ServerRun]) -> Runs:
    """The runs as records; a sentence for each that is damaged."""
    records, damaged = {}, []
    for run, config, summary, state in runs:
        try:
            records[run] = from_wandb(config, summary, state)
        except (TypeError, ValueError) as error:
            damaged.append(f"run {run} in {location} is not a run record ({error})")
    return Runs(location=location, records=tuple(records.values()), damaged=tuple(damaged), ids=tuple(records))

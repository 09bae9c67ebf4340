"""Studies that are read from their runs alone, where no sweep file is at hand."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, fields
from io import StringIO
from pathlib import Path
from typing import Any

import yaml

from vitexp.flat_record import from_wandb
from vitexp.reach import unreachable
from vitexp.record import RECORD_NAME, RunRecord, flatten, read_records, result_config
from vitexp.study.arm import spelling
from vitexp.study.cells import SEED, Cell, make_cells
from vitexp.study.select import Runs
from vitexp.study.spec import TOP_KEYS, Study, StudyConfig, check_setting, parse_study, read_study

# The runs of a W&B sweep as records, and its settings as a study: what ran under agents anywhere.

SECONDS = 30
"""How long one question to the server may take."""
PAGE = 100
"""Runs with their configs in one answer."""


def read_sweep(place: str, file: str | None = None) -> tuple[Study, Runs]:
    """The study in `file`, or else the one that the sweep itself holds, and the sweep's runs.

    Raises: ValueError when the place is no ENTITY/PROJECT/SWEEP, or the server does not show it.
    """
    entity, project, name = _path(place)
    path = f"{entity}/{project}/{name}"
    with _asking(path):
        import wandb

        if why := unreachable(wandb.setup().settings.base_url):
            raise ConnectionError(why)
        api = wandb.Api(timeout=SECONDS)
        sweep = api.sweep(path)
        found = api.runs(f"{entity}/{project}", filters={"sweep": name}, per_page=PAGE, lazy=False)
        runs = [(str(run.name), dict(run.config), _plain(run.summary), str(run.state)) for run in found]
        settings = {key: value for key, value in sweep.config.items() if key in TOP_KEYS}
    study = read_study(file) if file else parse_study(Path(path), yaml.safe_dump(settings).encode())
    if study.method != "grid":
        raise ValueError(
            f"the W&B sweep {path} is a {study.method} search, whose cells nobody knows beforehand; grids are read"
        )
    return study, _records(f"the W&B sweep {path}", runs)


def _records(place: str, runs: Iterable[tuple[str, dict[str, Any], dict[str, Any], str]]) -> Runs:
    """The runs as records, from their names, configs, summaries and states; a sentence for each that is damaged."""
    records, damaged = [], []
    for name, config, summary, state in runs:
        try:
            records.append(from_wandb(config, summary, state))
        except (TypeError, ValueError) as error:
            damaged.append(f"run {name} in {place} is not a run record ({error})")
    return Runs(place=place, records=tuple(records), damaged=tuple(damaged))


def _path(place: str) -> tuple[str, str, str]:
    """Entity, project and sweep, also from the address of the sweep's page."""
    words = place.partition("?")[0].split("/")
    if "://" in place:
        words = [word for word in words[3:] if word != "sweeps"]
    if len(words) != 3 or not all(words):
        raise ValueError(
            f"--from wandb got {place!r}; write ENTITY/PROJECT/SWEEP, as `wandb sweep` printed it after `wandb agent`"
        )
    return words[0], words[1], words[2]


@contextmanager
def _asking(path: str) -> Iterator[None]:
    """What the client says to the terminal is left out; why it failed becomes one sentence."""
    import wandb

    try:
        with redirect_stderr(StringIO()):
            yield
    except wandb.errors.UsageError as error:
        raise ValueError(f"W&B does not know you ({_words(error)}); run `wandb login`, or set WANDB_API_KEY") from error
    except (wandb.errors.Error, ValueError, OSError) as error:
        raise ValueError(f"the W&B sweep {path} cannot be read: {_words(error)}") from error


def _plain(summary: Any) -> dict[str, Any]:
    """A summary as the server sent it, without the client's way of wrapping nested values."""
    held: dict[str, Any] = summary._json_dict
    return dict(held)


def _words(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


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
        known=tuple(planned or _cells_of_records(records)),
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


def _cells_of_records(records: Sequence[RunRecord]) -> list[Cell]:
    """One cell for each run: what differs between runs are the factors. Which data set it is goes by its name."""
    flat = [_settings(record) for record in records]
    keys = dict.fromkeys(key for config in flat for key in config)
    varied = [key for key in keys if len({spelling(config.get(key)) for config in flat}) > 1]
    points = [{key: config.get(key) for key in (*varied, SEED)} for config in flat]
    return make_cells(list({spelling(point): point for point in points}.values()))


def _settings(record: RunRecord) -> dict[str, Any]:
    config = {key: value for key, value in result_config(record.config).items() if key not in _FOLLOWS}
    return config | {"data.name": record.data.get("name"), SEED: record.seed}

"""The runs of a W&B sweep as records, and its settings as a study: what ran under agents anywhere."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import yaml

from vitexp.flat_record import from_wandb
from vitexp.reach import unreachable
from vitexp.study.select import Runs
from vitexp.study.spec import TOP_KEYS, Study, parse_study, read_study

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

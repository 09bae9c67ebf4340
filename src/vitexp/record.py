"""The record of a run: the file format in which the training wing and the study wing meet.

A record is written once as "running" and once as "finished", "stopped" or "failed", each time atomically. Nothing else
says whether a run is done: a terminated process may exit with status 0. "finished" means that the last planned step was
taken; "stopped" means that training ended before it, with the reason and both numbers of steps.
"""

import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

RECORD_NAME = "record.json"
STATUSES = ("running", "finished", "stopped", "failed")
FORMAT = 2
"""Version of the record's format. Records of format 1 have no planned steps, no answers and no learning."""

# What cannot change the numbers of a run: where things lie, who watches, how the work is spread over machines.
_NEUTRAL = re.compile(
    r"(run\.(root|dir|wandb|project|download|checkpoint\w*)|study|config|ckpt_path|trainer\.(logger|callbacks|default_root_dir|devices|num_nodes|accelerator|strategy|plugins|"
    r"enable_\w+|log_every_n_steps|profiler|barebones|use_distributed_sampler|sync_batchnorm|detect_anomaly)|"
    r"data\.(shards|workers|reader|seed)|model\.(classes|image_size))(\..*)?"
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

_ADDED = {"model.gelu": "tanh"}
"""Options that came later, with what runs did before: at that value they do not count, so old fingerprints hold."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One training run: what was asked, what came out. A number that was not measured is absent, never 0."""

    study: str
    cell: str
    seed: int
    fingerprint: str
    status: str
    reason: str | None = None
    config: dict[str, Any]
    metrics: dict[str, float] = field(default_factory=dict)
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    parameters: int | None = None
    train_flops: float | None = None
    images_seen: int | None = None
    steps: int | None = None
    planned_steps: int | None = None
    """Optimiser steps that the config asks for; `steps` are those taken."""
    epochs: float | None = None
    train_seconds: float | None = None
    learning: dict[str, float] = field(default_factory=dict)
    """What shows whether a run trained: train_loss_start, train_loss_end, chance_acc (share of the largest class)."""
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """One packed bit per image that was measured, by metric (test_acc, fewshot_5/draw-0): file, images, right, sha256,
    and the fingerprint of the order of the images."""
    data: dict[str, Any] = field(default_factory=dict)
    code: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    device: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    started: str = ""
    finished: str | None = None
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status {self.status!r} is none of {', '.join(STATUSES)}")


def write_atomically(path: str | os.PathLike[str], content: str | bytes | memoryview) -> None:
    """Puts `content` at `path` whole or not at all, also when the machine stops in the middle."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and not error.filename:
            error.filename = str(path)  # a full disk does not say which file it had no room for
        raise


def write_record(record: RunRecord, directory: str | os.PathLike[str]) -> Path:
    """Writes `directory/record.json`; non-finite numbers become their names, so that any JSON reader can read it."""
    path = Path(directory) / RECORD_NAME
    write_atomically(path, json.dumps(_finite(asdict(record)), indent=1, allow_nan=False) + "\n")
    return path


def read_record(path: str | os.PathLike[str]) -> RunRecord:
    """Reads a record file or the one in a run directory.

    Raises: ValueError naming the file when it is not a whole record.
    """
    path = Path(path)
    path = path / RECORD_NAME if path.is_dir() else path
    known = {f.name for f in fields(RunRecord)}
    try:
        stored = json.loads(path.read_text())
        record = RunRecord(**{"format": 1, **{name: value for name, value in stored.items() if name in known}})
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a run record ({error}); move it away and run the cell again") from error
    return RunRecord(**{**vars(record), "metrics": _numbers(record.metrics), "curves": _curves(record.curves)})


def find_records(root: str | os.PathLike[str]) -> list[RunRecord]:
    """Every record below `root`, in the order of their paths."""
    return [read_record(path) for path in sorted(Path(root).rglob(RECORD_NAME))]


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested config as dotted keys; lists, and mappings that are empty, stay values."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def result_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The dotted keys of `config` that can change a run's numbers."""
    flat = sorted(flatten(config).items())
    return {k: v for k, v in flat if not _NEUTRAL.fullmatch(k) and (k not in _ADDED or v != _ADDED[k])}


def fingerprint(config: Mapping[str, Any]) -> str:
    """12 hexadecimal digits of what can change a run's numbers, the seed included."""
    return _digest(result_config(config))


def cell_fingerprint(config: Mapping[str, Any]) -> str:
    """The same with the seed left out: equal for all replicates of one cell."""
    return _digest({key: value for key, value in result_config(config).items() if key != "seed_everything"})


def check_name(name: str, where: str) -> None:
    """Refuses what is no plain name of a folder, such as a study's.

    Raises: ValueError.
    """
    if not _NAME.fullmatch(name):
        shown = name if len(name) <= 60 else f"{name[:60]}..."
        raise ValueError(
            f"{where} is {shown!r}, which is no directory name; use up to 100 letters, digits, '.', '_' and '-', "
            "beginning with a letter or a digit"
        )


def run_directory(root: str | os.PathLike[str], study: str, cell: str, seed: int) -> Path:
    """Where a run keeps its record: root/study/cell/seed-n."""
    return Path(root) / study / cell / f"seed-{seed}"


def _digest(flat: Mapping[str, Any]) -> str:
    text = json.dumps({key: _plain(value) for key, value in flat.items()}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _plain(value: Any) -> Any:
    """1 and 1.0 from two writers are the same value."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


def _curves(curves: Mapping[str, Any]) -> dict[str, list[tuple[int, float]]]:
    return {name: [(int(step), float(value)) for step, value in points] for name, points in curves.items()}

"""What a run answered to changed test images: a file beside its record, which stays as training wrote it.

`vitexp robustness` writes it, one entry for each change. Readers of records take the entries for metrics of the run,
`robust/NAME`, with the answers to each image. The file names the training that it is about: where a run was trained
again, what was measured on the weights before is passed over.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from vitexp.metrics import CORRUPTIONS, ROBUST
from vitexp.record import RunRecord, write_atomically

FILE = "robustness.json"
SEVERITIES = range(1, 6)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network to be tested: its name for people, its checkpoint, and the folder for what is found."""

    name: str
    checkpoint: Path
    folder: Path
    record: RunRecord | None = None

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits of the checkpoint."""
        with open(self.checkpoint, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def read_tests(folder: str | Path, record: RunRecord | None) -> dict[str, dict[str, Any]]:
    """The entries by the names of the changes: accuracy, key, settings, answers; none where there is no file, or it is
    about another training than that of the record.

    Raises: ValueError for a file that is damaged.
    """
    path = Path(folder) / FILE
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        found = {name: _entry(one) for name, one in stored["tests"].items()} if stored["run"] == _run(record) else {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read ({error!r}); remove it and run `vitexp robustness` again") from error
    return found


def _entry(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Raises: ValueError, KeyError or TypeError for an entry that is none."""
    found = {name: stored[name] for name in ("accuracy", "key", "settings", "answers")}
    if not (type(found["accuracy"]) in (int, float) and 0 <= found["accuracy"] <= 1):
        raise ValueError("an accuracy is no share")
    if not isinstance(found["answers"], dict):
        raise TypeError("the answers are no mapping")
    return found


def write_tests(folder: str | Path, record: RunRecord | None, tests: Mapping[str, Any]) -> Path:
    """Writes the entries of a training, whole or not at all."""
    path = Path(folder) / FILE
    content = {"format": 1, "run": _run(record), "tests": dict(sorted(tests.items()))}
    write_atomically(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
    return path


def _run(record: RunRecord | None) -> list[str | None]:
    return [record.fingerprint, record.finished] if record else [None, None]


def with_tests(record: RunRecord, damaged: list[str]) -> RunRecord:
    """The record with the metrics `robust/...` of the file beside it; what is wrong with a file goes to `damaged`.

    A family of corruptions has its mean over the five severities, where all were measured.
    """
    try:
        tests = read_tests(record.directory, record) if record.directory else {}
    except ValueError as error:
        damaged.append(str(error))
        return record
    if not tests:
        return record
    values = {f"{ROBUST}{name}": float(one["accuracy"]) for name, one in tests.items()}
    answers = {f"{ROBUST}{name}": one["answers"] | {"settings": one["settings"]} for name, one in tests.items()}
    for family in (f"{whose}{name}" for whose in (ROBUST, f"{ROBUST}ours_") for name in CORRUPTIONS):
        levels = {level: f"{family}_{level}" for level in SEVERITIES}
        if all(name in values for name in levels.values()):
            values[family] = math.fsum(values[name] for name in levels.values()) / len(levels)
            answers |= {f"{family}/draw-{level}": answers[name] for level, name in levels.items()}
    return replace(record, metrics=record.metrics | values, answers=record.answers | answers)

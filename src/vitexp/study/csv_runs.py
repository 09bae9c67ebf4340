"""Somebody else's runs from a plain CSV file: a column arm, a column seed, and one column for each metric."""

import csv
import io
import math
import re
from pathlib import Path

from vitexp import strict
from vitexp.metrics import is_share
from vitexp.record import RunRecord
from vitexp.study.arm import spelling
from vitexp.study.cells import SEED, make_cells
from vitexp.study.select import Runs
from vitexp.study.spec import Study, make_config

ARM, SEED_COLUMN = "arm", "seed"
_KEY = "csv.arm"
"""The dotted key under which an arm's name stands."""


def is_csv(path: str | Path) -> bool:
    """Whether a study is given as a table of numbers."""
    return Path(path).suffix.lower() == ".csv"


def read_csv(path: str | Path, baseline: str | None = None, margin: float | None = None) -> tuple[Study, Runs]:
    """The study in a file, whose first arm is the baseline unless one is named; accuracies are shares (0 to 1).

    Raises: ValueError naming the line and what to write instead.
    """
    path = Path(path)
    try:
        reader = csv.DictReader(io.StringIO(strict.read(path)), skipinitialspace=True)
        lines, header = list(reader), list(reader.fieldnames or ())
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from error
    metrics = [key for key in (lines[0] if lines else {}) if key and key not in (ARM, SEED_COLUMN)]
    if not lines or not {ARM, SEED_COLUMN} <= lines[0].keys() or not metrics:
        raise ValueError(f"{path} needs a header arm,seed,METRIC, such as arm,seed,test_acc, and a line for each run")
    if repeated := [key for key in metrics if header.count(key) > 1]:
        raise ValueError(f"{path} has two columns {repeated[0]}; take one out")
    records = [_record(path, number, line, metrics) for number, line in enumerate(lines, 2)]
    names = list(dict.fromkeys(record.cell for record in records))
    twice = {(record.cell, record.seed) for record in records}
    if len(twice) < len(records):
        raise ValueError(f"{path} has two lines of the same arm and seed; each run has one")
    if len(spelled := {spelling(name): name for name in names}) < len(names):
        same = next(name for name in names if name not in spelled.values())
        raise ValueError(f"{path}: arms {same!r} and {spelled[spelling(same)]!r} are one number; give one another name")
    if baseline is not None and baseline not in names:
        raise ValueError(f"--baseline is {baseline!r}; the arms of {path} are {', '.join(names)}")
    name = f"csv-{re.sub('[^A-Za-z0-9._-]+', '_', path.stem)[:90]}"  # a folder of its own below --results
    about = {"name": name, "title": path.stem, "metrics": metrics, "margin": margin}
    config = make_config(about | {"rows": [_KEY], "baseline": {_KEY: baseline or names[0]}})
    cells = make_cells([{_KEY: record.cell, SEED: record.seed} for record in records])
    study = Study(path=path, config=config, known=tuple(cells))
    return study, Runs(location=str(path), records=tuple(records))


def _record(path: Path, number: int, line: dict[str, str], metrics: list[str]) -> RunRecord:
    arm, seed = (line.get(ARM) or "").strip(), (line.get(SEED_COLUMN) or "").strip()
    if not arm or not seed.lstrip("-").isdecimal():
        raise ValueError(f"{path}, line {number}: arm is {arm!r} and seed {seed!r}; give a name and a whole number")
    if None in line:
        raise ValueError(f"{path}, line {number}: it has more fields than the header; write decimals with a point")
    return RunRecord(
        study="csv",
        cell=arm,
        seed=int(seed),
        fingerprint=f"{number:012d}",
        status="finished",
        config={"csv": {"arm": arm}, SEED: int(seed)},
        metrics={metric: _number(path, number, metric, line.get(metric)) for metric in metrics if line.get(metric)},
    )


def _number(path: Path, number: int, metric: str, text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{path}, line {number}: {metric} is {text!r}, which is no finite number; leave it empty")
    if is_share(metric) and not 0 <= value <= 1:
        raise ValueError(f"{path}, line {number}: {metric} is {text}, and a share lies in 0 to 1; write 80 % as 0.8")
    return value

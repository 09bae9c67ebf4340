"""The trained networks that a command is given: the arms of a study with their seeds, a run, or a file of weights."""

import hashlib
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from vitexp.record import RECORD_NAME, RunRecord, option, read_record, run_mark
from vitexp.study.arm import name
from vitexp.study.comparison import Comparisons
from vitexp.study.select import found_study, select
from vitexp.study.spec import Study, read_study
from vitexp.study.table import check_finished
from vitexp.study.tune import tune

INSIDE = "inspect"
"""Below the results, or those of the study, the folder of what is seen inside networks."""
_LAST = "checkpoints/last.ckpt"
_LONGEST = 80
"""Letters of a name, of which a file's has two: arm minus arm."""

Images = tuple[str, str]
"""Shards, and the view of them (`data.eval_view`)"""
Networks = tuple[str, str, Mapping[int | None, str], Images | None, str | None, Sequence[str]]
"""Networks that count as one: where their files go, which is no other's, a label, the file of each seed (None where
there is one network alone), the images that they were measured on, where the files of the baseline go, and the marks
of their runs."""


def read_networks(given: Sequence[str], root: str) -> list[Networks]:
    """The networks behind the arguments of a command: sweep files, folders of studies and runs, files, timm:NAME.

    Raises: ValueError for a study without finished runs, a folder without runs, and runs that kept no weights.
    """
    found = [networks for one in given for networks in _read(one, root)]
    if twice := {one for one, count in Counter(one for one, *_ in found).items() if count > 1}:
        raise ValueError(f"two networks would write files called {min(twice)}; name each once, or use another --out")
    return found


def _read(given: str, root: str) -> Iterator[Networks]:
    path = Path(given)
    if path.suffix in (".yaml", ".yml"):
        return _arms(read_study(path), Path(root))
    if path.is_dir() and not (path / RECORD_NAME).is_file():
        folder = path.resolve()
        return _arms(found_study(folder), folder.parent)
    folder = path if path.is_dir() else path.parent.parent
    run = read_record(folder) if (folder / RECORD_NAME).is_file() else None
    file = _weights(folder) if path.is_dir() else given
    named = f"{INSIDE}/{_file_name(os.path.relpath(given) if path.exists() else given)}"
    return iter([(named, given, {None: file}, _images(run) if run else None, None, [run_mark(run)] if run else [])])


def _arms(study: Study, root: Path) -> Iterator[Networks]:
    """Those with finished runs that trained; an arm is compared with its baseline where the study's table does so."""
    selection = tune(select(study, root))
    check_finished(selection)
    for text in selection.cautions:
        print(f"note: {text}", file=sys.stderr)
    comparisons = Comparisons(selection.arms, selection.study.config)
    for arm, confounded in zip(selection.arms, selection.confounded, strict=True):
        base = comparisons.baseline_of(arm)
        against = base if base and base is not arm and base.runs and not confounded else None
        runs = dict[int | None, RunRecord](sorted(arm.trained.items()))
        files = {seed: _weights(Path(str(run.directory))) for seed, run in runs.items()}
        if files:
            named, other = (f"{study.name}/{INSIDE}/{_file_name(name(one))}" if one else None for one in (arm, against))
            images, marks = _images(next(iter(runs.values()))), [*map(run_mark, runs.values())]
            yield str(named), f"{study.name}: {name(arm)}", files, images, other, marks


def _weights(folder: Path) -> str:
    if not (file := folder / _LAST).is_file():
        raise ValueError(f"the run {folder} holds no {_LAST}; give a run that kept its weights, or run it again")
    return str(file)


def _images(run: RunRecord) -> Images | None:
    shards = option(run.config, "data.shards")
    return (str(shards), option(run.config, "data.eval_view", "resize")) if shards else None


def _file_name(text: str) -> str:
    """The text as part of a file's name, with a digest where that says less."""
    safe = re.sub(r"[^\w.-]+", "-", text.replace("/", "--"), flags=re.ASCII).strip("-.")
    if len(safe) > _LONGEST or not text.isascii():
        safe = f"{safe[: _LONGEST - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return safe

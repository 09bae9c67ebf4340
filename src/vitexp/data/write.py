"""A source becomes a directory of WebDataset shards that anyone can read, and the same bytes every time.

The shards grow in `OUT.partial` beside OUT, which takes its name only when everything is there: OUT is whole or absent.
A run that was stopped goes on after its last whole shard. Images are shuffled once, by a hash of their keys and a seed
that `recipe.json` keeps.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from vitexp import __version__
from vitexp.data.feed import Feed, Layout, Report, encoded
from vitexp.data.shard_file import write_shard
from vitexp.data.sources import TEST_FRACTION, Source, digest, hold_out, open_source
from vitexp.record import write_atomically

RECIPE, PROGRESS, CLASSES, INFO = "recipe.json", "progress.json", "classes.txt", "_info.json"


def _silent(images: int) -> None:
    pass


@dataclass
class _Progress:
    """What lies whole in `OUT.partial`: per shard its split, its images, and the place where the next one begins."""

    plan: str
    shards: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def make(
    source: str | Source,
    out: str | os.PathLike[str],
    *,
    layout: Layout | None = None,
    workers: int = 0,
    report: Report | None = None,
) -> Path:
    """Writes `source` to the directory `out` as shards with their index, or finds there that it has been done.

    `workers` is the number of encoding threads, 0 for one a processor; `report` is told of images as they are done.
    Raises: ValueError when `out` holds anything else, when the disk is full, and BadImage beyond `layout.max_bad`.
    """
    layout = layout or Layout()
    _check(layout)
    source = _with_splits(open_source(source) if isinstance(source, str) else source, layout)
    out, plan = Path(out), _plan(source, layout)
    with _alone(out):
        if not _done(out, plan):
            try:
                _build(source, layout, out, plan, workers or os.cpu_count() or 1, report or _silent)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                raise ValueError(
                    f"no space left on the disk of {out.parent.resolve()}: whole shards so far are kept in "
                    f"{_partial(out).name}; free some space and run this again, or remove that directory"
                ) from error
    return out


def _check(layout: Layout) -> None:
    for name in ("shard_images", "shard_bytes"):
        if getattr(layout, name) < 1:
            raise ValueError(f"{name} is {getattr(layout, name)}; at least 1 is needed")


def _with_splits(source: Source, layout: Layout) -> Source:
    """The source with a test split, its own or held out, and a validation split where one is asked for."""
    splits = dict(source.splits)
    for name, fraction in (("test", layout.test_fraction), ("val", layout.val_fraction)):
        if name in splits and fraction is not None:
            raise ValueError(f"{source.name} has its own {name} split, so {name}_fraction has no effect; leave it out")
        if name not in splits and (fraction is not None or (name == "test" and "val" not in splits)):
            fraction = TEST_FRACTION if fraction is None else fraction
            splits["train"], splits[name] = hold_out(splits["train"], fraction, layout.seed)
    return replace(source, splits=splits)


def _plan(source: Source, layout: Layout) -> str:
    """A digest of everything that decides the bytes, but for the pixels themselves."""
    whole = hashlib.sha256(json.dumps([source.name, source.classes, source.identity, vars(layout)]).encode())
    for name, split in sorted(source.splits.items()):
        whole.update(f"{name} {len(split)} ".encode() + "\n".join(split.keys).encode() + split.labels.tobytes())
    return whole.hexdigest()[:16]


def _partial(out: Path) -> Path:
    return out.with_name(f"{out.name}.partial")


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """One writer at a time: a second waits here, and then finds the work done."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(out.with_name(f".{out.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
        Path(lock.name).unlink(missing_ok=True)


def _done(out: Path, plan: str) -> bool:
    """Whether `out` holds this very plan already."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    recipe = out / RECIPE
    if recipe.is_file() and json.loads(recipe.read_text()).get("plan") == plan:
        return True
    raise ValueError(f"{out} exists and holds something else; name another directory, or remove it first")


def _build(source: Source, layout: Layout, out: Path, plan: str, workers: int, report: Report) -> None:
    work = _partial(out)
    progress = _continue(work, plan)
    with ThreadPoolExecutor(workers) as pool:
        for name in source.splits:
            _write_split(source, name, layout, progress, work, pool, report)
    _finish(source, layout, progress, work)
    os.replace(work, out)


def _continue(work: Path, plan: str) -> _Progress:
    """What an earlier run of the same plan left whole; what any other left is removed."""
    try:
        progress = _Progress(**json.loads((work / PROGRESS).read_text()))
        if progress.plan == plan and all((work / s["file"]).stat().st_size == s["bytes"] for s in progress.shards):
            return progress
    except (OSError, ValueError, TypeError):
        pass
    if work.exists():
        shutil.rmtree(work)
    work.mkdir(parents=True)
    return _Progress(plan)


def _write_split(
    source: Source,
    name: str,
    layout: Layout,
    progress: _Progress,
    work: Path,
    pool: ThreadPoolExecutor,
    report: Report,
) -> None:
    split = source.splits[name]
    order = np.argsort([digest(key, layout.seed) for key in split.keys], kind="stable")
    written = [shard for shard in progress.shards if shard["split"] == name]
    start = written[-1]["next"] if written else 0
    feed = Feed(encoded(split, order[start:], layout.check, pool), layout, progress.left_out, report)
    report(start)
    number = len(written)
    while feed.peek() is not None:
        path = work / f"{source.name}-{name}-{number:06d}.tar"
        images = write_shard(path, feed.shard())
        shard = {"file": path.name, "split": name, "images": images, "bytes": path.stat().st_size}
        progress.shards.append({**shard, "next": start + feed.place})
        write_atomically(work / PROGRESS, json.dumps(vars(progress)))
        number += 1


def _finish(source: Source, layout: Layout, progress: _Progress, work: Path) -> None:
    """Writes what lies beside the shards, the index last."""
    from vitexp.data.index import index_shards

    splits: dict[str, dict[str, Any]] = {}
    for name in source.splits:
        shards = [shard for shard in progress.shards if shard["split"] == name]
        splits[name] = {
            "name": name,
            "num_samples": sum(shard["images"] for shard in shards),
            "filenames": [shard["file"] for shard in shards],
            "shard_lengths": [shard["images"] for shard in shards],
        }
    recipe = {"made_by": f"vitexp {__version__}", "source": source.name, "plan": progress.plan, "layout": vars(layout)}
    recipe |= {"images": {name: split["num_samples"] for name, split in splits.items()}, "left_out": progress.left_out}
    write_atomically(work / CLASSES, "".join(f"{name}\n" for name in source.classes))
    write_atomically(work / INFO, json.dumps({"splits": splits}, indent=1) + "\n")
    write_atomically(work / RECIPE, json.dumps(recipe, indent=1) + "\n")
    index_shards(work)
    (work / PROGRESS).unlink(missing_ok=True)

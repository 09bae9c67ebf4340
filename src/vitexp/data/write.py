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
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vitexp import __version__
from vitexp.data.decode import BadImage
from vitexp.data.shard_file import Encoded, encode, write_shard
from vitexp.data.sources import TEST_FRACTION, Source, Split, digest, hold_out, open_source
from vitexp.record import write_atomically

RECIPE, PROGRESS, CLASSES, INFO = "recipe.json", "progress.json", "classes.txt", "_info.json"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a source is cut into shards. The same source and layout give the same bytes."""

    seed: int = 0
    """Shuffles the images once, before they are cut into shards."""
    shard_images: int = 10_000
    """At most so many images in a shard."""
    shard_bytes: int = 1_000_000_000
    """At most so many bytes in a shard."""
    test_fraction: float | None = None
    """Held out class by class as the test split, where the source has none."""
    val_fraction: float | None = None
    """Held out of train as a validation split of its own."""
    max_bad: int = 0
    """So many unreadable images may be left out, by name in recipe.json, before it is an error."""
    check: bool = True
    """Decode every image on the way, so that no shard holds one that cannot be decoded."""


@dataclass
class _Progress:
    """What lies whole in `OUT.partial`: per shard its split, its images, and the place where the next one begins."""

    plan: str
    shards: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def make(source: str | Source, out: str | os.PathLike[str], *, layout: Layout | None = None, workers: int = 0) -> Path:
    """Writes `source` to the directory `out` as shards with their index, or finds there that it has been done.

    `workers` is the number of encoding threads, 0 for one a processor.
    Raises: ValueError when `out` holds anything else, when the disk is full, and BadImage beyond `layout.max_bad`.
    """
    layout = layout or Layout()
    _check(layout)
    source = _with_splits(open_source(source) if isinstance(source, str) else source, layout)
    out, plan = Path(out), _plan(source, layout)
    with _alone(out):
        if not _done(out, plan):
            try:
                _build(source, layout, out, plan, workers or os.cpu_count() or 1)
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
        if name not in splits and (fraction is not None or name == "test"):
            fraction = TEST_FRACTION if fraction is None else fraction
            splits["train"], splits[name] = hold_out(splits["train"], fraction, layout.seed)
    return Source(name=source.name, classes=source.classes, splits=splits, notes=source.notes)


def _plan(source: Source, layout: Layout) -> str:
    """A digest of everything that decides the bytes, but for the pixels themselves."""
    whole = hashlib.sha256(json.dumps([source.name, source.classes, vars(layout)]).encode())
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


def _build(source: Source, layout: Layout, out: Path, plan: str, workers: int) -> None:
    work = _partial(out)
    progress = _continue(work, plan)
    with ThreadPoolExecutor(workers) as pool:
        for name in source.splits:
            _write_split(source, name, layout, progress, work, pool)
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
    source: Source, name: str, layout: Layout, progress: _Progress, work: Path, pool: ThreadPoolExecutor
) -> None:
    split = source.splits[name]
    order = np.argsort([digest(key, layout.seed) for key in split.keys], kind="stable")
    written = [shard for shard in progress.shards if shard["split"] == name]
    start = written[-1]["next"] if written else 0
    feed = _Feed(_encoded(split, order, start, layout, pool), layout, progress.left_out, start)
    number = len(written)
    while feed.peek() is not None:
        path = work / f"{source.name}-{name}-{number:06d}.tar"
        images = write_shard(path, feed.shard())
        shard = {"file": path.name, "split": name, "images": images, "bytes": path.stat().st_size, "next": feed.place}
        progress.shards.append(shard)
        write_atomically(work / PROGRESS, json.dumps(vars(progress)))
        number += 1


def _encoded(
    split: Split, order: np.ndarray, start: int, layout: Layout, pool: ThreadPoolExecutor
) -> Iterator[Future[Encoded]]:
    """Encodes ahead in threads, in order and never more than a window of images at once."""

    def one(row: int) -> Encoded:
        return encode(split.keys[row], int(split.labels[row]), split.read(row), layout.check)

    ahead: deque[Future[Encoded]] = deque()
    for row in order[start:]:
        ahead.append(pool.submit(one, int(row)))
        if len(ahead) > 256:
            yield ahead.popleft()
    yield from ahead


class _Feed:
    """Deals encoded images out to shards; knows the place in the split, and counts what had to be left out."""

    def __init__(self, source: Iterator[Future[Encoded]], layout: Layout, left_out: list[str], place: int) -> None:
        self._source, self._layout, self._left_out, self.place = source, layout, left_out, place
        self._next: Encoded | None = None

    def peek(self) -> Encoded | None:
        """The next readable image, or None at the end."""
        while self._next is None and (future := next(self._source, None)) is not None:
            try:
                self._next = future.result()
            except BadImage as error:
                self._skip(error)
        return self._next

    def _skip(self, error: BadImage) -> None:
        if len(self._left_out) >= self._layout.max_bad:
            raise BadImage(f"{error}; repair or remove it, or allow it with --max-bad") from error
        self._left_out.append(str(error))
        self.place += 1

    def shard(self) -> Iterator[Encoded]:
        """Images until the shard is full."""
        images, used = 0, 0
        while (image := self.peek()) is not None:
            images, used = images + 1, used + image.tar_bytes
            if images > 1 and (images > self._layout.shard_images or used > self._layout.shard_bytes):
                return
            self._next, self.place = None, self.place + 1
            yield image


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

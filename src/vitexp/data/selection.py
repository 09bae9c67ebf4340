"""Which samples a run trains on and validates with, by what the config says; worked out once for large sets."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vitexp.data.index import ShardIndex
from vitexp.data.lock import alone
from vitexp.data.subset import choose, fingerprint, hold_out
from vitexp.record import write_atomically

LARGE_IMAGES = 1 << 22
"""From so many on, what was worked out is kept on disk, memory-mapped, and shared by the ranks and by later runs."""


class Wish(NamedTuple):
    """What the config says."""

    val_fraction: float | None
    """None where validation has shards of its own."""
    images: int | None
    fraction: float | None
    seed: int


class Selection(NamedTuple):
    """Rows of the train split, each ascending, and the fingerprint of those that are trained on."""

    train: np.ndarray
    val: np.ndarray
    fingerprint: str


def select(index: ShardIndex, wish: Wish) -> Selection:
    """The selection from the train split.

    Raises: ValueError when there are not so many images, or too few for every class.
    """
    if len(index) < LARGE_IMAGES:
        return _work_out(index, wish)
    words = hashlib.sha256(repr((index.fingerprint, wish)).encode()).hexdigest()[:16]
    stem = index.shard_set.cache() / f"{index.name}-train-{words}"
    if not _kept(stem).is_file():
        with alone(stem.with_suffix(".lock")):
            if not _kept(stem).is_file():
                _keep(stem, _work_out(index, wish))
    return Selection(
        np.load(_rows(stem, "train"), mmap_mode="r", allow_pickle=False),
        np.load(_rows(stem, "val"), mmap_mode="r", allow_pickle=False),
        _kept(stem).read_text(),
    )


def _work_out(index: ShardIndex, wish: Wish) -> Selection:
    labels, keys = index.labels, index.keys
    if wish.val_fraction is None:
        rows, held = np.arange(len(index)), np.arange(0)
    else:
        rows, held = hold_out(labels, keys, wish.val_fraction)
    rows = choose(labels, keys, rows, wanted(len(rows), wish), wish.seed)
    return Selection(rows, held, fingerprint(labels, keys, rows))


def wanted(available: int, wish: Wish) -> int:
    """How many images to train on."""
    if wish.images is not None and wish.fraction is not None:
        raise ValueError("data.train_images and data.train_fraction say the same thing twice; leave one of them out")
    if wish.fraction is not None:
        if not 0 < wish.fraction <= 1:
            raise ValueError(f"data.train_fraction is {wish.fraction}; it must be more than 0 and at most 1")
        return max(1, round(wish.fraction * available))
    return available if wish.images is None else wish.images


def _keep(stem: Path, selection: Selection) -> None:
    for word, rows in (("train", selection.train), ("val", selection.val)):
        unfinished = stem.with_suffix(".tmp.npy")
        try:
            np.save(unfinished, rows, allow_pickle=False)
            unfinished.replace(_rows(stem, word))
        finally:
            unfinished.unlink(missing_ok=True)
    write_atomically(_kept(stem), selection.fingerprint)


def _rows(stem: Path, word: str) -> Path:
    return stem.with_suffix(f".{word}.npy")


def _kept(stem: Path) -> Path:
    """Written last: when it is there, everything is."""
    return stem.with_suffix(".fingerprint")

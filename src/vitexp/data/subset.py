"""Which images are trained on: nested, class-stratified subsets, and a validation slice held out of train.

Both come from one order of the images, of which a subset is a prefix, so that every smaller subset lies inside every
larger one. The images of each class are ranked by a seeded hash of their keys; all are then sorted by (rank + 1/2) /
(images in the class). A prefix of this order apportions its places to the classes by Webster's method: each class
within a place of its share, also where one has 1000 times the images of another. (The method of largest remainders is
closer still to the shares, but it can take a place away when the total grows, the Alabama paradox, and so cannot be
nested.) The first of each class come before all others: a subset of at least as many images as classes holds every
class.

Source: Balinski and Young, "Fair Representation", 1982 (Webster's method is house-monotone; largest remainders are
not).
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vitexp.data.keyed import draw, key
from vitexp.data.shards.index import ShardIndex
from vitexp.data.shards.layout import alone
from vitexp.record import whole_file, write_atomically

_HOLD_OUT, _SUBSET = 1, 2
_CHUNK = 1 << 20


def stratified_prefix(labels: np.ndarray, keys: np.ndarray, salt: int, images: int) -> np.ndarray:
    """The first `images` rows of the stratified order, ascending; depends on keys and labels, not on places.

    The order itself is never made: the share that the last of the prefix has is found, and with it all that come
    before.
    """
    by_class = np.argsort(_class_and_hash(labels, keys, salt), kind="stable")
    counts = np.bincount(labels)
    shares, start = np.empty(len(labels)), 0
    for count in counts[counts > 0].tolist():
        shares[start : start + count] = np.arange(1, 2 * count, 2) / (2 * count)
        shares[start] = -1.0
        start += count
    last = np.partition(shares, images - 1)[images - 1] if images else -np.inf
    surely, perhaps = by_class[shares < last], by_class[shares == last]
    ties = np.argsort(draw(salt, keys[perhaps]), kind="stable")[: images - len(surely)]
    return np.sort(np.concatenate([surely, perhaps[ties]]))


def _class_and_hash(labels: np.ndarray, keys: np.ndarray, salt: int) -> np.ndarray:
    """One number that sorts by class, and within it by the seeded hash of the key: by its upper 33 bits at least."""
    bits = np.uint64(int(labels.max(initial=0)).bit_length())
    codes = np.empty(len(labels), np.uint64)
    for start in range(0, len(labels), _CHUNK):
        part = slice(start, start + _CHUNK)
        codes[part] = draw(salt, keys[part]) >> bits
        codes[part] |= labels[part].astype(np.uint64) << (np.uint64(64) - bits) if bits else 0
    return codes


def hold_out(labels: np.ndarray, keys: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """The rows for training and those held out, each ascending.

    The slice depends on the data set and `fraction` alone, never on a seed: all runs of a study are measured with it.
    """
    held = np.ones(len(labels), bool)
    train = stratified_prefix(labels, keys, key(_HOLD_OUT), len(labels) - held_out(len(labels), fraction))
    held[train] = False
    return train, np.flatnonzero(held)


def held_out(images: int, fraction: float) -> int:
    """How many of `images` are held out."""
    if not 0 <= fraction < 1:
        raise ValueError(f"data.val_fraction is {fraction}; it must be at least 0 and less than 1")
    return round(fraction * images)


def choose(labels: np.ndarray, keys: np.ndarray, rows: np.ndarray, images: int, seed: int) -> np.ndarray:
    """`images` of `rows`, ascending; for fewer images a subset of those for more.

    Raises: ValueError for more images than there are, or fewer than classes.
    """
    check_subset(images, len(rows), len(np.unique(labels[rows])))
    if images == len(rows):
        return rows
    return rows[stratified_prefix(labels[rows], keys[rows], key(_SUBSET, seed), images)]


def check_subset(images: int, available: int, classes: int) -> None:
    """Raises: ValueError for more images than there are, or fewer than classes."""
    if images > available:
        raise ValueError(
            f"data.train_images is {images}, but there are {available} images to train on beside the validation slice"
        )
    if images < classes:
        raise ValueError(
            f"a training subset of {images} images cannot hold all {classes} classes; ask for at least {classes}"
        )


def fingerprint(labels: np.ndarray, keys: np.ndarray, rows: np.ndarray) -> str:
    """16 hexadecimal digits of which images with which labels, however they are sharded."""
    order = rows[np.argsort(keys[rows], kind="stable")]
    whole = hashlib.sha256()
    for column, kind in ((keys, "<u8"), (labels, "<i4")):
        for start in range(0, len(order), _CHUNK):
            whole.update(column[order[start : start + _CHUNK]].astype(kind).tobytes())
    return whole.hexdigest()[:16]


LARGE_IMAGES = 1 << 22
"""A selection from this many images or more is saved on disk, memory-mapped, and shared by ranks and by later runs."""


class SubsetOptions(NamedTuple):
    """The options of the config that choose the images."""

    val_fraction: float | None
    """None where validation has shards of its own."""
    images: int | None
    fraction: float | None
    seed: int

    def check(self) -> None:
        """Raises: ValueError for what no set can satisfy."""
        held_out(0, self.val_fraction or 0.0)
        if self.images is not None and self.fraction is not None:
            raise ValueError("data.train_images and data.train_fraction say the same thing twice; leave one out")
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise ValueError(f"data.train_fraction is {self.fraction}; it must be more than 0 and at most 1")

    def wanted(self, available: int) -> int:
        """How many of the available images to train on."""
        if self.fraction is not None:
            return max(1, round(self.fraction * available))
        return available if self.images is None else self.images


class Selection(NamedTuple):
    """Rows of the train split, each ascending, and the fingerprint of those that are trained on."""

    train: np.ndarray
    val: np.ndarray
    fingerprint: str


def select(index: ShardIndex, options: SubsetOptions) -> Selection:
    """The selection from the train split.

    Raises: ValueError when there are fewer images than asked for, or too few for every class.
    """
    if len(index) < LARGE_IMAGES:
        return _work_out(index, options)
    digest = hashlib.sha256(repr((index.fingerprint, options)).encode()).hexdigest()[:16]
    stem = index.shard_set.cache() / f"{index.name}-train-{digest}"
    if not _fingerprint_file(stem).is_file():
        with alone(stem.with_suffix(".lock")):
            if not _fingerprint_file(stem).is_file():
                _save(stem, _work_out(index, options))
    return Selection(
        np.load(_rows(stem, "train"), mmap_mode="r", allow_pickle=False),
        np.load(_rows(stem, "val"), mmap_mode="r", allow_pickle=False),
        _fingerprint_file(stem).read_text(),
    )


def _work_out(index: ShardIndex, options: SubsetOptions) -> Selection:
    labels, keys = index.labels, index.keys
    if options.val_fraction is None:
        rows, held = np.arange(len(index)), np.arange(0)
    else:
        rows, held = hold_out(labels, keys, options.val_fraction)
    rows = choose(labels, keys, rows, options.wanted(len(rows)), options.seed)
    return Selection(rows, held, fingerprint(labels, keys, rows))


def _save(stem: Path, selection: Selection) -> None:
    for split, rows in (("train", selection.train), ("val", selection.val)):
        with whole_file(_rows(stem, split), stem.with_suffix(".tmp.npy")) as file:
            np.save(file, rows, allow_pickle=False)
    write_atomically(_fingerprint_file(stem), selection.fingerprint)


def _rows(stem: Path, split: str) -> Path:
    return stem.with_suffix(f".{split}.npy")


def _fingerprint_file(stem: Path) -> Path:
    """Written last: when it is there, everything is."""
    return stem.with_suffix(".fingerprint")

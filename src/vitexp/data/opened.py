"""What `data.shards` means (a directory, a URL, or the name of an embedded source), and which of its images a run uses.

Subsets and the validation slice held out of train are prefixes of one order of the images, so that every smaller subset
lies inside every larger one. The images of each class are ranked by a seeded hash of their keys; all are then sorted by
(rank + 1/2) / (images in the class), the first of each class before all others. A prefix apportions its places to the
classes by Webster's method: each class within a place of its share, also where one has 1000 times the images of
another. (Largest remainders are closer still to the shares, but can take a place away when the total grows, the Alabama
paradox, and so cannot be nested.) Source: Balinski and Young, "Fair Representation", 1982.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from vitexp import torch_ops  # noqa: F401  # isort: skip  (before lightning)
import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from vitexp.data.order import draw, key
from vitexp.data.read.fetch import check_url, is_url
from vitexp.data.shards import write
from vitexp.data.shards.files import open_mirror
from vitexp.data.shards.index import ShardIndex, open_shards
from vitexp.data.shards.layout import alone, find_shards
from vitexp.data.sources.named import NAMES
from vitexp.record import FOLLOW, whole_file, write_atomically

LARGE_IMAGES = 1 << 22
"""A selection from this many images or more is saved on disk, memory-mapped, and shared by ranks and by later runs."""
_HOLD_OUT, _SUBSET = 1, 2
_CHUNK = 1 << 20

DrawSeed = int | Literal["follow"]
"""Of a draw of images; with follow it is the seed of the run."""


@dataclass(frozen=True)
class SubsetOptions:
    """The options of the config that choose the images."""

    val_fraction: float | None
    """None where validation has shards of its own."""
    images: int | None
    fraction: float | None
    seed: DrawSeed
    val_seed: DrawSeed = 0

    def __post_init__(self) -> None:
        if self.val_fraction is not None and not 0 <= self.val_fraction < 1:
            raise ValueError(f"data.val_fraction is {self.val_fraction}; it must be at least 0 and less than 1")
        if self.images is not None and self.fraction is not None:
            raise ValueError("data.train_images and data.train_fraction say the same thing twice; leave one out")
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise ValueError(f"data.train_fraction is {self.fraction}; it must be more than 0 and at most 1")
        for option, given in {"data.subset_seed": self.seed, "data.val_seed": self.val_seed}.items():
            if given != FOLLOW and type(given) is not int:
                raise ValueError(f"{option} is {given!r}; allowed: a whole number, or {FOLLOW} for that of the run")
        if self.seed == FOLLOW and self.images is None and self.fraction is None:
            raise ValueError(
                f"data.subset_seed is {FOLLOW}, but all images are trained on; set data.train_images or "
                "data.train_fraction, or leave it out"
            )

    def drawn_by(self, seed: int) -> "SubsetOptions":
        """The same with the seed of the run in place of `follow`."""
        drawn = {name: seed for name in ("seed", "val_seed") if getattr(self, name) == FOLLOW}
        return replace(self, **drawn)

    def held_out(self, images: int) -> int:
        """How many of `images` are held out for validation."""
        return round((self.val_fraction or 0.0) * images)

    def wanted(self, available: int, classes: int) -> int:
        """How many images to train on. Raises: ValueError for more than are available, or fewer than classes."""
        images = available if self.images is None else self.images
        if self.fraction is not None:
            images = max(1, round(self.fraction * available))
        if images > available:
            raise ValueError(
                f"data.train_images is {images}, but there are {available} images to train on beside the validation "
                "slice"
            )
        if images < classes:
            raise ValueError(
                f"a training subset of {images} images cannot hold all {classes} classes; ask for at least {classes}"
            )
        return images


@dataclass(frozen=True)
class OpenedSet:
    """A shard set that has been opened, and which of its images a run uses for what."""

    indexes: dict[str, ShardIndex]
    name: str
    class_names: tuple[str, ...]
    classes: int
    size: int
    rows: dict[str, np.ndarray]
    """The images of each split by their numbers in its shards, ascending; those of val in train's, where they are held
    out of it because the shards have no val split of their own.
    """
    shards_fingerprint: str
    subset_fingerprint: str
    published: str = ""
    """Which published size stands for shards that are not here; there are no indexes then."""


def open_set(shards: str, image_size: int | None, options: SubsetOptions) -> OpenedSet:
    """Opens the set, made or fetched first where it is missing, and chooses its images.

    Raises: ValueError when there is no such set, or it does not allow the options.
    """
    indexes = open_all(shards)
    train = indexes["train"]
    size = size_of(train.name, train.image_size, image_size)
    chosen = select(train, replace(options, val_fraction=None) if "val" in indexes else options)
    rows = {"train": chosen.train, "val": chosen.val}
    return OpenedSet(
        indexes=indexes,
        name=train.name,
        class_names=train.class_names,
        classes=train.classes,
        size=size,
        rows=rows | {split: np.arange(len(index)) for split, index in indexes.items() if split != "train"},
        shards_fingerprint=train.fingerprint[:16],
        subset_fingerprint=chosen.fingerprint,
    )


def check_val_seed(opened: OpenedSet, val_seed: DrawSeed) -> None:
    """Raises: ValueError where the seed of the validation slice would have no effect."""
    if val_seed and ("val" in opened.indexes or not len(opened.rows.get("val", ()))):
        raise ValueError(
            f"data.val_seed is {val_seed}, but no images of {opened.name} are held out of train for validation; "
            "leave it out"
        )


def size_of(name: str, own: tuple[int, int] | None, image_size: int | None) -> int:
    """Height and width the network sees: `image_size`, or else the images' own (height, width), where all have one."""
    if image_size is not None:
        return image_size
    if own is None or own[0] != own[1]:
        raise ValueError(f"the images of {name} are not all squares of one size; set data.image_size, such as 224")
    return own[0]


def open_all(shards: str) -> dict[str, ShardIndex]:
    """Every split of the set by its name, `train` first. Raises: ValueError when there is no such set."""
    check_location(shards)
    opened: Any = open_mirror if is_url(shards) else open_shards
    place = shards if is_url(shards) else _directory(shards)
    train = opened(place)
    return {split: train if split == "train" else opened(place, split) for split in train.splits}


def check_location(shards: str) -> None:
    """Raises: ValueError for what can be neither a path, a URL that is opened, nor an embedded source."""
    if is_url(shards):
        check_url(shards)
    elif "/" not in shards and shards not in (".", "..", *NAMES):
        names = ", ".join(sorted(NAMES))
        raise ValueError(f"data.shards is {shards!r}: no embedded source ({names}); a directory is written ./{shards}")


def _directory(shards: str) -> Path:
    """Where the shards lie; those of an embedded source are written first."""
    directory = Path("shards", shards) if shards in NAMES else Path(shards)
    if shards in NAMES and not directory.exists():
        rank_zero_info(f"{shards}: writing its shards to {directory}, once")
        write.make(shards, directory)
    if unindexed := find_shards(directory).unindexed():
        rank_zero_info(f"{directory}: no index yet for {', '.join(unindexed)}; reading the shards once to make it")
    return directory


class Selection(NamedTuple):
    """Rows of the train split, each ascending, and the fingerprint of those that are trained on."""

    train: np.ndarray
    val: np.ndarray
    fingerprint: str


def select(index: ShardIndex, options: SubsetOptions) -> Selection:
    """The selection from the train split."""
    if len(index) < LARGE_IMAGES:
        return _work_out(index, options)
    digest = hashlib.sha256(repr((index.fingerprint, options)).encode()).hexdigest()[:16]
    stem = index.shard_set.cache() / f"{index.name}-train-{digest}"
    paths = [stem.with_suffix(f".{split}.npy") for split in ("train", "val")]
    done = stem.with_suffix(".fingerprint")  # written last: when it is there, everything is
    with alone(stem.with_suffix(".lock")):
        if not done.is_file():
            *both, fingerprint = _work_out(index, options)
            for path, rows in zip(paths, both, strict=True):
                with whole_file(path, stem.with_suffix(".tmp.npy")) as file:
                    np.save(file, rows, allow_pickle=False)
            write_atomically(done, fingerprint)
    train, val = (np.load(path, mmap_mode="r", allow_pickle=False) for path in paths)
    return Selection(train, val, done.read_text())


def _work_out(index: ShardIndex, options: SubsetOptions) -> Selection:
    labels, keys = index.labels, index.keys
    rows, held = hold_out(labels, keys, options.held_out(len(index)), int(options.val_seed))
    images = options.wanted(len(rows), len(np.unique(labels[rows])))
    rows = choose(labels, keys, rows, images, int(options.seed))
    return Selection(rows, held, fingerprint(labels, keys, rows))


def hold_out(labels: np.ndarray, keys: np.ndarray, images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The rows for training and the `images` that are held out, each ascending.

    The slice depends on the data set, its size and `data.val_seed`, which is 0 for all runs of a study unless asked.
    """
    if not images:
        return np.arange(len(labels)), np.arange(0)
    held = np.ones(len(labels), bool)
    salt = key(_HOLD_OUT, seed) if seed else key(_HOLD_OUT)  # of 0 the slice that there was before the option
    train = stratified_prefix(labels, keys, salt, len(labels) - images)
    held[train] = False
    return train, np.flatnonzero(held)


def choose(labels: np.ndarray, keys: np.ndarray, rows: np.ndarray, images: int, seed: int) -> np.ndarray:
    """`images` of `rows`, ascending; for fewer images a subset of those for more."""
    if images == len(rows):
        return rows
    return rows[stratified_prefix(labels[rows], keys[rows], key(_SUBSET, seed), images)]


def stratified_prefix(labels: np.ndarray, keys: np.ndarray, salt: int, images: int) -> np.ndarray:
    """The first `images` rows of the stratified order, ascending; depends on keys and labels, not on places.

    The order is never made: the share of the last of the prefix is found, and with it all that come before.
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


def fingerprint(labels: np.ndarray, keys: np.ndarray, rows: np.ndarray) -> str:
    """16 hexadecimal digits of which images with which labels, however they are sharded."""
    order = rows[np.argsort(keys[rows], kind="stable")]
    whole = hashlib.sha256()
    for column, kind in ((keys, "<u8"), (labels, "<i4")):
        for start in range(0, len(order), _CHUNK):
            whole.update(column[order[start : start + _CHUNK]].astype(kind).tobytes())
    return whole.hexdigest()[:16]

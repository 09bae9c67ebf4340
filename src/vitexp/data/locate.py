"""What `data.shards` means (a directory, a URL, or the name of an embedded source), and what a run uses of it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from vitexp.data.read.fetch import check_url, is_url
from vitexp.data.shards import write
from vitexp.data.shards.files import open_mirror
from vitexp.data.shards.index import ShardIndex, open_shards
from vitexp.data.shards.layout import find_shards
from vitexp.data.sources.named import NAMES
from vitexp.data.subset import SubsetOptions, select


@dataclass(frozen=True)
class OpenedSet:
    """A shard set that has been opened, and which of its images a run uses for what."""

    indexes: dict[str, ShardIndex]
    name: str
    class_names: tuple[str, ...]
    classes: int
    size: int
    held_out: bool
    """Whether validation images are held out of train, because the shards have no val split of their own."""
    rows: dict[str, np.ndarray]
    """The images of each split by their numbers in its shards, ascending."""
    shards_fingerprint: str
    subset_fingerprint: str


def open_set(shards: str, image_size: int | None, options: SubsetOptions) -> OpenedSet:
    """Opens the set, made or fetched first where it is missing, and chooses its images.

    Raises: ValueError when there is no such set, or it does not allow the options.
    """
    indexes = open_all(shards)
    train, held_out = indexes["train"], "val" not in indexes
    size = size_of(train.name, train.image_size, image_size)
    chosen = select(train, options if held_out else options._replace(val_fraction=None))
    rows = {split: np.arange(len(index)) for split, index in indexes.items()} | {"train": chosen.train}
    return OpenedSet(
        indexes=indexes,
        name=train.name,
        class_names=train.class_names,
        classes=train.classes,
        size=size,
        held_out=held_out,
        rows=rows | ({"val": chosen.val} if held_out else {}),
        shards_fingerprint=train.fingerprint[:16],
        subset_fingerprint=chosen.fingerprint,
    )


def check_size(image_size: int | None) -> None:
    """Raises: ValueError for a size that is not positive."""
    if image_size is not None and image_size < 1:
        raise ValueError(f"data.image_size is {image_size}; at least 1 is needed")


def size_of(name: str, own: tuple[int, int] | None, image_size: int | None) -> int:
    """Height and width the network sees: `image_size`, or else the images' own (height, width), where all have one."""
    if image_size is not None:
        return image_size
    if own is None or own[0] != own[1]:
        raise ValueError(f"the images of {name} are not all squares of one size; set data.image_size, such as 224")
    return own[0]


def open_all(shards: str) -> dict[str, ShardIndex]:
    """Every split of the set by its name, `train` first.

    Raises: ValueError when there is no such set, with what to do.
    """
    check_location(shards)
    if is_url(shards):
        train = open_mirror(shards)
        return {split: train if split == "train" else open_mirror(shards, split) for split in train.splits}
    directory = _directory(shards)
    if unindexed := find_shards(directory).unindexed():
        rank_zero_info(f"{directory}: no index yet for {', '.join(unindexed)}; reading the shards once to make it")
    train = open_shards(directory)
    return {split: train if split == "train" else open_shards(directory, split) for split in train.splits}


def check_location(shards: str) -> None:
    """Raises: ValueError for what can be neither a path, a URL that is opened, nor an embedded source."""
    if is_url(shards):
        check_url(shards)
    elif not _is_path(shards) and shards not in NAMES:
        names = ", ".join(sorted(NAMES))
        raise ValueError(f"data.shards is {shards!r}: no embedded source ({names}); a directory is written ./{shards}")


def _is_path(shards: str) -> bool:
    return "/" in shards or shards in (".", "..")


def _directory(shards: str) -> Path:
    """Where the shards lie; those of an embedded source are written first."""
    if _is_path(shards):
        return Path(shards)
    directory = Path("shards") / shards
    if not directory.exists():
        rank_zero_info(f"{shards}: writing its shards to {directory}, once")
        write.make(shards, directory)
    return directory

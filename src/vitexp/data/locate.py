"""What `data.shards` means: a directory, a URL, or the name of an embedded source."""

from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from vitexp.data.read.fetch import check_url, is_url
from vitexp.data.read.remote import open_mirror
from vitexp.data.shards import write
from vitexp.data.shards.index import ShardIndex, open_shards
from vitexp.data.shards.layout import find_shards
from vitexp.data.sources import named as sources


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
    elif not _is_path(shards) and shards not in sources.NAMES:
        names = ", ".join(sorted(sources.NAMES))
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

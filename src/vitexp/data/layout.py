"""Where things lie in a shard set: `<name>-<split>-000000.tar`, beside them `<name>-<split>.index.json` and `.npy`."""

import contextlib
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from vitexp.data.tar import BadShard

SPLITS = ("train", "val", "test")
_PATTERN = re.compile(r"(?P<name>.+)-(?P<split>train|test|val|validation)-\d+\.tar")


def cache_root() -> Path:
    """The directory for everything that is kept for later: VITEXP_CACHE, or else ~/.cache/vitexp."""
    return Path(os.environ.get("VITEXP_CACHE") or Path.home() / ".cache" / "vitexp")


@dataclass(frozen=True)
class ShardSet:
    """A directory of shards: its name, and the shards of each split in their order."""

    directory: Path
    name: str
    splits: dict[str, list[Path]]
    url: str | None = None
    """Where the shards lie, when not here: `directory` then has what has been fetched, under its checksum."""

    def table(self, split: str, sha256: str) -> Path:
        """The sample table of a split, whose checksum is `sha256`."""
        if self.url:
            return self.directory / f"{sha256}.npy"
        return self.directory / f"{self.name}-{split}.index.npy"

    def document(self, split: str) -> Path:
        """The shard list of a split; the index is there when this is."""
        return self.directory / f"{self.name}-{split}.index.json"

    def unindexed(self) -> list[str]:
        """The splits that have no index yet."""
        return [split for split in self.splits if not self.document(split).is_file()]

    def known(self, split: str) -> str:
        """The split itself. Raises: ValueError for one that the set does not have."""
        if split not in self.splits:
            raise ValueError(f"{self.directory} has no split {split!r}; it has {', '.join(sorted(self.splits))}")
        return split

    def class_names(self) -> list[str] | None:
        """The lines of classes.txt, where there is one."""
        path = self.directory / "classes.txt"
        return path.read_text("utf-8").splitlines() if path.is_file() else None

    def cache(self) -> Path:
        """Where what is derived from the set is kept: beside it, or where that cannot be, below VITEXP_CACHE.

        Raises: ValueError when neither can be written to.
        """
        away = hashlib.sha256(str(self.directory.resolve()).encode()).hexdigest()[:16]
        places = [self.directory / ".cache", cache_root() / "local" / away]
        for place in places:
            with contextlib.suppress(OSError):
                place.mkdir(parents=True, exist_ok=True)
                if os.access(place, os.W_OK):
                    return place
        raise ValueError(
            f"neither {places[0]} nor {places[1]} can be written to; set VITEXP_CACHE to a directory that can, "
            "or set data.reader to local"
        )

    def bad(self, what: str) -> BadShard:
        """An error whose remedy is a new index."""
        return BadShard(f"{what}; make the index again with `vitexp shards index {self.url or self.directory}`")


def find_shards(directory: str | os.PathLike[str]) -> ShardSet:
    """The set in `directory`. Tars that carry no split in their names are all taken for `train`.

    Raises: ValueError when there is none, or more than one.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise ValueError(f"there is no directory {directory}; make one with `vitexp shards make SOURCE {directory}`")
    tars = sorted(directory.glob("*.tar"))
    if not tars:
        raise ValueError(f"{directory} holds no shards (*.tar); fill it with `vitexp shards make SOURCE {directory}`")
    matches = [(_PATTERN.fullmatch(tar.name), tar) for tar in tars]
    names = sorted({match["name"] for match, _ in matches if match})
    if len(names) > 1:
        raise ValueError(f"{directory} holds shards of {', '.join(names)}; give each set a directory of its own")
    if not names:
        return ShardSet(directory, directory.resolve().name, {"train": tars})
    splits: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for match, tar in matches:
        if match:
            splits["val" if match["split"] == "validation" else match["split"]].append(tar)
    return ShardSet(directory, names[0], {split: found for split, found in splits.items() if found})

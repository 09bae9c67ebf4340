"""Where things lie in a shard set: `<name>-<split>-000000.tar`, beside them `<name>-<split>.index.json` and `.npy`.

Sets of others are read too: `train/0.tar`, `Train_000.tar`, `pets-validation-00.tar`. Each tar is taken into a split or
the set is refused, by the tar's name.
"""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
import contextlib
import hashlib
import os
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from vitexp.data.shards.splits import SPLITS, Placed, read_names
from vitexp.data.shards.tar import BadShard
from vitexp.data.shards.splits import files_below


# One process at a time for work on files that several would otherwise do at once, such as the ranks of one run.

WAIT_SECONDS = 3600.0


@contextmanager
def alone(path: Path, wait_seconds: float = WAIT_SECONDS) -> Iterator[None]:
    """Holds the lock file `path`. A process that dies lets go of it, so only one that works or hangs is waited for.

    Raises: ValueError after `wait_seconds`.
    """
    deadline = time.monotonic() + wait_seconds
    with open(path, "w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ValueError(
                        f"another process has held {path} for {wait_seconds:.0f} seconds; wait for it or stop it"
                    ) from None
                time.sleep(0.05)
        yield


__all__ = ["SPLITS", "ShardSet", "cache_root", "find_shards"]
_COMPRESSED = re.compile(r".+\.(tar\.(gz|bz2|xz|zst|lz4|lzma|z)|tgz|tbz2?|txz|tzst)", re.IGNORECASE)
_UNFINISHED = re.compile(r".+\.tar\b.*\.(part|partial|tmp|crdownload|download|incomplete|aria2)", re.IGNORECASE)
_CLASS_FILES = ("classes.txt", "classnames.txt")


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

    def called(self, shard: Path) -> str:
        """What a shard is called in the index: its path in the directory."""
        return shard.relative_to(self.directory).as_posix()

    def unindexed(self) -> list[str]:
        """The splits that have no index yet."""
        return [split for split in self.splits if not self.document(split).is_file()]

    def known(self, split: str) -> str:
        """The split itself. Raises: ValueError for one that the set does not have."""
        if split not in self.splits:
            raise ValueError(f"{self.directory} has no split {split!r}; it has {', '.join(sorted(self.splits))}")
        return split

    def class_names(self) -> list[str] | None:
        """The lines of classes.txt, or of classnames.txt; None where there is neither.

        Raises: ValueError when both are there and differ, or one cannot be read.
        """
        found = {name: _lines(self.directory / name) for name in _CLASS_FILES if (self.directory / name).is_file()}
        lists = list(found.values())
        if len(lists) > 1 and lists[0] != lists[1]:
            raise ValueError(f"{self.directory}: {' and '.join(found)} name different classes; remove one of them")
        return lists[0] if lists else None

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


def _lines(path: Path) -> list[str]:
    """A class a line; where several have one name, as in lists for ImageNet, with their number behind it.

    Raises: ValueError when it is no text, or a line is empty.
    """
    try:
        names = [line.strip() for line in path.read_text("utf-8-sig").rstrip().splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text ({error}); write one class name a line") from error
    if not all(names) or not names:
        line = names.index("") + 1 if names else 1
        raise ValueError(f"{path} names no class in line {line}; write one class name a line, that of label 0 first")
    count = Counter(names)
    return [name if count[name] == 1 else f"{name} ({label})" for label, name in enumerate(names)]


def find_shards(directory: str | os.PathLike[str]) -> ShardSet:
    """The set in `directory` and the folders in it. Tars whose names say no split at all are all taken for `train`.

    Raises: ValueError when there is none, or more than one, and for every tar that fits no split.
    """
    directory = Path(directory)
    if directory.suffix.lower() == ".tar" and not directory.is_dir():
        raise ValueError(f"{directory} names shards; give the directory that holds them, {directory.parent}")
    if not directory.is_dir():
        raise ValueError(f"there is no directory {directory}; make one with `vitexp shards make SOURCE {directory}`")
    names = _tars(directory)
    if not names:
        raise ValueError(f"{directory} holds no shards (*.tar); fill it with `vitexp shards make SOURCE {directory}`")
    try:
        placed = dict(zip(names, read_names([name[: -len(".tar")] for name in names]), strict=True))
    except ValueError as error:
        raise ValueError(f"{directory}: {error}") from error
    _refuse_mixture(directory, placed)
    splits: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for name, found in placed.items():
        splits[found.split or "train"].append(directory / name)
    stem = placed[names[0]].stem or directory.resolve().name
    return ShardSet(directory, stem, {split: found for split, found in splits.items() if found})


def _tars(directory: Path) -> list[str]:
    """The tars in a folder and below, in the order of their names. Raises: ValueError for what should be one."""
    files: dict[tuple[int, int], str] = {}
    for name, entry in files_below(directory):
        if _COMPRESSED.fullmatch(entry.name):
            raise ValueError(
                f"{entry.path} is compressed, and shards are read in place; unpack it and the others like it with "
                "gunzip (bunzip2, unxz, ...), so that they end in .tar"
            )
        if _UNFINISHED.fullmatch(entry.name):
            raise ValueError(f"{entry.path} looks like a download that did not end; finish or remove it")
        if entry.name.lower().endswith(".tar"):
            state = os.stat(entry.path)
            if (other := files.setdefault((state.st_dev, state.st_ino), name)) != name:
                raise ValueError(f"{directory}: {other} and {name} are one and the same file; remove one of them")
    return sorted(files.values())


def _refuse_mixture(directory: Path, placed: dict[str, Placed]) -> None:
    """Raises: ValueError when the tars are of several sets, or when only some say their split."""
    unplaced = [name for name, found in placed.items() if found.split is None]
    if unplaced and len(unplaced) < len(placed):
        raise ValueError(
            f"{directory}: the name of {_listed(unplaced)} says no split, those of others do; rename "
            f"{'it' if len(unplaced) == 1 else 'them'} with one of {', '.join(SPLITS)}, or move it elsewhere"
        )
    sets: dict[tuple[str, ...], list[str]] = defaultdict(list)
    spellings: dict[str | None, dict[str, str]] = defaultdict(dict)
    for name, found in placed.items():
        sets[found.others].append(name)
        spellings[found.split].setdefault(found.spelling, name)
    if len(sets) > 1:
        firsts = _listed([names[0] for names in sets.values()])
        raise ValueError(
            f"{directory} seems to hold {len(sets)} sets, by the names of {firsts}; give each set a directory "
            "of its own, or rename the shards of one set NAME-SPLIT-NUMBER.tar"
        )
    for split, found_in in spellings.items():
        if len(found_in) > 1:
            raise ValueError(
                f"{directory}: {_listed(list(found_in.values()))} would all be {split}, by different words; "
                f"rename them with one of {', '.join(SPLITS)}"
            )


def _listed(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


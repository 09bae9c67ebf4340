"""Where things lie in a shard set: `<name>-<split>-000000.tar`, beside them `<name>-<split>.index.json` and `.npy`.

Sets of others are read too: `train/0.tar`, `Train_000.tar`, `pets-validation-00.tar`. Each tar is taken into a split by
its name, in the usual spellings, or the set is refused: a name that may be two splits is never guessed.
"""

import contextlib
import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from vitexp.record import cache_root
from vitexp.words import listed

WAIT_SECONDS = 3600.0
FEW_CLASSES = 1000  # a set without class names may have this many classes, also with fewer images
SPLITS = ("train", "val", "test")
_SPELLINGS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val"}
_SPELLINGS |= {"test": "test", "testing": "test"}
_SPELLINGS |= dict.fromkeys(("eval", "evaluation", "trainval", "holdout", "heldout", "minival", "testdev"), "unclear")
_WORD = re.compile(r"[^-_. /]+")
_PIECE = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^A-Za-z\d]+")  # cut at digits and at capitals
_NUMBER = re.compile(r"\d+$")
_COMPRESSED = re.compile(r".+\.(tar\.(gz|bz2|xz|zst|lz4|lzma|z)|tgz|tbz2?|txz|tzst)", re.IGNORECASE)
_UNFINISHED = re.compile(r".+\.tar\b.*\.(part|partial|tmp|crdownload|download|incomplete|aria2)", re.IGNORECASE)
_CLASS_FILES = ("classes.txt", "classnames.txt")


class BadShard(ValueError):
    """A shard that is not a whole, safe tar of samples; the message names it and the place."""


@contextmanager
def alone(path: Path, wait_seconds: float = WAIT_SECONDS) -> Iterator[None]:
    """Holds the lock file `path`, for work that several processes, such as the ranks of one run, would do at once.

    A process that dies lets go of it. With a negative `wait_seconds` it is waited for without end.
    Raises: ValueError after `wait_seconds`.
    """
    try:
        held = FileLock(path).acquire(timeout=wait_seconds)
    except Timeout as error:
        raise ValueError(f"another process has held {path} for {wait_seconds:.0f} seconds; wait or stop it") from error
    with held:
        yield


@dataclass(frozen=True)
class ShardSet:
    """A directory of shards: its name, and the shards of each split in their order, by their paths in it."""

    directory: Path
    name: str
    splits: dict[str, list[str]]
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
        """The lines of classes.txt, or of classnames.txt; None where there is neither.

        Raises: ValueError when both are there and differ, or one cannot be read.
        """
        found = [_lines(self.directory / name) for name in _CLASS_FILES if (self.directory / name).is_file()]
        if found and found[0] != found[-1]:
            raise ValueError(
                f"{self.directory}: {' and '.join(_CLASS_FILES)} name different classes; remove one of them"
            )
        return found[0] if found else None

    def cache(self) -> Path:
        """Where what is derived from the set is saved: beside it, or where that cannot be, below VITEXP_CACHE.

        Raises: ValueError when neither can be written to.
        """
        away = hashlib.sha256(str(self.directory.resolve()).encode()).hexdigest()[:16]
        folders = [self.directory / ".cache", cache_root() / "local" / away]
        for folder in folders:
            with contextlib.suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
                if os.access(folder, os.W_OK):
                    return folder
        raise ValueError(
            f"neither {folders[0]} nor {folders[1]} can be written to; set VITEXP_CACHE to a directory that can, "
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


def spelled(word: str) -> str | None:
    """The split that `word` stands for, in any case and also as in `trainset`; None for any other word."""
    meaning = _meaning(word)
    return meaning if meaning in SPLITS else None


def _meaning(word: str) -> str | None:
    """The split, or that it may be any."""
    word = word.lower()
    return _SPELLINGS.get(word) or _SPELLINGS.get(word.removesuffix("set"))


class Placed(NamedTuple):
    """What a file's path says: its split, if any, the text before it, and the words that are neither."""

    split: str | None
    spelling: str
    stem: str
    others: tuple[str, ...]


def read_names(paths: Sequence[str]) -> list[Placed]:
    """Reads the paths (without suffix) of all files of a set together: what they all begin with is the set's name.

    Raises: ValueError naming a path that stands for two splits, or for one that may be validation or test.
    """
    words = [_words(path) for path in paths]
    columns = list(zip(*([word for word, _ in each] for each in words), strict=False))
    shared = next((i for i, column in enumerate(columns) if len(set(column)) > 1), len(columns))
    return [_placed(path, each, shared) for path, each in zip(paths, words, strict=True)]


def _words(path: str) -> list[tuple[str, int]]:
    """The words of a path in lower case, and where each begins; one that contains a split's name is cut around it."""
    found: list[tuple[str, int]] = []
    for word in _WORD.finditer(path):
        pieces = list(_PIECE.finditer(path, *word.span()))
        named = any(_meaning(piece.group()) for piece in pieces)
        found += [(piece.group().lower(), piece.start()) for piece in (pieces if named else [word])]
    return found


def _placed(path: str, words: list[tuple[str, int]], shared: int) -> Placed:
    at = [i for i, (word, _) in enumerate(words) if _meaning(word)]
    at = [i for i in at if i >= shared] or at
    meanings = {_meaning(words[i][0]) for i in at}
    if len(meanings) > 1 or "unclear" in meanings:
        raise ValueError(
            f"the name {path!r} does not say clearly which split it is ({', '.join(words[i][0] for i in at)}); "
            f"rename it with one of {', '.join(SPLITS)}"
        )
    first = at[0] if at else 0
    others = [
        word if i < first else _NUMBER.sub("", word) for i, (word, _) in enumerate(words) if i < first or i not in at
    ]
    spelling, begin = words[first] if at else ("", 0)
    stem = path[:begin].rstrip("-_. /").replace("/", "-")
    return Placed(spelled(spelling), spelling, stem, tuple(word for word in others if word not in ("", "of")))


def hidden(name: str) -> bool:
    """Whether a file or folder is left out by its name."""
    return name.startswith(".") or name == "__MACOSX"


def files_below(directory: Path) -> Iterator[tuple[str, int]]:
    """The path of each file below `directory`, with / between its parts, and its size in bytes.

    Hidden files and folders are left out (.DS_Store, ._name, .cache, __MACOSX). Raises: ValueError for a link to
    nothing, and for a folder that is reached on two ways: its files would count twice, or be in two splits.
    """
    seen = {str(above): str(above) for above in directory.resolve().parents}  # a link may lead back there
    for folder, folders, files in os.walk(directory, onerror=_refuse, followlinks=True):
        if (other := seen.setdefault(os.path.realpath(folder), folder)) != folder:
            raise ValueError(f"{folder} and {other} are one and the same folder, by a link; remove one of them")
        folders[:] = sorted(name for name in folders if not hidden(name))
        prefix = Path(folder).relative_to(directory).as_posix() + "/"
        for name in sorted(name for name in files if not hidden(name)):
            path = os.path.join(folder, name)
            if not os.path.exists(path):
                raise ValueError(f"{path} is a link to {os.readlink(path)}, which is not there; remove the link")
            if os.path.isfile(path):
                yield f"{prefix}{name}".removeprefix("./"), os.path.getsize(path)


def _refuse(error: OSError) -> None:
    raise error


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
    of_split = {split: [name for name in names if (placed[name].split or "train") == split] for split in SPLITS}
    stem = placed[names[0]].stem or directory.resolve().name
    return ShardSet(directory, stem, {split: tars for split, tars in of_split.items() if tars})


def _tars(directory: Path) -> list[str]:
    """The tars in a folder and below, in the order of their names. Raises: ValueError for what should be one."""
    files: dict[str, str] = {}
    for name, _ in files_below(directory):
        if _COMPRESSED.fullmatch(name):
            raise ValueError(
                f"{directory / name} is compressed, and shards are read in place; unpack it (gunzip, unxz, ...)"
            )
        if _UNFINISHED.fullmatch(name):
            raise ValueError(f"{directory / name} looks like a download that did not end; finish or remove it")
        real = os.path.realpath(directory / name)
        if name.lower().endswith(".tar") and (other := files.setdefault(real, name)) != name:
            raise ValueError(f"{directory}: {other} and {name} are one and the same file; remove one of them")
    return sorted(files.values())


def _refuse_mixture(directory: Path, placed: dict[str, Placed]) -> None:
    """Raises: ValueError when the tars are of several sets, or when only some say their split."""
    unplaced = [name for name, found in placed.items() if found.split is None]
    sets: dict[tuple[str, ...], str] = {}
    spellings: dict[str | None, dict[str, str]] = defaultdict(dict)
    for name, found in placed.items():
        sets.setdefault(found.others, name)
        spellings[found.split].setdefault(found.spelling, name)
    rename = f"rename them with one of {', '.join(SPLITS)}"
    if 0 < len(unplaced) < len(placed):
        raise ValueError(
            f"{directory}: the name of {listed(unplaced, 4)} says no split, those of others do; {rename}, or move them"
        )
    if len(sets) > 1:
        raise ValueError(
            f"{directory} seems to hold {len(sets)} sets, by the names of {listed(sets.values(), 4)}; give each set a "
            "directory of its own, or rename the shards of one set NAME-SPLIT-NUMBER.tar"
        )
    for split, names in spellings.items():
        if len(names) > 1:
            raise ValueError(
                f"{directory}: {listed(names.values(), 4)} would all be {split}, by different words; {rename}"
            )

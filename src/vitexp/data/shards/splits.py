"""Which split the name of a file or a folder stands for, in the usual spellings; a name that may be two is refused."""

import os
from collections.abc import Iterator
from pathlib import Path
import re
from collections.abc import Sequence
from typing import NamedTuple


# All files below a folder, links followed: none is passed over without a word but hidden ones.

def files_below(directory: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """The path of each file below `directory`, with / between its parts, and its entry; in the order of their names.

    Hidden files and folders are left out (.DS_Store, ._name, .cache, __MACOSX). Raises: ValueError for a link to
    nothing, and for a folder that is reached on two ways: its files would count twice, or be in two splits.
    """
    above = (directory.resolve(), *directory.resolve().parents)  # a link to one of these leads back here
    yield from _below(directory, "", {_identity(os.stat(folder)): str(folder) for folder in above})


def hidden(name: str) -> bool:
    """Whether a file or folder is left out by its name."""
    return name.startswith(".") or name == "__MACOSX"


def _below(directory: Path, prefix: str, seen: dict[tuple[int, int], str]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    with os.scandir(directory) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        name = prefix + entry.name
        if hidden(entry.name):
            continue
        if entry.is_symlink() and not os.path.exists(entry.path):
            raise ValueError(
                f"{entry.path} is a link to {os.readlink(entry.path)}, which is not there; remove the link"
            )
        if not entry.is_dir():
            yield name, entry
            continue
        identity = _identity(os.stat(entry.path))  # of what a link leads to; the entry's own may be stale
        if identity in seen:
            raise ValueError(
                f"{entry.path} and {seen[identity]!r} are one and the same folder, by a link; remove one of them"
            )
        seen[identity] = name
        yield from _below(Path(entry.path), f"{name}/", seen)


def _identity(state: os.stat_result) -> tuple[int, int]:
    return state.st_dev, state.st_ino


SPLITS = ("train", "val", "test")
SPELLINGS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val"}
SPELLINGS |= {"test": "test", "testing": "test"}
_UNCLEAR = {"eval", "evaluation", "trainval", "holdout", "heldout", "minival", "testdev"}
_WORD = re.compile(r"[^-_. /]+")
_PIECE = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^A-Za-z\d]+")  # cut at digits and at capitals
_NUMBER = re.compile(r"\d+$")


def spelled(word: str) -> str | None:
    """The split that `word` stands for, in any case and also as in `trainset`; None for any other word."""
    word = word.lower()
    return SPELLINGS.get(word) or SPELLINGS.get(word.removesuffix("set"))


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
    found = []
    for word in _WORD.finditer(path):
        pieces = list(_PIECE.finditer(word.group()))
        if any(_meaning(piece.group()) for piece in pieces):
            found += [(piece.group().lower(), word.start() + piece.start()) for piece in pieces]
        else:
            found.append((word.group().lower(), word.start()))
    return found


def _meaning(word: str) -> str | None:
    return "unclear" if word.lower() in _UNCLEAR else spelled(word)


def _placed(path: str, words: list[tuple[str, int]], shared: int) -> Placed:
    at = [i for i, (word, _) in enumerate(words) if _meaning(word)]
    at = [i for i in at if i >= shared] or at
    meanings = {_meaning(words[i][0]) for i in at}
    if len(meanings) > 1 or "unclear" in meanings:
        raise ValueError(
            f"the name {path!r} does not say clearly which split it is ({', '.join(words[i][0] for i in at)}); "
            f"rename it with one of {', '.join(SPLITS)}"
        )
    first = at[0] if at else len(words)
    before = [word for word, _ in words[:first]]
    after = [_NUMBER.sub("", word) for i, (word, _) in enumerate(words) if i > first and i not in at]
    if not at:
        before, after = [], [_NUMBER.sub("", word) for word in before]
    others = (*before, *(word for word in after if word not in ("", "of")))
    if not at:
        return Placed(None, "", "", others)
    stem = path[: words[first][1]].rstrip("-_. /").replace("/", "-")
    return Placed(spelled(words[first][0]), words[first][0], stem, others)


"""All files below a folder, links followed: none is passed over without a word but hidden ones."""

import os
from collections.abc import Iterator
from pathlib import Path


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

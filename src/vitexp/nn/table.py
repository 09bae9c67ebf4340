"""The parts of a network by axis and word. `part` registers one; a `Table` finds it.

The rows (word, label, sentence) are plain text that `vitexp.axes` reads without importing torch. A file with a row need
not be imported anywhere: looking a word up imports the module that its row was read from.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from vitexp import axes

Part = TypeVar("Part")

_PARTS: dict[tuple[str, str], Any] = {}
REGISTERED: dict[tuple[str, str], axes.Row] = {}


def part(axis: str, word: str, *, label: str, about: str) -> Callable[[Part], Part]:
    """Registers a value of an axis; decorate with it the class, function or constant that does the work.

    Arguments must be literals. A value without a part of its own, such as `pos_at stem`, is the bare call.
    """

    def register(found: Part) -> Part:
        _PARTS[axis, word] = found
        REGISTERED[axis, word] = axes.Row(axis, word, label, about, getattr(found, "__module__", ""))
        return found

    REGISTERED[axis, word] = axes.Row(axis, word, label, about, "")
    return register


class Table(Mapping[str, Part]):
    """The parts of one axis, in the order of `--help`."""

    def __init__(self, axis: str) -> None:
        self.axis = axis

    def __getitem__(self, word: str) -> Part:
        axes.check(self.axis, word)
        if (self.axis, word) not in _PARTS:
            importlib.import_module(next(row.module for row in axes.of(self.axis) if row.word == word))
        found: Part = _PARTS[self.axis, word]
        return found

    def __contains__(self, word: object) -> bool:
        return word in axes.values(self.axis)

    def __iter__(self) -> Iterator[str]:
        return iter(axes.values(self.axis))

    def __len__(self) -> int:
        return len(axes.values(self.axis))

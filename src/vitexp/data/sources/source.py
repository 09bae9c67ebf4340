"""A data set as tables, before it becomes shards: the class of each image, and its bytes or its pixels on demand.

Nothing is decoded or held here: a split answers for any one of its images, in any order and from any thread.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Content = bytes | np.ndarray
TEST_FRACTION = 0.2  # of a source that comes without a test set


@dataclass(frozen=True, kw_only=True)
class Split:
    """One split. `read(i)` gives the file's own bytes, or uint8 pixels (H, W) or (H, W, 3) where there is no file."""

    keys: Sequence[str]
    labels: np.ndarray
    read: Callable[[int], Content]

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: np.ndarray) -> "Split":
        """The images at `rows` as a split of their own."""
        keys = [self.keys[i] for i in rows]
        return Split(keys=keys, labels=self.labels[rows], read=lambda i: self.read(int(rows[i])))


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set: its name, the names of its classes in the order of their labels, and its splits by name."""

    name: str
    classes: tuple[str, ...]
    splits: dict[str, Split]
    notes: list[str] = field(default_factory=list)
    """What the user should know, such as files that were left out."""
    identity: str = ""
    """Tells other content under the same keys, as far as that is known without reading it all."""

    def __post_init__(self) -> None:
        for strange in [label for label in self.classes if not _is_line(label)][:1]:
            raise ValueError(f"{self.name}: a class is named {strange!r}; a name is a line of text without margins")
        keys: set[str] = set()
        for name, split in self.splits.items():
            if not len(split):
                raise ValueError(f"{self.name} {name}: there is no image in this split; add images or leave it out")
            if len(keys | set(split.keys)) < len(keys) + len(split):
                raise ValueError(f"{self.name} {name}: a key occurs twice; every image needs a key of its own")
            keys |= set(split.keys)
            if not 0 <= split.labels.min() <= split.labels.max() < len(self.classes):
                raise ValueError(
                    f"{self.name} {name}: labels run from {split.labels.min()} to {split.labels.max()}, "
                    f"but there are {len(self.classes)} classes, 0 to {len(self.classes) - 1}; correct the labels"
                )


def _is_line(label: str) -> bool:
    """Whether a name can stand in a line of classes.txt and be read again as it was."""
    return label.splitlines() == [label.strip()] != [""] and label.encode("utf-8", "replace").decode() == label


def hold_out(split: Split, fraction: float, seed: int = 0) -> tuple[Split, Split]:
    """Divides a split in two, class by class, by the rank of a hash of each key: the same images on every machine.

    Raises: ValueError when a class would be left without an image on one side.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"a held-out fraction of {fraction} is not between 0 and 1")
    rank = np.array([digest(key, seed) for key in split.keys])
    held = np.zeros(len(split), bool)
    for label in np.unique(split.labels):
        rows = np.flatnonzero(split.labels == label)
        if len(rows) < 2:
            raise ValueError(f"class {label} has one image: nothing can be held out; add images or remove the class")
        count = min(max(round(len(rows) * fraction), 1), len(rows) - 1)
        held[rows[np.argsort(rank[rows], kind="stable")[:count]]] = True
    return split.take(np.flatnonzero(~held)), split.take(np.flatnonzero(held))


def digest(key: str, seed: int) -> int:
    """A number in 0..2^63 that depends on the key and the seed alone, never on the images around it."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()) >> 1


@contextmanager
def progress_bar(task: str, total: int | None, *columns: Any) -> Iterator[Callable[[int], None]]:
    """A bar of rich's `columns` on the terminal, nothing in a file; gives what to call with each piece of work done."""
    from rich.console import Console
    from rich.progress import Progress, TextColumn

    console = Console(stderr=True)
    description = TextColumn("{task.description}")
    with Progress(description, *columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        row = bar.add_task(task, total=total)
        yield lambda done: bar.advance(row, done)

"""Images on their way to shards: encoded ahead in threads, in order, dealt out until a shard is full."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from vitexp.data.decode import BadImage
from vitexp.data.shard_file import encode
from vitexp.data.sources import Split

_CHUNK, _WINDOW = 32, 16  # images a task, tasks ahead: what is held in memory
Report = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a source is cut into shards. The same source and layout give the same bytes."""

    seed: int = 0
    """Shuffles the images once, before they are cut into shards."""
    shard_images: int = 10_000
    """At most so many images in a shard."""
    shard_bytes: int = 1_000_000_000
    """At most so many bytes in a shard."""
    test_fraction: float | None = None
    """Held out class by class as the test split, where the source has none; 0.2 where it has no val either."""
    val_fraction: float | None = None
    """Held out of train as a validation split of its own."""
    max_bad: int = 0
    """So many unreadable images may be left out, by name in recipe.json, before it is an error."""
    check: bool = True
    """Decode every image on the way, so that no shard holds one that cannot be decoded."""


def encoded(
    split: Split, order: np.ndarray, check: bool, pool: ThreadPoolExecutor
) -> Iterator[Future[list[bytes | BadImage]]]:
    """Encodes ahead in threads, a chunk a task, in order and never more than a window of chunks at once."""

    def chunk(rows: list[int]) -> list[bytes | BadImage]:
        return [_one(split, row, check) for row in rows]

    ahead: deque[Future[list[bytes | BadImage]]] = deque()
    for start in range(0, len(order), _CHUNK):
        ahead.append(pool.submit(chunk, order[start : start + _CHUNK].tolist()))
        if len(ahead) > _WINDOW:
            yield ahead.popleft()
    yield from ahead


def _one(split: Split, row: int, check: bool) -> bytes | BadImage:
    try:
        return encode(split.keys[row], int(split.labels[row]), split.read(row), check)
    except BadImage as error:
        return error


class Feed:
    """Deals encoded samples out to shards; knows the place in the split, and counts what had to be left out."""

    def __init__(
        self, tasks: Iterator[Future[list[bytes | BadImage]]], layout: Layout, left_out: list[str], report: Report
    ) -> None:
        self._source = (sample for task in tasks for sample in task.result())
        self._layout, self._left_out, self._report = layout, left_out, report
        self._next: bytes | None = None
        self.place = 0

    def peek(self) -> bytes | None:
        """The next readable sample, or None at the end."""
        while self._next is None and (sample := next(self._source, None)) is not None:
            if isinstance(sample, BadImage):
                self._skip(sample)
            else:
                self._next = sample
        return self._next

    def _skip(self, error: BadImage) -> None:
        if len(self._left_out) >= self._layout.max_bad:
            raise BadImage(f"{error}; repair or remove it, or allow it with --max-bad") from error
        self._left_out.append(str(error))
        self._advance()

    def _advance(self) -> None:
        self.place += 1
        self._report(1)

    def shard(self) -> Iterator[bytes]:
        """Samples until the shard is full."""
        images, used = 0, 0
        while (sample := self.peek()) is not None:
            images, used = images + 1, used + len(sample)
            if images > 1 and (images > self._layout.shard_images or used > self._layout.shard_bytes):
                return
            self._next = None
            self._advance()
            yield sample

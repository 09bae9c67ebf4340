"""Sample numbers in, pixels out. Every reader gives the same pixels for the same question, only at another cost."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from vitexp.data.cache import kept_as_they_are, open_cache
from vitexp.data.files import LocalFiles
from vitexp.data.index import ShardIndex
from vitexp.data.photo import File
from vitexp.data.transforms import InceptionView, View

EVALUATION = -1
"""The epoch of evaluation: nothing is random, and nothing shuffled."""


class Views:
    """How images are seen: one view for training epochs, one for evaluation."""

    def __init__(self, training: View, evaluation: View) -> None:
        assert training.size == evaluation.size
        self.training, self.evaluation, self.size = training, evaluation, training.size

    def of(self, epoch: int) -> View:
        """The view of an epoch."""
        return self.evaluation if epoch == EVALUATION else self.training


def cacheable(index: ShardIndex, views: Views) -> bool:
    """Whether training can be fed from the cache: Inception crops need the whole image."""
    return not isinstance(views.training, InceptionView) or kept_as_they_are(index, views.evaluation)


class Reader(Protocol):
    """Gives the pixels of samples. Can be sent to a worker process."""

    def read(self, samples: np.ndarray, epoch: int) -> np.ndarray:
        """Shapes: int64 (B,) -> uint8 (B, size, size, 3)."""
        ...


class CacheReader:
    """Gathers from the split's decoded pixels and applies the view to whole batches."""

    def __init__(self, index: ShardIndex, views: Views) -> None:
        self._index, self._views = index, views
        self._pixels: np.ndarray | None = None

    def __reduce__(self) -> Any:
        return CacheReader, (self._index, self._views)

    def read(self, samples: np.ndarray, epoch: int) -> np.ndarray:
        """See Reader."""
        return self._views.of(epoch).from_pixels(self.pixels[samples], epoch, samples)

    @property
    def pixels(self) -> np.ndarray:
        """The decoded split, memory-mapped; decoded now if it is the first time on this disk."""
        if self._pixels is None:
            self._pixels = open_cache(self._index, self._views.evaluation)
        return self._pixels


class LocalReader:
    """Reads each image where it lies and decodes it, a batch over several threads."""

    def __init__(self, index: ShardIndex, views: Views, threads: int = 1) -> None:
        self._views, self._threads = views, threads
        self._files = LocalFiles(index)
        self._pool: ThreadPoolExecutor | None = None

    def __reduce__(self) -> Any:
        return LocalReader, (self._files.index, self._views, self._threads)

    def read(self, samples: np.ndarray, epoch: int) -> np.ndarray:
        """See Reader."""
        if len(samples) < 2 or self._threads < 2:
            return self._part(samples, epoch)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads)
        chunks = np.array_split(samples, min(len(samples), self._threads))
        return np.concatenate(list(self._pool.map(self._part, chunks, [epoch] * len(chunks))))

    def _part(self, samples: np.ndarray, epoch: int) -> np.ndarray:
        files: Sequence[File] = self._files.read(samples)
        return self._views.of(epoch).from_files(files, epoch, samples)

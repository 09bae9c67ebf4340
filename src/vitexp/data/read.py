"""Sample numbers in, pixels out. Every reader gives the same pixels for the same question, only at another cost."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Protocol

import numpy as np

from vitexp.data.cache import cache_shape, kept_as_they_are, open_cache
from vitexp.data.index import ShardIndex
from vitexp.data.order import EVALUATION
from vitexp.data.photo import File
from vitexp.data.stream import files_of
from vitexp.data.transforms import InceptionView, View, eval_view

CACHE_BYTES = 4 << 30  # a split that takes no more than this as uint8 pixels is cached
ReaderName = Literal["auto", "cache", "local", "stream"]


class Views:
    """How images are seen: one view for training epochs, one for evaluation."""

    def __init__(self, training: View, evaluation: View) -> None:
        assert training.size == evaluation.size
        self.training, self.evaluation, self.size = training, evaluation, training.size

    def of(self, epoch: int) -> View:
        """The view of an epoch."""
        return self.evaluation if epoch == EVALUATION else self.training


def cacheable(index: ShardIndex, views: Views) -> bool:
    """Whether both views can be fed from the cache: a crop needs the whole image, and not resized."""
    crops = isinstance(views.training, InceptionView) or views.evaluation != eval_view("resize", views.size)
    return not crops or kept_as_they_are(index, views.evaluation)


class Reader(Protocol):
    """Gives the pixels of samples. Can be sent to a worker process."""

    def read(self, samples: np.ndarray, epoch: int) -> np.ndarray:
        """Shapes: int64 (B,) -> uint8 (B, size, size, 3)."""
        ...

    def prepare(self, now: np.ndarray, then: np.ndarray) -> None:
        """Hears which shards the next samples lie in, and which those after them."""
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

    def prepare(self, now: np.ndarray, then: np.ndarray) -> None:
        """Nothing: everything is here."""

    @property
    def pixels(self) -> np.ndarray:
        """The decoded split, memory-mapped; decoded now if it is the first time on this disk."""
        if self._pixels is None:
            self._pixels = open_cache(self._index, self._views.evaluation)
        return self._pixels


class FileReader:
    """Reads the file of each image, here or as it comes from a URL, and decodes it; a batch over several threads."""

    def __init__(self, index: ShardIndex, views: Views, threads: int = 1) -> None:
        self._views, self._threads = views, threads
        self._files = files_of(index)
        self._pool: ThreadPoolExecutor | None = None

    def __reduce__(self) -> Any:
        return FileReader, (self._files.index, self._views, self._threads)

    def read(self, samples: np.ndarray, epoch: int) -> np.ndarray:
        """See Reader."""
        if len(samples) < 2 or self._threads < 2:
            return self._part(samples, epoch)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads)
        chunks = np.array_split(samples, min(len(samples), self._threads))
        return np.concatenate(list(self._pool.map(self._part, chunks, [epoch] * len(chunks))))

    def prepare(self, now: np.ndarray, then: np.ndarray) -> None:
        """See Reader."""
        self._files.prepare(now, then)

    def _part(self, samples: np.ndarray, epoch: int) -> np.ndarray:
        files: Sequence[File] = self._files.read(samples)
        return self._views.of(epoch).from_files(files, epoch, samples)


def choose_reader(index: ShardIndex, views: Views, wanted: ReaderName) -> tuple[Reader, str]:
    """The reader for a split, and a line that says which it is and why.

    Raises: ValueError where the one that is wanted cannot give the same pixels as the others, or is for another place.
    """
    afar, pixels = index.shard_set.url is not None, math.prod(cache_shape(index, views.evaluation))
    by_file: ReaderName = "stream" if afar else "local"
    fits = cacheable(index, views)
    if wanted in ("local", "stream") and wanted != by_file:
        place = "at a URL" if afar else "in a directory"
        raise ValueError(f"data.reader is {wanted}, but the shards of {index.name} lie {place}; use {by_file} or auto")
    if wanted == "cache" and not fits:
        raise ValueError(f"data.reader cache holds images resized, and a crop needs them whole; use {by_file} or auto")
    name = wanted if wanted != "auto" else "cache" if fits and pixels <= CACHE_BYTES else by_file
    size = f"{pixels / 1e6:,.1f} MB of pixels"
    if name == "cache":
        reader = CacheReader(index, views)
        assert len(reader.pixels) == len(index)  # decoded here, before any worker starts
        return reader, f"cache reader, {size} are decoded once and kept"
    reason = (
        "as asked" if wanted != "auto" else "whole images are cropped" if not fits else f"{size} are too many to keep"
    )
    return FileReader(index, views), f"{name} reader, {reason}"

"""Sample numbers in, pixels out. Every reader gives the same pixels for the same question, only at another cost."""

import errno
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vitexp.data.order import EVALUATION
from vitexp.data.read.decode import decode_image
from vitexp.data.shards.files import ShardFiles
from vitexp.data.shards.index import ShardIndex
from vitexp.data.shards.layout import alone
from vitexp.data.views import View
from vitexp.record import whole_file

CACHE_BYTES = 4 << 30  # a split that takes no more than this as uint8 pixels is cached
ReaderName = Literal["auto", "cache", "local", "stream"]
_CHUNK = 512  # images a thread decodes before they are written


def whole_size(index: ShardIndex, size: int) -> tuple[int, int] | None:
    """Height and width where the cache holds whole images; None where it holds them resized to `size`.

    It must make no difference to the pixels which reader gives them, and photographs are decoded at no more than the
    resolution a view needs: so JPEGs are cached whole only where they have that size already.
    """
    whole = index.image_size == (size, size) or "jpg" not in index.kinds
    return index.image_size if whole else None


def cache_shape(index: ShardIndex, size: int) -> tuple[int, int, int, int]:
    """Images, height, width, channels."""
    return len(index), *(whole_size(index, size) or (size, size)), 3


def cache_path(index: ShardIndex, size: int) -> Path:
    """The file that holds the split; its name changes with the content."""
    form = "native" if whole_size(index, size) else str(size)
    return index.shard_set.cache() / f"{index.name}-{index.split}-{index.fingerprint[:16]}-{form}.npy"


def open_cache(index: ShardIndex, size: int) -> np.ndarray:
    """The pixels of all samples as one array on disk, which all processes share; decoded now if it is not there yet.

    Shapes: uint8 (images, height, width, 3), memory-mapped, read-only.
    Raises: ValueError when the disk is full or may not be written to; no half file stays behind.
    """
    path, shape = cache_path(index, size), cache_shape(index, size)
    with alone(path.with_suffix(".lock")):
        if (pixels := _load(path, shape)) is None:
            _write(path, shape, _decoded(index, size))
            pixels = _load(path, shape)
    assert pixels is not None
    return pixels


def _load(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The cache, or None where there is none or it is damaged."""
    try:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception:  # NumPy's reader of headers may raise anything on damaged ones
        return None
    # A plain view of the mapped pages: NumPy's own class for them slows down every small read.
    return np.asarray(pixels) if pixels.shape == shape and pixels.dtype == np.uint8 else None


def _decoded(index: ShardIndex, size: int) -> Iterator[np.ndarray]:
    """The pixels of the split, chunk by chunk."""
    files, whole = ShardFiles(index), whole_size(index, size)

    def chunk(start: int) -> np.ndarray:
        samples = np.arange(start, min(start + _CHUNK, len(index)))
        if whole:
            return np.stack([decode_image(*file) for file in files.read(samples)])
        return View(size).from_files(files.read(samples), EVALUATION, samples)

    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(index), _CHUNK * threads):
            yield from pool.map(chunk, range(start, min(start + _CHUNK * threads, len(index)), _CHUNK))


def _write(path: Path, shape: tuple[int, ...], chunks: Iterator[np.ndarray]) -> None:
    """Writes in the order of the file, so that a full disk is an error here and not a bus error in a mapped page."""
    try:
        with whole_file(path, path.with_suffix(".tmp")) as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for chunk in chunks:
                file.write(np.ascontiguousarray(chunk).data)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ValueError(
            f"the disk of {path.parent} is full: the cache of {shape[0]} images takes {np.prod(shape) / 1e9:.1f} GB; "
            "free some space, or set data.reader to local"
        ) from error


class Reader:
    """Gives the pixels of samples, from the cache or from the file of each image. Can be sent to a worker process."""

    def __init__(self, index: ShardIndex, view: View, cached: bool) -> None:
        self._index, self._view = index, view
        self._files, self._whole = ShardFiles(index), whole_size(index, view.size) is not None
        self.pixels = open_cache(index, view.size) if cached else None

    def __reduce__(self) -> Any:
        return type(self), (self._index, self._view, self.pixels is not None)

    def read(self, samples: np.ndarray, epoch: int, drawn_for: np.ndarray | None = None) -> np.ndarray:
        """The pixels; the random numbers are those of the samples `drawn_for`, where these are others.

        Shapes: int64 (B,) -> uint8 (B, size, size, 3).
        """
        drawn_for = samples if drawn_for is None else drawn_for
        if self.pixels is not None:
            return self._view.from_pixels(self.pixels[samples], epoch, drawn_for)
        files = self._files.read(samples)
        if self._whole:  # what a cache would hold: the two ways to resize differ by a level here and there
            return self._view.from_pixels(np.stack([decode_image(*file) for file in files]), epoch, drawn_for)
        return self._view.from_files(files, epoch, drawn_for)

    def prepare(self, now: np.ndarray, then: np.ndarray) -> None:
        """Announces the shards of the next samples, and of those after them, so that they can be prefetched."""
        if self.pixels is None:
            self._files.prepare(now, then)


def cacheable(index: ShardIndex, view: View) -> bool:
    """Whether the view can be fed from the cache: a part must be cut from the whole image, and not resized."""
    return whole_size(index, view.size) is not None or not (view.shows_parts(0) or view.shows_parts(EVALUATION))


def choose_reader(index: ShardIndex, view: View, wanted: ReaderName) -> tuple[Reader, str]:
    """The reader for a split, and a line for the log: which it is and why.

    Raises: ValueError where the one that is wanted cannot give the same pixels as the others, or is for another place.
    """
    place, by_file = ("at a URL", "stream") if index.shard_set.url else ("in a directory", "local")
    if wanted in ("local", "stream") and wanted != by_file:
        raise ValueError(f"data.reader is {wanted}, but the shards of {index.name} lie {place}; use {by_file} or auto")
    fits, pixels = cacheable(index, view), math.prod(cache_shape(index, view.size))
    if wanted == "cache" and not fits:
        raise ValueError(f"data.reader cache holds images resized, and a crop needs them whole; use {by_file} or auto")
    cached = wanted == "cache" or (wanted == "auto" and fits and pixels <= CACHE_BYTES)
    why = f"{pixels / 1e6:,.1f} MB of pixels are {'decoded once and kept' if cached else 'too many to keep'}"
    if not cached and (wanted != "auto" or not fits):
        why = "whole images are cropped" if wanted == "auto" else "as asked"
    return Reader(index, view, cached), f"{'cache' if cached else by_file} reader, {why}"

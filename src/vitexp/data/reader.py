"""Sample numbers in, pixels out. Every reader gives the same pixels for the same question, only at another cost."""

import errno
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from vitexp.data.order import EVALUATION
from vitexp.data.read.decode import File, decode_image
from vitexp.data.shards.files import ShardFiles
from vitexp.data.shards.index import ShardIndex
from vitexp.data.shards.layout import alone
from vitexp.data.views import InceptionView, View, eval_view
from vitexp.record import whole_file

CACHE_BYTES = 4 << 30  # a split that takes no more than this as uint8 pixels is cached
ReaderName = Literal["auto", "cache", "local", "stream"]
_CHUNK = 512  # images a thread decodes before they are written


def cache_path(index: ShardIndex, view: View) -> Path:
    """The file that holds the split; its name changes with the content."""
    form = "native" if caches_whole_images(index, view) else str(view.size)
    return index.shard_set.cache() / f"{index.name}-{index.split}-{index.fingerprint[:16]}-{form}.npy"


def cache_shape(index: ShardIndex, view: View) -> tuple[int, int, int, int]:
    """Images, height, width, channels."""
    height, width = (
        index.image_size if index.image_size and caches_whole_images(index, view) else (view.size, view.size)
    )
    return len(index), height, width, 3


def caches_whole_images(index: ShardIndex, view: View) -> bool:
    """Whether the cache holds whole images, or what `view` shows of them.

    It must make no difference to the pixels which reader gives them, and photographs are decoded at no more than the
    resolution a view needs: so JPEGs are cached whole only where they have that size already.
    """
    size = (view.size, view.size)
    return index.image_size is not None and (index.image_size == size or "jpg" not in index.kinds)


def open_cache(index: ShardIndex, view: View) -> np.ndarray:
    """The pixels of all samples as one array on disk, which all processes share; decoded now if it is not there yet.

    `view` is that of evaluation.

    Shapes: uint8 (images, height, width, 3), memory-mapped, read-only.
    Raises: ValueError when the disk is full or may not be written to; no half file stays behind.
    """
    path, shape = cache_path(index, view), cache_shape(index, view)
    pixels = _load(path, shape)
    if pixels is None:
        with alone(path.with_suffix(".lock")):
            pixels = _load(path, shape)
            if pixels is None:
                _write(path, shape, _decoded(index, view))
                pixels = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    return pixels


def _load(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The cache, or None where there is none or it is damaged."""
    try:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception:  # NumPy's reader of headers may raise anything on damaged ones
        return None
    # A plain view of the mapped pages: NumPy's own class for them slows down every small read.
    return np.asarray(pixels) if pixels.shape == shape and pixels.dtype == np.uint8 else None


def _decoded(index: ShardIndex, view: View) -> Iterator[np.ndarray]:
    """The pixels of the split, chunk by chunk."""
    files = ShardFiles(index)

    def chunk(start: int) -> np.ndarray:
        samples = np.arange(start, min(start + _CHUNK, len(index)))
        if not caches_whole_images(index, view):
            return view.from_files(files.read(samples), 0, samples)
        return np.stack([decode_image(*file) for file in files.read(samples)])

    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(index), _CHUNK * threads):
            yield from pool.map(chunk, range(start, min(start + _CHUNK * threads, len(index)), _CHUNK))


def _write(path: Path, shape: tuple[int, ...], chunks: Iterator[np.ndarray]) -> None:
    """Writes in the order of the file, so that a full disk is an error here and not a bus error in a mapped page."""
    try:
        with whole_file(path, path.with_suffix(".tmp")) as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for chunk in chunks:
                file.write(np.ascontiguousarray(chunk).data)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ValueError(
            f"the disk of {path.parent} is full: the cache of {shape[0]} images takes {np.prod(shape) / 1e9:.1f} GB; "
            "free some space, or set data.reader to local"
        ) from error


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
    return not crops or caches_whole_images(index, views.evaluation)


class Reader(Protocol):
    """Gives the pixels of samples. Can be sent to a worker process."""

    def read(self, samples: np.ndarray, epoch: int) -> np.ndarray:
        """Shapes: int64 (B,) -> uint8 (B, size, size, 3)."""
        ...

    def prepare(self, now: np.ndarray, then: np.ndarray) -> None:
        """Announces the shards of the next samples, and of those after them, so that they can be prefetched."""
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
        self._files = ShardFiles(index)
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
    """The reader for a split, and a line for the log: which it is and why.

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

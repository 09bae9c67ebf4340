"""All images of a split as one uint8 array on disk, decoded once, then memory-mapped and shared by all processes."""

import errno
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from vitexp.data.decode import decode_image
from vitexp.data.index import ShardIndex
from vitexp.data.lock import alone
from vitexp.data.stream import files_of
from vitexp.data.transforms import View

_CHUNK = 512  # images a thread decodes before they are written


def cache_path(index: ShardIndex, view: View) -> Path:
    """The file that holds the split; its name changes with the content."""
    word = "native" if kept_as_they_are(index, view) else str(view.size)
    return index.shard_set.cache() / f"{index.name}-{index.split}-{index.fingerprint[:16]}-{word}.npy"


def cache_shape(index: ShardIndex, view: View) -> tuple[int, int, int, int]:
    """Images, height, width, channels."""
    height, width = index.image_size if index.image_size and kept_as_they_are(index, view) else (view.size, view.size)
    return len(index), height, width, 3


def kept_as_they_are(index: ShardIndex, view: View) -> bool:
    """Whether the cache holds whole images, or what `view` shows of them.

    It must make no difference to the pixels which reader gives them, and photographs are decoded at no more than the
    resolution a view needs: so JPEGs are kept whole only where they have that size already.
    """
    size = (view.size, view.size)
    return index.image_size is not None and (index.image_size == size or "jpg" not in index.kinds)


def open_cache(index: ShardIndex, view: View) -> np.ndarray:
    """The pixels of all samples, made now if they are not there yet; `view` is that of evaluation.

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
    files = files_of(index)

    def chunk(start: int) -> np.ndarray:
        samples = np.arange(start, min(start + _CHUNK, len(index)))
        if not kept_as_they_are(index, view):
            return view.from_files(files.read(samples), 0, samples)
        return np.stack([decode_image(*file) for file in files.read(samples)])

    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(index), _CHUNK * threads):
            yield from pool.map(chunk, range(start, min(start + _CHUNK * threads, len(index)), _CHUNK))


def _write(path: Path, shape: tuple[int, ...], chunks: Iterator[np.ndarray]) -> None:
    """Writes in the order of the file, so that a full disk is an error here and not a bus error in a mapped page."""
    unfinished = path.with_suffix(".tmp")
    try:
        with open(unfinished, "wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for chunk in chunks:
                file.write(np.ascontiguousarray(chunk).data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ValueError(
            f"the disk of {path.parent} is full: the cache of {shape[0]} images takes {np.prod(shape) / 1e9:.1f} GB; "
            "free some space, or set data.reader to local"
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)

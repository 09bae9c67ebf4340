"""One WebDataset shard on its way to disk: nothing in it but the data, so that equal images make equal bytes."""

import io
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from vitexp.data.decode import BadImage, check_image, convert_image, decode_image
from vitexp.data.sources import Content

_BLOCK = 512
_RECORD = 20 * _BLOCK  # a tar is filled up to whole records


def encode(key: str, label: int, content: Content, check: bool) -> bytes:
    """One sample as it lies in a tar: the image, then its label. Pixels, GIF, BMP, TIFF and PPM become PNG; the bytes
    of other files stay as they are.

    Raises: BadImage naming the key, for bytes that are no image; with `check` also for those that do not decode.
    """
    if not isinstance(content, np.ndarray) and (pixels := convert_image(content, key)) is not None:
        content = pixels
    if isinstance(content, np.ndarray):
        extension, data = "png", _png(content, key)
    else:
        extension, data = check_image(content, "png", key), content
        if check:
            decode_image(data, extension, key)
    return _member(f"{key}.{extension}", data) + _member(f"{key}.cls", str(label).encode())


def _png(pixels: np.ndarray, key: str) -> bytes:
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
        raise BadImage(f"{key}: pixels are {pixels.dtype} {pixels.shape}; uint8 (H, W) or (H, W, 3) are needed")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def _member(name: str, data: bytes) -> bytes:
    """A regular file in a tar: without time and owner, mode 644."""
    return _header(name, len(data)) + data + bytes(-len(data) % _BLOCK)


def _header(name: str, size: int) -> bytes:
    """Source: POSIX 1003.1, pax, the ustar interchange format. tarfile's own, some ten times faster."""
    assert len(name) <= 100
    path = name.encode("ascii").ljust(100, b"\0")
    numbers = b"0000644\x000000000\x000000000\0%011o\x0000000000000\0" % size
    rest = b"0" + bytes(100) + b"ustar\x0000" + bytes(247)
    total = sum(path) + sum(numbers) + 8 * 32 + sum(rest)
    return path + numbers + b"%06o\0 " % total + rest


def write_shard(path: Path, samples: Iterable[bytes]) -> int:
    """Writes a whole shard or none, and waits until it is on the disk; returns how many samples it holds."""
    unfinished = path.with_suffix(".tmp")
    count = 0
    try:
        with open(unfinished, "wb", buffering=1 << 20) as file:
            for sample in samples:
                file.write(sample)
                count += 1
            file.write(bytes(2 * _BLOCK))
            file.write(bytes(-file.tell() % _RECORD))
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return count

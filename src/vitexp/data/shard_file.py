"""One WebDataset shard on its way to disk: nothing in it but the data, so that equal images make equal bytes."""

import io
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from vitexp.data.decode import BadImage, check_image, decode_image
from vitexp.data.sources import Content


class Encoded(NamedTuple):
    """One image as it will lie in the shard."""

    key: str
    label: int
    extension: str
    data: bytes

    @property
    def tar_bytes(self) -> int:
        """What it takes in the tar: two headers, the image and the label, each filled up to 512."""
        return 1536 + -(-len(self.data) // 512) * 512


def encode(key: str, label: int, content: Content, check: bool) -> Encoded:
    """Pixels become PNG; bytes stay as they are, under the extension that belongs to their content.

    Raises: BadImage naming the key, for bytes that are no image; with `check` also for those that do not decode.
    """
    if isinstance(content, np.ndarray):
        return Encoded(key, label, "png", _png(content, key))
    extension = check_image(content, "png", key)
    if check:
        decode_image(content, extension, key)
    return Encoded(key, label, extension, content)


def _png(pixels: np.ndarray, key: str) -> bytes:
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
        raise BadImage(f"{key}: pixels are {pixels.dtype} {pixels.shape}; uint8 (H, W) or (H, W, 3) are needed")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def write_shard(path: Path, images: Iterable[Encoded]) -> int:
    """Writes a whole shard or none, and waits until it is on the disk; returns how many images it holds."""
    unfinished = path.with_suffix(".tmp")
    count = 0
    try:
        with open(unfinished, "wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                for image in images:
                    count += 1
                    _add(tar, f"{image.key}.{image.extension}", image.data)
                    _add(tar, f"{image.key}.cls", str(image.label).encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return count


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # no time, no owner, mode 644
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))

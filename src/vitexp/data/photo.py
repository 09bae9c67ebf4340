"""Photographs: the part of a JPEG that a view shows, decoded at no more than the resolution it needs, and resized.

A box that is reduced to half or less is decoded at 1/2, 1/4 or 1/8 (the decoder's own scaling, which skips most of the
inverse transform). Resizing is bilinear with antialiasing on uint8. `simplejpeg`, where installed, replaces Pillow's
decoder: the same libjpeg-turbo with less copying.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from vitexp.data.decode import BadImage, check_pixels, decode_reduced, sniff
from vitexp.data.header import image_size

FAST = find_spec("simplejpeg") is not None


class File(NamedTuple):
    """An image as it lies in a shard; `where` names shard and key in errors."""

    data: bytes
    extension: str
    where: str


def image_sizes(files: Sequence[File]) -> tuple[np.ndarray, np.ndarray]:
    """Heights and widths from the headers alone."""
    sizes = np.array([image_size(*file) for file in files], np.int64).reshape(-1, 2)
    return sizes[:, 0], sizes[:, 1]


def decode_boxes(files: Sequence[File], boxes: np.ndarray, size: int, flips: np.ndarray | None = None) -> np.ndarray:
    """Each file's box as a square of `size`, mirrored where `flips`.

    Shapes: boxes (B, 4) as top, left, height, width -> uint8 (B, size, size, 3).
    """
    images = np.empty((len(files), size, size, 3), np.uint8)
    for i, (file, box) in enumerate(zip(files, boxes.tolist(), strict=True)):
        part = resized(decode_box(file, box, size), size)
        images[i] = part[:, ::-1] if flips is not None and flips[i] else part
    return images


def decode_box(file: File, box: Sequence[int], size: int) -> np.ndarray:
    """The pixels of a box at full or reduced resolution, never below `size` a side where the image has that much."""
    factor = reduction(box, size) if sniff(file.data) == "jpg" else 1
    top, left, height, width = (edge // factor for edge in box)
    pixels = _decode(file, factor)
    return pixels[top : top + height, left : left + width]


def reduction(box: Sequence[int], size: int) -> int:
    """By how much the decoder may reduce a box on its way to `size`: 1, 2, 4 or 8."""
    return next(factor for factor in (8, 4, 2, 1) if factor == 1 or min(box[2:]) // factor >= size)


def _decode(file: File, factor: int) -> np.ndarray:
    if not FAST or sniff(file.data) != "jpg":
        return decode_reduced(file.data, file.extension, file.where, factor)
    return _simplejpeg(file, factor)


def _simplejpeg(file: File, factor: int) -> np.ndarray:
    """Falls back on Pillow where simplejpeg is stricter (CMYK, harmless stray bytes) and for the error's words."""
    import simplejpeg

    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(file.data)
        check_pixels(width, height, file.where)
        height, width = -(-height // factor), -(-width // factor)
        return simplejpeg.decode_jpeg(file.data, "RGB", min_height=height, min_width=width, min_factor=factor)
    except BadImage:
        raise
    except ValueError:
        return decode_reduced(file.data, file.extension, file.where, factor)


def resized(pixels: np.ndarray, size: int) -> np.ndarray:
    """Bilinear with antialiasing.

    Shapes: uint8 (H, W, 3) -> (size, size, 3).
    """
    if pixels.shape[:2] == (size, size):
        return pixels
    image = torch.from_numpy(np.ascontiguousarray(pixels)[None]).permute(0, 3, 1, 2)
    image = F.interpolate(image, size=(size, size), mode="bilinear", antialias=True)
    return image[0].permute(1, 2, 0).numpy()

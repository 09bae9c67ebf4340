"""Photographs: the part of a JPEG that a view shows, decoded at no more than the resolution it needs, and resized.

A box that is reduced to a third or less is decoded at 1/2, 1/4 or 1/8 (the decoder's own scaling, which skips most of
the inverse transform) and its edges move inwards to whole reduced pixels. Against full decoding of the same box that
changes a photograph by 0.4 of 255 levels on average, and by less than 2.5 in the worst of our test images. Resizing is
bilinear with antialiasing on uint8. `simplejpeg`, where installed, replaces Pillow's decoder: the same libjpeg-turbo
and the same pixels with less copying, and it stops below the box.
"""

import threading
from collections.abc import Sequence
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import torch

from vitexp.data.decode import MAX_PIXELS, Bytes, decode_reduced, sniff
from vitexp.data.header import image_size
from vitexp.data.jpeg import cut, is_whole

GAP = 1.5  # the decoder reduces by a box, which leaves some aliasing: half as much resolution again hides it
FAST = find_spec("simplejpeg") is not None
_THREAD = threading.local()


class File(NamedTuple):
    """An image as it lies in a shard; `where` names shard and key in errors."""

    data: Bytes
    extension: str
    where: object


def image_sizes(files: Sequence[File]) -> tuple[np.ndarray, np.ndarray]:
    """Heights and widths from the headers alone."""
    sizes = np.array([image_size(*file) for file in files], np.int64).reshape(-1, 2)
    return sizes[:, 0], sizes[:, 1]


def decode_boxes(files: Sequence[File], boxes: np.ndarray, size: int, flips: np.ndarray | None = None) -> np.ndarray:
    """Each file's box as a square of `size`, mirrored where `flips`.

    Shapes: boxes (B, 4) as top, left, height, width -> uint8 (B, size, size, 3).
    """
    images = torch.empty((len(files), size, size, 3), dtype=torch.uint8)
    for i, (file, box) in enumerate(zip(files, boxes.tolist(), strict=True)):
        resize_into(images[i], decode_box(file, box, size, scratch=True))
        if flips is not None and flips[i]:
            images[i] = images[i].flip(1)
    return images.numpy()


def decode_box(file: File, box: Sequence[int], size: int, scratch: bool = False) -> np.ndarray:
    """The pixels of a box, in a JPEG at the resolution that `size` needs and with edges on its reduced pixels.

    With `scratch` they may lie in memory that this thread's next image is decoded into.
    """
    factor = reduction(box, size) if sniff(file.data) == "jpg" else 1
    top, left, height, width = (edge // factor for edge in box)
    return _decode(file, factor, top + height, scratch)[top : top + height, left : left + width]


def reduction(box: Sequence[int], size: int) -> int:
    """By how much the decoder reduces a box on its way to `size` (1, 2, 4, 8), leaving half as much again as needed."""
    return next(factor for factor in (8, 4, 2, 1) if factor == 1 or min(box[2:]) >= GAP * factor * size)


def _decode(file: File, factor: int, rows: int, scratch: bool) -> np.ndarray:
    """The image at 1/factor of its size, down to row `rows` at least."""
    if FAST and sniff(file.data) == "jpg" and is_whole(file.data):
        pixels = _simplejpeg(file, factor, rows, scratch)
        if pixels is not None:
            return pixels
    return decode_reduced(file.data, file.extension, file.where, factor)


def _simplejpeg(file: File, factor: int, rows: int, scratch: bool) -> np.ndarray | None:
    """None where only Pillow knows what to do, or to say."""
    import simplejpeg

    try:
        data = cut(file.data, rows, factor)
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours == "CMYK" or height * width > MAX_PIXELS:
            return None
        # The decoder takes the smallest size that is no less than the least: exactly 1/factor, rounded up.
        least = {"min_height": -(-height // factor), "min_width": -(-width // factor)} if factor > 1 else {}
        # Not strict: Pillow too takes what libjpeg can mend; a file that was cut off is not mended (is_whole).
        return simplejpeg.decode_jpeg(data, "RGB", strict=False, **least, buffer=_space(height * width * 3, scratch))
    except ValueError:
        return None


def _space(length: int, scratch: bool) -> np.ndarray | None:
    """This thread's memory for decoded pixels: fresh pages for every image would cost a tenth of its decoding."""
    if not scratch:
        return None
    space: np.ndarray | None = getattr(_THREAD, "space", None)
    if space is None or len(space) < length:
        space = _THREAD.space = np.empty(length, np.uint8)
    return space


def resize_into(image: torch.Tensor, pixels: np.ndarray) -> None:
    """Bilinear with antialiasing, written straight into a batch.

    F.interpolate computes the same into a new tensor, channels first, and costs twice as much.
    Shapes: uint8 (H, W, 3) -> (size, size, 3).
    """
    source = torch.from_numpy(np.ascontiguousarray(pixels)[None])
    if source.shape[1:] == image.shape:
        image.copy_(source[0])
        return
    planes = (source.permute(0, 3, 1, 2), image[None].permute(0, 3, 1, 2))
    torch.ops.aten._upsample_bilinear2d_aa.out(planes[0], list(image.shape[:2]), False, None, None, out=planes[1])

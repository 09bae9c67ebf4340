"""Photographs: the part of a JPEG that a view shows, decoded at no more than the resolution it needs, and resized.

A box that is reduced to a third or less is decoded at 1/2, 1/4 or 1/8 (the decoder's own scaling, which skips most of
the inverse transform) and its edges move inwards to whole reduced pixels. Against full decoding of the same box that
changes a photograph by 0.4 of 255 levels on average, and by less than 2.5 in the worst of our test images. Resizing is
bilinear with antialiasing on uint8. `simplejpeg`, where installed, replaces Pillow's decoder: the same libjpeg-turbo
and the same pixels with less copying, and it stops below the box.
"""

import struct
import threading
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import torch

from vitexp.data.read.decode import MAX_PIXELS, BadImage, Bytes, check_image, check_pixels, decode_image, sniff

GAP = 1.5  # the decoder reduces by a box, which leaves some aliasing: half as much resolution again hides it
FAST = find_spec("simplejpeg") is not None
_THREAD = threading.local()
_BASELINE = (0xC0, 0xC1)
_NO_FRAME = {0xC4, 0xC8, 0xCC}  # in the range of JPEG's start-of-frame markers, but other things


class Frame(NamedTuple):
    """Where the height stands in the file, and how rows come in groups."""

    place: int
    height: int
    group: int  # rows of pixels in one row of blocks


def cut(data: Bytes, rows: int, factor: int = 1) -> Bytes:
    """A JPEG down to row `rows` of its reduction by `factor`, rounded up to what gives exactly those rows.

    A smaller height in its header makes the decoder stop there. Rows of a baseline JPEG come one after the other, so
    those above the cut are the same to the last bit. A progressive file, or one whose colours lie in separate scans,
    stays whole.
    """
    frame = baseline_frame(data)
    if frame is None:
        return data
    last = (rows + 2) * factor  # colour at half resolution is interpolated with its next row
    needed = -(-last // frame.group) * frame.group
    if needed >= frame.height:
        return data
    shorter = bytearray(data)
    struct.pack_into(">H", shorter, frame.place, needed)
    return bytes(shorter)


def is_whole(data: Bytes) -> bool:
    """Whether the file ends as a JPEG does: one that was cut off in transfer does not."""
    return bytes(data[-64:]).rstrip(b"\0").endswith(b"\xff\xd9")


def baseline_frame(data: Bytes) -> Frame | None:
    """The frame of a baseline JPEG with a single scan, None for any other file."""
    at, frame, colours = 2, None, 0
    try:
        while data[at] == 0xFF:
            marker, length = data[at + 1], struct.unpack_from(">H", data, at + 2)[0]
            if marker in _BASELINE:
                colours = data[at + 9]
                group = 8 * max(data[at + 11 + 3 * i] & 15 for i in range(colours))
                frame = Frame(at + 5, struct.unpack_from(">H", data, at + 5)[0], group)
            elif marker == 0xDA:
                return frame if data[at + 4] == colours else None
            elif marker == 0xFF or marker < 0xC0 or 0xD0 <= marker <= 0xD9:
                return None
            at += 2 + length
    except (IndexError, struct.error, ValueError):
        pass
    return None


def image_size(data: Bytes, extension: str, where: object) -> tuple[int, int]:
    """Height and width as stored (an EXIF orientation is ignored), from the first bytes and without a decoder.

    Raises: BadImage naming `where` for what is no PNG, JPEG or WebP, and for more pixels than we decode.
    """
    kind = check_image(data, extension, where)
    try:
        height, width = _SIZES[kind](data)
    except (struct.error, IndexError) as error:
        raise BadImage(f"{where}: the image ends inside its header; write the shard again") from error
    if height < 1 or width < 1:
        raise BadImage(f"{where}: the image says it has {width} x {height} pixels; write the shard again")
    check_pixels(width, height, where)
    return height, width


def _png(data: Bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    return height, width


def _jpeg(data: Bytes) -> tuple[int, int]:
    """Walks from marker to marker to the start of the frame."""
    at = 2
    while at < len(data):
        if data[at] != 0xFF:
            return 0, 0
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
            return struct.unpack_from(">HH", data, at + 5)
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # these stand alone
            at += 2
        else:
            at += 2 + max(2, struct.unpack_from(">H", data, at + 2)[0])
    raise IndexError


def _webp(data: Bytes) -> tuple[int, int]:
    chunk = bytes(data[12:16])
    if chunk == b"VP8X":
        return 1 + int.from_bytes(data[27:30], "little"), 1 + int.from_bytes(data[24:27], "little")
    if chunk == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, 26)
    return height & 0x3FFF, width & 0x3FFF


_SIZES: dict[str, Callable[[Bytes], tuple[int, int]]] = {"png": _png, "jpg": _jpeg, "webp": _webp}


class File(NamedTuple):
    """An image as it lies in a shard; `where` names shard and key in errors."""

    data: Bytes
    extension: str
    where: object


def image_sizes(files: Sequence[File]) -> tuple[np.ndarray, np.ndarray]:
    """Heights and widths from the headers alone."""
    sizes = np.array([image_size(*file) for file in files], np.int64).reshape(-1, 2)
    return sizes[:, 0], sizes[:, 1]


def decode_boxes(files: Sequence[File], boxes: np.ndarray, size: int) -> np.ndarray:
    """Each file's box as a square of `size`.

    Shapes: boxes (B, 4) as top, left, height, width -> uint8 (B, size, size, 3).
    """
    images = torch.empty((len(files), size, size, 3), dtype=torch.uint8)
    for i, (file, box) in enumerate(zip(files, boxes.tolist(), strict=True)):
        resize_into(images[i], decode_box(file, box, size, scratch=True))
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
    return decode_image(file.data, file.extension, file.where, factor)


def _simplejpeg(file: File, factor: int, rows: int, scratch: bool) -> np.ndarray | None:
    """None where only Pillow can decode it, or explain what is wrong with it."""
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

"""The size of an image from its first bytes, without a decoder: what the index needs to know about every image."""

import struct
from collections.abc import Callable

from vitexp.data.decode import BadImage, Bytes, check_image, check_pixels

_NO_FRAME = {0xC4, 0xC8, 0xCC}  # in the range of JPEG's start-of-frame markers, but other things


def image_size(data: Bytes, extension: str, where: object) -> tuple[int, int]:
    """Height and width, as stored (an EXIF orientation is ignored).

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

"""Fewer rows of a JPEG: its header is told that the image ends below the part we need, and the decoder stops there.

Rows of a baseline JPEG come one after the other, so those above the cut are the same to the last bit. A progressive
file, or one whose colours lie in separate scans, is left as it is.
"""

import struct
from typing import NamedTuple

from vitexp.data.decode import Bytes

_BASELINE = (0xC0, 0xC1)
_END = b"\xff\xd9"


class Frame(NamedTuple):
    """Where the height stands in the file, and how rows come in groups."""

    place: int
    height: int
    group: int  # rows of pixels in one row of blocks


def cut(data: Bytes, rows: int, factor: int = 1) -> Bytes:
    """The file down to row `rows` of its reduction by `factor`, rounded up to what gives exactly those rows."""
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
    return bytes(data[-64:]).rstrip(b"\0").endswith(_END)


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

"""Which images a network got right: one packed bit per image beside a record, to be counted again by anyone.

The bits stand in the order of the split's samples, the first image in the highest bit of the first byte, as
`numpy.packbits` writes them. They do not depend on the number of ranks, workers or batches. Two files with the same
`order` are about the same images in the same order, so they can be compared image by image.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from vitexp.record import RunRecord, write_atomically

FOLDER = "answers"


def write_answers(
    directory: str | os.PathLike[str], name: str, right: Sequence[bool], order: str
) -> dict[str, dict[str, Any]]:
    """Writes the bits of a metric (`test_acc`, `fewshot_5/draw-0`); gives its entry of `RunRecord.answers`."""
    packed = _packed(right)
    file = f"{FOLDER}/{name}.bits"
    write_atomically(Path(directory) / file, packed)
    entry = {"file": file, "images": len(right), "right": sum(map(bool, right))}
    return {name: entry | {"sha256": hashlib.sha256(packed).hexdigest(), "order": order}}


def read_answers(directory: str | os.PathLike[str], record: RunRecord, name: str) -> list[bool]:
    """Whether each image was answered rightly, from the folder of a record.

    Raises: ValueError when the record has no answers of this name, or their file is absent or not what was written.
    """
    entry = record.answers.get(name)
    if entry is None:
        known = ", ".join(sorted(record.answers)) or "none"
        raise ValueError(f"the record in {directory} has no answers of {name}; it has {known}")
    try:
        inside = PurePosixPath(entry["file"])
        images, count, digest = int(entry["images"]), int(entry["right"]), str(entry["sha256"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the entry of {name} under answers in the record of {directory} is damaged") from error
    if inside.is_absolute() or ".." in inside.parts:
        raise ValueError(f"the answers of {name} in the record of {directory} lie outside its folder; it was altered")
    path = Path(directory) / inside
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}, the answers of {name}, cannot be read ({error.strerror})") from error
    right = _unpacked(data, images)
    if hashlib.sha256(data).hexdigest() != digest or right is None or sum(right) != count:
        raise ValueError(f"{path} is damaged: it is not what was written with the record; run the cell again")
    return right


def _packed(right: Sequence[bool]) -> bytes:
    length = -(-len(right) // 8)
    digits = "".join("1" if one else "0" for one in right).ljust(8 * length, "0")
    return int(digits or "0", 2).to_bytes(length, "big")


def _unpacked(data: bytes, images: int) -> list[bool] | None:
    """The bits; None when there are not as many as images."""
    if images < 0 or len(data) != -(-images // 8):
        return None
    digits = f"{int.from_bytes(data, 'big'):0{max(1, 8 * len(data))}b}"
    return None if "1" in digits[images:] else [digit == "1" for digit in digits[:images]]

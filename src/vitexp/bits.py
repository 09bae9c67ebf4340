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

ANSWERS = "answers"


def write_answers(
    directory: str | os.PathLike[str], name: str, right: Sequence[bool], order: str
) -> dict[str, dict[str, Any]]:
    """Writes the bits of a metric (`test_acc`, `fewshot_5/draw-0`); gives its entry of `RunRecord.answers`."""
    digits, file = "".join("1" if one else "0" for one in right), f"{ANSWERS}/{name}.bits"
    packed = bytes(int(digits[start : start + 8].ljust(8, "0"), 2) for start in range(0, len(digits), 8))
    write_atomically(Path(directory) / file, packed)
    entry = {"file": file, "images": len(right), "right": sum(map(bool, right))}
    return {name: entry | {"sha256": hashlib.sha256(packed).hexdigest(), "order": order}}


def read_answers(directory: str | os.PathLike[str], record: RunRecord, name: str) -> list[bool]:
    """Whether each image was answered rightly, from the folder of a record.

    Raises: ValueError when the record has no answers of this name, or their file is absent or not what was written.
    """
    data, images = answers_file(directory, record, name)
    return [digit == "1" for byte in data for digit in f"{byte:08b}"][:images]


def answers_file(directory: str | os.PathLike[str], record: RunRecord, name: str) -> tuple[bytes, int]:
    """The packed bits of a metric as they were written, and how many images they are about.

    Raises: ValueError when the record has no answers of this name, or their file is absent or not what was written.
    """
    if name not in record.answers:
        known = ", ".join(sorted(record.answers)) or "none"
        raise ValueError(f"the record in {directory} has no answers of {name}; it has {known}")
    entry = record.answers[name]
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
    whole = int.from_bytes(data)
    beyond = 8 * len(data) - images  # bits that fill the last byte
    sound = 0 <= beyond < 8 and not whole & ((1 << beyond) - 1) and whole.bit_count() == count
    if not sound or hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(f"{path} is damaged: it is not what was written with the record; run the cell again")
    return data, images

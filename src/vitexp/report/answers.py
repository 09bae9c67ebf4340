"""The images that two runs got right: one packed bit for each, beside the record of each run."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vitexp.record import RunRecord

Located = tuple[RunRecord, Path]


def compare_answers(one: Located, other: Located) -> list[str]:
    """For each metric of which both runs keep answers, how many images both, one, or neither got right."""
    (a, folder), (b, beside) = one, other
    return [
        f"{metric}: {_compared(a.answers[metric], folder, b.answers[metric], beside)}."
        for metric in a.answers
        if metric in b.answers
    ]


def _compared(first: Mapping[str, Any], folder: Path, second: Mapping[str, Any], beside: Path) -> str:
    if first.get("order") != second.get("order") or first.get("order") is None:
        return "the runs measured other images, or in another order, so single images are not compared"
    try:
        a, b = read_answers(folder, first), read_answers(beside, second)
    except ValueError as error:
        return str(error)
    if len(a) != len(b):
        return f"{len(a):,} images beside {len(b):,}, so single images are not compared"
    both, only_a, only_b = (int(np.count_nonzero(bits)) for bits in (a & b, a & ~b, b & ~a))
    neither = len(a) - both - only_a - only_b
    return f"of {len(a):,} images both right {both:,}, only A {only_a:,}, only B {only_b:,}, neither {neither:,}"


def read_answers(folder: Path, entry: Mapping[str, Any]) -> np.ndarray:
    """Which images were right, in the order of the data set, as an array of (images,) booleans.

    Raises: ValueError when the file is not there, or is not what the record says of it.
    """
    name, images = entry.get("file"), entry.get("images")
    if not isinstance(name, str) or type(images) is not int or images < 0:
        raise ValueError("the record does not say where its answers are")
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"the answers in {name} lie outside the run's folder, and are not read")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"the answers in {path} cannot be read ({error.strerror})") from error
    if len(content) != -(-images // 8) or hashlib.sha256(content).hexdigest() != entry.get("sha256"):
        raise ValueError(f"{path} is not what its record says (its size or checksum is another)")
    bits: np.ndarray = np.unpackbits(np.frombuffer(content, np.uint8), count=images).astype(bool)
    if int(bits.sum()) != entry.get("right"):
        raise ValueError(f"{path} has {int(bits.sum()):,} right images, and its record says {entry.get('right')}")
    return bits

"""A data set of the user's own by import path, for `vitexp shards make my_ideas:Stripes@images=300 OUT`."""

from functools import partial
from typing import Any

import numpy as np
import yaml

from vitexp.data.shards.layout import SPLITS
from vitexp.data.sources.source import Content, Source, Split, clean, numbered
from vitexp.own import Slot, failing, load, options_of


def own_source(slot: Slot, name: str) -> Source:
    """The source behind `MODULE:NAME@option=value,...`. Raises: ValueError where no shards could be made of it."""
    path, _, options = name.partition("@")
    own, what = load(slot, path), f"source {path}"
    pairs = [pair.partition("=") for pair in options.split(",") if pair]
    if strange := [key for key, sign, _ in pairs if not sign]:
        raise ValueError(f"{name}: {strange[0]!r} is no option; give {path}@NAME=VALUE, with commas between several")
    given = options_of(slot, own, {key: yaml.safe_load(value) for key, _, value in pairs}, path)
    with failing(what):
        made = own.kind(**given)
        classes = tuple(map(str, made.classes))
        labels = {split: np.asarray(made.labels(split)) for split in SPLITS}
    odd = [split for split, ones in labels.items() if ones.ndim != 1 or (ones.size and ones.dtype.kind not in "iu")]
    if odd:
        raise ValueError(f"{what}: labels({odd[0]!r}) must be whole numbers, one for each image, or none; mend it")
    if not labels["train"].size:
        raise ValueError(f"{what}: labels('train') is empty, so there is nothing to learn from; give training images")
    splits = {split: _split(made, what, split, ones) for split, ones in labels.items() if ones.size}
    identity = f"{own.source} {given}"
    return Source(name=clean(own.label), classes=classes, splits=splits, identity=identity)


def _split(made: Any, what: str, split: str, labels: np.ndarray) -> Split:
    first, again = (np.asarray(_read(made, what, split, i)) for i in (0, 0))
    if not np.array_equal(first, again):
        raise ValueError(f"{what}: image({split!r}, 0) is another one when it is asked for again; draw it from both")
    return numbered(split, labels.astype(np.int64), partial(_read, made, what, split))


def _read(made: Any, what: str, split: str, i: int) -> Content:
    """The bytes of an image file, or pixels. Raises: ValueError."""
    with failing(what):
        found = made.image(split, i)
    if not isinstance(found, bytes | np.ndarray):
        raise ValueError(f"{what}: image({split!r}, {i}) is a {type(found).__name__}, and must be an array or bytes")
    return found

"""Data sets that are drawn: no file is needed, they have any size, and what decides the class is known.

Image i of a split follows from the set, its seed, the split and i, so it is the same in a set of any size. Its class is
i modulo the number of classes. Everything is arithmetic of NumPy: no font and no drawing library takes part.

`drawn-digits` has one digit in a picture of 16 x 16, bent, turned and crossed out in many ways.

`drawn-what` and `drawn-where` are controls: a picture is made of fields of 8 x 8 pixels, and a digit is in one of them.
In `drawn-what` the class is the digit, whatever its field; the other eight fields hold loose strokes. In `drawn-where`
it is the field, top left or bottom right, whatever the digit; the other three hold noise. There, two pictures in a row
hold the same fields, and the digit is in each place once. Patches whose side divides 8 are then the same in both, only
their places differ, so a network without positions answers both alike. One of these answers is right: its accuracy is
1/2, whatever it has learned.
"""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from vitexp.data.sources.source import Source, Split, digest

FIELD = 8
MOST_IMAGES = 10**7
_SPLITS = ("train", "test")
_OPTIONS = (*_SPLITS, "seed")

# Corners of the strokes of each digit, x to the right and y down, in a box of 0..2 by 0..4.
_STROKES: tuple[tuple[tuple[tuple[float, float], ...], ...], ...] = (
    (((0.6, 0), (1.4, 0), (2, 1), (2, 3), (1.4, 4), (0.6, 4), (0, 3), (0, 1), (0.6, 0)),),
    (((0.3, 1), (1.2, 0), (1.2, 4)),),
    (((0, 0.8), (0.6, 0), (1.5, 0), (2, 0.8), (1.8, 1.8), (0, 4), (2, 4)),),
    (((0, 0), (2, 0), (0.9, 1.6), (1.7, 2), (2, 3), (1.4, 4), (0.5, 4), (0, 3.3)),),
    (((1.5, 4), (1.5, 0), (0, 2.7), (2, 2.7)),),
    (((2, 0), (0.2, 0), (0, 1.9), (1.3, 1.6), (2, 2.5), (1.8, 3.6), (1, 4), (0, 3.6)),),
    (((1.7, 0), (0.6, 1.2), (0, 2.8), (0.6, 4), (1.5, 4), (2, 3), (1.5, 2), (0.6, 2), (0, 2.8)),),
    (((0, 0), (2, 0), (0.8, 4)),),
    (
        ((1, 1.8), (0.2, 1.3), (0.3, 0.3), (1, 0), (1.7, 0.3), (1.8, 1.3), (1, 1.8)),
        ((1, 1.8), (0, 2.7), (0.3, 3.7), (1, 4), (1.7, 3.7), (2, 2.7), (1, 1.8)),
    ),
    (((2, 1.2), (1.4, 2), (0.5, 2), (0, 1), (0.5, 0), (1.4, 0), (2, 1.2), (1.4, 2.8), (0.3, 4)),),
)


def _segments(strokes: tuple[tuple[tuple[float, float], ...], ...]) -> np.ndarray:
    """Start and end of every straight piece, around the middle of the box, which is 1 high. Shapes: (S, 2, 2)."""
    pieces = [pair for stroke in strokes for pair in pairwise(stroke)]
    return (np.array(pieces, float) - (1.0, 2.0)) / 4.0


DIGITS = tuple(_segments(strokes) for strokes in _STROKES)


def ink(segments: np.ndarray, size: int, width: float) -> np.ndarray:
    """Lines `width` pixels wide with soft edges, from 0 to 1. Shapes: (S, 2, 2) in pixels, x first -> (size, size)."""
    start, along = segments[:, 0], segments[:, 1] - segments[:, 0]
    rows, columns = np.mgrid[:size, :size] + 0.5
    away = np.stack([columns, rows], -1)[:, :, None] - start
    share = (away * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-9)
    distance = np.sqrt(((away - np.clip(share, 0, 1)[..., None] * along) ** 2).sum(-1)).min(-1)
    return np.clip(width / 2 + 0.5 - distance, 0.0, 1.0)


def digit(draw: np.random.Generator, which: int, size: int, *, bend: float, shift: float) -> np.ndarray:
    """A digit of random height, width, slant, turn, place, thickness and bends, as ink. Shapes: (size, size).

    `bend` is the spread of each corner's place as a share of the height, `shift` the most that its middle moves as a
    share of the picture.
    """
    high, wide = size * draw.uniform(0.6, 0.85), size * draw.uniform(0.55, 0.95)
    slant, turn = draw.uniform(-0.25, 0.25), draw.uniform(-0.25, 0.25)
    middle = size * (0.5 + draw.uniform(-shift, shift, 2))
    width = size * draw.uniform(0.08, 0.16)
    corners, place = np.unique(DIGITS[which].reshape(-1, 2), axis=0, return_inverse=True)
    corners = corners + draw.normal(0, bend, corners.shape)  # a corner moves with all the strokes that meet there
    upright = corners @ np.array([[wide, 0.0], [-slant * high, high]])
    cos, sin = np.cos(turn), np.sin(turn)
    turned = upright @ np.array([[cos, sin], [-sin, cos]]) + middle
    return ink(turned[place.reshape(-1)].reshape(-1, 2, 2), size, width)


def loose_strokes(draw: np.random.Generator, size: int) -> np.ndarray:
    """Straight lines without order, about as much ink as a digit has. Shapes: (size, size)."""
    return ink(draw.uniform(0.1, 0.9, (int(draw.integers(1, 3)), 2, 2)) * size, size, size * draw.uniform(0.08, 0.16))


def _bytes(draw: np.random.Generator, grey: np.ndarray, ground: float, contrast: float, noise: float) -> np.ndarray:
    """Ink of some contrast on a ground, with noise, as bytes."""
    shown = ground + contrast * grey + draw.normal(0, noise, grey.shape)
    return np.round(np.clip(shown, 0, 1) * 255).astype(np.uint8)


def _laid_out(fields: list[np.ndarray], place: int) -> np.ndarray:
    """The square picture: the first field at `place` in reading order, the others in theirs."""
    first, *others = fields
    others.insert(place, first)
    side = math.isqrt(len(fields))
    return np.block([others[row * side : (row + 1) * side] for row in range(side)])


def what(draw: np.random.Generator, label: int) -> np.ndarray:
    """The class is the digit, whatever its field; loose strokes are in the others."""
    place = int(draw.integers(9))
    inks = [_small_digit(draw, label), *(loose_strokes(draw, FIELD) for _ in range(8))]
    return _laid_out([_bytes(draw, one, draw.uniform(0.1, 0.4), draw.uniform(0.3, 0.6), 0.05) for one in inks], place)


def where(draw: np.random.Generator, label: int) -> np.ndarray:
    """The class is the field, whatever the digit. 15 % of the pictures have no digit, so nobody reaches 100 %."""
    inks = [_small_digit(draw, int(draw.integers(10))), *[np.zeros((FIELD, FIELD))] * 3]
    contrast = draw.uniform(0.5, 1.0) if draw.random() < 0.85 else 0.0
    return _laid_out([_bytes(draw, one, 0.2, contrast, 0.1) for one in inks], 3 * label)


def _small_digit(draw: np.random.Generator, which: int) -> np.ndarray:
    return digit(draw, which, FIELD, bend=0.03, shift=0.06)


def large_digit(draw: np.random.Generator, label: int) -> np.ndarray:
    """A digit that fills the picture; the class is the digit. A loose stroke or two cross a quarter of them."""
    grey = digit(draw, label, 16, bend=0.06, shift=0.08)
    if draw.random() < 0.25:
        grey = np.maximum(grey, 0.8 * loose_strokes(draw, 16))
    return _bytes(draw, grey, draw.uniform(0.1, 0.4), draw.uniform(0.3, 0.6), 0.05)


class Drawn(NamedTuple):
    """A set: what draws a picture of a class, the names of the classes, images of each split where none are asked
    for, and how many images in a row are drawn from the same random numbers.
    """

    picture: Callable[[np.random.Generator, int], np.ndarray]
    classes: tuple[str, ...]
    train: int
    test: int
    alike: int = 1


_DIGITS = tuple("0123456789")
_PLACES = ("top left", "bottom right")
SETS = {
    "drawn-digits": Drawn(large_digit, _DIGITS, 4_000, 4_000),
    "drawn-what": Drawn(what, _DIGITS, 3_000, 6_000),
    "drawn-where": Drawn(where, _PLACES, 2_400, 4_000, alike=len(_PLACES)),
}


def drawn(name: str, options: str = "") -> Source:
    """The drawn set of that name; `options` is `train=5000,test=20000,seed=1`, any of them.

    Raises: ValueError for an option that is unknown or no fitting number.
    """
    made, asked = SETS[name], _options(name, options)
    seed = asked.pop("seed", 0)
    counts = {split: asked.get(split, getattr(made, split)) for split in _SPLITS}
    least = len(made.classes)
    for split, count in counts.items():
        if not least <= count <= MOST_IMAGES:
            raise ValueError(f"{name}: {split} is {count}; give {least} (one image of each class) to {MOST_IMAGES}")
    return Source(
        name=f"{name}-seed{seed}" if seed else name,
        classes=made.classes,
        splits={split: _split(name, made, split, count, seed) for split, count in counts.items()},
        identity=f"seed {seed}",
    )


def _options(name: str, text: str) -> dict[str, int]:
    pairs = [part.partition("=") for part in text.split(",")] if text else []
    for key, _, value in pairs:
        if key not in _OPTIONS or not (value.isascii() and value.isdecimal()):
            raise ValueError(f"{name}@{text}: {key}={value} is none of {'=N, '.join(_OPTIONS)}=N with a whole number N")
    return {key: int(value) for key, _, value in pairs}


def _split(name: str, made: Drawn, split: str, count: int, seed: int) -> Split:
    """A split whose pictures are drawn when they are read; keys say nothing of how many there are."""
    return Split(
        keys=[f"{split}-{i:07d}" for i in range(count)],
        labels=np.arange(count, dtype=np.int64) % len(made.classes),
        read=partial(_read, made, f"{name} {split}", seed),
    )


def _read(made: Drawn, stream: str, seed: int, i: int) -> np.ndarray:
    draw = np.random.default_rng(digest(f"{stream} {i // made.alike}", seed))
    return made.picture(draw, i % len(made.classes))

"""Three small sets of drawn shapes for sweeps/vtab.yaml: what shape it is, where it is, how many there are.

A picture is 16 x 16 in colour: squares, discs and crosses of random size, place and colour on noise. One stream of
random numbers makes all pictures of a set, one after the other, so their number is fixed.
"""

import numpy as np

from vitexp.data.sources.source import Source, numbered

SIZE, KINDS = 16, ("square", "disc", "cross")
TRAIN, TEST = 1000, 1000


def shapes(name: str) -> Source:
    """The set of that name, drawn in a fraction of a second."""
    draw, (picture, classes) = np.random.default_rng([0, list(SETS).index(name)]), SETS[name]
    splits = {}
    for split, count in (("train", TRAIN), ("test", TEST)):
        pictures, labels = zip(*(picture(draw) for _ in range(count)), strict=True)
        splits[split] = numbered(split, np.array(labels), np.stack(pictures).__getitem__)
    return Source(name=name, classes=tuple(map(str, range(classes))), splits=splits)


def what(draw: np.random.Generator) -> tuple[np.ndarray, int]:
    """Which of the shapes it is."""
    label = int(draw.integers(len(KINDS)))
    picture = _ground(draw)
    _put(picture, draw, KINDS[label], draw.integers(3, SIZE - 3, 2))
    return picture, label


def where(draw: np.random.Generator) -> tuple[np.ndarray, int]:
    """In which of nine fields its middle is."""
    label = int(draw.integers(9))
    picture = _ground(draw)
    field = np.array(divmod(label, 3)) * 5
    _put(picture, draw, str(draw.choice(KINDS)), np.clip(field + draw.integers(0, 6, 2), 0, SIZE - 1))
    return picture, label


def how_many(draw: np.random.Generator) -> tuple[np.ndarray, int]:
    """Up to four shapes, each in a field of its own."""
    label = int(draw.integers(4))
    picture = _ground(draw)
    for field in draw.permutation(9)[: label + 1]:
        kind = str(draw.choice(KINDS))
        _put(picture, draw, kind, np.array(divmod(int(field), 3)) * 5 + draw.integers(2, 4, 2), small=True)
    return picture, label


SETS = {"shapes-what": (what, len(KINDS)), "shapes-where": (where, 9), "shapes-count": (how_many, 4)}


def _ground(draw: np.random.Generator) -> np.ndarray:
    """Dim noise."""
    return draw.integers(0, 80, (SIZE, SIZE, 3), np.uint8)


def _put(picture: np.ndarray, draw: np.random.Generator, kind: str, middle: np.ndarray, small: bool = False) -> None:
    """Paints a shape of random size and bright colour over the picture."""
    radius = 1 if small else int(draw.integers(2, 4))
    rows, columns = np.ogrid[:SIZE, :SIZE]
    down, right = np.abs(rows - middle[0]), np.abs(columns - middle[1])
    inside = {
        "square": (down <= radius) & (right <= radius),
        "disc": down**2 + right**2 <= radius**2 + 1,
        "cross": ((down == 0) & (right <= radius)) | ((right == 0) & (down <= radius)),
    }[kind]
    picture[inside] = draw.integers(140, 256, 3, np.uint8)

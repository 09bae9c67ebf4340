"""Makes three small sets of pictures of shapes for sweeps/vtab.yaml: what shape, where it is, how many there are.

    python experiments/make_shapes.py      (writes shapes-what.npz, shapes-where.npz, shapes-count.npz; 2 seconds)

Each picture is 16 x 16 in colour: squares, discs and crosses of random size, place and colour on noise. The same seed
makes the same bytes.
"""

import argparse
import io
from pathlib import Path

import numpy as np

from vitexp.record import write_atomically

SIZE, KINDS = 16, ("square", "disc", "cross")
TRAIN, TEST = 1000, 1000


def main() -> None:
    """Writes the three files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("shards"), help="folder (default: shards)")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    for number, (name, make) in enumerate(TASKS.items()):
        draw = np.random.default_rng([chosen.seed, number])
        arrays = {}
        for split, count in (("train", TRAIN), ("test", TEST)):
            made = [make(draw) for _ in range(count)]
            arrays[f"x_{split}"] = np.stack([picture for picture, _ in made])
            arrays[f"y_{split}"] = np.array([label for _, label in made])
        content = io.BytesIO()
        np.savez(content, **arrays)
        write_atomically(chosen.out / f"{name}.npz", content.getvalue())
        print(f"Written: {chosen.out / name}.npz ({TRAIN:,} and {TEST:,} pictures)")


def what(draw: np.random.Generator) -> tuple[np.ndarray, int]:
    """Which of the shapes it is."""
    label = int(draw.integers(len(KINDS)))
    picture = ground(draw)
    put(picture, draw, KINDS[label], draw.integers(3, SIZE - 3, 2))
    return picture, label


def where(draw: np.random.Generator) -> tuple[np.ndarray, int]:
    """In which of nine fields its middle is."""
    label = int(draw.integers(9))
    picture = ground(draw)
    field = np.array(divmod(label, 3)) * 5
    put(picture, draw, str(draw.choice(KINDS)), np.clip(field + draw.integers(0, 6, 2), 0, SIZE - 1))
    return picture, label


def how_many(draw: np.random.Generator) -> tuple[np.ndarray, int]:
    """Up to four shapes, each in a field of its own."""
    label = int(draw.integers(4))
    picture = ground(draw)
    for field in draw.permutation(9)[: label + 1]:
        put(
            picture,
            draw,
            str(draw.choice(KINDS)),
            np.array(divmod(int(field), 3)) * 5 + draw.integers(2, 4, 2),
            small=True,
        )
    return picture, label


TASKS = {"shapes-what": what, "shapes-where": where, "shapes-count": how_many}


def ground(draw: np.random.Generator) -> np.ndarray:
    """Dim noise."""
    return draw.integers(0, 80, (SIZE, SIZE, 3), np.uint8)


def put(picture: np.ndarray, draw: np.random.Generator, kind: str, middle: np.ndarray, small: bool = False) -> None:
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


if __name__ == "__main__":
    main()

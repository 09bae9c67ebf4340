"""How wide both intervals of a difference are, by seeds and test images, on simulated studies: docs/intervals.svg.

    OMP_NUM_THREADS=1 python bench/widths.py          (about a minute)

The studies are those of rates.py: 8 arms, 14 comparisons, a paired difference of 1.5 points deviation on 359 images.
"""

import argparse
from pathlib import Path
from statistics import median

import numpy as np
from rates import World, new

from vitexp.report import style

SEEDS, IMAGES = (3, 5, 10, 20), (359, 2_000, 10_000)
NAMES = {True: "images like these", False: "these images alone"}


def half_width(seeds: int, images: int, such: bool, studies: int) -> float:
    """The median half-width of the intervals of a table, in accuracy."""
    draw = np.random.default_rng([seeds, images])
    drawn = (World(n=seeds, images=images).draw(draw) for _ in range(studies))
    return median((high - low) / 2 for one in drawn for low, high in new(one, such).differences.values())


def main() -> None:
    """Prints the table and draws it."""
    chosen = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    chosen.add_argument("--studies", type=int, default=20)
    chosen.add_argument("--out", type=Path, default=Path("docs"))
    given = chosen.parse_args()
    texts = (
        "How wide the interval of a difference is",
        "Half-width in points, medians of simulated studies: 8 arms, 14 comparisons that hold together",
        "More seeds narrow the dotted lines without end, and the solid ones down to what the test images leave open.",
    )
    with style.settings():
        figure, panels = style.page((8.2, 3.9), (0.7, 0.5, 2.6, 0.75), texts)
        axes = panels[0, 0]
        print("| half-width, points |" + "|".join(f" {n} seeds " for n in SEEDS) + "|\n|" + " --- |" * (len(SEEDS) + 1))
        for place, images in enumerate(IMAGES):
            for such, name in NAMES.items():
                widths = [100 * half_width(n, images, such, given.studies) for n in SEEDS]
                print(f"| {images:,} test images, {name} |" + "|".join(f" {width:.2f} " for width in widths) + "|")
                axes.plot(SEEDS, widths, "-" if such else ":", label=f"{images:,}: {name}", **style.look(place))
        axes.set(xscale="log", xlabel="seeds", ylabel="half-width, points", ylim=(0, None))
        axes.set_xticks(SEEDS, [str(n) for n in SEEDS])
        axes.minorticks_off()
        axes.legend(title="test images: interval about", loc="center left", bbox_to_anchor=(1.0, 0.5))
        style.save(figure, given.out, "intervals")


if __name__ == "__main__":
    main()

"""How many seeds, and how many test images, an undecided comparison still needs."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from itertools import chain, count, islice

from vitexp.stats.crossed import Variance
from vitexp.stats.planning import fewest_seeds, half_the_room, images_within, shows

MOST_SEEDS = 1000
"""Beyond them nobody trains: the difference is too small to be shown."""


@dataclass(frozen=True)
class Needed:
    """The seeds, in all and on either side, that show a difference of `effect` with probability `stats.POWER`.

    `images` is the number of test images where those at hand are too few for any number of seeds; `seeds` is None where
    even that would take more than `MOST_SEEDS`.
    """

    effect: float
    seeds: int | None
    images: int | None = None


def needed(variance: Variance, n: int, effect: float, alpha: float) -> Needed:
    """What a comparison needs, judged at `alpha`, by its variance over `n` seeds so far: that is an estimate as well.

    More seeds divide their part of the variance and leave that of the images. Where the images are too few, seeds and
    images share evenly what the variance may be.
    """
    seeds = fewest_seeds(variance, n, alpha, shows(effect), 1.0)
    if seeds is not None and seeds <= MOST_SEEDS:
        return Needed(effect, max(seeds, n + 1))
    half = half_the_room(effect, alpha)
    if variance.images <= half or not half:
        return Needed(effect, None)
    seeds = math.ceil(variance.of_seeds * n / half)
    return Needed(effect, max(seeds, n), images_within(variance, half)) if seeds <= MOST_SEEDS else Needed(effect, None)


def seeds_to_run(base: Collection[int], candidate: Collection[int], total: int) -> tuple[list[int], list[int]]:
    """The seeds that either side still has to run until both have `total` in common: first those that one has."""
    common, either = set(base) & set(candidate), set(base) | set(candidate)
    more = islice(chain(sorted(either - common), count(max(either, default=-1) + 1)), max(0, total - len(common)))
    chosen = list(more)
    return [seed for seed in chosen if seed not in base], [seed for seed in chosen if seed not in candidate]

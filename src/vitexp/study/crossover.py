"""The data size at which one arm overtakes another: where their paired difference changes its sign."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import special

MINIMUM_SEEDS = 3
_STEPS = 500  # in which the stretch between two sizes is searched


@dataclass(frozen=True, kw_only=True)
class Crossover:
    """Where the mean difference crosses zero, and between which sizes the seeds leave open who is ahead.

    `size` is absent where the mean never crosses or crosses more than once; the interval then and under 3 seeds. An
    end that leaves the sizes studied is 0 or infinite. `leader` is the sign of the difference before the crossing.
    """

    size: float | None
    low: float | None
    high: float | None
    crossings: int
    leader: int
    seeds: int

    @property
    def shown(self) -> bool:
        """Whether the seeds show a crossing within the sizes studied."""
        return self.low is not None and self.high is not None and self.low > 0 and self.high < math.inf


def find_crossover(sizes: Sequence[float], differences: np.ndarray, level: float = 0.95) -> Crossover:
    """The crossover of two arms from their paired differences, interpolated in the logarithm of the size.

    The interval holds every size at which Student's interval of the mean difference includes zero, so that it covers
    the crossing at `level` however few the seeds (Fieller's construction).

    Shapes: differences is (seeds, sizes), every seed at every size, in the order of rising sizes.
    """
    seeds = len(differences)
    mean = differences.mean(axis=0)
    found = crossings(sizes, mean)
    low = high = None
    if len(found) == 1 and seeds >= MINIMUM_SEEDS:
        low, high = _undecided(sizes, differences, level, found[0])
    return Crossover(
        size=found[0] if len(found) == 1 else None,
        low=low,
        high=high,
        crossings=len(found),
        leader=next((int(sign) for sign in np.sign(mean) if sign), 0),
        seeds=seeds,
    )


def crossings(sizes: Sequence[float], differences: Sequence[float] | np.ndarray) -> list[float]:
    """Every size at which the differences change their sign; a stretch of zeros counts once, at its middle."""
    places = [(math.log(size), float(value)) for size, value in zip(sizes, differences, strict=True)]
    apart = [index for index, (_, value) in enumerate(places) if value != 0]
    found = []
    for left, right in pairwise(apart):
        (x0, y0), (x1, y1) = places[left], places[right]
        if y0 * y1 < 0:
            zeros = [x for x, _ in places[left + 1 : right]]
            found.append(math.exp((zeros[0] + zeros[-1]) / 2 if zeros else x0 + (x1 - x0) * y0 / (y0 - y1)))
    return found


def _undecided(sizes: Sequence[float], differences: np.ndarray, level: float, crossing: float) -> tuple[float, float]:
    """The smallest and the largest size at which the interval of the mean difference includes zero."""
    known = np.log(np.asarray(sizes, dtype=float))
    between = np.concatenate([np.linspace(*ends, _STEPS, endpoint=False) for ends in pairwise(known)])
    places = np.append(between, known[-1])
    lines = np.array([np.interp(places, known, seed) for seed in differences])
    half = special.stdtrit(len(lines) - 1, (1 + level) / 2) * lines.std(axis=0, ddof=1) / math.sqrt(len(lines))
    open_places = np.flatnonzero(np.abs(lines.mean(axis=0)) <= half)
    if not len(open_places):  # no spread, or less than one step of it
        return crossing, crossing
    first, last = int(open_places[0]), int(open_places[-1])
    low = 0.0 if first == 0 else min(crossing, float(np.exp(places[first])))
    high = math.inf if last == len(places) - 1 else max(crossing, float(np.exp(places[last])))
    return low, high

"""How many times less one line of networks costs than another at equal accuracy: the statement of the paper's Fig. 5.

For each seed, accuracy is a line in the logarithm of the cost through the running best of the networks (a network that
a cheaper one beats is left out). Two such lines lie a horizontal distance apart, which is averaged over the
accuracies that both reach; nothing is extrapolated. The running best takes luck for skill where networks differ by
less than the seeds do.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vitexp import stats

Priced = tuple[float, Mapping[int, float]]
"""What a network costs, and its accuracy by seed."""


@dataclass(frozen=True, kw_only=True)
class Gap:
    """The mean distance of two lines in the natural logarithm of cost, and the accuracies that both reach."""

    log_factor: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class EqualAccuracy:
    """By seed, how far the first line lies on the cheap side of the second; None where they share no accuracy."""

    gaps: Mapping[int, Gap | None]

    @property
    def apart(self) -> tuple[int, ...]:
        """The seeds at which the lines reach no common accuracy."""
        return tuple(seed for seed, gap in self.gaps.items() if gap is None)

    @property
    def log_factors(self) -> dict[int, float]:
        """The distances that there are, by seed."""
        return {seed: gap.log_factor for seed, gap in self.gaps.items() if gap is not None}

    @cached_property
    def factor(self) -> float | None:
        """How many times less the first costs, in the geometric mean over seeds; below 1 it costs more."""
        found = self.log_factors
        return math.exp(stats.interval(list(found.values())).mean) if found else None

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the factor (Student's t on logarithms).

        Absent under 3 seeds, without any spread, and where a seed has no distance: the others would be a choice.
        """
        found = list(self.log_factors.values())
        if self.apart or len(found) < stats.MINIMUM_SEEDS:
            return None
        known = stats.interval(found)
        return None if known.low is None or known.high is None else (math.exp(known.low), math.exp(known.high))

    @property
    def accuracies(self) -> tuple[float, float] | None:
        """The accuracies that both reach: the mean over seeds of either end."""
        held = [gap for gap in self.gaps.values() if gap is not None]
        if not held:
            return None
        low, high = (math.fsum(ends) / len(held) for ends in zip(*((gap.low, gap.high) for gap in held), strict=True))
        return low, high


def equal_accuracy(one: Sequence[Priced], other: Sequence[Priced]) -> EqualAccuracy:
    """Two lines compared at the seeds that all of their networks have."""
    held = [set(values) for _, values in (*one, *other)]
    seeds = sorted(set.intersection(*held)) if held else []
    return EqualAccuracy(gaps={seed: gap(_at(one, seed), _at(other, seed)) for seed in seeds})


def gap(one: Sequence[tuple[float, float]], other: Sequence[tuple[float, float]]) -> Gap | None:
    """The distance of two lines of (cost, accuracy); None where no range of accuracy is common to both."""
    lines = [running_best(line) for line in (one, other)]
    low, high = max(line[0][1] for line in lines), min(line[-1][1] for line in lines)
    if low >= high:
        return None
    corners = {accuracy for line in lines for _, accuracy in line if low < accuracy < high}
    levels = np.array(sorted({low, high, *corners}))
    cheap, dear = (np.interp(levels, [a for _, a in line], [math.log(c) for c, _ in line]) for line in lines)
    return Gap(log_factor=float(np.trapezoid(dear - cheap, levels)) / (high - low), low=low, high=high)


def running_best(line: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no cheaper one matches, cheapest first."""
    kept: list[tuple[float, float]] = []
    for cost, accuracy in sorted(line, key=lambda point: (point[0], -point[1])):
        if not kept or accuracy > kept[-1][1]:
            kept.append((cost, accuracy))
    return kept


def _at(line: Sequence[Priced], seed: int) -> list[tuple[float, float]]:
    return [(cost, values[seed]) for cost, values in line]

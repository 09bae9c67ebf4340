"""What is read off the points of a curve: how error falls with data, where two arms cross, what equal accuracy costs.

Arrays and numbers in, numbers out; nothing here knows records.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement, pairwise
from typing import NamedTuple

import numpy as np
from scipy import special

from vitexp import stats
from vitexp.stats.samples import quantile

_UPPER = 0.975  # the quantile at which a two-sided 95 % interval ends

# The power law: error = a * n^-b + c, with the uncertainty that the seeds give it.

MINIMUM_SIZES = 4
MOST_RESAMPLES = 1000
FLATTEST, STEEPEST = 0.01, 3.0
_LEAST_FALL = 1e-9
_ROUNDING = 1e-4  # a miss that no counted share of less than 10,000 images could show
_ROUNDS, _STEPS = 5, 41
_LEAST_ERROR = 1e-3  # an error of nothing would weigh without bound


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """A fit, the 95 % bootstrap intervals of its exponent and its floor, and the largest miss of a mean error.

    `outside` is how many of the `sizes` means the fit misses by more than their intervals: Student's t over seeds, as
    wide as it takes for all of them to hold together in 95 % of cases (Bonferroni).
    """

    a: float
    b: float
    c: float
    b_interval: tuple[float, float]
    c_interval: tuple[float, float]
    miss: float
    outside: int
    sizes: int
    seeds: int
    outside_at: tuple[float, ...] = ()
    """The sizes of those"""

    def error(self, sizes: Sequence[float] | np.ndarray) -> np.ndarray:
        """The fitted error at any size."""
        return self.a * np.asarray(sizes, dtype=float) ** -self.b + self.c


def fit_power_law(sizes: Sequence[float], errors: np.ndarray) -> PowerLaw | str:
    """The power law through mean errors, or in words why there is none.

    Shapes: errors is (seeds, sizes), every seed at every size. Squares are weighted by 1 / (error * (1 - error)), the
    spread of a counted share. Bounds: a and c from 0, b from 0.01 to 3.
    """
    seeds, count = errors.shape
    if count < MINIMUM_SIZES:
        return f"three numbers need {MINIMUM_SIZES} sizes, and there are {count}"
    if seeds < stats.MINIMUM_SEEDS:
        return f"its uncertainty needs {stats.MINIMUM_SEEDS} seeds with every size, and there are {seeds}"
    middle = float(np.exp(np.mean(np.log(sizes))))  # at which a is well determined
    x = np.asarray(sizes, dtype=float) / middle
    mean = errors.mean(axis=0)
    share = np.clip(mean, _LEAST_ERROR, 1 - _LEAST_ERROR)
    weights = 1 / (share * (1 - share))
    rows, probabilities = resamples(seeds)
    a, b, c = (float(found[0]) for found in _fit(x, mean[None], weights))
    _, drawn_b, drawn_c = _fit(x, rows @ errors / seeds, weights)
    half_b, half_c = (half_width(drawn, probabilities, seeds) for drawn in (drawn_b, drawn_c))
    if a <= _LEAST_FALL:
        return "the error does not fall with data"
    if b - half_b < FLATTEST or b + half_b > STEEPEST:
        return f"these sizes and seeds do not pin it down (exponent {b:.2g} ± {half_b:.2g})"
    misses = np.abs(a * x**-b + c - mean)
    half = special.stdtrit(seeds - 1, 1 - 0.025 / count) * errors.std(axis=0, ddof=1) / np.sqrt(seeds)
    outside = [float(size) for size, out in zip(sizes, misses > np.maximum(half, _ROUNDING), strict=True) if out]
    return PowerLaw(
        a=a * middle**b,
        b=b,
        c=c,
        b_interval=(b - half_b, b + half_b),
        c_interval=(max(0.0, c - half_c), c + half_c),
        miss=float(misses.max()),
        outside=len(outside),
        sizes=count,
        seeds=seeds,
        outside_at=tuple(outside),
    )


def _fit(x: np.ndarray, errors: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scale, exponent and floor for each row of `errors`: exponents by grids that close in, the rest in closed form."""
    low, high = (np.full(len(errors), np.log(bound)) for bound in (FLATTEST, STEEPEST))
    rows = np.arange(len(errors))
    for _ in range(_ROUNDS):
        exponents = np.exp(np.linspace(low, high, _STEPS, axis=1))
        a, c, misses = _scale_and_floor(x, errors, weights, exponents)
        best = misses.argmin(axis=1)
        found = a[rows, best], exponents[rows, best], c[rows, best]
        low, high = (np.log(exponents[rows, np.clip(best + side, 0, _STEPS - 1)]) for side in (-1, 1))
    return found


def _scale_and_floor(
    x: np.ndarray, errors: np.ndarray, weights: np.ndarray, exponents: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weighted least squares of error on x^-b and a constant, neither below 0, for each row and exponent.

    Shapes: x and weights (S), errors (R, S), exponents (R, E); all results (R, E).
    """
    powers = x ** -exponents[..., None]
    share = weights / weights.sum()
    mean_power, mean_error = powers @ share, (errors @ share)[:, None]
    centred = powers - mean_power[..., None]
    slope = (centred * share * (errors - mean_error)[:, None]).sum(-1) / (centred**2 * share).sum(-1)
    through_zero = (powers * share * errors[:, None]).sum(-1) / (powers**2 * share).sum(-1)
    floor = mean_error - slope * mean_power
    a = np.where(floor < 0, through_zero, np.maximum(slope, 0))
    c = np.where(floor < 0, 0.0, mean_error - a * mean_power)
    misses = ((errors[:, None] - a[..., None] * powers - c[..., None]) ** 2 * share).sum(-1)
    return a, c, misses


def resamples(n: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each of `n` seeds is drawn with replacement (one row a resample), and the probability of each row.

    Up to 6 seeds these are all resamples there are (462), so that the bootstrap is exact and has no seed of its own;
    beyond, a fixed draw of 1,000.
    """
    if math.comb(2 * n - 1, n) > MOST_RESAMPLES:
        drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=MOST_RESAMPLES)
        return drawn, np.full(MOST_RESAMPLES, 1 / MOST_RESAMPLES)
    rows = np.array([np.bincount(chosen, minlength=n) for chosen in combinations_with_replacement(range(n), n)])
    ways = math.factorial(n) / np.exp(special.gammaln(rows + 1).sum(axis=1))
    return rows, ways / n**n


def half_width(drawn: np.ndarray, probabilities: np.ndarray, n: int) -> float:
    """Half of a 95 % bootstrap interval: Student's t times the spread of the resamples, corrected by n / (n - 1).

    Percentiles of so few resamples are too narrow: with 3 seeds they cover an exponent in 75 % of cases, this in 94 %.
    """
    mean = np.dot(probabilities, drawn)
    variance = np.dot(probabilities, (drawn - mean) ** 2) * n / (n - 1)
    return float(special.stdtrit(n - 1, _UPPER) * math.sqrt(variance))


# The crossover: the place at which one arm overtakes another, where their paired difference changes its sign.

_BETWEEN = 500  # places that are searched between two sizes


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


def find_crossover(sizes: Sequence[float], differences: np.ndarray, alpha: float = stats.ALPHA) -> Crossover:
    """The crossover of two arms from their paired differences, interpolated in the logarithm of the size.

    The interval holds every size at which Student's interval of the mean difference includes zero, so that it covers
    the crossing with probability 1 - `alpha`, however few the seeds (Fieller's construction).

    Shapes: differences is (seeds, sizes), every seed at every size, in the order of rising sizes.
    """
    mean = differences.mean(axis=0)
    found = crossings(sizes, mean)
    size = found[0] if len(found) == 1 else None
    enough = size is not None and len(differences) >= stats.MINIMUM_SEEDS
    low, high = _undecided(sizes, differences, found[0], alpha) if enough else (None, None)
    leader = next((int(sign) for sign in np.sign(mean) if sign), 0)
    return Crossover(size=size, low=low, high=high, crossings=len(found), leader=leader, seeds=len(differences))


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


def _undecided(sizes: Sequence[float], differences: np.ndarray, crossing: float, alpha: float) -> tuple[float, float]:
    """The smallest and the largest size at which the interval of the mean difference includes zero."""
    known = np.log(np.asarray(sizes, dtype=float))
    between = np.concatenate([np.linspace(*ends, _BETWEEN, endpoint=False) for ends in pairwise(known)])
    places = np.append(between, known[-1])
    lines = np.array([np.interp(places, known, seed) for seed in differences])
    half = quantile(len(lines) - 1, alpha) * lines.std(axis=0, ddof=1) / math.sqrt(len(lines))
    open_places = np.flatnonzero(np.abs(lines.mean(axis=0)) <= half)
    if not len(open_places):  # no spread, or less than one step of it
        return crossing, crossing
    first, last = int(open_places[0]), int(open_places[-1])
    low = 0.0 if first == 0 else min(crossing, float(np.exp(places[first])))
    high = math.inf if last == len(places) - 1 else max(crossing, float(np.exp(places[last])))
    return low, high


# Equal accuracy: how many times less one line of networks costs than another, the statement of the paper's Fig. 5.
# For each seed, accuracy is a line in the logarithm of the cost through the running best of the networks (a network
# that a cheaper one beats is left out). Two such lines lie a horizontal distance apart, which is averaged over the
# accuracies that both reach; nothing is extrapolated. The running best takes luck for skill where networks differ by
# less than the seeds do.

Priced = tuple[float, Mapping[int, float]]
"""What a network costs, and its accuracy by seed."""


class Gap(NamedTuple):
    """The mean distance of two lines in the natural logarithm of cost, and the accuracies that both reach."""

    log_factor: float
    low: float
    high: float


@dataclass(frozen=True)
class EqualAccuracy:
    """By seed, how far the first line lies on the cheap side of the second; None where they share no accuracy."""

    gaps: Mapping[int, Gap | None]
    alpha: float = stats.ALPHA
    """Of the interval."""

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
        """The interval of the factor (Student's t on logarithms).

        Absent under 3 seeds, without any spread, and where a seed has no distance: the others would be a choice.
        """
        found = list(self.log_factors.values())
        if self.apart or len(found) < stats.MINIMUM_SEEDS:
            return None
        known = stats.interval(found, alpha=self.alpha)
        return None if known.low is None or known.high is None else (math.exp(known.low), math.exp(known.high))

    @property
    def accuracies(self) -> tuple[float, float] | None:
        """The accuracies that both reach: the mean over seeds of either end."""
        held = [gap[1:] for gap in self.gaps.values() if gap is not None]
        if not held:
            return None
        low, high = (math.fsum(ends) / len(held) for ends in zip(*held, strict=True))
        return low, high


def equal_accuracy(one: Sequence[Priced], other: Sequence[Priced], alpha: float = stats.ALPHA) -> EqualAccuracy:
    """Two lines compared at the seeds that all of their networks have."""
    held = [set(values) for _, values in (*one, *other)]
    seeds = sorted(set.intersection(*held)) if held else []
    at = {seed: [[(cost, values[seed]) for cost, values in line] for line in (one, other)] for seed in seeds}
    return EqualAccuracy({seed: gap(*lines) for seed, lines in at.items()}, alpha)


def gap(one: Sequence[tuple[float, float]], other: Sequence[tuple[float, float]]) -> Gap | None:
    """The distance of two lines of (cost, accuracy); None where no range of accuracy is common to both."""
    lines = [running_best(line) for line in (one, other)]
    low, high = max(line[0][1] for line in lines), min(line[-1][1] for line in lines)
    if low >= high:
        return None
    corners = {accuracy for line in lines for _, accuracy in line if low < accuracy < high}
    levels = np.array(sorted({low, high, *corners}))
    cheap, dear = (np.interp(levels, [a for _, a in line], [math.log(c) for c, _ in line]) for line in lines)
    return Gap(float(np.trapezoid(dear - cheap, levels)) / (high - low), low, high)


def running_best(line: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no cheaper one matches, cheapest first."""
    kept: list[tuple[float, float]] = []
    for cost, accuracy in sorted(line, key=lambda point: (point[0], -point[1])):
        if not kept or accuracy > kept[-1][1]:
            kept.append((cost, accuracy))
    return kept

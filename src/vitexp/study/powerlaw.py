"""How error falls with data: error = a * n^-b + c, with the uncertainty that the seeds give it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from scipy import special

# The bootstrap over seeds: every way of drawing n seeds from n with replacement.

MOST_RESAMPLES = 1000


def resamples(n: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each of `n` seeds is drawn (one row a resample), and the probability of each row.

    Up to 6 seeds these are all resamples there are (462), so that the bootstrap is exact and has no seed of its own;
    beyond, a fixed draw of 1,000.
    """
    if math.comb(2 * n - 1, n) > MOST_RESAMPLES:
        drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=MOST_RESAMPLES)
        return drawn, np.full(MOST_RESAMPLES, 1 / MOST_RESAMPLES)
    rows = np.array([np.bincount(chosen, minlength=n) for chosen in combinations_with_replacement(range(n), n)])
    ways = math.factorial(n) / np.exp(special.gammaln(rows + 1).sum(axis=1))
    return rows, ways / n**n


def half_width(drawn: np.ndarray, probabilities: np.ndarray, n: int, level: float = 0.95) -> float:
    """Half of a bootstrap interval: Student's t times the spread of the resamples, corrected by n / (n - 1).

    Percentiles of so few resamples are too narrow: with 3 seeds they cover an exponent in 75 % of cases, this in 94 %.
    """
    mean = np.dot(probabilities, drawn)
    variance = np.dot(probabilities, (drawn - mean) ** 2) * n / (n - 1)
    return float(special.stdtrit(n - 1, (1 + level) / 2) * math.sqrt(variance))


MINIMUM_SIZES, MINIMUM_SEEDS = 4, 3
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
    if seeds < MINIMUM_SEEDS:
        return f"its uncertainty needs {MINIMUM_SEEDS} seeds with every size, and there are {seeds}"
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
    return PowerLaw(
        a=a * middle**b,
        b=b,
        c=c,
        b_interval=(b - half_b, b + half_b),
        c_interval=(max(0.0, c - half_c), c + half_c),
        miss=float(misses.max()),
        outside=int((misses > np.maximum(half, _ROUNDING)).sum()),
        sizes=count,
        seeds=seeds,
    )


def _fit(x: np.ndarray, errors: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scale, exponent and floor for each row of `errors`: exponents by grids that close in, the rest in closed form."""
    low, high = (np.full(len(errors), np.log(bound)) for bound in (FLATTEST, STEEPEST))
    for _ in range(_ROUNDS):
        exponents = np.exp(np.linspace(low, high, _STEPS, axis=1))
        a, c, misses = _scale_and_floor(x, errors, weights, exponents)
        best = misses.argmin(axis=1)
        rows = np.arange(len(errors))
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

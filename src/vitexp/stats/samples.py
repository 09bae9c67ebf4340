"""What a handful of values can carry by themselves: a mean and Student's interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy import special  # scipy.stats takes a second to load

MINIMUM_SEEDS = 3
ALPHA, POWER = 0.05, 0.8
"""Of all intervals and families of comparisons, and of all detectable effects."""
_ROUNDING = 1e-12  # a spread below this share of the values themselves is arithmetic, not noise


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over `n` values and its 95% interval, absent when there is no spread to build it from."""

    mean: float
    low: float | None = None
    high: float | None = None
    n: int
    sd: float | None = None
    """Standard deviation over the values."""
    images: int = 0
    """Images that the interval counts as drawn at random; 0 where it is about these ones."""


def interval(values: Sequence[float], scale: float | None = None, alpha: float = ALPHA) -> Interval:
    """The mean of `values` with Student's t interval; `scale` is the size of others that they were computed from.

    Raises: ValueError for no value at all, and for one that is not a finite number.
    """
    mean, sd = mean_and_sd(values, scale)
    if not sd:
        return Interval(mean=mean, n=len(values), sd=sd)
    half = quantile(len(values) - 1, alpha) * sd / math.sqrt(len(values))
    return Interval(mean=mean, low=mean - half, high=mean + half, n=len(values), sd=sd)


def within_shares(found: Interval) -> Interval:
    """The interval of a share of images, cut at 0 and at 1, beyond which no share lies."""
    if found.low is None or found.high is None:
        return found
    return replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))


def mean_and_sd(values: Sequence[float], scale: float | None = None) -> tuple[float, float | None]:
    """The mean and the standard deviation, which is 0 where the spread is rounding and None for one value.

    Raises: ValueError for no value at all, and for one that is not a finite number.
    """
    values = [float(value) for value in values]
    if not values or not all(map(math.isfinite, values)):
        raise ValueError(f"the values are {values}; statistics need at least one value, and all of them finite")
    scale = max(map(abs, values)) if scale is None else scale
    n, mean = len(values), math.fsum(values) / len(values)
    if n == 1:
        return mean, None
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    if sd <= _ROUNDING * scale:
        return (0.0 if abs(mean) <= _ROUNDING * scale else mean), 0.0
    return mean, sd


def proportion_interval(count: int, n: int) -> tuple[float, float]:
    """The 95% interval of a share of which `count` of `n` is a draw. Source: C. Clopper, E. Pearson, 1934."""
    low = float(special.betaincinv(count, n - count + 1, ALPHA / 2)) if count else 0.0
    high = float(special.betaincinv(count + 1, n - count, 1 - ALPHA / 2)) if count < n else 1.0
    return low, high


def quantile(df: float, alpha: float = ALPHA) -> float:
    """The two-sided critical value of Student's t."""
    return float(-special.stdtrit(df, alpha / 2))

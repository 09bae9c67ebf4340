"""What a handful of seeds can carry: intervals, paired differences, corrections for many comparisons, verdicts.

A quantity that the values at hand cannot give is `None`: one value has no interval, and values without any spread (an
accuracy that is the same for every seed) say that the measure is coarse, not that it is exact. All tests are two-sided
unless said otherwise. Only `scipy.special` is imported, because `scipy.stats` takes a second to load.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
from scipy import special

MINIMUM_SEEDS = 3
LEVEL, ALPHA, POWER = 0.95, 0.05, 0.8
"""Of all intervals, all tests, and all detectable effects."""
NOT_ENOUGH, NO_DIFFERENCE, BETTER, WORSE = "not enough evidence", "no difference shown", "better", "worse"
_ROUNDING = 1e-12  # a spread below this share of the values themselves is arithmetic, not noise
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(100)

Key = TypeVar("Key")


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over `n` values and its 95% Student t interval, absent when there is no spread to build it from."""

    mean: float
    low: float | None = None
    high: float | None = None
    n: int
    sd: float | None = None


@dataclass(frozen=True, kw_only=True)
class Difference(Interval):
    """The mean of paired differences, with the seeds that both sides have and the p-value against no difference."""

    p: float | None
    seeds: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One member of a family of comparisons; both p-values are Holm-corrected over that family."""

    difference: Difference
    p_holm: float | None
    p_equivalence: float | None
    detectable: float | None
    verdict: str


def interval(values: Sequence[float], scale: float | None = None) -> Interval:
    """The mean of `values` with its interval; `scale` is the size of others that they were computed from.

    Raises: ValueError for no value at all, and for one that is not a finite number.
    """
    values = [float(value) for value in values]
    if not values or not all(map(math.isfinite, values)):
        raise ValueError(f"the values are {values}; statistics need at least one value, and all of them finite")
    scale = max(map(abs, values)) if scale is None else scale
    n, mean = len(values), math.fsum(values) / len(values)
    if n == 1:
        return Interval(mean=mean, n=n)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    if sd <= _ROUNDING * scale:
        return Interval(mean=0.0 if abs(mean) <= _ROUNDING * scale else mean, n=n, sd=0.0)
    half = float(special.stdtrit(n - 1, (1 + LEVEL) / 2)) * sd / math.sqrt(n)
    return Interval(mean=mean, low=mean - half, high=mean + half, n=n, sd=sd)


def paired_difference(a: Mapping[int, float], b: Mapping[int, float]) -> Difference:
    """`a` minus `b`, paired by seed; seeds that only one side has are left out.

    With a spread, p is that of the paired t-test. Without one the t-test is undefined, and p is that of the exact
    sign-flip test: 2^(1-n) when every difference is the same, 1 when every difference is zero.

    Raises: ValueError when no seed is in common, or a value is not a finite number.
    """
    seeds = tuple(sorted(a.keys() & b.keys()))
    if not seeds:
        raise ValueError(
            f"no seed in common: one side has {sorted(a)}, the other {sorted(b)}; run both on the same ones"
        )
    scale = max(max(abs(a[seed]), abs(b[seed])) for seed in seeds)
    found = interval([a[seed] - b[seed] for seed in seeds], scale)
    p: float | None = None
    if found.sd == 0:
        p = 1.0 if found.mean == 0 else 2.0 ** (1 - found.n)
    elif found.sd is not None:
        p = float(2 * special.stdtr(found.n - 1, -abs(found.mean) * math.sqrt(found.n) / found.sd))
    return Difference(**vars(found), p=p, seeds=seeds)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction, in the order given; an absent p-value stays absent and is not counted.

    Source: S. Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    present = sorted((p, position) for position, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, position) in enumerate(present):
        largest = max(largest, min(1.0, p * (len(present) - rank)))
        corrected[position] = largest
    return corrected


def equivalence(difference: Difference, margin: float) -> float | None:
    """The p-value of two one-sided paired t-tests that the true difference lies within -margin .. margin.

    Without spread it is the exact one-sided sign-flip test, 2^-n. Source: D. Schuirmann, 1987.
    """
    if difference.n < 2 or difference.sd is None:
        return None
    if difference.sd == 0:
        return 0.5**difference.n if abs(difference.mean) < margin else 1.0
    nearest = (margin - abs(difference.mean)) / (difference.sd / math.sqrt(difference.n))
    return float(special.stdtr(difference.n - 1, -nearest))


def minimum_detectable_effect(sd: float | None, n: int, alpha: float = ALPHA) -> float | None:
    """The smallest true difference that a paired t-test over `n` seeds would show with probability `POWER`.

    `sd` is the standard deviation of the paired differences; without spread the answer is unknown.
    """
    return None if n < 2 or not sd else sd * _detectable_spreads(n, alpha)


def verdict(
    difference: Difference, p: float | None, within: float | None, margin: float | None, *, higher_is_better: bool
) -> str:
    """The comparison in words, from the p-values against no difference and for one within `margin`."""
    if difference.n < MINIMUM_SEEDS or p is None:
        return NOT_ENOUGH
    is_small = within is not None and within <= ALPHA
    if p <= ALPHA:
        word = BETTER if (difference.mean > 0) == higher_is_better else WORSE
        return f"{word}, but by less than {margin:g}" if is_small else word
    return f"equivalent within {margin:g}" if is_small else NO_DIFFERENCE


def judge(
    differences: Mapping[Key, Difference], *, margin: float | None = None, higher_is_better: bool = True
) -> dict[Key, Judgement]:
    """Every comparison of one family. The detectable effect is that of the strictest step of the correction."""
    family = list(differences.values())
    ps = holm([d.p for d in family])
    within = holm([None if margin is None else equivalence(d, margin) for d in family])
    share = ALPHA / max(1, sum(p is not None for p in ps))
    return {
        key: Judgement(
            difference=d,
            p_holm=p,
            p_equivalence=q,
            detectable=minimum_detectable_effect(d.sd, d.n, share),
            verdict=verdict(d, p, q, margin, higher_is_better=higher_is_better),
        )
        for (key, d), p, q in zip(differences.items(), ps, within, strict=True)
    }


@cache
def _detectable_spreads(n: int, alpha: float) -> float:
    """The minimum detectable effect in standard deviations, found by halving, because power rises with the effect."""
    critical = float(special.stdtrit(n - 1, 1 - alpha / 2))

    def power(effect: float) -> float:
        """How often a two-sided t-test rejects, when the true mean is `effect` standard deviations."""
        shift = effect * math.sqrt(n)
        return _noncentral_tail(critical, n - 1, shift) + _noncentral_tail(critical, n - 1, -shift)

    low, high = 0.0, 1.0
    while power(high) < POWER:
        high *= 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if power(middle) < POWER else (low, middle)
    return (low + high) / 2


def _noncentral_tail(t: float, df: int, shift: float) -> float:
    """P(T > t) of the noncentral t distribution, where T = (Z + shift) / S and S^2 is a chi-square over its df.

    Given S the probability is that of a normal tail: 1 until S nears shift/t, 0 beyond; only that stretch is summed.
    `scipy.special.nctdtr` (1.17) is wrong by far for 1 to 4 degrees of freedom, which is where studies live.
    """
    first, last = (math.sqrt(float(special.chdtri(df, tail)) / df) for tail in (1 - 1e-15, 1e-15))
    low, high = (min(max(shift / t + side / t, first), last) for side in (-9.0, 9.0))
    s = (high + low) / 2 + (high - low) / 2 * _NODES
    log_density = (
        math.log(2) + df / 2 * math.log(df / 2) - special.gammaln(df / 2) + (df - 1) * np.log(s) - df / 2 * s**2
    )
    stretch = (high - low) / 2 * np.dot(_WEIGHTS, special.ndtr(shift - t * s) * np.exp(log_density))
    return float(special.chdtr(df, df * low**2) + stretch)

"""A family of comparisons judged together: simultaneous intervals, and the verdict that each interval is.

A difference is better or worse exactly where its interval excludes zero, and equivalent exactly where the interval lies
within the margin, so that one error of 5 % is all that a table makes, whatever it says. The intervals are single-step:
the largest of the standardised differences is what must stay below its critical value. With their correlation, as in
C. Dunnett, 1955, for arms that share a baseline; without a common degree of freedom each has its own Student quantile
at the level that the normal copula of all gives (balanced, as in R. Beran, 1988).
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TypeVar

import numpy as np
from scipy import special

from vitexp.stats.crossed import Contrast, Variance, pools, variance_of
from vitexp.stats.samples import ALPHA, MINIMUM_SEEDS, POWER, Interval, mean_and_sd

NOT_ENOUGH, NO_SPREAD, UNSTABLE = "not enough evidence", "no spread", "unstable"
NO_DIFFERENCE, BETTER, WORSE = "no difference shown", "better", "worse"
_DRAWS = 1 << 15
_MOST = 256
"""Comparisons up to which their correlation is used; more count as independent, which is never too small a value."""
_HALVINGS = 60
_FEW = 100
"""Draws under which a probability is not counted by them."""

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, kw_only=True)
class Judgement(Interval):
    """One comparison of a family, of the differences seed by seed; the interval is simultaneous, and absent without a
    verdict."""

    seeds: tuple[int, ...]
    variance: Variance | None = None
    gain: float | None = None
    """How many times smaller the seeds' variance is for being paired."""
    p: float | None = None
    """Of this comparison alone against no difference."""
    p_adjusted: float | None = None
    p_equivalence: float | None = None
    """That the true difference lies within the margin, adjusted like the other."""
    detectable: float | None = None
    """The smallest true difference that a study like this one shows with probability `POWER`."""
    detectable_range: tuple[float, float] | None = None
    """Between which that lies (95%), as the seeds know their own variance no better."""
    verdict: str

    @property
    def is_different(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    def is_within(self, margin: float | None) -> bool:
        """Whether the interval lies within the margin."""
        if margin is None or self.low is None or self.high is None:
            return False
        return -margin < self.low and self.high < margin


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One comparison to be made.

    `margin` is the difference below which its sides are equivalent; `unstable` where some runs of a side did not train,
    so that it cannot be judged.
    """

    contrast: Contrast
    margin: float | None = None
    higher_is_better: bool = True
    unstable: bool = False


def judge(asked: Mapping[Key, Asked], *, images: bool, alpha: float = ALPHA) -> dict[Key, Judgement]:
    """Every comparison of one family; `images` says whether the test images count as drawn at random.

    Raises: ValueError for a comparison whose sides have no seed in common, or a value that is not a finite number.
    """
    held = pools(one.contrast for one in asked.values())
    found: dict[Key, Judgement] = {}
    able: dict[Key, tuple[Variance, np.ndarray]] = {}
    for key, one in asked.items():
        found[key] = _unjudged(one)
        if found[key].verdict == NO_DIFFERENCE:
            able[key] = variance_of(one.contrast, held, images)
            if not able[key][0].total:
                found[key] = replace(found[key], verdict=NO_SPREAD)
                del able[key]
    if able:
        family = _Family([asked[key].contrast for key in able], list(able.values()), alpha)
        for key, (variance, _) in able.items():
            gain = held[next(iter(asked[key].contrast.weights)).pool].gain
            found[key] = _judged(replace(found[key], gain=gain), asked[key], variance, family)
    return found


def _unjudged(asked: Asked) -> Judgement:
    """The mean difference; the verdict where there can be no other than that there is none."""
    contrast = asked.contrast
    if not contrast.seeds:
        sides = ", ".join(str(sorted(one.values)) for one in contrast.weights)
        raise ValueError(f"no seed in common: the sides have the seeds {sides}; run all of them on the same ones")
    mean, sd = mean_and_sd(list(contrast.by_seed.values()), contrast.scale)
    n = len(contrast.seeds)
    verdict = UNSTABLE if asked.unstable else NOT_ENOUGH if n < MINIMUM_SEEDS else NO_DIFFERENCE
    return Judgement(mean=mean, n=n, seeds=contrast.seeds, sd=sd, verdict=verdict)


def _judged(bare: Judgement, asked: Asked, variance: Variance, family: "_Family") -> Judgement:
    error, distance = math.sqrt(variance.total), abs(bare.mean)
    critical = float(variance.critical(family.alpha))
    p = _p(variance, distance / error)
    within = None
    if asked.margin is not None:
        nearest = (asked.margin - distance) / error
        within = family.adjusted(_p(variance, nearest)) if nearest > 0 else 1.0
    judged = replace(
        bare,
        low=bare.mean - critical * error,
        high=bare.mean + critical * error,
        images=variance.count,
        variance=variance,
        p=p,
        p_adjusted=family.adjusted(p),
        p_equivalence=within,
        detectable=_detectable(variance, critical),
        detectable_range=_range(variance, family.alpha),
    )
    return replace(judged, verdict=_verdict(judged, asked))


def _detectable(variance: Variance, critical: float) -> float:
    return (critical + float(special.ndtri(POWER))) * math.sqrt(variance.total)


def _range(variance: Variance, alpha: float) -> tuple[float, float] | None:
    """The effect at either end of the chi-square interval of the seeds' variance."""
    if not variance.of_seeds:
        return None
    ends = [variance.with_seeds(variance.df / float(special.chdtri(variance.df, tail))) for tail in (0.025, 0.975)]
    low, high = (_detectable(one, float(one.critical(alpha))) for one in ends)
    return low, high


def _verdict(judged: Judgement, asked: Asked) -> str:
    small = judged.is_within(asked.margin)
    if judged.is_different:
        word = BETTER if (judged.mean > 0) == asked.higher_is_better else WORSE
        return f"{word}, but equivalent within {asked.margin:g}" if small else word
    return f"equivalent within {asked.margin:g}" if small else NO_DIFFERENCE


def _p(variance: Variance, statistic: float) -> float:
    """The level at which the critical value is the statistic."""
    low, high = -700.0, 0.0  # of its logarithm
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if float(variance.critical(math.exp(middle))) > statistic else (low, middle)
    return math.exp((low + high) / 2)


class _Family:
    """How the level of one comparison goes with that of the family: the distribution of the largest of them."""

    def __init__(
        self, contrasts: Sequence[Contrast], variances: Sequence[tuple[Variance, np.ndarray]], alpha: float
    ) -> None:
        self.count = len(contrasts)
        self.largest: np.ndarray | None = None
        if 1 < self.count <= _MOST:
            factor = _root(_correlation(contrasts, variances))
            self.largest = np.sort(np.abs(_normals(self.count) @ factor.T).max(axis=1))
        self.alpha = self._of_each(alpha)

    def _of_each(self, family: float) -> float:
        """The level of each comparison at which the family has the level `family`."""
        if self.count == 1:
            return family
        if self.largest is None:
            return float(-np.expm1(np.log1p(-family) / self.count))
        return float(2 * special.ndtr(-np.quantile(self.largest, 1 - family)))

    def adjusted(self, p: float) -> float:
        """The level of the family at which a comparison with `p` is just significant."""
        if self.count == 1:
            return p
        if self.largest is None:
            return float(-np.expm1(self.count * np.log1p(-min(p, 1 - 1e-16))))
        beyond = len(self.largest) - int(np.searchsorted(self.largest, -special.ndtri(p / 2)))
        # so far out that few draws are left, the sum over all comparisons is what the probability nearly is
        return beyond / len(self.largest) if beyond > _FEW else min(1.0, self.count * p)


def _correlation(contrasts: Sequence[Contrast], variances: Sequence[tuple[Variance, np.ndarray]]) -> np.ndarray:
    """Of the means, shape (m, m): through samples that they share, and through the images.

    Different metrics count as independent, which is never too small a critical value (T. Royen, 2014).
    """
    m = len(contrasts)
    covariance = np.diag([variance.total for variance, _ in variances])
    for i in range(m):
        for j in range(i):
            covariance[i, j] = covariance[j, i] = _shared(contrasts, variances, i, j)
    scale = np.sqrt(np.diag(covariance))
    return np.asarray(covariance / scale / scale[:, None])


def _shared(contrasts: Sequence[Contrast], variances: Sequence[tuple[Variance, np.ndarray]], i: int, j: int) -> float:
    """The covariance of two means."""
    one, other = contrasts[i], contrasts[j]
    if {sample.pool for sample in one.weights}.isdisjoint(sample.pool for sample in other.weights):
        return 0.0
    found, parts = 0.0, dict(zip(other.weights.items(), variances[j][0].seeds, strict=True))
    for (sample, w), (variance, _) in zip(one.weights.items(), variances[i][0].seeds, strict=True):
        if (v := other.weights.get(sample)) is not None:  # the smaller, where one of them is paired or has more seeds
            found += w * v * min(variance / w**2, parts[sample, v][0] / v**2)
    (first, a), (second, b) = variances[i], variances[j]
    if len(a) and len(a) == len(b) and first.images and second.images:
        found += float(np.corrcoef(a, b)[0, 1]) * math.sqrt(first.images * second.images)
    return found


def _root(correlation: np.ndarray) -> np.ndarray:
    """A factor F with F F' = correlation, made positive semi-definite with a diagonal of ones, shape (m, m)."""
    values, vectors = np.linalg.eigh(correlation)
    factor = vectors * np.sqrt(np.clip(values, 0, None))
    return np.asarray(factor / np.linalg.norm(factor, axis=1, keepdims=True))


@cache
def _normals(count: int) -> np.ndarray:
    """Independent normal draws, the same in every process, shape (draws, count)."""
    drawn = np.random.Generator(np.random.Philox(key=1)).random((_DRAWS, count))
    return np.asarray(special.ndtri(np.clip(drawn, 1e-16, 1 - 1e-16)))

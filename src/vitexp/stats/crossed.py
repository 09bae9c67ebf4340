"""Two noises in one number: which seed a network was trained with, and which images it was measured on.

An accuracy is a mean over seeds and images, both drawn at random and crossed: every network of a study sees the same
images. Its variance is that of crossed random effects: seeds / n + images / N + the rest / (n N), where the mean over
images of one run already holds the rest. The seeds alone say how sure a number is on *these* images, both say it for
images *like these*. Source: S. Searle, G. Casella, C. McCulloch, Variance Components, 1992, chapter 4 (the analysis of
variance of two crossed random factors); R. Baayen, D. Davidson, D. Bates, 2008, for seeds and items alike.

With five seeds a variance is known to within a factor of three, and tests pay dearly for it. Arms of one study differ
little in it, so each is shrunk towards the mean of its pool, as G. Smyth, 2004, shrinks the variances of genes. Three
guards, found by simulation (bench/statistics.py), keep the error where one arm has a spread of its own: the mean of
the pool never lowers a variance by more than its share, a variance above what was shrunk stays, and its degrees of
freedom are its own as far as an F test tells it from the others (B. Phipson et al., 2016, do so for genes).
"""

import math
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from scipy import special

from vitexp.stats.samples import MINIMUM_SEEDS, Interval, mean_and_sd, quantile

_WEIGHT = {3: 1.0, 4: 2.0}
_MOST_WEIGHT = 4.0
"""How many times more the pool counts than an arm's own variance, by seeds: with three, unlike spreads go unseen."""
_UNLIKE, _UNLIKE_SHARED = 0.05, 0.5
"""p-value of the F test from which down degrees of freedom fall back to an arm's own; sooner for an arm that several
comparisons share, such as a baseline, because its variance errs in all of them at once."""
_PAIRED = 0.2
"""p-value of the F test of the seeds from which down arms with the same seed count as correlated."""
_CANCEL = 1e-9
_LEAST = 0.05
"""A variance of the two-way layout is at least this share of the mean one: the estimate may fall below zero."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """One arm in one metric: its value by seed, and what it answered to each image, where that is known."""

    values: Mapping[int, float]
    answers: Mapping[int, tuple[np.ndarray, ...]] = field(default_factory=dict)
    """By seed the share of right answers (0 to 1) to each image, shape (N), for each data set that a value averages."""
    images: Hashable = None
    """Which images: samples with the same answered the same ones in the same order."""
    pool: Hashable = None
    """Samples with the same are expected to vary alike over seeds."""
    alone: bool = False
    """Whether its spread is of another kind than that of its pool, as where no run came off the level of guessing."""

    @cached_property
    def spread(self) -> float:
        """The variance over seeds; 0 for fewer than two."""
        sd = mean_and_sd(list(self.values.values()))[1] if self.values else None
        return (sd or 0.0) ** 2

    @property
    def has_answers(self) -> bool:
        """Whether every value stands on answers to single images."""
        return bool(self.values) and self.values.keys() <= self.answers.keys()


@dataclass(frozen=True, kw_only=True, eq=False)
class Contrast:
    """A weighted sum of samples, such as an arm minus its baseline, over the seeds that all of them have."""

    weights: Mapping[Sample, float]

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """Those that all samples have."""
        return tuple(sorted(set.intersection(*(set(sample.values) for sample in self.weights))))

    @cached_property
    def by_seed(self) -> dict[int, float]:
        """The sum, seed by seed."""
        return {seed: sum(w * one.values[seed] for one, w in self.weights.items()) for seed in self.seeds}

    @cached_property
    def scale(self) -> float:
        """The largest value that it is computed from."""
        return max((abs(one.values[seed]) for one in self.weights for seed in self.seeds), default=0.0)

    @property
    def has_answers(self) -> bool:
        """Whether all of it stands on answers to the same single images."""
        return len({one.images for one in self.weights}) == 1 and all(one.has_answers for one in self.weights)


@dataclass(frozen=True)
class Spread:
    """A variance over seeds with its degrees of freedom."""

    variance: float
    df: float


@dataclass(frozen=True)
class Pool:
    """The variances of samples that are expected to vary alike.

    `paired` are those left when the seeds' common effect is taken out, where the seeds show one: they hold for sums
    whose weights cancel. `gain` is how many times smaller pairing makes the variance of a difference.
    """

    unpaired: Mapping[Sample, Spread]
    paired: Mapping[Sample, Spread]
    gain: float | None


def pools(contrasts: Iterable[Contrast]) -> dict[Hashable, Pool]:
    """The variances of all samples, pool by pool."""
    held: dict[Hashable, dict[Sample, int]] = {}
    for sample in (one for contrast in contrasts for one in contrast.weights):
        members = held.setdefault(sample.pool, {})
        members[sample] = members.get(sample, 0) + 1
    return {key: _pool(members) for key, members in held.items()}


def _pool(uses: Mapping[Sample, int]) -> Pool:
    """The variances of samples, each with the number of comparisons that it is in."""
    own = {one: Spread(one.spread, len(one.values) - 1) for one in uses if len(one.values) > 1}
    alike = [one for one in own if not one.alone]
    shared = {one for one in alike if uses[one] > 1 or len(alike) == 2}
    unpaired = own | shrunk({one: own[one] for one in alike}, shared)
    residual, gain = _without_seed_effect(alike)
    # of two arms what is left is one variance, that of their difference
    return Pool(unpaired, shrunk(residual, shared) if len(residual) > 2 else residual, gain)


def shrunk(spreads: Mapping[Sample, Spread], shared: Collection[Sample] = ()) -> dict[Sample, Spread]:
    """Each variance drawn towards the mean of all, never below it by more than its own weight.

    `shared` are the samples of which a variance that is too small would do most harm.
    """
    total = sum(one.df for one in spreads.values())
    mean = sum(one.df * one.variance for one in spreads.values()) / total if total else 0.0
    found = {}
    for sample, own in spreads.items():
        others = total - own.df
        weight = min(_WEIGHT.get(len(sample.values), _MOST_WEIGHT), len(spreads) - 1)
        rest = (total * mean - own.df * own.variance) / others if others > 0 else 0.0
        p = float(special.fdtrc(own.df, others, own.variance / rest)) if rest > 0 else float(not own.variance)
        variance = max(own.variance, (own.variance + weight * mean) / (1 + weight))
        unlike = _UNLIKE_SHARED if sample in shared else _UNLIKE
        found[sample] = Spread(variance, own.df * (1 + weight * min(1.0, p / unlike)))
    return found


def _without_seed_effect(samples: Sequence[Sample]) -> tuple[dict[Sample, Spread], float | None]:
    """Variances after each seed's effect on all samples is taken out, if there is one, and what that gains.

    A two-way layout without replication: the mean square of the seeds over that of the rest is F under no effect. Each
    sample's own variance follows from its squared residuals, of which every sample gets a share of all others'.
    """
    n = max((len(one.values) for one in samples), default=0)
    samples = [
        one for one in samples if len(one.values) == n
    ]  # an arm that lacks a run does not undo the others' pairs
    seeds = sorted(set.intersection(*(set(one.values) for one in samples))) if len(samples) > 1 else []
    if len(seeds) < max(n, MINIMUM_SEEDS):
        return {}, None
    arms = len(samples)
    table = np.array([[one.values[seed] for seed in seeds] for one in samples])
    rest = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    left = float((rest**2).sum()) / ((arms - 1) * (n - 1))
    common = arms * float(table.mean(0).var(ddof=1))
    if left <= 0:
        return {}, None
    gain = float(table.var(axis=1, ddof=1).mean()) / left
    if special.fdtrc(n - 1, (arms - 1) * (n - 1), common / left) > _PAIRED:
        return {}, gain
    if arms == 2:  # one variance, that of the difference, whichever of them it is written to
        return {samples[0]: Spread(2 * left, n - 1), samples[1]: Spread(0.0, n - 1)}, gain
    shares = np.full((arms, arms), arms**-2.0) + np.eye(arms) * (1 - 2 / arms)
    variances = np.linalg.solve(shares, (rest**2).sum(1) / (n - 1))
    df = (n - 1) * (1 - 1 / arms)
    return {one: Spread(max(v, _LEAST * left), df) for one, v in zip(samples, variances, strict=True)}, gain


@dataclass(frozen=True)
class Variance:
    """The variance of a contrast's mean, part by part: of seeds (with degrees of freedom), and of images."""

    seeds: tuple[tuple[float, float], ...]
    images: float = 0.0
    count: int = 0
    """Images that were measured, 0 where answers to single ones are not known or not asked for."""
    rest: float = 0.0
    """What seeds and images do together; a part of that of the seeds."""

    @property
    def of_seeds(self) -> float:
        """That of the seeds."""
        return sum(variance for variance, _ in self.seeds)

    @property
    def total(self) -> float:
        """Seeds and images."""
        return self.of_seeds + self.images

    @property
    def df(self) -> float:
        """Satterthwaite's degrees of freedom of the part of the seeds."""
        return self.of_seeds**2 / sum(variance**2 / df for variance, df in self.seeds if variance)

    def with_seeds(self, share: float, grown: float = 1.0) -> "Variance":
        """A copy: the seeds' variance multiplied by `share`, its degrees of freedom by `grown`."""
        return replace(self, seeds=tuple((share * variance, df * grown) for variance, df in self.seeds))

    def critical(self, alpha: np.ndarray | float) -> np.ndarray:
        """How many standard errors a two-sided test at `alpha` takes: the parts' Student quantiles, weighted.

        Never too small for few degrees of freedom, unlike Satterthwaite's. Source: W. Cochran, 1964.
        """
        tail = np.asarray(alpha) / 2
        parts = sum(variance * -special.stdtrit(df, tail) for variance, df in self.seeds)
        if self.images:
            parts = parts + self.images * -special.stdtrit(max(self.count - 1, 1), tail)
        return np.asarray(parts / self.total)


def variance_of(contrast: Contrast, held: Mapping[Hashable, Pool], images: bool) -> tuple[Variance, np.ndarray]:
    """The variance of a contrast's mean, and each image's part of the mean, shape (N), from which correlations come."""
    weights: dict[Hashable, dict[Sample, float]] = {}
    for one, w in contrast.weights.items():
        weights.setdefault(one.pool, {})[one] = w
    spreads: dict[Sample, Spread] = {}
    for key, members in weights.items():
        cancel = abs(sum(members.values())) < _CANCEL
        paired = cancel and held[key].paired.keys() >= members.keys()
        spreads.update(held[key].paired if paired else held[key].unpaired)
    parts = tuple(
        (w**2 * spreads[one].variance / len(contrast.seeds), spreads[one].df) for one, w in contrast.weights.items()
    )
    if not images or not contrast.has_answers:
        return Variance(parts), np.empty(0)
    tables = list(_answers(contrast))
    found = [image_variance(table) for table in tables]
    means = np.concatenate([table.mean(0) / table.shape[1] for table in tables])
    return Variance(parts, sum(one for one, _ in found), len(means), sum(rest for _, rest in found)), means


def _answers(contrast: Contrast) -> Iterator[np.ndarray]:
    """The sum for each seed and image, shape (n, N), data set by data set."""
    sets = len(next(iter(next(iter(contrast.weights)).answers.values())))
    for place in range(sets):
        held = [
            w / sets * np.stack([one.answers[seed][place] for seed in contrast.seeds]).astype(np.float64)
            for one, w in contrast.weights.items()
        ]
        yield np.sum(held, axis=0)


def image_variance(table: np.ndarray) -> tuple[float, float]:
    """What the draw of the images adds to the variance of the mean over `table`, and what seeds and images do together.

    Shape: (seeds, images), of two or more each. The first is the mean square of the images less that of the rest.
    """
    n, count = table.shape
    rest = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    together = float((rest**2).sum()) / ((n - 1) * (count - 1))
    of_images = n * float(table.mean(0).var(ddof=1))
    return max(0.0, of_images - together) / (n * count), together / (n * count)


def level(sample: Sample, images: bool) -> Interval:
    """The mean of a sample with its interval, over seeds or over seeds and `images`; absent without any spread.

    Its own variance counts, with Satterthwaite's degrees of freedom.
    """
    mean, sd = mean_and_sd(list(sample.values.values()))
    n = len(sample.values)
    if sd is None:
        return Interval(mean=mean, n=n)
    seeds, of_images, count = sd**2 / n, 0.0, 0
    if images and sample.has_answers:
        tables = list(_answers(Contrast(weights={sample: 1.0})))
        of_images, count = sum(image_variance(one)[0] for one in tables), sum(one.shape[1] for one in tables)
    if not seeds + of_images:
        return Interval(mean=mean, n=n, sd=sd)
    df = (seeds + of_images) ** 2 / (seeds**2 / (n - 1) + of_images**2 / max(count - 1, 1))
    half = quantile(df) * math.sqrt(seeds + of_images)
    return Interval(mean=mean, low=mean - half, high=mean + half, n=n, sd=sd, images=count)

"""Accuracy against data size: series of points per arm, what they have in common, and what is read off them.

`read_series` is the only part that knows records; fits and crossovers take any series of points.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from scipy import special

from vitexp import stats
from vitexp.metrics import is_accuracy
from vitexp.study.arm import Arm, spelling
from vitexp.study.powerlaw import PowerLaw, fit_power_law
from vitexp.study.select import Root, select
from vitexp.study.spec import Study
from vitexp.study.table import Label, check_runs, gaps
from vitexp.study.tune import tune

# The data size at which one arm overtakes another: where their paired difference changes its sign.

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


SIZES = ("data.train_images", "data.train_fraction")
_SAME = 1.02
"""Training lengths that differ by less than this count as one: the last batch of an epoch is rounded."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One data size of a series: its values by seed, the images that training went through, the tuned settings."""

    size: float
    values: Mapping[int, float]
    images_seen: tuple[int, ...] = ()
    tuned: Mapping[str, Any] = field(default_factory=dict)

    @property
    def interval(self) -> stats.Interval:
        """Mean and interval over the seeds."""
        return stats.interval(list(self.values.values()))


@dataclass(frozen=True, kw_only=True)
class Series:
    """One arm in one metric over all sizes, smallest first."""

    label: Label
    metric: str
    points: tuple[Point, ...]

    def common(self, *others: "Series") -> tuple[list[float], list[int]]:
        """The sizes that this and the other series have, and the seeds that have a value at all of them."""
        every = (self, *others)
        sizes = [p.size for p in self.points if all(p.size in {q.size for q in other.points} for other in others)]
        held = [set(point.values) for series in every for point in series.points if point.size in sizes]
        return sizes, sorted(set.intersection(*held)) if held else []

    def matrix(self, sizes: Sequence[float], seeds: Sequence[int]) -> np.ndarray:
        """The values as an array of (seeds, sizes)."""
        at = {point.size: point.values for point in self.points}
        return np.array([[at[size][seed] for size in sizes] for seed in seeds], dtype=float)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A study against data size, by metric: series, their fits in the same order, where they cross the baseline."""

    study: Study
    x: str
    series: Mapping[str, tuple[Series, ...]]
    fits: Mapping[str, tuple[PowerLaw | str, ...]]
    crossovers: Mapping[str, tuple[tuple[Series, Series, Crossover], ...]]
    budget: str
    cautions: tuple[str, ...]
    notes: tuple[str, ...]


def make_curve(study: Study, root: Root, where: Mapping[str, Any] | None = None) -> Curve:
    """The curve of a study from the records in `root`.

    Raises: ValueError when the study varies no data size, or the records do not make a curve.
    """
    x = size_key(study)
    selection = tune(select(study, root, where))
    check_runs(selection)
    first = (*study.config.rows, *study.config.columns)
    series = {metric: read_series(selection.arms, x, metric, first) for metric in study.config.metrics}
    return Curve(
        study=study,
        x=x,
        series=series,
        fits={metric: tuple(_fit(one, x) for one in found) for metric, found in series.items()},
        crossovers={metric: _crossovers(found, study.config.baseline) for metric, found in series.items()},
        budget=budget([point for one in next(iter(series.values())) for point in one.points], x),
        cautions=selection.cautions,
        notes=(*selection.notes, *gaps(selection.arms, study.config.metrics)),
    )


def varies_size(study: Study) -> bool:
    """Whether a study has a curve."""
    return bool(_sizes_varied(study))


def size_key(study: Study) -> str:
    """The dotted key along the curve: `study.x`, or else the data size that the study varies."""
    varied = _sizes_varied(study)
    if not varied:
        named = study.config.x or " or ".join(SIZES)
        raise ValueError(f"{study.path} does not vary {named}, so there is no curve; give it several values there")
    return varied[0]


def read_series(arms: Sequence[Arm], x: str, metric: str, first: Sequence[str] = ()) -> tuple[Series, ...]:
    """The series of all arms: those that differ in `x` alone become the points of one, named by the keys `first`."""
    found: dict[str, list[tuple[Label, Point]]] = {}
    for arm in arms:
        order = sorted(arm.factors, key=lambda key: first.index(key) if key in first else len(first))
        label = tuple((key, arm.factors[key]) for key in order if key != x)
        values = arm.values(metric)
        known = found.setdefault(spelling(label), [])
        if values:
            seen = tuple(run.images_seen for run in arm.runs.values() if run.images_seen is not None)
            known.append((label, Point(size=_size(arm, x), values=values, images_seen=seen, tuned=arm.tuned)))
    return tuple(
        Series(label=points[0][0], metric=metric, points=tuple(sorted((p for _, p in points), key=lambda p: p.size)))
        for points in found.values()
        if points
    )


def budget(points: Sequence[Point], x: str) -> str:
    """Whether arms and sizes had equal epochs or equal steps, in words, from the images that they really saw."""
    seen = [(images, point.size) for point in points for images in point.images_seen]
    if not seen:
        return "training length not recorded"
    images, epochs = [count for count, _ in seen], [count / size for count, size in seen]
    if max(images) <= _SAME * min(images):
        return f"fixed steps: {max(images):,} images seen at every size"
    if x in SIZES and max(epochs) <= _SAME * min(epochs):
        return f"fixed epochs: {max(epochs):.3g} at every size"
    without = "neither steps nor epochs fixed: " if x in SIZES else ""
    return f"{without}{min(images):,} to {max(images):,} images seen"


def _sizes_varied(study: Study) -> list[str]:
    return [key for key in (study.config.x, *SIZES) if key and key in study.arm_factors]


def _size(arm: Arm, x: str) -> float:
    """The number of training images where the records tell it, otherwise the value of the key itself."""
    value = arm.factors[x]
    if x in SIZES:
        value = next((run.data["train_images"] for run in arm.runs.values() if "train_images" in run.data), value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise ValueError(f"{x} is {value!r} in a cell, which has no place on a logarithmic axis; give positive numbers")
    return value


def _fit(series: Series, x: str) -> PowerLaw | str:
    if x not in SIZES:
        return "fitted over the number of training images only"
    if not is_accuracy(series.metric):
        return "fitted to accuracies only"
    sizes, seeds = series.common()
    if not seeds:
        return "no seed has every size"
    return fit_power_law(sizes, 1 - series.matrix(sizes, seeds))


def _crossovers(series: Sequence[Series], baseline: Mapping[str, Any]) -> tuple[tuple[Series, Series, Crossover], ...]:
    """Each series with the one that the study compares it with, where they share sizes and seeds."""
    found = []
    for one in series:
        base = _baseline_of(one, series, baseline)
        sizes, seeds = one.common(base) if base is not None and base is not one else ([], [])
        if base is not None and len(sizes) > 1 and seeds:
            found.append((one, base, find_crossover(sizes, one.matrix(sizes, seeds) - base.matrix(sizes, seeds))))
    return tuple(found)


def _baseline_of(one: Series, series: Sequence[Series], baseline: Mapping[str, Any]) -> Series | None:
    """The series with the values of `study.baseline`, and otherwise those of `one`."""
    factors = dict(one.label)
    named = {key: value for key, value in baseline.items() if key in factors}
    wanted = spelling({**factors, **named})
    return next((other for other in series if spelling(dict(other.label)) == wanted), None)

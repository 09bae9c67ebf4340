"""Accuracy against what training cost: every arm is a point at its own cost, and the points stand on lines.

The lines are families of networks, as in the paper's Fig. 5, or those that the study names, as in its Fig. 8, where
one arm may stand on several.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

import numpy as np

from vitexp import stats
from vitexp.metrics import is_accuracy
from vitexp.study.arm import Arm, name
from vitexp.study.claims import families
from vitexp.study.comparison import baseline_of
from vitexp.study.lines import MEASURED, RELATIVE, lines_key
from vitexp.study.select import Root, select
from vitexp.study.spec import Study
from vitexp.study.table import check_runs, gaps
from vitexp.study.tune import tune

# How many times less one line of networks costs than another at equal accuracy: the statement of the paper's Fig. 5.
# For each seed, accuracy is a line in the logarithm of the cost through the running best of the networks (a network
# that a cheaper one beats is left out). Two such lines lie a horizontal distance apart, which is averaged over the
# accuracies that both reach; nothing is extrapolated. The running best takes luck for skill where networks differ by
# less than the seeds do.

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


FAMILIES = {families.VIT: "ViT", families.HYBRID: "Hybrid", families.RESNET: "ResNet"}


@dataclass(frozen=True, kw_only=True)
class Point:
    """An arm at its cost, with its values by seed."""

    arm: Arm
    cost: float
    values: Mapping[int, float]
    is_baseline: bool = False

    @property
    def interval(self) -> stats.Interval:
        """Mean and interval over the seeds."""
        return stats.interval(list(self.values.values()))


@dataclass(frozen=True, kw_only=True)
class Line:
    """Arms that belong together in one metric, cheapest first."""

    name: str
    metric: str
    points: tuple[Point, ...]

    @property
    def best(self) -> tuple[Point, ...]:
        """The points whose mean no cheaper one matches."""
        means = [(point.cost, point.interval.mean) for point in self.points]
        kept = running_best(means)
        return tuple(self.points[means.index(found)] for found in kept)


@dataclass(frozen=True, kw_only=True)
class CostCurve:
    """A study against cost, by metric: its lines, and each with the baseline's line at equal accuracy."""

    study: Study
    x: str
    lines: Mapping[str, tuple[Line, ...]]
    equal: Mapping[str, tuple[tuple[Line, Line, EqualAccuracy], ...]]
    cautions: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def points(self) -> tuple[Point, ...]:
        """Every point of every metric, once."""
        return tuple({id(p): p for lines in self.lines.values() for line in lines for p in line.points}.values())


def against_cost(study: Study) -> bool:
    """Whether a study's curve is one against what its runs recorded."""
    return study.config.x in MEASURED


def make_cost_curve(study: Study, root: Root, where: Mapping[str, Any] | None = None) -> CostCurve:
    """The curve of a study from the records in `root`.

    Raises: ValueError when no run is finished, none holds a metric that the study reports, or none its cost.
    """
    selection = tune(select(study, root, where))
    check_runs(selection)
    x, metrics, arms = study.config.x, study.config.metrics, selection.arms
    costs = {index: cost for index, arm in enumerate(arms) if (cost := cost_of(arm, x, arms, study)) is not None}
    if not costs:
        raise ValueError(f"no run in {selection.place} recorded its {x}, so there is no axis; choose another study.x")
    on = lines_of(study, arms)
    lines = {metric: _lines(on, arms, costs, metric, study) for metric in metrics}
    base = _baseline_line(on, arms, study)
    return CostCurve(
        study=study,
        x=x,
        lines=lines,
        equal={metric: _compared(lines[metric], base) if is_accuracy(metric) else () for metric in metrics},
        cautions=selection.cautions,
        notes=(*selection.notes, *gaps(arms, metrics), *_unpriced(arms, costs, x)),
    )


def cost_of(arm: Arm, x: str, arms: Sequence[Arm], study: Study) -> float | None:
    """What a run of an arm cost, in the mean over its runs; None where no run says it."""
    if x == RELATIVE:
        base = baseline_of(arm, arms, study.config.baseline)
        whole, own = (None if one is None else cost_of(one, "train_flops", arms, study) for one in (base, arm))
        return own / whole if own and whole else None
    held = [value for run in arm.runs.values() if (value := getattr(run, x)) and 0 < value < math.inf]
    return fmean(held) if held else None


def lines_of(study: Study, arms: Sequence[Arm]) -> dict[str, list[int]]:
    """The places in `arms` by the name of their line: those of `study.lines`, or else the families of networks."""
    named = study.config.lines
    if named:
        key = lines_key(named, [arm.factors for arm in arms])
        return {
            line: [index for index, arm in enumerate(arms) if arm.factors.get(key) in names]
            for line, names in named.items()
        }
    kinds = [families.family_of(arm) for arm in arms]
    found = {FAMILIES[kind]: [i for i, one in enumerate(kinds) if one == kind] for kind in FAMILIES}
    return {line: places for line, places in found.items() if places}


def _lines(
    on: Mapping[str, Sequence[int]], arms: Sequence[Arm], costs: Mapping[int, float], metric: str, study: Study
) -> tuple[Line, ...]:
    """The lines that have a point in a metric; an arm on several is one and the same point."""
    points = {
        index: Point(arm=arms[index], cost=cost, values=values, is_baseline=_is_baseline(arms[index], arms, study))
        for index, cost in costs.items()
        if (values := arms[index].values(metric))
    }
    found = []
    for line, places in on.items():
        held = sorted((points[index] for index in places if index in points), key=lambda point: point.cost)
        if held:
            found.append(Line(name=line, metric=metric, points=tuple(held)))
    return tuple(found)


def _is_baseline(arm: Arm, arms: Sequence[Arm], study: Study) -> bool:
    return baseline_of(arm, arms, study.config.baseline) is arm


def _baseline_line(on: Mapping[str, Sequence[int]], arms: Sequence[Arm], study: Study) -> str | None:
    """The line that the baseline stands on; of several the first by name, since W&B does not keep their order."""
    held = [line for line, places in on.items() if any(_is_baseline(arms[index], arms, study) for index in places)]
    return min(held, default=None)


def _compared(lines: Sequence[Line], base: str | None) -> tuple[tuple[Line, Line, EqualAccuracy], ...]:
    """Each line with the baseline's, where both have the two points that make a line."""
    against = next((line for line in lines if line.name == base and len(line.points) > 1), None)
    if against is None:
        return ()
    others = [line for line in lines if line is not against and len(line.points) > 1]
    return tuple((line, against, equal_accuracy(_priced(line), _priced(against))) for line in others)


def _priced(line: Line) -> list[tuple[float, Mapping[int, float]]]:
    return [(point.cost, point.values) for point in line.points]


def _unpriced(arms: Sequence[Arm], costs: Mapping[int, float], x: str) -> list[str]:
    absent = [name(arm) for index, arm in enumerate(arms) if arm.runs and index not in costs]
    return [f"without a recorded {x}, and so not drawn: {', '.join(absent)}"] if absent else []

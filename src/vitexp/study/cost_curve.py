"""Accuracy against what training cost: every arm is a point at its own cost, and the points stand on lines.

The lines are families of networks, as in the paper's Fig. 5, or those that the study names, as in its Fig. 8, where
one arm may stand on several.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from vitexp import stats
from vitexp.study import families
from vitexp.study.arm import Arm, name
from vitexp.study.comparison import baseline_of
from vitexp.study.equal_accuracy import EqualAccuracy, equal_accuracy, running_best
from vitexp.study.lines import MEASURED, RELATIVE, lines_key
from vitexp.study.select import Root, select
from vitexp.study.spec import Study
from vitexp.study.table import check_runs, gaps, is_accuracy
from vitexp.study.tune import tune

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

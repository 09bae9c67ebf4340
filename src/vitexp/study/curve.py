"""A study as lines of points: accuracy against data size or another factor, or against what the runs cost.

Against a factor, the arms that differ in it alone make a line, which has a power law and crosses that of the baseline.
Against cost every arm is a point of its own. Its lines are families of networks, as in the paper's Fig. 5, or those
that the study names, as in its Fig. 8, where one arm may stand on several; they are compared at equal accuracy.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

import numpy as np

from vitexp import stats
from vitexp.metrics import is_accuracy
from vitexp.study.arm import Arm, clause, instability, is_number, name, spelling
from vitexp.study.claims import families
from vitexp.study.comparison import Comparisons, why_not
from vitexp.study.fits import (
    Crossover,
    EqualAccuracy,
    PowerLaw,
    equal_accuracy,
    find_crossover,
    fit_power_law,
    running_best,
)
from vitexp.study.lines import MEASURED, RELATIVE, lines_key
from vitexp.study.samples import sample_of
from vitexp.study.select import Root, select
from vitexp.study.spec import Study
from vitexp.study.table import Label, check_runs, gaps
from vitexp.study.tune import tune

SIZES = ("data.train_images", "data.train_fraction")
LINE = "line"
"""The key by which lines against cost are named."""
_UNLIKE = "crossovers left out, since arms of one size are not compared"
_LOOKS = (
    "seeds were added at planned looks, which the verdicts of vitexp table count: what is read off the lines takes the "
    "number of seeds as fixed"
)
FAMILIES = {families.VIT: "ViT", families.HYBRID: "Hybrid", families.RESNET: "ResNet", families.OTHER: "Own stem"}


@dataclass(frozen=True, kw_only=True)
class Point:
    """An arm at its place on the axis, with its values by seed; `images` as in `study.images`."""

    arm: Arm
    x: float
    sample: stats.Sample
    images: bool
    is_baseline: bool = False

    @property
    def values(self) -> Mapping[int, float]:
        """By seed, of the runs that count."""
        return self.sample.values

    @cached_property
    def interval(self) -> stats.Interval:
        """Mean and interval."""
        return stats.level(self.sample, self.images)

    @property
    def images_seen(self) -> list[int]:
        """The images that training went through, run by run, where the records tell it."""
        return [run.images_seen for run in self.arm.runs.values() if run.images_seen is not None]


@dataclass(frozen=True, kw_only=True)
class Line:
    """Arms that belong together in one metric, in the order of the axis."""

    label: Label
    axis: str
    metric: str
    points: tuple[Point, ...]

    @cached_property
    def fit(self) -> PowerLaw | str:
        """The power law of its error, or in words why there is none."""
        if self.axis not in SIZES:
            return "fitted over the number of training images only"
        if not is_accuracy(self.metric):
            return "fitted to accuracies only"
        sizes, (values,) = aligned(self)
        return fit_power_law(sizes, 1 - values) if len(values) else "no seed has every size"

    @property
    def best(self) -> tuple[Point, ...]:
        """The points whose mean no cheaper one matches."""
        means = [(point.x, point.interval.mean) for point in self.points]
        return tuple(self.points[means.index(found)] for found in running_best(means))


def aligned(*lines: Line) -> tuple[list[float], np.ndarray]:
    """The places that all lines have, and the values there of the seeds that have them all: (lines, seeds, places)."""
    at = [{point.x: point.values for point in line.points} for line in lines]
    places = [x for x in at[0] if all(x in line for line in at)]
    held = [set(line[x]) for line in at for x in places]
    seeds = sorted(set.intersection(*held)) if held else []
    return places, np.array([[[line[x][seed] for x in places] for seed in seeds] for line in at], dtype=float)


Compared = tuple[Line, Line, Crossover | EqualAccuracy]
"""A line, that of the baseline, and what was found: equal accuracy against cost, else the crossover."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A study along an axis: its lines by metric, and how they compare with that of the baseline."""

    study: Study
    axis: str
    lines: Mapping[str, tuple[Line, ...]]
    compared: Mapping[str, tuple[Compared, ...]]
    cautions: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def against_cost(self) -> bool:
        """Whether the axis is what the runs cost."""
        return self.axis in MEASURED

    @property
    def points(self) -> tuple[Point, ...]:
        """A point of every arm that is drawn, in whatever metric."""
        every = [point for lines in self.lines.values() for line in lines for point in line.points]
        return tuple({id(point.arm): point for point in every}.values())


def make_curve(study: Study, root: Root, where: Mapping[str, Any] | None = None) -> Curve:
    """The curve of a study from the records in `root`.

    Raises: ValueError when the study has no axis, no run is finished, or the records do not make a curve.
    """
    axis = study.config.x if study.config.x in MEASURED else size_key(study)
    if not axis:
        named = study.config.x or " or ".join(SIZES)
        raise ValueError(f"{study.path} does not vary {named}, so there is no curve; give it several values there")
    selection = tune(select(study, root, where))
    study = selection.study
    check_runs(selection)
    arms, metrics, baseline = selection.arms, study.config.metrics, study.config.baseline
    comparisons = Comparisons(arms, study.config)
    places = {id(arm): x for arm in arms if (x := _place(arm, axis, comparisons)) is not None}
    if not places:
        raise ValueError(
            f"no run in {selection.location} recorded its {axis}, so there is no axis; choose another study.x"
        )
    bases = {id(arm) for arm in arms if comparisons.baseline_of(arm) is arm}
    groups = _on_named_lines(study, arms) if axis in MEASURED else _alike_but_for(axis, study, arms)
    images, unlike = study.config.images == "such", dict[str, None]()
    lines = {metric: _lines(groups, axis, metric, places, bases, images) for metric in metrics}
    if axis in MEASURED:  # of several lines with the baseline the first by name: W&B does not keep their order
        base = min((label for label, members in groups if bases.intersection(map(id, members))), default=None)
        compared = _as_one_family(lines, lambda found, alpha: _at_equal_accuracy(found, base, alpha))
    else:
        compared = _as_one_family(lines, lambda found, alpha: _crossovers(found, baseline, alpha, comparisons, unlike))
    absent = ", ".join(name(arm) for arm in arms if arm.runs and id(arm) not in places)
    not_drawn = [f"without a recorded {axis}, and so not drawn: {absent}"] if absent else []
    looked = [_LOOKS] if selection.looks and any(compared.values()) else []
    return Curve(
        study=study,
        axis=axis,
        lines=lines,
        compared=compared,
        cautions=selection.cautions,
        notes=(*selection.notes, *gaps(arms, metrics), *not_drawn, *looked, *clause(_UNLIKE, list(unlike), 6, "; ")),
    )


def has_curve(study: Study) -> bool:
    """Whether a study has an axis."""
    return study.config.x in MEASURED or bool(size_key(study))


def size_key(study: Study) -> str:
    """The dotted key of the factor along a curve: `study.x`, or else the data size that the study varies; or none."""
    return next((key for key in (study.config.x, *SIZES) if key and key in study.arm_factors), "")


def _place(arm: Arm, axis: str, comparisons: Comparisons) -> float | None:
    """Where an arm stands: the mean cost of its runs, their training images, or the value of the key itself."""
    if axis == RELATIVE:
        base = comparisons.baseline_of(arm)
        whole, own = (None if one is None else _place(one, "train_flops", comparisons) for one in (base, arm))
        return own / whole if own and whole else None
    if axis in MEASURED:
        held = [value for run in arm.runs.values() if (value := getattr(run, axis)) and 0 < value < math.inf]
        return fmean(held) if held else None
    if not arm.runs:
        return None
    value = arm.factors[axis]
    if axis in SIZES:
        value = next((run.data["train_images"] for run in arm.runs.values() if "train_images" in run.data), value)
    if not is_number(value) or value <= 0:
        raise ValueError(
            f"{axis} is {value!r} in a cell, which has no place on a logarithmic axis; give positive numbers"
        )
    place: float = value
    return place


def _alike_but_for(axis: str, study: Study, arms: Sequence[Arm]) -> list[tuple[Label, list[Arm]]]:
    """The arms that differ in the axis alone, by what they share."""
    first = (*study.config.rows, *study.config.columns)
    found: dict[str, tuple[Label, list[Arm]]] = {}
    for arm in arms:
        order = sorted(arm.factors, key=lambda key: first.index(key) if key in first else len(first))
        label = tuple((key, arm.factors[key]) for key in order if key != axis)
        found.setdefault(spelling(label), (label, []))[1].append(arm)
    return list(found.values())


def _on_named_lines(study: Study, arms: Sequence[Arm]) -> list[tuple[Label, list[Arm]]]:
    """The arms on each line of `study.lines`, or else of each family of networks."""
    named: Mapping[str, Sequence[str]] = study.config.lines
    key = lines_key(named, [arm.factors for arm in arms]) if named else ""
    kinds = [arm.factors.get(key) if named else families.family_of(arm) for arm in arms]
    named = named or {family: [kind] for kind, family in FAMILIES.items()}
    return [
        (((LINE, line),), [arm for arm, kind in zip(arms, kinds, strict=True) if kind in held])
        for line, held in named.items()
    ]


def _lines(
    groups: Sequence[tuple[Label, Sequence[Arm]]],
    axis: str,
    metric: str,
    places: Mapping[int, float],
    bases: Collection[int],
    images: bool,
) -> tuple[Line, ...]:
    """The lines that have a point in a metric; places and baselines go by the identity of an arm."""
    found = []
    for label, arms in groups:
        points = [
            Point(arm=arm, x=places[id(arm)], sample=sample, images=images, is_baseline=id(arm) in bases)
            for arm in arms
            if id(arm) in places and (sample := sample_of(arm, metric, images)).values
        ]
        in_order = tuple(sorted(points, key=lambda point: point.x))
        found.append(Line(label=label, axis=axis, metric=metric, points=in_order))
    return tuple(line for line in found if line.points)


def _as_one_family(
    lines: Mapping[str, Sequence[Line]], compare: Callable[[Sequence[Line], float], tuple[Compared, ...]]
) -> dict[str, tuple[Compared, ...]]:
    """The comparisons in all metrics, with intervals that hold together (Bonferroni)."""
    count = sum(len(compare(found, stats.ALPHA)) for found in lines.values())
    return {metric: compare(found, stats.ALPHA / max(1, count)) for metric, found in lines.items()}


def _crossovers(
    lines: Sequence[Line], baseline: Mapping[str, Any], alpha: float, comparisons: Comparisons, unlike: dict[str, None]
) -> tuple[Compared, ...]:
    """Each line with the one that has the values of `study.baseline`, where they share places and seeds; arms that a
    table does not compare go to `unlike`.
    """
    by_label = {spelling(dict(line.label)): line for line in lines}
    found = []
    for line in lines:
        factors = dict(line.label)
        named = {key: value for key, value in baseline.items() if key in factors}
        base = by_label.get(spelling({**factors, **named}), line)
        places, (ours, theirs) = aligned(line, base)
        beside = {point.x: point.arm for point in base.points}
        pairs = [(point.arm, beside[point.x]) for point in line.points if point.x in beside]
        if whys := [f"{name(arm)} ({why})" for arm, other in pairs if (why := _why_not(arm, other, line, comparisons))]:
            unlike |= dict.fromkeys(whys)
            continue
        if base is not line and len(places) > 1 and len(ours):
            found.append((line, base, find_crossover(places, ours - theirs, alpha)))
    return tuple(found)


def _why_not(arm: Arm, base: Arm, line: Line, comparisons: Comparisons) -> str:
    """Why two arms of one size are not compared, as in a table."""
    if arm is base:
        return ""
    unstable = instability(arm) or instability(base)
    return comparisons.unlike(arm, base) or why_not(arm, base, line.metric) or unstable


def _at_equal_accuracy(lines: Sequence[Line], against: Label | None, alpha: float) -> tuple[Compared, ...]:
    """Each line with the baseline's, where both have the two points that make a line."""
    drawn = [line for line in lines if len(line.points) > 1 and is_accuracy(line.metric)]
    base = next((line for line in drawn if line.label == against), None)
    if base is None:
        return ()
    priced = {line.label: [(point.x, point.values) for point in line.points] for line in drawn}
    return tuple(
        (line, base, equal_accuracy(priced[line.label], priced[base.label], alpha))
        for line in drawn
        if line is not base
    )

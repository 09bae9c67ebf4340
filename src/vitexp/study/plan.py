"""How many seeds and test images a study takes to decide, from the runs of a pilot, and what that costs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from vitexp import stats
from vitexp.metrics import is_accuracy
from vitexp.stats.planning import Needed, half_the_room, images_within, seeds_for_effect, seeds_for_margin
from vitexp.study.arm import name
from vitexp.study.select import Root
from vitexp.study.spec import Study, as_study, check_difference
from vitexp.study.table import Entry, make_table, primary

EFFECT, MARGIN = 0.01, 0.02
"""In accuracy, where neither the command nor the study says one."""


@dataclass(frozen=True)
class Row:
    """One comparison: seeds until the effect is shown, and until no difference is shown to be within the margin."""

    arm: str
    metric: str
    pilot: int
    verdict: str
    """That the pilot gives already"""
    for_effect: Needed
    for_margin: Needed
    images: int | None
    """Test images with which the images' part leaves half of the room to the seeds; None where it does already"""


@dataclass(frozen=True)
class StudyPlan:
    """What a study takes, with what one run of it costs."""

    study: Study
    effect: float
    margin: float
    rows: tuple[Row, ...]
    comparisons: int
    """Over which the 5 % hold"""
    left_out: tuple[str, ...]
    """Arms that are not planned, with the reason"""
    cautions: tuple[str, ...]
    arms: int
    seconds: float | None
    train_flops: float | None

    @property
    def open(self) -> tuple[Row, ...]:
        """The comparisons that the pilot leaves open."""
        return tuple(row for row in self.rows if row.verdict == stats.NO_DIFFERENCE)

    def seeds(self, kind: str) -> int | None:
        """The most seeds that any of them takes; None where no number is enough."""
        counts = [getattr(row, kind).seeds for row in self.open]
        return None if any(count is None for count in counts) else max(counts, default=None)


def make_plan(
    study: str | Path | Study, root: Root = "runs", effect: float | None = None, margin: float | None = None
) -> StudyPlan:
    """From the finished runs of the study below `root`.

    Raises: ValueError where these make no pilot: under 3 seeds, without a baseline, unstable arms, or no spread.
    """
    study = as_study(study)
    if not study.config.baseline:
        raise ValueError(f"{study.path} has no study.baseline, so nothing is compared; name one, then plan")
    check_difference(effect, "--effect")
    check_difference(margin, "--margin")
    effect, margin = effect or EFFECT, margin or study.config.margin or MARGIN
    study = replace(study, config=replace(study.config, margin=margin))  # by which the pilot is judged as well
    table = make_table(study, root)
    accuracies = [metric for metric in primary(study.config) if is_accuracy(metric)]
    compared = [one for metric in accuracies for one in table.entries[metric] if not one.is_baseline]
    usable = [one for one in compared if one.judgement and one.judgement.variance]
    if not usable:
        said = sorted({_why(one) for one in compared})
        add = f"; add them with `vitexp plan {study.path} --pilot {stats.MINIMUM_SEEDS}`" if study.parameters else ""
        raise ValueError(
            f"the runs of {study.path} are no pilot ({', '.join(said) or 'no accuracy is primary'}): a plan takes "
            f"{stats.MINIMUM_SEEDS} seeds of each arm that trained, and whose accuracies are not all one{add}"
        )
    level = -math.expm1(math.log1p(-stats.ALPHA) / table.comparisons)
    runs = [run for arm in table.arms for run in arm.runs.values()]
    seconds = [run.train_seconds for run in runs if run.train_seconds]
    flops = [run.train_flops for run in runs if run.train_flops]
    return StudyPlan(
        study=study,
        effect=effect,
        margin=margin,
        rows=tuple(_row(one, effect, margin, level) for one in usable),
        comparisons=table.comparisons,
        left_out=tuple(dict.fromkeys(f"{name(one.arm)} ({_why(one)})" for one in compared if one not in usable)),
        cautions=table.cautions,
        arms=len(table.arms),
        seconds=fmean(seconds) if seconds else None,
        train_flops=fmean(flops) if flops else None,
    )


def _why(entry: Entry) -> str:
    judged = entry.judgement
    none = judged and judged.verdict not in (stats.NOT_ENOUGH, stats.UNSTABLE)
    return "no spread" if none else judged.verdict if judged else entry.left_out


def _row(entry: Entry, effect: float, margin: float, level: float) -> Row:
    judged = entry.judgement
    assert judged is not None
    for_effect, for_margin = seeds_for_effect(judged, effect, level), seeds_for_margin(judged, margin, level)
    images = _images(judged, effect, margin, level)
    return Row(name(entry.arm), entry.metric, judged.n, judged.verdict, for_effect, for_margin, images)


def _images(judged: stats.Judgement, effect: float, margin: float, level: float) -> int | None:
    """Where the images' part alone takes more than half of the variance that effect and margin allow."""
    if judged.variance is None or not judged.variance.count:
        return None
    room = min(half_the_room(effect, level), half_the_room(margin, level, (1 + stats.POWER) / 2))
    needed = images_within(judged.variance, room)
    return needed if needed > judged.variance.count else None


def pilot_seeds(study: Study, count: int) -> Sequence[int]:
    """The first seeds of a study. Raises: ValueError for fewer than a plan takes, or more than the study has."""
    seeds = sorted({cell.seed for cell in study.cells() if cell.seed is not None})
    if not stats.MINIMUM_SEEDS <= count <= len(seeds):
        raise ValueError(
            f"--pilot {count}: a pilot takes {stats.MINIMUM_SEEDS} seeds or more, and {study.path} lists {len(seeds)}"
        )
    return seeds[:count]

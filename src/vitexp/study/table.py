"""The numbers of a study's table: each arm's mean and interval, and its paired difference to the baseline.

All comparisons of accuracies in one table are one family, whatever the metric: a reader who looks for anything
significant looks at all of them. Losses, which point the other way, are a family of their own.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitexp import stats
from vitexp.study import arm as mixture
from vitexp.study.arm import Arm, is_accuracy, name
from vitexp.study.comparison import baseline_of, confounded_arms, why_not
from vitexp.study.lines import SHARDS
from vitexp.study.select import Root, Selection, select
from vitexp.study.spec import Study, StudyConfig, as_study
from vitexp.study.tune import higher_is_better, tune

# A suite of data sets: the plain mean of a metric over all of them and over each named group, as VTAB reports it.
# A mean is taken seed by seed, so that it has an interval and a paired difference like any single data set. Every
# data set counts the same, whatever its size and whatever its group.

GROUP = "study.groups"
ALL = "all"
"""The word for the mean over every data set."""


@dataclass(frozen=True, kw_only=True)
class MeanArm(Arm):
    """One network over several data sets: the seeds that all of them have, and the mean at each."""

    members: tuple[Arm, ...]

    def values(self, metric: str) -> dict[int, float]:
        """The mean over the data sets, by seed."""
        held = [member.values(metric) for member in self.members]
        seeds = sorted(set.intersection(*map(set, held)))
        return {seed: math.fsum(values[seed] for values in held) / len(held) for seed in seeds}


def mean_arms(arms: Sequence[Arm], groups: Mapping[str, Sequence[str]]) -> tuple[MeanArm, ...]:
    """The means over all data sets and over each group, for each combination of the other factors."""
    kinds: dict[str, list[Arm]] = {}
    for arm in arms if groups else ():
        rest = {key: value for key, value in arm.factors.items() if key != SHARDS}
        kinds.setdefault(mixture.text(rest), []).append(arm)
    every = {ALL: [name for names in groups.values() for name in names]} | dict(groups)
    return tuple(_mean(kind, group, names) for kind in kinds.values() for group, names in every.items())


def _mean(kind: Sequence[Arm], group: str, names: Sequence[str]) -> MeanArm:
    members = tuple(arm for arm in kind if arm.factors[SHARDS] in names)
    rest = {key: value for key, value in members[0].factors.items() if key != SHARDS}
    return MeanArm(factors={**rest, GROUP: group}, asked=members[0].asked, members=members)


Place = tuple[int, str]
"""The place of an arm among those of a table, and a metric"""
Label = tuple[tuple[str, Any], ...]
"""The dotted keys and values that name a row, a column or an arm."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One arm in one metric. `interval` is absent without a run, `judgement` also for a baseline."""

    arm: Arm
    metric: str
    values: Mapping[int, float]
    interval: stats.Interval | None
    baseline: Arm | None
    judgement: stats.Judgement | None
    left_out: str = ""
    """Why it is not compared with its baseline, where that is so"""

    @property
    def is_baseline(self) -> bool:
        """Whether other arms are compared with this one."""
        return self.arm is self.baseline


@dataclass(frozen=True, kw_only=True)
class Table:
    """A study in numbers: entries per metric in the order of `arms`, and the row and column of each arm.

    `cautions` must be read before any number, `notes` say what is missing or left out.
    """

    study: Study
    arms: tuple[Arm, ...]
    entries: Mapping[str, tuple[Entry, ...]]
    comparisons: int
    rows: tuple[Label, ...]
    columns: tuple[Label, ...]
    cautions: tuple[str, ...]
    notes: tuple[str, ...]
    means: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict)
    """Per metric the means over data sets, where the study groups them"""

    def at(self, metric: str, row: Label, column: Label) -> Entry | None:
        """The entry at a place of the layout, absent where the study has no such arm."""
        wanted = (row, column)
        return next((entry for entry in self.entries[metric] if place(entry.arm, self.study.config) == wanted), None)


def make_table(study: str | Path | Study, root: Root = "runs", where: Mapping[str, Any] | None = None) -> Table:
    """The table of a study, or of the sweep file that describes it, from the records below the folder `root`.

    `where` keeps only runs whose config has these values, by dotted key. `Study.table` gives a pandas frame of it.
    Raises: ValueError when no run is finished, or none holds a metric that the study reports.
    """
    return tabulate(tune(select(as_study(study), root, where)))


def tabulate(selection: Selection) -> Table:
    """The table of arms that are chosen already."""
    study, arms, config = selection.study, selection.arms, selection.study.config
    check_runs(selection)
    means = mean_arms(arms, config.groups)
    every = (*arms, *means)
    barred = _barred(every, study, _confounded(study, arms, means))
    judged = _judge(every, config, barred)
    places = [place(arm, config) for arm in arms]

    def entries(metric: str, indices: range) -> tuple[Entry, ...]:
        return tuple(_entry((i, metric), every, config, judged, barred.get((i, metric), "")) for i in indices)

    return Table(
        study=study,
        arms=arms,
        entries={metric: entries(metric, range(len(arms))) for metric in config.metrics},
        means={metric: entries(metric, range(len(arms), len(every))) for metric in config.metrics},
        comparisons=len(judged),
        rows=_distinct(row for row, _ in places),
        columns=_distinct(column for _, column in places),
        cautions=selection.cautions,
        notes=(*selection.notes, *gaps(arms, config.metrics), *_left_out(barred, every), *_too_few(judged, every)),
    )


def _confounded(study: Study, arms: Sequence[Arm], means: Sequence[MeanArm]) -> dict[int, str]:
    """The arms, and behind them the means over data sets of which one is so, that are confounded with the baseline."""
    found = confounded_arms(study, arms)
    places = {id(arm): index for index, arm in enumerate(arms)}
    for index, mean in enumerate(means, len(arms)):
        texts = [found[places[id(arm)]] for arm in mean.members if places[id(arm)] in found]
        found |= {index: texts[0]} if texts else {}
    return found


def place(arm: Arm, config: StudyConfig) -> tuple[Label, Label]:
    """The row and the column of an arm: factors that neither names belong to the row."""
    rest = [key for key in arm.factors if key not in config.rows and key not in config.columns]
    row, column = (
        tuple((key, arm.factors[key]) for key in keys if key in arm.factors)
        for keys in ((*config.rows, *rest), config.columns)
    )
    return row, column


def _judge(arms: Sequence[Arm], config: StudyConfig, barred: Mapping[Place, str]) -> dict[Place, stats.Judgement]:
    families: dict[tuple[bool, bool], dict[Place, stats.Difference]] = {}
    for metric in config.metrics:
        family = families.setdefault((is_accuracy(metric), higher_is_better(metric)), {})
        for index, arm in enumerate(arms):
            base = baseline_of(arm, arms, config.baseline)
            if base is not None and base is not arm and (index, metric) not in barred:
                family[index, metric] = stats.paired_difference(arm.values(metric), base.values(metric))
    judged: dict[Place, stats.Judgement] = {}
    for (accuracy, higher), family in families.items():
        judged |= stats.judge(family, margin=config.margin if accuracy else None, higher_is_better=higher)
    return judged


def _barred(arms: Sequence[Arm], study: Study, confounded: Mapping[int, str]) -> dict[Place, str]:
    """The comparisons that are left out, and why: by arm and metric. There are none without a baseline."""
    config = study.config
    found: dict[Place, str] = {}
    for index, arm in enumerate(arms):
        base = baseline_of(arm, arms, config.baseline)
        for metric in config.metrics if config.baseline and base is not arm else ():
            why = confounded.get(index) or why_not(arm, base, metric)
            found |= {(index, metric): why} if why else {}
    return found


def _left_out(barred: Mapping[Place, str], arms: Sequence[Arm]) -> list[str]:
    """One clause for all comparisons that are left out."""
    found = list(dict.fromkeys(f"{name(arms[index])} ({why})" for (index, _), why in barred.items()))
    return [f"comparisons with the baseline left out: {'; '.join(_short(found))}"] if found else []


def _too_few(judged: Mapping[Place, stats.Judgement], arms: Sequence[Arm]) -> list[str]:
    """The arms whose comparison rests on too few seeds for any verdict."""
    few = {index: one.difference.n for (index, _), one in judged.items() if one.difference.n < stats.MINIMUM_SEEDS}
    found = [f"{name(arms[index])} (n = {n})" for index, n in few.items()]
    return [f"too few seeds in common with the baseline for a verdict: {'; '.join(_short(found))}"] if found else []


def _entry(
    place: Place, arms: Sequence[Arm], config: StudyConfig, judged: Mapping[Place, stats.Judgement], left_out: str
) -> Entry:
    index, metric = place
    arm = arms[index]
    values = arm.values(metric)
    return Entry(
        arm=arm,
        metric=metric,
        values=values,
        interval=stats.interval(list(values.values())) if values else None,
        baseline=baseline_of(arm, arms, config.baseline),
        judgement=judged.get(place),
        left_out=left_out,
    )


def check_runs(selection: Selection) -> None:
    """Accepts a selection with finished runs that hold the metrics of the study.

    Raises: ValueError otherwise, saying what there is.
    """
    study, place = selection.study, selection.place
    held = sorted({metric for arm in selection.arms for run in arm.runs.values() for metric in run.metrics})
    if not any(arm.runs for arm in selection.arms):
        damaged = f"; {selection.damaged[0]}" if selection.damaged else ""
        raise ValueError(
            f"{place} holds no finished run of {study.path}; run `vitexp sweep {study.path}` or its W&B agents first"
            + damaged
        )
    for metric in study.config.metrics:
        if not any(arm.values(metric) for arm in selection.arms):
            raise ValueError(f"study.metrics: no run in {place} holds {metric}; they hold {', '.join(held)}")


def gaps(arms: Sequence[Arm], metrics: Sequence[str]) -> list[str]:
    """Runs that are asked for but not there, and finished runs without one of the metrics."""
    asked, done = sum(len(arm.asked) for arm in arms), sum(len(arm.runs) for arm in arms)
    reasons = [f"{name(arm)}: {_listed(arm.unfinished)}" for arm in arms if arm.unfinished]
    found = [f"{done} of {asked} runs are finished; {'; '.join(_short(reasons))}"] if reasons else []
    for metric in metrics:
        without = sum(len(arm.runs) - len(arm.values(metric)) for arm in arms)
        if without:
            found.append(f"{without} finished runs hold no finite {metric}")
    return found


def _listed(unfinished: Mapping[int, str]) -> str:
    """Which seeds lack a finished run, and why: `seeds 2, 3 not run`."""
    by_reason: dict[str, list[int]] = {}
    for seed, why in unfinished.items():
        by_reason.setdefault(why, []).append(seed)
    groups = (
        (f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}", why) for why, seeds in by_reason.items()
    )
    return ", ".join(f"{seeds} {why}" for seeds, why in groups)


def _short(reasons: Sequence[str], most: int = 6) -> list[str]:
    return [*reasons[:most], f"and {len(reasons) - most} more"] if len(reasons) > most else list(reasons)


def _distinct(labels: Any) -> tuple[Label, ...]:
    return tuple(label for _, label in {mixture.text(label): label for label in labels}.items())

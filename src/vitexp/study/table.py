"""The numbers of a study's table: each arm's mean and interval, and its paired difference to the baseline.

All comparisons in the study's primary metrics are one family, because a reader who looks for anything significant looks
at all of them; each exploratory metric is a family of its own. A metric without a known direction is not judged.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from vitexp import metrics, stats
from vitexp.study.added import note_of_looks
from vitexp.study.arm import Arm, clause, cut, instability, name, spelling
from vitexp.study.certificates import note_of
from vitexp.study.comparison import Comparisons, why_not
from vitexp.study.lines import SHARDS
from vitexp.study.samples import sample_of
from vitexp.study.select import Root, Runs, Selection, select
from vitexp.study.sequence import Looks
from vitexp.study.spec import Study, StudyConfig, as_study
from vitexp.study.tune import tune

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
    kinds: dict[str, tuple[dict[str, Any], list[Arm]]] = {}
    for arm in arms if groups else ():
        rest = {key: value for key, value in arm.factors.items() if key != SHARDS}
        kinds.setdefault(spelling(rest), (rest, []))[1].append(arm)
    every = {ALL: [one for names in groups.values() for one in names], **groups}
    found = []
    for rest, kind in kinds.values():
        for group, names in every.items():
            members = tuple(arm for arm in kind if arm.factors[SHARDS] in names)
            if len(members) < len(names):  # a mean over other data sets is another number
                continue
            found.append(MeanArm(factors={**rest, GROUP: group}, asked=members[0].asked, members=members))
    return tuple(found)


Label = tuple[tuple[str, Any], ...]
"""The dotted keys and values that name a row, a column or an arm."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One arm in one metric. `interval` is absent without a run, `judgement` also for a baseline."""

    arm: Arm
    metric: str
    sample: stats.Sample = field(compare=False)
    interval: stats.Interval | None
    baseline: Arm | None
    left_out: str
    """Why it is not compared with its baseline, where that is so"""
    judgement: stats.Judgement | None = None
    decision: stats.Decision | None = None
    """Of a study that gets seeds until it is decided: when its verdict fell"""

    @property
    def values(self) -> Mapping[int, float]:
        """By seed, of the runs that count."""
        return self.sample.values

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
    looks: Looks | None = None
    """Of a study that gets seeds until it is decided"""
    means: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict)
    """Per metric the means over data sets, where the study groups them"""

    def at(self, metric: str, row: Label, column: Label) -> Entry | None:
        """The entry at a place of the layout, absent where the study has no such arm."""
        return self._places[metric].get(spelling([row, column]))

    @cached_property
    def _places(self) -> dict[str, dict[str, Entry]]:
        """By metric the entries with their places; reversed, for of two at one place the first counts."""
        return {
            metric: {spelling(place(entry.arm, self.study.config)): entry for entry in reversed(entries)}
            for metric, entries in self.entries.items()
        }


def make_table(study: str | Path | Study, root: Root = "runs", where: Mapping[str, Any] | None = None) -> Table:
    """The table of a study, or of the sweep file that describes it, from the records below the folder `root`.

    `where` keeps only runs whose config has these values, by dotted key. `Study.table` gives a pandas frame of it.
    Raises: ValueError when no run is finished, or none holds a metric that the study reports.
    """
    study = as_study(study)
    here = None if isinstance(root, Runs) else Path(root) / study.name
    selection = tune(select(study, root, where))
    check_runs(selection)
    arms, config = selection.arms, selection.study.config
    looks, entries = selection.looks, judged_entries(selection)
    held = {metric: [entry for entry in entries if entry.metric == metric] for metric in config.metrics}
    places = [place(arm, config) for arm in arms]
    compared = [(one.arm, one.baseline) for one in entries if one.judgement and one.baseline and one.arm.runs]
    noted = [*note_of_looks(compared, here, looks), *note_of(arms, here)] if here else []
    return Table(
        study=selection.study,
        arms=arms,
        entries={metric: tuple(found[: len(arms)]) for metric, found in held.items()},
        means={metric: tuple(found[len(arms) :]) for metric, found in held.items()},
        comparisons=sum(one.judgement is not None and one.metric in primary(config) for one in entries),
        rows=_distinct(row for row, _ in places),
        columns=_distinct(column for _, column in places),
        looks=looks,
        cautions=selection.cautions,
        notes=(*selection.notes, *gaps(arms, config.metrics), *_left_out(entries), *noted),
    )


def judged_entries(selection: Selection) -> list[Entry]:
    """Every arm, and then every mean over data sets, in every metric, with its verdict."""
    arms, config = selection.arms, selection.study.config
    means = mean_arms(arms, config.groups)
    confounded = {id(arm): text for arm, text in zip(arms, selection.confounded, strict=True) if text}
    for mean in means:  # where one of its data sets is
        confounded |= {id(mean): confounded[id(one)] for one in reversed(mean.members) if id(one) in confounded}
    every = (*arms, *means)
    comparisons = Comparisons(every, config)
    entries = [
        _entry(arm, metric, comparisons, confounded.get(id(arm), ""))
        for arm in every
        for metric in dict.fromkeys(config.metrics)
    ]
    return _judged(entries, config, selection.looks)


def place(arm: Arm, config: StudyConfig) -> tuple[Label, Label]:
    """The row and the column of an arm: factors that neither names belong to the row."""
    rows = dict.fromkeys([*config.rows, *(key for key in arm.factors if key not in config.columns)])
    row, column = (
        tuple((key, arm.factors[key]) for key in keys if key in arm.factors) for keys in (rows, config.columns)
    )
    return row, column


def _distinct(labels: Iterable[Label]) -> tuple[Label, ...]:
    return tuple({spelling(label): label for label in labels}.values())


def _entry(arm: Arm, metric: str, comparisons: Comparisons, confounded: str) -> Entry:
    """An entry that is not judged yet. There is nothing to leave out without a baseline."""
    config, base = comparisons.config, comparisons.baseline_of(arm)
    about_such, compared = config.images == "such", config.baseline and base is not arm
    sample = sample_of(arm, metric, about_such)
    interval = stats.level(sample, about_such) if sample.values else None
    return Entry(
        arm=arm,
        metric=metric,
        sample=sample,
        interval=stats.within_shares(interval) if interval and metrics.is_share(metric) else interval,
        baseline=base,
        left_out=(confounded or why_not(arm, base, metric) or _no_direction(metric)) if compared else "",
    )


def _no_direction(metric: str) -> str:
    """Why differences in a metric cannot be called better or worse; empty where they can."""
    try:
        metrics.better(metric, "a metric of the study")
    except ValueError as error:
        return str(error)
    return ""


def primary(config: StudyConfig) -> list[str]:
    """The metrics that verdicts are about."""
    return config.primary or config.metrics


def _judged(entries: Sequence[Entry], config: StudyConfig, looks: Looks | None) -> list[Entry]:
    """The entries with their verdicts: primary metrics as one family, each other metric as one of its own.

    Where looks were planned, the primary ones have the verdicts of the looks at which they fell.
    """
    samples = {(id(entry.arm), entry.metric): entry.sample for entry in entries}
    families: dict[str, dict[int, stats.Asked]] = {}
    ranks = {metric: rank for rank, metric in enumerate(primary(config))}
    arms = {id(entry.arm): rank for rank, entry in enumerate(entries)}
    # in one order, whatever else a table shows: intervals are simulated, and their last digits depend on it
    in_order = sorted(enumerate(entries), key=lambda one: (arms[id(one[1].arm)], ranks.get(one[1].metric, 0)))
    for index, entry in in_order:
        if entry.baseline is not None and not entry.is_baseline and not entry.left_out:
            base = samples[id(entry.baseline), entry.metric]
            family = "" if entry.metric in ranks else entry.metric
            families.setdefault(family, {})[index] = stats.Asked(
                contrast=stats.Contrast(weights={entry.sample: 1.0, base: -1.0}),
                margin=config.margin if metrics.is_accuracy(entry.metric) else None,
                higher_is_better=metrics.higher_is_better(entry.metric),
                unstable=bool(instability(entry.arm) or instability(entry.baseline)),
            )
    judged: dict[int, stats.Judgement] = {}
    decided: dict[int, stats.Decision] = {}
    for family, asked in families.items():
        if looks and not family:
            decided = stats.decide(asked, looks.seeds, looks.after, images=config.images == "such")
            judged |= {index: one.judgement for index, one in decided.items()}
        else:
            judged |= stats.judge(asked, images=config.images == "such")
    return [
        replace(entry, judgement=judged.get(index), decision=decided.get(index)) for index, entry in enumerate(entries)
    ]


def _left_out(entries: Sequence[Entry]) -> list[str]:
    """The comparisons that are left out, the metrics that cannot be judged, and the arms with too few seeds for it."""
    bases = {id(one.baseline) for one in entries if one.baseline and not one.is_baseline}
    lone = dict.fromkeys(name(one.arm) for one in entries if one.is_baseline and bases and id(one.arm) not in bases)
    alone = {one.metric: one.left_out for one in entries if one.left_out and one.left_out == _no_direction(one.metric)}
    out = [one for one in entries if one.left_out and one.left_out != alone.get(one.metric)]
    each = list(dict.fromkeys(f"{name(one.arm)} ({one.left_out})" for one in out))
    pairs = {name(one.arm): one.judgement.n for one in entries if one.judgement}
    few = [f"{arm} (n = {n})" for arm, n in pairs.items() if n < stats.MINIMUM_SEEDS]
    why_lone = "baselines of their own, compared with nothing (name what they set in study.baseline too; null: not set)"
    return [
        *clause("comparisons with the baseline left out", each, most=6, between="; "),
        *clause(why_lone, list(lone), most=6, between="; "),
        *(f"{metric} is shown and not judged: {why}" for metric, why in alone.items()),
        *clause("too few seeds in common with the baseline for a verdict", few, most=6, between="; "),
    ]


def check_runs(selection: Selection) -> None:
    """Raises: ValueError for a selection without finished runs that hold the study's metrics, saying what there is."""
    check_finished(selection)
    study, location = selection.study, selection.location
    held = sorted({metric for arm in selection.arms for run in arm.runs.values() for metric in run.metrics})
    for metric in study.config.metrics:
        if not any(arm.values(metric) for arm in selection.arms):
            what = f"; they hold {', '.join(held)}" if metric not in held else " as a finite number; take it out"
            if metric not in held and metrics.change(metric):
                what = f"; `vitexp robustness {study.path}` measures it"
            raise ValueError(f"study.metrics: no run in {location} holds {metric}{what}")


def check_finished(selection: Selection) -> None:
    """Raises: ValueError for a selection without finished runs."""
    path = selection.study.path
    if not any(arm.runs for arm in selection.arms):
        raise ValueError(
            f"{selection.location} holds no finished run of {path}; run `vitexp sweep {path}` or its W&B agents first"
            + (f"; {selection.damaged[0]}" if selection.damaged else "")
        )


def gaps(arms: Sequence[Arm], metrics: Sequence[str]) -> list[str]:
    """Runs that are asked for but not there, and finished runs without one of the metrics."""
    asked, done = sum(len(arm.asked) for arm in arms), sum(len(arm.runs) for arm in arms)
    reasons = []
    for arm in arms:
        held: dict[str, list[str]] = {}
        for seed, why in arm.unfinished.items():
            held.setdefault(why, []).append(str(seed))
        texts = [f"seed{'s' if seeds[1:] else ''} {', '.join(seeds)} {why}" for why, seeds in held.items()]
        reasons += [f"{name(arm)}: {', '.join(texts)}"] if texts else []
    without = {metric: sum(len(arm.trained) - len(arm.values(metric)) for arm in arms) for metric in metrics}
    return [
        *([f"{done} of {asked} runs are finished; {cut(reasons, 6, '; ')}"] if reasons else []),
        *(f"finished runs without a finite {metric}: {count}" for metric, count in without.items() if count),
    ]

"""Why nothing follows from the runs behind a claim: they did not train, not long enough, not tuned, not alike."""

from collections.abc import Iterable, Sequence
from statistics import fmean

from vitexp.record import RunRecord, flatten
from vitexp.study.arm import Arm, at_chance, chance_of, cut, is_number, name, untrained
from vitexp.study.claims.claims import Claim
from vitexp.study.claims.contrast import Finding
from vitexp.study.comparison import unlike
from vitexp.study.spec import Study

CEILING = 0.99
"""Mean accuracy from which on all arms are as good as can be distinguished."""
FEWEST_STEPS = 100
"""Optimiser steps from scratch below which a network is at the start of its training."""
RISING = 0.05
"""Gain in validation accuracy over the last quarter of the steps from which on a training has not come to its end."""


def hindrances(claim: Claim, study: Study, finding: Finding, metric: str, every: Sequence[Arm]) -> str:
    """Every cause why the arms of a finding decide nothing, in one clause each; empty where they may.

    `every` are all arms of the study, which may tell factors apart that two of them do not.
    """
    arms = finding.arms
    causes = (
        finding.hindrance,
        *(f"not trained: {text.partition(': ')[2]}" for text in untrained(arms)),
        _floor(arms, metric),
        _too_short(arms),
        _ceiling(claim, study, arms, metric),
        _not_tuned(claim, study, arms),
        _end_of_grid(arms),
        _unequal_budgets(arms),
        _unequal_lengths(claim, arms),
        *_confounded(study, finding, every),
    )
    return "; ".join(dict.fromkeys(filter(None, causes)))


def _floor(arms: Sequence[Arm], metric: str) -> str:
    """All arms are at the level of guessing in the metric itself."""
    for arm in arms:
        run = next(iter(arm.runs.values()), None)
        chance = chance_of(run) if run else None
        if run is None or chance is None or not at_chance(_mean(arm, metric), chance, run):
            return ""
    return f"not trained: no arm is better than guessing in {metric}" if arms else ""


def _too_short(arms: Sequence[Arm]) -> str:
    runs = [(f"{name(arm)} seed {seed}", run) for arm in arms for seed, run in sorted(arm.runs.items())]
    found = [f"{run_name} ({why})" for run_name, run in runs if (why := _why_short(run))]
    found += [
        f"{name(arm)} (validation accuracy rose by {100 * gain:.1f} points in the last quarter)"
        for arm in arms
        if (gain := _still_rising(arm.runs.values())) >= RISING
    ]
    return f"too short: {cut(found)}" if found else ""


def _why_short(run: RunRecord) -> str:
    config = flatten(run.config)
    warmup, start = config.get("model.warmup_steps"), config.get("run.init")
    if not run.steps:
        return ""
    if type(warmup) is int and warmup >= run.steps:
        return f"{run.steps:,} steps, all of them warm-up"
    return f"{run.steps:,} steps from scratch" if run.steps < FEWEST_STEPS and start in (None, "none") else ""


def _still_rising(runs: Iterable[RunRecord]) -> float:
    """How much validation accuracy has gained over the last quarter of the steps, in the mean of runs that show it."""
    gains = []
    for curve in (run.curves.get("val_acc", []) for run in runs):
        before = [accuracy for step, accuracy in curve if step <= 0.75 * curve[-1][0]]
        gains += [curve[-1][1] - before[-1]] if before else []
    return fmean(gains) if gains else 0.0


def _ceiling(claim: Claim, study: Study, arms: Sequence[Arm], metric: str) -> str:
    """All arms are so good that no difference, or none beyond the margin, had room to show."""
    room = max(1 - CEILING, (study.config.margin or 0.0) if claim.expected == "alike" else 0.0)
    lowest = min((_mean(arm, metric) for arm in arms), default=0.0)
    return f"ceiling: every arm reaches {100 * lowest:.2f} % or more in {metric}" if lowest >= 1 - room else ""


def _not_tuned(claim: Claim, study: Study, arms: Sequence[Arm]) -> str:
    if not claim.tuned:
        return ""
    if claim.tuned not in study.config.tune or not all(claim.tuned in arm.tuned for arm in arms):
        return f"not tuned: {claim.tuned} was not tuned in each arm; sweep it and name it under study.tune"
    single = [name(arm) for arm in arms if len(arm.grids.get(claim.tuned, ())) < 2]
    return f"not tuned: {claim.tuned} has a single value in {cut(single)}; sweep several" if single else ""


def _end_of_grid(arms: Sequence[Arm]) -> str:
    found = [
        f"{name(arm)} ({key} {value:g} of {min(grid):g} to {max(grid):g})"
        for arm in arms
        for key, value in arm.tuned.items()
        if len(grid := [one for one in arm.grids.get(key, ()) if is_number(one)]) > 1
        and value in (min(grid), max(grid))
    ]
    return f"end of the grid: the best value may lie beyond it in {cut(found)}; widen it" if found else ""


def _unequal_budgets(arms: Sequence[Arm]) -> str:
    runs = sorted({arm.tuning_runs for arm in arms})
    if len(runs) > 1:
        return f"the arms were tuned on unequal numbers of runs ({', '.join(map(str, runs))})"
    sizes = sorted({len(grid) for arm in arms for grid in arm.grids.values()})
    return f"the arms were tuned over unequal numbers of values ({', '.join(map(str, sizes))})" if sizes[1:] else ""


def _unequal_lengths(claim: Claim, arms: Sequence[Arm]) -> str:
    """Steps that differ where values of one factor are compared, or between the seeds of one arm."""
    groups = [arms] if claim.reading == "values" else [[arm] for arm in arms]
    for group in groups:
        lengths = sorted({run.steps for arm in group for run in arm.runs.values() if run.steps is not None})
        if len(lengths) > 1:
            return f"unequal training: the runs took {lengths[0]:,} to {lengths[-1]:,} steps"
    return ""


def _confounded(study: Study, finding: Finding, every: Sequence[Arm]) -> list[str]:
    """The two sides of a contrast differ in more than what is compared."""
    pairs = [contrast.arms for contrast in finding.contrasts if len(contrast.arms) == 2]
    found = [(arm, other, text) for arm, other in pairs if (text := unlike(study, arm, other, every))]
    return [f"confounded: {name(arm)} and {name(other)} {text}" for arm, other, text in found]


def _mean(arm: Arm, metric: str) -> float:
    values = arm.values(metric)
    return fmean(values.values()) if values else 0.0

"""Why nothing follows from the runs behind a claim: they did not train, not long enough, not tuned, not alike."""

from collections.abc import Iterator, Sequence
from statistics import fmean

from vitexp.record import RunRecord, flatten
from vitexp.study.arm import Arm, at_chance, chance_of, is_number, name
from vitexp.study.cautions import cut, untrained
from vitexp.study.claims.findings import Claim, Finding, by_values
from vitexp.study.comparison import unlike
from vitexp.study.spec import Study

CEILING = 0.99
"""Mean accuracy from which on all arms are as good as can be distinguished."""
FEWEST_STEPS = 100
"""Optimiser steps from scratch below which a network is at the start of its training."""
RISING = 0.05
"""Gain in validation accuracy over the last quarter of the steps from which on a training has not come to its end."""


def objections(claim: Claim, study: Study, finding: Finding, metric: str, every: Sequence[Arm]) -> str:
    """Every cause why the arms of a finding decide nothing, in one clause each; empty where they may.

    `every` are all arms of the study, which may tell factors apart that two of them do not.
    """
    arms = finding.arms
    causes = (
        finding.objection,
        *(f"not trained: {text.partition(': ')[2]}" for text in untrained(arms)),
        *_level(claim, study, arms, metric),
        *_tuning(claim, study, arms),
        *_unequal_lengths([arms] if claim.find is by_values else [[arm] for arm in arms]),
        *_confounded(study, finding, every),
    )
    return "; ".join(dict.fromkeys(filter(None, causes)))


def _level(claim: Claim, study: Study, arms: Sequence[Arm], metric: str) -> Iterator[str]:
    """All arms are at the level of guessing, short of where they would come, or so good that no difference can show."""
    means = [fmean(arm.values(metric).values()) for arm in arms]
    first = [next(iter(arm.runs.values())) for arm in arms]
    if all(_guesses(mean, run) for mean, run in zip(means, first, strict=True)):
        yield f"not trained: no arm is better than guessing in {metric}"
    if short := [*_short_runs(arms), *_rising_arms(arms)]:
        yield f"too short: {cut(short)}"
    room = max(1 - CEILING, (study.config.margin or 0.0) if claim.expected == "alike" else 0.0)
    if min(means) >= 1 - room:
        yield f"ceiling: every arm reaches {100 * min(means):.2f} % or more in {metric}"


def _guesses(accuracy: float, run: RunRecord) -> bool:
    chance = chance_of(run)
    return chance is not None and at_chance(accuracy, chance, run)


def _short_runs(arms: Sequence[Arm]) -> Iterator[str]:
    for arm in arms:
        for seed, run in sorted(arm.runs.items()):
            config = flatten(run.config)
            warmup, from_scratch = config.get("model.warmup_steps"), config.get("run.init") in (None, "none")
            if run.steps and type(warmup) is int and warmup >= run.steps:
                yield f"{name(arm)} seed {seed} ({run.steps:,} steps, all of them warm-up)"
            elif run.steps and run.steps < FEWEST_STEPS and from_scratch:
                yield f"{name(arm)} seed {seed} ({run.steps:,} steps from scratch)"


def _rising_arms(arms: Sequence[Arm]) -> Iterator[str]:
    """How much validation accuracy has gained over the last quarter of the steps, in the mean of runs that show it."""
    for arm in arms:
        gains = []
        for curve in (run.curves.get("val_acc", []) for run in arm.runs.values()):
            before = [accuracy for step, accuracy in curve if step <= 0.75 * curve[-1][0]]
            gains += [curve[-1][1] - before[-1]] if before else []
        if gains and (gain := fmean(gains)) >= RISING:
            yield f"{name(arm)} (validation accuracy rose by {100 * gain:.1f} points in the last quarter)"


def _tuning(claim: Claim, study: Study, arms: Sequence[Arm]) -> Iterator[str]:
    """What a claim needs tuned was not, its best value is the last that was tried, or arms were tuned unequally."""
    key = claim.tuned
    single = [name(arm) for arm in arms if len(arm.grids.get(key, ())) < 2]
    if key and (key not in study.config.tune or not all(key in arm.tuned for arm in arms)):
        yield f"not tuned: {key} was not tuned in each arm; sweep it and name it under study.tune"
    elif key and single:
        yield f"not tuned: {key} has a single value in {cut(single)}; sweep several"
    at_end = [
        f"{name(arm)} ({key} {value:g} of {min(grid):g} to {max(grid):g})"
        for arm in arms
        for key, value in arm.tuned.items()
        if len(grid := [one for one in arm.grids.get(key, ()) if is_number(one)]) > 1
        and value in (min(grid), max(grid))
    ]
    if at_end:
        yield f"end of the grid: the best value may lie beyond it in {cut(at_end)}; widen it"
    runs = sorted({arm.tuning_runs for arm in arms})
    sizes = sorted({len(grid) for arm in arms for grid in arm.grids.values()})
    if len(runs) > 1:
        yield f"the arms were tuned on unequal numbers of runs ({', '.join(map(str, runs))})"
    elif len(sizes) > 1:
        yield f"the arms were tuned over unequal numbers of values ({', '.join(map(str, sizes))})"


def _unequal_lengths(groups: Sequence[Sequence[Arm]]) -> Iterator[str]:
    """Steps that differ where values of one factor are compared, or between the seeds of one arm."""
    for group in groups:
        lengths = sorted({run.steps for arm in group for run in arm.runs.values() if run.steps is not None})
        if len(lengths) > 1:
            yield f"unequal training: the runs took {lengths[0]:,} to {lengths[-1]:,} steps"


def _confounded(study: Study, finding: Finding, every: Sequence[Arm]) -> Iterator[str]:
    """The two sides of a contrast differ in more than what is compared."""
    for contrast in finding.contrasts:
        if len(contrast.arms) == 2:
            arm, other = contrast.arms
            if text := unlike(study, arm, other, every):
                yield f"confounded: {name(arm)} and {name(other)} {text}"

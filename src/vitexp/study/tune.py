"""Fair arms: each arm gets the value of a tuned setting that is best for it, chosen on the validation slice.

The test numbers of the values that were not chosen stay unread.
"""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from vitexp import metrics
from vitexp.study.arm import Arm, is_number, name, spelling
from vitexp.study.select import Selection


def tune(selection: Selection) -> Selection:
    """One arm for each configuration apart from `study.tune`, which moves from the factors to the chosen values.

    Raises: ValueError when `study.select` is unknown or a test metric, or no run of a study that tunes holds it.
    """
    keys, metric = selection.study.config.tune, selection.study.config.select
    if not keys:
        return selection
    metrics.better(metric, "study.select")
    if metrics.split_of(metric) == "test":
        raise ValueError(f"study.select is {metric}, a number of the test split; choose by val_acc or val_loss")
    candidates = [_split(arm, keys) for arm in selection.arms]
    if not any(arm.values(metric) for arm in candidates) and any(arm.runs for arm in candidates):
        raise ValueError(f"study.select is {metric}, which no run holds; choose by val_acc or val_loss")
    groups: dict[str, list[Arm]] = {}
    for arm in candidates:
        groups.setdefault(spelling(dict(arm.factors)), []).append(arm)
    arms = [_best(group, metric) for group in groups.values()]
    notes = [note for group, arm in zip(groups.values(), arms, strict=True) for note in _notes(group, arm, metric)]
    budget = _budget(list(groups.values()), metric)
    arms = [
        replace(arm, tuning_runs=_runs(group, metric), grids=_grids(group, metric, keys))
        for group, arm in zip(groups.values(), arms, strict=True)
    ]
    return replace(selection, arms=tuple(arms), notes=(*selection.notes, *notes, *budget))


def _split(arm: Arm, keys: Sequence[str]) -> Arm:
    factors = {key: value for key, value in arm.factors.items() if key not in keys}
    return replace(arm, factors=factors, tuned={key: arm.factors[key] for key in keys if key in arm.factors})


def _best(group: Sequence[Arm], metric: str) -> Arm:
    """The candidate with the best mean over the seeds that all have; of equals, the first in the study's order."""
    measured = [arm for arm in group if arm.values(metric)]
    seeds = set.intersection(*(set(arm.values(metric)) for arm in measured)) if measured else set()
    if not seeds:
        unknown = dict.fromkeys(group[0].asked, f"no common seed with {metric} to choose by")
        return replace(group[0], tuned={}, runs={}, unfinished=unknown)
    sign = 1 if metrics.higher_is_better(metric) else -1
    return max(measured, key=lambda arm: sign * fmean(arm.values(metric)[seed] for seed in sorted(seeds)))


def _notes(group: Sequence[Arm], chosen: Arm, metric: str) -> list[str]:
    """The chosen value lies at the end of its grid, or candidates were left out of the choice."""
    found = []
    for key, value in chosen.tuned.items():
        grid = sorted({arm.tuned[key] for arm in group if is_number(arm.tuned.get(key))})
        if len(grid) > 1 and value in (grid[0], grid[-1]):
            found.append(f"{name(chosen)}: the chosen {key} {value:g} ends its grid ({_span(grid)}): widen it")
    absent = sum(len(set(arm.asked) - set(arm.values(metric))) for arm in group)
    if absent:
        asked = sum(len(arm.asked) for arm in group)
        found.append(f"{name(chosen)}: chosen with {absent} of {asked} tuning runs missing")
    return found


def _budget(groups: Sequence[Sequence[Arm]], metric: str) -> list[str]:
    """Arms that were tuned on different numbers of values or of runs are not compared fairly."""
    budgets = {name(group[0]): (len(group), _runs(group, metric)) for group in groups}
    if len(set(budgets.values())) < 2:
        return []
    budgets_text = ", ".join(f"{name} {runs} runs for {values}" for name, (values, runs) in budgets.items())
    return [f"the arms had unequal tuning budgets, in runs for so many values: {budgets_text}"]


def _grids(group: Sequence[Arm], metric: str, keys: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """The values of each tuned key that have a run to choose by."""
    tried = [arm.tuned for arm in group if arm.values(metric)]
    return {key: tuple({spelling(one[key]): one[key] for one in tried if key in one}.values()) for key in keys}


def _runs(group: Sequence[Arm], metric: str) -> int:
    """The runs that a choice rests on."""
    return sum(len(arm.values(metric)) for arm in group)


def _span(grid: Sequence[float]) -> str:
    return f"{grid[0]:g} to {grid[-1]:g}"

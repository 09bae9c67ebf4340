"""Fair arms: each arm gets the value of a tuned setting that is best for it, chosen on the validation slice.

The test numbers of the values that were not chosen stay unread.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

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
    held = [arm.values(metric) for arm in selection.arms]
    if not any(held) and any(arm.runs for arm in selection.arms):
        raise ValueError(f"study.select is {metric}, which no run holds; choose by val_acc or val_loss")
    groups: dict[str, list[Arm]] = defaultdict(list)
    for arm in selection.arms:
        factors = {key: value for key, value in arm.factors.items() if key not in keys}
        tuned = {key: arm.factors[key] for key in keys if key in arm.factors}
        groups[spelling(factors)].append(replace(arm, factors=factors, tuned=tuned))
    arms, notes = [], []
    for group in groups.values():
        arms.append(_best(group, metric, keys))
        notes += _notes(group, arms[-1])
    budgets = {name(arm): (arm.tuning_runs, len(group)) for arm, group in zip(arms, groups.values(), strict=True)}
    if len(set(budgets.values())) > 1:  # not a fair comparison
        text = ", ".join(f"{name} {runs} runs for {values}" for name, (runs, values) in budgets.items())
        notes.append(f"the arms had unequal tuning budgets, in runs for so many values: {text}")
    return replace(selection, arms=tuple(arms), notes=(*selection.notes, *notes))


def _best(group: Sequence[Arm], metric: str, keys: Sequence[str]) -> Arm:
    """The candidate with the best mean over the seeds that all have; of equals, the first in the study's order."""
    measured = [(arm, arm.values(metric)) for arm in group if arm.values(metric)]
    seeds = sorted(set.intersection(*(set(values) for _, values in measured))) if measured else []
    if seeds:
        sign = 1 if metrics.higher_is_better(metric) else -1
        chosen, _ = max(measured, key=lambda pair: sign * fmean(pair[1][seed] for seed in seeds))
    else:
        unknown = dict.fromkeys(group[0].asked, f"no common seed with {metric} to choose by")
        chosen = replace(group[0], tuned={}, runs={}, unfinished=unknown)
    tried = [arm.tuned for arm, _ in measured]
    grids = {key: tuple({spelling(one[key]): one[key] for one in tried if key in one}.values()) for key in keys}
    return replace(chosen, tuning_runs=sum(len(values) for _, values in measured), grids=grids)


def _notes(group: Sequence[Arm], chosen: Arm) -> list[str]:
    """The chosen value lies at the end of its grid, or candidates were left out of the choice."""
    found = []
    for key, value in chosen.tuned.items():
        grid = sorted({arm.tuned[key] for arm in group if is_number(arm.tuned.get(key))})
        if len(grid) > 1 and value in (grid[0], grid[-1]):
            ends = f"{grid[0]:g} to {grid[-1]:g}"
            found.append(f"{name(chosen)}: the chosen {key} {value:g} ends its grid ({ends}): widen it")
    asked = sum(len(arm.asked) for arm in group)
    if absent := asked - chosen.tuning_runs:
        found.append(f"{name(chosen)}: chosen with {absent} of {asked} tuning runs missing")
    return found

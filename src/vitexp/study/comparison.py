"""Which arms of a study are compared with which, and why others are not."""

from collections.abc import Mapping, Sequence
from typing import Any

from vitexp.study import mixture
from vitexp.study.arm import Arm, name
from vitexp.study.confounded import arm_of, confounded, factors
from vitexp.study.spec import Study


def baseline_of(arm: Arm, arms: Sequence[Arm], baseline: Mapping[str, Any]) -> Arm | None:
    """The arm that `arm` is compared with: the same, but for the values that `study.baseline` names."""
    named = {key: value for key, value in baseline.items() if key in arm.factors}
    wanted = mixture.text({**arm.factors, **named})
    return next((other for other in arms if named and mixture.text(dict(other.factors)) == wanted), None)


def unlike(study: Study, arm: Arm, other: Arm, arms: Sequence[Arm]) -> str:
    """Why the difference of two arms has several causes, as the end of a sentence; empty where it has one.

    Either their runs' resolved configs differ in more than the study's factors, or they differ in several factors that
    none of `arms` tells apart.
    """
    pairs = [[runs[seed] for runs in (arm.runs, other.runs)] for seed in sorted(arm.runs.keys() & other.runs.keys())]
    moved = [key for key, value in arm.factors.items() if mixture.text(value) != mixture.text(other.factors.get(key))]
    studied = [*moved, *study.config.tune]
    also = dict.fromkeys(key for pair in pairs for key in mixture.beyond(pair, studied))
    if also:
        return f"also differ in {', '.join(also)}"
    keys = [key for key in factors(arm.factors, study.config) if all(key in one.factors for one in arms)]
    placed = [arm_of(_config(one), one.factors, keys) for one in (arm, other, *arms)]
    several = confounded(placed[0], placed[1], placed[2:], study.config)
    return f"differ in {' and '.join(several)} at once" if several else ""


def confounded_arms(study: Study, arms: Sequence[Arm]) -> dict[int, str]:
    """The arms, by their place, that differ from their baseline in more than what is compared, and in what."""
    found = {}
    for index, arm in enumerate(arms):
        base = baseline_of(arm, arms, study.config.baseline)
        if base is not None and base is not arm and (text := unlike(study, arm, base, arms)):
            found[index] = text
    return found


def cautions(study: Study, arms: Sequence[Arm]) -> list[str]:
    """The arms whose difference to the baseline has several causes."""
    found = confounded_arms(study, arms)
    texts = [f"{name(arms[index])} (it and the baseline {text})" for index, text in found.items()]
    return [f"confounded, and so not compared with the baseline: {'; '.join(texts)}"] if texts else []


def why_not(arm: Arm, base: Arm | None, metric: str) -> str:
    """Why there is no difference between an arm and its baseline in a metric; empty where there is one."""
    if base is None:
        return "the study has no arm that is its baseline"
    values, others = arm.values(metric), base.values(metric)
    if not values or not others:
        return f"no finished run of {'it' if not values else 'the baseline'} holds {metric}"
    return "" if values.keys() & others.keys() else f"no seed in common with the baseline in {metric}"


def _config(arm: Arm) -> Mapping[str, Any]:
    """The resolved config of an arm's runs."""
    return next((run.config for run in arm.runs.values()), {})

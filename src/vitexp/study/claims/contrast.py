"""Which arms of a study a claim compares: those that differ in one factor, at equal other factors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vitexp import stats
from vitexp.record import flatten
from vitexp.study.arm import Arm, spelling
from vitexp.study.claims.claims import Claim, Expected
from vitexp.study.fits import Crossover
from vitexp.study.table import Label


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A paired difference that a claim expects to be lower or higher than zero, or alike; with the arms behind it."""

    one: str
    other: str
    expected: Expected
    difference: stats.Difference
    arms: tuple[Arm, ...]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a claim finds in the arms of a study at equal other factors; `hindrance` says why nothing follows of it."""

    context: Label
    contrasts: tuple[Contrast, ...] = ()
    arms: tuple[Arm, ...] = ()
    absent: tuple[str, ...] = ()
    crossover: Crossover | None = None
    hindrance: str = ""


def by_values(claim: Claim, arms: Sequence[Arm], metric: str) -> list[Finding]:
    """The claim's pairs of values, once for each combination of the other factors that has a pair."""
    values = tuple(dict.fromkeys(value for pair in claim.pairs for value in pair))
    found = []
    for label, group in by_context(arms, [claim.axis]):
        held = {str(arm.factors[claim.axis]): arm for arm in group if claim.axis in arm.factors}
        contrasts = [
            compare(one, other, claim.expected, held[one], held[other], metric)
            for one, other in claim.pairs
            if one in held and other in held and common_seeds(held[one], held[other], metric)
        ]
        if contrasts:
            absent = tuple(value for value in values if value not in held)
            arms_behind = tuple(arm for value, arm in held.items() if value in values)
            found.append(Finding(context=label, contrasts=tuple(contrasts), arms=arms_behind, absent=absent))
    return found


def compare(one: str, other: str, expected: Expected, arm: Arm, beside: Arm, metric: str) -> Contrast:
    """`arm` minus `beside`, paired by seed."""
    difference = stats.paired_difference(arm.values(metric), beside.values(metric))
    return Contrast(one=one, other=other, expected=expected, difference=difference, arms=(arm, beside))


def by_context(arms: Sequence[Arm], axes: Sequence[str]) -> list[tuple[Label, list[Arm]]]:
    """The arms grouped by all factors that are not among `axes`."""
    groups: dict[str, tuple[Label, list[Arm]]] = {}
    for arm in arms:
        label = tuple((key, value) for key, value in arm.factors.items() if key not in axes)
        groups.setdefault(spelling(label), (label, []))[1].append(arm)
    return list(groups.values())


def common_seeds(arm: Arm, beside: Arm, metric: str) -> list[int]:
    """The seeds at which both arms have the metric."""
    return sorted(arm.values(metric).keys() & beside.values(metric).keys())


def setting_of(arm: Arm, key: str) -> Any:
    """A value of an arm: from the config of its runs, which is resolved, or else from its factors."""
    return next((flatten(run.config).get(key) for run in arm.runs.values()), arm.factors.get(key))

"""A suite of data sets: the plain mean of a metric over all of them and over each named group, as VTAB reports it.

A mean is taken seed by seed, so that it has an interval and a paired difference like any single data set. Every data
set counts the same, whatever its size and whatever its group.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vitexp.study import mixture
from vitexp.study.arm import Arm
from vitexp.study.groups import SHARDS

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

"""How sure a number is: intervals over seeds and images, families of comparisons, and what a study can show.

A quantity that the values at hand cannot give is `None`: one value has no interval, and values without any spread say
that the measure is coarse, not that it is exact. All tests are two-sided unless said otherwise.
"""

from vitexp.stats.crossed import Contrast, Sample, level
from vitexp.stats.family import (
    BETTER,
    NO_DIFFERENCE,
    NO_SPREAD,
    NOT_ENOUGH,
    UNSTABLE,
    WORSE,
    Asked,
    Judgement,
    judge,
)
from vitexp.stats.planning import Decision, decide
from vitexp.stats.samples import (
    ALPHA,
    LEVEL,
    MINIMUM_SEEDS,
    POWER,
    Interval,
    interval,
    mean_and_sd,
    proportion_interval,
    within_shares,
)

__all__ = [
    "ALPHA",
    "BETTER",
    "LEVEL",
    "MINIMUM_SEEDS",
    "NOT_ENOUGH",
    "NO_DIFFERENCE",
    "NO_SPREAD",
    "POWER",
    "UNSTABLE",
    "WORSE",
    "Asked",
    "Contrast",
    "Decision",
    "Interval",
    "Judgement",
    "Sample",
    "decide",
    "interval",
    "judge",
    "level",
    "mean_and_sd",
    "proportion_interval",
    "within_shares",
]

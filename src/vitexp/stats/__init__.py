"""How sure a number is: intervals over seeds and images, families of comparisons, and what a study can show.

A quantity that the values at hand cannot give is `None`: one value has no interval, and values without any spread say
that the measure is coarse, not that it is exact. All tests are two-sided unless said otherwise.
"""

from vitexp.stats.crossed import Contrast, Sample, level  # noqa: F401  (what other floors take from here)
from vitexp.stats.family import (  # noqa: F401
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
from vitexp.stats.planning import Decision, decide  # noqa: F401
from vitexp.stats.samples import (  # noqa: F401
    ALPHA,
    MINIMUM_SEEDS,
    POWER,
    Interval,
    interval,
    mean_and_sd,
    proportion_interval,
    within_shares,
)

"""Which comparisons of a study are left out, and why."""

from vitexp.study import mixture
from vitexp.study.arm import Arm
from vitexp.study.spec import Study


def unlike(study: Study, arm: Arm, other: Arm) -> str:
    """In what two arms differ besides what the study varies on purpose, as the end of a sentence; empty if in nothing.

    The configs of their runs are compared, because they are resolved.
    """
    pairs = [[runs[seed] for runs in (arm.runs, other.runs)] for seed in sorted(arm.runs.keys() & other.runs.keys())]
    studied = [*arm.factors, *arm.tuned, *other.tuned]
    keys = dict.fromkeys(key for pair in pairs for key in mixture.beyond(pair, studied))
    return f"also differ in {', '.join(keys)}" if keys else ""
